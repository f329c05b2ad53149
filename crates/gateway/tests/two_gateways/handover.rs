//! A gateway with its data path hands over to another, by way of bytes, and neither its peer nor a packet notices.

use std::collections::BTreeSet;
use std::time::Duration;

use base::Random;
use esp::export::{ExportedSa, Standing};
use gateway::{Command, Exported, Gateway, RekeyWhat, State};
use model::{Config, Connection, GatewayOptions, Start, Version, Versions};
use sa::SaChange;
use sim::{Link, World};

use crate::Site;
use crate::site::{INNER, both_ways, come_up, connection, world_with};

const SECOND: Duration = Duration::from_secs(1);

fn through_bytes<T: serde::Serialize + for<'de> serde::Deserialize<'de>>(exported: &T) -> T {
    serde_json::from_str(&serde_json::to_string(exported).unwrap()).unwrap()
}

fn hand_over(world: &mut World<Site>, place: usize, connections: Vec<Connection>, seed: u64) {
    hand_over_to(world, place, Config { connections, ..Config::default() }, seed);
}

/// A new gateway and data path go on in place of the site's own.
pub(crate) fn hand_over_to(world: &mut World<Site>, place: usize, config: Config, seed: u64) {
    let now = world.now;
    let site = &mut world.hosts[place];
    let state: Exported = through_bytes(&site.gateway.export(now));
    let sas: Vec<ExportedSa> = through_bytes(&site.data.export(now));
    let standing: Standing = through_bytes(&site.data.standing(now));
    let mut next = Site::new(place, seed + 1_000);
    for sa in sas {
        next.data.apply(&SaChange::Install(Box::new(sa.into_child(now)))).unwrap();
    }
    next.data.resume(&standing, 0, now).unwrap();
    assert_eq!(next.data.standing(now), standing);
    next.gateway = Gateway::new(GatewayOptions::default(), Random::for_test(seed + 2_000));
    next.gateway.import(state.clone(), now).unwrap();
    // What was half negotiated begins anew: that alone makes a difference.
    if serde_json::to_string(&state).unwrap().contains("\"connecting\":[]") {
        assert_eq!(next.gateway.export(now), state);
    }
    next.gateway.apply(config, now);
    next.settle(now);
    next.delivered = std::mem::take(&mut site.delivered);
    next.events.splice(0..0, std::mem::take(&mut site.events));
    world.hosts[place] = next;
}

fn as_version(version: Version) -> impl Fn(usize, &mut Connection) {
    move |_, connection| {
        connection.versions = Versions::Only(version);
        if version == Version::V1 {
            connection.ike.retain(|p| p.encryption.iter().all(|e| !e.is_aead()));
            connection.children[0].esp.retain(|p| p.encryption.iter().all(|e| !e.is_aead()));
            // Nothing answers message 6 of main mode: a phase 1 that one side alone has is found by this.
            let action = model::DpdAction::Restart;
            connection.dpd = Some(model::Dpd { delay: 10 * SECOND, timeout: 30 * SECOND, action });
        }
    }
}

fn own(place: usize, version: Version) -> Connection {
    let mut own = connection(place, if place == 0 { Start::AtOnce } else { Start::Wait });
    as_version(version)(place, &mut own);
    own
}

fn spis(world: &World<Site>, place: usize) -> Vec<(String, String)> {
    let status = world.hosts[place].connection("site", world.now);
    status.ike_sas.iter().map(|sa| (sa.initiator_spi.clone(), sa.responder_spi.clone())).collect()
}

#[test]
fn a_hand_over_loses_no_packet_and_makes_no_new_ike_sa() {
    for version in [Version::V1, Version::V2] {
        let mut world = world_with(Start::AtOnce, Link::default(), 3, as_version(version));
        assert!(come_up(&mut world, SECOND));
        world.run_for(10 * SECOND);
        let (before, wire) = (spis(&world, 0), world.network.wire.len());
        for round in 0..6 {
            assert!(both_ways(&mut world), "{version:?}");
            hand_over(&mut world, round % 2, vec![own(round % 2, version)], round as u64);
            assert_eq!(world.hosts[round % 2].state(world.now), State::Up, "{version:?}");
            assert_eq!(world.hosts[round % 2].refused, Vec::<String>::new(), "{version:?}");
        }
        assert!(both_ways(&mut world), "{version:?}");
        assert_eq!(spis(&world, 0), before, "{version:?}");
        let esp: Vec<_> = world.network.wire[wire..].iter().map(|datagram| datagram.payload.clone()).collect();
        assert!(esp.iter().all(|payload| payload[..4] != [0; 4]), "{version:?}: IKE was spoken");
        let numbers: BTreeSet<_> = esp.iter().map(|payload| payload[..8].to_vec()).collect();
        assert_eq!(numbers.len(), esp.len(), "{version:?}: a sequence number is used twice");
        world.run_for(30 * SECOND);
        let delivered: Vec<_> = world.hosts.iter().map(|site| site.delivered.len()).collect();
        for payload in esp {
            let sent = world.network.wire.iter().find(|datagram| datagram.payload == payload).cloned().unwrap();
            let now = world.now;
            world.network.send(sent, now);
        }
        world.run_for(SECOND);
        assert_eq!(delivered, world.hosts.iter().map(|site| site.delivered.len()).collect::<Vec<_>>(), "replayed");
    }
}

#[test]
fn a_rekey_under_way_and_a_lost_answer_do_not_stop_traffic() {
    for version in [Version::V1, Version::V2] {
        for step in 0..20 {
            let mut world = world_with(Start::AtOnce, Link { loss: 10, ..Link::default() }, step, as_version(version));
            assert!(come_up(&mut world, 60 * SECOND));
            world.run_for(100 * SECOND);
            let what = if step % 2 == 0 { RekeyWhat::Children } else { RekeyWhat::Ike };
            let (place, now) = ((step / 2 % 2) as usize, world.now);
            world.hosts[place].order(Command::Rekey { target: "site".into(), what }, now);
            world.run_for(Duration::from_millis(step * 9));
            hand_over(&mut world, place, vec![own(place, version)], step);
            world.run_for(Duration::from_millis(step * 7));
            hand_over(&mut world, 1 - place, vec![own(1 - place, version)], step);
            world.network.link.loss = 0;
            world.run_for(180 * SECOND);
            assert!(both_ways(&mut world), "{version:?} step {step}");
            assert_eq!(world.hosts[0].refused, Vec::<String>::new());
        }
    }
}

#[test]
fn what_changed_in_the_configuration_is_negotiated_anew_and_what_is_gone_is_taken_down() {
    let mut world = world_with(Start::AtOnce, Link::default(), 4, as_version(Version::V2));
    assert!(come_up(&mut world, SECOND));
    world.run_for(10 * SECOND);
    let before = spis(&world, 0);
    let mut changed = own(0, Version::V2);
    changed.children[0].replay_window = 2_048;
    hand_over(&mut world, 0, vec![changed], 1);
    world.run_for(30 * SECOND);
    assert!(both_ways(&mut world));
    assert_ne!(spis(&world, 0), before);
    hand_over(&mut world, 0, vec![], 2);
    world.run_for(10 * SECOND);
    assert_eq!(world.hosts[1].state(world.now), State::Waiting, "its peer was told");
}

#[test]
fn orders_and_history_are_remembered() {
    let mut world = world_with(Start::AtOnce, Link::default(), 5, as_version(Version::V2));
    assert!(come_up(&mut world, SECOND));
    let now = world.now;
    world.hosts[0].order(Command::Down("site".into()), now);
    world.run_for(10 * SECOND);
    let before = world.hosts[0].connection("site", world.now);
    hand_over(&mut world, 0, vec![own(0, Version::V2)], 1);
    let after = world.hosts[0].connection("site", world.now);
    assert_eq!(
        (after.state, &after.history, &after.negotiations),
        (State::Down, &before.history, &before.negotiations)
    );
    assert!(!world.hosts[0].send(INNER[0], INNER[1], world.now), "and stay down");
    world.run_for(60 * SECOND);
    assert_eq!(world.hosts[0].state(world.now), State::Down);
}
