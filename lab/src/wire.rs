//! The wire check: what is allowed between two gateways, and what would be a leak.
//!
//! Allowed are IKE (RFC 7296 §2.23, ports 500 and 4500), ESP in UDP (RFC 3948), plain ESP
//! (protocol 50), NAT keep-alives, ARP, neighbour discovery, multicast membership on the link, and
//! ICMP errors about the former.
//! Everything else is a leak, and so is every frame that carries the payload of our pings or an
//! address of the joined networks in an IP header.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::Serialize;

use crate::capture::Frame;

/// What a frame is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Class {
    /// A message of IKE on port 500, or behind the non-ESP marker on port 4500.
    Ike,
    /// ESP in UDP.
    EspInUdp(Flow),
    /// IP protocol 50.
    Esp(Flow),
    /// The single octet 0xff on port 4500.
    Keepalive,
    /// ARP, neighbour discovery, multicast membership.
    Neighbour,
    /// An ICMP error that quotes one of the above.
    IcmpError,
    /// A later fragment of UDP or ESP.
    Fragment,
    /// Nothing that should be there; what it is.
    Leak(String),
}

/// The SA that an ESP packet belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    /// The outer source.
    pub from: IpAddr,
    /// The SPI.
    pub spi: u32,
    /// The sequence number's low 32 bits.
    pub sequence: u32,
}

/// What must not be seen between the gateways.
#[derive(Clone, Debug, Default)]
pub struct Inner {
    /// The networks behind the gateways.
    pub networks: Vec<IpNet>,
    /// A payload that travels only inside of the tunnel.
    pub pattern: Vec<u8>,
}

/// Sorts one Ethernet frame.
pub fn classify(frame: &[u8], inner: &Inner) -> Class {
    if !inner.pattern.is_empty() && frame.windows(inner.pattern.len()).any(|bytes| bytes == inner.pattern) {
        return Class::Leak(format!("{}: the payload of a ping, in clear", outline(frame)));
    }
    let leak = || Class::Leak(outline(frame));
    let Some((header, packet)) = frame.split_first_chunk::<14>() else { return leak() };
    match [header[12], header[13]] {
        [0x08, 0x06] => Class::Neighbour,
        [0x08, 0x00] | [0x86, 0xdd] => match Ip::read(packet) {
            Some(ip) => classify_ip(&ip, inner).unwrap_or_else(leak),
            None => leak(),
        },
        _ => leak(),
    }
}

fn classify_ip(ip: &Ip<'_>, inner: &Inner) -> Option<Class> {
    // Looked at before the addresses: a translator further on may rewrite those of a later fragment
    // while it waits in our socket, because the kernel shares its bytes.
    if ip.later_fragment && matches!(ip.protocol, 17 | 50) {
        return Some(Class::Fragment);
    }
    if ip.later_fragment
        || [ip.from, ip.to].iter().any(|address| inner.networks.iter().any(|net| net.contains(address)))
    {
        return None;
    }
    match ip.protocol {
        17 => classify_udp(ip),
        50 => Some(Class::Esp(flow(ip.from, ip.payload)?)),
        1 => {
            // RFC 792: destination unreachable, source quench, redirect, time exceeded, parameter problem.
            let (head, quoted) = ip.payload.split_first_chunk::<8>()?;
            matches!(head[0], 3 | 4 | 5 | 11 | 12).then(|| quoted_class(quoted, inner)).flatten()
        }
        58 => {
            let (head, quoted) = ip.payload.split_first_chunk::<8>()?;
            match head[0] {
                1..=4 => quoted_class(quoted, inner),
                130..=137 | 143 => Some(Class::Neighbour),
                _ => None,
            }
        }
        // IGMP (RFC 3376) and its like stay on the link.
        2 if matches!(ip.to, IpAddr::V4(to) if to.octets()[..3] == [224, 0, 0]) => Some(Class::Neighbour),
        // Hop-by-hop options stand before multicast listener reports (RFC 3810 §5).
        0 if ip.from.is_ipv6() && ip.payload.first() == Some(&58) => Some(Class::Neighbour),
        _ => None,
    }
}

fn quoted_class(quoted: &[u8], inner: &Inner) -> Option<Class> {
    let ip = Ip::read(quoted)?;
    if [ip.from, ip.to].iter().any(|address| inner.networks.iter().any(|net| net.contains(address))) {
        return None;
    }
    matches!(ip.protocol, 17 | 50).then_some(Class::IcmpError)
}

fn classify_udp(ip: &Ip<'_>) -> Option<Class> {
    let (head, data) = ip.payload.split_first_chunk::<8>()?;
    let ports = [u16::from_be_bytes([head[0], head[1]]), u16::from_be_bytes([head[2], head[3]])];
    if ports.contains(&4500) {
        // RFC 3948 §2: one octet 0xff is a keep-alive; four zero octets stand before IKE.
        return match data {
            [0xff] => Some(Class::Keepalive),
            [0, 0, 0, 0, ..] => Some(Class::Ike),
            esp => Some(Class::EspInUdp(flow(ip.from, esp)?)),
        };
    }
    ports.contains(&500).then_some(Class::Ike)
}

fn flow(from: IpAddr, esp: &[u8]) -> Option<Flow> {
    let (head, _) = esp.split_first_chunk::<8>()?;
    let [a, b, c, d, e, f, g, h] = *head;
    Some(Flow { from, spi: u32::from_be_bytes([a, b, c, d]), sequence: u32::from_be_bytes([e, f, g, h]) })
}

struct Ip<'a> {
    from: IpAddr,
    to: IpAddr,
    protocol: u8,
    later_fragment: bool,
    payload: &'a [u8],
}

impl<'a> Ip<'a> {
    fn read(packet: &'a [u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => {
                let head = packet.first_chunk::<20>()?;
                let header_len = usize::from(head[0] & 15) * 4;
                let total = usize::from(u16::from_be_bytes([head[2], head[3]])).min(packet.len());
                // A super-packet above 64 KB has a total length of 0; Ethernet pads short ones.
                let end = if total < header_len { packet.len() } else { total };
                let address = |at: usize| Ipv4Addr::new(head[at], head[at + 1], head[at + 2], head[at + 3]);
                Some(Self {
                    from: address(12).into(),
                    to: address(16).into(),
                    protocol: head[9],
                    later_fragment: u16::from_be_bytes([head[6], head[7]]) & 0x1fff != 0,
                    payload: packet.get(header_len..end)?,
                })
            }
            6 => {
                let (head, payload) = packet.split_first_chunk::<40>()?;
                let address = |at: usize| {
                    let mut octets = [0; 16];
                    octets.copy_from_slice(&head[at..at + 16]);
                    IpAddr::from(Ipv6Addr::from(octets))
                };
                let (mut protocol, mut payload, mut later_fragment) = (head[6], payload, false);
                if protocol == 44 {
                    let (fragment, rest) = payload.split_first_chunk::<8>()?;
                    protocol = fragment[0];
                    later_fragment = u16::from_be_bytes([fragment[2], fragment[3]]) & 0xfff8 != 0;
                    payload = rest;
                }
                Some(Self { from: address(8), to: address(24), protocol, later_fragment, payload })
            }
            _ => None,
        }
    }
}

/// A frame in a few words, for whoever looks for the leak.
fn outline(frame: &[u8]) -> String {
    let Some((header, packet)) = frame.split_first_chunk::<14>() else { return "a frame of a few bytes".into() };
    let kind = u16::from_be_bytes([header[12], header[13]]);
    let Some(ip) = Ip::read(packet).filter(|_| matches!(kind, 0x0800 | 0x86dd)) else {
        return format!("ethertype {kind:#06x}, {} bytes", frame.len());
    };
    let ports = match ip.payload {
        [a, b, c, d, ..] if matches!(ip.protocol, 6 | 17) => {
            format!(" ports {} > {}", u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]))
        }
        [kind, code, ..] if matches!(ip.protocol, 1 | 58) => format!(" type {kind} code {code}"),
        _ => String::new(),
    };
    format!("{} > {} protocol {}{ports}, {} bytes", ip.from, ip.to, ip.protocol, frame.len())
}

/// What a capture held.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Tally {
    /// Messages of IKE.
    pub ike: u32,
    /// Packets of ESP in UDP.
    pub esp_in_udp: u32,
    /// Packets of IP protocol 50.
    pub esp: u32,
    /// NAT keep-alives.
    pub keepalives: u32,
    /// ARP and neighbour discovery.
    pub neighbour: u32,
    /// ICMP errors about IKE or ESP.
    pub icmp_errors: u32,
    /// Later fragments.
    pub fragments: u32,
    /// Frames that must not be there.
    pub leaks: u32,
    /// The first few of them, each once.
    pub leak_samples: Vec<String>,
    /// How many SAs were used, both directions together: more than two are a rekey.
    pub spis: usize,
}

impl Tally {
    /// Counts what passed one interface, and the leaks on all of them: a router sees what it
    /// forwards on two, and what it cannot forward on one.
    pub fn of(frames: &[Frame], interface: usize, inner: &Inner) -> Self {
        let mut tally = Self::default();
        let mut spis = BTreeSet::new();
        for frame in frames {
            let class = classify(&frame.bytes, inner);
            if frame.interface != interface && !matches!(class, Class::Leak(_)) {
                continue;
            }
            match class {
                Class::Ike => tally.ike += 1,
                Class::EspInUdp(flow) => {
                    tally.esp_in_udp += 1;
                    spis.insert((flow.from, flow.spi));
                }
                Class::Esp(flow) => {
                    tally.esp += 1;
                    spis.insert((flow.from, flow.spi));
                }
                Class::Keepalive => tally.keepalives += 1,
                Class::Neighbour => tally.neighbour += 1,
                Class::IcmpError => tally.icmp_errors += 1,
                Class::Fragment => tally.fragments += 1,
                Class::Leak(what) => {
                    tally.leaks += 1;
                    if tally.leak_samples.len() < 5 && !tally.leak_samples.contains(&what) {
                        tally.leak_samples.push(what);
                    }
                }
            }
        }
        tally.spis = spis.len();
        tally
    }

    /// Frames of any kind.
    pub fn frames(&self) -> u32 {
        self.ike
            + self.esp_in_udp
            + self.esp
            + self.keepalives
            + self.neighbour
            + self.icmp_errors
            + self.fragments
            + self.leaks
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [
            (self.ike, "IKE"),
            (self.esp_in_udp, "ESP in UDP"),
            (self.esp, "plain ESP"),
            (self.keepalives, "NAT keep-alive"),
            (self.neighbour, "ARP/ND"),
            (self.icmp_errors, "ICMP error"),
            (self.fragments, "fragment"),
            (self.leaks, "other"),
        ];
        let words: Vec<String> =
            counts.iter().filter(|(count, _)| *count > 0).map(|(count, name)| format!("{count} {name}")).collect();
        write!(f, "{}", if words.is_empty() { "nothing".into() } else { words.join(", ") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CGW: [u8; 4] = [3, 37, 222, 142];
    const VGW: [u8; 4] = [43, 200, 61, 196];

    fn ipv4(protocol: u8, from: [u8; 4], to: [u8; 4], payload: &[u8]) -> Vec<u8> {
        let total = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
        let mut packet = vec![0x45, 0, total[0], total[1], 0, 0, 0, 0, 64, protocol, 0, 0];
        packet.extend(from);
        packet.extend(to);
        packet.extend(payload);
        packet
    }

    fn frame(packet: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 12];
        bytes.extend([8, 0]);
        bytes.extend(packet);
        bytes
    }

    fn udp(from: u16, to: u16, data: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(from.to_be_bytes());
        bytes.extend(to.to_be_bytes());
        bytes.extend(u16::try_from(8 + data.len()).unwrap().to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(data);
        bytes
    }

    fn inner() -> Inner {
        Inner {
            networks: vec!["10.60.0.0/16".parse().unwrap(), "10.50.0.0/16".parse().unwrap()],
            pattern: b"simplon-simplon-".to_vec(),
        }
    }

    fn of(packet: &[u8]) -> Class {
        classify(&frame(packet), &inner())
    }

    #[test]
    fn ike_and_esp_in_all_their_wrappings_are_allowed() {
        let esp = [0, 0, 1, 0, 0, 0, 0, 7, 1, 2, 3];
        let flow = Flow { from: CGW.into(), spi: 256, sequence: 7 };
        assert_eq!(of(&ipv4(17, CGW, VGW, &udp(500, 500, &[1; 28]))), Class::Ike);
        assert_eq!(of(&ipv4(17, CGW, VGW, &udp(1027, 4500, &[0, 0, 0, 0, 9, 9]))), Class::Ike);
        assert_eq!(of(&ipv4(17, CGW, VGW, &udp(4500, 1027, &esp))), Class::EspInUdp(flow));
        assert_eq!(of(&ipv4(17, CGW, VGW, &udp(4500, 4500, &[0xff]))), Class::Keepalive);
        assert_eq!(of(&ipv4(50, CGW, VGW, &esp)), Class::Esp(flow));
    }

    #[test]
    fn a_ping_between_the_networks_is_a_leak_and_so_is_any_other_protocol() {
        let echo = ipv4(1, [10, 60, 1, 100], [10, 50, 1, 100], &[8, 0, 0, 0, 0, 0, 0, 0]);
        assert!(matches!(of(&echo), Class::Leak(_)));
        assert!(matches!(of(&ipv4(1, CGW, VGW, &[8, 0, 0, 0, 0, 0, 0, 0])), Class::Leak(_)));
        assert!(matches!(of(&ipv4(6, CGW, VGW, &[0; 20])), Class::Leak(_)));
        assert!(matches!(of(&ipv4(17, CGW, VGW, &udp(53, 1030, &[1]))), Class::Leak(_)));
        assert!(matches!(of(&ipv4(4, CGW, VGW, &echo)), Class::Leak(_)));
    }

    #[test]
    fn the_payload_of_a_ping_is_a_leak_in_whatever_it_is_wrapped() {
        let mut esp = vec![0, 0, 1, 0, 0, 0, 0, 7];
        esp.extend(b"xsimplon-simplon-simplon-");
        assert!(matches!(of(&ipv4(50, CGW, VGW, &esp)), Class::Leak(_)));
    }

    #[test]
    fn an_inner_address_on_the_outside_is_a_leak_even_as_esp() {
        assert!(matches!(of(&ipv4(50, [10, 60, 0, 100], VGW, &[0; 16])), Class::Leak(_)));
    }

    #[test]
    fn an_icmp_error_is_judged_by_what_it_quotes() {
        let quote = |packet: &[u8]| {
            let mut icmp = vec![3, 4, 0, 0, 0, 0, 5, 120];
            icmp.extend(packet);
            ipv4(1, VGW, CGW, &icmp)
        };
        assert_eq!(of(&quote(&ipv4(17, CGW, VGW, &udp(4500, 4500, &[1; 16])))), Class::IcmpError);
        let inside = ipv4(17, [10, 60, 1, 100], [10, 50, 1, 100], &udp(1, 2, &[1; 16]));
        assert!(matches!(of(&quote(&inside)), Class::Leak(_)));
    }

    #[test]
    fn no_frame_however_short_makes_it_panic() {
        let whole = frame(&ipv4(17, CGW, VGW, &udp(4500, 4500, &[1; 16])));
        for len in 0..whole.len() {
            let _ = classify(&whole[..len], &inner());
        }
        let mut v6 = vec![0; 12];
        v6.extend([0x86, 0xdd, 0x60]);
        v6.resize(70, 44);
        for len in 0..v6.len() {
            let _ = classify(&v6[..len], &inner());
        }
    }

    #[test]
    fn a_tally_counts_one_interface_and_names_each_leak_once() {
        let at = std::time::Duration::ZERO;
        let esp = |spi: u8| frame(&ipv4(50, CGW, VGW, &[0, 0, 1, spi, 0, 0, 0, 1]));
        let tcp = frame(&ipv4(6, CGW, VGW, &[0; 20]));
        let on = |interface, bytes: &Vec<u8>| Frame { at, interface, bytes: bytes.clone() };
        let frames = [on(1, &esp(1)), on(1, &esp(2)), on(2, &esp(3)), on(1, &tcp), on(2, &tcp)];
        let tally = Tally::of(&frames, 1, &inner());
        assert_eq!((tally.esp, tally.spis, tally.leaks, tally.leak_samples.len()), (2, 2, 2, 1));
        assert_eq!(tally.to_string(), "2 plain ESP, 2 other");
    }
}
