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

/// A number that is the same for all packets of one flow, to share flows out by. Only the headers need to be there, and
/// fragments of one packet go together. What is no IP packet has 0.
pub fn spread(packet: &[u8]) -> u32 {
    let ports_at = match packet {
        [first, _, _, _, _, _, fragment @ .., _] if first >> 4 == 4 && packet.len() >= 20 => {
            // RFC 791 §3.1: whatever is more than "don't fragment" makes it a fragment.
            let is_whole = fragment[0] & !0x40 == 0 && fragment[1] == 0;
            (is_whole && has_ports(packet[9])).then_some(usize::from(first & 0x0f) * 4)
        }
        [first, ..] if first >> 4 == 6 && packet.len() >= 40 => has_ports(packet[6]).then_some(40),
        _ => return 0,
    };
    let addresses = if packet[0] >> 4 == 4 { &packet[12..20] } else { &packet[8..40] };
    let ports = ports_at.and_then(|at| packet.get(at..at + 4)).unwrap_or_default();
    let words = addresses.chunks_exact(4).chain(ports.chunks_exact(4));
    let mixed = words.fold(0_u32, |mixed, word| {
        let word = u32::from_ne_bytes([word[0], word[1], word[2], word[3]]);
        // Fibonacci hashing: an odd multiplier carries every bit upwards, the turn brings it down again.
        (mixed ^ word).wrapping_mul(0x9e37_79b1).rotate_left(15)
    });
    mixed ^ mixed >> 16
}

const fn has_ports(protocol: u8) -> bool {
    matches!(protocol, protocol::TCP | protocol::UDP)
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

    #[test]
    fn packets_of_a_flow_go_together_and_flows_apart() {
        let packet = |port: u16, len: usize| {
            let to = "10.0.0.2:80".parse().unwrap();
            build::udp((std::net::Ipv4Addr::new(10, 0, 0, 1), port).into(), to, &vec![7; len]).unwrap()
        };
        assert_eq!(spread(&packet(5, 10)), spread(&packet(5, 900)));
        assert_eq!(spread(&packet(5, 10)[..28]), spread(&packet(5, 10)), "headers suffice");
        // Of a thousand flows each of four gets its share.
        let mut shares = [0; 4];
        (1..=1000).for_each(|port| shares[spread(&packet(port, 10)) as usize % 4] += 1);
        assert!(shares.iter().all(|share| (150..350).contains(share)), "{shares:?}");
        let six = |port: u16| {
            let (from, to) = (format!("[fd00::1]:{port}"), "[fd00::2]:80".parse().unwrap());
            spread(&build::udp(from.parse().unwrap(), to, b"x").unwrap())
        };
        assert_ne!(six(1), six(2));
        // Fragments have no ports, but for the first; they go where it goes.
        let (mut first, mut second) = (packet(5, 10), packet(9, 10));
        (first[6], second[7]) = (0x20, 3);
        assert_eq!(spread(&first), spread(&second));
        assert_eq!([spread(b""), spread(b"E"), spread(&[0x60; 39])], [0; 3]);
    }
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
