//! Throughput, and what it costs: TCP through one tunnel (iperf3), one stream and four, in both directions, and UDP.
//!
//! All tunnels stay up; the measurements take turns, so that what else the machine does meets all alike.

use serde_json::Value;

use crate::bench::figures::{Row, Samples};
use crate::bench::gateways::{Gateway, Plugins};
use crate::bench::path::{Case, Tunnel};
use crate::bench::{Part, Skipped, attempt};
use crate::error::{Error, Result};
use crate::shell::{Shell, installed};

/// Seconds of the stream that counts, and of the others.
const STREAM: &str = "2";
const SHORT: &str = "1";
/// A rate that every peer should carry, in datagrams that fit every tunnel.
const UDP: [&str; 5] = ["-u", "-b", "150M", "-l", "1200"];

/// Measures everything there is; strongSwan with the plugins that are fastest in each case.
pub(super) fn measure(rounds: u32, skipped: &mut Vec<Skipped>, shell: &Shell) -> Result<Vec<Row>> {
    if !installed("iperf3") {
        return Err(Error::Missing { what: "the program iperf3".into(), install: "apt-get install iperf3".into() });
    }
    let all =
        [Gateway::Simplon, Gateway::WithoutEncryption, Gateway::Strongswan, Gateway::WireguardGo, Gateway::Openvpn];
    let both = &[Gateway::Simplon, Gateway::Strongswan][..];
    let without_offloads = &[Gateway::Simplon, Gateway::Strongswan, Gateway::WireguardGo][..];
    let mut cases = vec![
        (Case::GCM, &all[..]),
        (Case::BEHIND, &[Gateway::Simplon, Gateway::WithoutEncryption, Gateway::Strongswan]),
        (Case::SHA1, both),
        (Case::SHA256, both),
        (Case::PLAIN, &[Gateway::Simplon]),
    ];
    if installed("ethtool") {
        cases.extend([(Case::CARD, without_offloads), (Case::POOR_WIRE, without_offloads)]);
    } else {
        skipped.push(Skipped::of(Case::CARD.name, "ethtool is not installed; apt-get install ethtool"));
    }
    let mut tunnels = Vec::new();
    for (case, gateways) in cases {
        for gateway in gateways {
            let plugins = plugins_for(*gateway, case, shell)?;
            let what = format!("{}, {gateway}", case.name);
            if let Some(mut tunnel) = build(*gateway, case, plugins, &what, skipped, shell)? {
                tunnel.serve_iperf()?;
                tunnels.push((tunnel, plugins, Samples::default()));
            }
        }
    }
    for round in 1..=rounds {
        for (tunnel, _, samples) in &mut tunnels {
            let what = format!("{}, {}, round {round}", tunnel.case.name, tunnel.gateway);
            attempt(&what, run_once(tunnel, samples), skipped, shell)?;
            shell.say(&format!(
                "  {}, round {round}: {} {:.0} Mbit/s, {:.2} CPU s/GB",
                tunnel.case.name,
                tunnel.gateway,
                samples.last("tcp_mbit"),
                samples.last("cpu_s_per_gb"),
            ));
        }
    }
    let row = |(tunnel, plugins, samples): (Tunnel, Plugins, Samples)| {
        let mut row = samples.into_row(Part::Data, tunnel.case.name, tunnel.gateway.name());
        if tunnel.gateway == Gateway::Strongswan {
            row.with = format!("plugins {}", plugins.name());
        }
        row
    };
    Ok(tunnels.into_iter().map(row).collect())
}

/// A tunnel, or `None` with a line among what was skipped: a peer that is missing or does not start is no reason not to
/// measure the others. simplon itself must be there.
pub(super) fn build(
    gateway: Gateway,
    case: Case,
    plugins: Plugins,
    what: &str,
    skipped: &mut Vec<Skipped>,
    shell: &Shell,
) -> Result<Option<Tunnel>> {
    let why = match gateway.missing() {
        Some(why) => why,
        None => match Tunnel::build(gateway, case, plugins, shell) {
            Ok(tunnel) => return Ok(Some(tunnel)),
            Err(error @ Error::Interrupted) => return Err(error),
            Err(error) if gateway == Gateway::Simplon => return Err(error),
            Err(error) => error.to_string(),
        },
    };
    if gateway == Gateway::Simplon {
        return Err(Error::Missing { what: "what simplon needs".into(), install: why });
    }
    shell.say(&format!("  {what} is left out: {why}"));
    skipped.push(Skipped::of(what, &why));
    Ok(None)
}

/// The order of plugins in which strongSwan is fastest in this case, by one short stream each.
pub(super) fn plugins_for(gateway: Gateway, case: Case, shell: &Shell) -> Result<Plugins> {
    if gateway != Gateway::Strongswan || gateway.missing().is_some() {
        return Ok(Plugins::default());
    }
    let mut best = (0.0, Plugins::default());
    for plugins in Plugins::all() {
        let found = Tunnel::build(gateway, case, plugins, shell).and_then(|mut tunnel| {
            tunnel.serve_iperf()?;
            Ok(received(&tunnel.iperf(&["-t", SHORT])?).0)
        });
        let mbit = match found {
            Ok(mbit) => mbit,
            Err(error @ Error::Interrupted) => return Err(error),
            Err(error) => {
                shell.say(&format!("  strongSwan with its plugins in the order {}: {error}", plugins.name()));
                continue;
            }
        };
        shell.say(&format!("  {}: strongSwan with plugins {} {mbit:.0} Mbit/s", case.name, plugins.name()));
        if mbit > best.0 {
            best = (mbit, plugins);
        }
    }
    Ok(best.1)
}

fn run_once(tunnel: &mut Tunnel, samples: &mut Samples) -> Result<()> {
    let before = tunnel.cpu()?;
    let said = tunnel.iperf(&["-t", STREAM])?;
    let used = tunnel.cpu()? - before;
    let (mbit, bytes) = received(&said);
    samples.push("tcp_mbit", mbit);
    let per_gb = |seconds: f64| if bytes > 0.0 { seconds / (bytes / 1e9) } else { 0.0 };
    samples.push("cpu_s_per_gb", per_gb(used.total()));
    samples.push("user_s_per_gb", per_gb(used.user));
    samples.push("system_s_per_gb", per_gb(used.system));
    if tunnel.case != Case::GCM {
        return Ok(());
    }
    for (figure, more) in [
        ("tcp_back_mbit", &["-t", SHORT, "-R"][..]),
        ("tcp_4_mbit", &["-t", SHORT, "-P", "4"]),
        ("tcp_4_back_mbit", &["-t", SHORT, "-P", "4", "-R"]),
    ] {
        samples.push(figure, received(&tunnel.iperf(more)?).0);
    }
    let said = tunnel.iperf(&[&UDP[..], &["-t", SHORT]].concat())?;
    samples.push("udp_lost_percent", lost_percent(&said));
    Ok(())
}

/// Megabits a second and bytes, at the receiver.
fn received(said: &Value) -> (f64, f64) {
    let sum = &said["end"]["sum_received"];
    (sum["bits_per_second"].as_f64().unwrap_or(0.0) / 1e6, sum["bytes"].as_f64().unwrap_or(0.0))
}

fn lost_percent(said: &Value) -> f64 {
    let sum = &said["end"]["sum"];
    let number = |key: &str| sum[key].as_f64().unwrap_or(0.0);
    if number("packets") > 0.0 { number("lost_packets") / number("packets") * 100.0 } else { 100.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_iperf3_says_is_read() {
        let said = serde_json::json!({"end": {"sum_received": {"bits_per_second": 5e8, "bytes": 125_000_000}}});
        assert_eq!(received(&said), (500.0, 125e6));
        assert_eq!(received(&Value::Null), (0.0, 0.0));
        let said = serde_json::json!({"end": {"sum": {"packets": 1000, "lost_packets": 250}}});
        assert!((lost_percent(&said) - 25.0).abs() < 1e-9);
        // Nothing that was counted is not nothing that was lost.
        assert!((lost_percent(&Value::Null) - 100.0).abs() < 1e-9);
    }
}
