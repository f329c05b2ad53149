//! A neighbor that falls silent, and one that was only unlucky.

use std::time::Duration;

use base::{Instant, Machine, Random};
use bfd::{Diagnostic, DownCause, EventKind, Options, SessionConfig, Sessions, State, TTL};
use sim::{Link, laws};

use crate::host::*;

#[test]
fn two_neighbors_come_up_within_two_seconds_and_agree_on_100_ms() {
    let mut pair = pair(Link::default(), config(A, B), config(B, A), 1);
    pair.run_for(2 * SECOND);
    assert_up(&pair);
    pair.run_for(2 * SECOND);
    for gate in &pair.hosts {
        let status = gate.status();
        assert_eq!(status.transmit_interval, Some(100 * MS));
        assert_eq!((status.receive_interval, status.detection_time), (Some(100 * MS), Some(300 * MS)));
        assert_eq!((status.is_polling, status.counters.polls, status.counters.ups), (false, 1, 1));
        assert_eq!(status.counters.discards.total(), 0);
    }
}

#[test]
fn a_cut_link_is_noticed_by_both_within_the_detection_time() {
    let mut pair = pair_up();
    let cut = pair.now;
    pair.network.is_cut = true;
    pair.run_for(SECOND);
    for gate in &pair.hosts {
        let [(when, DownCause::DetectionTimeExpired)] = gate.downs()[..] else { panic!("{:?}", gate.events) };
        assert!(when - cut <= 300 * MS, "{:?}", when - cut);
        assert!(when - cut >= 190 * MS, "{:?}", when - cut);
        let status = gate.status();
        assert_eq!((status.state, status.local_diagnostic), (State::Down, Diagnostic::DETECTION_TIME_EXPIRED));
        assert_eq!((status.remote_discriminator, status.detection_time), (None, None));
    }
    // While it is down it sends once a second, at 75 to 100 per cent of it.
    let before = pair.hosts[0].status().counters.sent;
    pair.run_for(100 * SECOND);
    let sent = pair.hosts[0].status().counters.sent - before;
    assert!((100..=134).contains(&sent), "{sent}");
    pair.network.is_cut = false;
    pair.run_for(3 * SECOND);
    assert_up(&pair);
}

#[test]
fn one_way_loss_takes_both_down_and_the_diagnostics_tell_who_heard_nothing() {
    // A's packets are lost: B hears nothing and says so; A hears it from B.
    let mut pair = pair_up();
    let mut ends = std::mem::take(&mut pair.hosts).into_iter();
    let (mut a, mut b) = (ends.next().unwrap(), ends.next().unwrap());
    let mut now = pair.now;
    while a.state() == State::Up || b.state() == State::Up {
        let next = [sim::Host::deadline(&a), sim::Host::deadline(&b)].into_iter().flatten().min().unwrap();
        now = next.at;
        assert!(now < pair.now + SECOND);
        sim::Host::wake(&mut a, now);
        sim::Host::wake(&mut b, now);
        sim::Host::outgoing(&mut a);
        for datagram in sim::Host::outgoing(&mut b) {
            sim::Host::receive(&mut a, datagram, now);
        }
        sim::Host::outgoing(&mut a);
    }
    assert_eq!(b.downs()[0].1, DownCause::DetectionTimeExpired);
    assert_eq!(a.downs()[0].1, DownCause::NeighborSignaledDown);
    assert!(matches!(
        a.events[..],
        [.., (_, EventKind::Down { remote_diagnostic: Diagnostic::DETECTION_TIME_EXPIRED, .. })]
    ));
    assert_eq!(a.status().last_remote_diagnostic, Diagnostic::DETECTION_TIME_EXPIRED);
    assert!(now - pair.now <= 310 * MS);
}

#[test]
fn two_lost_packets_of_three_are_no_failure() {
    let mut alone = Alone::up();
    alone.pass(299 * MS);
    assert_eq!(alone.status().state, State::Up);
    alone.say(State::Up).unwrap();
    alone.pass(299 * MS);
    assert_eq!(alone.status().state, State::Up);
    alone.pass(MS);
    assert_eq!(alone.status().state, State::Down);
}

#[test]
fn a_tenth_of_all_packets_lost_for_an_hour_costs_a_long_detection_time_nothing() {
    let ten = |local, remote| SessionConfig { multiplier: 10, ..config(local, remote) };
    let link = Link { loss: 10, ..Link::default() };
    let mut pair = pair(link, ten(A, B), ten(B, A), 11);
    pair.run_for(3600 * SECOND);
    assert_up(&pair);
    for gate in &pair.hosts {
        assert_eq!(gate.downs(), []);
        assert!(gate.status().counters.received > 3600 * 8);
    }
}

#[test]
fn on_a_terrible_link_it_flaps_but_each_end_recovers_and_none_believes_in_vain() {
    for seed in 0..10 {
        let mut pair = pair(Link::bad(40), config(A, B), config(B, A), seed);
        pair.run_for(600 * SECOND);
        assert!(pair.hosts.iter().all(|gate| !gate.downs().is_empty()), "seed {seed}: no flap");
        pair.network.link = Link::default();
        pair.run_for(10 * SECOND);
        assert_up(&pair);
        let flaps: Vec<_> = pair.hosts.iter().map(|gate| gate.status().counters.flaps).collect();
        pair.run_for(60 * SECOND);
        assert_eq!(flaps, pair.hosts.iter().map(|gate| gate.status().counters.flaps).collect::<Vec<_>>());
        // Events alternate: each Down was an Up before.
        for gate in &pair.hosts {
            for two in gate.events.windows(2) {
                assert_ne!(two[0].1 == EventKind::Up, two[1].1 == EventKind::Up, "{two:?}");
            }
        }
    }
}

#[test]
fn a_host_that_restarts_is_up_again_within_the_detection_time_and_two_seconds() {
    let mut pair = pair_up();
    pair.hosts[1] = Gate::new(B, 99);
    pair.hosts[1].sessions.upsert(ID, config(B, A), pair.now).unwrap();
    pair.hosts[1].now = pair.now;
    let restarted = pair.now;
    let done = pair.run_until(restarted + 3 * SECOND, |pair| {
        pair.hosts[1].state() == State::Up && pair.hosts[0].state() == State::Up
    });
    assert!(done, "{:?}", pair.hosts.iter().map(Gate::status).collect::<Vec<_>>());
    assert_eq!(pair.hosts[0].downs()[0].1, DownCause::NeighborSignaledDown);
    assert!(pair.hosts[0].downs()[0].0 - restarted <= 300 * MS);
}

#[test]
fn a_shell_that_was_stopped_for_a_while_hands_in_what_waited_and_nothing_fell() {
    let mut alone = Alone::up();
    alone.now += 5 * SECOND;
    alone.say(State::Up).unwrap();
    alone.sessions.handle_timeout(alone.now);
    assert_eq!(alone.status().state, State::Up);
    let (packets, events) = alone.outputs();
    assert_eq!((packets.len(), events.len()), (1, 0), "one packet, not fifty");
}

#[test]
fn what_a_silent_neighbor_had_asked_for_is_forgotten_with_it() {
    // It wanted no packets at all; after its restart it would wait for ours.
    let mut alone = Alone::new(config(A, B));
    alone.theirs.required_min_rx = 0;
    alone.say(State::Down).unwrap();
    alone.outputs();
    assert_eq!(alone.status().transmit_interval, None);
    assert_eq!(alone.pass(2_999 * MS), []);
    assert!(!alone.pass(2 * SECOND).is_empty());
    assert_eq!((alone.status().state, alone.status().transmit_interval), (State::Down, Some(SECOND)));
}

#[test]
fn sessions_keep_the_laws_of_machines() {
    let say = |state: u8, yours: bool| {
        move |sessions: &mut Sessions, now: Instant| {
            let mut bytes = [0u8; 24];
            bytes[..4].copy_from_slice(&[0x20, state, 3, 24]);
            bytes[7] = 9;
            bytes[12..24].copy_from_slice(&[0, 1, 0x86, 0xa0, 0, 1, 0x86, 0xa0, 0, 0, 0, 0]);
            if yours {
                let ours = sessions.status(ID).unwrap().local_discriminator.get();
                bytes[8..12].copy_from_slice(&ours.to_be_bytes());
            }
            sessions.handle_packet(socket(A), socket(B), TTL, &bytes, now).unwrap();
        }
    };
    let (down, init, up, poll) = (say(0x40, false), say(0x80, true), say(0xd0, true), say(0xe0, true));
    let slower = |sessions: &mut Sessions, now: Instant| {
        let config = SessionConfig { min_tx: 200 * MS, ..config(A, B) };
        sessions.upsert(ID, config, now).unwrap();
    };
    let remove = |sessions: &mut Sessions, now: Instant| sessions.remove(ID, now);
    let script: [laws::Input<'_, Sessions>; 8] = [
        (500 * MS, &down),
        (600 * MS, &init),
        (700 * MS, &up),
        (800 * MS, &poll),
        (850 * MS, &slower),
        (900 * MS, &poll),
        (3 * SECOND, &down),
        (9 * SECOND, &remove),
    ];
    let make = || {
        let mut sessions = Sessions::new(Options::default(), Random::for_test(1));
        sessions.upsert(ID, config(A, B), Instant::ZERO).unwrap();
        sessions
    };
    laws::check(make, &script, Duration::from_secs(12));
}
