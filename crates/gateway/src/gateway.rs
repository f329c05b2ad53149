//! The gateway: one machine over the IKE endpoint, the plan of the world outside, and the memory of each connection.

mod export;
mod leaving;
mod routing;
mod table;

pub(crate) use export::ExportedPaths;
pub use export::{Exported, ExportedOne};

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base::{Deadline, Instant, Machine, Random};
use ike::{CloseReason, Endpoint, PeerId, Rekey};
use model::{Child, Config, Connection, DpdAction, GatewayOptions, Routing, Sources, Start};
use sa::{ChildLabel, Path, SaChange, SaId};

use crate::command::{Command, CommandError, RekeyWhat, nearest};
use crate::drain::Drain;
use crate::health::SaLoss;
use crate::mtu;
use crate::output::{GatewayEvent, Output, Severity};
use crate::path_mtu::Source;
use crate::paths::{self, Paths};
use crate::plan::{Plan, Wanted};
use crate::record::{LiveSa, Record, State};
use crate::router::Router;
use crate::status::{self, Status};
use crate::tally::{Negotiations, Phases};

use self::leaving::Lingering;

/// Traffic asks for a child at most this often: what fails at once must not be tried with every packet.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// The connections of a configuration, negotiated and kept.
#[derive(Debug)]
pub struct Gateway {
    options: GatewayOptions,
    endpoint: Endpoint,
    router: Router,
    /// Tunnels that are being drained.
    drains: BTreeMap<ChildLabel, Drain>,
    lingering: Lingering,
    records: BTreeMap<PeerId, Record>,
    by_name: BTreeMap<Arc<str>, PeerId>,
    by_sa: BTreeMap<SaId, (PeerId, Arc<str>)>,
    /// Names of connections that are gone while their last messages are under way.
    departed: BTreeMap<PeerId, Arc<str>>,
    last_peer: u32,
    plan: Plan,
    paths: Paths,
    /// Whether something changed that the plan depends on.
    is_plan_stale: bool,
    own_addresses: Vec<IpAddr>,
    /// When the next replaced pre-shared key is not accepted any more.
    keys_retire_at: Option<Instant>,
    outputs: VecDeque<Output>,
}

impl Gateway {
    /// A gateway without connections. Ports, limits and intervals stay as `options` says; `apply` brings the rest.
    pub fn new(options: GatewayOptions, mut random: Random) -> Self {
        let ike = ike_options(&options);
        Self {
            options,
            router: Router::new(random.split()),
            drains: BTreeMap::new(),
            lingering: Lingering::default(),
            endpoint: Endpoint::new(ike, random),
            records: BTreeMap::new(),
            by_name: BTreeMap::new(),
            by_sa: BTreeMap::new(),
            departed: BTreeMap::new(),
            last_peer: 0,
            plan: Plan::default(),
            paths: Paths::default(),
            is_plan_stale: false,
            own_addresses: Vec::new(),
            keys_retire_at: None,
            outputs: VecDeque::new(),
        }
    }

    /// Takes a configuration, the first or a new one. Connections that did not change keep their SAs; those that
    /// changed are taken down and negotiated anew; those that are gone are taken down. The configuration must be
    /// valid ([`model::validate`]).
    pub fn apply(&mut self, config: Config, now: Instant) {
        self.forget_departed();
        self.router.apply(&config, now);
        self.take_options(config.gateway);
        let mut kept: BTreeMap<Arc<str>, PeerId> = BTreeMap::new();
        let mut start = Vec::new();
        for connection in config.connections {
            let name: Arc<str> = connection.name.as_str().into();
            let known = self.by_name.get(&name).copied();
            let id = match known {
                Some(id) if self.records.get(&id).is_some_and(|r| is_same(&r.connection, &connection)) => {
                    self.take_sources(id, connection, now);
                    id
                }
                Some(id) if self.records.get(&id).is_some_and(|r| is_rekeyed(&r.connection, &connection)) => {
                    self.take_keys(id, connection, now);
                    id
                }
                Some(_) | None => {
                    let counted = known.and_then(|old| self.negotiations(old));
                    let was_up = known.is_some_and(|old| self.retire(old, "its configuration changed", now));
                    let id = self.load(connection, now);
                    if let (Some(counted), Some(record)) = (counted, self.records.get_mut(&id)) {
                        record.negotiations = counted;
                    }
                    start.push((id, was_up));
                    id
                }
            };
            kept.insert(name, id);
        }
        let gone: Vec<PeerId> =
            self.by_name.iter().filter(|(n, id)| kept.get(*n) != Some(id)).map(|(_, id)| *id).collect();
        for id in gone {
            self.retire(id, "it is not in the configuration any more", now);
        }
        self.by_name = kept;
        self.note_tunnels(now);
        self.replan();
        for (id, was_up) in start {
            // Whoever hears it may send: what holds the traffic is in effect before.
            let text = "loaded; its traffic is encrypted or dropped from now on".to_owned();
            self.tell(id, Severity::Info, "loaded", text, now);
            let children = match self.records.get(&id) {
                Some(record) if was_up => {
                    record.connection.children.iter().map(|child| child.name.as_str().into()).collect()
                }
                Some(record) => record.starting_children(),
                None => Vec::new(),
            };
            for child in children {
                self.endpoint.initiate(id, Some(&child), now);
            }
        }
        self.pump(now);
    }

    /// Carries out an order.
    ///
    /// # Errors
    /// When no connection or child has the name, or when it cannot be done as things are.
    pub fn command(&mut self, command: Command, now: Instant) -> Result<(), CommandError> {
        let (id, child) = self.find(command.target())?;
        let Some(record) = self.records.get_mut(&id) else { return Ok(()) };
        let target = match &child {
            Some(child) if **child != *record.name => format!("{}/{child}", record.name),
            Some(_) | None => record.name.to_string(),
        };
        match command {
            Command::Up(_) => {
                if record.remote.is_none()
                    && record.sas.is_empty()
                    && record.connection.remote.address.ip().is_none()
                    && !matches!(record.connection.remote.address, model::Address::Name(_))
                {
                    return Err(CommandError::NoAddress { connection: record.name.to_string() });
                }
                record.is_held_down = false;
                self.stop_draining(id, child.as_deref(), now);
                self.tell(id, Severity::Info, "command", format!("{target} is brought up by command"), now);
                self.endpoint.initiate(id, child.as_deref(), now);
            }
            Command::Down(_) => {
                if child.is_none() {
                    record.is_held_down = true;
                }
                self.tell(id, Severity::Info, "command", format!("{target} is taken down by command"), now);
                self.leave(id, child.as_deref(), now);
                self.endpoint.terminate(id, child.as_deref(), now);
                if child.is_none()
                    && let Some(record) = self.records.get_mut(&id)
                {
                    record.is_connecting = false;
                }
            }
            Command::Drain(_) => self.begin_draining(id, child.as_deref(), now)?,
            Command::Rekey { what, .. } => {
                if record.sas.is_empty() {
                    return Err(CommandError::NotUp { connection: record.name.to_string() });
                }
                self.tell(id, Severity::Info, "command", format!("{target} is rekeyed by command"), now);
                self.rekey(id, child.as_deref(), what, now);
            }
        }
        self.pump(now);
        self.settle(id, "by command", now);
        Ok(())
    }

    /// A UDP datagram came in on an IKE port; `payload` is all of it, with the non-ESP marker where it has one.
    pub fn handle_datagram(&mut self, local: SocketAddr, remote: SocketAddr, payload: &[u8], now: Instant) {
        self.endpoint.handle_datagram(local, remote, payload, now);
        self.pump_datagram(now);
    }

    /// The data path has something to say.
    pub fn handle_esp_event(&mut self, event: esp::Event, now: Instant) {
        match event {
            esp::Event::FirstInbound(id) => self.endpoint.note_first_inbound(id, now),
            esp::Event::SoftLimit(id) => self.endpoint.note_soft_limit(id, now),
            esp::Event::HardLimit(id) => self.endpoint.note_hard_limit(id, now),
            esp::Event::PeerMoved { id, from } => self.endpoint.note_peer_moved(id, from, now),
            esp::Event::NoSa { label, flow } => self.handle_traffic(&label, flow, now),
        }
        self.pump(now);
    }

    /// Authentic packets came in on this SA since the last call, the last of them at `at`: the peer was alive then.
    pub fn note_alive(&mut self, id: SaId, at: Instant, now: Instant) {
        self.endpoint.note_alive(id, at);
        self.paths.note_in_use(id, now);
    }

    /// Says which addresses the shell found for a connection: ours towards the peer (a route's source), and the
    /// peer's where the configuration has a name.
    pub fn set_addresses(&mut self, connection: &str, local: Option<IpAddr>, remote: Option<IpAddr>, now: Instant) {
        let Some(id) = self.by_name.get(connection).copied() else { return };
        let Some(record) = self.records.get_mut(&id) else { return };
        let configured = (record.connection.local.address.ip(), record.connection.remote.address.ip());
        let found = (configured.0.or(local), configured.1.or(remote));
        let moved = found.1 != record.remote;
        if found == (record.local, record.remote) {
            return;
        }
        (record.local, record.remote) = found;
        self.is_plan_stale |= moved;
        self.endpoint.set_addresses(id, local, remote, now);
        self.pump(now);
    }

    /// A connection cannot begin yet, and why, in a sentence without a full stop: its peer's name does not resolve, or
    /// no route leads to it.
    pub fn note_waiting(&mut self, connection: &str, why: &str, now: Instant) {
        let Some(id) = self.by_name.get(connection).copied() else { return };
        if let Some(record) = self.records.get_mut(&id).filter(|record| record.why != why) {
            record.why = why.to_owned();
            self.tell(id, Severity::Warning, "waiting", why.to_owned(), now);
        }
    }

    /// Says what interface or route (`from`) tell of the way to the peer of a connection: the largest packet that leaves,
    /// in bytes. Whether the path takes it is found out ([`crate::path_mtu`]).
    pub fn set_path_mtu(&mut self, connection: &str, mtu: u16, from: Source, now: Instant) {
        let Some(id) = self.by_name.get(connection).copied() else { return };
        if self.paths.set_upper(id, mtu, from, now) {
            self.is_plan_stale = true;
            self.pump(now);
        }
    }

    /// A router, or the kernel that heard one, says that the path to this address takes outer packets of at most `mtu`
    /// bytes. It is not believed where the peer can be asked.
    pub fn note_path_mtu(&mut self, remote: IpAddr, mtu: u16, now: Instant) {
        self.paths.note_hint(remote, mtu, now);
        self.pump(now);
    }

    /// Whether a packet that an ICMP error quotes is one of an SA: sent the way that it sends, with its SPI where the
    /// quotation reaches so far.
    pub fn has_sent(&self, quoted: &packet::icmp::Quoted) -> bool {
        let (from, to) = (quoted.source, quoted.destination);
        let is_its = |child: &ike::ChildView| {
            let Path { local, remote, udp } = child.path;
            let port = |end: SocketAddr| udp.then_some(end.port());
            (remote.ip(), port(remote)) == to
                && port(local) == from.1
                && (local.ip().is_unspecified() || local.ip() == from.0)
                && quoted.spi.is_none_or(|spi| child.spis.1.0 == spi)
        };
        let mut peers = self.paths.peers_at(to.0);
        peers.any(|peer| self.endpoint.sas_of(peer).iter().flat_map(|sa| &sa.children).any(is_its))
    }

    /// Says which addresses this host has, without those of its tunnels.
    pub fn set_own_addresses(&mut self, addresses: Vec<IpAddr>, _now: Instant) {
        if self.own_addresses != addresses {
            self.own_addresses = addresses;
            self.is_plan_stale = true;
        }
    }

    /// Takes everything down, tells the peers, and forgets all connections.
    pub fn shut_down(&mut self, now: Instant) {
        // First, while there are tunnels that carry it: BGP and BFD say that they end on purpose.
        self.router.apply(&Config::default(), now);
        self.pump_router(now);
        for id in self.by_name.values().copied().collect::<Vec<_>>() {
            self.retire(id, "the gateway stops", now);
        }
        self.by_name.clear();
        self.replan();
        self.pump(now);
    }

    /// The connections, by name.
    pub fn connections(&self) -> impl Iterator<Item = &Arc<Connection>> {
        self.by_name.values().filter_map(|id| Some(&self.records.get(id)?.connection))
    }

    /// What the options are. Ports, limits and intervals are those of the start.
    pub fn options(&self) -> &GatewayOptions {
        &self.options
    }

    /// Whether there is any IKE SA, be it half-open or about to end.
    pub fn has_sas(&self) -> bool {
        !self.endpoint.sas().is_empty()
    }

    /// How many connections are up, and how many there are.
    pub fn count_up(&self) -> (usize, usize) {
        let states = self.by_name.values().filter_map(|id| Some(self.records.get(id)?.state));
        (states.filter(|state| *state == State::Up).count(), self.by_name.len())
    }

    /// How far the two phases of a connection are.
    pub fn phases(&self, connection: &str) -> Option<Phases> {
        let id = *self.by_name.get(connection)?;
        Some(Phases::of(&self.records.get(&id)?.connection, &self.endpoint.sas_of(id)))
    }

    fn negotiations(&self, id: PeerId) -> Option<Negotiations> {
        Some(self.records.get(&id)?.negotiations.with(&self.endpoint.peer_counters(id)))
    }

    /// How everything is.
    pub fn status(&self, now: Instant) -> Status {
        let status = status::of(
            &self.options,
            &self.endpoint,
            self.by_name.values().filter_map(|id| Some((*id, self.records.get(id)?))),
            &self.paths,
            now,
        );
        let mut vpns = self.router.vpn_statuses(now);
        for tunnel in vpns.iter_mut().flat_map(|vpn| &mut vpn.tunnels) {
            let label =
                ChildLabel { connection: tunnel.connection.as_str().into(), child: tunnel.child.as_str().into() };
            tunnel.is_draining = self.drains.contains_key(&label);
        }
        Status { vpns, bfd: self.router.bfd_statuses(now), bgp: self.router.bgp_status(now), ..status }
    }

    /// Adds a connection. What follows from it is planned, and begun, afterwards.
    fn load(&mut self, connection: Connection, now: Instant) -> PeerId {
        self.last_peer += 1;
        let id = PeerId(self.last_peer);
        let connection = Arc::new(connection);
        self.endpoint.upsert_peer(id, connection.clone(), now);
        self.records.insert(id, Record::new(connection, now));
        id
    }

    /// Takes a connection down for good; says whether it was up or about to be.
    fn retire(&mut self, id: PeerId, why: &str, now: Instant) -> bool {
        self.tell(id, Severity::Info, "unloaded", format!("taken down: {why}"), now);
        self.endpoint.remove_peer(id, now);
        self.pump(now);
        let Some(record) = self.records.remove(&id) else { return false };
        self.by_sa.retain(|_, (peer, _)| *peer != id);
        self.paths.forget(id, now);
        self.departed.insert(id, record.name);
        !record.sas.is_empty() || record.is_connecting
    }

    /// An unchanged connection may stand on other lines now.
    fn take_sources(&mut self, id: PeerId, connection: Connection, now: Instant) {
        let Some(record) = self.records.get_mut(&id) else { return };
        if record.connection.sources != connection.sources {
            record.connection = Arc::new(connection);
            self.endpoint.upsert_peer(id, record.negotiated(), now);
        }
    }

    /// Only the pre-shared key of a connection changed: nothing is taken down.
    fn take_keys(&mut self, id: PeerId, connection: Connection, now: Instant) {
        let overlap = self.options.psk_overlap;
        let Some(record) = self.records.get_mut(&id) else { return };
        record.change_keys(connection, now + overlap);
        self.endpoint.upsert_peer(id, record.negotiated(), now);
        let accepted = match overlap.is_zero() {
            true => "the old one is not accepted any more".to_owned(),
            false => format!("the old one is accepted for {}", status::short_duration(overlap.as_secs())),
        };
        let text =
            format!("the pre-shared key changed: the new one is used from the next authentication on, {accepted}");
        self.tell(id, Severity::Info, "key_changed", text, now);
        self.retire_keys(now);
    }

    /// Forgets pre-shared keys whose time is over.
    fn retire_keys(&mut self, now: Instant) {
        let is_over = |record: &Record| record.retiring.as_ref().is_some_and(|(until, _)| *until <= now);
        let over: Vec<PeerId> = self.records.iter().filter(|(_, r)| is_over(r)).map(|(id, _)| *id).collect();
        for id in over {
            let Some(record) = self.records.get_mut(&id) else { continue };
            record.retiring = None;
            self.endpoint.upsert_peer(id, record.negotiated(), now);
            self.tell(
                id,
                Severity::Info,
                "key_retired",
                "the old pre-shared key is not accepted any more".to_owned(),
                now,
            );
        }
        self.keys_retire_at = self.records.values().filter_map(|r| Some(r.retiring.as_ref()?.0)).min();
    }

    fn take_options(&mut self, options: GatewayOptions) {
        let fixed = |o: &GatewayOptions| {
            (o.listen.clone(), o.ports, o.cookie_threshold, o.half_open_limit, o.nat_keepalive, o.workers)
        };
        if fixed(&self.options) != fixed(&options) {
            let text =
                "addresses, ports, limits, keepalive interval and workers of the gateway change with its next start";
            self.outputs.push_back(Output::Event(GatewayEvent {
                connection: None,
                severity: Severity::Warning,
                name: "options",
                text: text.to_owned(),
            }));
        }
        self.options.install_routes = options.install_routes;
        self.options.route_table = options.route_table;
        self.options.manage_sysctl = options.manage_sysctl;
        self.options.psk_overlap = options.psk_overlap;
    }

    fn forget_departed(&mut self) {
        let alive: std::collections::BTreeSet<_> = self.endpoint.sas().iter().filter_map(|sa| sa.peer).collect();
        self.departed.retain(|id, _| alive.contains(id));
    }

    /// The connection, and the child where one is named, that a target means.
    fn find(&self, target: &str) -> Result<(PeerId, Option<Arc<str>>), CommandError> {
        if let Some(id) = self.by_name.get(target) {
            return Ok((*id, None));
        }
        if let Some((connection, child)) = target.rsplit_once('/')
            && let Some((id, record)) = self.by_name.get(connection).and_then(|id| Some((*id, self.records.get(id)?)))
        {
            let names = || record.connection.children.iter().map(|c| c.name.as_str());
            return match names().find(|name| *name == child) {
                Some(name) => Ok((id, Some(name.into()))),
                None => Err(CommandError::UnknownChild {
                    connection: connection.to_owned(),
                    child: child.to_owned(),
                    nearest: nearest(child, names()),
                }),
            };
        }
        let has_child = |r: &&Record| r.connection.children.iter().any(|c| c.name == target);
        let mut with_child = self.by_name.values().filter(|id| self.records.get(id).as_ref().is_some_and(has_child));
        if let (Some(id), None) = (with_child.next(), with_child.next()) {
            return Ok((*id, Some(target.into())));
        }
        let nearest = nearest(target, self.by_name.keys().map(|name| &**name));
        Err(CommandError::UnknownConnection { name: target.to_owned(), nearest })
    }

    fn rekey(&mut self, id: PeerId, child: Option<&str>, what: RekeyWhat, now: Instant) {
        match (what, child) {
            (RekeyWhat::Ike, _) => self.endpoint.rekey(id, Rekey::Ike, now),
            (RekeyWhat::Children, None) => self.endpoint.rekey(id, Rekey::Children, now),
            (RekeyWhat::Children, Some(child)) => {
                let Some(record) = self.records.get(&id) else { return };
                // The newest of the child's SAs is the one in use; ending its volume early renews it alone.
                let newest = record.sas.keys().filter(|(name, _)| **name == *child).map(|(_, sa)| *sa).max();
                if let Some(sa) = newest {
                    self.endpoint.note_soft_limit(sa, now);
                }
            }
        }
    }

    /// A packet waits for a child that has no SA.
    fn handle_traffic(&mut self, label: &ChildLabel, flow: packet::FlowKey, now: Instant) {
        let Some(id) = self.by_name.get(&label.connection).copied() else { return };
        let Some(record) = self.records.get_mut(&id) else { return };
        let Some(child) = record.connection.children.iter().find(|child| *child.name == *label.child) else { return };
        if record.is_held_down || !comes_with_traffic(&record.connection, child) {
            return;
        }
        let asked = record.asked.get(&label.child);
        if asked.is_some_and(|asked| now.saturating_since(*asked) < ASK_AGAIN) {
            return;
        }
        record.asked.insert(label.child.clone(), now);
        let text = format!("a packet from {} to {} waits for {label}", flow.source, flow.destination);
        self.tell(id, Severity::Info, "traffic", text, now);
        self.endpoint.initiate(id, Some(&label.child), now);
    }

    /// Puts out the way from the old plan to the new one.
    fn replan(&mut self) {
        let wanted: Vec<Wanted<'_>> = self
            .by_name
            .values()
            .filter_map(|id| Some((id, self.records.get(id)?)))
            .map(|(id, record)| Wanted {
                connection: &record.connection,
                remote: record.remote,
                outer_mtu: self.paths.widest(*id),
                sas: record.newest_sas(),
            })
            .collect();
        self.is_plan_stale = false;
        let peers = wanted.iter().flat_map(Wanted::peers).collect();
        self.outputs.extend(self.router.set_addresses(peers, &self.own_addresses));
        let routed = self.router.routes(&self.own_addresses);
        let next = Plan::of(&self.options, &wanted, &self.own_addresses, &routed);
        self.outputs.extend(self.plan.changes_to(&next));
        self.plan = next;
    }

    /// Takes what the endpoint says, in order.
    fn pump(&mut self, now: Instant) {
        loop {
            while let Some(output) = self.endpoint.poll_output() {
                self.take(output, now);
            }
            if !self.pump_paths(now) {
                break;
            }
        }
        self.pump_router(now);
    }

    fn take(&mut self, output: ike::Output, now: Instant) {
        match output {
            ike::Output::Transmit(transmit) => self.outputs.push_back(Output::Transmit(transmit)),
            ike::Output::Sa(change) => self.take_change(change, now),
            ike::Output::Event(event) => {
                if let ike::Event::ChildDown { peer, child, id, reason } = &event {
                    self.linger(*id, child, *peer, reason, now);
                }
                self.note_tunnel(&event, now);
                self.take_event(event, now);
            }
            ike::Output::Probed(probed) => self.paths.handle_probed(probed, now),
        }
    }

    /// Does what the paths want; whether the endpoint was asked for anything.
    fn pump_paths(&mut self, now: Instant) -> bool {
        let mut has_asked = false;
        while let Some(output) = self.paths.poll_output() {
            match output {
                paths::Output::Probe { sa, probe } => {
                    has_asked = true;
                    if let Err(why) = self.endpoint.probe(sa, probe, now) {
                        self.paths.cannot_probe(probe.number, why, now);
                    }
                }
                paths::Output::Mtu { sas, mtu } => {
                    self.outputs.extend(sas.into_iter().map(|id| Output::OuterMtu { id, mtu }));
                    self.is_plan_stale = true;
                }
                paths::Output::Found { peer, remote, before, now: mtu, source } => {
                    let how = if mtu < before { "no more than" } else { "" };
                    let text = format!("the path to {remote} takes packets of {how} {mtu} bytes ({})", source.name());
                    self.tell(peer, Severity::Info, "path_mtu", text.replace("  ", " "), now);
                }
            }
        }
        has_asked
    }

    fn take_change(&mut self, change: SaChange, now: Instant) {
        let mut outer_mtu = None;
        let mut changed = None;
        match &change {
            SaChange::Install(sa) => {
                let id = self.by_name.get(&sa.label.connection).copied();
                if let Some((id, record)) = id.and_then(|id| Some((id, self.records.get_mut(&id)?))) {
                    let live = LiveSa { suite: sa.suite, path: sa.path };
                    record.sas.insert((sa.label.child.clone(), sa.id), live);
                    self.by_sa.insert(sa.id, (id, sa.label.child.clone()));
                    changed = Some(id);
                    self.paths.install(id, sa.id, (sa.suite, sa.path), now);
                    outer_mtu = self.paths.of(sa.id).map(|path| (sa.id, path.mtu()));
                }
            }
            SaChange::Remove(id) => {
                self.paths.remove(*id, now);
                if let Some((peer, child)) = self.by_sa.remove(id)
                    && let Some(record) = self.records.get_mut(&peer)
                {
                    record.sas.remove(&(child, *id));
                    changed = Some(peer);
                }
            }
            SaChange::Move { id, path } => {
                if let Some((peer, child)) = self.by_sa.get(id)
                    && let Some(record) = self.records.get_mut(peer)
                    && let Some(sa) = record.sas.get_mut(&(child.clone(), *id))
                {
                    sa.path = *path;
                    changed = Some(*peer);
                    self.paths.install(*peer, *id, (sa.suite, *path), now);
                    outer_mtu = self.paths.of(*id).map(|path| (*id, path.mtu()));
                }
            }
            SaChange::Activate(_) | SaChange::Skip { .. } => {}
        }
        self.outputs.push_back(Output::Sa(change));
        self.outputs.extend(outer_mtu.map(|(id, mtu)| Output::OuterMtu { id, mtu }));
        if let Some((id, record)) = changed.and_then(|id| Some((id, self.records.get(&id)?))) {
            self.is_plan_stale |= self.depends_on_sas(id, record);
        }
    }

    /// Whether the plan has to follow the SAs of this connection: routes wait for a peer to be seen, and devices have
    /// the MTU of their SAs.
    fn depends_on_sas(&self, id: PeerId, record: &Record) -> bool {
        let (sas, outer_mtu) = (record.newest_sas(), self.paths.widest(id));
        let is_off = |child: &Child| {
            let Routing::Device { name, .. } = &child.routing else { return false };
            let sa = sas.get(child.name.as_str()).copied();
            let mtu = mtu::of_device(child, record.connection.encapsulation, outer_mtu, sa);
            self.plan.device(name).is_none_or(|device| device.mtu != mtu)
        };
        record.remote.is_none() || record.connection.children.iter().any(is_off)
    }

    fn take_event(&mut self, event: ike::Event, now: Instant) {
        let told = status::sentence(&event);
        let id = match &event {
            ike::Event::Connecting { peer, .. }
            | ike::Event::IkeUp { peer, .. }
            | ike::Event::IkeDown { peer, .. }
            | ike::Event::ChildUp { peer, .. }
            | ike::Event::ChildDown { peer, .. }
            | ike::Event::PeerMoved { peer, .. }
            | ike::Event::PeerDrains { peer, .. }
            | ike::Event::DrainHeard { peer, .. } => Some(*peer),
            ike::Event::Failed { peer, .. } => *peer,
        };
        let is_said = id.and_then(|id| self.records.get(&id)).is_some_and(|record| record.is_connecting);
        if is_said && matches!(event, ike::Event::Connecting { .. }) {
            return;
        }
        match id {
            Some(id) => self.tell(id, told.severity, told.name, told.text.clone(), now),
            None => self.outputs.push_back(Output::Event(GatewayEvent { connection: None, ..told.clone() })),
        }
        let Some((id, record)) = id.and_then(|id| Some((id, self.records.get_mut(&id)?))) else { return };
        let has_ike = || self.endpoint.sas_of(id).iter().any(|sa| sa.established_at.is_some());
        record.negotiations.count(&event, matches!(event, ike::Event::Failed { .. }) && has_ike());
        match event {
            ike::Event::Connecting { .. } => record.is_connecting = true,
            ike::Event::IkeUp { rekeyed, .. } => record.is_connecting |= !rekeyed && record.sas.is_empty(),
            ike::Event::IkeDown { reason, .. } => {
                // A duplicate that goes says nothing about the one that stays.
                record.is_connecting &= reason == CloseReason::Replaced;
            }
            ike::Event::ChildUp { .. } => {
                record.is_connecting = false;
                record.last_failure = None;
            }
            ike::Event::ChildDown { .. }
            | ike::Event::PeerMoved { .. }
            | ike::Event::PeerDrains { .. }
            | ike::Event::DrainHeard { .. } => {}
            ike::Event::Failed { failure, .. } => {
                record.is_connecting = false;
                record.last_failure = Some((now, *failure));
            }
        }
        self.settle(id, &told.text, now);
    }

    /// Sets the state right after something happened, and tells when it changed.
    fn settle(&mut self, id: PeerId, why: &str, now: Instant) {
        let Some(record) = self.records.get_mut(&id) else { return };
        if let Some((old, new)) = record.settle(why, now) {
            let text = format!("{old} -> {new}: {why}");
            let connection = Some(record.name.clone());
            let event = GatewayEvent { connection, severity: Severity::Debug, name: "state", text };
            self.outputs.push_back(Output::Event(event));
        }
    }

    /// Tells of something about a connection, and remembers it.
    fn tell(&mut self, id: PeerId, severity: Severity, name: &'static str, text: String, now: Instant) {
        let connection = match self.records.get_mut(&id) {
            Some(record) => {
                if severity > Severity::Debug {
                    record.note(text.clone(), now);
                }
                Some(record.name.clone())
            }
            None => self.departed.get(&id).cloned(),
        };
        self.outputs.push_back(Output::Event(GatewayEvent { connection, severity, name, text }));
    }
}

impl Machine for Gateway {
    type Output = Output;

    fn handle_timeout(&mut self, now: Instant) {
        self.endpoint.handle_timeout(now);
        self.paths.handle_timeout(now);
        self.router.handle_timeout(now);
        self.end_lingering(now);
        if self.keys_retire_at.is_some_and(|at| at <= now) {
            self.retire_keys(now);
        }
        self.pump(now);
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        let keys = self.keys_retire_at.map(|at| Deadline { at, why: "an old pre-shared key retires" });
        let below = Deadline::earliest(self.endpoint.poll_timeout(), self.router.poll_timeout());
        let below = Deadline::earliest(below, self.paths.poll_timeout());
        let below = Deadline::earliest(below, self.lingering.deadline());
        Deadline::earliest(below, keys)
    }

    fn poll_output(&mut self) -> Option<Output> {
        if self.outputs.is_empty() && self.is_plan_stale {
            // Last, and once for all that was said before: a plan of a thousand connections takes a while.
            self.replan();
        }
        self.outputs.pop_front()
    }
}

fn ike_options(options: &GatewayOptions) -> ike::Options {
    ike::Options {
        ports: options.ports,
        cookie_threshold: options.cookie_threshold as usize,
        half_open_limit: options.half_open_limit as usize,
        nat_keepalive: options.nat_keepalive,
        ..ike::Options::default()
    }
}

/// Whether two connections mean the same, wherever they are written.
fn is_same(a: &Connection, b: &Connection) -> bool {
    let bare = |c: &Connection| Connection { sources: Sources::default(), ..c.clone() };
    bare(a) == bare(b)
}

/// Whether two connections differ in nothing but their pre-shared keys.
fn is_rekeyed(a: &Connection, b: &Connection) -> bool {
    is_same(&Connection { psk: b.psk.clone(), ..a.clone() }, b)
}

/// Why a tunnel has no SA any more, as its health sees it.
fn loss_of(reason: &CloseReason) -> SaLoss {
    match reason {
        CloseReason::Command | CloseReason::Reconfigured => SaLoss::Planned,
        CloseReason::PeerDeleted => SaLoss::PeerDeleted,
        CloseReason::PeerDead => SaLoss::PeerSilent,
        CloseReason::Replaced | CloseReason::Expired => SaLoss::Expired,
        CloseReason::Failed => SaLoss::NegotiationFailed("the peer refused".into()),
    }
}

/// Whether a packet brings the child up.
pub(crate) fn comes_with_traffic(connection: &Connection, child: &Child) -> bool {
    child.start == Start::OnTraffic || connection.dpd.is_some_and(|dpd| dpd.action == DpdAction::Hold)
}
