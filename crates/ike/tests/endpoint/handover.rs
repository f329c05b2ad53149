//! A gateway hands over to another process in the middle of anything, and its peer does not notice.

use std::sync::Arc;
use std::time::Duration;

use base::{Instant, Machine, Random};
use ike::{Cause, CloseReason, Endpoint, Event, Exported, Options, Rekey};
use model::Version;
use sim::{Link, World};

use crate::host::{self, Gateway, LEFT, PEER, RIGHT, agree, connection, initiate, settles_within};

const SECOND: Duration = Duration::from_secs(1);
const BOTH: [Version; 2] = [Version::V1, Version::V2];

/// By way of bytes, as between processes.
fn through_bytes(exported: &Exported) -> Exported {
    serde_json::from_str(&serde_json::to_string(exported).unwrap()).unwrap()
}

/// A new endpoint goes on in place of the host's own.
fn hand_over(world: &mut World<Gateway>, host: usize, version: Version, seed: u64) {
    let now = world.now;
    let (local, remote) = if host == 0 { (LEFT, RIGHT) } else { (RIGHT, LEFT) };
    let exported = through_bytes(&world.hosts[host].endpoint.export(now));
    let mut next = Endpoint::new(Options::default(), Random::for_test(1_000_000 + 2 * seed + host as u64));
    next.upsert_peer(PEER, Arc::new(connection(version, local, remote)), now);
    next.import(exported.clone(), now).unwrap();
    // What was half negotiated begins anew, and that is all that differs.
    let connects = |endpoint: &Endpoint| endpoint.sas().iter().any(|sa| sa.established_at.is_none());
    if !connects(&next) && !connects(&world.hosts[host].endpoint) {
        assert_eq!(next.export(now), exported);
        assert_eq!(next.sas(), world.hosts[host].endpoint.sas());
    }
    world.hosts[host].act(now, |endpoint| *endpoint = next);
}

/// An SA that ended and that no newer one replaced. In IKEv1 a replaced one is deleted by either side.
fn lost(world: &World<Gateway>, version: Version) -> Option<String> {
    let is_planned = |reason: &CloseReason| {
        *reason == CloseReason::Replaced || version == Version::V1 && *reason == CloseReason::PeerDeleted
    };
    let is_loss = |event: &Event| match event {
        Event::IkeDown { reason, .. } | Event::ChildDown { reason, .. } => !is_planned(reason),
        // A main mode whose responder handed over is begun anew by its initiator.
        Event::Failed { failure, .. } => version == Version::V2 || !matches!(failure.cause, Cause::NoAnswer { .. }),
        Event::Connecting { .. } | Event::IkeUp { .. } | Event::ChildUp { .. } => false,
        Event::PeerMoved { .. } | Event::PeerDrains { .. } | Event::DrainHeard { .. } => false,
    };
    let mut all = world.hosts.iter().flat_map(|host| &host.events);
    all.find(|(_, event)| is_loss(event)).map(|event| format!("{event:?}"))
}

fn up(version: Version, seed: u64) -> World<Gateway> {
    let mut world = host::world(version, Link::default(), seed);
    initiate(&mut world, 0);
    assert!(settles_within(&mut world, SECOND));
    world.run_for(60 * SECOND);
    world
}

// Each message of a rekey, of either side, finds the one it is for in another process.
#[test]
fn a_rekey_goes_on_in_another_process_whatever_message_is_under_way() {
    for version in BOTH {
        for (what, rekeyer, heir, wait) in [Rekey::Children, Rekey::Ike]
            .into_iter()
            .flat_map(|what| [0, 1].map(|rekeyer| (what, rekeyer)))
            .flat_map(|(what, rekeyer)| [0, 1].map(|heir| (what, rekeyer, heir)))
            .flat_map(|(what, rekeyer, heir)| (0..25).map(move |step| (what, rekeyer, heir, step * 5)))
        {
            let mut world = up(version, 5);
            let case = format!("{version:?} {what:?} by {rekeyer}, {heir} hands over after {wait} ms");
            let now = world.now;
            world.hosts[rekeyer].act(now, |endpoint| endpoint.rekey(PEER, what, now));
            for at in 0..300 {
                if at == wait {
                    hand_over(&mut world, heir, version, wait);
                }
                assert!(world.hosts.iter_mut().all(|host| host.send_packet(at)), "{case}");
                world.run_for(Duration::from_millis(1));
            }
            world.run_for(SECOND);
            assert!(settles_within(&mut world, 120 * SECOND), "{case}: {:?}", world.hosts[heir].events);
            assert!(world.hosts.iter().all(|host| host.packets.len() == 300), "{case}: a packet is lost");
            assert_eq!(lost(&world, version), None, "{case}");
        }
    }
}

#[test]
fn both_rekey_at_once_and_both_hand_over_and_one_tunnel_remains() {
    for version in BOTH {
        for (seed, what) in (0..30).flat_map(|seed| [Rekey::Children, Rekey::Ike].map(|what| (seed, what))) {
            let mut world = up(version, seed);
            for host in [0, 1] {
                let now = world.now;
                world.hosts[host].act(now, |endpoint| endpoint.rekey(PEER, what, now));
                world.run_for(Duration::from_millis(seed % 4 * 7));
                hand_over(&mut world, host, version, seed);
            }
            world.run_for(Duration::from_millis(seed));
            hand_over(&mut world, 0, version, 77 + seed);
            let settles = settles_within(&mut world, 150 * SECOND);
            assert!(settles, "{version:?} {what:?} seed {seed}");
            assert_eq!(lost(&world, version), None, "{version:?} {what:?} seed {seed}");
        }
    }
}

#[test]
fn hand_overs_every_few_seconds_over_a_bad_link_leave_a_tunnel() {
    for version in BOTH {
        for seed in 0..40 {
            let mut world = host::world(version, Link::bad(20), seed);
            initiate(&mut world, 0);
            for step in 0..60 {
                world.run_for(Duration::from_millis(1_700 + step % 7 * 900));
                hand_over(&mut world, (step % 2) as usize, version, seed * 100 + step);
                let now = world.now;
                let what = if step % 3 == 0 { Rekey::Ike } else { Rekey::Children };
                world.hosts[(step / 2 % 2) as usize].act(now, |endpoint| endpoint.rekey(PEER, what, now));
            }
            world.network.link = Link::default();
            assert!(settles_within(&mut world, 900 * SECOND), "{version:?} seed {seed}");
        }
    }
}

#[test]
fn timers_run_on_rekeys_come_when_they_would_have_and_a_dead_peer_is_noticed() {
    for version in BOTH {
        let [mut stays, mut moves] = [3, 3].map(|seed| up(version, seed));
        hand_over(&mut moves, 0, version, 0);
        hand_over(&mut moves, 1, version, 1);
        assert_eq!(moves.hosts[0].endpoint.poll_timeout(), stays.hosts[0].endpoint.poll_timeout(), "{version:?}");
        moves.run_for(Duration::from_secs(3 * 24 * 3600));
        assert!(agree(&moves), "{version:?}");
        assert_eq!(lost(&moves, version), None, "{version:?}: three days of rekeys");
        assert!(moves.hosts[0].endpoint.counters().child_rekeys > 50, "{version:?}");
        for world in [&mut stays, &mut moves] {
            world.network.is_cut = true;
            world.run_for(120 * SECOND);
            assert!(lost(world, version).unwrap().contains("PeerDead"), "{version:?}");
        }
    }
}

// left -- request -> right, answered;  right hands over;  left -- the same request -> right
#[test]
fn a_request_that_comes_again_is_answered_with_the_same_bytes_by_the_next_process() {
    for version in BOTH {
        let mut world = up(version, 9);
        let (now, before) = (world.now, world.network.wire.len());
        world.hosts[0].act(now, |endpoint| endpoint.rekey(PEER, Rekey::Children, now));
        // The answer has left and has not arrived.
        while world.network.wire.len() < before + 2 {
            world.run_for(Duration::from_millis(1));
        }
        let (request, answer) = (world.network.wire[before].clone(), world.network.wire[before + 1].clone());
        hand_over(&mut world, 1, version, 0);
        let (now, mark) = (world.now, world.network.wire.len());
        world.network.send(request, now);
        world.run_for(SECOND);
        let again = world.network.wire[mark + 1..].iter().filter(|d| d.payload == answer.payload).count();
        assert!(again >= 1, "{version:?}");
        assert!(world.hosts[1].endpoint.counters().answered_again >= 1, "{version:?}");
    }
}

#[test]
fn what_went_over_the_wire_before_is_refused_afterwards() {
    for version in BOTH {
        let mut world = up(version, 12);
        let recorded = world.network.wire.clone();
        [0, 1].into_iter().for_each(|host| hand_over(&mut world, host, version, host as u64));
        let before: Vec<_> = world.hosts.iter().map(|host| host.sas.clone()).collect();
        for datagram in recorded {
            let now = world.now;
            world.network.send(datagram, now);
            world.run_for(Duration::from_millis(50));
        }
        world.run_for(60 * SECOND);
        assert!(agree(&world), "{version:?}");
        assert_eq!(before, world.hosts.iter().map(|host| host.sas.clone()).collect::<Vec<_>>());
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let world = up(Version::V2, 1);
    let text = serde_json::to_string(&world.hosts[0].endpoint.export(world.now)).unwrap();
    let refused = |text: &str| {
        let mut next = Endpoint::new(Options::default(), Random::for_test(1));
        next.upsert_peer(PEER, Arc::new(connection(Version::V2, LEFT, RIGHT)), Instant::ZERO);
        serde_json::from_str::<Exported>(text)
            .map(|exported| next.import(exported, world.now))
            .map_or(true, |r| r.is_err())
    };
    assert!(!refused(&text));
    assert!(refused(&text.replace("\"peer\":1", "\"peer\":2")), "a peer that is not there");
    let at = text.find("\"inbound\":[\"").unwrap() + 12;
    assert!(refused(&format!("{}{}", &text[..at], &text[at + 2..])), "a key too short");
    assert!(refused(&text[..text.len() - 1]));
}
