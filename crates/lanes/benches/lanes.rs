//! Nanoseconds a packet: sealing and opening by lanes, against the single path of `crypto`, on one thread.
//!
//! `cargo bench -p lanes` measures every suite with the engine of this machine; `cargo bench -p lanes -- engines`
//! measures every engine that this machine has. The figure that criterion prints as time is that of one packet, not
//! of the batch. Packets lie in one contiguous buffer, as in a data-path worker.

use std::hint::black_box;
use std::time::{Duration, Instant};

use base::algorithm::{Encryption, Integrity};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, criterion_group, criterion_main};
use crypto::{CbcKey, HmacKey};
use lanes::{Engine, Iv, LaneKey, OpenJob, SealJob};

type Suite = (Encryption, Integrity);

const SUITES: [Suite; 5] = [
    (Encryption::Aes128Cbc, Integrity::Sha1),
    (Encryption::Aes128Cbc, Integrity::Sha256),
    (Encryption::Aes256Cbc, Integrity::Sha1),
    (Encryption::Aes256Cbc, Integrity::Sha256),
    (Encryption::Aes256Cbc, Integrity::Sha512),
];
const SIZES: [usize; 3] = [64, 512, 1400];
const LANES: [usize; 5] = [1, 4, 8, 16, 32];
const HEAD: usize = 24;

/// Bytes of a packet whose payload with its trailer is at least `size`.
fn packet_len(suite: Suite, size: usize) -> usize {
    HEAD + size.next_multiple_of(16) + suite.1.icv_len()
}

fn keys(suite: Suite) -> (Vec<u8>, Vec<u8>) {
    (vec![0x11; suite.0.key_len()], vec![0x22; suite.1.key_len()])
}

fn lane_key(suite: Suite, engine: Engine) -> LaneKey {
    let (encryption, integrity) = keys(suite);
    LaneKey::with_engine(suite.0, suite.1, &encryption, &integrity, engine).expect("a suite that has lanes")
}

/// What one packet of a batch takes, in the fastest of many rounds: other work on the machine does not show.
#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn each(iterations: u64, count: usize, mut batch: impl FnMut()) -> Duration {
    const ROUND: u64 = 8;
    let mut fastest = Duration::MAX;
    for _ in 0..iterations.div_ceil(ROUND) {
        let start = Instant::now();
        for _ in 0..ROUND {
            batch();
        }
        fastest = fastest.min(start.elapsed());
    }
    fastest.mul_f64(iterations as f64 / ROUND as f64 / count as f64)
}

fn seal_batch(key: &LaneKey, buffer: &mut [u8], len: usize) {
    let numbered = (0..).zip(buffer.chunks_exact_mut(len));
    let job = |(number, packet)| SealJob { packet, esn_high: None, iv: Iv::Encrypted(number) };
    let mut jobs: Vec<_> = numbered.map(job).collect();
    key.seal_many(&mut jobs).expect("packets that fit");
}

fn open_batch(key: &LaneKey, buffer: &mut [u8], len: usize) {
    let mut jobs: Vec<_> = buffer.chunks_exact_mut(len).map(|packet| OpenJob::new(packet, None)).collect();
    key.open_many(&mut jobs);
    assert!(jobs.iter().all(OpenJob::is_verified));
}

fn seal_single(cipher: &CbcKey, mac: &HmacKey, packet: &mut [u8]) {
    let icv_at = packet.len() - mac.integrity().icv_len();
    packet[8..HEAD].copy_from_slice(&1_u128.to_be_bytes());
    cipher.encrypt(&[0; 16], &mut packet[8..icv_at]).expect("whole blocks");
    let (sealed, icv) = packet.split_at_mut(icv_at);
    icv.copy_from_slice(mac.sign(&[sealed]).as_ref());
}

fn open_single(cipher: &CbcKey, mac: &HmacKey, packet: &mut [u8]) {
    let icv_at = packet.len() - mac.integrity().icv_len();
    let (sealed, icv) = packet.split_at_mut(icv_at);
    assert!(mac.verify(&[sealed], icv));
    let (head, text) = sealed.split_at_mut(HEAD);
    cipher.decrypt(&head[8..], text).expect("whole blocks");
}

fn measure_lanes(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    suite: Suite,
    engine: Engine,
    size: usize,
    count: usize,
) {
    let key = lane_key(suite, engine);
    let len = packet_len(suite, size);
    let mut buffer = vec![0x33; len * count];
    let id = |direction: &str| BenchmarkId::new(format!("{}-{}/{direction}/{size}", suite.0, suite.1), name);
    group.bench_function(id("seal"), |b| {
        b.iter_custom(|iterations| each(iterations, count, || seal_batch(&key, black_box(&mut buffer), len)));
    });
    seal_batch(&key, &mut buffer, len);
    let sealed = buffer.clone();
    group.bench_function(id("open"), |b| {
        b.iter_custom(|iterations| {
            let opened = each(iterations, count, || {
                buffer.copy_from_slice(black_box(&sealed));
                open_batch(&key, black_box(&mut buffer), len);
            });
            let copied = each(iterations, count, || black_box(&mut buffer).copy_from_slice(black_box(&sealed)));
            opened.saturating_sub(copied)
        });
    });
}

fn measure_single(group: &mut BenchmarkGroup<'_, WallTime>, suite: Suite, size: usize) {
    let (encryption, integrity) = keys(suite);
    let cipher = CbcKey::new(suite.0, &encryption).expect("a key of the right length");
    let mac = HmacKey::new(suite.1, &integrity);
    let mut packet = vec![0x33; packet_len(suite, size)];
    let id = |direction: &str| BenchmarkId::new(format!("{}-{}/{direction}/{size}", suite.0, suite.1), "single");
    group.bench_function(id("seal"), |b| {
        b.iter_custom(|iterations| each(iterations, 1, || seal_single(&cipher, &mac, black_box(&mut packet))));
    });
    seal_single(&cipher, &mac, &mut packet);
    let sealed = packet.clone();
    group.bench_function(id("open"), |b| {
        b.iter_custom(|iterations| {
            let opened = each(iterations, 1, || {
                packet.copy_from_slice(black_box(&sealed));
                open_single(&cipher, &mac, black_box(&mut packet));
            });
            let copied = each(iterations, 1, || black_box(&mut packet).copy_from_slice(black_box(&sealed)));
            opened.saturating_sub(copied)
        });
    });
}

fn suites(c: &mut Criterion) {
    let mut group = c.benchmark_group("packet");
    for suite in SUITES {
        for size in SIZES {
            measure_single(&mut group, suite, size);
            for count in LANES {
                measure_lanes(&mut group, &format!("{count}"), suite, Engine::detect(), size, count);
            }
        }
    }
    group.finish();
}

/// Ciphers are told apart with the cheapest hash beside them, hashes with the cheapest cipher.
fn engines(c: &mut Criterion) {
    let mut group = c.benchmark_group("engines");
    let fastest = Engine::detect();
    for engine in Engine::available() {
        let varies_one = engine.cipher() == fastest.cipher() || engine.many() == fastest.many();
        for suite in SUITES.into_iter().filter(|_| varies_one) {
            for count in [1, 2, 3, 4, 6, 8, 16, 32] {
                let name = format!("{:?}-{:?}-{:?}/{count}", engine.cipher(), engine.few(), engine.many());
                measure_lanes(&mut group, &name, suite, engine, 1400, count);
            }
        }
    }
    group.finish();
}

fn quick() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(50))
        .measurement_time(Duration::from_millis(250))
        .sample_size(20)
}

criterion_group!(name = benches; config = quick(); targets = suites, engines);
criterion_main!(benches);
