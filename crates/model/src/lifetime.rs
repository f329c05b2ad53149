//! How long keys live.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Lifetime of an IKE SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IkeLifetime {
    /// It is gone after this.
    pub time: Duration,
    /// It is rekeyed this long before (less than `time`).
    pub margin: Duration,
    /// Up to this per cent of `margin` is added at random, so that two ends do not rekey at once; at most 100.
    pub fuzz_percent: u8,
}

impl Default for IkeLifetime {
    /// 8 hours, rekeyed 9 minutes before: what AWS and most vendors use.
    fn default() -> Self {
        Self { time: Duration::from_secs(28_800), margin: Duration::from_secs(540), fuzz_percent: 100 }
    }
}

/// Lifetime of a Child SA, by whichever limit comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifetime {
    /// It is gone after this.
    pub time: Duration,
    /// It is rekeyed this long before (less than `time`).
    pub margin: Duration,
    /// Up to this per cent of `margin` is added at random, so that two ends do not rekey at once; at most 100.
    pub fuzz_percent: u8,
    /// Hard limit in bytes of inner packets.
    pub bytes: Option<u64>,
    /// Hard limit in packets.
    pub packets: Option<u64>,
}

impl Default for Lifetime {
    /// 1 hour, rekeyed 9 minutes before, no limit of volume.
    fn default() -> Self {
        Self {
            time: Duration::from_secs(3_600),
            margin: Duration::from_secs(540),
            fuzz_percent: 100,
            bytes: None,
            packets: None,
        }
    }
}

impl Lifetime {
    /// Share of a volume limit, in per cent, at which the SA is rekeyed.
    pub const SOFT_PERCENT: u64 = 80;

    /// The volume at which rekeying starts.
    pub const fn soft(limit: u64) -> u64 {
        limit / 100 * Self::SOFT_PERCENT + limit % 100 * Self::SOFT_PERCENT / 100
    }
}

/// When to rekey: `time` less the margin, less a part of the margin that `dice` (0..=u32::MAX) chooses; never
/// before half of `time`.
fn rekey_after(time: Duration, margin: Duration, fuzz_percent: u8, dice: u32) -> Duration {
    let fuzz = margin.mul_f64(f64::from(fuzz_percent.min(100)) / 100.0 * f64::from(dice) / f64::from(u32::MAX));
    time.saturating_sub(margin + fuzz).max(time / 2)
}

impl IkeLifetime {
    /// The time after which to rekey; `dice` is any random number.
    pub fn rekey_after(&self, dice: u32) -> Duration {
        rekey_after(self.time, self.margin, self.fuzz_percent, dice)
    }
}

impl Lifetime {
    /// The time after which to rekey; `dice` is any random number.
    pub fn rekey_after(&self, dice: u32) -> Duration {
        rekey_after(self.time, self.margin, self.fuzz_percent, dice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rekeying_starts_within_the_margin_and_its_fuzz() {
        let hour = Lifetime::default();
        assert_eq!(hour.rekey_after(0), Duration::from_secs(3_060));
        assert_eq!(hour.rekey_after(u32::MAX), Duration::from_secs(2_520));
    }

    #[test]
    fn a_margin_longer_than_the_lifetime_does_not_rekey_at_once() {
        let short = Lifetime { time: Duration::from_secs(10), ..Lifetime::default() };
        assert_eq!(short.rekey_after(0), Duration::from_secs(5));
    }

    #[test]
    fn the_soft_limit_of_a_huge_volume_does_not_overflow() {
        assert_eq!(Lifetime::soft(1_000), 800);
        assert!(Lifetime::soft(u64::MAX) < u64::MAX);
    }
}
