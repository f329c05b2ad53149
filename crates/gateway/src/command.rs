//! What a person may order, and what is said when it cannot be done.

use std::fmt;

/// An order about one connection. Its target is `CONNECTION`, `CONNECTION/CHILD`, or the name of a child that only
/// one connection has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Bring it up, and keep it up as its configuration says.
    Up(String),
    /// Take it down, and keep it down until it is ordered up or the peer begins.
    Down(String),
    /// Move its traffic to other tunnels, wait until it is quiet, then take it down.
    Drain(String),
    /// Make new keys.
    Rekey {
        /// Whose.
        target: String,
        /// Which.
        what: RekeyWhat,
    },
}

/// Which keys to make anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RekeyWhat {
    /// Those that carry packets.
    #[default]
    Children,
    /// Those of the IKE SA.
    Ike,
}

impl Command {
    /// Whom it is about, as it was written.
    pub fn target(&self) -> &str {
        match self {
            Self::Up(target) | Self::Down(target) | Self::Drain(target) | Self::Rekey { target, .. } => target,
        }
    }
}

/// Why an order was not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// No connection has this name.
    UnknownConnection {
        /// The name.
        name: String,
        /// The name that was probably meant.
        nearest: Option<String>,
    },
    /// The connection has no such child.
    UnknownChild {
        /// The connection.
        connection: String,
        /// The name.
        child: String,
        /// The name that was probably meant.
        nearest: Option<String>,
    },
    /// The peer's address is not known, so only the peer can begin.
    NoAddress {
        /// The connection.
        connection: String,
    },
    /// Its traffic has nowhere else to go.
    NoAlternative {
        /// The connection.
        connection: String,
    },
    /// There are no keys to make anew.
    NotUp {
        /// The connection.
        connection: String,
    },
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nearest = match self {
            Self::UnknownConnection { name, nearest } => {
                write!(f, "there is no connection {name}")?;
                nearest
            }
            Self::UnknownChild { connection, child, nearest } => {
                write!(f, "connection {connection} has no child {child}")?;
                nearest
            }
            Self::NoAddress { connection } => {
                return write!(f, "the peer's address of {connection} is not known; only the peer can begin");
            }
            Self::NoAlternative { connection } => {
                return write!(
                    f,
                    "{connection} cannot be drained: no other tunnel is fit to carry its traffic; `down` takes it down all the same"
                );
            }
            Self::NotUp { connection } => return write!(f, "{connection} is not up"),
        };
        match nearest {
            Some(name) => write!(f, "; did you mean {name}?"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for CommandError {}

/// The known name that `word` was probably meant to be.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let word = word.to_lowercase();
    let distance = |name: &str| strsim::damerau_levenshtein(&word, &name.to_lowercase());
    let (best, name) = known.into_iter().map(|name| (distance(name), name)).min_by_key(|(distance, _)| *distance)?;
    (best <= (word.chars().count() / 3).max(1)).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_name_leads_to_the_nearest_one() {
        assert_eq!(nearest("tunel1", ["Tunnel1", "Tunnel2"]), Some("Tunnel1".to_owned()));
        assert_eq!(nearest("office", ["Tunnel1"]), None);
        let error = CommandError::UnknownConnection { name: "tunel1".into(), nearest: Some("Tunnel1".into()) };
        assert_eq!(error.to_string(), "there is no connection tunel1; did you mean Tunnel1?");
    }
}
