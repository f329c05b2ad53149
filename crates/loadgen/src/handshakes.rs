//! Handshakes a second: IKE SA and first Child SA, as initiator.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base::{Instant, Machine, Random, Secret};
use ike::{Endpoint, Event, Options, Output, PeerId, Retransmission};
use ipnet::{IpNet, Ipv4Net};
use model::{Address, Child, Connection, Identity, Ports, Selector, Version, Versions};
use os::clock::Clock;
use os::poll::{Events, Interest, Poller};
use os::{Datagram, DatagramSocket, RecvBatch, SocketOptions, udp};

use serde::Serialize;

/// What to do to which responder.
#[derive(Clone, Debug)]
pub struct Load {
    /// Our address.
    pub local: IpAddr,
    /// The responder's address.
    pub remote: IpAddr,
    /// UDP ports of both sides.
    pub ports: Ports,
    /// The version of IKE.
    pub version: Version,
    /// Handshakes in all; peer number n calls itself `@load-n` and brings the selector 10.128.0.0 + n.
    pub count: u32,
    /// Handshakes under way at once.
    pub window: u32,
    /// The pre-shared key of all peers.
    pub psk: Secret,
    /// The identity that the responder must prove.
    pub remote_id: Identity,
    /// Phase 1 proposal in the strongSwan spelling.
    pub ike: String,
    /// Phase 2 proposal in the strongSwan spelling.
    pub esp: String,
    /// What the responder protects.
    pub remote_net: IpNet,
    /// How long to go on answering (DPD, rekeying) after the last handshake.
    pub linger: Duration,
    /// When to give up, counted from the start.
    pub timeout: Duration,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Tunnels up.
    pub established: u32,
    /// Negotiations that failed.
    pub failed: u32,
    /// From the first message to the last tunnel.
    pub seconds: f64,
    /// Tunnels a second.
    pub per_second: f64,
    /// Median time of a handshake, in milliseconds.
    pub p50_ms: f64,
    /// 99th percentile of it.
    pub p99_ms: f64,
    /// Messages that had to be sent again.
    pub retransmitted: u64,
}

/// The first address that peers bring; the responder allows 10.128.0.0/9 to all of them.
const FIRST_SELECTOR: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 0);

/// Runs the load, and returns when all is up, or has failed, or time is over. `on_ready` is told once after the last
/// handshake, before lingering.
///
/// # Errors
/// Proposals that do not read, and sockets that do not open.
pub fn run(load: &Load, on_ready: impl FnOnce(&Report)) -> io::Result<Report> {
    let mut generator = Generator::new(load)?;
    generator.until_done()?;
    let report = generator.report();
    on_ready(&report);
    generator.linger()?;
    Ok(report)
}

struct Generator<'a> {
    load: &'a Load,
    endpoint: Endpoint,
    sockets: [DatagramSocket; 2],
    batch: RecvBatch,
    poller: Poller,
    clock: Clock,
    next: u32,
    began: BTreeMap<PeerId, Instant>,
    took: Vec<Duration>,
    failed: u32,
    last_up: Instant,
}

impl<'a> Generator<'a> {
    fn new(load: &'a Load) -> io::Result<Self> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(io::Error::other)?;
        let options = Options {
            ports: load.ports,
            retransmission: Retransmission { initial: Duration::from_millis(500), factor: 1.8, tries: 6 },
            ..Options::default()
        };
        let mut endpoint = Endpoint::new(options, Random::from_seed(seed));
        for (number, connection) in (0..load.count).zip(connections(load)?) {
            endpoint.upsert_peer(PeerId(number), Arc::new(connection), Instant::ZERO);
        }
        let bind = |port| udp::bind(SocketAddr::new(load.local, port), &SocketOptions::default());
        let sockets = [bind(load.ports.ike)?, bind(load.ports.natt)?];
        let poller = Poller::new()?;
        for (token, socket) in sockets.iter().enumerate() {
            poller.add(socket, token as u64, Interest::READ)?;
        }
        Ok(Self {
            load,
            endpoint,
            sockets,
            batch: RecvBatch::new(64, 2_048),
            poller,
            clock: Clock::start(),
            next: 0,
            began: BTreeMap::new(),
            took: Vec::new(),
            failed: 0,
            last_up: Instant::ZERO,
        })
    }

    fn until_done(&mut self) -> io::Result<()> {
        let end = self.clock.now() + self.load.timeout;
        loop {
            let now = self.clock.now();
            while self.next < self.load.count && self.began.len() < self.load.window as usize {
                self.began.insert(PeerId(self.next), now);
                self.endpoint.initiate(PeerId(self.next), None, now);
                self.next += 1;
            }
            self.carry_out(now)?;
            if now >= end || self.began.is_empty() && self.next == self.load.count {
                return Ok(());
            }
            self.wait(now, end)?;
        }
    }

    fn linger(&mut self) -> io::Result<()> {
        let end = self.clock.now() + self.load.linger;
        loop {
            let now = self.clock.now();
            self.carry_out(now)?;
            if now >= end {
                return Ok(());
            }
            self.wait(now, end)?;
        }
    }

    /// Sends what the endpoint wants sent, and notes what became of whom.
    fn carry_out(&mut self, now: Instant) -> io::Result<()> {
        while let Some(output) = self.endpoint.poll_output() {
            match output {
                Output::Transmit(transmit) => {
                    let socket = &self.sockets[usize::from(transmit.local.port() == self.load.ports.natt)];
                    let (remote, local) = (transmit.remote, Some(transmit.local.ip()));
                    match socket.send(&Datagram { remote, local, tos: 0, bytes: &transmit.payload }) {
                        // A full buffer loses the datagram, as the network may; it is sent again.
                        Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                        Ok(()) | Err(_) => {}
                    }
                }
                Output::Event(Event::ChildUp { peer, .. }) => {
                    if let Some(began) = self.began.remove(&peer) {
                        self.took.push(now - began);
                        self.last_up = now;
                    }
                }
                Output::Event(Event::Failed { peer: Some(peer), .. }) => {
                    if self.began.remove(&peer).is_some() {
                        self.failed += 1;
                        self.endpoint.terminate(peer, None, now);
                    }
                }
                Output::Event(_) | Output::Sa(_) | Output::Probed(_) => {}
            }
        }
        Ok(())
    }

    /// Waits for a datagram or a deadline, and hands it on.
    fn wait(&mut self, now: Instant, end: Instant) -> io::Result<()> {
        let due = self.endpoint.poll_timeout().map_or(end, |deadline| deadline.at.min(end));
        let mut events = Events::with_capacity(4);
        self.poller.wait(&mut events, Some(due - now))?;
        for socket in &self.sockets {
            while let Ok(count @ 1..) = socket.recv_batch(&mut self.batch) {
                let now = self.clock.now();
                for (arrival, bytes) in self.batch.iter() {
                    let port =
                        if std::ptr::eq(socket, &self.sockets[1]) { self.load.ports.natt } else { self.load.ports.ike };
                    let local = SocketAddr::new(self.load.local, port);
                    self.endpoint.handle_datagram(local, arrival.remote, bytes, now);
                }
                if count < 64 {
                    break;
                }
            }
        }
        self.endpoint.handle_timeout(self.clock.now());
        Ok(())
    }

    fn report(&mut self) -> Report {
        self.took.sort_unstable();
        let at = |per_cent: usize| {
            let index = (self.took.len() * per_cent / 100).min(self.took.len().saturating_sub(1));
            self.took.get(index).map_or(0.0, |took| took.as_secs_f64() * 1_000.0)
        };
        let seconds = self.last_up.since_start().as_secs_f64();
        let established = self.took.len() as u32;
        Report {
            established,
            failed: self.failed,
            seconds,
            per_second: if seconds > 0.0 { f64::from(established) / seconds } else { 0.0 },
            p50_ms: at(50),
            p99_ms: at(99),
            retransmitted: self.endpoint.counters().retransmitted,
        }
    }
}

/// One connection a peer, alike but for identity and selector.
fn connections(load: &Load) -> io::Result<impl Iterator<Item = Connection>> {
    let unreadable = |error: String| io::Error::new(io::ErrorKind::InvalidInput, error);
    let ike = dialects::proposal::parse_ike(&load.ike).map_err(|error| unreadable(error.to_string()))?;
    let esp = dialects::proposal::parse_esp(&load.esp).map_err(|error| unreadable(error.to_string()))?;
    Ok((0..load.count).map(move |number| {
        let mut connection = Connection::named(format!("load-{number}"));
        connection.versions = Versions::Only(load.version);
        connection.local.address = Address::Ip(load.local);
        connection.local.id = Some(Identity::Fqdn(connection.name.clone()));
        connection.remote.address = Address::Ip(load.remote);
        connection.remote.id = Some(load.remote_id.clone());
        connection.psk = vec![load.psk.clone()];
        connection.ike.clone_from(&ike);
        let mut child = Child::named(connection.name.clone());
        child.esp.clone_from(&esp);
        let own = Ipv4Net::from(Ipv4Addr::from(u32::from(FIRST_SELECTOR) + number));
        child.local = vec![Selector::net(own.into())];
        child.remote = vec![Selector::net(load.remote_net)];
        connection.children = vec![child];
        connection
    }))
}
