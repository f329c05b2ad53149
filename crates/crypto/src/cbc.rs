//! Cipher block chaining in place: AES (RFC 3602) and triple DES (RFC 2451).
//!
//! Whole blocks only; padding is the caller's. CBC alone authenticates nothing: check the integrity
//! of a message before it is decrypted.

use std::fmt;
use std::sync::OnceLock;

use ::cbc::cipher::{Array, BlockModeDecrypt, BlockModeEncrypt, InnerIvInit, KeyInit};
use aws_lc_rs::cipher::{
    AES_128, AES_192, AES_256, Algorithm, DecryptingKey, DecryptionContext, EncryptingKey, EncryptionContext,
    UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use base::Secret;
use base::algorithm::Encryption;
use des::TdesEde3;

use crate::{BadKey, BadLength};

const AES_BLOCK: usize = 16;
const DES_BLOCK: usize = 8;

/// A key of a CBC algorithm, for both directions and any number of threads.
///
/// A direction's key schedule (about 0.5 KB for AES) is made when that direction is first used, for
/// most keys only ever see one. No other call allocates.
pub struct CbcKey {
    encryption: Encryption,
    schedule: Schedule,
}

enum Schedule {
    Aes(Aes),
    TripleDes(Box<TdesEde3>),
}

impl CbcKey {
    /// Sets the key.
    ///
    /// # Errors
    ///
    /// [`BadKey`] when `encryption` is an AEAD algorithm or `key` is not [`Encryption::key_len`] long.
    pub fn new(encryption: Encryption, key: &[u8]) -> Result<Self, BadKey> {
        if key.len() != encryption.key_len() {
            return Err(BadKey);
        }
        let schedule = match encryption {
            Encryption::TripleDesCbc => {
                Schedule::TripleDes(Box::new(TdesEde3::new_from_slice(key).map_err(|_| BadKey)?))
            }
            Encryption::Aes128Cbc => Schedule::Aes(Aes::new(&AES_128, key)),
            Encryption::Aes192Cbc => Schedule::Aes(Aes::new(&AES_192, key)),
            Encryption::Aes256Cbc => Schedule::Aes(Aes::new(&AES_256, key)),
            Encryption::Aes128Gcm | Encryption::Aes256Gcm | Encryption::ChaCha20Poly1305 => return Err(BadKey),
        };
        Ok(Self { encryption, schedule })
    }

    /// The algorithm.
    pub fn encryption(&self) -> Encryption {
        self.encryption
    }

    /// Encrypts whole blocks in place. The IV must be unpredictable, and new for each message.
    ///
    /// # Errors
    ///
    /// [`BadLength`] when `iv` is not one block or `in_out` is not whole blocks; nothing is changed.
    pub fn encrypt(&self, iv: &[u8], in_out: &mut [u8]) -> Result<(), BadLength> {
        match &self.schedule {
            Schedule::Aes(aes) => aes.encrypt(iv, in_out),
            Schedule::TripleDes(des) => {
                let (iv, blocks) = des_blocks(iv, in_out)?;
                ::cbc::Encryptor::inner_iv_init(&**des, &iv.into()).encrypt_blocks(blocks);
                Ok(())
            }
        }
    }

    /// Decrypts whole blocks in place.
    ///
    /// # Errors
    ///
    /// [`BadLength`] when `iv` is not one block or `in_out` is not whole blocks; nothing is changed.
    pub fn decrypt(&self, iv: &[u8], in_out: &mut [u8]) -> Result<(), BadLength> {
        match &self.schedule {
            Schedule::Aes(aes) => aes.decrypt(iv, in_out),
            Schedule::TripleDes(des) => {
                let (iv, blocks) = des_blocks(iv, in_out)?;
                ::cbc::Decryptor::inner_iv_init(&**des, &iv.into()).decrypt_blocks(blocks);
                Ok(())
            }
        }
    }
}

impl fmt::Debug for CbcKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CbcKey({} {{secret}})", self.encryption)
    }
}

struct Aes {
    algorithm: &'static Algorithm,
    key: Secret,
    encrypting: OnceLock<Box<EncryptingKey>>,
    decrypting: OnceLock<Box<DecryptingKey>>,
}

impl Aes {
    /// `key` is as long as `algorithm` wants it.
    fn new(algorithm: &'static Algorithm, key: &[u8]) -> Self {
        Self { algorithm, key: Secret::from(key), encrypting: OnceLock::new(), decrypting: OnceLock::new() }
    }

    fn encrypt(&self, iv: &[u8], in_out: &mut [u8]) -> Result<(), BadLength> {
        let iv = aes_iv(iv, in_out)?;
        let key =
            self.encrypting.get_or_init(|| Box::new(EncryptingKey::cbc(self.unbound()).expect("AES has a CBC mode")));
        key.less_safe_encrypt(in_out, EncryptionContext::Iv128(iv)).map_err(|_| BadLength)?;
        Ok(())
    }

    fn decrypt(&self, iv: &[u8], in_out: &mut [u8]) -> Result<(), BadLength> {
        let iv = aes_iv(iv, in_out)?;
        let key =
            self.decrypting.get_or_init(|| Box::new(DecryptingKey::cbc(self.unbound()).expect("AES has a CBC mode")));
        key.decrypt(in_out, DecryptionContext::Iv128(iv)).map_err(|_| BadLength)?;
        Ok(())
    }

    fn unbound(&self) -> UnboundCipherKey {
        UnboundCipherKey::new(self.algorithm, self.key.expose()).expect("the length was checked")
    }
}

fn aes_iv(iv: &[u8], in_out: &[u8]) -> Result<FixedLength<AES_BLOCK>, BadLength> {
    let iv: [u8; AES_BLOCK] = iv.try_into().map_err(|_| BadLength)?;
    if in_out.len().is_multiple_of(AES_BLOCK) { Ok(FixedLength::from(iv)) } else { Err(BadLength) }
}

type DesBlock = ::cbc::cipher::Block<TdesEde3>;

fn des_blocks<'a>(iv: &[u8], in_out: &'a mut [u8]) -> Result<([u8; DES_BLOCK], &'a mut [DesBlock]), BadLength> {
    let iv = iv.try_into().map_err(|_| BadLength)?;
    let (blocks, rest) = Array::slice_as_chunks_mut(in_out);
    if rest.is_empty() { Ok((iv, blocks)) } else { Err(BadLength) }
}
