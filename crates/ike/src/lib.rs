//! IKEv1 (RFC 2407, 2408, 2409) and IKEv2 (RFC 7296) as one pure state machine: datagrams and a time
//! go in; datagrams, Child SAs and events come out. It holds no socket and reads no clock.
//!
//! [`Endpoint`] owns the IKE SAs of a gateway and sorts datagrams to them. An IKE SA is a session of
//! `v1` or `v2`; both speak to the endpoint in the same few signals.
//!
//! Left out: aggressive mode and XAUTH (refused with a reason), certificates, EAP, MOBIKE.

mod context;
mod endpoint;
mod event;
mod export;
mod failure;
mod natt;
mod peer;
mod probe;
mod session;
mod v1;
mod v2;
pub mod wire;

pub use endpoint::Endpoint;
pub use event::{CloseReason, Counters, DropReason, Event, Output, PeerCounters, Rekey, Transmit, Trouble};
pub use export::{Exported, ExportedPeer, Import};
pub use failure::{Cause, Failure, Fix, Offer, Side};
pub use peer::{Options, PeerId, Retransmission};
pub use probe::{CannotProbe, Outcome, Probe, Probed};
pub use session::{Algorithms, ChildView, IkeSaView, IkeState};
