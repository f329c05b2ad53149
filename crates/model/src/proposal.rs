//! What a side offers or takes: sets of algorithms per kind, in order of preference.

use std::fmt;

use base::algorithm::{Encryption, Group, Integrity, Prf};
use serde::{Deserialize, Serialize};

use crate::{Version, Versions};

/// A phase 1 proposal: any one of each kind may be chosen. In IKEv1 each combination is a transform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IkeProposal {
    /// All AEAD or all not: RFC 7296 §3.3.3 wants them in separate proposals.
    pub encryption: Vec<Encryption>,
    /// Empty for AEAD.
    pub integrity: Vec<Integrity>,
    /// The PRF; in IKEv1 also the hash.
    pub prf: Vec<Prf>,
    /// Diffie-Hellman groups.
    pub groups: Vec<Group>,
}

/// A phase 2 proposal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EspProposal {
    /// All AEAD or all not.
    pub encryption: Vec<Encryption>,
    /// Empty for AEAD.
    pub integrity: Vec<Integrity>,
    /// Groups for perfect forward secrecy; empty is none.
    pub groups: Vec<Group>,
    /// Extended sequence numbers that are acceptable, preferred first; IKEv1 takes the first.
    pub esn: Vec<bool>,
}

impl IkeProposal {
    /// What is offered where a connection of these versions names nothing: nothing weak. In IKEv1 each combination is a
    /// transform of its own and all of them have to fit into one packet, so the list is cut to what its peers are likely
    /// to take.
    pub fn defaults(versions: Versions) -> Vec<Self> {
        let mut defaults = Self::v2_defaults();
        if versions == Versions::Only(Version::V1) {
            defaults.retain(|proposal| !proposal.encryption.iter().any(|e| e.is_aead()));
        }
        if versions.initiate() == Version::V1 {
            for proposal in &mut defaults {
                proposal.integrity.truncate(1);
                proposal.prf.truncate(1);
                proposal.groups.retain(|group| matches!(group, Group::Modp2048 | Group::Modp3072 | Group::Ecp256));
            }
        }
        defaults
    }

    fn v2_defaults() -> Vec<Self> {
        let groups = vec![
            Group::Curve25519,
            Group::Ecp256,
            Group::Ecp384,
            Group::Ecp521,
            Group::Modp2048,
            Group::Modp3072,
            Group::Modp4096,
        ];
        vec![
            Self {
                encryption: vec![Encryption::Aes256Gcm, Encryption::Aes128Gcm, Encryption::ChaCha20Poly1305],
                integrity: vec![],
                prf: vec![Prf::Sha256, Prf::Sha384, Prf::Sha512],
                groups: groups.clone(),
            },
            Self {
                encryption: vec![Encryption::Aes256Cbc, Encryption::Aes128Cbc],
                integrity: vec![Integrity::Sha256, Integrity::Sha384, Integrity::Sha512],
                prf: vec![Prf::Sha256, Prf::Sha384, Prf::Sha512],
                groups,
            },
        ]
    }

    /// Whether any of its algorithms is weak.
    pub fn weak(&self) -> Vec<String> {
        let mut weak = weak_of(&self.encryption, &self.integrity, &self.groups);
        for prf in self.prf.iter().filter(|prf| prf.is_weak()) {
            let name = prf.to_string();
            if !weak.contains(&name) {
                weak.push(name);
            }
        }
        weak
    }
}

impl EspProposal {
    /// What is offered where a connection of these versions names nothing: nothing weak. IKEv1 has no number for
    /// ChaCha20-Poly1305.
    pub fn defaults(versions: Versions) -> Vec<Self> {
        let mut defaults = Self::v2_defaults();
        if versions == Versions::Only(Version::V1) {
            defaults.iter_mut().for_each(|proposal| proposal.encryption.retain(|e| e.v1_esp_id().is_some()));
        }
        defaults
    }

    fn v2_defaults() -> Vec<Self> {
        vec![
            Self {
                encryption: vec![Encryption::Aes128Gcm, Encryption::Aes256Gcm, Encryption::ChaCha20Poly1305],
                integrity: vec![],
                groups: vec![],
                esn: vec![false],
            },
            Self {
                encryption: vec![Encryption::Aes128Cbc, Encryption::Aes256Cbc],
                integrity: vec![Integrity::Sha256],
                groups: vec![],
                esn: vec![false],
            },
        ]
    }

    /// Names of its weak algorithms.
    pub fn weak(&self) -> Vec<String> {
        weak_of(&self.encryption, &self.integrity, &self.groups)
    }
}

fn weak_of(encryption: &[Encryption], integrity: &[Integrity], groups: &[Group]) -> Vec<String> {
    let encryption = encryption.iter().filter(|e| e.is_weak()).map(ToString::to_string);
    let integrity = integrity.iter().filter(|i| i.is_weak()).map(ToString::to_string);
    let groups = groups.iter().filter(|g| g.is_weak()).map(ToString::to_string);
    encryption.chain(integrity).chain(groups).collect()
}

/// Writes `names` behind what is there, joined with `-`.
fn join<T: fmt::Display>(f: &mut fmt::Formatter<'_>, first: &mut bool, prefix: &str, names: &[T]) -> fmt::Result {
    for name in names {
        if !std::mem::take(first) {
            f.write_str("-")?;
        }
        write!(f, "{prefix}{name}")?;
    }
    Ok(())
}

impl fmt::Display for IkeProposal {
    /// The strongSwan spelling, such as `aes128-sha1-modp1024`; the PRF shows where integrity does not imply it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        join(f, &mut first, "", &self.encryption)?;
        join(f, &mut first, "", &self.integrity)?;
        if !self.integrity.iter().map(|i| i.prf()).eq(self.prf.iter().copied()) {
            join(f, &mut first, "prf", &self.prf)?;
        }
        join(f, &mut first, "", &self.groups)
    }
}

impl fmt::Display for EspProposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        join(f, &mut first, "", &self.encryption)?;
        join(f, &mut first, "", &self.integrity)?;
        join(f, &mut first, "", &self.groups)?;
        let esn = match self.esn.as_slice() {
            [true] => "-esn",
            [true, false] => "-esn-noesn",
            [false, true] => "-noesn-esn",
            _ => "",
        };
        f.write_str(esn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proposals_are_shown_as_strongswan_spells_them() {
        let ike = IkeProposal {
            encryption: vec![Encryption::Aes128Cbc],
            integrity: vec![Integrity::Sha1],
            prf: vec![Prf::Sha1],
            groups: vec![Group::Modp1024],
        };
        assert_eq!(ike.to_string(), "aes128-sha1-modp1024");
        assert_eq!(ike.weak(), ["sha1", "modp1024"]);
        let gcm =
            IkeProposal { encryption: vec![Encryption::Aes256Gcm], integrity: vec![], prf: vec![Prf::Sha384], ..ike };
        assert_eq!(gcm.to_string(), "aes256gcm16-prfsha384-modp1024");
    }

    const ALL: [Versions; 4] = [
        Versions::Only(Version::V1),
        Versions::Only(Version::V2),
        Versions::Both { initiate: Version::V1 },
        Versions::Both { initiate: Version::V2 },
    ];

    #[test]
    fn no_default_is_weak() {
        for versions in ALL {
            assert!(IkeProposal::defaults(versions).iter().all(|p| p.weak().is_empty()));
            assert!(EspProposal::defaults(versions).iter().all(|p| p.weak().is_empty()));
        }
    }

    #[test]
    fn every_default_of_ikev1_can_be_said_in_it() {
        let v1 = Versions::Only(Version::V1);
        let ike = IkeProposal::defaults(v1).into_iter().flat_map(|p| p.encryption).collect::<Vec<_>>();
        let esp = EspProposal::defaults(v1).into_iter().flat_map(|p| p.encryption).collect::<Vec<_>>();
        assert!(!ike.is_empty() && ike.iter().all(|e| e.v1_phase1_id().is_some()));
        assert!(!esp.is_empty() && esp.iter().all(|e| e.v1_esp_id().is_some()));
    }
}
