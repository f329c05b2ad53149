//! A table of a million BGP routes: how long it takes to take it in, and what it keeps in memory. A thousand neighbours
//! are in `bgp_sessions`.
//!
//! The feeder (`simplon bench load routes`) says the same routes to each speaker, over a veth pair, as fast as they are
//! taken. The speaker chooses among them and passes none on to another peer. BIRD is
//! measured with and without passing them to the kernel; simplon always does.

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
use crate::peer::{simplon, tail, write_private};
use crate::shell::{Process, Shell, installed};

const PREFIXES: u32 = 1_000_000;
const ATTRIBUTES: u32 = 150_000;
pub(super) const CASE: &str = "1000000 routes, 150000 attributes";
/// What stands beside a speaker that gives its routes to the kernel.
pub(super) const WITH_KERNEL: &str = "and kernel";
const FEEDER: &str = "192.0.2.1";
const SPEAKER: &str = "192.0.2.2";
const LATEST: Duration = Duration::from_secs(120);

/// Who takes the routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaker {
    /// simplon gives what it chose to the kernel.
    Simplon,
    /// BIRD keeps it to itself.
    Bird,
    /// BIRD gives it to the kernel.
    BirdAndKernel,
}

impl Speaker {
    pub(super) const ALL: [Self; 3] = [Self::Simplon, Self::Bird, Self::BirdAndKernel];

    pub(super) fn missing(self) -> Option<String> {
        match self {
            Self::Simplon => None,
            Self::Bird | Self::BirdAndKernel => (!installed("bird") || !installed("birdc"))
                .then(|| "bird is not installed; apt-get install bird2".to_owned()),
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Simplon => Gateway::Simplon.name(),
            Self::Bird | Self::BirdAndKernel => "bird",
        }
    }

    /// Whether what it chose goes to the kernel too.
    const fn uses_kernel(self) -> bool {
        match self {
            Self::Simplon | Self::BirdAndKernel => true,
            Self::Bird => false,
        }
    }

    const fn with(self) -> &'static str {
        if self.uses_kernel() { WITH_KERNEL } else { "" }
    }
}

/// Measures every speaker by turns.
pub(super) fn measure(rounds: u32, skipped: &mut Vec<Skipped>, shell: &Shell) -> Result<Vec<Row>> {
    let mut speakers: Vec<(Speaker, Samples)> = Speaker::ALL.map(|speaker| (speaker, Samples::default())).into();
    for round in 1..=rounds {
        let mut left = Vec::new();
        for (speaker, mut samples) in speakers {
            let why = match speaker.missing() {
                Some(why) => why,
                None => match run_once(speaker, &mut samples, shell) {
                    Ok(()) => {
                        shell.say(&format!(
                            "  a million routes, round {round}: {} {} {:.2} s, {:.0} MB",
                            speaker.name(),
                            speaker.with(),
                            samples.last("load_s"),
                            samples.last("growth_mb"),
                        ));
                        left.push((speaker, samples));
                        continue;
                    }
                    Err(error @ Error::Interrupted) => return Err(error),
                    Err(error) => error.to_string(),
                },
            };
            let what = format!("a million routes, {} {}", speaker.name(), speaker.with());
            shell.say(&format!("  {what} is left out: {why}"));
            skipped.push(Skipped::of(what.trim(), &why));
        }
        speakers = left;
    }
    let row = |(speaker, samples): (Speaker, Samples)| {
        let mut row = samples.into_row(Part::Bgp, CASE, speaker.name());
        speaker.with().clone_into(&mut row.with);
        row
    };
    Ok(speakers.into_iter().map(row).collect())
}

fn run_once(speaker: Speaker, samples: &mut Samples, shell: &Shell) -> Result<()> {
    let lab = Lab::new(shell)?;
    let (feeder, node) = (lab.node("feeder")?, lab.node("speaker")?);
    lab.link((&feeder, "eth0"), (&node, "eth0"))?;
    feeder.address("eth0", &format!("{FEEDER}/24"))?;
    node.address("eth0", &format!("{SPEAKER}/24"))?;
    let conf = match speaker {
        Speaker::Simplon => simplon_toml(),
        Speaker::Bird | Speaker::BirdAndKernel => bird_conf(speaker.uses_kernel()),
    };
    let mut running = Running::start(speaker, &conf, &lab, &node)?;
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
    let all = u64::from(PREFIXES);
    let mut until = |done: &dyn Fn(&Running) -> Result<bool>| -> Result<f64> {
        let waited = clock::wait_for("the last route", LATEST, || {
            Ok(done(&running)? || !fed.is_running() || !running.process.is_running())
        });
        if waited.is_err() || !fed.is_running() || !running.process.is_running() {
            let said = format!("{}\n{} routes\n{}", said(), running.routes().unwrap_or(0), running.log_tail());
            return Err(Error::Command { line: running.process.line().into(), said });
        }
        Ok((clock::now() - start).as_secs_f64())
    };
    let loaded = until(&|running| Ok(running.routes()? >= all))?;
    let in_kernel = if speaker.uses_kernel() { Some(until(&|running| Ok(running.in_kernel()? >= all))?) } else { None };
    let told: Value = said().lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
    let full_kb = resident_kb(running.process.pid())?;
    samples.push("load_s", loaded);
    if let Some(seconds) = in_kernel {
        samples.push("kernel_s", seconds);
    }
    samples.push("said_s", told["seconds"].as_f64().unwrap_or(0.0));
    samples.push("cpu_s", cpu_seconds(running.process.pid())?);
    samples.push("growth_mb", full_kb.saturating_sub(empty_kb) as f64 * 1.024e-3);
    samples.push("bytes_per_route", full_kb.saturating_sub(empty_kb) as f64 * 1_024.0 / f64::from(PREFIXES));
    Ok(())
}

pub(super) struct Running {
    speaker: Speaker,
    pub(super) process: Process,
    node: Node,
    control: String,
    log: PathBuf,
}

impl Running {
    pub(super) fn start(speaker: Speaker, text: &str, lab: &Lab, node: &Node) -> Result<Self> {
        let dir = lab.subdir("speaker-files")?;
        let (conf, control, log) = (dir.join("simplon.toml"), dir.join("control"), dir.join("log"));
        let [conf_path, control_path] = [&conf, &control].map(|path| path.to_string_lossy().into_owned());
        let program = simplon::program().unwrap_or_default().to_string_lossy().into_owned();
        write_private(&conf, text)?;
        let words = match speaker {
            Speaker::Simplon => {
                vec![&*program, "gateway", "-c", &conf_path, "--socket", &control_path, "--log", "warn"]
            }
            Speaker::Bird | Speaker::BirdAndKernel => vec!["bird", "-f", "-c", &conf_path, "-s", &control_path],
        };
        let mut process = node.spawn(&words, &[], &log)?;
        clock::wait_for("the speaker's control socket", Duration::from_secs(10), || {
            Ok(control.exists() || !process.is_running())
        })?;
        if !process.is_running() {
            let said = tail(&fs::read_to_string(&log).unwrap_or_default(), 5);
            return Err(Error::Command { line: process.line().into(), said });
        }
        let running = Self { speaker, process, node: node.clone(), control: control_path, log };
        if speaker == Speaker::Simplon && running.status()?["bgp"].is_null() {
            return Err(Error::Asked("simplon gateway does not speak BGP".into()));
        }
        Ok(running)
    }

    /// What simplon says of itself.
    fn status(&self) -> Result<Value> {
        let program = simplon::program().unwrap_or_default().to_string_lossy().into_owned();
        let said = self.node.output(&[&*program, "status", "--json", "--socket", &self.control])?;
        Ok(serde_json::from_str(&said.stdout).unwrap_or_default())
    }

    /// Routes that it has taken in.
    pub(super) fn routes(&self) -> Result<u64> {
        match self.speaker {
            Speaker::Bird | Speaker::BirdAndKernel => {
                let words = ["birdc", "-s", &self.control, "show", "route", "count"];
                Ok(bird_routes(&self.node.output(&words)?.stdout))
            }
            Speaker::Simplon => Ok(self.status()?["bgp"]["prefixes"].as_u64().unwrap_or(0)),
        }
    }

    /// Routes that the kernel has.
    fn in_kernel(&self) -> Result<u64> {
        Ok(kernel_routes(&self.node.output(&["cat", "/proc/net/fib_triestat"])?.stdout))
    }

    pub(super) fn log_tail(&self) -> String {
        tail(&fs::read_to_string(&self.log).unwrap_or_default(), 10)
    }
}

fn bird_conf(kernel: bool) -> String {
    let kernel = if kernel { "protocol kernel {\n  ipv4 { import none; export all; };\n}\n" } else { "" };
    format!(
        "log stderr all;\nrouter id {SPEAKER};\nprotocol device {{}}\n{kernel}\
         protocol bgp feeder {{\n  local {SPEAKER} as 65001;\n  neighbor {FEEDER} as 65000;\n  passive yes;\n  \
         ipv4 {{ import all; export none; }};\n}}\n"
    )
}

fn simplon_toml() -> String {
    format!(
        "[bgp]\nas = 65001\nrouter-id = \"{SPEAKER}\"\n\n\
         [bgp.prefix-list]\nall = [\"permit any\"]\nnone = [\"deny any\"]\n\n\
         [bgp.neighbor.\"{FEEDER}\"]\nas = 65000\nlocal-address = \"{SPEAKER}\"\npassive = true\nhold = \"90s\"\n\
         import = \"all\"\nexport = \"none\"\n"
    )
}

/// The number in "1000000 of 1000000 routes for 1000000 networks in table master4".
fn bird_routes(said: &str) -> u64 {
    let line = said.lines().find(|line| line.contains("in table master4"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// The prefixes of the main table, or of the only one, which is Main or Local there.
fn kernel_routes(said: &str) -> u64 {
    let prefixes = said.lines().filter_map(|line| line.trim().strip_prefix("Prefixes:")?.trim().parse().ok());
    prefixes.max().unwrap_or(0)
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

    #[test]
    fn the_kernel_says_how_many_routes_it_has() {
        let said = "Basic info: size of leaf: 48 bytes.\nMain:\n\tAver depth:     2.50\n\tPrefixes:       1000004\n\
            Local:\n\tPrefixes:       7\n";
        assert_eq!(kernel_routes(said), 1_000_004);
        assert_eq!(kernel_routes(""), 0);
    }

    #[test]
    fn simplon_reads_what_is_written_for_it() {
        let files = dialects::MemoryFiles::new().with("simplon.toml", simplon_toml());
        let config = dialects::read("simplon.toml", &files).unwrap().config;
        assert_eq!(config.bgp.unwrap().neighbors.len(), 1);
    }
}
