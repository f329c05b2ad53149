//! Ctrl-C and SIGTERM: a flag that every wait looks at, so that the lab is left by unwinding and
//! its guard removes everything.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::signal::unix::{SignalKind, signal};

use crate::error::{Error, Result};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static LABS: AtomicUsize = AtomicUsize::new(0);
static WATCH: Once = Once::new();

/// Held by each lab: while one exists, a signal sets the flag; when none exists, it ends the
/// process as it would have without us.
pub(crate) struct Guard(());

impl Guard {
    pub(crate) fn new() -> Self {
        LABS.fetch_add(1, Ordering::SeqCst);
        WATCH.call_once(|| {
            // Without the watcher a signal ends the process at once; what is left behind is then
            // removed by the next lab.
            let _ = std::thread::Builder::new().name("signals".into()).spawn(watch);
        });
        Self(())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        LABS.fetch_sub(1, Ordering::SeqCst);
    }
}

fn watch() {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    runtime.block_on(async {
        let kinds = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()), signal(SignalKind::hangup()));
        let (Ok(mut int), Ok(mut term), Ok(mut hup)) = kinds else { return };
        loop {
            tokio::select! {
                _ = int.recv() => {}
                _ = term.recv() => {}
                _ = hup.recv() => {}
            }
            INTERRUPTED.store(true, Ordering::SeqCst);
            if LABS.load(Ordering::SeqCst) == 0 {
                std::process::exit(130);
            }
        }
    });
}

/// Whether a signal has come.
pub(crate) fn happened() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// # Errors
///
/// [`Error::Interrupted`] once a signal has come.
pub(crate) fn check() -> Result<()> {
    if happened() { Err(Error::Interrupted) } else { Ok(()) }
}
