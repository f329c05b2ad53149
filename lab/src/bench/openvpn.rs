//! OpenVPN at both ends: point to point over UDP, AES-128-GCM, its data path in user space.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::bench::path::{Ends, HOSTS, OUTSIDE};
use crate::clock;
use crate::error::{Error, Result};
use crate::netns::Lab;
use crate::peer::{tail, write_private};
use crate::shell::{Process, Shell};

const INNER: [&str; 2] = ["10.63.0.1", "10.63.0.2"];

/// Starts both ends, and waits until they have agreed on keys.
pub(super) fn start(lab: &Lab, ends: &Ends) -> Result<Vec<Process>> {
    let shell = lab.shell();
    let mut fingerprints = Vec::new();
    let mut dirs = Vec::new();
    for place in &ends.places {
        let dir = lab.subdir(&place.name)?;
        fingerprints.push(certificate(shell, &dir)?);
        dirs.push(dir);
    }
    let mut processes = Vec::new();
    for own in [1, 0] {
        let (place, dir, other) = (&ends.places[own], &dirs[own], 1 - own);
        let conf = dir.join("openvpn.conf");
        let role = if own == 1 { "tls-server\ndh none" } else { "tls-client" };
        // Buffers as large as the others ask for, and the fastest way it has of waiting.
        let text = format!(
            "dev tun0\ndev-type tun\nproto udp\nport 1194\nlocal {local}\nremote {remote}\n{role}\n\
             ifconfig {inner} {outer}\nroute {host} 255.255.255.255\ncert {dir}/cert.pem\nkey {dir}/key.pem\n\
             peer-fingerprint {fingerprint}\ndata-ciphers AES-128-GCM\ndisable-dco\nfast-io\nsndbuf 8388608\n\
             rcvbuf 8388608\ntxqueuelen 1000\nreneg-sec 0\nverb 3\n",
            local = OUTSIDE[own],
            remote = OUTSIDE[other],
            inner = INNER[own],
            outer = INNER[other],
            host = HOSTS[other],
            dir = dir.display(),
            fingerprint = fingerprints[other],
        );
        write_private(&conf, &text)?;
        processes.push(place.node.spawn(&["openvpn", "--config", &conf.to_string_lossy()], &[], &dir.join("log"))?);
    }
    for (process, dir) in processes.iter_mut().zip([&dirs[1], &dirs[0]]) {
        let said = || fs::read_to_string(dir.join("log")).unwrap_or_default();
        let waited = clock::wait_for("OpenVPN's tunnel", Duration::from_secs(15), || {
            Ok(said().contains("Initialization Sequence Completed") || !process.is_running())
        });
        if waited.is_err() || !process.is_running() {
            return Err(Error::Command { line: process.line().into(), said: tail(&said(), 20) });
        }
    }
    Ok(processes)
}

/// A certificate that signs itself; its fingerprint is what the other end knows it by.
fn certificate(shell: &Shell, dir: &Path) -> Result<String> {
    let [key, cert] = ["key.pem", "cert.pem"].map(|name| dir.join(name).to_string_lossy().into_owned());
    let mut words = vec!["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    words.extend(["-days", "2", "-subj", "/CN=bench", "-keyout", &key, "-out", &cert]);
    shell.run(&words)?;
    let said = shell.run(&["openssl", "x509", "-in", &cert, "-noout", "-fingerprint", "-sha256"])?;
    Ok(said.trim().rsplit('=').next().unwrap_or_default().to_owned())
}
