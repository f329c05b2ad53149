//! Traffic selectors as peers agree on them: ranges (RFC 7296 §3.13.1).

use std::fmt;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};
use model::Selector;
use serde::{Deserialize, Serialize};

/// A range of addresses of one family, with a protocol and a range of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TrafficSelector {
    /// The first address.
    pub first: IpAddr,
    /// The last address; the same family, not below `first`.
    pub last: IpAddr,
    /// The IP protocol; 0 is any.
    pub protocol: u8,
    /// The first and the last port (for ICMP, type and code as RFC 4301 §4.4.1.1 packs them). `(0, 65535)` is
    /// any; `(65535, 0)` is OPAQUE.
    pub ports: (u16, u16),
}

impl TrafficSelector {
    /// All traffic between two addresses.
    pub const fn range(first: IpAddr, last: IpAddr) -> Self {
        Self { first, last, protocol: 0, ports: (0, u16::MAX) }
    }

    /// Whether an address with this protocol and port is in it.
    pub fn contains(&self, ip: IpAddr, protocol: u8, port: u16) -> bool {
        ip.is_ipv4() == self.first.is_ipv4()
            && (self.first..=self.last).contains(&ip)
            && (self.protocol == 0 || self.protocol == protocol)
            && (self.ports.0..=self.ports.1).contains(&port)
    }

    /// What both allow; `None` when that is nothing. It is how a responder narrows (RFC 7296 §2.9).
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        if self.first.is_ipv4() != other.first.is_ipv4() {
            return None;
        }
        let protocol = match (self.protocol, other.protocol) {
            (0, protocol) | (protocol, 0) => protocol,
            (a, b) if a == b => a,
            _ => return None,
        };
        let (first, last) = (self.first.max(other.first), self.last.min(other.last));
        let opaque = |ports: (u16, u16)| ports.0 > ports.1;
        let ports = match (opaque(self.ports), opaque(other.ports)) {
            (true, true) => self.ports,
            (true, false) if other.ports == (0, u16::MAX) => self.ports,
            (false, true) if self.ports == (0, u16::MAX) => other.ports,
            (true, false) | (false, true) => return None,
            (false, false) => {
                let ports = (self.ports.0.max(other.ports.0), self.ports.1.min(other.ports.1));
                if ports.0 > ports.1 {
                    return None;
                }
                ports
            }
        };
        (first <= last).then_some(Self { first, last, protocol, ports })
    }

    /// Whether all of `other` is in it.
    pub fn covers(&self, other: &Self) -> bool {
        self.intersect(other) == Some(*other)
    }

    /// The one prefix that it is, when it is one.
    pub fn as_net(&self) -> Option<IpNet> {
        let nets = self.nets();
        if let [net] = nets.as_slice() { Some(*net) } else { None }
    }

    /// The fewest prefixes that together are its addresses.
    pub fn nets(&self) -> Vec<IpNet> {
        match (self.first, self.last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => Ipv4Subnets::new(first, last, 0).map(IpNet::V4).collect(),
            (IpAddr::V6(first), IpAddr::V6(last)) => Ipv6Subnets::new(first, last, 0).map(IpNet::V6).collect(),
            _ => Vec::new(),
        }
    }
}

impl From<Selector> for TrafficSelector {
    fn from(selector: Selector) -> Self {
        Self {
            first: selector.net.network(),
            last: selector.net.broadcast(),
            protocol: selector.protocol,
            ports: selector.ports,
        }
    }
}

impl fmt::Display for TrafficSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_net() {
            Some(net) => Selector { net, protocol: self.protocol, ports: self.ports }.fmt(f),
            None => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn net(text: &str) -> TrafficSelector {
        Selector::net(text.parse().unwrap()).into()
    }

    #[test]
    fn a_prefix_comes_back_from_its_range() {
        assert_eq!(net("10.60.0.0/16").to_string(), "10.60.0.0/16");
        assert_eq!(net("0.0.0.0/0").as_net(), Some("0.0.0.0/0".parse().unwrap()));
        assert_eq!(net("2001:db8::/32").as_net(), Some("2001:db8::/32".parse().unwrap()));
        let odd = TrafficSelector::range("10.0.0.1".parse().unwrap(), "10.0.0.9".parse().unwrap());
        assert_eq!(odd.to_string(), "10.0.0.1-10.0.0.9");
    }

    #[test]
    fn narrowing_keeps_what_both_sides_allow() {
        let web = TrafficSelector { protocol: 6, ports: (80, 80), ..net("10.0.0.0/8") };
        let both = web.intersect(&net("10.60.0.0/16")).unwrap();
        assert_eq!(both, TrafficSelector { protocol: 6, ports: (80, 80), ..net("10.60.0.0/16") });
        assert_eq!(net("10.0.0.0/8").intersect(&net("192.168.0.0/16")), None);
        assert_eq!(net("0.0.0.0/0").intersect(&net("::/0")), None);
        assert!(net("10.0.0.0/8").covers(&both));
        assert!(!both.covers(&net("10.0.0.0/8")));
    }

    proptest! {
        #[test]
        fn an_address_is_in_the_intersection_exactly_if_it_is_in_both(
            a in any::<(u32, u8)>(), b in any::<(u32, u8)>(), ip in any::<u32>(),
        ) {
            let make = |(ip, len): (u32, u8)| -> TrafficSelector {
                Selector::net(IpNet::new(IpAddr::from(ip.to_be_bytes()), len % 33).unwrap()).into()
            };
            let (a, b, ip) = (make(a), make(b), IpAddr::from(ip.to_be_bytes()));
            let both = a.intersect(&b).is_some_and(|both| both.contains(ip, 6, 1));
            prop_assert_eq!(both, a.contains(ip, 6, 1) && b.contains(ip, 6, 1));
        }
    }
}
