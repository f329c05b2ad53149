//! The scenarios with strongSwan at both ends: the lab itself is held to the peers it stands on.
//! Needs root and strongSwan; says what it left out. The whole matrix is `simplon lab matrix`.

#![expect(clippy::unwrap_used, reason = "a panic in a test is the verdict")]

use std::io::Write;

use lab::{Error, Initiator, Options, PeerKind, Scenario, Version, run};

/// Says what a test left out, past the test harness, which keeps what passed tests print to itself.
fn left_out(why: &str) {
    let _ = writeln!(std::io::stderr(), "left out: {why}");
}

fn strongswan_twice() -> Option<Options> {
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0);
    if let Some(install) = PeerKind::Strongswan.missing() {
        left_out(&install.to_string());
        return None;
    }
    if !is_root {
        left_out("needs root");
        return None;
    }
    Some(Options { customer: PeerKind::Strongswan, cloud: PeerKind::Strongswan, ..Options::default() })
}

fn must_pass(scenario: Scenario, options: &Options) {
    let report = run(scenario, &Options { json: true, ..options.clone() }, Box::new(std::io::sink())).unwrap();
    assert!(report.passed, "{}", serde_json::to_string_pretty(&report).unwrap());
    assert!(report.checks.len() >= 12);
    assert!(report.wire.is_some_and(|tally| tally.leaks == 0 && tally.esp_in_udp > 20));
}

#[test]
fn an_openswan_gateway_behind_nat_in_both_versions_and_roles() {
    let Some(options) = strongswan_twice() else { return };
    for version in [Version::V1, Version::V2] {
        for initiator in [Initiator::Customer, Initiator::Cloud] {
            must_pass(Scenario::OpenswanVgw, &Options { version: Some(version), initiator, ..options.clone() });
        }
    }
}

#[test]
fn a_rekey_under_traffic_loses_nothing() {
    let Some(options) = strongswan_twice() else { return };
    must_pass(Scenario::NcpVgw, &options);
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_built() {
    let options = Options { customer: PeerKind::Strongswan, esn: true, ..Options::default() };
    let refused = run(Scenario::NcpVgw, &options, Box::new(std::io::sink()));
    assert!(matches!(refused, Err(Error::Asked(why)) if why.contains("extended sequence numbers")));
}
