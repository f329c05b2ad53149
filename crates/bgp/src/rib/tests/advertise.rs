//! What neighbours are told.

use super::*;
use crate::policy::{Action, Match, PrefixEntry, PrefixList, Rule, Verdict};

const NET: &str = "10.1.0.0/16";

fn rules(actions: Vec<Action>) -> Arc<Policy> {
    Arc::new(Policy::Rules(vec![Rule { when: Vec::new(), then: Verdict::Accept(actions) }]))
}

#[test]
fn a_route_goes_to_everyone_but_where_it_came_from() {
    let mut rib = rib(&[A, B, INTERNAL]);
    rib.take(A, NET, Attributes { med: Some(5), ..attributes(&[1000, 7]) });
    assert_eq!(rib.told(A), [""; 0]);
    assert_eq!(rib.told(B), ["+ 10.1.0.0/16 [65000, 1000, 7] via self"]);
    assert_eq!(rib.told(INTERNAL), ["+ 10.1.0.0/16 [1000, 7] via 169.254.0.10 lp 100 med 5"]);
    assert_eq!(rib.counts(B, Family::Ipv4).advertised, 1);
    rib.lose(A, NET);
    assert_eq!((rib.told(A), rib.told(B)), (vec![], vec!["- 10.1.0.0/16".to_owned()]));
    assert_eq!(rib.counts(B, Family::Ipv4).advertised, 0);
}

#[test]
fn what_an_internal_neighbour_told_is_not_for_another() {
    let other = PeerId(2);
    let mut rib = rib(&[A, INTERNAL]);
    assert!(rib.upsert_peer(other, PeerOptions { asn: OUR_AS, ..peer_options(other) }));
    rib.peer_up(other, session(other));
    rib.take(
        INTERNAL,
        NET,
        Attributes { local_pref: Some(200), originator_id: Some([9; 4].into()), ..attributes(&[7]) },
    );
    assert_eq!(rib.told(other), [""; 0]);
    assert_eq!(rib.told(A), ["+ 10.1.0.0/16 [65000, 7] via self"]);
    assert_eq!(rib.advertised(A).next().unwrap().1.originator_id, None);
}

#[test]
fn nothing_is_told_before_it_was_reported() {
    let mut rib = rib(&[A, B]);
    rib.take(A, NET, attributes(&[1000]));
    assert!(rib.next_advertisement(B, 10).is_none());
    assert!(rib.poll_change().is_some());
    assert!(rib.has_advertisement(B));
    assert!(rib.next_advertisement(B, 10).is_some());
}

#[test]
fn an_unchanged_route_is_told_once_whatever_happens_to_it() {
    let mut rib = rib(&[A, B]);
    rib.take(A, NET, attributes(&[1000]));
    assert_eq!((rib.told(B).len(), rib.changes().len()), (1, 0));
    rib.take(A, NET, attributes(&[1000]));
    rib.lose(A, NET);
    rib.take(A, NET, attributes(&[1000]));
    assert_eq!((rib.changes(), rib.told(B)), (vec![], vec![]));
    // The other tunnel of the same site takes over: the route looks the same from here.
    let twin = PeerId(13);
    rib.upsert_peer(twin, PeerOptions { asn: 1000, ..peer_options(twin) });
    rib.peer_up(twin, session(twin));
    rib.take(twin, NET, attributes(&[1000]));
    rib.lose(A, NET);
    assert_eq!(rib.changes(), [(NET.to_owned(), vec![twin])]);
    assert_eq!(rib.told(B), [""; 0]);
    // The one that lost it learns of it, the one that has it must not.
    assert_eq!(rib.told(A), ["+ 10.1.0.0/16 [65000, 1000] via self"]);
    rib.take(A, NET, attributes(&[1000]));
    assert_eq!(rib.told(A), ["- 10.1.0.0/16"]);
    assert_eq!(rib.told(twin), ["+ 10.1.0.0/16 [65000, 1000] via self"]);
}

#[test]
fn prefixes_with_the_same_attributes_go_together_and_withdrawals_first() {
    let mut rib = rib(&[A, B]);
    for (third, path) in [(1, 7), (2, 8), (3, 7), (4, 8), (5, 7)] {
        rib.take(A, &format!("10.0.{third}.0/24"), attributes(&[1000, path]));
    }
    rib.take(A, "2001:db8::/32", attributes(&[1000, 7]));
    std::iter::from_fn(|| rib.poll_change()).for_each(drop);
    let parts: Vec<_> = std::iter::from_fn(|| rib.next_advertisement(B, 2)).map(|part| line(&part)).collect();
    let expected = [
        "+ 10.0.1.0/24 10.0.3.0/24 [65000, 1000, 7] via self",
        "+ 10.0.5.0/24 [65000, 1000, 7] via self",
        "+ 10.0.2.0/24 10.0.4.0/24 [65000, 1000, 8] via self",
        "+ 2001:db8::/32 [65000, 1000, 7] via self",
    ];
    assert_eq!(parts, expected);
    rib.take(A, "10.0.1.0/24", attributes(&[1000, 9]));
    rib.lose(A, "10.0.5.0/24");
    assert_eq!(rib.told(B), ["- 10.0.5.0/24", "+ 10.0.1.0/24 [65000, 1000, 9] via self"]);
}

#[test]
fn a_family_that_the_session_does_not_speak_is_not_told() {
    let mut rib = rib(&[A]);
    rib.upsert_peer(B, peer_options(B));
    rib.peer_up(B, Session { families: Families::IPV6, ..session(B) });
    rib.take(A, NET, attributes(&[1000]));
    rib.take(A, "2001:db8::/32", attributes(&[1000]));
    assert_eq!(rib.told(B), ["+ 2001:db8::/32 [65000, 1000] via self"]);
}

#[test]
fn communities_keep_routes_inside() {
    let with = |community| Attributes { communities: vec![community], ..attributes(&[1000]) };
    for (community, external, internal) in [
        (Community::NO_ADVERTISE, 0, 0),
        (Community::NO_EXPORT, 0, 1),
        (Community::NO_EXPORT_SUBCONFED, 0, 1),
        (Community::LLGR_STALE, 0, 0),
        (Community(1), 1, 1),
    ] {
        let mut rib = rib(&[A, B, INTERNAL]);
        rib.take(A, NET, with(community));
        assert_eq!((rib.told(B).len(), rib.told(INTERNAL).len()), (external, internal), "{community:?}");
    }
    let mut rib = rib(&[A]);
    rib.upsert_peer(B, peer_options(B));
    rib.peer_up(B, Session { long_lived: true, ..session(B) });
    rib.take(A, NET, with(Community::LLGR_STALE));
    assert_eq!(rib.told(B), ["+ 10.1.0.0/16 [65000, 1000] via self 65535:6"]);
}

#[test]
fn no_policy_no_routes() {
    let mut rib = rib(&[A]);
    rib.upsert_peer(
        B,
        PeerOptions { import: Arc::default(), export: Arc::default(), default_originate: true, ..peer_options(B) },
    );
    rib.peer_up(B, session(B));
    rib.take(A, NET, attributes(&[1000]));
    rib.take(B, "10.2.0.0/16", attributes(&[1100]));
    assert_eq!((rib.told(A), rib.told(B)), (vec![], vec![]));
    assert_eq!(rib.lookup(net("10.2.0.0/16"))[0].standing, Standing::Rejected);
    // What was received is still there when a policy is written.
    rib.set_policy(B, accept(), accept());
    assert_eq!(rib.told(A), ["+ 10.2.0.0/16 [65000, 1100] via self"]);
    let default = "+ 0.0.0.0/0 [65000] via self".to_owned();
    assert_eq!(rib.told(B), [default, "+ 10.1.0.0/16 [65000, 1000] via self".into(), "+ ::/0 [65000] via self".into()]);
}

#[test]
fn a_changed_export_policy_tells_the_difference() {
    let mut rib = rib(&[A, B, C]);
    rib.take(A, "10.1.0.0/16", attributes(&[1000]));
    rib.take(A, "10.2.0.0/16", attributes(&[1000, 7]));
    assert_eq!((rib.told(B).len(), rib.told(C).len()), (2, 2));
    let only = |text: &str| {
        let entry = PrefixEntry { sequence: 5, permit: true, within: net(text), ge: None, le: None };
        let when = vec![Match::Prefix(Arc::new(PrefixList::new([entry])))];
        Arc::new(Policy::Rules(vec![Rule { when, then: Verdict::Accept(vec![Action::SetMed(Some(9))]) }]))
    };
    rib.set_policy(B, accept(), only("10.1.0.0/16"));
    assert_eq!(rib.told(B), ["- 10.2.0.0/16", "+ 10.1.0.0/16 [65000, 1000] via self med 9"]);
    rib.set_policy(B, accept(), only("10.2.0.0/16"));
    assert_eq!(rib.told(B), ["- 10.1.0.0/16", "+ 10.2.0.0/16 [65000, 1000, 7] via self med 9"]);
    // Written differently, it means the same.
    let twice = vec![Action::SetMed(Some(8)), Action::SetMed(Some(9))];
    let mut again = Policy::clone(&only("10.2.0.0/16"));
    if let Policy::Rules(rules) = &mut again {
        rules[0].then = Verdict::Accept(twice);
    }
    rib.set_policy(B, accept(), Arc::new(again));
    assert_eq!((rib.told(B), rib.told(C)), (vec![], vec![]));
}

#[test]
fn a_changed_import_policy_needs_no_refresh() {
    let mut rib = rib(&[A, B]);
    rib.take(A, NET, attributes(&[1000]));
    rib.take(B, NET, attributes(&[1100, 7]));
    assert_eq!(rib.changes(), [(NET.to_owned(), vec![A])]);
    rib.set_policy(B, rules(vec![Action::SetLocalPref(200)]), accept());
    assert_eq!(rib.changes(), [(NET.to_owned(), vec![B])]);
    let shown: Vec<_> = rib.lookup(net(NET)).into_iter().map(|path| (path.source, path.received.local_pref)).collect();
    assert_eq!(shown, [(Source::Peer(B), None), (Source::Peer(A), None)]);
    rib.set_policy(B, accept(), accept());
    assert_eq!(rib.changes(), [(NET.to_owned(), vec![A])]);
}

#[test]
fn actions_change_what_goes_out() {
    let two = |upper: u32, lower: u32| Community(upper << 16 | lower);
    let actions = vec![
        Action::Prepend(2),
        Action::SetMed(Some(30)),
        Action::SetLocalPref(300),
        Action::RemoveCommunities(vec![two(1, 1)]),
        Action::AddCommunities(vec![two(3, 3), two(2, 2)]),
    ];
    let mut rib = rib(&[A, B, INTERNAL]);
    rib.take(A, NET, Attributes { communities: vec![two(1, 1), two(4, 4)], ..attributes(&[1000]) });
    for peer in [B, INTERNAL] {
        rib.set_policy(peer, accept(), rules(actions.clone()));
    }
    assert_eq!(rib.told(B), ["+ 10.1.0.0/16 [65000, 65000, 65000, 1000] via self med 30 2:2 3:3 4:4"]);
    assert_eq!(rib.told(INTERNAL), ["+ 10.1.0.0/16 [1000] via 169.254.0.10 lp 300 med 30 2:2 3:3 4:4"]);
    rib.set_policy(B, accept(), rules(vec![Action::SetNextHop([10, 9, 9, 9].into())]));
    assert_eq!(rib.told(B), ["+ 10.1.0.0/16 [65000, 1000] via 10.9.9.9 1:1 4:4"]);
}

#[test]
fn options_of_a_neighbour_change_what_it_is_told() {
    let mut rib = rib(&[A, B, INTERNAL]);
    rib.take(A, NET, attributes(&[1000, 64_512, 7, 4_200_000_000]));
    assert_eq!((rib.told(B).len(), rib.told(INTERNAL).len()), (1, 1));
    rib.upsert_peer(B, PeerOptions { remove_private_as: true, ..peer_options(B) });
    assert_eq!(rib.told(B), ["+ 10.1.0.0/16 [65000, 1000, 7] via self"]);
    rib.upsert_peer(INTERNAL, PeerOptions { next_hop_self: true, ..peer_options(INTERNAL) });
    assert_eq!(rib.told(INTERNAL), ["+ 10.1.0.0/16 [1000, 64512, 7, 4200000000] via self lp 100"]);
}

#[test]
fn another_as_of_ours_is_what_the_neighbour_sees() {
    let mut rib = rib(&[A]);
    rib.upsert_peer(B, PeerOptions { local_as: 64_999, ..peer_options(B) });
    rib.peer_up(B, session(B));
    rib.take(A, NET, attributes(&[1000]));
    assert_eq!(rib.told(B), ["+ 10.1.0.0/16 [64999, 1000] via self"]);
    for own in [OUR_AS, 64_999] {
        rib.take(B, "10.2.0.0/16", attributes(&[1100, own]));
        assert_eq!(rib.lookup(net("10.2.0.0/16"))[0].standing, Standing::Rejected, "{own}");
    }
}

#[test]
fn routes_of_our_own_keep_their_med_and_come_from_us() {
    let mut rib = rib(&[A, INTERNAL]);
    let own = Arc::new(Attributes { med: Some(7), ..attributes(&[]) });
    rib.announce(LocalKind::Static, net(NET), Some([192, 168, 0, 9].into()), &own);
    assert_eq!(rib.told(A), ["+ 10.1.0.0/16 [65000] via self med 7"]);
    assert_eq!(rib.told(INTERNAL), ["+ 10.1.0.0/16  via self lp 100 med 7"]);
    rib.withdraw_local(LocalKind::Network, net(NET));
    assert_eq!(rib.told(A), [""; 0]);
    rib.withdraw_local(LocalKind::Static, net(NET));
    assert_eq!(rib.told(A), ["- 10.1.0.0/16"]);
}

#[test]
fn a_default_route_goes_to_whom_it_is_promised() {
    let mut rib = rib(&[A, B, C]);
    rib.upsert_peer(B, PeerOptions { default_originate: true, ..peer_options(B) });
    assert_eq!(rib.told(B), ["+ 0.0.0.0/0 [65000] via self", "+ ::/0 [65000] via self"]);
    rib.take(A, "0.0.0.0/0", attributes(&[1000]));
    assert_eq!((rib.told(B), rib.told(C)), (vec![], vec!["+ 0.0.0.0/0 [65000, 1000] via self".to_owned()]));
    rib.upsert_peer(B, peer_options(B));
    assert_eq!(
        rib.told(B),
        ["- ::/0", "+ 0.0.0.0/0 [65000, 1000] via self"].map(String::from).into_iter().rev().collect::<Vec<_>>()
    );
    rib.lose(A, "0.0.0.0/0");
    assert_eq!((rib.told(B), rib.told(C)), (vec!["- 0.0.0.0/0".to_owned()], vec!["- 0.0.0.0/0".to_owned()]));
}

#[test]
fn before_a_planned_end_neighbours_are_asked_to_go_elsewhere() {
    let mut rib = rib(&[A, B, INTERNAL]);
    rib.take(A, NET, attributes(&[1000]));
    rib.take(B, NET, attributes(&[1100, 7, 8]));
    assert_eq!(rib.changes(), [(NET.to_owned(), vec![A])]);
    assert_eq!((rib.told(B).len(), rib.told(INTERNAL).len()), (1, 1));
    rib.set_draining(A, true);
    assert_eq!(rib.changes(), [(NET.to_owned(), vec![B])]);
    assert_eq!(rib.told(A), ["+ 10.1.0.0/16 [65000, 1100, 7, 8] via self 65535:0"]);
    assert_eq!((rib.told(B), rib.told(INTERNAL).len()), (vec!["- 10.1.0.0/16".to_owned()], 1));
    rib.set_draining(INTERNAL, true);
    assert_eq!(rib.told(INTERNAL), ["+ 10.1.0.0/16 [1100, 7, 8] via 169.254.0.11 lp 0 65535:0"]);
    rib.set_draining(A, false);
    assert_eq!(rib.changes(), [(NET.to_owned(), vec![A])]);
    assert_eq!(rib.told(A), ["- 10.1.0.0/16"]);
}

#[test]
fn a_neighbour_that_asks_again_is_told_again() {
    let mut rib = rib(&[A, B]);
    rib.take(A, NET, attributes(&[1000]));
    let first = rib.told(B);
    rib.readvertise(B, Family::Ipv6);
    assert_eq!(rib.told(B), [""; 0]);
    rib.readvertise(B, Family::Ipv4);
    assert_eq!(rib.told(B), first);
    rib.peer_down(B, Families::ALL);
    assert!(!rib.has_advertisement(B) && rib.next_advertisement(B, 1).is_none());
    rib.peer_up(B, session(B));
    assert_eq!(rib.told(B), first);
}

#[test]
fn how_a_route_looks_is_known_of_itself_and_not_of_whoever_had_its_place() {
    let third = PeerId(22);
    let mut rib = rib(&[A, B, third]);
    for hop in [7, 8, 9] {
        rib.take(A, NET, attributes(&[1000, hop]));
        let told = format!("+ 10.1.0.0/16 [65000, 1000, {hop}] via self");
        assert_eq!((rib.told(B), rib.told(third)), (vec![told.clone()], vec![told]));
        rib.lose(A, NET);
        assert_eq!((rib.told(B).len(), rib.told(third).len()), (1, 1));
    }
}

#[test]
fn a_group_of_one_that_grows_tells_what_the_first_announced() {
    let mut rib = rib(&[A]);
    rib.take(A, NET, attributes(&[1000]));
    assert_eq!(rib.told(A), [""; 0]);
    rib.upsert_peer(B, peer_options(B));
    rib.peer_up(B, session(B));
    assert_eq!(rib.told(B), ["+ 10.1.0.0/16 [65000, 1000] via self"]);
    assert_eq!(rib.advertised(B).map(|(prefix, ..)| prefix).collect::<Vec<_>>(), [net(NET)]);
    rib.peer_down(B, Families::NONE);
    rib.peer_up(B, session(B));
    rib.peer_down(A, Families::NONE);
    assert_eq!(rib.told(B), [""; 0]);
}

#[test]
fn extended_communities_that_stay_within_the_as_do() {
    let mut rib = rib(&[A, B, INTERNAL]);
    let extended_communities = vec![[0, 2, 0, 0, 0, 0, 0, 1], [0x40, 2, 0, 0, 0, 0, 0, 1]];
    rib.take(A, NET, Attributes { extended_communities: extended_communities.clone(), ..attributes(&[1000]) });
    assert_eq!((rib.told(B).len(), rib.told(INTERNAL).len()), (1, 1));
    let seen = |peer| rib.advertised(peer).next().unwrap().1.extended_communities.clone();
    assert_eq!((seen(B), seen(INTERNAL)), (extended_communities[..1].to_vec(), extended_communities));
}
