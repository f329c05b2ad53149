//! The stream between two members: each proves that it knows the key, and what they say is sealed.
//!
//! ```text
//! a -- hello: "SIMPLON CLUSTER 1", nonce, public value -> b
//! a <- hello ------------------------------------------- b
//! a <-> records: length, AES-256-GCM under a key of its direction, numbered from 0
//! ```
//!
//! The keys come of the configured key, an X25519 exchange and both hellos together, so what was recorded stays closed
//! even to whoever learns the configured key later, and a record of one conversation fits no other. It is the pattern
//! NNpsk0 of the Noise framework with the primitives that IKE uses here already. Nothing that comes is believed before
//! its record opens: the first one is the proof.

use std::fmt;

use base::algorithm::{Encryption, Group, Prf};
use base::{Random, Secret};
use crypto::{AeadKey, KeyPair, prf, prf_plus};

use zeroize::Zeroize;

use crate::Key;

const MAGIC: &[u8; 17] = b"SIMPLON CLUSTER 1";
const NONCE: usize = 32;
const PUBLIC: usize = 32;
/// Bytes of a hello.
pub const HELLO: usize = MAGIC.len() + NONCE + PUBLIC;
/// The largest record, in bytes of what it holds: some thousand tunnels in one go are several.
pub const LARGEST: usize = 16 << 20;
const TAG: usize = 16;
/// Bytes in front of a record: its length.
pub const LENGTH: usize = 4;

/// Why a stream is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// What the other said first is not what a member says.
    NotAMember,
    /// A record does not open: the other has another key, or somebody has changed it.
    NotAuthentic,
    /// A record is longer than any may be.
    TooLong,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAMember => "the other end speaks something else, or another version",
            Self::NotAuthentic => "the other end has another key in [cluster], or what it said was changed on the way",
            Self::TooLong => "a record is too long",
        })
    }
}

impl std::error::Error for Broken {}

/// A conversation that begins.
#[derive(Debug)]
pub struct Handshake {
    own: KeyPair,
    hello: [u8; HELLO],
}

impl Handshake {
    /// Draws what is new in this conversation.
    pub fn new(random: &mut Random) -> Self {
        let own = KeyPair::generate(Group::Curve25519, random);
        let mut hello = [0; HELLO];
        hello[..MAGIC.len()].copy_from_slice(MAGIC);
        random.fill(&mut hello[MAGIC.len()..MAGIC.len() + NONCE]);
        hello[MAGIC.len() + NONCE..].copy_from_slice(own.public());
        Self { own, hello }
    }

    /// What is to be sent first.
    pub const fn hello(&self) -> &[u8; HELLO] {
        &self.hello
    }

    /// The other's hello is here.
    ///
    /// # Errors
    /// [`Broken::NotAMember`].
    pub fn finish(self, theirs: &[u8; HELLO], has_called: bool, key: &Key) -> Result<(Sealer, Opener), Broken> {
        let (magic, rest) = theirs.split_at(MAGIC.len());
        // A hello of ours that comes back would make both directions alike.
        if magic != MAGIC || *theirs == self.hello {
            return Err(Broken::NotAMember);
        }
        let shared = self.own.agree(&rest[NONCE..]).map_err(|_| Broken::NotAMember)?;
        let (caller, called) = if has_called { (&self.hello, theirs) } else { (theirs, &self.hello) };
        let secret = prf(Prf::Sha256, key.channel.expose(), &[shared.expose(), caller, called]);
        let len = Encryption::Aes256Gcm.key_len() + Encryption::Aes256Gcm.salt_len();
        let keys = prf_plus(Prf::Sha256, secret.expose(), &[b"simplon cluster records"], 2 * len);
        let (of_caller, of_called) = keys.expose().split_at(len);
        let (own, other) = if has_called { (of_caller, of_called) } else { (of_called, of_caller) };
        let of = |key| AeadKey::new(Encryption::Aes256Gcm, key).map_err(|_| Broken::NotAMember);
        Ok((Sealer { key: of(own)?, sent: 0 }, Opener { key: of(other)?, received: 0 }))
    }
}

/// What this end says.
#[derive(Debug)]
pub struct Sealer {
    key: AeadKey,
    sent: u64,
}

/// What the other end says.
#[derive(Debug)]
pub struct Opener {
    key: AeadKey,
    received: u64,
}

impl Sealer {
    /// The record of a message, with its length in front.
    ///
    /// # Errors
    /// [`Broken::TooLong`].
    pub fn seal(&mut self, message: &Secret) -> Result<Vec<u8>, Broken> {
        let message = message.expose();
        if message.len() > LARGEST {
            return Err(Broken::TooLong);
        }
        let length = u32::try_from(message.len() + TAG).map_err(|_| Broken::TooLong)?.to_be_bytes();
        let mut out = Vec::with_capacity(LENGTH + message.len() + TAG);
        out.extend_from_slice(&length);
        out.extend_from_slice(message);
        let tag = self.key.seal(self.sent.to_be_bytes(), &length, &mut out[LENGTH..]);
        out.extend_from_slice(&tag);
        self.sent += 1;
        Ok(out)
    }
}

impl Opener {
    /// How many bytes follow this length.
    ///
    /// # Errors
    /// [`Broken::TooLong`]; [`Broken::NotAuthentic`] where it is shorter than any.
    pub fn length(length: [u8; LENGTH]) -> Result<usize, Broken> {
        let len = u32::from_be_bytes(length) as usize;
        match len {
            ..TAG => Err(Broken::NotAuthentic),
            len if len > LARGEST + TAG => Err(Broken::TooLong),
            len => Ok(len),
        }
    }

    /// The message in a record, of which `rest` is what follows the length.
    ///
    /// # Errors
    /// [`Broken::NotAuthentic`]; nothing that comes later opens then.
    pub fn open(&mut self, length: [u8; LENGTH], mut rest: Vec<u8>) -> Result<Secret, Broken> {
        let len = self.key.open(self.received.to_be_bytes(), &length, &mut rest).map_err(|_| Broken::NotAuthentic)?;
        self.received += 1;
        let message = Secret::from(&rest[..len]);
        rest.zeroize();
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Channel(Sealer, Opener);

    impl Channel {
        fn seal(&mut self, message: &Secret) -> Result<Vec<u8>, Broken> {
            self.0.seal(message)
        }
    }

    fn pair(keys: [&str; 2]) -> (Channel, Channel) {
        let [a, b] = [1, 2].map(|seed| Handshake::new(&mut Random::for_test(seed)));
        let [ka, kb] = keys.map(|text| Key::new(&Secret::from(text.as_bytes())));
        let (hello_a, hello_b) = (*a.hello(), *b.hello());
        let (a, b) = (a.finish(&hello_b, true, &ka).unwrap(), b.finish(&hello_a, false, &kb).unwrap());
        (Channel(a.0, a.1), Channel(b.0, b.1))
    }

    fn open(channel: &mut Channel, record: &[u8]) -> Result<Secret, Broken> {
        let (length, rest) = record.split_first_chunk::<LENGTH>().unwrap();
        assert_eq!(Opener::length(*length), Ok(rest.len()));
        channel.1.open(*length, rest.to_vec())
    }

    #[test]
    fn what_one_says_the_other_hears_in_order_and_once() {
        let (mut a, mut b) = pair(["k", "k"]);
        let said: Vec<_> = (0..4_u8).map(|n| a.seal(&Secret::from(vec![n; 9])).unwrap()).collect();
        assert_eq!(open(&mut b, &said[0]).unwrap().expose(), [0; 9]);
        assert_eq!(open(&mut b, &said[0]).unwrap_err(), Broken::NotAuthentic, "again");
        assert_eq!(open(&mut b, &said[2]).unwrap_err(), Broken::NotAuthentic, "out of order");
        assert_eq!(open(&mut b, &said[1]).unwrap().expose(), [1; 9]);
        assert_eq!(open(&mut a, &said[2]).unwrap_err(), Broken::NotAuthentic, "its own");
        let back = b.seal(&Secret::default()).unwrap();
        assert!(open(&mut a, &back).unwrap().is_empty());
    }

    #[test]
    fn another_key_another_conversation_and_an_echo_are_nothing() {
        let (mut a, mut b) = pair(["k", "other"]);
        assert_eq!(open(&mut b, &a.seal(&Secret::from(vec![1])).unwrap()).unwrap_err(), Broken::NotAuthentic);
        let one = Handshake::new(&mut Random::for_test(1));
        let hello = *one.hello();
        assert_eq!(one.finish(&hello, true, &Key::new(&Secret::default())).unwrap_err(), Broken::NotAMember);
        let one = Handshake::new(&mut Random::for_test(1));
        assert_eq!(one.finish(&[0; HELLO], true, &Key::new(&Secret::default())).unwrap_err(), Broken::NotAMember);
        assert_eq!(Opener::length([0, 0, 0, 3]), Err(Broken::NotAuthentic));
        assert_eq!(Opener::length([255; 4]), Err(Broken::TooLong));
    }

    proptest! {
        #[test]
        fn a_record_that_was_changed_does_not_open(message: Vec<u8>, at: prop::sample::Index, bit in 0..8) {
            let (mut a, mut b) = pair(["k", "k"]);
            let mut record = a.seal(&Secret::from(&message[..])).unwrap();
            let at = LENGTH + at.index(record.len() - LENGTH);
            record[at] ^= 1_u8 << bit;
            prop_assert_eq!(open(&mut b, &record).unwrap_err(), Broken::NotAuthentic);
        }
    }
}
