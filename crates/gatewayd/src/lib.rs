//! The shell of a gateway.

pub mod data;
