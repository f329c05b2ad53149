//! One end of a connection in neutral words, from which each peer writes its own configuration.

use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use base::algorithm::{Encryption, Group, Integrity, Prf};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// A version of IKE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Version {
    /// RFC 2409.
    #[serde(rename = "1")]
    V1,
    /// RFC 7296.
    #[serde(rename = "2")]
    V2,
}

impl Version {
    /// 1 or 2.
    pub const fn number(self) -> u8 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IKEv{}", self.number())
    }
}

/// When an end brings the tunnel up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// It waits for the other end.
    Wait,
    /// When it starts.
    AtOnce,
    /// With the first packet of traffic.
    OnTraffic,
}

/// How ESP travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encapsulation {
    /// In UDP where there is a NAT, or where a peer needs it.
    #[default]
    Auto,
    /// As IP protocol 50; needs a path without NAT.
    Plain,
    /// In UDP, whatever the path.
    Udp,
}

/// What phase 1 uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IkeProposal {
    /// Encryption.
    pub encryption: Encryption,
    /// Integrity; `None` for AEAD.
    pub integrity: Option<Integrity>,
    /// PRF, in IKEv1 the hash.
    pub prf: Prf,
    /// Diffie-Hellman group.
    pub group: Group,
}

/// What phase 2 uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EspProposal {
    /// Encryption.
    pub encryption: Encryption,
    /// Integrity; `None` for AEAD.
    pub integrity: Option<Integrity>,
    /// Group for perfect forward secrecy.
    pub group: Option<Group>,
    /// Extended sequence numbers.
    pub esn: bool,
}

/// The strongSwan spelling, which simplon reads too.
impl fmt::Display for IkeProposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.integrity {
            Some(integrity) => write!(f, "{}-{integrity}-{}", self.encryption, self.group),
            None => write!(f, "{}-prf{}-{}", self.encryption, self.prf, self.group),
        }
    }
}

impl fmt::Display for EspProposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.encryption)?;
        if let Some(integrity) = self.integrity {
            write!(f, "-{integrity}")?;
        }
        if let Some(group) = self.group {
            write!(f, "-{group}")?;
        }
        f.write_str(if self.esn { "-esn" } else { "" })
    }
}

/// Dead peer detection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dpd {
    /// Silence after which the peer is asked.
    pub delay: Duration,
    /// Silence after which it is given up (IKEv1).
    pub timeout: Duration,
}

/// One end's outside address, identity and network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Where it is seen from the end that this is written for.
    pub address: Ipv4Addr,
    /// What it proves to be.
    pub id: Ipv4Addr,
    /// The network behind it.
    pub network: IpNet,
}

/// What one gateway is told about the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionSpec {
    /// Its name.
    pub name: String,
    /// The version of IKE.
    pub version: Version,
    /// This end.
    pub local: End,
    /// The other end.
    pub remote: End,
    /// The pre-shared key: a documented one, no secret.
    pub psk: String,
    /// Phase 1.
    pub ike: IkeProposal,
    /// Phase 2.
    pub esp: EspProposal,
    /// Lifetime of the IKE SA.
    pub ike_lifetime: Lifetime,
    /// Lifetime of the Child SA.
    pub child_lifetime: Lifetime,
    /// Dead peer detection.
    pub dpd: Option<Dpd>,
    /// When this end brings it up.
    pub start: Start,
    /// How ESP travels.
    pub encapsulation: Encapsulation,
}

/// How long keys live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// They are gone after this.
    pub time: Duration,
    /// They are replaced this long before.
    pub margin: Duration,
}

impl Lifetime {
    /// In seconds.
    pub const fn seconds(time: u64, margin: u64) -> Self {
        Self { time: Duration::from_secs(time), margin: Duration::from_secs(margin) }
    }

    /// When they are replaced.
    pub const fn rekey(self) -> Duration {
        self.time.saturating_sub(self.margin)
    }
}

/// Named sets of algorithms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Suite {
    /// AES-128-CBC, SHA1, group 2: what the documents of the scenarios name.
    #[default]
    Classic,
    /// AES-256-GCM, SHA-384, P-384.
    Modern,
}

impl Suite {
    /// Phase 1 with this suite.
    pub const fn ike(self) -> IkeProposal {
        match self {
            Self::Classic => IkeProposal {
                encryption: Encryption::Aes128Cbc,
                integrity: Some(Integrity::Sha1),
                prf: Prf::Sha1,
                group: Group::Modp1024,
            },
            Self::Modern => IkeProposal {
                encryption: Encryption::Aes256Gcm,
                integrity: None,
                prf: Prf::Sha384,
                group: Group::Ecp384,
            },
        }
    }

    /// Phase 2 with this suite, with perfect forward secrecy.
    pub const fn esp(self, esn: bool) -> EspProposal {
        match self {
            Self::Classic => EspProposal {
                encryption: Encryption::Aes128Cbc,
                integrity: Some(Integrity::Sha1),
                group: Some(Group::Modp1024),
                esn,
            },
            Self::Modern => {
                EspProposal { encryption: Encryption::Aes256Gcm, integrity: None, group: Some(Group::Ecp384), esn }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proposals_are_written_as_strongswan_spells_them() {
        assert_eq!(Suite::Classic.ike().to_string(), "aes128-sha1-modp1024");
        assert_eq!(Suite::Classic.esp(true).to_string(), "aes128-sha1-modp1024-esn");
        assert_eq!(Suite::Modern.ike().to_string(), "aes256gcm16-prfsha384-ecp384");
        assert_eq!(Suite::Modern.esp(false).to_string(), "aes256gcm16-ecp384");
    }
}

#[cfg(test)]
pub(crate) mod tests_support {
    use super::*;

    pub(crate) fn spec() -> ConnectionSpec {
        let end = |address: &str, id: &str, network: &str| End {
            address: address.parse().unwrap(),
            id: id.parse().unwrap(),
            network: network.parse().unwrap(),
        };
        ConnectionSpec {
            name: "Tunnel1".into(),
            version: Version::V1,
            local: end("10.60.0.100", "3.37.222.142", "10.60.0.0/16"),
            remote: end("43.200.61.196", "43.200.61.196", "10.50.0.0/16"),
            psk: "cloudneta".into(),
            ike: Suite::Classic.ike(),
            esp: Suite::Classic.esp(false),
            ike_lifetime: Lifetime::seconds(28_800, 540),
            child_lifetime: Lifetime::seconds(3_600, 540),
            dpd: Some(Dpd { delay: Duration::from_secs(10), timeout: Duration::from_secs(30) }),
            start: Start::AtOnce,
            encapsulation: Encapsulation::Auto,
        }
    }
}
