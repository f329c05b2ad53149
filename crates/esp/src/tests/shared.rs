//! SAs that two gateways know.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Barrier;

use base::Instant;
use packet::Tos;
use proptest::prelude::*;
use sa::{ChildSa, SaChange, SaId};

use super::export::{open, seal, with};
use super::joint::workers;
use super::{child, gcm, mirrored, udp};
use crate::export::ExportedSa;
use crate::shared::{Mark, RESERVE};
use crate::{DataPath, Dropped, Event, Unusable, Via};

const NOW: Instant = Instant::from_micros(10_000_000);

fn number(packet: &[u8]) -> u64 {
    u64::from(u32::from_be_bytes(packet[4..8].try_into().unwrap()))
}

fn try_seal(path: &mut DataPath) -> Result<(), Dropped> {
    path.outbounds.send(Via::Policy, &mut udp("10.0.0.1:5", "10.0.0.2:6", 80), |_| (), NOW)
}

/// Leaves out numbers, as if so many packets had been sealed.
fn spend(path: &DataPath, count: u64) {
    let sa = path.outbounds.sa(SaId(1)).unwrap();
    (0..count.div_ceil(1 << 20)).for_each(|_| drop(sa.reserve(1 << 20)));
}

/// A gateway that knows the SAs, by way of bytes, and uses none.
fn standby(own: &ChildSa) -> DataPath {
    let text = serde_json::to_string(&ExportedSa::of(own, NOW)).unwrap();
    let mut path = DataPath::new();
    let sa = serde_json::from_str::<ExportedSa>(&text).unwrap().into_child(NOW);
    path.apply(&SaChange::Install(Box::new(sa))).unwrap();
    path
}

#[test]
fn a_gateway_that_takes_over_goes_on_a_reserve_ahead_and_refuses_what_the_other_was_seen_to_accept() {
    for esn in [false, true] {
        let own = child(1, gcm(esn));
        let (mut active, mut peer) = (with(&own), with(&mirrored(&own)));
        let from_peer: Vec<_> = (0..20).map(|_| seal(&mut peer)).collect();
        from_peer[..10].iter().for_each(|packet| open(&mut active, packet).unwrap());
        assert_eq!(number(&seal(&mut active)), 1);
        let told = active.share();
        assert_eq!(told, [Mark { id: SaId(1), next: 2, top: 10 }]);

        let mut other = standby(&own);
        other.succeed(&told).unwrap();
        other.activate_all(&[SaId(1), SaId(9)]).unwrap();
        let late = seal(&mut active);
        let first = seal(&mut other);
        assert_eq!(number(&first), 2 + RESERVE);
        open(&mut peer, &first).unwrap();
        assert!(open(&mut peer, &late).is_err(), "who lives on is not heard");
        assert!(from_peer[..10].iter().all(|packet| open(&mut other, packet).is_err()), "told as accepted");
        from_peer[10..].iter().for_each(|packet| open(&mut other, packet).unwrap());
        assert_eq!(other.succeed(&told), Err(Unusable::BadStanding), "it has begun");
    }
}

#[test]
fn who_told_another_stops_at_the_ceiling_until_that_is_confirmed_and_asks_for_keys_half_way() {
    let own = child(1, gcm(true));
    let mut active = with(&own);
    active.share();
    let soft = |path: &mut DataPath| std::iter::from_fn(|| path.poll_event()).any(|e| e == Event::SoftLimit(SaId(1)));
    spend(&active, RESERVE / 4);
    try_seal(&mut active).unwrap();
    assert!(!soft(&mut active));
    spend(&active, RESERVE / 4);
    try_seal(&mut active).unwrap();
    assert!(soft(&mut active));
    let marks = active.marks();
    spend(&active, RESERVE);
    assert_eq!(try_seal(&mut active), Err(Dropped::SequenceExhausted));
    active.confirm(&[Mark { id: SaId(7), next: u64::MAX, top: 0 }]);
    try_seal(&mut active).unwrap_err();
    active.confirm(&marks);
    try_seal(&mut active).unwrap();
}

#[test]
fn a_new_sa_of_which_another_was_told_is_bound_from_its_first_number_on() {
    let own = child(1, gcm(true));
    let mut active = with(&own);
    active.share_new(SaId(1));
    let mut other = standby(&own);
    other.succeed(&[Mark { id: SaId(1), next: 1, top: 0 }]).unwrap();
    spend(&active, RESERVE);
    assert_eq!(try_seal(&mut active), Err(Dropped::SequenceExhausted));
    assert_eq!(other.marks()[0].next, 1 + RESERVE);
}

#[test]
fn an_sa_that_nobody_was_told_of_has_no_ceiling() {
    let mut alone = with(&child(1, gcm(true)));
    alone.confirm(&[Mark { id: SaId(1), next: 5, top: 0 }]);
    spend(&alone, 3 * RESERVE);
    try_seal(&mut alone).unwrap();
    assert_eq!(alone.poll_event(), None);
}

#[test]
fn keys_are_renewed_before_the_numbers_end_however_many_were_left_out() {
    let mut path = with(&child(1, gcm(false)));
    path.apply(&SaChange::Skip { id: SaId(1), outbound: u64::from(u32::MAX) / 10 * 9, inbound: 0 }).unwrap();
    try_seal(&mut path).unwrap();
    assert_eq!(path.poll_event(), Some(Event::SoftLimit(SaId(1))));
}

// peer -- 1, 2 -> a gateway that died, unseen;  peer skips, as its next gateway asks;  eavesdropper -- 1, 2 -> that
#[test]
fn after_a_peer_has_skipped_nothing_can_be_replayed() {
    let own = child(1, gcm(false));
    let (mut peer, mut heir) = (with(&mirrored(&own)), standby(&own));
    let recorded = [seal(&mut peer), seal(&mut peer)];
    heir.succeed(&[Mark { id: SaId(1), next: 1, top: 0 }]).unwrap();
    peer.apply(&SaChange::Skip { id: SaId(1), outbound: 1_000, inbound: 0 }).unwrap();
    // Some come before the answer that says that the peer has skipped.
    let early = seal(&mut peer);
    open(&mut heir, &early).unwrap();
    heir.apply(&SaChange::Skip { id: SaId(1), outbound: 0, inbound: 1_000 }).unwrap();
    assert!(recorded.iter().all(|packet| open(&mut heir, packet) == Err(Dropped::Replayed)));
    let next = seal(&mut peer);
    assert_eq!(number(&next), 1_004);
    heir.inbounds.open(&mut next.clone(), None, Tos(0), NOW).unwrap();
    assert_eq!(heir.apply(&SaChange::Skip { id: SaId(2), outbound: 0, inbound: 0 }), Err(Unusable::UnknownId));
}

/// With several workers: each number that one of them is given while another binds the SA is below the ceiling.
#[test]
fn a_worker_that_seals_while_another_binds_the_sa_keeps_its_ceiling() {
    let own = child(1, gcm(true));
    // More than a gateway may use that has told another of the SA.
    let count = u32::try_from(RESERVE).unwrap() + 1;
    for _ in 0..2_000 {
        let [leader, follower] = <[DataPath; 2]>::try_from(workers(&own, 2)).ok().unwrap();
        let begin = Barrier::new(2);
        let (told, last) = std::thread::scope(|scope| {
            let sealing = scope.spawn(|| {
                let sa = follower.outbounds.sa(SaId(1)).unwrap();
                begin.wait();
                std::iter::from_fn(|| sa.reserve(count).ok().map(|numbers| numbers.end())).last()
            });
            begin.wait();
            let told = leader.share()[0].next;
            (told, sealing.join().unwrap())
        });
        assert!(last.is_none_or(|end| end <= told), "told {told}, and used until {last:?}");
    }
}

/// One of two gateways, each of two workers, and what it knows of the other.
struct Member {
    path: Option<Vec<DataPath>>,
    /// Terms are even for one and odd for the other; the higher one wins.
    term: u64,
    /// What it was told, as long as it does not use it.
    told: Option<Vec<Mark>>,
}

#[derive(Clone, Debug)]
enum Step {
    /// One of a member's workers seals, and leaves out so many numbers more.
    Seal(usize, usize, u64),
    /// The active one tells how far it is, and whether the word arrives, and the confirmation.
    Checkpoint { arrives: bool, is_confirmed: bool },
    /// The standby believes that the active one is dead.
    TakeOver,
    /// A member's process ends and begins again, knowing nothing.
    Restart(usize),
    /// They hear each other, and the lesser one follows the other.
    Meet,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..2_usize, 0..2_usize, prop_oneof![Just(0), Just(RESERVE / 3), Just(2 * RESERVE)])
            .prop_map(|(who, worker, more)| Step::Seal(who, worker, more)),
        4 => any::<(bool, bool)>().prop_map(|(arrives, is_confirmed)| Step::Checkpoint { arrives, is_confirmed }),
        2 => Just(Step::TakeOver),
        1 => (0..2_usize).prop_map(Step::Restart),
        3 => Just(Step::Meet),
    ]
}

fn active(members: &[Member; 2]) -> Option<usize> {
    (0..2).filter(|at| members[*at].path.is_some()).max_by_key(|at| members[*at].term)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn whoever_lives_knows_and_hears_what_no_number_is_sealed_twice(steps in prop::collection::vec(step(), 1..60)) {
        let own = child(1, gcm(true));
        let mut members = [
            Member { path: Some(workers(&own, 2)), term: 2, told: None },
            Member { path: None, term: 0, told: None },
        ];
        let mut sealed: BTreeMap<u64, usize> = BTreeMap::new();
        for (at, step) in steps.into_iter().enumerate() {
            match step {
                Step::Seal(who, worker, more) => {
                    let Some(path) = members[who].path.as_mut().map(|all| &mut all[worker]) else { continue };
                    let before = path.marks()[0].next;
                    if try_seal(path).is_ok() {
                        prop_assert_eq!(sealed.insert(before, at), None, "{}", before);
                    }
                    // Each of the numbers that are left out could have been sealed.
                    for _ in 0..more.div_ceil(1 << 20) {
                        let next = path.marks()[0].next;
                        if path.outbounds.sa(SaId(1)).unwrap().reserve(1 << 20).is_ok() {
                            let again = sealed.range(next..next + (1 << 20)).next();
                            prop_assert_eq!(again, None);
                            sealed.extend([next, next + (1 << 20) - 1].map(|number| (number, at)));
                        }
                    }
                }
                Step::Checkpoint { arrives, is_confirmed } => {
                    let Some(who) = active(&members) else { continue };
                    let marks = members[who].path.as_ref().unwrap()[0].marks();
                    let other = &mut members[1 - who];
                    // Only who stands by hears, and only what it has SAs for.
                    if arrives && other.path.is_none() && other.told.is_some() {
                        other.told = Some(marks.clone());
                        if is_confirmed {
                            members[who].path.as_ref().unwrap()[0].confirm(&marks);
                        }
                    }
                }
                Step::TakeOver => {
                    let Some(who) = (0..2).find(|at| members[*at].told.is_some()) else { continue };
                    let told = members[who].told.take().unwrap();
                    let mut path = workers(&own, 2);
                    path[0].succeed(&told).unwrap();
                    let term = members.iter().map(|member| member.term).max().unwrap() + 1;
                    members[who].path = Some(path);
                    members[who].term = term + (term + who as u64) % 2;
                }
                Step::Restart(who) => members[who] = Member { path: None, term: 0, told: None },
                Step::Meet => {
                    let Some(who) = active(&members) else { continue };
                    // A new word with the other: whatever that did before is over.
                    members[1 - who].path = None;
                    let told = members[who].path.as_ref().unwrap()[0].share();
                    members[1 - who].told = Some(told);
                    members[1 - who].term = 0;
                }
            }
        }
        let distinct: BTreeSet<u64> = sealed.keys().copied().collect();
        prop_assert_eq!(distinct.len(), sealed.len());
    }
}
