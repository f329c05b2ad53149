//! How eagerly the worker wakes. Plain ESP passes packet by packet, each of which wakes whoever is to have it: under load
//! they take the processor away from each other for a handful of packets at a time. So while there are many the worker
//! waits its turn (`SCHED_BATCH`), which no timer decides; and it is as eager as any as soon as there are few.

use std::time::Duration;

use base::Instant;

/// How often the rate is looked at.
const EVERY: Duration = Duration::from_millis(20);
/// Packets in that time from which on there are many: 50,000 a second.
const MANY: usize = 1_000;

/// The rate of plain ESP.
#[derive(Debug, Default)]
pub(super) struct Pace {
    since: Instant,
    count: usize,
    is_patient: bool,
}

impl Pace {
    /// So many packets came, or left.
    pub(super) const fn count(&mut self, count: usize) {
        self.count += count;
    }

    /// Whether to be patient from now on, when that changes.
    pub(super) fn turn(&mut self, now: Instant) -> Option<bool> {
        let passed = now.saturating_since(self.since);
        if passed < EVERY {
            return None;
        }
        // A pause counts as part of the time, so whoever sends again after one finds an eager worker.
        let is_patient = passed < EVERY * 2 && self.count >= MANY;
        (self.since, self.count) = (now, 0);
        (std::mem::replace(&mut self.is_patient, is_patient) != is_patient).then_some(is_patient)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What changes, and at which millisecond, when each brings so many packets.
    fn changes(counts: impl IntoIterator<Item = (u64, usize)>) -> Vec<(u64, bool)> {
        let mut pace = Pace::default();
        let at = |ms: u64| Instant::ZERO + Duration::from_millis(ms);
        let turn = |(ms, count)| {
            pace.count(count);
            Some((ms, pace.turn(at(ms))?))
        };
        counts.into_iter().filter_map(turn).collect()
    }

    #[test]
    fn it_is_patient_while_many_come_and_eager_after_a_pause() {
        let busy = (1..100).map(|ms| (ms, 60));
        assert_eq!(changes(busy.clone()), [(20, true)]);
        assert_eq!(changes(busy.clone().chain([(150, 1)])), [(20, true), (150, false)]);
        assert_eq!(changes(busy.chain((100..200).map(|ms| (ms, 1)))), [(20, true), (120, false)]);
        assert_eq!(changes((1..1000).map(|ms| (ms, 40))), [], "40,000 a second");
        assert_eq!(changes([(500, 5000), (1000, 5000)]), [], "bursts");
    }
}
