//! From the model to a document. What is as by default is left out.

use std::fmt::Write;

use base::Secret;
use model::{
    Address, Child, Config, Connection, EspProposal, GatewayOptions, Identity, IkeLifetime, IkeProposal, Lifetime,
    Ports, Routing, Side, Tries,
};

use super::cluster::write_cluster;
use super::read::{ACTIONS, DF_POLICIES, ENCAPSULATIONS, LOG_FORMATS, STARTS, UNIQUENESSES, VERSIONS};
use super::routing::{write_bgp, write_vpn};
use crate::encoding::to_hex;
use crate::units::write_duration;

/// Writes `config` without its keys: a comment stands where each belongs.
pub fn write(config: &Config) -> String {
    document(config, false)
}

/// Writes `config` with its keys. The result is a secret as a whole: whoever asks for it keeps it out of logs and
/// writes it only to a file that no one else reads.
pub fn write_with_secrets(config: &Config) -> String {
    document(config, true)
}

fn document(config: &Config, secrets: bool) -> String {
    let mut out = Out(String::new());
    gateway(&mut out, &config.gateway);
    for one in &config.connections {
        connection(&mut out, one, secrets);
    }
    for one in &config.vpns {
        write_vpn(&mut out, one);
    }
    if let Some(bgp) = &config.bgp {
        write_bgp(&mut out, bgp, secrets);
    }
    if let Some(cluster) = &config.cluster {
        write_cluster(&mut out, cluster, secrets);
    }
    out.0
}

pub(super) struct Out(String);

impl Out {
    pub(super) fn table(&mut self, path: &[&str]) {
        let path: Vec<_> = path.iter().map(|part| key(part)).collect();
        let blank = if self.0.is_empty() { "" } else { "\n" };
        self.line(&format!("{blank}[{}]", path.join(".")));
    }

    pub(super) fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    /// `key = value`, unless the value is the default.
    pub(super) fn set<T: PartialEq>(&mut self, key: &str, value: &T, default: &T, written: impl FnOnce(&T) -> String) {
        if value != default {
            self.line(&format!("{key} = {}", written(value)));
        }
    }
}

/// A key, bare where TOML allows it.
pub(super) fn key(text: &str) -> String {
    let bare = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    if bare { text.to_owned() } else { quote(text) }
}

/// A basic string of one line.
pub(super) fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

pub(super) fn array<T>(items: &[T], written: impl Fn(&T) -> String) -> String {
    format!("[{}]", items.iter().map(written).collect::<Vec<_>>().join(", "))
}

pub(super) fn shown<T: ToString>(item: &T) -> String {
    quote(&item.to_string())
}

pub(super) fn time(duration: &std::time::Duration) -> String {
    quote(&write_duration(*duration))
}

/// The word of `choices` for `value`.
pub(super) fn word<T: PartialEq>(choices: &[(&str, T)], value: &T) -> String {
    quote(choices.iter().find(|(_, meant)| meant == value).map_or("", |(name, _)| name))
}

/// A number that TOML can hold, or a text that it can hold it as.
fn count(number: u64) -> String {
    if i64::try_from(number).is_ok() { number.to_string() } else { quote(&number.to_string()) }
}

fn gateway(out: &mut Out, options: &GatewayOptions) {
    let default = GatewayOptions::default();
    if *options == default {
        return;
    }
    out.table(&["gateway"]);
    out.set("listen", &options.listen, &default.listen, |list| array(list, shown));
    out.set("ports", &options.ports, &default.ports, |Ports { ike, natt }| format!("{{ ike = {ike}, natt = {natt} }}"));
    out.set("cookie-threshold", &options.cookie_threshold, &default.cookie_threshold, u32::to_string);
    out.set("half-open-limit", &options.half_open_limit, &default.half_open_limit, u32::to_string);
    out.set("install-routes", &options.install_routes, &default.install_routes, bool::to_string);
    out.set("route-table", &options.route_table, &None, |table| table.unwrap_or_default().to_string());
    out.set("nat-keepalive", &options.nat_keepalive, &default.nat_keepalive, time);
    out.set("manage-sysctl", &options.manage_sysctl, &default.manage_sysctl, bool::to_string);
    options.workers.iter().for_each(|workers| out.line(&format!("workers = {workers}")));
    options.metrics.iter().for_each(|address| out.line(&format!("metrics = {}", shown(address))));
    options.opentelemetry.iter().for_each(|address| out.line(&format!("opentelemetry = {}", quote(address))));
    out.set("log-format", &options.log_format, &default.log_format, |format| word(&LOG_FORMATS, format));
    options.log_directory.iter().for_each(|path| out.line(&format!("log-directory = {}", quote(path))));
    out.set("psk-overlap", &options.psk_overlap, &default.psk_overlap, time);
}

fn connection(out: &mut Out, connection: &Connection, secrets: bool) {
    let default = Connection::named("");
    out.table(&["connection", &connection.name]);
    out.set("version", &connection.versions, &default.versions, |versions| word(&VERSIONS, versions));
    out.set("local", &connection.local, &default.local, side);
    out.set("remote", &connection.remote, &default.remote, side);
    if secrets {
        out.set("psk", &connection.psk, &Vec::new(), |keys| match keys.as_slice() {
            [key] => psk(key),
            keys => array(keys, psk),
        });
    } else {
        for _ in &connection.psk {
            out.line("# psk = …  (left out: a secret)");
        }
    }
    out.set("ike", &connection.ike, &IkeProposal::defaults(connection.versions), |list| array(list, shown));
    out.set("ike-lifetime", &connection.ike_lifetime, &IkeLifetime::default(), ike_lifetime);
    out.set("dpd", &connection.dpd, &None, |dpd| {
        dpd.map_or_else(String::new, |dpd| {
            let action = word(&ACTIONS, &dpd.action);
            format!("{{ delay = {}, timeout = {}, action = {action} }}", time(&dpd.delay), time(&dpd.timeout))
        })
    });
    out.set("encapsulation", &connection.encapsulation, &default.encapsulation, |e| word(&ENCAPSULATIONS, e));
    out.set("tries", &connection.tries, &default.tries, |tries| match tries {
        Tries::Forever => quote("forever"),
        Tries::Times(times) => times.to_string(),
    });
    out.set("uniqueness", &connection.uniqueness, &default.uniqueness, |u| word(&UNIQUENESSES, u));
    out.set("fragmentation", &connection.fragmentation, &true, bool::to_string);
    for one in &connection.children {
        child(out, connection, one);
    }
}

fn side(side: &Side) -> String {
    let address = match &side.address {
        Address::Any => None,
        Address::Ip(ip) => Some(shown(ip)),
        Address::Prefix(net) => Some(shown(net)),
        Address::Name(name) => Some(quote(name)),
    };
    if let (Some(address), None, None) = (&address, side.port, &side.id) {
        return address.clone();
    }
    let mut parts: Vec<_> = address.iter().map(|address| format!("address = {address}")).collect();
    parts.extend(side.port.map(|port| format!("port = {port}")));
    parts.extend(side.id.as_ref().map(|id| format!("id = {}", identity(id))));
    format!("{{ {} }}", parts.join(", "))
}

/// The short form where reading it gives the same identity, else kind and data.
fn identity(id: &Identity) -> String {
    let short = id.to_string();
    let Ok(read) = short.parse::<Identity>();
    let table = |kind: &str, data: &str| format!("{{ kind = {}, data = {} }}", quote(kind), quote(data));
    match id {
        id if read == *id => quote(&short),
        Identity::Any | Identity::Ip(_) | Identity::Subnet(_) => quote(&short),
        Identity::Fqdn(name) => table("fqdn", name),
        Identity::UserFqdn(name) => table("user-fqdn", name),
        Identity::KeyId(data) => table("key-id", &to_hex(data)),
        Identity::Other { kind, data } => format!("{{ kind = {kind}, data = {} }}", quote(&to_hex(data))),
    }
}

/// A key as text where it is one that a person can read, else in hexadecimal.
pub(super) fn psk(secret: &Secret) -> String {
    match std::str::from_utf8(secret.expose()) {
        Ok(text) if !text.chars().any(char::is_control) => quote(text),
        Ok(_) | Err(_) => format!("{{ hex = {} }}", quote(&to_hex(secret.expose()))),
    }
}

fn ike_lifetime(life: &IkeLifetime) -> String {
    let default = IkeLifetime::default();
    if *life == (IkeLifetime { time: life.time, ..default }) {
        return time(&life.time);
    }
    let (whole, margin) = (time(&life.time), time(&life.margin));
    format!("{{ time = {whole}, margin = {margin}, fuzz = {} }}", life.fuzz_percent)
}

fn lifetime(life: &Lifetime) -> String {
    let default = Lifetime::default();
    if *life == (Lifetime { time: life.time, ..default }) {
        return time(&life.time);
    }
    let mut text =
        format!("{{ time = {}, margin = {}, fuzz = {}", time(&life.time), time(&life.margin), life.fuzz_percent);
    for (key, limit) in [("bytes", life.bytes), ("packets", life.packets)] {
        if let Some(limit) = limit {
            let _ = write!(text, ", {key} = {}", count(limit));
        }
    }
    text + " }"
}

fn child(out: &mut Out, connection: &Connection, child: &Child) {
    let default = Child::named("");
    let path = ["connection", &connection.name, "child", &child.name];
    out.table(&path);
    out.set("local", &child.local, &default.local, |list| array(list, shown));
    out.set("remote", &child.remote, &default.remote, |list| array(list, shown));
    out.set("esp", &child.esp, &EspProposal::defaults(connection.versions), |list| array(list, shown));
    out.set("lifetime", &child.lifetime, &default.lifetime, lifetime);
    out.set("start", &child.start, &default.start, |start| word(&STARTS, start));
    out.set("replay-window", &child.replay_window, &default.replay_window, u32::to_string);
    out.set("df", &child.df, &default.df, |df| word(&DF_POLICIES, df));
    for (key, size) in [("mtu", &child.mtu), ("mss", &child.mss)] {
        out.set(key, size, &None, |size| size.unwrap_or_default().to_string());
    }
    out.set("copy-dscp", &child.copy_dscp, &true, bool::to_string);
    if let Routing::Device { name, addresses, routes, mark } = &child.routing {
        out.table(&[&path[..], &["device"]].concat());
        out.line(&format!("name = {}", quote(name)));
        out.set("addresses", addresses, &Vec::new(), |list| array(list, shown));
        out.set("routes", routes, &Vec::new(), |list| array(list, shown));
        out.set("mark", mark, &None, |mark| mark.unwrap_or_default().to_string());
    }
}
