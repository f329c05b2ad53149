//! Keyed SHA1: the right key, another one, none, and packets said twice.

use base::{Random, Secret};
use bfd::{AuthKind, Authentication, ConfigError, Discard, Options, SessionConfig, Sessions, State, TTL};
use sim::{Host, Link};

use crate::host::*;

const KINDS: [AuthKind; 2] = [AuthKind::KeyedSha1, AuthKind::MeticulousKeyedSha1];

fn with_key(local: &str, remote: &str, kind: AuthKind, key_id: u8, key: &str) -> SessionConfig {
    let authentication = Some(Authentication { kind, key_id, key: Secret::from(key.as_bytes()) });
    SessionConfig { authentication, ..config(local, remote) }
}

#[test]
fn neighbors_with_one_key_come_up_and_stay_up_over_loss() {
    for kind in KINDS {
        let (a, b) = (with_key(A, B, kind, 1, "matterhorn"), with_key(B, A, kind, 1, "matterhorn"));
        let ten = |config| SessionConfig { multiplier: 10, ..config };
        let mut pair = pair(Link { loss: 10, ..Link::default() }, ten(a), ten(b), 2);
        pair.run_for(600 * SECOND);
        assert_up(&pair);
        assert_eq!(pair.hosts[0].downs(), []);
        // A cut and a restart of one end with other sequence numbers are overcome too.
        pair.hosts[1] = Gate::new(B, 77);
        let now = pair.now;
        let b = ten(with_key(B, A, kind, 1, "matterhorn"));
        pair.hosts[1].sessions.upsert(ID, b, now).unwrap();
        pair.run_for(10 * SECOND);
        assert_up(&pair);
    }
}

#[test]
fn another_key_another_number_another_kind_or_none_keeps_them_apart() {
    let [kind, other] = KINDS;
    let ours = with_key(A, B, kind, 1, "matterhorn");
    let theirs = [
        (with_key(B, A, kind, 1, "eiger"), Discard::BadAuthentication),
        (with_key(B, A, kind, 2, "matterhorn"), Discard::BadAuthentication),
        (with_key(B, A, other, 1, "matterhorn"), Discard::BadAuthentication),
        (config(B, A), Discard::MissingAuthentication),
    ];
    for (theirs, reason) in theirs {
        let mut pair = pair(Link::default(), ours.clone(), theirs, 2);
        pair.run_for(10 * SECOND);
        let status = pair.hosts[0].status();
        assert_eq!((status.state, status.counters.received, status.remote_discriminator), (State::Down, 0, None));
        assert!(status.counters.discards.of(reason) >= 10, "{reason}");
    }
}

#[test]
fn a_packet_that_is_said_again_or_changed_is_not_believed() {
    for kind in KINDS {
        let mut pair = pair(Link::default(), with_key(A, B, kind, 1, "m"), with_key(B, A, kind, 1, "m"), 2);
        pair.run_for(10 * SECOND);
        assert_up(&pair);
        let from_b: Vec<_> = pair.network.wire.iter().filter(|d| d.source.ip() == ip(B)).cloned().collect();
        let now = pair.now;
        let mut hear = |payload: &[u8]| {
            let a = &mut pair.hosts[0];
            let verdict = a.sessions.handle_packet(socket(A), from_b[0].source, TTL, payload, now);
            a.outgoing();
            (verdict, a.state())
        };
        // The first was Down: it would take the session down.
        assert_eq!(hear(&from_b[0].payload), (Err(Discard::Replay), State::Up));
        let mut changed = from_b.last().unwrap().payload.clone();
        for at in 0..changed.len() {
            // The reserved byte is under the digest too; the length and the A bit fail their own checks.
            changed[at] ^= 1;
            assert!(hear(&changed).0.is_err(), "byte {at}");
            changed[at] ^= 1;
        }
        let longer = {
            let mut longer = changed.clone();
            longer.push(0);
            longer[3] += 1;
            longer
        };
        assert_eq!(hear(&longer), (Err(Discard::BadAuthentication), State::Up));
    }
}

#[test]
fn a_digest_is_the_one_that_the_rfc_describes() {
    // Computed apart with Python: SHA-1 over the packet with the zero-filled key in the digest's place.
    let mut sessions = Sessions::new(Options::default(), Random::for_test(1));
    let config = with_key(A, B, AuthKind::KeyedSha1, 9, "secret");
    sessions.upsert(ID, config, base::Instant::ZERO).unwrap();
    let packet = PYTHON;
    let verdict = sessions.handle_packet(socket(A), socket(B), TTL, &packet, base::Instant::ZERO);
    assert_eq!((verdict, sessions.status(ID).unwrap().state), (Ok(()), State::Init));
}

#[test]
fn a_key_has_1_to_20_bytes_and_is_not_shown() {
    let mut sessions = Sessions::new(Options::default(), Random::for_test(1));
    for key in ["", "a key of twenty-one b"] {
        let config = with_key(A, B, AuthKind::KeyedSha1, 1, key);
        assert_eq!(sessions.upsert(ID, config, base::Instant::ZERO), Err(ConfigError::KeyLength));
    }
    let config = with_key(A, B, AuthKind::KeyedSha1, 1, "matterhorn");
    assert!(!format!("{config:?}").contains("matterhorn"));
    sessions.upsert(ID, config, base::Instant::ZERO).unwrap();
    assert!(!format!("{sessions:?}").contains("matterhorn"));
}

const PYTHON: [u8; 52] = [
    0x20, 0x44, 0x03, 0x34, 0x00, 0x00, 0xb1, 0xd0, 0x00, 0x00, 0x00, 0x00, 0x00, 0x0f, 0x42, 0x40, 0x00, 0x01, 0x86,
    0xa0, 0x00, 0x00, 0x00, 0x00, 0x04, 0x1c, 0x09, 0x00, 0xca, 0xfe, 0x00, 0x01, 0xf9, 0xaa, 0xd4, 0x1f, 0x55, 0x20,
    0xf8, 0xd6, 0x27, 0x25, 0xc9, 0xda, 0xad, 0x23, 0x5d, 0x8a, 0xe2, 0x3c, 0x8f, 0xe0,
];
