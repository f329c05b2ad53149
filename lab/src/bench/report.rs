//! Everything that was found: as tables for a person, as JSON for a machine.

use std::fmt;

use serde::Serialize;

use crate::bench::figures::{Goal, Row, ratio};
use crate::bench::gateways::Gateway;
use crate::bench::handshakes::Handshakes;
use crate::bench::idle::Idle;
use crate::bench::path::Case;
use crate::bench::process::{load_average, processor};
use crate::bench::{Part, bgp, bgp_sessions, many, rekey, rtt};
use crate::peer::PeerKind;
use crate::shell::Shell;

/// Everything that was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The processor's own name.
    pub processor: String,
    /// How many of them this process may use.
    pub cores: usize,
    /// The kernel's version.
    pub kernel: String,
    /// How many were ready to run in the minute before it began, and before it ended: above the number of cores,
    /// others had a share of them.
    pub load: [f64; 2],
    /// Rounds of each measurement.
    pub rounds: u32,
    /// Who was measured, in which version.
    pub versions: Vec<Version>,
    /// Tunnels a second.
    pub handshakes: Vec<Handshakes>,
    /// Memory and idle CPU.
    pub idle: Vec<Idle>,
    /// All the other parts.
    pub rows: Vec<Row>,
    /// What was not measured.
    pub skipped: Vec<Skipped>,
    /// What is to be reached.
    pub goals: Vec<Goal>,
}

/// A version of a program.
#[derive(Clone, Debug, Serialize)]
pub struct Version {
    /// Its name.
    pub name: &'static str,
    /// The version, in its own words.
    pub version: String,
}

/// What was not measured.
#[derive(Clone, Debug, Serialize)]
pub struct Skipped {
    /// What.
    pub what: String,
    /// Why, and what to do about it.
    pub why: String,
}

impl Skipped {
    pub(super) fn of(what: &str, why: &str) -> Self {
        Self { what: what.to_owned(), why: why.to_owned() }
    }
}

/// A column: the figure, its heading, digits after the point.
type Column = (&'static str, &'static str, usize);

const DATA: [Column; 5] = [
    ("tcp_mbit", "TCP MBIT/S", 0),
    ("cpu_s_per_gb", "CPU S/GB", 2),
    ("user_s_per_gb", "USER", 2),
    ("system_s_per_gb", "SYSTEM", 2),
    ("udp_lost_percent", "UDP LOST %", 1),
];
const STREAMS: [Column; 4] = [
    ("tcp_mbit", "1 STREAM", 0),
    ("tcp_back_mbit", "1 BACK", 0),
    ("tcp_4_mbit", "4 STREAMS", 0),
    ("tcp_4_back_mbit", "4 BACK", 0),
];
const SMALL: [Column; 5] = [
    ("best_per_second", "BEST A SECOND", 0),
    ("best_lost_percent", "LOST %", 1),
    ("cpu_us_per_packet", "CPU µS A PACKET", 1),
    ("flood_arrived_per_second", "OF A FLOOD", 0),
    ("flood_sent_per_second", "FLOOD", 0),
];
const RTT: [Column; 3] = [("p50_us", "P50 µS", 0), ("p99_us", "P99 µS", 0), ("added_p50_us", "ADDED P50 µS", 0)];
const MANY: [Column; 4] = [
    ("total_mbit", "TCP MBIT/S", 0),
    ("streams_alive", "ALIVE", 0),
    ("kb_per_tunnel", "KB A TUNNEL", 1),
    ("touched", "TOUCHED", 0),
];
const REKEY: [Column; 5] = [
    ("tcp_mbit", "TCP MBIT/S", 0),
    ("rekeys", "REKEYS", 0),
    ("packets", "PACKETS", 0),
    ("lost", "LOST", 0),
    ("tcp_sent_again", "TCP SENT AGAIN", 0),
];
const HAND_OVER: [Column; 5] = [
    ("pause_ms", "WAITING MS", 1),
    ("whole_ms", "WHOLE MS", 0),
    ("packets", "PACKETS", 0),
    ("lost", "LOST", 0),
    ("touched", "TUNNELS LEFT", 0),
];
const BGP: [Column; 6] = [
    ("load_s", "LOADED S", 2),
    ("kernel_s", "IN KERNEL S", 2),
    ("cpu_s", "CPU S", 2),
    ("growth_mb", "GROWTH MB", 0),
    ("bytes_per_route", "BYTES A ROUTE", 0),
    ("said_s", "SAID S", 2),
];
const SESSIONS: [Column; 6] = [
    ("established_s", "ESTABLISHED S", 2),
    ("up_s", "ALL ROUTES IN S", 2),
    ("told_s", "TOLD TO ALL S", 2),
    ("sessions_cpu_s", "CPU S", 2),
    ("sessions_growth_mb", "GROWTH MB", 0),
    ("again", "TURNED AWAY", 0),
];

impl Report {
    pub(super) fn begun(rounds: u32, shell: &Shell) -> Self {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
        let present = Gateway::PEERS.into_iter().filter(|gateway| gateway.missing().is_none());
        let version = |gateway: Gateway| Some(Version { name: gateway.name(), version: gateway.version(shell)? });
        Self {
            processor: processor(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel,
            load: [load_average(); 2],
            rounds,
            versions: present.filter_map(version).collect(),
            handshakes: Vec::new(),
            idle: Vec::new(),
            rows: Vec::new(),
            skipped: Vec::new(),
            goals: Vec::new(),
        }
    }

    pub(super) fn end(&mut self) {
        self.load[1] = load_average();
        let mut goals = self.handshake_goals();
        goals.extend(self.idle_goals());
        goals.extend(self.data_goals());
        goals.extend(self.other_goals());
        goals.extend(self.bgp_goals());
        self.goals = goals;
    }

    /// The median of a figure, where it was measured.
    fn median(&self, part: Part, case: &str, gateway: Gateway, figure: &str) -> Option<f64> {
        let mut rows = self.rows.iter().filter(|row| row.part == part && row.case == case);
        rows.find(|row| row.gateway == gateway.name())?.median(figure)
    }

    fn handshake_goals(&self) -> Vec<Goal> {
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
                let what = format!("{}, beside strongswan {by}", own.case);
                goals.push(Goal::at_least(what, factor, " times", ratio(a.median, b.median)));
            }
        }
        goals
    }

    fn idle_goals(&self) -> Vec<Goal> {
        let mut goals = Vec::new();
        for idle in self.idle.iter().filter(|idle| idle.gateway == PeerKind::Simplon) {
            goals.push(Goal::at_most("memory of an idle tunnel, kB", 12.0, " kB", idle.kb_per_tunnel));
            let what = format!("idle with {} tunnels, per cent of a core", idle.tunnels);
            goals.push(Goal::at_most(what, 2.0, " %", idle.cpu_percent));
        }
        goals
    }

    fn data_goals(&self) -> Vec<Goal> {
        let mut goals = Vec::new();
        let tcp = |case: Case, gateway| self.median(Part::Data, case.name, gateway, "tcp_mbit");
        // What stands beside the plain ESP of simplon is strongSwan's ESP in UDP: it has no other in user space.
        for (own, beside, other, factor) in [
            (Case::GCM, Case::GCM, Gateway::Strongswan, 12.0),
            (Case::GCM, Case::GCM, Gateway::WireguardGo, 2.5),
            (Case::SHA1, Case::SHA1, Gateway::Strongswan, 12.0),
            (Case::SHA256, Case::SHA256, Gateway::Strongswan, 9.0),
            (Case::CARD, Case::CARD, Gateway::Strongswan, 8.0),
            (Case::CARD, Case::CARD, Gateway::WireguardGo, 2.5),
            (Case::POOR_WIRE, Case::POOR_WIRE, Gateway::Strongswan, 8.0),
            (Case::PLAIN, Case::GCM, Gateway::Strongswan, 4.0),
        ] {
            if let (Some(a), Some(b)) = (tcp(own, Gateway::Simplon), tcp(beside, other)) {
                let what = format!("one TCP stream, {}, beside {other}", own.name);
                goals.push(Goal::at_least(what, factor, " times", ratio(a, b)));
            }
        }
        if let (Some(a), Some(b)) = (tcp(Case::GCM, Gateway::Simplon), tcp(Case::GCM, Gateway::WithoutEncryption)) {
            let what = "one TCP stream, AES-GCM in UDP, of the same without encryption";
            goals.push(Goal::at_least(what, 65.0, " %", ratio(a, b) * 100.0));
        }
        if let Some(cpu) = self.median(Part::Data, Case::GCM.name, Gateway::Simplon, "cpu_s_per_gb") {
            goals.push(Goal::at_most("CPU seconds a GB of both gateways, AES-GCM in UDP", 0.9, " s", cpu));
        }
        goals
    }

    fn other_goals(&self) -> Vec<Goal> {
        let mut goals = Vec::new();
        let of = |part, case: &str, gateway, figure| self.median(part, case, gateway, figure);
        let small = |gateway| of(Part::Small, "64 bytes", gateway, "best_per_second");
        if let (Some(a), Some(b)) = (small(Gateway::Simplon), small(Gateway::Strongswan)) {
            let what = "64-byte packets a second, beside strongswan";
            goals.push(Goal::at_least(what, 4.0, " times", ratio(a, b)));
        }
        if let Some(p50) = of(Part::Rtt, rtt::CASES[0].0, Gateway::Simplon, "p50_us") {
            goals.push(Goal::at_most("a round trip through both ends, µs", 60.0, " µs", p50));
        }
        let many = |case, figure| of(Part::Many, case, Gateway::Simplon, figure);
        if let (Some(a), Some(b)) = (many(many::HUNDRED, "total_mbit"), many(many::ONE, "total_mbit")) {
            let what = "100 streams, 100 tunnels of 1 tunnel";
            goals.push(Goal::at_least(what, 80.0, " %", ratio(a, b) * 100.0));
        }
        if let Some(kb) = many(many::TAKES_ANY, "kb_per_tunnel") {
            goals.push(Goal::at_most("memory of a tunnel that has carried packets, kB", 16.0, " kB", kb));
        }
        let [without, with] = rekey::CASES.map(|case| of(Part::Rekey, case, Gateway::Simplon, "tcp_mbit"));
        if let (Some(a), Some(b)) = (with, without) {
            goals.push(Goal::at_least("a rekey a second, of no rekey", 97.0, " %", ratio(a, b) * 100.0));
        }
        let lost = self.rows.iter().find(|row| row.part == Part::Rekey && row.case == rekey::CASES[1]);
        if let Some(lost) = lost.and_then(|row| row.figures.get("lost")) {
            goals.push(Goal::at_most("packets lost in a round of rekeys, at worst", 0.0, "", lost.max));
        }
        let of_hand_overs = self.rows.iter().filter(|row| row.part == Part::HandOver);
        let lost = of_hand_overs.filter_map(|row| row.figures.get("lost")).map(|lost| lost.max).reduce(f64::max);
        if let Some(lost) = lost {
            goals.push(Goal::at_most("packets lost in a hand-over, at worst", 0.0, "", lost));
        }
        goals
    }

    /// Both speakers with their routes in the kernel, as simplon always has them.
    fn bgp_goals(&self) -> Vec<Goal> {
        let mut goals = Vec::new();
        let full = |gateway: &str, figure| {
            let mut rows = self.rows.iter().filter(|row| row.part == Part::Bgp && row.case == bgp::CASE);
            rows.find(|row| row.gateway == gateway && row.with == bgp::WITH_KERNEL)?.median(figure)
        };
        if let (Some(own), Some(bird)) = (full("simplon", "kernel_s"), full("bird", "kernel_s")) {
            let what = "a million routes into the kernel, time beside bird";
            goals.push(Goal::at_most(what, 1.5, " times", ratio(own, bird)));
        }
        if let (Some(own), Some(bird)) = (full("simplon", "growth_mb"), full("bird", "growth_mb")) {
            goals.push(Goal::at_most("a million routes, memory beside bird", 2.0, " times", ratio(own, bird)));
        }
        let sessions = |case, figure| self.median(Part::Bgp, case, Gateway::Simplon, figure);
        if let Some(up) = sessions(bgp_sessions::KEPT, "up_s") {
            goals.push(Goal::at_most("1000 BGP sessions with 100 routes each up, s", 10.0, " s", up));
        }
        if let Some(told) = sessions(bgp_sessions::TOLD, "told_s") {
            goals.push(Goal::at_most("the same, and everybody told of all, s", 10.0, " s", told));
        }
        goals
    }

    fn write_rows(&self, f: &mut fmt::Formatter<'_>, part: Part, heading: &str, columns: &[Column]) -> fmt::Result {
        let has_any = |row: &&Row| row.part == part && columns.iter().any(|(key, ..)| row.figures.contains_key(key));
        let rows: Vec<Vec<String>> = self.rows.iter().filter(has_any).map(|row| cells(row, columns)).collect();
        if rows.is_empty() {
            return Ok(());
        }
        let mut headings = vec![heading, "GATEWAYS"];
        headings.extend(columns.iter().map(|(_, heading, _)| *heading));
        table(f, &headings, rows)
    }
}

fn cells(row: &Row, columns: &[Column]) -> Vec<String> {
    let who = if row.with.is_empty() { row.gateway.to_owned() } else { format!("{} ({})", row.gateway, row.with) };
    let mut cells = vec![row.case.clone(), who];
    cells.extend(columns.iter().map(|(key, _, digits)| match row.figures.get(key) {
        Some(spread) => spread.shown(*digits),
        None => String::new(),
    }));
    cells
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n{}, {} cores, Linux {}, load {:.1} to {:.1}; medians of {} rounds (least-greatest)",
            self.processor, self.cores, self.kernel, self.load[0], self.load[1], self.rounds,
        )?;
        let versions: Vec<String> = self.versions.iter().map(|v| format!("{} {}", v.name, v.version)).collect();
        writeln!(f, "{}", versions.join(", "))?;
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
        self.write_rows(f, Part::Data, "DATA", &DATA)?;
        self.write_rows(f, Part::Data, "TCP MBIT/S", &STREAMS)?;
        self.write_rows(f, Part::Small, "SMALL PACKETS", &SMALL)?;
        self.write_rows(f, Part::Rtt, "ROUND TRIPS", &RTT)?;
        self.write_rows(f, Part::Many, "MANY TUNNELS", &MANY)?;
        self.write_rows(f, Part::Rekey, "REKEYING", &REKEY)?;
        self.write_rows(f, Part::HandOver, "HAND-OVER", &HAND_OVER)?;
        self.write_rows(f, Part::Bgp, "BGP", &BGP)?;
        self.write_rows(f, Part::Bgp, "BGP SESSIONS", &SESSIONS)?;
        if !self.skipped.is_empty() {
            let rows = self.skipped.iter().map(|skipped| vec![skipped.what.clone(), skipped.why.clone()]);
            table(f, &["LEFT OUT", "WHY"], rows.collect())?;
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
    use crate::bench::figures::{Samples, Spread};

    fn report() -> Report {
        Report::begun(1, &Shell::new(Box::new(std::io::sink()), false))
    }

    fn row(part: Part, case: &str, gateway: Gateway, figures: &[(&'static str, f64)]) -> Row {
        let mut samples = Samples::default();
        figures.iter().for_each(|(figure, value)| samples.push(figure, *value));
        samples.into_row(part, case, gateway.name())
    }

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
    fn a_goal_is_reached_by_itself_and_beside_the_other() {
        let mut report = report();
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

    #[test]
    fn a_goal_needs_both_that_it_compares() {
        let mut report = report();
        let own = [("tcp_mbit", 6_600.0), ("cpu_s_per_gb", 0.8)];
        report.rows = vec![row(Part::Data, Case::GCM.name, Gateway::Simplon, &own)];
        report.end();
        let found = |report: &Report| report.goals.iter().map(|goal| (goal.found, goal.reached)).collect::<Vec<_>>();
        assert_eq!(found(&report), [(0.8, true)]);
        report.rows.push(row(Part::Data, Case::GCM.name, Gateway::Strongswan, &[("tcp_mbit", 600.0)]));
        report.rows.push(row(Part::Data, Case::GCM.name, Gateway::WithoutEncryption, &[("tcp_mbit", 10_000.0)]));
        report.end();
        assert_eq!(found(&report), [(11.0, false), (66.0, true), (0.8, true)]);
    }

    #[test]
    fn routes_are_compared_where_both_give_them_to_the_kernel() {
        let mut report = report();
        let mut full = |gateway: &'static str, with: &str, seconds, mb| {
            let mut samples = Samples::default();
            samples.push("kernel_s", seconds);
            samples.push("growth_mb", mb);
            let mut row = samples.into_row(Part::Bgp, bgp::CASE, gateway);
            with.clone_into(&mut row.with);
            report.rows.push(row);
        };
        full("simplon", bgp::WITH_KERNEL, 8.0, 180.0);
        full("bird", "", 2.0, 90.0);
        full("bird", bgp::WITH_KERNEL, 10.0, 120.0);
        report.rows.push(row(Part::Bgp, bgp_sessions::KEPT, Gateway::Simplon, &[("up_s", 11.0)]));
        report.end();
        let found: Vec<_> = report.goals.iter().map(|goal| (goal.found, goal.reached)).collect();
        assert_eq!(found, [(0.8, true), (1.5, true), (11.0, false)]);
    }

    #[test]
    fn a_packet_that_is_lost_once_is_lost() {
        let mut report = report();
        let mut samples = Samples::default();
        [0.0, 0.0, 1.0].into_iter().for_each(|lost| samples.push("lost", lost));
        report.rows = vec![samples.into_row(Part::Rekey, rekey::CASES[1], Gateway::Simplon.name())];
        report.end();
        assert_eq!(report.goals.len(), 1);
        assert!(!report.goals[0].reached, "{:?}", report.goals);
    }

    #[test]
    fn what_was_left_out_is_said_with_its_reason() {
        let mut report = report();
        report.skipped.push(Skipped::of("a million routes, bird", "bird is not installed"));
        report.end();
        assert!(report.to_string().contains("a million routes, bird  bird is not installed"), "{report}");
    }
}
