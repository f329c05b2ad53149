//! Many peers on one connection that takes any.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use base::Instant;
use ike::PeerId;
use model::{Address, Connection, Identity, Selector, Start, Version};
use sim::Link;

use crate::host::{self, LEFT, RIGHT, connection};

const PEERS: u32 = 3;

/// What the peer of this number runs: all are at one address, each with a name and a network of its own.
fn of_peer(version: Version, number: u32) -> Connection {
    let mut connection = connection(version, LEFT, RIGHT);
    connection.local.id = Some(Identity::Fqdn(format!("peer-{number}")));
    connection.children[0].local = vec![Selector::net(format!("10.60.{number}.0/24").parse().unwrap())];
    connection
}

fn identities(world: &sim::World<host::Gateway>) -> BTreeSet<Option<Identity>> {
    world.hosts[1].established().into_iter().map(|view| view.remote_id).collect()
}

// peer-1, peer-2, peer-3 -- main mode or SA_INIT -> right; all of them renewed again and again
#[test]
fn strangers_that_share_a_connection_do_not_replace_each_other() {
    for version in [Version::V1, Version::V2] {
        let mut right = connection(version, RIGHT, LEFT);
        right.remote.address = Address::Any;
        right.remote.id = Some(Identity::Any);
        right.children[0].start = Start::Wait;
        let mut world = host::world_of(of_peer(version, 1), right, Link::default(), 5);
        for number in 1..=PEERS {
            let now = world.now;
            world.hosts[0].act(now, |endpoint| {
                endpoint.upsert_peer(PeerId(number), Arc::new(of_peer(version, number)), Instant::ZERO);
                endpoint.initiate(PeerId(number), None, now);
            });
        }
        for hours in [0, 1, 9, 20] {
            world.run_for(Duration::from_secs(hours * 3600 + 60));
            let expected: BTreeSet<_> = (1..=PEERS).map(|n| Some(Identity::Fqdn(format!("peer-{n}")))).collect();
            assert_eq!(identities(&world), expected, "{version:?}, {:#?}", world.hosts[1].failures());
            let established = world.hosts[1].established().len();
            assert!(established <= 2 * PEERS as usize, "{version:?}: {established} IKE SAs of {PEERS} peers");
        }
        // peer-2 comes back without a memory: its own old SAs go, those of the others stay.
        let (now, again) = (world.now, PeerId(PEERS + 1));
        world.hosts[0].act(now, |endpoint| {
            endpoint.upsert_peer(again, Arc::new(of_peer(version, 2)), Instant::ZERO);
            endpoint.initiate(again, None, now);
        });
        world.run_for(Duration::from_secs(10));
        let of_second = |view: &ike::IkeSaView| view.remote_id == Some(Identity::Fqdn("peer-2".into()));
        let established = world.hosts[1].established();
        assert_eq!(established.iter().filter(|view| of_second(view)).count(), 1, "{version:?}: {established:#?}");
        assert_eq!(identities(&world).len(), PEERS as usize, "{version:?}");
    }
}
