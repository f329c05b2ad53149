//! Whole files of each dialect, read into the model. The data are own files with the facts of real ones; where the
//! real ones lie beside the workspace, they are read too.

#![expect(clippy::unwrap_used, reason = "a panic in a test is the verdict")]
#![expect(clippy::disallowed_macros, reason = "a test says what it left out")]

use std::path::{Path, PathBuf};

use dialects::ipsec_conf::{self, Options};
use dialects::{Files, MemoryFiles, Reading};
use model::{DpdAction, Routing, Start, Tries, Version, Versions};

/// A folder beside the workspace, where it exists.
fn beside(name: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared").join(name);
    folder.is_dir().then_some(folder)
}

/// The folder of the real files, where it exists.
fn inputs() -> Option<PathBuf> {
    beside("inputs")
}

/// `real`, a path below the real files, or else `own`, one below the data of these tests; and under which name.
fn files(pairs: &[(&str, &str, &str)], real: bool) -> Option<MemoryFiles> {
    let mut files = MemoryFiles::new();
    for (name, own, original) in pairs {
        let path = if real {
            inputs()?.join(original)
        } else {
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(own)
        };
        files = files.with(*name, std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())));
    }
    Some(files)
}

fn shown(reading: &Reading) -> String {
    let notes: Vec<String> = reading.notes.iter().map(ToString::to_string).collect();
    let config = dialects::simplon_toml::write(&reading.config);
    format!("{config}\n{}", notes.join("\n"))
}

const OPENSWAN: [(&str, &str, &str); 2] = [
    ("/etc/ipsec.d/aws.conf", "openswan.conf", "openswan/aws.conf"),
    ("/etc/ipsec.d/aws.secrets", "openswan.secrets", "openswan/aws.secrets"),
];

fn openswan_means_what_it_says(files: &dyn Files) {
    let reading = dialects::read("/etc/ipsec.d/aws.conf", files).unwrap_or_else(|errors| panic!("{errors}"));
    let connection = &reading.config.connections[0];
    assert_eq!(connection.versions, Versions::Both { initiate: Version::V1 });
    assert_eq!(connection.tries, Tries::Forever);
    assert_eq!(connection.ike.iter().map(ToString::to_string).collect::<Vec<_>>(), ["aes128-sha1-modp1024"]);
    assert_eq!(
        connection.children[0].esp.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["aes128-sha1-modp1024"]
    );
    assert_eq!(connection.children[0].start, Start::AtOnce);
    assert_eq!(connection.ike_lifetime.time.as_secs(), 8 * 3600);
    assert_eq!(connection.children[0].lifetime.time.as_secs(), 3600);
    let dpd = connection.dpd.unwrap();
    assert_eq!((dpd.delay.as_secs(), dpd.timeout.as_secs(), dpd.action), (10, 30, DpdAction::Restart));
    assert_eq!(connection.local.id.as_ref().unwrap().to_string(), "3.37.222.142");
    assert_eq!(connection.remote.address.ip().unwrap().to_string(), "43.200.61.196");
    assert_eq!(connection.children[0].local[0].to_string(), "10.60.0.0/16");
    assert_eq!(connection.children[0].remote[0].to_string(), "10.50.0.0/16");
    assert_eq!(connection.psk.len(), 1);
    let psk = connection.sources.of(model::Setting::Psk).unwrap();
    assert_eq!(psk.to_string(), "/etc/ipsec.d/aws.secrets:1: 3.37.222.142 43.200.61.196 : PSK {secret}");
}

#[test]
fn the_openswan_file_of_the_lab_is_read_as_openswan_means_it() {
    let files = files(&OPENSWAN, false).unwrap();
    openswan_means_what_it_says(&files);
    insta::assert_snapshot!("openswan", shown(&dialects::read("/etc/ipsec.d/aws.conf", &files).unwrap()));
}

#[test]
fn the_original_openswan_file_is_read_unchanged() {
    match files(&OPENSWAN, true) {
        Some(files) => openswan_means_what_it_says(&files),
        None => println!("left out: the original files are not beside this workspace"),
    }
}

const STRONGSWAN: [(&str, &str, &str); 3] = [
    ("/etc/ipsec.conf", "strongswan-vti.conf", "strongswan/ipsec.conf"),
    ("/etc/ipsec.secrets", "strongswan-vti.secrets", "strongswan/ipsec.secrets"),
    ("/etc/vti.sh", "strongswan-vti.sh", "strongswan/vti.sh"),
];

fn strongswan_means_what_it_says(files: &dyn Files, script: bool) {
    let options = Options { vti_script: script.then(|| "/etc/vti.sh".to_owned()), ..Options::default() };
    let reading = ipsec_conf::read_with("/etc/ipsec.conf", &options, files).unwrap_or_else(|errors| panic!("{errors}"));
    let [first, second] = reading.config.connections.as_slice() else { panic!("{reading:?}") };
    assert_eq!(first.versions, Versions::Only(Version::V1));
    assert_eq!((first.ike_lifetime.time.as_secs(), first.children[0].lifetime.time.as_secs()), (8 * 3600, 3600));
    // The second tunnel says nothing of lifetimes: strongSwan's defaults count.
    assert_eq!((second.ike_lifetime.time.as_secs(), second.children[0].lifetime.time.as_secs()), (3 * 3600, 3600));
    assert_ne!(first.psk, second.psk);
    assert_eq!(first.ike[0].to_string(), "aes128-sha1-modp1024");
    assert!(first.ike.len() > 1, "without a ! the defaults are offered too");
    let Routing::Device { name, addresses, routes, mark } = &first.children[0].routing else { panic!("{first:?}") };
    assert_eq!((name.as_str(), *mark), ("Tunnel1", Some(100)));
    assert_eq!((addresses.len(), routes.len()), if script { (1, 2) } else { (0, 0) });
    assert_eq!(first.children[0].mtu, script.then_some(1419));
}

#[test]
fn a_mark_and_the_script_beside_it_make_a_route_based_tunnel() {
    let files = files(&STRONGSWAN, false).unwrap();
    strongswan_means_what_it_says(&files, true);
    strongswan_means_what_it_says(&files, false);
    let options = Options { vti_script: Some("/etc/vti.sh".into()), ..Options::default() };
    let reading = ipsec_conf::read_with("/etc/ipsec.conf", &options, &files).unwrap();
    insta::assert_snapshot!("strongswan-vti", shown(&reading));
}

#[test]
fn the_original_strongswan_files_are_read_unchanged() {
    match files(&STRONGSWAN, true) {
        Some(files) => strongswan_means_what_it_says(&files, true),
        None => println!("left out: the original files are not beside this workspace"),
    }
}

fn own(name: &str, as_path: &str, secrets: &str) -> Reading {
    let files = files(&[(as_path, name, ""), ("/etc/ipsec.secrets", secrets, "")], false).unwrap();
    dialects::read(as_path, &files).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn a_strongswan_file_with_defaults_and_an_updown_script() {
    insta::assert_snapshot!(shown(&own("strongswan-updown.conf", "/etc/ipsec.conf", "pair.secrets")));
}

#[test]
fn a_libreswan_file_with_vti_interfaces() {
    insta::assert_snapshot!(shown(&own("libreswan-vti.conf", "/etc/ipsec.conf", "pair.secrets")));
}

#[test]
fn a_libreswan_five_file_with_subnets_and_an_xfrm_interface() {
    insta::assert_snapshot!(shown(&own("libreswan-5.conf", "/etc/ipsec.conf", "pair.secrets")));
}

#[test]
fn the_reference_samples_are_read_unchanged() {
    let Some(folder) = beside("reference/dialect-samples") else {
        println!("left out: the reference samples are not beside this workspace");
        return;
    };
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let secrets = "198.51.100.7 203.0.113.10 : PSK one\n198.51.100.7 203.0.113.20 : PSK two\n";
    let mixed = read("strongswan-ipsecconf.txt");
    // One text with the configuration, the keys and the commands behind each other.
    let (conf, rest) = mixed.split_once("# /etc/ipsec.secrets\n").unwrap();
    let (keys, script) = rest.split_once("# VTI").unwrap();
    for (conf, keys, script, connections) in [
        (read("openswan-seed-form.txt").as_str(), secrets, "", 1),
        (read("libreswan-route-based.txt").as_str(), secrets, "", 2),
        (conf, keys, script, 2),
    ] {
        let files = MemoryFiles::new().with("a.conf", conf).with("a.secrets", keys).with("vti.sh", script);
        let options = Options { vti_script: Some("vti.sh".into()), ..Options::default() };
        let reading = ipsec_conf::read_with("a.conf", &options, &files).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(reading.config.connections.len(), connections, "{conf}");
    }
}

#[test]
fn every_example_of_the_book_is_read() {
    let book = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/book/configuration.md");
    let book = std::fs::read_to_string(book).unwrap();
    let examples: Vec<&str> = book.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(examples.len(), 6);
    for example in examples {
        let keys = ["transit.psk", "aws-1.psk", "aws-2.psk"];
        let files = keys.iter().fold(MemoryFiles::new(), |files, name| files.with(*name, "key\n"));
        let files = files.with("simplon.toml", example);
        dialects::read("simplon.toml", &files).unwrap_or_else(|errors| panic!("{errors}"));
    }
}

/// Five hundred connections with their keys, each with its own.
#[test]
fn in_a_large_file_each_connection_has_its_own_key() {
    let (mut conf, mut secrets, mut toml) = (String::new(), String::new(), String::new());
    for n in 0..500 {
        let peer = format!("10.{}.{}.1", n / 200, n % 200);
        conf.push_str(&format!(
            "conn c{n}\n\tauthby=psk\n\tauto=add\n\tleft=192.0.2.1\n\tright={peer}\n\tike=aes128-sha1-modp1024!\n"
        ));
        secrets.push_str(&format!("192.0.2.1 {peer} : PSK key{n}\n"));
        toml.push_str(&format!("[connection.c{n}]\nremote = \"{peer}\"\npsk = \"key{n}\"\n"));
        toml.push_str(&format!("[connection.c{n}.child.c]\nlocal = \"192.0.2.0/24\"\nremote = \"{peer}\"\n"));
    }
    let files = MemoryFiles::new().with("a.conf", conf).with("a.secrets", secrets).with("a.toml", toml);
    for path in ["a.conf", "a.toml"] {
        let reading = dialects::read(path, &files).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(reading.config.connections.len(), 500);
        assert!(
            reading
                .config
                .connections
                .iter()
                .enumerate()
                .all(|(n, c)| c.psk[0].expose() == format!("key{n}").as_bytes())
        );
    }
}

#[test]
fn a_connection_of_ikev1_that_names_no_proposal_gets_some_that_ikev1_can_say() {
    let toml = "[connection.a]\nversion = \"ikev1\"\nremote = \"192.0.2.9\"\npsk = \"key\"\n\
                [connection.a.child.a]\nlocal = \"10.1.0.0/16\"\nremote = \"10.2.0.0/16\"\n";
    let files = MemoryFiles::new().with("a.toml", toml.to_owned());
    let reading = dialects::read("a.toml", &files).unwrap_or_else(|errors| panic!("{errors}"));
    let connection = &reading.config.connections[0];
    assert!(connection.ike.iter().flat_map(|p| &p.encryption).all(|e| e.v1_phase1_id().is_some()));
    assert!(connection.children[0].esp.iter().flat_map(|p| &p.encryption).all(|e| e.v1_esp_id().is_some()));
}
