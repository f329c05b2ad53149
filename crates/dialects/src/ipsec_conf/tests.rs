use super::*;
use crate::MemoryFiles;

fn files(conf: &str) -> MemoryFiles {
    MemoryFiles::new().with("/etc/ipsec.conf", conf).with("/etc/ipsec.secrets", ": PSK \"everyone's\"\n")
}

/// The settings that make a connection whole, to add the one of interest to.
const LIBRE: &str =
    "conn a\n  authby=secret\n  auto=add\n  left=192.0.2.1\n  right=203.0.113.10\n  phase2alg=aes128-sha1\n";
const SWAN: &str = "conn a\n  leftauth=psk\n  rightauth=psk\n  auto=add\n  left=192.0.2.1\n  right=203.0.113.10\n";

fn reading(conf: &str) -> Reading {
    read("/etc/ipsec.conf", None, &files(conf)).unwrap_or_else(|errors| panic!("{errors}"))
}

fn one(conf: &str) -> Connection {
    reading(conf).config.connections.remove(0)
}

fn errors(conf: &str) -> String {
    read("/etc/ipsec.conf", None, &files(conf)).unwrap_err().to_string()
}

#[test]
fn the_same_words_mean_what_their_own_program_means() {
    let (swan, libre) = (one(&format!("{SWAN}  keyexchange=ike\n")), one(&format!("{LIBRE}  keyexchange=ike\n")));
    assert_eq!(swan.versions, Versions::Both { initiate: Version::V2 });
    assert_eq!(libre.versions, Versions::Both { initiate: Version::V1 });
}
