//! What is accepted, what is discarded and why, and which session a packet is for.

use std::net::SocketAddr;

use base::{Instant, Machine, Random};
use bfd::{
    ConfigError, Diagnostic, Discard, DownCause, EventKind, Options, Output, PORT, Role, SessionConfig, SessionId,
    Sessions, State, TTL,
};
use proptest::prelude::*;

use crate::host::*;

#[test]
fn a_session_comes_up_in_three_steps_and_tells_so_before_it_sends() {
    // we   -- Down, your 0    ->
    //      <- Down, your 0    --
    // we   -- Init, your b1d0 ->
    //      <- Up              --
    // we   -- Up P            ->
    let mut alone = Alone::new(config(A, B));
    let first = alone.pass(MS);
    assert_eq!((first.len(), first[0].1.state, first[0].1.your_discriminator), (1, State::Down, None));
    assert_eq!((first[0].1.desired_min_tx, first[0].1.required_min_echo_rx), (1_000_000, 0));
    alone.say(State::Down).unwrap();
    let (packets, events) = alone.outputs();
    assert_eq!((packets.len(), packets[0].state, events.len()), (1, State::Init, 0));
    assert_eq!(packets[0].your_discriminator, Some(alone.theirs.my_discriminator));
    alone.say(State::Up).unwrap();
    assert!(matches!(alone.sessions.poll_output(), Some(Output::Event(event)) if event.kind == EventKind::Up));
    let (packets, _) = alone.outputs();
    assert_eq!((packets.len(), packets[0].state, packets[0].poll), (1, State::Up, true));
    assert_eq!((packets[0].desired_min_tx, packets[0].required_min_rx), (100_000, 100_000));
}

#[test]
fn the_whole_table_of_states_is_as_the_rfc_has_it() {
    use State::{AdminDown, Down, Init, Up};
    // RFC 5880 §6.8.6: (ours, theirs) -> ours. AdminDown does not move, and says so.
    let table = [
        ((Down, AdminDown), Down),
        ((Down, Down), Init),
        ((Down, Init), Up),
        ((Down, Up), Down),
        ((Init, AdminDown), Down),
        ((Init, Down), Init),
        ((Init, Init), Up),
        ((Init, Up), Up),
        ((Up, AdminDown), Down),
        ((Up, Down), Down),
        ((Up, Init), Up),
        ((Up, Up), Up),
        ((AdminDown, AdminDown), AdminDown),
        ((AdminDown, Down), AdminDown),
        ((AdminDown, Init), AdminDown),
        ((AdminDown, Up), AdminDown),
    ];
    for ((ours, theirs), expected) in table {
        let mut alone = if ours == Up { Alone::up() } else { Alone::new(config(A, B)) };
        match ours {
            Init => alone.say(Down).unwrap(),
            AdminDown => alone.sessions.set_admin_down(ID, Some(Diagnostic::ADMINISTRATIVELY_DOWN), alone.now),
            Down | Up => {}
        }
        assert_eq!(alone.status().state, ours);
        alone.outputs();
        let verdict = alone.say(theirs);
        assert_eq!(verdict, if ours == AdminDown { Err(Discard::AdminDown) } else { Ok(()) });
        assert_eq!(alone.status().state, expected, "{ours} hears {theirs}");
        let (packets, _) = alone.outputs();
        assert_eq!(!packets.is_empty(), ours != expected, "{ours} hears {theirs}: a change is told at once, no other");
        let diagnostic = match (ours, theirs) {
            (Init | Up, AdminDown) | (Up, Down) => Diagnostic::NEIGHBOR_SIGNALED_DOWN,
            (AdminDown, _) => Diagnostic::ADMINISTRATIVELY_DOWN,
            _ => Diagnostic::NONE,
        };
        assert_eq!(alone.status().local_diagnostic, diagnostic, "{ours} hears {theirs}");
    }
}

#[test]
fn a_forwarded_packet_is_discarded_whatever_it_says() {
    let mut alone = Alone::up();
    let bytes = {
        alone.theirs.state = State::Down;
        alone.theirs.encode()
    };
    let from = SocketAddr::new(ip(B), 50_000);
    for ttl in [0, 1, 64, 254] {
        let verdict = alone.sessions.handle_packet(socket(A), from, ttl, bytes.as_bytes(), alone.now);
        assert_eq!(verdict, Err(Discard::Ttl));
    }
    assert_eq!((alone.status().state, alone.status().counters.discards.of(Discard::Ttl)), (State::Up, 4));
    assert_eq!(alone.sessions.handle_packet(socket(A), from, TTL, bytes.as_bytes(), alone.now), Ok(()));
    assert_eq!(alone.status().state, State::Down);
}

#[test]
fn each_discard_is_counted_where_it_belongs_and_moves_nothing() {
    let mut alone = Alone::up();
    let good = {
        alone.theirs.state = State::Down;
        alone.theirs.encode().as_bytes().to_vec()
    };
    let with = |changes: &[(usize, u8)]| {
        let mut bytes = good.clone();
        changes.iter().for_each(|(at, value)| bytes[*at] = *value);
        bytes
    };
    let before = alone.status();
    let strangers = [
        (vec![0x20, 0x40], Discard::Truncated),
        (with(&[(0, 0)]), Discard::Version),
        (with(&[(3, 20)]), Discard::LengthTooShort),
        (with(&[(3, 99)]), Discard::LengthBeyondPayload),
        (with(&[(2, 0)]), Discard::ZeroMultiplier),
        (with(&[(1, 0x41)]), Discard::Multipoint),
        (with(&[(4, 0), (5, 0), (6, 0), (7, 0)]), Discard::ZeroMyDiscriminator),
        (with(&[(8, 1), (9, 2), (10, 3), (11, 4)]), Discard::UnknownDiscriminator),
        (with(&[(1, 0xc0), (8, 0), (9, 0), (10, 0), (11, 0)]), Discard::MissingDiscriminator),
        (with(&[(1, 0x80), (8, 0), (9, 0), (10, 0), (11, 0)]), Discard::MissingDiscriminator),
    ];
    for (bytes, reason) in &strangers {
        assert_eq!(alone.hear(bytes), Err(*reason));
        assert!(alone.sessions.discards().of(*reason) > 0);
    }
    let unknown = with(&[(8, 0), (9, 0), (10, 0), (11, 0)]);
    let from = SocketAddr::new(ip("169.254.10.6"), 50_000);
    let verdict = alone.sessions.handle_packet(socket(A), from, TTL, &unknown, alone.now);
    assert_eq!((verdict, alone.sessions.discards().total()), (Err(Discard::UnknownAddresses), 11));
    assert_eq!(alone.status(), before, "a discarded packet moved something");

    let authenticated = [&with(&[(1, 0x44), (3, 27)])[..], &[1, 3, 0]].concat();
    assert_eq!(alone.hear(&authenticated), Err(Discard::UnexpectedAuthentication));
    assert_eq!(alone.status().counters.discards.total(), 1);
    assert_eq!((alone.status().state, alone.outputs()), (State::Up, (vec![], vec![])));
}

#[test]
fn a_neighbor_that_restarts_with_another_discriminator_is_followed() {
    //        <- Down, my c0de, your 0 --   it has forgotten us
    // we     -- Down, your c0de       ->   diagnostic 3
    //        <- Down                  --
    // we     -- Init                  ->
    //        <- Up                    --
    let mut alone = Alone::up();
    alone.theirs.my_discriminator = 0xc0de.try_into().unwrap();
    alone.theirs.your_discriminator = None;
    alone.say(State::Down).unwrap();
    let (packets, events) = alone.outputs();
    assert!(matches!(events[..], [EventKind::Down { cause: DownCause::NeighborSignaledDown, .. }]));
    assert_eq!((packets[0].state, packets[0].diagnostic), (State::Down, Diagnostic::NEIGHBOR_SIGNALED_DOWN));
    assert_eq!(packets[0].your_discriminator, Some(alone.theirs.my_discriminator));
    alone.say(State::Down).unwrap();
    alone.say(State::Up).unwrap();
    assert_eq!(alone.status().state, State::Up);
    assert_eq!(alone.status().remote_discriminator, Some(alone.theirs.my_discriminator));
    assert_eq!((alone.status().counters.flaps, alone.status().counters.ups), (1, 2));
    // The poll of the second that was Down was never answered; that of 100 ms does not wait for it.
    let (packets, _) = alone.outputs();
    assert_eq!(packets.last().map(|packet| (packet.poll, packet.desired_min_tx)), Some((true, 100_000)));
}

#[test]
fn the_discriminator_leads_to_the_session_from_whatever_address_it_comes() {
    let mut alone = Alone::up();
    let (bytes, from) = (alone.theirs.encode(), SocketAddr::new(ip("192.0.2.77"), 1024));
    let received = alone.status().counters.received;
    alone.sessions.handle_packet(socket("192.0.2.1"), from, TTL, bytes.as_bytes(), alone.now).unwrap();
    assert_eq!(alone.status().counters.received, received + 1);
}

#[test]
fn link_local_sessions_are_told_apart_by_their_link_and_mapped_addresses_are_plain_ones() {
    let mut sessions = Sessions::new(Options::default(), Random::for_test(1));
    let on = |scope| SessionConfig { scope, ..SessionConfig::new(ip("fe80::1"), ip("fe80::2")) };
    sessions.upsert(SessionId(1), on(4), Instant::ZERO).unwrap();
    sessions.upsert(SessionId(2), on(5), Instant::ZERO).unwrap();
    sessions.upsert(SessionId(3), config(A, B), Instant::ZERO).unwrap();
    let theirs = Alone::new(config(A, B)).theirs.encode();
    let mut hear = |local: &str, remote: &str| {
        sessions
            .handle_packet(local.parse().unwrap(), remote.parse().unwrap(), TTL, theirs.as_bytes(), Instant::ZERO)
            .unwrap();
        sessions.statuses().map(|status| status.counters.received).collect::<Vec<_>>()
    };
    assert_eq!(hear("[fe80::1]:3784", "[fe80::2%5]:50000"), [0, 1, 0]);
    assert_eq!(hear("[fe80::1%4]:3784", "[fe80::2]:50000"), [1, 1, 0]);
    assert_eq!(hear("[::ffff:169.254.10.1]:3784", "[::ffff:169.254.10.2]:50000"), [1, 1, 1]);
}

#[test]
fn a_configuration_that_cannot_be_is_refused_and_changes_nothing() {
    let mut sessions = Sessions::new(Options { session_limit: 2 }, Random::for_test(1));
    let good = config(A, B);
    let mut upsert = |id, config: SessionConfig| sessions.upsert(SessionId(id), config, Instant::ZERO);
    upsert(1, good.clone()).unwrap();
    let bad = |change: &dyn Fn(&mut SessionConfig)| {
        let mut config = good.clone();
        change(&mut config);
        config
    };
    assert_eq!(upsert(1, bad(&|c| c.remote = ip("2001:db8::1"))), Err(ConfigError::MixedFamilies));
    assert_eq!(upsert(1, bad(&|c| c.remote = ip("0.0.0.0"))), Err(ConfigError::NotAHost(ip("0.0.0.0"))));
    assert_eq!(upsert(1, bad(&|c| c.remote = ip("224.0.0.1"))), Err(ConfigError::NotAHost(ip("224.0.0.1"))));
    assert_eq!(upsert(1, bad(&|c| c.remote = ip(A))), Err(ConfigError::SameAddress(ip(A))));
    assert_eq!(upsert(1, bad(&|c| c.min_tx = 9 * MS)), Err(ConfigError::Interval { name: "min_tx", interval: 9 * MS }));
    assert!(matches!(upsert(1, bad(&|c| c.min_rx = 61 * SECOND)), Err(ConfigError::Interval { name: "min_rx", .. })));
    assert_eq!(upsert(1, bad(&|c| c.multiplier = 0)), Err(ConfigError::ZeroMultiplier));
    assert_eq!(upsert(2, good.clone()), Err(ConfigError::AddressesTaken(SessionId(1))));
    upsert(2, bad(&|c| c.remote = ip("169.254.10.6"))).unwrap();
    assert_eq!(upsert(3, bad(&|c| c.remote = ip("169.254.10.7"))), Err(ConfigError::TooMany { limit: 2 }));
    assert_eq!(upsert(2, good.clone()), Err(ConfigError::AddressesTaken(SessionId(1))));
    assert_eq!(sessions.statuses().map(|s| s.remote.ip()).collect::<Vec<_>>(), [ip(B), ip("169.254.10.6")]);
}

#[test]
fn every_session_sends_from_a_port_of_its_own_to_port_3784() {
    let mut sessions = Sessions::new(Options::default(), Random::for_test(3));
    for id in 0..500 {
        let remote = std::net::Ipv4Addr::from(0x0a00_0000 + id + 2).into();
        sessions.upsert(SessionId(id), SessionConfig::new(ip("10.0.0.1"), remote), Instant::ZERO).unwrap();
    }
    sessions.handle_timeout(Instant::ZERO);
    let mut ports = std::collections::BTreeSet::new();
    while let Some(output) = sessions.poll_output() {
        let Output::Transmit(transmit) = output else { panic!("{output:?}") };
        assert!(transmit.local.port() >= 49152 && transmit.remote.port() == PORT);
        ports.insert(transmit.local.port());
    }
    assert_eq!(ports.len(), 500);
}

#[test]
fn a_port_that_is_taken_is_left_for_another() {
    let mut alone = Alone::new(config(A, B));
    let port = alone.status().local.port();
    alone.pass(MS);
    alone.sessions.handle_port_taken(ID, alone.now);
    assert_ne!(alone.status().local.port(), port);
    assert_eq!(alone.outputs().0.len(), 1, "it is sent again at once");
}

#[test]
fn a_passive_session_is_silent_until_it_is_spoken_to() {
    let mut alone = Alone::new(SessionConfig { role: Role::Passive, ..config(A, B) });
    assert_eq!(alone.pass(60 * SECOND), []);
    alone.say(State::Down).unwrap();
    assert_eq!(alone.outputs().0[0].state, State::Init);
    // Once the neighbor is forgotten, it is silent again.
    let last = alone.pass(60 * SECOND).pop().unwrap();
    assert!(last.0 < at(64 * SECOND), "{last:?}");
    assert_eq!(alone.status().remote_discriminator, None);
}

proptest! {
    #[test]
    fn no_bytes_bring_a_session_up_that_did_not_answer_ours(packets in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..60), any::<u8>()), 1..30)) {
        let mut alone = Alone::new(config(A, B));
        let mut heard = false;
        for (mut bytes, ttl) in packets {
            if bytes.len() > 24 {
                (bytes[0], bytes[3]) = (0x20 | bytes[0] & 0x1f, 24);
                bytes[1] &= 0xfa;
                bytes[8..12].fill(0);
            }
            let ttl = if ttl & 1 == 0 { TTL } else { ttl };
            let from = SocketAddr::new(ip(B), 50_000);
            let verdict = alone.sessions.handle_packet(socket(A), from, ttl, &bytes, alone.now);
            heard |= verdict.is_ok();
            prop_assert!(ttl == TTL || verdict.is_err());
            alone.pass(100 * MS);
            prop_assert!(alone.status().state <= State::Init);
        }
        prop_assert_eq!(heard, alone.status().counters.received > 0);
    }
}
