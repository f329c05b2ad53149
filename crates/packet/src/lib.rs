//! Views of the packets that a tunnel carries, and the few packets a gateway makes itself.
//!
//! A view borrows the bytes, checks once that its header lies inside them, and then answers without
//! copying. Nothing here allocates but [`build`] and [`icmp`], whose packets are new.
//!
//! Covered: IPv4 (RFC 791), IPv6 with its extension headers (RFC 8200), UDP (RFC 768), TCP as far as
//! its options (RFC 9293), ICMP (RFC 792) and ICMPv6 (RFC 4443), the Internet checksum (RFC 1071,
//! RFC 1624), DSCP and ECN (RFC 2474, RFC 3168). Left out: reassembly, and everything that a host's
//! own stack does.

pub mod build;
pub mod checksum;
pub mod coalesce;
mod flow;
pub mod fragment;
pub mod icmp;
mod ip;
mod ipv4;
mod ipv6;
pub mod mss;
pub mod protocol;
pub mod segment;
mod tcp;
mod tos;
mod udp;

pub use base::error::Malformed;
pub use flow::{FlowKey, Ports, spread};
pub use ip::{Ip, set_tos};
pub use ipv4::Ipv4;
pub use ipv6::{Ipv6, Upper};
pub use tcp::{Tcp, TcpOption, TcpOptions};
pub use tos::{Ecn, Tos};
pub use udp::Udp;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads everything there is to read.
    fn exercise(bytes: &[u8]) {
        let mut copy = bytes.to_vec();
        set_tos(&mut copy, Tos(3));
        mss::Clamp { v4: 500, v6: 500 }.apply(&mut copy);
        let _ = FlowKey::of(bytes);
        let _ = icmp::too_big(bytes, std::net::Ipv4Addr::LOCALHOST.into(), 500);
        let _ = icmp::too_big(bytes, std::net::Ipv6Addr::LOCALHOST.into(), 1280);
        let _ = (icmp::quoted_esp(bytes, true), icmp::quoted_esp(bytes, false));
        let _ = Udp::parse(bytes).map(Udp::payload);
        if let Ok(tcp) = Tcp::parse(bytes) {
            let _ = (tcp.options().count(), tcp.mss(), tcp.payload());
        }
        if let Ok(mut fragments) = fragment::Fragments::new(bytes, 100, 1) {
            let mut out = [0; 100];
            while fragments.write_next(&mut out).is_some() {}
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300), first in 0usize..4) {
            if let Some(byte) = bytes.first_mut() {
                *byte = [*byte, 0x45, 0x4f, 0x60][first];
            }
            exercise(&bytes);
            if bytes.len() >= 60 {
                let len = bytes.len() as u16;
                bytes[2..4].copy_from_slice(&len.to_be_bytes());
                exercise(&bytes);
                bytes[4..6].copy_from_slice(&(len - 40).to_be_bytes());
                bytes[6] %= 61;
                exercise(&bytes);
            }
        }
    }
}
