//! What every simplon crate shares: virtual time, the seam of a pure machine, secrets that do not
//! leak, and the names of the algorithms that IPsec peers agree on.
//!
//! A core crate cannot read a clock: an [`Instant`] only ever comes in as an argument, and last.

pub mod algorithm;
pub mod error;
pub mod export;
mod machine;
mod random;
mod secret;
mod time;

pub use machine::{Deadline, Machine};
pub use random::Random;
pub use secret::Secret;
pub use time::Instant;
