//! The tables `[vpn]` and `[bgp]`: from a document to the model, and back.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use model::{
    BfdTimers, Bgp, Fallback, Families, Health, Mode, Neighbor, PrefixList, PrefixRule, Probe, ProbeKind, Redistribute,
    Vpn,
};

use super::cursor::Value;
use super::read::{list, parse_ip, secret};
use super::write::{Out, array, psk, quote, shown, time, word};
use crate::Files;
use crate::selector::parse_net;

pub(super) const VPN: &[&str] = &["tunnels", "mode", "routes", "metric", "fallback", "hold-up", "probe", "bfd"];
pub(super) const PROBE: &[&str] = &["kind", "port", "targets", "interval", "loss"];
pub(super) const BFD: &[&str] = &["interval", "multiplier"];
pub(super) const BGP: &[&str] = &[
    "as",
    "router-id",
    "networks",
    "redistribute",
    "multipath",
    "metric",
    "fallback",
    "restart-time",
    "neighbor",
    "prefix-list",
];
pub(super) const NEIGHBOR: &[&str] = &[
    "as",
    "tunnel",
    "local-address",
    "local-as",
    "password",
    "passive",
    "keepalive",
    "hold",
    "connect-retry",
    "ttl-security",
    "ttl",
    "families",
    "next-hop",
    "max-prefixes",
    "import",
    "export",
    "local-preference",
    "med",
    "prepend",
    "communities",
    "large-communities",
    "default-originate",
    "next-hop-self",
    "allow-own-as",
    "bfd",
];

const MODES: [(&str, Mode); 2] = [("active-standby", Mode::ActiveStandby), ("active-active", Mode::ActiveActive)];
const FALLBACKS: [(&str, Fallback); 2] = [("unreachable", Fallback::Unreachable), ("none", Fallback::None)];

pub(super) fn vpn(entry: Value<'_>) -> Option<Vpn> {
    let table = entry.table()?.knowing(VPN);
    let mut vpn = Vpn { source: Some(entry.key_place().source()), ..Vpn::named(entry.key) };
    table.set("tunnels", &mut vpn.tunnels, texts);
    table.set("mode", &mut vpn.mode, |value| value.choice(&MODES));
    table.set("routes", &mut vpn.routes, nets);
    table.set("metric", &mut vpn.metric, |value| value.number(0..u32::MAX.into()));
    table.set("fallback", &mut vpn.fallback, |value| value.choice(&FALLBACKS));
    table.set("hold-up", &mut vpn.health.hold_up, Value::duration);
    table.set("probe", &mut vpn.health.probe, probe);
    table.set("bfd", &mut vpn.health.bfd, bfd);
    Some(vpn)
}

fn texts(value: Value<'_>) -> Option<Vec<String>> {
    list(value, |item| item.string().map(str::to_owned))
}

fn nets(value: Value<'_>) -> Option<Vec<IpNet>> {
    list(value, |item| item.parsed(parse_net).map(|net| net.trunc()))
}

fn probe(value: Value<'_>) -> Option<Option<Probe>> {
    if let Some(on) = value.as_flag() {
        return Some(on.then(Probe::default));
    }
    let table = value.table()?.knowing(PROBE);
    let mut probe = Probe::default();
    let mut port = 7;
    table.set("port", &mut port, |value| value.number(1..65535));
    table.set("kind", &mut probe.kind, |value| {
        value.choice(&[("icmp", ProbeKind::Icmp), ("udp", ProbeKind::Udp(port))])
    });
    table.set("targets", &mut probe.targets, |value| list(value, |item| item.parsed(parse_ip)));
    table.set("interval", &mut probe.interval, Value::duration);
    table.set("loss", &mut probe.loss, |value| value.number(1..1000));
    Some(Some(probe))
}

fn bfd(value: Value<'_>) -> Option<Option<BfdTimers>> {
    if let Some(on) = value.as_flag() {
        return Some(on.then(BfdTimers::default));
    }
    let table = value.table()?.knowing(BFD);
    let mut bfd = BfdTimers::default();
    table.set("interval", &mut bfd.interval, Value::duration);
    table.set("multiplier", &mut bfd.multiplier, |value| value.number(1..255));
    Some(Some(bfd))
}

pub(super) fn bgp(value: Value<'_>, files: &dyn Files) -> Option<Bgp> {
    let table = value.table()?.knowing(BGP);
    let Some(asn) = table.get("as") else {
        value.fault("BGP needs the number of our autonomous system: as = …");
        return None;
    };
    let mut bgp = Bgp { source: Some(asn.key_place().source()), ..Bgp::of(as_number(asn)?) };
    table.set("router-id", &mut bgp.router_id, |value| {
        value.parsed(|text| text.parse::<Ipv4Addr>().map_err(|_| format!("{text:?} is not an IPv4 address"))).map(Some)
    });
    table.set("networks", &mut bgp.networks, nets);
    table.set("redistribute", &mut bgp.redistribute, redistribute);
    table.set("multipath", &mut bgp.multipath, |value| value.number(1..64));
    table.set("metric", &mut bgp.metric, |value| value.number(0..u32::MAX.into()));
    table.set("fallback", &mut bgp.fallback, |value| value.choice(&FALLBACKS));
    table.set("restart-time", &mut bgp.restart_time, Value::duration);
    if let Some(neighbors) = table.get("neighbor").and_then(Value::table) {
        bgp.neighbors = neighbors.entries().filter_map(|entry| neighbor(entry, files)).collect();
    }
    if let Some(lists) = table.get("prefix-list").and_then(Value::table) {
        bgp.prefix_lists = lists.entries().filter_map(prefix_list).collect();
    }
    Some(bgp)
}

fn as_number(value: Value<'_>) -> Option<u32> {
    value.number(1..u32::MAX.into())
}

fn redistribute(value: Value<'_>) -> Option<Redistribute> {
    let mut redistribute = Redistribute::default();
    for item in value.items() {
        match item.choice(&[("connected", 0), ("static", 1)])? {
            0 => redistribute.connected = true,
            _ => redistribute.static_routes = true,
        }
    }
    Some(redistribute)
}

fn neighbor(entry: Value<'_>, files: &dyn Files) -> Option<Neighbor> {
    let table = entry.table()?.knowing(NEIGHBOR);
    let address = parse_ip(entry.key).map_err(|fault| entry.fault_of_key(fault)).ok()?;
    let Some(asn) = table.get("as") else {
        entry.fault_of_key("a neighbor needs the number of its autonomous system: as = …");
        return None;
    };
    let mut neighbor = Neighbor { source: Some(entry.key_place().source()), ..Neighbor::at(address, as_number(asn)?) };
    neighbor.families = Families { ipv4: address.is_ipv4(), ipv6: address.is_ipv6() };
    table.set("tunnel", &mut neighbor.tunnel, |value| value.string().map(|name| Some(name.to_owned())));
    table.set("local-address", &mut neighbor.local_address, |value| value.parsed(parse_ip).map(Some));
    table.set("local-as", &mut neighbor.local_as, |value| as_number(value).map(Some));
    table.set("password", &mut neighbor.password, |value| secret(value, files).map(Some));
    table.set("passive", &mut neighbor.passive, Value::flag);
    table.set("keepalive", &mut neighbor.keepalive, Value::duration);
    table.set("hold", &mut neighbor.hold, Value::duration);
    table.set("connect-retry", &mut neighbor.connect_retry, Value::duration);
    table.set("ttl-security", &mut neighbor.ttl_security, Value::flag);
    table.set("ttl", &mut neighbor.ttl, |value| value.number(1..255).map(Some));
    table.set("families", &mut neighbor.families, families);
    table.set("next-hop", &mut neighbor.next_hop, |value| value.parsed(parse_ip).map(Some));
    table.set("max-prefixes", &mut neighbor.max_prefixes, |value| value.number(1..u32::MAX.into()).map(Some));
    table.set("import", &mut neighbor.import, |value| value.string().map(|name| Some(name.to_owned())));
    table.set("export", &mut neighbor.export, |value| value.string().map(|name| Some(name.to_owned())));
    table.set("local-preference", &mut neighbor.local_preference, |value| value.number(0..u32::MAX.into()).map(Some));
    table.set("med", &mut neighbor.med, |value| value.number(0..u32::MAX.into()).map(Some));
    table.set("prepend", &mut neighbor.prepend, |value| value.number(0..16));
    table.set("communities", &mut neighbor.communities, |value| list(value, |item| item.parsed(parse_community)));
    table.set("large-communities", &mut neighbor.large_communities, |value| {
        list(value, |item| item.parsed(parse_large_community))
    });
    table.set("default-originate", &mut neighbor.default_originate, Value::flag);
    table.set("next-hop-self", &mut neighbor.next_hop_self, Value::flag);
    table.set("allow-own-as", &mut neighbor.allow_own_as, |value| value.number(0..255));
    table.set("bfd", &mut neighbor.bfd, bfd);
    Some(neighbor)
}

fn families(value: Value<'_>) -> Option<Families> {
    let mut families = Families { ipv4: false, ipv6: false };
    for item in value.items() {
        match item.choice(&[("ipv4", 4), ("ipv6", 6)])? {
            4 => families.ipv4 = true,
            _ => families.ipv6 = true,
        }
    }
    Some(families)
}

fn parse_community(text: &str) -> Result<(u16, u16), String> {
    let parts = text.split_once(':').and_then(|(asn, value)| Some((asn.parse().ok()?, value.parse().ok()?)));
    parts.ok_or_else(|| format!("{text:?} is not a community, such as \"65000:100\""))
}

fn parse_large_community(text: &str) -> Result<(u32, u32, u32), String> {
    let parts: Option<Vec<u32>> = text.split(':').map(|part| part.parse().ok()).collect();
    match parts.as_deref() {
        Some(&[global, local1, local2]) => Ok((global, local1, local2)),
        Some(_) | None => Err(format!("{text:?} is not a large community, such as \"65000:1:2\"")),
    }
}

fn prefix_list(entry: Value<'_>) -> Option<PrefixList> {
    let rules = list(entry, |item| item.parsed(parse_rule))?;
    Some(PrefixList { name: entry.key.to_owned(), rules: rules.concat() })
}

/// `permit 10.0.0.0/8 ge 16 le 24`; of `permit any` there is a rule for each family.
fn parse_rule(text: &str) -> Result<Vec<PrefixRule>, String> {
    let wrong = || format!("{text:?} is not a rule, such as \"permit 10.0.0.0/8 le 24\"");
    let mut words = text.split_whitespace();
    let permit = match words.next() {
        Some("permit") => true,
        Some("deny") => false,
        Some(_) | None => return Err(wrong()),
    };
    let net = match words.next() {
        Some("any") => None,
        Some(net) => Some(parse_net(net)?.trunc()),
        None => return Err(wrong()),
    };
    let (mut ge, mut le) = (None, None);
    while let Some(word) = words.next() {
        let bound = match word {
            "ge" => &mut ge,
            "le" => &mut le,
            _ => return Err(wrong()),
        };
        *bound = Some(words.next().and_then(|number| number.parse::<u8>().ok()).ok_or_else(wrong)?);
    }
    let Some(net) = net else {
        let of_family = |net: IpNet| {
            let lengths = (ge.unwrap_or(0), le.unwrap_or(u8::MAX).min(net.max_prefix_len()));
            (lengths.0 <= lengths.1).then_some(PrefixRule { permit, net, lengths })
        };
        let families = [IpNet::V4(ipnet::Ipv4Net::default()), IpNet::V6(ipnet::Ipv6Net::default())];
        let rules: Vec<_> = families.into_iter().filter_map(of_family).collect();
        return if rules.is_empty() { Err(wrong()) } else { Ok(rules) };
    };
    let shortest = ge.unwrap_or_else(|| net.prefix_len());
    // As everywhere: `ge` alone reaches to the longest.
    let longest = le.unwrap_or_else(|| if ge.is_some() { net.max_prefix_len() } else { net.prefix_len() });
    Ok(vec![PrefixRule { permit, net, lengths: (shortest, longest) }])
}

pub(super) fn write_vpn(out: &mut Out, vpn: &Vpn) {
    let default = Vpn::named("");
    out.table(&["vpn", &vpn.name]);
    out.line(&format!("tunnels = {}", array(&vpn.tunnels, |name| quote(name))));
    out.set("mode", &vpn.mode, &default.mode, |mode| word(&MODES, mode));
    out.set("routes", &vpn.routes, &default.routes, |list| array(list, shown));
    out.set("metric", &vpn.metric, &default.metric, u32::to_string);
    out.set("fallback", &vpn.fallback, &default.fallback, |fallback| word(&FALLBACKS, fallback));
    let Health { probe, bfd, hold_up } = &vpn.health;
    out.set("hold-up", hold_up, &default.health.hold_up, time);
    if let Some(probe) = probe {
        let mut parts = vec![format!("interval = {}", time(&probe.interval)), format!("loss = {}", probe.loss)];
        if let ProbeKind::Udp(port) = probe.kind {
            parts.push(format!("kind = \"udp\", port = {port}"));
        }
        if !probe.targets.is_empty() {
            parts.push(format!("targets = {}", array(&probe.targets, shown)));
        }
        out.line(&format!("probe = {{ {} }}", parts.join(", ")));
    }
    out.set("bfd", bfd, &None, write_bfd);
}

fn write_bfd(bfd: &Option<BfdTimers>) -> String {
    bfd.map_or_else(String::new, |bfd| {
        format!("{{ interval = {}, multiplier = {} }}", time(&bfd.interval), bfd.multiplier)
    })
}

pub(super) fn write_bgp(out: &mut Out, bgp: &Bgp, secrets: bool) {
    let default = Bgp::of(bgp.asn);
    out.table(&["bgp"]);
    out.line(&format!("as = {}", bgp.asn));
    out.set("router-id", &bgp.router_id, &None, |id| id.as_ref().map_or_else(String::new, shown));
    out.set("networks", &bgp.networks, &default.networks, |list| array(list, shown));
    out.set("redistribute", &bgp.redistribute, &default.redistribute, |what| {
        let words = [(what.connected, "connected"), (what.static_routes, "static")];
        let words: Vec<_> = words.iter().filter(|(is_on, _)| *is_on).map(|(_, word)| *word).collect();
        array(&words, |word| quote(word))
    });
    out.set("multipath", &bgp.multipath, &default.multipath, u32::to_string);
    out.set("metric", &bgp.metric, &default.metric, u32::to_string);
    out.set("fallback", &bgp.fallback, &default.fallback, |fallback| word(&FALLBACKS, fallback));
    out.set("restart-time", &bgp.restart_time, &default.restart_time, time);
    if !bgp.prefix_lists.is_empty() {
        out.table(&["bgp", "prefix-list"]);
        for list in &bgp.prefix_lists {
            out.line(&format!("{} = {}", super::write::key(&list.name), array(&list.rules, rule)));
        }
    }
    for one in &bgp.neighbors {
        write_neighbor(out, one, secrets);
    }
}

fn rule(rule: &PrefixRule) -> String {
    let word = if rule.permit { "permit" } else { "deny" };
    let (shortest, longest) = rule.lengths;
    quote(&format!("{word} {} ge {shortest} le {longest}", rule.net))
}

fn write_neighbor(out: &mut Out, neighbor: &Neighbor, secrets: bool) {
    let default = Neighbor::at(neighbor.address, neighbor.remote_as);
    let text = |text: &Option<String>| quote(text.as_deref().unwrap_or_default());
    let address = |ip: &Option<IpAddr>| ip.as_ref().map_or_else(String::new, shown);
    let number = |number: &Option<u32>| number.unwrap_or_default().to_string();
    out.table(&["bgp", "neighbor", &neighbor.address.to_string()]);
    out.line(&format!("as = {}", neighbor.remote_as));
    out.set("tunnel", &neighbor.tunnel, &None, text);
    out.set("local-address", &neighbor.local_address, &None, address);
    out.set("local-as", &neighbor.local_as, &None, number);
    match &neighbor.password {
        Some(key) if secrets => out.line(&format!("password = {}", psk(key))),
        Some(_) => out.line("# password = …  (left out: a secret)"),
        None => {}
    }
    out.set("passive", &neighbor.passive, &default.passive, bool::to_string);
    out.set("keepalive", &neighbor.keepalive, &default.keepalive, time);
    out.set("hold", &neighbor.hold, &default.hold, time);
    out.set("connect-retry", &neighbor.connect_retry, &default.connect_retry, time);
    out.set("ttl-security", &neighbor.ttl_security, &default.ttl_security, bool::to_string);
    out.set("ttl", &neighbor.ttl, &None, |ttl| ttl.unwrap_or_default().to_string());
    let families = Families { ipv4: neighbor.address.is_ipv4(), ipv6: neighbor.address.is_ipv6() };
    out.set("families", &neighbor.families, &families, |families| {
        let words = [(families.ipv4, "ipv4"), (families.ipv6, "ipv6")];
        let words: Vec<_> = words.iter().filter(|(is_on, _)| *is_on).map(|(_, word)| *word).collect();
        array(&words, |word| quote(word))
    });
    out.set("next-hop", &neighbor.next_hop, &None, address);
    out.set("max-prefixes", &neighbor.max_prefixes, &None, number);
    out.set("import", &neighbor.import, &None, text);
    out.set("export", &neighbor.export, &None, text);
    out.set("local-preference", &neighbor.local_preference, &None, number);
    out.set("med", &neighbor.med, &None, number);
    out.set("prepend", &neighbor.prepend, &default.prepend, u8::to_string);
    out.set("communities", &neighbor.communities, &default.communities, |list| {
        array(list, |(asn, value)| quote(&format!("{asn}:{value}")))
    });
    out.set("large-communities", &neighbor.large_communities, &default.large_communities, |list| {
        array(list, |(global, local1, local2)| quote(&format!("{global}:{local1}:{local2}")))
    });
    out.set("default-originate", &neighbor.default_originate, &default.default_originate, bool::to_string);
    out.set("next-hop-self", &neighbor.next_hop_self, &default.next_hop_self, bool::to_string);
    out.set("allow-own-as", &neighbor.allow_own_as, &default.allow_own_as, u8::to_string);
    out.set("bfd", &neighbor.bfd, &None, write_bfd);
}
