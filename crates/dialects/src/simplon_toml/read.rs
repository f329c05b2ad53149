//! From a document to the model.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU8;
use std::ops::Range;

use base::Secret;
use model::{
    Address, Child, Config, Connection, DfPolicy, Dpd, DpdAction, Encapsulation, EspProposal, GatewayOptions, Identity,
    IkeLifetime, IkeProposal, Lifetime, LogFormat, Routing, Setting, Side, Source, Start, Tries, Uniqueness, Version,
    Versions,
};
use toml::de::{DeTable, DeValue};

use super::cursor::{Document, Table, Value};
use super::{cluster, routing};
use crate::diagnostic::{Diagnostic, MASK, Report, Text, nearest};
use crate::files::relative_to;
use crate::proposal::{ProposalError, parse_esp, parse_ike};
use crate::selector::{parse_net, parse_selector};
use crate::{Errors, Files, Reading, encoding};

const ROOT: &[&str] = &["gateway", "connection", "vpn", "bgp", "cluster"];
const GATEWAY: &[&str] = &[
    "listen",
    "ports",
    "cookie-threshold",
    "half-open-limit",
    "install-routes",
    "route-table",
    "nat-keepalive",
    "manage-sysctl",
    "workers",
    "metrics",
    "opentelemetry",
    "log-format",
    "log-directory",
    "psk-overlap",
];
const PORTS: &[&str] = &["ike", "natt"];
const CONNECTION: &[&str] = &[
    "version",
    "local",
    "remote",
    "psk",
    "psk-file",
    "ike",
    "ike-lifetime",
    "dpd",
    "encapsulation",
    "tries",
    "uniqueness",
    "fragmentation",
    "child",
];
const SIDE: &[&str] = &["address", "port", "id"];
const ID: &[&str] = &["kind", "data"];
const PSK: &[&str] = &["hex", "base64", "file"];
const DPD: &[&str] = &["delay", "timeout", "action"];
const IKE_LIFETIME: &[&str] = &["time", "margin", "fuzz"];
const LIFETIME: &[&str] = &["time", "margin", "fuzz", "bytes", "packets"];
const CHILD: &[&str] =
    &["local", "remote", "esp", "lifetime", "start", "replay-window", "df", "mtu", "mss", "copy-dscp", "device"];
const DEVICE: &[&str] = &["name", "addresses", "routes", "mark"];

/// Every key that the format has, to tell a misspelt key, whose value may be a secret, from a known one.
const KEYS: [&[&str]; 17] = [
    ROOT,
    GATEWAY,
    PORTS,
    CONNECTION,
    SIDE,
    ID,
    DPD,
    IKE_LIFETIME,
    LIFETIME,
    CHILD,
    DEVICE,
    routing::VPN,
    routing::PROBE,
    routing::BFD,
    routing::BGP,
    routing::NEIGHBOR,
    cluster::CLUSTER,
];

/// Keys whose values are secrets.
const SECRETS: [&str; 2] = ["psk", "password"];

/// Reads the `simplon.toml` at `path`. A relative `file` of a key is looked for beside it.
pub fn read(path: &str, files: &dyn Files) -> Result<Reading, Errors> {
    let content =
        files.read(path).map_err(|why| Errors(vec![Diagnostic::new(format!("cannot read {path}: {why}"))]))?;
    let mut text = Text::new(path, content);
    let source = text.text.clone();
    let root = match DeTable::parse(&source) {
        Ok(table) => DeValue::Table(table.into_inner()),
        Err(error) => return Err(Errors(vec![syntax_error(text, &error)])),
    };
    let mut secrets = Vec::new();
    find_secrets(&root, 0..0, Holds::Settings, &mut secrets);
    text.hide(secrets);
    let document = Document { text, report: RefCell::new(Report::default()) };
    let config = root.as_table().map_or_else(Config::default, |table| config(Table::new(&document, table), files));
    document.report.into_inner().finish(config)
}

/// What the value of a key is, as far as it may be shown.
#[derive(Clone, Copy, PartialEq)]
enum Holds {
    /// A setting, or a table of settings.
    Settings,
    /// A table whose keys are names.
    Names,
    /// A key that the format does not have and that resembles none which holds no secret: it may be a misspelt `psk`.
    Unknown,
    /// A key.
    Secret,
}

/// Finds what must not be shown.
fn find_secrets(value: &DeValue<'_>, span: Range<usize>, holds: Holds, found: &mut Vec<Range<usize>>) {
    if let Some(array) = value.as_array() {
        array.iter().for_each(|item| find_secrets(item.get_ref(), item.span(), holds, found));
    } else if let Some(table) = value.as_table() {
        for (key, inner) in table.iter() {
            find_secrets(inner.get_ref(), inner.span(), held_by(key.get_ref(), holds), found);
        }
    } else if matches!(holds, Holds::Unknown | Holds::Secret) {
        found.push(span);
    }
}

/// What the key `name` holds in a table that is `outer` itself.
fn held_by(name: &str, outer: Holds) -> Holds {
    let keys = || KEYS.into_iter().flatten().copied();
    match (outer, name) {
        (Holds::Secret, _) | (Holds::Settings | Holds::Unknown, "psk" | "password") => Holds::Secret,
        (Holds::Names, _) => Holds::Settings,
        (Holds::Settings | Holds::Unknown, "connection" | "child" | "vpn" | "neighbor") => Holds::Names,
        (Holds::Settings | Holds::Unknown, _) => {
            let harmless = nearest(name, keys()).is_some_and(|meant| !SECRETS.contains(&meant));
            if harmless { Holds::Settings } else { Holds::Unknown }
        }
    }
}

/// A document that is no TOML. Which of its bytes are secrets is not known then, so a line is shown as far as it
/// cannot hold one.
fn syntax_error(mut text: Text, error: &toml::de::Error) -> Diagnostic {
    let span = error.span().unwrap_or(0..0);
    let line = text.line_around(span.start.min(text.text.len()));
    let shown = visible_part(&text.text[..line.start], &text.text[line.clone()]);
    text.hide(std::iter::once(line.start + shown..line.end));
    Diagnostic::at(text.place(span), format!("this is not TOML: {}", error.message().trim().replace('\n', ", ")))
}

/// How much of `line` may be shown when `before` is all that is known of what precedes it.
fn visible_part(before: &str, line: &str) -> usize {
    let lower = line.to_ascii_lowercase();
    let open_secret = before.lines().rev().find(|line| names_secret(&line.to_ascii_lowercase()));
    if open_secret.is_some_and(|line| DeTable::parse(line).is_err()) {
        return 0;
    }
    if names_secret(&lower) {
        return line.find('=').map_or(0, |equals| equals + 1);
    }
    let before_equals = line.split('=').next().unwrap_or_default().trim();
    let key = before_equals.split([' ', '\t']).next().unwrap_or_default().rsplit('.').next().unwrap_or_default();
    let known = before_equals.starts_with('[') || KEYS.iter().any(|keys| keys.contains(&key));
    if known { line.len() } else { line.find('=').map_or(0, |equals| equals + 1) }
}

/// Whether a line, in small letters, has the name of a key whose value is a secret.
fn names_secret(line: &str) -> bool {
    SECRETS.iter().any(|name| line.contains(name))
}

fn config(root: Table<'_>, files: &dyn Files) -> Config {
    let root = root.knowing(ROOT);
    let mut config = Config::default();
    root.set("gateway", &mut config.gateway, |value| value.table().map(gateway));
    if let Some(connections) = root.get("connection").and_then(Value::table) {
        config.connections = connections.entries().filter_map(|entry| connection(entry, files)).collect();
    }
    if let Some(vpns) = root.get("vpn").and_then(Value::table) {
        config.vpns = vpns.entries().filter_map(routing::vpn).collect();
    }
    config.bgp = root.get("bgp").and_then(|value| routing::bgp(value, files));
    config.cluster = root.get("cluster").and_then(|value| cluster::cluster(value, files));
    config
}

fn gateway(table: Table<'_>) -> GatewayOptions {
    let table = table.knowing(GATEWAY);
    let mut options = GatewayOptions::default();
    table.set("listen", &mut options.listen, |value| list(value, |item| item.parsed(parse_ip)));
    table.set("ports", &mut options.ports, |value| {
        let table = value.table()?.knowing(PORTS);
        let mut ports = model::Ports::default();
        table.set("ike", &mut ports.ike, |value| value.number(1..65535));
        table.set("natt", &mut ports.natt, |value| value.number(1..65535));
        Some(ports)
    });
    table.set("cookie-threshold", &mut options.cookie_threshold, |value| value.number(0..u32::MAX.into()));
    table.set("half-open-limit", &mut options.half_open_limit, |value| value.number(0..u32::MAX.into()));
    table.set("install-routes", &mut options.install_routes, Value::flag);
    table.set("route-table", &mut options.route_table, |value| value.number(0..u32::MAX.into()).map(Some));
    table.set("nat-keepalive", &mut options.nat_keepalive, Value::duration);
    table.set("manage-sysctl", &mut options.manage_sysctl, Value::flag);
    table.set("workers", &mut options.workers, |value| value.number(1..64).map(NonZeroU8::new));
    table.set("metrics", &mut options.metrics, |value| value.parsed(parse_listener).map(Some));
    table.set("opentelemetry", &mut options.opentelemetry, |value| value.parsed(parse_collector).map(Some));
    table.set("log-format", &mut options.log_format, |value| value.choice(&LOG_FORMATS));
    table.set("log-directory", &mut options.log_directory, |value| value.parsed(parse_directory).map(Some));
    table.set("psk-overlap", &mut options.psk_overlap, Value::duration);
    options
}

fn connection(entry: Value<'_>, files: &dyn Files) -> Option<Connection> {
    let table = entry.table()?.knowing(CONNECTION);
    let mut connection = Connection::named(entry.key);
    connection.sources.set(Setting::Connection, entry.key_place().source());
    table.set("version", &mut connection.versions, |value| value.choice(&VERSIONS));
    connection.ike = IkeProposal::defaults(connection.versions);
    for (key, side) in [("local", &mut connection.local), ("remote", &mut connection.remote)] {
        table.set(key, side, side_of);
    }
    if let Some(value) = table.get("psk") {
        connection.psk = value.items().into_iter().filter_map(|item| secret(item, files)).collect();
    }
    if let Some(value) = table.get("psk-file") {
        connection.psk.extend(value.string().and_then(|path| psk_file(value, path, files)));
    }
    table.set("ike", &mut connection.ike, |value| proposals(value, parse_ike));
    table.set("ike-lifetime", &mut connection.ike_lifetime, ike_lifetime);
    table.set("dpd", &mut connection.dpd, dpd);
    table.set("encapsulation", &mut connection.encapsulation, |value| value.choice(&ENCAPSULATIONS));
    table.set("tries", &mut connection.tries, tries);
    table.set("uniqueness", &mut connection.uniqueness, |value| value.choice(&UNIQUENESSES));
    table.set("fragmentation", &mut connection.fragmentation, Value::flag);
    remember(&table, &mut connection);
    if let Some(children) = table.get("child").and_then(Value::table) {
        connection.children =
            children.entries().filter_map(|entry| child(entry, connection.versions, &mut connection.sources)).collect();
    }
    Some(connection)
}

pub(super) const VERSIONS: [(&str, Versions); 4] = [
    ("ikev1", Versions::Only(Version::V1)),
    ("ikev2", Versions::Only(Version::V2)),
    ("any", Versions::Both { initiate: Version::V2 }),
    ("ikev1-first", Versions::Both { initiate: Version::V1 }),
];

pub(super) const ENCAPSULATIONS: [(&str, Encapsulation); 3] =
    [("auto", Encapsulation::Auto), ("force", Encapsulation::Force), ("never", Encapsulation::Never)];

pub(super) const UNIQUENESSES: [(&str, Uniqueness); 3] =
    [("replace", Uniqueness::Replace), ("keep", Uniqueness::Keep), ("never", Uniqueness::Never)];

pub(super) const ACTIONS: [(&str, DpdAction); 3] =
    [("clear", DpdAction::Clear), ("hold", DpdAction::Hold), ("restart", DpdAction::Restart)];

pub(super) const STARTS: [(&str, Start); 3] =
    [("wait", Start::Wait), ("on-traffic", Start::OnTraffic), ("at-once", Start::AtOnce)];

pub(super) const DF_POLICIES: [(&str, DfPolicy); 2] = [("honour", DfPolicy::Honour), ("clear", DfPolicy::Clear)];

pub(super) const LOG_FORMATS: [(&str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];

/// Remembers the lines of the settings that a negotiation can fail over.
fn remember(table: &Table<'_>, connection: &mut Connection) {
    let sides =
        [("local", Setting::LocalAddress, Setting::LocalId), ("remote", Setting::RemoteAddress, Setting::RemoteId)];
    for (key, address, id) in sides {
        let Some(value) = table.get(key) else { continue };
        let own = value.as_table();
        let source = |key| own.as_ref().and_then(|table| table.get(key)).unwrap_or(value).key_place().source();
        connection.sources.set(address, source("address"));
        if own.as_ref().is_some_and(|table| table.get("id").is_some()) {
            connection.sources.set(id, source("id"));
        }
    }
    let keys = [
        ("version", Setting::Version),
        ("ike", Setting::Ike),
        ("ike-lifetime", Setting::Lifetime),
        ("psk-file", Setting::Psk),
    ];
    for (key, setting) in keys {
        if let Some(value) = table.get(key) {
            connection.sources.set(setting, value.key_place().source());
        }
    }
    if let Some(value) = table.get("psk") {
        let source = value.key_place().source();
        connection.sources.set(Setting::Psk, Source { text: format!("psk = {MASK}").into(), ..source });
    }
}

fn side_of(value: Value<'_>) -> Option<Side> {
    let mut side = Side { address: Address::Any, port: None, id: None };
    if value.as_str().is_some() {
        side.address = value.parsed(parse_address)?;
        return Some(side);
    }
    let table = value.table()?.knowing(SIDE);
    table.set("address", &mut side.address, |value| value.parsed(parse_address));
    table.set("port", &mut side.port, |value| value.number(1..65535).map(Some));
    table.set("id", &mut side.id, |value| identity(value).map(Some));
    Some(side)
}

pub(super) fn parse_ip(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is not an IP address"))
}

/// An address and port to listen on.
fn parse_listener(text: &str) -> Result<SocketAddr, String> {
    let wrong = |_| format!("{text:?} is not an IP address with a port, such as 127.0.0.1:9830 or [::1]:9830");
    let address: SocketAddr = text.parse().map_err(wrong)?;
    if address.port() == 0 { Err("port 0 is not a port".to_owned()) } else { Ok(address) }
}

/// Where a collector listens: an address or name with a port, and a path where there is one.
fn parse_collector(text: &str) -> Result<String, String> {
    let wrong = || format!("{text:?} is not the address of a collector, such as http://127.0.0.1:4318");
    if text.starts_with("https://") {
        return Err("TLS is not spoken: let a collector on this host pass it on".to_owned());
    }
    let rest = text.strip_prefix("http://").ok_or_else(wrong)?;
    let (host, port) = rest.split('/').next().and_then(|authority| authority.rsplit_once(':')).ok_or_else(wrong)?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(host) => host.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(is_name),
    };
    let is_clean = text.chars().all(|c| c.is_ascii_graphic() && !"?#@\"".contains(c));
    let is_port = port.parse::<u16>().is_ok_and(|port| port > 0);
    if is_host && is_port && is_clean { Ok(text.trim_end_matches('/').to_owned()) } else { Err(wrong()) }
}

/// A directory of the host. It must not depend on where the gateway was started.
fn parse_directory(text: &str) -> Result<String, String> {
    if text.starts_with('/') { Ok(text.to_owned()) } else { Err(format!("{text:?} does not begin with a slash")) }
}

fn parse_address(text: &str) -> Result<Address, String> {
    if matches!(text, "any" | "%any" | "%defaultroute") {
        return Ok(Address::Any);
    }
    if let Ok(ip) = text.parse() {
        return Ok(Address::Ip(ip));
    }
    if text.contains('/') {
        return parse_net(text).map(|net| Address::Prefix(net.trunc()));
    }
    let numeric = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let name = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    if name && !numeric { Ok(Address::Name(text.to_owned())) } else { Err(format!("{text:?} is not an address")) }
}

fn identity(value: Value<'_>) -> Option<Identity> {
    if let Some(text) = value.as_str() {
        let Ok(id) = text.parse();
        return Some(id);
    }
    let table = value.table()?.knowing(ID);
    let (Some(kind), Some(data)) = (table.get("kind"), table.get("data")) else {
        value.fault("an identity as a table has a kind and data");
        return None;
    };
    let hex = |data: Value<'_>| data.parsed(|text| encoding::from_hex(text).ok_or("pairs of hex digits".to_owned()));
    if kind.as_str().is_none() {
        return Some(Identity::Other { kind: kind.number(0..255)?, data: hex(data)? });
    }
    match kind.choice(&[("fqdn", 0), ("user-fqdn", 1), ("key-id", 2)])? {
        0 => Some(Identity::Fqdn(data.string()?.to_owned())),
        1 => Some(Identity::UserFqdn(data.string()?.to_owned())),
        _ => Some(Identity::KeyId(hex(data)?)),
    }
}

/// A key: a text, or a table that says how it is written or where it is.
pub(super) fn secret(value: Value<'_>, files: &dyn Files) -> Option<Secret> {
    if let Some(text) = value.as_str() {
        return Some(Secret::from(text.as_bytes()));
    }
    let table = value.table()?.knowing(PSK);
    let entry = table.entries().next().filter(|_| table.entries().count() == 1);
    let Some(entry) = entry else {
        value.fault("a key as a table has one of hex, base64 and file");
        return None;
    };
    // What cannot be decoded is still a secret: the message does not repeat it.
    let decoded = |decode: fn(&str) -> Option<Vec<u8>>, kind: &str| {
        let bytes = decode(entry.string()?);
        if bytes.is_none() {
            entry.fault(format!("the key is not {kind}"));
        }
        bytes.map(Secret::from)
    };
    match entry.key {
        "hex" => decoded(encoding::from_hex, "pairs of hexadecimal digits"),
        "base64" => decoded(encoding::from_base64, "base64"),
        "file" => psk_file(entry, entry.string()?, files),
        _ => None,
    }
}

fn psk_file(value: Value<'_>, path: &str, files: &dyn Files) -> Option<Secret> {
    let path = relative_to(&value.document().text.file, path);
    let text = files.read(&path).map_err(|why| value.fault(format!("cannot read the key in {path}: {why}"))).ok()?;
    // One end of line is the editor's; anything else is the key's.
    let key = text.strip_suffix('\n').unwrap_or(&text);
    Some(Secret::from(key.strip_suffix('\r').unwrap_or(key).as_bytes()))
}

fn proposals<T>(value: Value<'_>, parse: fn(&str) -> Result<Vec<T>, ProposalError>) -> Option<Vec<T>> {
    let parsed = list(value, |item| {
        let text = item.string()?;
        let fault = |error: ProposalError| {
            let mut diagnostic = Diagnostic::at(item.place_within(error.at), error.message);
            if let Some(word) = error.nearest {
                diagnostic = diagnostic.help(format!("did you mean {word}?"));
            }
            item.document().error(diagnostic);
        };
        parse(text).map_err(fault).ok()
    })?;
    Some(parsed.into_iter().flatten().collect())
}

/// What `read` makes of each item; nothing where one of them is wrong.
pub(super) fn list<'d, T>(value: Value<'d>, read: impl Fn(Value<'d>) -> Option<T>) -> Option<Vec<T>> {
    let items: Vec<_> = value.items().into_iter().map(read).collect();
    items.into_iter().collect()
}

fn ike_lifetime(value: Value<'_>) -> Option<IkeLifetime> {
    let mut life = IkeLifetime::default();
    let Some(table) = value.as_table() else {
        life.time = value.duration()?;
        return Some(life);
    };
    let table = table.knowing(IKE_LIFETIME);
    table.set("time", &mut life.time, Value::duration);
    table.set("margin", &mut life.margin, Value::duration);
    table.set("fuzz", &mut life.fuzz_percent, |value| value.number(0..100));
    Some(life)
}

fn lifetime(value: Value<'_>) -> Option<Lifetime> {
    let mut life = Lifetime::default();
    let Some(table) = value.as_table() else {
        life.time = value.duration()?;
        return Some(life);
    };
    let table = table.knowing(LIFETIME);
    table.set("time", &mut life.time, Value::duration);
    table.set("margin", &mut life.margin, Value::duration);
    table.set("fuzz", &mut life.fuzz_percent, |value| value.number(0..100));
    table.set("bytes", &mut life.bytes, |value| value.count().map(Some));
    table.set("packets", &mut life.packets, |value| value.count().map(Some));
    Some(life)
}

/// Dead peer detection where a connection asks for it without saying more.
pub(super) const DPD_DEFAULT: Dpd = Dpd {
    delay: std::time::Duration::from_secs(10),
    timeout: std::time::Duration::from_secs(30),
    action: DpdAction::Restart,
};

fn dpd(value: Value<'_>) -> Option<Option<Dpd>> {
    if let Some(on) = value.as_flag() {
        return Some(on.then_some(DPD_DEFAULT));
    }
    let table = value.table()?.knowing(DPD);
    let mut dpd = DPD_DEFAULT;
    table.set("delay", &mut dpd.delay, Value::duration);
    table.set("timeout", &mut dpd.timeout, Value::duration);
    table.set("action", &mut dpd.action, |value| value.choice(&ACTIONS));
    Some(Some(dpd))
}

fn tries(value: Value<'_>) -> Option<Tries> {
    if value.as_str().is_some() {
        return value.choice(&[("forever", Tries::Forever)]);
    }
    value.number(1..u32::MAX.into()).map(Tries::Times)
}

fn child(entry: Value<'_>, versions: Versions, sources: &mut model::Sources) -> Option<Child> {
    let table = entry.table()?.knowing(CHILD);
    let mut child = Child::named(entry.key);
    child.esp = EspProposal::defaults(versions);
    let selectors = |value| list(value, |item: Value<'_>| item.parsed(parse_selector));
    table.set("local", &mut child.local, selectors);
    table.set("remote", &mut child.remote, selectors);
    table.set("esp", &mut child.esp, |value| proposals(value, parse_esp));
    table.set("lifetime", &mut child.lifetime, lifetime);
    table.set("start", &mut child.start, |value| value.choice(&STARTS));
    table.set("replay-window", &mut child.replay_window, |value| value.number(64..8192));
    table.set("df", &mut child.df, |value| value.choice(&DF_POLICIES));
    table.set("mtu", &mut child.mtu, |value| value.number(576..65535).map(Some));
    table.set("mss", &mut child.mss, |value| value.number(0..65535).map(Some));
    table.set("copy-dscp", &mut child.copy_dscp, Value::flag);
    table.set("device", &mut child.routing, device);
    let keys = [
        ("local", Setting::LocalSelector),
        ("remote", Setting::RemoteSelector),
        ("esp", Setting::Esp),
        ("lifetime", Setting::Lifetime),
    ];
    for (key, setting) in keys {
        if let Some(value) = table.get(key).filter(|_| !sources.names(setting)) {
            sources.set(setting, value.key_place().source());
        }
    }
    Some(child)
}

fn device(value: Value<'_>) -> Option<Routing> {
    let (mut name, mut addresses, mut routes, mut mark) = (String::new(), Vec::new(), Vec::new(), None);
    if let Some(text) = value.as_str() {
        name = text.to_owned();
    } else {
        let table = value.table()?.knowing(DEVICE);
        table.set("name", &mut name, |value| value.string().map(str::to_owned));
        table.set("addresses", &mut addresses, |value| list(value, |item| item.parsed(parse_net)));
        table.set("routes", &mut routes, |value| list(value, |item| item.parsed(parse_net).map(|net| net.trunc())));
        table.set("mark", &mut mark, |value| value.number(0..u32::MAX.into()).map(Some));
    }
    Some(Routing::Device { name, addresses, routes, mark })
}
