//! Packets of any sort that arrive together: none is lost, none is made up, those of one flow keep their order, and what
//! was corrupted stays corrupted.
#![no_main]

use fuzz::Input;
use libfuzzer_sys::fuzz_target;
use packet::coalesce::{Coalescer, Joined};
use packet::segment::Segments;
use packet::{Ipv4, Tcp, build, checksum};

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let udp = input.byte() & 1 != 0;
    let packets = packets(&mut input);
    let mut out = Vec::new();
    let mut emit = |tag: u8, joined: Joined<'_, '_>| match joined {
        Joined::Single(packet) => out.push((tag, packet.to_vec())),
        Joined::Super { header, payloads, kind, size, checksum: (start, offset), .. } => {
            assert!(payloads.len() > 1);
            let mut whole = [header, &payloads.concat()].concat();
            assert!(whole.len() <= 65_535 && checksum::complete(&mut whole, start, offset));
            let mut segments = Segments::new(&whole, kind, size).expect("what was joined can be cut");
            let mut room = vec![0; segments.full_len()];
            while let Some(len) = segments.write_next(&mut room) {
                out.push((tag, room[..len].to_vec()));
            }
        }
    };
    let mut coalescer = Coalescer::new(udp);
    for (tag, packet) in &packets {
        coalescer.push(*tag, packet, &mut emit);
    }
    coalescer.flush(&mut emit);
    assert_eq!(out.len(), packets.len());
    // Flows may overtake each other; within one there is order.
    let of = |all: &[(u8, Vec<u8>)], flow| -> Vec<Vec<u8>> {
        all.iter().filter(|one| flow_of(one) == flow).map(|(_, packet)| nameless(packet)).collect()
    };
    for one in &packets {
        let flow = flow_of(one);
        assert!(of(&out, flow) == of(&packets, flow), "a flow is not what it was");
    }
});

/// Where a packet goes, its protocol, addresses and ports: those of IPv4 without options.
fn flow_of((tag, packet): &(u8, Vec<u8>)) -> (u8, Option<(u8, &[u8])>) {
    (*tag, packet.get(12..24).map(|ends| (packet[9], ends)))
}

/// Up to 64 packets: of a few flows that mostly continue, with a flaw here and there, or any bytes.
fn packets(input: &mut Input<'_>) -> Vec<(u8, Vec<u8>)> {
    let mut sequences = [0u32; 4];
    let mut all = Vec::new();
    while !input.is_empty() && all.len() < 64 {
        let (choices, len) = (input.byte(), usize::from(input.byte()));
        let (tag, flow) = (choices & 1, u16::from(choices >> 1 & 3));
        let (from, to) = (([10, 0, 0, 1], flow).into(), ([10, 0, 0, 2], 80).into());
        let payload = vec![choices; len];
        let built = match choices >> 3 & 3 {
            0 => {
                all.push((tag, input.take(len).to_vec()));
                continue;
            }
            1 => build::udp(from, to, &payload),
            _ => {
                let sequence = &mut sequences[usize::from(flow)];
                let at = *sequence;
                *sequence = sequence.wrapping_add(u32::try_from(len).unwrap_or(0));
                build::tcp(from, to, Tcp::ACK, at, &[], &payload)
            }
        };
        let mut packet = built.expect("it is small");
        if choices & 0x80 != 0 {
            let at = usize::from(input.byte()) % packet.len();
            packet[at] ^= input.byte();
        }
        all.push((tag, packet));
    }
    all
}

/// Without the identification of an IPv4 packet that is not to be fragmented, and the sum over it (RFC 6864 §4.1).
fn nameless(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if Ipv4::parse(&packet).is_ok_and(|ip| ip.dont_fragment() && ip.checksum_is_right()) {
        packet[4..6].fill(0);
        packet[10..12].fill(0);
    }
    packet
}
