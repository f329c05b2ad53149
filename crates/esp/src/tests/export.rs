//! SAs that another process goes on with.

use std::collections::BTreeSet;
use std::time::Duration;

use base::Instant;
use packet::Tos;
use proptest::prelude::*;
use sa::{ChildSa, SaChange, SaId};

use super::{child, gcm, mirrored, suites, udp};
use crate::export::{ExportedSa, Standing};
use crate::{DataPath, Dropped, Outgoing, Unusable, Via};

const NOW: Instant = Instant::from_micros(10_000_000);

pub(super) fn with(child: &ChildSa) -> DataPath {
    let mut path = DataPath::new();
    path.apply(&SaChange::Install(Box::new(child.clone()))).unwrap();
    path.apply(&SaChange::Activate(child.id)).unwrap();
    path
}

pub(super) fn seal(path: &mut DataPath) -> Vec<u8> {
    let mut sealed = Vec::new();
    let out = |out: Outgoing<'_>| {
        if let Outgoing::Datagram { esp, .. } = out {
            sealed = esp.to_vec();
        }
    };
    path.outbounds.send(Via::Policy, &mut udp("10.0.0.1:5", "10.0.0.2:6", 80), out, NOW).unwrap();
    sealed
}

pub(super) fn open(path: &mut DataPath, packet: &[u8]) -> Result<(), Dropped> {
    path.inbounds.open(&mut packet.to_vec(), None, Tos(0), NOW).map(|_| ())
}

/// The same data path in a process whose clock shows `now`, by way of bytes.
fn handed_over(old: &DataPath, ahead: u64, now: Instant) -> Result<DataPath, Unusable> {
    let sas = serde_json::to_string(&old.export(NOW)).unwrap();
    let standing = serde_json::to_string(&old.standing(NOW)).unwrap();
    let mut new = DataPath::new();
    for sa in serde_json::from_str::<Vec<ExportedSa>>(&sas).unwrap() {
        new.apply(&SaChange::Install(Box::new(sa.into_child(now)))).unwrap();
    }
    new.resume(&serde_json::from_str::<Standing>(&standing).unwrap(), ahead, now)?;
    Ok(new)
}

#[test]
fn no_number_is_sealed_twice_and_none_is_taken_twice_over_a_hand_over() {
    for suite in suites() {
        let own = child(1, suite);
        let (mut old, mut peer) = (with(&own), with(&mirrored(&own)));
        let from_peer: Vec<_> = (0..70).map(|_| seal(&mut peer)).collect();
        let mut sent: Vec<_> = (0..40).map(|_| seal(&mut old)).collect();
        from_peer.iter().skip(2).for_each(|packet| open(&mut old, packet).unwrap());

        let mut new = handed_over(&old, 0, NOW).unwrap();
        sent.extend((0..40).map(|_| seal(&mut new)));
        let numbers: BTreeSet<_> = sent.iter().map(|packet| packet[4..8].to_vec()).collect();
        assert_eq!(numbers.len(), 80, "{suite}");
        sent.iter().for_each(|packet| open(&mut peer, packet).unwrap());
        assert!(from_peer.iter().skip(2).all(|packet| open(&mut new, packet) == Err(Dropped::Replayed)), "{suite}");
        assert!(from_peer.iter().take(2).all(|packet| open(&mut new, packet) == Ok(())), "late, but new");
        open(&mut new, &seal(&mut peer)).unwrap();
    }
}

#[test]
fn a_gateway_that_does_not_know_the_last_number_goes_on_well_ahead() {
    let own = child(1, gcm(false));
    let mut old = with(&own);
    seal(&mut old);
    let mut new = handed_over(&old, 1_000, NOW).unwrap();
    assert_eq!(seal(&mut new)[4..8], 1_002_u32.to_be_bytes());
    let mut far = handed_over(&old, u64::MAX, NOW).unwrap();
    let refused = far.outbounds.send(Via::Policy, &mut udp("10.0.0.1:5", "10.0.0.2:6", 80), |_| (), NOW);
    assert_eq!(refused, Err(Dropped::SequenceExhausted));
}

#[test]
fn an_sa_that_sealed_already_does_not_go_back() {
    let own = child(1, gcm(false));
    let (old, mut new) = (with(&own), with(&own));
    seal(&mut new);
    assert_eq!(new.resume(&old.standing(NOW), 0, NOW), Err(Unusable::BadStanding));
}

#[test]
fn a_lifetime_ends_when_it_would_have_and_counters_go_on() {
    let mut own = child(1, gcm(false));
    own.limits.hard_time = Some(NOW + Duration::from_secs(5));
    let mut old = with(&own);
    seal(&mut old);
    let _ = old.outbounds.send(Via::Policy, &mut [0; 20], |_| (), NOW);
    let later = Instant::from_micros(3);
    let mut new = handed_over(&old, 0, later).unwrap();
    assert_eq!(new.outbounds.total(), old.outbounds.total());
    assert_eq!(new.outbounds.counters(SaId(1)).unwrap().packets, 1);
    let mut packet = udp("10.0.0.1:5", "10.0.0.2:6", 80);
    let mut at = |seconds| new.outbounds.send(Via::Policy, &mut packet, |_| (), later + Duration::from_secs(seconds));
    assert_eq!((at(4), at(5)), (Ok(()), Err(Dropped::Expired)));
}

#[test]
fn of_two_sas_that_follow_each_other_the_newer_one_stays_in_use() {
    let (first, second) = (child(7, gcm(false)), child(3, gcm(false)));
    let mut old = with(&first);
    old.apply(&SaChange::Install(Box::new(second.clone()))).unwrap();
    old.apply(&SaChange::Activate(second.id)).unwrap();
    let mut new = handed_over(&old, 0, NOW).unwrap();
    assert!(new.outbounds.is_active(second.id));
    new.apply(&SaChange::Remove(second.id)).unwrap();
    assert!(new.outbounds.is_active(first.id), "and the older one follows it");
}

proptest! {
    #[test]
    fn what_was_handed_over_is_handed_over_alike(sealed in 0..5_u32, opened in prop::collection::vec(0..300_usize, 0..40)) {
        let own = child(1, gcm(true));
        let (mut old, mut peer) = (with(&own), with(&mirrored(&own)));
        (0..sealed).for_each(|_| drop(seal(&mut old)));
        let packets: Vec<_> = (0..300).map(|_| seal(&mut peer)).collect();
        for at in opened {
            let _ = open(&mut old, &packets[at]);
        }
        let new = handed_over(&old, 0, NOW).unwrap();
        prop_assert_eq!(new.export(NOW), old.export(NOW));
        prop_assert_eq!(new.standing(NOW), old.standing(NOW));
    }
}
