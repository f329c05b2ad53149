//! What became of numbered packets: how many were lost, and for how long traffic was interrupted. Pure.
//!
//! An interruption is the time from the sending of the first packet of a run of lost ones to the sending of the next
//! one that arrived: whoever would have sent in this time would have waited for it.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;

/// What became of the packets of one direction, all of its flows together.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Loss {
    /// Sent.
    pub sent: u32,
    /// Never arrived.
    pub lost: u32,
    /// Arrived more than once.
    pub duplicated: u32,
    /// Arrived after a later one of their flow.
    pub reordered: u32,
    /// The longest interruption of any flow, in milliseconds.
    pub interrupted_ms: f64,
    /// When it began, in seconds since the stream began; `None` where nothing was lost.
    pub since_s: Option<f64>,
    /// Whether it had not ended when the stream did.
    pub is_open: bool,
}

/// A flow as its two ends saw it.
#[derive(Clone, Debug, Default)]
pub(super) struct Flow {
    /// When the packet of each number was sent, since the stream began.
    pub(super) sent: Vec<Duration>,
    /// The numbers of the packets that arrived, in order of arrival.
    pub(super) arrived: Vec<u32>,
}

impl Loss {
    /// What became of the packets of these flows.
    pub(super) fn of(flows: &[Flow]) -> Self {
        let mut all = Self::default();
        for flow in flows {
            all.add(flow);
        }
        all
    }

    fn add(&mut self, flow: &Flow) {
        let mut arrived = BTreeSet::new();
        for number in flow.arrived.iter().copied().filter(|number| (*number as usize) < flow.sent.len()) {
            self.reordered += u32::from(arrived.last().is_some_and(|last| number < *last));
            self.duplicated += u32::from(!arrived.insert(number));
        }
        let mut began: Option<Duration> = None;
        for (number, at) in (0..).zip(flow.sent.iter().copied()) {
            self.sent += 1;
            if arrived.contains(&number) {
                if let Some(since) = began.take() {
                    self.note(since, at, false);
                }
            } else {
                self.lost += 1;
                began.get_or_insert(at);
            }
        }
        if let (Some(since), Some(last)) = (began, flow.sent.last()) {
            self.note(since, *last, true);
        }
    }

    fn note(&mut self, since: Duration, until: Duration, is_open: bool) {
        let ms = (until - since).as_secs_f64() * 1000.0;
        self.is_open |= is_open;
        if ms >= self.interrupted_ms {
            self.interrupted_ms = ms;
            self.since_s = Some(since.as_secs_f64());
        }
    }
}

/// `3 of 712 lost, interrupted for 31 ms`.
impl std::fmt::Display for Loss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} lost", self.lost, self.sent)?;
        if self.lost > 0 {
            write!(f, ", interrupted for {:.0} ms", self.interrupted_ms)?;
        }
        if self.is_open {
            f.write_str(" and until the end")?;
        }
        for (count, what) in [(self.duplicated, "doubled"), (self.reordered, "late")] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(arrived: &[u32]) -> Flow {
        Flow { sent: (0..10).map(|n| Duration::from_millis(10 * n)).collect(), arrived: arrived.to_vec() }
    }

    #[test]
    fn an_interruption_lasts_until_the_next_packet_that_arrived_was_sent() {
        let loss = Loss::of(&[flow(&[0, 1, 2, 6, 7, 8, 9])]);
        assert_eq!((loss.sent, loss.lost, loss.is_open), (10, 3, false));
        assert!((loss.interrupted_ms - 30.0).abs() < 1e-6, "{loss:?}");
        assert_eq!(loss.since_s, Some(0.03));
        assert_eq!(loss.to_string(), "3 of 10 lost, interrupted for 30 ms");
    }

    #[test]
    fn what_did_not_come_back_is_said_to_last() {
        let loss = Loss::of(&[flow(&[0, 1, 2, 3])]);
        assert!(loss.is_open);
        assert!((loss.interrupted_ms - 50.0).abs() < 1e-6, "{loss:?}");
        assert_eq!(loss.to_string(), "6 of 10 lost, interrupted for 50 ms and until the end");
    }

    #[test]
    fn late_and_doubled_packets_are_not_lost() {
        let loss = Loss::of(&[flow(&[0, 2, 1, 3, 3, 4, 5, 6, 7, 8, 9])]);
        assert_eq!((loss.lost, loss.reordered, loss.duplicated), (0, 1, 1));
        assert_eq!(loss.to_string(), "0 of 10 lost, 1 doubled, 1 late");
    }

    #[test]
    fn the_longest_interruption_of_any_flow_counts_and_the_lost_ones_add_up() {
        let loss = Loss::of(&[flow(&[0, 1, 2, 4, 5, 6, 7, 8, 9]), flow(&[0, 3, 4, 5, 6, 7, 8, 9])]);
        assert_eq!((loss.sent, loss.lost), (20, 3));
        assert!((loss.interrupted_ms - 20.0).abs() < 1e-6, "{loss:?}");
    }

    #[test]
    fn numbers_that_were_never_sent_count_for_nothing() {
        assert_eq!(Loss::of(&[flow(&[77, u32::MAX])]).lost, 10);
        assert_eq!(Loss::of(&[Flow::default()]), Loss::default());
    }
}
