//! A table of a million BGP routes: how long it takes to take it in, and what it keeps in memory.
//!
//! The feeder (`simplon bench load routes`) says the same routes to each speaker, over a veth pair, as fast as they are
//! taken. The speaker chooses among them and passes none on: neither to the kernel nor to another peer.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::bench::figures::{Row, Samples};
use crate::bench::gateways::Gateway;
use crate::bench::path::load;
use crate::bench::process::{cpu_seconds, resident_kb};
use crate::bench::{Part, Skipped};
use crate::clock;
use crate::error::{Error, Result};
use crate::netns::{Lab, Node};
use crate::peer::{tail, write_private};
use crate::shell::{Process, Shell, installed};

const PREFIXES: u32 = 1_000_000;
const ATTRIBUTES: u32 = 150_000;
const FEEDER: &str = "192.0.2.1";
const SPEAKER: &str = "192.0.2.2";
const LATEST: Duration = Duration::from_secs(120);

/// Who takes the routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaker {
    Simplon,
    Bird,
}

impl Speaker {
    fn missing(self) -> Option<&'static str> {
        match self {
            Self::Simplon => Some("simplon gateway does not speak BGP yet"),
            Self::Bird => {
                (!installed("bird") || !installed("birdc")).then_some("bird is not installed; apt-get install bird2")
            }
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Simplon => Gateway::Simplon.name(),
            Self::Bird => "bird",
        }
    }
}

/// Measures every speaker by turns.
pub(super) fn measure(rounds: u32, skipped: &mut Vec<Skipped>, shell: &Shell) -> Result<Vec<Row>> {
    let mut speakers = Vec::new();
    for speaker in [Speaker::Simplon, Speaker::Bird] {
        match speaker.missing() {
            Some(why) => {
                shell.say(&format!("  a million routes, {} is left out: {why}", speaker.name()));
                skipped.push(Skipped::of(&format!("a million routes, {}", speaker.name()), why));
            }
            None => speakers.push((speaker, Samples::default())),
        }
    }
    for round in 1..=rounds {
        for (speaker, samples) in &mut speakers {
            run_once(*speaker, samples, shell)?;
            shell.say(&format!(
                "  a million routes, round {round}: {} {:.2} s, {:.0} MB",
                speaker.name(),
                samples.last("load_s"),
                samples.last("growth_mb"),
            ));
        }
    }
    let case = format!("{PREFIXES} routes, {ATTRIBUTES} attributes");
    Ok(speakers.into_iter().map(|(speaker, samples)| samples.into_row(Part::Bgp, &case, speaker.name())).collect())
}

fn run_once(speaker: Speaker, samples: &mut Samples, shell: &Shell) -> Result<()> {
    let lab = Lab::new(shell)?;
    let (feeder, node) = (lab.node("feeder")?, lab.node("speaker")?);
    lab.link((&feeder, "eth0"), (&node, "eth0"))?;
    feeder.address("eth0", &format!("{FEEDER}/24"))?;
    node.address("eth0", &format!("{SPEAKER}/24"))?;
    let running = Running::start(speaker, &lab, &node)?;
    let empty_kb = resident_kb(running.process.pid())?;
    let to = format!("{SPEAKER}:179");
    let (prefixes, attributes) = (PREFIXES.to_string(), ATTRIBUTES.to_string());
    let mut words = vec!["routes", "--local", FEEDER, "--to", &to, "--prefixes", &prefixes];
    words.extend(["--attributes", &attributes, "--linger", "120"]);
    let log = lab.dir().join("feeder.log");
    let mut fed = feeder.spawn(&load(&words)?, &[], &log)?;
    // It says `established` before the first route, and its figures after the last.
    let said = || fs::read_to_string(&log).unwrap_or_default();
    clock::wait_for("the BGP session", Duration::from_secs(40), || {
        Ok(said().contains("established") || !fed.is_running())
    })?;
    let start = clock::now();
    let waited =
        clock::wait_for("the last route", LATEST, || Ok(running.routes()? >= u64::from(PREFIXES) || !fed.is_running()));
    let took = (clock::now() - start).as_secs_f64();
    if waited.is_err() || !fed.is_running() {
        let said = format!("{}\n{} routes\n{}", said(), running.routes()?, running.log_tail());
        return Err(Error::Command { line: fed.line().into(), said });
    }
    let told: Value = said().lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
    let full_kb = resident_kb(running.process.pid())?;
    samples.push("load_s", took);
    samples.push("said_s", told["seconds"].as_f64().unwrap_or(0.0));
    samples.push("cpu_s", cpu_seconds(running.process.pid())?);
    samples.push("growth_mb", full_kb.saturating_sub(empty_kb) as f64 * 1.024e-3);
    samples.push("bytes_per_route", full_kb.saturating_sub(empty_kb) as f64 * 1_024.0 / f64::from(PREFIXES));
    Ok(())
}

struct Running {
    speaker: Speaker,
    process: Process,
    node: Node,
    control: PathBuf,
    log: PathBuf,
}

impl Running {
    fn start(speaker: Speaker, lab: &Lab, node: &Node) -> Result<Self> {
        let dir = lab.subdir("speaker")?;
        let (conf, control, log) = (dir.join("conf"), dir.join("control"), dir.join("log"));
        let [conf_path, control_path] = [&conf, &control].map(|path| path.to_string_lossy().into_owned());
        let words = match speaker {
            Speaker::Bird => {
                write_private(&conf, &bird_conf())?;
                ["bird", "-f", "-c", &conf_path, "-s", &control_path]
            }
            Speaker::Simplon => return Err(Error::Asked("simplon does not speak BGP".into())),
        };
        let mut process = node.spawn(&words, &[], &log)?;
        clock::wait_for("the speaker's control socket", Duration::from_secs(10), || {
            Ok(control.exists() || !process.is_running())
        })?;
        if !process.is_running() {
            let said = tail(&fs::read_to_string(&log).unwrap_or_default(), 20);
            return Err(Error::Command { line: process.line().into(), said });
        }
        Ok(Self { speaker, process, node: node.clone(), control, log })
    }

    /// Routes that it has taken in.
    fn routes(&self) -> Result<u64> {
        match self.speaker {
            Speaker::Bird => {
                let words = ["birdc", "-s", &self.control.to_string_lossy(), "show", "route", "count"];
                Ok(bird_routes(&self.node.output(&words)?.stdout))
            }
            Speaker::Simplon => Ok(0),
        }
    }

    fn log_tail(&self) -> String {
        tail(&fs::read_to_string(&self.log).unwrap_or_default(), 10)
    }
}

fn bird_conf() -> String {
    format!(
        "log stderr all;\nrouter id {SPEAKER};\nprotocol device {{}}\n\
         protocol bgp feeder {{\n  local {SPEAKER} as 65001;\n  neighbor {FEEDER} as 65000;\n  passive yes;\n  \
         ipv4 {{ import all; export none; }};\n}}\n"
    )
}

/// The number in "1000000 of 1000000 routes for 1000000 networks in table master4".
fn bird_routes(said: &str) -> u64 {
    let line = said.lines().find(|line| line.contains("in table master4"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bird_says_how_many_routes_it_has() {
        let said = "BIRD 2.0.12 ready.\n12 of 15 routes for 12 networks in table master4\n\
            0 of 0 routes for 0 networks in table master6\nTotal: 12 of 15 routes for 12 networks in 2 tables\n";
        assert_eq!(bird_routes(said), 12);
        assert_eq!(bird_routes("BIRD 2.0.12 ready.\n"), 0);
    }
}
