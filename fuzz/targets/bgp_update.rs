//! An octet that says what was agreed upon, and the body of an UPDATE. Nothing is announced with a fault worse than one
//! that discards an attribute; what is announced is of a family that both speak, by way of a host, and comes back from
//! our own encoding without a fault.
#![no_main]

use std::net::IpAddr;

use bgp::wire::{Approach, Prefixes, Session, Update, split, write_announcement};
use bgp::{Attributes, Families, Family};
use ipnet::IpNet;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((&choices, body)) = bytes.split_first() else { return };
    let chosen = |bit: u8| choices & 1 << bit != 0;
    let session = Session {
        four_octet_as: !chosen(0),
        is_internal: chosen(1),
        families: Families { ipv4: !chosen(2), ipv6: !chosen(3) },
        first_as: chosen(4).then_some(65000),
    };
    let update = match Update::decode(body, &session) {
        Ok(update) => update,
        Err(reset) => {
            assert_eq!(reset.notification.code.0, 3);
            return assert_eq!(reset.fault.approach, Approach::SessionReset);
        }
    };
    check_family(session, update.withdrawn);
    check_family(session, update.announced);
    update.unreachable.into_iter().for_each(|prefixes| check_family(session, prefixes));
    if let Some(family) = update.disabled {
        assert!(session.families == Families::ALL && update.attributes.is_none(), "{family:?}");
    }
    if update.end_of_rib.is_some() {
        assert!(update.announced.is_empty() && update.withdrawn.is_empty() && update.attributes.is_none());
    }
    let Some(attributes) = &update.attributes else { return };
    assert!(update.faults.iter().all(|fault| fault.approach == Approach::AttributeDiscard));
    assert!(session.is_internal || attributes.local_pref.is_none());
    if !update.announced.is_empty() {
        let next_hop = update.next_hop.expect("an IPv4 prefix has a NEXT_HOP").into();
        check_again(attributes, next_hop, update.announced.collect(), session);
    }
    if let Some((next_hop, prefixes)) = update.reachable {
        check_family(session, prefixes);
        check_again(attributes, next_hop, prefixes.collect(), session);
    }
});

fn check_family(session: Session, prefixes: Prefixes<'_>) {
    let family = prefixes.family();
    assert!(prefixes.is_empty() || session.families.contains(family));
    for net in prefixes {
        assert_eq!((Family::of(&net), net.trunc()), (family, net));
    }
}

/// What we would say of the same routes is understood as the same.
fn check_again(attributes: &Attributes, next_hop: IpAddr, nets: Vec<IpNet>, session: Session) {
    assert!(!next_hop.is_unspecified() && !next_hop.is_multicast() && !next_hop.is_loopback());
    let mut written = Vec::new();
    if write_announcement(&mut written, attributes, next_hop, &nets, true).is_err() {
        return assert!(written.is_empty());
    }
    let session = Session { four_octet_as: true, ..session };
    let (mut rest, mut found) = (&written[..], Vec::new());
    while let Some((message, tail)) = split(rest).expect("our own messages") {
        let update = Update::decode(message.body, &session).expect("our own message");
        assert!(update.faults.is_empty(), "{:?}", update.faults);
        assert_eq!(update.attributes.as_deref(), Some(attributes));
        found.extend(update.announced.chain(update.reachable.into_iter().flat_map(|(_, prefixes)| prefixes)));
        rest = tail;
    }
    assert!(rest.is_empty());
    assert_eq!(found, nets);
}
