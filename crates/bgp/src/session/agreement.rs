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
            "its AS is {found}, and {remote_as} was expected{hint}: set the neighbour's as to {found}, or its AS to {remote_as}"
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

#[cfg(test)]
mod tests {
    use super::*;

    fn open(asn: Asn, router_id: [u8; 4], hold_time: u16, families: Families) -> Open {
        let capabilities = Capabilities {
            families: Some(families),
            four_octet_as: true,
            route_refresh: true,
            ..Capabilities::default()
        };
        Open { asn, hold_time, router_id: router_id.into(), capabilities }
    }

    fn ours() -> Open {
        open(65000, [10, 0, 0, 1], 30, Families::ALL)
    }

    fn theirs() -> Open {
        open(64512, [10, 0, 0, 2], 90, Families::ALL)
    }

    fn verdict(theirs: &Open) -> Result<Agreement, Refusal> {
        let (ours, keepalive) = (ours(), Duration::from_secs(10));
        check(theirs, &Expectation { ours: &ours, remote_as: 64512, families: Families::ALL, keepalive })
    }

    #[test]
    fn the_lesser_hold_time_and_the_common_families_hold() {
        let agreement = verdict(&theirs()).unwrap();
        assert_eq!(agreement.hold_time, Duration::from_secs(30));
        assert_eq!(agreement.keepalive, Duration::from_secs(10));
        assert!(agreement.four_octet_as);
        let agreement = verdict(&Open { hold_time: 9, ..theirs() }).unwrap();
        assert_eq!((agreement.hold_time.as_secs(), agreement.keepalive.as_secs()), (9, 3));
        let agreement = verdict(&Open { hold_time: 0, ..theirs() }).unwrap();
        assert_eq!((agreement.hold_time, agreement.keepalive), (Duration::ZERO, Duration::ZERO));
        let one = open(64512, [10, 0, 0, 2], 90, Families::IPV6);
        assert_eq!(verdict(&one).unwrap().families, Families::IPV6);
    }

    #[test]
    fn a_capability_counts_when_both_have_it() {
        let mut it = theirs();
        it.capabilities.graceful_restart = Some(GracefulRestart::default());
        it.capabilities.enhanced_refresh = true;
        it.capabilities.four_octet_as = false;
        let agreement = verdict(&it).unwrap();
        assert_eq!((agreement.graceful_restart, agreement.enhanced_refresh), (None, false));
        assert!(!agreement.four_octet_as && agreement.route_refresh);
    }

    #[test]
    fn what_is_wrong_gets_its_number_and_a_sentence_that_helps() {
        let bad_as = Open { asn: 64513, ..theirs() };
        let mut old = Open { asn: 23456, ..theirs() };
        old.capabilities.four_octet_as = false;
        let none = Open { router_id: [0, 0, 0, 0].into(), ..theirs() };
        let hold = Open { hold_time: 2, ..theirs() };
        let families = open(64512, [10, 0, 0, 2], 90, Families::NONE);
        let cases: [(Open, u8, &[&str]); 6] = [
            (bad_as, 2, &["64513", "64512", "the neighbour's as"]),
            (old, 2, &["23456", "two octets"]),
            (Open { asn: 0, ..theirs() }, 2, &["its AS is 0"]),
            (none, 3, &["0.0.0.0", "router-id"]),
            (hold, 6, &["2 s", "at least 3 s"]),
            (families, 7, &["neither", "IPv4 and IPv6"]),
        ];
        for (theirs, subcode, words) in cases {
            let refusal = verdict(&theirs).unwrap_err();
            assert_eq!((refusal.notification.code, refusal.notification.subcode), (Code::OPEN, subcode));
            for word in words {
                assert!(refusal.sentence.contains(word), "{word}: {}", refusal.sentence);
            }
        }
    }

    #[test]
    fn an_identifier_may_be_ours_in_another_as_only() {
        // RFC 6286 §2.1.
        assert!(verdict(&Open { router_id: ours().router_id, ..theirs() }).is_ok());
        let (ours, keepalive) = (ours(), Duration::ZERO);
        let expected = Expectation { ours: &ours, remote_as: 65000, families: Families::ALL, keepalive };
        let internal = Open { asn: 65000, router_id: ours.router_id, ..theirs() };
        assert_eq!(check(&internal, &expected).unwrap_err().notification.subcode, open_error::BAD_ROUTER_ID);
        assert!(check(&Open { asn: 65000, ..theirs() }, &expected).is_ok());
    }
}
