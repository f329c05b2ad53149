//! A gateway dies, and another goes on with what it was told (RFC 6311): at any moment, knowing the last or less, while
//! the first one lives on, and with a peer that has never heard of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use base::{Instant, Machine, Random};
use ike::{Endpoint, Event, Exported, ExportedPeer, Options, Rekey};
use model::Version;
use sa::RESERVE;
use sim::{Datagram, Link, World};

use crate::host::{self, Gateway, LEFT, PEER, RIGHT, agree, connection, initiate, settles_within};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);
const SA_INIT: u8 = 34;

fn up(version: Version, link: Link, seed: u64) -> World<Gateway> {
    let mut world = host::world(version, link, seed);
    initiate(&mut world, 0);
    assert!(settles_within(&mut world, 60 * SECOND));
    world.run_for(60 * SECOND);
    world
}

/// What a checkpoint says: everything, as it is sent before the next message leaves.
fn told(world: &World<Gateway>, host: usize, speaks: bool) -> (ExportedPeer, Instant) {
    let endpoint = &world.hosts[host].endpoint;
    let whole = endpoint.export(world.now);
    // In pieces, a peer at a time.
    let mut exported = Exported::empty();
    let peer = endpoint.export_peer(PEER, world.now);
    exported.add_peer(PEER, peer.clone());
    let text = serde_json::to_string(&exported).unwrap();
    let counters = |text: &str| text.split("\"counters\"").next().unwrap().to_owned();
    assert_eq!(counters(&text), counters(&serde_json::to_string(&whole).unwrap()));
    let text = serde_json::to_string(&peer).unwrap();
    let text = if speaks { text } else { text.replace("\"message_ids\":true", "\"message_ids\":false") };
    (serde_json::from_str(&text).unwrap(), world.now)
}

/// Another endpoint in place of the host's own, which is returned.
fn fail_over(
    world: &mut World<Gateway>,
    host: usize,
    version: Version,
    told: (ExportedPeer, Instant),
    seed: u64,
) -> Endpoint {
    let now = world.now;
    let (local, remote) = if host == 0 { (LEFT, RIGHT) } else { (RIGHT, LEFT) };
    let mut next = Endpoint::new(Options::default(), Random::for_test(1_000_000 + 2 * seed + host as u64));
    next.upsert_peer(PEER, Arc::new(connection(version, local, remote)), now);
    next.succeed([(PEER, told.0, told.1)], now).unwrap();
    let mut old = None;
    world.hosts[host].act(now, |endpoint| old = Some(std::mem::replace(endpoint, next)));
    old.unwrap()
}

fn exchanges(world: &World<Gateway>, from: usize) -> impl Iterator<Item = &Datagram> {
    world.network.wire[from..].iter().filter(|datagram| datagram.payload.len() > 28)
}

/// Whether a new IKE SA was asked for since.
fn has_handshake(world: &World<Gateway>, since: usize, version: Version) -> bool {
    let kind = if version == Version::V2 { SA_INIT } else { 2 };
    exchanges(world, since).any(|datagram| datagram.payload[18] == kind)
}

/// Whether packets pass both ways now.
fn passes(world: &mut World<Gateway>, number: u64) -> bool {
    let sent = world.hosts.iter_mut().all(|host| host.send_packet(number));
    world.run_for(200 * MS);
    sent && world.hosts.iter().all(|host| host.packets.contains(&number))
}

/// IVs of AEAD that were used twice with the same keys: none, but for a message that was repeated as it was.
fn ivs_used_twice(world: &World<Gateway>) -> usize {
    let mut seen = BTreeSet::new();
    let whole: BTreeSet<_> = exchanges(world, 0)
        .filter(|d| d.payload[16] == 46 && d.payload[18] != SA_INIT)
        .map(|d| (d.source, d.payload.clone()))
        .collect();
    whole
        .iter()
        .filter(|(source, payload)| !seen.insert((*source, payload[..16].to_vec(), payload[32..40].to_vec())))
        .count()
}

// Each message of a rekey, of either side, is the last thing that the one that dies sees or sends.
#[test]
fn whatever_was_under_way_the_tunnel_goes_on_without_a_handshake() {
    for (version, speaks) in [(Version::V2, true), (Version::V2, false), (Version::V1, false)] {
        for (what, rekeyer, heir, wait) in [None, Some(Rekey::Children), Some(Rekey::Ike)]
            .into_iter()
            .flat_map(|what| [0, 1].map(|rekeyer| (what, rekeyer)))
            .flat_map(|(what, rekeyer)| [0, 1].map(|heir| (what, rekeyer, heir)))
            .flat_map(|(what, rekeyer, heir)| (0..14).map(move |step| (what, rekeyer, heir, step * 5)))
        {
            // IKEv1 renews phase 1 by a handshake, and that of another gateway cannot be gone on with.
            if version == Version::V1 && what == Some(Rekey::Ike) {
                continue;
            }
            let mut world = up(version, Link::default(), 5);
            let case = format!("{version:?} {speaks} {what:?} by {rekeyer}, {heir} dies after {wait} ms");
            let (now, since) = (world.now, world.network.wire.len());
            if let Some(what) = what {
                world.hosts[rekeyer].act(now, |endpoint| endpoint.rekey(PEER, what, now));
            }
            world.run_for(wait as u32 * MS);
            let told = told(&world, heir, speaks);
            fail_over(&mut world, heir, version, told, wait);
            assert!(passes(&mut world, 1), "{case}: at once");
            for minute in 0..15 {
                world.run_for((1 + minute % 2 * 119) * SECOND);
                assert!(passes(&mut world, 2 + u64::from(minute)), "{case}: {:#?}", world.hosts[heir].events);
            }
            assert!(agree(&world), "{case}: nothing is left over");
            assert!(!has_handshake(&world, since, version), "{case}");
            let is_down = |event: &Event| {
                matches!(event, Event::Failed { .. })
                    || matches!(event, Event::IkeDown { reason, .. } if *reason != ike::CloseReason::Replaced)
            };
            let down = world.hosts.iter().flat_map(|host| &host.events).find(|(_, event)| is_down(event));
            assert_eq!(down.map(|event| format!("{event:?}")), None, "{case}");
            assert_eq!(ivs_used_twice(&world), 0, "{case}");
        }
    }
}

// b -- rekeys, deletes, questions -> a, which dies with all of it untold;  the heir knows a state of minutes ago
#[test]
fn who_knows_only_an_old_state_learns_the_numbers_from_the_peer_and_replay_counters_leap() {
    for heir in [0, 1] {
        let mut world = up(Version::V2, Link::default(), 3);
        let old = told(&world, heir, true);
        let since = world.network.wire.len();
        // Questions of both ends, each of which takes a message ID.
        world.run_for(45 * SECOND);
        assert!(exchanges(&world, since).count() >= 8);
        fail_over(&mut world, heir, Version::V2, old, 1);
        world.run_for(SECOND);
        let [ours, theirs] = [heir, 1 - heir].map(|host| world.hosts[host].skipped.clone());
        assert_eq!(ours.iter().map(|skip| (skip.1, skip.2)).collect::<Vec<_>>(), [(0, RESERVE)]);
        assert_eq!(theirs.iter().map(|skip| (skip.1, skip.2)).collect::<Vec<_>>(), [(RESERVE, 0)]);
        for what in [Rekey::Children, Rekey::Ike] {
            for host in [0, 1] {
                let now = world.now;
                world.hosts[host].act(now, |endpoint| endpoint.rekey(PEER, what, now));
                world.run_for(SECOND);
                assert!(settles_within(&mut world, 30 * SECOND), "{what:?} by {host}");
            }
        }
        assert!(!has_handshake(&world, since, Version::V2));
    }
}

#[test]
fn both_ends_fail_over_at_once_again_and_again_over_a_bad_link_and_agree() {
    for seed in 0..60 {
        let mut world = up(Version::V2, Link::default(), seed);
        let since = world.network.wire.len();
        world.network.link = Link { loss: 20, duplicate: 20, delay: 10 * MS, jitter: 40 * MS };
        for step in 0..4 {
            for host in [0, 1] {
                let old = told(&world, host, true);
                world.run_for((seed as u32 * 7 % 40) * MS);
                fail_over(&mut world, host, Version::V2, old, seed * 10 + step);
            }
            world.run_for(4 * SECOND);
        }
        world.network.link = Link::default();
        world.run_for(20 * SECOND);
        assert!(agree(&world), "seed {seed}");
        assert!(passes(&mut world, 1), "seed {seed}");
        assert!(!has_handshake(&world, since, Version::V2), "seed {seed}");
        assert_eq!(ivs_used_twice(&world), 0, "seed {seed}");
    }
}

// The one that was thought dead rekeys, deletes and asks with the same keys as its heir.
#[test]
fn who_lives_on_beside_its_heir_seals_with_no_iv_that_the_heir_uses() {
    for (seed, what) in (0..20).flat_map(|seed| [Rekey::Children, Rekey::Ike].map(|what| (seed, what))) {
        let mut world = up(Version::V2, Link::default(), seed);
        let now = world.now;
        let heir = (seed % 2) as usize;
        world.hosts[heir].act(now, |endpoint| endpoint.rekey(PEER, what, now));
        world.run_for((seed as u32) * 2 * MS);
        let told = told(&world, heir, seed % 3 > 0);
        let mut old = fail_over(&mut world, heir, Version::V2, told, seed);
        let incoming: Vec<Datagram> = exchanges(&world, 0).cloned().collect();
        for round in 0..40 {
            let now = world.now;
            // It hears the peer, as far as that goes.
            let heard: Vec<Datagram> = exchanges(&world, incoming.len()).cloned().collect();
            for datagram in heard.iter().chain(&incoming) {
                old.handle_datagram(datagram.destination, datagram.source, &datagram.payload, now);
            }
            if round % 7 == 0 {
                old.rekey(PEER, what, now);
            }
            old.handle_timeout(now);
            while let Some(output) = old.poll_output() {
                if let ike::Output::Transmit(t) = output {
                    let datagram = Datagram { source: t.local, destination: t.remote, payload: t.payload };
                    world.network.wire.push(datagram);
                }
            }
            world.run_for(200 * MS);
        }
        assert_eq!(ivs_used_twice(&world), 0, "{what:?} seed {seed}");
    }
}

#[test]
fn what_is_said_after_a_failover_says_nothing_when_it_is_said_again() {
    let mut world = up(Version::V2, Link::default(), 8);
    let since = world.network.wire.len();
    let told = told(&world, 0, true);
    fail_over(&mut world, 0, Version::V2, told, 8);
    world.run_for(SECOND);
    let recorded: Vec<Datagram> = world.network.wire[since..].to_vec();
    assert_eq!(
        recorded.iter().map(|d| (d.payload[18], d.payload[20..24].to_vec())).collect::<Vec<_>>(),
        [(37, vec![0; 4]), (37, vec![0; 4])]
    );
    let state = |world: &World<Gateway>| {
        world.hosts.iter().map(|host| serde_json::to_value(host.endpoint.export_peer(PEER, world.now)).unwrap()["sessions"][0]["session"]["V2"].clone())
            .map(|v| (v["next_request"].clone(), v["expected"].clone(), v["sync"]["heard"][0].clone())).collect::<Vec<_>>()
    };
    let (before, skipped) = (state(&world), world.hosts[1].skipped.len());
    for datagram in &recorded {
        for broken in [false, true] {
            let mut datagram = datagram.clone();
            if broken {
                *datagram.payload.last_mut().unwrap() ^= 1;
            }
            let (now, mark) = (world.now, world.network.wire.len());
            world.network.send(datagram, now);
            world.run_for(300 * MS);
            assert_eq!(world.network.wire.len(), mark + 1, "no answer");
        }
    }
    assert_eq!((state(&world), world.hosts[1].skipped.len()), (before, skipped));
    assert!(passes(&mut world, 1));
}

// a -- N(IKEV2_MESSAGE_ID_SYNC) -> (lost), for ever
#[test]
fn a_peer_that_does_not_answer_is_given_up_like_any_other_and_asked_anew() {
    let mut world = up(Version::V2, Link::default(), 2);
    let told = told(&world, 0, true);
    world.network.is_cut = true;
    fail_over(&mut world, 0, Version::V2, told, 2);
    world.run_for(40 * SECOND);
    let is_dead = |event: &Event| matches!(event, Event::IkeDown { reason: ike::CloseReason::PeerDead, .. });
    assert!(world.hosts[0].events.iter().any(|(_, event)| is_dead(event)));
    world.network.is_cut = false;
    assert!(settles_within(&mut world, 90 * SECOND));
}
