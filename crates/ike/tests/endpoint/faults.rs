//! Six faults, two roles, two versions of IKE: the cause is named, and the line to change.

use std::time::Duration;

use base::Secret;
use base::algorithm::{Encryption, Group};
use ike::{Cause, Failure};
use model::{Connection, Identity, Selector, Setting, Source, Start, Version};
use sim::Link;

use crate::host::{self, LEFT, RIGHT, connection, initiate};

/// A fault is made on the left; `side` initiates; the failures of both ends come out.
fn failures(version: Version, initiator: usize, fault: fn(&mut Connection)) -> [Vec<Failure>; 2] {
    let mut left = with_sources(connection(version, LEFT, RIGHT));
    fault(&mut left);
    left.children[0].start = Start::Wait;
    let mut right = with_sources(connection(version, RIGHT, LEFT));
    right.children[0].start = Start::Wait;
    right.local.id = Some(Identity::Ip(RIGHT.parse().unwrap()));
    right.remote.id = Some(Identity::Ip(LEFT.parse().unwrap()));
    let mut world = host::world_of(left, right, Link::default(), 31);
    initiate(&mut world, initiator);
    world.run_for(Duration::from_secs(50));
    assert!(world.hosts.iter().all(|host| host.sas.is_empty()), "{version:?}: a tunnel came up in spite of the fault");
    [0, 1].map(|host| world.hosts[host].failures().into_iter().cloned().collect())
}

/// Gives each setting a line of its own.
fn with_sources(mut connection: Connection) -> Connection {
    let settings = [
        Setting::Connection,
        Setting::LocalId,
        Setting::RemoteId,
        Setting::Psk,
        Setting::Ike,
        Setting::Esp,
        Setting::LocalSelector,
        Setting::RemoteSelector,
    ];
    for (line, setting) in settings.into_iter().enumerate() {
        let source = Source { file: "aws.conf".into(), line: line as u32 + 1, text: setting.name().into() };
        connection.sources.set(setting, source);
    }
    connection
}

/// Runs a fault in both roles and versions. At each end some failure must satisfy `left` or `right`, and name the line
/// of one of `settings`.
fn check(
    fault: fn(&mut Connection),
    settings: &[Setting],
    left: impl Fn(&Cause) -> bool,
    right: impl Fn(&Cause) -> bool,
) {
    for version in [Version::V1, Version::V2] {
        for initiator in [0, 1] {
            let [ours, theirs] = failures(version, initiator, fault);
            for (failures, fits, name) in
                [(&ours, &left as &dyn Fn(&Cause) -> bool, "left"), (&theirs, &right, "right")]
            {
                let causes: Vec<_> = failures.iter().map(ToString::to_string).collect();
                let found = failures.iter().find(|failure| fits(&failure.cause));
                let found =
                    found.unwrap_or_else(|| panic!("{version:?}, {initiator} initiates, {name} says {causes:#?}"));
                let named = |fix: &ike::Fix| fix.source.is_some() && settings.contains(&fix.setting);
                assert!(found.fixes.iter().any(named), "{version:?}, {initiator} initiates, {name}: {found}");
                assert!(!found.to_string().contains("cloudneta"));
            }
        }
    }
}

/// Whether a cause names the identity that the other end claimed, or is the other end's refusal to be asked for an
/// identity that it does not have.
fn is_about(cause: &Cause, claimed: &Identity) -> bool {
    matches!(cause, Cause::PeerRefusedUs { .. })
        || matches!(cause, Cause::WrongRemoteId { got, .. } if got == claimed)
        || matches!(cause, Cause::UnknownPeer { claimed: Some(got) } if got == claimed)
}

#[test]
fn a_wrong_key_is_named_at_both_ends() {
    let psk = |cause: &Cause| matches!(cause, Cause::WrongPsk | Cause::PeerRefusedUs { .. });
    check(|left| left.psk = vec![Secret::from(&b"wrong"[..])], &[Setting::Psk], psk, psk);
}

#[test]
fn an_identity_that_the_peer_does_not_expect_is_named() {
    check(
        |left| left.local.id = Some(Identity::Fqdn("someone.else".into())),
        &[Setting::LocalId, Setting::RemoteId],
        |cause| matches!(cause, Cause::PeerRefusedUs { claimed } | Cause::WrongLocalId { ours: claimed, .. } if *claimed == Identity::Fqdn("someone.else".into())),
        |cause| is_about(cause, &Identity::Fqdn("someone.else".into())),
    );
}

#[test]
fn an_identity_that_the_peer_does_not_have_is_named() {
    check(
        |left| left.remote.id = Some(Identity::Fqdn("expected.example".into())),
        &[Setting::RemoteId, Setting::LocalId],
        |cause| is_about(cause, &Identity::Ip(RIGHT.parse().unwrap())),
        |cause| matches!(cause, Cause::PeerRefusedUs { .. } | Cause::WrongLocalId { .. } | Cause::PeerSaid(_)),
    );
}

#[test]
fn phase_1_proposals_without_a_common_suite_are_shown_side_by_side() {
    check(
        |left| {
            left.ike[0].encryption =
                vec![if left.ike[0].integrity.is_empty() { Encryption::Aes256Gcm } else { Encryption::Aes256Cbc }]
        },
        &[Setting::Ike],
        |cause| matches!(cause, Cause::NoIkeProposal),
        |cause| matches!(cause, Cause::NoIkeProposal),
    );
}

#[test]
fn phase_2_proposals_without_a_common_suite_are_shown_side_by_side() {
    check(
        |left| left.children[0].esp[0].encryption = vec![Encryption::Aes256Cbc],
        &[Setting::Esp],
        |cause| matches!(cause, Cause::NoChildProposal),
        |cause| matches!(cause, Cause::NoChildProposal),
    );
}

#[test]
fn selectors_with_nothing_in_common_are_shown_side_by_side() {
    check(
        |left| left.children[0].remote = vec![Selector::net("172.31.0.0/16".parse().unwrap())],
        &[Setting::RemoteSelector, Setting::LocalSelector],
        |cause| matches!(cause, Cause::NoSelector),
        |cause| matches!(cause, Cause::NoSelector),
    );
}

#[test]
fn a_group_that_only_one_end_has_is_named() {
    check(
        |left| left.ike[0].groups = vec![Group::Modp2048],
        &[Setting::Ike],
        |cause| matches!(cause, Cause::NoIkeProposal | Cause::NoGroup { .. }),
        |cause| matches!(cause, Cause::NoIkeProposal | Cause::NoGroup { .. }),
    );
}

#[test]
fn the_end_that_knows_both_offers_names_the_nearest_match() {
    let [_, right] = failures(Version::V2, 0, |left| left.ike[0].groups = vec![Group::Modp2048]);
    let (_, _, differences) = right[0].nearest().unwrap();
    assert_eq!(differences, ["group"]);
}

// left -- main mode -> right, then left -- quick mode -> (lost), left -- DELETE -> right
#[test]
fn a_peer_that_deletes_phase_1_right_after_our_identity_has_refused_it() {
    let mut right = with_sources(connection(Version::V1, RIGHT, LEFT));
    right.children[0].start = Start::Wait;
    let mut world = host::world_of(connection(Version::V1, LEFT, RIGHT), right, Link::default(), 32);
    initiate(&mut world, 0);
    assert!(world.run_until(base::Instant::from_micros(1_000_000), |world| !world.hosts[0].established().is_empty()));
    world.network.is_cut = true;
    world.run_for(Duration::from_millis(20));
    world.network.is_cut = false;
    let now = world.now;
    world.hosts[0].act(now, |endpoint| endpoint.terminate(host::PEER, None, now));
    world.run_for(Duration::from_secs(1));
    let failures = world.hosts[1].failures();
    let Cause::PeerRefusedUs { claimed } = &failures[0].cause else { panic!("{failures:?}") };
    assert_eq!(*claimed, Identity::Ip(RIGHT.parse().unwrap()));
    assert!(failures[0].fixes.iter().any(|fix| fix.setting == Setting::LocalId && fix.source.is_some()));
}
