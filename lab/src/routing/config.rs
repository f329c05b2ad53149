//! simplon's configuration of routed scenarios.

use std::fmt::Write as _;

use serde_json::Value;

use crate::spec::{Suite, Version};

/// A tunnel with a device of its own, as one end is told of it.
#[derive(Clone, Debug)]
pub(super) struct Tunnel {
    pub(super) name: String,
    pub(super) version: Version,
    pub(super) suite: Suite,
    pub(super) local: String,
    pub(super) local_id: String,
    pub(super) remote: String,
    pub(super) remote_id: String,
    pub(super) psk: String,
    /// The value of `dpd`.
    pub(super) dpd: String,
    /// Whether this end brings it up.
    pub(super) starts: bool,
    /// Our address on the device, with its prefix length.
    pub(super) inside: String,
}

impl Tunnel {
    /// Its tables.
    pub(super) fn toml(&self) -> String {
        let Self { name, local, local_id, remote, remote_id, dpd, inside, .. } = self;
        let version = self.version.number();
        let (ike, esp) = (self.suite.ike(), self.suite.esp(false));
        // JSON's strings are TOML's basic strings.
        let psk = Value::from(self.psk.as_str());
        let start = if self.starts { "at-once" } else { "wait" };
        format!(
            "[connection.{name}]\n\
             version = \"ikev{version}\"\n\
             local = {{ address = \"{local}\", id = \"{local_id}\" }}\n\
             remote = {{ address = \"{remote}\", id = \"{remote_id}\" }}\n\
             psk = {psk}\n\
             ike = \"{ike}\"\n\
             dpd = {dpd}\n\n\
             [connection.{name}.child.{name}]\n\
             local = \"0.0.0.0/0\"\n\
             remote = \"0.0.0.0/0\"\n\
             esp = \"{esp}\"\n\
             start = \"{start}\"\n\
             device = {{ name = \"{name}\", addresses = \"{inside}\" }}\n\n"
        )
    }
}

/// A table of keys with values as TOML writes them; a key without a value is left out.
pub(super) fn table(name: &str, entries: &[(&str, &str)]) -> String {
    let mut out = format!("[{name}]\n");
    for (key, value) in entries.iter().filter(|(_, value)| !value.is_empty()) {
        // Writing to a String does not fail.
        let _ = writeln!(out, "{key} = {value}");
    }
    out.push('\n');
    out
}

/// A list of texts as TOML writes it.
pub(super) fn texts(words: &[&str]) -> String {
    Value::from(words.to_vec()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simplon_reads_what_is_written_for_it() {
        let tunnel = Tunnel {
            name: "tunnel1".into(),
            version: Version::V1,
            suite: Suite::Classic,
            local: "192.168.1.10".into(),
            local_id: "203.165.211.85".into(),
            remote: "34.217.232.61".into(),
            remote_id: "34.217.232.61".into(),
            psk: "quo\"te".into(),
            dpd: "{ delay = \"2s\", timeout = \"6s\" }".into(),
            starts: true,
            inside: "169.254.123.134/30".into(),
        };
        let vpn =
            table("vpn.cloud", &[("tunnels", &texts(&["tunnel1"])), ("probe", ""), ("routes", "\"172.31.0.0/16\"")]);
        let files = dialects::MemoryFiles::new().with("simplon.toml", tunnel.toml() + &vpn);
        let config = dialects::read("simplon.toml", &files).unwrap().config;
        assert_eq!(config.connections[0].psk[0].expose(), b"quo\"te");
        assert_eq!(config.vpns[0].tunnels.len(), 1);
        assert!(config.tunnel(&config.vpns[0].tunnels[0]).is_some());
    }
}
