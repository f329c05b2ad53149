//! What people do: hold down, let up, remove, move.

use base::Machine;
use bfd::{Diagnostic, DownCause, EventKind, Output, SessionConfig, State};

use crate::host::*;

const DOWN: Option<Diagnostic> = Some(Diagnostic::ADMINISTRATIVELY_DOWN);

#[test]
fn a_session_held_down_is_no_failure_to_either_end_and_comes_back() {
    let mut pair = pair_up();
    let now = pair.now;
    pair.hosts[0].sessions.set_admin_down(ID, DOWN, now);
    pair.run_for(60 * SECOND);
    let (a, b) = (&pair.hosts[0], &pair.hosts[1]);
    assert_eq!((a.downs()[0].1, b.downs()[0].1), (DownCause::AdminDown, DownCause::NeighborAdminDown));
    assert!(!a.downs()[0].1.is_failure() && !b.downs()[0].1.is_failure());
    assert!(b.downs()[0].0 - now <= 11 * MS, "it is told at once");
    assert_eq!((a.state(), b.state(), b.status().remote_state), (State::AdminDown, State::Down, State::AdminDown));
    assert_eq!(b.status().last_remote_diagnostic, Diagnostic::ADMINISTRATIVELY_DOWN);
    assert!(a.sent.iter().filter(|(at, _)| *at > now + SECOND).count() >= 59, "it goes on saying so");
    let now = pair.now;
    pair.hosts[0].sessions.set_admin_down(ID, None, now);
    pair.run_for(4 * SECOND);
    assert_up(&pair);
    assert_eq!(pair.hosts[0].status().local_diagnostic, Diagnostic::NONE);
}

#[test]
fn a_path_that_failed_below_is_told_to_the_neighbor_with_its_reason() {
    let mut alone = Alone::up();
    alone.sessions.set_admin_down(ID, Some(Diagnostic::PATH_DOWN), alone.now);
    let (packets, events) = alone.outputs();
    assert!(matches!(events[..], [EventKind::Down { cause: DownCause::PathDown, .. }]));
    assert_eq!((packets[0].state, packets[0].diagnostic), (State::AdminDown, Diagnostic::PATH_DOWN));
    // Another reason is told too, but is no second event.
    alone.sessions.set_admin_down(ID, DOWN, alone.now);
    let (packets, events) = alone.outputs();
    assert_eq!((packets[0].diagnostic, events.len()), (Diagnostic::ADMINISTRATIVELY_DOWN, 0));
}

#[test]
fn a_session_held_down_forgets_a_neighbor_that_falls_silent() {
    let mut alone = Alone::up();
    alone.sessions.set_admin_down(ID, DOWN, alone.now);
    assert!(alone.say(State::Down).is_err());
    assert!(alone.status().remote_discriminator.is_some());
    alone.pass(4 * SECOND);
    assert_eq!((alone.status().remote_discriminator, alone.status().state), (None, State::AdminDown));
}

#[test]
fn a_removed_session_says_goodbye_and_is_gone() {
    let mut alone = Alone::up();
    let local = alone.status().local;
    alone.sessions.remove(ID, alone.now);
    let outputs: Vec<_> = std::iter::from_fn(|| alone.sessions.poll_output()).collect();
    let [Output::Event(event), Output::Transmit(goodbye), Output::Release { local: released, .. }] = &outputs[..]
    else {
        panic!("{outputs:?}")
    };
    assert!(matches!(event.kind, EventKind::Down { cause: DownCause::Removed, .. }));
    assert_eq!(bfd::wire::Packet::decode(goodbye.payload.as_bytes()).unwrap().packet.state, State::AdminDown);
    assert_eq!((goodbye.local, *released), (local, local));
    assert_eq!((alone.sessions.poll_timeout(), alone.sessions.session_count()), (None, 0));
    alone.sessions.remove(ID, alone.now);
    assert_eq!(alone.sessions.poll_output(), None);
    // Its addresses are free for another.
    alone.sessions.upsert(bfd::SessionId(8), config(A, B), alone.now).unwrap();
}

#[test]
fn with_other_addresses_it_is_another_session() {
    let mut alone = Alone::up();
    let before = alone.status();
    alone.sessions.upsert(ID, config(A, "169.254.10.6"), alone.now).unwrap();
    let status = alone.status();
    assert_eq!((status.state, status.counters.received), (State::Down, 0));
    assert_ne!(status.local_discriminator, before.local_discriminator);
    let (_, events) = alone.outputs();
    assert!(matches!(events[..], [EventKind::Down { cause: DownCause::Removed, .. }]));
}

#[test]
fn the_same_configuration_again_changes_nothing() {
    let mut alone = Alone::up();
    let before = alone.status();
    alone.sessions.upsert(ID, config(A, B), alone.now).unwrap();
    assert_eq!((alone.status(), alone.outputs()), (before, (vec![], vec![])));
    alone.sessions.upsert(ID, SessionConfig { multiplier: 5, ..config(A, B) }, alone.now).unwrap();
    assert_eq!((alone.status().state, alone.outputs()), (State::Up, (vec![], vec![])));
    assert_eq!(alone.pass(150 * MS)[0].1.multiplier.get(), 5);
}
