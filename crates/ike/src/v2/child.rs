//! Child SAs (RFC 7296 §1.3): what both sides allow (§2.9), keys (§2.17), and what ESP is told.

use std::sync::Arc;

use base::algorithm::Group;
use base::{Instant, Secret};
use crypto::KeyPair;
use model::{Child as Configured, Connection, Lifetime};
use sa::{ChildKeys, ChildLabel, ChildSa, ChildSuite, Limits, SaChange, SaId, Spi, TrafficSelector};
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::event::CloseReason;
use crate::failure::{Cause, Failure, Offer, Side};
use crate::wire::v2::{Body, Message, NotifyType, protocol};

use super::Core;
use super::init::NONCE_LEN;
use super::keys::Keys;
use super::propose::{ChildChoice, accept_esp, choose_esp, offer_esp, offers};

/// Most selectors of one side of a Child SA.
const MAX_SELECTORS: usize = 64;

/// A Child SA of an established IKE SA.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) id: SaId,
    pub(super) name: Arc<str>,
    pub(super) inbound: Spi,
    pub(super) outbound: Spi,
    pub(super) suite: ChildSuite,
    pub(super) pfs: Option<Group>,
    pub(super) local: Box<[TrafficSelector]>,
    pub(super) remote: Box<[TrafficSelector]>,
    pub(super) stage: Stage,
    /// Whether it was said to be up.
    pub(super) is_up: bool,
    /// The one that it takes the place of.
    pub(super) replaces: Option<SaId>,
    pub(super) installed_at: Instant,
    pub(super) rekey_at: Option<Instant>,
    pub(super) expires_at: Instant,
}

/// How far a Child SA is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Stage {
    /// The peer may use it; we do so once it does.
    Installed,
    /// Both use it.
    Active,
    /// A newer one is in its place; it receives what is under way until it is deleted.
    Superseded,
    /// We delete it.
    Closing(CloseReason),
    /// It lost the contest of two simultaneous rekeys (RFC 7296 §2.8.1): its maker, we, deletes it.
    Doomed,
}

/// What we set aside for a Child SA that we asked for.
pub(super) struct Pending {
    pub(super) name: Arc<str>,
    pub(super) id: SaId,
    pub(super) inbound: Spi,
    pub(super) nonce: [u8; NONCE_LEN],
    pub(super) own: Option<KeyPair>,
}

impl Child {
    /// Whether its lifetime still counts: nothing else has ended it.
    pub(super) const fn ages(&self) -> bool {
        match self.stage {
            Stage::Installed | Stage::Active | Stage::Superseded => true,
            Stage::Closing(_) | Stage::Doomed => false,
        }
    }
}

impl Pending {
    /// `group` is that of its own key exchange.
    pub(super) fn new(child: &Configured, group: Option<Group>, ctx: &mut Context<'_>) -> Self {
        let (id, inbound) = ctx.numbers.allocate(ctx.random);
        Self {
            name: child.name.as_str().into(),
            id,
            inbound,
            nonce: ctx.random.array(),
            own: group.map(|group| KeyPair::generate(group, ctx.random)),
        }
    }

    /// SA, nonce and public value where the exchange is its own, and selectors.
    pub(super) fn offer(&self, child: &Configured, own_exchange: bool, body: &mut Body) {
        let spi = self.inbound.0.to_be_bytes();
        body.sa(&offer_esp(&child.esp, &spi, own_exchange));
        if own_exchange {
            body.nonce(&self.nonce);
            if let Some(own) = &self.own {
                body.ke(own.group().id(), own.public());
            }
        }
        let ranges = |selectors: &[model::Selector]| -> Vec<TrafficSelector> {
            selectors.iter().map(|selector| (*selector).into()).collect()
        };
        body.selectors(true, &ranges(&child.local)).selectors(false, &ranges(&child.remote));
    }

    /// The group of its own key exchange.
    pub(super) fn group(&self) -> Option<Group> {
        self.own.as_ref().map(KeyPair::group)
    }

    /// Frees its number and SPI.
    pub(super) fn abandon(&self, ctx: &mut Context<'_>) {
        ctx.numbers.release(self.id);
    }

    /// The Child SA that the peer's answer makes.
    ///
    /// # Errors
    /// What the peer did wrong: it has made an SA that we do not want.
    pub(super) fn accept(
        &self,
        child: &Configured,
        message: &Message<'_>,
        auth_nonces: Option<(&[u8], &[u8])>,
        keys: &Keys,
    ) -> Result<Terms, &'static str> {
        let own_exchange = auth_nonces.is_none();
        let theirs = message.sa.as_deref().ok_or("its answer has no proposal")?;
        let choice = accept_esp(&child.esp, theirs, own_exchange).ok_or("it chose a proposal that was not offered")?;
        let (nonce_i, nonce_r) = match auth_nonces {
            Some(nonces) => nonces,
            None => (&self.nonce[..], message.nonce.ok_or("its answer has no nonce")?),
        };
        let shared = match (choice.pfs, &self.own, message.ke) {
            (None, _, _) => None,
            (Some(group), Some(own), Some(ke)) if own.group() == group && ke.group == group.id() => {
                Some(own.agree(ke.value).map_err(|_| "its public value is not valid")?)
            }
            (Some(_), _, _) => return Err("its key exchange is not of the group that it chose"),
        };
        let (local, remote) = (message.ts_i.clone(), message.ts_r.clone());
        let (local, remote) = local.zip(remote).ok_or("its answer has no selectors")?;
        let within = |selectors: &[TrafficSelector], ours: &[model::Selector]| {
            let is_ours = |s: &TrafficSelector| ours.iter().any(|own| TrafficSelector::from(*own).covers(s));
            !selectors.is_empty() && selectors.len() <= MAX_SELECTORS && selectors.iter().all(is_ours)
        };
        if !within(&local, &child.local) || !within(&remote, &child.remote) {
            return Err("it widened the selectors instead of narrowing them");
        }
        let keymat = keys.child_keymat(shared.as_ref(), nonce_i, nonce_r, 2 * choice.suite.key_material_len());
        let outbound = theirs.first().and_then(|chosen| peer_spi(chosen.spi)).ok_or("its SPI is not valid")?;
        Ok(Terms { choice, outbound, local, remote, keymat })
    }
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pending({} as {})", self.name, self.inbound)
    }
}

/// What both sides agreed on.
pub(super) struct Terms {
    pub(super) choice: ChildChoice,
    pub(super) outbound: Spi,
    pub(super) local: Vec<TrafficSelector>,
    pub(super) remote: Vec<TrafficSelector>,
    keymat: Secret,
}

/// What the peer asks for, besides its message.
#[derive(Clone, Copy)]
pub(super) struct Ask<'a> {
    /// Nonces of IKE_SA_INIT, when the Child SA comes with IKE_AUTH.
    pub(super) nonces: Option<(&'a [u8], &'a [u8])>,
    /// The configured child that it must be of, when it is rekeyed.
    pub(super) only: Option<&'a str>,
    /// The SA that is rekeyed.
    pub(super) replaces: Option<SaId>,
}

/// Why the peer gets no Child SA.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) kind: NotifyType,
    pub(super) data: Vec<u8>,
    pub(super) failure: Option<Box<Failure>>,
}

impl Refusal {
    fn new(kind: NotifyType, failure: Option<Failure>) -> Self {
        Self { kind, data: Vec::new(), failure: failure.map(Box::new) }
    }
}

/// A Child SA that was granted, and its nonces.
pub(super) struct Granted<'a> {
    pub(super) child: &'a Configured,
    pub(super) terms: Terms,
    pub(super) id: SaId,
    pub(super) inbound: Spi,
    /// The lower of both nonces, for the contest of RFC 7296 §2.8.1.
    pub(super) lowest: Vec<u8>,
}

/// Grants what the peer asks for, as far as the configuration allows, and writes the answer behind `body`.
///
/// # Errors
/// The notification that says why not.
pub(super) fn grant<'a>(
    connection: &'a Connection,
    keys: &Keys,
    message: &Message<'_>,
    ask: Ask<'_>,
    body: &mut Body,
    ctx: &mut Context<'_>,
) -> Result<Granted<'a>, Refusal> {
    let syntax = || Refusal::new(NotifyType::INVALID_SYNTAX, None);
    let theirs = message.sa.as_deref().ok_or_else(syntax)?;
    let (ts_i, ts_r) = message.ts_i.as_deref().zip(message.ts_r.as_deref()).ok_or_else(syntax)?;
    let own_exchange = ask.nonces.is_none();
    let sent_group = message.ke.and_then(|ke| Group::from_id(ke.group));

    let fitting = fitting_children(connection, ask.only, ts_r, ts_i);
    if fitting.is_empty() {
        let failure = Failure::new(Cause::NoSelector, Side::Ours, Some(connection));
        let ours = connection.children.iter().map(our_selectors).collect();
        let failure = failure.with_offers(ours, vec![selector_offer(ts_r, ts_i)]);
        return Err(Refusal::new(NotifyType::TS_UNACCEPTABLE, Some(failure)));
    }
    let chosen = fitting.into_iter().find_map(|(child, local, remote)| {
        let chosen = choose_esp(&child.esp, theirs, own_exchange, sent_group)?;
        Some((child, chosen, local, remote))
    });
    let Some((child, chosen, local, remote)) = chosen else {
        let failure = Failure::new(Cause::NoChildProposal, Side::Ours, Some(connection));
        let ours = connection.children.iter().flat_map(|child| &child.esp).map(Offer::from).collect();
        let failure = failure.with_offers(ours, offers(theirs));
        return Err(Refusal::new(NotifyType::NO_PROPOSAL_CHOSEN, Some(failure)));
    };
    let choice = chosen.suite;
    let outbound = peer_spi(&chosen.spi).ok_or_else(syntax)?;
    let (own, shared) = own_key_exchange(choice.pfs, message, ctx)?;
    let nonce_own: [u8; NONCE_LEN] = ctx.random.array();
    let (nonce_i, nonce_r) = match ask.nonces {
        Some(nonces) => nonces,
        None => (message.nonce.ok_or_else(syntax)?, &nonce_own[..]),
    };
    let keymat = keys.child_keymat(shared.as_ref(), nonce_i, nonce_r, 2 * choice.suite.key_material_len());

    let (id, inbound) = ctx.numbers.allocate(ctx.random);
    body.sa(&chosen.proposal(protocol::ESP, &inbound.0.to_be_bytes()));
    if own_exchange {
        body.nonce(nonce_r);
    }
    if let Some(own) = own {
        body.ke(own.group().id(), own.public());
    }
    body.selectors(true, &remote).selectors(false, &local);
    let lowest = nonce_i.min(nonce_r).to_vec();
    Ok(Granted { child, terms: Terms { choice, outbound, local, remote, keymat }, id, inbound, lowest })
}

/// The responder's part of a key exchange of the Child SA's own.
fn own_key_exchange(
    group: Option<Group>,
    message: &Message<'_>,
    ctx: &mut Context<'_>,
) -> Result<(Option<KeyPair>, Option<Secret>), Refusal> {
    let Some(group) = group else { return Ok((None, None)) };
    match message.ke.filter(|ke| ke.group == group.id()) {
        Some(ke) => {
            let own = KeyPair::generate(group, ctx.random);
            let shared = own.agree(ke.value).map_err(|_| Refusal::new(NotifyType::INVALID_SYNTAX, None))?;
            Ok((Some(own), Some(shared)))
        }
        None => {
            let data = group.id().to_be_bytes().to_vec();
            Err(Refusal { kind: NotifyType::INVALID_KE_PAYLOAD, data, failure: None })
        }
    }
}

/// The SPI that the peer chose: of four bytes, and not reserved (RFC 4303 §2.1).
fn peer_spi(spi: &[u8]) -> Option<Spi> {
    let spi = <[u8; 4]>::try_from(spi).ok().map(u32::from_be_bytes)?;
    (spi > 255).then_some(Spi(spi))
}

type Fitting<'a> = (&'a Configured, Vec<TrafficSelector>, Vec<TrafficSelector>);

/// The configured children that have traffic in common with what the peer asks for, those first that need not be
/// narrowed.
fn fitting_children<'a>(
    connection: &'a Connection,
    only: Option<&str>,
    local: &[TrafficSelector],
    remote: &[TrafficSelector],
) -> Vec<Fitting<'a>> {
    let children = connection.children.iter().filter(|child| only.is_none_or(|only| child.name == only));
    let narrowed = children.map(|child| (child, narrow(&child.local, local), narrow(&child.remote, remote)));
    let mut fitting: Vec<_> = narrowed.filter(|(_, local, remote)| !local.is_empty() && !remote.is_empty()).collect();
    let is_whole = |wanted: &[TrafficSelector], got: &[TrafficSelector]| {
        wanted.iter().all(|want| got.iter().any(|got| got.covers(want)))
    };
    fitting.sort_by_key(|(_, l, r)| !(is_whole(local, l) && is_whole(remote, r)));
    fitting
}

/// RFC 7296 §2.9: what both allow, without what is in another part already.
pub(super) fn narrow(ours: &[model::Selector], theirs: &[TrafficSelector]) -> Vec<TrafficSelector> {
    let mut both: Vec<TrafficSelector> = Vec::new();
    for ours in ours {
        let ours = TrafficSelector::from(*ours);
        for part in theirs.iter().filter_map(|theirs| ours.intersect(theirs)) {
            if both.len() < MAX_SELECTORS && !both.iter().any(|known| known.covers(&part)) {
                both.retain(|known| !part.covers(known));
                both.push(part);
            }
        }
    }
    both
}

fn our_selectors(child: &Configured) -> Offer {
    let names = |selectors: &[model::Selector]| selectors.iter().map(ToString::to_string).collect();
    Offer::new([("local selector", names(&child.local)), ("remote selector", names(&child.remote))])
}

/// Selectors as we see them: `local` is our side.
fn selector_offer(local: &[TrafficSelector], remote: &[TrafficSelector]) -> Offer {
    let names = |selectors: &[TrafficSelector]| selectors.iter().map(ToString::to_string).collect();
    Offer::new([("local selector", names(local)), ("remote selector", names(remote))])
}

/// What was offered of a child, for a person whose peer refused it.
pub(super) fn our_offers(cause: &Cause, child: &Configured) -> Vec<Offer> {
    match cause {
        Cause::NoSelector => vec![our_selectors(child)],
        Cause::NoChildProposal | Cause::NoGroup { .. } => child.esp.iter().map(Offer::from).collect(),
        Cause::NoAnswer { .. }
        | Cause::UnknownPeer { .. }
        | Cause::WrongPsk
        | Cause::PeerRefusedUs { .. }
        | Cause::WrongRemoteId { .. }
        | Cause::WrongLocalId { .. }
        | Cause::NoIkeProposal
        | Cause::RefusedExchange(_)
        | Cause::PeerSaid(_)
        | Cause::PeerMisbehaved(_) => Vec::new(),
    }
}

/// Who made a Child SA, with which numbers, in place of which.
pub(super) struct Made {
    pub(super) id: SaId,
    pub(super) inbound: Spi,
    pub(super) by_us: bool,
    pub(super) replaces: Option<SaId>,
}

/// Hands the SA to ESP; from here on its packets may arrive.
pub(super) fn install(
    connection: &Connection,
    child: &Configured,
    core: &Core,
    made: &Made,
    terms: Terms,
    ctx: &mut Context<'_>,
) -> Child {
    let suite = terms.choice.suite;
    let keys = ChildKeys::from_v2_keymat(suite, terms.keymat.expose(), made.by_us).expect("derived to this length");
    let lifetime = &child.lifetime;
    let expires_at = ctx.now + lifetime.time;
    let name: Arc<str> = child.name.as_str().into();
    let sa = ChildSa {
        id: made.id,
        label: ChildLabel { connection: connection.name.as_str().into(), child: name.clone() },
        inbound_spi: made.inbound,
        outbound_spi: terms.outbound,
        suite,
        keys,
        path: core.path(),
        local: terms.local.clone(),
        remote: terms.remote.clone(),
        routing: child.routing.clone(),
        limits: Limits {
            soft_bytes: lifetime.bytes.map(Lifetime::soft),
            hard_bytes: lifetime.bytes,
            soft_packets: lifetime.packets.map(Lifetime::soft),
            hard_packets: lifetime.packets,
            hard_time: Some(expires_at),
        },
        replay_window: child.replay_window,
        df: child.df,
        copy_dscp: child.copy_dscp,
        mtu: child.mtu,
        mss: child.mss,
    };
    ctx.change(SaChange::Install(Box::new(sa)));
    Child {
        id: made.id,
        name,
        inbound: made.inbound,
        outbound: terms.outbound,
        suite,
        pfs: terms.choice.pfs,
        local: terms.local.into(),
        remote: terms.remote.into(),
        stage: Stage::Installed,
        is_up: false,
        replaces: made.replaces,
        installed_at: ctx.now,
        rekey_at: Some(ctx.now + lifetime.rekey_after(ctx.random.next_u32())),
        expires_at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selectors(nets: &[&str]) -> Vec<model::Selector> {
        nets.iter().map(|net| model::Selector::net(net.parse().unwrap())).collect()
    }

    fn ranges(nets: &[&str]) -> Vec<TrafficSelector> {
        selectors(nets).into_iter().map(Into::into).collect()
    }

    #[test]
    fn narrowing_keeps_what_both_allow_once() {
        let ours = selectors(&["10.0.0.0/8", "10.1.0.0/16", "192.168.1.0/24"]);
        assert_eq!(narrow(&ours, &ranges(&["0.0.0.0/0"])), ranges(&["10.0.0.0/8", "192.168.1.0/24"]));
        assert_eq!(narrow(&ours, &ranges(&["10.1.2.0/24", "172.16.0.0/12"])), ranges(&["10.1.2.0/24"]));
        assert_eq!(narrow(&ours, &ranges(&["::/0"])), []);
    }

    #[test]
    fn the_child_that_fits_best_comes_first() {
        let mut connection = Connection::named("c");
        for (name, net) in [("wide", "10.1.0.0/24"), ("exact", "10.0.0.0/8")] {
            let mut child = Configured::named(name);
            (child.local, child.remote) = (selectors(&[net]), selectors(&["0.0.0.0/0"]));
            connection.children.push(child);
        }
        let found = fitting_children(&connection, None, &ranges(&["10.0.0.0/8"]), &ranges(&["10.9.0.0/16"]));
        assert_eq!(found.iter().map(|(child, ..)| &*child.name).collect::<Vec<_>>(), ["exact", "wide"]);
    }
}
