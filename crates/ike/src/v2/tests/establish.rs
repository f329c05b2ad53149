//! From nothing to an established tunnel, and every way to fail.

use std::time::Duration;

use super::harness::*;
use crate::event::{CloseReason, Event};

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

// a -- IKE_SA_INIT -> b, a <- IKE_SA_INIT -- b, a -- IKE_AUTH -> b, a <- IKE_AUTH -- b
#[test]
fn four_messages_make_a_tunnel() {
    let world = World::established(1);
    assert_eq!(world.wire.len(), 4);
    assert!(world.nodes[A].has(|e| matches!(e, Event::IkeUp { rekeyed: false, .. })));
    assert!(world.nodes[B].has(|e| matches!(e, Event::ChildUp { replaces: None, .. })));
}

// a -- INFORMATIONAL { D } -> b, a <- INFORMATIONAL {} -- b
#[test]
fn a_closed_tunnel_is_gone_on_both_sides() {
    let mut world = World::established(1);
    world.command(A, |session, ctx| session.close(CloseReason::Command, ctx));
    world.run(secs(1));
    for (node, reason) in [(A, CloseReason::Command), (B, CloseReason::PeerDeleted)] {
        assert!(world.nodes[node].sessions.is_empty() && world.nodes[node].sas.is_empty());
        assert!(world.nodes[node].has(|e| matches!(e, Event::IkeDown { reason: r, .. } if *r == reason)));
    }
}
