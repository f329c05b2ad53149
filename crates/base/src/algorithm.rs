//! The algorithms that IPsec peers agree on: names, sizes, registry numbers and what is weak.
//!
//! Only names live here; `crypto` computes with them. Numbers are those of the IANA registries
//! "IKEv2 Parameters" (RFC 7296 §3.3.2), "IPSEC IKE attributes" (RFC 2409 App. A) and "IPSEC DOI"
//! (RFC 2407 §4.4.4, §4.5).

use std::fmt;

use serde::{Deserialize, Serialize};

/// An encryption algorithm with its key size; AEAD algorithms carry a 16-byte tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Encryption {
    /// Triple DES in CBC mode (RFC 2451): weak.
    TripleDesCbc,
    /// AES-CBC, 128-bit key (RFC 3602).
    Aes128Cbc,
    /// AES-CBC, 192-bit key (RFC 3602).
    Aes192Cbc,
    /// AES-CBC, 256-bit key (RFC 3602).
    Aes256Cbc,
    /// AES-GCM with a 16-byte tag, 128-bit key (RFC 4106, RFC 5282).
    Aes128Gcm,
    /// AES-GCM with a 16-byte tag, 256-bit key (RFC 4106, RFC 5282).
    Aes256Gcm,
    /// ChaCha20-Poly1305 (RFC 7634); IKEv2 only.
    ChaCha20Poly1305,
}

impl Encryption {
    /// Every algorithm, strongest first.
    pub const ALL: [Self; 7] = [
        Self::Aes256Gcm,
        Self::ChaCha20Poly1305,
        Self::Aes128Gcm,
        Self::Aes256Cbc,
        Self::Aes192Cbc,
        Self::Aes128Cbc,
        Self::TripleDesCbc,
    ];

    /// Bytes of key, without the salt.
    pub const fn key_len(self) -> usize {
        match self {
            Self::Aes128Cbc | Self::Aes128Gcm => 16,
            Self::TripleDesCbc | Self::Aes192Cbc => 24,
            Self::Aes256Cbc | Self::Aes256Gcm | Self::ChaCha20Poly1305 => 32,
        }
    }

    /// Bytes of salt that key derivation yields behind the key; 0 for CBC.
    pub const fn salt_len(self) -> usize {
        if self.is_aead() { 4 } else { 0 }
    }

    /// Bytes of initialization vector that each packet carries.
    pub const fn iv_len(self) -> usize {
        match self {
            Self::TripleDesCbc | Self::Aes128Gcm | Self::Aes256Gcm | Self::ChaCha20Poly1305 => 8,
            Self::Aes128Cbc | Self::Aes192Cbc | Self::Aes256Cbc => 16,
        }
    }

    /// The multiple of bytes that plaintext is padded to. For AEAD algorithms it is 1 in IKE; ESP
    /// asks for 4 of every algorithm (RFC 4303 §2.4).
    pub const fn block_len(self) -> usize {
        match self {
            Self::TripleDesCbc => 8,
            Self::Aes128Cbc | Self::Aes192Cbc | Self::Aes256Cbc => 16,
            Self::Aes128Gcm | Self::Aes256Gcm | Self::ChaCha20Poly1305 => 1,
        }
    }

    /// Bytes of tag that the algorithm itself appends; 0 for CBC.
    pub const fn tag_len(self) -> usize {
        if self.is_aead() { 16 } else { 0 }
    }

    /// Whether it authenticates too, so that no integrity algorithm goes with it.
    pub const fn is_aead(self) -> bool {
        matches!(self, Self::Aes128Gcm | Self::Aes256Gcm | Self::ChaCha20Poly1305)
    }

    /// Whether it should be used only where a connection names it.
    pub const fn is_weak(self) -> bool {
        matches!(self, Self::TripleDesCbc)
    }

    /// IKEv2 transform ID of type 1 (ENCR).
    pub const fn v2_id(self) -> u16 {
        match self {
            Self::TripleDesCbc => 3,
            Self::Aes128Cbc | Self::Aes192Cbc | Self::Aes256Cbc => 12,
            Self::Aes128Gcm | Self::Aes256Gcm => 20,
            Self::ChaCha20Poly1305 => 28,
        }
    }

    /// The value of the key-length attribute, in bits, where the algorithm needs one.
    pub const fn key_bits_attribute(self) -> Option<u16> {
        match self {
            Self::TripleDesCbc | Self::ChaCha20Poly1305 => None,
            Self::Aes128Cbc | Self::Aes128Gcm => Some(128),
            Self::Aes192Cbc => Some(192),
            Self::Aes256Cbc | Self::Aes256Gcm => Some(256),
        }
    }

    /// The algorithm with this IKEv2 transform ID and key-length attribute.
    pub fn from_v2(id: u16, key_bits: Option<u16>) -> Option<Self> {
        Self::ALL.into_iter().find(|e| e.v2_id() == id && e.key_bits_attribute() == key_bits)
    }

    /// IKEv1 phase 1 value of attribute 1 (encryption algorithm); AEAD is not defined there.
    pub const fn v1_phase1_id(self) -> Option<u16> {
        match self {
            Self::TripleDesCbc => Some(5),
            Self::Aes128Cbc | Self::Aes192Cbc | Self::Aes256Cbc => Some(7),
            Self::Aes128Gcm | Self::Aes256Gcm | Self::ChaCha20Poly1305 => None,
        }
    }

    /// The algorithm with this IKEv1 phase 1 value and key-length attribute.
    pub fn from_v1_phase1(id: u16, key_bits: Option<u16>) -> Option<Self> {
        Self::ALL.into_iter().find(|e| e.v1_phase1_id() == Some(id) && e.key_bits_attribute() == key_bits)
    }

    /// IKEv1 phase 2 ESP transform ID; ChaCha20-Poly1305 is not defined there.
    pub const fn v1_esp_id(self) -> Option<u8> {
        match self {
            Self::TripleDesCbc => Some(3),
            Self::Aes128Cbc | Self::Aes192Cbc | Self::Aes256Cbc => Some(12),
            Self::Aes128Gcm | Self::Aes256Gcm => Some(20),
            Self::ChaCha20Poly1305 => None,
        }
    }

    /// The algorithm with this IKEv1 ESP transform ID and key-length attribute.
    pub fn from_v1_esp(id: u8, key_bits: Option<u16>) -> Option<Self> {
        Self::ALL.into_iter().find(|e| e.v1_esp_id() == Some(id) && e.key_bits_attribute() == key_bits)
    }
}

impl fmt::Display for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TripleDesCbc => "3des",
            Self::Aes128Cbc => "aes128",
            Self::Aes192Cbc => "aes192",
            Self::Aes256Cbc => "aes256",
            Self::Aes128Gcm => "aes128gcm16",
            Self::Aes256Gcm => "aes256gcm16",
            Self::ChaCha20Poly1305 => "chacha20poly1305",
        })
    }
}

/// An integrity algorithm with its truncation (RFC 2403, 2404, 4868).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Integrity {
    /// HMAC-MD5-96: weak.
    Md5,
    /// HMAC-SHA1-96: weak.
    Sha1,
    /// HMAC-SHA2-256-128.
    Sha256,
    /// HMAC-SHA2-384-192.
    Sha384,
    /// HMAC-SHA2-512-256.
    Sha512,
}

impl Integrity {
    /// Every algorithm, strongest first.
    pub const ALL: [Self; 5] = [Self::Sha512, Self::Sha384, Self::Sha256, Self::Sha1, Self::Md5];

    /// Bytes of key.
    pub const fn key_len(self) -> usize {
        self.prf().output_len()
    }

    /// Bytes of the truncated checksum in each packet.
    pub const fn icv_len(self) -> usize {
        match self {
            Self::Md5 | Self::Sha1 => 12,
            Self::Sha256 => 16,
            Self::Sha384 => 24,
            Self::Sha512 => 32,
        }
    }

    /// The PRF over the same hash.
    pub const fn prf(self) -> Prf {
        match self {
            Self::Md5 => Prf::Md5,
            Self::Sha1 => Prf::Sha1,
            Self::Sha256 => Prf::Sha256,
            Self::Sha384 => Prf::Sha384,
            Self::Sha512 => Prf::Sha512,
        }
    }

    /// Whether it should be used only where a connection names it.
    pub const fn is_weak(self) -> bool {
        matches!(self, Self::Md5 | Self::Sha1)
    }

    /// IKEv2 transform ID of type 3 (INTEG).
    pub const fn v2_id(self) -> u16 {
        match self {
            Self::Md5 => 1,
            Self::Sha1 => 2,
            Self::Sha256 => 12,
            Self::Sha384 => 13,
            Self::Sha512 => 14,
        }
    }

    /// The algorithm with this IKEv2 transform ID.
    pub fn from_v2(id: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|i| i.v2_id() == id)
    }

    /// Value of the phase 2 attribute 5 (authentication algorithm), RFC 2407 §4.5, RFC 4868.
    pub const fn v1_esp_id(self) -> u16 {
        match self {
            Self::Md5 => 1,
            Self::Sha1 => 2,
            Self::Sha256 => 5,
            Self::Sha384 => 6,
            Self::Sha512 => 7,
        }
    }

    /// The algorithm with this phase 2 attribute value.
    pub fn from_v1_esp(id: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|i| i.v1_esp_id() == id)
    }
}

impl fmt::Display for Integrity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.prf())
    }
}

/// A pseudo-random function: HMAC over a hash. In IKEv1 it is the negotiated hash itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Prf {
    /// HMAC-MD5: weak.
    Md5,
    /// HMAC-SHA1: weak.
    Sha1,
    /// HMAC-SHA2-256.
    Sha256,
    /// HMAC-SHA2-384.
    Sha384,
    /// HMAC-SHA2-512.
    Sha512,
}

impl Prf {
    /// Every function, strongest first.
    pub const ALL: [Self; 5] = [Self::Sha512, Self::Sha384, Self::Sha256, Self::Sha1, Self::Md5];

    /// Bytes of output, which is also the preferred key length (RFC 7296 §2.13).
    pub const fn output_len(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// Whether it should be used only where a connection names it.
    pub const fn is_weak(self) -> bool {
        matches!(self, Self::Md5 | Self::Sha1)
    }

    /// IKEv2 transform ID of type 2 (PRF).
    pub const fn v2_id(self) -> u16 {
        match self {
            Self::Md5 => 1,
            Self::Sha1 => 2,
            Self::Sha256 => 5,
            Self::Sha384 => 6,
            Self::Sha512 => 7,
        }
    }

    /// The function with this IKEv2 transform ID.
    pub fn from_v2(id: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.v2_id() == id)
    }

    /// IKEv1 phase 1 value of attribute 2 (hash algorithm).
    pub const fn v1_hash_id(self) -> u16 {
        match self {
            Self::Md5 => 1,
            Self::Sha1 => 2,
            Self::Sha256 => 4,
            Self::Sha384 => 5,
            Self::Sha512 => 6,
        }
    }

    /// The function with this IKEv1 hash value.
    pub fn from_v1_hash(id: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.v1_hash_id() == id)
    }
}

impl fmt::Display for Prf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Md5 => "md5",
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        })
    }
}

/// A Diffie-Hellman group; the number is the same in IKEv1 and IKEv2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u16)]
pub enum Group {
    /// 768-bit MODP (RFC 2409 §6.1): weak.
    Modp768 = 1,
    /// 1024-bit MODP (RFC 2409 §6.2): weak.
    Modp1024 = 2,
    /// 1536-bit MODP (RFC 3526): weak.
    Modp1536 = 5,
    /// 2048-bit MODP (RFC 3526).
    Modp2048 = 14,
    /// 3072-bit MODP (RFC 3526).
    Modp3072 = 15,
    /// 4096-bit MODP (RFC 3526).
    Modp4096 = 16,
    /// 6144-bit MODP (RFC 3526).
    Modp6144 = 17,
    /// 8192-bit MODP (RFC 3526).
    Modp8192 = 18,
    /// NIST P-256 (RFC 5903).
    Ecp256 = 19,
    /// NIST P-384 (RFC 5903).
    Ecp384 = 20,
    /// NIST P-521 (RFC 5903).
    Ecp521 = 21,
    /// 1024-bit MODP with a 160-bit subgroup (RFC 5114): weak.
    Modp1024s160 = 22,
    /// 2048-bit MODP with a 224-bit subgroup (RFC 5114): weak, its origin is not explained.
    Modp2048s224 = 23,
    /// 2048-bit MODP with a 256-bit subgroup (RFC 5114): weak, its origin is not explained.
    Modp2048s256 = 24,
    /// Curve25519 (RFC 8031).
    Curve25519 = 31,
}

impl Group {
    /// Every group, in the order of preference: fast and strong first.
    pub const ALL: [Self; 15] = [
        Self::Curve25519,
        Self::Ecp256,
        Self::Ecp384,
        Self::Ecp521,
        Self::Modp2048,
        Self::Modp3072,
        Self::Modp4096,
        Self::Modp6144,
        Self::Modp8192,
        Self::Modp2048s256,
        Self::Modp2048s224,
        Self::Modp1536,
        Self::Modp1024s160,
        Self::Modp1024,
        Self::Modp768,
    ];

    /// The registry number, the same in both versions of IKE.
    pub const fn id(self) -> u16 {
        self as u16
    }

    /// The group with this registry number.
    pub fn from_id(id: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|g| g.id() == id)
    }

    /// Bytes of a public value on the wire.
    pub const fn public_len(self) -> usize {
        match self {
            Self::Modp768 => 96,
            Self::Modp1024 | Self::Modp1024s160 => 128,
            Self::Modp1536 => 192,
            Self::Modp2048 | Self::Modp2048s224 | Self::Modp2048s256 => 256,
            Self::Modp3072 => 384,
            Self::Modp4096 => 512,
            Self::Modp6144 => 768,
            Self::Modp8192 => 1024,
            Self::Ecp256 => 64,
            Self::Ecp384 => 96,
            Self::Ecp521 => 132,
            Self::Curve25519 => 32,
        }
    }

    /// Whether it should be used only where a connection names it.
    pub const fn is_weak(self) -> bool {
        matches!(
            self,
            Self::Modp768
                | Self::Modp1024
                | Self::Modp1536
                | Self::Modp1024s160
                | Self::Modp2048s224
                | Self::Modp2048s256
        )
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Modp768 => "modp768",
            Self::Modp1024 => "modp1024",
            Self::Modp1536 => "modp1536",
            Self::Modp2048 => "modp2048",
            Self::Modp3072 => "modp3072",
            Self::Modp4096 => "modp4096",
            Self::Modp6144 => "modp6144",
            Self::Modp8192 => "modp8192",
            Self::Ecp256 => "ecp256",
            Self::Ecp384 => "ecp384",
            Self::Ecp521 => "ecp521",
            Self::Modp1024s160 => "modp1024s160",
            Self::Modp2048s224 => "modp2048s224",
            Self::Modp2048s256 => "modp2048s256",
            Self::Curve25519 => "curve25519",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_registry_number_leads_back_to_its_algorithm() {
        for e in Encryption::ALL {
            assert_eq!(Encryption::from_v2(e.v2_id(), e.key_bits_attribute()), Some(e));
            if let Some(id) = e.v1_phase1_id() {
                assert_eq!(Encryption::from_v1_phase1(id, e.key_bits_attribute()), Some(e));
            }
            if let Some(id) = e.v1_esp_id() {
                assert_eq!(Encryption::from_v1_esp(id, e.key_bits_attribute()), Some(e));
            }
        }
        for i in Integrity::ALL {
            assert_eq!(Integrity::from_v2(i.v2_id()), Some(i));
            assert_eq!(Integrity::from_v1_esp(i.v1_esp_id()), Some(i));
        }
        for p in Prf::ALL {
            assert_eq!(Prf::from_v2(p.v2_id()), Some(p));
            assert_eq!(Prf::from_v1_hash(p.v1_hash_id()), Some(p));
        }
        for g in Group::ALL {
            assert_eq!(Group::from_id(g.id()), Some(g));
        }
    }

    #[test]
    fn aes_without_its_key_length_is_not_guessed() {
        assert_eq!(Encryption::from_v2(12, None), None);
        assert_eq!(Encryption::from_v1_esp(12, Some(127)), None);
    }
}
