//! `cargo xtask reboot-test`: a package is installed on a machine, a configuration is copied in, the machine is rebooted,
//! and the tunnels are up; then its power is cut, and they come up again.
//!
//! The machine is real but for its processor: a Debian with its own kernel and systemd in qemu, by software emulation,
//! since not every machine that runs tests can virtualise. The peer is the same program outside. Everything runs in
//! namespaces of its own, so that the end of the first process there is the end of all.
//!
//! ```text
//!  qemu: Debian, systemd, simplon          | a network namespace: simplon
//!  10.60.0.1, 192.0.2.10 (eth0)   ---tap---| 192.0.2.1, 192.0.2.2, 10.50.0.1
//!           tunnel1 169.254.10.1 ==========| 169.254.10.2   IKEv1
//!           tunnel2 169.254.10.5 ==========| 169.254.10.6   IKEv2
//! ```
#![expect(clippy::disallowed_methods, reason = "a machine boots in real time")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::run::{Outcome, program, run, target};

/// What is in the machine besides the essential: nothing of it is for simplon but what its package depends on.
const PACKAGES: &str = "linux-image-cloud-amd64,systemd-sysv,udev,dbus,ifupdown,iproute2,iputils-ping,adduser";
/// The processor is emulated, and the machine below may be busy.
const BOOT: Duration = Duration::from_secs(300);
const COMMAND: Duration = Duration::from_secs(120);
/// From the end of the boot until both tunnels answer.
const TUNNELS: Duration = Duration::from_secs(60);

/// What an operator types, and copies in.
const CONFIGURATION: &str = r#"
[gateway]
manage-sysctl = true
log-directory = "/var/log/simplon"

[connection.cloud-1]
version = "ikev1"
remote = "192.0.2.1"
psk = { file = "/etc/simplon/keys/cloud.psk" }
dpd = true

[connection.cloud-1.child.cloud-1]
local = "0.0.0.0/0"
remote = "0.0.0.0/0"
start = "at-once"
device = { name = "tunnel1", addresses = "169.254.10.1/30" }

[connection.cloud-2]
version = "ikev2"
remote = "192.0.2.2"
psk = { file = "/etc/simplon/keys/cloud.psk" }
dpd = true

[connection.cloud-2.child.cloud-2]
local = "0.0.0.0/0"
remote = "0.0.0.0/0"
start = "at-once"
device = { name = "tunnel2", addresses = "169.254.10.5/30" }

[vpn.cloud]
tunnels = ["cloud-1", "cloud-2"]
routes = ["10.50.0.0/16"]
"#;

/// The cloud's: it waits to be called.
const PEER: &str = r#"
[connection.site-1]
version = "ikev1"
local = "192.0.2.1"
remote = "192.0.2.10"
psk = "a key of the test"

[connection.site-1.child.site-1]
local = "0.0.0.0/0"
remote = "0.0.0.0/0"
device = { name = "site1", addresses = "169.254.10.2/30" }

[connection.site-2]
version = "ikev2"
local = "192.0.2.2"
remote = "192.0.2.10"
psk = "a key of the test"

[connection.site-2.child.site-2]
local = "0.0.0.0/0"
remote = "0.0.0.0/0"
device = { name = "site2", addresses = "169.254.10.6/30" }

[vpn.site]
tunnels = ["site-1", "site-2"]
routes = ["10.60.0.0/16"]
"#;

const INTERFACES: &str = "auto lo
iface lo inet loopback
    up ip address add 10.60.0.1/32 dev lo

auto eth0
iface eth0 inet static
    address 192.0.2.10/24
";

/// The console that the test types at.
const SHELL: &str = "[Unit]
Description=Console of the test
After=multi-user.target

[Service]
ExecStart=/bin/sh -c 'stty -echo -onlcr; echo \"== ready\"; while read -r line; do sh -c \"$line\" </dev/null 2>&1; echo \"== $?\"; done'
StandardInput=tty
StandardOutput=tty
TTYPath=/dev/ttyS1

[Install]
WantedBy=multi-user.target
";

/// Builds the machine unless it was built before, then runs the test in namespaces of its own. Needs root.
pub(crate) fn test(package: &str, suite: &str) -> Outcome {
    let package = fs::canonicalize(package).map_err(|e| format!("{package}: {e}"))?;
    let machine = machine(suite)?;
    let own = std::env::current_exe().map_err(|e| format!("this program: {e}"))?;
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]).arg(own);
    command.arg("reboot-inside").arg(package).arg(machine);
    run(command)
}

/// The folder with the disk, the kernel and the initial RAM disk of a Debian.
fn machine(suite: &str) -> Result<PathBuf, String> {
    if cfg!(not(target_arch = "x86_64")) {
        return Err("the machine is built for x86_64 only".to_owned());
    }
    let folder = target().join("reboot").join(suite);
    let marker = folder.join("built");
    let wanted = [PACKAGES, INTERFACES, SHELL].concat();
    if fs::read_to_string(&marker).is_ok_and(|built| built == wanted) {
        return Ok(folder);
    }
    let root = folder.join("root");
    let named = |e: std::io::Error| format!("{}: {e}", folder.display());
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(named)?;
    }
    fs::create_dir_all(&folder).map_err(named)?;
    let mut bootstrap = Command::new("mmdebstrap");
    bootstrap.args(["--quiet", "--variant=minbase"]).arg(format!("--include={PACKAGES}"));
    for left_out in ["man", "doc", "locale"] {
        bootstrap.arg(format!("--dpkgopt=path-exclude=/usr/share/{left_out}/*"));
    }
    bootstrap.arg(suite).arg(&root).arg("http://deb.debian.org/debian");
    run(bootstrap)?;
    for (path, text) in [
        ("etc/hostname", "site\n"),
        ("etc/hosts", "127.0.0.1 localhost site\n"),
        ("etc/fstab", "/dev/vda / ext4 defaults 0 1\n"),
        ("etc/network/interfaces", INTERFACES),
        ("etc/systemd/system/test-console.service", SHELL),
    ] {
        fs::write(root.join(path), text).map_err(|e| format!("{path}: {e}"))?;
    }
    let wants = root.join("etc/systemd/system/multi-user.target.wants");
    fs::create_dir_all(&wants).map_err(named)?;
    std::os::unix::fs::symlink("../test-console.service", wants.join("test-console.service")).map_err(named)?;
    for name in ["vmlinuz", "initrd.img"] {
        let found = fs::read_dir(root.join("boot")).map_err(named)?.flatten();
        let file = found
            .map(|entry| entry.path())
            .find(|path| path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&format!("{name}-"))));
        let file = file.ok_or(format!("{suite} has no {name}"))?;
        fs::copy(file, folder.join(name)).map_err(named)?;
    }
    disk(&root, &folder.join("disk"), "1G")?;
    fs::remove_dir_all(&root).map_err(named)?;
    fs::write(marker, wanted).map_err(named)?;
    Ok(folder)
}

/// A file system in a file.
fn disk(from: &Path, to: &Path, size: &str) -> Outcome {
    let mut make = Command::new("mke2fs");
    make.args(["-q", "-F", "-t", "ext4", "-d"]).arg(from).arg(to).arg(size);
    run(make)
}

/// The test, in namespaces of its own.
pub(crate) fn inside(package: &str, machine: &str) -> Outcome {
    // What is written here is gone with the mount namespace.
    let scratch = Path::new("/mnt");
    program("mount", &["-t", "tmpfs", "tmpfs", "/mnt"])?;
    let outcome = play(Path::new(package), Path::new(machine), scratch);
    if outcome.is_err() {
        for log in ["console", "peer.log"] {
            let text = fs::read(scratch.join(log)).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            let lines: Vec<_> = text.lines().collect();
            println!("-- the end of {log}:\n{}", lines[lines.len().saturating_sub(60)..].join("\n"));
        }
    }
    outcome
}

fn play(package: &Path, machine: &Path, scratch: &Path) -> Outcome {
    for words in [
        "link set lo up",
        "tuntap add dev tap0 mode tap",
        "address add 192.0.2.1/24 dev tap0",
        "address add 192.0.2.2/24 dev tap0",
        "address add 10.50.0.1/32 dev lo",
        "link set tap0 up",
    ] {
        program("ip", &words.split(' ').collect::<Vec<_>>())?;
    }
    let media = scratch.join("media");
    let write = |path: PathBuf, text: &str| fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()));
    fs::create_dir(&media).map_err(|e| format!("{}: {e}", media.display()))?;
    fs::copy(package, media.join("simplon.deb")).map_err(|e| format!("{}: {e}", package.display()))?;
    write(media.join("simplon.toml"), CONFIGURATION)?;
    write(media.join("cloud.psk"), "a key of the test\n")?;
    disk(&media, &scratch.join("media.img"), "64M")?;
    let mut unpack = Command::new("dpkg-deb");
    unpack.arg("-x").arg(package).arg(scratch.join("peer"));
    run(unpack)?;
    write(scratch.join("peer.toml"), PEER)?;
    let mut peer = Command::new(scratch.join("peer/usr/bin/simplon"));
    peer.arg("gateway").arg("-c").arg(scratch.join("peer.toml")).arg("--socket").arg(scratch.join("peer.sock"));
    let _peer = start(peer, &scratch.join("peer.log"))?;

    let mut site = Machine::start(machine, scratch)?;
    site.wait_for_boot("the machine boots")?;
    site.say("the package installs", "mount -o ro /dev/vdb /mnt && dpkg --install /mnt/simplon.deb")?;
    site.say("without a configuration it does not start", "! systemctl is-active simplon")?;
    site.say("the key is put where the book says", "install -o simplon -m 0600 /mnt/cloud.psk /etc/simplon/keys/")?;
    site.say("the configuration is copied in", "cp /mnt/simplon.toml /etc/simplon/simplon.toml")?;
    site.say("it is a right one", "simplon check /etc/simplon/simplon.toml")?;

    site.send("systemctl reboot")?;
    site.wait_for_boot("the machine reboots")?;
    site.expect_tunnels()?;

    site.say("everything is on the disk", "sync")?;
    site.cut_power()?;
    site.wait_for_boot("its power is cut, and it boots")?;
    site.expect_tunnels()
}

fn start(mut command: Command, log: &Path) -> Result<Child, String> {
    let named = |e: std::io::Error| format!("{}: {e}", command.get_program().display());
    let out = File::create(log).map_err(named)?;
    let err = out.try_clone().map_err(named)?;
    command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().map_err(|e| format!("{command:?}: {e}"))
}

/// The machine, and what it is typed at and told by.
struct Machine {
    console: BufReader<UnixStream>,
    monitor: UnixStream,
    since: Instant,
}

impl Machine {
    fn start(machine: &Path, scratch: &Path) -> Result<Self, String> {
        let at = |name: &str| scratch.join(name).display().to_string();
        let of = |name: &str| machine.join(name).display().to_string();
        let mut qemu = Command::new("qemu-system-x86_64");
        // Below the disk nothing is kept: a test leaves the next one what it found.
        qemu.args(["-M", "pc,accel=tcg", "-cpu", "max", "-m", "512", "-nodefaults", "-no-user-config"])
            .args(["-display", "none", "-kernel", &of("vmlinuz"), "-initrd", &of("initrd.img"), "-append"])
            .arg("root=/dev/vda rw console=ttyS0 net.ifnames=0 mitigations=off panic=-1")
            .args(["-drive", &format!("file={},format=raw,if=virtio,snapshot=on", of("disk"))])
            .args(["-drive", &format!("file={},format=raw,if=virtio,readonly=on", at("media.img"))])
            .args(["-netdev", "tap,id=n,ifname=tap0,script=no,downscript=no", "-device", "virtio-net-pci,netdev=n"])
            .args(["-device", "virtio-rng-pci"])
            .args(["-serial", &format!("file:{}", at("console"))])
            .args(["-serial", &format!("unix:{},server=on,wait=off", at("shell.sock"))])
            .args(["-monitor", &format!("unix:{},server=on,wait=off", at("monitor.sock"))]);
        start(qemu, &scratch.join("qemu.log"))?;
        let since = Instant::now();
        let connect = |name: &str| loop {
            match UnixStream::connect(scratch.join(name)) {
                Ok(stream) => return Ok(stream),
                Err(_) if since.elapsed() < Duration::from_secs(20) => std::thread::sleep(Duration::from_millis(50)),
                Err(error) => {
                    let said = fs::read_to_string(scratch.join("qemu.log")).unwrap_or_default();
                    return Err(format!("qemu does not start: {error} {said}"));
                }
            }
        };
        let (console, monitor) = (BufReader::new(connect("shell.sock")?), connect("monitor.sock")?);
        Ok(Self { console, monitor, since })
    }

    fn send(&mut self, line: &str) -> Outcome {
        writeln!(self.console.get_mut(), "{line}").map_err(|e| format!("the machine's console: {e}"))
    }

    /// Reads lines until one says that the shell is at `== something`. Returns that, and what came before.
    fn read(&mut self, limit: Duration) -> Result<(String, String), String> {
        let until = Instant::now() + limit;
        let mut said = String::new();
        let mut line = Vec::new();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("no answer within {} s, after {said:?}", limit.as_secs()));
            }
            let read = self
                .console
                .get_ref()
                .set_read_timeout(Some(left))
                .and_then(|()| self.console.read_until(b'\n', &mut line));
            match read {
                Ok(0) => return Err(format!("the machine is gone, after {said:?}")),
                Ok(_) => {}
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => continue,
                Err(e) => return Err(format!("the machine's console: {e}")),
            }
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            match text.split_once("== ") {
                Some((before, word)) if before.trim().is_empty() => return Ok((word.to_owned(), said)),
                Some(_) | None => said += &(text + "\n"),
            }
        }
    }

    fn wait_for_boot(&mut self, what: &str) -> Outcome {
        let started = Instant::now();
        loop {
            let (word, _) = self.read(BOOT.saturating_sub(started.elapsed())).map_err(|e| format!("{what}: {e}"))?;
            if word == "ready" {
                return self.held(what);
            }
        }
    }

    /// Has a command run, and wants it to end well.
    fn say(&mut self, what: &str, line: &str) -> Outcome {
        self.send(line)?;
        let (word, said) = self.read(COMMAND).map_err(|e| format!("{what}: {e}"))?;
        if word == "0" { self.held(what) } else { Err(format!("{what}: {line} ended with {word}:\n{said}")) }
    }

    fn held(&self, what: &str) -> Outcome {
        println!("{:7.1} s  ok  {what}", self.since.elapsed().as_secs_f32());
        Ok(())
    }

    /// Nothing that is not on the disk is left, and no program hears of it.
    fn cut_power(&mut self) -> Outcome {
        writeln!(self.monitor, "system_reset").map_err(|e| format!("qemu's monitor: {e}"))
    }

    /// Nobody does anything any more.
    fn expect_tunnels(&mut self) -> Outcome {
        let started = Instant::now();
        for (what, from, to) in [
            ("the first tunnel is up", "169.254.10.2", "169.254.10.1"),
            ("the second tunnel is up", "169.254.10.6", "169.254.10.5"),
            ("the networks reach each other", "10.50.0.1", "10.60.0.1"),
        ] {
            while !answers(from, to)? {
                if started.elapsed() > TUNNELS {
                    let told = self.say(what, "simplon status; journalctl -b -u simplon -n 40 --no-pager; false");
                    return told.and(Err(what.to_owned()));
                }
            }
            self.held(what)?;
        }
        self.say("the site reaches the cloud", "ping -c 2 -W 5 -I 10.60.0.1 10.50.0.1")?;
        self.say("systemd takes it for running", "systemctl is-active simplon && systemctl is-enabled simplon")?;
        self.say("the host forwards", "test $(cat /proc/sys/net/ipv4/ip_forward) = 1")?;
        self.say(
            "each connection has its log",
            "test -s /var/log/simplon/cloud-1.log -a -s /var/log/simplon/cloud-2.log",
        )?;
        self.say("no unit failed", "test -z \"$(systemctl --failed --plain --no-legend | tee /dev/stderr)\"")?;
        self.say("no error is in the log", "! journalctl -b -u simplon -p err --no-pager | grep -v '^-- '")
    }
}

/// Whether a ping comes back.
fn answers(from: &str, to: &str) -> Result<bool, String> {
    let mut ping = Command::new("ping");
    ping.args(["-q", "-c", "1", "-W", "1", "-I", from, to]).stdout(Stdio::null()).stderr(Stdio::null());
    let status = ping.status().map_err(|e| format!("ping: {e}"))?;
    if !status.success() {
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(status.success())
}
