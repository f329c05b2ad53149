//! Nanoseconds a packet: sealing and opening by suite and size, one packet and a run of 32, and the replay window.
//!
//! `cargo bench -p esp`; `cargo bench -p esp -- window` for the window alone. The figure that criterion prints as time
//! is that of one packet.

#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use base::algorithm::{Encryption, Integrity};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use esp::window::Window;
use esp::{DataPath, Lens, Received, Room, Via};
use model::{DfPolicy, Routing, Selector};
use packet::{Tos, build};
use sa::{ChildKeys, ChildLabel, ChildSa, ChildSuite, DirectionKeys, Limits, Path, SaChange, SaId, Spi};

const NOW: base::Instant = base::Instant::ZERO;
const SIZES: [usize; 3] = [64, 512, 1400];
const COUNTS: [usize; 2] = [1, 32];

fn suites() -> [ChildSuite; 6] {
    use Encryption::{Aes128Cbc, Aes128Gcm, Aes256Cbc, Aes256Gcm, ChaCha20Poly1305};
    [
        (Aes128Gcm, None),
        (Aes256Gcm, None),
        (ChaCha20Poly1305, None),
        (Aes128Cbc, Some(Integrity::Sha1)),
        (Aes128Cbc, Some(Integrity::Sha256)),
        (Aes256Cbc, Some(Integrity::Sha256)),
    ]
    .map(|(encryption, integrity)| ChildSuite { encryption, integrity, esn: false })
}

fn ends(suite: ChildSuite) -> [DataPath; 2] {
    let keys = DirectionKeys {
        encryption: vec![7; suite.encryption.key_len() + suite.encryption.salt_len()].into(),
        integrity: vec![9; suite.integrity.map_or(0, Integrity::key_len)].into(),
    };
    let all: Selector = Selector::net("0.0.0.0/0".parse().expect("a prefix"));
    [[256, 257], [257, 256]].map(|[inbound, outbound]| {
        let child = ChildSa {
            id: SaId(1),
            label: ChildLabel { connection: "bench".into(), child: "bench".into() },
            inbound_spi: Spi(inbound),
            outbound_spi: Spi(outbound),
            suite,
            keys: ChildKeys { inbound: keys.clone(), outbound: keys.clone() },
            path: Path { local: ([192, 0, 2, 1], 4500).into(), remote: ([192, 0, 2, 2], 4500).into(), udp: true },
            local: vec![all.into()],
            remote: vec![all.into()],
            routing: Routing::Policy,
            limits: Limits::default(),
            replay_window: 2048,
            df: DfPolicy::Honour,
            copy_dscp: false,
            mtu: Some(9000),
            mss: None,
        };
        let mut path = DataPath::new();
        path.apply(&SaChange::Install(Box::new(child))).expect("a good SA");
        path.apply(&SaChange::Activate(SaId(1))).expect("it is there");
        path
    })
}

/// Where packets are sealed, back to back.
struct Bench {
    bytes: Vec<u8>,
    used: usize,
    ends: Vec<usize>,
}

impl Room for Bench {
    fn take(&mut self, _: &Path, _: Tos, lens: Lens) -> Option<&mut [u8]> {
        let start = self.used;
        self.used += lens.total();
        self.ends.push(self.used);
        self.bytes.get_mut(start..self.used)
    }

    fn give_back(&mut self) {
        self.used = 0;
    }

    fn reply(&mut self, _: &[u8]) {}
}

/// The time of sealing and of opening `rounds` batches of `count` packets, a packet each.
fn measure(suite: ChildSuite, size: usize, count: usize, rounds: u64) -> [Duration; 2] {
    let [mut left, mut right] = ends(suite);
    let from = ([10, 0, 0, 1], 1).into();
    let packet = build::udp(from, ([10, 1, 0, 1], 2).into(), &vec![0; size - 28]).expect("it is small");
    let mut room = Bench { bytes: vec![0; 1 << 20], used: 0, ends: Vec::new() };
    let mut times = [Duration::ZERO; 2];
    let mut copies = vec![packet.clone(); count];
    for _ in 0..rounds {
        (room.used, room.ends) = (0, Vec::with_capacity(count));
        let begun = Instant::now();
        for packet in &mut copies {
            left.outbounds.send_into(Via::Policy, packet, None, &mut room, NOW).expect("it is sealed");
        }
        times[0] += begun.elapsed();
        let len = room.used / count;
        let packets = room.bytes[..room.used].chunks_mut(len);
        let received = packets.map(|esp| Received { esp, from: None, outer: Tos(0) });
        let begun = Instant::now();
        right.inbounds.open_run(received, NOW, |_, inner| {
            black_box(inner);
        });
        times[1] += begun.elapsed();
    }
    assert_eq!(right.inbounds.total().packets, rounds * count as u64);
    times.map(|time| time / u32::try_from(count).expect("it is small"))
}

fn seal_and_open(c: &mut Criterion) {
    for (at, what) in ["seal", "open"].into_iter().enumerate() {
        let mut group = c.benchmark_group(what);
        for suite in suites() {
            for (size, count) in SIZES.into_iter().flat_map(|size| COUNTS.map(|count| (size, count))) {
                let id = BenchmarkId::new(suite.to_string(), format!("{size} bytes, {count} together"));
                group.bench_function(id, |b| b.iter_custom(|rounds| measure(suite, size, count, rounds)[at]));
            }
        }
        group.finish();
    }
}

fn window(c: &mut Criterion) {
    let mut group = c.benchmark_group("window");
    for size in [64, 2048, 8192] {
        group.bench_function(BenchmarkId::new("in order", size), |b| {
            let (window, mut next) = (Window::new(size), 1);
            b.iter(|| {
                let verdict = window.check(black_box(next)).map(|()| window.accept(next));
                next += 1;
                verdict
            });
        });
        group.bench_function(BenchmarkId::new("overtaken by 48", size), |b| {
            let (window, mut next) = (Window::new(size), 64u64);
            b.iter(|| {
                let sequence = next ^ 48;
                let verdict = window.check(black_box(sequence)).map(|()| window.accept(sequence));
                next += 1;
                verdict
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(1)).warm_up_time(Duration::from_millis(300));
    targets = seal_and_open, window
}
criterion_main!(benches);
