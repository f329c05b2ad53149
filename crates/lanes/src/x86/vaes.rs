//! AES-CBC by VAES: four chains a register and up to six registers, or sixteen blocks of one packet's decryption.

use std::arch::x86_64::{
    __m512i, _mm512_aesdec_epi128, _mm512_aesdeclast_epi128, _mm512_aesenc_epi128, _mm512_aesenclast_epi128,
    _mm512_broadcast_i32x4, _mm512_setzero_si512, _mm512_ternarylogic_epi64, _mm512_xor_si512,
};

use super::avx512::transpose_quarters;
use super::schedule::Schedule;
use super::{aes_ni, load_512, store_512};
use crate::lane::Lane;

/// Chains in a register.
const WIDTH: usize = 4;
/// Registers in flight.
const REGISTERS: usize = 6;
/// Chains in flight that keep the AES units busy with the least to shuffle; measured.
const BEST: usize = 16;
/// Up to so many chains AES-NI is as fast; measured.
const NARROW: usize = 8;
/// Blocks of a chain that are loaded at once.
const STEP: usize = 64;

/// Encrypts the text of each lane; the longest is first. The machine has VAES, AVX-512 and AES-NI.
#[expect(unsafe_code, reason = "the caller knows that the machine has the instructions")]
pub(crate) fn encrypt(keys: &Schedule, lanes: &mut [Lane<'_>]) {
    let mut rest = lanes;
    while rest.len() > NARROW {
        let count = if rest.len() > WIDTH * REGISTERS { BEST } else { rest.len() };
        let (lanes, others) = rest.split_at_mut(count);
        // SAFETY: only asked for by an engine that has VAES and AVX-512F.
        unsafe { encrypt_group(keys, lanes) }
        rest = others;
    }
    aes_ni::encrypt(keys, rest);
}

/// Decrypts all blocks but the first, which is the IV. The machine has VAES, AVX-512 and AES-NI.
#[expect(unsafe_code, reason = "the caller knows that the machine has the instructions")]
pub(crate) fn decrypt(keys: &Schedule, chained: &mut [u8]) {
    // SAFETY: only asked for by an engine that has VAES, AVX-512F and AES-NI.
    unsafe { decrypt_packet(keys, chained) }
}

/// As registers come to their end, fewer go on. A lane that ends within a register idles until its neighbours end.
#[target_feature(enable = "avx512f,vaes")]
fn encrypt_group(keys: &Schedule, lanes: &mut [Lane<'_>]) {
    let mut ivs = [[0; STEP]; REGISTERS];
    for (iv, lane) in ivs.as_flattened_mut().as_chunks_mut().0.iter_mut().zip(lanes.iter()) {
        *iv = lane.iv();
    }
    let mut chains = [_mm512_setzero_si512(); REGISTERS];
    for (chain, iv) in chains.iter_mut().zip(&ivs) {
        *chain = load_512(iv);
    }
    let steps = |lanes: &[Lane<'_>], register: usize| lanes[register * WIDTH].text_len().div_ceil(STEP);
    let mut running = lanes.len().div_ceil(WIDTH);
    let mut from = 0;
    while running > 0 {
        let to = steps(lanes, running - 1);
        match running {
            1 => chain::<1>(keys, &mut chains, lanes, from, to),
            2 => chain::<2>(keys, &mut chains, lanes, from, to),
            3 => chain::<3>(keys, &mut chains, lanes, from, to),
            4 => chain::<4>(keys, &mut chains, lanes, from, to),
            5 => chain::<5>(keys, &mut chains, lanes, from, to),
            _ => chain::<REGISTERS>(keys, &mut chains, lanes, from, to),
        }
        from = to;
        while running > 0 && steps(lanes, running - 1) == to {
            running -= 1;
        }
    }
}

/// Steps `from` to `to`: those that every lane has whole, then the ragged rest.
#[target_feature(enable = "avx512f,vaes")]
fn chain<const R: usize>(
    keys: &Schedule,
    chains: &mut [__m512i; REGISTERS],
    lanes: &mut [Lane<'_>],
    from: usize,
    to: usize,
) {
    let running = lanes.len().min(R * WIDTH);
    let lanes = &mut lanes[..running];
    let mut x = [_mm512_setzero_si512(); R];
    x.copy_from_slice(&chains[..R]);
    let shortest = lanes.last().map_or(0, |lane| lane.text_len() / STEP);
    let whole = shortest.clamp(from, to);
    chain_whole(keys, &mut x, lanes, from, whole);
    for step in whole..to {
        let mut rows = [[_mm512_setzero_si512(); WIDTH]; R];
        for (row, lane) in rows.as_flattened_mut().iter_mut().zip(lanes.iter()) {
            *row = load_up_to_512(lane.text(), step * STEP);
        }
        advance(keys, &mut x, &mut rows);
        for (row, lane) in rows.as_flattened().iter().zip(lanes.iter_mut()) {
            store_up_to_512(lane.text_mut(), step * STEP, *row);
        }
    }
    chains[..R].copy_from_slice(&x);
}

/// Where a chain's steps lie, and which of a step's number counts: all of it, or nothing.
#[derive(Default)]
struct Place<'a> {
    text: &'a mut [[u8; STEP]],
    mask: usize,
}

/// Steps `from` to `to`, which every lane has whole.
#[inline]
#[target_feature(enable = "avx512f,vaes")]
fn chain_whole<const R: usize>(keys: &Schedule, x: &mut [__m512i; R], lanes: &mut [Lane<'_>], from: usize, to: usize) {
    // Places without a lane work on a step of their own again and again, so that no place needs a question.
    let mut idle = [[[0; STEP]; 1]; WIDTH];
    let mut idle = idle.iter_mut();
    let mut texts: [[Place<'_>; WIDTH]; R] = std::array::from_fn(|_| Default::default());
    let mut lanes = lanes.iter_mut();
    for place in texts.as_flattened_mut() {
        *place = match lanes.next() {
            Some(lane) => Place { text: lane.text_mut().as_chunks_mut().0, mask: usize::MAX },
            None => Place { text: idle.next().map_or(&mut [], |idle| &mut idle[..]), mask: 0 },
        };
    }
    for step in from..to {
        let mut rows = [[_mm512_setzero_si512(); WIDTH]; R];
        for r in 0..R {
            for lane in 0..WIDTH {
                let Place { text, mask } = &texts[r][lane];
                rows[r][lane] = load_512(&text[step & mask]);
            }
        }
        advance(keys, x, &mut rows);
        for r in 0..R {
            for lane in 0..WIDTH {
                let Place { text, mask } = &mut texts[r][lane];
                store_512(&mut text[step & *mask], rows[r][lane]);
            }
        }
    }
}

/// Encrypts four blocks of each lane. A row is those of one lane; transposed, it is one block of each of four lanes.
#[expect(clippy::needless_range_loop, reason = "the same index leads into several arrays")]
#[inline]
#[target_feature(enable = "avx512f,vaes")]
fn advance<const R: usize>(keys: &Schedule, x: &mut [__m512i; R], rows: &mut [[__m512i; WIDTH]; R]) {
    let (first, between, last) = keys.encrypting();
    let (first, last) = (_mm512_broadcast_i32x4(*first), _mm512_broadcast_i32x4(*last));
    for rows in rows.iter_mut() {
        *rows = transpose_quarters(*rows);
    }
    for block in 0..WIDTH {
        for r in 0..R {
            x[r] = _mm512_ternarylogic_epi64::<0x96>(x[r], rows[r][block], first);
        }
        for key in between {
            let key = _mm512_broadcast_i32x4(*key);
            for x in x.iter_mut() {
                *x = _mm512_aesenc_epi128(*x, key);
            }
        }
        for r in 0..R {
            x[r] = _mm512_aesenclast_epi128(x[r], last);
            rows[r][block] = x[r];
        }
    }
    for rows in rows.iter_mut() {
        *rows = transpose_quarters(*rows);
    }
}

/// What there is from `at` on, then zeros.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_up_to_512(text: &[u8], at: usize) -> __m512i {
    let rest = text.get(at..).unwrap_or_default();
    if let Some(whole) = rest.first_chunk() {
        return load_512(whole);
    }
    let mut bytes = [0; STEP];
    bytes[..rest.len()].copy_from_slice(rest);
    load_512(&bytes)
}

/// Stores as much as there is room for from `at` on.
#[inline]
#[target_feature(enable = "avx512f")]
fn store_up_to_512(text: &mut [u8], at: usize, value: __m512i) {
    let rest = text.get_mut(at..).unwrap_or_default();
    if let Some(whole) = rest.first_chunk_mut() {
        return store_512(whole, value);
    }
    let mut bytes = [0; STEP];
    store_512(&mut bytes, value);
    rest.copy_from_slice(&bytes[..rest.len()]);
}

/// From the end to the front: what a block is chained to is then still ciphertext when it is needed.
#[target_feature(enable = "avx512f,vaes,aes")]
fn decrypt_packet(keys: &Schedule, chained: &mut [u8]) {
    const WIDE: usize = 4;
    let mut end = chained.len();
    while end >= 16 + WIDE * STEP {
        end -= WIDE * STEP;
        unchain::<WIDE>(keys, chained, end);
    }
    while end >= 16 + STEP {
        end -= STEP;
        unchain::<1>(keys, chained, end);
    }
    aes_ni::decrypt_packet(keys, &mut chained[..end]);
}

/// Decrypts `R` registers of blocks from `at` on; a block stands before `at`.
#[inline]
#[target_feature(enable = "avx512f,vaes")]
fn unchain<const R: usize>(keys: &Schedule, chained: &mut [u8], at: usize) {
    let (first, between, last) = keys.decrypting();
    let first = _mm512_broadcast_i32x4(*first);
    let mut x = [_mm512_setzero_si512(); R];
    let mut before = [_mm512_setzero_si512(); R];
    for r in 0..R {
        x[r] = _mm512_xor_si512(load_up_to_512(chained, at + r * STEP), first);
        before[r] = load_up_to_512(chained, at + r * STEP - 16);
    }
    for key in between {
        let key = _mm512_broadcast_i32x4(*key);
        for x in &mut x {
            *x = _mm512_aesdec_epi128(*x, key);
        }
    }
    let last = _mm512_broadcast_i32x4(*last);
    for r in 0..R {
        let plain = _mm512_xor_si512(_mm512_aesdeclast_epi128(x[r], last), before[r]);
        store_up_to_512(chained, at + r * STEP, plain);
    }
}
