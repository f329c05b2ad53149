//! Routes, and what the kernel would do with a packet to some address.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_DUMP};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteNextHop, RouteNextHopFlags,
    RouteProtocol, RouteScope, RouteType, RouteVia,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::nexthop::GroupId;
use super::{CREATE, Netlink, PROTOCOL, REPLACE, TABLE_MAIN, family_of, is, removed};
use crate::error::Tried;

pub(super) const FAMILIES: [AddressFamily; 2] = [AddressFamily::Inet, AddressFamily::Inet6];

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

/// One of the ways that a route may lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextHop {
    /// The index of the device; `None` leaves it to the kernel, which then looks for the gateway.
    pub device: Option<u32>,
    /// The next router, of either family; `None` for what is directly behind the device.
    pub gateway: Option<IpAddr>,
    /// Its share of the flows, 1 to 256, where there are several ways.
    pub weight: u16,
    /// The gateway is behind the device, though no prefix of the device says so: a peer at the other end of a tunnel.
    pub onlink: bool,
}

impl NextHop {
    /// What is directly behind a device.
    pub const fn through(device: u32) -> Self {
        Self { device: Some(device), gateway: None, weight: 1, onlink: false }
    }

    /// A router, which the kernel finds behind one of its devices.
    pub const fn via(gateway: IpAddr) -> Self {
        Self { device: None, gateway: Some(gateway), weight: 1, onlink: false }
    }
}

/// Where a route stands. The kernel may have several to one place (`ip route append`); we make one at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The routing table; [`TABLE_MAIN`] unless rules say otherwise.
    pub table: u32,
    /// Where to; bits beyond the prefix are zero.
    pub destination: IpNet,
    /// The lower of two routes to the same prefix is taken.
    pub metric: u32,
}

/// What the kernel makes of an IPv6 route without a metric (`IP6_RT_PRIO_USER`).
const METRIC_V6: u32 = 1_024;

impl Place {
    /// The place as the kernel will tell it: without bits beyond the prefix, and for IPv6 metric 1,024 in place of 0.
    pub fn new(table: u32, destination: IpNet, metric: u32) -> Self {
        let metric = if metric == 0 && destination.addr().is_ipv6() { METRIC_V6 } else { metric };
        Self { table, destination: destination.trunc(), metric }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in table {}", self.destination, self.table)?;
        if self.metric == 0 { Ok(()) } else { write!(f, " with metric {}", self.metric) }
    }
}

/// A route.
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
    /// The ways it leads: each flow takes one of them. None for kinds other than [`RouteKind::Unicast`]. The ways of one
    /// IPv6 route must lead through different devices or gateways; without a gateway they must be devices without
    /// neighbour discovery, as TUN devices are.
    pub hops: Vec<NextHop>,
    /// The group of next hops of ours that has the ways ([`Bulk::set_group`](super::Bulk::set_group)).
    pub group: Option<GroupId>,
    /// The source address of packets that choose none.
    pub source: Option<IpAddr>,
    /// The MTU of this route in bytes, where it is smaller than the device's.
    pub mtu: Option<u32>,
}

impl Route {
    /// A route in the main table to what is behind a device.
    pub fn through(device: u32, destination: IpNet) -> Self {
        Self { hops: vec![NextHop::through(device)], ..Self::without_device(RouteKind::Unicast, destination) }
    }

    /// A route in the main table that needs no device.
    pub fn without_device(kind: RouteKind, destination: IpNet) -> Self {
        let destination = destination.trunc();
        Self { destination, table: TABLE_MAIN, metric: 0, kind, hops: Vec::new(), group: None, source: None, mtu: None }
    }

    /// Where it stands.
    pub fn place(&self) -> Place {
        Place::new(self.table, self.destination, self.metric)
    }

    fn only_hop(&self) -> Option<NextHop> {
        if let [only] = self.hops.as_slice() { Some(*only) } else { None }
    }
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
    /// Whether the address is one of this host.
    pub is_local: bool,
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
        let default = |r: &Route| r.destination.prefix_len() == 0 && r.table == TABLE_MAIN && !r.hops.is_empty();
        let Some(route) = routes.filter(default).min_by_key(|route| route.metric) else { return Ok(None) };
        let Some((device, hop)) = route.hops.first().and_then(|hop| Some((hop.device?, hop))) else { return Ok(None) };
        let gateway = hop.gateway;
        let source = match (route.source, gateway) {
            (Some(source), _) => Some(source),
            (None, Some(gateway)) => Some(self.hop(gateway, Some(device)).await?.source),
            (None, None) => self.first_address(device, ipv6).await?,
        };
        Ok(source.map(|source| DefaultRoute { device, gateway, source }))
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

pub(super) fn describe(route: &Route) -> String {
    let mut text = route.place().to_string();
    for hop in &route.hops {
        text += &hop.device.map_or_else(String::new, |device| format!(" through device {device}"));
        text += &hop.gateway.map_or_else(String::new, |gateway| format!(" via {gateway}"));
    }
    text
}

/// The gateway of a way without one, where the kernel insists on one: it takes several ways to an IPv6 prefix only
/// when each has a gateway (`ip6_route_multipath_add`). A device without neighbour discovery looks at it no further.
const BEHIND_DEVICE: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, PROTOCOL as u16);

/// The message to add a route.
pub(super) fn route_message(route: &Route) -> RouteMessage {
    let mut message = place_message(&route.place());
    let header = &mut message.header;
    header.kind = match route.kind {
        RouteKind::Unicast => RouteType::Unicast,
        RouteKind::Unreachable => RouteType::Unreachable,
        RouteKind::Blackhole => RouteType::BlackHole,
        RouteKind::Throw => RouteType::Throw,
    };
    let v4 = route.destination.addr().is_ipv4();
    let on_link = route.kind == RouteKind::Unicast && route.hops.iter().all(|hop| hop.gateway.is_none());
    header.scope = if on_link && v4 { RouteScope::Link } else { RouteScope::Universe };
    let attributes = &mut message.attributes;
    if let Some(group) = route.group {
        attributes.push(RouteAttribute::NhId(group.number()));
    } else if let Some(hop) = route.only_hop() {
        attributes.extend(hop.device.map(RouteAttribute::Oif));
        attributes.extend(hop.gateway.map(|gateway| gateway_attribute(gateway, v4)));
        header.flags = if hop.onlink { RouteFlags::Onlink } else { RouteFlags::empty() };
    } else if !route.hops.is_empty() {
        attributes.push(RouteAttribute::MultiPath(route.hops.iter().map(|hop| next_hop(*hop, v4)).collect()));
    }
    attributes.extend(route.source.map(|ip| RouteAttribute::PrefSource(ip.into())));
    attributes.extend(route.mtu.map(|mtu| RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)])));
    message
}

/// The message to remove whatever we have at a place.
pub(super) fn place_message(place: &Place) -> RouteMessage {
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.address_family = family_of(place.destination.addr());
    header.destination_prefix_length = place.destination.prefix_len();
    header.protocol = RouteProtocol::from(PROTOCOL);
    // RT_TABLE_UNSPEC: the attribute has the number, which may exceed eight bits.
    header.table = RouteHeader::RT_TABLE_UNSPEC;
    // RT_SCOPE_NOWHERE and RTN_UNSPEC, to a removal: of any.
    header.scope = RouteScope::NoWhere;
    header.kind = RouteType::Unspec;
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Table(place.table));
    attributes.push(RouteAttribute::Destination(place.destination.addr().into()));
    attributes.extend(Some(place.metric).filter(|metric| *metric != 0).map(RouteAttribute::Priority));
    message
}

fn gateway_attribute(gateway: IpAddr, v4: bool) -> RouteAttribute {
    match gateway {
        // RFC 8950: an IPv4 route may lead to an IPv6 router.
        IpAddr::V6(ip) if v4 => RouteAttribute::Via(RouteVia::Inet6(ip)),
        ip => RouteAttribute::Gateway(ip.into()),
    }
}

fn next_hop(hop: NextHop, v4: bool) -> RouteNextHop {
    let mut message = RouteNextHop::default();
    message.interface_index = hop.device.unwrap_or(0);
    // rtnh_hops: the weight less one.
    message.hops = u8::try_from(hop.weight.saturating_sub(1)).unwrap_or(u8::MAX);
    message.flags = if hop.onlink { RouteNextHopFlags::Onlink } else { RouteNextHopFlags::empty() };
    let gateway = hop.gateway.or((!v4).then_some(BEHIND_DEVICE.into()));
    message.attributes.extend(gateway.map(|gateway| gateway_attribute(gateway, v4)));
    message
}

fn hop_from(message: &RouteNextHop) -> NextHop {
    let gateway = message.attributes.iter().find_map(gateway_of).filter(|ip| *ip != IpAddr::from(BEHIND_DEVICE));
    NextHop {
        device: Some(message.interface_index).filter(|index| *index != 0),
        gateway,
        weight: u16::from(message.hops) + 1,
        onlink: message.flags.contains(RouteNextHopFlags::Onlink),
    }
}

fn gateway_of(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(ip) => ip_of(ip),
        RouteAttribute::Via(RouteVia::Inet6(ip)) => Some((*ip).into()),
        RouteAttribute::Via(RouteVia::Inet(ip)) => Some((*ip).into()),
        _ => None,
    }
}

/// A route that we could have made; nothing for other kinds.
pub(super) fn route_of(message: &RouteMessage) -> Option<Route> {
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
    let mut only = NextHop { device: None, gateway: None, weight: 1, onlink: false };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => route.destination = net(ip_of(to)?)?,
            RouteAttribute::Table(table) => route.table = *table,
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::NhId(number) => route.group = GroupId::of(*number),
            RouteAttribute::Oif(device) => only.device = Some(*device),
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => only.gateway = gateway_of(attribute),
            RouteAttribute::MultiPath(hops) => route.hops = hops.iter().map(hop_from).collect(),
            RouteAttribute::PrefSource(ip) => route.source = ip_of(ip),
            RouteAttribute::Metrics(metrics) => route.mtu = mtu_of(metrics),
            _ => {}
        }
    }
    // The kernel names the loopback device for IPv6 routes that need none.
    if kind != RouteKind::Unicast {
        route.hops.clear();
    } else if route.hops.is_empty() {
        only.onlink = message.header.flags.contains(RouteFlags::Onlink);
        route.hops.push(only);
    }
    Some(route)
}

fn hop_of(message: &RouteMessage) -> Option<Hop> {
    let (mut device, mut gateway, mut source, mut mtu) = (None, None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => device = Some(*index),
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => gateway = gateway_of(attribute),
            RouteAttribute::PrefSource(ip) => source = ip_of(ip),
            RouteAttribute::Metrics(metrics) => mtu = mtu_of(metrics),
            _ => {}
        }
    }
    let is_local = message.header.kind == RouteType::Local;
    Some(Hop { device: device?, gateway, source: source?, mtu, is_local })
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
