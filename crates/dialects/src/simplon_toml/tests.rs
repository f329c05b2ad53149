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
fn where_metrics_and_logs_go_must_be_unmistakable() {
    let gateway = |line: &str| {
        let files = MemoryFiles::new().with("s.toml", format!("[gateway]\n{line}\n"));
        read("s.toml", &files).map(|reading| reading.config.gateway).map_err(|errors| errors.to_string())
    };
    let options =
        gateway("metrics = \"[::1]:9830\"\nlog-format = \"json\"\nlog-directory = \"/var/log/simplon\"").unwrap();
    assert_eq!(options.metrics, Some("[::1]:9830".parse().unwrap()));
    assert_eq!(options.log_format, model::LogFormat::Json);
    assert_eq!(options.log_directory.as_deref(), Some("/var/log/simplon"));
    for (line, read) in [
        ("opentelemetry = \"http://[::1]:4318/\"", "http://[::1]:4318"),
        ("opentelemetry = \"http://otel.example:80/a/b\"", "http://otel.example:80/a/b"),
    ] {
        assert_eq!(gateway(line).unwrap().opentelemetry.as_deref(), Some(read));
    }
    for (line, why) in [
        ("metrics = \":9830\"", "such as 127.0.0.1:9830"),
        ("metrics = \"127.0.0.1:0\"", "port 0"),
        ("opentelemetry = \"127.0.0.1:4318\"", "such as http://127.0.0.1:4318"),
        ("opentelemetry = \"http://collector\"", "such as http://127.0.0.1:4318"),
        ("opentelemetry = \"http://a:4318/?x\"", "such as http://127.0.0.1:4318"),
        ("opentelemetry = \"https://a:4318\"", "TLS is not spoken"),
        ("log-directory = \"logs\"", "begin with a slash"),
        ("log-format = \"xml\"", "json"),
    ] {
        let error = gateway(line).unwrap_err();
        assert!(error.contains(why), "{line}: {error}");
    }
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

/// Two tunnels, static routes and BGP, with every key of the routing tables.
const ROUTED: &str = r#"
[connection.aws-1]
remote = "34.217.232.61"
psk = "cloudneta"
child.aws-1 = { local = "0.0.0.0/0", remote = "0.0.0.0/0", device = { name = "tunnel1", addresses = "169.254.123.134/30" } }

[connection.aws-2]
remote = "54.69.109.228"
psk = "cloudneta"
child.aws-2 = { local = "0.0.0.0/0", remote = "0.0.0.0/0", device = { name = "tunnel2", addresses = "169.254.30.58/30" } }

[vpn.aws]
tunnels = ["aws-1", "aws-2/aws-2"]
mode = "active-active"
routes = ["172.31.0.0/16"]
metric = 5
fallback = "none"
hold-up = "10s"
probe = { kind = "udp", port = 9, interval = "500ms", loss = 4, targets = ["172.31.0.1", "172.31.0.2"] }
bfd = { interval = "100ms", multiplier = 3 }

[bgp]
as = 65000
router-id = "192.168.2.1"
networks = ["192.168.2.0/24"]
redistribute = ["connected", "static"]
multipath = 2
metric = 30
fallback = "none"
restart-time = "60s"

[bgp.prefix-list]
cloud = ["deny 172.31.9.0/24", "permit 172.16.0.0/12 le 24", "permit 10.0.0.0/8 ge 9", "permit any"]

[bgp.neighbor."169.254.123.133"]
as = 64512
tunnel = "aws-1"
local-address = "169.254.123.134"
local-as = 65010
password = "cloudneta"
passive = true
keepalive = "1s"
hold = "3s"
connect-retry = "2s"
ttl-security = true
ttl = 2
families = ["ipv4", "ipv6"]
next-hop = "fd00:10::2"
max-prefixes = 100
import = "cloud"
export = "cloud"
local-preference = 200
med = 50
prepend = 2
communities = ["65000:100"]
large-communities = ["65000:1:2"]
default-originate = true
next-hop-self = true
allow-own-as = 1
bfd = { interval = "100ms", multiplier = 3 }

[bgp.neighbor."169.254.30.57"]
as = 64512
tunnel = "aws-2"
bfd = true
"#;

#[test]
fn tunnels_and_bgp_are_read_with_every_key_and_written_back() {
    let config = reading(ROUTED).config;
    let (vpn, bgp) = (&config.vpns[0], config.bgp.as_ref().unwrap());
    assert_eq!((vpn.tunnels.len(), vpn.health.probe.as_ref().unwrap().kind), (2, model::ProbeKind::Udp(9)));
    assert_eq!((bgp.asn, bgp.neighbors.len(), bgp.redistribute.static_routes), (65_000, 2, true));
    let lengths: Vec<_> = bgp.prefix_lists[0].rules.iter().map(|rule| rule.lengths).collect();
    assert_eq!(lengths, [(24, 24), (12, 24), (9, 32), (0, 32), (0, 128)]);
    assert_eq!(bgp.neighbors[1].bfd, Some(model::BfdTimers::default()));
    let source = bgp.neighbors[0].source.as_ref().unwrap();
    assert_eq!(&*source.text, "[bgp.neighbor.\"169.254.123.133\"]");
    let written = write_with_secrets(&config);
    assert_eq!(reading(&written).config.without_sources(), config.without_sources(), "{written}");
}

#[test]
fn any_network_is_one_of_either_family_as_far_as_its_lengths_go() {
    let rules = |rule: &str| {
        let config = reading(&ROUTED.replace("permit any", rule)).config;
        let rules = &config.bgp.unwrap().prefix_lists[0].rules;
        rules.iter().skip(3).map(|rule| (rule.net.to_string(), rule.lengths)).collect::<Vec<_>>()
    };
    let [ipv4, ipv6] = ["0.0.0.0/0", "::/0"].map(str::to_owned);
    assert_eq!(rules("permit any"), [(ipv4.clone(), (0, 32)), (ipv6.clone(), (0, 128))]);
    assert_eq!(rules("deny any ge 25"), [(ipv4.clone(), (25, 32)), (ipv6.clone(), (25, 128))]);
    assert_eq!(rules("permit any le 24"), [(ipv4, (0, 24)), (ipv6.clone(), (0, 24))]);
    assert_eq!(rules("permit any ge 48 le 64"), [(ipv6, (48, 64))]);
    let wrong = errors(&ROUTED.replace("permit any", "permit any ge 25 le 24"));
    assert!(wrong.contains("is not a rule"), "{wrong}");
}

#[test]
fn the_key_of_a_neighbor_is_a_secret_and_a_wrong_neighbor_has_its_line() {
    let config = reading(ROUTED).config;
    assert!(!write(&config).contains("cloudneta"));
    assert!(!format!("{config:?}").contains("cloudneta"));
    let wrong = errors(&ROUTED.replace("password =", "pasword ="));
    assert!(wrong.contains("did you mean \"password\""), "{wrong}");
    let wrong = errors(&ROUTED.replace("tunnel = \"aws-2\"", "tunnel = \"aws-3\""));
    assert!(
        wrong.contains("there is no tunnel aws-3") && wrong.contains("[bgp.neighbor.\"169.254.30.57\"]"),
        "{wrong}"
    );
    let wrong = errors(&ROUTED.replace("169.254.30.57\"]\nas = 64512", "169.254.30.57\"]"));
    assert!(wrong.contains("autonomous system"), "{wrong}");
    let wrong = errors(&ROUTED.replace("permit any", "allow any"));
    assert!(wrong.contains("permit 10.0.0.0/8 le 24"), "{wrong}");
}

#[test]
fn tables_that_contradict_each_other_are_refused_with_their_lines() {
    let (routes, address) = ("routes = [\"172.31.0.0/16\"]", "addresses = \"169.254.30.58/30\"");
    for (from, to, why, line) in [
        (
            address,
            "addresses = \"169.254.123.136/28\"",
            "its inside network 169.254.123.128/28 overlaps 169.254.123.132/30 of tunnel1",
            "7 | [connection.aws-2]",
        ),
        (
            routes,
            "routes = [\"54.69.0.0/16\"]",
            "the route 54.69.0.0/16 would send the packets of its own tunnel aws-2/aws-2 into the tunnel",
            "12 | [vpn.aws]",
        ),
        (
            address,
            "addresses = \"169.254.30.58/30\", routes = [\"54.69.109.228/32\"]",
            "the route 54.69.109.228/32 would send the tunnel's own packets into the tunnel",
            "8 | remote = \"54.69.109.228\"",
        ),
        (
            "router-id = \"192.168.2.1\"",
            "router-id = \"169.254.30.57\"",
            "our router ID 169.254.30.57 is its address: two speakers need two",
            "62 | [bgp.neighbor.\"169.254.30.57\"]",
        ),
    ] {
        let said = errors(&ROUTED.replace(from, to));
        assert!(said.contains(why) && said.contains(line), "{why}: {said}");
    }
}

const CLUSTER: &str = r#"
[cluster]
member = 2
psk = "0123456789abcdef0123"
local = ["10.9.0.2:4600", "[2001:db8::2]:4600"]
peer = ["10.9.0.1:4600", "[2001:db8::1]:4600"]
shared = ["192.0.2.10/24%wan0", "10.0.0.1/16%lan0"]
preference = 200
preempt = true
interval = "50ms"
dead-after = "300ms"
"#;

#[test]
fn a_cluster_is_read_with_every_key_and_written_back_and_its_key_is_a_secret() {
    let config = reading(CLUSTER).config;
    let cluster = config.cluster.as_ref().unwrap();
    assert_eq!((cluster.member, cluster.local.len(), cluster.shared[1].to_string()), (2, 2, "10.0.0.1/16%lan0".into()));
    assert_eq!(&*cluster.source.as_ref().unwrap().text, "[cluster]");
    let written = write_with_secrets(&config);
    assert_eq!(reading(&written).config.without_sources(), config.clone().without_sources(), "{written}");
    assert!(!write(&config).contains("0123") && !format!("{config:?}").contains("0123"));
    let cases = [
        ("member = 2", "member = 3", "from 1 to 2"),
        ("0123456789abcdef0123", "short", "16 characters"),
        (", \"[2001:db8::2]:4600\"", "", "for each path"),
        ("10.9.0.1:4600", "10.9.0.2:4600", "both ends of a path"),
        ("10.9.0.1:4600", "192.0.2.10:4600", "it moves"),
        ("300ms", "100ms", "three times"),
        ("%wan0", "", "192.0.2.1/24%eth0"),
    ];
    for (from, to, said) in cases {
        let wrong = errors(&CLUSTER.replace(from, to));
        assert!(wrong.contains(said), "{from} -> {to}: {wrong}");
    }
}
