//! Keyed SHA1 and Meticulous Keyed SHA1 authentication (RFC 5880 §6.7.4).
//!
//! Left out: Simple Password and both kinds of Keyed MD5. SHA-1 with the key inside is what the RFC has; inside an
//! IPsec tunnel it adds that the *other site's* hosts cannot speak for its gateway.

use base::algorithm::Prf;
use base::{Instant, Random, Secret};

use crate::status::Discard;
use crate::wire::{Decoded, Payload, SHA1_SECTION};

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthKind {
    /// Authentication type 4: a packet may be repeated until the next sequence number is seen.
    KeyedSha1,
    /// Authentication type 5: each packet has a sequence number of its own.
    MeticulousKeyedSha1,
}

impl AuthKind {
    const fn number(self) -> u8 {
        match self {
            Self::KeyedSha1 => 4,
            Self::MeticulousKeyedSha1 => 5,
        }
    }
}

/// How the packets of a session prove where they come from. Both ends need the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authentication {
    /// Which digest.
    pub kind: AuthKind,
    /// Which key, as both ends number it.
    pub key_id: u8,
    /// The key, 1 to 20 bytes; shorter ones are filled with zero bytes.
    pub key: Secret,
}

impl Authentication {
    /// SHA-1 over the packet with the key in the place of the digest.
    fn digest(&self, without_digest: &[u8]) -> [u8; 20] {
        const ZEROES: [u8; 20] = [0; 20];
        let key = self.key.expose();
        let filling = ZEROES.get(key.len()..).unwrap_or_default();
        let digest = crypto::prf::hash(Prf::Sha1, &[without_digest, key, filling]);
        digest.try_into().unwrap_or(ZEROES)
    }
}

/// The sequence numbers of one session.
#[derive(Debug)]
pub(crate) struct Sequence {
    /// bfd.XmitAuthSeq.
    next: u32,
    /// bfd.RcvAuthSeq, while bfd.AuthSeqKnown is 1.
    received: Option<u32>,
}

/// A packet whose digest and sequence number are right; only [`Sequence::verify`] makes one.
#[derive(Debug)]
pub(crate) struct Verified {
    sequence: Option<u32>,
}

impl Sequence {
    pub(crate) fn new(random: &mut Random) -> Self {
        Self { next: random.next_u32(), received: None }
    }

    /// The checks of §6.8.6 about authentication. Nothing changes before the digest is right; the RFC's own order
    /// would let a forged packet set bfd.RcvAuthSeq.
    pub(crate) fn verify(&self, ours: Option<&Authentication>, decoded: &Decoded<'_>) -> Result<Verified, Discard> {
        let (ours, section) = match (ours, decoded.section) {
            (None, None) => return Ok(Verified { sequence: None }),
            (None, Some(_)) => return Err(Discard::UnexpectedAuthentication),
            (Some(_), None) => return Err(Discard::MissingAuthentication),
            (Some(ours), Some(section)) => (ours, section),
        };
        let Some(&[kind, len, key_id, _, a, b, c, d, ref digest @ ..]) = section.first_chunk::<SHA1_SECTION>() else {
            return Err(Discard::BadAuthentication);
        };
        let is_ours = kind == ours.kind.number()
            && usize::from(len) == SHA1_SECTION
            && section.len() == SHA1_SECTION
            && key_id == ours.key_id;
        let signed = decoded.bytes.split_at_checked(decoded.bytes.len() - digest.len()).map(|(signed, _)| signed);
        let Some(signed) = signed.filter(|_| is_ours) else { return Err(Discard::BadAuthentication) };
        if Secret::from(&ours.digest(signed)[..]) != Secret::from(&digest[..]) {
            return Err(Discard::BadAuthentication);
        }
        let sequence = u32::from_be_bytes([a, b, c, d]);
        if let Some(received) = self.received {
            let ahead = sequence.wrapping_sub(received);
            let least = match ours.kind {
                AuthKind::KeyedSha1 => 0,
                AuthKind::MeticulousKeyedSha1 => 1,
            };
            if !(least..=3 * u32::from(decoded.packet.multiplier.get())).contains(&ahead) {
                return Err(Discard::Replay);
            }
        }
        Ok(Verified { sequence: Some(sequence) })
    }

    pub(crate) fn accept(&mut self, verified: &Verified) {
        self.received = verified.sequence;
    }

    /// Takes the next packet's sequence number as it comes: the key is another.
    pub(crate) fn forget(&mut self) {
        self.received = None;
    }

    /// bfd.AuthSeqKnown becomes 0 when nothing was heard for two detection times (§6.8.1).
    pub(crate) fn forget_if_silent(&mut self, heard_at: Option<Instant>, detection: u64, now: Instant) {
        let micros = |time: Instant| time.as_micros();
        if heard_at.is_none_or(|heard| micros(now) >= micros(heard).saturating_add(2 * detection)) {
            self.received = None;
        }
    }

    /// Signs a packet. The sequence number goes up with each: both kinds allow it.
    pub(crate) fn sign(&mut self, ours: &Authentication, payload: &mut Payload) {
        let mut section = [0; SHA1_SECTION];
        section[..3].copy_from_slice(&[ours.kind.number(), SHA1_SECTION as u8, ours.key_id]);
        section[4..8].copy_from_slice(&self.next.to_be_bytes());
        self.next = self.next.wrapping_add(1);
        payload.push_section(&section);
        let bytes = payload.as_bytes();
        let digest = ours.digest(bytes.get(..bytes.len() - 20).unwrap_or_default());
        payload.set_tail(&digest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Packet;

    /// What a BIRD 2.0.12 sent with "meticulous keyed sha1", password "matterhorn", id 1; one after the other.
    const BIRD: [&str; 2] = [
        "2084033440b27ed9a1ef05cf000f4240000186a000000000051c010029e267302bc5a3189f55d45aa6fd8fd096f5da456002c979",
        "20d4033440b27ed9a1ef05cf000186a0000186a000000000051c010029e26731bf75fd30bd520e2859d10e8fcb59e06f002f3d4d",
    ];

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn packets_that_bird_signed_are_genuine_in_their_order_and_under_their_key() {
        let ours =
            |key: &str| Authentication { kind: AuthKind::MeticulousKeyedSha1, key_id: 1, key: key.as_bytes().into() };
        let mut sequence = Sequence::new(&mut Random::for_test(1));
        let verdict = |sequence: &Sequence, key: &str, packet: &[u8]| {
            sequence.verify(Some(&ours(key)), &Packet::decode(packet).unwrap())
        };
        let [first, second] = BIRD.map(bytes);
        assert_eq!(verdict(&sequence, "matterhorns", &first).unwrap_err(), Discard::BadAuthentication);
        for packet in [&first, &second] {
            let verified = verdict(&sequence, "matterhorn", packet).unwrap();
            sequence.accept(&verified);
            assert_eq!(verdict(&sequence, "matterhorn", packet).unwrap_err(), Discard::Replay);
        }
        assert_eq!(verdict(&sequence, "matterhorn", &first).unwrap_err(), Discard::Replay);
    }
}
