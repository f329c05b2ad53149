//! SHA-1 and SHA-256 by the SHA extensions. A round waits for the one before, so several streams are interleaved.

use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_extract_epi32, _mm_set_epi32, _mm_set_epi64x, _mm_setzero_si128,
    _mm_sha1msg1_epu32, _mm_sha1msg2_epu32, _mm_sha1nexte_epu32, _mm_sha1rnds4_epu32, _mm_sha256msg1_epu32,
    _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8, _mm_shuffle_epi32, _mm_xor_si128,
};

use super::load_128;
use super::rounds::K256;
use crate::mac::Message;

/// Streams of SHA-1 side by side; measured.
const SHA1_STREAMS: usize = 4;
/// Streams of SHA-256 side by side; measured.
const SHA256_STREAMS: usize = 2;

/// Advances each SHA-1 state over its message. The machine has the SHA extensions.
#[expect(unsafe_code, reason = "the caller knows that the machine has the instructions")]
pub(crate) fn sha1(states: &mut [[u32; 5]], messages: &[Message<'_, 64>]) {
    for (states, messages) in states.chunks_mut(SHA1_STREAMS).zip(messages.chunks(SHA1_STREAMS)) {
        // SAFETY: only asked for by an engine that has SHA, SSSE3 and SSE4.1.
        unsafe { sha1_group(states, messages) }
    }
}

/// Advances each SHA-256 state over its message. The machine has the SHA extensions.
#[expect(unsafe_code, reason = "the caller knows that the machine has the instructions")]
pub(crate) fn sha256(states: &mut [[u32; 8]], messages: &[Message<'_, 64>]) {
    for (states, messages) in states.chunks_mut(SHA256_STREAMS).zip(messages.chunks(SHA256_STREAMS)) {
        // SAFETY: only asked for by an engine that has SHA, SSSE3 and SSE4.1.
        unsafe { sha256_group(states, messages) }
    }
}

/// All streams as far as the shortest goes, then what is left of each.
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn sha1_group(states: &mut [[u32; 5]], messages: &[Message<'_, 64>]) {
    let shared = messages.iter().map(Message::len).min().unwrap_or(0);
    match messages.len() {
        SHA1_STREAMS => sha1_streams::<SHA1_STREAMS>(states, messages, 0, shared),
        3 => sha1_streams::<3>(states, messages, 0, shared),
        2 => sha1_streams::<2>(states, messages, 0, shared),
        _ => sha1_streams::<1>(states, messages, 0, shared),
    }
    for (state, message) in states.chunks_mut(1).zip(messages.chunks(1)) {
        sha1_streams::<1>(state, message, shared, message[0].len());
    }
}

/// All streams as far as the shortest goes, then what is left of each.
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn sha256_group(states: &mut [[u32; 8]], messages: &[Message<'_, 64>]) {
    let shared = messages.iter().map(Message::len).min().unwrap_or(0);
    match messages.len() {
        SHA256_STREAMS => sha256_streams::<SHA256_STREAMS>(states, messages, 0, shared),
        _ => sha256_streams::<1>(states, messages, 0, shared),
    }
    for (state, message) in states.chunks_mut(1).zip(messages.chunks(1)) {
        sha256_streams::<1>(state, message, shared, message[0].len());
    }
}

/// The four words of each quarter of a block; the first in the highest place when `is_reversed`, as SHA-1 wants it.
#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn load(block: &[u8; 64], is_reversed: bool) -> [__m128i; 4] {
    let swap = if is_reversed {
        _mm_set_epi64x(0x0001_0203_0405_0607, 0x0809_0a0b_0c0d_0e0f)
    } else {
        _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203)
    };
    let mut w = [_mm_setzero_si128(); 4];
    for (w, bytes) in w.iter_mut().zip(block.as_chunks().0) {
        *w = _mm_shuffle_epi8(load_128(bytes), swap);
    }
    w
}

/// `N` streams from block `from` to `to`; each message is that long.
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn sha1_streams<const N: usize>(states: &mut [[u32; 5]], messages: &[Message<'_, 64>], from: usize, to: usize) {
    let mut abcd = [_mm_setzero_si128(); N];
    let mut e = [_mm_setzero_si128(); N];
    for n in 0..N {
        let [a, b, c, d, last] = states[n].map(|word| word as i32);
        abcd[n] = _mm_set_epi32(a, b, c, d);
        e[n] = _mm_set_epi32(last, 0, 0, 0);
    }
    for at in from..to {
        let mut w = [[_mm_setzero_si128(); 4]; N];
        for n in 0..N {
            w[n] = load(messages[n].block(at), true);
        }
        let (abcd_before, e_before) = (abcd, e);
        // What the next group of four rounds makes its e of; the first adds e itself.
        let mut past = abcd;
        macro_rules! groups {
            ($function:literal: $($i:literal)*) => {$(
                for n in 0..N {
                    let words = if $i < 4 {
                        w[n][$i % 4]
                    } else {
                        let mixed = _mm_sha1msg1_epu32(w[n][$i % 4], w[n][($i + 1) % 4]);
                        w[n][$i % 4] = _mm_sha1msg2_epu32(_mm_xor_si128(mixed, w[n][($i + 2) % 4]), w[n][($i + 3) % 4]);
                        w[n][$i % 4]
                    };
                    let fed = if $i == 0 { _mm_add_epi32(e[n], words) } else { _mm_sha1nexte_epu32(past[n], words) };
                    past[n] = abcd[n];
                    abcd[n] = _mm_sha1rnds4_epu32::<$function>(abcd[n], fed);
                }
            )*};
        }
        groups!(0: 0 1 2 3 4);
        groups!(1: 5 6 7 8 9);
        groups!(2: 10 11 12 13 14);
        groups!(3: 15 16 17 18 19);
        for n in 0..N {
            e[n] = _mm_sha1nexte_epu32(past[n], e_before[n]);
            abcd[n] = _mm_add_epi32(abcd[n], abcd_before[n]);
        }
    }
    for n in 0..N {
        states[n] = [
            _mm_extract_epi32::<3>(abcd[n]),
            _mm_extract_epi32::<2>(abcd[n]),
            _mm_extract_epi32::<1>(abcd[n]),
            _mm_extract_epi32::<0>(abcd[n]),
            _mm_extract_epi32::<3>(e[n]),
        ]
        .map(|word| word as u32);
    }
}

/// `N` streams from block `from` to `to`; each message is that long.
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn sha256_streams<const N: usize>(states: &mut [[u32; 8]], messages: &[Message<'_, 64>], from: usize, to: usize) {
    let mut abef = [_mm_setzero_si128(); N];
    let mut cdgh = [_mm_setzero_si128(); N];
    for n in 0..N {
        let [a, b, c, d, e, f, g, h] = states[n].map(|word| word as i32);
        abef[n] = _mm_set_epi32(a, b, e, f);
        cdgh[n] = _mm_set_epi32(c, d, g, h);
    }
    for at in from..to {
        let mut w = [[_mm_setzero_si128(); 4]; N];
        for n in 0..N {
            w[n] = load(messages[n].block(at), false);
        }
        let (abef_before, cdgh_before) = (abef, cdgh);
        macro_rules! groups {
            ($($i:literal)*) => {$(
                let [a, b, c, d] = K256.as_chunks::<4>().0[$i].map(|word| word as i32);
                let constants = _mm_set_epi32(d, c, b, a);
                for n in 0..N {
                    if $i >= 4 {
                        let mixed = _mm_sha256msg1_epu32(w[n][$i % 4], w[n][($i + 1) % 4]);
                        let nine_before = _mm_alignr_epi8::<4>(w[n][($i + 3) % 4], w[n][($i + 2) % 4]);
                        w[n][$i % 4] = _mm_sha256msg2_epu32(_mm_add_epi32(mixed, nine_before), w[n][($i + 3) % 4]);
                    }
                    let fed = _mm_add_epi32(w[n][$i % 4], constants);
                    cdgh[n] = _mm_sha256rnds2_epu32(cdgh[n], abef[n], fed);
                    abef[n] = _mm_sha256rnds2_epu32(abef[n], cdgh[n], _mm_shuffle_epi32::<0x0e>(fed));
                }
            )*};
        }
        groups!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
        for n in 0..N {
            abef[n] = _mm_add_epi32(abef[n], abef_before[n]);
            cdgh[n] = _mm_add_epi32(cdgh[n], cdgh_before[n]);
        }
    }
    for n in 0..N {
        states[n] = [
            _mm_extract_epi32::<3>(abef[n]),
            _mm_extract_epi32::<2>(abef[n]),
            _mm_extract_epi32::<3>(cdgh[n]),
            _mm_extract_epi32::<2>(cdgh[n]),
            _mm_extract_epi32::<1>(abef[n]),
            _mm_extract_epi32::<0>(abef[n]),
            _mm_extract_epi32::<1>(cdgh[n]),
            _mm_extract_epi32::<0>(cdgh[n]),
        ]
        .map(|word| word as u32);
    }
}
