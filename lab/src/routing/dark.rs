//! Every path is cut, then the gateway is killed: packets for the other site are refused, the sender hears of it, and none
//! of them follows the default route in clear. That nothing leaves is what the capture on the internet shows at the end.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::clock;
use crate::error::Result;
use crate::ping;
use crate::routing::Stage;

/// What goes dark.
pub(super) struct Dark<'a> {
    /// The customer's gateway.
    pub(super) gateway: &'a str,
    /// The network behind the tunnels.
    pub(super) cloud_net: &'a str,
    /// Beside which route the refusal stands.
    pub(super) protects: &'a str,
}

pub(super) fn play(stage: &mut Stage<'_>, dark: &Dark<'_>) -> Result<()> {
    let place = stage.ground.customer.gateway(0)?.clone();
    let default = place.node.ip(&["route", "show", "default"])?;
    stage.reporter.check(
        "there is a default route that packets could follow",
        default.contains("dev outside"),
        default.trim().to_owned(),
    );
    // Linux sends an error a second to each host: those about the stream would leave none for pings of the same address.
    let (host, target) = (stage.ground.customer.host.clone(), stage.ground.cloud.host.address);
    let other = Ipv4Addr::from(u32::from(host.address) + 1);
    host.node.address("eth0", &format!("{other}/32"))?;
    place.node.sysctl(&["net.ipv4.icmp_ratelimit=0"])?;
    let endpoints: Vec<Ipv4Addr> =
        stage.ground.cloud.gateways.iter().flat_map(|gateway| gateway.outside.clone()).collect();
    let stream = stage.stream()?;
    stage.ground.cut(&endpoints)?;
    stage.reporter.step("every path is cut");
    clock::wait_for("the gateway to notice", Duration::from_secs(20), || {
        let routes = place.node.ip(&["route", "show", dark.cloud_net])?;
        Ok(!routes.contains("dev "))
    })?;
    let routes = place.node.ip(&["route", "show", dark.cloud_net])?;
    stage.reporter.check(
        format!("{} has a refusal beside it", dark.protects),
        routes.contains("unreachable"),
        routes.trim().replace('\n', " | "),
    );
    let (held, found) = ping::is_refused(&host.node, other, target)?;
    stage.reporter.check("the sender hears that its packets are refused", held, found);
    clock::sleep(Duration::from_secs(1))?;
    stage.ground.cut(&[])?;
    stage.reporter.step("the paths are healed");
    let losses = stage.settle(stream, Duration::from_secs(1))?;
    let held = losses.lost() > 0 && !losses.is_open();
    stage.reporter.check("traffic passes again when the paths are healed", held, losses.to_string());

    let stream = stage.stream()?;
    if let Some(daemon) = stage.daemons.iter_mut().find(|daemon| daemon.name() == dark.gateway) {
        daemon.crash();
    }
    stage.reporter.step("the gateway is killed");
    clock::sleep(Duration::from_secs(1))?;
    let (held, found) = ping::is_refused(&host.node, other, target)?;
    stage.reporter.check("also without the gateway the sender hears it", held, found);
    drop(stream);
    Ok(())
}
