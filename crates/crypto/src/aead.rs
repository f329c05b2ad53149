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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::hex;

    const AEAD: [Encryption; 3] = [Encryption::Aes128Gcm, Encryption::Aes256Gcm, Encryption::ChaCha20Poly1305];

    struct Vector {
        encryption: Encryption,
        key_and_salt: &'static str,
        iv: &'static str,
        aad: &'static str,
        plain: Vec<u8>,
        cipher: &'static str,
        tag: &'static str,
    }

    impl Vector {
        fn check(self) {
            let key = AeadKey::new(self.encryption, &hex(self.key_and_salt)).unwrap();
            let (iv, aad) = (hex(self.iv).try_into().unwrap(), hex(self.aad));
            let mut buffer = self.plain.clone();
            let tag = key.seal(iv, &aad, &mut buffer);
            assert_eq!(buffer, hex(self.cipher), "{}", self.encryption);
            assert_eq!(tag, hex(self.tag).as_slice(), "{}", self.encryption);
            buffer.extend(tag);
            let len = key.open(iv, &aad, &mut buffer).unwrap();
            assert_eq!(&buffer[..len], self.plain, "{}", self.encryption);
        }
    }

    #[test]
    fn aes_gcm_agrees_with_its_authors() {
        // McGrew and Viega, "The Galois/Counter Mode of Operation", App. B, test cases 4 and 16
        let plain = hex("d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72
                         1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39");
        Vector {
            encryption: Encryption::Aes128Gcm,
            key_and_salt: "feffe9928665731c6d6a8f9467308308 cafebabe",
            iv: "facedbaddecaf888",
            aad: "feedfacedeadbeeffeedfacedeadbeefabaddad2",
            plain: plain.clone(),
            cipher: "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e
                     21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091",
            tag: "5bc94fbc3221a5db94fae95ae7121a47",
        }
        .check();
        Vector {
            encryption: Encryption::Aes256Gcm,
            key_and_salt: "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308 cafebabe",
            iv: "facedbaddecaf888",
            aad: "feedfacedeadbeeffeedfacedeadbeefabaddad2",
            plain,
            cipher: "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa
                     8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
            tag: "76fc6ece0f4e1768cddf8853bb2d551b",
        }
        .check();
    }

    #[test]
    fn chacha20_poly1305_agrees_with_rfc_8439_and_rfc_7634() {
        // RFC 8439 §2.8.2
        Vector {
            encryption: Encryption::ChaCha20Poly1305,
            key_and_salt: "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f 07000000",
            iv: "4041424344454647",
            aad: "50515253c0c1c2c3c4c5c6c7",
            plain: b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the \
                     future, sunscreen would be it."
                .to_vec(),
            cipher: "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6
                     3dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36
                     92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc
                     3ff4def08e4b7a9de576d26586cec64b6116",
            tag: "1ae10b594f09e26a7e902ecbd0600691",
        }
        .check();
        // RFC 7634 App. A: an ESP packet
        Vector {
            encryption: Encryption::ChaCha20Poly1305,
            key_and_salt: "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f a0a1a2a3",
            iv: "1011121314151617",
            aad: "0102030400000005",
            plain: hex("45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec10
                        0007362708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223
                        2425262728292a2b2c2d2e2f303132333435363701020204"),
            cipher: "24039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c6
                     14ee8099d52844eb61aa95dfab4c02f72aa71e7c4c4f64c9befe2facc638e8f3
                     cbec163fac469b502773f6fb94e664da9165b82829f641e0",
            tag: "76aaa8266b7fb0f7b11b369907e1ad43",
        }
        .check();
    }

    #[test]
    fn keys_of_another_length_or_kind_are_refused() {
        for encryption in Encryption::ALL {
            for len in [0, 3, 4, 16, 20, 24, 28, 32, 36, 64] {
                let fits = encryption.is_aead() && len == encryption.key_len() + encryption.salt_len();
                assert_eq!(AeadKey::new(encryption, &vec![7; len]).is_ok(), fits, "{encryption} {len}");
            }
        }
    }

    #[test]
    fn less_than_a_tag_is_refused() {
        for encryption in AEAD {
            let key = AeadKey::new(encryption, &vec![1; encryption.key_len() + 4]).unwrap();
            for len in 0..TAG_LEN {
                assert_eq!(key.open([0; IV_LEN], &[], &mut vec![0; len]), Err(Forged));
            }
            let mut only_tag = key.seal([0; IV_LEN], b"aad", &mut []);
            assert_eq!(key.open([0; IV_LEN], b"aad", &mut only_tag), Ok(0));
        }
    }

    #[test]
    fn debug_output_of_a_key_holds_no_byte_of_it() {
        let key = AeadKey::new(Encryption::Aes128Gcm, b"cloudneta12345678901").unwrap();
        assert_eq!(format!("{key:?}"), "AeadKey(aes128gcm16 {secret})");
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens_and_a_flipped_bit_does_not(
            which in 0..3_usize, byte: u8, iv: [u8; IV_LEN], plain: Vec<u8>, aad: Vec<u8>, bit: usize,
        ) {
            let encryption = AEAD[which];
            let key = AeadKey::new(encryption, &vec![byte; encryption.key_len() + 4]).unwrap();
            let mut sealed = plain.clone();
            let tag = key.seal(iv, &aad, &mut sealed);
            sealed.extend(tag);

            let mut opened = sealed.clone();
            prop_assert_eq!(key.open(iv, &aad, &mut opened), Ok(plain.len()));
            prop_assert_eq!(&opened[..plain.len()], &plain[..]);

            // Everything that the tag covers in one row: IV, associated data, ciphertext, tag.
            let mut row = [&iv[..], &aad, &sealed].concat();
            let bit = bit % (row.len() * 8);
            row[bit / 8] ^= 1 << (bit % 8);
            let (iv, rest) = row.split_first_chunk_mut().unwrap();
            let (aad, sealed) = rest.split_at_mut(aad.len());
            prop_assert_eq!(key.open(*iv, aad, sealed), Err(Forged));
        }
    }
}
