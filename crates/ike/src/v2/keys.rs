//! Keys of an IKE SA (RFC 7296 §2.13–2.18) and the Encrypted payload that they make (§3.14, RFC 5282, RFC 7383 §2.5).
//!
//! [`Keys::open`] is the only maker of a [`Piece`], and [`Piece`]s are all that a [`Verified`] message is made of:
//! whoever holds one knows that the peer sent it.

use std::fmt;

use base::algorithm::{Encryption, Group, Integrity, Prf};
use base::{Random, Secret};
use crypto::{AeadKey, CbcKey, HmacKey, prf, prf_plus};
use serde::{Deserialize, Serialize};

use crate::DropReason;
use crate::wire::header::{self, Header};
use crate::wire::v2::payload;

/// Bytes of a generic payload header.
const GENERIC: usize = 4;
/// Bytes of fragment number and total.
const FRAGMENT: usize = 4;
const AEAD_IV: usize = 8;

/// The algorithms of an IKE SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IkeSuite {
    pub(crate) encryption: Encryption,
    /// `None` exactly for AEAD.
    pub(crate) integrity: Option<Integrity>,
    pub(crate) prf: Prf,
    pub(crate) group: Group,
}

impl IkeSuite {
    pub(crate) fn is_weak(self) -> bool {
        self.encryption.is_weak()
            || self.integrity.is_some_and(Integrity::is_weak)
            || self.prf.is_weak()
            || self.group.is_weak()
    }

    fn icv_len(self) -> usize {
        self.integrity.map_or(self.encryption.tag_len(), Integrity::icv_len)
    }
}

impl fmt::Display for IkeSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.encryption)?;
        match self.integrity {
            Some(integrity) if integrity.prf() == self.prf => write!(f, "-{integrity}")?,
            Some(integrity) => write!(f, "-{integrity}-prf{}", self.prf)?,
            None => write!(f, "-prf{}", self.prf)?,
        }
        write!(f, "-{}", self.group)
    }
}

/// The nonces and SPIs that keys are made of.
#[derive(Clone, Copy)]
pub(super) struct Seed<'a> {
    pub(super) nonce_i: &'a [u8],
    pub(super) nonce_r: &'a [u8],
    pub(super) spi_i: u64,
    pub(super) spi_r: u64,
}

/// Keys of an IKE SA once it is established. Cipher states are set up a message: messages are rare, sessions many.
pub(super) struct Keys {
    pub(super) suite: IkeSuite,
    /// SK_d.
    pub(super) derive: Secret,
    pub(super) inbound: Direction,
    pub(super) outbound: Direction,
    /// Messages sealed so far: the IV of an AEAD, which must never repeat.
    pub(super) sealed: u64,
}

pub(super) struct Direction {
    pub(super) encryption: Secret,
    pub(super) integrity: Secret,
}

/// SK_pi and SK_pr, which only IKE_AUTH needs.
pub(super) struct ProofKeys {
    pub(super) initiator: Secret,
    pub(super) responder: Secret,
}

/// A message or a fragment of one whose integrity was checked.
pub(super) struct Piece {
    pub(super) header: Header,
    /// Number and total, from 1 on.
    pub(super) fragment: Option<(u16, u16)>,
    first: u8,
    plain: Vec<u8>,
}

/// A whole message of the peer.
pub(super) struct Verified {
    pub(super) header: Header,
    /// Type of its first payload.
    pub(super) first: u8,
    /// Its payloads.
    pub(super) plain: Vec<u8>,
}

impl Piece {
    pub(super) fn plain(&self) -> &[u8] {
        &self.plain
    }

    /// The message, unless this is a fragment of it.
    pub(super) fn whole(self) -> Option<Verified> {
        self.fragment.is_none().then(|| self.into_whole())
    }

    /// The message that this piece is, when it is all of it.
    pub(super) fn into_whole(self) -> Verified {
        Verified { header: self.header, first: self.first, plain: self.plain }
    }

    /// The message that `self`, the first of its fragments, and the others make.
    pub(super) fn joined<'a>(self, others: impl Iterator<Item = &'a [u8]>) -> Verified {
        let mut whole = self.into_whole();
        others.for_each(|other| whole.plain.extend_from_slice(other));
        whole
    }
}

impl Keys {
    /// Keys of a first IKE SA (RFC 7296 §2.14).
    pub(super) fn first(suite: IkeSuite, shared: &Secret, seed: Seed<'_>, is_initiator: bool) -> (Self, ProofKeys) {
        let key = Secret::from([seed.nonce_i, seed.nonce_r].concat());
        let skeyseed = prf(suite.prf, key.expose(), &[shared.expose()]);
        Self::expand(suite, &skeyseed, seed, is_initiator)
    }

    /// Keys of the IKE SA that succeeds this one (RFC 7296 §2.18): the old PRF makes the seed, the new one expands it.
    pub(super) fn successor(&self, suite: IkeSuite, shared: &Secret, seed: Seed<'_>, is_initiator: bool) -> Self {
        let parts = [shared.expose(), seed.nonce_i, seed.nonce_r];
        let skeyseed = prf(self.suite.prf, self.derive.expose(), &parts);
        Self::expand(suite, &skeyseed, seed, is_initiator).0
    }

    fn expand(suite: IkeSuite, skeyseed: &Secret, seed: Seed<'_>, is_initiator: bool) -> (Self, ProofKeys) {
        let prf_len = suite.prf.output_len();
        let integrity_len = suite.integrity.map_or(0, Integrity::key_len);
        let encryption_len = suite.encryption.key_len() + suite.encryption.salt_len();
        let spis = [seed.spi_i.to_be_bytes(), seed.spi_r.to_be_bytes()];
        let total = 3 * prf_len + 2 * integrity_len + 2 * encryption_len;
        let seed = [seed.nonce_i, seed.nonce_r, &spis[0], &spis[1]];
        let all = prf_plus(suite.prf, skeyseed.expose(), &seed, total);
        let mut rest = all.expose();
        let mut take = |len: usize| {
            let (own, after) = rest.split_at(len);
            rest = after;
            Secret::from(own)
        };
        let derive = take(prf_len);
        let (integrity_i, integrity_r) = (take(integrity_len), take(integrity_len));
        let (encryption_i, encryption_r) = (take(encryption_len), take(encryption_len));
        let proof = ProofKeys { initiator: take(prf_len), responder: take(prf_len) };
        let from_i = Direction { encryption: encryption_i, integrity: integrity_i };
        let from_r = Direction { encryption: encryption_r, integrity: integrity_r };
        let (inbound, outbound) = if is_initiator { (from_r, from_i) } else { (from_i, from_r) };
        (Self { suite, derive, inbound, outbound, sealed: 0 }, proof)
    }

    pub(super) const fn suite(&self) -> IkeSuite {
        self.suite
    }

    /// KEYMAT of a Child SA (RFC 7296 §2.17).
    pub(super) fn child_keymat(&self, shared: Option<&Secret>, nonce_i: &[u8], nonce_r: &[u8], len: usize) -> Secret {
        let shared = shared.map_or(&[][..], Secret::expose);
        prf_plus(self.suite.prf, self.derive.expose(), &[shared, nonce_i, nonce_r], len)
    }

    /// Bytes of a datagram that its contents cannot have when it is a fragment.
    pub(super) fn fragment_overhead(&self) -> usize {
        let padding = self.suite.encryption.block_len();
        header::LEN + GENERIC + FRAGMENT + self.suite.encryption.iv_len() + padding + self.suite.icv_len()
    }

    /// The most bytes of payloads that a message, or a fragment, of at most `room` bytes can hold, and its length then.
    pub(super) fn largest_plain(&self, room: usize, as_fragment: bool) -> Option<(usize, usize)> {
        let frame = header::LEN + GENERIC + if as_fragment { FRAGMENT } else { 0 };
        let frame = frame + self.suite.encryption.iv_len() + self.suite.icv_len();
        let text = room.checked_sub(frame)?;
        let text = text - text % self.suite.encryption.block_len();
        Some((text.checked_sub(1)?, frame + text))
    }

    /// The message with `plain`, a chain of payloads that begins with one of type `first`, or a fragment of it.
    pub(super) fn seal(
        &mut self,
        header: Header,
        fragment: Option<(u16, u16)>,
        first: u8,
        plain: &[u8],
        random: &mut Random,
    ) -> Vec<u8> {
        let encryption = self.suite.encryption;
        let (iv_len, block) = (encryption.iv_len(), encryption.block_len());
        let padding = (block - (plain.len() + 1) % block) % block;
        let fragment_len = fragment.map_or(0, |_| FRAGMENT);
        let total = header::LEN + GENERIC + fragment_len + iv_len + plain.len() + padding + 1 + self.suite.icv_len();
        let kind = if fragment.is_some() { payload::SKF } else { payload::SK };
        let header = Header { next_payload: kind, length: u32::try_from(total).unwrap_or(u32::MAX), ..header };

        let mut out = Vec::with_capacity(total);
        out.extend_from_slice(&header.encode());
        let [high, low] = u16::try_from(total - header::LEN).unwrap_or(u16::MAX).to_be_bytes();
        out.extend_from_slice(&[first, 0, high, low]);
        if let Some((number, of)) = fragment {
            out.extend_from_slice(&number.to_be_bytes());
            out.extend_from_slice(&of.to_be_bytes());
        }
        let aad_len = out.len();
        let mut iv = [0; 16];
        if encryption.is_aead() {
            iv[..AEAD_IV].copy_from_slice(&self.sealed.to_be_bytes());
            self.sealed += 1;
        } else {
            random.fill(&mut iv);
        }
        out.extend_from_slice(&iv[..iv_len]);
        let text = out.len();
        out.extend_from_slice(plain);
        out.resize(out.len() + padding, 0);
        out.push(u8::try_from(padding).unwrap_or_default());
        let (aad, rest) = out.split_at_mut(aad_len);
        let tag = self.outbound.seal(self.suite, aad, &iv[..iv_len], &mut rest[text - aad_len..]);
        out.extend_from_slice(&tag);
        if let Some(integrity) = self.suite.integrity {
            let icv = HmacKey::new(integrity, self.outbound.integrity.expose()).sign(&[&out]);
            out.extend_from_slice(icv.as_ref());
        }
        out
    }

    /// Checks and decrypts a message whose first payload is the Encrypted one. Changes nothing.
    ///
    /// # Errors
    /// Why it is dropped.
    pub(super) fn open(&self, header: &Header, message: &[u8]) -> Result<Piece, DropReason> {
        let fragment_len = match header.next_payload {
            payload::SK => 0,
            payload::SKF => FRAGMENT,
            _ => return Err(DropReason::Malformed),
        };
        let iv_len = self.suite.encryption.iv_len();
        let aad_len = header::LEN + GENERIC + fragment_len;
        let text = aad_len + iv_len;
        if message.len() < text + 1 + self.suite.icv_len() {
            return Err(DropReason::Malformed);
        }
        let word = |at: usize| u16::from_be_bytes([message[at], message[at + 1]]);
        if usize::from(word(header::LEN + 2)) != message.len() - header::LEN {
            return Err(DropReason::Malformed);
        }
        let fragment = (fragment_len > 0).then(|| (word(header::LEN + GENERIC), word(header::LEN + GENERIC + 2)));
        let plain = self.inbound.open(self.suite, message, aad_len, text).ok_or(DropReason::NotAuthentic)?;
        Ok(Piece { header: *header, fragment, first: message[header::LEN], plain })
    }
}

impl Direction {
    /// Encrypts in place; returns the tag of an AEAD.
    fn seal(&self, suite: IkeSuite, aad: &[u8], iv: &[u8], text: &mut [u8]) -> Vec<u8> {
        if let Ok(iv) = <[u8; AEAD_IV]>::try_from(iv)
            && suite.encryption.is_aead()
        {
            let key = AeadKey::new(suite.encryption, self.encryption.expose()).expect("derived to this length");
            key.seal(iv, aad, text).to_vec()
        } else {
            let key = CbcKey::new(suite.encryption, self.encryption.expose()).expect("derived to this length");
            key.encrypt(iv, text).expect("padded to whole blocks");
            Vec::new()
        }
    }

    /// Checks, decrypts and takes the padding away; `None` when any of it fails.
    fn open(&self, suite: IkeSuite, message: &[u8], aad_len: usize, text: usize) -> Option<Vec<u8>> {
        let (aad, iv) = (message.get(..aad_len)?, message.get(aad_len..text)?);
        let mut plain;
        if let Some(integrity) = suite.integrity {
            let (covered, icv) = message.split_at_checked(message.len().checked_sub(integrity.icv_len())?)?;
            if !HmacKey::new(integrity, self.integrity.expose()).verify(&[covered], icv) {
                return None;
            }
            plain = covered.get(text..)?.to_vec();
            CbcKey::new(suite.encryption, self.encryption.expose()).ok()?.decrypt(iv, &mut plain).ok()?;
        } else {
            plain = message.get(text..)?.to_vec();
            let key = AeadKey::new(suite.encryption, self.encryption.expose()).ok()?;
            let len = key.open(iv.try_into().ok()?, aad, &mut plain).ok()?;
            plain.truncate(len);
        }
        let padding = usize::from(*plain.last()?);
        plain.truncate(plain.len().checked_sub(padding + 1)?);
        Some(plain)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({} {{secret}})", self.suite)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::v2::{exchange, flags};

    fn pair(suite: IkeSuite) -> (Keys, Keys) {
        let shared = Secret::from(vec![7; 32]);
        let seed = Seed { nonce_i: &[1; 32], nonce_r: &[2; 32], spi_i: 3, spi_r: 4 };
        (Keys::first(suite, &shared, seed, true).0, Keys::first(suite, &shared, seed, false).0)
    }

    fn suites() -> impl Iterator<Item = IkeSuite> {
        Encryption::ALL.into_iter().flat_map(|encryption| {
            let integrities = if encryption.is_aead() { vec![None] } else { Integrity::ALL.map(Some).to_vec() };
            integrities.into_iter().map(move |integrity| IkeSuite {
                encryption,
                integrity,
                prf: Prf::Sha256,
                group: Group::Ecp256,
            })
        })
    }

    const HEADER: Header = Header {
        initiator_spi: 3,
        responder_spi: 4,
        next_payload: 0,
        major: 2,
        minor: 0,
        exchange: exchange::INFORMATIONAL,
        flags: flags::INITIATOR,
        message_id: 5,
        length: 0,
    };

    /// Computed apart from this code, with HMAC of another library, from RFC 7296 §2.13, §2.14, §2.17 and §2.18.
    #[test]
    fn keys_are_those_of_an_independent_computation() {
        let suite = IkeSuite {
            encryption: Encryption::Aes128Cbc,
            integrity: Some(Integrity::Sha256),
            prf: Prf::Sha256,
            group: Group::Ecp256,
        };
        let (nonce_i, nonce_r): (Vec<u8>, Vec<u8>) = ((0..32).collect(), (32..64).collect());
        let (spi_i, spi_r) = (0x0102_0304_0506_0708, 0x1112_1314_1516_1718);
        let seed = Seed { nonce_i: &nonce_i, nonce_r: &nonce_r, spi_i, spi_r };
        let shared = Secret::from(vec![0xA5; 32]);
        let hex = |secret: &Secret| secret.expose().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let (keys, proof) = Keys::first(suite, &shared, seed, true);
        let made = [
            &keys.derive,
            &keys.outbound.integrity,
            &keys.inbound.integrity,
            &keys.outbound.encryption,
            &keys.inbound.encryption,
            &proof.initiator,
            &proof.responder,
        ];
        let expected = [
            "28cf3c8fc26c961ef2789c0cfcfbec00cfd4bd851e8ebc7cca6743b26fdb2c27",
            "f173e2d368c640069af4f375417bb87b981483bf77ef9ba875f21f816fb6bbbc",
            "644122bc1e6d4f420365f51a2e184cccb0f2847cc95c432d45a4c694f04acebb",
            "30f92baee606c6fa444bd4e458f20b4d",
            "7f39fbed5131a5fd6ad5da2a8e894201",
            "5f611705f974605e3787f2aa142cf77df5b17c46f93ffab94ef8976caba4a957",
            "3ced1c4a111c5aa008b1e5b6159e7dcc2dc48d55e97f857d58a7f96c3e0e950e",
        ];
        assert_eq!(made.map(hex), expected);
        let child = |shared| hex(&keys.child_keymat(shared, &nonce_i, &nonce_r, 40));
        assert_eq!(child(None), "a47f4013d8c5b40a9d9acc332215fd10d6e6a6dbb58a00c8cb3f68c0657a792fb6f0476e36f21f21");
        assert_eq!(
            child(Some(&shared)),
            "2b6ef4e15ebaf6732ce1c404f92d1a743063480cad27b0f61e7812d8187b855011e17bd6b3b147e9"
        );
        let successor = keys.successor(suite, &shared, seed, true);
        assert_eq!(hex(&successor.derive), "db918d7204d3846cb65b429740ccb784ba39fb60639df26c1a3052ad6cfaecb8");
    }

    #[test]
    fn what_one_side_seals_the_other_opens_in_every_suite() {
        let mut random = Random::for_test(1);
        for suite in suites() {
            let (mut a, b) = pair(suite);
            for (len, fragment) in [(0, None), (1, Some((1, 2))), (15, None), (16, Some((2, 2))), (100, None)] {
                let plain = vec![9; len];
                let message = a.seal(HEADER, fragment, payload::NOTIFY, &plain, &mut random);
                let header = Header::decode(&message).unwrap();
                let piece = b.open(&header, &message).unwrap_or_else(|_| panic!("{suite} {len}"));
                assert_eq!((piece.first, piece.fragment, &piece.plain), (payload::NOTIFY, fragment, &plain));
            }
        }
    }

    #[test]
    fn no_single_changed_byte_goes_unseen() {
        let mut random = Random::for_test(1);
        for suite in suites() {
            let (mut a, b) = pair(suite);
            let message = a.seal(HEADER, None, payload::NOTIFY, &[1, 2, 3], &mut random);
            for at in 0..message.len() {
                let mut forged = message.clone();
                forged[at] ^= 0x40;
                // The header's own checks come first; what passes them must fail here.
                let Ok(header) = Header::decode(&forged) else { continue };
                assert!(b.open(&header, &forged).is_err(), "{suite}: byte {at}");
            }
        }
    }

    #[test]
    fn an_aead_never_sees_one_iv_twice() {
        let suite = suites().find(|suite| suite.integrity.is_none()).unwrap();
        let (mut a, _) = pair(suite);
        let mut random = Random::for_test(1);
        let mut iv = || a.seal(HEADER, None, 0, &[], &mut random)[32..40].to_vec();
        assert_ne!(iv(), iv());
    }
}
