//! UPDATE messages: what is written comes back, and what is malformed gets the answer of RFC 7606.
//!
//! The tables name the section behind each answer. Where texts disagree, the reading taken here:
//!
//! | case | reading |
//! | --- | --- |
//! | wrong flags of ATOMIC_AGGREGATE, AGGREGATOR, AS4_PATH, AS4_AGGREGATOR | §3 c names one answer for all attributes whose text says nothing of flags, and these say nothing; §3 f is of what still resets sessions, which flags no longer do. So BIRD does; FRR and GoBGP discard |
//! | LOCAL_PREF, ORIGINATOR_ID, CLUSTER_LIST of an external neighbour, with wrong flags or length | discarded: §7.5, §7.9 and §7.10 ask where it came from before they ask how it looks |
//! | an unknown attribute that claims to be well-known | session reset: RFC 4271 §6.3, which RFC 7606 leaves alone. BIRD withdraws |
//! | LOCAL_PREF of an internal neighbour is missing | RFC 4271 §5 requires it there: as a mandatory one. So FRR does; BIRD takes a default |
//! | MP_REACH_NLRI or MP_UNREACH_NLRI is malformed | RFC 7606 leaves the choice: the family is disabled where the session has another and the family can be told, else the session is reset |
//! | a malformed MP_REACH_NLRI alone | counts as a reachable prefix for §5.2, or no family could ever be disabled |

use proptest::prelude::*;

use super::super::{HEADER, MAX_MESSAGE, split, write_announcement, write_end_of_rib, write_withdrawal};
use super::*;
use crate::{AsPath, Community, LargeCommunity, Origin, UnknownAttribute};
use ipnet::IpNet;

const EXTERNAL: Session =
    Session { four_octet_as: true, is_internal: false, families: Families::ALL, first_as: Some(65001) };
const INTERNAL: Session = Session { is_internal: true, first_as: None, ..EXTERNAL };
const IPV4_ONLY: Session = Session { families: Families::IPV4, ..EXTERNAL };
const OLD: Session = Session { four_octet_as: false, ..EXTERNAL };

const ORIGIN: &[u8] = &[0x40, 1, 1, 0];
const AS_PATH: &[u8] = &[0x40, 2, 6, 2, 1, 0, 0, 0xFD, 0xE9];
const NEXT_HOP: &[u8] = &[0x40, 3, 4, 169, 254, 10, 1];
const LOCAL_PREF: &[u8] = &[0x40, 5, 4, 0, 0, 0, 100];
const NET: &[u8] = &[24, 10, 50, 0];
/// 2001:db8::/32 by way of 2001:db8::1.
const REACH: &[u8] =
    &[0x80, 14, 26, 0, 2, 1, 16, 0x20, 1, 0xD, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 32, 0x20, 1, 0xD, 0xB8];
const UNREACH: &[u8] = &[0x80, 15, 8, 0, 2, 1, 32, 0x20, 1, 0xD, 0xB9];
/// With a prefix that is cut short.
const SHORT_UNREACH: &[u8] = &[0x80, 15, 5, 0, 2, 1, 32, 0x20];

fn body(withdrawn: &[u8], attributes: &[&[u8]], announced: &[u8]) -> Vec<u8> {
    let attributes = attributes.concat();
    let mut bytes = (withdrawn.len() as u16).to_be_bytes().to_vec();
    bytes.extend_from_slice(withdrawn);
    bytes.extend_from_slice(&(attributes.len() as u16).to_be_bytes());
    bytes.extend_from_slice(&attributes);
    bytes.extend_from_slice(announced);
    bytes
}

/// What becomes of a message, in a word; for a reset with the subcode.
fn verdict(bytes: &[u8], session: &Session) -> String {
    match Update::decode(bytes, session) {
        Err(reset) => format!("reset 3/{}", reset.notification.subcode),
        Ok(update) => match update.faults.iter().map(|fault| fault.approach).max() {
            None if update.attributes.is_some() => "good".to_owned(),
            None => "nothing".to_owned(),
            Some(Approach::AttributeDiscard) => {
                assert!(update.attributes.is_some());
                "discard".to_owned()
            }
            Some(Approach::TreatAsWithdraw) => {
                assert!(update.attributes.is_none());
                "withdraw".to_owned()
            }
            Some(Approach::DisableFamily) => {
                assert!(update.attributes.is_none() && update.disabled.is_some());
                "disable".to_owned()
            }
            Some(Approach::SessionReset) => panic!("a reset is an error"),
        },
    }
}

/// Replaces the mandatory attribute of the same type, or adds it to those.
fn with(attribute: &[u8], session: &Session) -> Vec<u8> {
    let mut all = vec![ORIGIN, AS_PATH, NEXT_HOP];
    if session.is_internal {
        all.push(LOCAL_PREF);
    }
    match all.iter().position(|one| one[1] == attribute[1]) {
        Some(place) => all[place] = attribute,
        None => all.push(attribute),
    }
    body(&[], &all, NET)
}

#[test]
fn each_malformed_attribute_gets_the_answer_of_rfc_7606() {
    // The attribute of an otherwise good message with one IPv4 prefix; what becomes of it; where that is written.
    let cases: &[(&Session, &[u8], &str, &str)] = &[
        (&EXTERNAL, ORIGIN, "good", "RFC 4271"),
        (&EXTERNAL, &[0x40, 1, 0], "withdraw", "7606 §7.1 length"),
        (&EXTERNAL, &[0x40, 1, 2, 0, 0], "withdraw", "7606 §7.1 length"),
        (&EXTERNAL, &[0x40, 1, 1, 3], "withdraw", "7606 §7.1 value"),
        (&EXTERNAL, &[0xC0, 1, 1, 0], "withdraw", "7606 §3 c optional"),
        (&EXTERNAL, &[0x00, 1, 1, 0], "withdraw", "7606 §3 c transitive"),
        (&EXTERNAL, &[0x60, 1, 1, 0], "good", "4271 §4.3: the Partial bit is ignored"),
        (&EXTERNAL, &[0x4F, 1, 1, 0], "good", "4271 §4.3: the lowest four bits are ignored"),
        (&EXTERNAL, &[0x50, 1, 1, 0], "withdraw", "7606 §4: with an extended length it is cut short"),
        (&EXTERNAL, &[0x50, 1, 0, 1, 0], "good", "4271 §4.3: any length may be extended"),
        (&EXTERNAL, &[0x40, 2, 0], "withdraw", "4271 §6.3: does not begin with the neighbour's AS"),
        (&EXTERNAL, &[0x40, 2, 6, 2, 1, 0, 0, 0xFD, 0xEA], "withdraw", "4271 §6.3: another AS"),
        (&EXTERNAL, &[0x40, 2, 6, 5, 1, 0, 0, 0xFD, 0xE9], "withdraw", "7606 §7.2 unknown segment"),
        (&EXTERNAL, &[0x40, 2, 6, 0, 1, 0, 0, 0xFD, 0xE9], "withdraw", "7606 §7.2 unknown segment"),
        (&EXTERNAL, &[0x40, 2, 6, 2, 2, 0, 0, 0xFD, 0xE9], "withdraw", "7606 §7.2 overrun"),
        (&EXTERNAL, &[0x40, 2, 7, 2, 1, 0, 0, 0xFD, 0xE9, 2], "withdraw", "7606 §7.2 underrun"),
        (&EXTERNAL, &[0x40, 2, 8, 2, 1, 0, 0, 0xFD, 0xE9, 1, 0], "withdraw", "7606 §7.2 empty segment"),
        (&EXTERNAL, &[0x40, 2, 12, 2, 1, 0, 0, 0xFD, 0xE9, 3, 1, 0, 0, 0, 9], "withdraw", "5065 §5"),
        (&EXTERNAL, &[0x40, 2, 12, 2, 1, 0, 0, 0xFD, 0xE9, 1, 1, 0, 0, 0, 9], "withdraw", "9774 §3 AS_SET"),
        (&INTERNAL, &[0x40, 2, 6, 1, 1, 0, 0, 0, 9], "withdraw", "9774 §3 AS_SET"),
        (&EXTERNAL, &[0x40, 2, 12, 2, 1, 0, 0, 0xFD, 0xE9, 4, 1, 0, 0, 0, 9], "withdraw", "9774 §3 AS_CONFED_SET"),
        (
            &EXTERNAL,
            &[0x40, 2, 12, 2, 1, 0, 0, 0xFD, 0xE9, 2, 1, 0, 0, 0, 9],
            "good",
            "4271 §5.1.2: several sequences are one path",
        ),
        (&EXTERNAL, &[0x40, 2, 10, 2, 2, 0, 0, 0xFD, 0xE9, 0, 0, 0, 0], "withdraw", "7607 §2"),
        (&EXTERNAL, &[0x40, 2, 1, 2], "withdraw", "7606 §7.2 underrun"),
        (&EXTERNAL, &[0xC0, 2, 6, 2, 1, 0, 0, 0xFD, 0xE9], "withdraw", "7606 §3 c"),
        (&INTERNAL, &[0x40, 2, 0], "good", "7606 §4: of an internal neighbour, a route of our own AS"),
        (&EXTERNAL, &[0x40, 3, 3, 169, 254, 10], "withdraw", "7606 §7.3"),
        (&EXTERNAL, &[0x40, 3, 0], "withdraw", "7606 §7.3, §4"),
        (&EXTERNAL, &[0x40, 3, 16, 32, 1, 13, 184, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], "withdraw", "7606 §7.3"),
        (&EXTERNAL, &[0xC0, 3, 4, 169, 254, 10, 1], "withdraw", "7606 §3 c"),
        (&EXTERNAL, &[0x40, 3, 5, 169, 254, 10, 1, 0], "withdraw", "7606 §7.3"),
        (&EXTERNAL, &[0x40, 3, 4, 0, 0, 0, 0], "withdraw", "4271 §6.3: no host"),
        (&EXTERNAL, &[0x40, 3, 4, 224, 0, 0, 5], "withdraw", "4271 §6.3: no host"),
        (&EXTERNAL, &[0x40, 3, 4, 255, 255, 255, 255], "withdraw", "4271 §6.3: no host"),
        (&EXTERNAL, &[0x40, 3, 4, 127, 0, 0, 1], "withdraw", "4271 §6.3: no host"),
        (&EXTERNAL, &[0x80, 4, 4, 0, 0, 0, 9], "good", "4271"),
        (&EXTERNAL, &[0x80, 4, 3, 0, 0, 0], "withdraw", "7606 §7.4"),
        (&EXTERNAL, &[0x80, 4, 0], "withdraw", "7606 §7.4, §4"),
        (&EXTERNAL, &[0x80, 4, 5, 0, 0, 0, 0, 9], "withdraw", "7606 §7.4"),
        (&EXTERNAL, &[0x40, 4, 4, 0, 0, 0, 9], "withdraw", "7606 §3 c"),
        (&EXTERNAL, &[0xC0, 4, 4, 0, 0, 0, 9], "withdraw", "7606 §3 c"),
        (&EXTERNAL, &[0x40, 5, 4, 0, 0, 0, 100], "discard", "7606 §7.5 external"),
        (&EXTERNAL, &[0x40, 5, 1, 0], "discard", "7606 §7.5 external, whatever it is"),
        (&EXTERNAL, &[0xC0, 5, 1, 0], "discard", "7606 §7.5 external, whatever it is"),
        (&INTERNAL, LOCAL_PREF, "good", "4271"),
        (&INTERNAL, &[0x40, 5, 3, 0, 0, 0], "withdraw", "7606 §7.5 internal"),
        (&INTERNAL, &[0x40, 5, 0], "withdraw", "7606 §7.5 internal, §4"),
        (&INTERNAL, &[0xC0, 5, 4, 0, 0, 0, 100], "withdraw", "7606 §3 c"),
        (&EXTERNAL, &[0x40, 6, 0], "good", "4271"),
        (&EXTERNAL, &[0x40, 6, 1, 0], "discard", "7606 §7.6"),
        (&EXTERNAL, &[0xC0, 6, 0], "withdraw", "7606 §3 c: §7.6 says nothing else of flags"),
        (&EXTERNAL, &[0x00, 6, 0], "withdraw", "7606 §3 c"),
        (&EXTERNAL, &[0xC0, 7, 8, 0, 0, 0xFD, 0xE9, 10, 0, 0, 1], "good", "6793"),
        (&EXTERNAL, &[0xC0, 7, 6, 0xFD, 0xE9, 10, 0, 0, 1], "discard", "7606 §7.7"),
        (&EXTERNAL, &[0xC0, 7, 0], "discard", "7606 §7.7"),
        (&EXTERNAL, &[0xC0, 7, 9, 0, 0, 0xFD, 0xE9, 10, 0, 0, 1, 0], "discard", "7606 §7.7"),
        (&EXTERNAL, &[0xC0, 7, 8, 0, 0, 0, 0, 10, 0, 0, 1], "discard", "7607 §2"),
        (
            &EXTERNAL,
            &[0x40, 7, 8, 0, 0, 0xFD, 0xE9, 10, 0, 0, 1],
            "withdraw",
            "7606 §3 c: §7.7 says nothing else of flags",
        ),
        (&EXTERNAL, &[0x80, 7, 8, 0, 0, 0xFD, 0xE9, 10, 0, 0, 1], "withdraw", "7606 §3 c"),
        (&EXTERNAL, &[0x80, 7, 1, 0], "withdraw", "7606 §3 c, §3 h: of two faults the stronger"),
        (&EXTERNAL, &[0xE0, 7, 8, 0, 0, 0xFD, 0xE9, 10, 0, 0, 1], "good", "4271 §4.3: Partial is no conflict"),
        (&EXTERNAL, &[0xC0, 8, 4, 0xFD, 0xE9, 0, 1], "good", "1997"),
        (&EXTERNAL, &[0xC0, 8, 0], "withdraw", "7606 §7.8"),
        (&EXTERNAL, &[0xC0, 8, 5, 0, 0, 0, 0, 0], "withdraw", "7606 §7.8"),
        (&EXTERNAL, &[0x80, 8, 4, 0xFD, 0xE9, 0, 1], "withdraw", "7606 §3 c"),
        (&EXTERNAL, &[0x80, 9, 4, 10, 0, 0, 1], "discard", "7606 §7.9 external"),
        (&INTERNAL, &[0x80, 9, 4, 10, 0, 0, 1], "good", "4456"),
        (&INTERNAL, &[0x80, 9, 3, 10, 0, 0], "withdraw", "7606 §7.9 internal"),
        (&INTERNAL, &[0x80, 9, 0], "withdraw", "7606 §7.9 internal, §4"),
        (&INTERNAL, &[0xC0, 9, 4, 10, 0, 0, 1], "withdraw", "7606 §3 c"),
        (&EXTERNAL, &[0x80, 10, 4, 10, 0, 0, 1], "discard", "7606 §7.10 external"),
        (&EXTERNAL, &[0x80, 10, 3, 10, 0, 0], "discard", "7606 §7.10 external"),
        (&INTERNAL, &[0x80, 10, 8, 10, 0, 0, 1, 10, 0, 0, 2], "good", "4456"),
        (&INTERNAL, &[0x80, 10, 0], "withdraw", "7606 §7.10 internal"),
        (&INTERNAL, &[0x80, 10, 6, 10, 0, 0, 1, 10, 0], "withdraw", "7606 §7.10 internal"),
        (&INTERNAL, &[0xC0, 10, 4, 10, 0, 0, 1], "withdraw", "7606 §3 c"),
        (&INTERNAL, &[0x80, 10, 5, 10, 0, 0, 1], "withdraw", "7606 §4: cut short"),
        (&EXTERNAL, &[0xC0, 16, 8, 0, 2, 0, 0, 0, 0, 0, 1], "good", "4360"),
        (&EXTERNAL, &[0xC0, 16, 7, 0, 2, 0, 0, 0, 0, 0], "withdraw", "7606 §7.14"),
        (&EXTERNAL, &[0xC0, 16, 0], "withdraw", "7606 §7.14"),
        (&EXTERNAL, &[0x80, 16, 8, 0, 2, 0, 0, 0, 0, 0, 1], "withdraw", "7606 §3 c"),
        (&EXTERNAL, &[0xC0, 16, 8, 0x3F, 0xFF, 0, 0, 0, 0, 0, 1], "good", "7606 §7.14: an unknown type is no fault"),
        (&EXTERNAL, &[0xC0, 17, 6, 2, 1, 0, 0, 0xFD, 0xE9], "discard", "6793 §4.1: from a new speaker"),
        (&EXTERNAL, &[0xC0, 18, 1, 0], "discard", "6793 §4.1: from a new speaker"),
        (&EXTERNAL, &[0x80, 17, 1, 0], "discard", "6793 §4.1: from a new speaker, however it looks"),
        (&EXTERNAL, &[0xC0, 32, 12, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3], "good", "8092"),
        (&EXTERNAL, &[0xC0, 32, 11, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0], "withdraw", "8092 §6"),
        (&EXTERNAL, &[0xC0, 32, 0], "withdraw", "8092 §6"),
        (&EXTERNAL, &[0x80, 32, 12, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3], "withdraw", "7606 §3 c"),
        (&EXTERNAL, &[0xC0, 99, 2, 1, 2], "good", "4271 §5: optional, passed on"),
        (&EXTERNAL, &[0x80, 99, 2, 1, 2], "good", "4271 §5: optional, not passed on"),
        (&EXTERNAL, &[0xC0, 99, 0], "good", "7606 §4: nobody says that it may not be empty"),
        (
            &EXTERNAL,
            &[0xC0, 25, 3, 0, 0, 0],
            "good",
            "7606 §7.15 is for those that know the attribute: it is passed on",
        ),
        (&EXTERNAL, &[0x40, 99, 2, 1, 2], "reset 3/2", "4271 §6.3: claims to be well-known"),
        (&EXTERNAL, &[0x00, 99, 0], "reset 3/2", "4271 §6.3: claims to be well-known"),
        (&EXTERNAL, &[0x40, 14, 3, 0, 2, 1], "reset 3/4", "7606 §5.3: flags of MP_REACH_NLRI"),
        (&EXTERNAL, &[0x40, 15, 3, 0, 2, 1], "reset 3/4", "7606 §5.3: flags of MP_UNREACH_NLRI"),
        (&EXTERNAL, &[0xC0, 14, 3, 0, 2, 1], "reset 3/4", "7606 §5.3: flags of MP_REACH_NLRI"),
        (&EXTERNAL, &[0xC0, 15, 3, 0, 2, 1], "reset 3/4", "7606 §5.3: flags of MP_UNREACH_NLRI"),
        (&EXTERNAL, &[0x80, 14, 0], "reset 3/9", "7606 §5.3: shorter than five octets"),
        (&EXTERNAL, &[0x80, 14, 4, 0, 2, 1, 0], "reset 3/9", "7606 §5.3: shorter than five octets"),
        (&EXTERNAL, &[0x80, 15, 2, 0, 2], "reset 3/9", "7606 §5.3: shorter than three octets"),
        (&EXTERNAL, &[0x80, 14, 5, 0, 25, 70, 0, 9], "good", "4760 §6: a family nobody speaks"),
    ];
    for (session, attribute, expected, source) in cases {
        assert_eq!(verdict(&with(attribute, session), session), *expected, "{attribute:?}: {source}");
    }
}

#[test]
fn attributes_of_the_old_are_discarded_when_malformed() {
    // RFC 6793 §6, and RFC 7606 §3 c where the flags are wrong.
    let path = &[0x40, 2, 4, 2, 1, 0xFD, 0xE9][..];
    let of_old = |attribute: &[u8]| verdict(&body(&[], &[ORIGIN, path, NEXT_HOP, attribute], NET), &OLD);
    assert_eq!(of_old(&[0xC0, 17, 6, 2, 1, 0, 0, 0xFD, 0xE9]), "good");
    for malformed in [
        // Too short for one AS number; a segment that is cut short, empty, of an unknown type; AS 0 (RFC 7607 §2).
        &[0xC0, 17, 0][..],
        &[0xC0, 17, 4, 2, 1, 0, 0],
        &[0xC0, 17, 5, 2, 1, 0, 0, 0xFD],
        &[0xC0, 17, 6, 2, 2, 0, 0, 0xFD, 0xE9],
        &[0xC0, 17, 8, 2, 1, 0, 0, 0xFD, 0xE9, 2, 0],
        &[0xC0, 17, 6, 5, 1, 0, 0, 0xFD, 0xE9],
        &[0xC0, 17, 6, 2, 1, 0, 0, 0, 0],
        &[0xC0, 18, 7, 0, 0, 0, 1, 1, 1, 1],
        &[0xC0, 18, 0],
        &[0xC0, 18, 8, 0, 0, 0, 0, 10, 0, 0, 1],
        &[0xC0, 7, 8, 0, 0, 0xFD, 0xE9, 10, 0, 0, 1],
    ] {
        assert_eq!(of_old(malformed), "discard", "{malformed:?}");
    }
    assert_eq!(of_old(&[0x80, 17, 6, 2, 1, 0, 0, 0xFD, 0xE9]), "withdraw");
    // RFC 9774 §3: a set there takes the routes with it, though RFC 6793 §6 would leave out one of a confederation.
    for kind in [1, 4] {
        assert_eq!(of_old(&[0xC0, 17, 6, kind, 1, 0, 0, 0xFD, 0xE9]), "withdraw");
    }
    assert_eq!(of_old(&[0x40, 18, 8, 0, 0, 0, 1, 10, 0, 0, 1]), "withdraw");
}

#[test]
fn a_confederation_in_an_as4_path_is_left_out_and_the_rest_counts() {
    // RFC 6793 §6: those segments are discarded, the attribute is not.
    let old_path: &[u8] = &[0x40, 2, 6, 2, 2, 0xFD, 0xE9, 0x5B, 0xA0];
    let new_path: &[u8] = &[0xC0, 17, 12, 3, 1, 0, 0, 0xFC, 0, 2, 1, 0, 1, 0, 0];
    let bytes = body(&[], &[ORIGIN, old_path, NEXT_HOP, new_path], NET);
    assert_eq!(verdict(&bytes, &OLD), "good");
    let attributes = Update::decode(&bytes, &OLD).unwrap().attributes.unwrap();
    assert_eq!(attributes.as_path, AsPath(vec![65001, 65536]));
}

#[test]
fn whole_messages_get_the_answer_of_rfc_7606() {
    let good = [ORIGIN, AS_PATH, NEXT_HOP];
    let overrun = &[0xC0, 8, 200, 1][..];
    let loopback = &mut REACH.to_vec()[..];
    loopback[7..23].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    let cases: &[(&Session, Vec<u8>, &str, &str)] = &[
        (&EXTERNAL, body(&[], &good, NET), "good", ""),
        (&EXTERNAL, body(&[], &[AS_PATH, NEXT_HOP], NET), "withdraw", "§3 d: no ORIGIN"),
        (&EXTERNAL, body(&[], &[ORIGIN, NEXT_HOP], NET), "withdraw", "§3 d: no AS_PATH"),
        (&EXTERNAL, body(&[], &[ORIGIN, AS_PATH], NET), "withdraw", "§3 d: no NEXT_HOP"),
        (&EXTERNAL, body(&[], &[], NET), "withdraw", "§3 d: nothing at all"),
        (&INTERNAL, body(&[], &good, NET), "withdraw", "§3 d: no LOCAL_PREF"),
        (&EXTERNAL, body(&[], &[REACH, ORIGIN, AS_PATH], &[]), "good", "4760 §3: needs no NEXT_HOP"),
        (&EXTERNAL, body(&[], &[REACH, ORIGIN], &[]), "withdraw", "§3 d: no AS_PATH"),
        (&EXTERNAL, body(NET, &[], &[]), "nothing", "4271: withdrawn alone"),
        (&EXTERNAL, body(&[], &[UNREACH], &[]), "nothing", "4760: withdrawn alone"),
        (&EXTERNAL, body(NET, &good, &[]), "nothing", "attributes of nothing are of no use, and no error"),
        (&EXTERNAL, body(&[], &[ORIGIN, ORIGIN, AS_PATH, NEXT_HOP], NET), "discard", "§3 g: twice"),
        (
            &EXTERNAL,
            body(&[], &[ORIGIN, &[0x40, 1, 1, 9], AS_PATH, NEXT_HOP], NET),
            "discard",
            "§3 g: the first counts",
        ),
        (&EXTERNAL, body(&[], &[REACH, REACH, ORIGIN, AS_PATH], &[]), "reset 3/1", "§3 g"),
        (&EXTERNAL, body(&[], &[UNREACH, UNREACH], &[]), "reset 3/1", "§3 g"),
        (&EXTERNAL, body(&[], &[&[0x40, 1, 1, 9], AS_PATH, NEXT_HOP, &[0x40, 6, 1, 0]], NET), "withdraw", "§3 h"),
        (
            &EXTERNAL,
            body(&[], &[ORIGIN, &[0x40, 2, 0], NEXT_HOP, &[0x40, 6, 1, 0]], NET),
            "withdraw",
            "§3 h: a discarded attribute excuses no AS_PATH of another AS",
        ),
        (&EXTERNAL, body(&[], &[ORIGIN, AS_PATH, NEXT_HOP, overrun], NET), "withdraw", "§4: overrun"),
        (&EXTERNAL, body(&[], &[ORIGIN, AS_PATH, NEXT_HOP, &[0x40, 6]], NET), "withdraw", "§4: underrun"),
        (&EXTERNAL, body(&[], &[ORIGIN, AS_PATH, NEXT_HOP, &[0x50, 6, 0]], NET), "withdraw", "§4: underrun"),
        (&EXTERNAL, body(&[], &[&[0x40, 1, 1, 9], AS_PATH], &[]), "reset 3/6", "§5.2: no prefix to withdraw"),
        (&EXTERNAL, body(NET, &[overrun], &[]), "reset 3/1", "§5.2: no prefix to withdraw"),
        (&EXTERNAL, body(&[], &[&[0xC0, 6, 0]], &[]), "reset 3/4", "§5.2: no prefix to withdraw"),
        (&EXTERNAL, body(&[], &[ORIGIN, UNREACH, &[0x80, 4, 0]], &[]), "reset 3/5", "§5.2: no reachable prefix"),
        (&EXTERNAL, body(&[], &[ORIGIN, SHORT_UNREACH], &[]), "reset 3/9", "§5.2: no reachable prefix"),
        (&EXTERNAL, body(&[], &[SHORT_UNREACH], &[]), "disable", "§5.2 is for other attributes than MP_UNREACH_NLRI"),
        (&EXTERNAL, body(NET, &[&[0x40, 6, 1, 0]], &[]), "nothing", "§5.2: but for attribute discard"),
        (&EXTERNAL, body(&[], &[REACH, UNREACH, ORIGIN, AS_PATH, NEXT_HOP], NET), "good", "§5.1: in any combination"),
        (&EXTERNAL, body(&[], &[AS_PATH, ORIGIN, REACH], &[]), "good", "§5.1: in any order"),
        (
            &EXTERNAL,
            body(&[], &[REACH, ORIGIN, AS_PATH, &[0x40, 3, 1, 0]], &[]),
            "withdraw",
            "§7.3, though 4760 §3 would rather ignore it",
        ),
        (&EXTERNAL, body(&[], &[REACH, AS_PATH], &[]), "withdraw", "§3 d: no ORIGIN"),
        (&INTERNAL, body(&[], &[REACH, ORIGIN, AS_PATH], &[]), "withdraw", "§3 d: no LOCAL_PREF"),
        (&EXTERNAL, body(&[], &[UNREACH, ORIGIN, REACH, UNREACH], NET), "reset 3/1", "§3 g before anything milder"),
        (
            &EXTERNAL,
            body(&[], &[ORIGIN, AS_PATH, NEXT_HOP, &[0xC0, 99, 1, 1], &[0xC0, 99, 1, 2]], NET),
            "discard",
            "§3 g: unknown ones too",
        ),
        (&EXTERNAL, body(&[], &[&[0x40, 1, 1, 9], SHORT_UNREACH, AS_PATH, NEXT_HOP], NET), "disable", "§3 h"),
        (&EXTERNAL, body(&[], &good, &[33, 10, 0, 0, 0, 0]), "reset 3/10", "§5.3: too long"),
        (&EXTERNAL, body(&[], &good, &[24, 10, 0]), "reset 3/10", "§5.3: cut short"),
        (&EXTERNAL, body(&[24, 10], &[], &[]), "reset 3/10", "§3 i: withdrawn are prefixes too"),
        (&EXTERNAL, body(&[40, 1, 2, 3, 4, 5], &good, NET), "reset 3/10", "§3 i"),
        (&EXTERNAL, body(&[], &[loopback, ORIGIN, AS_PATH], &[]), "withdraw", "next hop is no host"),
    ];
    for (session, bytes, expected, source) in cases {
        // A message of which nothing is left to announce has no attributes, with an attribute discarded or not.
        let update = Update::decode(bytes, session);
        let found = match &update {
            Ok(update)
                if update.attributes.is_none()
                    && update.faults.iter().all(|f| f.approach == Approach::AttributeDiscard) =>
            {
                "nothing".to_owned()
            }
            _ => verdict(bytes, session),
        };
        assert_eq!(found, *expected, "{source}: {bytes:?}");
    }
}

#[test]
fn lengths_that_do_not_agree_reset_the_session() {
    let good = body(NET, &[ORIGIN, AS_PATH, NEXT_HOP], NET);
    for cut in 0..4 {
        assert_eq!(verdict(&good[..cut], &EXTERNAL), "reset 3/1");
    }
    let mut withdrawn = good.clone();
    withdrawn[1] = 200;
    assert_eq!(verdict(&withdrawn, &EXTERNAL), "reset 3/1");
    let mut attributes = good;
    attributes[7] = 200;
    assert_eq!(verdict(&attributes, &EXTERNAL), "reset 3/1");
}

#[test]
fn a_family_is_disabled_where_another_is_left() {
    // A prefix too long, cut short; a next hop of a wrong length, cut short.
    let long = &[0x80, 15, 5, 0, 2, 1, 129, 1][..];
    let short = &[0x80, 15, 5, 0, 2, 1, 32, 1][..];
    let hop = &[0x80, 14, 10, 0, 2, 1, 4, 10, 0, 0, 1, 0, 0][..];
    let hop_short = &[0x80, 14, 7, 0, 2, 1, 16, 1, 2, 3][..];
    for attribute in [long, short, hop, hop_short] {
        let bytes = body(&[], &[attribute, ORIGIN, AS_PATH, NEXT_HOP], NET);
        let update = Update::decode(&bytes, &EXTERNAL).unwrap();
        assert_eq!((update.disabled, update.attributes), (Some(Family::Ipv6), None), "{attribute:?}");
        let only = Session { families: Families::IPV6, ..EXTERNAL };
        assert_eq!(verdict(&bytes, &only), "reset 3/9", "{attribute:?}");
        // Where nobody speaks it, it is ignored.
        assert_eq!(verdict(&bytes, &IPV4_ONLY), "good", "{attribute:?}");
    }
}

#[test]
fn the_neighbour_is_told_which_attribute_it_was() {
    let reset = |bytes: &[u8]| Update::decode(bytes, &EXTERNAL).unwrap_err().notification.data;
    assert_eq!(reset(&body(&[], &[&[0x40, 99, 2, 1, 2]], &[])), [0x40, 99, 2, 1, 2]);
    assert_eq!(reset(&body(&[], &[&[0x40, 1, 1, 9]], &[])), [0x40, 1, 1, 9]);
}

#[test]
fn end_of_rib_is_known_in_every_shape() {
    let end = |bytes: &[u8], session: &Session| Update::decode(bytes, session).unwrap().end_of_rib;
    assert_eq!(end(&body(&[], &[], &[]), &EXTERNAL), Some(Family::Ipv4));
    assert_eq!(end(&body(&[], &[&[0x80, 15, 3, 0, 2, 1]], &[]), &EXTERNAL), Some(Family::Ipv6));
    assert_eq!(end(&body(&[], &[&[0x90, 15, 0, 3, 0, 1, 1]], &[]), &EXTERNAL), Some(Family::Ipv4));
    assert_eq!(end(&body(&[], &[&[0x80, 15, 3, 0, 2, 1]], &[]), &IPV4_ONLY), None);
    assert_eq!(end(&body(&[], &[UNREACH], &[]), &EXTERNAL), None);
    assert_eq!(end(&body(NET, &[], &[]), &EXTERNAL), None);
    assert_eq!(end(&body(NET, &[&[0x80, 15, 3, 0, 2, 1]], &[]), &EXTERNAL), None);
    for family in Family::ALL {
        let mut bytes = Vec::new();
        write_end_of_rib(&mut bytes, family);
        assert_eq!(end(&bytes[HEADER..], &EXTERNAL), Some(family));
    }
}

#[test]
fn as_numbers_of_four_octets_pass_an_old_speaker() {
    let read = |bytes: Vec<u8>| (*Update::decode(&bytes, &OLD).unwrap().attributes.unwrap()).clone();
    let path = |numbers: &[u32]| AsPath(numbers.to_vec());
    // RFC 6793 §4.2.3: 65001 put itself before what a new speaker wrote.
    let old_path: &[u8] = &[0x40, 2, 8, 2, 3, 0xFD, 0xE9, 0x5B, 0xA0, 0x5B, 0xA0];
    let new_path: &[u8] = &[0xC0, 17, 10, 2, 2, 0, 1, 0, 0, 0, 1, 0, 1];
    let merged = read(body(&[], &[ORIGIN, old_path, NEXT_HOP, new_path], NET));
    assert_eq!(merged.as_path, path(&[65001, 65536, 65537]));
    // A longer AS4_PATH than AS_PATH is out of date.
    let short: &[u8] = &[0x40, 2, 4, 2, 1, 0xFD, 0xE9];
    assert_eq!(read(body(&[], &[ORIGIN, short, NEXT_HOP, new_path], NET)).as_path, path(&[65001]));
    // An AGGREGATOR that is not AS_TRANS: an old speaker aggregated, and both are out of date.
    let aggregator = |high: u8, low: u8| vec![0xC0, 7, 6, high, low, 10, 0, 0, 1];
    let new_aggregator: &[u8] = &[0xC0, 18, 8, 0, 1, 0, 0, 10, 0, 0, 2];
    let (old, trans) = (aggregator(0xFD, 0xE9), aggregator(0x5B, 0xA0));
    let stale = read(body(&[], &[ORIGIN, old_path, NEXT_HOP, &old, new_path, new_aggregator], NET));
    assert_eq!((stale.as_path, stale.aggregator.unwrap().0), (path(&[65001, 23456, 23456]), 65001));
    let fresh = read(body(&[], &[ORIGIN, old_path, NEXT_HOP, &trans, new_path, new_aggregator], NET));
    assert_eq!((fresh.as_path, fresh.aggregator.unwrap().0), (path(&[65001, 65536, 65537]), 65536));
}

#[test]
fn a_next_hop_may_have_a_link_local_address_beside_it() {
    let mut reach = REACH.to_vec();
    reach[2] += 16;
    reach[6] = 32;
    reach.splice(23..23, [0xFE, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    let next_hop = |reach: &[u8]| {
        let bytes = body(&[], &[reach, ORIGIN, AS_PATH], &[]);
        Update::decode(&bytes, &EXTERNAL).unwrap().reachable.unwrap().0.to_string()
    };
    assert_eq!(next_hop(&reach), "2001:db8::1");
    reach[7..23].fill(0);
    assert_eq!(next_hop(&reach), "fe80::1");
}

fn net(family: Family) -> impl Strategy<Value = IpNet> {
    (any::<u128>(), 0..=128u8).prop_map(move |(bits, len)| match family {
        Family::Ipv4 => ipnet::Ipv4Net::new(Ipv4Addr::from_bits(bits as u32), len % 33).unwrap().trunc().into(),
        Family::Ipv6 => ipnet::Ipv6Net::new(Ipv6Addr::from_bits(bits), len).unwrap().trunc().into(),
    })
}

fn sorted<T: Ord + std::fmt::Debug>(items: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<T>> {
    proptest::collection::btree_set(items, 0..5).prop_map(|items| items.into_iter().collect())
}

fn attributes() -> impl Strategy<Value = Attributes> {
    let origin = prop_oneof![Just(Origin::Igp), Just(Origin::Egp), Just(Origin::Incomplete)];
    let large = any::<(u32, u32, u32)>().prop_map(|(global, local1, local2)| LargeCommunity { global, local1, local2 });
    let address = any::<u32>().prop_map(Ipv4Addr::from_bits);
    let unknown = (100..200u8, proptest::collection::vec(any::<u8>(), 0..300))
        .prop_map(|(code, value)| UnknownAttribute { flags: 0xE0, code, value });
    let first =
        (origin, proptest::collection::vec(1..=u32::MAX, 0..300), any::<Option<u32>>(), any::<u32>(), any::<bool>());
    let second = (
        proptest::option::of((1..=u32::MAX, address.clone())),
        sorted(any::<u32>().prop_map(Community)),
        sorted(any::<[u8; 8]>()),
        sorted(large),
        proptest::option::of(address.clone()),
        proptest::collection::vec(address, 0..4),
        proptest::option::of(unknown),
    );
    (first, second).prop_map(|((origin, path, med, local_pref, atomic_aggregate), second)| {
        let (aggregator, communities, extended_communities, large_communities, originator_id, cluster_list, unknown) =
            second;
        Attributes {
            origin,
            as_path: AsPath(path),
            med,
            local_pref: Some(local_pref),
            atomic_aggregate,
            aggregator,
            communities,
            extended_communities,
            large_communities,
            originator_id,
            cluster_list,
            unknown: unknown.into_iter().collect(),
        }
    })
}

/// The messages of a stream.
fn bodies(stream: &[u8]) -> Vec<&[u8]> {
    let (mut rest, mut bodies) = (stream, Vec::new());
    while let Some((message, tail)) = split(rest).unwrap() {
        bodies.push(message.body);
        rest = tail;
    }
    assert!(rest.is_empty());
    bodies
}

proptest! {
    #[test]
    fn what_is_announced_comes_back(
        attributes in attributes(),
        four_octet_as: bool,
        (v4, v6) in (proptest::collection::vec(net(Family::Ipv4), 1..1500), proptest::collection::vec(net(Family::Ipv6), 1..600)),
    ) {
        let session = Session { four_octet_as, ..INTERNAL };
        for (next_hop, nets) in [("192.0.2.1", v4), ("2001:db8::1", v6)] {
            let next_hop: IpAddr = next_hop.parse().unwrap();
            let mut stream = Vec::new();
            let count = write_announcement(&mut stream, &attributes, next_hop, &nets, four_octet_as).unwrap();
            let bodies = bodies(&stream);
            prop_assert_eq!(bodies.len(), count);
            let mut found = Vec::new();
            for body in &bodies {
                let update = Update::decode(body, &session).unwrap();
                prop_assert!(update.faults.is_empty(), "{:?}", update.faults);
                prop_assert_eq!(update.attributes.as_deref(), Some(&attributes));
                match update.reachable {
                    Some((hop, prefixes)) => {
                        prop_assert_eq!(hop, next_hop);
                        found.extend(prefixes);
                    }
                    None => {
                        prop_assert_eq!(update.next_hop.map(IpAddr::V4), Some(next_hop));
                        found.extend(update.announced);
                    }
                }
            }
            // No message more than are needed.
            prop_assert!(bodies.len() < 2 || bodies.iter().rev().skip(1).all(|b| b.len() + HEADER > MAX_MESSAGE - 17));
            prop_assert_eq!(found, nets);
        }
    }

    #[test]
    fn what_is_withdrawn_comes_back(nets in proptest::collection::vec(any::<(u128, u8)>(), 0..1200)) {
        for family in Family::ALL {
            let nets: Vec<IpNet> = nets.iter().map(|&(bits, len)| match family {
                Family::Ipv4 => ipnet::Ipv4Net::new(Ipv4Addr::from_bits(bits as u32), len % 33).unwrap().trunc().into(),
                Family::Ipv6 => ipnet::Ipv6Net::new(Ipv6Addr::from_bits(bits), len % 129).unwrap().trunc().into(),
            }).collect();
            let mut stream = Vec::new();
            let count = write_withdrawal(&mut stream, family, &nets);
            let mut found = Vec::new();
            for body in bodies(&stream) {
                let update = Update::decode(body, &EXTERNAL).unwrap();
                prop_assert!(update.faults.is_empty() && update.end_of_rib.is_none());
                found.extend(update.withdrawn.chain(update.unreachable.into_iter().flatten()));
            }
            prop_assert_eq!(found, nets);
            prop_assert_eq!(count, bodies(&stream).len());
        }
    }

    #[test]
    fn attributes_that_leave_no_room_are_refused(len in 3000..5000usize) {
        let mut attributes = (*Update::decode(&with(ORIGIN, &EXTERNAL), &EXTERNAL).unwrap().attributes.unwrap()).clone();
        attributes.unknown.push(UnknownAttribute { flags: 0xE0, code: 99, value: vec![1; len] });
        let nets: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
        let mut stream = Vec::new();
        let written = write_announcement(&mut stream, &attributes, "192.0.2.1".parse().unwrap(), &nets, true);
        prop_assert_eq!(written.is_ok(), len <= 4096 - HEADER - 4 - 17 - 4 - ORIGIN.len() - AS_PATH.len() - NEXT_HOP.len());
        prop_assert_eq!(written.is_err(), stream.is_empty());
    }

    #[test]
    fn garbage_is_answered(
        withdrawn in proptest::collection::vec(any::<u8>(), 0..10),
        attributes in proptest::collection::vec(any::<u8>(), 0..80),
        announced in proptest::collection::vec(any::<u8>(), 0..10),
        (four_octet_as, is_internal) in any::<(bool, bool)>(),
    ) {
        let session = Session { four_octet_as, is_internal, ..EXTERNAL };
        if let Ok(update) = Update::decode(&body(&withdrawn, &[&attributes], &announced), &session) {
            prop_assert!(update.attributes.is_none() || update.faults.iter().all(|f| f.approach == Approach::AttributeDiscard));
        }
    }

    /// Good messages with one octet changed: nothing is announced from them with a fault worse than a discard.
    #[test]
    fn a_flipped_octet_is_answered(attributes in attributes(), place: prop::sample::Index, value: u8) {
        let nets: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
        let mut stream = Vec::new();
        write_announcement(&mut stream, &attributes, "192.0.2.1".parse().unwrap(), &nets, true).unwrap();
        let mut bytes = stream[HEADER..].to_vec();
        let place = place.index(bytes.len());
        bytes[place] = value;
        if let Ok(update) = Update::decode(&bytes, &INTERNAL) {
            prop_assert!(update.attributes.is_none() || update.faults.iter().all(|f| f.approach == Approach::AttributeDiscard));
        }
    }
}
