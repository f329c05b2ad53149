//! Two peers, and somebody between them who loses, repeats, delays, changes and invents datagrams.
//!
//! Whatever happens, the two halves of an SA have the same keys, algorithms and traffic; and once left alone, the two
//! find each other again.
#![no_main]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use base::{Instant, Machine, Random};
use fuzz::Input;
use fuzz::peers::{OURS, THEIRS, connection, socket};
use ike::{Endpoint, Options, Output, PeerId, Rekey, Transmit};
use libfuzzer_sys::fuzz_target;
use model::{Encapsulation, Version};
use sa::{ChildSa, SaChange, SaId, Spi};

const PEER: PeerId = PeerId(1);
/// Time in which two peers that are left alone have a tunnel, however they were left.
const HEALED: Duration = Duration::from_secs(900);
/// How often packets that find no tunnel ask for one.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// Datagrams that may be under way; more are lost.
const UNDER_WAY: usize = 64;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let mut pair = Pair::new(if input.byte() & 1 == 0 { Version::V2 } else { Version::V1 });
    pair.ends[0].endpoint.initiate(PEER, None, Instant::ZERO);
    pair.settle();
    for _ in 0..200 {
        if input.is_empty() {
            break;
        }
        pair.step(&mut input);
    }
    pair.heal();
});

struct Pair {
    version: Version,
    ends: [End; 2],
    now: Instant,
    under_way: VecDeque<(usize, Transmit)>,
    /// What was sent lately, to be sent again.
    past: VecDeque<(usize, Transmit)>,
}

/// A peer, and the SAs that it put in service.
struct End {
    endpoint: Endpoint,
    sas: BTreeMap<SaId, ChildSa>,
    active: Vec<SaId>,
    /// Every SA there ever was, by our SPI.
    ever: BTreeMap<Spi, ChildSa>,
}

impl Pair {
    fn new(version: Version) -> Self {
        let end = |local: &str, remote: &str, seed| {
            let mut endpoint = Endpoint::new(Options::default(), Random::for_test(seed));
            let mut connection = connection(version, local, Some(remote));
            if version == Version::V1 {
                // Nothing proves what IKEv1 says about NAT, so whoever changes it makes the ends differ for good.
                connection.encapsulation = Encapsulation::Force;
            }
            endpoint.upsert_peer(PEER, Arc::new(connection), Instant::ZERO);
            End { endpoint, sas: BTreeMap::new(), active: Vec::new(), ever: BTreeMap::new() }
        };
        Self {
            version,
            ends: [end(THEIRS, OURS, 1), end(OURS, THEIRS, 2)],
            now: Instant::ZERO,
            under_way: VecDeque::new(),
            past: VecDeque::new(),
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let choice = input.byte();
        let end = usize::from(choice >> 7);
        match choice & 15 {
            0..=3 => self.deliver_first(),
            4 => drop(self.under_way.pop_front()),
            5 => self.under_way.rotate_left(1.min(self.under_way.len())),
            6 => {
                if let Some(first) = self.under_way.front().cloned() {
                    self.under_way.push_back(first);
                }
            }
            7 => self.change_first(input),
            8 => {
                let at = usize::from(input.byte());
                if let Some((to, datagram)) = self.past.get(at % self.past.len().max(1)).cloned() {
                    self.deliver(to, &datagram);
                }
            }
            9 => self.invent(end, input),
            10 => self.wake(Duration::from_secs(3600)),
            11 => self.sleep(Duration::from_millis(1 << (input.byte() % 23))),
            12 => self.traffic(end),
            _ => self.command(end, input.byte()),
        }
        self.settle();
    }

    fn command(&mut self, end: usize, which: u8) {
        let (endpoint, now) = (&mut self.ends[end].endpoint, self.now);
        match which % 6 {
            0 => endpoint.initiate(PEER, None, now),
            1 => endpoint.rekey(PEER, Rekey::Ike, now),
            2 => endpoint.rekey(PEER, Rekey::Children, now),
            3 => endpoint.terminate(PEER, None, now),
            4 => endpoint.terminate(PEER, Some("net"), now),
            _ => {
                if let Some(id) = self.ends[end].sas.keys().next().copied() {
                    self.ends[end].endpoint.note_hard_limit(id, now);
                }
            }
        }
    }

    fn deliver_first(&mut self) {
        if let Some((to, datagram)) = self.under_way.pop_front() {
            self.deliver(to, &datagram);
        }
    }

    fn deliver(&mut self, to: usize, datagram: &Transmit) {
        let Transmit { local, remote, payload, is_probe: _ } = datagram;
        // The endpoint is not asked about keepalives and ESP.
        if remote.port() != 4500 || payload.starts_with(&[0; 4]) {
            self.ends[to].endpoint.handle_datagram(*remote, *local, payload, self.now);
        }
    }

    /// Somebody changes bytes of a datagram, and lets the real one follow or not.
    fn change_first(&mut self, input: &mut Input<'_>) {
        let (at, bits, kind) = (usize::from(input.word()), input.byte(), input.byte());
        let Some((to, mut datagram)) = self.under_way.front().cloned() else { return };
        let payload = &mut datagram.payload;
        let at = at % payload.len().max(1);
        match kind % 3 {
            0 => payload[at] ^= bits.max(1),
            1 => payload.truncate(at),
            _ => {
                // With a header that says the new length, the change gets further.
                let header_at = if datagram.remote.port() == 4500 { 4 } else { 0 };
                payload.extend(input.take(usize::from(bits & 63)));
                let len = payload.len().saturating_sub(header_at) as u32;
                if let Some(field) = payload.get_mut(header_at + 24..header_at + 28) {
                    field.copy_from_slice(&len.to_be_bytes());
                }
            }
        }
        if kind & 0x80 != 0 {
            self.under_way.pop_front();
        }
        self.deliver(to, &datagram);
    }

    /// Somebody says something in the name of the other end, with the header of a message that was seen.
    fn invent(&mut self, to: usize, input: &mut Input<'_>) {
        let (at, next_payload, exchange, flags) = (input.byte(), input.byte(), input.byte(), input.byte());
        let body = input.block();
        let Some((_, seen)) = self.past.iter().filter(|(other, _)| *other == to).nth(usize::from(at) % 8) else {
            return;
        };
        let mut datagram = seen.clone();
        let header_at = if datagram.remote.port() == 4500 { 4 } else { 0 };
        if datagram.payload.len() < header_at + 28 {
            return;
        }
        datagram.payload.truncate(header_at + 28);
        datagram.payload.extend(body);
        let header = &mut datagram.payload[header_at..];
        header[16] = next_payload;
        if exchange != 0 {
            (header[18], header[19]) = (exchange, flags);
        }
        let len = (28 + body.len()) as u32;
        header[24..28].copy_from_slice(&len.to_be_bytes());
        self.deliver(to, &datagram);
    }

    /// A packet goes through the tunnel.
    fn traffic(&mut self, from: usize) {
        let Some(sa) = self.ends[from].active.last().and_then(|id| self.ends[from].sas.get(id)) else { return };
        let (spi, to) = (sa.outbound_spi, &mut self.ends[1 - from]);
        if let Some(id) = to.sas.values().find(|sa| sa.inbound_spi == spi).map(|sa| sa.id) {
            to.endpoint.note_alive(id, self.now);
            to.endpoint.note_first_inbound(id, self.now);
        }
    }

    /// The next deadline comes, or so much time has passed.
    fn wake(&mut self, longest: Duration) {
        let deadlines = self.ends.iter().filter_map(|end| end.endpoint.poll_timeout());
        let next = deadlines.map(|deadline| deadline.at - self.now).min();
        self.sleep(next.unwrap_or(longest).min(longest));
    }

    fn sleep(&mut self, time: Duration) {
        self.now += time;
        for end in &mut self.ends {
            end.endpoint.handle_timeout(self.now);
        }
    }

    /// Carries out what the ends want done.
    fn settle(&mut self) {
        for from in 0..2 {
            while let Some(output) = self.ends[from].endpoint.poll_output() {
                match output {
                    Output::Transmit(transmit) => self.send(1 - from, transmit),
                    Output::Sa(change) => self.change(from, change),
                    Output::Event(_) | Output::Probed(_) => {}
                }
            }
        }
    }

    fn send(&mut self, to: usize, transmit: Transmit) {
        self.past.push_back((to, transmit.clone()));
        if self.past.len() > UNDER_WAY {
            self.past.pop_front();
        }
        if self.under_way.len() < UNDER_WAY {
            self.under_way.push_back((to, transmit));
        }
    }

    fn change(&mut self, at: usize, change: SaChange) {
        let end = &mut self.ends[at];
        match change {
            SaChange::Install(sa) => {
                assert!(end.sas.values().all(|other| other.inbound_spi != sa.inbound_spi), "an SPI in use twice");
                assert!(end.ever.insert(sa.inbound_spi, (*sa).clone()).is_none(), "an SPI used again");
                assert!(end.sas.insert(sa.id, *sa).is_none(), "an SA installed twice");
            }
            SaChange::Activate(id) => {
                end.active.retain(|other| *other != id);
                end.active.push(id);
                let sa = end.sas.get(&id).expect("an SA is activated that is not installed").clone();
                self.agreed(1 - at, &sa);
            }
            SaChange::Remove(id) => {
                assert!(end.sas.remove(&id).is_some(), "an SA removed that is not installed");
                end.active.retain(|other| *other != id);
            }
            SaChange::Move { id, path } => end.sas.get_mut(&id).expect("an SA moved that is not there").path = path,
            SaChange::Skip { .. } => unreachable!("IKE leaves numbers to those who take them"),
        }
    }

    /// Whoever is the second to use an SA agrees with the first. Where the other half never comes, its maker learns it
    /// from silence; in IKEv1 an old request that is sent again may lead to such a half.
    fn agreed(&self, at: usize, sa: &ChildSa) {
        let sockets = [socket(OURS, 500), socket(OURS, 4500), socket(THEIRS, 500), socket(THEIRS, 4500)];
        assert!(sockets.contains(&sa.path.remote), "{:?}", sa.path);
        let Some(other) = self.ends[at].ever.get(&sa.outbound_spi) else { return };
        if self.version == Version::V1 && other.outbound_spi != sa.inbound_spi {
            return;
        }
        assert_eq!(other.outbound_spi, sa.inbound_spi);
        assert_eq!(other.suite, sa.suite);
        assert!(other.keys.inbound == sa.keys.outbound && other.keys.outbound == sa.keys.inbound, "other keys");
        assert_eq!((&other.local, &other.remote), (&sa.remote, &sa.local));
    }

    /// Nobody disturbs the two any more, and packets of one end ask for the tunnel: soon there is one, whose halves fit.
    fn heal(&mut self) {
        let end = self.now + HEALED;
        let mut asked_at = None;
        while !self.is_whole() {
            if asked_at.is_none_or(|at| self.now - at >= ASK_AGAIN) {
                asked_at = Some(self.now);
                self.ends[0].endpoint.initiate(PEER, None, self.now);
            } else if self.under_way.is_empty() {
                self.wake(ASK_AGAIN);
                assert!(self.now < end, "no tunnel: {}", self.views());
            } else {
                self.deliver_first();
            }
            self.settle();
        }
    }

    fn is_whole(&self) -> bool {
        let newest = |end: &End| end.active.last().and_then(|id| end.sas.get(id)).cloned();
        let (Some(a), Some(b)) = (newest(&self.ends[0]), newest(&self.ends[1])) else { return false };
        let reach = |sa: &ChildSa, end: &End| end.sas.values().any(|other| other.inbound_spi == sa.outbound_spi);
        self.under_way.is_empty() && reach(&a, &self.ends[1]) && reach(&b, &self.ends[0])
    }

    fn views(&self) -> String {
        self.ends.iter().map(|end| format!("{:?} {:?}\n", end.endpoint.sas(), end.endpoint.counters())).collect()
    }
}
