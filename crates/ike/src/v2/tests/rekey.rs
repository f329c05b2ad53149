//! Rekeying, and every collision (RFC 7296 §2.8.1, §2.25): who begins, who loses the contest of nonces, and which
//! message is lost. Packets flow both ways all the time, and none may be lost.

use std::collections::BTreeSet;
use std::time::Duration;

use base::algorithm::Group;

use super::harness::*;
use crate::event::{CloseReason, Event, Rekey};
use crate::session::IkeState;
use crate::v2::Session;

/// Something that a side does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    RekeyChild,
    RekeyIke,
    CloseChild,
    CloseIke,
    Ask,
}

impl Act {
    fn of(self, world: &mut World, node: usize) {
        if world.nodes[node].live().is_empty() {
            return;
        }
        world.command(node, |session: &mut Session, ctx| match self {
            Self::RekeyChild => session.rekey(Rekey::Children, ctx),
            Self::RekeyIke => session.rekey(Rekey::Ike, ctx),
            Self::CloseChild => session.close_child("site", CloseReason::Command, ctx),
            Self::CloseIke => session.close(CloseReason::Command, ctx),
            Self::Ask => session.initiate_child("site", ctx),
        });
    }
}

/// Both sides act, B some time after A, and one of the messages from then on is lost.
fn collide(seed: u64, acts: [Act; 2], gap: Duration, lost: Option<usize>, pfs: bool) -> World {
    let mut world = World::with(seed, |a, b| {
        for c in [a, b] {
            c.children[0].esp[0].groups = if pfs { vec![Group::Ecp256] } else { vec![] };
        }
    });
    world.establish();
    world.start_traffic();
    world.run(Duration::from_millis(100));
    let mut count = 0;
    world.filter = Box::new(move |_, _| {
        count += 1;
        Some(count - 1) != lost
    });
    acts[A].of(&mut world, A);
    world.run(gap);
    acts[B].of(&mut world, B);
    world.run(secs(6));
    world.stop_traffic();
    world.run(secs(194));
    world
}

/// Every gap that makes a difference with a delay of 10 ms, every message lost, several outcomes of the contest.
fn every_collision(acts: [Act; 2], check: impl Fn(&World, &str)) {
    for seed in 0..4 {
        for gap in [0, 10, 15, 25, 35] {
            for lost in std::iter::once(None).chain((0..10).map(Some)) {
                let world = collide(seed, acts, Duration::from_millis(gap), lost, seed % 2 == 0);
                check(&world, &format!("{acts:?} seed {seed}, gap {gap} ms, lost {lost:?}"));
            }
        }
    }
}

fn joined_without_loss(world: &World, what: &str) {
    let [a, b] = &world.nodes;
    assert_eq!((a.live().len(), b.live().len()), (1, 1), "{what}");
    assert_eq!((a.sas.len(), b.sas.len()), (1, 1), "{what}: {:#?} {:#?}", a.live(), b.live());
    world.assert_joined();
    world.assert_clean();
    assert!(world.packets.0 > 200, "{what}");
    assert_eq!(world.packets.1, 0, "{what}: packets lost");
    assert_eq!(a.failures(), [""; 0], "{what}");
    assert_eq!(b.failures(), [""; 0], "{what}");
}

// a -- CREATE_CHILD_SA { N(REKEY_SA), SA, Ni, TSi, TSr } -> b, a <- { SA, Nr, TSi, TSr } -- b
// a -- INFORMATIONAL { D(old) } -> b, a <- INFORMATIONAL { D(old) } -- b
#[test]
fn a_child_is_rekeyed_before_the_old_one_goes() {
    let mut world = World::established(1);
    let old = world.nodes[A].outbound().unwrap().sa.clone();
    world.start_traffic();
    world.command(A, |session, ctx| session.rekey(Rekey::Children, ctx));
    world.run(secs(1));
    world.assert_joined();
    assert_eq!((world.wire.len(), world.packets.1), (8, 0));
    let new = &world.nodes[A].outbound().unwrap().sa;
    assert_ne!((new.id, &new.keys), (old.id, &old.keys));
    for node in &world.nodes {
        assert!(node.has(|e| matches!(e, Event::ChildUp { replaces: Some(_), .. })));
        assert!(node.has(|e| matches!(e, Event::ChildDown { reason: CloseReason::Replaced, .. })));
        assert_eq!(node.counters.child_rekeys, 1);
    }
}

// a -- CREATE_CHILD_SA { SA, Ni, KEi } -> b, a <- { SA, Nr, KEr } -- b
// a -- INFORMATIONAL { D } -> b, a <- INFORMATIONAL {} -- b, both on the old IKE SA
#[test]
fn an_ike_sa_is_rekeyed_and_keeps_its_children() {
    let mut world = World::established(1);
    let child = world.nodes[A].outbound().unwrap().sa.id;
    for _ in 0..3 {
        let old = world.nodes[A].only();
        world.command(A, |session, ctx| session.rekey(Rekey::Ike, ctx));
        world.run(secs(15));
        world.assert_joined();
        world.assert_clean();
        assert_ne!(world.nodes[A].only(), old);
    }
    assert_eq!(world.nodes[A].outbound().unwrap().sa.id, child);
    assert!(world.nodes.iter().all(|node| node.counters.ike_rekeys == 3));
    assert!(!world.nodes[B].has(|e| matches!(e, Event::IkeDown { .. })));
}

#[test]
fn the_side_that_answered_may_rekey_next() {
    let mut world = World::established(1);
    for (node, what) in [(B, Rekey::Ike), (A, Rekey::Children), (A, Rekey::Ike), (B, Rekey::Children), (B, Rekey::Ike)]
    {
        world.command(node, |session, ctx| session.rekey(what, ctx));
        world.run(secs(15));
        world.assert_joined();
        world.assert_clean();
    }
}

// a -- CREATE_CHILD_SA { N(REKEY_SA), KE 19 } -> b, a <- { N(INVALID_KE_PAYLOAD, 31) } -- b, a -- { KE 31 } -> b, …
#[test]
fn a_child_rekey_with_another_group_is_asked_for_and_given() {
    let mut world = World::with(1, |a, b| {
        a.children[0].esp[0].groups = vec![Group::Ecp256, Group::Curve25519];
        b.children[0].esp[0].groups = vec![Group::Curve25519];
    });
    world.establish();
    world.command(A, |session, ctx| session.rekey(Rekey::Children, ctx));
    world.run(secs(1));
    world.assert_joined();
    assert_eq!(world.nodes[A].live()[0].view().children[0].pfs, Some(Group::Curve25519));
}

#[test]
fn an_ike_rekey_with_another_group_is_asked_for_and_given() {
    let mut world = World::with(1, |a, _| a.ike[0].groups = vec![Group::Curve25519, Group::Ecp256]);
    world.establish();
    // B wants another group from now on.
    world.reconfigure(B, |b| b.ike[0].groups = vec![Group::Ecp256]);
    world.command(A, |session, ctx| session.close(CloseReason::Command, ctx));
    world.run(secs(1));
    world.establish();
    world.command(A, |session, ctx| session.rekey(Rekey::Ike, ctx));
    world.run(secs(15));
    world.assert_joined();
    assert!(world.nodes[A].live()[0].view().suite.ends_with("ecp256"));
}

// a -- CREATE_CHILD_SA { REKEY_SA } -> b and a <- CREATE_CHILD_SA { REKEY_SA } -- b
#[test]
fn both_rekey_the_child_at_once() {
    every_collision([Act::RekeyChild, Act::RekeyChild], joined_without_loss);
}

#[test]
fn in_simultaneous_rekeys_of_a_child_each_side_loses_the_contest_sometimes() {
    let kept = |seed| {
        let world = collide(seed, [Act::RekeyChild, Act::RekeyChild], Duration::ZERO, None, false);
        // Whoever keeps its own SA deletes the old one, and the other its new one: both send one delete.
        assert_eq!(world.wire.len(), 12);
        let up = |(_, event): &(base::Instant, Event)| matches!(event, Event::ChildUp { replaces: Some(_), .. });
        world.nodes.each_ref().map(|node| node.events.iter().filter(|event| up(event)).count())
    };
    assert!((0..8).all(|seed| kept(seed) == [1, 1]));
}

// a -- CREATE_CHILD_SA { SA, Ni, KEi } -> b and a <- CREATE_CHILD_SA { SA, Ni, KEi } -- b
#[test]
fn both_rekey_the_ike_sa_at_once() {
    every_collision([Act::RekeyIke, Act::RekeyIke], joined_without_loss);
}

#[test]
fn in_simultaneous_rekeys_of_an_ike_sa_each_side_loses_the_contest_sometimes() {
    let initiators: BTreeSet<_> = (0..8)
        .map(|seed| {
            let world = collide(seed, [Act::RekeyIke, Act::RekeyIke], Duration::ZERO, None, false);
            world.nodes[A].live()[0].is_initiator()
        })
        .collect();
    assert_eq!(initiators.len(), 2);
}

// One rekeys the IKE SA while the other rekeys the child: TEMPORARY_FAILURE, and again later.
#[test]
fn one_rekeys_the_child_while_the_other_rekeys_the_ike_sa() {
    every_collision([Act::RekeyChild, Act::RekeyIke], joined_without_loss);
    every_collision([Act::RekeyIke, Act::RekeyChild], joined_without_loss);
}

fn without_child(world: &World, what: &str) {
    world.nodes.iter().for_each(|node| {
        assert_eq!(node.live().len(), 1, "{what}");
        assert_eq!(node.sas.len(), 0, "{what}: {:#?}", node.sas);
        assert_eq!(node.failures(), [""; 0], "{what}");
    });
    world.assert_clean();
}

// a -- CREATE_CHILD_SA { REKEY_SA } -> b and a <- INFORMATIONAL { D } -- b. What is left depends on who was first.
#[test]
fn one_rekeys_the_child_while_the_other_deletes_it() {
    let either = |world: &World, what: &str| {
        world.assert_clean();
        if world.nodes[A].sas.is_empty() {
            without_child(world, what);
        } else {
            world.assert_joined();
        }
    };
    every_collision([Act::RekeyChild, Act::CloseChild], either);
    every_collision([Act::CloseChild, Act::RekeyChild], either);
}

#[test]
fn both_delete_the_child_at_once() {
    every_collision([Act::CloseChild, Act::CloseChild], without_child);
}

#[test]
fn one_deletes_the_child_while_the_other_rekeys_the_ike_sa() {
    every_collision([Act::CloseChild, Act::RekeyIke], without_child);
    every_collision([Act::RekeyIke, Act::CloseChild], without_child);
}

fn gone(world: &World, what: &str) {
    world.nodes.iter().for_each(|node| {
        assert!(node.sessions.is_empty() && node.sas.is_empty(), "{what}: {:#?}", node.sessions);
        let downs = node.events.iter().filter(|(_, event)| matches!(event, Event::IkeDown { .. })).count();
        assert_eq!(downs, 1, "{what}");
        assert_eq!(node.failures(), [""; 0], "{what}");
    });
}

#[test]
fn both_delete_the_ike_sa_at_once() {
    every_collision([Act::CloseIke, Act::CloseIke], gone);
}

// When the delete comes first nothing is left; when the rekey does, its successor lives.
#[test]
fn one_deletes_the_ike_sa_while_the_other_rekeys_it_or_its_child() {
    for act in [Act::RekeyIke, Act::RekeyChild, Act::Ask] {
        let either = |world: &World, what: &str| {
            if world.nodes[A].live().is_empty() {
                gone(world, what);
            } else {
                world.assert_joined();
            }
        };
        every_collision([act, Act::CloseIke], either);
        every_collision([Act::CloseIke, act], either);
    }
}

// a -- CREATE_CHILD_SA { SA, Ni, KEi } -> b, and a is taken down before the answer comes: so is what it leads to.
#[test]
fn an_ike_sa_that_is_closed_while_it_is_rekeyed_leaves_no_successor() {
    for (seed, gap, both) in (0..4).flat_map(|seed| [0, 5, 10, 15, 25, 35].map(|gap| (seed, gap, seed % 2 == 0))) {
        for lost in std::iter::once(None).chain((0..10).map(Some)) {
            let mut world = World::with(seed, |_, _| {});
            world.establish();
            let mut count = 0;
            world.filter = Box::new(move |_, _| {
                count += 1;
                Some(count - 1) != lost
            });
            Act::RekeyIke.of(&mut world, A);
            if both {
                Act::RekeyIke.of(&mut world, B);
            }
            world.run(Duration::from_millis(gap));
            Act::CloseIke.of(&mut world, A);
            world.run(secs(200));
            gone(&world, &format!("seed {seed}, gap {gap} ms, both {both}, lost {lost:?}"));
        }
    }
}

#[test]
fn a_closing_session_says_so() {
    let mut world = World::established(1);
    world.filter = Box::new(|_, _| false);
    world.command(A, |session, ctx| session.close(CloseReason::Command, ctx));
    let session = world.nodes[A].sessions.values().next().unwrap();
    assert_eq!((session.state(), session.view().state_name), (IkeState::Closing, "DELETING"));
    world.run(secs(60));
    assert!(world.nodes[A].sessions.is_empty());
}

// a -- INFORMATIONAL { D(spi) } -> b: the child is wanted, so b brings it up again.
#[test]
fn a_child_that_the_peer_deletes_comes_back_where_it_is_wanted() {
    let mut world = World::with(1, |_, b| b.children[0].start = model::Start::AtOnce);
    world.establish();
    world.command(A, |session, ctx| session.close_child("site", CloseReason::Command, ctx));
    world.run(secs(1));
    assert!(world.nodes[B].sas.is_empty());
    world.run(secs(4));
    world.assert_joined();
}

#[test]
fn a_child_whose_volume_is_used_up_is_renewed_in_time_or_replaced() {
    let mut world = World::with(1, |a, _| {
        a.children[0].start = model::Start::AtOnce;
        a.children[0].lifetime.bytes = Some(1_000);
    });
    world.establish();
    let sa = world.nodes[A].outbound().unwrap().sa.clone();
    assert_eq!((sa.limits.soft_bytes, sa.limits.hard_bytes), (Some(800), Some(1_000)));
    world.command(A, |session, ctx| session.rekey_child(sa.id, ctx));
    world.run(secs(1));
    world.assert_joined();
    let second = world.nodes[A].outbound().unwrap().sa.id;
    assert_ne!(second, sa.id);
    world.command(A, |session, ctx| session.expire_child(second, ctx));
    world.run(secs(1));
    world.assert_joined();
    assert!(world.nodes[A].has(|e| matches!(e, Event::ChildDown { reason: CloseReason::Expired, .. })));
}

// The peer takes four requests at once: the second does not wait for the first.
#[test]
fn a_window_of_the_peers_is_used() {
    let mut world = World::with(1, |a, b| {
        for (c, nets) in [(a, ("10.1.0.0/16", "10.9.0.0/16")), (b, ("10.9.0.0/16", "10.1.0.0/16"))] {
            let mut child = c.children[0].clone();
            child.name = "second".into();
            child.local = vec![model::Selector::net(nets.0.parse().unwrap())];
            child.remote = vec![model::Selector::net(nets.1.parse().unwrap())];
            c.children.push(child);
        }
    });
    world.initiate(A);
    world.run(secs(1));
    let before = world.wire.len();
    world.command(A, |session, ctx| session.rekey(Rekey::Children, ctx));
    assert_eq!(world.wire.len() - before, 1);
    world.run(secs(1));
    world.command(A, |session, _| session.widen(4));
    let before = world.wire.len();
    world.command(A, |session, ctx| session.rekey(Rekey::Children, ctx));
    assert_eq!(world.wire.len() - before, 2);
}
