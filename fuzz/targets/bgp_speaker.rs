//! A speaker between a hostile neighbour, one that is as it should be, and a person. The neighbour connects, says what it
//! likes and breaks off; time passes; the person changes what may be changed.
//!
//! No session without an OPEN of the neighbour's AS; no deadline spins; connections are bounded, whatever is opened is
//! closed, and what leaves is BGP; the good neighbour's session is never touched by what the other does; no key in what
//! is told.
#![no_main]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::{Instant, Machine, Random, Secret};
use bgp::policy::Policy;
use bgp::rib::{LocalKind, MaxPrefixes};
use bgp::session::State;
use bgp::speaker::LocalRoute;
use bgp::wire::{Capabilities, MessageKind, Open, split, write_keepalive};
use bgp::{ConnectionId, Families, Neighbor, NeighborId, Output, Speaker, SpeakerOptions};
use fuzz::peers::address;
use fuzz::{Input, MARK};
use libfuzzer_sys::fuzz_target;

const OURS: &str = "169.254.10.1";
const THEIRS: [&str; 2] = ["169.254.10.2", "169.254.10.6"];
const HOSTILE: NeighborId = NeighborId(0);
const GOOD: NeighborId = NeighborId(1);

/// A connection of each direction that is new, one that is established, and one that is being made.
const MOST_CONNECTIONS: usize = 6;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let mut site = Site::new();
    // Longer inputs find nothing that shorter ones do not.
    for _ in 0..120 {
        if input.is_empty() {
            break;
        }
        site.step(&mut input);
        site.check();
    }
    site.finish();
});

struct Site {
    speaker: Speaker,
    now: Instant,
    /// Of the hostile neighbour: connections that are open, and those that are being made.
    open: BTreeSet<ConnectionId>,
    dialled: BTreeSet<ConnectionId>,
    /// Whether its OPEN had the right AS at any time.
    has_introduced_itself: bool,
    good: Option<ConnectionId>,
}

fn neighbor(id: NeighborId) -> Neighbor {
    let open = Arc::new(Policy::accept_all());
    let name = if id == HOSTILE { "hostile" } else { "good" };
    Neighbor {
        import: Arc::clone(&open),
        export: open,
        families: Families::ALL,
        password: Some(Secret::from(MARK.as_bytes())),
        passive: id == GOOD,
        long_lived: Duration::from_secs(600),
        max_prefixes: Some(MaxPrefixes { limit: 40, warn_at: 30 }),
        max_prefixes_restart: Some(Duration::from_secs(60)),
        other_next_hop: "2001:db8::1".parse().ok(),
        ..Neighbor::of(name, address(THEIRS[id.0 as usize]), 65000 + id.0)
    }
}

fn introduction(id: NeighborId) -> Vec<u8> {
    let capabilities = Capabilities {
        families: Some(Families::ALL),
        route_refresh: true,
        enhanced_refresh: true,
        four_octet_as: true,
        ..Capabilities::default()
    };
    let mut bytes = Vec::new();
    Open { asn: 65000 + id.0, hold_time: 0, router_id: [10, 0, 0, 9].into(), capabilities }.write(&mut bytes);
    bytes
}

fn keepalive() -> Vec<u8> {
    let mut bytes = Vec::new();
    write_keepalive(&mut bytes);
    bytes
}

impl Site {
    fn new() -> Self {
        let options = SpeakerOptions::of(64512, [10, 0, 0, 5].into());
        let speaker = Speaker::new(options, Random::for_test(1), Instant::ZERO);
        let (open, dialled) = (BTreeSet::new(), BTreeSet::new());
        let mut site = Self { speaker, now: Instant::ZERO, open, dialled, has_introduced_itself: false, good: None };
        for id in [HOSTILE, GOOD] {
            site.speaker.upsert_neighbor(id, neighbor(id), site.now).expect("they can be");
        }
        site.pass(Duration::ZERO);
        let good = site.accept(GOOD).expect("it is awaited");
        site.good = Some(good);
        site.speaker.handle_bytes(good, &introduction(GOOD), site.now);
        site.speaker.handle_bytes(good, &keepalive(), site.now);
        // The good one's session comes up, of which there is an event; from now on there is none.
        while let Some(output) = site.speaker.poll_output() {
            assert!(!matches!(output, Output::Close { .. } | Output::Connect { .. }));
        }
        site.speaker.announce(&LocalRoute::of("10.1.0.0/16".parse().expect("a net"), LocalKind::Network), site.now);
        site.drain();
        site
    }

    fn accept(&mut self, id: NeighborId) -> Option<ConnectionId> {
        let (local, remote) =
            (SocketAddr::new(address(OURS), 179), SocketAddr::new(address(THEIRS[id.0 as usize]), 4000));
        self.speaker.handle_accepted(local, remote, self.now)
    }

    fn pick(&self, from: &BTreeSet<ConnectionId>, input: &mut Input<'_>) -> Option<ConnectionId> {
        let count = from.len().max(1);
        from.iter().nth(usize::from(input.byte()) % count).copied()
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let now = self.now;
        match input.byte() % 16 {
            0 => {
                if let Some(id) = self.accept(HOSTILE) {
                    self.open.insert(id);
                }
            }
            1 => {
                if let Some(id) = self.pick(&self.dialled, input) {
                    self.dialled.remove(&id);
                    self.open.insert(id);
                    let local = SocketAddr::new(address(OURS), 4000);
                    self.speaker.handle_connected(id, local, SocketAddr::new(address(THEIRS[0]), 179), now);
                }
            }
            2 => {
                if let Some(id) = self.pick(&self.dialled, input) {
                    self.dialled.remove(&id);
                    self.speaker.handle_connect_failed(id, "refused", now);
                }
            }
            3 => {
                if let Some(id) = self.pick(&self.open, input) {
                    self.open.remove(&id);
                    self.speaker.handle_closed(id, "reset", now);
                }
            }
            4 => self.say(&introduction(HOSTILE), input),
            5 => self.say(&keepalive(), input),
            6..=8 => {
                // A message with a good header.
                let kind = MessageKind::ALL[usize::from(input.byte()) % 5];
                let body = input.block();
                let mut bytes = vec![0xFF; 16];
                bytes.extend_from_slice(&(19 + body.len() as u16).to_be_bytes());
                bytes.push(kind.number());
                bytes.extend_from_slice(body);
                self.say(&bytes, input);
            }
            9 => {
                let noise = input.block().to_vec();
                self.say(&noise, input);
            }
            10 => {
                let millis = u64::from(input.word());
                self.pass(Duration::from_millis(millis * 8));
            }
            11 => {
                if let Some(id) = self.pick(&self.open, input) {
                    self.speaker.handle_writable(id, usize::from(input.word()), now);
                }
            }
            12 => self.speaker.set_reachable(HOSTILE, input.byte() & 1 == 0, now),
            13 => self.speaker.reset(HOSTILE, now),
            14 => self.change(input.byte()),
            _ => {
                let net = format!("10.{}.0.0/16", input.byte()).parse().expect("a net");
                self.speaker.announce(&LocalRoute::of(net, LocalKind::Static), now);
            }
        }
        self.drain();
    }

    fn change(&mut self, what: u8) {
        let (now, mut it) = (self.now, neighbor(HOSTILE));
        match what % 8 {
            0 => it.passive = true,
            1 => it.families = Families::IPV4,
            2 => it.shut_down = Some("words".to_owned()),
            3 => it.graceful_restart = false,
            4 => it.default_originate = true,
            5 => it.import = Arc::default(),
            6 => return self.speaker.note_bfd_down(HOSTILE, now),
            _ => return self.speaker.set_draining(HOSTILE, what & 8 != 0, now),
        }
        self.speaker.upsert_neighbor(HOSTILE, it, now).expect("it can be");
    }

    /// The hostile neighbour sends this.
    fn say(&mut self, bytes: &[u8], input: &mut Input<'_>) {
        let Some(id) = self.pick(&self.open, input) else { return };
        // A second OPEN, or the right octets in noise: whatever holds one may be an introduction.
        let as_open = [0xFD, 0xE8];
        self.has_introduced_itself |= bytes.windows(2).any(|two| two == as_open) || bytes.len() < 45;
        self.speaker.handle_bytes(id, bytes, self.now);
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..2000 {
            let Some(deadline) = self.speaker.poll_timeout().filter(|deadline| deadline.at <= end) else { break };
            self.now = self.now.max(deadline.at);
            self.speaker.handle_timeout(self.now);
            let again = self.speaker.poll_timeout();
            assert!(again.is_none_or(|deadline| deadline.at > self.now), "it spins: {again:?}");
            self.drain();
        }
        self.now = end;
    }

    fn drain(&mut self) {
        for count in 0.. {
            let Some(output) = self.speaker.poll_output() else { break };
            assert!(count < 10_000, "no end of it: {output:?}");
            assert!(!format!("{output:?}").contains(MARK), "a key is shown");
            match output {
                Output::Send { connection, bytes } => {
                    assert!(self.open.contains(&connection) || Some(connection) == self.good, "it is not open");
                    let mut rest = &bytes[..];
                    while let Some((_, tail)) = split(rest).expect("what leaves is BGP") {
                        rest = tail;
                    }
                    assert!(rest.is_empty(), "what leaves are whole messages");
                    if Some(connection) == self.good {
                        self.speaker.handle_writable(connection, 100_000, self.now);
                    }
                }
                Output::Close { connection } => {
                    assert!(Some(connection) != self.good, "the good one is closed");
                    let was_known = self.open.remove(&connection) | self.dialled.remove(&connection);
                    assert!(was_known, "what is closed was open");
                }
                Output::Connect { connection, neighbor, .. } => {
                    assert_eq!(neighbor, HOSTILE);
                    assert!(self.dialled.insert(connection), "no name is used twice");
                }
                Output::Event(event) => assert_ne!(event.neighbor, Some(GOOD), "{}", event.sentence),
                Output::Listen { .. } | Output::Unlisten { .. } | Output::Route(_) => {}
            }
        }
    }

    fn check(&self) {
        assert!(self.open.len() + self.dialled.len() <= MOST_CONNECTIONS, "{:?} {:?}", self.open, self.dialled);
        let hostile = self.speaker.neighbor(HOSTILE, self.now).expect("it is there");
        assert!(hostile.state < State::OpenConfirm || self.has_introduced_itself);
        assert!(hostile.ipv4.received <= 40 && hostile.ipv6.received <= 40);
        let good = self.speaker.neighbor(GOOD, self.now).expect("it is there");
        assert_eq!((good.state, good.flaps), (State::Established, 0));
    }

    /// Left alone and configured as it was, the neighbour can come up.
    fn finish(&mut self) {
        self.speaker.upsert_neighbor(HOSTILE, neighbor(HOSTILE), self.now).expect("it can be");
        self.speaker.set_reachable(HOSTILE, true, self.now);
        self.speaker.reset(HOSTILE, self.now);
        self.drain();
        self.pass(Duration::from_millis(1));
        let Some(id) = self.dialled.last().copied() else { panic!("it does not connect") };
        self.dialled.remove(&id);
        self.open.insert(id);
        let (local, remote) = (SocketAddr::new(address(OURS), 4000), SocketAddr::new(address(THEIRS[0]), 179));
        self.speaker.handle_connected(id, local, remote, self.now);
        self.speaker.handle_bytes(id, &introduction(HOSTILE), self.now);
        self.speaker.handle_bytes(id, &keepalive(), self.now);
        self.drain();
        let state = self.speaker.neighbor(HOSTILE, self.now).expect("it is there").state;
        assert_eq!(state, State::Established);
    }
}
