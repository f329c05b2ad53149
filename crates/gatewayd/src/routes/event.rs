//! What the routes have to tell.

use std::fmt;
use std::sync::Arc;

use ipnet::IpNet;
use os::netlink::Place;

/// How many networks a sentence names.
const NAMED: usize = 4;

/// Something that happened to routes, in numbers and with an example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// At the start, routes of an earlier process were there; they stay until they are wanted or the grace ends.
    Adopted {
        /// How many.
        routes: u64,
    },
    /// What an earlier process had left and nobody wanted is removed.
    Swept {
        /// How many.
        routes: u64,
        /// One of them.
        example: Place,
    },
    /// Somebody else had removed or changed routes of ours, and they are put back.
    PutBack {
        /// How many.
        routes: u64,
        /// One of them.
        example: Place,
    },
    /// Routes of somebody else have the same destination, table and metric as ours. Theirs stay, and ours wait.
    InTheWay {
        /// How many.
        routes: u64,
        /// One of them.
        example: Place,
        /// Who: a number of `/etc/iproute2/rt_protos`.
        protocol: u8,
    },
    /// The kernel refuses routes; they are tried again.
    Refused {
        /// How many.
        routes: u64,
        /// One of them.
        example: Place,
        /// What the kernel says.
        why: Arc<str>,
    },
    /// A device went down or away, and the routes through it with it, or one of their ways.
    DeviceGone {
        /// The device.
        device: Arc<str>,
        /// How many routes.
        routes: u64,
    },
    /// A device came up, and the routes through it come back.
    DeviceBack {
        /// The device.
        device: Arc<str>,
        /// How many routes.
        routes: u64,
    },
    /// These networks of ours, and no others, are not reached by any device inside now: packets for them are refused.
    CutOff {
        /// All of them; none when that is over.
        networks: Vec<IpNet>,
    },
    /// The kernel cannot be talked to; it is tried again.
    Broken(Arc<str>),
}

impl Event {
    /// Its stable name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Adopted { .. } => "routes_adopted",
            Self::Swept { .. } => "routes_swept",
            Self::PutBack { .. } => "routes_put_back",
            Self::InTheWay { .. } => "routes_in_the_way",
            Self::Refused { .. } => "routes_refused",
            Self::DeviceGone { .. } => "route_device_gone",
            Self::DeviceBack { .. } => "route_device_back",
            Self::CutOff { .. } => "routes_cut_off",
            Self::Broken(_) => "routes_broken",
        }
    }

    /// Whether it needs a person.
    pub const fn is_warning(&self) -> bool {
        match self {
            Self::CutOff { networks } => !networks.is_empty(),
            Self::PutBack { .. } | Self::InTheWay { .. } | Self::Refused { .. } | Self::Broken(_) => true,
            Self::Adopted { .. } | Self::Swept { .. } | Self::DeviceGone { .. } | Self::DeviceBack { .. } => false,
        }
    }
}

fn such(routes: u64, example: Place) -> String {
    if routes == 1 { format!("the route to {example}") } else { format!("{routes} routes, such as that to {example},") }
}

/// The name of a route's maker, as `ip route` tells it.
fn maker(protocol: u8) -> String {
    // /etc/iproute2/rt_protos
    let name = match protocol {
        2 => "the kernel",
        3 => "an administrator (boot)",
        4 => "an administrator (static)",
        9 => "router advertisements",
        11 => "Zebra",
        12 => "BIRD",
        16 => "a DHCP client",
        17 => "mrouted",
        18 => "keepalived",
        42 => "Babel",
        186 => "another BGP daemon",
        188 => "another OSPF daemon",
        189 => "another RIP daemon",
        192 => "another EIGRP daemon",
        _ => return format!("somebody else (protocol {protocol})"),
    };
    name.to_owned()
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Adopted { routes } => write!(f, "{routes} routes of an earlier run are still there and stay for now"),
            Self::Swept { routes, example } => {
                write!(f, "{} of an earlier run nobody wants, and they are removed", such(*routes, *example))
            }
            Self::PutBack { routes, example } => {
                write!(f, "somebody removed or changed {} and it is put back", such(*routes, *example))
            }
            Self::InTheWay { routes, example, protocol } => {
                let who = maker(*protocol);
                write!(f, "{} cannot be set: {who} has a route there, which stays", such(*routes, *example))
            }
            Self::Refused { routes, example, why } => {
                write!(f, "the kernel refuses {} and is asked again: {why}", such(*routes, *example))
            }
            Self::DeviceGone { device, routes } => {
                write!(f, "the device {device} is down or gone, and {routes} routes go without it")
            }
            Self::DeviceBack { device, routes } => write!(f, "the device {device} is up, for {routes} routes"),
            Self::CutOff { networks } if networks.is_empty() => {
                write!(f, "every network of ours is reached by a device inside again")
            }
            Self::CutOff { networks } => {
                let first = networks.iter().take(NAMED).map(ToString::to_string).collect::<Vec<_>>().join(", ");
                let more = networks.len().saturating_sub(NAMED);
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                write!(
                    f,
                    "no device inside leads to {first}{more}: what comes out of tunnels for there is refused, and does not \
                     follow the default route"
                )
            }
            Self::Broken(why) => write!(f, "the kernel's routes cannot be changed for now: {why}"),
        }
    }
}

/// How it stands with a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nobody wants it.
    Absent,
    /// It is there.
    InPlace,
    /// It is on its way.
    Coming,
    /// It waits for a device.
    Waits,
    /// Somebody else's is there; the protocol number says whose, once it is known.
    InTheWay(Option<u8>),
    /// The kernel refuses it, for this reason.
    Refused(Arc<str>),
}

/// How many routes stand how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Those that are wanted.
    pub wanted: u64,
    /// Those of them that are there.
    pub in_place: u64,
    /// Those that wait for a device.
    pub waiting: u64,
    /// Those in whose place is somebody else's.
    pub in_the_way: u64,
    /// Those that the kernel refuses.
    pub refused: u64,
    /// Those that an earlier process left and nobody has wanted yet.
    pub unclaimed: u64,
}
