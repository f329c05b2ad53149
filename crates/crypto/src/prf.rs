//! Pseudo-random functions, key expansion and the plain hashes (RFC 2104, RFC 7296 §2.13).

use std::fmt;

use base::Secret;
use base::algorithm::Prf;
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};
use zeroize::Zeroizing;

use crate::hmac::Hmac;

/// prf(key, parts joined). To use one key several times, make a [`PrfKey`].
pub fn prf(prf: Prf, key: &[u8], parts: &[&[u8]]) -> Secret {
    PrfKey::new(prf, key).compute(parts)
}

/// A PRF with its key set: about two hash blocks cheaper for each use than [`prf`].
#[derive(Clone)]
pub struct PrfKey(Hmac);

impl PrfKey {
    /// Sets the key, which may have any length.
    pub fn new(prf: Prf, key: &[u8]) -> Self {
        Self(Hmac::new(prf, key))
    }

    /// The function.
    pub fn prf(&self) -> Prf {
        self.0.prf()
    }

    /// prf(key, parts joined), [`Prf::output_len`] bytes.
    pub fn compute(&self, parts: &[&[u8]]) -> Secret {
        Secret::from(self.0.compute(parts).as_bytes())
    }
}

impl fmt::Debug for PrfKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrfKey({} {{secret}})", self.prf())
    }
}

/// The first `len` bytes of prf+(key, seed parts joined), RFC 7296 §2.13:
/// T1 = prf(K, S | 0x01), Tn = prf(K, Tn-1 | S | n), prf+ = T1 | T2 | ...
///
/// # Panics
///
/// When `len` is above 255 outputs, where the RFC ends. Lengths are sums of key sizes, which stay
/// far below it.
pub fn prf_plus(prf: Prf, key: &[u8], seed: &[&[u8]], len: usize) -> Secret {
    assert!(len <= 255 * prf.output_len(), "prf+ ends after 255 outputs");
    let key = Hmac::new(prf, key);
    let mut expanded = Zeroizing::new(Vec::with_capacity(len));
    let mut block = None;
    for n in 1..=u8::MAX {
        if expanded.len() == len {
            break;
        }
        let counter = [n];
        let next = {
            let previous = block.as_ref().map_or(&[][..], crate::hmac::Tag::as_bytes);
            let parts: Vec<&[u8]> = [previous].into_iter().chain(seed.iter().copied()).chain([&counter[..]]).collect();
            key.compute(&parts)
        };
        let wanted = (len - expanded.len()).min(next.as_bytes().len());
        expanded.extend_from_slice(&next.as_bytes()[..wanted]);
        block = Some(next);
    }
    Secret::from(expanded.as_slice())
}

/// The hash under `prf`, without a key, over the parts joined: IKEv1 initialization vectors and
/// NAT-D (RFC 2409 App. B, RFC 3947 §3.2), IKEv2 NAT detection (SHA-1, RFC 7296 §2.23).
pub fn hash(prf: Prf, parts: &[&[u8]]) -> Vec<u8> {
    fn digest<D: Digest>(parts: &[&[u8]]) -> Vec<u8> {
        let mut state = D::new();
        for part in parts {
            state.update(part);
        }
        state.finalize().to_vec()
    }
    match prf {
        Prf::Md5 => digest::<Md5>(parts),
        Prf::Sha1 => digest::<Sha1>(parts),
        Prf::Sha256 => digest::<Sha256>(parts),
        Prf::Sha384 => digest::<Sha384>(parts),
        Prf::Sha512 => digest::<Sha512>(parts),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::hex;

    #[test]
    fn the_functions_agree_with_rfc_2202_and_rfc_4231() {
        let long_key = b"Test Using Larger Than Block-Size Key - Hash Key First";
        let jefe: &[u8] = b"what do ya want for nothing?";
        let vectors: [(Prf, &[u8], &[u8], &str); 12] = [
            // RFC 2202 §2 and §3, test cases 1, 2 and 6
            (Prf::Md5, &[0x0b; 16], b"Hi There", "9294727a3638bb1c13f48ef8158bfc9d"),
            (Prf::Md5, b"Jefe", jefe, "750c783e6ab0b503eaa86e310a5db738"),
            (Prf::Md5, &[0xaa; 80], long_key, "6b1ab7fe4bd7bf8f0b62e6ce61b9d0cd"),
            (Prf::Sha1, &[0x0b; 20], b"Hi There", "b617318655057264e28bc0b6fb378c8ef146be00"),
            (Prf::Sha1, b"Jefe", jefe, "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
            (Prf::Sha1, &[0xaa; 80], long_key, "aa4ae5e15272d00e95705637ce8a3b55ed402112"),
            // RFC 4231 §4.3 and §4.7
            (Prf::Sha256, b"Jefe", jefe, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
            (Prf::Sha256, &[0xaa; 131], long_key, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"),
            (
                Prf::Sha384,
                b"Jefe",
                jefe,
                "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
            ),
            (
                Prf::Sha384,
                &[0xaa; 131],
                long_key,
                "4ece084485813e9088d2c63a041bc5b44f9ef1012a2b588f3cd11f05033ac4c60c2ef6ab4030fe8296248df163f44952",
            ),
            (
                Prf::Sha512,
                b"Jefe",
                jefe,
                "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554\
                 9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
            ),
            (
                Prf::Sha512,
                &[0xaa; 131],
                long_key,
                "80b24263c7c1a3ebb71493c1dd7be8b49b46d1f41b4aeec1121b013783f8f352\
                 6b56d037e05f2598bd0fd2215d6a1e5295e64f73f63f0aec8b915a985d786598",
            ),
        ];
        for (function, key, data, expected) in vectors {
            assert_eq!(prf(function, key, &[data]).expose(), hex(expected), "{function}");
        }
    }

    #[test]
    fn the_hashes_of_abc_are_the_published_ones() {
        // RFC 1321 App. A.5, FIPS 180-4 examples
        let abc: [&[u8]; 3] = [b"a", b"", b"bc"];
        assert_eq!(hash(Prf::Md5, &abc), hex("900150983cd24fb0d6963f7d28e17f72"));
        assert_eq!(hash(Prf::Sha1, &abc), hex("a9993e364706816aba3e25717850c26c9cd0d89d"));
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash(Prf::Sha256, &abc), hex(sha256));
        for prf in Prf::ALL {
            assert_eq!(hash(prf, &[]).len(), prf.output_len());
        }
    }

    #[test]
    fn prf_plus_matches_another_implementation() {
        // Computed with Python's hmac module from the formula of RFC 7296 §2.13.
        let key: Vec<u8> = (0..20).collect();
        let seed: [&[u8]; 2] = [b"simplon prf+", b" seed"];
        let expected = "18f2d141512b0a3b19519d95508d2304841ace01ec49b456c5ef7859399c1a02\
                        f4363c05ab567c3a2ebbf96d1746baa4f2e627c06c2da3584cd9956213779ca5\
                        25793961e36b2cab20faa4624adc527600337e57622218969b9138efd05cf3af19ac7599";
        assert_eq!(prf_plus(Prf::Sha256, &key, &seed, 100).expose(), hex(expected));
        let longest = prf_plus(Prf::Sha256, &key, &seed, 255 * 32);
        let sha256 = "cc7346dad95488ec692659ba6cbc29fa6e160ab0bb7715b3b1a746b7682744e1";
        assert_eq!(hash(Prf::Sha256, &[longest.expose()]), hex(sha256));
    }

    #[test]
    #[should_panic(expected = "prf+ ends after 255 outputs")]
    fn prf_plus_does_not_go_beyond_its_counter() {
        prf_plus(Prf::Sha1, b"key", &[], 255 * 20 + 1);
    }

    #[test]
    fn debug_output_of_a_key_holds_no_byte_of_it() {
        assert_eq!(format!("{:?}", PrfKey::new(Prf::Sha1, b"cloudneta")), "PrfKey(sha1 {secret})");
    }

    proptest! {
        #[test]
        fn parts_count_as_joined(key: Vec<u8>, data: Vec<u8>, cut in 0..100_usize, which in 0..5_usize) {
            let function = Prf::ALL[which];
            let (a, b) = data.split_at(cut.min(data.len()));
            let whole = prf(function, &key, &[&data]);
            prop_assert_eq!(whole.len(), function.output_len());
            prop_assert_eq!(&prf(function, &key, &[a, b, b""]), &whole);
            let set = PrfKey::new(function, &key);
            prop_assert_eq!(set.compute(&[a, b]), set.clone().compute(&[&data]));
            prop_assert_eq!(hash(function, &[a, b]), hash(function, &[&data]));
        }

        #[test]
        fn a_shorter_expansion_is_the_beginning_of_a_longer_one(len in 0..300_usize, which in 0..5_usize) {
            let function = Prf::ALL[which];
            let long = prf_plus(function, b"key", &[b"seed"], 300);
            let short = prf_plus(function, b"key", &[b"se", b"ed"], len);
            prop_assert_eq!(short.expose(), &long.expose()[..len]);
        }
    }
}
