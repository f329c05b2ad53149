//! How long a tunnel must be good before it is believed again: a path that comes and goes is not followed each time.

use std::time::Duration;

use base::Instant;

use super::config::HealthConfig;

/// The penalty of one tunnel. Each fall doubles the hold time up to a bound, and each calm time halves it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hysteresis {
    /// Falls that still count.
    level: u32,
    /// When `level` last changed, by a fall or by calm.
    since: Instant,
}

impl Hysteresis {
    /// It fell.
    pub fn note_fall(&mut self, config: &HealthConfig, now: Instant) {
        // Beyond the bound the level stays, or a path that flapped all night would be doubted all day.
        let highest = (1..64).find(|level| Self::hold_of(*level, config) >= config.longest_rise).unwrap_or(64);
        self.level = (self.level_at(config, now) + 1).min(highest);
        self.since = now;
    }

    /// What was is forgotten: somebody took the tunnel down on purpose.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// How long it must be good: zero for one that has not fallen, `rise` at least for one that has.
    pub fn hold(&self, config: &HealthConfig, now: Instant) -> Duration {
        match self.level {
            0 => Duration::ZERO,
            _ => Self::hold_of(self.level_at(config, now), config),
        }
    }

    fn level_at(&self, config: &HealthConfig, now: Instant) -> u32 {
        let calms = (now - self.since).as_micros() / config.calm.as_micros().max(1);
        self.level.saturating_sub(u32::try_from(calms).unwrap_or(u32::MAX))
    }

    /// The rise time for the first level, and below it for one whose falls have been forgiven.
    fn hold_of(level: u32, config: &HealthConfig) -> Duration {
        let factor = 1u32.checked_shl(level.saturating_sub(1)).unwrap_or(u32::MAX);
        config.rise.saturating_mul(factor).min(config.longest_rise)
    }
}
