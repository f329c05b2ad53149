//! What the service manager is told (`sd_notify(3)`): that the gateway is ready, reads its configuration again, stops,
//! how it is, and that it lives. Each message is one datagram of lines to the socket that `NOTIFY_SOCKET` names: a path,
//! or a name in the abstract namespace where it begins with `@`. Without that variable nobody is told anything.
//!
//! `WATCHDOG=1` is sent only after the control loop has asked the data path for a sign of life and got it: when either
//! of them hangs, the manager hears nothing and starts the gateway again.
//!
//! Left out: sockets of the family `vsock`, which only the manager of a virtual machine's host has.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::data::Handle;

/// How long a message may wait for a manager that is busy.
const PATIENCE: Duration = Duration::from_millis(200);
/// The status line is sent at most this often.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// The way to the service manager.
#[derive(Debug, Default)]
pub(crate) struct Notifier {
    socket: Option<UnixDatagram>,
    watchdog: Option<Watchdog>,
    /// A status line that was not sent yet.
    status: Option<String>,
    status_sent: Option<Instant>,
}

/// When the manager next wants a sign of life.
#[derive(Debug)]
struct Watchdog {
    every: Duration,
    next: Instant,
    /// The data path was asked.
    pong: Option<oneshot::Receiver<()>>,
}

impl Notifier {
    /// As the environment says.
    pub(crate) fn from_environment() -> Self {
        let Some(address) = env::var_os("NOTIFY_SOCKET") else { return Self::default() };
        let number = |name| env::var(name).ok()?.parse::<u64>().ok();
        let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|time| is_ours && *time > 0).map(Duration::from_micros);
        Self::to(&address, watchdog).unwrap_or_else(|e| {
            warn!("the service manager cannot be told anything at {}: {e}", address.display());
            Self::default()
        })
    }

    /// Tells the socket at `address`; a sign of life is wanted within `watchdog`.
    ///
    /// # Errors
    /// When there is no such socket.
    fn to(address: &OsStr, watchdog: Option<Duration>) -> io::Result<Self> {
        let address = match address.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(address)?,
            _ => return Err(io::Error::new(io::ErrorKind::Unsupported, "it is neither a path nor begins with @")),
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        socket.set_write_timeout(Some(PATIENCE))?;
        // Half of what is allowed, as sd_watchdog_enabled(3) advises.
        let watchdog = watchdog.map(|time| Watchdog { every: time / 2, next: Instant::now() + time / 2, pong: None });
        Ok(Self { socket: Some(socket), watchdog, ..Self::default() })
    }

    /// The configuration is in effect.
    pub(crate) fn ready(&self) {
        self.send("READY=1");
    }

    /// The configuration is read again, until [`Self::ready`].
    pub(crate) fn reloading(&self) {
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}", os::clock::monotonic_us()));
    }

    /// Another process is the gateway from now on.
    pub(crate) fn succeeded_by(&self, process: u32) {
        self.send(&format!("MAINPID={process}"));
    }

    /// The gateway stops.
    pub(crate) fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=taking the tunnels down");
    }

    /// How the gateway is, in a line; sent by [`Self::beat`].
    pub(crate) fn status(&mut self, line: String) {
        if self.socket.is_some() {
            self.status = Some(line);
        }
    }

    /// Sends what is due, for ever. It may be dropped at any time and called again: nothing is lost.
    pub(crate) async fn beat(&mut self, data_path: &Handle) {
        loop {
            let status_at =
                self.status.as_ref().map(|_| self.status_sent.map_or_else(Instant::now, |at| at + STATUS_EVERY));
            tokio::select! {
                alive = alive(self.watchdog.as_mut(), data_path) => {
                    if alive {
                        self.send("WATCHDOG=1");
                    }
                }
                () = until(status_at) => {
                    if let Some(line) = self.status.take() {
                        self.send(&format!("STATUS={line}"));
                        self.status_sent = Some(Instant::now());
                    }
                }
            }
        }
    }

    fn send(&self, message: &str) {
        if let Some(socket) = &self.socket
            && let Err(e) = socket.send(message.as_bytes())
        {
            debug!("the service manager was not told {message:?}: {e}");
        }
    }
}

/// Whether the data path answered, once the next sign of life is due.
async fn alive(watchdog: Option<&mut Watchdog>, data_path: &Handle) -> bool {
    let Some(watchdog) = watchdog else { return std::future::pending().await };
    if watchdog.pong.is_none() {
        tokio::time::sleep_until(watchdog.next).await;
        watchdog.next += watchdog.every;
        watchdog.pong = Some(data_path.ping());
    }
    let Some(pong) = &mut watchdog.pong else { return false };
    let answered = pong.await.is_ok();
    watchdog.pong = None;
    answered
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{self, Inlet, Order};
    use std::ffi::OsString;

    /// A service manager.
    struct Manager {
        socket: UnixDatagram,
        address: OsString,
    }

    impl Manager {
        fn at_path(name: &str) -> Self {
            let path = env::temp_dir().join(format!("simplon-notify-{}-{name}", std::process::id()));
            let _ = std::fs::remove_file(&path);
            let socket = UnixDatagram::bind(&path).unwrap();
            Self { socket, address: path.into() }.impatient()
        }

        fn abstract_name(name: &str) -> Self {
            let name = format!("simplon-notify-{}-{name}", std::process::id());
            let address = SocketAddr::from_abstract_name(&name).unwrap();
            Self { socket: UnixDatagram::bind_addr(&address).unwrap(), address: format!("@{name}").into() }.impatient()
        }

        fn impatient(self) -> Self {
            self.socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            self
        }

        /// The next message; nothing when there is none.
        fn heard(&self) -> Option<String> {
            self.socket.set_nonblocking(true).unwrap();
            let mut bytes = [0; 512];
            let len = self.socket.recv(&mut bytes).ok()?;
            Some(String::from_utf8(bytes[..len].to_vec()).unwrap())
        }
    }

    impl Drop for Manager {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.address);
        }
    }

    /// Answers pings that are waiting.
    fn answer(inlet: &Inlet) -> usize {
        let orders = inlet.take();
        let count = orders.len();
        orders.into_iter().for_each(|order| {
            if let Order::Ping(answer) = order {
                drop(answer)
            }
        });
        count
    }

    #[test]
    fn both_kinds_of_sockets_hear_what_happens() {
        for manager in [Manager::at_path("kinds"), Manager::abstract_name("kinds")] {
            let notifier = Notifier::to(&manager.address, None).unwrap();
            let before = os::clock::monotonic_us();
            notifier.ready();
            notifier.reloading();
            notifier.stopping();
            assert_eq!(manager.heard().as_deref(), Some("READY=1"));
            let reloading = manager.heard().unwrap();
            let at = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().parse::<u64>().unwrap();
            assert!((before..=os::clock::monotonic_us()).contains(&at));
            assert!(manager.heard().unwrap().starts_with("STOPPING=1\n"));
            assert_eq!(manager.heard(), None);
        }
    }

    #[test]
    fn an_address_that_cannot_be_is_an_error_and_not_a_panic() {
        for address in ["", "relative", "vsock:2:1234", "/no/such/socket", "@nobody-listens-here-simplon"] {
            assert!(Notifier::to(OsStr::new(address), None).is_err(), "{address}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_is_fed_only_while_the_data_path_answers() {
        let manager = Manager::abstract_name("watchdog");
        let mut notifier = Notifier::to(&manager.address, Some(Duration::from_secs(30))).unwrap();
        let ((handle, _reports), mut ends) = data::queues(1).unwrap();
        let (inlet, _outlet) = ends.remove(0);
        // Dropped again and again, as a loop that has other things to do does.
        let mut beats = async |seconds| {
            for _ in 0..seconds {
                let _ = tokio::time::timeout(Duration::from_secs(1), notifier.beat(&handle)).await;
            }
        };
        beats(14).await;
        assert_eq!((answer(&inlet), manager.heard()), (0, None), "nothing is due");
        beats(2).await;
        assert_eq!(manager.heard(), None, "the data path has not answered");
        assert_eq!(answer(&inlet), 1, "it is asked once");
        beats(1).await;
        assert_eq!(manager.heard().as_deref(), Some("WATCHDOG=1"));
        beats(14).await;
        assert_eq!(answer(&inlet), 1);
        beats(1).await;
        assert_eq!(manager.heard().as_deref(), Some("WATCHDOG=1"));
        beats(120).await;
        assert_eq!(manager.heard(), None, "a data path that hangs starves the watchdog");
        assert_eq!(inlet.take().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_status_line_is_sent_at_once_and_then_not_more_than_once_a_second() {
        let manager = Manager::abstract_name("status");
        let mut notifier = Notifier::to(&manager.address, None).unwrap();
        let ((handle, _reports), _worker) = data::queues(1).unwrap();
        for up in 0..50 {
            notifier.status(format!("{up} of 50 connections are up"));
            let _ = tokio::time::timeout(Duration::from_millis(50), notifier.beat(&handle)).await;
        }
        let _ = tokio::time::timeout(Duration::from_secs(2), notifier.beat(&handle)).await;
        let mut heard = Vec::new();
        while let Some(line) = manager.heard() {
            heard.push(line);
        }
        assert_eq!(heard.first().map(String::as_str), Some("STATUS=0 of 50 connections are up"));
        assert_eq!(heard.last().map(String::as_str), Some("STATUS=49 of 50 connections are up"));
        assert!((3..=4).contains(&heard.len()), "{heard:?}");
    }
}
