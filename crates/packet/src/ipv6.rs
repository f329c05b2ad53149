//! An IPv6 header and the chain of extension headers behind it (RFC 8200 §3, §4).

use std::net::Ipv6Addr;

use crate::{Malformed, Tos, protocol};

/// Bytes of the fixed header.
pub(crate) const HEADER: usize = 40;

/// The longest chain of extension headers that is walked. RFC 8200 §4.1 recommends at most five in
/// a packet; whoever sends more than this hides something.
const MAX_EXTENSION_HEADERS: usize = 8;

/// A whole IPv6 packet, trimmed to its payload length.
#[derive(Clone, Copy, Debug)]
pub struct Ipv6<'a>(&'a [u8]);

/// What lies behind the extension headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upper {
    /// Protocol of the upper layer. AH, ESP and mobility count as such (RFC 4301 §4.4.1.1).
    pub protocol: u8,
    /// Where its header begins, counted from the first byte of the packet.
    pub at: usize,
    /// Whether the packet is a part of one, the first part included.
    pub is_fragment: bool,
    /// Where this fragment's payload belongs in the whole, in bytes. When it is not 0 there is no
    /// upper-layer header at `at`.
    pub fragment_offset: usize,
}

impl<'a> Ipv6<'a> {
    /// Checks version and payload length. Bytes behind the payload length are ignored. Jumbograms
    /// (RFC 2675) are not supported: their payload length is 0.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let header = bytes.first_chunk::<HEADER>().ok_or(Malformed::Truncated)?;
        if header[0] >> 4 != 6 {
            return Err(Malformed::BadField("IP version"));
        }
        let len = HEADER + usize::from(u16::from_be_bytes([header[4], header[5]]));
        bytes.get(..len).map(Self).ok_or(Malformed::Truncated)
    }

    /// The packet, header and all.
    pub const fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// What the fixed header is followed by, extension headers included.
    pub fn payload(self) -> &'a [u8] {
        &self.0[HEADER..]
    }

    /// DSCP and ECN.
    pub fn tos(self) -> Tos {
        Tos(self.0[0] << 4 | self.0[1] >> 4)
    }

    /// The flow label, 20 bits.
    pub fn flow_label(self) -> u32 {
        u32::from_be_bytes([0, self.0[1] & 15, self.0[2], self.0[3]])
    }

    /// The first next-header value, which may be an extension header.
    pub fn next_header(self) -> u8 {
        self.0[6]
    }

    /// Hops left.
    pub fn hop_limit(self) -> u8 {
        self.0[7]
    }

    /// Who sent it.
    pub fn source(self) -> Ipv6Addr {
        address(self.0, 8)
    }

    /// Who shall have it: the next stop if there is a routing header.
    pub fn destination(self) -> Ipv6Addr {
        address(self.0, 24)
    }

    /// Walks the extension headers that RFC 4301 §4.4.1.1 has skipped: hop-by-hop, routing,
    /// fragment, destination options.
    pub fn upper(self) -> Result<Upper, Malformed> {
        let mut upper = Upper { protocol: self.next_header(), at: HEADER, is_fragment: false, fragment_offset: 0 };
        for _ in 0..MAX_EXTENSION_HEADERS {
            let len = match upper.protocol {
                protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION_OPTIONS => {
                    8 + usize::from(self.chunk(upper.at)?[1]) * 8
                }
                protocol::FRAGMENT => {
                    let [_, _, high, low, ..] = self.chunk(upper.at)?;
                    let word = u16::from_be_bytes([high, low]);
                    upper.is_fragment |= word & !6 != 0;
                    upper.fragment_offset = usize::from(word & !7);
                    8
                }
                _ => return Ok(upper),
            };
            upper.protocol = self.chunk(upper.at)?[0];
            upper.at += len;
            if upper.at > self.0.len() {
                return Err(Malformed::Truncated);
            }
            if upper.fragment_offset != 0 {
                return Ok(upper);
            }
        }
        Err(Malformed::BadField("IPv6 extension header chain"))
    }

    fn chunk(self, at: usize) -> Result<[u8; 8], Malformed> {
        self.0.get(at..).and_then(|rest| rest.first_chunk::<8>()).copied().ok_or(Malformed::Truncated)
    }
}

fn address(bytes: &[u8], at: usize) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&bytes[at..at + 16]);
    octets.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build;

    const A: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    const B: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 2);

    fn packet(next_header: u8, payload: &[u8]) -> Vec<u8> {
        build::ipv6(A, B, next_header, Tos(0xb9), payload).unwrap()
    }

    #[test]
    fn a_header_is_read() {
        let bytes = packet(protocol::UDP, &[0; 8]);
        let ip = Ipv6::parse(&bytes).unwrap();
        assert_eq!((ip.source(), ip.destination(), ip.tos()), (A, B, Tos(0xb9)));
        assert_eq!((ip.next_header(), ip.hop_limit(), ip.flow_label()), (17, 64, 0));
        assert_eq!(ip.upper(), Ok(Upper { protocol: 17, at: 40, is_fragment: false, fragment_offset: 0 }));
    }

    #[test]
    fn extension_headers_are_walked_to_the_upper_layer() {
        // hop-by-hop (16 bytes), destination options (8 bytes), fragment (first of several), UDP
        let mut payload = vec![60, 1];
        payload.extend([0; 14]);
        payload.extend([44, 0, 0, 0, 0, 0, 0, 0]);
        payload.extend([17, 0, 0, 1, 0, 0, 0, 9]);
        payload.extend([0; 8]);
        let bytes = packet(0, &payload);
        assert_eq!(
            Ipv6::parse(&bytes).unwrap().upper(),
            Ok(Upper { protocol: 17, at: 40 + 32, is_fragment: true, fragment_offset: 0 })
        );
    }

    #[test]
    fn the_walk_stops_at_a_fragment_that_is_not_the_first() {
        let mut payload = vec![60, 0, 0x05, 0xa8, 0, 0, 0, 9];
        payload.extend([0; 16]); // not a destination options header, though it is named
        let bytes = packet(44, &payload);
        assert_eq!(
            Ipv6::parse(&bytes).unwrap().upper(),
            Ok(Upper { protocol: 60, at: 48, is_fragment: true, fragment_offset: 1448 })
        );
    }

    #[test]
    fn a_chain_without_end_and_one_that_leaves_the_packet_are_refused() {
        let mut endless = Vec::new();
        for _ in 0..200 {
            endless.extend([60, 0, 0, 0, 0, 0, 0, 0]);
        }
        let bytes = packet(60, &endless);
        assert_eq!(Ipv6::parse(&bytes).unwrap().upper(), Err(Malformed::BadField("IPv6 extension header chain")));
        let bytes = packet(0, &[17, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Ipv6::parse(&bytes).unwrap().upper(), Err(Malformed::Truncated));
    }
}
