//! Policy: which routes pass between a neighbour and us, and what is changed on the way.
//!
//! The first rule all of whose conditions hold decides; what no rule matches is rejected. A neighbour for whom nothing
//! was written has [`Policy::Default`], under which no route passes (RFC 8212).

mod prefix_list;

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

pub use prefix_list::{PrefixEntry, PrefixList};

use crate::{Asn, Community, LargeCommunity};

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
}
