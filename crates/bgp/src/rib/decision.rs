//! The decision process (RFC 4271 §9.1.2.2) and the paths equal to the best.

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv4Addr};

use super::peer::Peer;
use super::routes::{RouteId, Routes};
use super::table::{PathRecord, Table};
use super::{LOCALS, LocalKind, Options};
use crate::{AsPath, Asn, Origin};

/// What the decision asks of a path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    /// Of which source, and the last resort of the order.
    pub(super) slot: u16,
    pub(super) route: RouteId,
    /// A route of our own, by kind; none for a neighbour's.
    pub(super) local: Option<LocalKind>,
    pub(super) is_long_lived_stale: bool,
    pub(super) local_pref: u32,
    pub(super) path_length: u32,
    pub(super) as_path: &'a AsPath,
    pub(super) origin: Origin,
    pub(super) neighbor_as: Asn,
    /// An absent one counts as 0, the best (RFC 4271 §9.1.2.2 c).
    pub(super) med: u32,
    pub(super) is_internal: bool,
    /// ORIGINATOR_ID where there is one (RFC 4456 §9), else the neighbour's BGP Identifier.
    pub(super) router_id: Ipv4Addr,
    pub(super) cluster_list_length: usize,
    pub(super) address: Option<IpAddr>,
}

impl<'a> Candidate<'a> {
    /// A path that passed, from a neighbour that is reachable or from ourselves; `None`: it takes no part.
    pub(super) fn of(
        path: &PathRecord,
        peers: &'a [Option<Peer>],
        routes: &'a Routes,
        options: &Options,
    ) -> Option<Self> {
        if !is_usable(path, peers) {
            return None;
        }
        let route = routes.at(path.accepted);
        let attributes = &*route.attributes;
        let peer = peers[usize::from(path.slot)].as_ref();
        let is_internal = peer.is_some_and(|peer| peer.options.is_internal());
        let own_id = peer.map_or(options.router_id, |peer| peer.router_id);
        Some(Self {
            slot: path.slot,
            route: path.accepted,
            local: LOCALS.get(usize::from(path.slot)).copied(),
            is_long_lived_stale: route.is_long_lived_stale(),
            local_pref: attributes.local_pref.unwrap_or(options.local_pref),
            path_length: route.path_length,
            as_path: &attributes.as_path,
            origin: attributes.origin,
            neighbor_as: route.neighbor_as,
            med: attributes.med.unwrap_or(0),
            is_internal,
            router_id: attributes.originator_id.unwrap_or(own_id),
            cluster_list_length: attributes.cluster_list.len(),
            address: peer.map(|peer| peer.options.address),
        })
    }
}

/// Whether a path takes part in the decision (RFC 4271 §9.1.2): it passed, and its next hop can be reached.
pub(super) fn is_usable(path: &PathRecord, peers: &[Option<Peer>]) -> bool {
    path.accepted.is_some() && peers[usize::from(path.slot)].as_ref().is_none_or(|peer| peer.is_reachable)
}

/// Decides on an entry: puts what is used into `chosen`, the best first.
pub(super) fn decide(
    entry: u32,
    table: &Table,
    peers: &[Option<Peer>],
    routes: &Routes,
    options: &Options,
    chosen: &mut Vec<(u16, RouteId)>,
) {
    chosen.clear();
    let mut usable = table.paths_of(entry).filter(|path| is_usable(path, peers));
    let Some(first) = usable.next() else { return };
    if usable.next().is_none() {
        chosen.push((first.slot, first.accepted));
        return;
    }
    let paths = table.paths_of(entry);
    let mut candidates: Vec<_> = paths.filter_map(|path| Candidate::of(path, peers, routes, options)).collect();
    let count = select(&mut candidates, options);
    chosen.extend(candidates[..count].iter().map(|candidate| (candidate.slot, candidate.route)));
}

impl Candidate<'_> {
    /// What comes before MULTI_EXIT_DISC; the least is the best.
    fn head(&self) -> impl Ord + use<> {
        // RFC 9494 §4.3: a long-lived stale route is the least preferred. Routes of our own come first of all.
        let kind = (self.local.is_none(), self.local);
        (kind, self.is_long_lived_stale, Reverse(self.local_pref), self.path_length, self.origin)
    }

    /// What comes after it. Without an interior protocol the cost of all next hops is the same (step e).
    fn tail(&self) -> impl Ord + use<> {
        (self.is_internal, self.router_id, self.cluster_list_length, self.address, self.slot)
    }
}

/// Brings the candidates into order, the best first. Says how many of the first ones are used: the best and those
/// equal to it, at most [`Options::max_paths`].
pub(super) fn select(candidates: &mut [Candidate<'_>], options: &Options) -> usize {
    let Some(best_head) = candidates.iter().map(Candidate::head).min() else { return 0 };
    // Step c compares only routes of the same neighbouring AS, so it is no order of all routes. It is applied to the
    // set of those still under consideration, as the RFC says: the order of arrival has no say (deterministic MED).
    let group = |candidate: &Candidate<'_>| if options.always_compare_med { 0 } else { candidate.neighbor_as };
    candidates.sort_unstable_by_key(|candidate| (candidate.head() != best_head, group(candidate), candidate.med));
    let contenders = candidates.iter().take_while(|candidate| candidate.head() == best_head).count();
    let mut unbeaten = 0;
    let mut least: Option<(Asn, u32)> = None;
    for place in 0..contenders {
        let (asn, med) = (group(&candidates[place]), candidates[place].med);
        if least.is_none_or(|(other, _)| other != asn) {
            least = Some((asn, med));
        }
        if least == Some((asn, med)) {
            candidates.swap(unbeaten, place);
            unbeaten += 1;
        }
    }
    candidates[..unbeaten].sort_unstable_by_key(Candidate::tail);
    candidates[unbeaten..].sort_unstable_by(|a, b| {
        let key = |candidate: &Candidate<'_>| (candidate.head(), candidate.med, candidate.tail());
        key(a).cmp(&key(b))
    });
    let best = candidates[0];
    if best.local.is_some() {
        return 1;
    }
    let is_equal = |other: &Candidate<'_>| {
        other.med == best.med
            && other.is_internal == best.is_internal
            && (options.multipath_relax || other.as_path == best.as_path)
    };
    // Those of the same session kind stand at the front; the equal ones among them are brought together.
    let mut equal = 1;
    for place in 1..unbeaten {
        if is_equal(&candidates[place]) {
            candidates[equal..=place].rotate_right(1);
            equal += 1;
        }
    }
    equal.min(options.max_paths.max(1))
}
