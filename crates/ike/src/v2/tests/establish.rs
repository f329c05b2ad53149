//! From nothing to an established tunnel: groups, cookies, NAT, fragments, selectors.

use std::collections::BTreeSet;

use base::algorithm::{Encryption, Group, Integrity, Prf};
use model::{Encapsulation, EspProposal, IkeProposal};

use super::harness::*;
use crate::event::{CloseReason, Event};
use crate::wire::header::Header;
use crate::wire::v2::{self, NotifyType, exchange};

// a -- IKE_SA_INIT -> b, a <- IKE_SA_INIT -- b, a -- IKE_AUTH -> b, a <- IKE_AUTH -- b
#[test]
fn four_messages_make_a_tunnel() {
    let world = World::established(1);
    assert_eq!(world.wire.len(), 4);
    for node in &world.nodes {
        assert!(node.has(|e| matches!(e, Event::IkeUp { rekeyed: false, .. })));
        assert!(node.has(|e| matches!(e, Event::ChildUp { replaces: None, .. })));
        assert_eq!(node.failures(), [""; 0]);
        assert_eq!(node.counters.established, 1);
    }
    let sa = &world.nodes[A].outbound().unwrap().sa;
    assert!(!sa.path.udp);
    assert_eq!(sa.limits.hard_time, Some(base::Instant::from_micros(20_000 + 20_000) + secs(3_600)));
    world.assert_clean();
}

// a -- INFORMATIONAL { D } -> b, a <- INFORMATIONAL {} -- b
#[test]
fn a_closed_tunnel_is_gone_on_both_sides() {
    let mut world = World::established(1);
    world.command(A, |session, ctx| session.close(CloseReason::Command, ctx));
    world.run(secs(1));
    for (node, reason) in [(A, CloseReason::Command), (B, CloseReason::PeerDeleted)] {
        assert!(world.nodes[node].sessions.is_empty() && world.nodes[node].sas.is_empty());
        assert!(world.nodes[node].has(|e| matches!(e, Event::IkeDown { reason: r, .. } if *r == reason)));
        assert!(world.nodes[node].has(|e| matches!(e, Event::ChildDown { reason: r, .. } if *r == reason)));
    }
}

#[test]
fn every_suite_and_group_carries_a_tunnel() {
    for encryption in Encryption::ALL {
        let integrity = if encryption.is_aead() { vec![] } else { vec![Integrity::Sha1] };
        for (group, prf) in
            [(Group::Modp1024, Prf::Md5), (Group::Ecp521, Prf::Sha512), (Group::Curve25519, Prf::Sha384)]
        {
            let mut world = World::with(3, |a, b| {
                for c in [a, b] {
                    let integrity = integrity.clone();
                    c.ike = vec![IkeProposal {
                        encryption: vec![encryption],
                        integrity: integrity.clone(),
                        prf: vec![prf],
                        groups: vec![group],
                    }];
                    let esp = EspProposal { encryption: vec![encryption], integrity, groups: vec![], esn: vec![true] };
                    c.children[0].esp = vec![esp];
                }
            });
            world.establish();
            assert!(world.nodes[B].outbound().unwrap().sa.suite.esn);
        }
    }
}

// a -- IKE_SA_INIT { KE 19 } -> b, a <- { N(INVALID_KE_PAYLOAD, 31) } -- b, a -- { KE 31 } -> b, …
#[test]
fn another_group_is_asked_for_and_given() {
    let mut world = World::with(1, |_, b| b.ike[0].groups = vec![Group::Curve25519]);
    world.establish();
    assert_eq!(world.wire.len(), 6);
    assert_eq!(world.nodes[A].live()[0].view().suite.to_string(), "aes256gcm16-prfsha256-curve25519");
}

// a -- IKE_SA_INIT -> b, a <- { N(COOKIE) } -- b, a -- { N(COOKIE), … } -> b, …
#[test]
fn under_load_a_cookie_is_asked_for_and_given() {
    let mut world = World::new(1);
    world.nodes[B].options.cookie_threshold = 0;
    world.establish();
    assert_eq!(world.wire.len(), 6);
    assert_eq!(world.nodes[B].counters.cookies_sent, 1);
}

// a -- IKE_SA_INIT -> b, a <- { N(COOKIE) } -- b, a -- { N(COOKIE), KE 19 } -> b,
// a <- { N(INVALID_KE_PAYLOAD) } -- b, a -- { N(COOKIE), KE 31 } -> b, …
#[test]
fn a_cookie_and_another_group_can_both_be_asked_for() {
    let mut world = World::with(1, |_, b| b.ike[0].groups = vec![Group::Curve25519]);
    world.nodes[B].options.cookie_threshold = 0;
    world.establish();
    assert_eq!(world.nodes[B].counters.cookies_sent, 1);
}

#[test]
fn a_flood_of_first_messages_keeps_half_open_sessions_bounded_and_a_real_peer_gets_in() {
    let mut world = World::new(1);
    let mut source = World::new(2);
    source.initiate(A);
    let first = source.wire[0].1.payload.clone();
    for n in 0..5_000u32 {
        let mut forged = first.clone();
        forged[4..8].copy_from_slice(&n.to_be_bytes());
        let (to, from) = (format!("{IP_B}:500"), format!("{IP_A}:{}", 1_024 + n));
        world.inject(B, to.parse().unwrap(), from.parse().unwrap(), &forged);
    }
    assert_eq!(world.nodes[B].sessions.len(), world.nodes[B].options.cookie_threshold);
    assert_eq!(world.nodes[B].failures(), [""; 0]);
    world.establish_beside();
    assert_eq!(world.nodes[B].live().len(), 1);
    world.run(secs(60));
    world.assert_clean();
}

#[test]
fn fragmented_messages_make_a_tunnel() {
    let mut world = World::new(1);
    for node in [A, B] {
        world.nodes[node].options.fragment_size = 150;
    }
    world.establish();
    assert!(world.wire.len() > 6);
    let auth = world.wire.iter().filter(|(_, t)| Header::decode(&t.payload).unwrap().exchange == exchange::AUTH);
    assert!(auth.clone().all(|(_, t)| t.payload.len() <= 150));
    assert!(auth.count() >= 4);
}

#[test]
fn fragments_are_sent_only_to_a_peer_that_speaks_them() {
    let mut world = World::with(1, |_, b| b.fragmentation = false);
    world.nodes[A].options.fragment_size = 150;
    world.establish();
    assert_eq!(world.wire.len(), 4);
}

fn behind_nat(seed: u64) -> World {
    let mut world = World::with(seed, |a, b| {
        b.remote.address = model::Address::Any;
        (a.local.id, b.remote.id) = (fqdn("a"), fqdn("a"));
    });
    world.nat = Some(Nat { public: "203.0.113.9".parse().unwrap(), shift: 20_000 });
    world
}

// a:500 -- IKE_SA_INIT -> b:500, a:4500 -- IKE_AUTH -> b:4500
#[test]
fn behind_a_nat_the_ports_float_and_esp_goes_in_udp() {
    let mut world = behind_nat(1);
    world.establish();
    let paths = [A, B].map(|node| world.nodes[node].outbound().unwrap().sa.path);
    assert!(paths.iter().all(|path| path.udp && path.local.port() == 4500));
    assert_eq!(paths[B].remote.to_string(), "203.0.113.9:24500");
    assert_eq!(world.nodes[A].live()[0].view().nat, (true, false));
    assert_eq!(world.nodes[B].live()[0].view().nat, (false, true));
    world.run(secs(61));
    let keepalives = world.wire.iter().filter(|(node, t)| *node == A && t.payload == [0xff]).count();
    assert_eq!(keepalives, 3);
    assert!(!world.wire.iter().any(|(node, t)| *node == B && t.payload == [0xff]));
}

// The NAT forgets its mapping; the next message of a's comes from another port.
#[test]
fn a_peer_whose_nat_mapping_moves_is_followed() {
    let mut world = behind_nat(1);
    world.establish();
    world.nat.as_mut().unwrap().shift = 30_000;
    world.command(A, |session, ctx| session.rekey(crate::Rekey::Children, ctx));
    world.run(secs(1));
    world.assert_joined();
    assert!(world.nodes[B].has(|e| matches!(e, Event::PeerMoved { to, .. } if to.port() == 34_500)));
    assert_eq!(world.nodes[B].outbound().unwrap().sa.path.remote.port(), 34_500);
}

#[test]
fn a_replayed_message_from_elsewhere_moves_nobody() {
    let mut world = behind_nat(1);
    world.establish();
    world.command(A, |session, ctx| session.rekey(crate::Rekey::Children, ctx));
    world.run(secs(1));
    let replayed: Vec<_> = world.wire.iter().filter(|(node, _)| *node == A).map(|(_, t)| t.clone()).collect();
    for transmit in replayed {
        world.inject(B, transmit.remote, "203.0.113.66:4500".parse().unwrap(), &transmit.payload);
    }
    assert!(!world.nodes[B].has(|e| matches!(e, Event::PeerMoved { .. })));
    world.assert_joined();
}

#[test]
fn a_peer_that_is_not_behind_a_nat_is_not_followed() {
    let mut world = World::established(1);
    let to = "203.0.113.66:500".parse().unwrap();
    world.command(B, |session, ctx| session.note_peer_moved(to, ctx));
    assert_eq!(world.nodes[B].live()[0].view().path.1.ip().to_string(), IP_A);
}

#[test]
fn forced_encapsulation_makes_both_see_a_nat() {
    let mut world = World::with(1, |a, _| a.encapsulation = Encapsulation::Force);
    world.establish();
    assert!(world.nodes[B].outbound().unwrap().sa.path.udp);
    let mut world = World::with(1, |_, b| b.encapsulation = Encapsulation::Force);
    world.establish();
    assert!(world.nodes[A].outbound().unwrap().sa.path.udp);
}

#[test]
fn without_encapsulation_a_nat_is_not_looked_for() {
    let mut world = World::with(1, |a, _| a.encapsulation = Encapsulation::Never);
    world.establish();
    assert!(!world.nodes[B].outbound().unwrap().sa.path.udp);
}

#[test]
fn selectors_are_narrowed_to_what_both_allow() {
    let mut world = World::with(1, |a, b| {
        a.children[0].remote = vec![model::Selector::net("0.0.0.0/0".parse().unwrap())];
        b.children[0].remote = vec![model::Selector::net("10.1.5.0/24".parse().unwrap())];
    });
    world.establish();
    let sa = &world.nodes[A].outbound().unwrap().sa;
    assert_eq!(sa.local[0].to_string(), "10.1.5.0/24");
    assert_eq!(sa.remote[0].to_string(), "10.2.0.0/16");
}

// Two children: one with IKE_AUTH, the other by CREATE_CHILD_SA { SA, Ni, KEi, TSi, TSr }.
#[test]
fn further_children_follow_the_first_with_their_own_key_exchange() {
    let mut world = World::with(1, |a, b| {
        for (c, nets) in [(a, ("10.1.0.0/16", "10.9.0.0/16")), (b, ("10.9.0.0/16", "10.1.0.0/16"))] {
            let mut child = c.children[0].clone();
            child.name = "second".into();
            child.local = vec![model::Selector::net(nets.0.parse().unwrap())];
            child.remote = vec![model::Selector::net(nets.1.parse().unwrap())];
            child.esp[0].groups = vec![Group::Ecp256];
            c.children.push(child);
        }
    });
    world.initiate(A);
    world.run(secs(1));
    for node in &world.nodes {
        let names: BTreeSet<_> = node.sas.values().map(|sa| sa.sa.label.child.to_string()).collect();
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["second", "site"]);
        assert!(node.sas.values().all(|sa| sa.is_active));
        let view = node.live()[0].view();
        assert_eq!(view.children[1].pfs, Some(Group::Ecp256));
    }
}

#[test]
fn a_new_key_is_accepted_before_it_is_used() {
    let key = |text: &str| base::Secret::from(text.as_bytes());
    let mut world = World::with(1, |a, b| {
        a.psk = vec![key("new"), key("old")];
        b.psk = vec![key("old"), key("new")];
    });
    world.establish();
}

// a -- IKE_SA_INIT -> b twice, a -- IKE_AUTH -> b twice
#[test]
fn a_repeated_request_is_answered_with_the_same_bytes() {
    let mut world = World::new(1);
    world.link.duplicate_percent = 100;
    world.establish();
    let answers: Vec<_> = world.wire.iter().filter(|(node, _)| *node == B).map(|(_, t)| t.payload.clone()).collect();
    assert_eq!((&answers[0], &answers[2]), (&answers[1], &answers[3]));
    assert_eq!(world.nodes[B].counters.answered_again, 2);
}

#[test]
fn a_first_message_that_differs_under_the_same_spi_is_ignored() {
    let mut world = World::new(1);
    world.initiate(A);
    world.run(std::time::Duration::from_millis(12));
    let mut other = world.wire[0].1.payload.clone();
    let last = other.len() - 1;
    other[last] ^= 1;
    let (to, from) = (world.wire[0].1.remote, world.wire[0].1.local);
    let sent = world.wire.len();
    world.inject(B, to, from, &other);
    assert_eq!(world.wire.len(), sent);
    world.run(secs(1));
    world.assert_joined();
}

#[test]
fn a_version_that_is_not_spoken_is_answered_with_ours() {
    let mut world = World::new(1);
    let header = Header {
        initiator_spi: 7,
        responder_spi: 0,
        next_payload: 0,
        major: 3,
        minor: 0,
        exchange: 34,
        flags: v2::flags::INITIATOR,
        message_id: 0,
        length: 28,
    };
    let ends = crate::context::Ends {
        local: format!("{IP_B}:500").parse().unwrap(),
        remote: format!("{IP_A}:500").parse().unwrap(),
    };
    world.outside(B, |ctx| crate::v2::refuse_version(ends, &header, ctx));
    let (answer, message) = v2::decode(&world.wire[0].1.payload).unwrap();
    assert_eq!((answer.major, answer.initiator_spi, answer.flags), (2, 7, v2::flags::RESPONSE));
    assert!(message.notify(NotifyType::INVALID_MAJOR_VERSION).is_some());
}
