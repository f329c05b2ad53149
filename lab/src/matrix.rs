//! All combinations in which the scenarios are run, and a runner for them.

use std::fmt;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use crate::clock;
use crate::error::{Error, Result};
use crate::interrupt;
use crate::peer::PeerKind;
use crate::report::Report;
use crate::routing;
use crate::scenario::{Fault, Initiator, Options, Scenario, Trouble, missing, run};
use crate::shell::{Out, Shell};
use crate::spec::{Encapsulation, Suite, Version};

/// One combination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Case {
    /// The scenario.
    pub scenario: Scenario,
    /// The gateway at the customer's end.
    pub customer: PeerKind,
    /// The gateway at the cloud's end.
    pub cloud: PeerKind,
    /// The version of IKE.
    pub version: Version,
    /// Which end initiates.
    pub initiator: Initiator,
    /// How ESP travels.
    pub encapsulation: Encapsulation,
    /// Extended sequence numbers.
    pub esn: bool,
    /// The algorithms.
    pub suite: Suite,
    /// What happens to the tunnel.
    pub trouble: Option<Trouble>,
    /// What is wrong in simplon's configuration.
    pub fault: Option<Fault>,
    /// Why it cannot be run, whatever is installed.
    pub skip: Option<String>,
}

impl Case {
    /// How to run it.
    pub fn options(&self) -> Options {
        Options {
            customer: self.customer,
            cloud: self.cloud,
            version: Some(self.version),
            initiator: self.initiator,
            encapsulation: self.encapsulation,
            esn: self.esn,
            suite: self.suite,
            trouble: self.trouble,
            fault: self.fault,
            ..Options::default()
        }
    }

    fn with_skip(self) -> Self {
        let skip = self.scenario.refuses(&self.options());
        Self { skip, ..self }
    }
}

/// As `simplon lab run` would be told: `openswan-vgw simplon strongswan IKEv1 customer`.
impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scenario, customer, cloud, version, initiator, .. } = self;
        write!(f, "{scenario} {customer} {cloud} {version} {initiator}")?;
        if self.encapsulation == Encapsulation::Plain {
            f.write_str(" plain")?;
        }
        if self.esn {
            f.write_str(" esn")?;
        }
        if self.suite == Suite::Modern {
            f.write_str(" modern")?;
        }
        if let Some(trouble) = self.trouble {
            write!(f, " trouble={trouble}")?;
        }
        if let Some(fault) = self.fault {
            write!(f, " fault={fault}")?;
        }
        Ok(())
    }
}

/// Every combination of peers, versions and roles in both scenarios; then plain ESP and ESN of
/// simplon with every peer; then every trouble, and every fault in both roles.
pub fn matrix() -> Vec<Case> {
    use PeerKind::{Libreswan, Simplon, Strongswan, StrongswanKernel};
    let mut cases = Vec::new();
    let case = |scenario, (customer, cloud), version, initiator| Case {
        scenario,
        customer,
        cloud,
        version,
        initiator,
        encapsulation: Encapsulation::Auto,
        esn: false,
        suite: Suite::Classic,
        trouble: None,
        fault: None,
        skip: None,
    };
    for scenario in Scenario::ALL {
        for customer in [Simplon, Strongswan, Libreswan] {
            for cloud in [Simplon, Strongswan] {
                for version in [Version::V1, Version::V2] {
                    for initiator in [Initiator::Customer, Initiator::Cloud] {
                        cases.push(case(scenario, (customer, cloud), version, initiator));
                    }
                }
            }
        }
    }
    let ends = [(Simplon, Simplon), (Simplon, Strongswan), (Simplon, StrongswanKernel), (Libreswan, Simplon)];
    for scenario in Scenario::ALL {
        for ends in ends {
            for version in [Version::V1, Version::V2] {
                let plain =
                    Case { encapsulation: Encapsulation::Plain, ..case(scenario, ends, version, Initiator::Customer) };
                cases.push(plain);
            }
        }
    }
    for ends in ends {
        for suite in [Suite::Classic, Suite::Modern] {
            let esn = case(Scenario::NcpVgw, ends, Version::V2, Initiator::Customer);
            cases.push(Case { esn: true, suite, ..esn });
        }
    }
    // The kernel's SAs behind a NAT, and its own initiative.
    cases.push(case(Scenario::OpenswanVgw, (StrongswanKernel, Simplon), Version::V2, Initiator::Customer));
    cases.push(case(Scenario::OpenswanVgw, (Simplon, StrongswanKernel), Version::V1, Initiator::Cloud));
    for version in [Version::V1, Version::V2] {
        for ends in [(Simplon, Strongswan), (Strongswan, Simplon), (Simplon, Simplon)] {
            for trouble in Trouble::ALL {
                let trouble = Some(trouble);
                cases.push(Case { trouble, ..case(Scenario::OpenswanVgw, ends, version, Initiator::Customer) });
            }
        }
        for initiator in [Initiator::Customer, Initiator::Cloud] {
            for fault in Fault::ALL {
                let case = case(Scenario::OpenswanVgw, (Simplon, Strongswan), version, initiator);
                cases.push(Case { fault: Some(fault), ..case });
            }
        }
    }
    // It calls malformed what others pass over, so whether it can be asked is seen for itself.
    let asked = case(Scenario::OpenswanVgw, (Libreswan, Simplon), Version::V1, Initiator::Customer);
    cases.push(Case { trouble: Some(Trouble::BlackHole), ..asked });
    cases.into_iter().map(Case::with_skip).collect()
}

/// Something that the runner runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Entry {
    /// A combination of a scenario with one connection.
    Connection(Box<Case>),
    /// A routed scenario.
    Routed(routing::Options),
}

/// The whole matrix: [`matrix`], then the routed scenarios.
pub fn entries() -> Vec<Entry> {
    let connections = matrix().into_iter().map(|case| Entry::Connection(Box::new(case)));
    connections.chain(routing::cases().into_iter().map(Entry::Routed)).collect()
}

impl Entry {
    /// The gateways that it starts as peers of one connection.
    pub fn peers(&self) -> Vec<PeerKind> {
        match self {
            Self::Connection(case) => vec![case.customer, case.cloud],
            Self::Routed(_) => Vec::new(),
        }
    }

    /// Why it cannot be run, whatever is installed.
    pub fn skip(&self) -> Option<String> {
        match self {
            Self::Connection(case) => case.skip.clone(),
            Self::Routed(options) => options.refuses().map(str::to_owned),
        }
    }

    /// What has to be installed to run it.
    fn missing(&self) -> Option<Error> {
        match self {
            Self::Connection(case) => missing(&case.options()),
            Self::Routed(options) => options.missing(),
        }
    }

    fn run(&self, out: Out) -> Result<Found> {
        match self {
            Self::Connection(case) => {
                run(case.scenario, &case.options(), out).map(|report| Found::Connection(Box::new(report)))
            }
            Self::Routed(options) => routing::run(options, out).map(Found::Routed),
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection(case) => case.fmt(f),
            Self::Routed(options) => options.fmt(f),
        }
    }
}

/// What a run found.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Found {
    /// In a scenario with one connection.
    Connection(Box<Report>),
    /// In a routed scenario.
    Routed(routing::Report),
}

impl Found {
    const fn passed(&self) -> bool {
        match self {
            Self::Connection(report) => report.passed,
            Self::Routed(report) => report.passed,
        }
    }
}

/// What became of a combination.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The combination.
    #[serde(flatten)]
    pub case: Entry,
    /// Whether it was run and every check held.
    pub passed: bool,
    /// Why it was not run; `None` when it was.
    pub skipped: Option<String>,
    /// Why it came to no end.
    pub error: Option<String>,
    /// What it found.
    pub report: Option<Found>,
    /// Whether this is what became of it alone, after it failed beside others.
    pub alone: bool,
}

/// Runs `cases`, `jobs` at a time. A line for each, and everything that a failed one said, goes to
/// `out`. With `again`, what failed runs once more by itself when all the others are done, and that
/// verdict counts: real peers keep real time, and a busy machine can make them miss it. Both are told.
///
/// # Errors
///
/// After Ctrl-C.
pub fn run_all(cases: Vec<Entry>, jobs: usize, again: bool, mut out: Out) -> Result<Vec<Outcome>> {
    prepare(&cases, &mut out)?;
    let (next, cases) = (AtomicUsize::new(0), by_length(cases));
    let (sender, outcomes) = mpsc::channel();
    let mut done: Vec<Outcome> = Vec::new();
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            let (sender, next, cases) = (sender.clone(), &next, &cases);
            scope.spawn(move || {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::SeqCst)) {
                    if interrupt::happened() || sender.send(run_one(case)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for (outcome, seconds, said) in outcomes {
            tell(&outcome, seconds, &said, &mut out);
            done.push(outcome);
        }
    });
    for outcome in done.iter_mut().filter(|outcome| again && has_failed(outcome)) {
        interrupt::check()?;
        let (mut alone, seconds, said) = run_one(&outcome.case);
        alone.alone = true;
        tell(&alone, seconds, &said, &mut out);
        *outcome = alone;
    }
    interrupt::check()?;
    let count = |passed: fn(&Outcome) -> bool| done.iter().filter(|outcome| passed(outcome)).count();
    let (passed, skipped, alone) =
        (count(|o| o.passed), count(|o| o.skipped.is_some()), count(|o| o.passed && o.alone));
    let note = if alone > 0 { format!(" ({alone} of them only alone)") } else { String::new() };
    let _ = writeln!(out, "\n{passed} passed{note}, {} failed, {skipped} left out", done.len() - passed - skipped);
    Ok(done)
}

const fn has_failed(outcome: &Outcome) -> bool {
    outcome.skipped.is_none() && !outcome.passed
}

/// A line for an outcome, and what a failed one said.
fn tell(outcome: &Outcome, seconds: f64, said: &[u8], out: &mut Out) {
    let mark = match (&outcome.skipped, outcome.passed) {
        (Some(_), _) => "skip",
        (None, true) => "ok  ",
        (None, false) => "FAIL",
    };
    let alone = if outcome.alone { "  alone, after it failed beside others" } else { "" };
    let why = outcome.skipped.as_ref().or(outcome.error.as_ref()).map(|why| format!("  {why}")).unwrap_or_default();
    let _ = writeln!(out, "{mark}  {seconds:5.1} s  {}{alone}{why}", outcome.case);
    if has_failed(outcome) {
        let _ = out.write_all(said);
    }
    let _ = out.flush();
}

/// Downloads once what several will need.
fn prepare(cases: &[Entry], out: &mut Out) -> Result<()> {
    let wanted = cases.iter().filter(|case| case.skip().is_none() && case.missing().is_none());
    let guest = wanted.flat_map(Entry::peers).find(|kind| kind.in_guest());
    let buffer = Buffer::default();
    let prepared = guest.map_or(Ok(()), |kind| kind.prepare(&Shell::new(Box::new(buffer.clone()), false)));
    let _ = out.write_all(&buffer.take());
    prepared
}

/// The long ones first, so that the last to end is a short one.
fn by_length(mut cases: Vec<Entry>) -> Vec<Entry> {
    cases.sort_by_key(|case| {
        let guests = case.peers().iter().filter(|kind| kind.in_guest()).count();
        let is_long = match case {
            Entry::Connection(case) => case.scenario == Scenario::NcpVgw,
            Entry::Routed(_) => true,
        };
        std::cmp::Reverse((case.skip().is_none(), guests, is_long))
    });
    cases
}

fn run_one(case: &Entry) -> (Outcome, f64, Vec<u8>) {
    let skipped = case.skip().or_else(|| case.missing().map(|why| why.to_string()));
    let mut outcome = Outcome { case: case.clone(), passed: false, skipped, error: None, report: None, alone: false };
    if outcome.skipped.is_some() {
        return (outcome, 0.0, Vec::new());
    }
    let (start, buffer) = (clock::now(), Buffer::default());
    match case.run(Box::new(buffer.clone())) {
        Ok(report) => {
            outcome.passed = report.passed();
            outcome.report = Some(report);
        }
        Err(Error::Interrupted) => outcome.error = Some("interrupted".into()),
        Err(error) => outcome.error = Some(error.to_string()),
    }
    (outcome, (clock::now() - start).as_secs_f64(), buffer.take())
}

/// Keeps what is written until it is wanted.
#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_combination_is_listed_twice() {
        let names: Vec<String> = entries().iter().map(ToString::to_string).collect();
        let mut once = names.clone();
        once.sort();
        once.dedup();
        assert_eq!(names.len(), once.len());
    }

    #[test]
    fn every_end_every_version_and_every_role_is_run() {
        let runs: Vec<Case> = matrix().into_iter().filter(|case| case.skip.is_none()).collect();
        for scenario in Scenario::ALL {
            for (customer, cloud) in [
                (PeerKind::Simplon, PeerKind::Simplon),
                (PeerKind::Simplon, PeerKind::Strongswan),
                (PeerKind::Strongswan, PeerKind::Simplon),
                (PeerKind::Strongswan, PeerKind::Strongswan),
                (PeerKind::Libreswan, PeerKind::Simplon),
                (PeerKind::Libreswan, PeerKind::Strongswan),
            ] {
                for version in [Version::V1, Version::V2] {
                    for initiator in [Initiator::Customer, Initiator::Cloud] {
                        let is_it = |case: &&Case| {
                            (case.scenario, case.customer, case.cloud) == (scenario, customer, cloud)
                                && (case.version, case.initiator) == (version, initiator)
                                && case.encapsulation == Encapsulation::Auto
                                && case.trouble.is_none()
                                && case.fault.is_none()
                        };
                        assert!(
                            runs.iter().any(|case| is_it(&case)),
                            "{scenario} {customer} {cloud} {version} {initiator}"
                        );
                    }
                }
            }
        }
        assert!(
            runs.iter()
                .any(|case| case.encapsulation == Encapsulation::Plain && case.cloud == PeerKind::StrongswanKernel)
        );
        assert!(runs.iter().any(|case| case.esn && case.customer == PeerKind::Libreswan));
    }

    #[test]
    fn what_cannot_be_run_says_why() {
        let why = |wanted: &str| {
            let cases = matrix();
            let case = cases.iter().find(|case| case.to_string() == wanted).unwrap();
            case.skip.clone()
        };
        assert_eq!(
            why("openswan-vgw simplon simplon IKEv1 customer plain").unwrap(),
            "plain ESP does not pass the NAT of this scenario"
        );
        assert!(why("ncp-vgw simplon strongswan IKEv2 customer plain").unwrap().contains("always travels in UDP"));
        assert_eq!(why("ncp-vgw simplon strongswan-kernel IKEv2 customer esn"), None);
    }
}
