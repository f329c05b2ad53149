//! Integrity checksums: HMAC truncated (RFC 2403, RFC 2404, RFC 4868).

use std::fmt;

use base::algorithm::Integrity;
use subtle::ConstantTimeEq;

use crate::hmac::Hmac;

/// The longest truncated checksum, that of HMAC-SHA2-512-256.
const MAX_ICV_LEN: usize = 32;

/// An integrity key with its two hash states computed in advance; at most 200 bytes in memory.
#[derive(Clone)]
pub struct HmacKey {
    integrity: Integrity,
    hmac: Hmac,
}

impl HmacKey {
    /// Sets the key. Peers agree on [`Integrity::key_len`] bytes; HMAC itself takes any length.
    pub fn new(integrity: Integrity, key: &[u8]) -> Self {
        Self { integrity, hmac: Hmac::new(integrity.prf(), key) }
    }

    /// The algorithm.
    pub fn integrity(&self) -> Integrity {
        self.integrity
    }

    /// The checksum over the parts, one after another.
    pub fn sign(&self, parts: &[&[u8]]) -> Icv {
        let tag = self.hmac.compute(parts);
        let len = self.integrity.icv_len();
        let mut bytes = [0; MAX_ICV_LEN];
        bytes[..len].copy_from_slice(&tag.as_bytes()[..len]);
        Icv { bytes, len }
    }

    /// Whether `icv` is the whole checksum over the parts. Takes the same time for every wrong one.
    #[must_use]
    pub fn verify(&self, parts: &[&[u8]], icv: &[u8]) -> bool {
        self.sign(parts).as_ref().ct_eq(icv).into()
    }
}

impl fmt::Debug for HmacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HmacKey({} {{secret}})", self.integrity)
    }
}

/// An integrity check value of [`Integrity::icv_len`] bytes. Compare it with [`HmacKey::verify`].
#[derive(Clone, Copy, Debug)]
pub struct Icv {
    bytes: [u8; MAX_ICV_LEN],
    len: usize,
}

impl AsRef<[u8]> for Icv {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}
