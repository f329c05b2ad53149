//! Writing messages: a chain of payloads, and a header in front of it.

use sa::{Spi, TrafficSelector};

use super::proposal::{self, Proposal};
use super::{NotifyType, payload, protocol, selector};
use crate::wire::header::{self, Header};

/// A chain of payloads being written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body {
    first: u8,
    /// Where the last payload begins; its first byte names the next.
    last_at: usize,
    bytes: Vec<u8>,
}

impl Body {
    /// No payload yet.
    pub const fn new() -> Self {
        Self { first: payload::NONE, last_at: 0, bytes: Vec::new() }
    }

    /// Type of the first payload.
    pub const fn first(&self) -> u8 {
        self.first
    }

    /// The payloads.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Appends a payload whose body `write` writes.
    pub fn payload(&mut self, kind: u8, write: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        let start = self.bytes.len();
        if start == 0 {
            self.first = kind;
        } else {
            self.bytes[self.last_at] = kind;
        }
        self.last_at = start;
        self.bytes.extend_from_slice(&[payload::NONE, 0, 0, 0]);
        write(&mut self.bytes);
        proposal::set_length(&mut self.bytes, start);
        self
    }

    /// A security association.
    pub fn sa(&mut self, proposals: &[Proposal<'_>]) -> &mut Self {
        self.payload(payload::SA, |out| proposal::encode(proposals, out))
    }

    /// A public value.
    pub fn ke(&mut self, group: u16, value: &[u8]) -> &mut Self {
        let [high, low] = group.to_be_bytes();
        self.with_head(payload::KE, [high, low, 0, 0], value)
    }

    /// A nonce.
    pub fn nonce(&mut self, nonce: &[u8]) -> &mut Self {
        self.payload(payload::NONCE, |out| out.extend_from_slice(nonce))
    }

    /// An identity: `body` is type, three reserved bytes and data, as the proof covers it.
    pub fn id(&mut self, is_initiator: bool, body: &[u8]) -> &mut Self {
        let kind = if is_initiator { payload::ID_I } else { payload::ID_R };
        self.payload(kind, |out| out.extend_from_slice(body))
    }

    /// A proof of identity.
    pub fn auth(&mut self, method: u8, data: &[u8]) -> &mut Self {
        self.with_head(payload::AUTH, [method, 0, 0, 0], data)
    }

    /// A notification without SPI.
    pub fn notify(&mut self, kind: NotifyType, data: &[u8]) -> &mut Self {
        let [high, low] = kind.0.to_be_bytes();
        self.with_head(payload::NOTIFY, [protocol::NONE, 0, high, low], data)
    }

    /// A notification about an ESP SA.
    pub fn notify_esp(&mut self, kind: NotifyType, spi: Spi) -> &mut Self {
        let [high, low] = kind.0.to_be_bytes();
        self.with_head(payload::NOTIFY, [protocol::ESP, 4, high, low], &spi.0.to_be_bytes())
    }

    /// A delete of the IKE SA itself.
    pub fn delete_ike(&mut self) -> &mut Self {
        self.with_head(payload::DELETE, [protocol::IKE, 0, 0, 0], &[])
    }

    /// A delete of ESP SAs, at most 65,535.
    pub fn delete_esp(&mut self, spis: &[Spi]) -> &mut Self {
        let [high, low] = u16::try_from(spis.len()).unwrap_or(u16::MAX).to_be_bytes();
        self.payload(payload::DELETE, |out| {
            out.extend_from_slice(&[protocol::ESP, 4, high, low]);
            spis.iter().for_each(|spi| out.extend_from_slice(&spi.0.to_be_bytes()));
        })
    }

    /// Traffic selectors of the initiator's or the responder's side.
    pub fn selectors(&mut self, is_initiator: bool, selectors: &[TrafficSelector]) -> &mut Self {
        let kind = if is_initiator { payload::TS_I } else { payload::TS_R };
        self.payload(kind, |out| selector::encode(selectors, out))
    }

    /// A vendor ID.
    pub fn vendor(&mut self, id: &[u8]) -> &mut Self {
        self.payload(payload::VENDOR, |out| out.extend_from_slice(id))
    }

    fn with_head(&mut self, kind: u8, head: [u8; 4], data: &[u8]) -> &mut Self {
        self.payload(kind, |out| {
            out.extend_from_slice(&head);
            out.extend_from_slice(data);
        })
    }
}

/// A message that is not encrypted. The header's first payload and length are filled in.
pub fn message(header: Header, body: &Body) -> Vec<u8> {
    let length = u32::try_from(header::LEN + body.bytes.len()).unwrap_or(u32::MAX);
    let header = Header { next_payload: body.first, length, ..header };
    [&header.encode()[..], &body.bytes].concat()
}
