//! AES-CBC by AES-NI: eight chains of encryption, or eight blocks of one packet's decryption, in flight.

use std::arch::x86_64::{
    __m128i, _mm_aesdec_si128, _mm_aesdeclast_si128, _mm_aesenc_si128, _mm_aesenclast_si128, _mm_setzero_si128,
    _mm_xor_si128,
};

use super::schedule::Schedule;
use super::{load_128, store_128};
use crate::lane::Lane;

/// Chains in flight: two AES units with a latency of four.
const CHAINS: usize = 8;
const BLOCK: usize = 16;

/// Encrypts the text of each lane; the longest is first. The machine has AES-NI.
#[expect(unsafe_code, reason = "the caller knows that the machine has the instructions")]
pub(crate) fn encrypt(keys: &Schedule, lanes: &mut [Lane<'_>]) {
    for lanes in lanes.chunks_mut(CHAINS) {
        // SAFETY: only asked for by an engine that has AES-NI.
        unsafe { encrypt_group(keys, lanes) }
    }
}

/// Decrypts all blocks but the first, which is the IV. The machine has AES-NI.
#[expect(unsafe_code, reason = "the caller knows that the machine has the instructions")]
pub(crate) fn decrypt(keys: &Schedule, chained: &mut [u8]) {
    // SAFETY: only asked for by an engine that has AES-NI.
    unsafe { decrypt_packet(keys, chained) }
}

/// As lanes come to their end, fewer go on.
#[target_feature(enable = "aes")]
fn encrypt_group(keys: &Schedule, lanes: &mut [Lane<'_>]) {
    let mut chains = [_mm_setzero_si128(); CHAINS];
    let mut texts: [&mut [[u8; BLOCK]]; CHAINS] = Default::default();
    let mut running = lanes.len();
    for ((chain, text), lane) in chains.iter_mut().zip(&mut texts).zip(lanes) {
        *chain = load_128(&lane.iv());
        *text = lane.text_mut().as_chunks_mut().0;
    }
    let mut from = 0;
    while running > 0 {
        let to = texts[running - 1].len();
        match running {
            1 => chain::<1>(keys, &mut chains, &mut texts, from, to),
            2 => chain::<2>(keys, &mut chains, &mut texts, from, to),
            3 => chain::<3>(keys, &mut chains, &mut texts, from, to),
            4 => chain::<4>(keys, &mut chains, &mut texts, from, to),
            5 => chain::<5>(keys, &mut chains, &mut texts, from, to),
            6 => chain::<6>(keys, &mut chains, &mut texts, from, to),
            7 => chain::<7>(keys, &mut chains, &mut texts, from, to),
            _ => chain::<CHAINS>(keys, &mut chains, &mut texts, from, to),
        }
        from = to;
        while running > 0 && texts[running - 1].len() == to {
            running -= 1;
        }
    }
}

#[expect(clippy::needless_range_loop, reason = "the same index leads into several arrays")]
#[target_feature(enable = "aes")]
fn chain<const N: usize>(
    keys: &Schedule,
    chains: &mut [__m128i; CHAINS],
    texts: &mut [&mut [[u8; BLOCK]]; CHAINS],
    from: usize,
    to: usize,
) {
    let (first, between, last) = keys.encrypting();
    let mut x = [_mm_setzero_si128(); N];
    x.copy_from_slice(&chains[..N]);
    for at in from..to {
        for n in 0..N {
            x[n] = _mm_xor_si128(x[n], _mm_xor_si128(load_128(&texts[n][at]), *first));
        }
        for key in between {
            for x in &mut x {
                *x = _mm_aesenc_si128(*x, *key);
            }
        }
        for n in 0..N {
            x[n] = _mm_aesenclast_si128(x[n], *last);
            store_128(&mut texts[n][at], x[n]);
        }
    }
    chains[..N].copy_from_slice(&x);
}

/// From the end to the front: what a block is chained to is then still ciphertext when it is needed.
#[target_feature(enable = "aes")]
pub(super) fn decrypt_packet(keys: &Schedule, chained: &mut [u8]) {
    let (blocks, _) = chained.as_chunks_mut();
    let mut end = blocks.len();
    while end > CHAINS {
        end -= CHAINS;
        unchain::<CHAINS>(keys, blocks, end);
    }
    while end > 1 {
        end -= 1;
        unchain::<1>(keys, blocks, end);
    }
}

/// Decrypts `N` blocks from `at` on; `at` is not 0.
#[inline]
#[target_feature(enable = "aes")]
fn unchain<const N: usize>(keys: &Schedule, blocks: &mut [[u8; BLOCK]], at: usize) {
    let (first, between, last) = keys.decrypting();
    let mut x = [_mm_setzero_si128(); N];
    let mut before = [_mm_setzero_si128(); N];
    for n in 0..N {
        x[n] = _mm_xor_si128(load_128(&blocks[at + n]), *first);
        before[n] = load_128(&blocks[at + n - 1]);
    }
    for key in between {
        for x in &mut x {
            *x = _mm_aesdec_si128(*x, *key);
        }
    }
    for n in 0..N {
        store_128(&mut blocks[at + n], _mm_xor_si128(_mm_aesdeclast_si128(x[n], *last), before[n]));
    }
}
