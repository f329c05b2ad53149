//! A process goes on with the sessions of another.

use std::time::Duration;

use base::{Instant, Machine};
use bfd::{EventKind, Exported, Options, Sessions, State};

use super::host::{A, Alone, B, Gate, ID, MS, SECOND, assert_up, config, pair_up};

/// What the first host of a pair hands over, through the form in which it travels.
fn exported(gate: &Gate, now: Instant) -> Exported {
    let [exported] = gate.sessions.export(now).try_into().unwrap();
    let text = serde_json::to_string(&exported).unwrap();
    let read: Exported = serde_json::from_str(&text).unwrap();
    assert_eq!(read, exported);
    read
}

fn resumed(exported: &Exported, local: &str, now: Instant) -> Gate {
    let mut gate = Gate::new(local, 99);
    gate.now = now;
    gate.sessions.resume(ID, config(local, if local == A { B } else { A }), exported, now).unwrap();
    gate
}

#[test]
fn the_neighbor_notices_nothing_even_if_the_change_takes_two_intervals() {
    // A' goes on for A, 200 ms after A fell silent; detection takes 300 ms.
    let mut pair = pair_up();
    let (before, exported) = (pair.hosts[0].status(), exported(&pair.hosts[0], pair.now));
    let silent = std::mem::replace(&mut pair.hosts[0], Gate::new("192.0.2.99", 98));
    pair.run_for(200 * MS);
    drop(silent);
    pair.hosts[0] = resumed(&exported, A, pair.now);
    pair.run_for(20 * SECOND);
    assert_up(&pair);
    assert!(pair.hosts[1].downs().is_empty());
    let after = pair.hosts[0].status();
    assert_eq!(after.local_discriminator, before.local_discriminator);
    assert_eq!(after.local, before.local);
    // Moments are told as distances, and time has passed.
    assert_eq!(after.since, before.since + 200 * MS);
    assert_eq!((after.transmit_interval, after.detection_time), (before.transmit_interval, before.detection_time));
    assert!(after.counters.sent > before.counters.sent && after.counters.flaps == 0);
    let told: Vec<_> = pair.hosts[0].events.iter().map(|(_, kind)| *kind).collect();
    assert_eq!(told, [EventKind::Up], "whoever relies on it is told that it is up");
}

#[test]
fn a_neighbor_that_has_died_meanwhile_is_found_out() {
    let mut pair = pair_up();
    let exported = exported(&pair.hosts[0], pair.now);
    pair.hosts.pop();
    pair.hosts[0] = resumed(&exported, A, pair.now);
    pair.run_for(299 * MS);
    assert_eq!(pair.hosts[0].state(), State::Up);
    pair.run_for(2 * MS);
    assert_eq!(pair.hosts[0].state(), State::Down);
}

#[test]
fn a_poll_that_was_under_way_is_begun_again() {
    let mut alone = Alone::up();
    let slower = bfd::SessionConfig { min_tx: 200 * MS, ..config(A, B) };
    alone.sessions.upsert(ID, slower.clone(), alone.now).unwrap();
    assert!(alone.status().is_polling);
    let [exported] = alone.sessions.export(alone.now).try_into().unwrap();
    let mut sessions = Sessions::new(Options::default(), base::Random::for_test(3));
    sessions.resume(ID, slower, &exported, alone.now).unwrap();
    let status = sessions.status(ID).unwrap();
    assert!(status.is_polling);
    assert_eq!(status.transmit_interval, Some(Duration::from_millis(100)), "until the neighbor has confirmed");
}

#[test]
fn what_does_not_fit_begins_anew() {
    let pair = pair_up();
    let exported = exported(&pair.hosts[0], pair.now);
    // For other addresses.
    let mut sessions = Sessions::new(Options::default(), base::Random::for_test(3));
    sessions.resume(ID, config(A, "169.254.11.1"), &exported, pair.now).unwrap();
    assert_eq!(sessions.status(ID).unwrap().state, State::Down);
    assert!(std::iter::from_fn(|| sessions.poll_output()).all(|output| !matches!(output, bfd::Output::Event(_))));
    // And what is not up is not handed over.
    assert!(sessions.export(pair.now).is_empty());
}
