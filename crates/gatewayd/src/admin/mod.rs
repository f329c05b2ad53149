//! The admin socket: a Unix socket of mode 0600 on which each line is a request and each line back is its answer, both
//! JSON.
//!
//! ```text
//! > {"command":"up","target":"Tunnel1"}
//! < {"answer":"done","at_ms":5120}
//! > {"command":"down","target":"tunel1"}
//! < {"answer":"error","message":"there is no connection tunel1; did you mean Tunnel1?"}
//! ```
//!
//! Bounds: a request has at most [`LARGEST_REQUEST`] bytes, and at most [`CLIENTS`] clients are served at once.

mod client;
mod server;

use gateway::RekeyWhat;
use gateway::status::Status;
use gateway::status::routing::{BgpPath, RouteStatus};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use client::{Client, ClientError};
pub(crate) use server::{Asked, Server};

/// Where the socket is unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/simplon/gateway.sock";
/// The largest request in bytes, its newline included.
pub const LARGEST_REQUEST: usize = 16 << 10;
/// Clients that are served at once; more wait.
pub const CLIENTS: usize = 32;
/// Routes or paths in one answer at most.
pub const ROUTES: usize = 10_000;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// How everything is.
    Status,
    /// Bring a connection, or a child of it, up.
    Up {
        /// `CONNECTION` or `CONNECTION/CHILD`.
        target: String,
    },
    /// Take it down.
    Down {
        /// `CONNECTION` or `CONNECTION/CHILD`.
        target: String,
    },
    /// Move its traffic to other tunnels, then take it down.
    Drain {
        /// `CONNECTION` or `CONNECTION/CHILD`.
        target: String,
    },
    /// Make new keys.
    Rekey {
        /// `CONNECTION` or `CONNECTION/CHILD`.
        target: String,
        /// Whether those of the IKE SA, instead of those that carry packets.
        #[serde(default)]
        ike: bool,
    },
    /// Read the configuration again.
    Reload,
    /// Have the other member of the cluster take this one's place.
    ClusterSwitch,
    /// Hand everything over to the process that asks.
    HandOver {
        /// The format that it understands.
        format: u32,
        /// Whether to begin: then no line follows, and the stream speaks that format. Else how things are is told.
        #[serde(default)]
        begin: bool,
        /// Its number.
        #[serde(default)]
        process: u32,
    },
    /// The routes that the kernel was asked for.
    Routes {
        /// At most so many; never more than [`ROUTES`].
        #[serde(default = "all_routes")]
        limit: usize,
    },
    /// The paths that BGP knows.
    BgpPaths {
        /// Only those to this prefix.
        #[serde(default)]
        prefix: Option<IpNet>,
        /// At most so many; never more than [`ROUTES`].
        #[serde(default = "all_routes")]
        limit: usize,
    },
    /// What happened.
    Events {
        /// Only what happened after the event of this number; the newest events where it is not said.
        #[serde(default)]
        after: Option<u64>,
        /// Only of this connection.
        #[serde(default)]
        connection: Option<String>,
        /// At most so many; never more than [`crate::log::PAGE`].
        #[serde(default = "everything")]
        limit: usize,
    },
}

const fn all_routes() -> usize {
    ROUTES
}

const fn everything() -> usize {
    crate::log::PAGE
}

impl Request {
    /// The order that it is, where it is one.
    pub(crate) fn command(self) -> Option<gateway::Command> {
        match self {
            Self::Up { target } => Some(gateway::Command::Up(target)),
            Self::Down { target } => Some(gateway::Command::Down(target)),
            Self::Drain { target } => Some(gateway::Command::Drain(target)),
            Self::Rekey { target, ike } => {
                let what = if ike { RekeyWhat::Ike } else { RekeyWhat::Children };
                Some(gateway::Command::Rekey { target, what })
            }
            Self::Status
            | Self::Reload
            | Self::ClusterSwitch
            | Self::HandOver { .. }
            | Self::Events { .. }
            | Self::Routes { .. }
            | Self::BgpPaths { .. } => None,
        }
    }
}

/// What a client hears.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// How everything is.
    Status {
        /// All of it.
        status: Box<Status>,
    },
    /// The routes.
    Routes {
        /// Connected, configured, learnt.
        routes: Vec<RouteStatus>,
        /// Whether there are more.
        more: bool,
    },
    /// The paths.
    BgpPaths {
        /// In the order of their prefixes.
        paths: Vec<BgpPath>,
        /// Whether there are more.
        more: bool,
    },
    /// What happened.
    Events {
        /// Some of it.
        page: crate::log::Page,
    },
    /// The order was taken. That a connection comes up is seen in its status.
    Done {
        /// When it was taken, in milliseconds since the gateway started.
        at_ms: u64,
    },
    /// The gateway is ready to be handed over.
    HandOver {
        /// The format in which it is.
        format: u32,
        /// When its clock began, in microseconds of the machine's monotonic clock.
        began_us: u64,
        /// The TUN devices of its tunnels.
        devices: Vec<String>,
    },
    /// The order could not be taken.
    Error {
        /// Why not, in a sentence without a full stop.
        message: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_answers_have_the_documented_shape() {
        let up: Request = serde_json::from_str(r#"{"command":"up","target":"a/b"}"#).unwrap();
        assert_eq!(up, Request::Up { target: "a/b".into() });
        let rekey: Request = serde_json::from_str(r#"{"command":"rekey","target":"a"}"#).unwrap();
        assert_eq!(rekey, Request::Rekey { target: "a".into(), ike: false });
        let events: Request = serde_json::from_str(r#"{"command":"events","after":7}"#).unwrap();
        assert_eq!(events, Request::Events { after: Some(7), connection: None, limit: 1_000 });
        assert!(serde_json::from_str::<Request>(r#"{"command":"format"}"#).is_err());
        assert_eq!(serde_json::to_string(&Answer::Done { at_ms: 7 }).unwrap(), r#"{"answer":"done","at_ms":7}"#);
    }
}
