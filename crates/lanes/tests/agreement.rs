//! Every engine of this machine against the single path of `crypto`, which computes by other code.
#![expect(clippy::unwrap_used, reason = "a panic here is the verdict")]

use base::algorithm::{Encryption, Integrity};
use crypto::{CbcKey, HmacKey};
use lanes::{BadLength, Engine, Iv, LaneKey, OpenJob, SealJob, Unsupported};
use proptest::prelude::*;

const ENCRYPTIONS: [Encryption; 3] = [Encryption::Aes128Cbc, Encryption::Aes192Cbc, Encryption::Aes256Cbc];
const INTEGRITIES: [Integrity; 4] = [Integrity::Sha1, Integrity::Sha256, Integrity::Sha384, Integrity::Sha512];
const HEAD: usize = 24;
const LONGEST: usize = 9000;

/// The same keys for lanes and for one packet at a time.
struct Pair {
    lanes: LaneKey,
    cipher: CbcKey,
    mac: HmacKey,
}

impl Pair {
    fn new(encryption: Encryption, integrity: Integrity, seed: u8, engine: Engine) -> Self {
        let key: Vec<u8> = (0..encryption.key_len()).map(|at| seed.wrapping_add(at as u8)).collect();
        let integrity_key: Vec<u8> = (0..integrity.key_len()).map(|at| at as u8 ^ seed).collect();
        Self {
            lanes: LaneKey::with_engine(encryption, integrity, &key, &integrity_key, engine).unwrap(),
            cipher: CbcKey::new(encryption, &key).unwrap(),
            mac: HmacKey::new(integrity, &integrity_key),
        }
    }

    fn packet(&self, blocks: usize, fill: u8) -> Vec<u8> {
        let len = HEAD + blocks * 16 + self.mac.integrity().icv_len();
        (0..len).map(|at| (at as u8).wrapping_mul(31) ^ fill).collect()
    }

    fn seal_single(&self, packet: &mut [u8], esn_high: Option<u32>, iv: Iv) {
        let icv_at = packet.len() - self.mac.integrity().icv_len();
        match iv {
            Iv::Given => {
                let (head, text) = packet[..icv_at].split_at_mut(HEAD);
                self.cipher.encrypt(&head[8..], text).unwrap();
            }
            Iv::Encrypted(number) => {
                packet[8..16].fill(0);
                packet[16..HEAD].copy_from_slice(&number.to_be_bytes());
                self.cipher.encrypt(&[0; 16], &mut packet[8..icv_at]).unwrap();
            }
        }
        let (sealed, icv) = packet.split_at_mut(icv_at);
        let high = esn_high.map(u32::to_be_bytes);
        icv.copy_from_slice(self.mac.sign(&[sealed, high.as_ref().map_or(&[], |high| &high[..])]).as_ref());
    }
}

#[derive(Clone, Copy, Debug)]
struct Shape {
    blocks: usize,
    fill: u8,
    esn_high: Option<u32>,
    iv: Iv,
}

fn shapes(count: usize) -> impl Strategy<Value = Vec<Shape>> {
    let iv = prop_oneof![Just(Iv::Given), any::<u64>().prop_map(Iv::Encrypted)];
    // Long ones are rarer, so that a debug build is quick; the lengths around a hash's block come often.
    let blocks = prop_oneof![4 => 0..12_usize, 4 => 80..100_usize, 1 => 0..LONGEST / 16];
    let shape = (blocks, any::<u8>(), any::<Option<u32>>(), iv);
    let shape = shape.prop_map(|(blocks, fill, esn_high, iv)| Shape { blocks, fill, esn_high, iv });
    prop::collection::vec(shape, count)
}

fn suite() -> impl Strategy<Value = (Encryption, Integrity)> {
    (prop::sample::select(&ENCRYPTIONS[..]), prop::sample::select(&INTEGRITIES[..]))
}

/// Seals and opens packets of these shapes by each engine, with what `corrupt` does to the sealed ones in between.
fn check(suite: (Encryption, Integrity), seed: u8, shapes: &[Shape], corrupt: impl Fn(usize, &mut [u8]) -> bool) {
    for engine in Engine::available() {
        let pair = Pair::new(suite.0, suite.1, seed, engine);
        let plain: Vec<Vec<u8>> = shapes.iter().map(|shape| pair.packet(shape.blocks, shape.fill)).collect();
        let mut expected = plain.clone();
        for (packet, shape) in expected.iter_mut().zip(shapes) {
            pair.seal_single(packet, shape.esn_high, shape.iv);
        }

        let mut packets = plain.clone();
        let mut jobs: Vec<_> = packets.iter_mut().zip(shapes).map(|(packet, s)| sealing(packet, *s)).collect();
        assert_eq!(pair.lanes.seal_many(&mut jobs), Ok(()));
        for (at, (packet, expected)) in packets.iter().zip(&expected).enumerate() {
            assert!(packet == expected, "{suite:?} {engine:?}: packet {at} of {shapes:?}");
        }

        let genuine: Vec<bool> = packets.iter_mut().enumerate().map(|(at, packet)| !corrupt(at, packet)).collect();
        let corrupted = packets.clone();
        let mut jobs: Vec<_> =
            packets.iter_mut().zip(shapes).map(|(packet, shape)| OpenJob::new(packet, shape.esn_high)).collect();
        pair.lanes.open_many(&mut jobs);
        let verdicts: Vec<bool> = jobs.iter().map(OpenJob::is_verified).collect();
        assert_eq!(verdicts, genuine, "{suite:?} {engine:?} {shapes:?}");
        for at in 0..shapes.len() {
            let text = HEAD..plain[at].len() - suite.1.icv_len();
            let unopened = if genuine[at] { &plain[at] } else { &corrupted[at] };
            assert!(packets[at][text.clone()] == unopened[text.clone()], "{suite:?} {engine:?}: packet {at}");
            assert!(
                packets[at][..HEAD] == corrupted[at][..HEAD] && packets[at][text.end..] == corrupted[at][text.end..]
            );
        }
    }
}

fn sealing(packet: &mut [u8], shape: Shape) -> SealJob<'_> {
    SealJob { packet, esn_high: shape.esn_high, iv: shape.iv }
}

#[test]
fn every_engine_agrees_with_the_single_path_at_every_count_of_equal_packets() {
    for (at, count) in (1..=33).enumerate() {
        for blocks in [0, 1, 4, 5, 33, 88] {
            let shape = Shape { blocks, fill: count as u8, esn_high: None, iv: Iv::Encrypted(7) };
            let suite = (ENCRYPTIONS[at % 3], INTEGRITIES[(at + blocks) % 4]);
            check(suite, 3, &vec![shape; count], |_, _| false);
        }
    }
}

#[test]
fn no_packets_are_sealed_and_opened_without_a_complaint() {
    let key = LaneKey::new(Encryption::Aes128Cbc, Integrity::Sha1, &[1; 16], &[2; 20]).unwrap();
    assert_eq!(key.seal_many(&mut []), Ok(()));
    key.open_many(&mut []);
}

#[test]
fn a_suite_without_lanes_is_refused() {
    for encryption in Encryption::ALL {
        for integrity in Integrity::ALL {
            let has_lanes = ENCRYPTIONS.contains(&encryption) && INTEGRITIES.contains(&integrity);
            let key = LaneKey::new(encryption, integrity, &vec![1; encryption.key_len()], &[2; 20]);
            assert_eq!(key.err(), (!has_lanes).then_some(Unsupported::Suite));
        }
        for engine in Engine::available() {
            let key = LaneKey::with_engine(encryption, Integrity::Sha1, &[1; 17], &[2; 20], engine);
            assert!(key.is_err());
        }
    }
}

#[test]
fn a_packet_that_does_not_fit_is_refused_before_any_is_touched() {
    let key = LaneKey::new(Encryption::Aes128Cbc, Integrity::Sha256, &[1; 16], &[2; 32]).unwrap();
    for len in [0, 1, 16, 39, 41, 55, 57] {
        let (mut good, mut bad) = (vec![5; 56], vec![5; len]);
        let iv = Iv::Encrypted(1);
        let mut jobs =
            [&mut good, &mut bad].map(|packet| SealJob { packet: packet.as_mut_slice(), esn_high: None, iv });
        assert_eq!(key.seal_many(&mut jobs), Err(BadLength), "{len}");
        assert!(good.iter().chain(&bad).all(|byte| *byte == 5));

        let mut jobs = [SealJob { packet: &mut good, esn_high: None, iv }];
        key.seal_many(&mut jobs).unwrap();
        let mut jobs = [OpenJob::new(&mut bad, None), OpenJob::new(&mut good, None)];
        key.open_many(&mut jobs);
        assert_eq!(jobs.each_ref().map(OpenJob::is_verified), [false, true]);
        assert!(bad.iter().all(|byte| *byte == 5));
    }
}

#[test]
fn a_verdict_from_before_is_forgotten() {
    let key = LaneKey::new(Encryption::Aes128Cbc, Integrity::Sha1, &[1; 16], &[2; 20]).unwrap();
    let mut packet = [5; HEAD + 32 + 12];
    key.seal_many(&mut [SealJob { packet: &mut packet, esn_high: None, iv: Iv::Given }]).unwrap();
    let mut jobs = [OpenJob::new(&mut packet, None)];
    key.open_many(&mut jobs);
    assert!(jobs[0].is_verified());
    // What is decrypted now is no longer what was signed.
    key.open_many(&mut jobs);
    assert!(!jobs[0].is_verified());
}

#[test]
fn a_key_is_small_and_prints_none_of_its_bytes() {
    let key = LaneKey::new(Encryption::Aes256Cbc, Integrity::Sha512, &[b'k'; 32], &[b'i'; 64]).unwrap();
    assert_eq!(format!("{key:?}"), "LaneKey(aes256-sha512 {secret})");
    assert!(size_of::<LaneKey>() < 1024, "{}", size_of::<LaneKey>());
}

#[test]
fn one_key_serves_many_threads() {
    let key = LaneKey::new(Encryption::Aes128Cbc, Integrity::Sha1, &[1; 16], &[2; 20]).unwrap();
    let sealed = || {
        let mut packet = [9; HEAD + 64 + 12];
        key.seal_many(&mut [SealJob { packet: &mut packet, esn_high: None, iv: Iv::Encrypted(3) }]).unwrap();
        packet
    };
    std::thread::scope(|scope| {
        let [a, b] = [scope.spawn(sealed), scope.spawn(sealed)];
        assert_eq!(a.join().unwrap(), b.join().unwrap());
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_engine_agrees_with_the_single_path(
        suite in suite(), seed: u8, shapes in (1..=33_usize).prop_flat_map(shapes),
    ) {
        check(suite, seed, &shapes, |_, _| false);
    }

    #[test]
    fn a_forged_packet_is_left_alone_and_its_neighbours_open(
        suite in suite(), seed: u8, shapes in (1..=33_usize).prop_flat_map(shapes), chosen: u64, bit: usize,
    ) {
        check(suite, seed, &shapes, |at, packet| {
            let is_forged = chosen >> at & 1 == 1;
            if is_forged {
                let bit = bit % (packet.len() * 8);
                packet[bit / 8] ^= 1 << (bit % 8);
            }
            is_forged
        });
    }

    #[test]
    fn the_wrong_high_half_of_a_sequence_number_is_a_forgery(suite in suite(), high: Option<u32>, other: Option<u32>) {
        for engine in Engine::available() {
            let pair = Pair::new(suite.0, suite.1, 1, engine);
            let mut packet = pair.packet(5, 2);
            pair.lanes.seal_many(&mut [SealJob { packet: &mut packet, esn_high: high, iv: Iv::Given }]).unwrap();
            let mut jobs = [OpenJob::new(&mut packet, other)];
            pair.lanes.open_many(&mut jobs);
            prop_assert_eq!(jobs[0].is_verified(), high == other);
        }
    }
}
