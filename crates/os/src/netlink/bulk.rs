//! Routes by the hundred thousand, as BGP brings them: [`Bulk`].
//!
//! Many requests travel in one `send`, and the kernel carries them out one after the other before that returns. Only the
//! last asks for an acknowledgement (`NLM_F_ACK`); each that fails is answered in any case, and by its sequence number
//! the answer leads back to the route. So this blocks, for about a millisecond a thousand routes: it belongs on a thread
//! of its own.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
};
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::route::{RouteAttribute, RouteFlags, RouteMessage, RouteProtocol};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use socket2::SockRef;

use super::route::{FAMILIES, Place, Route, describe, place_message, route_message, route_of};
use super::wire::{self, Messages};
use super::{Link, PROTOCOL, link_of};
use crate::error::Tried;

/// Requests in one `send` at most. Were each to fail, the answers must fit into the 212 KB of a socket's buffer.
const WINDOW: usize = 128;
/// Bytes in one `send` at most; the kernel's limit is the send buffer.
const WINDOW_BYTES: usize = 64 << 10;
/// How long an answer may take that is there when `send` returns.
const PATIENCE: Duration = Duration::from_secs(10);

/// One change to the routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Adds a route. Refused with `EEXIST` when there is one in its place, whoever made it.
    Add(Route),
    /// Adds a route, or puts it in the place of the one that is there, whoever made it, without a moment in which there
    /// is none.
    Replace(Route),
    /// Removes what has our protocol number at this place, whatever it is. For IPv4 metric 0 stands for the lowest
    /// metric that is there. It is no failure that there is nothing.
    Remove(Place),
}

impl Write {
    /// What place it is about.
    pub fn place(&self) -> Place {
        match self {
            Self::Add(route) | Self::Replace(route) => route.place(),
            Self::Remove(place) => *place,
        }
    }
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add(route) => write!(f, "add the route {}", describe(route)),
            Self::Replace(route) => write!(f, "set the route {}", describe(route)),
            Self::Remove(place) => write!(f, "remove the route {place}"),
        }
    }
}

/// A change that the kernel refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which of those that were given.
    pub at: usize,
    /// The kernel's error number.
    pub errno: i32,
    /// The kernel's own words, where it has some.
    pub words: String,
}

impl Refusal {
    /// Whether a route of somebody else is in the way.
    pub fn is_in_the_way(&self) -> bool {
        self.errno == libc::EEXIST
    }

    /// The refusal as an error.
    pub fn to_error(&self) -> io::Error {
        io::Error::new(io::Error::from_raw_os_error(self.errno).kind(), self.to_string())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = io::Error::from_raw_os_error(self.errno);
        if self.words.is_empty() { write!(f, "{error}") } else { write!(f, "{error}: {}", self.words) }
    }
}

/// Which routes to list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Those of this protocol number only.
    pub protocol: Option<u8>,
    /// Those of this table only.
    pub table: Option<u32>,
}

impl Filter {
    /// Those with our protocol number.
    pub const fn own() -> Self {
        Self { protocol: Some(PROTOCOL), table: None }
    }
}

/// A blocking connection to the kernel's routing, for many routes at once, in the network namespace of the thread that
/// opened it.
pub struct Bulk {
    socket: Socket,
    port: u32,
    sequence: u32,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
}

impl fmt::Debug for Bulk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bulk").field("port", &self.port).finish_non_exhaustive()
    }
}

impl Bulk {
    /// Opens a connection.
    pub fn open() -> io::Result<Self> {
        let tried = || "open a netlink socket".to_owned();
        let mut socket = Socket::new(NETLINK_ROUTE).tried(tried)?;
        let port = socket.bind_auto().tried(tried)?.port_number();
        socket.connect(&SocketAddr::new(0, 0)).tried(tried)?;
        // What an old kernel lacks: its words, short refusals, and lists that it filters itself.
        let _ = socket.set_ext_ack(true);
        let _ = socket.set_cap_ack(true);
        let _ = socket.set_netlink_get_strict_chk(true);
        SockRef::from(&socket.as_fd()).set_read_timeout(Some(PATIENCE)).tried(tried)?;
        let (outgoing, incoming) = (Vec::with_capacity(WINDOW_BYTES), Vec::with_capacity(wire::LARGEST));
        Ok(Self { socket, port, sequence: 0, outgoing, incoming })
    }

    /// The number by which the kernel knows who asked for a change: [`Monitor`](super::Monitor) can pass over its own.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Makes `writes` in order, and returns those that the kernel refused. One that is refused does not stop the rest.
    ///
    /// # Errors
    /// When the kernel's answers were lost: some of the changes were made, and a new list of the routes tells which.
    pub fn write(&mut self, writes: &[Write]) -> io::Result<Vec<Refusal>> {
        let mut refused = Vec::new();
        let mut done = 0;
        while let Some(rest) = writes.get(done..).filter(|rest| !rest.is_empty()) {
            let first = self.sequence.wrapping_add(1);
            let count = self.fill(rest);
            self.send()?;
            self.hear(first, count, done, &mut refused)?;
            done += count;
        }
        let gone = [libc::ESRCH, libc::ENOENT, libc::ENODEV];
        refused.retain(|r| !matches!(writes.get(r.at), Some(Write::Remove(_))) || !gone.contains(&r.errno));
        Ok(refused)
    }

    /// Puts as many requests as fit into the buffer, at least one, and returns how many.
    fn fill(&mut self, writes: &[Write]) -> usize {
        self.outgoing.clear();
        let (mut count, mut last) = (0, 0);
        for write in writes.iter().take(WINDOW) {
            if self.outgoing.len() > WINDOW_BYTES {
                break;
            }
            let (message, flags) = match write {
                Write::Add(route) => (RouteNetlinkMessage::NewRoute(route_message(route)), NLM_F_CREATE | NLM_F_EXCL),
                Write::Replace(route) => {
                    (RouteNetlinkMessage::NewRoute(route_message(route)), NLM_F_CREATE | NLM_F_REPLACE)
                }
                Write::Remove(place) => (RouteNetlinkMessage::DelRoute(place_message(place)), 0),
            };
            last = self.outgoing.len();
            self.push(message, flags);
            count += 1;
        }
        wire::add_flags(&mut self.outgoing, last, NLM_F_ACK);
        count
    }

    fn push(&mut self, message: RouteNetlinkMessage, flags: u16) {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let (start, len) = (self.outgoing.len(), message.buffer_len());
        self.outgoing.resize(start + len.next_multiple_of(4), 0);
        if let Some(room) = self.outgoing.get_mut(start..start + len) {
            message.serialize(room);
        }
    }

    /// Makes requests of a kind that [`rtnetlink`] does not know, each to create or replace what it is about, and returns what
    /// was refused.
    pub(super) fn ask_raw(&mut self, requests: &[(u16, Vec<u8>)]) -> io::Result<Vec<Refusal>> {
        self.outgoing.clear();
        let first = self.sequence.wrapping_add(1);
        for (kind, body) in requests {
            self.sequence = self.sequence.wrapping_add(1);
            let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
            wire::append(&mut self.outgoing, *kind, flags, self.sequence, body);
        }
        let mut refused = Vec::new();
        self.send()?;
        self.hear(first, requests.len(), 0, &mut refused)?;
        Ok(refused)
    }

    fn send(&self) -> io::Result<()> {
        let sent = self.socket.send(&self.outgoing, 0).tried(|| "ask the kernel to change routes".into())?;
        if sent == self.outgoing.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    fn receive(&mut self) -> io::Result<()> {
        self.incoming.clear();
        self.socket.recv(&mut self.incoming, 0).tried(|| "hear what became of routes".into())?;
        Ok(())
    }

    /// Hears the answers to `count` requests from the number `first` on, of which the first is the change `done`.
    fn hear(&mut self, first: u32, count: usize, done: usize, refused: &mut Vec<Refusal>) -> io::Result<()> {
        loop {
            self.receive()?;
            for message in Messages::of(&self.incoming) {
                let at = usize::try_from(message.sequence.wrapping_sub(first)).unwrap_or(usize::MAX);
                // An answer to what was given up on earlier is of no interest.
                let Some((errno, words)) = message.verdict().filter(|_| at < count) else { continue };
                if errno != 0 {
                    refused.push(Refusal { at: done + at, errno, words });
                }
                if at + 1 == count {
                    return Ok(());
                }
            }
        }
    }

    /// Lists the routes of both families, with the protocol number of each: unicast, unreachable, blackhole and throw.
    /// Returns whether the list is that of one moment: false when routes changed meanwhile, so that some may be missing
    /// or told twice.
    ///
    /// # Errors
    /// When the kernel does not answer, or refuses.
    pub fn routes(&mut self, filter: Filter, mut each: impl FnMut(Route, u8)) -> io::Result<bool> {
        let mut consistent = true;
        for family in FAMILIES {
            consistent &= self.routes_of(family, filter, &mut each)?;
        }
        Ok(consistent)
    }

    fn routes_of(&mut self, family: AddressFamily, of: Filter, each: &mut impl FnMut(Route, u8)) -> io::Result<bool> {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        message.header.protocol = RouteProtocol::from(of.protocol.unwrap_or(0));
        message.attributes.extend(of.table.map(RouteAttribute::Table));
        let listed = self.list(RouteNetlinkMessage::GetRoute(message), |message| {
            let RouteNetlinkMessage::NewRoute(message) = message else { return };
            let protocol = u8::from(message.header.protocol);
            let wanted = of.protocol.is_none_or(|wanted| wanted == protocol)
                && !message.header.flags.contains(RouteFlags::Cloned);
            let Some(route) = route_of(&message).filter(|_| wanted) else { return };
            if of.table.is_none_or(|table| table == route.table) {
                each(route, protocol);
            }
        });
        listed.tried(|| "list the routes".into())
    }

    /// Lists the devices.
    pub fn links(&mut self) -> io::Result<Vec<Link>> {
        let mut all = Vec::new();
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        self.list(request, |message| all.extend(link_of(&message))).tried(|| "list the devices".into())?;
        Ok(all)
    }

    fn list(&mut self, request: RouteNetlinkMessage, mut each: impl FnMut(RouteNetlinkMessage)) -> io::Result<bool> {
        self.outgoing.clear();
        self.push(request, NLM_F_DUMP);
        self.send()?;
        let mut consistent = true;
        loop {
            self.receive()?;
            for message in Messages::of(&self.incoming).filter(|message| message.sequence == self.sequence) {
                consistent &= !message.is_interrupted();
                if let Some((errno, words)) = message.verdict() {
                    // No such table yet, or no IPv6 at all: nothing.
                    let empty = [0, libc::ENOENT, libc::EOPNOTSUPP, libc::EAFNOSUPPORT].contains(&errno);
                    return if empty { Ok(consistent) } else { Err(Refusal { at: 0, errno, words }.to_error()) };
                }
                message.parse().into_iter().for_each(&mut each);
            }
        }
    }
}
