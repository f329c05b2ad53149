//! AES-CBC (RFC 3602): encryption of several packets at a time, decryption of one, which needs no help from others.

mod portable;

use base::algorithm::Encryption;

use crate::Unsupported;
use crate::engine::{CipherEngine, Engine};
use crate::lane::Lane;
#[cfg(target_arch = "x86_64")]
use crate::x86::{aes_ni, schedule::Schedule, vaes};
use portable::Portable;

/// A key of AES-CBC for both directions.
pub(crate) enum Cipher {
    Portable(Portable),
    #[cfg(target_arch = "x86_64")]
    AesNi(Schedule),
    #[cfg(target_arch = "x86_64")]
    Vaes(Schedule),
}

impl Cipher {
    pub(crate) fn new(encryption: Encryption, key: &[u8], engine: Engine) -> Result<Self, Unsupported> {
        let is_aes_cbc = matches!(encryption, Encryption::Aes128Cbc | Encryption::Aes192Cbc | Encryption::Aes256Cbc);
        if !is_aes_cbc {
            return Err(Unsupported::Suite);
        }
        if key.len() != encryption.key_len() {
            return Err(Unsupported::KeyLength);
        }
        Ok(match engine.cipher() {
            CipherEngine::Portable => Self::Portable(Portable::new(key).ok_or(Unsupported::KeyLength)?),
            #[cfg(target_arch = "x86_64")]
            CipherEngine::AesNi => Self::AesNi(Schedule::new(key)),
            #[cfg(target_arch = "x86_64")]
            CipherEngine::Vaes => Self::Vaes(Schedule::new(key)),
        })
    }

    /// Encrypts the text of each lane. They are in order, the longest first; at most [`crate::WINDOW`].
    pub(crate) fn encrypt(&self, lanes: &mut [Lane<'_>]) {
        match self {
            Self::Portable(keys) => lanes.iter_mut().for_each(|lane| keys.encrypt(lane.iv(), lane.text_mut())),
            #[cfg(target_arch = "x86_64")]
            Self::AesNi(keys) => aes_ni::encrypt(keys, lanes),
            #[cfg(target_arch = "x86_64")]
            Self::Vaes(keys) => vaes::encrypt(keys, lanes),
        }
    }

    /// Decrypts all blocks but the first, which is the IV; `chained` is whole blocks, at least one.
    pub(crate) fn decrypt(&self, chained: &mut [u8]) {
        match self {
            Self::Portable(keys) => keys.decrypt(chained),
            #[cfg(target_arch = "x86_64")]
            Self::AesNi(keys) => aes_ni::decrypt(keys, chained),
            #[cfg(target_arch = "x86_64")]
            Self::Vaes(keys) => vaes::decrypt(keys, chained),
        }
    }
}
