//! The laws that every machine keeps, on a speaker with a script of inputs.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::Duration;

use base::{Instant, Random};
use bgp::rib::LocalKind;
use bgp::speaker::LocalRoute;
use bgp::{ConnectionId, NeighborId, Speaker};

use super::net::{SECOND, address, neighbor, net, options};
use super::refusals::{encode, keepalive, open};

#[test]
fn a_speaker_keeps_the_laws_of_machines() {
    let accepted = Cell::new(ConnectionId(0));
    let make = || {
        let mut speaker = Speaker::new(options(0), Random::for_test(1), Instant::ZERO);
        speaker.upsert_neighbor(NeighborId(1), neighbor(1), Instant::ZERO).unwrap();
        speaker.upsert_neighbor(NeighborId(2), neighbor(2), Instant::ZERO).unwrap();
        speaker
    };
    let accept = |speaker: &mut Speaker, now| {
        let (local, remote) = (SocketAddr::new(address(0), 179), SocketAddr::new(address(1), 40_000));
        // Woken late, it may not have begun yet.
        let Some(connection) = speaker.handle_accepted(local, remote, now) else { return };
        accepted.set(connection);
        speaker.handle_bytes(accepted.get(), &encode(&open()), now);
    };
    let confirm = |speaker: &mut Speaker, now| speaker.handle_bytes(accepted.get(), &keepalive(), now);
    let announce = |speaker: &mut Speaker, now| {
        speaker.announce(&LocalRoute::of(net("10.1.0.0/16"), LocalKind::Network), now);
    };
    let close = |speaker: &mut Speaker, now| speaker.handle_closed(accepted.get(), "reset", now);
    let drain = |speaker: &mut Speaker, now| speaker.set_draining(NeighborId(1), true, now);
    let stop = |speaker: &mut Speaker, now| speaker.shut_down(false, now);
    sim::laws::check(
        make,
        &[
            (SECOND, &accept),
            (2 * SECOND, &confirm),
            (Duration::from_millis(2500), &announce),
            (3 * SECOND, &drain),
            (12 * SECOND, &close),
            (20 * SECOND, &accept),
            (21 * SECOND, &confirm),
            (90 * SECOND, &stop),
        ],
        300 * SECOND,
    );
}
