//! Cutting an IPv4 packet into fragments (RFC 791 §3.2).

use crate::ipv4::{MIN_HEADER, write_checksum};
use crate::{Ipv4, Malformed};

/// The fragments of one packet, written one after the other.
#[derive(Clone, Debug)]
pub struct Fragments<'a> {
    packet: Ipv4<'a>,
    mtu: usize,
    id: u16,
    done: usize,
    finished: bool,
}

impl<'a> Fragments<'a> {
    /// Prepares to cut `packet` into pieces of at most `mtu` bytes. Whether it may be fragmented is
    /// for the caller to decide: the flag is not looked at, and no piece carries it.
    ///
    /// `fresh_id` becomes the identification when the sender forbade fragmentation, for such a
    /// packet need not have one of its own (RFC 6864 §4.1); other packets keep theirs.
    ///
    /// Refused when the header and eight bytes do not fit into `mtu`, and when the packet claims to
    /// be a fragment that ends beyond 65,535 bytes.
    pub fn new(packet: &'a [u8], mtu: usize, fresh_id: u16) -> Result<Self, Malformed> {
        let packet = Ipv4::parse(packet)?;
        if mtu < packet.header_len() + 8 {
            return Err(Malformed::BadField("MTU"));
        }
        if packet.fragment_offset() + packet.payload().len() > usize::from(u16::MAX) {
            return Err(Malformed::BadField("fragment offset"));
        }
        let id = if packet.dont_fragment() && !packet.is_fragment() { fresh_id } else { packet.id() };
        Ok(Self { packet, mtu, id, done: 0, finished: false })
    }

    /// Writes the next fragment to the beginning of `out` and says how long it is; `None` after the
    /// last, and when `out` is too short (it is long enough with `mtu` bytes).
    pub fn write_next(&mut self, out: &mut [u8]) -> Option<usize> {
        if self.finished {
            return None;
        }
        let payload = &self.packet.payload()[self.done..];
        let options_len = self.write_options(out.get_mut(MIN_HEADER..)?)?;
        let header_len = MIN_HEADER + options_len;
        let room = self.mtu - header_len;
        let is_last = payload.len() <= room;
        let taken = if is_last { payload.len() } else { room & !7 };
        let total = header_len + taken;
        let out = out.get_mut(..total)?;

        out[..MIN_HEADER].copy_from_slice(&self.packet.bytes()[..MIN_HEADER]);
        out[0] = 0x40 | (header_len / 4) as u8;
        out[2..4].copy_from_slice(&(total as u16).to_be_bytes());
        out[4..6].copy_from_slice(&self.id.to_be_bytes());
        let more = !is_last || self.packet.more_fragments();
        let offset = ((self.packet.fragment_offset() + self.done) / 8) as u16;
        out[6..8].copy_from_slice(&(offset | u16::from(more) << 13).to_be_bytes());
        write_checksum(&mut out[..header_len]);
        out[header_len..].copy_from_slice(&payload[..taken]);

        self.done += taken;
        self.finished = is_last;
        Some(total)
    }

    /// The first piece has every option, the others those whose copied flag is set, padded to four.
    fn write_options(&self, out: &mut [u8]) -> Option<usize> {
        let options = self.packet.options();
        if self.done == 0 {
            out.get_mut(..options.len())?.copy_from_slice(options);
            return Some(options.len());
        }
        let mut at = 0;
        let mut written = 0;
        while let Some(&kind) = options.get(at) {
            let len = match kind {
                0 => break,
                1 => 1,
                _ => usize::from(*options.get(at + 1).unwrap_or(&0)),
            };
            // An option whose length does not fit ends the list.
            let Some(option) = options.get(at..at + len).filter(|o| !o.is_empty()) else { break };
            if kind & 0x80 != 0 {
                out.get_mut(written..written + len)?.copy_from_slice(option);
                written += len;
            }
            at += len;
        }
        let padded = written.next_multiple_of(4);
        out.get_mut(written..padded)?.fill(0);
        Some(padded)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;
    use crate::{Tos, build, protocol};

    fn packet(len: usize) -> Vec<u8> {
        let payload: Vec<u8> = (0..len).map(|i| i as u8).collect();
        build::ipv4(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2), protocol::UDP, Tos(8), &payload).unwrap()
    }

    fn with_options(len: usize, options: &[u8]) -> Vec<u8> {
        let plain = packet(len);
        let mut bytes = plain[..20].to_vec();
        bytes.extend(options);
        bytes.extend(&plain[20..]);
        bytes[0] = 0x45 + (options.len() / 4) as u8;
        let total = bytes.len() as u16;
        bytes[2..4].copy_from_slice(&total.to_be_bytes());
        write_checksum(&mut bytes[..20 + options.len()]);
        bytes
    }

    fn cut(packet: &[u8], mtu: usize) -> Vec<Vec<u8>> {
        let mut fragments = Fragments::new(packet, mtu, 0xbeef).unwrap();
        let mut out = vec![0xee; mtu];
        let mut all = Vec::new();
        while let Some(len) = fragments.write_next(&mut out) {
            all.push(out[..len].to_vec());
        }
        all
    }

    #[test]
    fn fourteen_hundred_bytes_at_576_are_three_pieces() {
        let pieces = cut(&packet(1400), 576);
        let seen: Vec<_> = pieces
            .iter()
            .map(|p| Ipv4::parse(p).unwrap())
            .map(|p| (p.fragment_offset(), p.more_fragments(), p.payload().len(), p.id(), p.dont_fragment()))
            .collect();
        assert_eq!(
            seen,
            [(0, true, 552, 0xbeef, false), (552, true, 552, 0xbeef, false), (1104, false, 296, 0xbeef, false)]
        );
    }

    #[test]
    fn only_options_with_the_copied_flag_are_in_later_pieces() {
        // record route (7), 7 bytes; no-operation; router alert (148), 4 bytes, copied
        let packet = with_options(100, &[7, 7, 4, 1, 2, 3, 4, 1, 148, 4, 0, 0]);
        let pieces = cut(&packet, 72);
        assert_eq!(Ipv4::parse(&pieces[0]).unwrap().options(), [7, 7, 4, 1, 2, 3, 4, 1, 148, 4, 0, 0]);
        assert_eq!(Ipv4::parse(&pieces[1]).unwrap().options(), [148, 4, 0, 0]);
    }

    #[test]
    fn a_fragment_of_a_fragment_keeps_its_place_and_its_id() {
        let mut first = packet(800);
        first[4..8].copy_from_slice(&[0x12, 0x34, 0x20, 100]);
        write_checksum(&mut first[..20]);
        let pieces = cut(&first, 500);
        let last = Ipv4::parse(&pieces[1]).unwrap();
        assert_eq!((last.id(), last.fragment_offset(), last.more_fragments()), (0x1234, 800 + 480, true));
    }

    #[test]
    fn an_mtu_without_room_for_eight_bytes_is_refused() {
        assert!(Fragments::new(&packet(100), 27, 0).is_err());
        assert!(Fragments::new(&packet(100), 28, 0).is_ok());
    }

    #[test]
    fn a_fragment_that_ends_beyond_the_largest_packet_is_refused() {
        let mut last = packet(100);
        last[6..8].copy_from_slice(&[0x1f, 0xff]);
        assert!(Fragments::new(&last, 60, 0).is_err());
    }

    proptest! {
        #[test]
        fn the_pieces_together_are_the_packet(len in 0usize..9000, mtu in 100usize..2000, alert in any::<bool>()) {
            let whole = if alert { with_options(len, &[148, 4, 0, 0]) } else { packet(len) };
            let parsed = Ipv4::parse(&whole).unwrap();
            let pieces = cut(&whole, mtu);
            let mut payload: Vec<u8> = Vec::new();
            for (i, bytes) in pieces.iter().enumerate() {
                let piece = Ipv4::parse(bytes).unwrap();
                prop_assert!(bytes.len() <= mtu && piece.checksum_is_right());
                prop_assert_eq!(piece.fragment_offset(), payload.len());
                prop_assert_eq!(piece.more_fragments(), i + 1 < pieces.len());
                payload.extend(piece.payload());
            }
            prop_assert_eq!(payload, parsed.payload());
        }

        #[test]
        fn arbitrary_options_never_panic(options in prop::collection::vec(any::<u8>(), 40), words in 0usize..=10) {
            let whole = with_options(300, &options[..words * 4]);
            for bytes in cut(&whole, 120) {
                prop_assert!(Ipv4::parse(&bytes).unwrap().checksum_is_right());
            }
        }
    }
}
