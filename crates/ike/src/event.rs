//! What comes out of the endpoint.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use model::{Identity, Version};
use sa::{ChildSuite, SaChange, SaId, Spi, TrafficSelector};
use serde::{Deserialize, Serialize};

use crate::{Failure, PeerId, Probed};

/// One thing to do or to tell, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Send this datagram.
    Transmit(Transmit),
    /// Change the SAs that carry packets. What follows must wait until it is done.
    Sa(SaChange),
    /// Tell whoever wants to know.
    Event(Event),
    /// A probe of the path came to its end.
    Probed(Probed),
}

/// A UDP datagram. Its payload is exact: where the ports are those of NAT traversal, it begins with the non-ESP
/// marker (RFC 3948 §2.2), or is a NAT keepalive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// From here.
    pub local: SocketAddr,
    /// To here.
    pub remote: SocketAddr,
    /// The UDP payload.
    pub payload: Vec<u8>,
    /// Whether it is a probe of the path: sent whole and with "don't fragment", whatever the path is believed to take, or
    /// not at all.
    pub is_probe: bool,
}

/// Something that a person or a higher machine may want to know.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A negotiation with this peer began.
    Connecting {
        /// The peer, where it is known already.
        peer: PeerId,
        /// Its version of IKE.
        version: Version,
        /// Its address.
        remote: SocketAddr,
    },
    /// An IKE SA is established and the peer has proved who it is.
    IkeUp {
        /// The peer.
        peer: PeerId,
        /// Its version of IKE.
        version: Version,
        /// Our identity.
        local_id: Identity,
        /// Its identity.
        remote_id: Identity,
        /// Our socket address and the peer's.
        path: (SocketAddr, SocketAddr),
        /// The suite, as people spell it.
        suite: Arc<str>,
        /// Whether it took the place of an older one.
        rekeyed: bool,
    },
    /// An IKE SA is gone.
    IkeDown {
        /// The peer.
        peer: PeerId,
        /// Why.
        reason: CloseReason,
    },
    /// A Child SA carries packets.
    ChildUp {
        /// The peer.
        peer: PeerId,
        /// The child's name in the configuration.
        child: Arc<str>,
        /// The SA.
        id: SaId,
        /// Our SPI and the peer's.
        spis: (Spi, Spi),
        /// Its algorithms.
        suite: ChildSuite,
        /// Our traffic and the peer's, as agreed.
        selectors: (Vec<TrafficSelector>, Vec<TrafficSelector>),
        /// The SA that it takes the place of.
        replaces: Option<SaId>,
    },
    /// A Child SA carries packets no more.
    ChildDown {
        /// The peer.
        peer: PeerId,
        /// The child's name in the configuration.
        child: Arc<str>,
        /// The SA.
        id: SaId,
        /// Why.
        reason: CloseReason,
    },
    /// The authenticated peer's address changed.
    PeerMoved {
        /// The peer.
        peer: PeerId,
        /// From.
        from: SocketAddr,
        /// To.
        to: SocketAddr,
    },
    /// The peer wants no more packets over a child than have to take it, or takes that back.
    PeerDrains {
        /// The peer.
        peer: PeerId,
        /// The child's name in the configuration.
        child: Arc<str>,
        /// Whether they shall take another way.
        is_drained: bool,
    },
    /// The peer has answered what [`crate::Endpoint::drain`] asked.
    DrainHeard {
        /// The peer.
        peer: PeerId,
        /// The child's name in the configuration.
        child: Arc<str>,
        /// What was asked.
        is_drained: bool,
        /// Whether it knows what that means.
        is_understood: bool,
    },
    /// A negotiation failed. With no peer, whoever it was fits no connection.
    Failed {
        /// The peer, where it is known.
        peer: Option<PeerId>,
        /// The other end's address.
        remote: SocketAddr,
        /// What went wrong, and what to change.
        failure: Box<Failure>,
    },
}

/// Why an SA ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CloseReason {
    /// A command of ours.
    Command,
    /// The connection was unloaded: changed, removed, or the gateway stops.
    Reconfigured,
    /// The peer deleted it.
    PeerDeleted,
    /// The peer does not answer.
    PeerDead,
    /// A newer one took its place.
    Replaced,
    /// Its lifetime ended before it was renewed.
    Expired,
    /// The negotiation failed.
    Failed,
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Command => "taken down by command",
            Self::Reconfigured => "its connection was unloaded",
            Self::PeerDeleted => "deleted by the peer",
            Self::PeerDead => "the peer does not answer",
            Self::Replaced => "replaced by a newer one",
            Self::Expired => "its lifetime ended",
            Self::Failed => "the negotiation failed",
        })
    }
}

/// What to rekey on command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rekey {
    /// The IKE SA: IKEv2 by CREATE_CHILD_SA, IKEv1 by a new phase 1.
    Ike,
    /// Every Child SA.
    Children,
}

/// Why a datagram was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DropReason {
    /// It does not decode.
    Malformed,
    /// Its version of IKE is neither 1 nor 2.
    UnknownVersion,
    /// It belongs to no IKE SA.
    UnknownSpi,
    /// Its integrity check failed, or it does not decrypt to a message.
    NotAuthentic,
    /// It is a request or a response that is not due.
    OutOfOrder,
    /// Too many half-open IKE SAs.
    HalfOpenLimit,
    /// It lacks the cookie that it was asked for, or the cookie is wrong.
    BadCookie,
    /// No connection fits its addresses.
    NoConnection,
    /// An exchange that is refused, such as aggressive mode.
    RefusedExchange,
    /// A fragment that fits no message, or too many of them.
    BadFragment,
}

impl DropReason {
    /// Every reason.
    pub const ALL: [Self; 10] = [
        Self::Malformed,
        Self::UnknownVersion,
        Self::UnknownSpi,
        Self::NotAuthentic,
        Self::OutOfOrder,
        Self::HalfOpenLimit,
        Self::BadCookie,
        Self::NoConnection,
        Self::RefusedExchange,
        Self::BadFragment,
    ];

    /// Its stable name in counters and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownVersion => "unknown_version",
            Self::UnknownSpi => "unknown_spi",
            Self::NotAuthentic => "not_authentic",
            Self::OutOfOrder => "out_of_order",
            Self::HalfOpenLimit => "half_open_limit",
            Self::BadCookie => "bad_cookie",
            Self::NoConnection => "no_connection",
            Self::RefusedExchange => "refused_exchange",
            Self::BadFragment => "bad_fragment",
        }
    }
}

/// What the endpoint has counted since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams that came in.
    pub received: u64,
    /// Datagrams that went out.
    pub sent: u64,
    /// Requests and phase 1 messages that were sent again unasked.
    pub retransmitted: u64,
    /// Requests of the peer that came again and were answered with the same bytes.
    pub answered_again: u64,
    /// IKE SAs established.
    pub established: u64,
    /// Negotiations that failed.
    pub failed: u64,
    /// IKE SAs rekeyed.
    pub ike_rekeys: u64,
    /// Child SAs rekeyed.
    pub child_rekeys: u64,
    /// Cookies asked for.
    pub cookies_sent: u64,
    dropped: [u64; DropReason::ALL.len()],
}

impl Counters {
    /// Counts a datagram that was dropped.
    pub(crate) fn drop(&mut self, reason: DropReason) {
        self.dropped[reason as usize] += 1;
    }

    /// All of it by name, for another process.
    pub(crate) fn by_name(&self) -> BTreeMap<String, u64> {
        let plain = self.plain().map(|(name, count)| (name.to_owned(), count));
        let dropped = DropReason::ALL.into_iter().map(|reason| (reason.name().to_owned(), self.dropped(reason)));
        plain.into_iter().chain(dropped).collect()
    }

    /// Goes on where another process stopped. What has no such name here is left out.
    pub(crate) fn add_by_name(&mut self, counts: &BTreeMap<String, u64>) {
        let of = |name: &str| counts.get(name).copied().unwrap_or_default();
        self.received += of("received");
        self.sent += of("sent");
        self.retransmitted += of("retransmitted");
        self.answered_again += of("answered_again");
        self.established += of("established");
        self.failed += of("failed");
        self.ike_rekeys += of("ike_rekeys");
        self.child_rekeys += of("child_rekeys");
        self.cookies_sent += of("cookies_sent");
        DropReason::ALL.into_iter().for_each(|reason| self.dropped[reason as usize] += of(reason.name()));
    }

    const fn plain(&self) -> [(&'static str, u64); 9] {
        [
            ("received", self.received),
            ("sent", self.sent),
            ("retransmitted", self.retransmitted),
            ("answered_again", self.answered_again),
            ("established", self.established),
            ("failed", self.failed),
            ("ike_rekeys", self.ike_rekeys),
            ("child_rekeys", self.child_rekeys),
            ("cookies_sent", self.cookies_sent),
        ]
    }

    /// Datagrams that were dropped for `reason`.
    pub const fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize]
    }
}

/// What was counted of one peer, beside its events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerCounters {
    /// Until its IKE SA is established.
    pub phase1: Trouble,
    /// From then on: Child SAs, liveness checks, rekeying.
    pub phase2: Trouble,
}

/// Messages that did not go through at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trouble {
    /// Messages of ours that were sent again unasked.
    pub resent: u64,
    /// Messages of the peer that came again and were answered with the same bytes.
    pub answered_again: u64,
    /// Messages whose hash or integrity check failed, or that do not decrypt to a message.
    pub not_authentic: u64,
}

impl Trouble {
    /// What `counters` say of the whole endpoint.
    pub(crate) const fn of(counters: &Counters) -> Self {
        Self {
            resent: counters.retransmitted,
            answered_again: counters.answered_again,
            not_authentic: counters.dropped(DropReason::NotAuthentic),
        }
    }

    /// Adds what came between two looks at the same counters.
    pub(crate) fn add(&mut self, before: Self, after: Self) {
        self.resent += after.resent - before.resent;
        self.answered_again += after.answered_again - before.answered_again;
        self.not_authentic += after.not_authentic - before.not_authentic;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_drop_reason_has_its_own_count() {
        let mut counters = Counters::default();
        for (times, reason) in DropReason::ALL.into_iter().enumerate() {
            (0..times).for_each(|_| counters.drop(reason));
        }
        for (times, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(counters.dropped(reason), times as u64, "{}", reason.name());
        }
    }
}
