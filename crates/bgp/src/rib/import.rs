//! From Adj-RIB-In to the decision: loops, policy, and what a neighbour may not tell us.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::peer::Peer;
use super::routes::{RouteId, Routes};
use super::table::LONG_LIVED;
use super::{Options, PeerOptions};
use crate::policy::{Policy, add};
use crate::{Asn, Attributes, Community};

/// Import for one neighbour. Prefixes with the same attributes come one after the other, so the last answer is
/// remembered, and held until the end.
pub(super) struct Import<'a> {
    options: &'a Options,
    policy: Arc<Policy>,
    asn: Asn,
    local_as: Asn,
    allow_own_as: u8,
    graceful_shutdown: bool,
    is_draining: bool,
    /// The received route that `is_loop` is about.
    checked: RouteId,
    is_loop: bool,
    last: Option<Answer>,
}

struct Answer {
    received: RouteId,
    rule: u16,
    is_long_lived: bool,
    accepted: RouteId,
}

impl<'a> Import<'a> {
    pub(super) fn new(options: &'a Options, peer: &Peer) -> Self {
        let PeerOptions { asn, local_as, allow_own_as, graceful_shutdown, .. } = peer.options;
        Self {
            options,
            policy: Arc::clone(&peer.options.import),
            asn,
            local_as,
            allow_own_as,
            graceful_shutdown,
            is_draining: peer.is_draining,
            checked: RouteId::NONE,
            is_loop: false,
            last: None,
        }
    }

    /// What a received route becomes for a prefix, held once; `NONE`: it does not pass.
    pub(super) fn accept(&mut self, routes: &mut Routes, received: RouteId, marks: u16, prefix: &IpNet) -> RouteId {
        let route = routes.at(received);
        if self.checked != received {
            (self.checked, self.is_loop) = (received, self.is_loop(&route.attributes));
        }
        if self.is_loop {
            return RouteId::NONE;
        }
        let Some(rule) = self.policy.decide(prefix, &route.attributes) else { return RouteId::NONE };
        let is_long_lived = marks & LONG_LIVED != 0;
        if let Some(last) = &self.last
            && (last.received, last.rule, last.is_long_lived) == (received, rule, is_long_lived)
        {
            routes.hold(last.accepted);
            return last.accepted;
        }
        let (mut attributes, mut next_hop) = (Arc::clone(&route.attributes), route.next_hop);
        self.change(&mut attributes, &mut next_hop, rule, is_long_lived);
        let accepted = routes.hold_content(&attributes, next_hop);
        routes.hold(accepted);
        let answer = Answer { received, rule, is_long_lived, accepted };
        if let Some(before) = self.last.replace(answer) {
            routes.release(before.accepted);
        }
        accepted
    }

    /// Lets go of what is remembered.
    pub(super) fn finish(self, routes: &mut Routes) {
        if let Some(last) = self.last {
            routes.release(last.accepted);
        }
    }

    /// RFC 4271 §9.1.2, RFC 4456 §8: a route that has been here is not considered.
    fn is_loop(&self, attributes: &Attributes) -> bool {
        let allowed = usize::from(self.allow_own_as);
        let own = self.options.asn;
        let mut seen = attributes.as_path.count_of(own);
        if self.local_as != own {
            seen += attributes.as_path.count_of(self.local_as);
        }
        let id = self.options.router_id;
        let was_reflected = attributes.originator_id == Some(id) || attributes.cluster_list.contains(&id);
        seen > allowed || (self.is_internal() && was_reflected)
    }

    fn is_internal(&self) -> bool {
        self.asn == self.local_as
    }

    fn change(&self, attributes: &mut Arc<Attributes>, next_hop: &mut Option<IpAddr>, rule: u16, is_long_lived: bool) {
        let is_external = !self.is_internal();
        if is_external {
            // RFC 4271 §5.1.5, RFC 4456 §8: these are for internal neighbours; from external ones they mean nothing.
            let Attributes { local_pref, originator_id, cluster_list, .. } = &**attributes;
            if local_pref.is_some() || originator_id.is_some() || !cluster_list.is_empty() {
                let attributes = Arc::make_mut(attributes);
                (attributes.local_pref, attributes.originator_id) = (None, None);
                attributes.cluster_list.clear();
            }
        }
        for action in self.policy.actions(rule) {
            action.apply(attributes, next_hop, is_external.then_some(self.asn));
        }
        // RFC 8326 §4.3: whoever goes away soon is the last resort. After the policy, which cannot know.
        let is_shutting_down =
            self.graceful_shutdown && is_external && attributes.communities.contains(&Community::GRACEFUL_SHUTDOWN);
        if (is_shutting_down || self.is_draining) && attributes.local_pref != Some(0) {
            Arc::make_mut(attributes).local_pref = Some(0);
        }
        if is_long_lived && !attributes.communities.contains(&Community::LLGR_STALE) {
            add(&mut Arc::make_mut(attributes).communities, &[Community::LLGR_STALE]);
        }
    }
}
