//! Why a negotiation failed, said so that a person knows which line to change on which side.

use std::fmt;
use std::sync::Arc;

use base::algorithm::Group;
use model::{Connection, EspProposal, Identity, IkeProposal, Setting, Source};

/// Which side something is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// This gateway.
    Ours,
    /// The peer.
    Theirs,
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The peer never answered.
    NoAnswer {
        /// How often the request was sent.
        sent: u32,
    },
    /// No connection fits the addresses, or the identity that the peer claimed.
    UnknownPeer {
        /// What the peer claimed to be, when it got that far.
        claimed: Option<Identity>,
    },
    /// The pre-shared keys differ: the peer's proof does not verify with ours.
    WrongPsk,
    /// The peer refused our proof: the key or our identity is wrong in its eyes.
    PeerRefusedUs {
        /// The identity we claimed.
        claimed: Identity,
    },
    /// The peer is not who it was expected to be.
    WrongRemoteId {
        /// What the connection wants.
        expected: Identity,
        /// What the peer proved or claimed.
        got: Identity,
    },
    /// The peer looked for another identity on our side.
    WrongLocalId {
        /// What we are configured to be.
        ours: Identity,
        /// What the peer asked for.
        wanted: Identity,
    },
    /// No phase 1 proposal suits both.
    NoIkeProposal,
    /// No phase 2 proposal suits both.
    NoChildProposal,
    /// No Diffie-Hellman group suits both.
    NoGroup {
        /// The group the peer insists on, when it said so.
        wanted: Option<Group>,
    },
    /// The traffic selectors have nothing in common.
    NoSelector,
    /// The peer began an exchange that is refused; which, and why.
    RefusedExchange(&'static str),
    /// The peer refused with this notification.
    PeerSaid(Arc<str>),
    /// The peer broke the protocol; how.
    PeerMisbehaved(&'static str),
}

impl Cause {
    /// The names of all causes.
    pub const NAMES: [&str; 13] = [
        "no_answer",
        "unknown_peer",
        "wrong_psk",
        "refused_by_peer",
        "wrong_remote_id",
        "wrong_local_id",
        "no_ike_proposal",
        "no_child_proposal",
        "no_group",
        "no_selector",
        "refused_exchange",
        "peer_said",
        "peer_misbehaved",
    ];

    /// Its stable name in logs, status and metrics.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::NoAnswer { .. } => "no_answer",
            Self::UnknownPeer { .. } => "unknown_peer",
            Self::WrongPsk => "wrong_psk",
            Self::PeerRefusedUs { .. } => "refused_by_peer",
            Self::WrongRemoteId { .. } => "wrong_remote_id",
            Self::WrongLocalId { .. } => "wrong_local_id",
            Self::NoIkeProposal => "no_ike_proposal",
            Self::NoChildProposal => "no_child_proposal",
            Self::NoGroup { .. } => "no_group",
            Self::NoSelector => "no_selector",
            Self::RefusedExchange(_) => "refused_exchange",
            Self::PeerSaid(_) => "peer_said",
            Self::PeerMisbehaved(_) => "peer_misbehaved",
        }
    }

    /// The settings of ours that may be at fault, most likely first.
    const fn suspects(&self) -> &'static [Setting] {
        match self {
            Self::NoAnswer { .. } => &[Setting::RemoteAddress],
            Self::UnknownPeer { claimed: None } => &[Setting::RemoteAddress],
            Self::UnknownPeer { claimed: Some(_) } | Self::WrongRemoteId { .. } => &[Setting::RemoteId],
            Self::WrongPsk => &[Setting::Psk],
            Self::PeerRefusedUs { .. } => &[Setting::Psk, Setting::LocalId, Setting::RemoteId],
            Self::WrongLocalId { .. } => &[Setting::LocalId],
            Self::NoIkeProposal => &[Setting::Ike],
            Self::NoChildProposal => &[Setting::Esp],
            Self::NoGroup { .. } => &[Setting::Ike, Setting::Esp],
            Self::NoSelector => &[Setting::LocalSelector, Setting::RemoteSelector],
            Self::RefusedExchange(_) => &[Setting::Version],
            Self::PeerSaid(_) | Self::PeerMisbehaved(_) => &[Setting::Connection],
        }
    }
}

/// The kind of an offer that says whether ESP travels in UDP.
pub(crate) const ENCAPSULATION: &str = "encapsulation";

/// A proposal or selector as one side put it: alternatives per kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer(Vec<(&'static str, Vec<String>)>);

impl Offer {
    /// An offer from what may be chosen of each kind. Kinds without a choice are left out.
    pub fn new(kinds: impl IntoIterator<Item = (&'static str, Vec<String>)>) -> Self {
        Self(kinds.into_iter().filter(|(_, names)| !names.is_empty()).collect())
    }

    /// The kinds in which `self` and `other` have no name in common.
    fn differences(&self, other: &Self) -> Vec<&'static str> {
        let none = Vec::new();
        let names = |offer: &Self, kind| {
            offer.0.iter().find(|(known, _)| *known == kind).map_or_else(|| none.clone(), |(_, names)| names.clone())
        };
        let mut kinds: Vec<_> = self.0.iter().chain(&other.0).map(|(kind, _)| *kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds.retain(|&kind| !names(self, kind).iter().any(|name| names(other, kind).contains(name)));
        kinds
    }
}

impl From<&IkeProposal> for Offer {
    fn from(proposal: &IkeProposal) -> Self {
        Self::new([
            ("encryption", names(&proposal.encryption)),
            ("integrity", names(&proposal.integrity)),
            ("hash or prf", names(&proposal.prf)),
            ("group", names(&proposal.groups)),
        ])
    }
}

impl From<&EspProposal> for Offer {
    fn from(proposal: &EspProposal) -> Self {
        let esn = proposal.esn.iter().map(|esn| if *esn { "esn" } else { "no esn" }.to_owned()).collect();
        let groups = if proposal.groups.is_empty() { vec!["no pfs".to_owned()] } else { names(&proposal.groups) };
        Self::new([
            ("encryption", names(&proposal.encryption)),
            ("integrity", names(&proposal.integrity)),
            ("pfs group", groups),
            ("sequence numbers", esn),
        ])
    }
}

fn names<T: ToString>(of: &[T]) -> Vec<String> {
    of.iter().map(ToString::to_string).collect()
}

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (_, names)) in self.0.iter().enumerate() {
            write!(f, "{}{}", if place == 0 { "" } else { "-" }, names.join("|"))?;
        }
        Ok(())
    }
}

/// Something to change, on one side, so that the negotiation can succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fix {
    /// Where.
    pub side: Side,
    /// The setting.
    pub setting: Setting,
    /// The line of ours that holds it, where that is known.
    pub source: Option<Source>,
}

/// Why a negotiation failed, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong.
    pub cause: Cause,
    /// Who found it: we, or the peer, which then told us little.
    pub found_by: Side,
    /// What we offered or expected, in a few words each.
    pub ours: Vec<Offer>,
    /// What the peer offered, where it is known.
    pub theirs: Vec<Offer>,
    /// Which lines of ours to look at.
    pub fixes: Vec<Fix>,
}

impl Failure {
    /// A failure of `connection`, where one is known.
    pub fn new(cause: Cause, found_by: Side, connection: Option<&Connection>) -> Self {
        let fix = |setting: &Setting| Fix {
            side: Side::Ours,
            setting: *setting,
            source: connection.and_then(|c| c.sources.of(*setting)).cloned(),
        };
        let fixes = cause.suspects().iter().map(fix).collect();
        Self { cause, found_by, ours: Vec::new(), theirs: Vec::new(), fixes }
    }

    /// The same with what both sides offered.
    #[must_use]
    pub fn with_offers(mut self, ours: Vec<Offer>, theirs: Vec<Offer>) -> Self {
        self.ours = ours;
        self.theirs = theirs;
        self
    }

    /// Of all pairs of offers, the one that differs least, and in what.
    pub fn nearest(&self) -> Option<(&Offer, &Offer, Vec<&'static str>)> {
        let pairs = self.ours.iter().flat_map(|ours| self.theirs.iter().map(move |theirs| (ours, theirs)));
        let ranked = pairs.map(|(ours, theirs)| (ours, theirs, ours.differences(theirs)));
        ranked.min_by_key(|(.., differences)| differences.len())
    }
}

impl fmt::Display for Failure {
    /// One sentence a part: what happened; what each side offered; the nearest match; the line to change.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)?;
        let list = |offers: &[Offer]| offers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        if !self.ours.is_empty() {
            write!(f, "; we offer {}", list(&self.ours))?;
        }
        if !self.theirs.is_empty() {
            write!(f, "; the peer offers {}", list(&self.theirs))?;
        }
        if let Some((ours, theirs, differences)) = self.nearest()
            && !differences.is_empty()
        {
            write!(f, "; nearest: {ours} here and {theirs} there differ in {}", differences.join(" and "))?;
            if differences == [ENCAPSULATION] {
                f.write_str(
                    " (one side sees a NAT and the other does not: something on the path changes IKE messages, or one \
                     side forces or forbids encapsulation)",
                )?;
            }
        }
        for fix in &self.fixes {
            write!(f, "; {} ", if self.fixes.len() == 1 { "change" } else { "check" })?;
            match (fix.side, &fix.source) {
                (Side::Ours, Some(source)) => write!(f, "{source}")?,
                (Side::Ours, None) => write!(f, "our {}", fix.setting.name())?,
                (Side::Theirs, _) => write!(f, "the peer's {}", fix.setting.name())?,
            }
            f.write_str(" or the peer's side")?;
        }
        Ok(())
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAnswer { sent } => {
                write!(
                    f,
                    "the peer did not answer {sent} messages: wrong address, a firewall on UDP 500/4500, or it is down"
                )
            }
            Self::UnknownPeer { claimed: None } => f.write_str("no connection is configured for this address"),
            Self::UnknownPeer { claimed: Some(id) } => write!(f, "no connection expects a peer that calls itself {id}"),
            Self::WrongPsk => f.write_str("the pre-shared keys differ"),
            Self::PeerRefusedUs { claimed } => {
                write!(
                    f,
                    "the peer refused our authentication as {claimed}: its key differs or it expects another identity"
                )
            }
            Self::WrongRemoteId { expected, got } => {
                write!(f, "the peer calls itself {got}, but {expected} is expected")
            }
            Self::WrongLocalId { ours, wanted } => write!(f, "the peer wants to talk to {wanted}, but we are {ours}"),
            Self::NoIkeProposal => f.write_str("no phase 1 proposal suits both sides"),
            Self::NoChildProposal => f.write_str("no phase 2 proposal suits both sides"),
            Self::NoGroup { wanted: Some(group) } => write!(f, "the peer insists on Diffie-Hellman group {group}"),
            Self::NoGroup { wanted: None } => f.write_str("no Diffie-Hellman group suits both sides"),
            Self::NoSelector => f.write_str("the traffic selectors have nothing in common"),
            Self::RefusedExchange(which) => write!(f, "refused: {which}"),
            Self::PeerSaid(what) => write!(f, "the peer refused with {what}"),
            Self::PeerMisbehaved(how) => write!(f, "the peer broke the protocol: {how}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::algorithm::{Encryption, Integrity, Prf};

    #[test]
    fn the_list_of_names_is_that_of_the_causes() {
        let id = Identity::Any;
        let causes = [
            Cause::NoAnswer { sent: 1 },
            Cause::UnknownPeer { claimed: None },
            Cause::WrongPsk,
            Cause::PeerRefusedUs { claimed: id.clone() },
            Cause::WrongRemoteId { expected: id.clone(), got: id.clone() },
            Cause::WrongLocalId { ours: id.clone(), wanted: id },
            Cause::NoIkeProposal,
            Cause::NoChildProposal,
            Cause::NoGroup { wanted: None },
            Cause::NoSelector,
            Cause::RefusedExchange(""),
            Cause::PeerSaid("".into()),
            Cause::PeerMisbehaved(""),
        ];
        assert_eq!(causes.map(|cause| cause.name()), Cause::NAMES);
    }

    fn proposal(encryption: Encryption, group: Group) -> Offer {
        Offer::from(&IkeProposal {
            encryption: vec![encryption],
            integrity: vec![Integrity::Sha1],
            prf: vec![Prf::Sha1],
            groups: vec![group],
        })
    }

    #[test]
    fn the_nearest_match_and_the_line_to_change_are_named() {
        let mut connection = Connection::named("Tunnel1");
        let source = Source { file: "aws.conf".into(), line: 10, text: "ike=aes128-sha1;modp1024".into() };
        connection.sources.set(Setting::Ike, source);
        let failure = Failure::new(Cause::NoIkeProposal, Side::Ours, Some(&connection)).with_offers(
            vec![proposal(Encryption::Aes128Cbc, Group::Modp1024)],
            vec![proposal(Encryption::Aes256Cbc, Group::Modp2048), proposal(Encryption::Aes128Cbc, Group::Modp2048)],
        );
        assert_eq!(
            failure.to_string(),
            "no phase 1 proposal suits both sides; we offer aes128-sha1-sha1-modp1024; the peer offers \
             aes256-sha1-sha1-modp2048, aes128-sha1-sha1-modp2048; nearest: aes128-sha1-sha1-modp1024 here and \
             aes128-sha1-sha1-modp2048 there differ in group; change aws.conf:10: ike=aes128-sha1;modp1024 or the \
             peer's side"
        );
    }
}
