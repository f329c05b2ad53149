//! The keywords of `ipsec.conf`, who knows them, and what they mean here.
//!
//! From ipsec.conf(5) of strongSwan 5.9, Libreswan 3.x to 5.x and Openswan 2.6. Keywords of one side are written
//! without their `left` or `right`.

use super::Dialect;
use super::sections::Kind;

/// Which programs know a keyword.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Both,
    Swan,
    Libre,
}
use Who::{Both, Libre, Swan};

/// What becomes of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// It is read into the model under this name.
    Read(&'static str),
    /// It is understood and makes no difference here, for this reason.
    Idle(&'static str),
}

/// Which side a keyword begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    Left,
    Right,
}

impl End {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Right => "right",
        }
    }

    pub(super) const fn other(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
        }
    }
}

/// A known keyword.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keyword {
    pub(super) end: Option<End>,
    pub(super) usage: Use,
    who: Who,
}

impl Keyword {
    pub(super) fn is_known_to(self, dialect: Dialect) -> bool {
        match self.who {
            Both => true,
            Swan => dialect == Dialect::StrongSwan,
            Libre => dialect == Dialect::Libreswan,
        }
    }

    /// The one dialect that knows it, where it is only one.
    pub(super) fn only_dialect(self) -> Option<Dialect> {
        match self.who {
            Both => None,
            Swan => Some(Dialect::StrongSwan),
            Libre => Some(Dialect::Libreswan),
        }
    }
}

/// (spellings, who, the name that it is read under)
type Reads = &'static [(&'static str, Who, &'static str)];
/// (spellings, who, why it makes no difference)
type Idles = &'static [(&'static str, Who, &'static str)];

const CONN: Reads = &[
    ("ike", Both, "ike"),
    ("esp", Both, "esp"),
    ("phase2alg", Libre, "esp"),
    ("phase2 auth", Libre, "phase2"),
    ("ah", Both, "ah"),
    ("type", Both, "type"),
    ("auto", Both, "auto"),
    ("authby", Both, "authby"),
    ("keyexchange", Both, "keyexchange"),
    ("ikev2", Libre, "ikev2"),
    ("pfs", Libre, "pfs"),
    ("pfsgroup", Libre, "pfsgroup"),
    ("ikelifetime", Both, "ikelifetime"),
    ("lifetime keylife", Both, "lifetime"),
    ("salifetime ipsec-lifetime", Libre, "lifetime"),
    ("rekeymargin", Both, "margintime"),
    ("margintime", Swan, "margintime"),
    ("rekeyfuzz", Both, "rekeyfuzz"),
    ("rekey", Both, "rekey"),
    ("lifebytes", Swan, "lifebytes"),
    ("ipsec-max-bytes", Libre, "lifebytes"),
    ("lifepackets", Swan, "lifepackets"),
    ("ipsec-max-packets", Libre, "lifepackets"),
    ("keyingtries", Both, "keyingtries"),
    ("dpddelay", Both, "dpddelay"),
    ("dpdtimeout", Both, "dpdtimeout"),
    ("dpdaction", Both, "dpdaction"),
    ("aggressive", Both, "aggressive"),
    ("aggrmode", Libre, "aggressive"),
    ("forceencaps", Both, "forceencaps"),
    ("encapsulation", Libre, "encapsulation"),
    ("nat-ikev1-method nat_ikev1_method", Libre, "nat-ikev1-method"),
    ("fragmentation", Both, "fragmentation"),
    ("ike-frag ike_frag", Libre, "fragmentation"),
    ("replay_window", Swan, "replay_window"),
    ("replay-window replay_window", Libre, "replay_window"),
    ("esn", Libre, "esn"),
    ("mark", Both, "mark"),
    ("mark_in", Swan, "mark_in"),
    ("mark-in", Libre, "mark_in"),
    ("mark_out", Swan, "mark_out"),
    ("mark-out", Libre, "mark_out"),
    ("vti-interface", Libre, "vti-interface"),
    ("vti-routing", Libre, "vti-routing"),
    ("ipsec-interface", Libre, "ipsec-interface"),
    ("mtu", Libre, "mtu"),
    ("encap-dscp", Libre, "encap-dscp"),
    ("xauth", Swan, "xauth"),
    ("sha2-truncbug sha2_truncbug", Libre, "sha2-truncbug"),
    ("initial-contact initial_contact", Libre, "initial-contact"),
    ("mediation", Swan, "mediation"),
];

const SIDE: Reads = &[
    ("", Both, ""),
    ("id", Both, "id"),
    ("auth", Both, "auth"),
    ("auth2", Swan, "auth2"),
    ("subnet", Both, "subnet"),
    ("subnets", Libre, "subnets"),
    ("protoport", Both, "protoport"),
    ("sourceip", Both, "sourceip"),
    ("addresspool", Libre, "addresspool"),
    ("ikeport", Both, "ikeport"),
    ("allowany", Swan, "allowany"),
    ("vti", Libre, "vti"),
    ("interface-ip", Libre, "vti"),
    ("updown", Both, "updown"),
    ("xauthserver xauthclient", Libre, "xauth"),
    ("modecfgserver modecfgclient", Libre, "modecfg"),
    ("autheap", Libre, "auth2"),
];

const SETUP: Reads = &[
    ("uniqueids", Both, "uniqueids"),
    ("ikeport", Libre, "ikeport"),
    ("nat-ikeport nat_ikeport", Libre, "nat-ikeport"),
    ("listen", Libre, "listen"),
    ("keep_alive", Both, "keep-alive"),
    ("keep-alive", Libre, "keep-alive"),
    ("ikev1-policy", Libre, "ikev1-policy"),
    ("max-halfopen-ike", Libre, "max-halfopen-ike"),
    ("ddos-ike-threshold ddos-ike-treshold", Libre, "ddos-ike-threshold"),
];

const CERTIFICATES: &str = "certificates take no part where keys are pre-shared";
const KERNEL: &str = "it tunes a kernel that this gateway does not use";
const LOGGING: &str = "the logs of this gateway are set on its command line";
const MODECFG: &str = "configuration payloads are not used between sites";
const OLD: &str = "the program itself has dropped it";
const ROUTING: &str = "the gateway sets the routes that its selectors need";
const ANSWERED: &str = "the gateway has a way of its own for it";

const IDLE_CONN: Idles = &[
    ("installpolicy", Swan, ROUTING),
    ("reauth", Both, "IKE SAs are rekeyed without authenticating again"),
    ("mobike", Both, "MOBIKE is not spoken; a peer whose NAT mapping moves is followed"),
    ("compress", Both, "IPComp is not negotiated"),
    ("closeaction", Swan, "a connection that its peer closes behaves as its start says"),
    ("inactivity", Swan, "a connection is not closed for being idle"),
    ("tfc", Both, "packets are not padded against traffic analysis"),
    ("reqid", Both, KERNEL),
    ("priority", Libre, "the most specific selector wins"),
    ("marginbytes marginpackets", Swan, "volumes are rekeyed at 80 per cent"),
    ("modeconfig", Swan, MODECFG),
    ("modecfgpull modecfgdns modecfgdns1 modecfgdns2 modecfgdomain modecfgdomains", Libre, MODECFG),
    ("modecfgbanner modecfgwins1 modecfgwins2 ignore-peer-dns cisco-unity cisco_unity", Libre, MODECFG),
    ("eap_identity aaa_identity xauth_identity", Swan, "EAP and XAUTH are not spoken"),
    ("xauthby xauthfail", Libre, "XAUTH is not spoken"),
    ("mediated_by me_peerid", Swan, "mediation is not spoken"),
    ("charonstart plutostart plutodebug eap pfs pfsgroup", Swan, OLD),
    ("auth", Swan, OLD),
    ("connaddrfamily hostaddrfamily clientaddrfamily", Libre, "the addresses themselves say their family"),
    ("narrowing", Libre, "a peer may always narrow the selectors"),
    ("overlapip", Libre, "each connection has its own security associations"),
    ("failureshunt negotiationshunt", Libre, "no packet of a connection ever leaves in the clear"),
    ("retransmit-timeout retransmit-interval", Libre, ANSWERED),
    ("nat-keepalive nat_keepalive", Libre, ANSWERED),
    ("vti-shared", Libre, "each connection has its own device"),
    ("metric", Libre, ROUTING),
    ("sareftrack nflog nflog-group", Libre, KERNEL),
    ("nic-offload nopmtudisc decap-dscp", Libre, KERNEL),
    ("ikepad", Libre, ANSWERED),
    ("send-vendorid send_vendorid send-redirect redirect-to accept-redirect accept-redirect-to", Libre, ANSWERED),
    ("fake-strongswan remote-peer-type remote_peer_type", Libre, ANSWERED),
    ("intermediate ppk enable-tcp tcp-remoteport iptfs", Libre, "it is optional and not spoken"),
    ("require-id-on-certificate sendca dns-match-id pam-authorize", Libre, CERTIFICATES),
    ("connalias nm-configured nm_configured disablearrivalcheck", Libre, ANSWERED),
    ("policy-label policy_label labeled-ipsec labeled_ipsec sec-label", Libre, KERNEL),
    ("debug", Libre, LOGGING),
    ("ms-dh-downgrade dns-resolver", Libre, ANSWERED),
    ("share-lease session-resumption", Libre, ANSWERED),
];

const IDLE_SIDE: Idles = &[
    ("firewall hostaccess", Both, "no firewall rules are needed for the tunnel's own packets"),
    ("nexthop", Both, "the kernel's routing finds the way"),
    ("natip", Swan, OLD),
    ("subnetwithin", Libre, OLD),
    ("dns", Swan, MODECFG),
    ("cert cert2 certpolicy sendcert ca ca2 groups groups2 rsasigkey sigkey id2", Both, CERTIFICATES),
    ("rsasigkey2 ecdsakey pubkey ckaid", Libre, CERTIFICATES),
    ("xauthusername xauthname username", Libre, "XAUTH is not spoken"),
    ("cat", Libre, ANSWERED),
];

const IDLE_SETUP: Idles = &[
    ("charondebug charonstart plutostart", Swan, LOGGING),
    ("strictcrlpolicy cachecrls crlcheckinterval nocrsend", Both, CERTIFICATES),
    ("crl-strict crl_strict ocsp-strict ocsp_strict ocsp-enable ocsp_enable ocsp-uri ocsp_uri", Libre, CERTIFICATES),
    ("ocsp-timeout ocsp_timeout ocsp-trustname ocsp_trust_name ocsp-method ocsp-cache-size", Libre, CERTIFICATES),
    ("ocsp-cache-min-age ocsp-cache-max-age curl-iface curl-timeout nssdir", Libre, CERTIFICATES),
    ("pkcs11module pkcs11initargs pkcs11keepstate pkcs11proxy", Swan, CERTIFICATES),
    ("plutodebug klipsdebug plutostderrlog prepluto postpluto dumpdir", Both, LOGGING),
    ("logfile logtime logappend logip syslog audit-log plutostderrlogtime debug perpeerlog", Libre, LOGGING),
    ("perpeerlogdir statsbin plutorestartoncrash plutofork pluto plutoopts plutowait", Libre, LOGGING),
    ("nat_traversal force_keepalive", Both, "NAT traversal is always on"),
    ("nat-traversal disable_port_floating", Libre, "NAT traversal is always on"),
    ("virtual_private", Both, "a peer's networks are those that its connection names"),
    ("virtual-private", Libre, "a peer's networks are those that its connection names"),
    ("oe drop-oppo-null myid", Libre, "opportunistic encryption is not spoken"),
    ("protostack xfrmlifetime nflog-all nhelpers seedbits secctx-attr-type secctx-attr-value", Libre, KERNEL),
    ("ike-socket-bufsize ike-socket-errqueue seccomp forwardcontrol rp_filter", Libre, KERNEL),
    ("interfaces fragicmp hidetos overridemtu packetdefault", Both, KERNEL),
    ("shuntlifetime ddos-mode force-busy force_busy listen-tcp listen-udp myvendorid", Libre, ANSWERED),
    ("global-redirect global-redirect-to dnssec-enable dnssec-rootkey-file dnssec-anchors", Libre, ANSWERED),
    ("ipsecdir secretsfile", Libre, "the files to read are named on the command line"),
];

fn in_table(
    table: &'static [(&'static str, Who, &'static str)],
    key: &str,
    dialect: Option<Dialect>,
) -> Option<(Who, &'static str)> {
    let named = |names: &str| names.is_empty() && key.is_empty() || names.split(' ').any(|name| name == key);
    let fits = |who: Who| match (who, dialect) {
        (Both, _) | (_, None) | (Swan, Some(Dialect::StrongSwan)) | (Libre, Some(Dialect::Libreswan)) => true,
        (Swan, Some(Dialect::Libreswan)) | (Libre, Some(Dialect::StrongSwan)) => false,
    };
    table.iter().find(|(names, who, _)| named(names) && fits(*who)).map(|(_, who, meant)| (*who, *meant))
}

/// The keyword `key` in a section of `kind`, as `dialect` knows it, or else as anyone does.
pub(super) fn find(kind: Kind, key: &str, dialect: Dialect) -> Option<Keyword> {
    let key = key.to_ascii_lowercase();
    find_for(kind, &key, Some(dialect)).or_else(|| find_for(kind, &key, None))
}

/// The keyword `key` as anyone knows it; where several do, as one that both do.
pub(super) fn find_any(kind: Kind, key: &str) -> Option<Keyword> {
    let [swan, libre] = [Dialect::StrongSwan, Dialect::Libreswan].map(|dialect| find_for(kind, key, Some(dialect)));
    match (swan, libre) {
        (Some(swan), Some(_)) => Some(Keyword { who: Both, ..swan }),
        (one, other) => one.or(other),
    }
}

fn find_for(kind: Kind, key: &str, dialect: Option<Dialect>) -> Option<Keyword> {
    let of = |reads: Reads, idles: Idles, key: &str, end: Option<End>| {
        let read = in_table(reads, key, dialect).map(|(who, name)| Keyword { end, usage: Use::Read(name), who });
        read.or_else(|| in_table(idles, key, dialect).map(|(who, why)| Keyword { end, usage: Use::Idle(why), who }))
    };
    if kind == Kind::Setup {
        return of(SETUP, IDLE_SETUP, key, None);
    }
    let sided = [End::Left, End::Right].into_iter().find_map(|end| {
        let suffix = key.strip_prefix(end.name())?;
        of(SIDE, IDLE_SIDE, suffix, Some(end))
    });
    sided.or_else(|| of(CONN, IDLE_CONN, key, None))
}

/// Every keyword of sections of `kind` that `dialect` knows, to find the nearest.
pub(super) fn names(kind: Kind, dialect: Dialect) -> Vec<String> {
    let own = |who: Who| Keyword { end: None, usage: Use::Idle(""), who }.is_known_to(dialect);
    let spelled = |table: &'static [(&'static str, Who, &'static str)]| {
        table.iter().filter(move |(_, who, _)| own(*who)).flat_map(|(names, _, _)| names.split(' '))
    };
    if kind == Kind::Setup {
        return spelled(SETUP).chain(spelled(IDLE_SETUP)).map(str::to_owned).collect();
    }
    let plain = spelled(CONN).chain(spelled(IDLE_CONN)).chain(["also"]).map(str::to_owned);
    let sided = [End::Left, End::Right]
        .into_iter()
        .flat_map(|end| spelled(SIDE).chain(spelled(IDLE_SIDE)).map(move |name| format!("{}{name}", end.name())));
    plain.chain(sided).collect()
}
