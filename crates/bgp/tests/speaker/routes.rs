//! Routes between speakers: they come, change, go, and wait for room.

use std::sync::Arc;
use std::time::Duration;

use base::Instant;
use bgp::policy::Policy;
use bgp::rib::{LocalKind, MaxPrefixes, Source};
use bgp::session::State;
use bgp::speaker::{EventKind, LocalRoute};
use bgp::{Community, Families, Family, Neighbor, NeighborId};
use ipnet::{IpNet, Ipv4Net};

use super::net::{Net, SECOND, address, asn, neighbor, net};

fn local(prefix: &str) -> LocalRoute {
    LocalRoute::of(net(prefix), LocalKind::Network)
}

fn announce(net: &mut Net, host: usize, prefix: &str) {
    net.command(host, |speaker, now| speaker.announce(&local(prefix), now));
}

fn up(net: &mut Net) {
    let end = net.now + 30 * SECOND;
    assert!(net.run_until(end, Net::is_up), "{net:#?}");
    net.run_for(SECOND);
}

/// `count` prefixes from 10.0.0.0/24 on.
fn many(count: u32) -> impl Iterator<Item = IpNet> {
    (0..count).map(|n| Ipv4Net::new((0x0A00_0000 + (n << 8)).into(), 24).unwrap().into())
}

#[test]
fn a_network_comes_and_goes_along_a_chain() {
    // 0 -- 1 -- 2
    let mut chain = Net::new(3, 1);
    chain.join(0, 1);
    chain.join(1, 2);
    announce(&mut chain, 0, "10.1.0.0/16");
    up(&mut chain);
    let route = &chain.hosts[2].routes[&net("10.1.0.0/16")];
    assert_eq!((route.next_hops[0].address, route.source), (address(1), Some(Source::Peer(NeighborId(1)))));
    let paths = chain.hosts[2].speaker.routes().lookup(net("10.1.0.0/16"));
    assert_eq!(format!("{:?}", paths[0].received.as_path), format!("AsPath([{}, {}])", asn(1), asn(0)));
    announce(&mut chain, 0, "10.2.0.0/16");
    chain.run_for(SECOND);
    assert_eq!(chain.hosts[2].routes.len(), 2);
    chain.command(0, |speaker, now| speaker.withdraw(LocalKind::Network, net("10.1.0.0/16"), now));
    chain.run_for(SECOND);
    assert_eq!(chain.hosts[2].routes.keys().collect::<Vec<_>>(), [&net("10.2.0.0/16")]);
    let middle = chain.hosts[1].status(0, chain.now);
    assert_eq!((middle.ipv4.received, middle.ipv4.accepted), (1, 1));
    assert_eq!(chain.hosts[1].status(2, chain.now).ipv4.advertised, 1);
    // With its neighbour the routes go, all along.
    chain.command(0, |speaker, now| speaker.shut_down(false, now));
    chain.run_for(SECOND);
    assert!(chain.hosts[1].routes.is_empty() && chain.hosts[2].routes.is_empty());
}

#[test]
fn ipv6_routes_go_over_an_ipv4_session_with_a_next_hop_of_their_own() {
    let mut pair = Net::new(2, 2);
    for (host, other) in [(0, 1), (1, 0)] {
        let own = format!("2001:db8::{}", host + 1).parse().unwrap();
        pair.know(host, other, Neighbor { families: Families::ALL, other_next_hop: Some(own), ..neighbor(other) });
    }
    announce(&mut pair, 0, "2001:db8:1::/48");
    announce(&mut pair, 0, "10.1.0.0/16");
    up(&mut pair);
    let hop = |prefix: &str| pair.hosts[1].routes[&net(prefix)].next_hops[0].address.to_string();
    assert_eq!((hop("2001:db8:1::/48"), hop("10.1.0.0/16")), ("2001:db8::1".to_owned(), address(0).to_string()));
    pair.command(0, |speaker, now| speaker.withdraw(LocalKind::Network, net("2001:db8:1::/48"), now));
    pair.run_for(SECOND);
    assert_eq!(pair.hosts[1].routes.len(), 1);
}

#[test]
fn without_a_next_hop_of_the_family_that_is_said_and_nothing_wrong_goes_out() {
    let mut pair = Net::new(2, 3);
    for (host, other) in [(0, 1), (1, 0)] {
        pair.know(host, other, Neighbor { families: Families::ALL, ..neighbor(other) });
    }
    announce(&mut pair, 0, "2001:db8:1::/48");
    announce(&mut pair, 0, "2001:db8:2::/48");
    up(&mut pair);
    let told = pair.hosts[0].told(EventKind::NotAnnounced);
    assert!(told.len() == 1 && told[0].contains("set next-hop for the neighbour"), "{told:?}");
    assert!(pair.hosts[1].routes.is_empty());
}

#[test]
fn without_a_policy_nothing_passes() {
    // RFC 8212, on the way out and on the way in.
    let deny = Arc::new(Policy::Default);
    for (import, export) in [(Policy::accept_all().into(), deny.clone()), (deny.clone(), Policy::accept_all().into())] {
        let mut pair = Net::new(2, 4);
        pair.know(0, 1, Neighbor { export, ..neighbor(1) });
        pair.know(1, 0, Neighbor { import, ..neighbor(0) });
        announce(&mut pair, 0, "10.1.0.0/16");
        up(&mut pair);
        assert!(pair.hosts[1].routes.is_empty());
        // Once there is one, no session need begin anew.
        pair.know(0, 1, neighbor(1));
        pair.know(1, 0, neighbor(0));
        pair.run_for(SECOND);
        assert_eq!((pair.hosts[1].routes.len(), pair.hosts[1].status(0, pair.now).flaps), (1, 0));
    }
}

#[test]
fn too_many_prefixes_end_the_session_until_it_is_reset() {
    let mut pair = Net::new(2, 5);
    pair.know(0, 1, neighbor(1));
    let limit = Some(MaxPrefixes { limit: 10, warn_at: 8 });
    pair.know(1, 0, Neighbor { max_prefixes: limit, ..neighbor(0) });
    up(&mut pair);
    for (count, prefix) in many(9).enumerate() {
        pair.command(0, |speaker, now| speaker.announce(&LocalRoute::of(prefix, LocalKind::Network), now));
        pair.run_for(SECOND);
        assert_eq!(pair.hosts[1].told(EventKind::MaxPrefixesNear).len(), usize::from(count >= 7), "{count}");
    }
    assert!(pair.is_up());
    for prefix in many(11) {
        pair.command(0, |speaker, now| speaker.announce(&LocalRoute::of(prefix, LocalKind::Network), now));
    }
    pair.run_for(SECOND);
    assert!(pair.hosts[1].told(EventKind::MaxPrefixes)[0].contains("more than 10 IPv4 prefixes"));
    let told = pair.hosts[0].told(EventKind::Down);
    assert!(told[0].contains("Maximum Number of Prefixes Reached (6/1)"), "{told:?}");
    pair.run_for(3600 * SECOND);
    assert_eq!((pair.state(1, 0), pair.hosts[1].routes.len()), (State::Idle, 0));
    assert_eq!(pair.hosts[1].status(0, pair.now).held_by, Some("it announced more prefixes than it may"));
    // A higher limit is an answer too.
    pair.know(1, 0, Neighbor { max_prefixes: Some(MaxPrefixes { limit: 20, warn_at: 20 }), ..neighbor(0) });
    let end = pair.now + 200 * SECOND;
    assert!(pair.run_until(end, |pair| pair.hosts[1].routes.len() == 11));
}

#[test]
fn after_too_many_prefixes_it_is_tried_again_where_that_is_wanted() {
    let mut pair = Net::new(2, 6);
    pair.know(0, 1, neighbor(1));
    let limit = Some(MaxPrefixes { limit: 1, warn_at: 1 });
    let restart = Some(300 * SECOND);
    pair.know(1, 0, Neighbor { max_prefixes: limit, max_prefixes_restart: restart, ..neighbor(0) });
    announce(&mut pair, 0, "10.1.0.0/16");
    announce(&mut pair, 0, "10.2.0.0/16");
    pair.run_for(290 * SECOND);
    assert_eq!(pair.hosts[1].status(0, pair.now).established, 1);
    pair.command(0, |speaker, now| speaker.withdraw(LocalKind::Network, net("10.2.0.0/16"), now));
    pair.run_for(200 * SECOND);
    assert!(pair.is_up() && pair.hosts[1].routes.len() == 1);
}

#[test]
fn a_neighbour_that_is_drained_sends_its_traffic_elsewhere_first() {
    // RFC 8326: 1 hears 10.1/16 from 0 and from 2, the better from 0; then 0 drains its session with 1.
    let mut net3 = Net::new(3, 7);
    net3.join(0, 1);
    net3.join(2, 1);
    announce(&mut net3, 0, "10.1.0.0/16");
    announce(&mut net3, 2, "10.1.0.0/16");
    announce(&mut net3, 1, "10.9.0.0/16");
    up(&mut net3);
    let via = |net3: &Net| net3.hosts[1].routes[&net("10.1.0.0/16")].next_hops[0].address;
    assert_eq!(via(&net3), address(0));
    net3.command(0, |speaker, now| speaker.set_draining(NeighborId(1), true, now));
    net3.run_for(SECOND);
    assert_eq!(via(&net3), address(2));
    let paths = net3.hosts[1].speaker.routes().lookup(net("10.1.0.0/16"));
    assert!(paths.iter().any(|path| path.received.communities == [Community::GRACEFUL_SHUTDOWN]));
    assert!(net3.is_up(), "nothing was taken down");
    net3.command(0, |speaker, now| speaker.set_draining(NeighborId(1), false, now));
    net3.run_for(SECOND);
    assert_eq!(via(&net3), address(0));
}

#[test]
fn a_refresh_brings_everything_again_and_takes_nothing_away() {
    let mut pair = Net::pair(8);
    for prefix in many(3000) {
        pair.command(0, |speaker, now| speaker.announce(&LocalRoute::of(prefix, LocalKind::Network), now));
    }
    up(&mut pair);
    let before = pair.hosts[1].status(0, pair.now);
    assert_eq!(before.ipv4.received, 3000);
    assert!(pair.command(1, |speaker, now| speaker.refresh(NeighborId(0), now)));
    pair.run_for(SECOND);
    let after = pair.hosts[1].status(0, pair.now);
    assert_eq!((after.ipv4, pair.hosts[1].routes.len()), (before.ipv4, 3000));
    assert!(after.received.update > before.received.update);
    // RFC 7313: it was told where that begins and ends.
    assert_eq!((after.received.route_refresh, after.sent.route_refresh), (2, 1));
    assert_eq!(after.restart, None);
}

#[test]
fn a_neighbour_that_does_not_read_costs_no_memory_and_hears_the_last_word() {
    let mut pair = Net::pair(9);
    up(&mut pair);
    pair.hosts[1].is_deaf = true;
    for round in 0..20 {
        for prefix in many(5000) {
            let route = LocalRoute { med: Some(round), ..LocalRoute::of(prefix, LocalKind::Network) };
            pair.command(0, |speaker, now| speaker.announce(&route, now));
        }
        pair.run_for(SECOND / 10);
    }
    // 64 KB and no more: some 2,400 messages for a hundred thousand changes.
    let sent = pair.hosts[0].status(1, pair.now).sent.update;
    assert!((2..=3000).contains(&sent), "{sent}");
    pair.hosts[1].is_deaf = false;
    pair.run_for(2 * SECOND);
    assert_eq!(pair.hosts[1].routes.len(), 5000);
    let last = |change: &bgp::speaker::RouteChange| change.med == Some(19);
    assert!(pair.hosts[1].routes.values().all(last));
}

#[test]
fn a_neighbour_that_never_reads_again_is_given_up() {
    let mut pair = Net::pair(10);
    up(&mut pair);
    // It still sends, so the hold time does not run out here; what we send piles up (RFC 9687).
    let mut never = neighbor(0);
    never.timers.hold = Duration::ZERO;
    pair.know(1, 0, never);
    pair.command(1, |speaker, now| speaker.reset(NeighborId(0), now));
    up(&mut pair);
    pair.hosts[1].is_deaf = true;
    for prefix in many(60_000) {
        pair.command(0, |speaker, now| speaker.announce(&LocalRoute::of(prefix, LocalKind::Network), now));
    }
    let blocked = pair.now;
    assert!(pair.run_until(blocked + 600 * SECOND, |pair| pair.hosts[0].status(1, pair.now).flaps == 2));
    assert!(pair.now >= blocked + 470 * SECOND, "{:?}", pair.now - blocked);
    assert!(pair.hosts[0].told(EventKind::Down)[1].contains("not read what we sent"), "{:?}", pair.hosts[0].events);
}

#[test]
fn counts_are_those_of_the_family() {
    let mut pair = Net::pair(11);
    announce(&mut pair, 0, "10.1.0.0/16");
    up(&mut pair);
    let routes = pair.hosts[1].speaker.routes();
    assert_eq!(routes.counts(NeighborId(0), Family::Ipv4).received, 1);
    assert_eq!(routes.counts(NeighborId(0), Family::Ipv6).received, 0);
    assert_eq!(pair.hosts[0].speaker.routes().advertised(NeighborId(1)).count(), 1);
    assert!(pair.now > Instant::ZERO);
}

#[test]
fn a_change_is_told_at_once_and_those_of_the_next_20_ms_together() {
    let mut pair = Net::pair(1);
    let end = pair.now + 20 * SECOND;
    assert!(pair.run_until(end, Net::is_up));
    pair.run_for(SECOND);
    let told = |pair: &Net| pair.hosts[0].status(1, pair.now).sent.update;
    let before = told(&pair);
    for prefix in ["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"] {
        pair.command(0, |speaker, now| speaker.announce(&LocalRoute::of(net(prefix), LocalKind::Network), now));
    }
    assert_eq!(told(&pair) - before, 1);
    pair.run_for(Duration::from_millis(19));
    assert_eq!(told(&pair) - before, 1);
    pair.run_for(Duration::from_millis(1));
    assert_eq!(told(&pair) - before, 2);
    pair.run_for(SECOND);
    assert_eq!((told(&pair) - before, pair.hosts[1].routes.len()), (2, 3));
}
