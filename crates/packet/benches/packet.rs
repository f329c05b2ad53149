//! Nanoseconds a packet: cutting a super-packet up, joining its packets again, and the Internet checksum.
//!
//! `cargo bench -p packet`

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use packet::coalesce::{Coalescer, Joined};
use packet::segment::{Kind, Segments};
use packet::{Tcp, build, checksum};

/// Payloads of segments, and how many of them there are.
const RUNS: [(usize, usize); 3] = [(36, 64), (536, 64), (1398, 44)];

fn whole(kind: Kind, size: usize, count: usize) -> Vec<u8> {
    let (from, to) = (([10, 0, 0, 1], 1).into(), ([10, 1, 0, 1], 2).into());
    let payload: Vec<u8> = (0..size * count).map(|nth| nth as u8).collect();
    match kind {
        Kind::Tcp => build::tcp(from, to, Tcp::ACK, 1, &[1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 8], &payload),
        Kind::Udp => build::udp(from, to, &payload),
    }
    .expect("it fits")
}

fn segment(c: &mut Criterion) {
    let mut group = c.benchmark_group("segment");
    for (kind, (size, count)) in [Kind::Tcp, Kind::Udp].into_iter().flat_map(|kind| RUNS.map(|run| (kind, run))) {
        let packet = whole(kind, size, count);
        let mut room = vec![0; 2048];
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::new(format!("{kind:?}"), size), |b| {
            b.iter(|| {
                let mut segments = Segments::new(black_box(&packet), kind, size).expect("it can be cut");
                while segments.write_next(&mut room).is_some() {}
            });
        });
    }
    group.finish();
}

fn coalesce(c: &mut Criterion) {
    let mut group = c.benchmark_group("coalesce");
    for (kind, (size, count)) in [Kind::Tcp, Kind::Udp].into_iter().flat_map(|kind| RUNS.map(|run| (kind, run))) {
        let packet = whole(kind, size, count);
        let mut segments = Segments::new(&packet, kind, size).expect("it can be cut");
        let mut room = vec![0; 2048];
        let packets: Vec<Vec<u8>> =
            std::iter::from_fn(|| segments.write_next(&mut room).map(|len| room[..len].to_vec())).collect();
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::new(format!("{kind:?}"), size), |b| {
            b.iter(|| {
                let mut emit = |(): (), joined: Joined<'_, '_>| {
                    black_box(&joined);
                };
                let mut coalescer = Coalescer::new(true);
                for packet in &packets {
                    coalescer.push((), packet, &mut emit);
                }
                coalescer.flush(&mut emit);
            });
        });
    }
    group.finish();
}

fn sum(c: &mut Criterion) {
    let mut group = c.benchmark_group("checksum");
    for len in [20usize, 64, 1418, 65_000] {
        let bytes: Vec<u8> = (0..len).map(|nth| nth as u8).collect();
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::from_parameter(len), |b| b.iter(|| checksum::of(black_box(&bytes))));
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(1)).warm_up_time(Duration::from_millis(300));
    targets = segment, coalesce, sum
}
criterion_main!(benches);
