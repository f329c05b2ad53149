//! BGP over tunnels, as the documents of the scenarios have it: `nec-ix-vgw-bgp`, `alibaba-vgw-bgp` and `two-devices`,
//! which can also be had with static routes.
//!
//! In each of them the first tunnel is cut and traffic moves to the second; then, with the first healed, the second. In
//! `two-devices` the first customer gateway dies.

use std::time::Duration;

use serde_json::Value;

use crate::clock;
use crate::error::Result;
use crate::netns::Lab;
use crate::routing::bird::{self, Bird};
use crate::routing::charon::Charon;
use crate::routing::config::{Tunnel, table, texts};
use crate::routing::daemon::{Daemon, is_up, list, neighbor};
use crate::routing::dark::{self, Dark};
use crate::routing::follower::{Ask, Endpoint, Follower};
use crate::routing::ground::{self, Gateway, GatewayPlan, Ground, OFFICE_NET, SitePlan, VPC_NET};
use crate::routing::{Cloud, Event, Mode, Routes, Stage, Watch};
use crate::spec::{Suite, Version};

pub(super) const NEC_DRAWING: &str = " 192.168.2.0/24                                                 172.31.0.0/16
 host ─ R10 (NEC IX) 192.168.1.10 ─ NAT 203.165.211.85 ─ internet ┬ 34.217.232.61 ┬ vpc ─ host
        AS 65000                                                  └ 54.69.109.228 ┘  AS 64512
   Tunnel0.0 169.254.123.132/30, Tunnel1.0 169.254.30.56/30";

pub(super) const ALIBABA_DRAWING: &str =
    " 10.0.0.0/16, AS 45104                                        172.31.0.0/16, AS 64512
 host ─ VPN gateway 47.103.20.10 ─ internet ─ 52.78.1.10 and 13.209.2.20 (one gateway) ─ host
   two IPsec connections, each with a customer gateway of its own; one VPN connection with two tunnels";

pub(super) const DEVICES_DRAWING: &str = " 10.60.0.0/16, AS 65000                              10.50.0.0/16, AS 64512
 host ─ core ┬ cgw1 198.51.100.2 ┬ internet ┬ vgw1 203.0.113.10 ┬ vpc ─ host
             └ cgw2 198.18.0.2 ──┘          └ vgw2 192.0.2.10 ──┘
   four tunnels: each device to each endpoint";

/// What stands beside a learnt route.
const LEARNT: &str = "the learnt route";

/// A tunnel between a customer gateway and an endpoint, and the BGP session over it.
struct Pair {
    /// The numbers of the gateways at both ends.
    gateways: (usize, usize),
    /// The outside address of the endpoint, by its number.
    outside: usize,
    name: &'static str,
    psk: &'static str,
    /// The customer's inside address and the cloud's.
    inside: (&'static str, &'static str),
}

/// What the two ends of a scenario are.
struct Sides {
    version: Version,
    suite: Suite,
    customer_as: &'static str,
    cloud_as: &'static str,
    customer_net: &'static str,
    cloud_net: &'static str,
    pairs: Vec<Pair>,
}

pub(super) fn nec_ground(lab: &Lab) -> Result<Ground> {
    let customer = SitePlan {
        host_name: "branch",
        host: "192.168.2.100/24",
        lan: "192.168.2.1/24",
        network: "192.168.2.0/24",
        router_name: "",
        gateways: &[GatewayPlan {
            name: "R10",
            outside: &["192.168.1.10/24"],
            next_hop: "192.168.1.1",
            link: ("", ""),
            nat: Some(("203.165.211.85/24", "203.165.211.1")),
        }],
    };
    let cloud = SitePlan {
        host_name: "ec2",
        host: "172.31.36.10/20",
        lan: "172.31.32.1/20",
        network: "172.31.0.0/16",
        router_name: "vpc",
        gateways: &[
            GatewayPlan {
                name: "vgw1",
                outside: &["34.217.232.61/24"],
                next_hop: "34.217.232.1",
                link: ("10.254.0.2/30", "10.254.0.1/30"),
                nat: None,
            },
            GatewayPlan {
                name: "vgw2",
                outside: &["54.69.109.228/24"],
                next_hop: "54.69.109.1",
                link: ("10.254.0.6/30", "10.254.0.5/30"),
                nat: None,
            },
        ],
    };
    Ground::build(lab, &customer, &cloud)
}

fn nec() -> Sides {
    Sides {
        version: Version::V1,
        suite: Suite::Classic,
        customer_as: "65000",
        cloud_as: "64512",
        customer_net: "192.168.2.0/24",
        cloud_net: "172.31.0.0/16",
        pairs: vec![
            Pair {
                gateways: (0, 0),
                outside: 0,
                name: "tunnel1",
                psk: "pq5RW0mMbSxz8k8.ZRY2T3C82D9GX8_z",
                inside: ("169.254.123.134", "169.254.123.133"),
            },
            Pair {
                gateways: (0, 1),
                outside: 0,
                name: "tunnel2",
                psk: "QAElJrXGVeBgHi.U292jVF3eLTATQXMQ",
                inside: ("169.254.30.58", "169.254.30.57"),
            },
        ],
    }
}

/// strongSwan's cloud has a gateway for each endpoint, as a cloud has them in truth, and a router before them.
pub(super) fn alibaba_ground(lab: &Lab, cloud: Cloud) -> Result<Ground> {
    let customer = SitePlan {
        host_name: "ecs",
        host: "10.0.1.100/24",
        lan: "10.0.1.1/24",
        network: "10.0.0.0/16",
        router_name: "",
        gateways: &[GatewayPlan {
            name: "alibaba",
            outside: &["47.103.20.10/24"],
            next_hop: "47.103.20.1",
            link: ("", ""),
            nat: None,
        }],
    };
    let endpoint = |name, outside, next_hop, link| GatewayPlan { name, outside, next_hop, link, nat: None };
    let together = [endpoint("vgw", &["52.78.1.10/24", "13.209.2.20/32"], "52.78.1.1", ("", ""))];
    let apart = [
        endpoint("vgw1", &["52.78.1.10/24"], "52.78.1.1", ("10.254.0.2/30", "10.254.0.1/30")),
        endpoint("vgw2", &["13.209.2.20/24"], "13.209.2.1", ("10.254.0.6/30", "10.254.0.5/30")),
    ];
    let cloud = SitePlan {
        host_name: "ec2",
        host: "172.31.36.10/20",
        lan: "172.31.32.1/20",
        network: "172.31.0.0/16",
        router_name: "vpc",
        gateways: if cloud == Cloud::Simplon { &together } else { &apart },
    };
    Ground::build(lab, &customer, &cloud)
}

fn alibaba(cloud: Cloud) -> Sides {
    let (gateway, outside) = if cloud == Cloud::Simplon { (0, 1) } else { (1, 0) };
    Sides {
        version: Version::V1,
        suite: Suite::Classic,
        customer_as: "45104",
        cloud_as: "64512",
        customer_net: "10.0.0.0/16",
        cloud_net: "172.31.0.0/16",
        pairs: vec![
            Pair {
                gateways: (0, 0),
                outside: 0,
                name: "tunnel1",
                psk: "the first connection of two",
                inside: ("169.254.40.2", "169.254.40.1"),
            },
            Pair {
                gateways: (0, gateway),
                outside,
                name: "tunnel2",
                psk: "the second connection of two",
                inside: ("169.254.41.2", "169.254.41.1"),
            },
        ],
    }
}

pub(super) fn devices_ground(lab: &Lab) -> Result<Ground> {
    let device = |name, outside, next_hop, link| GatewayPlan { name, outside, next_hop, link, nat: None };
    let customer = SitePlan {
        router_name: "core",
        gateways: &[
            device("cgw1", &["198.51.100.2/24"], "198.51.100.1", ("10.60.254.2/30", "10.60.254.1/30")),
            device("cgw2", &["198.18.0.2/24"], "198.18.0.1", ("10.60.254.6/30", "10.60.254.5/30")),
        ],
        ..ground::OFFICE
    };
    Ground::build(lab, &customer, &ground::VPC_OF_TWO)
}

fn devices() -> Sides {
    let pair = |gateways, name, psk, inside| Pair { gateways, outside: 0, name, psk, inside };
    Sides {
        version: Version::V2,
        suite: Suite::Modern,
        customer_as: "65000",
        cloud_as: "64512",
        customer_net: OFFICE_NET,
        cloud_net: VPC_NET,
        pairs: vec![
            pair((0, 0), "tunnel1", "device 1, tunnel 1", ("169.254.10.2", "169.254.10.1")),
            pair((0, 1), "tunnel2", "device 1, tunnel 2", ("169.254.11.2", "169.254.11.1")),
            pair((1, 0), "tunnel3", "device 2, tunnel 1", ("169.254.12.2", "169.254.12.1")),
            pair((1, 1), "tunnel4", "device 2, tunnel 2", ("169.254.13.2", "169.254.13.1")),
        ],
    }
}

pub(super) fn nec_steps(stage: &mut Stage<'_>) -> Result<()> {
    let sides = nec();
    start(stage, &sides)?;
    routes_are_learnt(stage, &sides, "R10")?;
    seed_fields(stage, &sides)?;
    if stage.options.event == Event::Dark {
        return dark::play(stage, &Dark { gateway: "R10", cloud_net: sides.cloud_net, protects: LEARNT });
    }
    cut_one_then_the_other(stage, &sides)
}

pub(super) fn alibaba_steps(stage: &mut Stage<'_>) -> Result<()> {
    let sides = alibaba(stage.options.cloud);
    start(stage, &sides)?;
    routes_are_learnt(stage, &sides, "alibaba")?;
    if stage.options.event == Event::Dark {
        return dark::play(stage, &Dark { gateway: "alibaba", cloud_net: sides.cloud_net, protects: LEARNT });
    }
    cut_one_then_the_other(stage, &sides)
}

pub(super) fn devices_steps(stage: &mut Stage<'_>) -> Result<()> {
    let sides = devices();
    start(stage, &sides)?;
    if stage.options.routes == Routes::Bgp {
        routes_are_learnt(stage, &sides, "cgw1")?;
    }
    let stream = stage.stream()?;
    stage.reporter.step("the first device loses its power");
    let first = stage.ground.customer.gateway(0)?.node.clone();
    // The cables first, and that to the internet before the other: a device that still lived without tunnels, or without
    // its site, would send by its default route.
    for device in ["outside", "inside"] {
        first.ip(&["link", "set", "dev", device, "down"])?;
    }
    if let Some(daemon) = stage.daemons.iter_mut().find(|daemon| daemon.name() == "cgw1") {
        daemon.crash();
    }
    let losses = stage.settle(stream, Duration::from_secs(1))?;
    stage.reporter.event("the death of a device", &losses, stage.options.watch.bound_ms());
    Ok(())
}

impl Watch {
    /// For how many milliseconds a cut may interrupt traffic.
    const fn bound_ms(self) -> f64 {
        match self {
            Self::Bfd => 700.0,
            Self::HoldTimer => 11_000.0,
        }
    }

    const fn bfd(self) -> &'static str {
        match self {
            Self::Bfd => "{ interval = \"100ms\", multiplier = 3 }",
            Self::HoldTimer => "",
        }
    }

    /// The hold time that both ends are told. The documents have 30 s; with BFD it does not matter, and without it the
    /// lab does not wait so long.
    const fn timers(self) -> (&'static str, &'static str) {
        match self {
            Self::Bfd => ("\"10s\"", "\"30s\""),
            Self::HoldTimer => ("\"3s\"", "\"9s\""),
        }
    }
}

/// A tunnel as one of its ends is told of it.
fn tunnel(stage: &Stage<'_>, sides: &Sides, pair: &Pair, is_customer: bool) -> Result<Tunnel> {
    let customer = stage.ground.customer.gateway(pair.gateways.0)?;
    let cloud = stage.ground.cloud.gateway(pair.gateways.1)?;
    let endpoint = cloud.outside[pair.outside].to_string();
    let own = customer.outside[0].to_string();
    let (local, local_id, remote, remote_id, inside) = if is_customer {
        (own.clone(), own, endpoint.clone(), endpoint, pair.inside.0)
    } else {
        (endpoint.clone(), endpoint, customer.public.to_string(), own, pair.inside.1)
    };
    Ok(Tunnel {
        name: pair.name.into(),
        version: sides.version,
        suite: sides.suite,
        local,
        local_id,
        remote,
        remote_id,
        psk: pair.psk.into(),
        dpd: "{ delay = \"10s\", timeout = \"30s\" }".into(),
        starts: is_customer,
        inside: format!("{inside}/30"),
    })
}

/// strongSwan and BIRD as one of the cloud's endpoints, with one tunnel: all of its tunnels would share one device.
fn start_real_endpoint(stage: &mut Stage<'_>, sides: &Sides, number: usize, place: &Gateway) -> Result<()> {
    let is_here = |pair: &&Pair| pair.gateways.1 == number;
    let Some(pair) = sides.pairs.iter().find(is_here) else { return Ok(()) };
    let tunnel = tunnel(stage, sides, pair, false)?;
    stage.charons.push(Charon::start(&stage.lab, &place.node, &place.name, &tunnel, &[])?);
    // BIRD's routes come and go: without them the customer's packets must not leave the cloud in clear.
    place.node.ip(&["route", "add", "unreachable", sides.customer_net, "metric", "4000"])?;
    let Sides { customer_as, cloud_as, customer_net, cloud_net, .. } = sides;
    let prepend = if number == 0 { String::new() } else { format!("bgp_path.prepend({cloud_as}); ").repeat(2) };
    let session = |name: &str, (local, remote, asn): (&str, &str, &str), rest: &str| {
        format!(
            "protocol bgp {name} {{\n  local {local} as {cloud_as};\n  neighbor {remote} as {asn};\n  direct;\n  \
             hold time 30;\n  connect delay time 1;\n  connect retry time 2;\n  error wait time 1, 2;\n  bfd on;\n  \
             ipv4 {{ import all; {rest} }};\n}}\n"
        )
    };
    let (inside, router) = (place.inside.to_string(), place.router.to_string());
    let outward = format!("export filter {{ if net = {cloud_net} then {{ {prepend}accept; }} reject; }};");
    let inward = format!("next hop self; export where net = {customer_net};");
    let conf = format!(
        "router id {inside};\nprotocol device {{ }}\n{}\
         protocol kernel {{\n  ipv4 {{ import none; export where net = {customer_net}; }};\n}}\n{}{}",
        bird::bfd("*"),
        session("customer", (pair.inside.1, pair.inside.0, customer_as), &outward),
        session("site", (&inside, &router, cloud_as), &inward),
    );
    stage.birds.push(Bird::start(&stage.lab, &place.node, &format!("{}-bird", place.name), &conf)?);
    Ok(())
}

/// A gateway's tables: its tunnels, the VPN connection that they are, and BGP over each.
fn toml(stage: &Stage<'_>, sides: &Sides, number: usize, is_customer: bool) -> Result<String> {
    let watch = stage.options.watch;
    let mine = |pair: &&Pair| (if is_customer { pair.gateways.0 } else { pair.gateways.1 }) == number;
    let pairs: Vec<&Pair> = sides.pairs.iter().filter(mine).collect();
    let mut toml = String::new();
    for pair in &pairs {
        toml.push_str(&tunnel(stage, sides, pair, is_customer)?.toml());
    }
    let mode = if stage.options.mode == Mode::ActiveActive { "\"active-active\"" } else { "\"active-standby\"" };
    let names: Vec<&str> = pairs.iter().map(|pair| pair.name).collect();
    if stage.options.routes == Routes::Static {
        let (names, theirs) = (texts(&names), texts(&[if is_customer { sides.cloud_net } else { sides.customer_net }]));
        let entries =
            [("tunnels", &*names), ("mode", mode), ("hold-up", "\"1s\""), ("routes", &theirs), ("bfd", watch.bfd())];
        return Ok(toml + &table("vpn.both", &entries));
    }
    if names.len() > 1 {
        let names = texts(&names);
        toml.push_str(&table("vpn.both", &[("tunnels", &names), ("mode", mode), ("hold-up", "\"1s\"")]));
    }
    let (own_as, their_as) =
        if is_customer { (sides.customer_as, sides.cloud_as) } else { (sides.cloud_as, sides.customer_as) };
    let site = if is_customer { &stage.ground.customer } else { &stage.ground.cloud };
    let gateway = site.gateway(number)?;
    let networks = texts(&[if is_customer { sides.customer_net } else { sides.cloud_net }]);
    let id = format!("\"{}\"", gateway.inside);
    // Behind a router of its own, the site's network comes from that router.
    let networks = if site.router.is_some() { String::new() } else { networks };
    toml.push_str(&table("bgp", &[("as", own_as), ("router-id", &id), ("networks", &networks)]));
    let (keepalive, hold) = watch.timers();
    for (rank, pair) in (0..).zip(&pairs) {
        let (_, remote) = if is_customer { pair.inside } else { (pair.inside.1, pair.inside.0) };
        let name = format!("\"{}\"", pair.name);
        // One endpoint knows only one of the tunnels: that the second is the second, its operator says.
        let prepend = if !is_customer && pair.gateways.1 == 1 { "2" } else { "" };
        let device_med = if is_customer && number == 1 { (100 + rank).to_string() } else { String::new() };
        let entries = [
            ("as", their_as),
            ("tunnel", &name),
            ("keepalive", keepalive),
            ("hold", hold),
            ("connect-retry", "\"1s\""),
            ("prepend", prepend),
            ("med", &device_med),
            ("bfd", watch.bfd()),
        ];
        toml.push_str(&table(&format!("bgp.neighbor.\"{remote}\""), &entries));
    }
    if site.router.is_some() {
        toml.push_str(&table("bgp.prefix-list", &[("all", "[\"permit any\"]")]));
        // What the second gateway of a site learns counts less.
        let local = if number == 0 { "" } else { "50" };
        let own = format!("\"{}\"", gateway.inside);
        let entries = [
            ("as", own_as),
            ("local-address", &*own),
            ("import", "\"all\""),
            ("export", "\"all\""),
            ("next-hop-self", "true"),
            ("keepalive", keepalive),
            ("hold", hold),
            ("connect-retry", "\"1s\""),
            ("local-preference", local),
            ("bfd", watch.bfd()),
        ];
        toml.push_str(&table(&format!("bgp.neighbor.\"{}\"", gateway.router), &entries));
    }
    Ok(toml)
}

/// The router of a site with several gateways: a BGP speaker without a tunnel.
fn router_toml(stage: &Stage<'_>, sides: &Sides, is_customer: bool) -> String {
    let (site, own_as, network) = if is_customer {
        (&stage.ground.customer, sides.customer_as, sides.customer_net)
    } else {
        (&stage.ground.cloud, sides.cloud_as, sides.cloud_net)
    };
    let networks = texts(&[network]);
    let id = format!("\"{}\"", site.host.address);
    let mut toml = table("bgp", &[("as", own_as), ("router-id", &id), ("networks", &networks)]);
    toml.push_str(&table("bgp.prefix-list", &[("all", "[\"permit any\"]")]));
    let (keepalive, hold) = stage.options.watch.timers();
    for (number, gateway) in site.gateways.iter().enumerate() {
        let local = if number == 0 { "" } else { "50" };
        let own = format!("\"{}\"", gateway.router);
        let entries = [
            ("as", own_as),
            ("local-address", &*own),
            ("import", "\"all\""),
            ("export", "\"all\""),
            ("keepalive", keepalive),
            ("hold", hold),
            ("connect-retry", "\"1s\""),
            ("local-preference", local),
            ("bfd", stage.options.watch.bfd()),
        ];
        toml.push_str(&table(&format!("bgp.neighbor.\"{}\"", gateway.inside), &entries));
    }
    toml
}

fn start(stage: &mut Stage<'_>, sides: &Sides) -> Result<()> {
    for is_customer in [false, true] {
        let site = if is_customer { &stage.ground.customer } else { &stage.ground.cloud };
        if let Some(router) = site.router.clone().filter(|_| stage.options.routes == Routes::Bgp) {
            let toml = router_toml(stage, sides, is_customer);
            stage.daemons.push(Daemon::start(&stage.lab, &router, router.name(), &toml)?);
        }
        let site = if is_customer { &stage.ground.customer } else { &stage.ground.cloud };
        for (number, place) in site.gateways.clone().into_iter().enumerate() {
            if !is_customer && stage.options.cloud == Cloud::Strongswan {
                start_real_endpoint(stage, sides, number, &place)?;
                continue;
            }
            let toml = toml(stage, sides, number, is_customer)?;
            stage.daemons.push(Daemon::start(&stage.lab, &place.node, &place.name, &toml)?);
        }
    }
    if stage.options.routes == Routes::Static {
        follow(stage, sides)?;
    }
    stage.reporter.step("all gateways and routers run");
    let took = clock::wait_for("all tunnels and all sessions", Duration::from_secs(40), || {
        for (number, place) in stage.ground.customer.gateways.iter().enumerate() {
            let status = stage.daemon(&place.name)?.status()?;
            let mine = || sides.pairs.iter().filter(|pair| pair.gateways.0 == number);
            if !mine().all(|pair| is_up(&status, pair.name)) {
                return Ok(false);
            }
            if !list(&status["bgp"]["neighbors"]).all(|n| n["state"] == "established") {
                return Ok(false);
            }
            if stage.options.routes == Routes::Static && !list(&status["vpns"]).all(|vpn| vpn["state"] == "up") {
                return Ok(false);
            }
            let watched = stage.options.watch == Watch::Bfd;
            if watched && !list(&status["bfd"]).all(|b| b["state"] == "up" && b["detection_ms"].as_u64() <= Some(300)) {
                return Ok(false);
            }
        }
        Ok(true)
    })?;
    stage.reporter.step(format!("all tunnels are up and all sessions established, {:.2} s later", took.as_secs_f64()));
    Ok(())
}

/// With static routes, each site's router asks its gateways which of them has a tunnel that is fit, as routers that track
/// their next hops do.
fn follow(stage: &mut Stage<'_>, sides: &Sides) -> Result<()> {
    let mut followers = Vec::new();
    for (site, network) in [(&stage.ground.customer, sides.cloud_net), (&stage.ground.cloud, sides.customer_net)] {
        let Some(router) = &site.router else { continue };
        let endpoint = |gateway: &Gateway| {
            Ok(Endpoint { via: gateway.inside, ask: Ask::Simplon(stage.daemon(&gateway.name)?.socket()) })
        };
        let endpoints = site.gateways.iter().map(endpoint).collect::<Result<_>>()?;
        followers.push(Follower::start(router, network, endpoints, stage.options.mode == Mode::ActiveActive)?);
    }
    stage.followers = followers;
    Ok(())
}

fn routes_are_learnt(stage: &mut Stage<'_>, sides: &Sides, customer: &str) -> Result<()> {
    let node = stage.ground.customer.gateway(0)?.node.clone();
    clock::wait_for("the cloud's network over the first tunnel", Duration::from_secs(15), || {
        Ok(node.ip(&["route", "show", sides.cloud_net])?.contains("dev tunnel1"))
    })?;
    let route = node.ip(&["route", "show", sides.cloud_net])?;
    let status = stage.daemon(customer)?.status()?;
    let held = route.contains("metric 20") && status["bgp"]["asn"].as_u64() == sides.customer_as.parse().ok();
    stage.reporter.check("the customer learns the cloud's network by BGP", held, route.trim().to_owned());
    Ok(())
}

/// `show ip bgp`, `show ike sa` and `show ipsec sa` of the document, beside ours.
fn seed_fields(stage: &mut Stage<'_>, sides: &Sides) -> Result<()> {
    let daemon = stage.daemon("R10")?;
    let (status, ike, ipsec) =
        (daemon.status()?, daemon.json(&["show", "ike-sa", "--json"])?, daemon.json(&["show", "ipsec-sa", "--json"])?);
    let mut wrong = Vec::new();
    let mut want = |what: &str, found: &Value, wanted: Value| {
        if *found != wanted {
            wrong.push(format!("{what} is {found}, and the document has {wanted}"));
        }
    };
    want("local AS number", &status["bgp"]["asn"], 65_000.into());
    want("local router ID", &status["bgp"]["router_id"], "192.168.2.1".into());
    for pair in &sides.pairs {
        let neighbor = neighbor(&status, pair.inside.1);
        want("neighbour's AS", &neighbor["remote_as"], 64_512.into());
        want("state", &neighbor["state"], "established".into());
        want("prefixes", &neighbor["prefixes_received"], 1.into());
    }
    for entry in list(&ike) {
        want("state of phase 1", &entry["sa"]["state"], "established".into());
        want("direction", &entry["sa"]["role"], "initiator".into());
        want("exchange", &entry["sa"]["version"], "ikev1".into());
        want("algorithms", &entry["sa"]["suite"], "aes128-sha1-modp1024".into());
    }
    for entry in list(&ipsec) {
        want("transform", &entry["sa"]["suite"], "aes128-sha1".into());
        want("forward secrecy", &entry["sa"]["pfs"], "modp1024".into());
    }
    let counts = (list(&ike).count(), list(&ipsec).count());
    if counts != (2, 2) {
        wrong.push(format!("{counts:?} SAs of phase 1 and 2, and the document has two each"));
    }
    let found = if wrong.is_empty() { "all as in the document".to_owned() } else { wrong.join("; ") };
    stage.reporter.check("the tables of the router say what the document shows", wrong.is_empty(), found);
    Ok(())
}

/// The first tunnel is cut, healed when traffic has moved, and then the second.
fn cut_one_then_the_other(stage: &mut Stage<'_>, sides: &Sides) -> Result<()> {
    let node = stage.ground.customer.gateway(0)?.node.clone();
    for (number, pair) in sides.pairs.iter().enumerate() {
        let endpoint = stage.ground.cloud.gateway(pair.gateways.1)?.outside[pair.outside];
        let (own, other) = (pair.name, sides.pairs[1 - number].name);
        let is_in_use = node.ip(&["route", "show", sides.cloud_net])?.contains(&format!("dev {own}"));
        let stream = stage.stream()?;
        stage.ground.cut(&[endpoint])?;
        stage.reporter.step(format!("the path of {own} is cut"));
        let losses = stage.settle(stream, Duration::from_secs(1))?;
        // What carries nothing costs nothing.
        let most =
            if is_in_use || stage.options.mode == Mode::ActiveActive { stage.options.watch.bound_ms() } else { 0.0 };
        stage.reporter.event(&format!("a cut of {own}"), &losses, most);
        let route = node.ip(&["route", "show", sides.cloud_net])?;
        let held = route.contains(&format!("dev {other}")) && !route.contains(&format!("dev {own}"));
        stage.reporter.check(format!("the route leads through {other}"), held, route.trim().replace('\n', " | "));
        let stream = stage.stream()?;
        stage.ground.cut(&[])?;
        stage.reporter.step("the path is healed");
        clock::wait_for("the preferred tunnel to carry traffic again", Duration::from_secs(60), || {
            Ok(node.ip(&["route", "show", sides.cloud_net])?.contains("dev tunnel1"))
        })?;
        clock::wait_for("both sessions again", Duration::from_secs(60), || {
            let status = stage.daemon(&stage.ground.customer.gateway(0)?.name)?.status()?;
            Ok(list(&status["bgp"]["neighbors"]).all(|n| n["state"] == "established"))
        })?;
        let losses = stage.settle(stream, Duration::from_secs(1))?;
        stage.reporter.event("the way back", &losses, 50.0);
    }
    Ok(())
}
