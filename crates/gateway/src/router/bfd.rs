//! The BFD sessions of a gateway: one for each pair of addresses that a VPN connection or a BGP neighbour watches.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use base::{Deadline, Instant, Machine, Random};
use bfd::{EventKind, SessionConfig, SessionId, Sessions, State};
use model::{BfdTimers, Config};
use sa::ChildLabel;

use super::{Tunnel, label_of};
use crate::health::{self, TunnelId};
use crate::output::{BfdPacket, SocketOrder};
use crate::status::routing::BfdStatus;

/// One thing to do or to tell, in order.
#[derive(Debug)]
pub(super) enum Output {
    /// Do this.
    Send(SocketOrder),
    /// A session with this neighbour changed.
    Changed { remote: IpAddr, tunnel: Option<TunnelId>, what: health::Bfd },
}

/// Who is watched, from where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Pair {
    local: IpAddr,
    remote: IpAddr,
}

#[derive(Clone, Debug)]
struct Link {
    id: SessionId,
    timers: BfdTimers,
    tunnel: Option<TunnelId>,
    device: Option<Arc<str>>,
}

#[derive(Debug)]
pub(super) struct Links {
    links: BTreeMap<Pair, Link>,
    by_id: BTreeMap<SessionId, Pair>,
    sessions: Sessions,
    last_id: u32,
    outputs: VecDeque<Output>,
}

impl Links {
    pub(super) fn new(random: Random) -> Self {
        let sessions = Sessions::new(bfd::Options::default(), random);
        Self { links: BTreeMap::new(), by_id: BTreeMap::new(), sessions, last_id: 0, outputs: VecDeque::new() }
    }

    /// Makes the sessions those of the configuration; what did not change goes on, and so does what another process left.
    pub(super) fn apply(
        &mut self,
        config: &Config,
        ids: &BTreeMap<ChildLabel, TunnelId>,
        inherited: &[bfd::Exported],
        now: Instant,
    ) {
        let wanted = wanted(config, ids);
        let gone: Vec<Pair> = self.links.keys().filter(|pair| !wanted.contains_key(*pair)).cloned().collect();
        for link in gone.into_iter().filter_map(|pair| self.links.remove(&pair)) {
            self.sessions.remove(link.id, now);
            self.by_id.remove(&link.id);
        }
        for (pair, (timers, tunnel, device)) in wanted {
            let id = self.links.get(&pair).map_or_else(
                || {
                    self.last_id += 1;
                    SessionId(self.last_id)
                },
                |known| known.id,
            );
            let config = SessionConfig {
                min_tx: timers.interval,
                min_rx: timers.interval,
                multiplier: timers.multiplier,
                ..SessionConfig::new(pair.local, pair.remote)
            };
            let left = inherited.iter().find(|left| (left.local, left.remote) == (pair.local, pair.remote));
            let left = left.filter(|_| !self.links.contains_key(&pair));
            let made = match left {
                Some(left) => self.sessions.resume(id, config, left, now),
                None => self.sessions.upsert(id, config, now),
            };
            // A session that cannot be was refused when the configuration was read.
            if made.is_ok() {
                self.by_id.insert(id, pair.clone());
                self.links.insert(pair, Link { id, timers, tunnel, device });
            }
        }
        self.drain();
    }

    /// The sessions that are up, for another process.
    pub(super) fn export(&self, now: Instant) -> Vec<bfd::Exported> {
        self.sessions.export(now)
    }

    pub(super) fn handle_packet(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        ttl: u8,
        payload: &[u8],
        now: Instant,
    ) {
        // One that is discarded is counted there.
        let _ = self.sessions.handle_packet(local, remote, ttl, payload, now);
        self.drain();
    }

    pub(super) fn handle_port_taken(&mut self, session: SessionId, now: Instant) {
        self.sessions.handle_port_taken(session, now);
        self.drain();
    }

    /// Holds the sessions of a tunnel down, so that the other end does not take their silence for a failure.
    pub(super) fn hold_down(&mut self, tunnel: TunnelId, is_held: bool, now: Instant) {
        let reason = is_held.then_some(bfd::Diagnostic::ADMINISTRATIVELY_DOWN);
        for link in self.links.values().filter(|link| link.tunnel == Some(tunnel)) {
            self.sessions.set_admin_down(link.id, reason, now);
        }
        self.drain();
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.sessions.handle_timeout(now);
        self.drain();
    }

    pub(super) fn poll_timeout(&self) -> Option<Deadline> {
        self.sessions.poll_timeout()
    }

    pub(super) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn link(&self, id: SessionId) -> Option<(&Pair, &Link)> {
        self.links.get_key_value(self.by_id.get(&id)?)
    }

    fn drain(&mut self) {
        while let Some(output) = self.sessions.poll_output() {
            let output = match output {
                bfd::Output::Transmit(transmit) => {
                    let device = self.link(transmit.session).and_then(|(_, link)| link.device.clone());
                    Output::Send(SocketOrder::Bfd(BfdPacket { device, transmit }))
                }
                bfd::Output::Release { session, local } => Output::Send(SocketOrder::BfdRelease { session, local }),
                bfd::Output::Event(event) => {
                    let Some((pair, link)) = self.link(event.session) else { continue };
                    let what = match event.kind {
                        EventKind::Up => health::Bfd::Up,
                        EventKind::Down { cause, .. } if cause.is_failure() => {
                            health::Bfd::Down(cause.to_string().into())
                        }
                        EventKind::Down { .. } => health::Bfd::AdminDown,
                    };
                    Output::Changed { remote: pair.remote, tunnel: link.tunnel, what }
                }
            };
            self.outputs.push_back(output);
        }
    }

    /// What the session over a tunnel costs, in packets a second, both directions together.
    pub(super) fn rate(&self, tunnel: TunnelId) -> f64 {
        let links = self.links.values().filter(|link| link.tunnel == Some(tunnel));
        links.map(|link| 2.0 / link.timers.interval.as_secs_f64()).sum()
    }

    /// The state of the session over a tunnel.
    pub(super) fn state_of(&self, tunnel: TunnelId) -> Option<&'static str> {
        let link = self.links.values().find(|link| link.tunnel == Some(tunnel))?;
        self.sessions.status(link.id).map(|status| state_name(status.state))
    }

    /// The state of the session with a neighbour.
    pub(super) fn state_with(&self, remote: IpAddr) -> Option<&'static str> {
        let (_, link) = self.links.iter().find(|(pair, _)| pair.remote == remote)?;
        self.sessions.status(link.id).map(|status| state_name(status.state))
    }

    pub(super) fn statuses(&self, tunnels: &BTreeMap<TunnelId, Tunnel>, now: Instant) -> Vec<BfdStatus> {
        let ms = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let status = |link: &Link| {
            let status = self.sessions.status(link.id)?;
            let device = link.tunnel.and_then(|id| tunnels.get(&id)).map(|tunnel| tunnel.device.to_string());
            Some(BfdStatus {
                local: status.local.ip().to_string(),
                remote: status.remote.ip().to_string(),
                device,
                state: state_name(status.state).to_owned(),
                for_s: now.saturating_since(status.since).as_secs(),
                remote_state: state_name(status.remote_state).to_owned(),
                last_diagnostic: status.last_local_diagnostic.to_string(),
                remote_diagnostic: status.last_remote_diagnostic.to_string(),
                local_discriminator: status.local_discriminator.get(),
                remote_discriminator: status.remote_discriminator.map(Into::into),
                transmit_interval_ms: status.transmit_interval.map(ms),
                receive_interval_ms: status.receive_interval.map(ms),
                detection_ms: status.detection_time.map(ms),
                sent: status.counters.sent,
                received: status.counters.received,
                discarded: status.counters.discards.total(),
                flaps: status.counters.flaps,
            })
        };
        self.links.values().filter_map(status).collect()
    }
}

fn state_name(state: State) -> &'static str {
    match state {
        State::AdminDown => "admin_down",
        State::Down => "down",
        State::Init => "init",
        State::Up => "up",
    }
}

type Wanted = BTreeMap<Pair, (BfdTimers, Option<TunnelId>, Option<Arc<str>>)>;

/// Which sessions a configuration asks for. Where both a VPN connection and a neighbour watch the same address they
/// share a session (RFC 5882 §4.4), with the faster timers.
fn wanted(config: &Config, ids: &BTreeMap<ChildLabel, TunnelId>) -> Wanted {
    let mut wanted = Wanted::new();
    let mut add = |pair: Pair, timers: BfdTimers, tunnel: Option<TunnelId>, device: Option<Arc<str>>| {
        let entry = wanted.entry(pair).or_insert((timers, tunnel, device));
        if timers.interval * timers.multiplier.into() < entry.0.interval * entry.0.multiplier.into() {
            entry.0 = timers;
        }
    };
    let own = |tunnel: &model::Tunnel<'_>, remote: IpAddr| {
        let addresses = || tunnel.addresses.iter().map(ipnet::IpNet::addr);
        addresses().find(|ip| ip.is_ipv4() == remote.is_ipv4())
    };
    for (vpn, timers) in config.vpns.iter().filter_map(|vpn| Some((vpn, vpn.health.bfd?))) {
        for tunnel in vpn.tunnels.iter().filter_map(|name| config.tunnel(name)) {
            let Some(remote) = tunnel.far_end() else { continue };
            let Some(local) = own(&tunnel, remote) else { continue };
            let id = ids.get(&label_of(&tunnel)).copied();
            add(Pair { local, remote }, timers, id, Some(tunnel.device.into()));
        }
    }
    let neighbors = config.bgp.iter().flat_map(|bgp| &bgp.neighbors);
    for (neighbor, timers) in neighbors.filter_map(|neighbor| Some((neighbor, neighbor.bfd?))) {
        let remote = neighbor.address;
        let tunnel = neighbor.tunnel.as_ref().and_then(|name| config.tunnel(name));
        let local = neighbor.local_address.or_else(|| own(tunnel.as_ref()?, remote));
        let Some(local) = local else { continue };
        let id = tunnel.as_ref().and_then(|tunnel| ids.get(&label_of(tunnel)).copied());
        add(Pair { local, remote }, timers, id, tunnel.map(|tunnel| tunnel.device.into()));
    }
    wanted
}
