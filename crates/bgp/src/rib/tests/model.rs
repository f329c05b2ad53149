//! The tables against a model that keeps everything and thinks of nothing: the same steps, and in the end what is in
//! use and what everyone was told must be what one reads off the routes themselves.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::policy::{Action, Match, PrefixEntry, PrefixList, Rule, Verdict};

const PEERS: [PeerId; 5] = [INTERNAL, PeerId(2), A, B, C];
const PREFIXES: [&str; 6] = ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.2.0.0/16", "2001:db8::/32", "::/0"];

#[derive(Clone, Debug)]
enum Step {
    Update { peer: usize, prefix: usize, path: usize, pref: u32 },
    Withdraw { peer: usize, prefix: usize },
    Restart { peer: usize, keep: bool },
    EndOfRib { peer: usize },
    Reachable { peer: usize, is: bool },
    Import { peer: usize, policy: usize },
    Export { peer: usize, policy: usize },
    Draining { peer: usize, is: bool },
    Remove { peer: usize },
    Announce { prefix: usize },
    WithdrawLocal { prefix: usize },
    Poll { count: usize },
    Send { peer: usize, limit: usize, count: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let (peer, prefix, policy) = (0..PEERS.len(), 0..PREFIXES.len(), 0..4_usize);
    prop_oneof![
        12 => (peer.clone(), prefix.clone(), 0..4_usize, 99..101_u32)
            .prop_map(|(peer, prefix, path, pref)| Step::Update { peer, prefix, path, pref }),
        4 => (peer.clone(), prefix.clone()).prop_map(|(peer, prefix)| Step::Withdraw { peer, prefix }),
        2 => (peer.clone(), any::<bool>()).prop_map(|(peer, keep)| Step::Restart { peer, keep }),
        1 => peer.clone().prop_map(|peer| Step::EndOfRib { peer }),
        2 => (peer.clone(), any::<bool>()).prop_map(|(peer, is)| Step::Reachable { peer, is }),
        1 => (peer.clone(), policy.clone()).prop_map(|(peer, policy)| Step::Import { peer, policy }),
        2 => (peer.clone(), policy).prop_map(|(peer, policy)| Step::Export { peer, policy }),
        1 => (peer.clone(), any::<bool>()).prop_map(|(peer, is)| Step::Draining { peer, is }),
        1 => peer.clone().prop_map(|peer| Step::Remove { peer }),
        1 => prefix.clone().prop_map(|prefix| Step::Announce { prefix }),
        1 => prefix.prop_map(|prefix| Step::WithdrawLocal { prefix }),
        4 => (0..4_usize).prop_map(|count| Step::Poll { count }),
        4 => (peer, 1..3_usize, 0..4_usize).prop_map(|(peer, limit, count)| Step::Send { peer, limit, count }),
    ]
}

fn policy(number: usize) -> Arc<Policy> {
    let entry = PrefixEntry { sequence: 1, permit: true, within: net("10.0.0.0/8"), ge: Some(9), le: None };
    let list = Match::Prefix(Arc::new(PrefixList::new([entry])));
    let rule = |when, actions| Rule { when, then: Verdict::Accept(actions) };
    Arc::new(match number {
        0 => Policy::Default,
        1 => Policy::accept_all(),
        2 => {
            Policy::Rules(vec![rule(vec![list], vec![Action::SetMed(Some(5))]), rule(vec![], vec![Action::Prepend(1)])])
        }
        _ => Policy::Rules(vec![rule(vec![list], vec![Action::SetLocalPref(300)])]),
    })
}

/// Without a thought for memory: what each neighbour announced last, and what it was told.
struct Model {
    received: BTreeMap<(usize, usize), (Attributes, bool)>,
    own: [bool; PREFIXES.len()],
    used: BTreeMap<IpNet, Selected>,
    told: BTreeMap<(usize, IpNet), (Arc<Attributes>, AnnouncedNextHop)>,
    options: Vec<PeerOptions>,
    draining: [bool; PEERS.len()],
    reachable: [bool; PEERS.len()],
}

impl Model {
    /// What passed: attributes by neighbour, of those that can be reached.
    fn accepted(&self, prefix: usize) -> Vec<(usize, Attributes)> {
        let import = |(&(peer, of), (attributes, _)): (&(usize, usize), &(Attributes, bool))| {
            let options = &self.options[peer];
            let is_here = of == prefix && self.reachable[peer] && attributes.as_path.count_of(OUR_AS) == 0;
            let rule = options.import.decide(&net(PREFIXES[prefix]), attributes).filter(|_| is_here)?;
            let (mut shared, mut hop) = (Arc::new(attributes.clone()), None);
            if !options.is_internal() {
                Arc::make_mut(&mut shared).local_pref = None;
            }
            let prepended = (!options.is_internal()).then_some(options.asn);
            options.import.actions(rule).iter().for_each(|action| action.apply(&mut shared, &mut hop, prepended));
            let mut attributes = Arc::unwrap_or_clone(shared);
            if self.draining[peer] {
                attributes.local_pref = Some(0);
            }
            Some((peer, attributes))
        };
        self.received.iter().filter_map(import).collect()
    }

    /// The best: by preference, length, MED of its AS, kind and identifier, which is in the order of numbers.
    fn best(&self, prefix: usize) -> Option<(usize, Attributes)> {
        let all = self.accepted(prefix);
        let head = |(_, one): &(usize, Attributes)| (u32::MAX - one.local_pref.unwrap_or(100), one.as_path.length());
        let first = all.iter().map(head).min()?;
        let left: Vec<_> = all.into_iter().filter(|one| head(one) == first).collect();
        let beats = |m: &Attributes, n: &Attributes| {
            m.as_path.neighbor_as() == n.as_path.neighbor_as() && m.med.unwrap_or(0) < n.med.unwrap_or(0)
        };
        let unbeaten = left.iter().filter(|(_, one)| !left.iter().any(|(_, other)| beats(other, one)));
        unbeaten.min_by_key(|(peer, _)| (self.options[*peer].is_internal(), *peer)).cloned()
    }

    /// What a neighbour is to be told of what is in use.
    fn wanted(&self, peer: usize, prefix: usize) -> Option<(Attributes, AnnouncedNextHop)> {
        let used = self.used.get(&net(PREFIXES[prefix]))?;
        let options = &self.options[peer];
        let from = PEERS.iter().position(|id| used.source == Source::Peer(*id));
        let is_from_inside = from.is_some_and(|from| self.options[from].is_internal());
        if from == Some(peer) || (is_from_inside && options.is_internal()) {
            return None;
        }
        let rule = options.export.decide(&net(PREFIXES[prefix]), &used.attributes)?;
        let mut shared = Arc::clone(&used.attributes);
        if !options.is_internal() && from.is_some() {
            Arc::make_mut(&mut shared).med = None;
        }
        let prepended = (!options.is_internal()).then_some(OUR_AS);
        options.export.actions(rule).iter().for_each(|action| action.apply(&mut shared, &mut None, prepended));
        let mut attributes = Arc::unwrap_or_clone(shared);
        if self.draining[peer] {
            attributes.communities.insert(0, Community::GRACEFUL_SHUTDOWN);
        }
        if options.is_internal() {
            attributes.local_pref = Some(if self.draining[peer] { 0 } else { attributes.local_pref.unwrap_or(100) });
            let hop = used
                .next_hops
                .first()
                .map_or(AnnouncedNextHop::Ourselves, |hop| AnnouncedNextHop::Address(hop.address));
            return Some((attributes, hop));
        }
        attributes.local_pref = None;
        attributes.as_path.prepend(OUR_AS, 1);
        Some((attributes, AnnouncedNextHop::Ourselves))
    }

    fn note_change(&mut self, change: Change) {
        let before = match &change.route {
            Some(route) => self.used.insert(change.prefix, route.clone()),
            None => self.used.remove(&change.prefix),
        };
        assert_ne!(before, change.route, "{} did not change", change.prefix);
    }

    fn note_advertisement(&mut self, peer: usize, part: Advertisement) {
        match part {
            Advertisement::Withdraw { prefixes, .. } => {
                assert!(!prefixes.is_empty());
                for prefix in prefixes {
                    assert!(self.told.remove(&(peer, prefix)).is_some(), "{prefix} was not told");
                }
            }
            Advertisement::Announce { prefixes, route, .. } => {
                assert!(!prefixes.is_empty());
                let look = (route.attributes.clone(), route.next_hop);
                prefixes.into_iter().for_each(|prefix| drop(self.told.insert((peer, prefix), look.clone())));
            }
        }
    }

    fn forget(&mut self, peer: usize, keep: bool) {
        self.told.retain(|(of, _), _| *of != peer);
        // What was stale already goes; the rest is stale.
        self.received.retain(|(of, _), (_, is_stale)| *of != peer || (keep && !*is_stale));
        self.received.iter_mut().filter(|((of, _), _)| *of == peer).for_each(|(_, (_, is_stale))| *is_stale = true);
    }
}

fn route(peer: usize, path: usize, pref: u32) -> Attributes {
    let asn = if PEERS[peer].0 < 10 { 700 } else { asn_of(PEERS[peer]) };
    let (tail, med): (&[Asn], _) =
        [(&[][..], None), (&[7][..], Some(3)), (&[7][..], None), (&[OUR_AS][..], None)][path];
    let path: Vec<_> = std::iter::once(asn).chain(tail.iter().copied()).collect();
    Attributes { med, local_pref: Some(pref), ..attributes(&path) }
}

fn options_of(peer: usize) -> PeerOptions {
    let internal = PEERS[peer].0 < 10;
    PeerOptions { asn: if internal { OUR_AS } else { asn_of(PEERS[peer]) }, ..peer_options(PEERS[peer]) }
}

fn play(rib: &mut Rib, model: &mut Model, step: Step) {
    match step {
        Step::Update { peer, prefix, path, pref } => {
            let attributes = route(peer, path, pref);
            rib.take(PEERS[peer], PREFIXES[prefix], attributes.clone());
            model.received.insert((peer, prefix), (attributes, false));
        }
        Step::Withdraw { peer, prefix } => {
            rib.lose(PEERS[peer], PREFIXES[prefix]);
            model.received.remove(&(peer, prefix));
        }
        Step::Restart { peer, keep } => {
            rib.peer_down(PEERS[peer], if keep { Families::ALL } else { Families::NONE });
            rib.peer_up(PEERS[peer], session(PEERS[peer]));
            model.forget(peer, keep);
        }
        Step::EndOfRib { peer } => {
            rib.sweep_stale(PEERS[peer]);
            model.received.retain(|(of, _), (_, is_stale)| *of != peer || !*is_stale);
        }
        Step::Reachable { peer, is } => {
            rib.set_reachable(PEERS[peer], is);
            model.reachable[peer] = is;
        }
        Step::Import { peer, policy: number } => {
            model.options[peer].import = policy(number);
            rib.set_policy(PEERS[peer], policy(number), model.options[peer].export.clone());
        }
        Step::Export { peer, policy: number } => {
            model.options[peer].export = policy(number);
            rib.upsert_peer(PEERS[peer], model.options[peer].clone());
        }
        Step::Draining { peer, is } => {
            rib.set_draining(PEERS[peer], is);
            model.draining[peer] = is;
        }
        Step::Remove { peer } => {
            rib.remove_peer(PEERS[peer]);
            rib.upsert_peer(PEERS[peer], model.options[peer].clone());
            rib.peer_up(PEERS[peer], session(PEERS[peer]));
            model.forget(peer, false);
            (model.draining[peer], model.reachable[peer]) = (false, true);
        }
        Step::Announce { prefix } => {
            rib.announce(LocalKind::Network, net(PREFIXES[prefix]), None, &Arc::new(attributes(&[])));
            model.own[prefix] = true;
        }
        Step::WithdrawLocal { prefix } => {
            rib.withdraw_local(LocalKind::Network, net(PREFIXES[prefix]));
            model.own[prefix] = false;
        }
        Step::Poll { count } => {
            (0..count).map_while(|_| rib.poll_change()).for_each(|change| model.note_change(change));
        }
        Step::Send { peer, limit, count } => {
            for part in (0..count).map_while(|_| rib.next_advertisement(PEERS[peer], limit)) {
                model.note_advertisement(peer, part);
            }
        }
    }
}

fn check(rib: &mut Rib, model: &mut Model) {
    while let Some(change) = rib.poll_change() {
        model.note_change(change);
    }
    for (peer, &id) in PEERS.iter().enumerate() {
        while let Some(part) = rib.next_advertisement(id, 2) {
            model.note_advertisement(peer, part);
        }
        assert!(!rib.has_advertisement(id));
    }
    for (number, prefix) in PREFIXES.into_iter().enumerate() {
        let used = model.used.get(&net(prefix)).map(|used| (used.source, Attributes::clone(&used.attributes)));
        let own = model.own[number].then(|| (Source::Local(LocalKind::Network), attributes(&[])));
        let best = model.best(number).map(|(peer, attributes)| (Source::Peer(PEERS[peer]), attributes));
        assert_eq!(used, own.or(best), "{prefix}");
        for (peer, id) in PEERS.iter().enumerate() {
            let told =
                model.told.get(&(peer, net(prefix))).map(|(attributes, hop)| (Attributes::clone(attributes), *hop));
            assert_eq!(told, model.wanted(peer, number), "{prefix} to {id:?}");
            let is_kept = rib.lookup(net(prefix)).iter().any(|path| path.source == Source::Peer(*id));
            assert_eq!(is_kept, model.received.contains_key(&(peer, number)), "{prefix} from {id:?}");
        }
    }
    for (peer, &id) in PEERS.iter().enumerate() {
        let counts = Family::ALL.map(|family| rib.counts(id, family));
        let kept = counts.iter().map(|counts| counts.received + counts.stale).sum::<u32>() as usize;
        assert_eq!(kept, model.received.keys().filter(|(of, _)| *of == peer).count());
        assert_eq!(
            counts.iter().map(|counts| counts.accepted).sum::<u32>() as usize,
            rib.received(id).filter(|(_, path)| path.accepted.is_some()).count()
        );
        let shown: Vec<_> =
            rib.advertised(id).map(|(prefix, attributes, hop)| ((peer, prefix), (attributes, hop))).collect();
        let told = model.told.iter().filter(|((of, _), _)| *of == peer);
        assert_eq!(shown, told.map(|(key, value)| (*key, value.clone())).collect::<Vec<_>>());
    }
}

proptest! {
    #[test]
    fn whatever_happens_everyone_knows_the_best(steps in proptest::collection::vec(step(), 1..80)) {
        let mut model = Model {
            received: BTreeMap::new(),
            own: [false; PREFIXES.len()],
            used: BTreeMap::new(),
            told: BTreeMap::new(),
            options: (0..PEERS.len()).map(options_of).collect(),
            draining: [false; PEERS.len()],
            reachable: [true; PEERS.len()],
        };
        let mut rib = Rib::new(options());
        for (peer, &id) in PEERS.iter().enumerate() {
            rib.upsert_peer(id, options_of(peer));
            rib.peer_up(id, session(id));
        }
        for step in steps {
            play(&mut rib, &mut model, step);
        }
        check(&mut rib, &mut model);
        // Everything goes, and nothing is left of it.
        PEERS.into_iter().for_each(|id| rib.peer_down(id, Families::NONE));
        PREFIXES.into_iter().for_each(|prefix| rib.withdraw_local(LocalKind::Network, net(prefix)));
        while let Some(change) = rib.poll_change() {
            prop_assert_eq!(change.route, None);
        }
        prop_assert_eq!(rib.attribute_count(), 1);
    }
}
