//! Diffie-Hellman: MODP groups (RFC 2409, 3526, 5114), NIST curves (RFC 5903), Curve25519 (RFC 8031).
//!
//! Public values and shared secrets have exactly the form that goes on the wire or into the PRF:
//! MODP numbers are padded on the left to the length of the prime (RFC 7296 §2.14), a point of a
//! NIST curve is x | y and its shared secret x alone (RFC 5903 §7).
//!
//! A peer's value is checked before it meets the private one (RFC 6989): its length, 1 < y < p - 1,
//! membership in the subgroup for groups 22 to 24, the curve equation, and a zero result for
//! Curve25519. A key pair may serve several exchanges: MODP exponentiation takes the same time for
//! every exponent of a group.

mod comb;
mod ecp;
mod modp;
mod primes;

use std::fmt;

use aws_lc_rs::agreement::PrivateKey;
use base::algorithm::Group;
use base::{Random, Secret};

/// A private value and the public one that belongs to it. The private value is zeroed when dropped.
pub struct KeyPair {
    group: Group,
    public: Box<[u8]>,
    private: Private,
}

enum Private {
    Modp(&'static dyn modp::Field, modp::Exponent),
    Curve(&'static ecp::Curve, PrivateKey),
}

impl KeyPair {
    /// A new key pair; the same `random` gives the same pair.
    pub fn generate(group: Group, random: &mut Random) -> Self {
        match arithmetic(group) {
            Arithmetic::Modp(field) => {
                let exponent = field.draw(random);
                Self { group, public: field.public(&exponent), private: Private::Modp(field, exponent) }
            }
            Arithmetic::Curve(curve) => {
                let (private, public) = curve.draw(random);
                Self { group, public, private: Private::Curve(curve, private) }
            }
        }
    }

    /// The private value, for a process that takes over an exchange under way. As many bytes as the group's private
    /// values have at most, the most significant first.
    pub fn export(&self) -> Secret {
        match &self.private {
            Private::Modp(_, exponent) => exponent.to_secret(),
            Private::Curve(curve, private) => curve.export(private),
        }
    }

    /// The key pair of which [`Self::export`] gave the private value; none where these bytes are not one of the group.
    pub fn import(group: Group, private: &Secret) -> Option<Self> {
        match arithmetic(group) {
            Arithmetic::Modp(field) => {
                let exponent = modp::Exponent::from_secret(private)?;
                Some(Self { group, public: field.public(&exponent), private: Private::Modp(field, exponent) })
            }
            Arithmetic::Curve(curve) => {
                let (private, public) = curve.key_pair(private.expose())?;
                Some(Self { group, public, private: Private::Curve(curve, private) })
            }
        }
    }

    /// The group.
    pub fn group(&self) -> Group {
        self.group
    }

    /// The public value as it goes on the wire, [`Group::public_len`] bytes.
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// The secret that this key pair shares with the owner of `peer_public`: as long as a MODP
    /// prime, a coordinate of the curve, or 32 bytes for Curve25519.
    ///
    /// # Errors
    ///
    /// [`BadPublicValue`] says what is wrong with the peer's value.
    pub fn agree(&self, peer_public: &[u8]) -> Result<Secret, BadPublicValue> {
        let expected = self.group.public_len();
        if peer_public.len() != expected {
            return Err(BadPublicValue::Length { expected, found: peer_public.len() });
        }
        match &self.private {
            Private::Modp(field, exponent) => field.agree(exponent, peer_public),
            Private::Curve(curve, private) => curve.agree(private, peer_public),
        }
    }
}

enum Arithmetic {
    Modp(&'static dyn modp::Field),
    Curve(&'static ecp::Curve),
}

fn arithmetic(group: Group) -> Arithmetic {
    match group {
        Group::Modp768 => Arithmetic::Modp(&*modp::MODP_768),
        Group::Modp1024 => Arithmetic::Modp(&*modp::MODP_1024),
        Group::Modp1536 => Arithmetic::Modp(&*modp::MODP_1536),
        Group::Modp2048 => Arithmetic::Modp(&*modp::MODP_2048),
        Group::Modp3072 => Arithmetic::Modp(&*modp::MODP_3072),
        Group::Modp4096 => Arithmetic::Modp(&*modp::MODP_4096),
        Group::Modp6144 => Arithmetic::Modp(&*modp::MODP_6144),
        Group::Modp8192 => Arithmetic::Modp(&*modp::MODP_8192),
        Group::Modp1024s160 => Arithmetic::Modp(&*modp::MODP_1024_S160),
        Group::Modp2048s224 => Arithmetic::Modp(&*modp::MODP_2048_S224),
        Group::Modp2048s256 => Arithmetic::Modp(&*modp::MODP_2048_S256),
        Group::Ecp256 => Arithmetic::Curve(&ecp::P256),
        Group::Ecp384 => Arithmetic::Curve(&ecp::P384),
        Group::Ecp521 => Arithmetic::Curve(&ecp::P521),
        Group::Curve25519 => Arithmetic::Curve(&ecp::CURVE25519),
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({} {{secret}})", self.group)
    }
}

/// What is wrong with a peer's public value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadPublicValue {
    /// It is not as long as the group's public values are, in bytes.
    Length {
        /// What the group asks for.
        expected: usize,
        /// What came.
        found: usize,
    },
    /// It is 0, 1, p - 1, p or above.
    OutOfRange,
    /// It is not in the subgroup that the generator spans (groups 22 to 24).
    NotInSubgroup,
    /// It is not a point of the curve.
    NotOnCurve,
    /// The shared secret would be zero for every private key (Curve25519).
    SmallOrder,
}

impl fmt::Display for BadPublicValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { expected, found } => {
                write!(f, "public value of {found} bytes where the group has {expected}")
            }
            Self::OutOfRange => f.write_str("public value outside 2..p-2"),
            Self::NotInSubgroup => f.write_str("public value outside the group's subgroup"),
            Self::NotOnCurve => f.write_str("public value is not a point of the curve"),
            Self::SmallOrder => f.write_str("public value of small order"),
        }
    }
}

impl std::error::Error for BadPublicValue {}

#[cfg(test)]
mod tests;
