//! What a session may use while it handles one input, and the signals it leaves for the endpoint.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use base::{Instant, Random};
use sa::{SaChange, SaId, Spi};
use serde::{Deserialize, Serialize};

use crate::event::{CloseReason, Counters, DropReason, Event, Output, Transmit};
use crate::peer::{Options, Peer, PeerId, Peers};
use crate::{Failure, natt};

/// The two ends that a datagram goes between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
}

/// Everything outside a session that it needs for one input.
pub(crate) struct Context<'a> {
    pub(crate) now: Instant,
    pub(crate) options: &'a Options,
    pub(crate) peers: &'a Peers,
    pub(crate) random: &'a mut Random,
    pub(crate) numbers: &'a mut Numbers,
    pub(crate) counters: &'a mut Counters,
    pub(crate) outputs: &'a mut VecDeque<Output>,
    pub(crate) signals: &'a mut Vec<Signal>,
    /// Half-open IKE SAs that peers began, all together.
    pub(crate) half_open: usize,
    /// What IKEv2 cookies are made with.
    pub(crate) cookies: &'a mut crate::v2::Cookies,
    /// Whether no other IKE SA of the session's peer is established: INITIAL_CONTACT is said then.
    pub(crate) first_contact: bool,
}

/// What a session asks of the endpoint, handled in order right after the input.
#[derive(Debug)]
pub(crate) enum Signal {
    /// The session is established as this peer's. Older sessions of the same peer are handled by its uniqueness
    /// policy: with `replace_all` (INITIAL_CONTACT) the peer says that it remembers none of them.
    Established { peer: PeerId, replace_all: bool },
    /// A session that succeeds the one that says this (IKEv2 IKE SA rekey); it is established already and owns
    /// the children.
    Successor(Box<crate::session::Session>),
    /// A session that lost the contest of two simultaneous IKE SA rekeys: it has no children and only lives until it
    /// is deleted. Messages must find it; it is not the peer's session.
    Redundant(Box<crate::session::Session>),
    /// The session wants its own peer's IKE SA negotiated anew while this one goes on (IKEv1 phase 1 renewal).
    Renew { peer: PeerId },
    /// The session is over and can be forgotten; its children are gone. `again` says whether to negotiate anew,
    /// by whatever the connection wants (DPD restart, keyingtries, close action).
    Closed { peer: Option<PeerId>, reason: CloseReason, again: Again },
}

/// Whether a closed session is negotiated anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Again {
    /// No: a command, a replacement, or the connection does not want it.
    No,
    /// At once, because an established session was lost.
    AtOnce,
    /// After the retry wait, and only while tries are left, because a negotiation failed.
    Later,
    /// With the next packet of traffic.
    OnTraffic,
}

impl Context<'_> {
    /// Sends an IKE message, with the non-ESP marker where its ports want it.
    pub(crate) fn transmit(&mut self, ends: Ends, message: &[u8]) {
        let payload = self.marked(ends, message);
        self.transmit_raw(ends, payload);
    }

    /// Sends an IKE message whole, or not at all.
    pub(crate) fn transmit_probe(&mut self, ends: Ends, message: &[u8]) {
        let payload = self.marked(ends, message);
        self.push(ends, payload, true);
    }

    fn marked(&self, ends: Ends, message: &[u8]) -> Vec<u8> {
        if ends.local.port() == self.options.ports.natt {
            [&natt::NON_ESP_MARKER[..], message].concat()
        } else {
            message.to_vec()
        }
    }

    /// Sends an exact UDP payload.
    pub(crate) fn transmit_raw(&mut self, ends: Ends, payload: Vec<u8>) {
        self.push(ends, payload, false);
    }

    fn push(&mut self, ends: Ends, payload: Vec<u8>, is_probe: bool) {
        self.counters.sent += 1;
        let Ends { local, remote } = ends;
        self.outputs.push_back(Output::Transmit(Transmit { local, remote, payload, is_probe }));
    }

    /// Changes the SAs that carry packets.
    pub(crate) fn change(&mut self, change: SaChange) {
        if let SaChange::Remove(id) = &change {
            self.numbers.release(*id);
        }
        self.outputs.push_back(Output::Sa(change));
    }

    /// Tells of an event.
    pub(crate) fn tell(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    /// Tells of a failure and counts it.
    pub(crate) fn fail(&mut self, peer: Option<PeerId>, remote: SocketAddr, failure: Failure) {
        self.counters.failed += 1;
        self.tell(Event::Failed { peer, remote, failure: Box::new(failure) });
    }

    /// Counts a datagram that is dropped.
    pub(crate) fn drop(&mut self, reason: DropReason) {
        self.counters.drop(reason);
    }

    /// The peer of this number, while it is configured.
    pub(crate) fn peer(&self, id: PeerId) -> Option<&Peer> {
        self.peers.get(id)
    }
}

/// Numbers that must not collide within a gateway.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    last_sa: u64,
    inbound: BTreeSet<(SaId, Spi)>,
    spis: BTreeSet<Spi>,
    told: BTreeMap<IpAddr, Instant>,
}

/// Addresses that are remembered for having been refused.
const MAX_TOLD: usize = 256;
/// How seldom an address is told, and told of, that it is refused before it is anyone's.
const TELL_EVERY: Duration = Duration::from_secs(10);

impl Numbers {
    /// Whether a refusal of a first message from `remote` may be told: once in 10 s for an address, and for no more
    /// than 256 addresses in that time, so that a flood fills no log and answers nobody twice.
    pub(crate) fn may_tell(&mut self, remote: IpAddr, now: Instant) -> bool {
        if self.told.get(&remote).is_some_and(|at| now < *at + TELL_EVERY) {
            return false;
        }
        if self.told.len() >= MAX_TOLD {
            self.told.retain(|_, at| now < *at + TELL_EVERY);
        }
        let may = self.told.len() < MAX_TOLD;
        if may {
            self.told.insert(remote, now);
        }
        may
    }

    /// A number and an inbound SPI for a new Child SA. Both are taken until the SA is removed.
    pub(crate) fn allocate(&mut self, random: &mut Random) -> (SaId, Spi) {
        self.last_sa += 1;
        let id = SaId(self.last_sa);
        loop {
            let spi = Spi(random.next_u32());
            // RFC 4303 §2.1: 1 to 255 are reserved and 0 is for local use. An SPI whose bytes are zero would
            // look like the non-ESP marker.
            if spi.0 > 255 && self.spis.insert(spi) {
                self.inbound.insert((id, spi));
                return (id, spi);
            }
        }
    }

    /// The last number given to an SA.
    pub(crate) const fn last(&self) -> u64 {
        self.last_sa
    }

    /// Numbers in use, of these, and their SPIs.
    pub(crate) fn taken_by(&self, ids: &BTreeSet<SaId>) -> Vec<(SaId, Spi)> {
        self.inbound.iter().filter(|(id, _)| ids.contains(id)).copied().collect()
    }

    /// Goes on where another process stopped.
    pub(crate) fn restore(&mut self, last_sa: u64, taken: &[(SaId, Spi)]) {
        self.last_sa = self.last_sa.max(last_sa);
        self.inbound.extend(taken);
        self.spis.extend(taken.iter().map(|(_, spi)| *spi));
    }

    /// The SPI of a number in use.
    pub(crate) fn spi(&self, id: SaId) -> Option<Spi> {
        self.inbound.range((id, Spi(0))..=(id, Spi(u32::MAX))).next().map(|(_, spi)| *spi)
    }

    /// How many are taken.
    #[cfg(test)]
    pub(crate) fn taken(&self) -> usize {
        self.spis.len()
    }

    /// Frees the SPI of an SA that is gone, or that never came to be.
    pub(crate) fn release(&mut self, id: SaId) {
        if let Some(spi) = self.spi(id) {
            self.inbound.remove(&(id, spi));
            self.spis.remove(&spi);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_spi_is_never_reserved_nor_used_twice_and_comes_free() {
        let (mut numbers, mut random) = (Numbers::default(), Random::for_test(1));
        let all: Vec<_> = (0..1_000).map(|_| numbers.allocate(&mut random)).collect();
        assert!(all.iter().all(|(_, spi)| spi.0 > 255));
        assert_eq!(numbers.spis.len(), 1_000);
        all.iter().for_each(|(id, _)| numbers.release(*id));
        assert!(numbers.spis.is_empty() && numbers.inbound.is_empty());
    }

    #[test]
    fn an_address_is_told_once_in_ten_seconds_and_a_flood_of_addresses_is_bounded() {
        let mut numbers = Numbers::default();
        let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
        let address = |n: u32| IpAddr::from(n.to_be_bytes());
        assert!(numbers.may_tell(address(1), at(0)));
        assert!(!numbers.may_tell(address(1), at(9)));
        assert!(numbers.may_tell(address(1), at(10)));
        let told = (0..1_000).filter(|n| numbers.may_tell(address(10 + n), at(10))).count();
        assert_eq!(told, MAX_TOLD - 1);
        assert!(numbers.may_tell(address(5_000), at(21)));
    }
}
