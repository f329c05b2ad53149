//! Groups of next hops that keep flows where they are (`ip-nexthop(8)`, type resilient): [`Bulk::set_group`].
//!
//! The kernel gives each way of a plain route a range of the hash of a flow: when a way comes or goes, ranges shift, and
//! flows move that need not. Here each bucket of the hash has a way. What loses its way gets another; a way that is new gets
//! buckets that have been idle, and its share in any case after a while.

use std::io;

use super::PROTOCOL;
use super::bulk::{Bulk, Refusal};
use super::route::NextHop;

/// `RTM_NEWNEXTHOP`, `RTM_DELNEXTHOP`.
const NEW: u16 = 104;
const DELETE: u16 = 105;
/// Attributes of `linux/nexthop.h`.
const ID: u16 = 1;
const GROUP: u16 = 2;
const GROUP_TYPE: u16 = 3;
const DEVICE: u16 = 5;
/// `NHA_RES_GROUP`, nested.
const RESILIENT: u16 = 12 | 0x8000;
const BUCKETS: u16 = 1;
const IDLE_TIMER: u16 = 2;
const UNBALANCED_TIMER: u16 = 3;
/// `NEXTHOP_GRP_TYPE_RES`.
const TYPE_RESILIENT: u16 = 1;

/// Into how many parts flows fall. It cannot be changed while a group lives.
const PARTS: u16 = 128;
/// After so long without a packet a part may change its way, in hundredths of a second (`USER_HZ`).
const IDLE: u32 = 60 * 100;
/// After so long parts change their way also under traffic, where a way has too few.
const UNBALANCED: u32 = 600 * 100;

/// Numbers of next hops of ours: two for each device and family, and then groups.
const DEVICES: [[u32; 2]; 2] = [[0x5300_0000, 0x5310_0000], [0x5320_0000, 0x5330_0000]];
const GROUPS: u32 = 0x5340_0000;
/// Of each kind.
const MOST: u32 = 0x0010_0000;

/// The number of a group of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(u32);

impl GroupId {
    /// The first one.
    pub const FIRST: Self = Self(GROUPS);

    /// The next one, where there is one.
    pub fn next(self) -> Option<Self> {
        Some(Self(self.0 + 1)).filter(|next| next.0 < GROUPS + MOST)
    }

    /// The group of a route, unless it is somebody else's.
    pub(super) fn of(number: u32) -> Option<Self> {
        (GROUPS..GROUPS + MOST).contains(&number).then_some(Self(number))
    }

    pub(super) const fn number(self) -> u32 {
        self.0
    }
}

/// One attribute.
fn attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let len = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    out.extend(len.to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// `struct nhmsg`, and the number.
fn message(family: i32, protocol: u8, number: u32) -> Vec<u8> {
    let mut out = vec![u8::try_from(family).unwrap_or(0), 0, protocol, 0, 0, 0, 0, 0];
    attribute(&mut out, ID, &number.to_ne_bytes());
    out
}

impl Bulk {
    /// Makes a group of these ways, or makes these the ways of the group that there is, in which flows stay where they are
    /// as far as they can. False when that is nothing for a group: a way with a gateway.
    ///
    /// # Errors
    /// `Ok(Err(..))` what the kernel says that refuses; it may have no such groups. Otherwise as [`Self::write`].
    pub fn set_group(&mut self, id: GroupId, is_ipv6: bool, hops: &[NextHop]) -> io::Result<Result<bool, Refusal>> {
        let is_simple = |hop: &NextHop| hop.gateway.is_none() && hop.device.is_some_and(|device| device < MOST);
        if !hops.iter().all(is_simple) {
            return Ok(Ok(false));
        }
        let ways = hops.iter().filter_map(|hop| Some((hop.device?, hop.weight, 0)));
        let ways: Vec<_> = match ways.collect::<Vec<_>>().as_slice() {
            // Of one way alone the kernel does not note which parts are in use, and takes all for idle when another comes.
            [(device, ..)] => vec![(*device, 255, 0), (*device, 1, 1)],
            several => several.to_vec(),
        };
        let family = if is_ipv6 { libc::AF_INET6 } else { libc::AF_INET };
        let (mut requests, mut entries) = (Vec::new(), Vec::new());
        for (device, weight, which) in ways {
            let number = DEVICES[usize::from(is_ipv6)][which] + device;
            let mut request = message(family, PROTOCOL, number);
            attribute(&mut request, DEVICE, &device.to_ne_bytes());
            requests.push((NEW, request));
            // struct nexthop_grp: the weight less one.
            entries.extend(number.to_ne_bytes());
            entries.extend([u8::try_from(u16::saturating_sub(weight, 1)).unwrap_or(u8::MAX), 0, 0, 0]);
        }
        let mut request = message(libc::AF_UNSPEC, PROTOCOL, id.0);
        attribute(&mut request, GROUP, &entries);
        attribute(&mut request, GROUP_TYPE, &TYPE_RESILIENT.to_ne_bytes());
        let mut table = Vec::new();
        attribute(&mut table, BUCKETS, &PARTS.to_ne_bytes());
        attribute(&mut table, IDLE_TIMER, &IDLE.to_ne_bytes());
        attribute(&mut table, UNBALANCED_TIMER, &UNBALANCED.to_ne_bytes());
        attribute(&mut request, RESILIENT, &table);
        requests.push((NEW, request));
        Ok(match self.ask_raw(&requests)?.into_iter().next() {
            Some(refusal) => Err(refusal),
            None => Ok(true),
        })
    }

    /// Removes a group, with the routes that lead there. It is no failure that there is none.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn remove_group(&mut self, id: GroupId) -> io::Result<()> {
        self.ask_raw(&[(DELETE, message(libc::AF_UNSPEC, 0, id.0))]).map(drop)
    }
}
