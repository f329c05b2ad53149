//! `simplon bench`.

use std::time::Duration;

use base::Secret;
use loadgen::packets::{self, Stream};
use loadgen::routes::{self, Feed};
use loadgen::sessions::{self, Sessions};
use loadgen::{Load, Report, streams};
use model::{Identity, Ports, Version};

use crate::args::{BenchArgs, BenchCommand, BenchHandshakesArgs, BenchLoadCommand, BenchReportArgs};
use crate::exit::{Code, Failed};
use crate::lab::{enter, failed, out, say_json};
use crate::say;

/// Measures what it is asked for.
pub(crate) fn run(args: BenchArgs) -> Result<Code, Failed> {
    match args.command {
        None => report(&args.report),
        Some(BenchCommand::Load(command)) => generate(command),
    }
}

/// Everything, or some parts of it. The figures are a result, not a test: they do not decide the exit status.
fn report(args: &BenchReportArgs) -> Result<Code, Failed> {
    if let Some(code) = enter(&[], args.json)? {
        return Ok(code);
    }
    let parts = args.parts.iter().map(|part| part.parse().map_err(failed)).collect::<Result<Vec<_>, _>>()?;
    let options = lab::bench::Options { parts, rounds: args.rounds, echo: args.echo };
    let report = lab::bench::run(&options, out(args.json)).map_err(failed)?;
    if args.json { say_json(&report) } else { say(&report.to_string()) }
}

fn handshakes(args: BenchHandshakesArgs) -> Result<Code, Failed> {
    let load = Load {
        local: args.local,
        remote: args.remote,
        ports: Ports::default(),
        version: if args.version == 1 { Version::V1 } else { Version::V2 },
        count: args.count,
        window: args.window,
        psk: Secret::from(args.psk.as_bytes()),
        remote_id: args.remote_id.unwrap_or(Identity::Ip(args.remote)),
        ike: args.ike,
        esp: args.esp,
        remote_net: args.remote_net,
        linger: Duration::from_secs(args.linger),
        timeout: Duration::from_secs(args.timeout),
    };
    let mut said = Ok(Code::Ok);
    let report = loadgen::run(&load, |report| said = tell(report, args.json));
    let report = report.map_err(|e| Failed::new(Code::Failed, format!("the load generator: {e}")))?;
    said?;
    Ok(if report.established == load.count { Code::Ok } else { Code::Failed })
}

/// Runs a load generator; what it found is a line of JSON.
fn generate(command: BenchLoadCommand) -> Result<Code, Failed> {
    let failed = |error: std::io::Error| Failed::new(Code::Failed, format!("the load generator: {error}"));
    match command {
        BenchLoadCommand::Handshakes(args) => handshakes(args),
        BenchLoadCommand::Count { listen } => packets::count(listen).map(|()| Code::Ok).map_err(failed),
        BenchLoadCommand::Packets { to, size, time, tolerated, rate } => {
            let stream = Stream { to, size, time: Duration::from_millis(time), tolerated };
            match rate {
                Some(rate) => say_json(&packets::send(&stream, rate).map_err(failed)?),
                None => say_json(&packets::find(&stream).map_err(failed)?),
            }
        }
        BenchLoadCommand::Touch { to, first, step, count } => {
            let answered = packets::touch(first, step, count, to).map_err(failed)?;
            say_json(&serde_json::json!({ "answered": answered }))
        }
        BenchLoadCommand::Sink { listen, streams, warm_up, time } => {
            let [warm_up, time] = [warm_up, time].map(Duration::from_millis);
            say_json(&streams::sink(listen, streams, warm_up, time).map_err(failed)?)
        }
        BenchLoadCommand::Source { to, first, step, streams } => {
            streams::source(first, step, streams, to, Duration::from_secs(60)).map(|()| Code::Ok).map_err(failed)
        }
        BenchLoadCommand::Routes { local, local_as, to, prefixes, attributes, linger } => {
            let feed = Feed { local, local_as, to, prefixes, attributes, linger: Duration::from_secs(linger) };
            let mut said = Ok(Code::Ok);
            let done = routes::feed(
                &feed,
                || drop(say("established\n")),
                |fed| said = say(&format!("{}\n", serde_json::json!(fed))),
            );
            done.map_err(failed)?;
            said
        }
        BenchLoadCommand::Sessions {
            first,
            first_as,
            count,
            at_once,
            to,
            next_hop,
            prefixes,
            attributes,
            hears,
            linger,
        } => {
            let linger = Duration::from_secs(linger);
            let wanted =
                Sessions { first, first_as, count, at_once, to, next_hop, prefixes, attributes, hears, linger };
            let mut said = Ok(Code::Ok);
            let done = sessions::hold(&wanted, |held| said = say(&format!("{}\n", serde_json::json!(held))));
            done.map_err(failed)?;
            said
        }
    }
}

fn tell(report: &Report, json: bool) -> Result<Code, Failed> {
    if json {
        return say_json(report);
    }
    say(&format!(
        "{} tunnels in {:.2} s: {:.0} a second, {:.1} ms each (99 of 100 within {:.1} ms), {} failed, {} messages sent again\n",
        report.established,
        report.seconds,
        report.per_second,
        report.p50_ms,
        report.p99_ms,
        report.failed,
        report.retransmitted,
    ))
}
