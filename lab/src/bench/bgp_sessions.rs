//! A thousand BGP sessions with a hundred routes each, over TCP: how long it takes until all are up and every route is
//! known; and, in a case of its own, until every neighbour was told of the routes of all the others.
//!
//! ```text
//!  feeder 192.0.2.1 ── 192.0.2.2 speaker       10.99.0.1 to 10.99.3.232 are the feeder's too:
//!   a thousand speakers in one process         the speaker's way there leads through 192.0.2.1
//! ```

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::Value;

use crate::bench::bgp::{Running, Speaker};
use crate::bench::figures::{Row, Samples};
use crate::bench::path::load;
use crate::bench::process::{cpu_seconds, resident_kb};
use crate::bench::{Part, Skipped, attempt};
use crate::clock;
use crate::error::{Error, Result};
use crate::netns::Lab;
use crate::shell::Shell;

const COUNT: u32 = 1_000;
const PREFIXES: u32 = 100;
const ATTRIBUTES: u32 = 10;
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
const FIRST_AS: u32 = 4_200_000_000;
const FEEDER: &str = "192.0.2.1";
const SPEAKER: &str = "192.0.2.2";
const LATEST: Duration = Duration::from_secs(60);

/// What the speaker does with the routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    /// It keeps them.
    Kept,
    /// It tells each neighbour of all the others' too: a hundred million routes.
    Told,
}

impl Case {
    const fn name(self) -> &'static str {
        match self {
            Self::Kept => KEPT,
            Self::Told => TOLD,
        }
    }
}

pub(super) const KEPT: &str = "1000 sessions, 100 routes each";
pub(super) const TOLD: &str = "1000 sessions, 100 routes each, told to all";

/// Measures every speaker by turns. BIRD keeps the routes to itself; simplon gives them to the kernel. With a hundred
/// million routes to tell BIRD takes longer than anybody waits: only simplon is asked to.
pub(super) fn measure(rounds: u32, skipped: &mut Vec<Skipped>, shell: &Shell) -> Result<Vec<Row>> {
    let all = [(Case::Kept, Speaker::Simplon), (Case::Kept, Speaker::Bird), (Case::Told, Speaker::Simplon)];
    let mut rows = Vec::new();
    let mut samples: Vec<((Case, Speaker), Samples)> = all.map(|one| (one, Samples::default())).into();
    for round in 1..=rounds {
        for ((case, speaker), samples) in &mut samples {
            let what = format!("{}, {}", case.name(), speaker.name());
            let done = match speaker.missing() {
                Some(why) => Err(Error::Asked(why)),
                None => run_once(*case, *speaker, samples, shell),
            };
            if done.is_ok() {
                let up = samples.last("up_s").max(samples.last("told_s"));
                shell.say(&format!("  {what}, round {round}: {up:.2} s, {:.0} MB", samples.last("sessions_growth_mb")));
            }
            attempt(&what, done, skipped, shell)?;
        }
    }
    for ((case, speaker), samples) in samples {
        rows.push(samples.into_row(Part::Bgp, case.name(), speaker.name()));
    }
    Ok(rows)
}

fn run_once(case: Case, speaker: Speaker, samples: &mut Samples, shell: &Shell) -> Result<()> {
    let lab = Lab::new(shell)?;
    let (feeder, node) = (lab.node("feeder")?, lab.node("speaker")?);
    lab.link((&feeder, "eth0"), (&node, "eth0"))?;
    feeder.address("eth0", &format!("{FEEDER}/24"))?;
    node.address("eth0", &format!("{SPEAKER}/24"))?;
    feeder.ip(&["route", "add", "local", "10.99.0.0/16", "dev", "lo"])?;
    node.ip(&["route", "add", "10.99.0.0/16", "via", FEEDER])?;
    let conf = match speaker {
        Speaker::Simplon => simplon_toml(case),
        Speaker::Bird | Speaker::BirdAndKernel => bird_conf(case),
    };
    let mut running = Running::start(speaker, &conf, &lab, &node)?;
    let empty_kb = resident_kb(running.process.pid())?;
    let (to, first, first_as) = (format!("{SPEAKER}:179"), FIRST.to_string(), FIRST_AS.to_string());
    let [count, prefixes, attributes] = [COUNT, PREFIXES, ATTRIBUTES].map(|number| number.to_string());
    let mut words = vec!["sessions", "--first", &first, "--first-as", &first_as, "--count", &count, "--to", &to];
    words.extend(["--next-hop", FEEDER, "--prefixes", &prefixes, "--attributes", &attributes, "--linger", "60"]);
    if case == Case::Told {
        words.push("--hears");
    }
    // BIRD's listener has room for 8: beyond that one would measure how late lost SYNs are repeated.
    if speaker != Speaker::Simplon {
        words.extend(["--at-once", "8"]);
    }
    let log = lab.dir().join("feeder.log");
    let start = clock::now();
    let mut fed = feeder.spawn(&load(&words)?, &[], &log)?;
    let said = || fs::read_to_string(&log).unwrap_or_default();
    let told = |text: &str| text.lines().last().and_then(|line| serde_json::from_str::<Value>(line).ok());
    let mut wait = |what: &str, done: &dyn Fn(&Running) -> Result<bool>| -> Result<f64> {
        let waited =
            clock::wait_for(what, LATEST, || Ok(done(&running)? || !fed.is_running() || !running.process.is_running()));
        if waited.is_err() || !fed.is_running() || !running.process.is_running() {
            let text = format!("{}\n{} routes\n{}", said(), running.routes().unwrap_or(0), running.log_tail());
            return Err(Error::Command { line: running.process.line().into(), said: text });
        }
        Ok((clock::now() - start).as_secs_f64())
    };
    // Where everybody is told of everything, who asks meanwhile would be in the way.
    let up = match case {
        Case::Kept => {
            let all = u64::from(COUNT) * u64::from(PREFIXES);
            wait("the last route", &|running| Ok(told(&said()).is_some() && running.routes()? >= all))?
        }
        Case::Told => wait("the last route told", &|_| Ok(told(&said()).is_some()))?,
    };
    let found = told(&said()).unwrap_or_default();
    let figure = |name: &str| found[name].as_f64().unwrap_or(0.0);
    samples.push("established_s", figure("established_s"));
    samples.push("again", figure("again"));
    match case {
        Case::Kept => samples.push("up_s", up),
        Case::Told => samples.push("told_s", figure("heard_s")),
    }
    samples.push("sessions_cpu_s", cpu_seconds(running.process.pid())?);
    let full_kb = resident_kb(running.process.pid())?;
    samples.push("sessions_growth_mb", full_kb.saturating_sub(empty_kb) as f64 * 1.024e-3);
    Ok(())
}

/// The neighbours: address and AS.
fn neighbors() -> impl Iterator<Item = (Ipv4Addr, u32)> {
    (0..COUNT).map(|number| (Ipv4Addr::from(u32::from(FIRST) + number), FIRST_AS + number))
}

fn bird_conf(case: Case) -> String {
    let export = if case == Case::Told { "all" } else { "none" };
    let mut text = format!("log stderr all;\nrouter id {SPEAKER};\nprotocol device {{}}\n");
    for (address, asn) in neighbors() {
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "protocol bgp {{ local {SPEAKER} as 65001; neighbor {address} as {asn}; multihop 2; passive yes; \
             ipv4 {{ import all; export {export}; }}; }}"
        );
    }
    text
}

fn simplon_toml(case: Case) -> String {
    let export = if case == Case::Told { "all" } else { "none" };
    let mut text = format!(
        "[bgp]\nas = 65001\nrouter-id = \"{SPEAKER}\"\n\n\
         [bgp.prefix-list]\nall = [\"permit any\"]\nnone = [\"deny any\"]\n\n"
    );
    for (address, asn) in neighbors() {
        // Writing to a String does not fail.
        let _ = write!(
            text,
            "[bgp.neighbor.\"{address}\"]\nas = {asn}\nlocal-address = \"{SPEAKER}\"\npassive = true\nhold = \"90s\"\n\
             import = \"all\"\nexport = \"{export}\"\n\n"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simplon_reads_what_is_written_for_it() {
        for case in [Case::Kept, Case::Told] {
            let files = dialects::MemoryFiles::new().with("simplon.toml", simplon_toml(case));
            let config = dialects::read("simplon.toml", &files).unwrap().config;
            assert_eq!(config.bgp.unwrap().neighbors.len(), 1_000);
        }
        assert_eq!(bird_conf(Case::Told).matches("export all").count(), 1_000);
    }
}
