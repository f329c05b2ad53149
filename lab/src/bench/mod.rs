//! What the gateway takes and costs, measured beside strongSwan on the same machine in the same run.
//!
//! | module | what |
//! | --- | --- |
//! | [`handshakes`] | tunnels a second, one core as responder |
//! | [`idle`] | memory of a thousand tunnels, and what keeping them costs |
//! | [`data`] | one TCP stream, small packets and round trips through a tunnel |
//! | [`figures`] | medians, the printed table, the goals |
//!
//! Rounds of both gateways alternate, so that what else the machine does meets both alike; what counts is the
//! median, and the ratio within one run. A figure that is missed is a finding, no error. Left out: links with delay
//! or loss, and more than one tunnel under traffic.

pub mod data;
pub mod figures;
pub mod handshakes;
pub mod idle;
mod process;
mod responder;

use std::str::FromStr;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::peer::PeerKind;
use crate::shell::{Out, Shell};

pub use figures::{Report, Spread};

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
    /// The data path.
    Data,
}

impl FromStr for Part {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "handshakes" => Ok(Self::Handshakes),
            "idle" => Ok(Self::Idle),
            "data" => Ok(Self::Data),
            _ => Err(Error::Asked(format!("nothing is measured as {text:?}: there are handshakes, idle and data"))),
        }
    }
}

/// The two that are compared.
pub(crate) const BOTH: [PeerKind; 2] = [PeerKind::Simplon, PeerKind::Strongswan];

/// Measures; what happens meanwhile is written to `out`.
///
/// # Errors
///
/// When something that is measured is not installed or does not start, and on Ctrl-C.
pub fn run(options: &Options, out: Out) -> Result<Report> {
    let shell = Shell::new(out, options.echo);
    for kind in BOTH {
        if let Some(install) = kind.missing() {
            return Err(Error::Missing { what: format!("what {kind} needs"), install });
        }
    }
    let wanted = |part| options.parts.is_empty() || options.parts.contains(&part);
    let mut report = Report::begun(options.rounds);
    if wanted(Part::Handshakes) {
        report.handshakes = handshakes::measure(options.rounds, &shell)?;
    }
    if wanted(Part::Idle) {
        report.idle = idle::measure(&shell)?;
    }
    if wanted(Part::Data) {
        report.data = data::measure(options.rounds, &shell)?;
    }
    report.end();
    Ok(report)
}
