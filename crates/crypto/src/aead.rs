//! Authenticated encryption in place: AES-GCM (RFC 4106, RFC 5282) and ChaCha20-Poly1305 (RFC 7634).
//!
//! All three take a 12-byte nonce made of the 4-byte salt from key derivation and the 8-byte IV that
//! the packet carries, and append a 16-byte tag. What goes into the associated data is the caller's.

use std::fmt;

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use base::algorithm::Encryption;
use zeroize::Zeroize;

use crate::{BadKey, Forged};

/// Bytes of tag.
pub const TAG_LEN: usize = 16;
/// Bytes of IV in a packet.
pub const IV_LEN: usize = 8;
const SALT_LEN: usize = 4;

/// A key of an AEAD algorithm with its salt, for both directions and any number of threads.
pub struct AeadKey {
    encryption: Encryption,
    key: LessSafeKey,
    salt: [u8; SALT_LEN],
}

impl AeadKey {
    /// Sets the key; the salt stands behind it, as key derivation yields them.
    ///
    /// # Errors
    ///
    /// [`BadKey`] when `encryption` is not an AEAD algorithm or `key_and_salt` is not
    /// [`Encryption::key_len`] + [`Encryption::salt_len`] long.
    pub fn new(encryption: Encryption, key_and_salt: &[u8]) -> Result<Self, BadKey> {
        let algorithm = match encryption {
            Encryption::Aes128Gcm => &AES_128_GCM,
            Encryption::Aes256Gcm => &AES_256_GCM,
            Encryption::ChaCha20Poly1305 => &CHACHA20_POLY1305,
            Encryption::TripleDesCbc | Encryption::Aes128Cbc | Encryption::Aes192Cbc | Encryption::Aes256Cbc => {
                return Err(BadKey);
            }
        };
        let (key, salt) = key_and_salt.split_last_chunk().ok_or(BadKey)?;
        let key = UnboundKey::new(algorithm, key).map_err(|_| BadKey)?;
        Ok(Self { encryption, key: LessSafeKey::new(key), salt: *salt })
    }

    /// The algorithm.
    pub fn encryption(&self) -> Encryption {
        self.encryption
    }

    /// Encrypts in place and returns the tag. One key must never see the same IV twice.
    pub fn seal(&self, iv: [u8; IV_LEN], aad: &[u8], in_out: &mut [u8]) -> [u8; TAG_LEN] {
        let mut tag = [0; TAG_LEN];
        self.key
            .seal_in_place_scatter(self.nonce(iv), Aad::from(aad), in_out, &[], &mut tag)
            .expect("a packet is shorter than 64 GB");
        tag
    }

    /// Checks the tag, the last 16 bytes, and decrypts what stands before it in place. Returns the
    /// length of the plaintext, which begins where the ciphertext began.
    ///
    /// # Errors
    ///
    /// [`Forged`] when the tag does not fit or there is none; what the buffer then holds is not
    /// specified and must not be used.
    pub fn open(&self, iv: [u8; IV_LEN], aad: &[u8], ciphertext_and_tag: &mut [u8]) -> Result<usize, Forged> {
        let plaintext =
            self.key.open_in_place(self.nonce(iv), Aad::from(aad), ciphertext_and_tag).map_err(|_| Forged)?;
        Ok(plaintext.len())
    }

    fn nonce(&self, iv: [u8; IV_LEN]) -> Nonce {
        let mut nonce = [0; SALT_LEN + IV_LEN];
        nonce[..SALT_LEN].copy_from_slice(&self.salt);
        nonce[SALT_LEN..].copy_from_slice(&iv);
        Nonce::assume_unique_for_key(nonce)
    }
}

impl Drop for AeadKey {
    fn drop(&mut self) {
        self.salt.zeroize();
    }
}

impl fmt::Debug for AeadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AeadKey({} {{secret}})", self.encryption)
    }
}
