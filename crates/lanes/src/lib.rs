//! AES-CBC with HMAC (RFC 3602, RFC 2404, RFC 4868) over several ESP packets at a time.
//!
//! Each block of CBC encryption waits for the one before, and so does each block of a hash: one packet leaves most
//! of a processor idle. Packets of one batch do not depend on each other, so they go side by side, one a lane:
//!
//! | module | what |
//! | --- | --- |
//! | [`engine`] | what this machine can do, found out once |
//! | `aes` | CBC by AES-NI (8 chains), VAES (24 chains), or aws-lc one packet at a time |
//! | `mac` | HMAC by SHA-NI (2 to 4 streams), AVX2 (8 lanes), AVX-512 (16 or 32 lanes), or RustCrypto one at a time |
//! | `x86` | the instructions: all the `unsafe` of this crate |
//!
//! Left out: AEAD suites (one packet fills the machine), triple DES and MD5 (weak, and never the hot path), padding,
//! sequence numbers and replay, which belong to `esp`.

mod aes;
pub mod engine;
mod lane;
mod mac;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::fmt;

use base::algorithm::{Encryption, Integrity};
use subtle::ConstantTimeEq;

use aes::Cipher;
pub use engine::Engine;
use lane::Lane;
use mac::Mac;

/// Bytes before the IV: SPI and sequence number (RFC 4303 §2).
const HEADER: usize = 8;
const BLOCK: usize = 16;
/// Bytes before the payload.
const PAYLOAD_AT: usize = HEADER + BLOCK;
/// Packets that are worked on at once; more go in several rounds.
const WINDOW: usize = 32;

/// The keys of one direction of an SA, with key schedules and HMAC mid-states computed in advance.
///
/// Less than 1 KB, immutable, for any number of threads; zeroed when dropped.
pub struct LaneKey {
    encryption: Encryption,
    integrity: Integrity,
    cipher: Cipher,
    mac: Mac,
}

/// A packet to encrypt and then authenticate, in place.
#[derive(Debug)]
pub struct SealJob<'a> {
    /// `SPI 4 | sequence 4 | IV 16 | plaintext | room for the ICV`; the plaintext is whole blocks, its trailer included.
    pub packet: &'a mut [u8],
    /// The high half of the sequence number, authenticated and not sent (RFC 4303 §2.2.1); `None` without ESN.
    pub esn_high: Option<u32>,
    /// Where the IV comes from.
    pub iv: Iv,
}

/// Where the IV of a packet comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Iv {
    /// It stands in the packet. It must be unpredictable and new for each packet (RFC 3602 §3).
    Given,
    /// It is this number, which must never repeat under the key, encrypted under that key (SP 800-38A App. C, first
    /// method), and is written into the packet. This is what `esp` does with the 64-bit sequence number.
    Encrypted(u64),
}

/// A packet to verify and then decrypt, in place.
#[derive(Debug)]
pub struct OpenJob<'a> {
    /// `SPI 4 | sequence 4 | IV 16 | ciphertext | ICV`.
    pub packet: &'a mut [u8],
    /// The high half of the sequence number (RFC 4303 §2.2.1); `None` without ESN.
    pub esn_high: Option<u32>,
    verified: bool,
}

impl<'a> OpenJob<'a> {
    /// A packet that nobody has verified yet.
    pub const fn new(packet: &'a mut [u8], esn_high: Option<u32>) -> Self {
        Self { packet, esn_high, verified: false }
    }

    /// Whether [`LaneKey::open_many`] found the packet genuine, and so decrypted it.
    #[must_use]
    pub const fn is_verified(&self) -> bool {
        self.verified
    }
}

/// Why there is no [`LaneKey`] for a suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsupported {
    /// Not AES-CBC with HMAC-SHA1 or HMAC-SHA2: take the single path.
    Suite,
    /// The encryption key is not [`Encryption::key_len`] long.
    KeyLength,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Suite => "the suite has no lanes",
            Self::KeyLength => "the key does not fit the algorithm",
        })
    }
}

impl std::error::Error for Unsupported {}

/// A packet has no room for header, IV and ICV, or its plaintext is not whole blocks. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadLength;

impl fmt::Display for BadLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a packet is not header, IV, whole cipher blocks and ICV")
    }
}

impl std::error::Error for BadLength {}

impl LaneKey {
    /// Sets the keys, for the fastest engine of this machine.
    ///
    /// Peers agree on [`Integrity::key_len`] bytes for `integrity_key`; HMAC itself takes any length.
    ///
    /// # Errors
    ///
    /// [`Unsupported`] when the suite has no lanes or `encryption_key` does not fit.
    pub fn new(
        encryption: Encryption,
        integrity: Integrity,
        encryption_key: &[u8],
        integrity_key: &[u8],
    ) -> Result<Self, Unsupported> {
        Self::with_engine(encryption, integrity, encryption_key, integrity_key, Engine::detect())
    }

    /// Sets the keys, for a certain engine: for tests and measurements.
    ///
    /// # Errors
    ///
    /// As [`LaneKey::new`].
    pub fn with_engine(
        encryption: Encryption,
        integrity: Integrity,
        encryption_key: &[u8],
        integrity_key: &[u8],
        engine: Engine,
    ) -> Result<Self, Unsupported> {
        let cipher = Cipher::new(encryption, encryption_key, engine)?;
        let mac = Mac::new(integrity, integrity_key, engine)?;
        Ok(Self { encryption, integrity, cipher, mac })
    }

    /// Encrypts each packet, then writes its ICV. Equal lengths are the fastest; the order does not matter.
    ///
    /// # Errors
    ///
    /// [`BadLength`] when any packet does not fit; then none was changed.
    pub fn seal_many(&self, jobs: &mut [SealJob<'_>]) -> Result<(), BadLength> {
        if jobs.iter().any(|job| !self.fits(job.packet.len())) {
            return Err(BadLength);
        }
        let icv_len = self.integrity.icv_len();
        for jobs in jobs.chunks_mut(WINDOW) {
            let mut lanes: [Lane<'_>; WINDOW] = Default::default();
            let lanes = &mut lanes[..jobs.len()];
            for (lane, job) in lanes.iter_mut().zip(jobs) {
                *lane = Lane::sealing(job, icv_len);
            }
            if !lanes.is_sorted_by(|a, b| a.text_len() >= b.text_len()) {
                lanes.sort_unstable_by_key(|lane| std::cmp::Reverse(lane.text_len()));
            }
            self.cipher.encrypt(lanes);
            let icvs = self.mac.sign(lanes);
            for (lane, icv) in lanes.iter_mut().zip(icvs) {
                lane.icv_mut().copy_from_slice(&icv[..icv_len]);
            }
        }
        Ok(())
    }

    /// Verifies each packet and decrypts those that are genuine; the others stay as they are. The verdicts are in
    /// [`OpenJob::is_verified`]; a packet that does not fit is not genuine.
    pub fn open_many(&self, jobs: &mut [OpenJob<'_>]) {
        let icv_len = self.integrity.icv_len();
        for jobs in jobs.chunks_mut(WINDOW) {
            let mut lanes: [Lane<'_>; WINDOW] = Default::default();
            let mut count = 0;
            for job in jobs.iter_mut() {
                job.verified = false;
                if self.fits(job.packet.len()) {
                    lanes[count] = Lane::opening(job, icv_len);
                    count += 1;
                }
            }
            let lanes = &mut lanes[..count];
            if !lanes.is_sorted_by(|a, b| a.text_len() >= b.text_len()) {
                lanes.sort_unstable_by_key(|lane| std::cmp::Reverse(lane.text_len()));
            }
            let icvs = self.mac.sign(lanes);
            for (lane, icv) in lanes.iter_mut().zip(icvs) {
                if bool::from(lane.icv_mut().ct_eq(&icv[..icv_len])) {
                    lane.note_verified();
                    self.cipher.decrypt(lane.chained_mut());
                }
            }
        }
    }

    /// The encryption algorithm.
    pub const fn encryption(&self) -> Encryption {
        self.encryption
    }

    /// The integrity algorithm.
    pub const fn integrity(&self) -> Integrity {
        self.integrity
    }

    /// Whether a packet of this length is header, IV, whole blocks and ICV.
    const fn fits(&self, len: usize) -> bool {
        match len.checked_sub(PAYLOAD_AT + self.integrity.icv_len()) {
            Some(text) => text.is_multiple_of(BLOCK),
            None => false,
        }
    }
}

impl fmt::Debug for LaneKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LaneKey({}-{} {{secret}})", self.encryption, self.integrity)
    }
}
