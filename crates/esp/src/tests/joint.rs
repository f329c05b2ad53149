//! SAs that several workers have in service.

use std::collections::BTreeSet;
use std::sync::Mutex;

use base::Instant;
use packet::Tos;
use proptest::prelude::*;
use sa::{ChildSa, SaChange, SaId};

use super::{child, gcm, mirrored, suites, udp};
use crate::{Counters, DataPath, Dropped, Joint, Outgoing, Via};

const NOW: Instant = Instant::from_micros(10_000_000);

/// The tables of so many workers, with this SA in each.
pub(super) fn workers(own: &ChildSa, count: u16) -> Vec<DataPath> {
    let joint = Joint::new(own).unwrap();
    let worker = |number| {
        let mut path = DataPath::new();
        path.outbounds.be_one_of(number, count);
        path.join(own, joint.handle(), number == 0).unwrap();
        path.apply(&SaChange::Activate(own.id)).unwrap();
        path
    };
    (0..count).map(worker).collect()
}

/// What leaves when a packet of this length goes out.
fn seal(path: &mut DataPath, len: usize) -> Vec<Vec<u8>> {
    let mut sent = Vec::new();
    let out = |outgoing: Outgoing<'_>| {
        if let Outgoing::Datagram { esp, .. } = outgoing {
            sent.push(esp.to_vec());
        }
    };
    path.outbounds.send(Via::Policy, &mut udp("10.0.0.1:5", "10.0.0.2:6", len), out, NOW).unwrap();
    sent
}

fn open(path: &mut DataPath, packet: &[u8]) -> Result<(), Dropped> {
    path.inbounds.open(&mut packet.to_vec(), None, Tos(0), NOW).map(drop)
}

#[test]
fn workers_that_seal_at_once_use_each_number_once_and_those_that_open_take_each_packet_once() {
    for suite in suites().into_iter().filter(|suite| !suite.esn || suite.encryption.is_aead()) {
        let own = ChildSa { replay_window: 8192, ..child(1, suite) };
        let sent = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for mut path in workers(&own, 3) {
                let sent = &sent;
                scope.spawn(move || {
                    let packets: Vec<_> = (0..200).flat_map(|_| seal(&mut path, 60)).collect();
                    sent.lock().unwrap().extend(packets);
                });
            }
        });
        let sent = sent.into_inner().unwrap();
        let numbers: BTreeSet<_> = sent.iter().map(|packet| packet[4..8].to_vec()).collect();
        assert_eq!((sent.len(), numbers.len()), (600, 600), "{suite}");

        // Everybody is offered everything.
        let opened: Vec<Counters> = std::thread::scope(|scope| {
            let open_all = |mut path: DataPath| {
                let sent = &sent;
                move || {
                    sent.iter().for_each(|packet| {
                        let _ = open(&mut path, packet);
                    });
                    path.inbounds.counters(SaId(1)).unwrap()
                }
            };
            let threads: Vec<_> =
                workers(&mirrored(&own), 3).into_iter().map(|path| scope.spawn(open_all(path))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(opened.iter().map(|counters| counters.packets).sum::<u64>(), 600, "{suite}");
        assert_eq!(opened.iter().map(|counters| counters.drops[Dropped::Replayed]).sum::<u64>(), 1200, "{suite}");
    }
}

#[test]
fn what_an_sa_carries_is_counted_once_and_what_a_worker_refuses_by_that_worker() {
    let own = child(1, gcm(false));
    let mut all = workers(&own, 2);
    seal(&mut all[0], 100);
    seal(&mut all[1], 60);
    let counted: Vec<_> = all.iter().map(|path| path.outbounds.counters(SaId(1)).unwrap()).collect();
    assert_eq!([counted[0].packets, counted[0].bytes, counted[1].packets], [2, 160, 0]);
    let mut broken = seal(&mut all[1], 60).remove(0);
    *broken.last_mut().unwrap() ^= 1;
    let mut theirs = workers(&mirrored(&own), 2);
    assert_eq!(open(&mut theirs[1], &broken), Err(Dropped::BadIntegrity));
    let refused = theirs.iter().map(|path| path.inbounds.counters(SaId(1)).unwrap().drops.total());
    assert_eq!(refused.collect::<Vec<_>>(), [0, 1]);
    // An SA that is gone in one stays in the other.
    theirs[0].apply(&SaChange::Remove(SaId(1))).unwrap();
    let packet = seal(&mut all[0], 60).remove(0);
    assert_eq!(open(&mut theirs[0], &packet), Err(Dropped::UnknownSpi));
    assert_eq!(open(&mut theirs[1], &packet), Ok(()));
}

#[test]
fn fragments_of_different_workers_have_different_identifications() {
    let mut own = child(1, gcm(false));
    own.df = model::DfPolicy::Clear;
    let mut ids = BTreeSet::new();
    let mut count = 0;
    for mut path in workers(&own, 3) {
        for _ in 0..50 {
            let mut packet = udp("10.0.0.1:5", "10.0.0.2:6", 1600);
            let mut sent: Vec<Vec<u8>> = Vec::new();
            let out = |outgoing: Outgoing<'_>| {
                if let Outgoing::Datagram { esp, .. } = outgoing {
                    sent.push(esp.to_vec());
                }
            };
            path.outbounds.send(Via::Policy, &mut packet, out, NOW).unwrap();
            assert_eq!(sent.len(), 2);
            let mut peer = workers(&mirrored(&own), 1).remove(0);
            for mut esp in sent {
                let arrived = peer.inbounds.open(&mut esp, None, Tos(0), NOW).unwrap();
                ids.insert(esp[arrived.range][4..6].to_vec());
            }
            count += 1;
        }
    }
    assert_eq!(ids.len(), count);
}

proptest! {
    /// Who opens which packet makes no difference to what passes.
    #[test]
    fn several_workers_let_pass_what_one_does(
        offers in prop::collection::vec((0usize..40, 0usize..3, any::<bool>()), 1..300),
    ) {
        let own = ChildSa { replay_window: 64, ..child(1, gcm(false)) };
        let mut sender = workers(&own, 1).remove(0);
        let mut all = workers(&mirrored(&own), 3);
        let mut alone = workers(&mirrored(&own), 1).remove(0);
        let mut sent: Vec<Vec<u8>> = Vec::new();
        for (back, worker, forged) in offers {
            sent.extend(seal(&mut sender, 60));
            let mut packet = sent[sent.len() - 1 - back.min(sent.len() - 1)].clone();
            packet[20] ^= u8::from(forged);
            prop_assert_eq!(open(&mut all[worker], &packet), open(&mut alone, &packet));
        }
    }
}
