//! Rekeying, renewal, deletes and dead peers.

use std::time::Duration;

use base::Instant;
use model::{DpdAction, Start};

use super::world::{A, B, Packet, World, secs};
use crate::event::{CloseReason, Event, Rekey};
use crate::v1::Session;

fn up(seed: u64) -> World {
    let mut world = World::new(seed);
    world.initiate(A, &["c"]);
    world.run_with_traffic(secs(2));
    world.assert_settled(1);
    world
}

// a -- quick mode --> b; both send by the new SA; a -- delete of the old one --> b
#[test]
fn a_child_is_rekeyed_before_it_expires_without_losing_a_packet() {
    for side in [A, B] {
        let mut world = World::with(1, |a, b| {
            let short = if side == A { a } else { b };
            short.children[0].lifetime.time = secs(120);
            short.children[0].lifetime.margin = secs(30);
        });
        world.initiate(A, &["c"]);
        world.run_with_traffic(secs(2));
        let first: Vec<_> = world.gateways[A].installed.keys().copied().collect();
        world.run_with_traffic(secs(1_000));
        world.assert_settled(1);
        assert_eq!(world.lost_traffic, 0);
        assert!(world.gateways[A].counters.child_rekeys >= 9, "{}", world.gateways[A].counters.child_rekeys);
        assert!(!first.iter().any(|id| world.gateways[A].installed.contains_key(id)));
    }
}

#[test]
fn an_idle_child_is_rekeyed_too_and_the_old_one_goes() {
    let mut world = up(2);
    world.rekey(A, Rekey::Children);
    world.run(secs(60));
    world.assert_settled(1);
    world.rekey(B, Rekey::Children);
    world.run(secs(60));
    world.assert_settled(1);
    assert_eq!(world.gateways[B].counters.child_rekeys, 2);
}

// a -- quick mode --> <-- quick mode -- b, at the same time, with every fate of their packets
#[test]
fn when_both_rekey_at_once_traffic_flows_and_one_sa_is_left() {
    for seed in 0..500 {
        let mut world = up(seed);
        (world.loss, world.jitter) = (20 * (seed % 2), Duration::from_millis(seed % 7 * 40));
        world.rekey(A, Rekey::Children);
        world.run(Duration::from_millis(seed % 5 * 15));
        world.rekey(B, Rekey::Children);
        world.run_with_traffic(secs(120));
        (world.loss, world.jitter) = (0, Duration::ZERO);
        world.run_with_traffic(secs(60));
        world.assert_settled_of(seed, 1);
        if seed % 2 == 0 {
            assert_eq!(world.lost_traffic, 0, "seed {seed}");
        }
    }
}

#[test]
fn when_both_rekey_at_once_without_traffic_one_sa_is_left() {
    for seed in 0..200 {
        let mut world = up(seed);
        world.jitter = Duration::from_millis(seed % 7 * 40);
        world.rekey(A, Rekey::Children);
        world.run(Duration::from_millis(seed % 5 * 15));
        world.rekey(B, Rekey::Children);
        world.run(secs(120));
        world.assert_settled_of(seed, 1);
        assert_eq!((world.ping(A), world.ping(B)), (1, 1));
    }
}

#[test]
fn volume_rekeys_at_the_soft_limit_and_deletes_at_the_hard_one() {
    let mut world = up(3);
    let id = *world.gateways[A].installed.keys().next().unwrap();
    world.act(A, |sessions, ctx| sessions[0].rekey_child(id, ctx));
    world.run_with_traffic(secs(20));
    world.assert_settled(1);
    let id = *world.gateways[A].installed.keys().next().unwrap();
    world.act(A, |sessions, ctx| sessions[0].expire_child(id, ctx));
    assert!(world.gateways[A].installed.is_empty());
    world.run_with_traffic(secs(30));
    world.assert_settled(1);
}

// a -- main mode --> b while the old one goes on; the children move; the old one is deleted
#[test]
fn phase_1_is_renewed_without_losing_a_packet_by_either_side_or_both() {
    for seed in 0..300 {
        let mut world = up(seed);
        world.run_with_traffic(secs(15));
        let before = world.gateways[A].sessions[0].view();
        let sas: Vec<_> = world.gateways[A].installed.keys().copied().collect();
        world.jitter = Duration::from_millis(seed % 4 * 20);
        if seed % 3 != 1 {
            world.rekey(A, Rekey::Ike);
            assert_eq!(world.gateways[A].sessions[0].view().state_name, "MM_REKEY");
        }
        if seed % 3 != 0 {
            world.run(Duration::from_millis(seed % 5 * 10));
            world.rekey(B, Rekey::Ike);
        }
        world.run_with_traffic(secs(60));
        world.assert_settled_of(seed, 1);
        assert_eq!(world.lost_traffic, 0, "seed {seed}");
        assert_ne!(world.gateways[A].sessions[0].view().spis, before.spis);
        assert_eq!(world.gateways[A].installed.keys().copied().collect::<Vec<_>>(), sas, "the same SAs go on");
    }
}

// a -- ID, HASH --> b; a <-- D(ISAKMP) of the old one -- b; a <-- ID, HASH -- b (late)
#[test]
fn a_delete_of_the_old_phase_1_that_overtakes_the_new_one_ends_no_child() {
    let mut world = up(13);
    world.run_with_traffic(secs(15));
    let old = world.gateways[B].sessions[0].view().spis;
    world.rekey(A, Rekey::Ike);
    world.run(Duration::from_millis(52));
    let message_6 = std::mem::take(&mut world.wire);
    world.act(B, |sessions, ctx| {
        let session = sessions.iter_mut().find(|session| session.view().spis == old).unwrap();
        session.close(CloseReason::Replaced, ctx);
    });
    world.run(Duration::from_millis(20));
    assert_eq!(world.gateways[A].installed.len(), 1);
    assert_eq!(world.gateways[A].sessions[0].view().state_name, "MM_REKEY");
    message_6.into_iter().for_each(|packet| world.deliver(packet));
    world.run_with_traffic(secs(10));
    world.assert_settled(1);
    assert_eq!(world.lost_traffic, 0);
}

#[test]
fn a_renewal_lost_with_one_packet_in_five_is_made_up_for() {
    for seed in 0..300 {
        let mut world = up(seed);
        (world.loss, world.jitter) = (20, Duration::from_millis(100));
        world.rekey(if seed % 2 == 0 { A } else { B }, Rekey::Ike);
        if seed % 3 == 0 {
            world.rekey(A, Rekey::Children);
        }
        world.run_with_traffic(secs(240));
        (world.loss, world.jitter) = (0, Duration::ZERO);
        world.run_with_traffic(secs(120));
        world.assert_settled_of(seed, 1);
    }
}

#[test]
fn a_day_of_short_lifetimes_loses_no_packet() {
    let mut world = World::with(4, |a, b| {
        for side in [a, b] {
            side.children[0].lifetime.time = secs(600);
            side.children[0].lifetime.margin = secs(60);
            side.ike_lifetime.time = secs(1_800);
            side.ike_lifetime.margin = secs(120);
        }
    });
    world.initiate(A, &["c"]);
    world.run_with_traffic(secs(24 * 3600));
    assert_eq!(world.lost_traffic, 0);
    let [a, b] = &world.gateways;
    assert!(a.counters.ike_rekeys + b.counters.ike_rekeys >= 40);
    assert!(a.failures().is_empty() && b.failures().is_empty());
    assert!(a.installed.len() <= 3 && b.installed.len() <= 3);
}

// a -- R-U-THERE --> (nobody)
#[test]
fn a_dead_peer_is_found_and_the_connection_restarts() {
    let mut world = up(5);
    world.run(secs(30));
    world.gateways[B].is_down = true;
    let from = world.now;
    world.run(secs(120));
    let down: Vec<_> = world.gateways[A].events.iter().filter(|(_, e)| matches!(e, Event::IkeDown { .. })).collect();
    let (at, Event::IkeDown { reason, .. }) = down[0] else { panic!() };
    assert_eq!(*reason, CloseReason::PeerDead);
    // It was last heard between 0 and 10 s before.
    assert!((secs(20)..secs(31)).contains(&(*at - from)), "{:?}", *at - from);
    assert!(world.gateways[A].installed.is_empty());
    // b restarts and remembers nothing; a comes back by itself.
    world.gateways[B].sessions.clear();
    world.gateways[B].installed.clear();
    world.gateways[B].active.clear();
    world.gateways[B].is_down = false;
    world.run_with_traffic(secs(120));
    world.assert_settled(1);
}

#[test]
fn a_peer_that_sends_is_not_asked_and_one_that_is_silent_is() {
    let mut world = up(6);
    let asked = |world: &World| world.sent.iter().filter(|p| p.payload[18] == 5).count();
    world.run_with_traffic(secs(60));
    assert_eq!(asked(&world), 0);
    world.run(secs(60));
    assert!(asked(&world) >= 10);
}

#[test]
fn the_dpd_action_says_what_becomes_of_the_connection() {
    for (action, restarts) in [(DpdAction::Restart, true), (DpdAction::Hold, false), (DpdAction::Clear, false)] {
        let mut world = up(7);
        world.connection_of(A, |c| c.dpd.as_mut().unwrap().action = action);
        world.gateways[B].is_down = true;
        world.run(secs(60));
        assert_eq!(world.gateways[A].down_reasons(), [CloseReason::PeerDead]);
        assert_eq!(!world.gateways[A].sessions.is_empty(), restarts);
    }
}

// a -- main mode, INITIAL_CONTACT --> b, which still has the SAs of a's former life
#[test]
fn a_peer_that_was_restarted_takes_the_place_of_its_former_self() {
    let mut world = up(8);
    world.run(secs(15));
    world.gateways[A].sessions.clear();
    world.gateways[A].installed.clear();
    world.gateways[A].active.clear();
    world.initiate(A, &["c"]);
    world.run_with_traffic(secs(60));
    world.assert_settled(1);
    assert_eq!(world.gateways[B].down_reasons(), [CloseReason::Replaced]);
}

// a -- D(ESP) --> b
#[test]
fn a_deleted_child_goes_on_both_sides_and_comes_back_where_it_should_be_up() {
    for (start, pairs) in [(Start::Wait, 0), (Start::AtOnce, 1)] {
        let mut world = up(9);
        world.connection_of(B, |c| c.children[0].start = start);
        world.act(A, |sessions, ctx| sessions[0].close_child("c", CloseReason::Command, ctx));
        assert!(world.gateways[A].installed.is_empty());
        world.run(Duration::from_millis(100));
        assert!(world.gateways[B].installed.is_empty());
        world.run(secs(20));
        world.assert_settled(pairs);
    }
}

/// A quick mode of A's whose message 2 is still under way when B takes the child down; message 2, and the deletes.
fn taken_down_before_message_2(seed: u64) -> (World, Vec<Packet>, Vec<Packet>) {
    let mut world = World::with(seed, |a, b| {
        for side in [a, b] {
            side.children[0].start = Start::Wait;
        }
    });
    world.initiate(A, &["c"]);
    while world.gateways[B].installed.is_empty() {
        world.run(Duration::from_millis(1));
    }
    let message_2 = std::mem::take(&mut world.wire);
    world.act(B, |sessions, ctx| sessions[0].close_child("c", CloseReason::Command, ctx));
    assert!(world.gateways[B].installed.is_empty());
    let deletes = std::mem::take(&mut world.wire);
    (world, message_2, deletes)
}

// a -- HASH(1), SA.. --> b; a <-- D(ESP) -- b; a <-- HASH(2), SA.. -- b (late)
#[test]
fn a_delete_that_overtakes_message_2_leaves_no_child() {
    let (mut world, message_2, deletes) = taken_down_before_message_2(14);
    deletes.into_iter().for_each(|packet| world.deliver(packet));
    message_2.into_iter().for_each(|packet| world.deliver(packet));
    assert!(world.gateways[A].installed.is_empty());
    let sent = world.sent.len();
    world.run(secs(8));
    assert_eq!(world.sent.len(), sent, "the exchange is over for both");
    // The next one is not disturbed.
    world.act(A, |sessions, ctx| sessions[0].initiate_child("c", ctx));
    world.run_with_traffic(secs(5));
    world.assert_settled(1);
}

// The same, and a, which never starts by itself, has it come back where it should be up.
#[test]
fn a_child_that_was_deleted_before_message_2_comes_back_where_it_should_be_up() {
    let (mut world, message_2, deletes) = taken_down_before_message_2(15);
    world.connection_of(A, |c| c.children[0].start = Start::AtOnce);
    deletes.into_iter().for_each(|packet| world.deliver(packet));
    message_2.into_iter().for_each(|packet| world.deliver(packet));
    world.run_with_traffic(secs(5));
    world.assert_settled(1);
    assert_eq!(world.lost_traffic, 0);
}

// a -- HASH(1), SA.. --> b, a rekey; a <-- D(ESP) of the new one -- b; a <-- HASH(2), SA.. -- b (late)
#[test]
fn a_rekey_whose_sa_was_deleted_before_message_2_is_begun_again() {
    let mut world = up(18);
    world.connection_of(A, |c| c.children[0].start = Start::Wait);
    let old = *world.gateways[B].installed.keys().next().unwrap();
    world.rekey(A, Rekey::Children);
    world.run(Duration::from_millis(10));
    let message_2 = std::mem::take(&mut world.wire);
    let new = *world.gateways[B].installed.keys().find(|id| **id != old).unwrap();
    world.act(B, |sessions, ctx| sessions[0].expire_child(new, ctx));
    world.run(Duration::from_millis(10));
    message_2.into_iter().for_each(|packet| world.deliver(packet));
    world.run_with_traffic(secs(60));
    world.assert_settled(1);
    assert_eq!((world.lost_traffic, world.gateways[A].counters.child_rekeys), (0, 1));
}

// a -- HASH(1), SA.. --> b; (lost) <-- D(ESP) -- b; a <-- HASH(2), SA.. -- b (late)
// a -- HASH(3) --> b; a <-- D(ESP) -- b
#[test]
fn message_3_for_a_child_that_is_gone_is_answered_by_its_delete() {
    let (mut world, message_2, _lost) = taken_down_before_message_2(16);
    message_2.into_iter().for_each(|packet| world.deliver(packet));
    assert_eq!(world.gateways[A].installed.len(), 1);
    let message_3 = world.wire.clone();
    world.run(Duration::from_millis(25));
    assert!(world.gateways[A].installed.is_empty());
    // Only the message itself is answered, and what is in use is never deleted by it.
    let mut forged = message_3[0].clone();
    *forged.payload.last_mut().unwrap() ^= 1;
    let sent = world.sent.len();
    world.deliver(forged);
    assert_eq!(world.sent.len(), sent);
}

// a -- HASH(3) --> b, and the same again
#[test]
fn a_recording_of_message_3_takes_nothing_down() {
    let mut world = up(17);
    let message_3 = world.sent.iter().rfind(|p| p.from.ip() == world.gateways[A].address && p.payload[18] == 32);
    let message_3 = message_3.unwrap().clone();
    let sent = world.sent.len();
    world.deliver(message_3);
    assert_eq!(world.sent.len(), sent);
    world.run_with_traffic(secs(5));
    world.assert_settled(1);
}

// a -- D(ESP), D(ISAKMP) --> b
#[test]
fn a_closed_session_takes_its_children_along_on_both_sides() {
    let mut world = up(10);
    world.connection_of(B, |c| c.children[0].start = Start::Wait);
    world.act(A, |sessions, ctx| sessions[0].close(CloseReason::Command, ctx));
    world.run(secs(30));
    for gateway in &world.gateways {
        assert!(gateway.sessions.is_empty() && gateway.installed.is_empty());
    }
    assert_eq!(world.gateways[B].down_reasons(), [CloseReason::PeerDeleted]);
}

#[test]
fn a_session_that_is_never_renewed_ends_and_comes_back() {
    let mut world = World::with(11, |a, b| {
        for side in [a, b] {
            side.ike_lifetime.time = secs(300);
            side.dpd = None;
        }
    });
    world.initiate(A, &["c"]);
    world.run(secs(100));
    world.loss = 100;
    world.run(secs(300));
    assert!(world.gateways[A].down_reasons().contains(&CloseReason::Expired));
    world.loss = 0;
    world.run_with_traffic(secs(120));
    world.assert_settled(1);
}

#[test]
fn a_session_sleeps_until_its_next_deadline_and_waking_early_does_nothing() {
    let mut world = up(12);
    let next = world.gateways[A].sessions.iter().filter_map(Session::poll_timeout).map(|d| d.at).min().unwrap();
    assert!(next > world.now);
    let sent = world.sent.len();
    let early = Instant::from_micros(next.as_micros() - 1);
    world.now = early;
    world.act(A, |sessions, ctx| sessions[0].handle_timeout(ctx));
    assert_eq!(world.sent.len(), sent);
    world.now = next + secs(5);
    world.act(A, |sessions, ctx| sessions[0].handle_timeout(ctx));
    assert!(world.gateways[A].sessions[0].poll_timeout().unwrap().at > world.now);
}
