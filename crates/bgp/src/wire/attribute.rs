//! Path attributes to and from octets (RFC 4271 §4.3, §5), one by one: what each may look like, and what RFC 7606 §7 wants
//! where it does not.

use std::net::Ipv4Addr;

use super::AS_TRANS;
use super::update::{Approach, Session};
use crate::{AsPath, Asn, Attributes, Community, LargeCommunity, Origin, UnknownAttribute};

/// Type codes of path attributes.
pub mod code {
    /// ORIGIN.
    pub const ORIGIN: u8 = 1;
    /// AS_PATH.
    pub const AS_PATH: u8 = 2;
    /// NEXT_HOP.
    pub const NEXT_HOP: u8 = 3;
    /// MULTI_EXIT_DISC.
    pub const MED: u8 = 4;
    /// LOCAL_PREF.
    pub const LOCAL_PREF: u8 = 5;
    /// ATOMIC_AGGREGATE.
    pub const ATOMIC_AGGREGATE: u8 = 6;
    /// AGGREGATOR.
    pub const AGGREGATOR: u8 = 7;
    /// COMMUNITIES (RFC 1997).
    pub const COMMUNITIES: u8 = 8;
    /// ORIGINATOR_ID (RFC 4456).
    pub const ORIGINATOR_ID: u8 = 9;
    /// CLUSTER_LIST (RFC 4456).
    pub const CLUSTER_LIST: u8 = 10;
    /// MP_REACH_NLRI (RFC 4760).
    pub const MP_REACH: u8 = 14;
    /// MP_UNREACH_NLRI (RFC 4760).
    pub const MP_UNREACH: u8 = 15;
    /// EXTENDED COMMUNITIES (RFC 4360).
    pub const EXTENDED_COMMUNITIES: u8 = 16;
    /// AS4_PATH (RFC 6793).
    pub const AS4_PATH: u8 = 17;
    /// AS4_AGGREGATOR (RFC 6793).
    pub const AS4_AGGREGATOR: u8 = 18;
    /// LARGE_COMMUNITY (RFC 8092).
    pub const LARGE_COMMUNITIES: u8 = 32;
}

/// Bits of an attribute's flags.
pub(super) mod flag {
    pub(in crate::wire) const OPTIONAL: u8 = 0x80;
    pub(in crate::wire) const TRANSITIVE: u8 = 0x40;
    pub(in crate::wire) const PARTIAL: u8 = 0x20;
    pub(in crate::wire) const EXTENDED: u8 = 0x10;
}

use flag::{EXTENDED, OPTIONAL, PARTIAL, TRANSITIVE};

/// One attribute of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Raw<'a> {
    pub(super) flags: u8,
    pub(super) code: u8,
    pub(super) value: &'a [u8],
    /// With its flags, type and length.
    pub(super) whole: &'a [u8],
}

impl<'a> Raw<'a> {
    /// Cuts the first attribute off; `None` when the rest is too short for one (RFC 7606 §4).
    pub(super) fn cut(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (&[flags, code], rest) = bytes.split_first_chunk::<2>()?;
        let (len, rest) = if flags & EXTENDED != 0 {
            let (len, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*len)), rest)
        } else {
            let (&len, rest) = rest.split_first()?;
            (usize::from(len), rest)
        };
        let (value, rest) = rest.split_at_checked(len)?;
        let whole = bytes.get(..bytes.len() - rest.len())?;
        Some((Self { flags, code, value, whole }, rest))
    }

    /// The bits that say how to treat it where it is unknown.
    pub(super) const fn kind(self) -> u8 {
        self.flags & (OPTIONAL | TRANSITIVE)
    }
}

/// What the flags of a known attribute must say (RFC 7606 §3 c); `None` for one that is unknown.
pub(super) const fn expected_kind(code: u8) -> Option<u8> {
    Some(match code {
        code::ORIGIN | code::AS_PATH | code::NEXT_HOP | code::LOCAL_PREF | code::ATOMIC_AGGREGATE => TRANSITIVE,
        code::MED | code::ORIGINATOR_ID | code::CLUSTER_LIST | code::MP_REACH | code::MP_UNREACH => OPTIONAL,
        code::AGGREGATOR
        | code::COMMUNITIES
        | code::EXTENDED_COMMUNITIES
        | code::AS4_PATH
        | code::AS4_AGGREGATOR
        | code::LARGE_COMMUNITIES => OPTIONAL | TRANSITIVE,
        _ => return None,
    })
}

/// What RFC 7606 wants where the flags are wrong: §3 c has one answer for all but those that carry prefixes (§5.3).
pub(super) const fn approach_to_flags(code: u8) -> Approach {
    match code {
        code::MP_REACH | code::MP_UNREACH => Approach::SessionReset,
        _ => Approach::TreatAsWithdraw,
    }
}

/// What is wrong with the value of an attribute.
pub(super) struct Malformed {
    /// What this wants; `None` for what the attribute's code does ([`approach`]).
    pub(super) approach: Option<Approach>,
    /// In words.
    pub(super) reason: &'static str,
}

impl From<&'static str> for Malformed {
    fn from(reason: &'static str) -> Self {
        Self { approach: None, reason }
    }
}

/// RFC 9774 §3, in any path: the route goes.
const HAS_SET: Malformed = Malformed {
    approach: Some(Approach::TreatAsWithdraw),
    reason: "it has an AS_SET, which RFC 9774 forbids: have the route aggregated without one",
};

/// What RFC 7606 wants where the length or the value is wrong (§7; RFC 6793 §6 for the last two).
pub(super) const fn approach(code: u8) -> Approach {
    match code {
        code::ATOMIC_AGGREGATE | code::AGGREGATOR | code::AS4_PATH | code::AS4_AGGREGATOR => Approach::AttributeDiscard,
        code::MP_REACH | code::MP_UNREACH => Approach::SessionReset,
        _ => Approach::TreatAsWithdraw,
    }
}

/// What was read of the attributes so far, beside those that carry prefixes.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) attributes: Attributes,
    pub(super) next_hop: Option<Ipv4Addr>,
    as4_path: Option<AsPath>,
    as4_aggregator: Option<(Asn, Ipv4Addr)>,
}

impl Reading {
    pub(super) fn new() -> Self {
        let attributes = Attributes {
            origin: Origin::Incomplete,
            as_path: AsPath::default(),
            med: None,
            local_pref: None,
            atomic_aggregate: false,
            aggregator: None,
            communities: Vec::new(),
            extended_communities: Vec::new(),
            large_communities: Vec::new(),
            originator_id: None,
            cluster_list: Vec::new(),
            unknown: Vec::new(),
        };
        Self { attributes, next_hop: None, as4_path: None, as4_aggregator: None }
    }

    /// Takes one attribute whose flags are right.
    ///
    /// # Errors
    /// What is wrong with its value.
    pub(super) fn take(&mut self, raw: &Raw<'_>, session: &Session) -> Result<(), Malformed> {
        let (value, attributes) = (raw.value, &mut self.attributes);
        let of_four = || <[u8; 4]>::try_from(value).map_err(|_| "its length is not 4");
        match raw.code {
            code::ORIGIN => {
                attributes.origin = match value {
                    [0] => Origin::Igp,
                    [1] => Origin::Egp,
                    [2] => Origin::Incomplete,
                    [_] => return Err("its value is none of IGP, EGP and INCOMPLETE".into()),
                    _ => return Err("its length is not 1".into()),
                }
            }
            code::AS_PATH => attributes.as_path = read_as_path(value, session.four_octet_as)?,
            code::NEXT_HOP => {
                let address = Ipv4Addr::from(of_four()?);
                // RFC 4271 §6.3: a syntactically correct host address.
                if !is_host(address) {
                    return Err("it is not the address of a host".into());
                }
                self.next_hop = Some(address);
            }
            code::MED => attributes.med = Some(u32::from_be_bytes(of_four()?)),
            code::LOCAL_PREF => attributes.local_pref = Some(u32::from_be_bytes(of_four()?)),
            code::ATOMIC_AGGREGATE if value.is_empty() => attributes.atomic_aggregate = true,
            code::ATOMIC_AGGREGATE => return Err("its length is not 0".into()),
            code::AGGREGATOR => attributes.aggregator = Some(read_aggregator(value, session.four_octet_as)?),
            code::COMMUNITIES => {
                let communities = read_list(value, "its length is not a multiple of 4, or 0")?;
                attributes.communities = sorted(communities.map(|octets| Community(u32::from_be_bytes(octets))));
            }
            code::ORIGINATOR_ID => attributes.originator_id = Some(Ipv4Addr::from(of_four()?)),
            code::CLUSTER_LIST => {
                let clusters = read_list::<4>(value, "its length is not a multiple of 4, or 0")?;
                attributes.cluster_list = clusters.map(Ipv4Addr::from).collect();
            }
            code::EXTENDED_COMMUNITIES => {
                let communities = read_list(value, "its length is not a multiple of 8, or 0")?;
                attributes.extended_communities = sorted(communities);
            }
            code::LARGE_COMMUNITIES => {
                let communities = read_list::<12>(value, "its length is not a multiple of 12, or 0")?;
                attributes.large_communities = sorted(communities.map(large_community));
            }
            code::AS4_PATH => {
                if value.is_empty() {
                    return Err("it is too short for an AS number".into());
                }
                // RFC 6793 §6: a confederation has no business in it, and the rest counts.
                self.as4_path = Some(read_segments(value, true)?.path);
            }
            code::AS4_AGGREGATOR => self.as4_aggregator = Some(read_aggregator(value, true)?),
            _ => {
                let (flags, value) = (raw.flags & !EXTENDED | PARTIAL, value.to_vec());
                attributes.unknown.push(UnknownAttribute { flags, code: raw.code, value });
            }
        }
        Ok(())
    }

    /// The attributes, once all were taken: AS numbers of two octets become those of four (RFC 6793 §4.2.3).
    pub(super) fn finish(self) -> Attributes {
        let Self { mut attributes, as4_path, as4_aggregator, .. } = self;
        let trans = Asn::from(AS_TRANS);
        match (attributes.aggregator, as4_aggregator) {
            // An old speaker aggregated behind the one that wrote them: both are out of date.
            (Some((asn, _)), Some(_)) if asn != trans => return attributes,
            (Some(_), Some(aggregator)) => attributes.aggregator = Some(aggregator),
            (Some(_) | None, None) | (None, Some(_)) => {}
        }
        if let Some(as4_path) = as4_path
            && let Some(leading) = attributes.as_path.0.len().checked_sub(as4_path.0.len())
        {
            attributes.as_path.0.splice(leading.., as4_path.0);
        }
        attributes
    }
}

/// Whether a host may have this address: not 0/8, not 127/8, no class D or E.
pub(super) fn is_host(address: Ipv4Addr) -> bool {
    !matches!(address.octets()[0], 0 | 127 | 224..)
}

fn sorted<T: Ord>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut items: Vec<T> = items.collect();
    items.sort_unstable();
    items.dedup();
    items
}

fn large_community(octets: [u8; 12]) -> LargeCommunity {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = octets;
    LargeCommunity {
        global: u32::from_be_bytes([a, b, c, d]),
        local1: u32::from_be_bytes([e, f, g, h]),
        local2: u32::from_be_bytes([i, j, k, l]),
    }
}

/// Values of `N` octets, of which there is at least one.
fn read_list<'a, const N: usize>(
    value: &'a [u8],
    wrong: &'static str,
) -> Result<impl Iterator<Item = [u8; N]> + 'a, &'static str> {
    match value.as_chunks::<N>() {
        ([], _) => Err(wrong),
        (items, []) => Ok(items.iter().copied()),
        _ => Err(wrong),
    }
}

fn read_aggregator(value: &[u8], four_octet_as: bool) -> Result<(Asn, Ipv4Addr), &'static str> {
    let (asn, address) = match (value, four_octet_as) {
        (&[a, b, c, d, e, f, g, h], true) => (u32::from_be_bytes([a, b, c, d]), Ipv4Addr::new(e, f, g, h)),
        (&[a, b, c, d, e, f], false) => (u16::from_be_bytes([a, b]).into(), Ipv4Addr::new(c, d, e, f)),
        (_, true) => return Err("its length is not 8"),
        (_, false) => return Err("its length is not 6"),
    };
    // RFC 7607 §2.
    if asn == 0 { Err("it has AS 0") } else { Ok((asn, address)) }
}

/// Types of segments.
const AS_SET: u8 = 1;
const AS_SEQUENCE: u8 = 2;
const AS_CONFED_SEQUENCE: u8 = 3;
const AS_CONFED_SET: u8 = 4;

/// What the segments of a path say.
struct Segments {
    path: AsPath,
    /// Whether there was an AS_CONFED_SEQUENCE among them, which was left out.
    has_confederation: bool,
}

/// Reads an AS_PATH (RFC 7606 §7.2).
fn read_as_path(value: &[u8], four_octet_as: bool) -> Result<AsPath, Malformed> {
    let Segments { path, has_confederation } = read_segments(value, four_octet_as)?;
    // RFC 5065 §5: an error from whoever is not in our confederation, and we are in none.
    if has_confederation { Err("it has a segment of a confederation".into()) } else { Ok(path) }
}

fn read_segments(mut value: &[u8], four_octet_as: bool) -> Result<Segments, Malformed> {
    let width = if four_octet_as { 4 } else { 2 };
    let (mut path, mut has_confederation) = (Vec::with_capacity(value.len() / width), false);
    while !value.is_empty() {
        let (&[kind, count], rest) = value.split_first_chunk::<2>().ok_or("a segment is cut short")?;
        if count == 0 {
            return Err("a segment is empty".into());
        }
        let (numbers, rest) = rest.split_at_checked(usize::from(count) * width).ok_or("a segment is cut short")?;
        value = rest;
        let start = path.len();
        if four_octet_as {
            path.extend(numbers.as_chunks::<4>().0.iter().map(|octets| u32::from_be_bytes(*octets)));
        } else {
            path.extend(numbers.as_chunks::<2>().0.iter().map(|octets| Asn::from(u16::from_be_bytes(*octets))));
        }
        // RFC 7607 §2.
        if path[start..].contains(&0) {
            return Err("it has AS 0".into());
        }
        match kind {
            AS_SEQUENCE => {}
            AS_CONFED_SEQUENCE => {
                path.truncate(start);
                has_confederation = true;
            }
            AS_SET | AS_CONFED_SET => return Err(HAS_SET),
            _ => return Err("a segment is of an unknown type".into()),
        }
    }
    Ok(Segments { path: AsPath(path), has_confederation })
}

/// Appends the attributes that stand before NEXT_HOP in the order of their types.
pub(super) fn write_leading(out: &mut Vec<u8>, attributes: &Attributes, four_octet_as: bool) {
    let origin = match attributes.origin {
        Origin::Igp => 0,
        Origin::Egp => 1,
        Origin::Incomplete => 2,
    };
    write_one(out, TRANSITIVE, code::ORIGIN, &[origin]);
    write_one(out, TRANSITIVE, code::AS_PATH, &encode_as_path(&attributes.as_path, four_octet_as));
}

/// Appends those that stand behind it, without those that carry prefixes.
pub(super) fn write_trailing(out: &mut Vec<u8>, attributes: &Attributes, four_octet_as: bool) {
    if let Some(med) = attributes.med {
        write_one(out, OPTIONAL, code::MED, &med.to_be_bytes());
    }
    if let Some(local_pref) = attributes.local_pref {
        write_one(out, TRANSITIVE, code::LOCAL_PREF, &local_pref.to_be_bytes());
    }
    if attributes.atomic_aggregate {
        write_one(out, TRANSITIVE, code::ATOMIC_AGGREGATE, &[]);
    }
    if let Some((asn, address)) = attributes.aggregator {
        write_one(out, OPTIONAL | TRANSITIVE, code::AGGREGATOR, &encode_aggregator(asn, address, four_octet_as));
    }
    write_list(out, OPTIONAL | TRANSITIVE, code::COMMUNITIES, &attributes.communities, |c| c.0.to_be_bytes());
    if let Some(originator) = attributes.originator_id {
        write_one(out, OPTIONAL, code::ORIGINATOR_ID, &originator.octets());
    }
    write_list(out, OPTIONAL, code::CLUSTER_LIST, &attributes.cluster_list, |cluster| cluster.octets());
    write_list(out, OPTIONAL | TRANSITIVE, code::EXTENDED_COMMUNITIES, &attributes.extended_communities, |c| *c);
    if !four_octet_as {
        write_for_the_old(out, attributes);
    }
    write_list(out, OPTIONAL | TRANSITIVE, code::LARGE_COMMUNITIES, &attributes.large_communities, |c| {
        let [global, local1, local2] = [c.global, c.local1, c.local2].map(u32::to_be_bytes);
        let mut octets = [0; 12];
        octets[..4].copy_from_slice(&global);
        octets[4..8].copy_from_slice(&local1);
        octets[8..].copy_from_slice(&local2);
        octets
    });
    for unknown in &attributes.unknown {
        write_one(out, unknown.flags, unknown.code, &unknown.value);
    }
}

/// What an old speaker carries on for the next that has four octets (RFC 6793 §4.2.2).
fn write_for_the_old(out: &mut Vec<u8>, attributes: &Attributes) {
    let is_large = |asn: &Asn| *asn > u16::MAX.into();
    if attributes.as_path.0.iter().any(is_large) {
        write_one(out, OPTIONAL | TRANSITIVE, code::AS4_PATH, &encode_as_path(&attributes.as_path, true));
    }
    if let Some((asn, address)) = attributes.aggregator.filter(|(asn, _)| is_large(asn)) {
        write_one(out, OPTIONAL | TRANSITIVE, code::AS4_AGGREGATOR, &encode_aggregator(asn, address, true));
    }
}

/// Appends one attribute.
pub(super) fn write_one(out: &mut Vec<u8>, flags: u8, code: u8, value: &[u8]) {
    let flags = flags & !EXTENDED;
    match u8::try_from(value.len()) {
        Ok(len) => out.extend_from_slice(&[flags, code, len]),
        Err(_) => {
            let [high, low] = (value.len() as u16).to_be_bytes();
            out.extend_from_slice(&[flags | EXTENDED, code, high, low]);
        }
    }
    out.extend_from_slice(value);
}

fn write_list<T, const N: usize>(out: &mut Vec<u8>, flags: u8, code: u8, items: &[T], octets: impl Fn(&T) -> [u8; N]) {
    if !items.is_empty() {
        let value: Vec<u8> = items.iter().flat_map(octets).collect();
        write_one(out, flags, code, &value);
    }
}

fn encode_aggregator(asn: Asn, address: Ipv4Addr, four_octet_as: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(8);
    write_asn(&mut out, asn, four_octet_as);
    out.extend_from_slice(&address.octets());
    out
}

fn write_asn(out: &mut Vec<u8>, asn: Asn, four_octet_as: bool) {
    if four_octet_as {
        out.extend_from_slice(&asn.to_be_bytes());
    } else {
        out.extend_from_slice(&u16::try_from(asn).unwrap_or(AS_TRANS).to_be_bytes());
    }
}

/// As many segments as it needs: each has room for 255 ASes (RFC 4271 §4.3).
fn encode_as_path(path: &AsPath, four_octet_as: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 + 4 * path.0.len());
    for numbers in path.0.chunks(255) {
        out.extend_from_slice(&[AS_SEQUENCE, numbers.len() as u8]);
        numbers.iter().for_each(|asn| write_asn(&mut out, *asn, four_octet_as));
    }
    out
}
