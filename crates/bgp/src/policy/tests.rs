//! Tests of policy: prefix lists, conditions, actions.

use proptest::prelude::*;

use super::*;
use crate::{AsPath, Origin};

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn entry(sequence: u32, permit: bool, within: &str, ge: Option<u8>, le: Option<u8>) -> PrefixEntry {
    PrefixEntry { sequence, permit, within: net(within), ge, le }
}

fn attributes() -> Attributes {
    Attributes {
        origin: Origin::Igp,
        as_path: AsPath(vec![10, 20, 30]),
        med: Some(1),
        local_pref: None,
        atomic_aggregate: false,
        aggregator: None,
        communities: vec![Community(1), Community(5)],
        extended_communities: Vec::new(),
        large_communities: vec![large(1), large(5)],
        originator_id: None,
        cluster_list: Vec::new(),
        unknown: Vec::new(),
    }
}

const fn large(global: u32) -> LargeCommunity {
    LargeCommunity { global, local1: 0, local2: 0 }
}

#[test]
fn ge_and_le_bound_the_length() {
    let rows = [
        (None, None, vec!["10.0.0.0/8"], vec!["10.0.0.0/9", "0.0.0.0/0", "11.0.0.0/8", "::/8"]),
        (Some(24), None, vec!["10.1.1.0/24", "10.1.1.1/32"], vec!["10.0.0.0/8", "10.1.0.0/23", "11.1.1.0/24"]),
        (None, Some(16), vec!["10.0.0.0/8", "10.1.0.0/16"], vec!["10.1.0.0/17", "8.0.0.0/7"]),
        (Some(16), Some(24), vec!["10.1.0.0/16", "10.1.1.0/24"], vec!["10.0.0.0/15", "10.1.1.0/25"]),
    ];
    for (ge, le, inside, outside) in rows {
        let entry = entry(5, true, "10.0.0.0/8", ge, le);
        inside.iter().for_each(|text| assert!(entry.matches(&net(text)), "{ge:?} {le:?} {text}"));
        outside.iter().for_each(|text| assert!(!entry.matches(&net(text)), "{ge:?} {le:?} {text}"));
    }
    assert!(entry(5, true, "2001:db8::/32", Some(48), None).matches(&net("2001:db8:1::/128")));
}

#[test]
fn the_first_entry_in_sequence_decides() {
    let list = PrefixList::new([
        entry(20, true, "10.0.0.0/8", None, Some(32)),
        entry(10, false, "10.1.0.0/16", None, Some(32)),
        entry(5, true, "10.1.1.0/24", None, None),
        entry(5, false, "10.1.1.0/24", None, None),
    ]);
    for (text, permitted) in [
        ("10.2.0.0/16", true),
        ("10.1.2.0/24", false),
        ("10.1.1.0/24", true),
        ("10.1.1.0/25", false),
        ("11.0.0.0/8", false),
    ] {
        assert_eq!(list.permits(&net(text)), permitted, "{text}");
    }
    assert!(!PrefixList::default().permits(&net("10.0.0.0/8")));
}

#[test]
fn conditions_say_what_they_see() {
    let list = Arc::new(PrefixList::new([entry(1, true, "10.0.0.0/8", None, None)]));
    let rows = [
        (Match::Prefix(list.clone()), true),
        (Match::Prefix(Arc::default()), false),
        (Match::Community(vec![Community(9), Community(5)]), true),
        (Match::Community(vec![Community(9)]), false),
        (Match::Community(vec![]), false),
        (Match::LargeCommunity(vec![large(5)]), true),
        (Match::LargeCommunity(vec![large(9)]), false),
        (Match::AsPathContains(20), true),
        (Match::AsPathContains(21), false),
        (Match::OriginAs(30), true),
        (Match::OriginAs(10), false),
        (Match::NeighborAs(10), true),
        (Match::NeighborAs(30), false),
        (Match::AsPathLength(3..=3), true),
        (Match::AsPathLength(0..=2), false),
        (Match::AsPathLength(4..=9), false),
    ];
    for (condition, holds) in rows {
        assert_eq!(condition.holds(&net("10.0.0.0/8"), &attributes()), holds, "{condition:?}");
    }
}

#[test]
fn actions_do_what_they_say() {
    type Check = fn(&Attributes, Option<IpAddr>) -> bool;
    let rows: Vec<(Action, Check)> = vec![
        (Action::SetLocalPref(7), |a, _| a.local_pref == Some(7)),
        (Action::SetMed(Some(7)), |a, _| a.med == Some(7)),
        (Action::SetMed(None), |a, _| a.med.is_none()),
        (Action::Prepend(2), |a, _| a.as_path.0 == [99, 99, 10, 20, 30]),
        (Action::AddCommunities(vec![Community(3), Community(1)]), |a, _| a.communities == [1, 3, 5].map(Community)),
        (Action::RemoveCommunities(vec![Community(1), Community(2)]), |a, _| a.communities == [Community(5)]),
        (Action::SetCommunities(vec![Community(9), Community(8), Community(9)]), |a, _| {
            a.communities == [8, 9].map(Community)
        }),
        (Action::AddLargeCommunities(vec![large(3)]), |a, _| a.large_communities == [1, 3, 5].map(large)),
        (Action::RemoveLargeCommunities(vec![large(5)]), |a, _| a.large_communities == [large(1)]),
        (Action::SetLargeCommunities(vec![large(9), large(8)]), |a, _| a.large_communities == [8, 9].map(large)),
        (Action::SetNextHop([1, 2, 3, 4].into()), |_, hop| hop == Some([1, 2, 3, 4].into())),
    ];
    let shared = Arc::new(attributes());
    for (action, check) in rows {
        let (mut changed, mut hop) = (Arc::clone(&shared), None);
        assert!(!check(&changed, hop), "{action:?}");
        action.apply(&mut changed, &mut hop, Some(99));
        assert!(check(&changed, hop), "{action:?}: {changed:?}");
        assert_eq!(*shared, attributes(), "{action:?} changed what is shared");
    }
    let (mut same, mut hop) = (Arc::clone(&shared), None);
    Action::Prepend(2).apply(&mut same, &mut hop, None);
    assert!(Arc::ptr_eq(&same, &shared));
}

#[test]
fn no_policy_lets_nothing_pass_and_no_rule_neither() {
    let (prefix, attributes) = (net("10.0.0.0/8"), attributes());
    let rule = |when, then| Rule { when, then };
    let rows = [
        (Policy::default(), None),
        (Policy::Rules(vec![]), None),
        (Policy::accept_all(), Some(0)),
        (Policy::Rules(vec![rule(vec![], Verdict::Reject), rule(vec![], Verdict::Accept(vec![]))]), None),
        (
            Policy::Rules(vec![
                rule(vec![Match::NeighborAs(10), Match::OriginAs(31)], Verdict::Reject),
                rule(vec![Match::NeighborAs(10), Match::OriginAs(30)], Verdict::Accept(vec![Action::Prepend(1)])),
            ]),
            Some(1),
        ),
    ];
    for (policy, rule) in rows {
        assert_eq!(policy.decide(&prefix, &attributes), rule, "{policy:?}");
    }
    assert_eq!(Policy::accept_all().actions(0), []);
    assert_eq!(Policy::Default.actions(0), []);
}

proptest! {
    /// A prefix list is the first entry whose bits and length agree.
    #[test]
    fn a_prefix_list_is_its_model(
        rules in proptest::collection::vec(
            (any::<bool>(), any::<u8>(), 0u8..9, proptest::option::of(0u8..10), proptest::option::of(0u8..10)),
            0..30,
        ),
        address: u8, length in 0u8..10,
    ) {
        let prefix = |address: u8, length| net(&format!("{address}.0.0.0/{length}")).trunc();
        let list = PrefixList::new((0..).zip(&rules).map(|(sequence, &(permit, address, length, ge, le))| {
            PrefixEntry { sequence, permit, within: prefix(address, length), ge, le }
        }));
        let model = rules.iter().find(|&&(_, other, own, ge, le)| {
            let same_bits = (0..own.min(8)).all(|bit| (other ^ address) & (0x80 >> bit) == 0);
            let low = ge.unwrap_or(own);
            let high = le.unwrap_or(if ge.is_some() { 32 } else { own });
            same_bits && own <= length && low <= length && length <= high
        });
        prop_assert_eq!(list.permits(&prefix(address, length)), model.is_some_and(|rule| rule.0));
    }
}
