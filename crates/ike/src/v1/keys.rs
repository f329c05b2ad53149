//! Keys, hashes and encryption (RFC 2409 §5, §5.5, App. B), with pre-shared keys.

use base::algorithm::Prf;
use base::error::Malformed;
use base::{Random, Secret};
use crypto::{CbcKey, hash, prf};
use sa::{ChildKeys, ChildSuite, DirectionKeys, Spi};

use super::phase1::Suite;
use crate::wire::header::{self, Header};
use crate::wire::v1::{Payloads, encode_raw, flag};

/// Bytes of the nonces that we send; RFC 2409 §5 allows 8 to 256.
pub(super) const NONCE_LEN: usize = 32;

/// What RFC 2409 §5 allows as a nonce.
pub(super) fn is_nonce(bytes: &[u8]) -> bool {
    (8..=256).contains(&bytes.len())
}

/// A new nonce.
pub(super) fn nonce(random: &mut Random) -> [u8; NONCE_LEN] {
    random.array()
}

/// The cookies of both sides: together they name the ISAKMP SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cookies {
    pub(super) initiator: u64,
    pub(super) responder: u64,
}

impl Cookies {
    /// Both, as they stand in the header and in hashes.
    pub(super) fn bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.initiator.to_be_bytes());
        bytes[8..].copy_from_slice(&self.responder.to_be_bytes());
        bytes
    }

    /// The header of a message.
    pub(super) const fn header(self, exchange: u8, message_id: u32) -> Header {
        Header {
            initiator_spi: self.initiator,
            responder_spi: self.responder,
            next_payload: 0,
            major: 1,
            minor: 0,
            exchange,
            flags: 0,
            message_id,
            length: 0,
        }
    }
}

/// An initialization vector: one block of the cipher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Iv {
    bytes: [u8; 16],
    len: u8,
}

impl Iv {
    /// The first block's worth of `from`, which is long enough for every hash and message.
    pub(super) fn new(from: &[u8], len: usize) -> Self {
        let mut bytes = [0; 16];
        bytes[..len].copy_from_slice(&from[..len]);
        Self { bytes, len: len as u8 }
    }

    pub(super) fn get(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// What phase 1 leaves: SKEYID_d, SKEYID_a and the encryption key made of SKEYID_e.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    pub(super) suite: Suite,
    pub(super) d: Secret,
    pub(super) a: Secret,
    pub(super) encryption: Secret,
}

/// What both sides have said when the key exchange is over; the pre-shared key is all that is missing.
#[derive(Clone, Debug)]
pub(super) struct Exchanged {
    pub(super) suite: Suite,
    pub(super) cookies: Cookies,
    /// The body of the initiator's SA payload.
    pub(super) sa: Vec<u8>,
    /// Public values and nonces: the initiator's, the responder's.
    pub(super) public: (Vec<u8>, Vec<u8>),
    pub(super) nonces: (Vec<u8>, Vec<u8>),
    /// g^xy.
    pub(super) shared: Secret,
}

/// The keys of a phase 1 whose pre-shared key was filled in, with what proves identities.
#[derive(Clone, Debug)]
pub(super) struct Skeyid {
    secret: Secret,
    pub(super) keys: Keys,
}

impl Exchanged {
    /// SKEYID and what follows from it (RFC 2409 §5).
    pub(super) fn with_psk(&self, psk: &Secret) -> Skeyid {
        let hash = self.suite.hash;
        let skeyid = prf(hash, psk.expose(), &[&self.nonces.0, &self.nonces.1]);
        let (shared, cookies) = (self.shared.expose(), self.cookies.bytes());
        let d = prf(hash, skeyid.expose(), &[shared, &cookies, &[0]]);
        let a = prf(hash, skeyid.expose(), &[d.expose(), shared, &cookies, &[1]]);
        let e = prf(hash, skeyid.expose(), &[a.expose(), shared, &cookies, &[2]]);
        let encryption = stretch(hash, &e, self.suite.encryption.key_len());
        Skeyid { secret: skeyid, keys: Keys { suite: self.suite, d, a, encryption } }
    }

    /// The vector of the first encrypted message (RFC 2409 App. B).
    pub(super) fn iv(&self) -> Iv {
        let digest = hash(self.suite.hash, &[&self.public.0, &self.public.1]);
        Iv::new(&digest, self.suite.encryption.iv_len())
    }

    /// HASH_I (`of_initiator`) or HASH_R over the body of the identification payload that goes with it.
    pub(super) fn proof(&self, skeyid: &Skeyid, of_initiator: bool, id: &[u8]) -> Secret {
        let (first, second) =
            if of_initiator { (&self.public.0, &self.public.1) } else { (&self.public.1, &self.public.0) };
        let (i, r) = (self.cookies.initiator.to_be_bytes(), self.cookies.responder.to_be_bytes());
        let (cookie, other) = if of_initiator { (i, r) } else { (r, i) };
        prf(self.suite.hash, skeyid.secret.expose(), &[first, second, &cookie, &other, &self.sa, id])
    }
}

/// The encryption key (RFC 2409 App. B): SKEYID_e itself, or a feedback of it where it is too short.
fn stretch(hash: Prf, e: &Secret, len: usize) -> Secret {
    if e.len() >= len {
        return Secret::from(&e.expose()[..len]);
    }
    let mut key = Vec::with_capacity(len + hash.output_len());
    let mut block = prf(hash, e.expose(), &[&[0]]);
    while key.len() < len {
        key.extend_from_slice(block.expose());
        block = prf(hash, e.expose(), &[block.expose()]);
    }
    key.truncate(len);
    key.into()
}

impl Keys {
    fn cipher(&self) -> CbcKey {
        CbcKey::new(self.suite.encryption, self.encryption.expose()).expect("phase 1 agrees on CBC, the key is as long")
    }

    /// The vector that a phase 2 exchange begins with (RFC 2409 App. B).
    pub(super) fn phase2_iv(&self, last_block: &Iv, message_id: u32) -> Iv {
        let digest = hash(self.suite.hash, &[last_block.get(), &message_id.to_be_bytes()]);
        Iv::new(&digest, self.suite.encryption.iv_len())
    }

    /// An encrypted message, and the vector of the next one in its exchange.
    pub(super) fn seal(&self, iv: &Iv, header: Header, payloads: &Payloads) -> (Vec<u8>, Iv) {
        let block = self.suite.encryption.block_len();
        let mut body = payloads.bytes().to_vec();
        body.resize(body.len().next_multiple_of(block), 0);
        self.cipher().encrypt(iv.get(), &mut body).expect("whole blocks and a vector of one");
        let next = Iv::new(&body[body.len() - block..], block);
        let header = Header { next_payload: payloads.first(), flags: header.flags | flag::ENCRYPTED, ..header };
        (encode_raw(header, &body), next)
    }

    /// What an encrypted message holds behind its header, and the vector of the next one in its exchange. Nothing
    /// says yet that it is authentic.
    ///
    /// # Errors
    /// `BadLength` unless it is whole blocks.
    pub(super) fn open(&self, iv: &Iv, message: &[u8]) -> Result<(Vec<u8>, Iv), Malformed> {
        let block = self.suite.encryption.block_len();
        let body = message.get(header::LEN..).ok_or(Malformed::Truncated)?;
        if body.is_empty() || !body.len().is_multiple_of(block) {
            return Err(Malformed::BadLength);
        }
        let next = Iv::new(&body[body.len() - block..], block);
        let mut body = body.to_vec();
        self.cipher().decrypt(iv.get(), &mut body).map_err(|_| Malformed::BadLength)?;
        Ok((body, next))
    }

    /// A hash of phase 2 under SKEYID_a (RFC 2409 §5.5, §5.7).
    pub(super) fn authenticate(&self, parts: &[&[u8]]) -> Secret {
        prf(self.suite.hash, self.a.expose(), parts)
    }

    /// KEYMAT of one direction (RFC 2409 §5.5): that of the SPI's receiver, inbound.
    fn keymat(&self, len: usize, shared: Option<&Secret>, spi: Spi, nonces: (&[u8], &[u8])) -> Secret {
        let shared = shared.map_or(&[][..], Secret::expose);
        let tail = [shared, &[crate::wire::v1::protocol::ESP], &spi.0.to_be_bytes(), nonces.0, nonces.1];
        let hash = self.suite.hash;
        let mut keymat = Vec::with_capacity(len + hash.output_len());
        let mut block = prf(hash, self.d.expose(), &tail);
        while keymat.len() < len {
            keymat.extend_from_slice(block.expose());
            block = prf(hash, self.d.expose(), &[&[block.expose()], &tail[..]].concat());
        }
        keymat.truncate(len);
        keymat.into()
    }

    /// The keys of a Child SA: our SPI and the peer's, the initiator's nonce and the responder's.
    pub(super) fn child(
        &self,
        suite: ChildSuite,
        shared: Option<&Secret>,
        spis: (Spi, Spi),
        nonces: (&[u8], &[u8]),
    ) -> ChildKeys {
        let direction = |spi| {
            let keymat = self.keymat(suite.key_material_len(), shared, spi, nonces);
            let (keys, _) = DirectionKeys::split(suite, keymat.expose()).expect("made as long as needed");
            keys
        };
        ChildKeys { inbound: direction(spis.0), outbound: direction(spis.1) }
    }
}

/// A short fingerprint of a message, to know it when it comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Digest(pub(super) [u8; 20]);

impl Digest {
    pub(super) fn of(message: &[u8]) -> Self {
        let digest = hash(Prf::Sha1, &[message]);
        Self(std::array::from_fn(|i| digest[i]))
    }
}

#[cfg(test)]
impl Keys {
    /// For tests with published or recorded values.
    pub(super) fn raw(&self) -> (&[u8], &[u8], &[u8]) {
        (self.d.expose(), self.a.expose(), self.encryption.expose())
    }
}
