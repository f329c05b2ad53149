//! Our address towards each peer, and the peers' names.
//!
//! A configuration may leave our address to the kernel (`%defaultroute`, `%any`) and give the peer's as a DNS name.
//! Both can change while the gateway runs, so both are asked for again and again.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use gateway::path_mtu::Source;
use model::{Address, Connection};
use os::netlink::Netlink;
use tokio::sync::mpsc;
use tracing::{debug, warn};

/// How often everything is asked for again.
pub const REFRESH: Duration = Duration::from_secs(30);
/// How often, while something is not known.
pub const RETRY: Duration = Duration::from_secs(2);

/// What was found for one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Our address towards the peer.
    pub local: Option<IpAddr>,
    /// The peer's address.
    pub remote: Option<IpAddr>,
    /// What interface and route to it take, in bytes, and which of them says so.
    pub path_mtu: Option<(u16, Source)>,
    /// What the kernel heard of the path to it by ICMP, where that is less.
    pub heard_mtu: Option<u16>,
}

/// Names and the addresses they stand for.
#[derive(Debug)]
pub struct Resolver {
    known: BTreeMap<Arc<str>, Option<IpAddr>>,
    answers: mpsc::UnboundedReceiver<(Arc<str>, Option<IpAddr>)>,
    answer: mpsc::UnboundedSender<(Arc<str>, Option<IpAddr>)>,
    asked: std::collections::BTreeSet<Arc<str>>,
}

impl Default for Resolver {
    fn default() -> Self {
        let (answer, answers) = mpsc::unbounded_channel();
        Self { known: BTreeMap::new(), answers, answer, asked: std::collections::BTreeSet::new() }
    }
}

impl Resolver {
    /// Asks for the names of these connections in the background; [`Resolver::answered`] tells of each.
    pub fn ask<'a>(&mut self, connections: impl Iterator<Item = &'a Arc<Connection>>) {
        for connection in connections {
            for side in [&connection.local, &connection.remote] {
                if let Address::Name(name) = &side.address {
                    self.look_up(name.as_str().into());
                }
            }
        }
    }

    fn look_up(&mut self, name: Arc<str>) {
        if !self.asked.insert(name.clone()) {
            return;
        }
        let (answer, is_news) = (self.answer.clone(), !self.known.contains_key(&name));
        tokio::spawn(async move {
            let found = match tokio::net::lookup_host((&*name, 0)).await {
                // The first: the resolver sorts by preference (RFC 6724).
                Ok(mut addresses) => addresses.next().map(|address| address.ip()),
                Err(e) if is_news => {
                    warn!("cannot resolve {name}, and tries again: {e}");
                    None
                }
                Err(e) => {
                    debug!("cannot resolve {name}: {e}");
                    None
                }
            };
            let _ = answer.send((name, found));
        });
    }

    /// Waits for the next answer that changes something.
    pub async fn answered(&mut self) {
        while let Some((name, found)) = self.answers.recv().await {
            self.asked.remove(&name);
            let known = self.known.entry(name.clone()).or_default();
            // An answer that fails leaves the last one standing: DNS may be behind the tunnel.
            if found.is_some() && *known != found {
                debug!("{name} is {found:?}");
                *known = found;
                return;
            }
        }
    }

    /// Whether a name of this connection was never answered for yet.
    pub fn is_asking(&self, connection: &Connection) -> bool {
        [&connection.local, &connection.remote].into_iter().any(|side| match &side.address {
            Address::Name(name) => !self.known.contains_key(name.as_str()),
            Address::Any | Address::Ip(_) | Address::Prefix(_) => false,
        })
    }

    /// What is known for a connection now.
    pub async fn find(&self, connection: &Connection, netlink: &Netlink) -> Found {
        let address = |of: &Address| match of {
            Address::Ip(ip) => Some(*ip),
            Address::Name(name) => self.known.get(name.as_str()).copied().flatten(),
            Address::Any | Address::Prefix(_) => None,
        };
        let remote = address(&connection.remote.address);
        let mut found = Found { local: address(&connection.local.address), remote, ..Found::default() };
        let Some(remote) = remote else { return found };
        if found.local.is_none() && !matches!(connection.local.address, Address::Name(_)) {
            match netlink.source_address_for(remote).await {
                Ok(source) => found.local = Some(source),
                Err(e) => debug!(connection = connection.name, "no address towards {remote}: {e}"),
            }
        }
        match netlink.mtu_to(remote).await {
            Ok(mtu) => {
                let bytes = |mtu: u32| u16::try_from(mtu).unwrap_or(u16::MAX);
                let from = if mtu.is_of_route { Source::Route } else { Source::Interface };
                found.path_mtu = Some((bytes(mtu.outgoing), from));
                found.heard_mtu = mtu.heard.map(bytes);
            }
            Err(e) => debug!(connection = connection.name, "no path MTU towards {remote}: {e}"),
        }
        found
    }
}

/// What a connection waits for that may still be found, in a sentence without a full stop.
pub fn waits_for(connection: &Connection, found: Found) -> Option<String> {
    match (&connection.remote.address, found.remote, found.local) {
        (Address::Any | Address::Prefix(_), ..) | (_, Some(_), Some(_)) => None,
        (Address::Name(name), None, _) => Some(format!("waits until {name} resolves to an address")),
        (Address::Ip(_), None, _) => None,
        (_, Some(remote), None) => Some(format!("waits until there is a route to {remote}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_says_what_it_waits_for() {
        let mut connection = Connection::named("a");
        connection.remote.address = Address::Name("vpn.example.com".into());
        let nothing = Found::default();
        let text = waits_for(&connection, nothing).unwrap();
        assert!(text.contains("vpn.example.com"), "{text}");
        let remote = Some("192.0.2.1".parse().unwrap());
        assert!(waits_for(&connection, Found { remote, ..nothing }).unwrap().contains("route to 192.0.2.1"));
        assert_eq!(waits_for(&connection, Found { remote, local: remote, ..nothing }), None);
        connection.remote.address = Address::Any;
        assert_eq!(waits_for(&connection, nothing), None);
    }
}
