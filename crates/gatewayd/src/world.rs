//! Devices, routes and rules of the kernel, as the gateway wants them.
//!
//! Everything made here carries our protocol number or is a device of ours, and is removed at the end. After a crash
//! the devices and the routes through them are gone with the process; what is left is removed at the next start.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use gateway::{Device, DeviceChange, Route, RouteChange, Rule, Via};
use ipnet::IpNet;
use os::netlink::{self, Netlink, RouteKind, TABLE_MAIN};
use os::sysctl;
use os::tun::{Tun, TunOptions};
use tracing::{debug, warn};

/// Packets that wait for the data path at most: at the kernel's 500 a burst of one fast TCP stream overflows.
const QUEUE: u32 = 1_000;

/// The kernel's view of what the gateway wanted.
#[derive(Debug)]
pub struct World {
    netlink: Netlink,
    devices: BTreeMap<Arc<str>, (u32, Device)>,
    routes: BTreeMap<(IpNet, u32, u32), netlink::Route>,
    rules: BTreeSet<Rule>,
}

impl World {
    /// A world in which nothing of ours is left from an earlier run.
    ///
    /// # Errors
    /// When the kernel's routing cannot be talked to.
    pub async fn open() -> io::Result<Self> {
        let world = Self {
            netlink: Netlink::open()?,
            devices: BTreeMap::new(),
            routes: BTreeMap::new(),
            rules: BTreeSet::new(),
        };
        world.sweep().await?;
        Ok(world)
    }

    /// The connection to the kernel's routing.
    pub fn netlink(&self) -> &Netlink {
        &self.netlink
    }

    /// Removes exceptions and rules that a crash left behind. Routes into devices went with their devices.
    async fn sweep(&self) -> io::Result<()> {
        let own_table = |table: u32| table == gateway::plan::OWN_TABLE;
        for rule in self.netlink.own_rules().await?.iter().filter(|rule| own_table(rule.table)) {
            debug!("removing a rule that an earlier run left behind");
            self.netlink.remove_rule(rule).await?;
        }
        let left = |route: &&netlink::Route| route.kind == RouteKind::Throw && own_table(route.table);
        for route in self.netlink.own_routes().await?.iter().filter(left) {
            debug!("removing the route to {} that an earlier run left behind", route.destination);
            self.netlink.remove_route(route).await?;
        }
        Ok(())
    }

    /// Makes a change to the devices; a device that was made is handed to whoever serves it.
    ///
    /// # Errors
    /// As [`Tun::open`], and when the kernel refuses an address or an MTU.
    pub async fn change_device(&mut self, change: DeviceChange) -> io::Result<Option<Tun>> {
        match change {
            DeviceChange::Create(device) => {
                let tun = Tun::open(&TunOptions::new(&*device.name))?;
                // Without this the kernel sends router solicitations into the tunnel.
                let _ = sysctl::write(&format!("net/ipv6/conf/{}/addr_gen_mode", tun.name()), "1");
                self.netlink.set_mtu(tun.index(), device.mtu.into()).await?;
                self.netlink.set_tx_queue_len(tun.index(), QUEUE).await?;
                for net in &device.addresses {
                    self.netlink.add_address(tun.index(), *net).await?;
                }
                self.netlink.set_up(tun.index(), true).await?;
                self.devices.insert(device.name.clone(), (tun.index(), device));
                Ok(Some(tun))
            }
            DeviceChange::Configure(device) => {
                self.configure(device).await?;
                Ok(None)
            }
            DeviceChange::Remove(name) => {
                self.devices.remove(&name);
                Ok(None)
            }
        }
    }

    async fn configure(&mut self, device: Device) -> io::Result<()> {
        let Some((index, known)) = self.devices.get_mut(&device.name) else { return Ok(()) };
        if known.mtu != device.mtu {
            self.netlink.set_mtu(*index, device.mtu.into()).await?;
        }
        for gone in known.addresses.iter().filter(|net| !device.addresses.contains(net)) {
            self.netlink.remove_address(*index, *gone).await?;
        }
        for new in device.addresses.iter().filter(|net| !known.addresses.contains(net)) {
            self.netlink.add_address(*index, *new).await?;
        }
        *known = device;
        Ok(())
    }

    /// Makes a change to the routes.
    ///
    /// # Errors
    /// When the kernel refuses it. A route of somebody else to the same prefix is left alone: `AlreadyExists`.
    pub async fn change_route(&mut self, change: RouteChange) -> io::Result<()> {
        match change {
            RouteChange::Add(route) => {
                let Some(route) = self.kernel_route(&route) else {
                    return Err(io::Error::new(io::ErrorKind::NotFound, "its device does not exist"));
                };
                let key = (route.destination, route.table, route.metric);
                if self.routes.contains_key(&key) {
                    self.netlink.replace_route(&route).await?;
                } else {
                    self.netlink.add_route(&route).await?;
                }
                self.routes.insert(key, route);
            }
            RouteChange::Remove(route) => {
                let Some(route) = self.kernel_route(&route) else { return Ok(()) };
                let key = (route.destination, route.table, route.metric);
                if let Some(route) = self.routes.remove(&key) {
                    self.netlink.remove_route(&route).await?;
                }
            }
            RouteChange::AddRule(rule) => {
                match self.netlink.add_rule(&kernel_rule(rule)).await {
                    Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                    answer => answer?,
                }
                self.rules.insert(rule);
            }
            RouteChange::RemoveRule(rule) => {
                self.rules.remove(&rule);
                self.netlink.remove_rule(&kernel_rule(rule)).await?;
            }
        }
        Ok(())
    }

    fn kernel_route(&self, route: &Route) -> Option<netlink::Route> {
        let hop = |hop: &gateway::Hop| {
            let device = match &hop.device {
                Some(name) => Some(self.devices.get(name)?.0),
                None => None,
            };
            Some(netlink::NextHop { device, gateway: hop.gateway, weight: 1, onlink: false })
        };
        let (kind, hops) = match &route.via {
            Via::Hops(hops) => (RouteKind::Unicast, hops.iter().map(hop).collect::<Option<Vec<_>>>()?),
            Via::Throw => (RouteKind::Throw, Vec::new()),
            Via::Unreachable => (RouteKind::Unreachable, Vec::new()),
        };
        // IPv6 has no metric 0: the kernel would make it 1,024.
        let metric = if route.destination.addr().is_ipv6() { route.metric.max(1) } else { route.metric };
        let base = netlink::Route::without_device(kind, route.destination);
        let table = route.table.unwrap_or(TABLE_MAIN);
        Some(netlink::Route { table, hops, metric, source: route.source, ..base })
    }

    /// The addresses of this host that packets can have as their source, without those of our devices.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub async fn own_addresses(&self) -> io::Result<Vec<IpAddr>> {
        let ours: BTreeSet<u32> = self.devices.values().map(|(index, _)| *index).collect();
        let all = self.netlink.addresses().await?;
        let is_usable = |ip: &IpAddr| match ip {
            IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local(),
            IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local(),
        };
        Ok(all.iter().filter(|a| !ours.contains(&a.index)).map(|a| a.net.addr()).filter(is_usable).collect())
    }

    /// Removes every route and rule that is still there.
    pub async fn clear(&mut self) {
        for rule in std::mem::take(&mut self.rules) {
            if let Err(e) = self.netlink.remove_rule(&kernel_rule(rule)).await {
                warn!("{e}");
            }
        }
        for (_, route) in std::mem::take(&mut self.routes) {
            if let Err(e) = self.netlink.remove_route(&route).await {
                warn!("{e}");
            }
        }
    }
}

fn kernel_rule(rule: Rule) -> netlink::Rule {
    netlink::Rule {
        ipv6: rule.ipv6,
        priority: rule.priority,
        table: rule.table,
        from: None,
        to: None,
        mark: None,
        invert: false,
    }
}
