//! Small packets: how many UDP packets of 64 bytes a tunnel passes in a second.
//!
//! Sender, both gateways and receiver share the processors of one machine. A sender that sends as fast as it can takes
//! from the gateways what they need, so what counts is the best rate at which all but a few arrive; what arrives of a
//! flood stands beside it (`loadgen::packets`). The hosts are behind the gateways, for the sender's device cuts up its runs.

use crate::bench::data::{build, plugins_for};
use crate::bench::figures::{Row, Samples};
use crate::bench::gateways::Gateway;
use crate::bench::path::{Case, Tunnel};
use crate::bench::{Part, Skipped, attempt};
use crate::error::{Error, Result};
use crate::shell::{Shell, installed};

/// Bytes of an IP packet.
const SIZE: &str = "64";
/// Milliseconds of one rate.
const TIME: &str = "300";
/// Per cent that may be lost.
const TOLERATED: &str = "1";

/// Measures every gateway by turns.
pub(super) fn measure(rounds: u32, skipped: &mut Vec<Skipped>, shell: &Shell) -> Result<Vec<Row>> {
    if !installed("ethtool") {
        return Err(Error::Missing { what: "the program ethtool".into(), install: "apt-get install ethtool".into() });
    }
    let mut tunnels = Vec::new();
    for gateway in Gateway::PEERS {
        let plugins = plugins_for(gateway, Case::BEHIND, shell)?;
        let what = format!("small packets, {gateway}");
        if let Some(mut tunnel) = build(gateway, Case::BEHIND, plugins, &what, skipped, shell)? {
            tunnel.serve_counter()?;
            tunnels.push((tunnel, Samples::default()));
        }
    }
    for round in 1..=rounds {
        for (tunnel, samples) in &mut tunnels {
            let what = format!("small packets, {}, round {round}", tunnel.gateway);
            attempt(&what, run_once(tunnel, samples), skipped, shell)?;
            shell.say(&format!(
                "  64-byte packets, round {round}: {} {:.0} a second with {:.1} % lost ({:.1} µs each), {:.0} of a flood of {:.0}",
                tunnel.gateway,
                samples.last("best_per_second"),
                samples.last("best_lost_percent"),
                samples.last("cpu_us_per_packet"),
                samples.last("flood_arrived_per_second"),
                samples.last("flood_sent_per_second"),
            ));
        }
    }
    Ok(tunnels
        .into_iter()
        .map(|(tunnel, samples)| samples.into_row(Part::Small, "64 bytes", tunnel.gateway.name()))
        .collect())
}

fn run_once(tunnel: &Tunnel, samples: &mut Samples) -> Result<()> {
    let said = tunnel.packets(&["--size", SIZE, "--time", TIME, "--tolerated", TOLERATED])?;
    let number = |of: &str, what: &str| said[of][what].as_f64().unwrap_or(0.0);
    samples.push("best_per_second", number("best", "arrived_per_second"));
    samples.push("best_lost_percent", number("best", "lost_percent"));
    samples.push("flood_sent_per_second", number("flood", "sent_per_second"));
    samples.push("flood_arrived_per_second", number("flood", "arrived_per_second"));
    // What it costs is counted at that rate.
    let before = tunnel.cpu()?;
    let rate = number("best", "wanted_per_second").max(1_000.0).to_string();
    let once = tunnel.packets(&["--size", SIZE, "--time", TIME, "--rate", &rate])?;
    let used = (tunnel.cpu()? - before).total();
    let arrived = once["sent"].as_f64().unwrap_or(0.0) - once["lost"].as_f64().unwrap_or(0.0);
    samples.push("cpu_us_per_packet", if arrived > 0.0 { used * 1e6 / arrived } else { 0.0 });
    Ok(())
}
