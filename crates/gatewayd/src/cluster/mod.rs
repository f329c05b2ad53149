//! One of two gateways that share addresses: what the control loop knows of it.
//!
//! | module | what |
//! | --- | --- |
//! | [`link`] | the thread that keeps in touch with the other member |
//! | [`learnt`] | the routes that BGP learnt, at the active one |
//! | [`words`] | what is told over the stream, and what is kept of it |
//!
//! ```text
//!  active                                                  standby
//!   heartbeats over every path <------------------------->
//!   <----------------------------------------------------- the stream: keys, format, configuration are alike?
//!   binds its SAs
//!   everything anew: connections, SAs, how far they are --->
//!   <----------------------------------------------------- heard
//!   what an input changed, before its answer leaves ------->
//!   how far SAs are, each interval ------------------------>
//!   <----------------------------------------------------- heard: the ceiling of the SAs rises
//!   (dies)                                                  after dead-after: addresses, SAs a reserve ahead,
//!                                                           connections; the peers are asked (RFC 6311)
//! ```
//!
//! The shared addresses are lent by the kernel for some seconds at a time, so that they leave a member whose process is
//! gone. What makes it safe that both are active for a while is in `esp::shared` and `ike`, not here.

mod learnt;
mod link;
mod words;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use base::{Instant, Random};
use cluster::{Key, Role};
use esp::shared::Mark;
use gateway::RouteChange;
use gateway::status::cluster::ClusterStatus;
use model::{Config, SharedAddress, Start};
use os::clock::Clock;
use os::netlink::Netlink;
use sa::SaId;
use tracing::warn;

pub(crate) use link::{Heard, Line};
pub(crate) use words::{Estate, Replica, Word};

use learnt::Learnt;
use link::{Ask, Link};

/// For how long the kernel lends an address: whoever hangs or dies loses it then.
const LEASE: u32 = 6;
/// How often it is asked for it again.
const LEND_AGAIN: Duration = Duration::from_secs(1);
/// When the link hears where the addresses are, after they came: hosts heed one in a second at most, and the dead member's
/// kernel may say otherwise while its lease lasts.
const ANNOUNCE: [u64; 9] = [0, 50, 150, 400, 1_100, 2_200, 4_000, 6_500, 9_000];
/// How often it is looked, a millisecond apart, whether a new address is of use.
const ADDRESS_LOOKS: u32 = 20;
/// Checkpoints that may wait for their confirmation.
const UNCONFIRMED: usize = 100;
/// How long the other member may take to take this one's place.
pub(crate) const SWITCH: Duration = Duration::from_secs(2);
/// How long a member that gave up its place still takes packets that are under way to it.
const LINGER: Duration = Duration::from_millis(250);

/// This gateway in its cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    config: model::Cluster,
    key: Key,
    link: Link,
    /// As it is in effect, which may be behind what the thread decided.
    pub(crate) role: Role,
    pub(crate) line: Option<Line>,
    /// Whether any other was ever told of what this gateway has.
    pub(crate) has_told: bool,
    /// Whether the other hears all that changes.
    pub(crate) is_telling: bool,
    number: u64,
    last: BTreeMap<SaId, Mark>,
    unconfirmed: VecDeque<(u64, Vec<Mark>)>,
    confirmed_at: Option<Instant>,
    /// What is told with the next checkpoint.
    pub(crate) words: Vec<Word>,
    /// What the active one told, and what it tells anew and is not whole yet.
    replica: Replica,
    coming: Option<Replica>,
    /// The routes that BGP of the active one learnt, whichever of the two that is.
    pub(crate) learnt: Learnt,
    pub(crate) tick_at: Instant,
    lend_at: Instant,
    announce_at: VecDeque<Instant>,
    /// Until when a planned change may be answered; and when this member gives up what it has.
    switching_until: Option<Instant>,
    pub(crate) leaves_at: Option<Instant>,
    trouble: Option<String>,
}

impl Cluster {
    /// Begins to listen for the other member.
    ///
    /// # Errors
    /// When the kernel has no thread for it.
    pub(crate) fn start(all: &Config, random: Random, clock: Clock) -> std::io::Result<Option<Self>> {
        let Some(config) = all.cluster.clone() else { return Ok(None) };
        let key = Key::new(&config.psk);
        let link = Link::start(&config, key.clone(), digest(all, &key), random, clock)?;
        let now = clock.now();
        Ok(Some(Self {
            config,
            key,
            link,
            role: Role::Starting,
            line: None,
            has_told: false,
            is_telling: false,
            number: 0,
            last: BTreeMap::new(),
            unconfirmed: VecDeque::new(),
            confirmed_at: None,
            words: Vec::new(),
            replica: Replica::default(),
            coming: None,
            learnt: Learnt::default(),
            tick_at: now,
            lend_at: now,
            announce_at: VecDeque::new(),
            switching_until: None,
            leaves_at: None,
            trouble: None,
        }))
    }

    /// What the thread says next.
    pub(crate) async fn heard(&mut self) -> Option<Heard> {
        self.link.heard.recv().await
    }

    /// The control loop lives.
    pub(crate) fn look_in(&self, now: Instant) {
        self.link.look_in(now);
    }

    /// Whether another configuration takes a restart.
    pub(crate) fn differs_from(&self, other: Option<&model::Cluster>) -> bool {
        let bare = |cluster: &model::Cluster| model::Cluster { source: None, ..cluster.clone() };
        other.map(bare) != Some(bare(&self.config))
    }

    /// The configuration is another now.
    pub(crate) fn take_configuration(&mut self, all: &Config) {
        self.lose_line();
        let _ = self.link.asks.send(Ask::Digest(digest(all, &self.key)));
    }

    /// The conversation is over.
    pub(crate) fn lose_line(&mut self) {
        if let Some(line) = self.line.take() {
            let _ = self.link.asks.send(Ask::End(line.number));
        }
        self.is_telling = false;
        self.words.clear();
        self.last.clear();
        self.unconfirmed.clear();
        self.coming = None;
        let _ = self.link.asks.send(Ask::InStep(false));
    }

    pub(crate) fn note_trouble(&mut self, why: String) -> bool {
        let is_new = self.trouble.as_ref() != Some(&why);
        self.trouble = Some(why);
        is_new
    }

    /// A conversation has begun.
    pub(crate) fn take_line(&mut self, line: Line) {
        self.lose_line();
        self.trouble = None;
        self.line = Some(line);
    }

    pub(crate) fn take_place(&self) {
        let _ = self.link.asks.send(Ask::TakePlace);
    }

    // ---- the active one ----

    /// Says something; the conversation ends when the other does not listen.
    pub(crate) fn say(&mut self, word: &Word) {
        if self.line.as_ref().is_some_and(|line| !line.say(word)) {
            self.lose_line();
        }
    }

    /// Everything is told anew now.
    pub(crate) fn begin_telling(&mut self, all: Vec<Word>, marks: Vec<Mark>, now: Instant) {
        self.say(&Word::Anew);
        all.iter().for_each(|word| self.say(word));
        (self.has_told, self.is_telling) = (true, self.line.is_some());
        self.last.clear();
        self.tell_marks(marks, true, now);
    }

    /// Says how far the SAs are that have moved on.
    pub(crate) fn tell_marks(&mut self, marks: Vec<Mark>, always: bool, now: Instant) {
        let marks: Vec<Mark> = marks.into_iter().filter(|mark| self.last.get(&mark.id) != Some(mark)).collect();
        let is_old = self.confirmed_at.is_none_or(|at| now.saturating_since(at) > Duration::from_millis(500));
        if marks.is_empty() && !always && !(is_old && self.unconfirmed.is_empty()) || self.line.is_none() {
            return;
        }
        if self.unconfirmed.len() >= UNCONFIRMED {
            self.lose_line();
            return;
        }
        self.number += 1;
        self.last.extend(marks.iter().map(|mark| (mark.id, *mark)));
        self.unconfirmed.push_back((self.number, marks.clone()));
        self.say(&Word::Marks { number: self.number, marks });
    }

    /// The other has heard marks of this number: all that it knows by then.
    pub(crate) fn note_confirmed(&mut self, number: u64, now: Instant) -> Vec<Mark> {
        let mut all = Vec::new();
        while self.unconfirmed.front().is_some_and(|(sent, _)| *sent <= number) {
            all.extend(self.unconfirmed.pop_front().into_iter().flat_map(|(_, marks)| marks));
            self.confirmed_at = Some(now);
        }
        all
    }

    /// Whether the other could go on with everything now.
    pub(crate) fn is_in_step(&self) -> bool {
        self.is_telling && self.line.is_some() && self.confirmed_at.is_some() && self.unconfirmed.len() < 20
    }

    /// Asks the other to take this one's place.
    pub(crate) fn give_place(&mut self, now: Instant) {
        self.switching_until = Some(now + SWITCH);
        self.say(&Word::TakePlace);
    }

    /// The other is active. Where it was asked to, this one opens for a moment yet what is under way to it, and this is
    /// `true`. It announces nothing meanwhile: hosts that believed it would send here what the peer takes from the other
    /// alone, whose numbers are higher.
    pub(crate) fn linger(&mut self, now: Instant) -> bool {
        let was_asked = self.switching_until.take().is_some_and(|until| now < until);
        let lingers = was_asked && self.role == Role::Active;
        if lingers {
            self.announce_at.clear();
            self.leaves_at = Some(now + LINGER);
        }
        lingers
    }

    /// Whether a planned change is asked for or under way.
    pub(crate) fn gives_place(&self, now: Instant) -> bool {
        self.leaves_at.is_some() || self.switching_until.is_some_and(|until| now < until)
    }

    /// Sends what has gathered, and waits until the kernel has it.
    pub(crate) async fn checkpoint(&mut self) {
        if self.words.is_empty() {
            return;
        }
        let words = std::mem::take(&mut self.words);
        self.say(&Word::All(words));
        if let Some(line) = self.line.clone() {
            line.flush().await;
        }
    }

    // ---- the one that stands by ----

    /// The active one said something; what changes in the kernel's routes.
    pub(crate) fn note(&mut self, word: Word, now: Instant) -> Vec<RouteChange> {
        if matches!(word, Word::Anew) {
            self.coming = Some(Replica::default());
        }
        let mut changes = Vec::new();
        let replica = self.coming.as_mut().unwrap_or(&mut self.replica);
        match replica.note(word, now) {
            Ok(None) => {}
            Ok(Some(number)) => {
                if let Some(whole) = self.coming.take() {
                    self.replica = whole;
                    changes = self.learnt.begin_anew(&self.replica.learnt);
                    let _ = self.link.asks.send(Ask::InStep(true));
                }
                self.say(&Word::Heard(number));
            }
            Err(()) => self.lose_line(),
        }
        if self.coming.is_none() {
            let told = std::mem::take(&mut self.replica.learnt);
            told.iter().for_each(|change| self.learnt.note(change, false));
            changes.extend(told.into_iter().map(learnt::held));
        }
        changes
    }

    /// What there is to go on with.
    pub(crate) fn take_estate(&mut self) -> Option<Estate> {
        self.coming = None;
        let replica = std::mem::take(&mut self.replica);
        replica.whole_at.is_some().then(|| replica.into_estate())
    }

    // ---- the shared addresses ----

    /// The shared addresses are this member's from now on.
    pub(crate) async fn take_addresses(&mut self, netlink: &Netlink, now: Instant) {
        self.lend(netlink, now).await;
        for address in self.config.shared.iter().map(|shared| shared.net.addr()).filter(IpAddr::is_ipv6) {
            // The kernel takes IPv6 packets for a new address a moment after it has it: what came before, answers to its
            // own neighbour solicitations too, would be lost, and the first of our messages with them.
            for _ in 0..ADDRESS_LOOKS {
                if netlink.hop_to(address).await.is_ok_and(|hop| hop.is_local) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }

    /// Everything is set up: traffic may come.
    pub(crate) async fn announce_addresses(&mut self, netlink: &Netlink, now: Instant) {
        self.announce_at = ANNOUNCE.iter().map(|ms| now + Duration::from_millis(*ms)).collect();
        self.announce(netlink, now).await;
    }

    async fn lend(&mut self, netlink: &Netlink, now: Instant) {
        self.lend_at = now + LEND_AGAIN;
        for SharedAddress { net, device } in self.config.shared.clone() {
            let lent = match netlink.link(&device).await {
                Ok(Some(link)) => netlink.lend_address(link.index, net, LEASE).await,
                Ok(None) => Err(std::io::Error::from(std::io::ErrorKind::NotFound)),
                Err(e) => Err(e),
            };
            if let Err(e) = lent
                && self.note_trouble(format!("the shared address {net} is not on {device}: {e}"))
            {
                warn!("the shared address {net} is not on {device}: {e}");
            }
        }
    }

    async fn announce(&mut self, netlink: &Netlink, now: Instant) {
        while self.announce_at.front().is_some_and(|at| *at <= now) {
            self.announce_at.pop_front();
        }
        for SharedAddress { net, device } in &self.config.shared {
            let Ok(Some(link)) = netlink.link(device).await else { continue };
            let Some(hardware) = link.hardware else { continue };
            // An IPv6 address is usable a moment after it was added: the next announcement finds it so.
            if let Err(e) = os::announce::announce(link.index, hardware, net.addr())
                && net.addr().is_ipv4()
            {
                warn!("{e}");
            }
        }
    }

    /// The shared addresses are not this member's.
    pub(crate) async fn leave_addresses(&mut self, netlink: &Netlink) {
        self.announce_at.clear();
        for SharedAddress { net, device } in &self.config.shared {
            if let Ok(Some(link)) = netlink.link(device).await
                && let Err(e) = netlink.remove_address(link.index, *net).await
            {
                warn!("{e}");
            }
        }
    }

    /// Lends and announces what is due.
    pub(crate) async fn keep_addresses(&mut self, netlink: &Netlink, now: Instant) {
        if self.role != Role::Active {
            return;
        }
        if self.lend_at <= now {
            self.lend(netlink, now).await;
        }
        if self.announce_at.front().is_some_and(|at| *at <= now) {
            self.announce(netlink, now).await;
        }
    }

    /// When something is to be done.
    pub(crate) fn due(&self) -> Instant {
        let announce = self.announce_at.front().copied().unwrap_or(Instant::FAR_FUTURE);
        let optional = [self.leaves_at, self.learnt.released_at()].into_iter().flatten();
        optional.fold(self.tick_at.min(announce), Instant::min)
    }

    /// How often the other is told how far the SAs are.
    pub(crate) const fn interval(&self) -> Duration {
        self.config.interval
    }

    /// For a person.
    pub(crate) fn status(&self, now: Instant) -> ClusterStatus {
        let view = self.link.view();
        let ms = |at: Instant| u64::try_from(now.saturating_since(at).as_millis()).unwrap_or(u64::MAX);
        let is_active = self.role == Role::Active;
        let told = if is_active { self.confirmed_at } else { self.replica.told_at };
        let (connections, sas) = self.replica.len();
        ClusterStatus {
            role: view.role.name().to_owned(),
            member: self.config.member,
            since_s: now.saturating_since(view.since.0).as_secs(),
            why: view.since.1.to_owned(),
            term: view.term,
            shared: self.config.shared.iter().map(ToString::to_string).collect(),
            partner: view.partner.map(|(said, _)| said.role.name().to_owned()),
            partner_heard_ms: view.partner.map(|(_, at)| ms(at)),
            in_step: if is_active {
                self.is_in_step()
            } else {
                self.line.is_some() && self.coming.is_none() && self.replica.whole_at.is_some()
            },
            told_ms: told.map(ms),
            held: (!is_active).then_some((connections as u64, sas as u64)),
            reserve: sa::RESERVE,
            trouble: self.trouble.clone(),
        }
    }
}

/// The same configuration for a gateway that stands by: everything is set up that holds traffic, and nothing begins.
pub(crate) fn held(config: &Config) -> Config {
    let mut held = config.clone();
    held.connections.iter_mut().flat_map(|c| &mut c.children).for_each(|child| child.start = Start::Wait);
    held.bgp = None;
    held
}

/// What both members must have alike, keys included; only they can make it.
fn digest(config: &Config, key: &Key) -> [u8; 32] {
    let config = config.clone().without_sources();
    let connections = serde_json::to_vec(&config.connections).unwrap_or_default();
    let shared = config.cluster.as_ref().map(|c| (c.shared.clone(), c.interval, c.dead_after));
    let rest = format!("{:?} {:?} {:?} {:?}", config.vpns, config.bgp, shared, config.gateway.ports);
    key.digest(&[&connections[..], rest.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    /// An active member whose addresses have just come, and are to be announced more than once.
    fn active() -> Cluster {
        let paths = vec!["127.0.0.1:0".parse().unwrap()];
        let cluster = model::Cluster { local: paths.clone(), peer: paths, ..model::Cluster::default() };
        let config = Config { cluster: Some(cluster), ..Config::default() };
        let mut cluster = Cluster::start(&config, Random::for_test(1), Clock::start()).unwrap().unwrap();
        cluster.role = Role::Active;
        cluster.tick_at = Instant::FAR_FUTURE;
        cluster.announce_at = [4_000, 6_500].map(at).into();
        cluster
    }

    #[test]
    fn a_member_that_gives_its_place_lingers_and_announces_nothing() {
        let now = at(3_900);
        let mut cluster = active();
        assert_eq!((cluster.gives_place(now), cluster.due()), (false, at(4_000)));
        cluster.give_place(now);
        assert!(cluster.gives_place(now), "it is asked for");
        assert!(cluster.linger(now) && cluster.gives_place(now), "it is under way");
        assert_eq!(cluster.due(), now + LINGER, "nothing before the end");
    }

    #[test]
    fn a_member_that_was_not_asked_or_long_ago_does_not_linger() {
        let now = at(3_900);
        let mut cluster = active();
        assert!(!cluster.linger(now));
        cluster.give_place(now);
        assert!(!cluster.gives_place(now + SWITCH) && !cluster.linger(now + SWITCH));
        cluster.role = Role::Standby;
        cluster.give_place(now);
        assert!(!cluster.linger(now));
    }
}
