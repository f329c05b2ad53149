//! OPEN (RFC 4271 §4.2) and capabilities (RFC 5492): four-octet AS numbers (RFC 6793), families (RFC 4760), route refresh
//! (RFC 2918, RFC 7313), graceful restart (RFC 4724) and long-lived graceful restart (RFC 9494).

use std::net::Ipv4Addr;
use std::time::Duration;

use super::notification::open_error;
use super::{AS_TRANS, Code, MessageKind, Notification, write_message};
use crate::{Asn, Families, Family};

/// The version of BGP that is spoken.
const VERSION: u8 = 4;

/// The optional parameter that holds capabilities (RFC 5492 §4).
const CAPABILITIES: u8 = 2;

/// An optional parameter of this type, and as many octets of them, says that lengths have two octets (RFC 9072 §2).
const EXTENDED: u8 = 255;

/// An OPEN message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The sender's AS; that of the capability where there is one (RFC 6793 §4.1).
    pub asn: Asn,
    /// Hold Time offered, in seconds.
    pub hold_time: u16,
    /// The sender's BGP Identifier.
    pub router_id: Ipv4Addr,
    /// What the sender can do.
    pub capabilities: Capabilities,
}

/// What a speaker can do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Families that it speaks. `None`: it says nothing of families, so it speaks IPv4 unicast (RFC 4760 §8).
    pub families: Option<Families>,
    /// Route refresh.
    pub route_refresh: bool,
    /// Enhanced route refresh: it says where a refresh begins and ends.
    pub enhanced_refresh: bool,
    /// AS numbers of four octets.
    pub four_octet_as: bool,
    /// Graceful restart.
    pub graceful_restart: Option<GracefulRestart>,
    /// Long-lived graceful restart.
    pub long_lived: Option<LongLived>,
    /// Codes of others, in the order in which they stood, each once; for people.
    pub others: Vec<u8>,
}

/// The capability of graceful restart (RFC 4724 §3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GracefulRestart {
    /// R: it has restarted, and nobody should wait for its End-of-RIB.
    pub is_restarting: bool,
    /// Restart Time: how long it takes to come back, at most 4,095 s.
    pub restart_time: Duration,
    /// Families that it speaks of.
    pub families: Families,
    /// F: families in which it went on forwarding while it restarted.
    pub is_forwarding: Families,
}

/// The capability of long-lived graceful restart (RFC 9494 §3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LongLived {
    /// How long stale routes of IPv4 unicast may be kept, if it speaks of them; at most 2^24 − 1 s.
    pub ipv4: Option<Duration>,
    /// The same for IPv6 unicast.
    pub ipv6: Option<Duration>,
    /// F: families in which it went on forwarding.
    pub is_forwarding: Families,
}

impl LongLived {
    /// How long stale routes of a family may be kept.
    pub const fn time(&self, family: Family) -> Option<Duration> {
        match family {
            Family::Ipv4 => self.ipv4,
            Family::Ipv6 => self.ipv6,
        }
    }

    const fn time_mut(&mut self, family: Family) -> &mut Option<Duration> {
        match family {
            Family::Ipv4 => &mut self.ipv4,
            Family::Ipv6 => &mut self.ipv6,
        }
    }
}

/// Codes of capabilities.
mod capability {
    pub(super) const MULTIPROTOCOL: u8 = 1;
    pub(super) const ROUTE_REFRESH: u8 = 2;
    pub(super) const GRACEFUL_RESTART: u8 = 64;
    pub(super) const FOUR_OCTET_AS: u8 = 65;
    pub(super) const ENHANCED_REFRESH: u8 = 70;
    pub(super) const LONG_LIVED: u8 = 71;
}

/// The greatest Restart Time: it has 12 bits.
const MAX_RESTART_TIME: u64 = 0xFFF;

/// The greatest Long-lived Stale Time: it has 24 bits.
const MAX_STALE_TIME: u64 = 0xFF_FFFF;

impl Open {
    /// Reads one. Whether its values suit is for the session to say.
    ///
    /// # Errors
    /// What the neighbour is told where the message cannot be read, is of another version, or has optional parameters
    /// that are unknown (RFC 4271 §6.2).
    pub fn decode(body: &[u8]) -> Result<Self, Notification> {
        let unreadable = || Notification::new(Code::OPEN, open_error::UNSPECIFIC, &[]);
        let (&[version, as_high, as_low, hold_high, hold_low, a, b, c, d, len], parameters) =
            body.split_first_chunk::<10>().ok_or_else(unreadable)?;
        if version != VERSION {
            // With the version that is supported, in two octets.
            return Err(Notification::new(Code::OPEN, open_error::VERSION, &[0, VERSION]));
        }
        let mut open = Self {
            asn: u16::from_be_bytes([as_high, as_low]).into(),
            hold_time: u16::from_be_bytes([hold_high, hold_low]),
            router_id: Ipv4Addr::new(a, b, c, d),
            capabilities: Capabilities::default(),
        };
        let (parameters, is_extended) = match (len, parameters) {
            (0, []) => return Ok(open),
            (EXTENDED, [EXTENDED, high, low, rest @ ..]) => {
                let len = usize::from(u16::from_be_bytes([*high, *low]));
                (Some(rest).filter(|rest| rest.len() == len), true)
            }
            (len, rest) => (Some(rest).filter(|rest| rest.len() == usize::from(len)), false),
        };
        let mut parameters = parameters.ok_or_else(unreadable)?;
        while !parameters.is_empty() {
            let (kind, value, rest) = cut(parameters, is_extended).ok_or_else(unreadable)?;
            if kind != CAPABILITIES {
                return Err(Notification::new(Code::OPEN, open_error::OPTIONAL_PARAMETER, &[]));
            }
            open.read_capabilities(value).ok_or_else(unreadable)?;
            parameters = rest;
        }
        Ok(open)
    }

    /// Reads the capabilities of one optional parameter; there may be several (RFC 5492 §4).
    fn read_capabilities(&mut self, mut bytes: &[u8]) -> Option<()> {
        while !bytes.is_empty() {
            let (code, value, rest) = cut(bytes, false)?;
            // RFC 5492 §4 says nothing of a capability of another length than its own: it counts as one of the others.
            if self.read_capability(code, value).is_none() && !self.capabilities.others.contains(&code) {
                self.capabilities.others.push(code);
            }
            bytes = rest;
        }
        Some(())
    }

    fn read_capability(&mut self, code: u8, value: &[u8]) -> Option<()> {
        let capabilities = &mut self.capabilities;
        match (code, value) {
            (capability::MULTIPROTOCOL, &[high, low, _, safi]) => {
                let families = capabilities.families.get_or_insert_default();
                if let Some(family) = family_of(high, low, safi) {
                    *families = families.with(family);
                }
            }
            (capability::ROUTE_REFRESH, []) => capabilities.route_refresh = true,
            (capability::ENHANCED_REFRESH, []) => capabilities.enhanced_refresh = true,
            (capability::FOUR_OCTET_AS, &[a, b, c, d]) => {
                capabilities.four_octet_as = true;
                self.asn = u32::from_be_bytes([a, b, c, d]);
            }
            (capability::GRACEFUL_RESTART, [high, low, families @ ..]) if families.len() % 4 == 0 => {
                let time = u16::from_be_bytes([high & 0x0F, *low]);
                let mut restart = GracefulRestart {
                    is_restarting: high & 0x80 != 0,
                    restart_time: Duration::from_secs(time.into()),
                    ..GracefulRestart::default()
                };
                for entry in families.chunks_exact(4) {
                    let &[high, low, safi, flags] = entry else { continue };
                    let Some(family) = family_of(high, low, safi) else { continue };
                    restart.families = restart.families.with(family);
                    if flags & 0x80 != 0 {
                        restart.is_forwarding = restart.is_forwarding.with(family);
                    }
                }
                // RFC 4724 §3: of several the last counts.
                capabilities.graceful_restart = Some(restart);
            }
            (capability::LONG_LIVED, families) if families.len() % 7 == 0 => {
                let mut long_lived = LongLived::default();
                for entry in families.chunks_exact(7) {
                    let &[high, low, safi, flags, a, b, c] = entry else { continue };
                    let Some(family) = family_of(high, low, safi) else { continue };
                    let time = Duration::from_secs(u32::from_be_bytes([0, a, b, c]).into());
                    *long_lived.time_mut(family) = Some(time);
                    if flags & 0x80 != 0 {
                        long_lived.is_forwarding = long_lived.is_forwarding.with(family);
                    }
                }
                capabilities.long_lived = Some(long_lived);
            }
            _ => return None,
        }
        Some(())
    }

    /// Appends it as a message.
    pub fn write(&self, out: &mut Vec<u8>) {
        let capabilities = self.capabilities.encode(self.asn);
        write_message(out, MessageKind::Open, |out| {
            out.push(VERSION);
            out.extend_from_slice(&u16::try_from(self.asn).unwrap_or(AS_TRANS).to_be_bytes());
            out.extend_from_slice(&self.hold_time.to_be_bytes());
            out.extend_from_slice(&self.router_id.octets());
            if capabilities.is_empty() {
                out.push(0);
                return;
            }
            // All of them take well below 255 octets.
            out.push(capabilities.len() as u8 + 2);
            out.extend_from_slice(&[CAPABILITIES, capabilities.len() as u8]);
            out.extend_from_slice(&capabilities);
        });
    }
}

impl Capabilities {
    /// The families that the sender speaks.
    pub fn families_or_default(&self) -> Families {
        self.families.unwrap_or(Families::IPV4)
    }

    /// As they stand in an OPEN of this AS; without those that are only known by their code.
    fn encode(&self, asn: Asn) -> Vec<u8> {
        let mut out = Vec::new();
        for family in self.families.unwrap_or_default().iter() {
            out.extend_from_slice(&multiprotocol(family));
        }
        if self.route_refresh {
            out.extend_from_slice(&[capability::ROUTE_REFRESH, 0]);
        }
        if let Some(restart) = &self.graceful_restart {
            let time = restart.restart_time.as_secs().min(MAX_RESTART_TIME) as u16;
            let flags = if restart.is_restarting { 0x8000 } else { 0 };
            out.extend_from_slice(&[capability::GRACEFUL_RESTART, 2 + 4 * restart.families.iter().count() as u8]);
            out.extend_from_slice(&(time | flags).to_be_bytes());
            for family in restart.families.iter() {
                let [high, low] = family.afi().to_be_bytes();
                out.extend_from_slice(&[high, low, 1, flag(restart.is_forwarding, family)]);
            }
        }
        if self.four_octet_as {
            out.extend_from_slice(&[capability::FOUR_OCTET_AS, 4]);
            out.extend_from_slice(&asn.to_be_bytes());
        }
        if self.enhanced_refresh {
            out.extend_from_slice(&[capability::ENHANCED_REFRESH, 0]);
        }
        if let Some(long_lived) = &self.long_lived {
            let times = Family::ALL.into_iter().filter_map(|family| Some((family, long_lived.time(family)?)));
            out.extend_from_slice(&[capability::LONG_LIVED, 7 * times.clone().count() as u8]);
            for (family, time) in times {
                let [high, low] = family.afi().to_be_bytes();
                let [_, a, b, c] = (time.as_secs().min(MAX_STALE_TIME) as u32).to_be_bytes();
                out.extend_from_slice(&[high, low, 1, flag(long_lived.is_forwarding, family), a, b, c]);
            }
        }
        out
    }
}

/// The capability of a family, as it stands in an OPEN.
pub(crate) const fn multiprotocol(family: Family) -> [u8; 6] {
    let [high, low] = family.afi().to_be_bytes();
    [capability::MULTIPROTOCOL, 4, high, low, 0, 1]
}

const fn flag(forwarding: Families, family: Family) -> u8 {
    if forwarding.contains(family) { 0x80 } else { 0 }
}

fn family_of(high: u8, low: u8, safi: u8) -> Option<Family> {
    let afi = u16::from_be_bytes([high, low]);
    Family::ALL.into_iter().find(|family| family.afi() == afi && safi == 1)
}

/// Cuts one type, length and value off; lengths have two octets where they are `extended`.
fn cut(bytes: &[u8], extended: bool) -> Option<(u8, &[u8], &[u8])> {
    let (&kind, rest) = bytes.split_first()?;
    let (len, rest) = if extended {
        let (len, rest) = rest.split_first_chunk::<2>()?;
        (usize::from(u16::from_be_bytes(*len)), rest)
    } else {
        let (&len, rest) = rest.split_first()?;
        (usize::from(len), rest)
    };
    let (value, rest) = rest.split_at_checked(len)?;
    Some((kind, value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(open: &Open) -> Open {
        let mut bytes = Vec::new();
        open.write(&mut bytes);
        let (message, rest) = super::super::split(&bytes).unwrap().unwrap();
        assert!(rest.is_empty());
        Open::decode(message.body).unwrap()
    }

    fn body(len: u8, parameters: &[u8]) -> Vec<u8> {
        let mut bytes = vec![4, 0xFD, 0xE8, 0, 90, 169, 254, 10, 1, len];
        bytes.extend_from_slice(parameters);
        bytes
    }

    #[test]
    fn an_open_without_parameters_is_one_of_the_old_days() {
        let open = Open::decode(&body(0, &[])).unwrap();
        assert_eq!((open.asn, open.hold_time, open.router_id), (65000, 90, Ipv4Addr::new(169, 254, 10, 1)));
        assert_eq!(open.capabilities, Capabilities::default());
        assert_eq!(open.capabilities.families_or_default(), Families::IPV4);
        assert_eq!(round_trip(&open), open);
    }

    #[test]
    fn capabilities_may_stand_in_one_parameter_in_several_or_in_extended_ones() {
        let one = body(14, &[2, 12, 1, 4, 0, 2, 0, 1, 65, 4, 0, 1, 0, 0]);
        let several = body(16, &[2, 6, 1, 4, 0, 2, 0, 1, 2, 6, 65, 4, 0, 1, 0, 0]);
        let extended = body(255, &[255, 0, 15, 2, 0, 12, 1, 4, 0, 2, 0, 1, 65, 4, 0, 1, 0, 0]);
        for bytes in [one, several, extended] {
            let open = Open::decode(&bytes).unwrap();
            assert_eq!((open.asn, open.capabilities.four_octet_as), (65536, true));
            assert_eq!(open.capabilities.families, Some(Families::IPV6));
        }
    }

    #[test]
    fn an_open_that_cannot_be_read_is_told_so() {
        let subcode = |bytes: &[u8]| Open::decode(bytes).unwrap_err().subcode;
        assert_eq!(subcode(&[4; 9]), open_error::UNSPECIFIC);
        // Lengths that do not agree: of all parameters, of one, of a capability.
        for (len, parameters) in
            [(3, &[2, 0][..]), (2, &[2, 1]), (0, &[2, 0]), (4, &[2, 2, 1, 4]), (1, &[2]), (255, &[255, 0, 9])]
        {
            assert_eq!(subcode(&body(len, parameters)), open_error::UNSPECIFIC, "{parameters:?}");
        }
        assert_eq!(subcode(&body(2, &[1, 0])), open_error::OPTIONAL_PARAMETER);
        let mut version = body(0, &[]);
        version[0] = 3;
        let error = Open::decode(&version).unwrap_err();
        assert_eq!((error.subcode, &error.data[..]), (open_error::VERSION, &[0, 4][..]));
    }

    #[test]
    fn a_capability_that_is_unknown_or_of_another_length_is_noted_and_skipped() {
        let open = Open::decode(&body(13, &[2, 11, 73, 0, 65, 2, 0, 0, 73, 0, 2, 1, 7])).unwrap();
        assert_eq!(open.capabilities, Capabilities { others: vec![73, 65, 2], ..Capabilities::default() });
    }

    #[test]
    fn families_unknown_here_are_not_ipv4() {
        let open = Open::decode(&body(8, &[2, 6, 1, 4, 0, 25, 0, 70])).unwrap();
        assert_eq!(open.capabilities.families_or_default(), Families::NONE);
    }

    fn families() -> impl Strategy<Value = Families> {
        any::<(bool, bool)>().prop_map(|(ipv4, ipv6)| Families { ipv4, ipv6 })
    }

    fn graceful_restart() -> impl Strategy<Value = GracefulRestart> {
        (any::<bool>(), 0..=MAX_RESTART_TIME, families(), families()).prop_map(|(is_restarting, time, all, some)| {
            let is_forwarding = Families { ipv4: all.ipv4 && some.ipv4, ipv6: all.ipv6 && some.ipv6 };
            GracefulRestart { is_restarting, restart_time: Duration::from_secs(time), families: all, is_forwarding }
        })
    }

    fn long_lived() -> impl Strategy<Value = LongLived> {
        let time = || proptest::option::of((0..=MAX_STALE_TIME).prop_map(Duration::from_secs));
        (time(), time(), families()).prop_map(|(ipv4, ipv6, some)| {
            let is_forwarding = Families { ipv4: ipv4.is_some() && some.ipv4, ipv6: ipv6.is_some() && some.ipv6 };
            LongLived { ipv4, ipv6, is_forwarding }
        })
    }

    proptest! {
        #[test]
        fn an_open_comes_back(
            (asn, hold_time, router_id, four_octet_as) in any::<(u32, u16, u32, bool)>(),
            (route_refresh, enhanced_refresh) in any::<(bool, bool)>(),
            families in proptest::option::of(families().prop_filter("nothing is not said", |f| *f != Families::NONE)),
            graceful_restart in proptest::option::of(graceful_restart()),
            long_lived in proptest::option::of(long_lived()),
        ) {
            let asn = if four_octet_as { asn } else { asn & 0xFFFF };
            let capabilities = Capabilities {
                families, route_refresh, enhanced_refresh, four_octet_as, graceful_restart, long_lived, others: vec![],
            };
            let open = Open { asn, hold_time, router_id: Ipv4Addr::from_bits(router_id), capabilities };
            prop_assert_eq!(round_trip(&open), open);
        }

        #[test]
        fn garbage_is_answered(parameters in proptest::collection::vec(any::<u8>(), 0..60), extended: bool) {
            let len = if extended { 255 } else { parameters.len() as u8 };
            let _ = Open::decode(&body(len, &parameters));
        }
    }
}
