//! One VPN connection: its tunnels, which of them carry its traffic, and the routes that follow.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use base::Instant;
use model::{Fallback, Mode};

use super::choice::{Candidate, choose};
use super::{Tunnel, devices};
use crate::health::{Grade, Health, TunnelId};
use crate::output::{Hop, Route, Severity, Via};
use crate::status::routing::{TunnelStatus, VpnStatus};

/// The metric of the route that refuses packets while no tunnel is fit: anything else comes before it.
pub(super) const LAST_METRIC: u32 = u32::MAX - 1;

/// A VPN connection as it runs.
#[derive(Debug)]
pub(super) struct Vpn {
    pub(super) model: model::Vpn,
    /// Preferred first.
    pub(super) tunnels: Vec<TunnelId>,
    /// Those that carry traffic, preferred first.
    active: Vec<TunnelId>,
    active_since: Instant,
    why: String,
    is_up: bool,
    /// Whether what carries its traffic ends on purpose.
    is_leaving: bool,
    since: Instant,
}

impl Vpn {
    pub(super) fn new(model: model::Vpn, tunnels: Vec<TunnelId>, known: Option<&Self>, now: Instant) -> Self {
        match known {
            Some(known) => Self {
                model,
                tunnels,
                active: known.active.clone(),
                why: known.why.clone(),
                ..Self {
                    model: known.model.clone(),
                    tunnels: Vec::new(),
                    active: Vec::new(),
                    why: String::new(),
                    ..*known
                }
            },
            None => Self {
                model,
                tunnels,
                active: Vec::new(),
                active_since: now,
                why: "no tunnel was fit yet".to_owned(),
                is_up: false,
                is_leaving: false,
                since: now,
            },
        }
    }

    /// Whether a tunnel of it is fit for traffic.
    pub(super) const fn is_up(&self) -> bool {
        self.is_up
    }

    /// Chooses anew; what changed, in words, when something did.
    pub(super) fn choose(
        &mut self,
        tunnels: &BTreeMap<TunnelId, Tunnel>,
        health: &Health,
        now: Instant,
    ) -> Option<(Severity, String)> {
        let grade = |id: &TunnelId| health.status(*id, now).map_or(Grade::Unhealthy, |status| status.grade);
        let candidates: Vec<Candidate> = self
            .tunnels
            .iter()
            .map(|id| {
                let tunnel = tunnels.get(id);
                Candidate {
                    grade: grade(id),
                    is_drained: tunnel.is_some_and(|tunnel| tunnel.is_drained || tunnel.is_drained_by_peer),
                    is_leaving: tunnel.is_some_and(|tunnel| tunnel.is_leaving),
                    comes_with_traffic: tunnel.is_some_and(|tunnel| tunnel.comes_with_traffic),
                }
            })
            .collect();
        let chosen = choose(self.model.mode, &candidates);
        let active: Vec<TunnelId> = chosen.iter().filter_map(|place| self.tunnels.get(*place).copied()).collect();
        let stays =
            |id: &TunnelId| !tunnels.get(id).is_some_and(|tunnel| tunnel.is_leaving || tunnel.is_drained_by_peer);
        let is_up = active.iter().any(|id| grade(id) > Grade::Unhealthy && stays(id));
        self.is_leaving = active.iter().any(|id| !stays(id));
        if self.is_up != is_up {
            (self.is_up, self.since) = (is_up, now);
        }
        if active == self.active {
            return None;
        }
        let name = |id: &TunnelId| tunnels.get(id).map(|tunnel| tunnel.label.to_string()).unwrap_or_default();
        let names = |ids: &[TunnelId]| ids.iter().map(name).collect::<Vec<_>>().join(" and ");
        let why = self.reason(&active, tunnels, health, now);
        let text = match active.is_empty() {
            true => format!("the VPN connection {} has no tunnel that is fit for traffic: {why}", self.model.name),
            false => format!("traffic of {} goes over {} now: {why}", self.model.name, names(&active)),
        };
        (self.active, self.active_since, self.why) = (active, now, why);
        Some((if is_up { Severity::Info } else { Severity::Warning }, text))
    }

    /// Why the choice is another: what became of a tunnel that is not used any more, else what is new.
    fn reason(
        &self,
        active: &[TunnelId],
        tunnels: &BTreeMap<TunnelId, Tunnel>,
        health: &Health,
        now: Instant,
    ) -> String {
        let describe = |id: &TunnelId| {
            let (tunnel, status) = (tunnels.get(id)?, health.status(*id, now)?);
            Some(match (tunnel.is_drained, status.grade) {
                (true, _) => format!("{} is drained", tunnel.label),
                (false, Grade::Healthy) if tunnel.is_drained_by_peer => {
                    format!("{} is drained by the other end", tunnel.label)
                }
                (false, Grade::Healthy) if tunnel.is_leaving => format!("{} is taken down", tunnel.label),
                (false, Grade::Healthy) => format!("{} is fit for traffic", tunnel.label),
                (false, Grade::Settling | Grade::Unhealthy) => format!("{}: {}", tunnel.label, status.reason),
            })
        };
        let left = self.active.iter().find(|id| !active.contains(id));
        let is_worse = |id: &&TunnelId| health.status(**id, now).is_none_or(|status| status.grade < Grade::Healthy);
        let is_avoided = |tunnel: &Tunnel| tunnel.is_drained || tunnel.is_drained_by_peer || tunnel.is_leaving;
        let is_drained = |id: &&TunnelId| tunnels.get(id).is_some_and(is_avoided);
        let culprit = left.filter(|id| is_worse(id) || is_drained(id));
        let new = active.iter().find(|id| !self.active.contains(id));
        culprit.or(new).or(left).and_then(describe).unwrap_or_else(|| "its tunnels changed".to_owned())
    }

    /// The routes that it asks for.
    pub(super) fn routes(&self, tunnels: &BTreeMap<TunnelId, Tunnel>, own: &[IpAddr]) -> Vec<Route> {
        let devices = devices(tunnels, &self.active);
        let first = self.active.first().and_then(|id| tunnels.get(id));
        let mut routes = Vec::new();
        for destination in &self.model.routes {
            let destination = destination.trunc();
            let route = |via, metric, source| Route { destination, via, table: None, metric, source };
            if !devices.is_empty() {
                let hop = |device: &Arc<str>| Hop { device: Some(device.clone()), gateway: None };
                let source = first.and_then(|tunnel| tunnel.source(destination, own));
                routes.push(route(Via::Hops(devices.iter().map(hop).collect()), self.model.metric, source));
            }
            if self.model.fallback == Fallback::Unreachable {
                routes.push(route(Via::Unreachable, LAST_METRIC, None));
            }
        }
        routes
    }

    pub(super) fn status(
        &self,
        tunnels: &BTreeMap<TunnelId, Tunnel>,
        statuses: impl Iterator<Item = TunnelStatus>,
        now: Instant,
    ) -> VpnStatus {
        let name = |id: &TunnelId| Some(tunnels.get(id)?.label.to_string());
        VpnStatus {
            name: self.model.name.clone(),
            state: match (self.is_up, self.is_leaving) {
                (true, _) => "up",
                (false, true) => "leaving",
                (false, false) => "down",
            }
            .to_owned(),
            for_s: now.saturating_since(self.since).as_secs(),
            mode: match self.model.mode {
                Mode::ActiveStandby => "active_standby",
                Mode::ActiveActive => "active_active",
            }
            .to_owned(),
            active: self.active.iter().filter_map(name).collect(),
            active_for_s: now.saturating_since(self.active_since).as_secs(),
            why: self.why.clone(),
            tunnels: statuses.collect(),
            routes: self.model.routes.iter().map(ToString::to_string).collect(),
        }
    }
}
