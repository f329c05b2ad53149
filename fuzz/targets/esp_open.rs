//! Packets that arrive on an SA: rubbish, packets of the peer that were changed, delayed or sent again, and authentic
//! packets with rubbish inside. What the peer sealed is passed on once; nothing else is, and nothing else moves a window.
#![no_main]

use std::collections::BTreeSet;

use base::Instant;
use base::algorithm::{Encryption, Integrity};
use crypto::aead::AeadKey;
use esp::{Content, InboundSa, OutboundSa};
use fuzz::Input;
use libfuzzer_sys::fuzz_target;
use model::{DfPolicy, Routing, Selector};
use packet::{Ip, Tos, build};
use sa::{ChildKeys, ChildLabel, ChildSa, ChildSuite, DirectionKeys, Limits, Path, SaId, Spi, TrafficSelector};

const SUITES: [(Encryption, Option<Integrity>, bool); 6] = [
    (Encryption::Aes128Gcm, None, false),
    (Encryption::Aes128Cbc, Some(Integrity::Sha1), false),
    (Encryption::Aes256Gcm, None, true),
    (Encryption::ChaCha20Poly1305, None, false),
    (Encryption::TripleDesCbc, Some(Integrity::Md5), false),
    (Encryption::Aes256Cbc, Some(Integrity::Sha256), true),
];

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let (encryption, integrity, esn) = SUITES[usize::from(input.byte()) % SUITES.len()];
    let child = child(ChildSuite { encryption, integrity, esn }, u32::from(input.byte()) * 8);
    let mut tunnel = Tunnel {
        inbound: InboundSa::new(&child).expect("it is usable"),
        outbound: OutboundSa::new(&child).expect("it is usable"),
        forged: 0,
        sent: Vec::new(),
        delivered: BTreeSet::new(),
        child,
    };
    while !input.is_empty() {
        match input.byte() % 5 {
            0 => tunnel.send(&mut input),
            1 => tunnel.deliver(usize::from(input.byte())),
            2 => tunnel.change(&mut input),
            3 => tunnel.invent(input.block()),
            _ => tunnel.rubbish_inside(&mut input),
        }
    }
    // Whatever came, the peer's next packet is passed on.
    if tunnel.forged == 0 {
        tunnel.send(&mut Input::new(&[]));
        tunnel.deliver(usize::MAX);
        assert!(tunnel.delivered.contains(&(tunnel.sent.len() - 1)));
    }
});

struct Tunnel {
    child: ChildSa,
    inbound: InboundSa,
    outbound: OutboundSa,
    /// Packets that were made with the key but not by the outbound SA.
    forged: usize,
    /// Each packet that was sealed, and what was inside.
    sent: Vec<(Vec<u8>, Vec<u8>)>,
    delivered: BTreeSet<usize>,
}

impl Tunnel {
    /// The peer seals a packet.
    fn send(&mut self, input: &mut Input<'_>) {
        let kind = input.byte();
        let payload = input.take(usize::from(kind >> 1));
        let (a, b) = if kind & 1 == 0 { ("10.0.0.1:1", "10.0.0.2:2") } else { ("[fd00::1]:1", "[fd00::2]:2") };
        let socket = |text: &str| text.parse().expect("it is an address");
        let inner = build::udp(socket(a), socket(b), payload).expect("it is short");
        let mut out = [0; 400];
        let sealed = self.outbound.seal(&inner, &mut out, Instant::ZERO).expect("it fits");
        self.sent.push((out[..sealed.len].to_vec(), inner));
    }

    /// One of the peer's packets arrives, perhaps again, perhaps late.
    fn deliver(&mut self, which: usize) {
        if self.sent.is_empty() {
            return;
        }
        let which = which.min(self.sent.len() - 1);
        let (sealed, inner) = &self.sent[which];
        let mut buffer = sealed.clone();
        let before = self.inbound.counters().packets;
        match self.inbound.open(&mut buffer, Tos(0), Instant::ZERO) {
            Ok(opened) => {
                let Content::Packet(range) = opened.content else { panic!("unusable: {:?}", opened.content) };
                assert_eq!(buffer[range], **inner);
                assert!(self.delivered.insert(which), "passed on twice");
                assert_eq!(self.inbound.counters().packets, before + 1);
            }
            Err(_) => {
                let window = self.child.replay_window.max(64) as usize;
                let is_late = self.delivered.last().is_some_and(|last| which + window <= *last);
                let excused = self.forged > 0 || is_late || self.delivered.contains(&which);
                assert!(excused, "packet {which} was dropped");
                assert_eq!(self.inbound.counters().packets, before);
            }
        }
    }

    /// One of the peer's packets arrives with other bits, or cut, or longer.
    fn change(&mut self, input: &mut Input<'_>) {
        let Some((sealed, _)) = self.sent.get(usize::from(input.byte()) % self.sent.len().max(1)) else { return };
        let mut packet = sealed.clone();
        let (at, how) = (usize::from(input.word()) % packet.len(), input.byte());
        match how & 3 {
            0 => packet.truncate(at),
            1 => packet.extend(input.take(usize::from(how >> 2))),
            _ => packet[at] ^= how | 1,
        }
        if packet != *sealed {
            self.must_fail(packet);
        }
    }

    /// Bytes arrive that the peer did not send; those behind the first may pretend to be of this SA.
    fn invent(&mut self, bytes: &[u8]) {
        let mut packet = bytes.to_vec();
        if packet.len() > 4 && packet[0] & 1 != 0 {
            packet[..4].copy_from_slice(&self.child.inbound_spi.0.to_be_bytes());
        }
        if self.sent.iter().all(|(sealed, _)| *sealed != packet) {
            self.must_fail(packet);
        }
    }

    fn must_fail(&mut self, mut packet: Vec<u8>) {
        let (passed, used) = (self.inbound.counters().packets, self.inbound.last_used());
        assert!(self.inbound.open(&mut packet, Tos(0), Instant::FAR_FUTURE).is_err(), "a forged packet was opened");
        assert_eq!((self.inbound.counters().packets, self.inbound.last_used()), (passed, used));
    }

    /// The peer has the keys, and seals what is no packet.
    fn rubbish_inside(&mut self, input: &mut Input<'_>) {
        let (sequence, ecn, mut plain) = (u32::from(input.word()), Tos(input.byte() & 3), input.block().to_vec());
        let suite = self.child.suite;
        if !suite.encryption.is_aead() || suite.esn || plain.len() < 2 {
            return;
        }
        if plain[0] & 0x80 != 0 {
            // A trailer that fits, for rubbish rarely has one.
            plain[0] = if plain[0] & 1 == 0 { 0x45 } else { 0x60 };
            let next_header = if plain[0] == 0x45 { 4 } else { 41 };
            plain.extend([0, next_header]);
        }
        let key = AeadKey::new(suite.encryption, self.child.keys.inbound.encryption.expose()).expect("it fits");
        let mut packet = self.child.inbound_spi.0.to_be_bytes().to_vec();
        packet.extend(sequence.to_be_bytes());
        let iv = u64::from(sequence).to_be_bytes();
        let tag = key.seal(iv, &packet.clone(), &mut plain);
        packet.extend(iv);
        packet.extend(plain);
        packet.extend(tag);
        self.forged += 1;
        let Ok(opened) = self.inbound.open(&mut packet, ecn, Instant::ZERO) else { return };
        if let Content::Packet(range) = opened.content {
            let ip = Ip::parse(&packet[range.clone()]).expect("what is passed on is a packet");
            assert_eq!(ip.bytes().len(), range.len());
            let covered = |list: &[TrafficSelector], ip| list.iter().any(|s| (s.first..=s.last).contains(&ip));
            assert!(covered(&self.child.remote, ip.source()) && covered(&self.child.local, ip.destination()));
        }
    }
}

fn child(suite: ChildSuite, replay_window: u32) -> ChildSa {
    let keys = || DirectionKeys {
        encryption: vec![7; suite.encryption.key_len() + suite.encryption.salt_len()].into(),
        integrity: vec![9; suite.integrity.map_or(0, Integrity::key_len)].into(),
    };
    let nets = |texts: [&str; 2]| texts.map(|text| Selector::net(text.parse().expect("it is a net")).into()).to_vec();
    let socket = |text: &str| text.parse().expect("it is an address");
    ChildSa {
        id: SaId(1),
        label: ChildLabel { connection: "fuzz".into(), child: "fuzz".into() },
        inbound_spi: Spi(0x1000),
        outbound_spi: Spi(0x1000),
        suite,
        keys: ChildKeys { inbound: keys(), outbound: keys() },
        path: Path { local: socket("192.0.2.1:4500"), remote: socket("192.0.2.2:4500"), udp: true },
        local: nets(["10.0.0.0/8", "fd00::/16"]),
        remote: nets(["10.0.0.0/9", "fd00::/17"]),
        routing: Routing::Policy,
        limits: Limits::default(),
        replay_window,
        df: DfPolicy::Honour,
        copy_dscp: true,
        mtu: None,
        mss: None,
    }
}
