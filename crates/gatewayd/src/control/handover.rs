//! The control loop's part in a hand-over: of the process that ends, and of the one that goes on.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use gateway::Gateway;
use os::alone::Alone;
use sa::SaChange;
use tracing::{info, warn};

use super::Control;
use crate::Error;
use crate::admin::{Client, Request, Server};
use crate::data::{self, Order, Report, Reports};
use crate::handover::{Giver, Last, Refused, Taker, Word};
use crate::sockets::Sockets;
use crate::world::World;

/// Takes the place of the running gateway: when this returns, packets pass here. Also returns what the other heard and
/// did not handle.
///
/// # Errors
/// Why not; the other gateway goes on then, and packets pass there.
pub(super) async fn take_over(
    client: Client,
    gateway: &mut Gateway,
    options: &data::Options,
) -> Result<(data::Running, Vec<Word>), String> {
    let (mut taker, state, shares) = Taker::begin(client).map_err(|why| why.to_string())?;
    let prepare = async {
        if !state.gateway.has_sockets_of(gateway.options()) {
            return Err(
                "its ports, or the addresses that it listens at, are to change: that takes a restart".to_owned()
            );
        }
        gateway.import(state.gateway, options.clock.now()).map_err(|why| why.to_string())?;
        let mut running = data::take_over(options, shares).map_err(|e| e.to_string())?;
        let data::Running { handle, reports, .. } = &mut running;
        let now = options.clock.now();
        handle.send(state.sas.into_iter().map(|sa| Order::Sa(SaChange::Install(Box::new(sa.into_child(now))))));
        handle.ping().await.map_err(|_| "the data path does not start".to_owned())?;
        while let Some(report) = reports.try_recv() {
            match report {
                Report::Refused(why) => return Err(why),
                Report::Notice(text) => info!("{text}"),
                Report::Ike { .. }
                | Report::Esp(_)
                | Report::Alive { .. }
                | Report::PathMtu { .. }
                | Report::Ended(_) => {}
            }
        }
        Ok(running)
    };
    let running = prepare.await.inspect_err(|why| taker.fail(why))?;
    let last = taker.prepared().map_err(|why| why.to_string())?;
    running.handle.restore(last.data).await.inspect_err(|why| taker.fail(why))?;
    taker.ready().map_err(|why| why.to_string())?;
    running.handle.send([Order::Resume]);
    taker.wait_until_released();
    Ok((running, last.heard))
}

/// Listens where another process has just stopped to.
pub(super) async fn listen_after(socket: &Path) -> Result<Server, Error> {
    for _ in 0..40 {
        match Server::listen(socket) {
            Err(Error::AlreadyRunning(_)) => tokio::time::sleep(Duration::from_millis(25)).await,
            answer => return answer,
        }
    }
    Server::listen(socket)
}

/// Takes the place of another process as the only gateway of its network namespace, once that one gives it up.
pub(super) async fn alone_after() -> Option<Alone> {
    for _ in 0..40 {
        match super::take_alone() {
            Err(Error::NotAlone { .. }) => tokio::time::sleep(Duration::from_millis(25)).await,
            Ok(alone) => return Some(alone),
            Err(e) => {
                warn!("{e}");
                return None;
            }
        }
    }
    warn!("another gateway runs in this network namespace: they will take each other's routes for their own");
    None
}

impl Control {
    /// Hands over to the process at the other end. Control is held meanwhile; if it fails, everything goes on as if nothing
    /// had been. Once this comes back, the other process is the gateway, and [`Self::release`] is what it waits for.
    pub(super) async fn give(&mut self, stream: UnixStream, reports: &mut Reports) -> Result<Giver, Refused> {
        let gone = || Refused("the data path has ended".to_owned());
        let offer = self.handle.offer().await.ok_or_else(gone)?.map_err(|e| Refused(e.to_string()))?;
        let state = self.gateway.export(self.clock.now());
        let mut giver = Giver::offer(stream, state, offer)?;
        let began = self.clock.now();
        let data = self.handle.pause().await.ok_or_else(gone)?;
        let missed: Vec<Report> = std::iter::from_fn(|| reports.try_recv()).collect();
        let heard = missed.iter().filter_map(Word::of).collect();
        match giver.finish(&Last { data, heard }) {
            Ok(()) => {
                let pause = self.clock.now().saturating_since(began).as_micros();
                info!("another process goes on; packets waited for {pause} us");
                Ok(giver)
            }
            Err(why) => {
                self.handle.send([Order::Resume]);
                for report in missed {
                    self.hear(report, reports);
                }
                Err(why)
            }
        }
    }

    /// Gives up what only one process can have, and tells those who have to know that this one goes.
    pub(super) async fn release(&mut self, request: &Request, world: &mut World) {
        if let Request::HandOver { process, .. } = request {
            self.notifier.succeeded_by(*process);
        }
        self.gateway.step_aside(self.clock.now());
        self.carry_out(world).await;
        self.metrics = None;
        self.sockets = Sockets::default();
        self.alone = None;
    }

    /// Ends without a word: another process is the gateway.
    pub(super) async fn depart(self, world: &mut World, mut reports: Reports, workers: Vec<JoinHandle<()>>) {
        world.leave().await;
        self.end_data_path(&mut reports, workers, Duration::from_millis(500)).await;
        info!("gateway is handed over");
    }
}
