//! Main mode with pre-shared keys (RFC 2409 §5.4), NAT traversal of RFC 3947 woven in.
//!
//! ```text
//! initiator                                    responder
//!   1  HDR, SA, VID                    -->
//!                                      <--     2  HDR, SA, VID
//!   3  HDR, KE, Ni, NAT-D, NAT-D       -->
//!                                      <--     4  HDR, KE, Nr, NAT-D, NAT-D
//!   5  HDR*, IDii, HASH_I [, N]        -->         (on port 4500 where there is a NAT)
//!                                      <--     6  HDR*, IDir, HASH_R
//! ```
//!
//! Nothing is authentic before messages 5 and 6. Until then a message that does not fit is dropped, and a
//! notification is at most a hint that is told when nothing better comes.

mod initiator;
mod responder;

use base::error::Malformed;

pub(super) use initiator::{AuthSent, KeSent, SaSent, begin};
pub(super) use responder::{KeAnswered, Refused, SaAnswered, refuse_first, respond};

use super::keys::{Iv, Keys};
use super::{Link, info};
use crate::context::Context;
use crate::event::DropReason;
use crate::wire::header::{self, Header};
use crate::wire::v1::{Chain, Notify, Padding, exchange, flag, notify, payload};

/// Why a message was not taken; it is counted so.
type Rejected = DropReason;

impl From<Malformed> for DropReason {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// The payloads of a message 1 to 4, which is in the clear.
fn clear<'a>(header: &Header, message: &'a [u8]) -> Result<Chain<'a>, Rejected> {
    if header.exchange != exchange::MAIN || header.message_id != 0 || header.flags & flag::ENCRYPTED != 0 {
        return Err(Rejected::OutOfOrder);
    }
    let body = message.get(header::LEN..).ok_or(Rejected::Malformed)?;
    Ok(Chain::decode(header.next_payload, body, Padding::Clear)?)
}

/// Public value and nonce of a message 3 or 4.
fn key_and_nonce<'a>(chain: &Chain<'a>) -> Result<(&'a [u8], &'a [u8]), Rejected> {
    let key = chain.first(payload::KEY_EXCHANGE).ok_or(Rejected::Malformed)?;
    let nonce = chain.first(payload::NONCE).filter(|nonce| super::keys::is_nonce(nonce)).ok_or(Rejected::Malformed)?;
    Ok((key, nonce))
}

/// Whether a message brings INITIAL_CONTACT.
fn has_initial_contact(chain: &Chain<'_>) -> bool {
    let mut notes = chain.all(payload::NOTIFY).filter_map(|body| Notify::decode(body).ok());
    notes.any(|note| note.kind == notify::INITIAL_CONTACT)
}

/// Tells an authenticated peer why it is refused.
fn refuse(link: &Link, keys: &Keys, last_block: &Iv, kind: u16, ctx: &mut Context<'_>) -> Vec<u8> {
    let cookies = link.cookies.bytes();
    let note = Notify { protocol: crate::wire::v1::protocol::ISAKMP, spi: &cookies, kind, data: &[] };
    info::sealed(link, keys, last_block, &[(payload::NOTIFY, note.encode())], ctx)
}
