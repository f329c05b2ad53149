//! How large a packet may be that leaves for some address, and who says so.

use std::io;
use std::net::IpAddr;

use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::route::{RouteAttribute, RouteFlags, RouteMessage, RouteMetric};

use super::{Netlink, family_of};
use crate::error::Tried;

/// What this host knows of the packets that it may send to some address, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MtuTo {
    /// What the device takes, or less where the route says so.
    pub outgoing: u32,
    /// Whether that is the route's word.
    pub is_of_route: bool,
    /// What the kernel heard by ICMP, where that is less. Anyone on the way can have said it, and many who are not.
    pub heard: Option<u32>,
}

impl Netlink {
    /// How large a packet of this host to `remote` may be.
    ///
    /// # Errors
    /// `NetworkUnreachable` when there is no route.
    pub async fn mtu_to(&self, remote: IpAddr) -> io::Result<MtuTo> {
        let hop = self.hop_to(remote).await?;
        let links = self.links().await?;
        let link = links.iter().find(|link| link.index == hop.device).ok_or(io::ErrorKind::NotFound)?;
        let route = self.route_mtu(remote).await?.filter(|mtu| *mtu < link.mtu);
        let outgoing = route.unwrap_or(link.mtu);
        Ok(MtuTo { outgoing, is_of_route: route.is_some(), heard: hop.mtu.filter(|mtu| *mtu < outgoing) })
    }

    /// The MTU that the route to `remote` was given. The answer to the plain question has what ICMP said instead.
    async fn route_mtu(&self, remote: IpAddr) -> io::Result<Option<u32>> {
        let mut message = RouteMessage::default();
        message.header.address_family = family_of(remote);
        message.header.destination_prefix_length = if remote.is_ipv4() { 32 } else { 128 };
        message.header.flags = RouteFlags::FibMatch;
        message.attributes.push(RouteAttribute::Destination(remote.into()));
        let answers = self.request(RouteNetlinkMessage::GetRoute(message), 0).await;
        let answers = answers.tried(|| format!("find the route to {remote}"))?;
        let metrics = answers.iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewRoute(message) => message.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Metrics(metrics) => Some(metrics),
                _ => None,
            }),
            _ => None,
        });
        let mtu = |metric: &RouteMetric| if let RouteMetric::Mtu(mtu) = metric { Some(*mtu) } else { None };
        Ok(metrics.and_then(|metrics| metrics.iter().find_map(mtu)))
    }
}
