//! Two running gateways, each in a network namespace of its own, joined by a link. It needs root, `ip` and `ping`.
#![allow(dead_code, reason = "each test uses some of it")]

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Two namespaces with a link between them, and what runs in them.
pub(crate) struct Ground {
    pub(crate) folder: PathBuf,
    pub(crate) running: Vec<Child>,
    /// What the configurations begin with.
    pub(crate) head: &'static str,
}

/// Between them.
pub(crate) const OUTER: [&str; 2] = ["192.0.2.1", "192.0.2.2"];
/// Behind them.
pub(crate) const INNER: [&str; 2] = ["10.1.0.1", "10.2.0.1"];

impl Ground {
    /// `None`, after saying so, where the test cannot be made.
    pub(crate) fn new(name: &str) -> Option<Self> {
        let is_root = fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0);
        let has = |program: &str| Command::new(program).arg("-V").output().is_ok();
        if !is_root || !has("ip") || !has("ping") {
            let _ = writeln!(std::io::stderr(), "left out: it needs root, ip and ping");
            return None;
        }
        let folder = std::env::temp_dir().join(format!("simplon-test-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let ground = Self { folder, running: Vec::new(), head: "" };
        let [a, b] = [0, 1].map(|side| ground.namespace(side));
        ip(&["netns", "add", &a]);
        ip(&["netns", "add", &b]);
        ip(&["link", "add", "wan", "netns", &a, "type", "veth", "peer", "name", "wan", "netns", &b]);
        for (side, namespace) in [a, b].iter().enumerate() {
            let on = |words: &[&str]| ip(&[&["-n", namespace.as_str()][..], words].concat());
            on(&["link", "set", "lo", "up"]);
            on(&["addr", "add", &format!("{}/24", OUTER[side]), "dev", "wan"]);
            on(&["link", "set", "wan", "up"]);
            on(&["addr", "add", &format!("{}/32", INNER[side]), "dev", "lo"]);
        }
        Some(ground)
    }

    pub(crate) fn namespace(&self, side: usize) -> String {
        let name = self.folder.file_name().unwrap().to_str().unwrap();
        format!("{name}-{side}")
    }

    pub(crate) fn socket(&self, side: usize) -> String {
        self.folder.join(format!("{side}.sock")).to_str().unwrap().to_owned()
    }

    pub(crate) fn configuration(&self, side: usize) -> String {
        self.folder.join(format!("{side}.toml")).to_str().unwrap().to_owned()
    }

    pub(crate) fn configure(&self, side: usize, version: &str, has_device: bool, extra: &str) {
        let (other, start) = (1 - side, ["at-once", "wait"][side]);
        let device = if has_device {
            format!(
                "device = {{ name = \"t0\", addresses = [\"169.254.10.{}/30\"], routes = [\"{}/32\"] }}\n",
                side + 1,
                INNER[other]
            )
        } else {
            String::new()
        };
        let text = format!(
            "{}[connection.site]\nversion = \"{version}\"\nlocal = \"{}\"\nremote = \"{}\"\npsk = \"between us two\"\n{extra}\n\
             [connection.site.child.net]\nlocal = \"{}/32\"\nremote = \"{}/32\"\nstart = \"{start}\"\n{device}",
            self.head, OUTER[side], OUTER[other], INNER[side], INNER[other]
        );
        fs::write(self.configuration(side), text).unwrap();
    }

    pub(crate) fn within(&self, side: usize, words: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(side)]).args(words);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn gateway(&self, side: usize, more: &[&str]) -> Command {
        let (configuration, socket) = (self.configuration(side), self.socket(side));
        let words = [env!("CARGO_BIN_EXE_simplon"), "gateway", "-c", &configuration, "--socket", &socket];
        self.within(side, &[&words[..], more].concat())
    }

    /// Starts a gateway whose log nobody reads; its place among what runs.
    pub(crate) fn start(&mut self, side: usize, more: &[&str]) -> usize {
        let child = self.gateway(side, more).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        self.running.push(child);
        self.running.len() - 1
    }

    pub(crate) fn status(&self, side: usize) -> serde_json::Value {
        let words = ["status", "--json", "--socket", &self.socket(side)];
        let output = Command::new(env!("CARGO_BIN_EXE_simplon")).args(words).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    pub(crate) fn wait_until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let end = Instant::now() + Duration::from_secs(20);
        while !is_so(self) {
            assert!(Instant::now() < end, "{what}: {:#}", self.status(0));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn come_up(&mut self) -> usize {
        self.start(1, &[]);
        self.wait_until("the responder runs", |ground| ground.status(1).is_object());
        let first = self.start(0, &[]);
        self.wait_until("the tunnel is up", |ground| ground.status(0)["connections"][0]["state"] == "up");
        first
    }

    pub(crate) fn ping(&self, seconds: u32) -> Child {
        let words = ["ping", "-q", "-i", "0.002", "-c", &(seconds * 400).to_string(), "-w", "30"];
        self.within(0, &[&words[..], &["-I", INNER[0], INNER[1]]].concat()).spawn().unwrap()
    }

    pub(crate) fn spis(&self) -> Vec<String> {
        let status = self.status(0);
        let sas = status["connections"][0]["ike_sas"].as_array().cloned().unwrap_or_default();
        sas.iter().map(|sa| format!("{} {}", sa["initiator_spi"], sa["responder_spi"])).collect()
    }

    pub(crate) fn has_ended(&mut self, place: usize) -> bool {
        self.running[place].try_wait().unwrap().is_some()
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        for child in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
        for side in [0, 1] {
            let _ = Command::new("ip").args(["netns", "del", &self.namespace(side)]).output();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

pub(crate) fn ip(words: &[&str]) {
    let Output { status, stderr, .. } = Command::new("ip").args(words).output().unwrap();
    assert!(status.success(), "ip {words:?}: {}", String::from_utf8_lossy(&stderr));
}

/// Waits for the end of a ping, which must have had every answer.
pub(crate) fn lost_nothing(ping: Child, what: &str) {
    let output = ping.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains(" 0% packet loss"), "{what}: {text}");
}
