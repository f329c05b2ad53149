//! What is wrong is named, on both sides, and a forged message changes nothing.

use std::time::Duration;

use base::algorithm::{Encryption, Group};
use model::{Address, Dpd, DpdAction};

use super::harness::*;
use crate::event::{CloseReason, DropReason, Event};
use crate::session::IkeState;
use crate::wire::v2::{Body, NotifyType, exchange, flags, message};

/// Runs a negotiation that A begins and that cannot succeed.
fn failing(change: impl FnOnce(&mut model::Connection, &mut model::Connection)) -> World {
    let mut world = World::with(1, change);
    world.initiate(A);
    world.run(secs(3));
    world
}

#[test]
fn a_wrong_key_is_named_on_both_sides() {
    let world = failing(|a, _| a.psk = vec![base::Secret::from(&b"wrong"[..])]);
    assert_eq!(world.nodes[B].causes(), ["wrong_psk"]);
    assert_eq!(world.nodes[A].causes(), ["refused_by_peer"]);
    assert!(world.nodes.iter().all(|node| node.sas.is_empty() && node.live().is_empty()));
}

// a -- IKE_AUTH { AUTH with "theirs" } -> b, and a forgets that key
// a <- IKE_AUTH { AUTH with "theirs" } -- b: it believes us, we do not believe it and say so.
#[test]
fn a_responder_with_another_key_is_not_believed_and_hears_of_it() {
    let key = |text: &str| base::Secret::from(text.as_bytes());
    let mut world = World::with(1, |a, b| (a.psk, b.psk) = (vec![key("theirs")], vec![key("theirs")]));
    world.initiate(A);
    // IKE_SA_INIT there and back, and IKE_AUTH is on its way.
    world.run(Duration::from_millis(25));
    for session in world.nodes[A].sessions.values_mut() {
        let connection = session.core.connection.as_mut().map(std::sync::Arc::make_mut).unwrap();
        connection.psk = vec![key("ours")];
    }
    world.run(secs(3));
    assert_eq!(world.nodes[A].causes(), ["wrong_psk"]);
    assert_eq!(world.nodes[B].causes(), ["refused_by_peer"]);
    assert!(world.nodes.iter().all(|node| node.sas.is_empty() && node.sessions.is_empty()));
}

#[test]
fn a_wrong_identity_of_ours_is_named() {
    let world = failing(|a, b| (a.local.id, b.remote.id) = (fqdn("a.example"), fqdn("other.example")));
    assert_eq!(world.nodes[B].causes(), ["wrong_remote_id"]);
    assert_eq!(
        world.nodes[B].failures()[0],
        "the peer calls itself @a.example, but @other.example is expected; change our remote identity or the peer's side"
    );
    assert_eq!(world.nodes[A].causes(), ["refused_by_peer"]);
}

#[test]
fn a_peer_that_asks_for_another_identity_is_named() {
    let world = failing(|a, b| (a.remote.id, b.local.id) = (fqdn("b.example"), fqdn("other.example")));
    assert_eq!(world.nodes[B].causes(), ["wrong_local_id"]);
    assert_eq!(world.nodes[A].causes(), ["refused_by_peer"]);
}

#[test]
fn phase_1_proposals_without_a_suite_in_common_are_named_with_the_nearest() {
    let world = failing(|a, b| {
        a.ike[0].encryption = vec![Encryption::Aes128Gcm];
        b.ike[0].encryption = vec![Encryption::Aes256Gcm];
    });
    assert_eq!(world.nodes[A].causes(), ["no_ike_proposal"]);
    assert_eq!(world.nodes[B].causes(), ["no_ike_proposal"]);
    let said = &world.nodes[B].failures()[0];
    assert!(said.contains("the peer offers aes128gcm16-") && said.contains("differ in encryption"), "{said}");
}

#[test]
fn phase_2_proposals_without_a_suite_in_common_leave_the_ike_sa_up() {
    let world = failing(|a, b| {
        a.children[0].esp.truncate(1);
        a.children[0].esp[0].encryption = vec![Encryption::Aes128Gcm];
        b.children[0].esp[0].encryption = vec![Encryption::Aes256Gcm];
    });
    assert_eq!(world.nodes[A].causes(), ["no_child_proposal"]);
    assert_eq!(world.nodes[B].causes(), ["no_child_proposal"]);
    assert!(world.nodes.iter().all(|node| node.live().len() == 1 && node.sas.is_empty()));
    world.assert_clean();
}

#[test]
fn selectors_without_traffic_in_common_leave_the_ike_sa_up() {
    let net = |net: &str| vec![model::Selector::net(net.parse().unwrap())];
    let world = failing(|_, b| b.children[0].local = net("172.16.0.0/12"));
    assert_eq!(world.nodes[A].causes(), ["no_selector"]);
    assert_eq!(world.nodes[B].causes(), ["no_selector"]);
    let said = &world.nodes[B].failures()[0];
    assert!(
        said.contains("172.16.0.0/12") && said.contains("10.2.0.0/16") && said.contains("local selector"),
        "{said}"
    );
    assert!(world.nodes.iter().all(|node| node.live().len() == 1 && node.sas.is_empty()));
    world.assert_clean();
}

#[test]
fn no_group_in_common_is_named() {
    let world = failing(|a, b| {
        a.ike[0].groups = vec![Group::Ecp256];
        b.ike[0].groups = vec![Group::Ecp384];
    });
    assert_eq!(world.nodes[A].causes(), ["no_ike_proposal"]);
    assert_eq!(world.nodes[B].causes(), ["no_ike_proposal"]);
}

#[test]
fn an_address_without_a_connection_is_named() {
    let world = failing(|_, b| b.remote.address = Address::Ip("203.0.113.1".parse().unwrap()));
    assert_eq!(world.nodes[B].causes(), ["unknown_peer"]);
    assert_eq!(world.nodes[B].counters.dropped(DropReason::NoConnection), 1);
    assert_eq!(world.nodes[A].causes(), ["no_ike_proposal"]);
}

// The refusal is lost; the repeated IKE_AUTH is refused with the same bytes.
#[test]
fn a_refusal_that_is_lost_is_said_again() {
    let mut world = World::with(1, |a, _| a.psk = vec![base::Secret::from(&b"wrong"[..])]);
    let mut answers = 0;
    world.filter = Box::new(move |node, _| {
        answers += usize::from(node == B);
        node != B || answers != 2
    });
    world.initiate(A);
    world.run(secs(3));
    assert_eq!(world.nodes[A].causes(), ["refused_by_peer"]);
    assert_eq!(world.nodes[B].causes(), ["wrong_psk"]);
    world.run(secs(60));
    assert!(world.nodes.iter().all(|node| node.sessions.is_empty()));
}

#[test]
fn a_silent_peer_is_given_up_after_its_tries() {
    let mut world = World::new(1);
    world.filter = Box::new(|_, _| false);
    world.initiate(A);
    world.run(secs(120));
    assert_eq!(world.wire.len(), 6);
    let (at, event) = world.nodes[A].events.last().unwrap();
    assert!(matches!(event, Event::Failed { failure, .. } if failure.cause.name() == "no_answer"));
    let expected = world.nodes[A].options.retransmission.total();
    assert_eq!(at.since_start().as_millis(), expected.as_millis());
    assert!(world.nodes[A].sessions.is_empty());
}

fn watched(action: DpdAction) -> World {
    let mut world = World::with(1, |a, _| {
        a.dpd = Some(Dpd { delay: secs(10), timeout: Duration::ZERO, action });
    });
    world.establish();
    world
}

// a -- INFORMATIONAL {} -> b, a <- INFORMATIONAL {} -- b, every 10 s of silence
#[test]
fn a_living_peer_is_asked_after_silence_and_not_while_it_talks() {
    let mut world = watched(DpdAction::Clear);
    world.run(secs(60));
    let asked = world.wire.len();
    assert!((13..=16).contains(&asked), "{asked}");
    world.start_traffic();
    world.run(secs(60));
    assert_eq!(world.wire.len(), asked);
    world.assert_joined();
}

#[test]
fn a_dead_peer_is_found_and_what_follows_is_as_configured() {
    for (action, up_again) in [(DpdAction::Clear, false), (DpdAction::Hold, false), (DpdAction::Restart, true)] {
        let mut world = watched(action);
        world.nodes[A].restarts = true;
        world.filter = Box::new(|_, _| false);
        world.run(secs(60));
        assert!(world.nodes[A].has(|e| matches!(e, Event::IkeDown { reason: CloseReason::PeerDead, .. })));
        assert!(world.nodes[A].has(|e| matches!(e, Event::ChildDown { reason: CloseReason::PeerDead, .. })));
        world.filter = Box::new(|_, _| true);
        world.run(secs(60));
        assert_eq!(world.nodes[A].live().len() == 1, up_again, "{action:?}");
        if up_again {
            // INITIAL_CONTACT, or the policy of one IKE SA a peer, has removed what B still held.
            world.assert_joined();
        }
    }
}

/// After how many milliseconds a peer is given up that was last heard when it came up.
fn given_up_after(delay: u64, timeout: u64) -> u128 {
    let mut world = World::with(1, |a, _| {
        a.dpd = Some(Dpd { delay: secs(delay), timeout: secs(timeout), action: DpdAction::Clear });
    });
    world.establish();
    world.filter = Box::new(|_, _| false);
    world.run(secs(120));
    let down = |(at, event): &(base::Instant, Event)| matches!(event, Event::IkeDown { .. }).then_some(*at);
    world.nodes[A].events.iter().find_map(down).unwrap().since_start().as_millis()
}

// a -- INFORMATIONAL {} -> (lost), after `delay` of silence, and again until `timeout`
#[test]
fn a_peer_is_given_up_when_it_was_not_heard_for_the_timeout() {
    for (delay, timeout) in [(2, 6), (10, 30), (10, 20)] {
        let after = given_up_after(delay, timeout);
        assert!((1000 * timeout..1000 * timeout + 100).contains(&(after as u64)), "{delay}, {timeout}: {after}");
    }
}

#[test]
fn a_question_has_half_of_the_timeout_to_be_answered() {
    for (delay, timeout, total) in [(10, 5, 12_500), (10, 10, 15_000), (20, 30, 35_000)] {
        let after = given_up_after(delay, timeout);
        assert!((total..total + 100).contains(&after), "{delay}, {timeout}: {after}");
    }
}

#[test]
fn no_forged_or_damaged_message_changes_anything() {
    let mut world = World::established(1);
    world.command(A, |session, ctx| session.rekey(crate::Rekey::Children, ctx));
    world.run(secs(1));
    let before = format!("{:?}", world.nodes[B].sessions.values().map(|s| s.view()).collect::<Vec<_>>());
    let recorded = world.wire.clone();
    let (events, sent) = (world.nodes[B].events.len(), world.wire.len());
    for (_, transmit) in recorded.iter().filter(|(node, _)| *node == A) {
        for at in 0..transmit.payload.len() {
            let mut damaged = transmit.payload.clone();
            damaged[at] ^= 0x10;
            world.inject(B, transmit.remote, transmit.local, &damaged);
            world.inject(B, transmit.remote, transmit.local, &transmit.payload[..at]);
        }
    }
    let after = world.nodes[B].sessions.values().filter(|s| s.state() == IkeState::Established);
    assert_eq!(before, format!("{:?}", after.map(|s| s.view()).collect::<Vec<_>>()));
    // A first message that is damaged but well formed may be answered; nothing else is.
    let other = world.wire[sent..].iter().filter(|(_, t)| t.payload[18] != exchange::SA_INIT).count();
    assert_eq!(other, 0);
    let said = world.nodes[B].events[events..].iter().filter(|(_, e)| !matches!(e, Event::Failed { .. })).count();
    assert_eq!(said, 0);
    world.assert_joined();
}

// Random bytes, with a header that names the session.
#[test]
fn noise_that_names_a_session_is_dropped_and_counted() {
    let mut world = World::established(1);
    let spi = world.nodes[B].only();
    let view = world.nodes[B].sessions[&spi].view();
    let mut random = base::Random::for_test(9);
    let (to, from) = (view.path.0, view.path.1);
    for n in 0..2_000u32 {
        let len = 28 + random.below(200) as usize;
        let mut noise = vec![0; len];
        random.fill(&mut noise);
        noise[..8].copy_from_slice(&view.spis.0.to_be_bytes());
        noise[8..16].copy_from_slice(&view.spis.1.to_be_bytes());
        (noise[16], noise[17], noise[18]) = ([46, 53][n as usize % 2], 0x20, 34 + (n % 4) as u8);
        noise[19] = flags::INITIATOR | if n % 3 == 0 { flags::RESPONSE } else { 0 };
        noise[20..24].copy_from_slice(&(n % 4).to_be_bytes());
        noise[24..28].copy_from_slice(&(len as u32).to_be_bytes());
        world.inject(B, to, from, &noise);
    }
    let counters = &world.nodes[B].counters;
    let dropped: u64 = DropReason::ALL.iter().map(|reason| counters.dropped(*reason)).sum();
    assert_eq!(dropped, 2_000);
    world.assert_joined();
}

// a -- IKE_SA_INIT { unknown critical payload } -> b, a <- { N(UNSUPPORTED_CRITICAL_PAYLOAD) } -- b
#[test]
fn an_unknown_critical_payload_is_refused_by_name() {
    let mut world = World::new(1);
    let header = crate::wire::header::Header {
        initiator_spi: 7,
        responder_spi: 0,
        next_payload: 0,
        major: 2,
        minor: 0,
        exchange: exchange::SA_INIT,
        flags: flags::INITIATOR,
        message_id: 0,
        length: 0,
    };
    let mut body = Body::new();
    body.payload(200, |_| ());
    let mut bytes = message(header, &body);
    bytes[29] = 0x80;
    let (to, from) = (format!("{IP_B}:500"), format!("{IP_A}:500"));
    world.inject(B, to.parse().unwrap(), from.parse().unwrap(), &bytes);
    let (_, answer) = crate::wire::v2::decode(&world.wire[0].1.payload).unwrap();
    assert_eq!(answer.notify(NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD).unwrap().data, [200]);
    assert!(world.nodes[B].sessions.is_empty());
}
