//! IKEv2 payloads (RFC 7296 §3): the chain of payloads as a view, and each payload's meaning.
//!
//! Decoding never allocates by a length that the peer claims: what grows is what was read, and the number of
//! payloads, proposals and transforms is bounded. Numbers that are not known survive. Certificates, configuration
//! and EAP payloads are recognised and skipped; what is in them is left out.

mod build;
mod proposal;
mod selector;

use base::error::Malformed;
use sa::TrafficSelector;

pub use build::{Body, message};
pub use proposal::{Proposal, Transform, kind};

use super::header::{self, Header};

/// Most payloads in one message.
pub const MAX_PAYLOADS: usize = 128;

/// Exchange types (RFC 7296 §3.1).
pub mod exchange {
    /// IKE_SA_INIT.
    pub const SA_INIT: u8 = 34;
    /// IKE_AUTH.
    pub const AUTH: u8 = 35;
    /// CREATE_CHILD_SA.
    pub const CREATE_CHILD_SA: u8 = 36;
    /// INFORMATIONAL.
    pub const INFORMATIONAL: u8 = 37;
}

/// Flags of the header (RFC 7296 §3.1).
pub mod flags {
    /// Sent by the original initiator of the IKE SA.
    pub const INITIATOR: u8 = 0x08;
    /// A response.
    pub const RESPONSE: u8 = 0x20;
}

/// Payload types (RFC 7296 §3.2, RFC 7383 §2.5).
pub mod payload {
    /// No next payload.
    pub const NONE: u8 = 0;
    /// Security association.
    pub const SA: u8 = 33;
    /// Key exchange.
    pub const KE: u8 = 34;
    /// Identification of the initiator.
    pub const ID_I: u8 = 35;
    /// Identification of the responder.
    pub const ID_R: u8 = 36;
    /// Certificate.
    pub const CERT: u8 = 37;
    /// Certificate request.
    pub const CERTREQ: u8 = 38;
    /// Authentication.
    pub const AUTH: u8 = 39;
    /// Nonce.
    pub const NONCE: u8 = 40;
    /// Notify.
    pub const NOTIFY: u8 = 41;
    /// Delete.
    pub const DELETE: u8 = 42;
    /// Vendor ID.
    pub const VENDOR: u8 = 43;
    /// Traffic selectors of the initiator.
    pub const TS_I: u8 = 44;
    /// Traffic selectors of the responder.
    pub const TS_R: u8 = 45;
    /// Encrypted and authenticated.
    pub const SK: u8 = 46;
    /// Configuration.
    pub const CP: u8 = 47;
    /// Extensible authentication.
    pub const EAP: u8 = 48;
    /// Encrypted and authenticated fragment.
    pub const SKF: u8 = 53;
}

/// Protocols that an SA or an SPI is of (RFC 7296 §3.3.1).
pub mod protocol {
    /// None.
    pub const NONE: u8 = 0;
    /// IKE; SPIs of 8 bytes.
    pub const IKE: u8 = 1;
    /// ESP; SPIs of 4 bytes.
    pub const ESP: u8 = 3;
}

/// The method of the AUTH payload that pre-shared keys use (RFC 7296 §3.8).
pub const AUTH_SHARED_KEY: u8 = 2;

/// The type of a notification (RFC 7296 §3.10.1); below 16384 it is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NotifyType(pub u16);

/// Names each type once, for code and for people.
macro_rules! notify_types {
    ($($name:ident = $number:literal, $doc:literal;)*) => {
        impl NotifyType {
            $(#[doc = $doc] pub const $name: Self = Self($number);)*

            /// Its name in the registry, where it is known here.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

notify_types! {
    UNSUPPORTED_CRITICAL_PAYLOAD = 1, "A payload with the critical bit is not known; its type is the data.";
    INVALID_IKE_SPI = 4, "No IKE SA has these SPIs.";
    INVALID_MAJOR_VERSION = 5, "That major version is not spoken here.";
    INVALID_SYNTAX = 7, "A message is malformed.";
    INVALID_MESSAGE_ID = 9, "A message ID outside the window.";
    INVALID_SPI = 11, "An ESP packet had an unknown SPI.";
    NO_PROPOSAL_CHOSEN = 14, "None of the proposals is acceptable.";
    INVALID_KE_PAYLOAD = 17, "Another Diffie-Hellman group is wanted; its number is the data.";
    AUTHENTICATION_FAILED = 24, "The proof does not hold.";
    SINGLE_PAIR_REQUIRED = 34, "Only a single pair of addresses is acceptable.";
    NO_ADDITIONAL_SAS = 35, "No more Child SAs on this IKE SA.";
    INTERNAL_ADDRESS_FAILURE = 36, "No inner address can be assigned.";
    FAILED_CP_REQUIRED = 37, "A configuration payload is required.";
    TS_UNACCEPTABLE = 38, "The traffic selectors have nothing in common.";
    INVALID_SELECTORS = 39, "An ESP packet was outside its selectors.";
    TEMPORARY_FAILURE = 43, "Try again later.";
    CHILD_SA_NOT_FOUND = 44, "The Child SA to be rekeyed does not exist.";
    INITIAL_CONTACT = 16384, "This is the only IKE SA between these identities.";
    SET_WINDOW_SIZE = 16385, "As many requests may be outstanding.";
    NAT_DETECTION_SOURCE_IP = 16388, "Hash of the sender's address and port.";
    NAT_DETECTION_DESTINATION_IP = 16389, "Hash of the receiver's address and port.";
    COOKIE = 16390, "Send this back to show that you receive.";
    REKEY_SA = 16393, "This exchange rekeys the Child SA with this SPI.";
    IKEV2_MESSAGE_ID_SYNC_SUPPORTED = 16420, "Message IDs can be synchronized after a failover (RFC 6311).";
    IPSEC_REPLAY_COUNTER_SYNC_SUPPORTED = 16421, "So can replay counters.";
    IKEV2_MESSAGE_ID_SYNC = 16422, "A nonce, and the message IDs of the sender's and the receiver's next requests.";
    IPSEC_REPLAY_COUNTER_SYNC = 16423, "As many numbers are to be left out on Child SAs towards the sender.";
    FRAGMENTATION_SUPPORTED = 16430, "RFC 7383 is spoken.";
}

impl NotifyType {
    /// Whether it says that the request failed.
    pub const fn is_error(self) -> bool {
        self.0 < 16384
    }
}

impl std::fmt::Display for NotifyType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "notification {}", self.0),
        }
    }
}

/// One payload of a chain, before its meaning is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raw<'a> {
    /// Its type.
    pub kind: u8,
    /// Whether a receiver that does not know the type must refuse the message.
    pub critical: bool,
    /// The type of the payload behind it.
    pub next: u8,
    /// Its bytes without the generic header.
    pub body: &'a [u8],
}

/// Walks a chain of payloads. After an error it ends.
#[derive(Clone, Debug)]
pub struct Chain<'a> {
    next: u8,
    rest: &'a [u8],
    left: usize,
}

impl<'a> Chain<'a> {
    /// The chain that begins with a payload of type `first`.
    pub const fn new(first: u8, bytes: &'a [u8]) -> Self {
        Self { next: first, rest: bytes, left: MAX_PAYLOADS }
    }

    fn take(&mut self) -> Result<Raw<'a>, Malformed> {
        let (&[next, critical, high, low], _) = self.rest.split_first_chunk::<4>().ok_or(Malformed::Truncated)?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (own, rest) = self.rest.split_at_checked(length).ok_or(Malformed::Truncated)?;
        let body = own.get(4..).ok_or(Malformed::BadLength)?;
        self.left = self.left.checked_sub(1).ok_or(Malformed::BadField("number of payloads"))?;
        let raw = Raw { kind: self.next, critical: critical & 0x80 != 0, next, body };
        // RFC 7296 §3.14: what follows an Encrypted payload is inside it.
        let encrypted = matches!(raw.kind, payload::SK | payload::SKF);
        (self.next, self.rest) = (if encrypted { payload::NONE } else { next }, rest);
        Ok(raw)
    }
}

impl<'a> Iterator for Chain<'a> {
    type Item = Result<Raw<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next == payload::NONE {
            let trailing = !std::mem::take(&mut self.rest).is_empty();
            return trailing.then_some(Err(Malformed::BadLength));
        }
        let taken = self.take();
        if taken.is_err() {
            (self.next, self.rest) = (payload::NONE, &[]);
        }
        Some(taken)
    }
}

/// A key exchange payload (RFC 7296 §3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyExchange<'a> {
    /// Number of the group.
    pub group: u16,
    /// The public value.
    pub value: &'a [u8],
}

/// An identification payload (RFC 7296 §3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id<'a> {
    /// Type of the identity.
    pub kind: u8,
    /// Its bytes.
    pub data: &'a [u8],
    /// The whole body of the payload, which the proof covers.
    pub body: &'a [u8],
}

/// An authentication payload (RFC 7296 §3.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Auth<'a> {
    /// How it was made.
    pub method: u8,
    /// The proof.
    pub data: &'a [u8],
}

/// A notification (RFC 7296 §3.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notify<'a> {
    /// The protocol of the SPI.
    pub protocol: u8,
    /// What it says.
    pub kind: NotifyType,
    /// The SPI, mostly empty.
    pub spi: &'a [u8],
    /// What belongs to it.
    pub data: &'a [u8],
}

/// A delete payload (RFC 7296 §3.11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delete<'a> {
    /// IKE without SPIs, or ESP.
    pub protocol: u8,
    /// SPIs, end to end.
    spis: &'a [u8],
}

impl<'a> Delete<'a> {
    /// The SPIs of ESP SAs; none for IKE.
    pub fn esp_spis(&self) -> impl Iterator<Item = sa::Spi> + use<'a> {
        let chunks = if self.protocol == protocol::ESP { self.spis.as_chunks::<4>().0 } else { &[] };
        chunks.iter().map(|spi| sa::Spi(u32::from_be_bytes(*spi)))
    }
}

/// All payloads of a message, or of what was in its Encrypted payload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message<'a> {
    /// Proposals.
    pub sa: Option<Vec<Proposal<'a>>>,
    /// Public value.
    pub ke: Option<KeyExchange<'a>>,
    /// The initiator's identity.
    pub id_i: Option<Id<'a>>,
    /// The responder's identity.
    pub id_r: Option<Id<'a>>,
    /// Proof of identity.
    pub auth: Option<Auth<'a>>,
    /// Nonce, 16 to 256 bytes.
    pub nonce: Option<&'a [u8]>,
    /// Notifications in their order.
    pub notifies: Vec<Notify<'a>>,
    /// Deletes in their order.
    pub deletes: Vec<Delete<'a>>,
    /// Vendor IDs in their order.
    pub vendors: Vec<&'a [u8]>,
    /// Selectors of the initiator's side.
    pub ts_i: Option<Vec<TrafficSelector>>,
    /// Selectors of the responder's side.
    pub ts_r: Option<Vec<TrafficSelector>>,
    /// Whether there is an EAP payload.
    pub has_eap: bool,
    /// Whether there is a configuration payload.
    pub has_configuration: bool,
    /// The first payload type that is not known and has the critical bit.
    pub unknown_critical: Option<u8>,
}

impl<'a> Message<'a> {
    /// Reads the chain that begins with a payload of type `first`.
    ///
    /// # Errors
    /// When a payload is malformed, stands twice where it may not, or there are too many of them.
    pub fn decode(first: u8, bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut message = Self::default();
        for raw in Chain::new(first, bytes) {
            message.add(raw?)?;
        }
        Ok(message)
    }

    fn add(&mut self, raw: Raw<'a>) -> Result<(), Malformed> {
        let body = raw.body;
        match raw.kind {
            payload::SA => once(&mut self.sa, proposal::decode(body)?),
            payload::KE => once(&mut self.ke, key_exchange(body)?),
            payload::ID_I => once(&mut self.id_i, id(body)?),
            payload::ID_R => once(&mut self.id_r, id(body)?),
            payload::AUTH => once(&mut self.auth, auth(body)?),
            payload::NONCE => once(&mut self.nonce, nonce(body)?),
            payload::TS_I => once(&mut self.ts_i, selector::decode(body)?),
            payload::TS_R => once(&mut self.ts_r, selector::decode(body)?),
            payload::NOTIFY => {
                self.notifies.push(notify(body)?);
                Ok(())
            }
            payload::DELETE => {
                self.deletes.push(delete(body)?);
                Ok(())
            }
            payload::VENDOR => {
                self.vendors.push(body);
                Ok(())
            }
            payload::EAP => {
                self.has_eap = true;
                Ok(())
            }
            payload::CP => {
                self.has_configuration = true;
                Ok(())
            }
            payload::CERT | payload::CERTREQ => Ok(()),
            // RFC 7296 §2.5: unknown payloads are skipped unless they are critical. The critical bit of a known
            // one means nothing.
            unknown => {
                if raw.critical {
                    self.unknown_critical.get_or_insert(unknown);
                }
                Ok(())
            }
        }
    }

    /// The first notification of this type.
    pub fn notify(&self, kind: NotifyType) -> Option<Notify<'a>> {
        self.notifies.iter().find(|notify| notify.kind == kind).copied()
    }

    /// The first notification that says that the request failed.
    pub fn error(&self) -> Option<Notify<'a>> {
        self.notifies.iter().find(|notify| notify.kind.is_error()).copied()
    }
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), Malformed> {
    if slot.replace(value).is_some() { Err(Malformed::BadField("payload that stands there twice")) } else { Ok(()) }
}

fn key_exchange(body: &[u8]) -> Result<KeyExchange<'_>, Malformed> {
    let (&[high, low, _, _], value) = body.split_first_chunk::<4>().ok_or(Malformed::Truncated)?;
    Ok(KeyExchange { group: u16::from_be_bytes([high, low]), value })
}

fn id(body: &[u8]) -> Result<Id<'_>, Malformed> {
    let (&[kind, ..], data) = body.split_first_chunk::<4>().ok_or(Malformed::Truncated)?;
    Ok(Id { kind, data, body })
}

fn auth(body: &[u8]) -> Result<Auth<'_>, Malformed> {
    let (&[method, ..], data) = body.split_first_chunk::<4>().ok_or(Malformed::Truncated)?;
    Ok(Auth { method, data })
}

/// RFC 7296 §3.9: 16 to 256 bytes.
fn nonce(body: &[u8]) -> Result<&[u8], Malformed> {
    if (16..=256).contains(&body.len()) { Ok(body) } else { Err(Malformed::BadField("length of the nonce")) }
}

fn notify(body: &[u8]) -> Result<Notify<'_>, Malformed> {
    let (&[protocol, spi_len, high, low], rest) = body.split_first_chunk::<4>().ok_or(Malformed::Truncated)?;
    let (spi, data) = rest.split_at_checked(usize::from(spi_len)).ok_or(Malformed::Truncated)?;
    Ok(Notify { protocol, kind: NotifyType(u16::from_be_bytes([high, low])), spi, data })
}

fn delete(body: &[u8]) -> Result<Delete<'_>, Malformed> {
    let (&[protocol, spi_len, high, low], spis) = body.split_first_chunk::<4>().ok_or(Malformed::Truncated)?;
    let count = usize::from(u16::from_be_bytes([high, low]));
    let expected_len = if protocol == protocol::IKE { 0 } else { 4 };
    if usize::from(spi_len) != expected_len || count * expected_len != spis.len() {
        return Err(Malformed::BadField("SPIs of a delete"));
    }
    Ok(Delete { protocol, spis })
}

/// Reads all that can be read of a datagram without keys: the header, and the payloads when the first is not
/// encrypted. It is where a fuzzer begins.
///
/// # Errors
/// When the header or a payload is malformed.
pub fn decode(datagram: &[u8]) -> Result<(Header, Message<'_>), Malformed> {
    let header = Header::decode(datagram)?;
    let body = datagram.get(header::LEN..).unwrap_or_default();
    Ok((header, Message::decode(header.next_payload, body)?))
}

#[cfg(test)]
mod tests;
