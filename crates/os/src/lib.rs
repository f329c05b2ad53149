//! What simplon asks of Linux: TUN devices, UDP and raw ESP sockets, routes and links, network namespaces.
//!
//! This is the only crate with `unsafe`, and every use of it is one system call in a function of its own. Nothing
//! here decides anything: it moves bytes and settings, and says what the kernel answered.
//!
//! | module | what |
//! | --- | --- |
//! | [`tun`] | packets to and from the kernel |
//! | [`udp`], [`raw`] | sockets for IKE and ESP; both give a [`DatagramSocket`], which sends and receives in batches |
//! | [`tcp`], [`bfd`], [`probe`], [`icmp`] | sockets of the control side: BGP, BFD, probes of the other end, ICMP errors |
//! | [`announce`] | tells a link where an address is |
//! | [`netlink`] | links, addresses, routes, rules; which address reaches a peer |
//! | [`features`] | what a network device does with packets by itself |
//! | [`alone`] | one process of a kind in a network namespace |
//! | [`netns`] | network namespaces, for tests and the lab |
//! | [`rights`] | open files from one process to another |
//! | [`poll`] | what a data-path thread waits with |
//! | [`sysctl`], [`process`], [`clock`] | `/proc/sys`, what a process uses, the time |
//!
//! Every function returns [`std::io::Result`]. Where the kernel's answer alone would not tell a person what failed,
//! the error says what was tried and keeps the kernel's [`std::io::ErrorKind`].

pub mod alone;
pub mod announce;
pub mod bfd;
pub mod clock;
mod control;
mod datagram;
mod error;
pub mod features;
pub mod icmp;
pub mod netlink;
pub mod netns;
pub mod poll;
pub mod probe;
pub mod process;
pub mod raw;
mod ready;
pub mod rights;
mod sockopt;
mod sys;
pub mod sysctl;
pub mod tcp;
pub mod tun;
pub mod udp;

pub use datagram::{
    Arrival, Datagram, DatagramSocket, Fragmentation, MAX_SEGMENTS, RecvBatch, Run, Sent, SocketOptions,
    is_run_refused, is_too_big,
};
pub use sockopt::Origin;
