//! A User-Mode Linux guest: a real kernel with ESP as an ordinary process, two seconds to boot.
//!
//! Its root is this machine's own, read-only, under an overlay in its memory. Its interfaces are
//! bridged to those of its place. Commands go in through its console, a FIFO; their output comes
//! back as the console's.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::stat::Mode;

use crate::clock;
use crate::error::{Error, Result};
use crate::netns::Lab;
use crate::peer::cache::Cache;
use crate::peer::{Interface, Place, tail, write_private};
use crate::shell::{Output, Process};

/// Reads commands, one a line, and says each one's exit status.
const CONTROL: &str =
    "stty -echo 2>/dev/null\nwhile read -r line; do sh -c \"$line\" </dev/null; echo \"RC=$?\"; done\n";

/// The first process of the guest. It makes the guest's root from this machine's.
const INIT: &str = r##"export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C
mount() { $B mount "$@"; }
mount -t proc proc /proc
for word in $($B cat /proc/cmdline); do
  case $word in simplon_*=*) eval "$word" ;; esac
done
mount -t tmpfs -o mode=755 tmpfs /mnt
$B mkdir /mnt/upper /mnt/work /mnt/root
$B insmod "$simplon_modules/kernel/fs/overlayfs/overlay.ko"
layers=/
n=0
for dir in $(echo "$simplon_layers" | $B tr : ' '); do
  n=$((n + 1))
  $B mkdir /mnt/layer$n
  mount -t hostfs -o "$dir" none /mnt/layer$n
  layers=/mnt/layer$n:$layers
done
mount -t overlay -o nosuid,lowerdir=$layers,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/root
cd /mnt/root
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t devtmpfs dev dev
$B mkdir -p dev/pts host
mount -t devpts devpts dev/pts
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
mount -t hostfs -o "$simplon_dir" none host
echo 1 >/proc/sys/kernel/printk
exec $B chroot . /bin/sh -c '
  ip link set lo up
  . /host/init.sh >/host/init.log 2>&1
  echo GUEST-READY
  exec /bin/sh /host/control.sh </dev/console >/dev/console 2>&1'
"##;

/// A running guest.
pub struct Guest {
    name: String,
    dir: PathBuf,
    commands: File,
    process: Process,
}

impl Guest {
    /// Boots a guest in `place`. `script` runs in it first, with the interfaces configured and the
    /// directory `dir` of this machine at `/host`; `layers` lie over its root.
    ///
    /// # Errors
    ///
    /// When it does not boot.
    pub fn boot(lab: &Lab, place: &Place, dir: &Path, layers: &[PathBuf], script: &str) -> Result<Self> {
        let cache = Cache::prepare(lab.shell())?;
        let shown = |path: &Path| path.to_string_lossy().into_owned();
        let busybox = cache.base().join("usr/bin/busybox");
        let init = dir.join("init");
        write_private(&init, &format!("#!{} sh\nB={}\n{INIT}", busybox.display(), busybox.display()))?;
        fs::set_permissions(&init, fs::Permissions::from_mode(0o700)).map_err(|e| Error::io("chmod", e))?;
        write_private(&dir.join("control.sh"), CONTROL)?;
        write_private(&dir.join("init.sh"), &(network(place) + script))?;
        let fifo = dir.join("in");
        nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).map_err(|e| Error::io("making a FIFO", e))?;
        // Opened for both: opening does not block, and the guest never reads an end of file.
        let open = || OpenOptions::new().read(true).write(true).open(&fifo).map_err(|e| Error::io("opening a FIFO", e));
        let mut words = vec![
            shown(&cache.kernel()),
            "mem=192M".into(),
            format!("umid={}{}", lab.id(), place.name),
            format!("uml_dir={}", shown(&dir.join("uml"))),
            "root=/dev/root".into(),
            "rootfstype=hostfs".into(),
            "rootflags=/".into(),
            "ro".into(),
            format!("init={}", shown(&init)),
            format!("simplon_modules={}", shown(&cache.modules()?)),
            format!("simplon_dir={}", shown(dir)),
            format!(
                "simplon_layers={}",
                layers.iter().map(|l| shown(l)).chain([shown(&cache.base())]).collect::<Vec<_>>().join(":")
            ),
            "con=null".into(),
            "con0=fd:0,fd:1".into(),
            "con1=null".into(),
            "ssl=null".into(),
            "quiet".into(),
        ];
        words.extend(plug_in(place)?);
        let process = place.node.spawn_reading(&words, &[], &dir.join("console"), Stdio::from(open()?))?;
        let mut guest = Self { name: place.name.clone(), dir: dir.to_owned(), commands: open()?, process };
        guest.wait_until_booted()?;
        Ok(guest)
    }

    fn wait_until_booted(&mut self) -> Result<()> {
        let what = format!("the boot of the guest {}", self.name);
        let booted = clock::wait_for(&what, Duration::from_secs(20), || {
            Ok(self.console().contains("GUEST-READY") || !self.process.is_running())
        });
        if booted.is_ok() && self.process.is_running() {
            return Ok(());
        }
        let hint = tail(&(self.console() + &self.read("init.log")), 12);
        Err(Error::Late { what, seconds: 20, hint })
    }

    fn read(&self, name: &str) -> String {
        let bytes = fs::read(self.dir.join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\r', "")
    }

    fn console(&self) -> String {
        self.read("console")
    }

    /// A file that something in the guest wrote to `/host`.
    pub fn file(&self, name: &str) -> String {
        self.read(name)
    }

    /// Runs a command line in the guest.
    ///
    /// # Errors
    ///
    /// When the guest does not answer within `limit`.
    pub fn run(&mut self, line: &str, limit: Duration) -> Result<Output> {
        let before = self.console().len();
        writeln!(self.commands, "{line}").map_err(|e| Error::io("writing to the guest's console", e))?;
        let mut answer = None;
        let what = format!("`{line}` in the guest {}", self.name);
        clock::wait_for(&what, limit, || {
            answer = self.console().get(before..).and_then(read_answer);
            Ok(answer.is_some() || !self.process.is_running())
        })?;
        let (ok, stdout) = answer.ok_or_else(|| Error::Command { line: what, said: "the guest has ended".into() })?;
        Ok(Output { ok, stdout, stderr: String::new() })
    }

    /// [`Guest::run`], where anything but exit status 0 is an error.
    ///
    /// # Errors
    ///
    /// As [`Guest::run`], and when the command fails.
    pub fn must(&mut self, line: &str) -> Result<String> {
        let output = self.run(line, Duration::from_secs(20))?;
        if output.ok { Ok(output.stdout) } else { Err(Error::Command { line: line.into(), said: output.stdout }) }
    }
}

/// What a command wrote, and whether its status was 0; `None` while it runs.
fn read_answer(console: &str) -> Option<(bool, String)> {
    let at = console.find("RC=").filter(|at| *at == 0 || console.as_bytes()[at - 1] == b'\n')?;
    let (code, _) = console[at + 3..].split_once('\n')?;
    Some((code.trim() == "0", console[..at].to_owned()))
}

/// Bridges each interface of the place to a TAP interface, and names these to the guest's kernel.
fn plug_in(place: &Place) -> Result<Vec<String>> {
    let mut words = Vec::new();
    for (n, interface) in place.interfaces.iter().enumerate() {
        let (tap, bridge) = (format!("tap{n}"), format!("br{n}"));
        place.node.ip(&["link", "add", &bridge, "type", "bridge"])?;
        // A mere wire: nothing of its own on it.
        place.node.ip(&["link", "set", "dev", &bridge, "addrgenmode", "none", "up"])?;
        place.node.tap(&tap)?;
        for dev in [&tap, &interface.name] {
            place.node.plug(dev, &bridge)?;
        }
        words.push(format!("vec{n}:transport=tap,ifname={tap},depth=128,gro=1"));
    }
    Ok(words)
}

/// Names and addresses in the guest as they are in its place.
fn network(place: &Place) -> String {
    let mut script = String::new();
    for (n, Interface { name, address }) in place.interfaces.iter().enumerate() {
        script.push_str(&format!(
            "ip link set vec{n} name {name} && ip addr add {address} dev {name} && ip link set {name} up\n"
        ));
    }
    script.push_str(&format!("ip route add default via {}\n", place.router));
    script.push_str(
        "sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.default.send_redirects=0 \
         net.ipv4.conf.all.rp_filter=0\n\
         for dev in /proc/sys/net/ipv4/conf/*; do echo 0 >$dev/send_redirects; echo 0 >$dev/rp_filter; done\n\
         modprobe -a esp4 xfrm_user af_key authenc authencesn echainiv gcm seqiv cbc hmac sha1_generic sha256_generic \
         2>/dev/null\n",
    );
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_with_its_status() {
        assert_eq!(read_answer("one\ntwo\nRC=0\n"), Some((true, "one\ntwo\n".into())));
        assert_eq!(read_answer("RC=3\n"), Some((false, String::new())));
        assert_eq!(read_answer("one\ntwo\n"), None);
        assert_eq!(read_answer("one\nRC=1"), None);
    }
}
