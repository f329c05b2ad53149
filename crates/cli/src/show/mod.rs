//! `simplon show`: what is known, in the tables that routers show it in. docs/book/status.md puts each field beside its
//! equal in `show crypto` of an ASA and `show ike sa`, `show ipsec sa` of a NEC IX.
//!
//! | module | tables |
//! | --- | --- |
//! | `ike` | `ike-sa` |
//! | `ipsec` | `ipsec-sa` |
//! | `routing` | `vpn`, `bgp`, `bfd` |
//! | `routes` | `routes`, `bgp-routes` |
//! | `events` | `events` |

mod events;
mod ike;
mod ipsec;
mod routes;
pub(crate) mod routing;

use gateway::status::{ConnectionStatus, Status};
use gatewayd::admin::Client;
use serde::Serialize;

use crate::args::{ShowArgs, ShowCommand, ShowWholeArgs};
use crate::exit::{Code, Failed};
use crate::say;

/// Shows a table.
pub(crate) fn run(command: &ShowCommand) -> Result<Code, Failed> {
    match command {
        ShowCommand::IkeSa(args) => show(args, |status| json(&ike::rows(status)), ike::text),
        ShowCommand::IpsecSa(args) => show(args, |status| json(&ipsec::rows(status)), ipsec::text),
        ShowCommand::Vpn(args) => whole(args, |status| json(&status.vpns), routing::vpns),
        ShowCommand::Bgp(args) => whole(args, |status| json(&status.bgp), routing::bgp),
        ShowCommand::Cluster(args) => whole(args, |status| json(&status.cluster), crate::cluster::show),
        ShowCommand::Bfd(args) => whole(args, |status| json(&status.bfd), routing::bfd),
        ShowCommand::Routes(args) => routes::run(args),
        ShowCommand::BgpRoutes(args) => routes::run_bgp(args),
        ShowCommand::Events(args) => events::run(args),
    }
}

/// Shows the status as a table's `json` or `text`.
fn show(
    args: &ShowArgs,
    json: impl Fn(&Status) -> Result<String, Failed>,
    text: impl Fn(&Status) -> String,
) -> Result<Code, Failed> {
    let status = only(Client::connect(&args.socket.socket)?.status()?, args.connection.as_deref())?;
    if args.json { say(&json(&status)?) } else { say(&text(&status)) }
}

/// Shows what concerns the gateway as a whole.
fn whole(
    args: &ShowWholeArgs,
    json: impl Fn(&Status) -> Result<String, Failed>,
    text: impl Fn(&Status) -> String,
) -> Result<Code, Failed> {
    let status = Client::connect(&args.socket.socket)?.status()?;
    if args.json { say(&json(&status)?) } else { say(&text(&status)) }
}

/// The status of one connection, or of all.
pub(crate) fn only(mut status: Status, connection: Option<&str>) -> Result<Status, Failed> {
    if let Some(name) = connection {
        status.connections.retain(|connection| connection.name == name);
        if status.connections.is_empty() {
            return Err(Failed::new(Code::Failed, format!("there is no connection {name}")));
        }
    }
    Ok(status)
}

pub(crate) fn json(value: &impl Serialize) -> Result<String, Failed> {
    let json = serde_json::to_string_pretty(value);
    Ok(json.map_err(|e| Failed::new(Code::Failed, format!("cannot write JSON: {e}")))? + "\n")
}

/// How a connection is, for one that has nothing else to show.
fn state(connection: &ConnectionStatus) -> String {
    let since = gateway::status::short_duration(connection.for_s);
    format!("{}: {} for {since}: {}", connection.name, connection.state, connection.why)
}

#[cfg(test)]
mod fields;
#[cfg(test)]
mod tests;
