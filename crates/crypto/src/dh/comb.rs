//! Powers of a fixed generator, several times faster than a general exponentiation.
//!
//! The comb of Lim and Lee ("More flexible exponentiation with precomputation", CRYPTO '94): the
//! exponent is cut into `TEETH` * `BLOCKS` strips of equal width, so that one squaring serves all of
//! them. Its table costs as much as one general exponentiation and is kept with the group. Which
//! entries are read does not depend on the exponent: each look-up reads all of its block.

use crypto_bigint::ctutils::{CtAssign, CtEq};
use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{Limb, Uint};

/// Bits of the exponent that one look-up takes together.
const TEETH: usize = 4;
/// Look-ups that share a squaring.
const BLOCKS: usize = 4;
const ENTRIES: usize = 1 << TEETH;

/// The table for one generator and exponents of a limited length.
pub(super) struct Comb<const LIMBS: usize> {
    /// Bits in a strip.
    width: usize,
    /// In Montgomery form: entry `i` of block `b` is the product of g^(2^(width * (BLOCKS * t + b)))
    /// over every bit t that is set in `i`.
    blocks: Box<[[Uint<LIMBS>; ENTRIES]; BLOCKS]>,
}

impl<const LIMBS: usize> Comb<LIMBS> {
    /// A table for exponents of up to `exponent_bits`.
    pub(super) fn new(generator: &FixedMontyForm<LIMBS>, exponent_bits: u32) -> Self {
        let strip_bits = exponent_bits.div_ceil((TEETH * BLOCKS) as u32);
        let mut blocks = Box::new([[*generator.params().one(); ENTRIES]; BLOCKS]);
        let mut power = *generator;
        for strip in 0..TEETH * BLOCKS {
            let (tooth, block) = (strip / BLOCKS, strip % BLOCKS);
            let known = 1 << tooth;
            for entry in 0..known {
                let product = FixedMontyForm::from_montgomery(blocks[block][entry], generator.params()).mul(&power);
                blocks[block][known + entry] = product.to_montgomery();
            }
            power = power.square_repeat_vartime(strip_bits);
        }
        Self { width: strip_bits as usize, blocks }
    }

    /// generator ^ exponent; bits of the exponent beyond the table's limit are not looked at.
    pub(super) fn pow<const EXPONENT_LIMBS: usize>(
        &self,
        exponent: &Uint<EXPONENT_LIMBS>,
        params: &FixedMontyParams<LIMBS>,
    ) -> FixedMontyForm<LIMBS> {
        let mut result = FixedMontyForm::one(params);
        for position in (0..self.width).rev() {
            result = result.square();
            for block in 0..BLOCKS {
                let factor = self.entry(block, self.digit(exponent.as_limbs(), block, position));
                result = result.mul(&FixedMontyForm::from_montgomery(factor, params));
            }
        }
        result
    }

    /// The bits of the exponent at `position` of each of the block's strips.
    fn digit(&self, exponent: &[Limb], block: usize, position: usize) -> u64 {
        (0..TEETH)
            .map(|tooth| {
                let bit = self.width * (BLOCKS * tooth + block) + position;
                let limb = exponent.get(bit / 64).map_or(0, |limb| limb.0);
                (limb >> (bit % 64) & 1) << tooth
            })
            .sum()
    }

    fn entry(&self, block: usize, digit: u64) -> Uint<LIMBS> {
        let mut found = Uint::ZERO;
        for (number, entry) in (0..).zip(&self.blocks[block]) {
            found.ct_assign(entry, CtEq::ct_eq(&digit, &number));
        }
        found
    }
}
