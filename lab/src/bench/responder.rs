//! One gateway that takes any peer, on one core, and the load generator in front of it.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::bench::path::load;
use crate::clock;
use crate::error::{Error, Result};
use crate::netns::{Lab, Node};
use crate::peer::strongswan::{PLUGINS, make_swanctl_directory, swanctl};
use crate::peer::{PeerKind, simplon, tail, write_private};
use crate::shell::{Process, Shell};
use crate::spec::Version;

const RESPONDER: &str = "10.9.0.1";
const GENERATOR: &str = "10.9.0.2";
const PSK: &str = "measured, not secret";
const IDENTITY: &str = "responder";
const NETWORK: &str = "10.1.0.0/16";
const PEER_NETWORKS: &str = "10.128.0.0/9";

/// What is negotiated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Negotiation {
    pub(super) version: Version,
    pub(super) ike: &'static str,
    pub(super) esp: &'static str,
    /// Seconds after which a silent peer is asked.
    pub(super) dpd: Option<u32>,
}

/// What the generator says (`simplon bench load handshakes --json`).
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Said {
    pub(super) established: u32,
    pub(super) per_second: f64,
    pub(super) p50_ms: f64,
    pub(super) retransmitted: u64,
}

/// Two namespaces with a wire between them.
pub(super) struct Ground {
    lab: Lab,
    responder: Node,
    generator: Node,
    program: String,
}

impl Ground {
    pub(super) fn build(shell: &Shell) -> Result<Self> {
        let program = simplon::program().ok_or_else(|| Error::Missing {
            what: "the program simplon".into(),
            install: simplon::missing().unwrap_or_default(),
        })?;
        let lab = Lab::new(shell)?;
        let (responder, generator) = (lab.node("responder")?, lab.node("generator")?);
        lab.link((&responder, "eth0"), (&generator, "eth0"))?;
        responder.address("eth0", &format!("{RESPONDER}/24"))?;
        generator.address("eth0", &format!("{GENERATOR}/24"))?;
        // Both gateways look for an address of their own in what they protect.
        responder.address("lo", "10.1.0.1/16")?;
        responder.forward()?;
        // A burst of handshakes waits in the socket rather than being lost.
        Ok(Self { lab, responder, generator, program: program.to_string_lossy().into_owned() })
    }

    /// Starts a gateway on the first core; when this returns, it takes peers.
    pub(super) fn start(&self, kind: PeerKind, what: Negotiation, name: &str) -> Result<Responder> {
        let dir = self.lab.subdir(name)?;
        let mut responder = match kind {
            PeerKind::Simplon => self.start_simplon(&dir, what)?,
            PeerKind::Strongswan => self.start_strongswan(&dir, what)?,
            PeerKind::StrongswanKernel | PeerKind::Libreswan => {
                return Err(Error::Asked(format!("{kind} runs in a guest and is not measured")));
            }
        };
        if !responder.process.is_running() {
            return Err(responder.error());
        }
        Ok(responder)
    }

    fn start_simplon(&self, dir: &Path, what: Negotiation) -> Result<Responder> {
        let (conf, socket, log) = (dir.join("simplon.toml"), dir.join("socket"), dir.join("log"));
        write_private(&conf, &simplon_toml(what))?;
        let (conf, socket) = (conf.to_string_lossy(), socket.to_string_lossy());
        let words =
            ["taskset", "-c", "0", &self.program, "gateway", "-c", &conf, "--socket", &socket, "--log", "error"];
        let mut process = self.responder.spawn(&words, &[], &log)?;
        // It answers once everything is in place.
        clock::wait_for("simplon's answer", Duration::from_secs(10), || {
            let status = [self.program.as_str(), "status", "--json", "--socket", &socket];
            Ok(self.responder.output(&status)?.ok || !process.is_running())
        })?;
        Ok(Responder { process, log })
    }

    fn start_strongswan(&self, dir: &Path, what: Negotiation) -> Result<Responder> {
        let (conf, vici, log) = (dir.join("strongswan.conf"), dir.join("vici"), dir.join("log"));
        write_private(&conf, &strongswan_conf(&dir.to_string_lossy()))?;
        make_swanctl_directory(dir, &swanctl_conf(what))?;
        let env: [(&str, &OsStr); 1] = [("STRONGSWAN_CONF", conf.as_os_str())];
        let mut process = self.responder.spawn(&["taskset", "-c", "0", "/usr/sbin/charon-systemd"], &env, &log)?;
        clock::wait_for("strongSwan's control socket", Duration::from_secs(10), || {
            Ok(vici.exists() || !process.is_running())
        })?;
        swanctl(self.responder.shell(), dir, &["--load-all"])?;
        Ok(Responder { process, log })
    }

    /// Lets `count` peers in on the second core, and has them go on answering for `linger` seconds.
    pub(super) fn generate(&self, what: Negotiation, count: u32, linger: u32, name: &str) -> Result<Generator> {
        let [count, linger, version] = [count, linger, what.version.number().into()].map(|n: u32| n.to_string());
        let log = self.lab.dir().join(format!("{name}.generator"));
        let mut words = vec!["handshakes", "--json"];
        words.extend(["--local", GENERATOR, "--remote", RESPONDER, "--remote-id", IDENTITY, "--remote-net", NETWORK]);
        words.extend(["--psk", PSK, "--version", &version, "--ike", what.ike, "--esp", what.esp]);
        words.extend(["--count", &count, "--window", "64", "--linger", &linger, "--timeout", "20"]);
        let mut words = load(&words)?;
        words.splice(0..0, ["taskset", "-c", "1"].map(str::to_owned));
        Ok(Generator { process: self.generator.spawn(&words, &[], &log)?, log })
    }
}

/// A running gateway.
pub(super) struct Responder {
    process: Process,
    log: PathBuf,
}

impl Responder {
    pub(super) fn pid(&self) -> u32 {
        self.process.pid()
    }

    fn error(&self) -> Error {
        let said = tail(&fs::read_to_string(&self.log).unwrap_or_default(), 20);
        Error::Command { line: self.process.line().into(), said }
    }
}

/// A running generator.
pub(super) struct Generator {
    process: Process,
    log: PathBuf,
}

impl Generator {
    /// Waits until all handshakes are over; the peers may still be there.
    pub(super) fn said(&mut self) -> Result<Said> {
        let mut said = None;
        let waited = clock::wait_for("the load generator", Duration::from_secs(30), || {
            let text = fs::read_to_string(&self.log).unwrap_or_default();
            said = serde_json::from_str(&text).ok();
            Ok(said.is_some() || !self.process.is_running())
        });
        // It may have said it and ended between the two looks.
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let said = said.or_else(|| serde_json::from_str(&text).ok());
        said.ok_or_else(|| match waited {
            Err(error) => error,
            Ok(_) => Error::Command { line: self.process.line().into(), said: tail(&text, 20) },
        })
    }
}

fn simplon_toml(what: Negotiation) -> String {
    let mut out = String::from("[gateway]\ncookie-threshold = 1000000\nhalf-open-limit = 1000000\n\n");
    // Writing to a String does not fail.
    let _ = write!(
        out,
        "[connection.load]\nversion = \"ikev{version}\"\n\
         local = {{ address = \"{RESPONDER}\", id = \"{IDENTITY}\" }}\n\
         remote = {{ address = \"any\", id = \"%any\" }}\n\
         psk = \"{PSK}\"\nike = [\"{ike}\"]\nike-lifetime = \"8h\"\nuniqueness = \"never\"\n",
        version = what.version.number(),
        ike = what.ike,
    );
    match what.dpd {
        Some(delay) => writeln!(out, "dpd = {{ delay = \"{delay}s\", timeout = \"60s\", action = \"clear\" }}"),
        None => writeln!(out, "dpd = false"),
    }
    .unwrap_or_default();
    let _ = write!(
        out,
        "\n[connection.load.child.net]\nlocal = [\"{NETWORK}\"]\nremote = [\"{PEER_NETWORKS}\"]\n\
         esp = [\"{}\"]\nlifetime = \"4h\"\n",
        what.esp,
    );
    out
}

/// As Debian sets it, but for what would only slow it down here: it logs nothing, looks IKE SAs up in a table that
/// fits their number, and takes every peer for honest.
pub(super) fn strongswan_conf(dir: &str) -> String {
    format!(
        "charon-systemd {{\n  journal {{ default = -1 }}\n}}\n\
         charon {{\n  load = {PLUGINS} kernel-libipsec kernel-netlink socket-default vici\n  piddir = {dir}\n  \
         journal {{ default = -1 }}\n  syslog {{\n    daemon {{ default = -1 }}\n    auth {{ default = -1 }}\n  }}\n  \
         ikesa_table_size = 2048\n  ikesa_table_segments = 16\n  cookie_threshold = 0\n  block_threshold = 0\n  \
         init_limit_half_open = 0\n  init_limit_job_load = 0\n  dos_protection = no\n  \
         plugins {{\n    vici {{ socket = unix://{dir}/vici }}\n    kernel-netlink {{ fwmark = !0x42 }}\n    \
         socket-default {{ fwmark = 0x42 }}\n    kernel-libipsec {{ allow_peer_ts = yes }}\n  }}\n}}\n"
    )
}

fn swanctl_conf(what: Negotiation) -> String {
    let dpd = what.dpd.map_or_else(String::new, |delay| format!("    dpd_delay = {delay}s\n    dpd_timeout = 60s\n"));
    format!(
        "connections {{\n  load {{\n    version = {version}\n    local_addrs = {RESPONDER}\n    remote_addrs = %any\n    \
         proposals = {ike}\n    unique = never\n    mobike = no\n    rekey_time = 8h\n{dpd}    \
         local {{\n      auth = psk\n      id = @{IDENTITY}\n    }}\n    \
         remote {{\n      auth = psk\n      id = %any\n    }}\n    \
         children {{\n      net {{\n        local_ts = {NETWORK}\n        remote_ts = {PEER_NETWORKS}\n        \
         esp_proposals = {esp}\n        rekey_time = 4h\n      }}\n    }}\n  }}\n}}\n\
         secrets {{\n  ike-load {{\n    secret = \"{PSK}\"\n  }}\n}}\n",
        version = what.version.number(),
        ike = what.ike,
        esp = what.esp,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simplon_reads_what_is_written_for_it() {
        let what = Negotiation {
            version: Version::V1,
            ike: "aes128-sha1-modp1024",
            esp: "aes128-sha1-modp1024",
            dpd: Some(10),
        };
        let files = dialects::MemoryFiles::new().with("simplon.toml", simplon_toml(what));
        let config = dialects::read("simplon.toml", &files).unwrap().config;
        assert_eq!(config.gateway.cookie_threshold, 1_000_000);
        let [connection] = config.connections.as_slice() else { panic!("{config:?}") };
        assert_eq!(connection.remote_id(), model::Identity::Any);
        assert_eq!(connection.remote.address, model::Address::Any);
        assert_eq!(connection.uniqueness, model::Uniqueness::Never);
        assert_eq!(connection.dpd.as_ref().unwrap().delay, Duration::from_secs(10));
        let without = Negotiation { dpd: None, ..what };
        let files = dialects::MemoryFiles::new().with("simplon.toml", simplon_toml(without));
        assert!(dialects::read("simplon.toml", &files).unwrap().config.connections[0].dpd.is_none());
    }
}
