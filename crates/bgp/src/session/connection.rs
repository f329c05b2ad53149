//! A TCP connection with a neighbour, from its OPEN on.

use std::net::SocketAddr;
use std::time::Duration;

use base::{Deadline, Instant};

use super::{Agreement, State, keepalive};
use crate::ConnectionId;
use crate::wire::Open;

/// Who made a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// We did.
    Outgoing,
    /// The neighbour did.
    Incoming,
}

/// How long the neighbour's OPEN may take (RFC 4271 §8.2.2: "a large value").
const OPEN_HOLD: Duration = Duration::from_secs(240);

/// Octets that may be sent before the shell said how much room there is.
const FIRST_ROOM: usize = 64 * 1024;

/// How far a connection is.
#[derive(Debug)]
pub(crate) enum Phase {
    /// This OPEN was sent.
    OpenSent(Box<Open>),
    /// The neighbour's OPEN was good.
    OpenConfirm(Box<Agreement>),
    /// Its KEEPALIVE came.
    Established(Box<Agreement>),
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: ConnectionId,
    pub(crate) direction: Direction,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) phase: Phase,
    /// The beginning of a message that is not complete yet.
    pub(crate) buffer: Vec<u8>,
    /// Octets that the shell takes.
    pub(crate) room: usize,
    /// Since when there is no room.
    pub(crate) blocked_since: Option<Instant>,
    pub(crate) hold_due: Option<Instant>,
    pub(crate) keepalive_due: Option<Instant>,
}

impl Connection {
    pub(crate) fn new(
        id: ConnectionId,
        direction: Direction,
        local: SocketAddr,
        remote: SocketAddr,
        open: Open,
        now: Instant,
    ) -> Self {
        Self {
            id,
            direction,
            local,
            remote,
            phase: Phase::OpenSent(Box::new(open)),
            buffer: Vec::new(),
            room: FIRST_ROOM,
            blocked_since: None,
            hold_due: Some(now + OPEN_HOLD),
            keepalive_due: None,
        }
    }

    pub(crate) const fn state(&self) -> State {
        match self.phase {
            Phase::OpenSent(_) => State::OpenSent,
            Phase::OpenConfirm(_) => State::OpenConfirm,
            Phase::Established(_) => State::Established,
        }
    }

    /// What both agreed upon, once the neighbour's OPEN was good.
    pub(crate) const fn agreement(&self) -> Option<&Agreement> {
        match &self.phase {
            Phase::OpenSent(_) => None,
            Phase::OpenConfirm(agreement) | Phase::Established(agreement) => Some(agreement),
        }
    }

    /// The same while it is established.
    pub(crate) const fn established(&self) -> Option<&Agreement> {
        match &self.phase {
            Phase::OpenSent(_) | Phase::OpenConfirm(_) => None,
            Phase::Established(agreement) => Some(agreement),
        }
    }

    /// Another time between two KEEPALIVE messages is configured.
    pub(crate) fn retime(&mut self, configured: Duration) {
        match &mut self.phase {
            Phase::OpenSent(_) => {}
            Phase::OpenConfirm(agreement) | Phase::Established(agreement) => {
                agreement.keepalive = keepalive(agreement.hold_time, configured);
            }
        }
    }

    /// The neighbour was heard.
    pub(crate) fn hear(&mut self, now: Instant) {
        let hold = self.agreement().map(|agreement| agreement.hold_time).filter(|hold| !hold.is_zero());
        self.hold_due = hold.map(|hold| now + hold);
    }

    /// When what waits for room is given up: twice the Hold Time, and at least eight minutes (RFC 9687 §6).
    pub(crate) fn send_hold_due(&self) -> Option<Instant> {
        let hold = self.established()?.hold_time;
        self.blocked_since.map(|since| since + (hold * 2).max(Duration::from_secs(480)))
    }

    /// What it waits for.
    pub(crate) fn deadline(&self) -> Option<Deadline> {
        let due = |at: Option<Instant>, why| at.map(|at| Deadline { at, why });
        let hold = due(self.hold_due, if self.agreement().is_some() { "hold time" } else { "the neighbour's OPEN" });
        let first = Deadline::earliest(due(self.keepalive_due, "keepalive"), hold);
        Deadline::earliest(first, due(self.send_hold_due(), "send hold time"))
    }
}
