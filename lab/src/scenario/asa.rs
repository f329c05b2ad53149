//! The counters of a Cisco ASA's `show crypto ipsec sa`, and where `simplon status --detail` has
//! their equals.

use serde_json::Value;

use crate::report::Reporter;
use crate::scenario::openswan_vgw::inputs_dir;

/// Where simplon has the equal of a counter of the ASA.
enum Equal {
    /// A field of an SA's traffic.
    Traffic(&'static str),
    /// A field of the data path of the gateway.
    DataPath(&'static str),
    /// Words of `simplon status --detail`: what simplon does not do is said, not counted.
    Said(&'static str),
}

/// The ASA's counters in its order.
const COUNTERS: [(&str, Equal); 26] = [
    ("pkts encaps", Equal::Traffic("/outbound/packets")),
    ("pkts encrypt", Equal::Traffic("/outbound/packets")),
    ("pkts digest", Equal::Traffic("/outbound/packets")),
    ("pkts decaps", Equal::Traffic("/inbound/packets")),
    ("pkts decrypt", Equal::Traffic("/inbound/packets")),
    ("pkts verify", Equal::Traffic("/inbound/packets")),
    ("pkts compressed", Equal::Said("compress")),
    ("pkts decompressed", Equal::Said("compress")),
    ("pkts not compressed", Equal::Traffic("/outbound/packets")),
    ("pkts comp failed", Equal::Said("compress")),
    ("pkts decomp failed", Equal::Said("compress")),
    ("pre-frag successes", Equal::Traffic("/fragmented")),
    ("pre-frag failures", Equal::Traffic("/fragmentation_failed")),
    ("fragments created", Equal::Traffic("/fragments_created")),
    ("PMTUs sent", Equal::Traffic("/too_big_sent")),
    ("PMTUs rcvd", Equal::Traffic("/path_mtu_received")),
    ("decapsulated frgs needing reassembly", Equal::Traffic("/inner_fragments")),
    ("TFC rcvd", Equal::Traffic("/dummies_received")),
    ("TFC sent", Equal::Said("TFC")),
    ("Valid ICMP Errors rcvd", Equal::DataPath("/valid_icmp_errors")),
    ("Invalid ICMP Errors rcvd", Equal::DataPath("/invalid_icmp_errors")),
    ("send errors", Equal::DataPath("/send_errors")),
    ("recv errors", Equal::DataPath("/receive_errors")),
    // Not with a number sign, but of the same list.
    ("current outbound spi", Equal::Said("SPI")),
    ("current inbound spi", Equal::Said("SPI")),
    ("Anti replay bitmap", Equal::Traffic("/replay_bitmap")),
];

/// Each counter that the ASA's output names has its equal.
pub(super) fn check(reporter: &mut Reporter, end: &str, detail: &Value, text: &str) {
    let names = named();
    let missing: Vec<String> = names.iter().filter(|name| !has_equal(name, detail, text)).cloned().collect();
    let found = if missing.is_empty() {
        format!("{} of {}", names.len(), names.len())
    } else {
        format!("none for {}", missing.join(", "))
    };
    reporter.check(format!("each ASA counter has its equal in the {end}'s status"), missing.is_empty(), found);
}

fn has_equal(name: &str, detail: &Value, text: &str) -> bool {
    let connection = &detail["connections"][0];
    let traffic = || {
        let children = connection["children"].as_array().into_iter().flatten();
        children.filter_map(|child| child["sas"].as_array()).flatten().map(|sa| &sa["traffic"])
    };
    COUNTERS.iter().find(|(known, _)| *known == name).is_some_and(|(_, equal)| match equal {
        Equal::Traffic(path) => traffic().any(|traffic| traffic.pointer(path).is_some_and(Value::is_u64)),
        Equal::DataPath(path) => detail["gateway"]["data_path"].pointer(path).is_some_and(Value::is_u64),
        Equal::Said(words) => text.to_lowercase().contains(&words.to_lowercase()),
    })
}

/// The counters that the document names; without it, those that we know.
fn named() -> Vec<String> {
    let file = inputs_dir().map(|dir| dir.join("cisco-asa/show-crypto.txt"));
    let text = file.and_then(|path| std::fs::read_to_string(path).ok());
    let names = text.map(|text| read_names(&text)).unwrap_or_default();
    if names.is_empty() { COUNTERS.iter().map(|(name, _)| (*name).to_owned()).collect() } else { names }
}

/// `#name: value` and its separators, each name once.
fn read_names(text: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for part in text.lines().flat_map(|line| line.split(", ")) {
        if let Some((name, value)) = part.trim().strip_prefix('#').and_then(|part| part.split_once(':'))
            && value.trim().parse::<u64>().is_ok()
            && !names.iter().any(|known| known == name)
        {
            names.push(name.to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_counters_are_read_from_the_asas_output() {
        let text = "#pkts encaps: 827, #pkts encrypt: 827\nlocal ident: x\n#PMTUs sent: 0, #PMTUs rcvd: 0\n";
        assert_eq!(read_names(text), ["pkts encaps", "pkts encrypt", "PMTUs sent", "PMTUs rcvd"]);
    }

    #[test]
    fn every_counter_of_the_document_is_known() {
        for name in named() {
            assert!(COUNTERS.iter().any(|(known, _)| *known == name), "{name}");
        }
    }

    #[test]
    fn a_counter_without_its_field_has_no_equal() {
        let detail =
            serde_json::json!({ "connections": [{ "children": [{ "sas": [{ "traffic": { "fragmented": 0 } }] }] }] });
        assert!(has_equal("pre-frag successes", &detail, ""));
        assert!(!has_equal("pre-frag failures", &detail, ""));
        assert!(!has_equal("send errors", &detail, ""));
        assert!(has_equal("TFC sent", &detail, "no TFC padding is sent"));
    }
}
