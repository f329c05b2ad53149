//! `openswan-vgw`: the connection of an Openswan instance behind an Elastic IP to a virtual
//! private gateway, exactly as its `aws.conf` and `aws.secrets` say.
//!
//! simplon at the customer's end runs those two files. They name IKEv1 and initiate; for IKEv2 and
//! for the other role the same text with one line changed is run.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::netns::Lab;
use crate::peer::{Files, PeerKind, Plan, write_private};
use crate::scenario::{Initiator, Options, Plans};
use crate::spec::{ConnectionSpec, Dpd, End, Lifetime, Start, Suite, Version};
use crate::topology::Ground;

/// The same facts in our own words, for a checkout without the documents.
const OWN_CONF: &str = include_str!("../../inputs/openswan-vgw/aws.conf");
const OWN_SECRETS: &str = include_str!("../../inputs/openswan-vgw/aws.secrets");

pub(super) fn plans(lab: &Lab, ground: &Ground, options: &Options) -> Result<Plans> {
    let version = options.version.unwrap_or(Version::V1);
    let mut notes = Vec::new();
    let (ike, esp) = super::play::suite(options, &mut notes);
    let local = Ground::own_address(&ground.customer)?;
    let customer_end = |address| End { address, id: ground.customer.public, network: ground.customer.network };
    let cloud_end = || End { address: ground.cloud.public, id: ground.cloud.public, network: ground.cloud.network };
    let customer = ConnectionSpec {
        name: "Tunnel1".into(),
        version,
        local: customer_end(local),
        remote: cloud_end(),
        psk: "cloudneta".into(),
        ike,
        esp,
        ike_lifetime: Lifetime::seconds(8 * 3600, 540),
        child_lifetime: Lifetime::seconds(3600, 540),
        dpd: Some(Dpd { delay: Duration::from_secs(10), timeout: Duration::from_secs(30) }),
        start: if options.initiator == Initiator::Customer { Start::AtOnce } else { Start::Wait },
        encapsulation: options.encapsulation,
    };
    let cloud = ConnectionSpec {
        local: cloud_end(),
        remote: customer_end(ground.customer.public),
        start: if options.initiator == Initiator::Cloud { Start::AtOnce } else { Start::Wait },
        ..customer.clone()
    };
    let files = match options.customer {
        PeerKind::Simplon if runs_files(options) => {
            let (files, note) = files(lab, version, options.initiator)?;
            notes.push(note);
            Some(files)
        }
        PeerKind::Simplon | PeerKind::Strongswan | PeerKind::StrongswanKernel | PeerKind::Libreswan => None,
    };
    Ok(Plans { customer: Plan { spec: customer, files }, cloud: Plan { spec: cloud, files: None }, notes })
}

/// Whether somebody's files can be run as they are.
fn runs_files(options: &Options) -> bool {
    options.suite == Suite::Classic && !options.esn && options.trouble.is_none() && options.fault.is_none()
}

/// The files to run, and where they come from.
fn files(lab: &Lab, version: Version, initiator: Initiator) -> Result<(Files, String)> {
    let original = original();
    if let (Some(files), Version::V1, Initiator::Customer) = (&original, version, initiator) {
        let note = format!("simplon runs {} and its secrets as they are", files.conf.display());
        return Ok((files.clone(), note));
    }
    let read = |path: &Path| fs::read_to_string(path).map_err(|e| Error::io(format!("reading {}", path.display()), e));
    let (conf, secrets) = match &original {
        Some(files) => (read(&files.conf)?, read(&files.secrets)?),
        None => (OWN_CONF.to_owned(), OWN_SECRETS.to_owned()),
    };
    let dir = lab.subdir("openswan")?;
    let files = Files { conf: dir.join("aws.conf"), secrets: dir.join("aws.secrets") };
    write_private(&files.conf, &changed(&conf, version, initiator))?;
    write_private(&files.secrets, &secrets)?;
    let from = if original.is_some() { "the original aws.conf" } else { "the repository's aws.conf" };
    let version = if version == Version::V2 { " with ikev2=insist" } else { "" };
    let role = if initiator == Initiator::Cloud { " with auto=add" } else { "" };
    Ok((files, format!("simplon runs {from}{version}{role}")))
}

/// The text with the one line changed that another version or role asks for.
fn changed(conf: &str, version: Version, initiator: Initiator) -> String {
    let mut text = conf.to_owned();
    if initiator == Initiator::Cloud {
        text = text.replace("auto=start", "auto=add");
    }
    if version == Version::V2 {
        // In Openswan's files `keyexchange=ike` names the protocol; `ikev2` the version.
        text = text.replace("keyexchange=ike\n", "keyexchange=ike\n    ikev2=insist\n");
    }
    text
}

/// The documents' own files, where somebody has them: in `SIMPLON_INPUTS`, or beside the checkout.
fn original() -> Option<Files> {
    inputs_dir().map(|dir| dir.join("openswan")).and_then(|dir| {
        let files = Files { conf: dir.join("aws.conf"), secrets: dir.join("aws.secrets") };
        (files.conf.is_file() && files.secrets.is_file()).then_some(files)
    })
}

/// The folder of documents.
pub(super) fn inputs_dir() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/inputs").canonicalize().ok();
    let dir = std::env::var_os("SIMPLON_INPUTS").map(PathBuf::from).or_else(beside)?;
    dir.is_dir().then_some(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_or_role_changes_one_line() {
        let differs = |text: &str| {
            let new: Vec<&str> = text.lines().filter(|line| !OWN_CONF.lines().any(|own| own == *line)).collect();
            new.iter().map(|line| line.trim().to_owned()).collect::<Vec<_>>()
        };
        assert!(differs(&changed(OWN_CONF, Version::V1, Initiator::Customer)).is_empty());
        assert_eq!(differs(&changed(OWN_CONF, Version::V1, Initiator::Cloud)), ["auto=add"]);
        assert_eq!(differs(&changed(OWN_CONF, Version::V2, Initiator::Customer)), ["ikev2=insist"]);
    }

    #[test]
    fn simplon_reads_each_variant_as_it_is_meant() {
        for (version, initiator) in [
            (Version::V1, Initiator::Customer),
            (Version::V1, Initiator::Cloud),
            (Version::V2, Initiator::Customer),
            (Version::V2, Initiator::Cloud),
        ] {
            let files = dialects::MemoryFiles::new()
                .with("aws.conf", changed(OWN_CONF, version, initiator))
                .with("aws.secrets", OWN_SECRETS);
            let reading = dialects::ipsec_conf::read("aws.conf", Some("aws.secrets"), &files).unwrap();
            let connection = &reading.config.connections[0];
            let expected = if version == Version::V1 { model::Version::V1 } else { model::Version::V2 };
            assert_eq!(connection.versions.initiate(), expected);
            let starts = connection.children[0].start == model::Start::AtOnce;
            assert_eq!(starts, initiator == Initiator::Customer);
            assert_eq!(connection.psk[0].expose(), b"cloudneta");
        }
    }

    #[test]
    fn our_copy_has_the_facts_of_the_original() {
        let Some(files) = original() else { return };
        let words = |text: &str| {
            let mut words: Vec<String> = text
                .lines()
                .filter(|line| !line.trim_start().starts_with('#'))
                .flat_map(str::split_whitespace)
                .map(|word| word.replace('"', ""))
                .collect();
            words.sort();
            words
        };
        assert_eq!(words(OWN_CONF), words(&fs::read_to_string(files.conf).unwrap()));
        assert_eq!(words(OWN_SECRETS), words(&fs::read_to_string(files.secrets).unwrap()));
    }
}
