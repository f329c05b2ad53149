//! `ncp-vgw`: an ASA-like gateway of NCP and a virtual private gateway. IKEv1, AES, SHA1 and
//! group 2 with PFS; the first packet of traffic brings the tunnel up; short lifetimes, so that
//! both kinds of rekey happen while a ping runs.

use std::time::Duration;

use crate::error::Result;
use crate::peer::{PeerKind, Plan};
use crate::scenario::{Initiator, Options, Plans};
use crate::spec::{ConnectionSpec, Dpd, End, Lifetime, Start, Version};
use crate::topology::Ground;

/// The initiator replaces keys well before they expire, the responder only if it must: rekeying
/// from both ends at once is tried elsewhere.
const CHILD_SECONDS: u64 = 12;
const IKE_SECONDS: u64 = 24;

pub(super) fn plans(ground: &Ground, options: &Options) -> Result<Plans> {
    let mut notes = Vec::new();
    let (ike, esp) = super::play::suite(options, &mut notes);
    let end = |site: &crate::topology::Site| End { address: site.public, id: site.public, network: site.network };
    let starts = |end: Initiator| options.initiator == end;
    let margins = |end: Initiator| if starts(end) { (6, 14) } else { (2, 2) };
    let spec = |own: Initiator, local: End, remote: End| {
        let (child_margin, ike_margin) = margins(own);
        ConnectionSpec {
            name: "outside_map-1".into(),
            version: options.version.unwrap_or(Version::V1),
            local,
            remote,
            psk: "rkskekfk".into(),
            ike,
            esp,
            ike_lifetime: Lifetime::seconds(IKE_SECONDS, ike_margin),
            child_lifetime: Lifetime::seconds(CHILD_SECONDS, child_margin),
            dpd: Some(Dpd { delay: Duration::from_secs(10), timeout: Duration::from_secs(30) }),
            start: if starts(own) { Start::OnTraffic } else { Start::Wait },
            encapsulation: options.encapsulation,
        }
    };
    let starter = if starts(Initiator::Customer) { options.customer } else { options.cloud };
    if starter == PeerKind::Strongswan {
        notes.push("strongSwan's user-space ESP does not tell its daemon of a first packet: the lab does".into());
    }
    let customer = spec(Initiator::Customer, end(&ground.customer), end(&ground.cloud));
    let cloud = spec(Initiator::Cloud, end(&ground.cloud), end(&ground.customer));
    Ok(Plans { customer: Plan { spec: customer, files: None }, cloud: Plan { spec: cloud, files: None }, notes })
}
