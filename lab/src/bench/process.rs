//! What the kernel knows about a process: `/proc/PID` (proc(5)).

use std::fs;
use std::iter::Sum;
use std::ops::Sub;

use nix::unistd::{SysconfVar, sysconf};

use crate::error::{Error, Result};

/// Seconds of CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Cpu {
    /// In the process itself.
    pub(super) user: f64,
    /// In the kernel on its behalf.
    pub(super) system: f64,
}

impl Cpu {
    pub(super) fn total(self) -> f64 {
        self.user + self.system
    }
}

impl Sub for Cpu {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self { user: self.user - before.user, system: self.system - before.system }
    }
}

impl Sum for Cpu {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |a, b| Self { user: a.user + b.user, system: a.system + b.system })
    }
}

/// What a process has used, its threads that ended included; to a hundredth of a second.
pub(super) fn cpu(pid: u32) -> Result<Cpu> {
    let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100) as f64;
    let (user, system) = ticks(&read(pid, "stat")?).unwrap_or((0, 0));
    Ok(Cpu { user: user as f64 / per_second, system: system as f64 / per_second })
}

/// Both together.
pub(super) fn cpu_seconds(pid: u32) -> Result<f64> {
    Ok(cpu(pid)?.total())
}

/// Resident memory of a process in kB.
pub(super) fn resident_kb(pid: u32) -> Result<u64> {
    Ok(resident(&read(pid, "status")?).unwrap_or(0))
}

/// How many were ready to run in the last minute, on average.
pub(super) fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

/// The processor's own name.
pub(super) fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| "unknown".to_owned(), |(_, name)| name.trim().to_owned())
}

fn read(pid: u32, file: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).map_err(|e| Error::io(format!("reading {path}"), e))
}

/// Fields 14 and 15, counted after the command's name, which may hold anything.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some((next()?, next()?))
}

fn resident(status: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_system_time_are_found_whatever_the_command_is_called() {
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 7 7 20 0 1 0 100 1000 200";
        assert_eq!(ticks(stat), Some((250, 50)));
        assert_eq!(ticks("42 (a) S 1"), None);
    }

    #[test]
    fn resident_memory_is_read_in_kilobytes() {
        assert_eq!(resident("Name:\tsimplon\nVmHWM:\t 20000 kB\nVmRSS:\t   12345 kB\n"), Some(12_345));
    }

    #[test]
    fn this_process_has_used_memory_and_has_a_processor() {
        assert!(resident_kb(std::process::id()).unwrap() > 100);
        assert!(cpu_seconds(std::process::id()).unwrap() >= 0.0);
        assert!(!processor().is_empty());
    }
}
