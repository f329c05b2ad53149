//! A collector on the loopback device.

use std::collections::BTreeSet;

use gateway::{Progress, Severity};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::admin::Answer;
use crate::metrics::status_of;

const FAST: Pace = Pace {
    metrics: Duration::from_millis(50),
    events: Duration::from_millis(10),
    again: Duration::from_millis(20),
    patience: Duration::from_secs(5),
    farewell: Duration::from_secs(5),
};

/// Reads a request; its path and its message.
async fn read(stream: &mut TcpStream) -> Option<(String, Value)> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
    let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
    assert_eq!(line("content-type: ").as_deref(), Some("application/json"), "{text}");
    let length: usize = line("content-length: ").unwrap().parse().unwrap();
    while bytes.len() < head + length {
        stream.read_buf(&mut bytes).await.ok()?;
    }
    let path = text.split(' ').nth(1).unwrap().to_owned();
    Some((path, serde_json::from_slice(&bytes[head..]).unwrap()))
}

/// A collector that answers with these, the last one again and again; what it was sent.
fn collect(listener: TcpListener, answers: &'static [&'static str]) -> mpsc::UnboundedReceiver<(String, Value)> {
    let (sender, received) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        for place in 0.. {
            let Ok((mut stream, _)) = listener.accept().await else { return };
            let Some(request) = read(&mut stream).await else { continue };
            let status = answers[answers.len().min(place + 1) - 1];
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\n{{}}");
            let _ = stream.write_all(answer.as_bytes()).await;
            if sender.send(request).is_err() {
                return;
            }
        }
    });
    received
}

/// A gateway with one connection.
fn gateway() -> mpsc::Sender<Asked> {
    let (ask, mut asked) = mpsc::channel::<Asked>(1);
    tokio::spawn(async move {
        while let Some(asked) = asked.recv().await {
            let mut status = status_of(&[serde_json::json!({})]);
            status.gateway.uptime_s = 100;
            let _ = asked.answer.send(Answer::Status { status: Box::new(status) });
        }
    });
    ask
}

fn event(text: &str) -> GatewayEvent {
    let connection = Some("Tunnel1".into());
    GatewayEvent { connection, severity: Severity::Warning, name: "ike_failed", text: text.to_owned() }
}

fn records(message: &Value) -> Vec<Value> {
    message["resourceLogs"][0]["scopeLogs"][0]["logRecords"].as_array().cloned().unwrap_or_default()
}

fn of(list: &Value, key: &str) -> Value {
    let mut all = list.as_array().unwrap().iter();
    all.find(|attribute| attribute["key"] == key).map(|attribute| attribute["value"].clone()).unwrap_or_default()
}

/// The next message to this path.
async fn next(received: &mut mpsc::UnboundedReceiver<(String, Value)>, path: &str) -> Value {
    loop {
        let (to, message) = timeout(Duration::from_secs(20), received.recv()).await.unwrap().unwrap();
        if to == path {
            return message;
        }
    }
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    (listener, address)
}

#[tokio::test]
async fn the_families_of_prometheus_arrive_as_sums_and_gauges() {
    let (listener, address) = listen().await;
    let mut received = collect(listener, &["200 OK"]);
    let _exporter = Exporter::start_at(&format!("{address}/otel"), gateway(), FAST);
    let message = next(&mut received, "/otel/v1/metrics").await;
    let of_resource = &message["resourceMetrics"][0];
    assert_eq!(of(&of_resource["resource"]["attributes"], "service.name")["stringValue"], "simplon");
    let metrics = of_resource["scopeMetrics"][0]["metrics"].as_array().unwrap();
    let names: BTreeSet<_> = metrics.iter().map(|metric| metric["name"].as_str().unwrap()).collect();
    assert_eq!(names.len(), metrics.len());
    let served = metrics::collect(&status_of(&[serde_json::json!({})]));
    assert_eq!(names, served.iter().filter(|f| !f.samples.is_empty()).map(|f| f.name).collect());
    let find = |name: &str| metrics.iter().find(|metric| metric["name"] == name).unwrap();
    let state = &find("simplon_tunnel_up")["gauge"]["dataPoints"][0];
    assert_eq!(
        (&state["asInt"], &of(&state["attributes"], "connection")["stringValue"]),
        (&"0".into(), &"Tunnel1".into())
    );
    let sum = &find("simplon_tunnel_receive_bytes_total")["sum"];
    assert_eq!((&sum["aggregationTemporality"], &sum["isMonotonic"]), (&2.into(), &true.into()));
    let time = |key: &str| sum["dataPoints"][0][key].as_str().unwrap().parse::<u64>().unwrap();
    assert_eq!(time("timeUnixNano") - time("startTimeUnixNano"), 100_000_000_000);
    // Again and again.
    next(&mut received, "/otel/v1/metrics").await;
}

#[tokio::test]
async fn an_event_arrives_with_the_fields_of_a_tunnel_log() {
    let (listener, address) = listen().await;
    let mut received = collect(listener, &["200 OK"]);
    let exporter = Exporter::start_at(&address, gateway(), FAST);
    let phases =
        Phases { dpd_enabled: true, nat_detected: false, phase1: Progress::Established, phase2: Progress::Negotiating };
    exporter.events().add(event("no proposal suits"), Some(phases), 1_700_000_000_123);
    let message = next(&mut received, "/v1/logs").await;
    let log = records(&message).remove(0);
    assert_eq!(log["timeUnixNano"], "1700000000123000000");
    assert_eq!((&log["severityNumber"], &log["severityText"]), (&13.into(), &"WARN".into()));
    assert_eq!((&log["eventName"], &log["body"]["stringValue"]), (&"ike_failed".into(), &"no proposal suits".into()));
    let attributes = &log["attributes"];
    assert_eq!(of(attributes, "connection")["stringValue"], "Tunnel1");
    assert_eq!(of(attributes, "dpd_enabled")["boolValue"], true);
    assert_eq!(of(attributes, "ike_phase2_state")["stringValue"], "negotiating");
    // What waits when the gateway stops is sent.
    let slow = Exporter::start_at(&address, gateway(), Pace { events: Duration::from_secs(3_600), ..FAST });
    slow.events().add(event("gateway stops"), None, 1);
    slow.finish().await;
    let last = records(&next(&mut received, "/v1/logs").await);
    assert_eq!(last[0]["body"]["stringValue"], "gateway stops");
}

#[tokio::test]
async fn a_collector_that_cannot_take_it_now_gets_it_later_and_what_it_never_takes_is_let_go() {
    let (listener, address) = listen().await;
    let mut received = collect(listener, &["503 Service Unavailable", "400 Bad Request", "200 OK"]);
    let pace = Pace { metrics: Duration::from_secs(3_600), ..FAST };
    let exporter = Exporter::start_at(&address, mpsc::channel(1).0, pace);
    exporter.events().add(event("first"), None, 1);
    for _ in 0..2 {
        assert_eq!(records(&next(&mut received, "/v1/logs").await)[0]["body"]["stringValue"], "first");
    }
    exporter.events().add(event("second"), None, 2);
    let message = records(&next(&mut received, "/v1/logs").await);
    assert_eq!((message.len(), &message[0]["body"]["stringValue"]), (1, &"second".into()));
}

#[tokio::test]
async fn while_no_collector_answers_nothing_waits_and_what_is_too_much_is_lost() {
    let (listener, address) = listen().await;
    drop(listener);
    let exporter = Exporter::start_at(&address, gateway(), FAST);
    let events = exporter.events();
    let too_many = WAITING + 2 * BATCH;
    for place in 0..too_many {
        events.add(event(&place.to_string()), None, 1);
        if place % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let lost = events.lost.load(Ordering::Relaxed);
    assert!((BATCH as u64..2 * BATCH as u64 + 1).contains(&lost), "{lost}");
    // It comes up: everything that was kept arrives, in order.
    let listener = TcpListener::bind(address.strip_prefix("http://").unwrap()).await.unwrap();
    let mut received = collect(listener, &["200 OK"]);
    let (mut place, mut messages) = (0, 0);
    while place < WAITING {
        for record in records(&next(&mut received, "/v1/logs").await) {
            let at: usize = record["body"]["stringValue"].as_str().unwrap().parse().unwrap();
            assert!(at >= place);
            place = at + 1;
        }
        messages += 1;
    }
    assert!(messages >= WAITING / BATCH, "{messages}");
    let told = async {
        while events.lost.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(10), told).await.expect("it is told how many were lost");
}
