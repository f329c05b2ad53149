//! Two gateways that share an address, of which one is active and the other stands by: who is which, and what they say to
//! each other, without a socket or a clock.
//!
//! | module | what |
//! | --- | --- |
//! | [`member`] | the role of this gateway: a machine |
//! | [`heartbeat`] | the datagram that says that one lives, and as what |
//! | [`channel`] | the stream that state goes over: an authenticated key exchange, and sealed records |
//!
//! What goes over the stream, and what makes it safe that both may live, is not here: `gatewayd::cluster`,
//! `esp::shared`, `ike`'s `v2::sync`.

pub mod channel;
pub mod heartbeat;
pub mod member;

use base::Secret;
use base::algorithm::Prf;
use crypto::prf;

pub use channel::{Broken, Handshake, Opener, Sealer};
pub use heartbeat::Heartbeat;
pub use member::{Member, Options, Output, Role};

/// The key that both members are configured with, and what is derived of it: one key for each use.
#[derive(Clone, Debug)]
pub struct Key {
    heartbeat: Secret,
    channel: Secret,
    digest: Secret,
}

impl Key {
    /// What follows from the configured key, which should be as hard to guess as 128 random bits are: whoever records
    /// what the members say can try guesses.
    pub fn new(configured: &Secret) -> Self {
        let of = |label: &[u8]| prf(Prf::Sha256, configured.expose(), &[b"simplon cluster ", label]);
        Self { heartbeat: of(b"heartbeat"), channel: of(b"channel"), digest: of(b"digest") }
    }

    /// A digest that only members can make: of a configuration, with the secrets in it.
    pub fn digest(&self, bytes: &[u8]) -> [u8; 32] {
        let digest = prf(Prf::Sha256, self.digest.expose(), &[bytes]);
        std::array::from_fn(|at| digest.expose().get(at).copied().unwrap_or_default())
    }
}
