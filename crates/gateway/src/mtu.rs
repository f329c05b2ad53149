//! How large an inner packet may be so that its ESP packet passes the path unfragmented.

use esp::wire::{inner_mtu, outer_overhead};
use model::{Child, DfPolicy, Encapsulation, EspProposal, Routing};
use sa::{ChildSuite, Path};

/// The outer MTU where the shell has not said which it is, in bytes.
pub const DEFAULT_OUTER: u16 = 1500;
/// Smallest inner MTU that is ever set: below, IPv4 does not work (RFC 791 §3.1).
const SMALLEST: u16 = 68;

/// Where an inner MTU comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// A person wrote it.
    Configured,
    /// It follows from the suite, the encapsulation and the MTU of the outer path.
    Computed,
}

/// An inner MTU and what it follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InnerMtu {
    /// The largest inner packet, in bytes.
    pub inner: u16,
    /// The MTU of the outer path, in bytes.
    pub outer: u16,
    /// Bytes that encryption and the outer headers add to the largest packet.
    pub overhead: u16,
    /// Where it comes from.
    pub from: From,
}

impl InnerMtu {
    /// The inner MTU of an SA with this suite on this path.
    pub fn of(suite: ChildSuite, path: &Path, outer: u16, configured: Option<u16>) -> Self {
        let computed = u16::try_from(inner_mtu(suite, path, outer.into())).unwrap_or(u16::MAX).max(SMALLEST);
        let inner = configured.unwrap_or(computed);
        let layout = esp::wire::Layout::of(suite);
        let sealed = layout.sealed_len(inner.into()) + outer_overhead(path);
        let overhead = u16::try_from(sealed.saturating_sub(inner.into())).unwrap_or(u16::MAX);
        let from = if configured.is_some() { From::Configured } else { From::Computed };
        Self { inner, outer, overhead, from }
    }

    /// The TCP maximum segment size that fits, for IPv4 and for IPv6 (without options).
    pub const fn mss(&self) -> (u16, u16) {
        (self.inner.saturating_sub(40), self.inner.saturating_sub(60))
    }
}

/// The MTU that the device of a route-based child should have: what was configured, else what its SA carries, else
/// what the first proposal will carry at least.
pub fn of_device(child: &Child, encapsulation: Encapsulation, outer: u16, sa: Option<(ChildSuite, Path)>) -> u16 {
    if let Some(mtu) = child.mtu {
        return mtu;
    }
    if child.df == DfPolicy::Clear || child.routing == Routing::Policy {
        // Larger packets are fragmented before encryption, or refused policy by policy: the kernel must not do it.
        return outer;
    }
    let (suite, path) = match sa {
        Some(sa) => sa,
        None => match child.esp.first().and_then(first_suite) {
            Some(suite) => (suite, expected_path(encapsulation)),
            None => return outer,
        },
    };
    InnerMtu::of(suite, &path, outer, None).inner
}

fn first_suite(proposal: &EspProposal) -> Option<ChildSuite> {
    let esn = proposal.esn.first().copied().unwrap_or(false);
    let encryption = *proposal.encryption.first()?;
    Some(ChildSuite { encryption, integrity: proposal.integrity.first().copied(), esn })
}

/// Before there is an SA a NAT is assumed unless it is ruled out: a device that shrinks later would lose packets.
fn expected_path(encapsulation: Encapsulation) -> Path {
    let any = std::net::SocketAddr::from(([0, 0, 0, 0], 0));
    Path { local: any, remote: any, udp: encapsulation != Encapsulation::Never }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::algorithm::{Encryption, Integrity};

    fn path(udp: bool) -> Path {
        Path { local: "192.0.2.1:4500".parse().unwrap(), remote: "192.0.2.2:4500".parse().unwrap(), udp }
    }

    fn suite(encryption: Encryption, integrity: Option<Integrity>) -> ChildSuite {
        ChildSuite { encryption, integrity, esn: false }
    }

    /// The table of the AWS Site-to-Site VPN user guide ("Best practices: MTU and MSS"): suite, NAT, MTU, MSS v4, v6.
    #[test]
    fn mtu_and_mss_are_those_of_the_aws_user_guide() {
        use Integrity::{Sha1, Sha256, Sha384, Sha512};
        let gcm = suite(Encryption::Aes128Gcm, None);
        let cbc = |integrity| suite(Encryption::Aes128Cbc, Some(integrity));
        for (suite, nat, mtu, v4, v6) in [
            (gcm, false, 1446, 1406, 1386),
            (gcm, true, 1438, 1398, 1378),
            (cbc(Sha1), false, 1438, 1398, 1378),
            (cbc(Sha256), false, 1438, 1398, 1378),
            (cbc(Sha1), true, 1422, 1382, 1362),
            (cbc(Sha256), true, 1422, 1382, 1362),
            (cbc(Sha384), false, 1422, 1382, 1362),
            (cbc(Sha384), true, 1422, 1382, 1362),
            (cbc(Sha512), false, 1422, 1382, 1362),
            (cbc(Sha512), true, 1406, 1366, 1346),
        ] {
            let found = InnerMtu::of(suite, &path(nat), 1500, None);
            assert_eq!((found.inner, found.mss()), (mtu, (v4, v6)), "{suite} nat={nat}");
            assert!(found.inner + found.overhead <= 1500);
        }
    }

    #[test]
    fn a_configured_mtu_wins_and_says_so() {
        let found = InnerMtu::of(suite(Encryption::Aes128Gcm, None), &path(true), 1500, Some(1400));
        assert_eq!((found.inner, found.from), (1400, From::Configured));
    }

    #[test]
    fn a_device_whose_packets_are_fragmented_before_encryption_keeps_the_outer_mtu() {
        let mut child = Child::named("a");
        child.routing = Routing::Device { name: "t".into(), addresses: vec![], routes: vec![], mark: None };
        assert_eq!(of_device(&child, Encapsulation::Auto, 1500, None), 1438);
        assert_eq!(of_device(&child, Encapsulation::Never, 1500, None), 1446);
        child.df = DfPolicy::Clear;
        assert_eq!(of_device(&child, Encapsulation::Auto, 1500, None), 1500);
    }
}
