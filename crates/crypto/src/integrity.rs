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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::hex;

    #[test]
    fn checksums_agree_with_rfc_2202_and_rfc_4868() {
        let vectors: [(Integrity, &[u8], &str); 5] = [
            (Integrity::Md5, &[0x0b; 16], "9294727a3638bb1c13f48ef8"),
            (Integrity::Sha1, &[0x0b; 20], "b617318655057264e28bc0b6"),
            // RFC 4868 §2.7.2.1 to §2.7.2.3, test case AUTH-1
            (Integrity::Sha256, &[0x0b; 32], "198a607eb44bfbc69903a0f1cf2bbdc5"),
            (Integrity::Sha384, &[0x0b; 48], "b6a8d5636f5c6a7224f9977dcf7ee6c7fb6d0c48cbdee973"),
            (Integrity::Sha512, &[0x0b; 64], "637edc6e01dce7e6742a99451aae82df23da3e92439e590e43e761b33e910fb8"),
        ];
        for (integrity, key, expected) in vectors {
            let key = HmacKey::new(integrity, key);
            assert_eq!(key.sign(&[b"Hi ", b"There"]).as_ref(), hex(expected));
            assert!(key.verify(&[b"Hi There"], &hex(expected)));
        }
    }

    #[test]
    fn a_key_is_small_and_prints_none_of_its_bytes() {
        let key = HmacKey::new(Integrity::Sha256, b"cloudneta");
        assert_eq!(format!("{key:?}"), "HmacKey(sha256 {secret})");
        assert!(size_of::<HmacKey>() <= 200);
    }

    proptest! {
        #[test]
        fn only_the_whole_unchanged_checksum_is_accepted(
            data: Vec<u8>, key: Vec<u8>, which in 0..5_usize, bit: usize, len in 0..40_usize,
        ) {
            let key = HmacKey::new(Integrity::ALL[which], &key);
            let mut icv = key.sign(&[&data]).as_ref().to_vec();
            prop_assert_eq!(icv.len(), key.integrity().icv_len());
            prop_assert!(key.verify(&[&data], &icv));

            let other_length: Vec<u8> = icv.iter().copied().cycle().take(len).collect();
            prop_assert_eq!(key.verify(&[&data], &other_length), len == icv.len());

            let bit = bit % (icv.len() * 8);
            icv[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!key.verify(&[&data], &icv));
        }
    }
}
