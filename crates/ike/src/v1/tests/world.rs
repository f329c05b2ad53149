//! Two gateways on a link that may lose, double and reorder packets, and translate addresses: each a small endpoint
//! that does with the signals what the real one does.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base::algorithm::{Encryption, Group, Integrity, Prf};
use base::{Instant, Random, Secret};
use model::{Address, Child, Connection, Dpd, DpdAction, EspProposal, IkeProposal, Selector, Start};
use sa::{ChildSa, SaChange, SaId};

use crate::context::{Again, Context, Ends, Numbers, Signal};
use crate::event::{CloseReason, Counters, Event, Output, Rekey};
use crate::natt;
use crate::peer::{Options, Peer, PeerId, Peers};
use crate::session::{IkeSaView, IkeState};
use crate::v1::Session;
use crate::wire::header::Header;

pub(super) const A: usize = 0;
pub(super) const B: usize = 1;
/// What stands outside of a NAT in front of A.
pub(super) const PUBLIC: &str = "198.51.100.9";

pub(super) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A gateway.
#[derive(Debug)]
pub(super) struct Gateway {
    pub(super) address: IpAddr,
    pub(super) peers: Peers,
    pub(super) options: Options,
    random: Random,
    numbers: Numbers,
    pub(super) counters: Counters,
    pub(super) sessions: Vec<Session>,
    /// Installed SAs, and those that packets leave by, the newest last.
    pub(super) installed: BTreeMap<SaId, ChildSa>,
    pub(super) active: Vec<SaId>,
    used: Vec<SaId>,
    pub(super) events: Vec<(Instant, Event)>,
    restart_at: Option<Instant>,
    /// When the sessions beside this one are closed.
    close_at: Option<(Instant, (u64, u64))>,
    pub(super) is_down: bool,
}

/// A datagram under way.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    pub(super) at: Instant,
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) payload: Vec<u8>,
}

/// Both, and what is between them.
pub(super) struct World {
    pub(super) now: Instant,
    pub(super) gateways: [Gateway; 2],
    pub(super) wire: Vec<Packet>,
    /// Everything that was ever sent, in order.
    pub(super) sent: Vec<Packet>,
    pub(super) random: Random,
    /// Per cent.
    pub(super) loss: u64,
    pub(super) doubles: u64,
    pub(super) jitter: Duration,
    /// The offset of the ports outside of a NAT in front of A, where there is one.
    pub(super) nat: Option<u16>,
    /// The longest IP packet that arrives.
    pub(super) mtu: usize,
    pub(super) probed: Vec<(usize, crate::Probed)>,
    /// Packets of traffic that found no SA at the other side.
    pub(super) lost_traffic: u32,
}

/// aes128-sha1-modp1024, PSK "cloudneta", 10.60.0.0/16 behind A and 10.50.0.0/16 behind B.
pub(super) fn connection(local: &str, remote: &str, selectors: (&str, &str)) -> Connection {
    let mut connection = Connection::named("t");
    connection.versions = model::Versions::Only(model::Version::V1);
    connection.local.address = Address::Ip(local.parse().unwrap());
    connection.remote.address = Address::Ip(remote.parse().unwrap());
    connection.psk = vec![Secret::from(&b"cloudneta"[..])];
    connection.ike = vec![IkeProposal {
        encryption: vec![Encryption::Aes128Cbc],
        integrity: vec![Integrity::Sha1],
        prf: vec![Prf::Sha1],
        groups: vec![Group::Curve25519],
    }];
    let mut child = Child::named("c");
    child.esp = vec![EspProposal {
        encryption: vec![Encryption::Aes128Cbc],
        integrity: vec![Integrity::Sha1],
        groups: vec![],
        esn: vec![false],
    }];
    child.local = vec![Selector::net(selectors.0.parse().unwrap())];
    child.remote = vec![Selector::net(selectors.1.parse().unwrap())];
    child.start = Start::AtOnce;
    connection.children = vec![child];
    connection.dpd = Some(Dpd { delay: secs(10), timeout: secs(30), action: DpdAction::Restart });
    connection
}

impl Gateway {
    fn new(address: &str, connection: Connection, seed: u64) -> Self {
        let address: IpAddr = address.parse().unwrap();
        let mut peers = Peers::default();
        peers.insert(Peer { id: PeerId(1), connection: Arc::new(connection), local: Some(address), remote: None });
        Self {
            address,
            peers,
            options: Options::default(),
            random: Random::for_test(seed),
            numbers: Numbers::default(),
            counters: Counters::default(),
            sessions: Vec::new(),
            installed: BTreeMap::new(),
            active: Vec::new(),
            used: Vec::new(),
            events: Vec::new(),
            restart_at: None,
            close_at: None,
            is_down: false,
        }
    }

    pub(super) fn established(&self) -> Vec<&Session> {
        self.sessions.iter().filter(|s| is_established(s)).collect()
    }

    fn failed(&self) -> impl Iterator<Item = &crate::Failure> {
        self.events.iter().filter_map(|(_, event)| {
            if let Event::Failed { failure, .. } = event { Some(failure.as_ref()) } else { None }
        })
    }

    pub(super) fn failures(&self) -> Vec<String> {
        self.failed().map(ToString::to_string).collect()
    }

    pub(super) fn causes(&self) -> Vec<&'static str> {
        self.failed().map(|failure| failure.cause.name()).collect()
    }

    pub(super) fn down_reasons(&self) -> Vec<CloseReason> {
        let reason = |(_, event): &(Instant, Event)| {
            if let Event::IkeDown { reason, .. } = event { Some(reason.clone()) } else { None }
        };
        self.events.iter().filter_map(reason).collect()
    }
}

fn is_established(session: &Session) -> bool {
    matches!(session.state(), IkeState::Established | IkeState::Rekeying)
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self::of(
            connection("192.0.2.1", "192.0.2.2", ("10.60.0.0/16", "10.50.0.0/16")),
            connection("192.0.2.2", "192.0.2.1", ("10.50.0.0/16", "10.60.0.0/16")),
            seed,
        )
    }

    /// A, at 10.0.0.1, is behind a NAT.
    pub(super) fn behind_nat(seed: u64, change: impl FnOnce(&mut Connection, &mut Connection)) -> Self {
        let mut a = connection("10.0.0.1", "192.0.2.2", ("10.60.0.0/16", "10.50.0.0/16"));
        let mut b = connection("192.0.2.2", PUBLIC, ("10.50.0.0/16", "10.60.0.0/16"));
        a.local.id = Some(model::Identity::Ip(PUBLIC.parse().unwrap()));
        change(&mut a, &mut b);
        let mut world = Self::of(a, b, seed);
        world.nat = Some(20_000);
        world
    }

    pub(super) fn with(seed: u64, change: impl FnOnce(&mut Connection, &mut Connection)) -> Self {
        let mut a = connection("192.0.2.1", "192.0.2.2", ("10.60.0.0/16", "10.50.0.0/16"));
        let mut b = connection("192.0.2.2", "192.0.2.1", ("10.50.0.0/16", "10.60.0.0/16"));
        change(&mut a, &mut b);
        Self::of(a, b, seed)
    }

    fn of(a: Connection, b: Connection, seed: u64) -> Self {
        let address = |c: &Connection| c.local.address.ip().unwrap().to_string();
        let gateways = [
            Gateway::new(&address(&a), a, seed.wrapping_mul(3) + 1),
            Gateway::new(&address(&b), b, seed.wrapping_mul(3) + 2),
        ];
        Self {
            now: Instant::ZERO,
            gateways,
            wire: Vec::new(),
            sent: Vec::new(),
            random: Random::for_test(seed),
            loss: 0,
            doubles: 0,
            jitter: Duration::ZERO,
            nat: None,
            mtu: usize::MAX,
            probed: Vec::new(),
            lost_traffic: 0,
        }
    }

    pub(super) fn connection_of(&mut self, side: usize, change: impl FnOnce(&mut Connection)) {
        let peer = self.gateways[side].peers.get_mut(PeerId(1)).unwrap();
        change(Arc::make_mut(&mut peer.connection));
    }

    /// Runs `act` with a context, then does what the outputs and signals say.
    pub(super) fn act<R>(&mut self, side: usize, act: impl FnOnce(&mut Vec<Session>, &mut Context<'_>) -> R) -> R {
        let gateway = &mut self.gateways[side];
        let (mut outputs, mut signals) = (VecDeque::new(), Vec::new());
        let first_contact = gateway.established().is_empty();
        let mut cookies = crate::v2::Cookies::default();
        let mut ctx = Context {
            now: self.now,
            options: &gateway.options,
            peers: &gateway.peers,
            random: &mut gateway.random,
            numbers: &mut gateway.numbers,
            counters: &mut gateway.counters,
            outputs: &mut outputs,
            signals: &mut signals,
            half_open: 0,
            cookies: &mut cookies,
            first_contact,
        };
        let result = act(&mut gateway.sessions, &mut ctx);
        self.outputs(side, outputs);
        for signal in signals {
            self.signal(side, signal);
        }
        result
    }

    fn outputs(&mut self, side: usize, outputs: VecDeque<Output>) {
        for output in outputs {
            match output {
                Output::Transmit(transmit) => {
                    self.send(Packet {
                        at: self.now,
                        from: transmit.local,
                        to: transmit.remote,
                        payload: transmit.payload,
                    });
                }
                Output::Sa(change) => self.gateways[side].change(change),
                Output::Event(event) => self.gateways[side].events.push((self.now, event)),
                Output::Probed(probed) => self.probed.push((side, probed)),
            }
        }
    }

    fn signal(&mut self, side: usize, signal: Signal) {
        match signal {
            Signal::Established { replace_all, .. } => self.settle(side, replace_all),
            Signal::Renew { .. } => {
                if !self.gateways[side].sessions.iter().any(|s| s.state() == IkeState::Connecting && s.is_initiator()) {
                    self.initiate(side, &[]);
                }
            }
            Signal::Closed { again, .. } => {
                self.gateways[side].sessions.retain(|s| s.view().state_name != "MM_FREE");
                let is_idle = self.gateways[side].sessions.is_empty();
                let wait = match again {
                    Again::No | Again::OnTraffic => return,
                    Again::AtOnce => Duration::from_millis(100),
                    Again::Later => secs(2),
                };
                if is_idle {
                    self.gateways[side].restart_at = Some(self.now + wait);
                }
            }
            Signal::Successor(_) | Signal::Redundant(_) => unreachable!("IKEv1 has none"),
        }
    }

    /// A session is newly established: of several, one stays. The others give it their children, and are closed when
    /// the peer has had time to see the same.
    fn settle(&mut self, side: usize, replace_all: bool) {
        let sessions = &self.gateways[side].sessions;
        let mut views: Vec<_> = sessions.iter().filter(|s| is_established(s)).map(Session::view).collect();
        views.sort_by_key(|view| view.established_at);
        let Some(newest) = views.pop() else { return };
        // Where both began at about the same time, the lower cookie wins: both know it.
        let is_tie = |old: &IkeSaView| {
            old.is_initiator != newest.is_initiator
                && newest.established_at.zip(old.established_at).is_some_and(|(a, b)| a - b < secs(10))
        };
        let rival = views.iter().rev().find(|old| is_tie(old) && old.spis.0 < newest.spis.0);
        let winner = rival.unwrap_or(&newest).spis;
        for old in views.iter().chain([&newest]).filter(|view| view.spis != winner) {
            let forget = replace_all && old.spis != newest.spis && !is_tie(old);
            self.act(side, |sessions, ctx| {
                let find = |spis| move |s: &Session| s.view().spis == spis;
                let (loser, winner) = (
                    sessions.iter().position(find(old.spis)).unwrap(),
                    sessions.iter().position(find(winner)).unwrap(),
                );
                if forget {
                    return sessions[loser].close(CloseReason::Replaced, ctx);
                }
                let children = sessions[loser].take_children(ctx);
                sessions[winner].adopt_children(children, ctx);
            });
            self.gateways[side].close_at = Some((self.now + secs(3), winner));
        }
    }

    fn close_losers(&mut self, side: usize) {
        let Some((_, winner)) = self.gateways[side].close_at.take() else { return };
        self.act(side, |sessions, ctx| {
            for session in sessions.iter_mut().filter(|s| is_established(s) && s.view().spis != winner) {
                session.close(CloseReason::Replaced, ctx);
            }
            sessions.iter_mut().for_each(|session| session.initiate_child("c", ctx));
        });
    }

    /// Begins a negotiation at `side`.
    pub(super) fn initiate(&mut self, side: usize, children: &[&str]) {
        let names: Vec<Arc<str>> = children.iter().map(|name| (*name).into()).collect();
        self.act(side, |sessions, ctx| {
            let peer = ctx.peers.get(PeerId(1)).unwrap();
            let (local, remote) = peer.sockets(ctx.options.ports).unwrap();
            sessions.push(Session::initiate(peer, Ends { local, remote }, &names, ctx));
        });
    }

    /// Puts a packet on the wire: translated, lost, doubled or late.
    fn send(&mut self, mut packet: Packet) {
        if let Some(offset) = self.nat
            && packet.from.ip() == self.gateways[A].address
        {
            packet.from = SocketAddr::new(PUBLIC.parse().unwrap(), packet.from.port() + offset);
        }
        self.sent.push(packet.clone());
        let copies = 1 + u64::from(self.random.below(100) < self.doubles);
        for _ in 0..copies {
            if self.random.below(100) >= self.loss && packet.payload.len() + 28 <= self.mtu {
                let jitter = self.random.below(self.jitter.as_micros() as u64 + 1);
                let at = self.now + Duration::from_millis(10) + Duration::from_micros(jitter);
                self.wire.push(Packet { at, ..packet.clone() });
            }
        }
    }

    /// Hands a datagram to the gateway it is for.
    pub(super) fn deliver(&mut self, mut packet: Packet) {
        if let Some(offset) = self.nat
            && packet.to.ip() == PUBLIC.parse::<IpAddr>().unwrap()
        {
            let Some(port) = packet.to.port().checked_sub(offset).filter(|port| *port < 5_000) else { return };
            packet.to = SocketAddr::new(self.gateways[A].address, port);
        }
        let Some(side) = self.gateways.iter().position(|g| g.address == packet.to.ip() && !g.is_down) else { return };
        let natt = self.gateways[side].options.ports.natt;
        let message = if packet.to.port() == natt {
            let Some(message) = natt::strip_marker(&packet.payload) else { return };
            message
        } else {
            &packet.payload[..]
        };
        let ends = Ends { local: packet.to, remote: packet.from };
        let Ok(header) = Header::decode(message) else { return };
        self.act(side, |sessions, ctx| {
            let cookies = (header.initiator_spi, header.responder_spi);
            let named = |s: &&mut Session| {
                let spis = s.view().spis;
                s.view().state_name != "MM_FREE"
                    && (spis == cookies || spis.0 == cookies.0 && (cookies.1 == 0 || spis.1 == 0 && s.is_initiator()))
            };
            match sessions.iter_mut().find(named) {
                Some(session) => session.handle_message(ends, &header, message, ctx),
                None if header.responder_spi == 0 => sessions.extend(Session::respond(ends, &header, message, ctx)),
                None => ctx.drop(crate::DropReason::UnknownSpi),
            }
        });
    }

    /// The next thing that happens, if it does before `until`.
    fn next(&self, until: Instant) -> Option<Instant> {
        let wire = self.wire.iter().map(|packet| packet.at);
        let sides = self.gateways.iter().filter(|g| !g.is_down);
        let timers = sides.flat_map(|g| {
            g.sessions
                .iter()
                .filter_map(Session::poll_timeout)
                .map(|d| d.at)
                .chain(g.restart_at)
                .chain(g.close_at.map(|(at, _)| at))
        });
        wire.chain(timers).min().filter(|at| *at <= until)
    }

    /// Lets time pass.
    pub(super) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        let mut turns = 0;
        while let Some(at) = self.next(until) {
            turns += usize::from(at <= self.now);
            assert!(
                turns < 100_000,
                "it spins: {:?}",
                self.gateways[A].sessions.iter().map(Session::poll_timeout).collect::<Vec<_>>()
            );
            if at > self.now {
                turns = 0;
            }
            self.now = self.now.max(at);
            self.step();
        }
        self.now = until;
    }

    fn step(&mut self) {
        let due: Vec<_> = self.wire.iter().filter(|packet| packet.at <= self.now).cloned().collect();
        self.wire.retain(|packet| packet.at > self.now);
        due.into_iter().for_each(|packet| self.deliver(packet));
        for side in [A, B] {
            if self.gateways[side].is_down {
                continue;
            }
            let now = self.now;
            self.act(side, |sessions, ctx| {
                for session in sessions.iter_mut() {
                    if session.poll_timeout().is_some_and(|deadline| deadline.at <= now) {
                        session.handle_timeout(ctx);
                    }
                }
            });
            if self.gateways[side].close_at.is_some_and(|(at, _)| at <= now) {
                self.close_losers(side);
            }
            if self.gateways[side].restart_at.is_some_and(|at| at <= now) {
                self.gateways[side].restart_at = None;
                if self.gateways[side].sessions.is_empty() {
                    self.initiate(side, &["c"]);
                }
            }
        }
    }

    /// Sends a packet of traffic for each pair of selectors by the newest active SA. Returns how many arrived.
    pub(super) fn ping(&mut self, side: usize) -> usize {
        let gateway = &self.gateways[side];
        let mut newest: BTreeMap<_, SaId> = BTreeMap::new();
        for id in gateway.active.iter().filter(|id| gateway.installed.contains_key(id)) {
            let sa = &gateway.installed[id];
            newest.insert((sa.local.clone(), sa.remote.clone()), *id);
        }
        let mut arrived = 0;
        for id in newest.into_values() {
            let sa = self.gateways[side].installed[&id].clone();
            let other = &self.gateways[1 - side];
            let at = other.installed.values().find(|s| s.inbound_spi == sa.outbound_spi && !other.is_down);
            let Some(at) = at.filter(|s| s.keys.inbound == sa.keys.outbound && s.suite == sa.suite) else {
                self.lost_traffic += 1;
                continue;
            };
            arrived += 1;
            let id = at.id;
            let is_first = !other.used.contains(&id);
            if is_first {
                self.gateways[1 - side].used.push(id);
            }
            self.act(1 - side, |sessions, ctx| {
                for session in sessions.iter_mut().filter(|s| s.child_ids().contains(&id)) {
                    session.note_alive(ctx.now);
                    if is_first {
                        session.note_first_inbound(id, ctx);
                    }
                }
            });
        }
        arrived
    }

    /// Both sides send a packet a second.
    pub(super) fn run_with_traffic(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.run(secs(1).min(until.saturating_since(self.now)));
            self.ping(A);
            self.ping(B);
        }
    }

    pub(super) fn rekey(&mut self, side: usize, what: Rekey) {
        self.act(side, |sessions, ctx| {
            sessions.iter_mut().for_each(|session| session.rekey(what, ctx));
        });
    }

    /// The same, and where it fails, what happened.
    pub(super) fn assert_settled_of(&self, seed: u64, pairs: usize) {
        let verdict = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.assert_settled(pairs)));
        assert!(verdict.is_ok(), "seed {seed}: {:#?}", self.gateways.each_ref().map(|gateway| &gateway.events));
    }

    /// One ISAKMP SA, and `pairs` Child SAs, the same on both sides with the same keys.
    pub(super) fn assert_settled(&self, pairs: usize) {
        for gateway in &self.gateways {
            assert_eq!(gateway.sessions.len(), 1, "sessions of {}", gateway.address);
            assert_eq!(gateway.established().len(), 1);
            assert_eq!(gateway.installed.len(), pairs, "SAs of {}", gateway.address);
            assert_eq!(gateway.sessions[0].child_ids().len(), pairs);
            assert!(gateway.installed.keys().all(|id| gateway.active.contains(id)), "{}", gateway.address);
        }
        let [a, b] = &self.gateways;
        assert_eq!(a.sessions[0].view().spis, b.sessions[0].view().spis);
        for sa in a.installed.values() {
            let other = b.installed.values().find(|other| other.inbound_spi == sa.outbound_spi).unwrap();
            assert_eq!(other.outbound_spi, sa.inbound_spi);
            assert_eq!((&other.keys.inbound, &other.keys.outbound), (&sa.keys.outbound, &sa.keys.inbound));
            assert_eq!((&other.local, &other.remote), (&sa.remote, &sa.local));
        }
    }
}

impl Gateway {
    fn change(&mut self, change: SaChange) {
        match change {
            SaChange::Install(sa) => {
                let twice = self.installed.insert(sa.id, *sa);
                assert!(twice.is_none(), "an SA is installed once");
            }
            SaChange::Activate(id) => {
                assert!(self.installed.contains_key(&id), "only what is installed is activated");
                self.active.retain(|active| *active != id);
                self.active.push(id);
            }
            SaChange::Remove(id) => {
                assert!(self.installed.remove(&id).is_some(), "only what is installed is removed");
                self.active.retain(|active| *active != id);
            }
            SaChange::Move { id, path } => {
                self.installed.get_mut(&id).expect("only what is installed is moved").path = path;
            }
            SaChange::Skip { .. } => panic!("IKEv1 skips nothing"),
        }
    }
}
