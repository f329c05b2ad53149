//! What passes between us and a BGP neighbour, from the configuration to the rules of [`bgp::policy`].

use std::sync::Arc;

use bgp::policy::{Action, Match, Policy, PrefixEntry, PrefixList, Rule, Verdict};
use bgp::{Community, LargeCommunity};
use model::{Bgp, Config, Mode, Neighbor};

/// LOCAL_PREF of routes over the preferred tunnel; each further one has this much less.
const LOCAL_PREF: u32 = 100;
const LOCAL_PREF_STEP: u32 = 10;
/// MULTI_EXIT_DISC of what is announced over the second tunnel; each further one has this much more.
const MED_STEP: u32 = 100;

/// How far from the preferred tunnel of its VPN connection a neighbour's is: 0 is the preferred one. `None` where all
/// are equal, or the neighbour's tunnel belongs to no VPN connection.
fn rank(config: &Config, neighbor: &Neighbor) -> Option<u32> {
    let own = config.tunnel(neighbor.tunnel.as_ref()?)?;
    let is_own = |name: &String| config.tunnel(name).is_some_and(|tunnel| std::ptr::eq(tunnel.child, own.child));
    let vpn = config.vpns.iter().find(|vpn| vpn.tunnels.iter().any(is_own))?;
    let place = vpn.tunnels.iter().position(is_own)?;
    (vpn.mode == Mode::ActiveStandby && vpn.tunnels.len() > 1).then(|| u32::try_from(place).unwrap_or(u32::MAX))
}

/// What is taken from a neighbour.
pub(super) fn import(config: &Config, bgp: &Bgp, neighbor: &Neighbor) -> Policy {
    let standby = rank(config, neighbor).map(|rank| LOCAL_PREF.saturating_sub(rank.saturating_mul(LOCAL_PREF_STEP)));
    let preference = neighbor.local_preference.or(standby);
    policy(bgp, neighbor, neighbor.import.as_ref(), preference.map(Action::SetLocalPref).into_iter().collect())
}

/// What is announced to a neighbour.
pub(super) fn export(config: &Config, bgp: &Bgp, neighbor: &Neighbor) -> Policy {
    let rank = rank(config, neighbor).filter(|rank| *rank > 0);
    let mut actions = Vec::new();
    let med = neighbor.med.or(rank.map(|rank| rank.saturating_mul(MED_STEP)));
    actions.extend(med.map(|med| Action::SetMed(Some(med))));
    // What the other end decides by is not known: AS paths are compared before MED, and everywhere.
    let prepend = if neighbor.prepend > 0 { neighbor.prepend } else { u8::try_from(rank.unwrap_or(0)).unwrap_or(16) };
    if prepend > 0 {
        actions.push(Action::Prepend(prepend.min(16)));
    }
    if !neighbor.communities.is_empty() {
        let community = |(asn, value): &(u16, u16)| Community(u32::from(*asn) << 16 | u32::from(*value));
        actions.push(Action::AddCommunities(neighbor.communities.iter().map(community).collect()));
    }
    if !neighbor.large_communities.is_empty() {
        let large = |&(global, local1, local2): &(u32, u32, u32)| LargeCommunity { global, local1, local2 };
        actions.push(Action::AddLargeCommunities(neighbor.large_communities.iter().map(large).collect()));
    }
    policy(bgp, neighbor, neighbor.export.as_ref(), actions)
}

fn policy(bgp: &Bgp, neighbor: &Neighbor, list: Option<&String>, actions: Vec<Action>) -> Policy {
    let when = match list {
        Some(name) => vec![Match::Prefix(Arc::new(prefix_list(bgp, name)))],
        None if neighbor.tunnel.is_some() => Vec::new(),
        // RFC 8212: no policy, no routes.
        None => return Policy::Default,
    };
    Policy::Rules(vec![Rule { when, then: Verdict::Accept(actions) }])
}

/// The list of this name. One that is not there denies everything; it was refused when the configuration was read.
fn prefix_list(bgp: &Bgp, name: &str) -> PrefixList {
    let list = bgp.prefix_lists.iter().find(|list| list.name == name);
    let rules = (1..).zip(list.into_iter().flat_map(|list| &list.rules));
    PrefixList::new(rules.map(|(sequence, rule)| PrefixEntry {
        sequence,
        permit: rule.permit,
        within: rule.net,
        ge: Some(rule.lengths.0),
        le: Some(rule.lengths.1),
    }))
}
