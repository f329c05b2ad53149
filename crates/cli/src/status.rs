//! `simplon status`.

use std::time::Duration;

use gateway::status::{ConnectionStatus, SaStatus, Status, short_duration};
use gatewayd::admin::Client;

use crate::args::StatusArgs;
use crate::detail;
use crate::exit::{Code, Failed};
use crate::orders::{explain, pause};
use crate::show::only;
use crate::show::routing::vpns;
use crate::table::{aligned, bytes};
use crate::{say, tell};

/// Clears the terminal and goes to its first line.
const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

/// Shows how the gateway is, once or again and again.
pub(crate) fn run(args: &StatusArgs) -> Result<Code, Failed> {
    let mut client = Client::connect(&args.socket.socket)?;
    loop {
        let status = only(client.status()?, args.connection.as_deref())?;
        let text = if args.json {
            let json = serde_json::to_string_pretty(&status);
            json.map_err(|e| Failed::new(Code::Failed, format!("cannot write JSON: {e}")))? + "\n"
        } else if args.detail {
            detail::show(&status)
        } else {
            show(&status)
        };
        if !args.watch {
            return say(&text);
        }
        if !tell(&format!("{CLEAR}{text}"))? {
            return Ok(Code::Ok);
        }
        pause(Duration::from_secs(1));
    }
}

/// A line for each connection, and what is wrong below.
fn show(status: &Status) -> String {
    let mut head = String::new();
    if status.cluster.is_some() {
        head = crate::cluster::show(status) + "\n";
    }
    if status.connections.is_empty() {
        return head + "no connections\n";
    }
    let heading = ["CONNECTION", "STATE", "FOR", "PEER", "IKE", "ESP", "IN", "OUT"].map(str::to_owned).to_vec();
    let rows: Vec<_> = std::iter::once(heading).chain(status.connections.iter().map(row)).collect();
    let mut text = head + &aligned(&rows);
    if status.connections.iter().any(|c| row(c).iter().any(|cell| cell.ends_with('!'))) {
        text += "! weak algorithms\n";
    }
    if !status.vpns.is_empty() {
        text.push('\n');
        text += &vpns(status);
    }
    if !status.gateway.cut_off.is_empty() {
        let networks = status.gateway.cut_off.join(", ");
        text += &format!("\nno device inside leads to {networks}: what comes out of tunnels for there is refused\n");
    }
    for connection in &status.connections {
        if let Some(failure) = &connection.last_failure {
            text.push('\n');
            text += &explain(&connection.name, failure, true);
            if let Some(again) = connection.retry_in_s {
                text += &format!("\n  tried again in:  {}", short_duration(again));
            }
            text.push('\n');
        }
    }
    text
}

fn row(connection: &ConnectionStatus) -> Vec<String> {
    let mark = |weak: bool| if weak { "!" } else { "" };
    let ike = connection.ike_sas.iter().rev().find(|sa| matches!(sa.state.as_str(), "established" | "rekeying"));
    let ike_text = ike.map_or("-".to_owned(), |sa| format!("{} {}{}", sa.version, sa.suite, mark(sa.is_weak)));
    let active: Vec<&SaStatus> =
        connection.children.iter().filter_map(|c| c.sas.iter().rfind(|sa| sa.state == "active")).collect();
    let esp = active.first().map_or("-".to_owned(), |sa| {
        let more = if active.len() > 1 { format!(" (+{})", active.len() - 1) } else { String::new() };
        let udp = if sa.encapsulation == "udp" { "/udp" } else { "" };
        format!("{}{udp}{more}{}", sa.suite, mark(active.iter().any(|sa| sa.is_weak)))
    });
    let carried = connection.carried_in_all();
    vec![
        connection.name.clone(),
        connection.state.to_string(),
        short_duration(connection.for_s),
        ike.map_or_else(|| connection.remote.clone(), |sa| sa.remote.clone()),
        ike_text,
        esp,
        bytes(carried.bytes_in),
        bytes(carried.bytes_out),
    ]
}
