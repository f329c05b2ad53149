//! Tests of the crate as a whole, with the Child SAs and packets that they share.

mod export;
mod flows;
mod golden;
mod identity;
mod joint;
mod shared;
mod tables;

use base::algorithm::{Encryption, Integrity};
use model::{DfPolicy, Routing, Selector};
use sa::{ChildKeys, ChildLabel, ChildSa, ChildSuite, DirectionKeys, Limits, Path, SaId, Spi, TrafficSelector};

pub(crate) fn suites() -> Vec<ChildSuite> {
    let mut all = Vec::new();
    for esn in [false, true] {
        for encryption in Encryption::ALL {
            let integrities = if encryption.is_aead() { vec![None] } else { Integrity::ALL.map(Some).to_vec() };
            all.extend(integrities.into_iter().map(|integrity| ChildSuite { encryption, integrity, esn }));
        }
    }
    all
}

pub(crate) fn gcm(esn: bool) -> ChildSuite {
    ChildSuite { encryption: Encryption::Aes128Gcm, integrity: None, esn }
}

pub(crate) fn net(text: &str) -> TrafficSelector {
    Selector::net(text.parse().unwrap()).into()
}

pub(crate) fn nets(texts: &[&str]) -> Vec<TrafficSelector> {
    texts.iter().map(|text| net(text)).collect()
}

pub(crate) fn label(name: &str) -> ChildLabel {
    ChildLabel { connection: name.into(), child: name.into() }
}

fn keys(suite: ChildSuite, seed: u8) -> DirectionKeys {
    let integrity = suite.integrity.map_or(0, Integrity::key_len);
    let encryption = suite.encryption.key_len() + suite.encryption.salt_len();
    let bytes = |len: usize, from: u8| (0..len).map(|i| from.wrapping_add(i as u8)).collect::<Vec<_>>();
    DirectionKeys { encryption: bytes(encryption, seed).into(), integrity: bytes(integrity, !seed).into() }
}

/// Our half of an SA for all traffic.
pub(crate) fn child(id: u64, suite: ChildSuite) -> ChildSa {
    ChildSa {
        id: SaId(id),
        label: label("alps"),
        inbound_spi: Spi(0x1000 + id as u32 * 2),
        outbound_spi: Spi(0x1001 + id as u32 * 2),
        suite,
        keys: ChildKeys { inbound: keys(suite, 7), outbound: keys(suite, 99) },
        path: Path { local: "192.0.2.1:4500".parse().unwrap(), remote: "192.0.2.2:4500".parse().unwrap(), udp: true },
        local: nets(&["0.0.0.0/0", "::/0"]),
        remote: nets(&["0.0.0.0/0", "::/0"]),
        routing: Routing::Policy,
        limits: Limits::default(),
        replay_window: 1024,
        df: DfPolicy::Honour,
        copy_dscp: true,
        mtu: None,
        mss: None,
    }
}

/// The same SA as the peer has it.
pub(crate) fn mirrored(child: &ChildSa) -> ChildSa {
    ChildSa {
        inbound_spi: child.outbound_spi,
        outbound_spi: child.inbound_spi,
        keys: ChildKeys { inbound: child.keys.outbound.clone(), outbound: child.keys.inbound.clone() },
        path: Path { local: child.path.remote, remote: child.path.local, udp: child.path.udp },
        local: child.remote.clone(),
        remote: child.local.clone(),
        ..child.clone()
    }
}

/// A UDP packet of this length, headers included.
pub(crate) fn udp(source: &str, destination: &str, len: usize) -> Vec<u8> {
    let headers = if source.starts_with('[') { 48 } else { 28 };
    let payload: Vec<u8> = (0..len - headers).map(|i| i as u8).collect();
    packet::build::udp(source.parse().unwrap(), destination.parse().unwrap(), &payload).unwrap()
}
