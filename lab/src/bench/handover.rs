//! A gateway with a thousand and more tunnels is handed over to another process while packets pass: how long they wait, and
//! whether one is lost or a tunnel with them.

use std::time::Duration;

use crate::bench::figures::{Row, Samples};
use crate::bench::gateways::Gateway;
use crate::bench::swarm::Swarm;
use crate::bench::{Part, Skipped, attempt};
use crate::clock;
use crate::error::Result;
use crate::peer::PeerKind;
use crate::shell::Shell;

/// Each with a session of IKE and a Child SA.
const TUNNELS: [u32; 2] = [1_000, 2_000];

/// Packets that pass meanwhile, one each 2 ms.
const PINGS: u32 = 2_500;

/// Measures simplon alone: strongSwan does not hand over.
pub(super) fn measure(rounds: u32, skipped: &mut Vec<Skipped>, shell: &Shell) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for tunnels in TUNNELS {
        let mut swarm = Swarm::build_telling(PeerKind::Simplon, tunnels, "info", shell)?;
        swarm.touch(tunnels)?;
        for (which, what) in [(1, "one connection for all"), (0, "a connection each")] {
            let case = format!("{tunnels} tunnels, {what}");
            let mut samples = Samples::default();
            for round in 1..=rounds {
                let done = hand_over(&mut swarm, which, tunnels, &mut samples);
                attempt(&format!("{case}, round {round}"), done, skipped, shell)?;
                shell.say(&format!(
                    "  {case}, round {round}: {:.1} ms of waiting, {:.0} of {:.0} packets lost, {:.0} tunnels left",
                    samples.last("pause_ms"),
                    samples.last("lost"),
                    samples.last("packets"),
                    samples.last("touched"),
                ));
            }
            rows.push(samples.into_row(Part::HandOver, &case, Gateway::Simplon.name()));
        }
    }
    Ok(rows)
}

fn hand_over(swarm: &mut Swarm, which: usize, tunnels: u32, samples: &mut Samples) -> Result<()> {
    let pings = swarm.ping(PINGS)?;
    clock::sleep(Duration::from_millis(500))?;
    let (whole, pause) = swarm.hand_over(which)?;
    let pings = pings.finish()?;
    samples.push("whole_ms", whole.as_secs_f64() * 1e3);
    samples.push("pause_ms", pause.as_secs_f64() * 1e3);
    samples.push("packets", f64::from(pings.sent));
    samples.push("lost", f64::from(pings.sent.saturating_sub(pings.answered)));
    samples.push("touched", swarm.touch(tunnels)?);
    Ok(())
}
