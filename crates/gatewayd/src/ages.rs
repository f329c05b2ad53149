//! Since when the routes are there that the configuration asks for. Of learnt ones there may be a million: nothing is
//! kept of them.

use std::collections::BTreeMap;

use base::Instant;
use gateway::status::routing::RouteStatus;
use gateway::{Route, RouteChange};
use ipnet::IpNet;

/// The routes, and when each was put in or changed.
#[derive(Debug, Default)]
pub(crate) struct Ages(BTreeMap<(IpNet, Option<u32>, u32), Instant>);

impl Ages {
    /// A change is about to be made.
    pub(crate) fn note(&mut self, change: &RouteChange, now: Instant) {
        let place = |route: &Route| (route.destination, route.table, route.metric);
        match change {
            RouteChange::Add(route) => drop(self.0.insert(place(route), now)),
            RouteChange::Remove(route) => drop(self.0.remove(&place(route))),
            RouteChange::AddRule(_) | RouteChange::RemoveRule(_) => {}
        }
    }

    /// Fills them in.
    pub(crate) fn fill(&self, routes: &mut [RouteStatus], now: Instant) {
        for route in routes {
            let place = route.destination.parse().map(|destination| (destination, route.table, route.metric));
            let since = place.ok().and_then(|place| self.0.get(&place)).copied();
            route.for_s = since.map(|at| now.saturating_since(at).as_secs());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway::Via;
    use std::time::Duration;

    #[test]
    fn a_route_is_as_old_as_its_last_change() {
        let at = |s| Instant::ZERO + Duration::from_secs(s);
        let route = |metric| Route {
            destination: "10.0.0.0/8".parse().unwrap(),
            via: Via::Unreachable,
            table: None,
            metric,
            source: None,
        };
        let mut ages = Ages::default();
        ages.note(&RouteChange::Add(route(0)), at(1));
        ages.note(&RouteChange::Add(route(0)), at(5));
        ages.note(&RouteChange::Add(route(7)), at(6));
        ages.note(&RouteChange::Remove(route(7)), at(7));
        let status = |metric| RouteStatus { destination: "10.0.0.0/8".into(), metric, ..RouteStatus::default() };
        let mut routes = [status(0), status(7)];
        ages.fill(&mut routes, at(15));
        assert_eq!(routes.map(|route| route.for_s), [Some(10), None]);
    }
}
