//! What a person sees: one sentence for each change, with the connection as a field. It goes four ways:
//!
//! | where | what |
//! | --- | --- |
//! | the log on standard error | text for a person, or JSON ([`Format`]) |
//! | the journal | the last [`KEPT`] events, which `simplon show events` asks for |
//! | a file of each connection | JSON with how far both phases were, where a directory for them is configured |
//! | a collector | by OTLP, where one is configured (`otlp`) |
//!
//! An event of a connection in JSON has the fields of the tunnel logs that clouds write: `event_timestamp`,
//! `dpd_enabled`, `nat_t_detected`, `ike_phase1_state`, `ike_phase2_state` and `details`. No event holds a secret.

mod journal;
mod time;
mod tunnels;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gateway::{GatewayEvent, Phases, Severity};
use model::LogFormat;
use tracing::{debug, info, warn};

use self::journal::Journal;
pub use self::journal::{Event, KEPT, PAGE, Page};
pub use self::time::utc;
use self::tunnels::Tunnels;
use crate::otlp;

/// How the log is written, shared with whoever writes it: the configuration is read after the first line.
#[derive(Clone, Debug, Default)]
pub struct Format {
    is_json: Arc<AtomicBool>,
    is_fixed: bool,
}

impl Format {
    /// As `said` on the command line; where nothing was said, as the configuration says.
    pub fn new(said: Option<LogFormat>) -> Self {
        let is_json = Arc::new(AtomicBool::new(said == Some(LogFormat::Json)));
        Self { is_json, is_fixed: said.is_some() }
    }

    /// Whether lines are JSON objects now.
    pub fn is_json(&self) -> bool {
        self.is_json.load(Ordering::Relaxed)
    }

    fn configure(&self, format: LogFormat) {
        if !self.is_fixed {
            self.is_json.store(format == LogFormat::Json, Ordering::Relaxed);
        }
    }
}

/// All ways of an event.
#[derive(Debug, Default)]
pub(crate) struct Log {
    format: Format,
    journal: Journal,
    tunnels: Option<Tunnels>,
    collector: Option<otlp::Events>,
}

impl Log {
    pub(crate) fn new(format: Format) -> Self {
        Self { format, ..Self::default() }
    }

    /// Takes the configuration, the first or a new one.
    pub(crate) fn configure(&mut self, options: &model::GatewayOptions) {
        self.format.configure(options.log_format);
        let directory = options.log_directory.as_deref();
        if self.tunnels.as_ref().map(Tunnels::directory) != directory {
            self.tunnels = directory.and_then(|directory| match Tunnels::open(directory) {
                Ok(tunnels) => Some(tunnels),
                Err(e) => {
                    self.note(Severity::Warning, "log", format!("connections have no logs of their own: {e}"));
                    None
                }
            });
        }
    }

    /// Sends events to a collector from now on, or to none.
    pub(crate) fn collect(&mut self, collector: Option<otlp::Events>) {
        self.collector = collector;
    }

    /// Tells of an event. `phases` says how far its connection is.
    pub(crate) fn tell(&mut self, event: &GatewayEvent, phases: impl FnOnce(&str) -> Option<Phases>) {
        let at_ms = u64::try_from(os::clock::unix_time().as_millis()).unwrap_or(u64::MAX);
        self.journal.add(event, at_ms);
        let is_wanted = event.severity > Severity::Debug
            && (self.format.is_json() || self.tunnels.is_some() || self.collector.is_some());
        let phases = event.connection.as_deref().filter(|_| is_wanted).and_then(phases);
        match phases.filter(|_| self.format.is_json()) {
            Some(phases) => trace_phases(event, &phases, at_ms),
            None => trace(event),
        }
        if let (Some(tunnels), Some(phases)) = (&mut self.tunnels, phases) {
            tunnels.write(event, &phases, at_ms);
        }
        if let Some(collector) = self.collector.as_ref().filter(|_| event.severity > Severity::Debug) {
            collector.add(event.clone(), phases, at_ms);
        }
    }

    /// Tells of something that the shell saw, about no connection.
    pub(crate) fn note(&mut self, severity: Severity, name: &'static str, text: String) {
        self.tell(&GatewayEvent { connection: None, severity, name, text }, |_| None);
    }

    /// Events of the journal ([`Journal::page`]).
    pub(crate) fn page(&self, after: Option<u64>, connection: Option<&str>, limit: usize) -> Page {
        self.journal.page(after, connection, limit)
    }
}

fn trace(event: &GatewayEvent) {
    let GatewayEvent { connection, severity, name, text } = event;
    match (severity, connection) {
        (Severity::Debug, Some(connection)) => debug!(connection = %connection, event = name, "{text}"),
        (Severity::Debug, None) => debug!(event = name, "{text}"),
        (Severity::Info, Some(connection)) => info!(connection = %connection, event = name, "{text}"),
        (Severity::Info, None) => info!(event = name, "{text}"),
        (Severity::Warning, Some(connection)) => warn!(connection = %connection, event = name, "{text}"),
        (Severity::Warning, None) => warn!(event = name, "{text}"),
    }
}

/// With what JSON says of a connection besides.
fn trace_phases(event: &GatewayEvent, phases: &Phases, at_ms: u64) {
    let GatewayEvent { connection, severity, name, text } = event;
    let connection = connection.as_deref().unwrap_or_default();
    macro_rules! trace {
        ($level:ident) => {
            $level!(
                connection,
                event = name,
                event_timestamp = at_ms / 1_000,
                dpd_enabled = phases.dpd_enabled,
                nat_t_detected = phases.nat_detected,
                ike_phase1_state = phases.phase1.name(),
                ike_phase2_state = phases.phase2.name(),
                details = text,
                "{text}"
            )
        };
    }
    match severity {
        Severity::Debug => trace!(debug),
        Severity::Info => trace!(info),
        Severity::Warning => trace!(warn),
    }
}
