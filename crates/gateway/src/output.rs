//! What comes out of the gateway: everything that the shell must do, in order.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use base::Secret;
use bgp::ConnectionId;
use ipnet::IpNet;
use sa::{ChildLabel, SaChange, SaId};
use serde::{Deserialize, Serialize};

use crate::health::Probe;

/// One thing to do or to tell. Order is part of the answer: what is said first must be in effect before what
/// follows is done.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Send this datagram.
    Transmit(ike::Transmit),
    /// Change the SAs that carry packets.
    Sa(SaChange),
    /// Tell the data path the MTU of the outer path of an SA, in bytes.
    OuterMtu {
        /// The SA.
        id: SaId,
        /// The largest outer packet.
        mtu: u16,
    },
    /// Change which packets must be encrypted.
    Policy(PolicyChange),
    /// Change a TUN device.
    Device(DeviceChange),
    /// Change a route of the kernel.
    Route(RouteChange),
    /// Change a learnt route of the kernel. There may be a million of them, and nobody waits for one.
    Learnt(RouteChange),
    /// Do something with the sockets of BFD, probes and BGP.
    Socket(SocketOrder),
    /// Tell a person.
    Event(GatewayEvent),
}

/// Something to do with the sockets of BFD, probes and BGP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketOrder {
    /// Send this BFD packet.
    Bfd(BfdPacket),
    /// No BFD packet will be sent from this address and port any more.
    BfdRelease {
        /// Whose it was.
        session: bfd::SessionId,
        /// The address and port.
        local: SocketAddr,
    },
    /// Send this probe through a tunnel's device.
    Probe(ProbePacket),
    /// Take TCP connections of this BGP neighbour, signed with this key where there is one (RFC 2385).
    BgpListen {
        /// Who connects.
        neighbor: IpAddr,
        /// The key.
        key: Option<Secret>,
    },
    /// No longer.
    BgpForget {
        /// Who does not connect any more.
        neighbor: IpAddr,
    },
    /// Connect to a BGP neighbour, and say how that went.
    BgpConnect(BgpConnect),
    /// Send this on a connection of BGP, behind all that was to be sent before.
    BgpSend {
        /// The connection.
        connection: ConnectionId,
        /// Whole messages.
        bytes: Vec<u8>,
    },
    /// Close a connection of BGP once what was to be sent is sent, or give up making it.
    BgpClose {
        /// The connection.
        connection: ConnectionId,
    },
}

/// A TCP connection that BGP wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BgpConnect {
    /// Its name from now on.
    pub connection: ConnectionId,
    /// From here; `None` leaves it to the kernel.
    pub local: Option<IpAddr>,
    /// To there.
    pub remote: SocketAddr,
    /// The device of the tunnel that it goes through; `None` leaves the way to the kernel.
    pub device: Option<Arc<str>>,
    /// The key of TCP MD5.
    pub password: Option<Secret>,
    /// The TTL or hop limit of what is sent.
    pub ttl: u8,
    /// The least one of what is taken; 0 takes all.
    pub min_ttl: u8,
}

/// A BFD control packet on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BfdPacket {
    /// The device of the tunnel that it goes through; `None` leaves the way to the kernel.
    pub device: Option<Arc<str>>,
    /// What is sent, from where to where: UDP, TTL or hop limit 255.
    pub transmit: bfd::Transmit,
}

/// A probe on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbePacket {
    /// The device of the tunnel that it goes through.
    pub device: Arc<str>,
    /// What is sent, from where to where.
    pub probe: Probe,
}

/// A change to the policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyChange {
    /// From now on what it names is encrypted or dropped, and nothing like it is accepted in clear; in place of an
    /// older one of the same label.
    Install(esp::Policy),
    /// No more. Its SAs are gone already.
    Remove(ChildLabel),
}

/// A TUN device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Device {
    /// Its name, at most 15 bytes.
    pub name: Arc<str>,
    /// Its own addresses.
    pub addresses: Vec<IpNet>,
    /// The largest packet it takes, in bytes.
    pub mtu: u16,
}

/// A change to the TUN devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceChange {
    /// Make it, give it its addresses and MTU, and set it up.
    Create(Device),
    /// Make its addresses and MTU these.
    Configure(Device),
    /// Remove it.
    Remove(Arc<str>),
}

/// One way that a route leads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Hop {
    /// Into this TUN device; `None` leaves the device to the kernel, by the route to `gateway`.
    pub device: Option<Arc<str>>,
    /// To this router, where it is not the other end of a tunnel.
    pub gateway: Option<IpAddr>,
}

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Via {
    /// These ways, each flow one of them; at least one, sorted.
    Hops(Vec<Hop>),
    /// Out of this table: the next rule decides. It keeps a tunnel's own packets, and traffic between our own
    /// networks, out of a route that covers everything.
    Throw,
    /// Nowhere: the sender hears that it cannot be reached.
    Unreachable,
}

impl Via {
    /// Into this TUN device.
    pub fn device(name: Arc<str>) -> Self {
        Self::Hops(vec![Hop { device: Some(name), gateway: None }])
    }
}

/// A route of the kernel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Route {
    /// Packets to here.
    pub destination: IpNet,
    /// Where they go.
    pub via: Via,
    /// The routing table; `None` is the main table.
    pub table: Option<u32>,
    /// Of several routes to a destination the one with the lowest metric is taken.
    pub metric: u32,
    /// The source address of packets that choose none.
    pub source: Option<IpAddr>,
}

/// A rule of the kernel: which table is asked, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rule {
    /// Whether it is for IPv6.
    pub ipv6: bool,
    /// Lower ones are asked first; the main table's is 32,766.
    pub priority: u32,
    /// The table.
    pub table: u32,
}

/// A change to the routes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RouteChange {
    /// From now on, in place of an older one with the same destination, table and metric.
    Add(Route),
    /// No more.
    Remove(Route),
    /// Ask a table of ours.
    AddRule(Rule),
    /// No more.
    RemoveRule(Rule),
}

impl RouteChange {
    /// The same change to a route of this table.
    #[must_use]
    pub(crate) fn in_table(self, table: Option<u32>) -> Self {
        match self {
            Self::Add(route) => Self::Add(Route { table, ..route }),
            Self::Remove(route) => Self::Remove(Route { table, ..route }),
            rule @ (Self::AddRule(_) | Self::RemoveRule(_)) => rule,
        }
    }
}

/// How much a person should care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// For whoever looks for a fault.
    Debug,
    /// Something changed.
    Info,
    /// Something needs a person.
    Warning,
}

/// Something that happened and why, in one sentence.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewayEvent {
    /// The connection it is about, where it is about one.
    pub connection: Option<Arc<str>>,
    /// How much it matters.
    pub severity: Severity,
    /// Its stable name, such as `child_up`.
    pub name: &'static str,
    /// The sentence, without a full stop.
    pub text: String,
}
