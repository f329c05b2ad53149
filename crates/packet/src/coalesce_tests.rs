//! Joining flows again: what comes out is what went in, or the packets themselves.

use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;
use crate::segment::Segments;
use crate::{Ecn, Ip, Tos, build};

const A: &str = "10.0.0.1:5000";
const B: &str = "10.0.0.2:80";
const TIMESTAMPS: [u8; 12] = [1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 8];

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn tcp(sequence: u32, payload: &[u8]) -> Vec<u8> {
    build::tcp(at(A), at(B), Tcp::ACK, sequence, &TIMESTAMPS, payload).unwrap()
}

/// Sets a byte of the TCP header, and the checksum.
fn with_tcp(mut packet: Vec<u8>, field: usize, value: u8) -> Vec<u8> {
    packet[20 + field] = value;
    packet[36..38].fill(0);
    let sum = build::transport_checksum(at(A).ip(), at(B).ip(), protocol::TCP, &packet[20..]);
    packet[36..38].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// What comes out, super-packets put together, with their size (0 for single packets).
fn join(packets: &[Vec<u8>]) -> Vec<(Vec<u8>, usize, Option<Kind>)> {
    let mut out = Vec::new();
    let mut emit = |(): (), joined: Joined<'_, '_>| match joined {
        Joined::Single(packet) => out.push((packet.to_vec(), 0, None)),
        Joined::Super { header, payloads, kind, size, checksum: (start, offset), .. } => {
            let mut whole = [header, &payloads.concat()].concat();
            assert!(crate::checksum::complete(&mut whole, start, offset));
            out.push((whole, size, Some(kind)));
        }
    };
    let mut coalescer = Coalescer::new(true);
    for packet in packets {
        coalescer.push((), packet, &mut emit);
    }
    coalescer.flush(&mut emit);
    out
}

/// The packets that the kernel would make of what comes out.
fn cut_again(joined: &[(Vec<u8>, usize, Option<Kind>)]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for (packet, size, kind) in joined {
        let Some(kind) = kind else {
            out.push(packet.clone());
            continue;
        };
        let mut segments = Segments::new(packet, *kind, *size).unwrap();
        let mut room = vec![0; segments.full_len()];
        while let Some(len) = segments.write_next(&mut room) {
            out.push(room[..len].to_vec());
        }
    }
    out
}

fn counts(packets: &[Vec<u8>]) -> Vec<usize> {
    let joined = join(packets);
    joined.iter().map(|(packet, size, _)| if *size == 0 { 1 } else { (packet.len() - 52).div_ceil(*size) }).collect()
}

#[test]
fn what_follows_is_joined_up_to_a_shorter_one() {
    let packets = [tcp(0, &[1; 100]), tcp(100, &[2; 100]), tcp(200, &[3; 50]), tcp(250, &[4; 50])];
    let joined = join(&packets);
    assert_eq!(joined.len(), 2);
    let Ok(Ip::V4(ip)) = Ip::parse(&joined[0].0) else { panic!() };
    assert!(ip.checksum_is_right());
    assert_eq!(Tcp::parse(ip.payload()).unwrap().payload().len(), 250);
    assert_eq!(build::transport_checksum(at(A).ip(), at(B).ip(), protocol::TCP, ip.payload()), 0);
    assert_eq!(cut_again(&joined).len(), 4);
}

#[test]
fn what_differs_in_anything_is_not_joined() {
    let first = tcp(0, &[1; 100]);
    let next = || tcp(100, &[2; 100]);
    let changed = |change: fn(&mut Vec<u8>)| {
        let mut packet = next();
        change(&mut packet);
        ipv4::write_checksum(&mut packet[..20]);
        packet
    };
    assert_eq!(counts(&[first.clone(), next()]), [2]);
    for (what, packet) in [
        ("a gap", tcp(101, &[2; 100])),
        ("an overlap", tcp(99, &[2; 100])),
        ("a longer one", tcp(100, &[2; 101])),
        ("the traffic class", changed(|p| p[1] = Tos::new(0, Ecn::Ce).0)),
        ("hops left", changed(|p| p[8] -= 1)),
        ("DF, and so the identification", changed(|p| p[6] = 0)),
        ("the acknowledgement", with_tcp(next(), 11, 1)),
        ("the window", with_tcp(next(), 15, 1)),
        ("a timestamp", with_tcp(next(), 27, 1)),
        ("FIN", with_tcp(next(), 13, Tcp::ACK | Tcp::FIN)),
        ("SYN", with_tcp(next(), 13, Tcp::ACK | Tcp::SYN)),
        ("RST", with_tcp(next(), 13, Tcp::ACK | Tcp::RST)),
        ("URG", with_tcp(next(), 13, Tcp::ACK | 0x20)),
        ("ECE", with_tcp(next(), 13, Tcp::ACK | 0x40)),
        ("CWR", with_tcp(next(), 13, Tcp::ACK | 0x80)),
        ("a wrong checksum", {
            let mut packet = next();
            packet[80] ^= 1;
            packet
        }),
        ("a wrong header checksum", {
            let mut packet = next();
            packet[10] ^= 1;
            packet
        }),
        ("no payload", tcp(100, &[])),
    ] {
        let joined = join(&[first.clone(), packet.clone()]);
        let out: Vec<_> = joined.iter().map(|(packet, ..)| packet.clone()).collect();
        assert_eq!(out, [first.clone(), packet], "{what}");
    }
}

#[test]
fn push_ends_a_super_packet_and_stays_on_the_last() {
    let push = |packet| with_tcp(packet, 13, Tcp::ACK | Tcp::PSH);
    let packets = [tcp(0, &[1; 100]), push(tcp(100, &[2; 100])), tcp(200, &[3; 100]), push(tcp(300, &[4; 100]))];
    assert_eq!(counts(&packets), [2, 2]);
    let segments =
        |packets: &[Vec<u8>]| -> Vec<Vec<u8>> { packets.iter().map(|packet| packet[20..].to_vec()).collect() };
    assert_eq!(segments(&cut_again(&join(&packets))), segments(&packets));
    assert_eq!(counts(&[push(tcp(0, &[1; 100])), tcp(100, &[2; 100])]), [1, 1]);
}

#[test]
fn without_df_identifications_must_follow_each_other() {
    let with_id = |sequence, id: u8| {
        let mut packet = tcp(sequence, &[1; 100]);
        packet[5] = id;
        packet[6] = 0;
        ipv4::write_checksum(&mut packet[..20]);
        packet
    };
    assert_eq!(counts(&[with_id(0, 7), with_id(100, 8), with_id(200, 10)]), [2, 1]);
    assert_eq!(counts(&[with_id(0, 7), with_id(100, 7)]), [1, 1]);
}

#[test]
fn flows_are_joined_side_by_side_and_each_keeps_its_order() {
    let flow = |port: u16, sequence| {
        let source = SocketAddr::new(at(A).ip(), port);
        build::tcp(source, at(B), Tcp::ACK, sequence, &TIMESTAMPS, &[port as u8; 100]).unwrap()
    };
    let mut packets = Vec::new();
    for sequence in [0, 100, 200] {
        packets.extend((0..6).map(|port| flow(port, sequence)));
    }
    assert_eq!(counts(&packets), [3; 6]);
    // More flows than there is room for: the oldest goes first.
    let many: Vec<_> = (0..20).map(|port| flow(port, 0)).collect();
    assert_eq!(cut_again(&join(&many)), many);
    // A segment without payload does not overtake the data before it.
    let ordered = [flow(1, 0), flow(1, 100), build::tcp(at(A), at(B), Tcp::ACK, 7, &[], &[]).unwrap(), flow(1, 200)];
    let joined = join(&ordered);
    assert_eq!(joined.len(), 2, "of another flow, it disturbs nobody");
}

#[test]
fn what_goes_elsewhere_is_not_joined() {
    let packets = [tcp(0, &[1; 100]), tcp(100, &[2; 100])];
    let mut coalescer = Coalescer::new(true);
    let mut count = 0;
    for (tag, packet) in packets.iter().enumerate() {
        coalescer.push(tag, packet, |_, _| count += 1);
    }
    coalescer.flush(|_, joined| {
        assert!(matches!(joined, Joined::Single(_)));
        count += 1;
    });
    assert_eq!(count, 2);
}

#[test]
fn a_super_packet_ends_at_64_packets_and_at_64_kilobytes() {
    let small: Vec<_> = (0..130).map(|n| tcp(n * 10, &[n as u8; 10])).collect();
    assert_eq!(counts(&small), [64, 64, 2]);
    let large: Vec<_> = (0..9).map(|n| tcp(n * 9000, &[n as u8; 9000])).collect();
    assert_eq!(counts(&large), [7, 2]);
}

proptest! {
    #[test]
    fn joining_and_cutting_gives_back_the_packets(
        script in prop::collection::vec((0u8..3, prop::sample::select(vec![0usize, 1, 50, 100, 100, 100]), 0u8..20), 1..120),
        v6: bool,
    ) {
        let mut sequences = [0u32; 3];
        let mut packets = Vec::new();
        for (flow, len, special) in script {
            let [a, b] = if v6 { ["[fd00::1]:1", "[fd00::2]:2"] } else { [A, B] };
            let source = SocketAddr::new(at(a).ip(), u16::from(flow) + 1);
            let payload = vec![special; len];
            let flags = if special == 0 { Tcp::ACK | Tcp::PSH } else if special == 1 { Tcp::ACK | Tcp::FIN } else { Tcp::ACK };
            let sequence = &mut sequences[usize::from(flow)];
            *sequence = sequence.wrapping_add(u32::from(special == 2));
            let mut packet = if flow == 2 {
                build::udp(source, at(b), &payload).unwrap()
            } else {
                build::tcp(source, at(b), flags, *sequence, &[], &payload).unwrap()
            };
            *sequence = sequence.wrapping_add(len as u32);
            if special == 3 {
                let last = packet.len() - 1;
                packet[last] ^= 1;
            }
            packets.push(packet);
        }
        let mut again = cut_again(&join(&packets));
        // Packets that must not be fragmented have no identification to speak of.
        for packet in &mut again {
            if !v6 && Ipv4::parse(packet).is_ok_and(|ip| ip.dont_fragment()) {
                prop_assert!(Ipv4::parse(packet).is_ok_and(Ipv4::checksum_is_right));
                packet[4..6].fill(0);
                ipv4::write_checksum(&mut packet[..20]);
            }
        }
        for flow in 1u16..4 {
            let of_flow = |packets: &[Vec<u8>]| -> Vec<Vec<u8>> {
                let port_at = if v6 { 40 } else { 20 };
                packets.iter().filter(|p| p[port_at..port_at + 2] == flow.to_be_bytes()).cloned().collect()
            };
            prop_assert_eq!(of_flow(&again), of_flow(&packets));
        }
        prop_assert_eq!(again.len(), packets.len());
    }

    #[test]
    fn arbitrary_packets_never_panic(
        mut packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..120), 1..20),
        first in 0usize..3,
    ) {
        for packet in &mut packets {
            packet[0] = [packet[0], 0x45, 0x60][first];
            let len = packet.len() as u16;
            if len > 44 {
                if first == 1 {
                    packet[2..4].copy_from_slice(&len.to_be_bytes());
                    packet[6..8].fill(0);
                    packet[9] = 6 + 11 * (packet[9] & 1);
                } else {
                    packet[4..6].copy_from_slice(&(len - 40).to_be_bytes());
                    packet[6] = 6 + 11 * (packet[6] & 1);
                }
            }
        }
        let out = join(&packets);
        prop_assert!(!out.is_empty());
    }
}
