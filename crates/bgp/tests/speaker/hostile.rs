//! A neighbour that says what it should not, octet by octet: malformed UPDATE messages on a live session, messages in
//! pieces, and noise.

use base::{Machine, Random};
use bgp::Families;
use bgp::rib::LocalKind;
use bgp::session::State;
use bgp::speaker::{EventKind, LocalRoute};
use bgp::wire::{Capabilities, Code, MessageKind, Notification, Open, update_error};
use bgp::{Neighbor, NeighborId};
use proptest::prelude::*;

use super::net::{SECOND, neighbor, net};
use super::refusals::{Lone, encode, keepalive, open};

const ORIGIN: &[u8] = &[0x40, 1, 1, 0];
const AS_PATH: &[u8] = &[0x40, 2, 6, 2, 1, 0, 0, 0xFD, 0xEA];
const NEXT_HOP: &[u8] = &[0x40, 3, 4, 169, 254, 10, 2];
const NET: &[u8] = &[24, 10, 50, 0];

fn message(kind: MessageKind, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xFF; 16];
    bytes.extend_from_slice(&(19 + body.len() as u16).to_be_bytes());
    bytes.push(kind.number());
    bytes.extend_from_slice(body);
    bytes
}

fn update(withdrawn: &[u8], attributes: &[&[u8]], announced: &[u8]) -> Vec<u8> {
    let attributes = attributes.concat();
    let mut body = (withdrawn.len() as u16).to_be_bytes().to_vec();
    body.extend_from_slice(withdrawn);
    body.extend_from_slice(&(attributes.len() as u16).to_be_bytes());
    body.extend_from_slice(&attributes);
    body.extend_from_slice(announced);
    message(MessageKind::Update, &body)
}

#[test]
fn a_malformed_route_is_withdrawn_and_the_session_goes_on() {
    let mut lone = Lone::passive();
    let id = lone.establish(&open());
    lone.hear(id, &update(&[], &[ORIGIN, AS_PATH, NEXT_HOP], NET));
    assert_eq!(lone.status().ipv4.received, 1);
    lone.hear(id, &update(&[], &[&[0x40, 1, 1, 9], AS_PATH, NEXT_HOP], NET));
    let status = lone.status();
    assert_eq!((status.state, status.ipv4.received, status.faults.treat_as_withdraw), (State::Established, 0, 1));
    let told = lone.told(EventKind::Malformed);
    assert!(told[0].contains("ORIGIN, its value is none of IGP"), "{told:?}");
    // RFC 7606 §6: with the routes, and the whole message.
    assert!(told[0].contains("routes: 10.50.0.0/24; the message: 00000014400101094002"), "{told:?}");
    // An attribute that is discarded takes no route with it.
    lone.hear(id, &update(&[], &[ORIGIN, AS_PATH, NEXT_HOP, &[0x40, 6, 1, 0]], NET));
    let status = lone.status();
    assert_eq!((status.ipv4.received, status.faults.attribute_discard), (1, 1));
}

#[test]
fn an_update_whose_prefixes_cannot_be_told_ends_the_session() {
    let mut lone = Lone::passive();
    let id = lone.establish(&open());
    lone.hear(id, &update(&[], &[ORIGIN, AS_PATH, NEXT_HOP], &[33, 10, 0, 0, 0, 0]));
    assert_eq!(lone.notification(id), Some(Notification::new(Code::UPDATE, update_error::NETWORK, &[])));
    assert_eq!((lone.state(), lone.status().faults.session_reset), (State::Idle, 1));
    assert!(lone.told(EventKind::Down)[0].contains("a prefix is longer than an address"));
    assert!(lone.told(EventKind::Malformed)[0].ends_with("210a00000000"), "the message is shown");
    // It rests, and refuses the neighbour meanwhile.
    assert_eq!(lone.accept(), None);
    lone.wait(6 * SECOND);
    assert!(lone.accept().is_some());
}

#[test]
fn a_disabled_family_loses_its_routes_and_the_other_keeps_them() {
    let mut lone = Lone::with(Neighbor { passive: true, families: Families::ALL, ..neighbor(1) });
    lone.wait(std::time::Duration::ZERO);
    let capabilities = Capabilities { families: Some(Families::ALL), ..open().capabilities };
    let id = lone.establish(&Open { capabilities, ..open() });
    let hop = [0x20, 1, 0xD, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let reach = |nlri: &[u8]| [&[0x80, 14, 21 + nlri.len() as u8, 0, 2, 1, 16][..], &hop, &[0], nlri].concat();
    let good = reach(&[32, 0x20, 1, 0xD, 0xB8]);
    lone.hear(id, &update(&[], &[&good, ORIGIN, AS_PATH, NEXT_HOP], NET));
    assert_eq!((lone.status().ipv4.received, lone.status().ipv6.received), (1, 1));
    let bad = reach(&[200, 1]);
    lone.hear(id, &update(&[], &[&bad, ORIGIN, AS_PATH], &[]));
    let status = lone.status();
    assert_eq!((status.state, status.ipv4.received, status.ipv6.received), (State::Established, 1, 0));
    lone.hear(id, &update(&[], &[&good, ORIGIN, AS_PATH], &[]));
    assert_eq!(lone.status().ipv6.received, 0, "no more are taken");
}

#[test]
fn a_route_by_way_of_ourselves_is_none() {
    let mut lone = Lone::passive();
    let id = lone.establish(&open());
    lone.hear(id, &update(&[], &[ORIGIN, AS_PATH, &[0x40, 3, 4, 169, 254, 10, 1]], NET));
    assert_eq!((lone.state(), lone.status().ipv4.received), (State::Established, 0));
}

#[test]
fn messages_may_come_in_any_pieces() {
    let mut stream = [encode(&open()), keepalive(), update(&[], &[ORIGIN, AS_PATH, NEXT_HOP], NET)].concat();
    stream.extend(keepalive());
    for piece in [1, 2, 18, 19, 20, 45, 64, 1000] {
        let mut lone = Lone::passive();
        let id = lone.accept().unwrap();
        stream.chunks(piece).for_each(|octets| lone.hear(id, octets));
        let status = lone.status();
        assert_eq!((status.state, status.ipv4.received), (State::Established, 1), "{piece}");
        assert_eq!((status.received.total(), status.received.keepalive), (4, 2));
        assert!(lone.speaker.routes().lookup(net("10.50.0.0/24")).len() == 1);
    }
}

#[test]
fn a_flood_of_mistakes_is_told_once() {
    let mut lone = Lone::passive();
    let id = lone.establish(&open());
    for _ in 0..1000 {
        lone.hear(id, &update(&[], &[&[0x40, 1, 1, 9], AS_PATH, NEXT_HOP], NET));
        lone.hear(id, &update(&[], &[ORIGIN, AS_PATH, &[0x40, 3, 4, 127, 0, 0, 1]], NET));
    }
    let told = lone.told(EventKind::Malformed).len();
    assert!(told <= 2, "{told} events");
    assert_eq!(lone.status().faults.treat_as_withdraw, 2000);
}

#[test]
fn little_room_is_filled_by_little() {
    let mut lone = Lone::passive();
    let id = lone.establish(&open());
    lone.speaker.handle_writable(id, 0, lone.now);
    for number in 0..20_000u32 {
        let net = ipnet::Ipv4Net::new((0x0A00_0000 + (number << 8)).into(), 24).unwrap();
        lone.speaker.announce(&LocalRoute::of(net.into(), LocalKind::Network), lone.now);
    }
    lone.drain();
    let octets = |lone: &Lone| lone.sent.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
    let before = octets(&lone);
    lone.wait(SECOND);
    assert_eq!(octets(&lone), before);
    // Whoever has room for an octet gets no more than what is asked of the tables at once: two messages.
    lone.speaker.handle_writable(id, 1, lone.now);
    lone.drain();
    let sent = octets(&lone) - before;
    assert!((1000..8192).contains(&sent), "{sent}");
}

proptest! {
    /// Whatever arrives on an established session: nothing panics, what is due is in the future, and the session is
    /// there or ended with a NOTIFICATION.
    #[test]
    fn noise_on_a_session_is_survived(
        messages in proptest::collection::vec((1..6u8, proptest::collection::vec(any::<u8>(), 0..60)), 0..20),
        cut: bool,
    ) {
        let mut lone = Lone::passive();
        let id = lone.establish(&open());
        for (kind, body) in messages {
            let kind = MessageKind::ALL.into_iter().find(|k| k.number() == kind).unwrap();
            let mut bytes = message(kind, &body);
            if cut {
                bytes.pop();
            }
            lone.hear(id, &bytes);
        }
        prop_assert!(lone.speaker.poll_timeout().is_none_or(|deadline| deadline.at > lone.now));
        let ended = lone.closed.contains(&id);
        prop_assert_eq!(ended, lone.state() != State::Established);
        lone.wait(400 * SECOND);
        prop_assert!(lone.closed.contains(&id), "it has not been heard for long");
    }

    #[test]
    fn commands_in_any_order_are_survived(commands in proptest::collection::vec((0..9u8, any::<bool>()), 0..40), seed: u64) {
        let mut lone = Lone::with(neighbor(1));
        let mut random = Random::for_test(seed);
        let one = NeighborId(1);
        lone.wait(SECOND);
        for (command, flag) in commands {
            let now = lone.now;
            match command {
                0 => lone.speaker.set_reachable(one, flag, now),
                1 => lone.speaker.note_bfd_down(one, now),
                2 => lone.speaker.reset(one, now),
                3 => lone.speaker.set_draining(one, flag, now),
                4 => {
                    let it = Neighbor { passive: flag, families: if flag { Families::ALL } else { Families::IPV4 }, ..neighbor(1) };
                    prop_assert!(lone.speaker.upsert_neighbor(one, it, now).is_ok());
                }
                5 => lone.speaker.remove_neighbor(one, now),
                6 => {
                    if let Some(id) = lone.accept() {
                        lone.hear(id, &encode(&open()));
                        lone.hear(id, &keepalive());
                    }
                }
                7 => {
                    if let Some(id) = lone.dialled.last().copied() {
                        lone.speaker.handle_connect_failed(id, "refused", now);
                    }
                }
                _ => {
                    lone.speaker.refresh(one, now);
                }
            }
            lone.drain();
            lone.wait(SECOND * (random.below(20) as u32));
        }
        prop_assert!(lone.speaker.poll_timeout().is_none_or(|deadline| deadline.at > lone.now));
        // It can still be brought up.
        prop_assert!(lone.speaker.upsert_neighbor(one, neighbor(1), lone.now).is_ok());
        lone.speaker.set_reachable(one, true, lone.now);
        lone.speaker.reset(one, lone.now);
        lone.wait(SECOND);
        lone.establish(&open());
    }
}
