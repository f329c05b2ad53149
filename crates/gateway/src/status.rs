//! What `simplon status` shows. These structures are the documented shapes of `simplon status --json`
//! (docs/book/status.md); fields are added, never renamed.

pub mod cluster;
pub mod routing;

use std::collections::BTreeMap;
use std::time::Duration;

use base::Instant;
use ike::{Algorithms, ChildView, DropReason, Endpoint, Failure, IkeSaView, PeerId, Side};
use model::{Address, Child, Connection, DfPolicy, Dpd, DpdAction, GatewayOptions, Routing, Start, Version, Versions};
use serde::{Deserialize, Serialize};

use crate::mtu::{From as MtuFrom, InnerMtu};
use crate::output::{GatewayEvent, Severity};
use crate::path_mtu::Source;
use crate::paths::Paths;
use crate::record::{Record, State};
pub use crate::tally::{Negotiations, Phase};

/// How a gateway is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The gateway as a whole.
    pub gateway: GatewayStatus,
    /// Its connections, by name.
    pub connections: Vec<ConnectionStatus>,
    /// Its VPN connections of several tunnels.
    #[serde(default)]
    pub vpns: Vec<routing::VpnStatus>,
    /// Its BFD sessions.
    #[serde(default)]
    pub bfd: Vec<routing::BfdStatus>,
    /// Its BGP speaker, where it has one.
    #[serde(default)]
    pub bgp: Option<routing::BgpStatus>,
    /// The cluster that it is one of; filled in by the shell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<cluster::ClusterStatus>,
}

/// The gateway as a whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GatewayStatus {
    /// Seconds since it started.
    pub uptime_s: u64,
    /// UDP port of IKE.
    pub ike_port: u16,
    /// UDP port of NAT traversal.
    pub natt_port: u16,
    /// The version of simplon; filled in by the shell.
    #[serde(default)]
    pub version: String,
    /// Networks of ours to which no device inside leads now: packets for them are refused; filled in by the shell.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cut_off: Vec<String>,
    /// What IKE has counted.
    pub ike: IkeCounters,
    /// What the data path has counted beside its SAs; filled in by the shell.
    pub data_path: Option<DataPathCounters>,
}

/// What IKE has counted since the start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct IkeCounters {
    /// Datagrams that came in.
    pub received: u64,
    /// Datagrams that went out.
    pub sent: u64,
    /// Requests that were sent again unasked.
    pub retransmitted: u64,
    /// Requests of peers that came again and were answered with the same bytes.
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
    /// IKE SAs that strangers began and have not proved themselves in, now.
    pub half_open: u64,
    /// Datagrams dropped, by reason.
    pub dropped: BTreeMap<String, u64>,
}

/// What the data path has counted beside its SAs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DataPathCounters {
    /// Packets dropped that belong to no SA, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Datagrams and packets that the kernel refused to send.
    pub send_errors: u64,
    /// Errors of receiving.
    pub receive_errors: u64,
    /// Times that the sender of a packet was told that there is no SA for it.
    #[serde(default)]
    pub unreachable_sent: u64,
    /// ICMP errors about our ESP packets that named one of our SAs.
    pub valid_icmp_errors: u64,
    /// ICMP errors that did not.
    pub invalid_icmp_errors: u64,
}

/// A connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConnectionStatus {
    /// Its name.
    pub name: String,
    /// How it is.
    pub state: State,
    /// Seconds that it has been so.
    pub for_s: u64,
    /// Why it is so.
    pub why: String,
    /// Seconds until it is tried again, where that is so.
    pub retry_in_s: Option<u64>,
    /// `ikev1`, `ikev2`, or both with the one it initiates with in front.
    pub versions: Vec<String>,
    /// Our address, as configured or found.
    pub local: String,
    /// The peer's address, as configured or found.
    pub remote: String,
    /// Weak algorithms that it names.
    pub weak: Vec<String>,
    /// Its IKE SAs, oldest first.
    pub ike_sas: Vec<IkeStatus>,
    /// Its children.
    pub children: Vec<ChildStatus>,
    /// What SAs carried that are gone; filled in by the shell.
    #[serde(default)]
    pub carried: Carried,
    /// What negotiating came to.
    #[serde(default)]
    pub negotiations: Negotiations,
    /// When a silent peer is asked whether it lives, and what happens if it does not answer.
    #[serde(default)]
    pub dpd: Option<DpdStatus>,
    /// Why the last negotiation failed, until one succeeds.
    pub last_failure: Option<FailureStatus>,
    /// What happened, oldest first; at most 32.
    pub history: Vec<HistoryEntry>,
}

/// Dead peer detection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DpdStatus {
    /// Seconds of silence after which the peer is asked.
    pub delay_s: u64,
    /// Seconds of silence after which it is given up; in IKEv2 the retransmission schedule may decide instead.
    pub timeout_s: u64,
    /// What happens then: `clear`, `hold` or `restart`.
    pub action: String,
}

/// What the SAs of a connection carried that are gone: replaced, or taken down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// Packets that arrived.
    pub packets_in: u64,
    /// Bytes of them.
    pub bytes_in: u64,
    /// Packets that left.
    pub packets_out: u64,
    /// Bytes of them.
    pub bytes_out: u64,
    /// Packets that arrived and were dropped, by reason.
    #[serde(default)]
    pub dropped_in: BTreeMap<String, u64>,
    /// Packets that were to leave and were dropped, by reason.
    #[serde(default)]
    pub dropped_out: BTreeMap<String, u64>,
}

impl Carried {
    /// Adds what one more SA carried.
    pub fn add(&mut self, traffic: &Traffic) {
        self.packets_in += traffic.inbound.packets;
        self.bytes_in += traffic.inbound.bytes;
        self.packets_out += traffic.outbound.packets;
        self.bytes_out += traffic.outbound.bytes;
        add_to(&mut self.dropped_in, &traffic.inbound.dropped);
        add_to(&mut self.dropped_out, &traffic.outbound.dropped);
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: &Self) {
        self.packets_in += other.packets_in;
        self.bytes_in += other.bytes_in;
        self.packets_out += other.packets_out;
        self.bytes_out += other.bytes_out;
        add_to(&mut self.dropped_in, &other.dropped_in);
        add_to(&mut self.dropped_out, &other.dropped_out);
    }
}

fn add_to(sums: &mut BTreeMap<String, u64>, more: &BTreeMap<String, u64>) {
    for (reason, count) in more {
        *sums.entry(reason.clone()).or_default() += count;
    }
}

impl ConnectionStatus {
    /// All that it carried since the gateway started: also by SAs that are gone, so that a rekey is no new beginning.
    pub fn carried_in_all(&self) -> Carried {
        let mut sum = self.carried.clone();
        let sas = self.children.iter().flat_map(|child| &child.sas);
        sas.filter_map(|sa| sa.traffic.as_ref()).for_each(|traffic| sum.add(traffic));
        sum
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// Seconds ago.
    pub ago_s: u64,
    /// What, and why.
    pub text: String,
}

/// An IKE SA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IkeStatus {
    /// `ikev1` or `ikev2`.
    pub version: String,
    /// `connecting`, `established`, `rekeying` or `closing`.
    pub state: String,
    /// The name the standard gives to that state, such as `MM_ACTIVE`.
    pub state_name: String,
    /// `initiator` or `responder`.
    pub role: String,
    /// The initiator's SPI (IKEv1: cookie), 16 hexadecimal digits.
    pub initiator_spi: String,
    /// The responder's.
    pub responder_spi: String,
    /// Our socket address.
    pub local: String,
    /// The peer's socket address.
    pub remote: String,
    /// Our identity.
    pub local_id: Option<String>,
    /// The peer's identity.
    pub remote_id: Option<String>,
    /// Its algorithms.
    pub suite: String,
    /// What encrypts its messages; `None` until it is agreed, as the three that follow.
    #[serde(default)]
    pub encryption: Option<String>,
    /// What authenticates them; in IKEv1 the hash, and the encryption itself where it is an AEAD.
    #[serde(default)]
    pub hash: Option<String>,
    /// The pseudorandom function.
    #[serde(default)]
    pub prf: Option<String>,
    /// The Diffie-Hellman group.
    #[serde(default)]
    pub group: Option<String>,
    /// How the ends prove who they are.
    #[serde(default)]
    pub authentication: String,
    /// Whether one of them is weak.
    pub is_weak: bool,
    /// Whether there is a NAT on our side.
    pub nat_local: bool,
    /// Whether there is a NAT on the peer's side.
    pub nat_remote: bool,
    /// Seconds since it was established.
    pub age_s: Option<u64>,
    /// Seconds until it is rekeyed.
    pub rekey_in_s: Option<u64>,
    /// Seconds until it ends if it is not rekeyed.
    pub expires_in_s: Option<u64>,
}

/// A child: traffic that is protected together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChildStatus {
    /// Its name.
    pub name: String,
    /// When it is brought up: `wait`, `on_traffic` or `at_once`.
    pub start: String,
    /// The TUN device of its own, where it is route-based.
    pub device: Option<String>,
    /// Our traffic, as configured.
    pub local: Vec<String>,
    /// The peer's traffic, as configured.
    pub remote: Vec<String>,
    /// `honour` or `clear`.
    pub df: String,
    /// Its SAs, oldest first.
    pub sas: Vec<SaStatus>,
}

/// A Child SA, both directions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SaStatus {
    /// Its number in this run.
    pub id: u64,
    /// `active`, or `rekeyed` when a newer one has taken its place.
    pub state: String,
    /// The SPI of packets that arrive, 8 hexadecimal digits.
    pub inbound_spi: String,
    /// The SPI of packets that leave.
    pub outbound_spi: String,
    /// Its algorithms.
    pub suite: String,
    /// Whether one of them, or the PFS group, is weak.
    pub is_weak: bool,
    /// Whether it has extended sequence numbers.
    pub esn: bool,
    /// Bytes of initialization vector in each packet.
    pub iv_bytes: u64,
    /// The group of its own key exchange, where it had one.
    pub pfs: Option<String>,
    /// Our traffic, as agreed.
    pub local: Vec<String>,
    /// The peer's traffic, as agreed.
    pub remote: Vec<String>,
    /// `udp` (ESP in UDP) or `esp` (IP protocol 50).
    pub encapsulation: String,
    /// Our outer address; its port counts only for `udp`.
    pub local_endpoint: String,
    /// The peer's.
    pub remote_endpoint: String,
    /// The largest inner packet, in bytes.
    pub mtu: u16,
    /// Where that comes from: `configured` or `computed`.
    pub mtu_from: String,
    /// The MTU of the outer path, in bytes.
    pub outer_mtu: u16,
    /// Where that comes from: `probed` (the peer received packets of this size), `interface`, `route`, `assumed`, or
    /// `icmp (unverified)`.
    #[serde(default)]
    pub outer_mtu_from: String,
    /// Seconds since the peer last received a packet of this size, where it was asked.
    #[serde(default)]
    pub outer_mtu_probed_ago_s: Option<u64>,
    /// Why the peer is not asked, where it is not.
    #[serde(default)]
    pub outer_mtu_unprobed: Option<String>,
    /// Bytes that encryption adds to the largest packet.
    pub overhead: u16,
    /// The TCP maximum segment size for IPv4 that is clamped to; 0 when segments are left alone.
    pub mss: u16,
    /// Packets that may arrive late.
    pub replay_window: u32,
    /// Seconds since it was installed.
    pub age_s: u64,
    /// Seconds until it is rekeyed.
    pub rekey_in_s: Option<u64>,
    /// Seconds until it ends if it is not rekeyed.
    pub expires_in_s: Option<u64>,
    /// What it carried; filled in by the shell.
    pub traffic: Option<Traffic>,
}

/// What an SA carried.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
    /// Packets that left.
    pub outbound: Direction,
    /// Packets that arrived.
    pub inbound: Direction,
    /// Packets fragmented before encryption.
    pub fragmented: u64,
    /// Packets that should have been fragmented and could not.
    pub fragmentation_failed: u64,
    /// Fragments that were made.
    pub fragments_created: u64,
    /// "Fragmentation needed" and "packet too big" sent back to senders.
    pub too_big_sent: u64,
    /// Path MTUs learnt from ICMP.
    pub path_mtu_received: u64,
    /// Arrived inner packets that are fragments.
    pub inner_fragments: u64,
    /// Dummy packets that arrived (RFC 4303 §2.6).
    pub dummies_received: u64,
    /// The highest sequence number sent.
    pub sequence_sent: u64,
    /// The highest sequence number that arrived and was authentic.
    pub sequence_received: u64,
    /// The newest 64 places of the replay window: the lowest bit is the highest sequence number.
    pub replay_bitmap: u64,
    /// Seconds since the last packet arrived.
    pub idle_s: Option<u64>,
}

impl Traffic {
    /// Adds what another worker of the data path counted of the same SA. How far it is both say alike.
    pub fn add(&mut self, more: &Self) {
        self.outbound.add(&more.outbound);
        self.inbound.add(&more.inbound);
        for (sum, more) in [
            (&mut self.fragmented, more.fragmented),
            (&mut self.fragmentation_failed, more.fragmentation_failed),
            (&mut self.fragments_created, more.fragments_created),
            (&mut self.too_big_sent, more.too_big_sent),
            (&mut self.path_mtu_received, more.path_mtu_received),
            (&mut self.inner_fragments, more.inner_fragments),
            (&mut self.dummies_received, more.dummies_received),
        ] {
            *sum += more;
        }
    }
}

impl Direction {
    fn add(&mut self, more: &Self) {
        self.packets += more.packets;
        self.bytes += more.bytes;
        add_to(&mut self.dropped, &more.dropped);
    }
}

impl DataPathCounters {
    /// Adds what another worker counted.
    pub fn add(&mut self, more: &Self) {
        add_to(&mut self.dropped, &more.dropped);
        self.send_errors += more.send_errors;
        self.unreachable_sent += more.unreachable_sent;
        self.receive_errors += more.receive_errors;
        self.valid_icmp_errors += more.valid_icmp_errors;
        self.invalid_icmp_errors += more.invalid_icmp_errors;
    }
}

/// One direction of an SA.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Direction {
    /// Packets passed on.
    pub packets: u64,
    /// Bytes of inner packets.
    pub bytes: u64,
    /// Packets dropped, by reason; reasons that never occurred are left out.
    pub dropped: BTreeMap<String, u64>,
}

/// Why a negotiation failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureStatus {
    /// Seconds ago.
    pub ago_s: u64,
    /// When, in milliseconds since the gateway started.
    pub at_ms: u64,
    /// The stable name of the cause, such as `wrong_psk`.
    pub cause: String,
    /// The cause in a sentence.
    pub sentence: String,
    /// Who found it: `us` or `peer`.
    pub found_by: String,
    /// What we offered or expected.
    pub ours: Vec<String>,
    /// What the peer offered.
    pub theirs: Vec<String>,
    /// The pair of offers that differs least.
    pub nearest: Option<NearestStatus>,
    /// What to look at, most likely first.
    pub fixes: Vec<FixStatus>,
}

/// Two offers that nearly fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NearestStatus {
    /// Ours.
    pub ours: String,
    /// The peer's.
    pub theirs: String,
    /// In what they differ.
    pub differ_in: Vec<String>,
}

/// Something to change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FixStatus {
    /// `ours` or `theirs`.
    pub side: String,
    /// The setting.
    pub setting: String,
    /// The file that holds it.
    pub file: Option<String>,
    /// The line, counted from 1.
    pub line: Option<u32>,
    /// The line as written; of a secret only that it is one.
    pub text: Option<String>,
}

/// The status of everything.
pub(crate) fn of<'a>(
    options: &GatewayOptions,
    endpoint: &Endpoint,
    records: impl Iterator<Item = (PeerId, &'a Record)>,
    paths: &Paths,
    now: Instant,
) -> Status {
    let mut by_peer: BTreeMap<PeerId, Vec<IkeSaView>> = BTreeMap::new();
    for sa in endpoint.sas() {
        if let Some(peer) = sa.peer {
            by_peer.entry(peer).or_default().push(sa);
        }
    }
    let none = Vec::new();
    let connections = records
        .map(|(id, record)| {
            let retry_in_s = endpoint.retry_at(id).map(|at| at.saturating_since(now).as_secs());
            let counted = record.negotiations.with(&endpoint.peer_counters(id));
            let sas = by_peer.get(&id).unwrap_or(&none);
            ConnectionStatus { negotiations: counted, ..connection_status(record, sas, paths, retry_in_s, now) }
        })
        .collect();
    let gateway = GatewayStatus {
        uptime_s: now.since_start().as_secs(),
        ike_port: options.ports.ike,
        natt_port: options.ports.natt,
        ike: ike_counters(endpoint),
        ..GatewayStatus::default()
    };
    Status { gateway, connections, ..Status::default() }
}

fn ike_counters(endpoint: &Endpoint) -> IkeCounters {
    let counters = endpoint.counters();
    let dropped = DropReason::ALL.into_iter().map(|reason| (reason.name().to_owned(), counters.dropped(reason)));
    IkeCounters {
        received: counters.received,
        sent: counters.sent,
        retransmitted: counters.retransmitted,
        answered_again: counters.answered_again,
        established: counters.established,
        failed: counters.failed,
        ike_rekeys: counters.ike_rekeys,
        child_rekeys: counters.child_rekeys,
        cookies_sent: counters.cookies_sent,
        half_open: endpoint.half_open() as u64,
        dropped: dropped.collect(),
    }
}

fn connection_status(
    record: &Record,
    sas: &[IkeSaView],
    paths: &Paths,
    retry_in_s: Option<u64>,
    now: Instant,
) -> ConnectionStatus {
    let connection = &record.connection;
    ConnectionStatus {
        name: connection.name.clone(),
        state: record.state,
        for_s: now.saturating_since(record.since).as_secs(),
        why: record.why.clone(),
        retry_in_s,
        versions: versions(connection),
        local: address(&connection.local.address, record.local),
        remote: address(&connection.remote.address, record.remote),
        weak: weak(connection),
        ike_sas: sas.iter().map(|sa| ike_status(sa, now)).collect(),
        children: connection.children.iter().map(|child| child_status(child, sas, paths, now)).collect(),
        carried: Carried::default(),
        negotiations: Negotiations::default(),
        dpd: connection.dpd.as_ref().map(dpd_status),
        last_failure: record.last_failure.as_ref().map(|(at, failure)| failure_status(*at, failure, now)),
        history: record
            .history
            .iter()
            .map(|e| HistoryEntry { ago_s: now.saturating_since(e.at).as_secs(), text: e.text.clone() })
            .collect(),
    }
}

fn dpd_status(dpd: &Dpd) -> DpdStatus {
    let action = match dpd.action {
        DpdAction::Clear => "clear",
        DpdAction::Hold => "hold",
        DpdAction::Restart => "restart",
    };
    DpdStatus { delay_s: dpd.delay.as_secs(), timeout_s: dpd.timeout.as_secs(), action: action.to_owned() }
}

/// The versions a connection speaks, the one it initiates with in front.
pub fn versions(connection: &Connection) -> Vec<String> {
    let first = connection.versions.initiate();
    let other = if first == Version::V1 { Version::V2 } else { Version::V1 };
    match connection.versions {
        Versions::Only(_) => vec![version(first)],
        Versions::Both { .. } => vec![version(first), version(other)],
    }
}

/// Weak algorithms that a connection names, each once.
pub fn weak(connection: &Connection) -> Vec<String> {
    let ike = connection.ike.iter().flat_map(model::IkeProposal::weak);
    let esp = connection.children.iter().flat_map(|c| &c.esp).flat_map(model::EspProposal::weak);
    let mut all = Vec::new();
    for name in ike.chain(esp) {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    all
}

fn version(version: Version) -> String {
    match version {
        Version::V1 => "ikev1".to_owned(),
        Version::V2 => "ikev2".to_owned(),
    }
}

fn address(written: &Address, found: Option<std::net::IpAddr>) -> String {
    match (written, found) {
        (Address::Name(name), Some(ip)) => format!("{name} ({ip})"),
        (Address::Name(name), None) => name.clone(),
        (Address::Any | Address::Ip(_) | Address::Prefix(_), Some(ip)) => ip.to_string(),
        (Address::Ip(ip), None) => ip.to_string(),
        (Address::Prefix(net), None) => net.to_string(),
        (Address::Any, None) => "any".to_owned(),
    }
}

fn seconds_until(at: Option<Instant>, now: Instant) -> Option<u64> {
    at.map(|at| at.saturating_since(now).as_secs())
}

fn ike_status(sa: &IkeSaView, now: Instant) -> IkeStatus {
    let state = match sa.state {
        ike::IkeState::Connecting => "connecting",
        ike::IkeState::Established => "established",
        ike::IkeState::Rekeying => "rekeying",
        ike::IkeState::Closing => "closing",
    };
    IkeStatus {
        version: version(sa.version),
        state: state.to_owned(),
        state_name: sa.state_name.to_owned(),
        role: if sa.is_initiator { "initiator" } else { "responder" }.to_owned(),
        initiator_spi: format!("{:016x}", sa.spis.0),
        responder_spi: format!("{:016x}", sa.spis.1),
        local: sa.path.0.to_string(),
        remote: sa.path.1.to_string(),
        local_id: sa.local_id.as_ref().map(ToString::to_string),
        remote_id: sa.remote_id.as_ref().map(ToString::to_string),
        suite: sa.suite.to_string(),
        encryption: sa.algorithms.map(|a| a.encryption.to_string()),
        hash: sa.algorithms.map(hash),
        prf: sa.algorithms.map(|a| a.prf.to_string()),
        group: sa.algorithms.map(|a| a.group.to_string()),
        authentication: "pre-shared".to_owned(),
        is_weak: sa.is_weak,
        nat_local: sa.nat.0,
        nat_remote: sa.nat.1,
        age_s: sa.established_at.map(|at| now.saturating_since(at).as_secs()),
        rekey_in_s: seconds_until(sa.rekey_at, now),
        expires_in_s: seconds_until(sa.expires_at, now),
    }
}

fn hash(algorithms: Algorithms) -> String {
    match (algorithms.integrity, algorithms.encryption.is_aead()) {
        (Some(integrity), _) => integrity.to_string(),
        (None, true) => algorithms.encryption.to_string(),
        (None, false) => algorithms.prf.to_string(),
    }
}

fn child_status(child: &Child, sas: &[IkeSaView], paths: &Paths, now: Instant) -> ChildStatus {
    let start = match child.start {
        Start::Wait => "wait",
        Start::OnTraffic => "on_traffic",
        Start::AtOnce => "at_once",
    };
    let device = match &child.routing {
        Routing::Policy => None,
        Routing::Device { name, .. } => Some(name.clone()),
    };
    let mut own: Vec<&ChildView> =
        sas.iter().flat_map(|sa| &sa.children).filter(|view| *view.child == *child.name).collect();
    own.sort_by_key(|view| view.id);
    ChildStatus {
        name: child.name.clone(),
        start: start.to_owned(),
        device,
        local: child.local.iter().map(ToString::to_string).collect(),
        remote: child.remote.iter().map(ToString::to_string).collect(),
        df: if child.df == DfPolicy::Clear { "clear" } else { "honour" }.to_owned(),
        sas: own.into_iter().map(|view| sa_status(child, view, paths, now)).collect(),
    }
}

fn sa_status(child: &Child, view: &ChildView, paths: &Paths, now: Instant) -> SaStatus {
    let path = paths.of(view.id);
    let (outer, source) = path.map_or(crate::path_mtu::assumed(), |path| (path.mtu(), path.source()));
    let mtu = InnerMtu::of(view.suite, &view.path, outer, child.mtu);
    let probed_at = if let Source::Probed { at } = source { Some(at) } else { None };
    SaStatus {
        id: view.id.0,
        state: if view.is_rekeyed { "rekeyed" } else { "active" }.to_owned(),
        inbound_spi: view.spis.0.to_string(),
        outbound_spi: view.spis.1.to_string(),
        suite: view.suite.to_string(),
        is_weak: view.suite.is_weak() || view.pfs.is_some_and(base::algorithm::Group::is_weak),
        esn: view.suite.esn,
        iv_bytes: view.suite.encryption.iv_len() as u64,
        pfs: view.pfs.map(|group| group.to_string()),
        local: view.selectors.0.iter().map(ToString::to_string).collect(),
        remote: view.selectors.1.iter().map(ToString::to_string).collect(),
        encapsulation: if view.path.udp { "udp" } else { "esp" }.to_owned(),
        local_endpoint: view.path.local.to_string(),
        remote_endpoint: view.path.remote.to_string(),
        mtu: mtu.inner,
        mtu_from: if mtu.from == MtuFrom::Configured { "configured" } else { "computed" }.to_owned(),
        outer_mtu: mtu.outer,
        outer_mtu_from: source.name().to_owned(),
        outer_mtu_probed_ago_s: probed_at.map(|at| now.saturating_since(at).as_secs()),
        outer_mtu_unprobed: path.and_then(|path| path.unprobed()).map(str::to_owned),
        overhead: mtu.overhead,
        mss: child.mss.unwrap_or(mtu.mss().0),
        replay_window: child.replay_window,
        age_s: now.saturating_since(view.installed_at).as_secs(),
        rekey_in_s: seconds_until(view.rekey_at, now),
        expires_in_s: seconds_until(view.expires_at, now),
        traffic: None,
    }
}

/// A failure as status shows it.
fn failure_status(at: Instant, failure: &Failure, now: Instant) -> FailureStatus {
    let nearest = failure.nearest().map(|(ours, theirs, differ_in)| NearestStatus {
        ours: ours.to_string(),
        theirs: theirs.to_string(),
        differ_in: differ_in.into_iter().map(str::to_owned).collect(),
    });
    let fixes = failure.fixes.iter().map(|fix| FixStatus {
        side: if fix.side == Side::Ours { "ours" } else { "theirs" }.to_owned(),
        setting: fix.setting.name().to_owned(),
        file: fix.source.as_ref().map(|source| source.file.to_string()),
        line: fix.source.as_ref().map(|source| source.line),
        text: fix.source.as_ref().map(|source| source.text.to_string()),
    });
    FailureStatus {
        ago_s: now.saturating_since(at).as_secs(),
        at_ms: u64::try_from(at.since_start().as_millis()).unwrap_or(u64::MAX),
        cause: failure.cause.name().to_owned(),
        sentence: failure.cause.to_string(),
        found_by: if failure.found_by == Side::Ours { "us" } else { "peer" }.to_owned(),
        ours: failure.ours.iter().map(ToString::to_string).collect(),
        theirs: failure.theirs.iter().map(ToString::to_string).collect(),
        nearest: nearest.filter(|nearest| !nearest.differ_in.is_empty()),
        fixes: fixes.collect(),
    }
}

/// What an event of IKE says to a person.
pub(crate) fn sentence(event: &ike::Event) -> GatewayEvent {
    let (severity, name, text) = match event {
        ike::Event::Connecting { version, remote, .. } => {
            (Severity::Info, "connecting", format!("connecting to {remote} with {}", display(*version)))
        }
        ike::Event::IkeUp { version, local_id, remote_id, path, suite, rekeyed, .. } => {
            let what = if *rekeyed { "IKE SA rekeyed" } else { "IKE SA established" };
            let text = format!(
                "{what}: {} between {local_id} ({}) and {remote_id} ({}) with {suite}",
                display(*version),
                path.0,
                path.1
            );
            (Severity::Info, if *rekeyed { "ike_rekeyed" } else { "ike_up" }, text)
        }
        ike::Event::IkeDown { reason, .. } => (Severity::Info, "ike_down", format!("IKE SA ended: {reason}")),
        ike::Event::ChildUp { child, spis, suite, selectors, replaces, .. } => {
            let what = if replaces.is_some() { "rekeyed" } else { "up" };
            let list = |of: &[sa::TrafficSelector]| of.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let text = format!(
                "{child} {what}: {} <-> {} with {suite}, SPIs {} in and {} out",
                list(&selectors.0),
                list(&selectors.1),
                spis.0,
                spis.1
            );
            (Severity::Info, if replaces.is_some() { "child_rekeyed" } else { "child_up" }, text)
        }
        ike::Event::ChildDown { child, reason, .. } => {
            let severity = if *reason == ike::CloseReason::Replaced { Severity::Debug } else { Severity::Info };
            (severity, "child_down", format!("{child} down: {reason}"))
        }
        ike::Event::PeerDrains { child, is_drained, .. } => {
            let text = match is_drained {
                true => format!("the other end drains {child}: its traffic takes another tunnel where there is one"),
                false => format!("the other end takes traffic over {child} again"),
            };
            (Severity::Info, "peer_drains", text)
        }
        ike::Event::DrainHeard { child, is_drained, .. } => {
            let what = if *is_drained { "is drained" } else { "takes traffic again" };
            (Severity::Debug, "drain_heard", format!("the other end has heard that {child} {what}"))
        }
        ike::Event::PeerMoved { from, to, .. } => {
            (Severity::Info, "peer_moved", format!("the peer moved from {from} to {to}"))
        }
        ike::Event::Failed { remote, failure, .. } => {
            (Severity::Warning, "failed", format!("negotiation with {remote} failed: {failure}"))
        }
    };
    GatewayEvent { connection: None, severity, name, text }
}

fn display(version: Version) -> &'static str {
    match version {
        Version::V1 => "IKEv1",
        Version::V2 => "IKEv2",
    }
}

/// A duration as people read it at a glance: the two largest units.
pub fn short_duration(seconds: u64) -> String {
    let time = Duration::from_secs(seconds).as_secs();
    let (days, hours, minutes, rest) = (time / 86_400, time / 3_600 % 24, time / 60 % 60, time % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest}s"),
        (0, 0, _) => format!("{minutes}m{rest:02}s"),
        (0, ..) => format!("{hours}h{minutes:02}m"),
        _ => format!("{days}d{hours:02}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_show_their_two_largest_units() {
        let shown = [7, 67, 3_667, 90_000].map(short_duration);
        assert_eq!(shown, ["7s", "1m07s", "1h01m", "1d01h"]);
    }
}
