//! Restarts of neighbours: what is kept, for how long, and what goes.

use super::*;

const NET: &str = "10.1.0.0/16";
const OTHER: &str = "10.2.0.0/16";
const SIX: &str = "2001:db8::/32";

/// A has announced NET, OTHER and SIX; all is reported.
fn settled() -> Rib {
    let mut rib = rib(&[A, B]);
    for prefix in [NET, OTHER, SIX] {
        rib.take(A, prefix, attributes(&[1000]));
    }
    assert_eq!(rib.changes().len(), 3);
    rib
}

fn gone(prefix: &str) -> (String, Vec<PeerId>) {
    (prefix.to_owned(), vec![])
}

#[test]
fn without_graceful_restart_everything_goes() {
    let mut rib = settled();
    rib.peer_down(A, Families::NONE);
    assert_eq!(rib.changes(), [gone(OTHER), gone(NET), gone(SIX)]);
    assert_eq!(rib.counts(A, Family::Ipv4), PrefixCounts::default());
    assert_eq!(rib.update(A, address(A), &Arc::new(attributes(&[1000])), [net(NET)]), UpdateVerdict::NotUp);
}

/// ```text
/// A -- (session lost, restarts) --> routes stay, stale
/// A -- UPDATE NET, End-of-RIB   --> NET stays, OTHER goes
/// ```
#[test]
fn a_restarted_neighbour_keeps_what_it_announces_again() {
    let mut rib = settled();
    rib.peer_down(A, Families::IPV4);
    assert_eq!(rib.changes(), [gone(SIX)]);
    assert_eq!(rib.counts(A, Family::Ipv4), PrefixCounts { received: 0, stale: 2, accepted: 2, advertised: 0 });
    assert!(rib.lookup(net(NET))[0].stale);
    rib.peer_up(A, session(A));
    rib.take(A, NET, attributes(&[1000]));
    rib.end_of_rib(A, Family::Ipv6);
    assert_eq!(rib.changes(), []);
    rib.end_of_rib(A, Family::Ipv4);
    assert_eq!(rib.changes(), [gone(OTHER)]);
    assert_eq!(rib.counts(A, Family::Ipv4), PrefixCounts { received: 1, stale: 0, accepted: 1, advertised: 0 });
    assert!(!rib.lookup(net(NET))[0].stale);
}

#[test]
fn what_was_stale_at_the_next_restart_goes() {
    let mut rib = settled();
    rib.peer_down(A, Families::ALL);
    // Said again of a neighbour that is down it is no restart.
    rib.peer_down(A, Families::ALL);
    rib.peer_up(A, session(A));
    rib.take(A, NET, attributes(&[1000]));
    rib.peer_down(A, Families::ALL);
    assert_eq!(rib.changes(), [gone(OTHER), gone(SIX)]);
    rib.sweep_stale(A);
    assert_eq!(rib.changes(), [gone(NET)]);
}

#[test]
fn stale_routes_of_a_family_that_is_no_longer_spoken_go() {
    let mut rib = settled();
    rib.peer_down(A, Families::ALL);
    rib.peer_up(A, Session { families: Families::IPV4, ..session(A) });
    assert_eq!(rib.changes(), [gone(SIX)]);
}

#[test]
fn a_route_that_changed_during_the_restart_is_a_change() {
    let mut rib = settled();
    rib.peer_down(A, Families::ALL);
    rib.peer_up(A, session(A));
    rib.take(A, NET, attributes(&[1000, 7]));
    assert_eq!(rib.changes(), [(NET.to_owned(), vec![A])]);
}

#[test]
fn a_long_lived_stale_route_is_the_last_resort() {
    let mut rib = rib(&[A, B, C]);
    rib.take(A, NET, attributes(&[1000]));
    rib.take(A, OTHER, Attributes { communities: vec![Community::NO_LLGR], ..attributes(&[1000]) });
    rib.take(B, NET, attributes(&[1100, 7, 8, 9]));
    assert_eq!(rib.changes(), [(NET.to_owned(), vec![A]), (OTHER.to_owned(), vec![A])]);
    rib.peer_down(A, Families::ALL);
    assert_eq!(rib.changes(), []);
    rib.retain_long_lived(A, Family::Ipv4);
    rib.retain_long_lived(A, Family::Ipv4);
    assert_eq!(rib.changes(), [gone(OTHER), (NET.to_owned(), vec![B])]);
    rib.lose(B, NET);
    let change = rib.poll_change().unwrap().route.unwrap();
    assert_eq!((change.source, &change.attributes.communities[..]), (Source::Peer(A), &[Community::LLGR_STALE][..]));
    assert_eq!(rib.told(C), [""; 0]);
    // A second restart does not end it; the route as it was before does.
    rib.peer_up(A, session(A));
    rib.peer_down(A, Families::ALL);
    assert_eq!(rib.changes(), []);
    rib.peer_up(A, session(A));
    rib.take(A, NET, attributes(&[1000]));
    let change = rib.poll_change().unwrap().route.unwrap();
    assert_eq!(change.attributes.communities, []);
    assert_eq!(rib.told(C), ["+ 10.1.0.0/16 [65000, 1000] via self"]);
}

#[test]
fn a_fresh_route_does_not_become_long_lived() {
    let mut rib = settled();
    rib.retain_long_lived(A, Family::Ipv4);
    assert_eq!(rib.changes(), []);
}

#[test]
fn a_refresh_takes_away_what_was_not_said_again() {
    let mut rib = settled();
    rib.mark_stale(A, Family::Ipv4);
    rib.take(A, OTHER, attributes(&[1000]));
    assert_eq!(rib.counts(A, Family::Ipv4), PrefixCounts { received: 1, stale: 1, accepted: 2, advertised: 0 });
    rib.end_of_rib(A, Family::Ipv4);
    assert_eq!(rib.changes(), [gone(NET)]);
    // A session lost in the middle of a refresh leaves stale what was still unsaid.
    rib.mark_stale(A, Family::Ipv4);
    rib.peer_down(A, Families::ALL);
    assert_eq!(rib.changes(), []);
    assert_eq!(rib.counts(A, Family::Ipv4).stale, 1);
}

#[test]
fn a_neighbour_under_another_identifier_is_weighed_anew() {
    let mut rib = rib(&[A, B]);
    rib.take(A, NET, attributes(&[1000]));
    rib.take(B, NET, attributes(&[1100]));
    assert_eq!(rib.changes(), [(NET.to_owned(), vec![A])]);
    rib.peer_down(A, Families::ALL);
    rib.peer_up(A, Session { router_id: [9, 9, 9, 9].into(), ..session(A) });
    assert_eq!(rib.changes(), [(NET.to_owned(), vec![B])]);
}

#[test]
fn fresh_and_long_lived_routes_with_the_same_attributes_go_through_policy_apart() {
    for fresh in [NET, OTHER] {
        let mut rib = settled();
        rib.peer_down(A, Families::ALL);
        rib.retain_long_lived(A, Family::Ipv4);
        rib.peer_up(A, session(A));
        rib.take(A, fresh, attributes(&[1000]));
        rib.upsert_peer(A, PeerOptions { allow_own_as: 1, ..peer_options(A) });
        for prefix in [NET, OTHER] {
            let accepted = rib.lookup(net(prefix)).remove(0).accepted.unwrap();
            assert_eq!(accepted.communities.is_empty(), prefix == fresh, "{prefix}");
        }
    }
}
