//! Which path is best, and which are as good.

use proptest::prelude::*;

use super::*;
use crate::rib::decision::{Candidate, select};
use crate::rib::routes::RouteId;

const NET: &str = "10.1.0.0/16";

/// What A's and B's routes are like, and whose is best. Both are the same but for what is written.
#[test]
fn the_first_difference_decides() {
    type Edit = fn(&mut Attributes);
    let rows: &[(&str, Edit, Edit, PeerId)] = &[
        ("the lower identifier", |_| {}, |_| {}, A),
        ("LOCAL_PREF of an external neighbour means nothing", |_| {}, |b| b.local_pref = Some(500), A),
        ("a shorter path", |a| a.as_path = attributes(&[1000, 7, 8]).as_path, |_| {}, B),
        ("the origin", |a| a.origin = Origin::Incomplete, |b| b.origin = Origin::Egp, B),
        ("MED of different ASes is not compared", |a| a.med = Some(50), |b| b.med = Some(10), A),
        (
            "a shorter path before the origin",
            |a| a.as_path = attributes(&[1000, 7, 8]).as_path,
            |b| b.origin = Origin::Incomplete,
            B,
        ),
        ("a cluster list of an external neighbour means nothing", |a| a.cluster_list = vec![[9; 4].into()], |_| {}, A),
        (
            "an originator of an external neighbour means nothing",
            |_| {},
            |b| b.originator_id = Some([0, 0, 0, 1].into()),
            A,
        ),
        ("graceful shutdown", |a| a.communities = vec![Community::GRACEFUL_SHUTDOWN], longer, B),
        ("long-lived stale", |a| a.communities = vec![Community::LLGR_STALE], longer, B),
    ];
    fn longer(b: &mut Attributes) {
        b.as_path = attributes(&[1100, 7, 8, 9]).as_path;
    }
    for (what, edit_a, edit_b, best) in rows {
        for order in [[A, B], [B, A]] {
            let mut rib = rib(&[A, B]);
            for peer in order {
                let mut route = attributes(&[asn_of(peer), 7]);
                if peer == A {
                    edit_a(&mut route)
                } else {
                    edit_b(&mut route)
                }
                rib.take(peer, NET, route);
            }
            assert_eq!(rib.changes(), [(NET.to_owned(), vec![*best])], "{what}");
        }
    }
}

#[test]
fn internal_routes_are_compared_by_what_internal_neighbours_say() {
    type Edit = fn(&mut Attributes);
    let rows: &[(&str, Edit, Edit, PeerId)] = &[
        ("the lower identifier", |_| {}, |_| {}, INTERNAL),
        ("LOCAL_PREF", |_| {}, |b| b.local_pref = Some(101), PeerId(2)),
        ("an absent LOCAL_PREF is the default", |a| a.local_pref = Some(99), |_| {}, PeerId(2)),
        ("MED of the same AS", |a| a.med = Some(1), |_| {}, PeerId(2)),
        ("the originator, not the neighbour", |_| {}, |b| b.originator_id = Some([1, 1, 0, 9].into()), PeerId(2)),
        (
            "the cluster list",
            |a| (a.originator_id, a.cluster_list) = (Some([1, 1, 1, 2].into()), vec![[9; 4].into()]),
            |_| {},
            PeerId(2),
        ),
        ("the address", |_| {}, |b| b.originator_id = Some([1, 1, 1, 1].into()), INTERNAL),
        ("a loop by originator", |a| a.originator_id = Some(options().router_id), |_| {}, PeerId(2)),
        ("a loop by cluster", |a| a.cluster_list = vec![options().router_id], |_| {}, PeerId(2)),
        (
            "graceful shutdown is the internal neighbour's own business",
            |a| a.communities = vec![Community::GRACEFUL_SHUTDOWN],
            |_| {},
            INTERNAL,
        ),
    ];
    for (what, edit_a, edit_b, best) in rows {
        let mut rib = rib(&[INTERNAL]);
        rib.upsert_peer(PeerId(2), PeerOptions { asn: OUR_AS, ..peer_options(PeerId(2)) });
        rib.peer_up(PeerId(2), session(PeerId(2)));
        for (peer, edit) in [(INTERNAL, edit_a), (PeerId(2), edit_b)] {
            let mut route = attributes(&[7, 8]);
            edit(&mut route);
            rib.take(peer, NET, route);
        }
        assert_eq!(rib.changes(), [(NET.to_owned(), vec![*best])], "{what}");
    }
}

#[test]
fn external_is_better_than_internal_and_our_own_best_of_all() {
    let mut rib = rib(&[A, INTERNAL]);
    rib.take(INTERNAL, NET, attributes(&[7]));
    assert_eq!(rib.changes(), [(NET.to_owned(), vec![INTERNAL])]);
    rib.take(A, NET, attributes(&[1000]));
    assert_eq!(rib.changes(), [(NET.to_owned(), vec![A])]);
    rib.take(INTERNAL, NET, Attributes { local_pref: Some(101), ..attributes(&[7]) });
    assert_eq!(rib.changes(), [(NET.to_owned(), vec![INTERNAL])]);
    let own = Arc::new(attributes(&[]));
    rib.announce(LocalKind::Connected, net(NET), None, &own);
    rib.announce(LocalKind::Static, net(NET), None, &own);
    let change = rib.poll_change().unwrap().route.unwrap();
    assert_eq!((change.source, change.next_hops), (Source::Local(LocalKind::Static), vec![]));
    let standings: Vec<_> = rib.lookup(net(NET)).into_iter().map(|path| (path.source, path.standing)).collect();
    let expected = [
        (Source::Local(LocalKind::Static), Standing::Best),
        (Source::Local(LocalKind::Connected), Standing::Valid),
        (Source::Peer(INTERNAL), Standing::Valid),
        (Source::Peer(A), Standing::Valid),
    ];
    assert_eq!(standings, expected);
    rib.withdraw_local(LocalKind::Connected, net(NET));
    assert_eq!(rib.changes(), []);
    rib.withdraw_local(LocalKind::Static, net(NET));
    assert_eq!(rib.changes(), [(NET.to_owned(), vec![INTERNAL])]);
}

/// The example that is known to oscillate where MED is compared in the order of arrival: two neighbours of one AS,
/// one of another between them.
#[test]
fn the_order_of_arrival_does_not_matter_to_med() {
    let twin = PeerId(9);
    let announce = |rib: &mut Rib, peer: PeerId| {
        let med = if peer == twin { 100 } else { 50 };
        rib.take(peer, NET, Attributes { med: Some(med), ..attributes(&[asn_of(peer), 7]) });
    };
    // The twin of C has the lowest identifier and the worse MED: it is out, and A is better than C.
    for order in [[A, C, twin], [A, twin, C], [C, A, twin], [C, twin, A], [twin, A, C], [twin, C, A]] {
        let mut rib = rib(&[A, C]);
        rib.upsert_peer(twin, PeerOptions { asn: asn_of(C), ..peer_options(twin) });
        rib.peer_up(twin, session(twin));
        for peer in order {
            let path = [asn_of(if peer == twin { C } else { peer }), 7];
            let med = if peer == twin { 100 } else { 50 };
            rib.take(peer, NET, Attributes { med: Some(med), ..attributes(&path) });
        }
        assert_eq!(rib.changes(), [(NET.to_owned(), vec![A])], "{order:?}");
    }
    let mut rib = rib_with(Options { always_compare_med: true, ..options() }, &[A, B]);
    announce(&mut rib, A);
    rib.take(B, NET, Attributes { med: Some(10), ..attributes(&[1100, 7]) });
    assert_eq!(rib.changes(), [(NET.to_owned(), vec![B])]);
    // None at all is the best.
    rib.take(A, NET, attributes(&[1000, 7]));
    assert_eq!(rib.changes(), [(NET.to_owned(), vec![A])]);
}

#[test]
fn equal_paths_are_used_together() {
    type Edit = fn(&mut Attributes);
    let rows: &[(&str, bool, usize, Edit, &[PeerId])] = &[
        ("lengths alone", true, 8, |_| {}, &[A, B]),
        ("contents too", false, 8, |_| {}, &[A]),
        ("a maximum of one", true, 1, |_| {}, &[A]),
        ("none counts as one", true, 0, |_| {}, &[A]),
        ("another MED", true, 8, |b| b.med = Some(1), &[A]),
        ("another origin", true, 8, |b| b.origin = Origin::Egp, &[A]),
        ("another length", true, 8, |b| b.as_path = attributes(&[1100, 7, 8]).as_path, &[A]),
    ];
    for (what, multipath_relax, max_paths, edit, used) in rows {
        let mut rib =
            rib_with(Options { multipath_relax: *multipath_relax, max_paths: *max_paths, ..options() }, &[A, B]);
        rib.take(A, NET, attributes(&[1000, 7]));
        let mut other = attributes(&[1100, 7]);
        edit(&mut other);
        rib.take(B, NET, other);
        assert_eq!(rib.changes(), [(NET.to_owned(), used.to_vec())], "{what}");
    }
}

#[test]
fn tunnels_of_one_site_share_the_load_until_one_fails() {
    let mut rib = rib_with(Options { max_paths: 2, ..options() }, &[]);
    let tunnels = [A, B, C];
    for peer in tunnels {
        rib.upsert_peer(peer, PeerOptions { asn: 64_512, ..peer_options(peer) });
        rib.peer_up(peer, session(peer));
        rib.take(peer, NET, attributes(&[64_512]));
    }
    let used = |peers: &[PeerId]| vec![(NET.to_owned(), peers.to_vec())];
    assert_eq!(rib.changes(), used(&[A, B]));
    rib.set_reachable(B, false);
    assert_eq!(rib.changes(), used(&[A, C]));
    let standings: Vec<_> = rib.lookup(net(NET)).into_iter().map(|path| path.standing).collect();
    assert_eq!(standings, [Standing::Best, Standing::Multipath, Standing::Unreachable]);
    rib.set_reachable(B, false);
    rib.lose(C, NET);
    rib.set_reachable(A, false);
    assert_eq!(rib.changes(), used(&[]));
    tunnels.into_iter().for_each(|peer| rib.set_reachable(peer, true));
    assert_eq!(rib.changes(), used(&[A, B]));
    // Coalesced, and unchanged in the end: nothing.
    rib.set_reachable(A, false);
    rib.set_reachable(A, true);
    assert_eq!(rib.changes(), []);
}

#[test]
fn other_options_decide_anew() {
    let mut rib = rib(&[A, B, INTERNAL]);
    rib.take(A, NET, attributes(&[1000, 7]));
    rib.take(B, NET, attributes(&[1100, 7]));
    assert_eq!((rib.changes(), rib.told(INTERNAL).len()), (vec![(NET.to_owned(), vec![A])], 1));
    rib.set_options(Options { max_paths: 2, multipath_relax: true, ..options() });
    assert_eq!((rib.changes(), rib.told(INTERNAL)), (vec![(NET.to_owned(), vec![A, B])], vec![]));
    rib.set_options(Options { local_pref: 50, ..options() });
    assert_eq!(rib.changes(), [(NET.to_owned(), vec![A])]);
    assert_eq!(rib.told(INTERNAL), ["+ 10.1.0.0/16 [1000, 7] via 169.254.0.10 lp 50"]);
    // The address is the last tie break.
    rib.peer_up(B, Session { router_id: session(A).router_id, ..session(B) });
    assert_eq!(rib.changes(), []);
    rib.upsert_peer(B, PeerOptions { address: [169, 254, 0, 1].into(), ..peer_options(B) });
    assert_eq!(rib.changes(), [(NET.to_owned(), vec![B])]);
}

#[test]
fn our_own_as_in_the_path_is_a_loop_unless_allowed() {
    let mut rib = rib(&[A]);
    for (allowed, path, standing) in [
        (0, vec![1000, OUR_AS], Standing::Rejected),
        (1, vec![1000, OUR_AS], Standing::Best),
        (1, vec![1000, OUR_AS, OUR_AS], Standing::Rejected),
        (2, vec![1000, OUR_AS, OUR_AS], Standing::Best),
    ] {
        rib.upsert_peer(A, PeerOptions { allow_own_as: allowed, ..peer_options(A) });
        rib.take(A, NET, attributes(&path));
        assert_eq!(rib.lookup(net(NET))[0].standing, standing, "{allowed} {path:?}");
    }
}

#[test]
fn the_longest_match_has_a_path() {
    let mut rib = rib(&[A]);
    rib.take(A, "10.0.0.0/8", attributes(&[1000]));
    rib.take(A, NET, attributes(&[1000]));
    assert_eq!(rib.longest_match([10, 1, 2, 3].into()), Some(net(NET)));
    rib.lose(A, NET);
    assert_eq!(rib.longest_match([10, 1, 2, 3].into()), Some(net("10.0.0.0/8")));
    assert_eq!(rib.longest_match([11, 1, 2, 3].into()), None);
    assert_eq!(rib.longest_match("2001:db8::1".parse().unwrap()), None);
}

/// Preference, length, neighbouring AS, MED, some rare things, identifier, kind.
type Row = (u32, u32, u32, u32, u32, u8, bool);

/// Whether their MED may be compared.
fn comparable(m: &Candidate<'_>, n: &Candidate<'_>, options: &Options) -> bool {
    options.always_compare_med || m.neighbor_as == n.neighbor_as
}

/// RFC 4271 §9.1.2.2 step by step, each removing routes from a set.
fn by_the_book(all: &[Candidate<'_>], options: &Options) -> u16 {
    fn keep<K: Ord>(left: Vec<Candidate<'_>>, key: impl Fn(&Candidate<'_>) -> K) -> Vec<Candidate<'_>> {
        let best = left.iter().map(&key).min().unwrap();
        left.into_iter().filter(|one| key(one) == best).collect()
    }
    let left = keep(keep(all.to_vec(), |one| one.is_long_lived_stale), |one| u32::MAX - one.local_pref);
    let left = keep(keep(left, |one| one.path_length), |one| one.origin);
    let beaten = |m: &Candidate<'_>| left.iter().any(|n| comparable(m, n, options) && n.med < m.med);
    let left = left.iter().filter(|m| !beaten(m)).copied().collect();
    let left = keep(keep(left, |one| one.is_internal), |one| one.router_id);
    keep(keep(left, |one| one.cluster_list_length), |one| one.address)[0].slot
}

proptest! {
    #[test]
    fn the_decision_is_that_of_the_book(
        rows in proptest::collection::vec((0u32..2, 0u32..2, 0u32..3, 0u32..3, 0u32..4, 0u8..3, any::<bool>()), 1..9),
        always_compare_med: bool, multipath_relax: bool, max_paths in 1usize..5,
    ) {
        let paths = [attributes(&[1]).as_path, attributes(&[2]).as_path];
        let options = Options { always_compare_med, multipath_relax, max_paths, ..options() };
        let candidate = |(slot, row): (u16, &Row)| {
            let &(local_pref, path_length, asn, med, bits, id, is_internal) = row;
            Candidate {
                slot,
                route: RouteId::NONE,
                local: None,
                is_long_lived_stale: bits == 3,
                local_pref,
                path_length,
                as_path: &paths[asn as usize % 2],
                origin: if bits == 1 { Origin::Egp } else { Origin::Igp },
                neighbor_as: asn,
                med,
                is_internal,
                router_id: [1, 1, 1, id].into(),
                cluster_list_length: usize::from(bits == 2),
                address: Some([9, 9, 9, slot as u8].into()),
            }
        };
        let all: Vec<_> = (0..).zip(&rows).map(candidate).collect();
        let mut sorted = all.clone();
        let used = select(&mut sorted, &options);
        prop_assert_eq!(sorted[0].slot, by_the_book(&all, &options));
        // Nothing is lost, and the order of arrival has no say.
        let mut reversed: Vec<_> = all.iter().rev().copied().collect();
        prop_assert_eq!(select(&mut reversed, &options), used);
        let slots = |of: &[Candidate<'_>]| of.iter().map(|one| one.slot).collect::<Vec<_>>();
        prop_assert_eq!(slots(&reversed), slots(&sorted));
        // The equal ones say of themselves what the best says, and no other of their AS has a better MED.
        let best = sorted[0];
        let head = |one: &Candidate<'_>| (one.is_long_lived_stale, one.local_pref, one.path_length, one.origin);
        let is_equal = |one: &&Candidate<'_>| {
            (head(one), one.med, one.is_internal)
                == (head(&best), best.med, best.is_internal)
                && (multipath_relax || one.as_path == best.as_path)
                && !all.iter().any(|n| head(n) == head(one) && comparable(n, one, &options) && n.med < one.med)
        };
        let equal = all.iter().filter(is_equal).count();
        prop_assert_eq!(used, equal.min(max_paths));
        prop_assert!(sorted[..used].iter().all(|one| is_equal(&one)));
    }
}
