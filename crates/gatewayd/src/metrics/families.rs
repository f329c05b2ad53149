//! Which series there are. Names and labels are documented in docs/book/operations.md; they are added, never renamed.

use std::collections::BTreeMap;

use gateway::State;
use gateway::status::{ConnectionStatus, Phase, SaStatus, Status};

use super::process;
use super::routing;
use super::text::{Family, Kind, Text};

/// Every state of a connection, with its name.
const STATES: [(State, &str); 4] =
    [(State::Up, "up"), (State::Connecting, "connecting"), (State::Waiting, "waiting"), (State::Down, "down")];

/// Everything that is known, as text.
pub(super) fn write(status: &Status) -> String {
    filled(Text::default(), status).finish()
}

/// Everything that is known.
pub(crate) fn collect(status: &Status) -> Vec<Family> {
    filled(Text::kept(), status).families()
}

fn filled(mut text: Text, status: &Status) -> Text {
    gateway(&mut text, status);
    up(&mut text, status);
    tunnels(&mut text, &status.connections);
    traffic(&mut text, &status.connections);
    negotiations(&mut text, &status.connections);
    routing::write(&mut text, status);
    ike(&mut text, status);
    data_path(&mut text, status);
    process::write(&mut text, status.gateway.uptime_s);
    text
}

fn gateway(text: &mut Text, status: &Status) {
    text.family("simplon_build_info", Kind::Gauge, "Always 1; its version is a label");
    text.sample(&[("version", &status.gateway.version)], true);
    text.one("simplon_uptime_seconds", Kind::Gauge, "Time since the gateway started", status.gateway.uptime_s);
    let count = status.connections.len() as u64;
    text.one("simplon_tunnels", Kind::Gauge, "Connections that are configured", count);
}

/// As clouds count it (`TunnelState`): a tunnel with BGP is up while a session over it is established, any other while
/// it has SAs.
fn up(text: &mut Text, status: &Status) {
    text.family("simplon_tunnel_up", Kind::Gauge, "Whether a connection carries packets, and its BGP session is up");
    for c in &status.connections {
        let over_it = |tunnel: &str| tunnel.strip_prefix(&*c.name).is_some_and(|r| r.is_empty() || r.starts_with('/'));
        let neighbors = status.bgp.iter().flat_map(|bgp| &bgp.neighbors);
        let mut sessions = neighbors.filter(|n| n.tunnel.as_deref().is_some_and(over_it)).peekable();
        let has_bgp = sessions.peek().is_some();
        let is_established = sessions.any(|n| n.state == "established");
        text.sample(&[("connection", &c.name)], c.state == State::Up && (!has_bgp || is_established));
    }
}

fn tunnels(text: &mut Text, connections: &[ConnectionStatus]) {
    text.family("simplon_tunnel_state", Kind::Gauge, "1 for the state that a connection is in, 0 for the others");
    for c in connections {
        for (state, name) in STATES {
            text.sample(&[("connection", &c.name), ("state", name)], c.state == state);
        }
    }
    text.family("simplon_tunnel_state_seconds", Kind::Gauge, "Time that a connection has been in its state");
    for c in connections {
        text.sample(&[("connection", &c.name)], c.for_s);
    }
    text.family("simplon_tunnel_info", Kind::Gauge, "Always 1; the ends of a connection are labels");
    for c in connections {
        let labels = [("connection", &*c.name), ("local", &*c.local), ("remote", &*c.remote)];
        text.sample(&labels, true);
    }
    let active = |c: &ConnectionStatus| sas(c).filter(|sa| sa.state == "active").count() as u64;
    text.family("simplon_tunnel_child_sas", Kind::Gauge, "Child SAs that carry packets");
    for c in connections {
        text.sample(&[("connection", &c.name)], active(c));
    }
    text.family("simplon_tunnel_path_mtu_bytes", Kind::Gauge, "Largest outer packet that the path to the peer takes");
    newest(text, connections, |sa| sa.outer_mtu.into());
    text.family("simplon_tunnel_mtu_bytes", Kind::Gauge, "Largest inner packet");
    newest(text, connections, |sa| sa.mtu.into());
    text.family(
        "simplon_tunnel_expiry_seconds",
        Kind::Gauge,
        "Time until the newest Child SA ends if it is not rekeyed",
    );
    newest(text, connections, |sa| sa.expires_in_s.unwrap_or_default());
}

fn sas(connection: &ConnectionStatus) -> impl Iterator<Item = &SaStatus> {
    connection.children.iter().flat_map(|child| &child.sas)
}

/// A sample for the newest SA of each child that has one.
fn newest(text: &mut Text, connections: &[ConnectionStatus], value: impl Fn(&SaStatus) -> u64) {
    for c in connections {
        for child in &c.children {
            if let Some(sa) = child.sas.last() {
                text.sample(&[("connection", &c.name), ("child", &child.name)], value(sa));
            }
        }
    }
}

fn traffic(text: &mut Text, connections: &[ConnectionStatus]) {
    let carried: Vec<_> = connections.iter().map(|c| (&*c.name, c.carried_in_all())).collect();
    text.family("simplon_tunnel_receive_bytes_total", Kind::Counter, "Bytes that arrived, after decryption");
    for (name, sum) in &carried {
        text.sample(&[("connection", name)], sum.bytes_in);
    }
    text.family("simplon_tunnel_transmit_bytes_total", Kind::Counter, "Bytes that left, before encryption");
    for (name, sum) in &carried {
        text.sample(&[("connection", name)], sum.bytes_out);
    }
    text.family("simplon_tunnel_receive_packets_total", Kind::Counter, "Packets that arrived");
    for (name, sum) in &carried {
        text.sample(&[("connection", name)], sum.packets_in);
    }
    text.family("simplon_tunnel_transmit_packets_total", Kind::Counter, "Packets that left");
    for (name, sum) in &carried {
        text.sample(&[("connection", name)], sum.packets_out);
    }
    text.family("simplon_tunnel_receive_drops_total", Kind::Counter, "Packets that arrived and were dropped");
    for (name, sum) in &carried {
        by_reason(text, name, &sum.dropped_in);
    }
    text.family("simplon_tunnel_transmit_drops_total", Kind::Counter, "Packets that were to leave and were dropped");
    for (name, sum) in &carried {
        by_reason(text, name, &sum.dropped_out);
    }
}

fn by_reason(text: &mut Text, connection: &str, dropped: &BTreeMap<String, u64>) {
    for (reason, count) in dropped {
        text.sample(&[("connection", connection), ("reason", reason)], *count);
    }
}

/// A family that counts something of each phase.
type OfPhase = (&'static str, &'static str, fn(&Phase) -> u64);

const PHASES: [OfPhase; 4] = [
    ("simplon_tunnel_handshakes_total", "SAs that came up, rekeying included", |phase| phase.succeeded),
    ("simplon_tunnel_timeouts_total", "Negotiations that the peer did not answer", |phase| phase.timeouts),
    ("simplon_tunnel_retransmissions_total", "IKE messages that were sent again", |phase| phase.resent),
    ("simplon_tunnel_hash_errors_total", "IKE messages whose check failed", |phase| phase.hash_errors),
];

fn negotiations(text: &mut Text, connections: &[ConnectionStatus]) {
    for (name, help, count) in PHASES {
        text.family(name, Kind::Counter, help);
        for c in connections {
            text.sample(&[("connection", &c.name), ("phase", "1")], count(&c.negotiations.phase1));
            text.sample(&[("connection", &c.name), ("phase", "2")], count(&c.negotiations.phase2));
        }
    }
    text.family("simplon_tunnel_rekeys_total", Kind::Counter, "SAs that were replaced in time");
    for c in connections {
        text.sample(&[("connection", &c.name), ("sa", "ike")], c.negotiations.ike_rekeys);
        text.sample(&[("connection", &c.name), ("sa", "child")], c.negotiations.child_rekeys);
    }
    text.family("simplon_tunnel_handshake_failures_total", Kind::Counter, "Negotiations that failed, by cause");
    for c in connections {
        for cause in ike::Cause::NAMES {
            let count = c.negotiations.failures.get(cause).copied().unwrap_or_default();
            text.sample(&[("connection", &c.name), ("cause", cause)], count);
        }
    }
    text.family("simplon_tunnel_dpd_timeouts_total", Kind::Counter, "Times that the peer was given up as dead");
    for c in connections {
        text.sample(&[("connection", &c.name)], c.negotiations.peer_dead);
    }
}

fn ike(text: &mut Text, status: &Status) {
    let ike = &status.gateway.ike;
    text.one("simplon_ike_received_total", Kind::Counter, "IKE messages that came in", ike.received);
    text.one("simplon_ike_sent_total", Kind::Counter, "IKE messages that went out", ike.sent);
    text.one("simplon_ike_retransmitted_total", Kind::Counter, "IKE requests that were sent again", ike.retransmitted);
    text.one("simplon_ike_established_total", Kind::Counter, "IKE SAs established", ike.established);
    text.one("simplon_ike_failed_total", Kind::Counter, "Negotiations that failed", ike.failed);
    text.one("simplon_ike_cookies_total", Kind::Counter, "Cookies that peers were asked for", ike.cookies_sent);
    text.one("simplon_ike_half_open", Kind::Gauge, "IKE SAs that strangers began and did not finish", ike.half_open);
    text.family("simplon_ike_dropped_total", Kind::Counter, "IKE messages that were dropped, by reason");
    for (reason, count) in &ike.dropped {
        text.sample(&[("reason", reason)], *count);
    }
}

fn data_path(text: &mut Text, status: &Status) {
    let Some(data_path) = &status.gateway.data_path else { return };
    text.family("simplon_packets_dropped_total", Kind::Counter, "Packets dropped that belong to no SA, by reason");
    for (reason, count) in &data_path.dropped {
        text.sample(&[("reason", reason)], *count);
    }
    let told = data_path.unreachable_sent;
    text.one("simplon_unreachable_sent_total", Kind::Counter, "ICMP unreachable for packets without an SA", told);
    let errors = data_path.send_errors;
    text.one("simplon_send_errors_total", Kind::Counter, "Datagrams and packets that the kernel refused", errors);
    let errors = data_path.receive_errors;
    text.one("simplon_receive_errors_total", Kind::Counter, "Errors of receiving", errors);
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A status of connections that are so and otherwise have nothing.
    pub(crate) fn status(connections: &[serde_json::Value]) -> Status {
        let mut status = Status::default();
        status.gateway.data_path = Some(gateway::status::DataPathCounters::default());
        for given in connections {
            let mut connection = serde_json::json!({
                "name": "Tunnel1", "state": "waiting", "for_s": 1, "why": "", "retry_in_s": null, "versions": [],
                "local": "192.0.2.1", "remote": "203.0.113.1", "weak": [], "ike_sas": [], "history": [],
                "last_failure": null, "children": [],
            });
            for (key, value) in given.as_object().unwrap() {
                connection[key] = value.clone();
            }
            status.connections.push(serde_json::from_value(connection).unwrap());
        }
        status
    }

    #[test]
    fn a_tunnel_that_is_down_has_its_series() {
        let text = write(&status(&[serde_json::json!({})]));
        for line in [
            "simplon_tunnel_up{connection=\"Tunnel1\"} 0",
            "simplon_tunnel_state{connection=\"Tunnel1\",state=\"waiting\"} 1",
            "simplon_tunnel_receive_bytes_total{connection=\"Tunnel1\"} 0",
            "simplon_tunnel_transmit_bytes_total{connection=\"Tunnel1\"} 0",
            "simplon_tunnel_handshake_failures_total{connection=\"Tunnel1\",cause=\"wrong_psk\"} 0",
            "simplon_tunnel_rekeys_total{connection=\"Tunnel1\",sa=\"child\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn a_tunnel_with_bgp_is_up_while_its_session_is_established() {
        let mut status =
            status(&[serde_json::json!({ "state": "up" }), serde_json::json!({ "state": "up", "name": "Tunnel10" })]);
        let neighbor = |state: &str, tunnel: &str| {
            serde_json::json!({
                "address": "169.254.1.1", "remote_as": 64512, "local_as": 65000, "tunnel": tunnel, "state": state,
                "for_s": 3, "last_error": null, "last_error_ago_s": null, "router_id": null, "hold_s": null,
                "keepalive_s": null, "capabilities": [], "messages_in": 0, "messages_out": 0, "updates_in": 0,
                "updates_out": 0, "prefixes_received": 0, "prefixes_accepted": 0, "prefixes_sent": 0,
                "max_prefixes": null, "flaps": 0, "is_drained": false, "bfd": null,
            })
        };
        for (state, is_up) in [("active", 0), ("established", 1)] {
            status.bgp = serde_json::from_value(serde_json::json!({
                "asn": 65000, "router_id": "192.0.2.1", "prefixes": 0, "paths": 0,
                "neighbors": [neighbor(state, "Tunnel1/net")],
            }))
            .unwrap();
            let text = write(&status);
            assert!(text.contains(&format!("simplon_tunnel_up{{connection=\"Tunnel1\"}} {is_up}\n")), "{text}");
            assert!(text.contains("simplon_tunnel_up{connection=\"Tunnel10\"} 1\n"), "it has no BGP");
        }
    }

    #[test]
    fn what_sas_carried_that_are_gone_counts() {
        let carried = serde_json::json!({ "state": "up", "carried": {
            "packets_in": 1, "bytes_in": 100, "packets_out": 2, "bytes_out": 200, "dropped_in": { "replay": 3 },
        }});
        let text = write(&status(&[carried]));
        assert!(text.contains("simplon_tunnel_up{connection=\"Tunnel1\"} 1\n"));
        assert!(text.contains("simplon_tunnel_receive_bytes_total{connection=\"Tunnel1\"} 100\n"));
        assert!(text.contains("simplon_tunnel_receive_drops_total{connection=\"Tunnel1\",reason=\"replay\"} 3\n"));
    }

    /// What `promtool check metrics` would say, as far as it matters.
    #[test]
    fn families_stand_together_are_described_once_and_named_by_kind() {
        let text = write(&status(&[serde_json::json!({}), serde_json::json!({ "name": "a \"b\"\n" })]));
        let mut described = BTreeMap::new();
        let mut current = "";
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                current = help.split(' ').next().unwrap();
                assert!(!help.ends_with('.') && help.contains(' '), "{line}");
                assert!(described.insert(current, "").is_none(), "{current} is described twice");
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert_eq!(name, current);
                assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
            } else {
                let name = line.split(['{', ' ']).next().unwrap();
                assert_eq!(name, current, "a sample outside of its family: {line}");
                line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap();
            }
        }
        let samples: Vec<_> =
            text.lines().filter(|l| !l.starts_with('#')).map(|l| l.rsplit_once(' ').unwrap().0).collect();
        let unique: std::collections::BTreeSet<_> = samples.iter().collect();
        assert_eq!(samples.len(), unique.len(), "a series twice");
    }
}
