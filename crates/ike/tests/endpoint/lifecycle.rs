//! From the first message to the last: up, rekeyed for a week, moved, restarted, taken down.

use std::time::Duration;

use base::{Instant, Random};
use ike::{CloseReason, Event, Options, Rekey};
use model::{Start, Uniqueness, Version};
use sim::{Host, Link};

use crate::host::{self, LEFT, PEER, RIGHT, agree, connection, initiate, settles_within};

const SECOND: Duration = Duration::from_secs(1);

/// Sends a packet each way every `pause`, and returns the share that arrived within a second, in per mille.
fn traffic(world: &mut sim::World<host::Gateway>, time: Duration, pause: Duration) -> (u64, u64) {
    let (end, mut number) = (world.now + time, 0);
    while world.now < end {
        world.hosts.iter_mut().for_each(|host| {
            host.send_packet(number);
        });
        number += 1;
        world.run_for(pause);
    }
    world.run_for(SECOND);
    let arrived = world.hosts.iter().map(|host| host.packets.len() as u64).sum();
    (2 * number, arrived)
}

// left -- SA_INIT, AUTH ->  right        or        left -- main mode, quick mode -> right
#[test]
fn a_tunnel_comes_up_and_both_ends_hold_the_same_keys() {
    for version in [Version::V1, Version::V2] {
        let mut world = host::world(version, Link::default(), 1);
        initiate(&mut world, 0);
        assert!(settles_within(&mut world, SECOND), "{version:?}: {:#?}", world.hosts[0].events);
        let up = |host: &host::Gateway| host.events.iter().any(|(_, e)| matches!(e, Event::ChildUp { .. }));
        assert!(world.hosts.iter().all(up));
    }
}

// left  -- SA_INIT ->  <- SA_INIT -- right: both begin in the same moment
#[test]
fn when_both_ends_begin_at_once_one_tunnel_remains() {
    for version in [Version::V1, Version::V2] {
        for seed in 0..200 {
            let mut world = host::world(version, Link { jitter: Duration::from_millis(20), ..Link::default() }, seed);
            initiate(&mut world, 0);
            initiate(&mut world, 1);
            // What neither confirmed nor denied is dropped when its repetitions end.
            world.run_for(90 * SECOND);
            assert!(
                agree(&world),
                "{version:?} seed {seed}: {:#?}",
                world.hosts.iter().map(|h| h.endpoint.sas()).collect::<Vec<_>>()
            );
            let settled: Vec<_> = world.hosts.iter().map(|h| h.established()[0].spis).collect();
            world.run_for(60 * SECOND);
            assert_eq!(
                settled,
                world.hosts.iter().map(|h| h.established()[0].spis).collect::<Vec<_>>(),
                "{version:?} {seed} {:#?}",
                world.hosts[0].events
            );
        }
    }
}

#[test]
fn a_week_of_rekeying_loses_no_packet() {
    for version in [Version::V1, Version::V2] {
        let mut world = host::world(version, Link::default(), 3);
        initiate(&mut world, 0);
        assert!(settles_within(&mut world, SECOND));
        let (sent, arrived) = traffic(&mut world, Duration::from_secs(7 * 24 * 3600), 5 * SECOND);
        assert_eq!(arrived, sent, "{version:?}");
        let counters = world.hosts[0].endpoint.counters().clone();
        let theirs = world.hosts[1].endpoint.counters().clone();
        let children = counters.child_rekeys + theirs.child_rekeys;
        assert!(children > 7 * 24, "{version:?}: {children} child rekeys");
        assert!(world.hosts[0].endpoint.sas().len() <= 2);
    }
}

#[test]
fn a_command_rekeys_and_the_tunnel_goes_on() {
    for version in [Version::V1, Version::V2] {
        for what in [Rekey::Children, Rekey::Ike] {
            let mut world = host::world(version, Link::default(), 4);
            initiate(&mut world, 0);
            assert!(settles_within(&mut world, SECOND));
            let before = (world.hosts[0].established()[0].spis, *world.hosts[0].sas.keys().next().unwrap());
            let now = world.now;
            world.hosts[0].act(now, |endpoint| endpoint.rekey(PEER, what, now));
            let (sent, arrived) = traffic(&mut world, 60 * SECOND, SECOND / 10);
            assert_eq!(arrived, sent, "{version:?} {what:?}");
            assert!(agree(&world), "{version:?} {what:?}");
            let after = (world.hosts[0].established()[0].spis, *world.hosts[0].sas.keys().next().unwrap());
            match what {
                Rekey::Ike => assert_ne!(before.0, after.0, "{version:?}"),
                Rekey::Children => assert_ne!(before.1, after.1, "{version:?}"),
            }
        }
    }
}

// left -- main mode (new phase 1) ->, and while it is under way: a child is due
#[test]
fn a_child_is_rekeyed_on_the_new_phase_1_when_that_is_under_way() {
    let mut world = host::world(Version::V1, Link::default(), 13);
    initiate(&mut world, 0);
    assert!(settles_within(&mut world, SECOND));
    world.hosts[0].events.clear();
    let now = world.now;
    for what in [Rekey::Ike, Rekey::Children] {
        world.hosts[0].act(now, |endpoint| endpoint.rekey(PEER, what, now));
    }
    world.run_for(5 * SECOND);
    let told = |wanted: fn(&Event) -> bool| world.hosts[0].events.iter().position(|(_, event)| wanted(event));
    let ike = told(|event| matches!(event, Event::IkeUp { rekeyed: true, .. }));
    let child = told(|event| matches!(event, Event::ChildUp { .. }));
    assert!(ike.is_some() && child.is_some() && ike < child, "{:#?}", world.hosts[0].events);
}

#[test]
fn a_gateway_that_restarts_is_back_without_help() {
    for version in [Version::V1, Version::V2] {
        for restarted in [0, 1] {
            let mut world = host::world(version, Link::default(), 5);
            initiate(&mut world, 0);
            assert!(settles_within(&mut world, SECOND));
            let (own, other) = if restarted == 0 { (LEFT, RIGHT) } else { (RIGHT, LEFT) };
            let fresh = host::Gateway::new(own, connection(version, own, other), Options::default(), 77);
            world.hosts[restarted] = fresh;
            if restarted == 0 {
                initiate(&mut world, 0);
            }
            assert!(settles_within(&mut world, 120 * SECOND), "{version:?}, {restarted} restarted at {:?}", world.now);
        }
    }
}

#[test]
fn a_silent_peer_is_noticed_and_the_tunnel_comes_back_when_it_does() {
    for version in [Version::V1, Version::V2] {
        let mut world = host::world(version, Link::default(), 6);
        initiate(&mut world, 0);
        assert!(settles_within(&mut world, SECOND));
        world.network.is_cut = true;
        world.run_for(60 * SECOND);
        let dead = |host: &host::Gateway| {
            host.events.iter().any(|(_, e)| matches!(e, Event::IkeDown { reason: CloseReason::PeerDead, .. }))
        };
        assert!(world.hosts.iter().all(dead), "{version:?}");
        assert!(world.hosts.iter().all(|host| host.sas.is_empty()), "{version:?}");
        world.network.is_cut = false;
        assert!(settles_within(&mut world, 120 * SECOND), "{version:?}");
    }
}

#[test]
fn traffic_spares_the_question_whether_the_peer_is_alive() {
    let mut world = host::world(Version::V2, Link::default(), 8);
    initiate(&mut world, 0);
    assert!(settles_within(&mut world, SECOND));
    let before = world.hosts[0].endpoint.counters().sent;
    traffic(&mut world, 300 * SECOND, SECOND);
    assert_eq!(world.hosts[0].endpoint.counters().sent, before);
}

#[test]
fn a_nat_that_forgets_is_followed() {
    for version in [Version::V1, Version::V2] {
        let mut world = host::behind_nat(version, "3.37.222.142");
        initiate(&mut world, 0);
        assert!(settles_within(&mut world, SECOND), "{version:?}");
        let path = |world: &sim::World<host::Gateway>| world.hosts[1].sas.values().next().unwrap().path;
        assert!(path(&world).udp);
        assert_eq!(path(&world).local, host::socket(RIGHT, 4500));
        let before = path(&world).remote;
        world.network.nats[0].rebind();
        world.run_for(40 * SECOND);
        assert_ne!(path(&world).remote, before, "{version:?}");
        let (sent, arrived) = traffic(&mut world, 60 * SECOND, SECOND);
        assert_eq!(arrived, sent, "{version:?}");
    }
}

#[test]
fn what_is_taken_down_stays_down_at_both_ends() {
    for version in [Version::V1, Version::V2] {
        let mut left = connection(version, LEFT, RIGHT);
        let mut right = connection(version, RIGHT, LEFT);
        left.children[0].start = Start::Wait;
        right.children[0].start = Start::Wait;
        let mut world = host::world_of(left, right, Link::default(), 9);
        initiate(&mut world, 0);
        assert!(settles_within(&mut world, SECOND));
        let now = world.now;
        world.hosts[0].act(now, |endpoint| endpoint.terminate(PEER, None, now));
        world.run_for(300 * SECOND);
        for host in &world.hosts {
            assert!(host.sas.is_empty() && host.endpoint.sas().is_empty(), "{version:?}");
        }
    }
}

#[test]
fn two_connections_of_one_identity_may_both_stay_where_uniqueness_says_so() {
    let mut left = connection(Version::V2, LEFT, RIGHT);
    let mut right = connection(Version::V2, RIGHT, LEFT);
    left.uniqueness = Uniqueness::Never;
    right.uniqueness = Uniqueness::Never;
    let mut world = host::world_of(left, right, Link::default(), 10);
    initiate(&mut world, 0);
    initiate(&mut world, 1);
    world.run_for(30 * SECOND);
    assert_eq!(world.hosts[0].established().len(), 2);
}

#[test]
fn an_endpoint_keeps_the_laws_of_machines() {
    for version in [Version::V1, Version::V2] {
        let make = || {
            let mut endpoint = ike::Endpoint::new(Options::default(), Random::for_test(1));
            endpoint.upsert_peer(PEER, std::sync::Arc::new(connection(version, LEFT, RIGHT)), Instant::ZERO);
            endpoint
        };
        let begin = |endpoint: &mut ike::Endpoint, now| endpoint.initiate(PEER, None, now);
        let noise = |endpoint: &mut ike::Endpoint, now| {
            endpoint.handle_datagram(host::socket(LEFT, 500), host::socket(RIGHT, 500), &[1; 40], now);
        };
        let stop = |endpoint: &mut ike::Endpoint, now| endpoint.terminate(PEER, None, now);
        sim::laws::check(
            make,
            &[(SECOND, &begin), (2 * SECOND, &noise), (500 * SECOND, &stop)],
            Duration::from_secs(1_000),
        );
    }
}

#[test]
fn nobody_wakes_an_endpoint_that_has_nothing_to_do() {
    let world = host::world(Version::V2, Link::default(), 1);
    assert_eq!(world.hosts[0].deadline(), None);
}

// left -- SA_INIT or main mode -> (nobody), then a peer that answers and one that has another key
#[test]
fn what_one_peer_cost_is_counted_by_phase() {
    for version in [Version::V1, Version::V2] {
        let mut world = host::world(version, Link { loss: 100, ..Link::default() }, 9);
        initiate(&mut world, 0);
        world.run_for(20 * SECOND);
        let counted = world.hosts[0].endpoint.peer_counters(PEER);
        let all = world.hosts[0].endpoint.counters().retransmitted;
        assert!(all > 1 && counted.phase1.resent == all, "{version:?}: {counted:?} of {all}");
        assert_eq!(counted.phase2, ike::Trouble::default());

        let mut world = host::world(version, Link::default(), 9);
        initiate(&mut world, 0);
        world.run_for(SECOND);
        world.network.link = Link { loss: 100, ..Link::default() };
        world.hosts[0].act(world.now, |endpoint| endpoint.rekey(PEER, Rekey::Children, world.now));
        world.run_for(10 * SECOND);
        let counted = world.hosts[0].endpoint.peer_counters(PEER);
        assert_eq!(counted.phase1.resent, 0, "{version:?}");
        assert!(counted.phase2.resent > 0, "{version:?}: {counted:?}");
        assert_eq!(world.hosts[0].endpoint.sas_of(PEER), world.hosts[0].endpoint.sas());
        assert!(world.hosts[0].endpoint.sas_of(PEER).iter().all(|sa| sa.algorithms.is_some()));
    }
}
