//! What is sealed is opened, once, and nothing else is.

use std::collections::BTreeSet;

use base::Instant;
use packet::{Ecn, Ip, Tos};
use proptest::prelude::*;
use sa::{ChildSa, ChildSuite, Limits, TrafficSelector};

use super::{child, gcm, mirrored, net, nets, suites, udp};
use crate::wire::Layout;
use crate::{Content, Dropped, InboundSa, Limit, Opened, OutboundSa, Unusable};

const NOW: Instant = Instant::ZERO;
const A: &str = "10.1.0.1:1000";
const B: &str = "10.2.0.1:53";

fn pair(child: &ChildSa) -> (OutboundSa, InboundSa) {
    (OutboundSa::new(child).unwrap(), InboundSa::new(&mirrored(child)).unwrap())
}

fn seal(sa: &OutboundSa, inner: &[u8]) -> Vec<u8> {
    let mut out = vec![0xee; inner.len() + 100];
    let sealed = sa.seal(inner, &mut out, NOW).unwrap();
    assert_eq!(sealed.len, sa.layout().sealed_len(inner.len()));
    out.truncate(sealed.len);
    out
}

fn open(sa: &mut InboundSa, esp: &[u8]) -> Result<Vec<u8>, Dropped> {
    let mut buffer = esp.to_vec();
    match sa.open(&mut buffer, Tos(0), NOW)?.content {
        Content::Packet(range) => Ok(buffer[range].to_vec()),
        Content::Unusable(reason) => Err(reason),
    }
}

#[test]
fn every_suite_carries_both_versions_of_ip() {
    for suite in suites() {
        let (out, mut inn) = pair(&child(1, suite));
        for inner in [udp(A, B, 28), udp(A, B, 1400), udp("[fd00::1]:1", "[fd00::2]:2", 1280)] {
            assert_eq!(open(&mut inn, &seal(&out, &inner)).as_deref(), Ok(&inner[..]), "{suite}");
        }
        assert_eq!(inn.counters().packets, 3);
        assert_eq!(inn.counters().bytes, out.counters().bytes);
    }
}

proptest! {
    #[test]
    fn what_is_sealed_is_opened(nth in any::<prop::sample::Index>(), len in 28usize..9000) {
        let suites = suites();
        let (out, mut inn) = pair(&child(1, *nth.get(&suites)));
        let inner = udp(A, B, len);
        prop_assert_eq!(open(&mut inn, &seal(&out, &inner)), Ok(inner));
    }

    #[test]
    fn a_flipped_bit_is_refused_and_moves_nothing(
        nth in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        bit in 0u8..8,
        len in 28usize..200,
    ) {
        let suites = suites();
        let (out, mut inn) = pair(&child(1, *nth.get(&suites)));
        let inner = udp(A, B, len);
        let esp = seal(&out, &inner);
        let mut forged = esp.clone();
        forged[at.index(esp.len())] ^= 1 << bit;
        let verdict = open(&mut inn, &forged).unwrap_err();
        prop_assert!(matches!(
            verdict,
            Dropped::BadIntegrity | Dropped::UnknownSpi | Dropped::OutsideWindow
        ), "{}", verdict);
        prop_assert_eq!(inn.last_used(), None);
        prop_assert_eq!(open(&mut inn, &esp), Ok(inner));
    }

    #[test]
    fn arbitrary_bytes_behind_a_known_spi_never_panic(
        nth in any::<prop::sample::Index>(),
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let suites = suites();
        let (_, mut inn) = pair(&child(1, *nth.get(&suites)));
        let spi = inn.spi().0.to_be_bytes();
        if let Some(first) = bytes.first_chunk_mut() {
            *first = spi;
        }
        prop_assert!(open(&mut inn, &bytes).is_err());
        prop_assert_eq!(inn.counters().drops.total(), 1);
    }

    /// Whoever has the keys can send any content: it is judged, and nothing panics.
    #[test]
    fn arbitrary_content_of_an_authentic_packet_never_panics(
        nth in any::<prop::sample::Index>(),
        mut content in prop::collection::vec(any::<u8>(), 2..200),
        version in 0usize..3,
    ) {
        let suites = suites();
        let child = child(1, *nth.get(&suites));
        content[0] = [content[0], 0x45, 0x60][version];
        let (_, mut inn) = pair(&child);
        let mut esp = seal_content(&child, &content);
        prop_assert!(inn.open(&mut esp, Tos(3), NOW).is_ok());
    }
}

/// An authentic packet with this plaintext, trailer included; cut to what the suite can encrypt.
fn seal_content(child: &ChildSa, plaintext: &[u8]) -> Vec<u8> {
    let layout = Layout::of(child.suite);
    let block = child.suite.encryption.block_len();
    let len = plaintext.len().next_multiple_of(block);
    let mut packet = vec![0; layout.payload_at() + len + layout.icv_len()];
    packet[..4].copy_from_slice(&child.outbound_spi.0.to_be_bytes());
    packet[7] = 1;
    let at = layout.payload_at() + len - plaintext.len();
    packet[at..at + plaintext.len()].copy_from_slice(plaintext);
    crate::transform::Transform::new(child.suite, &child.keys.outbound).unwrap().seal(&mut packet, 1);
    packet
}

fn verdict(plaintext: &[u8]) -> Content {
    let child = child(1, gcm(false));
    let (_, mut inn) = pair(&child);
    inn.open(&mut seal_content(&child, plaintext), Tos(0), NOW).unwrap().content
}

#[test]
fn authentic_content_is_judged_by_padding_next_header_and_version() {
    let inner = udp(A, B, 40);
    let with = |trailer: &[u8]| [&inner[..], trailer].concat();
    assert_eq!(verdict(&with(&[1, 2, 2, 4])), Content::Packet(16..56));
    assert_eq!(verdict(&with(&[0, 4])), Content::Packet(16..56), "unaligned, no padding");
    assert_eq!(verdict(&with(&[1, 3, 2, 4])), Content::Unusable(Dropped::BadPadding));
    assert_eq!(verdict(&with(&[255, 4])), Content::Unusable(Dropped::BadPadding), "longer than all");
    assert_eq!(verdict(&with(&[0, 41])), Content::Unusable(Dropped::NotIp), "wrong version");
    assert_eq!(verdict(&with(&[0, 6])), Content::Unusable(Dropped::NotIp), "transport mode");
    assert_eq!(verdict(&with(&[0, 59])), Content::Unusable(Dropped::Dummy));
    assert_eq!(verdict(&[0, 59]), Content::Unusable(Dropped::Dummy), "an empty one");
    assert_eq!(verdict(&[0, 4]), Content::Unusable(Dropped::NotIp));
    let mut padded = with(&[0xff; 20]);
    padded.extend([0, 4]);
    assert_eq!(verdict(&padded), Content::Packet(16..56), "traffic-flow padding is cut off");
}

#[test]
fn a_packet_of_a_length_that_the_suite_cannot_make_is_malformed() {
    for suite in suites() {
        let (out, mut inn) = pair(&child(1, suite));
        let esp = seal(&out, &udp(A, B, 60));
        let frame = out.layout().payload_at() + out.layout().icv_len();
        for len in 8..esp.len() {
            let block = suite.encryption.block_len();
            let can_be = len >= frame + 2 && (len - frame) % block == 0;
            let verdict = if can_be { Dropped::BadIntegrity } else { Dropped::Malformed };
            assert_eq!(open(&mut inn, &esp[..len]), Err(verdict), "{suite} {len}");
        }
    }
}

#[test]
fn a_packet_arrives_once() {
    let (out, mut inn) = pair(&child(1, gcm(false)));
    let inner = udp(A, B, 100);
    let esp = seal(&out, &inner);
    assert!(open(&mut inn, &esp).is_ok());
    assert_eq!(open(&mut inn, &esp), Err(Dropped::Replayed));
    for _ in 0..1024 {
        let next = seal(&out, &inner);
        assert!(open(&mut inn, &next).is_ok());
    }
    assert_eq!(open(&mut inn, &esp), Err(Dropped::OutsideWindow));
    assert_eq!(inn.counters().drops[Dropped::Replayed], 1);
    assert_eq!(inn.counters().drops[Dropped::OutsideWindow], 1);
}

#[test]
fn only_the_first_packet_is_first_and_only_the_highest_is_newest() {
    let (out, mut inn) = pair(&child(1, gcm(true)));
    let [mut one, mut two, mut three] = [(); 3].map(|()| seal(&out, &udp(A, B, 100)));
    let mut flags = |esp: &mut Vec<u8>| {
        let Opened { is_first, is_newest, .. } = inn.open(esp, Tos(0), NOW).unwrap();
        (is_first, is_newest)
    };
    assert_eq!(flags(&mut two), (true, true));
    assert_eq!(flags(&mut one), (false, false));
    assert_eq!(flags(&mut three), (false, true));
}

#[test]
fn esn_carries_on_across_the_wrap_and_late_packets_still_arrive() {
    for suite in suites().into_iter().filter(|suite| suite.esn) {
        let child = child(1, suite);
        let start = 0xffff_fff0;
        let out = OutboundSa::starting_at(&child, start).unwrap();
        let mut inn = InboundSa::standing_at(&mirrored(&child), start - 1).unwrap();
        let inner = udp(A, B, 64);
        let mut packets: Vec<_> = (0..40).map(|_| seal(&out, &inner)).collect();
        packets.swap(10, 25); // number …fffa arrives behind the wrap
        for esp in &packets {
            assert!(open(&mut inn, esp).is_ok(), "{suite}");
        }
        assert_eq!(open(&mut inn, &packets[3]), Err(Dropped::Replayed));
    }
}

#[test]
fn a_number_that_would_repeat_is_refused() {
    let child = child(1, gcm(false));
    let out = OutboundSa::starting_at(&child, u64::from(u32::MAX) - 1).unwrap();
    let inner = udp(A, B, 64);
    assert!(out.reserve(3).is_err());
    // A reservation that does not fit spends the rest: better than handing one number out twice.
    assert_eq!(out.seal(&inner, &mut [0; 200], NOW).unwrap_err(), Dropped::SequenceExhausted);
    let out = OutboundSa::starting_at(&child, u64::from(u32::MAX) - 1).unwrap();
    for expected in [[0xff, 0xff, 0xff, 0xfe], [0xff; 4]] {
        assert_eq!(seal(&out, &inner)[4..8], expected);
    }
    for _ in 0..3 {
        assert_eq!(out.seal(&inner, &mut [0; 200], NOW).unwrap_err(), Dropped::SequenceExhausted);
    }
    let esn = OutboundSa::starting_at(&super::child(1, gcm(true)), u64::MAX - u64::from(u32::MAX)).unwrap();
    assert!(esn.reserve(1).is_ok());
    assert!(esn.reserve(u32::MAX).is_err());
    assert!(esn.reserve(1).is_err());
}

#[test]
fn numbers_reserved_by_several_threads_never_repeat() {
    let out = OutboundSa::new(&child(1, gcm(false))).unwrap();
    let inner = udp(A, B, 28);
    let numbers_of = |esp: &[u8]| u32::from_be_bytes(*esp[4..].first_chunk().unwrap());
    let seen: Vec<u32> = std::thread::scope(|scope| {
        let workers: Vec<_> = (1..=4u32)
            .map(|worker| {
                let (out, inner) = (&out, &inner);
                scope.spawn(move || {
                    let mut seen = Vec::new();
                    let mut buffer = [0; 100];
                    for _ in 0..500 {
                        let mut reserved = out.reserve(worker).unwrap();
                        while reserved.seal(inner, &mut buffer, NOW).is_ok() {
                            seen.push(numbers_of(&buffer));
                        }
                        out.seal(inner, &mut buffer, NOW).unwrap();
                        seen.push(numbers_of(&buffer));
                    }
                    seen
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert_eq!(seen.len(), 500 * (2 + 3 + 4 + 5));
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), seen.len());
}

#[test]
fn ivs_do_not_repeat_and_those_of_cbc_do_not_count() {
    for suite in suites() {
        let out = OutboundSa::new(&child(1, suite)).unwrap();
        let iv = |esp: Vec<u8>| esp[8..out.layout().payload_at()].to_vec();
        let ivs: Vec<_> = (0..50).map(|_| iv(seal(&out, &udp(A, B, 64)))).collect();
        assert_eq!(ivs.iter().collect::<BTreeSet<_>>().len(), 50, "{suite}");
        if !suite.encryption.is_aead() {
            let differing = |a: &[u8], b: &[u8]| a.iter().zip(b).filter(|(a, b)| a != b).count();
            assert!(ivs.windows(2).all(|pair| differing(&pair[0], &pair[1]) > 2), "{suite}");
        }
    }
}

#[test]
fn a_soft_limit_is_told_once_and_a_hard_one_ends_the_sa() {
    let limits = Limits { soft_packets: Some(2), hard_packets: Some(4), ..Limits::default() };
    let child = ChildSa { limits, ..child(1, gcm(false)) };
    let (out, mut inn) = pair(&child);
    let inner = udp(A, B, 100);
    let mut buffer = [0; 200];
    let mut packets = Vec::new();
    for expected in [None, Some(Limit::Soft), None, Some(Limit::Hard)] {
        let sealed = out.seal(&inner, &mut buffer, NOW).unwrap();
        assert_eq!(sealed.limit, expected);
        packets.push(buffer[..sealed.len].to_vec());
    }
    assert_eq!(out.seal(&inner, &mut buffer, NOW).unwrap_err(), Dropped::Expired);
    for (esp, expected) in packets.iter_mut().zip([None, Some(Limit::Soft), None, Some(Limit::Hard)]) {
        assert_eq!(inn.open(esp, Tos(0), NOW).unwrap().limit, expected);
    }
    let more = OutboundSa::starting_at(&ChildSa { limits: Limits::default(), ..child }, 5).unwrap();
    assert_eq!(open(&mut inn, &seal(&more, &inner)), Err(Dropped::Expired));
}

#[test]
fn bytes_and_time_limit_too() {
    let inner = udp(A, B, 100);
    let mut buffer = [0; 200];
    let limits = Limits { soft_bytes: Some(150), hard_bytes: Some(300), ..Limits::default() };
    let (out, _) = pair(&ChildSa { limits, ..child(1, gcm(true)) });
    let told: Vec<_> = (0..3).map(|_| out.seal(&inner, &mut buffer, NOW).unwrap().limit).collect();
    assert_eq!(told, [None, Some(Limit::Soft), Some(Limit::Hard)]);
    assert_eq!(out.seal(&inner, &mut buffer, NOW).unwrap_err(), Dropped::Expired);

    let noon = Instant::from_micros(1_000);
    let limits = Limits { hard_time: Some(noon), ..Limits::default() };
    let (out, mut inn) = pair(&ChildSa { limits, ..child(1, gcm(true)) });
    let mut esp = seal(&out, &inner);
    assert_eq!(out.seal(&inner, &mut buffer, noon).unwrap_err(), Dropped::Expired);
    assert_eq!(inn.open(&mut esp, Tos(0), noon).unwrap_err(), Dropped::Expired);
}

#[test]
fn an_inner_packet_outside_the_selectors_is_dropped_though_authentic() {
    let web = TrafficSelector { protocol: 17, ports: (53, 53), ..net("10.2.0.0/16") };
    let narrow = ChildSa { local: nets(&["10.1.0.0/16"]), remote: vec![web], ..child(1, gcm(false)) };
    let (out, mut inn) = pair(&narrow);
    for (source, destination, verdict) in [
        (A, B, None),
        (A, "10.2.0.1:54", Some(Dropped::SelectorMismatch)),
        (A, "10.3.0.1:53", Some(Dropped::SelectorMismatch)),
        ("10.3.0.1:9", B, Some(Dropped::SelectorMismatch)),
        ("[fd00::1]:9", "[fd00::2]:53", Some(Dropped::SelectorMismatch)),
    ] {
        let esp = seal(&out, &udp(source, destination, 100));
        assert_eq!(open(&mut inn, &esp).err(), verdict, "{source} {destination}");
    }
    assert_eq!(inn.counters().drops[Dropped::SelectorMismatch], 4);
}

#[test]
fn congestion_is_carried_inwards_and_the_header_stays_right() {
    let (out, mut inn) = pair(&child(1, gcm(false)));
    let mut inner = udp(A, B, 100);
    packet::set_tos(&mut inner, Tos::new(46, Ecn::Ect0));
    let mut buffer = [0; 200];
    let sealed = out.seal(&inner, &mut buffer, NOW).unwrap();
    assert_eq!(sealed.tos, Tos::new(46, Ecn::Ect0));
    let opened = inn.open(&mut buffer[..sealed.len], Tos::new(0, Ecn::Ce), NOW).unwrap();
    let Content::Packet(range) = opened.content else { panic!() };
    let Ok(Ip::V4(ip)) = Ip::parse(&buffer[range]) else { panic!() };
    assert_eq!(ip.tos(), Tos::new(46, Ecn::Ce));
    assert!(ip.checksum_is_right());

    let mut esp = seal(&out, &udp(A, B, 100));
    let opened = inn.open(&mut esp, Tos::new(0, Ecn::Ce), NOW).unwrap();
    assert_eq!(opened.content, Content::Unusable(Dropped::Ecn));
}

#[test]
fn what_cannot_be_used_is_not_put_in_service() {
    let good = child(1, gcm(false));
    let suite =
        |encryption, integrity| ChildSa { suite: ChildSuite { encryption, integrity, esn: false }, ..good.clone() };
    let sha1 = Some(base::algorithm::Integrity::Sha1);
    let mut reserved = good.clone();
    reserved.outbound_spi = sa::Spi(255);
    for (child, reason) in [
        (suite(good.suite.encryption, sha1), Unusable::BadSuite),
        (suite(base::algorithm::Encryption::Aes128Cbc, None), Unusable::BadSuite),
        (suite(base::algorithm::Encryption::Aes128Cbc, sha1), Unusable::BadKeys),
        (suite(base::algorithm::Encryption::Aes256Gcm, None), Unusable::BadKeys),
        (reserved, Unusable::BadSpi),
    ] {
        assert_eq!(OutboundSa::new(&child).unwrap_err(), reason);
    }
}

#[test]
fn a_buffer_that_is_too_short_spends_no_number() {
    let (out, _) = pair(&child(1, gcm(false)));
    let inner = udp(A, B, 100);
    let need = out.layout().sealed_len(100);
    for len in [0, 15, 16, 116, need - 1] {
        assert_eq!(out.seal(&inner, &mut vec![0; len], NOW).unwrap_err(), Dropped::TooBig);
    }
    assert_eq!(out.seal(b"not IP", &mut [0; 200], NOW).unwrap_err(), Dropped::NotIp);
    let mut exact = vec![0; need];
    out.seal(&inner, &mut exact, NOW).unwrap();
    assert_eq!(exact[4..8], [0, 0, 0, 1]);
}
