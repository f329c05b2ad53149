//! From a packet to its SA and back: policies, make-before-break, events, sizes.

use std::net::Ipv4Addr;
use std::time::Duration;

use base::Instant;
use model::{DfPolicy, Routing};
use packet::{FlowKey, Ip, Ipv4, Ports, Tcp, Tos, build};
use proptest::prelude::*;
use sa::{ChildSa, Limits, Path, SaChange, SaId, Spi, TrafficSelector};

use super::{child, gcm, label, mirrored, net, nets, udp};
use crate::{Arrived, DataPath, Dropped, Event, Outgoing, Policy, Unusable, Via, selector};

const NOW: Instant = Instant::ZERO;
const A: &str = "10.1.0.1:1000";
const B: &str = "10.2.0.1:53";

fn install(path: &mut DataPath, child: &ChildSa) {
    path.apply(&SaChange::Install(Box::new(child.clone()))).unwrap();
}

fn up(path: &mut DataPath, child: &ChildSa) {
    install(path, child);
    path.apply(&SaChange::Activate(child.id)).unwrap();
}

/// Both ends with the same SA in service.
fn ends(child: &ChildSa) -> (DataPath, DataPath) {
    let (mut left, mut right) = (DataPath::new(), DataPath::new());
    up(&mut left, child);
    up(&mut right, &mirrored(child));
    (left, right)
}

#[derive(Debug, Default, PartialEq)]
struct Sent {
    datagrams: Vec<(SaId, Path, Vec<u8>)>,
    replies: Vec<Vec<u8>>,
}

fn send(path: &mut DataPath, via: Via, packet: &[u8], now: Instant) -> Result<Sent, Dropped> {
    let mut sent = Sent::default();
    let out = |out: Outgoing<'_>| match out {
        Outgoing::Datagram { id, path, esp, .. } => sent.datagrams.push((id, path, esp.to_vec())),
        Outgoing::Reply(packet) => sent.replies.push(packet.to_vec()),
    };
    let result = path.outbounds.send(via, &mut packet.to_vec(), out, now);
    if sent.replies.is_empty() { result.map(|()| sent) } else { Ok(sent) }
}

fn sent_by(path: &mut DataPath, packet: &[u8]) -> Result<u64, Dropped> {
    send(path, Via::Policy, packet, NOW).map(|sent| sent.datagrams[0].0.0)
}

fn events(path: &mut DataPath) -> Vec<Event> {
    std::iter::from_fn(|| path.poll_event()).collect()
}

fn receive(path: &mut DataPath, esp: &[u8], from: &str) -> Result<(Arrived, Vec<u8>), Dropped> {
    let mut buffer = esp.to_vec();
    let arrived = path.inbounds.open(&mut buffer, Some(from.parse().unwrap()), Tos(0), NOW)?;
    let inner = buffer[arrived.range.clone()].to_vec();
    Ok((arrived, inner))
}

#[test]
fn a_packet_goes_through_and_its_first_arrival_is_told() {
    let (mut left, mut right) = ends(&child(1, gcm(false)));
    let inner = udp(A, B, 200);
    for _ in 0..2 {
        let sent = send(&mut left, Via::Policy, &inner, NOW).unwrap();
        let (_, path, esp) = &sent.datagrams[0];
        let (arrived, got) = receive(&mut right, esp, &path.local.to_string()).unwrap();
        assert_eq!((arrived.id, arrived.via, got), (SaId(1), Via::Policy, inner.clone()));
    }
    assert_eq!(events(&mut right), [Event::FirstInbound(SaId(1))]);
    assert_eq!(events(&mut left), []);
    assert_eq!(left.outbounds.total().packets, 2);
    assert_eq!(right.inbounds.total().bytes, 400);
}

/// ```text
/// left  -- Install 2 (staged) ---------> still sends on 1, accepts on 1 and 2
/// left  -- Activate 2 -----------------> sends on 2, accepts on 1 and 2
/// left  -- Remove 1 -------------------> 1 is gone
/// ```
#[test]
fn a_rekey_is_made_before_the_old_sa_breaks() {
    let (mut left, mut right) = ends(&child(1, gcm(false)));
    let inner = udp(A, B, 200);
    let late = send(&mut left, Via::Policy, &inner, NOW).unwrap().datagrams.remove(0).2;
    install(&mut left, &child(2, gcm(false)));
    install(&mut right, &mirrored(&child(2, gcm(false))));
    assert_eq!(sent_by(&mut left, &inner), Ok(1));
    left.apply(&SaChange::Activate(SaId(2))).unwrap();
    let sent = send(&mut left, Via::Policy, &inner, NOW).unwrap();
    assert_eq!(sent.datagrams[0].0, SaId(2));
    assert!(receive(&mut right, &sent.datagrams[0].2, "192.0.2.1:4500").is_ok());
    assert!(receive(&mut right, &late, "192.0.2.1:4500").is_ok());
    assert_eq!(events(&mut right), [Event::FirstInbound(SaId(2)), Event::FirstInbound(SaId(1))]);
    for end in [&mut left, &mut right] {
        end.apply(&SaChange::Remove(SaId(1))).unwrap();
    }
    assert_eq!(receive(&mut right, &late, "192.0.2.1:4500").unwrap_err(), Dropped::UnknownSpi);
    assert_eq!(sent_by(&mut left, &inner), Ok(2));
    assert_eq!(left.outbounds.total().packets, 4, "those of the removed SA still count");
}

#[test]
fn when_the_newer_sa_is_removed_packets_fall_back_to_the_older() {
    let mut path = DataPath::new();
    up(&mut path, &child(1, gcm(false)));
    up(&mut path, &child(2, gcm(false)));
    let inner = udp(A, B, 200);
    assert_eq!(sent_by(&mut path, &inner), Ok(2));
    path.apply(&SaChange::Remove(SaId(2))).unwrap();
    assert_eq!(sent_by(&mut path, &inner), Ok(1));
    path.apply(&SaChange::Remove(SaId(1))).unwrap();
    assert_eq!(sent_by(&mut path, &inner), Err(Dropped::NoPolicy));
}

#[test]
fn a_policy_without_an_sa_asks_for_one_once_a_second_and_nothing_leaves() {
    let mut path = DataPath::new();
    let policy = Policy {
        label: label("alps"),
        local: nets(&["10.1.0.0/16"]),
        remote: nets(&["10.2.0.0/16"]),
        routing: Routing::Policy,
    };
    path.set_policy(policy.clone()).unwrap();
    let inner = udp(A, B, 100);
    let asked = |path: &mut DataPath, now: Duration| {
        assert_eq!(send(path, Via::Policy, &inner, NOW + now), Err(Dropped::NoSa));
        events(path)
    };
    let flow = FlowKey::of(&inner).unwrap();
    let event = Event::NoSa { label: label("alps"), flow };
    assert_eq!(asked(&mut path, Duration::ZERO), std::slice::from_ref(&event));
    assert_eq!(asked(&mut path, Duration::from_millis(999)), []);
    assert_eq!(asked(&mut path, Duration::from_secs(1)), [event]);
    assert_eq!(path.outbounds.total().drops[Dropped::NoSa], 3);

    // An SA for a part of it: the rest still waits.
    let narrow = ChildSa { local: policy.local, remote: nets(&["10.2.0.0/24"]), ..child(1, gcm(false)) };
    up(&mut path, &narrow);
    assert_eq!(sent_by(&mut path, &inner), Ok(1));
    assert_eq!(sent_by(&mut path, &udp(A, "10.2.1.1:53", 100)), Err(Dropped::NoSa));
    path.apply(&SaChange::Remove(SaId(1))).unwrap();
    assert_eq!(sent_by(&mut path, &inner), Err(Dropped::NoSa));
    path.remove_policy(&label("alps"));
    assert_eq!(sent_by(&mut path, &inner), Err(Dropped::NoPolicy));
}

#[test]
fn a_sender_hears_that_there_is_no_sa_when_there_was_none_for_three_seconds() {
    let mut path = DataPath::new();
    let (local, remote) = (nets(&["10.1.0.0/16"]), nets(&["10.2.0.0/16"]));
    let policy = Policy { label: label("alps"), local, remote, routing: Routing::Policy };
    path.set_policy(policy.clone()).unwrap();
    let inner = udp(A, B, 100);
    let told = |path: &mut DataPath, after: Duration| {
        let mut replies = Vec::new();
        let out = |outgoing: Outgoing<'_>| match outgoing {
            Outgoing::Reply(reply) => replies.push(reply.to_vec()),
            Outgoing::Datagram { .. } => panic!("nothing may leave"),
        };
        let result = path.outbounds.send(Via::Policy, &mut inner.clone(), out, NOW + after);
        assert_eq!(result, Err(Dropped::NoSa));
        replies
    };
    let seconds = Duration::from_secs_f64;
    assert_eq!(told(&mut path, seconds(0.0)).len(), 0, "the first packet brings the tunnel up");
    assert_eq!(told(&mut path, seconds(2.9)).len(), 0);
    let replies = told(&mut path, seconds(3.0));
    let answer = Ipv4::parse(&replies[0]).unwrap();
    assert_eq!(
        (answer.destination(), answer.payload()[..2].to_vec()),
        (Ipv4::parse(&inner).unwrap().source(), vec![3, 1])
    );
    assert_eq!((replies.len(), path.outbounds.unreachable_sent()), (1, 1));
    assert_eq!((0..1_000).map(|_| told(&mut path, seconds(3.0)).len()).sum::<usize>(), 99, "no flood");

    // An SA that came and went: senders are patient again.
    up(&mut path, &ChildSa { local: policy.local, remote: policy.remote, ..child(1, gcm(false)) });
    assert_eq!(sent_by(&mut path, &inner), Ok(1));
    path.apply(&SaChange::Remove(SaId(1))).unwrap();
    assert_eq!(told(&mut path, seconds(60.0)).len(), 0);
    assert_eq!(told(&mut path, seconds(63.0)).len(), 1);
}

#[test]
fn plaintext_that_a_policy_wants_encrypted_is_recognised() {
    let mut path = DataPath::new();
    let (local, remote) = (nets(&["10.1.0.0/16"]), nets(&["10.2.0.0/16"]));
    path.set_policy(Policy { label: label("alps"), local, remote, routing: Routing::Policy }).unwrap();
    assert!(path.outbounds.must_be_encrypted(&udp(B, A, 100)));
    assert!(!path.outbounds.must_be_encrypted(&udp(A, B, 100)), "that is our own direction");
    assert!(!path.outbounds.must_be_encrypted(&udp("10.3.0.1:1", A, 100)));
    assert!(path.outbounds.must_be_encrypted(b"?"));
}

#[test]
fn of_selectors_for_the_same_prefixes_fewer_ports_win_and_then_the_younger_sa() {
    let mut path = DataPath::new();
    let with = |id: u64, ports| {
        let remote = vec![TrafficSelector { protocol: 17, ports, ..net("10.2.0.0/16") }];
        ChildSa { label: label(&id.to_string()), remote, ..child(id, gcm(false)) }
    };
    for (id, ports, found) in [
        (1, (50, 60), 1),
        (2, (0, u16::MAX), 1),
        (3, (53, 53), 3),
        (4, (52, 55), 3),
        (5, (53, 53), 5),
        (6, (53, 54), 5),
    ] {
        up(&mut path, &with(id, ports));
        assert_eq!(sent_by(&mut path, &udp(A, B, 100)), Ok(found), "{id}");
    }
}

#[test]
fn the_mtu_does_not_fall_below_what_every_host_takes() {
    let mut path = DataPath::new();
    up(&mut path, &child(1, gcm(false)));
    path.set_outer_mtu(SaId(1), 60).unwrap();
    assert_eq!(path.outbounds.mtu(SaId(1)), Some(68));
}

#[test]
fn each_device_has_its_own_tunnel_and_an_unknown_one_has_none() {
    let mut path = DataPath::new();
    for (id, name) in [(1, "vti1"), (2, "vti2")] {
        let routing = Routing::Device { name: name.into(), addresses: vec![], routes: vec![], mark: None };
        up(&mut path, &ChildSa { routing, ..child(id, gcm(false)) });
    }
    let inner = udp(A, B, 100);
    let (one, two, three) = (path.device("vti1"), path.device("vti2"), path.device("vti3"));
    let by = |path: &mut DataPath, via| send(path, via, &inner, NOW).map(|sent| sent.datagrams[0].0.0);
    for _ in 0..2 {
        assert_eq!(by(&mut path, Via::Device(one)), Ok(1));
        assert_eq!(by(&mut path, Via::Device(two)), Ok(2));
        assert_eq!(by(&mut path, Via::Device(three)), Err(Dropped::NoPolicy));
        assert_eq!(by(&mut path, Via::Policy), Err(Dropped::NoPolicy));
    }
}

#[test]
fn a_peer_that_moved_is_told_once_and_only_by_its_newest_packet() {
    let (mut left, mut right) = ends(&child(1, gcm(false)));
    let inner = udp(A, B, 100);
    let mut next = || send(&mut left, Via::Policy, &inner, NOW).unwrap().datagrams.remove(0).2;
    let (one, two, three, four, mut five) = (next(), next(), next(), next(), next());
    let (home, new) = ("192.0.2.1:4500", "198.51.100.7:1024");
    receive(&mut right, &two, home).unwrap();
    events(&mut right);
    receive(&mut right, &one, new).unwrap();
    assert_eq!(events(&mut right), [], "a late packet says nothing");
    receive(&mut right, &three, new).unwrap();
    receive(&mut right, &four, new).unwrap();
    let moved = Event::PeerMoved { id: SaId(1), from: new.parse().unwrap() };
    assert_eq!(events(&mut right), [moved]);
    five[20] ^= 1;
    assert!(receive(&mut right, &five, "203.0.113.9:9").is_err());
    assert_eq!(events(&mut right), [], "a forged packet says nothing");

    let path = Path { remote: new.parse().unwrap(), ..mirrored(&child(1, gcm(false))).path };
    right.apply(&SaChange::Move { id: SaId(1), path }).unwrap();
    let back = send(&mut right, Via::Policy, &udp(B, A, 100), NOW).unwrap();
    assert_eq!(back.datagrams[0].1.remote, new.parse().unwrap());
}

#[test]
fn limits_are_told_once_for_each_direction() {
    let limits = Limits { soft_packets: Some(2), hard_packets: Some(3), ..Limits::default() };
    let (mut left, mut right) = ends(&ChildSa { limits, ..child(1, gcm(false)) });
    for _ in 0..3 {
        let sent = send(&mut left, Via::Policy, &udp(A, B, 100), NOW).unwrap();
        receive(&mut right, &sent.datagrams[0].2, "192.0.2.1:4500").unwrap();
    }
    assert_eq!(sent_by(&mut left, &udp(A, B, 100)), Err(Dropped::Expired));
    let told = [Event::SoftLimit(SaId(1)), Event::HardLimit(SaId(1))];
    assert_eq!(events(&mut left), told);
    assert_eq!(events(&mut right)[1..], told);
    assert_eq!(left.outbounds.counters(SaId(1)).unwrap().drops[Dropped::Expired], 1);
}

#[test]
fn a_packet_that_is_too_big_is_answered_or_cut_before_it_is_sealed() {
    let (mut left, mut right) = ends(&child(1, gcm(false)));
    assert_eq!(left.outbounds.mtu(SaId(1)), Some(1438));
    let mut inner = udp(A, B, 1500);
    let sent = send(&mut left, Via::Policy, &inner, NOW).unwrap();
    assert_eq!((sent.datagrams.len(), sent.replies.len()), (0, 1));
    assert_eq!(Ipv4::parse(&sent.replies[0]).unwrap().source(), Ipv4::parse(&inner).unwrap().destination());
    assert_eq!(left.outbounds.total().drops[Dropped::TooBig], 1);

    inner[6] = 0; // may be fragmented
    let sent = send(&mut left, Via::Policy, &inner, NOW).unwrap();
    let mut payload = Vec::new();
    for (_, _, esp) in &sent.datagrams {
        assert!(esp.len() <= 1500 - 28);
        let (_, piece) = receive(&mut right, esp, "192.0.2.1:4500").unwrap();
        payload.extend(Ipv4::parse(&piece).unwrap().payload());
    }
    assert_eq!((sent.datagrams.len(), payload), (2, inner[20..].to_vec()));

    left.set_outer_mtu(SaId(1), 1400).unwrap();
    assert_eq!(left.outbounds.mtu(SaId(1)), Some(1338));
    let (mut clears, _) = ends(&ChildSa { df: DfPolicy::Clear, mtu: Some(1000), ..child(1, gcm(false)) });
    assert_eq!(send(&mut clears, Via::Policy, &udp(A, B, 1500), NOW).unwrap().datagrams.len(), 2);
}

#[test]
fn segment_sizes_are_lowered_in_both_directions_unless_told_not_to() {
    let syn = build::tcp(A.parse().unwrap(), B.parse().unwrap(), Tcp::SYN, 1, &[2, 4, 5, 0xb4], b"").unwrap();
    let mss = |mss_ours: Option<u16>, mss_theirs: Option<u16>| {
        let (mut left, mut right) = (DataPath::new(), DataPath::new());
        up(&mut left, &ChildSa { mss: mss_ours, ..child(1, gcm(false)) });
        up(&mut right, &ChildSa { mss: mss_theirs, ..mirrored(&child(1, gcm(false))) });
        let sent = send(&mut left, Via::Policy, &syn, NOW).unwrap();
        let (_, inner) = receive(&mut right, &sent.datagrams[0].2, "192.0.2.1:4500").unwrap();
        Tcp::parse(Ip::parse(&inner).unwrap().upper().unwrap().1.unwrap()).unwrap().mss()
    };
    assert_eq!(mss(Some(0), Some(0)), Some(1460));
    assert_eq!(mss(None, Some(0)), Some(1398));
    assert_eq!(mss(Some(1379), Some(0)), Some(1379));
    assert_eq!(mss(Some(0), Some(1300)), Some(1300));
}

#[test]
fn a_segment_size_chosen_for_ipv4_is_not_too_large_for_ipv6() {
    let (a, b) = ("[fd00::1]:1".parse().unwrap(), "[fd00::2]:2".parse().unwrap());
    let mut syn = build::tcp(a, b, Tcp::SYN, 1, &[2, 4, 5, 0xb4], b"").unwrap();
    let mut path = DataPath::new();
    up(&mut path, &ChildSa { mtu: Some(1436), mss: Some(1396), ..child(1, gcm(false)) });
    path.outbounds.send(Via::Policy, &mut syn, |_| {}, NOW).unwrap();
    assert_eq!(Tcp::parse(&syn[40..]).unwrap().mss(), Some(1376));
}

#[test]
fn pieces_that_a_limit_cuts_off_are_reported() {
    let limits = Limits { hard_packets: Some(1), ..Limits::default() };
    let (mut left, _) = ends(&ChildSa { limits, df: DfPolicy::Clear, ..child(1, gcm(false)) });
    let mut pieces = 0;
    let result = left.outbounds.send(Via::Policy, &mut udp(A, B, 1500), |_| pieces += 1, NOW);
    assert_eq!((result, pieces), (Err(Dropped::Expired), 1));
}

#[test]
fn changes_that_make_no_sense_are_refused_whole() {
    let mut path = DataPath::new();
    install(&mut path, &child(1, gcm(false)));
    let again = |child: ChildSa| SaChange::Install(Box::new(child));
    assert_eq!(path.apply(&again(child(1, gcm(false)))), Err(Unusable::BadId));
    let same_spi = ChildSa { inbound_spi: child(1, gcm(false)).inbound_spi, ..child(2, gcm(false)) };
    assert_eq!(path.apply(&again(same_spi)), Err(Unusable::BadSpi));
    assert_eq!(path.outbounds.iter().count(), 1, "the outbound half is gone again");
    let reserved = ChildSa { inbound_spi: Spi(255), ..child(2, gcm(false)) };
    assert_eq!(path.apply(&again(reserved)), Err(Unusable::BadSpi));
    let many =
        ChildSa { local: vec![net("10.0.0.0/8"); 65], remote: vec![net("10.0.0.0/8"); 64], ..child(2, gcm(false)) };
    assert_eq!(path.apply(&again(many)), Err(Unusable::TooManySelectors));
    for change in [
        SaChange::Activate(SaId(9)),
        SaChange::Remove(SaId(9)),
        SaChange::Move { id: SaId(9), path: child(1, gcm(false)).path },
    ] {
        assert_eq!(path.apply(&change), Err(Unusable::UnknownId));
    }
}

#[test]
fn unknown_spis_and_scraps_are_counted() {
    let mut path = DataPath::new();
    assert_eq!(receive(&mut path, &[0, 0, 9, 9, 0, 0, 0, 1], "192.0.2.1:4500").unwrap_err(), Dropped::UnknownSpi);
    assert_eq!(receive(&mut path, &[0, 0, 9], "192.0.2.1:4500").unwrap_err(), Dropped::Malformed);
    assert_eq!(path.inbounds.total().drops.total(), 2);
}

/// Addresses from a small space, so that selectors overlap.
fn selectors() -> impl Strategy<Value = TrafficSelector> {
    let range = (0u32..1 << 12, 20u32..=32).prop_map(|(low, len)| {
        let base = 0x0a00_0000 | low;
        let host = (1u64 << (32 - len)) as u32 - 1;
        (base & !host, base | host)
    });
    let odd = (0u32..1 << 12, 0u32..300).prop_map(|(low, more)| (0x0a00_0000 | low, 0x0a00_0000 + low + more));
    let ports = prop_oneof![Just((0, u16::MAX)), Just((80, 80)), Just((80, 90)), Just((u16::MAX, 0))];
    (prop_oneof![range, odd], prop::sample::select(vec![0u8, 6, 17]), ports).prop_map(
        |((first, last), protocol, ports)| TrafficSelector {
            first: Ipv4Addr::from(first).into(),
            last: Ipv4Addr::from(last).into(),
            protocol,
            ports,
        },
    )
}

/// How the tables rank a pair that covers a flow: least first. Written down a second time, by hand.
fn rank(local: &TrafficSelector, remote: &TrafficSelector, age: usize) -> impl Ord + use<> {
    let prefix = |s: &TrafficSelector| match (s.first, s.last) {
        (std::net::IpAddr::V4(a), std::net::IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        _ => panic!(),
    };
    let span = |s: &TrafficSelector| u32::from(s.ports.1.saturating_sub(s.ports.0));
    let any_protocol = local.protocol == 0 && remote.protocol == 0;
    (32 - prefix(remote), 32 - prefix(local), any_protocol, span(local) + span(remote), usize::MAX - age)
}

proptest! {
    #[test]
    fn the_tables_find_what_a_linear_search_finds(
        pairs in prop::collection::vec((selectors(), selectors()), 1..40),
        removed in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
        flows in prop::collection::vec((0u32..1 << 12, 0u32..1 << 12, prop::sample::select(vec![6u8, 17, 47]), 75u16..95), 1..30),
    ) {
        let mut path = DataPath::new();
        let mut model = Vec::new();
        for (i, (local, remote)) in pairs.iter().enumerate() {
            let sa = ChildSa {
                label: label(&i.to_string()),
                local: vec![*local],
                remote: vec![*remote],
                ..child(i as u64, gcm(false))
            };
            up(&mut path, &sa);
            model.push((i, *local, *remote));
        }
        for index in removed {
            if !model.is_empty() {
                let (id, _, _) = model.remove(index.index(model.len()));
                path.apply(&SaChange::Remove(SaId(id as u64))).unwrap();
            }
        }
        for (source, destination, protocol, port) in flows {
            let ports = match protocol { 47 => Ports::Without, _ => Ports::Known { source: port, destination: port } };
            let flow = FlowKey {
                source: Ipv4Addr::from(0x0a00_0000 | source).into(),
                destination: Ipv4Addr::from(0x0a00_0000 | destination).into(),
                protocol,
                ports,
            };
            let expected = model.iter()
                .filter(|(_, local, remote)| selector::pair_covers(local, remote, &flow))
                .min_by_key(|(id, local, remote)| rank(local, remote, *id))
                .map(|(id, ..)| SaId(*id as u64));
            let packet = [port.to_be_bytes(), port.to_be_bytes(), [0; 2], [0; 2]].concat();
            let packet = build::ip(flow.source, flow.destination, protocol, Tos(0), &packet).unwrap();
            for _ in 0..2 {
                // The second time from the cache.
                prop_assert_eq!(path.outbounds.find(Via::Policy, &packet, NOW).ok(), expected);
            }
        }
    }
}
