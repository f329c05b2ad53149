//! Rules: which packets look into which routing table (`ip rule`).

use std::io;

use ipnet::IpNet;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_DUMP};
use rtnetlink::packet_route::route::RouteProtocol;
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::route::FAMILIES;
use super::{CREATE, Netlink, PROTOCOL, removed};
use crate::error::Tried;

/// A rule of ours: which packets look into which table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// Whether it is for IPv6.
    pub ipv6: bool,
    /// Rules are asked in the order of this number; 32,766 is the main table's.
    pub priority: u32,
    /// Where to look.
    pub table: u32,
    /// Packets from here only.
    pub from: Option<IpNet>,
    /// Packets to here only.
    pub to: Option<IpNet>,
    /// Packets with this firewall mark only.
    pub mark: Option<u32>,
    /// The packets that do *not* match, instead of those that do.
    pub invert: bool,
}

impl Netlink {
    /// Adds a rule.
    ///
    /// # Errors
    /// `AlreadyExists` when there is the same already.
    pub async fn add_rule(&self, rule: &Rule) -> io::Result<()> {
        let request = RouteNetlinkMessage::NewRule(rule_message(rule));
        self.request(request, CREATE).await.tried(|| format!("add the routing rule {rule:?}"))?;
        Ok(())
    }

    /// Removes a rule of ours; false when it is not there.
    pub async fn remove_rule(&self, rule: &Rule) -> io::Result<bool> {
        let request = RouteNetlinkMessage::DelRule(rule_message(rule));
        removed(self.request(request, NLM_F_ACK).await).tried(|| format!("remove the routing rule {rule:?}"))
    }

    /// The rules with our protocol number.
    pub async fn own_rules(&self) -> io::Result<Vec<Rule>> {
        let mut all = Vec::new();
        for family in FAMILIES {
            let mut message = RuleMessage::default();
            message.header.family = family;
            let request = RouteNetlinkMessage::GetRule(message);
            let answers = self.request(request, NLM_F_DUMP).await.tried(|| "list the routing rules".into())?;
            all.extend(answers.iter().filter_map(own_rule_of));
        }
        Ok(all)
    }
}

fn rule_message(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    let header = &mut message.header;
    header.family = if rule.ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
    header.action = RuleAction::ToTable;
    header.flags = if rule.invert { RuleFlags::Invert } else { RuleFlags::empty() };
    header.src_len = rule.from.map_or(0, |net| net.prefix_len());
    header.dst_len = rule.to.map_or(0, |net| net.prefix_len());
    let attributes = &mut message.attributes;
    attributes.push(RuleAttribute::Priority(rule.priority));
    attributes.push(RuleAttribute::Table(rule.table));
    attributes.push(RuleAttribute::Protocol(RouteProtocol::from(PROTOCOL)));
    attributes.extend(rule.from.map(|net| RuleAttribute::Source(net.network())));
    attributes.extend(rule.to.map(|net| RuleAttribute::Destination(net.network())));
    attributes.extend(rule.mark.map(RuleAttribute::FwMark));
    message
}

fn own_rule_of(message: &RouteNetlinkMessage) -> Option<Rule> {
    let RouteNetlinkMessage::NewRule(message) = message else { return None };
    let header = &message.header;
    let ours = RuleAttribute::Protocol(RouteProtocol::from(PROTOCOL));
    if header.action != RuleAction::ToTable || !message.attributes.contains(&ours) {
        return None;
    }
    let mut rule = Rule {
        ipv6: header.family == AddressFamily::Inet6,
        priority: 0,
        table: header.table.into(),
        from: None,
        to: None,
        mark: None,
        invert: header.flags.contains(RuleFlags::Invert),
    };
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(priority) => rule.priority = *priority,
            RuleAttribute::Table(table) => rule.table = *table,
            RuleAttribute::Source(ip) => rule.from = IpNet::new(*ip, header.src_len).ok(),
            RuleAttribute::Destination(ip) => rule.to = IpNet::new(*ip, header.dst_len).ok(),
            RuleAttribute::FwMark(mark) => rule.mark = Some(*mark),
            _ => {}
        }
    }
    Some(rule)
}
