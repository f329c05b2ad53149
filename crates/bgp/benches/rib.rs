//! Time and memory of the routing tables: `cargo bench -p bgp --bench rib`, or with the name of a part that part alone.
//!
//! `full`: a million prefixes with 150,000 different attributes from one neighbour, told to another one, and lost.
//! `mesh`: a thousand neighbours with a hundred prefixes each, everyone told everything.
//! `lists`: the same, and each has a prefix list of its own that lets a hundred prefixes of another pass.

mod support;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use bgp::Families;
use bgp::policy::{Match, Policy, PrefixEntry, PrefixList, Rule, Verdict};
use bgp::rib::{Advertisement, Options, PeerId, PeerOptions, Rib, Session, UpdateVerdict};
use ipnet::{IpNet, Ipv4Net};
use support::{attributes, timed};

const ROUTES: u32 = 1_000_000;
const ATTRIBUTES: u32 = 150_000;

/// Distinct prefixes of 24 bits in no order.
fn prefix(number: u32) -> IpNet {
    let bits = (number.wrapping_mul(0x9E37_79B1) & 0x00ff_ffff) << 8;
    IpNet::V4(Ipv4Net::new(Ipv4Addr::from(bits), 24).unwrap_or_default())
}

fn add(rib: &mut Rib, number: u32) -> (PeerId, IpAddr) {
    let (peer, address) = (PeerId(number), IpAddr::from(Ipv4Addr::from(0xA9FE_0000 + number)));
    let policy = Arc::new(Policy::accept_all());
    let options = PeerOptions::of(address, 100_000 + number, 65_000);
    rib.upsert_peer(peer, PeerOptions { import: Arc::clone(&policy), export: policy, ..options });
    let router_id = Ipv4Addr::from(0x0100_0000 + number);
    rib.peer_up(peer, Session { router_id, families: Families::IPV4, long_lived: false });
    (peer, address)
}

fn drain(rib: &mut Rib, peer: PeerId) -> usize {
    let mut count = 0;
    while let Some(part) = rib.next_advertisement(peer, 1_000) {
        count += match part {
            Advertisement::Announce { prefixes, .. } | Advertisement::Withdraw { prefixes, .. } => prefixes.len(),
        };
    }
    count
}

fn full() {
    let mut rib = Rib::new(Options::of(65_000, [10, 0, 0, 1].into()));
    let (peer, address) = add(&mut rib, 1);
    let sets = ROUTES / ATTRIBUTES + 1;
    timed("full: updates", ROUTES, || {
        for number in 0..ATTRIBUTES {
            // Many attributes have few prefixes, and a few have many.
            let range = (number * sets).min(ROUTES)..((number + 1) * sets).min(ROUTES);
            let verdict = rib.update(peer, address, &Arc::new(attributes(100_001, number)), range.map(prefix));
            assert_eq!(verdict, UpdateVerdict::Kept);
        }
    });
    let count = timed("full: decision", ROUTES, || std::iter::from_fn(|| rib.poll_change()).count());
    assert_eq!(count, ROUTES as usize);
    timed("full: the same updates again", ROUTES, || {
        for number in 0..ATTRIBUTES {
            let range = (number * sets).min(ROUTES)..((number + 1) * sets).min(ROUTES);
            let verdict = rib.update(peer, address, &Arc::new(attributes(100_001, number)), range.map(prefix));
            assert_eq!(verdict, UpdateVerdict::Kept);
        }
    });
    timed("full: nothing back", ROUTES, || assert_eq!(drain(&mut rib, peer), 0));
    let (other, _) = add(&mut rib, 2);
    timed("full: told to another", ROUTES, || assert_eq!(drain(&mut rib, other), ROUTES as usize));
    timed("full: session lost", ROUTES, || rib.peer_down(peer, Families::NONE));
    timed("full: decision", ROUTES, || std::iter::from_fn(|| rib.poll_change()).count());
    timed("full: withdrawn from the other", ROUTES, || assert_eq!(drain(&mut rib, other), ROUTES as usize));
    timed("full: collected", ROUTES, || rib.poll_change());
}

fn mesh() {
    const PEERS: u32 = 1_000;
    const EACH: u32 = 100;
    let mut rib = Rib::new(Options::of(65_000, [10, 0, 0, 1].into()));
    let peers: Vec<_> = (0..PEERS).map(|number| add(&mut rib, number)).collect();
    timed("mesh: updates", PEERS * EACH, || {
        for (number, (peer, address)) in (0..).zip(&peers) {
            let range = number * EACH..(number + 1) * EACH;
            let verdict = rib.update(*peer, *address, &Arc::new(attributes(number, number)), range.map(prefix));
            assert_eq!(verdict, UpdateVerdict::Kept);
        }
    });
    timed("mesh: decision", PEERS * EACH, || std::iter::from_fn(|| rib.poll_change()).count());
    let told = timed("mesh: told to all", PEERS * EACH * (PEERS - 1), || {
        peers.iter().map(|(peer, _)| drain(&mut rib, *peer)).sum::<usize>()
    });
    assert_eq!(told as u32, PEERS * EACH * (PEERS - 1));
    timed("mesh: one flaps", EACH * (PEERS - 1), || {
        let (peer, address) = peers[5];
        rib.withdraw(peer, (5 * EACH..6 * EACH).map(prefix));
        std::iter::from_fn(|| rib.poll_change()).for_each(drop);
        let told = peers.iter().map(|(peer, _)| drain(&mut rib, *peer)).sum::<usize>();
        assert_eq!(told as u32, EACH * (PEERS - 1));
        let _ = rib.update(peer, address, &Arc::new(attributes(5, 5)), (5 * EACH..6 * EACH).map(prefix));
        std::iter::from_fn(|| rib.poll_change()).for_each(drop);
        peers.iter().map(|(peer, _)| drain(&mut rib, *peer)).sum::<usize>()
    });
    timed("mesh: all sessions lost", PEERS * EACH, || {
        peers.iter().for_each(|(peer, _)| rib.peer_down(*peer, Families::NONE));
        std::iter::from_fn(|| rib.poll_change()).count()
    });
    // The same prefix from everyone.
    let peers: Vec<_> = (0..PEERS).map(|number| add(&mut rib, number)).collect();
    timed("mesh: a default route from each", PEERS, || {
        for (number, (peer, address)) in (0..).zip(&peers) {
            let verdict = rib.update(*peer, *address, &Arc::new(attributes(number, number)), [IpNet::default()]);
            assert_eq!(verdict, UpdateVerdict::Kept);
            std::iter::from_fn(|| rib.poll_change()).for_each(drop);
        }
    });
}

fn lists() {
    const PEERS: u32 = 1_000;
    const EACH: u32 = 100;
    let mut rib = Rib::new(Options::of(65_000, [10, 0, 0, 1].into()));
    let peers: Vec<_> = (0..PEERS).map(|number| add(&mut rib, number)).collect();
    for (number, (peer, address)) in (0..).zip(&peers) {
        let range = number * EACH..(number + 1) * EACH;
        let verdict = rib.update(*peer, *address, &Arc::new(attributes(number, number)), range.map(prefix));
        assert_eq!(verdict, UpdateVerdict::Kept);
    }
    timed("lists: written", PEERS, || {
        for (number, (peer, _)) in (0..).zip(&peers) {
            let of = (number + 1) % PEERS;
            let entries = (of * EACH..(of + 1) * EACH).map(|within| {
                let within = prefix(within);
                PrefixEntry { sequence: 1, permit: true, within, ge: None, le: None }
            });
            let when = vec![Match::Prefix(Arc::new(PrefixList::new(entries)))];
            let export = Policy::Rules(vec![Rule { when, then: Verdict::Accept(Vec::new()) }]);
            rib.set_policy(*peer, Arc::new(Policy::accept_all()), Arc::new(export));
        }
    });
    timed("lists: decision", PEERS * EACH, || std::iter::from_fn(|| rib.poll_change()).count());
    let told = timed("lists: told what is permitted", PEERS * EACH, || {
        peers.iter().map(|(peer, _)| drain(&mut rib, *peer)).sum::<usize>()
    });
    assert_eq!(told as u32, PEERS * EACH);
}

fn main() {
    let only: Vec<_> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let wants = |name: &str| only.is_empty() || only.iter().any(|word| word == name);
    if wants("full") {
        full();
    }
    if wants("mesh") {
        mesh();
    }
    if wants("lists") {
        lists();
    }
}
