//! Selector pairs of one device, asked which of them is the most specific for a packet.

use std::cmp::Reverse;

use packet::{FlowKey, Ports};
use sa::TrafficSelector;

use crate::policy::Via;
use crate::prefix::{Prefix, PrefixMap};
use crate::{Unusable, selector};

/// The most pairs that one SA or policy may have.
pub(crate) const MAX_PAIRS: usize = 4096;

/// What a rule leads to; the number is a place in the owner's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    /// SAs.
    Group(usize),
    /// A policy that waits for one.
    Policy(usize),
}

#[derive(Clone, Debug)]
struct Rule {
    local: TrafficSelector,
    remote: TrafficSelector,
    target: Target,
    /// Least first: one protocol before any, few ports before many, SAs before policies, then the
    /// youngest.
    order: (bool, u32, bool, Reverse<u64>),
}

/// The rules, by remote prefix and then by local prefix. A range that is no prefix stands under the
/// shortest one that covers it.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    by_remote: PrefixMap<PrefixMap<Vec<Rule>>>,
    made: u64,
}

/// Refuses more pairs than one owner may have.
pub(crate) fn check_pairs(local: &[TrafficSelector], remote: &[TrafficSelector]) -> Result<(), Unusable> {
    let is_too_many = local.len().saturating_mul(remote.len()) > MAX_PAIRS;
    if is_too_many { Err(Unusable::TooManySelectors) } else { Ok(()) }
}

impl Rules {
    /// Adds a rule for every pair.
    pub(crate) fn insert(&mut self, local: &[TrafficSelector], remote: &[TrafficSelector], target: Target) {
        self.made += 1;
        for (local, remote) in pairs(local, remote) {
            let order = (
                local.protocol == 0 && remote.protocol == 0,
                span(local) + span(remote),
                matches!(target, Target::Policy(_)),
                Reverse(self.made),
            );
            let rules = self.by_remote.entry(prefix(remote)).entry(prefix(local));
            let at = rules.partition_point(|rule| rule.order <= order);
            rules.insert(at, Rule { local: *local, remote: *remote, target, order });
        }
    }

    /// Removes what [`Rules::insert`] added with the same arguments.
    pub(crate) fn remove(&mut self, local: &[TrafficSelector], remote: &[TrafficSelector], target: Target) {
        for (local, remote) in pairs(local, remote) {
            self.by_remote.shrink(prefix(remote), |by_local| {
                by_local.shrink(prefix(local), |rules| {
                    rules.retain(|rule| rule.target != target);
                    rules.is_empty()
                });
                by_local.is_empty()
            });
        }
    }

    /// Where a packet belongs that leaves through the tunnel: the longest remote prefix decides, then
    /// the longest local one, then [`Rule::order`].
    pub(crate) fn find(&self, flow: &FlowKey) -> Option<Target> {
        self.by_remote
            .matches(flow.destination)
            .flat_map(|by_local| by_local.matches(flow.source))
            .flatten()
            .find(|rule| selector::pair_covers(&rule.local, &rule.remote, flow))
            .map(|rule| rule.target)
    }
}

fn pairs<'a>(
    local: &'a [TrafficSelector],
    remote: &'a [TrafficSelector],
) -> impl Iterator<Item = (&'a TrafficSelector, &'a TrafficSelector)> {
    let fit = |(local, remote): &(&TrafficSelector, &TrafficSelector)| local.first.is_ipv4() == remote.first.is_ipv4();
    local.iter().flat_map(|local| remote.iter().map(move |remote| (local, remote))).filter(fit)
}

fn prefix(selector: &TrafficSelector) -> Prefix {
    Prefix::covering(selector.first, selector.last)
}

fn span(selector: &TrafficSelector) -> u32 {
    u32::from(selector.ports.1).saturating_sub(u32::from(selector.ports.0))
}

/// What was found for the latest flows: a table of fixed size in which flows may displace each other.
#[derive(Debug)]
pub(crate) struct FlowCache(Box<[Option<(Via, FlowKey, Target)>]>);

impl FlowCache {
    const SLOTS: usize = 512;

    pub(crate) fn new() -> Self {
        Self(vec![None; Self::SLOTS].into())
    }

    /// Forgets everything: some rule changed.
    pub(crate) fn clear(&mut self) {
        self.0.fill(None);
    }

    pub(crate) fn find(&mut self, via: Via, flow: &FlowKey, search: impl FnOnce() -> Option<Target>) -> Option<Target> {
        let slot = &mut self.0[slot_of(via, flow)];
        if let Some((cached_via, cached_flow, target)) = slot
            && *cached_via == via
            && *cached_flow == *flow
        {
            return Some(*target);
        }
        let target = search()?;
        *slot = Some((via, *flow, target));
        Some(target)
    }
}

/// Only speed hangs on how well this spreads: a flow that is displaced is searched again.
fn slot_of(via: Via, flow: &FlowKey) -> usize {
    let fold = |address: std::net::IpAddr| match address {
        std::net::IpAddr::V4(v4) => u64::from(v4.to_bits()),
        std::net::IpAddr::V6(v6) => {
            let bits = v6.to_bits();
            (bits >> 64) as u64 ^ bits as u64
        }
    };
    let ports = match flow.ports {
        Ports::Known { source, destination } => u64::from(source) << 16 | u64::from(destination),
        Ports::Message(message) => u64::from(message),
        Ports::Without | Ports::Opaque => 0,
    };
    let device = match via {
        Via::Policy => 0,
        Via::Device(id) => u64::from(id.0) + 1,
    };
    let mut hash = 0u64;
    for part in [fold(flow.source), fold(flow.destination), ports << 8 | u64::from(flow.protocol), device] {
        hash = (hash.rotate_left(5) ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    (hash >> 32) as usize % FlowCache::SLOTS
}
