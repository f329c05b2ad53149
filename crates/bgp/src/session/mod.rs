//! One session: its states (RFC 4271 §8), what two OPEN messages agree upon, and which of two connections lives on.

mod agreement;
mod collision;
mod connection;
mod fsm;

pub use agreement::Agreement;
pub(crate) use agreement::{Expectation, check, common, keepalive, without};
pub(crate) use collision::{Rival, Verdict, resolve};
pub use connection::Direction;
pub(crate) use connection::{Connection, Phase};
pub use fsm::State;
pub(crate) use fsm::{Action, Event, react};
