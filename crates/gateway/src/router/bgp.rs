//! BGP as a gateway speaks it: the neighbours of a configuration, over tunnels and otherwise, what is announced to
//! them, and the kernel's routes for what they announce.
//!
//! A route that covers the outer address of a peer would swallow the tunnel's own packets. There are few of those (a
//! default route, mostly): they are handed to the plan, which knows how to keep the peers out. All others go to the
//! kernel one by one, for there may be a million of them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base::{Deadline, Instant, Machine, Random};
use bgp::rib::{LocalKind, MaxPrefixes, NextHop, Source, Standing};
use bgp::session::{Agreement, State};
use bgp::speaker::{self, LocalRoute, Timers, Ttl};
use bgp::{ConnectionId, Family, NeighborId, Speaker, SpeakerOptions};
use ipnet::IpNet;
use model::{Config, Fallback};
use sa::ChildLabel;

use super::vpn::LAST_METRIC;
use super::{Tunnel, label_of, policy};
use crate::health::TunnelId;
use crate::output::{BgpConnect, GatewayEvent, Hop, Output, Route, RouteChange, Severity, SocketOrder, Via};
use crate::status::routing::{BgpPath, BgpStatus, NeighborStatus};

/// How far away an internal neighbour without a tunnel may be.
const INTERNAL_TTL: u8 = 64;
/// Of the prefixes that a neighbour may announce, this part is worth a warning.
const WARN_PERCENT: u64 = 80;

/// A neighbour, and how packets to it leave.
#[derive(Debug)]
struct Neighbor {
    id: NeighborId,
    model: model::Neighbor,
    tunnel: Option<TunnelId>,
    device: Option<Arc<str>>,
}

/// The speaker of a gateway.
#[derive(Debug)]
pub(crate) struct Bgp {
    speaker: Speaker,
    model: model::Bgp,
    router_id: Ipv4Addr,
    max_paths: usize,
    neighbors: BTreeMap<IpAddr, Neighbor>,
    by_id: BTreeMap<NeighborId, IpAddr>,
    last_id: u32,
    /// What is announced, by where it comes from.
    announced: BTreeSet<(LocalRank, IpNet)>,
    /// Outer addresses of the tunnels' peers.
    peers: BTreeSet<IpAddr>,
    /// Learnt routes that cover one of them: the plan's.
    covering: BTreeMap<IpNet, Route>,
    /// What was learnt over tunnels: packets to there are refused rather than left to a less specific route.
    refused: BTreeSet<IpNet>,
    is_plan_stale: bool,
    sources: Vec<IpAddr>,
    outputs: VecDeque<Output>,
}

/// [`LocalKind`] as something that can be sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum LocalRank {
    Network,
    Static,
    Connected,
}

impl From<LocalRank> for LocalKind {
    fn from(rank: LocalRank) -> Self {
        match rank {
            LocalRank::Network => Self::Network,
            LocalRank::Static => Self::Static,
            LocalRank::Connected => Self::Connected,
        }
    }
}

/// Our BGP Identifier: as configured, else our first IPv4 address on a neighbour's tunnel.
fn router_id(config: &Config, bgp: &model::Bgp) -> Option<Ipv4Addr> {
    let of_tunnel = |neighbor: &model::Neighbor| {
        let local = neighbor.local_address.filter(IpAddr::is_ipv4);
        let tunnel = neighbor.tunnel.as_ref().and_then(|name| config.tunnel(name));
        let on_device = tunnel.and_then(|t| t.addresses.iter().map(IpNet::addr).find(IpAddr::is_ipv4));
        match local.or(on_device) {
            Some(IpAddr::V4(ip)) => Some(ip),
            Some(IpAddr::V6(_)) | None => None,
        }
    };
    bgp.router_id.or_else(|| bgp.neighbors.iter().find_map(of_tunnel))
}

/// How many equal paths are used: what was configured, and at least one for each tunnel of a VPN connection whose tunnels
/// all carry traffic.
fn max_paths(config: &Config, bgp: &model::Bgp) -> usize {
    let active = config.vpns.iter().filter(|vpn| vpn.mode == model::Mode::ActiveActive).map(|vpn| vpn.tunnels.len());
    active.max().unwrap_or(1).max(usize::try_from(bgp.multipath).unwrap_or(1))
}

impl Bgp {
    /// The speaker that a configuration asks for; `None` when it asks for none, or its identifier cannot be told: then
    /// why.
    pub(crate) fn new(
        config: &Config,
        is_restarting: bool,
        random: Random,
        now: Instant,
    ) -> Option<Result<Self, &'static str>> {
        let bgp = config.bgp.as_ref()?;
        let Some(router_id) = router_id(config, bgp) else {
            return Some(Err("BGP needs a router-id: no neighbour's tunnel has an IPv4 address of ours"));
        };
        let options = SpeakerOptions {
            max_paths: max_paths(config, bgp),
            restart_time: bgp.restart_time,
            is_restarting,
            ..SpeakerOptions::of(bgp.asn, router_id)
        };
        Some(Ok(Self {
            speaker: Speaker::new(options, random, now),
            model: bgp.clone(),
            router_id,
            max_paths: max_paths(config, bgp),
            neighbors: BTreeMap::new(),
            by_id: BTreeMap::new(),
            last_id: 0,
            announced: BTreeSet::new(),
            peers: BTreeSet::new(),
            covering: BTreeMap::new(),
            refused: BTreeSet::new(),
            is_plan_stale: false,
            sources: Vec::new(),
            outputs: VecDeque::new(),
        }))
    }

    /// Whether this speaker can go on under another configuration.
    pub(crate) fn suits(&self, config: &Config) -> bool {
        let fixed = |bgp: &model::Bgp| (bgp.asn, bgp.restart_time);
        config.bgp.as_ref().is_some_and(|bgp| {
            fixed(bgp) == fixed(&self.model)
                && max_paths(config, bgp) == self.max_paths
                && router_id(config, bgp) == Some(self.router_id)
        })
    }

    /// Makes neighbours and announcements those of the configuration.
    pub(super) fn apply(
        &mut self,
        config: &Config,
        ids: &BTreeMap<ChildLabel, TunnelId>,
        tunnels: &BTreeMap<TunnelId, Tunnel>,
        now: Instant,
    ) {
        let Some(bgp) = &config.bgp else { return };
        self.model = bgp.clone();
        let wanted: BTreeSet<IpAddr> = bgp.neighbors.iter().map(|neighbor| neighbor.address).collect();
        let gone: Vec<IpAddr> = self.neighbors.keys().filter(|ip| !wanted.contains(ip)).copied().collect();
        for neighbor in gone.into_iter().filter_map(|ip| self.neighbors.remove(&ip)) {
            self.speaker.remove_neighbor(neighbor.id, now);
            self.by_id.remove(&neighbor.id);
        }
        for model in &bgp.neighbors {
            let tunnel = model.tunnel.as_ref().and_then(|name| config.tunnel(name));
            let tunnel_id = tunnel.as_ref().and_then(|tunnel| ids.get(&label_of(tunnel)).copied());
            let id = match self.neighbors.get(&model.address) {
                Some(known) => known.id,
                None => {
                    self.last_id += 1;
                    NeighborId(self.last_id)
                }
            };
            let device = tunnel.as_ref().map(|tunnel| tunnel.device.into());
            self.by_id.insert(id, model.address);
            let is_new = !self.neighbors.contains_key(&model.address);
            self.neighbors.insert(model.address, Neighbor { id, model: model.clone(), tunnel: tunnel_id, device });
            if let Err(why) = self.speaker.upsert_neighbor(id, neighbor_of(config, bgp, model), now) {
                let text = format!("the BGP neighbour {}: {why}", model.address);
                let event = GatewayEvent { connection: None, severity: Severity::Warning, name: "bgp", text };
                self.outputs.push_back(Output::Event(event));
            }
            if is_new && let Some(tunnel) = tunnel_id.and_then(|id| tunnels.get(&id)) {
                self.speaker.set_reachable(id, tunnel.is_reachable, now);
            }
        }
        if bgp.fallback == Fallback::None || self.neighbors.values().all(|neighbor| neighbor.tunnel.is_none()) {
            self.release();
        }
        self.drain();
    }

    fn neighbor(&self, id: NeighborId) -> Option<&Neighbor> {
        self.neighbors.get(self.by_id.get(&id)?)
    }

    /// Announces our networks, and nothing else of our own. `statics` are the prefixes of static routes, `connected`
    /// the networks of this host's own interfaces.
    pub(crate) fn announce(&mut self, statics: &BTreeSet<IpNet>, connected: &[IpNet], now: Instant) {
        let redistribute = self.model.redistribute;
        let networks = self.model.networks.iter().map(|net| (LocalRank::Network, *net));
        let statics = statics.iter().filter(|_| redistribute.static_routes).map(|net| (LocalRank::Static, *net));
        let connected = connected.iter().filter(|_| redistribute.connected).map(|net| (LocalRank::Connected, *net));
        let wanted: BTreeSet<(LocalRank, IpNet)> =
            networks.chain(statics).chain(connected).map(|(rank, net)| (rank, net.trunc())).collect();
        for (rank, prefix) in self.announced.difference(&wanted) {
            self.speaker.withdraw((*rank).into(), *prefix, now);
        }
        for (rank, prefix) in wanted.difference(&self.announced) {
            self.speaker.announce(&LocalRoute::of(*prefix, (*rank).into()), now);
        }
        self.announced = wanted;
        self.drain();
    }

    /// The outer addresses of the peers, and our own addresses, are these from now on.
    pub(crate) fn set_addresses(&mut self, peers: BTreeSet<IpAddr>, own: &[IpAddr]) {
        let is_ours = |ip: &&IpAddr| self.model.networks.iter().any(|net| net.contains(*ip));
        self.sources = own.iter().filter(is_ours).copied().collect();
        let (new, gone): (Vec<IpAddr>, Vec<IpAddr>) =
            (peers.difference(&self.peers).copied().collect(), self.peers.difference(&peers).copied().collect());
        self.peers = peers;
        // What covers a peer that is new is the plan's from now on; what covers none any more is not.
        for ip in new.into_iter().chain(gone) {
            for len in 0..=IpNet::from(ip).max_prefix_len() {
                let Ok(net) = IpNet::new(ip, len) else { continue };
                let prefix = net.trunc();
                if let Some(route) = self.covering.get(&prefix).cloned() {
                    if !self.covers_peer(&prefix) {
                        self.covering.remove(&prefix);
                        self.is_plan_stale = true;
                        self.outputs.push_back(Output::Learnt(RouteChange::Add(route)));
                    }
                } else if self.covers_peer(&prefix)
                    && let Some(route) = self.route(prefix, &self.in_use(prefix))
                {
                    self.outputs.push_back(Output::Learnt(RouteChange::Remove(route.clone())));
                    self.covering.insert(prefix, route);
                    self.is_plan_stale = true;
                }
            }
        }
    }

    /// The next hops that are in use for a prefix.
    fn in_use(&self, prefix: IpNet) -> Vec<NextHop> {
        let used = self.speaker.routes().lookup(prefix).into_iter();
        let used = used.filter(|path| matches!(path.standing, Standing::Best | Standing::Multipath));
        used.filter_map(|path| match path.source {
            Source::Peer(peer) => Some(NextHop { peer, address: path.next_hop? }),
            Source::Local(_) => None,
        })
        .collect()
    }

    fn covers_peer(&self, prefix: &IpNet) -> bool {
        self.peers.range(prefix.network()..=prefix.broadcast()).next().is_some()
    }

    /// Learnt routes that the plan has to take care of.
    pub(crate) fn covering(&mut self) -> impl Iterator<Item = &Route> {
        self.is_plan_stale = false;
        self.covering.values()
    }

    pub(crate) const fn is_plan_stale(&self) -> bool {
        self.is_plan_stale
    }

    /// Whether a tunnel can carry packets: without it there is no session over it.
    pub(crate) fn set_reachable(&mut self, tunnel: TunnelId, is_reachable: bool, now: Instant) {
        for neighbor in self.neighbors.values().filter(|neighbor| neighbor.tunnel == Some(tunnel)) {
            self.speaker.set_reachable(neighbor.id, is_reachable, now);
        }
        self.drain();
    }

    /// Moves traffic off a tunnel, or lets it come again (RFC 8326).
    pub(crate) fn set_draining(&mut self, tunnel: TunnelId, is_draining: bool, now: Instant) {
        for neighbor in self.neighbors.values().filter(|neighbor| neighbor.tunnel == Some(tunnel)) {
            self.speaker.set_draining(neighbor.id, is_draining, now);
        }
        self.drain();
    }

    /// BFD with this neighbour failed.
    pub(crate) fn note_bfd_down(&mut self, remote: IpAddr, now: Instant) {
        if let Some(neighbor) = self.neighbors.get(&remote).filter(|neighbor| neighbor.model.bfd.is_some()) {
            self.speaker.note_bfd_down(neighbor.id, now);
            self.drain();
        }
    }

    /// Whether a neighbour over this tunnel has routes in use.
    pub(crate) fn has_neighbor_over(&self, tunnel: TunnelId) -> bool {
        self.neighbors.values().any(|neighbor| neighbor.tunnel == Some(tunnel))
    }

    /// Whether another neighbour is established, so that traffic could move there.
    pub(crate) fn has_other(&self, tunnel: TunnelId, now: Instant) -> bool {
        let over = |id: NeighborId| self.neighbor(id).and_then(|neighbor| neighbor.tunnel);
        self.speaker
            .neighbors(now)
            .any(|status| status.state == State::Established && !status.is_draining && over(status.id) != Some(tunnel))
    }

    pub(crate) fn handle_connected(
        &mut self,
        connection: ConnectionId,
        local: SocketAddr,
        remote: SocketAddr,
        now: Instant,
    ) {
        self.speaker.handle_connected(connection, local, remote, now);
        self.drain();
    }

    pub(crate) fn handle_connect_failed(&mut self, connection: ConnectionId, why: &str, now: Instant) {
        self.speaker.handle_connect_failed(connection, why, now);
        self.drain();
    }

    /// The connection's name, and the TTL to send with and the least one to take.
    pub(crate) fn handle_accepted(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        now: Instant,
    ) -> Option<(ConnectionId, (u8, u8))> {
        let connection = self.speaker.handle_accepted(local, remote, now);
        let ttl = self.neighbors.get(&remote.ip().to_canonical()).map(|neighbor| ttl_of(&self.model, &neighbor.model));
        self.drain();
        connection.zip(ttl.map(|ttl| (ttl.sent(), ttl.least())))
    }

    pub(crate) fn handle_bytes(&mut self, connection: ConnectionId, bytes: &[u8], now: Instant) {
        self.speaker.handle_bytes(connection, bytes, now);
        self.drain();
    }

    pub(crate) fn handle_closed(&mut self, connection: ConnectionId, why: &str, now: Instant) {
        self.speaker.handle_closed(connection, why, now);
        self.drain();
    }

    pub(crate) fn handle_writable(&mut self, connection: ConnectionId, room: usize, now: Instant) {
        self.speaker.handle_writable(connection, room, now);
        self.drain();
    }

    /// Ends all sessions. With `is_restart` neighbours keep what they learnt until we are back (RFC 4724).
    pub(crate) fn shut_down(&mut self, is_restart: bool, now: Instant) {
        self.speaker.shut_down(is_restart, now);
        self.drain();
        if !is_restart {
            self.release();
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.speaker.handle_timeout(now);
        self.drain();
    }

    pub(crate) fn poll_timeout(&self) -> Option<Deadline> {
        self.speaker.poll_timeout()
    }

    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn drain(&mut self) {
        while let Some(output) = self.speaker.poll_output() {
            match output {
                bgp::Output::Connect { connection, neighbor, local, remote, password, ttl } => {
                    let device = self.neighbor(neighbor).and_then(|neighbor| neighbor.device.clone());
                    let (ttl, min_ttl) = (ttl.sent(), ttl.least());
                    let connect = BgpConnect { connection, local, remote, device, password, ttl, min_ttl };
                    self.order(SocketOrder::BgpConnect(connect));
                }
                bgp::Output::Listen { remote, password, .. } => {
                    self.order(SocketOrder::BgpListen { neighbor: remote, key: password });
                }
                bgp::Output::Unlisten { remote, .. } => {
                    self.order(SocketOrder::BgpForget { neighbor: remote });
                }
                bgp::Output::Send { connection, bytes } => {
                    self.order(SocketOrder::BgpSend { connection, bytes });
                }
                bgp::Output::Close { connection } => self.order(SocketOrder::BgpClose { connection }),
                bgp::Output::Route(change) => self.take_route(&change),
                bgp::Output::Event(event) => {
                    let severity = match event.kind.severity() {
                        speaker::Severity::Info => Severity::Info,
                        speaker::Severity::Warning | speaker::Severity::Error => Severity::Warning,
                    };
                    let (name, text) = (event.kind.name(), event.sentence);
                    self.outputs.push_back(Output::Event(GatewayEvent { connection: None, severity, name, text }));
                }
            }
        }
    }

    fn order(&mut self, order: SocketOrder) {
        self.outputs.push_back(Output::Socket(order));
    }

    fn take_route(&mut self, change: &speaker::RouteChange) {
        let prefix = change.prefix;
        match self.route(prefix, &change.next_hops) {
            Some(route) if self.covers_peer(&prefix) => {
                self.covering.insert(prefix, route);
                self.is_plan_stale = true;
            }
            Some(route) => {
                self.refuse(&route);
                self.outputs.push_back(Output::Learnt(RouteChange::Add(route)));
            }
            None if self.covering.remove(&prefix).is_some() => self.is_plan_stale = true,
            None => {
                let metric = self.model.metric;
                let gone = Route { destination: prefix, via: Via::Throw, table: None, metric, source: None };
                self.outputs.push_back(Output::Learnt(RouteChange::Remove(gone)));
            }
        }
    }

    /// Makes sure that packets to what was learnt over a tunnel do not leave in clear when it is gone, even if we are
    /// killed: what refuses them stands before the route does, and stays.
    fn refuse(&mut self, route: &Route) {
        let Via::Hops(hops) = &route.via else { return };
        let is_tunnel = hops.iter().any(|hop| hop.device.is_some());
        if is_tunnel && self.model.fallback == Fallback::Unreachable && self.refused.insert(route.destination) {
            self.outputs.push_back(Output::Learnt(RouteChange::Add(refusal(route.destination))));
        }
    }

    /// Nothing is refused any more.
    fn release(&mut self) {
        for prefix in std::mem::take(&mut self.refused) {
            self.outputs.push_back(Output::Learnt(RouteChange::Remove(refusal(prefix))));
        }
    }

    /// The kernel's route for what BGP uses; `None` when there is none, or it is our own.
    fn route(&self, prefix: IpNet, next_hops: &[NextHop]) -> Option<Route> {
        let hop = |hop: &NextHop| {
            Some(match &self.neighbor(hop.peer)?.device {
                // A tunnel has one other end, whatever address it calls itself by.
                Some(device) => Hop { device: Some(device.clone()), gateway: None },
                None => Hop { device: None, gateway: Some(hop.address) },
            })
        };
        let hops: BTreeSet<Hop> = next_hops.iter().filter_map(hop).collect();
        if hops.is_empty() {
            return None;
        }
        let same_family = |ip: &&IpAddr| ip.is_ipv4() == prefix.addr().is_ipv4();
        Some(Route {
            destination: prefix,
            via: Via::Hops(hops.into_iter().collect()),
            table: None,
            metric: self.model.metric,
            source: self.sources.iter().find(same_family).copied(),
        })
    }

    /// How the speaker is. `bfd` tells the state of the session with a neighbour.
    pub(super) fn status(
        &self,
        tunnels: &BTreeMap<TunnelId, Tunnel>,
        bfd: impl Fn(IpAddr) -> Option<&'static str>,
        now: Instant,
    ) -> BgpStatus {
        let neighbor = |status: speaker::NeighborStatus| {
            let known = self.neighbors.get(&status.remote);
            let tunnel = known.and_then(|n| tunnels.get(&n.tunnel?)).map(|tunnel| tunnel.label.to_string());
            let agreement = status.agreement.as_ref();
            let sum =
                |of: fn(&bgp::rib::PrefixCounts) -> u32| u64::from(of(&status.ipv4)) + u64::from(of(&status.ipv6));
            NeighborStatus {
                address: status.remote.to_string(),
                remote_as: status.remote_as,
                local_as: status.local_as,
                tunnel,
                state: state_name(status.state).to_owned(),
                for_s: now.saturating_since(status.since).as_secs(),
                held_by: status.held_by.map(str::to_owned),
                last_error: status.last_error.as_ref().map(|error| error.sentence.clone()),
                last_error_ago_s: status.last_error.as_ref().map(|e| now.saturating_since(e.at).as_secs()),
                router_id: agreement.map(|agreement| agreement.router_id.to_string()),
                hold_s: agreement.map(|agreement| agreement.hold_time.as_secs()),
                keepalive_s: agreement.map(|agreement| agreement.keepalive.as_secs()),
                capabilities: agreement.map(capabilities).unwrap_or_default(),
                messages_in: status.received.total(),
                messages_out: status.sent.total(),
                updates_in: status.received.update,
                updates_out: status.sent.update,
                prefixes_received: sum(|counts| counts.received),
                prefixes_accepted: sum(|counts| counts.accepted),
                prefixes_sent: sum(|counts| counts.advertised),
                max_prefixes: known.and_then(|n| n.model.max_prefixes).map(u64::from),
                flaps: status.flaps,
                is_drained: status.is_draining,
                bfd: bfd(status.remote).map(str::to_owned),
            }
        };
        let neighbors: Vec<NeighborStatus> = self.speaker.neighbors(now).map(neighbor).collect();
        let tables = self.speaker.routes();
        let prefixes: usize = Family::ALL.into_iter().map(|family| tables.prefix_count(family)).sum();
        let learnt: u64 = neighbors.iter().map(|neighbor| neighbor.prefixes_received).sum();
        BgpStatus {
            asn: self.model.asn,
            router_id: self.router_id.to_string(),
            prefixes: prefixes as u64,
            paths: learnt + self.announced.len() as u64,
            neighbors,
        }
    }

    /// The kernel's metric of learnt routes.
    pub(crate) const fn metric(&self) -> u32 {
        self.model.metric
    }

    /// The paths that are known, at most `limit` of them, in the order of their prefixes; of one prefix, where one is
    /// named.
    pub(crate) fn paths(&self, only: Option<IpNet>, limit: usize) -> Vec<BgpPath> {
        let tables = self.speaker.routes();
        let prefixes = match only {
            Some(prefix) => vec![prefix],
            None => Family::ALL.into_iter().flat_map(|family| tables.prefixes(family)).collect(),
        };
        let mut out = Vec::new();
        let paths = prefixes.into_iter().flat_map(|prefix| tables.lookup(prefix).into_iter().map(move |p| (prefix, p)));
        for (prefix, path) in paths.take(limit) {
            let attributes = path.accepted.as_ref().unwrap_or(&path.received);
            let neighbor = match path.source {
                Source::Local(_) => None,
                Source::Peer(id) => self.by_id.get(&id).map(ToString::to_string),
            };
            let any = if prefix.addr().is_ipv4() { "0.0.0.0" } else { "::" };
            let standing = path.standing;
            out.push(BgpPath {
                prefix: prefix.to_string(),
                next_hop: path.next_hop.map_or_else(|| any.to_owned(), |ip| ip.to_string()),
                neighbor,
                is_best: standing == Standing::Best,
                is_used: matches!(standing, Standing::Best | Standing::Multipath),
                is_stale: path.stale,
                med: attributes.med,
                local_preference: attributes.local_pref.unwrap_or(100),
                as_path: attributes.as_path.to_string(),
                origin: match attributes.origin {
                    bgp::Origin::Igp => "i",
                    bgp::Origin::Egp => "e",
                    bgp::Origin::Incomplete => "?",
                }
                .to_owned(),
                communities: attributes
                    .communities
                    .iter()
                    .map(|community| format!("{}:{}", community.0 >> 16, community.0 & 0xFFFF))
                    .collect(),
            });
        }
        out
    }
}

/// The route that refuses packets to a prefix; anything else comes before it.
const fn refusal(destination: IpNet) -> Route {
    Route { destination, via: Via::Unreachable, table: None, metric: LAST_METRIC, source: None }
}

fn capabilities(agreement: &Agreement) -> Vec<String> {
    [
        (agreement.families.ipv4, "ipv4"),
        (agreement.families.ipv6, "ipv6"),
        (agreement.four_octet_as, "four_octet_as"),
        (agreement.route_refresh, "route_refresh"),
        (agreement.enhanced_refresh, "enhanced_route_refresh"),
        (agreement.graceful_restart.is_some(), "graceful_restart"),
        (agreement.long_lived.is_some(), "long_lived_graceful_restart"),
    ]
    .into_iter()
    .filter(|(is_there, _)| *is_there)
    .map(|(_, name)| name.to_owned())
    .collect()
}

fn state_name(state: State) -> &'static str {
    match state {
        State::Idle => "idle",
        State::Connect => "connect",
        State::Active => "active",
        State::OpenSent => "open_sent",
        State::OpenConfirm => "open_confirm",
        State::Established => "established",
    }
}

/// A neighbour as the speaker knows it.
fn neighbor_of(config: &Config, bgp: &model::Bgp, model: &model::Neighbor) -> bgp::Neighbor {
    let tunnel = model.tunnel.as_ref().and_then(|name| config.tunnel(name));
    let addresses = || tunnel.iter().flat_map(|tunnel| tunnel.addresses).map(IpNet::addr);
    let own = addresses().find(|ip| ip.is_ipv4() == model.address.is_ipv4());
    let other = addresses().find(|ip| ip.is_ipv4() != model.address.is_ipv4());
    let limit = |limit: u32| {
        let warn_at = u32::try_from(u64::from(limit) * WARN_PERCENT / 100).unwrap_or(limit).max(1);
        MaxPrefixes { limit, warn_at }
    };
    bgp::Neighbor {
        local: model.local_address.or(own),
        local_as: model.local_as,
        passive: model.passive,
        timers: Timers { keepalive: model.keepalive, hold: model.hold, connect_retry: model.connect_retry },
        password: model.password.clone(),
        ttl: ttl_of(bgp, model),
        families: bgp::Families { ipv4: model.families.ipv4, ipv6: model.families.ipv6 },
        other_next_hop: model.next_hop.or(other),
        max_prefixes: model.max_prefixes.map(limit),
        import: Arc::new(policy::import(config, bgp, model)),
        export: Arc::new(policy::export(config, bgp, model)),
        default_originate: model.default_originate,
        graceful_restart: bgp.restart_time > Duration::ZERO,
        allow_own_as: model.allow_own_as,
        next_hop_self: model.next_hop_self,
        ..bgp::Neighbor::of(model.address.to_string(), model.address, model.remote_as)
    }
}

fn ttl_of(bgp: &model::Bgp, neighbor: &model::Neighbor) -> Ttl {
    let is_internal = neighbor.local_as.unwrap_or(bgp.asn) == neighbor.remote_as;
    match (neighbor.ttl_security, neighbor.ttl) {
        (true, hops) => Ttl::Security(hops.unwrap_or(1)),
        (false, Some(ttl)) => Ttl::Sent(ttl),
        (false, None) if is_internal => Ttl::Sent(INTERNAL_TTL),
        (false, None) => Ttl::Sent(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bgp(fallback: Fallback) -> Bgp {
        let mut model = model::Bgp::of(65_000);
        (model.router_id, model.fallback) = (Some([10, 0, 0, 1].into()), fallback);
        let config = Config { bgp: Some(model), ..Config::default() };
        let mut bgp = Bgp::new(&config, false, Random::for_test(1), Instant::ZERO).unwrap().unwrap();
        for (n, device) in [(1, Some("tunnel1")), (2, None)] {
            let address = IpAddr::from([169, 254, 0, n]);
            let neighbor = model::Neighbor::at(address, 64_512);
            let device = device.map(Into::into);
            let id = NeighborId(n.into());
            bgp.neighbors.insert(address, Neighbor { id, model: neighbor, tunnel: None, device });
            bgp.by_id.insert(id, address);
        }
        bgp
    }

    /// What follows when a prefix is learnt from a neighbour, or from nobody any more.
    fn learn(bgp: &mut Bgp, prefix: &str, from: Option<u32>) -> Vec<String> {
        let hop = |n: u32| NextHop { peer: NeighborId(n), address: [169, 254, 0, 9].into() };
        let next_hops = from.map(hop).into_iter().collect();
        let change = speaker::RouteChange { prefix: prefix.parse().unwrap(), next_hops, source: None, med: None };
        bgp.take_route(&change);
        shown(bgp)
    }

    fn shown(bgp: &mut Bgp) -> Vec<String> {
        std::iter::from_fn(|| bgp.poll_output())
            .map(|output| {
                let Output::Learnt(change) = output else { panic!("{output:?}") };
                match change {
                    RouteChange::Add(Route { via: Via::Unreachable, .. }) => "refuse".to_owned(),
                    RouteChange::Add(_) => "add".to_owned(),
                    RouteChange::Remove(Route { metric: LAST_METRIC, .. }) => "release".to_owned(),
                    RouteChange::Remove(_) => "remove".to_owned(),
                    RouteChange::AddRule(_) | RouteChange::RemoveRule(_) => panic!("{change:?}"),
                }
            })
            .collect()
    }

    #[test]
    fn what_was_learnt_over_a_tunnel_is_refused_when_it_is_gone_and_until_the_stop() {
        let mut bgp = bgp(Fallback::Unreachable);
        assert_eq!(learn(&mut bgp, "172.31.0.0/16", Some(1)), ["refuse", "add"]);
        assert_eq!(learn(&mut bgp, "172.31.0.0/16", None), ["remove"]);
        assert_eq!(learn(&mut bgp, "172.31.0.0/16", Some(1)), ["add"]);
        bgp.shut_down(false, Instant::ZERO);
        assert_eq!(shown(&mut bgp), ["release"]);
    }

    #[test]
    fn what_another_neighbor_announces_is_left_to_the_routing_table() {
        let mut bgp = bgp(Fallback::Unreachable);
        assert_eq!(learn(&mut bgp, "10.9.0.0/16", Some(2)), ["add"]);
        assert_eq!(learn(&mut bgp, "10.9.0.0/16", None), ["remove"]);
    }

    #[test]
    fn without_a_fallback_nothing_is_refused() {
        assert_eq!(learn(&mut bgp(Fallback::None), "172.31.0.0/16", Some(1)), ["add"]);
    }

    #[test]
    fn a_default_route_is_the_plans_and_nothing_is_refused_for_it() {
        let mut bgp = bgp(Fallback::Unreachable);
        bgp.peers = BTreeSet::from([[192, 0, 2, 1].into()]);
        assert_eq!(learn(&mut bgp, "0.0.0.0/0", Some(1)), [""; 0]);
        assert!(bgp.is_plan_stale() && bgp.covering().count() == 1);
    }
}
