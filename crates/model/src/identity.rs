//! What a peer says it is.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// An identity (RFC 2407 §4.6.2, RFC 7296 §3.5).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Identity {
    /// Whatever the peer says (`%any`); never sent.
    Any,
    /// ID_IPV4_ADDR or ID_IPV6_ADDR.
    Ip(IpAddr),
    /// ID_IPV4_ADDR_SUBNET or ID_IPV6_ADDR_SUBNET.
    Subnet(IpNet),
    /// ID_FQDN.
    Fqdn(String),
    /// ID_USER_FQDN, ID_RFC822_ADDR.
    UserFqdn(String),
    /// ID_KEY_ID.
    KeyId(Vec<u8>),
    /// Any other type, as it stands on the wire.
    Other {
        /// Identification type.
        kind: u8,
        /// Its bytes.
        data: Vec<u8>,
    },
}

/// How well an identity fits what was expected: a better match wins a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IdentityMatch {
    /// It does not fit.
    No,
    /// It fits `%any`.
    Any,
    /// It is the one expected.
    Exact,
}

impl Identity {
    /// How `self`, as received, fits `expected`. Names compare without regard to ASCII case.
    pub fn fits(&self, expected: &Self) -> IdentityMatch {
        let same = match (self, expected) {
            (_, Self::Any) => return IdentityMatch::Any,
            (Self::Fqdn(a), Self::Fqdn(b)) | (Self::UserFqdn(a), Self::UserFqdn(b)) => a.eq_ignore_ascii_case(b),
            (a, b) => a == b,
        };
        if same { IdentityMatch::Exact } else { IdentityMatch::No }
    }
}

impl FromStr for Identity {
    type Err = std::convert::Infallible;

    /// Reads an identity as ipsec.conf writes it: `%any`, an address, a prefix, `@name` or a bare name
    /// for FQDN, `user@name`, `@#hex` for a key ID.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(if text.is_empty() || text == "%any" || text == "*" {
            Self::Any
        } else if let Ok(ip) = text.parse() {
            Self::Ip(ip)
        } else if let Some(net) = text.contains('/').then(|| text.parse().ok()).flatten() {
            Self::Subnet(net)
        } else if let Some(key_id) = text.strip_prefix("@#").and_then(hex) {
            Self::KeyId(key_id)
        } else if let Some(user) = text.strip_prefix("@@") {
            Self::UserFqdn(user.to_owned())
        } else if let Some(name) = text.strip_prefix('@') {
            Self::Fqdn(name.to_owned())
        } else if text.contains('@') {
            Self::UserFqdn(text.to_owned())
        } else {
            Self::Fqdn(text.to_owned())
        })
    }
}

/// Reads pairs of hexadecimal digits, with or without `0x` in front.
fn hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("0x").unwrap_or(text).as_bytes();
    if digits.is_empty() || digits.len() % 2 == 1 {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    digits.chunks(2).map(|pair| u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()).collect()
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What a peer sent is shown without its control characters: it ends in logs and terminals.
        let printable =
            |text: &str| text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect::<String>();
        let in_hex = |data: &[u8]| data.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        match self {
            Self::Any => f.write_str("%any"),
            Self::Ip(ip) => write!(f, "{ip}"),
            Self::Subnet(net) => write!(f, "{net}"),
            Self::Fqdn(name) => write!(f, "@{}", printable(name)),
            Self::UserFqdn(name) if name.contains('@') => f.write_str(&printable(name)),
            Self::UserFqdn(name) => write!(f, "@@{}", printable(name)),
            Self::KeyId(data) => write!(f, "@#{}", in_hex(data)),
            Self::Other { kind, data } => write!(f, "type {kind}: {}", in_hex(data)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> Identity {
        let Ok(id) = text.parse();
        id
    }

    #[test]
    fn every_written_form_comes_back_as_it_was() {
        for text in
            ["%any", "3.37.222.142", "2001:db8::1", "10.0.0.0/8", "@vpn.example.com", "ops@example.com", "@#0aff"]
        {
            assert_eq!(id(text).to_string(), text);
        }
        assert_eq!(id("vpn.example.com"), id("@vpn.example.com"));
    }

    #[test]
    fn names_match_without_regard_to_case_and_any_matches_all() {
        assert_eq!(id("@A.example").fits(&id("@a.EXAMPLE")), IdentityMatch::Exact);
        assert_eq!(id("@a").fits(&id("@b")), IdentityMatch::No);
        assert_eq!(id("@a").fits(&Identity::Any), IdentityMatch::Any);
        assert_eq!(id("10.0.0.1").fits(&id("@10.0.0.1")), IdentityMatch::No);
    }

    #[test]
    fn a_peers_name_cannot_drive_the_terminal() {
        assert!(!Identity::Fqdn("\u{1b}[2J".into()).to_string().contains('\u{1b}'));
    }
}
