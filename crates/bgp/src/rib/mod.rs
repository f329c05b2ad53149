//! The routing tables (RFC 4271 §3.2): what each neighbour announced, what of it is in use, and what each is told.
//!
//! Adj-RIB-In keeps routes as they were received; policy stands between it and the decision, so that a changed policy
//! needs no route refresh. What is in use is reported by [`Rib::poll_change`], one change a prefix however often it
//! changed before, and **only what was reported is advertised**: routes are in place before others are told of them.
//! Adj-RIB-Out is computed when it is asked for ([`Rib::next_advertisement`]).
//!
//! Left out: route reflection (RFC 4456 beyond its tie breaks and loop detection), confederations, several paths from
//! one neighbour (RFC 7911), the interior cost of next hops (RFC 4271 §9.1.2.2 e: all are equally far), aggregation.

mod options;
mod output;

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

pub use options::{MaxPrefixes, Options, PeerId, PeerOptions, Session};
pub use output::{
    Advertisement, AnnouncedNextHop, Change, LocalKind, NextHop, Path, PrefixCounts, Selected, Source, Standing,
    UpdateVerdict,
};

use crate::{Attributes, Families, Family};

/// The routing tables of one speaker.
#[derive(Debug)]
pub struct Rib {
    options: Options,
}

impl Rib {
    /// Empty tables.
    pub fn new(options: Options) -> Self {
        Self { options }
    }

    /// What holds for all neighbours.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Adds a neighbour that is down, or changes what holds for one: what it announced goes through its import policy
    /// again, and what changes in what it is told is advertised. At most 65,000 neighbours; more are not added, which
    /// the answer says.
    pub fn upsert_peer(&mut self, peer: PeerId, options: PeerOptions) -> bool {
        let _ = (peer, options);
        true
    }

    /// Forgets a neighbour and all that it announced.
    pub fn remove_peer(&mut self, peer: PeerId) {
        let _ = peer;
    }

    /// Changes a neighbour's policies alone, as [`Rib::upsert_peer`] does.
    pub fn set_policy(&mut self, peer: PeerId, import: Arc<crate::policy::Policy>, export: Arc<crate::policy::Policy>) {
        let _ = (peer, import, export);
    }

    /// A session with the neighbour is established: all that may be announced to it will be. Stale routes of families
    /// that the session does not have go.
    pub fn peer_up(&mut self, peer: PeerId, session: Session) {
        let _ = (peer, session);
    }

    /// The session is gone. Routes of the families in `keep_stale` stay in use as stale (RFC 4724 §4.2); those that
    /// were stale already, and all others, go.
    pub fn peer_down(&mut self, peer: PeerId, keep_stale: Families) {
        let _ = (peer, keep_stale);
    }

    /// The neighbour announced these prefixes with these attributes. Bits behind a prefix's length are ignored.
    pub fn update(
        &mut self,
        peer: PeerId,
        next_hop: IpAddr,
        attributes: &Arc<Attributes>,
        prefixes: impl IntoIterator<Item = IpNet>,
    ) -> UpdateVerdict {
        let _ = (peer, next_hop, attributes, prefixes.into_iter());
        UpdateVerdict::NotUp
    }

    /// The neighbour withdrew these prefixes, or announced them so that they count as withdrawn (RFC 7606 §2).
    pub fn withdraw(&mut self, peer: PeerId, prefixes: impl IntoIterator<Item = IpNet>) {
        let _ = (peer, prefixes.into_iter());
    }

    /// The neighbour has announced all it has of a family (RFC 4724 §2), or ended a refresh (RFC 7313): what is still
    /// stale goes.
    pub fn end_of_rib(&mut self, peer: PeerId, family: Family) {
        let _ = (peer, family);
    }

    /// A timer of staleness has run out: whatever is stale goes, in all families.
    pub fn sweep_stale(&mut self, peer: PeerId) {
        let _ = peer;
    }

    /// Marks what the neighbour announced in a family as stale while its session lives: it has begun to announce
    /// everything anew (RFC 7313 §4).
    pub fn mark_stale(&mut self, peer: PeerId, family: Family) {
        let _ = (peer, family);
    }

    /// The restart time is over and the long-lived stale time begins: what is stale in the family is used only where
    /// there is nothing else, and bears LLGR_STALE; what bears NO_LLGR goes (RFC 9494 §4.2).
    pub fn retain_long_lived(&mut self, peer: PeerId, family: Family) {
        let _ = (peer, family);
    }

    /// The neighbour asks for everything again (RFC 2918 §4).
    pub fn readvertise(&mut self, peer: PeerId, family: Family) {
        let _ = (peer, family);
    }

    /// Whether packets reach the neighbour's next hops, as its tunnel says; they do until this says otherwise.
    pub fn set_reachable(&mut self, peer: PeerId, reachable: bool) {
        let _ = (peer, reachable);
    }

    /// The session is about to be taken down on purpose (RFC 8326 §4): what it is told bears GRACEFUL_SHUTDOWN, and
    /// what it announced has LOCAL_PREF 0.
    pub fn set_draining(&mut self, peer: PeerId, draining: bool) {
        let _ = (peer, draining);
    }

    /// Adds or replaces a route of our own.
    pub fn announce(&mut self, kind: LocalKind, prefix: IpNet, next_hop: Option<IpAddr>, attributes: &Arc<Attributes>) {
        let _ = (kind, prefix, next_hop, attributes);
    }

    /// Removes a route of our own.
    pub fn withdraw_local(&mut self, kind: LocalKind, prefix: IpNet) {
        let _ = (kind, prefix);
    }

    /// The next prefix for which something else is in use than was said before, in the order in which they first
    /// changed.
    pub fn poll_change(&mut self) -> Option<Change> {
        None
    }

    /// The next part of what the neighbour is to be told, of at most `limit` prefixes; `None`: it knows everything that
    /// [`Rib::poll_change`] has reported. After a session came up the first `None` is the moment for End-of-RIB.
    pub fn next_advertisement(&mut self, peer: PeerId, limit: usize) -> Option<Advertisement> {
        let _ = (peer, limit);
        None
    }

    /// Whether [`Rib::next_advertisement`] may have something; costs nothing.
    pub fn has_advertisement(&self, peer: PeerId) -> bool {
        let _ = peer;
        false
    }

    /// The paths of a prefix, the best first.
    pub fn lookup(&self, prefix: IpNet) -> Vec<Path> {
        let _ = prefix;
        Vec::new()
    }

    /// The longest prefix with a path that contains the address.
    pub fn longest_match(&self, address: IpAddr) -> Option<IpNet> {
        let _ = address;
        None
    }

    /// All prefixes of a family that have a path, in order.
    pub fn prefixes(&self, family: Family) -> Vec<IpNet> {
        let _ = family;
        Vec::new()
    }

    /// What a neighbour announced, in order.
    pub fn received(&self, peer: PeerId) -> impl Iterator<Item = (IpNet, Path)> {
        let _ = peer;
        std::iter::empty()
    }

    /// What a neighbour is told, in order, as far as it has been told.
    pub fn advertised(&self, peer: PeerId) -> impl Iterator<Item = (IpNet, Arc<Attributes>, AnnouncedNextHop)> {
        let _ = peer;
        std::iter::empty()
    }

    /// Counts of a neighbour; zeros where there is none.
    pub fn counts(&self, peer: PeerId, family: Family) -> PrefixCounts {
        let _ = (peer, family);
        PrefixCounts::default()
    }
}
