//! simplon as a gateway of a routed scenario: any configuration, and every question and order.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::clock;
use crate::error::{Error, Result};
use crate::netns::{Lab, Node};
use crate::peer::{simplon, tail, write_private};
use crate::shell::Process;

/// A daemon in a namespace.
pub(super) struct Daemon {
    name: String,
    program: String,
    node: Node,
    dir: PathBuf,
    process: Option<Process>,
}

impl Daemon {
    /// Writes its configuration and starts it; when this returns, the configuration is loaded.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub(super) fn start(lab: &Lab, node: &Node, name: &str, toml: &str) -> Result<Self> {
        let program = simplon::program().ok_or_else(|| Error::Missing {
            what: "the program simplon".into(),
            install: simplon::missing().unwrap_or_default(),
        })?;
        let dir = lab.subdir(name)?;
        write_private(&dir.join("simplon.toml"), toml)?;
        // As simplon asks: what arrives in clear must not pass for what came out of a tunnel.
        if node.output(&["ip", "link", "show", "dev", "outside"])?.ok {
            node.sysctl(&["net.ipv4.conf.outside.rp_filter=1"])?;
        }
        let program = program.to_string_lossy().into_owned();
        let mut this = Self { name: name.into(), program, node: node.clone(), dir, process: None };
        this.run()?;
        Ok(this)
    }

    /// Starts it, the first time or again.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub(super) fn run(&mut self) -> Result<()> {
        let env: [(&str, &OsStr); 1] = [("RUST_BACKTRACE", OsStr::new("1"))];
        let configuration = self.dir.join("simplon.toml").to_string_lossy().into_owned();
        let socket = self.socket();
        let socket_name = socket.to_string_lossy();
        let words = ahead_of_others(&[&self.program, "gateway", "-c", &configuration, "--socket", &socket_name]);
        let log = self.dir.join("log");
        let mut process = self.node.spawn(&words, &env, &log)?;
        // Traffic is held from the moment on at which it says so; where there is no connection, none is.
        let toml = fs::read_to_string(self.dir.join("simplon.toml")).unwrap_or_default();
        let said = if toml.contains("[connection.") { "event=\"loaded\"" } else { "gateway starts" };
        let loaded = || fs::read_to_string(&log).is_ok_and(|text| text.contains(said));
        let started = clock::wait_for("simplon's configuration", Duration::from_secs(15), || {
            Ok((socket.exists() && loaded()) || !process.is_running())
        });
        if started.is_err() || !process.is_running() {
            return Err(Error::Command { line: process.line().into(), said: self.log_tail(20) });
        }
        self.process = Some(process);
        Ok(())
    }

    /// Lets another process take its place; how long packets waited, in its own words.
    ///
    /// # Errors
    ///
    /// When it does not.
    pub(super) fn hand_over(&mut self) -> Result<String> {
        let (configuration, socket) = (self.dir.join("simplon.toml"), self.socket());
        let [configuration, socket] = [configuration, socket].map(|path| path.to_string_lossy().into_owned());
        let words =
            ahead_of_others(&[&self.program, "gateway", "-c", &configuration, "--socket", &socket, "--hand-over"]);
        let next = self.node.spawn(&words, &[], &self.dir.join("log-next"))?;
        let line = next.line().to_owned();
        let ended = match self.process.replace(next) {
            Some(mut former) => former.finish(Duration::from_secs(15)),
            None => Ok(false),
        };
        let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        let pause =
            log.rsplit_once("packets waited for ").map(|(_, text)| text.lines().next().unwrap_or(text).to_owned());
        let pause = pause.filter(|_| ended.is_ok_and(|well| well));
        pause.ok_or_else(|| Error::Command { line, said: self.log_tail(10) })
    }

    /// What it is called in the topology.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Its admin socket.
    pub(super) fn socket(&self) -> PathBuf {
        self.dir.join("socket")
    }

    /// Runs a command of the program against it.
    ///
    /// # Errors
    ///
    /// When the command does not succeed.
    pub(super) fn ask(&self, words: &[&str]) -> Result<String> {
        let socket = self.socket();
        let mut all = vec![self.program.as_str()];
        all.extend(words);
        let socket = socket.to_string_lossy();
        all.extend(["--socket", &socket]);
        self.node.run(&all)
    }

    /// Everything that it says about itself.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub(super) fn status(&self) -> Result<Value> {
        self.json(&["status", "--detail", "--json"])
    }

    /// What a command says in JSON.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub(super) fn json(&self, words: &[&str]) -> Result<Value> {
        let text = self.ask(words)?;
        serde_json::from_str(&text).map_err(|e| Error::Asked(format!("simplon {}: {e}", words.join(" "))))
    }

    /// Starts a command of the program against it, and leaves it running.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub(super) fn ask_meanwhile(&self, words: &[&str]) -> Result<Process> {
        let socket = self.socket();
        let mut all = vec![self.program.as_str()];
        all.extend(words);
        let socket = socket.to_string_lossy();
        all.extend(["--socket", &socket]);
        self.node.spawn(&all, &[], &self.dir.join("order"))
    }

    /// What the command that was left running has said.
    pub(super) fn said(&self) -> String {
        fs::read_to_string(self.dir.join("order")).unwrap_or_default()
    }

    /// Gives it another configuration and lets it read it.
    ///
    /// # Errors
    ///
    /// When it refuses it.
    pub(super) fn reconfigure(&self, toml: &str) -> Result<()> {
        write_private(&self.dir.join("simplon.toml"), toml)?;
        self.ask(&["reload"]).map(drop)
    }

    /// The last lines of its log.
    pub(super) fn log_tail(&self, lines: usize) -> String {
        let read = |name: &str| fs::read_to_string(self.dir.join(name)).unwrap_or_default();
        tail(&(read("log") + &read("log-next")), lines)
    }

    /// Ends it as a power cut would.
    pub(super) fn crash(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
            let _ = fs::remove_file(self.socket());
        }
    }

    /// Ends it.
    pub(super) fn stop(&mut self) {
        self.process = None;
    }
}

/// A command that is run before what else wants the processors, as the service is by its unit, so that compilers beside it
/// do not starve BFD. Where that is not permitted, `nice` says so in the log and runs it all the same.
fn ahead_of_others<'a>(words: &[&'a str]) -> Vec<&'a str> {
    [&["nice", "-n", "-10"], words].concat()
}

/// The elements of an array, or nothing.
pub(super) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Whether a connection has an SA that carries packets.
pub(super) fn is_up(status: &Value, connection: &str) -> bool {
    list(&status["connections"])
        .any(|c| c["name"] == connection && list(&c["children"]).any(|child| list(&child["sas"]).next().is_some()))
}

/// The tunnels that carry the traffic of the first VPN connection.
pub(super) fn active(status: &Value) -> Vec<String> {
    list(&status["vpns"][0]["active"]).filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

/// The SPIs of every SA of IKE and ESP that is in use.
pub(super) fn spis(status: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let of = |connection: &Value| -> Vec<String> {
        let ike = list(&connection["ike_sas"]).filter(|sa| sa["state"] == "established");
        let ike = ike.map(|sa| text(&sa["initiator_spi"]));
        let esp =
            list(&connection["children"]).flat_map(|child| list(&child["sas"])).filter(|sa| sa["state"] == "active");
        ike.chain(esp.map(|sa| text(&sa["inbound_spi"]))).collect()
    };
    list(&status["connections"]).flat_map(of).collect()
}

/// The neighbour of this address.
pub(super) fn neighbor<'a>(status: &'a Value, address: &str) -> &'a Value {
    list(&status["bgp"]["neighbors"]).find(|n| n["address"] == address).unwrap_or(&Value::Null)
}
