//! What an established session is for: routes that come in, and routes that go out.

use super::ConnectionId;
use super::output::{EventKind, Output};
use super::peer::Peer;
use super::turn::Turn;
use crate::rib::{Advertisement, AnnouncedNextHop, Rib, UpdateVerdict};
use crate::session::without;
use crate::wire::{
    self, Approach, Fault, MessageKind, Prefixes, Refresh, RefreshKind, Reset, Update, attribute_code, cease,
};
use crate::{Families, Family};

use std::fmt::Write as _;

use base::Instant;
use ipnet::IpNet;

/// About how many octets of UPDATE messages go out at once.
const BATCH: usize = 32 * 1024;

/// Prefixes of a malformed message that are told by name.
const FIRST_PREFIXES: usize = 3;

/// Prefixes that are asked of the tables at once: about what a message has room for.
const PREFIXES_AT_ONCE: usize = 1024;

impl Peer {
    /// UPDATE.
    pub(super) fn take_update(&mut self, id: ConnectionId, body: &[u8], turn: &mut Turn<'_>) {
        let Some(connection) = self.connections.iter().find(|connection| connection.id == id) else { return };
        let Some(agreement) = connection.established() else { return };
        let our_as = self.neighbor.our_as(turn.options);
        let session = agreement.wire_session(our_as, self.neighbor.enforce_first_as, self.disabled);
        let local = connection.local.ip();
        let update = match Update::decode(body, &session) {
            Ok(update) => update,
            Err(Reset { notification, fault }) => {
                self.faults.session_reset += 1;
                let sentence = format!("it sent a malformed UPDATE: {} ({notification})", describe(&fault));
                self.tell(EventKind::Malformed, &format!("{sentence}; {}", shown(body)), turn);
                return self.fail(id, notification, &sentence, turn);
            }
        };
        let peer = self.id;
        withdraw(turn.rib, peer, Some(update.withdrawn));
        withdraw(turn.rib, peer, update.unreachable);
        let announced = [update.next_hop.map(|next_hop| (next_hop.into(), update.announced)), update.reachable];
        if update.next_hop.is_none() {
            withdraw(turn.rib, peer, Some(update.announced));
        }
        for (next_hop, prefixes) in announced.into_iter().flatten().filter(|(_, prefixes)| !prefixes.is_empty()) {
            // RFC 4271 §5.1.3: whoever says that packets for it go to ourselves has no route.
            let Some(attributes) = update.attributes.as_ref().filter(|_| next_hop != local) else {
                withdraw(turn.rib, peer, Some(prefixes));
                continue;
            };
            let verdict = turn.rib.update(peer, next_hop, attributes, prefixes);
            if !self.judge(id, verdict, turn) {
                return;
            }
        }
        if let Some(family) = update.disabled {
            self.disabled = self.disabled.with(family);
            turn.rib.mark_stale(peer, family);
            turn.rib.end_of_rib(peer, family);
        }
        if !update.faults.is_empty() {
            let prefixes = update.announced.chain(update.reachable.into_iter().flat_map(|(_, prefixes)| prefixes));
            self.note_faults(&update.faults, prefixes, body, turn);
        }
        if let Some(family) = update.end_of_rib {
            self.heard_end = self.heard_end.with(family);
            self.all_announced(family, turn);
        }
    }

    /// What the tables said to routes; whether the session goes on.
    fn judge(&mut self, id: ConnectionId, verdict: UpdateVerdict, turn: &mut Turn<'_>) -> bool {
        match verdict {
            UpdateVerdict::Kept | UpdateVerdict::NotUp => true,
            UpdateVerdict::Warning { family, count, limit } => {
                let sentence = format!(
                    "it announces {count} {} prefixes, and the session ends when there are more than {limit}: see \
                     whether that is right, and raise max-prefixes if it is",
                    name(family)
                );
                self.tell(EventKind::MaxPrefixesNear, &sentence, turn);
                true
            }
            UpdateVerdict::Exceeded { family, limit } => {
                let restart = self.neighbor.max_prefixes_restart;
                let sentence = format!(
                    "it announces more than {limit} {} prefixes: raise max-prefixes, or have it announce fewer; {}",
                    name(family),
                    match restart {
                        Some(after) => format!("it is tried again in {} s", after.as_secs()),
                        None => "the session stays down until it is reset".to_owned(),
                    }
                );
                self.held_until = Some(restart.map_or(Instant::FAR_FUTURE, |after| turn.now + after));
                self.tell_failure(EventKind::MaxPrefixes, sentence.clone(), turn);
                self.fail(id, cease::max_prefixes(family, limit), &sentence, turn);
                false
            }
        }
    }

    /// RFC 7606 §6: the routes that a fault concerns are told, and the whole message that has it.
    fn note_faults(
        &mut self,
        faults: &[Fault],
        prefixes: impl Iterator<Item = IpNet>,
        body: &[u8],
        turn: &mut Turn<'_>,
    ) {
        let mut worst = None::<&Fault>;
        for fault in faults {
            match fault.approach {
                Approach::AttributeDiscard => self.faults.attribute_discard += 1,
                Approach::TreatAsWithdraw => self.faults.treat_as_withdraw += 1,
                Approach::DisableFamily => self.faults.disable_family += 1,
                Approach::SessionReset => self.faults.session_reset += 1,
            }
            if worst.is_none_or(|worst| worst.approach < fault.approach) {
                worst = Some(fault);
            }
        }
        let Some(fault) = worst else { return };
        let consequence = match fault.approach {
            Approach::AttributeDiscard => "the attribute is ignored",
            Approach::TreatAsWithdraw => "its routes are taken as withdrawn",
            Approach::DisableFamily => {
                "the family's routes are removed, and no more are taken until the session is reset"
            }
            Approach::SessionReset => "the session ends",
        };
        let sentence = format!("it sent a malformed UPDATE: {}; {consequence} (RFC 7606)", describe(fault));
        let detail = format!("routes: {}; {}", listed(prefixes), shown(body));
        self.tell_failure_of(EventKind::Malformed, sentence, &detail, turn);
    }

    /// ROUTE-REFRESH.
    pub(super) fn take_refresh(&mut self, id: ConnectionId, body: &[u8], turn: &mut Turn<'_>) {
        let Some(agreement) = self.connection_mut(id).and_then(|connection| connection.established().cloned()) else {
            return;
        };
        let refresh = match Refresh::decode(body) {
            Ok(Some(refresh)) if agreement.families.contains(refresh.family) => refresh,
            Ok(_) => return,
            // RFC 7313 §5 is for those who said that they know it.
            Err(_) if !agreement.enhanced_refresh => return,
            Err(notification) => {
                let sentence = "it sent a ROUTE-REFRESH of a length that cannot be";
                return self.fail(id, notification, sentence, turn);
            }
        };
        match refresh.kind {
            RefreshKind::Request => {
                turn.rib.readvertise(self.id, refresh.family);
                if agreement.enhanced_refresh && !self.owes_refresh_end.contains(refresh.family) {
                    self.owes_refresh_end = self.owes_refresh_end.with(refresh.family);
                    self.send_refresh(id, RefreshKind::Begin, refresh.family, turn);
                }
            }
            RefreshKind::Begin if agreement.enhanced_refresh => self.refresh_begins(refresh.family, turn),
            RefreshKind::End if agreement.enhanced_refresh => self.all_announced(refresh.family, turn),
            RefreshKind::Begin | RefreshKind::End => {}
        }
    }

    pub(super) fn send_refresh(&mut self, id: ConnectionId, kind: RefreshKind, family: Family, turn: &mut Turn<'_>) {
        let mut bytes = Vec::new();
        Refresh { kind, family }.write(&mut bytes);
        self.send(id, MessageKind::RouteRefresh, bytes, turn);
    }

    /// Whether [`Peer::advertise`] may have something to send.
    pub(super) fn has_news(&self, rib: &Rib) -> bool {
        let owes = self.owes_end != Families::NONE || self.owes_refresh_end != Families::NONE;
        let has_room = self.established().is_some_and(|connection| connection.room > 0);
        has_room && (owes || rib.has_advertisement(self.id))
    }

    /// Sends the next UPDATE messages, as long as there is room.
    pub(super) fn advertise(&mut self, turn: &mut Turn<'_>) {
        let Some(connection) = self.established() else { return };
        let (id, local, room) = (connection.id, connection.local.ip(), connection.room);
        let four_octet_as = connection.established().is_some_and(|agreement| agreement.four_octet_as);
        let mut bytes = Vec::with_capacity(room.min(BATCH) + 2 * wire::MAX_MESSAGE);
        let mut is_done = false;
        while bytes.len() < room.min(BATCH) {
            let Some(advertisement) = turn.rib.next_advertisement(self.id, PREFIXES_AT_ONCE) else {
                is_done = true;
                break;
            };
            let count = match advertisement {
                Advertisement::Withdraw { family, prefixes } => wire::write_withdrawal(&mut bytes, family, &prefixes),
                Advertisement::Announce { family, route, prefixes } => {
                    let next_hop = match route.next_hop {
                        AnnouncedNextHop::Ourselves => self.neighbor.own_next_hop(family, local),
                        AnnouncedNextHop::Address(address) => Some(address),
                    };
                    let written = next_hop.and_then(|next_hop| {
                        wire::write_encoded(&mut bytes, route.encoded(four_octet_as), next_hop, &prefixes).ok()
                    });
                    // What cannot be said must not be left standing as it was before.
                    written.unwrap_or_else(|| {
                        self.note_unsaid(&prefixes, next_hop.is_none(), turn);
                        wire::write_withdrawal(&mut bytes, family, &prefixes)
                    })
                }
            };
            self.sent.count(MessageKind::Update, count as u64);
        }
        if is_done {
            for family in std::mem::take(&mut self.owes_end).iter() {
                wire::write_end_of_rib(&mut bytes, family);
                self.sent.count(MessageKind::Update, 1);
            }
            for family in std::mem::take(&mut self.owes_refresh_end).iter() {
                Refresh { kind: RefreshKind::End, family }.write(&mut bytes);
                self.sent.count(MessageKind::RouteRefresh, 1);
            }
        }
        if bytes.is_empty() {
            return;
        }
        // It may wait for a slow neighbour.
        bytes.shrink_to_fit();
        let now = turn.now;
        if let Some(connection) = self.connection_mut(id) {
            connection.room = room.saturating_sub(bytes.len());
            if connection.room == 0 {
                connection.blocked_since = Some(now);
            }
        }
        turn.outputs.push_back(Output::Send { connection: id, bytes });
    }

    /// Routes could not be announced: said once a session.
    fn note_unsaid(&mut self, prefixes: &[IpNet], lacks_next_hop: bool, turn: &mut Turn<'_>) {
        let is_first = self.unsaid == 0;
        self.unsaid += prefixes.len() as u64;
        let Some(prefix) = prefixes.first().filter(|_| is_first) else { return };
        let sentence = if lacks_next_hop {
            format!(
                "{prefix} and others of its family are not announced: we have no address of that family on the session; \
                 set next-hop for the neighbour"
            )
        } else {
            format!("{prefix} is not announced: its attributes leave no room for it in a message of 4,096 octets")
        };
        self.tell(EventKind::NotAnnounced, &sentence, turn);
    }

    /// Whether it has announced all it has, or nobody can tell when it has (RFC 4724 §4.1).
    pub(super) fn is_complete(&self) -> bool {
        let Some(agreement) = self.established().and_then(|connection| connection.established()) else {
            return self.held_by().is_some();
        };
        match agreement.capabilities.graceful_restart {
            Some(restart) => restart.is_restarting || without(agreement.families, self.heard_end) == Families::NONE,
            None => true,
        }
    }
}

fn withdraw(rib: &mut Rib, peer: crate::rib::PeerId, prefixes: Option<Prefixes<'_>>) {
    if let Some(prefixes) = prefixes.filter(|prefixes| !prefixes.is_empty()) {
        rib.withdraw(peer, prefixes);
    }
}

const fn name(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "IPv4",
        Family::Ipv6 => "IPv6",
    }
}

/// Prefixes in words: the first few, and how many more there are.
fn listed(mut prefixes: impl Iterator<Item = IpNet>) -> String {
    let first: Vec<String> = prefixes.by_ref().take(FIRST_PREFIXES).map(|prefix| prefix.to_string()).collect();
    match (first.is_empty(), prefixes.count()) {
        (true, _) => "none".to_owned(),
        (false, 0) => first.join(" "),
        (false, more) => format!("{} and {more} more", first.join(" ")),
    }
}

/// The body of a message in hexadecimal digits.
fn shown(body: &[u8]) -> String {
    let mut text = "the message: ".to_owned();
    for octet in body {
        // Writing to a string does not fail.
        let _ = write!(text, "{octet:02x}");
    }
    text
}

/// A fault in words.
fn describe(fault: &Fault) -> String {
    let attribute = match fault.attribute {
        0 => return fault.reason.to_owned(),
        attribute_code::ORIGIN => "ORIGIN",
        attribute_code::AS_PATH => "AS_PATH",
        attribute_code::NEXT_HOP => "NEXT_HOP",
        attribute_code::MED => "MULTI_EXIT_DISC",
        attribute_code::LOCAL_PREF => "LOCAL_PREF",
        attribute_code::ATOMIC_AGGREGATE => "ATOMIC_AGGREGATE",
        attribute_code::AGGREGATOR => "AGGREGATOR",
        attribute_code::COMMUNITIES => "COMMUNITIES",
        attribute_code::ORIGINATOR_ID => "ORIGINATOR_ID",
        attribute_code::CLUSTER_LIST => "CLUSTER_LIST",
        attribute_code::MP_REACH => "MP_REACH_NLRI",
        attribute_code::MP_UNREACH => "MP_UNREACH_NLRI",
        attribute_code::EXTENDED_COMMUNITIES => "EXTENDED COMMUNITIES",
        attribute_code::AS4_PATH => "AS4_PATH",
        attribute_code::AS4_AGGREGATOR => "AS4_AGGREGATOR",
        attribute_code::LARGE_COMMUNITIES => "LARGE_COMMUNITY",
        other => return format!("attribute {other}, {}", fault.reason),
    };
    format!("{attribute}, {}", fault.reason)
}
