//! What two OPEN messages agree upon, and why they may not (RFC 4271 §6.2, RFC 5492 §3, RFC 6286, RFC 7607).

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::wire::{AS_TRANS, Capabilities, Code, GracefulRestart, LongLived, Notification, Open, Session, open_error};
use crate::{Asn, Families};

/// What holds on a session, once both OPEN messages were exchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// The neighbour's AS.
    pub asn: Asn,
    /// The neighbour's BGP Identifier.
    pub router_id: Ipv4Addr,
    /// The lesser of both Hold Times; zero: nobody sends KEEPALIVE messages, and nobody expects any.
    pub hold_time: Duration,
    /// Time between two KEEPALIVE messages of ours: as configured, and at most a third of the Hold Time.
    pub keepalive: Duration,
    /// The families that both speak.
    pub families: Families,
    /// Whether AS numbers have four octets.
    pub four_octet_as: bool,
    /// Whether the neighbour understands ROUTE-REFRESH.
    pub route_refresh: bool,
    /// Whether both say where a refresh begins and ends (RFC 7313).
    pub enhanced_refresh: bool,
    /// What the neighbour says about its restarts, where both speak of them.
    pub graceful_restart: Option<GracefulRestart>,
    /// What it says about long-lived stale routes, where both speak of them.
    pub long_lived: Option<LongLived>,
    /// All that the neighbour can do.
    pub capabilities: Capabilities,
}

impl Agreement {
    /// By what its UPDATE messages are read.
    pub(crate) fn wire_session(&self, local_as: Asn, enforce_first_as: bool, disabled: Families) -> Session {
        let is_internal = self.asn == local_as;
        Session {
            four_octet_as: self.four_octet_as,
            is_internal,
            families: without(self.families, disabled),
            first_as: Some(self.asn).filter(|_| enforce_first_as && !is_internal),
        }
    }
}

/// Those of `families` that are not in `others`.
pub(crate) const fn without(families: Families, others: Families) -> Families {
    Families { ipv4: families.ipv4 && !others.ipv4, ipv6: families.ipv6 && !others.ipv6 }
}

/// Those that are in both.
pub(crate) const fn common(a: Families, b: Families) -> Families {
    Families { ipv4: a.ipv4 && b.ipv4, ipv6: a.ipv6 && b.ipv6 }
}

/// What is expected of a neighbour.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expectation<'a> {
    /// Our OPEN.
    pub(crate) ours: &'a Open,
    /// Its AS.
    pub(crate) remote_as: Asn,
    /// The families that we want: as in our OPEN, and if that has no capabilities, as configured.
    pub(crate) families: Families,
    /// Time between two KEEPALIVE messages.
    pub(crate) keepalive: Duration,
}

/// Why an OPEN is not good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// What the neighbour is told.
    pub(crate) notification: Notification,
    /// What a person is told: what was found, what was expected, and what to change.
    pub(crate) sentence: String,
}

/// Looks at the neighbour's OPEN.
///
/// # Errors
/// When there can be no session with it.
pub(crate) fn check(theirs: &Open, expected: &Expectation<'_>) -> Result<Agreement, Refusal> {
    let refuse = |subcode, data: &[u8], sentence: String| {
        Err(Refusal { notification: Notification::new(Code::OPEN, subcode, data), sentence })
    };
    let (ours, remote_as) = (expected.ours, expected.remote_as);
    if theirs.asn != remote_as {
        let hint = if theirs.asn == Asn::from(AS_TRANS) && !theirs.capabilities.four_octet_as {
            "; it speaks AS numbers of two octets only"
        } else {
            ""
        };
        // RFC 7607 §3: AS 0 is a bad AS whatever is expected, and `remote_as` is never 0.
        let found = theirs.asn;
        let sentence = format!(
            "its AS is {found}, and {remote_as} was expected{hint}: set remote-as to {found}, or its AS to {remote_as}"
        );
        return refuse(open_error::BAD_PEER_AS, &[], sentence);
    }
    let is_internal = theirs.asn == ours.asn;
    if theirs.router_id.is_unspecified() || (is_internal && theirs.router_id == ours.router_id) {
        // RFC 6286 §2.1: unique within an AS, and not 0.
        let sentence = format!(
            "its BGP identifier is {}, {}: give it, or this gateway, another router-id",
            theirs.router_id,
            if theirs.router_id.is_unspecified() { "which is none" } else { "which is our own" }
        );
        return refuse(open_error::BAD_ROUTER_ID, &[], sentence);
    }
    if matches!(theirs.hold_time, 1 | 2) {
        let sentence = format!(
            "its hold time is {} s, and it must be 0 or at least 3 s: set a longer hold time on it",
            theirs.hold_time
        );
        return refuse(open_error::HOLD_TIME, &[], sentence);
    }
    let families = common(expected.families, theirs.capabilities.families_or_default());
    if families == Families::NONE {
        let wanted: Vec<u8> = expected.families.iter().flat_map(crate::wire::multiprotocol).collect();
        let sentence = format!(
            "it speaks {}, and {} was expected: change the families of one of the two",
            names(theirs.capabilities.families_or_default()),
            names(expected.families)
        );
        return refuse(open_error::CAPABILITY, &wanted, sentence);
    }
    let (mine, its) = (&ours.capabilities, &theirs.capabilities);
    let hold_time = Duration::from_secs(ours.hold_time.min(theirs.hold_time).into());
    Ok(Agreement {
        asn: theirs.asn,
        router_id: theirs.router_id,
        hold_time,
        keepalive: keepalive(hold_time, expected.keepalive),
        families,
        four_octet_as: mine.four_octet_as && its.four_octet_as,
        route_refresh: its.route_refresh,
        enhanced_refresh: mine.enhanced_refresh && its.enhanced_refresh,
        graceful_restart: its.graceful_restart.filter(|_| mine.graceful_restart.is_some()),
        // RFC 9494 §3.1: without the capability of graceful restart this one counts for nothing.
        long_lived: its.long_lived.filter(|_| mine.long_lived.is_some() && its.graceful_restart.is_some()),
        capabilities: its.clone(),
    })
}

/// RFC 4271 §4.4: a third of the Hold Time at most, and not more often than once a second.
pub(crate) fn keepalive(hold_time: Duration, configured: Duration) -> Duration {
    let third = hold_time / 3;
    if configured.is_zero() { third } else { configured.max(Duration::from_secs(1)).min(third) }
}

/// For people.
fn names(families: Families) -> &'static str {
    match (families.ipv4, families.ipv6) {
        (true, true) => "IPv4 and IPv6 unicast",
        (true, false) => "IPv4 unicast alone",
        (false, true) => "IPv6 unicast alone",
        (false, false) => "neither IPv4 nor IPv6 unicast",
    }
}
