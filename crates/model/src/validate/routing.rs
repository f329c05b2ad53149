//! Whether VPN connections and BGP make sense.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::{Found, Problem, Severity};
use crate::{Bgp, Config, Neighbor, Probe, Routing, Source, Vpn};

/// AS_TRANS (RFC 6793 §9): no speaker has it.
const AS_TRANS: u32 = 23_456;

/// What one problem is about, and where it stands.
pub(super) struct Subject<'a> {
    pub(super) about: String,
    pub(super) source: &'a Option<Source>,
}

impl Subject<'_> {
    pub(super) fn problem(&self, severity: Severity, message: String, found: &mut Found) {
        let (about, source) = (self.about.clone(), self.source.clone());
        found.0.push(Problem { severity, about, setting: None, source, message });
    }

    pub(super) fn error(&self, message: String, found: &mut Found) {
        self.problem(Severity::Error, message, found);
    }
}

pub(super) fn check(config: &Config, found: &mut Found) {
    let mut names = BTreeSet::new();
    let mut tunnels = BTreeMap::new();
    for vpn in &config.vpns {
        let subject = Subject { about: format!("vpn {}", vpn.name), source: &vpn.source };
        if !names.insert(&vpn.name) {
            subject.error("this name is used twice".to_owned(), found);
        }
        for tunnel in &vpn.tunnels {
            check_tunnel(config, tunnel, &subject, found);
            if let Some(other) = tunnels.insert(tunnel, &vpn.name) {
                subject.error(format!("the tunnel {tunnel} is a tunnel of {other} already"), found);
            }
        }
        check_vpn(config, vpn, &subject, found);
    }
    check_inside_addresses(config, found);
    if let Some(bgp) = &config.bgp {
        check_bgp(config, bgp, found);
    }
}

fn check_tunnel(config: &Config, name: &str, subject: &Subject<'_>, found: &mut Found) {
    if config.tunnel(name).is_some() {
        return;
    }
    let message = match config.connections.iter().find(|c| c.name == name) {
        Some(connection) if connection.children.len() > 1 => {
            let names: Vec<_> = connection.children.iter().map(|c| format!("{name}/{}", c.name)).collect();
            format!("{name} has several children: name one of {}", names.join(", "))
        }
        Some(_) => format!("the tunnel {name} needs a device of its own: give its child a `device`"),
        None => format!("there is no tunnel {name}"),
    };
    subject.error(message, found);
}

fn check_vpn(config: &Config, vpn: &Vpn, subject: &Subject<'_>, found: &mut Found) {
    if vpn.tunnels.is_empty() {
        subject.error("it has no tunnels".to_owned(), found);
    }
    let tunnels = || vpn.tunnels.iter().filter_map(|name| Some((name, config.tunnel(name)?)));
    for (name, tunnel) in tunnels() {
        let own = tunnel.connection.remote.address.ip();
        let covers = |net: &&IpNet| net.prefix_len() > 0 && own.is_some_and(|ip| net.contains(&ip));
        if let Some(route) = vpn.routes.iter().find(covers) {
            let message = format!("the route {route} would send the packets of its own tunnel {name} into the tunnel");
            subject.error(message, found);
        }
    }
    if let Some(probe) = &vpn.health.probe {
        check_probe(probe, subject, found);
        for (name, _) in tunnels()
            .enumerate()
            .filter(|(i, (_, t))| probe.targets.get(*i).is_none() && t.far_end().is_none())
            .map(|(_, t)| t)
        {
            let message = format!("it is not known whom a probe through {name} is to ask: give it a target");
            subject.error(message, found);
        }
    }
    if let Some(bfd) = vpn.health.bfd {
        check_bfd(bfd, subject, found);
        for (name, _) in tunnels().filter(|(_, tunnel)| tunnel.far_end().is_none()) {
            let message = format!("BFD needs an inside network of two hosts, such as 169.254.10.2/30, on {name}");
            subject.error(message, found);
        }
    }
}

fn check_probe(probe: &Probe, subject: &Subject<'_>, found: &mut Found) {
    if probe.interval < Duration::from_millis(100) {
        subject.error("a probe more often than every 100 ms is a flood".to_owned(), found);
    }
    if probe.loss == 0 {
        subject.error("a probe needs at least one loss to decide by".to_owned(), found);
    }
}

fn check_bfd(bfd: crate::BfdTimers, subject: &Subject<'_>, found: &mut Found) {
    if !(Duration::from_millis(10)..=Duration::from_secs(10)).contains(&bfd.interval) || bfd.multiplier == 0 {
        subject.error("BFD intervals are 10 ms to 10 s, and the multiplier is at least 1".to_owned(), found);
    }
}

/// The inside networks of two tunnels must not overlap: an answer would take the wrong one.
fn check_inside_addresses(config: &Config, found: &mut Found) {
    let mut seen: Vec<(IpNet, String)> = Vec::new();
    for connection in &config.connections {
        for child in &connection.children {
            let Routing::Device { name, addresses, .. } = &child.routing else { continue };
            for net in addresses {
                let overlaps =
                    |(other, _): &&(IpNet, String)| other.contains(&net.trunc()) || net.trunc().contains(other);
                if let Some((other, owner)) = seen.iter().find(overlaps) {
                    let message = format!("its inside network {} overlaps {other} of {owner}", net.trunc());
                    found.error(connection, crate::Setting::Connection, message);
                }
                seen.push((net.trunc(), name.clone()));
            }
        }
    }
}

fn check_bgp(config: &Config, bgp: &Bgp, found: &mut Found) {
    let subject = Subject { about: "bgp".to_owned(), source: &bgp.source };
    if bgp.asn == 0 || bgp.asn == AS_TRANS {
        subject.error(format!("{} cannot be our AS", bgp.asn), found);
    }
    if bgp.router_id.is_some_and(|id| id.is_unspecified()) {
        subject.error("the router ID cannot be 0.0.0.0".to_owned(), found);
    }
    if bgp.multipath == 0 || bgp.multipath > 64 {
        subject.error("multipath is 1 to 64".to_owned(), found);
    }
    if bgp.restart_time > Duration::from_secs(4_095) {
        subject.error("the restart time is at most 4095s".to_owned(), found);
    }
    let mut addresses = BTreeSet::new();
    for neighbor in &bgp.neighbors {
        let subject = Subject { about: format!("bgp neighbor {}", neighbor.address), source: &neighbor.source };
        if !addresses.insert(neighbor.address) {
            subject.error("this neighbor is there twice".to_owned(), found);
        }
        check_neighbor(config, bgp, neighbor, &subject, found);
    }
    let mut names = BTreeSet::new();
    for list in &bgp.prefix_lists {
        if !names.insert(&list.name) {
            subject.error(format!("the prefix list {} is there twice", list.name), found);
        }
        for rule in &list.rules {
            let (shortest, longest) = rule.lengths;
            if shortest < rule.net.prefix_len() || longest < shortest || longest > rule.net.max_prefix_len() {
                let message =
                    format!("prefix list {}: {} has no prefixes of {shortest} to {longest}", list.name, rule.net);
                subject.error(message, found);
            }
        }
    }
}

fn check_neighbor(config: &Config, bgp: &Bgp, neighbor: &Neighbor, subject: &Subject<'_>, found: &mut Found) {
    if neighbor.remote_as == 0 || neighbor.remote_as == AS_TRANS {
        subject.error(format!("{} cannot be its AS", neighbor.remote_as), found);
    }
    if bgp.router_id.is_some_and(|id| neighbor.address == id) {
        subject.error(format!("our router ID {} is its address: two speakers need two", neighbor.address), found);
    }
    if let Some(name) = &neighbor.tunnel {
        check_tunnel(config, name, subject, found);
        if let Some(tunnel) = config.tunnel(name) {
            let own = tunnel.addresses;
            if own.iter().any(|net| net.addr() == neighbor.address) {
                let message = format!("{} is our own address on {}", neighbor.address, tunnel.device);
                subject.error(message, found);
            } else if !own.is_empty() && !own.iter().any(|net| net.contains(&neighbor.address)) {
                let nets: Vec<_> = own.iter().map(ToString::to_string).collect();
                let message = format!("it is not in the inside network {} of {name}", nets.join(", "));
                subject.problem(Severity::Warning, message, found);
            }
        }
    } else if neighbor.import.is_none() && neighbor.export.is_none() {
        let message = "it is not a tunnel's and has no import and no export list: no routes are exchanged (RFC 8212)";
        subject.problem(Severity::Warning, message.to_owned(), found);
    }
    for list in [&neighbor.import, &neighbor.export].into_iter().flatten() {
        if !bgp.prefix_lists.iter().any(|known| known.name == *list) {
            subject.error(format!("there is no prefix list {list}"), found);
        }
    }
    // RFC 4271 §4.2: zero or at least three seconds.
    if !neighbor.hold.is_zero() && neighbor.hold < Duration::from_secs(3) {
        subject.error("the hold time is zero or at least 3s".to_owned(), found);
    }
    if neighbor.hold > Duration::from_secs(u16::MAX.into()) {
        subject.error("the hold time is at most 65535s".to_owned(), found);
    }
    if !neighbor.hold.is_zero() && neighbor.keepalive >= neighbor.hold {
        subject.error("keepalive messages must come more often than the hold time".to_owned(), found);
    }
    if neighbor.prepend > 16 {
        subject.error("the AS is prepended at most 16 times".to_owned(), found);
    }
    if !(neighbor.families.ipv4 || neighbor.families.ipv6) {
        subject.error("it has no address family".to_owned(), found);
    }
    check_next_hop(config, neighbor, subject, found);
    if neighbor.password.as_ref().is_some_and(|key| key.is_empty() || key.expose().len() > 80) {
        subject.error("the key of TCP MD5 has 1 to 80 bytes".to_owned(), found);
    }
    if let Some(bfd) = neighbor.bfd {
        check_bfd(bfd, subject, found);
    }
}

/// A next hop is of the family of its routes (RFC 4760 §3; without RFC 8950), and a session has an address of one family.
fn check_next_hop(config: &Config, neighbor: &Neighbor, subject: &Subject<'_>, found: &mut Found) {
    let is_other = |ip: IpAddr| ip.is_ipv4() != neighbor.address.is_ipv4();
    match neighbor.next_hop {
        Some(next_hop) if !is_other(next_hop) => {
            subject.error(format!("next-hop {next_hop} is of the family of the session, which needs none"), found);
        }
        Some(_) => {}
        None => {
            let tunnel = neighbor.tunnel.as_ref().and_then(|name| config.tunnel(name));
            let has_other = tunnel.is_some_and(|tunnel| tunnel.addresses.iter().any(|net| is_other(net.addr())));
            if neighbor.families.ipv4 && neighbor.families.ipv6 && !has_other {
                let family = if neighbor.address.is_ipv4() { "IPv6" } else { "IPv4" };
                let message =
                    format!("no {family} route is announced to it: that needs our {family} address as next-hop");
                subject.problem(Severity::Warning, message, found);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Address, BfdTimers, Child, Connection, PrefixList, PrefixRule, Selector, validate};

    fn tunnel(n: u8) -> Connection {
        let mut connection = Connection::named(format!("tunnel{n}"));
        connection.remote.address = Address::Ip([192, 0, 2, n].into());
        connection.psk = vec![base::Secret::from(&b"key"[..])];
        let mut child = Child::named(format!("tunnel{n}"));
        child.local = vec![Selector::net("0.0.0.0/0".parse().unwrap())];
        child.remote = child.local.clone();
        child.routing = Routing::Device {
            name: format!("tun{n}"),
            addresses: vec![format!("169.254.{n}.2/30").parse().unwrap()],
            routes: vec![],
            mark: None,
        };
        connection.children = vec![child];
        connection
    }

    fn config() -> Config {
        let mut vpn = Vpn::named("cloud");
        vpn.tunnels = vec!["tunnel1".to_owned(), "tunnel2".to_owned()];
        vpn.routes = vec!["172.31.0.0/16".parse().unwrap()];
        vpn.health = crate::Health { probe: Some(Probe::default()), bfd: Some(BfdTimers::default()), ..vpn.health };
        let mut bgp = Bgp::of(65_000);
        bgp.router_id = Some([10, 0, 0, 1].into());
        let neighbor = |n: u8| Neighbor {
            tunnel: Some(format!("tunnel{n}")),
            import: Some("in".to_owned()),
            ..Neighbor::at([169, 254, n, 1].into(), 64_512)
        };
        bgp.neighbors = vec![neighbor(1), neighbor(2)];
        let rule = PrefixRule { permit: true, net: "0.0.0.0/0".parse().unwrap(), lengths: (0, 32) };
        bgp.prefix_lists = vec![PrefixList { name: "in".to_owned(), rules: vec![rule] }];
        Config { connections: vec![tunnel(1), tunnel(2)], vpns: vec![vpn], bgp: Some(bgp), ..Config::default() }
    }

    fn problems(change: impl FnOnce(&mut Config)) -> Vec<Problem> {
        let mut config = config();
        change(&mut config);
        validate(&config)
    }

    #[test]
    fn two_tunnels_with_bgp_make_sense() {
        assert_eq!(problems(|_| ()), []);
    }

    #[test]
    fn each_contradiction_is_refused_with_words_that_name_it() {
        type Change = fn(&mut Config);
        fn bgp(config: &mut Config) -> &mut Bgp {
            config.bgp.as_mut().unwrap()
        }
        let cases: &[(Change, &str)] = &[
            (|c| c.vpns[0].tunnels.push("tunnel3".to_owned()), "there is no tunnel tunnel3"),
            (|c| c.vpns[0].tunnels.push("tunnel1".to_owned()), "is a tunnel of cloud already"),
            (|c| c.connections[0].children[0].routing = Routing::Policy, "needs a device of its own"),
            (|c| c.vpns[0].tunnels.clear(), "it has no tunnels"),
            (|c| c.vpns.push(c.vpns[0].clone()), "this name is used twice"),
            (|c| c.vpns[0].routes = vec!["192.0.2.0/24".parse().unwrap()], "packets of its own tunnel tunnel1"),
            (|c| c.vpns[0].health.probe.as_mut().unwrap().loss = 0, "at least one loss"),
            (|c| c.vpns[0].health.bfd = Some(BfdTimers { interval: Duration::ZERO, multiplier: 3 }), "BFD intervals"),
            (
                |c| c.connections[1].children[0].routing = c.connections[0].children[0].routing.clone(),
                "overlaps 169.254.1.0/30",
            ),
            (|c| bgp(c).asn = 0, "cannot be our AS"),
            (|c| bgp(c).asn = AS_TRANS, "cannot be our AS"),
            (|c| bgp(c).router_id = Some([0; 4].into()), "0.0.0.0"),
            (|c| bgp(c).router_id = Some([169, 254, 1, 1].into()), "two speakers need two"),
            (|c| bgp(c).multipath = 0, "multipath"),
            (|c| bgp(c).neighbors[0].remote_as = 0, "cannot be its AS"),
            (|c| bgp(c).neighbors[0].address = [169, 254, 1, 2].into(), "our own address on tun1"),
            (|c| bgp(c).neighbors[1] = bgp(c).neighbors[0].clone(), "there twice"),
            (|c| bgp(c).neighbors[0].export = Some("out".to_owned()), "no prefix list out"),
            (|c| bgp(c).neighbors[0].next_hop = Some([192, 0, 2, 9].into()), "next-hop 192.0.2.9 is of the family"),
            (|c| bgp(c).neighbors[0].hold = Duration::from_secs(2), "at least 3s"),
            (|c| bgp(c).neighbors[0].keepalive = Duration::from_secs(30), "more often"),
            (|c| bgp(c).neighbors[0].password = Some(base::Secret::from(vec![b'x'; 81])), "1 to 80 bytes"),
            (|c| bgp(c).prefix_lists[0].rules[0].lengths = (8, 33), "0.0.0.0/0 has no prefixes of 8 to 33"),
        ];
        for (change, words) in cases {
            let found = problems(change);
            let named = |p: &Problem| p.severity == Severity::Error && p.message.contains(words);
            assert!(found.iter().any(named), "{words}: {found:?}");
        }
    }

    #[test]
    fn a_second_family_wants_a_next_hop_of_its_own() {
        let both = crate::Families { ipv4: true, ipv6: true };
        let found = problems(|c| c.bgp.as_mut().unwrap().neighbors[0].families = both);
        assert!(found[0].severity == Severity::Warning && found[0].message.contains("no IPv6 route"), "{found:?}");
        let with_next_hop = |c: &mut Config| {
            let neighbor = &mut c.bgp.as_mut().unwrap().neighbors[0];
            (neighbor.families, neighbor.next_hop) = (both, Some("2001:db8::2".parse().unwrap()));
        };
        assert_eq!(problems(with_next_hop), []);
    }

    #[test]
    fn a_neighbor_without_tunnel_and_lists_is_warned_of() {
        let found = problems(|c| {
            let bgp = c.bgp.as_mut().unwrap();
            bgp.neighbors.push(Neighbor::at([10, 0, 0, 2].into(), 65_001));
        });
        assert!(found[0].severity == Severity::Warning && found[0].message.contains("RFC 8212"), "{found:?}");
    }
}
