//! Strangers at an endpoint with two peers: whatever they send, whenever, they get no SA, and little is kept for them.
#![no_main]

use std::time::Duration;

use base::{Instant, Machine, Random};
use fuzz::Input;
use fuzz::peers::{OURS, THEIRS, shared, socket};
use ike::wire::header::{self, Header};
use ike::{Endpoint, Event, Options, Output, PeerId, Rekey, Transmit};
use libfuzzer_sys::fuzz_target;
use model::Version;
use sa::SaChange;

const HALF_OPEN: usize = 3;
const PEERS: [PeerId; 2] = [PeerId(1), PeerId(2)];

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let mut stranger = Stranger::new();
    // Longer inputs find nothing that shorter ones do not.
    for _ in 0..100 {
        if input.is_empty() {
            break;
        }
        stranger.step(&mut input);
        stranger.check();
    }
});

struct Stranger {
    endpoint: Endpoint,
    now: Instant,
    /// What the endpoint sent last, to be answered.
    heard: Option<Transmit>,
}

impl Stranger {
    fn new() -> Self {
        let options = Options { half_open_limit: HALF_OPEN, cookie_threshold: 2, ..Options::default() };
        let mut endpoint = Endpoint::new(options, Random::for_test(7));
        endpoint.upsert_peer(PEERS[0], shared(Version::V2, OURS, Some(THEIRS)), Instant::ZERO);
        endpoint.upsert_peer(PEERS[1], shared(Version::V1, OURS, None), Instant::ZERO);
        Self { endpoint, now: Instant::ZERO, heard: None }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let now = self.now;
        match input.byte() % 8 {
            0 => self.send(500, false, input.block()),
            1 => self.send(4500, true, input.block()),
            2 => self.send(4500, false, input.block()),
            3 => {
                let answer = self.answer(input);
                let natt = self.heard.as_ref().is_some_and(|heard| heard.local.port() == 4500);
                self.send(if natt { 4500 } else { 500 }, natt, &answer);
            }
            4 => self.sleep(Duration::from_millis(1 << (input.byte() % 24))),
            5 => {
                if let Some(deadline) = self.endpoint.poll_timeout() {
                    self.sleep(deadline.at - now);
                }
            }
            6 => self.endpoint.initiate(PEERS[0], None, now),
            _ => {
                let peer = PEERS[usize::from(input.byte() & 1)];
                match input.byte() % 5 {
                    0 => self.endpoint.terminate(peer, None, now),
                    1 => self.endpoint.rekey(peer, Rekey::Ike, now),
                    2 => self.endpoint.set_addresses(PEERS[1], None, Some(fuzz::peers::address(THEIRS)), now),
                    3 => self.endpoint.initiate(PEERS[1], None, now),
                    _ => self.endpoint.rekey(peer, Rekey::Children, now),
                }
            }
        }
    }

    /// A datagram to one of our ports, with the marker in front where it is wanted.
    fn send(&mut self, port: u16, has_marker: bool, message: &[u8]) {
        let marker: &[u8] = if has_marker { &[0; 4] } else { &[] };
        let remote = self.heard.as_ref().map_or(socket(THEIRS, port), |heard| heard.remote);
        self.endpoint.handle_datagram(socket(OURS, port), remote, &[marker, message].concat(), self.now);
    }

    /// A message in the place of an answer to what was heard last: SPIs, version, exchange and length are right.
    fn answer(&self, input: &mut Input<'_>) -> Vec<u8> {
        let (next_payload, exchange, flags, message_id) = (input.byte(), input.byte(), input.byte(), input.byte());
        let (spi, body) = (input.byte(), input.block());
        let heard = self.heard.as_ref().and_then(|heard| {
            let marker = if heard.local.port() == 4500 { 4 } else { 0 };
            Header::decode(heard.payload.get(marker..)?).ok()
        });
        let Some(heard) = heard else { return body.to_vec() };
        let header = Header {
            responder_spi: if heard.responder_spi == 0 { u64::from(spi) } else { heard.responder_spi },
            next_payload,
            exchange: if exchange == 0 { heard.exchange } else { exchange },
            flags,
            message_id: if message_id == 0 { heard.message_id } else { message_id.into() },
            length: (header::LEN + body.len()) as u32,
            ..heard
        };
        [&header.encode(), body].concat()
    }

    fn sleep(&mut self, time: Duration) {
        self.now += time;
        self.endpoint.handle_timeout(self.now);
    }

    fn check(&mut self) {
        let mut sent = 0;
        while let Some(output) = self.endpoint.poll_output() {
            match output {
                Output::Transmit(transmit) => {
                    assert!([500, 4500].contains(&transmit.local.port()) && transmit.payload.len() <= 4096);
                    sent += 1;
                    self.heard = Some(transmit);
                }
                Output::Sa(
                    SaChange::Install(_) | SaChange::Activate(_) | SaChange::Move { .. } | SaChange::Skip { .. },
                ) => {
                    panic!("a stranger got an SA")
                }
                Output::Sa(SaChange::Remove(_)) => {}
                Output::Event(
                    Event::IkeUp { .. }
                    | Event::ChildUp { .. }
                    | Event::PeerMoved { .. }
                    | Event::PeerDrains { .. }
                    | Event::DrainHeard { .. },
                ) => {
                    panic!("a stranger was let in")
                }
                Output::Event(_) | Output::Probed(_) => {}
            }
        }
        assert!(sent <= 8, "one input brought forth {sent} datagrams");
        assert!(self.endpoint.half_open() <= HALF_OPEN);
        // What we began, at most one of each peer and version, and what strangers began.
        assert!(self.endpoint.sas().len() <= HALF_OPEN + 2 * PEERS.len());
        assert!(self.endpoint.sas().iter().all(|sa| sa.established_at.is_none() && sa.children.is_empty()));
        for _ in 0..4 {
            match self.endpoint.poll_timeout() {
                Some(deadline) if deadline.at <= self.now => self.endpoint.handle_timeout(self.now),
                Some(_) | None => return,
            }
        }
        let deadline = self.endpoint.poll_timeout();
        assert!(deadline.is_none_or(|deadline| deadline.at > self.now), "it spins: {deadline:?} at {}", self.now);
    }
}
