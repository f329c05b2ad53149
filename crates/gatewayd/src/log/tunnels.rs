//! A log of each connection: a file of JSON lines in the fields of the tunnel logs that clouds write.
//!
//! A thread of its own writes, because a disk may hang and the gateway must not. The file is opened for each line, so
//! that it may be moved or removed at any time. Past [`LARGEST`] it becomes `NAME.log.1`, in place of an older one: a
//! connection takes 20 MiB at most.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use gateway::{GatewayEvent, Phases, Severity};
use tracing::warn;

use super::time::utc;

/// Bytes of a file, after which a new one is begun.
const LARGEST: u64 = 10 << 20;
/// Lines that wait for the disk at most; those beyond are lost, and counted.
const WAITING: usize = 4_096;
/// Bytes of a file's name before `.log`.
const LONGEST_NAME: usize = 200;

/// The logs of all connections.
#[derive(Debug)]
pub(super) struct Tunnels {
    directory: String,
    lines: SyncSender<(PathBuf, String)>,
    lost: u64,
}

impl Tunnels {
    /// Logs in `directory`, which is made if need be.
    ///
    /// # Errors
    /// When it cannot be made, or nothing can be written there.
    pub(super) fn open(directory: &str) -> io::Result<Self> {
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{directory}: {e}"));
        fs::DirBuilder::new().recursive(true).mode(0o750).create(directory).map_err(named)?;
        let (lines, written) = sync_channel(WAITING);
        std::thread::Builder::new().name("simplon-log".to_owned()).spawn(move || write_all(&written))?;
        Ok(Self { directory: directory.to_owned(), lines, lost: 0 })
    }

    pub(super) fn directory(&self) -> &str {
        &self.directory
    }

    /// Writes a line to the log of the event's connection.
    pub(super) fn write(&mut self, event: &GatewayEvent, phases: &Phases, at_ms: u64) {
        let Some(connection) = &event.connection else { return };
        let path = Path::new(&self.directory).join(file_name(connection));
        match self.lines.try_send((path, line(event, phases, at_ms))) {
            Ok(()) => {
                let lost = std::mem::take(&mut self.lost);
                if lost > 0 {
                    warn!("{lost} lines of the connections' logs were lost: the disk is slow");
                }
            }
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => self.lost += 1,
        }
    }
}

/// The line of an event.
fn line(event: &GatewayEvent, phases: &Phases, at_ms: u64) -> String {
    let severity = match event.severity {
        Severity::Debug => "debug",
        Severity::Info => "info",
        Severity::Warning => "warning",
    };
    let object = serde_json::json!({
        "event_timestamp": at_ms / 1_000,
        "timestamp": utc(at_ms),
        "connection": event.connection.as_deref(),
        "dpd_enabled": phases.dpd_enabled,
        "nat_t_detected": phases.nat_detected,
        "ike_phase1_state": phases.phase1.name(),
        "ike_phase2_state": phases.phase2.name(),
        "event": event.name,
        "severity": severity,
        "details": event.text,
    });
    format!("{object}\n")
}

/// The file of a connection. Whatever its name holds, the file stands in the directory: other bytes than letters,
/// digits, `-`, `_` and inner dots are written as `%` and two hexadecimal digits.
fn file_name(connection: &str) -> String {
    let mut name = String::new();
    for (place, byte) in connection.bytes().enumerate() {
        if byte.is_ascii_alphanumeric() || b"-_".contains(&byte) || (byte == b'.' && place > 0) {
            name.push(byte.into());
        } else {
            name += &format!("%{byte:02X}");
        }
    }
    name.truncate(LONGEST_NAME);
    name + ".log"
}

/// Writes until the gateway hangs up.
fn write_all(lines: &Receiver<(PathBuf, String)>) {
    let mut disk = Disk::default();
    for (path, line) in lines {
        if let Some(text) = disk.write(&path, &line) {
            warn!("{text}");
        }
    }
}

/// What the disk did not take.
#[derive(Debug, Default)]
struct Disk {
    /// Lines that were lost since a person heard that some are.
    lost: u64,
}

impl Disk {
    /// Writes a line; what to say, at the first that is lost and at the first that is written again.
    fn write(&mut self, path: &Path, line: &str) -> Option<String> {
        match append(path, line) {
            Ok(()) => {
                let lost = std::mem::take(&mut self.lost);
                (lost > 0).then(|| format!("{lost} lines of the connections' logs were lost: the disk took none"))
            }
            Err(e) => {
                self.lost += 1;
                (self.lost == 1).then(|| format!("cannot write {}: {e}", path.display()))
            }
        }
    }
}

fn append(path: &Path, line: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().append(true).create(true).mode(0o640).open(path)?;
    if file.metadata()?.len() + line.len() as u64 > LARGEST {
        let mut older = path.as_os_str().to_owned();
        older.push(".1");
        fs::rename(path, older)?;
        file = fs::OpenOptions::new().append(true).create(true).mode(0o640).open(path)?;
    }
    let before = file.metadata()?.len();
    let written = file.write_all(line.as_bytes());
    if written.is_err() {
        // A full disk may have taken a part of it: the next line must not stand behind that.
        let _ = file.set_len(before);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway::Progress;

    const PHASES: Phases =
        Phases { dpd_enabled: true, nat_detected: false, phase1: Progress::Established, phase2: Progress::Negotiating };

    fn event(connection: &str) -> GatewayEvent {
        let text = "IKE SA established".to_owned();
        GatewayEvent { connection: Some(connection.into()), severity: Severity::Info, name: "ike_up", text }
    }

    #[test]
    fn a_line_has_the_fields_of_a_tunnel_log() {
        let line = line(&event("Tunnel1"), &PHASES, 1_700_000_000_999);
        let object: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(object["event_timestamp"], 1_700_000_000);
        assert_eq!(object["timestamp"], "2023-11-14T22:13:20.999Z");
        assert_eq!((&object["dpd_enabled"], &object["nat_t_detected"]), (&true.into(), &false.into()));
        assert_eq!(object["ike_phase1_state"], "established");
        assert_eq!(object["ike_phase2_state"], "negotiating");
        assert_eq!(object["details"], "IKE SA established");
        assert!(line.ends_with("}\n"));
    }

    #[test]
    fn no_name_leads_out_of_the_directory() {
        for (name, file) in [
            ("Tunnel1", "Tunnel1.log"),
            ("vpn.a-b_1", "vpn.a-b_1.log"),
            ("../../etc/passwd", "%2E.%2F..%2Fetc%2Fpasswd.log"),
            ("", ".log"),
            ("a b\u{e9}", "a%20b%C3%A9.log"),
        ] {
            assert_eq!(file_name(name), file);
        }
        assert_eq!(file_name(&"x".repeat(4_000)).len(), LONGEST_NAME + 4);
    }

    #[test]
    fn lines_that_a_full_disk_does_not_take_are_counted_and_told_of() {
        let path = std::env::temp_dir().join(format!("simplon-disk-{}", std::process::id()));
        let (mut disk, full) = (Disk::default(), Path::new("/dev/full"));
        assert!(disk.write(full, "a\n").unwrap().starts_with("cannot write /dev/full: No space left"));
        assert_eq!((disk.write(full, "b\n"), disk.write(full, "c\n")), (None, None));
        assert!(disk.write(&path, "d\n").unwrap().starts_with("3 lines of the connections' logs were lost"));
        assert_eq!(disk.write(&path, "e\n"), None);
        assert_eq!(fs::read_to_string(&path).unwrap(), "d\ne\n");
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_file_that_is_full_is_put_aside_and_one_that_was_moved_begins_anew() {
        let directory = std::env::temp_dir().join(format!("simplon-tunnels-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        let mut tunnels = Tunnels::open(directory.to_str().unwrap()).unwrap();
        let path = directory.join("a.log");
        fs::write(&path, vec![b'x'; LARGEST as usize]).unwrap();
        tunnels.write(&event("a"), &PHASES, 1);
        tunnels.write(&event("a"), &PHASES, 2);
        // Hanging up ends the thread after its last line.
        let lines = std::mem::replace(&mut tunnels.lines, sync_channel(0).0);
        let waiter = std::thread::spawn(move || drop(lines));
        waiter.join().unwrap();
        let written = || fs::read_to_string(&path).unwrap_or_default().lines().count();
        while written() != 2 {
            std::thread::yield_now();
        }
        assert_eq!(fs::metadata(directory.join("a.log.1")).unwrap().len(), LARGEST);
        fs::remove_file(&path).unwrap();
        append(&path, "new\n").unwrap();
        assert_eq!(written(), 1);
        assert!(Tunnels::open("/proc/nowhere").is_err());
        fs::remove_dir_all(&directory).unwrap();
    }
}
