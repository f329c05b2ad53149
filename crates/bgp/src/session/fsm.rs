//! The state machine of RFC 4271 §8.2.2, as one table: what an event means in a state.
//!
//! A neighbour has one of the states Idle, Connect and Active while it has no connection; each of its connections has
//! one of the other three. So an event of a connection never meets the first three, and is ignored there: it belongs to
//! a connection that is gone.
//!
//! ```text
//!  Idle -- start --> Connect -- connected, accepted --> OpenSent -- OPEN --> OpenConfirm -- KEEPALIVE --> Established
//!   ^                 |   ^                                |                     |                             |
//!   |          failed v   | retry                          |                     |                             |
//!   |                Active <----------- closed -----------'                     |                             |
//!   '---------------------------- errors, NOTIFICATION, stop -------------------'-----------------------------'
//! ```
//!
//! Left out: DelayOpen (the OPEN is sent at once) and the events of §8.1 that configure other behaviours.

use crate::wire::MessageKind;

/// A state of RFC 4271 §8.2.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Nothing is tried, and what connects is refused.
    Idle,
    /// A TCP connection is being made.
    Connect,
    /// It is waited for: for the neighbour, and for the next attempt.
    Active,
    /// OPEN was sent.
    OpenSent,
    /// OPEN was received and is good; its KEEPALIVE is missing.
    OpenConfirm,
    /// Routes are exchanged.
    Established,
}

impl State {
    /// Every state, in order.
    pub const ALL: [Self; 6] =
        [Self::Idle, Self::Connect, Self::Active, Self::OpenSent, Self::OpenConfirm, Self::Established];

    /// Its name in the RFC.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "Idle",
            Self::Connect => "Connect",
            Self::Active => "Active",
            Self::OpenSent => "OpenSent",
            Self::OpenConfirm => "OpenConfirm",
            Self::Established => "Established",
        }
    }
}

/// What happens (RFC 4271 §8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// It may begin: by command, or because a time of rest is over (events 1, 3 to 7, 13).
    Start,
    /// It must not go on (events 2, 8).
    Stop,
    /// ConnectRetryTimer has run out (event 9).
    RetryDue,
    /// HoldTimer has run out (event 10).
    HoldExpired,
    /// KeepaliveTimer has run out (event 11).
    KeepaliveDue,
    /// Our attempt to connect succeeded (event 16).
    Connected,
    /// The neighbour connected (event 17).
    Accepted,
    /// Our attempt to connect failed, or a connection is gone (event 18).
    Closed,
    /// A message arrived (events 19, 24 to 27; RFC 2918).
    Message(MessageKind),
    /// Something arrived that is no good message (events 21, 22, 28).
    Malformed,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Nothing.
    Ignore,
    /// Connect, or wait for the neighbour if that is the configuration.
    Dial,
    /// Give the attempt up and connect anew.
    Redial,
    /// Wait until the next attempt, and for the neighbour.
    Wait,
    /// Turn the connection away.
    Refuse,
    /// Send OPEN.
    SendOpen,
    /// See whether the OPEN is good and which of two connections lives on; if all is well, send KEEPALIVE.
    CheckOpen,
    /// The session is established.
    Establish,
    /// The neighbour is alive.
    Hear,
    /// The neighbour is alive, and said something.
    Take,
    /// Send KEEPALIVE.
    SendKeepalive,
    /// End it: Cease.
    Cease,
    /// End it: Hold Timer Expired.
    ExpireHold,
    /// End it: Finite State Machine Error with this subcode (RFC 6608).
    Unexpected(u8),
    /// End it with what the malformed message deserves.
    Answer,
    /// End it without a word.
    Drop,
}

/// What `event` means in `state`.
pub(crate) const fn react(state: State, event: Event) -> Action {
    match state {
        State::Idle => match event {
            Event::Start => Action::Dial,
            Event::Connected | Event::Accepted => Action::Refuse,
            Event::Stop
            | Event::RetryDue
            | Event::HoldExpired
            | Event::KeepaliveDue
            | Event::Closed
            | Event::Message(_)
            | Event::Malformed => Action::Ignore,
        },
        State::Connect => match event {
            Event::Stop => Action::Cease,
            Event::RetryDue => Action::Redial,
            Event::Connected | Event::Accepted => Action::SendOpen,
            Event::Closed => Action::Wait,
            Event::Start | Event::HoldExpired | Event::KeepaliveDue | Event::Message(_) | Event::Malformed => {
                Action::Ignore
            }
        },
        State::Active => match event {
            Event::Stop => Action::Cease,
            Event::RetryDue => Action::Dial,
            Event::Accepted => Action::SendOpen,
            // The attempt it answers was given up.
            Event::Connected => Action::Refuse,
            Event::Start
            | Event::Closed
            | Event::HoldExpired
            | Event::KeepaliveDue
            | Event::Message(_)
            | Event::Malformed => Action::Ignore,
        },
        State::OpenSent => match event {
            Event::Stop => Action::Cease,
            Event::HoldExpired => Action::ExpireHold,
            // The second connection of RFC 4271 §6.8.
            Event::Connected | Event::Accepted => Action::SendOpen,
            Event::Closed => Action::Wait,
            Event::Message(MessageKind::Open) => Action::CheckOpen,
            Event::Message(MessageKind::Notification) => Action::Drop,
            Event::Message(MessageKind::Keepalive | MessageKind::Update | MessageKind::RouteRefresh) => {
                Action::Unexpected(1)
            }
            Event::Malformed => Action::Answer,
            Event::Start | Event::RetryDue | Event::KeepaliveDue => Action::Ignore,
        },
        State::OpenConfirm => match event {
            Event::Stop => Action::Cease,
            Event::HoldExpired => Action::ExpireHold,
            Event::KeepaliveDue => Action::SendKeepalive,
            Event::Connected | Event::Accepted => Action::SendOpen,
            Event::Closed | Event::Message(MessageKind::Notification) => Action::Drop,
            Event::Message(MessageKind::Keepalive) => Action::Establish,
            Event::Message(MessageKind::Open | MessageKind::Update | MessageKind::RouteRefresh) => {
                Action::Unexpected(2)
            }
            Event::Malformed => Action::Answer,
            Event::Start | Event::RetryDue => Action::Ignore,
        },
        State::Established => match event {
            Event::Stop => Action::Cease,
            Event::HoldExpired => Action::ExpireHold,
            Event::KeepaliveDue => Action::SendKeepalive,
            // RFC 4724 §5: it may be that the neighbour has restarted; its OPEN will tell.
            Event::Accepted => Action::SendOpen,
            Event::Connected => Action::Refuse,
            Event::Closed | Event::Message(MessageKind::Notification) => Action::Drop,
            Event::Message(MessageKind::Keepalive) => Action::Hear,
            Event::Message(MessageKind::Update | MessageKind::RouteRefresh) => Action::Take,
            Event::Message(MessageKind::Open) => Action::Unexpected(3),
            Event::Malformed => Action::Answer,
            Event::Start | Event::RetryDue => Action::Ignore,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [Event; 14] = [
        Event::Start,
        Event::Stop,
        Event::RetryDue,
        Event::HoldExpired,
        Event::KeepaliveDue,
        Event::Connected,
        Event::Accepted,
        Event::Closed,
        Event::Message(MessageKind::Open),
        Event::Message(MessageKind::Update),
        Event::Message(MessageKind::Notification),
        Event::Message(MessageKind::Keepalive),
        Event::Message(MessageKind::RouteRefresh),
        Event::Malformed,
    ];

    /// RFC 4271 §8.2.2, RFC 6608 §3, RFC 4724 §5: events in the order above, in each state.
    const TABLE: &str = "
        Idle         Dial   -     -      -          -             Refuse   Refuse   -     -            -            -    -            -            -
        Connect      -      Cease Redial -          -             SendOpen SendOpen Wait  -            -            -    -            -            -
        Active       -      Cease Dial   -          -             Refuse   SendOpen -     -            -            -    -            -            -
        OpenSent     -      Cease -      ExpireHold -             SendOpen SendOpen Wait  CheckOpen    5/1          Drop 5/1          5/1          Answer
        OpenConfirm  -      Cease -      ExpireHold SendKeepalive SendOpen SendOpen Drop  5/2          5/2          Drop Establish    5/2          Answer
        Established  -      Cease -      ExpireHold SendKeepalive Refuse   SendOpen Drop  5/3          Take         Drop Hear         Take         Answer
    ";

    #[test]
    fn every_event_means_in_every_state_what_the_rfc_says() {
        let rows: Vec<Vec<&str>> = TABLE.trim().lines().map(|row| row.split_whitespace().collect()).collect();
        assert_eq!(rows.len(), State::ALL.len());
        for (state, row) in State::ALL.into_iter().zip(rows) {
            assert_eq!((row[0], row.len()), (state.name(), 1 + EVENTS.len()));
            for (event, expected) in EVENTS.into_iter().zip(&row[1..]) {
                let action = match format!("{:?}", react(state, event)).as_str() {
                    "Ignore" => "-".to_owned(),
                    action => action.replace("Unexpected(", "5/").replace(')', ""),
                };
                assert_eq!(action, *expected, "{event:?} in {}", state.name());
            }
        }
    }
}
