//! From what is in use to Adj-RIB-Out: which routes a neighbour may have, and how they look to it.

use std::sync::Arc;

use ipnet::IpNet;

use super::routes::Route;
use super::{AnnouncedNextHop, PeerOptions, Session};
use crate::policy::{Policy, add};
use crate::{Asn, Attributes, Community};

/// The rule of a default route that is announced because [`PeerOptions::default_originate`] says so.
pub(super) const ORIGINATED: u16 = u16::MAX;

/// Whose route it is that may go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    Ourselves,
    External,
    Internal,
}

/// All that decides what a neighbour is told: those alike in this are told the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Class {
    is_internal: bool,
    local_as: Asn,
    default_local_pref: u32,
    policy: Arc<Policy>,
    next_hop_self: bool,
    remove_private_as: bool,
    default_originate: bool,
    is_draining: bool,
    long_lived: bool,
}

impl Class {
    pub(super) fn of(peer: &PeerOptions, session: &Session, is_draining: bool, default_local_pref: u32) -> Self {
        Self {
            is_internal: peer.is_internal(),
            local_as: peer.local_as,
            default_local_pref,
            policy: Arc::clone(&peer.export),
            next_hop_self: peer.next_hop_self,
            remove_private_as: peer.remove_private_as,
            default_originate: peer.default_originate,
            is_draining,
            long_lived: session.long_lived,
        }
    }

    /// Whether a default route goes out whatever there is.
    pub(super) fn originates_default(&self) -> bool {
        // RFC 8212 §2: without a policy nothing is announced.
        self.default_originate && *self.policy != Policy::Default
    }

    /// The number of the rule by which a route goes out; `None`: it does not.
    pub(super) fn permits(&self, prefix: &IpNet, attributes: &Attributes, from: From) -> Option<u16> {
        // RFC 4271 §9.2: what internal neighbours told is not told to internal neighbours.
        if from == From::Internal && self.is_internal {
            return None;
        }
        let has = |community: Community| attributes.communities.contains(&community);
        // RFC 1997: and without confederations NO_EXPORT_SUBCONFED is as NO_EXPORT.
        let is_kept_inside = has(Community::NO_EXPORT) || has(Community::NO_EXPORT_SUBCONFED);
        if has(Community::NO_ADVERTISE) || (is_kept_inside && !self.is_internal) {
            return None;
        }
        // RFC 9494 §4.3: only to those who know what it means.
        if has(Community::LLGR_STALE) && !self.long_lived {
            return None;
        }
        self.policy.decide(prefix, attributes)
    }

    /// How a route that goes out by a rule looks.
    pub(super) fn exported(&self, route: &Route, rule: u16, from: From) -> (Arc<Attributes>, AnnouncedNextHop) {
        let mut shared = Arc::clone(&route.attributes);
        let attributes = Arc::make_mut(&mut shared);
        if self.is_internal {
            attributes.local_pref.get_or_insert(self.default_local_pref);
        } else {
            // RFC 4271 §5.1.4: MULTI_EXIT_DISC of one AS is not for another.
            if from != From::Ourselves {
                attributes.med = None;
            }
            // RFC 4360 §6: bit 0x40 of the type says that it stays within the AS.
            attributes.extended_communities.retain(|community| community[0] & 0x40 == 0);
            if self.remove_private_as {
                attributes.as_path.remove_private();
            }
        }
        attributes.originator_id = None;
        attributes.cluster_list.clear();
        let mut next_hop = None;
        for action in self.policy.actions(rule) {
            action.apply(&mut shared, &mut next_hop, (!self.is_internal).then_some(self.local_as));
        }
        let attributes = Arc::make_mut(&mut shared);
        if self.is_draining {
            // RFC 8326 §4.2.
            add(&mut attributes.communities, &[Community::GRACEFUL_SHUTDOWN]);
            attributes.local_pref = Some(0);
        }
        if !self.is_internal {
            // RFC 4271 §5.1.5, §5.1.2.
            attributes.local_pref = None;
            attributes.as_path.prepend(self.local_as, 1);
        }
        let kept = route.next_hop.filter(|_| self.is_internal && !self.next_hop_self && from != From::Ourselves);
        (shared, next_hop.or(kept).map_or(AnnouncedNextHop::Ourselves, AnnouncedNextHop::Address))
    }
}
