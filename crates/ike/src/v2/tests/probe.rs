//! Probes of the path: what passes is proved by the peer, what does not harms nothing.

use std::time::Duration;

use base::algorithm::{Encryption, Integrity};
use model::{Connection, Encapsulation};

use super::harness::*;
use crate::event::{DropReason, Event, Rekey, Transmit};
use crate::{Outcome, Probe};

/// Bytes of the IPv4 packet that a datagram is.
fn packet_len(transmit: &Transmit) -> usize {
    transmit.payload.len() + if transmit.remote.is_ipv4() { 28 } else { 48 }
}

/// What passes a link for packets of at most so many bytes.
fn narrow(most: usize) -> Filter {
    Box::new(move |_, transmit| packet_len(transmit) <= most)
}

fn probe(world: &mut World, least: u16, most: u16) {
    world.command(A, |session, ctx| session.probe(Probe { number: 7, least, most }, ctx).unwrap());
}

fn outcomes(world: &World) -> Vec<(Outcome, u16)> {
    world.nodes[A].probed.iter().map(|(_, probed)| (probed.outcome, probed.size)).collect()
}

fn probes(world: &World) -> Vec<&Transmit> {
    world.wire.iter().map(|(_, transmit)| transmit).filter(|transmit| transmit.is_probe).collect()
}

// a -- INFORMATIONAL { N(filler) } of 1,500 bytes -> b
// a <- INFORMATIONAL { } -- b
#[test]
fn a_size_that_passes_is_answered_in_one_round_trip() {
    for (encapsulation, port) in [(Encapsulation::Auto, 500), (Encapsulation::Force, 4500)] {
        let mut world = World::with(1, |a, b| (a.encapsulation, b.encapsulation) = (encapsulation, encapsulation));
        world.establish();
        world.filter = narrow(1_500);
        let asked = world.now;
        probe(&mut world, 1_500, 1_500);
        world.run(secs(5));
        assert_eq!(outcomes(&world), [(Outcome::Answered, 1_500)]);
        assert_eq!(world.nodes[A].probed[0].0 - asked, Duration::from_millis(20));
        let [sent] = probes(&world)[..] else { panic!("sent {} times", probes(&world).len()) };
        assert_eq!((packet_len(sent), sent.remote.port()), (1_500, port));
    }
}

// a -- 1,500 bytes -> (black hole), twice the same; a -- an empty request of the same message ID -> b
// a <- INFORMATIONAL { } -- b
#[test]
fn a_size_that_does_not_pass_is_lost_after_two_tries_and_the_ike_sa_lives_on() {
    let mut world = World::established(1);
    world.filter = narrow(1_499);
    let asked = world.now;
    probe(&mut world, 1_500, 1_500);
    world.run(secs(5));
    assert_eq!(outcomes(&world), [(Outcome::Lost, 1_500)]);
    assert_eq!(world.nodes[A].probed[0].0 - asked, Duration::from_millis(1_020));
    let sent = probes(&world);
    assert_eq!((sent.len(), &sent[0].payload), (2, &sent[1].payload));
    world.command(A, |session, ctx| session.rekey(Rekey::Ike, ctx));
    world.run(secs(5));
    world.assert_joined();
}

#[test]
fn one_lost_probe_or_answer_is_no_black_hole() {
    for lost_from in [A, B] {
        let mut world = World::established(1);
        let mut is_first = true;
        world.filter = Box::new(move |node, _| node != lost_from || !std::mem::take(&mut is_first));
        probe(&mut world, 1_500, 1_500);
        world.run(secs(5));
        assert_eq!(outcomes(&world), [(Outcome::Answered, 1_500)], "lost from {lost_from}");
    }
}

// The answer to the whole request comes after the empty one has left: it proves nothing any more.
#[test]
fn an_answer_that_comes_after_the_empty_request_confirms_nothing_and_the_next_probe_waits_longer() {
    let mut world = World::established(1);
    world.link.delay = Duration::from_millis(550);
    probe(&mut world, 1_400, 1_400);
    world.run(secs(5));
    assert_eq!(outcomes(&world), [(Outcome::Lost, 1_400)]);
    probe(&mut world, 1_400, 1_400);
    world.run(secs(5));
    assert_eq!(outcomes(&world)[1], (Outcome::Answered, 1_400));
}

#[test]
fn a_forged_or_replayed_answer_confirms_nothing() {
    let mut world = World::established(1);
    // An answer of the same peer to a question before.
    world.command(A, |session, ctx| session.probe(Probe { number: 1, least: 600, most: 600 }, ctx).unwrap());
    world.run(secs(1));
    let (_, old) = world.wire.iter().rev().find(|(node, _)| *node == B).unwrap().clone();
    world.filter = narrow(1_000);
    probe(&mut world, 1_200, 1_200);
    let id = probes(&world).last().unwrap().payload[20..24].to_vec();
    let mut forged = old.payload.clone();
    forged[20..24].copy_from_slice(&id);
    for payload in [old.payload, forged] {
        world.inject(A, old.remote, old.local, &payload);
    }
    assert_eq!(world.nodes[A].counters.dropped(DropReason::OutOfOrder), 1);
    assert_eq!(world.nodes[A].counters.dropped(DropReason::NotAuthentic), 1);
    world.run(secs(5));
    assert_eq!(outcomes(&world), [(Outcome::Answered, 600), (Outcome::Lost, 1_200)]);
}

#[test]
fn what_has_to_be_asked_meanwhile_waits_for_one_round_trip_at_most() {
    let mut world = World::established(1);
    world.filter = narrow(1_000);
    probe(&mut world, 1_500, 1_500);
    world.run(Duration::from_millis(100));
    let asked = world.now;
    world.command(A, |session, ctx| session.rekey(Rekey::Children, ctx));
    world.run(secs(5));
    assert_eq!(outcomes(&world), [(Outcome::Cancelled, 1_500)]);
    let rekeyed = |(at, event): &(base::Instant, Event)| {
        matches!(event, Event::ChildUp { replaces: Some(_), .. }).then_some(*at - asked)
    };
    let took: Vec<_> = world.nodes[A].events.iter().filter_map(rekeyed).collect();
    assert_eq!(took, [Duration::from_millis(40)]);
    world.assert_joined();
}

#[test]
fn the_peers_rekey_of_the_ike_sa_takes_a_probe_with_it() {
    let mut world = World::established(1);
    world.filter = narrow(1_000);
    probe(&mut world, 1_500, 1_500);
    world.command(B, |session, ctx| session.rekey(Rekey::Ike, ctx));
    world.run(secs(5));
    assert_eq!(outcomes(&world), [(Outcome::Cancelled, 1_500)]);
    world.assert_joined();
}

#[test]
fn a_dead_peer_takes_a_probe_with_it() {
    let mut world = World::established(1);
    world.filter = Box::new(|_, _| false);
    probe(&mut world, 1_500, 1_500);
    world.run(secs(600));
    assert_eq!(outcomes(&world), [(Outcome::Cancelled, 1_500)]);
    assert!(world.nodes[A].has(|event| matches!(event, Event::IkeDown { .. })));
}

// Both answers to the whole request are lost: the peer has it, and is asked the same message ID again.
#[test]
fn a_peer_that_got_the_whole_request_answers_it_again_and_the_ike_sa_lives_on() {
    for fragmentation in [true, false] {
        let mut world = World::with(1, |a, b| (a.fragmentation, b.fragmentation) = (true, fragmentation));
        world.establish();
        let mut answers = 0;
        world.filter = Box::new(move |node, _| {
            answers += usize::from(node == B);
            node == A || answers > 2
        });
        probe(&mut world, 1_500, 1_500);
        world.run(secs(5));
        assert_eq!(outcomes(&world), [(Outcome::Lost, 1_500)]);
        world.command(A, |session, ctx| session.rekey(Rekey::Ike, ctx));
        world.run(secs(5));
        world.assert_joined();
    }
}

/// Every size that a suite reaches, and that none is exceeded.
#[test]
fn a_suite_that_works_in_blocks_reaches_every_fourth_size_or_every_sixteenth() {
    let cbc = |connection: &mut Connection, integrity| {
        let proposal = &mut connection.ike[0];
        (proposal.encryption, proposal.integrity) = (vec![Encryption::Aes128Cbc], vec![integrity]);
    };
    for (integrity, icv) in [(Integrity::Sha1, 12), (Integrity::Sha256, 16)] {
        let mut world = World::with(1, |a, b| [a, b].into_iter().for_each(|c| cbc(c, integrity)));
        world.establish();
        for most in 1_200..1_232 {
            world.nodes[A].probed.clear();
            probe(&mut world, most, most);
            world.run(secs(1));
            let (_, probed) = world.nodes[A].probed[0];
            let frame = 28 + 28 + 4 + 16 + icv;
            let reached = |extra| most - (most - frame - extra) % 16;
            assert_eq!(probed.size, reached(0).max(reached(4)), "{integrity:?} {most}");
            assert_eq!(probed.outcome, Outcome::Answered);
        }
        // A smaller one that does is taken without the fragment header.
        world.nodes[A].probed.clear();
        probe(&mut world, 1_200, 1_217);
        world.run(secs(1));
        let (_, probed) = world.nodes[A].probed[0];
        assert_eq!((probed.size - 92 - icv + 16) % 16, 0);
    }
}

// As strongSwan does: a fragment in this exchange is not answered.
#[test]
fn a_peer_that_does_not_take_one_fragment_is_asked_without() {
    let mut world = World::with(1, |a, b| {
        for connection in [a, b] {
            let proposal = &mut connection.ike[0];
            (proposal.encryption, proposal.integrity) = (vec![Encryption::Aes128Cbc], vec![Integrity::Sha1]);
        }
    });
    world.establish();
    // The next payload of the header says which it is: 53 is a fragment.
    world.filter = Box::new(|_, transmit| transmit.payload[16] != 53);
    probe(&mut world, 1_500, 1_500);
    world.run(secs(5));
    assert_eq!(outcomes(&world), [(Outcome::Answered, 1_496)]);
    assert_eq!(probes(&world).len(), 3, "two short ones with the fragment header, and one without");
}

#[test]
fn whatever_is_lost_each_probe_has_one_outcome_and_the_two_stay_joined() {
    for seed in 0..40 {
        let mut world = World::established(seed);
        world.link = Link { loss_percent: 25, ..Link::BAD };
        for number in 0..10 {
            world.command(A, |session, ctx| session.probe(Probe { number, least: 1_400, most: 1_400 }, ctx).unwrap());
            world.run(secs(30));
            if world.nodes[A].live().len() != 1 {
                break;
            }
        }
        world.link = Link::PERFECT;
        world.run(secs(200));
        let numbers: Vec<_> = world.nodes[A].probed.iter().map(|(_, probed)| probed.number).collect();
        assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>(), "seed {seed}");
        assert!(world.nodes[A].probed.iter().all(|(_, probed)| probed.size == 1_400), "seed {seed}");
    }
}
