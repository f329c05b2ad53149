//! Policy: which routes pass between a neighbour and us, and what is changed on the way.
//!
//! The first rule all of whose conditions hold decides; what no rule matches is rejected. A neighbour for whom nothing
//! was written has [`Policy::Default`], under which no route passes (RFC 8212).

mod prefix_list;

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

pub use prefix_list::{PrefixEntry, PrefixList};

use ipnet::IpNet;

use crate::{Asn, Attributes, Community, LargeCommunity};

/// What passes in one direction of one neighbour.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Nothing was written: no policy, no routes (RFC 8212 §2).
    #[default]
    Default,
    /// The first rule that matches decides; what matches none is rejected. At most 65,535 rules count.
    Rules(Vec<Rule>),
}

/// A rule: when it matches, and what then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Conditions that must all hold; none at all hold for every route.
    pub when: Vec<Match>,
    /// What becomes of the route.
    pub then: Verdict,
}

/// What becomes of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It passes, changed by these actions in their order.
    Accept(Vec<Action>),
    /// It does not pass.
    Reject,
}

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// The prefix list permits the prefix.
    Prefix(Arc<PrefixList>),
    /// The route has at least one of these communities.
    Community(Vec<Community>),
    /// The route has at least one of these large communities.
    LargeCommunity(Vec<LargeCommunity>),
    /// The AS stands anywhere in the AS_PATH.
    AsPathContains(Asn),
    /// The AS originated the route: it is the last of the AS_PATH, or one of the last set.
    OriginAs(Asn),
    /// The AS is the first of the AS_PATH.
    NeighborAs(Asn),
    /// The length of the AS_PATH, a set counting as one (RFC 4271 §9.1.2.2).
    AsPathLength(RangeInclusive<u32>),
}

/// A change to a route that passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Sets LOCAL_PREF. Towards an external neighbour it has no effect.
    SetLocalPref(u32),
    /// Sets or removes MULTI_EXIT_DISC.
    SetMed(Option<u32>),
    /// Prepends an AS this many times: our own on the way out, the neighbour's on the way in. Towards an internal
    /// neighbour it has no effect (RFC 4271 §5.1.2).
    Prepend(u8),
    /// Adds communities.
    AddCommunities(Vec<Community>),
    /// Removes communities.
    RemoveCommunities(Vec<Community>),
    /// Replaces all communities.
    SetCommunities(Vec<Community>),
    /// Adds large communities.
    AddLargeCommunities(Vec<LargeCommunity>),
    /// Removes large communities.
    RemoveLargeCommunities(Vec<LargeCommunity>),
    /// Replaces all large communities.
    SetLargeCommunities(Vec<LargeCommunity>),
    /// Sets the next hop.
    SetNextHop(IpAddr),
}

impl Policy {
    /// Everything passes unchanged.
    pub fn accept_all() -> Self {
        Self::Rules(vec![Rule { when: Vec::new(), then: Verdict::Accept(Vec::new()) }])
    }

    /// The number of the rule by which a route passes; `None`: it does not.
    pub(crate) fn decide(&self, prefix: &IpNet, attributes: &Attributes) -> Option<u16> {
        let Self::Rules(rules) = self else { return None };
        let matches = |rule: &Rule| rule.when.iter().all(|condition| condition.holds(prefix, attributes));
        let (number, rule) = (0..u16::MAX).zip(rules).find(|(_, rule)| matches(rule))?;
        matches!(rule.then, Verdict::Accept(_)).then_some(number)
    }

    /// The actions of a rule.
    pub(crate) fn actions(&self, number: u16) -> &[Action] {
        let Self::Rules(rules) = self else { return &[] };
        match rules.get(usize::from(number)).map(|rule| &rule.then) {
            Some(Verdict::Accept(actions)) => actions,
            Some(Verdict::Reject) | None => &[],
        }
    }
}

impl Match {
    /// Whether a route fulfils the condition.
    pub fn holds(&self, prefix: &IpNet, attributes: &Attributes) -> bool {
        match self {
            Self::Prefix(list) => list.permits(prefix),
            Self::Community(any) => any.iter().any(|one| attributes.communities.contains(one)),
            Self::LargeCommunity(any) => any.iter().any(|one| attributes.large_communities.contains(one)),
            Self::AsPathContains(asn) => attributes.as_path.count_of(*asn) > 0,
            Self::OriginAs(asn) => attributes.as_path.is_originated_by(*asn),
            Self::NeighborAs(asn) => attributes.as_path.neighbor_as() == Some(*asn),
            Self::AsPathLength(range) => range.contains(&attributes.as_path.length()),
        }
    }
}

impl Action {
    /// Changes a route. `prepended` is the AS that [`Action::Prepend`] puts first, if that may be done at all. What is
    /// shared is copied only where something changes.
    pub(crate) fn apply(
        &self,
        attributes: &mut Arc<Attributes>,
        next_hop: &mut Option<IpAddr>,
        prepended: Option<Asn>,
    ) {
        match self {
            Self::SetLocalPref(value) => Arc::make_mut(attributes).local_pref = Some(*value),
            Self::SetMed(value) => Arc::make_mut(attributes).med = *value,
            Self::Prepend(times) => {
                if let Some(asn) = prepended {
                    Arc::make_mut(attributes).as_path.prepend(asn, usize::from(*times));
                }
            }
            Self::AddCommunities(more) => add(&mut Arc::make_mut(attributes).communities, more),
            Self::RemoveCommunities(less) => Arc::make_mut(attributes).communities.retain(|one| !less.contains(one)),
            Self::SetCommunities(all) => replace(&mut Arc::make_mut(attributes).communities, all),
            Self::AddLargeCommunities(more) => add(&mut Arc::make_mut(attributes).large_communities, more),
            Self::RemoveLargeCommunities(less) => {
                Arc::make_mut(attributes).large_communities.retain(|one| !less.contains(one));
            }
            Self::SetLargeCommunities(all) => replace(&mut Arc::make_mut(attributes).large_communities, all),
            Self::SetNextHop(address) => *next_hop = Some(*address),
        }
    }
}

/// Adds to a sorted list in which each stands once.
pub(crate) fn add<T: Copy + Ord>(list: &mut Vec<T>, more: &[T]) {
    list.extend_from_slice(more);
    list.sort_unstable();
    list.dedup();
}

fn replace<T: Copy + Ord>(list: &mut Vec<T>, all: &[T]) {
    list.clear();
    add(list, all);
}

#[cfg(test)]
mod tests;
