//! What each failover costs: every event several times, and the medians.

use std::fmt::Write as _;

use serde::Serialize;

use crate::error::Result;
use crate::routing::{Cloud, Event, Mode, Options, Routes, Scenario, Watch, run};
use crate::shell::Out;

/// A row of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The case.
    pub case: String,
    /// What happened.
    pub what: String,
    /// How often it was measured.
    pub rounds: usize,
    /// Rounds in which a check did not hold or that came to no end.
    pub failed: usize,
    /// The median of the longest interruption, in milliseconds: from the customer to the cloud.
    pub out_ms: f64,
    /// The same from the cloud to the customer.
    pub back_ms: f64,
    /// The worst of both over all rounds.
    pub worst_ms: f64,
    /// The median of the packets lost in both directions, of 100 a second each.
    pub lost: f64,
}

/// Every failover that is measured.
fn cases() -> Vec<Options> {
    let two = Options::new(Scenario::TwoTunnels);
    let measured = Event::ALL.into_iter().filter(|event| *event != Event::Dark);
    let mut cases: Vec<Options> = measured.map(|event| Options { event, ..two.clone() }).collect();
    cases.push(Options { mode: Mode::ActiveActive, ..two.clone() });
    for event in [Event::Dpd, Event::Drain, Event::Delete, Event::HandOver] {
        cases.push(Options { event, cloud: Cloud::Strongswan, ..two.clone() });
    }
    for scenario in [Scenario::NecIxVgwBgp, Scenario::AlibabaVgwBgp, Scenario::TwoDevices] {
        cases.push(Options::new(scenario));
    }
    cases.push(Options { routes: Routes::Static, ..Options::new(Scenario::TwoDevices) });
    cases.push(Options { watch: Watch::HoldTimer, ..Options::new(Scenario::AlibabaVgwBgp) });
    cases
}

/// Runs every failover `rounds` times; `progress` hears each case as it begins. What cannot be run here is left out.
///
/// # Errors
///
/// After Ctrl-C, or when a lab cannot be built.
pub fn failover(rounds: usize, words: &[String], mut progress: impl FnMut(&str)) -> Result<Vec<Row>> {
    let mut rows: Vec<Row> = Vec::new();
    let wanted = |case: &Options| words.iter().all(|word| case.to_string().split(' ').any(|part| part == word));
    for case in cases().into_iter().filter(wanted) {
        if let Some(missing) = case.missing() {
            progress(&format!("{case}: left out: {missing}"));
            continue;
        }
        progress(&case.to_string());
        let mut found: Vec<(String, Vec<[f64; 3]>)> = Vec::new();
        let mut failed = 0;
        for _ in 0..rounds {
            let out: Out = Box::new(std::io::sink());
            let report = run(&Options { json: true, ..case.clone() }, out)?;
            failed += usize::from(!report.passed);
            for event in report.events {
                let sample =
                    [event.losses.out.interrupted_ms, event.losses.back.interrupted_ms, f64::from(event.losses.lost())];
                match found.iter_mut().find(|(what, _)| *what == event.what) {
                    Some((_, samples)) => samples.push(sample),
                    None => found.push((event.what, vec![sample])),
                }
            }
        }
        for (what, samples) in found {
            let of = |index: usize| samples.iter().map(|sample| sample[index]).collect::<Vec<_>>();
            let worst_ms = samples.iter().flat_map(|sample| &sample[..2]).fold(0.0, |worst: f64, ms| worst.max(*ms));
            rows.push(Row {
                case: case.to_string(),
                what,
                rounds: samples.len(),
                failed,
                out_ms: median(of(0)),
                back_ms: median(of(1)),
                worst_ms,
                lost: median(of(2)),
            });
        }
    }
    Ok(rows)
}

/// The rows for a person.
pub fn failover_table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<34}{:<50}{:>9}{:>9}{:>10}{:>7}{:>8}\n",
        "", "medians of the longest interruption", "out ms", "back ms", "worst ms", "lost", "rounds"
    );
    for row in rows {
        let failed = if row.failed > 0 { format!("  {} failed", row.failed) } else { String::new() };
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "{:<34}{:<50}{:>9.0}{:>9.0}{:>10.0}{:>7.0}{:>8}{failed}",
            row.case,
            row.what.trim_end_matches(','),
            row.out_ms,
            row.back_ms,
            row.worst_ms,
            row.lost,
            row.rounds
        );
    }
    text
}

/// Of an even number, the mean of the two in the middle; of none, 0.
fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    let middle = samples.len() / 2;
    match samples.get(middle) {
        None => 0.0,
        Some(upper) if samples.len() % 2 == 1 => *upper,
        Some(upper) => f64::midpoint(samples[middle - 1], *upper),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert!((median(vec![9.0, 1.0, 5.0]) - 5.0).abs() < 1e-9);
        assert!((median(vec![1.0, 9.0, 5.0, 7.0]) - 6.0).abs() < 1e-9);
        assert!(median(Vec::new()).abs() < 1e-9);
    }
}
