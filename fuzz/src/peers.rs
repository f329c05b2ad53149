//! Connections for the targets that run whole machines.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base::Secret;
use base::algorithm::{Encryption, Group, Integrity, Prf};
use model::{
    Address, Child, Connection, Dpd, DpdAction, EspProposal, IkeProposal, Lifetime, Selector, Start, Version, Versions,
};

/// Our address where we are one gateway among others.
pub const OURS: &str = "203.0.113.2";
/// The address of the other gateway.
pub const THEIRS: &str = "198.51.100.2";

/// A socket address.
pub fn socket(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address(ip), port)
}

/// An address.
pub fn address(ip: &str) -> IpAddr {
    ip.parse().expect("it is an address")
}

/// A connection between two addresses with one child, ready to be started by either end. The key is one that nobody
/// guesses; groups are the cheapest to compute.
pub fn connection(version: Version, local: &str, remote: Option<&str>) -> Connection {
    let mut connection = Connection::named(format!("{version:?}"));
    connection.versions = Versions::Only(version);
    connection.local.address = Address::Ip(address(local));
    connection.remote.address = remote.map_or(Address::Any, |remote| Address::Ip(address(remote)));
    connection.psk = vec![Secret::from(&b"a key that nobody guesses"[..])];
    connection.dpd =
        Some(Dpd { delay: Duration::from_secs(10), timeout: Duration::from_secs(30), action: DpdAction::Restart });
    let is_v2 = version == Version::V2;
    connection.ike = vec![IkeProposal {
        encryption: vec![if is_v2 { Encryption::Aes128Gcm } else { Encryption::Aes128Cbc }],
        integrity: if is_v2 { vec![] } else { vec![Integrity::Sha1] },
        prf: vec![if is_v2 { Prf::Sha256 } else { Prf::Sha1 }],
        groups: vec![Group::Ecp256, Group::Curve25519, Group::Modp1024],
    }];
    let mut child = Child::named("net");
    child.esp = vec![EspProposal {
        encryption: vec![Encryption::Aes128Cbc],
        integrity: vec![Integrity::Sha1],
        groups: vec![Group::Ecp256],
        esn: vec![false],
    }];
    let nets = if local == OURS { ["10.50.0.0/16", "10.60.0.0/16"] } else { ["10.60.0.0/16", "10.50.0.0/16"] };
    let [ours, theirs] = nets.map(|net| vec![Selector::net(net.parse().expect("it is a net"))]);
    (child.local, child.remote) = (ours, theirs);
    child.start = Start::Wait;
    // IKEv1 deletes without being told that it was heard: what one end has alone lasts until it is rekeyed.
    child.lifetime = Lifetime {
        time: Duration::from_secs(600),
        margin: Duration::from_secs(60),
        fuzz_percent: 100,
        ..Lifetime::default()
    };
    connection.children = vec![child];
    connection
}

/// The same, shared.
pub fn shared(version: Version, local: &str, remote: Option<&str>) -> Arc<Connection> {
    Arc::new(connection(version, local, remote))
}
