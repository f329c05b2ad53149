//! Limits, neighbours that come and go, and what is left behind.

use super::*;

fn limited(limit: u32, warn_at: u32) -> Rib {
    let mut rib = rib(&[A, B]);
    rib.upsert_peer(A, PeerOptions { max_prefixes: Some(MaxPrefixes { limit, warn_at }), ..peer_options(A) });
    rib
}

fn offer(rib: &mut Rib, numbers: std::ops::Range<u8>) -> UpdateVerdict {
    let prefixes = numbers.map(|number| net(&format!("10.{number}.0.0/16")));
    rib.update(A, address(A), &Arc::new(attributes(&[1000])), prefixes)
}

#[test]
fn too_many_prefixes_end_the_session() {
    let mut rib = limited(4, 3);
    let (family, limit) = (Family::Ipv4, 4);
    assert_eq!(offer(&mut rib, 0..2), UpdateVerdict::Kept);
    assert_eq!(offer(&mut rib, 2..4), UpdateVerdict::Warning { family, count: 3, limit });
    // Said once; the same ones again are not more.
    assert_eq!(offer(&mut rib, 0..4), UpdateVerdict::Kept);
    assert_eq!(offer(&mut rib, 3..9), UpdateVerdict::Exceeded { family, limit });
    assert_eq!(rib.counts(A, family).received, 4);
    assert_eq!(rib.changes().len(), 4);
    rib.withdraw(A, [net("10.0.0.0/16"), net("10.1.0.0/16")]);
    assert_eq!(offer(&mut rib, 0..1), UpdateVerdict::Warning { family, count: 3, limit });
    // The other family has a limit of its own.
    rib.take(A, "2001:db8::/32", attributes(&[1000]));
}

#[test]
fn stale_routes_leave_room_for_as_many_fresh_ones() {
    let mut rib = limited(2, 9);
    assert_eq!(offer(&mut rib, 0..2), UpdateVerdict::Kept);
    rib.peer_down(A, Families::ALL);
    rib.peer_up(A, session(A));
    assert_eq!(offer(&mut rib, 1..3), UpdateVerdict::Kept);
    assert_eq!(rib.counts(A, Family::Ipv4), PrefixCounts { received: 2, stale: 1, accepted: 3, advertised: 0 });
    assert_eq!(offer(&mut rib, 0..1), UpdateVerdict::Exceeded { family: Family::Ipv4, limit: 2 });
}

#[test]
fn what_policy_rejects_counts_as_received() {
    let mut rib = limited(1, 9);
    rib.set_policy(A, Arc::default(), accept());
    assert_eq!(offer(&mut rib, 0..2), UpdateVerdict::Exceeded { family: Family::Ipv4, limit: 1 });
    assert_eq!(rib.counts(A, Family::Ipv4), PrefixCounts { received: 1, stale: 0, accepted: 0, advertised: 0 });
    assert_eq!(
        rib.received(A).map(|(prefix, path)| (prefix, path.accepted)).collect::<Vec<_>>(),
        [(net("10.0.0.0/16"), None)]
    );
}

#[test]
fn a_new_neighbour_in_an_old_place_is_another_one() {
    let mut rib = rib(&[A, B]);
    rib.take(A, "10.1.0.0/16", attributes(&[7]));
    assert_eq!(rib.changes().len(), 1);
    rib.remove_peer(A);
    rib.upsert_peer(C, PeerOptions { address: address(A), ..peer_options(C) });
    rib.peer_up(C, session(A));
    let verdict = rib.update(C, address(A), &Arc::new(attributes(&[7])), [net("10.1.0.0/16")]);
    assert_eq!(verdict, UpdateVerdict::Kept);
    assert_eq!(rib.changes(), [("10.1.0.0/16".to_owned(), vec![C])]);
    rib.upsert_peer(A, peer_options(A));
    assert_eq!(rib.peers.len(), LOCALS.len() + 3, "the place of A was used again");
}

#[test]
fn another_as_is_another_neighbour() {
    let mut rib = rib(&[A, B]);
    rib.take(A, "10.1.0.0/16", attributes(&[1000]));
    assert_eq!(rib.changes().len(), 1);
    rib.upsert_peer(A, PeerOptions { asn: 77, ..peer_options(A) });
    assert_eq!(rib.changes(), [("10.1.0.0/16".to_owned(), vec![])]);
    assert_eq!(rib.update(A, address(A), &Arc::new(attributes(&[77])), [net("10.1.0.0/16")]), UpdateVerdict::NotUp);
}

#[test]
fn there_is_an_end_to_neighbours() {
    let mut rib = Rib::new(options());
    for number in 0..MOST_PEERS as u32 {
        assert!(rib.upsert_peer(PeerId(number), peer_options(A)));
    }
    assert!(!rib.upsert_peer(PeerId(u32::MAX), peer_options(A)));
    rib.remove_peer(PeerId(5));
    assert!(!rib.upsert_peer(PeerId(u32::MAX), peer_options(A)));
    assert_eq!(rib.poll_change(), None);
    assert!(rib.upsert_peer(PeerId(u32::MAX), peer_options(A)));
}

#[test]
fn prefixes_that_nobody_has_any_more_are_forgotten() {
    let mut rib = rib(&[A, B]);
    for round in 0..20_u8 {
        for number in 0..250_u8 {
            rib.take(A, &format!("10.{round}.{number}.0/24"), attributes(&[1000, u32::from(number)]));
        }
        assert_eq!(rib.told(B).len(), 250);
        for number in 0..250_u8 {
            rib.lose(A, &format!("10.{round}.{number}.0/24"));
        }
        // A message cannot have more than a hundred here.
        assert_eq!((rib.told(B).len(), rib.told(A).len()), (3, 0));
    }
    rib.changes();
    assert!(rib.tables[0].bound() < 2_000, "{}", rib.tables[0].bound());
    // The default route of each neighbour that is promised one.
    assert_eq!(rib.attribute_count(), 1);
    assert_eq!((rib.prefixes(Family::Ipv4), rib.lookup(net("10.0.0.0/24"))), (vec![], vec![]));
}

#[test]
fn views_are_in_order() {
    let mut rib = rib(&[A, B]);
    let prefixes = ["10.2.0.0/16", "10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/0", "2001:db8:1::/48", "2001:db8::/32"];
    prefixes.iter().for_each(|prefix| rib.take(A, prefix, attributes(&[1000])));
    assert_eq!(rib.told(B).len(), 2);
    let sorted = ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.2.0.0/16", "2001:db8::/32", "2001:db8:1::/48"].map(net);
    assert_eq!(rib.prefixes(Family::Ipv4), sorted[..4]);
    assert_eq!(rib.received(A).map(|(prefix, _)| prefix).collect::<Vec<_>>(), sorted);
    assert_eq!(rib.advertised(B).map(|(prefix, ..)| prefix).collect::<Vec<_>>(), sorted);
    assert_eq!((rib.received(B).count(), rib.advertised(A).count()), (0, 0));
}

/// `count` prefixes of 10.0.0.0/8 for 10 and so on.
fn many(first: u8, count: u32) -> impl Iterator<Item = IpNet> {
    (0..count).map(move |number| net(&format!("{first}.{}.{}.0/24", number / 250, number % 250)))
}

/// A neighbour that is slow to take what it is told knows prefixes that nobody else knows any more.
#[test]
fn a_prefix_is_not_forgotten_before_the_last_neighbour_was_told() {
    let mut rib = rib(&[A, B]);
    let announce = |rib: &mut Rib, first, count| {
        let verdict = rib.update(A, address(A), &Arc::new(attributes(&[1000])), many(first, count));
        assert_eq!((verdict, rib.changes().len()), (UpdateVerdict::Kept, count as usize));
    };
    let withdraw = |rib: &mut Rib, first, count| {
        rib.withdraw(A, many(first, count));
        assert_eq!(rib.changes().len(), count as usize);
    };
    announce(&mut rib, 10, 1_500);
    assert_eq!(rib.told(B).len(), 15);
    withdraw(&mut rib, 10, 1_500);
    let mut known: std::collections::BTreeSet<_> = many(10, 1_500).collect();
    let Some(Advertisement::Withdraw { prefixes, .. }) = rib.next_advertisement(B, 1) else {
        panic!("nothing is told")
    };
    prefixes.iter().for_each(|prefix| assert!(known.remove(prefix)));
    announce(&mut rib, 20, 1_100);
    withdraw(&mut rib, 20, 1_100);
    announce(&mut rib, 30, 1_500);
    while let Some(part) = rib.next_advertisement(B, 100) {
        match part {
            Advertisement::Announce { prefixes, .. } => prefixes.into_iter().for_each(|one| assert!(known.insert(one))),
            Advertisement::Withdraw { prefixes, .. } => prefixes.iter().for_each(|one| assert!(known.remove(one))),
        }
    }
    assert!(known.into_iter().eq(many(30, 1_500)));
}

#[test]
fn the_default_route_keeps_its_place() {
    let mut rib = rib(&[A, B]);
    rib.take(A, "0.0.0.0/0", attributes(&[1000]));
    assert_eq!(rib.told(B).len(), 1);
    rib.lose(A, "0.0.0.0/0");
    // Many come and go, and take the places of those that are forgotten.
    for first in 10..20 {
        let verdict = rib.update(A, address(A), &Arc::new(attributes(&[1000])), many(first, 1_500 + u32::from(first)));
        assert_eq!((verdict, rib.told(A).len()), (UpdateVerdict::Kept, 0));
        rib.told(B);
        rib.withdraw(A, many(first, 2_000));
        assert_eq!((rib.told(A).len(), rib.told(B).len()), (0, 16));
    }
    assert!(rib.tables[0].bound() < 5_000, "{}", rib.tables[0].bound());
    rib.upsert_peer(B, PeerOptions { default_originate: true, ..peer_options(B) });
    assert_eq!(rib.told(B), ["+ 0.0.0.0/0 [65000] via self", "+ ::/0 [65000] via self"]);
}
