//! Which traffic is meant.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Traffic by prefix, protocol and port as a configuration writes it (RFC 4301 §4.4.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Selector {
    /// The addresses.
    pub net: IpNet,
    /// The IP protocol; 0 is any.
    pub protocol: u8,
    /// The ports, first and last; `0..=65535` is any.
    pub ports: (u16, u16),
}

impl Selector {
    /// All traffic of a prefix.
    pub const fn net(net: IpNet) -> Self {
        Self { net, protocol: 0, ports: (0, u16::MAX) }
    }

    /// Whether it covers every address of its family, as route-based tunnels negotiate.
    pub fn is_everything(&self) -> bool {
        self.net.prefix_len() == 0 && self.protocol == 0 && self.ports == (0, u16::MAX)
    }

    /// Whether an address with this protocol and port is meant.
    pub fn contains(&self, ip: IpAddr, protocol: u8, port: u16) -> bool {
        self.net.contains(&ip)
            && (self.protocol == 0 || self.protocol == protocol)
            && (self.ports.0..=self.ports.1).contains(&port)
    }
}

impl From<IpNet> for Selector {
    fn from(net: IpNet) -> Self {
        Self::net(net)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.net)?;
        match (self.protocol, self.ports) {
            (0, (0, u16::MAX)) => Ok(()),
            (protocol, (0, u16::MAX)) => write!(f, "[{protocol}]"),
            (protocol, (first, last)) if first == last => write!(f, "[{protocol}/{first}]"),
            (protocol, (first, last)) => write!(f, "[{protocol}/{first}-{last}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_means_its_prefix_protocol_and_ports() {
        let web = Selector { protocol: 6, ports: (80, 81), ..Selector::net("10.1.0.0/16".parse().unwrap()) };
        let ip = "10.1.2.3".parse().unwrap();
        assert!(web.contains(ip, 6, 81));
        assert!(!web.contains(ip, 6, 82));
        assert!(!web.contains(ip, 17, 80));
        assert!(!web.contains("10.2.0.1".parse().unwrap(), 6, 80));
        assert_eq!(web.to_string(), "10.1.0.0/16[6/80-81]");
    }
}
