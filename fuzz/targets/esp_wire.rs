//! Any datagram on the NAT traversal port, and the arithmetic of lengths.
#![no_main]

use std::net::{IpAddr, SocketAddr};

use base::algorithm::{Encryption, Integrity};
use esp::wire::{self, Encapsulated, Layout};
use fuzz::Input;
use libfuzzer_sys::fuzz_target;
use sa::{ChildSuite, Path, Spi};

fuzz_target!(|bytes: &[u8]| {
    match wire::classify(bytes) {
        Encapsulated::Keepalive => assert_eq!(bytes, [0xff]),
        Encapsulated::Ike(message) => assert_eq!([&[0; 4], message].concat(), bytes),
        Encapsulated::Esp => assert!(bytes.len() >= wire::HEADER && wire::spi(bytes) != Some(Spi(0))),
        Encapsulated::Malformed => assert!(bytes.len() < wire::HEADER),
    }

    let mut input = Input::new(bytes);
    let encryption = Encryption::ALL[usize::from(input.byte()) % Encryption::ALL.len()];
    let integrity = Integrity::ALL[usize::from(input.byte()) % Integrity::ALL.len()];
    let integrity = (!encryption.is_aead()).then_some(integrity);
    let suite = ChildSuite { encryption, integrity, esn: false };
    let (mtu, kind) = (usize::from(input.word()), input.byte());
    let octets: [u8; 16] = std::array::from_fn(|_| input.byte());
    let remote = if kind & 1 == 0 { IpAddr::from([octets[0], octets[1], octets[2], octets[3]]) } else { octets.into() };
    let path = Path { local: SocketAddr::new(remote, 4500), remote: SocketAddr::new(remote, 4500), udp: kind & 2 != 0 };
    let (layout, inner) = (Layout::of(suite), wire::inner_mtu(suite, &path, mtu));
    let outer = |inner: usize| layout.sealed_len(inner) + wire::outer_overhead(&path);
    assert!(inner == 0 || outer(inner) <= mtu, "{inner} bytes do not fit");
    assert!(outer(inner + 1) > mtu, "one more byte fits");
});
