//! Exponentiation modulo a prime, in constant time.
//!
//! # How long an exponent is
//!
//! As RFC 3526 §8 asks, twice the strength of the group by the higher of its two estimates, rounded
//! up to 64 bits; a longer one costs time and gains nothing. Groups 1 and 2, which the RFC does not
//! estimate, use 256 bits, far above twice their strength. Groups 22 to 24 use all of their subgroup.
//!
//! | group | 1, 2, 5 | 14 | 15 | 16 | 17 | 18 |
//! | --- | --- | --- | --- | --- | --- | --- |
//! | RFC 3526 §8, bits | (5:) 240 | 320 | 420 | 480 | 540 | 620 |
//! | here, bits | 256 | 320 | 448 | 512 | 576 | 640 |

use std::sync::LazyLock;

use base::{Random, Secret};
use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{Odd, Uint};
use zeroize::{Zeroize, Zeroizing};

use super::comb::Comb;
use super::{BadPublicValue, primes};

/// Room for the longest exponent, 640 bits.
const EXPONENT_LIMBS: usize = 10;
/// Room for the order of the largest subgroup, 256 bits.
const ORDER_LIMBS: usize = 4;

/// A private exponent; zeroed when dropped.
pub(super) struct Exponent(Uint<EXPONENT_LIMBS>);

impl Exponent {
    /// From at most 80 bytes, the most significant first.
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        let mut padded = Zeroizing::new([0; EXPONENT_LIMBS * 8]);
        let start = padded.len() - bytes.len();
        padded[start..].copy_from_slice(bytes);
        Self(Uint::from_be_slice(padded.as_slice()))
    }

    /// All of it, for [`Self::from_secret`].
    pub(super) fn to_secret(&self) -> Secret {
        let mut bytes = Zeroizing::new([0; EXPONENT_LIMBS * 8]);
        for (place, limb) in bytes.rchunks_mut(8).zip(self.0.as_limbs()) {
            place.copy_from_slice(&limb.0.to_be_bytes());
        }
        Secret::from(&bytes[..])
    }

    /// What [`Self::to_secret`] gave.
    pub(super) fn from_secret(secret: &Secret) -> Option<Self> {
        let is_one = secret.len() == EXPONENT_LIMBS * 8 && secret.expose().iter().any(|byte| *byte != 0);
        is_one.then(|| Self::from_bytes(secret.expose()))
    }
}

impl Drop for Exponent {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// A MODP group of any size.
pub(super) trait Field: Send + Sync {
    /// A new private exponent.
    fn draw(&self, random: &mut Random) -> Exponent;
    /// generator ^ exponent.
    fn public(&self, exponent: &Exponent) -> Box<[u8]>;
    /// peer_public ^ exponent; the caller has checked the length.
    fn agree(&self, exponent: &Exponent, peer_public: &[u8]) -> Result<Secret, BadPublicValue>;
}

// Prepared at first use: the constants of Montgomery multiplication and the generator's table.
pub(super) static MODP_768: LazyLock<Modp<12>> = LazyLock::new(|| Modp::with_safe_prime(149_686, 256));
pub(super) static MODP_1024: LazyLock<Modp<16>> = LazyLock::new(|| Modp::with_safe_prime(129_093, 256));
pub(super) static MODP_1536: LazyLock<Modp<24>> = LazyLock::new(|| Modp::with_safe_prime(741_804, 256));
pub(super) static MODP_2048: LazyLock<Modp<32>> = LazyLock::new(|| Modp::with_safe_prime(124_476, 320));
pub(super) static MODP_3072: LazyLock<Modp<48>> = LazyLock::new(|| Modp::with_safe_prime(1_690_314, 448));
pub(super) static MODP_4096: LazyLock<Modp<64>> = LazyLock::new(|| Modp::with_safe_prime(240_904, 512));
pub(super) static MODP_6144: LazyLock<Modp<96>> = LazyLock::new(|| Modp::with_safe_prime(929_484, 576));
pub(super) static MODP_8192: LazyLock<Modp<128>> = LazyLock::new(|| Modp::with_safe_prime(4_743_158, 640));
pub(super) static MODP_1024_S160: LazyLock<Modp<16>> =
    LazyLock::new(|| Modp::with_subgroup(primes::P_1024S160, primes::G_1024S160, primes::Q_1024S160));
pub(super) static MODP_2048_S224: LazyLock<Modp<32>> =
    LazyLock::new(|| Modp::with_subgroup(primes::P_2048S224, primes::G_2048S224, primes::Q_2048S224));
pub(super) static MODP_2048_S256: LazyLock<Modp<32>> =
    LazyLock::new(|| Modp::with_subgroup(primes::P_2048S256, primes::G_2048S256, primes::Q_2048S256));

/// A MODP group whose prime has `LIMBS` * 64 bits.
pub(super) struct Modp<const LIMBS: usize> {
    params: FixedMontyParams<LIMBS>,
    generator: Comb<LIMBS>,
    exponent_bits: u32,
    /// The order of the generator where it spans a small part of the group only.
    order: Option<Uint<ORDER_LIMBS>>,
}

impl<const LIMBS: usize> Modp<LIMBS> {
    /// A group of RFC 2409 or 3526: its prime, named by `k`, is safe and its generator is 2.
    fn with_safe_prime(k: u32, exponent_bits: u32) -> Self {
        Self::new(primes::prime(k), Uint::from_u32(2), exponent_bits, None)
    }

    /// A group of RFC 5114.
    fn with_subgroup(prime: &str, generator: &str, order: &str) -> Self {
        let order = Uint::from_be_hex(order);
        Self::new(Uint::from_be_hex(prime), Uint::from_be_hex(generator), order.bits(), Some(order))
    }

    fn new(prime: Uint<LIMBS>, generator: Uint<LIMBS>, exponent_bits: u32, order: Option<Uint<ORDER_LIMBS>>) -> Self {
        let params = FixedMontyParams::new_vartime(Odd::new(prime).expect("a large prime is odd"));
        let generator = Comb::new(&FixedMontyForm::new(&generator, &params), exponent_bits);
        Self { params, generator, exponent_bits, order }
    }

    /// The peer's value in Montgomery form.
    fn checked(&self, peer_public: &[u8]) -> Result<FixedMontyForm<LIMBS>, BadPublicValue> {
        let value = Uint::from_be_slice(peer_public);
        let highest = self.params.modulus().as_ref().wrapping_sub(&Uint::from_u32(2));
        if value <= Uint::ONE || value > highest {
            return Err(BadPublicValue::OutOfRange);
        }
        let value = FixedMontyForm::new(&value, &self.params);
        match self.order {
            // Deliberate: variable time, for the value and the order are both public.
            Some(order) if value.pow_vartime(&order).retrieve() != Uint::ONE => Err(BadPublicValue::NotInSubgroup),
            Some(_) | None => Ok(value),
        }
    }
}

impl<const LIMBS: usize> Field for Modp<LIMBS> {
    fn draw(&self, random: &mut Random) -> Exponent {
        let mut bytes = Zeroizing::new([0; EXPONENT_LIMBS * 8]);
        let bytes = &mut bytes[..self.exponent_bits.div_ceil(8) as usize];
        loop {
            random.fill(bytes);
            let Some(order) = &self.order else {
                // A set top bit keeps 2^x from being a small number that shows x.
                bytes[0] |= 0x80;
                return Exponent::from_bytes(bytes);
            };
            let exponent = Exponent::from_bytes(bytes);
            if exponent.0 != Uint::ZERO && exponent.0 < order.resize() {
                return exponent;
            }
        }
    }

    fn public(&self, exponent: &Exponent) -> Box<[u8]> {
        let value = self.generator.pow(&exponent.0, &self.params).retrieve();
        value.to_be_bytes().as_ref().into()
    }

    fn agree(&self, exponent: &Exponent, peer_public: &[u8]) -> Result<Secret, BadPublicValue> {
        let mut shared = self.checked(peer_public)?.pow_bounded_exp(&exponent.0, self.exponent_bits);
        let mut value = shared.retrieve();
        let mut bytes = value.to_be_bytes();
        let secret = Secret::from(bytes.as_ref());
        bytes.as_mut().zeroize();
        value.zeroize();
        shared.as_montgomery_mut().zeroize();
        Ok(secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponents_are_as_long_as_the_strength_of_the_group_asks() {
        let groups: [(&dyn Field, u32); 8] = [
            (&*MODP_768, 256),
            (&*MODP_1024, 256),
            (&*MODP_1536, 256),
            (&*MODP_2048, 320),
            (&*MODP_3072, 448),
            (&*MODP_4096, 512),
            (&*MODP_6144, 576),
            (&*MODP_8192, 640),
        ];
        let mut random = Random::for_test(1);
        for (group, bits) in groups {
            let [a, b] = [(); 2].map(|()| group.draw(&mut random).0);
            assert_eq!((a.bits(), b.bits()), (bits, bits));
            assert!(a.bitxor(&b).bits() > bits - 64 && a.bitxor(&b).trailing_zeros() < 64);
        }
    }

    #[test]
    fn exponents_for_a_subgroup_use_all_of_it() {
        let mut random = Random::for_test(1);
        for (group, order) in [
            (&*MODP_1024_S160 as &dyn Field, primes::Q_1024S160),
            (&*MODP_2048_S224, primes::Q_2048S224),
            (&*MODP_2048_S256, primes::Q_2048S256),
        ] {
            let order = Uint::<ORDER_LIMBS>::from_be_hex(order).resize();
            let drawn = [(); 64].map(|()| group.draw(&mut random).0);
            assert!(drawn.iter().all(|x| *x != Uint::ZERO && *x < order));
            // Of 64 draws from 1 to q - 1 the largest is below q / 2 once in 2^64 runs.
            assert!(drawn.iter().any(|x| *x > order.shr_vartime(1)));
        }
    }
}
