//! NIST curves (RFC 5903) and Curve25519 (RFC 7748, RFC 8031), computed by aws-lc.

use aws_lc_rs::agreement::{self, Algorithm, ECDH_P256, ECDH_P384, ECDH_P521, PrivateKey, UnparsedPublicKey, X25519};
use aws_lc_rs::encoding::{AsBigEndian, Curve25519SeedBin, EcPrivateKeyBin};
use base::{Random, Secret};
use zeroize::Zeroizing;

use super::BadPublicValue;

pub(super) static P256: Curve = Curve { algorithm: &ECDH_P256, scalar_len: 32, top_bits: 0xff, form: Form::Point };
pub(super) static P384: Curve = Curve { algorithm: &ECDH_P384, scalar_len: 48, top_bits: 0xff, form: Form::Point };
pub(super) static P521: Curve = Curve { algorithm: &ECDH_P521, scalar_len: 66, top_bits: 0x01, form: Form::Point };
pub(super) static CURVE25519: Curve =
    Curve { algorithm: &X25519, scalar_len: 32, top_bits: 0xff, form: Form::Coordinate };

/// The first byte of an uncompressed point in the library's form, which the wire form lacks.
const UNCOMPRESSED: u8 = 4;
/// Bytes of the longest private key, which is half of the longest point: P-521.
const MAX_COORDINATE: usize = 66;

/// One curve as the library knows it.
pub(super) struct Curve {
    algorithm: &'static Algorithm,
    /// Bytes of a private key.
    scalar_len: usize,
    /// The bits of a private key's first byte that lie within the curve's order.
    top_bits: u8,
    form: Form,
}

/// What a public value is.
#[derive(Clone, Copy)]
enum Form {
    /// x | y.
    Point,
    /// u alone.
    Coordinate,
}

impl Curve {
    /// A new private key and its public value.
    pub(super) fn draw(&self, random: &mut Random) -> (PrivateKey, Box<[u8]>) {
        let mut scalar = Zeroizing::new([0; MAX_COORDINATE]);
        let scalar = &mut scalar[..self.scalar_len];
        loop {
            random.fill(scalar);
            scalar[0] &= self.top_bits;
            // Refused is what is 0 or not below the curve's order: one in 2^32 at most.
            if let Some(pair) = self.key_pair(scalar) {
                return pair;
            }
        }
    }

    /// The private key with these bytes and its public value.
    pub(super) fn key_pair(&self, scalar: &[u8]) -> Option<(PrivateKey, Box<[u8]>)> {
        let private = PrivateKey::from_private_key(self.algorithm, scalar).ok()?;
        let public = private.compute_public_key().ok()?;
        let wire = match self.form {
            Form::Point => public.as_ref().strip_prefix(&[UNCOMPRESSED])?,
            Form::Coordinate => public.as_ref(),
        };
        Some((private, wire.into()))
    }

    /// What [`Self::key_pair`] takes.
    pub(super) fn export(&self, private: &PrivateKey) -> Secret {
        // The library writes out what it was given: these keys are made of bytes.
        let bytes = match self.form {
            Form::Point => {
                AsBigEndian::<EcPrivateKeyBin<'_>>::as_be_bytes(private).map(|bytes| Secret::from(bytes.as_ref()))
            }
            Form::Coordinate => {
                AsBigEndian::<Curve25519SeedBin<'_>>::as_be_bytes(private).map(|bytes| Secret::from(bytes.as_ref()))
            }
        };
        bytes.expect("a key that is held in memory is written out")
    }

    /// The caller has checked the length of `peer_public`.
    pub(super) fn agree(&self, private: &PrivateKey, peer_public: &[u8]) -> Result<Secret, BadPublicValue> {
        let mut encoded = [UNCOMPRESSED; 1 + 2 * MAX_COORDINATE];
        let encoded = &mut encoded[..=peer_public.len()];
        encoded[1..].copy_from_slice(peer_public);
        let (peer, refused) = match self.form {
            Form::Point => (&*encoded, BadPublicValue::NotOnCurve),
            Form::Coordinate => (peer_public, BadPublicValue::SmallOrder),
        };
        let peer = UnparsedPublicKey::new(self.algorithm, peer);
        agreement::agree(private, peer, refused, |secret| Ok(Secret::from(secret)))
    }
}
