//! TCP for BGP (RFC 4271 §8, port 179): from a chosen address through a chosen device, with a TTL that a stranger cannot
//! forge (RFC 5082) and a key on every segment (RFC 2385).
//!
//! A connection that [`connect`] or [`Listener::accept`] gave sends at once (`TCP_NODELAY`) and as control traffic (DSCP
//! CS6). Left out: TCP-AO (RFC 5925), which distributions' kernels mostly lack.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use base::Secret;
use ipnet::IpNet;
use socket2::{Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::control::Name;
use crate::error::Tried;
use crate::sockopt::{self, Origin};

/// The longest key of TCP MD5, in bytes (`TCP_MD5SIG_MAXKEYLEN`).
pub const MAX_KEY: usize = 80;

/// Connections that wait for [`Listener::accept`] at most.
const BACKLOG: i32 = 1_024;

/// What a connection with one peer is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpOptions {
    /// The TTL or hop limit of what is sent: 1 for a neighbour on the same link (the default), 255 where it demands
    /// that, more than 1 where it is further away.
    pub ttl: u8,
    /// The least TTL of what is received: 255 for a neighbour that must be on the same link (RFC 5082), which must
    /// send 255 then. 0, the default, takes everything.
    pub min_ttl: u8,
    /// How long what was sent may stay unacknowledged before the connection ends, in steps of a millisecond; at least
    /// the hold time. The kernel's default is some fifteen minutes.
    pub user_timeout: Option<Duration>,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self { ttl: 1, min_ttl: 0, user_timeout: None }
    }
}

impl TcpOptions {
    /// A neighbour that must be on the same link (RFC 5082).
    pub fn one_hop() -> Self {
        Self { ttl: 255, min_ttl: 255, user_timeout: None }
    }

    /// Makes an open connection like this: one that was accepted, before anything is read from it.
    pub fn apply(&self, stream: &TcpStream) -> io::Result<()> {
        self.apply_to(SockRef::from(stream), stream.as_fd())
    }

    fn apply_to(&self, socket: SockRef<'_>, fd: BorrowedFd<'_>) -> io::Result<()> {
        let v4 = sockopt::is_v4(fd)?;
        sockopt::set_ttl(fd, v4, self.ttl)?;
        sockopt::set_min_ttl(fd, v4, self.min_ttl)?;
        sockopt::set_cs6(fd, v4)?;
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_user_timeout(self.user_timeout).tried(|| "set the user timeout".into())
    }
}

/// Connects. Dropping it before it is done gives up. `key` is that of TCP MD5: 1 to [`MAX_KEY`] bytes.
///
/// # Errors
/// `ConnectionRefused`, `HostUnreachable` and the like; `AddrNotAvailable` when the address is not ours; `TimedOut`
/// also when the keys differ, for the peer does not answer then; `InvalidInput` for an impossible key; `NotFound` when
/// there is no such device.
pub async fn connect(
    remote: SocketAddr,
    from: &Origin,
    options: &TcpOptions,
    key: Option<&Secret>,
) -> io::Result<TcpStream> {
    let tried = || format!("connect to {remote}");
    let socket = sockopt::open(remote.ip(), Type::STREAM, Protocol::TCP).tried(tried)?;
    sockopt::bind_device(&socket, from.device.as_deref())?;
    options.apply_to(SockRef::from(&socket), socket.as_fd())?;
    if let Some(key) = key {
        set_key(socket.as_fd(), remote.ip().into(), Some(key))?;
    }
    if let Some(address) = from.address {
        socket.bind(&SocketAddr::new(address, 0).into()).tried(|| format!("connect to {remote} from {address}"))?;
    }
    TcpSocket::from_std_stream(socket.into()).connect(remote).await.tried(tried)
}

/// A socket that BGP neighbours connect to.
#[derive(Debug)]
pub struct Listener(TcpListener);

impl Listener {
    /// Listens at an address, of that family only. Must be called within a tokio runtime. What it sends has TTL 255,
    /// which a peer takes that demands it and one that does not.
    ///
    /// # Errors
    /// `AddrInUse` when another BGP daemon has the port, `PermissionDenied` for a port below 1024 without
    /// `CAP_NET_BIND_SERVICE`.
    pub fn bind(local: SocketAddr, device: Option<&str>) -> io::Result<Self> {
        let socket = Self::open(local, device).tried(|| format!("listen at TCP {local}"))?;
        Ok(Self(TcpListener::from_std(socket.into())?))
    }

    fn open(local: SocketAddr, device: Option<&str>) -> io::Result<Socket> {
        let socket = sockopt::open(local.ip(), Type::STREAM, Protocol::TCP)?;
        sockopt::bind_device(&socket, device)?;
        sockopt::set_ttl(socket.as_fd(), local.is_ipv4(), 255)?;
        sockopt::set_cs6(socket.as_fd(), local.is_ipv4())?;
        // So that a restart does not wait for the last connections to be forgotten.
        socket.set_reuse_address(true)?;
        socket.bind(&local.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket)
    }

    /// Where it listens, with the port that the kernel chose if port 0 was asked for.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// From now on these peers must sign with this key, and those that do not are not heard; `None` takes the key away.
    /// Of several prefixes the longest counts. A connection that was accepted keeps the key that it began with.
    ///
    /// # Errors
    /// `InvalidInput` for a key that is not 1 to [`MAX_KEY`] bytes long or peers of the other family, `NotFound` when
    /// there is no key to take away.
    pub fn set_key(&self, peers: IpNet, key: Option<&Secret>) -> io::Result<()> {
        if peers.addr().is_ipv4() != self.local_addr()?.is_ipv4() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{peers} is of another family")));
        }
        set_key(self.0.as_fd(), peers, key)
    }

    /// Waits for the next connection. The caller looks who it is and calls [`TcpOptions::apply`], or drops it. Nothing is
    /// lost when this is dropped before it is done.
    ///
    /// # Errors
    /// One that ended before it was accepted is passed over. What is left is the lack of something, such as file
    /// descriptors: wait before trying again.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        loop {
            match self.0.accept().await {
                Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => {}
                // accept(2): errors of the network that already concern the new connection.
                Err(e) if e.raw_os_error().is_some_and(|errno| PASSING.contains(&errno)) => {}
                accepted => return accepted.tried(|| "accept a connection".into()),
            }
        }
    }
}

const PASSING: [i32; 6] =
    [libc::ENETDOWN, libc::EPROTO, libc::EHOSTDOWN, libc::EHOSTUNREACH, libc::ENETUNREACH, libc::ETIMEDOUT];

/// Whether this kernel has TCP MD5 at all.
///
/// # Errors
/// `InvalidInput` (`ENOPROTOOPT`) from a kernel without `CONFIG_TCP_MD5SIG`, others from one that forbids it, as some do
/// in FIPS mode.
pub fn check_md5() -> io::Result<()> {
    let peer = IpAddr::from([192, 0, 2, 1]);
    let socket = sockopt::open(peer, Type::STREAM, Protocol::TCP)?;
    set_key(socket.as_fd(), peer.into(), Some(&Secret::from(&b"?"[..])))
}

/// `struct tcp_md5sig` has the peer's address, flags, the length of its prefix, the length of the key, a device and the
/// key, in this order.
const SIGNATURE: usize = ADDRESS + 8 + MAX_KEY;
const ADDRESS: usize = size_of::<libc::sockaddr_storage>();
/// `TCP_MD5SIG_FLAG_PREFIX`.
const PREFIX: u8 = 1;

fn set_key(socket: BorrowedFd<'_>, peers: IpNet, key: Option<&Secret>) -> io::Result<()> {
    let tried = || format!("set the TCP MD5 key of {peers}");
    let len = key.map_or(0, Secret::len);
    if key.is_some() && !(1..=MAX_KEY).contains(&len) {
        let why = format!("a TCP MD5 key has 1 to {MAX_KEY} bytes, and that of {peers} has {len}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let mut bytes = vec![0; SIGNATURE].into_boxed_slice();
    let (name, _) = Name::encode(SocketAddr::new(peers.network(), 0));
    let len_bytes = u16::try_from(len).unwrap_or_default().to_ne_bytes();
    let fields = [(0, &name.0[..]), (ADDRESS, &[PREFIX, peers.prefix_len()]), (ADDRESS + 2, &len_bytes)];
    for (at, field) in fields.into_iter().chain(key.map(|key| (ADDRESS + 8, key.expose()))) {
        bytes.iter_mut().skip(at).zip(field).for_each(|(to, from)| *to = *from);
    }
    // Zeroed when dropped, and not moved before.
    let signature = Secret::new(bytes);
    sockopt::set_bytes(socket, libc::IPPROTO_TCP, libc::TCP_MD5SIG_EXT, signature.expose()).tried(tried)
}
