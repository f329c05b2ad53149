//! Telling a sender that its packet is too big: ICMP "fragmentation needed" (RFC 1191) and ICMPv6
//! "packet too big" (RFC 4443 §3.2); or that there is no way to its destination; and about which packets nothing may be
//! said. And the other way round: which packet
//! of ours an error is about that came in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{Ip, Ipv4, Ipv6, Tos, build, protocol};

/// RFC 1812 §4.3.2.3: an ICMP error is no longer than this.
const MAX_ERROR_V4: usize = 576;
/// RFC 4443 §3.2: as much of the packet as fits into the minimum IPv6 MTU.
const MAX_ERROR_V6: usize = 1280;
/// RFC 1812 §4.3.2.5: precedence 6, internetwork control.
const CONTROL: Tos = Tos(0xc0);

/// The message for the sender of `packet` that only `mtu` bytes pass, sent from `source`.
///
/// `None` when nothing may be said about this packet, or when `source` is of the other IP version.
/// The caller limits the rate (RFC 1812 §4.3.2.8, RFC 4443 §2.4 f).
pub fn too_big(packet: &[u8], source: IpAddr, mtu: usize) -> Option<Vec<u8>> {
    match (Ip::parse(packet).ok()?, source) {
        (Ip::V4(ip), IpAddr::V4(source)) => fragmentation_needed(ip, source, mtu),
        (Ip::V6(ip), IpAddr::V6(source)) => packet_too_big(ip, source, mtu),
        (Ip::V4(_), IpAddr::V6(_)) | (Ip::V6(_), IpAddr::V4(_)) => None,
    }
}

/// The message for the sender of `packet` that its destination cannot be reached for now, sent from `source`: "host
/// unreachable" (RFC 792) or "address unreachable" (RFC 4443 §3.1). TCP keeps trying (RFC 1122 §4.2.3.9).
///
/// `None` as for [`too_big`], and about a packet to many. The caller limits the rate.
pub fn unreachable(packet: &[u8], source: IpAddr) -> Option<Vec<u8>> {
    match (Ip::parse(packet).ok()?, source) {
        (Ip::V4(ip), IpAddr::V4(source)) => error_v4(ip, source, [3, 1, 0, 0, 0, 0, 0, 0]),
        (Ip::V6(ip), IpAddr::V6(source)) if !ip.destination().is_multicast() => {
            error_v6(ip, source, [1, 3, 0, 0, 0, 0, 0, 0])
        }
        (Ip::V6(_), IpAddr::V6(_)) | (Ip::V4(_), IpAddr::V6(_)) | (Ip::V6(_), IpAddr::V4(_)) => None,
    }
}

fn fragmentation_needed(ip: Ipv4<'_>, source: Ipv4Addr, mtu: usize) -> Option<Vec<u8>> {
    // RFC 1191 §4: the next-hop MTU is in the low half of the unused word.
    let mtu = u16::try_from(mtu).unwrap_or(u16::MAX).to_be_bytes();
    error_v4(ip, source, [3, 4, 0, 0, 0, 0, mtu[0], mtu[1]])
}

/// An error that begins with `head`, its checksum still zero.
fn error_v4(ip: Ipv4<'_>, source: Ipv4Addr, head: [u8; 8]) -> Option<Vec<u8>> {
    if !may_be_answered_v4(ip) {
        return None;
    }
    let mut message = head.to_vec();
    let quoted = ip.bytes();
    message.extend(&quoted[..quoted.len().min(MAX_ERROR_V4 - 28)]);
    build::write_icmp_checksum(source.into(), ip.source().into(), &mut message);
    build::ipv4(source, ip.source(), protocol::ICMP, CONTROL, &message)
}

/// RFC 1122 §3.2.2, RFC 1812 §4.3.2.7: never about an ICMP error, a fragment other than the first,
/// a packet to many, or one whose source is not a single host. A directed broadcast cannot be told
/// from here.
fn may_be_answered_v4(ip: Ipv4<'_>) -> bool {
    let is_error = ip.protocol() == protocol::ICMP && matches!(ip.payload().first(), None | Some(3 | 4 | 5 | 11 | 12));
    let is_host = |address: Ipv4Addr| {
        let first = address.octets()[0];
        first != 0 && first != 127 && first < 224
    };
    !is_error && ip.fragment_offset() == 0 && is_host(ip.source()) && ip.destination().octets()[0] < 224
}

fn packet_too_big(ip: Ipv6<'_>, source: Ipv6Addr, mtu: usize) -> Option<Vec<u8>> {
    let [a, b, c, d] = u32::try_from(mtu).unwrap_or(u32::MAX).to_be_bytes();
    error_v6(ip, source, [2, 0, 0, 0, a, b, c, d])
}

/// As [`error_v4`].
fn error_v6(ip: Ipv6<'_>, source: Ipv6Addr, head: [u8; 8]) -> Option<Vec<u8>> {
    if !may_be_answered_v6(ip) {
        return None;
    }
    let mut message = head.to_vec();
    let quoted = ip.bytes();
    message.extend(&quoted[..quoted.len().min(MAX_ERROR_V6 - 48)]);
    build::write_icmp_checksum(source.into(), ip.source().into(), &mut message);
    build::ipv6(source, ip.source(), protocol::ICMPV6, CONTROL, &message)
}

/// RFC 4443 §2.4 (e): never about an ICMPv6 error or redirect, nor to a source that is not one node.
/// A packet to many may be answered: path MTU discovery needs it. An unreadable chain may not, and
/// neither a later fragment of ICMPv6, which might be of an error.
fn may_be_answered_v6(ip: Ipv6<'_>) -> bool {
    let Ok((protocol, upper)) = Ip::V6(ip).upper() else { return false };
    let is_error = protocol == protocol::ICMPV6 && matches!(upper.and_then(|u| u.first()), None | Some(0..128 | 137));
    !is_error && !ip.source().is_unspecified() && !ip.source().is_multicast()
}

/// The packet of ours that an ICMP error quotes, as far as it says. Anyone can make one up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// Where it came from, and the UDP port where it was UDP.
    pub source: (IpAddr, Option<u16>),
    /// Where it was sent.
    pub destination: (IpAddr, Option<u16>),
    /// The SPI of ESP, plain or in UDP. Of a packet in UDP a router may quote too little to have it.
    pub spi: Option<u32>,
}

/// Bytes of a UDP header.
const UDP: usize = 8;

/// Reads an ICMP or ICMPv6 message that came in, IP header not included. `None` when it is no error about a packet that
/// was not delivered, or not about ESP or UDP that may be ESP (RFC 3948 §2.2: IKE has four zero bytes in place of the SPI).
pub fn quoted_esp(message: &[u8], is_v4: bool) -> Option<Quoted> {
    let (head, quote) = message.split_first_chunk::<8>()?;
    let (source, destination, kind, upper): (IpAddr, IpAddr, u8, &[u8]) = if is_v4 {
        // Destination unreachable, time exceeded, parameter problem.
        if !matches!(head[0], 3 | 11 | 12) {
            return None;
        }
        // What is quoted is shorter than it says it is: it is not read as a packet.
        let (ip, _) = quote.split_first_chunk::<20>()?;
        let is_later = u16::from_be_bytes([ip[6], ip[7]]) & 0x1fff != 0;
        let options = usize::from(ip[0] & 0x0f).checked_mul(4).filter(|len| *len >= 20)?;
        let [.., a, b, c, d, e, f, g, h] = *ip;
        if ip[0] >> 4 != 4 || is_later {
            return None;
        }
        (Ipv4Addr::from([a, b, c, d]).into(), Ipv4Addr::from([e, f, g, h]).into(), ip[9], quote.get(options..)?)
    } else {
        // The same, and packet too big.
        if !matches!(head[0], 1..=4) {
            return None;
        }
        let (ip, upper) = quote.split_first_chunk::<40>()?;
        let [source, destination] =
            [8, 24].map(|at| ip.get(at..at + 16).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok()));
        if ip[0] >> 4 != 6 {
            return None;
        }
        (Ipv6Addr::from(source?).into(), Ipv6Addr::from(destination?).into(), ip[6], upper)
    };
    let spi = |bytes: &[u8]| bytes.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
    match kind {
        protocol::ESP => {
            Some(Quoted { source: (source, None), destination: (destination, None), spi: Some(spi(upper)?) })
        }
        protocol::UDP => {
            let (ports, rest) = upper.split_first_chunk::<4>()?;
            let spi = rest.get(UDP - 4..).and_then(spi);
            if spi == Some(0) {
                return None;
            }
            let [from, to] = [[ports[0], ports[1]], [ports[2], ports[3]]].map(|port| Some(u16::from_be_bytes(port)));
            Some(Quoted { source: (source, from), destination: (destination, to), spi })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 60, 0, 1));
    const GATEWAY6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xff));

    fn udp(source: &str, destination: &str, len: usize) -> Vec<u8> {
        build::udp(source.parse::<SocketAddr>().unwrap(), destination.parse().unwrap(), &vec![7; len]).unwrap()
    }

    #[test]
    fn fragmentation_needed_names_the_mtu_and_quotes_the_packet() {
        let packet = udp("10.60.1.100:1", "10.50.1.100:2", 1400);
        let answer = too_big(&packet, GATEWAY, 1390).unwrap();
        let ip = Ipv4::parse(&answer).unwrap();
        assert_eq!((ip.source(), ip.destination()), ("10.60.0.1".parse().unwrap(), "10.60.1.100".parse().unwrap()));
        assert_eq!((answer.len(), ip.protocol()), (576, 1));
        let message = ip.payload();
        assert_eq!(message[..2], [3, 4]);
        assert_eq!(message[4..8], [0, 0, 0x05, 0x6e]);
        assert_eq!(message[8..], packet[..548]);
        assert_eq!(crate::checksum::of(message), 0);
    }

    #[test]
    fn packet_too_big_names_the_mtu_and_fits_the_minimum_mtu() {
        let packet = udp("[2001:db8::1]:1", "[2001:db8:1::1]:2", 1400);
        let answer = too_big(&packet, GATEWAY6, 1390).unwrap();
        assert_eq!(answer.len(), 1280);
        let ip = Ipv6::parse(&answer).unwrap();
        let message = ip.payload();
        assert_eq!(message[..2], [2, 0]);
        assert_eq!(message[4..8], 1390u32.to_be_bytes());
        assert_eq!(message[8..], packet[..1232]);
        let sum = build::transport_checksum(ip.source().into(), ip.destination().into(), 58, message);
        assert_eq!(sum, 0);
    }

    #[test]
    fn unreachable_is_said_of_a_host_and_quotes_the_packet() {
        for (from, to, gateway, head) in [
            ("10.60.1.100:1", "10.50.1.100:2", GATEWAY, [3, 1]),
            ("[2001:db8::1]:1", "[2001:db8:1::1]:2", GATEWAY6, [1, 3]),
        ] {
            let packet = udp(from, to, 20);
            let answer = unreachable(&packet, gateway).unwrap();
            let ip = Ip::parse(&answer).unwrap();
            assert_eq!((ip.source(), ip.destination()), (gateway, Ip::parse(&packet).unwrap().source()));
            let message = ip.upper().unwrap().1.unwrap();
            assert_eq!((&message[..2], &message[4..8], &message[8..]), (&head[..], &[0; 4][..], &packet[..]));
            assert!(unreachable(&answer, gateway).is_none(), "about an error");
        }
        assert!(unreachable(&udp("[2001:db8::1]:1", "[ff0e::1]:2", 9), GATEWAY6).is_none(), "about a packet to many");
        assert!(unreachable(&udp("10.1.1.1:1", "224.0.0.5:2", 9), GATEWAY).is_none(), "about a packet to many");
        assert!(unreachable(&udp("10.1.1.1:1", "10.2.2.2:2", 9), GATEWAY6).is_none(), "wrong family");
    }

    #[test]
    fn nothing_is_said_about_errors_later_fragments_and_packets_to_or_from_many() {
        let plain = udp("10.60.1.100:1", "10.50.1.100:2", 1400);
        assert!(too_big(&plain, GATEWAY, 1390).is_some());
        assert!(too_big(&plain, GATEWAY6, 1390).is_none(), "wrong family");

        let error = too_big(&plain, GATEWAY, 1390).unwrap();
        assert!(too_big(&error, GATEWAY, 500).is_none(), "about an error");
        let echo = build::echo_request(GATEWAY, "10.1.1.1".parse().unwrap(), 1, 1, b"").unwrap();
        assert!(too_big(&echo, GATEWAY, 500).is_some(), "an echo is no error");

        let mut later = plain.clone();
        later[7] = 1;
        assert!(too_big(&later, GATEWAY, 1390).is_none(), "about a later fragment");
        let mut first = plain;
        first[6] = 0x20;
        assert!(too_big(&first, GATEWAY, 1390).is_some(), "the first fragment may be answered");

        for (source, destination) in [
            ("10.60.1.100:1", "224.0.0.5:2"),
            ("10.60.1.100:1", "255.255.255.255:2"),
            ("0.0.0.0:1", "10.1.1.1:2"),
            ("127.0.0.1:1", "10.1.1.1:2"),
            ("239.0.0.1:1", "10.1.1.1:2"),
        ] {
            assert!(too_big(&udp(source, destination, 1400), GATEWAY, 1390).is_none(), "{source} {destination}");
        }
    }

    #[test]
    fn the_esp_packet_that_an_error_quotes_is_read_plain_and_in_udp() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        for (from, to, gateway) in [("192.0.2.1", "198.51.100.1", GATEWAY), ("2001:db8::1", "2001:db8:1::1", GATEWAY6)]
        {
            let (from, to) = (address(from), address(to));
            let natt =
                |payload: &[u8]| build::udp(SocketAddr::new(from, 4500), SocketAddr::new(to, 40_000), payload).unwrap();
            // The message without the IP header before it.
            let read = |packet: &[u8]| {
                let error = too_big(packet, gateway, 1390).unwrap();
                let header = if from.is_ipv4() { 20 } else { 40 };
                quoted_esp(&error[header..], from.is_ipv4())
            };
            let in_udp = natt(&[0xc7, 0xcc, 0xee, 0xbf, 0, 0, 0, 1, 9, 9, 9, 9]);
            let quoted = read(&in_udp).unwrap();
            assert_eq!((quoted.source, quoted.destination), ((from, Some(4500)), (to, Some(40_000))));
            assert_eq!(quoted.spi, Some(0xc7cc_eebf));
            assert_eq!(read(&natt(&[0, 0, 0, 0, 1, 2, 3, 4])), None, "IKE");
            let mut plain = in_udp.clone();
            let (protocol, header) = if from.is_ipv4() { (9, 20) } else { (6, 40) };
            plain[protocol] = 50;
            plain[header..header + 4].copy_from_slice(&[1, 2, 3, 4]);
            let quoted = read(&plain).unwrap();
            assert_eq!((quoted.source.1, quoted.spi), (None, Some(0x0102_0304)));
            plain[protocol] = 6;
            assert_eq!(read(&plain), None, "TCP");
        }
        // RFC 792: no more than eight bytes behind the IP header are certain.
        let packet = udp("192.0.2.1:4500", "198.51.100.1:4500", 40);
        let mut short = vec![3, 1, 0, 0, 0, 0, 0, 0];
        short.extend(&packet[..28]);
        assert_eq!(quoted_esp(&short, true).unwrap().spi, None);
        short[0] = 8;
        assert_eq!(quoted_esp(&short, true), None, "an echo is no error");
    }

    #[test]
    fn nothing_is_said_about_icmpv6_errors_nor_to_nobody() {
        let plain = udp("[2001:db8::1]:1", "[2001:db8:1::1]:2", 1400);
        let error = too_big(&plain, GATEWAY6, 1390).unwrap();
        assert!(too_big(&error, GATEWAY6, 1280).is_none());
        assert!(too_big(&udp("[::]:1", "[2001:db8::1]:2", 9), GATEWAY6, 1280).is_none());
        assert!(too_big(&udp("[ff02::1]:1", "[2001:db8::1]:2", 9), GATEWAY6, 1280).is_none());
        assert!(too_big(&udp("[2001:db8::1]:1", "[ff0e::1]:2", 9), GATEWAY6, 1280).is_some());
    }
}
