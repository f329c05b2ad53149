//! What a run of a scenario found: steps as they happen for a person, everything as JSON for a
//! program.

use std::time::Instant;

use serde::Serialize;

use crate::clock;
use crate::peer::{PeerKind, Status};
use crate::scenario::{Fault, Initiator, Options, Trouble};
use crate::shell::Shell;
use crate::spec::{Encapsulation, Suite, Version};
use crate::wire::Tally;

/// The whole result.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The scenario's name.
    pub scenario: String,
    /// The gateway at the customer's end.
    pub customer: PeerKind,
    /// The gateway at the cloud's end.
    pub cloud: PeerKind,
    /// The version of IKE.
    pub version: Version,
    /// Which end initiates.
    pub initiator: Initiator,
    /// How ESP was asked to travel.
    pub encapsulation: Encapsulation,
    /// Whether extended sequence numbers were asked for.
    pub esn: bool,
    /// The algorithms.
    pub suite: Suite,
    /// Whether every check held.
    pub passed: bool,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// From the start of the initiator to a tunnel at both ends, in seconds.
    pub tunnel_up_seconds: Option<f64>,
    /// What happened, in order.
    pub steps: Vec<Step>,
    /// What was checked.
    pub checks: Vec<Check>,
    /// What the customer's gateway says of the tunnel.
    pub customer_status: Option<Status>,
    /// What the cloud's gateway says of the tunnel.
    pub cloud_status: Option<Status>,
    /// What passed between the gateways.
    pub wire: Option<Tally>,
    /// What happened to the tunnel.
    pub trouble: Option<Trouble>,
    /// What was wrong in simplon's configuration.
    pub fault: Option<Fault>,
    /// Where a check did not hold: the ends of the gateways' logs.
    pub logs: Vec<Log>,
}

/// The end of a gateway's log.
#[derive(Clone, Debug, Serialize)]
pub struct Log {
    /// `customer` or `cloud`.
    pub end: String,
    /// The gateway.
    pub peer: PeerKind,
    /// Its last lines.
    pub lines: Vec<String>,
}

/// Something that happened.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// Seconds since the start.
    pub at: f64,
    /// What.
    pub what: String,
}

/// Something that must hold.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What must hold.
    pub name: String,
    /// Whether it did.
    pub held: bool,
    /// What was found.
    pub found: String,
}

/// Builds a report and shows it to a person meanwhile.
pub(crate) struct Reporter {
    shell: Shell,
    quiet: bool,
    start: Instant,
    pub(crate) report: Report,
}

impl Reporter {
    pub(crate) fn new(shell: &Shell, scenario: &str, options: &Options, version: Version) -> Self {
        let report = Report {
            scenario: scenario.into(),
            customer: options.customer,
            cloud: options.cloud,
            version,
            initiator: options.initiator,
            encapsulation: options.encapsulation,
            esn: options.esn,
            suite: options.suite,
            passed: false,
            seconds: 0.0,
            tunnel_up_seconds: None,
            steps: Vec::new(),
            checks: Vec::new(),
            customer_status: None,
            cloud_status: None,
            wire: None,
            trouble: options.trouble,
            fault: options.fault,
            logs: Vec::new(),
        };
        Self { shell: shell.clone(), quiet: options.json, start: clock::now(), report }
    }

    fn elapsed(&self) -> f64 {
        let millis = (clock::now() - self.start).as_millis();
        f64::from(u32::try_from(millis).unwrap_or(u32::MAX)) / 1000.0
    }

    /// Shows something that is not part of the result.
    pub(crate) fn show(&self, text: &str) {
        if !self.quiet {
            self.shell.say(text);
        }
    }

    pub(crate) fn step(&mut self, what: impl Into<String>) {
        let step = Step { at: self.elapsed(), what: what.into() };
        self.show(&format!("{:8.2} s  {}", step.at, step.what));
        self.report.steps.push(step);
    }

    pub(crate) fn check(&mut self, name: impl Into<String>, held: bool, found: impl Into<String>) {
        let check = Check { name: name.into(), held, found: found.into() };
        let mark = if held { "ok  " } else { "FAIL" };
        self.show(&format!("      {mark}  {}: {}", check.name, check.found));
        self.report.checks.push(check);
    }

    pub(crate) fn log(&mut self, end: &str, peer: PeerKind, text: String) {
        self.show(&format!("\nThe end of the log of the {end}'s gateway ({peer}):\n{text}"));
        self.report.logs.push(Log { end: end.into(), peer, lines: text.lines().map(str::to_owned).collect() });
    }

    /// The two gateways' words side by side.
    pub(crate) fn show_status(&self) {
        let (Some(customer), Some(cloud)) = (&self.report.customer_status, &self.report.cloud_status) else { return };
        let head = [format!("customer: {}", self.report.customer), format!("cloud: {}", self.report.cloud)];
        self.show(&format!("\n{:12}{:<50}{}", "", head[0], head[1]));
        for ((name, a), (_, b)) in rows(customer).iter().zip(rows(cloud)) {
            self.show(&format!("{name:<12}{a:<50}{b}"));
        }
    }

    pub(crate) fn finish(mut self) -> Report {
        self.report.seconds = self.elapsed();
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

fn rows(status: &Status) -> Vec<(&'static str, String)> {
    let version = status.version.map(|v| format!("IKEv{v} ")).unwrap_or_default();
    let child = status.children.last().cloned().unwrap_or_default();
    let count = |packets: Option<u64>, bytes: u64| match packets {
        Some(packets) => format!("{packets} packets, {bytes} bytes"),
        None => format!("{bytes} bytes"),
    };
    let wrapping = match child.udp {
        Some(true) => "in UDP",
        Some(false) => "plain",
        None => "",
    };
    vec![
        ("state", format!("{version}{}", status.state)),
        ("IKE", status.ike.clone()),
        ("ESP", format!("{} {wrapping}{}", child.esp, if child.esn == Some(true) { " ESN" } else { "" })),
        ("SPI in/out", format!("{} / {}", child.spi_in, child.spi_out)),
        ("in", count(child.packets_in, child.bytes_in)),
        ("out", count(child.packets_out, child.bytes_out)),
    ]
}
