//! `simplon up`, `down`, `drain`, `rekey` and `reload`.

use std::time::{Duration, Instant};

use gateway::status::{ConnectionStatus, FailureStatus, Status, short_duration};
use gatewayd::admin::{Client, Request};

use crate::args::{RekeyArgs, SocketArgs, TargetArgs, UpArgs};
use crate::exit::{Code, Failed};
use crate::say;

/// How often the status is looked at while a connection comes up.
const LOOK: Duration = Duration::from_millis(50);

/// Brings a connection up, and waits until every child that was meant carries packets or the negotiation fails.
pub(crate) fn up(args: &UpArgs) -> Result<Code, Failed> {
    let target = &args.target.target;
    let mut client = Client::connect(&args.target.socket.socket)?;
    let at_ms = client.order(&Request::Up { target: target.clone() })?;
    if args.timeout == 0 {
        return Ok(Code::Ok);
    }
    let end = now() + Duration::from_secs(args.timeout);
    loop {
        let status = client.status()?;
        match progress(&status, target, at_ms) {
            Progress::Up(text) => return say(&text),
            Progress::Failed(text) => return Err(Failed::new(Code::Failed, text)),
            Progress::Gone => {
                return Err(Failed::new(Code::Failed, format!("{target} is not in the configuration any more")));
            }
            Progress::Pending(what) if now() >= end => {
                let text = format!("{target} is not up after {} s: {what}", args.timeout);
                return Err(Failed::new(Code::Timeout, text));
            }
            Progress::Pending(_) => pause(LOOK),
        }
    }
}

/// How long the peer may take to answer that a drained tunnel goes down.
const TAKEN_DOWN: Duration = Duration::from_secs(3);

/// Takes a connection down.
pub(crate) fn down(args: &TargetArgs) -> Result<Code, Failed> {
    Client::connect(&args.socket.socket)?.order(&Request::Down { target: args.target.clone() })?;
    Ok(Code::Ok)
}

/// Moves traffic off a tunnel, and waits until it is quiet and down.
pub(crate) fn drain(args: &UpArgs) -> Result<Code, Failed> {
    let target = &args.target.target;
    let mut client = Client::connect(&args.target.socket.socket)?;
    client.order(&Request::Drain { target: target.clone() })?;
    if args.timeout == 0 {
        return Ok(Code::Ok);
    }
    let end = now() + Duration::from_secs(args.timeout);
    let mut stopped = None;
    loop {
        let status = client.status()?;
        let Some((connection, child)) = find(&status, target) else {
            return Err(Failed::new(Code::Failed, format!("{target} is not in the configuration any more")));
        };
        let mut meant = connection.children.iter().filter(|c| child.is_none_or(|name| c.name == name));
        if meant.all(|child| child.sas.is_empty()) {
            return say(&format!("{target} is drained and down\n"));
        }
        let is_draining = |t: &gateway::status::routing::TunnelStatus| {
            t.connection == connection.name && child.is_none_or(|name| t.child == name) && t.is_draining
        };
        let is_over = !status.vpns.iter().flat_map(|vpn| &vpn.tunnels).any(is_draining);
        // What became quiet goes down once the peer has answered.
        if is_over && now() >= *stopped.get_or_insert_with(|| now() + TAKEN_DOWN) {
            let last = connection.history.last().map_or("it was brought up again", |entry| entry.text.as_str());
            return Err(Failed::new(Code::Failed, last.to_owned()));
        }
        if now() >= end {
            let text = format!("{target} still carries traffic after {} s; it goes on being drained", args.timeout);
            return Err(Failed::new(Code::Timeout, text));
        }
        pause(LOOK);
    }
}

/// Makes new keys.
pub(crate) fn rekey(args: &RekeyArgs) -> Result<Code, Failed> {
    let target = args.target.target.clone();
    Client::connect(&args.target.socket.socket)?.order(&Request::Rekey { target, ike: args.ike })?;
    Ok(Code::Ok)
}

/// Lets the gateway read its configuration again.
pub(crate) fn reload(args: &SocketArgs) -> Result<Code, Failed> {
    let answer = Client::connect(&args.socket)?.order(&Request::Reload);
    answer.map(|_| Code::Ok).map_err(|e| match e {
        gatewayd::admin::ClientError::Refused(errors) => {
            Failed::new(Code::Usage, format!("the configuration is wrong and the old one stays\n{errors}"))
        }
        other @ (gatewayd::admin::ClientError::NotRunning { .. } | gatewayd::admin::ClientError::Broken(_)) => {
            other.into()
        }
    })
}

/// How far a connection is on its way up.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    Up(String),
    Failed(String),
    Pending(String),
    Gone,
}

/// Looks for `target` in a status; failures before `at_ms` are old ones.
fn progress(status: &Status, target: &str, at_ms: u64) -> Progress {
    let Some((connection, child)) = find(status, target) else { return Progress::Gone };
    let mut meant = connection.children.iter().filter(|c| child.is_none_or(|name| c.name == name));
    let missing = meant.find(|child| child.sas.iter().all(|sa| sa.state != "active"));
    let failure = connection.last_failure.as_ref().filter(|failure| failure.at_ms >= at_ms);
    match (missing, failure) {
        (None, _) => Progress::Up(summary(connection)),
        (Some(_), Some(failure)) => Progress::Failed(explain(target, failure, false)),
        (Some(child), None) => Progress::Pending(format!("{} is {}", child.name, connection.state)),
    }
}

/// The connection, and the child where one is named, as the gateway understands a target.
fn find<'a>(status: &'a Status, target: &'a str) -> Option<(&'a ConnectionStatus, Option<&'a str>)> {
    let named = |name: &str| status.connections.iter().find(|connection| connection.name == name);
    if let Some(connection) = named(target) {
        return Some((connection, None));
    }
    if let Some((connection, child)) = target.rsplit_once('/').and_then(|(name, child)| Some((named(name)?, child))) {
        return Some((connection, Some(child)));
    }
    let has = |connection: &&ConnectionStatus| connection.children.iter().any(|child| child.name == target);
    status.connections.iter().find(has).map(|connection| (connection, Some(target)))
}

fn summary(connection: &ConnectionStatus) -> String {
    let ike = connection.ike_sas.iter().rev().find(|sa| sa.state == "established");
    let mut text = match ike {
        Some(sa) => {
            format!("{} is up: {} {} with {} ({})\n", connection.name, sa.version, sa.state_name, sa.remote, sa.suite)
        }
        None => format!("{} is up\n", connection.name),
    };
    for child in &connection.children {
        for sa in child.sas.iter().filter(|sa| sa.state == "active") {
            let traffic = format!("{} <-> {}", sa.local.join(", "), sa.remote.join(", "));
            text += &format!("  {}: {traffic}, {} in {}, MTU {}\n", child.name, sa.suite, sa.encapsulation, sa.mtu);
        }
    }
    text
}

/// The cause of a failure, what each side offered, the nearest match, and the lines to look at; how long `ago` it was,
/// if that is wanted.
pub(crate) fn explain(target: &str, failure: &FailureStatus, ago: bool) -> String {
    let when = if ago { format!(", {} ago", short_duration(failure.ago_s)) } else { String::new() };
    let mut text = format!("{target} did not come up: {} [{}]{when}", failure.sentence, failure.cause);
    if !failure.ours.is_empty() {
        text += &format!("\n  we offer:        {}", failure.ours.join(", "));
    }
    if !failure.theirs.is_empty() {
        text += &format!("\n  the peer offers: {}", failure.theirs.join(", "));
    }
    if let Some(nearest) = &failure.nearest {
        let differ_in = nearest.differ_in.join(" and ");
        text += &format!(
            "\n  nearest:         {} here, {} there: they differ in {differ_in}",
            nearest.ours, nearest.theirs
        );
    }
    for fix in &failure.fixes {
        let place = match (&fix.file, fix.line, &fix.text) {
            (Some(file), Some(line), Some(text)) => format!("{file}:{line}: {text}"),
            _ => fix.setting.clone(),
        };
        text += &format!("\n  look at:         {place}");
    }
    text
}

#[expect(clippy::disallowed_methods, reason = "a command that waits reads the clock")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "a command that waits, waits")]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(json: serde_json::Value) -> Status {
        let connection = serde_json::json!({
            "name": "Tunnel1", "state": "connecting", "for_s": 1, "why": "", "retry_in_s": null, "versions": ["ikev1"],
            "local": "any", "remote": "192.0.2.1", "weak": [], "ike_sas": [], "history": [], "last_failure": null,
            "children": [{ "name": "net", "start": "wait", "device": null, "local": [], "remote": [], "df": "honour",
                           "sas": [] }],
        });
        let mut status = Status::default();
        let mut merged = connection;
        for (key, value) in json.as_object().unwrap() {
            merged[key] = value.clone();
        }
        status.connections.push(serde_json::from_value(merged).unwrap());
        status
    }

    #[test]
    fn a_failure_from_before_the_order_is_not_the_orders_failure() {
        let failure = serde_json::json!({ "last_failure": {
            "ago_s": 1, "at_ms": 500, "cause": "wrong_psk", "sentence": "the pre-shared keys differ", "found_by": "us",
            "ours": [], "theirs": [], "nearest": null,
            "fixes": [{ "side": "ours", "setting": "pre-shared key", "file": "a.secrets", "line": 3, "text": "{secret}" }],
        }});
        let status = status(failure);
        assert_eq!(progress(&status, "Tunnel1", 501), Progress::Pending("net is connecting".to_owned()));
        let Progress::Failed(text) = progress(&status, "Tunnel1/net", 500) else { panic!("it failed") };
        assert!(text.contains("the pre-shared keys differ [wrong_psk]"), "{text}");
        assert!(text.contains("look at:         a.secrets:3: {secret}"), "{text}");
        assert_eq!(progress(&status, "other", 0), Progress::Gone);
    }
}
