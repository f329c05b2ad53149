//! `simplon gateway`.

use gatewayd::data::Offloads;
use gatewayd::files::Load;
use gatewayd::{Error, Options};
use tracing_subscriber::EnvFilter;

use crate::args::{GatewayArgs, LogFormat, OffloadsArg};
use crate::exit::{Code, Failed};

/// Runs a gateway until it is told to stop.
pub(crate) fn run(args: GatewayArgs) -> Result<Code, Failed> {
    log_to_stderr(&args.log, args.log_format)?;
    let options = Options {
        load: Load { configuration: args.config, secrets: args.secrets, vti_script: args.vti_script },
        socket: args.socket.socket,
        ports: (args.port, args.natt_port),
        offloads: match args.offloads {
            OffloadsArg::Auto => Offloads::Auto,
            OffloadsArg::Off => Offloads::Off,
        },
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Failed::new(Code::Failed, format!("cannot start: {e}")))?;
    let done = runtime.block_on(gatewayd::run(options));
    // A name that is being resolved must not hold up the end.
    runtime.shutdown_background();
    done.map(|()| Code::Ok).map_err(|e| {
        let code = match &e {
            Error::Configuration(_) => Code::Usage,
            Error::System { .. } | Error::AlreadyRunning(_) | Error::DataPath(_) => Code::Failed,
        };
        // A diagnostic has a form of its own, which begins with a line of its own.
        let lead = if code == Code::Usage { "the configuration is wrong\n" } else { "" };
        Failed::new(code, format!("{lead}{e}"))
    })
}

/// Sends the log to standard error, without colours where that is no terminal.
fn log_to_stderr(filter: &str, format: LogFormat) -> Result<(), Failed> {
    let filter = EnvFilter::try_new(filter)
        .map_err(|e| Failed::new(Code::Usage, format!("--log {filter} is not understood: {e}")))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}
