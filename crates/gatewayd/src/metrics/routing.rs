//! The series of VPN connections of several tunnels, probes, BGP and BFD.

use gateway::status::Status;
use gateway::status::routing::{BfdStatus, NeighborStatus, ProbeStatus, TunnelStatus, VpnStatus};

use super::text::{Kind, Text};

/// The states of a BGP session (RFC 4271 §8.2.2), in the order of their numbers in the BGP MIB (RFC 4273).
const BGP_STATES: [&str; 6] = ["idle", "connect", "active", "open_sent", "open_confirm", "established"];

/// Everything that routing knows. Without VPN connections, BGP or BFD nothing is written.
pub(super) fn write(text: &mut Text, status: &Status) {
    if !status.vpns.is_empty() {
        vpns(text, &status.vpns);
    }
    if let Some(bgp) = &status.bgp {
        text.one("simplon_bgp_prefixes", Kind::Gauge, "Prefixes that BGP knows", bgp.prefixes);
        text.one("simplon_bgp_paths", Kind::Gauge, "Paths that BGP knows", bgp.paths);
        neighbors(text, &bgp.neighbors);
    }
    if !status.bfd.is_empty() {
        bfd(text, &status.bfd);
    }
}

fn vpns(text: &mut Text, vpns: &[VpnStatus]) {
    text.family("simplon_vpn_up", Kind::Gauge, "Whether a VPN connection has a healthy tunnel");
    for vpn in vpns {
        text.sample(&[("vpn", &vpn.name)], vpn.state == "up");
    }
    let all = || vpns.iter().flat_map(|vpn| vpn.tunnels.iter().map(move |tunnel| (vpn, tunnel)));
    let mut each = |name, help: &str, value: &dyn Fn(&VpnStatus, &TunnelStatus) -> Option<f64>| {
        text.family(name, Kind::Gauge, help);
        for (vpn, tunnel) in all() {
            if let Some(value) = value(vpn, tunnel) {
                let labels = [("vpn", &*vpn.name), ("connection", &*tunnel.connection), ("child", &*tunnel.child)];
                text.sample(&labels, value);
            }
        }
    };
    let is_active = |vpn: &VpnStatus, t: &TunnelStatus| {
        let whole = format!("{}/{}", t.connection, t.child);
        vpn.active.iter().any(|name| *name == whole || *name == t.connection)
    };
    let flag = |is: bool| Some(f64::from(u8::from(is)));
    each("simplon_vpn_tunnel_healthy", "Whether a tunnel works, as what watches it says", &|_, t| flag(t.is_healthy));
    each("simplon_vpn_tunnel_active", "Whether a tunnel carries the traffic of static routes", &|vpn, t| {
        flag(is_active(vpn, t))
    });
    each("simplon_vpn_tunnel_drained", "Whether traffic is kept away by command", &|_, t| flag(t.is_drained));
    each("simplon_vpn_tunnel_rtt_seconds", "Median of the recent round trips of the probe", &|_, t| {
        Some(t.probe.as_ref()?.median_rtt_us? as f64 / 1e6)
    });
    let mut probes = |name, help: &str, count: fn(&ProbeStatus) -> u64| {
        text.family(name, Kind::Counter, help);
        for (vpn, tunnel) in all() {
            if let Some(probe) = &tunnel.probe {
                let labels = [("vpn", &*vpn.name), ("connection", &*tunnel.connection), ("child", &*tunnel.child)];
                text.sample(&labels, count(probe));
            }
        }
    };
    probes("simplon_vpn_probes_sent_total", "Probes sent", |probe| probe.sent);
    probes("simplon_vpn_probes_lost_total", "Probes that were not answered in time", |probe| probe.lost);
}

/// A family with a sample for each neighbour.
type OfNeighbor = (&'static str, Kind, &'static str, fn(&NeighborStatus) -> u64);

const NEIGHBORS: [OfNeighbor; 11] = [
    ("simplon_bgp_neighbor_up", Kind::Gauge, "Whether a BGP session is established", |n| {
        u64::from(n.state == "established")
    }),
    ("simplon_bgp_neighbor_state", Kind::Gauge, "The state of a BGP session, 1 (idle) to 6 (established)", |n| {
        BGP_STATES.iter().position(|state| *state == n.state).map_or(0, |place| place as u64 + 1)
    }),
    ("simplon_bgp_neighbor_state_seconds", Kind::Gauge, "Time that it has been in its state", |n| n.for_s),
    ("simplon_bgp_neighbor_prefixes_received", Kind::Gauge, "Prefixes it announces", |n| n.prefixes_received),
    ("simplon_bgp_neighbor_prefixes_accepted", Kind::Gauge, "Those that policy let through", |n| n.prefixes_accepted),
    ("simplon_bgp_neighbor_prefixes_sent", Kind::Gauge, "Prefixes announced to it", |n| n.prefixes_sent),
    ("simplon_bgp_neighbor_messages_received_total", Kind::Counter, "Messages received", |n| n.messages_in),
    ("simplon_bgp_neighbor_messages_sent_total", Kind::Counter, "Messages sent", |n| n.messages_out),
    ("simplon_bgp_neighbor_updates_received_total", Kind::Counter, "UPDATE messages received", |n| n.updates_in),
    ("simplon_bgp_neighbor_updates_sent_total", Kind::Counter, "UPDATE messages sent", |n| n.updates_out),
    ("simplon_bgp_neighbor_flaps_total", Kind::Counter, "Times that the session was lost", |n| n.flaps),
];

fn neighbors(text: &mut Text, neighbors: &[NeighborStatus]) {
    for (name, kind, help, value) in NEIGHBORS {
        text.family(name, kind, help);
        for n in neighbors {
            let (asn, tunnel) = (n.remote_as.to_string(), n.tunnel.as_deref().unwrap_or_default());
            text.sample(&[("neighbor", &n.address), ("remote_as", &asn), ("tunnel", tunnel)], value(n));
        }
    }
}

/// A family with a sample for each BFD session.
type OfSession = (&'static str, Kind, &'static str, fn(&BfdStatus) -> u64);

const SESSIONS: [OfSession; 5] = [
    ("simplon_bfd_session_up", Kind::Gauge, "Whether a BFD session is up", |s| u64::from(s.state == "up")),
    ("simplon_bfd_session_sent_total", Kind::Counter, "Control packets sent", |s| s.sent),
    ("simplon_bfd_session_received_total", Kind::Counter, "Control packets accepted", |s| s.received),
    ("simplon_bfd_session_discarded_total", Kind::Counter, "Control packets discarded", |s| s.discarded),
    ("simplon_bfd_session_flaps_total", Kind::Counter, "Times that the session left up", |s| s.flaps),
];

fn bfd(text: &mut Text, sessions: &[BfdStatus]) {
    for (name, kind, help, value) in SESSIONS {
        text.family(name, kind, help);
        for s in sessions {
            let device = s.device.as_deref().unwrap_or_default();
            text.sample(&[("local", &s.local), ("neighbor", &s.remote), ("device", device)], value(s));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vpn_its_tunnels_and_its_neighbors_have_their_series() {
        let mut whole = serde_json::to_value(Status::default()).unwrap();
        let tunnel = |connection: &str, median: Option<u64>| {
            serde_json::json!({
                "connection": connection, "child": "net", "device": "vti1", "is_healthy": true, "for_s": 1, "why": "",
                "is_drained": false, "is_draining": false, "bfd": null, "probe": { "target": "169.254.1.1", "sent": 9,
                "answered": 7, "lost": 2, "last_rtt_us": null, "least_rtt_us": null, "median_rtt_us": median },
            })
        };
        whole["vpns"] = serde_json::json!([{
            "name": "aws", "state": "up", "for_s": 1, "mode": "active_standby", "active": ["b/net"],
            "active_for_s": 1, "why": "", "routes": [], "tunnels": [tunnel("a", None), tunnel("b", Some(1_500))],
        }]);
        whole["bgp"] = serde_json::json!({ "asn": 65000, "router_id": "192.0.2.1", "prefixes": 2, "paths": 3,
            "neighbors": [{
                "address": "169.254.1.1", "remote_as": 64512, "local_as": 65000, "tunnel": null,
                "state": "established", "for_s": 3, "last_error": null, "last_error_ago_s": null, "router_id": null,
                "hold_s": null, "keepalive_s": null, "capabilities": [], "messages_in": 4, "messages_out": 5,
                "updates_in": 6, "updates_out": 7, "prefixes_received": 8, "prefixes_accepted": 9,
                "prefixes_sent": 10, "max_prefixes": null, "flaps": 11, "is_drained": false, "bfd": null,
            }],
        });
        let mut text = Text::default();
        write(&mut text, &serde_json::from_value(whole).unwrap());
        let text = text.finish();
        for line in [
            "simplon_vpn_up{vpn=\"aws\"} 1",
            "simplon_vpn_tunnel_active{vpn=\"aws\",connection=\"a\",child=\"net\"} 0",
            "simplon_vpn_tunnel_active{vpn=\"aws\",connection=\"b\",child=\"net\"} 1",
            "simplon_vpn_tunnel_rtt_seconds{vpn=\"aws\",connection=\"b\",child=\"net\"} 0.0015",
            "simplon_vpn_probes_lost_total{vpn=\"aws\",connection=\"a\",child=\"net\"} 2",
            "simplon_bgp_neighbor_state{neighbor=\"169.254.1.1\",remote_as=\"64512\",tunnel=\"\"} 6",
            "simplon_bgp_neighbor_prefixes_accepted{neighbor=\"169.254.1.1\",remote_as=\"64512\",tunnel=\"\"} 9",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        assert!(!text.contains("rtt_seconds{vpn=\"aws\",connection=\"a\""), "what was not measured has no sample");
        assert!(!text.contains("simplon_bfd"));
    }
}
