//! `simplon show ipsec-sa`.

use gateway::status::{ChildStatus, ConnectionStatus, DataPathCounters, SaStatus, Status, Traffic, short_duration};
use serde::Serialize;

use super::state;
use crate::table::{Lines, bytes, counts};

/// A Child SA, with what is known of its child and connection. A child without one has an entry, too.
#[derive(Debug, Serialize)]
pub(super) struct Row<'a> {
    connection: &'a str,
    child: &'a str,
    /// The TUN device, where it has one of its own.
    device: Option<&'a str>,
    df: &'a str,
    version: Option<&'a str>,
    sa: Option<&'a SaStatus>,
    /// Of the whole gateway: what they are about does not say which SA.
    errors: Option<Errors>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Errors {
    send_errors: u64,
    receive_errors: u64,
    valid_icmp_errors: u64,
    invalid_icmp_errors: u64,
}

fn errors(status: &Status) -> Option<Errors> {
    let data_path = status.gateway.data_path.as_ref()?;
    let DataPathCounters { send_errors, receive_errors, valid_icmp_errors, invalid_icmp_errors, .. } = *data_path;
    Some(Errors { send_errors, receive_errors, valid_icmp_errors, invalid_icmp_errors })
}

pub(super) fn rows(status: &Status) -> Vec<Row<'_>> {
    let mut rows = Vec::new();
    for connection in &status.connections {
        for child in &connection.children {
            let row = |sa| Row {
                connection: &connection.name,
                child: &child.name,
                device: child.device.as_deref(),
                df: &child.df,
                version: version(connection),
                sa,
                errors: errors(status),
            };
            rows.extend(child.sas.iter().map(|sa| row(Some(sa))));
            if child.sas.is_empty() {
                rows.push(row(None));
            }
        }
    }
    rows
}

fn version(connection: &ConnectionStatus) -> Option<&str> {
    connection.ike_sas.first().map(|sa| sa.version.as_str())
}

pub(super) fn text(status: &Status) -> String {
    let mut out = Lines::default();
    let children = || status.connections.iter().flat_map(|c| &c.children);
    let sas: Vec<_> = children().flat_map(|child| &child.sas).collect();
    let rekeyed = sas.iter().filter(|sa| sa.state == "rekeyed").count();
    let (configured, all) = (children().count(), sas.len());
    out.title(
        0,
        &format!("IPsec SAs: {configured} configured, {all} in pairs, {} active, {rekeyed} rekeyed", all - rekeyed),
    );
    let none = DataPathCounters::default();
    let data_path = status.gateway.data_path.as_ref().unwrap_or(&none);
    for connection in &status.connections {
        for child in &connection.children {
            out.title(0, "");
            head(&mut out, connection, child);
            if child.sas.is_empty() {
                out.line(2, "SAs", &format!("none; {}", state(connection)));
            }
            child.sas.iter().for_each(|sa| one(&mut out, connection, sa, data_path));
        }
    }
    out.finish()
}

fn head(out: &mut Lines, connection: &ConnectionStatus, child: &ChildStatus) {
    let interface = child.device.as_deref().unwrap_or("simplon0, policy-based");
    out.title(0, &format!("{}/{}: interface {interface}", connection.name, child.name));
    out.line(2, "local ident", &child.local.join(", "));
    out.line(2, "remote ident", &child.remote.join(", "));
    out.line(2, "ends", &format!("{} - {}", connection.local, connection.remote));
    let df = if child.df == "clear" { "clear-df" } else { "copy-df" };
    out.line(2, "DF policy", &format!("{df}; TFC packets are not sent, ICMP errors are counted and not believed"));
}

fn one(out: &mut Lines, connection: &ConnectionStatus, sa: &SaStatus, data_path: &DataPathCounters) {
    let none = Traffic::default();
    let traffic = sa.traffic.as_ref().unwrap_or(&none);
    let pfs = sa.pfs.as_ref().map_or("no PFS".to_owned(), |group| format!("PFS {group}"));
    let rekeyed = if sa.state == "rekeyed" { ", Rekeyed" } else { "" };
    let weak = if sa.is_weak { " (weak)" } else { "" };
    out.title(2, &format!("conn id {}: {}", sa.id, sa.state));
    let in_use = format!("{{L2L, Tunnel, {pfs}, {}{rekeyed}}}", version(connection).unwrap_or("-"));
    out.line(4, "in use settings", &in_use);
    out.line(4, "traffic agreed", &format!("{} <-> {}", sa.local.join(", "), sa.remote.join(", ")));
    let encapsulation = if sa.encapsulation == "udp" { "ESP in UDP" } else { "ESP (IP protocol 50)" };
    out.line(4, "mode", &format!("tunnel, {}, {encapsulation}", families(sa)));
    out.line(4, "crypto endpoints", &format!("local {}, remote {}", sa.local_endpoint, sa.remote_endpoint));
    out.line(4, "interface MTU", &format!("{} ({}), TCP MSS {}", sa.mtu, sa.mtu_from, sa.mss));
    let ago = sa.outer_mtu_probed_ago_s.map(|s| format!(", {} ago", short_duration(s))).unwrap_or_default();
    let why_not = sa.outer_mtu_unprobed.as_ref().map(|why| format!("; not probed: {why}")).unwrap_or_default();
    let path = format!("{} ({}{ago}{why_not}), media {}", sa.outer_mtu, sa.outer_mtu_from, sa.outer_mtu);
    out.line(4, "path MTU", &format!("{path}, overhead {}; probed again by itself", sa.overhead));
    let seconds = |at: Option<u64>| at.map_or("-".to_owned(), |s| format!("{s} s ({})", short_duration(s)));
    let timing = format!("{} left, rekey in {}", seconds(sa.expires_in_s), seconds(sa.rekey_in_s));
    out.line(4, "remaining lifetime", &format!("{timing}, age {}", seconds(Some(sa.age_s))));
    counters(out, sa, traffic, data_path);
    let esn = if sa.esn { "64-bit" } else { "32-bit" };
    let transform = format!("{}{weak}, IV {} bytes, no compression", sa.suite, sa.iv_bytes);
    out.title(4, "inbound");
    out.line(6, "SPI", &spi(&sa.inbound_spi));
    out.line(6, "transform", &transform);
    let window =
        format!("on, window {}, {esn} sequence numbers, highest {}", sa.replay_window, traffic.sequence_received);
    out.line(6, "replay detection", &window);
    let bitmap = format!("0x{:08x} 0x{:08x}", traffic.replay_bitmap >> 32, traffic.replay_bitmap & 0xffff_ffff);
    out.line(6, "anti replay bitmap", &bitmap);
    out.line(6, "dropped", &counts(&traffic.inbound.dropped));
    out.title(4, "outbound");
    out.line(6, "SPI", &spi(&sa.outbound_spi));
    out.line(6, "transform", &transform);
    out.line(6, "sequence", &format!("{esn} sequence numbers, last {}", traffic.sequence_sent));
    out.line(6, "dropped", &counts(&traffic.outbound.dropped));
}

fn counters(out: &mut Lines, sa: &SaStatus, traffic: &Traffic, data_path: &DataPathCounters) {
    let (n, size) = (traffic.outbound.packets, bytes(traffic.outbound.bytes));
    out.line(4, "# encaps", &format!("{n}, encrypt {n}, digest {n} ({size})"));
    let (n, size) = (traffic.inbound.packets, bytes(traffic.inbound.bytes));
    out.line(4, "# decaps", &format!("{n}, decrypt {n}, verify {n} ({size})"));
    let n = traffic.outbound.packets;
    out.line(
        4,
        "# compression",
        &format!("compressed 0, decompressed 0, not compressed {n}, comp failed 0, decomp failed 0"),
    );
    let (fragmented, failed) = (traffic.fragmented, traffic.fragmentation_failed);
    let made = traffic.fragments_created;
    out.line(4, "# pre-frag", &format!("successes {fragmented}, failures {failed}, fragments created {made}"));
    let (sent, received, inner) = (traffic.too_big_sent, traffic.path_mtu_received, traffic.inner_fragments);
    out.line(4, "# PMTUs", &format!("sent {sent}, received {received}; inner fragments {inner}"));
    out.line(4, "# TFC", &format!("received {}, sent 0", traffic.dummies_received));
    let (send, receive) = (data_path.send_errors, data_path.receive_errors);
    out.line(4, "# errors", &format!("send {send}, receive {receive} (whole gateway)"));
    let (valid, invalid) = (data_path.valid_icmp_errors, data_path.invalid_icmp_errors);
    out.line(4, "# ICMP errors", &format!("valid {valid}, invalid {invalid} (whole gateway)"));
    let idle = traffic.idle_s.map_or("never".to_owned(), |s| format!("{} ago", short_duration(s)));
    out.line(4, "last packet in", &idle);
    if sa.traffic.is_none() {
        out.line(4, "counters", "the data path did not say them");
    }
}

/// An SPI in both notations.
fn spi(hexadecimal: &str) -> String {
    let number = u32::from_str_radix(hexadecimal, 16).map_or_else(|_| "?".to_owned(), |spi| spi.to_string());
    format!("0x{hexadecimal} ({number})")
}

/// Which versions of IP are inside and outside.
fn families(sa: &SaStatus) -> String {
    let inner = if sa.local.iter().any(|net| net.contains(':')) { "6" } else { "4" };
    let outer = if sa.local_endpoint.starts_with('[') { "6" } else { "4" };
    format!("{inner}-over-{outer}")
}
