//! Any bytes as an IKEv1 message: what is understood comes back from its own encoding.
#![no_main]

use ike::wire::header::{self, Header};
use ike::wire::v1::{self, Chain, Delete, Id, Notify, Padding, Payloads, SaPayload, payload};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let clear = v1::decode_all(bytes);
    let Ok(header) = Header::decode(bytes) else { return assert!(clear.is_err()) };
    assert_eq!(header.encode(), bytes[..header::LEN]);

    let body = &bytes[header::LEN..];
    let Ok(chain) = Chain::decode(header.next_payload, body, Padding::Encrypted) else {
        return assert!(clear.is_err());
    };
    if let Some((hash, covered)) = chain.hashed() {
        assert!(hash.len() + 4 + covered.len() <= body.len());
    }
    for payload in chain.payloads() {
        check(payload.kind, payload.body);
    }
    let again = chain.payloads().iter().fold(Payloads::new(), |all, payload| all.with(payload.kind, payload.body));
    assert_eq!(again.bytes(), &body[..again.bytes().len()]);
    let message = v1::encode(header, &again);
    let decoded = Header::decode(&message).expect("we made it");
    assert_eq!(Chain::decode(decoded.next_payload, &message[header::LEN..], Padding::Clear), Ok(chain));
});

/// The body of a payload is either refused or comes back as it was.
fn check(kind: u8, body: &[u8]) {
    match kind {
        payload::SA => {
            if let Ok(sa) = SaPayload::decode(body) {
                assert_eq!(SaPayload::decode(&sa.encode()), Ok(sa));
            }
        }
        payload::ID => {
            if let Ok(id) = Id::decode(body) {
                assert_eq!(id.encode(), body);
            }
        }
        payload::NOTIFY => {
            if let Ok(notify) = Notify::decode(body) {
                assert_eq!(Notify::decode(&notify.encode()), Ok(notify));
            }
        }
        payload::DELETE => {
            // We never send a delete of nothing, so that one has no encoding.
            if let Ok(delete) = Delete::decode(body)
                && !delete.spis.is_empty()
            {
                assert_eq!(Delete::decode(&delete.encode()), Ok(delete));
            }
        }
        _ => {}
    }
}
