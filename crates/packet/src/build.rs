//! New packets: what a gateway says itself, and what tests send through it.
//!
//! Every function answers `None` when the packet would be longer than its length field can say.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::checksum::Sum;
use crate::{Tos, ipv4, ipv6, protocol};

const HOPS: u8 = 64;

/// An IPv4 packet that may not be fragmented. Its identification is 0, which such a packet may
/// have (RFC 6864 §4.1).
pub fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, tos: Tos, payload: &[u8]) -> Option<Vec<u8>> {
    let total = u16::try_from(ipv4::MIN_HEADER + payload.len()).ok()?;
    let mut packet = Vec::with_capacity(usize::from(total));
    packet.extend([0x45, tos.0]);
    packet.extend(total.to_be_bytes());
    packet.extend([0, 0, 0x40, 0, HOPS, protocol, 0, 0]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    ipv4::write_checksum(&mut packet);
    packet.extend(payload);
    Some(packet)
}

/// An IPv6 packet without extension headers; `next_header` may name one that `payload` begins with.
pub fn ipv6(source: Ipv6Addr, destination: Ipv6Addr, next_header: u8, tos: Tos, payload: &[u8]) -> Option<Vec<u8>> {
    let len = u16::try_from(payload.len()).ok()?;
    let mut packet = Vec::with_capacity(ipv6::HEADER + payload.len());
    packet.extend([0x60 | tos.0 >> 4, tos.0 << 4, 0, 0]);
    packet.extend(len.to_be_bytes());
    packet.extend([next_header, HOPS]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(payload);
    Some(packet)
}

/// A packet of the addresses' version; `None` too when one is IPv4 and the other IPv6.
pub fn ip(source: IpAddr, destination: IpAddr, protocol: u8, tos: Tos, payload: &[u8]) -> Option<Vec<u8>> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => ipv4(source, destination, protocol, tos, payload),
        (IpAddr::V6(source), IpAddr::V6(destination)) => ipv6(source, destination, protocol, tos, payload),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
    }
}

/// A UDP datagram in a packet, with its checksum.
pub fn udp(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Option<Vec<u8>> {
    let len = u16::try_from(8 + payload.len()).ok()?;
    let mut datagram = Vec::with_capacity(usize::from(len));
    datagram.extend(source.port().to_be_bytes());
    datagram.extend(destination.port().to_be_bytes());
    datagram.extend(len.to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    let sum = transport_checksum(source.ip(), destination.ip(), protocol::UDP, &datagram);
    // RFC 768: a computed zero is sent as all ones.
    datagram[6..8].copy_from_slice(&(if sum == 0 { 0xffff } else { sum }).to_be_bytes());
    ip(source.ip(), destination.ip(), protocol::UDP, Tos(0), &datagram)
}

/// A TCP segment in a packet, with its checksum. `options` is padded with no-operations to a
/// multiple of four bytes; at most 40.
pub fn tcp(
    source: SocketAddr,
    destination: SocketAddr,
    flags: u8,
    sequence: u32,
    options: &[u8],
    payload: &[u8],
) -> Option<Vec<u8>> {
    let header_len = 20 + options.len().next_multiple_of(4);
    if header_len > 60 {
        return None;
    }
    let mut segment = Vec::with_capacity(header_len + payload.len());
    segment.extend(source.port().to_be_bytes());
    segment.extend(destination.port().to_be_bytes());
    segment.extend(sequence.to_be_bytes());
    segment.extend([0; 4]);
    segment.extend([(header_len << 2) as u8, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(options);
    segment.resize(header_len, 1);
    segment.extend(payload);
    let sum = transport_checksum(source.ip(), destination.ip(), protocol::TCP, &segment);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    ip(source.ip(), destination.ip(), protocol::TCP, Tos(0), &segment)
}

/// An echo request of ICMP or ICMPv6, as the addresses are.
pub fn echo_request(source: IpAddr, destination: IpAddr, id: u16, sequence: u16, data: &[u8]) -> Option<Vec<u8>> {
    let (protocol, kind) = match source {
        IpAddr::V4(_) => (protocol::ICMP, 8),
        IpAddr::V6(_) => (protocol::ICMPV6, 128),
    };
    let mut message = vec![kind, 0, 0, 0];
    message.extend(id.to_be_bytes());
    message.extend(sequence.to_be_bytes());
    message.extend(data);
    write_icmp_checksum(source, destination, &mut message);
    ip(source, destination, protocol, Tos(0), &message)
}

/// Computes the checksum of an ICMP or ICMPv6 message, as the addresses are. `message` is at least
/// four bytes long.
pub(crate) fn write_icmp_checksum(source: IpAddr, destination: IpAddr, message: &mut [u8]) {
    message[2..4].fill(0);
    let mut sum = match source {
        IpAddr::V4(_) => Sum::new(),
        IpAddr::V6(_) => Sum::pseudo_header(source, destination, protocol::ICMPV6, message.len()),
    };
    sum.add(message);
    message[2..4].copy_from_slice(&sum.finish().to_be_bytes());
}

/// The checksum of a UDP, TCP or ICMPv6 message with the pseudo header; 0 when `message` contains
/// the right one.
pub fn transport_checksum(source: IpAddr, destination: IpAddr, protocol: u8, message: &[u8]) -> u16 {
    let mut sum = Sum::pseudo_header(source, destination, protocol, message.len());
    sum.add(message);
    sum.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ip, Tcp, Udp};

    fn socket(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn transport_checksums_of_built_packets_verify() {
        for (a, b) in [("10.0.0.1:500", "10.0.0.2:4500"), ("[2001:db8::1]:500", "[2001:db8::2]:4500")] {
            let (a, b) = (socket(a), socket(b));
            let packets = [udp(a, b, b"odd").unwrap(), tcp(a, b, Tcp::SYN, 7, &[2, 4, 5, 0xb4], b"odd").unwrap()];
            for packet in packets {
                let ip = Ip::parse(&packet).unwrap();
                let (protocol, upper) = ip.upper().unwrap();
                let upper = upper.unwrap();
                assert_eq!((ip.source(), ip.destination()), (a.ip(), b.ip()));
                assert_eq!(transport_checksum(a.ip(), b.ip(), protocol, upper), 0);
                assert_eq!(Udp::ports(upper), Ok((500, 4500)));
            }
        }
    }

    #[test]
    fn a_packet_that_its_length_field_cannot_hold_is_not_built() {
        let (a, b) = (socket("10.0.0.1:1"), socket("10.0.0.2:2"));
        assert!(udp(a, b, &vec![0; 65507]).is_some());
        assert!(udp(a, b, &vec![0; 65508]).is_none());
        assert!(udp(a, socket("[::1]:2"), &[]).is_none());
    }
}
