//! From the settings of one `conn` to a connection of the model, each as its own dialect means it.

use std::ops::RangeInclusive;
use std::time::Duration;

use base::algorithm::Group;
use model::{
    Child, Connection, Dpd, DpdAction, Encapsulation, EspProposal, IkeLifetime, IkeProposal, Lifetime, Routing, Start,
    Tries, Uniqueness, Version, Versions,
};

use super::keywords::End;
use super::resolve::Conn;
use super::sections::Setting;
use super::vti::{VtiDevice, from_updown, parse_number};
use super::{Dialect, Options};
use crate::diagnostic::{Diagnostic, Place, Report, nearest};
use crate::proposal::{self, Habits, ProposalError};
use crate::units;

/// What holds for every connection of a file.
pub(super) struct Context<'a> {
    pub(super) dialect: Dialect,
    /// Whether the file is of Libreswan 4 or later, whose defaults differ.
    pub(super) is_modern: bool,
    pub(super) uniqueness: Uniqueness,
    pub(super) options: &'a Options,
    pub(super) devices: &'a [VtiDevice],
}

/// One connection under way.
pub(super) struct Builder<'a> {
    pub(super) conn: &'a Conn,
    pub(super) context: &'a Context<'a>,
    pub(super) report: &'a mut Report,
}

/// The connection that `conn` is; nothing where it is not to be loaded or cannot be.
pub(super) fn connection(conn: &Conn, context: &Context<'_>, report: &mut Report) -> Option<Connection> {
    let mut builder = Builder { conn, context, report };
    let start = builder.start()?;
    let own = builder.local_end();
    if conn.is_template && conn.side(own.other(), "").is_none() {
        let text =
            format!("connection {} is for others to inherit from: it names no peer and is not loaded", conn.name);
        builder.report.note(&conn.place, text);
        return None;
    }
    builder.refuse();
    let mut connection = Connection::named(&conn.name);
    connection.local = builder.side_of(own, true);
    connection.remote = builder.side_of(own.other(), false);
    connection.versions = builder.versions();
    connection.ike = builder.ike(connection.versions);
    connection.ike_lifetime = builder.ike_lifetime();
    connection.dpd = builder.dpd(connection.versions);
    connection.encapsulation = builder.encapsulation(connection.versions);
    connection.tries = builder.tries();
    connection.uniqueness = context.uniqueness;
    connection.fragmentation = builder.fragmentation();
    connection.children = builder.children(&connection, own, start);
    builder.remember(&mut connection, own);
    Some(connection)
}

impl<'a> Builder<'a> {
    pub(super) fn fault(&mut self, setting: &Setting, message: impl Into<String>) {
        self.report.error(Diagnostic::at(setting.value_place.clone(), message));
    }

    /// The value of a setting that is one of a few words.
    fn word<T: Copy>(&mut self, setting: &Setting, choices: &[(&str, T)]) -> Option<T> {
        let value = setting.value.to_ascii_lowercase();
        let found = choices.iter().find(|(name, _)| *name == value).map(|(_, meant)| *meant);
        if found.is_none() {
            let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
            let message = format!("{} cannot be {:?}", setting.key, setting.value);
            let mut diagnostic = Diagnostic::at(setting.value_place.clone(), message);
            if let Some(name) = nearest(&value, names.iter().copied()) {
                diagnostic = diagnostic.help(format!("did you mean {name}?"));
            }
            self.report.error(diagnostic.help(format!("it is one of {}", names.join(", "))));
        }
        found
    }

    pub(super) fn flag_of(&mut self, setting: &Setting) -> bool {
        units::flag(&setting.value)
            .map_err(|why| self.fault(setting, format!("{}: {why}", setting.key)))
            .unwrap_or(false)
    }

    fn flag(&mut self, name: &'static str, default: bool) -> bool {
        self.conn.get(name).map_or(default, |setting| self.flag_of(setting))
    }

    pub(super) fn number<T: TryFrom<u64>>(&mut self, setting: &Setting, bounds: RangeInclusive<u64>) -> Option<T> {
        let number = setting.value.parse::<u64>().ok().filter(|number| bounds.contains(number));
        if number.is_none() {
            self.fault(setting, format!("{} is a number from {} to {}", setting.key, bounds.start(), bounds.end()));
        }
        number.and_then(|number| T::try_from(number).ok())
    }

    fn time(&mut self, name: &'static str, default: Duration) -> Duration {
        let Some(setting) = self.conn.get(name) else { return default };
        let time = units::duration(&setting.value);
        time.map_err(|why| self.fault(setting, format!("{}: {why}", setting.key))).unwrap_or(default)
    }

    fn is_libreswan(&self) -> bool {
        self.context.dialect == Dialect::Libreswan
    }

    /// When the connection is brought up; nothing where it is not loaded at all.
    fn start(&mut self) -> Option<Start> {
        let words = [
            ("ignore", None),
            ("add", Some(Start::Wait)),
            ("keep", Some(Start::Wait)),
            ("route", Some(Start::OnTraffic)),
            ("ondemand", Some(Start::OnTraffic)),
            ("start", Some(Start::AtOnce)),
            ("up", Some(Start::AtOnce)),
        ];
        let start = match self.conn.get("auto") {
            Some(setting) => self.word(setting, &words)?,
            None => None,
        };
        if start.is_none() && !self.conn.is_template {
            let text = format!("connection {} is not loaded: auto=ignore, which is the default", self.conn.name);
            self.report.note(&self.conn.place, text);
        }
        start
    }

    /// An error for everything that would have to be a different connection here.
    fn refuse(&mut self) {
        if let Some(setting) = self.conn.get("type")
            && !setting.value.eq_ignore_ascii_case("tunnel")
        {
            let message = match setting.value.to_ascii_lowercase().as_str() {
                "transport" | "transport_proxy" | "beet" => {
                    "only tunnel mode is supported: this gateway joins networks, not hosts".to_owned()
                }
                "passthrough" | "pass" | "drop" | "reject" => {
                    "policies without a tunnel are not supported: what no connection names is not touched".to_owned()
                }
                other => format!("type cannot be {other:?}: it is tunnel"),
            };
            self.fault(setting, message);
        }
        if let Some(setting) = self.conn.get("aggressive")
            && self.flag_of(setting)
        {
            let why = "aggressive mode is refused: it gives everyone who asks a hash of the key to guess at";
            self.fault(setting, why);
        }
        let refused = [
            ("ah", "AH does not encrypt and does not pass a NAT: it is not supported"),
            ("xauth", "XAUTH is refused: it authenticates persons, not sites"),
            ("mediation", "mediation is not supported"),
        ];
        for (name, why) in refused {
            if let Some(setting) = self.conn.get(name) {
                self.fault(setting, why);
            }
        }
        if let Some(setting) = self.conn.get("phase2") {
            self.word(setting, &[("esp", ()), ("default", ())]);
        }
        if let Some(setting) = self.conn.get("sha2-truncbug")
            && self.flag_of(setting)
        {
            self.fault(setting, "the 96-bit truncation of SHA2-256 is not standard and not implemented here");
        }
        if let Some(setting) = self.conn.get("rekey")
            && !self.flag_of(setting)
        {
            self.report.note(&setting.key_place, "rekey=no: the gateway rekeys before a key expires all the same");
        }
        for end in [End::Left, End::Right] {
            self.refuse_for(end);
        }
        self.authentication();
    }

    fn refuse_for(&mut self, end: End) {
        for name in ["xauth", "modecfg"] {
            if let Some(setting) = self.conn.side(end, name)
                && self.flag_of(setting)
            {
                self.fault(setting, "XAUTH and mode configuration are refused: they are for persons, not sites");
            }
        }
        for name in ["auth2", "addresspool"] {
            if let Some(setting) = self.conn.side(end, name) {
                self.fault(setting, "second authentications and address pools are for persons, not sites");
            }
        }
        if let Some(setting) = self.conn.side(end, "sourceip") {
            if setting.value.parse::<std::net::IpAddr>().is_ok() {
                let text = format!("{} makes no difference here: the kernel chooses the source address", setting.key);
                self.report.note(&setting.key_place, text);
            } else {
                self.fault(setting, "addresses that the peer hands out are not supported");
            }
        }
    }

    /// Pre-shared keys are all there is; both dialects' default is something else.
    fn authentication(&mut self) {
        const KEYS: &str = "only pre-shared keys are supported";
        let authby = self.conn.get("authby");
        let by_authby = authby.map(|setting| {
            let psk = setting.value.split([',', '|']).any(|word| matches!(word.trim(), "psk" | "secret"));
            if !psk {
                let why = if setting.value.starts_with("xauth") {
                    "XAUTH is refused"
                } else {
                    "certificates are not supported"
                };
                self.fault(setting, format!("{KEYS}: {why}"));
            }
        });
        let sides = [End::Left, End::Right].map(|end| self.conn.side(end, "auth"));
        for setting in sides.into_iter().flatten() {
            if !matches!(setting.value.as_str(), "psk" | "secret") {
                self.fault(setting, KEYS);
            }
        }
        if by_authby.is_none() && sides.iter().any(Option::is_none) {
            let (default, help) = match self.context.dialect {
                Dialect::StrongSwan => ("certificates (strongSwan's default)", "authby=psk"),
                Dialect::Libreswan => ("RSA keys (the default of Openswan and Libreswan)", "authby=secret"),
            };
            let message = format!("connection {} authenticates with {default}; {KEYS}", self.conn.name);
            self.report.error(Diagnostic::at(self.conn.place.clone(), message).help(format!("write {help}")));
        }
    }

    fn versions(&mut self) -> Versions {
        let [v1, v2] = [Version::V1, Version::V2].map(Versions::Only);
        let [v1_first, v2_first] = [Version::V1, Version::V2].map(|initiate| Versions::Both { initiate });
        let exchange = self.conn.get("keyexchange");
        let named =
            exchange.and_then(|setting| self.word(setting, &[("ike", None), ("ikev1", Some(v1)), ("ikev2", Some(v2))]));
        if let Some(Some(version)) = named {
            return version;
        }
        if !self.is_libreswan() {
            return v2_first;
        }
        // ipsec.conf(5) of Libreswan 3; the later programs know only yes and no.
        let words = [
            ("no", v1),
            ("never", v1),
            ("permit", v1_first),
            ("propose", v2_first),
            ("yes", v2),
            ("insist", v2),
            ("always", v2),
        ];
        if let Some(setting) = self.conn.get("ikev2") {
            return self.word(setting, &words).unwrap_or(v2);
        }
        if self.context.is_modern {
            return v2;
        }
        let place = exchange.map_or(&self.conn.place, |setting| &setting.key_place);
        let text = "without ikev2= IKEv1 is initiated and both versions are accepted, as Openswan and Libreswan before \
                    3.28 do";
        self.report.note(place, text);
        v1_first
    }

    fn habits(&self) -> Habits {
        if self.is_libreswan() { Habits::LIBRESWAN } else { Habits::STRONGSWAN }
    }

    fn proposal_fault(&mut self, setting: &Setting, error: ProposalError) {
        let mut diagnostic = Diagnostic::at(setting.value_place.narrowed(error.at), error.message);
        if let Some(word) = error.nearest {
            diagnostic = diagnostic.help(format!("did you mean {word}?"));
        }
        self.report.error(diagnostic);
    }

    fn ike(&mut self, versions: Versions) -> Vec<IkeProposal> {
        let defaults = || IkeProposal::defaults(versions).into_iter();
        let Some(setting) = self.conn.get("ike") else { return defaults().collect() };
        match proposal::ike(&setting.value, &self.habits()) {
            Ok(list) => {
                let mut proposals = list.proposals;
                // strongSwan offers its defaults behind the list unless a `!` ends it.
                if !self.is_libreswan() && !list.strict {
                    let more: Vec<_> = defaults().filter(|p| !proposals.contains(p)).collect();
                    proposals.extend(more);
                }
                proposals
            }
            Err(error) => {
                self.proposal_fault(setting, error);
                defaults().collect()
            }
        }
    }

    fn esp(&mut self, connection: &Connection) -> Vec<EspProposal> {
        let v1 = connection.versions.initiate() == Version::V1;
        let setting = self.conn.get("esp");
        let list = setting.map(|setting| (setting, proposal::esp(&setting.value, &self.habits())));
        let mut proposals = match list {
            None => EspProposal::defaults(connection.versions),
            Some((_, Ok(list))) => {
                let mut proposals = list.proposals;
                if !self.is_libreswan() && !list.strict {
                    // IKEv1 makes one key exchange for all proposals of phase 2 (RFC 2409 §5.5), so the defaults
                    // behind the list go with its group.
                    let groups = proposals.first().filter(|_| v1).map(|p| p.groups.clone()).unwrap_or_default();
                    let defaults = EspProposal::defaults(connection.versions).into_iter();
                    let more = defaults.map(|p| EspProposal { groups: groups.clone(), ..p });
                    let more: Vec<_> = more.filter(|p| !proposals.contains(p)).collect();
                    proposals.extend(more);
                }
                proposals
            }
            Some((setting, Err(error))) => {
                self.proposal_fault(setting, error);
                EspProposal::defaults(connection.versions)
            }
        };
        if self.is_libreswan() {
            self.forward_secrecy(&mut proposals, &connection.ike);
            self.sequence_numbers(&mut proposals);
        }
        proposals
    }

    /// `pfs=yes` is the default of Openswan and Libreswan; the group is that of phase 2 or else of phase 1.
    fn forward_secrecy(&mut self, proposals: &mut [EspProposal], ike: &[IkeProposal]) {
        let named = self.conn.get("pfsgroup").and_then(|setting| {
            let read = proposal::ike(&format!("aes128-sha1-{}", setting.value), &Habits::STRONGSWAN);
            let groups = read.map(|list| list.proposals.into_iter().flat_map(|p| p.groups).collect::<Vec<_>>());
            groups.map_err(|_| self.fault(setting, format!("{:?} is not a group such as modp2048", setting.value))).ok()
        });
        let mut groups: Vec<Group> = Vec::new();
        for group in named.unwrap_or_else(|| ike.iter().flat_map(|p| p.groups.clone()).collect()) {
            if !groups.contains(&group) {
                groups.push(group);
            }
        }
        let pfs = self.flag("pfs", true);
        for proposal in proposals.iter_mut() {
            if !pfs {
                proposal.groups.clear();
            } else if proposal.groups.is_empty() {
                proposal.groups.clone_from(&groups);
            }
        }
    }

    fn sequence_numbers(&mut self, proposals: &mut [EspProposal]) {
        let Some(setting) = self.conn.get("esn") else { return };
        let words = [("yes", &[true][..]), ("no", &[false]), ("either", &[true, false])];
        if let Some(esn) = self.word(setting, &words) {
            proposals.iter_mut().for_each(|proposal| proposal.esn = esn.to_vec());
        }
    }

    /// Margin and fuzz hold for both phases.
    fn margin(&mut self) -> (Duration, u8) {
        let margin = self.time("margintime", Duration::from_secs(540));
        let fuzz = self.conn.get("rekeyfuzz").map_or(100, |setting| {
            let percent = setting.value.strip_suffix('%').unwrap_or(&setting.value).parse::<u32>();
            let percent = percent.map_err(|_| self.fault(setting, "rekeyfuzz is a share such as 100%")).unwrap_or(100);
            if percent > 100 {
                self.report.note(&setting.key_place, "rekeyfuzz is at most 100% here");
            }
            u8::try_from(percent.min(100)).unwrap_or(100)
        });
        (margin, fuzz)
    }

    fn ike_lifetime(&mut self) -> IkeLifetime {
        let hours = match self.context.dialect {
            Dialect::StrongSwan => 3,
            Dialect::Libreswan if self.context.is_modern => 8,
            Dialect::Libreswan => 1,
        };
        let time = self.time("ikelifetime", Duration::from_secs(hours * 3600));
        let (margin, fuzz_percent) = self.margin();
        IkeLifetime { time, margin, fuzz_percent }
    }

    fn lifetime(&mut self) -> Lifetime {
        let hours = if self.is_libreswan() { 8 } else { 1 };
        let time = self.time("lifetime", Duration::from_secs(hours * 3600));
        let (margin, fuzz_percent) = self.margin();
        let mut volume = |name| {
            let setting = self.conn.get(name)?;
            let count = units::count(&setting.value).map_err(|why| self.fault(setting, why)).ok();
            count.filter(|count| *count > 0)
        };
        let (bytes, packets) = (volume("lifebytes"), volume("lifepackets"));
        Lifetime { time, margin, fuzz_percent, bytes, packets }
    }

    fn dpd(&mut self, versions: Versions) -> Option<Dpd> {
        let words = [
            ("none", None),
            ("clear", Some(DpdAction::Clear)),
            ("hold", Some(DpdAction::Hold)),
            ("trap", Some(DpdAction::Hold)),
            ("restart", Some(DpdAction::Restart)),
            ("restart_by_peer", Some(DpdAction::Restart)),
        ];
        let action = self.conn.get("dpdaction");
        let action = action.and_then(|setting| self.word(setting, &words));
        if self.is_libreswan() {
            return self.libreswan_dpd(action.flatten());
        }
        // strongSwan sends nothing unless it knows what to do about silence.
        let delay = self.time("dpddelay", Duration::from_secs(30));
        let mut timeout = self.time("dpdtimeout", Duration::from_secs(150));
        if versions == Versions::Only(Version::V2) {
            if let Some(setting) = self.conn.get("dpdtimeout") {
                let text = "strongSwan heeds dpdtimeout with IKEv1 only: with IKEv2 the peer is given up after 165 s \
                            of unanswered retransmissions";
                self.report.note(&setting.key_place, text);
            }
            timeout = delay + Duration::from_secs(165);
        }
        let action = action.flatten()?;
        (!delay.is_zero()).then_some(Dpd { delay, timeout, action })
    }

    /// Openswan and Libreswan need both numbers, or detection is off.
    fn libreswan_dpd(&mut self, action: Option<DpdAction>) -> Option<Dpd> {
        let [delay, timeout] = ["dpddelay", "dpdtimeout"].map(|name| self.time(name, Duration::ZERO));
        if delay.is_zero() != timeout.is_zero() {
            let one = self.conn.get("dpddelay").or_else(|| self.conn.get("dpdtimeout"));
            let place = one.map_or(&self.conn.place, |setting| &setting.key_place);
            self.report.note(place, "dead peer detection is off: it needs both dpddelay and dpdtimeout");
        }
        let on = !delay.is_zero() && !timeout.is_zero();
        on.then(|| Dpd { delay, timeout, action: action.unwrap_or(DpdAction::Hold) })
    }

    fn encapsulation(&mut self, versions: Versions) -> Encapsulation {
        let words = [("auto", Encapsulation::Auto), ("yes", Encapsulation::Force), ("no", Encapsulation::Never)];
        if let Some(setting) = self.conn.get("encapsulation") {
            return self.word(setting, &words).unwrap_or_default();
        }
        if let Some(setting) = self.conn.get("nat-ikev1-method") {
            let words = [("both", true), ("rfc", true), ("drafts", true), ("none", false)];
            if self.word(setting, &words) == Some(false) && versions == Versions::Only(Version::V1) {
                return Encapsulation::Never;
            }
        }
        if self.flag("forceencaps", false) { Encapsulation::Force } else { Encapsulation::Auto }
    }

    fn tries(&mut self) -> Tries {
        let default = if self.is_libreswan() { Tries::Forever } else { Tries::Times(3) };
        let Some(setting) = self.conn.get("keyingtries") else { return default };
        if matches!(setting.value.as_str(), "%forever" | "0") {
            return Tries::Forever;
        }
        self.number(setting, 1..=u32::MAX.into()).map_or(default, Tries::Times)
    }

    fn fragmentation(&mut self) -> bool {
        let words =
            [("yes", true), ("force", true), ("insist", true), ("accept", true), ("no", false), ("never", false)];
        self.conn.get("fragmentation").and_then(|setting| self.word(setting, &words)).unwrap_or(true)
    }

    fn children(&mut self, connection: &Connection, own: End, start: Start) -> Vec<Child> {
        let mut template = Child::named(&self.conn.name);
        template.esp = self.esp(connection);
        template.lifetime = self.lifetime();
        template.start = start;
        template.replay_window = self.replay_window();
        template.mtu = self.conn.get("mtu").and_then(|setting| self.number(setting, 576..=65535));
        template.copy_dscp = self.flag("encap-dscp", true);
        let local = self.selectors(own, &connection.local);
        let remote = self.selectors(own.other(), &connection.remote);
        let several = local.len() > 1 || remote.len() > 1;
        let mut children = Vec::new();
        for (l, ours) in local.iter().enumerate() {
            for (r, theirs) in remote.iter().enumerate() {
                let mut child = Child { local: ours.clone(), remote: theirs.clone(), ..template.clone() };
                if several {
                    // As pluto names them.
                    child.name = format!("{}/{}x{}", self.conn.name, l + 1, r + 1);
                }
                self.first_only(&mut child, connection.versions, own);
                children.push(child);
            }
        }
        for child in &mut children {
            self.route(child, own, several);
        }
        children
    }

    /// strongSwan negotiates one pair of subnets with IKEv1: the first.
    fn first_only(&mut self, child: &mut Child, versions: Versions, own: End) {
        if self.is_libreswan() || versions != Versions::Only(Version::V1) {
            return;
        }
        for (end, selectors) in [(own, &mut child.local), (own.other(), &mut child.remote)] {
            if selectors.len() > 1
                && let Some(setting) = self.conn.side(end, "subnet")
            {
                let text = format!("with IKEv1 strongSwan uses the first network of {} alone", setting.key);
                self.report.note(&setting.value_place, text);
                selectors.truncate(1);
            }
        }
    }

    fn replay_window(&mut self) -> u32 {
        let default = Child::named("").replay_window;
        let Some(setting) = self.conn.get("replay_window") else { return default };
        let window = self.number(setting, 0..=u32::MAX.into()).unwrap_or(default);
        if !(64..=8192).contains(&window) {
            let text = format!("the replay window is {} packets: it can be 64 to 8192 here", window.clamp(64, 8192));
            self.report.note(&setting.key_place, text);
        }
        window.clamp(64, 8192)
    }

    /// The device that packets of this child are routed to, where the file knows one: a mark (a VTI's key), a VTI or
    /// XFRM interface of Libreswan, or what the updown script of AWS would make.
    fn route(&mut self, child: &mut Child, own: End, several: bool) {
        let mark = ["mark", "mark_out"].into_iter().find_map(|name| self.conn.get(name));
        let mark = mark.and_then(|setting| {
            let number = parse_number(setting.value.split('/').next().unwrap_or_default());
            if number.is_none() {
                self.fault(setting, "a mark is a number such as 100 or 0x64/0xffffffff");
            }
            number
        });
        let remote = self.conn.side(own.other(), "").and_then(|setting| setting.value.parse().ok());
        let known = self.context.devices.iter();
        let device = known.clone().find(|device| device.key.is_some() && device.key == mark);
        let device = device.or_else(|| known.clone().find(|device| device.remote.is_some() && device.remote == remote));
        let device = device.cloned().or_else(|| self.updown());
        let interface = self.interface();
        if mark.is_none() && device.is_none() && interface.is_none() {
            return;
        }
        if several {
            let message = "several networks cannot share one device: each pair needs a connection of its own";
            self.report.error(Diagnostic::at(self.conn.place.clone(), message));
        }
        let mut device =
            device.unwrap_or_else(|| VtiDevice { name: device_name(&self.conn.name), ..VtiDevice::default() });
        if let Some((name, id)) = interface {
            device.name = name;
            device.key = device.key.or(id);
        }
        if let Some(setting) = self.conn.side(own, "vti") {
            match crate::selector::parse_net(&setting.value) {
                Ok(net) => device.addresses.push(net),
                Err(why) => self.fault(setting, why),
            }
        }
        if self.conn.get("vti-interface").is_some() && self.flag("vti-routing", true) {
            device.routes.extend(child.remote.iter().map(|s| s.net).filter(|net| net.prefix_len() > 0));
        }
        child.mtu = child.mtu.or(device.mtu);
        let VtiDevice { name, addresses, routes, key, .. } = device;
        child.routing = Routing::Device { name, addresses, routes, mark: mark.or(key) };
    }

    fn interface(&mut self) -> Option<(String, Option<u32>)> {
        if let Some(setting) = self.conn.get("vti-interface") {
            return Some((setting.value.clone(), None));
        }
        let setting = self.conn.get("ipsec-interface")?;
        let number = match setting.value.as_str() {
            "no" => return None,
            "yes" => 1,
            _ => self.number(setting, 0..=65535).unwrap_or(1),
        };
        Some((format!("ipsec{number}"), Some(number)))
    }

    fn updown(&mut self) -> Option<VtiDevice> {
        let setting = [End::Left, End::Right].into_iter().find_map(|end| self.conn.side(end, "updown"))?;
        let device = from_updown(&setting.value);
        let text = match device {
            Some(_) => {
                "updown scripts are not run; this one's arguments say which device, addresses and routes to make"
            }
            None => "updown scripts are not run",
        };
        self.report.note(&setting.key_place, format!("{}: {text}", setting.key));
        device
    }

    /// Remembers the lines of the settings that a negotiation can fail over.
    fn remember(&self, connection: &mut Connection, own: End) {
        use model::Setting as Of;
        let mut set = |of: Of, place: Option<&Place>| {
            if let Some(place) = place {
                connection.sources.set(of, place.source());
            }
        };
        let line = |name| self.conn.get(name).map(|setting| &setting.key_place);
        let side = |end, name| self.conn.side(end, name).map(|setting| &setting.key_place);
        set(Of::Connection, Some(&self.conn.place));
        set(Of::Version, line("ikev2").or(line("keyexchange")));
        set(Of::Ike, line("ike"));
        set(Of::Esp, line("esp").or(line("pfsgroup")).or(line("pfs")));
        set(Of::Lifetime, line("lifetime").or(line("ikelifetime")));
        set(Of::LocalAddress, side(own, ""));
        set(Of::RemoteAddress, side(own.other(), ""));
        set(Of::LocalId, side(own, "id"));
        set(Of::RemoteId, side(own.other(), "id"));
        set(Of::LocalSelector, side(own, "subnet").or(side(own, "subnets")));
        set(Of::RemoteSelector, side(own.other(), "subnet").or(side(own.other(), "subnets")));
    }
}

/// The name of a connection as that of a device: 15 bytes at most, no slash, no blank.
fn device_name(connection: &str) -> String {
    let mut name: String = connection.chars().map(|c| if matches!(c, '/' | ' ') { '_' } else { c }).collect();
    while name.len() > 15 {
        name.pop();
    }
    name
}
