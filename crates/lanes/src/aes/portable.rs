//! AES-CBC by aws-lc, one packet at a time.

use aws_lc_rs::cipher::{
    AES_128, AES_192, AES_256, DecryptingKey, DecryptionContext, EncryptingKey, EncryptionContext, UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;

use crate::BLOCK;

pub(crate) struct Portable {
    encrypting: Box<EncryptingKey>,
    decrypting: Box<DecryptingKey>,
}

impl Portable {
    /// `None` when `key` is not an AES key.
    pub(crate) fn new(key: &[u8]) -> Option<Self> {
        let algorithm = match key.len() {
            16 => &AES_128,
            24 => &AES_192,
            32 => &AES_256,
            _ => return None,
        };
        let unbound = || UnboundCipherKey::new(algorithm, key);
        Some(Self {
            encrypting: Box::new(EncryptingKey::cbc(unbound().ok()?).ok()?),
            decrypting: Box::new(DecryptingKey::cbc(unbound().ok()?).ok()?),
        })
    }

    /// `text` is whole blocks.
    pub(crate) fn encrypt(&self, iv: [u8; BLOCK], text: &mut [u8]) {
        let iv = EncryptionContext::Iv128(FixedLength::from(iv));
        self.encrypting.less_safe_encrypt(text, iv).expect("whole blocks with an IV of one block");
    }

    /// `chained` is whole blocks; the first is the IV and stays.
    pub(crate) fn decrypt(&self, chained: &mut [u8]) {
        if let Some((iv, text)) = chained.split_first_chunk_mut::<BLOCK>() {
            let iv = DecryptionContext::Iv128(FixedLength::from(*iv));
            self.decrypting.decrypt(text, iv).expect("whole blocks with an IV of one block");
        }
    }
}
