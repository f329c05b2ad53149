//! What comes out of a tunnel for a network of ours stays out of the default route: [`Inside`].
//!
//! A gateway reaches its own networks through routes that go with a device: a link that is set down takes them along. What
//! the other site sends there would then follow the default route, in clear, to the internet. So each network that a
//! device inside has led to is refused, by an `unreachable` route behind every other of the same prefix
//! (docs/decisions/0012).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use os::netlink::{PROTOCOL, Place, Route, RouteKind, TABLE_MAIN};

/// The metric of the refusals: anything else comes before them. That of VPN connections without a tunnel is one higher.
const METRIC: u32 = u32::MAX - 2;
/// Networks that are kept inside at most: those that are not are as without this.
const MOST: usize = 1_024;

/// Which networks of ours are behind this gateway, and which of them are cut off.
#[derive(Debug, Default)]
pub(super) struct Inside {
    /// What policies and BGP call ours.
    local: Vec<IpNet>,
    /// The devices of tunnels.
    tunnels: BTreeSet<Arc<str>>,
    /// Networks that a device inside led to at some time; none is part of another.
    kept: BTreeSet<IpNet>,
    /// Those that are refused now unless there is a better route.
    refused: BTreeSet<IpNet>,
    /// Those to which none leads now.
    cut_off: Vec<IpNet>,
    /// Of the list that is being read: the devices that lead to networks of ours, and those of default routes.
    ways: BTreeMap<IpNet, BTreeSet<u32>>,
    outside: BTreeSet<(bool, u32)>,
    is_stale: bool,
}

/// What follows from a list of the kernel's routes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    /// The refusals that are wanted from now on.
    pub(super) added: Vec<Place>,
    /// Those that are not any more.
    pub(super) removed: Vec<Place>,
    /// The networks that are cut off, where that changed.
    pub(super) cut_off: Option<Vec<IpNet>>,
}

fn meet(one: IpNet, other: IpNet) -> bool {
    one.contains(&other) || other.contains(&one)
}

fn refusal(net: IpNet) -> Place {
    Place::new(TABLE_MAIN, net, METRIC)
}

impl Inside {
    /// These networks are ours from now on, and these are the devices of tunnels. The kernel's routes must be looked at.
    pub(super) fn keep(&mut self, local: Vec<IpNet>, tunnels: BTreeSet<Arc<str>>) {
        self.is_stale |= (&self.local, &self.tunnels) != (&local, &tunnels);
        (self.local, self.tunnels) = (local, tunnels);
    }

    /// Whether the list of routes must have those of others.
    pub(super) const fn is_looking(&self) -> bool {
        !self.local.is_empty()
    }

    /// Whether something changed since the last list.
    pub(super) fn take_stale(&mut self) -> bool {
        std::mem::take(&mut self.is_stale)
    }

    /// A device or an address changed: the kernel does not tell of each route that goes with it.
    pub(super) fn note_change(&mut self) {
        self.is_stale |= self.is_looking();
    }

    /// Somebody else changed a route.
    pub(super) fn note_route(&mut self, route: &Route, protocol: u8) {
        self.is_stale |= protocol != PROTOCOL && self.is_of_concern(route);
    }

    fn is_of_concern(&self, route: &Route) -> bool {
        let net = route.destination;
        route.table == TABLE_MAIN && (net.prefix_len() == 0 && self.is_looking() || self.is_ours(net))
    }

    fn is_ours(&self, net: IpNet) -> bool {
        net.prefix_len() > 0 && self.local.iter().any(|local| meet(*local, net))
    }

    /// A list of the kernel's routes begins.
    pub(super) fn begin(&mut self) {
        self.ways.clear();
        self.outside.clear();
    }

    /// A route of the list.
    pub(super) fn see(&mut self, route: &Route, protocol: u8) {
        let net = route.destination;
        if !self.is_of_concern(route) {
            return;
        }
        if protocol == PROTOCOL {
            // An earlier process may have seen more than this one.
            if route.place() == refusal(net) && route.kind == RouteKind::Unreachable {
                self.kept.insert(net);
            }
        } else if route.kind == RouteKind::Unicast {
            let devices = route.hops.iter().filter_map(|hop| hop.device);
            if net.prefix_len() == 0 {
                self.outside.extend(devices.map(|device| (net.addr().is_ipv4(), device)));
            } else {
                self.ways.entry(net).or_default().extend(devices);
            }
        }
    }

    /// The list ends. `name` tells devices by their index.
    pub(super) fn end(&mut self, name: impl Fn(u32) -> Option<Arc<str>>) -> Kept {
        let is_inside = |is_v4: bool, device: u32| {
            // What is behind a device with a default route is reached by that one too: a gateway with one arm.
            !self.outside.contains(&(is_v4, device)) && name(device).is_none_or(|name| !self.tunnels.contains(&name))
        };
        let ways = std::mem::take(&mut self.ways).into_iter();
        let reached: BTreeSet<IpNet> = ways
            .filter(|(net, devices)| devices.iter().any(|device| is_inside(net.addr().is_ipv4(), *device)))
            .map(|(net, _)| net)
            .take(MOST)
            .collect();
        let known: BTreeSet<IpNet> = self.kept.union(&reached).copied().filter(|net| self.is_ours(*net)).collect();
        self.kept.clear();
        // In this order a network comes before those within it, which its own route may lead to when theirs is gone.
        for net in known {
            if !self.kept.last().is_some_and(|larger| larger.contains(&net)) {
                self.kept.insert(net);
            }
        }
        let is_cut_off = |net: &&IpNet| !reached.iter().any(|way| way.contains(*net));
        let cut_off: Vec<IpNet> = self.kept.iter().filter(is_cut_off).copied().collect();
        let changes = Kept {
            added: self.kept.difference(&self.refused).copied().map(refusal).collect(),
            removed: self.refused.difference(&self.kept).copied().map(refusal).collect(),
            cut_off: (cut_off != self.cut_off).then(|| cut_off.clone()),
        };
        (self.refused, self.cut_off) = (self.kept.clone(), cut_off);
        changes
    }
}

#[cfg(test)]
mod tests {
    use os::netlink::NextHop;

    use super::*;

    const OUTSIDE: u32 = 1;
    const LAN: u32 = 2;
    const TUNNEL: u32 = 3;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn inside(local: &[&str]) -> Inside {
        let mut inside = Inside::default();
        inside.keep(nets(local), BTreeSet::from(["simplon0".into()]));
        inside
    }

    /// A look at these routes of somebody else: the networks that are kept inside, and those that are cut off.
    fn look(inside: &mut Inside, routes: &[(&str, u32)]) -> (Vec<IpNet>, Vec<IpNet>) {
        inside.begin();
        for (to, device) in routes {
            inside.see(&Route::through(*device, to.parse().unwrap()), 2);
        }
        let before = inside.refused.clone();
        let names = |device| Some(if device == TUNNEL { "simplon0" } else { "eth" }.into());
        let changes = inside.end(names);
        let mut places: BTreeSet<Place> = before.into_iter().map(refusal).collect();
        changes.removed.iter().for_each(|place| assert!(places.remove(place)));
        changes.added.iter().for_each(|place| assert!(places.insert(*place)));
        assert_eq!(places, inside.kept.iter().copied().map(refusal).collect());
        (inside.kept.iter().copied().collect(), inside.cut_off.clone())
    }

    const DEFAULT: (&str, u32) = ("0.0.0.0/0", OUTSIDE);

    #[test]
    fn a_network_that_a_device_inside_led_to_is_kept_when_that_is_gone() {
        let mut inside = inside(&["10.1.0.0/16"]);
        let lan = nets(&["10.1.2.0/24"]);
        let up = [DEFAULT, ("203.0.113.0/24", OUTSIDE), ("10.1.2.0/24", LAN), ("192.168.0.0/24", LAN)];
        assert_eq!(look(&mut inside, &up), (lan.clone(), vec![]));
        assert_eq!(look(&mut inside, &[DEFAULT]), (lan.clone(), lan.clone()));
        assert_eq!(look(&mut inside, &up), (lan, vec![]));
        inside.keep(nets(&["10.9.0.0/16"]), BTreeSet::new());
        assert!(inside.take_stale() && !inside.take_stale());
        assert_eq!(look(&mut inside, &up), (vec![], vec![]));
    }

    #[test]
    fn what_only_a_device_with_a_default_route_leads_to_may_be_reached_by_that() {
        // A gateway with one arm: the rest of 10.1.0.0/16 is behind its router.
        let mut inside = inside(&["10.1.0.0/16", "2001:db8:1::/48"]);
        assert_eq!(look(&mut inside, &[DEFAULT, ("10.1.2.0/24", OUTSIDE)]), (vec![], vec![]));
        // IPv6 has a default route of its own.
        let six = nets(&["2001:db8:1:2::/64"]);
        assert_eq!(look(&mut inside, &[DEFAULT, ("2001:db8:1:2::/64", OUTSIDE)]), (six, vec![]));
    }

    #[test]
    fn ways_into_tunnels_and_to_all_the_world_are_no_ways_inside() {
        let mut inside = inside(&["10.1.0.0/16"]);
        let routes = [DEFAULT, ("10.1.3.0/24", TUNNEL), ("0.0.0.0/0", LAN + 9), ("10.2.0.0/16", LAN)];
        assert_eq!(look(&mut inside, &routes), (vec![], vec![]));
    }

    #[test]
    fn of_networks_within_each_other_the_largest_is_kept() {
        let mut inside = inside(&["10.1.0.0/16"]);
        let both = [DEFAULT, ("10.0.0.0/8", LAN), ("10.1.2.0/24", LAN), ("10.1.7.0/24", LAN + 1)];
        let all = nets(&["10.0.0.0/8"]);
        assert_eq!(look(&mut inside, &[DEFAULT, ("10.1.2.0/24", LAN)]), (nets(&["10.1.2.0/24"]), vec![]));
        assert_eq!(look(&mut inside, &both), (all.clone(), vec![]));
        // Another router of ours leads to what a link of ours did.
        assert_eq!(look(&mut inside, &both[..2]), (all.clone(), vec![]));
        assert_eq!(look(&mut inside, &[DEFAULT, both[2]]), (all.clone(), all));
    }

    #[test]
    fn what_an_earlier_process_kept_is_kept() {
        let mut inside = inside(&["10.1.0.0/16"]);
        inside.begin();
        for net in ["10.1.2.0/24", "10.2.2.0/24"] {
            let left = Route::without_device(RouteKind::Unreachable, net.parse().unwrap());
            inside.see(&Route { metric: METRIC, ..left.clone() }, PROTOCOL);
            inside.see(&left, PROTOCOL);
        }
        let lan = nets(&["10.1.2.0/24"]);
        let expected = Kept { added: vec![refusal(lan[0])], removed: vec![], cut_off: Some(lan) };
        assert_eq!(inside.end(|_| None), expected);
    }

    #[test]
    fn only_what_concerns_networks_of_ours_makes_the_routes_be_looked_at() {
        let mut inside = inside(&["10.1.0.0/16"]);
        assert!(inside.take_stale());
        let hears = |inside: &mut Inside, to: &str, protocol: u8| {
            let hops = vec![NextHop::through(LAN)];
            inside.note_route(
                &Route { hops, ..Route::without_device(RouteKind::Unicast, to.parse().unwrap()) },
                protocol,
            );
            inside.take_stale()
        };
        assert!(hears(&mut inside, "0.0.0.0/0", 16) && hears(&mut inside, "10.0.0.0/8", 12));
        assert!(!hears(&mut inside, "10.2.0.0/16", 12) && !hears(&mut inside, "10.1.1.0/24", PROTOCOL));
        inside.keep(vec![], BTreeSet::new());
        assert!(inside.take_stale(), "what was kept is given up");
        assert!(!hears(&mut inside, "0.0.0.0/0", 16));
        inside.note_change();
        assert!(!inside.take_stale());
    }
}
