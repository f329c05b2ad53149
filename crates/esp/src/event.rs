//! What the data path tells the control side.

use std::collections::VecDeque;
use std::net::SocketAddr;

use packet::FlowKey;
use sa::{ChildLabel, SaId};

/// Something the control side acts on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The first authentic packet arrived on this SA: the peer uses it.
    FirstInbound(SaId),
    /// A soft limit of volume is reached, in either direction: time to rekey. Once per direction.
    SoftLimit(SaId),
    /// A hard limit of volume is reached: the SA passes no more packets in that direction. Once per direction.
    HardLimit(SaId),
    /// The newest authentic packet of a UDP-encapsulated peer came from elsewhere (RFC 7296 §2.23). The
    /// path is not changed before the control side says so.
    PeerMoved {
        /// The SA it arrived on.
        id: SaId,
        /// Where it came from.
        from: SocketAddr,
    },
    /// A packet waits for a policy that has no SA (it was dropped). At most once a second per policy.
    NoSa {
        /// The policy.
        label: ChildLabel,
        /// The packet that asked.
        flow: FlowKey,
    },
}

/// Events that nobody has fetched yet; at most [`Events::LIMIT`].
#[derive(Debug, Default)]
pub(crate) struct Events(VecDeque<Event>);

impl Events {
    /// Beyond this many, events that come again by themselves are not kept.
    const LIMIT: usize = 4096;

    pub(crate) fn push(&mut self, event: Event) {
        // The others are bounded by the number of SAs.
        let comes_again = matches!(event, Event::PeerMoved { .. } | Event::NoSa { .. });
        if !comes_again || self.0.len() < Self::LIMIT {
            self.0.push_back(event);
        }
    }

    pub(crate) fn pop(&mut self) -> Option<Event> {
        self.0.pop_front()
    }
}
