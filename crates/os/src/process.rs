//! What a process uses, from `/proc`, for status and benchmarks; how a thread is scheduled.

use std::fs;
use std::io;
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};

use crate::error::Tried;
use crate::sys;

/// What a process uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory now, in bytes.
    pub resident: u64,
    /// The most it ever was, in bytes.
    pub peak_resident: u64,
    /// CPU time of all its threads so far, user and system, in steps of the kernel's tick (usually 10 ms).
    pub cpu: Duration,
}

/// What the process `pid` uses; `std::process::id()` is our own.
///
/// # Errors
/// `NotFound` when there is no such process.
pub fn usage(pid: u32) -> io::Result<Usage> {
    let read = |file: &str| {
        let path = format!("/proc/{pid}/{file}");
        fs::read_to_string(&path).tried(|| format!("read {path}"))
    };
    let (status, stat) = (read("status")?, read("stat")?);
    let ticks = sysconf(SysconfVar::CLK_TCK)?.and_then(|ticks| u32::try_from(ticks).ok()).unwrap_or(100);
    let size = |field| size_in(&status, field).unwrap_or(0); // a zombie has no memory
    let cpu = ticks_in(&stat).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "an odd /proc/PID/stat"))?;
    let cpu = Duration::from_secs(cpu) / ticks.max(1);
    Ok(Usage { resident: size("VmRSS:"), peak_resident: size("VmHWM:"), cpu })
}

/// Whether the calling thread, when it wakes, lets whoever runs on that processor finish first (`SCHED_BATCH`), or
/// competes with it as usual. A thread that was given another policy, such as a real-time one, keeps it.
///
/// # Errors
/// `Unsupported` for such a thread; `PermissionDenied` where a sandbox forbids it.
pub fn set_patient(patient: bool) -> io::Result<()> {
    let policy = sys::scheduling_policy()?;
    if policy != libc::SCHED_OTHER && policy != libc::SCHED_BATCH {
        return Err(io::Error::from(io::ErrorKind::Unsupported));
    }
    sys::set_scheduling_policy(if patient { libc::SCHED_BATCH } else { libc::SCHED_OTHER })
}

/// A field of `/proc/PID/status` in bytes; the file has "VmRSS:     1234 kB".
fn size_in(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kilobytes| kilobytes.saturating_mul(1024))
}

/// `utime` and `stime` of `/proc/PID/stat`, the 14th and 15th field. The second, the name, may hold spaces and
/// parentheses.
fn ticks_in(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(") ")?;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    user.checked_add(fields.next()?.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_can_become_patient_and_impatient_again() {
        for (patient, policy) in [(true, libc::SCHED_BATCH), (false, libc::SCHED_OTHER)] {
            match set_patient(patient) {
                Ok(()) => assert_eq!(sys::scheduling_policy().unwrap(), policy),
                // A sandbox, or a test that is run with a policy of its own.
                Err(e) => assert!(matches!(e.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported)),
            }
        }
    }

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_mislead() {
        let stat = "12 (a) b (c) S 1 12 12 0 -1 4194560 100 0 0 0 250 50 7 9 20 0 1 0 100 1 2";
        assert_eq!(ticks_in(stat), Some(300));
        assert_eq!(ticks_in("12 (a"), None);
    }

    #[test]
    fn we_use_memory_and_time() {
        let mut sum = 0u64;
        let usage_now = loop {
            sum = std::hint::black_box((0..1_000_000).fold(sum, u64::wrapping_add));
            let now = usage(std::process::id()).unwrap();
            if now.cpu > Duration::ZERO {
                break now;
            }
        };
        assert!(usage_now.resident > 100 << 10);
        assert!(usage_now.peak_resident >= usage_now.resident);
    }

    #[test]
    fn a_process_that_is_not_there_is_not_found() {
        assert_eq!(usage(u32::MAX).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
