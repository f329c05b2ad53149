//! What `simplon status` and `simplon show` say of VPN connections, BGP, BFD and routes.

use serde::{Deserialize, Serialize};

/// A VPN connection of several tunnels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VpnStatus {
    /// Its name.
    pub name: String,
    /// `up` when a tunnel is healthy, `down` when none is; `leaving` while the last one ends on purpose and still carries
    /// what comes.
    pub state: String,
    /// Seconds that it has been so.
    pub for_s: u64,
    /// `active_standby` or `active_active`.
    pub mode: String,
    /// The tunnels that carry traffic by its static routes, preferred first.
    pub active: Vec<String>,
    /// Seconds since that changed.
    pub active_for_s: u64,
    /// Why it changed last.
    pub why: String,
    /// Its tunnels, preferred first.
    pub tunnels: Vec<TunnelStatus>,
    /// Its static routes.
    pub routes: Vec<String>,
}

/// A tunnel, as routing sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TunnelStatus {
    /// Its connection.
    pub connection: String,
    /// The child that it is.
    pub child: String,
    /// Its TUN device.
    pub device: String,
    /// Whether its SAs are up, and what watches it says that it works.
    pub is_healthy: bool,
    /// Seconds that it has been so.
    pub for_s: u64,
    /// Why it is so.
    pub why: String,
    /// Whether traffic is kept away from it by command.
    pub is_drained: bool,
    /// Whether the other end keeps traffic away from it.
    #[serde(default)]
    pub is_drained_by_peer: bool,
    /// Whether it is taken down as soon as it is quiet.
    pub is_draining: bool,
    /// What its probe found, where it has one.
    pub probe: Option<ProbeStatus>,
    /// The state of its BFD session, where it has one: `up`, `init`, `down` or `admin_down`.
    pub bfd: Option<String>,
}

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbeStatus {
    /// Whom it asks.
    pub target: String,
    /// Asked.
    pub sent: u64,
    /// Answered.
    pub answered: u64,
    /// Not answered in time.
    pub lost: u64,
    /// The last round-trip time, in microseconds.
    pub last_rtt_us: Option<u64>,
    /// The least of the recent ones.
    pub least_rtt_us: Option<u64>,
    /// The median of the recent ones.
    pub median_rtt_us: Option<u64>,
}

/// The BGP speaker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BgpStatus {
    /// Our AS.
    pub asn: u32,
    /// Our BGP identifier.
    pub router_id: String,
    /// Prefixes known.
    pub prefixes: u64,
    /// Paths to them.
    pub paths: u64,
    /// Its neighbours, by address.
    pub neighbors: Vec<NeighborStatus>,
}

/// A BGP neighbour.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NeighborStatus {
    /// Its address.
    pub address: String,
    /// Its AS, as configured.
    pub remote_as: u32,
    /// Our AS towards it.
    pub local_as: u32,
    /// The tunnel that leads to it.
    pub tunnel: Option<String>,
    /// `idle`, `connect`, `active`, `open_sent`, `open_confirm` or `established`.
    pub state: String,
    /// Seconds that it has been so.
    pub for_s: u64,
    /// Why nothing is tried, where that is so.
    pub held_by: Option<String>,
    /// Why it is not established, or was not last time, and what to change.
    pub last_error: Option<String>,
    /// Seconds since then.
    pub last_error_ago_s: Option<u64>,
    /// Its BGP identifier, once it was heard.
    pub router_id: Option<String>,
    /// Hold time agreed, in seconds.
    pub hold_s: Option<u64>,
    /// Time between two KEEPALIVE messages, in seconds.
    pub keepalive_s: Option<u64>,
    /// Capabilities that both have.
    pub capabilities: Vec<String>,
    /// Messages received.
    pub messages_in: u64,
    /// Messages sent.
    pub messages_out: u64,
    /// UPDATE messages received.
    pub updates_in: u64,
    /// UPDATE messages sent.
    pub updates_out: u64,
    /// Prefixes it announces.
    pub prefixes_received: u64,
    /// Those that the import policy let through.
    pub prefixes_accepted: u64,
    /// Prefixes announced to it.
    pub prefixes_sent: u64,
    /// Prefixes it may announce at most.
    pub max_prefixes: Option<u64>,
    /// Times that the session was lost.
    pub flaps: u64,
    /// Whether traffic is kept away from it by command (RFC 8326).
    pub is_drained: bool,
    /// The state of its BFD session, where it has one.
    pub bfd: Option<String>,
}

/// A path to a prefix, as BGP knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BgpPath {
    /// To where.
    pub prefix: String,
    /// By which router; `0.0.0.0` or `::` where it is our own.
    pub next_hop: String,
    /// Who announced it; `None` where we do.
    pub neighbor: Option<String>,
    /// Whether it is the best.
    pub is_best: bool,
    /// Whether it carries traffic, alone or with others.
    pub is_used: bool,
    /// Whether its neighbour is restarting.
    pub is_stale: bool,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// LOCAL_PREF.
    pub local_preference: u32,
    /// AS_PATH as it is usually written, the nearest first.
    pub as_path: String,
    /// `i`, `e` or `?`.
    pub origin: String,
    /// Communities as they are usually written.
    pub communities: Vec<String>,
}

/// A BFD session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BfdStatus {
    /// Our address.
    pub local: String,
    /// The neighbour's.
    pub remote: String,
    /// The device between them.
    pub device: Option<String>,
    /// `up`, `init`, `down` or `admin_down`.
    pub state: String,
    /// Seconds that it has been so.
    pub for_s: u64,
    /// The neighbour's state as it last said it.
    pub remote_state: String,
    /// Why it last left `up`.
    pub last_diagnostic: String,
    /// Why the neighbour last did, as it said.
    pub remote_diagnostic: String,
    /// Our discriminator.
    pub local_discriminator: u32,
    /// The neighbour's.
    pub remote_discriminator: Option<u32>,
    /// Milliseconds between two packets of ours.
    pub transmit_interval_ms: Option<u64>,
    /// Milliseconds between two packets of the neighbour's.
    pub receive_interval_ms: Option<u64>,
    /// Milliseconds of silence after which the session is down.
    pub detection_ms: Option<u64>,
    /// Packets sent.
    pub sent: u64,
    /// Packets accepted.
    pub received: u64,
    /// Packets discarded.
    pub discarded: u64,
    /// Times that it left `up`.
    pub flaps: u64,
}

/// A route that routing asked the kernel for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RouteStatus {
    /// To where.
    pub destination: String,
    /// `static`, `bgp`, or `connected` for the networks of tunnel devices.
    pub protocol: String,
    /// Devices and routers, such as `tunnel1` or `via 10.0.0.1`; `unreachable` and `throw` lead nowhere.
    pub next_hops: Vec<String>,
    /// Table, where it is not the main one.
    pub table: Option<u32>,
    /// The kernel's metric.
    pub metric: u32,
    /// The source address of packets that choose none.
    pub source: Option<String>,
    /// Seconds since it was put in or changed; `None` where that is not kept, as for learnt routes.
    pub for_s: Option<u64>,
    /// Which VPN connection or neighbours it comes from.
    pub from: Vec<String>,
}
