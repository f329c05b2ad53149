//! One side of a connection: `left=`, `leftid=`, `leftsubnet=` and their likes.

use std::net::IpAddr;

use model::{Address, Identity, Selector, Side};

use super::Dialect;
use super::convert::Builder;
use super::keywords::End;
use super::sections::Setting;
use crate::encoding::from_hex;
use crate::selector::{parse_net, parse_protocol_and_ports, parse_selector};

/// An identity as either dialect writes it, and what is wrong with it, if anything.
pub(super) fn parse_id(text: &str) -> (Identity, Option<&'static str>) {
    const DN: &str = "a distinguished name proves itself by a certificate, and keys are pre-shared here";
    // strongSwan: `%` before the peer's identity only asks not to be told ours.
    let text = if matches!(text, "%any" | "%any4" | "%any6" | "0.0.0.0" | "::") { "%any" } else { text };
    let typed = text.split_once(':').filter(|(kind, _)| kind.bytes().all(|b| b.is_ascii_alphanumeric()));
    let by_type = typed.and_then(|(kind, rest)| match kind {
        "fqdn" | "dns" => Some(Identity::Fqdn(rest.to_owned())),
        "email" | "rfc822" | "userfqdn" => Some(Identity::UserFqdn(rest.to_owned())),
        "ipv4" | "ipv6" => rest.parse().ok().map(Identity::Ip),
        "keyid" => Some(Identity::KeyId(rest.strip_prefix('#').and_then(from_hex).unwrap_or(rest.into()))),
        _ => None,
    });
    if let Some(id) = by_type {
        return (id, None);
    }
    // Libreswan: `@[text]` is a key ID, `@~hex` a distinguished name.
    if let Some(key_id) = text.strip_prefix("@[").and_then(|rest| rest.strip_suffix(']')) {
        return (Identity::KeyId(key_id.into()), None);
    }
    let dn = text.starts_with("@~") || text.starts_with("asn1dn:") || text == "%fromcert" || looks_like_dn(text);
    let Ok(id) = text.parse();
    (id, dn.then_some(DN))
}

/// `C=CH, O=Example, CN=…` or `/C=CH/O=Example`.
fn looks_like_dn(text: &str) -> bool {
    let first = text.trim_start_matches('/').split([',', '/']).next().unwrap_or_default();
    let attribute = first.split_once('=').map(|(name, _)| name.trim());
    attribute.is_some_and(|name| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.'))
}

/// What a `left=` can say.
fn parse_host(text: &str) -> Result<Address, String> {
    match text {
        "%any" | "%any4" | "%any6" | "%defaultroute" | "0.0.0.0" | "::" | "0.0.0.0/0" | "::/0" => {
            return Ok(Address::Any);
        }
        _ => {}
    }
    if ["%group", "%oppo"].iter().any(|start| text.starts_with(start)) {
        return Err("opportunistic encryption is not supported".to_owned());
    }
    if text.starts_with('%') {
        return Err("only %any and %defaultroute stand for an address here".to_owned());
    }
    if text.contains(',') {
        return Err("only one address can be given".to_owned());
    }
    if let Ok(ip) = text.parse() {
        return Ok(Address::Ip(ip));
    }
    if text.contains('/') {
        return parse_net(text).map(|net| Address::Prefix(net.trunc()));
    }
    let numeric = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let name = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    if name && !numeric { Ok(Address::Name(text.to_owned())) } else { Err(format!("{text:?} is not an address")) }
}

impl Builder<'_> {
    /// Which end is ours: the left one, unless only the right one can be.
    pub(super) fn local_end(&mut self) -> End {
        let host = |end| self.conn.side(end, "").map(|setting| setting.value.as_str());
        let is_route = |end| host(end) == Some("%defaultroute");
        let is_here = |end| {
            let ip = host(end).and_then(|text| text.parse::<IpAddr>().ok());
            is_route(end) || ip.is_some_and(|ip| self.context.options.local_addresses.contains(&ip))
        };
        if is_here(End::Right) && !is_here(End::Left) { End::Right } else { End::Left }
    }

    pub(super) fn side_of(&mut self, end: End, ours: bool) -> Side {
        let mut side = Side { address: Address::Any, port: None, id: None };
        match self.conn.side(end, "") {
            Some(setting) => match parse_host(&setting.value) {
                Ok(Address::Prefix(_)) if ours => self.fault(setting, "our own address cannot be a network"),
                Ok(address) => side.address = address,
                Err(why) => self.fault(setting, why),
            },
            None if self.context.dialect == Dialect::Libreswan => {
                let message = format!("connection {} has no {}=", self.conn.name, end.name());
                self.report.error(crate::Diagnostic::at(self.conn.place.clone(), message));
            }
            None => {}
        }
        if let Some(setting) = self.conn.side(end, "allowany")
            && self.flag_of(setting)
        {
            let Side { address, .. } = &mut side;
            if !ours && matches!(address, Address::Name(_)) {
                self.report.note(&setting.key_place, "a name already admits any address that it resolves to");
            } else {
                *address = Address::Any;
            }
        }
        side.port = self.conn.side(end, "ikeport").and_then(|setting| self.number(setting, 1..=65535));
        side.id = self.conn.side(end, "id").and_then(|setting| self.identity(setting, ours));
        side
    }

    fn identity(&mut self, setting: &Setting, ours: bool) -> Option<Identity> {
        let value = setting.value.as_str();
        let asked =
            if ours { value } else { value.strip_prefix('%').filter(|_| !value.starts_with("%any")).unwrap_or(value) };
        if asked != value && value != "%fromcert" {
            self.report.note(&setting.key_place, "the peer is told which identity we expect, in spite of the %");
        }
        let (id, wrong) = parse_id(if value == "%fromcert" { value } else { asked });
        if let Some(why) = wrong {
            self.fault(setting, why);
            return None;
        }
        if self.context.dialect == Dialect::Libreswan && matches!(id, Identity::Fqdn(_)) && !value.starts_with('@') {
            let text = format!("{value} is taken as a name: Libreswan would look up its address; @{value} says a name");
            self.report.note(&setting.value_place, text);
        }
        Some(id)
    }

    /// The traffic of one side, in one list a `subnet=`; Libreswan's `subnets=` are several children.
    pub(super) fn selectors(&mut self, end: End, side: &Side) -> Vec<Vec<Selector>> {
        let protoport = self
            .conn
            .side(end, "protoport")
            .and_then(|setting| parse_protocol_and_ports(&setting.value).map_err(|why| self.fault(setting, why)).ok());
        let with_ports = |mut selector: Selector| {
            if let Some((protocol, ports)) = protoport.filter(|_| selector.protocol == 0) {
                (selector.protocol, selector.ports) = (protocol, ports);
            }
            selector
        };
        if let Some(setting) = self.conn.side(end, "subnets") {
            let nets = setting.value.trim_start_matches('{').trim_end_matches('}');
            let words: Vec<&str> = nets.split([',', ' ', '\t']).filter(|word| !word.is_empty()).collect();
            return words
                .into_iter()
                .filter_map(|word| self.selector(setting, word, side))
                .map(|selector| vec![with_ports(selector)])
                .collect();
        }
        let Some(setting) = self.conn.side(end, "subnet") else {
            return vec![self.own_address(end, side).into_iter().map(with_ports).collect()];
        };
        let words: Vec<&str> = setting.value.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
        if words.len() > 1 && self.context.dialect == Dialect::Libreswan {
            let name = format!("{}subnets", end.name());
            self.fault(setting, format!("Libreswan takes one network here; several are written as {name}={{… …}}"));
        }
        let found = words.into_iter().filter_map(|word| self.selector(setting, word, side)).map(with_ports);
        vec![found.collect()]
    }

    fn selector(&mut self, setting: &Setting, word: &str, side: &Side) -> Option<Selector> {
        if word.starts_with("vhost:") || word.starts_with("vnet:") {
            self.fault(setting, "virtual networks of road warriors are not supported");
            return None;
        }
        let written = match word.strip_prefix("%dynamic") {
            None => word.to_owned(),
            Some(behind) => {
                let Some(ip) = self.known_address(side) else {
                    self.fault(setting, "%dynamic is this side's own address, which is not known before it connects");
                    return None;
                };
                format!("{ip}{behind}")
            }
        };
        match parse_selector(&written) {
            Ok(selector) => {
                let net = written.split('[').next().and_then(|net| parse_net(net).ok());
                if net.is_some_and(|net| net != net.trunc()) {
                    let text = format!("{word} is read as {}", selector.net);
                    self.report.note(&setting.value_place, text);
                }
                Some(selector)
            }
            Err(why) => {
                let at = setting.value.find(word).unwrap_or(0);
                let place = setting.value_place.narrowed(at..at + word.len());
                self.report.error(crate::Diagnostic::at(place, why));
                None
            }
        }
    }

    fn known_address(&self, side: &Side) -> Option<IpAddr> {
        side.address.ip()
    }

    /// A side without networks is the host alone.
    fn own_address(&mut self, end: End, side: &Side) -> Option<Selector> {
        let ip = self.known_address(side);
        if ip.is_none() {
            let name = end.name();
            let message =
                format!("{name}subnet= is missing, and the address of this side, which it stands for, is not known");
            let place = self.conn.side(end, "").map_or(&self.conn.place, |setting| &setting.key_place);
            let help = format!("write {name}subnet=, or the address itself into {name}=");
            self.report.error(crate::Diagnostic::at(place.clone(), message).help(help));
        }
        ip.map(|ip| Selector::net(ip.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_of_both_dialects_are_read() {
        for (text, shown) in [
            ("3.37.222.142", "3.37.222.142"),
            ("@vpn.example.com", "@vpn.example.com"),
            ("fqdn:vpn.example.com", "@vpn.example.com"),
            ("email:ops@example.com", "ops@example.com"),
            ("keyid:#0aff", "@#0aff"),
            ("@[site]", "@#73697465"),
            ("@#0aff", "@#0aff"),
            ("%any", "%any"),
        ] {
            let (id, wrong) = parse_id(text);
            assert_eq!((id.to_string().as_str(), wrong), (shown, None), "{text}");
        }
        for text in ["C=CH, O=Example, CN=gw", "/C=CH/CN=gw", "@~3000", "%fromcert"] {
            assert!(parse_id(text).1.is_some(), "{text}");
        }
    }

    #[test]
    fn a_host_is_an_address_a_network_a_name_or_anyone() {
        assert_eq!(parse_host("%defaultroute"), Ok(Address::Any));
        assert_eq!(parse_host("vpn.example.com"), Ok(Address::Name("vpn.example.com".into())));
        assert!(matches!(parse_host("10.0.0.0/8"), Ok(Address::Prefix(_))));
        for text in ["%group", "10.0.0.1,10.0.0.2", "10.0.0", "%eth0", "a b"] {
            assert!(parse_host(text).is_err(), "{text}");
        }
    }
}
