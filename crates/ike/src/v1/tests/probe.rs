//! Probes of the path.

use super::world::{A, B, World, secs};
use crate::event::CloseReason;
use crate::v1::State;
use crate::{CannotProbe, Outcome, Probe, Probed};

fn up(seed: u64) -> World {
    let mut world = World::new(seed);
    world.initiate(A, &["c"]);
    world.run(secs(2));
    world.assert_settled(1);
    world
}

fn probe(world: &mut World, number: u64, most: u16) -> Result<(), CannotProbe> {
    world.act(A, |sessions, ctx| sessions[0].probe(Probe { number, least: most - 20, most }, ctx))
}

// a -- N(R-U-THERE, n), VID(filler) --> b; a <-- N(R-U-THERE-ACK, n) -- b
#[test]
fn a_size_that_passes_costs_one_question_and_its_answer() {
    let mut world = up(1);
    let sent = world.sent.len();
    probe(&mut world, 7, 1_500).unwrap();
    world.run(secs(1));
    let [(A, Probed { number: 7, size, outcome: Outcome::Answered })] = world.probed[..] else {
        panic!("{:?}", world.probed)
    };
    // IP and UDP, then blocks of 16 bytes behind the header of 28.
    assert_eq!((usize::from(size), size), (28 + world.sent[sent].payload.len(), 1_496));
    assert_eq!(world.sent.len(), sent + 2);
    world.run(secs(60));
    assert!(world.gateways[A].down_reasons().is_empty());
}

#[test]
fn a_size_that_does_not_pass_is_lost_while_the_peer_lives() {
    let mut world = up(2);
    world.mtu = 1_400;
    probe(&mut world, 1, 1_500).unwrap();
    world.run(secs(3));
    assert!(matches!(world.probed[..], [(A, Probed { number: 1, outcome: Outcome::Lost, .. })]), "{:?}", world.probed);
    probe(&mut world, 2, 1_400).unwrap();
    world.run(secs(1));
    assert_eq!(world.probed[1].1, Probed { number: 2, size: 1_400, outcome: Outcome::Answered });
    // A question that was answered late, or is a recording, says nothing of the next.
    let answer = world.sent.last().unwrap().clone();
    probe(&mut world, 3, 1_500).unwrap();
    world.deliver(answer);
    assert_eq!(world.probed.len(), 2);
    world.run(secs(4));
    assert!(matches!(world.probed[2].1, Probed { number: 3, outcome: Outcome::Lost, .. }));
}

// a -- N(R-U-THERE, n), VID(filler) --> (lost); a -- N(R-U-THERE, n + 1) -->; a <-- N(R-U-THERE-ACK, n + 1) -- b
#[test]
fn the_answer_to_a_question_of_dead_peer_detection_is_none_to_a_probe() {
    let mut world = World::with(7, |a, _| a.dpd.as_mut().unwrap().delay = std::time::Duration::from_millis(300));
    world.initiate(A, &["c"]);
    world.run(secs(2));
    world.mtu = 1_400;
    for number in 0..10 {
        world.run(std::time::Duration::from_millis(77));
        probe(&mut world, number, 1_500).unwrap();
        world.run(secs(4));
    }
    assert_eq!(world.probed.len(), 10);
    assert!(world.probed.iter().all(|(_, probed)| probed.outcome == Outcome::Lost), "{:?}", world.probed);
}

#[test]
fn where_nothing_is_answered_the_probe_says_nothing_and_dead_peer_detection_decides() {
    let mut world = up(3);
    world.gateways[B].is_down = true;
    probe(&mut world, 1, 1_500).unwrap();
    world.run(secs(5));
    assert!(matches!(world.probed[..], [(A, Probed { size: 1_496, outcome: Outcome::Cancelled, .. })]));
    assert!(world.gateways[A].down_reasons().is_empty());
    world.run(secs(60));
    assert_eq!(world.gateways[A].down_reasons(), [CloseReason::PeerDead]);
}

#[test]
fn a_probe_that_is_cut_short_is_told_of() {
    let mut world = up(4);
    probe(&mut world, 1, 1_500).unwrap();
    world.act(A, |sessions, ctx| sessions[0].close(CloseReason::Command, ctx));
    assert!(matches!(world.probed[..], [(A, Probed { number: 1, outcome: Outcome::Cancelled, .. })]));
    let mut world = up(5);
    probe(&mut world, 1, 1_500).unwrap();
    world.rekey(A, crate::Rekey::Children);
    assert!(matches!(world.probed[..], [(A, Probed { number: 1, outcome: Outcome::Cancelled, .. })]));
    // While a quick mode is under way nothing is asked.
    let sent = world.sent.len();
    probe(&mut world, 2, 1_500).unwrap();
    assert_eq!((world.probed[1].1.size, world.sent.len()), (0, sent));
}

#[test]
fn a_peer_without_dead_peer_detection_cannot_be_asked() {
    let mut world = up(6);
    world.act(A, |sessions, _| {
        let State::Established(established) = &mut sessions[0].state else { panic!() };
        established.peer_has_dpd = false;
    });
    assert_eq!(probe(&mut world, 1, 1_500), Err(CannotProbe::NoDpd));
}
