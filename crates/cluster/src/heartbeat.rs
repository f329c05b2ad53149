//! The datagram by which members know of each other.
//!
//! ```text
//!  0      4  version, role, member, preference   each one byte after "SIMP"
//!  8     16  boot: who sends, drawn when its process began
//! 16     24  echo: whom it heard last
//! 24     32  counter, grows with each
//! 32     40  term
//! 40     72  HMAC-SHA-256 of all before
//! ```
//!
//! Nothing in it is secret. One that was recorded says nothing later: it echoes a process that is no more, or its counter
//! does not grow.

use crypto::{PrfKey, prf};

use base::Secret;
use base::algorithm::Prf;

use crate::{Key, Role};

const MAGIC: &[u8; 4] = b"SIMP";
const VERSION: u8 = 1;
/// Bytes of a heartbeat.
pub const LEN: usize = 72;

/// What a member says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// What it is.
    pub role: Role,
    /// Whether it is the first or the second member: 0 or 1.
    pub member: u8,
    /// The higher one is active where nothing else decides.
    pub preference: u8,
    /// Its process.
    pub boot: u64,
    /// The process that it heard last; 0 before any.
    pub echo: u64,
    /// Grows.
    pub counter: u64,
    /// When it became active, counted by both together; what it last heard while it stands by.
    pub term: u64,
}

impl Heartbeat {
    /// The datagram.
    pub fn seal(&self, key: &Key) -> [u8; LEN] {
        let mut out = [0; LEN];
        let role = match self.role {
            Role::Starting => 0,
            Role::Standby => 1,
            Role::Active => 2,
        };
        out[..4].copy_from_slice(MAGIC);
        out[4..8].copy_from_slice(&[VERSION, role, self.member, self.preference]);
        for (at, word) in [self.boot, self.echo, self.counter, self.term].into_iter().enumerate() {
            out[8 + 8 * at..16 + 8 * at].copy_from_slice(&word.to_be_bytes());
        }
        let mac = prf(Prf::Sha256, key.heartbeat.expose(), &[&out[..40]]);
        out[40..].copy_from_slice(mac.expose());
        out
    }

    /// What an authentic datagram says; nothing of any other.
    pub fn open(datagram: &[u8], key: &Key) -> Option<Self> {
        let (said, mac) = <&[u8; LEN]>::try_from(datagram).ok()?.split_at(40);
        let expected = PrfKey::new(Prf::Sha256, key.heartbeat.expose()).compute(&[said]);
        // Compared in constant time.
        if expected != Secret::from(mac) {
            return None;
        }
        let word = |at: usize| said[8 + 8 * at..].first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes));
        let role = match (&said[..4] == MAGIC, said[4], said[5]) {
            (true, VERSION, 0) => Role::Starting,
            (true, VERSION, 1) => Role::Standby,
            (true, VERSION, 2) => Role::Active,
            _ => return None,
        };
        Some(Self {
            role,
            member: said[6],
            preference: said[7],
            boot: word(0)?,
            echo: word(1)?,
            counter: word(2)?,
            term: word(3)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(text: &str) -> Key {
        Key::new(&Secret::from(text.as_bytes()))
    }

    proptest! {
        #[test]
        fn it_comes_back_and_any_change_or_other_key_makes_it_nothing(
            role in prop::sample::select(vec![Role::Starting, Role::Standby, Role::Active]),
            member: u8, preference: u8, words: [u64; 4], at in 0..LEN, bit in 0..8,
        ) {
            let [boot, echo, counter, term] = words;
            let said = Heartbeat { role, member, preference, boot, echo, counter, term };
            let mut datagram = said.seal(&key("a"));
            prop_assert_eq!(Heartbeat::open(&datagram, &key("a")), Some(said));
            prop_assert_eq!(Heartbeat::open(&datagram, &key("b")), None);
            prop_assert_eq!(Heartbeat::open(&datagram[..at], &key("a")), None);
            datagram[at] ^= 1_u8 << bit;
            prop_assert_eq!(Heartbeat::open(&datagram, &key("a")), None);
        }
    }
}
