//! What becomes of a packet that is larger than the tunnel's MTU: cut up before encryption, or
//! reported to its sender (RFC 4301 §8.2, RFC 1191, RFC 8200 §5).

use std::net::IpAddr;
use std::time::Duration;

use base::Instant;
use model::DfPolicy;
use packet::fragment::Fragments;
use packet::{Ip, icmp};

/// What to do with a packet.
#[derive(Debug)]
pub enum Admit<'a> {
    /// Send it as it is.
    Send,
    /// Send these pieces.
    Fragments(Fragments<'a>),
    /// Drop it, and send its sender the packet, if there is one: about some nothing may be said.
    TooBig(Option<Vec<u8>>),
}

/// The smallest MTU of a link that carries IPv6 (RFC 8200 §5). Where a tunnel has less, its outer
/// packets are fragmented instead.
const IPV6_MIN_MTU: usize = 1280;

/// What the sender of `packet` is told: by the packet's own destination, as from Linux's tunnels. The host drops what
/// arrives from an address of its own, and a strict reverse path filter what arrives from anywhere but behind the
/// tunnel.
fn say(packet: &[u8], destination: IpAddr, mtu: usize) -> Option<Vec<u8>> {
    // RFC 1122 §3.2.1.3, RFC 4291 §2.7: a group is never a source.
    if destination.is_multicast() { None } else { icmp::too_big(packet, destination, mtu) }
}

/// What the sender of a packet without an SA is told, by the same source.
pub(crate) fn say_unreachable(packet: &[u8]) -> Option<Vec<u8>> {
    icmp::unreachable(packet, Ip::parse(packet).ok()?.destination())
}

/// Decides about `packet`, where `mtu` bytes pass through the tunnel. `fresh_id` is the identification
/// of fragments of a packet that has none of its own ([`Fragments::new`]).
pub fn admit(packet: &[u8], mtu: usize, df: DfPolicy, fresh_id: u16) -> Admit<'_> {
    if packet.len() <= mtu {
        return Admit::Send;
    }
    match Ip::parse(packet) {
        Ok(Ip::V4(ip)) if ip.dont_fragment() && df == DfPolicy::Honour => {
            Admit::TooBig(say(packet, ip.destination().into(), mtu))
        }
        Ok(Ip::V4(_)) => match Fragments::new(packet, mtu, fresh_id) {
            Ok(fragments) => Admit::Fragments(fragments),
            Err(_) => Admit::TooBig(None),
        },
        Ok(Ip::V6(_)) if packet.len() <= IPV6_MIN_MTU => Admit::Send,
        Ok(Ip::V6(ip)) => Admit::TooBig(say(packet, ip.destination().into(), mtu.max(IPV6_MIN_MTU))),
        // What is not IP is refused when it is sealed.
        Err(_) => Admit::Send,
    }
}

/// Limits how many ICMP errors are sent (RFC 1812 §4.3.2.8): a bucket of tokens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IcmpBudget {
    tokens: u32,
    refilled: Instant,
}

impl IcmpBudget {
    const BURST: u32 = 100;
    /// A hundred a second.
    const REFILL: Duration = Duration::from_millis(10);

    pub(crate) const fn new() -> Self {
        Self { tokens: Self::BURST, refilled: Instant::ZERO }
    }

    /// Whether one more may be sent.
    pub(crate) fn spend(&mut self, now: Instant) -> bool {
        let refill = Self::REFILL.as_micros() as u64;
        let gained = now.saturating_since(self.refilled).as_micros() as u64 / refill;
        if gained > 0 {
            self.tokens = u64::from(self.tokens).saturating_add(gained).min(u64::from(Self::BURST)) as u32;
            self.refilled += Duration::from_micros(gained * refill);
        }
        let may = self.tokens > 0;
        self.tokens -= u32::from(may);
        may
    }
}

#[cfg(test)]
mod tests {
    use packet::{Ipv4, build};

    use super::*;

    fn udp(len: usize) -> Vec<u8> {
        build::udp("10.0.0.2:1".parse().unwrap(), "10.1.0.2:2".parse().unwrap(), &vec![0; len - 28]).unwrap()
    }

    fn udp6(len: usize) -> Vec<u8> {
        build::udp("[2001:db8::2]:1".parse().unwrap(), "[2001:db8::3]:2".parse().unwrap(), &vec![0; len - 48]).unwrap()
    }

    #[test]
    fn a_packet_that_fits_is_sent_as_it_is() {
        assert!(matches!(admit(&udp(1400), 1400, DfPolicy::Honour, 0), Admit::Send));
    }

    #[test]
    fn with_df_the_sender_is_told_and_without_it_the_packet_is_cut() {
        let mut packet = udp(1401);
        assert!(matches!(admit(&packet, 1400, DfPolicy::Honour, 0), Admit::TooBig(Some(_))));
        packet[6] = 0;
        assert!(matches!(admit(&packet, 1400, DfPolicy::Honour, 0), Admit::Fragments(_)));
    }

    #[test]
    fn where_df_is_cleared_every_packet_is_cut() {
        let packet = udp(1401);
        let Admit::Fragments(mut pieces) = admit(&packet, 1400, DfPolicy::Clear, 77) else { panic!() };
        let mut out = [0; 1400];
        let len = pieces.write_next(&mut out).unwrap();
        let first = Ipv4::parse(&out[..len]).unwrap();
        assert!(!first.dont_fragment() && first.more_fragments() && first.id() == 77);
    }

    #[test]
    fn ipv6_is_never_cut_and_never_told_less_than_its_minimum() {
        assert!(matches!(admit(&udp6(1280), 1200, DfPolicy::Clear, 0), Admit::Send));
        let Admit::TooBig(Some(answer)) = admit(&udp6(1281), 1200, DfPolicy::Clear, 0) else { panic!() };
        assert_eq!(answer[44..48], 1280u32.to_be_bytes());
    }

    #[test]
    fn the_gateway_speaks_for_the_destination_but_never_for_a_group() {
        for (packet, destination) in [(udp(1401), "10.1.0.2"), (udp6(1401), "2001:db8::3")] {
            let Admit::TooBig(Some(answer)) = admit(&packet, 1400, DfPolicy::Honour, 0) else { panic!() };
            assert_eq!(Ip::parse(&answer).unwrap().source(), destination.parse::<IpAddr>().unwrap());
        }
        let group = build::udp("[2001:db8::2]:1".parse().unwrap(), "[ff0e::1]:2".parse().unwrap(), &[0; 1400]).unwrap();
        assert!(matches!(admit(&group, 1400, DfPolicy::Honour, 0), Admit::TooBig(None)));
    }

    #[test]
    fn a_hundred_errors_a_second_are_sent_and_no_more() {
        let mut budget = IcmpBudget::new();
        let now = Instant::from_micros(5_000_000);
        assert_eq!((0..1_000).filter(|_| budget.spend(now)).count(), 100);
        let later = now + Duration::from_millis(500);
        assert_eq!((0..1_000).filter(|_| budget.spend(later)).count(), 50);
    }
}
