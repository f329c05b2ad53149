//! What changes in the kernel's routing, whoever changes it: [`Monitor`], and [`Watch`] for tokio.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rtnetlink::packet_route::route::{RouteFlags, RouteMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::{Socket, protocols::NETLINK_ROUTE};
use socket2::{SockFilter, SockRef};
use tokio::io::unix::AsyncFd;

use super::route::{Route, route_of};
use super::wire::{self, Messages};
use super::{Address, Link, PROTOCOL, address_of, link_of};
use crate::error::Tried;
use crate::{ready, sys};

/// The receive buffer in bytes: some ten thousand changes.
const BUFFER: i32 = 8 << 20;

/// What to be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topics {
    /// Routes of both families; see [`Passed`].
    pub routes: Option<Passed>,
    /// Addresses of devices.
    pub addresses: bool,
    /// Devices.
    pub links: bool,
    /// Rules.
    pub rules: bool,
}

/// Which changes of routes the kernel does not even hand out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    /// None: all are told.
    Nothing,
    /// Those with our protocol number, whoever made them.
    Own,
    /// Those that [`Bulk::port`](super::Bulk::port) asked for.
    AskedBy(u32),
}

/// Something that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A route was added, or changed.
    Route {
        /// The route as it is now.
        route: Route,
        /// Its protocol number.
        protocol: u8,
        /// It took the place of another, of which nothing is told.
        replaces: bool,
    },
    /// A route was removed. The kernel does *not* say so of the IPv4 routes that go with a device or with their source
    /// address.
    RouteGone {
        /// The route as it was.
        route: Route,
        /// Its protocol number.
        protocol: u8,
    },
    /// A device was made, or changed.
    Link(Link),
    /// A device is gone.
    LinkGone(Link),
    /// An address was added, or changed.
    Address(Address),
    /// An address is gone.
    AddressGone(Address),
    /// The rules are not what they were.
    Rules,
    /// Changes were lost, because too many were waiting: look at everything again.
    Overrun,
}

/// A stream of changes in the network namespace of the thread that opened it.
pub struct Monitor {
    socket: Socket,
    incoming: Vec<u8>,
    waiting: VecDeque<Change>,
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor").field("waiting", &self.waiting.len()).finish_non_exhaustive()
    }
}

impl Monitor {
    /// Opens a stream of what changes from now on.
    pub fn open(topics: Topics) -> io::Result<Self> {
        let tried = || "watch the kernel's routing".to_owned();
        let mut socket = Socket::new(NETLINK_ROUTE).tried(tried)?;
        socket.set_non_blocking(true).tried(tried)?;
        // Without CAP_NET_ADMIN the kernel's limit holds, and an overrun comes sooner.
        if sys::set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, BUFFER).is_err() {
            let _ = sys::set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, BUFFER);
        }
        // Before the first group is joined: a filter that comes later lets something through.
        if let Some(filter) = topics.routes.and_then(filter) {
            SockRef::from(&socket.as_fd()).attach_filter(&filter).tried(tried)?;
        }
        socket.bind_auto().tried(tried)?;
        let groups = [
            (topics.routes.is_some(), libc::RTNLGRP_IPV4_ROUTE),
            (topics.routes.is_some(), libc::RTNLGRP_IPV6_ROUTE),
            (topics.addresses, libc::RTNLGRP_IPV4_IFADDR),
            (topics.addresses, libc::RTNLGRP_IPV6_IFADDR),
            (topics.links, libc::RTNLGRP_LINK),
            (topics.rules, libc::RTNLGRP_IPV4_RULE),
            (topics.rules, libc::RTNLGRP_IPV6_RULE),
        ];
        for (_, group) in groups.into_iter().filter(|(wanted, _)| *wanted) {
            socket.add_membership(group).tried(tried)?;
        }
        Ok(Self { socket, incoming: Vec::with_capacity(wire::LARGEST), waiting: VecDeque::new() })
    }

    /// The next change; `None` when nothing is waiting. What a system call changed before it returned is waiting then.
    ///
    /// # Errors
    /// When the socket is of no more use.
    pub fn next_waiting(&mut self) -> io::Result<Option<Change>> {
        loop {
            if let Some(change) = self.waiting.pop_front() {
                return Ok(Some(change));
            }
            self.incoming.clear();
            match self.socket.recv(&mut self.incoming, 0) {
                Ok(_) => self.waiting.extend(Messages::of(&self.incoming).filter_map(|message| {
                    let replaces = message.is_replacement();
                    change_of(message.parse()?, replaces)
                })),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if super::is(&e, libc::ENOBUFS) => return Ok(Some(Change::Overrun)),
                Err(e) => return Err(e).tried(|| "hear of changes to the kernel's routing".into()),
            }
        }
    }

    /// The same for tokio. Must be called within a runtime with I/O.
    pub fn watch(self) -> io::Result<Watch> {
        let ready = ready::register(self.socket.as_fd().try_clone_to_owned()?)?;
        Ok(Watch { monitor: self, ready })
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A [`Monitor`] for tokio.
#[derive(Debug)]
pub struct Watch {
    monitor: Monitor,
    /// The same socket.
    ready: AsyncFd<OwnedFd>,
}

impl Watch {
    /// Waits for the next change. Nothing is lost when this is dropped before it is done.
    ///
    /// # Errors
    /// When the socket is of no more use.
    pub async fn changed(&mut self) -> io::Result<Change> {
        loop {
            let mut ready = self.ready.readable().await?;
            if let Some(change) = self.monitor.next_waiting()? {
                return Ok(change);
            }
            ready.clear_ready();
        }
    }

    /// The next change that is waiting, if there is one: many changes that come at once are looked at once.
    ///
    /// # Errors
    /// As [`Watch::changed`].
    pub fn next_waiting(&mut self) -> io::Result<Option<Change>> {
        self.monitor.next_waiting()
    }
}

/// A program for the kernel (classic BPF) that drops what is passed over. `nlmsghdr` is at offset 0 and `rtmsg` at 16.
fn filter(passed: Passed) -> Option<[SockFilter; 7]> {
    let number = |value: u32| libc::c_ushort::try_from(value).unwrap_or_default();
    let load = |size: u32, at: u32| SockFilter::new(number(libc::BPF_LD | size | libc::BPF_ABS), 0, 0, at);
    let is = |value: u32, yes: u8, no: u8| SockFilter::new(number(libc::BPF_JMP | libc::BPF_JEQ), yes, no, value);
    let end = |keep: u32| SockFilter::new(number(libc::BPF_RET), 0, 0, keep);
    // The machine reads numbers in network order, and netlink writes them in the host's.
    let kind = |kind: u16| u32::from(u16::from_be_bytes(kind.to_ne_bytes()));
    let (field, value) = match passed {
        Passed::Nothing => return None,
        Passed::Own => (load(libc::BPF_B, 16 + 5), PROTOCOL.into()),
        Passed::AskedBy(port) => (load(libc::BPF_W, 12), u32::from_be_bytes(port.to_ne_bytes())),
    };
    // A jump skips as many lines as it says.
    Some([
        load(libc::BPF_H, 4),
        is(kind(libc::RTM_NEWROUTE), 1, 0),
        is(kind(libc::RTM_DELROUTE), 0, 2),
        field,
        is(value, 1, 0),
        end(u32::MAX),
        end(0),
    ])
}

/// What a message tells, unless it is of no concern.
fn change_of(message: RouteNetlinkMessage, replaces: bool) -> Option<Change> {
    let is_real = |message: &RouteMessage| !message.header.flags.contains(RouteFlags::Cloned);
    match message {
        RouteNetlinkMessage::NewRoute(message) => {
            let route = route_of(&message).filter(|_| is_real(&message))?;
            Some(Change::Route { route, protocol: message.header.protocol.into(), replaces })
        }
        RouteNetlinkMessage::DelRoute(message) => {
            let route = route_of(&message).filter(|_| is_real(&message))?;
            Some(Change::RouteGone { route, protocol: message.header.protocol.into() })
        }
        RouteNetlinkMessage::NewLink(ref link) | RouteNetlinkMessage::DelLink(ref link) => {
            // A bridge tells of its ports by messages of the same kind.
            if link.header.interface_family != AddressFamily::Unspec {
                return None;
            }
            let gone = matches!(message, RouteNetlinkMessage::DelLink(_));
            let link = link_of(&message)?;
            Some(if gone { Change::LinkGone(link) } else { Change::Link(link) })
        }
        RouteNetlinkMessage::NewAddress(_) => address_of(&message).map(Change::Address),
        RouteNetlinkMessage::DelAddress(_) => address_of(&message).map(Change::AddressGone),
        RouteNetlinkMessage::NewRule(_) | RouteNetlinkMessage::DelRule(_) => Some(Change::Rules),
        _ => None,
    }
}
