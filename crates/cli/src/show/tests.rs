//! A gateway after the first lab of the documents, and what is shown of it.

use gateway::status::Status;

use super::*;

/// Two tunnels to a cloud: the first is up and was just rekeyed, the second waits.
pub(super) fn status() -> Status {
    let sa = |id: u64, state: &str, inbound: &str| {
        serde_json::json!({
            "id": id, "state": state, "inbound_spi": inbound, "outbound_spi": "c7cceebf", "suite": "aes128-sha1",
            "is_weak": true, "esn": false, "iv_bytes": 16, "pfs": "modp1024", "local": ["192.168.1.0/24"],
            "remote": ["172.31.0.0/16"], "encapsulation": "udp", "local_endpoint": "192.168.1.10:4500",
            "remote_endpoint": "34.217.232.61:4500", "mtu": 1422, "mtu_from": "computed", "outer_mtu": 1500,
            "outer_mtu_from": "probed", "outer_mtu_probed_ago_s": 12,
            "overhead": 78, "mss": 1382, "replay_window": 1024, "age_s": 420, "rekey_in_s": 2600,
            "expires_in_s": 3177,
            "traffic": {
                "outbound": { "packets": 827, "bytes": 68641, "dropped": { "too_big": 2 } },
                "inbound": { "packets": 764, "bytes": 64176, "dropped": { "replay": 3 } },
                "fragmented": 5, "fragmentation_failed": 6, "fragments_created": 10, "too_big_sent": 7,
                "path_mtu_received": 8, "inner_fragments": 9, "dummies_received": 11, "sequence_sent": 827,
                "sequence_received": 764, "replay_bitmap": 0x1_0000_0001_u64, "idle_s": 4,
            },
        })
    };
    let connection = serde_json::json!({
        "name": "Tunnel1", "state": "up", "for_s": 420, "why": "net up", "retry_in_s": null, "versions": ["ikev1"],
        "local": "192.168.1.10", "remote": "34.217.232.61", "weak": [], "history": [], "last_failure": null,
        "dpd": { "delay_s": 10, "timeout_s": 30, "action": "restart" },
        "negotiations": {
            "phase1": { "succeeded": 1, "failed": 2, "timeouts": 3, "hash_errors": 4, "resent": 5, "answered_again": 6 },
            "phase2": { "succeeded": 21, "failed": 22, "timeouts": 23, "hash_errors": 24, "resent": 25,
                        "answered_again": 26 },
            "ike_rekeys": 31, "child_rekeys": 32, "peer_dead": 33, "failures": { "wrong_psk": 2 },
        },
        "ike_sas": [{
            "version": "ikev1", "state": "established", "state_name": "MM_ACTIVE", "role": "initiator",
            "initiator_spi": "6b8f5d5e57ba6061", "responder_spi": "9e93277dd7df582e", "local": "192.168.1.10:4500",
            "remote": "34.217.232.61:4500", "local_id": "192.168.1.10", "remote_id": "34.217.232.61",
            "suite": "aes128-sha1-modp1024", "encryption": "aes128", "hash": "sha1", "prf": "sha1",
            "group": "modp1024", "authentication": "pre-shared", "is_weak": true, "nat_local": true,
            "nat_remote": false, "age_s": 418, "rekey_in_s": 27000, "expires_in_s": 28382,
        }],
        "children": [{
            "name": "net", "start": "at_once", "device": "vti1", "local": ["192.168.1.0/24"],
            "remote": ["172.31.0.0/16"], "df": "clear",
            "sas": [sa(4, "rekeyed", "eed2584f"), sa(5, "active", "e2b83fd5")],
        }],
    });
    let mut waiting = connection.clone();
    waiting["name"] = "Tunnel2".into();
    waiting["state"] = "waiting".into();
    waiting["why"] = "the peer does not answer".into();
    waiting["ike_sas"] = serde_json::json!([]);
    waiting["children"][0]["sas"] = serde_json::json!([]);
    let connections = [connection, waiting].map(|c| serde_json::from_value(c).unwrap()).into();
    let mut status = Status { connections, ..Status::default() };
    status.gateway.data_path = Some(gateway::status::DataPathCounters {
        send_errors: 51,
        receive_errors: 52,
        valid_icmp_errors: 53,
        invalid_icmp_errors: 54,
        ..Default::default()
    });
    status
}

/// Each line holds all words of an entry, in order.
pub(super) fn holds(text: &str, entries: &[&[&str]]) {
    for words in entries {
        let has = |line: &str| {
            let mut rest = line;
            words.iter().all(|word| {
                rest.find(word).is_some_and(|at| {
                    rest = &rest[at + word.len()..];
                    true
                })
            })
        };
        assert!(text.lines().any(has), "{words:?} in\n{text}");
    }
}

/// `show ike sa` of a NEC IX and `show crypto isakmp sa` of an ASA, line by line.
#[test]
fn every_field_of_a_routers_ike_table_is_there() {
    let text = ike::text(&status());
    holds(
        &text,
        &[
            &["2 configured", "1 active", "0 rekeying", "1 in all"],
            &["Tunnel1", "established", "direction initiator"],
            &["local", "192.168.1.10:4500", "behind NAT"],
            &["peer", "34.217.232.61:4500"],
            &["cookies", "initiator 0x6b8f5d5e57ba6061", "responder 0x9e93277dd7df582e"],
            &["exchange", "main mode", "L2L"],
            &["state", "MM_ACTIVE", "rekey no"],
            &["authentication", "pre-shared"],
            &["encryption", "aes128"],
            &["hash", "sha1"],
            &["DH group", "modp1024"],
            &["lifetime", "28382 s"],
            &["# phase 1", "success 1", "failure 2", "timeout 3", "hash err 4", "resend 5"],
            &["# phase 2", "success 21", "failure 22", "timeout 23", "hash err 24", "resend 25"],
            &["# since", "IKE rekeys 31", "child rekeys 32", "peer dead 33"],
            &["# failures by cause", "wrong_psk 2"],
            &["DPD", "10 s", "30 s", "restart"],
            &["Tunnel2: waiting", "the peer does not answer"],
        ],
    );
}

/// `show ipsec sa` of a NEC IX and `show crypto ipsec sa` of an ASA, line by line.
#[test]
fn every_field_of_a_routers_ipsec_table_is_there() {
    let text = ipsec::text(&status());
    holds(
        &text,
        &[
            &["2 configured", "2 in pairs", "1 active", "1 rekeyed"],
            &["Tunnel1/net", "interface vti1"],
            &["local ident", "192.168.1.0/24"],
            &["remote ident", "172.31.0.0/16"],
            &["DF policy", "clear-df", "TFC"],
            &["conn id 4: rekeyed"],
            &["in use settings", "L2L, Tunnel, PFS modp1024, ikev1, Rekeyed"],
            &["mode", "tunnel, 4-over-4"],
            &["crypto endpoints", "local 192.168.1.10:4500", "remote 34.217.232.61:4500"],
            &["interface MTU", "1422 (computed)", "MSS 1382"],
            &["path MTU", "1500 (probed, 12s ago)", "overhead 78"],
            &["remaining lifetime", "3177 s"],
            &["# encaps", "827", "encrypt 827", "digest 827"],
            &["# decaps", "764", "decrypt 764", "verify 764"],
            &["# pre-frag", "successes 5", "failures 6", "created 10"],
            &["# PMTUs", "sent 7", "received 8", "fragments 9"],
            &["# TFC", "received 11"],
            &["SPI", "0xe2b83fd5 (3803725781)"],
            &["SPI", "0xc7cceebf (3352096447)"],
            &["transform", "aes128-sha1", "IV 16 bytes", "no compression"],
            &["replay detection", "on", "window 1024", "highest 764"],
            &["anti replay bitmap", "0x00000001 0x00000001"],
            &["dropped", "replay 3"],
            &["dropped", "too_big 2"],
            &["Tunnel2/net"],
            &["SAs", "none", "the peer does not answer"],
        ],
    );
}

#[test]
fn as_json_an_entry_a_sa_and_one_for_what_has_none() {
    let status = status();
    let ike = serde_json::to_value(ike::rows(&status)).unwrap();
    assert_eq!(ike.as_array().unwrap().len(), 2);
    assert_eq!((&ike[0]["sa"]["hash"], &ike[0]["negotiations"]["phase1"]["resent"]), (&"sha1".into(), &5.into()));
    assert_eq!((&ike[1]["connection"], &ike[1]["sa"]), (&"Tunnel2".into(), &serde_json::Value::Null));
    let ipsec = serde_json::to_value(ipsec::rows(&status)).unwrap();
    assert_eq!(ipsec.as_array().unwrap().len(), 3);
    assert_eq!((&ipsec[0]["sa"]["state"], &ipsec[1]["sa"]["id"]), (&"rekeyed".into(), &5.into()));
    assert!(ipsec[2]["sa"].is_null());
}

#[test]
fn one_connection_can_be_shown_alone() {
    assert_eq!(only(status(), Some("Tunnel2")).unwrap().connections.len(), 1);
    assert_eq!(only(status(), Some("nobody")).unwrap_err().code, Code::Failed);
}
