//! `simplon show ike-sa`.

use gateway::status::{ConnectionStatus, DpdStatus, IkeStatus, Negotiations, Phase, Status, short_duration};
use serde::Serialize;

use super::state;
use crate::table::Lines;

/// An IKE SA, with what is known of its connection. A connection without one has an entry, too.
#[derive(Debug, Serialize)]
pub(super) struct Row<'a> {
    connection: &'a str,
    sa: Option<&'a IkeStatus>,
    dpd: Option<&'a DpdStatus>,
    negotiations: &'a Negotiations,
}

pub(super) fn rows(status: &Status) -> Vec<Row<'_>> {
    let of = |c| sas(c).into_iter().map(move |sa| Row::new(c, sa));
    status.connections.iter().flat_map(of).collect()
}

impl<'a> Row<'a> {
    fn new(c: &'a ConnectionStatus, sa: Option<&'a IkeStatus>) -> Self {
        Self { connection: &c.name, sa, dpd: c.dpd.as_ref(), negotiations: &c.negotiations }
    }
}

/// The IKE SAs of a connection, or that there is none.
fn sas(connection: &ConnectionStatus) -> Vec<Option<&IkeStatus>> {
    let all: Vec<_> = connection.ike_sas.iter().map(Some).collect();
    if all.is_empty() { vec![None] } else { all }
}

pub(super) fn text(status: &Status) -> String {
    let mut out = Lines::default();
    let all: Vec<_> = status.connections.iter().flat_map(|c| &c.ike_sas).collect();
    let count = |state: &str| all.iter().filter(|sa| sa.state == state).count();
    out.title(
        0,
        &format!(
            "IKE SAs: {} configured, {} active, {} rekeying, {} in all",
            status.connections.len(),
            count("established"),
            count("rekeying"),
            all.len()
        ),
    );
    for connection in &status.connections {
        for sa in sas(connection) {
            out.title(0, "");
            match sa {
                Some(sa) => one(&mut out, connection, sa),
                None => out.title(0, &state(connection)),
            }
        }
        counters(&mut out, &connection.negotiations);
    }
    out.finish()
}

fn one(out: &mut Lines, connection: &ConnectionStatus, sa: &IkeStatus) {
    let known = |text: &Option<String>| text.clone().unwrap_or_else(|| "not known yet".to_owned());
    let nat = |is_there| if is_there { ", behind NAT" } else { "" };
    let rekey = if sa.state == "rekeying" { "yes" } else { "no" };
    out.title(0, &format!("{}: {}, direction {}", connection.name, sa.state, sa.role));
    out.line(2, "local", &format!("{} as {}{}", sa.local, known(&sa.local_id), nat(sa.nat_local)));
    out.line(2, "peer", &format!("{} as {}{}", sa.remote, known(&sa.remote_id), nat(sa.nat_remote)));
    let cookies = format!("initiator 0x{}, responder 0x{}", sa.initiator_spi, sa.responder_spi);
    out.line(2, if sa.version == "ikev1" { "cookies" } else { "SPIs" }, &cookies);
    let exchange = if sa.version == "ikev1" { "main mode" } else { "IKE_SA_INIT, IKE_AUTH" };
    out.line(2, "exchange", &format!("{exchange} ({}), type L2L", sa.version));
    out.line(2, "state", &format!("{}, rekey {rekey}", sa.state_name));
    out.line(2, "authentication", &sa.authentication);
    let weak = if sa.is_weak { " (the suite is weak)" } else { "" };
    out.line(2, "encryption", &format!("{}{weak}", known(&sa.encryption)));
    out.line(2, "hash", &known(&sa.hash));
    out.line(2, "PRF", &known(&sa.prf));
    out.line(2, "DH group", &known(&sa.group));
    let seconds = |at: Option<u64>| at.map_or("-".to_owned(), |s| format!("{s} s ({})", short_duration(s)));
    let lifetime = format!("{} left, rekey in {}", seconds(sa.expires_in_s), seconds(sa.rekey_in_s));
    out.line(2, "lifetime", &lifetime);
    out.line(2, "age", &seconds(sa.age_s));
    let dpd = connection.dpd.as_ref().map_or("off".to_owned(), |dpd| {
        let DpdStatus { delay_s, timeout_s, action } = dpd;
        format!("after {delay_s} s of silence, given up after {timeout_s} s, then {action}")
    });
    out.line(2, "DPD", &dpd);
}

fn counters(out: &mut Lines, counted: &Negotiations) {
    let phase = |phase: &Phase| {
        let Phase { succeeded, failed, timeouts, hash_errors, resent, answered_again } = phase;
        let result = format!("success {succeeded}, failure {failed}, timeout {timeouts}");
        format!("{result}, hash err {hash_errors}, resend {resent}, answered again {answered_again}")
    };
    out.line(2, "# phase 1", &phase(&counted.phase1));
    out.line(2, "# phase 2", &phase(&counted.phase2));
    let Negotiations { ike_rekeys, child_rekeys, peer_dead, .. } = counted;
    out.line(
        2,
        "# since the start",
        &format!("IKE rekeys {ike_rekeys}, child rekeys {child_rekeys}, peer dead {peer_dead}"),
    );
    if !counted.failures.is_empty() {
        let causes = counted.failures.iter().map(|(cause, count)| format!("{cause} {count}"));
        out.line(2, "# failures by cause", &causes.collect::<Vec<_>>().join(", "));
    }
}
