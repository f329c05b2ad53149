//! Every field that `show crypto` of an ASA and the `show` commands of a NEC IX have, beside its equal in `simplon show`:
//! a piece of the text, and a place in the JSON. `routes` and its tests have those of `show ip bgp` and `show ip route`.
//!
//! Without an equal: the outgoing interface (the kernel routes each packet), slot and sequence number (there are no cards
//! and no order of maps), the version of the BGP table (paths have no common one), RIP and OSPF, hidden and free entries,
//! the administrative distance (Linux has the metric alone).

use serde_json::Value;

use super::tests::{holds, status};
use super::{ike, ipsec};

/// The field as the document has it; words of a line, in order; a JSON pointer into the first entry that is in use.
type Field = (&'static str, &'static [&'static str], &'static str);

/// `show ike sa` of the IX and `show crypto isakmp sa` of the ASA: `simplon show ike-sa`.
const IKE: &[Field] = &[
    ("ISAKMP SA - 2 configured", &["2 configured"], "/connection"),
    ("2 created, Total IKE SA: 1", &["1 in all"], "/sa"),
    ("Active SA: 1", &["1 active"], "/sa/state"),
    ("Rekey SA: 0", &["0 rekeying"], "/sa/state"),
    ("Local address is 192.168.1.10, port is 500", &["local", "192.168.1.10:4500"], "/sa/local"),
    ("Remote address is 34.217.232.61, port is 500", &["peer", "34.217.232.61:4500"], "/sa/remote"),
    ("IKE Peer: 3.34.211.29", &["peer", "34.217.232.61"], "/sa/remote_id"),
    ("IKE policy name is ike-policy1", &["Tunnel1:"], "/connection"),
    ("Direction is initiator, Role : initiator", &["direction initiator"], "/sa/role"),
    ("Initiator's cookie", &["cookies", "initiator 0x6b8f5d5e57ba6061"], "/sa/initiator_spi"),
    ("Responder's cookie", &["cookies", "responder 0x9e93277dd7df582e"], "/sa/responder_spi"),
    ("Exchange type is main mode", &["exchange", "main mode (ikev1)"], "/sa/version"),
    ("Type : L2L", &["type L2L"], "/sa/version"),
    ("State is established", &["Tunnel1: established"], "/sa/state"),
    ("State : MM_ACTIVE", &["state", "MM_ACTIVE"], "/sa/state_name"),
    ("Rekey : no", &["rekey no"], "/sa/state"),
    ("Authentication method is pre-shared", &["authentication", "pre-shared"], "/sa/authentication"),
    ("Encryption algorithm is aes-128", &["encryption", "aes128"], "/sa/encryption"),
    ("Hash algorithm is sha1", &["hash", "sha1"], "/sa/hash"),
    ("DH group is modp1024", &["DH group", "modp1024"], "/sa/group"),
    ("lifetime is 28382 seconds", &["lifetime", "28382 s"], "/sa/expires_in_s"),
    ("#ph1 success", &["# phase 1", "success 1"], "/negotiations/phase1/succeeded"),
    ("#ph1 failure", &["# phase 1", "failure 2"], "/negotiations/phase1/failed"),
    ("#ph1 hash err", &["# phase 1", "hash err 4"], "/negotiations/phase1/hash_errors"),
    ("#ph1 timeout", &["# phase 1", "timeout 3"], "/negotiations/phase1/timeouts"),
    ("#ph1 resend", &["# phase 1", "resend 5"], "/negotiations/phase1/resent"),
    ("#ph2 success", &["# phase 2", "success 21"], "/negotiations/phase2/succeeded"),
    ("#ph2 failure", &["# phase 2", "failure 22"], "/negotiations/phase2/failed"),
    ("#ph2 hash err", &["# phase 2", "hash err 24"], "/negotiations/phase2/hash_errors"),
    ("#ph2 timeout", &["# phase 2", "timeout 23"], "/negotiations/phase2/timeouts"),
    ("#ph2 resend", &["# phase 2", "resend 25"], "/negotiations/phase2/resent"),
];

/// `show ipsec sa` of the IX and `show crypto ipsec sa` of the ASA: `simplon show ipsec-sa`.
const IPSEC: &[Field] = &[
    ("IPsec SA - 2 configured, 4 created", &["2 configured", "2 in pairs"], "/sa/id"),
    ("Interface is Tunnel0.0, interface: outside", &["interface vti1"], "/device"),
    ("Key policy map name, Crypto map tag, crypto-map", &["Tunnel1/net"], "/child"),
    ("Tunnel mode, 4-over-4", &["mode", "tunnel, 4-over-4"], "/sa/encapsulation"),
    ("local addr, Local address", &["ends", "192.168.1.10"], "/sa/local_endpoint"),
    ("local ident (addr/mask/prot/port)", &["local ident", "192.168.1.0/24"], "/sa/local"),
    ("remote ident (addr/mask/prot/port)", &["remote ident", "172.31.0.0/16"], "/sa/remote"),
    ("current_peer, Remote address", &["crypto endpoints", "remote 34.217.232.61:4500"], "/sa/remote_endpoint"),
    ("local crypto endpt.", &["crypto endpoints", "local 192.168.1.10:4500"], "/sa/local_endpoint"),
    ("#pkts encaps, encrypt, digest", &["# encaps", "827, encrypt 827, digest 827"], "/sa/traffic/outbound/packets"),
    ("#pkts decaps, decrypt, verify", &["# decaps", "764, decrypt 764, verify 764"], "/sa/traffic/inbound/packets"),
    ("#pkts compressed, decompressed", &["# compression", "compressed 0, decompressed 0"], "/sa/suite"),
    ("#pkts not compressed", &["# compression", "not compressed 827"], "/sa/traffic/outbound/packets"),
    ("#pkts comp failed, decomp failed", &["# compression", "comp failed 0, decomp failed 0"], "/sa/suite"),
    ("#pre-frag successes", &["# pre-frag", "successes 5"], "/sa/traffic/fragmented"),
    ("#pre-frag failures", &["# pre-frag", "failures 6"], "/sa/traffic/fragmentation_failed"),
    ("#fragments created", &["# pre-frag", "fragments created 10"], "/sa/traffic/fragments_created"),
    ("#PMTUs sent", &["# PMTUs", "sent 7"], "/sa/traffic/too_big_sent"),
    ("#PMTUs rcvd", &["# PMTUs", "received 8"], "/sa/traffic/path_mtu_received"),
    ("#decapsulated frgs needing reassembly", &["# PMTUs", "inner fragments 9"], "/sa/traffic/inner_fragments"),
    ("#TFC rcvd, sent", &["# TFC", "received 11, sent 0"], "/sa/traffic/dummies_received"),
    ("#Valid ICMP Errors rcvd", &["# ICMP errors", "valid 53"], "/errors/valid_icmp_errors"),
    ("#Invalid ICMP Errors rcvd", &["# ICMP errors", "invalid 54"], "/errors/invalid_icmp_errors"),
    ("#send errors", &["# errors", "send 51"], "/errors/send_errors"),
    ("#recv errors", &["# errors", "receive 52"], "/errors/receive_errors"),
    ("Interface MTU", &["interface MTU", "1422"], "/sa/mtu"),
    ("path mtu", &["path MTU", "1500 (probed"], "/sa/outer_mtu"),
    ("ipsec overhead", &["path MTU", "overhead 78"], "/sa/overhead"),
    ("media mtu", &["path MTU", "media 1500"], "/sa/outer_mtu"),
    ("PMTU time remaining", &["path MTU", "12s ago", "probed again by itself"], "/sa/outer_mtu_probed_ago_s"),
    ("DF policy: copy-df", &["DF policy", "clear-df"], "/df"),
    ("ICMP error validation, TFC packets: disabled", &["TFC packets are not sent, ICMP errors are counted"], "/df"),
    ("current outbound spi, SPI in both notations", &["SPI", "0xc7cceebf (3352096447)"], "/sa/outbound_spi"),
    ("current inbound spi, SPI in both notations", &["SPI", "0xe2b83fd5 (3803725781)"], "/sa/inbound_spi"),
    ("SA State: active", &["conn id 5: active"], "/sa/state"),
    ("transform: esp-aes esp-sha-hmac no compression", &["transform", "aes128-sha1", "no compression"], "/sa/suite"),
    ("in use settings", &["{L2L, Tunnel, PFS modp1024, ikev1}"], "/version"),
    ("Rekeyed", &["{L2L, Tunnel, PFS modp1024, ikev1, Rekeyed}"], "/sa/state"),
    ("Perfect forward secrecy is 1024-bit", &["PFS modp1024"], "/sa/pfs"),
    ("conn_id", &["conn id 5"], "/sa/id"),
    ("sa timing, Remaining lifetime", &["remaining lifetime", "3177 s"], "/sa/expires_in_s"),
    ("IV size: 16 bytes", &["IV 16 bytes"], "/sa/iv_bytes"),
    ("replay detection support: Y", &["replay detection", "on, window 1024"], "/sa/replay_window"),
    ("Anti replay bitmap", &["anti replay bitmap", "0x00000001 0x00000001"], "/sa/traffic/replay_bitmap"),
];

fn each_is_there(fields: &[Field], text: &str, entry: &Value) {
    for (field, words, pointer) in fields {
        holds(text, &[words]);
        assert!(entry.pointer(pointer).is_some_and(|value| !value.is_null()), "{field}: {pointer} in {entry:#}");
    }
}

#[test]
fn every_field_of_the_documents_is_in_the_text_and_in_the_json() {
    let status = status();
    each_is_there(IKE, &ike::text(&status), &serde_json::to_value(ike::rows(&status)).unwrap()[0]);
    each_is_there(IPSEC, &ipsec::text(&status), &serde_json::to_value(ipsec::rows(&status)).unwrap()[1]);
}
