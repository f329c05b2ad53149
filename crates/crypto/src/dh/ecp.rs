//! NIST curves (RFC 5903) and Curve25519 (RFC 7748, RFC 8031), computed by aws-lc.

use aws_lc_rs::agreement::{self, Algorithm, ECDH_P256, ECDH_P384, ECDH_P521, PrivateKey, UnparsedPublicKey, X25519};
use base::algorithm::Group;
use base::{Random, Secret};
use zeroize::Zeroizing;

use super::BadPublicValue;

/// The first byte of an uncompressed point in the library's form, which the wire form lacks.
const UNCOMPRESSED: u8 = 4;
/// The longest private key, and half of the longest point: P-521.
const MAX_COORDINATE: usize = 66;

pub(super) fn generate(group: Group, random: &mut Random) -> (PrivateKey, Box<[u8]>) {
    let mut scalar = Zeroizing::new([0; MAX_COORDINATE]);
    let scalar = &mut scalar[..scalar_len(group)];
    loop {
        random.fill(scalar);
        if let Some(pair) = from_scalar(group, scalar) {
            return pair;
        }
    }
}

/// The key pair with this private value; `None` when the value is not below the curve's order, of
/// which the chance is at most 2^-32.
pub(super) fn from_scalar(group: Group, scalar: &mut [u8]) -> Option<(PrivateKey, Box<[u8]>)> {
    if group == Group::Ecp521 {
        scalar[0] &= 1;
    }
    let private = PrivateKey::from_private_key(algorithm(group), scalar).ok()?;
    let public = private.compute_public_key().ok()?;
    let public = public.as_ref();
    let wire = if group == Group::Curve25519 { public } else { public.get(1..)? };
    Some((private, wire.into()))
}

/// The caller has checked the length of `peer_public`.
pub(super) fn agree(group: Group, private: &PrivateKey, peer_public: &[u8]) -> Result<Secret, BadPublicValue> {
    let take = |secret: &[u8]| Ok(Secret::from(secret));
    if group == Group::Curve25519 {
        let peer = UnparsedPublicKey::new(&X25519, peer_public);
        return agreement::agree(private, peer, BadPublicValue::SmallOrder, take);
    }
    let mut point = [UNCOMPRESSED; 1 + 2 * MAX_COORDINATE];
    let point = &mut point[..=peer_public.len()];
    point[1..].copy_from_slice(peer_public);
    let peer = UnparsedPublicKey::new(algorithm(group), point);
    agreement::agree(private, peer, BadPublicValue::NotOnCurve, take)
}

fn scalar_len(group: Group) -> usize {
    if group == Group::Curve25519 { group.public_len() } else { group.public_len() / 2 }
}

fn algorithm(group: Group) -> &'static Algorithm {
    match group {
        Group::Ecp384 => &ECDH_P384,
        Group::Ecp521 => &ECDH_P521,
        Group::Curve25519 => &X25519,
        _ => &ECDH_P256,
    }
}
