//! IKEv1 payloads (RFC 2408 §3, RFC 2407 §4, RFC 3947).
//!
//! A message is a header and a chain of payloads, each of which names the type of the next. A decoder here borrows
//! from the datagram; how many payloads a message may have is bounded. Left out: certificates, signatures and
//! configuration payloads, which survive as bytes of their type.

mod sa;

use base::error::Malformed;

use super::header::{self, Header};

pub use sa::{Attribute, Proposal, SaPayload, Transform, Value, attribute_value, decode_attributes, encode_attributes};

/// Exchange types.
pub mod exchange {
    /// Base mode (RFC 2408 §4.4): refused.
    pub const BASE: u8 = 1;
    /// Identity protection: main mode.
    pub const MAIN: u8 = 2;
    /// Authentication only: refused.
    pub const AUTHENTICATION_ONLY: u8 = 3;
    /// Aggressive mode: refused.
    pub const AGGRESSIVE: u8 = 4;
    /// Informational.
    pub const INFORMATIONAL: u8 = 5;
    /// Transaction: mode config and XAUTH, refused.
    pub const TRANSACTION: u8 = 6;
    /// Quick mode.
    pub const QUICK: u8 = 32;
    /// New group mode: refused.
    pub const NEW_GROUP: u8 = 33;
}

/// Flags of the header.
pub mod flag {
    /// Everything behind the header is encrypted.
    pub const ENCRYPTED: u8 = 1;
    /// The sender wants to be waited for (RFC 2408 §3.1).
    pub const COMMIT: u8 = 2;
}

/// Payload types.
pub mod payload {
    /// Security association.
    pub const SA: u8 = 1;
    /// Key exchange.
    pub const KEY_EXCHANGE: u8 = 4;
    /// Identification.
    pub const ID: u8 = 5;
    /// Hash.
    pub const HASH: u8 = 8;
    /// Nonce.
    pub const NONCE: u8 = 10;
    /// Notification.
    pub const NOTIFY: u8 = 11;
    /// Delete.
    pub const DELETE: u8 = 12;
    /// Vendor ID.
    pub const VENDOR: u8 = 13;
    /// NAT discovery of draft-ietf-ipsec-nat-t-ike-04 to -08.
    pub const NAT_D_LATE_DRAFT: u8 = 15;
    /// NAT discovery (RFC 3947 §3.2).
    pub const NAT_D: u8 = 20;
    /// NAT original address (RFC 3947 §5.2).
    pub const NAT_OA: u8 = 21;
    /// NAT discovery of draft-ietf-ipsec-nat-t-ike-00 to -03.
    pub const NAT_D_DRAFT: u8 = 130;
    /// NAT original address of those drafts.
    pub const NAT_OA_DRAFT: u8 = 131;
}

/// Protocols of proposals, notifications and deletes (RFC 2407 §4.4.1).
pub mod protocol {
    /// ISAKMP itself.
    pub const ISAKMP: u8 = 1;
    /// AH: refused.
    pub const AH: u8 = 2;
    /// ESP.
    pub const ESP: u8 = 3;
}

/// Notification types (RFC 2408 §3.14.1, RFC 2407 §4.6.3, RFC 3706 §5).
pub mod notify {
    /// The exchange type is not supported.
    pub const INVALID_EXCHANGE_TYPE: u16 = 7;
    /// No proposal suits.
    pub const NO_PROPOSAL_CHOSEN: u16 = 14;
    /// A payload makes no sense; often because it was decrypted with another key.
    pub const PAYLOAD_MALFORMED: u16 = 16;
    /// The public value is wrong.
    pub const INVALID_KEY_INFORMATION: u16 = 17;
    /// The identity is not acceptable.
    pub const INVALID_ID_INFORMATION: u16 = 18;
    /// A hash does not verify.
    pub const INVALID_HASH_INFORMATION: u16 = 23;
    /// The proof of identity failed.
    pub const AUTHENTICATION_FAILED: u16 = 24;
    /// The exchange type is not supported (RFC 2408 calls it so as well).
    pub const UNSUPPORTED_EXCHANGE_TYPE: u16 = 29;
    /// The last error type; what lies above is status.
    pub const LAST_ERROR: u16 = 16_383;
    /// Quick mode is complete (commit bit).
    pub const CONNECTED: u16 = 16_384;
    /// The responder uses a shorter lifetime (RFC 2407 §4.6.3.1).
    pub const RESPONDER_LIFETIME: u16 = 24_576;
    /// The sender remembers no other SA with this peer (RFC 2407 §4.6.3.3).
    pub const INITIAL_CONTACT: u16 = 24_578;
    /// Dead peer detection asks.
    pub const R_U_THERE: u16 = 36_136;
    /// Dead peer detection answers.
    pub const R_U_THERE_ACK: u16 = 36_137;

    /// What a notification is called in the standards.
    pub fn name(kind: u16) -> String {
        let name = match kind {
            INVALID_EXCHANGE_TYPE => "INVALID_EXCHANGE_TYPE",
            NO_PROPOSAL_CHOSEN => "NO_PROPOSAL_CHOSEN",
            PAYLOAD_MALFORMED => "PAYLOAD_MALFORMED",
            INVALID_KEY_INFORMATION => "INVALID_KEY_INFORMATION",
            INVALID_ID_INFORMATION => "INVALID_ID_INFORMATION",
            INVALID_HASH_INFORMATION => "INVALID_HASH_INFORMATION",
            AUTHENTICATION_FAILED => "AUTHENTICATION_FAILED",
            UNSUPPORTED_EXCHANGE_TYPE => "UNSUPPORTED_EXCHANGE_TYPE",
            other => return format!("notification {other}"),
        };
        name.to_owned()
    }
}

/// The DOI of IPsec (RFC 2407).
pub const DOI_IPSEC: u32 = 1;

/// Payloads that one message may have: more than any peer sends, few enough to look through.
const MAX_PAYLOADS: usize = 64;

/// One payload: its type and what stands behind its generic header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload<'a> {
    /// Its type.
    pub kind: u8,
    /// Its body.
    pub body: &'a [u8],
}

/// The payloads of a message in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain<'a> {
    payloads: Vec<Payload<'a>>,
    /// The payloads with their headers, without what stands behind the last one.
    bytes: &'a [u8],
}

/// What may stand behind the last payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// At most three bytes: Openswan rounds every message up to four.
    Clear,
    /// Whatever the encryption added.
    Encrypted,
}

impl<'a> Chain<'a> {
    /// Reads the payloads that stand behind the header of a message (or in what it was decrypted to).
    ///
    /// # Errors
    /// Whatever a wrong key or a broken peer makes of a chain: lengths that lead outside, reserved bytes that are
    /// set, too many payloads, bytes left over.
    pub fn decode(first: u8, bytes: &'a [u8], padding: Padding) -> Result<Self, Malformed> {
        let (mut next, mut rest, mut payloads) = (first, bytes, Vec::new());
        while next != 0 {
            if payloads.len() == MAX_PAYLOADS {
                return Err(Malformed::BadField("number of payloads"));
            }
            let (head, behind) = rest.split_first_chunk::<4>().ok_or(Malformed::Truncated)?;
            if head[1] != 0 {
                return Err(Malformed::BadField("reserved byte of a payload"));
            }
            let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
            let body_len = len.checked_sub(4).ok_or(Malformed::BadLength)?;
            let (body, after) = behind.split_at_checked(body_len).ok_or(Malformed::BadLength)?;
            payloads.push(Payload { kind: next, body });
            next = head[0];
            rest = after;
        }
        if padding == Padding::Clear && rest.len() > 3 {
            return Err(Malformed::BadLength);
        }
        Ok(Self { payloads, bytes: &bytes[..bytes.len() - rest.len()] })
    }

    /// The first payload of this type.
    pub fn first(&self, kind: u8) -> Option<&'a [u8]> {
        self.all(kind).next()
    }

    /// The payloads of this type, in their order.
    pub fn all(&self, kind: u8) -> impl Iterator<Item = &'a [u8]> {
        self.payloads.iter().filter(move |p| p.kind == kind).map(|p| p.body)
    }

    /// All payloads.
    pub fn payloads(&self) -> &[Payload<'a>] {
        &self.payloads
    }

    /// The hash in front and the bytes that it covers in quick mode and informational exchanges (RFC 2409 §5.5):
    /// all payloads behind it with their headers, without padding.
    pub fn hashed(&self) -> Option<(&'a [u8], &'a [u8])> {
        let front = self.payloads.first().filter(|p| p.kind == payload::HASH)?;
        Some((front.body, &self.bytes[front.body.len() + 4..]))
    }
}

/// Payloads to be sent.
#[derive(Clone, Debug, Default)]
pub struct Payloads {
    first: u8,
    bytes: Vec<u8>,
    last_at: usize,
}

impl Payloads {
    /// No payloads yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a payload. A body is at most 65,531 bytes.
    #[must_use]
    pub fn with(mut self, kind: u8, body: &[u8]) -> Self {
        match self.bytes.get_mut(self.last_at) {
            Some(next) => *next = kind,
            None => self.first = kind,
        }
        self.last_at = self.bytes.len();
        let len = u16::try_from(body.len() + 4).expect("we send no payload above 64 KB");
        self.bytes.extend_from_slice(&[0, 0]);
        self.bytes.extend_from_slice(&len.to_be_bytes());
        self.bytes.extend_from_slice(body);
        self
    }

    /// Type of the first payload.
    pub fn first(&self) -> u8 {
        self.first
    }

    /// The payloads as they stand behind the header.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// A message in the clear. The header's length and first payload are filled in.
pub fn encode(header: Header, payloads: &Payloads) -> Vec<u8> {
    encode_raw(Header { next_payload: payloads.first, ..header }, &payloads.bytes)
}

/// A message of a header and what stands behind it. The header's length is filled in.
pub fn encode_raw(header: Header, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(header::LEN + body.len()).expect("we send no message above 64 KB");
    [&Header { length, ..header }.encode()[..], body].concat()
}

/// A notification (RFC 2408 §3.14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notify<'a> {
    /// Which protocol it is about.
    pub protocol: u8,
    /// Which SA it is about: both cookies for ISAKMP, or 4 bytes for ESP.
    pub spi: &'a [u8],
    /// What it says.
    pub kind: u16,
    /// More about it.
    pub data: &'a [u8],
}

impl<'a> Notify<'a> {
    /// Reads the body of the payload.
    ///
    /// # Errors
    /// `Truncated`, or `BadField` for a DOI other than IPsec and 0.
    pub fn decode(body: &'a [u8]) -> Result<Self, Malformed> {
        let (head, rest) = body.split_first_chunk::<8>().ok_or(Malformed::Truncated)?;
        if u32::from_be_bytes([head[0], head[1], head[2], head[3]]) > DOI_IPSEC {
            return Err(Malformed::BadField("DOI"));
        }
        let (spi, data) = rest.split_at_checked(usize::from(head[5])).ok_or(Malformed::Truncated)?;
        Ok(Self { protocol: head[4], spi, kind: u16::from_be_bytes([head[6], head[7]]), data })
    }

    /// The body of the payload.
    pub fn encode(&self) -> Vec<u8> {
        let spi_len = u8::try_from(self.spi.len()).expect("an SPI is at most 16 bytes");
        let [high, low] = self.kind.to_be_bytes();
        [&DOI_IPSEC.to_be_bytes()[..], &[self.protocol, spi_len, high, low], self.spi, self.data].concat()
    }
}

/// SAs that the sender does not use any more (RFC 2408 §3.15).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delete<'a> {
    /// Their protocol.
    pub protocol: u8,
    /// Their SPIs: both cookies for ISAKMP, the sender's inbound SPI for ESP.
    pub spis: Vec<&'a [u8]>,
}

impl<'a> Delete<'a> {
    /// Reads the body of the payload.
    ///
    /// # Errors
    /// `Truncated`, `BadLength` where number and size of the SPIs do not fit, `BadField` for another DOI.
    pub fn decode(body: &'a [u8]) -> Result<Self, Malformed> {
        let (head, rest) = body.split_first_chunk::<8>().ok_or(Malformed::Truncated)?;
        if u32::from_be_bytes([head[0], head[1], head[2], head[3]]) > DOI_IPSEC {
            return Err(Malformed::BadField("DOI"));
        }
        let (size, count) = (usize::from(head[5]), usize::from(u16::from_be_bytes([head[6], head[7]])));
        if size == 0 || size * count != rest.len() {
            return Err(Malformed::BadLength);
        }
        Ok(Self { protocol: head[4], spis: rest.chunks(size).collect() })
    }

    /// The body of the payload. All SPIs have the length of the first.
    pub fn encode(&self) -> Vec<u8> {
        let size = u8::try_from(self.spis.first().map_or(0, |spi| spi.len())).expect("an SPI is at most 16 bytes");
        let [high, low] = u16::try_from(self.spis.len()).expect("at most 16,000 SPIs fit").to_be_bytes();
        let spis = self.spis.concat();
        [&DOI_IPSEC.to_be_bytes()[..], &[self.protocol, size, high, low], &spis].concat()
    }
}

/// An identification payload (RFC 2407 §4.6.2), in phase 1 who someone is, in phase 2 which traffic is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id<'a> {
    /// Its type.
    pub kind: u8,
    /// IP protocol; 0 is any.
    pub protocol: u8,
    /// Port; 0 is any.
    pub port: u16,
    /// The identity.
    pub data: &'a [u8],
}

impl<'a> Id<'a> {
    /// Reads the body of the payload.
    ///
    /// # Errors
    /// `Truncated`.
    pub fn decode(body: &'a [u8]) -> Result<Self, Malformed> {
        let (head, data) = body.split_first_chunk::<4>().ok_or(Malformed::Truncated)?;
        Ok(Self { kind: head[0], protocol: head[1], port: u16::from_be_bytes([head[2], head[3]]), data })
    }

    /// The body of the payload.
    pub fn encode(&self) -> Vec<u8> {
        let [high, low] = self.port.to_be_bytes();
        [&[self.kind, self.protocol, high, low], self.data].concat()
    }
}

/// Decodes a message in the clear with everything in it: the entry for fuzzing.
///
/// # Errors
/// What is wrong with it.
pub fn decode_all(message: &[u8]) -> Result<usize, Malformed> {
    let header = Header::decode(message)?;
    let chain = Chain::decode(header.next_payload, &message[header::LEN..], Padding::Clear)?;
    for Payload { kind, body } in chain.payloads() {
        match *kind {
            payload::SA => drop(SaPayload::decode(body)?),
            payload::ID => drop(Id::decode(body)?.encode()),
            payload::NOTIFY => drop(Notify::decode(body)?.encode()),
            payload::DELETE => drop(Delete::decode(body)?.encode()),
            _ => {}
        }
    }
    Ok(chain.payloads().len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_header() -> Header {
        Header {
            initiator_spi: 1,
            responder_spi: 2,
            next_payload: 0,
            major: 1,
            minor: 0,
            exchange: exchange::MAIN,
            flags: 0,
            message_id: 0,
            length: 0,
        }
    }

    proptest! {
        #[test]
        fn a_chain_comes_back_as_it_was(
            payloads in prop::collection::vec((1u8.., prop::collection::vec(any::<u8>(), 0..40)), 0..20),
            padding in 0usize..4,
        ) {
            let chain = payloads.iter().fold(Payloads::new(), |chain, (kind, body)| chain.with(*kind, body));
            let mut message = encode(any_header(), &chain);
            message.extend(std::iter::repeat_n(0, padding));
            let len = u32::try_from(message.len()).unwrap();
            message[24..28].copy_from_slice(&len.to_be_bytes());
            let header = Header::decode(&message).unwrap();
            let decoded = Chain::decode(header.next_payload, &message[header::LEN..], Padding::Clear).unwrap();
            let back: Vec<_> = decoded.payloads().iter().map(|p| (p.kind, p.body.to_vec())).collect();
            prop_assert_eq!(back, payloads);
            prop_assert_eq!(decoded.bytes, chain.bytes());
        }

        #[test]
        fn notify_delete_and_id_come_back_as_they_were(
            protocol: u8, kind: u16, spi in prop::collection::vec(any::<u8>(), 1..17), data: Vec<u8>, count in 0usize..9,
        ) {
            let notify = Notify { protocol, spi: &spi, kind, data: &data };
            let bytes = notify.encode();
            prop_assert_eq!(Notify::decode(&bytes), Ok(notify));
            let delete = Delete { protocol, spis: vec![&spi; count.max(1)] };
            let bytes = delete.encode();
            prop_assert_eq!(Delete::decode(&bytes), Ok(delete));
            let id = Id { kind: protocol, protocol, port: kind, data: &data };
            let bytes = id.encode();
            prop_assert_eq!(Id::decode(&bytes), Ok(id));
        }

        #[test]
        fn no_bytes_make_a_decoder_panic(bytes: Vec<u8>, first: u8) {
            let _ = Chain::decode(first, &bytes, Padding::Encrypted);
            let _ = (Notify::decode(&bytes), Delete::decode(&bytes), Id::decode(&bytes), SaPayload::decode(&bytes));
            let message = encode_raw(Header { next_payload: first, ..any_header() }, &bytes);
            let _ = decode_all(&message);
        }
    }

    #[test]
    fn a_chain_ends_within_its_bytes_and_its_bound() {
        let long = (0..MAX_PAYLOADS + 1).fold(Payloads::new(), |chain, _| chain.with(payload::VENDOR, b"x"));
        let decode = |bytes: &[u8]| Chain::decode(payload::VENDOR, bytes, Padding::Clear).map(|c| c.payloads.len());
        assert_eq!(decode(long.bytes()), Err(Malformed::BadField("number of payloads")));
        assert_eq!(decode(&[0, 0, 0, 3]), Err(Malformed::BadLength));
        assert_eq!(decode(&[0, 0, 0, 5]), Err(Malformed::BadLength));
        assert_eq!(decode(&[0, 1, 0, 4]), Err(Malformed::BadField("reserved byte of a payload")));
        assert_eq!(decode(&[0, 0, 0, 4, 0, 0, 0, 0]), Err(Malformed::BadLength));
        assert_eq!(decode(&[0, 0, 0, 4, 0, 0, 0]), Ok(1));
    }

    #[test]
    fn the_hash_covers_what_stands_behind_it_without_padding() {
        let chain = Payloads::new().with(payload::HASH, b"hash").with(payload::NONCE, b"n");
        let padded = [chain.bytes(), &[0; 3]].concat();
        let decoded = Chain::decode(payload::HASH, &padded, Padding::Encrypted).unwrap();
        assert_eq!(decoded.hashed(), Some((&b"hash"[..], &[0, 0, 0, 5, b'n'][..])));
        assert_eq!(Chain::decode(payload::NONCE, &padded, Padding::Encrypted).unwrap().hashed(), None);
    }
}
