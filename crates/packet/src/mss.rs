//! Clamping the maximum segment size that a TCP SYN announces, in place.
//!
//! A tunnel's MTU is smaller than what the two ends know of; where ICMP is lost, only a smaller
//! segment size keeps their connection from hanging (RFC 2923 §2.1).

use crate::{Ip, Tcp, checksum, protocol};

/// The largest segment sizes to let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clamp {
    /// For TCP over IPv4.
    pub v4: u16,
    /// For TCP over IPv6.
    pub v6: u16,
}

impl Clamp {
    /// What fits into packets of `mtu` bytes with headers without options (RFC 6691).
    pub fn for_mtu(mtu: usize) -> Self {
        let mss = |headers| u16::try_from(mtu.saturating_sub(headers)).unwrap_or(u16::MAX);
        Self { v4: mss(40), v6: mss(60) }
    }

    /// Lowers the option of a SYN or SYN-ACK that announces more, and updates the TCP checksum.
    /// Says whether the packet was changed. A SYN without the option is left alone: its sender gets
    /// the default of 536 or 1220, which fits everywhere.
    pub fn apply(self, packet: &mut [u8]) -> bool {
        let Some((tcp_at, value_at, old, new)) = self.place(packet) else { return false };
        let at = tcp_at + value_at;
        packet[at..at + 2].copy_from_slice(&new.to_be_bytes());
        // A value at an odd place lies across two words: swapping its bytes in the sum says the same.
        let (old, new) = if value_at % 2 == 1 { (old.swap_bytes(), new.swap_bytes()) } else { (old, new) };
        let field = &mut packet[tcp_at + 16..tcp_at + 18];
        let sum = checksum::update(u16::from_be_bytes([field[0], field[1]]), old, new);
        field.copy_from_slice(&sum.to_be_bytes());
        true
    }

    /// Where TCP begins, where in it the value lies, the value and what it shall be.
    fn place(self, packet: &[u8]) -> Option<(usize, usize, u16, u16)> {
        let ip = Ip::parse(packet).ok()?;
        let limit = match ip {
            Ip::V4(_) => self.v4,
            Ip::V6(_) => self.v6,
        };
        let (protocol::TCP, Some(upper)) = ip.upper().ok()? else { return None };
        let tcp = Tcp::parse(upper).ok()?;
        if tcp.flags() & Tcp::SYN == 0 {
            return None;
        }
        let option = tcp.options().find(|option| option.mss().is_some())?;
        let old = option.mss().filter(|&mss| mss > limit)?;
        Some((ip.bytes().len() - upper.len(), option.at, old, limit))
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::build;

    fn syn(family: u8, flags: u8, options: &[u8]) -> Vec<u8> {
        let (a, b) = match family {
            4 => ("10.0.0.1:40000", "10.0.0.2:443"),
            _ => ("[2001:db8::1]:40000", "[2001:db8::2]:443"),
        };
        build::tcp(a.parse::<SocketAddr>().unwrap(), b.parse().unwrap(), flags, 1, options, b"").unwrap()
    }

    fn mss_of(packet: &[u8]) -> Option<u16> {
        let ip = Ip::parse(packet).unwrap();
        let (_, upper) = ip.upper().unwrap();
        let upper = upper.unwrap();
        assert_eq!(build::transport_checksum(ip.source(), ip.destination(), 6, upper), 0, "checksum");
        Tcp::parse(upper).unwrap().mss()
    }

    #[test]
    fn a_syn_of_both_versions_is_lowered_and_its_checksum_stays_right() {
        let clamp = Clamp::for_mtu(1400);
        assert_eq!(clamp, Clamp { v4: 1360, v6: 1340 });
        for (family, expected) in [(4, 1360), (6, 1340)] {
            for flags in [Tcp::SYN, Tcp::SYN | Tcp::ACK] {
                for options in [&[2, 4, 0x05, 0xb4][..], &[1, 2, 4, 0x05, 0xb4], &[3, 3, 7, 2, 4, 0x23, 0x00]] {
                    let mut packet = syn(family, flags, options);
                    assert!(clamp.apply(&mut packet));
                    assert_eq!(mss_of(&packet), Some(expected));
                    assert!(!clamp.apply(&mut packet), "once is enough");
                }
            }
        }
    }

    #[test]
    fn what_announces_less_or_nothing_is_left_alone() {
        let clamp = Clamp::for_mtu(1400);
        for (flags, options) in
            [(Tcp::SYN, &[2, 4, 0x05, 0x50][..]), (Tcp::SYN, &[3, 3, 7]), (Tcp::ACK, &[2, 4, 0x05, 0xb4])]
        {
            let mut packet = syn(4, flags, options);
            let before = packet.clone();
            assert!(!clamp.apply(&mut packet));
            assert_eq!(packet, before);
        }
    }

    #[test]
    fn a_later_fragment_is_left_alone() {
        let mut packet = syn(4, Tcp::SYN, &[2, 4, 0x05, 0xb4]);
        packet[7] = 9;
        assert!(!Clamp::for_mtu(1400).apply(&mut packet));
    }
}
