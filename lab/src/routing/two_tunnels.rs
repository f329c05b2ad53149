//! One customer gateway, two endpoints of the cloud, static routes: what it costs traffic when a tunnel fails, is taken
//! out of service, or when something else is changed.

use std::time::Duration;

use serde_json::Value;

use crate::clock;
use crate::error::Result;
use crate::netns::Lab;
use crate::routing::charon::Charon;
use crate::routing::config::{Tunnel, table, texts};
use crate::routing::daemon::{Daemon, active, is_up, list, spis};
use crate::routing::dark::{self, Dark};
use crate::routing::follower::{Ask, Endpoint, Follower};
use crate::routing::ground::{self, Ground, OFFICE_NET, VPC_NET};
use crate::routing::{Cloud, Event, Mode, Options, Stage};
use crate::spec::{Suite, Version};

/// The ground.
pub(super) const DRAWING: &str = " office 10.60.0.0/16                                 VPC 10.50.0.0/16
 ┌─────────────────────────┐              ┌─────────────────────────────────┐
 │ host             cgw    │              │ vgw1                            │
 │ 10.60.1.100 ─ 198.51.100.2 ─ internet ─┬ 203.0.113.10 ┬ vpc ─ 10.50.1.100│
 │                         │              │ vgw2         │                  │
 └─────────────────────────┘              └ 192.0.2.10 ──┘──────────────────┘
   tunnel1 169.254.10.0/30 to vgw1, tunnel2 169.254.11.0/30 to vgw2";

pub(super) fn ground(lab: &Lab) -> Result<Ground> {
    Ground::build(lab, &ground::OFFICE, &ground::VPC_OF_TWO)
}

/// Tunnel 1 or 2 as one end is told of it.
fn tunnel(number: usize, is_customer: bool, options: &Options, ground: &Ground) -> Result<Tunnel> {
    let endpoint = ground.cloud.gateway(number - 1)?.public.to_string();
    let customer = ground.customer.gateway(0)?.public.to_string();
    let net = if number == 1 { "169.254.10" } else { "169.254.11" };
    let (local, remote) = if is_customer { (customer, endpoint) } else { (endpoint, customer) };
    Ok(Tunnel {
        name: if is_customer { format!("tunnel{number}") } else { format!("vgw{number}") },
        version: options.version,
        suite: if options.version == Version::V1 { Suite::Classic } else { Suite::Modern },
        local_id: local.clone(),
        remote_id: remote.clone(),
        local,
        remote,
        psk: format!("two tunnels, number {number}"),
        dpd: match options.event {
            Event::Dpd => "{ delay = \"2s\", timeout = \"6s\" }".into(),
            Event::Bfd
            | Event::Probe
            | Event::Drain
            | Event::Reload
            | Event::Delete
            | Event::Replace
            | Event::Dark
            | Event::HandOver => "{ delay = \"10s\", timeout = \"30s\" }".into(),
        },
        starts: is_customer,
        inside: if is_customer { format!("{net}.2/30") } else { format!("{net}.1/30") },
    })
}

/// What watches the tunnels at both ends.
fn watch(options: &Options) -> [(&'static str, &'static str); 2] {
    match options.event {
        Event::Probe => [("probe", "true"), ("bfd", "")],
        // BFD rests over a hand-over.
        Event::Dpd | Event::HandOver => [("probe", ""), ("bfd", "")],
        // strongSwan has no BFD.
        _ if options.cloud == Cloud::Strongswan => [("probe", ""), ("bfd", "")],
        Event::Bfd | Event::Drain | Event::Reload | Event::Delete | Event::Replace | Event::Dark => {
            [("probe", ""), ("bfd", "{ interval = \"100ms\", multiplier = 3 }")]
        }
    }
}

fn vpn(name: &str, tunnels: &[&str], route: &str, options: &Options) -> String {
    let mode = match options.mode {
        Mode::ActiveStandby => "\"active-standby\"",
        Mode::ActiveActive => "\"active-active\"",
    };
    let [probe, bfd] = watch(options);
    let (tunnels, routes) = (texts(tunnels), texts(&[route]));
    let entries = [("tunnels", &*tunnels), ("mode", mode), ("routes", &routes), ("hold-up", "\"1s\""), probe, bfd];
    table(&format!("vpn.{name}"), &entries)
}

fn unrelated(dpd: &str) -> String {
    format!(
        "[connection.unrelated]\nremote = \"198.51.100.77\"\npsk = \"of somebody else\"\ndpd = {{ delay = \"{dpd}\" }}\n\n\
         [connection.unrelated.child.net]\nlocal = \"10.61.0.0/16\"\nremote = \"10.99.0.0/16\"\n\n"
    )
}

fn customer_toml(options: &Options, ground: &Ground, dpd: &str) -> Result<String> {
    let mut toml = unrelated(dpd);
    for number in [1, 2] {
        toml.push_str(&tunnel(number, true, options, ground)?.toml());
    }
    toml.push_str(&vpn("cloud", &["tunnel1", "tunnel2"], VPC_NET, options));
    Ok(toml)
}

pub(super) fn steps(stage: &mut Stage<'_>) -> Result<()> {
    let options = stage.options;
    let mut endpoints = Vec::new();
    for number in [1, 2] {
        let place = stage.ground.cloud.gateway(number - 1)?.clone();
        let tunnel = tunnel(number, false, options, &stage.ground)?;
        let ask = match options.cloud {
            Cloud::Simplon => {
                let toml = tunnel.toml() + &vpn("customer", &[&tunnel.name], OFFICE_NET, options);
                let daemon = Daemon::start(&stage.lab, &place.node, &place.name, &toml)?;
                let ask = Ask::Simplon(daemon.socket());
                stage.daemons.push(daemon);
                ask
            }
            Cloud::Strongswan => {
                let charon = Charon::start(&stage.lab, &place.node, &place.name, &tunnel, &[OFFICE_NET])?;
                let ask = Ask::Strongswan(charon.dir());
                stage.charons.push(charon);
                ask
            }
        };
        endpoints.push(Endpoint { via: place.inside, ask });
    }
    if let Some(router) = &stage.ground.cloud.router {
        let all = options.mode == Mode::ActiveActive;
        stage.followers.push(Follower::start(router, OFFICE_NET, endpoints, all)?);
    }
    let place = stage.ground.customer.gateway(0)?.clone();
    let toml = customer_toml(options, &stage.ground, "10s")?;
    stage.daemons.push(Daemon::start(&stage.lab, &place.node, &place.name, &toml)?);
    stage.reporter.step(format!("{} at the cloud's ends and the customer's gateway run", options.cloud));
    wait_for_both(stage)?;
    event(stage)
}

/// Waits until both tunnels carry what they are to carry.
fn wait_for_both(stage: &mut Stage<'_>) -> Result<()> {
    let wanted: &[&str] = match stage.options.mode {
        Mode::ActiveStandby => &["tunnel1"],
        Mode::ActiveActive => &["tunnel1", "tunnel2"],
    };
    let customer = stage.daemon("cgw")?;
    let took = clock::wait_for("both tunnels", Duration::from_secs(25), || {
        let status = customer.status()?;
        let both = is_up(&status, "tunnel1") && is_up(&status, "tunnel2");
        let all_healthy = list(&status["vpns"][0]["tunnels"]).all(|tunnel| tunnel["is_healthy"] == true);
        Ok(both && all_healthy && active(&status) == wanted)
    })?;
    stage.reporter.step(format!("both tunnels are up, {:.2} s later", took.as_secs_f64()));
    Ok(())
}

fn event(stage: &mut Stage<'_>) -> Result<()> {
    let options = stage.options;
    if options.event == Event::Dark {
        let daemon = Dark { gateway: "cgw", cloud_net: VPC_NET, protects: "the static route" };
        return dark::play(stage, &daemon);
    }
    let endpoint = stage.ground.cloud.gateway(0)?.public;
    let stream = stage.stream()?;
    let what = options.event.what();
    stage.reporter.step(what);
    match options.event {
        Event::Bfd | Event::Probe | Event::Dpd => stage.ground.cut(&[endpoint])?,
        Event::Drain => drain(stage)?,
        Event::Reload => {
            let toml = customer_toml(options, &stage.ground, "20s")?;
            stage.daemon("cgw")?.reconfigure(&toml)?;
        }
        Event::Delete => take_down_endpoint(stage)?,
        Event::Replace => {
            move_the_cloud(stage)?;
            take_down_endpoint(stage)?;
        }
        Event::HandOver => hand_over(stage)?,
        Event::Dark => {}
    }
    let losses = stage.settle(stream, Duration::from_secs(1))?;
    stage.reporter.event(what, &losses, options.event.bound_ms(options.cloud));
    let status = stage.daemon("cgw")?.status()?;
    let now = active(&status);
    let expected = match (options.event, options.mode) {
        (Event::Reload | Event::HandOver, Mode::ActiveActive) => vec!["tunnel1", "tunnel2"],
        (Event::Reload | Event::HandOver, Mode::ActiveStandby) => vec!["tunnel1"],
        _ => vec!["tunnel2"],
    };
    let why = status["vpns"][0]["why"].as_str().unwrap_or_default().to_owned();
    // An endpoint that only deletes its SAs is asked again at once, and may have come back meanwhile.
    let held = now == expected || options.event == Event::Delete && !now.is_empty();
    stage.reporter.check("the tunnel that is left carries the traffic", held, format!("{}: {why}", now.join(", ")));
    if options.event == Event::Bfd {
        come_back(stage)?;
    }
    Ok(())
}

fn take_down_endpoint(stage: &Stage<'_>) -> Result<()> {
    match stage.options.cloud {
        Cloud::Simplon => stage.daemon("vgw1")?.ask(&["down", "vgw1"]).map(drop),
        Cloud::Strongswan => stage.charon("vgw1")?.terminate(),
    }
}

/// The customer drains the first tunnel. simplon at the other end is asked to send around it, and the cloud's control plane
/// sees that; anything else has an operator who moves its traffic.
fn drain(stage: &mut Stage<'_>) -> Result<()> {
    let mut order = stage.daemon("cgw")?.ask_meanwhile(&["drain", "tunnel1", "--timeout", "30"])?;
    if stage.options.cloud != Cloud::Simplon {
        move_the_cloud(stage)?;
    }
    let done = order.finish(Duration::from_secs(40))?;
    let said = stage.daemon("cgw")?.said();
    stage.reporter.check("the tunnel becomes quiet and is taken down", done, said.trim().to_owned());
    let expected = match (stage.options.version, stage.options.cloud) {
        (Version::V1, _) => "IKEv1 cannot ask",
        (Version::V2, Cloud::Simplon) => "the other end sends around",
        (Version::V2, Cloud::Strongswan) => "the other end does not know",
    };
    let status = stage.daemon("cgw")?.status()?;
    let connection = list(&status["connections"]).find(|connection| connection["name"] == "tunnel1");
    let history = connection.map(|connection| &connection["history"]).unwrap_or(&Value::Null);
    let found = list(history).filter_map(|entry| entry["text"].as_str()).find(|text| text.starts_with(expected));
    let shown = found.unwrap_or("nothing is said of it").to_owned();
    stage.reporter.check("it is said whether the other end was asked to move too", found.is_some(), shown);
    Ok(())
}

/// Another process takes the customer's gateway over, and makes new keys with both peers.
fn hand_over(stage: &mut Stage<'_>) -> Result<()> {
    let before = stage.daemon("cgw")?.status()?;
    let daemon = stage.daemons.iter_mut().find(|daemon| daemon.name() == "cgw");
    let pause = daemon.map(Daemon::hand_over).transpose()?.unwrap_or_default();
    let after = stage.daemon("cgw")?.status()?;
    let held = !spis(&before).is_empty() && spis(&before) == spis(&after);
    stage.reporter.check("the SAs are the same", held, format!("{}; packets waited {pause}", spis(&after).join(", ")));
    for more in [&["--ike"][..], &[]] {
        for tunnel in ["tunnel1", "tunnel2"] {
            stage.daemon("cgw")?.ask(&[&["rekey", tunnel], more].concat())?;
        }
        clock::sleep(Duration::from_secs(1))?;
    }
    let renewed = spis(&stage.daemon("cgw")?.status()?);
    let held = renewed.len() == spis(&after).len() && !renewed.iter().any(|spi| spis(&after).contains(spi));
    stage.reporter.check("both peers make new keys with the new process", held, renewed.join(", "));
    Ok(())
}

/// The cloud's operator moves its traffic away from the first endpoint.
fn move_the_cloud(stage: &mut Stage<'_>) -> Result<()> {
    clock::sleep(Duration::from_millis(300))?;
    for follower in &stage.followers {
        follower.avoid(0);
    }
    stage.reporter.step("the cloud sends through the other endpoint");
    clock::sleep(Duration::from_millis(300))
}

/// The path is healed: the preferred tunnel carries traffic again, and nothing is lost by that.
fn come_back(stage: &mut Stage<'_>) -> Result<()> {
    let stream = stage.stream()?;
    stage.ground.cut(&[])?;
    stage.reporter.step("the path is healed");
    wait_for_both(stage)?;
    let losses = stage.settle(stream, Duration::from_secs(1))?;
    stage.reporter.event("the way back", &losses, 0.0);
    Ok(())
}
