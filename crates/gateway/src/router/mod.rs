//! Routing over tunnels: which of them are fit, which carry the traffic of a VPN connection, and what BGP learns and
//! announces over them.
//!
//! ```text
//!  SAs, DPD --.                                    .--> static routes of VPN connections
//!  BFD -------+--> health of each tunnel --> choice
//!  probes ----'                       \           
//!                                      `--> BGP: is the neighbour reachable --> learnt routes
//! ```
//!
//! A tunnel that is drained is kept out of the choice as long as there is another; its SAs stay up, and what arrives
//! over it is accepted as ever.

mod bfd;
mod bgp;
mod choice;
mod policy;
#[cfg(test)]
mod tests;
mod vpn;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use base::{Deadline, Instant, Machine, Random};
use ipnet::IpNet;
use model::{Config, ProbeKind};
use sa::ChildLabel;

use crate::health::{self, BfdUse, Health, HealthConfig, LossThreshold, ProbeConfig, Signal, TunnelId};
use crate::output::{GatewayEvent, Output, ProbePacket, Route, Severity, SocketOrder};
use crate::status::routing::{BfdStatus, BgpPath, BgpStatus, ProbeStatus, TunnelStatus, VpnStatus};

use self::bfd::Links;
use self::bgp::Bgp;
use self::vpn::Vpn;

/// Routing over the tunnels of a gateway.
#[derive(Debug)]
pub(crate) struct Router {
    tunnels: BTreeMap<TunnelId, Tunnel>,
    by_label: BTreeMap<ChildLabel, TunnelId>,
    by_device: BTreeMap<Arc<str>, TunnelId>,
    last_tunnel: u32,
    vpns: Vec<Vpn>,
    health: Health,
    links: Links,
    bgp: Option<Bgp>,
    random: Random,
    /// Static routes that lead into devices whatever the health of their tunnels.
    fixed_routes: BTreeSet<IpNet>,
    /// What another process left, until the first configuration.
    inherited: Option<Inherited>,
    /// The networks of this host's own interfaces.
    connected: Vec<IpNet>,
    outputs: VecDeque<Output>,
    /// Whether a tunnel is perhaps fit now that was not, or the other way round.
    is_choice_stale: bool,
    /// Whether the static routes are others than when they were last asked for.
    are_routes_stale: bool,
}

/// What another process left: its BGP neighbours were promised that it comes back.
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    /// The tunnels that have SAs.
    pub(crate) up: Vec<ChildLabel>,
    /// Tunnels that ended on purpose, and whose SAs carry what is under way.
    pub(crate) leaving: Vec<ChildLabel>,
    /// BFD sessions that are up.
    pub(crate) bfd: Vec<::bfd::Exported>,
}

/// A tunnel that a VPN connection or a BGP neighbour relies on.
#[derive(Debug)]
struct Tunnel {
    label: ChildLabel,
    device: Arc<str>,
    /// Our own addresses on it, and our networks: sources of what we send ourselves.
    addresses: Vec<IpNet>,
    local: Vec<IpNet>,
    comes_with_traffic: bool,
    is_drained: bool,
    /// Whether the other end wants no traffic over it.
    is_drained_by_peer: bool,
    /// Whether it ends on purpose; its SAs carry what is under way.
    is_leaving: bool,
    is_up: bool,
    /// Whether BGP may rely on it.
    is_reachable: bool,
}

impl Tunnel {
    /// The source address of packets to `destination` that choose none: one of ours behind the tunnel, else one on it.
    fn source(&self, destination: IpNet, own: &[IpAddr]) -> Option<IpAddr> {
        let same_family = |ip: &IpAddr| ip.is_ipv4() == destination.addr().is_ipv4();
        let narrow = self.local.iter().filter(|net| net.prefix_len() > 0);
        let inside = narrow.flat_map(|net| own.iter().copied().filter(|ip| net.contains(ip)));
        inside.chain(self.addresses.iter().map(IpNet::addr)).find(same_family)
    }
}

impl Router {
    pub(crate) fn new(mut random: Random) -> Self {
        Self {
            tunnels: BTreeMap::new(),
            by_label: BTreeMap::new(),
            by_device: BTreeMap::new(),
            last_tunnel: 0,
            vpns: Vec::new(),
            health: Health::new(random.split()),
            links: Links::new(random.split()),
            bgp: None,
            fixed_routes: BTreeSet::new(),
            inherited: None,
            connected: Vec::new(),
            random,
            outputs: VecDeque::new(),
            is_choice_stale: false,
            are_routes_stale: false,
        }
    }

    /// Takes the configuration, the first or a new one. What did not change goes on as it was.
    pub(crate) fn apply(&mut self, config: &Config, now: Instant) {
        let mut wanted: BTreeMap<ChildLabel, HealthConfig> = BTreeMap::new();
        let named = config.vpns.iter().flat_map(|vpn| &vpn.tunnels);
        let neighbors = config.bgp.iter().flat_map(|bgp| &bgp.neighbors).filter_map(|n| n.tunnel.as_ref());
        for name in named.chain(neighbors) {
            let Some(tunnel) = config.tunnel(name) else { continue };
            let label = label_of(&tunnel);
            let id = self.tunnel_of(&label);
            let entry = self.tunnels.entry(id).or_insert_with(|| Tunnel {
                label: label.clone(),
                device: tunnel.device.into(),
                addresses: Vec::new(),
                local: Vec::new(),
                comes_with_traffic: false,
                is_drained: false,
                is_drained_by_peer: false,
                is_leaving: false,
                is_up: false,
                is_reachable: false,
            });
            entry.device = tunnel.device.into();
            entry.addresses = tunnel.addresses.to_vec();
            entry.local = tunnel.child.local.iter().map(|selector| selector.net).collect();
            entry.comes_with_traffic = crate::gateway::comes_with_traffic(tunnel.connection, tunnel.child);
            wanted.insert(label, health_of(config, name));
        }
        let gone: Vec<ChildLabel> =
            self.by_label.keys().filter(|label| !wanted.contains_key(*label)).cloned().collect();
        for label in gone {
            if let Some(id) = self.by_label.remove(&label) {
                self.tunnels.remove(&id);
                self.health.remove(id);
            }
        }
        for (label, health) in wanted {
            let id = self.tunnel_of(&label);
            if let Err(why) = self.health.upsert(id, health, now) {
                self.tell(Some(&label.connection), Severity::Warning, "health", format!("{label}: {why}"));
            }
        }
        self.by_device = self.tunnels.iter().map(|(id, tunnel)| (tunnel.device.clone(), *id)).collect();
        let inherited = self.inherited.take();
        let sessions = inherited.as_ref().map_or(&[][..], |inherited| &inherited.bfd);
        self.links.apply(config, &self.by_label, sessions, now);
        self.vpns = config.vpns.iter().map(|vpn| self.vpn(config, vpn, now)).collect();
        self.fixed_routes = fixed_routes(config);
        // Before BGP: it would not wait for a neighbour whose tunnel is down, and choose without its routes.
        for label in inherited.iter().flat_map(|inherited| &inherited.up) {
            self.note_sa(label, Signal::SaUp, now);
        }
        for label in inherited.iter().flat_map(|inherited| &inherited.leaving) {
            self.set_leaving(label, true, now);
        }
        self.apply_bgp(config, inherited.is_some(), now);
        (self.is_choice_stale, self.are_routes_stale) = (true, true);
        self.turn(now);
        self.announce(now);
    }

    fn apply_bgp(&mut self, config: &Config, is_restarting: bool, now: Instant) {
        if let Some(mut old) = self.bgp.take_if(|bgp| !bgp.suits(config)) {
            old.shut_down(false, now);
            while let Some(output) = old.poll_output() {
                self.outputs.push_back(output);
            }
        }
        if self.bgp.is_none() {
            match Bgp::new(config, is_restarting, self.random.split(), now) {
                Some(Ok(bgp)) => self.bgp = Some(bgp),
                Some(Err(why)) => self.tell(None, Severity::Warning, "bgp", why.to_owned()),
                None => {}
            }
        }
        if let Some(bgp) = &mut self.bgp {
            bgp.apply(config, &self.by_label, &self.tunnels, now);
        }
    }

    /// Goes on with what another process left, from the next configuration on: BGP begins as after a restart.
    pub(crate) fn inherit(&mut self, inherited: Inherited) {
        self.inherited = Some(inherited);
    }

    /// The BFD sessions that are up, for another process.
    pub(crate) fn export_bfd(&self, now: Instant) -> Vec<::bfd::Exported> {
        self.links.export(now)
    }

    /// Another process takes over: BGP's neighbours keep what they learnt until it is there. Those of BFD hear it soon,
    /// and nothing from us: one that is told AdminDown may give up what it learnt (BIRD does).
    pub(crate) fn step_aside(&mut self, now: Instant) {
        if let Some(bgp) = &mut self.bgp {
            bgp.shut_down(true, now);
        }
        self.turn(now);
    }

    /// Announces what is to be announced now.
    fn announce(&mut self, now: Instant) {
        self.announce_statics(now);
        self.turn(now);
    }

    fn announce_statics(&mut self, now: Instant) {
        let Some(bgp) = &mut self.bgp else { return };
        let mut statics = self.fixed_routes.clone();
        statics.extend(self.vpns.iter().filter(|vpn| vpn.is_up()).flat_map(|vpn| vpn.model.routes.iter().copied()));
        bgp.announce(&statics, &self.connected, now);
    }

    /// The networks of this host's own interfaces, without those of tunnels, are these from now on.
    pub(crate) fn set_connected(&mut self, connected: Vec<IpNet>, now: Instant) {
        if self.connected != connected {
            self.connected = connected;
            self.announce(now);
        }
    }

    /// The outer addresses of the tunnels' peers, and the addresses of this host. What follows for learnt routes comes
    /// back: those that cover a peer go to the plan, which asks for [`Self::routes`] now.
    pub(crate) fn set_addresses(&mut self, peers: BTreeSet<IpAddr>, own: &[IpAddr]) -> Vec<Output> {
        let Some(bgp) = &mut self.bgp else { return Vec::new() };
        bgp.set_addresses(peers, own);
        std::iter::from_fn(|| bgp.poll_output()).collect()
    }

    /// What BGP has to say about something that came in. Without BGP nothing comes in.
    pub(crate) fn with_bgp<R>(&mut self, now: Instant, act: impl FnOnce(&mut Bgp) -> R) -> Option<R> {
        let result = act(self.bgp.as_mut()?);
        self.turn(now);
        Some(result)
    }

    /// How BGP is.
    pub(crate) fn bgp_status(&self, now: Instant) -> Option<BgpStatus> {
        Some(self.bgp.as_ref()?.status(&self.tunnels, |ip| self.links.state_with(ip), now))
    }

    /// The paths that BGP knows; see [`Bgp::paths`].
    pub(crate) fn bgp_paths(&self, only: Option<IpNet>, limit: usize) -> Vec<BgpPath> {
        self.bgp.as_ref().map(|bgp| bgp.paths(only, limit)).unwrap_or_default()
    }

    /// The kernel's metric of learnt routes.
    pub(crate) fn bgp_metric(&self) -> Option<u32> {
        self.bgp.as_ref().map(Bgp::metric)
    }

    /// The VPN connections, as configured.
    pub(crate) fn vpn_models(&self) -> impl Iterator<Item = &model::Vpn> {
        self.vpns.iter().map(|vpn| &vpn.model)
    }

    /// The VPN connection as it runs from now on: one that was there remembers how it was.
    fn vpn(&self, config: &Config, model: &model::Vpn, now: Instant) -> Vpn {
        let tunnels = model.tunnels.iter().filter_map(|name| config.tunnel(name));
        let tunnels = tunnels.filter_map(|tunnel| self.by_label.get(&label_of(&tunnel)).copied()).collect();
        let known = self.vpns.iter().find(|vpn| vpn.model.name == model.name);
        Vpn::new(model.clone(), tunnels, known, now)
    }

    fn tunnel_of(&mut self, label: &ChildLabel) -> TunnelId {
        if let Some(id) = self.by_label.get(label) {
            return *id;
        }
        self.last_tunnel += 1;
        let id = TunnelId(self.last_tunnel);
        self.by_label.insert(label.clone(), id);
        id
    }

    /// Whether a tunnel has an SA; said after every change.
    pub(crate) fn note_sa(&mut self, label: &ChildLabel, signal: Signal, now: Instant) {
        let Some(id) = self.by_label.get(label).copied() else { return };
        let is_up = signal == Signal::SaUp;
        let Some(tunnel) = self.tunnels.get_mut(&id).filter(|tunnel| tunnel.is_up != is_up) else { return };
        tunnel.is_up = is_up;
        tunnel.is_drained_by_peer = false;
        tunnel.is_leaving &= !is_up;
        self.is_choice_stale = true;
        self.health.handle_signal(id, signal, now);
        self.turn(now);
    }

    /// Keeps traffic away from a tunnel, or lets it come again.
    pub(crate) fn set_drained(&mut self, label: &ChildLabel, is_drained: bool, now: Instant) {
        let Some(id) = self.by_label.get(label).copied() else { return };
        if let Some(tunnel) = self.tunnels.get_mut(&id) {
            tunnel.is_drained = is_drained;
        }
        self.is_choice_stale = true;
        if let Some(bgp) = &mut self.bgp {
            bgp.set_draining(id, is_drained, now);
        }
        if !is_drained {
            self.links.hold_down(id, false, now);
        }
        self.turn(now);
    }

    /// The other end of a tunnel asks to send another way where there is one, or takes that back.
    pub(crate) fn set_drained_by_peer(&mut self, label: &ChildLabel, is_drained: bool, now: Instant) {
        let Some(id) = self.by_label.get(label) else { return };
        if let Some(tunnel) = self.tunnels.get_mut(id) {
            tunnel.is_drained_by_peer = is_drained;
        }
        self.is_choice_stale = true;
        self.turn(now);
    }

    /// A tunnel ends on purpose: it is used where there is no other, until that is over.
    pub(crate) fn set_leaving(&mut self, label: &ChildLabel, is_leaving: bool, now: Instant) {
        let Some(id) = self.by_label.get(label) else { return };
        let Some(tunnel) = self.tunnels.get_mut(id).filter(|tunnel| tunnel.is_leaving != is_leaving) else { return };
        tunnel.is_leaving = is_leaving;
        self.is_choice_stale = true;
        self.turn(now);
    }

    /// Tells the other end of a drained tunnel that it goes down on purpose.
    pub(crate) fn hold_down(&mut self, label: &ChildLabel, now: Instant) {
        let Some(id) = self.by_label.get(label).copied() else { return };
        self.links.hold_down(id, true, now);
        self.turn(now);
    }

    /// What watching a tunnel costs, in packets a second, both directions together.
    pub(crate) fn upkeep(&self, label: &ChildLabel) -> f64 {
        let Some(id) = self.by_label.get(label) else { return 0.0 };
        let probes = self.health.probe_interval(*id).map_or(0.0, |interval| 2.0 / interval.as_secs_f64());
        // A BGP session says little while nothing changes: some packets with each KEEPALIVE.
        self.links.rate(*id) + probes + 5.0
    }

    /// Whether traffic would have another way if this tunnel were not there.
    pub(crate) fn has_alternative(&self, label: &ChildLabel, now: Instant) -> bool {
        let Some(id) = self.by_label.get(label) else { return false };
        let is_fit = |other: &TunnelId| {
            let is_drained = self.tunnels.get(other).is_none_or(|tunnel| tunnel.is_drained);
            let grade = self.health.status(*other, now).map(|status| status.grade);
            other != id && !is_drained && grade.is_some_and(|grade| grade > health::Grade::Unhealthy)
        };
        let by_routes = self.vpns.iter().filter(|vpn| vpn.tunnels.contains(id) && !vpn.model.routes.is_empty());
        let by_bgp = self.bgp.iter().filter(|bgp| bgp.has_neighbor_over(*id));
        by_routes
            .map(|vpn| vpn.tunnels.iter().any(is_fit))
            .chain(by_bgp.map(|bgp| bgp.has_other(*id, now)))
            .all(|is| is)
    }

    /// A BFD control packet came in.
    pub(crate) fn handle_bfd(&mut self, local: SocketAddr, remote: SocketAddr, ttl: u8, payload: &[u8], now: Instant) {
        self.links.handle_packet(local, remote, ttl, payload, now);
        self.turn(now);
    }

    /// The source port of a BFD session belongs to somebody else.
    pub(crate) fn handle_bfd_port_taken(&mut self, session: ::bfd::SessionId, now: Instant) {
        self.links.handle_port_taken(session, now);
        self.turn(now);
    }

    /// An answer to a probe came out of a tunnel's device. One that does not count is counted.
    pub(crate) fn handle_probe_reply(&mut self, device: &str, source: IpAddr, payload: &[u8], now: Instant) {
        if let Some(id) = self.by_device.get(device).copied() {
            let _ = self.health.handle_reply(id, source, payload, now);
            self.turn(now);
        }
    }

    /// The static routes that VPN connections ask for now. `own` are the addresses of this host.
    pub(crate) fn routes(&mut self, own: &[IpAddr]) -> Vec<Route> {
        self.are_routes_stale = false;
        let covering = self.bgp.as_mut().into_iter().flat_map(|bgp| bgp.covering().cloned().collect::<Vec<_>>());
        let covering: Vec<Route> = covering.collect();
        self.vpns.iter().flat_map(|vpn| vpn.routes(&self.tunnels, own)).chain(covering).collect()
    }

    /// Whether [`Self::routes`] would say something else than before.
    pub(crate) fn are_routes_stale(&self) -> bool {
        self.are_routes_stale || self.bgp.as_ref().is_some_and(Bgp::is_plan_stale)
    }

    /// Takes what the machines within say, until they are silent.
    fn turn(&mut self, now: Instant) {
        loop {
            if let Some(output) = self.links.poll_output() {
                self.take_link(output, now);
            } else if let Some(output) = self.health.poll_output() {
                self.take_health(output);
            } else if let Some(output) = self.bgp.as_mut().and_then(Bgp::poll_output) {
                self.outputs.push_back(output);
            } else if std::mem::take(&mut self.is_choice_stale) {
                self.note_reachable(now);
                self.choose(now);
            } else {
                break;
            }
        }
    }

    /// Tells BGP which tunnels it may rely on.
    fn note_reachable(&mut self, now: Instant) {
        for (id, tunnel) in &mut self.tunnels {
            let grade = self.health.status(*id, now).map_or(health::Grade::Unhealthy, |status| status.grade);
            let is_reachable = tunnel.is_up && grade > health::Grade::Unhealthy;
            if std::mem::replace(&mut tunnel.is_reachable, is_reachable) != is_reachable
                && let Some(bgp) = &mut self.bgp
            {
                bgp.set_reachable(*id, is_reachable, now);
            }
        }
    }

    fn take_link(&mut self, output: bfd::Output, now: Instant) {
        match output {
            bfd::Output::Send(order) => self.outputs.push_back(Output::Socket(order)),
            bfd::Output::Changed { remote, tunnel, what } => {
                let connection = tunnel.and_then(|id| Some(self.tunnels.get(&id)?.label.connection.clone()));
                let (severity, text) = match &what {
                    health::Bfd::Up => (Severity::Info, format!("BFD with {remote} is up")),
                    health::Bfd::Down(why) => (Severity::Warning, format!("BFD with {remote} is down: {why}")),
                    health::Bfd::AdminDown => (Severity::Info, format!("BFD with {remote} is held down")),
                };
                self.tell(connection.as_ref(), severity, "bfd", text);
                if let (health::Bfd::Down(_), Some(bgp)) = (&what, &mut self.bgp) {
                    bgp.note_bfd_down(remote, now);
                }
                if let Some(id) = tunnel {
                    self.health.handle_signal(id, Signal::Bfd(what), now);
                }
            }
        }
    }

    fn take_health(&mut self, output: health::Output) {
        match output {
            health::Output::Probe(probe) => {
                if let Some(tunnel) = self.tunnels.get(&probe.tunnel) {
                    let packet = ProbePacket { device: tunnel.device.clone(), probe };
                    self.outputs.push_back(Output::Socket(SocketOrder::Probe(packet)));
                }
            }
            health::Output::Verdict(verdict) => {
                self.is_choice_stale = true;
                let Some(tunnel) = self.tunnels.get(&verdict.tunnel) else { return };
                let (label, device) = (tunnel.label.clone(), &tunnel.device);
                let (severity, how) = match verdict.grade {
                    health::Grade::Healthy => (Severity::Info, "is fit for traffic"),
                    health::Grade::Settling => (Severity::Info, "works again, and has to stay so"),
                    health::Grade::Unhealthy => (Severity::Warning, "is not fit for traffic"),
                };
                let text = format!("the tunnel {label} ({device}) {how}: {}", verdict.reason);
                self.tell(Some(&label.connection), severity, "tunnel_health", text);
            }
        }
    }

    /// Chooses anew which tunnels carry what, and says what changed.
    fn choose(&mut self, now: Instant) {
        let (mut told, mut has_turned) = (Vec::new(), false);
        for vpn in &mut self.vpns {
            let was_up = vpn.is_up();
            if let Some(text) = vpn.choose(&self.tunnels, &self.health, now) {
                self.are_routes_stale = true;
                told.push(text);
            }
            has_turned |= vpn.is_up() != was_up;
        }
        if has_turned || !told.is_empty() {
            self.announce_statics(now);
        }
        for (severity, text) in told {
            self.tell(None, severity, "vpn", text);
        }
    }

    fn tell(&mut self, connection: Option<&Arc<str>>, severity: Severity, name: &'static str, text: String) {
        let connection = connection.cloned();
        self.outputs.push_back(Output::Event(GatewayEvent { connection, severity, name, text }));
    }

    /// How the VPN connections are.
    pub(crate) fn vpn_statuses(&self, now: Instant) -> Vec<VpnStatus> {
        let tunnel = |id: &TunnelId| self.tunnel_status(*id, now);
        self.vpns.iter().map(|vpn| vpn.status(&self.tunnels, vpn.tunnels.iter().filter_map(tunnel), now)).collect()
    }

    fn tunnel_status(&self, id: TunnelId, now: Instant) -> Option<TunnelStatus> {
        let (tunnel, health) = (self.tunnels.get(&id)?, self.health.status(id, now)?);
        let us = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let probe = health.probe.map(|probe| ProbeStatus {
            target: self.health.target(id).map(|ip| ip.to_string()).unwrap_or_default(),
            sent: probe.sent,
            answered: probe.answered,
            lost: probe.lost,
            last_rtt_us: probe.round_trips.map(|rtt| us(rtt.last)),
            least_rtt_us: probe.round_trips.map(|rtt| us(rtt.min)),
            median_rtt_us: probe.round_trips.map(|rtt| us(rtt.p50)),
        });
        Some(TunnelStatus {
            connection: tunnel.label.connection.to_string(),
            child: tunnel.label.child.to_string(),
            device: tunnel.device.to_string(),
            is_healthy: health.grade == health::Grade::Healthy,
            for_s: now.saturating_since(health.since).as_secs(),
            why: health.reason.to_string(),
            is_drained: tunnel.is_drained,
            is_drained_by_peer: tunnel.is_drained_by_peer,
            is_draining: false,
            probe,
            bfd: self.links.state_of(id).map(str::to_owned),
        })
    }

    /// How the BFD sessions are.
    pub(crate) fn bfd_statuses(&self, now: Instant) -> Vec<BfdStatus> {
        self.links.statuses(&self.tunnels, now)
    }
}

impl Machine for Router {
    type Output = Output;

    fn handle_timeout(&mut self, now: Instant) {
        self.health.handle_timeout(now);
        self.links.handle_timeout(now);
        if let Some(bgp) = &mut self.bgp {
            bgp.handle_timeout(now);
        }
        self.turn(now);
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        let below = Deadline::earliest(self.health.poll_timeout(), self.links.poll_timeout());
        Deadline::earliest(below, self.bgp.as_ref().and_then(Bgp::poll_timeout))
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }
}

fn label_of(tunnel: &model::Tunnel<'_>) -> ChildLabel {
    ChildLabel { connection: tunnel.connection.name.as_str().into(), child: tunnel.child.name.as_str().into() }
}

/// What is watched of a tunnel: what its VPN connection says; for a neighbour's tunnel without one, the SAs.
fn health_of(config: &Config, name: &str) -> HealthConfig {
    let mut health = HealthConfig::default();
    let is_same = |other: &String| match (config.tunnel(other), config.tunnel(name)) {
        (Some(a), Some(b)) => label_of(&a) == label_of(&b),
        _ => false,
    };
    let found = config.vpns.iter().find_map(|vpn| Some((vpn, vpn.tunnels.iter().position(is_same)?)));
    let Some((vpn, place)) = found else { return health };
    health.rise = vpn.health.hold_up;
    health.longest_rise = health.longest_rise.max(health.rise);
    if vpn.health.bfd.is_some() {
        health.bfd = BfdUse::OnceUp;
    }
    let tunnel = config.tunnel(name);
    if let (Some(probe), Some(tunnel)) = (&vpn.health.probe, tunnel) {
        let target = probe.targets.get(place).copied().or_else(|| tunnel.far_end());
        let source =
            |target: IpAddr| tunnel.addresses.iter().map(IpNet::addr).find(|ip| ip.is_ipv4() == target.is_ipv4());
        health.probe = target.and_then(|target| {
            let kind = match probe.kind {
                ProbeKind::Icmp => health::ProbeKind::IcmpEcho,
                ProbeKind::Udp(port) => health::ProbeKind::UdpEcho { port },
            };
            let threshold = LossThreshold::InARow(u8::try_from(probe.loss).unwrap_or(64).min(64));
            let timeout = probe.interval.mul_f64(0.65).max(std::time::Duration::from_millis(10));
            let source = source(target)?;
            Some(ProbeConfig { kind, source, target, interval: probe.interval, timeout, threshold })
        });
    }
    health
}

/// Static routes into devices, which are there whatever the health of the tunnels.
fn fixed_routes(config: &Config) -> BTreeSet<IpNet> {
    let children = config.connections.iter().flat_map(|connection| &connection.children);
    let routes = children.flat_map(|child| match &child.routing {
        model::Routing::Policy => &[][..],
        model::Routing::Device { routes, .. } => routes,
    });
    routes.map(IpNet::trunc).collect()
}

/// Every device that carries a tunnel of `tunnels`, sorted.
fn devices(tunnels: &BTreeMap<TunnelId, Tunnel>, ids: &[TunnelId]) -> Vec<Arc<str>> {
    let devices: BTreeSet<_> = ids.iter().filter_map(|id| Some(tunnels.get(id)?.device.clone())).collect();
    devices.into_iter().collect()
}
