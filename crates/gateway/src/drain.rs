//! Taking a tunnel out of use without losing a packet: its traffic is moved off, and when it is quiet it is stopped.

use std::time::Duration;

use base::Instant;

/// A tunnel is quiet after this long without more than its own upkeep.
const QUIET: Duration = Duration::from_secs(2);
/// A tunnel that is still busy after this long does not become quiet: something on the other end does not move.
const PATIENCE: Duration = Duration::from_secs(60);

/// What has passed through a tunnel, both directions together, in packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sample {
    packets: u64,
    at: Instant,
}

/// A tunnel that is being drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Drain {
    since: Instant,
    last: Option<Sample>,
    quiet_since: Option<Instant>,
    /// Whether the other end knows, and has said so.
    is_heard: bool,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Packets still pass.
    Busy,
    /// It can be stopped.
    Quiet,
    /// It does not become quiet.
    GivenUp {
        /// Packets a second.
        rate: u64,
        /// Whether the other end knows that it is drained.
        is_heard: bool,
    },
}

impl Drain {
    pub(crate) const fn new(now: Instant) -> Self {
        Self { since: now, last: None, quiet_since: None, is_heard: false }
    }

    /// The other end has answered that it knows, or that it does not understand.
    pub(crate) const fn note_heard(&mut self, is_understood: bool) {
        self.is_heard = is_understood;
    }

    /// Takes what has passed up to now. `upkeep` is what the tunnel's own machinery sends and gets, in packets a
    /// second: BFD, probes, BGP.
    pub(crate) fn note(&mut self, packets: u64, upkeep: f64, now: Instant) -> Progress {
        let sample = Sample { packets, at: now };
        let Some(last) = self.last.replace(sample) else { return Progress::Busy };
        let seconds = now.saturating_since(last.at).as_secs_f64();
        let passed = packets.saturating_sub(last.packets);
        let allowed = upkeep * seconds * 1.2 + 2.0;
        if passed as f64 > allowed {
            self.quiet_since = None;
        } else if now.saturating_since(*self.quiet_since.get_or_insert(last.at)) >= QUIET {
            return Progress::Quiet;
        }
        if now.saturating_since(self.since) >= PATIENCE {
            let rate = if seconds > 0.0 { passed as f64 / seconds } else { 0.0 };
            return Progress::GivenUp { rate: rate as u64, is_heard: self.is_heard };
        }
        Progress::Busy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said each second while so many packets pass in each.
    fn play(seconds: u64, rate: impl Fn(u64) -> u64, upkeep: f64) -> Vec<Progress> {
        let mut drain = Drain::new(Instant::ZERO);
        let mut packets = 1_000;
        (0..=seconds)
            .map(|second| {
                packets += rate(second);
                drain.note(packets, upkeep, Instant::ZERO + Duration::from_secs(second))
            })
            .collect()
    }

    #[test]
    fn a_tunnel_is_quiet_two_seconds_after_its_last_packet_but_for_its_own_upkeep() {
        let found = play(5, |second| if second < 3 { 500 } else { 20 }, 20.0);
        assert_eq!(found.iter().position(|p| *p == Progress::Quiet), Some(4));
        assert!(found[..4].iter().all(|p| *p == Progress::Busy));
    }

    #[test]
    fn a_tunnel_that_stays_busy_is_given_up_after_a_minute() {
        let found = play(60, |_| 500, 20.0);
        assert_eq!(found.last(), Some(&Progress::GivenUp { rate: 500, is_heard: false }));
        assert_eq!(found.iter().filter(|p| **p != Progress::Busy).count(), 1);
    }
}
