//! simplon itself, as the foreground daemon `simplon gateway` in a namespace.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::clock;
use crate::error::{Error, Result};
use crate::netns::{Lab, Node};
use crate::peer::{ChildStatus, Peer, PeerKind, Place, Plan, Status, tail, write_private};
use crate::shell::{Process, typed};
use crate::spec::{ConnectionSpec, Encapsulation, Start, Version};

/// The program: `SIMPLON_BIN`, or the one that is running.
pub(crate) fn program() -> Option<PathBuf> {
    let given = std::env::var_os("SIMPLON_BIN").map(PathBuf::from);
    let own = || {
        std::env::current_exe()
            .ok()
            .filter(|exe| exe.file_name().is_some_and(|name| name.to_string_lossy().starts_with("simplon")))
    };
    given.or_else(own).filter(|path| path.is_file())
}

/// What has to be there to run it.
pub fn missing() -> Option<String> {
    if program().is_none() {
        return Some("build it (cargo build -p cli) and set SIMPLON_BIN to target/debug/simplon".into());
    }
    (!Path::new("/dev/net/tun").exists()).then(|| "modprobe tun".into())
}

/// The daemon in a namespace.
pub struct Simplon {
    program: String,
    node: Node,
    dir: PathBuf,
    connection: String,
    configuration: PathBuf,
    secrets: Option<PathBuf>,
    daemon: Option<Process>,
}

impl Simplon {
    /// Writes its configuration, where it is not to run somebody's files.
    ///
    /// # Errors
    ///
    /// When that fails, or there is no program.
    pub fn new(lab: &Lab, place: &Place, plan: Plan) -> Result<Self> {
        let program = program().ok_or_else(|| Error::Missing {
            what: "the program simplon".into(),
            install: missing().unwrap_or_default(),
        })?;
        let dir = lab.subdir(&place.name)?;
        let (configuration, secrets) = match plan.files {
            Some(files) => (files.conf, Some(files.secrets)),
            None => {
                let path = dir.join("simplon.toml");
                write_private(&path, &simplon_toml(&plan.spec))?;
                (path, None)
            }
        };
        Ok(Self {
            program: program.to_string_lossy().into_owned(),
            node: place.node.clone(),
            dir,
            connection: plan.spec.name,
            configuration,
            secrets,
            daemon: None,
        })
    }

    fn command(&self) -> Vec<String> {
        let shown = |path: &Path| path.to_string_lossy().into_owned();
        let mut words = vec![self.program.clone(), "gateway".into(), "-c".into(), shown(&self.configuration)];
        words.extend(["--socket".to_owned(), self.socket()]);
        if let Some(secrets) = &self.secrets {
            words.extend(["--secrets".to_owned(), shown(secrets)]);
        }
        words
    }

    fn socket(&self) -> String {
        self.dir.join("socket").to_string_lossy().into_owned()
    }

    fn ask(&self, words: &[&str]) -> Result<String> {
        let socket = self.socket();
        let mut all = vec![self.program.as_str()];
        all.extend(words);
        all.extend(["--socket", &socket]);
        self.node.run(&all)
    }
}

impl Peer for Simplon {
    fn kind(&self) -> PeerKind {
        PeerKind::Simplon
    }

    fn start(&mut self) -> Result<()> {
        let env: [(&str, &OsStr); 1] = [("RUST_BACKTRACE", OsStr::new("1"))];
        let mut daemon = self.node.spawn(&self.command(), &env, &self.dir.join("log"))?;
        let socket = self.dir.join("socket");
        // Its traffic is held from the moment on at which it says so; the socket answers before.
        let loaded = |dir: &Path| fs::read_to_string(dir.join("log")).is_ok_and(|log| log.contains("event=\"loaded\""));
        let started = clock::wait_for("simplon's connection", Duration::from_secs(10), || {
            Ok((socket.exists() && loaded(&self.dir)) || !daemon.is_running())
        });
        if started.is_err() || !daemon.is_running() {
            return Err(Error::Command { line: daemon.line().into(), said: self.log_tail(20) });
        }
        self.daemon = Some(daemon);
        Ok(())
    }

    fn initiate(&mut self) -> Result<()> {
        self.ask(&["up", &self.connection]).map(drop)
    }

    fn status(&mut self) -> Result<Status> {
        Ok(self.detail()?.map(|detail| read_status(&detail)).unwrap_or_default())
    }

    fn detail(&mut self) -> Result<Option<Value>> {
        let text = self.ask(&["status", "--detail", "--json"])?;
        serde_json::from_str(&text).map(Some).map_err(|e| Error::Asked(format!("simplon status --json: {e}")))
    }

    fn detail_text(&mut self) -> Result<Option<String>> {
        self.ask(&["status", "--detail"]).map(Some)
    }

    fn configuration(&self) -> String {
        fs::read_to_string(&self.configuration).unwrap_or_default()
    }

    fn log_tail(&mut self, lines: usize) -> String {
        tail(&fs::read_to_string(self.dir.join("log")).unwrap_or_default(), lines)
    }

    fn crash(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill();
            let _ = fs::remove_file(self.dir.join("socket"));
        }
    }

    fn stop(&mut self) {
        self.daemon = None;
    }
}

/// Writes a gateway's configuration; the command that would run it.
pub(crate) fn written(lab: &Lab, place: &Place, plan: Plan) -> Result<String> {
    Ok(typed(&Simplon::new(lab, place, plan)?.command()))
}

/// The connection in simplon's own format.
pub(crate) fn simplon_toml(spec: &ConnectionSpec) -> String {
    let mut out = String::new();
    let version = match spec.version {
        Version::V1 => "ikev1",
        Version::V2 => "ikev2",
    };
    let start = match spec.start {
        Start::Wait => "wait",
        Start::AtOnce => "at-once",
        Start::OnTraffic => "on-traffic",
    };
    let encapsulation = match spec.encapsulation {
        Encapsulation::Auto => "auto",
        Encapsulation::Plain => "never",
        Encapsulation::Udp => "force",
    };
    // Writing to a String does not fail. JSON's strings are TOML's basic strings.
    let _ = write!(
        out,
        "[connection.{name}]\n\
         version = \"{version}\"\n\
         local = {{ address = \"{}\", id = \"{}\" }}\n\
         remote = {{ address = \"{}\", id = \"{}\" }}\n\
         psk = {}\n\
         ike = [\"{}\"]\n\
         ike-lifetime = {{ time = \"{}s\", margin = \"{}s\", fuzz = 0 }}\n\
         encapsulation = \"{encapsulation}\"\n",
        spec.local.address,
        spec.local.id,
        spec.remote.address,
        spec.remote.id,
        Value::from(spec.psk.as_str()),
        spec.ike,
        spec.ike_lifetime.time.as_secs(),
        spec.ike_lifetime.margin.as_secs(),
        name = spec.name,
    );
    if let Some(dpd) = spec.dpd {
        let (delay, timeout) = (dpd.delay.as_secs(), dpd.timeout.as_secs());
        let _ = writeln!(out, "dpd = {{ delay = \"{delay}s\", timeout = \"{timeout}s\", action = \"restart\" }}");
    }
    let _ = write!(
        out,
        "\n[connection.{name}.child.{name}]\n\
         local = [\"{}\"]\n\
         remote = [\"{}\"]\n\
         esp = [\"{}\"]\n\
         lifetime = {{ time = \"{}s\", margin = \"{}s\", fuzz = 0 }}\n\
         start = \"{start}\"\n",
        spec.local.network,
        spec.remote.network,
        spec.esp,
        spec.child_lifetime.time.as_secs(),
        spec.child_lifetime.margin.as_secs(),
        name = spec.name,
    );
    out
}

/// Reads `simplon status --detail --json`; the lab's gateways have one connection.
fn read_status(detail: &Value) -> Status {
    let connection = &detail["connections"][0];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut status = Status { state: text(&connection["state"]), ..Status::default() };
    for ike in list(&connection["ike_sas"]) {
        if matches!(ike["state"].as_str(), Some("established" | "rekeying")) {
            status.established = true;
            status.ike_sas += 1;
            status.state = text(&ike["state_name"]);
            status.ike = text(&ike["suite"]);
            status.version = ike["version"].as_str().and_then(|v| v.strip_prefix("ikev")?.parse().ok());
        }
    }
    let sas = list(&connection["children"]).flat_map(|child| list(&child["sas"]));
    let read = |sa: &Value| {
        let (inbound, outbound) = (&sa["traffic"]["inbound"], &sa["traffic"]["outbound"]);
        ChildStatus {
            spi_in: text(&sa["inbound_spi"]),
            spi_out: text(&sa["outbound_spi"]),
            esp: text(&sa["suite"]),
            udp: sa["encapsulation"].as_str().map(|word| word == "udp"),
            esn: sa["esn"].as_bool(),
            packets_in: inbound["packets"].as_u64(),
            packets_out: outbound["packets"].as_u64(),
            bytes_in: inbound["bytes"].as_u64().unwrap_or(0),
            bytes_out: outbound["bytes"].as_u64().unwrap_or(0),
        }
    };
    status.children = sas.map(read).collect();
    status
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tests_support::spec;

    #[test]
    fn the_configuration_says_what_the_connection_says() {
        let toml = simplon_toml(&spec());
        for line in [
            "[connection.Tunnel1]",
            "version = \"ikev1\"",
            "remote = { address = \"43.200.61.196\", id = \"43.200.61.196\" }",
            "psk = \"cloudneta\"",
            "ike = [\"aes128-sha1-modp1024\"]",
            "lifetime = { time = \"3600s\", margin = \"540s\", fuzz = 0 }",
            "start = \"at-once\"",
        ] {
            assert!(toml.contains(line), "{line} is not in\n{toml}");
        }
    }

    #[test]
    fn simplon_itself_reads_what_is_written_for_it() {
        let esp = crate::spec::Suite::Classic.esp(true);
        let spec = ConnectionSpec {
            version: Version::V2,
            encapsulation: Encapsulation::Plain,
            start: Start::OnTraffic,
            psk: "quo\"te\\".into(),
            esp,
            ..spec()
        };
        let files = dialects::MemoryFiles::new().with("simplon.toml", simplon_toml(&spec));
        let config = dialects::read("simplon.toml", &files).unwrap().config;
        let [connection] = config.connections.as_slice() else { panic!("{config:?}") };
        assert_eq!(connection.versions, model::Versions::Only(model::Version::V2));
        assert_eq!(connection.encapsulation, model::Encapsulation::Never);
        assert_eq!(connection.psk[0].expose(), b"quo\"te\\");
        assert_eq!(connection.ike[0].to_string(), "aes128-sha1-modp1024");
        assert_eq!(connection.children[0].esp[0].to_string(), "aes128-sha1-modp1024-esn");
        assert_eq!(connection.children[0].start, model::Start::OnTraffic);
        assert_eq!(connection.children[0].lifetime.time, spec.child_lifetime.time);
    }

    #[test]
    fn the_status_of_the_daemon_is_read() {
        let detail = serde_json::json!({ "connections": [{
            "state": "up",
            "ike_sas": [{ "state": "established", "state_name": "MM_ACTIVE", "version": "ikev1", "suite": "aes128-sha1" }],
            "children": [{ "sas": [{
                "inbound_spi": "0000002a", "outbound_spi": "0000002b", "suite": "aes128-sha1", "esn": false,
                "encapsulation": "udp",
                "traffic": { "inbound": { "packets": 3, "bytes": 252 }, "outbound": { "packets": 4, "bytes": 336 } },
            }] }],
        }] });
        let status = read_status(&detail);
        assert!(status.established);
        assert_eq!((status.state.as_str(), status.version), ("MM_ACTIVE", Some(1)));
        let [child] = status.children.as_slice() else { panic!("{:?}", status.children) };
        assert_eq!((child.packets_in, child.bytes_out, child.udp), (Some(3), 336, Some(true)));
        assert_eq!(read_status(&serde_json::json!({})), Status::default());
    }
}
