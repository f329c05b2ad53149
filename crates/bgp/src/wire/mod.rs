//! The wire format: messages (RFC 4271 §4) to and from what they mean.
//!
//! [`split`] cuts one message off a stream, [`Open`], [`Update`], [`Notification`] and [`Refresh`] say what it means.
//! Decoding allocates nothing for prefixes, and nothing by a length that the neighbour claims: what is kept was there.
//!
//! Left out: messages longer than 4,096 octets (RFC 8654) and several paths of a prefix (RFC 7911); neither is offered.

mod attribute;
mod notification;
mod open;
mod prefixes;
mod refresh;
mod update;
mod write;

pub use attribute::code as attribute_code;
pub use notification::{Code, Notification, cease, header_error, open_error, update_error};
pub(crate) use open::multiprotocol;
pub use open::{Capabilities, GracefulRestart, LongLived, Open};
pub use prefixes::Prefixes;
pub use refresh::{Refresh, RefreshKind};
pub use update::{Approach, Fault, Reset, Session, Update};
pub use write::{EncodedAttributes, TooLong, write_announcement, write_encoded, write_end_of_rib, write_withdrawal};

/// The TCP port of BGP.
pub const PORT: u16 = 179;

/// Octets of a message's header: marker, length, type.
pub const HEADER: usize = 19;

/// The longest message (RFC 4271 §4).
pub const MAX_MESSAGE: usize = 4096;

/// The AS number that stands for all that do not fit into two octets (RFC 6793 §9).
pub const AS_TRANS: u16 = 23456;

/// What a message is (RFC 4271 §4.1, RFC 2918 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MessageKind {
    /// OPEN.
    Open,
    /// UPDATE.
    Update,
    /// NOTIFICATION.
    Notification,
    /// KEEPALIVE.
    Keepalive,
    /// ROUTE-REFRESH.
    RouteRefresh,
}

impl MessageKind {
    /// Every kind, by its number.
    pub const ALL: [Self; 5] = [Self::Open, Self::Update, Self::Notification, Self::Keepalive, Self::RouteRefresh];

    /// Its number on the wire.
    pub const fn number(self) -> u8 {
        match self {
            Self::Open => 1,
            Self::Update => 2,
            Self::Notification => 3,
            Self::Keepalive => 4,
            Self::RouteRefresh => 5,
        }
    }

    /// Its name in the RFCs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "OPEN",
            Self::Update => "UPDATE",
            Self::Notification => "NOTIFICATION",
            Self::Keepalive => "KEEPALIVE",
            Self::RouteRefresh => "ROUTE-REFRESH",
        }
    }

    fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }

    /// Whether a message of this kind may be `len` octets long, header included (RFC 4271 §6.1).
    const fn allows(self, len: usize) -> bool {
        match self {
            Self::Open => len >= 29,
            Self::Update => len >= 23,
            Self::Notification => len >= 21,
            Self::Keepalive => len == HEADER,
            // RFC 7313 §5 answers another length of its own, so it is looked at later.
            Self::RouteRefresh => len > HEADER,
        }
    }
}

/// A message, still as octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// What it is.
    pub kind: MessageKind,
    /// What follows its header.
    pub body: &'a [u8],
}

/// Cuts the first message off `stream`; `None` when it is not complete yet. With it comes what follows it.
///
/// # Errors
/// When the stream is no BGP or out of step: what the neighbour is told before the session ends (RFC 4271 §6.1).
pub fn split(stream: &[u8]) -> Result<Option<(Message<'_>, &[u8])>, Notification> {
    let Some((header, rest)) = stream.split_first_chunk::<HEADER>() else {
        // Whatever is not BGP is told apart by its first octet, though the header is not complete.
        let is_marker = stream.iter().take(16).all(|octet| *octet == 0xFF);
        return if is_marker { Ok(None) } else { Err(header_error::not_synchronized()) };
    };
    let [marker @ .., high, low, number] = header;
    if marker.iter().any(|octet| *octet != 0xFF) {
        return Err(header_error::not_synchronized());
    }
    let len = usize::from(u16::from_be_bytes([*high, *low]));
    let bad_length = || header_error::bad_length(len as u16);
    if !(HEADER..=MAX_MESSAGE).contains(&len) {
        return Err(bad_length());
    }
    let kind = MessageKind::of(*number).ok_or_else(|| header_error::bad_type(*number))?;
    if !kind.allows(len) {
        return Err(bad_length());
    }
    Ok(rest.split_at_checked(len - HEADER).map(|(body, rest)| (Message { kind, body }, rest)))
}

/// Appends a message whose body `body` writes.
pub(crate) fn write_message(out: &mut Vec<u8>, kind: MessageKind, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0xFF; 16]);
    out.extend_from_slice(&[0, 0, kind.number()]);
    body(out);
    let len = (out.len() - start) as u16;
    debug_assert!(usize::from(len) <= MAX_MESSAGE, "a message of {len} octets");
    out[start + 16..start + 18].copy_from_slice(&len.to_be_bytes());
}

/// Appends a KEEPALIVE.
pub fn write_keepalive(out: &mut Vec<u8>) {
    write_message(out, MessageKind::Keepalive, |_| ());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(len: u16, number: u8) -> Vec<u8> {
        let mut bytes = vec![0xFF; 16];
        bytes.extend_from_slice(&len.to_be_bytes());
        bytes.push(number);
        bytes
    }

    #[test]
    fn a_message_is_cut_off_once_it_is_complete() {
        let mut stream = Vec::new();
        write_keepalive(&mut stream);
        assert_eq!(stream, header(19, 4));
        for len in 0..19 {
            assert_eq!(split(&stream[..len]), Ok(None));
        }
        stream.push(0xFF);
        let (message, rest) = split(&stream).unwrap().unwrap();
        assert_eq!((message.kind, message.body.len(), rest), (MessageKind::Keepalive, 0, &[0xFF][..]));
    }

    #[test]
    fn a_header_that_cannot_be_gets_the_answer_of_section_6_1() {
        let verdict = |bytes: Vec<u8>| split(&bytes).unwrap_err();
        let mut broken = header(19, 4);
        broken[7] = 0;
        assert_eq!(verdict(broken), header_error::not_synchronized());
        assert_eq!(verdict(b"GET / HTTP/1.1".to_vec()), header_error::not_synchronized());
        for (len, number) in [(18, 4), (4097, 2), (0, 1), (20, 4), (28, 1), (22, 2), (20, 3), (19, 5)] {
            assert_eq!(verdict(header(len, number)), header_error::bad_length(len), "{number}");
        }
        for number in [0, 6, 255] {
            assert_eq!(verdict(header(19, number)), header_error::bad_type(number));
        }
        // Length before type, and both before the body is there.
        assert_eq!(verdict(header(4097, 9)), header_error::bad_length(4097));
        assert_eq!(split(&header(4096, 2)), Ok(None));
    }

    proptest! {
        #[test]
        fn any_stream_is_cut_without_loss(stream in proptest::collection::vec(any::<u8>(), 0..64), marked: bool) {
            let mut bytes = if marked { vec![0xFF; 16] } else { Vec::new() };
            bytes.extend(stream);
            if let Ok(Some((message, rest))) = split(&bytes) {
                prop_assert_eq!(HEADER + message.body.len() + rest.len(), bytes.len());
            }
        }
    }
}
