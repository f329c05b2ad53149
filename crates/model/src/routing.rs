//! Several tunnels as one connection, and the routing over them: static, BGP, with BFD and probes.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use base::Secret;
use ipnet::IpNet;

use crate::{Config, Connection, Routing, Source};

/// A VPN connection as the clouds mean it: two or more tunnels that lead to the same place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vpn {
    /// Unique among the VPN connections of a configuration.
    pub name: String,
    /// Its tunnels, preferred first: names of connections, or `connection/child`. Each child has a device of its own.
    pub tunnels: Vec<String>,
    /// Which of its healthy tunnels carry traffic.
    pub mode: Mode,
    /// Prefixes that are routed through it while a tunnel is healthy.
    pub routes: Vec<IpNet>,
    /// Kernel metric of these routes; lower is preferred.
    pub metric: u32,
    /// What becomes of packets to these prefixes while no tunnel is healthy.
    pub fallback: Fallback,
    /// How the health of a tunnel is found out, besides its SAs and DPD.
    pub health: Health,
    /// Where it was written.
    pub source: Option<Source>,
}

impl Vpn {
    /// A connection with every default, to be completed by a reader or a test.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            tunnels: Vec::new(),
            mode: Mode::default(),
            routes: Vec::new(),
            metric: 0,
            fallback: Fallback::default(),
            health: Health::default(),
            source: None,
        }
    }
}

/// Which of several healthy tunnels carry traffic. Packets are accepted from all of them either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The most preferred.
    #[default]
    ActiveStandby,
    /// All, each flow over one of them (equal-cost multipath).
    ActiveActive,
}

/// What becomes of packets to a VPN connection without a healthy tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fallback {
    /// They are refused with an ICMP error, so that they do not leave in clear by a less specific route.
    #[default]
    Unreachable,
    /// There is no route: the routing table decides.
    None,
}

/// How the health of a tunnel is found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Packets to an inside address.
    pub probe: Option<Probe>,
    /// BFD with the inside address of the other end.
    pub bfd: Option<BfdTimers>,
    /// How long a tunnel that was lost must be good before it carries traffic again; longer when it flaps.
    pub hold_up: Duration,
}

impl Default for Health {
    fn default() -> Self {
        Self { probe: None, bfd: None, hold_up: Duration::from_secs(5) }
    }
}

/// Packets that ask an inside address for an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What is sent.
    pub kind: ProbeKind,
    /// One address a tunnel, in their order. Where there is none, the other address of the device's network of two
    /// hosts (such as 169.254.10.1 where ours is 169.254.10.2/30).
    pub targets: Vec<IpAddr>,
    /// Time between two of them; at least 100 ms.
    pub interval: Duration,
    /// Unanswered ones in a row after which the tunnel is not healthy; at least 1.
    pub loss: u32,
}

impl Default for Probe {
    fn default() -> Self {
        Self { kind: ProbeKind::Icmp, targets: Vec::new(), interval: Duration::from_secs(1), loss: 3 }
    }
}

/// What a probe is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// An ICMP or ICMPv6 echo request.
    Icmp,
    /// A UDP datagram to this port, which echoes it.
    Udp(u16),
}

/// The timers of a BFD session (RFC 5880 §6.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BfdTimers {
    /// Desired Min TX and Required Min RX Interval; 10 ms to 10 s.
    pub interval: Duration,
    /// Detect Mult: packets missed in a row after which the session is down; 1 to 255.
    pub multiplier: u8,
}

impl Default for BfdTimers {
    fn default() -> Self {
        Self { interval: Duration::from_millis(300), multiplier: 3 }
    }
}

/// The BGP speaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bgp {
    /// Our AS, 1 to 4,294,967,295 (RFC 6793).
    pub asn: u32,
    /// BGP Identifier (RFC 6286). `None` takes the address of the first neighbour's device.
    pub router_id: Option<Ipv4Addr>,
    /// Prefixes announced to every neighbour (`network`).
    pub networks: Vec<IpNet>,
    /// What else is announced.
    pub redistribute: Redistribute,
    /// How many equal paths carry traffic, 1 to 64.
    pub multipath: u32,
    /// Kernel metric of learnt routes.
    pub metric: u32,
    /// What becomes of packets to what was learnt over a tunnel once it is not reached any more. A prefix that covers a
    /// tunnel's peer, such as a default route, is left to the routing table.
    pub fallback: Fallback,
    /// Restart Time of graceful restart (RFC 4724): how long neighbours keep forwarding while we are gone; at most
    /// 4,095 s, zero switches it off.
    pub restart_time: Duration,
    /// Who we speak with.
    pub neighbors: Vec<Neighbor>,
    /// The prefix lists that neighbours name.
    pub prefix_lists: Vec<PrefixList>,
    /// Where it was written.
    pub source: Option<Source>,
}

impl Bgp {
    /// A speaker with every default, to be completed by a reader or a test.
    pub fn of(asn: u32) -> Self {
        Self {
            asn,
            router_id: None,
            networks: Vec::new(),
            redistribute: Redistribute::default(),
            multipath: 1,
            metric: 20,
            fallback: Fallback::default(),
            restart_time: Duration::from_secs(120),
            neighbors: Vec::new(),
            prefix_lists: Vec::new(),
            source: None,
        }
    }
}

/// What is announced besides `network`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Redistribute {
    /// The networks of this host's own interfaces, without those of tunnels.
    pub connected: bool,
    /// The static routes of VPN connections and devices.
    pub static_routes: bool,
}

/// A BGP neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbor {
    /// Its address; unique.
    pub address: IpAddr,
    /// Its AS.
    pub remote_as: u32,
    /// The tunnel that leads to it (a connection, or `connection/child`). Without one it is a neighbour like any
    /// other, which gets and gives nothing without an import and an export list (RFC 8212).
    pub tunnel: Option<String>,
    /// Our address; `None` takes the one of the tunnel's device, or what the kernel chooses.
    pub local_address: Option<IpAddr>,
    /// Our AS towards this neighbour, where it is not our own.
    pub local_as: Option<u32>,
    /// Key of TCP MD5 (RFC 2385).
    pub password: Option<Secret>,
    /// Whether only the neighbour connects.
    pub passive: bool,
    /// Time between two KEEPALIVE messages.
    pub keepalive: Duration,
    /// Hold Time offered; zero or at least 3 s.
    pub hold: Duration,
    /// Time between two attempts to connect.
    pub connect_retry: Duration,
    /// Whether the neighbour must be one hop away by its TTL (RFC 5082).
    pub ttl_security: bool,
    /// TTL of packets to it: 1 where it is on the other end of a link, more for a neighbour that is further away.
    pub ttl: Option<u8>,
    /// Whether IPv4 and IPv6 unicast routes are exchanged.
    pub families: Families,
    /// The next hop of routes of ours whose family is not that of its address; `None` takes the address of that family on
    /// the tunnel's device. Without either those are not announced.
    pub next_hop: Option<IpAddr>,
    /// Prefixes it may announce at most; then the session ends (Cease 6/1).
    pub max_prefixes: Option<u32>,
    /// The prefix list for what it announces.
    pub import: Option<String>,
    /// The prefix list for what is announced to it.
    pub export: Option<String>,
    /// LOCAL_PREF of its routes.
    pub local_preference: Option<u32>,
    /// MULTI_EXIT_DISC of what is announced to it.
    pub med: Option<u32>,
    /// How often our AS is prepended to what is announced to it, besides the once that the protocol wants; at most 16.
    pub prepend: u8,
    /// Communities added to what is announced to it: (AS, value).
    pub communities: Vec<(u16, u16)>,
    /// Large communities (RFC 8092) added to what is announced to it.
    pub large_communities: Vec<(u32, u32, u32)>,
    /// Whether a default route is announced to it.
    pub default_originate: bool,
    /// Whether the next hop of what is announced is ourselves, also to internal neighbours.
    pub next_hop_self: bool,
    /// How often our own AS may stand in its paths.
    pub allow_own_as: u8,
    /// BFD with it.
    pub bfd: Option<BfdTimers>,
    /// Where it was written.
    pub source: Option<Source>,
}

impl Neighbor {
    /// A neighbour with every default, to be completed by a reader or a test.
    pub const fn at(address: IpAddr, remote_as: u32) -> Self {
        Self {
            address,
            remote_as,
            tunnel: None,
            local_address: None,
            local_as: None,
            password: None,
            passive: false,
            keepalive: Duration::from_secs(10),
            hold: Duration::from_secs(30),
            connect_retry: Duration::from_secs(5),
            ttl_security: false,
            ttl: None,
            families: Families { ipv4: true, ipv6: false },
            next_hop: None,
            max_prefixes: None,
            import: None,
            export: None,
            local_preference: None,
            med: None,
            prepend: 0,
            communities: Vec::new(),
            large_communities: Vec::new(),
            default_originate: false,
            next_hop_self: false,
            allow_own_as: 0,
            bfd: None,
            source: None,
        }
    }
}

/// Address families of a BGP session (RFC 4760).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Families {
    /// IPv4 unicast.
    pub ipv4: bool,
    /// IPv6 unicast.
    pub ipv6: bool,
}

/// A named list of prefixes: the first rule that matches decides, and what matches none is denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixList {
    /// Unique among the lists.
    pub name: String,
    /// The rules in order.
    pub rules: Vec<PrefixRule>,
}

/// A rule of a prefix list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixRule {
    /// Whether what matches may pass.
    pub permit: bool,
    /// The network that the prefix must be in.
    pub net: IpNet,
    /// Lengths that match, both included: as long as `net` itself unless `ge` or `le` was written.
    pub lengths: (u8, u8),
}

impl PrefixRule {
    /// Whether `prefix` matches.
    pub fn matches(&self, prefix: &IpNet) -> bool {
        let (shortest, longest) = self.lengths;
        self.net.contains(prefix) && (shortest..=longest).contains(&prefix.prefix_len())
    }
}

/// One tunnel: a child with a device of its own, and the connection it belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Tunnel<'a> {
    /// The IKE peer.
    pub connection: &'a Connection,
    /// The child.
    pub child: &'a crate::Child,
    /// The device's name.
    pub device: &'a str,
    /// The device's own addresses.
    pub addresses: &'a [IpNet],
}

impl Tunnel<'_> {
    /// The address of the other end, where the device's network has exactly one other host.
    pub fn far_end(&self) -> Option<IpAddr> {
        self.addresses.iter().find_map(far_end)
    }
}

/// The one other host of a network of two.
fn far_end(own: &IpNet) -> Option<IpAddr> {
    let mut others = match own {
        IpNet::V4(net) if net.prefix_len() >= 30 => own.hosts(),
        IpNet::V6(net) if net.prefix_len() >= 126 => own.hosts(),
        IpNet::V4(_) | IpNet::V6(_) => return None,
    }
    // RFC 4291 §2.6.1: the lowest address of an IPv6 subnet is that of any router, unless the link has two (RFC 6164).
    .filter(|ip| *ip != own.addr() && !(own.prefix_len() == 126 && *ip == own.network() && own.addr().is_ipv6()));
    let first = others.next()?;
    (own.prefix_len() == 126 || others.next().is_none()).then_some(first)
}

impl Config {
    /// The tunnel of this name: of a connection with one child, or `connection/child`.
    pub fn tunnel(&self, name: &str) -> Option<Tunnel<'_>> {
        let of = |connection: &str| self.connections.iter().find(|c| c.name == connection);
        let (connection, child) = match of(name) {
            Some(connection) => match connection.children.as_slice() {
                [only] => (connection, only),
                _ => return None,
            },
            None => {
                let (connection, child) = name.rsplit_once('/')?;
                let connection = of(connection)?;
                (connection, connection.children.iter().find(|c| c.name == child)?)
            }
        };
        let Routing::Device { name: device, addresses, .. } = &child.routing else { return None };
        Some(Tunnel { connection, child, device, addresses })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_far_end_is_the_other_host_of_a_network_of_two() {
        let far = |own: &str| far_end(&own.parse().unwrap()).map(|ip| ip.to_string());
        assert_eq!(far("169.254.10.2/30").as_deref(), Some("169.254.10.1"));
        assert_eq!(far("169.254.10.1/30").as_deref(), Some("169.254.10.2"));
        assert_eq!(far("10.0.0.0/31").as_deref(), Some("10.0.0.1"));
        assert_eq!(far("fd00::2/126").as_deref(), Some("fd00::1"));
        assert_eq!(far("fd00::2/127").as_deref(), Some("fd00::3"));
        assert_eq!(far("10.0.0.1/24"), None);
        assert_eq!(far("10.0.0.1/32"), None);
    }

    #[test]
    fn a_prefix_rule_matches_lengths_within_its_network() {
        let rule = PrefixRule { permit: true, net: "10.0.0.0/8".parse().unwrap(), lengths: (16, 24) };
        let matches = |prefix: &str| rule.matches(&prefix.parse().unwrap());
        assert!(matches("10.1.0.0/16") && matches("10.1.2.0/24"));
        assert!(!matches("10.0.0.0/8") && !matches("10.1.2.128/25") && !matches("11.0.0.0/16"));
    }
}
