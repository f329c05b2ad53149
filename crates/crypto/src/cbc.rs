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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::hex;

    const CBC: [Encryption; 4] =
        [Encryption::TripleDesCbc, Encryption::Aes128Cbc, Encryption::Aes192Cbc, Encryption::Aes256Cbc];

    fn check(encryption: Encryption, key: &str, iv: &str, plain: &[u8], cipher: &str) {
        let key = CbcKey::new(encryption, &hex(key)).unwrap();
        let mut buffer = plain.to_vec();
        key.encrypt(&hex(iv), &mut buffer).unwrap();
        assert_eq!(buffer, hex(cipher), "{encryption}");
        key.decrypt(&hex(iv), &mut buffer).unwrap();
        assert_eq!(buffer, plain, "{encryption}");
    }

    #[test]
    fn aes_agrees_with_rfc_3602_and_sp_800_38a() {
        // RFC 3602 §4, cases 1 and 2
        check(
            Encryption::Aes128Cbc,
            "06a9214036b8a15b512e03d534120006",
            "3dafba429d9eb430b422da802c9fac41",
            b"Single block msg",
            "e353779c1079aeb82708942dbe77181a",
        );
        check(
            Encryption::Aes128Cbc,
            "c286696d887c9aa0611bbb3e2025a45a",
            "562e17996d093d28ddb3ba695a2e6f58",
            &(0..32).collect::<Vec<u8>>(),
            "d296cd94c2cccf8a3a863028b5e1dc0a7586602d253cfff91b8266bea6d61ab1",
        );
        // NIST SP 800-38A F.2.3 and F.2.5, the first two blocks
        let plain = hex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51");
        check(
            Encryption::Aes192Cbc,
            "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b",
            "000102030405060708090a0b0c0d0e0f",
            &plain,
            "4f021db243bc633d7178183a9fa071e8b4d9ada9ad7dedf4e5e738763f69145a",
        );
        check(
            Encryption::Aes256Cbc,
            "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
            "000102030405060708090a0b0c0d0e0f",
            &plain,
            "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d",
        );
    }

    #[test]
    fn triple_des_agrees_with_sp_800_67_and_another_implementation() {
        let key = "0123456789abcdef23456789abcdef01456789abcdef0123";
        let iv = "0000000000000000";
        // NIST SP 800-67 App. B.1: single blocks, for which CBC with a zero IV is the bare cipher.
        check(Encryption::TripleDesCbc, key, iv, b"The qufc", "a826fd8ce53b855f");
        check(Encryption::TripleDesCbc, key, iv, b"k brown ", "cce21c8112256fe6");
        check(Encryption::TripleDesCbc, key, iv, b"fox jump", "68d5c05dd9b6b900");
        // The same blocks chained, by `openssl enc -des-ede3-cbc -nopad`.
        let chained = "a826fd8ce53b855f854b649a0a3903c970d563820afe8b35";
        check(Encryption::TripleDesCbc, key, iv, b"The qufck brown fox jump", chained);
    }

    #[test]
    fn keys_of_another_length_or_kind_are_refused() {
        for encryption in Encryption::ALL {
            for len in [0, 8, 16, 20, 24, 28, 32, 36, 64] {
                let fits = !encryption.is_aead() && len == encryption.key_len();
                assert_eq!(CbcKey::new(encryption, &vec![7; len]).is_ok(), fits, "{encryption} {len}");
            }
        }
    }

    #[test]
    fn partial_blocks_and_other_ivs_are_refused_and_left_alone() {
        for encryption in CBC {
            let key = CbcKey::new(encryption, &vec![7; encryption.key_len()]).unwrap();
            let block = encryption.block_len();
            for (iv_len, len) in [(block, block - 1), (block, block + 1), (block - 1, block), (0, 0), (24, block)] {
                let mut data = vec![5; len];
                assert_eq!(key.encrypt(&vec![0; iv_len], &mut data), Err(BadLength));
                assert_eq!(key.decrypt(&vec![0; iv_len], &mut data), Err(BadLength));
                assert_eq!(data, vec![5; len]);
            }
            assert_eq!(key.encrypt(&vec![0; block], &mut []), Ok(()));
            assert_eq!(key.decrypt(&vec![0; block], &mut []), Ok(()));
        }
    }

    #[test]
    fn debug_output_of_a_key_holds_no_byte_of_it() {
        let key = CbcKey::new(Encryption::Aes128Cbc, b"cloudneta1234567").unwrap();
        assert_eq!(format!("{key:?}"), "CbcKey(aes128 {secret})");
    }

    #[test]
    fn one_key_serves_many_threads() {
        let key = CbcKey::new(Encryption::Aes128Cbc, &[1; 16]).unwrap();
        let sealed = || {
            let mut data = [9; 64];
            key.encrypt(&[2; 16], &mut data).unwrap();
            data
        };
        std::thread::scope(|scope| {
            let [a, b] = [scope.spawn(sealed), scope.spawn(sealed)];
            assert_eq!(a.join().unwrap(), b.join().unwrap());
        });
    }

    proptest! {
        #[test]
        fn decryption_undoes_encryption(which in 0..4_usize, byte: u8, blocks in 0..100_usize, fill: u8) {
            let encryption = CBC[which];
            let key = CbcKey::new(encryption, &vec![byte; encryption.key_len()]).unwrap();
            let iv = vec![fill; encryption.iv_len()];
            let plain = vec![fill; blocks * encryption.block_len()];
            let mut buffer = plain.clone();
            key.encrypt(&iv, &mut buffer).unwrap();
            prop_assert_eq!(blocks == 0, buffer == plain);
            key.decrypt(&iv, &mut buffer).unwrap();
            prop_assert_eq!(buffer, plain);
        }
    }
}
