//! SHA-1 and SHA-256 over AVX2: eight lanes, for machines without SHA extensions and AVX-512.

use std::arch::x86_64::{
    __m256i, _mm256_permute2x128_si256, _mm256_set_epi64x, _mm256_setzero_si256, _mm256_shuffle_epi8,
    _mm256_unpackhi_epi32, _mm256_unpackhi_epi64, _mm256_unpacklo_epi32, _mm256_unpacklo_epi64,
};

use super::load_256;
use super::rounds::{advance_lanes, sha1_rounds, sha2_rounds};
use crate::mac::Message;

/// Advances each SHA-1 state over its message. The machine has AVX2.
#[expect(unsafe_code, reason = "the caller knows that the machine has the instructions")]
pub(crate) fn sha1(states: &mut [[u32; 5]], messages: &[Message<'_, 64>]) {
    for (states, messages) in states.chunks_mut(8).zip(messages.chunks(8)) {
        // SAFETY: only asked for by an engine that has AVX2.
        unsafe { sha1_lanes(states, messages) }
    }
}

/// Advances each SHA-256 state over its message. The machine has AVX2.
#[expect(unsafe_code, reason = "the caller knows that the machine has the instructions")]
pub(crate) fn sha256(states: &mut [[u32; 8]], messages: &[Message<'_, 64>]) {
    for (states, messages) in states.chunks_mut(8).zip(messages.chunks(8)) {
        // SAFETY: only asked for by an engine that has AVX2.
        unsafe { sha256_lanes(states, messages) }
    }
}

sha1_rounds!(sha1_block, words, "avx2", __m256i);
sha2_rounds!(sha256_block, words, "avx2", __m256i, K256);
advance_lanes!(sha1_lanes, sha1_block, gather_words, words, "avx2", [u32; 5], 8, 64);
advance_lanes!(sha256_lanes, sha256_block, gather_words, words, "avx2", [u32; 8], 8, 64);

/// Operations on eight words of 32 bits.
mod words {
    use std::arch::x86_64::{
        __m256i, _mm_cvtsi32_si128, _mm256_add_epi32, _mm256_and_si256, _mm256_blendv_epi8, _mm256_loadu_si256,
        _mm256_or_si256, _mm256_set1_epi32, _mm256_sll_epi32, _mm256_srl_epi32, _mm256_srli_epi32, _mm256_xor_si256,
    };

    pub(super) use crate::x86::store_256 as store;

    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn splat(word: u32) -> __m256i {
        _mm256_set1_epi32(word as i32)
    }

    #[expect(unsafe_code, reason = "the intrinsic takes a pointer")]
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn load(words: &[u32; 8]) -> __m256i {
        // SAFETY: the array is as long as the register; no alignment is asked for.
        unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
    }

    /// `old` in the lanes that are named, `new` in the others.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn replace(new: __m256i, lanes: &[bool; 8], old: __m256i) -> __m256i {
        _mm256_blendv_epi8(new, old, load(&lanes.map(|lane| if lane { u32::MAX } else { 0 })))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn add(a: __m256i, b: __m256i) -> __m256i {
        _mm256_add_epi32(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn xor(a: __m256i, b: __m256i) -> __m256i {
        _mm256_xor_si256(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn xor3(a: __m256i, b: __m256i, c: __m256i) -> __m256i {
        xor(xor(a, b), c)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn choose(a: __m256i, b: __m256i, c: __m256i) -> __m256i {
        xor(c, _mm256_and_si256(a, xor(b, c)))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn majority(a: __m256i, b: __m256i, c: __m256i) -> __m256i {
        _mm256_or_si256(_mm256_and_si256(a, b), _mm256_and_si256(c, _mm256_or_si256(a, b)))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn rotate_left<const N: i32>(a: __m256i) -> __m256i {
        // The count is constant after inlining, so these become shifts by an immediate.
        let left = _mm256_sll_epi32(a, _mm_cvtsi32_si128(N));
        _mm256_or_si256(left, _mm256_srl_epi32(a, _mm_cvtsi32_si128(32 - N)))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn big_sigma_0(a: __m256i) -> __m256i {
        xor3(rotate_left::<30>(a), rotate_left::<19>(a), rotate_left::<10>(a))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn big_sigma_1(a: __m256i) -> __m256i {
        xor3(rotate_left::<26>(a), rotate_left::<21>(a), rotate_left::<7>(a))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn small_sigma_0(a: __m256i) -> __m256i {
        xor3(rotate_left::<25>(a), rotate_left::<14>(a), _mm256_srli_epi32::<3>(a))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn small_sigma_1(a: __m256i) -> __m256i {
        xor3(rotate_left::<15>(a), rotate_left::<13>(a), _mm256_srli_epi32::<10>(a))
    }
}

/// Word `i` of every lane's block, as vector `i`.
#[inline]
#[target_feature(enable = "avx2")]
fn gather_words(blocks: &[&[u8; 64]; 8]) -> [__m256i; 16] {
    let (high, low) = (0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
    let swap = _mm256_set_epi64x(high, low, high, low);
    let mut columns = [_mm256_setzero_si256(); 16];
    for half in 0..2 {
        // Four rows at a time: vector c of a group holds columns c and 4 + c of the group's rows.
        let mut groups = [[_mm256_setzero_si256(); 4]; 2];
        for (group, blocks) in groups.iter_mut().zip(blocks.as_chunks::<4>().0) {
            let mut rows = [_mm256_setzero_si256(); 4];
            for (row, block) in rows.iter_mut().zip(blocks) {
                *row = _mm256_shuffle_epi8(load_256(&block.as_chunks().0[half]), swap);
            }
            let [a, b, c, d] = rows;
            let (ab_low, ab_high) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
            let (cd_low, cd_high) = (_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
            *group = [
                _mm256_unpacklo_epi64(ab_low, cd_low),
                _mm256_unpackhi_epi64(ab_low, cd_low),
                _mm256_unpacklo_epi64(ab_high, cd_high),
                _mm256_unpackhi_epi64(ab_high, cd_high),
            ];
        }
        for c in 0..4 {
            columns[8 * half + c] = _mm256_permute2x128_si256::<0x20>(groups[0][c], groups[1][c]);
            columns[8 * half + 4 + c] = _mm256_permute2x128_si256::<0x31>(groups[0][c], groups[1][c]);
        }
    }
    columns
}
