//! Joining packets of one flow into a super-packet, which the kernel then handles once instead of many times.
//!
//! It must not be seen: what a [`Segments`](crate::segment::Segments) would make of the super-packet are the very
//! packets that went in, but for a few things that nobody may rely on (the IPv4 identification of packets that must not
//! be fragmented, RFC 6864 §4.1). So packets are joined only when
//!
//! - they follow each other: the next TCP sequence number, and without DF the next IPv4 identification;
//! - their headers are equal else: traffic class with its ECN mark, hops left, DF, flags, acknowledgement, window,
//!   options with their timestamps;
//! - all have the same payload length, but for the last, which may have less;
//! - their checksums are right, or the super-packet's fresh one would repair what was corrupted;
//! - there is nothing special about them: no fragment, no IP options or extension headers, no SYN, FIN, RST, URG or CWR,
//!   no UDP without checksum. PSH ends a super-packet.
//!
//! Packets of one flow leave in the order in which they came. Those of others may overtake each other, as on any network.

use crate::checksum::Sum;
use crate::ipv4::{self, MIN_HEADER};
use crate::segment::Kind;
use crate::{Ipv4, Tcp, Udp, ipv6, protocol};

/// Flows that are joined at once; more push out the oldest.
const FLOWS: usize = 8;
/// Packets of one super-packet, at most.
const MAX_PACKETS: usize = 64;
/// Bytes of a super-packet, at most: the length field of IPv4 has no more.
const MAX_LEN: usize = 65_535;
/// IPv6 and TCP with all options.
const MAX_HEADER: usize = 40 + 60;

/// What comes out.
#[derive(Debug)]
pub enum Joined<'a, 'b> {
    /// A packet as it came.
    Single(&'a [u8]),
    /// Several.
    Super {
        /// The headers of the super-packet. The TCP or UDP checksum is left open: it holds the sum of the pseudo header.
        header: &'b [u8],
        /// The payloads, in order.
        payloads: &'b [&'a [u8]],
        /// What it is made of.
        kind: Kind,
        /// Whether it is IPv4.
        is_v4: bool,
        /// Bytes of payload in each packet but the last.
        size: usize,
        /// Where the TCP or UDP header begins, and where in it the checksum lies.
        checksum: (usize, usize),
    },
}

/// Packets that wait for more of their flow. `T` tells apart what must not be joined whatever is in the packets, such
/// as the device that they go to.
#[derive(Debug)]
pub struct Coalescer<'a, T> {
    /// Oldest first; those in use stand in front.
    flows: [Option<Flow<'a, T>>; FLOWS],
    /// Whether UDP is joined too.
    udp: bool,
}

#[derive(Debug)]
struct Flow<'a, T> {
    tag: T,
    first: Candidate<'a>,
    payloads: [&'a [u8]; MAX_PACKETS],
    count: usize,
    /// Bytes of headers and payloads.
    len: usize,
    /// The identification of the last packet.
    id: u16,
    /// PSH of the last packet.
    push: u8,
}

/// A packet of TCP or UDP with nothing special about it, whose checksum was not looked at yet.
#[derive(Clone, Copy, Debug)]
struct Candidate<'a> {
    packet: &'a [u8],
    kind: Kind,
    is_v4: bool,
    transport_at: usize,
    header_len: usize,
}

/// What [`classify`] makes of a packet.
enum Class<'a> {
    /// It may be joined.
    Candidate(Candidate<'a>),
    /// It may not, but it belongs to a flow: where the TCP or UDP header begins.
    OfFlow(usize),
    /// No flow is to be seen.
    Other,
}

impl<'a, T: Copy + PartialEq> Coalescer<'a, T> {
    /// Nothing waits. TCP is joined, and `udp` where the kernel takes super-packets of it.
    pub const fn new(udp: bool) -> Self {
        Self { flows: [const { None }; FLOWS], udp }
    }

    /// Takes a whole IP packet, and hands out what need not wait any longer.
    pub fn push(&mut self, tag: T, packet: &'a [u8], mut emit: impl FnMut(T, Joined<'a, '_>)) {
        let candidate = match classify(packet) {
            Class::Candidate(candidate) if self.udp || candidate.kind == Kind::Tcp => candidate,
            // It never waits, so it overtakes nothing.
            Class::Candidate(_) => return emit(tag, Joined::Single(packet)),
            Class::OfFlow(transport_at) => {
                if let Some(at) = self.find(tag, packet, transport_at) {
                    self.flush_one(at, &mut emit);
                }
                return emit(tag, Joined::Single(packet));
            }
            Class::Other => {
                self.flush(&mut emit);
                return emit(tag, Joined::Single(packet));
            }
        };
        let found = self.find(tag, packet, candidate.transport_at);
        if !candidate.checksum_is_right() {
            if let Some(at) = found {
                self.flush_one(at, &mut emit);
            }
            return emit(tag, Joined::Single(packet));
        }
        if let Some(at) = found {
            if let Some(flow) = &mut self.flows[at]
                && flow.append(&candidate)
            {
                if flow.is_complete() {
                    self.flush_one(at, &mut emit);
                }
                return;
            }
            self.flush_one(at, &mut emit);
        }
        if candidate.push() != 0 {
            return emit(tag, Joined::Single(packet));
        }
        if self.flows[FLOWS - 1].is_some() {
            self.flush_one(0, &mut emit);
        }
        if let Some(free) = self.flows.iter_mut().find(|flow| flow.is_none()) {
            *free = Some(Flow::new(tag, candidate));
        }
    }

    /// Hands out everything: nothing is kept waiting for what may come.
    pub fn flush(&mut self, mut emit: impl FnMut(T, Joined<'a, '_>)) {
        for flow in &mut self.flows {
            let Some(flow) = flow.take() else { break };
            flow.emit(&mut emit);
        }
    }

    /// The flow that a packet belongs to.
    fn find(&self, tag: T, packet: &[u8], transport_at: usize) -> Option<usize> {
        let is_it = |flow: &Flow<'_, T>| flow.tag == tag && flow.first.is_same_flow(packet, transport_at);
        self.flows.iter().map_while(Option::as_ref).position(is_it)
    }

    fn flush_one(&mut self, at: usize, emit: &mut impl FnMut(T, Joined<'a, '_>)) {
        self.flows[at..].rotate_left(1);
        if let Some(flow) = self.flows[FLOWS - 1].take() {
            flow.emit(emit);
        }
    }
}

impl<'a, T: Copy> Flow<'a, T> {
    fn new(tag: T, first: Candidate<'a>) -> Self {
        let mut payloads: [&[u8]; MAX_PACKETS] = [&[]; MAX_PACKETS];
        payloads[0] = first.payload();
        Self { tag, first, payloads, count: 1, len: first.packet.len(), id: first.id(), push: 0 }
    }

    /// Joins a packet of this flow, if it follows and fits.
    fn append(&mut self, next: &Candidate<'a>) -> bool {
        let payload = next.payload();
        let size = self.payloads[0].len();
        let passed = self.len - self.first.header_len;
        let follows = next.header_len == self.first.header_len
            && next.kind == self.first.kind
            && payload.len() <= size
            && self.len + payload.len() <= MAX_LEN
            && self.count < MAX_PACKETS
            && self.first.is_continued_by(next, passed as u32)
            && (!next.may_be_fragmented() || next.id() == self.id.wrapping_add(1));
        if !follows {
            return false;
        }
        self.payloads[self.count] = payload;
        self.count += 1;
        self.len += payload.len();
        self.id = next.id();
        self.push = next.push();
        true
    }

    /// Whether nothing can follow.
    fn is_complete(&self) -> bool {
        let last = self.payloads[self.count - 1].len();
        last < self.payloads[0].len() || self.push != 0 || self.count == MAX_PACKETS
    }

    fn emit(&self, emit: &mut impl FnMut(T, Joined<'a, '_>)) {
        if self.count == 1 {
            return emit(self.tag, Joined::Single(self.first.packet));
        }
        let mut header = [0; MAX_HEADER];
        let header = &mut header[..self.first.header_len];
        let checksum = self.first.write_header(header, self.len, self.push);
        emit(
            self.tag,
            Joined::Super {
                header,
                payloads: &self.payloads[..self.count],
                kind: self.first.kind,
                is_v4: self.first.is_v4,
                size: self.payloads[0].len(),
                checksum,
            },
        );
    }
}

impl<'a> Candidate<'a> {
    fn payload(&self) -> &'a [u8] {
        &self.packet[self.header_len..]
    }

    fn transport(&self) -> &'a [u8] {
        &self.packet[self.transport_at..]
    }

    /// The addresses, as they stand in the header.
    fn addresses(&self) -> &'a [u8] {
        if self.is_v4 { &self.packet[12..20] } else { &self.packet[8..40] }
    }

    fn protocol(&self) -> u8 {
        match self.kind {
            Kind::Tcp => protocol::TCP,
            Kind::Udp => protocol::UDP,
        }
    }

    /// The IPv4 identification; 0 for IPv6.
    fn id(&self) -> u16 {
        if self.is_v4 { u16::from_be_bytes([self.packet[4], self.packet[5]]) } else { 0 }
    }

    fn may_be_fragmented(&self) -> bool {
        self.is_v4 && self.packet[6] & 0x40 == 0
    }

    fn push(&self) -> u8 {
        match self.kind {
            Kind::Tcp => self.transport()[13] & Tcp::PSH,
            Kind::Udp => 0,
        }
    }

    /// Whether another packet has the same version, addresses, protocol and ports.
    fn is_same_flow(&self, packet: &[u8], transport_at: usize) -> bool {
        let protocol_at = if self.is_v4 { 9 } else { 6 };
        let addresses = if self.is_v4 { 12..20 } else { 8..40 };
        packet[0] >> 4 == self.packet[0] >> 4
            && packet[protocol_at] == self.packet[protocol_at]
            && packet[addresses] == *self.addresses()
            && packet[transport_at..transport_at + 4] == self.packet[self.transport_at..self.transport_at + 4]
    }

    /// Whether a packet of the same flow and header length differs in nothing but what must differ, and is the next
    /// after `passed` bytes of payload.
    fn is_continued_by(&self, next: &Self, passed: u32) -> bool {
        let (a, b) = (self.packet, next.packet);
        let same_ip = if self.is_v4 {
            // All but length, identification and checksum.
            a[..2] == b[..2] && a[6..10] == b[6..10]
        } else {
            // All but the length.
            a[..4] == b[..4] && a[6..8] == b[6..8]
        };
        let (a, b) = (self.transport(), next.transport());
        same_ip
            && match self.kind {
                Kind::Udp => true,
                Kind::Tcp => {
                    let options = 20..self.header_len - self.transport_at;
                    let flags = |tcp: &[u8]| tcp[13] & !Tcp::PSH;
                    // All but sequence number, PSH and checksum.
                    sequence(b) == sequence(a).wrapping_add(passed)
                        && a[8..13] == b[8..13]
                        && flags(a) == flags(b)
                        && a[14..16] == b[14..16]
                        && a[18..20] == b[18..20]
                        && a[options.clone()] == b[options]
                }
            }
    }

    fn checksum_is_right(&self) -> bool {
        if self.is_v4 && !Ipv4::parse(self.packet).is_ok_and(Ipv4::checksum_is_right) {
            return false;
        }
        let mut sum = self.pseudo_header(self.transport().len());
        sum.add(self.transport());
        sum.finish() == 0
    }

    fn pseudo_header(&self, len: usize) -> Sum {
        let mut sum = Sum::new();
        sum.add(self.addresses());
        sum.add_u16(u16::from(self.protocol()));
        sum.add_u16(len as u16);
        sum
    }

    /// Writes the header of a super-packet of `len` bytes; also where its transport header begins and where in it the
    /// checksum lies.
    fn write_header(&self, header: &mut [u8], len: usize, push: u8) -> (usize, usize) {
        header.copy_from_slice(&self.packet[..self.header_len]);
        if self.is_v4 {
            header[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            ipv4::write_checksum(&mut header[..self.transport_at]);
        } else {
            header[4..6].copy_from_slice(&((len - ipv6::HEADER) as u16).to_be_bytes());
        }
        let transport_len = len - self.transport_at;
        let transport = &mut header[self.transport_at..];
        let checksum_at = match self.kind {
            Kind::Tcp => {
                transport[13] |= push;
                16
            }
            Kind::Udp => {
                transport[4..6].copy_from_slice(&(transport_len as u16).to_be_bytes());
                6
            }
        };
        let open = self.pseudo_header(transport_len).open();
        transport[checksum_at..checksum_at + 2].copy_from_slice(&open.to_be_bytes());
        (self.transport_at, checksum_at)
    }
}

fn sequence(tcp: &[u8]) -> u32 {
    u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]])
}

/// What can be done with a packet. `packet` is a whole IP packet, nothing behind its end.
fn classify(packet: &[u8]) -> Class<'_> {
    let (is_v4, transport_at, protocol) = match packet {
        // RFC 791: version 4 without options, and no fragment.
        [0x45, ..] if packet.len() > MIN_HEADER && packet[6] & 0x3f == 0 && packet[7] == 0 => {
            (true, MIN_HEADER, packet[9])
        }
        [first, ..] if first >> 4 == 6 && packet.len() > ipv6::HEADER => (false, ipv6::HEADER, packet[6]),
        _ => return Class::Other,
    };
    let stated = if is_v4 {
        usize::from(u16::from_be_bytes([packet[2], packet[3]]))
    } else {
        ipv6::HEADER + usize::from(u16::from_be_bytes([packet[4], packet[5]]))
    };
    let transport = &packet[transport_at..];
    if stated != packet.len() || transport.len() < Udp::HEADER {
        return Class::Other;
    }
    let (kind, transport_len) = match protocol {
        protocol::TCP => match Tcp::parse(transport) {
            // ACK and maybe PSH; ECE is a state that lasts over packets.
            Ok(tcp) if tcp.flags() & !(Tcp::PSH | 0x40) == Tcp::ACK && transport[12] & 15 == 0 => {
                (Kind::Tcp, tcp.header_len())
            }
            Ok(_) | Err(_) => return Class::OfFlow(transport_at),
        },
        protocol::UDP => match Udp::parse(transport) {
            Ok(udp) if udp.checksum() != 0 && udp.payload().len() + Udp::HEADER == transport.len() => {
                (Kind::Udp, Udp::HEADER)
            }
            Ok(_) | Err(_) => return Class::OfFlow(transport_at),
        },
        _ => return Class::Other,
    };
    let header_len = transport_at + transport_len;
    if header_len == packet.len() {
        return Class::OfFlow(transport_at);
    }
    Class::Candidate(Candidate { packet, kind, is_v4, transport_at, header_len })
}

#[cfg(test)]
#[path = "coalesce_tests.rs"]
mod tests;
