//! Tunnels a second: IKE SA and first Child SA, with pre-shared keys, the gateway on one core.
//!
//! The generator (`simplon bench load handshakes`) has the other core, and keeps 64 handshakes under way. Each round
//! starts the gateway anew. Where others use the machine too, the wall clock says less than the CPU time that the
//! gateway itself has used: both are reported.

use serde::Serialize;

use crate::bench::BOTH;
use crate::bench::figures::Spread;
use crate::bench::process::cpu_seconds;
use crate::bench::responder::{Ground, Negotiation};
use crate::error::Result;
use crate::peer::PeerKind;
use crate::shell::Shell;
use crate::spec::Version;

/// Handshakes of a round.
const COUNT: u32 = 2_000;

const CASES: [(&str, Negotiation); 3] = [
    (
        "IKEv2 P-256 AES-GCM",
        Negotiation { version: Version::V2, ike: "aes128gcm16-prfsha256-ecp256", esp: "aes128gcm16", dpd: None },
    ),
    (
        "IKEv1 group 2 AES-SHA1",
        Negotiation { version: Version::V1, ike: "aes128-sha1-modp1024", esp: "aes128-sha1", dpd: None },
    ),
    (
        "IKEv1 group 2 with PFS",
        Negotiation { version: Version::V1, ike: "aes128-sha1-modp1024", esp: "aes128-sha1-modp1024", dpd: None },
    ),
];

/// What one gateway takes in one negotiation.
#[derive(Clone, Debug, Serialize)]
pub struct Handshakes {
    /// What is negotiated.
    pub case: String,
    /// Who answers.
    pub responder: PeerKind,
    /// Tunnels a second by the clock.
    pub per_second: Spread,
    /// Tunnels for each second of CPU that the responder used.
    pub per_cpu_second: Spread,
    /// Median time of one handshake, in milliseconds, with 64 under way.
    pub p50_ms: Spread,
    /// Handshakes that did not come to an end, over all rounds.
    pub failed: u32,
    /// Messages that the generator had to send again, over all rounds.
    pub retransmitted: u64,
}

#[derive(Default)]
struct Rounds {
    per_second: Vec<f64>,
    per_cpu_second: Vec<f64>,
    p50_ms: Vec<f64>,
    failed: u32,
    retransmitted: u64,
}

/// Measures all cases, both gateways by turns.
pub(super) fn measure(rounds: u32, shell: &Shell) -> Result<Vec<Handshakes>> {
    let ground = Ground::build(shell)?;
    let mut found = Vec::new();
    for (case, (name, what)) in CASES.into_iter().enumerate() {
        let mut both: [Rounds; 2] = Default::default();
        for round in 0..rounds {
            for (kind, rounds) in BOTH.into_iter().zip(&mut both) {
                run_once(&ground, kind, what, &format!("{kind}-{case}-{round}"), rounds)?;
                let last = |values: &[f64]| values.last().copied().unwrap_or_default();
                shell.say(&format!(
                    "  {name}, round {}: {kind} {:.0} a second, {:.0} a CPU second",
                    round + 1,
                    last(&rounds.per_second),
                    last(&rounds.per_cpu_second),
                ));
            }
        }
        for (responder, rounds) in BOTH.into_iter().zip(both) {
            found.push(Handshakes {
                case: name.to_owned(),
                responder,
                per_second: Spread::of(rounds.per_second),
                per_cpu_second: Spread::of(rounds.per_cpu_second),
                p50_ms: Spread::of(rounds.p50_ms),
                failed: rounds.failed,
                retransmitted: rounds.retransmitted,
            });
        }
    }
    Ok(found)
}

fn run_once(ground: &Ground, kind: PeerKind, what: Negotiation, name: &str, rounds: &mut Rounds) -> Result<()> {
    let responder = ground.start(kind, what, name)?;
    let before = cpu_seconds(responder.pid())?;
    let said = ground.generate(what, COUNT, 0, name)?.said()?;
    let used = cpu_seconds(responder.pid())? - before;
    rounds.per_second.push(said.per_second);
    rounds.per_cpu_second.push(if used > 0.0 { f64::from(said.established) / used } else { 0.0 });
    rounds.p50_ms.push(said.p50_ms);
    rounds.failed += COUNT - said.established;
    rounds.retransmitted += said.retransmitted;
    Ok(())
}
