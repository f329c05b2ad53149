//! The paths of a gateway: one for each connection and address of a peer that has an SA, found out by one [`PathMtu`] each.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use base::export::Moment;
use base::{Deadline, Instant, Machine};
use ike::{CannotProbe, Outcome, PeerId, Probe, Probed};
use sa::{ChildSuite, Path, SaId};

use crate::gateway::ExportedPaths;
use crate::path_mtu::{self, PathMtu, Source};

/// A path: whose, and where to.
type Key = (PeerId, IpAddr);

/// IKE SAs of a peer that end over a probe, in a row, before it is left alone.
const SILENT: u8 = 2;

/// What the gateway has to do about a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// Send a probe where the packets of this SA go.
    Probe { sa: SaId, probe: Probe },
    /// From now on the path that these SAs take has this MTU.
    Mtu { sas: Vec<SaId>, mtu: u16 },
    /// A person may want to know.
    Found { peer: PeerId, remote: IpAddr, before: u16, now: u16, source: Source },
}

/// All paths.
#[derive(Debug, Default)]
pub(crate) struct Paths {
    /// What interface or route say of the way to each peer.
    uppers: BTreeMap<PeerId, (u16, Source)>,
    known: BTreeMap<Key, Known>,
    by_sa: BTreeMap<SaId, Key>,
    by_probe: BTreeMap<u64, Key>,
    due: BTreeSet<(Instant, Key)>,
    last_probe: u64,
    /// Peers whose last SA went while a probe was under way, and how often in a row.
    silent: BTreeMap<PeerId, u8>,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
struct Known {
    path: PathMtu,
    sas: BTreeMap<SaId, (ChildSuite, Path)>,
    /// The number of the probe under way.
    probe: Option<u64>,
    due: Option<Instant>,
}

impl Paths {
    /// What interface or route say of the way to a peer, where nothing better is known.
    pub(crate) fn upper(&self, peer: PeerId) -> (u16, Source) {
        self.uppers.get(&peer).copied().unwrap_or(path_mtu::assumed())
    }

    /// The MTU towards a peer: that of its widest path, else what interface or route say.
    pub(crate) fn widest(&self, peer: PeerId) -> u16 {
        let all = self.known.range((peer, IpAddr::from([0; 4]))..).take_while(|((owner, _), _)| *owner == peer);
        all.map(|(_, known)| known.path.mtu()).max().unwrap_or(self.upper(peer).0)
    }

    /// Peers whose SAs lead to this address.
    pub(crate) fn peers_at(&self, remote: IpAddr) -> impl Iterator<Item = PeerId> {
        self.known.keys().filter(move |(_, address)| *address == remote).map(|(peer, _)| *peer)
    }

    /// The path that an SA takes.
    pub(crate) fn of(&self, sa: SaId) -> Option<&PathMtu> {
        Some(&self.known.get(self.by_sa.get(&sa)?)?.path)
    }

    /// Interface or route say how much the way to a peer takes; whether that is news.
    pub(crate) fn set_upper(&mut self, peer: PeerId, mtu: u16, from: Source, now: Instant) -> bool {
        if self.uppers.insert(peer, (mtu, from)) == Some((mtu, from)) {
            return false;
        }
        let keys: Vec<Key> = self.known.keys().filter(|(owner, _)| *owner == peer).copied().collect();
        for key in keys {
            self.with(key, |path| path.set_upper(mtu, from, now));
        }
        true
    }

    /// A router's word, or the kernel's.
    pub(crate) fn note_hint(&mut self, remote: IpAddr, mtu: u16, now: Instant) {
        let keys: Vec<Key> = self.known.keys().filter(|(_, address)| *address == remote).copied().collect();
        for key in keys {
            self.with(key, |path| path.note_hint(mtu, now));
        }
    }

    /// Authentic packets came in on this SA.
    pub(crate) fn note_in_use(&mut self, sa: SaId, now: Instant) {
        if let Some(key) = self.by_sa.get(&sa).copied() {
            self.with(key, |path| path.note_in_use(now));
        }
    }

    /// An SA takes this path from now on, the first or another one.
    pub(crate) fn install(&mut self, peer: PeerId, sa: SaId, (suite, path): (ChildSuite, Path), now: Instant) {
        self.remove(sa, now);
        let remote = path.remote.ip();
        let key = (peer, remote);
        let (upper, from) = self.upper(peer);
        let is_ipv6 = matches!(remote, IpAddr::V6(ip) if ip.to_ipv4_mapped().is_none());
        let known = self.known.entry(key).or_insert_with(|| Known {
            path: PathMtu::new(is_ipv6, upper, from, now),
            sas: BTreeMap::new(),
            probe: None,
            due: None,
        });
        // A peer that cannot bear to be asked must not lose its tunnel again and again.
        let is_shy = known.sas.is_empty() && self.silent.get(&peer).is_some_and(|times| *times >= SILENT);
        known.sas.insert(sa, (suite, path));
        let sas = known.sas.values().copied().collect();
        self.by_sa.insert(sa, key);
        self.with(key, |path| {
            path.set_sas(sas, now);
            if is_shy {
                path.leave_alone("its IKE SA ended over probes", now);
            }
        });
    }

    /// An SA is gone. With the last one goes what is known of its path.
    pub(crate) fn remove(&mut self, sa: SaId, now: Instant) {
        let Some(key) = self.by_sa.remove(&sa) else { return };
        let Some(known) = self.known.get_mut(&key) else { return };
        known.sas.remove(&sa);
        if known.sas.is_empty() {
            let (due, probe) = (known.due, known.probe);
            if known.path.was_cancelled() {
                let times = self.silent.entry(key.0).or_default();
                *times = times.saturating_add(1);
            }
            self.known.remove(&key);
            due.map(|at| self.due.remove(&(at, key)));
            probe.map(|number| self.by_probe.remove(&number));
            return;
        }
        let sas = known.sas.values().copied().collect();
        self.with(key, |path| path.set_sas(sas, now));
    }

    /// Forgets a peer.
    pub(crate) fn forget(&mut self, peer: PeerId, now: Instant) {
        self.uppers.remove(&peer);
        let sas: Vec<SaId> = self.by_sa.iter().filter(|(_, (owner, _))| *owner == peer).map(|(sa, _)| *sa).collect();
        sas.into_iter().for_each(|sa| self.remove(sa, now));
        self.silent.remove(&peer);
    }

    /// What became of a probe. One that nobody waits for any more says nothing.
    pub(crate) fn handle_probed(&mut self, probed: Probed, now: Instant) {
        if let Some(key) = self.by_probe.remove(&probed.number) {
            if probed.outcome != Outcome::Cancelled {
                self.silent.remove(&key.0);
            }
            self.with(key, |path| path.handle_outcome(probed.outcome, probed.size, now));
        }
    }

    /// A probe could not be sent.
    pub(crate) fn cannot_probe(&mut self, number: u64, why: CannotProbe, now: Instant) {
        if let Some(key) = self.by_probe.remove(&number) {
            self.with(key, |path| path.cannot_probe(why, now));
        }
    }

    /// What was found out, for another process.
    pub(crate) fn export(&self, now: Instant) -> ExportedPaths {
        let known = self.known.iter().filter_map(|((peer, remote), known)| {
            let Source::Probed { at } = known.path.source() else { return None };
            Some((*peer, *remote, known.path.mtu(), Moment::of(at, now)))
        });
        ExportedPaths { last_probe: self.last_probe, known: known.collect() }
    }

    /// Takes over what another process found out. The SAs that take these paths are there already.
    pub(crate) fn import(&mut self, exported: &ExportedPaths, now: Instant) {
        self.last_probe = exported.last_probe;
        for (peer, remote, mtu, at) in &exported.known {
            self.with((*peer, *remote), |path| path.resume(*mtu, at.at(now)));
        }
        // The SAs are not in the data path yet, which hears of this with each.
        for known in self.known.values() {
            let (sas, mtu) = (known.sas.keys().copied().collect(), known.path.mtu());
            self.outputs.push_back(Output::Mtu { sas, mtu });
        }
    }

    /// Lets a path act, and takes what comes out of it.
    fn with(&mut self, key: Key, act: impl FnOnce(&mut PathMtu)) {
        let Some(known) = self.known.get_mut(&key) else { return };
        act(&mut known.path);
        while let Some(output) = known.path.poll_output() {
            match output {
                path_mtu::Output::Probe { least, most } => {
                    let Some(sa) = known.sas.keys().next_back().copied() else { continue };
                    self.last_probe += 1;
                    let number = self.last_probe;
                    if let Some(old) = known.probe.replace(number) {
                        self.by_probe.remove(&old);
                    }
                    self.by_probe.insert(number, key);
                    self.outputs.push_back(Output::Probe { sa, probe: Probe { number, least, most } });
                }
                path_mtu::Output::Mtu(mtu) => {
                    self.outputs.push_back(Output::Mtu { sas: known.sas.keys().copied().collect(), mtu });
                }
                path_mtu::Output::Found { before, now, source } => {
                    let (peer, remote) = key;
                    self.outputs.push_back(Output::Found { peer, remote, before, now, source });
                }
            }
        }
        let due = known.path.poll_timeout().map(|deadline| deadline.at);
        if known.due != due {
            known.due.map(|at| self.due.remove(&(at, key)));
            due.map(|at| self.due.insert((at, key)));
            known.due = due;
        }
    }
}

impl Machine for Paths {
    type Output = Output;

    fn handle_timeout(&mut self, now: Instant) {
        // Each once: what is due again at the same moment is the shell's to see.
        let due: Vec<Key> = self.due.iter().take_while(|(at, _)| *at <= now).map(|(_, key)| *key).collect();
        for key in due {
            self.with(key, |path| path.handle_timeout(now));
        }
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        let (_, key) = self.due.first()?;
        self.known.get(key)?.path.poll_timeout()
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }
}
