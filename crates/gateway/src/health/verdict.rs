//! The verdict on a tunnel, with its reason in words.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::machine::{SaLoss, TunnelId};

/// How good a tunnel is. Better ones compare greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Grade {
    /// It does not carry packets, or it is not known whether it does.
    Unhealthy,
    /// It carries packets now, and fell not long ago: better than none.
    Settling,
    /// It carries packets.
    Healthy,
}

/// What is thought of a tunnel, told when the grade or the reason changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Which tunnel.
    pub tunnel: TunnelId,
    /// How good it is.
    pub grade: Grade,
    /// Why.
    pub reason: Reason,
}

impl Verdict {
    /// Whether traffic should prefer it.
    pub fn is_healthy(&self) -> bool {
        self.grade == Grade::Healthy
    }
}

/// Why a tunnel is as good as it is; a clause without a full stop when shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Nothing has been heard of its SA yet.
    NoSa,
    /// Its SA is gone.
    SaLost(SaLoss),
    /// No probe was answered yet, and not enough are lost.
    FirstAnswer {
        /// Whose answer is waited for.
        target: IpAddr,
    },
    /// BFD has not come up yet.
    FirstBfd,
    /// BFD is down.
    BfdDown(Arc<str>),
    /// Too many probes are lost.
    ProbesLost {
        /// Who does not answer.
        target: IpAddr,
        /// So many were lost.
        lost: u8,
        /// Of so many.
        of: u8,
    },
    /// It is good, and must stay so for the hold time.
    Holding {
        /// The hold time.
        hold: Duration,
    },
    /// Every witness is content.
    Good,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSa => f.write_str("it has no SA yet"),
            Self::SaLost(loss) => loss.fmt(f),
            Self::FirstAnswer { target } => write!(f, "the first probe that {target} answers is waited for"),
            Self::FirstBfd => f.write_str("BFD has not come up yet"),
            Self::BfdDown(why) => write!(f, "BFD is down: {why}"),
            Self::ProbesLost { target, lost, of } if lost == of => {
                write!(f, "{target} did not answer the last {lost} probes")
            }
            Self::ProbesLost { target, lost, of } => {
                write!(f, "{target} did not answer {lost} of the last {of} probes")
            }
            Self::Holding { hold } => {
                write!(f, "it is good again, and preferred once it has been so for {} s", hold.as_secs_f32())
            }
            Self::Good => f.write_str("its SA is up and every check of it succeeds"),
        }
    }
}
