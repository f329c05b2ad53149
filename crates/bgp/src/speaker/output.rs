//! What a speaker wants done, and what it tells.

use std::net::{IpAddr, SocketAddr};

use base::Secret;
use ipnet::IpNet;

use super::{ConnectionId, NeighborId, Ttl};
use crate::rib::{NextHop, Source};

/// One thing to do or to tell, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Make a TCP connection, and answer with `handle_connected` or `handle_connect_failed`. `Close` for it may come
    /// before the answer; then no answer is wanted.
    Connect {
        /// Its name from now on.
        connection: ConnectionId,
        /// With whom.
        neighbor: NeighborId,
        /// From this address.
        local: Option<IpAddr>,
        /// To there.
        remote: SocketAddr,
        /// Key of TCP MD5 (RFC 2385).
        password: Option<Secret>,
        /// How far away the neighbour may be.
        ttl: Ttl,
    },
    /// Take TCP connections from `remote`, at `local` or at any address, and hand them in with `handle_accepted`. Said
    /// again, it replaces what was said before about this neighbour: the key must be set on the listener at once.
    Listen {
        /// Who connects.
        neighbor: NeighborId,
        /// At this address; `None`: any.
        local: Option<IpAddr>,
        /// From this address.
        remote: IpAddr,
        /// Key of TCP MD5; `None` removes one.
        password: Option<Secret>,
        /// How far away the neighbour may be; for the connections that are accepted.
        ttl: Ttl,
    },
    /// No longer.
    Unlisten {
        /// Who does not connect any more.
        neighbor: NeighborId,
        /// As it was said.
        local: Option<IpAddr>,
        /// As it was said.
        remote: IpAddr,
    },
    /// Send these octets, behind all that was to be sent before. KEEPALIVE and NOTIFICATION come whether there is room
    /// or not.
    Send {
        /// On this connection.
        connection: ConnectionId,
        /// Whole messages.
        bytes: Vec<u8>,
    },
    /// Close the connection, once all is sent that was to be; no more than a few seconds may be waited for that. Nothing
    /// that comes from it is wanted any more.
    Close {
        /// This one.
        connection: ConnectionId,
    },
    /// Something else is in use for a prefix.
    Route(RouteChange),
    /// Tell whoever runs the gateway.
    Event(BgpEvent),
}

/// What is in use for a prefix, in place of what was said before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteChange {
    /// The prefix.
    pub prefix: IpNet,
    /// Where packets go, the best first. Empty: to nobody that BGP knows: remove the route, if there was one.
    pub next_hops: Vec<NextHop>,
    /// Where the best path is from; `None` where there is none. With [`Source::Local`] there are no next hops: it is a
    /// route of our own.
    pub source: Option<Source>,
    /// MULTI_EXIT_DISC of the best path.
    pub med: Option<u32>,
}

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// As it should be.
    Info,
    /// Somebody should look.
    Warning,
    /// It does not work.
    Error,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventKind {
    /// A session is established.
    Up,
    /// A session is gone.
    Down,
    /// A neighbour's OPEN was not good, or it did not like ours.
    Refused,
    /// No connection came about.
    ConnectFailed,
    /// Somebody connected who is no neighbour, or whom nobody awaits.
    Stranger,
    /// An UPDATE was malformed, and the session goes on.
    Malformed,
    /// A neighbour comes near its maximum of prefixes.
    MaxPrefixesNear,
    /// A neighbour exceeded its maximum of prefixes.
    MaxPrefixes,
    /// Routes cannot be announced.
    NotAnnounced,
    /// A neighbour restarts, and its routes are kept meanwhile; or that is over.
    GracefulRestart,
    /// After our own restart: routes are chosen and announced from now on.
    Converged,
    /// A neighbour was added, changed, or taken down by command.
    Configured,
}

impl EventKind {
    /// Its stable name, for logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "bgp-up",
            Self::Down => "bgp-down",
            Self::Refused => "bgp-refused",
            Self::ConnectFailed => "bgp-connect-failed",
            Self::Stranger => "bgp-stranger",
            Self::Malformed => "bgp-malformed",
            Self::MaxPrefixesNear => "bgp-max-prefixes-near",
            Self::MaxPrefixes => "bgp-max-prefixes",
            Self::NotAnnounced => "bgp-not-announced",
            Self::GracefulRestart => "bgp-graceful-restart",
            Self::Converged => "bgp-converged",
            Self::Configured => "bgp-configured",
        }
    }

    /// How much it matters.
    pub const fn severity(self) -> Severity {
        match self {
            Self::Up | Self::GracefulRestart | Self::Converged | Self::Configured => Severity::Info,
            Self::Down | Self::ConnectFailed | Self::Stranger | Self::Malformed | Self::MaxPrefixesNear => {
                Severity::Warning
            }
            Self::Refused | Self::MaxPrefixes | Self::NotAnnounced => Severity::Error,
        }
    }
}

/// Something that whoever runs the gateway should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BgpEvent {
    /// With whom; `None` for a stranger, and for what concerns all.
    pub neighbor: Option<NeighborId>,
    /// What.
    pub kind: EventKind,
    /// A whole sentence: what was found, what was expected, what to change.
    pub sentence: String,
}
