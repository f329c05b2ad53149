//! Vendor IDs, and NAT traversal as they negotiate it (RFC 3947 and draft-ietf-ipsec-nat-t-ike-02, -03).

use base::Random;
use base::algorithm::Prf;
use model::Encapsulation;
use serde::{Deserialize, Serialize};

use super::keys::Cookies;
use crate::context::Ends;
use crate::natt::address_bytes;
use crate::wire::v1::{Chain, Payloads, payload};

/// A vendor ID that we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vendor {
    NatT(Dialect),
    /// draft-00 and draft-01, which nobody speaks any more.
    OldNatT,
    Dpd,
    Xauth,
    /// Cisco's fragments of IKEv1 messages: understood as a name, never used.
    Fragmentation,
    CiscoUnity,
}

/// Which NAT traversal, best last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Dialect {
    Draft02,
    /// The same with a newline in the text that was hashed: a slip that became the common spelling.
    Draft02Newline,
    Draft03,
    Rfc3947,
}

const KNOWN: [(Vendor, &[u8]); 10] = [
    (Vendor::NatT(Dialect::Rfc3947), b"\x4a\x13\x1c\x81\x07\x03\x58\x45\x5c\x57\x28\xf2\x0e\x95\x45\x2f"),
    (Vendor::NatT(Dialect::Draft03), b"\x7d\x94\x19\xa6\x53\x10\xca\x6f\x2c\x17\x9d\x92\x15\x52\x9d\x56"),
    (Vendor::NatT(Dialect::Draft02Newline), b"\x90\xcb\x80\x91\x3e\xbb\x69\x6e\x08\x63\x81\xb5\xec\x42\x7b\x1f"),
    (Vendor::NatT(Dialect::Draft02), b"\xcd\x60\x46\x43\x35\xdf\x21\xf8\x7c\xfd\xb2\xfc\x68\xb6\xa4\x48"),
    (Vendor::OldNatT, b"\x44\x85\x15\x2d\x18\xb6\xbb\xcd\x0b\xe8\xa8\x46\x95\x79\xdd\xcc"),
    (Vendor::OldNatT, b"\x16\xf6\xca\x16\xe4\xa4\x06\x6d\x83\x82\x1a\x0f\x0a\xea\xa8\x62"),
    (Vendor::Dpd, b"\xaf\xca\xd7\x13\x68\xa1\xf1\xc9\x6b\x86\x96\xfc\x77\x57\x01\x00"),
    (Vendor::Xauth, b"\x09\x00\x26\x89\xdf\xd6\xb7\x12"),
    (Vendor::Fragmentation, b"\x40\x48\xb7\xd5\x6e\xbc\xe8\x85\x25\xe7\xde\x7f\x00\xd6\xc2\xd3"),
    (Vendor::CiscoUnity, b"\x12\xf5\xf2\x8c\x45\x71\x68\xa9\x70\x2d\x9f\xe2\x74\xcc"),
];

/// What a vendor ID says, when it is one of those we know. Some carry a version behind the hash.
fn known(body: &[u8]) -> Option<Vendor> {
    let fits = |vendor, id: &[u8]| match vendor {
        Vendor::Fragmentation | Vendor::CiscoUnity => body.starts_with(id),
        // RFC 3706 §5.1: the last two bytes are the version; a minor one does not matter.
        Vendor::Dpd => body.len() == id.len() && body.starts_with(&id[..15]),
        Vendor::NatT(_) | Vendor::OldNatT | Vendor::Xauth => body == id,
    };
    KNOWN.into_iter().find(|(vendor, id)| fits(*vendor, id)).map(|(vendor, _)| vendor)
}

/// What a peer's vendor IDs tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Abilities {
    pub(super) nat_t: Option<Dialect>,
    pub(super) dpd: bool,
}

impl Abilities {
    /// What the vendor IDs of a message say.
    pub(super) fn read(chain: &Chain<'_>) -> Self {
        let mut abilities = Self::default();
        for vendor in chain.all(payload::VENDOR).filter_map(known) {
            match vendor {
                Vendor::NatT(dialect) => abilities.nat_t = abilities.nat_t.max(Some(dialect)),
                Vendor::Dpd => abilities.dpd = true,
                Vendor::OldNatT | Vendor::Xauth | Vendor::Fragmentation | Vendor::CiscoUnity => {}
            }
        }
        abilities
    }

    /// The same, without NAT traversal where the connection never wants it.
    pub(super) fn wanted(self, encapsulation: Encapsulation) -> Self {
        Self { nat_t: self.nat_t.filter(|_| encapsulation != Encapsulation::Never), ..self }
    }
}

fn id_of(vendor: Vendor) -> &'static [u8] {
    KNOWN.into_iter().find(|(known, _)| *known == vendor).map_or(&[], |(_, id)| id)
}

/// Appends the vendor IDs of an initiator's first message: all that it speaks.
pub(super) fn offer_vendors(payloads: Payloads, encapsulation: Encapsulation) -> Payloads {
    let payloads = payloads.with(payload::VENDOR, id_of(Vendor::Dpd));
    if encapsulation == Encapsulation::Never {
        return payloads;
    }
    [Dialect::Rfc3947, Dialect::Draft03, Dialect::Draft02Newline, Dialect::Draft02]
        .into_iter()
        .fold(payloads, |payloads, dialect| payloads.with(payload::VENDOR, id_of(Vendor::NatT(dialect))))
}

/// Appends the vendor IDs of a responder's first message: DPD, and the one NAT traversal that is spoken.
pub(super) fn answer_vendors(payloads: Payloads, nat_t: Option<Dialect>) -> Payloads {
    let payloads = payloads.with(payload::VENDOR, id_of(Vendor::Dpd));
    match nat_t {
        Some(dialect) => payloads.with(payload::VENDOR, id_of(Vendor::NatT(dialect))),
        None => payloads,
    }
}

impl Dialect {
    const fn nat_d(self) -> u8 {
        match self {
            Self::Rfc3947 => payload::NAT_D,
            Self::Draft02 | Self::Draft02Newline | Self::Draft03 => payload::NAT_D_DRAFT,
        }
    }

    /// UDP-Encapsulated-Tunnel of phase 2 (RFC 3947 §5.1; the drafts took a private number).
    pub(super) const fn udp_tunnel(self) -> u16 {
        match self {
            Self::Rfc3947 => 3,
            Self::Draft02 | Self::Draft02Newline | Self::Draft03 => 61_443,
        }
    }
}

/// What NAT detection found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Nat {
    /// How both sides speak of it, where they do.
    pub(super) dialect: Option<Dialect>,
    /// Our address is translated.
    pub(super) ours: bool,
    /// The peer's address is translated.
    pub(super) theirs: bool,
}

impl Nat {
    /// Whether ESP goes in UDP and IKE on the port it shares with that.
    pub(super) fn is_found(self) -> bool {
        self.dialect.is_some() && (self.ours || self.theirs)
    }

    /// The encapsulation mode of phase 2: tunnel, or tunnel in UDP.
    pub(super) fn mode(self) -> u16 {
        match self.dialect {
            Some(dialect) if self.is_found() => dialect.udp_tunnel(),
            Some(_) | None => super::phase2::TUNNEL,
        }
    }
}

/// The hash of an address (RFC 3947 §3.2).
fn nat_hash(hash: Prf, cookies: Cookies, address: std::net::SocketAddr) -> Vec<u8> {
    crypto::hash(hash, &[&cookies.bytes(), &address_bytes(address)])
}

/// Appends NAT discovery: first the peer's address, then ours, which is a lie where a NAT is to be seen.
pub(super) fn detect(
    payloads: Payloads,
    dialect: Dialect,
    hash: Prf,
    cookies: Cookies,
    ends: Ends,
    encapsulation: Encapsulation,
    random: &mut Random,
) -> Payloads {
    let ours = match encapsulation {
        Encapsulation::Force => random.secret(hash.output_len()).expose().to_vec(),
        Encapsulation::Auto | Encapsulation::Never => nat_hash(hash, cookies, ends.local),
    };
    payloads.with(dialect.nat_d(), &nat_hash(hash, cookies, ends.remote)).with(dialect.nat_d(), &ours)
}

/// What a peer's NAT discovery shows. Without any, there is no NAT.
pub(super) fn detected(
    chain: &Chain<'_>,
    dialect: Dialect,
    hash: Prf,
    cookies: Cookies,
    ends: Ends,
    encapsulation: Encapsulation,
) -> Nat {
    let is_nat_d = |kind: u8| matches!(kind, payload::NAT_D | payload::NAT_D_DRAFT | payload::NAT_D_LATE_DRAFT);
    let mut seen = chain.payloads().iter().filter(|p| is_nat_d(p.kind)).map(|p| p.body);
    let Some(about_us) = seen.next() else { return Nat::default() };
    let theirs = nat_hash(hash, cookies, ends.remote);
    Nat {
        dialect: Some(dialect),
        ours: about_us != nat_hash(hash, cookies, ends.local) || encapsulation == Encapsulation::Force,
        theirs: !seen.any(|hash| hash == theirs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vendor_ids_are_the_hashes_of_their_texts() {
        let md5 = |text: &str| crypto::hash(Prf::Md5, &[text.as_bytes()]);
        for (text, vendor) in [
            ("RFC 3947", Vendor::NatT(Dialect::Rfc3947)),
            ("draft-ietf-ipsec-nat-t-ike-03", Vendor::NatT(Dialect::Draft03)),
            ("draft-ietf-ipsec-nat-t-ike-02\n", Vendor::NatT(Dialect::Draft02Newline)),
            ("draft-ietf-ipsec-nat-t-ike-02", Vendor::NatT(Dialect::Draft02)),
            ("draft-ietf-ipsec-nat-t-ike-00", Vendor::OldNatT),
            ("FRAGMENTATION", Vendor::Fragmentation),
        ] {
            assert_eq!(known(&md5(text)), Some(vendor), "{text}");
        }
        assert_eq!(known(b"something else"), None);
    }

    #[test]
    fn a_nat_is_seen_on_the_side_where_it_is() {
        let cookies = Cookies { initiator: 1, responder: 2 };
        let ends = |local: &str, remote: &str| Ends { local: local.parse().unwrap(), remote: remote.parse().unwrap() };
        let inside = ends("10.0.0.1:500", "192.0.2.2:500");
        let detect = |ends, encapsulation| {
            let mut random = Random::for_test(1);
            detect(Payloads::new(), Dialect::Rfc3947, Prf::Sha1, cookies, ends, encapsulation, &mut random)
        };
        let detected = |payloads: &Payloads, ends| {
            let chain = Chain::decode(payloads.first(), payloads.bytes(), crate::wire::v1::Padding::Clear).unwrap();
            let nat = detected(&chain, Dialect::Rfc3947, Prf::Sha1, cookies, ends, Encapsulation::Auto);
            (nat.ours, nat.theirs)
        };
        let auto = detect(inside, Encapsulation::Auto);
        assert_eq!(detected(&auto, ends("192.0.2.2:500", "10.0.0.1:500")), (false, false));
        assert_eq!(detected(&auto, ends("192.0.2.2:500", "198.51.100.1:4711")), (false, true));
        assert_eq!(detected(&auto, ends("10.9.9.9:500", "10.0.0.1:500")), (true, false));
        let forced = detect(inside, Encapsulation::Force);
        assert_eq!(detected(&forced, ends("192.0.2.2:500", "10.0.0.1:500")), (false, true));
    }
}
