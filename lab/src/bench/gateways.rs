//! What carries the packets in a measurement: simplon, its peers, and two that are there to compare with.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::bench::path::{Ends, HOSTS, OUTSIDE};
use crate::bench::{openvpn, wireguard};
use crate::clock;
use crate::error::{Error, Result};
use crate::netns::Lab;
use crate::peer::strongswan::PLUGINS;
use crate::peer::{Peer, PeerKind, Place, Plan, StrongSwan, simplon, tail, write_private};
use crate::shell::{Process, Shell, installed};
use crate::spec::ConnectionSpec;

/// What stands at both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gateway {
    /// This project.
    Simplon,
    /// The same, less encryption and authentication: what they cost is the difference.
    WithoutEncryption,
    /// strongSwan with its ESP in user space.
    Strongswan,
    /// WireGuard in user space, in Go.
    WireguardGo,
    /// OpenVPN over UDP, in user space.
    Openvpn,
    /// The kernel forwards, and nothing is protected: what two hops cost.
    Forwarding,
}

impl Gateway {
    /// Those that protect packets.
    pub(crate) const PEERS: [Self; 4] = [Self::Simplon, Self::Strongswan, Self::WireguardGo, Self::Openvpn];

    /// Its name in tables.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Simplon => "simplon",
            Self::WithoutEncryption => "no-encryption",
            Self::Strongswan => "strongswan",
            Self::WireguardGo => "wireguard-go",
            Self::Openvpn => "openvpn",
            Self::Forwarding => "forwarding",
        }
    }

    /// Why it cannot be measured on this machine.
    pub(crate) fn missing(self) -> Option<String> {
        let without = |programs: &[&str], package: &str| {
            let missing: Vec<&str> = programs.iter().copied().filter(|program| !installed(program)).collect();
            (!missing.is_empty()).then(|| format!("{} is not installed; apt-get install {package}", missing.join(", ")))
        };
        match self {
            Self::Simplon => simplon::missing(),
            Self::WithoutEncryption => {
                let build = "cargo build --release -p gatewayd --example without_encryption";
                without_encryption().is_none().then(|| format!("it is not built; {build}"))
            }
            Self::Strongswan => PeerKind::Strongswan.missing(),
            Self::WireguardGo => without(&["wireguard-go", "wg"], "wireguard-go wireguard-tools"),
            Self::Openvpn => without(&["openvpn", "openssl"], "openvpn openssl"),
            Self::Forwarding => None,
        }
    }

    /// Which version it is, in its own words.
    pub(crate) fn version(self, shell: &Shell) -> Option<String> {
        let words: &[&str] = match self {
            Self::Simplon | Self::WithoutEncryption => return Some(env!("CARGO_PKG_VERSION").to_owned()),
            Self::Strongswan => &["swanctl", "--version"],
            Self::WireguardGo => &["wireguard-go", "--version"],
            Self::Openvpn => &["openvpn", "--version"],
            Self::Forwarding => return None,
        };
        let output = shell.output(words).ok()?;
        let said = output.stdout + &output.stderr;
        let is_version = |word: &&str| word.trim_start_matches('v').starts_with(|c: char| c.is_ascii_digit());
        said.split_whitespace().find(is_version).map(|word| word.trim_start_matches('v').to_owned())
    }

    /// Puts it at both ends and waits until packets pass.
    pub(crate) fn start(self, lab: &Lab, ends: &Ends, specs: [ConnectionSpec; 2], how: Plugins) -> Result<Running> {
        let mut running = Running::default();
        match self {
            Self::Simplon | Self::Strongswan => {
                let kind = if self == Self::Simplon { PeerKind::Simplon } else { PeerKind::Strongswan };
                for (place, spec) in ends.places.iter().zip(specs) {
                    place.settle(kind)?;
                    let mut peer: Box<dyn Peer> = match kind {
                        PeerKind::Strongswan => Box::new(strongswan(lab, place, spec, how)?),
                        PeerKind::Simplon | PeerKind::StrongswanKernel | PeerKind::Libreswan => {
                            kind.build(lab, place, Plan { spec, files: None })?
                        }
                    };
                    peer.start()?;
                    running.peers.push(peer);
                }
                running.peers[0].initiate()?;
            }
            Self::WithoutEncryption => {
                for (place, spec) in ends.places.iter().zip(specs) {
                    place.settle(PeerKind::Simplon)?;
                    running.processes.push(start_without_encryption(lab, place, &spec)?);
                }
                initiate_without_encryption(lab, &ends.places[0])?;
            }
            Self::WireguardGo => {
                settle_plainly(ends)?;
                running.processes.extend(wireguard::start(lab, ends)?);
            }
            Self::Openvpn => {
                settle_plainly(ends)?;
                running.processes.extend(openvpn::start(lab, ends)?);
            }
            Self::Forwarding => {
                settle_plainly(ends)?;
                for own in 0..2 {
                    let host = format!("{}/32", HOSTS[1 - own]);
                    ends.places[own].node.route(&host, &OUTSIDE[1 - own].to_string())?;
                }
            }
        }
        Ok(running)
    }
}

impl fmt::Display for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What runs at both ends; dropping it ends it.
#[derive(Default)]
pub(crate) struct Running {
    pub(crate) peers: Vec<Box<dyn Peer>>,
    processes: Vec<Process>,
}

fn settle_plainly(ends: &Ends) -> Result<()> {
    ends.places.iter().try_for_each(|place| place.settle(PeerKind::Strongswan))
}

/// In which order strongSwan looks for an algorithm in its plugins: they differ in speed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Plugins {
    /// As Debian loads them: its own code for AES-CBC and HMAC, OpenSSL for AES-GCM.
    #[default]
    Own,
    /// OpenSSL for all of it.
    Openssl,
    /// Its plugin for the processor's AES instructions, and OpenSSL for the rest.
    Aesni,
}

impl Plugins {
    /// All orders that this machine has.
    pub(crate) fn all() -> Vec<Self> {
        let has = |name: &str| Path::new("/usr/lib/ipsec/plugins").join(format!("libstrongswan-{name}.so")).is_file();
        let aesni = (has("aesni") && has("openssl")).then_some(Self::Aesni);
        [Some(Self::Own), has("openssl").then_some(Self::Openssl), aesni].into_iter().flatten().collect()
    }

    /// Its name in tables.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Openssl => "openssl",
            Self::Aesni => "aesni",
        }
    }

    fn list(self) -> String {
        let rest: Vec<&str> = PLUGINS.split(' ').filter(|name| !matches!(*name, "openssl")).collect();
        match self {
            Self::Own => PLUGINS.to_owned(),
            Self::Openssl => format!("openssl {}", rest.join(" ")),
            Self::Aesni => format!("aesni openssl {}", rest.join(" ")),
        }
    }
}

/// strongSwan with its plugins in this order.
fn strongswan(lab: &Lab, place: &Place, spec: ConnectionSpec, how: Plugins) -> Result<StrongSwan> {
    let peer = StrongSwan::new(lab, place, spec)?;
    let path = lab.dir().join(&place.name).join("strongswan.conf");
    let conf = fs::read_to_string(&path).map_err(|e| Error::io(format!("reading {}", path.display()), e))?;
    write_private(&path, &conf.replace(PLUGINS, &how.list()))?;
    Ok(peer)
}

/// The example of `gatewayd` that leaves encryption out, where it was built beside this program.
fn without_encryption() -> Option<PathBuf> {
    Some(simplon::program()?.parent()?.join("examples/without_encryption")).filter(|path| path.is_file())
}

fn start_without_encryption(lab: &Lab, place: &Place, spec: &ConnectionSpec) -> Result<Process> {
    let dir = lab.subdir(&place.name)?;
    let (conf, socket, log) = (dir.join("simplon.toml"), dir.join("socket"), dir.join("log"));
    write_private(&conf, &simplon::simplon_toml(spec))?;
    let program = without_encryption().unwrap_or_default();
    let words = [&program, &conf, &socket].map(|path| path.to_string_lossy().into_owned());
    let env: [(&str, &OsStr); 1] = [("RUST_BACKTRACE", OsStr::new("1"))];
    let mut process = place.node.spawn(&words, &env, &log)?;
    clock::wait_for("the gateway without encryption", Duration::from_secs(10), || {
        Ok(socket.exists() || !process.is_running())
    })?;
    if !process.is_running() {
        let said = tail(&fs::read_to_string(&log).unwrap_or_default(), 20);
        return Err(Error::Command { line: process.line().into(), said });
    }
    Ok(process)
}

fn initiate_without_encryption(lab: &Lab, place: &Place) -> Result<()> {
    let socket = lab.dir().join(&place.name).join("socket").to_string_lossy().into_owned();
    let program = simplon::program().unwrap_or_default();
    place.node.run(&[&*program.to_string_lossy(), "up", "bench", "--socket", &socket]).map(drop)
}
