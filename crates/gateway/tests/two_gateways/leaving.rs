//! A tunnel of two goes on purpose, by the one end or the other, while traffic passes: not a packet is lost.
//!
//! ```text
//!          .--- tunnel1 --- cloud endpoint 1 ---.
//!  office -|                                    |- the cloud's router, which asks the endpoints now and then
//!          '--- tunnel2 --- cloud endpoint 2 ---'
//! ```

use std::time::Duration;

use base::Instant;
use gateway::Command;
use model::{Address, Config, Connection, Encapsulation, GatewayOptions, Routing, Selector, Start, Version, Versions};
use sim::{Link, Network, World};

use crate::Site;
use crate::handover::hand_over_to;
use crate::site::{INNER, OUTER, connection};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// How late the cloud's router learns what its endpoints say.
const REACTION: u32 = 60;

/// Where packets of the office and of the cloud come from.
const OFFICE: &str = INNER[0];
const CLOUD: &str = INNER[1];

/// Tunnel 1 or 2 as the office has it, or the endpoint of the cloud at its other end.
fn tunnel(number: usize, is_office: bool, version: Version) -> Connection {
    let (own, other) = if is_office { (0, number) } else { (number, 0) };
    let mut connection = connection(0, if is_office { Start::AtOnce } else { Start::Wait });
    connection.name = format!("tunnel{number}");
    connection.versions = Versions::Only(version);
    connection.local.address = Address::Ip(OUTER[own].parse().unwrap());
    connection.remote.address = Address::Ip(OUTER[other].parse().unwrap());
    connection.encapsulation = Encapsulation::Force;
    let everything = vec![Selector::net("0.0.0.0/0".parse().unwrap())];
    let child = &mut connection.children[0];
    (child.local, child.remote) = (everything.clone(), everything);
    let host = if is_office { 2 } else { 1 };
    child.routing = Routing::Device {
        name: connection.name.clone(),
        addresses: vec![format!("169.254.{number}.{host}/30").parse().unwrap()],
        routes: vec![],
        mark: None,
    };
    if version == Version::V1 {
        connection.ike.retain(|p| p.encryption.iter().all(|e| !e.is_aead()));
        child.esp.retain(|p| p.encryption.iter().all(|e| !e.is_aead()));
    }
    connection
}

fn config(place: usize, version: Version) -> Config {
    let numbers = if place == 0 { vec![1, 2] } else { vec![place] };
    let mut vpn = model::Vpn::named("vpn");
    vpn.tunnels = numbers.iter().map(|number| format!("tunnel{number}")).collect();
    vpn.routes = vec![if place == 0 { "10.2.0.0/16" } else { "10.1.0.0/16" }.parse().unwrap()];
    Config {
        gateway: GatewayOptions::default(),
        connections: numbers.into_iter().map(|number| tunnel(number, place == 0, version)).collect(),
        vpns: vec![vpn],
        ..Config::default()
    }
}

struct Played {
    world: World<Site>,
    /// What the cloud's router knew, newest last: the endpoint that it sends through.
    ways: Vec<usize>,
    sent: [usize; 2],
}

impl Played {
    fn new(version: Version) -> Self {
        let mut sites: Vec<Site> = (0..3).map(|place| Site::new(place, 7)).collect();
        for place in [1, 2, 0] {
            sites[place].apply(config(place, version), Instant::ZERO);
        }
        let mut played =
            Self { world: World::new(Network::new(Link::default(), 7), sites), ways: vec![1], sent: [0; 2] };
        played.world.run_for(20 * SECOND);
        assert_eq!(played.active(), ["tunnel1/net"]);
        played
    }

    fn active(&self) -> Vec<String> {
        self.world.hosts[0].gateway.status(self.world.now).vpns[0].active.clone()
    }

    fn is_up(&self, endpoint: usize) -> bool {
        self.world.hosts[endpoint].gateway.status(self.world.now).vpns[0].state == "up"
    }

    /// Lets traffic pass both ways for so long, a packet each millisecond.
    fn pass(&mut self, milliseconds: u32) {
        for _ in 0..milliseconds {
            let way = [1, 2].into_iter().find(|endpoint| self.is_up(*endpoint));
            self.ways.push(way.unwrap_or(1));
            let through = self.ways[self.ways.len().saturating_sub(REACTION as usize)];
            let now = self.world.now;
            self.sent[0] += 1;
            self.world.hosts[0].send_routed(OFFICE, CLOUD, now);
            self.sent[1] += 1;
            self.world.hosts[through].send_routed(CLOUD, OFFICE, now);
            self.world.run_for(MS);
        }
    }

    /// What was lost on the way to the cloud and back, once everything has arrived.
    fn lost(&mut self) -> [usize; 2] {
        self.world.run_for(SECOND);
        let [office, first, second] = [0, 1, 2].map(|place| self.world.hosts[place].delivered.len());
        for site in &self.world.hosts {
            assert_eq!(site.refused, Vec::<String>::new());
        }
        [self.sent[0] - (first + second), self.sent[1] - office]
    }

    /// The office drains the first tunnel while traffic passes, until that is over.
    fn drain(&mut self) {
        self.order(0, Command::Drain("tunnel1".into()));
        for _ in 0..70 {
            // Both directions of tunnel 1, seen from the office, as its data path counts them.
            let (now, site) = (self.world.now, &mut self.world.hosts[0]);
            let carried = site.carried.clone();
            let endpoint = OUTER[1].parse().unwrap();
            site.gateway.note_carried(|_| carried.get(&endpoint).copied().unwrap_or_default(), now);
            site.settle(now);
            if !site.gateway.is_draining() {
                break;
            }
            self.pass(1_000);
        }
        self.pass(300);
    }

    fn order(&mut self, place: usize, command: Command) {
        let now = self.world.now;
        self.world.hosts[place].order(command, now);
    }
}

const BOTH: [Version; 2] = [Version::V1, Version::V2];

// office <- DELETE -- endpoint 1, while packets of both are under way
#[test]
fn a_tunnel_that_the_cloud_deletes_loses_no_packet() {
    for version in BOTH {
        let mut played = Played::new(version);
        played.pass(200);
        played.order(1, Command::Down("tunnel1".into()));
        played.pass(500);
        assert_eq!(played.active(), ["tunnel2/net"], "{version:?}");
        assert_eq!(played.lost(), [0, 0], "{version:?}");
    }
}

// office -- DELETE -> endpoint 1, which has no other tunnel: the cloud's router hears that it goes
#[test]
fn a_tunnel_that_the_office_takes_down_loses_no_packet() {
    for version in BOTH {
        let mut played = Played::new(version);
        played.pass(200);
        played.order(0, Command::Down("tunnel1".into()));
        played.pass(500);
        assert_eq!(played.active(), ["tunnel2/net"], "{version:?}");
        assert_eq!(played.lost(), [0, 0], "{version:?}");
    }
}

#[test]
fn a_tunnel_that_the_peer_deletes_is_left_before_the_peer_has_its_answer() {
    let mut played = Played::new(Version::V2);
    played.order(1, Command::Down("tunnel1".into()));
    let before = played.world.hosts[0].done.len();
    played.world.run_for(100 * MS);
    let done = &played.world.hosts[0].done[before..];
    let place = |what: &str| done.iter().position(|step| step.starts_with(what)).unwrap();
    assert!(place("route 10.2.0.0/16 tunnel2") < place("send"), "{done:?}");
}

#[test]
fn traffic_has_left_a_tunnel_before_the_peer_hears_that_it_goes_down() {
    for version in BOTH {
        let mut played = Played::new(version);
        let before = played.world.hosts[0].done.len();
        played.order(0, Command::Down("tunnel1".into()));
        let done = &played.world.hosts[0].done[before..];
        let place = |what: &str| done.iter().position(|step| step.starts_with(what)).unwrap();
        assert!(place("route 10.2.0.0/16 tunnel2") < place("send"), "{version:?}: {done:?}");
    }
}

#[test]
fn two_seconds_later_nothing_passes_and_packets_are_refused() {
    for version in BOTH {
        let mut played = Played::new(version);
        for number in [1, 2] {
            played.order(0, Command::Down(format!("tunnel{number}")));
        }
        played.world.run_for(SECOND);
        assert_eq!(played.world.hosts[0].gateway.status(played.world.now).vpns[0].state, "leaving", "{version:?}");
        played.world.run_for(1_500 * MS);
        let now = played.world.now;
        assert_eq!(played.world.hosts[0].gateway.status(now).vpns[0].state, "down", "{version:?}");
        assert!(!played.world.hosts[0].send_routed(OFFICE, CLOUD, now), "{version:?}");
        assert!(played.world.hosts.iter().all(|site| site.data.export(now).is_empty()), "{version:?}");
        assert_eq!(played.active(), Vec::<String>::new(), "{version:?}");
    }
}

// office -- DELETE -> endpoint 1, or the other way round;  another process takes a gateway's place while the SAs linger
#[test]
fn a_hand_over_while_the_sas_of_a_deleted_tunnel_linger_loses_no_packet() {
    for version in BOTH {
        for (who_orders, who_hands_over, after) in
            [(0, 0, 5), (0, 0, 900), (0, 1, 5), (0, 1, 40), (1, 0, 5), (1, 0, 40), (1, 1, 5), (1, 1, 900)]
        {
            let mut played = Played::new(version);
            played.pass(200);
            played.order(who_orders, Command::Down("tunnel1".into()));
            played.pass(after);
            hand_over_to(&mut played.world, who_hands_over, config(who_hands_over, version), 1);
            played.pass(3_000);
            let case = (version, who_orders, who_hands_over, after);
            assert_eq!(played.lost(), [0, 0], "{case:?}");
        }
    }
}

// The only tunnel of endpoint 1, and the last one of the office.
#[test]
fn a_hand_over_while_the_last_tunnel_lingers_costs_nothing() {
    for version in BOTH {
        let passed = |handed_over: Option<usize>| {
            let mut played = Played::new(version);
            played.order(0, Command::Down("tunnel2".into()));
            played.pass(3_000);
            played.order(0, Command::Down("tunnel1".into()));
            played.pass(500);
            if let Some(place) = handed_over {
                hand_over_to(&mut played.world, place, config(place, version), 1);
            }
            played.pass(3_000);
            (played.world.hosts[0].delivered.len(), played.world.hosts[1].delivered.len())
        };
        let without = passed(None);
        for place in [0, 1] {
            assert_eq!(passed(Some(place)), without, "{version:?}, gateway {place}");
        }
    }
}

#[test]
fn a_tunnel_that_is_brought_up_again_at_once_carries_traffic_again() {
    for version in BOTH {
        let mut played = Played::new(version);
        played.order(0, Command::Down("tunnel1".into()));
        played.pass(100);
        played.order(0, Command::Up("tunnel1".into()));
        played.pass(4_000);
        assert_eq!(played.active(), ["tunnel1/net"], "{version:?}");
        assert_eq!(played.lost(), [0, 0], "{version:?}");
    }
}

// office -- N(DRAINS) -> endpoint 1; the cloud's router hears it; office -- DELETE -> endpoint 1
#[test]
fn a_drain_over_static_routes_moves_both_ways_and_loses_no_packet() {
    let mut played = Played::new(Version::V2);
    played.pass(200);
    played.drain();
    assert_eq!(played.world.hosts[0].told("drained"), 1);
    assert!(!played.is_up(1));
    assert_eq!(played.active(), ["tunnel2/net"]);
    assert_eq!(played.lost(), [0, 0]);
    let said: Vec<_> = played.world.hosts[0].events.iter().filter(|e| e.name == "drain").map(|e| &*e.text).collect();
    assert_eq!(said.last(), Some(&"the other end sends around tunnel1/net too"));
}

#[test]
fn a_drain_that_is_taken_back_lets_traffic_of_both_ends_come_again() {
    let mut played = Played::new(Version::V2);
    played.order(0, Command::Drain("tunnel1".into()));
    played.pass(300);
    assert!(!played.is_up(1) && played.active() == ["tunnel2/net"]);
    played.order(0, Command::Up("tunnel1".into()));
    played.pass(300);
    assert!(played.is_up(1) && played.active() == ["tunnel1/net"]);
    assert_eq!(played.lost(), [0, 0]);
}

// office -- DELETE -> endpoint 1, a minute later, while it still sends
#[test]
fn a_peer_that_cannot_be_asked_is_told_by_the_end_of_the_tunnel() {
    let mut played = Played::new(Version::V1);
    played.pass(100);
    played.drain();
    let drained: Vec<_> = played.world.hosts[0].events.iter().filter(|e| e.name == "drained").collect();
    assert!(drained[0].text.contains("cannot be asked"), "{}", drained[0].text);
    played.pass(300);
    // The endpoint sees the DELETE, and what it sends meanwhile is taken in.
    assert_eq!(played.lost(), [0, 0]);
}
