//! A cloud's control plane in small: it asks each endpoint whether its tunnel is fit and routes the customer's network
//! through those that are. A real cloud does this out of sight; with BGP between the endpoints and the VPC's router it is
//! not needed.

use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use crate::clock;
use crate::error::{Error, Result};
use crate::netns::Node;
use crate::peer::strongswan::swanctl;
use crate::shell::Shell;

/// How often the endpoints are asked.
const INTERVAL: Duration = Duration::from_millis(20);

/// An endpoint of the cloud.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    /// Its address on the link to the VPC's router.
    pub(super) via: Ipv4Addr,
    pub(super) ask: Ask,
}

/// How an endpoint is asked.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    /// simplon, over its admin socket: whether its VPN connection is up.
    Simplon(PathBuf),
    /// strongSwan, by the directory of its daemon: whether it has a Child SA.
    Strongswan(PathBuf),
}

/// A running control plane; dropping it ends it.
pub(super) struct Follower {
    stop: Arc<AtomicBool>,
    avoided: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

/// No endpoint.
const NONE: usize = usize::MAX;

impl Follower {
    /// Keeps the route of `network` in `router` through the fit endpoints: the first of them, or with `all` every one.
    ///
    /// # Errors
    ///
    /// When its thread cannot be started.
    pub(super) fn start(router: &Node, network: &str, endpoints: Vec<Endpoint>, all: bool) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, netns, network) = (Arc::clone(&stop), router.netns().to_owned(), network.to_owned());
        let avoided = Arc::new(AtomicUsize::new(NONE));
        let avoid = Arc::clone(&avoided);
        let thread = std::thread::Builder::new()
            .name("control plane".into())
            .spawn(move || follow(&stopped, &avoid, &netns, &network, &endpoints, all))
            .map_err(|e| Error::io("starting a control plane", e))?;
        Ok(Self { stop, avoided, thread: Some(thread) })
    }

    /// Routes nothing through the endpoint of this number any more, fit or not, as an operator would want it before
    /// the endpoint is replaced.
    pub(super) fn avoid(&self, number: usize) {
        self.avoided.store(number, Ordering::SeqCst);
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn follow(stop: &AtomicBool, avoided: &AtomicUsize, netns: &str, network: &str, endpoints: &[Endpoint], all: bool) {
    let shell = Shell::new(Box::new(std::io::sink()), false);
    let mut sockets: Vec<Option<BufReader<UnixStream>>> = endpoints.iter().map(|_| None).collect();
    let mut routed: Option<Vec<Ipv4Addr>> = None;
    while !stop.load(Ordering::SeqCst) {
        let mut ways: Vec<Ipv4Addr> = Vec::new();
        for (number, (endpoint, socket)) in endpoints.iter().zip(&mut sockets).enumerate() {
            if number == avoided.load(Ordering::SeqCst) {
                continue;
            }
            let is_fit = match &endpoint.ask {
                Ask::Simplon(path) => is_vpn_up(path, socket),
                Ask::Strongswan(dir) => has_child(&shell, dir),
            };
            if is_fit && (all || ways.is_empty()) {
                ways.push(endpoint.via);
            }
        }
        if routed.as_ref() != Some(&ways) {
            let done = shell.output_uninterrupted(&command(netns, network, &ways));
            if done.is_ok_and(|output| output.ok) {
                routed = Some(ways);
            }
        }
        clock::sleep_through(INTERVAL);
    }
}

fn command(netns: &str, network: &str, ways: &[Ipv4Addr]) -> Vec<String> {
    let mut words = ["ip", "-n", netns, "route", "replace"].map(str::to_owned).to_vec();
    if ways.is_empty() {
        words.push("unreachable".into());
    }
    words.push(network.to_owned());
    for via in ways {
        words.extend(["nexthop".to_owned(), "via".to_owned(), via.to_string()]);
    }
    words
}

fn is_vpn_up(path: &Path, socket: &mut Option<BufReader<UnixStream>>) -> bool {
    if socket.is_none() {
        *socket = UnixStream::connect(path).ok().and_then(|stream| {
            stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
            Some(BufReader::new(stream))
        });
    }
    let Some(stream) = socket.as_mut() else { return false };
    let mut line = String::new();
    let asked = stream.get_mut().write_all(b"{\"command\":\"status\"}\n");
    let answered = asked.and_then(|()| stream.read_line(&mut line)).is_ok_and(|len| len > 0);
    if !answered {
        *socket = None;
        return false;
    }
    let answer: Value = serde_json::from_str(&line).unwrap_or_default();
    answer["status"]["vpns"][0]["state"] == "up"
}

fn has_child(shell: &Shell, dir: &Path) -> bool {
    swanctl(shell, dir, &["--list-sas", "--raw"]).is_ok_and(|text| text.contains("state=INSTALLED"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_way_is_refused_and_does_not_wander_off_by_another_route() {
        let typed = |ways: &[[u8; 4]]| {
            let ways: Vec<Ipv4Addr> = ways.iter().copied().map(Ipv4Addr::from).collect();
            command("vpc", "10.60.0.0/16", &ways).join(" ")
        };
        assert_eq!(typed(&[]), "ip -n vpc route replace unreachable 10.60.0.0/16");
        assert_eq!(typed(&[[10, 0, 0, 1]]), "ip -n vpc route replace 10.60.0.0/16 nexthop via 10.0.0.1");
        assert!(typed(&[[10, 0, 0, 1], [10, 0, 0, 5]]).ends_with("nexthop via 10.0.0.1 nexthop via 10.0.0.5"));
    }
}
