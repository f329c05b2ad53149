//! What every Prometheus client says of its own process, from `/proc`.

use std::fs;

use super::text::{Kind, Text};

/// Writes the families `process_*`; what the kernel does not say is left out. `uptime_s` is the gateway's.
pub(super) fn write(text: &mut Text, uptime_s: u64) {
    let started = os::clock::unix_time().as_secs().saturating_sub(uptime_s);
    text.one("process_start_time_seconds", Kind::Gauge, "Start time of the process since 1970 in seconds", started);
    if let Ok(usage) = os::process::usage(std::process::id()) {
        let cpu = usage.cpu.as_secs_f64();
        text.one("process_cpu_seconds_total", Kind::Counter, "CPU time of all threads, user and system", cpu);
        text.one("process_resident_memory_bytes", Kind::Gauge, "Resident memory", usage.resident);
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(virtual_kb) = field(&status, "VmSize:") {
        text.one("process_virtual_memory_bytes", Kind::Gauge, "Virtual memory", virtual_kb * 1_024);
    }
    if let Some(threads) = field(&status, "Threads:") {
        text.one("process_threads", Kind::Gauge, "Threads", threads);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // One of them is the directory that is read.
        let open = open.count().saturating_sub(1) as u64;
        text.one("process_open_fds", Kind::Gauge, "Open file descriptors", open);
    }
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    if let Some(most) = field(&limits, "Max open files") {
        text.one("process_max_fds", Kind::Gauge, "Open file descriptors that are allowed", most);
    }
}

/// The first number of the line that begins with `name`.
fn field(lines: &str, name: &str) -> Option<u64> {
    lines.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_all_of_them() {
        let mut text = Text::default();
        write(&mut text, 5);
        let text = text.finish();
        for name in ["start_time_seconds", "cpu_seconds_total", "resident_memory_bytes", "virtual_memory_bytes"] {
            assert!(text.contains(&format!("\nprocess_{name} ")), "{name}: {text}");
        }
        let value = |name: &str| field(&text, &format!("process_{name} ")).unwrap();
        assert!(value("open_fds") >= 3 && value("open_fds") <= value("max_fds"), "{text}");
        assert!(value("threads") >= 1);
    }
}
