//! Which traffic a tunnel is for, and the devices it comes from.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{Child, Routing};
use sa::{ChildLabel, TrafficSelector};

/// A TUN device, numbered in the order in which names were first heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(pub u32);

/// How a packet came to the data path, and how it leaves it on the inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Via {
    /// Over the device that all policy-based tunnels share: selectors decide.
    Policy,
    /// Over a device of its own: routes decided already.
    Device(DeviceId),
}

/// Traffic that must not pass but through a tunnel, whether there is an SA for it or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Whose traffic it is; one policy a label.
    pub label: ChildLabel,
    /// Our traffic.
    pub local: Vec<TrafficSelector>,
    /// The peer's traffic.
    pub remote: Vec<TrafficSelector>,
    /// How packets find it.
    pub routing: Routing,
}

impl Policy {
    /// The policy of a child as configured.
    pub fn of(connection: Arc<str>, child: &Child) -> Self {
        let selectors = |selectors: &[model::Selector]| selectors.iter().copied().map(TrafficSelector::from).collect();
        Self {
            label: ChildLabel { connection, child: child.name.as_str().into() },
            local: selectors(&child.local),
            remote: selectors(&child.remote),
            routing: child.routing.clone(),
        }
    }
}

/// The numbers of devices, by name.
#[derive(Debug, Default)]
pub(crate) struct Devices(BTreeMap<String, DeviceId>);

impl Devices {
    /// The number of a device; a new one the first time.
    pub(crate) fn id(&mut self, name: &str) -> DeviceId {
        if let Some(id) = self.0.get(name) {
            return *id;
        }
        let id = DeviceId(self.0.len() as u32);
        self.0.insert(name.to_owned(), id);
        id
    }

    pub(crate) fn via(&mut self, routing: &Routing) -> Via {
        match routing {
            Routing::Policy => Via::Policy,
            Routing::Device { name, .. } => Via::Device(self.id(name)),
        }
    }
}
