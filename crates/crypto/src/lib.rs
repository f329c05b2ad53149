//! The algorithms that [`base::algorithm`] names, computed by well-kept libraries.
//!
//! | module | what | computed by |
//! | --- | --- | --- |
//! | [`mod@prf`] | HMAC as a pseudo-random function, prf+ (RFC 7296 §2.13), the plain hashes | RustCrypto |
//! | [`integrity`] | HMAC truncated to a checksum (RFC 2403, 2404, 4868) | RustCrypto |
//! | [`cbc`] | AES-CBC (RFC 3602), 3DES-CBC (RFC 2451) | aws-lc, RustCrypto |
//! | [`aead`] | AES-GCM (RFC 4106), ChaCha20-Poly1305 (RFC 7634) | aws-lc |
//! | [`dh`] | MODP, NIST curves, Curve25519 | crypto-bigint, aws-lc |
//!
//! Keys are zeroed when dropped and no `Debug` shows a byte of one. Temporary copies that a library
//! leaves on the stack are out of reach and stay until overwritten. Randomness comes in as
//! [`base::Random`], so a run can be repeated.
//!
//! Left out: signatures and certificates (authentication is by pre-shared key), padding, and the
//! layout of packets, which belong to `ike` and `esp`.

pub mod aead;
pub mod cbc;
pub mod dh;
mod hmac;
pub mod integrity;
pub mod prf;

use std::fmt;

pub use aead::AeadKey;
pub use cbc::CbcKey;
pub use dh::{BadPublicValue, KeyPair};
pub use integrity::{HmacKey, Icv};
pub use prf::{PrfKey, hash, prf, prf_plus};

/// A key was offered to an algorithm that it does not fit: the length differs from what
/// [`base::algorithm`] says, or the algorithm is not of the kind that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadKey;

impl fmt::Display for BadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the key does not fit the algorithm")
    }
}

impl std::error::Error for BadKey {}

/// The initialization vector is not one block, or the data are not whole blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadLength;

impl fmt::Display for BadLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the data are not whole cipher blocks")
    }
}

impl std::error::Error for BadLength {}

/// The tag does not belong to the data: forged, corrupted, or made with another key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forged;

impl fmt::Display for Forged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the tag does not belong to the data")
    }
}

impl std::error::Error for Forged {}

#[cfg(test)]
pub(crate) fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    let nibble = |b: u8| char::from(b).to_digit(16).unwrap() as u8;
    digits.chunks(2).map(|pair| nibble(pair[0]) << 4 | nibble(pair[1])).collect()
}
