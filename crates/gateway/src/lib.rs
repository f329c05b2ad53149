//! A gateway, composed and still pure: the connections of a configuration, the IKE endpoint that negotiates them,
//! and what the world outside must be like for them, as an ordered list of changes.
//!
//! | module | what |
//! | --- | --- |
//! | [`Gateway`] | the machine: configuration, commands, datagrams and ESP events go in; [`Output`]s come out |
//! | [`plan`] | which policies, devices and routes a configuration asks for, and the way from one plan to another |
//! | [`health`] | whether a tunnel is fit to carry traffic: SAs, BFD, probes, hysteresis |
//! | [`mtu`] | how large an inner packet may be, and why |
//! | [`status`] | what `simplon status` shows; the shapes of `--json` |
//!
//! Every child has a policy from the moment its connection is loaded until it is unloaded: packets that match it
//! are encrypted or dropped, never sent in clear, whether or not there is an SA (RFC 4301 §4.4.1, PROTECT).

mod command;
mod drain;
mod gateway;
pub mod health;
pub mod mtu;
mod output;
pub mod path_mtu;
mod paths;
pub mod plan;
mod record;
mod router;
pub mod status;
mod tally;

pub use command::{Command, CommandError, RekeyWhat};
pub use gateway::{Exported, ExportedOne, Gateway};
pub use output::{
    BfdPacket, BgpConnect, Device, DeviceChange, GatewayEvent, Hop, Output, PolicyChange, ProbePacket, Route,
    RouteChange, Rule, Severity, SocketOrder, Via,
};
pub use record::State;
pub use tally::{Phases, Progress};
