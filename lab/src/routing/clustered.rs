//! A customer gateway that is a pair: two members share an address outside and one inside, one of them dies, and the other
//! goes on with its SAs. No end of the tunnel negotiates anything for that.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use crate::capture::Frame;
use crate::clock;
use crate::error::Result;
use crate::netns::Lab;
use crate::routing::charon::Charon;
use crate::routing::config::{Tunnel, table, texts};
use crate::routing::daemon::{Daemon, is_up, list, spis};
use crate::routing::ground::{self, Gateway, Ground, OFFICE_NET, Site, VPC_NET, net};
use crate::routing::stream::Host;
use crate::routing::{Cloud, Stage};
use crate::spec::{Suite, Version};
use crate::wire::{Class, Inner, classify};

/// The ground.
pub(super) const DRAWING: &str = " office 10.60.0.0/16                                       VPC 10.50.0.0/16
              ┌─ cgw1 ─┐ 198.51.100.11
 host ─ switch┤   |    ├─ switch ─ internet ─ 203.0.113.10 vgw ─ host
 10.60.1.100  └─ cgw2 ─┘ 198.51.100.12                           10.50.1.100
   shared: 198.51.100.10 outside, 10.60.1.1 inside; between the members: 10.9.0.0/30";

const SHARED: &str = "198.51.100.10";
const SHARED_V6: &str = "2001:db8:100::10";
const CLOUD: &str = "203.0.113.10";
const CLOUD_V6: &str = "2001:db8:203::10";
/// The shared address inside, where it has IPv6.
const INSIDE_V6: &str = "2001:db8:60::1";
/// Their addresses in the tunnel.
const OURS: &str = "169.254.10.2";
const THEIRS: &str = "169.254.10.1";

/// What a pair is played with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pair {
    /// IKEv2 and static routes: all that can happen to it.
    Device,
    /// IKEv1: the active member is killed, and there are new keys and dead peer detection afterwards.
    Ikev1,
    /// BGP over the tunnel: the active member is killed.
    Bgp,
    /// Shared addresses of IPv6: the same.
    Ipv6,
}

impl Pair {
    /// Every one.
    pub(super) const ALL: [Self; 4] = [Self::Device, Self::Ikev1, Self::Bgp, Self::Ipv6];

    const fn version(self) -> Version {
        match self {
            Self::Ikev1 => Version::V1,
            Self::Device | Self::Bgp | Self::Ipv6 => Version::V2,
        }
    }

    /// The outside addresses: the shared one, and the cloud's.
    const fn outside(self) -> (&'static str, &'static str) {
        match self {
            Self::Ipv6 => (SHARED_V6, CLOUD_V6),
            Self::Device | Self::Ikev1 | Self::Bgp => (SHARED, CLOUD),
        }
    }
}

/// For how long traffic may be interrupted when the active member is killed.
const BOUND_MS: f64 = 1_500.0;
/// For how long, when it is told to give up its place or to end. As a rule not a packet is lost; what it seals in the moment in
/// which the other does too, the peer takes for old.
const SWITCH_MS: f64 = 100.0;

pub(super) fn ground(lab: &Lab, pair: Pair) -> Result<Ground> {
    let internet = lab.node("internet")?;
    internet.forward()?;
    internet.bridge("outside", "198.51.100.1/24")?;
    let (host, switch) = (lab.node("office")?, lab.node("switch")?);
    switch.ip(&["link", "add", "lan", "type", "bridge"])?;
    switch.ip(&["link", "set", "dev", "lan", "up"])?;
    lab.link((&host, "eth0"), (&switch, "host"))?;
    switch.plug("host", "lan")?;
    host.address("eth0", "10.60.1.100/24")?;
    host.route("default", "10.60.1.1")?;
    let mut gateways = Vec::new();
    for number in [1, 2] {
        let name = format!("cgw{number}");
        let node = lab.node(&name)?;
        node.forward()?;
        lab.link((&node, "outside"), (&internet, &name))?;
        internet.plug(&name, "outside")?;
        lab.link((&node, "inside"), (&switch, &name))?;
        switch.plug(&name, "lan")?;
        node.address("outside", &format!("198.51.100.1{number}/24"))?;
        node.address("inside", &format!("10.60.1.{}/24", 1 + number))?;
        node.route("default", "198.51.100.1")?;
        let inside = net(&format!("10.60.1.{}/24", 1 + number))?.addr();
        let public = net(&format!("{SHARED}/24"))?.addr();
        gateways.push(Gateway { name, node, outside: vec![public], public, inside, router: inside });
    }
    lab.link((&gateways[0].node, "sync"), (&gateways[1].node, "sync"))?;
    gateways[0].node.address("sync", "10.9.0.1/30")?;
    gateways[1].node.address("sync", "10.9.0.2/30")?;
    let cloud = ground::site(lab, &internet, &ground::VPC)?;
    if pair == Pair::Ipv6 {
        internet.address("outside", "2001:db8:100::1/64")?;
        internet.address("vgw", "2001:db8:203::1/64")?;
        let vgw = &cloud.gateway(0)?.node;
        vgw.address("outside", &format!("{CLOUD_V6}/64"))?;
        vgw.route("default", "2001:db8:203::1")?;
        for (number, gateway) in (1..).zip(&gateways) {
            gateway.node.address("outside", &format!("2001:db8:100::1{number}/64"))?;
            gateway.node.route("default", "2001:db8:100::1")?;
            gateway.node.address("inside", &format!("2001:db8:60::1{number}/64"))?;
        }
        host.address("eth0", "2001:db8:60::100/64")?;
    }
    let host = Host { node: host, address: net("10.60.1.100/24")?.addr() };
    let customer = Site { host, network: net(OFFICE_NET)?, router: None, gateways };
    Ok(Ground { internet, customer, cloud })
}

fn tunnel(is_customer: bool, pair: Pair) -> Tunnel {
    let (own, other) = pair.outside();
    let (local, remote) = if is_customer { (own, other) } else { (other, own) };
    // The cloud asks soon enough for the lab to see it.
    let dpd = match (pair, is_customer) {
        (Pair::Ikev1, false) => "{ delay = \"1s\", timeout = \"2s\" }",
        _ => "{ delay = \"10s\", timeout = \"30s\" }",
    };
    Tunnel {
        name: if is_customer { "tunnel1".into() } else { "vgw".into() },
        version: pair.version(),
        suite: if pair == Pair::Ikev1 { Suite::Classic } else { Suite::Modern },
        local_id: local.into(),
        remote_id: remote.into(),
        local: local.into(),
        remote: remote.into(),
        psk: "a pair and its peer".into(),
        dpd: dpd.into(),
        starts: is_customer,
        inside: format!("{}/30", if is_customer { OURS } else { THEIRS }),
    }
}

fn member_toml(number: usize, pair: Pair) -> String {
    let path = |number: usize| texts(&[&format!("10.9.0.{number}:4600"), &format!("10.60.1.{}:4600", 1 + number)]);
    let shared = match pair {
        Pair::Ipv6 => {
            texts(&[&format!("{SHARED_V6}/64%outside"), "10.60.1.1/24%inside", &format!("{INSIDE_V6}/64%inside")])
        }
        Pair::Device | Pair::Ikev1 | Pair::Bgp => texts(&[&format!("{SHARED}/24%outside"), "10.60.1.1/24%inside"]),
    };
    let entries = [
        ("member", &*number.to_string()),
        ("psk", "\"what only the two members know\""),
        ("local", &path(number)),
        ("peer", &path(3 - number)),
        ("shared", &shared),
    ];
    table("cluster", &entries) + &end_toml(true, pair)
}

/// The tunnel as one end has it, and how it comes to its routes.
fn end_toml(is_customer: bool, pair: Pair) -> String {
    let tunnel = tunnel(is_customer, pair);
    let names = texts(&[&tunnel.name]);
    let (own, other, own_as, other_as, neighbor) = if is_customer {
        (OFFICE_NET, VPC_NET, "65000", "64512", THEIRS)
    } else {
        (VPC_NET, OFFICE_NET, "64512", "65000", OURS)
    };
    let routes = match pair {
        Pair::Bgp => {
            let id = format!("\"{}\"", if is_customer { OURS } else { THEIRS });
            let device = format!("\"{}\"", tunnel.name);
            let session = [("as", other_as), ("tunnel", &*device), ("connect-retry", "\"1s\"")];
            table("bgp", &[("as", own_as), ("router-id", &id), ("networks", &texts(&[own]))])
                + &table(&format!("bgp.neighbor.\"{neighbor}\""), &session)
        }
        Pair::Device | Pair::Ikev1 | Pair::Ipv6 => {
            table("vpn.both", &[("tunnels", &*names), ("routes", &texts(&[other])), ("hold-up", "\"0s\"")])
        }
    };
    tunnel.toml() + &routes
}

/// Starts both ends, and waits until the first member has the tunnel and the second all that it takes.
fn start(stage: &mut Stage<'_>, pair: Pair) -> Result<()> {
    let place = stage.ground.cloud.gateway(0)?.clone();
    match stage.options.cloud {
        Cloud::Simplon => {
            let toml = end_toml(false, pair);
            stage.daemons.push(Daemon::start(&stage.lab, &place.node, &place.name, &toml)?);
        }
        Cloud::Strongswan => {
            let far = tunnel(false, pair);
            stage.charons.push(Charon::start(&stage.lab, &place.node, &place.name, &far, &[OFFICE_NET])?);
        }
    }
    for number in [1, 2] {
        let place = stage.ground.customer.gateway(number - 1)?.clone();
        stage.daemons.push(Daemon::start(&stage.lab, &place.node, &place.name, &member_toml(number, pair))?);
    }
    stage.reporter.step(format!("{} at the cloud's end and both members run", stage.options.cloud));
    wait_in_step(stage, "cgw1", "cgw2")
}

pub(super) fn steps(stage: &mut Stage<'_>, pair: Pair) -> Result<()> {
    start(stage, pair)?;
    let first = ike_sas(stage)?;
    stage.reporter.check("the cloud has one IKE SA", !first.is_empty(), texts_of(&first));
    match pair {
        Pair::Device => all_that_happens(stage, &first)?,
        Pair::Ikev1 => {
            kill(stage, "cgw1", "cgw2")?;
            make_new_keys(stage)?;
            detect_dead_peers(stage)?;
        }
        Pair::Bgp => {
            wait_for_session(stage, "cgw1")?;
            kill(stage, "cgw1", "cgw2")?;
            wait_for_session(stage, "cgw2")?;
            stage.daemon_mut("cgw1")?.run()?;
            wait_in_step(stage, "cgw2", "cgw1")?;
            let route = stage.ground.customer.gateway(0)?.node.ip(&["route", "show", VPC_NET])?;
            let held = route.contains("dev tunnel1") && route.contains("unreachable");
            let found = route.trim().replace('\n', " | ");
            stage.reporter.check("the one that stands by has what the other learnt", held, found);
            change_places(stage, "cgw2")?;
            wait_for_session(stage, "cgw1")?;
        }
        Pair::Ipv6 => {
            let before = answers(stage)?;
            kill(stage, "cgw1", "cgw2")?;
            let held = before && answers(stage)?;
            stage.reporter.check("the shared IPv6 address inside answers", held, INSIDE_V6.to_owned());
        }
    }
    let now = ike_sas(stage)?;
    stage.reporter.check("the cloud has the IKE SA that it had all the time", now == first, texts_of(&now));
    Ok(())
}

fn all_that_happens(stage: &mut Stage<'_>, first: &BTreeSet<String>) -> Result<()> {
    for (dies, heir) in [("cgw1", "cgw2"), ("cgw2", "cgw1")] {
        kill(stage, dies, heir)?;
        let now = ike_sas(stage)?;
        stage.reporter.check("the cloud has the IKE SA that it had", now == *first, texts_of(&now));
        stage.daemon_mut(dies)?.run()?;
        stage.reporter.step(format!("{dies} is started again"));
        wait_in_step(stage, heir, dies)?;
    }
    split(stage)?;
    clock::sleep(Duration::from_millis(1_500))?;
    change_places(stage, "cgw2")?;
    wait_in_step(stage, "cgw1", "cgw2")?;
    // Switches believe another announcement a second later at the soonest.
    clock::sleep(Duration::from_millis(1_500))?;
    let stream = stage.stream()?;
    stage.daemon_mut("cgw1")?.stop();
    stage.reporter.step("cgw1 is told to end");
    let losses = stage.settle(stream, Duration::from_secs(2))?;
    stage.reporter.event("the end of the active one in good order", &losses, SWITCH_MS);
    Ok(())
}

fn change_places(stage: &mut Stage<'_>, active: &str) -> Result<()> {
    let stream = stage.stream()?;
    let said = stage.daemon(active)?.ask(&["cluster", "switch"])?;
    let losses = stage.settle(stream, Duration::from_secs(1))?;
    stage.reporter.event("a planned change of places", &losses, SWITCH_MS);
    stage.reporter.check("the order says what came of it", said.contains("stands by"), said.trim().to_owned());
    Ok(())
}

/// The member that took over makes new keys for ESP.
fn make_new_keys(stage: &mut Stage<'_>) -> Result<()> {
    let before = spis(&stage.daemon("cgw2")?.status()?);
    let stream = stage.stream()?;
    stage.daemon("cgw2")?.ask(&["rekey", "tunnel1"])?;
    let renewed = || Ok(spis(&stage.daemon("cgw2")?.status()?).iter().any(|spi| !before.contains(spi)));
    clock::wait_for("new keys after the takeover", Duration::from_secs(5), renewed)?;
    let losses = stage.settle(stream, Duration::from_secs(1))?;
    stage.reporter.event("new keys after the takeover", &losses, 0.0);
    Ok(())
}

/// Nothing passes for a while, so that the cloud asks whether the other end lives.
fn detect_dead_peers(stage: &mut Stage<'_>) -> Result<()> {
    let before = spis(&stage.daemon("cgw2")?.status()?);
    if stage.options.cloud == Cloud::Strongswan {
        let answers = |stage: &Stage<'_>| {
            let log = stage.charon("vgw")?.log_tail(usize::MAX);
            Ok(log.lines().filter(|line| line.contains("parsed") && line.contains("N(DPD_ACK)")).count())
        };
        let heard = answers(stage)?;
        clock::wait_for("an answer to strongSwan's R_U_THERE", Duration::from_secs(6), || Ok(answers(stage)? > heard))?;
    } else {
        // Longer than it waits for an answer.
        clock::sleep(Duration::from_secs(3))?;
    }
    let after = spis(&stage.daemon("cgw2")?.status()?);
    stage.reporter.check("the cloud's dead peer detection finds the heir alive", before == after, after.join(", "));
    Ok(())
}

/// Waits until the session over the tunnel is established and the cloud's network learnt.
fn wait_for_session(stage: &mut Stage<'_>, name: &str) -> Result<()> {
    let daemon = stage.daemon(name)?;
    let took = clock::wait_for("the session over the tunnel", Duration::from_secs(15), || {
        let status = daemon.status()?;
        Ok(list(&status["bgp"]["neighbors"]).all(|n| n["state"] == "established" && n["prefixes_received"] == 1))
    })?;
    stage.reporter.step(format!("{name} has the session over the tunnel, {:.2} s later", took.as_secs_f64()));
    Ok(())
}

/// Whether the host behind the pair has an answer of the shared address.
fn answers(stage: &Stage<'_>) -> Result<bool> {
    let host = &stage.ground.customer.host.node;
    Ok(host.output(&["ping", "-n", "-c", "2", "-i", "0.2", "-W", "1", INSIDE_V6])?.ok)
}

/// The active member is killed, and traffic goes on through the other.
fn kill(stage: &mut Stage<'_>, dies: &str, heir: &str) -> Result<()> {
    let stream = stage.stream()?;
    stage.daemon_mut(dies)?.crash();
    stage.reporter.step(format!("{dies} is killed"));
    let losses = stage.settle(stream, Duration::from_secs(2))?;
    stage.reporter.event(&format!("{dies} is killed"), &losses, BOUND_MS);
    let status = stage.daemon(heir)?.status()?;
    let held = status["cluster"]["role"] == "active" && is_up(&status, "tunnel1");
    let why = status["cluster"]["why"].as_str().unwrap_or_default().to_owned();
    stage.reporter.check(format!("{heir} is active and has the tunnel"), held, why);
    Ok(())
}

/// The members do not hear each other for a while, and each is active; then the one that took over stays.
fn split(stage: &mut Stage<'_>) -> Result<()> {
    let node = stage.ground.customer.gateway(0)?.node.clone();
    let stream = stage.stream()?;
    let rules = "meta l4proto { tcp, udp } th dport 4600 drop; meta l4proto { tcp, udp } th sport 4600 drop;";
    let chain = |hook: &str| format!("chain {hook} {{ type filter hook {hook} priority 0; {rules} }}\n");
    node.nft(&format!("table ip split {{\n{}{}}}\n", chain("input"), chain("output")))?;
    let deadline = Duration::from_secs(5);
    clock::wait_for("both members to be active", deadline, || {
        let roles = [stage.daemon("cgw1")?.status()?, stage.daemon("cgw2")?.status()?];
        Ok(roles.iter().all(|status| status["cluster"]["role"] == "active"))
    })?;
    clock::sleep(Duration::from_secs(2))?;
    let losses = stream.finish()?;
    // No bound: the link believes now the one and now the other, and the peer hears the one whose numbers are higher.
    stage.reporter.step(format!("the members do not hear each other, and both are active: {losses}"));
    node.nft("delete table ip split")?;
    wait_in_step(stage, "cgw2", "cgw1")?;
    let status = stage.daemon("cgw1")?.status()?;
    let why = status["cluster"]["why"].as_str().unwrap_or_default().to_owned();
    stage.reporter.check("the one that took over stays active", why == "the other member took over", why);
    Ok(())
}

/// No number of an SA is sealed twice, whoever of the two members seals.
pub(super) fn check_numbers(stage: &mut Stage<'_>, pair: Pair, frames: &[Frame]) -> Result<()> {
    let members = ["cgw1", "cgw2"].map(|name| crate::topology::index_of(&stage.ground.internet, name));
    let [one, other] = members;
    let members = [one?, other?];
    let mut seen = BTreeSet::new();
    let mut twice = 0_usize;
    for frame in frames.iter().filter(|frame| members.contains(&frame.interface)) {
        if let Class::Esp(flow) | Class::EspInUdp(flow) = classify(&frame.bytes, &Inner::default())
            && flow.from.to_string() == pair.outside().0
        {
            // A frame to a port of the bridge is seen there too, with the other's address as its source.
            twice += usize::from(!seen.insert(flow));
        }
    }
    let found = format!("{} packets of both members, {twice} of them with a number that was used", seen.len());
    stage.reporter.check("no number is sealed twice by the two members", twice == 0 && seen.len() > 100, found);
    Ok(())
}

fn wait_in_step(stage: &mut Stage<'_>, active: &str, standby: &str) -> Result<()> {
    let [one, other] = [stage.daemon(active)?, stage.daemon(standby)?];
    let took = clock::wait_for("a pair in step with a tunnel", Duration::from_secs(25), || {
        let (one, other) = (one.status()?, other.status()?);
        let roles = one["cluster"]["role"] == "active" && other["cluster"]["role"] == "standby";
        let in_step = [&one, &other].iter().all(|status| status["cluster"]["in_step"] == true);
        let holds = other["cluster"]["held"][1].as_u64() >= Some(1);
        Ok(roles && in_step && holds && is_up(&one, "tunnel1"))
    })?;
    stage.reporter.step(format!("{active} is active and {standby} in step, {:.2} s later", took.as_secs_f64()));
    Ok(())
}

/// The SPIs of the IKE SAs that the cloud has.
fn ike_sas(stage: &Stage<'_>) -> Result<BTreeSet<String>> {
    match stage.options.cloud {
        Cloud::Simplon => {
            let all = stage.daemon("vgw")?.json(&["show", "ike-sa", "--json"])?;
            let spi = |entry: &Value| {
                let sa = &entry["sa"];
                format!(
                    "{} {}",
                    sa["initiator_spi"].as_str().unwrap_or_default(),
                    sa["responder_spi"].as_str().unwrap_or_default()
                )
            };
            Ok(list(&all).map(spi).collect())
        }
        Cloud::Strongswan => {
            let text = stage.charon("vgw")?.sas()?;
            let words = text.split([' ', ',']).filter(|word| word.contains("_i") || word.contains("_r"));
            let spis = words.map(|word| word.trim_end_matches('*')).filter(|word| word.len() == 18);
            Ok(spis.map(str::to_owned).collect())
        }
    }
}

fn texts_of(spis: &BTreeSet<String>) -> String {
    spis.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}
