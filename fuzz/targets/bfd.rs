//! Packets that arrive on the port of BFD, for three sessions: one that anybody may answer, a passive one, and one with a
//! key that nobody here has. Meanwhile time passes and a person changes intervals and holds sessions down.
//!
//! The one with the key hears nobody. No session is Up without a packet that knew its discriminator. What is sent is a
//! packet, never both asks and answers, and is no more than what arrived and the time that passed allow.
#![no_main]

use std::time::Duration;

use base::{Instant, Machine, Random, Secret};
use bfd::wire::Packet;
use bfd::{AuthKind, Authentication, Diagnostic, EventKind, Options, Output, PORT, Role, SessionConfig, SessionId};
use bfd::{Sessions, State, TTL};
use fuzz::Input;
use fuzz::peers::{address, socket};
use libfuzzer_sys::fuzz_target;

const OURS: &str = "169.254.10.1";
const THEIRS: [&str; 3] = ["169.254.10.2", "169.254.10.6", "169.254.10.10"];
const LOCKED: SessionId = SessionId(2);

fuzz_target!(|bytes: &[u8]| {
    check_decoding(bytes);
    let mut input = Input::new(bytes);
    let mut site = Site::new();
    // Longer inputs find nothing that shorter ones do not.
    for _ in 0..200 {
        if input.is_empty() {
            break;
        }
        site.step(&mut input);
        site.check();
    }
});

/// What is understood comes back from its own encoding, but for the authentication.
fn check_decoding(bytes: &[u8]) {
    let Ok(decoded) = Packet::decode(bytes) else { return };
    assert!(decoded.bytes.len() <= bytes.len() && decoded.bytes.len() >= bfd::wire::HEADER);
    if let Some(section) = decoded.section {
        assert_eq!(section.len(), decoded.bytes.len() - bfd::wire::HEADER);
    }
    let payload = decoded.packet.encode();
    let again = Packet::decode(payload.as_bytes()).expect("our own encoding is readable");
    assert_eq!((again.packet, again.section), (decoded.packet, None));
}

struct Site {
    sessions: Sessions,
    now: Instant,
    /// By session: whether a packet with its discriminator has arrived.
    is_known: [bool; 3],
    is_up: [bool; 3],
    /// Packets that may have been sent.
    allowed: u64,
    sent: u64,
}

fn config(index: usize) -> SessionConfig {
    let mut config = SessionConfig::new(address(OURS), address(THEIRS[index]));
    config.role = if index == 1 { Role::Passive } else { Role::Active };
    let key = Secret::from(&b"nobody has this key"[..]);
    let locked = Authentication { kind: AuthKind::KeyedSha1, key_id: 1, key };
    config.authentication = (index == 2).then_some(locked);
    config
}

impl Site {
    fn new() -> Self {
        let mut sessions = Sessions::new(Options::default(), Random::for_test(1));
        for index in 0..3 {
            sessions.upsert(SessionId(index as u32), config(index), Instant::ZERO).expect("it is a configuration");
        }
        Self { sessions, now: Instant::ZERO, is_known: [false; 3], is_up: [false; 3], allowed: 0, sent: 0 }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        // Each input says at most two packets and four more for what it changes.
        self.allowed += 6;
        let step = input.byte();
        let index = usize::from(step >> 4) % 3;
        let id = SessionId(index as u32);
        match step & 15 {
            0 => self.pass(Duration::from_millis(u64::from(input.word()))),
            1 => {
                let mut config = config(index);
                config.min_tx = Duration::from_millis(u64::from(input.word()));
                config.min_rx = Duration::from_millis(u64::from(input.word()));
                config.multiplier = input.byte();
                let _ = self.sessions.upsert(id, config, self.now);
            }
            2 => self.sessions.set_admin_down(id, Some(Diagnostic::ADMINISTRATIVELY_DOWN), self.now),
            3 => self.sessions.set_admin_down(id, None, self.now),
            4 => self.sessions.handle_port_taken(id, self.now),
            5 => {
                let len = usize::from(input.byte());
                let bytes = input.take(len);
                self.hear(index, TTL, bytes);
            }
            // A packet that may well be right.
            kind => {
                let mut bytes = [0; 24];
                let flags = input.byte();
                (bytes[0], bytes[1], bytes[2], bytes[3]) = (0x20, flags & 0xfa, input.byte().max(1), 24);
                bytes[7] = 1 + input.byte() % 2;
                if kind & 1 == 0 {
                    let ours = self.sessions.status(id).expect("it is never removed").local_discriminator;
                    bytes[8..12].copy_from_slice(&ours.get().to_be_bytes());
                }
                for at in [13, 17] {
                    let word = input.word();
                    bytes[at..at + 2].copy_from_slice(&word.to_be_bytes());
                }
                let ttl = if kind == 15 { input.byte() } else { TTL };
                self.hear(index, ttl, &bytes);
            }
        }
        self.drain();
    }

    fn hear(&mut self, index: usize, ttl: u8, bytes: &[u8]) {
        let ours = |id| self.sessions.status(SessionId(id)).map(|status| status.local_discriminator);
        if let Ok(decoded) = Packet::decode(bytes) {
            for id in 0..3 {
                let knows =
                    decoded.packet.your_discriminator.is_some() && decoded.packet.your_discriminator == ours(id);
                self.is_known[id as usize] |= knows && ttl == TTL;
            }
        }
        let before: u64 = self.sessions.statuses().map(|status| status.counters.discards.total()).sum();
        let before = before + self.sessions.discards().total();
        let verdict =
            self.sessions.handle_packet(socket(OURS, PORT), socket(THEIRS[index], 50_000), ttl, bytes, self.now);
        let after: u64 = self.sessions.statuses().map(|status| status.counters.discards.total()).sum();
        let after = after + self.sessions.discards().total();
        assert_eq!(after - before, u64::from(verdict.is_err()), "{verdict:?}");
        assert!(ttl == TTL || verdict.is_err());
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        for wakes in 0.. {
            let Some(deadline) = self.sessions.poll_timeout().filter(|deadline| deadline.at <= end) else { break };
            assert!(wakes < 100_000, "{deadline:?} spins");
            self.now = self.now.max(deadline.at);
            self.sessions.handle_timeout(self.now);
            self.drain();
            let again = self.sessions.poll_timeout();
            assert!(again.is_none_or(|deadline| deadline.at > self.now), "{again:?} is due still");
        }
        self.now = end;
        // Three sessions, 10 ms at least less a quarter, and one packet each that their states change by.
        self.allowed += 3 * (time.as_millis() as u64 / 7 + 2);
    }

    fn drain(&mut self) {
        while let Some(output) = self.sessions.poll_output() {
            match output {
                Output::Transmit(transmit) => {
                    self.sent += 1;
                    let packet = Packet::decode(transmit.payload.as_bytes()).expect("what we send is a packet");
                    assert!(!(packet.packet.poll && packet.packet.is_final) && !packet.packet.demand);
                    assert_eq!(packet.section.is_some(), transmit.session == LOCKED);
                    assert!(transmit.local.port() >= 49152 && transmit.remote.port() == PORT);
                    assert!(packet.packet.state == State::Up || packet.packet.desired_min_tx >= 1_000_000);
                }
                Output::Release { .. } => {}
                Output::Event(event) => {
                    let is_up = &mut self.is_up[event.session.0 as usize];
                    assert_ne!(*is_up, event.kind == EventKind::Up, "an event that is none");
                    *is_up = !*is_up;
                }
            }
        }
    }

    fn check(&self) {
        for (index, status) in self.sessions.statuses().enumerate() {
            assert_eq!(status.state == State::Up, self.is_up[index]);
            assert!(status.state != State::Up || self.is_known[index], "Up, and nobody knew its discriminator");
            assert!(status.session != LOCKED || status.counters.received == 0, "it heard somebody without a key");
            assert!(!matches!(status.state, State::Init | State::Up) || status.detection_time.is_some());
        }
        assert!(self.sent <= self.allowed, "{} packets where {} are enough", self.sent, self.allowed);
    }
}
