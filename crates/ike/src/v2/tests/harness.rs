//! Two gateways in virtual time, joined by a link that may lose, repeat, delay and reorder, and by a NAT. Each is a
//! small endpoint: it finds sessions by SPI, follows their signals, and keeps what ESP would know.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base::{Instant, Random, Secret};
use model::{Address, Child, Connection, Identity, Selector};
use sa::{ChildSa, SaChange, SaId};

use crate::context::{Again, Context, Ends, Numbers, Signal};
use crate::event::{CloseReason, Counters, Event, Output, Transmit};
use crate::natt::strip_marker;
use crate::peer::{Options, Peer, PeerId, Peers};
use crate::session::{IkeState, Session as AnySession};
use crate::v2::{Cookies, Session};
use crate::wire::header::Header;
use crate::wire::v2::flags;

pub(super) const A: usize = 0;
pub(super) const B: usize = 1;
pub(super) const PEER: PeerId = PeerId(1);

/// A Child SA as ESP knows it.
#[derive(Clone, Debug)]
pub(super) struct Installed {
    pub(super) sa: ChildSa,
    pub(super) is_active: bool,
    /// Order of activation.
    pub(super) turn: u64,
    seen_inbound: bool,
}

pub(super) struct Node {
    pub(super) ip: IpAddr,
    pub(super) options: Options,
    pub(super) peers: Peers,
    pub(super) counters: Counters,
    pub(super) sessions: BTreeMap<u64, Session>,
    /// Sessions that are not the peer's any more.
    redundant: Vec<u64>,
    firsts: BTreeMap<(u64, SocketAddr), u64>,
    pub(super) sas: BTreeMap<SaId, Installed>,
    pub(super) events: Vec<(Instant, Event)>,
    pub(super) probed: Vec<(Instant, crate::Probed)>,
    pub(super) renewals: u32,
    /// When to initiate.
    again_at: Option<Instant>,
    /// Whether closed sessions are negotiated anew.
    pub(super) restarts: bool,
    turns: u64,
    random: Random,
    numbers: Numbers,
    cookies: Cookies,
    outputs: VecDeque<Output>,
    signals: Vec<Signal>,
}

impl Node {
    fn new(ip: &str, connection: Connection, seed: u64) -> Self {
        let mut peers = Peers::default();
        peers.insert(Peer { id: PEER, connection: Arc::new(connection), local: None, remote: None });
        Self {
            ip: ip.parse().unwrap(),
            options: Options::default(),
            peers,
            counters: Counters::default(),
            sessions: BTreeMap::new(),
            redundant: Vec::new(),
            firsts: BTreeMap::new(),
            sas: BTreeMap::new(),
            events: Vec::new(),
            probed: Vec::new(),
            renewals: 0,
            again_at: None,
            restarts: false,
            turns: 0,
            random: Random::for_test(seed),
            numbers: Numbers::default(),
            cookies: Cookies::default(),
            outputs: VecDeque::new(),
            signals: Vec::new(),
        }
    }

    fn with<T>(&mut self, now: Instant, call: impl FnOnce(&mut Context<'_>) -> T) -> T {
        let half_open = |session: &&Session| !session.is_initiator() && session.state() == IkeState::Connecting;
        let half_open = self.sessions.values().filter(half_open).count();
        let first_contact = !self.sessions.values().any(|session| session.state() == IkeState::Established);
        call(&mut Context {
            now,
            options: &self.options,
            peers: &self.peers,
            random: &mut self.random,
            numbers: &mut self.numbers,
            counters: &mut self.counters,
            outputs: &mut self.outputs,
            signals: &mut self.signals,
            half_open,
            cookies: &mut self.cookies,
            first_contact,
        })
    }

    /// Calls into one session, and follows its signals.
    pub(super) fn session(&mut self, spi: u64, now: Instant, call: impl FnOnce(&mut Session, &mut Context<'_>)) {
        let mut session = self.sessions.remove(&spi).expect("the session is there");
        self.with(now, |ctx| call(&mut session, ctx));
        self.sessions.insert(spi, session);
        self.follow_signals(spi, now);
    }

    fn follow_signals(&mut self, spi: u64, now: Instant) {
        for signal in std::mem::take(&mut self.signals) {
            match signal {
                Signal::Established { .. } => {
                    let older: Vec<_> = self.sessions.keys().copied().filter(|other| *other != spi).collect();
                    for other in older {
                        if self.sessions[&other].state() == IkeState::Established {
                            self.session(other, now, |session, ctx| session.close(CloseReason::Replaced, ctx));
                        }
                    }
                }
                Signal::Successor(session) => {
                    let AnySession::V2(session) = *session else { panic!("not IKEv2") };
                    self.redundant.push(spi);
                    self.sessions.insert(session.local_spi(), session);
                }
                Signal::Redundant(session) => {
                    let AnySession::V2(session) = *session else { panic!("not IKEv2") };
                    self.redundant.push(session.local_spi());
                    self.sessions.insert(session.local_spi(), session);
                }
                Signal::Renew { .. } => self.renewals += 1,
                Signal::Closed { again, .. } => {
                    self.sessions.remove(&spi);
                    self.firsts.retain(|_, first| *first != spi);
                    let wait = match again {
                        Again::AtOnce => Some(Duration::ZERO),
                        Again::Later => Some(Duration::from_secs(2)),
                        Again::No | Again::OnTraffic => None,
                    };
                    if let Some(wait) = wait.filter(|_| self.restarts) {
                        self.again_at = Some(now + wait);
                    }
                }
            }
        }
    }

    fn initiate(&mut self, now: Instant) -> u64 {
        let peer = self.peers.get(PEER).unwrap().clone();
        let (local, remote) = peer.sockets(self.options.ports).expect("both addresses are known");
        let names: Vec<Arc<str>> = peer.connection.children.iter().map(|child| child.name.as_str().into()).collect();
        let session = self.with(now, |ctx| Session::initiate(&peer, Ends { local, remote }, &names, ctx));
        let spi = session.local_spi();
        self.sessions.insert(spi, session);
        self.follow_signals(spi, now);
        spi
    }

    /// What a datagram does. `to` and `from` are as they arrive here.
    fn receive(&mut self, to: SocketAddr, from: SocketAddr, payload: &[u8], now: Instant) {
        self.counters.received += 1;
        let message = if to.port() == self.options.ports.natt { strip_marker(payload) } else { Some(payload) };
        let Some(message) = message else { return };
        let header = match Header::decode(message) {
            Ok(header) => header,
            Err(_) => return self.counters.drop(crate::DropReason::Malformed),
        };
        let ends = Ends { local: to, remote: from };
        let from_initiator = header.flags & flags::INITIATOR != 0;
        let own = if from_initiator { header.responder_spi } else { header.initiator_spi };
        let first = (header.initiator_spi, from);
        let known = if own == 0 { self.firsts.get(&first).copied() } else { Some(own) };
        match known.filter(|spi| self.sessions.contains_key(spi)) {
            Some(spi) => self.session(spi, now, |session, ctx| session.handle_message(ends, &header, message, ctx)),
            None if own == 0 => {
                if let Some(session) = self.with(now, |ctx| Session::respond(ends, &header, message, ctx)) {
                    self.firsts.insert(first, session.local_spi());
                    self.sessions.insert(session.local_spi(), session);
                }
            }
            None => self.counters.drop(crate::DropReason::UnknownSpi),
        }
    }

    fn next_wake(&self) -> Option<Instant> {
        let sessions = self.sessions.values().filter_map(|session| session.poll_timeout()).map(|deadline| deadline.at);
        sessions.chain(self.again_at).min()
    }

    fn wake(&mut self, now: Instant) {
        let due = |session: &Session| session.poll_timeout().is_some_and(|deadline| deadline.at <= now);
        let spis: Vec<_> = self.sessions.iter().filter(|(_, s)| due(s)).map(|(spi, _)| *spi).collect();
        for spi in spis {
            if self.sessions.contains_key(&spi) {
                self.session(spi, now, |session, ctx| session.handle_timeout(ctx));
            }
        }
        if self.again_at.is_some_and(|at| at <= now) {
            self.again_at = None;
            if !self.sessions.values().any(|s| matches!(s.state(), IkeState::Established | IkeState::Connecting)) {
                self.initiate(now);
            }
        }
    }

    fn change(&mut self, change: SaChange) {
        match change {
            SaChange::Install(sa) => {
                let id = sa.id;
                let installed = Installed { sa: *sa, is_active: false, turn: 0, seen_inbound: false };
                assert!(self.sas.insert(id, installed).is_none(), "installed twice");
            }
            SaChange::Activate(id) => {
                self.turns += 1;
                let installed = self.sas.get_mut(&id).expect("only what is installed is activated");
                assert!(!installed.is_active, "activated twice");
                (installed.is_active, installed.turn) = (true, self.turns);
            }
            SaChange::Remove(id) => {
                self.sas.remove(&id).expect("only what is installed is removed");
            }
            SaChange::Move { id, path } => self.sas.get_mut(&id).expect("only what is installed moves").sa.path = path,
            SaChange::Skip { id, .. } => assert!(self.sas.contains_key(&id), "only what is installed skips"),
        }
    }

    /// Sessions that are established and the peer's.
    pub(super) fn live(&self) -> Vec<&Session> {
        let is_live = |session: &&Session| matches!(session.state(), IkeState::Established | IkeState::Rekeying);
        self.sessions.values().filter(is_live).collect()
    }

    /// The SPI of the one live session.
    pub(super) fn only(&self) -> u64 {
        let live = self.live();
        assert_eq!(live.len(), 1, "{live:#?}");
        live[0].local_spi()
    }

    /// The SA that packets leave on.
    pub(super) fn outbound(&self) -> Option<&Installed> {
        self.sas.values().filter(|installed| installed.is_active).max_by_key(|installed| installed.turn)
    }

    pub(super) fn failures(&self) -> Vec<String> {
        self.failed().map(ToString::to_string).collect()
    }

    pub(super) fn causes(&self) -> Vec<&'static str> {
        self.failed().map(|failure| failure.cause.name()).collect()
    }

    fn failed(&self) -> impl Iterator<Item = &crate::Failure> {
        self.events.iter().filter_map(
            |(_, event)| {
                if let Event::Failed { failure, .. } = event { Some(&**failure) } else { None }
            },
        )
    }

    pub(super) fn has(&self, wanted: impl Fn(&Event) -> bool) -> bool {
        self.events.iter().any(|(_, event)| wanted(event))
    }
}

/// How the link treats datagrams.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    pub(super) delay: Duration,
    /// Up to this is added at random, so that datagrams overtake each other.
    pub(super) jitter: Duration,
    pub(super) loss_percent: u64,
    pub(super) duplicate_percent: u64,
}

impl Link {
    pub(super) const PERFECT: Self =
        Self { delay: Duration::from_millis(10), jitter: Duration::ZERO, loss_percent: 0, duplicate_percent: 0 };
    pub(super) const BAD: Self = Self {
        delay: Duration::from_millis(10),
        jitter: Duration::from_millis(2_000),
        loss_percent: 20,
        duplicate_percent: 20,
    };
}

/// A NAT in front of A.
#[derive(Clone, Copy, Debug)]
pub(super) struct Nat {
    pub(super) public: IpAddr,
    /// What is added to A's ports.
    pub(super) shift: u16,
}

/// A datagram under way: the node it arrives at, to, from, payload.
type Datagram = (usize, SocketAddr, SocketAddr, Vec<u8>);

pub(super) type Filter = Box<dyn FnMut(usize, &Transmit) -> bool>;

pub(super) struct World {
    pub(super) nodes: [Node; 2],
    pub(super) now: Instant,
    pub(super) link: Link,
    pub(super) nat: Option<Nat>,
    /// Says of each datagram, by its sender, whether it passes.
    pub(super) filter: Filter,
    /// Every datagram that was sent: its sender and payload.
    pub(super) wire: Vec<(usize, Transmit)>,
    /// ESP packets sent and lost.
    pub(super) packets: (u64, u64),
    in_flight: BTreeMap<(Instant, u64), Datagram>,
    esp_in_flight: BTreeMap<(Instant, u64), (usize, sa::Spi)>,
    traffic_at: Option<Instant>,
    order: u64,
    random: Random,
}

pub(super) fn connection(name: &str, local: &str, remote: &str, nets: (&str, &str)) -> Connection {
    let mut connection = Connection::named(name);
    connection.local.address = Address::Ip(local.parse().unwrap());
    connection.remote.address = Address::Ip(remote.parse().unwrap());
    connection.psk = vec![Secret::from(&b"a shared secret"[..])];
    connection.ike.remove(1);
    connection.ike[0].groups = vec![base::algorithm::Group::Ecp256, base::algorithm::Group::Curve25519];
    let mut child = Child::named(name);
    child.local = vec![Selector::net(nets.0.parse().unwrap())];
    child.remote = vec![Selector::net(nets.1.parse().unwrap())];
    connection.children = vec![child];
    connection
}

pub(super) const IP_A: &str = "192.0.2.1";
pub(super) const IP_B: &str = "198.51.100.1";

impl Session {
    /// Child SAs that it has asked for and has no answer about.
    pub(super) fn pending_children(&self) -> usize {
        let super::super::State::Established(state) = &self.state else { return 0 };
        let makes = |outstanding: &&super::super::established::Outstanding| outstanding.exchange.makes_child();
        state.outstanding.iter().filter(makes).count()
    }

    /// As if the peer had said that it takes so many requests at once.
    pub(super) fn widen(&mut self, size: u32) {
        let super::super::State::Established(state) = &mut self.state else { panic!("not established") };
        let mut body = crate::wire::v2::Body::new();
        body.notify(crate::wire::v2::NotifyType::SET_WINDOW_SIZE, &size.to_be_bytes());
        let message = crate::wire::v2::Message::decode(body.first(), body.as_bytes()).unwrap();
        state.heed_window(&message);
    }
}

impl World {
    /// Two gateways whose configurations agree.
    pub(super) fn new(seed: u64) -> Self {
        Self::with(seed, |_, _| ())
    }

    /// Two gateways; `change` has both configurations before they start.
    pub(super) fn with(seed: u64, change: impl FnOnce(&mut Connection, &mut Connection)) -> Self {
        let mut a = connection("site", IP_A, IP_B, ("10.1.0.0/16", "10.2.0.0/16"));
        let mut b = connection("site", IP_B, IP_A, ("10.2.0.0/16", "10.1.0.0/16"));
        change(&mut a, &mut b);
        Self {
            nodes: [Node::new(IP_A, a, seed * 2), Node::new(IP_B, b, seed * 2 + 1)],
            now: Instant::ZERO,
            link: Link::PERFECT,
            nat: None,
            filter: Box::new(|_, _| true),
            wire: Vec::new(),
            packets: (0, 0),
            in_flight: BTreeMap::new(),
            esp_in_flight: BTreeMap::new(),
            traffic_at: None,
            order: 0,
            random: Random::for_test(seed ^ 0xC0FFEE),
        }
    }

    pub(super) fn established(seed: u64) -> Self {
        let mut world = Self::new(seed);
        world.establish();
        world
    }

    pub(super) fn establish(&mut self) {
        self.initiate(A);
        self.run(Duration::from_secs(1));
        self.assert_joined();
    }

    pub(super) fn initiate(&mut self, node: usize) -> u64 {
        let spi = self.nodes[node].initiate(self.now);
        self.flush();
        spi
    }

    /// Calls into the one live session of a node.
    pub(super) fn command(&mut self, node: usize, call: impl FnOnce(&mut Session, &mut Context<'_>)) {
        let spi = self.nodes[node].only();
        self.nodes[node].session(spi, self.now, call);
        self.flush();
    }

    /// Changes a node's configuration for what is negotiated from now on.
    pub(super) fn reconfigure(&mut self, node: usize, change: impl FnOnce(&mut Connection)) {
        let peer = self.nodes[node].peers.get_mut(PEER).unwrap();
        change(Arc::make_mut(&mut peer.connection));
    }

    /// A call that needs no session.
    pub(super) fn outside(&mut self, node: usize, call: impl FnOnce(&mut Context<'_>)) {
        self.nodes[node].with(self.now, call);
        self.flush();
    }

    /// A initiates while B is busy with others.
    pub(super) fn establish_beside(&mut self) {
        self.initiate(A);
        self.run(secs(1));
        assert_eq!(self.nodes[A].live().len(), 1);
    }

    /// A datagram from anywhere.
    pub(super) fn inject(&mut self, node: usize, to: SocketAddr, from: SocketAddr, payload: &[u8]) {
        self.nodes[node].receive(to, from, payload, self.now);
        self.flush();
    }

    /// Sends an ESP packet in each direction every 50 ms from now on.
    pub(super) fn start_traffic(&mut self) {
        self.traffic_at = Some(self.now);
    }

    pub(super) fn stop_traffic(&mut self) {
        self.traffic_at = None;
    }

    fn flush(&mut self) {
        for node in [A, B] {
            while let Some(output) = self.nodes[node].outputs.pop_front() {
                match output {
                    Output::Transmit(transmit) => self.send(node, transmit),
                    Output::Sa(change) => self.nodes[node].change(change),
                    Output::Event(event) => self.nodes[node].events.push((self.now, event)),
                    Output::Probed(probed) => self.nodes[node].probed.push((self.now, probed)),
                }
            }
        }
    }

    fn send(&mut self, node: usize, transmit: Transmit) {
        self.wire.push((node, transmit.clone()));
        if !(self.filter)(node, &transmit) || self.random.below(100) < self.link.loss_percent {
            return;
        }
        let (mut from, mut to) = (transmit.local, transmit.remote);
        if let Some(nat) = self.nat {
            if node == A {
                from = SocketAddr::new(nat.public, from.port() + nat.shift);
            } else if to.ip() == nat.public && to.port() >= nat.shift {
                to = SocketAddr::new(self.nodes[A].ip, to.port() - nat.shift);
            }
        }
        let copies = 1 + u64::from(self.random.below(100) < self.link.duplicate_percent);
        let other = 1 - node;
        if to.ip() != self.nodes[other].ip {
            return;
        }
        for _ in 0..copies {
            let jitter = u64::try_from(self.link.jitter.as_micros()).unwrap();
            let at = self.now + self.link.delay + Duration::from_micros(self.random.below(jitter));
            self.order += 1;
            self.in_flight.insert((at, self.order), (other, to, from, transmit.payload.clone()));
        }
    }

    /// Runs until nothing is due before the end of `time`.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        let mut last = (Instant::ZERO, 0u32);
        loop {
            let arrival = self.in_flight.keys().next().map(|key| key.0);
            let esp = self.esp_in_flight.keys().next().map(|key| key.0);
            let wakes = self.nodes.iter().filter_map(Node::next_wake);
            let next = wakes.chain(arrival).chain(esp).chain(self.traffic_at).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            last = if last.0 == self.now { (self.now, last.1 + 1) } else { (self.now, 0) };
            assert!(last.1 < 10_000, "it spins: {:?}", self.deadlines());
            self.step();
        }
        self.now = end;
    }

    fn deadlines(&self) -> Vec<base::Deadline> {
        let sessions = self.nodes.iter().flat_map(|node| node.sessions.values());
        sessions.filter_map(|session| session.poll_timeout()).collect()
    }

    fn step(&mut self) {
        while let Some(key) = self.in_flight.keys().next().copied().filter(|key| key.0 <= self.now) {
            let (node, to, from, payload) = self.in_flight.remove(&key).unwrap();
            self.inject(node, to, from, &payload);
        }
        while let Some(key) = self.esp_in_flight.keys().next().copied().filter(|key| key.0 <= self.now) {
            let (node, spi) = self.esp_in_flight.remove(&key).unwrap();
            self.receive_esp(node, spi);
        }
        if self.traffic_at.is_some_and(|at| at <= self.now) {
            self.traffic_at = Some(self.now + Duration::from_millis(50));
            for node in [A, B] {
                self.packets.0 += 1;
                match self.nodes[node].outbound().map(|installed| installed.sa.outbound_spi) {
                    Some(spi) => {
                        self.order += 1;
                        let at = self.now + Duration::from_millis(10);
                        self.esp_in_flight.insert((at, self.order), (1 - node, spi));
                    }
                    None => self.packets.1 += 1,
                }
            }
        }
        for node in [A, B] {
            self.nodes[node].wake(self.now);
        }
        self.flush();
    }

    fn receive_esp(&mut self, node: usize, spi: sa::Spi) {
        let now = self.now;
        let node = &mut self.nodes[node];
        let Some(installed) = node.sas.values_mut().find(|installed| installed.sa.inbound_spi == spi) else {
            self.packets.1 += 1;
            return;
        };
        let (id, first) = (installed.sa.id, !std::mem::replace(&mut installed.seen_inbound, true));
        let owner = node.sessions.iter().find(|(_, session)| session.child_ids().contains(&id)).map(|(spi, _)| *spi);
        if let Some(owner) = owner {
            node.session(owner, now, |session, ctx| {
                session.note_alive(now);
                if first {
                    session.note_first_inbound(id, ctx);
                }
            });
        }
        self.flush();
    }

    /// Exactly one IKE SA and one Child SA on each side, and their keys are each other's.
    pub(super) fn assert_joined(&self) {
        let [a, b] = &self.nodes;
        let (ike_a, ike_b) = (a.live(), b.live());
        assert_eq!((ike_a.len(), ike_b.len()), (1, 1), "live IKE SAs at {}: {ike_a:#?} {ike_b:#?}", self.now);
        assert_eq!(ike_a[0].local_spi(), ike_b[0].remote_spi());
        assert_eq!(ike_a[0].remote_spi(), ike_b[0].local_spi());
        assert_eq!((a.sas.len(), b.sas.len()), (1, 1), "Child SAs at {}: {:#?} {:#?}", self.now, a.sas, b.sas);
        let (sa_a, sa_b) = (a.sas.values().next().unwrap(), b.sas.values().next().unwrap());
        assert!(sa_a.is_active && sa_b.is_active, "{sa_a:#?} {sa_b:#?}");
        assert_eq!(sa_a.sa.outbound_spi, sa_b.sa.inbound_spi);
        assert_eq!(sa_a.sa.inbound_spi, sa_b.sa.outbound_spi);
        assert_eq!(sa_a.sa.keys.outbound, sa_b.sa.keys.inbound);
        assert_eq!(sa_a.sa.keys.inbound, sa_b.sa.keys.outbound);
        assert_eq!((&sa_a.sa.local, &sa_a.sa.remote), (&sa_b.sa.remote, &sa_b.sa.local));
        assert_eq!((sa_a.sa.suite, sa_a.sa.path.udp), (sa_b.sa.suite, sa_b.sa.path.udp));
        assert_eq!(ike_a[0].child_ids(), [sa_a.sa.id]);
        assert_eq!(ike_b[0].child_ids(), [sa_b.sa.id]);
    }

    /// No session and no SPI is left behind but those of the live IKE SA.
    pub(super) fn assert_clean(&self) {
        for node in &self.nodes {
            assert_eq!(node.sessions.len(), 1, "{:#?}", node.sessions);
            let pending = node.sessions.values().map(Session::pending_children).sum::<usize>();
            assert_eq!(node.numbers.taken(), node.sas.len() + pending, "SPIs leak: {:#?}", node.sessions);
        }
    }
}

pub(super) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(super) fn fqdn(name: &str) -> Option<Identity> {
    Some(Identity::Fqdn(name.into()))
}
