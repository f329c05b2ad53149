//! A network of TCP connections between speakers, in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base::{Instant, Machine, Random, Secret};
use bgp::policy::Policy;
use bgp::speaker::{BgpEvent, EventKind, NeighborStatus, RouteChange};
use bgp::{ConnectionId, Neighbor, NeighborId, Output, Speaker, SpeakerOptions, session::State};
use ipnet::IpNet;

/// Octets that a connection takes at once.
const ROOM: usize = 128 * 1024;

/// What is under way.
#[derive(Clone, Debug)]
enum Packet {
    Syn { key: Option<Secret> },
    Accepted,
    Refused,
    Bytes(Vec<u8>),
    Fin,
}

/// A TCP connection: end 0 made it.
#[derive(Debug)]
struct Tcp {
    hosts: [usize; 2],
    addresses: [SocketAddr; 2],
    ids: [Option<ConnectionId>; 2],
    /// What is under way to each end, in order.
    queues: [Vec<(Instant, Packet)>; 2],
}

/// A speaker, and what it said.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) speaker: Speaker,
    pub(crate) address: IpAddr,
    pub(crate) events: Vec<(Instant, BgpEvent)>,
    pub(crate) routes: BTreeMap<IpNet, RouteChange>,
    /// Whom it listens to, with which key.
    listens: BTreeMap<IpAddr, Option<Secret>>,
    /// Whether the process is there.
    pub(crate) is_running: bool,
    /// Whether it reads.
    pub(crate) is_deaf: bool,
}

/// Speakers and the network between them.
#[derive(Debug)]
pub(crate) struct Net {
    pub(crate) hosts: Vec<Host>,
    tcps: Vec<Tcp>,
    pub(crate) now: Instant,
    pub(crate) delay: Duration,
    /// While true, nothing arrives and nothing breaks: the cable is out.
    pub(crate) is_cut: bool,
}

pub(crate) const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn address(host: usize) -> IpAddr {
    IpAddr::from([169, 254, 10, host as u8 + 1])
}

/// The AS of a host: 65001 and so on.
pub(crate) fn asn(host: usize) -> u32 {
    65001 + host as u32
}

/// A neighbour that everything passes to and from.
pub(crate) fn neighbor(host: usize) -> Neighbor {
    let open = Arc::new(Policy::accept_all());
    Neighbor { import: open.clone(), export: open, ..Neighbor::of(format!("h{host}"), address(host), asn(host)) }
}

pub(crate) fn options(host: usize) -> SpeakerOptions {
    SpeakerOptions::of(asn(host), [10, 0, 0, host as u8 + 1].into())
}

impl Host {
    fn new(host: usize, seed: u64, options: SpeakerOptions, now: Instant) -> Self {
        let random = Random::for_test(seed * 100 + host as u64);
        Self {
            speaker: Speaker::new(options, random, now),
            address: address(host),
            events: Vec::new(),
            routes: BTreeMap::new(),
            listens: BTreeMap::new(),
            is_running: true,
            is_deaf: false,
        }
    }

    /// The sentences of events of a kind.
    pub(crate) fn told(&self, kind: EventKind) -> Vec<&str> {
        self.events.iter().filter(|(_, e)| e.kind == kind).map(|(_, e)| e.sentence.as_str()).collect()
    }

    pub(crate) fn status(&self, neighbor: usize, now: Instant) -> NeighborStatus {
        self.speaker.neighbor(NeighborId(neighbor as u32), now).unwrap()
    }
}

impl Net {
    /// So many speakers that do not know each other.
    pub(crate) fn new(count: usize, seed: u64) -> Self {
        let hosts = (0..count).map(|host| Host::new(host, seed, options(host), Instant::ZERO)).collect();
        Self { hosts, tcps: Vec::new(), now: Instant::ZERO, delay: Duration::from_millis(10), is_cut: false }
    }

    /// Two speakers that know each other.
    pub(crate) fn pair(seed: u64) -> Self {
        let mut net = Self::new(2, seed);
        net.join(0, 1);
        net
    }

    pub(crate) fn join(&mut self, a: usize, b: usize) {
        self.know(a, b, neighbor(b));
        self.know(b, a, neighbor(a));
    }

    /// Tells a host of a neighbour.
    pub(crate) fn know(&mut self, host: usize, other: usize, neighbor: Neighbor) {
        let now = self.now;
        self.hosts[host].speaker.upsert_neighbor(NeighborId(other as u32), neighbor, now).unwrap();
        self.drain(host);
    }

    /// Lets a host do something by command.
    pub(crate) fn command<R>(&mut self, host: usize, act: impl FnOnce(&mut Speaker, Instant) -> R) -> R {
        let now = self.now;
        let result = act(&mut self.hosts[host].speaker, now);
        self.drain(host);
        result
    }

    /// The process of a host dies, and its connections with it.
    pub(crate) fn crash(&mut self, host: usize) {
        self.hosts[host].is_running = false;
        for tcp in 0..self.tcps.len() {
            for end in 0..2 {
                if self.tcps[tcp].hosts[end] == host && self.tcps[tcp].ids[end].take().is_some() {
                    self.post(tcp, 1 - end, Packet::Fin);
                }
            }
        }
    }

    /// The process is back, and knows nobody.
    pub(crate) fn come_back(&mut self, host: usize, seed: u64, options: SpeakerOptions) {
        let events = std::mem::take(&mut self.hosts[host].events);
        self.hosts[host] = Host { events, ..Host::new(host, seed, options, self.now) };
    }

    pub(crate) fn state(&self, host: usize, neighbor: usize) -> State {
        self.hosts[host].status(neighbor, self.now).state
    }

    /// Whether all that know each other are established.
    pub(crate) fn is_up(&self) -> bool {
        let running = self.hosts.iter().filter(|host| host.is_running);
        running.flat_map(|host| host.speaker.neighbors(self.now)).all(|status| status.state == State::Established)
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        self.run_until(end, |_| false);
    }

    /// Lets time pass until `done`; says whether it was done by `end`.
    pub(crate) fn run_until(&mut self, end: Instant, mut done: impl FnMut(&Self) -> bool) -> bool {
        let (mut steps, mut last) = (0u32, self.now);
        (0..self.hosts.len()).for_each(|host| self.drain(host));
        loop {
            if done(self) {
                return true;
            }
            let running = self.hosts.iter().filter(|host| host.is_running);
            let wake = running.filter_map(|host| host.speaker.poll_timeout()).map(|deadline| deadline.at).min();
            let arrival = self.arrivals().map(|(at, ..)| at).min();
            let Some(next) = [wake, arrival].into_iter().flatten().min().filter(|next| *next <= end) else {
                self.now = end;
                return done(self);
            };
            self.now = self.now.max(next);
            steps = if self.now == last { steps + 1 } else { 0 };
            last = self.now;
            assert!(steps < 20_000, "time stands still at {:?}", self.now);
            while let Some((at, tcp, end)) = self.arrivals().min() {
                if at > self.now {
                    break;
                }
                self.deliver(tcp, end);
            }
            for host in 0..self.hosts.len() {
                let due = self.hosts[host].speaker.poll_timeout().is_some_and(|deadline| deadline.at <= self.now);
                if due && self.hosts[host].is_running {
                    self.hosts[host].speaker.handle_timeout(self.now);
                    self.drain(host);
                }
            }
        }
    }

    /// What may arrive next: when, on which connection, at which end.
    pub(crate) fn arrivals(&self) -> impl Iterator<Item = (Instant, usize, usize)> + '_ {
        let queues = self.tcps.iter().enumerate().flat_map(|(tcp, t)| (0..2).map(move |end| (tcp, end, t)));
        let first = queues.filter_map(|(tcp, end, t)| {
            let deaf = self.hosts[t.hosts[end]].is_deaf && matches!(t.queues[end].first()?.1, Packet::Bytes(_));
            t.queues[end].first().filter(|_| !deaf).map(|(at, _)| (*at, tcp, end))
        });
        first.filter(|_| !self.is_cut)
    }

    fn post(&mut self, tcp: usize, end: usize, packet: Packet) {
        let at = self.now + self.delay;
        self.tcps[tcp].queues[end].push((at, packet));
    }

    /// Delivers the first packet that is under way to an end.
    pub(crate) fn deliver(&mut self, tcp: usize, end: usize) {
        let (_, packet) = self.tcps[tcp].queues[end].remove(0);
        let (host, now) = (self.tcps[tcp].hosts[end], self.now);
        let [local, remote] = [end, 1 - end].map(|end| self.tcps[tcp].addresses[end]);
        if !self.hosts[host].is_running {
            if let Packet::Syn { .. } = packet {
                self.post(tcp, 1 - end, Packet::Refused);
            }
            return;
        }
        let id = self.tcps[tcp].ids[end];
        match packet {
            Packet::Syn { key } => {
                // RFC 2385: with another key than the listener's there is no answer at all.
                let wanted = self.hosts[host].listens.get(&remote.ip()).cloned().flatten();
                if wanted != key {
                    return;
                }
                self.tcps[tcp].ids[end] = self.hosts[host].speaker.handle_accepted(local, remote, now);
                let answer = if self.tcps[tcp].ids[end].is_some() {
                    vec![Packet::Accepted]
                } else {
                    vec![Packet::Accepted, Packet::Fin]
                };
                answer.into_iter().for_each(|packet| self.post(tcp, 1 - end, packet));
            }
            Packet::Accepted => {
                if let Some(id) = id {
                    self.hosts[host].speaker.handle_connected(id, local, remote, now);
                }
            }
            Packet::Refused => {
                if let Some(id) = self.tcps[tcp].ids[end].take() {
                    self.hosts[host].speaker.handle_connect_failed(id, "connection refused", now);
                }
            }
            Packet::Bytes(bytes) => {
                if let Some(id) = id {
                    self.hosts[host].speaker.handle_bytes(id, &bytes, now);
                }
                let (far, peer) = (self.tcps[tcp].hosts[1 - end], self.tcps[tcp].ids[1 - end]);
                if let Some(peer) = peer.filter(|_| far != host) {
                    self.hosts[far].speaker.handle_writable(peer, ROOM, now);
                    self.drain(far);
                }
            }
            Packet::Fin => {
                if let Some(id) = self.tcps[tcp].ids[end].take() {
                    self.hosts[host].speaker.handle_closed(id, "closed by the other end", now);
                }
            }
        }
        self.drain(host);
    }

    /// Carries out what a host wants.
    pub(crate) fn drain(&mut self, host: usize) {
        while let Some(output) = self.hosts[host].speaker.poll_output() {
            if !self.hosts[host].is_running {
                continue;
            }
            match output {
                Output::Connect { connection, remote, password, local, .. } => {
                    let Some(other) = self.hosts.iter().position(|other| other.address == remote.ip()) else {
                        continue;
                    };
                    let port = 40_000 + self.tcps.len() as u16;
                    let local = SocketAddr::new(local.unwrap_or(self.hosts[host].address), port);
                    self.tcps.push(Tcp {
                        hosts: [host, other],
                        addresses: [local, remote],
                        ids: [Some(connection), None],
                        queues: [Vec::new(), Vec::new()],
                    });
                    self.post(self.tcps.len() - 1, 1, Packet::Syn { key: password });
                }
                Output::Send { connection, bytes } => {
                    let (tcp, end) = self.find(host, connection);
                    self.post(tcp, 1 - end, Packet::Bytes(bytes));
                }
                Output::Close { connection } => {
                    let (tcp, end) = self.find(host, connection);
                    self.tcps[tcp].ids[end] = None;
                    self.post(tcp, 1 - end, Packet::Fin);
                }
                Output::Listen { remote, password, .. } => {
                    self.hosts[host].listens.insert(remote, password);
                }
                Output::Unlisten { remote, .. } => {
                    self.hosts[host].listens.remove(&remote);
                }
                Output::Route(change) if change.next_hops.is_empty() => {
                    self.hosts[host].routes.remove(&change.prefix);
                }
                Output::Route(change) => {
                    self.hosts[host].routes.insert(change.prefix, change);
                }
                Output::Event(event) => {
                    let now = self.now;
                    self.hosts[host].events.push((now, event));
                }
            }
        }
    }

    /// The connection of a host by its name; the shell knows every one that is named.
    fn find(&self, host: usize, connection: ConnectionId) -> (usize, usize) {
        let is_it = |tcp: &Tcp, end: usize| tcp.hosts[end] == host && tcp.ids[end] == Some(connection);
        let ends = self.tcps.iter().enumerate().flat_map(|(tcp, t)| (0..2).map(move |end| (tcp, end, t)));
        ends.into_iter().find(|(_, end, t)| is_it(t, *end)).map(|(tcp, end, _)| (tcp, end)).expect("it is known")
    }

    /// The TCP connections on which both ends still have something, by their number.
    pub(crate) fn live(&self) -> BTreeSet<usize> {
        let live = self.tcps.iter().enumerate().filter(|(_, tcp)| tcp.ids.iter().all(Option::is_some));
        live.map(|(number, _)| number).collect()
    }
}

pub(crate) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}
