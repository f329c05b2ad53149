//! The seam: what all pure machines have in common. Inputs differ and are inherent methods; only
//! what comes out is alike.

use crate::Instant;

/// When a machine wants to be woken, and why: a loop that spins names its culprit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline {
    /// The moment from which `handle_timeout` has something to do.
    pub at: Instant,
    /// What is waited for, in a few words.
    pub why: &'static str,
}

impl Deadline {
    /// The earlier of two deadlines, either of which may be absent.
    pub fn earliest(a: Option<Self>, b: Option<Self>) -> Option<Self> {
        match (a, b) {
            (Some(a), Some(b)) => Some(if b.at < a.at { b } else { a }),
            (one, other) => one.or(other),
        }
    }
}

/// A pure state machine: bytes and a time go in, bytes and changes come out.
///
/// The laws, tested for every machine by `sim::laws`: waking early does nothing; waking late makes
/// progress; the order of outputs is kept; the same inputs give the same outputs.
pub trait Machine {
    /// What the machine wants done, in the order in which it must be done.
    type Output;

    /// Does whatever is due at `now`. Calling it early is harmless.
    fn handle_timeout(&mut self, now: Instant);

    /// The next moment at which `handle_timeout` has something to do.
    fn poll_timeout(&self) -> Option<Deadline>;

    /// The next output. Callers drain it after every input, until `None`.
    fn poll_output(&mut self) -> Option<Self::Output>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_deadline_wins_and_none_never_does() {
        let early = Deadline { at: Instant::from_micros(1), why: "early" };
        let late = Deadline { at: Instant::from_micros(2), why: "late" };
        assert_eq!(Deadline::earliest(Some(late), Some(early)), Some(early));
        assert_eq!(Deadline::earliest(None, Some(late)), Some(late));
        assert_eq!(Deadline::earliest(None, None), None);
    }
}
