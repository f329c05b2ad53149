//! From the model's proposals to those on the wire, and the choice among the peer's (RFC 7296 §2.7, §3.3).

use base::algorithm::{Encryption, Group, Integrity, Prf};
use model::{EspProposal, IkeProposal};
use sa::ChildSuite;

use crate::failure::Offer;
use crate::wire::v2::{Proposal, Transform, kind, protocol};

use super::keys::IkeSuite;

/// INTEG and DH have a "none" with number 0.
const NONE: u16 = 0;

/// What was chosen, with the proposal that says so on the wire.
pub(super) struct Chosen<T> {
    pub(super) suite: T,
    /// Its number in the peer's list.
    number: u8,
    /// The SPI that the peer chose with it.
    pub(super) spi: Vec<u8>,
    transforms: Vec<Transform>,
}

impl<T> Chosen<T> {
    /// The answer: the chosen proposal alone, with our SPI.
    pub(super) fn proposal<'a>(&self, protocol: u8, spi: &'a [u8]) -> [Proposal<'a>; 1] {
        [Proposal { number: self.number, protocol, spi, transforms: self.transforms.clone() }]
    }
}

/// A Child SA's algorithms, with the group of its own key exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChildChoice {
    pub(super) suite: ChildSuite,
    pub(super) pfs: Option<Group>,
}

fn encr(encryption: Encryption) -> Transform {
    Transform::new(kind::ENCR, encryption.v2_id(), encryption.key_bits_attribute())
}

fn integ(integrity: Integrity) -> Transform {
    Transform::new(kind::INTEG, integrity.v2_id(), None)
}

fn dh(group: Group) -> Transform {
    Transform::new(kind::DH, group.id(), None)
}

fn prf(prf: Prf) -> Transform {
    Transform::new(kind::PRF, prf.v2_id(), None)
}

fn esn(esn: bool) -> Transform {
    Transform::new(kind::ESN, u16::from(esn), None)
}

fn numbered(place: usize) -> u8 {
    u8::try_from(place + 1).unwrap_or(u8::MAX)
}

/// Phase 1 proposals as they are offered. `spi` is empty but in a rekey.
pub(super) fn offer_ike<'a>(ours: &[IkeProposal], spi: &'a [u8]) -> Vec<Proposal<'a>> {
    let transforms = |proposal: &IkeProposal| {
        let encryption = proposal.encryption.iter().map(|e| encr(*e));
        let integrity = proposal.integrity.iter().map(|i| integ(*i));
        let prfs = proposal.prf.iter().map(|p| prf(*p));
        encryption.chain(prfs).chain(integrity).chain(proposal.groups.iter().map(|g| dh(*g))).collect()
    };
    let make = |(place, proposal): (usize, &IkeProposal)| Proposal {
        number: numbered(place),
        protocol: protocol::IKE,
        spi,
        transforms: transforms(proposal),
    };
    ours.iter().take(255).enumerate().map(make).collect()
}

/// Phase 2 proposals as they are offered; IKE_AUTH has no groups (RFC 7296 §1.2).
pub(super) fn offer_esp<'a>(ours: &[EspProposal], spi: &'a [u8], with_groups: bool) -> Vec<Proposal<'a>> {
    let transforms = |proposal: &EspProposal| {
        let encryption = proposal.encryption.iter().map(|e| encr(*e));
        let integrity = proposal.integrity.iter().map(|i| integ(*i));
        let groups = proposal.groups.iter().filter(|_| with_groups).map(|g| dh(*g));
        encryption.chain(integrity).chain(groups).chain(proposal.esn.iter().map(|e| esn(*e))).collect()
    };
    let make = |(place, proposal): (usize, &EspProposal)| Proposal {
        number: numbered(place),
        protocol: protocol::ESP,
        spi,
        transforms: transforms(proposal),
    };
    ours.iter().take(255).enumerate().map(make).collect()
}

/// Of `wanted`, in its order, the first that `theirs` has.
fn first_common<T: Copy>(wanted: &[T], theirs: &Proposal<'_>, transform: impl Fn(T) -> Transform) -> Option<T> {
    wanted.iter().copied().find(|algorithm| {
        let want = transform(*algorithm);
        theirs.of(want.kind).any(|has| *has == want)
    })
}

/// The integrity algorithm that goes with `encryption`; `None` when there is no choice.
fn choose_integrity(encryption: Encryption, wanted: &[Integrity], theirs: &Proposal<'_>) -> Option<Option<Integrity>> {
    if encryption.is_aead() {
        // RFC 5282 §8: with an AEAD there is no integrity algorithm, or "none".
        let none = !theirs.has(kind::INTEG) || theirs.of(kind::INTEG).any(|t| t.id == NONE);
        none.then_some(None)
    } else {
        first_common(wanted, theirs, integ).map(Some)
    }
}

/// Chooses the IKE SA's algorithms: our order of preference among what the peer offers. Only the group for which
/// the peer sent its public value is preferred to others that are as acceptable: it saves a round trip.
pub(super) fn choose_ike(
    ours: &[IkeProposal],
    theirs: &[Proposal<'_>],
    sent_group: Option<Group>,
) -> Option<Chosen<IkeSuite>> {
    let pairs = ours.iter().flat_map(|ours| theirs.iter().map(move |theirs| (ours, theirs)));
    pairs.filter(|(_, theirs)| theirs.protocol == protocol::IKE).find_map(|(ours, theirs)| {
        let encryption = first_common(&ours.encryption, theirs, encr)?;
        let integrity = choose_integrity(encryption, &ours.integrity, theirs)?;
        let function = first_common(&ours.prf, theirs, prf)?;
        let sent = sent_group.filter(|group| ours.groups.contains(group));
        let group = sent.and_then(|group| first_common(&[group], theirs, dh));
        let group = group.or_else(|| first_common(&ours.groups, theirs, dh))?;
        let transforms = [Some(encr(encryption)), Some(prf(function)), integrity.map(integ), Some(dh(group))];
        let suite = IkeSuite { encryption, integrity, prf: function, group };
        let transforms = transforms.into_iter().flatten().collect();
        Some(Chosen { suite, number: theirs.number, spi: theirs.spi.to_vec(), transforms })
    })
}

/// Whether `suite` is among what `ours` allows.
pub(super) fn allows_ike(ours: &[IkeProposal], suite: IkeSuite) -> bool {
    ours.iter().any(|ours| {
        ours.encryption.contains(&suite.encryption)
            && suite.integrity.is_none_or(|integrity| ours.integrity.contains(&integrity))
            && ours.prf.contains(&suite.prf)
            && ours.groups.contains(&suite.group)
    })
}

/// Chooses a Child SA's algorithms in the same way. In IKE_AUTH groups do not count (`with_groups` is false).
pub(super) fn choose_esp(
    ours: &[EspProposal],
    theirs: &[Proposal<'_>],
    with_groups: bool,
    sent_group: Option<Group>,
) -> Option<Chosen<ChildChoice>> {
    let pairs = ours.iter().flat_map(|ours| theirs.iter().map(move |theirs| (ours, theirs)));
    pairs.filter(|(_, theirs)| theirs.protocol == protocol::ESP && theirs.spi.len() == 4).find_map(|(ours, theirs)| {
        let encryption = first_common(&ours.encryption, theirs, encr)?;
        let integrity = choose_integrity(encryption, &ours.integrity, theirs)?;
        let pfs = if with_groups { choose_pfs(&ours.groups, theirs, sent_group)? } else { None };
        let sequence = if theirs.has(kind::ESN) {
            first_common(&ours.esn, theirs, esn)?
        } else {
            // RFC 7296 §3.3.2 wants the transform; where a peer leaves it out, it means 32-bit numbers.
            !ours.esn.contains(&false)
        };
        let said_esn = theirs.has(kind::ESN).then(|| esn(sequence));
        if said_esn.is_none() && sequence {
            return None;
        }
        let transforms = [Some(encr(encryption)), integrity.map(integ), pfs.map(dh), said_esn];
        let suite = ChildSuite { encryption, integrity, esn: sequence };
        let transforms = transforms.into_iter().flatten().collect();
        Some(Chosen { suite: ChildChoice { suite, pfs }, number: theirs.number, spi: theirs.spi.to_vec(), transforms })
    })
}

/// The group of a Child SA's own key exchange; `None` when there is no choice.
fn choose_pfs(ours: &[Group], theirs: &Proposal<'_>, sent: Option<Group>) -> Option<Option<Group>> {
    let none = !theirs.has(kind::DH) || theirs.of(kind::DH).any(|t| t.id == NONE);
    if ours.is_empty() {
        return none.then_some(None);
    }
    let sent = sent.filter(|group| ours.contains(group)).and_then(|group| first_common(&[group], theirs, dh));
    sent.or_else(|| first_common(ours, theirs, dh)).map(Some)
}

/// The suite that the peer chose from our offer; `None` when it is not one that we offered.
pub(super) fn accept_ike(ours: &[IkeProposal], theirs: &[Proposal<'_>]) -> Option<IkeSuite> {
    let [chosen] = theirs else { return None };
    is_single(chosen).then(|| choose_ike(ours, theirs, None)).flatten().map(|chosen| chosen.suite)
}

/// The suite that the peer chose from our offer; `None` when it is not one that we offered.
pub(super) fn accept_esp(ours: &[EspProposal], theirs: &[Proposal<'_>], with_groups: bool) -> Option<ChildChoice> {
    let [chosen] = theirs else { return None };
    is_single(chosen).then(|| choose_esp(ours, theirs, with_groups, None)).flatten().map(|chosen| chosen.suite)
}

/// Whether it has at most one transform of each kind, none of them odd.
fn is_single(proposal: &Proposal<'_>) -> bool {
    let of = |kind| proposal.transforms.iter().filter(move |transform| transform.kind == kind).count();
    let kinds = [kind::ENCR, kind::PRF, kind::INTEG, kind::DH, kind::ESN];
    kinds.into_iter().all(|kind| of(kind) <= 1) && !proposal.transforms.iter().any(|transform| transform.is_odd)
}

/// The peer's offers for a person to read; numbers where there is no name.
pub(super) fn offers(theirs: &[Proposal<'_>]) -> Vec<Offer> {
    theirs.iter().map(offer).collect()
}

fn offer(theirs: &Proposal<'_>) -> Offer {
    let names = |kind: u8, name: fn(&Transform) -> Option<String>| {
        let spelled = |t: &Transform| {
            name(t).unwrap_or_else(|| match t.key_bits {
                Some(bits) => format!("#{}/{bits}", t.id),
                None => format!("#{}", t.id),
            })
        };
        theirs.of(kind).map(spelled).collect::<Vec<_>>()
    };
    let encryption = names(kind::ENCR, |t| Encryption::from_v2(t.id, t.key_bits).map(|e| e.to_string()));
    let integrity: Vec<_> = names(kind::INTEG, |t| match t.id {
        NONE => Some(String::new()),
        id => Integrity::from_v2(id).map(|i| i.to_string()),
    });
    let integrity = integrity.into_iter().filter(|name| !name.is_empty()).collect();
    let mut groups = names(kind::DH, |t| match t.id {
        NONE => Some("no pfs".to_owned()),
        id => Group::from_id(id).map(|g| g.to_string()),
    });
    if theirs.protocol == protocol::ESP {
        if groups.is_empty() {
            groups.push("no pfs".to_owned());
        }
        let numbers = names(kind::ESN, |t| match t.id {
            0 => Some("no esn".to_owned()),
            1 => Some("esn".to_owned()),
            _ => None,
        });
        let kinds = [("encryption", encryption), ("integrity", integrity), ("pfs group", groups)];
        return Offer::new(kinds.into_iter().chain([("sequence numbers", numbers)]));
    }
    let prfs = names(kind::PRF, |t| Prf::from_v2(t.id).map(|p| p.to_string()));
    Offer::new([("encryption", encryption), ("integrity", integrity), ("hash or prf", prfs), ("group", groups)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gcm(groups: &[Group]) -> IkeProposal {
        IkeProposal {
            encryption: vec![Encryption::Aes256Gcm, Encryption::Aes128Gcm],
            integrity: vec![],
            prf: vec![Prf::Sha384, Prf::Sha256],
            groups: groups.to_vec(),
        }
    }

    #[test]
    fn our_order_decides_among_what_the_peer_offers() {
        let mut theirs = gcm(&[Group::Ecp256, Group::Modp2048]);
        theirs.encryption.reverse();
        theirs.prf.reverse();
        let ours = [gcm(&[Group::Modp2048, Group::Ecp256])];
        let wire = offer_ike(std::slice::from_ref(&theirs), &[]);
        let chosen = choose_ike(&ours, &wire, None).unwrap();
        assert_eq!(chosen.suite.to_string(), "aes256gcm16-prfsha384-modp2048");
        let chosen = choose_ike(&ours, &wire, Some(Group::Ecp256)).unwrap();
        assert_eq!(chosen.suite.group, Group::Ecp256);
        assert_eq!(accept_ike(&[theirs], &chosen.proposal(protocol::IKE, &[])), Some(chosen.suite));
    }

    #[test]
    fn an_answer_that_was_not_offered_or_leaves_a_choice_is_not_accepted() {
        let ours = [gcm(&[Group::Ecp256])];
        assert_eq!(accept_ike(&ours, &offer_ike(&ours, &[])), None);
        let mut other = gcm(&[Group::Ecp384]);
        (other.encryption, other.prf) = (vec![Encryption::Aes256Gcm], vec![Prf::Sha384]);
        assert_eq!(accept_ike(&ours, &offer_ike(&[other], &[])), None);
    }

    #[test]
    fn pfs_is_taken_where_both_want_it_and_refused_where_one_does() {
        let esp = |groups: &[Group]| EspProposal {
            groups: groups.to_vec(),
            ..EspProposal::defaults(model::Versions::default())[0].clone()
        };
        let choose = |ours: &[Group], theirs: &[Group]| {
            let theirs = [esp(theirs)];
            choose_esp(&[esp(ours)], &offer_esp(&theirs, &[1, 2, 3, 4], true), true, None).map(|c| c.suite.pfs)
        };
        assert_eq!(choose(&[], &[]), Some(None));
        assert_eq!(choose(&[Group::Ecp256], &[Group::Modp2048, Group::Ecp256]), Some(Some(Group::Ecp256)));
        assert_eq!(choose(&[Group::Ecp256], &[]), None);
        assert_eq!(choose(&[], &[Group::Ecp256]), None);
    }

    #[test]
    fn what_the_peer_offers_is_spelled_and_unknown_numbers_survive() {
        let transforms =
            vec![encr(Encryption::Aes128Cbc), Transform::new(kind::ENCR, 99, Some(7)), integ(Integrity::Sha1)];
        let theirs = Proposal { number: 1, protocol: protocol::IKE, spi: &[], transforms };
        assert_eq!(offer(&theirs).to_string(), "aes128|#99/7-sha1");
    }
}
