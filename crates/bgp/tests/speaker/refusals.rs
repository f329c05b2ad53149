//! Neighbours that do not fit: each gets its NOTIFICATION, and a person a sentence that names what to change.

use std::net::SocketAddr;
use std::time::Duration;

use base::{Instant, Machine, Random};
use bgp::session::State;
use bgp::speaker::{BgpEvent, EventKind, NeighborError, NeighborStatus};
use bgp::wire::{
    Capabilities, Code, MessageKind, Notification, Open, cease, header_error, open_error, split, write_keepalive,
};
use bgp::{ConnectionId, Families, Neighbor, NeighborId, Output, Speaker};

use super::net::{Net, SECOND, address, asn, neighbor, options};

/// One speaker, and a neighbour that the test plays.
pub(crate) struct Lone {
    pub(crate) speaker: Speaker,
    pub(crate) now: Instant,
    pub(crate) events: Vec<BgpEvent>,
    pub(crate) sent: Vec<(ConnectionId, Vec<u8>)>,
    pub(crate) closed: Vec<ConnectionId>,
    pub(crate) dialled: Vec<ConnectionId>,
}

impl Lone {
    pub(crate) fn with(neighbor: Neighbor) -> Self {
        let speaker = Speaker::new(options(0), Random::for_test(1), Instant::ZERO);
        let (events, sent, closed, dialled) = (vec![], vec![], vec![], vec![]);
        let mut lone = Self { speaker, now: Instant::ZERO, events, sent, closed, dialled };
        lone.speaker.upsert_neighbor(NeighborId(1), neighbor, lone.now).unwrap();
        lone.drain();
        lone
    }

    /// A neighbour that must come by itself.
    pub(crate) fn passive() -> Self {
        let mut lone = Self::with(Neighbor { passive: true, ..neighbor(1) });
        lone.wait(Duration::ZERO);
        lone
    }

    pub(crate) fn drain(&mut self) {
        while let Some(output) = self.speaker.poll_output() {
            match output {
                Output::Send { connection, bytes } => self.sent.push((connection, bytes)),
                Output::Close { connection } => self.closed.push(connection),
                Output::Connect { connection, .. } => self.dialled.push(connection),
                Output::Event(event) => self.events.push(event),
                Output::Listen { .. } | Output::Unlisten { .. } | Output::Route(_) => {}
            }
        }
    }

    pub(crate) fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(deadline) = self.speaker.poll_timeout().filter(|deadline| deadline.at <= end) {
            self.now = self.now.max(deadline.at);
            self.speaker.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
    }

    pub(crate) fn accept(&mut self) -> Option<ConnectionId> {
        let (local, remote) = (SocketAddr::new(address(0), 179), SocketAddr::new(address(1), 40_000));
        let id = self.speaker.handle_accepted(local, remote, self.now);
        self.drain();
        id
    }

    pub(crate) fn hear(&mut self, id: ConnectionId, bytes: &[u8]) {
        self.speaker.handle_bytes(id, bytes, self.now);
        self.drain();
    }

    /// Brings a session up on a new connection of the neighbour's.
    pub(crate) fn establish(&mut self, open: &Open) -> ConnectionId {
        let id = self.accept().unwrap();
        self.hear(id, &encode(open));
        self.hear(id, &keepalive());
        assert_eq!(self.state(), State::Established, "{:?}", self.events);
        id
    }

    pub(crate) fn status(&self) -> NeighborStatus {
        self.speaker.neighbor(NeighborId(1), self.now).unwrap()
    }

    pub(crate) fn state(&self) -> State {
        self.status().state
    }

    /// The NOTIFICATION that went out last on a connection.
    pub(crate) fn notification(&self, id: ConnectionId) -> Option<Notification> {
        let last = self.sent.iter().rev().find(|(connection, _)| *connection == id)?;
        let (message, _) = split(&last.1).unwrap().unwrap();
        (message.kind == MessageKind::Notification).then(|| Notification::decode(message.body).unwrap())
    }

    pub(crate) fn told(&self, kind: EventKind) -> Vec<&str> {
        self.events.iter().filter(|event| event.kind == kind).map(|event| event.sentence.as_str()).collect()
    }
}

/// What host 1 says when all is well.
pub(crate) fn open() -> Open {
    let capabilities = Capabilities {
        families: Some(Families::IPV4),
        route_refresh: true,
        four_octet_as: true,
        ..Capabilities::default()
    };
    Open { asn: asn(1), hold_time: 90, router_id: [10, 0, 0, 2].into(), capabilities }
}

pub(crate) fn encode(open: &Open) -> Vec<u8> {
    let mut bytes = Vec::new();
    open.write(&mut bytes);
    bytes
}

pub(crate) fn keepalive() -> Vec<u8> {
    let mut bytes = Vec::new();
    write_keepalive(&mut bytes);
    bytes
}

#[test]
fn an_open_that_does_not_fit_gets_its_number_and_a_sentence() {
    let mut families = open();
    families.capabilities.families = Some(Families::IPV6);
    let cases: [(Open, u8, &[&str]); 5] = [
        (
            Open { asn: 65009, ..open() },
            open_error::BAD_PEER_AS,
            &["its AS is 65009", "65002 was expected", "the neighbour's as"],
        ),
        (Open { router_id: [0; 4].into(), ..open() }, open_error::BAD_ROUTER_ID, &["0.0.0.0", "router-id"]),
        (Open { hold_time: 1, ..open() }, open_error::HOLD_TIME, &["1 s", "at least 3 s", "longer hold time"]),
        (Open { hold_time: 2, ..open() }, open_error::HOLD_TIME, &["2 s"]),
        (families, open_error::CAPABILITY, &["IPv6 unicast alone", "IPv4 unicast alone", "families"]),
    ];
    for (open, subcode, words) in cases {
        let mut lone = Lone::passive();
        let id = lone.accept().unwrap();
        lone.hear(id, &encode(&open));
        let notification = lone.notification(id).unwrap();
        assert_eq!((notification.code, notification.subcode), (Code::OPEN, subcode));
        assert_eq!((lone.closed.last(), lone.state()), (Some(&id), State::Idle));
        let told = lone.told(EventKind::Refused);
        assert_eq!(told.len(), 1);
        for word in words.iter().chain(&["neighbour h1 (169.254.10.2)"]) {
            assert!(told[0].contains(word), "{word}: {}", told[0]);
        }
        assert_eq!(lone.status().last_error.unwrap().at, lone.now);
    }
}

#[test]
fn an_open_that_cannot_be_read_gets_its_number() {
    let of = |change: fn(&mut Vec<u8>)| {
        let mut bytes = encode(&open());
        change(&mut bytes);
        let mut lone = Lone::passive();
        let id = lone.accept().unwrap();
        lone.hear(id, &bytes);
        let notification = lone.notification(id).unwrap();
        (notification.code.0, notification.subcode, notification.data)
    };
    assert_eq!(of(|bytes| bytes[19] = 3), (2, open_error::VERSION, vec![0, 4]));
    assert_eq!(of(|bytes| bytes[29] = 7), (2, open_error::OPTIONAL_PARAMETER, vec![]));
    assert_eq!(of(|bytes| bytes[30] = 200), (2, open_error::UNSPECIFIC, vec![]));
    assert_eq!(of(|bytes| bytes[0] = 0), (1, header_error::NOT_SYNCHRONIZED, vec![]));
    assert_eq!(of(|bytes| bytes[16] = 0xFF), (1, header_error::BAD_LENGTH, vec![0xFF, 43 + 2]));
    assert_eq!(of(|bytes| bytes[18] = 9), (1, header_error::BAD_TYPE, vec![9]));
}

#[test]
fn messages_out_of_turn_are_errors_of_the_state_machine() {
    let mut refresh = vec![0xFF; 16];
    refresh.extend([0, 23, 5, 0, 1, 0, 1]);
    let mut update = vec![0xFF; 16];
    update.extend([0, 23, 2, 0, 0, 0, 0]);
    // RFC 6608 §3, with the type of the message.
    for (message, kind) in [(keepalive(), 4), (update.clone(), 2), (refresh.clone(), 5)] {
        let mut lone = Lone::passive();
        let id = lone.accept().unwrap();
        lone.hear(id, &message);
        assert_eq!(lone.notification(id), Some(Notification::new(Code::STATE_MACHINE, 1, &[kind])));
    }
    for (message, kind) in [(encode(&open()), 1), (update, 2), (refresh, 5)] {
        let mut lone = Lone::passive();
        let id = lone.accept().unwrap();
        lone.hear(id, &encode(&open()));
        assert_eq!(lone.state(), State::OpenConfirm);
        lone.hear(id, &message);
        assert_eq!(lone.notification(id), Some(Notification::new(Code::STATE_MACHINE, 2, &[kind])));
    }
    let mut lone = Lone::passive();
    let id = lone.establish(&open());
    lone.hear(id, &encode(&open()));
    assert_eq!(lone.notification(id), Some(Notification::new(Code::STATE_MACHINE, 3, &[1])));
}

#[test]
fn a_neighbour_that_never_speaks_is_given_up_and_blocks_nobody() {
    let mut lone = Lone::with(neighbor(1));
    let silent = lone.accept();
    assert_eq!(silent, None, "nothing was begun yet");
    lone.wait(Duration::ZERO);
    let silent = lone.accept().unwrap();
    lone.wait(30 * SECOND);
    assert!(lone.dialled.len() > 3, "it goes on connecting: {:?}", lone.dialled);
    // Another one takes the place of the silent one.
    let newer = lone.accept().unwrap();
    assert_eq!(lone.notification(silent), Some(cease::of(cease::COLLISION)));
    lone.wait(241 * SECOND);
    assert_eq!(lone.notification(newer), Some(Notification::new(Code::HOLD_TIMER, 0, &[])));
}

#[test]
fn strangers_are_refused_and_told_of_now_and_then() {
    let mut lone = Lone::passive();
    let local = SocketAddr::new(address(0), 179);
    for second in 0..60 {
        let remote = SocketAddr::new([192, 0, 2, second as u8].into(), 1);
        assert_eq!(lone.speaker.handle_accepted(local, remote, lone.now), None);
        lone.wait(SECOND);
    }
    lone.drain();
    let told = lone.told(EventKind::Stranger);
    assert_eq!(told.len(), 6, "{told:?}");
    assert!(told[0].starts_with("192.0.2.0 connected and is no neighbour:"), "{told:?}");
    assert!(told[1].contains("9 others before it"), "{told:?}");
}

#[test]
fn a_connection_to_another_address_of_ours_is_refused() {
    let mut lone = Lone::with(Neighbor { passive: true, local: Some([192, 0, 2, 1].into()), ..neighbor(1) });
    lone.wait(Duration::ZERO);
    assert_eq!(lone.accept(), None);
    let told = lone.told(EventKind::Refused);
    assert!(told[0].contains("our address 169.254.10.1, and 192.0.2.1 was expected: set local-address"), "{told:?}");
}

#[test]
fn what_the_neighbour_refuses_is_told_with_what_to_change() {
    let cases = [
        (open_error::BAD_PEER_AS, "our AS towards it is 65001: set its remote-as to 65001"),
        (open_error::BAD_ROUTER_ID, "our router-id is 10.0.0.1"),
        (open_error::HOLD_TIME, "our hold time is 30 s"),
        (open_error::CAPABILITY, "change the families"),
    ];
    for (subcode, words) in cases {
        let mut lone = Lone::passive();
        let id = lone.accept().unwrap();
        let mut bytes = Vec::new();
        Notification::new(Code::OPEN, subcode, &[]).write(&mut bytes);
        lone.hear(id, &bytes);
        let told = lone.told(EventKind::Refused);
        assert!(told.len() == 1 && told[0].contains(words), "{told:?}");
        assert_eq!((lone.notification(id), lone.closed.last()), (None, Some(&id)));
    }
}

#[test]
fn a_neighbour_that_knows_no_capabilities_gets_none_the_next_time() {
    let mut lone = Lone::passive();
    let id = lone.accept().unwrap();
    let mut bytes = Vec::new();
    Notification::new(Code::OPEN, open_error::OPTIONAL_PARAMETER, &[]).write(&mut bytes);
    lone.hear(id, &bytes);
    let id = lone.accept().unwrap();
    let (_, ours) = lone.sent.iter().rev().find(|(connection, _)| *connection == id).unwrap();
    let ours = Open::decode(split(ours).unwrap().unwrap().0.body).unwrap();
    assert_eq!(ours.capabilities, Capabilities::default());
    lone.hear(id, &encode(&Open { capabilities: Capabilities::default(), ..open() }));
    lone.hear(id, &keepalive());
    let agreement = lone.status().agreement.unwrap();
    assert_eq!((agreement.families, agreement.four_octet_as), (Families::IPV4, false));
}

#[test]
fn a_wrong_as_is_told_once_and_tried_more_and_more_rarely() {
    let mut net = Net::new(2, 1);
    net.know(0, 1, Neighbor { remote_as: 7, ..neighbor(1) });
    net.know(1, 0, neighbor(0));
    net.run_for(1800 * SECOND);
    let told = net.hosts[0].told(EventKind::Refused);
    assert_eq!(told.len(), 3, "once in ten minutes: {told:?}");
    assert!(net.hosts[1].told(EventKind::Refused)[0].contains("our AS towards it is 65002"));
    let opens = net.hosts[0].status(1, net.now).sent.open;
    assert!((10..80).contains(&opens), "{opens}");
    net.know(0, 1, neighbor(1));
    let now = net.now;
    assert!(net.run_until(now + 130 * SECOND, Net::is_up));
}

#[test]
fn neighbours_that_cannot_be_are_not_taken() {
    let mut lone = Lone::passive();
    let now = lone.now;
    let mut add = |id, neighbor| lone.speaker.upsert_neighbor(NeighborId(id), neighbor, now);
    assert_eq!(add(2, neighbor(1)), Err(NeighborError::AddressTaken(NeighborId(1))));
    assert_eq!(add(2, Neighbor { remote_as: 0, ..neighbor(2) }), Err(NeighborError::AsZero));
    assert_eq!(add(2, Neighbor { local_as: Some(0), ..neighbor(2) }), Err(NeighborError::AsZero));
    assert_eq!(add(2, Neighbor { families: Families::NONE, ..neighbor(2) }), Err(NeighborError::NoFamily));
    assert_eq!(add(2, neighbor(2)), Ok(()));
    // A neighbour that moves leaves its address to others.
    assert_eq!(add(2, neighbor(3)), Ok(()));
    assert_eq!(add(4, neighbor(2)), Ok(()));
    assert_eq!(lone.speaker.neighbors(now).count(), 3);
}
