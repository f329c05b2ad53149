//! A bad link for a long time, over many seeds: whatever happens, the two sides end joined, with nothing left over.

use std::time::Duration;

use base::algorithm::Group;
use model::{Dpd, DpdAction, IkeLifetime, Lifetime};

use super::harness::*;

fn restless(seed: u64) -> World {
    let mut world = World::with(seed, |a, b| {
        for (c, action) in [(&mut *a, DpdAction::Restart), (&mut *b, DpdAction::Clear)] {
            c.ike_lifetime = IkeLifetime { time: secs(300), margin: secs(100), fuzz_percent: 100 };
            c.children[0].lifetime =
                Lifetime { time: secs(120), margin: secs(40), fuzz_percent: 100, bytes: None, packets: None };
            c.dpd = Some(Dpd { delay: secs(15), timeout: Duration::ZERO, action });
        }
        a.children[0].start = model::Start::AtOnce;
        if seed % 4 == 1 {
            a.children[0].esp[0].groups = vec![Group::Ecp256];
            b.children[0].esp[0].groups = vec![Group::Ecp256];
        }
        if seed % 5 == 1 {
            b.remote.address = model::Address::Any;
            (a.local.id, b.remote.id) = (fqdn("a"), fqdn("a"));
        }
    });
    world.nodes[A].restarts = true;
    if seed % 3 == 1 {
        world.nodes.iter_mut().for_each(|node| node.options.fragment_size = 200);
    }
    if seed % 5 == 1 {
        world.nat = Some(Nat { public: "203.0.113.9".parse().unwrap(), shift: 20_000 });
    }
    world
}

/// Ten minutes of rekeys on a bad link, then a good one until all repetitions are over.
fn weather(seed: u64) -> World {
    let mut world = restless(seed);
    world.link = Link::BAD;
    world.initiate(A);
    world.run(secs(600));
    world.link = Link::PERFECT;
    // A rekey may be under way at any moment: look again a little later.
    world.run(secs(200));
    for _ in 0..600 {
        let is_quiet = |node: &Node| node.sessions.len() == 1 && node.sas.len() == 1 && node.live().len() == 1;
        if world.nodes.iter().all(is_quiet) {
            break;
        }
        world.run(Duration::from_millis(500));
    }
    world
}

#[test]
fn after_loss_repetition_and_reordering_exactly_one_tunnel_is_left() {
    let seeds = std::env::var("STORM_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000);
    let (mut ike, mut child, mut dead) = (0, 0, 0);
    for seed in 0..seeds {
        let world = weather(seed);
        let left = world.nodes.each_ref().map(|node| (node.sessions.len(), node.sas.len()));
        assert_eq!(left, [(1, 1), (1, 1)], "seed {seed}");
        world.assert_joined();
        world.assert_clean();
        ike += world.nodes[A].counters.ike_rekeys;
        child += world.nodes[A].counters.child_rekeys;
        dead += world.nodes[A].counters.established - 1;
    }
    assert!(ike > seeds && child > 3 * seeds, "{ike} {child} {dead}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| format!("{:?}", weather(seed).wire);
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

#[test]
fn a_week_of_rekeys_on_a_good_link_loses_nothing() {
    let mut world = restless(1);
    world.initiate(A);
    world.run(secs(7 * 24 * 3_600));
    for node in &world.nodes {
        assert_eq!(node.failures(), [""; 0]);
        assert_eq!(node.counters.established, 1);
    }
    world.run(Duration::from_millis(500));
    assert!(world.nodes.iter().all(|node| node.live().len() == 1));
}
