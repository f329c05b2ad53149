//! What the routing tables answer: verdicts, changes, advertisements, and views for people.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use ipnet::IpNet;

use super::PeerId;
use crate::wire::EncodedAttributes;
use crate::{Attributes, Family};

/// What came of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum UpdateVerdict {
    /// The routes are kept.
    Kept,
    /// They are kept, and with them the neighbour has come to the count that is worth a warning. Said once, until it
    /// has fallen below again.
    Warning {
        /// The family.
        family: Family,
        /// Prefixes that it announces.
        count: u32,
        /// The most that it may.
        limit: u32,
    },
    /// The neighbour announced more prefixes than it may; those above were not kept. The session is to be ended with
    /// Cease, Maximum Number of Prefixes Reached (RFC 4486 §4).
    Exceeded {
        /// The family.
        family: Family,
        /// The most that it may.
        limit: u32,
    },
    /// No such neighbour, or it is not up: nothing was kept.
    NotUp,
}

/// Who a route of our own is from. The first is preferred over the second, and so on; each over any neighbour's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LocalKind {
    /// A `network` that an operator wrote.
    Network,
    /// A static route.
    Static,
    /// A network of our own interfaces.
    Connected,
}

/// Where a route is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// Ourselves.
    Local(LocalKind),
    /// A neighbour.
    Peer(PeerId),
}

/// Where packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextHop {
    /// The neighbour from whom the path is: it tells the tunnel.
    pub peer: PeerId,
    /// The NEXT_HOP of the path.
    pub address: IpAddr,
}

/// What is in use for a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected {
    /// Where the best path is from.
    pub source: Source,
    /// The attributes of the best path, as policy left them.
    pub attributes: Arc<Attributes>,
    /// The next hops of the best path and those equal to it, the best first. Empty for a route of our own.
    pub next_hops: Vec<NextHop>,
}

/// A prefix for which something else is in use than was said before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The prefix.
    pub prefix: IpNet,
    /// What is in use now; `None`: nothing any more.
    pub route: Option<Selected>,
}

/// The next hop that an announcement carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AnnouncedNextHop {
    /// Our own address on the session with the neighbour.
    Ourselves,
    /// This address.
    Address(IpAddr),
}

/// A route as it goes out to all neighbours that are told the same.
#[derive(Debug)]
pub struct Outgoing {
    /// The attributes.
    pub attributes: Arc<Attributes>,
    /// The next hop.
    pub next_hop: AnnouncedNextHop,
    /// With AS numbers of two octets, and of four, as far as somebody was told.
    encoded: [OnceLock<EncodedAttributes>; 2],
}

impl Outgoing {
    pub(super) fn new((attributes, next_hop): (Arc<Attributes>, AnnouncedNextHop)) -> Self {
        Self { attributes, next_hop, encoded: Default::default() }
    }

    /// The attributes as they stand in messages, with AS numbers of four octets or of two.
    pub fn encoded(&self, four_octet_as: bool) -> &EncodedAttributes {
        let encode = || EncodedAttributes::of(&self.attributes, four_octet_as);
        self.encoded[usize::from(four_octet_as)].get_or_init(encode)
    }
}

/// A part of what a neighbour is to be told. All prefixes are of one family.
#[derive(Clone, Debug)]
pub enum Advertisement {
    /// These are no longer announced.
    Withdraw {
        /// Their family.
        family: Family,
        /// At least one, each once.
        prefixes: Vec<IpNet>,
    },
    /// These are announced with the same attributes.
    Announce {
        /// Their family.
        family: Family,
        /// How they look.
        route: Arc<Outgoing>,
        /// At least one, each once.
        prefixes: Vec<IpNet>,
    },
}

/// A path of a prefix, as a person wants to see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// Where it is from.
    pub source: Source,
    /// The next hop as received. `None` for a route of our own without one.
    pub next_hop: Option<IpAddr>,
    /// The attributes as received.
    pub received: Arc<Attributes>,
    /// The attributes as policy left them; `None` when it did not pass, or is a loop.
    pub accepted: Option<Arc<Attributes>>,
    /// What the decision made of it.
    pub standing: Standing,
    /// Whether it is stale: kept from before the neighbour's restart (RFC 4724).
    pub stale: bool,
}

/// What the decision made of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// The best.
    Best,
    /// Equal to the best, and used with it.
    Multipath,
    /// It could be used, and another is better.
    Valid,
    /// It passed, but its neighbour cannot be reached.
    Unreachable,
    /// It did not pass: policy or a loop.
    Rejected,
}

/// Counts of one neighbour in one family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrefixCounts {
    /// Received and kept, stale ones not among them.
    pub received: u32,
    /// Stale ones.
    pub stale: u32,
    /// Of both, those that passed.
    pub accepted: u32,
    /// Announced to it.
    pub advertised: u32,
}
