//! Every setting means what its own program means by it, and every fault shows its line and no secret.

use std::net::IpAddr;

use model::{Address, DpdAction, Encapsulation, Start, Tries};

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

fn swan(setting: &str) -> Connection {
    one(&format!("{SWAN}  {setting}\n"))
}

fn libre(setting: &str) -> Connection {
    one(&format!("{LIBRE}  {setting}\n"))
}

fn names(reading: &Reading) -> Vec<&str> {
    reading.config.connections.iter().map(|connection| connection.name.as_str()).collect()
}

fn first_esp(connection: &Connection) -> String {
    connection.children[0].esp[0].to_string()
}

#[test]
fn the_same_words_mean_what_their_own_program_means() {
    let (swan, libre) = (swan("keyexchange=ike"), libre("keyexchange=ike"));
    assert_eq!(swan.versions, Versions::Both { initiate: Version::V2 });
    assert_eq!(libre.versions, Versions::Both { initiate: Version::V1 });
    assert_eq!((swan.tries, libre.tries), (Tries::Times(3), Tries::Forever));
    let hours = |c: &Connection| (c.ike_lifetime.time.as_secs() / 3600, c.children[0].lifetime.time.as_secs() / 3600);
    assert_eq!((hours(&swan), hours(&libre)), ((3, 1), (1, 8)));
}

#[test]
fn forward_secrecy_is_as_each_program_has_it() {
    assert_eq!(first_esp(&swan("esp=aes128-sha1")), "aes128-sha1");
    assert_eq!(first_esp(&swan("esp=aes128-sha1-modp2048")), "aes128-sha1-modp2048");
    assert_eq!(first_esp(&libre("ike=aes128-sha1;modp1536")), "aes128-sha1-modp1536");
    assert_eq!(first_esp(&libre("pfs=no")), "aes128-sha1");
    assert_eq!(first_esp(&libre("pfsgroup=modp2048")), "aes128-sha1-modp2048");
}

#[test]
fn strongswan_adds_its_defaults_unless_told_not_to() {
    assert_eq!(swan("ike=aes128-sha1-modp1024!").ike.len(), 1);
    assert_eq!(swan("ike=aes128-sha1-modp1024").ike.len(), 3);
    assert_eq!(libre("ike=aes128-sha1-modp1024").ike.len(), 1);
    let v1 = one(&format!("{SWAN}  keyexchange=ikev1\n  ike=aes128-sha1-modp1024\n  esp=aes128-sha1-modp1024\n"));
    assert!(v1.ike.iter().all(|p| p.encryption.iter().all(|e| !e.is_aead())));
    assert!(v1.children[0].esp.iter().all(|p| p.groups == v1.children[0].esp[0].groups), "one group in quick mode");
}

#[test]
fn the_four_values_of_ikev2_are_libreswans() {
    let versions = |value: &str| libre(&format!("ikev2={value}")).versions;
    assert_eq!(versions("no"), Versions::Only(Version::V1));
    assert_eq!(versions("permit"), Versions::Both { initiate: Version::V1 });
    assert_eq!(versions("propose"), Versions::Both { initiate: Version::V2 });
    assert_eq!(versions("insist"), Versions::Only(Version::V2));
    assert_eq!(libre("ipsec-lifetime=1h").versions, Versions::Only(Version::V2), "a keyword of 4.x has 4.x's default");
}

#[test]
fn dead_peers_are_looked_for_as_each_program_does() {
    assert_eq!(swan("dpddelay=10s").dpd, None);
    let dpd = swan("dpdaction=clear").dpd.unwrap();
    assert_eq!((dpd.delay.as_secs(), dpd.timeout.as_secs(), dpd.action), (30, 150, DpdAction::Clear));
    assert_eq!(libre("dpddelay=10").dpd, None);
    let dpd = libre("dpddelay=10\n  dpdtimeout=30").dpd.unwrap();
    assert_eq!((dpd.delay.as_secs(), dpd.timeout.as_secs(), dpd.action), (10, 30, DpdAction::Hold));
}

#[test]
fn defaults_hold_wherever_they_stand_and_the_last_also_of_strongswan_counts() {
    let conf = "\
conn a
    also=x
    also=y
    right=203.0.113.10
conn x
    lifetime=2h
    keyingtries=7
conn y
    lifetime=3h
conn %default
    leftauth=psk
    rightauth=psk
    auto=add
    left=192.0.2.1
    lifetime=4h
    ikelifetime=5h
";
    let read = reading(conf);
    assert_eq!(names(&read), ["a"], "what names no peer is only a template");
    let connection = &read.config.connections[0];
    assert_eq!(connection.children[0].lifetime.time.as_secs(), 3 * 3600);
    assert_eq!(connection.ike_lifetime.time.as_secs(), 5 * 3600);
    assert_eq!(connection.tries, Tries::Times(7));
    // An empty value undoes what is inherited: the program's default counts.
    let reset = conf.replace("    also=x\n", "    also=x\n    ikelifetime=\n");
    assert_eq!(reading(&reset).config.connections[0].ike_lifetime.time.as_secs(), 3 * 3600);
}

#[test]
fn a_circle_of_also_is_an_error_and_a_diamond_is_not() {
    let circle = "conn a\n  also=b\n  authby=psk\nconn b\n  also=a\n  auto=add\n";
    assert!(errors(circle).contains("also= leads in a circle: a -> b -> a"));
    // Thirty diamonds in a row have 2^30 ways through.
    let mut conf = String::from(SWAN).replace("  auto=add\n", "  auto=add\n  also=l0\n  also=r0\n");
    for n in 0..30 {
        for side in ["l", "r"] {
            conf.push_str(&format!("conn {side}{n}\n  also=l{}\n  also=r{}\n", n + 1, n + 1));
        }
    }
    conf.push_str("conn l30\n  lifetime=2h\nconn r30\n  lifetime=3h\n");
    assert_eq!(one(&conf).children[0].lifetime.time.as_secs(), 3 * 3600);
}

#[test]
fn the_right_side_is_ours_when_only_it_can_be() {
    let route = "conn a\n  authby=psk\n  auto=add\n  left=203.0.113.10\n  leftsubnet=10.1.0.0/16\n  right=%defaultroute\n  rightsubnet=10.2.0.0/16\n";
    let connection = one(route);
    assert_eq!(connection.remote.address, Address::Ip("203.0.113.10".parse().unwrap()));
    assert_eq!(connection.children[0].local[0].to_string(), "10.2.0.0/16");
    let here: Vec<IpAddr> = vec!["203.0.113.10".parse().unwrap()];
    let options = Options { local_addresses: here, ..Options::default() };
    let swapped = read_with("/etc/ipsec.conf", &options, &files(SWAN)).unwrap().config.connections.remove(0);
    assert_eq!(swapped.remote.address, Address::Ip("192.0.2.1".parse().unwrap()));
}

#[test]
fn a_side_without_networks_is_its_host_and_ports_narrow_it() {
    let connection = swan("rightsubnet=10.0.0.0/8[tcp/443],10.1.0.0/16\n  leftprotoport=udp/1701");
    assert_eq!(connection.children[0].local[0].to_string(), "192.0.2.1/32[17/1701]");
    let remote: Vec<_> = connection.children[0].remote.iter().map(ToString::to_string).collect();
    assert_eq!(remote, ["10.0.0.0/8[6/443]", "10.1.0.0/16"]);
    assert_eq!(swan("leftsubnet=%dynamic[tcp]").children[0].local[0].to_string(), "192.0.2.1/32[6]");
    assert!(errors(&SWAN.replace("192.0.2.1", "%any")).contains("leftsubnet= is missing"));
    assert_eq!(swan("keyexchange=ikev1\n  rightsubnet=10.1.0.0/16,10.2.0.0/16").children[0].remote.len(), 1);
}

#[test]
fn subnets_of_libreswan_are_children_of_one_connection() {
    let connection = libre("leftsubnets={10.1.0.0/16 10.2.0.0/16}\n  rightsubnets={10.3.0.0/16,10.4.0.0/16}");
    let names: Vec<_> = connection.children.iter().map(|child| child.name.as_str()).collect();
    assert_eq!(names, ["a/1x1", "a/1x2", "a/2x1", "a/2x2"]);
}

#[test]
fn connections_that_share_their_ike_sa_become_one() {
    let conf = format!("{SWAN}  rightsubnet=10.1.0.0/16\nconn b\n  also=a\n  rightsubnet=10.2.0.0/16\n");
    let reading = reading(&conf);
    assert_eq!(names(&reading), ["a"]);
    let children: Vec<_> = reading.config.connections[0].children.iter().map(|child| child.name.as_str()).collect();
    assert_eq!(children, ["a", "b"]);
    assert!(reading.notes.iter().any(|note| note.text.contains("shares the IKE SA")));
}

#[test]
fn what_is_not_to_be_loaded_is_not() {
    let both = reading(&format!("{SWAN}conn b\n  right=203.0.113.11\n"));
    assert_eq!(names(&both), ["a"]);
    assert!(both.notes.iter().any(|note| note.text.starts_with("connection b is not loaded")));
    assert!(errors("conn a\n  right=203.0.113.10\n").contains("no connection of /etc/ipsec.conf is to be loaded"));
    assert_eq!(swan("auto=route").children[0].start, Start::OnTraffic);
}

#[test]
fn the_other_settings_reach_the_model() {
    assert_eq!(swan("forceencaps=yes").encapsulation, Encapsulation::Force);
    assert_eq!(libre("encapsulation=no").encapsulation, Encapsulation::Never);
    assert!(!swan("fragmentation=no").fragmentation);
    assert_eq!(swan("replay_window=32").children[0].replay_window, 64);
    assert_eq!(swan("lifebytes=1000000").children[0].lifetime.bytes, Some(1_000_000));
    assert_eq!(swan("rekeyfuzz=50%").children[0].lifetime.fuzz_percent, 50);
    assert_eq!(swan("rightikeport=1500").remote.port, Some(1500));
    assert_eq!(libre("esn=either").children[0].esp[0].esn, [true, false]);
    assert_eq!(one(&format!("config setup\n  uniqueids=never\n{SWAN}")).uniqueness, Uniqueness::Never);
    let setup = format!("config setup\n  ikeport=1500\n  listen=192.0.2.1\n  keep-alive=30\n{LIBRE}");
    let gateway = reading(&setup).config.gateway;
    assert_eq!((gateway.ports.ike, gateway.listen.len(), gateway.nat_keepalive.as_secs()), (1500, 1, 30));
}

#[test]
fn a_mark_makes_a_device_with_a_name_that_fits() {
    let conf = SWAN.replace("conn a", "conn a-name-longer-than-a-device's").replace("auto", "mark=100/0xff\n  auto");
    let (left, right) = ("  leftsubnet=0.0.0.0/0\n", "  rightsubnet=0.0.0.0/0\n");
    let conf = format!("{conf}{left}{right}");
    let second = conf.replace("-device's", "-device'z").replace("113.10", "113.11").replace("mark=100", "mark=0x65");
    let config = reading(&format!("{conf}{second}")).config;
    let devices: Vec<_> = config
        .connections
        .iter()
        .map(|connection| match &connection.children[0].routing {
            Routing::Device { name, mark, .. } => (name.as_str(), *mark),
            Routing::Policy => panic!("policy"),
        })
        .collect();
    assert_eq!(devices, [("a-name-longer-t", Some(100)), ("a-name-long2", Some(101))]);
}

#[test]
fn includes_are_read_relative_to_their_file_and_never_for_ever() {
    let files = files("include ipsec.d/*.conf\n")
        .with("/etc/ipsec.d/one.conf", SWAN)
        .with("/etc/ipsec.d/.hidden.conf", "nonsense")
        .with("/etc/loop.conf", "include /etc/loop.conf\n")
        .with("/etc/loop.secrets", "include /etc/loop.secrets\n");
    assert_eq!(names(&read("/etc/ipsec.conf", None, &files).unwrap()), ["a"]);
    let looped = read("/etc/loop.conf", None, &files).unwrap_err().to_string();
    assert!(looped.contains("is it a loop?"), "{looped}");
    let looped = read("/etc/ipsec.conf", Some("/etc/loop.secrets"), &files).unwrap_err().to_string();
    assert!(looped.contains("is it a loop?"), "{looped}");
}

#[test]
fn the_dialect_can_be_said_in_a_comment_or_by_the_caller() {
    let neutral = "conn a\n  authby=secret\n  auto=add\n  left=192.0.2.1\n  right=203.0.113.10\n";
    let as_it_is = reading(neutral);
    assert_eq!(as_it_is.config.connections[0].versions, Versions::Both { initiate: Version::V2 });
    assert!(as_it_is.notes[0].text.starts_with("nothing shows whether"));
    let said = one(&format!("# simplon: dialect=openswan\n{neutral}"));
    assert_eq!(said.versions, Versions::Both { initiate: Version::V1 });
    let options = Options { dialect: Some(Dialect::Libreswan), ..Options::default() };
    let told = read_with("/etc/ipsec.conf", &options, &files(neutral)).unwrap().config.connections.remove(0);
    assert_eq!(told.versions, Versions::Both { initiate: Version::V1 });
}

#[test]
fn a_keyword_without_effect_is_said_once() {
    let reading = reading(&format!("{SWAN}  mobike=no\nconn b\n  also=a\n  right=203.0.113.11\n  mobike=no\n"));
    let said: Vec<_> = reading.notes.iter().filter(|note| note.text.starts_with("mobike")).collect();
    assert_eq!(said.len(), 1);
    assert_eq!((said[0].line, &*said[0].file), (7, "/etc/ipsec.conf"));
}

/// Reads `SWAN` with these secrets; the texts of the keys.
fn keys(secrets: &str, setting: &str) -> Vec<String> {
    let files = files(&format!("{SWAN}  {setting}\n")).with("/etc/s", secrets);
    let connection = read("/etc/ipsec.conf", Some("/etc/s"), &files).unwrap().config.connections.remove(0);
    connection.psk.iter().map(|psk| String::from_utf8_lossy(psk.expose()).into_owned()).collect()
}

#[test]
fn the_most_specific_key_wins_and_of_equals_the_first_is_used() {
    let all = "\
: PSK \"everyone\"
%any : PSK anyone
203.0.113.10 : PSK \"peer\"
192.0.2.1 203.0.113.10 : PSK \"pair\"
192.0.2.1 203.0.113.99 : PSK \"other\"
192.0.2.1
    203.0.113.10
    : PSK 'again'   # the same two
";
    assert_eq!(keys(all, ""), ["pair", "again"]);
    assert_eq!(keys(&all[..all.find("192").unwrap()], ""), ["peer"]);
    assert_eq!(keys(all, "rightid=@peer.example"), ["pair", "again"], "the address counts beside the identity");
    assert_eq!(keys("@us.example @peer.example : PSK named", "leftid=@US.example\n  rightid=@peer.example"), ["named"]);
    assert_eq!(keys("10.9.9.9 203.0.113.10 : PSK nat", "left=%defaultroute\n  leftsubnet=10.0.0.0/8"), ["nat"]);
}

#[test]
fn keys_are_read_in_every_encoding() {
    for (value, key) in [
        ("\"with blanks # and more\"", "with blanks # and more"),
        ("'single'", "single"),
        ("0x70_6c61_696e", "plain"),
        ("0scGxhaW4=", "plain"),
        ("0tplain", "plain"),
        ("plain", "plain"),
    ] {
        assert_eq!(keys(&format!("192.0.2.1 203.0.113.10: PSK {value}\n"), ""), [key], "{value}");
    }
    assert_eq!(keys("203.0.113.10 : RSA key.pem\n2001:db8:: : PSK six\n: PSK \"x\"\n", ""), ["x"]);
}

#[test]
fn a_wrong_keyword_is_shown_with_its_line_and_the_nearest_one() {
    insta::assert_snapshot!(errors(&format!("{SWAN}  keyexchage=ikev1\n  lifetime=1hour\n  ike=aes128-sah1-modp1024\n")), @r##"
    error: there is no keyword "keyexchage"
     --> /etc/ipsec.conf:7:3
      |
    7 |   keyexchage=ikev1
      |   ^^^^^^^^^^
      |
      = help: did you mean "keyexchange"?

    error: lifetime: a time is a number with s, m, h or d behind it, such as 8h
     --> /etc/ipsec.conf:8:12
      |
    8 |   lifetime=1hour
      |            ^^^^^

    error: unknown algorithm sah1
     --> /etc/ipsec.conf:9:14
      |
    9 |   ike=aes128-sah1-modp1024
      |              ^^^^
      |
      = help: did you mean sha1?
    "##);
}

#[test]
fn a_keyword_of_the_other_program_is_an_error_that_says_so() {
    insta::assert_snapshot!(errors(&format!("{SWAN}  salifetime=1h\n")), @r##"
    error: salifetime is a keyword of Libreswan, but this file is read as strongSwan's
     --> /etc/ipsec.conf:7:3
      |
    7 |   salifetime=1h
      |   ^^^^^^^^^^
      |
      = help: a comment `# simplon: dialect=libreswan` would have it read as the other
    "##);
}

#[test]
fn what_cannot_be_done_is_refused_with_its_reason() {
    let conf = format!(
        "{SWAN}  type=transport\n  aggressive=yes\n  rightsourceip=10.0.0.0/24\n  leftid=\"C=CH, CN=gw\"\n  also=nowhere\n"
    );
    insta::assert_snapshot!(errors(&conf), @r##"
    error: only tunnel mode is supported: this gateway joins networks, not hosts
     --> /etc/ipsec.conf:7:8
      |
    7 |   type=transport
      |        ^^^^^^^^^

    error: aggressive mode is refused: it gives everyone who asks a hash of the key to guess at
     --> /etc/ipsec.conf:8:14
      |
    8 |   aggressive=yes
      |              ^^^

    error: addresses that the peer hands out are not supported
     --> /etc/ipsec.conf:9:17
      |
    9 |   rightsourceip=10.0.0.0/24
      |                 ^^^^^^^^^^^

    error: a distinguished name proves itself by a certificate, and keys are pre-shared here
      --> /etc/ipsec.conf:10:11
       |
    10 |   leftid="C=CH, CN=gw"
       |           ^^^^^^^^^^^

    error: there is no conn nowhere
      --> /etc/ipsec.conf:11:8
       |
    11 |   also=nowhere
       |        ^^^^^^^
    "##);
    let certificates = errors(&SWAN.replace("leftauth=psk", "leftauth=pubkey"));
    assert!(certificates.contains("only pre-shared keys are supported"));
    assert!(errors(&SWAN.replace("  leftauth=psk\n", "")).contains("strongSwan's default"));
}

#[test]
fn broken_lines_are_shown_as_they_stand() {
    insta::assert_snapshot!(errors("conn a\n  left=\"192.0.2.1\n  no equals\n\tconn b\nconfig nothing\nright=1\n"), @r##"
    error: the quotes of this value are not closed, or something stands behind them
     --> /etc/ipsec.conf:2:8
      |
    2 |   left="192.0.2.1
      |        ^^^^^^^^^^

    error: neither a section nor a setting (`key=value`)
     --> /etc/ipsec.conf:3:3
      |
    3 |   no equals
      |   ^^^^^^^^^

    error: a section begins in column 1
     --> /etc/ipsec.conf:4:2
      |
    4 |  conn b
      |  ^^^^^^
      |
      = help: remove the blanks before it

    error: the only config section is `config setup`
     --> /etc/ipsec.conf:5:1
      |
    5 | config nothing
      | ^^^^^^^^^^^^^^

    error: a setting outside of any section
     --> /etc/ipsec.conf:6:1
      |
    6 | right=1
      | ^^^^^
    "##);
}

#[test]
fn a_missing_key_is_an_error_that_shows_the_entry_to_write() {
    let files = files(SWAN).with("/etc/s", "192.0.2.1 203.0.113.99 : PSK \"of another\"\n");
    let errors = read("/etc/ipsec.conf", Some("/etc/s"), &files).unwrap_err().to_string();
    insta::assert_snapshot!(errors, @r##"
    error: there is no pre-shared key for 192.0.2.1 and 203.0.113.10 in /etc/s
     --> /etc/ipsec.conf:1:1
      |
    1 | conn a
      | ^^^^^^
      |
      = help: the entry would be: 192.0.2.1 203.0.113.10 : PSK {secret}
    "##);
}

#[test]
fn a_key_in_the_wrong_file_does_not_show() {
    for line in ["psk=cloudneta", "leftpassword = \"cloudneta\"", "Secret=cloudneta # cloudneta"] {
        let errors = errors(&format!("{SWAN}  {line}\n"));
        assert!(errors.contains("{secret}") && !errors.contains("cloudneta"), "{errors}");
    }
}

#[test]
fn a_broken_secrets_file_shows_no_key() {
    let broken = "192.0.2.1 203.0.113.10 PSK \"no colon\"\n192.0.2.1 : \"no kind\"\n: PSK 0xnothex\n: PSK \"open\n: PSK two words\n";
    let files = files(SWAN).with("/etc/s", broken);
    let errors = read("/etc/ipsec.conf", Some("/etc/s"), &files).unwrap_err().to_string();
    insta::assert_snapshot!(errors, @r##"
    error: this entry has no colon between whom it is for and the key
     --> /etc/s:1:1
      |
    1 | 192.0.2.1 203.0.113.10 {secret}
      | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      |
      = help: an entry is written as: 192.0.2.1 203.0.113.1 : PSK "text"

    error: no kind of key (PSK) stands behind the colon
     --> /etc/s:2:1
      |
    2 | 192.0.2.1 : {secret}
      | ^^^^^^^^^^^^^^^^^^^^
      |
      = help: an entry is written as: 192.0.2.1 203.0.113.1 : PSK "text"

    error: this key is not pairs of hexadecimal digits
     --> /etc/s:3:7
      |
    3 | : PSK {secret}
      |       ^^^^^^^^

    error: the quotes of this key are not closed
     --> /etc/s:4:7
      |
    4 | : PSK {secret}
      |       ^^^^^^^^

    error: a key with blanks needs quotes
     --> /etc/s:5:7
      |
    5 | : PSK {secret}
      |       ^^^^^^^^

    error: there is no pre-shared key for 192.0.2.1 and 203.0.113.10 in /etc/s
     --> /etc/ipsec.conf:1:1
      |
    1 | conn a
      | ^^^^^^
      |
      = help: the entry would be: 192.0.2.1 203.0.113.10 : PSK {secret}
    "##);
}
