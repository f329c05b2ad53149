//! Strangers in large numbers.

use std::time::Duration;

use ike::{DropReason, Options};
use model::{Address, Start, Version};
use sim::{Datagram, Link};

use crate::host::{self, LEFT, RIGHT, agree, connection, initiate, settles_within};

/// A first message of the left gateway, as it went over the wire.
fn first_message(version: Version) -> Datagram {
    let mut world = host::world(version, Link::default(), 99);
    initiate(&mut world, 0);
    world.run_for(Duration::from_millis(1));
    world.network.wire[0].clone()
}

// strangers -- SA_INIT (forged sources) x 20,000 -> right
#[test]
fn a_flood_of_first_messages_keeps_no_one_out() {
    for version in [Version::V1, Version::V2] {
        let mut right = connection(version, RIGHT, LEFT);
        right.remote.address = Address::Any;
        right.remote.id = Some(model::Identity::Ip(LEFT.parse().unwrap()));
        right.children[0].start = Start::Wait;
        let mut world = host::world_of(connection(version, LEFT, RIGHT), right, Link::default(), 21);
        initiate(&mut world, 0);
        assert!(settles_within(&mut world, Duration::from_secs(1)), "{version:?}");
        let before = world.hosts[1].sas.clone();
        let forged = first_message(version);
        for number in 0u32..20_000 {
            let mut datagram = forged.clone();
            datagram.payload[..8].copy_from_slice(&(u64::from(number) + 1).to_be_bytes());
            datagram.source = host::socket(&format!("198.18.{}.{}", number / 250 % 250, number % 250), 500);
            world.network.send(datagram, world.now);
            if number % 10 == 0 {
                world.run_for(Duration::from_millis(1));
            }
            assert!(world.hosts[1].endpoint.half_open() <= Options::default().half_open_limit);
        }
        world.run_for(Duration::from_millis(50));
        assert_eq!(world.hosts[1].sas, before, "{version:?}: the tunnel that was up is hurt");
        if version == Version::V2 {
            assert!(world.hosts[1].endpoint.counters().cookies_sent > 19_000);
            assert!(world.hosts[1].endpoint.half_open() <= Options::default().cookie_threshold);
        } else {
            assert!(world.hosts[1].endpoint.counters().dropped(DropReason::HalfOpenLimit) > 18_000);
        }
        // A real peer still gets in: the left gateway restarts.
        world.hosts[0] = host::Gateway::new(LEFT, connection(version, LEFT, RIGHT), Options::default(), 78);
        initiate(&mut world, 0);
        world.run_for(Duration::from_secs(40));
        assert!(agree(&world), "{version:?}: {:?}", world.hosts[0].failures());
    }
}

#[test]
fn noise_is_counted_by_its_reason_and_changes_nothing() {
    let mut world = host::world(Version::V2, Link::default(), 22);
    initiate(&mut world, 0);
    assert!(settles_within(&mut world, Duration::from_secs(1)));
    let (here, there) = (host::socket(RIGHT, 500), host::socket(LEFT, 500));
    let header = |major: u8, spi: u8| {
        let mut bytes = vec![spi; 28];
        bytes[17] = major << 4;
        bytes[24..].copy_from_slice(&28u32.to_be_bytes());
        bytes
    };
    let mut lying = header(2, 1);
    lying[27] = 27;
    let cases = [
        (vec![1; 5], DropReason::Malformed),
        (lying, DropReason::Malformed),
        (header(2, 9), DropReason::UnknownSpi),
        (header(1, 9), DropReason::UnknownSpi),
        (header(3, 9), DropReason::UnknownVersion),
    ];
    for (payload, reason) in cases {
        let before = world.hosts[1].endpoint.counters().dropped(reason);
        let now = world.now;
        world.hosts[1].act(now, |endpoint| endpoint.handle_datagram(here, there, &payload, now));
        assert_eq!(world.hosts[1].endpoint.counters().dropped(reason), before + 1, "{payload:?}");
    }
    world.run_for(Duration::from_secs(1));
    assert!(agree(&world));
}
