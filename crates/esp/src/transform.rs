//! What a suite does to the bytes of a packet: encryption, integrity, IVs.

use std::fmt;

use crypto::aead::AeadKey;
use crypto::cbc::CbcKey;
use crypto::integrity::HmacKey;
use lanes::{Iv, LaneKey, OpenJob, SealJob};
use sa::{ChildSuite, DirectionKeys};

use crate::wire::{HEADER, Layout};
use crate::{Dropped, measurement};

/// An SA that cannot be put in service. IKE never makes one; a test or another program may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// The keys are not as long as the suite wants them.
    BadKeys,
    /// Encryption without integrity, or an AEAD algorithm with one (RFC 8221 §4, §6).
    BadSuite,
    /// The SPI is in use already, or reserved (0..=255).
    BadSpi,
    /// Its number is in use already.
    BadId,
    /// More than 4,096 pairs of selectors.
    TooManySelectors,
    /// No SA has this number.
    UnknownId,
    /// What is said of how far it is cannot be.
    BadStanding,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadKeys => "the keys do not fit the suite",
            Self::BadSuite => "the suite does not both encrypt and authenticate",
            Self::BadSpi => "the SPI is in use or reserved",
            Self::BadId => "the number of the SA is in use",
            Self::TooManySelectors => "there are too many selectors",
            Self::UnknownId => "there is no such SA",
            Self::BadStanding => "it cannot stand where it is said to",
        })
    }
}

impl std::error::Error for Unusable {}

/// The keys of one direction, ready for use.
#[derive(Debug)]
pub(crate) struct Transform {
    layout: Layout,
    esn: bool,
    keys: Keys,
}

#[derive(Debug)]
enum Keys {
    Aead(AeadKey),
    CbcHmac(CbcKey, Box<HmacKey>, Option<Box<LaneKey>>),
    /// Only in [`measurement`].
    Nothing,
}

/// Packets that are worked on side by side, at most.
pub(crate) const LANES: usize = 32;
/// With fewer, one after the other is faster.
const MIN_LANES: usize = 4;

impl Transform {
    pub(crate) fn new(suite: ChildSuite, keys: &DirectionKeys) -> Result<Self, Unusable> {
        let (encryption, integrity) = (keys.encryption.expose(), keys.integrity.expose());
        let keys = match suite.integrity {
            None if suite.encryption.is_aead() && integrity.is_empty() => {
                Keys::Aead(AeadKey::new(suite.encryption, encryption).map_err(|_| Unusable::BadKeys)?)
            }
            Some(algorithm) if !suite.encryption.is_aead() => {
                if integrity.len() != algorithm.key_len() {
                    return Err(Unusable::BadKeys);
                }
                let cipher = CbcKey::new(suite.encryption, encryption).map_err(|_| Unusable::BadKeys)?;
                // Without lanes for the suite, one packet after the other.
                let lanes = LaneKey::new(suite.encryption, algorithm, encryption, integrity).ok();
                Keys::CbcHmac(cipher, Box::new(HmacKey::new(algorithm, integrity)), lanes.map(Box::new))
            }
            None | Some(_) => return Err(Unusable::BadSuite),
        };
        let keys = if measurement::is_without_encryption() { Keys::Nothing } else { keys };
        Ok(Self { layout: Layout::of(suite), esn: suite.esn, keys })
    }

    pub(crate) const fn layout(&self) -> Layout {
        self.layout
    }

    pub(crate) const fn esn(&self) -> bool {
        self.esn
    }

    /// Encrypts and authenticates. `packet` is the whole ESP packet: header, room for the IV,
    /// plaintext with its trailer, room for the ICV, with the lengths of the layout.
    ///
    /// `sequence` must be new for these keys: the IV is made of it.
    pub(crate) fn seal(&self, packet: &mut [u8], sequence: u64) {
        let icv_at = packet.len() - self.layout.icv_len();
        match &self.keys {
            Keys::Aead(key) => {
                let (aad, aad_len) = self.aad(packet, sequence);
                // RFC 4106 §3.1, RFC 7634 §2: a counter serves as IV; the sequence number never repeats.
                let iv = sequence.to_be_bytes();
                packet[HEADER..HEADER + iv.len()].copy_from_slice(&iv);
                let (sealed, icv) = packet.split_at_mut(icv_at);
                icv.copy_from_slice(&key.seal(iv, &aad[..aad_len], &mut sealed[HEADER + iv.len()..]));
            }
            Keys::CbcHmac(cipher, mac, _) => {
                // RFC 3602 §3 wants an IV that nobody can predict: the sequence number, which never
                // repeats, encrypted under the same key (SP 800-38A App. C, first method). As one
                // more block in front, chained from zero, it costs no call of its own, and what comes
                // out of that block is the IV of the rest.
                let payload_at = self.layout.payload_at();
                packet[HEADER..payload_at - 8].fill(0);
                packet[payload_at - 8..payload_at].copy_from_slice(&sequence.to_be_bytes());
                let zero = &[0; 16][..payload_at - HEADER];
                cipher.encrypt(zero, &mut packet[HEADER..icv_at]).expect("the layout pads to whole blocks");
                let (sealed, icv) = packet.split_at_mut(icv_at);
                icv.copy_from_slice(self.sign(mac, sealed, sequence).as_ref());
            }
            Keys::Nothing => packet[icv_at..].fill(0),
        }
    }

    /// As [`Transform::seal`], for packets that lie back to back in `packets`, `len` bytes each but the last, which may
    /// have fewer. They get consecutive numbers, of which all must be new.
    pub(crate) fn seal_all(&self, packets: &mut [u8], len: usize, mut sequence: u64) {
        let count = packets.len().div_ceil(len);
        let Some(lanes) = self.lanes().filter(|_| count >= MIN_LANES) else {
            for packet in packets.chunks_mut(len) {
                self.seal(packet, sequence);
                sequence += 1;
            }
            return;
        };
        for window in packets.chunks_mut(len * LANES) {
            let mut jobs: [SealJob<'_>; LANES] =
                std::array::from_fn(|_| SealJob { packet: &mut [], esn_high: None, iv: Iv::Given });
            let mut count = 0;
            for (job, packet) in jobs.iter_mut().zip(window.chunks_mut(len)) {
                *job = SealJob { packet, esn_high: self.esn_high(sequence), iv: Iv::Encrypted(sequence) };
                sequence += 1;
                count += 1;
            }
            lanes.seal_many(&mut jobs[..count]).expect("the layout pads to whole blocks");
        }
    }

    /// As [`Transform::seal`], for packets with these numbers, of which all must be new, wherever they lie.
    pub(crate) fn seal_each(&self, packets: &mut [(u64, &mut [u8])]) {
        let Some(lanes) = self.lanes().filter(|_| packets.len() >= MIN_LANES) else {
            packets.iter_mut().for_each(|(sequence, packet)| self.seal(packet, *sequence));
            return;
        };
        for window in packets.chunks_mut(LANES) {
            let mut jobs: [SealJob<'_>; LANES] =
                std::array::from_fn(|_| SealJob { packet: &mut [], esn_high: None, iv: Iv::Given });
            let count = window.len();
            for (job, (sequence, packet)) in jobs.iter_mut().zip(window) {
                *job = SealJob { packet, esn_high: self.esn_high(*sequence), iv: Iv::Encrypted(*sequence) };
            }
            lanes.seal_many(&mut jobs[..count]).expect("the layout pads to whole blocks");
        }
    }

    /// Whether several packets are best opened by [`Transform::open_all`].
    pub(crate) fn lanes(&self) -> Option<&LaneKey> {
        match &self.keys {
            Keys::CbcHmac(_, _, Some(lanes)) => Some(lanes),
            Keys::CbcHmac(_, _, None) | Keys::Aead(_) | Keys::Nothing => None,
        }
    }

    /// What a job of [`LaneKey`] says of a number.
    pub(crate) fn esn_high(&self, sequence: u64) -> Option<u32> {
        self.esn.then_some((sequence >> 32) as u32)
    }

    /// As [`Transform::open`], for several packets: the verdicts are in the jobs. Only for a suite with lanes.
    pub(crate) fn open_all(&self, jobs: &mut [OpenJob<'_>]) {
        if let Some(lanes) = self.lanes() {
            lanes.open_many(jobs);
        }
    }

    /// Authenticates, then decrypts in place. `packet` is one that [`Layout::fits`].
    pub(crate) fn open(&self, packet: &mut [u8], sequence: u64) -> Result<(), Dropped> {
        let payload_at = self.layout.payload_at();
        let icv_at = packet.len() - self.layout.icv_len();
        match &self.keys {
            Keys::Aead(key) => {
                let (aad, aad_len) = self.aad(packet, sequence);
                let (head, sealed) = packet.split_at_mut(payload_at);
                let iv = *head.last_chunk().ok_or(Dropped::Malformed)?;
                key.open(iv, &aad[..aad_len], sealed).map_err(|_| Dropped::BadIntegrity)?;
            }
            Keys::CbcHmac(cipher, mac, _) => {
                let (sealed, icv) = packet.split_at_mut(icv_at);
                let high = self.high_half(sequence);
                if !mac.verify(&[sealed, &high[..self.high_len()]], icv) {
                    return Err(Dropped::BadIntegrity);
                }
                let (head, encrypted) = sealed.split_at_mut(payload_at);
                cipher.decrypt(&head[HEADER..], encrypted).map_err(|_| Dropped::Malformed)?;
            }
            Keys::Nothing => {}
        }
        Ok(())
    }

    /// RFC 4106 §5: SPI and sequence number, all 64 bits of it with ESN.
    fn aad(&self, packet: &[u8], sequence: u64) -> ([u8; 12], usize) {
        let mut aad = [0; 12];
        aad[..4].copy_from_slice(&packet[..4]);
        if self.esn {
            aad[4..].copy_from_slice(&sequence.to_be_bytes());
            (aad, 12)
        } else {
            aad[4..8].copy_from_slice(&packet[4..8]);
            (aad, 8)
        }
    }

    /// RFC 4303 §2.2.1: the high half is not sent but follows what is authenticated.
    fn sign(&self, mac: &HmacKey, sealed: &[u8], sequence: u64) -> crypto::Icv {
        mac.sign(&[sealed, &self.high_half(sequence)[..self.high_len()]])
    }

    const fn high_half(&self, sequence: u64) -> [u8; 4] {
        ((sequence >> 32) as u32).to_be_bytes()
    }

    const fn high_len(&self) -> usize {
        if self.esn { 4 } else { 0 }
    }
}
