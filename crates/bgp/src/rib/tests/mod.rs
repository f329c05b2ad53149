//! Tests of the routing tables, and what they share: a table of named neighbours, and routes in one line.

mod advertise;
mod choose;
mod limits;
mod model;
mod stale;

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::*;
use crate::{Asn, Community};

const OUR_AS: Asn = 65_000;

/// An internal neighbour, and external ones of these ASes.
const INTERNAL: PeerId = PeerId(1);
const A: PeerId = PeerId(10);
const B: PeerId = PeerId(11);
const C: PeerId = PeerId(12);

fn asn_of(peer: PeerId) -> Asn {
    if peer == INTERNAL { OUR_AS } else { 100 * peer.0 }
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn address(peer: PeerId) -> IpAddr {
    [169, 254, 0, peer.0 as u8].into()
}

fn accept() -> Arc<Policy> {
    Arc::new(Policy::accept_all())
}

fn options() -> Options {
    Options::of(OUR_AS, [10, 0, 0, 1].into())
}

fn peer_options(peer: PeerId) -> PeerOptions {
    let options = PeerOptions::of(address(peer), asn_of(peer), OUR_AS);
    PeerOptions { import: accept(), export: accept(), ..options }
}

fn session(peer: PeerId) -> Session {
    Session { router_id: [1, 1, 1, peer.0 as u8].into(), families: Families::ALL, long_lived: false }
}

/// A table with these neighbours, up.
fn rib_with(options: Options, peers: &[PeerId]) -> Rib {
    let mut rib = Rib::new(options);
    for &peer in peers {
        assert!(rib.upsert_peer(peer, peer_options(peer)));
        rib.peer_up(peer, session(peer));
    }
    rib
}

fn rib(peers: &[PeerId]) -> Rib {
    rib_with(options(), peers)
}

fn attributes(path: &[Asn]) -> Attributes {
    Attributes { as_path: AsPath(path.to_vec()), ..own_attributes() }
}

impl Rib {
    /// The neighbour announces a prefix with itself as the next hop.
    fn take(&mut self, peer: PeerId, prefix: &str, attributes: Attributes) {
        let verdict = self.update(peer, address(peer), &Arc::new(attributes), [net(prefix)]);
        assert_eq!(verdict, UpdateVerdict::Kept);
    }

    fn lose(&mut self, peer: PeerId, prefix: &str) {
        self.withdraw(peer, [net(prefix)]);
    }

    /// All changes: the prefix and the neighbours in use.
    fn changes(&mut self) -> Vec<(String, Vec<PeerId>)> {
        let peers =
            |change: &Change| change.route.iter().flat_map(|route| &route.next_hops).map(|hop| hop.peer).collect();
        std::iter::from_fn(|| self.poll_change()).map(|change| (change.prefix.to_string(), peers(&change))).collect()
    }

    /// All that a neighbour is told, a line a message.
    fn told(&mut self, peer: PeerId) -> Vec<String> {
        std::iter::from_fn(|| self.poll_change()).for_each(drop);
        let mut lines = Vec::new();
        while let Some(part) = self.next_advertisement(peer, 100) {
            assert!(lines.len() < 1_000, "it does not end");
            lines.push(line(&part));
        }
        assert!(!self.has_advertisement(peer));
        lines
    }
}

fn list(prefixes: &[IpNet]) -> String {
    prefixes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn line(part: &Advertisement) -> String {
    match part {
        Advertisement::Withdraw { prefixes, .. } => format!("- {}", list(prefixes)),
        Advertisement::Announce { route, prefixes, .. } => {
            let Outgoing { attributes, next_hop, .. } = &**route;
            let path = match attributes.as_path.0.as_slice() {
                [] => String::new(),
                path => format!("{path:?}"),
            };
            let hop = match next_hop {
                AnnouncedNextHop::Ourselves => "self".to_owned(),
                AnnouncedNextHop::Address(address) => address.to_string(),
            };
            let mut text = format!("+ {} {path} via {hop}", list(prefixes));
            let numbers = [("lp", attributes.local_pref), ("med", attributes.med)];
            for (name, value) in numbers.into_iter().filter_map(|(name, value)| Some((name, value?))) {
                text += &format!(" {name} {value}");
            }
            for community in &attributes.communities {
                text += &format!(" {}:{}", community.0 >> 16, community.0 & 0xffff);
            }
            text
        }
    }
}
