//! Super-packets on their whole way: cut up, sealed, lost, overtaken, repeated and forged on the road, opened, and joined
//! again. What comes out is what went in.

use base::Instant;
use base::algorithm::{Encryption, Integrity};
use packet::coalesce::{Coalescer, Joined};
use packet::segment::{Kind, Segments};
use packet::{Ipv4, Tcp, Tos, build, checksum};
use proptest::prelude::*;
use sa::{ChildSa, ChildSuite, Limits, Path, SaChange};

use super::{child, gcm, mirrored};
use crate::{Counters, DataPath, Dropped, Event, Lens, Room, Via};

const NOW: Instant = Instant::ZERO;

/// Keeps what is to be sent.
#[derive(Default)]
struct Road {
    taken: Vec<(Vec<u8>, Lens)>,
    replies: Vec<Vec<u8>>,
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
}

impl Road {
    fn datagrams(&self) -> Vec<Vec<u8>> {
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
    let packets = together.iter_mut().map(|packet| &mut packet[..]);
    right.inbounds.open_run(packets, None, Tos(0), NOW, |via, inner| coalescer.push(via, inner, &mut emit));
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
    ) {
        let child = ChildSa { replay_window: 8192, ..child(1, suite) };
        let (mut left, mut right) = ends(&child);
        let mut road = Road::default();
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
