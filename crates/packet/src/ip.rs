//! A packet of either version.

use std::net::IpAddr;

use crate::{Ipv4, Ipv6, Malformed, Tos, ipv4};

/// A whole IP packet.
#[derive(Clone, Copy, Debug)]
pub enum Ip<'a> {
    /// Version 4.
    V4(Ipv4<'a>),
    /// Version 6.
    V6(Ipv6<'a>),
}

impl<'a> Ip<'a> {
    /// Reads the version from the first four bits, then as [`Ipv4::parse`] or [`Ipv6::parse`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        match bytes.first().ok_or(Malformed::Truncated)? >> 4 {
            4 => Ipv4::parse(bytes).map(Self::V4),
            6 => Ipv6::parse(bytes).map(Self::V6),
            _ => Err(Malformed::BadField("IP version")),
        }
    }

    /// The packet, header and all, without what followed its end.
    pub const fn bytes(self) -> &'a [u8] {
        match self {
            Self::V4(ip) => ip.bytes(),
            Self::V6(ip) => ip.bytes(),
        }
    }

    /// Who sent it.
    pub fn source(self) -> IpAddr {
        match self {
            Self::V4(ip) => ip.source().into(),
            Self::V6(ip) => ip.source().into(),
        }
    }

    /// Who shall have it.
    pub fn destination(self) -> IpAddr {
        match self {
            Self::V4(ip) => ip.destination().into(),
            Self::V6(ip) => ip.destination().into(),
        }
    }

    /// DSCP and ECN.
    pub fn tos(self) -> Tos {
        match self {
            Self::V4(ip) => ip.tos(),
            Self::V6(ip) => ip.tos(),
        }
    }

    /// Protocol of the upper layer and its bytes; `None` for the bytes of a fragment that is not
    /// the first, whose payload has no such header.
    pub fn upper(self) -> Result<(u8, Option<&'a [u8]>), Malformed> {
        match self {
            Self::V4(ip) => Ok((ip.protocol(), (ip.fragment_offset() == 0).then(|| ip.payload()))),
            Self::V6(ip) => {
                let upper = ip.upper()?;
                Ok((upper.protocol, (upper.fragment_offset == 0).then(|| &ip.bytes()[upper.at..])))
            }
        }
    }
}

/// Writes DSCP and ECN in place, and the IPv4 header checksum with them. A packet that is not IP is
/// left as it is.
pub fn set_tos(packet: &mut [u8], tos: Tos) {
    match Ip::parse(packet) {
        Ok(Ip::V4(_)) => {
            let word = u16::from_be_bytes([packet[0], tos.0]);
            ipv4::replace_word(packet, 0, word);
        }
        Ok(Ip::V6(_)) => {
            packet[0] = packet[0] & 0xf0 | tos.0 >> 4;
            packet[1] = packet[1] & 0x0f | tos.0 << 4;
        }
        Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;
    use crate::build;

    #[test]
    fn the_traffic_class_is_rewritten_in_place() {
        let (a, b) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let mut packet = build::ipv4(a, b, 17, Tos(0), &[0; 8]).unwrap();
        set_tos(&mut packet, Tos(0xb9));
        let ip = Ipv4::parse(&packet).unwrap();
        assert!(ip.tos() == Tos(0xb9) && ip.checksum_is_right());

        let mut packet = build::ipv6(Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST, 17, Tos(0), &[0; 8]).unwrap();
        packet[1] |= 0x0a;
        set_tos(&mut packet, Tos(0xb9));
        let ip = Ipv6::parse(&packet).unwrap();
        assert!(ip.tos() == Tos(0xb9) && ip.flow_label() == 0xa0000);
    }

    #[test]
    fn other_versions_are_refused() {
        for version in (0..16).filter(|v| ![4, 6].contains(v)) {
            assert!(Ip::parse(&[version << 4; 60]).is_err());
        }
        assert_eq!(Ip::parse(&[]).unwrap_err(), Malformed::Truncated);
    }
}
