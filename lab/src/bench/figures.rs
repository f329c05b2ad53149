//! Medians, the printed table, and the goals.

use std::fmt;

use serde::Serialize;

use crate::bench::data::Data;
use crate::bench::handshakes::Handshakes;
use crate::bench::idle::Idle;
use crate::bench::process::{load_average, processor};
use crate::peer::PeerKind;

/// The median of some rounds, and how far they are apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// The middle one, or the mean of the two in the middle.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// Of these values; all 0 where there is none.
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let (Some(min), Some(max)) = (values.first(), values.last()) else { return Self::default() };
        let (below, above) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Self { median: f64::midpoint(below, above), min: *min, max: *max }
    }

    fn shown(self, digits: usize) -> String {
        format!("{:.digits$} ({:.digits$}-{:.digits$})", self.median, self.min, self.max)
    }
}

/// Everything that was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The processor's own name.
    pub processor: String,
    /// How many of them this process may use.
    pub cores: usize,
    /// How many were ready to run in the minute before it began, and before it ended: above the number of cores,
    /// others had a share of them.
    pub load: [f64; 2],
    /// Rounds of each measurement.
    pub rounds: u32,
    /// Tunnels a second.
    pub handshakes: Vec<Handshakes>,
    /// Memory and idle CPU.
    pub idle: Vec<Idle>,
    /// The data path.
    pub data: Vec<Data>,
    /// What is to be reached.
    pub goals: Vec<Goal>,
}

/// A figure that is to be reached.
#[derive(Clone, Debug, Serialize)]
pub struct Goal {
    /// What it is about, with its unit.
    pub what: String,
    /// What is to be reached, in words.
    pub wanted: String,
    /// What was found.
    pub found: f64,
    /// Whether it is enough.
    pub reached: bool,
}

impl Goal {
    fn at_least(what: String, wanted: f64, unit: &str, found: f64) -> Self {
        Self { what, wanted: format!("at least {wanted}{unit}"), found, reached: found >= wanted }
    }

    fn at_most(what: String, wanted: f64, unit: &str, found: f64) -> Self {
        Self { what, wanted: format!("at most {wanted}{unit}"), found, reached: found <= wanted }
    }
}

impl Report {
    pub(super) fn begun(rounds: u32) -> Self {
        Self {
            processor: processor(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            load: [load_average(); 2],
            rounds,
            handshakes: Vec::new(),
            idle: Vec::new(),
            data: Vec::new(),
            goals: Vec::new(),
        }
    }

    pub(super) fn end(&mut self) {
        self.load[1] = load_average();
        self.goals = self.goals();
    }

    fn goals(&self) -> Vec<Goal> {
        let mut goals = Vec::new();
        for pair in self.handshakes.chunks_exact(2) {
            let [own, other] = pair else { continue };
            let v2 = own.case.starts_with("IKEv2");
            if v2 {
                let by_clock = format!("{}, tunnels a second", own.case);
                goals.push(Goal::at_least(by_clock, 4_000.0, "", own.per_second.median));
                let by_cpu = format!("{}, tunnels a CPU second", own.case);
                goals.push(Goal::at_least(by_cpu, 4_000.0, "", own.per_cpu_second.median));
            }
            let factor = if v2 { 2.5 } else { 2.0 };
            for (by, a, b) in [
                ("by the clock", own.per_second, other.per_second),
                ("by CPU time", own.per_cpu_second, other.per_cpu_second),
            ] {
                let what = format!("{}, beside strongSwan {by}", own.case);
                goals.push(Goal::at_least(what, factor, " times", ratio(a, b)));
            }
        }
        for idle in self.idle.iter().filter(|idle| idle.gateway == PeerKind::Simplon) {
            goals.push(Goal::at_most("memory of a tunnel, kB".into(), 12.0, " kB", idle.kb_per_tunnel));
            let what = format!("idle with {} tunnels, per cent of a core", idle.tunnels);
            goals.push(Goal::at_most(what, 2.0, " %", idle.cpu_percent));
        }
        for own in self.data.iter().filter(|data| data.gateways == PeerKind::Simplon) {
            let Some(other) = self.data.iter().find(|other| own.is_beside(other)) else { continue };
            let what = format!("one TCP stream, {}, beside strongSwan", own.case());
            goals.push(Goal::at_least(what, 1.0, " times", ratio(own.tcp_mbit, other.tcp_mbit)));
        }
        goals
    }
}

fn ratio(a: Spread, b: Spread) -> f64 {
    if b.median > 0.0 { a.median / b.median } else { 0.0 }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n{}, {} cores, load {:.1} to {:.1}; medians of {} rounds (least-greatest)",
            self.processor, self.cores, self.load[0], self.load[1], self.rounds,
        )?;
        if !self.handshakes.is_empty() {
            let heading = ["HANDSHAKES", "RESPONDER", "A SECOND", "A CPU SECOND", "P50 MS", "FAILED", "SENT AGAIN"];
            let rows = self.handshakes.iter().map(|row| {
                vec![
                    row.case.clone(),
                    row.responder.to_string(),
                    row.per_second.shown(0),
                    row.per_cpu_second.shown(0),
                    row.p50_ms.shown(1),
                    row.failed.to_string(),
                    row.retransmitted.to_string(),
                ]
            });
            table(f, &heading, rows.collect())?;
        }
        if !self.idle.is_empty() {
            let heading = ["IDLE", "TUNNELS", "EMPTY KB", "FULL KB", "KB A TUNNEL", "CPU %"];
            let rows = self.idle.iter().map(|row| {
                vec![
                    row.gateway.to_string(),
                    row.tunnels.to_string(),
                    row.empty_kb.to_string(),
                    row.full_kb.to_string(),
                    format!("{:.1}", row.kb_per_tunnel),
                    format!("{:.2}", row.cpu_percent),
                ]
            });
            table(f, &heading, rows.collect())?;
        }
        if !self.data.is_empty() {
            let heading = ["DATA", "GATEWAYS", "TCP MBIT/S", "CPU S/GB", "64 B PACKETS/S", "LOST %", "PING P50 MS"];
            let rows = self.data.iter().map(|row| {
                vec![
                    row.case(),
                    row.gateways.to_string(),
                    row.tcp_mbit.shown(0),
                    row.cpu_per_gb.shown(2),
                    row.small_per_second.shown(0),
                    row.small_lost_percent.shown(0),
                    row.ping_p50_ms.shown(3),
                ]
            });
            table(f, &heading, rows.collect())?;
        }
        let rows = self.goals.iter().map(|goal| {
            let verdict = if goal.reached { "reached" } else { "MISSED" };
            vec![goal.what.clone(), goal.wanted.clone(), format!("{:.2}", goal.found), verdict.to_owned()]
        });
        table(f, &["GOAL", "WANTED", "FOUND", ""], rows.collect())
    }
}

/// Rows under a heading, in columns as wide as their widest cell.
fn table(f: &mut fmt::Formatter<'_>, heading: &[&str], rows: Vec<Vec<String>>) -> fmt::Result {
    let mut all = vec![heading.iter().map(|&cell| cell.to_owned()).collect::<Vec<_>>()];
    all.extend(rows);
    let width = |column: usize| all.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..heading.len()).map(width).collect();
    writeln!(f)?;
    for row in &all {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        writeln!(f, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handshakes(responder: PeerKind, per_second: f64) -> Handshakes {
        Handshakes {
            case: "IKEv2 P-256 AES-GCM".into(),
            responder,
            per_second: Spread::of(vec![per_second]),
            per_cpu_second: Spread::of(vec![per_second * 2.0]),
            p50_ms: Spread::of(vec![1.0]),
            failed: 0,
            retransmitted: 0,
        }
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(Spread::of(vec![3.0, 1.0, 2.0]), Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(Spread::of(vec![4.0, 1.0]).median, 2.5);
        assert_eq!(Spread::of(Vec::new()), Spread::default());
    }

    #[test]
    fn a_goal_is_reached_by_itself_and_beside_the_other() {
        let mut report = Report::begun(1);
        report.handshakes = vec![handshakes(PeerKind::Simplon, 3_000.0), handshakes(PeerKind::Strongswan, 1_000.0)];
        report.end();
        let reached: Vec<bool> = report.goals.iter().map(|goal| goal.reached).collect();
        assert_eq!(reached, [false, true, true, true]);
        let text = report.to_string();
        assert!(
            text.contains("3000 (3000-3000)") && text.contains("MISSED") && text.contains("at least 2.5 times"),
            "{text}"
        );
    }
}
