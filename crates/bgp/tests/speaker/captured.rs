//! Messages of real speakers, as they came over the wire: BIRD 2.0.12, FRR (Debian 12's), GoBGP and OpenBGPD, each
//! AS 65000 at 169.254.0.2 with AS 200001 at 169.254.0.1. They were captured with tcpdump between two network
//! namespaces; the markers are left out.

use std::time::Duration;

use bgp::wire::{GracefulRestart, LongLived, Message, MessageKind, Open, Refresh, Session, Update, split};
use bgp::{Families, Family};

const BIRD_OPEN: &str = "00530104fde8001ea9fe000236023401040001000101040002000102000600400a0078000101000002010041040000fde8\
                         4600470e00010100000e1000020100000e10";
const FRR_OPEN: &str = "00790104fde8001ea9fe00025c02060104000100010206010400020001020280000202020002024600020641040000fde8\
                        02020600020a450800010101000201010206490402766d00020c400ac07800010100000201000210470e0001018000000000\
                        020180000000";
const GOBGP_OPEN: &str = "00490104fde8001ea9fe00022c022a0200490402766d0001040001000101040002000141040000fde84006003c000101000506\
                          000100010002";

/// Updates, with what they say.
const UPDATES: &[(&str, &str)] = &[
    // BIRD.
    ("002f02000000144001010040020602010000fde8400304a9fe0002180a3c00", "10.60.0.0/24 via 169.254.0.2 Igp [65000]"),
    (
        "0045020000002a4001010040020602010000fde8400304a9fe0002c00804fde80001c0200c0000fde80000000200000003110a3d00",
        "10.61.0.0/17 via 169.254.0.2 Igp [65000] (65000,1) (65000,2,3)",
    ),
    (
        "0044020000002d900e001c0002011020010db8ffff00000000000000000002003020010db800604001010040020602010000fde8",
        "2001:db8:60::/48 via 2001:db8:ffff::2 Igp [65000]",
    ),
    ("00170200000000", "end of Ipv4"),
    ("001d0200000006800f03000201", "end of Ipv6"),
    // FRR writes AS_PATH with an extended length.
    (
        "003b020000001c400101005002000602010000fde8400304a9fe000280040400000000180a3c00110a3d00",
        "10.60.0.0/24 10.61.0.0/17 via 169.254.0.2 Igp [65000] med 0",
    ),
    (
        "0063020000004c900e001c0002011000000000000000000000ffffa9fe0002003020010db80077400101005002000a02020000fde800030d\
         41c00808ffff0000ffff0007c0200c00030d410000000100000002",
        "2001:db8:77::/48 via ::ffff:169.254.0.2 Igp [65000, 200001] (65535,0) (65535,7) (200001,1,2)",
    ),
    // GoBGP writes MP_REACH_NLRI last.
    (
        "0043020000002c4001010240020602010000fde8800e1c0002011020010db8ffff00000000000000000002003020010db80060",
        "2001:db8:60::/48 via 2001:db8:ffff::2 Incomplete [65000]",
    ),
    // OpenBGPD without an IPv6 address on the session announces the loopback address.
    (
        "0044020000002d4001010040020602010000fde8900e001c0002011000000000000000000000000000000001003020010db80060",
        "2001:db8:60::/48 via ::1 withdrawn: its next hop is not the address of a host",
    ),
];

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let octets = digits.chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap());
    [0xFF; 16].into_iter().chain(octets).collect()
}

fn message(bytes: &[u8]) -> Message<'_> {
    let (message, rest) = split(bytes).unwrap().unwrap();
    assert!(rest.is_empty());
    message
}

fn open(hex: &str) -> Open {
    Open::decode(message(&bytes(hex)).body).unwrap()
}

#[test]
fn opens_of_real_speakers_are_understood() {
    let seconds = Duration::from_secs;
    for (hex, restart_time) in [(BIRD_OPEN, 120), (FRR_OPEN, 120), (GOBGP_OPEN, 60)] {
        let open = open(hex);
        let restart = open.capabilities.graceful_restart.unwrap();
        assert_eq!((open.asn, open.hold_time, open.router_id.octets()), (65000, 30, [169, 254, 0, 2]));
        assert!(open.capabilities.four_octet_as && open.capabilities.route_refresh);
        assert_eq!((open.capabilities.families, restart.restart_time), (Some(Families::ALL), seconds(restart_time)));
    }
    let bird = open(BIRD_OPEN).capabilities;
    let long_lived = LongLived { ipv4: Some(seconds(3600)), ipv6: Some(seconds(3600)), ..LongLived::default() };
    assert_eq!((bird.enhanced_refresh, bird.long_lived, bird.others), (true, Some(long_lived), vec![6]));
    // FRR has just started: R, and N of RFC 8538 beside it; F of RFC 9494 alone.
    let frr = open(FRR_OPEN).capabilities;
    let restart = GracefulRestart {
        is_restarting: true,
        restart_time: seconds(120),
        families: Families::ALL,
        is_forwarding: Families::NONE,
    };
    assert_eq!((frr.graceful_restart, frr.others), (Some(restart), vec![128, 6, 69, 73]));
    assert_eq!(frr.long_lived.unwrap().is_forwarding, Families::ALL);
    let gobgp = open(GOBGP_OPEN).capabilities;
    assert_eq!(gobgp.graceful_restart.unwrap().families, Families::IPV4);
    assert_eq!((gobgp.long_lived, gobgp.others), (None, vec![73, 5]));
}

#[test]
fn updates_of_real_speakers_say_what_they_said() {
    let session = Session { four_octet_as: true, is_internal: false, families: Families::ALL, first_as: Some(65000) };
    for (hex, expected) in UPDATES {
        let bytes = bytes(hex);
        let message = message(&bytes);
        assert_eq!(message.kind, MessageKind::Update);
        let update = Update::decode(message.body, &session).unwrap();
        let mut said: Vec<String> = update.announced.map(|net| net.to_string()).collect();
        said.extend(update.next_hop.map(|hop| format!("via {hop}")));
        if let Some((hop, prefixes)) = update.reachable {
            said.extend(prefixes.map(|net| net.to_string()));
            said.push(format!("via {hop}"));
        }
        if let Some(it) = &update.attributes {
            said.push(format!("{:?} {:?}", it.origin, it.as_path.0));
            said.extend(it.med.map(|med| format!("med {med}")));
            said.extend(it.communities.iter().map(|c| format!("({},{})", c.0 >> 16, c.0 & 0xFFFF)));
            said.extend(it.large_communities.iter().map(|c| format!("({},{},{})", c.global, c.local1, c.local2)));
        }
        said.extend(update.faults.iter().map(|fault| format!("withdrawn: {}", fault.reason)));
        said.extend(update.end_of_rib.map(|family| format!("end of {family:?}")));
        assert_eq!(said.join(" "), *expected);
    }
}

#[test]
fn the_borders_of_a_refresh_are_seen() {
    // BIRD, asked to refresh IPv4: the beginning and the end.
    let said: Vec<_> =
        ["00170500010101", "00170500010201"].map(|hex| Refresh::decode(message(&bytes(hex)).body)).into();
    assert!(said.iter().all(|refresh| refresh.as_ref().unwrap().unwrap().family == Family::Ipv4));
    assert_eq!(format!("{said:?}").matches("Begin").count(), 1);
    assert_eq!(format!("{said:?}").matches("End").count(), 1);
}
