//! What a run of a routed scenario found: steps as they happen for a person, everything as JSON for a program.

use std::time::Instant;

use serde::Serialize;

use crate::clock;
use crate::report::{Check, Step};
use crate::routing::stream::Losses;
use crate::shell::Shell;

/// The whole result.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The scenario, and how it was run.
    pub case: String,
    /// Whether every check held.
    pub passed: bool,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// What happened, in order.
    pub steps: Vec<Step>,
    /// What was checked.
    pub checks: Vec<Check>,
    /// What traffic lost over each event.
    pub events: Vec<Event>,
    /// Where a check did not hold: the ends of the logs.
    pub logs: Vec<Log>,
}

/// Something that happened to traffic.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// What.
    pub what: String,
    /// What it cost.
    #[serde(flatten)]
    pub losses: Losses,
}

/// The end of a program's log.
#[derive(Clone, Debug, Serialize)]
pub struct Log {
    /// Whose.
    pub of: String,
    /// Its last lines.
    pub lines: Vec<String>,
}

/// Builds a report and shows it to a person meanwhile.
pub(super) struct Reporter {
    shell: Shell,
    quiet: bool,
    start: Instant,
    pub(super) report: Report,
}

impl Reporter {
    pub(super) fn new(shell: &Shell, case: &str, quiet: bool) -> Self {
        let report = Report {
            case: case.into(),
            passed: false,
            seconds: 0.0,
            steps: Vec::new(),
            checks: Vec::new(),
            events: Vec::new(),
            logs: Vec::new(),
        };
        Self { shell: shell.clone(), quiet, start: clock::now(), report }
    }

    /// Shows something that is not part of the result.
    pub(super) fn show(&self, text: &str) {
        if !self.quiet {
            self.shell.say(text);
        }
    }

    pub(super) fn step(&mut self, what: impl Into<String>) {
        let step = Step { at: (clock::now() - self.start).as_secs_f64(), what: what.into() };
        self.show(&format!("{:8.2} s  {}", step.at, step.what));
        self.report.steps.push(step);
    }

    pub(super) fn check(&mut self, name: impl Into<String>, held: bool, found: impl Into<String>) {
        let check = Check { name: name.into(), held, found: found.into() };
        let mark = if held { "ok  " } else { "FAIL" };
        self.show(&format!("      {mark}  {}: {}", check.name, check.found));
        self.report.checks.push(check);
    }

    /// What an event cost, and whether that is no more than `most_ms` of interruption: 0 is not a packet lost.
    pub(super) fn event(&mut self, what: &str, losses: &Losses, most_ms: f64) {
        let held = !losses.is_open() && losses.interrupted_ms() <= most_ms;
        let bound = if most_ms > 0.0 { format!("at most {most_ms:.0} ms") } else { "not a packet".into() };
        self.check(format!("{what} costs {bound}"), held, losses.to_string());
        self.report.events.push(Event { what: what.into(), losses: losses.clone() });
    }

    pub(super) fn log(&mut self, of: &str, text: &str) {
        self.show(&format!("\nThe end of the log of {of}:\n{text}"));
        self.report.logs.push(Log { of: of.into(), lines: text.lines().map(str::to_owned).collect() });
    }

    pub(super) fn has_failed(&self) -> bool {
        self.report.checks.iter().any(|check| !check.held)
    }

    pub(super) fn finish(mut self) -> Report {
        self.report.seconds = (clock::now() - self.start).as_secs_f64();
        let failed = self.report.checks.iter().filter(|check| !check.held).count();
        self.report.passed = failed == 0 && !self.report.checks.is_empty();
        let (all, seconds) = (self.report.checks.len(), self.report.seconds);
        self.show(&if self.report.passed {
            format!("\nPASSED  {all} checks held, {seconds:.1} s\n")
        } else {
            format!("\nFAILED  {failed} of {all} checks did not hold, {seconds:.1} s\n")
        });
        self.report
    }
}
