//! Phase 2 proposals (RFC 2407 §4.4.4, §4.5): what we offer, what of a peer's offer suits.

use std::time::Duration;

use base::algorithm::{Encryption, Group, Integrity};
use model::{Child, EspProposal, Lifetime};
use sa::{ChildSuite, Spi};

use crate::Offer;
use crate::failure::ENCAPSULATION;
use crate::wire::v1::{Attribute, Proposal, SaPayload, Transform, attribute_value, protocol};

const LIFE_TYPE: u16 = 1;
const LIFE_DURATION: u16 = 2;
const GROUP: u16 = 3;
const MODE: u16 = 4;
const AUTHENTICATION: u16 = 5;
const KEY_LENGTH: u16 = 6;
const SECONDS: u16 = 1;
const KILOBYTES: u16 = 2;
/// Encapsulation mode: a tunnel, plain.
pub(super) const TUNNEL: u16 = 1;

/// Transforms that we offer.
const MAX_OFFERED: usize = 30;

/// What phase 2 agrees on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Agreed {
    pub(super) suite: ChildSuite,
    /// The group of its own key exchange (PFS).
    pub(super) group: Option<Group>,
    /// The peer's SPI.
    pub(super) spi: Spi,
    /// The lifetime that the peer names.
    pub(super) life: Life,
}

/// A lifetime as it stands in a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) time: Option<Duration>,
    pub(super) bytes: Option<u64>,
}

impl Life {
    /// Reads the pairs of type and duration, in their order. Zero counts as not said.
    pub(super) fn read(attributes: &[Attribute]) -> Self {
        let (mut life, mut kind) = (Self::default(), 0);
        for attribute in attributes {
            let number = attribute_value(&attribute.value);
            match (attribute.kind, kind) {
                (LIFE_TYPE, _) => kind = u16::try_from(number).unwrap_or(0),
                (LIFE_DURATION, SECONDS) => life.time = Some(Duration::from_secs(number)).filter(|t| !t.is_zero()),
                (LIFE_DURATION, KILOBYTES) => life.bytes = Some(number.saturating_mul(1024)).filter(|b| *b > 0),
                _ => {}
            }
        }
        life
    }

    /// Its attributes.
    pub(super) fn attributes(self) -> Vec<Attribute> {
        let pair = |kind, number| [Attribute::basic(LIFE_TYPE, kind), Attribute::number(LIFE_DURATION, number)];
        let time = self.time.map(|time| pair(SECONDS, time.as_secs()));
        let bytes = self.bytes.map(|bytes| pair(KILOBYTES, bytes.div_ceil(1024)));
        time.into_iter().chain(bytes).flatten().collect()
    }

    /// What is configured.
    pub(super) fn of(lifetime: &Lifetime) -> Self {
        Self { time: Some(lifetime.time), bytes: lifetime.bytes }
    }

    /// The shorter of both, each way.
    pub(super) fn shorter(self, other: Self) -> Self {
        Self { time: least(self.time, other.time), bytes: least(self.bytes, other.bytes) }
    }
}

fn least<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}

/// Whether a proposal can be spoken of in IKEv1: there are no extended sequence numbers.
fn is_expressible(proposal: &&EspProposal) -> bool {
    proposal.esn.contains(&false) && proposal.encryption.iter().any(|e| e.v1_esp_id().is_some())
}

/// The groups to try, best first: one quick mode has one key exchange, so all its transforms have the same.
pub(super) fn group_choices(proposals: &[EspProposal]) -> Vec<Option<Group>> {
    let mut choices = Vec::new();
    for proposal in proposals.iter().filter(is_expressible) {
        let groups: Vec<_> = proposal.groups.iter().copied().map(Some).collect();
        let groups = if groups.is_empty() { vec![None] } else { groups };
        for group in groups {
            if !choices.contains(&group) {
                choices.push(group);
            }
        }
    }
    choices
}

fn allows_group(proposal: &EspProposal, group: Option<Group>) -> bool {
    match group {
        Some(group) => proposal.groups.contains(&group),
        None => proposal.groups.is_empty(),
    }
}

/// The SA payload of our first message; `None` where there is nothing to offer.
pub(super) fn offer(child: &Child, group: Option<Group>, mode: u16, spi: Spi) -> Option<SaPayload> {
    let mut suites: Vec<(Encryption, Option<Integrity>)> = Vec::new();
    for proposal in child.esp.iter().filter(is_expressible).filter(|p| allows_group(p, group)) {
        for &encryption in proposal.encryption.iter().filter(|e| e.v1_esp_id().is_some()) {
            let integrity: Vec<_> = proposal.integrity.iter().copied().map(Some).collect();
            let integrity = if encryption.is_aead() { vec![None] } else { integrity };
            suites.extend(integrity.into_iter().map(|integrity| (encryption, integrity)));
        }
    }
    suites.truncate(MAX_OFFERED);
    let life = Life::of(&child.lifetime).attributes();
    let transform = |(number, (encryption, integrity)): (u8, (Encryption, Option<Integrity>))| {
        let mut attributes = life.clone();
        attributes.extend(group.map(|group| Attribute::basic(GROUP, group.id())));
        attributes.push(Attribute::basic(MODE, mode));
        attributes.extend(integrity.map(|integrity| Attribute::basic(AUTHENTICATION, integrity.v1_esp_id())));
        attributes.extend(encryption.key_bits_attribute().map(|bits| Attribute::basic(KEY_LENGTH, bits)));
        Transform { number, id: encryption.v1_esp_id().expect("filtered above"), attributes }
    };
    let transforms: Vec<_> = (1..).zip(suites).map(transform).collect();
    let spi = spi.0.to_be_bytes().to_vec();
    (!transforms.is_empty())
        .then(|| SaPayload { proposals: vec![Proposal { number: 1, protocol: protocol::ESP, spi, transforms }] })
}

/// What a transform of a peer says.
#[derive(Clone, Copy, Debug, Default)]
struct Offered {
    id: u8,
    key_bits: Option<u16>,
    integrity: Option<u16>,
    group: Option<u16>,
    mode: Option<u16>,
    is_foreign: bool,
    life: Life,
}

impl Offered {
    fn read(transform: &Transform) -> Self {
        let mut offered = Self { id: transform.id, life: Life::read(&transform.attributes), ..Self::default() };
        for Attribute { kind, value } in &transform.attributes {
            let short = Some(u16::try_from(attribute_value(value)).unwrap_or(u16::MAX));
            match *kind {
                LIFE_TYPE | LIFE_DURATION => {}
                GROUP => offered.group = short,
                MODE => offered.mode = short,
                AUTHENTICATION => offered.integrity = short,
                KEY_LENGTH => offered.key_bits = short,
                // Whatever else it is (extended sequence numbers among them), it would change what goes on the wire.
                _ => offered.is_foreign = true,
            }
        }
        offered
    }

    fn encryption(self) -> Option<Encryption> {
        Encryption::from_v1_esp(self.id, self.key_bits)
    }

    /// Suite and group, where we know all of it and the mode is `mode`.
    fn agreed(self, mode: u16) -> Option<(ChildSuite, Option<Group>)> {
        // RFC 2407 §4.5: without the attribute, the mode is up to the host; all peers mean a tunnel by it.
        if self.is_foreign || self.mode.is_some_and(|offered| offered != mode) {
            return None;
        }
        let encryption = self.encryption()?;
        let integrity = match self.integrity {
            Some(id) => Some(Integrity::from_v1_esp(id)?),
            None => None,
        };
        if integrity.is_some() == encryption.is_aead() {
            return None;
        }
        let group = match self.group {
            Some(id) => Some(Group::from_id(id)?),
            None => None,
        };
        Some((ChildSuite { encryption, integrity, esn: false }, group))
    }

    fn offer(self, mode: u16) -> Offer {
        let named =
            |known: Option<String>, what: &str, number: u16| known.unwrap_or_else(|| format!("{what} {number}"));
        let integrity = self.integrity.map(|id| named(Integrity::from_v1_esp(id).map(|i| i.to_string()), "hash", id));
        let group = self.group.map(|id| named(Group::from_id(id).map(|g| g.to_string()), "group", id));
        Offer::new([
            ("encryption", vec![named(self.encryption().map(|e| e.to_string()), "transform", self.id.into())]),
            ("integrity", integrity.into_iter().collect()),
            ("pfs group", vec![group.unwrap_or_else(|| "no pfs".to_owned())]),
            mode_offer(self.mode.unwrap_or(mode)),
        ])
    }

    fn is_transport(self) -> bool {
        matches!(self.mode, Some(2 | 4 | 61_444))
    }
}

fn is_in(suite: ChildSuite, group: Option<Group>, proposals: &[EspProposal]) -> bool {
    proposals.iter().filter(is_expressible).any(|p| {
        p.encryption.contains(&suite.encryption)
            && suite.integrity.is_none_or(|integrity| p.integrity.contains(&integrity))
            && allows_group(p, group)
    })
}

/// An SPI as a proposal or a delete has it.
pub(super) fn spi_of(bytes: &[u8]) -> Option<Spi> {
    Some(Spi(u32::from_be_bytes(bytes.try_into().ok()?))).filter(|spi| spi.0 > 255)
}

/// What a responder chose of an offer, with its answer, which has our SPI.
pub(super) fn choose(payload: &SaPayload, proposals: &[EspProposal], mode: u16) -> Option<(Agreed, Proposal)> {
    for proposal in &payload.proposals {
        // Proposals with the same number are to be used together (AH and ESP, ESP and compression): none is.
        let together = payload.proposals.iter().filter(|other| other.number == proposal.number).count();
        if proposal.protocol != protocol::ESP || together > 1 {
            continue;
        }
        let Some(spi) = spi_of(&proposal.spi) else { continue };
        for transform in &proposal.transforms {
            let offered = Offered::read(transform);
            let Some((suite, group)) = offered.agreed(mode) else { continue };
            if is_in(suite, group, proposals) {
                let answer = Proposal { transforms: vec![transform.clone()], ..proposal.clone() };
                return Some((Agreed { suite, group, spi, life: offered.life }, answer));
            }
        }
    }
    None
}

/// What the responder's answer chooses, when it is one of `proposals` with the group that was offered.
pub(super) fn chosen(answer: &SaPayload, proposals: &[EspProposal], group: Option<Group>, mode: u16) -> Option<Agreed> {
    let [proposal] = answer.proposals.as_slice() else { return None };
    let [_] = proposal.transforms.as_slice() else { return None };
    choose(answer, proposals, mode).map(|(agreed, _)| agreed).filter(|agreed| agreed.group == group)
}

/// An encapsulation mode as a person reads it.
fn mode_offer(mode: u16) -> (&'static str, Vec<String>) {
    match mode {
        TUNNEL => (ENCAPSULATION, vec!["plain ESP".to_owned()]),
        3 | 61_443 => (ENCAPSULATION, vec!["ESP in UDP".to_owned()]),
        2 | 4 | 61_444 => ("mode", vec!["transport".to_owned()]),
        other => ("mode", vec![format!("mode {other}")]),
    }
}

/// Our offer as a person reads it.
pub(super) fn our_offers(proposals: &[EspProposal], mode: u16) -> Vec<Offer> {
    let offer = |p: &EspProposal| {
        let groups: Vec<_> = p.groups.iter().map(ToString::to_string).collect();
        Offer::new([
            ("encryption", p.encryption.iter().map(ToString::to_string).collect()),
            ("integrity", p.integrity.iter().map(ToString::to_string).collect()),
            ("pfs group", if groups.is_empty() { vec!["no pfs".to_owned()] } else { groups }),
            mode_offer(mode),
        ])
    };
    proposals.iter().filter(is_expressible).map(offer).collect()
}

/// A peer's offer as a person reads it; what it leaves open is taken for `mode`.
pub(super) fn their_offers(payload: &SaPayload, mode: u16) -> Vec<Offer> {
    let esp = payload.proposals.iter().filter(|p| p.protocol == protocol::ESP);
    let mut offers: Vec<_> = esp.flat_map(|p| &p.transforms).map(|t| Offered::read(t).offer(mode)).collect();
    offers.dedup();
    offers
}

/// Why the whole of a peer's offer is refused, where it is of a kind that is not supported.
pub(super) fn refused_kind(payload: &SaPayload) -> Option<&'static str> {
    if payload.proposals.iter().all(|p| p.protocol == protocol::AH) {
        return Some("AH: only ESP is supported");
    }
    let mut transforms = payload.proposals.iter().filter(|p| p.protocol == protocol::ESP).flat_map(|p| &p.transforms);
    let is_transport = transforms.clone().next().is_some() && transforms.all(|t| Offered::read(t).is_transport());
    is_transport.then_some("transport mode: only tunnels are supported")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn esp(encryption: Encryption, integrity: &[Integrity], groups: &[Group]) -> EspProposal {
        EspProposal {
            encryption: vec![encryption],
            integrity: integrity.to_vec(),
            groups: groups.to_vec(),
            esn: vec![false],
        }
    }

    fn child(esp: Vec<EspProposal>) -> Child {
        Child { esp, ..Child::named("c") }
    }

    #[test]
    fn what_is_offered_with_pfs_is_taken_with_the_same_group_only() {
        let pfs = esp(Encryption::Aes128Cbc, &[Integrity::Sha1], &[Group::Modp1024]);
        let offered = offer(&child(vec![pfs.clone()]), Some(Group::Modp1024), TUNNEL, Spi(0x1234)).unwrap();
        let (agreed, answer) = choose(&offered, std::slice::from_ref(&pfs), TUNNEL).unwrap();
        assert_eq!((agreed.group, agreed.spi), (Some(Group::Modp1024), Spi(0x1234)));
        assert_eq!(agreed.life.time, Some(Duration::from_secs(3600)));
        let answer = SaPayload { proposals: vec![answer] };
        assert!(chosen(&answer, std::slice::from_ref(&pfs), Some(Group::Modp1024), TUNNEL).is_some());
        assert!(chosen(&answer, &[pfs], None, TUNNEL).is_none());
        let none = esp(Encryption::Aes128Cbc, &[Integrity::Sha1], &[]);
        assert!(choose(&offered, &[none], TUNNEL).is_none());
    }

    #[test]
    fn the_mode_must_be_the_one_that_nat_detection_calls_for() {
        let plain = esp(Encryption::Aes128Gcm, &[], &[]);
        let offered = offer(&child(vec![plain.clone()]), None, 3, Spi(0x1234)).unwrap();
        assert!(choose(&offered, std::slice::from_ref(&plain), TUNNEL).is_none());
        assert!(choose(&offered, &[plain], 3).is_some());
    }

    #[test]
    fn proposals_that_belong_together_are_passed_over() {
        let plain = esp(Encryption::Aes128Cbc, &[Integrity::Sha256], &[]);
        let one = offer(&child(vec![plain.clone()]), None, TUNNEL, Spi(0x1234)).unwrap().proposals.remove(0);
        let compression = Proposal { protocol: 4, spi: vec![1, 2], ..one.clone() };
        let alone = Proposal { number: 2, spi: vec![0, 0, 0x56, 0x78], ..one.clone() };
        let payload = SaPayload { proposals: vec![one, compression, alone] };
        assert_eq!(choose(&payload, &[plain], TUNNEL).unwrap().0.spi, Spi(0x5678));
    }

    #[test]
    fn each_group_is_tried_once_and_without_esn_only() {
        let mut proposals = vec![
            esp(Encryption::Aes128Cbc, &[Integrity::Sha1], &[Group::Modp1024, Group::Modp2048]),
            esp(Encryption::Aes256Cbc, &[Integrity::Sha1], &[Group::Modp1024]),
            esp(Encryption::Aes256Cbc, &[Integrity::Sha1], &[]),
        ];
        assert_eq!(group_choices(&proposals), [Some(Group::Modp1024), Some(Group::Modp2048), None]);
        let offered = offer(&child(proposals.clone()), Some(Group::Modp1024), TUNNEL, Spi(0x1234)).unwrap();
        assert_eq!(offered.proposals[0].transforms.len(), 2);
        proposals[0].esn = vec![true];
        assert_eq!(group_choices(&proposals), [Some(Group::Modp1024), None]);
    }

    #[test]
    fn ah_and_transport_mode_are_refused_with_a_reason() {
        let plain = esp(Encryption::Aes128Cbc, &[Integrity::Sha256], &[]);
        let mut payload = offer(&child(vec![plain]), None, 2, Spi(0x1234)).unwrap();
        assert!(refused_kind(&payload).unwrap().starts_with("transport mode"));
        payload.proposals[0].protocol = protocol::AH;
        assert!(refused_kind(&payload).unwrap().starts_with("AH"));
    }
}
