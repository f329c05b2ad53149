//! Two gateways that share addresses.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use base::Secret;
use ipnet::IpNet;

use crate::Source;

/// This gateway as one of two that share addresses: one is active, the other stands by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// 1 or 2, other than the other member's.
    pub member: u8,
    /// What both members know, and nobody else.
    pub psk: Secret,
    /// Where this member listens to the other; the first is the first that is tried. As many as `peer` has.
    pub local: Vec<SocketAddr>,
    /// Where the other member listens.
    pub peer: Vec<SocketAddr>,
    /// The addresses that the active member has.
    pub shared: Vec<SharedAddress>,
    /// The higher one is active where nothing else decides.
    pub preference: u8,
    /// Whether the preferred member takes its place back when it returns.
    pub preempt: bool,
    /// How often a member says that it lives.
    pub interval: Duration,
    /// The silence after which it is taken for dead.
    pub dead_after: Duration,
    /// Where it stands.
    pub source: Option<Source>,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            member: 0,
            psk: Secret::default(),
            local: Vec::new(),
            peer: Vec::new(),
            shared: Vec::new(),
            preference: 100,
            preempt: false,
            interval: Duration::from_millis(100),
            dead_after: Duration::from_millis(500),
            source: None,
        }
    }
}

/// An address that moves between the members, with its prefix, and the device that it is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedAddress {
    /// Address and prefix length.
    pub net: IpNet,
    /// The device.
    pub device: String,
}

impl fmt::Display for SharedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%{}", self.net, self.device)
    }
}

impl FromStr for SharedAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no shared address: it is written like \"192.0.2.1/24%eth0\"");
        let (net, device) = text.split_once('%').ok_or_else(wrong)?;
        let fits = (1..16).contains(&device.len()) && device.bytes().all(|b| b.is_ascii_graphic() && b != b'/');
        let net = net.parse().ok().filter(|_| fits).ok_or_else(wrong)?;
        Ok(Self { net, device: device.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_address_names_its_prefix_and_its_device() {
        for text in ["192.0.2.1/24%eth0", "2001:db8::1/64%br-lan"] {
            assert_eq!(text.parse::<SharedAddress>().unwrap().to_string(), text);
        }
        for text in
            ["192.0.2.1/24", "192.0.2.1%eth0", "192.0.2.1/24%", "192.0.2.1/24%a/b", "192.0.2.1/24%sixteen-letters-x"]
        {
            assert!(text.parse::<SharedAddress>().is_err(), "{text}");
        }
    }
}
