//! What a path takes, as two gateways find it out.

use std::time::Duration;

use gateway::status::SaStatus;
use gateway::{Command, RekeyWhat};
use model::{Encapsulation, Routing, Start, Version, Versions};
use sim::{Link, World};

use crate::Site;
use crate::site::{INNER, OUTER, come_up, name, world, world_with};

const SECOND: Duration = Duration::from_secs(1);

fn sa(world: &World<Site>, place: usize) -> SaStatus {
    let connection = world.hosts[place].connection("site", world.now);
    connection.children[0].sas.last().cloned().unwrap()
}

/// MTU inside and outside, and where it comes from.
fn shown(world: &World<Site>, place: usize) -> (u16, u16, String) {
    let sa = sa(world, place);
    (sa.mtu, sa.outer_mtu, sa.outer_mtu_from)
}

/// Sends a packet of so many bytes from the first site; whether it arrives.
fn passes(world: &mut World<Site>, len: u16) -> bool {
    let (now, before) = (world.now, world.hosts[1].delivered.len());
    let payload = vec![7; usize::from(len) - 28];
    world.hosts[0].send_bytes(INNER[0], INNER[1], &payload, now);
    world.run_for(Duration::from_millis(100));
    world.hosts[1].delivered.len() > before
}

#[test]
fn a_tunnel_confirms_its_mtu_with_one_probe_each_way_and_says_so() {
    let mut world = world(Start::AtOnce, 1);
    assert!(come_up(&mut world, SECOND));
    assert_eq!(sa(&world, 0).outer_mtu_from, "assumed");
    let sent = world.network.wire.len();
    world.run_for(10 * SECOND);
    // A request and an answer each way, and nothing else but keepalives.
    let said = world.network.wire[sent..].iter().filter(|datagram| datagram.payload.len() > 1).count();
    assert_eq!(said, 4);
    for place in [0, 1] {
        let sa = sa(&world, place);
        assert_eq!((sa.outer_mtu, sa.outer_mtu_from.as_str()), (1_500, "probed"));
        assert!(sa.outer_mtu_probed_ago_s.is_some_and(|ago| ago >= 8) && sa.outer_mtu_unprobed.is_none());
    }
    assert_eq!(world.hosts[0].told("path_mtu"), 0, "nothing is new");
}

#[test]
fn a_black_hole_is_found_and_packets_pass_it() {
    let mut world = world(Start::AtOnce, 2);
    world.network.mtu = Some(1_300);
    assert!(come_up(&mut world, SECOND));
    assert!(!passes(&mut world, 1_400));
    world.run_for(30 * SECOND);
    for place in [0, 1] {
        let (inner, outer, from) = shown(&world, place);
        assert_eq!((outer, from.as_str()), (1_300, "probed"));
        assert!((1_222..=1_238).contains(&inner), "{inner}");
        assert_eq!(world.hosts[place].told("path_mtu"), 1);
        assert_eq!(world.hosts[place].refused, Vec::<String>::new());
    }
    let inner = sa(&world, 0).mtu;
    assert!(passes(&mut world, inner));
    assert!(!passes(&mut world, inner + 1), "its sender has forbidden to cut it");
    let now = world.now;
    world.hosts[0].order(Command::Rekey { target: "site".into(), what: RekeyWhat::Children }, now);
    world.run_for(SECOND);
    assert_eq!(shown(&world, 0).1, 1_300, "an SA that takes the place of another knows what it knew");
    assert!(passes(&mut world, inner));
}

#[test]
fn the_device_of_a_tunnel_follows_its_path() {
    let mut world = world_with(Start::AtOnce, Link::default(), 3, |_, connection| {
        let child = &mut connection.children[0];
        child.routing = Routing::Device { name: "tunnel1".into(), addresses: vec![], routes: vec![], mark: None };
    });
    world.network.mtu = Some(1_400);
    assert!(come_up(&mut world, SECOND));
    world.run_for(30 * SECOND);
    let site = &world.hosts[0];
    let device = site.devices.iter().find(|device| device.name == name("tunnel1")).unwrap();
    assert_eq!((device.mtu, shown(&world, 0).1), (sa(&world, 0).mtu, 1_400));
}

#[test]
fn nobody_shrinks_a_tunnel_by_saying_so() {
    let mut world = world(Start::AtOnce, 4);
    assert!(come_up(&mut world, SECOND));
    world.run_for(5 * SECOND);
    let largest = sa(&world, 0).mtu;
    for second in 0..120 {
        let now = world.now;
        world.hosts[0].gateway.note_path_mtu(OUTER[1].parse().unwrap(), 576 + second, now);
        world.hosts[0].settle(now);
        assert!(passes(&mut world, largest));
        assert_eq!(shown(&world, 0).1, 1_500);
        world.run_for(SECOND);
    }
    let (now, sent) = (world.now, world.network.wire.len());
    assert!(sent < 400, "an attacker makes it send {sent} datagrams in two minutes at {now}");
}

#[test]
fn a_true_word_of_a_router_is_verified_and_followed() {
    let mut world = world(Start::AtOnce, 5);
    assert!(come_up(&mut world, SECOND));
    world.run_for(5 * SECOND);
    world.network.mtu = Some(1_400);
    let now = world.now;
    world.hosts[0].gateway.note_path_mtu(OUTER[1].parse().unwrap(), 1_400, now);
    world.hosts[0].settle(now);
    world.run_for(3 * SECOND);
    let (_, outer, from) = shown(&world, 0);
    assert_eq!((outer, from.as_str()), (1_400, "probed"));
}

fn v1(_: usize, c: &mut model::Connection) {
    c.versions = Versions::Only(Version::V1);
    c.ike.retain(|p| p.encryption.iter().all(|e| !e.is_aead()));
    c.children[0].esp.retain(|p| p.encryption.iter().all(|e| !e.is_aead()));
}

#[test]
fn an_ikev1_peer_is_asked_with_filled_questions_of_dead_peer_detection() {
    let mut world = world_with(Start::AtOnce, Link::default(), 6, v1);
    assert!(come_up(&mut world, 5 * SECOND));
    world.run_for(10 * SECOND);
    for place in [0, 1] {
        let (_, outer, from) = shown(&world, place);
        assert_eq!((outer, from.as_str()), (1_500, "probed"));
        assert_eq!(sa(&world, place).outer_mtu_unprobed, None);
    }
    // A line on the way becomes a narrower one, and swallows in silence what it does not take.
    world.network.mtu = Some(1_300);
    for _ in 0..120 {
        let now = world.now;
        world.hosts[0].send(INNER[0], INNER[1], now);
        world.hosts[1].send(INNER[1], INNER[0], now);
        world.run_for(SECOND);
    }
    for place in [0, 1] {
        let (_, outer, from) = shown(&world, place);
        assert_eq!(from, "probed");
        // AES-CBC leaves no more than 15 bytes of the path unused.
        assert!((1_285..=1_300).contains(&outer), "{outer}");
        assert_eq!((world.hosts[place].told("ike_up"), world.hosts[place].told("ike_down")), (1, 0));
    }
    let inner = sa(&world, 0).mtu;
    assert!(passes(&mut world, inner) && !passes(&mut world, inner + 1));
}

// The first site probes; from then on nothing arrives until it has given the IKE SA up.
#[test]
fn a_peer_that_falls_silent_over_probes_is_left_alone() {
    let mut world = world_with(Start::AtOnce, Link::default(), 8, |place, connection| {
        let action = if place == 0 { model::DpdAction::Restart } else { model::DpdAction::Clear };
        connection.dpd = Some(model::Dpd { delay: 2 * SECOND, timeout: 6 * SECOND, action });
    });
    let (mut ups, mut seen) = (0, 0);
    for _ in 0..12_000 {
        world.run_for(Duration::from_millis(5));
        let asked =
            world.network.wire[seen..].iter().any(|d| d.source.ip().to_string() == OUTER[0] && d.payload.len() > 1_000);
        seen = world.network.wire.len();
        if asked {
            world.network.is_cut = true;
        }
        if world.hosts[0].told("ike_down") > ups {
            ups = world.hosts[0].told("ike_down");
            world.network.is_cut = false;
        }
    }
    let sa = sa(&world, 0);
    assert_eq!((sa.outer_mtu, sa.outer_mtu_unprobed.as_deref()), (1_500, Some("its IKE SA ended over probes")));
    assert!(ups <= 3, "it went down {ups} times");
}

#[test]
fn plain_esp_and_esp_in_udp_have_the_mtu_of_the_aws_user_guide_once_it_is_probed() {
    use base::algorithm::{Encryption, Integrity};
    for (encapsulation, integrity, expected) in [
        (Encapsulation::Force, Integrity::Sha1, 1_422),
        (Encapsulation::Force, Integrity::Sha256, 1_422),
        (Encapsulation::Auto, Integrity::Sha1, 1_438),
        (Encapsulation::Auto, Integrity::Sha256, 1_438),
        (Encapsulation::Auto, Integrity::Sha384, 1_422),
        (Encapsulation::Auto, Integrity::Sha512, 1_422),
        (Encapsulation::Force, Integrity::Sha512, 1_406),
    ] {
        let mut world = world_with(Start::AtOnce, Link::default(), 7, |_, connection| {
            connection.encapsulation = encapsulation;
            for proposal in &mut connection.ike {
                proposal.encryption = vec![Encryption::Aes128Cbc];
                proposal.integrity = vec![integrity];
            }
            for proposal in &mut connection.children[0].esp {
                proposal.encryption = vec![Encryption::Aes128Cbc];
                proposal.integrity = vec![integrity];
            }
        });
        world.network.mtu = Some(1_500);
        assert!(come_up(&mut world, SECOND));
        world.run_for(5 * SECOND);
        let (inner, _, from) = shown(&world, 0);
        assert_eq!((inner, from.as_str()), (expected, "probed"), "{encapsulation:?} {integrity:?}");
    }
}

#[test]
fn a_packet_that_an_icmp_error_quotes_is_known_by_its_way_and_its_spi() {
    let mut world = world(Start::AtOnce, 9);
    assert!(come_up(&mut world, SECOND));
    let sa = sa(&world, 0);
    let end = |text: &str| text.parse::<std::net::SocketAddr>().unwrap();
    let (local, remote) = (end(&sa.local_endpoint), end(&sa.remote_endpoint));
    let is_udp = sa.encapsulation == "udp";
    let way = |end: std::net::SocketAddr| (end.ip(), is_udp.then_some(end.port()));
    let spi = u32::from_str_radix(sa.outbound_spi.trim_start_matches("0x"), 16).unwrap();
    let quoted = packet::icmp::Quoted { source: way(local), destination: way(remote), spi: Some(spi) };
    let gateway = &world.hosts[0].gateway;
    assert!(gateway.has_sent(&quoted));
    assert!(gateway.has_sent(&packet::icmp::Quoted { spi: None, ..quoted }));
    for forged in [
        packet::icmp::Quoted { spi: Some(spi ^ 1), ..quoted },
        packet::icmp::Quoted { source: way(remote), destination: way(local), ..quoted },
        packet::icmp::Quoted { source: (local.ip(), Some(501)), ..quoted },
    ] {
        assert!(!gateway.has_sent(&forged), "{forged:?}");
    }
}
