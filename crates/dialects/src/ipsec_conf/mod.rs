//! `ipsec.conf` and `ipsec.secrets` of Openswan, Libreswan and strongSwan.
//!
//! One syntax, two families of meaning. Which one a file belongs to is found out from what only one of them knows (see
//! [`Dialect`]); then every default that the file leaves out is that family's own:
//!
//! | left out | strongSwan | Openswan, Libreswan |
//! | --- | --- | --- |
//! | `keyexchange=ike` | starts IKEv2, accepts both | starts IKEv1, accepts both (from 4.0 on: IKEv2) |
//! | the group in `esp=` | no PFS | PFS with the group of phase 1, unless `pfs=no` |
//! | `ikelifetime`, `lifetime` | 3 h, 1 h | 1 h (from 4.0 on: 8 h), 8 h |
//! | `keyingtries` | 3 | for ever |
//! | `dpdaction` | none: nothing is sent | hold, if both `dpddelay` and `dpdtimeout` are there |
//! | a `!` behind `ike=`, `esp=` | its defaults are offered too | nothing else is offered |
//! | `authby` | certificates: refused here | RSA keys: refused here |
//!
//! Where both ends of several connections, and all of their phase 1, are the same, the programs negotiate one IKE SA
//! for them; so do we: they become the children of one connection, named after the first.
//!
//! Left out, and refused with the reason: certificates, XAUTH, EAP, mode configuration, aggressive mode, AH, transport
//! mode, pass and drop policies, opportunistic encryption, `%unique` marks. Left out without a word: values over
//! several lines.

mod convert;
mod dialect;
mod keywords;
mod resolve;
mod secrets;
mod sections;
mod sides;
mod vti;

use std::collections::BTreeMap;
use std::net::IpAddr;

use base::Secret;
use model::{Config, Connection, GatewayOptions, Routing, Uniqueness, Version, Versions};

use crate::diagnostic::{Diagnostic, MASK, Report};
use crate::units;
use crate::{Errors, Files, Reading};
use convert::Context;
use resolve::Key;
use secrets::{Party, Secrets};
use sections::Setting;

pub use vti::{VtiDevice, read_vti_script};

/// Whose `ipsec.conf` it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// strongSwan with its stroke plugin, 4.x to 5.9.
    StrongSwan,
    /// Openswan and Libreswan.
    Libreswan,
}

impl Dialect {
    const fn name(self) -> &'static str {
        match self {
            Self::StrongSwan => "strongSwan",
            Self::Libreswan => "Libreswan",
        }
    }
}

/// What a caller knows beyond the files.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Whose file it is; found out where it is not given.
    pub dialect: Option<Dialect>,
    /// The file of the keys; looked for beside the configuration where it is not given.
    pub secrets: Option<String>,
    /// This host's addresses, to tell which end of a connection it is. Without them it is the left one, unless the
    /// right one is `%defaultroute`.
    pub local_addresses: Vec<IpAddr>,
    /// A script that makes VTI devices, to take their names, addresses and routes from.
    pub vti_script: Option<String>,
}

/// Reads the `ipsec.conf` at `path`, with the keys of `secrets_path` or else of the file that stands beside it:
/// `NAME.secrets` for `NAME.conf`, or `ipsec.secrets`.
pub fn read(path: &str, secrets_path: Option<&str>, files: &dyn Files) -> Result<Reading, Errors> {
    let options = Options { secrets: secrets_path.map(str::to_owned), ..Options::default() };
    read_with(path, &options, files)
}

/// Reads the `ipsec.conf` at `path` with what else is known.
pub fn read_with(path: &str, options: &Options, files: &dyn Files) -> Result<Reading, Errors> {
    let mut report = Report::default();
    let config = config(path, options, files, &mut report);
    report.finish(config)
}

fn config(path: &str, options: &Options, files: &dyn Files, report: &mut Report) -> Config {
    let mut config = Config::default();
    let read = sections::read(path, files, report);
    if !report.errors.is_empty() {
        return config;
    }
    let dialect = options.dialect.unwrap_or_else(|| dialect::detect(&read, report));
    let is_modern = is_modern(&read.sections);
    let resolved = resolve::resolve(read.sections, dialect, report);
    let devices = devices(options, files, report);
    let uniqueness = setup(&resolved.setup, &mut config.gateway, report);
    let context = Context { dialect, is_modern, uniqueness, options, devices: &devices };
    let ours: Vec<_> = resolved.conns.iter().filter_map(|conn| convert::connection(conn, &context, report)).collect();
    if ours.is_empty() && report.errors.is_empty() {
        let message = format!("no connection of {path} is to be loaded");
        let mut diagnostic =
            Diagnostic::new(message).help("a connection is loaded by auto=add, auto=route or auto=start");
        if let Some(conn) = resolved.conns.first() {
            diagnostic.place = Some(conn.place.clone());
        }
        report.error(diagnostic);
    }
    if ours.is_empty() {
        return config;
    }
    let (secrets, secrets_path) = find_secrets(path, options, files, report);
    for mut connection in ours {
        give_key(&mut connection, &secrets, &secrets_path, dialect, report);
        ikev1_policy(&resolved.setup, &mut connection, report);
        take_in(&mut config.connections, connection, report);
    }
    tell_devices_apart(&mut config);
    config
}

/// Whether a file of the Libreswan family uses what only its programs from 4.0 on have.
fn is_modern(sections: &[sections::Section]) -> bool {
    const SINCE_4: [&str; 9] = [
        "ipsec-interface",
        "leftinterface-ip",
        "rightinterface-ip",
        "ipsec-lifetime",
        "ipsec-max-bytes",
        "ipsec-max-packets",
        "ikev1-policy",
        "hostaddrfamily",
        "enable-tcp",
    ];
    let mut settings = sections.iter().flat_map(|section| &section.settings);
    settings.any(|setting| SINCE_4.iter().any(|name| setting.key.eq_ignore_ascii_case(name)))
}

fn devices(options: &Options, files: &dyn Files, report: &mut Report) -> Vec<VtiDevice> {
    let Some(path) = &options.vti_script else { return Vec::new() };
    match files.read(path) {
        Ok(text) => read_vti_script(&text),
        Err(why) => {
            report.error(Diagnostic::new(format!("cannot read {path}: {why}")));
            Vec::new()
        }
    }
}

/// What `config setup` says about the gateway as a whole.
fn setup(setup: &BTreeMap<Key, Setting>, gateway: &mut GatewayOptions, report: &mut Report) -> Uniqueness {
    let get = |name: &'static str| setup.get(&(None, name)).filter(|setting| !setting.value.is_empty());
    let mut fault = |setting: &Setting, why: &str| {
        report.error(Diagnostic::at(setting.value_place.clone(), format!("{}: {why}", setting.key)));
    };
    for (name, port) in [("ikeport", &mut gateway.ports.ike), ("nat-ikeport", &mut gateway.ports.natt)] {
        if let Some(setting) = get(name) {
            match setting.value.parse::<u16>().ok().filter(|port| *port > 0) {
                Some(number) => *port = number,
                None => fault(setting, "it is a port from 1 to 65535"),
            }
        }
    }
    let limits =
        [("max-halfopen-ike", &mut gateway.half_open_limit), ("ddos-ike-threshold", &mut gateway.cookie_threshold)];
    for (name, limit) in limits {
        if let Some(setting) = get(name) {
            match setting.value.parse() {
                Ok(number) => *limit = number,
                Err(_) => fault(setting, "it is a number"),
            }
        }
    }
    if let Some(setting) = get("listen") {
        for word in setting.value.split([',', ' ']).filter(|word| !word.is_empty()) {
            match word.parse() {
                Ok(ip) => gateway.listen.push(ip),
                Err(_) => fault(setting, "it is an IP address"),
            }
        }
    }
    if let Some(setting) = get("keep-alive") {
        match units::duration(&setting.value) {
            Ok(time) => gateway.nat_keepalive = time,
            Err(why) => fault(setting, &why),
        }
    }
    match get("uniqueids") {
        None => Uniqueness::Replace,
        Some(setting) => match (setting.value.as_str(), units::flag(&setting.value)) {
            ("replace", _) | (_, Ok(true)) => Uniqueness::Replace,
            (_, Ok(false)) => Uniqueness::Keep,
            ("never", _) => Uniqueness::Never,
            ("keep", _) => {
                let text = "uniqueids=keep: a second peer with the same identity is not refused, both stay";
                report.note(&setting.key_place, text);
                Uniqueness::Keep
            }
            (_, Err(_)) => {
                fault(setting, "it is yes, no, never, replace or keep");
                Uniqueness::Replace
            }
        },
    }
}

/// Libreswan 5 and later can shut IKEv1 out for all connections at once.
fn ikev1_policy(setup: &BTreeMap<Key, Setting>, connection: &mut Connection, report: &mut Report) {
    let Some(setting) = setup.get(&(None, "ikev1-policy")).filter(|setting| setting.value != "accept") else { return };
    match connection.versions {
        Versions::Only(Version::V2) => {}
        Versions::Both { .. } => connection.versions = Versions::Only(Version::V2),
        Versions::Only(Version::V1) => {
            let message = format!("connection {} needs IKEv1, which this policy drops", connection.name);
            report.error(Diagnostic::at(setting.value_place.clone(), message));
        }
    }
}

/// The keys, and the file that they come from or should have come from.
fn find_secrets(path: &str, options: &Options, files: &dyn Files, report: &mut Report) -> (Secrets, String) {
    if let Some(secrets) = &options.secrets {
        return (Secrets::read(secrets, files, report), secrets.clone());
    }
    let beside = path.strip_suffix(".conf").map(|stem| format!("{stem}.secrets"));
    let folder = crate::files::relative_to(path, "ipsec.secrets");
    let candidates: Vec<String> = beside.into_iter().chain([folder]).collect();
    match candidates.iter().find(|candidate| !files.glob(candidate).is_empty()) {
        Some(found) => (Secrets::read(found, files, report), found.clone()),
        None => (Secrets::default(), candidates.join(" or ")),
    }
}

/// The key for the two ends of a connection.
fn give_key(connection: &mut Connection, secrets: &Secrets, path: &str, dialect: Dialect, report: &mut Report) {
    let entries = secrets.of(&Party::of(&connection.local), &Party::of(&connection.remote), dialect);
    if let Some(first) = entries.first() {
        let source = first.source.clone();
        let keys: Vec<Secret> = entries.iter().map(|entry| entry.psk().clone()).collect();
        connection.psk = keys;
        connection.sources.set(model::Setting::Psk, source);
        return;
    }
    let named = |side: &model::Side, any: &str| match (&side.id, side.address.ip()) {
        (Some(id), _) => id.to_string(),
        (None, Some(ip)) => ip.to_string(),
        (None, None) => any.to_owned(),
    };
    let (ours, theirs) = (named(&connection.local, "%any"), named(&connection.remote, "%any"));
    let message = format!("there is no pre-shared key for {ours} and {theirs} in {path}");
    let mut diagnostic = Diagnostic::new(message).help(format!("the entry would be: {ours} {theirs} : PSK {MASK}"));
    diagnostic.place = connection.sources.of(model::Setting::Connection).map(Into::into);
    report.error(diagnostic);
}

/// Adds a connection, or its children to one that shares its IKE SA.
fn take_in(connections: &mut Vec<Connection>, connection: Connection, report: &mut Report) {
    let alike = |known: &Connection| {
        if (&known.local, &known.remote) != (&connection.local, &connection.remote) {
            return false;
        }
        let renamed = Connection {
            name: known.name.clone(),
            children: known.children.clone(),
            sources: known.sources.clone(),
            ..connection.clone()
        };
        // A peer at any address is another peer each time.
        renamed == *known && connection.remote.address.ip().is_some()
    };
    let Some(known) = connections.iter_mut().find(|known| alike(known)) else {
        connections.push(connection);
        return;
    };
    if let Some(source) = connection.sources.of(model::Setting::Connection) {
        let text = format!("connection {} shares the IKE SA of {}: it becomes its child", connection.name, known.name);
        report.note(&source.into(), text);
    }
    known.children.extend(connection.children);
}

/// Names that were cut to the length of a device's may have become the same.
fn tell_devices_apart(config: &mut Config) {
    let mut used: Vec<String> = Vec::new();
    for child in config.connections.iter_mut().flat_map(|connection| &mut connection.children) {
        let Routing::Device { name, .. } = &mut child.routing else { continue };
        if child.name.len() > 15 && used.contains(name) {
            let stem: String = name.chars().take(11).filter(char::is_ascii).collect();
            let other = (2..1000).map(|number| format!("{stem}{number}")).find(|other| !used.contains(other));
            *name = other.unwrap_or_else(|| name.clone());
        }
        used.push(name.clone());
    }
}

/// The side that is ours, for a caller that shows it.
#[cfg(test)]
mod tests;
