//! Cutting a super-packet into the packets that it stands for.
//!
//! The kernel hands many segments of one flow over as a single packet of up to 64 KB with one header, when it need not
//! send them one by one (TCP and UDP segmentation offload). Here they become packets again, as a network card would make
//! them: consecutive sequence numbers and identifications, FIN and PSH on the last, CWR on the first (RFC 3168 §6.1.2),
//! lengths and checksums of their own.

use crate::checksum::Sum;
use crate::ipv4::{MIN_HEADER, write_checksum};
use crate::{Ip, Malformed, Tcp, Udp, ipv6, protocol};

/// The flag that answers an ECN echo.
const CWR: u8 = 0x80;
/// Where the fields that differ lie, counted from the beginning of the TCP or UDP header.
const TCP_SEQUENCE: usize = 4;
const TCP_FLAGS: usize = 13;
const TCP_CHECKSUM: usize = 16;
const UDP_LENGTH: usize = 4;
const UDP_CHECKSUM: usize = 6;

/// What a super-packet is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Segments of one TCP connection.
    Tcp,
    /// UDP datagrams of one flow.
    Udp,
}

/// The packets that a super-packet stands for, written one after the other.
#[derive(Clone, Debug)]
pub struct Segments<'a> {
    packet: &'a [u8],
    kind: Kind,
    is_v4: bool,
    /// Where the TCP or UDP header begins.
    transport_at: usize,
    /// Bytes of all headers.
    header_len: usize,
    /// Bytes of payload in each packet but the last.
    size: usize,
    /// The sum of addresses and protocol, for checksums.
    pseudo: Sum,
    /// Bytes of payload written.
    done: usize,
    written: usize,
}

impl<'a> Segments<'a> {
    /// Reads the headers of a super-packet whose packets have `size` bytes of payload each, the last maybe fewer.
    ///
    /// Refused when it is no such packet: another protocol, a fragment, lengths that do not fit, no payload, a size
    /// of 0.
    pub fn new(packet: &'a [u8], kind: Kind, size: usize) -> Result<Self, Malformed> {
        let ip = Ip::parse(packet)?;
        let (protocol, transport_at, is_fragment) = match ip {
            Ip::V4(v4) => (v4.protocol(), v4.header_len(), v4.is_fragment()),
            Ip::V6(v6) => v6.upper().map(|upper| (upper.protocol, upper.at, upper.is_fragment))?,
        };
        if ip.bytes().len() != packet.len() {
            return Err(Malformed::BadLength);
        }
        let transport = &packet[transport_at..];
        let expected = match kind {
            Kind::Tcp => protocol::TCP,
            Kind::Udp => protocol::UDP,
        };
        if protocol != expected || is_fragment {
            return Err(Malformed::BadField("protocol"));
        }
        let header_len = transport_at
            + match kind {
                Kind::Tcp => Tcp::parse(transport)?.header_len(),
                Kind::Udp if transport.len() >= Udp::HEADER => Udp::HEADER,
                Kind::Udp => return Err(Malformed::Truncated),
            };
        if size == 0 || packet.len() <= header_len {
            return Err(Malformed::BadLength);
        }
        let pseudo = Sum::pseudo_header(ip.source(), ip.destination(), protocol, 0);
        let is_v4 = matches!(ip, Ip::V4(_));
        Ok(Self { packet, kind, is_v4, transport_at, header_len, size, pseudo, done: 0, written: 0 })
    }

    /// How many packets are left to write.
    pub fn count(&self) -> usize {
        (self.payload_len() - self.done).div_ceil(self.size)
    }

    /// Bytes of each packet but the last.
    pub fn full_len(&self) -> usize {
        self.header_len + self.size.min(self.payload_len())
    }

    /// Bytes of the last packet.
    pub fn last_len(&self) -> usize {
        let rest = self.payload_len() % self.size;
        self.header_len + if rest == 0 { self.size } else { rest }
    }

    /// Writes the next packet to the beginning of `out` and says how long it is; `None` after the last, and when `out`
    /// is too short.
    pub fn write_next(&mut self, out: &mut [u8]) -> Option<usize> {
        let payload = self.packet.get(self.header_len + self.done..).filter(|payload| !payload.is_empty())?;
        let taken = payload.len().min(self.size);
        let is_last = taken == payload.len();
        let len = self.header_len + taken;
        let out = out.get_mut(..len)?;
        let (header, body) = out.split_at_mut(self.header_len);
        header.copy_from_slice(&self.packet[..self.header_len]);
        body.copy_from_slice(&payload[..taken]);
        self.write_ip_lengths(header, len);
        let checksum_at = self.transport_at
            + match self.kind {
                Kind::Tcp => {
                    self.write_tcp(&mut header[self.transport_at..], is_last);
                    TCP_CHECKSUM
                }
                Kind::Udp => {
                    let length = (len - self.transport_at) as u16;
                    let at = self.transport_at + UDP_LENGTH;
                    header[at..at + 2].copy_from_slice(&length.to_be_bytes());
                    UDP_CHECKSUM
                }
            };
        out[checksum_at..checksum_at + 2].fill(0);
        let mut sum = self.pseudo;
        sum.add_u16((len - self.transport_at) as u16);
        sum.add(&out[self.transport_at..]);
        let checksum = match (self.kind, sum.finish()) {
            // RFC 768: 0 would mean that there is none.
            (Kind::Udp, 0) => 0xffff,
            (Kind::Tcp | Kind::Udp, checksum) => checksum,
        };
        out[checksum_at..checksum_at + 2].copy_from_slice(&checksum.to_be_bytes());
        self.done += taken;
        self.written += 1;
        Some(len)
    }

    fn payload_len(&self) -> usize {
        self.packet.len() - self.header_len
    }

    fn write_ip_lengths(&self, header: &mut [u8], len: usize) {
        if self.is_v4 {
            header[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            let id = u16::from_be_bytes([header[4], header[5]]).wrapping_add(self.written as u16);
            header[4..6].copy_from_slice(&id.to_be_bytes());
            write_checksum(&mut header[..self.transport_at.max(MIN_HEADER)]);
        } else {
            header[4..6].copy_from_slice(&((len - ipv6::HEADER) as u16).to_be_bytes());
        }
    }

    fn write_tcp(&self, tcp: &mut [u8], is_last: bool) {
        if let Some(sequence) = tcp[TCP_SEQUENCE..].first_chunk_mut::<4>() {
            *sequence = u32::from_be_bytes(*sequence).wrapping_add(self.done as u32).to_be_bytes();
        }
        if !is_last {
            tcp[TCP_FLAGS] &= !(Tcp::FIN | Tcp::PSH);
        }
        if self.done > 0 {
            tcp[TCP_FLAGS] &= !CWR;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::build;

    fn addresses(v6: bool) -> (SocketAddr, SocketAddr) {
        let pair = if v6 { ["[fd00::1]:5000", "[fd00::2]:80"] } else { ["10.0.0.1:5000", "10.0.0.2:80"] };
        (pair[0].parse().unwrap(), pair[1].parse().unwrap())
    }

    /// A super-packet as the kernel hands it out, but with a checksum, which nobody looks at.
    fn super_packet(kind: Kind, v6: bool, flags: u8, payload: &[u8]) -> Vec<u8> {
        let (a, b) = addresses(v6);
        match kind {
            Kind::Tcp => build::tcp(a, b, flags, 0xffff_ff00, &[1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 8], payload),
            Kind::Udp => build::udp(a, b, payload),
        }
        .unwrap()
    }

    fn cut(packet: &[u8], kind: Kind, size: usize) -> Vec<Vec<u8>> {
        let mut segments = Segments::new(packet, kind, size).unwrap();
        let (count, full, last) = (segments.count(), segments.full_len(), segments.last_len());
        let mut out = vec![0; full];
        let mut all = Vec::new();
        while let Some(len) = segments.write_next(&mut out) {
            all.push(out[..len].to_vec());
        }
        assert_eq!(all.len(), count);
        assert!(all.iter().rev().skip(1).all(|packet| packet.len() == full));
        assert_eq!(all.last().unwrap().len(), last);
        all
    }

    proptest! {
        #[test]
        fn the_packets_together_are_the_super_packet(
            is_tcp: bool,
            v6: bool,
            payload in prop::collection::vec(any::<u8>(), 1..9000),
            size in 1usize..3000,
        ) {
            let kind = if is_tcp { Kind::Tcp } else { Kind::Udp };
            let flags = Tcp::ACK | Tcp::PSH | Tcp::FIN | CWR;
            let whole = super_packet(kind, v6, flags, &payload);
            let packets = cut(&whole, kind, size);
            let mut together: Vec<u8> = Vec::new();
            for (nth, packet) in packets.iter().enumerate() {
                let ip = Ip::parse(packet).unwrap();
                prop_assert_eq!(ip.bytes().len(), packet.len());
                if let Ip::V4(v4) = ip {
                    prop_assert!(v4.checksum_is_right());
                    prop_assert_eq!(v4.id(), nth as u16);
                }
                let (protocol, upper) = ip.upper().unwrap();
                let upper = upper.unwrap();
                prop_assert_eq!(build::transport_checksum(ip.source(), ip.destination(), protocol, upper), 0);
                if is_tcp {
                    let tcp = Tcp::parse(upper).unwrap();
                    prop_assert_eq!(tcp.sequence(), 0xffff_ff00u32.wrapping_add(together.len() as u32));
                    prop_assert_eq!(tcp.acknowledgement(), 0);
                    prop_assert_eq!(tcp.options().count(), 1);
                    prop_assert_eq!(tcp.flags() & CWR != 0, nth == 0);
                    let is_last = nth + 1 == packets.len();
                    prop_assert_eq!(tcp.flags() & (Tcp::FIN | Tcp::PSH) != 0, is_last);
                    together.extend(tcp.payload());
                } else {
                    let udp = Udp::parse(upper).unwrap();
                    prop_assert!(udp.checksum() != 0);
                    together.extend(udp.payload());
                }
            }
            prop_assert_eq!(together, payload);
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            mut bytes in prop::collection::vec(any::<u8>(), 0..300),
            first in 0usize..3,
            is_tcp: bool,
            size in 0usize..400,
        ) {
            let len = bytes.len() as u16;
            if len >= 60 {
                bytes[0] = [bytes[0], 0x45, 0x60][first];
                bytes[2..4].copy_from_slice(&len.to_be_bytes());
                bytes[6..8].fill(0);
                bytes[9] = if is_tcp { 6 } else { 17 };
                if first == 2 {
                    bytes[4..6].copy_from_slice(&(len - 40).to_be_bytes());
                    bytes[6] = bytes[9];
                }
            }
            let kind = if is_tcp { Kind::Tcp } else { Kind::Udp };
            if let Ok(mut segments) = Segments::new(&bytes, kind, size) {
                let mut out = [0; 300];
                while segments.write_next(&mut out).is_some() {}
            }
        }
    }

    #[test]
    fn what_is_no_super_packet_is_refused() {
        let good = super_packet(Kind::Tcp, false, Tcp::ACK, &[0; 100]);
        assert!(Segments::new(&good, Kind::Tcp, 10).is_ok());
        assert!(Segments::new(&good, Kind::Udp, 10).is_err(), "another protocol");
        assert!(Segments::new(&good, Kind::Tcp, 0).is_err(), "no size");
        let longer = [&good[..], &[0]].concat();
        assert!(Segments::new(&longer, Kind::Tcp, 10).is_err(), "bytes behind the end");
        let mut fragment = good.clone();
        fragment[6] = 0x20;
        assert!(Segments::new(&fragment, Kind::Tcp, 10).is_err(), "a fragment");
        let empty = super_packet(Kind::Tcp, false, Tcp::ACK, &[]);
        assert!(Segments::new(&empty, Kind::Tcp, 10).is_err(), "no payload");
    }
}
