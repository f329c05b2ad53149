//! Key material: zeroed when dropped, never printed.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bytes that must not leak. There is no `Display`; `Debug` prints `{secret}`; equality takes
/// constant time; the bytes are zeroed when it is dropped.
#[derive(Clone, Default, Zeroize, ZeroizeOnDrop)]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// Takes the bytes over.
    pub fn new(bytes: impl Into<Box<[u8]>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes themselves. Whoever calls this keeps them out of logs, errors and copies.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The number of bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Vec<u8>> for Secret {
    fn from(mut bytes: Vec<u8>) -> Self {
        // `into_boxed_slice` may move the bytes and leave the old place as it was: copy, then zero.
        let secret = Self(bytes.as_slice().into());
        bytes.zeroize();
        secret
    }
}

impl From<&[u8]> for Secret {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{secret}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_holds_no_byte_of_a_secret() {
        let key = Secret::from(&b"cloudneta"[..]);
        assert_eq!(format!("{key:?} {:#?}", Some(&key)), "{secret} Some(\n    {secret},\n)");
        assert_eq!(key.expose(), b"cloudneta");
    }

    #[test]
    fn secrets_compare_by_value() {
        assert_eq!(Secret::from(vec![1, 2]), Secret::from(&[1u8, 2][..]));
        assert_ne!(Secret::from(vec![1, 2]), Secret::from(vec![1, 2, 3]));
    }
}
