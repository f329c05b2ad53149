//! What a thousand tunnels cost that carry nothing: resident memory, and the CPU that keeping them takes.
//!
//! Every peer is asked whether it is alive each 10 s, and answers. Both gateways are watched at the same time.

use std::time::Duration;

use serde::Serialize;

use crate::bench::BOTH;
use crate::bench::process::{cpu_seconds, resident_kb};
use crate::bench::responder::{Ground, Negotiation};
use crate::clock;
use crate::error::Result;
use crate::peer::PeerKind;
use crate::shell::Shell;
use crate::spec::Version;

const TUNNELS: u32 = 1_000;
/// After the last handshake, before anything is counted.
const SETTLING: Duration = Duration::from_secs(3);
const WATCHED: Duration = Duration::from_secs(20);
const WHAT: Negotiation =
    Negotiation { version: Version::V2, ike: "aes128gcm16-prfsha256-ecp256", esp: "aes128gcm16", dpd: Some(10) };

/// What one gateway uses.
#[derive(Clone, Debug, Serialize)]
pub struct Idle {
    /// Which.
    pub gateway: PeerKind,
    /// Tunnels that were up.
    pub tunnels: u32,
    /// Resident memory before the first peer came, in kB.
    pub empty_kb: u64,
    /// Resident memory with all tunnels, in kB.
    pub full_kb: u64,
    /// kB for each tunnel.
    pub kb_per_tunnel: f64,
    /// Per cent of one core, with dead peer detection each 10 s.
    pub cpu_percent: f64,
}

/// Watches both.
pub(super) fn measure(shell: &Shell) -> Result<Vec<Idle>> {
    let grounds = [Ground::build(shell)?, Ground::build(shell)?];
    let mut running = Vec::new();
    for (kind, ground) in BOTH.into_iter().zip(&grounds) {
        let responder = ground.start(kind, WHAT, kind.name())?;
        let empty_kb = resident_kb(responder.pid())?;
        let mut generator = ground.generate(WHAT, TUNNELS, 120, kind.name())?;
        let tunnels = generator.said()?.established;
        running.push((kind, responder, generator, empty_kb, tunnels));
    }
    clock::sleep(SETTLING)?;
    let cpu = |running: &[_]| -> Result<Vec<f64>> {
        let pids = running.iter().map(|(_, responder, ..): &(_, super::responder::Responder, _, _, _)| responder.pid());
        pids.map(cpu_seconds).collect()
    };
    let (before, start) = (cpu(&running)?, clock::now());
    clock::sleep(WATCHED)?;
    let (after, watched) = (cpu(&running)?, (clock::now() - start).as_secs_f64());
    let mut found = Vec::new();
    for ((gateway, responder, _generator, empty_kb, tunnels), (before, after)) in
        running.iter().zip(before.into_iter().zip(after))
    {
        let full_kb = resident_kb(responder.pid())?;
        let idle = Idle {
            gateway: *gateway,
            tunnels: *tunnels,
            empty_kb: *empty_kb,
            full_kb,
            kb_per_tunnel: full_kb.saturating_sub(*empty_kb) as f64 / f64::from((*tunnels).max(1)),
            cpu_percent: (after - before) / watched * 100.0,
        };
        shell.say(&format!(
            "  {tunnels} tunnels: {gateway} {:.1} kB each, {:.2} % of a core when idle",
            idle.kb_per_tunnel, idle.cpu_percent,
        ));
        found.push(idle);
    }
    Ok(found)
}
