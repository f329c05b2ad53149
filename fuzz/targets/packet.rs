//! Any bytes as a packet: what every view, rewriting, fragmenting and the ICMP answers keep true.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fuzz::Input;
use libfuzzer_sys::fuzz_target;
use packet::fragment::Fragments;
use packet::mss::Clamp;
use packet::{Ecn, FlowKey, Ip, Ipv4, Ports, Tcp, Tos, Udp, build, checksum, icmp, protocol, set_tos};

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let (repairs, tos, mtu, mss) = (input.byte(), Tos(input.byte()), usize::from(input.word()), input.word());
    let packet = repaired(input.rest(), repairs);
    read(&packet);
    rewrite_tos(&packet, tos);
    clamp(&packet, mss);
    fragment(&packet, mtu);
    answer(&packet, mtu);
});

/// Mutations rarely hit a length or a checksum, and most code lies behind them.
fn repaired(bytes: &[u8], repairs: u8) -> Vec<u8> {
    let mut packet = bytes.to_vec();
    let Some(first) = packet.first().copied() else { return packet };
    if repairs & 1 != 0 && packet.len() >= 40 {
        let total = u16::try_from(packet.len()).unwrap_or(u16::MAX);
        match first >> 4 {
            4 => packet[2..4].copy_from_slice(&total.to_be_bytes()),
            6 => packet[4..6].copy_from_slice(&(total - 40).to_be_bytes()),
            _ => {}
        }
    }
    if repairs & 2 != 0
        && let Ok(ip) = Ipv4::parse(&packet)
    {
        let end = ip.header_len();
        packet[10..12].fill(0);
        let sum = checksum::of(&packet[..end]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    if repairs & 4 != 0
        && let Some((at, ip)) = tcp_at(&packet)
    {
        packet[at + 16..at + 18].fill(0);
        let (source, destination, end) = ip;
        let sum = build::transport_checksum(source, destination, protocol::TCP, &packet[at..end]);
        packet[at + 16..at + 18].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

/// Where TCP begins, and the addresses and the length of the packet.
fn tcp_at(packet: &[u8]) -> Option<(usize, (IpAddr, IpAddr, usize))> {
    let ip = Ip::parse(packet).ok()?;
    let (protocol::TCP, Some(upper)) = ip.upper().ok()? else { return None };
    Tcp::parse(upper).ok()?;
    let len = ip.bytes().len();
    Some((len - upper.len(), (ip.source(), ip.destination(), len)))
}

fn tcp_sum(packet: &[u8]) -> Option<u16> {
    let (at, (source, destination, end)) = tcp_at(packet)?;
    Some(build::transport_checksum(source, destination, protocol::TCP, &packet[at..end]))
}

/// Everything that can be read lies inside the packet.
fn read(packet: &[u8]) {
    if let Ok(flow) = FlowKey::of(packet) {
        assert_eq!(flow.reversed().reversed(), flow);
        if let Ports::Known { source, .. } = flow.ports {
            let (_, upper) = Ip::parse(packet).and_then(Ip::upper).expect("it was read before");
            assert_eq!(Udp::ports(upper.expect("it has ports")).expect("it has ports").0, source);
        }
    }
    if let Ok(ip) = Ip::parse(packet) {
        assert!(ip.bytes().len() <= packet.len());
        assert_eq!(Tos::new(ip.tos().dscp(), ip.tos().ecn()), ip.tos());
    }
    if let Ok(ip) = Ipv4::parse(packet) {
        assert_eq!(20 + ip.options().len() + ip.payload().len(), ip.bytes().len());
    }
    if let Ok(udp) = Udp::parse(packet) {
        assert!(udp.payload().len() + Udp::HEADER <= packet.len());
    }
    if let Ok(tcp) = Tcp::parse(packet) {
        assert_eq!(tcp.header_len() + tcp.payload().len(), packet.len());
        for option in tcp.options() {
            assert!(option.at + option.value.len() <= tcp.header_len());
        }
    }
}

/// Only the traffic class changes, and a right checksum stays right.
fn rewrite_tos(packet: &[u8], tos: Tos) {
    let mut after = packet.to_vec();
    set_tos(&mut after, tos);
    let Ok(ip) = Ip::parse(packet) else { return assert_eq!(after, packet) };
    let rewritten = Ip::parse(&after).expect("only its traffic class changed");
    assert_eq!(rewritten.tos(), tos);
    assert_eq!(tos.with_ecn(Ecn::Ce).dscp(), tos.dscp());
    assert_eq!((ip.source(), ip.destination()), (rewritten.source(), rewritten.destination()));
    if let (Ip::V4(ip), Ip::V4(rewritten)) = (ip, rewritten) {
        assert!(!ip.checksum_is_right() || rewritten.checksum_is_right());
    }
}

/// A clamped SYN announces the limit, and a right checksum stays right; all else is left alone.
fn clamp(packet: &[u8], mss: u16) {
    let mut after = packet.to_vec();
    if !(Clamp { v4: mss, v6: mss }).apply(&mut after) {
        return assert_eq!(after, packet);
    }
    let (at, _) = tcp_at(packet).expect("a clamped packet is TCP");
    let (_, (.., end)) = tcp_at(&after).expect("it still is");
    let options = |packet: &[u8]| Tcp::parse(&packet[at..end]).expect("it is TCP").mss();
    assert!(options(packet) > Some(mss));
    assert_eq!(options(&after), Some(mss));
    let changed = packet.iter().zip(&after).filter(|(a, b)| a != b).count();
    assert!(changed <= 4, "{changed} bytes changed");
    if tcp_sum(packet) == Some(0) {
        assert_eq!(tcp_sum(&after), Some(0));
    }
    assert!(!(Clamp { v4: mss, v6: mss }).apply(&mut after), "once is enough");
}

/// The pieces fit, and together they are the packet.
fn fragment(packet: &[u8], mtu: usize) {
    let Ok(mut fragments) = Fragments::new(packet, mtu, 0xbeef) else { return };
    let whole = Ipv4::parse(packet).expect("only IPv4 is fragmented");
    let (mut payload, mut out) = (Vec::<u8>::new(), vec![0; mtu]);
    let mut more = true;
    while let Some(len) = fragments.write_next(&mut out) {
        let piece = Ipv4::parse(&out[..len]).expect("a piece is a packet");
        assert!(more && len <= mtu && piece.checksum_is_right() && !piece.dont_fragment());
        assert_eq!(piece.bytes().len(), len);
        assert_eq!(piece.fragment_offset(), whole.fragment_offset() + payload.len());
        payload.extend(piece.payload());
        more = piece.more_fragments();
    }
    assert_eq!(payload, whole.payload());
    assert_eq!(more, whole.more_fragments());
}

/// An answer is short and right, goes to the sender, and is not answered itself.
fn answer(packet: &[u8], mtu: usize) {
    let gateways: [IpAddr; 2] =
        [Ipv4Addr::new(192, 0, 2, 1).into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()];
    for gateway in gateways {
        let Some(answer) = icmp::too_big(packet, gateway, mtu) else { continue };
        let ip = Ip::parse(&answer).expect("an answer is a packet");
        let asked = Ip::parse(packet).expect("only packets are answered");
        assert_eq!((ip.source(), ip.destination()), (gateway, asked.source()));
        assert!(answer.len() <= if gateway.is_ipv4() { 576 } else { 1280 });
        assert!(icmp::too_big(&answer, ip.destination(), mtu).is_none());
        let Ok((_, Some(message))) = ip.upper() else { panic!("an answer holds a message") };
        match ip {
            Ip::V4(ip) => assert!(ip.checksum_is_right() && checksum::of(message) == 0),
            Ip::V6(_) => {
                assert_eq!(build::transport_checksum(gateway, ip.destination(), protocol::ICMPV6, message), 0);
            }
        }
    }
}
