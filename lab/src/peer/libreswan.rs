//! Libreswan 4.10 of Debian on the kernel of a guest.
//!
//! Debian builds it without group 2 (`USE_DH2`): where a connection names modp1024, this peer uses
//! modp2048, and its other end has to as well ([`group_for`]).

use std::time::Duration;

use base::algorithm::{Encryption, Group, Integrity, Prf};

use crate::clock;
use crate::error::Result;
use crate::netns::Lab;
use crate::peer::cache::Cache;
use crate::peer::guest::Guest;
use crate::peer::{ChildStatus, Peer, PeerKind, Place, Status, tail, write_private};
use crate::spec::{ConnectionSpec, Encapsulation, EspProposal, IkeProposal, Start, Version};

/// The group to use with this peer instead of `group`, where Debian's build does not know it.
pub(crate) fn group_for(group: Group) -> Group {
    if group == Group::Modp1024 { Group::Modp2048 } else { group }
}

/// pluto in a guest.
pub struct Libreswan {
    spec: ConnectionSpec,
    guest: Guest,
}

/// Makes pluto's directories and its configuration in the guest.
const SETUP: &str = "cp /host/ipsec.conf /etc/ipsec.conf\ncp /host/ipsec.secrets /etc/ipsec.secrets\n\
                     mkdir -p /run/pluto /var/lib/ipsec/nss\nipsec initnss\n";

impl Libreswan {
    /// Boots the guest with its configuration.
    ///
    /// # Errors
    ///
    /// When it does not boot.
    pub fn new(lab: &Lab, place: &Place, spec: ConnectionSpec) -> Result<Self> {
        let dir = lab.subdir(&place.name)?;
        write_private(&dir.join("ipsec.conf"), &ipsec_conf(&spec))?;
        write_private(&dir.join("ipsec.secrets"), &secrets(&spec))?;
        let layer = Cache::prepare(lab.shell())?.libreswan();
        let guest = Guest::boot(lab, place, &dir, &[layer], SETUP)?;
        Ok(Self { spec, guest })
    }
}

impl Peer for Libreswan {
    fn kind(&self) -> PeerKind {
        PeerKind::Libreswan
    }

    fn start(&mut self) -> Result<()> {
        self.guest.must("/usr/libexec/ipsec/pluto --config /etc/ipsec.conf --logfile /host/pluto.log")?;
        // pluto loads its connections after it answers. Until the policy for traffic is there, traffic leaves in clear.
        let loaded = match self.spec.start {
            Start::OnTraffic => format!("\"{}\": .*; prospective erouted;", self.spec.name),
            Start::Wait | Start::AtOnce => format!("\"{}\": .*; (unrouted|erouted|prospective)", self.spec.name),
        };
        let line = format!("ipsec whack --status 2>/dev/null | grep -qE '^000 {loaded}'");
        clock::wait_for("Libreswan's connection", Duration::from_secs(15), || {
            Ok(self.guest.run(&line, Duration::from_secs(10))?.ok)
        })?;
        if self.spec.start != Start::Wait {
            return Ok(());
        }
        // A responder of Libreswan has its outbound policy a moment after its inbound one, which is a second on a slow
        // machine: until then answers leave in clear. As its operators do, what no other policy covers is held back.
        let (own, other) = (self.spec.local.network, self.spec.remote.network);
        let block = format!("ip xfrm policy add src {own} dst {other} dir out action block priority 4294967295");
        self.guest.must(&block).map(drop)
    }

    fn initiate(&mut self) -> Result<()> {
        let line = format!("ipsec whack --initiate --name {} --asynchronous", self.spec.name);
        self.guest.must(&line).map(drop)
    }

    fn status(&mut self) -> Result<Status> {
        let output = self.guest.run(
            "ipsec whack --status | grep -E '^000 #|algorithm newest'; ip -s xfrm state",
            Duration::from_secs(5),
        )?;
        Ok(read_status(&output.stdout, &self.spec))
    }

    fn configuration(&self) -> String {
        ipsec_conf(&self.spec)
    }

    fn log_tail(&mut self, lines: usize) -> String {
        tail(&self.guest.file("pluto.log"), lines)
    }

    fn stop(&mut self) {
        let _ = self.guest.run("ipsec whack --shutdown", Duration::from_secs(3));
    }
}

fn secrets(spec: &ConnectionSpec) -> String {
    format!("{} {} : PSK \"{}\"\n", spec.local.id, spec.remote.id, spec.psk)
}

/// The connection in Libreswan's words.
fn ipsec_conf(spec: &ConnectionSpec) -> String {
    let auto = match spec.start {
        Start::Wait => "add",
        Start::AtOnce => "start",
        Start::OnTraffic => "ondemand",
    };
    let version = match spec.version {
        Version::V1 => "no",
        Version::V2 => "insist",
    };
    let mut lines = vec![
        "config setup".to_owned(),
        // From 4.10 on IKEv1 is refused unless this is said.
        "    ikev1-policy=accept".into(),
        String::new(),
        format!("conn {}", spec.name),
        "    authby=secret".into(),
        "    type=tunnel".into(),
        format!("    auto={auto}"),
        format!("    ikev2={version}"),
        format!("    left={}", spec.local.address),
        format!("    leftid={}", spec.local.id),
        format!("    leftsubnet={}", spec.local.network),
        format!("    right={}", spec.remote.address),
        format!("    rightid={}", spec.remote.id),
        format!("    rightsubnet={}", spec.remote.network),
        format!("    ike={}", ike_words(&spec.ike)),
        format!("    phase2alg={}", esp_words(&spec.esp)),
        format!("    ikelifetime={}s", spec.ike_lifetime.time.as_secs()),
        format!("    salifetime={}s", spec.child_lifetime.time.as_secs()),
        format!("    rekeymargin={}s", spec.child_lifetime.margin.as_secs()),
        "    rekeyfuzz=0%".into(),
        "    keyingtries=%forever".into(),
        format!("    pfs={}", if spec.esp.group.is_some() { "yes" } else { "no" }),
        format!("    esn={}", if spec.esp.esn { "yes" } else { "no" }),
    ];
    match spec.encapsulation {
        Encapsulation::Auto => {}
        Encapsulation::Plain => lines.push("    encapsulation=no".into()),
        Encapsulation::Udp => lines.push("    encapsulation=yes".into()),
    }
    if let Some(dpd) = spec.dpd {
        lines.push(format!("    dpddelay={}", dpd.delay.as_secs()));
        lines.push(format!("    dpdtimeout={}", dpd.timeout.as_secs()));
        lines.push("    dpdaction=restart".into());
    }
    lines.join("\n") + "\n"
}

fn ike_words(ike: &IkeProposal) -> String {
    let hash = ike.integrity.map_or_else(|| prf_word(ike.prf).to_owned(), |integrity| integrity_word(integrity).into());
    format!("{}-{hash};{}", encryption_word(ike.encryption), group_word(ike.group))
}

fn esp_words(esp: &EspProposal) -> String {
    let mut words = encryption_word(esp.encryption).to_owned();
    if let Some(integrity) = esp.integrity {
        words.push('-');
        words.push_str(integrity_word(integrity));
    }
    if let Some(group) = esp.group {
        words.push(';');
        words.push_str(&group_word(group));
    }
    words
}

const fn encryption_word(encryption: Encryption) -> &'static str {
    match encryption {
        Encryption::TripleDesCbc => "3des",
        Encryption::Aes128Cbc => "aes128",
        Encryption::Aes192Cbc => "aes192",
        Encryption::Aes256Cbc => "aes256",
        Encryption::Aes128Gcm => "aes_gcm128",
        Encryption::Aes256Gcm => "aes_gcm256",
        Encryption::ChaCha20Poly1305 => "chacha20_poly1305",
    }
}

const fn integrity_word(integrity: Integrity) -> &'static str {
    match integrity {
        Integrity::Md5 => "md5",
        Integrity::Sha1 => "sha1",
        Integrity::Sha256 => "sha2_256",
        Integrity::Sha384 => "sha2_384",
        Integrity::Sha512 => "sha2_512",
    }
}

const fn prf_word(prf: Prf) -> &'static str {
    match prf {
        Prf::Md5 => "md5",
        Prf::Sha1 => "sha1",
        Prf::Sha256 => "sha2_256",
        Prf::Sha384 => "sha2_384",
        Prf::Sha512 => "sha2_512",
    }
}

fn group_word(group: Group) -> String {
    format!("dh{}", group_for(group).id())
}

/// Reads `ipsec whack --status` and `ip -s xfrm state`, one behind the other.
fn read_status(text: &str, spec: &ConnectionSpec) -> Status {
    let mut status = Status::default();
    let mut esp = String::new();
    for line in text.lines() {
        if let Some((what, algorithms)) = line.split_once(" algorithm newest: ") {
            let target = if what.ends_with("ESP") { &mut esp } else { &mut status.ike };
            algorithms.clone_into(target);
        }
        // 000 #1: "Tunnel1":4500 STATE_MAIN_I4 (IKE SA established); REPLACE in 28256s; newest; idle;
        let Some((_, rest)) = line.strip_prefix("000 #").and_then(|line| line.split_once(": \"")) else { continue };
        let state = rest.split_whitespace().nth(1).unwrap_or_default();
        let done = ["IKE SA established", "established IKE SA"].iter().any(|words| rest.contains(words));
        if done {
            status.established = true;
            status.ike_sas += 1;
            status.version = Some(spec.version.number());
        }
        if done || status.state.is_empty() {
            status.state = state.to_owned();
        }
    }
    status.children = read_xfrm(text, &spec.local.address.to_string());
    for child in &mut status.children {
        child.esp.clone_from(&esp);
    }
    status
}

/// Pairs the kernel's inbound and outbound SAs, in the order in which it lists them.
fn read_xfrm(text: &str, local: &str) -> Vec<ChildStatus> {
    let mut inbound = Vec::new();
    let mut outbound = Vec::new();
    let mut sa: Option<(bool, ChildStatus)> = None;
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["src", from, "dst", _, ..] => {
                finish(sa.take(), &mut inbound, &mut outbound);
                let child = ChildStatus { udp: Some(false), esn: Some(false), ..ChildStatus::default() };
                sa = Some((*from == local, child));
            }
            ["proto", "esp", "spi", spi, ..] => {
                let hex = spi.split('(').next().unwrap_or_default().trim_start_matches("0x");
                set(&mut sa, |child| hex.clone_into(&mut child.spi_in));
            }
            ["encap", ..] => set(&mut sa, |child| child.udp = Some(true)),
            ["replay-window", _, "seq", _, "flag", flags @ ..] if flags.contains(&"esn") => {
                set(&mut sa, |child| child.esn = Some(true));
            }
            ["enc" | "aead", algorithm, ..] => set(&mut sa, |child| child.esp.push_str(algorithm)),
            ["lifetime", "current:"] => {
                let now = lines.peek().copied().unwrap_or_default();
                let number =
                    |unit: &str| now.split(',').find_map(|part| part.trim().strip_suffix(unit)?.parse::<u64>().ok());
                let (bytes, packets) = (number("(bytes)"), number("(packets)"));
                set(&mut sa, |child| {
                    child.bytes_in = bytes.unwrap_or(0);
                    child.packets_in = packets;
                });
            }
            _ => {}
        }
    }
    finish(sa, &mut inbound, &mut outbound);
    let pair = |(input, output): (ChildStatus, ChildStatus)| ChildStatus {
        spi_out: output.spi_in,
        bytes_out: output.bytes_in,
        packets_out: output.packets_in,
        esn: Some(input.esn == Some(true) && output.esn == Some(true)),
        ..input
    };
    inbound.into_iter().zip(outbound).map(pair).collect()
}

fn set(sa: &mut Option<(bool, ChildStatus)>, change: impl FnOnce(&mut ChildStatus)) {
    if let Some((_, child)) = sa {
        change(child);
    }
}

fn finish(sa: Option<(bool, ChildStatus)>, inbound: &mut Vec<ChildStatus>, outbound: &mut Vec<ChildStatus>) {
    match sa {
        // An SPI still being negotiated has no algorithm.
        Some((_, child)) if child.spi_in.is_empty() || child.esp.is_empty() => {}
        Some((true, child)) => outbound.push(child),
        Some((false, child)) => inbound.push(child),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Suite;
    use crate::spec::tests_support::spec;

    const STATUS: &str = r#"000 "Tunnel1":   IKEv1 algorithm newest: AES_CBC_128-HMAC_SHA1-MODP2048
000 "Tunnel1":   ESP algorithm newest: AES_CBC_128-HMAC_SHA1_96; pfsgroup=MODP2048
000 #3: "Tunnel1":4500 STATE_MAIN_I4 (IKE SA established); REPLACE in 28256s; newest; idle;
000 #4: "Tunnel1":4500 STATE_QUICK_I2 (IPsec SA established); REPLACE in 3057s; newest; idle;
src 43.200.61.196 dst 10.60.0.100
	proto esp spi 0xc738e016(3342393366) reqid 16393(0x00004009) mode tunnel
	replay-window 0 seq 0x00000000 flag af-unspec (0x00100000)
	auth-trunc hmac(sha1) 0x00 (160 bits) 96
	enc cbc(aes) 0x00 (128 bits)
	encap type espinudp sport 4500 dport 4500 addr 0.0.0.0
	anti-replay esn context:
	lifetime current:
	  3880(bytes), 14(packets)
src 10.60.0.100 dst 43.200.61.196
	proto esp spi 0xa6a9ebff(2796153855) reqid 16393(0x00004009) mode tunnel
	replay-window 0 seq 0x00000000 flag af-unspec esn (0x00100000)
	enc cbc(aes) 0x00 (128 bits)
	lifetime current:
	  3840(bytes), 12(packets)
"#;

    #[test]
    fn what_pluto_and_the_kernel_say_becomes_one_status() {
        let status = read_status(STATUS, &spec());
        assert!(status.established);
        assert_eq!((status.state.as_str(), status.ike_sas), ("STATE_MAIN_I4", 1));
        let [child] = status.children.as_slice() else { panic!("{:?}", status.children) };
        assert_eq!((child.spi_in.as_str(), child.spi_out.as_str()), ("c738e016", "a6a9ebff"));
        assert_eq!((child.packets_in, child.bytes_out, child.udp), (Some(14), 3840, Some(true)));
        assert_eq!(child.esn, Some(false), "both directions have to say so");
        assert_eq!(child.esp, "AES_CBC_128-HMAC_SHA1_96; pfsgroup=MODP2048");
    }

    #[test]
    fn group_2_becomes_group_14_and_gcm_is_spelled_its_way() {
        let conf = ipsec_conf(&spec());
        assert!(conf.contains("ike=aes128-sha1;dh14\n"), "{conf}");
        assert!(conf.contains("phase2alg=aes128-sha1;dh14\n"), "{conf}");
        assert!(conf.contains("ikev2=no\n"), "{conf}");
        let modern = ConnectionSpec { ike: Suite::Modern.ike(), esp: Suite::Modern.esp(true), ..spec() };
        let conf = ipsec_conf(&modern);
        assert!(conf.contains("ike=aes_gcm256-sha2_384;dh20\n"), "{conf}");
        assert!(conf.contains("phase2alg=aes_gcm256;dh20\n") && conf.contains("esn=yes\n"), "{conf}");
    }
}
