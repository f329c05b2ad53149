//! Randomness as an input: a machine is seeded once, so that the same inputs give the same outputs.

use std::fmt;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::Secret;

/// A cryptographic generator (ChaCha20) that belongs to one machine. The shell seeds it from the
/// operating system; a test seeds it with a number.
pub struct Random(ChaCha20Rng);

impl Random {
    /// A generator whose whole output follows from `seed`.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(ChaCha20Rng::from_seed(seed))
    }

    /// A generator for a test or a simulation: a small number is the seed. Never for real keys.
    pub fn for_test(seed: u64) -> Self {
        Self(ChaCha20Rng::seed_from_u64(seed))
    }

    /// A generator of its own for a part of the machine, seeded from this one.
    pub fn split(&mut self) -> Self {
        let mut seed = [0; 32];
        self.fill(&mut seed);
        Self::from_seed(seed)
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }

    /// `N` random bytes.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }

    /// `len` random bytes as a secret.
    pub fn secret(&mut self, len: usize) -> Secret {
        let mut bytes = vec![0; len];
        self.fill(&mut bytes);
        bytes.into()
    }

    /// A random number.
    pub fn next_u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// A random number.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A random number below `bound`; 0 when `bound` is 0. For jitter, not for keys: its bias is up
    /// to `bound` / 2^64.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next_u64() % bound }
    }
}

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Random")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_bytes_and_another_does_not() {
        let bytes = |seed| Random::for_test(seed).array::<16>();
        assert_eq!(bytes(1), bytes(1));
        assert_ne!(bytes(1), bytes(2));
    }
}
