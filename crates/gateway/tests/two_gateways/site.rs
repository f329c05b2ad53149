//! A gateway with its data path, as a host of a simulated network.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base::{Deadline, Instant, Machine, Random};
use esp::{DataPath, Outgoing};
use gateway::status::ConnectionStatus;
use gateway::{
    Command, Device, DeviceChange, Gateway, GatewayEvent, Output, PolicyChange, Route, RouteChange, State, Via,
};
use model::{Address, Child, Config, Connection, Encapsulation, GatewayOptions, Selector, Start};
use packet::Tos;
use sim::{Datagram, Host, Link, Network, World};

/// The outer addresses of the sites.
pub(crate) const OUTER: [&str; 3] = ["192.0.2.1", "192.0.2.2", "192.0.2.3"];
/// A host behind the first two.
pub(crate) const INNER: [&str; 2] = ["10.1.0.5", "10.2.0.5"];

pub(crate) struct Site {
    pub(crate) gateway: Gateway,
    pub(crate) data: DataPath,
    pub(crate) events: Vec<GatewayEvent>,
    pub(crate) devices: Vec<Device>,
    pub(crate) routes: Vec<Route>,
    /// Inner packets that came out of the tunnel.
    pub(crate) delivered: Vec<Vec<u8>>,
    /// What the data path refused: nothing ever should be.
    pub(crate) refused: Vec<String>,
    /// What was done, in order: datagrams that were sent, and where routes lead.
    pub(crate) done: Vec<String>,
    /// ESP packets from and to each peer.
    pub(crate) carried: BTreeMap<IpAddr, u64>,
    address: IpAddr,
    out: Vec<Datagram>,
}

impl Site {
    pub(crate) fn new(place: usize, seed: u64) -> Self {
        Self {
            gateway: Gateway::new(GatewayOptions::default(), Random::for_test(seed * 2 + place as u64)),
            data: DataPath::new(),
            events: Vec::new(),
            devices: Vec::new(),
            routes: Vec::new(),
            delivered: Vec::new(),
            refused: Vec::new(),
            done: Vec::new(),
            carried: BTreeMap::new(),
            address: OUTER[place].parse().unwrap(),
            out: Vec::new(),
        }
    }

    /// Loads connections.
    pub(crate) fn load(&mut self, connections: Vec<Connection>, now: Instant) {
        self.apply(Config { gateway: GatewayOptions::default(), connections, ..Config::default() }, now);
    }

    /// Loads a configuration.
    pub(crate) fn apply(&mut self, config: Config, now: Instant) {
        self.gateway.apply(config, now);
        self.settle(now);
    }

    pub(crate) fn order(&mut self, command: Command, now: Instant) {
        self.gateway.command(command, now).unwrap();
        self.settle(now);
    }

    /// Sends a packet into the tunnel; whether it left.
    pub(crate) fn send(&mut self, from: &str, to: &str, now: Instant) -> bool {
        self.send_bytes(from, to, b"payload", now)
    }

    /// Sends a packet with this payload into the tunnel; whether it left.
    pub(crate) fn send_bytes(&mut self, from: &str, to: &str, payload: &[u8], now: Instant) -> bool {
        self.send_via(esp::Via::Policy, from, to, payload, now)
    }

    /// Sends a packet where the routes lead; whether it left.
    pub(crate) fn send_routed(&mut self, from: &str, to: &str, now: Instant) -> bool {
        let destination: IpAddr = to.parse().unwrap();
        let fits = self.routes.iter().filter(|route| route.destination.contains(&destination));
        let best = fits.min_by_key(|route| (u8::MAX - route.destination.prefix_len(), route.metric));
        let Some(Via::Hops(hops)) = best.map(|route| &route.via) else { return false };
        let device = hops[0].device.clone().unwrap();
        let via = esp::Via::Device(self.data.device(&device));
        self.send_via(via, from, to, b"payload", now)
    }

    fn send_via(&mut self, via: esp::Via, from: &str, to: &str, payload: &[u8], now: Instant) -> bool {
        let (from, to) = (SocketAddr::new(from.parse().unwrap(), 7), SocketAddr::new(to.parse().unwrap(), 9));
        let mut packet = packet::build::udp(from, to, payload).unwrap();
        let (out, carried) = (&mut self.out, &mut self.carried);
        let sent = self.data.outbounds.send(
            via,
            &mut packet,
            |outgoing| {
                if let Outgoing::Datagram { path, esp, .. } = outgoing {
                    assert!(path.udp, "the simulated network carries UDP only");
                    *carried.entry(path.remote.ip()).or_default() += 1;
                    out.push(Datagram { source: path.local, destination: path.remote, payload: esp.to_vec() });
                }
            },
            now,
        );
        self.settle(now);
        sent.is_ok()
    }

    pub(crate) fn connection(&self, name: &str, now: Instant) -> ConnectionStatus {
        let status = self.gateway.status(now);
        status.connections.into_iter().find(|connection| connection.name == name).unwrap()
    }

    pub(crate) fn state(&self, now: Instant) -> State {
        self.connection("site", now).state
    }

    /// Whether something was told.
    pub(crate) fn told(&self, name: &str) -> usize {
        self.events.iter().filter(|event| event.name == name).count()
    }

    /// Does what the gateway says, and tells it what the data path says, until both are silent.
    pub(crate) fn settle(&mut self, now: Instant) {
        loop {
            while let Some(output) = self.gateway.poll_output() {
                self.carry_out(output);
            }
            let Some(event) = self.data.poll_event() else { return };
            self.gateway.handle_esp_event(event, now);
        }
    }

    fn carry_out(&mut self, output: Output) {
        let result = match output {
            Output::Transmit(t) => {
                self.done.push(format!("send {}", t.remote));
                self.out.push(Datagram { source: t.local, destination: t.remote, payload: t.payload });
                Ok(())
            }
            Output::Sa(change) => self.data.apply(&change),
            Output::OuterMtu { id, mtu } => self.data.set_outer_mtu(id, mtu.into()),
            Output::Policy(PolicyChange::Install(policy)) => self.data.set_policy(policy),
            Output::Policy(PolicyChange::Remove(label)) => {
                self.data.remove_policy(&label);
                Ok(())
            }
            Output::Device(DeviceChange::Create(device) | DeviceChange::Configure(device)) => {
                self.devices.retain(|known| known.name != device.name);
                self.devices.push(device);
                Ok(())
            }
            Output::Device(DeviceChange::Remove(name)) => {
                self.devices.retain(|known| known.name != name);
                Ok(())
            }
            Output::Route(RouteChange::Add(route)) => {
                self.done.push(format!("route {} {}", route.destination, device_of(&route)));
                let is_there = |known: &Route| {
                    (known.destination, known.table, known.metric) == (route.destination, route.table, route.metric)
                };
                self.routes.retain(|known| !is_there(known));
                self.routes.push(route);
                Ok(())
            }
            Output::Route(RouteChange::Remove(route)) => {
                self.routes.retain(|known| *known != route);
                Ok(())
            }
            Output::Route(RouteChange::AddRule(_) | RouteChange::RemoveRule(_)) => Ok(()),
            Output::Learnt(_) | Output::Socket(_) => Ok(()),
            Output::Event(event) => {
                self.events.push(event);
                Ok(())
            }
        };
        if let Err(unusable) = result {
            self.refused.push(format!("{unusable:?}"));
        }
    }
}

fn device_of(route: &Route) -> String {
    match &route.via {
        Via::Hops(hops) => hops.iter().filter_map(|hop| hop.device.as_deref()).collect(),
        Via::Throw | Via::Unreachable => "nowhere".to_owned(),
    }
}

impl Host for Site {
    fn address(&self) -> IpAddr {
        self.address
    }

    fn receive(&mut self, mut datagram: Datagram, now: Instant) {
        let is_natt = datagram.destination.port() == 4500;
        if is_natt && esp::wire::classify(&datagram.payload) == esp::wire::Encapsulated::Esp {
            let opened = self.data.inbounds.open(&mut datagram.payload, Some(datagram.source), Tos::default(), now);
            if let Ok(arrived) = opened {
                *self.carried.entry(datagram.source.ip()).or_default() += 1;
                self.delivered.push(datagram.payload[arrived.range].to_vec());
                self.gateway.note_alive(arrived.id, now, now);
            }
        } else if datagram.payload != [0xff] {
            self.gateway.handle_datagram(datagram.destination, datagram.source, &datagram.payload, now);
        }
        self.settle(now);
    }

    fn wake(&mut self, now: Instant) {
        self.gateway.handle_timeout(now);
        self.settle(now);
    }

    fn deadline(&self) -> Option<Deadline> {
        self.gateway.poll_timeout()
    }

    fn outgoing(&mut self) -> Vec<Datagram> {
        std::mem::take(&mut self.out)
    }
}

/// The connection called "site" as the gateway at `place` has it.
pub(crate) fn connection(place: usize, start: Start) -> Connection {
    let other = 1 - place;
    let net = |ip: &str| vec![Selector::net(format!("{}.0/24", &ip[..6]).parse().unwrap())];
    let mut connection = Connection::named("site");
    connection.local.address = Address::Ip(OUTER[place].parse().unwrap());
    connection.remote.address = Address::Ip(OUTER[other].parse().unwrap());
    connection.psk = vec![base::Secret::from(&b"between us"[..])];
    connection.encapsulation = Encapsulation::Force;
    let mut child = Child::named("net");
    child.local = net(INNER[place]);
    child.remote = net(INNER[other]);
    child.start = start;
    connection.children = vec![child];
    connection
}

/// Two sites that know each other; the first starts as `start` says, the second waits.
pub(crate) fn world(start: Start, seed: u64) -> World<Site> {
    world_with(start, Link::default(), seed, |_, _| ())
}

/// The same over some link, with connections that `change` changes: it is given the place of each.
pub(crate) fn world_with(start: Start, link: Link, seed: u64, change: impl Fn(usize, &mut Connection)) -> World<Site> {
    let mut sites = vec![Site::new(0, seed), Site::new(1, seed)];
    // The second first: nobody should have to be told twice because the other end was not ready.
    for place in [1, 0] {
        let mut own = connection(place, if place == 0 { start } else { Start::Wait });
        change(place, &mut own);
        sites[place].load(vec![own], Instant::ZERO);
    }
    World::new(Network::new(link, seed), sites)
}

/// Lets time pass until both sites are up; whether they are.
pub(crate) fn come_up(world: &mut World<Site>, within: Duration) -> bool {
    let end = world.now + within;
    world.run_until(end, |w| w.hosts.iter().all(|site| site.state(w.now) == State::Up))
}

/// Sends a packet each way and lets it arrive; whether both did.
pub(crate) fn both_ways(world: &mut World<Site>) -> bool {
    let before: Vec<_> = world.hosts.iter().map(|site| site.delivered.len()).collect();
    let now = world.now;
    world.hosts[0].send(INNER[0], INNER[1], now);
    world.hosts[1].send(INNER[1], INNER[0], now);
    world.run_for(Duration::from_millis(200));
    world.hosts.iter().zip(before).all(|(site, before)| site.delivered.len() == before + 1)
}

/// A name for a connection or device.
pub(crate) fn name(text: &str) -> Arc<str> {
    text.into()
}
