//! What is refused, and what both sides are told.

use std::time::Duration;

use base::Secret;
use base::algorithm::{Encryption, Group};
use model::{Connection, Identity, Selector};

use super::world::{A, B, Packet, World, secs};
use crate::event::DropReason;
use crate::wire::header::Header;
use crate::wire::v1::{
    Attribute, Notify, Payloads, Proposal, SaPayload, Transform, encode, exchange, notify, payload, protocol,
};

/// A change to one side, begun by either: the causes that initiator and responder name.
fn causes(change: impl Fn(&mut Connection), changed: usize) -> [Vec<&'static str>; 2] {
    let mut world = World::with(1, |a, b| change(if changed == A { a } else { b }));
    world.initiate(A, &["c"]);
    world.run(secs(9));
    assert!(world.gateways.iter().all(|g| g.installed.is_empty()));
    [A, B].map(|side| {
        let mut causes = world.gateways[side].causes();
        causes.dedup();
        causes
    })
}

#[test]
fn six_faults_are_named_on_both_sides_whoever_has_them() {
    for changed in [A, B] {
        let psk = |c: &mut Connection| c.psk = vec![Secret::from(&b"other"[..])];
        assert_eq!(causes(psk, changed), [vec!["wrong_psk"], vec!["wrong_psk"]]);

        let ike = |c: &mut Connection| c.ike[0].groups = vec![Group::Modp2048];
        assert_eq!(causes(ike, changed), [vec!["no_ike_proposal"], vec!["no_ike_proposal"]]);

        let esp = |c: &mut Connection| c.children[0].esp[0].encryption = vec![Encryption::Aes256Cbc];
        assert_eq!(causes(esp, changed), [vec!["no_child_proposal"], vec!["no_child_proposal"]]);

        let net = |c: &mut Connection| c.children[0].local = vec![Selector::net("10.99.0.0/16".parse().unwrap())];
        assert_eq!(causes(net, changed), [vec!["no_selector"], vec!["no_selector"]]);
    }
    let local_id = |c: &mut Connection| c.local.id = Some(Identity::Fqdn("other".into()));
    let remote_id = |c: &mut Connection| c.remote.id = Some(Identity::Fqdn("other".into()));
    // The responder refuses the initiator's identity, then the initiator the responder's.
    assert_eq!(causes(local_id, A), [vec!["refused_by_peer"], vec!["wrong_remote_id"]]);
    assert_eq!(causes(remote_id, B), [vec!["refused_by_peer"], vec!["wrong_remote_id"]]);
    assert_eq!(causes(local_id, B), [vec!["wrong_remote_id"], vec!["refused_by_peer"]]);
    assert_eq!(causes(remote_id, A), [vec!["wrong_remote_id"], vec!["refused_by_peer"]]);
}

#[test]
fn a_failure_says_what_both_sides_offer_and_what_is_nearest() {
    let mut world = World::with(2, |a, _| a.ike[0].groups = vec![Group::Modp1024, Group::Modp2048]);
    world.initiate(A, &["c"]);
    world.run(secs(2));
    let told = &world.gateways[B].failures()[0];
    assert!(
        told.starts_with(
            "no phase 1 proposal suits both sides; we offer aes128-sha1-curve25519-psk; the peer offers \
             aes128-sha1-modp1024-psk, aes128-sha1-modp2048-psk; nearest: aes128-sha1-curve25519-psk here and \
             aes128-sha1-modp1024-psk there differ in group;"
        ),
        "{told}"
    );
    let mut world = World::with(2, |a, _| {
        a.children[0].local = vec![Selector::net("10.99.0.0/16".parse().unwrap())];
    });
    world.initiate(A, &["c"]);
    world.run(secs(2));
    let told = &world.gateways[B].failures()[0];
    assert!(
        told.contains("we offer 10.50.0.0/16-10.60.0.0/16; the peer offers 10.50.0.0/16-10.99.0.0/16")
            && told.contains("differ in the peer's traffic"),
        "{told}"
    );
}

// a <-- KE, Nr, NAT-D, NAT-D -- b, and somebody flips a bit of what b says of its own address
#[test]
fn a_nat_that_only_one_side_sees_is_named() {
    let mut world = World::new(6);
    world.initiate(A, &["c"]);
    while world.sent.len() < 4 {
        world.run(Duration::from_millis(1));
    }
    *world.wire[0].payload.last_mut().unwrap() ^= 1;
    world.run(secs(2));
    let told = &world.gateways[B].failures()[0];
    assert!(
        told.contains("we offer aes128-sha1-no pfs-plain ESP; the peer offers aes128-sha1-no pfs-ESP in UDP")
            && told.contains("differ in encapsulation (one side sees a NAT and the other does not"),
        "{told}"
    );
    assert!(world.gateways[A].failures()[0].contains("ESP in UDP"), "{:?}", world.gateways[A].failures());
}

#[test]
fn a_wrong_key_is_told_once_a_negotiation() {
    let mut world = World::with(3, |a, _| a.psk = vec![Secret::from(&b"other"[..])]);
    world.initiate(A, &["c"]);
    world.run(secs(25));
    assert_eq!(world.gateways.each_ref().map(|g| g.causes().len()), [1, 1]);
}

#[test]
fn a_peer_that_does_not_answer_is_given_up_and_tried_again() {
    let mut world = World::new(4);
    world.gateways[B].is_down = true;
    world.initiate(A, &["c"]);
    world.run(world.gateways[A].options.retransmission.total() + secs(1));
    assert_eq!(world.gateways[A].causes(), ["no_answer"]);
    assert_eq!(world.sent.len(), 6);
    world.gateways[B].is_down = false;
    world.run(secs(10));
    world.assert_settled(1);
}

#[test]
fn of_several_peers_behind_any_address_the_key_and_the_identity_choose() {
    let other = |c: &Connection, name: &str, psk: &str| {
        let mut c = c.clone();
        c.name = name.into();
        c.remote.address = model::Address::Any;
        c.remote.id = Some(Identity::Fqdn(name.into()));
        c.psk = vec![Secret::from(psk.as_bytes())];
        c
    };
    for (name, psk) in [("one", "first"), ("two", "first"), ("three", "second")] {
        let mut world = World::with(5, |a, b| {
            a.local.id = Some(Identity::Fqdn(name.into()));
            a.psk = vec![Secret::from(psk.as_bytes())];
            a.remote.id = Some(Identity::Ip("192.0.2.2".parse().unwrap()));
            *b = other(b, "one", "first");
        });
        for (id, (name, psk)) in [(2, ("two", "first")), (3, ("three", "second"))] {
            let first = world.gateways[B].peers.get(crate::PeerId(1)).unwrap().clone();
            let connection = other(&first.connection, name, psk).into();
            world.gateways[B].peers.insert(crate::peer::Peer { id: crate::PeerId(id), connection, ..first });
        }
        world.initiate(A, &["c"]);
        world.run(secs(1));
        world.assert_settled(1);
        let peer = world.gateways[B].sessions[0].peer().unwrap();
        assert_eq!(world.gateways[B].peers.get(peer).unwrap().connection.name, name);
    }
}

fn packet(world: &World, payload: Vec<u8>) -> Packet {
    let (from, to) = ("192.0.2.1:500".parse().unwrap(), "192.0.2.2:500".parse().unwrap());
    Packet { at: world.now, from, to, payload }
}

fn first(exchange: u8, cookie: u64) -> Vec<u8> {
    let header = Header {
        initiator_spi: cookie,
        responder_spi: 0,
        next_payload: 0,
        major: 1,
        minor: 0,
        exchange,
        flags: 0,
        message_id: 0,
        length: 0,
    };
    let attributes = [(1, 7), (14, 128), (2, 2), (4, 31), (3, 65_001)];
    let attributes = attributes.map(|(kind, value)| Attribute::basic(kind, value)).to_vec();
    let transforms = vec![Transform { number: 1, id: 1, attributes }];
    let proposal = Proposal { number: 1, protocol: protocol::ISAKMP, spi: vec![], transforms };
    let sa = SaPayload { proposals: vec![proposal] }.encode();
    encode(header, &Payloads::new().with(payload::SA, &sa))
}

#[test]
fn aggressive_mode_and_xauth_are_refused_with_a_reason_and_no_flood_fills_the_log() {
    for (exchange, reason) in [(exchange::AGGRESSIVE, "aggressive mode"), (exchange::MAIN, "XAUTH")] {
        let mut world = World::new(6);
        for cookie in 1..=100 {
            let packet = packet(&world, first(exchange, cookie));
            world.deliver(packet);
        }
        assert!(world.gateways[B].failures()[0].contains(reason), "{:?}", world.gateways[B].failures());
        assert_eq!((world.gateways[B].failures().len(), world.sent.len()), (1, 1));
        assert_eq!(world.gateways[B].counters.dropped(DropReason::RefusedExchange), 100);
        assert!(world.gateways[B].sessions.is_empty());
    }
}

#[test]
fn a_stranger_gets_no_session() {
    let mut world = World::new(7);
    let stranger = Packet { from: "203.0.113.5:500".parse().unwrap(), ..packet(&world, first(exchange::MAIN, 1)) };
    world.deliver(stranger);
    assert_eq!(world.gateways[B].causes(), ["unknown_peer"]);
    assert_eq!(world.gateways[B].counters.dropped(DropReason::NoConnection), 1);
    assert!(world.gateways[B].sessions.is_empty());
}

// a -- SA --> b; a <-- N(NO_PROPOSAL_CHOSEN) -- anyone; a <-- SA -- b
#[test]
fn a_forged_refusal_changes_nothing_while_the_peer_answers() {
    let mut world = World::new(8);
    world.initiate(A, &["c"]);
    for _ in 0..200 {
        let view = world.gateways[A].sessions[0].view();
        let cookies = [view.spis.0.to_be_bytes(), view.spis.1.to_be_bytes()].concat();
        for kind in [notify::NO_PROPOSAL_CHOSEN, notify::AUTHENTICATION_FAILED, notify::INVALID_ID_INFORMATION] {
            let note = Notify { protocol: protocol::ISAKMP, spi: &cookies, kind, data: &[] }.encode();
            let mut bytes = first(exchange::INFORMATIONAL, view.spis.0);
            bytes.truncate(28);
            let header = Header {
                length: 28,
                next_payload: 0,
                responder_spi: view.spis.1,
                ..Header::decode(&{
                    let mut only = bytes.clone();
                    only[24..28].copy_from_slice(&28u32.to_be_bytes());
                    only
                })
                .unwrap()
            };
            let payload = encode(Header { message_id: 7, ..header }, &Payloads::new().with(payload::NOTIFY, &note));
            let (from, to) = ("192.0.2.2:500".parse().unwrap(), "192.0.2.1:500".parse().unwrap());
            world.deliver(Packet { at: world.now, from, to, payload });
        }
        world.run(Duration::from_millis(2));
    }
    world.run(secs(1));
    world.assert_settled(1);
    assert!(world.gateways[A].failures().is_empty());
}

#[test]
fn half_open_negotiations_are_forgotten_in_time() {
    let mut world = World::new(9);
    world.initiate(A, &["c"]);
    world.run(Duration::from_millis(25));
    world.gateways[A].is_down = true;
    assert_eq!(world.gateways[B].sessions.len(), 1);
    world.run(secs(61));
    assert!(world.gateways[B].sessions.is_empty());
    assert!(world.gateways[B].failures().is_empty());
}
