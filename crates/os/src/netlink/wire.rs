//! The messages in what a netlink socket received (`netlink(7)`), as far as [`rtnetlink`] leaves that to itself.

use rtnetlink::packet_core::{NLMSG_DONE, NLMSG_ERROR, NetlinkDeserializable, NetlinkHeader};
use rtnetlink::packet_route::RouteNetlinkMessage;

/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// Where in a header the flags stand.
const FLAGS: usize = 6;
/// The list is not of one moment (`NLM_F_DUMP_INTR`).
const INTERRUPTED: u16 = 0x10;
/// The kernel's words follow its verdict (`NLM_F_ACK_TLVS`), and the request is cut to its header (`NLM_F_CAPPED`).
const HAS_WORDS: u16 = 0x200;
const CAPPED: u16 = 0x100;
/// `NLMSGERR_ATTR_MSG`.
const WORDS: u16 = 1;

/// The largest that the kernel sends at once: a list comes in pieces of at most 32 KB.
pub(super) const LARGEST: usize = 64 << 10;

/// One message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    kind: u16,
    flags: u16,
    pub(super) sequence: u32,
    payload: &'a [u8],
}

/// The messages of one datagram, one behind the other.
pub(super) struct Messages<'a>(&'a [u8]);

impl<'a> Messages<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let bytes = self.0;
        let len = usize::try_from(u32::from_ne_bytes(array(bytes, 0)?)).ok()?;
        let payload = bytes.get(HEADER..len)?;
        self.0 = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Message {
            kind: u16::from_ne_bytes(array(bytes, 4)?),
            flags: u16::from_ne_bytes(array(bytes, FLAGS)?),
            sequence: u32::from_ne_bytes(array(bytes, 8)?),
            payload,
        })
    }
}

impl Message<'_> {
    /// The error number, 0 for success, and the kernel's words, of an answer that is the last one.
    pub(super) fn verdict(&self) -> Option<(i32, String)> {
        if ![NLMSG_ERROR, NLMSG_DONE].contains(&self.kind) {
            return None;
        }
        // An end of a list may say nothing more.
        let errno = array(self.payload, 0).map_or(0, i32::from_ne_bytes).saturating_neg();
        Some((errno, self.words().unwrap_or_default()))
    }

    fn words(&self) -> Option<String> {
        if self.flags & HAS_WORDS == 0 {
            return None;
        }
        let request = if self.kind == NLMSG_DONE {
            0
        } else if self.flags & CAPPED != 0 {
            HEADER
        } else {
            usize::try_from(u32::from_ne_bytes(array(self.payload, 4)?)).ok()?.next_multiple_of(4)
        };
        let mut rest = self.payload.get(4..)?.get(request..)?;
        loop {
            let len = usize::from(u16::from_ne_bytes(array(rest, 0)?));
            let value = rest.get(4..len)?;
            if u16::from_ne_bytes(array(rest, 2)?) & 0x3fff == WORDS {
                let text = value.split(|byte| *byte == 0).next()?;
                return Some(String::from_utf8_lossy(text).into_owned());
            }
            rest = rest.get(len.next_multiple_of(4)..)?;
        }
    }

    /// Whether it belongs to a list during which something changed.
    pub(super) fn is_interrupted(&self) -> bool {
        self.flags & INTERRUPTED != 0
    }

    /// Whether it tells of a route that took the place of another.
    pub(super) fn is_replacement(&self) -> bool {
        self.flags & rtnetlink::packet_core::NLM_F_REPLACE != 0
    }

    /// What it says; nothing when this kernel says it in a way that is not known here.
    pub(super) fn parse(&self) -> Option<RouteNetlinkMessage> {
        let mut header = NetlinkHeader::default();
        header.message_type = self.kind;
        RouteNetlinkMessage::deserialize(&header, self.payload).ok()
    }
}

/// Appends a message; its body is a whole number of words.
pub(super) fn append(bytes: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32, body: &[u8]) {
    bytes.extend(u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(body);
}

/// Adds flags to the message that begins at `start`.
pub(super) fn add_flags(bytes: &mut [u8], start: usize, flags: u16) {
    if let Some(place) = bytes.get_mut(start + FLAGS..start + FLAGS + 2) {
        let known = u16::from_ne_bytes(array(place, 0).unwrap_or_default());
        place.copy_from_slice(&(known | flags).to_ne_bytes());
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        append(&mut bytes, kind, flags, sequence, payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn a_verdict_comes_with_the_kernels_words_whether_the_request_is_cut_or_whole() {
        for (flags, request) in [(HAS_WORDS | CAPPED, HEADER), (HAS_WORDS, 28)] {
            let mut payload = (-libc::EINVAL).to_ne_bytes().to_vec();
            payload.extend(28u32.to_ne_bytes());
            payload.resize(4 + request, 0);
            payload.extend([8u16.to_ne_bytes(), 2u16.to_ne_bytes()].concat()); // an offset, which is passed over
            payload.extend([0; 4]);
            payload.extend([(4 + 8u16).to_ne_bytes(), WORDS.to_ne_bytes()].concat());
            payload.extend(b"no hop\0\0");
            let bytes = [message(NLMSG_ERROR, flags, 7, &payload), message(NLMSG_ERROR, 0, 8, &[0; 20])].concat();
            let all: Vec<_> = Messages::of(&bytes).map(|m| (m.sequence, m.verdict())).collect();
            let first = Some((libc::EINVAL, "no hop".to_owned()));
            assert_eq!(all, [(7, first), (8, Some((0, String::new())))]);
        }
    }

    #[test]
    fn flags_are_added_to_the_message_that_is_meant() {
        let mut bytes = [message(24, 1, 1, &[]), message(24, 1, 2, &[])].concat();
        add_flags(&mut bytes, HEADER, 4);
        assert_eq!(Messages::of(&bytes).map(|m| m.flags).collect::<Vec<_>>(), [1, 5]);
        add_flags(&mut bytes, 31, 4);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic_or_go_on_for_ever(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            kind in prop::sample::select(vec![NLMSG_ERROR, NLMSG_DONE, 16, 17, 20, 24, 25, 32]),
            flags: u16,
        ) {
            prop_assert!(Messages::of(&bytes).count() <= bytes.len() / HEADER + 1);
            for message in Messages::of(&message(kind, flags, 0, &bytes)) {
                let _ = (message.verdict(), message.parse());
            }
        }
    }
}
