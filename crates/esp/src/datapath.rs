//! Both tables of a worker that serves both directions.

use std::collections::BTreeMap;
use std::sync::Arc;

use sa::{ChildLabel, ChildSa, SaChange, SaId};

use crate::policy::{DeviceId, Devices, Policy};
use crate::{Event, InboundSa, Inbounds, OutboundSa, Outbounds, Unusable};

/// Everything a data-path worker owns, driven by [`SaChange`].
#[derive(Debug, Default)]
pub struct DataPath {
    /// The SAs that leave.
    pub outbounds: Outbounds,
    /// The SAs that arrive.
    pub inbounds: Inbounds,
    devices: Devices,
    /// What the SAs were made of, for whoever takes them over.
    children: BTreeMap<SaId, Box<ChildSa>>,
    /// The highest numbers that were known to have come when this gateway took over from another.
    pub(crate) known_tops: BTreeMap<SaId, u64>,
}

/// An SA that several workers are to have in service, each in a table of its own. There must be one for one set of keys.
#[derive(Debug)]
pub struct Joint {
    outbound: Arc<OutboundSa>,
    inbound: InboundSa,
}

impl Joint {
    /// Of a Child SA.
    ///
    /// # Errors
    ///
    /// [`Unusable`] when suite, keys or SPIs are not fit for use.
    pub fn new(child: &ChildSa) -> Result<Self, Unusable> {
        Ok(Self { outbound: Arc::new(OutboundSa::new(child)?), inbound: InboundSa::new(child)? })
    }

    /// For another worker.
    pub fn handle(&self) -> Self {
        Self { outbound: Arc::clone(&self.outbound), inbound: self.inbound.handle() }
    }
}

impl DataPath {
    /// No SAs, no policies.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of a device; a new one the first time its name is heard.
    pub fn device(&mut self, name: &str) -> DeviceId {
        self.devices.id(name)
    }

    /// Makes one change. Changes come in order, and each whole or not at all.
    ///
    /// # Errors
    ///
    /// [`Unusable`]: the change makes no sense here, and nothing was done.
    pub fn apply(&mut self, change: &SaChange) -> Result<(), Unusable> {
        match change {
            SaChange::Install(child) => {
                let joint = Joint::new(child)?;
                self.join(child, joint, true)
            }
            SaChange::Activate(id) => self.outbounds.activate(*id),
            SaChange::Remove(id) => self.remove(*id),
            SaChange::Move { id, path } => {
                self.outbounds.move_to(*id, *path)?;
                if let Some(child) = self.children.get_mut(id) {
                    child.path = *path;
                }
                self.inbounds.move_to(*id, *path)
            }
            SaChange::Skip { id, outbound, inbound } => self.skip(*id, *outbound, *inbound),
        }
    }

    /// Installs an SA that other workers have in service too. One of them `counts` what it carries outbound.
    ///
    /// # Errors
    ///
    /// As [`DataPath::apply`].
    pub fn join(&mut self, child: &ChildSa, joint: Joint, counts: bool) -> Result<(), Unusable> {
        let via = self.devices.via(&child.routing);
        self.outbounds.stage(joint.outbound, child, via, counts)?;
        self.inbounds.adopt(joint.inbound, child, via).inspect_err(|_| {
            self.outbounds.remove(child.id);
        })?;
        self.children.insert(child.id, Box::new(child.clone()));
        Ok(())
    }

    /// What the SAs are made of, by number.
    pub(crate) fn children(&self) -> impl Iterator<Item = &ChildSa> {
        self.children.values().map(|child| &**child)
    }

    /// Adds a policy, in place of the one with the same label.
    ///
    /// # Errors
    ///
    /// As [`Outbounds::set_policy`].
    pub fn set_policy(&mut self, policy: Policy) -> Result<(), Unusable> {
        let via = self.devices.via(&policy.routing);
        self.outbounds.set_policy(policy, via)
    }

    /// Removes a policy.
    pub fn remove_policy(&mut self, label: &ChildLabel) {
        self.outbounds.remove_policy(label);
    }

    /// The outer MTU towards the peer of this SA is now known to be this.
    ///
    /// # Errors
    ///
    /// [`Unusable::UnknownId`].
    pub fn set_outer_mtu(&mut self, id: SaId, outer_mtu: usize) -> Result<(), Unusable> {
        self.outbounds.set_outer_mtu(id, outer_mtu)?;
        self.inbounds.set_outer_mtu(id, outer_mtu)
    }

    /// The next thing to tell the control side.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.inbounds.poll_event().or_else(|| self.outbounds.poll_event())
    }

    fn remove(&mut self, id: SaId) -> Result<(), Unusable> {
        let outbound = self.outbounds.remove(id);
        let inbound = self.inbounds.remove(id);
        self.children.remove(&id);
        self.known_tops.remove(&id);
        outbound.or(inbound).map(|_| ()).ok_or(Unusable::UnknownId)
    }
}
