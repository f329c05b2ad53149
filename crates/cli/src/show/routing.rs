//! `simplon show vpn`, `bgp` and `bfd`.

use gateway::status::routing::{BfdStatus, BgpStatus, NeighborStatus, ProbeStatus, TunnelStatus, VpnStatus};
use gateway::status::{Status, short_duration};

use crate::table::{Lines, aligned};

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

/// The VPN connections of several tunnels: which tunnel carries traffic, since when, and why.
pub(crate) fn vpns(status: &Status) -> String {
    if status.vpns.is_empty() {
        return "no VPN connections of several tunnels\n".to_owned();
    }
    status.vpns.iter().map(vpn).collect::<Vec<_>>().join("\n")
}

fn vpn(vpn: &VpnStatus) -> String {
    let mut out = Lines::default();
    let (since, mode) = (short_duration(vpn.for_s), vpn.mode.replace('_', "/"));
    out.title(0, &format!("VPN {}: {} for {since}, {mode}", vpn.name, vpn.state));
    let over = if vpn.active.is_empty() { "no tunnel".to_owned() } else { vpn.active.join(", ") };
    out.line(2, "traffic over", &format!("{over} for {}: {}", short_duration(vpn.active_for_s), vpn.why));
    if !vpn.routes.is_empty() {
        out.line(2, "static routes", &vpn.routes.join(", "));
    }
    let mut rows = vec![row(["  TUNNEL", "DEVICE", "HEALTH", "FOR", "BFD", "PROBE", "WHY"])];
    rows.extend(vpn.tunnels.iter().map(tunnel));
    out.finish() + &aligned(&rows)
}

fn tunnel(tunnel: &TunnelStatus) -> Vec<String> {
    let health = match tunnel {
        TunnelStatus { is_draining: true, .. } => "draining",
        TunnelStatus { is_drained: true, .. } => "drained",
        TunnelStatus { is_drained_by_peer: true, .. } => "drained by peer",
        TunnelStatus { is_healthy: true, .. } => "healthy",
        TunnelStatus { is_healthy: false, .. } => "unhealthy",
    };
    vec![
        format!("  {}/{}", tunnel.connection, tunnel.child),
        tunnel.device.clone(),
        health.to_owned(),
        short_duration(tunnel.for_s),
        tunnel.bfd.clone().unwrap_or_else(|| "-".to_owned()),
        tunnel.probe.as_ref().map_or_else(|| "-".to_owned(), probe),
        tunnel.why.clone(),
    ]
}

fn probe(probe: &ProbeStatus) -> String {
    let rtt = probe.median_rtt_us.map_or("no answer yet".to_owned(), milliseconds);
    format!("{} {rtt}, lost {} of {}", probe.target, probe.lost, probe.sent)
}

fn milliseconds(us: u64) -> String {
    format!("{}.{:03} ms", us / 1_000, us % 1_000)
}

/// The speaker and a line for each neighbour, as `show ip bgp summary` has it; then each neighbour.
pub(super) fn bgp(status: &Status) -> String {
    let Some(bgp) = &status.bgp else { return "BGP is not configured\n".to_owned() };
    let neighbors: Vec<String> = bgp.neighbors.iter().map(neighbor).collect();
    [vec![summary(bgp)], neighbors].concat().join("\n")
}

fn summary(bgp: &BgpStatus) -> String {
    let mut text = format!("BGP router identifier {}, local AS number {}\n", bgp.router_id, bgp.asn);
    text += &format!("{} prefixes, {} paths\n\n", bgp.prefixes, bgp.paths);
    let heading = ["NEIGHBOR", "AS", "MSGRCVD", "MSGSENT", "UP/DOWN", "STATE", "PFXRCD", "PFXSNT", "BFD", "TUNNEL"];
    let mut rows = vec![row(heading)];
    rows.extend(bgp.neighbors.iter().map(|n| {
        vec![
            n.address.clone(),
            n.remote_as.to_string(),
            n.messages_in.to_string(),
            n.messages_out.to_string(),
            short_duration(n.for_s),
            n.state.clone(),
            n.prefixes_received.to_string(),
            n.prefixes_sent.to_string(),
            n.bfd.clone().unwrap_or_else(|| "-".to_owned()),
            n.tunnel.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    }));
    text + &aligned(&rows)
}

fn neighbor(n: &NeighborStatus) -> String {
    let mut out = Lines::default();
    let kind = if n.remote_as == n.local_as { "internal" } else { "external" };
    out.title(0, &format!("BGP neighbor {}, remote AS {}, local AS {}, {kind}", n.address, n.remote_as, n.local_as));
    out.line(2, "state", &format!("{} for {}", n.state, short_duration(n.for_s)));
    out.line(2, "router identifier", n.router_id.as_deref().unwrap_or("not heard yet"));
    let seconds = |time: Option<u64>| time.map_or("-".to_owned(), |s| format!("{s} s"));
    out.line(2, "timers", &format!("hold {}, keepalive {}", seconds(n.hold_s), seconds(n.keepalive_s)));
    let capabilities = if n.capabilities.is_empty() { "none".to_owned() } else { n.capabilities.join(", ") };
    out.line(2, "capabilities", &capabilities);
    let messages = format!("received {}, sent {}", n.messages_in, n.messages_out);
    out.line(2, "messages", &format!("{messages}; updates received {}, sent {}", n.updates_in, n.updates_out));
    let limit = n.max_prefixes.map(|most| format!(" of at most {most}")).unwrap_or_default();
    let (received, accepted, sent) = (n.prefixes_received, n.prefixes_accepted, n.prefixes_sent);
    out.line(2, "prefixes", &format!("received {received}{limit}, accepted {accepted}, sent {sent}"));
    out.line(2, "tunnel", n.tunnel.as_deref().unwrap_or("none"));
    out.line(2, "BFD", n.bfd.as_deref().unwrap_or("not used"));
    if n.is_drained {
        out.line(2, "drained", "yes: neighbours are asked to take other ways (RFC 8326)");
    }
    out.line(2, "connections dropped", &n.flaps.to_string());
    if let Some(error) = &n.last_error {
        let ago = n.last_error_ago_s.map(|s| format!("{} ago: ", short_duration(s))).unwrap_or_default();
        out.line(2, "last error", &format!("{ago}{error}"));
    }
    out.finish()
}

/// The BFD sessions.
pub(super) fn bfd(status: &Status) -> String {
    if status.bfd.is_empty() {
        return "no BFD sessions\n".to_owned();
    }
    status.bfd.iter().map(session).collect::<Vec<_>>().join("\n")
}

fn session(s: &BfdStatus) -> String {
    let mut out = Lines::default();
    let since = short_duration(s.for_s);
    out.title(0, &format!("BFD neighbor {}: {} for {since}", s.remote, s.state));
    out.line(2, "local address", &format!("{} on {}", s.local, s.device.as_deref().unwrap_or("any device")));
    out.line(2, "remote state", &s.remote_state);
    let theirs = s.remote_discriminator.map_or("not heard yet".to_owned(), |number| number.to_string());
    out.line(2, "discriminators", &format!("local {}, remote {theirs}", s.local_discriminator));
    let ms = |time: Option<u64>| time.map_or("-".to_owned(), |ms| format!("{ms} ms"));
    let (transmit, receive, detection) = (s.transmit_interval_ms, s.receive_interval_ms, s.detection_ms);
    out.line(2, "intervals", &format!("transmit {}, receive {}", ms(transmit), ms(receive)));
    out.line(2, "detection time", &ms(detection));
    out.line(2, "diagnostics", &format!("local {}, remote {}", s.last_diagnostic, s.remote_diagnostic));
    out.line(2, "packets", &format!("sent {}, received {}, discarded {}", s.sent, s.received, s.discarded));
    out.line(2, "times down", &s.flaps.to_string());
    out.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        let tunnel = |connection: &str, is_healthy: bool| {
            serde_json::json!({
                "connection": connection, "child": "net", "device": "vti1", "is_healthy": is_healthy, "for_s": 600,
                "why": "its probe is answered", "is_drained": false, "is_draining": false, "bfd": "up",
                "probe": { "target": "169.254.1.1", "sent": 60, "answered": 59, "lost": 1, "last_rtt_us": 1_250,
                           "least_rtt_us": 900, "median_rtt_us": 1_025 },
            })
        };
        let vpn = serde_json::json!({
            "name": "aws", "state": "up", "for_s": 7_200, "mode": "active_standby", "active": ["Tunnel2/net"],
            "active_for_s": 60, "why": "Tunnel1/net: BFD is down", "routes": ["172.31.0.0/16"],
            "tunnels": [tunnel("Tunnel1", false), tunnel("Tunnel2", true)],
        });
        let neighbor = serde_json::json!({
            "address": "169.254.123.133", "remote_as": 64512, "local_as": 65000, "tunnel": "Tunnel1/net",
            "state": "established", "for_s": 397, "last_error": "hold timer expired", "last_error_ago_s": 400,
            "router_id": "169.254.123.133", "hold_s": 30, "keepalive_s": 10,
            "capabilities": ["route refresh", "4-octet AS"], "messages_in": 41, "messages_out": 42, "updates_in": 2,
            "updates_out": 1, "prefixes_received": 3, "prefixes_accepted": 2, "prefixes_sent": 1,
            "max_prefixes": 100, "flaps": 5, "is_drained": false, "bfd": "up",
        });
        let bfd = serde_json::json!({
            "local": "169.254.123.134", "remote": "169.254.123.133", "device": "vti1", "state": "up", "for_s": 390,
            "remote_state": "up", "last_diagnostic": "none", "remote_diagnostic": "none",
            "local_discriminator": 7, "remote_discriminator": 9, "transmit_interval_ms": 300,
            "receive_interval_ms": 300, "detection_ms": 900, "sent": 1000, "received": 999, "discarded": 1,
            "flaps": 2,
        });
        let empty = serde_json::to_value(Status::default()).unwrap();
        let mut whole = empty;
        whole["vpns"] = serde_json::json!([vpn]);
        whole["bfd"] = serde_json::json!([bfd]);
        whole["bgp"] = serde_json::json!({
            "asn": 65000, "router_id": "192.168.2.1", "prefixes": 2, "paths": 3, "neighbors": [neighbor],
        });
        serde_json::from_value(whole).unwrap()
    }

    #[test]
    fn a_vpn_says_over_which_tunnel_traffic_goes_since_when_and_why() {
        let expected = "\
VPN aws: up for 2h00m, active/standby
  traffic over            Tunnel2/net for 1m00s: Tunnel1/net: BFD is down
  static routes           172.31.0.0/16
  TUNNEL       DEVICE  HEALTH     FOR     BFD  PROBE                                WHY
  Tunnel1/net  vti1    unhealthy  10m00s  up   169.254.1.1 1.025 ms, lost 1 of 60   its probe is answered
  Tunnel2/net  vti1    healthy    10m00s  up   169.254.1.1 1.025 ms, lost 1 of 60   its probe is answered
";
        let squeezed = |text: &str| text.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
        assert_eq!(squeezed(&vpns(&status())), squeezed(expected));
    }

    #[test]
    fn a_neighbor_has_its_line_in_the_summary_and_its_details() {
        let text = bgp(&status());
        assert!(text.starts_with("BGP router identifier 192.168.2.1, local AS number 65000\n2 prefixes, 3 paths\n"));
        let line = text.lines().find(|line| line.starts_with("169.254.123.133")).unwrap();
        let words: Vec<_> = line.split_whitespace().collect();
        let expected = ["169.254.123.133", "64512", "41", "42", "6m37s", "established", "3", "1", "up", "Tunnel1/net"];
        assert_eq!(words, expected);
        for words in [
            "remote AS 64512, local AS 65000, external",
            "hold 30 s, keepalive 10 s",
            "received 3 of at most 100, accepted 2, sent 1",
            "6m40s ago: hold timer expired",
            "route refresh, 4-octet AS",
        ] {
            assert!(text.contains(words), "{words} in {text}");
        }
        assert_eq!(bgp(&Status::default()), "BGP is not configured\n");
    }

    #[test]
    fn a_bfd_session_says_its_intervals_and_counters() {
        let text = bfd(&status());
        for words in [
            "BFD neighbor 169.254.123.133: up for 6m30s",
            "169.254.123.134 on vti1",
            "local 7, remote 9",
            "transmit 300 ms, receive 300 ms",
            "900 ms",
            "sent 1000, received 999, discarded 1",
        ] {
            assert!(text.contains(words), "{words} in {text}");
        }
    }
}
