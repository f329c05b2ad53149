//! Whether a configuration makes sense before anything is started.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use crate::{Address, Config, Connection, Identity, Routing, Setting, Source, Version, Versions};

mod cluster;
mod routing;

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It works, but a person should know.
    Warning,
    /// It cannot work.
    Error,
}

/// Something about a configuration that does not make sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// What it is about, such as `connection office`.
    pub about: String,
    /// Which setting of a connection to change.
    pub setting: Option<Setting>,
    /// The line to change, where it is known.
    pub source: Option<Source>,
    /// What is wrong, in a sentence without a full stop.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.about, self.message)
    }
}

/// Everything about `config` that does not make sense, worst first.
pub fn validate(config: &Config) -> Vec<Problem> {
    let mut found = Found(Vec::new());
    let mut names = BTreeSet::new();
    for connection in &config.connections {
        if !names.insert(&connection.name) {
            found.error(connection, Setting::Connection, "this name is used twice".to_owned());
        }
        check_peers(connection, &mut found);
        check_proposals(connection, &mut found);
        check_lifetimes(connection, &mut found);
        check_children(connection, &mut found);
    }
    check_devices(config, &mut found);
    routing::check(config, &mut found);
    cluster::check(config, &mut found);
    found.0.sort_by_key(|problem| std::cmp::Reverse(problem.severity));
    found.0
}

struct Found(Vec<Problem>);

impl Found {
    fn error(&mut self, connection: &Connection, setting: Setting, message: String) {
        self.push(Severity::Error, connection, setting, message);
    }

    fn warning(&mut self, connection: &Connection, setting: Setting, message: String) {
        self.push(Severity::Warning, connection, setting, message);
    }

    fn push(&mut self, severity: Severity, connection: &Connection, setting: Setting, message: String) {
        let (about, source) = (format!("connection {}", connection.name), connection.sources.of(setting).cloned());
        self.0.push(Problem { severity, about, setting: Some(setting), source, message });
    }
}

fn check_peers(connection: &Connection, found: &mut Found) {
    if connection.psk.is_empty() {
        let message = "it has no pre-shared key for these two identities".to_owned();
        found.error(connection, Setting::Psk, message);
    }
    if connection.psk.iter().any(base::Secret::is_empty) {
        found.error(connection, Setting::Psk, "a pre-shared key is empty".to_owned());
    }
    if let (Some(ours), Some(theirs)) = (connection.local.address.ip(), connection.remote.address.ip()) {
        if ours == theirs {
            let message = format!("both sides have the address {ours}");
            found.error(connection, Setting::RemoteAddress, message);
        } else if ours.is_ipv4() != theirs.is_ipv4() {
            let message = format!("{ours} cannot reach {theirs}: one is IPv4, the other IPv6");
            found.error(connection, Setting::RemoteAddress, message);
        }
    }
    let starts = connection.children.iter().any(|child| child.start != crate::Start::Wait);
    if starts && matches!(connection.remote.address, Address::Any | Address::Prefix(_)) {
        let message = "it is to be started, but the peer's address is not known; only the peer can begin".to_owned();
        found.warning(connection, Setting::RemoteAddress, message);
    }
    if connection.local.id == Some(Identity::Any) {
        found.warning(connection, Setting::LocalId, "our identity cannot be %any: our address is used".to_owned());
    }
}

fn check_proposals(connection: &Connection, found: &mut Found) {
    if connection.ike.is_empty() {
        found.error(connection, Setting::Ike, "it has no phase 1 proposal".to_owned());
    }
    for proposal in &connection.ike {
        let aead = proposal.encryption.iter().any(|e| e.is_aead());
        let plain = proposal.encryption.iter().any(|e| !e.is_aead());
        if proposal.encryption.is_empty() || proposal.groups.is_empty() || proposal.prf.is_empty() {
            let message = format!("phase 1 proposal {proposal} needs encryption, a hash and a group");
            found.error(connection, Setting::Ike, message);
        } else if plain && (aead || proposal.integrity.is_empty()) {
            let message = format!("phase 1 proposal {proposal} does not say how integrity is kept");
            found.error(connection, Setting::Ike, message);
        }
        if aead && connection.versions == Versions::Only(Version::V1) {
            let message = format!("phase 1 proposal {proposal} needs IKEv2");
            found.error(connection, Setting::Ike, message);
        }
        warn_weak(connection, Setting::Ike, &proposal.weak(), found);
    }
    for (child, proposal) in connection.children.iter().flat_map(|child| child.esp.iter().map(move |p| (child, p))) {
        let aead = proposal.encryption.iter().any(|e| e.is_aead());
        let plain = proposal.encryption.iter().any(|e| !e.is_aead());
        let is_guarded = !plain || !aead && !proposal.integrity.is_empty();
        if proposal.encryption.is_empty() || proposal.esn.is_empty() || !is_guarded {
            let message = format!("phase 2 proposal {proposal} of {} needs encryption and integrity", child.name);
            found.error(connection, Setting::Esp, message);
        }
        warn_weak(connection, Setting::Esp, &proposal.weak(), found);
    }
}

fn warn_weak(connection: &Connection, setting: Setting, weak: &[String], found: &mut Found) {
    if !weak.is_empty() {
        let message = format!("the {} has weak algorithms: {}", setting.name(), weak.join(", "));
        found.warning(connection, setting, message);
    }
}

fn check_lifetimes(connection: &Connection, found: &mut Found) {
    if connection.ike_lifetime.time.is_zero() {
        found.error(connection, Setting::Lifetime, "the lifetime of phase 1 is zero".to_owned());
    }
    for child in &connection.children {
        if child.lifetime.time.is_zero() {
            found.error(connection, Setting::Lifetime, format!("the lifetime of {} is zero", child.name));
        }
        if child.lifetime.margin >= child.lifetime.time {
            let message = format!(
                "the rekey margin of {} ({} s) is not shorter than its lifetime ({} s): it rekeys at half time",
                child.name,
                child.lifetime.margin.as_secs(),
                child.lifetime.time.as_secs()
            );
            found.warning(connection, Setting::Lifetime, message);
        }
        if !(64..=8192).contains(&child.replay_window) {
            let message =
                format!("the replay window of {} must be 64 to 8192, not {}", child.name, child.replay_window);
            found.error(connection, Setting::Connection, message);
        }
    }
}

fn check_children(connection: &Connection, found: &mut Found) {
    if connection.children.is_empty() {
        found.error(connection, Setting::Connection, "it protects no traffic".to_owned());
    }
    let mut names = BTreeSet::new();
    for child in &connection.children {
        if !names.insert(&child.name) {
            found.error(connection, Setting::Connection, format!("the child {} stands there twice", child.name));
        }
        if child.esp.is_empty() {
            found.error(connection, Setting::Esp, format!("{} has no phase 2 proposal", child.name));
        }
        for (selectors, setting) in [(&child.local, Setting::LocalSelector), (&child.remote, Setting::RemoteSelector)] {
            if selectors.is_empty() {
                found.error(connection, setting, format!("{} has no {}", child.name, setting.name()));
            }
            if selectors.iter().any(|s| s.ports.0 > s.ports.1) {
                found.error(connection, setting, format!("{}: a port range ends before it begins", child.name));
            }
        }
        let family = |ip: IpAddr| ip.is_ipv4();
        let (local, remote) = (&child.local, &child.remote);
        let pairs = local.iter().any(|l| remote.iter().any(|r| family(l.net.addr()) == family(r.net.addr())));
        if !local.is_empty() && !remote.is_empty() && !pairs {
            let message = format!("{}: its two sides have no address family in common", child.name);
            found.error(connection, Setting::RemoteSelector, message);
        }
    }
}

/// Two tunnels cannot share a device, and a route to the peer must not lead into its own tunnel.
fn check_devices(config: &Config, found: &mut Found) {
    let mut devices = BTreeSet::new();
    for connection in &config.connections {
        for child in &connection.children {
            let Routing::Device { name, routes, .. } = &child.routing else { continue };
            if name.is_empty() || name.len() > 15 || name.contains(['/', ' ']) {
                found.error(connection, Setting::Connection, format!("{name:?} cannot be the name of a device"));
            }
            if !devices.insert(name) {
                found.error(connection, Setting::Connection, format!("the device {name} has two tunnels"));
            }
            let own = connection.remote.address.ip();
            if let Some(route) = own.and_then(|ip| routes.iter().find(|net| net.prefix_len() > 0 && net.contains(&ip)))
            {
                let message = format!("the route {route} would send the tunnel's own packets into the tunnel");
                found.error(connection, Setting::RemoteAddress, message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Child, Selector, Start};

    fn connection() -> Connection {
        let mut connection = Connection::named("site");
        connection.remote.address = Address::Ip("192.0.2.1".parse().unwrap());
        connection.psk = vec![base::Secret::from(&b"key"[..])];
        let mut child = Child::named("site");
        child.local = vec![Selector::net("10.1.0.0/16".parse().unwrap())];
        child.remote = vec![Selector::net("10.2.0.0/16".parse().unwrap())];
        child.start = Start::AtOnce;
        connection.children = vec![child];
        connection
    }

    fn problems(change: impl FnOnce(&mut Connection)) -> Vec<Problem> {
        let mut connection = connection();
        change(&mut connection);
        validate(&Config { connections: vec![connection], ..Config::default() })
    }

    #[test]
    fn a_plain_connection_has_no_problem() {
        assert_eq!(problems(|_| ()), []);
    }

    #[test]
    fn each_contradiction_is_named_with_the_setting_to_change() {
        type Change = fn(&mut Connection);
        let cases: [(Change, Setting); 6] = [
            (|c| c.psk.clear(), Setting::Psk),
            (|c| c.local.address = c.remote.address.clone(), Setting::RemoteAddress),
            (|c| c.ike.clear(), Setting::Ike),
            (|c| c.children[0].esp.clear(), Setting::Esp),
            (|c| c.children[0].local.clear(), Setting::LocalSelector),
            (|c| c.children[0].remote = vec![Selector::net("2001:db8::/32".parse().unwrap())], Setting::RemoteSelector),
        ];
        for (change, setting) in cases {
            let found = problems(change);
            assert!(
                found.iter().any(|p| p.severity == Severity::Error && p.setting == Some(setting)),
                "{setting:?}: {found:?}"
            );
        }
    }

    #[test]
    fn errors_come_before_warnings() {
        let found = problems(|c| {
            c.ike[1].groups = vec![base::algorithm::Group::Modp1024];
            c.children[0].replay_window = 1;
        });
        assert_eq!(found.iter().map(|p| p.severity).collect::<Vec<_>>(), [Severity::Error, Severity::Warning]);
    }

    #[test]
    fn a_tunnel_does_not_carry_its_own_packets() {
        let found = problems(|c| {
            c.children[0].routing = Routing::Device {
                name: "tunnel1".into(),
                addresses: vec![],
                routes: vec!["192.0.2.0/24".parse().unwrap()],
                mark: None,
            };
        });
        assert_eq!(found[0].setting, Some(Setting::RemoteAddress));
    }
}
