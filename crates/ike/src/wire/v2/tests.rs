//! Whatever goes into a message comes out of it, and whatever comes in is refused or read, never worse.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn transform() -> impl Strategy<Value = Transform> {
    (1u8..=5, any::<u16>(), proptest::option::of(any::<u16>())).prop_map(|(k, id, bits)| Transform::new(k, id, bits))
}

fn selector_v4() -> impl Strategy<Value = TrafficSelector> {
    (any::<[u32; 2]>(), any::<u8>(), any::<[u16; 2]>()).prop_map(|(mut ips, protocol, mut ports)| {
        ips.sort_unstable();
        ports.sort_unstable();
        let [first, last] = ips.map(|ip| IpAddr::from(ip.to_be_bytes()));
        TrafficSelector { first, last, protocol, ports: (ports[0], ports[1]) }
    })
}

use std::net::IpAddr;

fn header_of(first: u8) -> Header {
    Header {
        initiator_spi: 1,
        responder_spi: 2,
        next_payload: first,
        major: 2,
        minor: 0,
        exchange: exchange::SA_INIT,
        flags: flags::INITIATOR,
        message_id: 0,
        length: 0,
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        proposals in vec((any::<u8>(), any::<u8>(), vec(any::<u8>(), 0..9), vec(transform(), 1..9)), 1..5),
        nonce in vec(any::<u8>(), 16..=256),
        value in vec(any::<u8>(), 0..64),
        notifies in vec((any::<u16>(), vec(any::<u8>(), 0..20)), 0..5),
        selectors in vec(selector_v4(), 0..9),
        spis in vec(any::<u32>(), 0..9),
    ) {
        let proposals: Vec<_> = proposals
            .iter()
            .map(|(number, protocol, spi, transforms)| Proposal {
                number: *number, protocol: *protocol, spi, transforms: transforms.clone(),
            })
            .collect();
        let spis: Vec<_> = spis.into_iter().map(sa::Spi).collect();
        let mut body = Body::new();
        body.sa(&proposals).ke(19, &value).nonce(&nonce).id(true, &[2, 0, 0, 0, b'a']).id(false, &[1, 0, 0, 0, 1, 2, 3, 4]);
        body.auth(AUTH_SHARED_KEY, &value).selectors(true, &selectors).selectors(false, &selectors);
        notifies.iter().for_each(|(kind, data)| { body.notify(NotifyType(*kind), data); });
        body.delete_esp(&spis).delete_ike().notify_esp(NotifyType::REKEY_SA, sa::Spi(7)).vendor(b"simplon");

        let bytes = message(header_of(0), &body);
        let (header, decoded) = decode(&bytes).unwrap();
        prop_assert_eq!(header.next_payload, payload::SA);
        prop_assert_eq!(decoded.sa.unwrap(), proposals);
        prop_assert_eq!(decoded.ke.unwrap(), KeyExchange { group: 19, value: &value });
        prop_assert_eq!(decoded.nonce.unwrap(), &nonce[..]);
        prop_assert_eq!(decoded.id_i.unwrap().data, b"a");
        prop_assert_eq!(decoded.id_r.unwrap().kind, 1);
        prop_assert_eq!(decoded.auth.unwrap(), Auth { method: 2, data: &value });
        prop_assert_eq!(decoded.ts_i.unwrap(), selectors.clone());
        prop_assert_eq!(decoded.ts_r.unwrap(), selectors);
        prop_assert_eq!(decoded.deletes[0].esp_spis().collect::<Vec<_>>(), spis);
        prop_assert_eq!(decoded.deletes[1].protocol, protocol::IKE);
        let said: Vec<_> = decoded.notifies.iter().map(|n| (n.kind.0, n.data.to_vec())).collect();
        prop_assert_eq!(&said[..notifies.len()], &notifies[..]);
        prop_assert_eq!(decoded.notifies.last().unwrap().spi, &[0, 0, 0, 7]);
        prop_assert_eq!(decoded.vendors, vec![b"simplon"]);
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(first in any::<u8>(), bytes in vec(any::<u8>(), 0..400)) {
        let _ = Message::decode(first, &bytes);
        let _ = decode(&bytes);
    }

    #[test]
    fn no_damage_to_a_message_makes_the_decoder_panic(at in any::<prop::sample::Index>(), with in any::<u8>()) {
        let mut body = Body::new();
        let transforms = vec![Transform::new(kind::ENCR, 12, Some(128)), Transform::new(kind::DH, 19, None)];
        body.sa(&[Proposal { number: 1, protocol: 1, spi: &[], transforms }]).nonce(&[7; 16]);
        body.notify(NotifyType::COOKIE, &[1]).selectors(true, &[]).delete_esp(&[sa::Spi(1)]);
        let mut bytes = body.as_bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = with;
        let _ = Message::decode(payload::SA, &bytes);
        let _ = Message::decode(payload::SA, &bytes[..at]);
    }
}

#[test]
fn an_unknown_payload_is_skipped_and_a_critical_one_is_named() {
    let chain = |critical| [200, critical, 0, 5, 1, 0, 0x80, 0, 5, 2];
    let message = |critical| Message::decode(199, &chain(critical)).unwrap().unknown_critical;
    assert_eq!(message(0), Some(200));
    assert_eq!(message(0x80), Some(199));
    // RFC 7296 §2.5: the critical bit of a payload that is known means nothing.
    assert_eq!(Message::decode(payload::VENDOR, &[0, 0x80, 0, 4]).unwrap().unknown_critical, None);
}

#[test]
fn a_payload_that_may_stand_once_is_refused_twice() {
    let mut body = Body::new();
    body.nonce(&[1; 16]).nonce(&[2; 16]);
    assert!(Message::decode(body.first(), body.as_bytes()).is_err());
}

#[test]
fn an_endless_chain_ends() {
    let bytes: Vec<u8> = [payload::VENDOR, 0, 0, 4].repeat(10_000);
    assert_eq!(Message::decode(payload::VENDOR, &bytes), Err(Malformed::BadField("number of payloads")));
    assert_eq!(Chain::new(payload::VENDOR, &[payload::VENDOR, 0, 0, 0]).count(), 1);
}

#[test]
fn a_transform_with_an_unknown_attribute_cannot_be_chosen() {
    let encr = [0, 0, 0, 20, 1, 0, 0, 12, 0x80, 14, 0, 128, 0, 99, 0, 4, 1, 2, 3, 4];
    let bytes = [&[0, 0, 0, 28, 1, 1, 0, 1][..], &encr].concat();
    let proposals = proposal::decode(&bytes).unwrap();
    assert!(proposals[0].transforms[0].is_odd);
    assert_eq!(proposals[0].of(kind::ENCR).count(), 0);
}
