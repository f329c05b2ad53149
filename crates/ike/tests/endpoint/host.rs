//! An endpoint as a host of the virtual world, with a data path that only remembers which SAs it has.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base::algorithm::{Encryption, Group, Integrity, Prf};
use base::{Deadline, Instant, Machine, Random, Secret};
use ike::{Endpoint, Event, Failure, IkeSaView, Options, Output, PeerId};
use model::{
    Address, Child, Connection, Dpd, DpdAction, EspProposal, Identity, IkeLifetime, IkeProposal, Lifetime, Selector,
    Start, Version, Versions,
};
use sa::{ChildSa, SaChange, SaId, Spi};
use sim::{Datagram, Host, Link, Network, World};

/// The one connection that a host has.
pub(crate) const PEER: PeerId = PeerId(1);
/// The initiator of most tests.
pub(crate) const LEFT: &str = "10.60.0.100";
/// The responder of most tests.
pub(crate) const RIGHT: &str = "43.200.61.196";

/// An endpoint, the SAs it has put in service, and all it told.
pub(crate) struct Gateway {
    pub(crate) endpoint: Endpoint,
    pub(crate) events: Vec<(Instant, Event)>,
    pub(crate) sas: BTreeMap<SaId, ChildSa>,
    /// Activated SAs, the newest last.
    active: Vec<SaId>,
    /// SAs on which a packet has arrived.
    used: BTreeSet<SaId>,
    /// Numbers of packets that arrived.
    pub(crate) packets: BTreeSet<u64>,
    /// Numbers left out: of which SA, of ours, of the peer's.
    pub(crate) skipped: Vec<(SaId, u64, u64)>,
    address: IpAddr,
    outgoing: Vec<Datagram>,
    now: Instant,
}

/// How the data path's datagrams begin: never like an IKE message.
const PACKET_LEN: usize = 12;

impl Gateway {
    pub(crate) fn new(address: &str, connection: Connection, options: Options, seed: u64) -> Self {
        let mut gateway = Self {
            endpoint: Endpoint::new(options, Random::for_test(seed)),
            events: Vec::new(),
            sas: BTreeMap::new(),
            active: Vec::new(),
            used: BTreeSet::new(),
            packets: BTreeSet::new(),
            skipped: Vec::new(),
            address: address.parse().unwrap(),
            outgoing: Vec::new(),
            now: Instant::ZERO,
        };
        gateway.endpoint.upsert_peer(PEER, Arc::new(connection), Instant::ZERO);
        gateway
    }

    /// Does something to the endpoint and carries out what comes of it.
    pub(crate) fn act(&mut self, now: Instant, act: impl FnOnce(&mut Endpoint)) {
        self.now = now;
        act(&mut self.endpoint);
        while let Some(output) = self.endpoint.poll_output() {
            match output {
                Output::Transmit(t) => {
                    self.outgoing.push(Datagram { source: t.local, destination: t.remote, payload: t.payload });
                }
                Output::Sa(change) => self.change(change),
                Output::Event(event) => self.events.push((now, event)),
                Output::Probed(_) => {}
            }
        }
    }

    fn change(&mut self, change: SaChange) {
        match change {
            SaChange::Install(sa) => {
                assert!(self.sas.values().all(|other| other.inbound_spi != sa.inbound_spi), "an SPI in use twice");
                assert!(self.sas.insert(sa.id, *sa).is_none(), "an SA installed twice");
            }
            SaChange::Activate(id) => {
                assert!(self.sas.contains_key(&id), "an SA activated that is not installed");
                self.active.retain(|other| *other != id);
                self.active.push(id);
            }
            SaChange::Remove(id) => {
                assert!(self.sas.remove(&id).is_some(), "an SA removed that is not installed: {id:?}");
                self.active.retain(|other| *other != id);
            }
            SaChange::Move { id, path } => self.sas.get_mut(&id).unwrap().path = path,
            SaChange::Skip { id, outbound, inbound } => self.skipped.push((id, outbound, inbound)),
        }
    }

    /// Sends a packet through the tunnel; false when no SA is in service.
    pub(crate) fn send_packet(&mut self, number: u64) -> bool {
        let Some(sa) = self.active.last().and_then(|id| self.sas.get(id)) else { return false };
        let mut payload = sa.outbound_spi.0.to_be_bytes().to_vec();
        payload.extend_from_slice(&number.to_be_bytes());
        self.outgoing.push(Datagram { source: sa.path.local, destination: sa.path.remote, payload });
        true
    }

    fn receive_packet(&mut self, datagram: &Datagram, now: Instant) {
        let (spi, number) = datagram.payload.split_first_chunk::<4>().unwrap();
        let spi = Spi(u32::from_be_bytes(*spi));
        let Some(sa) = self.sas.values().find(|sa| sa.inbound_spi == spi) else { return };
        let (id, known, udp) = (sa.id, sa.path.remote, sa.path.udp);
        self.packets.insert(u64::from_be_bytes(number.try_into().unwrap()));
        let is_first = self.used.insert(id);
        self.act(now, |endpoint| {
            endpoint.note_alive(id, now);
            if is_first {
                endpoint.note_first_inbound(id, now);
            }
            if udp && known != datagram.source {
                endpoint.note_peer_moved(id, datagram.source, now);
            }
        });
    }

    /// IKE SAs that are established.
    pub(crate) fn established(&self) -> Vec<IkeSaView> {
        let mut views = self.endpoint.sas();
        views.retain(|view| view.established_at.is_some());
        views
    }

    /// Whether exactly one IKE SA and one Child SA are up.
    pub(crate) fn is_settled(&self) -> bool {
        self.established().len() == 1 && self.endpoint.sas().len() == 1 && self.sas.len() == 1 && self.active.len() == 1
    }

    /// The failures told, oldest first.
    pub(crate) fn failures(&self) -> Vec<&Failure> {
        self.events.iter().filter_map(|(_, event)| as_failure(event)).collect()
    }
}

fn as_failure(event: &Event) -> Option<&Failure> {
    if let Event::Failed { failure, .. } = event { Some(failure) } else { None }
}

impl Host for Gateway {
    fn address(&self) -> IpAddr {
        self.address
    }

    fn receive(&mut self, datagram: Datagram, now: Instant) {
        let is_packet = datagram.payload.len() == PACKET_LEN && datagram.payload[..4] != [0; 4];
        if is_packet {
            return self.receive_packet(&datagram, now);
        }
        self.act(now, |endpoint| {
            endpoint.handle_datagram(datagram.destination, datagram.source, &datagram.payload, now);
        });
    }

    fn wake(&mut self, now: Instant) {
        self.act(now, |endpoint| endpoint.handle_timeout(now));
    }

    fn deadline(&self) -> Option<Deadline> {
        self.endpoint.poll_timeout()
    }

    fn outgoing(&mut self) -> Vec<Datagram> {
        std::mem::take(&mut self.outgoing)
    }
}

/// The connection of the lab with the elastic address, as one end sees it.
pub(crate) fn connection(version: Version, local: &str, remote: &str) -> Connection {
    let mut connection = Connection::named("Tunnel1");
    connection.versions = Versions::Only(version);
    connection.local.address = Address::Ip(local.parse().unwrap());
    connection.remote.address = Address::Ip(remote.parse().unwrap());
    connection.psk = vec![Secret::from(&b"cloudneta"[..])];
    connection.dpd =
        Some(Dpd { delay: Duration::from_secs(10), timeout: Duration::from_secs(30), action: DpdAction::Restart });
    let gcm = version == Version::V2;
    connection.ike = vec![IkeProposal {
        encryption: vec![if gcm { Encryption::Aes128Gcm } else { Encryption::Aes128Cbc }],
        integrity: if gcm { vec![] } else { vec![Integrity::Sha256] },
        prf: vec![Prf::Sha256],
        groups: vec![Group::Curve25519, Group::Ecp256],
    }];
    connection.ike_lifetime =
        IkeLifetime { time: Duration::from_secs(8 * 3600), margin: Duration::from_secs(540), fuzz_percent: 100 };
    let mut child = Child::named("Tunnel1");
    child.esp = vec![EspProposal {
        encryption: vec![Encryption::Aes128Cbc],
        integrity: vec![Integrity::Sha256],
        groups: vec![Group::Curve25519],
        esn: vec![false],
    }];
    child.lifetime = Lifetime::default();
    let (ours, theirs) =
        if local == LEFT { ("10.60.0.0/16", "10.50.0.0/16") } else { ("10.50.0.0/16", "10.60.0.0/16") };
    child.local = vec![Selector::net(ours.parse().unwrap())];
    child.remote = vec![Selector::net(theirs.parse().unwrap())];
    child.start = Start::AtOnce;
    connection.children = vec![child];
    connection
}

/// Both connections, and a world of two gateways that has not begun yet.
pub(crate) fn world(version: Version, link: Link, seed: u64) -> World<Gateway> {
    world_of(connection(version, LEFT, RIGHT), connection(version, RIGHT, LEFT), link, seed)
}

/// A world of two gateways with these connections.
pub(crate) fn world_of(left: Connection, right: Connection, link: Link, seed: u64) -> World<Gateway> {
    let gateway = |address, connection, seed| Gateway::new(address, connection, Options::default(), seed);
    let hosts = vec![gateway(LEFT, left, 2 * seed), gateway(RIGHT, right, 2 * seed + 1)];
    World::new(Network::new(link, seed), hosts)
}

/// The same with the left gateway behind a NAT with this public address, whose peer expects that address' identity.
pub(crate) fn behind_nat(version: Version, public: &str) -> World<Gateway> {
    let mut left = connection(version, LEFT, RIGHT);
    left.local.id = Some(Identity::Ip(public.parse().unwrap()));
    let mut right = connection(version, RIGHT, LEFT);
    right.remote.address = Address::Any;
    right.remote.id = left.local.id.clone();
    right.children[0].start = Start::Wait;
    let mut world = world_of(left, right, Link::default(), 7);
    world.network.nats.push(sim::Nat::masquerade(LEFT.parse().unwrap(), public.parse().unwrap()));
    world
}

/// Lets the host of this number begin.
pub(crate) fn initiate(world: &mut World<Gateway>, host: usize) {
    let now = world.now;
    world.hosts[host].act(now, |endpoint| endpoint.initiate(PEER, None, now));
}

/// Whether both are settled and their keys agree.
pub(crate) fn agree(world: &World<Gateway>) -> bool {
    let [left, right] = world.hosts.as_slice() else { return false };
    let pair = |gateway: &Gateway| gateway.sas.values().next().cloned();
    left.is_settled()
        && right.is_settled()
        && pair(left).zip(pair(right)).is_some_and(|(a, b)| {
            (a.keys.inbound, a.inbound_spi, a.suite) == (b.keys.outbound, b.outbound_spi, b.suite)
                && (a.keys.outbound, a.outbound_spi) == (b.keys.inbound, b.inbound_spi)
        })
}

/// Lets time pass until both agree, at most so long; says whether they do.
pub(crate) fn settles_within(world: &mut World<Gateway>, time: Duration) -> bool {
    let end = world.now + time;
    world.run_until(end, agree)
}

/// A socket address.
pub(crate) fn socket(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}
