//! An IPv4 header (RFC 791 §3.1).

use std::net::Ipv4Addr;

use crate::{Malformed, Tos, checksum};

/// Bytes of a header without options.
pub(crate) const MIN_HEADER: usize = 20;
const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;

/// A whole IPv4 packet, trimmed to its total length.
#[derive(Clone, Copy, Debug)]
pub struct Ipv4<'a>(&'a [u8]);

impl<'a> Ipv4<'a> {
    /// Checks version, header length and total length. Bytes behind the total length are ignored:
    /// ESP may carry traffic-flow padding there (RFC 4303 §2.7). The checksum is not looked at.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let header = bytes.first_chunk::<MIN_HEADER>().ok_or(Malformed::Truncated)?;
        if header[0] >> 4 != 4 {
            return Err(Malformed::BadField("IP version"));
        }
        let header_len = usize::from(header[0] & 15) * 4;
        let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if header_len < MIN_HEADER || total < header_len {
            return Err(Malformed::BadLength);
        }
        bytes.get(..total).map(Self).ok_or(Malformed::Truncated)
    }

    /// The packet, header and all.
    pub const fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// Bytes of header, options included: 20..=60.
    pub fn header_len(self) -> usize {
        usize::from(self.0[0] & 15) * 4
    }

    /// What the header is followed by.
    pub fn payload(self) -> &'a [u8] {
        &self.0[self.header_len()..]
    }

    /// The raw options with their padding.
    pub fn options(self) -> &'a [u8] {
        &self.0[MIN_HEADER..self.header_len()]
    }

    /// DSCP and ECN.
    pub fn tos(self) -> Tos {
        Tos(self.0[1])
    }

    /// The identification field.
    pub fn id(self) -> u16 {
        self.word(4)
    }

    /// Whether routers must not fragment it.
    pub fn dont_fragment(self) -> bool {
        self.word(6) & DONT_FRAGMENT != 0
    }

    /// Whether more fragments follow.
    pub fn more_fragments(self) -> bool {
        self.word(6) & MORE_FRAGMENTS != 0
    }

    /// Where this fragment's payload belongs in the whole, in bytes: a multiple of 8.
    pub fn fragment_offset(self) -> usize {
        usize::from(self.word(6) & OFFSET) * 8
    }

    /// Whether it is a part of a packet, the first part included.
    pub fn is_fragment(self) -> bool {
        self.word(6) & (MORE_FRAGMENTS | OFFSET) != 0
    }

    /// Hops left.
    pub fn ttl(self) -> u8 {
        self.0[8]
    }

    /// The protocol of the payload.
    pub fn protocol(self) -> u8 {
        self.0[9]
    }

    /// Who sent it.
    pub fn source(self) -> Ipv4Addr {
        Ipv4Addr::new(self.0[12], self.0[13], self.0[14], self.0[15])
    }

    /// Who shall have it.
    pub fn destination(self) -> Ipv4Addr {
        Ipv4Addr::new(self.0[16], self.0[17], self.0[18], self.0[19])
    }

    /// Whether the header checksum is right.
    pub fn checksum_is_right(self) -> bool {
        checksum::of(&self.0[..self.header_len()]) == 0
    }

    fn word(self, at: usize) -> u16 {
        u16::from_be_bytes([self.0[at], self.0[at + 1]])
    }
}

/// Replaces the word at `at` and brings the header checksum along. `header` is at least
/// [`MIN_HEADER`] long.
pub(crate) fn replace_word(header: &mut [u8], at: usize, new: u16) {
    let old = u16::from_be_bytes([header[at], header[at + 1]]);
    let sum = u16::from_be_bytes([header[10], header[11]]);
    header[at..at + 2].copy_from_slice(&new.to_be_bytes());
    header[10..12].copy_from_slice(&checksum::update(sum, old, new).to_be_bytes());
}

/// Computes the header checksum anew. `header` is the whole header.
pub(crate) fn write_checksum(header: &mut [u8]) {
    header[10..12].fill(0);
    let sum = checksum::of(header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The header of RFC 1071 tutorials: a UDP packet of 115 bytes from 192.168.0.1 to 192.168.0.199.
    const HEADER: [u8; 20] = [
        0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0x00, 0x01, 0xc0, 0xa8,
        0x00, 0xc7,
    ];

    fn packet() -> Vec<u8> {
        let mut bytes = HEADER.to_vec();
        bytes.resize(0x73, 0);
        bytes
    }

    #[test]
    fn a_header_is_read() {
        let bytes = packet();
        let ip = Ipv4::parse(&bytes).unwrap();
        assert_eq!(ip.source(), Ipv4Addr::new(192, 168, 0, 1));
        assert_eq!(ip.destination(), Ipv4Addr::new(192, 168, 0, 199));
        assert_eq!((ip.protocol(), ip.ttl(), ip.header_len(), ip.payload().len()), (17, 64, 20, 95));
        assert!(ip.dont_fragment() && !ip.is_fragment() && ip.checksum_is_right());
    }

    #[test]
    fn bytes_behind_the_total_length_are_ignored() {
        let mut bytes = packet();
        bytes.extend([0xff; 9]);
        assert_eq!(Ipv4::parse(&bytes).unwrap().bytes().len(), 0x73);
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        let bytes = packet();
        assert_eq!(Ipv4::parse(&bytes[..0x72]).unwrap_err(), Malformed::Truncated);
        assert_eq!(Ipv4::parse(&bytes[..19]).unwrap_err(), Malformed::Truncated);
        let mut short = packet();
        short[0] = 0x44;
        assert_eq!(Ipv4::parse(&short).unwrap_err(), Malformed::BadLength);
        let mut tiny = packet();
        tiny[3] = 19;
        assert_eq!(Ipv4::parse(&tiny).unwrap_err(), Malformed::BadLength);
    }

    #[test]
    fn a_replaced_word_keeps_the_checksum_right() {
        let mut bytes = packet();
        replace_word(&mut bytes, 6, 0);
        assert!(Ipv4::parse(&bytes).unwrap().checksum_is_right());
        assert!(!Ipv4::parse(&bytes).unwrap().dont_fragment());
    }
}
