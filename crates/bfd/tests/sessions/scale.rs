//! Many sessions at once.

use std::net::Ipv4Addr;

use base::{Instant, Machine, Random};
use bfd::{Discard, Options, Output, SessionConfig, SessionId, Sessions, State, TTL};

use crate::host::*;

/// Two machines that hand each other everything at once.
fn exchange(ends: &mut [Sessions; 2], now: Instant) -> u64 {
    let mut packets = 0;
    loop {
        let before = packets;
        for from in 0..2 {
            while let Some(output) = ends[from].poll_output() {
                if let Output::Transmit(sent) = output {
                    packets += 1;
                    let to = &mut ends[1 - from];
                    let verdict = to.handle_packet(sent.remote, sent.local, TTL, sent.payload.as_bytes(), now);
                    assert!(matches!(verdict, Ok(()) | Err(Discard::AdminDown)), "{verdict:?}");
                }
            }
        }
        if packets == before {
            return packets;
        }
    }
}

#[test]
fn a_thousand_sessions_come_up_and_one_that_is_cut_off_goes_down_alone() {
    let mut ends = [1, 2].map(|seed| Sessions::new(Options::default(), Random::for_test(seed)));
    for id in 0..1000 {
        let (a, b) = (Ipv4Addr::from(0x0a00_0000 + 4 * id + 1), Ipv4Addr::from(0x0a00_0000 + 4 * id + 2));
        let config = |local: Ipv4Addr, remote: Ipv4Addr| SessionConfig {
            min_tx: 100 * MS,
            min_rx: 100 * MS,
            ..SessionConfig::new(local.into(), remote.into())
        };
        ends[0].upsert(SessionId(id), config(a, b), Instant::ZERO).unwrap();
        ends[1].upsert(SessionId(id), config(b, a), Instant::ZERO).unwrap();
    }
    let mut packets = 0;
    let mut run = |ends: &mut [Sessions; 2], until: Instant| {
        while let Some(next) = ends.iter().filter_map(Machine::poll_timeout).min().filter(|next| next.at <= until) {
            ends.iter_mut().for_each(|end| end.handle_timeout(next.at));
            packets += exchange(ends, next.at);
        }
        packets
    };
    run(&mut ends, at(3 * SECOND));
    assert!(ends.iter().all(|end| end.statuses().all(|status| status.state == State::Up)));
    let before = run(&mut ends, at(4 * SECOND));
    let packets = run(&mut ends, at(14 * SECOND)) - before;
    // 2,000 ends, ten seconds, at 75 to 100 ms.
    assert!((200_000..=267_000).contains(&packets), "{packets}");
    ends[1].set_admin_down(SessionId(500), Some(bfd::Diagnostic::ADMINISTRATIVELY_DOWN), at(14 * SECOND));
    exchange(&mut ends, at(14 * SECOND));
    let down: Vec<_> = ends[0].statuses().filter(|s| s.state != State::Up).map(|s| s.session.0).collect();
    assert_eq!(down, [500]);
}
