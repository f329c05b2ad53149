//! `simplon gateway`.

use gatewayd::data::Offloads;
use gatewayd::files::Load;
use gatewayd::log::Format;
use gatewayd::{Error, Options};
use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::args::{GatewayArgs, LogFormat, OffloadsArg};
use crate::exit::{Code, Failed};

/// Runs a gateway until it is told to stop.
pub(crate) fn run(args: GatewayArgs) -> Result<Code, Failed> {
    let format = Format::new(args.log_format.map(|format| match format {
        LogFormat::Text => model::LogFormat::Text,
        LogFormat::Json => model::LogFormat::Json,
    }));
    log_to_stderr(&args.log, &format)?;
    let options = Options {
        load: Load { configuration: args.config, secrets: args.secrets, vti_script: args.vti_script },
        socket: args.socket.socket,
        ports: (args.port, args.natt_port),
        offloads: match args.offloads {
            OffloadsArg::Auto => Offloads::Auto,
            OffloadsArg::Off => Offloads::Off,
        },
        log: format,
        hand_over: args.hand_over,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Failed::new(Code::Failed, format!("cannot start: {e}")))?;
    let done = runtime.block_on(gatewayd::run(options));
    // A name that is being resolved must not hold up the end.
    runtime.shutdown_background();
    done.map(|()| Code::Ok).map_err(|e| {
        let code = match &e {
            Error::Configuration(_) => Code::Usage,
            Error::System { .. }
            | Error::AlreadyRunning(_)
            | Error::NotAlone { .. }
            | Error::HandOver(_)
            | Error::DataPath(_) => Code::Failed,
        };
        // A diagnostic has a form of its own, which begins with a line of its own.
        let lead = if code == Code::Usage { "the configuration is wrong\n" } else { "" };
        Failed::new(code, format!("{lead}{e}"))
    })
}

/// Sends the log to standard error in the format of the moment, without colours where that is no terminal.
fn log_to_stderr(filter: &str, format: &Format) -> Result<(), Failed> {
    let filter = EnvFilter::try_new(filter)
        .map_err(|e| Failed::new(Code::Usage, format!("--log {filter} is not understood: {e}")))?;
    // Each line is written by one of two layers: the configuration may change the format while the gateway runs.
    let (as_text, as_json) = (format.clone(), format.clone());
    let text = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_filter(dynamic_filter_fn(move |_, _| !as_text.is_json()));
    let json = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_filter(dynamic_filter_fn(move |_, _| as_json.is_json()));
    tracing_subscriber::registry().with(filter).with(text).with(json).init();
    Ok(())
}
