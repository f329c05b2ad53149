//! Phase 1 proposals (RFC 2409 App. A): what we offer, what of a peer's offer suits.

use std::fmt;
use std::time::Duration;

use base::algorithm::{Encryption, Group, Prf};
use model::{Connection, IkeProposal};

use crate::Offer;
use crate::wire::v1::{Attribute, Proposal, SaPayload, Transform, attribute_value, protocol};

const ENCRYPTION: u16 = 1;
const HASH: u16 = 2;
const AUTHENTICATION: u16 = 3;
const GROUP: u16 = 4;
const LIFE_TYPE: u16 = 11;
const LIFE_DURATION: u16 = 12;
const KEY_LENGTH: u16 = 14;
/// KEY_IKE.
const KEY_IKE: u8 = 1;
const PSK: u16 = 1;
const SECONDS: u16 = 1;

/// Transforms that we offer: with more, the first message would not fit one packet.
const MAX_OFFERED: usize = 30;

/// What phase 1 agrees on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Suite {
    pub(super) encryption: Encryption,
    pub(super) hash: Prf,
    pub(super) group: Group,
}

impl Suite {
    pub(super) const fn is_weak(self) -> bool {
        self.encryption.is_weak() || self.hash.is_weak() || self.group.is_weak()
    }

    /// Whether one of `proposals` has all of it.
    pub(super) fn is_in(self, proposals: &[IkeProposal]) -> bool {
        proposals.iter().any(|p| {
            p.encryption.contains(&self.encryption) && p.prf.contains(&self.hash) && p.groups.contains(&self.group)
        })
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.encryption, self.hash, self.group)
    }
}

/// The suites of `proposals` that IKEv1 can express, in order of preference, no more than fit.
fn suites(proposals: &[IkeProposal]) -> Vec<Suite> {
    let mut suites = Vec::new();
    for proposal in proposals {
        for &hash in &proposal.prf {
            for &encryption in proposal.encryption.iter().filter(|e| e.v1_phase1_id().is_some()) {
                for &group in &proposal.groups {
                    let suite = Suite { encryption, hash, group };
                    if !suites.contains(&suite) {
                        suites.push(suite);
                    }
                }
            }
        }
    }
    suites.truncate(MAX_OFFERED);
    suites
}

/// The SA payload of our first message.
pub(super) fn offer(connection: &Connection) -> SaPayload {
    let lifetime = connection.ike_lifetime.time.as_secs();
    let transform = |(number, suite): (u8, Suite)| {
        let mut attributes =
            vec![Attribute::basic(ENCRYPTION, suite.encryption.v1_phase1_id().expect("filtered in suites()"))];
        attributes.extend(suite.encryption.key_bits_attribute().map(|bits| Attribute::basic(KEY_LENGTH, bits)));
        attributes.extend([
            Attribute::basic(HASH, suite.hash.v1_hash_id()),
            Attribute::basic(GROUP, suite.group.id()),
            Attribute::basic(AUTHENTICATION, PSK),
            Attribute::basic(LIFE_TYPE, SECONDS),
            Attribute::number(LIFE_DURATION, lifetime),
        ]);
        Transform { number, id: KEY_IKE, attributes }
    };
    let transforms = (1..).zip(suites(&connection.ike)).map(transform).collect();
    SaPayload { proposals: vec![Proposal { number: 1, protocol: protocol::ISAKMP, spi: Vec::new(), transforms }] }
}

/// What a transform of a peer says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Offered {
    encryption: Option<u16>,
    key_bits: Option<u16>,
    hash: Option<u16>,
    authentication: Option<u16>,
    group: Option<u16>,
    seconds: Option<u64>,
    /// It says something that we do not know, such as a group of its own.
    is_foreign: bool,
}

impl Offered {
    pub(super) fn read(transform: &Transform) -> Self {
        let mut offered = Self { is_foreign: transform.id != KEY_IKE, ..Self::default() };
        let mut life_type = 0;
        for Attribute { kind, value } in &transform.attributes {
            let number = attribute_value(value);
            let short = u16::try_from(number).unwrap_or(u16::MAX);
            match *kind {
                ENCRYPTION => offered.encryption = Some(short),
                KEY_LENGTH => offered.key_bits = Some(short),
                HASH => offered.hash = Some(short),
                AUTHENTICATION => offered.authentication = Some(short),
                GROUP => offered.group = Some(short),
                LIFE_TYPE => life_type = short,
                // Deliberate: a volume limit of phase 1 is accepted and not counted; phase 1 carries next to nothing.
                LIFE_DURATION if life_type == SECONDS => offered.seconds = Some(number),
                LIFE_DURATION => {}
                _ => offered.is_foreign = true,
            }
        }
        offered
    }

    fn encryption(self) -> Option<Encryption> {
        Encryption::from_v1_phase1(self.encryption?, self.key_bits)
    }

    /// The suite, where we know all of it and it is authenticated with a pre-shared key.
    pub(super) fn suite(self) -> Option<Suite> {
        if self.is_foreign || self.authentication != Some(PSK) {
            return None;
        }
        let hash = Prf::from_v1_hash(self.hash?)?;
        Some(Suite { encryption: self.encryption()?, hash, group: Group::from_id(self.group?)? })
    }

    /// The lifetime it names.
    pub(super) fn lifetime(self) -> Option<Duration> {
        self.seconds.filter(|seconds| *seconds > 0).map(Duration::from_secs)
    }

    /// How a person reads it.
    fn offer(self) -> Offer {
        let named = |known: Option<String>, what: &str, number: Option<u16>| match (known, number) {
            (Some(name), _) => vec![name],
            (None, Some(number)) => vec![format!("{what} {number}")],
            (None, None) => vec![],
        };
        let hash = self.hash.and_then(Prf::from_v1_hash).map(|hash| hash.to_string());
        Offer::new([
            ("encryption", named(self.encryption().map(|e| e.to_string()), "encryption", self.encryption)),
            ("hash or prf", named(hash, "hash", self.hash)),
            ("group", named(self.group.and_then(Group::from_id).map(|g| g.to_string()), "group", self.group)),
            ("authentication", named(self.method().map(str::to_owned), "authentication", self.authentication)),
        ])
    }

    fn method(self) -> Option<&'static str> {
        match self.authentication? {
            PSK => Some("psk"),
            2 => Some("dss"),
            3 => Some("rsa-sig"),
            4 | 5 => Some("rsa-encryption"),
            9..=11 => Some("ecdsa"),
            64_221..=64_224 => Some("hybrid"),
            65_001..=65_010 => Some("xauth"),
            _ => None,
        }
    }
}

/// Our offer as a person reads it.
pub(super) fn our_offers(connection: &Connection) -> Vec<Offer> {
    let names = |proposal: &IkeProposal| {
        let encryption = proposal.encryption.iter().filter(|e| e.v1_phase1_id().is_some());
        Offer::new([
            ("encryption", encryption.map(ToString::to_string).collect()),
            ("hash or prf", proposal.prf.iter().map(ToString::to_string).collect()),
            ("group", proposal.groups.iter().map(ToString::to_string).collect()),
            ("authentication", vec!["psk".to_owned()]),
        ])
    };
    connection.ike.iter().filter(|p| p.encryption.iter().any(|e| e.v1_phase1_id().is_some())).map(names).collect()
}

/// A peer's offer as a person reads it.
pub(super) fn their_offers(payload: &SaPayload) -> Vec<Offer> {
    let transforms = payload.proposals.iter().flat_map(|p| &p.transforms);
    let mut offers: Vec<Offer> = transforms.map(|t| Offered::read(t).offer()).collect();
    offers.dedup();
    offers
}

/// Why the whole of a peer's offer is refused, where it only offers kinds of authentication that are not supported.
pub(super) fn refused_authentication(payload: &SaPayload) -> Option<&'static str> {
    let mut methods = payload.proposals.iter().flat_map(|p| &p.transforms).map(|t| Offered::read(t).method());
    let first = methods.next()??;
    let same = methods.all(|method| method == Some(first));
    match first {
        "xauth" if same => Some("XAUTH: only pre-shared keys without user authentication are supported"),
        "dss" | "rsa-sig" | "rsa-encryption" | "ecdsa" | "hybrid" if same => {
            Some("certificates: IKEv1 peers authenticate with pre-shared keys only")
        }
        _ => None,
    }
}

/// What a responder chose of an offer.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    pub(super) suite: Suite,
    pub(super) lifetime: Option<Duration>,
    /// The answer: the one transform, exactly as it was offered (RFC 2409 §5).
    pub(super) answer: SaPayload,
}

/// The first transform of an offer that suits `proposals`: the initiator's order counts.
pub(super) fn choose(payload: &SaPayload, proposals: &[IkeProposal]) -> Option<Choice> {
    for proposal in payload.proposals.iter().filter(|p| p.protocol == protocol::ISAKMP) {
        for transform in &proposal.transforms {
            let offered = Offered::read(transform);
            if let Some(suite) = offered.suite().filter(|suite| suite.is_in(proposals)) {
                let answer = Proposal { transforms: vec![transform.clone()], ..proposal.clone() };
                return Some(Choice {
                    suite,
                    lifetime: offered.lifetime(),
                    answer: SaPayload { proposals: vec![answer] },
                });
            }
        }
    }
    None
}

/// What the responder's answer chooses, when it is one of `proposals`.
pub(super) fn chosen(answer: &SaPayload, proposals: &[IkeProposal]) -> Option<(Suite, Option<Duration>)> {
    let [Proposal { protocol: protocol::ISAKMP, transforms, .. }] = answer.proposals.as_slice() else { return None };
    let [transform] = transforms.as_slice() else { return None };
    let offered = Offered::read(transform);
    let suite = offered.suite().filter(|suite| suite.is_in(proposals))?;
    Some((suite, offered.lifetime()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(text: &[(Encryption, Prf, Group)]) -> Connection {
        let mut connection = Connection::named("t");
        connection.ike = text
            .iter()
            .map(|&(e, h, g)| IkeProposal { encryption: vec![e], integrity: vec![], prf: vec![h], groups: vec![g] })
            .collect();
        connection
    }

    #[test]
    fn the_initiators_first_suitable_transform_is_chosen_and_echoed() {
        let aes128 = (Encryption::Aes128Cbc, Prf::Sha1, Group::Modp1024);
        let aes256 = (Encryption::Aes256Cbc, Prf::Sha256, Group::Modp2048);
        let offered = offer(&connection(&[aes256, aes128]));
        let choice = choose(&offered, &connection(&[aes128]).ike).unwrap();
        assert_eq!(choice.suite.to_string(), "aes128-sha1-modp1024");
        assert_eq!(choice.answer.proposals[0].transforms, [offered.proposals[0].transforms[1].clone()]);
        assert_eq!(choice.lifetime, Some(Duration::from_secs(28_800)));
        let both = connection(&[aes128, aes256]);
        assert_eq!(choose(&offered, &both.ike).unwrap().suite.to_string(), "aes256-sha256-modp2048");
        let (suite, _) = chosen(&choice.answer, &both.ike).unwrap();
        assert_eq!(suite, choice.suite);
        assert!(chosen(&offered, &both.ike).is_none(), "an answer has one transform");
        assert!(choose(&offered, &connection(&[(aes128.0, aes128.1, Group::Modp1536)]).ike).is_none());
    }

    #[test]
    fn the_default_offer_fits_a_packet() {
        let bytes = offer(&Connection::named("t")).encode();
        assert!(bytes.len() < 1_200, "{}", bytes.len());
    }

    #[test]
    fn lifetimes_of_any_width_are_read_in_pairs_with_their_types() {
        let mut transform = offer(&connection(&[(Encryption::Aes128Cbc, Prf::Sha1, Group::Modp1024)])).proposals[0]
            .transforms[0]
            .clone();
        transform.attributes.truncate(5);
        let life = |kind: u16, value: u64| [Attribute::basic(LIFE_TYPE, kind), Attribute::number(LIFE_DURATION, value)];
        transform.attributes.extend(life(2, 4_608_000));
        transform.attributes.extend(life(1, 86_400));
        let offered = Offered::read(&transform);
        assert_eq!(offered.lifetime(), Some(Duration::from_secs(86_400)));
        assert!(offered.suite().is_some());
    }

    #[test]
    fn an_offer_of_xauth_or_certificates_alone_says_so() {
        let mut offered = offer(&connection(&[(Encryption::Aes128Cbc, Prf::Sha1, Group::Modp1024)]));
        let method = |offered: &mut SaPayload, method| {
            offered.proposals[0].transforms[0].attributes[4] = Attribute::basic(AUTHENTICATION, method);
        };
        assert_eq!(refused_authentication(&offered), None);
        method(&mut offered, 65_001);
        assert!(refused_authentication(&offered).unwrap().starts_with("XAUTH"));
        method(&mut offered, 3);
        assert!(refused_authentication(&offered).unwrap().starts_with("certificates"));
    }
}
