//! The time, which a core crate is only ever given.

use std::time::{Duration, SystemTime};

use base::Instant;

/// Reads the monotonic clock as the time since it was made. It does not count while the machine is suspended.
#[derive(Clone, Copy, Debug)]
pub struct Clock(std::time::Instant);

impl Clock {
    /// A clock that shows [`Instant::ZERO`] now.
    #[expect(clippy::disallowed_methods, reason = "this is where the shells read the clock")]
    pub fn start() -> Self {
        Self(std::time::Instant::now())
    }

    /// A clock that goes on where that of another process of this machine is, which began at this moment of
    /// [`monotonic_us`].
    #[expect(clippy::disallowed_methods, reason = "this is where the shells read the clock")]
    pub fn began_at(began_us: u64) -> Self {
        let now = std::time::Instant::now();
        let since = Duration::from_micros(monotonic_us().saturating_sub(began_us));
        Self(now.checked_sub(since).unwrap_or(now))
    }

    /// When it began, as [`Self::began_at`] takes it.
    pub fn beginning_us(&self) -> u64 {
        let since = u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX);
        monotonic_us().saturating_sub(since)
    }

    /// The time now.
    pub fn now(&self) -> Instant {
        Instant::ZERO + self.0.elapsed()
    }

    /// How long from now until `at`; zero when it has passed.
    pub fn until(&self, at: Instant) -> Duration {
        at.saturating_since(self.now())
    }
}

/// Microseconds of `CLOCK_MONOTONIC`, which every process of this machine reads alike; 0 where the kernel has none.
pub fn monotonic_us() -> u64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Wall-clock time as the duration since 1970-01-01 00:00 UTC; zero when the machine believes it is earlier.
#[expect(clippy::disallowed_methods, reason = "this is where the shells read the clock")]
pub fn unix_time() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_starts_at_zero_and_never_goes_back() {
        let clock = Clock::start();
        let first = clock.now();
        assert!(first.since_start() < Duration::from_secs(60));
        assert!(clock.now() >= first);
        assert_eq!(clock.until(Instant::ZERO), Duration::ZERO);
        assert!(clock.until(first + Duration::from_secs(100)) > Duration::from_secs(30));
    }

    #[test]
    fn a_clock_goes_on_where_another_is() {
        let older = Clock::began_at(monotonic_us() - 5_000_000);
        assert!(older.now() >= Instant::ZERO + Duration::from_secs(5));
        let same = Clock::began_at(older.beginning_us());
        let apart = same.now().since_start().abs_diff(older.now().since_start());
        assert!(apart < Duration::from_secs(1), "{apart:?}");
    }

    #[test]
    fn the_monotonic_clock_of_the_machine_goes_on() {
        let first = monotonic_us();
        assert!(first > 0 && (first..first + 60_000_000).contains(&monotonic_us()));
    }

    #[test]
    fn the_wall_clock_is_past_2024() {
        assert!(unix_time() > Duration::from_secs(1_704_067_200));
    }
}
