//! Whole scenarios on one machine, in network namespaces, with real peers at the other end.
//!
//! [`scenario::run`] builds the ground of a scenario ([`topology`] over [`netns`], [`nat`]), puts
//! a gateway at each end ([`peer`]), plays the steps and checks what must hold; [`capture`] and
//! [`wire`] look at everything that passes between the gateways. [`routing`] does the same for several gateways and
//! several tunnels, and says what a failover costs. [`matrix`](mod@matrix) lists all combinations; [`bench`](mod@bench) measures. The lab may sleep and read the clock: it waits for real programs.
//!
//! Left out: delay and reordering of packets, which need a kernel with netem.

pub mod bench;
pub mod bgp_peer;
pub mod capture;
mod clock;
pub mod error;
mod interrupt;
pub mod matrix;
pub mod nat;
pub mod netns;
pub mod peer;
mod ping;
pub mod report;
pub mod rootless;
pub mod routing;
pub mod scenario;
mod session;
pub mod shell;
pub mod spec;
pub mod topology;
pub mod wire;

pub use bgp_peer::BgpPeerKind;
pub use error::{Error, Result};
pub use matrix::{Case, Entry, Found, Outcome, entries, matrix, run_all};
pub use peer::PeerKind;
pub use report::Report;
pub use scenario::{Fault, Initiator, Options, Scenario, Trouble, run};
pub use session::shell;
pub use spec::{Encapsulation, Suite, Version};
