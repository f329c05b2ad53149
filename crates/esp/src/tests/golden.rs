//! Packets that another implementation made: sealing gives the same bytes, opening gives the packet back.

use base::Instant;
use base::algorithm::{Encryption, Integrity};
use packet::Tos;
use sa::{ChildSa, ChildSuite, DirectionKeys, Spi};

use super::{child, mirrored};
use crate::{Content, InboundSa, OutboundSa};

fn hex(digits: &str) -> Vec<u8> {
    let digits = if digits == "-" { "" } else { digits };
    let digits: Vec<u8> = digits.bytes().filter(|digit| !digit.is_ascii_whitespace()).collect();
    let nibble = |digit: u8| char::from(digit).to_digit(16).unwrap() as u8;
    digits.chunks(2).map(|pair| nibble(pair[0]) << 4 | nibble(pair[1])).collect()
}

struct Vector {
    child: ChildSa,
    sequence: u64,
    inner: Vec<u8>,
    esp: Vec<u8>,
}

fn vectors() -> Vec<Vector> {
    let lines = include_str!("golden.txt").lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let [encryption, integrity, esn, sequence, spi, key, integrity_key, inner, esp] =
                line.split(' ').collect::<Vec<_>>().try_into().unwrap();
            let suite = ChildSuite {
                encryption: Encryption::ALL.into_iter().find(|e| e.to_string() == encryption).unwrap(),
                integrity: Integrity::ALL.into_iter().find(|i| i.to_string() == integrity),
                esn: esn == "esn",
            };
            let mut child = child(1, suite);
            child.outbound_spi = Spi(u32::from_str_radix(spi, 16).unwrap());
            child.keys.outbound = DirectionKeys { encryption: hex(key).into(), integrity: hex(integrity_key).into() };
            let sequence = u64::from_str_radix(sequence, 16).unwrap();
            Vector { child, sequence, inner: hex(inner), esp: hex(esp) }
        })
        .collect()
}

#[test]
fn packets_of_another_implementation_are_opened() {
    for Vector { child, sequence, inner, esp } in vectors() {
        let mut sa = InboundSa::standing_at(&mirrored(&child), sequence - 1).unwrap();
        let mut buffer = esp.clone();
        let opened = sa.open(&mut buffer, Tos(0), Instant::ZERO).unwrap();
        let Content::Packet(range) = opened.content else { panic!("{:?}", opened.content) };
        assert_eq!(buffer[range], inner, "{} {sequence:x}", child.suite);
    }
}

#[test]
fn sealing_gives_the_same_bytes() {
    for Vector { child, sequence, inner, esp } in vectors() {
        let sa = OutboundSa::starting_at(&child, sequence).unwrap();
        let mut out = [0xee; 300];
        let sealed = sa.seal(&inner, &mut out, Instant::ZERO).unwrap();
        assert_eq!(out[..sealed.len], esp, "{} {sequence:x}", child.suite);
    }
}

#[test]
fn published_packets_decrypt_to_their_plaintext() {
    let lines = include_str!("published.txt").lines().filter(|line| !line.starts_with('#'));
    for line in lines {
        let [encryption, sequence, key, plaintext, esp] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let esn = sequence.len() == 16;
        let encryption = Encryption::ALL.into_iter().find(|e| e.to_string() == encryption).unwrap();
        let mut child = child(1, ChildSuite { encryption, integrity: None, esn });
        let mut esp = hex(esp);
        child.inbound_spi = Spi(u32::from_be_bytes(*esp.first_chunk().unwrap()));
        child.keys.inbound = DirectionKeys { encryption: hex(key).into(), integrity: hex("-").into() };
        let sequence = u64::from_str_radix(sequence, 16).unwrap();
        let mut sa = InboundSa::standing_at(&child, sequence - 1).unwrap();
        let opened = sa.open(&mut esp, Tos(0), Instant::ZERO).unwrap();
        let plaintext = hex(plaintext);
        assert_eq!(esp[16..16 + plaintext.len()], plaintext);
        // Next header 4 is that of RFC 7634; the draft's examples have others and hold nothing for a tunnel.
        let is_tunnel = plaintext.ends_with(&[4]);
        assert_eq!(matches!(opened.content, Content::Packet(_)), is_tunnel);
    }
}
