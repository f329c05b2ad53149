//! The instructions of x86-64: all the `unsafe` of this crate.
//!
//! Two things are unsafe here: to call a function whose instructions the machine may lack, which an
//! [`Engine`](crate::Engine) vouches for, and to load and store registers through pointers, which the helpers below
//! do for arrays of the right length. The arithmetic between is safe: the compiler checks that a function that uses
//! an instruction says so.

pub(crate) mod aes_ni;
pub(crate) mod avx2;
pub(crate) mod avx512;
mod rounds;
pub(crate) mod schedule;
pub(crate) mod sha_ni;
pub(crate) mod vaes;

use std::arch::x86_64::{
    __m128i, __m256i, __m512i, _mm_loadu_si128, _mm_storeu_si128, _mm256_loadu_si256, _mm256_storeu_si256,
    _mm512_loadu_si512, _mm512_storeu_si512,
};

#[expect(unsafe_code, reason = "the intrinsic takes a pointer")]
#[inline]
#[target_feature(enable = "sse2")]
fn load_128(bytes: &[u8; 16]) -> __m128i {
    // SAFETY: the array is as long as the register; no alignment is asked for.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

#[expect(unsafe_code, reason = "the intrinsic takes a pointer")]
#[inline]
#[target_feature(enable = "sse2")]
fn store_128(bytes: &mut [u8; 16], value: __m128i) {
    // SAFETY: the array is as long as the register; no alignment is asked for.
    unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), value) }
}

#[expect(unsafe_code, reason = "the intrinsic takes a pointer")]
#[inline]
#[target_feature(enable = "avx")]
fn load_256(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: the array is as long as the register; no alignment is asked for.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[expect(unsafe_code, reason = "the intrinsic takes a pointer")]
#[inline]
#[target_feature(enable = "avx")]
fn store_256(words: &mut [u32; 8], value: __m256i) {
    // SAFETY: the array is as long as the register; no alignment is asked for.
    unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), value) }
}

#[expect(unsafe_code, reason = "the intrinsic takes a pointer")]
#[inline]
#[target_feature(enable = "avx512f")]
fn load_512(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: the array is as long as the register; no alignment is asked for.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[expect(unsafe_code, reason = "the intrinsic takes a pointer")]
#[inline]
#[target_feature(enable = "avx512f")]
fn store_512(bytes: &mut [u8; 64], value: __m512i) {
    // SAFETY: the array is as long as the register; no alignment is asked for.
    unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), value) }
}
