//! What happens between two gateways.

use std::time::Duration;

use base::{Instant, Machine, Random};
use gateway::{Command, CommandError, Gateway, Output, RekeyWhat, State};
use model::{Address, Config, Dpd, DpdAction, GatewayOptions, Routing, Selector, Start, Version, Versions};
use sim::{Link, World};

use crate::Site;
use crate::site::{INNER, both_ways, come_up, connection, name, world, world_with};

const SECOND: Duration = Duration::from_secs(1);

fn nothing_refused(world: &World<Site>) {
    for site in &world.hosts {
        assert_eq!(site.refused, Vec::<String>::new());
    }
}

#[test]
fn a_connection_that_starts_at_once_comes_up_in_both_versions_and_carries_packets() {
    for version in [Version::V1, Version::V2] {
        let mut world = world_with(Start::AtOnce, Link::default(), 1, |_, connection| {
            connection.versions = Versions::Only(version);
            if version == Version::V1 {
                connection.ike.retain(|p| p.encryption.iter().all(|e| !e.is_aead()));
                connection.children[0].esp.retain(|p| p.encryption.iter().all(|e| !e.is_aead()));
            }
        });
        assert!(come_up(&mut world, SECOND), "{version:?}");
        world.run_for(SECOND);
        assert!(both_ways(&mut world), "{version:?}");
        nothing_refused(&world);
    }
}

#[test]
fn a_peer_that_does_not_answer_is_said_to_be_tried_and_then_why_it_failed() {
    for version in [Version::V1, Version::V2] {
        let mut world = world_with(Start::AtOnce, Link::default(), 1, |_, connection| {
            connection.versions = Versions::Only(version);
            connection.tries = model::Tries::Times(1);
        });
        world.network.is_cut = true;
        world.run_for(SECOND);
        assert_eq!(world.hosts[0].state(world.now), State::Connecting, "{version:?}");
        assert_eq!(world.hosts[0].told("connecting"), 1, "{version:?}");
        world.run_for(120 * SECOND);
        let site = world.hosts[0].connection("site", world.now);
        assert_eq!(
            (site.state, site.last_failure.unwrap().cause.as_str()),
            (State::Waiting, "no_answer"),
            "{version:?}"
        );
    }
}

#[test]
fn without_an_sa_a_packet_is_dropped_and_not_sent_in_clear() {
    let mut world = world(Start::Wait, 1);
    assert!(!world.hosts[0].send(INNER[0], INNER[1], Instant::ZERO));
    world.run_for(30 * SECOND);
    assert!(world.network.wire.is_empty(), "something left: {:?}", world.network.wire);
    assert_eq!(world.hosts[0].state(world.now), State::Waiting);
}

#[test]
fn traffic_brings_a_connection_up_and_a_burst_of_it_asks_once() {
    let mut world = world(Start::OnTraffic, 2);
    world.run_for(10 * SECOND);
    assert!(world.network.wire.is_empty());
    let now = world.now;
    for _ in 0..100 {
        world.hosts[0].send(INNER[0], INNER[1], now);
    }
    assert!(come_up(&mut world, SECOND));
    assert_eq!(world.hosts[0].told("traffic"), 1);
    assert!(both_ways(&mut world));
}

#[test]
fn traffic_towards_a_dead_peer_does_not_ask_with_every_packet() {
    let mut world = world_with(Start::OnTraffic, Link::default(), 2, |_, c| c.tries = model::Tries::Times(1));
    world.network.is_cut = true;
    for _ in 0..20 {
        let now = world.now;
        world.hosts[0].send(INNER[0], INNER[1], now);
        world.run_for(SECOND);
    }
    assert_eq!(world.hosts[0].told("traffic"), 4);
}

#[test]
fn traffic_does_not_bring_up_what_was_ordered_down() {
    let mut world = world(Start::OnTraffic, 3);
    world.hosts[0].order(Command::Down("site".into()), Instant::ZERO);
    world.hosts[0].send(INNER[0], INNER[1], Instant::ZERO);
    world.run_for(20 * SECOND);
    assert_eq!(world.hosts[0].state(world.now), State::Down);
    assert!(world.network.wire.is_empty());
    let now = world.now;
    world.hosts[0].order(Command::Up("site".into()), now);
    assert!(come_up(&mut world, SECOND));
}

#[test]
fn an_order_takes_a_connection_down_at_both_ends() {
    let mut world = world(Start::AtOnce, 4);
    assert!(come_up(&mut world, SECOND));
    let now = world.now;
    world.hosts[0].order(Command::Down("site/net".into()), now);
    world.run_for(SECOND);
    assert!(world.hosts.iter().all(|site| site.connection("site", now).children[0].sas.is_empty()));
    let now = world.now;
    world.hosts[0].order(Command::Down("site".into()), now);
    world.run_for(60 * SECOND);
    let states: Vec<_> = world.hosts.iter().map(|site| site.state(world.now)).collect();
    assert_eq!(states, [State::Down, State::Waiting]);
    assert!(world.hosts.iter().all(|site| !site.gateway.has_sas()));
}

#[test]
fn new_keys_by_order_lose_no_packet() {
    let mut world = world(Start::AtOnce, 5);
    assert!(come_up(&mut world, SECOND));
    world.run_for(SECOND);
    let spi = |world: &World<Site>| {
        world.hosts[0].connection("site", world.now).children[0].sas.last().unwrap().inbound_spi.clone()
    };
    for what in [RekeyWhat::Children, RekeyWhat::Ike, RekeyWhat::Children] {
        let (now, old) = (world.now, spi(&world));
        world.hosts[0].order(Command::Rekey { target: "site".into(), what }, now);
        for _ in 0..10 {
            assert!(both_ways(&mut world), "{what:?}");
        }
        assert_eq!(spi(&world) == old, what == RekeyWhat::Ike, "{what:?}");
    }
    for site in &world.hosts {
        let counted = site.connection("site", world.now).negotiations;
        assert_eq!((counted.child_rekeys, counted.ike_rekeys), (2, 1));
        assert_eq!((counted.phase1.succeeded, counted.phase2.succeeded, counted.phase1.failed), (2, 3, 0));
    }
    nothing_refused(&world);
}

#[test]
fn a_wrong_key_is_named_at_both_ends_until_it_is_right() {
    let mut world = world_with(Start::AtOnce, Link::default(), 6, |place, connection| {
        if place == 1 {
            connection.psk = vec![base::Secret::from(&b"another key"[..])];
        }
    });
    world.run_for(SECOND);
    let causes: Vec<_> = world
        .hosts
        .iter()
        .map(|site| site.connection("site", world.now).last_failure.map(|failure| failure.cause).unwrap_or_default())
        .collect();
    assert_eq!(causes, ["refused_by_peer", "wrong_psk"]);
    let counted = world.hosts[0].connection("site", world.now).negotiations;
    assert!(counted.phase1.failed > 0 && counted.failures["refused_by_peer"] == counted.phase1.failed, "{counted:?}");
    let now = world.now;
    world.hosts[1].load(vec![connection(1, Start::Wait)], now);
    assert!(come_up(&mut world, 120 * SECOND), "the first end tries again by itself");
    assert!(world.hosts[0].connection("site", world.now).last_failure.is_none());
}

#[test]
fn a_reload_leaves_alone_what_did_not_change() {
    let mut world = world(Start::AtOnce, 7);
    assert!(come_up(&mut world, SECOND));
    // The path has been probed.
    world.run_for(2 * SECOND);
    let sent = world.network.wire.len();
    let (now, before) = (world.now, world.hosts[0].connection("site", world.now).children[0].sas.clone());
    let mut moved = connection(0, Start::AtOnce);
    let source = model::Source { file: "new.conf".into(), line: 99, text: "conn site".into() };
    moved.sources.set(model::Setting::Connection, source);
    let other = model::Connection { name: "other".into(), ..connection(0, Start::Wait) };
    world.hosts[0].load(vec![moved, other], now);
    world.run_for(SECOND);
    assert_eq!(world.network.wire.len(), sent, "an unchanged connection said something");
    assert_eq!(world.hosts[0].connection("site", now).children[0].sas[0].id, before[0].id);
    assert!(both_ways(&mut world));
    nothing_refused(&world);
}

#[test]
fn a_reload_negotiates_anew_what_changed_and_takes_down_what_is_gone() {
    let mut world = world(Start::AtOnce, 8);
    assert!(come_up(&mut world, SECOND));
    let now = world.now;
    let mut changed = connection(0, Start::AtOnce);
    changed.children[0].replay_window = 2048;
    world.hosts[0].load(vec![changed], now);
    world.run_for(2 * SECOND);
    assert!(both_ways(&mut world));
    let now = world.now;
    let reloaded = world.hosts[0].connection("site", now);
    assert_eq!(reloaded.children[0].sas[0].replay_window, 2048);
    assert_eq!(reloaded.negotiations.phase2.succeeded, 2, "what was counted outlives a reload");
    world.hosts[0].load(vec![], now);
    world.run_for(60 * SECOND);
    assert!(world.hosts.iter().all(|site| !site.gateway.has_sas()));
    assert!(world.hosts[0].routes.is_empty() && world.hosts[0].devices.is_empty());
    nothing_refused(&world);
}

#[test]
fn a_changed_key_is_taken_up_without_a_drop_and_the_old_one_is_accepted_for_a_day() {
    for version in [Version::V1, Version::V2] {
        let with_key = |place: usize, key: &str| {
            let start = if place == 0 { Start::AtOnce } else { Start::Wait };
            let mut connection = connection(place, start);
            connection.versions = Versions::Only(version);
            if version == Version::V1 {
                connection.ike.retain(|p| p.encryption.iter().all(|e| !e.is_aead()));
                connection.children[0].esp.retain(|p| p.encryption.iter().all(|e| !e.is_aead()));
            }
            connection.psk = vec![base::Secret::from(key.as_bytes())];
            connection
        };
        let mut world = world_with(Start::AtOnce, Link::default(), 1, |place, c| *c = with_key(place, "old"));
        assert!(come_up(&mut world, SECOND), "{version:?}");
        let (now, before) = (world.now, world.hosts[1].connection("site", world.now).children[0].sas[0].id);
        world.hosts[1].load(vec![with_key(1, "new")], now);
        world.run_for(SECOND);
        assert_eq!(world.hosts[1].connection("site", now).children[0].sas[0].id, before, "{version:?}: nothing fell");
        // The other end still has the old key and authenticates anew.
        let again = |world: &mut World<Site>, ok: bool| {
            let now = world.now;
            world.hosts[0].order(Command::Down("site".into()), now);
            world.run_for(SECOND);
            let now = world.now;
            world.hosts[0].order(Command::Up("site".into()), now);
            assert_eq!(come_up(world, 5 * SECOND), ok, "{version:?}");
        };
        again(&mut world, true);
        world.run_for(25 * 3_600 * SECOND);
        assert_eq!(world.hosts[1].told("key_retired"), 1);
        again(&mut world, false);
        let now = world.now;
        world.hosts[0].load(vec![with_key(0, "new")], now);
        again(&mut world, true);
        assert!(both_ways(&mut world));
    }
}

#[test]
fn a_stop_tells_the_peer() {
    let mut world = world(Start::AtOnce, 9);
    assert!(come_up(&mut world, SECOND));
    let now = world.now;
    world.hosts[0].gateway.shut_down(now);
    world.hosts[0].settle(now);
    world.run_for(SECOND);
    assert!(!world.hosts[0].gateway.has_sas());
    assert_eq!(world.hosts[1].state(world.now), State::Waiting);
    assert!(world.hosts[0].routes.is_empty() && world.hosts[0].devices.is_empty());
}

#[test]
fn a_peer_that_vanishes_and_comes_back_is_found_again() {
    let dpd = Dpd { delay: 10 * SECOND, timeout: 30 * SECOND, action: DpdAction::Restart };
    for seed in 0..5 {
        let mut world = world_with(Start::AtOnce, Link::default(), seed, |_, c| c.dpd = Some(dpd));
        assert!(come_up(&mut world, SECOND));
        world.network.is_cut = true;
        world.run_for(300 * SECOND);
        assert_ne!(world.hosts[0].state(world.now), State::Up);
        world.network.is_cut = false;
        assert!(come_up(&mut world, 120 * SECOND), "seed {seed}");
        world.run_for(5 * SECOND);
        assert!(both_ways(&mut world), "seed {seed}");
        nothing_refused(&world);
    }
}

#[test]
fn a_gateway_that_restarts_is_taken_back() {
    let dpd = Dpd { delay: 10 * SECOND, timeout: 30 * SECOND, action: DpdAction::Restart };
    for place in [0, 1] {
        let change = |_: usize, c: &mut model::Connection| c.dpd = Some(dpd);
        let mut world = world_with(Start::AtOnce, Link::default(), 11, change);
        assert!(come_up(&mut world, SECOND));
        let mut fresh = Site::new(place, 99);
        let mut own = connection(place, if place == 0 { Start::AtOnce } else { Start::Wait });
        change(place, &mut own);
        fresh.load(vec![own], world.now);
        world.hosts[place] = fresh;
        world.run_for(120 * SECOND);
        assert!(both_ways(&mut world), "place {place}");
        nothing_refused(&world);
    }
}

#[test]
fn on_a_bad_link_a_day_of_rekeys_ends_with_packets_passing() {
    for seed in 0..4 {
        let dpd = Dpd { delay: 10 * SECOND, timeout: 60 * SECOND, action: DpdAction::Restart };
        let mut world = world_with(Start::AtOnce, Link::bad(20), seed, |_, c| c.dpd = Some(dpd));
        world.run_for(24 * 3600 * SECOND);
        world.network.link = Link::default();
        world.run_for(300 * SECOND);
        assert!(both_ways(&mut world), "seed {seed}");
        assert!(world.hosts[0].told("child_rekeyed") > 20, "seed {seed}");
        nothing_refused(&world);
    }
}

#[test]
fn a_route_based_child_has_its_device_sized_to_its_sa() {
    let device = |place: usize| Routing::Device {
        name: "tunnel1".into(),
        addresses: vec![format!("169.254.10.{}/30", place + 1).parse().unwrap()],
        routes: vec!["10.0.0.0/8".parse().unwrap()],
        mark: None,
    };
    let mut world = world_with(Start::AtOnce, Link::default(), 12, |place, connection| {
        let everything = vec![Selector::net("0.0.0.0/0".parse().unwrap())];
        let child = &mut connection.children[0];
        (child.local, child.remote, child.routing) = (everything.clone(), everything, device(place));
        child.esp.retain(|p| p.encryption.iter().all(|e| !e.is_aead()));
    });
    assert!(come_up(&mut world, SECOND));
    let site = &world.hosts[0];
    let device = site.devices.iter().find(|device| device.name == name("tunnel1")).unwrap();
    let sa = &site.connection("site", world.now).children[0].sas[0];
    assert_eq!((device.mtu, sa.mtu, sa.encapsulation.as_str()), (1422, 1422, "udp"), "{}", sa.suite);
    let routes = site.gateway.routes(10);
    let shown: Vec<_> = routes.iter().map(|r| (&*r.protocol, &*r.destination, r.next_hops.join(","))).collect();
    let into = || "tunnel1".to_owned();
    assert_eq!(shown, [("connected", "169.254.10.0/30", into()), ("static", "10.0.0.0/8", into())]);
    assert_eq!(routes[1].from, ["site"]);
    assert_eq!(site.gateway.routes(1).len(), 1);
    nothing_refused(&world);
}

#[test]
fn a_connection_is_told_to_be_loaded_once_its_traffic_is_held() {
    let mut gateway = Gateway::new(GatewayOptions::default(), Random::for_test(1));
    let connections = vec![connection(0, Start::Wait)];
    gateway.apply(Config { connections, ..Config::default() }, Instant::ZERO);
    let outputs: Vec<Output> = std::iter::from_fn(|| gateway.poll_output()).collect();
    let last_of = |is_it: fn(&Output) -> bool| outputs.iter().rposition(is_it).unwrap();
    let loaded = last_of(|output| matches!(output, Output::Event(event) if event.name == "loaded"));
    assert!(last_of(|output| matches!(output, Output::Policy(_))) < loaded);
    assert!(last_of(|output| matches!(output, Output::Route(_))) < loaded);
}

#[test]
fn an_order_for_what_does_not_exist_names_what_does() {
    let mut gateway = Gateway::new(GatewayOptions::default(), Random::for_test(1));
    let mut any = connection(0, Start::Wait);
    any.name = "roaming".into();
    any.remote.address = Address::Any;
    let config = Config {
        gateway: GatewayOptions::default(),
        connections: vec![connection(0, Start::Wait), any],
        ..Config::default()
    };
    gateway.apply(config, Instant::ZERO);
    let mut order = |command| gateway.command(command, Instant::ZERO).unwrap_err();
    let nearest = Some("site".to_owned());
    assert_eq!(order(Command::Up("sit".into())), CommandError::UnknownConnection { name: "sit".into(), nearest });
    let unknown =
        CommandError::UnknownChild { connection: "site".into(), child: "ned".into(), nearest: Some("net".to_owned()) };
    assert_eq!(order(Command::Down("site/ned".into())), unknown);
    assert_eq!(order(Command::Up("roaming".into())), CommandError::NoAddress { connection: "roaming".into() });
    let rekey = Command::Rekey { target: "site".into(), what: RekeyWhat::Children };
    assert_eq!(order(rekey), CommandError::NotUp { connection: "site".into() });
}

#[test]
fn the_gateway_keeps_the_laws_of_a_machine() {
    let make = || Gateway::new(GatewayOptions::default(), Random::for_test(5));
    let load = |gateway: &mut Gateway, now: Instant| {
        let connections = vec![connection(0, Start::AtOnce)];
        gateway.apply(Config { gateway: GatewayOptions::default(), connections, ..Config::default() }, now);
    };
    let down = |gateway: &mut Gateway, now: Instant| gateway.command(Command::Down("site".into()), now).unwrap();
    let up = |gateway: &mut Gateway, now: Instant| gateway.command(Command::Up("site".into()), now).unwrap();
    let stop = |gateway: &mut Gateway, now: Instant| gateway.shut_down(now);
    let script: [sim::laws::Input<'_, Gateway>; 4] =
        [(SECOND, &load), (200 * SECOND, &down), (230 * SECOND, &up), (300 * SECOND, &stop)];
    sim::laws::check(make, &script, 400 * SECOND);
    let mut idle = make();
    assert_eq!((idle.poll_timeout(), idle.poll_output()), (None, None));
}
