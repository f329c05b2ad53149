//! The one place of the lab that reads a clock and sleeps. Every wait ends early on Ctrl-C.

use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::interrupt;

/// The time, for measuring how long steps take.
#[expect(clippy::disallowed_methods, reason = "the lab runs real programs in real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Seconds and microseconds since 1970, for the time stamps of captures.
#[expect(clippy::disallowed_methods, reason = "a capture file carries the time of day")]
pub(crate) fn since_epoch() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}

/// Sleeps a part of a second at a time, so that Ctrl-C is noticed.
#[expect(clippy::disallowed_methods, reason = "the lab waits for other processes, which it can only ask")]
pub(crate) fn sleep(time: Duration) -> Result<()> {
    let end = now() + time;
    loop {
        interrupt::check()?;
        let left = end.saturating_duration_since(now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
}

/// Sleeps without looking for Ctrl-C: for the clean-up, which must come to its end.
#[expect(clippy::disallowed_methods, reason = "the clean-up waits for processes to end")]
pub(crate) fn sleep_through(time: Duration) {
    std::thread::sleep(time);
}

/// Asks `done` until it says yes.
///
/// # Errors
///
/// [`Error::Late`] when it has not said yes after `limit`; its own error at once.
pub(crate) fn wait_for(what: &str, limit: Duration, mut done: impl FnMut() -> Result<bool>) -> Result<Duration> {
    let start = now();
    let mut pause = Duration::from_millis(10);
    loop {
        if done()? {
            return Ok(now() - start);
        }
        if now() - start >= limit {
            return Err(Error::Late { what: what.into(), seconds: limit.as_secs(), hint: String::new() });
        }
        sleep(pause)?;
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}
