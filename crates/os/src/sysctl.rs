//! Kernel settings: the files below `/proc/sys`. Those of `net/` are the calling thread's network namespace's.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::Tried;

/// Whether the host forwards IPv4 packets, `0` or `1`.
pub const IPV4_FORWARD: &str = "net/ipv4/ip_forward";
/// Whether the host forwards IPv6 packets, `0` or `1`.
pub const IPV6_FORWARD: &str = "net/ipv6/conf/all/forwarding";

/// The reverse path filter of a device: `0` off, `1` strict, `2` loose. The kernel takes the larger of this and that
/// of the device `all`.
pub fn rp_filter(device: &str) -> String {
    format!("net/ipv4/conf/{device}/rp_filter")
}

/// Reads a setting, without the newline. Its name has slashes (`net/ipv4/ip_forward`), since a device's name may have
/// dots.
///
/// # Errors
/// `NotFound` when this kernel has no such setting, `InvalidInput` for a name that leads elsewhere.
pub fn read(setting: &str) -> io::Result<String> {
    let text = fs::read_to_string(path_of(setting)?).tried(|| format!("read the sysctl {setting}"))?;
    Ok(text.trim_end().to_owned())
}

/// Writes a setting.
///
/// # Errors
/// As [`read`], and `PermissionDenied`.
pub fn write(setting: &str, value: &str) -> io::Result<()> {
    fs::write(path_of(setting)?, value).tried(|| format!("set the sysctl {setting} to {value}"))
}

fn path_of(setting: &str) -> io::Result<PathBuf> {
    if setting.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{setting:?} names no sysctl")));
    }
    Ok(Path::new("/proc/sys").join(setting))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_reads_without_its_newline() {
        assert_eq!(read("kernel/ostype").unwrap(), "Linux");
        assert!(["0", "1"].contains(&read(IPV4_FORWARD).unwrap().as_str()));
        assert!(["0", "1", "2"].contains(&read(&rp_filter("lo")).unwrap().as_str()));
    }

    #[test]
    fn a_name_cannot_leave_proc_sys() {
        for name in ["", "/etc/passwd", "../self/status", "net/../../self", "net//ipv4"] {
            assert_eq!(read(name).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{name:?}");
        }
        assert_eq!(read("net/no-such").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
