//! Installing what is missing from the distribution (Debian, Ubuntu), after saying what.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::run::{Outcome, run};

/// What the crates build with, by the program that shows that it is there.
const BUILD: &[(&str, &str)] = &[("cc", "gcc"), ("c++", "g++"), ("make", "make")];

/// What the lab runs, by a file that shows that it is there.
const PEERS: &[(&str, &str)] = &[
    ("/usr/sbin/charon-systemd", "charon-systemd"),
    ("/usr/sbin/swanctl", "strongswan-swanctl"),
    ("/usr/sbin/ipsec", "strongswan-starter"),
    ("/usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so", "libcharon-extra-plugins"),
    ("/usr/lib/ipsec/plugins/libstrongswan-openssl.so", "libstrongswan-standard-plugins"),
    ("/usr/lib/ipsec/plugins/libstrongswan-curve25519.so", "libstrongswan-extra-plugins"),
    ("/usr/sbin/nft", "nftables"),
    ("/usr/sbin/conntrack", "conntrack"),
    ("/usr/bin/ping", "iputils-ping"),
    ("/usr/bin/tcpdump", "tcpdump"),
    ("/usr/bin/iperf3", "iperf3"),
    ("/usr/sbin/ethtool", "ethtool"),
    ("/usr/bin/busybox", "busybox-static"),
    ("/usr/bin/dpkg-deb", "dpkg"),
    ("/usr/sbin/bird", "bird2"),
    ("/usr/bin/vtysh", "frr"),
    ("/usr/bin/gobgpd", "gobgpd"),
    ("/usr/sbin/exabgp", "exabgp"),
    ("/usr/sbin/bgpctl", "openbgpd"),
];

/// What the benchmark measures simplon beside, and with.
const BENCH: &[(&str, &str)] = &[
    ("/usr/sbin/openvpn", "openvpn"),
    ("/usr/bin/openssl", "openssl"),
    ("/usr/bin/wireguard-go", "wireguard-go"),
    ("/usr/bin/wg", "wireguard-tools"),
    ("/usr/bin/taskset", "util-linux"),
    ("/usr/bin/ss", "iproute2"),
];

/// What a machine is built of and emulated with.
const EMULATOR: &[(&str, &str)] = &[
    ("/usr/bin/qemu-system-x86_64", "qemu-system-x86"),
    ("/usr/bin/mmdebstrap", "mmdebstrap"),
    ("/usr/sbin/mke2fs", "e2fsprogs"),
    ("/usr/bin/unshare", "util-linux"),
    ("/usr/bin/ping", "iputils-ping"),
    ("/usr/sbin/ip", "iproute2"),
];

/// Programs that stand elsewhere on some systems.
const ELSEWHERE: [&str; 4] = ["/usr/sbin", "/sbin", "/bin", "/usr/bin"];

/// A compiler for the C parts of the cryptographic library and of the fuzzer.
pub(crate) fn build_tools() -> Outcome {
    let is_there = |name: &&str| {
        let paths = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&paths).any(|folder| folder.join(name).exists())
    };
    packages(BUILD.iter().filter(|(name, _)| !is_there(name)).map(|(_, package)| *package).collect())
}

/// The peers and tools of the lab.
pub(crate) fn peers() -> Outcome {
    files(PEERS)
}

/// Those, and what only the benchmark wants: a distribution that lacks some of it has fewer rows.
pub(crate) fn bench() -> Outcome {
    peers()?;
    if let Err(why) = files(BENCH) {
        println!("{why}: what is missing will be left out");
    }
    Ok(())
}

/// What the reboot test wants.
pub(crate) fn emulator() -> Outcome {
    files(EMULATOR)
}

fn files(wanted: &[(&str, &'static str)]) -> Outcome {
    let is_there = |path: &str| {
        let name = Path::new(path).file_name().unwrap_or_default();
        Path::new(path).exists() || ELSEWHERE.iter().any(|folder| Path::new(folder).join(name).exists())
    };
    packages(wanted.iter().filter(|(path, _)| !is_there(path)).map(|(_, package)| *package).collect())
}

fn packages(missing: Vec<&str>) -> Outcome {
    if missing.is_empty() {
        return Ok(());
    }
    println!("These packages are missing and will be installed: {}", missing.join(" "));
    if std::io::stdin().is_terminal() && !confirmed() {
        return Err("not installed".to_owned());
    }
    // A package's daemon must not start by itself: the lab starts its own, in namespaces.
    let policy = Path::new("/usr/sbin/policy-rc.d");
    let is_ours = !policy.exists();
    if is_ours {
        let script = "printf '#!/bin/sh\\nexit 101\\n' > /usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d";
        as_root("sh", &["-c", script])?;
    }
    let outcome = as_root("apt-get", &["-qq", "update"]).and_then(|()| {
        let arguments = ["-qq", "install", "--yes", "--no-install-recommends"];
        as_root("apt-get", &[&arguments[..], &missing].concat())
    });
    if is_ours {
        as_root("rm", &["-f", "/usr/sbin/policy-rc.d"])?;
    }
    outcome
}

fn confirmed() -> bool {
    print!("Go on? [Y/n] ");
    let mut answer = String::new();
    let read = std::io::stdout().flush().and_then(|()| std::io::stdin().read_line(&mut answer));
    read.is_ok() && matches!(answer.trim(), "" | "y" | "Y" | "yes")
}

fn as_root(name: &str, arguments: &[&str]) -> Outcome {
    let id = Command::new("id").arg("-u").stderr(Stdio::null()).output().map_err(|error| format!("id: {error}"))?;
    let mut command = if id.stdout == b"0\n" {
        Command::new(name)
    } else {
        let mut sudo = Command::new("sudo");
        sudo.arg(name);
        sudo
    };
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    run(command)
}
