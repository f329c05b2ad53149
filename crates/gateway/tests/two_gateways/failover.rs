//! A gateway is silent, and another goes on with what it was told: its data path, its connections, its place in the world.
//! The silent one may live.

use std::collections::BTreeSet;
use std::time::Duration;

use base::{Instant, Machine, Random};
use esp::export::ExportedSa;
use esp::shared::Mark;
use gateway::{Command, ExportedOne, Output, RekeyWhat, State};
use model::{Config, Connection, Start};
use sa::{RESERVE, SaChange, SaId};
use sim::{Link, World};

use crate::Site;
use crate::site::{INNER, both_ways, come_up, connection, world_with};

const SECOND: Duration = Duration::from_secs(1);

fn through_bytes<T: serde::Serialize + for<'de> serde::Deserialize<'de>>(exported: &T) -> T {
    serde_json::from_str(&serde_json::to_string(exported).unwrap()).unwrap()
}

/// What a gateway that stands by has been told.
struct Told {
    at: Instant,
    ones: Vec<ExportedOne>,
    sas: Vec<ExportedSa>,
    activated: Vec<SaId>,
    marks: Vec<Mark>,
}

/// The active one tells everything.
fn tell(site: &mut Site, at: Instant) -> Told {
    let marks = through_bytes(&site.data.share());
    let ones = site.gateway.numbers().into_iter().filter_map(|id| site.gateway.export_one(id, at));
    let ones = ones.map(|one| through_bytes(&one)).collect();
    Told { at, ones, sas: through_bytes(&site.data.export(at)), activated: site.data.activated(), marks }
}

fn own(place: usize) -> Connection {
    connection(place, if place == 0 { Start::AtOnce } else { Start::Wait })
}

fn config(connections: Vec<Connection>) -> Config {
    Config { connections, ..Config::default() }
}

/// Another gateway, which held the world of the same connections until now, goes on; the one before is returned.
fn fail_over(world: &mut World<Site>, place: usize, told: Told, seed: u64) -> Site {
    let now = world.now;
    let mut next = Site::new(place, seed + 1_000);
    let mut held = own(place);
    held.children[0].start = Start::Wait;
    next.load(vec![held], now);
    for sa in told.sas {
        next.data.apply(&SaChange::Install(Box::new(sa.into_child(told.at)))).unwrap();
    }
    next.data.succeed(&told.marks).unwrap();
    next.data.activate_all(&told.activated).unwrap();
    let ones = told.ones.into_iter().map(|one| (one, told.at)).collect();
    next.gateway.succeed(ones, Random::for_test(seed + 2_000), now).unwrap();
    next.gateway.apply(config(vec![own(place)]), now);
    next.settle(now);
    std::mem::replace(&mut world.hosts[place], next)
}

fn spis(world: &World<Site>, place: usize) -> Vec<(String, String)> {
    let status = world.hosts[place].connection("site", world.now);
    status.ike_sas.iter().map(|sa| (sa.initiator_spi.clone(), sa.responder_spi.clone())).collect()
}

/// SPI and number of each packet of ESP that was sent, those of `beside` too; how many came twice.
fn used_twice(world: &World<Site>, beside: &[Vec<u8>]) -> usize {
    // On the other port there is IKE alone, without a marker.
    let wire = world.network.wire.iter().filter(|datagram| datagram.source.port() == 4_500);
    let all = wire.map(|datagram| &datagram.payload).chain(beside);
    let mut esp: Vec<_> = all.filter(|payload| payload[..4] != [0; 4] && payload.len() > 8).collect();
    esp.sort();
    // The same bytes again are a repetition on the way.
    esp.dedup();
    let distinct: BTreeSet<_> = esp.iter().map(|payload| payload[..8].to_vec()).collect();
    esp.len() - distinct.len()
}

#[test]
fn tunnels_go_on_at_once_and_again_and_again_without_a_new_ike_sa() {
    let mut world = world_with(Start::AtOnce, Link::default(), 3, |_, _| ());
    assert!(come_up(&mut world, SECOND));
    world.run_for(10 * SECOND);
    let before = spis(&world, 0);
    for round in 0..6 {
        let place = round % 2;
        let now = world.now;
        let told = tell(&mut world.hosts[place], now);
        // Some packets that the other never heard of.
        assert!(both_ways(&mut world) && both_ways(&mut world));
        world.run_for(SECOND);
        fail_over(&mut world, place, told, round as u64);
        assert_eq!(world.hosts[place].state(world.now), State::Up);
        assert!(both_ways(&mut world), "round {round}");
        world.run_for(5 * SECOND);
        assert_eq!(world.hosts[place].refused, Vec::<String>::new());
        assert_eq!(spis(&world, 0), before);
    }
    assert_eq!(used_twice(&world, &[]), 0);
    let highest = world.hosts[0].data.marks()[0].next;
    assert!(highest > 3 * RESERVE && highest < 12 * RESERVE, "{highest}");
}

#[test]
fn who_lives_on_seals_with_no_number_of_its_heir_also_in_the_middle_of_a_rekey() {
    for step in 0..30 {
        let mut world = world_with(Start::AtOnce, Link::default(), step, |_, _| ());
        assert!(come_up(&mut world, 60 * SECOND));
        world.run_for(100 * SECOND);
        let what = if step % 2 == 0 { RekeyWhat::Children } else { RekeyWhat::Ike };
        let (place, now) = ((step / 2 % 2) as usize, world.now);
        world.hosts[place].order(Command::Rekey { target: "site".into(), what }, now);
        world.run_for(Duration::from_millis(step * 3));
        let now = world.now;
        let told = tell(&mut world.hosts[place], now);
        let mut old = fail_over(&mut world, place, told, step);
        let mut beside = Vec::new();
        for round in 0..50 {
            let now = world.now;
            both_ways(&mut world);
            // It hears what the peer says to its heir, and sends what a host behind it has to say.
            let heard: Vec<_> = world.network.wire.iter().rev().take(8).cloned().collect();
            for datagram in heard {
                sim::Host::receive(&mut old, datagram, now);
            }
            old.send(INNER[place], INNER[1 - place], now);
            beside.extend(sim::Host::outgoing(&mut old).into_iter().map(|datagram| datagram.payload));
            world.run_for(Duration::from_millis(10 + round));
        }
        assert_eq!(used_twice(&world, &beside), 0, "step {step}");
        world.run_for(100 * SECOND);
        assert!(both_ways(&mut world), "step {step}");
    }
}

#[test]
fn who_stands_by_again_forgets_its_sas_and_tells_nobody() {
    let mut world = world_with(Start::AtOnce, Link::default(), 4, |_, _| ());
    assert!(come_up(&mut world, SECOND));
    let now = world.now;
    let gateway = &mut world.hosts[0].gateway;
    let ids = gateway.sas();
    gateway.stand_by(Random::for_test(9), now);
    gateway.apply(config(vec![connection(0, Start::Wait)]), now);
    let outputs: Vec<Output> = std::iter::from_fn(|| gateway.poll_output()).collect();
    for id in &ids {
        assert!(outputs.contains(&Output::Sa(SaChange::Remove(*id))), "{outputs:?}");
    }
    assert!(!outputs.iter().any(|output| matches!(output, Output::Transmit(_))), "{outputs:?}");
    assert!(gateway.sas().is_empty() && !gateway.has_sas());
    assert!(gateway.poll_timeout().is_none_or(|deadline| deadline.at > now + 3_600 * SECOND));
}
