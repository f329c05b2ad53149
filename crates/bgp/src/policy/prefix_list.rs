//! Prefix lists: the first entry in sequence that matches decides, and what matches none is denied.

use ipnet::IpNet;

/// An entry of a prefix list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PrefixEntry {
    /// Its place: entries are asked from the lowest to the highest.
    pub sequence: u32,
    /// Whether what matches may pass.
    pub permit: bool,
    /// The network that a prefix must lie in.
    pub within: IpNet,
    /// The shortest length that matches (`ge`). Without it: that of `within`.
    pub ge: Option<u8>,
    /// The longest length that matches (`le`). Without it: that of `within`, or with `ge` that of an address.
    pub le: Option<u8>,
}

impl PrefixEntry {
    /// Whether `prefix` matches.
    pub fn matches(&self, prefix: &IpNet) -> bool {
        let own = self.within.prefix_len();
        let shortest = self.ge.unwrap_or(own);
        let longest = self.le.unwrap_or(if self.ge.is_some() { self.within.max_prefix_len() } else { own });
        (shortest..=longest).contains(&prefix.prefix_len()) && self.within.contains(prefix)
    }
}

/// A list of at most this many entries is asked one by one.
const FEW: usize = 8;

/// A prefix list. An empty one denies everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PrefixList {
    entries: Vec<PrefixEntry>,
    /// The places of the entries by their networks, sorted.
    by_net: Vec<(IpNet, u32)>,
    /// The lengths of these networks, whatever their family, each once.
    lengths: Vec<u8>,
}

impl PrefixList {
    /// The list of these entries, in any order. Of two with the same sequence the one given first is asked first.
    pub fn new(entries: impl IntoIterator<Item = PrefixEntry>) -> Self {
        let mut entries: Vec<_> = entries.into_iter().collect();
        entries.sort_by_key(|entry| entry.sequence);
        let mut by_net: Vec<_> = entries.iter().map(|entry| entry.within.trunc()).zip(0..).collect();
        by_net.sort_unstable();
        let mut lengths: Vec<_> = by_net.iter().map(|(net, _)| net.prefix_len()).collect();
        lengths.sort_unstable();
        lengths.dedup();
        Self { entries, by_net, lengths }
    }

    /// Its entries in the order in which they are asked.
    pub fn entries(&self) -> &[PrefixEntry] {
        &self.entries
    }

    /// Whether `prefix` may pass.
    pub fn permits(&self, prefix: &IpNet) -> bool {
        let first = if self.entries.len() <= FEW { self.first_of_few(prefix) } else { self.first_of_many(prefix) };
        first.is_some_and(|entry| entry.permit)
    }

    fn first_of_few(&self, prefix: &IpNet) -> Option<&PrefixEntry> {
        self.entries.iter().find(|entry| entry.matches(prefix))
    }

    /// Asks only the entries whose network contains the prefix.
    fn first_of_many(&self, prefix: &IpNet) -> Option<&PrefixEntry> {
        let at = |place: u32| &self.entries[place as usize];
        let lengths = self.lengths.iter().take_while(|length| **length <= prefix.prefix_len());
        let first_within = |length: &u8| {
            let net = IpNet::new(prefix.addr(), *length).ok()?.trunc();
            let from = self.by_net.partition_point(|(other, _)| *other < net);
            let same = self.by_net[from..].iter().take_while(|(other, _)| *other == net);
            same.map(|(_, place)| *place).find(|place| at(*place).matches(prefix))
        };
        lengths.filter_map(first_within).min().map(at)
    }
}
