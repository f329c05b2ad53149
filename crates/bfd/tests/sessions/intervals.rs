//! Negotiation of intervals: Poll Sequences, jitter, Demand mode.

use base::Instant;
use bfd::wire::Packet;
use bfd::{Role, SessionConfig, State};
use sim::Link;

use crate::host::*;

/// The gaps between packets, in microseconds.
fn gaps(sent: &[(Instant, Packet)]) -> Vec<u64> {
    sent.windows(2).map(|two| (two[1].0 - two[0].0).as_micros() as u64).collect()
}

/// Lets time pass while the neighbor goes on saying what it says, every 50 ms.
fn pass(alone: &mut Alone, millis: u32) -> Vec<(Instant, Packet)> {
    let mut sent = vec![];
    for _ in 0..millis / 50 {
        sent.extend(alone.pass(50 * MS));
        alone.say(alone.theirs.state).unwrap();
    }
    sent
}

#[test]
fn packets_come_at_75_to_100_per_cent_of_the_interval_or_to_90_where_none_may_be_missed() {
    for (multiplier, most) in [(3, 100_000), (1, 90_000)] {
        let mut alone = Alone::up();
        alone.sessions.upsert(ID, SessionConfig { multiplier, ..config(A, B) }, alone.now).unwrap();
        pass(&mut alone, 1_000);
        let gaps = gaps(&pass(&mut alone, 60_000));
        assert!(gaps.iter().all(|gap| (75_000..=most).contains(gap)), "{gaps:?}");
        assert!(gaps.iter().any(|gap| *gap < 77_000) && gaps.iter().any(|gap| *gap > most - 2_000), "no jitter");
    }
}

#[test]
fn the_slower_of_what_one_wants_and_the_other_takes_counts_each_way() {
    let slow = SessionConfig { min_tx: 50 * MS, min_rx: 400 * MS, multiplier: 5, ..config(A, B) };
    let mut pair = pair(Link::default(), slow, config(B, A), 3);
    pair.run_for(10 * SECOND);
    let (a, b) = (pair.hosts[0].status(), pair.hosts[1].status());
    assert_eq!((a.transmit_interval, a.receive_interval), (Some(100 * MS), Some(400 * MS)));
    assert_eq!((b.transmit_interval, b.receive_interval), (Some(400 * MS), Some(100 * MS)));
    assert_eq!((a.detection_time, b.detection_time), (Some(1_200 * MS), Some(500 * MS)));
}

#[test]
fn a_neighbor_that_polls_is_answered_at_once_and_its_new_intervals_count() {
    //    <- Up P, min rx 250 ms, min tx 500 ms --
    // we -- Up F                               ->
    let mut alone = Alone::up();
    pass(&mut alone, 500);
    (alone.theirs.poll, alone.theirs.required_min_rx, alone.theirs.desired_min_tx) = (true, 250_000, 500_000);
    alone.say(State::Up).unwrap();
    let (packets, _) = alone.outputs();
    assert_eq!((packets.len(), packets[0].is_final, packets[0].poll), (1, true, false));
    alone.theirs.poll = false;
    let status = alone.status();
    assert_eq!((status.transmit_interval, status.detection_time), (Some(250 * MS), Some(1_500 * MS)));
    assert!(gaps(&pass(&mut alone, 5_000)).iter().all(|gap| (187_500..=250_000).contains(gap)));
}

#[test]
fn an_answer_that_tells_our_new_state_is_not_followed_by_the_same_again() {
    let mut alone = Alone::new(config(A, B));
    alone.pass(MS);
    alone.theirs.poll = true;
    alone.say(State::Down).unwrap();
    let (packets, _) = alone.outputs();
    assert_eq!((packets.len(), packets[0].is_final, packets[0].state), (1, true, State::Init));
}

#[test]
fn a_neighbor_that_takes_packets_sooner_does_not_wait_for_the_old_interval() {
    let mut alone = Alone::up();
    alone.theirs.required_min_rx = 30_000_000;
    alone.theirs.multiplier = 255.try_into().unwrap();
    alone.say(State::Up).unwrap();
    assert!(alone.pass(15 * SECOND).len() <= 1);
    alone.theirs.required_min_rx = 100_000;
    alone.say(State::Up).unwrap();
    assert_eq!(alone.pass(MS).len(), 1, "RFC 5880 §6.8.3: as soon as practicable");
}

#[test]
fn to_send_more_rarely_we_wait_until_the_neighbor_has_said_that_it_knows() {
    // we -- Up P, min tx 800 ms ->   still every 100 ms
    //    <- Up F                --   now every 800 ms
    let mut alone = Alone::up();
    alone.sessions.upsert(ID, SessionConfig { min_tx: 800 * MS, ..config(A, B) }, alone.now).unwrap();
    let (packets, _) = alone.outputs();
    assert_eq!((packets.len(), packets[0].poll, packets[0].desired_min_tx), (1, true, 800_000));
    let sent = pass(&mut alone, 2_000);
    assert!(sent.len() >= 19 && sent.iter().all(|(_, packet)| packet.poll && packet.desired_min_tx == 800_000));
    alone.theirs.is_final = true;
    alone.say(State::Up).unwrap();
    alone.theirs.is_final = false;
    assert_eq!(alone.status().transmit_interval, Some(800 * MS));
    let sent = pass(&mut alone, 8_000);
    assert!(gaps(&sent).iter().all(|gap| *gap >= 600_000) && sent.iter().all(|(_, packet)| !packet.poll));
}

#[test]
fn to_expect_packets_more_often_we_wait_until_the_neighbor_has_said_that_it_knows() {
    let mut alone = Alone::up();
    alone.theirs.desired_min_tx = 50_000;
    alone.say(State::Up).unwrap();
    assert_eq!(alone.status().detection_time, Some(300 * MS));
    alone.sessions.upsert(ID, SessionConfig { min_rx: 50 * MS, ..config(A, B) }, alone.now).unwrap();
    assert_eq!(alone.status().detection_time, Some(300 * MS));
    alone.theirs.is_final = true;
    alone.say(State::Up).unwrap();
    assert_eq!(alone.status().detection_time, Some(150 * MS));
    // The other direction counts at once.
    alone.theirs.is_final = false;
    alone.say(State::Up).unwrap();
    alone.sessions.upsert(ID, SessionConfig { min_rx: 200 * MS, ..config(A, B) }, alone.now).unwrap();
    assert_eq!(alone.status().detection_time, Some(600 * MS));
}

#[test]
fn a_second_change_waits_for_its_own_poll() {
    // we -- P, 800 ms ->
    //                      changed again to 400 ms
    // we -- P, 800 ms ->
    //    <- F         --   for 800 ms
    //    <- F         --   for 800 ms still: it answers every P
    //    <-           --
    // we -- P, 400 ms ->
    let mut alone = Alone::up();
    let change = |alone: &mut Alone, min_tx| {
        alone.sessions.upsert(ID, SessionConfig { min_tx, ..config(A, B) }, alone.now).unwrap();
    };
    change(&mut alone, 800 * MS);
    change(&mut alone, 400 * MS);
    let (packets, _) = alone.outputs();
    assert!(packets.iter().all(|packet| packet.desired_min_tx == 800_000), "{packets:?}");
    alone.theirs.is_final = true;
    alone.say(State::Up).unwrap();
    alone.say(State::Up).unwrap();
    assert_eq!(alone.outputs().0, []);
    alone.theirs.is_final = false;
    alone.say(State::Up).unwrap();
    let (packets, _) = alone.outputs();
    assert_eq!((packets.len(), packets[0].poll, packets[0].desired_min_tx), (1, true, 400_000));
    assert_eq!(alone.status().counters.polls, 3);
}

#[test]
fn changing_intervals_up_and_down_never_takes_a_session_down() {
    for seed in 0..5 {
        let mut pair = pair(Link { loss: 2, ..Link::default() }, config(A, B), config(B, A), seed);
        pair.run_for(10 * SECOND);
        for (step, millis) in [300, 50, 1000, 20, 2500, 100].into_iter().cycle().take(60).enumerate() {
            let (index, local, remote) = if step % 2 == 0 { (0, A, B) } else { (1, B, A) };
            let interval = millis * MS;
            let changed =
                SessionConfig { min_tx: interval, min_rx: interval / 2, multiplier: 8, ..config(local, remote) };
            let now = pair.now;
            pair.hosts[index].now = now;
            pair.hosts[index].sessions.upsert(ID, changed, now).unwrap();
            pair.run_for(7 * SECOND);
            assert_up(&pair);
        }
        assert!(pair.hosts.iter().all(|gate| gate.downs().is_empty()), "seed {seed}");
        assert!(pair.hosts.iter().all(|gate| !gate.status().is_polling), "seed {seed}");
    }
}

#[test]
fn in_demand_mode_we_are_silent_but_for_answers_and_our_own_polls() {
    let mut alone = Alone::up();
    alone.theirs.demand = true;
    alone.say(State::Up).unwrap();
    assert_eq!(pass(&mut alone, 10_000), []);
    assert_eq!(alone.status().transmit_interval, None);
    alone.theirs.poll = true;
    alone.say(State::Up).unwrap();
    assert!(alone.outputs().0[0].is_final);
    alone.theirs.poll = false;

    alone.sessions.upsert(ID, SessionConfig { min_rx: 200 * MS, ..config(A, B) }, alone.now).unwrap();
    let sent = pass(&mut alone, 1_000);
    assert!(sent.len() >= 9 && sent.iter().all(|(_, packet)| packet.poll && !packet.demand));
    alone.theirs.is_final = true;
    alone.say(State::Up).unwrap();
    alone.theirs.is_final = false;
    assert_eq!(pass(&mut alone, 10_000), []);

    alone.theirs.demand = false;
    alone.say(State::Up).unwrap();
    assert!(pass(&mut alone, 1_000).len() >= 9);
    // One that is not Up itself cannot be in Demand mode, whatever it says.
    alone.theirs.demand = true;
    alone.say(State::Init).unwrap();
    assert!(pass(&mut alone, 1_000).len() >= 9);
    // It goes on being watched all the while.
    alone.theirs.demand = true;
    alone.say(State::Up).unwrap();
    alone.pass(600 * MS);
    assert_eq!(alone.status().state, State::Down);
}

#[test]
fn a_passive_and_an_active_neighbor_find_each_other() {
    let passive = SessionConfig { role: Role::Passive, ..config(B, A) };
    let mut pair = pair(Link::default(), config(A, B), passive, 4);
    pair.run_for(3 * SECOND);
    assert_up(&pair);
}
