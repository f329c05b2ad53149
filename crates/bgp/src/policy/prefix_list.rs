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

/// A prefix list. An empty one denies everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PrefixList {
    entries: Vec<PrefixEntry>,
}

impl PrefixList {
    /// The list of these entries, in any order. Of two with the same sequence the one given first is asked first.
    pub fn new(entries: impl IntoIterator<Item = PrefixEntry>) -> Self {
        let mut entries: Vec<_> = entries.into_iter().collect();
        entries.sort_by_key(|entry| entry.sequence);
        Self { entries }
    }

    /// Its entries in the order in which they are asked.
    pub fn entries(&self) -> &[PrefixEntry] {
        &self.entries
    }

    /// Whether `prefix` may pass.
    pub fn permits(&self, prefix: &IpNet) -> bool {
        self.entries.iter().find(|entry| entry.matches(prefix)).is_some_and(|entry| entry.permit)
    }
}
