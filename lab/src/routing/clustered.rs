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
use crate::routing::daemon::{Daemon, is_up, list};
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
/// For how long traffic may be interrupted when the active member is killed.
const BOUND_MS: f64 = 1_500.0;
/// For how long, when it is told to give up its place or to end. As a rule not a packet is lost; what it seals in the moment in
/// which the other does too, the peer takes for old.
const SWITCH_MS: f64 = 100.0;

pub(super) fn ground(lab: &Lab) -> Result<Ground> {
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
    let host = Host { node: host, address: net("10.60.1.100/24")?.addr() };
    let customer = Site { host, network: net(OFFICE_NET)?, router: None, gateways };
    Ok(Ground { internet, customer, cloud })
}

fn tunnel(is_customer: bool, version: Version) -> Tunnel {
    let (own, other) = (SHARED.to_owned(), "203.0.113.10".to_owned());
    let (local, remote) = if is_customer { (own, other) } else { (other, own) };
    Tunnel {
        name: if is_customer { "tunnel1".into() } else { "vgw".into() },
        version,
        suite: Suite::Modern,
        local_id: local.clone(),
        remote_id: remote.clone(),
        local,
        remote,
        psk: "a pair and its peer".into(),
        dpd: "{ delay = \"10s\", timeout = \"30s\" }".into(),
        starts: is_customer,
        inside: if is_customer { "169.254.10.2/30".into() } else { "169.254.10.1/30".into() },
    }
}

fn member_toml(number: usize, version: Version) -> String {
    let path = |number: usize| texts(&[&format!("10.9.0.{number}:4600"), &format!("10.60.1.{}:4600", 1 + number)]);
    let shared = texts(&[&format!("{SHARED}/24%outside"), "10.60.1.1/24%inside"]);
    let entries = [
        ("member", &*number.to_string()),
        ("psk", "\"what only the two members know\""),
        ("local", &path(number)),
        ("peer", &path(3 - number)),
        ("shared", &shared),
    ];
    let vpn = [("tunnels", &*texts(&["tunnel1"])), ("routes", &texts(&[VPC_NET])), ("hold-up", "\"0s\"")];
    table("cluster", &entries) + &tunnel(true, version).toml() + &table("vpn.cloud", &vpn)
}

pub(super) fn steps(stage: &mut Stage<'_>) -> Result<()> {
    let version = Version::V2;
    let place = stage.ground.cloud.gateway(0)?.clone();
    let far = tunnel(false, version);
    match stage.options.cloud {
        Cloud::Simplon => {
            let vpn = [("tunnels", &*texts(&["vgw"])), ("routes", &texts(&[OFFICE_NET])), ("hold-up", "\"0s\"")];
            let toml = far.toml() + &table("vpn.customer", &vpn);
            stage.daemons.push(Daemon::start(&stage.lab, &place.node, &place.name, &toml)?);
        }
        Cloud::Strongswan => {
            stage.charons.push(Charon::start(&stage.lab, &place.node, &place.name, &far, &[OFFICE_NET])?);
        }
    }
    for number in [1, 2] {
        let place = stage.ground.customer.gateway(number - 1)?.clone();
        let toml = member_toml(number, version);
        stage.daemons.push(Daemon::start(&stage.lab, &place.node, &place.name, &toml)?);
    }
    stage.reporter.step(format!("{} at the cloud's end and both members run", stage.options.cloud));
    wait_in_step(stage, "cgw1", "cgw2")?;
    let first = ike_sas(stage)?;
    stage.reporter.check("the cloud has one IKE SA", !first.is_empty(), texts_of(&first));
    for (dies, heir) in [("cgw1", "cgw2"), ("cgw2", "cgw1")] {
        kill(stage, dies, heir)?;
        let now = ike_sas(stage)?;
        stage.reporter.check("the cloud has the IKE SA that it had", now == first, texts_of(&now));
        stage.daemon_mut(dies)?.run()?;
        stage.reporter.step(format!("{dies} is started again"));
        wait_in_step(stage, heir, dies)?;
    }
    split(stage)?;
    clock::sleep(Duration::from_millis(1_500))?;
    let stream = stage.stream()?;
    let said = stage.daemon("cgw2")?.ask(&["cluster", "switch"])?;
    let losses = stage.settle(stream, Duration::from_secs(1))?;
    stage.reporter.event("a planned change of places", &losses, SWITCH_MS);
    stage.reporter.check("the order says what came of it", said.contains("stands by"), said.trim().to_owned());
    wait_in_step(stage, "cgw1", "cgw2")?;
    // Switches believe another announcement a second later at the soonest.
    clock::sleep(Duration::from_millis(1_500))?;
    let stream = stage.stream()?;
    stage.daemon_mut("cgw1")?.stop();
    stage.reporter.step("cgw1 is told to end");
    let losses = stage.settle(stream, Duration::from_secs(2))?;
    stage.reporter.event("the end of the active one in good order", &losses, SWITCH_MS);
    let now = ike_sas(stage)?;
    stage.reporter.check("the cloud has the IKE SA that it had all the time", now == first, texts_of(&now));
    Ok(())
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
pub(super) fn check_numbers(stage: &mut Stage<'_>, frames: &[Frame]) -> Result<()> {
    let members = ["cgw1", "cgw2"].map(|name| crate::topology::index_of(&stage.ground.internet, name));
    let [one, other] = members;
    let members = [one?, other?];
    let mut seen = BTreeSet::new();
    let mut twice = 0_usize;
    for frame in frames.iter().filter(|frame| members.contains(&frame.interface)) {
        if let Class::Esp(flow) | Class::EspInUdp(flow) = classify(&frame.bytes, &Inner::default())
            && flow.from.to_string() == SHARED
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
