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
