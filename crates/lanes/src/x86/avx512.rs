//! SHA over AVX-512: sixteen lanes of 32 bits or twice that, or eight of 64.

use std::arch::x86_64::{
    __m512i, _mm512_set_epi64, _mm512_setzero_si512, _mm512_shuffle_epi8, _mm512_shuffle_i32x4, _mm512_unpackhi_epi32,
    _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};

use super::load_512;
use super::rounds::{advance_lanes, sha1_rounds, sha2_rounds};
use crate::mac::Message;

/// Advances each SHA-1 state over its message. The machine has AVX-512 F and BW.
#[expect(unsafe_code, reason = "the caller knows that the machine has the instructions")]
pub(crate) fn sha1(states: &mut [[u32; 5]], messages: &[Message<'_, 64>]) {
    for (states, messages) in states.chunks_mut(32).zip(messages.chunks(32)) {
        let advance = if states.len() > 16 { sha1_pairs } else { sha1_lanes };
        // SAFETY: only asked for by an engine that has AVX-512 F and BW.
        unsafe { advance(states, messages) }
    }
}

/// Advances each SHA-256 state over its message. The machine has AVX-512 F and BW.
#[expect(unsafe_code, reason = "the caller knows that the machine has the instructions")]
pub(crate) fn sha256(states: &mut [[u32; 8]], messages: &[Message<'_, 64>]) {
    for (states, messages) in states.chunks_mut(32).zip(messages.chunks(32)) {
        let advance = if states.len() > 16 { sha256_pairs } else { sha256_lanes };
        // SAFETY: only asked for by an engine that has AVX-512 F and BW.
        unsafe { advance(states, messages) }
    }
}

/// Advances each SHA-512 state over its message. The machine has AVX-512 F and BW.
#[expect(unsafe_code, reason = "the caller knows that the machine has the instructions")]
pub(crate) fn sha512(states: &mut [[u64; 8]], messages: &[Message<'_, 128>]) {
    for (states, messages) in states.chunks_mut(8).zip(messages.chunks(8)) {
        // SAFETY: only asked for by an engine that has AVX-512 F and BW.
        unsafe { sha512_lanes(states, messages) }
    }
}

sha1_rounds!(sha1_block, words, "avx512f,avx512bw", __m512i);
sha1_rounds!(sha1_block_pair, pairs, "avx512f,avx512bw", [__m512i; 2]);
sha2_rounds!(sha256_block, words, "avx512f,avx512bw", __m512i, K256);
sha2_rounds!(sha256_block_pair, pairs, "avx512f,avx512bw", [__m512i; 2], K256);
sha2_rounds!(sha512_block, longs, "avx512f,avx512bw", __m512i, K512);
advance_lanes!(sha1_lanes, sha1_block, gather_words, words, "avx512f,avx512bw", [u32; 5], 16, 64);
advance_lanes!(sha256_lanes, sha256_block, gather_words, words, "avx512f,avx512bw", [u32; 8], 16, 64);
advance_lanes!(sha1_pairs, sha1_block_pair, gather_pairs, pairs, "avx512f,avx512bw", [u32; 5], 32, 64);
advance_lanes!(sha256_pairs, sha256_block_pair, gather_pairs, pairs, "avx512f,avx512bw", [u32; 8], 32, 64);
advance_lanes!(sha512_lanes, sha512_block, gather_longs, longs, "avx512f,avx512bw", [u64; 8], 8, 128);

/// Operations on sixteen words of 32 bits.
mod words {
    use std::arch::x86_64::{
        __m512i, _mm512_add_epi32, _mm512_loadu_epi32, _mm512_mask_mov_epi32, _mm512_rol_epi32, _mm512_ror_epi32,
        _mm512_set1_epi32, _mm512_srli_epi32, _mm512_storeu_epi32, _mm512_ternarylogic_epi32, _mm512_xor_si512,
    };

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn splat(word: u32) -> __m512i {
        _mm512_set1_epi32(word as i32)
    }

    #[expect(unsafe_code, reason = "the intrinsic takes a pointer")]
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn load(words: &[u32; 16]) -> __m512i {
        // SAFETY: the array is as long as the register; no alignment is asked for.
        unsafe { _mm512_loadu_epi32(words.as_ptr().cast()) }
    }

    #[expect(unsafe_code, reason = "the intrinsic takes a pointer")]
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn store(words: &mut [u32; 16], value: __m512i) {
        // SAFETY: the array is as long as the register; no alignment is asked for.
        unsafe { _mm512_storeu_epi32(words.as_mut_ptr().cast(), value) }
    }

    /// `old` in the lanes that are named, `new` in the others.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn replace(new: __m512i, lanes: &[bool; 16], old: __m512i) -> __m512i {
        let mask = lanes.iter().rev().fold(0_u16, |mask, &lane| mask << 1 | u16::from(lane));
        _mm512_mask_mov_epi32(new, mask, old)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn add(a: __m512i, b: __m512i) -> __m512i {
        _mm512_add_epi32(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn xor(a: __m512i, b: __m512i) -> __m512i {
        _mm512_xor_si512(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn xor3(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
        _mm512_ternarylogic_epi32::<0x96>(a, b, c)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn choose(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
        _mm512_ternarylogic_epi32::<0xca>(a, b, c)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn majority(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
        _mm512_ternarylogic_epi32::<0xe8>(a, b, c)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn rotate_left<const N: i32>(a: __m512i) -> __m512i {
        _mm512_rol_epi32::<N>(a)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn big_sigma_0(a: __m512i) -> __m512i {
        xor3(_mm512_ror_epi32::<2>(a), _mm512_ror_epi32::<13>(a), _mm512_ror_epi32::<22>(a))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn big_sigma_1(a: __m512i) -> __m512i {
        xor3(_mm512_ror_epi32::<6>(a), _mm512_ror_epi32::<11>(a), _mm512_ror_epi32::<25>(a))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn small_sigma_0(a: __m512i) -> __m512i {
        xor3(_mm512_ror_epi32::<7>(a), _mm512_ror_epi32::<18>(a), _mm512_srli_epi32::<3>(a))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn small_sigma_1(a: __m512i) -> __m512i {
        xor3(_mm512_ror_epi32::<17>(a), _mm512_ror_epi32::<19>(a), _mm512_srli_epi32::<10>(a))
    }
}

/// Operations on thirty-two words of 32 bits, in two registers: where an operation takes two cycles, as on Zen 5, the
/// rounds of one register leave half of the machine idle.
mod pairs {
    use std::arch::x86_64::__m512i;

    use super::words;

    /// Each operation on both registers.
    macro_rules! twice {
        ($($name:ident($($argument:ident),*))*) => {$(
            #[inline]
            #[target_feature(enable = "avx512f")]
            pub(super) fn $name($($argument: [__m512i; 2]),*) -> [__m512i; 2] {
                [words::$name($($argument[0]),*), words::$name($($argument[1]),*)]
            }
        )*};
    }

    twice! {
        add(a, b)
        xor(a, b)
        xor3(a, b, c)
        choose(a, b, c)
        majority(a, b, c)
        big_sigma_0(a)
        big_sigma_1(a)
        small_sigma_0(a)
        small_sigma_1(a)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn rotate_left<const N: i32>(a: [__m512i; 2]) -> [__m512i; 2] {
        [words::rotate_left::<N>(a[0]), words::rotate_left::<N>(a[1])]
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn splat(word: u32) -> [__m512i; 2] {
        [words::splat(word); 2]
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn load(all: &[u32; 32]) -> [__m512i; 2] {
        let (halves, _) = all.as_chunks();
        [words::load(&halves[0]), words::load(&halves[1])]
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn store(all: &mut [u32; 32], value: [__m512i; 2]) {
        for (half, value) in all.as_chunks_mut().0.iter_mut().zip(value) {
            words::store(half, value);
        }
    }

    /// `old` in the lanes that are named, `new` in the others.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn replace(new: [__m512i; 2], lanes: &[bool; 32], old: [__m512i; 2]) -> [__m512i; 2] {
        let (halves, _) = lanes.as_chunks();
        [words::replace(new[0], &halves[0], old[0]), words::replace(new[1], &halves[1], old[1])]
    }
}

/// Operations on eight words of 64 bits.
mod longs {
    use std::arch::x86_64::{
        __m512i, _mm512_add_epi64, _mm512_loadu_epi64, _mm512_mask_mov_epi64, _mm512_ror_epi64, _mm512_set1_epi64,
        _mm512_srli_epi64, _mm512_storeu_epi64,
    };

    pub(super) use super::words::{choose, majority, xor3};

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn splat(word: u64) -> __m512i {
        _mm512_set1_epi64(word as i64)
    }

    #[expect(unsafe_code, reason = "the intrinsic takes a pointer")]
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn load(words: &[u64; 8]) -> __m512i {
        // SAFETY: the array is as long as the register; no alignment is asked for.
        unsafe { _mm512_loadu_epi64(words.as_ptr().cast()) }
    }

    #[expect(unsafe_code, reason = "the intrinsic takes a pointer")]
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn store(words: &mut [u64; 8], value: __m512i) {
        // SAFETY: the array is as long as the register; no alignment is asked for.
        unsafe { _mm512_storeu_epi64(words.as_mut_ptr().cast(), value) }
    }

    /// `old` in the lanes that are named, `new` in the others.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn replace(new: __m512i, lanes: &[bool; 8], old: __m512i) -> __m512i {
        let mask = lanes.iter().rev().fold(0_u8, |mask, &lane| mask << 1 | u8::from(lane));
        _mm512_mask_mov_epi64(new, mask, old)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn add(a: __m512i, b: __m512i) -> __m512i {
        _mm512_add_epi64(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn big_sigma_0(a: __m512i) -> __m512i {
        xor3(_mm512_ror_epi64::<28>(a), _mm512_ror_epi64::<34>(a), _mm512_ror_epi64::<39>(a))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn big_sigma_1(a: __m512i) -> __m512i {
        xor3(_mm512_ror_epi64::<14>(a), _mm512_ror_epi64::<18>(a), _mm512_ror_epi64::<41>(a))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn small_sigma_0(a: __m512i) -> __m512i {
        xor3(_mm512_ror_epi64::<1>(a), _mm512_ror_epi64::<8>(a), _mm512_srli_epi64::<7>(a))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn small_sigma_1(a: __m512i) -> __m512i {
        xor3(_mm512_ror_epi64::<19>(a), _mm512_ror_epi64::<61>(a), _mm512_srli_epi64::<6>(a))
    }
}

/// Word `i` of every lane's block, as vector `i`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn gather_words(blocks: &[&[u8; 64]; 16]) -> [__m512i; 16] {
    let swap = in_each_quarter(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
    // Four rows at a time: vector c of a group holds, in its quarter q, column 4q + c of the group's rows.
    let mut groups = [[_mm512_setzero_si512(); 4]; 4];
    for (group, blocks) in groups.iter_mut().zip(blocks.as_chunks::<4>().0) {
        let mut rows = [_mm512_setzero_si512(); 4];
        for (row, block) in rows.iter_mut().zip(blocks) {
            *row = _mm512_shuffle_epi8(load_512(block), swap);
        }
        let [a, b, c, d] = rows;
        let (ab_low, ab_high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let (cd_low, cd_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
        *group = [
            _mm512_unpacklo_epi64(ab_low, cd_low),
            _mm512_unpackhi_epi64(ab_low, cd_low),
            _mm512_unpacklo_epi64(ab_high, cd_high),
            _mm512_unpackhi_epi64(ab_high, cd_high),
        ];
    }
    let mut columns = [_mm512_setzero_si512(); 16];
    for c in 0..4 {
        let quarters = transpose_quarters([groups[0][c], groups[1][c], groups[2][c], groups[3][c]]);
        for (q, column) in quarters.into_iter().enumerate() {
            columns[4 * q + c] = column;
        }
    }
    columns
}

/// Word `i` of every lane's block, as pair `i`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn gather_pairs(blocks: &[&[u8; 64]; 32]) -> [[__m512i; 2]; 16] {
    let (halves, _) = blocks.as_chunks();
    let (low, high) = (gather_words(&halves[0]), gather_words(&halves[1]));
    std::array::from_fn(|column| [low[column], high[column]])
}

/// Word `i` of every lane's block, as vector `i`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn gather_longs(blocks: &[&[u8; 128]; 8]) -> [__m512i; 16] {
    let swap = in_each_quarter(0x0809_0a0b_0c0d_0e0f, 0x0001_0203_0405_0607);
    let mut columns = [_mm512_setzero_si512(); 16];
    for half in 0..2 {
        // Two rows at a time: in quarter q, column 2q (even) or 2q + 1 (odd) of the two rows.
        let (mut even, mut odd) = ([_mm512_setzero_si512(); 4], [_mm512_setzero_si512(); 4]);
        for (pair, [a, b]) in blocks.as_chunks().0.iter().enumerate() {
            let a = _mm512_shuffle_epi8(load_512(&a.as_chunks().0[half]), swap);
            let b = _mm512_shuffle_epi8(load_512(&b.as_chunks().0[half]), swap);
            even[pair] = _mm512_unpacklo_epi64(a, b);
            odd[pair] = _mm512_unpackhi_epi64(a, b);
        }
        for (q, (even, odd)) in transpose_quarters(even).into_iter().zip(transpose_quarters(odd)).enumerate() {
            columns[8 * half + 2 * q] = even;
            columns[8 * half + 2 * q + 1] = odd;
        }
    }
    columns
}

#[inline]
#[target_feature(enable = "avx512f")]
fn in_each_quarter(high: i64, low: i64) -> __m512i {
    _mm512_set_epi64(high, low, high, low, high, low, high, low)
}

/// Quarter `i` of row `j` becomes quarter `j` of row `i`.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn transpose_quarters([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let (ab_even, ab_odd) = (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0xdd>(a, b));
    let (cd_even, cd_odd) = (_mm512_shuffle_i32x4::<0x88>(c, d), _mm512_shuffle_i32x4::<0xdd>(c, d));
    [
        _mm512_shuffle_i32x4::<0x88>(ab_even, cd_even),
        _mm512_shuffle_i32x4::<0x88>(ab_odd, cd_odd),
        _mm512_shuffle_i32x4::<0xdd>(ab_even, cd_even),
        _mm512_shuffle_i32x4::<0xdd>(ab_odd, cd_odd),
    ]
}
