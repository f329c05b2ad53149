//! Metrics and events for an OpenTelemetry collector: OTLP 1 over HTTP, in its JSON encoding.
//!
//! A task of its own sends. What it is given waits in a queue that is bounded and never waited for: while the collector
//! does not answer, events beyond it are lost, counted, and told of when it answers again. Metrics are the families that
//! Prometheus is served, under the same names; nothing waits for them, the next ones say the same.
//!
//! | module | what |
//! | --- | --- |
//! | `encode` | the messages |
//! | `http` | a request and its answer |
//!
//! Left out: TLS, compression, traces. JSON and not the binary encoding: every collector reads both, and the one needs no
//! more than what is linked already.

mod encode;
mod http;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gateway::{GatewayEvent, Phases};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use self::http::{Collector, Refused};
use crate::admin::Asked;
use crate::metrics;

/// Events that wait at most.
const WAITING: usize = 4_096;
/// Events of a message at most.
const BATCH: usize = 512;

/// How often things are done.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Between two messages of metrics.
    metrics: Duration,
    /// From an event until it is sent: others may come along.
    events: Duration,
    /// After a collector that did not answer; it doubles up to sixteen times that.
    again: Duration,
    /// For an answer.
    patience: Duration,
    /// For the last message, when the gateway stops.
    farewell: Duration,
}

const PACE: Pace = Pace {
    metrics: Duration::from_secs(60),
    events: Duration::from_secs(2),
    again: Duration::from_secs(5),
    patience: Duration::from_secs(10),
    farewell: Duration::from_secs(1),
};

/// An event, and how far its connection was.
#[derive(Debug)]
pub(crate) struct Record {
    event: GatewayEvent,
    phases: Option<Phases>,
    at_ms: u64,
}

/// Where events are put.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    queue: mpsc::Sender<Record>,
    lost: Arc<AtomicU64>,
}

impl Events {
    /// Has an event sent, unless too many wait. It does not wait.
    pub(crate) fn add(&self, event: GatewayEvent, phases: Option<Phases>, at_ms: u64) {
        if self.queue.try_send(Record { event, phases, at_ms }).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Sends to a collector until it is dropped.
#[derive(Debug)]
pub(crate) struct Exporter {
    collector: String,
    events: Events,
    task: JoinHandle<()>,
}

impl Exporter {
    /// Sends to the collector at this `http://` address what is added, and the metrics that `ask` says. Must be called
    /// within a tokio runtime.
    pub(crate) fn start(address: &str, ask: mpsc::Sender<Asked>) -> Self {
        info!("metrics and events are sent to {address}");
        Self::start_at(address, ask, PACE)
    }

    fn start_at(address: &str, ask: mpsc::Sender<Asked>, pace: Pace) -> Self {
        let (queue, waiting) = mpsc::channel(WAITING);
        let events = Events { queue, lost: Arc::default() };
        let sending = Sending {
            collector: Collector::new(address, pace.patience),
            ask,
            waiting,
            lost: Arc::clone(&events.lost),
            batch: Vec::new(),
            pace,
            metrics_at: Instant::now(),
            send_at: None,
            failures: 0,
        };
        Self { collector: address.to_owned(), events, task: tokio::spawn(sending.run()) }
    }

    /// The address it sends to.
    pub(crate) fn collector(&self) -> &str {
        &self.collector
    }

    /// Where to put events.
    pub(crate) fn events(&self) -> Events {
        self.events.clone()
    }

    /// Sends what waits, for a moment. Nobody else may have its [`Events`] any more.
    pub(crate) async fn finish(mut self) {
        // The queue ends with its last sender.
        self.events.queue = mpsc::channel(1).0;
        let _ = timeout(2 * PACE.farewell, &mut self.task).await;
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the task has.
struct Sending {
    collector: Collector,
    ask: mpsc::Sender<Asked>,
    waiting: mpsc::Receiver<Record>,
    lost: Arc<AtomicU64>,
    batch: Vec<Record>,
    pace: Pace,
    metrics_at: Instant,
    /// When the batch is to leave, where there is one.
    send_at: Option<Instant>,
    /// Messages without an answer, in a row.
    failures: u32,
}

impl Sending {
    async fn run(mut self) {
        loop {
            let next = self.send_at.map_or(self.metrics_at, |at| at.min(self.metrics_at));
            tokio::select! {
                record = self.waiting.recv(), if self.batch.len() < BATCH => match record {
                    Some(record) => {
                        self.batch.push(record);
                        let now = Instant::now();
                        let at = self.send_at.get_or_insert(now + self.pace.events);
                        if self.batch.len() == BATCH && self.failures == 0 {
                            *at = now;
                        }
                    }
                    None => {
                        let _ = timeout(self.pace.farewell, self.send_events()).await;
                        return;
                    }
                },
                () = sleep_until(next) => {
                    if self.send_at.is_some_and(|at| at <= Instant::now()) {
                        self.send_events().await;
                    }
                    if self.metrics_at <= Instant::now() {
                        self.metrics_at = Instant::now() + self.pace.metrics;
                        self.send_metrics().await;
                    }
                }
            }
        }
    }

    async fn send_events(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let message = encode::logs(&self.batch);
        match self.collector.send("/v1/logs", message).await {
            Err(Refused::NotNow(why)) => {
                let wait = self.note_failure(&why);
                self.send_at = Some(Instant::now() + wait);
                return;
            }
            Err(Refused::Never(why)) => warn!("the collector does not take {} events: {why}", self.batch.len()),
            Ok(()) => self.note_success(),
        }
        self.batch.clear();
        self.send_at = None;
    }

    async fn send_metrics(&mut self) {
        let asked = timeout(self.pace.patience, metrics::status(&self.ask)).await;
        let Ok(Some(status)) = asked else { return };
        let now_ms = os::clock::unix_time().as_millis();
        // Of a thousand connections this takes a while, and the thread belongs to the control loop.
        let encoded = tokio::task::spawn_blocking(move || encode::metrics(&status, now_ms)).await;
        let Ok(message) = encoded else { return };
        match self.collector.send("/v1/metrics", message).await {
            Err(Refused::NotNow(why)) => drop(self.note_failure(&why)),
            Err(Refused::Never(why)) => warn!("the collector does not take the metrics: {why}"),
            Ok(()) => self.note_success(),
        }
    }

    /// Says it once; how long to wait.
    fn note_failure(&mut self, why: &str) -> Duration {
        if self.failures == 0 {
            warn!("metrics and events cannot be sent to {}: {why}", self.collector.address());
        }
        self.failures += 1;
        self.pace.again * 2u32.pow(self.failures.min(5) - 1)
    }

    fn note_success(&mut self) {
        if std::mem::take(&mut self.failures) > 0 {
            let lost = self.lost.swap(0, Ordering::Relaxed);
            info!("metrics and events are sent to {} again; {lost} events were lost", self.collector.address());
        }
    }
}
