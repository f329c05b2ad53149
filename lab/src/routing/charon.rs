//! strongSwan as an endpoint of a routed scenario: one charon in a namespace, its user-space ESP behind the device
//! `ipsec0`, which has the inside address, and routes that the lab puts in.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::clock;
use crate::error::{Error, Result};
use crate::netns::{Lab, Node};
use crate::peer::strongswan::{Data, make_swanctl_directory, strongswan_conf, swanctl};
use crate::peer::{tail, write_private};
use crate::routing::config::Tunnel;
use crate::shell::Process;
use crate::spec::Version;

/// A charon in a namespace.
pub(super) struct Charon {
    name: String,
    node: Node,
    dir: PathBuf,
    process: Option<Process>,
}

impl Charon {
    /// Starts it with a tunnel that it waits for, and gives its device the inside address and routes.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub(super) fn start(lab: &Lab, node: &Node, name: &str, tunnel: &Tunnel, routes: &[&str]) -> Result<Self> {
        let dir = lab.subdir(name)?;
        let shown = dir.to_string_lossy();
        let conf = strongswan_conf(&shown, &shown, Data::UserSpace);
        // Routes are the scenario's business.
        let conf = conf.replacen("charon {\n", "charon {\n  install_routes = no\n", 1);
        write_private(&dir.join("strongswan.conf"), &conf)?;
        make_swanctl_directory(&dir, &connections(tunnel))?;
        let path = dir.join("strongswan.conf");
        let env: [(&str, &OsStr); 1] = [("STRONGSWAN_CONF", path.as_os_str())];
        let mut process = node.spawn(&["/usr/sbin/charon-systemd"], &env, &dir.join("stderr"))?;
        let vici = dir.join("vici");
        let started = clock::wait_for("strongSwan's control socket", Duration::from_secs(10), || {
            Ok(vici.exists() || !process.is_running())
        });
        let line = process.line().to_owned();
        let is_running = process.is_running();
        let this = Self { name: name.into(), node: node.clone(), dir, process: Some(process) };
        if started.is_err() || !is_running {
            return Err(Error::Command { line, said: this.log_tail(20) });
        }
        this.swanctl(&["--load-all"])?;
        clock::wait_for("strongSwan's device ipsec0", Duration::from_secs(5), || {
            Ok(this.node.output(&["ip", "link", "show", "dev", "ipsec0"])?.ok)
        })?;
        // charon's rule leads to a table in which it puts 0.0.0.0/0 for this tunnel, whatever `install_routes` says.
        let _ = this.node.output(&["ip", "rule", "del", "pref", "220"])?;
        this.node.address("ipsec0", &tunnel.inside)?;
        this.node.ip(&["link", "set", "dev", "ipsec0", "up"])?;
        for route in routes {
            this.node.ip(&["route", "add", route, "dev", "ipsec0"])?;
        }
        Ok(this)
    }

    /// What it is called in the topology.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The directory that its socket is in.
    pub(super) fn dir(&self) -> PathBuf {
        self.dir.clone()
    }

    /// Ends its IKE SA; the other end is told.
    ///
    /// # Errors
    ///
    /// When it refuses.
    pub(super) fn terminate(&self) -> Result<()> {
        self.swanctl(&["--terminate", "--ike", &self.name, "--timeout", "5"]).map(drop)
    }

    /// What it says of its SAs.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub(super) fn sas(&self) -> Result<String> {
        self.swanctl(&["--list-sas"])
    }

    fn swanctl(&self, words: &[&str]) -> Result<String> {
        swanctl(self.node.shell(), &self.dir, words)
    }

    /// The last lines of its log.
    pub(super) fn log_tail(&self, lines: usize) -> String {
        let read = |name: &str| fs::read_to_string(self.dir.join(name)).unwrap_or_default();
        tail(&(read("stderr") + &read("charon.log")), lines)
    }

    /// Ends it.
    pub(super) fn stop(&mut self) {
        self.process = None;
    }
}

fn connections(tunnel: &Tunnel) -> String {
    let Tunnel { name, local, local_id, remote, remote_id, psk, .. } = tunnel;
    let (ike, esp) = (tunnel.suite.ike(), tunnel.suite.esp(false));
    let (version, timeout) = match tunnel.version {
        Version::V1 => (1, "    dpd_timeout = 6s\n"),
        Version::V2 => (2, ""),
    };
    format!(
        "connections {{\n  {name} {{\n    version = {version}\n    mobike = no\n    local_addrs = {local}\n    \
         remote_addrs = {remote}\n    proposals = {ike}\n    dpd_delay = 2s\n{timeout}    \
         local {{\n      auth = psk\n      id = {local_id}\n    }}\n    \
         remote {{\n      auth = psk\n      id = {remote_id}\n    }}\n    children {{\n      {name} {{\n        \
         local_ts = 0.0.0.0/0\n        remote_ts = 0.0.0.0/0\n        esp_proposals = {esp}\n        \
         dpd_action = clear\n      }}\n    }}\n  }}\n}}\nsecrets {{\n  ike-1 {{\n    secret = \"{psk}\"\n  }}\n}}\n"
    )
}
