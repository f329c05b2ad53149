//! What a person writes is read, and what is wrong with it shows its line and no secret.

use super::*;
use crate::{MemoryFiles, Reading};

/// A connection that is whole, to add the one thing of interest to.
const WHOLE: &str = "\
[connection.office]
remote = \"203.0.113.10\"
psk = \"cloudneta\"

[connection.office.child.lan]
local = \"10.1.0.0/16\"
remote = \"10.2.0.0/16\"
";

fn reading(text: &str) -> Reading {
    let files = MemoryFiles::new().with("/etc/simplon.toml", text).with("/etc/office.psk", "from a file\r\n");
    read("/etc/simplon.toml", &files).unwrap_or_else(|errors| panic!("{errors}"))
}

fn errors(text: &str) -> String {
    let files = MemoryFiles::new().with("/etc/simplon.toml", text);
    let errors = read("/etc/simplon.toml", &files).unwrap_err().to_string();
    assert!(!errors.contains("cloudneta"), "{errors}");
    errors
}

fn with_psk(psk: &str) -> String {
    WHOLE.replace("\"cloudneta\"", psk)
}

/// The example of the module's documentation.
fn example() -> String {
    let docs = include_str!("mod.rs").lines().map_while(|line| line.strip_prefix("//!"));
    let fenced = docs.skip_while(|line| line.trim() != "```toml").skip(1).take_while(|line| line.trim() != "```");
    fenced.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_documented_example_says_every_key_and_is_read() {
    let text = example().replace("{ file = \"…\" }", "").replace("\"office.psk\"", "");
    let read = reading(&text);
    assert_eq!(read.config.connections[0].children[0].mss, Some(1360));
    insta::assert_snapshot!(write(&read.config));
}

#[test]
fn a_small_file_is_enough() {
    let config = reading(WHOLE).config;
    let mut expected = model::Connection::named("office");
    expected.remote.address = "203.0.113.10".parse().map(model::Address::Ip).unwrap();
    expected.psk = vec![b"cloudneta"[..].into()];
    expected.sources = config.connections[0].sources.clone();
    expected.children = config.connections[0].children.clone();
    assert_eq!(config.connections, [expected]);
    assert_eq!(config.gateway, model::GatewayOptions::default());
}

#[test]
fn a_key_is_text_or_encoded_or_in_a_file_and_there_may_be_several() {
    let keys = |psk: &str| {
        let connection = reading(&with_psk(psk)).config.connections.remove(0);
        let keys = connection.psk.iter().map(|key| String::from_utf8_lossy(key.expose()).into_owned());
        keys.collect::<Vec<_>>().join(",")
    };
    assert_eq!(keys("\"a\""), "a");
    assert_eq!(keys("{ hex = \"6162\" }"), "ab");
    assert_eq!(keys("{ base64 = \"YWI=\" }"), "ab");
    assert_eq!(keys("{ file = \"office.psk\" }"), "from a file");
    assert_eq!(keys("[\"new\", { hex = \"6162\" }]"), "new,ab");
    assert_eq!(keys("\"a\"\npsk-file = \"office.psk\""), "a,from a file");
}

#[test]
fn each_setting_knows_its_line_and_the_key_does_not_show() {
    let sources = reading(WHOLE).config.connections.remove(0).sources;
    let shown = |setting| sources.of(setting).unwrap().to_string();
    assert_eq!(shown(model::Setting::Connection), "/etc/simplon.toml:1: [connection.office]");
    assert_eq!(shown(model::Setting::Psk), "/etc/simplon.toml:3: psk = {secret}");
    let in_file =
        reading(&WHOLE.replace("psk = \"cloudneta\"", "psk-file = \"office.psk\"")).config.connections.remove(0);
    let source = in_file.sources.of(model::Setting::Psk).unwrap();
    assert_eq!(source.to_string(), "/etc/simplon.toml:3: psk-file = \"office.psk\"");
    assert_eq!(shown(model::Setting::RemoteSelector), "/etc/simplon.toml:7: remote = \"10.2.0.0/16\"");
}

#[test]
fn connections_stand_in_the_order_of_the_file() {
    let other = WHOLE.replace("office", "aaa").replace(".10\"", ".11\"");
    let names: Vec<_> = reading(&format!("{WHOLE}{other}")).config.connections.into_iter().map(|c| c.name).collect();
    assert_eq!(names, ["office", "aaa"]);
}

#[test]
fn every_fault_is_shown_with_its_line_and_the_nearest_key() {
    let text = WHOLE
        .replace("psk =", "versoin = \"ikev2\"\ndpd = { dealy = \"10s\" }\nversion = \"ikev3\"\ntries = -1\npsk =")
        .replace("local =", "esp = [\"aes128-sha1\", \"aes128-sah1\"]\nlifetime = \"8 hours\"\nmtu = \"big\"\nlocal =");
    insta::assert_snapshot!(errors(&text));
}

#[test]
fn a_misspelt_key_does_not_show_what_it_holds() {
    insta::assert_snapshot!(errors(&WHOLE.replace("psk", "pks")), @r##"
    error: there is no key "pks" here
     --> /etc/simplon.toml:3:1
      |
    3 | pks = {secret}
      | ^^^
      |
      = help: did you mean "psk"?
    "##);
}

#[test]
fn a_syntax_error_does_not_show_the_key() {
    for broken in ["\"cloudneta", "cloudneta", "'''cloudneta", "\"cloudneta\" x", "[\"cloudneta\"", "\"\"\"\ncloudneta"]
    {
        errors(&with_psk(broken));
    }
    errors(&WHOLE.replace("psk = \"", "pks = \"\"\""));
    insta::assert_snapshot!(errors(&WHOLE.replace("local = ", "local ")), @r##"
    error: this is not TOML: key with no value, expected `=`
     --> /etc/simplon.toml:6:7
      |
    6 | local "10.1.0.0/16"
      |       ^
    "##);
}

#[test]
fn what_the_model_refuses_is_shown_with_its_line() {
    insta::assert_snapshot!(errors(&WHOLE.replace("10.2.0.0/16", "2001:db8::/32").replace("psk = \"cloudneta\"", "")), @r##"
    error: connection office: it has no pre-shared key for these two identities
     --> /etc/simplon.toml:1:1
      |
    1 | [connection.office]
      | ^^^^^^^^^^^^^^^^^^^

    error: connection office: lan: its two sides have no address family in common
     --> /etc/simplon.toml:7:1
      |
    7 | remote = "2001:db8::/32"
      | ^^^^^^^^^^^^^^^^^^^^^^^^
    "##);
}

#[test]
fn weak_algorithms_are_noted() {
    let read = reading(&WHOLE.replace("psk", "ike = \"aes128-sha1-modp1024\"\npsk"));
    let notes: Vec<_> = read.notes.iter().map(ToString::to_string).collect();
    let expected = "/etc/simplon.toml:3: connection office: the phase 1 proposal has weak algorithms: sha1, modp1024";
    assert_eq!(notes, [expected]);
}

#[test]
fn a_secret_is_written_only_when_asked_for() {
    let config = reading(WHOLE).config;
    assert!(!write(&config).contains("cloudneta"));
    assert!(write_with_secrets(&config).contains("psk = \"cloudneta\""));
}
