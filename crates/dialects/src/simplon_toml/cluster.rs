//! The table `[cluster]`: from a document to the model, and back.

use std::net::SocketAddr;

use model::{Cluster, SharedAddress};

use super::cursor::Value;
use super::read::{list, secret};
use super::write::{Out, array, psk, shown, time};
use crate::Files;

pub(super) const CLUSTER: &[&str] =
    &["member", "psk", "local", "peer", "shared", "preference", "preempt", "interval", "dead-after"];

pub(super) fn cluster(entry: Value<'_>, files: &dyn Files) -> Option<Cluster> {
    let table = entry.table()?.knowing(CLUSTER);
    let mut cluster = Cluster { source: Some(entry.key_place().source()), ..Cluster::default() };
    let sockets = |value: Value<'_>| list(value, |item| item.parsed(parse_socket));
    table.set("member", &mut cluster.member, |value| value.number(1..2));
    table.set("psk", &mut cluster.psk, |value| secret(value, files));
    table.set("local", &mut cluster.local, sockets);
    table.set("peer", &mut cluster.peer, sockets);
    table.set("shared", &mut cluster.shared, |value| list(value, |item| item.parsed(str::parse::<SharedAddress>)));
    table.set("preference", &mut cluster.preference, |value| value.number(0..u8::MAX.into()));
    table.set("preempt", &mut cluster.preempt, Value::flag);
    table.set("interval", &mut cluster.interval, Value::duration);
    table.set("dead-after", &mut cluster.dead_after, Value::duration);
    Some(cluster)
}

fn parse_socket(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is no address with a port, such as \"192.0.2.1:4600\""))
}

pub(super) fn write_cluster(out: &mut Out, cluster: &Cluster, secrets: bool) {
    let default = Cluster::default();
    out.table(&["cluster"]);
    out.line(&format!("member = {}", cluster.member));
    out.line(&if secrets { format!("psk = {}", psk(&cluster.psk)) } else { "# psk = …".to_owned() });
    out.set("local", &cluster.local, &default.local, |all| array(all, shown));
    out.set("peer", &cluster.peer, &default.peer, |all| array(all, shown));
    out.set("shared", &cluster.shared, &default.shared, |all| array(all, shown));
    out.set("preference", &cluster.preference, &default.preference, u8::to_string);
    out.set("preempt", &cluster.preempt, &default.preempt, bool::to_string);
    out.set("interval", &cluster.interval, &default.interval, time);
    out.set("dead-after", &cluster.dead_after, &default.dead_after, time);
}
