//! Which of two connections with one neighbour lives on (RFC 4271 §6.8, RFC 6286 §2.3, RFC 4724 §5).

use std::net::Ipv4Addr;

use super::{Direction, State};
use crate::Asn;

/// The other connection, at the moment when a good OPEN arrived on one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rival {
    /// Who made it.
    pub(crate) direction: Direction,
    /// How far it is.
    pub(crate) state: State,
    /// Whether the neighbour said on it that it may restart gracefully.
    pub(crate) is_graceful: bool,
}

/// Who goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Both stay; it is decided when an OPEN arrives on the other.
    Both,
    /// The one on which the OPEN arrived goes: Cease, Connection Collision Resolution.
    ThisGoes,
    /// The other one goes: Cease, Connection Collision Resolution.
    OtherGoes,
    /// The other one is left over from before the neighbour's restart, and goes without a word.
    OtherIsStale,
}

/// Decides, with each side's BGP Identifier and AS: `ours`, and `theirs` as the OPEN has them.
pub(crate) fn resolve(ours: (Ipv4Addr, Asn), theirs: (Ipv4Addr, Asn), this: Direction, other: Rival) -> Verdict {
    match other.state {
        // Without an OPEN it is not known who is on the other end, and whether anybody is.
        State::Idle | State::Connect | State::Active | State::OpenSent => Verdict::Both,
        State::Established if other.is_graceful => Verdict::OtherIsStale,
        State::Established => Verdict::ThisGoes,
        State::OpenConfirm if this == other.direction => Verdict::OtherGoes,
        State::OpenConfirm => {
            // RFC 6286 §2.3: equal identifiers leave it to the AS numbers.
            let winner = if ours > theirs { Direction::Outgoing } else { Direction::Incoming };
            if this == winner { Verdict::OtherGoes } else { Verdict::ThisGoes }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HIGH: (Ipv4Addr, Asn) = (Ipv4Addr::new(10, 0, 0, 2), 65000);
    const LOW: (Ipv4Addr, Asn) = (Ipv4Addr::new(10, 0, 0, 1), 65001);

    fn rival(direction: Direction, state: State) -> Rival {
        Rival { direction, state, is_graceful: false }
    }

    #[test]
    fn both_sides_keep_the_connection_that_the_higher_identifier_made() {
        use Direction::{Incoming, Outgoing};
        // The same two connections seen from both ends, whichever OPEN comes last.
        for (this, other) in [(Outgoing, Incoming), (Incoming, Outgoing)] {
            let (here, there) = (rival(other, State::OpenConfirm), rival(this, State::OpenConfirm));
            let seen_by_high = resolve(HIGH, LOW, this, here);
            let seen_by_low = resolve(LOW, HIGH, other, there);
            assert_eq!(seen_by_high, seen_by_low, "{this:?}");
            assert_eq!(seen_by_high == Verdict::OtherGoes, this == Outgoing);
        }
    }

    #[test]
    fn with_equal_identifiers_the_higher_as_decides() {
        let (big, small) = ((HIGH.0, 65001), (HIGH.0, 65000));
        let other = rival(Direction::Incoming, State::OpenConfirm);
        assert_eq!(resolve(big, small, Direction::Outgoing, other), Verdict::OtherGoes);
        assert_eq!(resolve(small, big, Direction::Outgoing, other), Verdict::ThisGoes);
    }

    #[test]
    fn what_is_established_stays_unless_the_neighbour_restarts_gracefully() {
        for direction in [Direction::Incoming, Direction::Outgoing] {
            let other = rival(direction, State::Established);
            assert_eq!(resolve(LOW, HIGH, Direction::Incoming, other), Verdict::ThisGoes);
            let graceful = Rival { is_graceful: true, ..other };
            assert_eq!(resolve(LOW, HIGH, Direction::Incoming, graceful), Verdict::OtherIsStale);
        }
    }

    #[test]
    fn before_the_other_open_nothing_is_decided_and_of_one_direction_the_newer_stays() {
        for state in [State::Idle, State::Connect, State::Active, State::OpenSent] {
            let other = rival(Direction::Outgoing, state);
            assert_eq!(resolve(LOW, HIGH, Direction::Incoming, other), Verdict::Both);
        }
        let other = rival(Direction::Incoming, State::OpenConfirm);
        assert_eq!(resolve(HIGH, LOW, Direction::Incoming, other), Verdict::OtherGoes);
    }
}
