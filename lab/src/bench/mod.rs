//! What the gateway takes and costs, measured beside its peers on the same machine in the same run.
//!
//! | module | what |
//! | --- | --- |
//! | [`handshakes`] | tunnels a second, one core as responder |
//! | [`idle`] | memory of a thousand tunnels, and what keeping them costs |
//! | `data` | TCP through a tunnel, and what it costs |
//! | `small` | packets of 64 bytes |
//! | `rtt` | round trips |
//! | `many` | a hundred tunnels under load, a thousand in memory |
//! | `rekey` | new keys under load |
//! | `handover` | another process takes the place of one with thousands of tunnels |
//! | `bgp`, `bgp_sessions` | a million routes, a thousand sessions |
//! | `gateways`, `wireguard`, `openvpn` | who is measured |
//! | `path`, `swarm`, `responder`, `process` | the ground, and what the kernel counts |
//! | `figures`, `report` | medians, goals, tables |
//!
//! Rounds of all gateways alternate, so that what else the machine does meets all alike; what counts is the median, and
//! the ratio within one run. A figure that is missed is a finding, no error. Left out: links with delay or loss.

mod bgp;
mod bgp_sessions;
mod data;
mod figures;
mod gateways;
mod handover;
pub mod handshakes;
pub mod idle;
mod many;
mod openvpn;
mod path;
mod process;
mod rekey;
mod report;
mod responder;
mod rtt;
mod small;
mod swarm;
mod wireguard;

use std::str::FromStr;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::peer::PeerKind;
use crate::shell::{Out, Shell};

pub use figures::{Goal, Row, Spread};
pub use report::{Report, Skipped, Version};

/// What is measured, and how often.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which parts; none means all.
    pub parts: Vec<Part>,
    /// Rounds of each measurement.
    pub rounds: u32,
    /// Whether every command is shown.
    pub echo: bool,
}

/// A part of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Tunnels a second.
    Handshakes,
    /// Memory and idle CPU.
    Idle,
    /// Throughput.
    Data,
    /// Small packets.
    Small,
    /// Round trips.
    Rtt,
    /// Many tunnels.
    Many,
    /// New keys under load.
    Rekey,
    /// Another process in the place of a gateway.
    HandOver,
    /// Many routes, and many sessions.
    Bgp,
}

impl Part {
    /// All of them, in the order in which they are measured.
    pub const ALL: [Self; 9] = [
        Self::Handshakes,
        Self::Idle,
        Self::Data,
        Self::Small,
        Self::Rtt,
        Self::Many,
        Self::Rekey,
        Self::HandOver,
        Self::Bgp,
    ];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Handshakes => "handshakes",
            Self::Idle => "idle",
            Self::Data => "data",
            Self::Small => "small",
            Self::Rtt => "rtt",
            Self::Many => "many",
            Self::Rekey => "rekey",
            Self::HandOver => "hand-over",
            Self::Bgp => "bgp",
        }
    }
}

impl FromStr for Part {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let known = || Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|part| part.name() == text);
        found.ok_or_else(|| Error::Asked(format!("nothing is measured as {text:?}: there are {}", known())))
    }
}

/// The two whose handshakes and memory are compared.
pub(crate) const BOTH: [PeerKind; 2] = [PeerKind::Simplon, PeerKind::Strongswan];

/// Measures; what happens meanwhile is written to `out`.
///
/// # Errors
///
/// When simplon itself cannot be measured, and on Ctrl-C. What else is missing is left out, and the report says so.
pub fn run(options: &Options, out: Out) -> Result<Report> {
    let shell = Shell::new(out, options.echo);
    if let Some(install) = PeerKind::Simplon.missing() {
        return Err(Error::Missing { what: "what simplon needs".into(), install });
    }
    let mut report = Report::begun(options.rounds, &shell);
    for part in Part::ALL {
        if options.parts.is_empty() || options.parts.contains(&part) {
            measure(part, options.rounds, &mut report, &shell)?;
        }
    }
    report.end();
    Ok(report)
}

fn measure(part: Part, rounds: u32, report: &mut Report, shell: &Shell) -> Result<()> {
    let found = match part {
        Part::Handshakes | Part::Idle if PeerKind::Strongswan.missing().is_some() => {
            let install = PeerKind::Strongswan.missing().unwrap_or_default();
            Err(Error::Missing { what: "strongSwan".into(), install })
        }
        Part::Handshakes => handshakes::measure(rounds, shell).map(|rows| report.handshakes = rows),
        Part::Idle => idle::measure(shell).map(|rows| report.idle = rows),
        Part::Data => data::measure(rounds, &mut report.skipped, shell).map(|rows| report.rows.extend(rows)),
        Part::Small => small::measure(rounds, &mut report.skipped, shell).map(|rows| report.rows.extend(rows)),
        Part::Rtt => rtt::measure(rounds, &mut report.skipped, shell).map(|rows| report.rows.extend(rows)),
        Part::Many => many::measure(rounds, &mut report.skipped, shell).map(|rows| report.rows.extend(rows)),
        Part::Rekey => rekey::measure(rounds, &mut report.skipped, shell).map(|rows| report.rows.extend(rows)),
        Part::HandOver => handover::measure(rounds, &mut report.skipped, shell).map(|rows| report.rows.extend(rows)),
        Part::Bgp => bgp::measure(rounds, &mut report.skipped, shell).and_then(|rows| {
            report.rows.extend(rows);
            report.rows.extend(bgp_sessions::measure(rounds, &mut report.skipped, shell)?);
            Ok(())
        }),
    };
    match found {
        // A tool that is not installed is a part less, no end.
        Err(error @ Error::Missing { .. }) => {
            shell.say(&format!("  {} is left out: {error}", part.name()));
            report.skipped.push(Skipped::of(part.name(), &error.to_string()));
            Ok(())
        }
        found => found,
    }
}

/// Lets one round of one row fail without the others: it is said, and counts as left out.
fn attempt(what: &str, done: Result<()>, skipped: &mut Vec<Skipped>, shell: &Shell) -> Result<()> {
    match done {
        Ok(()) => Ok(()),
        Err(error @ Error::Interrupted) => Err(error),
        Err(error) => {
            shell.say(&format!("  {what}: {error}"));
            skipped.push(Skipped::of(what, &error.to_string()));
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_found_by_its_name() {
        for part in Part::ALL {
            assert_eq!(part.name().parse::<Part>().unwrap(), part);
            assert_eq!(serde_json::to_value(part).unwrap(), part.name());
        }
        assert!("speed".parse::<Part>().is_err());
    }
}
