//! Connections, their two sides and their children.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU8;
use std::time::Duration;

use base::Secret;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{Bgp, Cluster, EspProposal, Identity, IkeLifetime, IkeProposal, Lifetime, Selector, Sources, Vpn};

/// Everything a gateway is told: its own options and its connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// What concerns the gateway as a whole.
    pub gateway: GatewayOptions,
    /// The connections, in the order of the file; names are unique.
    pub connections: Vec<Connection>,
    /// Connections of several tunnels; names are unique.
    pub vpns: Vec<Vpn>,
    /// The BGP speaker.
    pub bgp: Option<Bgp>,
    /// The other gateway that shares addresses with this one.
    pub cluster: Option<Cluster>,
}

impl Config {
    /// The same without the places that it was read from: two files that say the same are equal then.
    #[must_use]
    pub fn without_sources(mut self) -> Self {
        self.connections.iter_mut().for_each(|connection| connection.sources = Sources::default());
        self.vpns.iter_mut().for_each(|vpn| vpn.source = None);
        if let Some(cluster) = &mut self.cluster {
            cluster.source = None;
        }
        if let Some(bgp) = &mut self.bgp {
            bgp.source = None;
            bgp.neighbors.iter_mut().for_each(|neighbor| neighbor.source = None);
        }
        self
    }
}

/// What concerns the gateway as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayOptions {
    /// Local addresses to listen on; empty means every address.
    pub listen: Vec<IpAddr>,
    /// UDP ports.
    pub ports: Ports,
    /// Half-open IKE SAs (of all peers together) from which on cookies are asked for (RFC 7296 §2.6).
    pub cookie_threshold: u32,
    /// Half-open IKE SAs at which new ones are refused.
    pub half_open_limit: u32,
    /// Whether routes for remote selectors are put into the kernel.
    pub install_routes: bool,
    /// Routing table for them; `None` is the main table.
    pub route_table: Option<u32>,
    /// Interval of NAT keepalives behind a NAT (RFC 3948 §4); zero switches them off.
    pub nat_keepalive: Duration,
    /// Whether sysctls that forwarding needs are set rather than only reported.
    pub manage_sysctl: bool,
    /// Threads that pass packets, 1 to 64; `None` follows the number of processors.
    pub workers: Option<NonZeroU8>,
    /// Where metrics are served over HTTP; `None` is nowhere.
    pub metrics: Option<SocketAddr>,
    /// Where metrics and events are sent by OTLP over HTTP, an `http://` address without a slash at its end; `None` is
    /// nowhere.
    pub opentelemetry: Option<String>,
    /// How the log is written, where the command line does not say it.
    pub log_format: LogFormat,
    /// A directory for a log of each connection; `None` is none.
    pub log_directory: Option<String>,
    /// How long a pre-shared key that was replaced in a running gateway is still accepted of the peer.
    pub psk_overlap: Duration,
}

impl Default for GatewayOptions {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            ports: Ports::default(),
            cookie_threshold: 30,
            half_open_limit: 1_000,
            install_routes: true,
            route_table: None,
            nat_keepalive: Duration::from_secs(20),
            manage_sysctl: false,
            workers: None,
            metrics: None,
            opentelemetry: None,
            log_format: LogFormat::Text,
            log_directory: None,
            psk_overlap: Duration::from_secs(86_400),
        }
    }
}

/// How a log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// A line for a person.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

/// The UDP ports of IKE: 500 and 4500 unless a test or a second gateway needs others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// The port of RFC 7296 §2, 500.
    pub ike: u16,
    /// The port of NAT traversal, shared with UDP-encapsulated ESP (RFC 3948), 4500.
    pub natt: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self { ike: 500, natt: 4500 }
    }
}

/// One IKE peer and the traffic protected with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default = "unnamed")]
pub struct Connection {
    /// Unique within a configuration.
    pub name: String,
    /// Which versions of IKE it speaks.
    pub versions: Versions,
    /// Our side.
    pub local: Side,
    /// The peer's side.
    pub remote: Side,
    /// Pre-shared keys: the first is used to authenticate; all are accepted of the peer (IKEv2), so
    /// that a key can be changed without a drop.
    #[serde(with = "base::export::secrets")]
    pub psk: Vec<Secret>,
    /// Phase 1 proposals in order of preference.
    pub ike: Vec<IkeProposal>,
    /// Lifetime of the IKE SA.
    pub ike_lifetime: IkeLifetime,
    /// Dead peer detection; `None` switches sending off (answers are always given).
    pub dpd: Option<Dpd>,
    /// Whether ESP goes in UDP.
    pub encapsulation: Encapsulation,
    /// How often a failed negotiation is tried again before the connection rests.
    pub tries: Tries,
    /// What becomes of older IKE SAs with the same peer identity.
    pub uniqueness: Uniqueness,
    /// Whether IKEv2 messages may be fragmented (RFC 7383).
    pub fragmentation: bool,
    /// Traffic: one Child SA (IKEv2) or one phase 2 a selector pair (IKEv1) each.
    pub children: Vec<Child>,
    /// Where each setting was written, for messages that name the line to change.
    #[serde(skip)]
    pub sources: Sources,
}

/// A version of IKE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Version {
    /// RFC 2409.
    V1,
    /// RFC 7296.
    V2,
}

/// Which versions a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Versions {
    /// This one alone.
    Only(Version),
    /// It initiates with this one and accepts both.
    Both {
        /// The version to initiate with.
        initiate: Version,
    },
}

impl Default for Versions {
    /// Both, beginning with IKEv2.
    fn default() -> Self {
        Self::Both { initiate: Version::V2 }
    }
}

impl Versions {
    /// The version to initiate with.
    pub const fn initiate(self) -> Version {
        match self {
            Self::Only(version) | Self::Both { initiate: version } => version,
        }
    }

    /// Whether a peer may come with `version`.
    pub fn accepts(self, version: Version) -> bool {
        match self {
            Self::Only(only) => only == version,
            Self::Both { .. } => true,
        }
    }
}

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// Where it is on the outside.
    pub address: Address,
    /// UDP port of its IKE where it is not the standard one.
    pub port: Option<u16>,
    /// What it says it is, or what it must prove to be. `None` stands for its address.
    pub id: Option<Identity>,
}

/// An outside address as written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Address {
    /// Any: the peer is a road warrior, or ours is chosen by the kernel's routing (`%any`, `%defaultroute`).
    Any,
    /// This address.
    Ip(IpAddr),
    /// Any address of this prefix (the peer's side only).
    Prefix(IpNet),
    /// A DNS name; the shell resolves it.
    Name(String),
}

impl Address {
    /// Whether `ip` can be the address meant.
    pub fn admits(&self, ip: IpAddr) -> bool {
        match self {
            Self::Any | Self::Name(_) => true,
            Self::Ip(own) => *own == ip,
            Self::Prefix(net) => net.contains(&ip),
        }
    }

    /// The address where it is one.
    pub const fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(ip) => Some(*ip),
            Self::Any | Self::Prefix(_) | Self::Name(_) => None,
        }
    }
}

/// Dead peer detection (RFC 3706; RFC 7296 §2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dpd {
    /// Silence after which the peer is asked.
    pub delay: Duration,
    /// Silence after which it is given up, counted like `delay` from when it was last heard. Zero: in IKEv2 the
    /// retransmission schedule decides.
    pub timeout: Duration,
    /// What happens then.
    pub action: DpdAction,
}

impl Dpd {
    /// How long a question has to be answered at least: also a peer with `timeout` near `delay` is asked twice.
    pub fn least_wait(&self) -> Duration {
        self.timeout / 2
    }
}

/// What happens to a connection whose peer is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DpdAction {
    /// It is taken down and waits for the peer or a command.
    Clear,
    /// It is taken down; the next packet of traffic brings it up.
    Hold,
    /// It is negotiated again at once, for ever.
    Restart,
}

/// Whether ESP travels inside UDP (RFC 3948).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Encapsulation {
    /// As NAT detection says.
    #[default]
    Auto,
    /// Always: NAT detection is made to see one.
    Force,
    /// Never: plain ESP, IP protocol 50.
    Never,
}

/// How often a negotiation is tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tries {
    /// Again and again.
    #[default]
    Forever,
    /// This many times, at least 1.
    Times(u32),
}

/// What becomes of older IKE SAs when a peer with the same identity authenticates anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Uniqueness {
    /// The older one goes.
    #[default]
    Replace,
    /// Both stay unless the peer says INITIAL_CONTACT.
    Keep,
    /// Both stay, whatever the peer says.
    Never,
}

/// Traffic that is protected together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default = "unnamed_child")]
pub struct Child {
    /// Unique within the connection; often the connection's own name.
    pub name: String,
    /// Phase 2 proposals in order of preference.
    pub esp: Vec<EspProposal>,
    /// Our traffic: at least one.
    pub local: Vec<Selector>,
    /// The peer's traffic: at least one.
    pub remote: Vec<Selector>,
    /// Lifetime of its SAs.
    pub lifetime: Lifetime,
    /// Packets that may arrive late: 64 to 8192.
    pub replay_window: u32,
    /// How packets find it.
    pub routing: Routing,
    /// When it is brought up.
    pub start: Start,
    /// What becomes of packets that are too big with DF set.
    pub df: DfPolicy,
    /// Inner MTU where a person chose one; otherwise it is computed.
    pub mtu: Option<u16>,
    /// TCP maximum segment size to clamp to: `None` follows the MTU, 0 leaves segments alone.
    pub mss: Option<u16>,
    /// Whether DSCP is copied to the outer header (RFC 4301 §5.1.2); ECN always is (RFC 6040).
    pub copy_dscp: bool,
}

/// How packets find a child.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Routing {
    /// By its selectors (policy-based).
    Policy,
    /// By a device of its own that routes point to (route-based).
    Device {
        /// Name of the TUN device, at most 15 bytes.
        name: String,
        /// The device's own addresses, such as 169.254.10.2/30.
        addresses: Vec<IpNet>,
        /// Prefixes that are routed to the device.
        routes: Vec<IpNet>,
        /// Mark or key the other dialect knew it by.
        mark: Option<u32>,
    },
}

/// When a child is brought up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Start {
    /// Never by itself: a command or the peer brings it up (`auto=add`).
    #[default]
    Wait,
    /// With the first packet of traffic (`auto=route`, `auto=ondemand`).
    OnTraffic,
    /// When the gateway starts (`auto=start`).
    AtOnce,
}

/// What becomes of an inner packet that is too big for the tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DfPolicy {
    /// DF is honoured: the sender hears "fragmentation needed"; packets without DF are fragmented before encryption.
    #[default]
    Honour,
    /// DF is cleared: every such IPv4 packet is fragmented before encryption.
    Clear,
}

/// What a field has that whoever wrote the connection did not know.
fn unnamed() -> Connection {
    Connection::named("")
}

/// The same for a child.
fn unnamed_child() -> Child {
    Child::named("")
}

impl Connection {
    /// A connection with every default, to be completed by a reader or a test.
    pub fn named(name: impl Into<String>) -> Self {
        let versions = Versions::default();
        let any = || Side { address: Address::Any, port: None, id: None };
        Self {
            name: name.into(),
            versions,
            local: any(),
            remote: any(),
            psk: Vec::new(),
            ike: IkeProposal::defaults(versions),
            ike_lifetime: IkeLifetime::default(),
            dpd: None,
            encapsulation: Encapsulation::default(),
            tries: Tries::default(),
            uniqueness: Uniqueness::default(),
            fragmentation: true,
            children: Vec::new(),
            sources: Sources::default(),
        }
    }

    /// The identity we claim when our address is `local`.
    pub fn local_id(&self, local: IpAddr) -> Identity {
        match &self.local.id {
            Some(id) if *id != Identity::Any => id.clone(),
            Some(_) | None => Identity::Ip(self.local.address.ip().unwrap_or(local)),
        }
    }

    /// The identity that the peer must prove; `Identity::Any` where it is free.
    pub fn remote_id(&self) -> Identity {
        match (&self.remote.id, self.remote.address.ip()) {
            (Some(id), _) => id.clone(),
            (None, Some(ip)) => Identity::Ip(ip),
            (None, None) => Identity::Any,
        }
    }

    /// Where to send the first message, when the peer's address is known.
    pub fn remote_socket(&self, standard_port: u16) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.remote.address.ip()?, self.remote.port.unwrap_or(standard_port)))
    }
}

impl Child {
    /// A child with every default and no selectors.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            esp: EspProposal::defaults(Versions::default()),
            local: Vec::new(),
            remote: Vec::new(),
            lifetime: Lifetime::default(),
            replay_window: 1024,
            routing: Routing::Policy,
            start: Start::default(),
            df: DfPolicy::default(),
            mtu: None,
            mss: None,
            copy_dscp: true,
        }
    }
}
