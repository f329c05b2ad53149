//! The routes that the gateway asked the kernel for, as a person reads them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Gateway;
use crate::output::{Hop, Route, Via};
use crate::status::routing::RouteStatus;

impl Gateway {
    /// At most `limit` routes: the networks of tunnel devices, what the configuration routes into tunnels, and what BGP
    /// learnt and uses. Seconds since they were put in are for the shell to say.
    pub fn routes(&self, limit: usize) -> Vec<RouteStatus> {
        let learnt = self.learnt(limit);
        let connected = self.plan.devices().flat_map(|device| {
            let status = |net: &ipnet::IpNet| RouteStatus {
                destination: net.trunc().to_string(),
                protocol: "connected".to_owned(),
                next_hops: vec![device.name.to_string()],
                source: Some(net.addr().to_string()),
                ..RouteStatus::default()
            };
            device.addresses.iter().map(status).collect::<Vec<_>>()
        });
        // What covers a peer's own address is in the plan although BGP learnt it.
        let planned = self.plan.routes().filter(|route| !learnt.contains_key(&route.destination.to_string()));
        let planned = planned.map(|route| self.route_status(route));
        connected.chain(planned).chain(learnt.values().cloned()).take(limit).collect()
    }

    fn route_status(&self, route: &Route) -> RouteStatus {
        let destination = route.destination.to_string();
        let next_hops = match &route.via {
            Via::Hops(hops) => hops.iter().map(hop).collect(),
            Via::Throw => vec!["throw".to_owned()],
            Via::Unreachable => vec!["unreachable".to_owned()],
        };
        let vpns = self.router.vpn_models().filter(|vpn| vpn.routes.iter().any(|net| net.trunc() == route.destination));
        let mut from: Vec<String> = vpns.map(|vpn| vpn.name.clone()).collect();
        if from.is_empty() {
            from = self.owners(&next_hops, route);
        }
        RouteStatus {
            destination,
            protocol: "static".to_owned(),
            next_hops,
            table: route.table,
            metric: route.metric,
            source: route.source.map(|ip| ip.to_string()),
            for_s: None,
            from,
        }
    }

    /// The connections that lead there through one of these devices.
    fn owners(&self, devices: &[String], route: &Route) -> Vec<String> {
        let leads = |child: &model::Child| match &child.routing {
            model::Routing::Policy => child.remote.iter().any(|remote| remote.net.trunc() == route.destination),
            model::Routing::Device { name, .. } => devices.contains(name),
        };
        let all = self.records.values().filter(|record| record.connection.children.iter().any(leads));
        all.map(|record| record.name.to_string()).collect()
    }

    /// What BGP uses, by destination.
    fn learnt(&self, limit: usize) -> BTreeMap<String, RouteStatus> {
        let mut learnt: BTreeMap<String, RouteStatus> = BTreeMap::new();
        let used = self.bgp_paths(None, limit.saturating_mul(2)).into_iter().filter(|path| path.is_used);
        for path in used {
            let Some(neighbor) = path.neighbor else { continue };
            let route = learnt.entry(path.prefix.clone()).or_insert_with(|| RouteStatus {
                destination: path.prefix,
                protocol: "bgp".to_owned(),
                metric: self.router.bgp_metric().unwrap_or_default(),
                table: self.options.route_table,
                ..RouteStatus::default()
            });
            route.next_hops.push(format!("via {}", path.next_hop));
            route.from.push(neighbor);
        }
        learnt
    }
}

fn hop(hop: &Hop) -> String {
    let device: Option<&Arc<str>> = hop.device.as_ref();
    match (hop.gateway, device) {
        (Some(gateway), Some(device)) => format!("via {gateway} {device}"),
        (Some(gateway), None) => format!("via {gateway}"),
        (None, Some(device)) => device.to_string(),
        (None, None) => "nowhere".to_owned(),
    }
}
