//! What can be seen of a neighbour.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use base::Instant;

use super::NeighborId;
use crate::Asn;
use crate::rib::PrefixCounts;
use crate::session::{Agreement, State};
use crate::wire::MessageKind;

/// Messages by their kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageCounts {
    /// OPEN.
    pub open: u64,
    /// UPDATE.
    pub update: u64,
    /// NOTIFICATION.
    pub notification: u64,
    /// KEEPALIVE.
    pub keepalive: u64,
    /// ROUTE-REFRESH.
    pub route_refresh: u64,
}

impl MessageCounts {
    /// All of them.
    pub const fn total(&self) -> u64 {
        self.open + self.update + self.notification + self.keepalive + self.route_refresh
    }

    pub(super) const fn count(&mut self, kind: MessageKind, more: u64) {
        let counter = match kind {
            MessageKind::Open => &mut self.open,
            MessageKind::Update => &mut self.update,
            MessageKind::Notification => &mut self.notification,
            MessageKind::Keepalive => &mut self.keepalive,
            MessageKind::RouteRefresh => &mut self.route_refresh,
        };
        *counter += more;
    }
}

/// The last time that something went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastError {
    /// When.
    pub at: Instant,
    /// What, in words.
    pub sentence: String,
}

/// What is kept of a neighbour that restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartStatus {
    /// It is gone, and its routes are kept until then (RFC 4724).
    Away {
        /// Until then.
        until: Instant,
    },
    /// It is still gone, and its routes are used where there is nothing else (RFC 9494).
    LongLived {
        /// Until the last family's time is over.
        until: Instant,
    },
    /// It is back, and has not announced everything yet.
    Back {
        /// Until then.
        until: Instant,
    },
}

/// Counters of UPDATE messages that were malformed, by what became of them (RFC 7606 §2), and of other mishaps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// An attribute was ignored.
    pub attribute_discard: u64,
    /// The prefixes were withdrawn.
    pub treat_as_withdraw: u64,
    /// A family was disabled.
    pub disable_family: u64,
    /// The session ended.
    pub session_reset: u64,
}

/// What is known of a neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeighborStatus {
    /// Who.
    pub id: NeighborId,
    /// Its name.
    pub name: String,
    /// Its address.
    pub remote: IpAddr,
    /// Its AS as configured.
    pub remote_as: Asn,
    /// Our AS towards it.
    pub local_as: Asn,
    /// The state of the connection that is furthest, or of the attempts to make one.
    pub state: State,
    /// Since when it is in that state.
    pub since: Instant,
    /// How long the session has been established.
    pub uptime: Option<Duration>,
    /// Both ends of the connection that is furthest, ours first.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    /// What the two agreed upon, from OpenConfirm on: AS, BGP Identifier, timers, capabilities.
    pub agreement: Option<Agreement>,
    /// Messages received.
    pub received: MessageCounts,
    /// Messages sent.
    pub sent: MessageCounts,
    /// IPv4 prefixes.
    pub ipv4: PrefixCounts,
    /// IPv6 prefixes.
    pub ipv6: PrefixCounts,
    /// How often a session was established.
    pub established: u64,
    /// How often an established session was lost.
    pub flaps: u64,
    /// What went wrong last.
    pub last_error: Option<LastError>,
    /// Malformed UPDATE messages.
    pub faults: FaultCounts,
    /// Whether its tunnel is up.
    pub is_reachable: bool,
    /// Whether it is being drained (RFC 8326).
    pub is_draining: bool,
    /// Why nothing is tried, where that is so.
    pub held_by: Option<&'static str>,
    /// What is kept of it while it restarts.
    pub restart: Option<RestartStatus>,
}
