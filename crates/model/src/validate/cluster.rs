//! Whether a cluster makes sense.

use std::time::Duration;

use super::routing::Subject;
use super::{Found, Severity};
use crate::{Cluster, Config};

/// The fewest bytes of a key: whoever records what the members say can try guesses.
const SHORTEST: usize = 16;

pub(super) fn check(config: &Config, found: &mut Found) {
    let Some(cluster) = &config.cluster else { return };
    let Cluster { member, psk, local, peer, shared, preference: _, preempt: _, interval, dead_after, source } = cluster;
    let subject = Subject { about: "cluster".to_owned(), source };
    let mut wrong = Vec::new();
    if !(1..=2).contains(member) {
        wrong.push("member is 1 on one of the two gateways and 2 on the other".to_owned());
    }
    if psk.len() < SHORTEST {
        wrong.push(format!("its psk needs at least {SHORTEST} characters that nobody can guess"));
    }
    if local.is_empty() || local.len() != peer.len() {
        wrong.push("local and peer have an address and port for each path between the members".to_owned());
    }
    for (own, other) in local.iter().zip(peer) {
        if own == other || own.is_ipv4() != other.is_ipv4() {
            wrong.push(format!("{own} and {other} are not both ends of a path"));
        }
        if shared.iter().any(|address| [own.ip(), other.ip()].contains(&address.net.addr())) {
            wrong.push(format!("{own} - {other}: a shared address is no end of a path, it moves"));
        }
    }
    if shared.is_empty() {
        wrong.push("it shares no address".to_owned());
    }
    if *interval < Duration::from_millis(20) || *dead_after < *interval * 3 || *dead_after > Duration::from_secs(60) {
        wrong
            .push("dead-after is at least three times interval and at most 60s, and interval at least 20ms".to_owned());
    }
    if !config.gateway.listen.is_empty() {
        wrong.push("a gateway of a cluster listens at every address: remove listen".to_owned());
    }
    wrong.into_iter().for_each(|message| subject.error(message, found));
    if local.len() == 1 {
        let message = "there is one path between the members: when it fails both are active, so give them another";
        subject.problem(Severity::Warning, message.to_owned(), found);
    }
}
