//! `simplon check`: reads and validates a configuration and shows what would run, without starting anything.

use std::fmt::Write;

use gateway::status;
use gatewayd::files::Load;
use model::{Address, Child, Connection, DfPolicy, DpdAction, Encapsulation, Routing, Start, Tries};
use serde::Serialize;

use crate::args::CheckArgs;
use crate::exit::{Code, Failed};
use crate::say;

/// What would run.
#[derive(Serialize)]
struct Checked {
    /// Whether the configuration can run.
    ok: bool,
    /// What is wrong, each as it would be shown.
    errors: Vec<String>,
    /// What to know, each with file and line.
    notes: Vec<String>,
    /// The connections.
    connections: Vec<CheckedConnection>,
}

#[derive(Serialize)]
struct CheckedConnection {
    name: String,
    versions: Vec<String>,
    local: String,
    local_id: String,
    remote: String,
    remote_id: String,
    ike: Vec<String>,
    ike_lifetime_s: u64,
    encapsulation: &'static str,
    dpd: Option<String>,
    tries: String,
    weak: Vec<String>,
    /// Where the connection stands.
    source: Option<String>,
    children: Vec<CheckedChild>,
}

#[derive(Serialize)]
struct CheckedChild {
    name: String,
    start: &'static str,
    local: Vec<String>,
    remote: Vec<String>,
    esp: Vec<String>,
    lifetime_s: u64,
    replay_window: u32,
    device: Option<String>,
    routes: Vec<String>,
    df: &'static str,
}

/// Checks a configuration.
pub(crate) fn run(args: &CheckArgs) -> Result<Code, Failed> {
    let load =
        Load { configuration: args.file.clone(), secrets: args.secrets.clone(), vti_script: args.vti_script.clone() };
    let checked = match load.read(&[]) {
        Ok(reading) => Checked {
            ok: true,
            errors: Vec::new(),
            notes: reading.notes.iter().map(ToString::to_string).collect(),
            connections: reading.config.connections.iter().map(connection).collect(),
        },
        Err(errors) => Checked {
            ok: false,
            errors: errors.0.iter().map(ToString::to_string).collect(),
            notes: Vec::new(),
            connections: Vec::new(),
        },
    };
    if args.json {
        let json = serde_json::to_string_pretty(&checked);
        say(&(json.map_err(|e| Failed::new(Code::Failed, format!("cannot write JSON: {e}")))? + "\n"))?;
        return Ok(if checked.ok { Code::Ok } else { Code::Usage });
    }
    if !checked.ok {
        return Err(Failed::new(Code::Usage, format!("{} cannot run\n{}", args.file, checked.errors.join("\n\n"))));
    }
    say(&show(&checked))
}

fn connection(connection: &Connection) -> CheckedConnection {
    CheckedConnection {
        name: connection.name.clone(),
        versions: status::versions(connection),
        local: address(&connection.local.address),
        local_id: id(&connection.local),
        remote: address(&connection.remote.address),
        remote_id: connection.remote_id().to_string(),
        ike: connection.ike.iter().map(ToString::to_string).collect(),
        ike_lifetime_s: connection.ike_lifetime.time.as_secs(),
        encapsulation: match connection.encapsulation {
            Encapsulation::Auto => "auto",
            Encapsulation::Force => "force",
            Encapsulation::Never => "never",
        },
        dpd: connection.dpd.map(|dpd| {
            let action = match dpd.action {
                DpdAction::Clear => "clear",
                DpdAction::Hold => "hold",
                DpdAction::Restart => "restart",
            };
            format!("every {} s, {action} after {} s", dpd.delay.as_secs(), dpd.timeout.as_secs())
        }),
        tries: match connection.tries {
            Tries::Forever => "for ever".to_owned(),
            Tries::Times(times) => times.to_string(),
        },
        weak: status::weak(connection),
        source: connection
            .sources
            .of(model::Setting::Connection)
            .map(|source| format!("{}:{}", source.file, source.line)),
        children: connection.children.iter().map(child).collect(),
    }
}

fn child(child: &Child) -> CheckedChild {
    let (device, routes) = match &child.routing {
        Routing::Policy => (None, Vec::new()),
        Routing::Device { name, routes, .. } => (Some(name.clone()), routes.iter().map(ToString::to_string).collect()),
    };
    CheckedChild {
        name: child.name.clone(),
        start: match child.start {
            Start::Wait => "wait",
            Start::OnTraffic => "on_traffic",
            Start::AtOnce => "at_once",
        },
        local: child.local.iter().map(ToString::to_string).collect(),
        remote: child.remote.iter().map(ToString::to_string).collect(),
        esp: child.esp.iter().map(ToString::to_string).collect(),
        lifetime_s: child.lifetime.time.as_secs(),
        replay_window: child.replay_window,
        device,
        routes,
        df: if child.df == DfPolicy::Clear { "clear" } else { "honour" },
    }
}

fn address(address: &Address) -> String {
    match address {
        Address::Any => "any".to_owned(),
        Address::Ip(ip) => ip.to_string(),
        Address::Prefix(net) => net.to_string(),
        Address::Name(name) => name.clone(),
    }
}

fn id(side: &model::Side) -> String {
    match (&side.id, side.address.ip()) {
        (Some(id), _) => id.to_string(),
        (None, Some(ip)) => ip.to_string(),
        (None, None) => "our address".to_owned(),
    }
}

fn show(checked: &Checked) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    for c in &checked.connections {
        let place = c.source.as_ref().map(|source| format!(" ({source})")).unwrap_or_default();
        let _ = writeln!(text, "{}{place}", c.name);
        let mut line = |label: &str, value: &str| {
            let _ = writeln!(text, "  {label:<16}{value}");
        };
        line("versions", &c.versions.join(", "));
        line("local", &format!("{} as {}", c.local, c.local_id));
        line("remote", &format!("{} as {}", c.remote, c.remote_id));
        line("phase 1", &format!("{} for {} s", c.ike.join(", "), c.ike_lifetime_s));
        line("encapsulation", c.encapsulation);
        line("dead peer", c.dpd.as_deref().unwrap_or("not looked for"));
        line("tries", &c.tries);
        if !c.weak.is_empty() {
            line("weak", &c.weak.join(", "));
        }
        for child in &c.children {
            line("child", &format!("{}, start {}", child.name, child.start));
            line("  traffic", &format!("{} <-> {}", child.local.join(", "), child.remote.join(", ")));
            line("  phase 2", &format!("{} for {} s", child.esp.join(", "), child.lifetime_s));
            if let Some(device) = &child.device {
                line("  device", &format!("{device}, routes {}", child.routes.join(", ")));
            }
        }
    }
    for note in &checked.notes {
        let _ = writeln!(text, "note: {note}");
    }
    let _ = writeln!(text, "{} connections, nothing was started", checked.connections.len());
    text
}
