//! Round trips of pings, one outstanding: each is sent when the one before it came back.
//!
//! With pauses between them the processor falls asleep, and what is measured is how fast it wakes. What both gateways
//! add is the difference to the same path without any.

use crate::bench::data::{build, plugins_for};
use crate::bench::figures::{Row, Samples, Spread};
use crate::bench::gateways::Gateway;
use crate::bench::path::{Case, HOSTS};
use crate::bench::{Part, Skipped};
use crate::error::Result;
use crate::shell::Shell;

/// Pings of a round.
const COUNT: &str = "2000";
/// What the ping passes.
pub(super) const CASES: [(&str, Case); 2] = [("ping", Case::GCM), ("ping, hosts behind", Case::BEHIND)];

/// Measures every gateway by turns, and the path without any.
pub(super) fn measure(rounds: u32, skipped: &mut Vec<Skipped>, shell: &Shell) -> Result<Vec<Row>> {
    let mut tunnels = Vec::new();
    for (name, case) in CASES {
        for gateway in [&[Gateway::Forwarding, Gateway::WithoutEncryption], &Gateway::PEERS[..]].concat() {
            let plugins = plugins_for(gateway, case, shell)?;
            let what = format!("{name}, {gateway}");
            if let Some(tunnel) = build(gateway, case, plugins, &what, skipped, shell)? {
                tunnels.push((name, tunnel, Samples::default()));
            }
        }
    }
    let [from, to] = HOSTS.map(|host| host.to_string());
    for round in 1..=rounds {
        let mut forwarding = 0.0;
        for (name, tunnel, samples) in &mut tunnels {
            // Adaptive: the next leaves when the answer has come.
            let words = ["ping", "-n", "-A", "-c", COUNT, "-W", "1", "-I", &from, &to];
            let mut times = round_trips(&tunnel.ends.hosts[0].output(&words)?.stdout);
            times.sort_by(f64::total_cmp);
            let p99 = times.get(times.len() * 99 / 100).copied().unwrap_or_default();
            samples.push("answered", times.len() as f64);
            let p50 = Spread::of(times).median * 1_000.0;
            if tunnel.gateway == Gateway::Forwarding {
                forwarding = p50;
            }
            samples.push("p50_us", p50);
            samples.push("p99_us", p99 * 1_000.0);
            samples.push("added_p50_us", p50 - forwarding);
            shell.say(&format!("  {name}, round {round}: {} {p50:.0} µs", tunnel.gateway.name()));
        }
    }
    Ok(tunnels
        .into_iter()
        .map(|(name, tunnel, samples)| samples.into_row(Part::Rtt, name, tunnel.gateway.name()))
        .collect())
}

/// The milliseconds in ping's lines.
fn round_trips(said: &str) -> Vec<f64> {
    said.lines().filter_map(|line| line.split_once("time=")?.1.split(' ').next()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_are_read_from_pings_lines() {
        let said = "64 bytes from 10.62.0.2: icmp_seq=1 ttl=62 time=0.9 ms\n\
            64 bytes from 10.62.0.2: icmp_seq=2 ttl=62 time=0.101 ms\n3 packets transmitted, time 10ms\n";
        assert_eq!(round_trips(said), [0.9, 0.101]);
        assert!(round_trips("").is_empty());
    }
}
