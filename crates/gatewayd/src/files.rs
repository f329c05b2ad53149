//! Configuration files on the disk.

use std::fs;
use std::io::Read;
use std::net::IpAddr;
use std::path::Path;

use dialects::{Errors, Files, Reading, glob_matches};

/// Larger files than this are no configuration; in bytes.
const LARGEST: u64 = 16 << 20;

/// Files of the disk. Relative paths start at the working directory.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl Files for Disk {
    fn read(&self, path: &str) -> Result<String, String> {
        let file = fs::File::open(path).map_err(|e| e.to_string())?;
        let mut text = String::new();
        file.take(LARGEST + 1).read_to_string(&mut text).map_err(|e| e.to_string())?;
        if text.len() as u64 > LARGEST { Err("the file is larger than 16 MiB".to_owned()) } else { Ok(text) }
    }

    fn glob(&self, pattern: &str) -> Vec<String> {
        let mut found = vec![if pattern.starts_with('/') { "/".to_owned() } else { String::new() }];
        let parts: Vec<&str> = pattern.split('/').filter(|part| !part.is_empty()).collect();
        for (place, part) in parts.iter().enumerate() {
            let is_last = place + 1 == parts.len();
            found = found.iter().flat_map(|base| entries(base, part, is_last)).collect();
        }
        found.sort();
        found
    }
}

/// The entries of the directory `base` (with its slash) that fit `part`; directories, if more parts follow.
fn entries(base: &str, part: &str, is_last: bool) -> Vec<String> {
    let finish = |path: String| {
        let fits = if is_last { Path::new(&path).is_file() } else { Path::new(&path).is_dir() };
        fits.then(|| if is_last { path } else { path + "/" })
    };
    if !part.contains(['*', '?', '[']) {
        return finish(format!("{base}{part}")).into_iter().collect();
    }
    let Ok(directory) = fs::read_dir(if base.is_empty() { "." } else { base }) else { return Vec::new() };
    let names = directory.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| glob_matches(part, name)).filter_map(|name| finish(format!("{base}{name}"))).collect()
}

/// Which configuration to read, and what is known beyond it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// A `simplon.toml` or an `ipsec.conf`.
    pub configuration: String,
    /// The file of the keys of an `ipsec.conf`, where it does not stand beside it.
    pub secrets: Option<String>,
    /// The script that makes the VTI devices of an `ipsec.conf`.
    pub vti_script: Option<String>,
}

impl Load {
    /// Reads it. `own` are the addresses of this host, to tell which end of an `ipsec.conf` it is; none are known
    /// when a file is only checked.
    ///
    /// # Errors
    /// Everything that is wrong, each with its line.
    pub fn read(&self, own: &[IpAddr]) -> Result<Reading, Errors> {
        let is_ipsec_conf =
            self.configuration.ends_with(".conf") || self.secrets.is_some() || self.vti_script.is_some();
        if !is_ipsec_conf {
            return dialects::read(&self.configuration, &Disk);
        }
        let options = dialects::ipsec_conf::Options {
            dialect: None,
            secrets: self.secrets.clone(),
            local_addresses: own.to_vec(),
            vti_script: self.vti_script.clone(),
        };
        dialects::ipsec_conf::read_with(&self.configuration, &options, &Disk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_finds_files_through_directories_in_order() {
        let base = std::env::temp_dir().join(format!("simplon-glob-{}", std::process::id()));
        for (directory, file) in [("b.d", "2.conf"), ("b.d", "1.conf"), ("a.d", "x.conf"), ("a.d", ".hidden.conf")] {
            fs::create_dir_all(base.join(directory)).unwrap();
            fs::write(base.join(directory).join(file), "conn x\n").unwrap();
        }
        let base_text = base.to_str().unwrap();
        let found = Disk.glob(&format!("{base_text}/*.d/*.conf"));
        let names: Vec<_> = found.iter().map(|path| path.strip_prefix(base_text).unwrap()).collect();
        assert_eq!(names, ["/a.d/x.conf", "/b.d/1.conf", "/b.d/2.conf"]);
        assert_eq!(Disk.glob(&format!("{base_text}/a.d/x.conf")).len(), 1);
        assert_eq!(Disk.read(&found[0]).unwrap(), "conn x\n");
        assert!(Disk.read(&format!("{base_text}/none")).is_err());
        fs::remove_dir_all(base).unwrap();
    }
}
