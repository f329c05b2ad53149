//! The grounds of the scenarios: which namespaces there are, and how they are joined.
//!
//! The gateways are left bare: [`crate::peer`] settles in their places.

use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};

use crate::error::{Error, Result};
use crate::nat;
use crate::netns::{Lab, Node};
use crate::peer::{Interface, Place};

/// A site: a host and the gateway before it.
pub struct Site {
    /// The host that sends and answers pings.
    pub host: Node,
    /// Its address.
    pub host_address: Ipv4Addr,
    /// Where the gateway stands.
    pub gateway: Place,
    /// The gateway's address as the other site sees it.
    pub public: Ipv4Addr,
    /// The network that the tunnel joins.
    pub network: IpNet,
}

/// A ground with two sites and the internet between them.
pub struct Ground {
    /// The customer's site.
    pub customer: Site,
    /// The cloud's site.
    pub cloud: Site,
    /// The router between the sites.
    pub internet: Node,
    /// The index of its interface towards the customer.
    pub wire: usize,
    /// Whether an address translator stands before the customer's gateway.
    pub nat: bool,
}

impl Ground {
    /// The address of each gateway as it is on its own interface.
    pub fn own_address(site: &Site) -> Result<Ipv4Addr> {
        let first = site.gateway.interfaces.first();
        first
            .map(|interface| interface.address.addr())
            .ok_or_else(|| Error::Asked("a gateway without interface".into()))
    }
}

/// The two virtual private clouds of the CloudFormation lab with Openswan.
pub(crate) const OPENSWAN_VGW: &str =
    " aaIDC-VPC1 10.60.0.0/16                                   aaAWS-VPC2 10.50.0.0/16
 ┌──────────────────────────────────────┐                  ┌──────────────────────────────┐
 │ idc-ec2          idc-vpc             │                  │ vgw                  aws-ec2 │
 │ 10.60.1.100 ──── router, 1:1 NAT ────┼──── internet ────┼ 43.200.61.196 ── 10.50.1.100 │
 │                  │  3.37.222.142     │                  │                              │
 │ idc-cgw ─────────┘                   │                  └──────────────────────────────┘
 │ 10.60.0.100                          │
 └──────────────────────────────────────┘";

/// The NCP gateway and its AWS counterpart.
pub(crate) const NCP_VGW: &str = " NCP 192.168.1.0/24                                        AWS 172.31.0.0/16
 ┌──────────────────────────────────────┐                  ┌──────────────────────────────┐
 │ ncp-server          ncp-vpn          │                  │ vgw                  aws-ec2 │
 │ 192.168.1.13 ────── 49.236.139.115 ──┼──── internet ────┼ 3.34.211.29 ── 172.31.36.10  │
 └──────────────────────────────────────┘                  └──────────────────────────────┘";

/// Builds the four hosts of seed `openswan-vgw`: a one-armed customer gateway behind 1:1 NAT.
///
/// # Errors
///
/// When a command fails.
pub fn openswan_vgw(lab: &Lab) -> Result<Ground> {
    let internet = internet(lab)?;
    let vpc = lab.node("idc-vpc")?;
    vpc.forward()?;
    vpc.bridge("private", "10.60.1.1/24")?;
    vpc.bridge("public", "10.60.0.1/24")?;

    let host = lab.node("idc-ec2")?;
    lab.link((&host, "eth0"), (&vpc, "idc-ec2"))?;
    vpc.plug("idc-ec2", "private")?;
    host.address("eth0", "10.60.1.100/24")?;
    host.route("default", "10.60.1.1")?;

    let gateway = lab.node("idc-cgw")?;
    lab.link((&gateway, "eth0"), (&vpc, "idc-cgw"))?;
    vpc.plug("idc-cgw", "public")?;

    lab.link((&vpc, "igw"), (&internet, "customer"))?;
    vpc.address("igw", "3.37.222.142/24")?;
    internet.address("customer", "3.37.222.1/24")?;
    vpc.route("default", "3.37.222.1")?;
    nat::one_to_one(&vpc, "igw", "3.37.222.142", "10.60.0.100")?;
    // The private subnet's own route table: the other cloud is behind the customer gateway. The
    // public subnet's has the internet gateway only, so that the customer gateway does not loop.
    vpc.ip(&["rule", "add", "iif", "private", "lookup", "60"])?;
    vpc.ip(&["route", "add", "10.50.0.0/16", "via", "10.60.0.100", "table", "60"])?;

    Ok(Ground {
        customer: Site {
            host,
            host_address: Ipv4Addr::new(10, 60, 1, 100),
            gateway: Place {
                name: "idc-cgw".into(),
                node: gateway,
                interfaces: vec![interface("eth0", [10, 60, 0, 100], 24)],
                router: Ipv4Addr::new(10, 60, 0, 1),
            },
            public: Ipv4Addr::new(3, 37, 222, 142),
            network: network([10, 60, 0, 0], 16),
        },
        cloud: cloud(
            lab,
            &internet,
            &Cloud {
                endpoint: [43, 200, 61, 196],
                router: [43, 200, 61, 1],
                inside: [10, 50, 1, 1],
                inside_len: 24,
                host: [10, 50, 1, 100],
                network: network([10, 50, 0, 0], 16),
            },
        )?,
        wire: index_of(&internet, "customer")?,
        internet,
        nat: true,
    })
}

/// Builds `ncp-vgw`: two gateways with public addresses.
///
/// # Errors
///
/// When a command fails.
pub fn ncp_vgw(lab: &Lab) -> Result<Ground> {
    let internet = internet(lab)?;
    let host = lab.node("ncp-server")?;
    let gateway = lab.node("ncp-vpn")?;
    lab.link((&host, "eth1"), (&gateway, "inside"))?;
    host.address("eth1", "192.168.1.13/24")?;
    host.route("172.31.0.0/16", "192.168.1.1")?;
    lab.link((&gateway, "outside"), (&internet, "customer"))?;
    internet.address("customer", "49.236.139.1/24")?;
    Ok(Ground {
        customer: Site {
            host,
            host_address: Ipv4Addr::new(192, 168, 1, 13),
            gateway: Place {
                name: "ncp-vpn".into(),
                node: gateway,
                interfaces: vec![
                    interface("outside", [49, 236, 139, 115], 24),
                    interface("inside", [192, 168, 1, 1], 24),
                ],
                router: Ipv4Addr::new(49, 236, 139, 1),
            },
            public: Ipv4Addr::new(49, 236, 139, 115),
            network: network([192, 168, 1, 0], 24),
        },
        cloud: cloud(
            lab,
            &internet,
            &Cloud {
                endpoint: [3, 34, 211, 29],
                router: [3, 34, 211, 1],
                inside: [172, 31, 32, 1],
                inside_len: 20,
                host: [172, 31, 36, 10],
                network: network([172, 31, 0, 0], 16),
            },
        )?,
        wire: index_of(&internet, "customer")?,
        internet,
        nat: false,
    })
}

struct Cloud {
    endpoint: [u8; 4],
    router: [u8; 4],
    inside: [u8; 4],
    inside_len: u8,
    host: [u8; 4],
    network: IpNet,
}

fn cloud(lab: &Lab, internet: &Node, at: &Cloud) -> Result<Site> {
    let gateway = lab.node("vgw")?;
    lab.link((&gateway, "outside"), (internet, "cloud"))?;
    internet.address("cloud", &interface("", at.router, 24).address.to_string())?;
    let host = lab.node("aws-ec2")?;
    lab.link((&host, "eth0"), (&gateway, "inside"))?;
    host.address("eth0", &interface("", at.host, at.inside_len).address.to_string())?;
    host.route("default", &Ipv4Addr::from(at.inside).to_string())?;
    Ok(Site {
        host,
        host_address: at.host.into(),
        gateway: Place {
            name: "vgw".into(),
            node: gateway,
            interfaces: vec![interface("outside", at.endpoint, 24), interface("inside", at.inside, at.inside_len)],
            router: at.router.into(),
        },
        public: at.endpoint.into(),
        network: at.network,
    })
}

fn internet(lab: &Lab) -> Result<Node> {
    let internet = lab.node("internet")?;
    internet.forward()?;
    Ok(internet)
}

fn interface(name: &str, address: [u8; 4], len: u8) -> Interface {
    Interface { name: name.into(), address: Ipv4Net::new_assert(address.into(), len) }
}

fn network(address: [u8; 4], len: u8) -> IpNet {
    Ipv4Net::new_assert(address.into(), len).into()
}

pub(crate) fn index_of(node: &Node, dev: &str) -> Result<usize> {
    let line = node.ip(&["-o", "link", "show", "dev", dev])?;
    let index = line.split(':').next().and_then(|number| number.trim().parse().ok());
    index.ok_or_else(|| Error::Asked(format!("no index in {line:?}")))
}
