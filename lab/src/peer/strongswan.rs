//! strongSwan 5.9 with its user-space ESP (`kernel-libipsec`): `charon-systemd` and `swanctl`.
//!
//! What it cannot do: plain ESP (it makes NAT detection see a NAT), ESN, and starting on the first
//! packet (libipsec has no acquire).

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock;
use crate::error::{Error, Result};
use crate::netns::{Lab, Node};
use crate::peer::{ChildStatus, Peer, PeerKind, Place, Status, tail, write_private};
use crate::shell::{Process, Shell, installed};
use crate::spec::{ConnectionSpec, Encapsulation, Start, Version};

/// What charon loads wherever it runs; enough for every proposal of the lab.
pub(crate) const PLUGINS: &str = "random nonce aes sha1 sha2 md5 hmac kdf gmp curve25519 openssl gcm ccm chapoly";

const PACKAGES: &str =
    "apt-get install charon-systemd strongswan-swanctl libcharon-extra-plugins libstrongswan-extra-plugins";

/// The daemon in a namespace.
pub struct StrongSwan {
    node: Node,
    dir: PathBuf,
    spec: ConnectionSpec,
    daemon: Option<Process>,
}

/// What has to be installed to run it.
pub fn missing() -> Option<String> {
    let plugin = |name: &str| Path::new("/usr/lib/ipsec/plugins").join(format!("libstrongswan-{name}.so")).is_file();
    let found = installed("charon-systemd") && installed("swanctl") && plugin("kernel-libipsec");
    (!found).then(|| PACKAGES.to_owned())
}

impl StrongSwan {
    /// Writes its configuration.
    ///
    /// # Errors
    ///
    /// When that fails.
    pub fn new(lab: &Lab, place: &Place, spec: ConnectionSpec) -> Result<Self> {
        let node = place.node.clone();
        let dir = lab.subdir(&place.name)?;
        let conf = strongswan_conf(&dir.to_string_lossy(), &dir.to_string_lossy(), Data::UserSpace);
        write_private(&dir.join("strongswan.conf"), &conf)?;
        write_configuration(&dir, &spec)?;
        Ok(Self { node, dir, spec, daemon: None })
    }

    fn swanctl(&self, words: &[&str]) -> Result<String> {
        swanctl(self.node.shell(), &self.dir, words)
    }
}

impl Peer for StrongSwan {
    fn kind(&self) -> PeerKind {
        PeerKind::Strongswan
    }

    fn start(&mut self) -> Result<()> {
        let conf = self.dir.join("strongswan.conf");
        let env: [(&str, &OsStr); 1] = [("STRONGSWAN_CONF", conf.as_os_str())];
        let mut daemon = self.node.spawn(&["/usr/sbin/charon-systemd"], &env, &self.dir.join("stderr"))?;
        let socket = self.dir.join("vici");
        let started = clock::wait_for("strongSwan's control socket", Duration::from_secs(10), || {
            Ok(socket.exists() || !daemon.is_running())
        });
        if started.is_err() || !daemon.is_running() {
            return Err(Error::Command { line: daemon.line().into(), said: self.log_tail(20) });
        }
        self.daemon = Some(daemon);
        self.swanctl(&["--load-all"]).map(drop)
    }

    fn initiate(&mut self) -> Result<()> {
        self.swanctl(&["--initiate", "--child", &self.spec.name, "--timeout", "10"]).map(drop)
    }

    fn starts_on_traffic(&self) -> bool {
        false
    }

    fn status(&mut self) -> Result<Status> {
        Ok(read_status(&self.swanctl(&["--list-sas", "--raw"])?))
    }

    fn configuration(&self) -> String {
        swanctl_conf(&self.spec)
    }

    fn log_tail(&mut self, lines: usize) -> String {
        let read = |name: &str| fs::read_to_string(self.dir.join(name)).unwrap_or_default();
        tail(&(read("stderr") + &read("charon.log")), lines)
    }

    fn crash(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill();
            let _ = fs::remove_file(self.dir.join("vici"));
        }
    }

    fn stop(&mut self) {
        self.daemon = None;
    }
}

/// What charon hands ESP to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    UserSpace,
    Kernel,
}

/// charon's own settings: its socket and pid are in `run`, its log is in `logs`.
pub(crate) fn strongswan_conf(run: &str, logs: &str, data: Data) -> String {
    let (plugins, options) = match data {
        // The mark keeps charon's own packets out of its own tunnel.
        Data::UserSpace => (
            "kernel-libipsec kernel-netlink socket-default vici updown",
            "    kernel-netlink { fwmark = !0x42 }\n    socket-default { fwmark = 0x42 }\n    \
             kernel-libipsec { allow_peer_ts = yes }\n",
        ),
        Data::Kernel => ("kernel-netlink socket-default vici updown", ""),
    };
    format!(
        "charon-systemd {{\n  journal {{ default = -1 }}\n}}\n\
         charon {{\n  load = {PLUGINS} {plugins}\n  piddir = {run}\n  journal {{ default = -1 }}\n  \
         retransmit_tries = 4\n  retransmit_timeout = 1.0\n  retransmit_base = 1.5\n  \
         filelog {{\n    f {{\n      path = {logs}/charon.log\n      time_format = %H:%M:%S\n      \
         time_add_ms = yes\n      flush_line = yes\n      default = 1\n    }}\n  }}\n  \
         plugins {{\n    vici {{ socket = unix://{run}/vici }}\n{options}  }}\n}}\n"
    )
}

/// Writes what `swanctl` reads.
pub(crate) fn write_configuration(dir: &Path, spec: &ConnectionSpec) -> Result<()> {
    make_swanctl_directory(dir, &swanctl_conf(spec))
}

/// Makes the directory that `swanctl` reads, with `conf` in it.
pub(crate) fn make_swanctl_directory(dir: &Path, conf: &str) -> Result<()> {
    // swanctl complains about each directory of keys and certificates that is not there.
    for name in ["x509", "x509ca", "x509ocsp", "x509aa", "x509ac", "x509crl", "pubkey"] {
        let path = dir.join("swanctl").join(name);
        fs::create_dir_all(&path).map_err(|e| Error::io(format!("creating {}", path.display()), e))?;
    }
    for name in ["private", "rsa", "ecdsa", "pkcs8", "pkcs12", "bliss"] {
        let path = dir.join("swanctl").join(name);
        fs::create_dir_all(&path).map_err(|e| Error::io(format!("creating {}", path.display()), e))?;
    }
    write_private(&dir.join("swanctl.empty"), "swanctl { load = }\n")?;
    write_private(&dir.join("swanctl/swanctl.conf"), conf)
}

/// `swanctl` towards the daemon whose directory this is.
pub(crate) fn swanctl(shell: &Shell, dir: &Path, words: &[&str]) -> Result<String> {
    let conf = format!("STRONGSWAN_CONF={}", dir.join("swanctl.empty").display());
    let swanctl_dir = format!("SWANCTL_DIR={}", dir.join("swanctl").display());
    let uri = format!("unix://{}", dir.join("vici").display());
    let mut all = vec!["env", &conf, &swanctl_dir, "swanctl"];
    all.extend(words);
    all.extend(["--uri", &uri]);
    shell.run(&all)
}

/// The connection as `swanctl.conf` writes it. Without MOBIKE a moved NAT mapping is followed as RFC 7296 §2.23 says;
/// with it, only when the peer says so (RFC 4555).
pub(crate) fn swanctl_conf(spec: &ConnectionSpec) -> String {
    let mut out = String::new();
    let rekey = match spec.version {
        // IKEv1 cannot rekey an IKE SA: it authenticates anew.
        Version::V1 => "reauth_time",
        Version::V2 => "rekey_time",
    };
    let encap = match spec.encapsulation {
        Encapsulation::Auto => "",
        Encapsulation::Plain => "    encap = no\n",
        Encapsulation::Udp => "    encap = yes\n",
    };
    let start = match spec.start {
        Start::Wait => "none",
        Start::AtOnce => "start",
        Start::OnTraffic => "trap",
    };
    // Writing to a String does not fail.
    let _ = write!(
        out,
        "connections {{\n  {name} {{\n    version = {version}\n    local_addrs = {local}\n    \
         remote_addrs = {remote}\n    proposals = {ike}\n{encap}    {rekey} = {ike_rekey}s\n    \
         over_time = {ike_over}s\n    rand_time = 0s\n    keyingtries = 0\n    unique = replace\n    \
         mobike = no\n",
        name = spec.name,
        version = spec.version.number(),
        local = spec.local.address,
        remote = spec.remote.address,
        ike = spec.ike,
        ike_rekey = spec.ike_lifetime.rekey().as_secs(),
        ike_over = spec.ike_lifetime.margin.as_secs(),
    );
    if let Some(dpd) = spec.dpd {
        let _ = writeln!(out, "    dpd_delay = {}s", dpd.delay.as_secs());
        if spec.version == Version::V1 {
            let _ = writeln!(out, "    dpd_timeout = {}s", dpd.timeout.as_secs());
        }
    }
    let _ = write!(
        out,
        "    local {{\n      auth = psk\n      id = {}\n    }}\n    remote {{\n      auth = psk\n      \
         id = {}\n    }}\n    children {{\n      {} {{\n        local_ts = {}\n        remote_ts = {}\n        \
         esp_proposals = {}\n        rekey_time = {}s\n        life_time = {}s\n        rand_time = 0s\n        \
         start_action = {start}\n        dpd_action = restart\n      }}\n    }}\n  }}\n}}\n\
         secrets {{\n  ike-lab {{\n    secret = \"{}\"\n  }}\n}}\n",
        spec.local.id,
        spec.remote.id,
        spec.name,
        spec.local.network,
        spec.remote.network,
        spec.esp,
        spec.child_lifetime.rekey().as_secs(),
        spec.child_lifetime.time.as_secs(),
        spec.psk.replace('\\', r"\\").replace('"', r#"\""#),
    );
    out
}

/// Reads what `swanctl --list-sas --raw` prints: sections of `key=value` in braces.
pub(crate) fn read_status(raw: &str) -> Status {
    let mut status = Status::default();
    for line in raw.lines().filter(|line| line.starts_with("list-sa event")) {
        let root = Section::read(line);
        for ike in root.sections().flat_map(|event| event.sections()) {
            if ike.value("state") == Some("ESTABLISHED") || status.state.is_empty() {
                status.state = ike.value("state").unwrap_or_default().to_owned();
                status.version = ike.value("version").and_then(|v| v.parse().ok());
                status.ike = algorithms(ike, true);
            }
            status.established |= ike.value("state") == Some("ESTABLISHED");
            status.ike_sas += 1;
            let children = ike.sections().flat_map(Section::sections);
            // While rekeying, the old one stays to receive: the peer may still send on it.
            let live =
                children.filter(|child| matches!(child.value("state"), Some("INSTALLED" | "REKEYED" | "REKEYING")));
            status.children.extend(live.map(read_child));
        }
    }
    status
}

fn read_child(child: &Section) -> ChildStatus {
    let text = |key| child.value(key).unwrap_or_default().to_owned();
    let number = |key: &str| child.value(key).and_then(|v| v.parse().ok());
    ChildStatus {
        spi_in: text("spi-in"),
        spi_out: text("spi-out"),
        esp: algorithms(child, false),
        udp: Some(child.value("encap") == Some("yes")),
        esn: Some(child.value("esn") == Some("1")),
        packets_in: number("packets-in"),
        packets_out: number("packets-out"),
        bytes_in: number("bytes-in").unwrap_or(0),
        bytes_out: number("bytes-out").unwrap_or(0),
    }
}

fn algorithms(section: &Section, with_prf: bool) -> String {
    let mut words = Vec::new();
    if let Some(encryption) = section.value("encr-alg") {
        let size = section.value("encr-keysize").map(|bits| format!("-{bits}")).unwrap_or_default();
        words.push(format!("{encryption}{size}"));
    }
    words.extend(section.value("integ-alg").map(str::to_owned));
    if with_prf {
        words.extend(section.value("prf-alg").map(str::to_owned));
    }
    words.extend(section.value("dh-group").map(str::to_owned));
    words.join("/")
}

#[derive(Debug, Default)]
struct Section {
    values: Vec<(String, String)>,
    inner: Vec<Section>,
}

impl Section {
    fn read(text: &str) -> Self {
        let mut stack = vec![Self::default()];
        let mut word = String::new();
        let mut in_list = false;
        for c in text.chars() {
            match c {
                '[' => in_list = true,
                ']' => in_list = false,
                '{' => {
                    word.clear();
                    stack.push(Self::default());
                }
                '}' => {
                    let mut done = stack.pop().unwrap_or_default();
                    done.take(&mut word);
                    match stack.last_mut() {
                        Some(outer) => outer.inner.push(done),
                        None => return done,
                    }
                }
                ' ' if !in_list => {
                    if let Some(section) = stack.last_mut() {
                        section.take(&mut word);
                    }
                }
                c => word.push(c),
            }
        }
        stack.into_iter().next().unwrap_or_default()
    }

    fn take(&mut self, word: &mut String) {
        if let Some((key, value)) = std::mem::take(word).split_once('=') {
            self.values.push((key.to_owned(), value.to_owned()));
        }
    }

    fn value(&self, key: &str) -> Option<&str> {
        self.values.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    fn sections(&self) -> impl Iterator<Item = &Self> {
        self.inner.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tests_support::spec;

    const RAW: &str = "list-sa event {t {uniqueid=1 version=1 state=ESTABLISHED local-host=198.51.100.2 \
        local-port=4500 local-id=198.51.100.2 remote-host=203.0.113.2 initiator=yes encr-alg=AES_CBC \
        encr-keysize=128 integ-alg=HMAC_SHA1_96 prf-alg=PRF_HMAC_SHA1 dh-group=MODP_1024 established=0 \
        tasks-passive=[QUICK_MODE CONFIG] child-sas {c-1 {name=c uniqueid=1 reqid=1 state=INSTALLED mode=TUNNEL \
        protocol=ESP encap=yes spi-in=0d5e931d spi-out=5a42c2e4 encr-alg=AES_CBC encr-keysize=128 \
        integ-alg=HMAC_SHA1_96 dh-group=MODP_1024 bytes-in=252 packets-in=3 bytes-out=336 packets-out=4 \
        local-ts=[10.60.0.0/16] remote-ts=[10.50.0.0/16]} c-2 {name=c state=CREATED spi-in=01}}}}\nlist-sas reply {}\n";

    #[test]
    fn the_raw_list_of_sas_is_read() {
        let status = read_status(RAW);
        assert!(status.established);
        assert_eq!((status.ike_sas, status.version), (1, Some(1)));
        assert_eq!(status.ike, "AES_CBC-128/HMAC_SHA1_96/PRF_HMAC_SHA1/MODP_1024");
        assert_eq!(status.children.len(), 1);
        let child = &status.children[0];
        assert_eq!((child.spi_in.as_str(), child.spi_out.as_str()), ("0d5e931d", "5a42c2e4"));
        assert_eq!((child.packets_in, child.packets_out, child.udp), (Some(3), Some(4), Some(true)));
    }

    #[test]
    fn a_half_open_sa_is_not_established() {
        let status = read_status("list-sa event {t {uniqueid=1 version=2 state=CONNECTING child-sas {}}}");
        assert!(!status.established);
        assert_eq!(status.state, "CONNECTING");
        assert_eq!(read_status("list-sas reply {}"), Status::default());
    }

    #[test]
    fn nonsense_is_no_status_and_no_panic() {
        for raw in ["list-sa event }}}{{{", "list-sa event {a=b", "list-sa event ]["] {
            let _ = read_status(raw);
        }
    }

    #[test]
    fn the_configuration_says_what_the_connection_says() {
        let conf = swanctl_conf(&spec());
        for line in [
            "version = 1",
            "local_addrs = 10.60.0.100",
            "id = 3.37.222.142",
            "proposals = aes128-sha1-modp1024",
            "start_action = start",
            "reauth_time = 28260s",
            "rekey_time = 3060s",
            "dpd_timeout = 30s",
            "secret = \"cloudneta\"",
        ] {
            assert!(conf.contains(line), "{line} is not in\n{conf}");
        }
        let v2 = swanctl_conf(&ConnectionSpec { version: Version::V2, encapsulation: Encapsulation::Plain, ..spec() });
        assert!(v2.contains("rekey_time = 28260s") && v2.contains("encap = no") && !v2.contains("dpd_timeout"), "{v2}");
    }

    #[test]
    fn only_the_user_space_daemon_marks_its_packets() {
        assert!(strongswan_conf("/r", "/l", Data::UserSpace).contains("fwmark"));
        let kernel = strongswan_conf("/r", "/l", Data::Kernel);
        assert!(!kernel.contains("fwmark") && !kernel.contains("libipsec"), "{kernel}");
    }
}
