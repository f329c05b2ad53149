//! What holds for every file: no text makes a reader panic or shows a secret, and what is written comes back.

#![expect(clippy::unwrap_used, reason = "a panic in a test is the verdict")]

use std::time::Duration;

use base::Secret;
use base::algorithm::{Encryption, Group, Integrity, Prf};
use dialects::{MemoryFiles, ipsec_conf, simplon_toml};
use ipnet::IpNet;
use model::{
    Address, Child, Config, Connection, DfPolicy, Dpd, DpdAction, Encapsulation, EspProposal, GatewayOptions, Identity,
    IkeLifetime, IkeProposal, Lifetime, LogFormat, Ports, Routing, Selector, Side, Start, Tries, Uniqueness, Version,
    Versions,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

/// Something that stands out wherever it leaks.
const SECRET: &str = "Xq7LEAKz";

/// Pieces of both dialects and of neither, glued together at random: more of a reader is reached than by noise.
fn ipsec_conf_text() -> impl Strategy<Value = String> {
    let key = select(vec![
        "left",
        "right",
        "leftid",
        "rightid",
        "leftsubnet",
        "rightsubnet",
        "rightsubnets",
        "ike",
        "esp",
        "phase2alg",
        "auto",
        "also",
        "authby",
        "leftauth",
        "rightauth",
        "keyexchange",
        "ikev2",
        "mark",
        "mark_in",
        "ikelifetime",
        "keylife",
        "lifetime",
        "rekeyfuzz",
        "rekeymargin",
        "margintime",
        "lifebytes",
        "dpddelay",
        "dpdtimeout",
        "dpdaction",
        "keyingtries",
        "pfs",
        "pfsgroup",
        "type",
        "leftprotoport",
        "leftupdown",
        "vti-interface",
        "ipsec-interface",
        "leftvti",
        "replay_window",
        "replay-window",
        "esn",
        "uniqueids",
        "listen",
        "keep-alive",
        "mtu",
        "nonsense",
        "x-own",
        "leftikeport",
        "rightsourceip",
        "encapsulation",
        "ikeport",
    ]);
    let value = prop_oneof![
        select(vec![
            "%defaultroute",
            "%any",
            "192.0.2.1",
            "203.0.113.10",
            "10.0.0.0/8",
            "0.0.0.0/0",
            "::/0",
            "aes128-sha1-modp1024!",
            "aes128-sha1;modp1024",
            "aes_gcm256-null",
            "aes",
            "start",
            "add",
            "route",
            "ignore",
            "secret",
            "psk",
            "a",
            "b",
            "%default",
            "ike",
            "ikev1",
            "ikev2",
            "insist",
            "100",
            "100/0xffffffff",
            "%unique",
            "8h",
            "10s",
            "1.5h",
            "0",
            "100%",
            "%forever",
            "restart",
            "hold",
            "none",
            "yes",
            "no",
            "tunnel",
            "transport",
            "tcp/80",
            "{10.0.0.0/8 10.1.0.0/16}",
            "10.0.0.0/8,10.1.0.0/16[udp/53]",
            "%dynamic[tcp]",
            "\"quoted value\"",
            "\"",
            "\"open",
            "'",
            "",
            "9999999999999999999999",
            "/etc/aws-updown.sh -ln t -ll 10.0.0.1/30 -m 1 -r 10.0.0.0/8",
            "C=CH, CN=x",
            "keyid:#zz",
            "@[x]",
            "é",
            "modp1024",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,20}",
    ];
    let line = prop_oneof![
        8 => (key, value).prop_map(|(key, value)| format!("  {key}={value}\n")),
        2 => select(vec!["conn a\n", "conn b\n", "conn %default\n", "config setup\n", "ca x\n", "include *.conf\n", "conn\n",
            "# comment\n", "  # simplon: dialect=libreswan\n", "\n", "auto=add\n", " conn c\n", "include\n"]).prop_map(str::to_owned),
        1 => "\\PC{0,30}\n",
    ];
    vec(line, 0..30).prop_map(|lines| lines.concat())
}

/// Entries, right ones and others; a secret never stands where a selector would.
fn secrets_text() -> impl Strategy<Value = String> {
    let selector = select(vec!["192.0.2.1", "203.0.113.10", "@gw", "%any", "::", "include", "\"quoted", "é"]);
    let middle = select(vec![
        " : PSK ",
        ": PSK ",
        " : psk\t",
        " :PSK ",
        " : ",
        " PSK ",
        " : RSA ",
        " : PSK",
        " ",
        " :\n  PSK\n\t",
        " : PSK # ",
    ]);
    let value = select(vec![
        "\"Xq7LEAKz\"",
        "'Xq7LEAKz'",
        "Xq7LEAKz",
        "0sXq7LEAKz",
        "0xXq7LEAKz",
        "\"Xq7LEAKz",
        "PSK\"Xq7LEAKz\"",
        "\"a\" Xq7LEAKz",
        "\"\n Xq7LEAKz",
        "",
    ]);
    let entry = (vec(selector, 0..3), middle, value)
        .prop_map(|(selectors, middle, value)| format!("{}{middle}{value}\n", selectors.join(" ")));
    vec(entry, 0..5).prop_map(|entries| entries.concat())
}

fn toml_text() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        4 => select(vec![
            "[gateway]", "listen = [\"192.0.2.1\"]", "ports = { ike = 500 }", "[connection.a]", "[connection.b]", "psk = 5",
            "version = \"ikev2\"", "local = \"192.0.2.1\"", "remote = { address = \"203.0.113.1\", id = \"@x\" }", "ike = 3",
            "ike = [\"aes128-sha1-modp1024\", \"x\"]", "dpd = true", "dpd = { delay = \"x\" }", "tries = 0", "[connection.a.child.c]",
            "local = [\"10.0.0.0/8\"]", "remote = [\"10.1.0.0/16[tcp/80]\"]", "device = \"d\"", "mtu = 99999", "lifetime = -1",
            "lifetime = { bytes = \"9T\" }", "\"\" = 1", "child = []", "a.b.c = 1", "]", "= =", "'''", "\"\"\"", "remote.id = { kind = 9, data = \"0\" }",
        ]).prop_map(str::to_owned),
        2 => select(vec![
            "psk = \"Xq7LEAKz\"", "psk = [\"Xq7LEAKz\", 1]", "psk = { hex = \"Xq7LEAKz\" }", "psk = { key = \"Xq7LEAKz\" }",
            "psk = \"Xq7LEAKz", "pks = \"Xq7LEAKz\"", "pks = \"Xq7LEAKz", "psk = '''Xq7LEAKz", "psk = \"\"\"\nXq7LEAKz\n\"\"\"",
            "psk = Xq7LEAKz", "psk = { base64 = \"Xq7LEAKz?\" } x", "psk Xq7LEAKz", "psk = \"\"\"\nXq7LEAKz = 1\n\"\"\" x", "psk.hex = \"Xq7LEAKz\"",
            "[connection.a.psk]\nhex = \"Xq7LEAKz\"", "PSK=\"Xq7LEAKz\"", "psk = [\n\"Xq7LEAKz\",\n",
        ]).prop_map(str::to_owned),
        1 => "\\PC{0,20}",
    ];
    vec(line, 0..14).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_ipsec_conf_makes_the_reader_panic(conf in ipsec_conf_text(), secrets in secrets_text()) {
        let files = MemoryFiles::new().with("/e/ipsec.conf", conf).with("/e/ipsec.secrets", secrets);
        let shown = match ipsec_conf::read("/e/ipsec.conf", None, &files) {
            Ok(reading) => format!("{reading:?}"),
            Err(errors) => format!("{errors} {errors:?}"),
        };
        prop_assert!(!shown.contains(SECRET), "{}", shown);
    }

    #[test]
    fn no_secrets_file_shows_a_secret(secrets in secrets_text()) {
        let conf = "conn a\n  leftauth=psk\n  rightauth=psk\n  auto=add\n  left=192.0.2.1\n  right=203.0.113.10\n";
        let files = MemoryFiles::new().with("/e/ipsec.conf", conf).with("/e/ipsec.secrets", secrets);
        let shown = match ipsec_conf::read("/e/ipsec.conf", None, &files) {
            Ok(reading) => format!("{reading:?}"),
            Err(errors) => format!("{errors} {errors:?}"),
        };
        prop_assert!(!shown.contains(SECRET), "{}", shown);
    }

    #[test]
    fn no_simplon_toml_makes_the_reader_panic_or_shows_a_secret(text in toml_text()) {
        let files = MemoryFiles::new().with("a.toml", text);
        let shown = match simplon_toml::read("a.toml", &files) {
            Ok(reading) => format!("{reading:?}"),
            Err(errors) => format!("{errors} {errors:?}"),
        };
        prop_assert!(!shown.contains(SECRET), "{}", shown);
    }

    #[test]
    fn noise_is_no_configuration(text in "\\PC*", bytes in vec(any::<char>(), 0..60)) {
        let noise: String = bytes.into_iter().collect();
        for text in [text, noise] {
            let files = MemoryFiles::new().with("a", text.clone()).with("a.conf", text.clone()).with("a.toml", text.clone());
            for path in ["a", "a.conf", "a.toml"] {
                let _ = dialects::read(path, &files).map_err(|errors| errors.to_string());
            }
            let _ = ipsec_conf::read("a.conf", Some("a"), &files).map_err(|errors| errors.to_string());
            ipsec_conf::read_vti_script(&text);
            let _ = (dialects::proposal::parse_ike(&text), dialects::proposal::parse_esp(&text));
        }
    }

    #[test]
    fn what_is_written_comes_back(config in config()) {
        let text = simplon_toml::write_with_secrets(&config);
        let files = MemoryFiles::new().with("a.toml", text.clone());
        let reading = simplon_toml::read("a.toml", &files).map_err(|errors| TestCaseError::fail(format!("{errors}\n{text}")))?;
        prop_assert_eq!(reading.config.without_sources(), config, "{}", text);
    }

    #[test]
    fn without_being_asked_no_secret_is_written(config in config()) {
        let text = simplon_toml::write(&config);
        prop_assert!(!text.lines().any(|line| line.starts_with("psk =") || line.starts_with("password =")), "{}", text);
    }
}

fn some<T: Clone + std::fmt::Debug + 'static>(all: &'static [T]) -> impl Strategy<Value = Vec<T>> {
    subsequence(all.to_vec(), 1..=all.len()).prop_shuffle()
}

fn encryption() -> impl Strategy<Value = (Vec<Encryption>, bool)> {
    use Encryption::*;
    prop_oneof![
        some(&[Aes256Gcm, ChaCha20Poly1305, Aes128Gcm]).prop_map(|list| (list, true)),
        some(&[Aes256Cbc, Aes192Cbc, Aes128Cbc, TripleDesCbc]).prop_map(|list| (list, false)),
    ]
}

fn ike() -> impl Strategy<Value = IkeProposal> {
    (encryption(), some(&Integrity::ALL), some(&Prf::ALL), any::<bool>(), some(&Group::ALL)).prop_map(
        |((encryption, aead), integrity, prf, own_prf, groups)| {
            let prf = if own_prf || aead { prf } else { integrity.iter().map(|i| i.prf()).collect() };
            IkeProposal { encryption, integrity: if aead { vec![] } else { integrity }, prf, groups }
        },
    )
}

fn esp() -> impl Strategy<Value = EspProposal> {
    let esn = select(vec![vec![false], vec![true], vec![true, false], vec![false, true]]);
    (encryption(), some(&Integrity::ALL), subsequence(Group::ALL.to_vec(), 0..=4), esn).prop_map(
        |((encryption, aead), integrity, groups, esn)| {
            let integrity = if aead { vec![] } else { integrity };
            EspProposal { encryption, integrity, groups, esn }
        },
    )
}

fn time() -> impl Strategy<Value = Duration> {
    prop_oneof![(1u64..200_000).prop_map(Duration::from_secs), (1u64..100_000).prop_map(Duration::from_millis)]
}

fn net_of(v4: bool) -> BoxedStrategy<IpNet> {
    let net = if v4 {
        (any::<[u8; 4]>(), 0..=32u8).prop_map(|(ip, len)| IpNet::new(ip.into(), len).unwrap()).boxed()
    } else {
        (any::<[u8; 16]>(), 0..=128u8).prop_map(|(ip, len)| IpNet::new(ip.into(), len).unwrap()).boxed()
    };
    net.prop_map(|net| net.trunc()).boxed()
}

fn net() -> impl Strategy<Value = IpNet> {
    any::<bool>().prop_flat_map(net_of)
}

fn selector(v4: bool) -> impl Strategy<Value = Selector> {
    let net = net_of(v4);
    let ports = prop_oneof![Just((0, u16::MAX)), (any::<u16>(), any::<u16>()).prop_map(|(a, b)| (a.min(b), a.max(b)))];
    (net, any::<u8>(), ports).prop_map(|(net, protocol, ports)| Selector { net, protocol, ports })
}

fn identity() -> impl Strategy<Value = Identity> {
    prop_oneof![
        Just(Identity::Any),
        any::<[u8; 4]>().prop_map(|ip| Identity::Ip(ip.into())),
        net().prop_map(Identity::Subnet),
        "\\PC{0,12}".prop_map(Identity::Fqdn),
        "\\PC{0,12}".prop_map(Identity::UserFqdn),
        vec(any::<u8>(), 0..8).prop_map(Identity::KeyId),
        (any::<u8>(), vec(any::<u8>(), 0..8)).prop_map(|(kind, data)| Identity::Other { kind, data }),
    ]
}

fn side(last: u8) -> impl Strategy<Value = Side> {
    let address = prop_oneof![
        Just(Address::Any),
        Just(Address::Ip([192, 0, 2, last].into())),
        "[a-z][a-z0-9-]{0,8}\\.example".prop_map(Address::Name),
    ];
    (address, option::of(1u16..), option::of(identity())).prop_map(|(address, port, id)| Side { address, port, id })
}

fn lifetime() -> impl Strategy<Value = Lifetime> {
    (time(), time(), 0..=100u8, option::of(any::<u64>()), option::of(any::<u64>())).prop_map(
        |(time, margin, fuzz_percent, bytes, packets)| Lifetime { time, margin, fuzz_percent, bytes, packets },
    )
}

fn child() -> impl Strategy<Value = Child> {
    let selectors = any::<bool>().prop_flat_map(|v4| (vec(selector(v4), 1..3), vec(selector(v4), 1..3)));
    // An IPv4 route might lead to the peer, which the model refuses.
    let routes = net_of(false);
    let device = (vec(net(), 0..2), vec(routes, 0..2), option::of(any::<u32>()))
        .prop_map(|(addresses, routes, mark)| Routing::Device { name: String::new(), addresses, routes, mark });
    let rest = (
        64u32..=8192,
        prop_oneof![Just(Routing::Policy), device],
        select(vec![Start::Wait, Start::OnTraffic, Start::AtOnce]),
        select(vec![DfPolicy::Honour, DfPolicy::Clear]),
        option::of(576u16..),
        option::of(any::<u16>()),
        any::<bool>(),
    );
    (selectors, vec(esp(), 1..3), lifetime(), rest).prop_map(|((local, remote), esp, lifetime, rest)| {
        let (replay_window, routing, start, df, mtu, mss, copy_dscp) = rest;
        let name = String::new();
        Child { name, esp, local, remote, lifetime, replay_window, routing, start, df, mtu, mss, copy_dscp }
    })
}

fn connection() -> impl Strategy<Value = Connection> {
    let v2 = Version::V2;
    let versions =
        select(vec![Versions::Only(v2), Versions::Both { initiate: v2 }, Versions::Both { initiate: Version::V1 }]);
    let psk = prop_oneof![
        "\\PC{1,12}".prop_map(|text| Secret::from(text.as_bytes())),
        vec(any::<u8>(), 1..12).prop_map(Secret::from),
    ];
    let ike_lifetime =
        (time(), time(), 0..=100u8).prop_map(|(time, margin, fuzz_percent)| IkeLifetime { time, margin, fuzz_percent });
    let actions = select(vec![DpdAction::Clear, DpdAction::Hold, DpdAction::Restart]);
    let dpd = (time(), time(), actions).prop_map(|(delay, timeout, action)| Dpd { delay, timeout, action });
    let rest = (
        select(vec![Encapsulation::Auto, Encapsulation::Force, Encapsulation::Never]),
        prop_oneof![Just(Tries::Forever), (1u32..).prop_map(Tries::Times)],
        select(vec![Uniqueness::Replace, Uniqueness::Keep, Uniqueness::Never]),
        any::<bool>(),
    );
    let who = (versions, side(1), side(2), vec(psk, 1..3));
    (who, vec(ike(), 1..3), ike_lifetime, option::of(dpd), rest, vec(child(), 1..3)).prop_map(
        |((versions, local, remote, psk), ike, ike_lifetime, dpd, rest, children)| {
            let (encapsulation, tries, uniqueness, fragmentation) = rest;
            let base = Connection::named("");
            Connection {
                versions,
                local,
                remote,
                psk,
                ike,
                ike_lifetime,
                dpd,
                encapsulation,
                tries,
                uniqueness,
                fragmentation,
                children,
                ..base
            }
        },
    )
}

fn config() -> impl Strategy<Value = Config> {
    let gateway = (
        vec(any::<[u8; 4]>(), 0..3),
        (1u16.., 1u16..),
        any::<(u32, u32)>(),
        any::<(bool, bool)>(),
        option::of(any::<u32>()),
        (time(), time()),
        (option::of((any::<[u8; 4]>(), 1u16..)), any::<bool>(), option::of("/\\PC{0,6}"), option::of(1u8..=64)),
    )
        .prop_map(|(listen, (ike, natt), limits, flags, route_table, (nat_keepalive, psk_overlap), seen)| {
            GatewayOptions {
                listen: listen.into_iter().map(Into::into).collect(),
                ports: Ports { ike, natt },
                cookie_threshold: limits.0,
                half_open_limit: limits.1,
                install_routes: flags.0,
                route_table,
                nat_keepalive,
                manage_sysctl: flags.1,
                workers: seen.3.and_then(std::num::NonZeroU8::new),
                metrics: seen.0.map(|(address, port)| (address, port).into()),
                opentelemetry: seen.0.map(|(_, port)| format!("http://[::1]:{port}/a")),
                log_format: if seen.1 { LogFormat::Json } else { LogFormat::Text },
                log_directory: seen.2,
                psk_overlap,
            }
        });
    let names = || prop_oneof!["[a-z]{1,6}", "\\PC{0,6}"];
    (gateway, vec((names(), vec(names(), 2), connection()), 0..3)).prop_map(|(gateway, mut named)| {
        named.sort_by(|a, b| a.0.cmp(&b.0));
        named.dedup_by(|a, b| a.0 == b.0);
        let mut devices = 0;
        let mut name_all = |(name, children, mut connection): (String, Vec<String>, Connection)| {
            connection.name = name;
            for (index, child) in connection.children.iter_mut().enumerate() {
                child.name = format!("{}{index}", children[index]);
                if let Routing::Device { name, addresses, .. } = &mut child.routing {
                    devices += 1;
                    *name = format!("dev{devices}");
                    // The inside networks of two tunnels must not overlap.
                    for (index, address) in addresses.iter_mut().enumerate() {
                        let apart = match address {
                            IpNet::V4(_) => format!("169.254.{devices}.{}/30", 4 * index + 2),
                            IpNet::V6(_) => format!("fd00:{devices}:{index}::2/126"),
                        };
                        *address = apart.parse().unwrap();
                    }
                }
            }
            connection
        };
        let connections = named.into_iter().map(&mut name_all).collect();
        Config { gateway, connections, ..Config::default() }
    })
}
