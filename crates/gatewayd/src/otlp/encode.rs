//! The messages of OTLP 1 as its JSON encoding has them: names in lowerCamelCase, enumerations as numbers, 64-bit numbers
//! as text.

use gateway::Severity;
use gateway::status::Status;
use serde_json::{Value, json};

use super::Record;
use crate::metrics::{self, Family, Kind, Number};

/// `AGGREGATION_TEMPORALITY_CUMULATIVE`: since the start, as Prometheus counts.
const CUMULATIVE: u8 = 2;
/// `SEVERITY_NUMBER_DEBUG`, `_INFO`, `_WARN`.
const DEBUG: u8 = 5;
const INFO: u8 = 9;
const WARN: u8 = 13;

/// An `ExportMetricsServiceRequest` of everything that Prometheus would be told.
pub(super) fn metrics(status: &Status, now_ms: u128) -> Vec<u8> {
    let start_ms = now_ms.saturating_sub(u128::from(status.gateway.uptime_s) * 1_000);
    let families = metrics::collect(status);
    let all: Vec<_> = families.iter().filter(|f| !f.samples.is_empty()).map(|f| metric(f, start_ms, now_ms)).collect();
    let message = json!({ "resourceMetrics": [{
        "resource": resource(),
        "scopeMetrics": [{ "scope": scope(), "metrics": all }],
    }] });
    message.to_string().into_bytes()
}

fn metric(family: &Family, start_ms: u128, now_ms: u128) -> Value {
    let point = |(labels, value): &(Vec<(String, String)>, Number)| {
        let attributes: Vec<_> =
            labels.iter().map(|(name, text)| attribute(name, json!({ "stringValue": text }))).collect();
        let mut point = json!({ "attributes": attributes, "timeUnixNano": nanoseconds(now_ms) });
        match value {
            Number::Whole(value) => point["asInt"] = i64::try_from(*value).unwrap_or(i64::MAX).to_string().into(),
            Number::Real(value) => point["asDouble"] = (*value).into(),
        }
        if family.kind == Kind::Counter {
            point["startTimeUnixNano"] = nanoseconds(start_ms).into();
        }
        point
    };
    let points: Vec<_> = family.samples.iter().map(point).collect();
    let mut metric = json!({ "name": family.name, "description": family.help });
    match family.kind {
        Kind::Counter => {
            metric["sum"] = json!({ "aggregationTemporality": CUMULATIVE, "isMonotonic": true, "dataPoints": points });
        }
        Kind::Gauge => metric["gauge"] = json!({ "dataPoints": points }),
    }
    metric
}

/// An `ExportLogsServiceRequest` of events.
pub(super) fn logs(records: &[Record]) -> Vec<u8> {
    let all: Vec<_> = records.iter().map(log).collect();
    let message = json!({ "resourceLogs": [{
        "resource": resource(),
        "scopeLogs": [{ "scope": scope(), "logRecords": all }],
    }] });
    message.to_string().into_bytes()
}

/// An event in the fields of a tunnel log.
fn log(record: &Record) -> Value {
    let Record { event, phases, at_ms } = record;
    let (number, name) = match event.severity {
        Severity::Debug => (DEBUG, "DEBUG"),
        Severity::Info => (INFO, "INFO"),
        Severity::Warning => (WARN, "WARN"),
    };
    let text = |text: &str| json!({ "stringValue": text });
    let mut attributes = vec![attribute("event", text(event.name))];
    attributes.extend(event.connection.as_deref().map(|connection| attribute("connection", text(connection))));
    if let Some(phases) = phases {
        attributes.extend([
            attribute("dpd_enabled", json!({ "boolValue": phases.dpd_enabled })),
            attribute("nat_t_detected", json!({ "boolValue": phases.nat_detected })),
            attribute("ike_phase1_state", text(phases.phase1.name())),
            attribute("ike_phase2_state", text(phases.phase2.name())),
        ]);
    }
    let at = nanoseconds(u128::from(*at_ms));
    json!({
        "timeUnixNano": at,
        "observedTimeUnixNano": at,
        "severityNumber": number,
        "severityText": name,
        "eventName": event.name,
        "body": text(&event.text),
        "attributes": attributes,
    })
}

fn nanoseconds(ms: u128) -> String {
    (ms * 1_000_000).to_string()
}

fn attribute(key: &str, value: Value) -> Value {
    json!({ "key": key, "value": value })
}

/// Who we are, in the words of the semantic conventions.
fn resource() -> Value {
    let host = os::sysctl::read("kernel/hostname").unwrap_or_default();
    let text = |key, text: &str| attribute(key, json!({ "stringValue": text }));
    json!({ "attributes": [
        text("service.name", "simplon"),
        text("service.version", env!("CARGO_PKG_VERSION")),
        text("service.instance.id", host.trim()),
        text("host.name", host.trim()),
    ] })
}

fn scope() -> Value {
    json!({ "name": "simplon", "version": env!("CARGO_PKG_VERSION") })
}
