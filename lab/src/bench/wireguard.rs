//! wireguard-go at both ends, configured by `wg`.

use std::fs;
use std::time::Duration;

use crate::bench::path::{Ends, HOSTS, OUTSIDE};
use crate::clock;
use crate::error::{Error, Result};
use crate::netns::Lab;
use crate::peer::{tail, write_private};
use crate::shell::Process;

const PORT: u16 = 51_820;

/// Starts both ends, and routes the other's host into them.
pub(super) fn start(lab: &Lab, ends: &Ends) -> Result<Vec<Process>> {
    let shell = lab.shell();
    let mut keys = Vec::new();
    for _ in 0..2 {
        let private = shell.run(&["wg", "genkey"])?;
        let public = shell.run_with_input(&["wg", "pubkey"], &private)?;
        keys.push((private.trim().to_owned(), public.trim().to_owned()));
    }
    let mut processes = Vec::new();
    for (own, place) in ends.places.iter().enumerate() {
        let other = 1 - own;
        let dir = lab.subdir(&place.name)?;
        // Its control socket has the device's name, in a directory that all namespaces share.
        let device: String = format!("w{own}{}", lab.id().replace('-', "")).chars().take(15).collect();
        let log = dir.join("log");
        let mut process =
            place.node.spawn(&["wireguard-go", "-f", &device], &[("LOG_LEVEL", "error".as_ref())], &log)?;
        clock::wait_for("wireguard-go's device", Duration::from_secs(10), || {
            Ok(place.node.output(&["wg", "show", &device])?.ok || !process.is_running())
        })?;
        if !process.is_running() {
            let said = tail(&fs::read_to_string(&log).unwrap_or_default(), 20);
            return Err(Error::Command { line: process.line().into(), said });
        }
        let conf = dir.join("wg.conf");
        write_private(
            &conf,
            &format!(
                "[Interface]\nPrivateKey = {}\nListenPort = {PORT}\n\n\
                 [Peer]\nPublicKey = {}\nEndpoint = {}:{PORT}\nAllowedIPs = 10.0.0.0/8\n",
                keys[own].0, keys[other].1, OUTSIDE[other],
            ),
        )?;
        place.node.run(&["wg", "setconf", &device, &conf.to_string_lossy()])?;
        place.node.ip(&["link", "set", "dev", &device, "mtu", "1420", "up"])?;
        place.node.ip(&["route", "add", &format!("{}/32", HOSTS[other]), "dev", &device])?;
        processes.push(process);
    }
    Ok(processes)
}
