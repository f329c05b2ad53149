//! Keys together with fragmentation (RFC 7383): whole messages in, datagrams out, and back.
//!
//! Each fragment is authenticated before it is kept; only those of one message are kept, and a bounded number.

use std::collections::BTreeMap;

use base::Random;

use crate::DropReason;
use crate::wire::header::Header;
use crate::wire::v2::{Body, flags, payload};

use super::keys::{Keys, Piece, Verified};

/// Most fragments of one message.
const MAX_FRAGMENTS: u16 = 64;

/// The datagrams of one message.
pub(super) type Packets = Vec<Vec<u8>>;

/// What seals and opens the messages of an IKE SA.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) keys: Keys,
    /// Whether both sides speak RFC 7383.
    pub(super) fragmentation: bool,
    partial: Option<Box<Partial>>,
}

impl Channel {
    pub(super) const fn new(keys: Keys, fragmentation: bool) -> Self {
        Self { keys, fragmentation, partial: None }
    }

    /// The datagrams of a message, each of at most `limit` bytes when both sides speak RFC 7383.
    pub(super) fn seal(&mut self, header: Header, body: &Body, limit: usize, random: &mut Random) -> Packets {
        let plain = body.as_bytes();
        let overhead = self.keys.fragment_overhead();
        let chunk = limit.saturating_sub(overhead).max(64);
        let fits = !self.fragmentation || plain.len() + overhead <= limit.max(overhead + 64);
        if fits || plain.len() > chunk * usize::from(MAX_FRAGMENTS) {
            return vec![self.keys.seal(header, None, body.first(), plain, random)];
        }
        let total = u16::try_from(plain.chunks(chunk).len()).unwrap_or(MAX_FRAGMENTS);
        let numbered = (1..=total).zip(plain.chunks(chunk));
        // RFC 7383 §2.5: only the first fragment says what the first payload is.
        let first = |number| if number == 1 { body.first() } else { payload::NONE };
        numbered.map(|(n, part)| self.keys.seal(header, Some((n, total)), first(n), part, random)).collect()
    }

    /// Checks a datagram; changes nothing.
    ///
    /// # Errors
    /// Why it is dropped.
    pub(super) fn open(&self, header: &Header, message: &[u8]) -> Result<Piece, DropReason> {
        self.keys.open(header, message)
    }

    /// The whole message, once the last piece of it is there.
    ///
    /// # Errors
    /// When the piece is a fragment that fits no message.
    pub(super) fn assemble(&mut self, piece: Piece) -> Result<Option<Verified>, DropReason> {
        let Some((number, total)) = piece.fragment else {
            self.partial = None;
            return Ok(Some(piece.into_whole()));
        };
        if number == 0 || number > total || total > MAX_FRAGMENTS || !self.fragmentation {
            return Err(DropReason::BadFragment);
        }
        let key = (piece.header.message_id, piece.header.flags & flags::RESPONSE != 0);
        // RFC 7383 §2.6: a greater total means that the peer split the message anew; a smaller one is stale.
        match &self.partial {
            Some(partial) if partial.key == key && partial.total > total => return Err(DropReason::BadFragment),
            Some(partial) if partial.key == key && partial.total == total => {}
            Some(_) | None => self.partial = Some(Box::new(Partial { key, total, pieces: BTreeMap::new() })),
        }
        let Some(partial) = &mut self.partial else { return Ok(None) };
        partial.pieces.entry(number).or_insert(piece);
        if partial.pieces.len() < usize::from(total) {
            return Ok(None);
        }
        let Some(mut whole) = self.partial.take() else { return Ok(None) };
        let first = whole.pieces.remove(&1);
        Ok(first.map(|first| first.joined(whole.pieces.values().map(Piece::plain))))
    }
}

/// Fragments of one message that have come so far.
struct Partial {
    /// Message ID, and whether it is a response.
    key: (u32, bool),
    total: u16,
    pieces: BTreeMap<u16, Piece>,
}

impl std::fmt::Debug for Partial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Partial({} of {})", self.pieces.len(), self.total)
    }
}

#[cfg(test)]
mod tests {
    use super::super::keys::{IkeSuite, Seed};
    use super::*;
    use crate::wire::v2::{Message, NotifyType, exchange};
    use base::Secret;
    use base::algorithm::{Encryption, Group, Prf};

    const HEADER: Header = Header {
        initiator_spi: 3,
        responder_spi: 4,
        next_payload: 0,
        major: 2,
        minor: 0,
        exchange: exchange::AUTH,
        flags: flags::INITIATOR,
        message_id: 1,
        length: 0,
    };

    fn channels() -> (Channel, Channel) {
        let suite =
            IkeSuite { encryption: Encryption::Aes128Gcm, integrity: None, prf: Prf::Sha256, group: Group::Ecp256 };
        let shared = Secret::from(vec![7; 32]);
        let seed = Seed { nonce_i: &[1; 32], nonce_r: &[2; 32], spi_i: 3, spi_r: 4 };
        let keys = |is_initiator| Keys::first(suite, &shared, seed, is_initiator).0;
        (Channel::new(keys(true), true), Channel::new(keys(false), true))
    }

    fn feed(channel: &mut Channel, packet: &[u8]) -> Result<Option<Verified>, DropReason> {
        let piece = channel.open(&Header::decode(packet).unwrap(), packet)?;
        channel.assemble(piece)
    }

    #[test]
    fn a_long_message_comes_back_from_fragments_in_any_order_and_twice() {
        let (mut a, mut b) = channels();
        let mut random = Random::for_test(1);
        let mut body = Body::new();
        body.notify(NotifyType::COOKIE, &[5; 1_000]).notify(NotifyType::INITIAL_CONTACT, &[]);
        let packets = a.seal(HEADER, &body, 300, &mut random);
        assert_eq!(packets.len(), 5);
        assert!(packets.iter().all(|packet| packet.len() <= 300));
        for packet in packets[1..].iter().rev().chain(&packets[1..]) {
            assert!(feed(&mut b, packet).unwrap().is_none());
        }
        let whole = feed(&mut b, &packets[0]).unwrap().unwrap();
        assert_eq!(whole.plain, body.as_bytes());
        assert_eq!(Message::decode(whole.first, &whole.plain).unwrap().notifies.len(), 2);
        assert!(b.partial.is_none());
    }

    #[test]
    fn a_forged_fragment_does_not_spoil_the_message() {
        let (mut a, mut b) = channels();
        let mut random = Random::for_test(1);
        let mut body = Body::new();
        body.notify(NotifyType::COOKIE, &[5; 400]);
        let packets = a.seal(HEADER, &body, 300, &mut random);
        let mut forged = packets[1].clone();
        *forged.last_mut().unwrap() ^= 1;
        assert_eq!(feed(&mut b, &forged).err(), Some(DropReason::NotAuthentic));
        assert!(feed(&mut b, &packets[0]).unwrap().is_none());
        assert!(feed(&mut b, &packets[1]).unwrap().is_some());
    }

    #[test]
    fn a_message_split_anew_starts_over_and_stale_fragments_are_dropped() {
        let (mut a, mut b) = channels();
        let mut random = Random::for_test(1);
        let mut body = Body::new();
        body.notify(NotifyType::COOKIE, &[5; 500]);
        let (large, small) = (a.seal(HEADER, &body, 400, &mut random), a.seal(HEADER, &body, 200, &mut random));
        assert!(feed(&mut b, &large[0]).unwrap().is_none());
        assert!(feed(&mut b, &small[0]).unwrap().is_none());
        assert_eq!(feed(&mut b, &large[1]).err(), Some(DropReason::BadFragment));
        let whole = small[1..].iter().fold(None, |_, packet| feed(&mut b, packet).unwrap());
        assert_eq!(whole.unwrap().plain, body.as_bytes());
    }
}
