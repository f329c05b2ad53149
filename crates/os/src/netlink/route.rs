//! Routes and rules, and what the kernel would do with a packet to some address.

use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_DUMP};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{CREATE, Netlink, PROTOCOL, REPLACE, TABLE_MAIN, family_of, is, removed};
use crate::error::Tried;

const FAMILIES: [AddressFamily; 2] = [AddressFamily::Inet, AddressFamily::Inet6];

/// What a route does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteKind {
    /// Sends it through a device.
    Unicast,
    /// Drops it and tells the sender (ICMP unreachable).
    Unreachable,
    /// Drops it silently.
    Blackhole,
    /// Leaves this table; the next rule decides.
    Throw,
}

/// A route of ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Where to. Bits beyond the prefix do not count.
    pub destination: IpNet,
    /// The routing table; [`TABLE_MAIN`] unless rules say otherwise.
    pub table: u32,
    /// The lower of two routes to the same prefix is taken. 0 leaves it to the kernel: 0 for IPv4, 1,024 for IPv6.
    pub metric: u32,
    /// What it does.
    pub kind: RouteKind,
    /// The index of the device.
    pub device: Option<u32>,
    /// The next router; `None` for what is directly behind the device.
    pub gateway: Option<IpAddr>,
    /// The source address of packets that choose none.
    pub source: Option<IpAddr>,
    /// The MTU of this route in bytes, where it is smaller than the device's.
    pub mtu: Option<u32>,
}

impl Route {
    /// A route in the main table to what is behind a device.
    pub fn through(device: u32, destination: IpNet) -> Self {
        Self { device: Some(device), ..Self::without_device(RouteKind::Unicast, destination) }
    }

    /// A route in the main table that needs no device.
    pub fn without_device(kind: RouteKind, destination: IpNet) -> Self {
        let destination = destination.trunc();
        Self { destination, table: TABLE_MAIN, metric: 0, kind, device: None, gateway: None, source: None, mtu: None }
    }
}

/// A rule of ours: which packets look into which table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// Whether it is for IPv6.
    pub ipv6: bool,
    /// Rules are asked in the order of this number; 32,766 is the main table's.
    pub priority: u32,
    /// Where to look.
    pub table: u32,
    /// Packets from here only.
    pub from: Option<IpNet>,
    /// Packets to here only.
    pub to: Option<IpNet>,
    /// Packets with this firewall mark only.
    pub mark: Option<u32>,
    /// The packets that do *not* match, instead of those that do.
    pub invert: bool,
}

/// What the kernel would do with a packet to some address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The device it leaves by.
    pub device: u32,
    /// The next router, if there is one.
    pub gateway: Option<IpAddr>,
    /// The source address it gets.
    pub source: IpAddr,
    /// The path MTU that the kernel has learnt or was told for this destination, in bytes.
    pub mtu: Option<u32>,
}

/// The default route, and the address we have on its link: what `%defaultroute` in an `ipsec.conf` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefaultRoute {
    /// The device.
    pub device: u32,
    /// The next router, if there is one.
    pub gateway: Option<IpAddr>,
    /// Our address.
    pub source: IpAddr,
}

impl Netlink {
    /// Adds a route.
    ///
    /// # Errors
    /// `AlreadyExists` when there is one to the same prefix with the same table and metric, whoever made it.
    pub async fn add_route(&self, route: &Route) -> io::Result<()> {
        let request = RouteNetlinkMessage::NewRoute(route_message(route));
        self.request(request, CREATE).await.tried(|| format!("add the route {}", describe(route)))?;
        Ok(())
    }

    /// Adds a route, in place of the one to the same prefix with the same table and metric if there is one, whoever
    /// made it.
    pub async fn replace_route(&self, route: &Route) -> io::Result<()> {
        let request = RouteNetlinkMessage::NewRoute(route_message(route));
        self.request(request, REPLACE).await.tried(|| format!("set the route {}", describe(route)))?;
        Ok(())
    }

    /// Removes a route of ours; false when it is not there, also because its device went away.
    pub async fn remove_route(&self, route: &Route) -> io::Result<bool> {
        let request = RouteNetlinkMessage::DelRoute(route_message(route));
        removed(self.request(request, NLM_F_ACK).await).tried(|| format!("remove the route {}", describe(route)))
    }

    /// The routes with our protocol number, in all tables: at the start, what an earlier run left behind.
    pub async fn own_routes(&self) -> io::Result<Vec<Route>> {
        let mut all = Vec::new();
        for family in FAMILIES {
            let answers = self.dump_routes(family).await?;
            let ours = answers.iter().filter(|m| m.header.protocol == RouteProtocol::from(PROTOCOL));
            all.extend(ours.filter_map(route_of));
        }
        Ok(all)
    }

    /// Adds a rule.
    ///
    /// # Errors
    /// `AlreadyExists` when there is the same already.
    pub async fn add_rule(&self, rule: &Rule) -> io::Result<()> {
        let request = RouteNetlinkMessage::NewRule(rule_message(rule));
        self.request(request, CREATE).await.tried(|| format!("add the routing rule {rule:?}"))?;
        Ok(())
    }

    /// Removes a rule of ours; false when it is not there.
    pub async fn remove_rule(&self, rule: &Rule) -> io::Result<bool> {
        let request = RouteNetlinkMessage::DelRule(rule_message(rule));
        removed(self.request(request, NLM_F_ACK).await).tried(|| format!("remove the routing rule {rule:?}"))
    }

    /// The rules with our protocol number.
    pub async fn own_rules(&self) -> io::Result<Vec<Rule>> {
        let mut all = Vec::new();
        for family in FAMILIES {
            let mut message = RuleMessage::default();
            message.header.family = family;
            let request = RouteNetlinkMessage::GetRule(message);
            let answers = self.request(request, NLM_F_DUMP).await.tried(|| "list the routing rules".into())?;
            all.extend(answers.iter().filter_map(own_rule_of));
        }
        Ok(all)
    }

    /// What the kernel would do with a packet of this host to `remote`.
    ///
    /// # Errors
    /// `NetworkUnreachable` when there is no route.
    pub async fn hop_to(&self, remote: IpAddr) -> io::Result<Hop> {
        self.hop(remote, None).await.tried(|| format!("find a route to {remote}"))
    }

    /// The address of ours that packets to `remote` leave from.
    ///
    /// # Errors
    /// `NetworkUnreachable` when there is no route.
    pub async fn source_address_for(&self, remote: IpAddr) -> io::Result<IpAddr> {
        Ok(self.hop_to(remote).await?.source)
    }

    /// The path MTU to `remote` in bytes: what the kernel has learnt for it, else the MTU of the device.
    pub async fn path_mtu(&self, remote: IpAddr) -> io::Result<u32> {
        let hop = self.hop_to(remote).await?;
        if let Some(mtu) = hop.mtu {
            return Ok(mtu);
        }
        let links = self.links().await?;
        let link = links.iter().find(|link| link.index == hop.device);
        link.map(|link| link.mtu).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The default route of the main table with the lowest metric, if there is one that leaves by a device and we
    /// have an address there.
    pub async fn default_route(&self, ipv6: bool) -> io::Result<Option<DefaultRoute>> {
        let family = if ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
        let answers = self.dump_routes(family).await?;
        let routes = answers.iter().filter_map(route_of);
        let default = |r: &Route| r.destination.prefix_len() == 0 && r.table == TABLE_MAIN && r.device.is_some();
        let Some(route) = routes.filter(default).min_by_key(|route| route.metric) else { return Ok(None) };
        let Some(device) = route.device else { return Ok(None) };
        let source = match (route.source, route.gateway) {
            (Some(source), _) => Some(source),
            (None, Some(gateway)) => Some(self.hop(gateway, Some(device)).await?.source),
            (None, None) => self.first_address(device, ipv6).await?,
        };
        Ok(source.map(|source| DefaultRoute { device, gateway: route.gateway, source }))
    }

    async fn first_address(&self, device: u32, ipv6: bool) -> io::Result<Option<IpAddr>> {
        let all = self.addresses().await?;
        let mut here = all.iter().filter(|a| a.index == device).map(|a| a.net.addr());
        Ok(here.find(|ip| match ip {
            IpAddr::V4(_) => !ipv6,
            IpAddr::V6(ip) => ipv6 && !ip.is_unicast_link_local(),
        }))
    }

    async fn hop(&self, remote: IpAddr, device: Option<u32>) -> io::Result<Hop> {
        let mut message = RouteMessage::default();
        message.header.address_family = family_of(remote);
        message.header.destination_prefix_length = if remote.is_ipv4() { 32 } else { 128 };
        message.attributes.push(RouteAttribute::Destination(remote.into()));
        message.attributes.extend(device.map(RouteAttribute::Oif));
        let answers = self.request(RouteNetlinkMessage::GetRoute(message), 0).await?;
        let found = answers.iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewRoute(message) => hop_of(message),
            _ => None,
        });
        found.ok_or_else(|| io::ErrorKind::NetworkUnreachable.into())
    }

    async fn dump_routes(&self, family: AddressFamily) -> io::Result<Vec<RouteMessage>> {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        let request = RouteNetlinkMessage::GetRoute(message);
        let answers = match self.request(request, NLM_F_DUMP).await {
            Err(e) if is(&e, libc::EOPNOTSUPP) || is(&e, libc::EAFNOSUPPORT) => Vec::new(), // a kernel without IPv6
            answers => answers.tried(|| "list the routes".into())?,
        };
        let routes = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewRoute(message) => Some(message),
            _ => None,
        });
        Ok(routes.collect())
    }
}

fn describe(route: &Route) -> String {
    let mut text = format!("{} in table {}", route.destination, route.table);
    if let Some(device) = route.device {
        text += &format!(" through device {device}");
    }
    if let Some(gateway) = route.gateway {
        text += &format!(" via {gateway}");
    }
    text
}

fn route_message(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    let destination = route.destination.trunc();
    let header = &mut message.header;
    header.address_family = family_of(destination.addr());
    header.destination_prefix_length = destination.prefix_len();
    header.protocol = RouteProtocol::from(PROTOCOL);
    // RT_TABLE_UNSPEC: the attribute has the number, which may exceed eight bits.
    header.table = RouteHeader::RT_TABLE_UNSPEC;
    header.kind = match route.kind {
        RouteKind::Unicast => RouteType::Unicast,
        RouteKind::Unreachable => RouteType::Unreachable,
        RouteKind::Blackhole => RouteType::BlackHole,
        RouteKind::Throw => RouteType::Throw,
    };
    let on_link = route.kind == RouteKind::Unicast && route.gateway.is_none() && destination.addr().is_ipv4();
    header.scope = if on_link { RouteScope::Link } else { RouteScope::Universe };
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Table(route.table));
    attributes.push(RouteAttribute::Destination(destination.addr().into()));
    attributes.extend(Some(route.metric).filter(|metric| *metric != 0).map(RouteAttribute::Priority));
    attributes.extend(route.device.map(RouteAttribute::Oif));
    attributes.extend(route.gateway.map(|ip| RouteAttribute::Gateway(ip.into())));
    attributes.extend(route.source.map(|ip| RouteAttribute::PrefSource(ip.into())));
    attributes.extend(route.mtu.map(|mtu| RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)])));
    message
}

/// A route that we could have made; nothing for other kinds.
fn route_of(message: &RouteMessage) -> Option<Route> {
    let kind = match message.header.kind {
        RouteType::Unicast => RouteKind::Unicast,
        RouteType::Unreachable => RouteKind::Unreachable,
        RouteType::BlackHole => RouteKind::Blackhole,
        RouteType::Throw => RouteKind::Throw,
        _ => return None,
    };
    let any: IpAddr = match message.header.address_family {
        AddressFamily::Inet => [0; 4].into(),
        AddressFamily::Inet6 => [0; 16].into(),
        _ => return None,
    };
    let net = |ip| IpNet::new(ip, message.header.destination_prefix_length).ok();
    let mut route = Route { table: message.header.table.into(), ..Route::without_device(kind, net(any)?) };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => route.destination = net(ip_of(to)?)?,
            RouteAttribute::Table(table) => route.table = *table,
            RouteAttribute::Priority(metric) => route.metric = *metric,
            // The kernel names the loopback device for IPv6 routes that need none.
            RouteAttribute::Oif(device) if kind == RouteKind::Unicast => route.device = Some(*device),
            RouteAttribute::Gateway(ip) => route.gateway = ip_of(ip),
            RouteAttribute::PrefSource(ip) => route.source = ip_of(ip),
            RouteAttribute::Metrics(metrics) => route.mtu = mtu_of(metrics),
            _ => {}
        }
    }
    Some(route)
}

fn hop_of(message: &RouteMessage) -> Option<Hop> {
    let (mut device, mut gateway, mut source, mut mtu) = (None, None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => device = Some(*index),
            RouteAttribute::Gateway(ip) => gateway = ip_of(ip),
            RouteAttribute::PrefSource(ip) => source = ip_of(ip),
            RouteAttribute::Metrics(metrics) => mtu = mtu_of(metrics),
            _ => {}
        }
    }
    Some(Hop { device: device?, gateway, source: source?, mtu })
}

fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}

fn mtu_of(metrics: &[RouteMetric]) -> Option<u32> {
    metrics.iter().find_map(|metric| if let RouteMetric::Mtu(mtu) = metric { Some(*mtu) } else { None })
}

fn rule_message(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    let header = &mut message.header;
    header.family = if rule.ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
    header.action = RuleAction::ToTable;
    header.flags = if rule.invert { RuleFlags::Invert } else { RuleFlags::empty() };
    header.src_len = rule.from.map_or(0, |net| net.prefix_len());
    header.dst_len = rule.to.map_or(0, |net| net.prefix_len());
    let attributes = &mut message.attributes;
    attributes.push(RuleAttribute::Priority(rule.priority));
    attributes.push(RuleAttribute::Table(rule.table));
    attributes.push(RuleAttribute::Protocol(RouteProtocol::from(PROTOCOL)));
    attributes.extend(rule.from.map(|net| RuleAttribute::Source(net.network())));
    attributes.extend(rule.to.map(|net| RuleAttribute::Destination(net.network())));
    attributes.extend(rule.mark.map(RuleAttribute::FwMark));
    message
}

fn own_rule_of(message: &RouteNetlinkMessage) -> Option<Rule> {
    let RouteNetlinkMessage::NewRule(message) = message else { return None };
    let header = &message.header;
    let ours = RuleAttribute::Protocol(RouteProtocol::from(PROTOCOL));
    if header.action != RuleAction::ToTable || !message.attributes.contains(&ours) {
        return None;
    }
    let mut rule = Rule {
        ipv6: header.family == AddressFamily::Inet6,
        priority: 0,
        table: header.table.into(),
        from: None,
        to: None,
        mark: None,
        invert: header.flags.contains(RuleFlags::Invert),
    };
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(priority) => rule.priority = *priority,
            RuleAttribute::Table(table) => rule.table = *table,
            RuleAttribute::Source(ip) => rule.from = IpNet::new(*ip, header.src_len).ok(),
            RuleAttribute::Destination(ip) => rule.to = IpNet::new(*ip, header.dst_len).ok(),
            RuleAttribute::FwMark(mark) => rule.mark = Some(*mark),
            _ => {}
        }
    }
    Some(rule)
}
