//! Socket addresses and control messages as the kernel lays them out (`struct sockaddr_in`, `sockaddr_in6`,
//! `cmsghdr`), built and read as plain bytes so that the system calls are all that is left for `unsafe`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// `CMSG_ALIGN`: a header and its data each begin at a multiple of this.
const ALIGN: usize = size_of::<usize>();
/// `struct cmsghdr`: a length of the size of a pointer, the level, the type.
const HEADER: usize = size_of::<usize>() + 2 * size_of::<i32>();

/// Enough for an IPv6 address with its device (40), a traffic class (24), and one more number (24).
const CONTROL_LEN: usize = 96;

/// Room for a socket address of either family.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Name(pub(crate) [u8; 32]);

impl Name {
    pub(crate) const EMPTY: Self = Self([0; 32]);

    /// The bytes of `address`, and how many of them count.
    pub(crate) fn encode(address: SocketAddr) -> (Self, usize) {
        let mut name = Self::EMPTY;
        match address {
            SocketAddr::V4(v4) => {
                name.put(0, &family(libc::AF_INET));
                name.put(2, &v4.port().to_be_bytes());
                name.put(4, &v4.ip().octets());
                (name, size_of::<libc::sockaddr_in>())
            }
            SocketAddr::V6(v6) => {
                name.put(0, &family(libc::AF_INET6));
                name.put(2, &v6.port().to_be_bytes());
                name.put(4, &v6.flowinfo().to_be_bytes());
                name.put(8, &v6.ip().octets());
                name.put(24, &v6.scope_id().to_ne_bytes());
                (name, size_of::<libc::sockaddr_in6>())
            }
        }
    }

    /// The address in the first `len` bytes, or nothing when they hold no address of a family we use.
    pub(crate) fn decode(&self, len: usize) -> Option<SocketAddr> {
        let bytes = self.0.get(..len)?;
        let found = array(bytes, 0)?;
        let port = u16::from_be_bytes(array(bytes, 2)?);
        if found == family(libc::AF_INET) {
            return Some(SocketAddrV4::new(Ipv4Addr::from(array::<4>(bytes, 4)?), port).into());
        }
        if found == family(libc::AF_INET6) {
            let flow = u32::from_be_bytes(array(bytes, 4)?);
            let ip = Ipv6Addr::from(array::<16>(bytes, 8)?);
            return Some(SocketAddrV6::new(ip, port, flow, u32::from_ne_bytes(array(bytes, 24)?)).into());
        }
        None
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        for (to, from) in self.0.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    }
}

fn family(number: i32) -> [u8; 2] {
    libc::sa_family_t::try_from(number).unwrap_or_default().to_ne_bytes()
}

/// The control messages of one datagram: which local address, and the traffic class.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Control(pub(crate) [u8; CONTROL_LEN]);

impl Control {
    pub(crate) const EMPTY: Self = Self([0; CONTROL_LEN]);

    /// What a datagram to send carries: `IP_TOS` or `IPV6_TCLASS` where the class is not 0, `IP_PKTINFO` or
    /// `IPV6_PKTINFO` when the local address is chosen, and `UDP_SEGMENT` for a run. Also how many bytes count.
    pub(crate) fn for_send(remote: IpAddr, local: Option<IpAddr>, tos: u8, segment: u16) -> (Self, usize) {
        let mut control = Self::EMPTY;
        let class = i32::from(tos).to_ne_bytes();
        let mut len = match remote {
            // What a socket sends has class 0 unless it is told.
            _ if tos == 0 => 0,
            IpAddr::V4(_) => control.push(0, libc::IPPROTO_IP, libc::IP_TOS, &class),
            IpAddr::V6(_) => control.push(0, libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &class),
        };
        match local {
            // struct in_pktinfo: the device (0: any), the source address, and one the kernel ignores here.
            Some(IpAddr::V4(ip)) => {
                let mut info = [0; 12];
                info[4..8].copy_from_slice(&ip.octets());
                len = control.push(len, libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            // struct in6_pktinfo: the source address, the device (0: any).
            Some(IpAddr::V6(ip)) => {
                let mut info = [0; 20];
                info[..16].copy_from_slice(&ip.octets());
                len = control.push(len, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
            None => {}
        }
        if segment != 0 {
            len = control.push(len, libc::SOL_UDP, libc::UDP_SEGMENT, &segment.to_ne_bytes());
        }
        (control, len)
    }

    /// Writes one message at `at` and returns where the next one goes. The three that are ever written fit.
    fn push(&mut self, at: usize, level: i32, kind: i32, data: &[u8]) -> usize {
        let end = at + HEADER + data.len();
        let (len, level, kind) = ((HEADER + data.len()).to_ne_bytes(), level.to_ne_bytes(), kind.to_ne_bytes());
        let message = len.iter().chain(&level).chain(&kind).chain(data);
        for (to, from) in self.0.iter_mut().skip(at).zip(message) {
            *to = *from;
        }
        end.next_multiple_of(ALIGN)
    }

    /// The messages in the first `len` bytes: level, type, data.
    pub(crate) fn messages(&self, len: usize) -> impl Iterator<Item = (i32, i32, &[u8])> {
        let mut rest = self.0.get(..len).unwrap_or(&self.0);
        std::iter::from_fn(move || {
            let len = usize::from_ne_bytes(array(rest, 0)?);
            let level = i32::from_ne_bytes(array(rest, size_of::<usize>())?);
            let kind = i32::from_ne_bytes(array(rest, size_of::<usize>() + 4)?);
            let data = rest.get(HEADER..len)?;
            rest = rest.get(len.next_multiple_of(ALIGN)..).unwrap_or(&[]);
            Some((level, kind, data))
        })
    }

    /// The local address that a received datagram was sent to, its traffic class, and the length of the datagrams it is
    /// made of; what is not said is unspecified and zero.
    pub(crate) fn arrival(&self, len: usize) -> (Option<IpAddr>, u8, usize) {
        let (mut local, mut tos, mut segment) = (None, 0, 0);
        for (level, kind, data) in self.messages(len) {
            match (level, kind) {
                // ipi_spec_dst: our address, also where the header names a broadcast address.
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => local = array::<4>(data, 4).map(|ip| Ipv4Addr::from(ip).into()),
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    local = array::<16>(data, 0).map(|ip| Ipv6Addr::from(ip).into());
                }
                (libc::IPPROTO_IP, libc::IP_TOS) => tos = data.first().copied().unwrap_or(0),
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                    let class = array(data, 0).map_or(0, i32::from_ne_bytes);
                    tos = u8::try_from(class).unwrap_or(0);
                }
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    let size = array(data, 0).map_or(0, i32::from_ne_bytes);
                    segment = usize::try_from(size).unwrap_or(0);
                }
                _ => {}
            }
        }
        (local, tos, segment)
    }
}

/// `N` bytes of `bytes` from `at` on, when they are there.
fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_layouts_are_those_of_libc() {
        assert_eq!(size_of::<libc::cmsghdr>(), HEADER);
        assert_eq!(size_of::<libc::in_pktinfo>(), 12);
        assert_eq!(size_of::<libc::in6_pktinfo>(), 20);
        assert_eq!(std::mem::offset_of!(libc::in_pktinfo, ipi_spec_dst), 4);
        assert_eq!(std::mem::offset_of!(libc::sockaddr_in, sin_addr), 4);
        assert_eq!(std::mem::offset_of!(libc::sockaddr_in6, sin6_addr), 8);
        assert_eq!(std::mem::offset_of!(libc::sockaddr_in6, sin6_scope_id), 24);
    }

    #[test]
    fn what_is_sent_reads_back_as_an_arrival() {
        for (remote, local) in [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")] {
            let (remote, local): (IpAddr, IpAddr) = (remote.parse().unwrap(), local.parse().unwrap());
            let (control, len) = Control::for_send(remote, Some(local), 0xb9, 0);
            assert_eq!(control.arrival(len), (Some(local), 0xb9, 0));
            let (control, len) = Control::for_send(remote, None, 3, 0);
            assert_eq!(control.arrival(len), (None, 3, 0));
            let (control, len) = Control::for_send(remote, Some(local), 3, 1400);
            let last = control.messages(len).last();
            assert_eq!(last, Some((libc::SOL_UDP, libc::UDP_SEGMENT, &1400u16.to_ne_bytes()[..])));
        }
    }

    proptest! {
        #[test]
        fn an_address_reads_back_as_itself(ip: IpAddr, port: u16, scope: u32) {
            let address = match ip {
                IpAddr::V4(ip) => SocketAddrV4::new(ip, port).into(),
                IpAddr::V6(ip) => SocketAddrV6::new(ip, port, 0, scope).into(),
            };
            let (name, len) = Name::encode(address);
            prop_assert_eq!(name.decode(len), Some(address));
            prop_assert_eq!(name.decode(7), None);
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), CONTROL_LEN), len in 0usize..200) {
            let control = Control(bytes.try_into().unwrap());
            prop_assert!(control.messages(len).count() < 128);
            control.arrival(len);
        }
    }
}
