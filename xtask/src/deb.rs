//! `cargo xtask deb`: a Debian package from the program and `packaging/`.
//!
//! The tree is ours and `dpkg-deb` packs it: what is in the package is what stands here. Dependencies are read from the
//! program, and a program that needs a newer C library than Ubuntu 22.04 has is refused.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::{Outcome, cargo, program, root, run, simplon, target};

/// The C library of the oldest system that the package installs on, Ubuntu 22.04.
const OLDEST_LIBC: (u32, u32) = (2, 35);

/// What the program may be linked to, and the package that has it.
const LIBRARIES: &[(&str, &str)] = &[
    ("libc.so.6", "libc6"),
    ("libm.so.6", "libc6"),
    ("ld-linux-x86-64.so.2", "libc6"),
    ("ld-linux-aarch64.so.1", "libc6"),
    ("libgcc_s.so.1", "libgcc-s1"),
];

/// Files that an upgrade does not overwrite where the administrator changed them.
const CONFFILES: &[&str] = &["/etc/default/simplon", "/etc/simplon/simplon.toml"];

/// Directories that only root and the gateway's user enter.
const PRIVATE: &[&str] = &["etc/simplon", "etc/simplon/keys"];

/// Builds the program and packs it.
pub(crate) fn build() -> Outcome {
    cargo(&["build", "--release", "--package", "cli"])?;
    pack(&simplon("release")).map(|deb| println!("{}", deb.display()))
}

/// Packs a program that was built before.
pub(crate) fn pack_built(binary: &str) -> Outcome {
    pack(Path::new(binary)).map(|deb| println!("{}", deb.display()))
}

/// Installs a package into a copy of this system's root, upgrades it, removes and purges it, and looks at what is there
/// each time. Needs root.
pub(crate) fn test(package: &str) -> Outcome {
    let script = root().join("packaging/debian/test.sh");
    let script = script.to_str().ok_or("the path of the workspace is not UTF-8")?;
    program("unshare", &["--mount", "--uts", "--ipc", "--propagation", "private", "sh", script, package])
}

fn pack(binary: &Path) -> Result<PathBuf, String> {
    let version = env!("CARGO_PKG_VERSION");
    let architecture = said("dpkg", &["--print-architecture"])?;
    let name = format!("simplon_{version}_{architecture}");
    let tree = target().join("deb").join(&name);
    if tree.exists() {
        fs::remove_dir_all(&tree).map_err(|e| format!("{}: {e}", tree.display()))?;
    }
    let files = Tree { base: tree.clone() };
    let packaging = root().join("packaging");

    let program_there = files.copy(binary, "usr/bin/simplon", 0o755)?;
    run_quietly(Command::new("strip").arg("--strip-unneeded").arg(&program_there))?;
    for (from, to, mode) in [
        ("systemd/simplon.service", "usr/lib/systemd/system/simplon.service", 0o644),
        ("default/simplon", "etc/default/simplon", 0o644),
        ("etc/simplon.toml", "etc/simplon/simplon.toml", 0o600),
        ("debian/lintian-overrides", "usr/share/lintian/overrides/simplon", 0o644),
        ("debian/copyright", "usr/share/doc/simplon/copyright", 0o644),
        ("prometheus/simplon.rules.yml", "usr/share/doc/simplon/examples/simplon.rules.yml", 0o644),
        ("grafana/simplon.json", "usr/share/doc/simplon/examples/grafana.json", 0o644),
        ("debian/postinst", "DEBIAN/postinst", 0o755),
        ("debian/prerm", "DEBIAN/prerm", 0o755),
        ("debian/postrm", "DEBIAN/postrm", 0o755),
    ] {
        files.copy(&packaging.join(from), to, mode)?;
    }
    fs::create_dir_all(files.path("etc/simplon/keys")).map_err(|e| e.to_string())?;
    completions(&files, binary)?;
    pages(&files, binary, &packaging)?;
    let time = said("git", &["-C", &root().to_string_lossy(), "log", "-1", "--format=%ct"]);
    let time = time.unwrap_or_else(|_| "0".to_owned());
    let changelog = changelog(version, &time)?;
    files.write("usr/share/doc/simplon/changelog", &changelog, 0o644)?;
    run_quietly(Command::new("gzip").args(["-9n"]).arg(files.path("usr/share/doc/simplon/changelog")))?;
    files.write("DEBIAN/conffiles", &(CONFFILES.join("\n") + "\n"), 0o644)?;
    let depends = depends(&program_there)?;
    let control = control(version, &architecture, &depends, files.kilobytes()?);
    files.write("DEBIAN/control", &control, 0o644)?;
    files.write("DEBIAN/md5sums", &sums(&files)?, 0o644)?;

    files.open_directories()?;
    let package = target().join("deb").join(name + ".deb");
    let mut pack = Command::new("dpkg-deb");
    pack.env("SOURCE_DATE_EPOCH", &time).args(["--root-owner-group", "-Zxz", "--build"]).arg(&tree).arg(&package);
    run(pack)?;
    Ok(package)
}

/// A tree of files that becomes a package.
struct Tree {
    base: PathBuf,
}

impl Tree {
    fn path(&self, inside: &str) -> PathBuf {
        self.base.join(inside)
    }

    fn write(&self, inside: &str, text: impl AsRef<[u8]>, mode: u32) -> Outcome {
        let path = self.path(inside);
        let named = |e: std::io::Error| format!("{}: {e}", path.display());
        let above = path.parent().unwrap_or(&self.base);
        fs::create_dir_all(above).and_then(|()| fs::write(&path, text)).map_err(named)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(named)
    }

    fn copy(&self, from: &Path, inside: &str, mode: u32) -> Result<PathBuf, String> {
        let bytes = fs::read(from).map_err(|e| format!("{}: {e}", from.display()))?;
        self.write(inside, bytes, mode)?;
        Ok(self.path(inside))
    }

    /// Gives every directory its mode, whatever the umask was.
    fn open_directories(&self) -> Outcome {
        let mut folders = vec![self.base.clone()];
        while let Some(folder) = folders.pop() {
            let mode = if PRIVATE.iter().any(|inside| folder == self.path(inside)) { 0o750 } else { 0o755 };
            let named = |e: std::io::Error| format!("{}: {e}", folder.display());
            fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).map_err(named)?;
            let entries = fs::read_dir(&folder).map_err(named)?;
            folders.extend(entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()));
        }
        Ok(())
    }

    /// Every file that is installed, with its path inside.
    fn installed(&self) -> Result<Vec<String>, String> {
        let mut folders = vec![self.base.clone()];
        let mut found = Vec::new();
        while let Some(folder) = folders.pop() {
            let entries = fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
            for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
                if path.is_dir() && !path.ends_with("DEBIAN") {
                    folders.push(path);
                } else if path.is_file() {
                    let inside = path.strip_prefix(&self.base).map_err(|e| e.to_string())?;
                    found.push(inside.to_string_lossy().into_owned());
                }
            }
        }
        found.sort();
        Ok(found)
    }

    fn kilobytes(&self) -> Result<u64, String> {
        let size = |inside: &String| fs::metadata(self.path(inside)).map_or(0, |m| m.len().div_ceil(1_024));
        Ok(self.installed()?.iter().map(size).sum())
    }
}

fn completions(files: &Tree, binary: &Path) -> Outcome {
    for (shell, to) in [
        ("bash", "usr/share/bash-completion/completions/simplon"),
        ("zsh", "usr/share/zsh/vendor-completions/_simplon"),
        ("fish", "usr/share/fish/vendor_completions.d/simplon.fish"),
    ] {
        files.write(to, said(binary, &["completion", shell])? + "\n", 0o644)?;
    }
    Ok(())
}

/// The pages of all commands, and that of the configuration, compressed as Debian's policy wants it.
fn pages(files: &Tree, binary: &Path, packaging: &Path) -> Outcome {
    let there = files.path("usr/share/man/man1");
    run_quietly(Command::new(binary).arg("man").arg(&there))?;
    files.copy(&packaging.join("man/simplon.toml.5"), "usr/share/man/man5/simplon.toml.5", 0o644)?;
    for page in files.installed()?.iter().filter(|path| path.starts_with("usr/share/man/")) {
        let path = files.path(page);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).map_err(|e| format!("{page}: {e}"))?;
        run_quietly(Command::new("gzip").arg("-9n").arg(path))?;
    }
    Ok(())
}

fn control(version: &str, architecture: &str, depends: &str, kilobytes: u64) -> String {
    format!(
        "Package: simplon
Version: {version}
Architecture: {architecture}
Maintainer: The simplon authors <maintainers@simplon.invalid>
Installed-Size: {kilobytes}
Depends: {depends}, adduser
Recommends: nftables
Suggests: prometheus
Section: net
Priority: optional
Description: site-to-site VPN gateway with IKE, IPsec and BGP
 simplon joins private networks over the public internet: clouds, offices, data
 centres. It speaks IKEv1 and IKEv2, encrypts in user space, fails over between
 tunnels, exchanges routes with BGP, and watches its paths with BFD and probes.
 .
 It runs from its own configuration file or from the ipsec.conf of strongSwan,
 Libreswan and Openswan.
"
    )
}

fn changelog(version: &str, time: &str) -> Result<String, String> {
    let date = said("date", &["--utc", "--rfc-email", &format!("--date=@{time}")])?;
    Ok(format!(
        "simplon ({version}) unstable; urgency=medium\n\n  * CHANGELOG.md of the source says what changed.\n\n \
         -- The simplon authors <maintainers@simplon.invalid>  {date}\n"
    ))
}

/// What the package depends on, going by the libraries and versions that the program asks the loader for.
fn depends(binary: &Path) -> Result<String, String> {
    let dump = said("objdump", &["-p", &binary.to_string_lossy()])?;
    let (libraries, libc) = needs(&dump)?;
    if libc > OLDEST_LIBC {
        let (major, minor) = OLDEST_LIBC;
        return Err(format!(
            "the program needs version {}.{} of the C library, Ubuntu 22.04 has {major}.{minor}: build it on an older \
             system",
            libc.0, libc.1
        ));
    }
    let mut packages: Vec<String> = libraries
        .into_iter()
        .map(|package| match package {
            "libc6" => format!("libc6 (>= {}.{})", libc.0, libc.1),
            other => other.to_owned(),
        })
        .collect();
    packages.sort();
    packages.dedup();
    Ok(packages.join(", "))
}

/// The packages of the libraries that `objdump -p` lists, and the newest version of the C library among the symbols.
fn needs(dump: &str) -> Result<(Vec<&'static str>, (u32, u32)), String> {
    let mut packages = Vec::new();
    for library in dump.lines().filter_map(|line| line.trim().strip_prefix("NEEDED")).map(str::trim) {
        let known = LIBRARIES.iter().find(|(name, _)| *name == library);
        let (_, package) = known.ok_or(format!("the program needs {library}, whose package is not known"))?;
        packages.push(*package);
    }
    let versions = dump.split_whitespace().filter_map(|word| {
        let (major, rest) = word.strip_prefix("GLIBC_")?.split_once('.')?;
        Some((major.parse().ok()?, rest.split('.').next()?.parse().ok()?))
    });
    let newest = versions.max().ok_or("the program does not say which C library it needs")?;
    Ok((packages, newest))
}

fn sums(files: &Tree) -> Result<String, String> {
    let mut lines = String::new();
    for inside in files.installed()?.iter().filter(|inside| !CONFFILES.contains(&format!("/{inside}").as_str())) {
        let sum = said("md5sum", &[&files.path(inside).to_string_lossy()])?;
        let sum = sum.split(' ').next().unwrap_or_default();
        lines += &format!("{sum}  {inside}\n");
    }
    Ok(lines)
}

/// What a program prints, without white space around it.
fn said(name: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Result<String, String> {
    let name = name.as_ref();
    let output = Command::new(name).args(arguments).output().map_err(|e| format!("{}: {e}", name.display()))?;
    if !output.status.success() {
        return Err(format!("{}: {}", name.display(), String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn run_quietly(command: &mut Command) -> Outcome {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().map_err(|e| format!("{name}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{name}: {status}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = "
Dynamic Section:
  NEEDED               libgcc_s.so.1
  NEEDED               libm.so.6
  NEEDED               libc.so.6
Version References:
  required from libc.so.6:
    0x09691a75 0x00 10 GLIBC_2.2.5
    0x06969194 0x00 07 GLIBC_2.34
    0x09691974 0x00 04 GLIBC_2.3.4
";

    #[test]
    fn dependencies_are_those_of_the_program() {
        assert_eq!(needs(DUMP).unwrap(), (vec!["libgcc-s1", "libc6", "libc6"], (2, 34)));
        assert!(needs(&DUMP.replace("libm.so.6", "libssl.so.3")).unwrap_err().contains("libssl.so.3"));
        assert!(needs("  NEEDED   libc.so.6").is_err());
    }
}
