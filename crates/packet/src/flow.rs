//! What a packet belongs to: the fields that a traffic selector can name (RFC 4301 §4.4.1.1).

use std::net::IpAddr;

use crate::{Ip, Malformed, Udp, protocol};

/// Addresses, protocol and ports of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Who sent it.
    pub source: IpAddr,
    /// Who shall have it.
    pub destination: IpAddr,
    /// Protocol of the upper layer, behind IPv6 extension headers.
    pub protocol: u8,
    /// What the upper layer has for ports.
    pub ports: Ports,
}

/// What the upper layer has for ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ports {
    /// Ports of TCP, UDP, SCTP, DCCP or UDP-Lite.
    Known {
        /// The sender's port.
        source: u16,
        /// The receiver's port.
        destination: u16,
    },
    /// Type (high byte) and code (low byte) of ICMP or ICMPv6, and the type of a mobility header.
    Message(u16),
    /// The protocol has no ports.
    Without,
    /// The protocol has ports but the packet does not show them: a fragment that is not the first,
    /// or one too short. RFC 4301 calls it OPAQUE.
    Opaque,
}

impl FlowKey {
    /// Reads the fields of a packet.
    pub fn of(packet: &[u8]) -> Result<Self, Malformed> {
        Self::of_ip(Ip::parse(packet)?)
    }

    /// Reads the fields of a packet that was looked at already.
    pub fn of_ip(ip: Ip<'_>) -> Result<Self, Malformed> {
        let (protocol, upper) = ip.upper()?;
        let ports = Ports::of(protocol, upper);
        Ok(Self { source: ip.source(), destination: ip.destination(), protocol, ports })
    }

    /// The flow of the answers. Types of ICMP have no other direction and stay.
    pub const fn reversed(self) -> Self {
        let ports = match self.ports {
            Ports::Known { source, destination } => Ports::Known { source: destination, destination: source },
            Ports::Message(_) | Ports::Without | Ports::Opaque => self.ports,
        };
        Self { source: self.destination, destination: self.source, protocol: self.protocol, ports }
    }
}

impl Ports {
    fn of(protocol: u8, upper: Option<&[u8]>) -> Self {
        match protocol {
            // SCTP (132), DCCP (33) and UDP-Lite (136) begin with the same two ports.
            protocol::TCP | protocol::UDP | 132 | 33 | 136 => match upper.map(Udp::ports) {
                Some(Ok((source, destination))) => Self::Known { source, destination },
                Some(Err(_)) | None => Self::Opaque,
            },
            protocol::ICMP | protocol::ICMPV6 => match upper {
                Some(&[kind, code, ..]) => Self::Message(u16::from_be_bytes([kind, code])),
                Some(_) | None => Self::Opaque,
            },
            // RFC 4301 §4.4.1.1: the type of a mobility header is its third byte.
            protocol::MOBILITY => match upper {
                Some(&[_, _, kind, ..]) => Self::Message(u16::from_be_bytes([kind, 0])),
                Some(_) | None => Self::Opaque,
            },
            _ => Self::Without,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::{Tos, build};

    #[test]
    fn ports_types_and_nothing_are_told_apart() {
        let (a, b): (SocketAddr, SocketAddr) = ("10.0.0.1:1234".parse().unwrap(), "10.0.0.2:53".parse().unwrap());
        let key = FlowKey::of(&build::udp(a, b, b"?").unwrap()).unwrap();
        assert_eq!((key.source, key.destination, key.protocol), (a.ip(), b.ip(), 17));
        assert_eq!(key.ports, Ports::Known { source: 1234, destination: 53 });
        assert_eq!(key.reversed().reversed(), key);
        assert_eq!(key.reversed().ports, Ports::Known { source: 53, destination: 1234 });

        let ping = build::echo_request(a.ip(), b.ip(), 1, 1, b"").unwrap();
        assert_eq!(FlowKey::of(&ping).unwrap().ports, Ports::Message(0x0800));

        let gre = build::ip(a.ip(), b.ip(), 47, Tos(0), &[0; 8]).unwrap();
        assert_eq!(FlowKey::of(&gre).unwrap().ports, Ports::Without);
    }

    #[test]
    fn a_later_fragment_has_opaque_ports() {
        let mut packet = build::udp("10.0.0.1:1".parse().unwrap(), "10.0.0.2:2".parse().unwrap(), b"x").unwrap();
        packet[6..8].copy_from_slice(&[0, 9]);
        assert_eq!(FlowKey::of(&packet).unwrap().ports, Ports::Opaque);
    }
}
