//! Super-packets on their whole way: cut up, sealed, lost, overtaken, repeated and forged on the road, opened, and joined
//! again. What comes out is what went in.

use std::sync::Arc;

use base::Instant;
use base::algorithm::{Encryption, Integrity};
use packet::coalesce::{Coalescer, Joined};
use packet::segment::{Kind, Segments};
use packet::{Ipv4, Tcp, Tos, build, checksum};
use proptest::prelude::*;
use sa::{ChildSa, ChildSuite, Limits, Path, SaChange};

use super::{child, gcm, mirrored};
use crate::{Counters, DataPath, Dropped, Event, Lens, OutboundSa, Received, Room, Via};

const NOW: Instant = Instant::ZERO;

/// Keeps what is to be sent.
#[derive(Default)]
struct Road {
    taken: Vec<(Vec<u8>, Lens)>,
    replies: Vec<Vec<u8>>,
    /// Single packets are sealed together at the end.
    defers: bool,
    clear: Vec<(Arc<OutboundSa>, u64, usize)>,
}

impl Room for Road {
    fn take(&mut self, _: &Path, _: Tos, lens: Lens) -> Option<&mut [u8]> {
        self.taken.push((vec![0; lens.total()], lens));
        self.taken.last_mut().map(|(bytes, _)| &mut bytes[..])
    }

    fn give_back(&mut self) {
        self.taken.pop();
    }

    fn reply(&mut self, packet: &[u8]) {
        self.replies.push(packet.to_vec());
    }

    fn defers(&self) -> bool {
        self.defers
    }

    fn defer(&mut self, sa: &Arc<OutboundSa>, sequence: u64) {
        self.clear.push((Arc::clone(sa), sequence, self.taken.len() - 1));
    }
}

impl Road {
    fn datagrams(&mut self) -> Vec<Vec<u8>> {
        let clear = std::mem::take(&mut self.clear);
        for of_one in clear.chunk_by(|a, b| Arc::ptr_eq(&a.0, &b.0)) {
            let mut places = self.taken.iter_mut().enumerate();
            let mut packets: Vec<(u64, &mut [u8])> = Vec::new();
            for (_, sequence, at) in of_one {
                let (_, (bytes, _)) = places.find(|(nth, _)| nth == at).unwrap();
                packets.push((*sequence, bytes));
            }
            of_one[0].0.seal_framed(&mut packets);
        }
        let cut =
            |(bytes, lens): &(Vec<u8>, Lens)| -> Vec<Vec<u8>> { bytes.chunks(lens.len).map(<[u8]>::to_vec).collect() };
        self.taken.iter().flat_map(cut).collect()
    }
}

fn cbc(esn: bool) -> ChildSuite {
    ChildSuite { encryption: Encryption::Aes128Cbc, integrity: Some(Integrity::Sha1), esn }
}

fn ends(child: &ChildSa) -> (DataPath, DataPath) {
    let both = [child.clone(), mirrored(child)];
    let [left, right] = both.map(|child| {
        let mut path = DataPath::new();
        path.apply(&SaChange::Install(Box::new(child.clone()))).unwrap();
        path.apply(&SaChange::Activate(child.id)).unwrap();
        path
    });
    (left, right)
}

/// What one program writes: 0 and 1 are TCP connections, 2 is UDP, each over IPv4 or IPv6.
#[derive(Clone, Debug)]
struct Write {
    flow: u16,
    v6: bool,
    payload: Vec<u8>,
    size: usize,
    push: bool,
}

impl Write {
    const fn kind(&self) -> Kind {
        if self.flow == 2 { Kind::Udp } else { Kind::Tcp }
    }

    fn packet(&self, sequence: u32) -> Vec<u8> {
        let [a, b] = if self.v6 { ["fd00::1", "fd00::2"] } else { ["10.1.0.1", "10.2.0.1"] };
        let source = (a.parse::<std::net::IpAddr>().unwrap(), self.flow + 1).into();
        let destination = (b.parse::<std::net::IpAddr>().unwrap(), 80).into();
        let flags = if self.push { Tcp::ACK | Tcp::PSH } else { Tcp::ACK };
        match self.kind() {
            Kind::Tcp => build::tcp(source, destination, flags, sequence, &[], &self.payload),
            Kind::Udp => build::udp(source, destination, &self.payload),
        }
        .unwrap()
    }
}

fn writes() -> impl Strategy<Value = Vec<Write>> {
    let bytes =
        (1usize..6000, any::<u8>()).prop_map(|(len, from)| (0..len).map(|i| from.wrapping_add(i as u8)).collect());
    let write =
        (0u16..3, any::<bool>(), bytes, prop::sample::select(vec![10usize, 100, 536, 1300, 1301]), any::<bool>());
    prop::collection::vec(
        write.prop_map(|(flow, v6, payload, size, push)| Write { flow, v6, payload, size, push }),
        1..8,
    )
}

/// The packets of a super-packet.
fn cut(packet: &[u8], kind: Kind, size: usize) -> Vec<Vec<u8>> {
    let mut segments = Segments::new(packet, kind, size).unwrap();
    let mut room = vec![0; segments.full_len()];
    std::iter::from_fn(|| segments.write_next(&mut room).map(|len| room[..len].to_vec())).collect()
}

/// The packet without its IPv4 identification, which means nothing without fragments.
fn nameless(mut packet: Vec<u8>) -> Vec<u8> {
    if packet[0] >> 4 == 4 {
        assert!(Ipv4::parse(&packet).unwrap().checksum_is_right());
        packet[4..6].fill(0);
        packet[10..12].fill(0);
    }
    packet
}

/// Opens what arrived together and gives what the host's stack would see.
fn arrive(right: &mut DataPath, together: &mut [Vec<u8>]) -> Vec<Vec<u8>> {
    let mut seen = Vec::new();
    let mut emit = |_: Via, joined: Joined<'_, '_>| match joined {
        Joined::Single(packet) => seen.push(packet.to_vec()),
        Joined::Super { header, payloads, kind, size, checksum: (start, offset), .. } => {
            let mut whole = [header, &payloads.concat()].concat();
            assert!(checksum::complete(&mut whole, start, offset));
            seen.extend(cut(&whole, kind, size));
        }
    };
    let mut coalescer = Coalescer::new(true);
    let packets = together.iter_mut().map(|packet| Received { esp: packet, from: None, outer: Tos(0) });
    right.inbounds.open_run(packets, NOW, |via, inner| coalescer.push(via, inner, &mut emit));
    coalescer.flush(&mut emit);
    seen
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn streams_come_out_as_they_went_in(
        writes in writes(),
        suite in prop::sample::select(vec![gcm(false), gcm(true), cbc(false), cbc(true)]),
        fates in prop::collection::vec((0u8..20, any::<prop::sample::Index>()), 400),
        batches in prop::collection::vec(1usize..70, 60),
        defers: bool,
    ) {
        let child = ChildSa { replay_window: 8192, ..child(1, suite) };
        let (mut left, mut right) = ends(&child);
        let mut road = Road { defers, ..Road::default() };
        let mut expected = Vec::new();
        let mut sequence = 7u32;
        for write in &writes {
            let mut packet = write.packet(sequence);
            sequence = sequence.wrapping_add(write.payload.len() as u32);
            expected.extend(cut(&packet, write.kind(), write.size));
            let cut = Some((write.kind(), write.size));
            left.outbounds.send_into(Via::Policy, &mut packet, cut, &mut road, NOW).unwrap();
        }
        let datagrams = road.datagrams();
        prop_assert_eq!(datagrams.len(), expected.len());
        prop_assert!(road.replies.is_empty());

        // What becomes of each on the road; by number, so that a repeated one is known.
        let (mut arriving, mut forged, mut repeated) = (Vec::new(), 0, 0);
        for (nth, (datagram, (fate, at))) in datagrams.iter().zip(fates.iter().cycle()).enumerate() {
            match fate {
                0 => continue,
                1 => {
                    repeated += 1;
                    arriving.extend([(Some(nth), datagram.clone()), (None, datagram.clone())]);
                }
                2 => {
                    forged += 1;
                    let mut bad = datagram.clone();
                    let byte = 8 + at.index(bad.len() - 8);
                    bad[byte] ^= 1;
                    arriving.extend([(None, bad), (Some(nth), datagram.clone())]);
                }
                3 if !arriving.is_empty() => {
                    let place = at.index(arriving.len());
                    arriving.insert(place, (Some(nth), datagram.clone()));
                }
                _ => arriving.push((Some(nth), datagram.clone())),
            }
        }
        // An original that a copy has overtaken is the repeated one: only which of the two counts.
        let order: Vec<usize> = arriving.iter().filter_map(|(nth, _)| *nth).collect();
        let mut seen = Vec::new();
        let mut rest: Vec<Vec<u8>> = arriving.into_iter().map(|(_, datagram)| datagram).collect();
        for batch in batches.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let mut together: Vec<_> = rest.drain(..(*batch).min(rest.len())).collect();
            seen.extend(arrive(&mut right, &mut together));
        }

        // Each flow in the order of arrival, byte for byte.
        for (port, v6) in (1u16..4).flat_map(|port| [(port, false), (port, true)]) {
            let (version, port_at) = if v6 { (6, 40) } else { (4, 20) };
            let of_flow = |p: &&Vec<u8>| p[0] >> 4 == version && p[port_at..port_at + 2] == port.to_be_bytes();
            let came: Vec<_> = seen.iter().filter(of_flow).cloned().map(nameless).collect();
            let went: Vec<_> = order.iter().map(|nth| &expected[*nth]).filter(of_flow).cloned().map(nameless).collect();
            prop_assert_eq!(came, went);
        }
        let Counters { packets, drops, .. } = right.inbounds.total();
        prop_assert_eq!(packets, order.len() as u64);
        prop_assert_eq!((drops[Dropped::Replayed], drops[Dropped::BadIntegrity]), (repeated, forged));
        prop_assert_eq!(drops.total(), repeated + forged);
        prop_assert_eq!(left.outbounds.total().packets, expected.len() as u64);
    }
}

/// Packets that wait for company are the same bytes as those that are sealed at once.
#[test]
fn company_changes_nothing_in_a_packet() {
    for suite in [gcm(true), cbc(false), cbc(true)] {
        let sealed = [false, true].map(|defers| {
            let (mut left, _) = ends(&child(1, suite));
            let mut road = Road { defers, ..Road::default() };
            for nth in 0..70u16 {
                let payload = vec![nth as u8; usize::from(nth % 7) * 11 + 1];
                let write = Write { flow: nth, v6: nth % 3 == 0, payload, size: 1, push: false };
                left.outbounds.send_into(Via::Policy, &mut write.packet(1), None, &mut road, NOW).unwrap();
            }
            assert_eq!(!road.clear.is_empty(), defers && suite.integrity.is_some());
            road.datagrams()
        });
        assert_eq!(sealed[0], sealed[1], "{suite}");
        let (_, mut right) = ends(&child(1, suite));
        assert_eq!(arrive(&mut right, &mut sealed[1].clone()).len(), 70);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    /// Two peers share a batch, and strangers throw in what they like: each good packet arrives, in the order of its SA,
    /// and each bad one is counted once.
    #[test]
    fn bad_neighbours_in_a_batch_hurt_nobody(
        suites in prop::array::uniform2(prop::sample::select(vec![gcm(false), cbc(false), cbc(true)])),
        turns in prop::collection::vec((any::<bool>(), 1usize..300, 0u8..12, any::<prop::sample::Index>()), 1..100),
    ) {
        let children = [child(1, suites[0]), other_child(suites[1])];
        let mut lefts = children.clone().map(|child| ends(&child).0);
        let mut right = DataPath::new();
        for child in &children {
            right.apply(&SaChange::Install(Box::new(mirrored(child)))).unwrap();
        }
        let (mut together, mut expected, mut bad) = (Vec::new(), [Vec::new(), Vec::new()], 0);
        for (nth, (who, len, fate, at)) in turns.iter().enumerate() {
            let who = usize::from(*who);
            let mut road = Road::default();
            // UDP without a checksum: it is never joined.
            let net = 2 + who;
            let source = format!("10.1.0.{}:{}", who + 1, 1 + nth).parse().unwrap();
            let mut packet = build::udp(source, format!("10.{net}.0.1:80").parse().unwrap(), &vec![nth as u8; *len]).unwrap();
            packet[26..28].fill(0);
            lefts[who].outbounds.send_into(Via::Policy, &mut packet.clone(), None, &mut road, NOW).unwrap();
            let mut datagram = road.datagrams().remove(0);
            match fate {
                0 => together.push(vec![*len as u8; at.index(40)]),
                1 => together.push(datagram[..at.index(datagram.len())].to_vec()),
                2 => together.push(datagram.iter().chain(&[0; 4]).copied().collect()),
                3 => {
                    let byte = at.index(datagram.len());
                    let mut forged = datagram.clone();
                    forged[byte] ^= 1 << (nth % 8);
                    together.push(forged);
                }
                4 if !together.is_empty() => datagram = together[at.index(together.len())].clone(),
                _ => {
                    expected[who].push(packet);
                    together.push(datagram);
                    continue;
                }
            }
            bad += 1;
            if *fate == 4 {
                together.push(datagram);
            } else {
                // The true one behind it.
                expected[who].push(packet);
                together.push(datagram);
            }
        }
        let seen = arrive(&mut right, &mut together);
        for (who, expected) in expected.iter().enumerate() {
            let of_one = |packet: &&Vec<u8>| packet[15] == who as u8 + 1;
            prop_assert_eq!(&seen.iter().filter(of_one).cloned().collect::<Vec<_>>(), expected);
        }
        let total = right.inbounds.total();
        prop_assert_eq!(total.packets, seen.len() as u64);
        prop_assert_eq!(total.drops.total(), bad);
    }

    /// Whatever the kernel says a packet is made of: it is refused and counted once, or what is sealed adds up.
    #[test]
    fn a_super_packet_that_lies_is_refused_or_adds_up(
        v6: bool,
        is_tcp: bool,
        says_tcp: bool,
        len in 1usize..3000,
        size in prop::sample::select(vec![0usize, 1, 2, 7, 100, 1398, 1399, 3000, 65_535, usize::MAX]),
        lies in prop::collection::vec((0usize..80, any::<u8>()), 0..3),
        suite in prop::sample::select(vec![gcm(false), cbc(false)]),
    ) {
        let (mut left, mut right) = ends(&child(1, suite));
        let mut road = Road::default();
        let write = Write { flow: if is_tcp { 0 } else { 2 }, v6, payload: vec![5; len], size: 1, push: true };
        let mut packet = write.packet(1);
        let count = packet.len();
        for (at, value) in lies {
            packet[at % count] = value;
        }
        let kind = if says_tcp { Kind::Tcp } else { Kind::Udp };
        let sent = left.outbounds.send_into(Via::Policy, &mut packet, Some((kind, size)), &mut road, NOW);
        let total = left.outbounds.total();
        prop_assert_eq!(total.drops.total(), u64::from(sent.is_err()));
        let mut datagrams = road.datagrams();
        prop_assert_eq!(total.packets, datagrams.len() as u64);
        if sent.is_ok() {
            prop_assert!(!datagrams.is_empty());
        }
        let mut payload = 0;
        for packet in arrive(&mut right, &mut datagrams) {
            prop_assert!(packet.len() <= 1438);
            payload += packet.len();
        }
        prop_assert!(payload <= 3100 * 120);
    }
}

/// A second pair of ends, which shares nothing with that of [`child`].
fn other_child(suite: ChildSuite) -> ChildSa {
    let one = child(2, suite);
    let net = |text: &str| vec![model::Selector::net(text.parse().unwrap()).into()];
    ChildSa {
        inbound_spi: sa::Spi(one.inbound_spi.0 + 0x100),
        outbound_spi: sa::Spi(one.outbound_spi.0 + 0x100),
        local: net("10.1.0.0/16"),
        remote: net("10.3.0.0/16"),
        ..one
    }
}

fn tcp(payload: usize, size: usize) -> (Vec<u8>, Option<(Kind, usize)>) {
    let write = Write { flow: 0, v6: false, payload: vec![7; payload], size, push: false };
    (write.packet(1), Some((Kind::Tcp, size)))
}

#[test]
fn a_repeated_packet_within_a_batch_is_dropped_and_its_neighbours_arrive() {
    for suite in [gcm(false), cbc(false)] {
        let (mut left, mut right) = ends(&child(1, suite));
        let mut road = Road::default();
        let (mut packet, cut) = tcp(10_000, 1000);
        left.outbounds.send_into(Via::Policy, &mut packet, cut, &mut road, NOW).unwrap();
        let mut datagrams = road.datagrams();
        datagrams.insert(4, datagrams[3].clone());
        datagrams.insert(7, vec![0; 3]);
        datagrams.insert(8, [&[0xff; 8][..], &[0; 100]].concat());
        datagrams[10][40] ^= 1;
        let seen = arrive(&mut right, &mut datagrams);
        assert_eq!(seen.len(), 9, "{suite}");
        let drops = right.inbounds.total().drops;
        for reason in [Dropped::Replayed, Dropped::Malformed, Dropped::UnknownSpi, Dropped::BadIntegrity] {
            assert_eq!(drops[reason], 1, "{suite} {reason}");
        }
    }
}

#[test]
fn segments_too_large_for_the_tunnel_are_answered_and_smaller_ones_pass() {
    let (mut left, _) = ends(&child(1, gcm(false)));
    let mut road = Road::default();
    // 1,438 bytes fit: 1,398 of payload.
    let (mut packet, cut) = tcp(10_000, 1399);
    let result = left.outbounds.send_into(Via::Policy, &mut packet, cut, &mut road, NOW);
    assert_eq!((result, road.replies.len(), road.taken.len()), (Err(Dropped::TooBig), 1, 0));
    let (mut packet, cut) = tcp(10_000, 1398);
    assert_eq!(left.outbounds.send_into(Via::Policy, &mut packet, cut, &mut road, NOW), Ok(()));
    assert_eq!(road.taken[0].1, Lens { len: 1472, count: 8, last: 288 });
}

#[test]
fn a_super_packet_that_is_none_is_refused() {
    let (mut left, _) = ends(&child(1, gcm(false)));
    let mut road = Road::default();
    let (packet, _) = tcp(100, 10);
    for cut in [(Kind::Udp, 10), (Kind::Tcp, 0)] {
        let result = left.outbounds.send_into(Via::Policy, &mut packet.clone(), Some(cut), &mut road, NOW);
        assert_eq!(result, Err(Dropped::NotIp));
    }
    assert!(road.taken.is_empty());
    assert_eq!(left.outbounds.total().drops[Dropped::NotIp], 2);
}

#[test]
fn limits_hold_for_runs_and_nothing_of_a_refused_one_is_sent() {
    let limits = Limits { soft_packets: Some(5), hard_packets: Some(20), ..Limits::default() };
    let (mut left, _) = ends(&ChildSa { limits, ..child(1, cbc(false)) });
    let mut road = Road::default();
    for expected in [vec![Event::SoftLimit(sa::SaId(1))], vec![Event::HardLimit(sa::SaId(1))]] {
        let (mut packet, cut) = tcp(1000, 100);
        left.outbounds.send_into(Via::Policy, &mut packet, cut, &mut road, NOW).unwrap();
        assert_eq!(std::iter::from_fn(|| left.poll_event()).collect::<Vec<_>>(), expected);
    }
    let (mut packet, cut) = tcp(1000, 100);
    assert_eq!(left.outbounds.send_into(Via::Policy, &mut packet, cut, &mut road, NOW), Err(Dropped::Expired));
    assert_eq!(road.taken.len(), 2);
}
