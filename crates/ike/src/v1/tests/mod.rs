//! The IKEv1 session in virtual time.

mod bring_up;
mod golden;
mod lifecycle;
mod probe;
mod refusals;
mod world;
