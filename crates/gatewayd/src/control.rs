//! The control loop: one task that owns the gateway, hears everybody and carries out what comes out, in order.

mod answers;
mod cluster;
mod handover;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use base::{Instant, Machine, Random};
use gateway::{Gateway, Output, Severity};
use ipnet::IpNet;
use model::{Config, Ports};
use os::alone::Alone;
use os::clock::Clock;
use os::netlink::{Change, Watch};
use packet::icmp::Quoted;
use sa::{ChildLabel, SaChange};
use tokio::net::TcpStream;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tracing::{debug, error, info, warn};

use crate::admin::{Asked, Server};
use crate::ages::Ages;
use crate::cluster::Cluster;
use crate::data::{self, Handle, Order, Report, Reports};
use crate::files::Load;
use crate::guard::Guard;
use crate::handover::Taker;
use crate::icmp::IcmpErrors;
use crate::log::{Format, Log};
use crate::notify::Notifier;
use crate::resolve::{self, Resolver};
use crate::sockets::{Heard, Sockets};
use crate::world::World;
use crate::{Error, host, metrics, otlp, outer, routes};

/// What a gateway is called among the abstract sockets of its network namespace.
const ALONE: &str = "simplon/gateway";
/// How long the polite end may take: peers that answer sooner end it sooner.
const FAREWELL: Duration = Duration::from_millis(1_200);
/// Reports that are handled before anything else gets its turn.
const BATCH: usize = 256;
/// Learnt routes that wait for the kernel at most before BGP is heard again: some 50 ms of its time. A route of the plan
/// waits behind them.
const BACKLOG: usize = 8_192;
/// How soon that is looked at again.
const BACKLOG_LOOK: Duration = Duration::from_millis(2);
/// How long changes of the kernel's routing are gathered before they are looked at.
const SETTLE: Duration = Duration::from_millis(50);
/// At most this often: with a thousand connections it takes a while.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Bytes of BGP that are handled before anything else gets its turn: some thousand routes. A full table is some twenty
/// million bytes, and BFD with a neighbour may not rest for longer than a few tens of milliseconds.
const HEARD_BYTES: usize = 16 << 10;
/// How often the traffic of a tunnel is looked at while it is drained.
const DRAIN_LOOK: Duration = Duration::from_millis(500);
/// Outputs that are told to the other member of a cluster together, at most.
const OUTPUTS: usize = 1_024;
/// How long the data path may take to say what it counted.
const SNAPSHOT: Duration = Duration::from_millis(500);

/// How to run a gateway.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its configuration.
    pub load: Load,
    /// Its admin socket.
    pub socket: PathBuf,
    /// UDP ports in place of the configured ones, for tests.
    pub ports: (Option<u16>, Option<u16>),
    /// Whether the kernel's offloads are used.
    pub offloads: data::Offloads,
    /// How the log is written.
    pub log: Format,
    /// Whether to take the place of the gateway that runs at the socket.
    pub hand_over: bool,
}

/// Runs a gateway until it is told to stop by SIGTERM or SIGINT. SIGHUP makes it read its configuration again. Must be
/// called within a current-thread tokio runtime with I/O and time.
///
/// # Errors
/// Before anything was started: a wrong configuration, an admin socket or a port that another gateway has, missing
/// privileges. Later: the end of the data path.
pub async fn run(options: Options) -> Result<(), Error> {
    let running = options.hand_over.then(|| Taker::ask(&options.socket)).transpose();
    let running = running.map_err(|why| Error::HandOver(why.to_string()))?;
    // Before anything of the kernel is touched.
    let alone = if running.is_some() { None } else { Some(take_alone()?) };
    let clock = running.as_ref().map_or_else(Clock::start, |(_, began_us, _)| Clock::began_at(*began_us));
    let opened = match &running {
        Some((_, _, devices)) => World::beside(devices).await,
        None => World::open().await,
    };
    let (mut world, route_events) = opened.map_err(|e| Error::system("talk to the kernel's routing", e))?;
    let own = world.own_addresses().await.map_err(|e| Error::system("list the addresses of this host", e))?;
    let reading = options.load.read(&own)?;
    let mut log = Log::new(options.log.clone());
    log.configure(&reading.config.gateway);
    for note in &reading.notes {
        info!("{note}");
    }
    let mut config = reading.config;
    override_ports(&mut config, options.ports);
    let server = if running.is_some() { None } else { Some(Server::listen(&options.socket)?) };
    let signals = Signals::new().map_err(|e| Error::system("listen to signals", e))?;
    let data_options = data::Options {
        listen: config.gateway.listen.clone(),
        ports: config.gateway.ports,
        clock,
        offloads: options.offloads,
        workers: workers(&config),
    };
    let watch = world.netlink().monitor().map_err(|e| Error::system("watch the kernel's routing", e))?;
    let mut gateway = Gateway::new(config.gateway.clone(), random()?);
    let (data_path, missed) = match running {
        Some((client, ..)) => {
            handover::take_over(client, &mut gateway, &data_options).await.map_err(Error::HandOver)?
        }
        None => {
            let started = data::start(&data_options).map_err(|e| Error::system("start the data path", e))?;
            (started, Vec::new())
        }
    };
    let data::Running { handle, mut reports, workers } = data_path;
    world.share_devices(handle.workers() > 1);
    if handle.workers() != data_options.workers {
        let (are, wanted) = (handle.workers(), data_options.workers);
        info!("packets are passed by as many workers as before the hand-over, {are}; {wanted} take a restart");
    }
    let server = match server {
        Some(server) => server,
        None => handover::listen_after(&options.socket).await?,
    };
    let mut control = Control {
        clock,
        gateway,
        options,
        handle,
        resolver: Resolver::default(),
        refresh_at: clock.now(),
        drain_look_at: clock.now(),
        refreshed_at: clock.now(),
        config: Config::default(),
        guard: Guard::new(config.gateway.ports),
        log,
        ages: Ages::default(),
        notifier: Notifier::from_environment(),
        metrics: None,
        exporter: None,
        icmp: IcmpErrors::listen(),
        icmp_errors: (0, 0),
        ask: server.asker(),
        sockets: Sockets::default(),
        alone,
        route_events,
        cut_off: Vec::new(),
        watch,
        lost: BTreeMap::new(),
        failed: None,
        cluster: Cluster::start(&config, random()?, clock)
            .map_err(|e| Error::system("start the thread of the cluster", e))?,
    };
    let Ports { ike, natt } = config.gateway.ports;
    info!("gateway starts on UDP ports {ike} and {natt}; packets are passed by {} worker(s)", control.handle.workers());
    let has_taken_over = control.options.hand_over;
    for word in missed {
        control.hear(word.into_report(clock.now()), &mut reports);
    }
    let started = match control.start(config, &mut world).await {
        Err(e) if has_taken_over => {
            // Tunnels are up: they do not end over what a person may mend.
            error!("{e}");
            Ok(())
        }
        started => started,
    };
    if has_taken_over {
        control.alone = handover::alone_after().await;
        control.handle.send(world.forget_inherited().into_iter().map(Order::RemoveDevice));
        control.log.note(Severity::Info, "handed_over", "this process is the gateway now".to_owned());
    }
    let ended = match started {
        Ok(()) => control.serve(&mut world, server, reports, signals).await,
        Err(e) => Err((e, reports)),
    };
    let (outcome, reports) = match ended {
        Ok((Ended::Stopped, reports)) => (Ok(()), reports),
        Ok((Ended::HandedOver, reports)) => {
            control.depart(&mut world, reports, workers).await;
            return Ok(());
        }
        Err((e, reports)) => (Err(e), reports),
    };
    control.farewell(&mut world, reports, workers).await;
    outcome
}

/// Sees to it that no other gateway runs in this network namespace: their routes have one protocol number, and so do their
/// rules.
fn take_alone() -> Result<Alone, Error> {
    let taken = Alone::take(ALONE).map_err(|e| Error::system("see whether another gateway runs", e))?;
    taken.map_err(|holder| Error::NotAlone { process: holder.process })
}

/// What the cluster has to say, where there is one.
async fn heard_of(cluster: &mut Option<Cluster>) -> Option<crate::cluster::Heard> {
    match cluster {
        Some(cluster) => cluster.heard().await,
        None => std::future::pending().await,
    }
}

fn override_ports(config: &mut Config, ports: (Option<u16>, Option<u16>)) {
    let Ports { ike, natt } = config.gateway.ports;
    config.gateway.ports = Ports { ike: ports.0.unwrap_or(ike), natt: ports.1.unwrap_or(natt) };
}

/// How many workers pass packets: what the configuration says, or as the cores are.
fn workers(config: &Config) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let wanted = config.gateway.workers.map(|workers| usize::from(workers.get()));
    wanted.unwrap_or_else(|| data::workers_for(cores())).clamp(1, data::MAX_WORKERS)
}

/// Randomness of the operating system: all keys follow from it.
fn random() -> Result<Random, Error> {
    let mut seed = [0; 32];
    let filled = getrandom::fill(&mut seed);
    filled.map_err(|e| Error::system("get randomness from the kernel", std::io::Error::other(e.to_string())))?;
    Ok(Random::from_seed(seed))
}

/// The signals that mean something.
struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

/// How the gateway ended in this process.
enum Ended {
    /// It was told to stop.
    Stopped,
    /// Another process goes on with it.
    HandedOver,
}

struct Control {
    clock: Clock,
    gateway: Gateway,
    options: Options,
    handle: Handle,
    resolver: Resolver,
    refresh_at: Instant,
    /// When it is looked next whether tunnels that are drained have become quiet.
    drain_look_at: Instant,
    refreshed_at: Instant,
    /// As it is in effect.
    config: Config,
    guard: Guard,
    log: Log,
    ages: Ages,
    notifier: Notifier,
    metrics: Option<metrics::Server>,
    exporter: Option<otlp::Exporter>,
    icmp: IcmpErrors,
    /// ICMP errors that named an SA of ours, and that named none.
    icmp_errors: (u64, u64),
    /// How the metrics ask for the status.
    ask: mpsc::Sender<Asked>,
    sockets: Sockets,
    /// No other gateway runs in this network namespace.
    alone: Option<Alone>,
    /// What others change in the kernel's routing.
    watch: Watch,
    /// What there is to tell of routes.
    route_events: mpsc::Receiver<routes::Event>,
    /// Networks of ours to which no device inside leads.
    cut_off: Vec<IpNet>,
    /// Datagrams that were dropped on the way up, as last told.
    lost: BTreeMap<&'static str, u64>,
    /// The first change to the kernel that failed, for the start.
    failed: Option<Error>,
    /// The other gateway that shares addresses with this one.
    cluster: Option<Cluster>,
}

impl Control {
    /// Brings the first configuration into effect. What the kernel refuses is an error now, while a person watches.
    async fn start(&mut self, config: Config, world: &mut World) -> Result<(), Error> {
        self.settle_host(&config, world).await;
        self.serve_metrics(config.gateway.metrics).await?;
        self.export(config.gateway.opentelemetry.as_deref());
        self.note_own_addresses(world).await;
        let learns = config.bgp.is_some();
        self.config = config.clone();
        if let Some(cluster) = &mut self.cluster {
            // An earlier process may have left them.
            cluster.leave_addresses(world.netlink()).await;
        }
        self.apply(config);
        self.carry_out(world).await;
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if !learns {
            world.end_grace();
        }
        self.refresh(world).await;
        self.notifier.ready();
        Ok(())
    }

    /// Takes a configuration, as the role in a cluster wants it.
    fn apply(&mut self, config: Config) {
        let config = if self.is_active() { config } else { crate::cluster::held(&config) };
        self.gateway.apply(config, self.clock.now());
    }

    /// Serves metrics at this address, and at no other.
    async fn serve_metrics(&mut self, address: Option<SocketAddr>) -> Result<(), Error> {
        if self.metrics.as_ref().map(metrics::Server::address) != address {
            self.metrics = None;
            if let Some(address) = address {
                let server = metrics::Server::listen(address, self.ask.clone()).await;
                self.metrics = Some(server.map_err(|e| Error::system(format!("serve metrics at {address}"), e))?);
                info!("metrics are served at http://{address}/metrics");
            }
        }
        Ok(())
    }

    /// Sends metrics and events to this collector, and to no other.
    fn export(&mut self, collector: Option<&str>) {
        if self.exporter.as_ref().map(otlp::Exporter::collector) != collector {
            let exporter = collector.map(|address| otlp::Exporter::start(address, self.ask.clone()));
            self.log.collect(exporter.as_ref().map(otlp::Exporter::events));
            self.exporter = exporter;
        }
    }

    /// Hears everybody until it is told to stop.
    async fn serve(
        &mut self,
        world: &mut World,
        mut server: Server,
        mut reports: Reports,
        mut signals: Signals,
    ) -> Result<(Ended, Reports), (Error, Reports)> {
        loop {
            self.carry_out(world).await;
            let mut due = self.gateway_due().map_or(self.refresh_at, |at| at.min(self.refresh_at));
            if self.gateway.is_draining() {
                due = due.min(self.drain_look_at);
            }
            let mut wait = self.clock.until(due.min(self.cluster_due()));
            let takes_routes = world.route_backlog() < BACKLOG;
            if !takes_routes {
                wait = wait.min(BACKLOG_LOOK);
            }
            tokio::select! {
                report = reports.recv() => {
                    let Some(report) = report else {
                        return Err((Error::DataPath("it is gone".to_owned()), reports));
                    };
                    if let Some(why) = self.hear(report, &mut reports) {
                        return Err((Error::DataPath(why), reports));
                    }
                }
                Some(heard) = self.sockets.heard(takes_routes) => self.take_heard(heard),
                Some(quoted) = self.icmp.heard() => self.note_icmp_error(&quoted),
                Some(heard) = heard_of(&mut self.cluster) => self.hear_cluster(heard, world).await,
                change = self.watch.changed() => self.note_change(change),
                Some(event) = self.route_events.recv() => self.note_routes(event),
                Some(mut asked) = server.asked() => match asked.stream.take() {
                    None => self.answer(asked, world).await,
                    Some(stream) => match self.give(stream, &mut reports).await {
                        Ok(giver) => {
                            self.release(&asked.request, world).await;
                            drop(server);
                            tokio::task::yield_now().await;
                            giver.released();
                            return Ok((Ended::HandedOver, reports));
                        }
                        Err(why) => self.log.note(Severity::Warning, "hand_over", format!("not handed over: {why}")),
                    },
                },
                () = self.resolver.answered() => self.refresh_at = self.clock.now(),
                () = self.notifier.beat(&self.handle) => {}
                () = tokio::time::sleep(wait) => {}
                _ = signals.hangup.recv() => drop(self.reload(world).await),
                _ = signals.terminate.recv() => break,
                _ = signals.interrupt.recv() => break,
            }
            let now = self.clock.now();
            if self.gateway_due().is_some_and(|at| at <= now) {
                self.gateway.handle_timeout(now);
            }
            if self.refresh_at <= now {
                self.refresh(world).await;
            }
            if self.cluster_due() <= now {
                self.tick_cluster(world).await;
            }
            // A deadline and no pause: packets of BFD end every pause early.
            if self.gateway.is_draining() && self.drain_look_at <= now {
                self.drain_look_at = now + DRAIN_LOOK;
                self.note_carried().await;
            }
        }
        Ok((Ended::Stopped, reports))
    }

    /// Handles a report and those behind it; why the data path ended, if it did.
    fn hear(&mut self, first: Report, reports: &mut Reports) -> Option<String> {
        let mut next = Some(first);
        let is_active = self.is_active();
        for _ in 0..BATCH {
            match next? {
                // Whoever stands by answers nobody.
                Report::Ike { .. } | Report::Esp(_) | Report::Alive { .. } if !is_active => {}
                Report::Ike { local, remote, payload, at: _ } => {
                    debug!("{} bytes from {remote} to {local}", payload.len());
                    self.gateway.handle_datagram(local, remote, &payload, self.clock.now());
                }
                Report::Esp(event) => self.gateway.handle_esp_event(event, self.clock.now()),
                Report::Alive { id, at } => self.gateway.note_alive(id, at, self.clock.now()),
                Report::PathMtu { remote, mtu } => {
                    let text = format!("the path to {remote} takes packets of at most {mtu} bytes");
                    self.log.note(Severity::Info, "path_mtu", text);
                    self.gateway.note_path_mtu(remote, mtu, self.clock.now());
                }
                Report::Notice(text) => self.log.note(Severity::Warning, "data_path", text),
                Report::Refused(why) => {
                    self.log.note(Severity::Warning, "data_path", format!("the data path refused an order: {why}"));
                }
                Report::Ended(why) => return Some(why.unwrap_or_else(|| "it stopped".to_owned())),
            }
            self.note_lost(reports.dropped());
            next = reports.try_recv();
        }
        None
    }

    /// Handles what came in through the sockets of BFD and probes, and what waits behind it.
    fn take_heard(&mut self, first: Heard) {
        let mut next = Some(first);
        let mut bytes_left = HEARD_BYTES;
        for _ in 0..BATCH {
            let now = self.clock.now();
            match next {
                None => return,
                Some(Heard::BgpConnected { connection, stream }) => {
                    match self.sockets.bgp.connected(connection, stream) {
                        Ok((local, remote)) => self.gateway.handle_bgp_connected(connection, local, remote, now),
                        Err(e) => self.gateway.handle_bgp_connect_failed(connection, &e.to_string(), now),
                    }
                }
                Some(Heard::BgpConnectFailed { connection, why }) => {
                    self.gateway.handle_bgp_connect_failed(connection, &why, now);
                }
                Some(Heard::BgpAccepted { stream, remote }) => self.take_bgp(stream, remote),
                Some(Heard::BgpBytes { connection, bytes }) => {
                    self.gateway.handle_bgp_bytes(connection, &bytes, now);
                    bytes_left = bytes_left.saturating_sub(bytes.len());
                }
                Some(Heard::BgpWritable { connection }) => {
                    let room = self.sockets.bgp.room(connection);
                    self.gateway.handle_bgp_writable(connection, room, now);
                }
                Some(Heard::BgpClosed { connection, why }) => {
                    self.gateway.handle_bgp_closed(connection, &why, now);
                    self.sockets.bgp.close(connection);
                }
                Some(Heard::Bfd { local, remote, ttl, payload }) => {
                    self.gateway.handle_bfd(local, remote, ttl, &payload, now);
                }
                Some(Heard::Probe { device, source, payload }) => {
                    self.gateway.handle_probe_reply(&device, source, &payload, now);
                }
            }
            if bytes_left == 0 {
                return;
            }
            next = self.sockets.try_heard();
        }
    }

    /// Something changed in the kernel's routing: addresses of ours and ways to peers are looked at soon, and once for
    /// all that changes together.
    fn note_change(&mut self, change: std::io::Result<Change>) {
        match change {
            Ok(_) => while let Ok(Some(_)) = self.watch.next_waiting() {},
            Err(e) => warn!("changes of the kernel's routing cannot be watched: {e}"),
        }
        let soon = (self.clock.now() + SETTLE).max(self.refreshed_at + LOOK_AGAIN);
        self.refresh_at = self.refresh_at.min(soon);
    }

    fn note_routes(&mut self, event: routes::Event) {
        let severity = if event.is_warning() { Severity::Warning } else { Severity::Info };
        self.log.note(severity, "routes", event.to_string());
        if let routes::Event::CutOff { networks } = event {
            self.cut_off = networks;
        }
    }

    /// An ICMP error came in, from anybody.
    fn note_icmp_error(&mut self, quoted: &Quoted) {
        if quoted.source.1.is_some_and(|port| port != self.config.gateway.ports.natt) {
            return;
        }
        let (valid, invalid) = &mut self.icmp_errors;
        *(if self.gateway.has_sent(quoted) { valid } else { invalid }) += 1;
    }

    /// Takes a connection of a BGP neighbour, or closes it.
    fn take_bgp(&mut self, stream: TcpStream, remote: SocketAddr) {
        let now = self.clock.now();
        let Ok(local) = stream.local_addr() else { return };
        let Some((connection, ttl)) = self.gateway.handle_bgp_accepted(local, remote, now) else { return };
        if let Err(e) = self.sockets.bgp.accepted(connection, stream, ttl) {
            self.gateway.handle_bgp_closed(connection, &e.to_string(), now);
        }
    }

    /// Tells the gateway what tunnels have carried: it waits for some to be quiet.
    async fn note_carried(&mut self) {
        let status = self.status().await;
        let mut carried: BTreeMap<ChildLabel, u64> = BTreeMap::new();
        for connection in &status.connections {
            let gone = connection.carried.packets_in + connection.carried.packets_out;
            for child in &connection.children {
                let live = child.sas.iter().filter_map(|sa| sa.traffic.as_ref());
                let live: u64 = live.map(|t| t.inbound.packets + t.outbound.packets).sum();
                let (connection, child) = (connection.name.as_str().into(), child.name.as_str().into());
                carried.insert(ChildLabel { connection, child }, live + gone);
            }
        }
        let now = self.clock.now();
        self.gateway.note_carried(|label| carried.get(label).copied().unwrap_or_default(), now);
    }

    fn note_lost(&mut self, dropped: u64) {
        let known = self.lost.entry("ike").or_default();
        if dropped > *known {
            warn!("{} IKE datagrams were dropped because too many were waiting", dropped - *known);
            *known = dropped;
        }
    }

    /// Does what the gateway says, in order. What the data path is told goes down in one piece as far as the kernel
    /// need not be asked in between.
    async fn carry_out(&mut self, world: &mut World) {
        let (mut orders, mut learnt) = (Vec::new(), Vec::new());
        let mut outputs = std::collections::VecDeque::new();
        // SAs that the other member of a cluster hears of, and that are bound therefore.
        let mut told = BTreeSet::new();
        loop {
            if outputs.is_empty() {
                outputs.extend(std::iter::from_fn(|| self.gateway.poll_output()).take(OUTPUTS));
                told.extend(self.tell_cluster(outputs.make_contiguous()).await);
            }
            let Some(output) = outputs.pop_front() else { break };
            match output {
                Output::Transmit(transmit) => {
                    debug!("{} bytes to {} from {}", transmit.payload.len(), transmit.remote, transmit.local);
                    orders.push(Order::Transmit(transmit));
                }
                Output::Sa(change) => {
                    if let SaChange::Install(sa) = &change {
                        debug!(connection = %sa.label.connection, "SA {:?} of {} is installed", sa.id, sa.label);
                    }
                    let told = match &change {
                        SaChange::Install(sa) => told.take(&sa.id),
                        SaChange::Activate(_) | SaChange::Remove(_) | SaChange::Move { .. } | SaChange::Skip { .. } => {
                            None
                        }
                    };
                    orders.push(Order::Sa(change));
                    orders.extend(told.map(Order::ShareNew));
                }
                Output::OuterMtu { id, mtu } => orders.push(Order::OuterMtu { id, mtu }),
                Output::Socket(order) => {
                    if let Some(session) = self.sockets.carry_out(order) {
                        self.gateway.handle_bfd_port_taken(session, self.clock.now());
                    }
                }
                Output::Policy(change) => {
                    self.guard.note_policy(&change);
                    orders.push(Order::Policy(change));
                }
                Output::Event(event) => {
                    self.log.tell(&event, |name| self.gateway.phases(name));
                    if event.name == "state" {
                        let (up, all) = self.gateway.count_up();
                        self.notifier.status(format!("{up} of {all} connections are up"));
                    }
                }
                Output::Device(change) => {
                    if let gateway::DeviceChange::Remove(name) = &change {
                        orders.push(Order::RemoveDevice(name.clone()));
                    }
                    self.guard.note_device(&change);
                    let what = format!("set up the device of a tunnel ({change:?})");
                    match world.change_device(change).await {
                        Ok(tun) => {
                            if let Some(tun) = &tun {
                                host::settle(
                                    &host::check_device(&self.config, tun.name()),
                                    self.config.gateway.manage_sysctl,
                                );
                            }
                            orders.extend(tun.map(Order::AddDevice));
                        }
                        Err(e) => self.note_failure(what, e),
                    }
                }
                Output::Learnt(change) if self.takes_learnt() => learnt.push(change),
                Output::Learnt(_) => {}
                Output::Route(change) => {
                    self.ages.note(&change, self.clock.now());
                    self.handle.send(orders.drain(..));
                    let what = format!("set up a route ({change:?})");
                    if let Err(e) = world.change_route(change).await {
                        if e.kind() == std::io::ErrorKind::AlreadyExists {
                            warn!("a route of somebody else is in the way, and stays: {e}");
                        } else {
                            self.note_failure(what, e);
                        }
                    }
                }
            }
        }
        self.handle.send(orders);
        world.change_learnt(learnt);
        self.guard.settle();
    }

    fn note_failure(&mut self, what: String, e: std::io::Error) {
        error!("cannot {what}: {e}");
        self.failed.get_or_insert(Error::system(what, e));
    }

    /// Looks at everything that may have changed outside: addresses of ours, routes to peers, their names.
    async fn refresh(&mut self, world: &mut World) {
        self.refreshed_at = self.clock.now();
        self.note_own_addresses(world).await;
        let connections: Vec<_> = self.gateway.connections().cloned().collect();
        self.resolver.ask(connections.iter());
        let mut waiting = false;
        for connection in connections {
            let found = self.resolver.find(&connection, world.netlink()).await;
            let now = self.clock.now();
            if let Some(why) = resolve::waits_for(&connection, found) {
                waiting = true;
                if !self.resolver.is_asking(&connection) {
                    self.gateway.note_waiting(&connection.name, &why, now);
                }
            }
            if let Some((mtu, from)) = found.path_mtu {
                self.gateway.set_path_mtu(&connection.name, mtu, from, now);
            }
            if let (Some(remote), Some(mtu)) = (found.remote, found.heard_mtu) {
                self.gateway.note_path_mtu(remote, mtu, now);
            }
            if found.local.is_some() || found.remote.is_some() {
                self.gateway.set_addresses(&connection.name, found.local, found.remote, now);
            }
        }
        world.keep_inside(&self.config);
        self.refresh_at = self.clock.now() + if waiting { resolve::RETRY } else { resolve::REFRESH };
    }

    async fn note_own_addresses(&mut self, world: &World) {
        match world.own_addresses().await {
            Ok(own) => self.gateway.set_own_addresses(own, self.clock.now()),
            Err(e) => warn!("cannot list the addresses of this host: {e}"),
        }
        match world.own_networks().await {
            Ok(networks) => self.gateway.set_connected(networks, self.clock.now()),
            Err(e) => warn!("cannot list the networks of this host: {e}"),
        }
    }

    /// Reads the configuration again. With an error in it, everything stays as it is.
    async fn reload(&mut self, world: &mut World) -> Result<(), String> {
        self.notifier.reloading();
        let done = self.read_again(world).await;
        self.notifier.ready();
        done
    }

    /// Looks at what this configuration needs of the host.
    async fn settle_host(&self, config: &Config, world: &World) {
        host::settle(&host::check(config), config.gateway.manage_sysctl);
        if self.options.offloads == data::Offloads::Auto {
            outer::settle(config, world.netlink()).await;
        }
    }

    async fn read_again(&mut self, world: &mut World) -> Result<(), String> {
        let own = world.own_addresses().await.unwrap_or_default();
        match self.options.load.read(&own) {
            Ok(reading) => {
                reading.notes.iter().for_each(|note| info!("{note}"));
                let mut config = reading.config;
                override_ports(&mut config, self.options.ports);
                let text = format!("configuration read again: {} connections", config.connections.len());
                self.log.note(Severity::Info, "reload", text);
                let names = config.connections.iter().map(|connection| Arc::from(&*connection.name)).collect();
                self.settle_host(&config, world).await;
                self.log.configure(&config.gateway);
                if let Err(e) = self.serve_metrics(config.gateway.metrics).await {
                    self.log.note(Severity::Warning, "metrics", format!("there are no metrics: {e}"));
                }
                self.export(config.gateway.opentelemetry.as_deref());
                if let Some(cluster) = &mut self.cluster {
                    if cluster.differs_from(config.cluster.as_ref()) {
                        self.log.note(
                            Severity::Warning,
                            "reload",
                            "the cluster changes with the next start".to_owned(),
                        );
                    }
                    cluster.take_configuration(&config);
                }
                self.config = config.clone();
                self.apply(config);
                self.carry_out(world).await;
                self.handle.send([Order::Keep(names)]);
                self.refresh(world).await;
                Ok(())
            }
            Err(errors) => {
                let text = format!("the configuration is wrong and the old one stays:\n{errors}");
                self.log.note(Severity::Warning, "reload", text);
                Err(errors.to_string())
            }
        }
    }

    /// Takes everything down, waits a moment for the peers to agree, and stops the data path.
    async fn farewell(mut self, world: &mut World, mut reports: Reports, workers: Vec<JoinHandle<()>>) {
        self.notifier.stopping();
        self.metrics = None;
        info!("gateway stops");
        let is_succeeded = self.leave_cluster(world).await;
        if !is_succeeded {
            self.gateway.shut_down(self.clock.now());
        }
        self.carry_out(world).await;
        let until = self.clock.now() + FAREWELL;
        while self.gateway.has_sas() && self.clock.now() < until {
            let due = self.gateway.poll_timeout().map_or(until, |deadline| deadline.at.min(until));
            tokio::select! {
                report = reports.recv() => {
                    let Some(report) = report else { break };
                    if self.hear(report, &mut reports).is_some() {
                        break;
                    }
                }
                () = tokio::time::sleep(self.clock.until(due)) => self.gateway.handle_timeout(self.clock.now()),
            }
            self.carry_out(world).await;
        }
        if is_succeeded {
            // Hosts may send to this member for a while: what refuses their packets in clear stays, as after a crash.
            world.leave().await;
        } else {
            world.clear().await;
            self.guard.clear();
        }
        self.end_data_path(&mut reports, workers, Duration::from_millis(500)).await;
        self.log.collect(None);
        if let Some(exporter) = self.exporter.take() {
            exporter.finish().await;
        }
    }

    /// Stops the workers, and waits so long for them.
    async fn end_data_path(&self, reports: &mut Reports, workers: Vec<JoinHandle<()>>, within: Duration) {
        self.handle.send([Order::Stop]);
        let ended = async {
            // One that failed has said its last word before.
            while workers.iter().any(|worker| !worker.is_finished()) {
                let _ = tokio::time::timeout(Duration::from_millis(5), reports.recv()).await;
            }
        };
        if tokio::time::timeout(within, ended).await.is_err() {
            return warn!("the data path does not end");
        }
        for worker in workers {
            // A panic was caught and reported.
            let _ = worker.join();
        }
    }
}
