//! Whose fault it was: the sentence every decoder and handshake error can be sorted into.

/// Bytes ended before a field did, or a field does not hold what its place allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Malformed {
    /// Fewer bytes than the structure needs.
    Truncated,
    /// A length field that does not agree with the bytes that are there.
    BadLength,
    /// A field whose value the standard forbids; which one.
    BadField(&'static str),
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Truncated => f.write_str("truncated"),
            Self::BadLength => f.write_str("a length does not fit"),
            Self::BadField(name) => write!(f, "bad {name}"),
        }
    }
}

impl std::error::Error for Malformed {}
