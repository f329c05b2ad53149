//! The SAs that leave, and the way from a packet to its SA.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::Instant;
use model::DfPolicy;
use packet::segment::{Kind, Segments};
use packet::{FlowKey, Ip, Tos};
use sa::{ChildLabel, ChildSa, Path, SaId, TrafficSelector};

use crate::admit::{Admit, IcmpBudget, admit, say_unreachable};
use crate::event::Events;
use crate::export::OutboundStanding;
use crate::fit::Fit;
use crate::policy::{Policy, Via};
use crate::rules::{FlowCache, Rules, Target, check_pairs};
use crate::{Counters, Dropped, Drops, Event, Limit, OutboundSa, Shaping, Unusable};

/// The table of outbound SAs of one worker.
///
/// A packet belongs to the most specific selectors that cover it: the longest destination prefix,
/// then the longest source prefix, then one protocol before any, then the fewest ports. SAs with the
/// same label, device and selectors follow each other; packets take the one activated last.
#[derive(Debug)]
pub struct Outbounds {
    by_policy: Rules,
    by_device: Vec<Rules>,
    cache: FlowCache,
    groups: Vec<Option<Group>>,
    policies: Vec<Option<Waiting>>,
    sas: BTreeMap<SaId, Row>,
    drops: Drops,
    retired: Counters,
    events: Events,
    budget: IcmpBudget,
    /// Times that a sender was told that there is no SA.
    unreachable_sent: u64,
    fragment_id: u16,
    /// From one fragmented packet to the next: other workers have the numbers between.
    fragment_step: u16,
    buffer: Box<[u8]>,
}

/// One SA as the table knows it.
#[derive(Debug)]
struct Row {
    sa: Arc<OutboundSa>,
    /// Whether what the SA carries is counted here, whichever worker sealed it.
    counts: bool,
    path: Path,
    fit: Fit,
    df: DfPolicy,
    drops: Drops,
    shaping: Shaping,
    key: Key,
}

/// What SAs that follow each other have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    label: ChildLabel,
    via: Via,
    local: Vec<TrafficSelector>,
    remote: Vec<TrafficSelector>,
}

/// SAs that follow each other, in the order of activation: the last is in use.
#[derive(Debug)]
struct Group {
    key: Key,
    sas: Vec<SaId>,
}

/// A policy, when it last asked for an SA, and since when packets have found none.
#[derive(Debug)]
struct Waiting {
    policy: Policy,
    via: Via,
    asked: Option<Instant>,
    since: Option<Instant>,
}

/// What [`Outbounds::send`] makes of a packet.
#[derive(Debug)]
pub enum Outgoing<'a> {
    /// To the peer.
    Datagram {
        /// The SA that sealed it.
        id: SaId,
        /// From where to where, and whether in UDP.
        path: Path,
        /// The traffic class of the outer header.
        tos: Tos,
        /// The ESP packet.
        esp: &'a [u8],
    },
    /// Back to the sender, over the device that the packet came from: an IP packet.
    Reply(&'a [u8]),
}

/// Where [`Outbounds::send_into`] puts what it seals.
pub trait Room {
    /// Room for packets that are to be sent, back to back: as many bytes as `lens` add up to, where all lengths are
    /// equal but the last. They go along `path` with the traffic class `tos`. `None` when there is none.
    fn take(&mut self, path: &Path, tos: Tos, lens: Lens) -> Option<&mut [u8]>;

    /// What was taken last is not to be sent.
    fn give_back(&mut self);

    /// An IP packet back to the sender, over the device that the packet came from.
    fn reply(&mut self, packet: &[u8]);

    /// Whether [`Room::defer`] is understood: single packets of many flows are then sealed together.
    fn defers(&self) -> bool {
        false
    }

    /// What was taken last is one packet, complete but in clear. It is to be sealed with [`OutboundSa::seal_framed`]
    /// under this number before it is sent.
    fn defer(&mut self, sa: &Arc<OutboundSa>, sequence: u64) {
        let _ = (sa, sequence);
    }
}

/// The lengths of packets back to back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lens {
    /// Bytes of each but the last.
    pub len: usize,
    /// How many there are: at least 1.
    pub count: usize,
    /// Bytes of the last: at most `len`.
    pub last: usize,
}

impl Lens {
    /// Bytes of all.
    pub const fn total(self) -> usize {
        self.len * (self.count - 1) + self.last
    }
}

impl Default for Outbounds {
    fn default() -> Self {
        Self::new()
    }
}

impl Outbounds {
    /// Room for the largest packet that fits into an outer one.
    const BUFFER: usize = 65_536;
    /// How often a policy without an SA asks for one.
    const ASK_AGAIN: Duration = Duration::from_secs(1);
    /// For how long senders hear nothing while packets find no SA. A negotiation takes some round trips: what is sent
    /// again a second later gets through, and its sender need not know.
    const PATIENCE: Duration = Duration::from_secs(3);

    /// No SAs, no policies.
    pub fn new() -> Self {
        Self {
            by_policy: Rules::default(),
            by_device: Vec::new(),
            cache: FlowCache::new(),
            groups: Vec::new(),
            policies: Vec::new(),
            sas: BTreeMap::new(),
            drops: Drops::default(),
            retired: Counters::default(),
            events: Events::default(),
            budget: IcmpBudget::new(),
            unreachable_sent: 0,
            fragment_id: 0,
            fragment_step: 1,
            buffer: vec![0; Self::BUFFER].into(),
        }
    }

    /// It belongs to the worker of this number, of so many: identifications of fragments are shared out among them.
    pub fn be_one_of(&mut self, number: u16, workers: u16) {
        (self.fragment_id, self.fragment_step) = (number, workers.max(1));
    }

    /// Adds a policy, in place of the one with the same label.
    ///
    /// # Errors
    ///
    /// [`Unusable::TooManySelectors`]; the older policy stays then.
    pub fn set_policy(&mut self, policy: Policy, via: Via) -> Result<(), Unusable> {
        check_pairs(&policy.local, &policy.remote)?;
        self.remove_policy(&policy.label);
        let at = free_slot(&mut self.policies);
        self.rules_mut(via).insert(&policy.local, &policy.remote, Target::Policy(at));
        self.policies[at] = Some(Waiting { policy, via, asked: None, since: None });
        Ok(())
    }

    /// Removes a policy. Its SAs stay until they are removed.
    pub fn remove_policy(&mut self, label: &ChildLabel) {
        let is_it = |slot: &Option<Waiting>| slot.as_ref().is_some_and(|waiting| waiting.policy.label == *label);
        let Some(at) = self.policies.iter().position(is_it) else { return };
        if let Some(Waiting { policy, via, .. }) = self.policies[at].take() {
            self.rules_mut(via).remove(&policy.local, &policy.remote, Target::Policy(at));
        }
    }

    /// Stages an SA: no packet takes it before [`Outbounds::activate`].
    ///
    /// # Errors
    ///
    /// [`Unusable`]; nothing has changed then.
    pub fn install(&mut self, child: &ChildSa, via: Via) -> Result<(), Unusable> {
        self.stage(Arc::new(OutboundSa::new(child)?), child, via, true)
    }

    /// Stages an SA that another worker made from the same `child`, to seal with it too. What it carries is counted there.
    ///
    /// # Errors
    ///
    /// As [`Outbounds::install`].
    pub fn adopt(&mut self, sa: Arc<OutboundSa>, child: &ChildSa, via: Via) -> Result<(), Unusable> {
        self.stage(sa, child, via, false)
    }

    pub(crate) fn stage(
        &mut self,
        sa: Arc<OutboundSa>,
        child: &ChildSa,
        via: Via,
        counts: bool,
    ) -> Result<(), Unusable> {
        check_pairs(&child.local, &child.remote)?;
        if self.sas.contains_key(&child.id) || sa.id() != child.id {
            return Err(Unusable::BadId);
        }
        let key = Key { label: child.label.clone(), via, local: child.local.clone(), remote: child.remote.clone() };
        let row = Row {
            sa,
            counts,
            path: child.path,
            fit: Fit::new(child),
            df: child.df,
            drops: Drops::default(),
            shaping: Shaping::default(),
            key,
        };
        self.sas.insert(child.id, row);
        Ok(())
    }

    /// Packets take this SA from now on, instead of an older one of the same label and selectors.
    ///
    /// # Errors
    ///
    /// [`Unusable::UnknownId`].
    pub fn activate(&mut self, id: SaId) -> Result<(), Unusable> {
        let key = self.sas.get(&id).ok_or(Unusable::UnknownId)?.key.clone();
        for waiting in self.policies.iter_mut().flatten().filter(|waiting| waiting.policy.label == key.label) {
            waiting.since = None;
        }
        if let Some(group) = self.groups.iter_mut().flatten().find(|group| group.key == key) {
            group.sas.retain(|other| *other != id);
            group.sas.push(id);
            return Ok(());
        }
        let at = free_slot(&mut self.groups);
        self.rules_mut(key.via).insert(&key.local, &key.remote, Target::Group(at));
        self.groups[at] = Some(Group { key, sas: vec![id] });
        Ok(())
    }

    /// Forgets an SA. Packets fall back to the one that was active before it, if that is still there.
    pub fn remove(&mut self, id: SaId) -> Option<Counters> {
        let row = self.sas.remove(&id)?;
        let counters = row.counters();
        self.retired += counters;
        let is_it = |slot: &Option<Group>| slot.as_ref().is_some_and(|group| group.sas.contains(&id));
        if let Some(at) = self.groups.iter().position(is_it)
            && let Some(group) = &mut self.groups[at]
        {
            group.sas.retain(|other| *other != id);
            if group.sas.is_empty() {
                self.groups[at] = None;
                let Key { via, local, remote, .. } = row.key;
                self.rules_mut(via).remove(&local, &remote, Target::Group(at));
            }
        }
        Some(counters)
    }

    /// Packets of this SA go elsewhere from now on.
    ///
    /// # Errors
    ///
    /// [`Unusable::UnknownId`].
    pub fn move_to(&mut self, id: SaId, path: Path) -> Result<(), Unusable> {
        let row = self.sas.get_mut(&id).ok_or(Unusable::UnknownId)?;
        row.path = path;
        row.fit.follow(&path);
        Ok(())
    }

    /// The outer MTU towards the peer of this SA is now known to be this.
    ///
    /// # Errors
    ///
    /// [`Unusable::UnknownId`].
    pub fn set_outer_mtu(&mut self, id: SaId, outer_mtu: usize) -> Result<(), Unusable> {
        let row = self.sas.get_mut(&id).ok_or(Unusable::UnknownId)?;
        let path = row.path;
        row.fit.set_outer_mtu(outer_mtu, &path);
        Ok(())
    }

    /// The SA that a packet leaves by. A packet that is refused is counted.
    ///
    /// # Errors
    ///
    /// [`Dropped::NotIp`], [`Dropped::NoPolicy`], and [`Dropped::NoSa`], which also asks for one.
    pub fn find(&mut self, via: Via, packet: &[u8], now: Instant) -> Result<SaId, Dropped> {
        self.search(via, packet, now).map_err(|(reason, _)| reason).inspect_err(|&reason| self.drops.count(reason))
    }

    /// As [`Self::find`]; and where packets have found no SA for a while, `reply` gets the answer for the sender: it cannot
    /// be reached, since the peer cannot (RFC 4301 §5.1, the third of its reasons to discard). Refusing for good ("administratively
    /// prohibited") would end what TCP has begun; this it takes for a fault that may pass.
    fn find_or_answer(
        &mut self,
        via: Via,
        packet: &[u8],
        reply: impl FnOnce(&[u8]),
        now: Instant,
    ) -> Result<SaId, Dropped> {
        let (reason, since) = match self.search(via, packet, now) {
            Ok(id) => return Ok(id),
            Err(missed) => missed,
        };
        self.drops.count(reason);
        if since.is_some_and(|since| now.saturating_since(since) >= Self::PATIENCE)
            && let Some(answer) = say_unreachable(packet)
            && self.budget.spend(now)
        {
            self.unreachable_sent += 1;
            reply(&answer);
        }
        Err(reason)
    }

    /// Seals a packet for its peer, in pieces where need be, and hands to `out` what is to be sent.
    /// The segment size of a TCP SYN is lowered in `packet` first.
    ///
    /// # Errors
    ///
    /// Why nothing, or not every piece, was sent. The packet is counted and must not be sent in clear.
    pub fn send(
        &mut self,
        via: Via,
        packet: &mut [u8],
        mut out: impl FnMut(Outgoing<'_>),
        now: Instant,
    ) -> Result<(), Dropped> {
        let id = self.find_or_answer(via, packet, |reply| out(Outgoing::Reply(reply)), now)?;
        let Some(row) = self.sas.get_mut(&id) else { return Err(Dropped::NoSa) };
        let len = Ip::parse(packet).map_or(packet.len(), |ip| ip.bytes().len());
        let packet = &mut packet[..len];
        if let Some(clamp) = row.fit.clamp() {
            clamp.apply(packet);
        }
        let result = match admit(packet, row.fit.mtu(), row.df, self.fragment_id) {
            Admit::Send => row.seal(packet, &mut self.buffer, &mut self.events, &mut out, now),
            Admit::Fragments(mut fragments) => {
                self.fragment_id = self.fragment_id.wrapping_add(self.fragment_step);
                let at = row.sa.layout().payload_at();
                row.shaping.fragmented += 1;
                let mut result = Ok(());
                while result.is_ok()
                    && let Some(len) = fragments.write_next(&mut self.buffer[at..])
                {
                    result = row.seal_in_place(len, &mut self.buffer, &mut self.events, &mut out, now);
                    row.shaping.fragments += u64::from(result.is_ok());
                }
                result
            }
            Admit::TooBig(reply) => {
                if let Some(reply) = reply
                    && self.budget.spend(now)
                {
                    row.shaping.too_big_sent += 1;
                    out(Outgoing::Reply(&reply));
                }
                Err(Dropped::TooBig)
            }
        };
        result.inspect_err(|&reason| row.drops.count(reason))
    }

    /// As [`Outbounds::send`], built where it is sent from. With `cut`, the packet is a super-packet of segments with so
    /// many bytes of payload each ([`packet::segment`]): it is found, numbered and counted at once.
    ///
    /// # Errors
    ///
    /// As [`Outbounds::send`]; [`Dropped::NotIp`] also for a super-packet that is none.
    pub fn send_into(
        &mut self,
        via: Via,
        packet: &mut [u8],
        cut: Option<(Kind, usize)>,
        room: &mut impl Room,
        now: Instant,
    ) -> Result<(), Dropped> {
        let id = self.find_or_answer(via, packet, |reply| room.reply(reply), now)?;
        let Some(row) = self.sas.get_mut(&id) else { return Err(Dropped::NoSa) };
        let segments = cut.map(|(kind, size)| Segments::new(packet, kind, size)).transpose();
        let Ok(segments) = segments else {
            row.drops.count(Dropped::NotIp);
            return Err(Dropped::NotIp);
        };
        let result = match segments {
            Some(mut segments) if segments.full_len() <= row.fit.mtu() => {
                let lens = Lens { len: segments.full_len(), count: segments.count(), last: segments.last_len() };
                row.seal_run(packet, lens, |out| segments.write_next(out), room, &mut self.events, now)
            }
            Some(segments) => return self.send_each(via, segments, room, now),
            None => {
                let len = Ip::parse(packet).map_or(packet.len(), |ip| ip.bytes().len());
                let packet = &mut packet[..len];
                if len > row.fit.mtu() {
                    return self.send_shaped(via, packet, room, now);
                }
                if let Some(clamp) = row.fit.clamp() {
                    clamp.apply(packet);
                }
                let write = |out: &mut [u8]| {
                    out.get_mut(..len)?.copy_from_slice(packet);
                    Some(len)
                };
                row.seal_run(packet, Lens { len, count: 1, last: len }, write, room, &mut self.events, now)
            }
        };
        result.inspect_err(|&reason| row.drops.count(reason))
    }

    /// Segments that are too large for the tunnel go one by one, as far as the sender allows.
    fn send_each(
        &mut self,
        via: Via,
        mut segments: Segments<'_>,
        room: &mut impl Room,
        now: Instant,
    ) -> Result<(), Dropped> {
        let mut segment = vec![0; segments.full_len()];
        while let Some(len) = segments.write_next(&mut segment) {
            // The sender hears of the first that is too big, and sends all of them again.
            self.send_shaped(via, &mut segment[..len], room, now)?;
        }
        Ok(())
    }

    /// A packet that may have to be cut up, or answered.
    fn send_shaped(&mut self, via: Via, packet: &mut [u8], room: &mut impl Room, now: Instant) -> Result<(), Dropped> {
        let out = |outgoing: Outgoing<'_>| match outgoing {
            Outgoing::Datagram { path, tos, esp, .. } => {
                let lens = Lens { len: esp.len(), count: 1, last: esp.len() };
                if let Some(place) = room.take(&path, tos, lens) {
                    place.copy_from_slice(esp);
                }
            }
            Outgoing::Reply(reply) => room.reply(reply),
        };
        self.send(via, packet, out, now)
    }

    /// Whether a packet that arrived in clear is one that a policy or an SA of the shared device wants
    /// encrypted, so that it must be refused. Also true of what is no IP packet. IKE and ESP
    /// themselves are not to be asked about.
    pub fn must_be_encrypted(&self, packet: &[u8]) -> bool {
        match FlowKey::of(packet) {
            Ok(flow) => self.by_policy.find(&flow.reversed()).is_some(),
            Err(_) => true,
        }
    }

    /// The SA itself: to share it with another worker, or to seal a batch.
    pub fn sa(&self, id: SaId) -> Option<&Arc<OutboundSa>> {
        self.sas.get(&id).map(|row| &row.sa)
    }

    /// Where an SA's packets go.
    pub fn path(&self, id: SaId) -> Option<&Path> {
        self.sas.get(&id).map(|row| &row.path)
    }

    /// The largest inner packet of an SA.
    pub fn mtu(&self, id: SaId) -> Option<usize> {
        self.sas.get(&id).map(|row| row.fit.mtu())
    }

    /// Whether packets take this SA.
    pub fn is_active(&self, id: SaId) -> bool {
        self.groups.iter().flatten().any(|group| group.sas.last() == Some(&id))
    }

    /// The SAs and what they did, by number.
    pub fn iter(&self) -> impl Iterator<Item = (SaId, Counters)> + '_ {
        self.sas.iter().map(|(id, row)| (*id, row.counters()))
    }

    /// What one SA did.
    pub fn counters(&self, id: SaId) -> Option<Counters> {
        self.sas.get(&id).map(Row::counters)
    }

    /// What was done to packets of one SA that were too large.
    pub fn shaping(&self, id: SaId) -> Option<Shaping> {
        self.sas.get(&id).map(|row| row.shaping)
    }

    /// Times that the sender of a packet was told that there is no SA for it.
    pub const fn unreachable_sent(&self) -> u64 {
        self.unreachable_sent
    }

    /// What all SAs did, those removed included, and the packets that found none.
    pub fn total(&self) -> Counters {
        let mut total = self.retired;
        total.drops += self.drops;
        for row in self.sas.values() {
            total += row.counters();
        }
        total
    }

    /// SAs that packets take or took, those of one kind in the order of their activation.
    pub(crate) fn activated(&self) -> Vec<SaId> {
        self.groups.iter().flatten().flat_map(|group| group.sas.iter().copied()).collect()
    }

    /// What the row of an SA counted beside the SA itself.
    pub(crate) fn refused(&self, id: SaId) -> Option<(Drops, Shaping)> {
        self.sas.get(&id).map(|row| (row.drops, row.shaping))
    }

    /// What SAs counted that are gone, and what belonged to none.
    pub(crate) fn retired(&self) -> Counters {
        let mut retired = self.retired;
        retired.drops += self.drops;
        retired
    }

    /// The same of a predecessor.
    pub(crate) fn add_retired(&mut self, retired: Counters) {
        self.retired += retired;
    }

    /// An SA goes on where it stood in another process.
    ///
    /// # Errors
    ///
    /// [`Unusable`]; nothing has changed then.
    pub(crate) fn resume(
        &mut self,
        id: SaId,
        standing: &OutboundStanding,
        (drops, shaping): (Drops, Shaping),
        ahead: u64,
        now: Instant,
    ) -> Result<(), Unusable> {
        let row = self.sas.get_mut(&id).ok_or(Unusable::UnknownId)?;
        row.sa.resume(standing, ahead, now)?;
        (row.drops, row.shaping) = (drops, shaping);
        Ok(())
    }

    /// The next thing to tell the control side.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop()
    }

    /// The SA of a packet; or why there is none, and since when packets like it have found none.
    fn search(&mut self, via: Via, packet: &[u8], now: Instant) -> Result<SaId, (Dropped, Option<Instant>)> {
        let flow = FlowKey::of(packet).map_err(|_| (Dropped::NotIp, None))?;
        let rules = match via {
            Via::Policy => Some(&self.by_policy),
            Via::Device(id) => self.by_device.get(id.0 as usize),
        };
        let rules = rules.ok_or((Dropped::NoPolicy, None))?;
        match self.cache.find(via, &flow, || rules.find(&flow)) {
            Some(Target::Group(at)) => {
                let current = self.groups.get(at).and_then(|group| group.as_ref()?.sas.last().copied());
                current.ok_or((Dropped::NoSa, None))
            }
            Some(Target::Policy(at)) => Err((Dropped::NoSa, self.ask(at, flow, now))),
            None => Err((Dropped::NoPolicy, None)),
        }
    }

    /// A policy asks for an SA, once in a while. Since when packets have found none.
    fn ask(&mut self, at: usize, flow: FlowKey, now: Instant) -> Option<Instant> {
        let waiting = self.policies.get_mut(at)?.as_mut()?;
        let since = *waiting.since.get_or_insert(now);
        if waiting.asked.is_none_or(|asked| now >= asked + Self::ASK_AGAIN) {
            waiting.asked = Some(now);
            self.events.push(Event::NoSa { label: waiting.policy.label.clone(), flow });
        }
        Some(since)
    }

    /// The rules of a device, for a change: what was found by them before is forgotten.
    fn rules_mut(&mut self, via: Via) -> &mut Rules {
        self.cache.clear();
        match via {
            Via::Policy => &mut self.by_policy,
            Via::Device(id) => {
                let at = id.0 as usize;
                if self.by_device.len() <= at {
                    self.by_device.resize_with(at + 1, Rules::default);
                }
                &mut self.by_device[at]
            }
        }
    }
}

impl Row {
    fn counters(&self) -> Counters {
        let mut counters = if self.counts { self.sa.counters() } else { Counters::default() };
        counters.drops += self.drops;
        counters
    }

    /// Seals inner packets of these lengths into room that is taken for them. `first` begins with a header like theirs.
    fn seal_run(
        &self,
        first: &[u8],
        inner: Lens,
        mut write: impl FnMut(&mut [u8]) -> Option<usize>,
        room: &mut impl Room,
        events: &mut Events,
        now: Instant,
    ) -> Result<(), Dropped> {
        let (next_header, tos) = self.sa.describe(first)?;
        let layout = self.sa.layout();
        let lens = Lens { len: layout.sealed_len(inner.len), last: layout.sealed_len(inner.last), ..inner };
        let deferred = inner.count == 1 && room.defers() && self.sa.gains_by_company();
        let place = room.take(&self.path, tos, lens).ok_or(Dropped::TooBig)?;
        if deferred {
            let framed = self.sa.frame_one(next_header, inner.last, place, &mut write, now);
            let (sequence, limit) = framed.inspect_err(|_| room.give_back())?;
            self.tell(limit, events);
            room.defer(&self.sa, sequence);
            return Ok(());
        }
        match self.sa.seal_run(next_header, (inner.len, inner.last), place, write, now) {
            Ok(limit) => {
                self.tell(limit, events);
                Ok(())
            }
            Err(reason) => {
                room.give_back();
                Err(reason)
            }
        }
    }

    fn tell(&self, limit: Option<Limit>, events: &mut Events) {
        match limit {
            Some(Limit::Soft) => events.push(Event::SoftLimit(self.sa.id())),
            Some(Limit::Hard) => events.push(Event::HardLimit(self.sa.id())),
            None => {}
        }
    }

    fn seal(
        &self,
        packet: &[u8],
        buffer: &mut [u8],
        events: &mut Events,
        out: &mut impl FnMut(Outgoing<'_>),
        now: Instant,
    ) -> Result<(), Dropped> {
        let at = self.sa.layout().payload_at();
        buffer.get_mut(at..at + packet.len()).ok_or(Dropped::TooBig)?.copy_from_slice(packet);
        self.seal_in_place(packet.len(), buffer, events, out, now)
    }

    fn seal_in_place(
        &self,
        len: usize,
        buffer: &mut [u8],
        events: &mut Events,
        out: &mut impl FnMut(Outgoing<'_>),
        now: Instant,
    ) -> Result<(), Dropped> {
        let sealed = self.sa.seal_in_place(len, buffer, now)?;
        self.tell(sealed.limit, events);
        let esp = &buffer[..sealed.len];
        out(Outgoing::Datagram { id: self.sa.id(), path: self.path, tos: sealed.tos, esp });
        Ok(())
    }
}

/// The first free place, made at the end when there is none.
fn free_slot<T>(slots: &mut Vec<Option<T>>) -> usize {
    slots.iter().position(Option::is_none).unwrap_or_else(|| {
        slots.push(None);
        slots.len() - 1
    })
}
