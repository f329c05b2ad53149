//! `simplon lab`.

use std::str::FromStr;

use lab::{Encapsulation, Initiator, Options, PeerKind, Scenario, Suite, Version, routing};

use crate::args::{LabCommand, LabFailoverArgs, LabMatrixArgs, LabRunArgs, LabShellArgs};
use crate::exit::{Code, Failed};
use crate::say;
use crate::table::aligned;

/// Does what the lab is asked for.
pub(crate) fn run(command: LabCommand) -> Result<Code, Failed> {
    match command {
        LabCommand::List => list(),
        LabCommand::Run(args) => run_one(args),
        LabCommand::Shell(args) => shell(&args),
        LabCommand::Matrix(args) => matrix(&args),
        LabCommand::Failover(args) => failover(&args),
    }
}

fn list() -> Result<Code, Failed> {
    let connections = Scenario::ALL.iter().map(|s| (s.name(), s.summary()));
    let routed = routing::Scenario::ALL.iter().map(|s| (s.name(), s.summary()));
    let rows: Vec<_> =
        connections.chain(routed).map(|(name, summary)| vec![name.to_owned(), summary.to_owned()]).collect();
    say(&aligned(&rows))
}

fn run_one(args: LabRunArgs) -> Result<Code, Failed> {
    if let Ok(scenario) = args.scenario.parse::<routing::Scenario>() {
        return run_routed(scenario, &args);
    }
    let scenario: Scenario = parse(&args.scenario)?;
    let mut options = Options {
        version: args.ike.map(|version| if version == 1 { Version::V1 } else { Version::V2 }),
        initiator: parse::<Initiator>(&args.initiator)?,
        encapsulation: if args.plain_esp { Encapsulation::Plain } else { Encapsulation::Auto },
        esn: args.esn,
        suite: if args.modern { Suite::Modern } else { Suite::Classic },
        json: args.json,
        echo: args.echo,
        keep: args.keep,
        pcap: args.pcap,
        ..Options::default()
    };
    if let Some(peer) = &args.peer {
        options = options.against(parse(peer)?);
    }
    if let Some(customer) = &args.customer {
        options.customer = parse(customer)?;
    }
    if let Some(cloud) = &args.cloud {
        options.cloud = parse(cloud)?;
    }
    if let Some(code) = enter(&[options.customer, options.cloud], args.json)? {
        return Ok(code);
    }
    let report = lab::run(scenario, &options, out(args.json)).map_err(failed)?;
    if args.json {
        say_json(&report)?;
    }
    Ok(if report.passed { Code::Ok } else { Code::Failed })
}

fn run_routed(scenario: routing::Scenario, args: &LabRunArgs) -> Result<Code, Failed> {
    let mut options = routing::Options::new(scenario);
    if let Some(event) = &args.event {
        options.event = parse(event)?;
    }
    if args.ike == Some(1) {
        options.version = Version::V1;
    }
    if args.active_active {
        options.mode = routing::Mode::ActiveActive;
    }
    if args.static_routes {
        options.routes = routing::Routes::Static;
    }
    if args.hold_timer {
        options.watch = routing::Watch::HoldTimer;
    }
    if let Some(cloud) = args.cloud.as_ref().or(args.peer.as_ref()) {
        options.cloud = parse(cloud)?;
    }
    (options.json, options.echo, options.keep) = (args.json, args.echo, args.keep);
    if let Some(code) = enter(&[], args.json)? {
        return Ok(code);
    }
    let report = routing::run(&options, out(args.json)).map_err(failed)?;
    if args.json {
        say_json(&report)?;
    }
    Ok(if report.passed { Code::Ok } else { Code::Failed })
}

fn shell(args: &LabShellArgs) -> Result<Code, Failed> {
    let scenario: Scenario = parse(&args.scenario)?;
    if let Some(code) = enter(&[], false)? {
        return Ok(code);
    }
    let options = Options { echo: args.echo, ..Options::default() };
    let status = lab::shell(scenario, args.node.as_deref(), &options, out(false)).map_err(failed)?;
    Ok(if status == 0 { Code::Ok } else { Code::Failed })
}

fn matrix(args: &LabMatrixArgs) -> Result<Code, Failed> {
    let mut cases = lab::entries();
    cases.retain(|case| args.words.iter().all(|word| case.to_string().split(' ').any(|part| part == word)));
    if args.list {
        let lines = cases.iter().map(|case| match case.skip() {
            Some(why) => format!("{case}  (left out: {why})\n"),
            None => format!("{case}\n"),
        });
        return say(&lines.collect::<String>());
    }
    let peers: Vec<PeerKind> = cases.iter().flat_map(lab::Entry::peers).collect();
    if let Some(code) = enter(&peers, args.json)? {
        return Ok(code);
    }
    let outcomes = lab::run_all(cases, args.jobs, args.again, out(args.json)).map_err(failed)?;
    if args.json {
        say_json(&outcomes)?;
    }
    let held = outcomes.iter().all(|outcome| outcome.passed || outcome.skipped.is_some());
    Ok(if held { Code::Ok } else { Code::Failed })
}

fn failover(args: &LabFailoverArgs) -> Result<Code, Failed> {
    if let Some(code) = enter(&[], args.json)? {
        return Ok(code);
    }
    let mut err = std::io::stderr();
    let progress = |case: &str| {
        let _ = std::io::Write::write_all(&mut err, format!("{case}\n").as_bytes());
    };
    let mut rounds = match &args.add_to {
        Some(file) => routing::Rounds::kept_in(file).map_err(failed)?,
        None => routing::Rounds::default(),
    };
    routing::failover(&mut rounds, args.rounds, &args.words, progress).map_err(failed)?;
    let rows = rounds.rows();
    if args.json { say_json(&rows) } else { say(&routing::failover_table(&rows)) }
}

/// Runs the same command again where an ordinary user is root; its end, if that is what happened.
pub(crate) fn enter(peers: &[PeerKind], quiet: bool) -> Result<Option<Code>, Failed> {
    let ended = lab::rootless::enter(peers, out(quiet)).map_err(failed)?;
    Ok(ended.map(|status| match status {
        0 => Code::Ok,
        2 => Code::Usage,
        _ => Code::Failed,
    }))
}

/// Where the lab writes: standard output, or standard error when that is kept for JSON.
pub(crate) fn out(quiet: bool) -> lab::shell::Out {
    if quiet { Box::new(std::io::stderr()) } else { Box::new(std::io::stdout()) }
}

pub(crate) fn say_json(what: &impl serde::Serialize) -> Result<Code, Failed> {
    let json = serde_json::to_string_pretty(what);
    say(&(json.map_err(|e| Failed::new(Code::Failed, format!("cannot write JSON: {e}")))? + "\n"))
}

fn parse<T: FromStr<Err = lab::Error>>(text: &str) -> Result<T, Failed> {
    text.parse().map_err(failed)
}

pub(crate) fn failed(error: lab::Error) -> Failed {
    let code = match &error {
        lab::Error::Asked(_) => Code::Usage,
        lab::Error::Late { .. } => Code::Timeout,
        lab::Error::Missing { .. } | lab::Error::Command { .. } | lab::Error::Interrupted | lab::Error::Io { .. } => {
            Code::Failed
        }
    };
    Failed::new(code, error.to_string())
}
