//! The grounds of routed scenarios: two sites with one or several gateways each, and the internet between them.
//!
//! ```text
//!  host ─ router ┬ gateway ─ (NAT) ┬ internet ┬ gateway ┬ router ─ host
//!                └ gateway ────────┘          └ gateway ┘
//! ```
//!
//! A site with one gateway has no router: the gateway is its host's router.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::error::{Error, Result};
use crate::nat;
use crate::netns::{Lab, Node};
use crate::routing::stream::Host;

/// A site as a scenario describes it. Addresses are written with their prefix length.
pub(super) struct SitePlan<'a> {
    pub(super) host_name: &'a str,
    pub(super) host: &'a str,
    /// The address of the host's router.
    pub(super) lan: &'a str,
    /// Everything behind the gateways.
    pub(super) network: &'a str,
    /// The name of the router, where there are several gateways.
    pub(super) router_name: &'a str,
    pub(super) gateways: &'a [GatewayPlan<'a>],
}

/// A gateway as a scenario describes it.
pub(super) struct GatewayPlan<'a> {
    pub(super) name: &'a str,
    /// The first is that of its link; others are routed to it.
    pub(super) outside: &'a [&'a str],
    /// Its next router.
    pub(super) next_hop: &'a str,
    /// The link to the site's router: the gateway's address, and the router's.
    pub(super) link: (&'a str, &'a str),
    /// The translator in front of it: its public address, and its next router.
    pub(super) nat: Option<(&'a str, &'a str)>,
}

impl<'a> GatewayPlan<'a> {
    /// One with an address of its own on the internet and no router behind it.
    const fn alone(name: &'a str, outside: &'a [&'a str], next_hop: &'a str) -> Self {
        Self { name, outside, next_hop, link: ("", ""), nat: None }
    }
}

/// Everything behind the gateways of [`OFFICE`] and of [`VPC`].
pub(super) const OFFICE_NET: &str = "10.60.0.0/16";
pub(super) const VPC_NET: &str = "10.50.0.0/16";

/// A customer's office with one gateway.
pub(super) const OFFICE: SitePlan<'static> = SitePlan {
    host_name: "office",
    host: "10.60.1.100/24",
    lan: "10.60.1.1/24",
    network: OFFICE_NET,
    router_name: "",
    gateways: &[GatewayPlan::alone("cgw", &["198.51.100.2/24"], "198.51.100.1")],
};

/// A cloud's network with one endpoint.
pub(super) const VPC: SitePlan<'static> = SitePlan {
    host_name: "ec2",
    host: "10.50.1.100/24",
    lan: "10.50.1.1/24",
    network: VPC_NET,
    router_name: "",
    gateways: &[GatewayPlan::alone("vgw", &["203.0.113.10/24"], "203.0.113.1")],
};

/// The same network with two endpoints and a router behind them.
pub(super) const VPC_OF_TWO: SitePlan<'static> = SitePlan {
    router_name: "vpc",
    gateways: &[
        GatewayPlan {
            link: ("10.50.254.2/30", "10.50.254.1/30"),
            ..GatewayPlan::alone("vgw1", &["203.0.113.10/24"], "203.0.113.1")
        },
        GatewayPlan {
            link: ("10.50.254.6/30", "10.50.254.5/30"),
            ..GatewayPlan::alone("vgw2", &["192.0.2.10/24"], "192.0.2.1")
        },
    ],
    ..VPC
};

/// What was built.
pub(super) struct Ground {
    pub(super) internet: Node,
    pub(super) customer: Site,
    pub(super) cloud: Site,
}

/// A site that was built.
pub(super) struct Site {
    pub(super) host: Host,
    pub(super) network: Ipv4Net,
    pub(super) router: Option<Node>,
    pub(super) gateways: Vec<Gateway>,
}

/// The place of a gateway.
#[derive(Clone)]
pub(super) struct Gateway {
    pub(super) name: String,
    pub(super) node: Node,
    /// Its own addresses towards the internet.
    pub(super) outside: Vec<Ipv4Addr>,
    /// Its address as the internet sees it.
    pub(super) public: Ipv4Addr,
    /// Its address towards the site's router or host.
    pub(super) inside: Ipv4Addr,
    /// The router's address on the link to it.
    pub(super) router: Ipv4Addr,
}

impl Site {
    /// The place of the only gateway, or of the first.
    ///
    /// # Errors
    ///
    /// Where the scenario has none.
    pub(super) fn gateway(&self, number: usize) -> Result<&Gateway> {
        self.gateways.get(number).ok_or_else(|| Error::Asked(format!("there is no gateway {number}")))
    }
}

impl Ground {
    /// Builds both sites.
    ///
    /// # Errors
    ///
    /// When a command fails.
    pub(super) fn build(lab: &Lab, customer: &SitePlan<'_>, cloud: &SitePlan<'_>) -> Result<Self> {
        let internet = lab.node("internet")?;
        internet.forward()?;
        let [customer, cloud] = [site(lab, &internet, customer)?, site(lab, &internet, cloud)?];
        Ok(Self { internet, customer, cloud })
    }

    /// Lets nothing from or to these addresses pass the internet; an empty list heals it.
    ///
    /// # Errors
    ///
    /// When `nft` refuses it.
    pub(super) fn cut(&self, addresses: &[Ipv4Addr]) -> Result<()> {
        // Declared first, so that deleting it succeeds also when it is not there.
        let mut commands = String::from("table ip cut\ndelete table ip cut\n");
        if !addresses.is_empty() {
            commands.push_str("table ip cut {\n\tchain path {\n\t\ttype filter hook forward priority 10;\n");
            for address in addresses {
                commands
                    .push_str(&format!("\t\tip saddr {address} counter drop\n\t\tip daddr {address} counter drop\n"));
            }
            commands.push_str("\t}\n}\n");
        }
        self.internet.nft(&commands)
    }
}

/// Builds one site.
///
/// # Errors
///
/// When a command fails.
pub(super) fn site(lab: &Lab, internet: &Node, plan: &SitePlan<'_>) -> Result<Site> {
    let host = lab.node(plan.host_name)?;
    let lan = net(plan.lan)?;
    let router = (plan.gateways.len() > 1).then(|| lab.node(plan.router_name)).transpose()?;
    if let Some(router) = &router {
        router.forward()?;
        // Flows are spread over equal ways by their ports, and a way whose cable is unplugged is none.
        router.sysctl(&[
            "net.ipv4.fib_multipath_hash_policy=1",
            "net.ipv4.conf.all.ignore_routes_with_linkdown=1",
            "net.ipv4.conf.default.ignore_routes_with_linkdown=1",
        ])?;
        lab.link((&host, "eth0"), (router, "lan"))?;
        router.address("lan", plan.lan)?;
    }
    let gateways: Vec<Gateway> = plan
        .gateways
        .iter()
        .map(|gateway| self::gateway(lab, internet, plan, gateway, router.as_ref()))
        .collect::<Result<_>>()?;
    if let (None, Some(gateway)) = (&router, gateways.first()) {
        lab.link((&host, "eth0"), (&gateway.node, "inside"))?;
        gateway.node.address("inside", plan.lan)?;
    }
    host.address("eth0", plan.host)?;
    host.route("default", &lan.addr().to_string())?;
    Ok(Site {
        host: Host { node: host, address: net(plan.host)?.addr() },
        network: net(plan.network)?,
        router,
        gateways,
    })
}

fn gateway(
    lab: &Lab,
    internet: &Node,
    site: &SitePlan<'_>,
    plan: &GatewayPlan<'_>,
    router: Option<&Node>,
) -> Result<Gateway> {
    let node = lab.node(plan.name)?;
    node.forward()?;
    let outside: Vec<Ipv4Net> = plan.outside.iter().map(|address| net(address)).collect::<Result<_>>()?;
    let first = outside.first().ok_or_else(|| Error::Asked(format!("{} has no address", plan.name)))?;
    let mut public = first.addr();
    let (next, hop) = match plan.nat {
        Some((nat_public, nat_hop)) => {
            let translator = lab.node(&format!("{}-nat", plan.name))?;
            translator.forward()?;
            lab.link((&translator, "wan"), (internet, plan.name))?;
            translator.address("wan", nat_public)?;
            internet.address(plan.name, &format!("{nat_hop}/{}", net(nat_public)?.prefix_len()))?;
            translator.route("default", nat_hop)?;
            nat::masquerade(&translator, "wan")?;
            public = net(nat_public)?.addr();
            (translator, "lan")
        }
        None => (internet.clone(), plan.name),
    };
    lab.link((&node, "outside"), (&next, hop))?;
    next.address(hop, &format!("{}/{}", plan.next_hop, first.prefix_len()))?;
    for address in &outside {
        node.address("outside", &address.to_string())?;
    }
    for address in outside.iter().skip(1) {
        next.route(&format!("{}/32", address.addr()), &first.addr().to_string())?;
    }
    node.route("default", plan.next_hop)?;
    // As simplon asks, where flows are spread over tunnels.
    node.sysctl(&["net.ipv4.fib_multipath_hash_policy=1"])?;
    let mut inside = net(site.lan)?.addr();
    let mut router_address = net(site.host)?.addr();
    if let Some(router) = router {
        lab.link((&node, "inside"), (router, plan.name))?;
        let (own, routers) = plan.link;
        node.address("inside", own)?;
        router.address(plan.name, routers)?;
        (inside, router_address) = (net(own)?.addr(), net(routers)?.addr());
        node.route(site.network, &router_address.to_string())?;
    }
    let outside = outside.iter().map(Ipv4Net::addr).collect();
    Ok(Gateway { name: plan.name.into(), node, outside, public, inside, router: router_address })
}

pub(super) fn net(text: &str) -> Result<Ipv4Net> {
    text.parse().map_err(|e| Error::Asked(format!("{text:?} is no address with its prefix length: {e}")))
}
