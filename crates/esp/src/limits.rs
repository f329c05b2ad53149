//! How long an SA may be used (RFC 4301 §4.4.2.1): soft limits ask for a new one, hard ones end it.

use base::Instant;
use base::algorithm::Encryption;
use model::Lifetime;
use sa::{ChildSuite, Limits};

/// A limit of volume that was reached. Each is reported once per SA and direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Time to rekey.
    Soft,
    /// No further packet passes.
    Hard,
}

/// The last sequence number that is sent without ESN (RFC 4303 §2.2: it must not cycle).
pub(crate) const LAST_SHORT_SEQUENCE: u64 = u32::MAX as u64;

/// When to rekey before it.
pub(crate) const SOFT_SHORT_SEQUENCE: u64 = Lifetime::soft(LAST_SHORT_SEQUENCE);

/// With blocks of 64 bits, ciphertext blocks begin to collide, and tell about plaintext, long before
/// 2^32 of them; after 2^27 the odds are 1 in 2,000. Deliberate: SP 800-67 stops at 2^20 blocks, which
/// would rekey every second on a fast line; and this only rekeys, it does not stop.
const SHORT_BLOCK_BYTES: u64 = 1 << 30;

/// The limits of one direction, those of the sequence number included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meter {
    limits: Limits,
}

impl Meter {
    /// Limits as agreed, and what the suite adds: without ESN the SA ends with its sequence numbers,
    /// and is rekeyed before.
    pub(crate) fn new(mut limits: Limits, suite: ChildSuite) -> Self {
        let at_most = |limit: Option<u64>, most: u64| Some(limit.map_or(most, |limit| limit.min(most)));
        if suite.encryption == Encryption::TripleDesCbc {
            limits.soft_bytes = at_most(limits.soft_bytes, SHORT_BLOCK_BYTES);
        }
        if !suite.esn {
            limits.soft_packets = at_most(limits.soft_packets, SOFT_SHORT_SEQUENCE);
            limits.hard_packets = at_most(limits.hard_packets, LAST_SHORT_SEQUENCE);
        }
        Self { limits }
    }

    /// Whether another packet may pass after this much.
    pub(crate) fn is_over(&self, packets: u64, bytes: u64, now: Instant) -> bool {
        let Limits { hard_packets, hard_bytes, hard_time, .. } = self.limits;
        reached(packets, hard_packets) || reached(bytes, hard_bytes) || hard_time.is_some_and(|at| now >= at)
    }

    /// The limit of volume that this much has reached.
    pub(crate) fn reached(&self, packets: u64, bytes: u64) -> Option<Limit> {
        let Limits { soft_packets, soft_bytes, hard_packets, hard_bytes, .. } = self.limits;
        if reached(packets, hard_packets) || reached(bytes, hard_bytes) {
            Some(Limit::Hard)
        } else if reached(packets, soft_packets) || reached(bytes, soft_bytes) {
            Some(Limit::Soft)
        } else {
            None
        }
    }
}

fn reached(used: u64, limit: Option<u64>) -> bool {
    limit.is_some_and(|limit| used >= limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gcm(esn: bool) -> ChildSuite {
        ChildSuite { encryption: Encryption::Aes128Gcm, integrity: None, esn }
    }

    #[test]
    fn triple_des_is_rekeyed_after_a_gibibyte_or_sooner() {
        let suite = ChildSuite { encryption: Encryption::TripleDesCbc, ..gcm(true) };
        let soft = |limit| Meter::new(Limits { soft_bytes: limit, ..Limits::default() }, suite);
        assert_eq!(soft(None).reached(0, (1 << 30) - 1), None);
        assert_eq!(soft(None).reached(0, 1 << 30), Some(Limit::Soft));
        assert_eq!(soft(Some(5)).reached(0, 5), Some(Limit::Soft));
        assert_eq!(Meter::new(Limits::default(), gcm(true)).reached(0, 1 << 40), None);
    }

    #[test]
    fn without_esn_the_sequence_numbers_are_a_limit_of_their_own() {
        let short = Meter::new(Limits::default(), gcm(false));
        assert_eq!(short.reached(3_435_973_835, 0), None);
        assert_eq!(short.reached(3_435_973_836, 0), Some(Limit::Soft));
        assert_eq!(short.reached(u64::from(u32::MAX), 0), Some(Limit::Hard));
        let long = Meter::new(Limits::default(), gcm(true));
        assert_eq!(long.reached(u64::MAX, u64::MAX), None);
    }

    #[test]
    fn a_hard_limit_of_time_holds_from_its_moment_on() {
        let meter = Meter::new(Limits { hard_time: Some(Instant::from_micros(5)), ..Limits::default() }, gcm(true));
        assert!(!meter.is_over(0, 0, Instant::from_micros(4)));
        assert!(meter.is_over(0, 0, Instant::from_micros(5)));
    }
}
