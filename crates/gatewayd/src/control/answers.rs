//! The control loop's answers to those who ask over the admin socket.

use gateway::status::{DataPathCounters, Status};
use sa::SaId;
use tracing::warn;

use super::{Control, SNAPSHOT};
use crate::admin::{Answer, Asked, ROUTES, Request};
use crate::handover::FORMAT;
use crate::world::World;

impl Control {
    /// Answers a question, or carries out an order.
    pub(super) async fn answer(&mut self, asked: Asked, world: &mut World) {
        let answer = match asked.request {
            Request::Status => Answer::Status { status: Box::new(self.status().await) },
            Request::Routes { limit } => {
                let limit = limit.min(ROUTES);
                let mut routes = self.gateway.routes(limit + 1);
                let more = routes.len() > limit;
                routes.truncate(limit);
                self.ages.fill(&mut routes, self.clock.now());
                Answer::Routes { routes, more }
            }
            Request::BgpPaths { prefix, limit } => {
                let limit = limit.min(ROUTES);
                let mut paths = self.gateway.bgp_paths(prefix, limit + 1);
                let more = paths.len() > limit;
                paths.truncate(limit);
                Answer::BgpPaths { paths, more }
            }
            Request::Events { after, connection, limit } => {
                Answer::Events { page: self.log.page(after, connection.as_deref(), limit) }
            }
            Request::HandOver { .. } if self.cluster.is_some() => Answer::Error {
                message: "this gateway is one of a cluster: `simplon cluster switch` has the other go on".to_owned(),
            },
            Request::ClusterSwitch => match self.switch().await {
                Ok(()) => self.done(),
                Err(message) => Answer::Error { message },
            },
            Request::Up { .. } | Request::Down { .. } | Request::Drain { .. } | Request::Rekey { .. }
                if !self.is_active() =>
            {
                Answer::Error { message: "this member of the cluster is not active: ask the other".to_owned() }
            }
            Request::HandOver { format: FORMAT, .. } => {
                Answer::HandOver { format: FORMAT, began_us: self.clock.beginning_us(), devices: world.device_names() }
            }
            Request::HandOver { format, .. } => Answer::Error {
                message: format!("this gateway hands over in format {FORMAT}, and format {format} was asked for"),
            },
            Request::Reload => match self.reload(world).await {
                Ok(()) => self.done(),
                Err(message) => Answer::Error { message },
            },
            request @ (Request::Up { .. } | Request::Down { .. } | Request::Drain { .. } | Request::Rekey { .. }) => {
                let done = self.done();
                match request.command().map(|command| self.gateway.command(command, self.clock.now())) {
                    Some(Err(e)) => Answer::Error { message: e.to_string() },
                    Some(Ok(())) | None => done,
                }
            }
        };
        self.carry_out(world).await;
        // A client that does not wait for its answer is no concern of ours.
        let _ = asked.answer.send(answer);
    }

    fn done(&self) -> Answer {
        let at_ms = u64::try_from(self.clock.now().since_start().as_millis()).unwrap_or(u64::MAX);
        Answer::Done { at_ms }
    }

    /// The status of the gateway, with what the data path counted.
    pub(super) async fn status(&mut self) -> Status {
        let mut status = self.gateway.status(self.clock.now());
        env!("CARGO_PKG_VERSION").clone_into(&mut status.gateway.version);
        status.gateway.cut_off = self.cut_off.iter().map(ToString::to_string).collect();
        let snapshot = tokio::time::timeout(SNAPSHOT, self.handle.snapshot()).await;
        let Ok(Some(snapshot)) = snapshot else {
            warn!("the data path does not say what it counted");
            return status;
        };
        for child in status.connections.iter_mut().flat_map(|c| &mut c.children) {
            for sa in &mut child.sas {
                sa.traffic = snapshot.sas.get(&SaId(sa.id)).cloned();
            }
        }
        for connection in &mut status.connections {
            connection.carried = snapshot.carried.get(&*connection.name).cloned().unwrap_or_default();
        }
        let (valid_icmp_errors, invalid_icmp_errors) = self.icmp_errors;
        status.gateway.data_path = Some(DataPathCounters { valid_icmp_errors, invalid_icmp_errors, ..snapshot.rest });
        status.cluster = self.cluster.as_ref().map(|cluster| cluster.status(self.clock.now()));
        status
    }
}
