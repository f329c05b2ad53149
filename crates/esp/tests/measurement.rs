//! The data path without its encryption: a process of its own, for what it asks for cannot be taken back.
#![expect(clippy::unwrap_used, reason = "a panic in a test is the verdict")]

use base::algorithm::Encryption;
use base::{Instant, Secret};
use esp::{Content, Dropped, InboundSa, OutboundSa, measurement};
use model::{DfPolicy, Routing, Selector};
use packet::Tos;
use sa::{ChildKeys, ChildLabel, ChildSa, ChildSuite, DirectionKeys, Limits, Path, SaId, Spi};

fn child() -> ChildSa {
    let keys = || DirectionKeys { encryption: Secret::from(&[7; 20][..]), integrity: Secret::from(&[][..]) };
    let any = || vec![Selector::net("0.0.0.0/0".parse().unwrap()).into()];
    ChildSa {
        id: SaId(1),
        label: ChildLabel { connection: "alps".into(), child: "net".into() },
        inbound_spi: Spi(0x1000),
        outbound_spi: Spi(0x1000),
        suite: ChildSuite { encryption: Encryption::Aes128Gcm, integrity: None, esn: false },
        keys: ChildKeys { inbound: keys(), outbound: keys() },
        path: Path { local: "192.0.2.1:4500".parse().unwrap(), remote: "192.0.2.2:4500".parse().unwrap(), udp: true },
        local: any(),
        remote: any(),
        routing: Routing::Policy,
        limits: Limits::default(),
        replay_window: 64,
        df: DfPolicy::Honour,
        copy_dscp: true,
        mtu: None,
        mss: None,
    }
}

#[test]
fn only_who_asks_for_it_gets_packets_in_clear_and_with_the_same_lengths() {
    let now = Instant::ZERO;
    let inner = packet::build::udp("10.1.0.1:9".parse().unwrap(), "10.2.0.1:9".parse().unwrap(), b"in clear?").unwrap();
    let contains = |bytes: &[u8]| bytes.windows(inner.len()).any(|window| window == inner);
    let (mut sealed, mut open) = ([0; 200], [0; 200]);

    let encrypting = OutboundSa::new(&child()).unwrap();
    let mut decrypting = InboundSa::new(&child()).unwrap();
    let sealed_len = encrypting.seal(&inner, &mut sealed, now).unwrap().len;
    assert!(!contains(&sealed));

    measurement::without_encryption();
    let copying = OutboundSa::new(&child()).unwrap();
    let mut believing = InboundSa::new(&child()).unwrap();
    let open_len = copying.seal(&inner, &mut open, now).unwrap().len;
    assert!(contains(&open));
    assert_eq!(open_len, sealed_len);

    // An SA from before is as strict as ever, and those of now understand each other.
    assert_eq!(decrypting.open(&mut { open }[..open_len], Tos(0), now), Err(Dropped::BadIntegrity));
    let opened = believing.open(&mut open[..open_len], Tos(0), now).unwrap();
    let Content::Packet(range) = opened.content else { panic!("{opened:?}") };
    assert_eq!(open[range], inner);
    assert!(decrypting.open(&mut sealed[..sealed_len], Tos(0), now).is_ok());
}
