//! Two neighbors on a virtual link, and a neighbor made of single packets.

use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU8, NonZeroU32};
use std::time::Duration;

use base::{Deadline, Instant, Machine, Random};
use bfd::wire::Packet;
use bfd::{
    Diagnostic, Discard, DownCause, Event, EventKind, Options, Output, PORT, SessionConfig, SessionId, Sessions, State,
    Status, TTL, Transmit,
};
use sim::{Datagram, Host, Link, Network, World};

pub(crate) const A: &str = "169.254.10.1";
pub(crate) const B: &str = "169.254.10.2";
pub(crate) const ID: SessionId = SessionId(7);
pub(crate) const MS: Duration = Duration::from_millis(1);
pub(crate) const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn ip(address: &str) -> IpAddr {
    address.parse().unwrap()
}

pub(crate) fn at(time: Duration) -> Instant {
    Instant::ZERO + time
}

/// 100 ms both ways, three packets.
pub(crate) fn config(local: &str, remote: &str) -> SessionConfig {
    SessionConfig { min_tx: 100 * MS, min_rx: 100 * MS, ..SessionConfig::new(ip(local), ip(remote)) }
}

/// A host with BFD sessions.
pub(crate) struct Gate {
    pub(crate) address: IpAddr,
    pub(crate) sessions: Sessions,
    pub(crate) events: Vec<(Instant, EventKind)>,
    pub(crate) sent: Vec<(Instant, Transmit)>,
    pub(crate) now: Instant,
}

impl Gate {
    pub(crate) fn new(address: &str, seed: u64) -> Self {
        Self {
            address: ip(address),
            sessions: Sessions::new(Options::default(), Random::for_test(seed)),
            events: vec![],
            sent: vec![],
            now: Instant::ZERO,
        }
    }

    pub(crate) fn with(address: &str, seed: u64, config: SessionConfig) -> Self {
        let mut gate = Self::new(address, seed);
        gate.sessions.upsert(ID, config, Instant::ZERO).unwrap();
        gate
    }

    pub(crate) fn status(&self) -> Status {
        self.sessions.status(ID).unwrap()
    }

    pub(crate) fn state(&self) -> State {
        self.status().state
    }

    /// Why it went down, each time.
    pub(crate) fn downs(&self) -> Vec<(Instant, DownCause)> {
        let cause = |kind: &EventKind| match kind {
            EventKind::Up => None,
            EventKind::Down { cause, .. } => Some(*cause),
        };
        self.events.iter().filter_map(|(at, kind)| Some((*at, cause(kind)?))).collect()
    }
}

impl Host for Gate {
    fn address(&self) -> IpAddr {
        self.address
    }

    fn receive(&mut self, datagram: Datagram, now: Instant) {
        self.now = now;
        assert_eq!(datagram.destination.port(), PORT);
        let _ = self.sessions.handle_packet(datagram.destination, datagram.source, TTL, &datagram.payload, now);
    }

    fn wake(&mut self, now: Instant) {
        self.now = now;
        self.sessions.handle_timeout(now);
    }

    fn deadline(&self) -> Option<Deadline> {
        self.sessions.poll_timeout()
    }

    fn outgoing(&mut self) -> Vec<Datagram> {
        let mut datagrams = vec![];
        while let Some(output) = self.sessions.poll_output() {
            match output {
                Output::Transmit(transmit) => {
                    self.sent.push((self.now, transmit));
                    datagrams.push(Datagram {
                        source: transmit.local,
                        destination: transmit.remote,
                        payload: transmit.payload.as_bytes().to_vec(),
                    });
                }
                Output::Event(Event { kind, .. }) => self.events.push((self.now, kind)),
                Output::Release { .. } => {}
            }
        }
        datagrams
    }
}

pub(crate) type Pair = World<Gate>;

/// Two neighbors with these configurations.
pub(crate) fn pair(link: Link, a: SessionConfig, b: SessionConfig, seed: u64) -> Pair {
    World::new(Network::new(link, seed), vec![Gate::with(A, seed * 2 + 1, a), Gate::with(B, seed * 2 + 2, b)])
}

/// Two neighbors, 100 ms, three packets, nothing lost, and both Up for long.
pub(crate) fn pair_up() -> Pair {
    let mut pair = pair(Link::default(), config(A, B), config(B, A), 1);
    pair.run_for(20 * SECOND);
    assert_up(&pair);
    pair
}

pub(crate) fn assert_up(pair: &Pair) {
    assert_eq!(pair.hosts.iter().map(Gate::state).collect::<Vec<_>>(), [State::Up, State::Up]);
}

/// One host of ours; the neighbor is whoever writes the test.
pub(crate) struct Alone {
    pub(crate) sessions: Sessions,
    pub(crate) now: Instant,
    pub(crate) theirs: Packet,
}

impl Alone {
    pub(crate) fn new(config: SessionConfig) -> Self {
        let mut sessions = Sessions::new(Options::default(), Random::for_test(5));
        sessions.upsert(ID, config, Instant::ZERO).unwrap();
        let theirs = Packet {
            diagnostic: Diagnostic::NONE,
            state: State::Down,
            poll: false,
            is_final: false,
            control_plane_independent: false,
            demand: false,
            multiplier: NonZeroU8::new(3).unwrap(),
            my_discriminator: NonZeroU32::new(0xb1d0).unwrap(),
            your_discriminator: None,
            desired_min_tx: 1_000_000,
            required_min_rx: 100_000,
            required_min_echo_rx: 0,
        };
        Self { sessions, now: Instant::ZERO, theirs }
    }

    /// With a session that is Up, at 100 ms, and no Poll Sequence under way.
    pub(crate) fn up() -> Self {
        let mut alone = Self::new(config(A, B));
        alone.say(State::Down).unwrap();
        alone.theirs.desired_min_tx = 100_000;
        alone.say(State::Init).unwrap();
        alone.theirs.is_final = true;
        alone.say(State::Up).unwrap();
        alone.theirs.is_final = false;
        alone.say(State::Up).unwrap();
        assert_eq!((alone.status().state, alone.status().is_polling), (State::Up, false));
        alone.outputs();
        alone
    }

    pub(crate) fn status(&self) -> Status {
        self.sessions.status(ID).unwrap()
    }

    /// The neighbor says this state, and our discriminator as soon as its state says that it knows it.
    pub(crate) fn say(&mut self, state: State) -> Result<(), Discard> {
        self.theirs.state = state;
        if matches!(state, State::Init | State::Up) {
            self.theirs.your_discriminator = Some(self.status().local_discriminator);
        }
        let payload = self.theirs.encode();
        self.hear(payload.as_bytes())
    }

    pub(crate) fn hear(&mut self, bytes: &[u8]) -> Result<(), Discard> {
        self.sessions.handle_packet(socket(A), SocketAddr::new(ip(B), 50_000), TTL, bytes, self.now)
    }

    /// Lets time pass; what is due is done punctually. Says what was sent, and when.
    pub(crate) fn pass(&mut self, time: Duration) -> Vec<(Instant, Packet)> {
        let (end, mut sent) = (self.now + time, vec![]);
        while let Some(deadline) = self.sessions.poll_timeout().filter(|deadline| deadline.at <= end) {
            self.now = self.now.max(deadline.at);
            self.sessions.handle_timeout(self.now);
            sent.extend(self.outputs().0.into_iter().map(|packet| (self.now, packet)));
        }
        self.now = end;
        sent
    }

    /// Packets and events since the last time.
    pub(crate) fn outputs(&mut self) -> (Vec<Packet>, Vec<EventKind>) {
        let (mut packets, mut events) = (vec![], vec![]);
        while let Some(output) = self.sessions.poll_output() {
            match output {
                Output::Transmit(transmit) => {
                    packets.push(Packet::decode(transmit.payload.as_bytes()).unwrap().packet);
                }
                Output::Event(event) => events.push(event.kind),
                Output::Release { .. } => {}
            }
        }
        (packets, events)
    }
}

pub(crate) fn socket(address: &str) -> SocketAddr {
    SocketAddr::new(ip(address), PORT)
}
