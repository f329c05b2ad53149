//! Devices, routes and rules of the kernel, as the gateway wants them.
//!
//! Everything made here carries our protocol number or is a device of ours, and is removed at the end. After a crash
//! the devices and the routes through them are gone with the process; routes that are left are adopted at the next
//! start, or removed where nobody wants them ([`crate::routes`]).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use gateway::{Device, DeviceChange, Route, RouteChange, Rule, Via};
use ipnet::IpNet;
use model::Config;
use os::netlink::{self, Netlink, TABLE_MAIN};
use os::sysctl;
use os::tun::{Tun, TunOptions};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::routes::{self, Farewell, Hop, Path, Place, RouteKind, Routes, Standing};

/// Packets that wait for the data path at most: at the kernel's 500 a burst of one fast TCP stream overflows.
const QUEUE: u32 = 1_000;
/// How long routes of an earlier run may wait to be wanted again: BGP sessions come up within it.
pub(crate) const GRACE: Duration = Duration::from_secs(240);

/// The kernel's view of what the gateway wanted.
#[derive(Debug)]
pub struct World {
    netlink: Netlink,
    shares_devices: bool,
    devices: BTreeMap<Arc<str>, (u32, Device)>,
    /// Devices of the process whose place this one takes, until they are wanted here.
    inherited: BTreeMap<Arc<str>, u32>,
    /// Until they are cleared.
    routes: Option<Routes>,
    rules: BTreeSet<Rule>,
}

impl World {
    /// A world in which nothing of ours is left from an earlier run but routes, and what there will be to tell of those.
    ///
    /// # Errors
    /// When the kernel's routing cannot be talked to.
    pub async fn open() -> io::Result<(Self, mpsc::Receiver<routes::Event>)> {
        let (routes, events) = Routes::start(GRACE)?;
        let world = Self::with(routes)?;
        world.sweep().await?;
        Ok((world, events))
    }

    fn with(routes: Routes) -> io::Result<Self> {
        let (devices, inherited) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self {
            netlink: Netlink::open()?,
            devices,
            inherited,
            routes: Some(routes),
            rules: BTreeSet::new(),
            shares_devices: false,
        })
    }

    /// A world in which everything is as another process, which still runs, has set it up: nothing is touched before it is
    /// wanted here. `devices` are those of its tunnels.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn beside(devices: &[String]) -> io::Result<(Self, mpsc::Receiver<routes::Event>)> {
        let (routes, events) = Routes::start(GRACE)?;
        let mut world = Self::with(routes)?;
        for name in devices {
            if let Some(link) = world.netlink.link(name).await? {
                world.inherited.insert(name.as_str().into(), link.index);
            }
        }
        Ok((world, events))
    }

    /// Whether devices that are made from now on have a queue for each of several workers.
    pub const fn share_devices(&mut self, shared: bool) {
        self.shares_devices = shared;
    }

    /// The names of the devices of tunnels.
    pub fn device_names(&self) -> Vec<String> {
        self.devices.keys().map(ToString::to_string).collect()
    }

    /// Devices of the process before that nobody wants here: to be closed.
    pub fn forget_inherited(&mut self) -> Vec<Arc<str>> {
        std::mem::take(&mut self.inherited).into_keys().collect()
    }

    /// Leaves everything as it is, for the process that follows.
    pub async fn leave(&mut self) {
        if let Some(routes) = self.routes.take() {
            routes.end(Farewell::Leave).await;
        }
    }

    /// The connection to the kernel's routing.
    pub fn netlink(&self) -> &Netlink {
        &self.netlink
    }

    /// Removes rules that a crash left behind.
    async fn sweep(&self) -> io::Result<()> {
        let own_table = |table: u32| table == gateway::plan::OWN_TABLE;
        for rule in self.netlink.own_rules().await?.iter().filter(|rule| own_table(rule.table)) {
            debug!("removing a rule that an earlier run left behind");
            self.netlink.remove_rule(rule).await?;
        }
        Ok(())
    }

    /// Makes a change to the devices; a device that was made is handed to whoever serves it.
    ///
    /// # Errors
    /// As [`Tun::open`], and when the kernel refuses an address or an MTU.
    pub async fn change_device(&mut self, change: DeviceChange) -> io::Result<Option<Tun>> {
        match change {
            DeviceChange::Create(device) if self.inherited.contains_key(&device.name) => {
                self.inherit(device).await?;
                Ok(None)
            }
            DeviceChange::Create(device) => {
                let options = TunOptions { multi_queue: self.shares_devices, ..TunOptions::new(&*device.name) };
                let tun = Tun::open(&options)?;
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

    /// Takes over a device that is served already, and makes it what it is to be.
    async fn inherit(&mut self, device: Device) -> io::Result<()> {
        let Some(index) = self.inherited.remove(&device.name) else { return Ok(()) };
        let all = self.netlink.addresses().await?;
        let has: Vec<IpNet> =
            all.iter().filter(|a| a.index == index && is_usable_on_device(a)).map(|a| a.net).collect();
        // What it has is what the process before gave it.
        let known = Device { addresses: has, mtu: 0, ..device.clone() };
        self.devices.insert(device.name.clone(), (index, known));
        self.configure(device).await
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

    /// Makes a change to the routes, and waits until the kernel was asked for it.
    ///
    /// # Errors
    /// When the kernel refuses it. A route of somebody else to the same prefix is left alone: `AlreadyExists`.
    pub async fn change_route(&mut self, change: RouteChange) -> io::Result<()> {
        match change {
            RouteChange::Add(route) => match self.routes()?.apply(place(&route), keeping_flows(&route)).await {
                Standing::InPlace | Standing::Coming | Standing::Waits | Standing::Absent => {}
                Standing::InTheWay(_) => {
                    let text = format!("the route to {} cannot be set", route.destination);
                    return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
                }
                Standing::Refused(why) => return Err(io::Error::other(why.to_string())),
            },
            RouteChange::Remove(route) => self.routes()?.withdraw(place(&route)).await,
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

    /// Makes changes to learnt routes, of which there may be a million: nobody waits for them, and what becomes of them
    /// is told as [`crate::routes::Event`].
    pub fn change_learnt(&self, changes: impl IntoIterator<Item = RouteChange>) {
        let Ok(routes) = self.routes() else { return };
        routes.change(changes.into_iter().filter_map(|change| match change {
            RouteChange::Add(route) => Some((place(&route), Some(path(&route)))),
            RouteChange::Remove(route) => Some((place(&route), None)),
            RouteChange::AddRule(_) | RouteChange::RemoveRule(_) => None,
        }));
    }

    /// How many changes of routes the kernel has not been asked for yet.
    pub fn route_backlog(&self) -> usize {
        self.routes.as_ref().map_or(0, Routes::backlog)
    }

    /// Packets for the networks that this configuration calls ours do not take the default route when their way is gone.
    pub fn keep_inside(&self, config: &Config) {
        let Ok(routes) = self.routes() else { return };
        let children = config.connections.iter().flat_map(|connection| &connection.children);
        let selected = children.flat_map(|child| &child.local).map(|selector| selector.net);
        let announced = config.bgp.iter().flat_map(|bgp| &bgp.networks).copied();
        let ours = selected.chain(announced).filter(|net| config.gateway.install_routes && net.prefix_len() > 0);
        let ours: BTreeSet<IpNet> = ours.map(|net| net.trunc()).collect();
        routes.keep_inside(ours.into_iter().collect(), self.devices.keys().cloned().collect());
    }

    /// What an earlier run left behind and nobody has wanted since is removed now.
    pub fn end_grace(&self) {
        if let Ok(routes) = self.routes() {
            routes.end_grace();
        }
    }

    fn routes(&self) -> io::Result<&Routes> {
        self.routes.as_ref().ok_or_else(|| io::Error::other("the routes were given up already"))
    }

    fn own_devices(&self) -> BTreeSet<u32> {
        self.devices.values().map(|(index, _)| *index).chain(self.inherited.values().copied()).collect()
    }

    /// The addresses of this host that packets can have as their source, without those of our devices.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub async fn own_addresses(&self) -> io::Result<Vec<IpAddr>> {
        let ours = self.own_devices();
        let all = self.netlink.addresses().await?;
        Ok(all.iter().filter(|a| !ours.contains(&a.index)).map(|a| a.net.addr()).filter(is_usable).collect())
    }

    /// The networks of this host's interfaces, without those of our devices and of no use to anybody else.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub async fn own_networks(&self) -> io::Result<Vec<IpNet>> {
        let ours = self.own_devices();
        let all = self.netlink.addresses().await?;
        let foreign = all.iter().filter(|address| !ours.contains(&address.index)).map(|address| address.net);
        let mut networks: Vec<IpNet> = foreign.filter(|net| is_usable(&net.addr())).map(|net| net.trunc()).collect();
        networks.sort_unstable();
        networks.dedup();
        Ok(networks)
    }

    /// Removes every route and rule that is still there.
    pub async fn clear(&mut self) {
        for rule in std::mem::take(&mut self.rules) {
            if let Err(e) = self.netlink.remove_rule(&kernel_rule(rule)).await {
                warn!("{e}");
            }
        }
        if let Some(routes) = self.routes.take() {
            routes.end(Farewell::Remove).await;
        }
    }
}

/// Whether an address of a tunnel's device was given to it: those of the link the kernel makes itself.
fn is_usable_on_device(address: &netlink::Address) -> bool {
    !matches!(address.net.addr(), IpAddr::V6(ip) if ip.is_unicast_link_local())
}

/// Whether packets can have it as their source beyond their own link.
fn is_usable(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local(),
    }
}

fn place(route: &Route) -> Place {
    // IPv6 has no metric 0: the kernel would make it 1,024, behind what BGP learns.
    let metric = if route.destination.addr().is_ipv6() { route.metric.max(1) } else { route.metric };
    Place::new(route.table.unwrap_or(TABLE_MAIN), route.destination, metric)
}

fn path(route: &Route) -> Path {
    let hop = |hop: &gateway::Hop| Hop { device: hop.device.clone(), gateway: hop.gateway, weight: 1, onlink: false };
    let path = match &route.via {
        Via::Hops(hops) => Path::over(hops.iter().map(hop).collect()),
        Via::Throw => Path::nowhere(RouteKind::Throw),
        Via::Unreachable => Path::nowhere(RouteKind::Unreachable),
    };
    Path { source: route.source, ..path }
}

/// Where a route of the plan leads; there are few of them. Learnt ones may be a million, for which this is too dear.
fn keeping_flows(route: &Route) -> Path {
    Path { keeps_flows: true, ..path(route) }
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
