//! Time and memory of a whole speaker, octets to octets: `cargo bench -p bgp --bench speaker`, or with `full`, `mesh` or
//! `quiet` one part alone. `stream FILE` writes the messages of `full` to a file, to feed another speaker with.
//!
//! `full`: a million prefixes with 150,000 different attributes from one neighbour, and told to another one.
//! `mesh`: a thousand neighbours with a hundred prefixes each, everyone told everything.
//! `quiet`: the same, and nobody is told anything.

mod support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base::{Instant, Machine, Random};
use bgp::policy::Policy;
use bgp::wire::{Capabilities, Open, write_announcement, write_end_of_rib, write_keepalive};
use bgp::{ConnectionId, Families, Family, Neighbor, NeighborId, Output, Speaker, SpeakerOptions};
use ipnet::{IpNet, Ipv4Net};
use support::{attributes, timed};

const ROUTES: u32 = 1_000_000;
const ATTRIBUTES: u32 = 150_000;

/// Octets that are read from a socket at once.
const READ: usize = 64 * 1024;

/// Distinct prefixes of 24 bits in no order, none in 127/8 or above 223/8.
fn prefix(number: u32) -> IpNet {
    let mixed = number.wrapping_mul(0x9E37_79B1) & 0x003f_ffff;
    IpNet::V4(Ipv4Net::new(Ipv4Addr::from((mixed << 8) + 0x0A00_0000), 24).unwrap_or_default())
}

fn address(number: u32) -> IpAddr {
    Ipv4Addr::from(0xA9FE_0000 + number).into()
}

const fn asn(number: u32) -> u32 {
    100_000 + number
}

/// The messages of the full table.
fn stream(peer: u32) -> Vec<u8> {
    let (mut out, sets) = (Vec::new(), ROUTES / ATTRIBUTES + 1);
    for number in 0..ATTRIBUTES {
        let range = (number * sets).min(ROUTES)..((number + 1) * sets).min(ROUTES);
        let nets: Vec<IpNet> = range.map(prefix).collect();
        let written = write_announcement(&mut out, &attributes(asn(peer), number), address(peer), &nets, true);
        assert!(written.is_ok());
    }
    write_end_of_rib(&mut out, Family::Ipv4);
    out
}

/// A speaker and the neighbours that play along.
struct Bench {
    speaker: Speaker,
    connections: Vec<ConnectionId>,
    now: Instant,
    routes: u64,
    octets: u64,
}

impl Bench {
    fn new() -> Self {
        let options = SpeakerOptions::of(65_000, [10, 0, 0, 1].into());
        let speaker = Speaker::new(options, Random::for_test(1), Instant::ZERO);
        Self { speaker, connections: Vec::new(), now: Instant::ZERO, routes: 0, octets: 0 }
    }

    /// Adds a neighbour and brings its session up.
    fn add(&mut self, number: u32, export: Policy) {
        let it = Neighbor {
            passive: true,
            import: Arc::new(Policy::accept_all()),
            export: Arc::new(export),
            ..Neighbor::of("", address(number), asn(number))
        };
        assert!(self.speaker.upsert_neighbor(NeighborId(number), it, self.now).is_ok());
        self.speaker.handle_timeout(self.now);
        let (local, remote) = (SocketAddr::new([10, 0, 0, 1].into(), 179), SocketAddr::new(address(number), 4000));
        let Some(connection) = self.speaker.handle_accepted(local, remote, self.now) else { return };
        self.connections.push(connection);
        let capabilities =
            Capabilities { families: Some(Families::IPV4), four_octet_as: true, ..Capabilities::default() };
        let router_id = Ipv4Addr::from(0x0100_0000 + number);
        let mut bytes = Vec::new();
        Open { asn: asn(number), hold_time: 90, router_id, capabilities }.write(&mut bytes);
        write_keepalive(&mut bytes);
        self.speaker.handle_bytes(connection, &bytes, self.now);
        self.drain();
    }

    /// As the shell does: everything that is sent leaves at once.
    fn drain(&mut self) {
        while let Some(output) = self.speaker.poll_output() {
            match output {
                Output::Send { connection, bytes } => {
                    self.octets += bytes.len() as u64;
                    self.speaker.handle_writable(connection, 128 * 1024, self.now);
                }
                Output::Route(_) => self.routes += 1,
                Output::Connect { .. } | Output::Listen { .. } | Output::Unlisten { .. } => {}
                Output::Close { .. } | Output::Event(_) => {}
            }
        }
    }

    fn hear(&mut self, place: usize, bytes: &[u8]) {
        let connection = self.connections[place];
        for piece in bytes.chunks(READ) {
            self.now += Duration::from_micros(10);
            self.speaker.handle_bytes(connection, piece, self.now);
            self.drain();
        }
    }
}

fn full() {
    let stream = stream(1);
    let mut bench = Bench::new();
    bench.add(1, Policy::accept_all());
    timed("full: loaded", ROUTES, || bench.hear(0, &stream));
    assert_eq!(bench.routes, u64::from(ROUTES));
    timed("full: the same again", ROUTES, || bench.hear(0, &stream));
    let before = bench.octets;
    timed("full: told to another", ROUTES, || bench.add(2, Policy::accept_all()));
    assert!(bench.octets - before > u64::from(ROUTES) * 4);
    timed("full: session lost", ROUTES, || {
        bench.speaker.handle_closed(bench.connections[0], "gone", bench.now);
        bench.drain();
    });
    assert_eq!(bench.routes, 2 * u64::from(ROUTES));
    let mut bench = Bench::new();
    bench.add(1, Policy::accept_all());
    bench.add(2, Policy::accept_all());
    timed("full: loaded and passed on at once", ROUTES, || bench.hear(0, &stream));
}

fn mesh(name: &str, export: &Policy) {
    const PEERS: u32 = 1_000;
    const EACH: u32 = 100;
    /// Prefixes with the same attributes.
    const ALIKE: u32 = 10;
    let mut bench = Bench::new();
    timed(&format!("{name}: sessions"), PEERS, || (0..PEERS).for_each(|number| bench.add(number, export.clone())));
    timed(&format!("{name}: routes"), PEERS * EACH, || {
        for number in 0..PEERS {
            let mut bytes = Vec::new();
            for start in (number * EACH..(number + 1) * EACH).step_by(ALIKE as usize) {
                let nets: Vec<IpNet> = (start..start + ALIKE).map(prefix).collect();
                let attributes = attributes(asn(number), start);
                assert!(write_announcement(&mut bytes, &attributes, address(number), &nets, true).is_ok());
            }
            bench.hear(number as usize, &bytes);
        }
    });
    assert_eq!(bench.routes, u64::from(PEERS * EACH));
    timed(&format!("{name}: a keepalive from each"), PEERS, || {
        let mut bytes = Vec::new();
        write_keepalive(&mut bytes);
        (0..PEERS as usize).for_each(|place| bench.hear(place, &bytes));
    });
}

fn main() {
    let words: Vec<_> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let wants = |name: &str| words.is_empty() || words.iter().any(|word| word == name);
    if let [command, file] = words.as_slice()
        && command == "stream"
    {
        let written = std::fs::write(file, stream(1));
        assert!(written.is_ok(), "{written:?}");
        return;
    }
    if wants("full") {
        full();
    }
    if wants("quiet") {
        mesh("quiet", &Policy::Default);
    }
    if wants("mesh") {
        mesh("mesh", &Policy::accept_all());
    }
}
