//! Pings between the hosts of a scenario, with a payload that the wire check looks for.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use crate::error::Result;
use crate::netns::Node;
use crate::shell::Process;

/// What every ping carries, over and over.
pub(crate) const PATTERN: &[u8] = b"simplon-lab-ping";

/// What became of some pings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pings {
    pub(crate) sent: u32,
    pub(crate) answered: u32,
    /// Average round trip in milliseconds.
    pub(crate) average: Option<f64>,
}

impl std::fmt::Display for Pings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} answered", self.answered, self.sent)?;
        match self.average {
            Some(ms) => write!(f, ", {ms:.2} ms"),
            None => Ok(()),
        }
    }
}

impl Pings {
    pub(crate) fn all_answered(&self) -> bool {
        self.sent > 0 && self.answered == self.sent
    }
}

/// [`PATTERN`] as `ping -p` wants it.
pub(crate) fn pattern() -> String {
    PATTERN.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn words(to: Ipv4Addr, more: &[&str]) -> Vec<String> {
    let pattern = pattern();
    // Pinging without DF: gateways fragment what is too long.
    let mut words: Vec<String> = ["ping", "-n", "-q", "-M", "dont", "-p", &pattern].map(str::to_owned).to_vec();
    words.extend(more.iter().map(|&word| word.to_owned()));
    words.push(to.to_string());
    words
}

/// Sends `count` pings, one each 0.2 s.
pub(crate) fn ping(from: &Node, to: Ipv4Addr, count: u32, size: u32) -> Result<Pings> {
    let (count, size) = (count.to_string(), size.to_string());
    let output = from.output(&words(to, &["-c", &count, "-i", "0.2", "-W", "0.6", "-s", &size]))?;
    Ok(read(&output.stdout))
}

/// Whether somebody answers pings to `target` with ICMP errors, and what `ping` says of them.
pub(crate) fn is_refused(node: &Node, from: Ipv4Addr, target: Ipv4Addr) -> Result<(bool, String)> {
    let (pattern, from, to) = (pattern(), from.to_string(), target.to_string());
    let said =
        node.output(&["ping", "-n", "-I", &from, "-c", "3", "-i", "0.3", "-W", "1", "-p", &pattern, &to])?.stdout;
    let heard: Vec<&str> = said.lines().filter(|line| line.starts_with("From ")).collect();
    let held = heard.len() == 3 && !said.contains("bytes from");
    Ok((held, heard.last().map_or_else(|| "nobody says anything".to_owned(), |line| (*line).to_owned())))
}

/// Pings that go on while something else happens.
pub(crate) struct Running {
    process: Process,
    log: std::path::PathBuf,
}

/// Sends `count` pings, one each 0.2 s, while something else happens.
pub(crate) fn ping_meanwhile(from: &Node, to: Ipv4Addr, count: u32, log: &Path) -> Result<Running> {
    let process = from.spawn(&words(to, &["-c", &count.to_string(), "-i", "0.2", "-W", "1"]), &[], log)?;
    Ok(Running { process, log: log.to_owned() })
}

/// Sends `count` pings from an address of the host, one each 2 ms, while something else happens.
pub(crate) fn ping_fast(from: &Node, source: Ipv4Addr, to: Ipv4Addr, count: u32, log: &Path) -> Result<Running> {
    let (count, source) = (count.to_string(), source.to_string());
    let words = words(to, &["-c", &count, "-i", "0.002", "-W", "1", "-I", &source]);
    Ok(Running { process: from.spawn(&words, &[], log)?, log: log.to_owned() })
}

impl Running {
    /// Whether some are still to be sent.
    pub(crate) fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// Waits for the last; what became of them.
    pub(crate) fn finish(mut self) -> Result<Pings> {
        self.process.finish(Duration::from_secs(60))?;
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        Ok(read(&text))
    }
}

fn read(text: &str) -> Pings {
    let number_before = |word: &str| {
        let line = text.lines().find(|line| line.contains("packets transmitted"))?;
        line.split(',').find(|part| part.contains(word))?.split_whitespace().next()?.parse().ok()
    };
    let average = text.lines().find_map(|line| line.strip_prefix("rtt ")).and_then(|line| {
        let (_, numbers) = line.split_once(" = ")?;
        numbers.split('/').nth(1)?.parse().ok()
    });
    Pings { sent: number_before("transmitted").unwrap_or(0), answered: number_before("received").unwrap_or(0), average }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_of_ping_is_read() {
        let text = "PING 10.50.1.100\n\n--- 10.50.1.100 ping statistics ---\n\
            5 packets transmitted, 4 received, 20% packet loss, time 804ms\n\
            rtt min/avg/max/mdev = 0.602/0.742/0.939/0.143 ms\n";
        assert_eq!(read(text), Pings { sent: 5, answered: 4, average: Some(0.742) });
        let errors = "3 packets transmitted, 0 received, +3 errors, 100% packet loss, time 400ms\n";
        let none = read(errors);
        assert_eq!((none.sent, none.answered), (3, 0));
        assert!(!none.all_answered() && !read("").all_answered());
    }
}
