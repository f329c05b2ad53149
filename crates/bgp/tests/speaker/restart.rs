//! Graceful restart (RFC 4724), from both sides, and long-lived graceful restart (RFC 9494).

use std::time::Duration;

use base::Instant;
use bgp::rib::LocalKind;
use bgp::session::State;
use bgp::speaker::{EventKind, LocalRoute, RestartStatus};
use bgp::{Neighbor, NeighborId, SpeakerOptions};

use super::net::{Net, SECOND, address, neighbor, net, options};

fn announce(pair: &mut Net, host: usize, prefix: &str) {
    pair.command(host, |speaker, now| speaker.announce(&LocalRoute::of(net(prefix), LocalKind::Network), now));
}

/// Host 0 has told host 1 of two networks.
fn pair(seed: u64) -> Net {
    let mut pair = Net::pair(seed);
    announce(&mut pair, 0, "10.1.0.0/16");
    announce(&mut pair, 0, "10.2.0.0/16");
    announce(&mut pair, 1, "10.9.0.0/16");
    let end = pair.now + 20 * SECOND;
    assert!(pair.run_until(end, |pair| pair.hosts[1].routes.len() == 2 && pair.hosts[0].routes.len() == 1));
    pair.run_for(SECOND);
    pair
}

fn restarting(host: usize) -> SpeakerOptions {
    SpeakerOptions { is_restarting: true, ..options(host) }
}

#[test]
fn routes_stay_while_the_neighbour_restarts_and_what_it_does_not_announce_again_goes() {
    let mut pair = pair(1);
    pair.crash(0);
    pair.run_for(20 * SECOND);
    let status = pair.hosts[1].status(0, pair.now);
    assert_eq!((pair.hosts[1].routes.len(), status.ipv4.stale, status.ipv4.received), (2, 2, 0));
    assert!(matches!(status.restart, Some(RestartStatus::Away { .. })));
    pair.come_back(0, 2, restarting(0));
    announce(&mut pair, 0, "10.1.0.0/16");
    pair.know(0, 1, neighbor(1));
    let now = pair.now;
    assert!(pair.run_until(now + 30 * SECOND, Net::is_up), "{:#?}", pair.hosts[1].events);
    pair.run_for(SECOND);
    assert_eq!(pair.hosts[1].routes.keys().collect::<Vec<_>>(), [&net("10.1.0.0/16")]);
    let status = pair.hosts[1].status(0, pair.now);
    assert_eq!((status.ipv4.stale, status.restart), (0, None));
    // Who restarted waited for the other's End-of-RIB, and then said what it has.
    assert_eq!(pair.hosts[0].told(EventKind::Converged).len(), 1);
    assert_eq!(pair.hosts[0].routes.len(), 1);
}

#[test]
fn a_restart_that_takes_too_long_ends_in_withdrawal() {
    let mut pair = pair(2);
    pair.crash(0);
    let gone = pair.now;
    assert!(pair.run_until(gone + 200 * SECOND, |pair| pair.hosts[1].routes.is_empty()));
    let waited = pair.now - gone;
    assert!(waited >= 120 * SECOND && waited < 121 * SECOND, "{waited:?}");
    assert!(pair.hosts[1].told(EventKind::GracefulRestart)[0].contains("did not come back"));
}

#[test]
fn a_neighbour_that_lost_its_forwarding_state_is_not_believed() {
    let mut pair = pair(3);
    pair.crash(0);
    pair.run_for(5 * SECOND);
    // It comes back without F (RFC 4724 §3), and with nothing to say.
    pair.come_back(0, 2, options(0));
    pair.know(0, 1, neighbor(1));
    let now = pair.now;
    assert!(pair.run_until(now + 30 * SECOND, Net::is_up));
    assert!(pair.hosts[1].routes.is_empty(), "{:?}", pair.hosts[1].routes);
}

#[test]
fn one_that_reconnects_before_its_old_connection_is_missed_is_let_in() {
    // The old connection breaks for one side alone: its host lost power, and no FIN was sent.
    let mut pair = pair(4);
    pair.is_cut = true;
    pair.crash(0);
    pair.come_back(0, 2, restarting(0));
    pair.is_cut = false;
    let now = pair.now;
    announce(&mut pair, 0, "10.1.0.0/16");
    announce(&mut pair, 0, "10.2.0.0/16");
    pair.know(0, 1, neighbor(1));
    assert!(pair.run_until(now + 10 * SECOND, Net::is_up), "{:#?}", pair.hosts[1].events);
    pair.run_for(SECOND);
    assert_eq!(pair.hosts[1].routes.len(), 2);
    assert_eq!(pair.live().len(), 1);
}

#[test]
fn whoever_restarts_chooses_nothing_before_all_have_spoken() {
    // 0 restarts between 1 and 2; 2 is slow.
    let mut net3 = Net::new(3, 5);
    net3.join(0, 1);
    net3.join(0, 2);
    announce(&mut net3, 1, "10.1.0.0/16");
    announce(&mut net3, 2, "10.1.0.0/16");
    let end = net3.now + 20 * SECOND;
    assert!(net3.run_until(end, Net::is_up));
    net3.crash(0);
    net3.run_for(SECOND);
    net3.hosts[2].is_deaf = true;
    net3.come_back(0, 2, SpeakerOptions { selection_deferral: 25 * SECOND, ..restarting(0) });
    net3.know(0, 1, neighbor(1));
    net3.know(0, 2, neighbor(2));
    let back = net3.now;
    assert!(net3.run_until(back + 15 * SECOND, |net3| net3.state(0, 1) == State::Established));
    net3.run_for(5 * SECOND);
    assert!(net3.hosts[0].routes.is_empty() && net3.hosts[0].speaker.is_restarting());
    assert!(net3.run_until(back + 26 * SECOND, |net3| !net3.hosts[0].routes.is_empty()));
    assert_eq!(net3.now - back, 25 * SECOND);
    assert!(net3.hosts[0].told(EventKind::Converged)[0].contains("the time for it is over"));
}

#[test]
fn a_neighbour_behind_a_dead_tunnel_is_not_waited_for() {
    let mut net3 = Net::new(3, 6);
    net3.come_back(0, 2, restarting(0));
    net3.know(1, 0, neighbor(0));
    net3.know(0, 1, neighbor(1));
    net3.know(0, 2, neighbor(2));
    net3.command(0, |speaker, now| speaker.set_reachable(NeighborId(2), false, now));
    announce(&mut net3, 1, "10.1.0.0/16");
    assert!(net3.run_until(Instant::ZERO + 20 * SECOND, |net3| net3.hosts[0].routes.len() == 1), "{net3:#?}");
    assert!(net3.hosts[0].told(EventKind::Converged)[0].contains("all neighbours"));
}

#[test]
fn a_graceful_stop_says_nothing_and_takes_nothing_away() {
    let mut pair = pair(7);
    let before = pair.hosts[0].status(1, pair.now).sent.notification;
    pair.command(0, |speaker, now| speaker.shut_down(true, now));
    pair.run_for(20 * SECOND);
    assert_eq!((pair.hosts[0].routes.len(), pair.hosts[1].routes.len()), (1, 2));
    assert_eq!(pair.hosts[0].status(1, pair.now).sent.notification, before);
    assert!(matches!(pair.hosts[1].status(0, pair.now).restart, Some(RestartStatus::Away { .. })));
    pair.come_back(0, 3, restarting(0));
    announce(&mut pair, 0, "10.1.0.0/16");
    announce(&mut pair, 0, "10.2.0.0/16");
    pair.know(0, 1, neighbor(1));
    let now = pair.now;
    assert!(pair.run_until(now + 30 * SECOND, Net::is_up));
    pair.run_for(SECOND);
    assert_eq!((pair.hosts[0].routes.len(), pair.hosts[1].routes.len()), (1, 2));
}

#[test]
fn without_the_capability_routes_go_with_the_session() {
    for plain in 0..2 {
        let mut pair = Net::pair(8);
        pair.know(plain, 1 - plain, Neighbor { graceful_restart: false, ..neighbor(1 - plain) });
        announce(&mut pair, 0, "10.1.0.0/16");
        let end = pair.now + 20 * SECOND;
        assert!(pair.run_until(end, |pair| pair.hosts[1].routes.len() == 1));
        pair.crash(0);
        pair.run_for(SECOND);
        assert!(pair.hosts[1].routes.is_empty());
    }
}

#[test]
fn an_error_is_no_restart() {
    let mut pair = pair(9);
    // The cable is out: the hold time runs out, which says nothing good about the way there.
    pair.is_cut = true;
    pair.run_for(40 * SECOND);
    assert!(pair.hosts[1].routes.is_empty());
    assert_eq!(pair.hosts[1].status(0, pair.now).restart, None);
}

#[test]
fn long_lived_routes_are_kept_as_the_last_resort() {
    let long = Duration::from_secs(3600);
    let mut trio = Net::new(3, 10);
    for (a, b) in [(0, 1), (1, 0)] {
        trio.know(a, b, Neighbor { long_lived: long, ..neighbor(b) });
    }
    trio.join(1, 2);
    announce(&mut trio, 0, "10.1.0.0/16");
    announce(&mut trio, 0, "10.2.0.0/16");
    let end = trio.now + 20 * SECOND;
    assert!(trio.run_until(end, |trio| trio.is_up() && trio.hosts[1].routes.len() == 2));
    trio.crash(0);
    let gone = trio.now;
    trio.run_for(130 * SECOND);
    let status = trio.hosts[1].status(0, trio.now);
    assert!(matches!(status.restart, Some(RestartStatus::LongLived { .. })), "{:?}", status.restart);
    assert_eq!(trio.hosts[1].routes.len(), 2);
    // Another way is better than a stale one, however long.
    announce(&mut trio, 2, "10.1.0.0/16");
    trio.run_for(SECOND);
    assert_eq!(trio.hosts[1].routes[&net("10.1.0.0/16")].next_hops[0].address, address(2));
    assert!(trio.run_until(gone + 3800 * SECOND, |trio| trio.hosts[1].routes.len() == 1));
    let kept = trio.now - gone;
    assert!(kept >= 3720 * SECOND && kept < 3722 * SECOND, "{kept:?}");
}
