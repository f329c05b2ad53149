//! ICMP errors about the ESP packets that left. They are counted, for a person who looks for a path that is broken; as
//! anyone can make them up, nothing is done about them (RFC 4301 §6).

use packet::icmp::{Quoted, quoted_esp};
use tokio::sync::mpsc;
use tracing::debug;

use crate::sockets::Task;

/// Errors that wait for the control loop at most.
const WAITING: usize = 16;
/// At most this many a second of each family are looked at: what is beyond that the kernel drops.
const A_SECOND: u32 = 100;

/// The errors of both families.
#[derive(Debug)]
pub(crate) struct IcmpErrors {
    heard: mpsc::Receiver<Quoted>,
    _tasks: Vec<Task>,
}

impl IcmpErrors {
    /// Listens where the kernel allows it. Must be called within a tokio runtime.
    pub(crate) fn listen() -> Self {
        let (sender, heard) = mpsc::channel(WAITING);
        let open = |is_v4| match os::icmp::IcmpErrors::open(is_v4) {
            Ok(socket) => Some(Task::spawn(read(socket, is_v4, sender.clone()))),
            Err(e) => {
                debug!("ICMP errors are not counted: {e}");
                None
            }
        };
        Self { _tasks: [true, false].into_iter().filter_map(open).collect(), heard }
    }

    /// Waits for an error that quotes ESP, or what may be ESP. Nothing is lost when this is dropped before it is done.
    pub(crate) async fn heard(&mut self) -> Option<Quoted> {
        self.heard.recv().await
    }
}

async fn read(socket: os::icmp::IcmpErrors, is_v4: bool, sender: mpsc::Sender<Quoted>) {
    loop {
        match socket.heard().await {
            Ok(message) => {
                if let Some(quoted) = quoted_esp(&message, is_v4)
                    && sender.send(quoted).await.is_err()
                {
                    return;
                }
            }
            Err(e) => debug!("receiving ICMP errors: {e}"),
        }
        tokio::time::sleep(std::time::Duration::from_secs(1) / A_SECOND).await;
    }
}
