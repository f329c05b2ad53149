//! HMAC (RFC 2104) with the two key blocks hashed once, when the key is set.
//!
//! Only the two mid-states are kept, 160 bytes at most and no block buffer, because a gateway holds
//! several such keys for each of thousands of tunnels.

use ::hmac::block_api::HmacCore;
use ::hmac::digest::block_api::{CoreProxy, EagerHash};
use ::hmac::digest::{FixedOutput, KeyInit, Update};
use base::algorithm::Prf;
use md5::Md5;
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};
use zeroize::Zeroize;

/// The longest output of any hash here.
const MAX_LEN: usize = 64;

/// An HMAC key as its two mid-states, which are zeroed when dropped.
#[derive(Clone)]
pub(crate) enum Hmac {
    Md5(HmacCore<Md5>),
    Sha1(HmacCore<Sha1>),
    Sha256(HmacCore<Sha256>),
    Sha384(HmacCore<Sha384>),
    Sha512(HmacCore<Sha512>),
}

impl Hmac {
    /// A key of any length; one longer than a block is hashed first (RFC 2104 §2).
    pub(crate) fn new(prf: Prf, key: &[u8]) -> Self {
        match prf {
            Prf::Md5 => Self::Md5(keyed(key)),
            Prf::Sha1 => Self::Sha1(keyed(key)),
            Prf::Sha256 => Self::Sha256(keyed(key)),
            Prf::Sha384 => Self::Sha384(keyed(key)),
            Prf::Sha512 => Self::Sha512(keyed(key)),
        }
    }

    pub(crate) fn prf(&self) -> Prf {
        match self {
            Self::Md5(_) => Prf::Md5,
            Self::Sha1(_) => Prf::Sha1,
            Self::Sha256(_) => Prf::Sha256,
            Self::Sha384(_) => Prf::Sha384,
            Self::Sha512(_) => Prf::Sha512,
        }
    }

    /// HMAC over the parts, one after another.
    pub(crate) fn compute(&self, parts: &[&[u8]]) -> Tag {
        match self {
            Self::Md5(core) => tag(core, parts),
            Self::Sha1(core) => tag(core, parts),
            Self::Sha256(core) => tag(core, parts),
            Self::Sha384(core) => tag(core, parts),
            Self::Sha512(core) => tag(core, parts),
        }
    }
}

/// The full output of an HMAC; zeroed when dropped, for it may become a key.
pub(crate) struct Tag {
    bytes: [u8; MAX_LEN],
    len: usize,
}

impl Tag {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Drop for Tag {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

fn keyed<D: EagerHash>(key: &[u8]) -> HmacCore<D> {
    HmacCore::new_from_slice(key).expect("HMAC takes a key of any length")
}

#[inline]
fn tag<D: EagerHash>(core: &HmacCore<D>, parts: &[&[u8]]) -> Tag {
    let mut mac = ::hmac::Hmac::<D>::compose(core.clone(), Default::default());
    for part in parts {
        mac.update(part);
    }
    let mut output = mac.finalize_fixed();
    let mut tag = Tag { bytes: [0; MAX_LEN], len: output.len() };
    tag.bytes[..output.len()].copy_from_slice(&output);
    output.as_mut_slice().zeroize();
    tag
}
