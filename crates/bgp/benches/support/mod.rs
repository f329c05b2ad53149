//! What both benchmarks measure with: time, memory, and attributes as they are met in the world.

use std::io::Write;

use bgp::{AsPath, Attributes, Community, Origin};

/// Resident memory in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Nanoseconds that this thread has run: other work on the machine does not show.
fn cpu() -> u64 {
    let status = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    status.split_whitespace().next().and_then(|time| time.parse().ok()).unwrap_or(0)
}

/// Says what something took.
pub(crate) fn timed<T>(what: &str, per: u32, work: impl FnOnce() -> T) -> T {
    let (start, before) = (cpu(), resident());
    let answer = work();
    let (time, grown) = (cpu() - start, resident() as i64 - before as i64);
    let (each, time) = (time / u64::from(per), time as f64 / 1e6);
    let line = format!("{what:40} {:8.1} ms {each:6} ns each {:5} bytes each", time, grown / i64::from(per));
    let _ = writeln!(std::io::stdout().lock(), "{line}");
    answer
}

/// A number that looks random: the same in every run.
fn mix(number: u32) -> u32 {
    let mut x = number.wrapping_mul(0x9E37_79B9);
    x = (x ^ x >> 15).wrapping_mul(0x85EB_CA6B);
    x ^ x >> 13
}

/// Attributes of a route, as varied as `number`, whose path begins with the AS `first`.
pub(crate) fn attributes(first: u32, number: u32) -> Attributes {
    let path = (0..2 + number % 5).map(|hop| mix(number + 7 * hop) % 400_000 + 1);
    let mut communities: Vec<_> = (0..number % 7).map(|one| Community(mix(number % 5_000 + one))).collect();
    communities.sort();
    communities.dedup();
    Attributes {
        origin: Origin::Igp,
        as_path: AsPath(std::iter::once(first).chain(path).collect()),
        med: None,
        local_pref: None,
        atomic_aggregate: false,
        aggregator: None,
        communities,
        extended_communities: Vec::new(),
        large_communities: Vec::new(),
        originator_id: None,
        cluster_list: Vec::new(),
        unknown: Vec::new(),
    }
}
