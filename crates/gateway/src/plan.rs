//! Which policies, devices, routes and rules a set of connections asks for, and the changes that lead from one such
//! plan to another.
//!
//! Policy-based children share one TUN device, [`SHARED_DEVICE`]; a route-based child has one of its own. A route that
//! covers the outer address of a peer, as 0.0.0.0/0 does, would swallow the tunnel's own packets: it goes to a table
//! of ours ([`OWN_TABLE`]) that is asked first and throws those packets, and traffic between our own networks, back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use esp::Policy;
use ipnet::IpNet;
use model::{Connection, GatewayOptions, Routing};
use sa::{ChildLabel, ChildSuite, Path};

use crate::mtu;
use crate::output::{Device, DeviceChange, Output, PolicyChange, Route, RouteChange, Rule, Via};

/// The TUN device of all policy-based children.
pub const SHARED_DEVICE: &str = "simplon0";
/// The routing table for routes that cover a peer.
pub const OWN_TABLE: u32 = 83;
/// The place of the rule that asks [`OWN_TABLE`], before the main table.
pub const OWN_PRIORITY: u32 = 220;

/// One connection and what is known about it.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// The connection.
    pub connection: &'a Connection,
    /// The peer's outer address, where it is known.
    pub remote: Option<IpAddr>,
    /// The MTU of the path to the peer, in bytes.
    pub outer_mtu: u16,
    /// Suite and path of the newest SA of each child that has one, by the child's name.
    pub sas: BTreeMap<Arc<str>, (ChildSuite, Path)>,
}

impl Wanted<'_> {
    /// The outer addresses of the peer, as configured, resolved or seen.
    pub(crate) fn peers(&self) -> impl Iterator<Item = IpAddr> {
        self.remote.into_iter().chain(self.sas.values().map(|(_, path)| path.remote.ip()))
    }
}

/// Where a route stands: its destination, its table and its metric. The kernel has one route for each.
type Place = (IpNet, Option<u32>, u32);

fn place_of(route: &Route) -> Place {
    (route.destination, route.table, route.metric)
}

/// What the world outside must be like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    devices: BTreeMap<Arc<str>, Device>,
    policies: BTreeMap<ChildLabel, Policy>,
    routes: BTreeMap<Place, Route>,
    rules: BTreeSet<Rule>,
}

impl Plan {
    /// The plan for these connections. `own` are the addresses of this host: one inside a child's local selectors
    /// becomes the preferred source of its routes, so that the gateway itself can reach the other side. `routed` are
    /// the routes that routing asks for besides; their table is chosen here.
    pub fn of(options: &GatewayOptions, wanted: &[Wanted<'_>], own: &[IpAddr], routed: &[Route]) -> Self {
        let mut plan = Self::default();
        for one in wanted {
            for child in &one.connection.children {
                plan.add_child(options, one, child, own);
            }
        }
        if options.install_routes {
            routed.iter().for_each(|route| plan.add_route(Route { table: options.route_table, ..route.clone() }));
        }
        plan.keep_peers_out(options, wanted);
        plan
    }

    /// The device of this name.
    pub fn device(&self, name: &str) -> Option<&Device> {
        self.devices.get(name)
    }

    /// The devices, by name.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.values()
    }

    /// The policies, by label.
    pub fn policies(&self) -> impl Iterator<Item = &Policy> {
        self.policies.values()
    }

    /// The routes.
    pub fn routes(&self) -> impl Iterator<Item = &Route> {
        self.routes.values()
    }

    fn add_child(&mut self, options: &GatewayOptions, one: &Wanted<'_>, child: &model::Child, own: &[IpAddr]) {
        let (device, addresses, destinations): (Arc<str>, _, Vec<IpNet>) = match &child.routing {
            Routing::Policy => (SHARED_DEVICE.into(), vec![], child.remote.iter().map(|s| s.net.trunc()).collect()),
            Routing::Device { name, addresses, routes, .. } => {
                (name.as_str().into(), addresses.clone(), routes.iter().map(IpNet::trunc).collect())
            }
        };
        let sa = one.sas.get(child.name.as_str()).copied();
        let mtu = mtu::of_device(child, one.connection.encapsulation, one.outer_mtu, sa);
        let entry = self.devices.entry(device.clone());
        // Several children share a device: it takes what the largest of them takes, and the rest is refused by policy.
        let known = entry.or_insert_with(|| Device { name: device.clone(), addresses, mtu });
        known.mtu = known.mtu.max(mtu);
        let policy = Policy::of(one.connection.name.as_str().into(), child);
        self.policies.insert(policy.label.clone(), policy);
        if options.install_routes {
            // A route that covers everything would also take the answers to a peer that is not known yet: it waits
            // until there is an SA.
            let is_known = one.peers().next().is_some();
            for destination in destinations.into_iter().filter(|net| is_known || net.prefix_len() > 0) {
                let source = preferred_source(child, destination, own);
                let via = Via::device(device.clone());
                self.add_route(Route { destination, via, table: options.route_table, metric: 0, source });
            }
        }
    }

    /// Two children may lead to the same prefix (two protocols, or two local networks): one route serves both.
    fn add_route(&mut self, route: Route) {
        let known = self.routes.entry(place_of(&route)).or_insert_with(|| route.clone());
        if known.via == route.via && known.source.is_none() {
            known.source = route.source;
        }
    }

    /// Moves every route that covers a peer into a table of ours, with exceptions for the peers and our own networks.
    fn keep_peers_out(&mut self, options: &GatewayOptions, wanted: &[Wanted<'_>]) {
        let peers: BTreeSet<IpAddr> = wanted.iter().flat_map(Wanted::peers).collect();
        let covers =
            |net: &IpNet| net.prefix_len() == 0 || peers.range(net.network()..=net.broadcast()).next().is_some();
        let places: Vec<Place> = self.routes.keys().filter(|(net, ..)| covers(net)).copied().collect();
        for place in places {
            let Some(route) = self.routes.remove(&place) else { continue };
            let table = options.route_table.unwrap_or(OWN_TABLE);
            let mut keep_out = |destination: IpNet| {
                if destination != route.destination && route.destination.contains(&destination) {
                    let via = Via::Throw;
                    let exception = Route { destination, via, table: Some(table), metric: 0, source: None };
                    self.routes.insert(place_of(&exception), exception);
                }
            };
            peers.iter().for_each(|peer| keep_out(IpNet::from(*peer)));
            let own_nets = wanted.iter().flat_map(|one| one.connection.children.iter()).flat_map(|child| &child.local);
            own_nets.filter(|s| s.net.prefix_len() > 0).for_each(|s| keep_out(s.net.trunc()));
            if options.route_table.is_none() {
                let ipv6 = route.destination.addr().is_ipv6();
                self.rules.insert(Rule { ipv6, priority: OWN_PRIORITY, table: OWN_TABLE });
            }
            let route = Route { table: Some(table), ..route };
            self.routes.insert(place_of(&route), route);
        }
    }

    /// The changes that make the world as `next` wants it, in an order in which no packet leaves in clear: what
    /// leads packets into a tunnel comes last and goes first.
    pub fn changes_to(&self, next: &Self) -> Vec<Output> {
        let mut out = Vec::new();
        let added: Vec<&Route> =
            next.routes.iter().filter(|(place, route)| self.routes.get(place) != Some(route)).map(|(_, r)| r).collect();
        // A route that only changes is replaced by its successor.
        let removed: Vec<&Route> =
            self.routes.iter().filter(|(place, _)| !next.routes.contains_key(place)).map(|(_, r)| r).collect();
        for device in next.devices.values() {
            match self.devices.get(&device.name) {
                None => out.push(Output::Device(DeviceChange::Create(device.clone()))),
                Some(known) if known != device => {
                    out.push(Output::Device(DeviceChange::Configure(device.clone())));
                }
                Some(_) => {}
            }
        }
        for policy in next.policies.values() {
            if self.policies.get(&policy.label) != Some(policy) {
                out.push(Output::Policy(PolicyChange::Install(policy.clone())));
            }
        }
        // Exceptions first: a route that covers everything must not come before them.
        let (throws, into): (Vec<&Route>, Vec<&Route>) = added.into_iter().partition(|r| r.via == Via::Throw);
        out.extend(throws.into_iter().chain(into).map(|route| Output::Route(RouteChange::Add(route.clone()))));
        out.extend(next.rules.difference(&self.rules).map(|rule| Output::Route(RouteChange::AddRule(*rule))));
        out.extend(self.rules.difference(&next.rules).map(|rule| Output::Route(RouteChange::RemoveRule(*rule))));
        let (throws, into): (Vec<&Route>, Vec<&Route>) = removed.into_iter().partition(|r| r.via == Via::Throw);
        out.extend(into.into_iter().chain(throws).map(|route| Output::Route(RouteChange::Remove(route.clone()))));
        for label in self.policies.keys().filter(|label| !next.policies.contains_key(*label)) {
            out.push(Output::Policy(PolicyChange::Remove(label.clone())));
        }
        for name in self.devices.keys().filter(|name| !next.devices.contains_key(*name)) {
            out.push(Output::Device(DeviceChange::Remove(name.clone())));
        }
        out
    }
}

/// An address of ours inside the child's local selectors, or on its device, of the destination's family.
fn preferred_source(child: &model::Child, destination: IpNet, own: &[IpAddr]) -> Option<IpAddr> {
    let same_family = |ip: &IpAddr| ip.is_ipv4() == destination.addr().is_ipv4();
    let narrow = child.local.iter().filter(|selector| selector.net.prefix_len() > 0);
    let mut inside = narrow.flat_map(|selector| own.iter().filter(|ip| selector.net.contains(*ip)));
    if let Some(ip) = inside.find(|ip| same_family(ip)) {
        return Some(*ip);
    }
    match &child.routing {
        Routing::Policy => None,
        Routing::Device { addresses, .. } => addresses.iter().map(IpNet::addr).find(same_family),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Address, Child, Selector};

    fn connection(name: &str, remote: &str, traffic: (&str, &str)) -> Connection {
        let mut connection = Connection::named(name);
        connection.remote.address = Address::Ip(remote.parse().unwrap());
        let mut child = Child::named(name);
        child.local = vec![Selector::net(traffic.0.parse().unwrap())];
        child.remote = vec![Selector::net(traffic.1.parse().unwrap())];
        connection.children = vec![child];
        connection
    }

    fn plan(connections: &[Connection], own: &[&str]) -> Plan {
        let wanted: Vec<_> = connections
            .iter()
            .map(|connection| Wanted {
                connection,
                remote: connection.remote.address.ip(),
                outer_mtu: 1500,
                sas: BTreeMap::new(),
            })
            .collect();
        let own: Vec<IpAddr> = own.iter().map(|ip| ip.parse().unwrap()).collect();
        Plan::of(&GatewayOptions::default(), &wanted, &own, &[])
    }

    fn route(destination: &str, via: Via, table: Option<u32>) -> Route {
        Route { destination: destination.parse().unwrap(), via, table, metric: 0, source: None }
    }

    #[test]
    fn a_policy_is_installed_before_the_route_that_leads_to_it_and_removed_after() {
        let full = plan(&[connection("a", "192.0.2.1", ("10.1.0.0/16", "10.2.0.0/16"))], &[]);
        let kinds = |outputs: &[Output]| -> Vec<&str> {
            outputs
                .iter()
                .map(|output| match output {
                    Output::Device(_) => "device",
                    Output::Policy(_) => "policy",
                    Output::Route(_) => "route",
                    Output::Transmit(_)
                    | Output::Sa(_)
                    | Output::OuterMtu { .. }
                    | Output::Learnt(_)
                    | Output::Socket(_)
                    | Output::Event(_) => "other",
                })
                .collect()
        };
        assert_eq!(kinds(&Plan::default().changes_to(&full)), ["device", "policy", "route"]);
        assert_eq!(kinds(&full.changes_to(&Plan::default())), ["route", "policy", "device"]);
        assert_eq!(full.changes_to(&full), []);
    }

    #[test]
    fn an_own_address_inside_the_local_selector_is_the_preferred_source() {
        let plan = plan(&[connection("a", "192.0.2.1", ("10.1.0.0/16", "10.2.0.0/16"))], &["192.0.2.9", "10.1.0.1"]);
        let source = plan.routes().next().unwrap().source;
        assert_eq!(source, Some("10.1.0.1".parse().unwrap()));
    }

    #[test]
    fn a_route_that_covers_the_peer_lets_the_peer_and_our_own_networks_out() {
        let plan = plan(&[connection("a", "192.0.2.1", ("10.1.0.0/16", "0.0.0.0/0"))], &[]);
        let into = Via::device(SHARED_DEVICE.into());
        let expected = BTreeSet::from([
            route("0.0.0.0/0", into, Some(OWN_TABLE)),
            route("10.1.0.0/16", Via::Throw, Some(OWN_TABLE)),
            route("192.0.2.1/32", Via::Throw, Some(OWN_TABLE)),
        ]);
        assert_eq!(plan.routes().cloned().collect::<BTreeSet<_>>(), expected);
        assert_eq!(plan.rules.len(), 1);
        // The exceptions stand before the route does.
        let changes = Plan::default().changes_to(&plan);
        let at = |wanted: &str| {
            changes
                .iter()
                .position(|o| matches!(o, Output::Route(RouteChange::Add(r)) if r.destination.to_string() == wanted))
        };
        assert!(at("192.0.2.1/32") < at("0.0.0.0/0"));
    }

    #[test]
    fn a_route_that_covers_everything_waits_until_the_peer_is_known() {
        let mut unknown = connection("a", "192.0.2.1", ("10.1.0.0/16", "0.0.0.0/0"));
        unknown.remote.address = Address::Any;
        assert_eq!(plan(&[unknown], &[]).routes().count(), 0);
    }

    #[test]
    fn two_connections_to_the_same_network_share_a_route_and_keep_it_while_one_is_left() {
        let a = connection("a", "192.0.2.1", ("10.1.0.0/16", "10.2.0.0/16"));
        let b = connection("b", "192.0.2.2", ("10.1.0.0/16", "10.2.0.0/16"));
        let (both, one) = (plan(&[a, b.clone()], &[]), plan(&[b], &[]));
        assert_eq!(both.routes().count(), 1);
        assert!(both.changes_to(&one).iter().all(|o| matches!(o, Output::Policy(PolicyChange::Remove(_)))));
    }

    #[test]
    fn a_route_based_child_has_its_own_device_with_addresses_routes_and_the_mtu_that_fits() {
        let mut c = connection("a", "192.0.2.1", ("0.0.0.0/0", "0.0.0.0/0"));
        c.children[0].routing = Routing::Device {
            name: "tunnel1".into(),
            addresses: vec!["169.254.10.2/30".parse().unwrap()],
            routes: vec!["10.2.0.0/16".parse().unwrap()],
            mark: None,
        };
        let plan = plan(&[c], &["192.0.2.9"]);
        let device = plan.device("tunnel1").unwrap();
        assert_eq!((device.mtu, device.addresses.len()), (1438, 1));
        let route = plan.routes().next().unwrap();
        assert_eq!(route.source, Some("169.254.10.2".parse().unwrap()));
        assert!(plan.policies().all(|policy| policy.routing != Routing::Policy));
    }
}
