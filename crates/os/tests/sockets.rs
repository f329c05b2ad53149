//! The sockets of BGP, BFD and probes, between two network namespaces: `near` is 10.8.0.1 and fd08::1, `far` is 10.8.0.2
//! and fd08::2, and a pair of `veth` devices called `wire` joins them.

#![expect(clippy::unwrap_used, reason = "a panic is the verdict, in the helpers of a test too")]

#[expect(dead_code, reason = "what other tests of this crate begin with")]
mod support;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use base::Secret;
use os::Origin;
use os::bfd::{BfdSocket, Departure};
use os::netns::Namespace;
use os::probe::{self, Echo};
use os::tcp::{self, Listener, TcpOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use support::{as_root, ip, net};

const SOON: Duration = Duration::from_secs(10);
/// Long enough for a segment to be answered here, too short for its retransmission after a second.
const NEVER: Duration = Duration::from_millis(300);

struct Two {
    far: Namespace,
}

impl Two {
    /// Runs `open` in the far namespace; what it opens stays there. The reactor is that of the caller.
    fn far<T: Send>(&self, open: impl FnOnce() -> T + Send) -> T {
        let runtime = tokio::runtime::Handle::current();
        self.far
            .run(|| {
                let _entered = runtime.enter();
                open()
            })
            .unwrap()
    }
}

fn command(line: &str) {
    let words: Vec<_> = line.split(' ').collect();
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Runs `test` in the near namespace.
fn between_two<F: Future<Output = ()>>(name: &str, test: impl FnOnce(Two) -> F + Send) {
    as_root(name, || {
        let far = Namespace::new().unwrap();
        let pid = std::process::id();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&std::os::fd::AsFd::as_fd(&far));
        command("ip link set lo up");
        command(&format!("ip link add wire type veth peer name wire netns /proc/{pid}/fd/{fd}"));
        let up = |own: &'static str| {
            command("ip link set lo up");
            command(&format!("ip address add 10.8.0.{own}/24 dev wire"));
            command(&format!("ip address add fd08::{own}/64 dev wire nodad"));
            command("ip link set wire up");
        };
        up("1");
        far.run(|| up("2")).unwrap();
        // Neighbour discovery waits for the devices to have told of themselves.
        command("ping -q -c 1 -i 0.1 -w 10 fd08::2");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { timeout(Duration::from_secs(60), test(Two { far })).await.unwrap() });
    });
}

fn key(text: &str) -> Secret {
    Secret::from(text.as_bytes())
}

/// Connects from near to far, and returns both ends.
async fn pair(listener: &Listener, options: &TcpOptions, key: Option<&Secret>) -> io::Result<(TcpStream, TcpStream)> {
    let remote = listener.local_addr()?;
    let origin = Origin { address: None, device: Some("wire".to_owned()) };
    let connected = timeout(NEVER, tcp::connect(remote, &origin, options, key)).await;
    let connected = connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let (accepted, who) = timeout(SOON, listener.accept()).await.unwrap()?;
    assert_eq!(who, connected.local_addr()?);
    Ok((connected, accepted))
}

async fn speaks(from: &mut TcpStream, to: &mut TcpStream) -> bool {
    let mut byte = [0];
    from.write_all(b"!").await.unwrap();
    matches!(timeout(NEVER, to.read_exact(&mut byte)).await, Ok(Ok(_)))
}

#[test]
fn a_connection_needs_the_key_that_its_listener_has_for_it() {
    between_two("a_connection_needs_the_key_that_its_listener_has_for_it", |two| async move {
        tcp::check_md5().unwrap();
        for (far, near) in [("10.8.0.2", "10.8.0.1/32"), ("fd08::2", "fd08::1/128")] {
            let listener = two.far(|| Listener::bind(SocketAddr::new(ip(far), 0), None)).unwrap();
            let options = TcpOptions::default();
            let of = async |text: Option<&str>| pair(&listener, &options, text.map(key).as_ref()).await;
            // No key, and the peer wants none.
            of(None).await.unwrap();
            listener.set_key(net(near), Some(&key("mont blanc"))).unwrap();
            assert_eq!(of(None).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
            assert_eq!(of(Some("mont cenis")).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
            let (mut a, mut b) = of(Some("mont blanc")).await.unwrap();
            // The listener changes its mind; who is there stays.
            listener.set_key(net(near), Some(&key("gotthard"))).unwrap();
            assert!(speaks(&mut a, &mut b).await);
            assert_eq!(of(Some("mont blanc")).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
            of(Some("gotthard")).await.unwrap();
            listener.set_key(net(near), None).unwrap();
            of(None).await.unwrap();
            assert_eq!(listener.set_key(net(near), None).unwrap_err().kind(), io::ErrorKind::NotFound);

            // A key for all of a network, and another for one of it.
            let wide = if far.contains(':') { "fd08::/64" } else { "10.8.0.0/24" };
            listener.set_key(net(wide), Some(&key("all"))).unwrap();
            of(Some("all")).await.unwrap();
            listener.set_key(net(near), Some(&key("one"))).unwrap();
            of(Some("one")).await.unwrap();
            assert_eq!(of(Some("all")).await.unwrap_err().kind(), io::ErrorKind::TimedOut);

            let too_long = listener.set_key(net(near), Some(&key(&"x".repeat(81)))).unwrap_err();
            assert_eq!(too_long.kind(), io::ErrorKind::InvalidInput);
            assert!(!too_long.to_string().contains("xx"), "{too_long}");
            listener.set_key(net(near), Some(&key(&"x".repeat(80)))).unwrap();
            of(Some(&"x".repeat(80))).await.unwrap();
            let other_family = if far.contains(':') { "10.8.0.1/32" } else { "fd08::1/128" };
            let refused = listener.set_key(net(other_family), Some(&key("x"))).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
        }
    });
}

#[test]
fn a_segment_with_a_ttl_below_the_least_is_not_heard() {
    between_two("a_segment_with_a_ttl_below_the_least_is_not_heard", |two| async move {
        for far in ["10.8.0.2", "fd08::2"] {
            let listener = two.far(|| Listener::bind(SocketAddr::new(ip(far), 0), None)).unwrap();
            // The listener's answers pass one that demands 255.
            let (mut a, mut b) = pair(&listener, &TcpOptions::one_hop(), None).await.unwrap();
            TcpOptions::one_hop().apply(&b).unwrap();
            assert!(speaks(&mut a, &mut b).await && speaks(&mut b, &mut a).await);
            TcpOptions::default().apply(&a).unwrap();
            assert!(!speaks(&mut a, &mut b).await, "a TTL of 1 is not 255");
        }
    });
}

#[test]
fn a_connection_leaves_from_where_it_is_told() {
    between_two("a_connection_leaves_from_where_it_is_told", |two| async move {
        command("ip address add 10.8.0.7/32 dev lo");
        let listener = two.far(|| Listener::bind("10.8.0.2:0".parse().unwrap(), Some("wire"))).unwrap();
        let remote = listener.local_addr().unwrap();
        let origin = |address: &str, device: Option<&str>| Origin {
            address: Some(ip(address)),
            device: device.map(str::to_owned),
        };
        let connect = async |origin: Origin| {
            let connected = timeout(NEVER, tcp::connect(remote, &origin, &TcpOptions::default(), None)).await;
            connected.map_err(|_| io::ErrorKind::TimedOut)?.map_err(|e| e.kind())
        };
        let socket = connect(origin("10.8.0.7", Some("wire"))).await.unwrap();
        assert_eq!(socket.local_addr().unwrap().ip(), ip("10.8.0.7"));
        assert_eq!(connect(origin("10.8.0.9", None)).await.unwrap_err(), io::ErrorKind::AddrNotAvailable);
        assert!(connect(origin("10.8.0.1", Some("lo"))).await.is_err());
        assert!(connect(origin("10.8.0.1", Some("nowhere"))).await.is_err());
    });
}

#[test]
fn a_bfd_packet_says_how_it_came() {
    between_two("a_bfd_packet_says_how_it_came", |two| async move {
        let index = |name: &str| nix::net::if_::if_nametoindex(name).unwrap();
        let there = two.far(|| index("wire"));
        for (any, near, far) in [("0.0.0.0", "10.8.0.1", "10.8.0.2"), ("::", "fd08::1", "fd08::2")] {
            let port = os::bfd::PORT;
            let listener = two.far(|| BfdSocket::bind(SocketAddr::new(ip(any), port), None)).unwrap();
            listener.set_receive_buffer(1 << 20).unwrap();
            let sender = BfdSocket::bind(SocketAddr::new(ip(any), 0), Some("wire")).unwrap();
            let to = SocketAddr::new(ip(far), port);
            let by = Departure { local: Some(ip(near)), device: Some(index("wire")) };
            sender.send(b"control packet", to, by).unwrap();
            let mut bytes = [0; 100];
            let arrival = timeout(SOON, listener.recv(&mut bytes)).await.unwrap().unwrap();
            assert_eq!(&bytes[..arrival.len], b"control packet");
            let remote = SocketAddr::new(ip(near), sender.local_addr().port());
            assert_eq!((arrival.remote, arrival.local), (remote, ip(far)));
            assert_eq!((arrival.ttl, arrival.device), (255, there));
            // One that came from further away, or says so.
            let socket = std::net::UdpSocket::bind(SocketAddr::new(ip(near), 0)).unwrap();
            let socket = socket2::Socket::from(socket);
            if near.contains(':') { socket.set_unicast_hops_v6(254) } else { socket.set_ttl_v4(254) }.unwrap();
            socket.send_to(b"forged", &to.into()).unwrap();
            let arrival = timeout(SOON, listener.recv(&mut bytes)).await.unwrap().unwrap();
            assert_eq!((arrival.ttl, arrival.len), (254, 6));
            let nothing = timeout(Duration::from_millis(20), listener.recv(&mut bytes)).await;
            assert!(nothing.is_err(), "{nothing:?}");
            // Answered from the address that was asked, through the device it came by.
            let by = Departure { local: Some(arrival.local), device: Some(arrival.device) };
            listener.send(b"back", remote, by).unwrap();
            let arrival = timeout(SOON, sender.recv(&mut bytes)).await.unwrap().unwrap();
            assert_eq!((arrival.remote, &bytes[..arrival.len]), (to, &b"back"[..]));
            let other_family = if far.contains(':') { "10.8.0.1" } else { "fd08::1" };
            let by = Departure { local: Some(ip(other_family)), device: None };
            assert_eq!(sender.send(b"", to, by).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    });
}

/// Echoes of both kinds of socket: root's raw one, and the one for anyone.
async fn echoes(near: &str, far: &str) {
    let origin = Origin { address: Some(ip(near)), device: Some("wire".to_owned()) };
    let (one, two) = (Echo::open(ip(far), &origin, 77).unwrap(), Echo::open(ip(far), &origin, 78).unwrap());
    let mut payload = [0; 100];
    for sequence in [1, 2, u16::MAX] {
        one.ask(sequence, b"are you there?").unwrap();
        let (answered, len) = timeout(SOON, one.answered(&mut payload)).await.unwrap().unwrap();
        assert_eq!((answered, &payload[..len]), (sequence, &b"are you there?"[..]));
    }
    // The same address, asked by another.
    two.ask(9, &[7; 2_000]).unwrap();
    let (answered, len) = timeout(SOON, two.answered(&mut payload)).await.unwrap().unwrap();
    assert_eq!((answered, len), (9, 100));
    let nothing = timeout(Duration::from_millis(50), one.answered(&mut payload)).await;
    assert!(nothing.is_err(), "an echo of the other socket: {nothing:?}");
}

#[test]
fn an_echo_comes_back_to_who_asked() {
    between_two("an_echo_comes_back_to_who_asked", |two| async move {
        let _kept = two;
        echoes("10.8.0.1", "10.8.0.2").await;
        echoes("fd08::1", "fd08::2").await;
        let nobody =
            Echo::open(ip("10.8.0.2"), &Origin { address: Some(ip("10.8.0.9")), device: None }, 1).unwrap_err();
        assert_eq!(nobody.kind(), io::ErrorKind::AddrNotAvailable);
    });
}

#[test]
fn without_privileges_an_echo_takes_what_the_host_allows() {
    between_two("without_privileges_an_echo_takes_what_the_host_allows", |two| async move {
        let _kept = two;
        os::sysctl::write("net/ipv4/ping_group_range", "0 2147483647").unwrap();
        // This thread alone gives up the right to raw sockets; it ends with the test.
        drop_net_raw();
        echoes("10.8.0.1", "10.8.0.2").await;
        echoes("fd08::1", "fd08::2").await;
    });
}

/// Takes `CAP_NET_RAW` from the calling thread, by `setpriv`'s means: `capset(2)` over what `capget(2)` gave.
#[expect(unsafe_code, reason = "no library here knows capabilities")]
fn drop_net_raw() {
    const NET_RAW: u32 = 13;
    // struct __user_cap_header_struct of version 3, for this thread; then two of struct __user_cap_data_struct.
    let header = [0x2008_0522u32, 0];
    let mut data = [0u32; 6];
    // SAFETY: both are live and of the sizes that version 3 has: 8 and 24 bytes.
    let got = unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), data.as_mut_ptr()) };
    assert_eq!(got, 0);
    data[0] &= !(1 << NET_RAW);
    // SAFETY: as above; the kernel only reads.
    let set = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) };
    assert_eq!(set, 0, "{}", io::Error::last_os_error());
}

#[test]
fn a_udp_probe_is_echoed() {
    between_two("a_udp_probe_is_echoed", |two| async move {
        for (near, far) in [("10.8.0.1", "10.8.0.2"), ("fd08::1", "fd08::2")] {
            let there = two.far(|| std::net::UdpSocket::bind(SocketAddr::new(ip(far), 0)).unwrap());
            let origin = Origin { address: Some(ip(near)), device: Some("wire".to_owned()) };
            let probe = probe::udp(there.local_addr().unwrap(), &origin).unwrap();
            probe.send(b"1").await.unwrap();
            let mut byte = [0];
            there.set_read_timeout(Some(SOON)).unwrap();
            let (_, who) = there.recv_from(&mut byte).unwrap();
            let expected: IpAddr = ip(near);
            assert_eq!(who.ip(), expected);
            there.send_to(&byte, who).unwrap();
            assert_eq!(timeout(SOON, probe.recv(&mut byte)).await.unwrap().unwrap(), 1);
        }
    });
}
