//! UPDATE messages out of routes: as many prefixes with the same attributes as a message has room for.
//!
//! IPv4 goes into the message's own fields and IPv6 into the multiprotocol attributes, which come first and never stand
//! with others of their kind (RFC 7606 §5.1).

use std::net::IpAddr;

use ipnet::IpNet;

use super::attribute::{self, code, flag};
use super::{HEADER, MAX_MESSAGE, MessageKind, prefixes, write_message};
use crate::{Attributes, Family};

/// The attributes leave no room for a prefix in a message: the routes cannot be announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong {
    /// Octets that they take.
    pub len: usize,
}

/// Octets of a message that its two length fields and the prefixes and attributes share.
const ROOM: usize = MAX_MESSAGE - HEADER;

/// Octets of a NEXT_HOP, with its flags, type and length.
const NEXT_HOP_LEN: usize = 7;

/// Octets of an MP_REACH_NLRI before its prefixes, with an IPv6 address as next hop.
const REACH_LEN: usize = 21;

/// The most octets that a prefix takes.
const LONGEST_PREFIX: usize = 17;

/// Attributes as they stand in messages, but for the next hop, which differs from neighbour to neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedAttributes {
    /// ORIGIN and AS_PATH, which stand before NEXT_HOP.
    leading: Vec<u8>,
    /// All others.
    trailing: Vec<u8>,
}

impl EncodedAttributes {
    /// Encodes them, with AS numbers of four octets or of two (RFC 6793 §4.2.2).
    pub fn of(attributes: &Attributes, four_octet_as: bool) -> Self {
        let (mut leading, mut trailing) = (Vec::with_capacity(64), Vec::with_capacity(64));
        attribute::write_leading(&mut leading, attributes, four_octet_as);
        attribute::write_trailing(&mut trailing, attributes, four_octet_as);
        Self { leading, trailing }
    }

    const fn len(&self) -> usize {
        self.leading.len() + self.trailing.len()
    }
}

/// Appends messages that announce prefixes of one family with the same attributes; the answer is how many.
///
/// # Errors
/// As [`write_encoded`].
pub fn write_announcement(
    out: &mut Vec<u8>,
    attributes: &Attributes,
    next_hop: IpAddr,
    prefixes: &[IpNet],
    four_octet_as: bool,
) -> Result<usize, TooLong> {
    write_encoded(out, &EncodedAttributes::of(attributes, four_octet_as), next_hop, prefixes)
}

/// Appends messages that announce prefixes of one family with the same attributes; the answer is how many. A next hop
/// of the other family than the prefixes' is none that can be said, and counts as too long.
///
/// # Errors
/// When the attributes leave no room for a prefix; then nothing was written.
pub fn write_encoded(
    out: &mut Vec<u8>,
    attributes: &EncodedAttributes,
    next_hop: IpAddr,
    prefixes: &[IpNet],
) -> Result<usize, TooLong> {
    let len = attributes.len() + if next_hop.is_ipv4() { NEXT_HOP_LEN } else { 0 };
    let fixed = 4 + len + if next_hop.is_ipv4() { 0 } else { 4 + REACH_LEN };
    let is_of_family = |prefix: &IpNet| matches!(prefix, IpNet::V4(_)) == next_hop.is_ipv4();
    if fixed + LONGEST_PREFIX > ROOM || !prefixes.iter().all(is_of_family) {
        return Err(TooLong { len });
    }
    let mut count = 0;
    for (chunk, prefixes_len) in (Chunks { rest: prefixes, room: ROOM - fixed }) {
        count += 1;
        write_message(out, MessageKind::Update, |out| {
            out.extend_from_slice(&[0, 0]);
            match next_hop {
                IpAddr::V4(next_hop) => {
                    out.extend_from_slice(&(len as u16).to_be_bytes());
                    out.extend_from_slice(&attributes.leading);
                    attribute::write_one(out, flag::TRANSITIVE, code::NEXT_HOP, &next_hop.octets());
                    out.extend_from_slice(&attributes.trailing);
                    chunk.iter().for_each(|prefix| prefixes::write(out, prefix));
                }
                IpAddr::V6(next_hop) => {
                    let value = (REACH_LEN + prefixes_len) as u16;
                    out.extend_from_slice(&(value + 4 + len as u16).to_be_bytes());
                    write_header(out, code::MP_REACH, value);
                    let [high, low] = Family::Ipv6.afi().to_be_bytes();
                    out.extend_from_slice(&[high, low, 1, 16]);
                    out.extend_from_slice(&next_hop.octets());
                    out.push(0);
                    chunk.iter().for_each(|prefix| prefixes::write(out, prefix));
                    out.extend_from_slice(&attributes.leading);
                    out.extend_from_slice(&attributes.trailing);
                }
            }
        });
    }
    Ok(count)
}

/// Appends messages that withdraw prefixes of one family; the answer is how many.
pub fn write_withdrawal(out: &mut Vec<u8>, family: Family, prefixes: &[IpNet]) -> usize {
    let (mut count, fixed) = (0, 4 + if family == Family::Ipv6 { 7 } else { 0 });
    for (chunk, len) in (Chunks { rest: prefixes, room: ROOM - fixed }) {
        count += 1;
        write_message(out, MessageKind::Update, |out| {
            match family {
                Family::Ipv4 => out.extend_from_slice(&(len as u16).to_be_bytes()),
                Family::Ipv6 => write_unreach(out, len as u16),
            }
            chunk.iter().for_each(|prefix| prefixes::write(out, prefix));
            if family == Family::Ipv4 {
                out.extend_from_slice(&[0, 0]);
            }
        });
    }
    count
}

/// Appends the End-of-RIB of a family (RFC 4724 §2).
pub fn write_end_of_rib(out: &mut Vec<u8>, family: Family) {
    write_message(out, MessageKind::Update, |out| match family {
        Family::Ipv4 => out.extend_from_slice(&[0, 0, 0, 0]),
        Family::Ipv6 => write_unreach(out, 0),
    });
}

/// Appends everything of a message that withdraws `len` octets of IPv6 prefixes but the prefixes.
fn write_unreach(out: &mut Vec<u8>, len: u16) {
    let [high, low] = Family::Ipv6.afi().to_be_bytes();
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&(len + 7).to_be_bytes());
    write_header(out, code::MP_UNREACH, len + 3);
    out.extend_from_slice(&[high, low, 1]);
}

/// Appends flags, type and length of a multiprotocol attribute.
fn write_header(out: &mut Vec<u8>, code: u8, len: u16) {
    let [high, low] = len.to_be_bytes();
    out.extend_from_slice(&[flag::OPTIONAL | flag::EXTENDED, code, high, low]);
}

/// As many prefixes at a time as there is room for, and the octets they take.
struct Chunks<'a> {
    rest: &'a [IpNet],
    room: usize,
}

impl<'a> Iterator for Chunks<'a> {
    type Item = (&'a [IpNet], usize);

    fn next(&mut self) -> Option<Self::Item> {
        let (mut count, mut len) = (0, 0);
        for prefix in self.rest {
            let more = len + prefixes::len(prefix);
            if more > self.room {
                break;
            }
            (count, len) = (count + 1, more);
        }
        let (chunk, rest) = self.rest.split_at_checked(count).filter(|(chunk, _)| !chunk.is_empty())?;
        self.rest = rest;
        Some((chunk, len))
    }
}
