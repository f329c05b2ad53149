//! Where a setting was written, so that a message can name the line to change.

use std::fmt;
use std::sync::Arc;

/// A setting that a negotiation can fail over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Setting {
    /// The connection itself: the line that opens it.
    Connection,
    /// The version of IKE.
    Version,
    /// Our address.
    LocalAddress,
    /// The peer's address.
    RemoteAddress,
    /// Our identity.
    LocalId,
    /// The peer's identity.
    RemoteId,
    /// The pre-shared key.
    Psk,
    /// Phase 1 proposals.
    Ike,
    /// Phase 2 proposals and PFS.
    Esp,
    /// Our traffic.
    LocalSelector,
    /// The peer's traffic.
    RemoteSelector,
    /// Lifetimes.
    Lifetime,
}

impl Setting {
    /// What the setting is called in a sentence.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Version => "IKE version",
            Self::LocalAddress => "local address",
            Self::RemoteAddress => "remote address",
            Self::LocalId => "local identity",
            Self::RemoteId => "remote identity",
            Self::Psk => "pre-shared key",
            Self::Ike => "phase 1 proposal",
            Self::Esp => "phase 2 proposal",
            Self::LocalSelector => "local traffic selector",
            Self::RemoteSelector => "remote traffic selector",
            Self::Lifetime => "lifetime",
        }
    }
}

/// A line of a file. For a secret, `text` is not the line itself but says that it holds one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The file as it was named.
    pub file: Arc<str>,
    /// The line, counted from 1.
    pub line: u32,
    /// The line as written, trimmed.
    pub text: Arc<str>,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.text)
    }
}

/// The lines that a connection's settings come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources(Vec<(Setting, Source)>);

impl Sources {
    /// Remembers where `setting` was written; the last one said counts.
    pub fn set(&mut self, setting: Setting, source: Source) {
        match self.0.iter_mut().find(|(known, _)| *known == setting) {
            Some((_, known)) => *known = source,
            None => self.0.push((setting, source)),
        }
    }

    /// Where `setting` was written; where it was not, where the connection begins.
    pub fn of(&self, setting: Setting) -> Option<&Source> {
        let find = |wanted| self.0.iter().find(|(known, _)| *known == wanted).map(|(_, source)| source);
        find(setting).or_else(|| find(Setting::Connection))
    }

    /// Whether `setting` itself was written (not only its connection).
    pub fn names(&self, setting: Setting) -> bool {
        self.0.iter().any(|(known, _)| *known == setting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_was_not_written_leads_to_its_connection() {
        let source = |line| Source { file: "a.conf".into(), line, text: "x".into() };
        let mut sources = Sources::default();
        sources.set(Setting::Connection, source(1));
        sources.set(Setting::Ike, source(4));
        sources.set(Setting::Ike, source(5));
        assert_eq!(sources.of(Setting::Ike).map(|s| s.line), Some(5));
        assert_eq!(sources.of(Setting::Esp).map(|s| s.line), Some(1));
        assert!(!sources.names(Setting::Esp));
    }
}
