//! Any bytes as an IKEv2 message: what is understood comes back from its own encoding.
#![no_main]

use ike::wire::header::{self, Header};
use ike::wire::v2::{Body, Message, Notify, decode, message, payload, protocol};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok((header, decoded)) = decode(bytes) else { return };
    assert_eq!(header.encode(), bytes[..header::LEN]);
    let Some(body) = rebuilt(&decoded) else { return };
    let again = message(header, &body);
    let (header_again, decoded_again) = decode(&again).expect("we made it");
    assert_eq!(Header { next_payload: body.first(), length: header_again.length, ..header }, header_again);
    // What nobody knows is not sent back.
    assert_eq!(decoded_again, Message { unknown_critical: None, ..decoded });
});

/// The same message in our own order; `None` where it says what we never say.
fn rebuilt(message: &Message<'_>) -> Option<Body> {
    let mut body = Body::new();
    if let Some(proposals) = &message.sa {
        if proposals.iter().flat_map(|proposal| &proposal.transforms).any(|transform| transform.is_odd) {
            return None;
        }
        body.sa(proposals);
    }
    if let Some(ke) = message.ke {
        body.ke(ke.group, ke.value);
    }
    for (is_initiator, id) in [(true, message.id_i), (false, message.id_r)] {
        if let Some(id) = id {
            body.id(is_initiator, id.body);
        }
    }
    if let Some(auth) = message.auth {
        body.auth(auth.method, auth.data);
    }
    if let Some(nonce) = message.nonce {
        body.nonce(nonce);
    }
    for notify in &message.notifies {
        body.payload(payload::NOTIFY, |out| write_notify(notify, out));
    }
    for delete in &message.deletes {
        match delete.protocol {
            protocol::IKE => body.delete_ike(),
            protocol::ESP => body.delete_esp(&delete.esp_spis().collect::<Vec<_>>()),
            _ => return None,
        };
    }
    for vendor in &message.vendors {
        body.vendor(vendor);
    }
    for (is_initiator, selectors) in [(true, &message.ts_i), (false, &message.ts_r)] {
        if let Some(selectors) = selectors {
            body.selectors(is_initiator, selectors);
        }
    }
    if message.has_eap {
        body.payload(payload::EAP, |_| {});
    }
    if message.has_configuration {
        body.payload(payload::CP, |_| {});
    }
    Some(body)
}

fn write_notify(notify: &Notify<'_>, out: &mut Vec<u8>) {
    out.push(notify.protocol);
    out.push(u8::try_from(notify.spi.len()).expect("its length was a byte"));
    out.extend(notify.kind.0.to_be_bytes());
    out.extend(notify.spi);
    out.extend(notify.data);
}
