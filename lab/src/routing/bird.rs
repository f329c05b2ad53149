//! BIRD beside a gateway, which has tunnels and no BGP of its own.

use std::path::PathBuf;
use std::time::Duration;

use crate::clock;
use crate::error::{Error, Result};
use crate::netns::{Lab, Node};
use crate::peer::{tail, write_private};
use crate::shell::Process;

/// Its BFD, 3 × 100 ms, on the interfaces of this name.
pub(super) fn bfd(interface: &str) -> String {
    format!(
        "protocol bfd {{\n  interface \"{interface}\" {{\n    min rx interval 100 ms;\n    min tx interval 100 ms;\n    \
         idle tx interval 300 ms;\n    multiplier 3;\n  }};\n}}\n"
    )
}

/// A BIRD that runs.
pub(super) struct Bird {
    name: String,
    node: Node,
    dir: PathBuf,
    _process: Process,
}

impl Bird {
    /// Starts it with this configuration and a log.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub(super) fn start(lab: &Lab, node: &Node, name: &str, configuration: &str) -> Result<Self> {
        let dir = lab.subdir(name)?;
        let [conf, control, log] =
            ["bird.conf", "ctl", "log"].map(|name| dir.join(name).to_string_lossy().into_owned());
        write_private(&dir.join("bird.conf"), &format!("log \"{log}\" all;\n{configuration}"))?;
        let mut process = node.spawn(&["bird", "-f", "-c", &conf, "-s", &control], &[], &dir.join("out"))?;
        clock::wait_for("BIRD's control socket", Duration::from_secs(10), || {
            Ok(node.output(&["birdc", "-s", &control, "show", "status"])?.ok || !process.is_running())
        })?;
        if !process.is_running() {
            let said = std::fs::read_to_string(dir.join("out")).unwrap_or_default();
            return Err(Error::Command { line: process.line().to_owned(), said: tail(&said, 5) });
        }
        Ok(Self { name: name.into(), node: node.clone(), dir, _process: process })
    }

    /// What it is called in the topology.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What it answers.
    ///
    /// # Errors
    ///
    /// When it does not understand.
    pub(super) fn ask(&self, words: &[&str]) -> Result<String> {
        let control = self.dir.join("ctl").to_string_lossy().into_owned();
        let mut all = vec!["birdc", "-s", &control];
        all.extend(words);
        self.node.run(&all)
    }

    /// The last lines of its log.
    pub(super) fn log_tail(&self, lines: usize) -> String {
        tail(&std::fs::read_to_string(self.dir.join("log")).unwrap_or_default(), lines)
    }
}
