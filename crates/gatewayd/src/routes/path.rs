//! Where routes lead: as they are wanted, with devices by name, and as the kernel has them.

use std::net::IpAddr;
use std::sync::Arc;

use os::netlink::{NextHop, Place, Route, RouteKind};

/// One of the ways that a route leads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hop {
    /// Into this device; `None` leaves it to the kernel, which looks for the gateway.
    pub device: Option<Arc<str>>,
    /// To this router; `None` for what is directly behind the device.
    pub gateway: Option<IpAddr>,
    /// Its share of the flows, 1 to 256.
    pub weight: u16,
    /// The gateway is behind the device, though no prefix of the device says so.
    pub onlink: bool,
}

impl Hop {
    /// Into a device.
    pub fn through(device: impl Into<Arc<str>>) -> Self {
        Self { device: Some(device.into()), gateway: None, weight: 1, onlink: false }
    }
}

/// Where a route leads, as it is wanted. A way whose device does not exist or is down is left out until that changes;
/// without any way left the route waits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path {
    /// What it does.
    pub kind: RouteKind,
    /// The ways, for [`RouteKind::Unicast`] at least one; each flow takes one of them.
    pub hops: Vec<Hop>,
    /// The source address of packets that choose none.
    pub source: Option<IpAddr>,
    /// The MTU in bytes, where it is smaller than the device's.
    pub mtu: Option<u32>,
    /// Flows stay on their way when others come or go, where the kernel can do that. It costs some kilobytes a route.
    pub keeps_flows: bool,
}

impl Path {
    /// These ways.
    pub const fn over(hops: Vec<Hop>) -> Self {
        Self { kind: RouteKind::Unicast, hops, source: None, mtu: None, keeps_flows: false }
    }

    /// Into a device.
    pub fn through(device: impl Into<Arc<str>>) -> Self {
        Self::over(vec![Hop::through(device)])
    }

    /// No way at all: refused, dropped, or left to the next rule.
    pub const fn nowhere(kind: RouteKind) -> Self {
        Self { kind, hops: Vec::new(), source: None, mtu: None, keeps_flows: false }
    }

    pub(super) fn uses(&self, device: &str) -> bool {
        self.hops.iter().any(|hop| hop.device.as_deref() == Some(device))
    }

    /// The path as the kernel can have it now. `index` is that of a device, if it can be used.
    pub(super) fn resolve(&self, index: impl Fn(&str) -> Option<u32>) -> Option<Placed> {
        let mut hops: Vec<_> = self
            .hops
            .iter()
            .filter_map(|hop| {
                let device = match &hop.device {
                    Some(name) => Some(index(name)?),
                    None => None,
                };
                Some(NextHop { device, gateway: hop.gateway, weight: hop.weight.clamp(1, 256), onlink: hop.onlink })
            })
            .collect();
        if self.kind != RouteKind::Unicast {
            hops.clear();
        } else if hops.is_empty() {
            return None;
        }
        Some(Placed::new(self.kind, hops, self.source, self.mtu))
    }
}

/// Where a route leads, as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Placed {
    kind: RouteKind,
    /// Sorted, without what is told twice.
    hops: Vec<NextHop>,
    source: Option<IpAddr>,
    mtu: Option<u32>,
}

impl Placed {
    fn new(kind: RouteKind, mut hops: Vec<NextHop>, source: Option<IpAddr>, mtu: Option<u32>) -> Self {
        hops.sort_unstable();
        hops.dedup();
        if let [only] = hops.as_mut_slice() {
            // The kernel keeps no weight of the only way.
            only.weight = 1;
        }
        Self { kind, hops, source, mtu }
    }

    pub(super) fn of(route: Route) -> Self {
        let mut hops = route.hops;
        if route.group.is_some() {
            // A group of one way has it twice.
            hops.sort_unstable();
            hops.dedup_by_key(|hop| (hop.device, hop.gateway));
        }
        Self::new(route.kind, hops, route.source, route.mtu)
    }

    pub(super) fn at(&self, place: Place) -> Route {
        let Place { table, destination, metric } = place;
        let (hops, source, mtu) = (self.hops.clone(), self.source, self.mtu);
        Route { destination, table, metric, kind: self.kind, hops, group: None, source, mtu }
    }

    pub(super) fn uses(&self, index: u32) -> bool {
        self.hops.iter().any(|hop| hop.device == Some(index))
    }

    pub(super) fn source(&self) -> Option<IpAddr> {
        self.source
    }

    /// Whether what the kernel has is what was wanted: where the device was left to it, it has chosen one.
    pub(super) fn is_met_by(&self, found: &Self) -> bool {
        let rest = |placed: &Self| (placed.kind, placed.source, placed.mtu, placed.hops.len());
        let is_met = |wanted: &NextHop| {
            found.hops.iter().any(|hop| NextHop { device: wanted.device.and(hop.device), ..*hop } == *wanted)
        };
        rest(self) == rest(found) && self.hops.iter().all(is_met)
    }
}
