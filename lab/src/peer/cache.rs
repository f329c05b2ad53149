//! What a guest needs and no package installation brings: the User-Mode Linux kernel with its
//! modules, and Libreswan, which cannot be installed beside strongSwan. Fetched with `apt-get
//! download` and unpacked into a directory that all labs share.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::rootless::Outside;
use crate::shell::{Shell, installed};

/// The kernel.
const UML: &[&str] = &["user-mode-linux"];
/// What every guest has over the root of this machine.
const BASE: &[&str] = &[
    "busybox-static",
    "kmod",
    "libkmod2",
    "iptables",
    "libip4tc2",
    "libip6tc2",
    "libxtables12",
    "libnetfilter-conntrack3",
    "libnfnetlink0",
];
/// What a Libreswan guest has besides.
const LIBRESWAN: &[&str] = &[
    "libreswan",
    "libevent-core-2.1-7",
    "libevent-pthreads-2.1-7",
    "libldns3",
    "libunbound8",
    "libnss3",
    "libnspr4",
    "libnss3-tools",
    "libldap-2.5-0",
    "libcurl3-nss",
];

/// Why guests cannot be had on this machine.
pub fn missing() -> Option<String> {
    if Cache::open().is_some() {
        return None;
    }
    if std::env::consts::ARCH != "x86_64" {
        return Some("a machine with x86_64: User-Mode Linux is packaged for nothing else".into());
    }
    let found = installed("apt-get") && installed("dpkg-deb");
    (!found).then(|| "Debian 12: the guest is unpacked from its packages".into())
}

/// The unpacked packages.
#[derive(Clone, Debug)]
pub struct Cache {
    dir: PathBuf,
}

impl Cache {
    /// The cache, if it is complete.
    pub fn open() -> Option<Self> {
        let dir = directory();
        dir.join("complete").is_file().then_some(Self { dir })
    }

    /// The cache; downloads and unpacks what is in it when it is not there (46 MB, a few seconds).
    ///
    /// # Errors
    ///
    /// When the packages cannot be had.
    pub fn prepare(shell: &Shell) -> Result<Self> {
        if let Some(cache) = Self::open() {
            return Ok(cache);
        }
        let dir = directory();
        shell.say(&format!("Fetching the guest's kernel and Libreswan into {}", dir.display()));
        // Filled beside its place and moved there whole: two labs may do this at once.
        let work = dir.with_extension(format!("new-{}", std::process::id()));
        let made = fill(shell, &work).and_then(|()| match fs::rename(&work, &dir) {
            Err(_) if Self::open().is_some() => Ok(()),
            other => other.map_err(|e| Error::io(format!("moving {} to {}", work.display(), dir.display()), e)),
        });
        let _ = fs::remove_dir_all(&work);
        made?;
        Ok(Self { dir })
    }

    /// The kernel, an ordinary program.
    pub(crate) fn kernel(&self) -> PathBuf {
        self.dir.join("uml/usr/bin/linux.uml")
    }

    /// The files that every guest has over the root of this machine.
    pub(crate) fn base(&self) -> PathBuf {
        self.dir.join("base")
    }

    /// Libreswan's files.
    pub(crate) fn libreswan(&self) -> PathBuf {
        self.dir.join("libreswan")
    }

    /// Where the kernel's modules are.
    ///
    /// # Errors
    ///
    /// When the package had none.
    pub(crate) fn modules(&self) -> Result<PathBuf> {
        let modules = self.base().join("usr/lib/modules");
        let first = fs::read_dir(&modules).ok().and_then(|mut entries| entries.next()).and_then(|entry| entry.ok());
        first.map(|entry| entry.path()).ok_or_else(|| Error::Asked(format!("no modules in {}", modules.display())))
    }
}

fn directory() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let cache = match std::env::var_os("XDG_CACHE_HOME") {
        Some(dir) => PathBuf::from(dir),
        // In a namespace of its own, an ordinary user is root too: HOME tells them apart.
        None if nix::unistd::getuid().is_root() && Outside::of_this_process().is_none() => "/var/cache".into(),
        None => home().unwrap_or_else(std::env::temp_dir),
    };
    cache.join("simplon").join("guest-1")
}

fn fill(shell: &Shell, work: &Path) -> Result<()> {
    let debs = work.join("debs");
    fs::create_dir_all(&debs).map_err(|e| Error::io(format!("creating {}", debs.display()), e))?;
    let at = |sub: &str| work.join(sub).to_string_lossy().into_owned();
    let mut words =
        vec!["sh", "-c", "cd \"$1\" && shift && exec apt-get -qq -o APT::Sandbox::User=root download \"$@\"", "sh"];
    let debs_dir = at("debs");
    words.push(&debs_dir);
    words.extend(UML.iter().chain(BASE).chain(LIBRESWAN));
    if shell.run(&words).is_err() {
        // The lists of packages may be old.
        let _ = shell.output(&["apt-get", "-qq", "update"])?;
        shell.run(&words)?;
    }
    for (packages, target) in [(UML, "uml"), (BASE, "base"), (LIBRESWAN, "libreswan")] {
        for package in packages {
            unpack(shell, &debs, package, &at(target))?;
        }
    }
    shell.run(&["mkdir", "-p", &at("base/usr/lib")])?;
    shell.run(&["mv", &at("uml/usr/lib/uml/modules"), &at("base/usr/lib/modules")])?;
    // The guest's kernel has the old tables only.
    shell.run(&["ln", "-sf", "iptables-legacy", &at("base/usr/sbin/iptables")])?;
    shell.run(&["chmod", "-R", "a+rX,u+w", &work.to_string_lossy()])?;
    shell.run(&["rm", "-rf", &debs_dir])?;
    fs::write(work.join("complete"), "").map_err(|e| Error::io("completing the guest's files", e))
}

fn unpack(shell: &Shell, debs: &Path, package: &str, target: &str) -> Result<()> {
    let prefix = format!("{package}_");
    let entries = fs::read_dir(debs).map_err(|e| Error::io(format!("reading {}", debs.display()), e))?;
    let deb = entries.flatten().find(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
    let deb = deb.ok_or_else(|| Error::Asked(format!("apt-get did not download {package}")))?.path();
    // `--no-same-owner`: an ordinary user cannot give files away. Old packages still have files in
    // /sbin; over a merged root they belong below /usr.
    let script = "mkdir -p \"$2\" && dpkg-deb --fsys-tarfile \"$1\" | tar -C \"$2\" --no-same-owner \
                  --exclude='./usr/share/doc*' --exclude='./usr/share/man*' --exclude='./etc/init.d*' -xf - && \
                  for d in lib sbin bin; do [ ! -d \"$2/$d\" ] || \
                  { mkdir -p \"$2/usr/$d\" && cp -a \"$2/$d/.\" \"$2/usr/$d/\" && rm -rf \"${2:?}/$d\"; } || exit 1; done";
    shell.run(&["sh", "-c", script, "sh", &deb.to_string_lossy(), target]).map(drop)
}
