//! UPDATE (RFC 4271 §4.3) with its multiprotocol attributes (RFC 4760), and what becomes of one that is malformed: exactly
//! what RFC 7606 wants.
//!
//! | approach (RFC 7606 §2) | here |
//! | --- | --- |
//! | session reset | [`Update::decode`] fails with the NOTIFICATION |
//! | AFI/SAFI disable | [`Update::disabled`]; only where the session has another family left, else session reset |
//! | treat-as-withdraw | [`Update::attributes`] is `None`: all prefixes are withdrawn |
//! | attribute discard | the attribute is absent |
//!
//! Every fault that did not end the session stands in [`Update::faults`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::attribute::{self, Malformed, Raw, Reading, code, flag};
use super::notification::update_error;
use super::{Code, Notification, Prefixes};
use crate::{Asn, Attributes, Families, Family};

/// What a message must be read by: what the two speakers agreed upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// Whether AS numbers have four octets (RFC 6793).
    pub four_octet_as: bool,
    /// Whether the neighbour is internal.
    pub is_internal: bool,
    /// The families that both speak; others are ignored.
    pub families: Families,
    /// The AS that every path must begin with (RFC 4271 §6.3); `None`: any.
    pub first_as: Option<Asn>,
}

/// What becomes of a malformed message, the mildest first (RFC 7606 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Approach {
    /// The attribute is ignored, the rest counts.
    AttributeDiscard,
    /// All its prefixes are withdrawn.
    TreatAsWithdraw,
    /// All routes of the family go, and none are taken any more.
    DisableFamily,
    /// The session ends.
    SessionReset,
}

/// Something that was wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The type of the attribute; 0 where it was none in particular.
    pub attribute: u8,
    /// What becomes of the message.
    pub approach: Approach,
    /// What is wrong, in words that continue "the attribute …, ".
    pub reason: &'static str,
}

/// A message that ends the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reset {
    /// What the neighbour is told.
    pub notification: Notification,
    /// Why.
    pub fault: Fault,
}

/// What an UPDATE says.
#[derive(Debug)]
pub struct Update<'a> {
    /// Withdrawn IPv4 prefixes.
    pub withdrawn: Prefixes<'a>,
    /// Withdrawn prefixes of MP_UNREACH_NLRI.
    pub unreachable: Option<Prefixes<'a>>,
    /// Announced IPv4 prefixes, and their next hop.
    pub announced: Prefixes<'a>,
    /// NEXT_HOP.
    pub next_hop: Option<Ipv4Addr>,
    /// Announced prefixes of MP_REACH_NLRI and their next hop. Where that is none that a host may have, the attributes
    /// are `None`.
    pub reachable: Option<(IpAddr, Prefixes<'a>)>,
    /// The attributes of what is announced; `None`: what is announced is withdrawn.
    pub attributes: Option<Arc<Attributes>>,
    /// The family whose End-of-RIB this is (RFC 4724 §2).
    pub end_of_rib: Option<Family>,
    /// The family that must be disabled.
    pub disabled: Option<Family>,
    /// What was wrong, in the order in which it stood.
    pub faults: Vec<Fault>,
}

/// The strongest fault so far, with what the neighbour would be told.
struct Worst<'a> {
    fault: Fault,
    subcode: u8,
    data: &'a [u8],
}

/// A message being read.
struct Reader<'a, 's> {
    session: &'s Session,
    reading: Reading,
    reach: Option<Reach<'a>>,
    unreach: Option<Prefixes<'a>>,
    /// Whether there was anything but an MP_UNREACH_NLRI.
    has_others: bool,
    /// The attributes that were there, by their type.
    seen: [u64; 4],
    disabled: Option<Family>,
    faults: Vec<Fault>,
    worst: Option<Worst<'a>>,
}

struct Reach<'a> {
    next_hop: IpAddr,
    prefixes: Prefixes<'a>,
}

impl<'a> Update<'a> {
    /// Reads one.
    ///
    /// # Errors
    /// When the session must end (RFC 7606 §3, §5).
    pub fn decode(body: &'a [u8], session: &Session) -> Result<Self, Reset> {
        let (withdrawn, attributes, announced) = fields(body)
            .ok_or_else(|| reset(0, update_error::ATTRIBUTE_LIST, "the lengths of its fields do not agree", &[]))?;
        let network = |field, reason| {
            Prefixes::parse(Family::Ipv4, field).ok_or_else(|| reset(0, update_error::NETWORK, reason, &[]))
        };
        // RFC 7606 §5.3: the whole message is at stake when prefixes cannot be told.
        let withdrawn = network(withdrawn, "a withdrawn prefix is longer than an address, or cut short")?;
        let announced = network(announced, "a prefix is longer than an address, or cut short")?;
        let is_empty = attributes.is_empty() && withdrawn.is_empty() && announced.is_empty();
        let mut reader = Reader {
            session,
            reading: Reading::new(),
            reach: None,
            unreach: None,
            has_others: false,
            seen: [0; 4],
            disabled: None,
            faults: Vec::new(),
            worst: None,
        };
        reader.read(attributes)?;
        reader.check_mandatory(!announced.is_empty());
        let is_reachable = !announced.is_empty() || reader.reach.as_ref().is_some_and(|r| !r.prefixes.is_empty());
        reader.settle(is_reachable)?;

        let end_of_rib = match reader.unreach {
            _ if is_empty => Some(Family::Ipv4),
            Some(prefixes) if !reader.has_others && prefixes.is_empty() => {
                Some(prefixes.family()).filter(|_| withdrawn.is_empty() && announced.is_empty())
            }
            Some(_) | None => None,
        };
        let spoken = |prefixes: Prefixes<'a>| {
            if session.families.contains(Family::Ipv4) { prefixes } else { Prefixes::none(Family::Ipv4) }
        };
        let is_good =
            is_reachable && reader.worst.as_ref().is_none_or(|w| w.fault.approach < Approach::TreatAsWithdraw);
        let next_hop = reader.reading.next_hop;
        Ok(Self {
            withdrawn: spoken(withdrawn),
            unreachable: reader.unreach,
            announced: spoken(announced),
            next_hop,
            reachable: reader.reach.map(|reach| (reach.next_hop, reach.prefixes)),
            attributes: is_good.then(|| Arc::new(reader.reading.finish())),
            end_of_rib: end_of_rib.filter(|family| session.families.contains(*family)),
            disabled: reader.disabled,
            faults: reader.faults,
        })
    }
}

/// The three fields of a message (RFC 4271 §4.3).
fn fields(body: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (len, rest) = body.split_first_chunk::<2>()?;
    let (withdrawn, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
    let (len, rest) = rest.split_first_chunk::<2>()?;
    let (attributes, announced) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
    Some((withdrawn, attributes, announced))
}

fn reset(attribute: u8, subcode: u8, reason: &'static str, data: &[u8]) -> Reset {
    let fault = Fault { attribute, approach: Approach::SessionReset, reason };
    Reset { notification: Notification::new(Code::UPDATE, subcode, data), fault }
}

impl<'a> Reader<'a, '_> {
    fn read(&mut self, mut bytes: &'a [u8]) -> Result<(), Reset> {
        while !bytes.is_empty() {
            let Some((raw, rest)) = Raw::cut(bytes) else {
                // RFC 7606 §4: the prefixes behind it are found by the total length.
                self.has_others = true;
                self.fault(0, Approach::TreatAsWithdraw, "the last attribute is cut short");
                self.worsen(update_error::ATTRIBUTE_LIST, &[]);
                break;
            };
            bytes = rest;
            self.has_others |= raw.code != code::MP_UNREACH;
            if !self.is_first(raw.code) {
                // RFC 7606 §3 g.
                if matches!(raw.code, code::MP_REACH | code::MP_UNREACH) {
                    return Err(reset(raw.code, update_error::ATTRIBUTE_LIST, "it stands there twice", &[]));
                }
                self.fault(raw.code, Approach::AttributeDiscard, "it stands there more than once");
                continue;
            }
            self.read_one(&raw)?;
        }
        Ok(())
    }

    fn is_first(&mut self, code: u8) -> bool {
        let (word, bit) = (&mut self.seen[usize::from(code >> 6)], 1 << (code & 63));
        let is_first = *word & bit == 0;
        *word |= bit;
        is_first
    }

    fn has(&self, code: u8) -> bool {
        self.seen[usize::from(code >> 6)] & (1 << (code & 63)) != 0
    }

    fn read_one(&mut self, raw: &Raw<'a>) -> Result<(), Reset> {
        let reason = match raw.code {
            // RFC 7606 §7.5, §7.9, §7.10: from external neighbours these are discarded, however they look.
            code::LOCAL_PREF | code::ORIGINATOR_ID | code::CLUSTER_LIST if !self.session.is_internal => {
                Some("it has no business with an external neighbour")
            }
            // RFC 6793 §4.1.
            code::AS4_PATH | code::AS4_AGGREGATOR if self.session.four_octet_as => {
                Some("it has no business where AS numbers have four octets")
            }
            _ => None,
        };
        if let Some(reason) = reason {
            self.fault(raw.code, Approach::AttributeDiscard, reason);
            return Ok(());
        }
        match attribute::expected_kind(raw.code) {
            Some(kind) if kind != raw.kind() => {
                self.fault(raw.code, attribute::approach_to_flags(raw.code), "its flags are wrong");
                self.worsen(update_error::FLAGS, raw.whole);
                return Ok(());
            }
            Some(_) => {}
            // RFC 4271 §6.3, which RFC 7606 leaves as it was.
            None if raw.flags & flag::OPTIONAL == 0 => {
                let reason = "it claims to be well-known and is not";
                return Err(reset(raw.code, update_error::UNRECOGNIZED, reason, raw.whole));
            }
            // RFC 4271 §5: quietly ignored and not passed on.
            None if raw.flags & flag::TRANSITIVE == 0 => return Ok(()),
            None => {}
        }
        match raw.code {
            code::MP_REACH => self.read_reach(raw),
            code::MP_UNREACH => self.read_unreach(raw),
            _ => {
                if let Err(Malformed { approach, reason }) = self.reading.take(raw, self.session) {
                    self.fault(raw.code, approach.unwrap_or_else(|| attribute::approach(raw.code)), reason);
                    self.worsen(subcode(raw.code, reason), raw.whole);
                }
                Ok(())
            }
        }
    }

    /// MP_REACH_NLRI (RFC 4760 §3, RFC 2545 §3).
    fn read_reach(&mut self, raw: &Raw<'a>) -> Result<(), Reset> {
        // RFC 7606 §5.3: at least five octets; fewer do not even tell the family.
        let (&[high, low, safi, len], rest) =
            raw.value.split_first_chunk::<4>().filter(|(_, rest)| !rest.is_empty()).ok_or_else(|| too_short(raw))?;
        let Some(family) = self.spoken(high, low, safi) else { return Ok(()) };
        let Some((next_hop, [_reserved, prefixes @ ..])) = rest.split_at_checked(usize::from(len)) else {
            return self.disable(family, raw, "its next hop is cut short");
        };
        // RFC 7606 §7.11.
        let Some(next_hop) = read_next_hop(family, next_hop) else {
            return self.disable(family, raw, "its next hop has a length that no address has");
        };
        let Some(prefixes) = Prefixes::parse(family, prefixes) else {
            return self.disable(family, raw, "a prefix is longer than an address, or cut short");
        };
        if !is_host(next_hop) {
            self.fault(raw.code, Approach::TreatAsWithdraw, "its next hop is not the address of a host");
            self.worsen(update_error::OPTIONAL, raw.whole);
        }
        self.reach = Some(Reach { next_hop, prefixes });
        Ok(())
    }

    /// MP_UNREACH_NLRI (RFC 4760 §4).
    fn read_unreach(&mut self, raw: &Raw<'a>) -> Result<(), Reset> {
        let (&[high, low, safi], prefixes) = raw.value.split_first_chunk::<3>().ok_or_else(|| too_short(raw))?;
        let Some(family) = self.spoken(high, low, safi) else { return Ok(()) };
        match Prefixes::parse(family, prefixes) {
            Some(prefixes) => self.unreach = Some(prefixes),
            None => return self.disable(family, raw, "a prefix is longer than an address, or cut short"),
        }
        Ok(())
    }

    /// The family, where both speak it.
    fn spoken(&self, high: u8, low: u8, safi: u8) -> Option<Family> {
        let afi = u16::from_be_bytes([high, low]);
        self.session.families.iter().find(|family| family.afi() == afi && safi == 1)
    }

    /// RFC 7606 §5.3, §7.11: AFI/SAFI disable (RFC 4760 §7), or session reset where no other family would be left.
    fn disable(&mut self, family: Family, raw: &Raw<'a>, reason: &'static str) -> Result<(), Reset> {
        if self.session.families.iter().count() < 2 {
            return Err(reset(raw.code, update_error::OPTIONAL, reason, raw.whole));
        }
        self.disabled = Some(family);
        self.fault(raw.code, Approach::DisableFamily, reason);
        self.worsen(update_error::OPTIONAL, raw.whole);
        Ok(())
    }

    /// RFC 7606 §3 d: what is announced needs these.
    fn check_mandatory(&mut self, has_announced: bool) {
        let has_reachable = self.reach.as_ref().is_some_and(|reach| !reach.prefixes.is_empty());
        if !has_announced && !has_reachable {
            return;
        }
        let mandatory = [
            (code::ORIGIN, true),
            (code::AS_PATH, true),
            (code::NEXT_HOP, has_announced),
            (code::LOCAL_PREF, self.session.is_internal),
        ];
        for (code, is_needed) in mandatory {
            if is_needed && !self.has(code) {
                self.fault(code, Approach::TreatAsWithdraw, "it is missing");
                self.worsen(update_error::MISSING, &[]);
            }
        }
        let first = self.reading.attributes.as_path.neighbor_as();
        let is_withdrawn = self.worst.as_ref().is_some_and(|worst| worst.fault.approach >= Approach::TreatAsWithdraw);
        if self.session.first_as.is_some_and(|asn| first != Some(asn)) && !is_withdrawn {
            self.fault(code::AS_PATH, Approach::TreatAsWithdraw, "it does not begin with the AS of the neighbour");
            self.worsen(update_error::AS_PATH, &[]);
        }
    }

    /// Whether the faults end the session after all.
    fn settle(&self, is_reachable: bool) -> Result<(), Reset> {
        let Some(worst) = &self.worst else { return Ok(()) };
        let ends = match worst.fault.approach {
            Approach::AttributeDiscard => false,
            // RFC 7606 §5.2: with no prefix to withdraw, it may be that the prefixes were lost. Those of a malformed
            // MP_REACH_NLRI count: else no family could ever be disabled for one.
            Approach::TreatAsWithdraw => !is_reachable,
            Approach::DisableFamily => !is_reachable && self.has_others && worst.fault.attribute != code::MP_REACH,
            Approach::SessionReset => true,
        };
        if !ends {
            return Ok(());
        }
        let data = if worst.subcode == update_error::MISSING { &[worst.fault.attribute][..] } else { worst.data };
        Err(reset(worst.fault.attribute, worst.subcode, worst.fault.reason, data))
    }

    fn fault(&mut self, attribute: u8, approach: Approach, reason: &'static str) {
        self.faults.push(Fault { attribute, approach, reason });
    }

    /// Makes the last fault the strongest, if it is (RFC 7606 §3 h).
    fn worsen(&mut self, subcode: u8, data: &'a [u8]) {
        let Some(&fault) = self.faults.last() else { return };
        if self.worst.as_ref().is_none_or(|worst| worst.fault.approach < fault.approach) {
            self.worst = Some(Worst { fault, subcode, data });
        }
    }
}

fn too_short(raw: &Raw<'_>) -> Reset {
    reset(raw.code, update_error::OPTIONAL, "it is too short to tell its family", raw.whole)
}

/// What RFC 4271 §6.3 calls a wrong value of this attribute.
fn subcode(code: u8, reason: &str) -> u8 {
    match code {
        _ if reason.starts_with("its length") => update_error::LENGTH,
        code::ORIGIN => update_error::ORIGIN,
        code::AS_PATH => update_error::AS_PATH,
        code::NEXT_HOP => update_error::NEXT_HOP,
        _ => update_error::OPTIONAL,
    }
}

fn read_next_hop(family: Family, octets: &[u8]) -> Option<IpAddr> {
    match family {
        Family::Ipv4 => <[u8; 4]>::try_from(octets).ok().map(|octets| Ipv4Addr::from(octets).into()),
        Family::Ipv6 => {
            let (global, link_local) = octets.split_first_chunk::<16>()?;
            let global = Ipv6Addr::from(*global);
            match <[u8; 16]>::try_from(link_local) {
                // RFC 2545 §3 wants a global address; where only a link has one, the link's must do.
                Ok(link_local) if global.is_unspecified() => Some(Ipv6Addr::from(link_local).into()),
                Ok(_) => Some(global.into()),
                Err(_) => link_local.is_empty().then_some(global.into()),
            }
        }
    }
}

fn is_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => attribute::is_host(address),
        IpAddr::V6(address) => !(address.is_unspecified() || address.is_loopback() || address.is_multicast()),
    }
}

#[cfg(test)]
#[path = "update_tests.rs"]
mod tests;
