//! The command line.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use gatewayd::admin::DEFAULT_SOCKET;
use ipnet::IpNet;
use model::Identity;

/// Joins private networks over the public internet.
#[derive(Debug, Parser)]
#[command(
    name = "simplon",
    version,
    after_help = "Exit codes: 0 ok, 1 failed, 2 wrong usage or configuration, 3 no gateway runs, 4 timed out"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a gateway in the foreground
    Gateway(GatewayArgs),
    /// Show how the connections of the running gateway are
    Status(StatusArgs),
    /// Show SAs and events in the tables that routers have
    #[command(subcommand)]
    Show(ShowCommand),
    /// Bring a connection up and wait until it is
    Up(UpArgs),
    /// Take a connection down
    Down(TargetArgs),
    /// Move a tunnel's traffic to other tunnels, wait until it is quiet, and take it down
    Drain(UpArgs),
    /// Make new keys for a connection
    Rekey(RekeyArgs),
    /// Let the running gateway read its configuration again
    Reload(SocketArgs),
    /// Show how the cluster is, or have the other member take this one's place
    Cluster(ClusterArgs),
    /// Read and validate a configuration, start nothing
    Check(CheckArgs),
    /// Whole scenarios on this machine, in network namespaces
    #[command(subcommand)]
    Lab(LabCommand),
    /// Print the script that completes commands and options in a shell
    Completion(CompletionArgs),
    /// Write the manual pages, for a package
    #[command(hide = true)]
    Man(ManArgs),
    /// Measure this machine: handshakes, memory, the idle gateway, the data path
    Bench(BenchArgs),
}

#[derive(Args, Debug)]
pub(crate) struct ClusterArgs {
    #[command(subcommand)]
    pub(crate) action: Option<ClusterAction>,
    /// As JSON (docs/book/status.md)
    #[arg(long)]
    pub(crate) json: bool,
    /// Admin socket of the gateway
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET, global = true)]
    pub(crate) socket: PathBuf,
}

/// What to do with a cluster.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum ClusterAction {
    /// Have the other member take this one's place, without losing what is under way
    Switch,
}

#[derive(Args, Debug)]
pub(crate) struct CompletionArgs {
    /// Which shell
    #[arg(value_name = "SHELL")]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Args, Debug)]
pub(crate) struct ManArgs {
    /// Where to
    #[arg(value_name = "DIRECTORY")]
    pub(crate) directory: PathBuf,
}

/// Which gateway to talk to.
#[derive(Args, Debug)]
pub(crate) struct SocketArgs {
    /// Admin socket of the gateway
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    pub(crate) socket: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct GatewayArgs {
    /// simplon.toml or ipsec.conf
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: String,
    /// The keys of an ipsec.conf, where they do not stand beside it
    #[arg(long, value_name = "FILE")]
    pub(crate) secrets: Option<String>,
    /// The script that makes the VTI devices of an ipsec.conf
    #[arg(long, value_name = "FILE")]
    pub(crate) vti_script: Option<String>,
    #[command(flatten)]
    pub(crate) socket: SocketArgs,
    /// Take the place of the gateway that runs at the admin socket: no tunnel is negotiated anew and no packet is lost
    #[arg(long)]
    pub(crate) hand_over: bool,
    /// What to log: error, warn, info, debug, or a filter such as info,ike=debug
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub(crate) log: String,
    /// How to write the log, whatever the configuration says
    #[arg(long, value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
    /// UDP port of IKE in place of 500, for tests
    #[arg(long, value_name = "PORT", hide_short_help = true)]
    pub(crate) port: Option<u16>,
    /// UDP port of NAT traversal in place of 4500, for tests
    #[arg(long, value_name = "PORT", hide_short_help = true)]
    pub(crate) natt_port: Option<u16>,
    /// Whether super-packets pass between the kernel and the data path
    #[arg(long, value_name = "WHETHER", default_value = "auto", hide_short_help = true)]
    pub(crate) offloads: OffloadsArg,
}

/// How to write the log.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LogFormat {
    /// A line for a person
    Text,
    /// A JSON object a line
    Json,
}

/// Whether to use offloads.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum OffloadsArg {
    /// Where the kernel has them
    Auto,
    /// One packet at a time
    Off,
}

#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    /// Only this connection
    #[arg(value_name = "CONNECTION")]
    pub(crate) connection: Option<String>,
    /// Everything that is known, counters included
    #[arg(short, long)]
    pub(crate) detail: bool,
    /// As JSON (docs/book/status.md)
    #[arg(long, conflicts_with = "watch")]
    pub(crate) json: bool,
    /// Again every second, until Ctrl-C
    #[arg(short, long)]
    pub(crate) watch: bool,
    #[command(flatten)]
    pub(crate) socket: SocketArgs,
}

/// What to show.
#[derive(Debug, Subcommand)]
pub(crate) enum ShowCommand {
    /// IKE SAs: SPIs, algorithms, lifetimes, and what negotiating came to
    IkeSa(ShowArgs),
    /// Child SAs, both directions: SPIs, lifetimes, counters, MTU, replay window
    IpsecSa(ShowArgs),
    /// VPN connections of several tunnels: over which traffic goes, since when, and why
    Vpn(ShowWholeArgs),
    /// The BGP speaker and its neighbours
    Bgp(ShowWholeArgs),
    /// The paths that BGP knows, with their attributes
    BgpRoutes(BgpRoutesArgs),
    /// BFD sessions
    Bfd(ShowWholeArgs),
    /// The cluster that the gateway is one of
    Cluster(ShowWholeArgs),
    /// Routes that the kernel was asked for: connected, static, learnt
    Routes(RoutesArgs),
    /// What happened and why, the last 10,000 events
    Events(EventsArgs),
}

#[derive(Args, Debug)]
pub(crate) struct ShowArgs {
    /// Only this connection
    #[arg(value_name = "CONNECTION")]
    pub(crate) connection: Option<String>,
    /// As JSON (docs/book/status.md)
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) socket: SocketArgs,
}

#[derive(Args, Debug)]
pub(crate) struct ShowWholeArgs {
    /// As JSON (docs/book/status.md)
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) socket: SocketArgs,
}

#[derive(Args, Debug)]
pub(crate) struct RoutesArgs {
    /// How many at most, up to 10,000
    #[arg(short, long, value_name = "NUMBER", default_value_t = 1_000)]
    pub(crate) number: usize,
    /// As JSON (docs/book/status.md)
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) socket: SocketArgs,
}

#[derive(Args, Debug)]
pub(crate) struct BgpRoutesArgs {
    /// Only those to this prefix
    #[arg(value_name = "PREFIX")]
    pub(crate) prefix: Option<IpNet>,
    /// How many at most, up to 10,000
    #[arg(short, long, value_name = "NUMBER", default_value_t = 1_000)]
    pub(crate) number: usize,
    /// As JSON (docs/book/status.md)
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) socket: SocketArgs,
}

#[derive(Args, Debug)]
pub(crate) struct EventsArgs {
    /// Only of this connection
    #[arg(long, value_name = "CONNECTION")]
    pub(crate) connection: Option<String>,
    /// How many of the last ones
    #[arg(short, long, value_name = "NUMBER", default_value_t = 50)]
    pub(crate) number: usize,
    /// Go on with those that follow, until Ctrl-C
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Those for whoever looks for a fault, too
    #[arg(long)]
    pub(crate) debug: bool,
    /// As JSON, an object a line
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) socket: SocketArgs,
}

#[derive(Args, Debug)]
pub(crate) struct TargetArgs {
    /// CONNECTION, or CONNECTION/CHILD for one of its children
    #[arg(value_name = "CONNECTION[/CHILD]")]
    pub(crate) target: String,
    #[command(flatten)]
    pub(crate) socket: SocketArgs,
}

#[derive(Args, Debug)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    /// Seconds to wait for it; 0 does not wait
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) timeout: u64,
}

#[derive(Args, Debug)]
pub(crate) struct RekeyArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    /// The keys of the IKE SA, instead of those that carry packets
    #[arg(long)]
    pub(crate) ike: bool,
}

#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    /// simplon.toml or ipsec.conf
    #[arg(value_name = "FILE")]
    pub(crate) file: String,
    /// The keys of an ipsec.conf, where they do not stand beside it
    #[arg(long, value_name = "FILE")]
    pub(crate) secrets: Option<String>,
    /// The script that makes the VTI devices of an ipsec.conf
    #[arg(long, value_name = "FILE")]
    pub(crate) vti_script: Option<String>,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What to do in the lab.
#[derive(Debug, Subcommand)]
pub(crate) enum LabCommand {
    /// List the scenarios
    List,
    /// Run a scenario; it ends with 0 only if every check held
    Run(LabRunArgs),
    /// Build the ground of a scenario and start a shell in it
    Shell(LabShellArgs),
    /// Run every combination of scenarios, peers, versions and roles
    Matrix(LabMatrixArgs),
    /// Measure what each failover costs traffic: medians over several rounds
    Failover(LabFailoverArgs),
}

#[derive(Args, Debug)]
pub(crate) struct LabRunArgs {
    /// Which scenario
    #[arg(value_name = "SCENARIO")]
    pub(crate) scenario: String,
    /// The other end: simplon, strongswan, strongswan-kernel or libreswan
    #[arg(long, value_name = "PEER", conflicts_with_all = ["customer", "cloud"])]
    pub(crate) peer: Option<String>,
    /// The gateway at the customer's end
    #[arg(long, value_name = "PEER")]
    pub(crate) customer: Option<String>,
    /// The gateway at the cloud's end
    #[arg(long, value_name = "PEER")]
    pub(crate) cloud: Option<String>,
    /// Version of IKE: 1 or 2
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u8).range(1..=2))]
    pub(crate) ike: Option<u8>,
    /// Which end begins: customer or cloud
    #[arg(long, value_name = "END", default_value = "customer")]
    pub(crate) initiator: String,
    /// Plain ESP, IP protocol 50
    #[arg(long)]
    pub(crate) plain_esp: bool,
    /// Extended sequence numbers
    #[arg(long)]
    pub(crate) esn: bool,
    /// Modern algorithms in place of the documents' own
    #[arg(long)]
    pub(crate) modern: bool,
    /// What happens to a tunnel: bfd, probe, dpd, drain, reload, delete, replace, dark or hand-over (scenarios with several tunnels)
    #[arg(long, value_name = "EVENT")]
    pub(crate) event: Option<String>,
    /// All tunnels carry traffic, each flow one (scenarios with several tunnels)
    #[arg(long)]
    pub(crate) active_active: bool,
    /// No BFD beside BGP: only its hold timer notices a cut
    #[arg(long)]
    pub(crate) hold_timer: bool,
    /// Static routes in place of BGP (two-devices)
    #[arg(long)]
    pub(crate) static_routes: bool,
    /// The report as JSON, and nothing else
    #[arg(long)]
    pub(crate) json: bool,
    /// Show every command
    #[arg(short = 'x', long)]
    pub(crate) echo: bool,
    /// Leave everything up at the end, until Ctrl-C
    #[arg(long)]
    pub(crate) keep: bool,
    /// Write what passed between the gateways to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) pcap: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct LabShellArgs {
    /// Which scenario
    #[arg(value_name = "SCENARIO")]
    pub(crate) scenario: String,
    /// In which of its namespaces; the customer's gateway where none is named
    #[arg(value_name = "NODE")]
    pub(crate) node: Option<String>,
    /// Show every command
    #[arg(short = 'x', long)]
    pub(crate) echo: bool,
}

#[derive(Args, Debug)]
pub(crate) struct LabFailoverArgs {
    /// How often each one
    #[arg(long, value_name = "NUMBER", default_value_t = 10)]
    pub(crate) rounds: usize,
    /// Only those whose case has this word in it
    #[arg(value_name = "WORD")]
    pub(crate) words: Vec<String>,
    /// Keep the rounds in this file, and count those that are in it already: the table in several sittings (0 rounds: what
    /// there is)
    #[arg(long, value_name = "FILE")]
    pub(crate) add_to: Option<PathBuf>,
    /// The figures as JSON, and nothing else
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct LabMatrixArgs {
    /// How many at once
    #[arg(short, long, value_name = "NUMBER", default_value_t = 2)]
    pub(crate) jobs: usize,
    /// Run what failed once more by itself when all the others are done; that verdict counts
    #[arg(short, long)]
    pub(crate) again: bool,
    /// Only those whose line has this word in it
    #[arg(value_name = "WORD")]
    pub(crate) words: Vec<String>,
    /// List them, run nothing
    #[arg(long)]
    pub(crate) list: bool,
    /// The outcomes as JSON, and nothing else
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    pub(crate) command: Option<BenchCommand>,
    #[command(flatten)]
    pub(crate) report: BenchReportArgs,
}

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// One of the load generators that the parts use
    #[command(subcommand)]
    Load(BenchLoadCommand),
}

/// A load generator. Each says what it found as JSON.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchLoadCommand {
    /// Drive one responder with many IKE peers and count the tunnels a second
    Handshakes(BenchHandshakesArgs),
    /// Count packets, and answer who asks, until killed
    Count {
        /// Where to
        #[arg(long, value_name = "ADDRESS:PORT")]
        listen: SocketAddr,
    },
    /// Send packets to a counter, and look for the best rate, or keep to one
    Packets {
        /// The counter
        #[arg(long, value_name = "ADDRESS:PORT")]
        to: SocketAddr,
        /// Bytes of each IP packet
        #[arg(long, value_name = "BYTES", default_value_t = 64)]
        size: usize,
        /// Milliseconds of one rate
        #[arg(long, value_name = "MILLISECONDS", default_value_t = 300)]
        time: u64,
        /// Per cent that may be lost
        #[arg(long, value_name = "PERCENT", default_value_t = 1.0)]
        tolerated: f64,
        /// Packets a second; 0 is as fast as can be
        #[arg(long, value_name = "NUMBER")]
        rate: Option<f64>,
    },
    /// Have many addresses exchange a packet each with a counter
    Touch {
        /// The counter
        #[arg(long, value_name = "ADDRESS:PORT")]
        to: SocketAddr,
        /// The first address
        #[arg(long, value_name = "ADDRESS")]
        first: Ipv4Addr,
        /// From each address to the next
        #[arg(long, value_name = "NUMBER", default_value_t = 1)]
        step: u32,
        /// How many addresses
        #[arg(long, value_name = "NUMBER")]
        count: u32,
    },
    /// Take many TCP streams and count what arrives
    Sink {
        /// Where
        #[arg(long, value_name = "ADDRESS:PORT")]
        listen: SocketAddr,
        /// How many streams
        #[arg(long, value_name = "NUMBER")]
        streams: u32,
        /// Milliseconds before counting
        #[arg(long, value_name = "MILLISECONDS", default_value_t = 500)]
        warm_up: u64,
        /// Milliseconds of counting
        #[arg(long, value_name = "MILLISECONDS", default_value_t = 2_000)]
        time: u64,
    },
    /// Send many TCP streams from many addresses
    Source {
        /// The sink
        #[arg(long, value_name = "ADDRESS:PORT")]
        to: SocketAddr,
        /// The first address
        #[arg(long, value_name = "ADDRESS")]
        first: Ipv4Addr,
        /// From each address to the next
        #[arg(long, value_name = "NUMBER", default_value_t = 1)]
        step: u32,
        /// How many streams
        #[arg(long, value_name = "NUMBER")]
        streams: u32,
    },
    /// Say a whole table of BGP routes
    Routes {
        /// Our address
        #[arg(long, value_name = "ADDRESS")]
        local: Ipv4Addr,
        /// Our AS
        #[arg(long, value_name = "AS", default_value_t = 65_000)]
        local_as: u32,
        /// Who listens
        #[arg(long, value_name = "ADDRESS:PORT")]
        to: SocketAddr,
        /// How many prefixes
        #[arg(long, value_name = "NUMBER", default_value_t = 1_000_000)]
        prefixes: u32,
        /// How many sets of attributes they share
        #[arg(long, value_name = "NUMBER", default_value_t = 150_000)]
        attributes: u32,
        /// Seconds to keep the session after the last route
        #[arg(long, value_name = "SECONDS", default_value_t = 10)]
        linger: u64,
    },
    /// Be many BGP speakers with some routes each
    Sessions {
        /// The address of the first; the others have those behind it
        #[arg(long, value_name = "ADDRESS")]
        first: Ipv4Addr,
        /// The AS of the first; the others have those behind it
        #[arg(long, value_name = "AS", default_value_t = 4_200_000_000)]
        first_as: u32,
        /// How many
        #[arg(long, value_name = "NUMBER", default_value_t = 1_000)]
        count: u32,
        /// How many may be on their way to a session at once
        #[arg(long, value_name = "NUMBER", default_value_t = 1_000)]
        at_once: u32,
        /// Who listens
        #[arg(long, value_name = "ADDRESS:PORT")]
        to: SocketAddr,
        /// The next hop of all routes
        #[arg(long, value_name = "ADDRESS")]
        next_hop: Ipv4Addr,
        /// How many prefixes each announces
        #[arg(long, value_name = "NUMBER", default_value_t = 100)]
        prefixes: u32,
        /// How many sets of attributes they share
        #[arg(long, value_name = "NUMBER", default_value_t = 10)]
        attributes: u32,
        /// Wait until each was told of all that the others announce
        #[arg(long)]
        hears: bool,
        /// Seconds to keep the sessions then
        #[arg(long, value_name = "SECONDS", default_value_t = 10)]
        linger: u64,
    },
}

#[derive(Args, Clone, Debug)]
pub(crate) struct BenchReportArgs {
    /// Only these parts: handshakes, idle, data, small, rtt, many, rekey, bgp
    #[arg(value_name = "PART")]
    pub(crate) parts: Vec<String>,
    /// Rounds of every measurement; the median counts
    #[arg(long, value_name = "NUMBER", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=50))]
    pub(crate) rounds: u32,
    /// The figures as JSON, and nothing else
    #[arg(long)]
    pub(crate) json: bool,
    /// Show every command
    #[arg(short = 'x', long)]
    pub(crate) echo: bool,
}

#[derive(Args, Debug)]
pub(crate) struct BenchHandshakesArgs {
    /// Our address
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) local: IpAddr,
    /// The responder's address
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) remote: IpAddr,
    /// Version of IKE: 1 or 2
    #[arg(long, value_name = "VERSION", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=2))]
    pub(crate) version: u8,
    /// Phase 1 proposal
    #[arg(long, value_name = "PROPOSAL", default_value = "aes128gcm16-prfsha256-ecp256")]
    pub(crate) ike: String,
    /// Phase 2 proposal
    #[arg(long, value_name = "PROPOSAL", default_value = "aes128gcm16")]
    pub(crate) esp: String,
    /// Handshakes in all; peer n is @load-n and brings 10.128.0.0 + n
    #[arg(long, value_name = "NUMBER", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) count: u32,
    /// Handshakes under way at once
    #[arg(long, value_name = "NUMBER", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) window: u32,
    /// The pre-shared key of all peers
    #[arg(long, value_name = "KEY")]
    pub(crate) psk: String,
    /// What the responder must prove to be; its address where it is not said
    #[arg(long, value_name = "IDENTITY")]
    pub(crate) remote_id: Option<Identity>,
    /// The network behind the responder
    #[arg(long, value_name = "PREFIX")]
    pub(crate) remote_net: IpNet,
    /// Seconds to go on answering after the last handshake
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub(crate) linger: u64,
    /// Seconds after which it is given up
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) timeout: u64,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_makes_sense() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_documented_commands_are_understood() {
        for line in [
            "simplon gateway -c aws.conf --secrets aws.secrets --socket /tmp/s --log debug --log-format json",
            "simplon gateway -c simplon.toml --port 1500 --natt-port 14500",
            "simplon gateway -c simplon.toml --hand-over",
            "simplon status --detail --json",
            "simplon status Tunnel1 --watch",
            "simplon show ike-sa Tunnel1 --json",
            "simplon show ipsec-sa --socket /tmp/s",
            "simplon show vpn",
            "simplon show bgp --json",
            "simplon show bfd",
            "simplon show routes -n 10 --json",
            "simplon show bgp-routes 172.31.0.0/16",
            "simplon show events --connection Tunnel1 -n 500 --follow --debug --json",
            "simplon up Tunnel1/net --timeout 5",
            "simplon down Tunnel1 --socket /tmp/s",
            "simplon rekey Tunnel1 --ike",
            "simplon check simplon.toml --json",
            "simplon lab run openswan-vgw --peer strongswan --json",
            "simplon lab matrix --list",
            "simplon completion zsh",
            "simplon bench",
            "simplon bench --json",
            "simplon bench data --rounds 5",
            "simplon bench handshakes idle --rounds 1",
            "simplon bench small rtt many rekey bgp --json",
            "simplon bench load sessions --first 10.99.0.2 --to 192.0.2.2:179 --next-hop 192.0.2.1 --hears",
            "simplon bench load packets --to 10.62.0.2:9009 --rate 1000",
            "simplon bench load handshakes --local 10.9.0.2 --remote 10.9.0.1 --psk key --remote-net 10.1.0.0/16 --json",
        ] {
            Arguments::try_parse_from(line.split(' ')).unwrap_or_else(|e| panic!("{line}: {e}"));
        }
        assert!(Arguments::try_parse_from(["simplon", "gateway"]).is_err());
    }
}
