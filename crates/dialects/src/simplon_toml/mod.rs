//! `simplon.toml`: the model in a form that a person writes.
//!
//! Everything but the peer, the key and the traffic has a default. An unknown key is an error that names the nearest
//! known one. Keys and values are described in the book's chapter on configuration; this example has them all:
//!
//! ```toml
//! [gateway]
//! listen = ["192.0.2.1"]                  # local addresses; without it, all of them
//! ports = { ike = 500, natt = 4500 }
//! cookie-threshold = 30                   # half-open IKE SAs from which on cookies are asked for
//! half-open-limit = 1000                  # ... and from which on new ones are refused
//! install-routes = true
//! route-table = 220                       # without it, the main table
//! nat-keepalive = "20s"                   # "0s" is off
//! manage-sysctl = false                   # set the sysctls that forwarding needs, or only report them
//! workers = 4                             # threads that pass packets; without it, as the processors are
//! metrics = "127.0.0.1:9830"              # serve Prometheus here; without it, nowhere
//! opentelemetry = "http://127.0.0.1:4318" # send metrics and events there; without it, nowhere
//! log-format = "text"                     # or "json"
//! log-directory = "/var/log/simplon"      # a log of each connection; without it, none
//! psk-overlap = "24h"                     # how long a key that was replaced is still accepted
//!
//! [connection.office]
//! version = "ikev2"                       # or "ikev1", "any" (starts with IKEv2), "ikev1-first"
//! local = { address = "192.0.2.1", id = "@office.example.com" }
//! remote = { address = "203.0.113.10", port = 500, id = "203.0.113.10" }
//! psk = "a long random text"              # or { hex = "…" }, { base64 = "…" }, { file = "…" }, or a list of them
//! ike = ["aes256gcm16-prfsha384-ecp384", "aes256-sha256-modp2048"]
//! ike-lifetime = { time = "8h", margin = "9m", fuzz = 100 }   # or just "8h"
//! dpd = { delay = "10s", timeout = "30s", action = "restart" }  # or false; "clear", "hold", "restart"
//! encapsulation = "auto"                  # or "force", "never"
//! tries = "forever"                       # or a number
//! uniqueness = "replace"                  # or "keep", "never"
//! fragmentation = true
//!
//! [connection.office.child.lan]
//! local = ["10.1.0.0/16"]
//! remote = ["10.2.0.0/16", "10.3.0.0/16[tcp/443]"]
//! esp = ["aes256gcm16-ecp384", "aes256-sha256-modp2048-noesn"]
//! lifetime = { time = "1h", margin = "9m", fuzz = 100, bytes = "1T", packets = 1000000000 }
//! start = "at-once"                       # or "on-traffic", "wait"
//! replay-window = 1024
//! df = "honour"                           # or "clear"
//! mtu = 1400
//! mss = 1360                              # 0 leaves TCP alone; without it, it follows the MTU
//! copy-dscp = true
//!
//! [connection.office.child.lan.device]    # a device of its own: route-based. Without it, policy-based
//! name = "office0"
//! addresses = ["169.254.10.2/30"]
//! routes = ["10.2.0.0/16"]
//! mark = 100
//! ```

mod cluster;
mod cursor;
mod read;
mod routing;
mod write;

pub use read::read;
pub use write::{write, write_with_secrets};

#[cfg(test)]
mod tests;
