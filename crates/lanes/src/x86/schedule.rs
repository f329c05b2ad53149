//! The key schedule of AES (FIPS 197 §5.2), and that of its inverse (§5.3.5).

use std::arch::x86_64::{
    __m128i, _mm_aesimc_si128, _mm_aeskeygenassist_si128, _mm_cvtsi128_si32, _mm_set1_epi32, _mm_setr_epi32,
    _mm_setzero_si128,
};

use zeroize::{Zeroize, ZeroizeOnDrop};

/// Round keys of AES-256, and so of all.
const MAX_KEYS: usize = 15;

/// The round keys of both directions, each in the order of use; zeroed when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct Schedule {
    encrypting: [__m128i; MAX_KEYS],
    decrypting: [__m128i; MAX_KEYS],
    #[zeroize(skip)]
    rounds: usize,
}

impl Schedule {
    /// `key` is 16, 24 or 32 bytes, and the machine has AES-NI.
    #[expect(unsafe_code, reason = "the caller knows that the machine has the instructions")]
    pub(crate) fn new(key: &[u8]) -> Self {
        // SAFETY: only asked for by an engine that has AES-NI.
        unsafe { expand(key) }
    }

    /// The first round key, those between, and the last.
    #[inline]
    pub(super) fn encrypting(&self) -> (&__m128i, &[__m128i], &__m128i) {
        (&self.encrypting[0], &self.encrypting[1..self.rounds], &self.encrypting[self.rounds])
    }

    /// The first round key, those between, and the last.
    #[inline]
    pub(super) fn decrypting(&self) -> (&__m128i, &[__m128i], &__m128i) {
        (&self.decrypting[0], &self.decrypting[1..self.rounds], &self.decrypting[self.rounds])
    }
}

#[target_feature(enable = "aes")]
fn expand(key: &[u8]) -> Schedule {
    let key_words = key.len() / 4;
    let rounds = key_words + 6;
    let mut words = [0_u32; MAX_KEYS * 4];
    for (word, bytes) in words.iter_mut().zip(key.as_chunks().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    let mut constant = 1_u8;
    for at in key_words..4 * (rounds + 1) {
        let mut word = words[at - 1];
        if at.is_multiple_of(key_words) {
            word = substitute(word).rotate_right(8) ^ u32::from(constant);
            constant = constant << 1 ^ if constant & 0x80 == 0 { 0 } else { 0x1b };
        } else if key_words > 6 && at % key_words == 4 {
            word = substitute(word);
        }
        words[at] = words[at - key_words] ^ word;
    }
    let mut schedule =
        Schedule { encrypting: [_mm_setzero_si128(); MAX_KEYS], decrypting: [_mm_setzero_si128(); MAX_KEYS], rounds };
    for (round_key, [a, b, c, d]) in schedule.encrypting.iter_mut().zip(words.as_chunks().0) {
        *round_key = _mm_setr_epi32(*a as i32, *b as i32, *c as i32, *d as i32);
    }
    for at in 0..=rounds {
        let round_key = schedule.encrypting[rounds - at];
        let is_between = at > 0 && at < rounds;
        schedule.decrypting[at] = if is_between { _mm_aesimc_si128(round_key) } else { round_key };
    }
    words.zeroize();
    schedule
}

/// The S-box on each byte of a word.
#[target_feature(enable = "aes")]
fn substitute(word: u32) -> u32 {
    _mm_cvtsi128_si32(_mm_aeskeygenassist_si128::<0>(_mm_set1_epi32(word as i32))) as u32
}
