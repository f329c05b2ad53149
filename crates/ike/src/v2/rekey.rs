//! Rekeying the IKE SA (RFC 7296 §1.3.2, §2.18) with the collisions of §2.8.1 and §2.25.2. The successor takes the
//! Child SAs over as they are; the one whose rekey stands deletes the old IKE SA.

use base::Secret;
use base::algorithm::Group;
use crypto::KeyPair;

use crate::context::{Again, Context, Signal};
use crate::event::CloseReason;
use crate::failure::{Cause, Failure, Offer, Side};
use crate::session::{Session as AnySession, jittered};
use crate::wire::v2::{Body, Message, Notify, NotifyType, exchange, protocol};

use super::auth::ike_up;
use super::established::{After, Established, Exchange, Fate, Job, Parts, Task, Then};
use super::fragment::Channel;
use super::init::{NONCE_LEN, draw_spi};
use super::keys::{IkeSuite, Seed};
use super::probe;
use super::propose::{accept_ike, choose_ike, offer_ike, offers};
use super::{Core, Session, State};

/// How often the peer may ask for another group in one go.
const MAX_GROUP_TRIES: u8 = 3;

/// Our rekeying of the IKE SA, while it has no answer.
pub(super) struct RekeyingIke {
    pub(super) own: KeyPair,
    pub(super) nonce: [u8; NONCE_LEN],
    pub(super) spi: u64,
    pub(super) tries: u8,
}

impl std::fmt::Debug for RekeyingIke {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RekeyingIke({})", self.own.group())
    }
}

/// An IKE SA that a rekey made, before it has the children.
#[derive(Debug)]
pub(super) struct Born {
    pub(super) core: Core,
    pub(super) established: Box<Established>,
    /// The lower of its two nonces.
    pub(super) lowest: Vec<u8>,
}

impl Born {
    fn into_session(self) -> Box<AnySession> {
        Box::new(AnySession::V2(Session { core: self.core, state: State::Established(self.established) }))
    }
}

/// SPIs and nonces of a rekey, and who began it.
struct Exchanged<'a> {
    seed: Seed<'a>,
    shared: Secret,
    is_initiator: bool,
}

impl Established {
    /// a -- CREATE_CHILD_SA { SA, Ni, KEi } -> b
    pub(super) fn start_rekey_ike(&mut self, core: &mut Core, group: Option<Group>, tries: u8, ctx: &mut Context<'_>) {
        let connection = self.connection.clone();
        let own = KeyPair::generate(group.unwrap_or(self.suite().group), ctx.random);
        let rekeying = RekeyingIke { own, nonce: ctx.random.array(), spi: draw_spi(ctx.random), tries };
        let mut body = Body::new();
        body.sa(&offer_ike(&connection.ike, &rekeying.spi.to_be_bytes())).nonce(&rekeying.nonce);
        body.ke(rekeying.own.group().id(), rekeying.own.public());
        self.request(core, exchange::CREATE_CHILD_SA, &body, Exchange::RekeyIke(Box::new(rekeying)), ctx);
    }

    /// a <- CREATE_CHILD_SA { SA, Ni, KEi } -- b
    /// a -- CREATE_CHILD_SA { SA, Nr, KEr } | { N(TEMPORARY_FAILURE) } -> b
    pub(super) fn on_rekey_ike(
        &mut self,
        core: &Core,
        message: &Message<'_>,
        body: &mut Body,
        ctx: &mut Context<'_>,
    ) -> Then {
        let is_busy = self.outstanding.iter().any(|outstanding| outstanding.exchange.is_about_children());
        if self.fate != Fate::Live || self.rival.is_some() || is_busy {
            // RFC 7296 §2.25.2: while a Child SA is made, rekeyed or closed, and while this one is closed.
            body.notify(NotifyType::TEMPORARY_FAILURE, &[]);
            return Then::Nothing;
        }
        let born = match self.answer_rekey(core, message, body, ctx) {
            Ok(born) => born,
            Err(NotifyType::NO_PROPOSAL_CHOSEN) => {
                let ours = self.connection.ike.iter().map(Offer::from).collect();
                let theirs = message.sa.as_deref().map(offers).unwrap_or_default();
                let failure = Failure::new(Cause::NoIkeProposal, Side::Ours, Some(&self.connection));
                ctx.fail(Some(self.peer), core.ends.remote, failure.with_offers(ours, theirs));
                body.notify(NotifyType::NO_PROPOSAL_CHOSEN, &[]);
                return Then::Nothing;
            }
            // Written already, with its group.
            Err(NotifyType::INVALID_KE_PAYLOAD) => return Then::Nothing,
            Err(kind) => {
                body.notify(kind, &[]);
                return Then::Nothing;
            }
        };
        if self.rekeying_ike().is_some() {
            self.rival = Some(Box::new(born));
            return Then::Nothing;
        }
        Then::Succeed(Box::new(born))
    }

    fn answer_rekey(
        &self,
        core: &Core,
        message: &Message<'_>,
        body: &mut Body,
        ctx: &mut Context<'_>,
    ) -> Result<Born, NotifyType> {
        let theirs = message.sa.as_deref().ok_or(NotifyType::INVALID_SYNTAX)?;
        let ke = message.ke.ok_or(NotifyType::INVALID_SYNTAX)?;
        let nonce_i = message.nonce.ok_or(NotifyType::INVALID_SYNTAX)?;
        let chosen = choose_ike(&self.connection.ike, theirs, Group::from_id(ke.group));
        let chosen = chosen.ok_or(NotifyType::NO_PROPOSAL_CHOSEN)?;
        let spi_i = peer_spi(&chosen.spi).ok_or(NotifyType::INVALID_SYNTAX)?;
        let group = chosen.suite.group;
        if ke.group != group.id() {
            body.notify(NotifyType::INVALID_KE_PAYLOAD, &group.id().to_be_bytes());
            return Err(NotifyType::INVALID_KE_PAYLOAD);
        }
        let own = KeyPair::generate(group, ctx.random);
        let shared = own.agree(ke.value).map_err(|_| NotifyType::INVALID_SYNTAX)?;
        let (spi_r, nonce_r) = (draw_spi(ctx.random), ctx.random.array::<NONCE_LEN>());
        body.sa(&chosen.proposal(protocol::IKE, &spi_r.to_be_bytes())).nonce(&nonce_r).ke(group.id(), own.public());
        let seed = Seed { nonce_i, nonce_r: &nonce_r, spi_i, spi_r };
        Ok(self.bear(core, chosen.suite, &Exchanged { seed, shared, is_initiator: false }, ctx))
    }

    /// The IKE SA that a rekey makes.
    fn bear(&self, core: &Core, suite: IkeSuite, exchanged: &Exchanged<'_>, ctx: &mut Context<'_>) -> Born {
        let Exchanged { seed, shared, is_initiator } = exchanged;
        let keys = self.channel.keys.successor(suite, shared, *seed, *is_initiator);
        let parts = Parts {
            channel: Channel::new(keys, self.channel.fragmentation),
            peer: self.peer,
            connection: self.connection.clone(),
            local_id: self.local_id.clone(),
            remote_id: self.remote_id.clone(),
            next_request: 0,
            expected: 0,
        };
        let core = Core {
            is_initiator: *is_initiator,
            spi_i: seed.spi_i,
            spi_r: seed.spi_r,
            ends: core.ends,
            nat: core.nat,
            peer: core.peer,
            connection: core.connection.clone(),
            last_sent: ctx.now,
            keepalive: core.keepalive,
            natt_port: core.natt_port,
        };
        let lowest = seed.nonce_i.min(seed.nonce_r).to_vec();
        let mut established = Box::new(Established::new(parts, ctx));
        established.sync.agreed = self.sync.agreed;
        if self.sync.is_heir {
            // Another gateway may have asked for it, and get the answer too.
            established.channel.keys.keep_off();
        }
        Born { core, established, lowest }
    }

    /// The answer to our rekey.
    pub(super) fn on_ike_answer(
        &mut self,
        core: &mut Core,
        rekeying: RekeyingIke,
        message: &Message<'_>,
        ctx: &mut Context<'_>,
    ) -> After {
        if let Some(error) = message.error() {
            return self.on_ike_refused(core, &rekeying, error, ctx);
        }
        let born = match self.accept_rekey(core, &rekeying, message, ctx) {
            Ok(born) => born,
            Err(how) => {
                let failure = Failure::new(Cause::PeerMisbehaved(how), Side::Ours, Some(&self.connection));
                ctx.fail(Some(self.peer), core.ends.remote, failure);
                return self.finish(CloseReason::Failed, self.restart(), ctx);
            }
        };
        match self.rival.take() {
            // RFC 7296 §2.8.1: of four nonces the lowest loses. Ours did: the peer deletes the old one, we ours.
            Some(rival) if born.lowest < rival.lowest => {
                self.supersede(*rival, ctx);
                let mut loser = born;
                loser.established.end_silently(ctx);
                ctx.signals.push(Signal::Redundant(loser.into_session()));
            }
            rival => {
                self.supersede(born, ctx);
                self.end_silently(ctx);
                if let Some(mut loser) = rival {
                    loser.established.fate = Fate::Superseded { until: forget_at(ctx) };
                    ctx.signals.push(Signal::Redundant(loser.into_session()));
                }
            }
        }
        After::Stay
    }

    fn accept_rekey(
        &self,
        core: &Core,
        rekeying: &RekeyingIke,
        message: &Message<'_>,
        ctx: &mut Context<'_>,
    ) -> Result<Born, &'static str> {
        let theirs = message.sa.as_deref().ok_or("its answer has no proposal")?;
        let suite = accept_ike(&self.connection.ike, theirs).ok_or("it chose a proposal that was not offered")?;
        let nonce_r = message.nonce.ok_or("its answer has no nonce")?;
        let spi_r = theirs.first().and_then(|chosen| peer_spi(chosen.spi)).ok_or("its SPI is not valid")?;
        let ke = message.ke.filter(|ke| ke.group == suite.group.id() && suite.group == rekeying.own.group());
        let ke = ke.ok_or("its key exchange is not of the group that it chose")?;
        let shared = rekeying.own.agree(ke.value).map_err(|_| "its public value is not valid")?;
        let seed = Seed { nonce_i: &rekeying.nonce, nonce_r, spi_i: rekeying.spi, spi_r };
        Ok(self.bear(core, suite, &Exchanged { seed, shared, is_initiator: true }, ctx))
    }

    fn on_ike_refused(
        &mut self,
        core: &Core,
        rekeying: &RekeyingIke,
        error: Notify<'_>,
        ctx: &mut Context<'_>,
    ) -> After {
        if let Some(rival) = self.rival.take() {
            // The peer's rekey stands, for ours does not.
            return self.supersede(*rival, ctx);
        }
        if self.fate != Fate::Live {
            return After::Stay;
        }
        let cause = match error.kind {
            NotifyType::TEMPORARY_FAILURE => {
                let at = ctx.now + jittered(ctx.options.retry, ctx.random);
                self.enqueue(Job::RekeyIke { group: None, tries: 0 }, at);
                return After::Stay;
            }
            NotifyType::INVALID_KE_PAYLOAD => {
                let wanted = <[u8; 2]>::try_from(error.data).ok().and_then(|id| Group::from_id(u16::from_be_bytes(id)));
                let offered = |group: &Group| self.connection.ike.iter().any(|ike| ike.groups.contains(group));
                let usable = wanted.filter(offered).filter(|group| *group != rekeying.own.group());
                if let Some(group) = usable.filter(|_| rekeying.tries < MAX_GROUP_TRIES) {
                    let job = Job::RekeyIke { group: Some(group), tries: rekeying.tries + 1 };
                    self.enqueue(job, ctx.now);
                    return After::Stay;
                }
                Cause::NoGroup { wanted }
            }
            NotifyType::NO_PROPOSAL_CHOSEN => Cause::NoIkeProposal,
            other => Cause::PeerSaid(other.to_string().into()),
        };
        let is_proposal = cause == Cause::NoIkeProposal;
        let ours = self.connection.ike.iter().filter(|_| is_proposal).map(Offer::from).collect();
        let failure = Failure::new(cause, Side::Theirs, Some(&self.connection)).with_offers(ours, Vec::new());
        ctx.fail(Some(self.peer), core.ends.remote, failure);
        // It will not be rekeyed: a new one is negotiated beside it.
        ctx.signals.push(Signal::Renew { peer: self.peer });
        After::Stay
    }

    /// Hands the children and what is still to be done for them to the successor. The peer deletes this IKE SA, or
    /// it is forgotten after a while.
    pub(super) fn supersede(&mut self, mut born: Born, ctx: &mut Context<'_>) -> After {
        born.established.children = std::mem::take(&mut self.children);
        let (kept, ended): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.tasks).into_iter().partition(|task| match task.job {
                Job::CreateChild { .. }
                | Job::RekeyChild { .. }
                | Job::DeleteChild { .. }
                | Job::Disown { .. }
                | Job::Drain { .. } => true,
                Job::RekeyIke { .. } | Job::DeleteIke | Job::Ask | Job::Probe(_) => false,
            });
        ended.iter().for_each(|task| probe::cancel(&task.job, ctx));
        born.established.tasks = kept;
        for outstanding in std::mem::take(&mut self.outstanding) {
            outstanding.exchange.abandon(ctx);
        }
        match std::mem::replace(&mut self.fate, Fate::Superseded { until: forget_at(ctx) }) {
            // It was closed while its rekey was under way. For the peer the successor lives and has the children, so
            // it is the successor that has to go.
            Fate::Closing { reason, again, is_silent } => {
                born.established.fate = Fate::Closing { reason, again, is_silent };
                born.established.tasks = vec![Task { at: ctx.now, job: Job::DeleteIke }];
            }
            Fate::Live | Fate::Superseded { .. } => {
                ctx.counters.ike_rekeys += 1;
                ctx.tell(ike_up(&born.core, &born.established, true));
            }
        }
        ctx.signals.push(Signal::Successor(born.into_session()));
        After::Stay
    }

    /// We delete it, and nobody hears of it: its children are elsewhere, or there never were any.
    fn end_silently(&mut self, ctx: &Context<'_>) {
        self.fate = Fate::Closing { reason: CloseReason::Replaced, again: Again::No, is_silent: true };
        self.tasks = vec![Task { at: ctx.now, job: Job::DeleteIke }];
    }
}

/// When a replaced IKE SA is forgotten that the peer does not delete: once it has given up all it repeats.
fn forget_at(ctx: &Context<'_>) -> base::Instant {
    ctx.now + 2 * ctx.options.retransmission.total()
}

/// The SPI that the peer chose for the new IKE SA.
fn peer_spi(spi: &[u8]) -> Option<u64> {
    <[u8; 8]>::try_from(spi).ok().map(u64::from_be_bytes).filter(|spi| *spi != 0)
}
