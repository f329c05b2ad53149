//! Links, addresses, routes and rules, over rtnetlink (`rtnetlink(7)`).
//!
//! What simplon adds to the kernel carries the protocol number [`PROTOCOL`], so that after a crash its leftovers are
//! told from what others made.
//!
//! | type | what |
//! | --- | --- |
//! | [`Netlink`] | asks and changes one thing at a time, for tokio |
//! | [`Bulk`] | changes and lists routes by the hundred thousand, for a thread that may block |
//! | [`Monitor`] | tells what changes, whoever changed it |

#![expect(clippy::wildcard_enum_match_arm, reason = "rtnetlink's enums are non-exhaustive: the kernel adds attributes")]

mod bulk;
mod monitor;
mod mtu;
mod nexthop;
mod route;
mod rule;
mod wire;

use std::io;
use std::net::IpAddr;

use futures_util::StreamExt;
use ipnet::IpNet;
use rtnetlink::Handle;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressProtocol, CacheInfo};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use tokio::task::AbortHandle;

pub use self::bulk::{Bulk, Filter, Refusal, Write};
pub use self::monitor::{Change, Monitor, Passed, Topics, Watch};
pub use self::mtu::MtuTo;
pub use self::nexthop::GroupId;
pub use self::route::{DefaultRoute, Hop, NextHop, Place, Route, RouteKind};
pub use self::rule::Rule;
use crate::error::Tried;

/// The protocol number of our routes, rules and addresses: 83, the letter S. `ip route show proto 83` lists them.
/// `/etc/iproute2/rt_protos` gives it to nobody.
pub const PROTOCOL: u8 = 0x53;
/// The routing table that `ip route` shows by default.
pub const TABLE_MAIN: u32 = 254;

/// A connection to the kernel's routing, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Netlink {
    handle: Handle,
    driver: AbortHandle,
}

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The number that routes and addresses know it by.
    pub index: u32,
    /// Its name, at most 15 bytes.
    pub name: String,
    /// Whether it was set up by an administrator (`IFF_UP`).
    pub up: bool,
    /// The largest packet it takes, in bytes.
    pub mtu: u32,
    /// How many packets wait in its queue before some are dropped.
    pub tx_queue_len: u32,
    /// Its address on an Ethernet.
    pub hardware: Option<[u8; 6]>,
}

/// An address of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The device.
    pub index: u32,
    /// The address and the length of its prefix.
    pub net: IpNet,
    /// Whether we added it ([`PROTOCOL`]). Kernels before 5.18 do not remember.
    pub own: bool,
}

/// What a request does when the thing exists, as flags of the netlink header.
const CREATE: u16 = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
const REPLACE: u16 = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;

impl Netlink {
    /// Opens a connection and spawns the task that drives it. Must be called within a tokio runtime; the task ends
    /// when the value is dropped.
    pub fn open() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection().tried(|| "open a netlink socket".into())?;
        let driver = tokio::spawn(connection).abort_handle();
        Ok(Self { handle, driver })
    }

    /// A stream of what changes from now on, in the network namespace of the calling thread. Of routes it tells those
    /// that others make: a peer's way may have changed.
    pub fn monitor(&self) -> io::Result<Watch> {
        let topics = Topics { routes: Some(Passed::Own), addresses: true, links: true, rules: false };
        Monitor::open(topics)?.watch()
    }

    /// The device called `name`, if it exists.
    pub async fn link(&self, name: &str) -> io::Result<Option<Link>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        match self.request(RouteNetlinkMessage::GetLink(message), 0).await {
            Ok(answers) => Ok(answers.iter().find_map(link_of)),
            Err(e) if is(&e, libc::ENODEV) => Ok(None),
            Err(e) => Err(e).tried(|| format!("look for the device {name}")),
        }
    }

    /// All devices of the namespace.
    pub async fn links(&self) -> io::Result<Vec<Link>> {
        let all = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let answers = self.request(all, NLM_F_DUMP).await.tried(|| "list the devices".into())?;
        Ok(answers.iter().filter_map(link_of).collect())
    }

    /// Sets a device up, or down. The kernel forgets the routes of a device that goes down.
    pub async fn set_up(&self, index: u32, up: bool) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.change_mask = LinkFlags::Up;
        message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        let state = if up { "up" } else { "down" };
        self.change_link(message, || format!("set device {index} {state}")).await
    }

    /// Sets the MTU of a device, in bytes. IPv6 needs at least 1,280 (RFC 8200 §5): below, it ends on that device.
    pub async fn set_mtu(&self, index: u32, mtu: u32) -> io::Result<()> {
        self.set_link(index, LinkAttribute::Mtu(mtu), || format!("set the MTU of device {index} to {mtu}")).await
    }

    /// Sets how many packets may wait in the queue of a device. For a tunnel at least 1,000; 10,000 suit a thousand
    /// flows.
    pub async fn set_tx_queue_len(&self, index: u32, packets: u32) -> io::Result<()> {
        let tried = || format!("set the queue of device {index} to {packets} packets");
        self.set_link(index, LinkAttribute::TxQueueLen(packets), tried).await
    }

    /// Removes a device that is not of hardware.
    pub async fn remove_link(&self, index: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        let request = RouteNetlinkMessage::DelLink(message);
        self.request(request, NLM_F_ACK).await.tried(|| format!("remove device {index}"))?;
        Ok(())
    }

    /// Adds an address to a device. There is no duplicate address detection for IPv6, but the kernel makes such an
    /// address usable only a moment after this returns, or after the device is up.
    ///
    /// # Errors
    /// `AlreadyExists` when the device has it.
    pub async fn add_address(&self, index: u32, net: IpNet) -> io::Result<()> {
        let mut message = address_message(index, net);
        message.attributes.push(AddressAttribute::Protocol(AddressProtocol::from(PROTOCOL)));
        if net.addr().is_ipv6() {
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        let request = RouteNetlinkMessage::NewAddress(message);
        self.request(request, CREATE).await.tried(|| format!("add the address {net} to device {index}"))?;
        Ok(())
    }

    /// Gives a device an address that the kernel takes away after some seconds unless this is called again: it goes with
    /// the process that wants it, however that ends.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn lend_address(&self, index: u32, net: IpNet, seconds: u32) -> io::Result<()> {
        let mut message = address_message(index, net);
        message.attributes.push(AddressAttribute::Protocol(AddressProtocol::from(PROTOCOL)));
        if net.addr().is_ipv6() {
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        let mut lifetime = CacheInfo::default();
        (lifetime.ifa_preferred, lifetime.ifa_valid) = (seconds, seconds);
        message.attributes.push(AddressAttribute::CacheInfo(lifetime));
        let request = RouteNetlinkMessage::NewAddress(message);
        self.request(request, REPLACE).await.tried(|| format!("lend the address {net} to device {index}"))?;
        Ok(())
    }

    /// Removes an address from a device; false when the device does not have it.
    pub async fn remove_address(&self, index: u32, net: IpNet) -> io::Result<bool> {
        let request = RouteNetlinkMessage::DelAddress(address_message(index, net));
        removed(self.request(request, NLM_F_ACK).await)
            .tried(|| format!("remove the address {net} from device {index}"))
    }

    /// All addresses of the namespace.
    pub async fn addresses(&self) -> io::Result<Vec<Address>> {
        let all = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let answers = self.request(all, NLM_F_DUMP).await.tried(|| "list the addresses".into())?;
        Ok(answers.iter().filter_map(address_of).collect())
    }

    async fn set_link(&self, index: u32, to: LinkAttribute, tried: impl FnOnce() -> String) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(to);
        self.change_link(message, tried).await
    }

    async fn change_link(&self, message: LinkMessage, tried: impl FnOnce() -> String) -> io::Result<()> {
        self.request(RouteNetlinkMessage::NewLink(message), NLM_F_ACK).await.tried(tried)?;
        Ok(())
    }

    /// Asks the kernel and collects its answers. The first error ends it.
    async fn request(&self, request: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut message = NetlinkMessage::from(request);
        message.header.flags = NLM_F_REQUEST | flags;
        let mut answers = self.handle.clone().request(message).map_err(io::Error::other)?;
        let mut all = Vec::new();
        while let Some(answer) = answers.next().await {
            match answer.payload {
                NetlinkPayload::InnerMessage(answer) => all.push(answer),
                NetlinkPayload::Error(e) if e.code.is_some() => return Err(e.to_io()),
                NetlinkPayload::Overrun(_) => return Err(io::Error::from_raw_os_error(libc::ENOBUFS)),
                // An acknowledgement, the end of a list, or a kind of message that says nothing.
                _ => {}
            }
        }
        Ok(all)
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

fn is(error: &io::Error, number: i32) -> bool {
    error.raw_os_error() == Some(number)
}

/// Whether something was removed: it is no error that it was not there.
fn removed(answer: io::Result<Vec<RouteNetlinkMessage>>) -> io::Result<bool> {
    match answer {
        Ok(_) => Ok(true),
        Err(e) if [libc::ESRCH, libc::ENOENT, libc::EADDRNOTAVAIL, libc::ENODEV].iter().any(|n| is(&e, *n)) => {
            Ok(false)
        }
        Err(e) => Err(e),
    }
}

fn family_of(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn address_message(index: u32, net: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family_of(net.addr());
    message.header.index = index;
    message.header.prefix_len = net.prefix_len();
    message.attributes.push(AddressAttribute::Local(net.addr()));
    message.attributes.push(AddressAttribute::Address(net.addr()));
    message
}

fn address_of(message: &RouteNetlinkMessage) -> Option<Address> {
    let (RouteNetlinkMessage::NewAddress(message) | RouteNetlinkMessage::DelAddress(message)) = message else {
        return None;
    };
    let find = |pick: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(pick);
    // On a point-to-point device IFA_ADDRESS is the peer's address and IFA_LOCAL is ours.
    let ip = find(|a| if let AddressAttribute::Local(ip) = a { Some(*ip) } else { None })
        .or_else(|| find(|a| if let AddressAttribute::Address(ip) = a { Some(*ip) } else { None }))?;
    let ours = AddressAttribute::Protocol(AddressProtocol::from(PROTOCOL));
    Some(Address {
        index: message.header.index,
        net: IpNet::new(ip, message.header.prefix_len).ok()?,
        own: message.attributes.contains(&ours),
    })
}

fn link_of(message: &RouteNetlinkMessage) -> Option<Link> {
    let (RouteNetlinkMessage::NewLink(message) | RouteNetlinkMessage::DelLink(message)) = message else { return None };
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        up: message.header.flags.contains(LinkFlags::Up),
        mtu: 0,
        tx_queue_len: 0,
        hardware: None,
    };
    for attribute in &message.attributes {
        if let LinkAttribute::IfName(name) = attribute {
            link.name.clone_from(name);
        } else if let LinkAttribute::Mtu(mtu) = attribute {
            link.mtu = *mtu;
        } else if let LinkAttribute::TxQueueLen(packets) = attribute {
            link.tx_queue_len = *packets;
        } else if let LinkAttribute::Address(address) = attribute {
            link.hardware = address.as_slice().try_into().ok();
        }
    }
    Some(link)
}
