//! `simplon status --detail`: everything that is known, line by line. Each counter that `show crypto` of an ASA has, has
//! its equal here; docs/book/status.md puts them side by side.

use gateway::status::{
    ChildStatus, ConnectionStatus, DataPathCounters, GatewayStatus, IkeStatus, SaStatus, Status, Traffic,
    short_duration,
};

use crate::orders::explain;
use crate::table::{Lines, bytes, counts};

/// Everything.
pub(crate) fn show(status: &Status) -> String {
    let mut out = Lines::default();
    let data_path = status.gateway.data_path.clone().unwrap_or_default();
    for connection in &status.connections {
        show_connection(connection, &data_path, &mut out);
        out.title(0, "");
    }
    show_gateway(&status.gateway, &data_path, &mut out);
    out.finish()
}

fn show_connection(connection: &ConnectionStatus, data_path: &DataPathCounters, out: &mut Lines) {
    let since = short_duration(connection.for_s);
    out.title(0, &format!("{}: {} for {since}: {}", connection.name, connection.state, connection.why));
    out.line(2, "versions", &connection.versions.join(", "));
    out.line(2, "ends", &format!("{} - {}", connection.local, connection.remote));
    if !connection.weak.is_empty() {
        out.line(2, "weak algorithms", &format!("{} (named by the configuration)", connection.weak.join(", ")));
    }
    if let Some(again) = connection.retry_in_s {
        out.line(2, "tried again in", &short_duration(again));
    }
    if let Some(failure) = &connection.last_failure {
        out.title(2, &explain(&connection.name, failure, true).replace('\n', "\n  "));
    }
    show_ike(&connection.ike_sas, out);
    for child in &connection.children {
        show_child(child, connection, data_path, out);
    }
    let c = &connection.carried;
    let (sent, arrived) = (bytes(c.bytes_out), bytes(c.bytes_in));
    let text = format!("packets out {} ({sent}), packets in {} ({arrived})", c.packets_out, c.packets_in);
    out.line(2, "by SAs that are gone", &text);
    if !connection.history.is_empty() {
        out.title(2, "history");
        for entry in &connection.history {
            out.line(4, &format!("{} ago", short_duration(entry.ago_s)), &entry.text);
        }
    }
}

fn show_ike(sas: &[IkeStatus], out: &mut Lines) {
    let count = |state: &str| sas.iter().filter(|sa| sa.state == state).count();
    let (active, rekeying) = (count("established"), count("rekeying"));
    out.line(2, "IKE SAs", &format!("active {active}, rekeying {rekeying}, total {}", sas.len()));
    for sa in sas {
        let id = |id: &Option<String>| id.clone().unwrap_or_else(|| "not known yet".to_owned());
        let weak = if sa.is_weak { " (weak)" } else { "" };
        let rekeyed = if sa.state == "rekeying" { "yes" } else { "no" };
        out.title(2, &format!("IKE SA {} {}", sa.initiator_spi, sa.responder_spi));
        out.line(4, "type, role", &format!("L2L, {}", sa.role));
        out.line(4, "state", &format!("{} ({}, {}), rekey {rekeyed}", sa.state_name, sa.version, sa.state));
        out.line(4, "local", &format!("{} as {}{}", sa.local, id(&sa.local_id), nat(sa.nat_local)));
        out.line(4, "peer", &format!("{} as {}{}", sa.remote, id(&sa.remote_id), nat(sa.nat_remote)));
        out.line(4, "suite", &format!("{}{weak}", sa.suite));
        out.line(4, "timing", &timing(sa.age_s, sa.rekey_in_s, sa.expires_in_s));
    }
}

fn nat(is_there: bool) -> &'static str {
    if is_there { ", behind NAT" } else { "" }
}

fn timing(age: Option<u64>, rekey: Option<u64>, end: Option<u64>) -> String {
    let text = |name: &str, at: Option<u64>| at.map(|s| format!("{name} {} ({s} s)", short_duration(s)));
    let parts = [text("age", age), text("rekey in", rekey), text("remaining", end)];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn show_child(child: &ChildStatus, connection: &ConnectionStatus, data_path: &DataPathCounters, out: &mut Lines) {
    let how = match &child.device {
        Some(device) => format!("route-based, device {device}"),
        None => "policy-based".to_owned(),
    };
    out.title(2, &format!("child {} ({how}, start {})", child.name, child.start));
    out.line(4, "local traffic", &child.local.join(", "));
    out.line(4, "remote traffic", &child.remote.join(", "));
    let df = if child.df == "clear" { "clear-df" } else { "copy-df" };
    out.line(4, "DF policy", &format!("{df} ({})", child.df));
    if child.sas.is_empty() {
        out.line(4, "SAs", "none: matching packets are dropped, not sent in clear");
    }
    for sa in &child.sas {
        show_sa(sa, child, connection, data_path, out);
    }
}

fn show_sa(
    sa: &SaStatus,
    child: &ChildStatus,
    connection: &ConnectionStatus,
    data_path: &DataPathCounters,
    out: &mut Lines,
) {
    let rekeyed = if sa.state == "rekeyed" { ", Rekeyed" } else { "" };
    let version = connection.ike_sas.first().map_or("", |ike| ike.version.as_str());
    let pfs = sa.pfs.as_ref().map_or("no PFS".to_owned(), |group| format!("PFS {group}"));
    let weak = if sa.is_weak { " (weak)" } else { "" };
    let esn = if sa.esn { "64-bit" } else { "32-bit" };
    out.title(4, &format!("SA {} of {}", sa.id, child.name));
    out.line(6, "state", &format!("{} {{L2L, Tunnel, {pfs}, {version}{rekeyed}}}", sa.state));
    out.line(6, "SPIs", &format!("inbound 0x{}, outbound 0x{}", sa.inbound_spi, sa.outbound_spi));
    out.line(6, "suite", &format!("{}{weak}, IV {} bytes, {esn} sequence numbers", sa.suite, sa.iv_bytes));
    out.line(6, "traffic agreed", &format!("{} <-> {}", sa.local.join(", "), sa.remote.join(", ")));
    out.line(6, "crypto endpoints", &format!("local {}, remote {}", sa.local_endpoint, sa.remote_endpoint));
    let encapsulation = if sa.encapsulation == "udp" { "ESP in UDP" } else { "ESP (IP protocol 50)" };
    out.line(6, "encapsulation", encapsulation);
    let from = match (sa.outer_mtu_probed_ago_s, &sa.outer_mtu_unprobed) {
        (Some(ago), _) => format!("{} {} ago", sa.outer_mtu_from, short_duration(ago)),
        (None, Some(why)) => format!("{}: {why}", sa.outer_mtu_from),
        (None, None) => sa.outer_mtu_from.clone(),
    };
    let mtu = format!(
        "inner {} ({}), path {} ({from}), media {}, overhead {}, TCP MSS {}",
        sa.mtu, sa.mtu_from, sa.outer_mtu, sa.outer_mtu, sa.overhead, sa.mss
    );
    out.line(6, "MTU", &mtu);
    out.line(6, "timing", &timing(Some(sa.age_s), sa.rekey_in_s, sa.expires_in_s));
    let none = Traffic::default();
    show_traffic(sa, sa.traffic.as_ref().unwrap_or(&none), data_path, out);
}

fn show_traffic(sa: &SaStatus, traffic: &Traffic, data_path: &DataPathCounters, out: &mut Lines) {
    let (sent, arrived) = (&traffic.outbound, &traffic.inbound);
    let n = sent.packets;
    out.line(6, "packets out", &format!("encapsulated {n}, encrypted {n}, digested {n} ({})", bytes(sent.bytes)));
    let n = arrived.packets;
    out.line(6, "packets in", &format!("decapsulated {n}, decrypted {n}, verified {n} ({})", bytes(arrived.bytes)));
    out.line(6, "compression", &format!("compressed 0, decompressed 0, not compressed {}, failed 0", sent.packets));
    let (ok, failed, made) = (traffic.fragmented, traffic.fragmentation_failed, traffic.fragments_created);
    out.line(6, "fragmented before ESP", &format!("packets {ok}, failed {failed}, fragments created {made}"));
    let (told, heard) = (traffic.too_big_sent, traffic.path_mtu_received);
    out.line(6, "path MTUs", &format!("sent {told}, received {heard}"));
    out.line(6, "inner fragments", &format!("decapsulated {}", traffic.inner_fragments));
    out.line(6, "TFC", &format!("received {}, sent 0", traffic.dummies_received));
    let (valid, invalid) = (data_path.valid_icmp_errors, data_path.invalid_icmp_errors);
    out.line(6, "ICMP errors", &format!("valid {valid}, invalid {invalid} (whole gateway)"));
    let (send, receive) = (data_path.send_errors, data_path.receive_errors);
    out.line(6, "I/O errors", &format!("send {send}, receive {receive} (whole gateway)"));
    out.line(6, "dropped out", &counts(&sent.dropped));
    out.line(6, "dropped in", &counts(&arrived.dropped));
    out.line(6, "replay protection", &format!("window {}, sent up to {}", sa.replay_window, traffic.sequence_sent));
    let bitmap = format!("0x{:08x} 0x{:08x}", traffic.replay_bitmap >> 32, traffic.replay_bitmap & 0xffff_ffff);
    out.line(6, "replay bitmap", &format!("{bitmap} below {}", traffic.sequence_received));
    if let Some(idle) = traffic.idle_s {
        out.line(6, "last packet in", &format!("{} ago", short_duration(idle)));
    }
}

fn show_gateway(gateway: &GatewayStatus, data_path: &DataPathCounters, out: &mut Lines) {
    let ike = &gateway.ike;
    let up = short_duration(gateway.uptime_s);
    out.title(0, &format!("gateway: up {up}, UDP ports {} and {}", gateway.ike_port, gateway.natt_port));
    if !gateway.cut_off.is_empty() {
        out.line(2, "cut off", &gateway.cut_off.join(", "));
    }
    let messages = format!(
        "received {}, sent {}, sent again {}, answered again {}",
        ike.received, ike.sent, ike.retransmitted, ike.answered_again
    );
    out.line(2, "IKE messages", &messages);
    let sas = format!(
        "established {}, failed {}, rekeyed {}, half-open {}, cookies asked for {}",
        ike.established, ike.failed, ike.ike_rekeys, ike.half_open, ike.cookies_sent
    );
    out.line(2, "IKE SAs", &sas);
    out.line(2, "Child SAs", &format!("rekeyed {}", ike.child_rekeys));
    out.line(2, "IKE dropped", &counts(&ike.dropped));
    let told = format!("{}; senders told {}", counts(&data_path.dropped), data_path.unreachable_sent);
    out.line(2, "packets without an SA", &told);
}
