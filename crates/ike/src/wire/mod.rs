//! The bytes of IKE: what both versions share, and each version's payloads.
//!
//! A decoder reads bytes once into a view; numbers that it does not know survive; nothing is allocated
//! by a length that the peer claims.

pub mod header;
pub mod v1;
pub mod v2;
