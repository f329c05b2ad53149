//! A customer gateway is handed over to another process while BIRD or FRR at the other end speaks BGP and BFD with it through
//! the tunnel: whether it keeps the routes, whether BFD notices, and what traffic loses.
//!
//! The speaker runs beside the cloud's gateway, which has the tunnel and no BGP of its own. Where BIRD keeps nothing over a
//! restart (RFC 4724), its routes and its BFD session go and come again: what that costs is measured and said.

use std::fs;
use std::time::Duration;

use crate::bgp_peer::{BgpPeer, BgpPeerKind, Plan};
use crate::clock;
use crate::error::{Error, Result};
use crate::netns::{Lab, Node};
use crate::routing::Stage;
use crate::routing::bird::{self, Bird};
use crate::routing::config::{Tunnel, table, texts};
use crate::routing::daemon::{Daemon, is_up, list};
use crate::routing::ground::{self, Ground, OFFICE_NET, VPC_NET};
use crate::shell::Process;
use crate::spec::{Suite, Version};

/// The ground.
pub(super) const DRAWING: &str = " 10.60.0.0/16, AS 65000                                     10.50.0.0/16, AS 64512
 office ─ cgw 198.51.100.2 ─ internet ─ 203.0.113.10 vgw, and BIRD or FRR beside it ─ ec2
   tunnel1 169.254.10.0/30, BGP and BFD through it";

const OURS: &str = "169.254.10.2";
const THEIRS: &str = "169.254.10.1";

pub(super) fn ground(lab: &Lab) -> Result<Ground> {
    Ground::build(lab, &ground::OFFICE, &ground::VPC)
}

fn tunnel(is_customer: bool) -> Tunnel {
    let ends = ["198.51.100.2".to_owned(), "203.0.113.10".to_owned()];
    let [local, remote] = if is_customer { ends } else { [ends[1].clone(), ends[0].clone()] };
    Tunnel {
        name: "tunnel1".into(),
        version: Version::V2,
        suite: Suite::Modern,
        local_id: local.clone(),
        remote_id: remote.clone(),
        local,
        remote,
        psk: "handed over".into(),
        dpd: "{ delay = \"10s\", timeout = \"30s\" }".into(),
        starts: is_customer,
        inside: format!("{}/30", if is_customer { OURS } else { THEIRS }),
    }
}

fn customer_toml() -> String {
    let networks = texts(&[OFFICE_NET]);
    let vpn = table(
        "vpn.cloud",
        &[("tunnels", "[\"tunnel1\"]"), ("hold-up", "\"1s\""), ("bfd", "{ interval = \"100ms\", multiplier = 3 }")],
    );
    let bgp = table("bgp", &[("as", "65000"), ("router-id", "\"169.254.10.2\""), ("networks", &networks)]);
    let neighbor = table(
        &format!("bgp.neighbor.\"{THEIRS}\""),
        &[
            ("as", "64512"),
            ("tunnel", "\"tunnel1\""),
            ("connect-retry", "\"1s\""),
            ("bfd", "{ interval = \"100ms\", multiplier = 3 }"),
        ],
    );
    tunnel(true).toml() + &vpn + &bgp + &neighbor
}

fn bird_conf(keeps: bool) -> String {
    let (keeps, bfd) = (if keeps { "on" } else { "off" }, bird::bfd("tunnel1"));
    format!(
        "router id 10.50.1.1;\nprotocol device {{ }}\n\
         protocol kernel {{\n  ipv4 {{ import none; export where source = RTS_BGP; }};\n}}\n{bfd}\
         protocol static networks4 {{\n  ipv4;\n  route {VPC_NET} blackhole;\n}}\n\
         protocol bgp neighbour {{\n  local {THEIRS} as 64512;\n  neighbor {OURS} as 65000;\n  hold time 30;\n  \
         connect delay time 1;\n  connect retry time 2;\n  error wait time 1, 2;\n  bfd on;\n  \
         graceful restart {keeps};\n  \
         ipv4 {{\n    import all;\n    export where source = RTS_STATIC;\n  }};\n}}\n"
    )
}

/// Who speaks BGP beside the cloud's gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbour {
    /// BIRD, which keeps routes over a restart of its neighbour (RFC 4724) or does not.
    Bird {
        /// Whether it does.
        keeps: bool,
    },
    /// FRR, which keeps them unless it is told otherwise.
    Frr,
}

impl Neighbour {
    pub(super) const fn kind(self) -> BgpPeerKind {
        match self {
            Self::Bird { .. } => BgpPeerKind::Bird,
            Self::Frr => BgpPeerKind::Frr,
        }
    }

    const fn keeps(self) -> bool {
        !matches!(self, Self::Bird { keeps: false })
    }

    fn start(self, lab: &Lab, node: &Node) -> Result<Box<dyn Speaker>> {
        Ok(match self {
            Self::Bird { keeps } => Box::new(Bird::start(lab, node, "bird", &bird_conf(keeps))?),
            Self::Frr => Box::new(Frr::start(lab, node)?),
        })
    }
}

/// A speaker beside the cloud's gateway.
trait Speaker {
    /// How the BFD session is, in words that change when it goes down and comes up.
    ///
    /// # Errors
    ///
    /// When it cannot be asked.
    fn bfd(&self) -> Result<String>;
}

impl Speaker for Bird {
    /// Since when it is as it is.
    fn bfd(&self) -> Result<String> {
        let said = self.ask(&["show", "bfd", "sessions"])?;
        let line = said.lines().find(|line| line.contains(OURS)).unwrap_or_default();
        Ok(line.split_whitespace().collect::<Vec<_>>().join(" "))
    }
}

struct Frr {
    node: Node,
    dir: String,
    peer: Box<dyn BgpPeer>,
}

impl Frr {
    fn start(lab: &Lab, node: &Node) -> Result<Self> {
        let address = |text: &str| text.parse().map_err(|e| Error::Asked(format!("{text}: {e}")));
        let plan = Plan {
            address: address(THEIRS)?,
            router_id: std::net::Ipv4Addr::new(10, 50, 1, 1),
            interface: "tunnel1".into(),
            asn: 64_512,
            remote: address(OURS)?,
            remote_asn: 65_000,
            other: None,
            networks: vec![VPC_NET.into()],
            password: None,
            bfd: true,
        };
        let mut peer = BgpPeerKind::Frr.build(lab, node, plan)?;
        peer.start()?;
        let dir = lab.dir().join(BgpPeerKind::Frr.name()).to_string_lossy().into_owned();
        Ok(Self { node: node.clone(), dir, peer })
    }
}

impl Speaker for Frr {
    /// How often it went up and down.
    fn bfd(&self) -> Result<String> {
        let words = ["vtysh", "--vty_socket", &self.dir, "-c", "show bfd peers counters json"];
        let said: serde_json::Value = serde_json::from_str(&self.node.run(&words)?).unwrap_or_default();
        let count = |name: &str| said[0][name].to_string();
        Ok(format!("up {}, down {}", count("session-up"), count("session-down")))
    }
}

impl Drop for Frr {
    fn drop(&mut self) {
        self.peer.crash();
    }
}

pub(super) fn steps(stage: &mut Stage<'_>, neighbour: Neighbour) -> Result<()> {
    let keeps = neighbour.keeps();
    let (cloud, customer) = (stage.ground.cloud.gateway(0)?.clone(), stage.ground.customer.gateway(0)?.clone());
    let vgw = Daemon::start(&stage.lab, &cloud.node, &cloud.name, &tunnel(false).toml())?;
    stage.daemons.push(vgw);
    let speaker = neighbour.start(&stage.lab, &cloud.node)?;
    stage.daemons.push(Daemon::start(&stage.lab, &customer.node, &customer.name, &customer_toml())?);
    // The speaker's routes are not simplon's: without them the office's packets must not leave the cloud in clear.
    // FRR reads the upper octet of a metric as an administrative distance, of which 255 is no competitor of its own.
    cloud.node.ip(&["route", "add", "unreachable", OFFICE_NET, "metric", "0xff002000"])?;
    stage.reporter.step(format!("both gateways and {} run", neighbour.kind()));
    wait_until_settled(stage)?;
    clock::wait_for("the office's network in the cloud's kernel", Duration::from_secs(10), || {
        Ok(cloud.node.ip(&["route", "show", OFFICE_NET])?.contains("dev tunnel1"))
    })?;
    let stream = stage.stream()?;
    let (before, flaps, unfit_before) = (speaker.bfd()?, flaps(stage)?, unfit(stage)?);
    let watches = [("cloud", &cloud.node, OFFICE_NET), ("customer", &customer.node, VPC_NET)]
        .map(|(name, node, prefix)| Watch::start(&stage.lab, name, node, prefix));
    let what = if keeps { "hand-over, the neighbour keeps routes" } else { "hand-over, the neighbour keeps nothing" };
    stage.reporter.step(what);
    let daemon = stage.daemons.iter_mut().find(|daemon| daemon.name() == "cgw");
    let daemon = daemon.ok_or_else(|| Error::Asked("no gateway is called cgw".into()))?;
    let pause = daemon.hand_over()?;
    stage.reporter.step(format!("another process is the gateway; packets waited for {pause}"));
    let took = wait_until_settled(stage)?;
    stage.reporter.step(format!("the session is established again, {took:.2} s later"));
    // Until after the neighbour has heard everything, and whatever it held as stale has gone.
    let losses = stage.settle(stream, Duration::from_secs(3))?;
    stage.reporter.event(what, &losses, if keeps { 0.0 } else { 1_000.0 });
    let (after, more_flaps) = (speaker.bfd()?, self::flaps(stage)?);
    if keeps {
        stage.reporter.check("BFD did not notice at the other end", before == after, format!("{before}; then {after}"));
        stage.reporter.check("nor at ours", flaps == more_flaps, format!("{flaps} flaps, then {more_flaps}"));
    } else {
        // BIRD's BFD session belongs to its BGP session, and ends and begins with it.
        stage.reporter.step(format!("BFD at the other end: {before}; then {after}"));
    }
    for watch in watches {
        let Watch { name, gone, .. } = watch?.finish();
        // Without graceful restart what the cloud learnt goes; and what it told us goes for the milliseconds in which its
        // new BFD session says that it is down, if ours was up again by then.
        let may_go = !keeps;
        stage.reporter.check(
            format!("the {name}'s kernel keeps the route{}", if may_go { " or takes it again" } else { "" }),
            gone.is_empty() || may_go,
            if gone.is_empty() { "it never went".to_owned() } else { gone },
        );
    }
    let down = unfit(stage)? - unfit_before;
    stage.reporter.check("no tunnel became unfit", down == 0 || !keeps, format!("{down} lines of the log say so"));
    Ok(())
}

/// Waits until the tunnel, BFD and BGP are up; how many seconds it took.
fn wait_until_settled(stage: &Stage<'_>) -> Result<f64> {
    let customer = stage.daemon("cgw")?;
    let took = clock::wait_for("the tunnel, BFD and the session", Duration::from_secs(40), || {
        let status = customer.status()?;
        let bfd = list(&status["bfd"]).all(|b| b["state"] == "up" && b["detection_ms"].as_u64() <= Some(300));
        let bgp = list(&status["bgp"]["neighbors"]).all(|n| n["state"] == "established" && n["prefixes_accepted"] == 1);
        Ok(is_up(&status, "tunnel1") && bfd && bgp)
    })?;
    Ok(took.as_secs_f64())
}

fn flaps(stage: &Stage<'_>) -> Result<u64> {
    Ok(stage.daemon("cgw")?.status()?["bfd"][0]["flaps"].as_u64().unwrap_or(0))
}

/// How often the log says that the tunnel became unfit. While BGP comes up, FRR begins its BFD session anew.
fn unfit(stage: &Stage<'_>) -> Result<usize> {
    let log = stage.daemon("cgw")?.log_tail(400);
    Ok(log.lines().filter(|line| line.contains("is not fit for traffic")).count())
}

/// Everything that happens to a kernel's route.
struct Watch {
    name: &'static str,
    prefix: &'static str,
    log: std::path::PathBuf,
    process: Process,
    gone: String,
}

impl Watch {
    fn start(lab: &Lab, name: &'static str, node: &Node, prefix: &'static str) -> Result<Self> {
        let log = lab.dir().join(format!("routes-{name}"));
        let process = node.spawn(&["ip", "monitor", "route"], &[], &log)?;
        Ok(Self { name, prefix, log, process, gone: String::new() })
    }

    fn finish(mut self) -> Self {
        self.process.stop();
        let said = fs::read_to_string(&self.log).unwrap_or_default();
        let gone = said
            .lines()
            .filter(|line| line.starts_with("Deleted") && line.contains(self.prefix) && line.contains("tunnel1"));
        self.gone = gone.collect::<Vec<_>>().join(" | ");
        self
    }
}
