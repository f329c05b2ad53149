//! NOTIFICATION: why a session ends (RFC 4271 §4.5, §6; RFC 4486; RFC 9003).

use std::fmt;

use super::{MAX_MESSAGE, MessageKind, write_message};

/// An error code (RFC 4271 §4.5), whether it is known or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(pub u8);

impl Code {
    /// Message Header Error.
    pub const HEADER: Self = Self(1);
    /// OPEN Message Error.
    pub const OPEN: Self = Self(2);
    /// UPDATE Message Error.
    pub const UPDATE: Self = Self(3);
    /// Hold Timer Expired.
    pub const HOLD_TIMER: Self = Self(4);
    /// Finite State Machine Error.
    pub const STATE_MACHINE: Self = Self(5);
    /// Cease.
    pub const CEASE: Self = Self(6);
    /// ROUTE-REFRESH Message Error (RFC 7313).
    pub const REFRESH: Self = Self(7);
    /// Send Hold Timer Expired (RFC 9687).
    pub const SEND_HOLD_TIMER: Self = Self(8);

    const fn name(self) -> &'static str {
        match self {
            Self::HEADER => "Message Header Error",
            Self::OPEN => "OPEN Message Error",
            Self::UPDATE => "UPDATE Message Error",
            Self::HOLD_TIMER => "Hold Timer Expired",
            Self::STATE_MACHINE => "Finite State Machine Error",
            Self::CEASE => "Cease",
            Self::REFRESH => "ROUTE-REFRESH Message Error",
            Self::SEND_HOLD_TIMER => "Send Hold Timer Expired",
            _ => "unknown error",
        }
    }
}

/// Why a session ends, as one side tells the other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Notification {
    /// The kind of error.
    pub code: Code,
    /// Which of that kind; 0 for none in particular.
    pub subcode: u8,
    /// What belongs to it: the octets that were wrong, or words.
    pub data: Vec<u8>,
}

/// The longest words of an operator that a NOTIFICATION carries, in octets of UTF-8 (RFC 9003 §2).
const MAX_WORDS: usize = 255;

/// The longest data: what a message of 4,096 octets has room for.
const MAX_DATA: usize = MAX_MESSAGE - 21;

impl Notification {
    /// One with data; what no message has room for is cut off.
    pub fn new(code: Code, subcode: u8, data: &[u8]) -> Self {
        Self { code, subcode, data: data[..data.len().min(MAX_DATA)].to_vec() }
    }

    /// Reads one.
    pub fn decode(body: &[u8]) -> Option<Self> {
        let (&[code, subcode], data) = body.split_first_chunk::<2>()?;
        Some(Self { code: Code(code), subcode, data: data.to_vec() })
    }

    /// Appends it as a message.
    pub fn write(&self, out: &mut Vec<u8>) {
        write_message(out, MessageKind::Notification, |out| {
            out.extend_from_slice(&[self.code.0, self.subcode]);
            out.extend_from_slice(&self.data[..self.data.len().min(MAX_DATA)]);
        });
    }

    /// The words of the operator who took the session down (RFC 9003 §2), without control characters; `None` where
    /// there are none or they are not UTF-8.
    pub fn words(&self) -> Option<String> {
        let carries = matches!(self.subcode, cease::ADMINISTRATIVE_SHUTDOWN | cease::ADMINISTRATIVE_RESET);
        let (&len, rest) = self.data.split_first().filter(|_| self.code == Code::CEASE && carries)?;
        let words = std::str::from_utf8(rest.get(..usize::from(len))?).ok()?;
        let words: String = words.chars().filter(|c| !c.is_control()).collect();
        (!words.is_empty()).then_some(words)
    }

    /// A Cease with the words of an operator, cut at a character so that they fit.
    pub fn cease_with_words(subcode: u8, words: &str) -> Self {
        let end = (0..=words.len().min(MAX_WORDS)).rev().find(|at| words.is_char_boundary(*at)).unwrap_or(0);
        if end == 0 {
            return cease::of(subcode);
        }
        let mut data = vec![end as u8];
        data.extend_from_slice(&words.as_bytes()[..end]);
        Self { code: Code::CEASE, subcode, data }
    }

    const fn subcode_name(&self) -> Option<&'static str> {
        Some(match (self.code, self.subcode) {
            (Code::HEADER, header_error::NOT_SYNCHRONIZED) => "Connection Not Synchronized",
            (Code::HEADER, header_error::BAD_LENGTH) => "Bad Message Length",
            (Code::HEADER, header_error::BAD_TYPE) => "Bad Message Type",
            (Code::OPEN, open_error::VERSION) => "Unsupported Version Number",
            (Code::OPEN, open_error::BAD_PEER_AS) => "Bad Peer AS",
            (Code::OPEN, open_error::BAD_ROUTER_ID) => "Bad BGP Identifier",
            (Code::OPEN, open_error::OPTIONAL_PARAMETER) => "Unsupported Optional Parameter",
            (Code::OPEN, open_error::HOLD_TIME) => "Unacceptable Hold Time",
            (Code::OPEN, open_error::CAPABILITY) => "Unsupported Capability",
            (Code::OPEN, open_error::ROLE) => "Role Mismatch",
            (Code::UPDATE, update_error::ATTRIBUTE_LIST) => "Malformed Attribute List",
            (Code::UPDATE, update_error::UNRECOGNIZED) => "Unrecognized Well-known Attribute",
            (Code::UPDATE, update_error::MISSING) => "Missing Well-known Attribute",
            (Code::UPDATE, update_error::FLAGS) => "Attribute Flags Error",
            (Code::UPDATE, update_error::LENGTH) => "Attribute Length Error",
            (Code::UPDATE, update_error::ORIGIN) => "Invalid ORIGIN Attribute",
            (Code::UPDATE, update_error::NEXT_HOP) => "Invalid NEXT_HOP Attribute",
            (Code::UPDATE, update_error::OPTIONAL) => "Optional Attribute Error",
            (Code::UPDATE, update_error::NETWORK) => "Invalid Network Field",
            (Code::UPDATE, update_error::AS_PATH) => "Malformed AS_PATH",
            (Code::STATE_MACHINE, 1) => "Unexpected Message in OpenSent State",
            (Code::STATE_MACHINE, 2) => "Unexpected Message in OpenConfirm State",
            (Code::STATE_MACHINE, 3) => "Unexpected Message in Established State",
            (Code::CEASE, cease::MAX_PREFIXES) => "Maximum Number of Prefixes Reached",
            (Code::CEASE, cease::ADMINISTRATIVE_SHUTDOWN) => "Administrative Shutdown",
            (Code::CEASE, cease::PEER_DECONFIGURED) => "Peer De-configured",
            (Code::CEASE, cease::ADMINISTRATIVE_RESET) => "Administrative Reset",
            (Code::CEASE, cease::CONNECTION_REJECTED) => "Connection Rejected",
            (Code::CEASE, cease::CONFIGURATION_CHANGE) => "Other Configuration Change",
            (Code::CEASE, cease::COLLISION) => "Connection Collision Resolution",
            (Code::CEASE, cease::OUT_OF_RESOURCES) => "Out of Resources",
            (Code::CEASE, cease::HARD_RESET) => "Hard Reset",
            (Code::CEASE, cease::BFD_DOWN) => "BFD Down",
            (Code::REFRESH, 1) => "Invalid Message Length",
            _ => return None,
        })
    }
}

impl fmt::Display for Notification {
    /// Its names and numbers: `Cease, Administrative Shutdown (6/2)`, and the operator's words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code.name())?;
        if let Some(name) = self.subcode_name() {
            write!(f, ", {name}")?;
        }
        write!(f, " ({}/{})", self.code.0, self.subcode)?;
        match self.words() {
            Some(words) => write!(f, ": {words:?}"),
            None => Ok(()),
        }
    }
}

/// Message Header Errors (RFC 4271 §6.1).
pub mod header_error {
    use super::{Code, Notification};

    /// Connection Not Synchronized.
    pub const NOT_SYNCHRONIZED: u8 = 1;
    /// Bad Message Length.
    pub const BAD_LENGTH: u8 = 2;
    /// Bad Message Type.
    pub const BAD_TYPE: u8 = 3;

    /// The marker is not all ones.
    pub fn not_synchronized() -> Notification {
        Notification::new(Code::HEADER, NOT_SYNCHRONIZED, &[])
    }

    /// The length cannot be.
    pub fn bad_length(len: u16) -> Notification {
        Notification::new(Code::HEADER, BAD_LENGTH, &len.to_be_bytes())
    }

    /// The type is unknown.
    pub fn bad_type(number: u8) -> Notification {
        Notification::new(Code::HEADER, BAD_TYPE, &[number])
    }
}

/// Subcodes of OPEN Message Error (RFC 4271 §6.2, RFC 5492 §5, RFC 9234 §5).
pub mod open_error {
    /// Nothing in particular: the message cannot be read.
    pub const UNSPECIFIC: u8 = 0;
    /// Unsupported Version Number; with the version that is supported.
    pub const VERSION: u8 = 1;
    /// Bad Peer AS.
    pub const BAD_PEER_AS: u8 = 2;
    /// Bad BGP Identifier.
    pub const BAD_ROUTER_ID: u8 = 3;
    /// Unsupported Optional Parameter.
    pub const OPTIONAL_PARAMETER: u8 = 4;
    /// Unacceptable Hold Time.
    pub const HOLD_TIME: u8 = 6;
    /// Unsupported Capability; with the capabilities that are wanted.
    pub const CAPABILITY: u8 = 7;
    /// Role Mismatch.
    pub const ROLE: u8 = 11;
}

/// Subcodes of UPDATE Message Error (RFC 4271 §6.3).
pub mod update_error {
    /// Malformed Attribute List.
    pub const ATTRIBUTE_LIST: u8 = 1;
    /// Unrecognized Well-known Attribute; with the attribute.
    pub const UNRECOGNIZED: u8 = 2;
    /// Missing Well-known Attribute; with its type.
    pub const MISSING: u8 = 3;
    /// Attribute Flags Error; with the attribute.
    pub const FLAGS: u8 = 4;
    /// Attribute Length Error; with the attribute.
    pub const LENGTH: u8 = 5;
    /// Invalid ORIGIN Attribute; with the attribute.
    pub const ORIGIN: u8 = 6;
    /// Invalid NEXT_HOP Attribute; with the attribute.
    pub const NEXT_HOP: u8 = 8;
    /// Optional Attribute Error; with the attribute.
    pub const OPTIONAL: u8 = 9;
    /// Invalid Network Field.
    pub const NETWORK: u8 = 10;
    /// Malformed AS_PATH.
    pub const AS_PATH: u8 = 11;
}

/// Subcodes of Cease (RFC 4486, RFC 8538, RFC 9384).
pub mod cease {
    use super::{Code, Notification};
    use crate::Family;

    /// Maximum Number of Prefixes Reached.
    pub const MAX_PREFIXES: u8 = 1;
    /// Administrative Shutdown.
    pub const ADMINISTRATIVE_SHUTDOWN: u8 = 2;
    /// Peer De-configured.
    pub const PEER_DECONFIGURED: u8 = 3;
    /// Administrative Reset.
    pub const ADMINISTRATIVE_RESET: u8 = 4;
    /// Connection Rejected.
    pub const CONNECTION_REJECTED: u8 = 5;
    /// Other Configuration Change.
    pub const CONFIGURATION_CHANGE: u8 = 6;
    /// Connection Collision Resolution.
    pub const COLLISION: u8 = 7;
    /// Out of Resources.
    pub const OUT_OF_RESOURCES: u8 = 8;
    /// Hard Reset.
    pub const HARD_RESET: u8 = 9;
    /// BFD Down.
    pub const BFD_DOWN: u8 = 10;

    /// A Cease without data.
    pub fn of(subcode: u8) -> Notification {
        Notification::new(Code::CEASE, subcode, &[])
    }

    /// More prefixes of a family than the limit (RFC 4486 §4).
    pub fn max_prefixes(family: Family, limit: u32) -> Notification {
        let mut data = family.afi().to_be_bytes().to_vec();
        data.push(1);
        data.extend_from_slice(&limit.to_be_bytes());
        Notification::new(Code::CEASE, MAX_PREFIXES, &data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(notification: &Notification) -> Notification {
        let mut bytes = Vec::new();
        notification.write(&mut bytes);
        let (message, rest) = super::super::split(&bytes).unwrap().unwrap();
        assert!(rest.is_empty());
        Notification::decode(message.body).unwrap()
    }

    #[test]
    fn an_operators_words_come_across_and_are_cut_at_a_character() {
        let sent = Notification::cease_with_words(cease::ADMINISTRATIVE_SHUTDOWN, "umbau bis 6 Uhr");
        assert_eq!(round_trip(&sent), sent);
        assert_eq!(sent.to_string(), "Cease, Administrative Shutdown (6/2): \"umbau bis 6 Uhr\"");
        let long = Notification::cease_with_words(cease::ADMINISTRATIVE_RESET, &"ü".repeat(200));
        assert_eq!(round_trip(&long).words(), Some("ü".repeat(127)));
        assert_eq!(Notification::cease_with_words(cease::HARD_RESET, ""), cease::of(cease::HARD_RESET));
    }

    #[test]
    fn words_that_are_none_are_not_shown() {
        for data in [&[5, b'a'][..], &[2, 0xFF, 0xFE], &[], &[0], &[2, b'\n', 0x1B]] {
            assert_eq!(Notification::new(Code::CEASE, cease::ADMINISTRATIVE_SHUTDOWN, data).words(), None, "{data:?}");
        }
        assert_eq!(Notification::new(Code::CEASE, cease::COLLISION, &[1, b'a']).words(), None);
    }

    #[test]
    fn unknown_codes_and_long_data_survive() {
        let unknown = Notification::new(Code(77), 3, &[1]);
        assert_eq!((round_trip(&unknown), unknown.to_string()), (unknown.clone(), "unknown error (77/3)".into()));
        let long = Notification::new(Code::UPDATE, update_error::ATTRIBUTE_LIST, &[7; 5000]);
        assert_eq!(round_trip(&long).data.len(), MAX_DATA);
        assert_eq!(Notification::decode(&[6]), None);
    }
}
