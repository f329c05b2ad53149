//! strongSwan on the kernel of a guest: plain ESP, ESN, and starting on the first packet.

use std::time::Duration;

use crate::error::Result;
use crate::netns::Lab;
use crate::peer::guest::Guest;
use crate::peer::strongswan::{Data, read_status, strongswan_conf, swanctl_conf, write_configuration};
use crate::peer::{Peer, PeerKind, Place, Status, tail, write_private};
use crate::spec::ConnectionSpec;

/// The daemon in a guest.
pub struct StrongSwanKernel {
    spec: ConnectionSpec,
    guest: Guest,
}

impl StrongSwanKernel {
    /// Boots the guest with its configuration.
    ///
    /// # Errors
    ///
    /// When it does not boot.
    pub fn new(lab: &Lab, place: &Place, spec: ConnectionSpec) -> Result<Self> {
        let dir = lab.subdir(&place.name)?;
        write_private(&dir.join("strongswan.conf"), &strongswan_conf("/run", "/host", Data::Kernel))?;
        write_configuration(&dir, &spec)?;
        let guest = Guest::boot(lab, place, &dir, &[], "")?;
        Ok(Self { spec, guest })
    }

    fn swanctl(&mut self, words: &str) -> Result<String> {
        self.guest.must(&format!(
            "STRONGSWAN_CONF=/host/swanctl.empty SWANCTL_DIR=/host/swanctl swanctl {words} --uri unix:///run/vici 2>&1"
        ))
    }
}

impl Peer for StrongSwanKernel {
    fn kind(&self) -> PeerKind {
        PeerKind::StrongswanKernel
    }

    fn start(&mut self) -> Result<()> {
        self.guest.must(
            "STRONGSWAN_CONF=/host/strongswan.conf charon-systemd >/host/stderr 2>&1 & \
             for i in $(seq 100); do [ -S /run/vici ] && exit 0; sleep 0.05; done; cat /host/stderr; exit 1",
        )?;
        self.swanctl("--load-all").map(drop)
    }

    fn initiate(&mut self) -> Result<()> {
        let child = self.spec.name.clone();
        self.swanctl(&format!("--initiate --child {child} --timeout 10")).map(drop)
    }

    fn status(&mut self) -> Result<Status> {
        let output = self.swanctl("--list-sas --raw")?;
        Ok(read_status(&output))
    }

    fn configuration(&self) -> String {
        swanctl_conf(&self.spec)
    }

    fn log_tail(&mut self, lines: usize) -> String {
        tail(&(self.guest.file("stderr") + &self.guest.file("charon.log")), lines)
    }

    fn stop(&mut self) {
        let _ = self.guest.run("kill $(pidof charon-systemd); sleep 0.2", Duration::from_secs(2));
    }
}
