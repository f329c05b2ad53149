//! How sessions come, stay and go.

use std::time::Duration;

use base::{Instant, Machine, Secret};
use bgp::session::State;
use bgp::speaker::{EventKind, Ttl};
use bgp::{Families, Neighbor, NeighborId, Output, Speaker};

use super::net::{Net, SECOND, address, neighbor, options};

const AFTER: fn(u64) -> Instant = |seconds| Instant::from_micros(seconds * 1_000_000);

fn up(seed: u64) -> Net {
    let mut net = Net::pair(seed);
    assert!(net.run_until(AFTER(20), Net::is_up), "{net:#?}");
    net
}

#[test]
fn two_speakers_find_each_other_at_once_and_stay() {
    for seed in 0..30 {
        let mut net = up(seed);
        assert!(net.now < AFTER(7), "{seed}: {:?}", net.now);
        net.run_for(24 * 3600 * SECOND);
        for (host, other) in [(0, 1), (1, 0)] {
            let status = net.hosts[host].status(other, net.now);
            assert_eq!((status.state, status.flaps, status.established), (State::Established, 0, 1), "{seed}");
            let agreement = status.agreement.unwrap();
            assert_eq!((agreement.hold_time, agreement.keepalive), (30 * SECOND, 10 * SECOND));
            // RFC 4271 §10: between three quarters and all of ten seconds.
            assert!((8640..11_530).contains(&status.sent.keepalive), "{}", status.sent.keepalive);
            assert_eq!(status.uptime.unwrap().as_secs(), (net.now - status.since).as_secs());
        }
        assert_eq!(net.live().len(), 1);
    }
}

#[test]
fn one_that_is_passive_waits_and_the_other_comes() {
    let mut net = Net::new(2, 1);
    net.know(0, 1, Neighbor { passive: true, ..neighbor(1) });
    net.run_for(100 * SECOND);
    assert_eq!(net.state(0, 1), State::Active);
    net.know(1, 0, neighbor(0));
    assert!(net.run_until(AFTER(110), Net::is_up));
}

#[test]
fn a_silent_neighbour_is_given_up_after_the_hold_time() {
    let mut net = up(2);
    net.run_for(15 * SECOND);
    net.is_cut = true;
    let (cut, before) = (net.now, net.hosts[0].status(1, net.now).sent.notification);
    assert!(net.run_until(cut + 31 * SECOND, |net| net.state(0, 1) != State::Established));
    // The last KEEPALIVE came up to ten seconds before.
    assert!(net.now >= cut + 20 * SECOND && net.now <= cut + 30 * SECOND, "{:?}", net.now - cut);
    assert!(net.hosts[0].told(EventKind::Down)[0].contains("not heard for the hold time of 30 s"));
    assert_eq!(net.hosts[0].status(1, net.now).sent.notification, before + 1);
    net.run_for(60 * SECOND);
    net.is_cut = false;
    let back = net.now;
    assert!(net.run_until(back + 60 * SECOND, Net::is_up), "{:?}", net.hosts[0].events);
}

#[test]
fn a_hold_time_of_zero_asks_for_nothing() {
    let mut net = Net::pair(3);
    for (host, other) in [(0, 1), (1, 0)] {
        let mut it = neighbor(other);
        it.timers.hold = Duration::ZERO;
        net.know(host, other, it);
    }
    assert!(net.run_until(AFTER(20), Net::is_up));
    let before = net.hosts[0].status(1, net.now).sent;
    net.is_cut = true;
    net.run_for(3600 * SECOND);
    assert!(net.is_up());
    assert_eq!(net.hosts[0].status(1, net.now).sent, before);
}

#[test]
fn no_session_without_the_same_password() {
    let with = |other, key: &[u8]| Neighbor { password: Some(Secret::from(key)), ..neighbor(other) };
    let mut net = Net::new(2, 4);
    net.know(0, 1, with(1, b"one"));
    net.know(1, 0, with(0, b"another"));
    net.run_for(120 * SECOND);
    assert_eq!(net.hosts[0].status(1, net.now).established, 0);
    // Said once, though it fails every few seconds.
    let told = net.hosts[0].told(EventKind::ConnectFailed);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("has the same password"), "{told:?}");
    assert!(!format!("{net:?}").contains("another"));
    net.know(1, 0, with(0, b"one"));
    let now = net.now;
    assert!(net.run_until(now + 20 * SECOND, Net::is_up));
}

#[test]
fn a_tunnel_that_is_down_takes_its_session_with_it() {
    let mut net = up(5);
    let before = net.hosts[0].status(1, net.now).sent;
    net.command(0, |speaker, now| speaker.set_reachable(NeighborId(1), false, now));
    assert_eq!(net.state(0, 1), State::Idle);
    let status = net.hosts[0].status(1, net.now);
    assert_eq!((status.held_by, status.sent), (Some("its tunnel is down"), before));
    net.run_for(100 * SECOND);
    assert_eq!((net.state(0, 1), net.live().len()), (State::Idle, 0));
    net.command(0, |speaker, now| speaker.set_reachable(NeighborId(1), true, now));
    let now = net.now;
    assert!(net.run_until(now + 20 * SECOND, Net::is_up));
}

#[test]
fn bfd_ends_a_session_and_it_is_tried_again() {
    let mut net = up(6);
    net.command(0, |speaker, now| speaker.note_bfd_down(NeighborId(1), now));
    net.run_for(SECOND);
    assert!(net.hosts[1].told(EventKind::Down)[0].contains("Cease, BFD Down (6/10)"), "{:?}", net.hosts[1].events);
    let now = net.now;
    assert!(net.run_until(now + 20 * SECOND, Net::is_up));
}

#[test]
fn a_reset_a_removal_and_a_shutdown_say_what_they_are() {
    let mut net = up(7);
    net.command(0, |speaker, now| speaker.reset(NeighborId(1), now));
    let now = net.now;
    assert!(net.run_until(now + 30 * SECOND, |net| net.is_up() && net.hosts[1].status(0, net.now).flaps == 1));
    let down = Neighbor { shut_down: Some("umbau bis 6 Uhr".into()), ..neighbor(1) };
    net.know(0, 1, down.clone());
    net.run_for(100 * SECOND);
    assert_eq!(net.state(0, 1), State::Idle);
    net.know(0, 1, neighbor(1));
    let now = net.now;
    assert!(net.run_until(now + 200 * SECOND, Net::is_up), "{:#?}", net.hosts[1].events);
    net.command(0, |speaker, now| speaker.remove_neighbor(NeighborId(1), now));
    net.run_for(SECOND);
    let told = net.hosts[1].told(EventKind::Down);
    let expected =
        ["Administrative Reset (6/4)", "Administrative Shutdown (6/2): \"umbau bis 6 Uhr\"", "De-configured (6/3)"];
    for (told, expected) in told.iter().zip(expected) {
        assert!(told.contains(expected), "{told}");
    }
    assert_eq!(told.len(), 3);
    // Whoever comes now is a stranger.
    net.run_for(100 * SECOND);
    assert!(net.hosts[0].told(EventKind::Stranger)[0].contains(&address(1).to_string()));
}

#[test]
fn a_change_resets_only_where_it_must() {
    let base = neighbor(1);
    let changes: [(Neighbor, bool); 9] = [
        (Neighbor { name: "other".into(), ..base.clone() }, false),
        (Neighbor { passive: true, ..base.clone() }, false),
        (Neighbor { import: Default::default(), ..base.clone() }, false),
        (Neighbor { max_prefixes_restart: Some(SECOND), ..base.clone() }, false),
        (Neighbor { default_originate: true, allow_own_as: 1, ..base.clone() }, false),
        (Neighbor { password: Some(Secret::from(&b"x"[..])), ..base.clone() }, true),
        (Neighbor { families: Families::ALL, ..base.clone() }, true),
        (Neighbor { remote_as: 7, ..base.clone() }, true),
        (Neighbor { ttl: Ttl::Security(1), ..base.clone() }, true),
    ];
    for (change, resets) in changes {
        let mut net = up(8);
        net.know(0, 1, change.clone());
        assert_eq!(net.state(0, 1) != State::Established, resets, "{change:?}");
        if resets {
            net.run_for(SECOND);
            assert!(net.hosts[1].told(EventKind::Down)[0].contains("Other Configuration Change (6/6)"));
        }
    }
    let mut net = up(8);
    let mut timers = base.clone();
    (timers.timers.keepalive, timers.timers.hold) = (2 * SECOND, 90 * SECOND);
    net.know(0, 1, timers);
    let before = net.hosts[0].status(1, net.now).sent.keepalive;
    net.run_for(40 * SECOND);
    let sent = net.hosts[0].status(1, net.now).sent.keepalive - before;
    assert!(net.is_up() && (15..=28).contains(&sent), "{sent}");
}

#[test]
fn a_speaker_that_stops_tells_everybody() {
    let mut net = up(9);
    net.command(0, |speaker, now| speaker.shut_down(false, now));
    net.run_for(SECOND);
    assert!(net.hosts[1].told(EventKind::Down)[0].contains("Administrative Shutdown (6/2)"));
    net.run_for(100 * SECOND);
    assert_eq!((net.state(0, 1), net.live().len()), (State::Idle, 0));
}

#[test]
fn attempts_are_spread_and_listening_comes_before_connecting() {
    let mut speaker = Speaker::new(options(0), base::Random::for_test(1), Instant::ZERO);
    let mut it = neighbor(1);
    it.local = Some(address(0));
    it.ttl = Ttl::Security(1);
    speaker.upsert_neighbor(NeighborId(1), it, Instant::ZERO).unwrap();
    let Some(Output::Listen { local, remote, ttl, .. }) = speaker.poll_output() else { panic!("it listens first") };
    assert_eq!((local, remote, ttl.sent(), ttl.least()), (Some(address(0)), address(1), 255, 255));
    let mut times = Vec::new();
    while times.len() < 50 {
        let at = speaker.poll_timeout().unwrap().at;
        speaker.handle_timeout(at);
        while let Some(output) = speaker.poll_output() {
            if let Output::Connect { remote, local, .. } = output {
                assert_eq!((remote.ip(), remote.port(), local), (address(1), 179, Some(address(0))));
                times.push(at);
            }
        }
    }
    let gaps: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| (3750..=5000).contains(&gap.as_millis())), "{gaps:?}");
    assert!(gaps.windows(2).any(|pair| pair[0] != pair[1]));
}
