//! A rekey every second under full load: what it costs, and whether a packet is lost.
//!
//! Lost is what one gateway sealed and the other did not open, as both count it, over all SAs that came and went. Rounds
//! with and without rekeying alternate.

use std::time::Duration;

use serde_json::Value;

use crate::bench::data::build;
use crate::bench::figures::{Row, Samples};
use crate::bench::gateways::{Gateway, Plugins};
use crate::bench::path::{Case, HOSTS, Tunnel};
use crate::bench::{Part, Skipped, attempt};
use crate::clock;
use crate::error::{Error, Result};
use crate::peer::simplon;
use crate::shell::Shell;

const SECONDS: u32 = 5;
pub(super) const CASES: [&str; 2] = ["no rekey", "a rekey a second"];

/// Measures simplon alone: the others do not say what they opened of SAs that are gone.
pub(super) fn measure(rounds: u32, skipped: &mut Vec<Skipped>, shell: &Shell) -> Result<Vec<Row>> {
    let Some(mut tunnel) = build(Gateway::Simplon, Case::GCM, Plugins::Own, "rekeying", skipped, shell)? else {
        return Ok(Vec::new());
    };
    tunnel.serve_iperf()?;
    let mut found = [Samples::default(), Samples::default()];
    for round in 1..=rounds {
        for ((case, samples), rekeys) in CASES.into_iter().zip(&mut found).zip([false, true]) {
            let done = run_once(&mut tunnel, rekeys, samples);
            attempt(&format!("{case}, round {round}"), done, skipped, shell)?;
            shell.say(&format!(
                "  {case}, round {round}: {:.0} Mbit/s, {:.0} rekeys, {:.0} packets lost",
                samples.last("tcp_mbit"),
                samples.last("rekeys"),
                samples.last("lost"),
            ));
        }
    }
    let rows = CASES.into_iter().zip(found);
    Ok(rows.map(|(case, samples)| samples.into_row(Part::Rekey, case, Gateway::Simplon.name())).collect())
}

fn run_once(tunnel: &mut Tunnel, rekeys: bool, samples: &mut Samples) -> Result<()> {
    let before = carried(tunnel)?;
    let log = tunnel.lab.dir().join("stream");
    let [from, to] = HOSTS.map(|host| host.to_string());
    let words = ["iperf3", "-J", "-B", &from, "-c", &to, "-t", &SECONDS.to_string()];
    let mut stream = tunnel.ends.hosts[0].spawn(&words, &[], &log)?;
    let socket = tunnel.lab.dir().join("gw-a/socket").to_string_lossy().into_owned();
    let program = simplon::program().unwrap_or_default().to_string_lossy().into_owned();
    let mut done = 0;
    clock::sleep(Duration::from_millis(500))?;
    for _ in 1..SECONDS {
        if rekeys {
            tunnel.ends.places[0].node.run(&[&*program, "rekey", "bench", "--socket", &socket])?;
            done += 1;
        }
        clock::sleep(Duration::from_secs(1))?;
    }
    let ended = stream.finish(Duration::from_secs(10))?;
    let text = std::fs::read_to_string(&log).unwrap_or_default();
    let said: Value = serde_json::from_str(&text).unwrap_or_default();
    if !ended {
        let said = said["error"].as_str().unwrap_or(&text).to_owned();
        return Err(Error::Command { line: stream.line().into(), said });
    }
    // What stands in queues arrives.
    clock::sleep(Duration::from_millis(300))?;
    let after = carried(tunnel)?;
    let [sealed, opened] = [0, 1].map(|which| after[which].saturating_sub(before[which]));
    samples.push("tcp_mbit", said["end"]["sum_received"]["bits_per_second"].as_f64().unwrap_or(0.0) / 1e6);
    samples.push("tcp_sent_again", said["end"]["sum_sent"]["retransmits"].as_f64().unwrap_or(0.0));
    samples.push("rekeys", f64::from(done));
    samples.push("packets", sealed as f64);
    samples.push("lost", sealed.saturating_sub(opened) as f64);
    Ok(())
}

/// Packets that both gateways sealed, and that they opened, since they began.
fn carried(tunnel: &mut Tunnel) -> Result<[u64; 2]> {
    let mut sums = [0, 0];
    for peer in tunnel.peers() {
        let detail = peer.detail()?.unwrap_or_default();
        let [sealed, opened] = packets(&detail);
        sums[0] += sealed;
        sums[1] += opened;
    }
    Ok(sums)
}

/// What one gateway sealed and opened, with the SAs that are gone (`simplon status --detail --json`).
fn packets(detail: &Value) -> [u64; 2] {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let mut sums = [0, 0];
    for connection in list(&detail["connections"]) {
        sums[0] += number(&connection["carried"]["packets_out"]);
        sums[1] += number(&connection["carried"]["packets_in"]);
        for sa in list(&connection["children"]).iter().flat_map(|child| list(&child["sas"])) {
            sums[0] += number(&sa["traffic"]["outbound"]["packets"]);
            sums[1] += number(&sa["traffic"]["inbound"]["packets"]);
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_of_sas_that_are_gone_count_too() {
        let detail = serde_json::json!({ "connections": [{
            "carried": { "packets_in": 100, "packets_out": 200 },
            "children": [{ "sas": [
                { "traffic": { "inbound": { "packets": 3 }, "outbound": { "packets": 4 } } },
                { "traffic": { "inbound": { "packets": 5 }, "outbound": { "packets": 6 } } },
            ] }],
        }] });
        assert_eq!(packets(&detail), [210, 108]);
        assert_eq!(packets(&Value::Null), [0, 0]);
    }
}
