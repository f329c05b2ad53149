//! A whole gateway with its data path, and strangers at it, while a person gives commands and changes the configuration.
//!
//! They get no SA; what belongs into a tunnel never passes without one; the data path can carry out every change; and
//! no key is in what is told or shown.
#![no_main]

use std::time::Duration;

use base::{Instant, Machine, Random, Secret};
use esp::DataPath;
use esp::wire::{Encapsulated, classify};
use fuzz::peers::{OURS, THEIRS, address, connection, socket};
use fuzz::{Input, MARK};
use gateway::{Command, Gateway, Output, PolicyChange, RekeyWhat};
use ike::Transmit;
use libfuzzer_sys::fuzz_target;
use model::{Config, Connection, GatewayOptions, Start, Version};
use packet::{Tos, build};
use sa::SaChange;

const HALF_OPEN: usize = 3;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let mut site = Site::new();
    // Longer inputs find nothing that shorter ones do not.
    for _ in 0..100 {
        if input.is_empty() {
            break;
        }
        site.step(&mut input);
        site.check();
    }
    let shown = format!("{:?}", site.gateway.status(site.now));
    assert!(!shown.contains(MARK), "a key is shown: {shown}");
});

struct Site {
    gateway: Gateway,
    data: DataPath,
    now: Instant,
    /// What the gateway sent last, to be answered.
    heard: Option<Transmit>,
}

impl Site {
    fn new() -> Self {
        let mut site = Self {
            gateway: Gateway::new(options(), Random::for_test(7)),
            data: DataPath::new(),
            now: Instant::ZERO,
            heard: None,
        };
        site.apply(0);
        site.check();
        site
    }

    /// Loads a configuration; the bits of `kind` say which.
    fn apply(&mut self, kind: u8) {
        let named = |version, remote, name: &str, net: u8| {
            let mut connection: Connection = connection(version, OURS, remote);
            connection.name = name.to_owned();
            connection.psk = vec![Secret::from(MARK.as_bytes())];
            connection.children[0].remote[0].net = format!("10.{net}.0.0/16").parse().expect("it is a net");
            if kind & 2 != 0 {
                connection.children[0].start = Start::AtOnce;
            }
            connection
        };
        let mut connections = vec![named(Version::V2, Some(THEIRS), "two", 60)];
        if kind & 1 == 0 {
            connections.push(named(Version::V1, None, "one", 61));
        }
        if kind & 4 != 0 {
            connections[0].dpd = None;
        }
        self.gateway.apply(Config { gateway: options(), connections, ..Config::default() }, self.now);
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % 9 {
            0 => self.receive(500, input.block()),
            1 => self.receive(4500, &[&[0; 4], input.block()].concat()),
            2 => self.receive(4500, input.block()),
            3 => self.answer(input),
            4 => self.sleep(Duration::from_millis(1 << (input.byte() % 24))),
            5 => {
                if let Some(deadline) = self.gateway.poll_timeout() {
                    self.sleep(deadline.at - self.now);
                }
            }
            6 => self.apply(input.byte()),
            7 => self.command(input.byte()),
            _ => self.traffic(input.byte()),
        }
    }

    fn command(&mut self, which: u8) {
        let target = ["one", "two", "two/net", "three"][usize::from(which & 3)].to_owned();
        let command = match which >> 2 & 3 {
            0 => Command::Up(target),
            1 => Command::Down(target),
            2 => Command::Rekey { target, what: RekeyWhat::Ike },
            _ => Command::Rekey { target, what: RekeyWhat::Children },
        };
        let outcome = self.gateway.command(command, self.now);
        assert!(outcome.is_ok() || which & 3 != 2 || which >> 2 & 3 > 1, "{outcome:?}");
    }

    /// A packet that belongs into a tunnel, and the answer to it in clear.
    fn traffic(&mut self, which: u8) {
        let (from, to) = (socket("10.50.0.9", 7), socket(if which & 1 == 0 { "10.60.0.9" } else { "10.61.0.9" }, 9));
        let mut packet = build::udp(from, to, b"x").expect("it is short");
        let answer = build::udp(to, from, b"x").expect("it is short");
        if which & 1 == 0 {
            assert!(self.data.outbounds.must_be_encrypted(&answer), "a packet would be accepted in clear");
        }
        let out = |outgoing: esp::Outgoing<'_>| match outgoing {
            // Its sender may hear that there is no SA.
            esp::Outgoing::Reply(_) => {}
            esp::Outgoing::Datagram { .. } => panic!("it went somewhere"),
        };
        let sent = self.data.outbounds.send(esp::Via::Policy, &mut packet, out, self.now);
        assert!(sent.is_err());
    }

    /// A message with the SPIs, version and message ID of what was heard last.
    fn answer(&mut self, input: &mut Input<'_>) {
        let (next_payload, exchange, flags, spi) = (input.byte(), input.byte(), input.byte(), input.byte());
        let body = input.block();
        let Some(heard) = &self.heard else { return };
        let (port, header_at) = (heard.local.port(), if heard.local.port() == 4500 { 4 } else { 0 });
        let Some(start) = heard.payload.get(..header_at + 28) else { return };
        let mut message = [start, body].concat();
        let header = &mut message[header_at..];
        let len = header.len() as u32;
        if header[8..16] == [0; 8] {
            header[15] = spi;
        }
        (header[16], header[19]) = (next_payload, flags);
        if exchange != 0 {
            header[18] = exchange;
        }
        header[24..28].copy_from_slice(&len.to_be_bytes());
        self.receive(port, &message);
    }

    fn receive(&mut self, port: u16, datagram: &[u8]) {
        let remote = self.heard.as_ref().map_or(socket(THEIRS, port), |heard| heard.remote);
        if port == 4500 && classify(datagram) == Encapsulated::Esp {
            let opened = self.data.inbounds.open(&mut datagram.to_vec(), Some(remote), Tos(0), self.now);
            assert!(opened.is_err(), "a stranger's packet was let in");
        } else if classify(datagram) != Encapsulated::Keepalive {
            self.gateway.handle_datagram(socket(OURS, port), remote, datagram, self.now);
        }
    }

    fn sleep(&mut self, time: Duration) {
        self.now += time;
        self.gateway.handle_timeout(self.now);
    }

    fn check(&mut self) {
        loop {
            while let Some(output) = self.gateway.poll_output() {
                self.carry_out(output);
            }
            let Some(event) = self.data.poll_event() else { break };
            self.gateway.handle_esp_event(event, self.now);
        }
        for _ in 0..4 {
            match self.gateway.poll_timeout() {
                Some(deadline) if deadline.at <= self.now => self.gateway.handle_timeout(self.now),
                Some(_) | None => return,
            }
        }
        let deadline = self.gateway.poll_timeout();
        assert!(deadline.is_none_or(|deadline| deadline.at > self.now), "it spins: {deadline:?} at {}", self.now);
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Transmit(transmit) => self.heard = Some(transmit),
            Output::Sa(change @ SaChange::Remove(_)) => self.data.apply(&change).expect("it was installed"),
            Output::Sa(change) => panic!("a stranger got an SA: {change:?}"),
            Output::OuterMtu { id, mtu } => self.data.set_outer_mtu(id, mtu.into()).expect("it is there"),
            Output::Policy(PolicyChange::Install(policy)) => self.data.set_policy(policy).expect("it is usable"),
            Output::Policy(PolicyChange::Remove(label)) => self.data.remove_policy(&label),
            Output::Device(_) | Output::Route(_) | Output::Learnt(_) | Output::Socket(_) => {}
            Output::Event(event) => assert!(!event.text.contains(MARK), "a key is told: {}", event.text),
        }
    }
}

fn options() -> GatewayOptions {
    GatewayOptions {
        listen: vec![address(OURS)],
        half_open_limit: HALF_OPEN as u32,
        cookie_threshold: 2,
        ..GatewayOptions::default()
    }
}
