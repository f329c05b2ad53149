//! SAs for another process that goes on with them, or for a second gateway that stands by.
//!
//! There are two parts, so that the pause between the old data path and the new one is short. [`ExportedSa`] is what an SA
//! is made of: it may be sent, and the SAs made, while packets still pass. [`Standing`] is how far it is: taken when the
//! old data path has sealed and opened its last packet, and given to the new one before its first.
//!
//! A sequence number, and with it the IV of an AEAD suite, must never be used twice with the same keys (RFC 4303 §3.3.3,
//! RFC 4106 §3). A gateway that cannot know the last one, because the other died, goes on as [`crate::shared`] says.

use std::collections::BTreeMap;

use base::Instant;
use base::export::{Exposed, Moment};
use model::{DfPolicy, Routing};
use sa::{
    ChildKeys, ChildLabel, ChildSa, ChildSuite, DirectionKeys, Limits, Path, SaChange, SaId, Spi, TrafficSelector,
};
use serde::{Deserialize, Serialize};

use crate::{Counters, DataPath, Dropped, Drops, Shaping, Unusable};

/// What an SA is made of, keys included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedSa {
    id: SaId,
    label: ChildLabel,
    spis: (Spi, Spi),
    suite: ChildSuite,
    /// Encryption and integrity, inbound and outbound.
    keys: [Exposed; 4],
    path: Path,
    local: Vec<TrafficSelector>,
    remote: Vec<TrafficSelector>,
    routing: Routing,
    limits: ExportedLimits,
    replay_window: u32,
    df: DfPolicy,
    copy_dscp: bool,
    mtu: Option<u16>,
    mss: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ExportedLimits {
    soft_bytes: Option<u64>,
    hard_bytes: Option<u64>,
    soft_packets: Option<u64>,
    hard_packets: Option<u64>,
    hard_time: Option<Moment>,
}

impl ExportedSa {
    /// What this SA is made of.
    pub fn of(child: &ChildSa, now: Instant) -> Self {
        let ChildKeys { inbound, outbound } = &child.keys;
        let Limits { soft_bytes, hard_bytes, soft_packets, hard_packets, hard_time } = child.limits;
        let hard_time = hard_time.map(|at| Moment::of(at, now));
        Self {
            id: child.id,
            label: child.label.clone(),
            spis: (child.inbound_spi, child.outbound_spi),
            suite: child.suite,
            keys: [&inbound.encryption, &inbound.integrity, &outbound.encryption, &outbound.integrity]
                .map(|key| Exposed(key.clone())),
            path: child.path,
            local: child.local.clone(),
            remote: child.remote.clone(),
            routing: child.routing.clone(),
            limits: ExportedLimits { soft_bytes, hard_bytes, soft_packets, hard_packets, hard_time },
            replay_window: child.replay_window,
            df: child.df,
            copy_dscp: child.copy_dscp,
            mtu: child.mtu,
            mss: child.mss,
        }
    }

    /// Whose it is.
    pub const fn id(&self) -> SaId {
        self.id
    }

    /// The Child SA, to be installed.
    pub fn into_child(self, now: Instant) -> ChildSa {
        let [encryption_in, integrity_in, encryption_out, integrity_out] = self.keys.map(|Exposed(key)| key);
        let ExportedLimits { soft_bytes, hard_bytes, soft_packets, hard_packets, hard_time } = self.limits;
        let hard_time = hard_time.map(|moment| moment.at(now));
        ChildSa {
            id: self.id,
            label: self.label,
            inbound_spi: self.spis.0,
            outbound_spi: self.spis.1,
            suite: self.suite,
            keys: ChildKeys {
                inbound: DirectionKeys { encryption: encryption_in, integrity: integrity_in },
                outbound: DirectionKeys { encryption: encryption_out, integrity: integrity_out },
            },
            path: self.path,
            local: self.local,
            remote: self.remote,
            routing: self.routing,
            limits: Limits { soft_bytes, hard_bytes, soft_packets, hard_packets, hard_time },
            replay_window: self.replay_window,
            df: self.df,
            copy_dscp: self.copy_dscp,
            mtu: self.mtu,
            mss: self.mss,
        }
    }
}

/// What was counted of packets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counted {
    packets: u64,
    bytes: u64,
    /// By name; reasons that never occurred are left out.
    dropped: BTreeMap<String, u64>,
}

impl Counted {
    fn add(&mut self, more: &Self) {
        self.packets += more.packets;
        self.bytes += more.bytes;
        for (reason, count) in &more.dropped {
            *self.dropped.entry(reason.clone()).or_default() += count;
        }
    }
}

impl From<Counters> for Counted {
    fn from(counters: Counters) -> Self {
        let Counters { packets, bytes, drops } = counters;
        let dropped = drops.iter().filter(|(_, count)| *count > 0);
        Self { packets, bytes, dropped: dropped.map(|(reason, count)| (reason.name().to_owned(), count)).collect() }
    }
}

impl From<&Counted> for Counters {
    fn from(counted: &Counted) -> Self {
        let known = |name: &str| Dropped::ALL.into_iter().find(|reason| reason.name() == name);
        let all = counted.dropped.iter().filter_map(|(name, count)| Some((known(name)?, *count)));
        Self { packets: counted.packets, bytes: counted.bytes, drops: all.collect() }
    }
}

impl From<Drops> for Counted {
    fn from(drops: Drops) -> Self {
        Counters { drops, ..Counters::default() }.into()
    }
}

/// How far an outbound SA is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OutboundStanding {
    /// The next number to give out.
    pub(crate) next: u64,
    pub(crate) counted: Counted,
    pub(crate) last_at: Option<Moment>,
    pub(crate) soft_told: bool,
    pub(crate) hard_told: bool,
}

/// How far an inbound SA is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InboundStanding {
    /// The highest number accepted.
    pub(crate) top: u64,
    /// Which were accepted, as the ring of [`crate::window::Window`] has them.
    pub(crate) seen: Vec<u64>,
    pub(crate) spent: (u64, u64),
    pub(crate) counted: Counted,
    pub(crate) fragments: u64,
    pub(crate) last_at: Option<Moment>,
    pub(crate) soft_told: bool,
    pub(crate) hard_told: bool,
}

/// How far an SA is, both directions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SaStanding {
    id: SaId,
    outbound: OutboundStanding,
    refused: Counted,
    /// Packets cut up, their pieces, and senders told.
    shaping: (u64, u64, u64),
    inbound: InboundStanding,
}

/// How far the SAs of a data path are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    sas: Vec<SaStanding>,
    /// SAs that packets take or took, in the order of their activation.
    activated: Vec<SaId>,
    /// What SAs counted that are gone, and what belonged to none: outbound, inbound.
    retired: (Counted, Counted),
}

impl Standing {
    /// The highest sequence number given out by this SA.
    pub fn last_sequence(&self, id: SaId) -> Option<u64> {
        let sa = self.sas.iter().find(|sa| sa.id == id)?;
        Some(sa.outbound.next.saturating_sub(1))
    }

    /// SAs that packets take or took, in the order of their activation.
    pub fn activated(&self) -> &[SaId] {
        &self.activated
    }

    /// Adds what another worker counted, which had the same SAs in service ([`crate::Joint`]) and none of whose packets
    /// are under way any more.
    pub fn add(&mut self, more: &Self) {
        for other in &more.sas {
            // Both are in the order of their numbers.
            let Ok(at) = self.sas.binary_search_by_key(&other.id, |sa| sa.id) else { continue };
            let sa = &mut self.sas[at];
            sa.refused.add(&other.refused);
            sa.inbound.counted.add(&other.inbound.counted);
            sa.inbound.fragments += other.inbound.fragments;
            let (sum, more) = (&mut sa.shaping, other.shaping);
            *sum = (sum.0 + more.0, sum.1 + more.1, sum.2 + more.2);
        }
        self.retired.0.add(&more.retired.0);
        self.retired.1.add(&more.retired.1);
    }
}

impl DataPath {
    /// What the SAs are made of. Nothing may be installed, moved or removed until [`Self::standing`] is taken.
    pub fn export(&self, now: Instant) -> Vec<ExportedSa> {
        self.children().map(|child| ExportedSa::of(child, now)).collect()
    }

    /// How far the SAs are. No packet may be sealed or opened by them any more.
    pub fn standing(&self, now: Instant) -> Standing {
        let of = |child: &ChildSa| {
            let outbound = self.outbounds.sa(child.id)?.standing(now);
            let inbound = self.inbounds.sa(child.id)?.standing(now);
            let (refused, Shaping { fragmented, fragments, too_big_sent }) = self.outbounds.refused(child.id)?;
            let (refused, shaping) = (refused.into(), (fragmented, fragments, too_big_sent));
            Some(SaStanding { id: child.id, outbound, refused, shaping, inbound })
        };
        Standing {
            sas: self.children().filter_map(of).collect(),
            activated: self.outbounds.activated(),
            retired: (self.outbounds.retired().into(), self.inbounds.retired().into()),
        }
    }

    /// Goes on where another data path stopped. SAs that are not installed here are passed over. Outbound numbers go on
    /// `ahead` of the next: 0 where it is known that no more than that was used.
    ///
    /// # Errors
    ///
    /// [`Unusable`]: what is said of an SA cannot be; nothing may be sealed then.
    pub fn resume(&mut self, standing: &Standing, ahead: u64, now: Instant) -> Result<(), Unusable> {
        for sa in &standing.sas {
            if self.outbounds.sa(sa.id).is_none() {
                continue;
            }
            let (fragmented, fragments, too_big_sent) = sa.shaping;
            let shaping = Shaping { fragmented, fragments, too_big_sent };
            self.outbounds.resume(sa.id, &sa.outbound, (Counters::from(&sa.refused).drops, shaping), ahead, now)?;
            self.inbounds.resume(sa.id, &sa.inbound, now)?;
        }
        for id in standing.activated.iter().filter(|id| self.outbounds.sa(**id).is_some()).copied().collect::<Vec<_>>()
        {
            self.apply(&SaChange::Activate(id))?;
        }
        self.outbounds.add_retired((&standing.retired.0).into());
        self.inbounds.add_retired((&standing.retired.1).into());
        Ok(())
    }
}
