//! What encryption costs is measured as the difference to a data path without it.
//!
//! Nothing that is negotiated or configured leads here, and the `simplon` program does not call it: an example of the
//! crate `gatewayd` does, which the benchmark starts at both ends.

use std::sync::atomic::{AtomicBool, Ordering};

static WITHOUT_ENCRYPTION: AtomicBool = AtomicBool::new(false);

/// From now on, and for as long as this process lives, SAs that are put in service **neither encrypt nor authenticate**:
/// packets have the lengths that their suite gives them, zeros for the ICV, and their contents in clear. SAs that are in
/// service already stay what they are.
pub fn without_encryption() {
    WITHOUT_ENCRYPTION.store(true, Ordering::Relaxed);
}

pub(crate) fn is_without_encryption() -> bool {
    WITHOUT_ENCRYPTION.load(Ordering::Relaxed)
}
