//! Many tunnels between two gateways: whether they share what one tunnel has, and what each keeps in memory once it has
//! carried something.

use crate::bench::figures::{Row, Samples};
use crate::bench::gateways::Gateway;
use crate::bench::swarm::Swarm;
use crate::bench::{BOTH, Part, Skipped, attempt};
use crate::error::{Error, Result};
use crate::peer::PeerKind;
use crate::shell::Shell;

/// Tunnels with a stream each.
const STREAMS: u32 = 100;
/// Tunnels whose memory is counted.
const TUNNELS: u32 = 1_000;

pub(super) const ONE: &str = "100 streams, 1 tunnel";
pub(super) const HUNDRED: &str = "100 streams, 100 tunnels";
pub(super) const TAKES_ANY: &str = "1000 tunnels, one connection for all";
const HAS_EACH: &str = "1000 tunnels, a connection each";

/// Measures both that are configured alike.
pub(super) fn measure(rounds: u32, skipped: &mut Vec<Skipped>, shell: &Shell) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut swarms = Vec::new();
    for kind in BOTH {
        for (case, tunnels) in [(ONE, 1), (HUNDRED, STREAMS)] {
            if let Some(swarm) = build(kind, case, tunnels, skipped, shell)? {
                swarms.push((case, kind, swarm, Samples::default()));
            }
        }
    }
    for round in 1..=rounds {
        for (case, kind, swarm, samples) in &mut swarms {
            let what = format!("{case}, {kind}, round {round}");
            let found = swarm.streams(STREAMS).map(|(mbit, alive)| {
                samples.push("total_mbit", mbit);
                samples.push("streams_alive", alive);
                shell.say(&format!("  {case}, round {round}: {kind} {mbit:.0} Mbit/s, {alive:.0} streams alive"));
            });
            attempt(&what, found, skipped, shell)?;
        }
    }
    rows.extend(swarms.into_iter().map(|(case, kind, _, samples)| samples.into_row(Part::Many, case, name(kind))));
    for kind in BOTH {
        if let Some(swarm) = build(kind, "1000 tunnels", TUNNELS, skipped, shell)? {
            rows.extend(memory(kind, &swarm, shell)?);
        }
    }
    Ok(rows)
}

fn build(kind: PeerKind, what: &str, tunnels: u32, skipped: &mut Vec<Skipped>, shell: &Shell) -> Result<Option<Swarm>> {
    let why = match kind.missing() {
        Some(why) => why,
        None => match Swarm::build(kind, tunnels, shell) {
            Ok(swarm) => return Ok(Some(swarm)),
            Err(error) if kind == PeerKind::Simplon || matches!(error, Error::Interrupted) => return Err(error),
            Err(error) => error.to_string(),
        },
    };
    let what = format!("{what}, {kind}");
    shell.say(&format!("  {what} is left out: {why}"));
    skipped.push(Skipped::of(&what, &why));
    Ok(None)
}

fn memory(kind: PeerKind, swarm: &Swarm, shell: &Shell) -> Result<Vec<Row>> {
    let touched = swarm.touch(TUNNELS)?;
    let mut rows = Vec::new();
    for (case, daemon) in [(TAKES_ANY, &swarm.daemons[1]), (HAS_EACH, &swarm.daemons[0])] {
        let full_kb = daemon.resident_kb()?;
        let each = full_kb.saturating_sub(daemon.empty_kb) as f64 / f64::from(TUNNELS);
        let mut samples = Samples::default();
        samples.push("touched", touched);
        samples.push("empty_kb", daemon.empty_kb as f64);
        samples.push("full_kb", full_kb as f64);
        samples.push("kb_per_tunnel", each);
        shell.say(&format!("  {case}: {kind} {each:.1} kB each, {touched:.0} have carried packets"));
        rows.push(samples.into_row(Part::Many, case, name(kind)));
    }
    Ok(rows)
}

const fn name(kind: PeerKind) -> &'static str {
    match kind {
        PeerKind::Simplon => Gateway::Simplon.name(),
        PeerKind::Strongswan => Gateway::Strongswan.name(),
        PeerKind::StrongswanKernel | PeerKind::Libreswan => kind.name(),
    }
}
