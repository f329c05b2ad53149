//! A super-packet that may lie about what it is made of: what is cut adds up, each piece is a packet that is whole, and
//! joining the pieces again and cutting that yields them once more.
#![no_main]

use fuzz::Input;
use libfuzzer_sys::fuzz_target;
use packet::coalesce::{Coalescer, Joined};
use packet::segment::{Kind, Segments};
use packet::{Ip, Ipv4, Tcp, build, checksum, protocol};

/// Pieces that are looked at, at most.
const MOST: usize = 256;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let (choices, size) = (input.byte(), usize::from(input.word()));
    let kind = if choices & 1 == 0 { Kind::Tcp } else { Kind::Udp };
    let packet = repaired(input.rest(), choices & 2 != 0, kind);
    let Ok(segments) = Segments::new(&packet, kind, size) else { return };
    let pieces = cut(segments);
    let joined = join(&pieces);
    assert!(pieces.len() >= MOST || same(&joined, &pieces), "joining and cutting changed a packet");
});

/// Lengths and protocol that fit, where the input does not hit them by itself.
fn repaired(bytes: &[u8], repairs: bool, kind: Kind) -> Vec<u8> {
    let mut packet = bytes.to_vec();
    let Ok(total) = u16::try_from(packet.len()) else { return packet };
    if !repairs || packet.len() < 60 {
        return packet;
    }
    let protocol = match kind {
        Kind::Tcp => protocol::TCP,
        Kind::Udp => protocol::UDP,
    };
    if packet[0] & 0x80 == 0 {
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&total.to_be_bytes());
        packet[6] &= 0x40;
        packet[7] = 0;
        packet[9] = protocol;
    } else {
        packet[0] = 0x60;
        packet[4..6].copy_from_slice(&(total - 40).to_be_bytes());
        packet[6] = protocol;
    }
    packet
}

/// The pieces, of which each is checked; at most [`MOST`].
fn cut(mut segments: Segments<'_>) -> Vec<Vec<u8>> {
    let (count, full, last) = (segments.count(), segments.full_len(), segments.last_len());
    assert!(count > 0 && last <= full);
    let mut room = vec![0; full];
    let mut pieces = Vec::new();
    while pieces.len() < MOST
        && let Some(len) = segments.write_next(&mut room)
    {
        let is_last = pieces.len() + 1 == count;
        assert_eq!(len, if is_last { last } else { full });
        let ip = Ip::parse(&room[..len]).expect("a piece is a packet");
        assert_eq!(ip.bytes().len(), len);
        if let Ok((protocol, Some(upper))) = ip.upper() {
            assert_eq!(build::transport_checksum(ip.source(), ip.destination(), protocol, upper), 0);
        }
        pieces.push(room[..len].to_vec());
    }
    assert!(pieces.len() == count.min(MOST));
    pieces
}

/// What the kernel would cut up of what the pieces are joined to.
fn join(pieces: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    let mut emit = |(): (), joined: Joined<'_, '_>| match joined {
        Joined::Single(packet) => out.push(packet.to_vec()),
        Joined::Super { header, payloads, kind, size, checksum: (start, offset), .. } => {
            let mut whole = [header, &payloads.concat()].concat();
            assert!(checksum::complete(&mut whole, start, offset));
            out.extend(cut(Segments::new(&whole, kind, size).expect("what was joined can be cut")));
        }
    };
    let mut coalescer = Coalescer::new(true);
    for piece in pieces {
        coalescer.push((), piece, &mut emit);
    }
    coalescer.flush(&mut emit);
    out
}

/// Equal but for the identification of IPv4 packets that are not to be fragmented (RFC 6864 §4.1).
fn same(joined: &[Vec<u8>], pieces: &[Vec<u8>]) -> bool {
    joined.len() == pieces.len() && joined.iter().zip(pieces).all(|(a, b)| nameless(a) == nameless(b))
}

fn nameless(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if Ipv4::parse(&packet).is_ok_and(|ip| ip.dont_fragment()) {
        packet[4..6].fill(0);
        packet[10..12].fill(0);
    }
    if let Ok(ip) = Ip::parse(&packet)
        && let Ok((protocol::TCP, Some(upper))) = ip.upper()
        && Tcp::parse(upper).is_err()
    {
        packet.clear();
    }
    packet
}
