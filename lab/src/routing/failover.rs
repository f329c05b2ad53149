//! What each failover costs: every event several times, and the medians.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::routing::{Cloud, Event, Losses, Mode, Options, Pair, Routes, Scenario, Watch, run};
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
    for event in [Event::Bfd, Event::Drain] {
        cases.push(Options { event, mode: Mode::ActiveActive, ..two.clone() });
    }
    for event in [Event::Dpd, Event::Drain, Event::Delete, Event::HandOver] {
        cases.push(Options { event, cloud: Cloud::Strongswan, ..two.clone() });
    }
    let routed = [Scenario::NecIxVgwBgp, Scenario::AlibabaVgwBgp, Scenario::TwoDevices].map(Options::new);
    for case in &routed {
        cases.push(case.clone());
        cases.push(Options { mode: Mode::ActiveActive, ..case.clone() });
        cases.push(Options { watch: Watch::HoldTimer, ..case.clone() });
        let (cloud, routes) = (Cloud::Strongswan, Routes::Static);
        let variants = [Options { cloud, ..case.clone() }, Options { routes, ..case.clone() }];
        cases.extend(variants.into_iter().filter(|variant| variant.refuses().is_none()));
    }
    cases.push(Options { routes: Routes::Static, mode: Mode::ActiveActive, ..Options::new(Scenario::TwoDevices) });
    for cloud in [Cloud::Simplon, Cloud::Strongswan] {
        cases.push(Options { cloud, ..Options::new(Scenario::Clustered(Pair::Device)) });
    }
    cases.extend([Pair::Ikev1, Pair::Bgp, Pair::Ipv6].map(|pair| Options::new(Scenario::Clustered(pair))));
    cases
}

/// What one round found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// The case.
    pub case: String,
    /// What happened, and what it cost: the longest interruption out and back in milliseconds, and the packets lost in both
    /// directions.
    pub events: Vec<(String, [f64; 3])>,
    /// Whether every check held.
    pub passed: bool,
}

/// Rounds of failovers, and the file that they are kept in, where there is one.
#[derive(Debug, Default)]
pub struct Rounds {
    file: Option<PathBuf>,
    rounds: Vec<Round>,
}

impl Rounds {
    /// Those in a file, a JSON object a line, to which more will be added; none when there is no such file yet.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or holds something else.
    pub fn kept_in(file: &Path) -> Result<Self> {
        let text = match fs::read_to_string(file) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            read => read.map_err(|e| Error::io(format!("reading {}", file.display()), e))?,
        };
        let read = |line| {
            serde_json::from_str(line)
                .map_err(|e| Error::Asked(format!("{}: {e}: no rounds of failovers", file.display())))
        };
        Ok(Self { file: Some(file.to_owned()), rounds: text.lines().map(read).collect::<Result<_>>()? })
    }

    fn push(&mut self, round: Round) -> Result<()> {
        if let Some(path) = &self.file {
            let line = serde_json::to_string(&round).unwrap_or_default() + "\n";
            let open = File::options().create(true).append(true).open(path);
            let written = open.and_then(|mut file| file.write_all(line.as_bytes()));
            written.map_err(|e| Error::io(format!("writing {}", path.display()), e))?;
        }
        self.rounds.push(round);
        Ok(())
    }

    /// A row for each event of each case, in the order in which they came first.
    pub fn rows(&self) -> Vec<Row> {
        let mut found: Vec<(&str, &str, Vec<[f64; 3]>)> = Vec::new();
        for round in &self.rounds {
            for (what, sample) in &round.events {
                let is_it = |(case, known, _): &&mut (&str, &str, Vec<_>)| *case == round.case && known == what;
                match found.iter_mut().find(is_it) {
                    Some((_, _, samples)) => samples.push(*sample),
                    None => found.push((&round.case, what, vec![*sample])),
                }
            }
        }
        let row = |(case, what, samples): (&str, &str, Vec<[f64; 3]>)| {
            let of = |index: usize| samples.iter().map(|sample| sample[index]).collect::<Vec<_>>();
            let worst_ms = samples.iter().flat_map(|sample| &sample[..2]).fold(0.0, |worst: f64, ms| worst.max(*ms));
            Row {
                case: case.to_owned(),
                what: what.to_owned(),
                rounds: samples.len(),
                failed: self.rounds.iter().filter(|round| round.case == case && !round.passed).count(),
                out_ms: median(of(0)),
                back_ms: median(of(1)),
                worst_ms,
                lost: median(of(2)),
            }
        };
        found.into_iter().map(row).collect()
    }
}

/// Runs the failover that these words name, or every one whose case has all of them in it, `count` times, and adds that to `rounds`; `progress` hears
/// each case as it begins. What cannot be run here is left out.
///
/// # Errors
///
/// After Ctrl-C, when a lab cannot be built, or when a round cannot be kept.
pub fn failover(rounds: &mut Rounds, count: usize, words: &[String], mut progress: impl FnMut(&str)) -> Result<()> {
    let whole = words.join(" ");
    let is_named = cases().iter().any(|case| case.to_string() == whole);
    let has_all = |case: &str| words.iter().all(|word| case.split(' ').any(|part| part == word));
    let wanted = |case: &str| if is_named { case == whole } else { has_all(case) };
    for case in cases().into_iter().filter(|case| wanted(&case.to_string())) {
        if let Some(missing) = case.missing() {
            progress(&format!("{case}: left out: {missing}"));
            continue;
        }
        progress(&case.to_string());
        for _ in 0..count {
            let out: Out = Box::new(io::sink());
            let report = run(&Options { json: true, ..case.clone() }, out)?;
            let sample =
                |losses: &Losses| [losses.out.interrupted_ms, losses.back.interrupted_ms, f64::from(losses.lost())];
            let events = report.events.iter().map(|event| (event.what.clone(), sample(&event.losses))).collect();
            rounds.push(Round { case: case.to_string(), events, passed: report.passed })?;
        }
    }
    Ok(())
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
    fn rounds_that_are_kept_are_read_again_and_counted_together() {
        let dir = std::env::temp_dir().join(format!("simplon-rounds-{}", std::process::id()));
        let round =
            |ms: f64| Round { case: "a bfd".into(), events: vec![("a cut".into(), [ms, 0.0, 1.0])], passed: ms < 9.0 };
        for ms in [1.0, 3.0, 9.0] {
            let mut rounds = Rounds::kept_in(&dir).unwrap();
            rounds.push(round(ms)).unwrap();
        }
        let rows = Rounds::kept_in(&dir).unwrap().rows();
        fs::write(&dir, "something else").unwrap();
        assert!(Rounds::kept_in(&dir).is_err());
        fs::remove_file(&dir).unwrap();
        assert_eq!((rows.len(), rows[0].rounds, rows[0].failed), (1, 3, 1));
        assert!((rows[0].out_ms - 3.0).abs() < 1e-9 && (rows[0].worst_ms - 9.0).abs() < 1e-9);
    }

    #[test]
    fn every_case_can_be_run_and_is_there_once() {
        let mut names: Vec<String> = cases().iter().map(ToString::to_string).collect();
        assert!(cases().iter().all(|case| case.refuses().is_none()));
        for wanted in ["two-devices static", "two-devices hold-timer", "nec-ix-vgw-bgp strongswan"] {
            assert!(names.iter().any(|name| name == wanted), "{wanted}: {names:?}");
        }
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert!((median(vec![9.0, 1.0, 5.0]) - 5.0).abs() < 1e-9);
        assert!((median(vec![1.0, 9.0, 5.0, 7.0]) - 6.0).abs() < 1e-9);
        assert!(median(Vec::new()).abs() < 1e-9);
    }
}
