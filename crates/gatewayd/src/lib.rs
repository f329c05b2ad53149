//! The shell of a gateway: it reads the clock, the disk, the network and the signals for [`gateway::Gateway`], and
//! carries out what that says. It decides nothing about IKE or IPsec.
//!
//! | module | what |
//! | --- | --- |
//! | [`run`] | the control loop, from start to polite end |
//! | [`data`] | the seam to the data-path thread, and that thread |
//! | [`world`] | devices, routes and rules of the kernel, all removed at the end |
//! | [`routes`] | routes into the kernel, however many, and whoever else changes them |
//! | `cluster` | the other gateway that shares addresses with this one |
//! | `handover` | one process hands everything to another |
//! | `guard` | the firewall table that refuses packets in clear |
//! | [`resolve`] | our address towards each peer, and the peers' names |
//! | [`sockets`] | the sockets of BFD, probes and BGP |
//! | [`admin`] | the admin socket: what `simplon status`, `up`, `down` and `rekey` talk to |
//! | `ages` | since when routes are there |
//! | [`log`] | what a person sees: the log, the journal, a file of each connection |
//! | `metrics` | the same in numbers, for Prometheus |
//! | `notify` | what the service manager is told |
//! | [`files`], [`host`] | configuration files; what the host's settings must be |

pub mod admin;
mod ages;
mod cluster;
mod control;
pub mod data;
mod error;
pub mod files;
mod guard;
mod handover;
pub mod host;
mod icmp;
pub mod log;
mod metrics;
mod notify;
mod otlp;
mod outer;
pub mod resolve;
pub mod routes;
pub mod sockets;
pub mod world;

pub use control::{Options, run};
pub use error::Error;
