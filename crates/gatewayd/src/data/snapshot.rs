//! What was counted, in the words of `status`.

use std::collections::BTreeMap;

use base::Instant;
use esp::{Counters, DataPath, Dropped, Drops};
use gateway::status::{DataPathCounters, Direction, Traffic};
use sa::SaId;

use super::Snapshot;
use super::paths::Paths;
use super::sums::Sums;

/// What the worker itself dropped, by stable names.
pub(super) type Own = [(&'static str, u64)];

/// Everything that was counted. `own` is what the worker dropped beside its SAs.
pub(super) fn of(path: &DataPath, paths: &Paths, sums: &Sums, own: &Own, errors: (u64, u64), now: Instant) -> Snapshot {
    let mut dropped: BTreeMap<String, u64> =
        own.iter().filter(|(_, count)| *count > 0).map(|(name, count)| ((*name).to_owned(), *count)).collect();
    let outbound = path.outbounds.iter().map(|(_, counters)| counters);
    let inbound = path.inbounds.iter().map(|sa| *sa.counters());
    let gone = sums.all();
    let both = [
        (path.outbounds.total(), sum(outbound), &gone.dropped_out),
        (path.inbounds.total(), sum(inbound), &gone.dropped_in),
    ];
    for (total, of_sas, gone) in both {
        for (reason, count) in total.drops.iter() {
            let rest = (count - of_sas[reason]).saturating_sub(gone.get(reason.name()).copied().unwrap_or_default());
            if rest > 0 {
                *dropped.entry(reason.name().to_owned()).or_default() += rest;
            }
        }
    }
    let (send_errors, receive_errors) = errors;
    Snapshot {
        sas: path.outbounds.iter().map(|(id, _)| (id, traffic(path, paths, id, now))).collect(),
        carried: sums.by_connection(),
        rest: DataPathCounters {
            dropped,
            send_errors,
            receive_errors,
            unreachable_sent: path.outbounds.unreachable_sent(),
            ..DataPathCounters::default()
        },
    }
}

fn sum(all: impl Iterator<Item = Counters>) -> Drops {
    let mut sum = Drops::default();
    all.for_each(|counters| sum += counters.drops);
    sum
}

/// What one SA carried.
pub(super) fn traffic(path: &DataPath, paths: &Paths, id: SaId, now: Instant) -> Traffic {
    let out = path.outbounds.counters(id).unwrap_or_default();
    let shaping = path.outbounds.shaping(id).unwrap_or_default();
    let sent = path.outbounds.sa(id).map_or(0, |sa| sa.last_sequence());
    let mut traffic = Traffic {
        outbound: direction(&out),
        fragmented: shaping.fragmented,
        fragmentation_failed: out.drops[Dropped::TooBig],
        fragments_created: shaping.fragments,
        too_big_sent: shaping.too_big_sent,
        path_mtu_received: path.outbounds.path(id).map_or(0, |path| paths.times_learnt(path.remote.ip())),
        sequence_sent: sent,
        ..Traffic::default()
    };
    if let Some(inbound) = path.inbounds.sa(id) {
        let counters = inbound.counters();
        traffic.inbound = direction(counters);
        traffic.inner_fragments = inbound.fragments();
        traffic.dummies_received = counters.drops[Dropped::Dummy];
        traffic.sequence_received = inbound.window().top();
        traffic.replay_bitmap = inbound.window().bitmap();
        traffic.idle_s = inbound.last_used().map(|at| now.saturating_since(at).as_secs());
    }
    traffic
}

fn direction(counters: &Counters) -> Direction {
    let dropped = counters.drops.iter().filter(|(_, count)| *count > 0);
    let dropped = dropped.map(|(reason, count)| (reason.name().to_owned(), count)).collect();
    Direction { packets: counters.packets, bytes: counters.bytes, dropped }
}
