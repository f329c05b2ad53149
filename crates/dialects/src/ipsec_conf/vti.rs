//! The script that stands beside a route-based strongSwan: `ip link add … type vti`, `ip addr add`, `ip route add`.
//!
//! The script is not run; those lines are read for the devices, their addresses and their routes. Whatever else it
//! does (iptables, sysctl) is passed over: the gateway does its own.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::selector::parse_net;

/// The smallest MTU that a configuration may ask for, in bytes (RFC 791 §3.1).
const SMALLEST_MTU: u16 = 576;

/// A device as the script makes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VtiDevice {
    /// Its name.
    pub name: String,
    /// The peer's outside address.
    pub remote: Option<IpAddr>,
    /// Its key, which is the mark of the connection.
    pub key: Option<u32>,
    /// Its own addresses.
    pub addresses: Vec<IpNet>,
    /// Its MTU.
    pub mtu: Option<u16>,
    /// The prefixes that are routed to it.
    pub routes: Vec<IpNet>,
}

/// Reads the devices of a script. It never fails: what is not understood is not a line about a device.
pub fn read_vti_script(text: &str) -> Vec<VtiDevice> {
    let mut devices: Vec<VtiDevice> = Vec::new();
    for command in text.lines().flat_map(commands) {
        let words: Vec<&str> = command.split_whitespace().collect();
        let words = words.strip_prefix(&["sudo"]).unwrap_or(&words);
        let ([program, object, verb, arguments @ ..], Some(program_name)) = (words, words.first()) else { continue };
        if program_name.rsplit('/').next() != Some("ip") || program.is_empty() {
            continue;
        }
        match (*object, *verb) {
            ("link" | "l", "add" | "a") => add_link(&mut devices, arguments),
            ("link" | "l", "set" | "s") => set_link(&mut devices, arguments),
            ("addr" | "address" | "a", "add" | "a" | "replace") => {
                let address = arguments.first().and_then(|net| parse_net(net).ok());
                if let (Some(device), Some(address)) = (named(&mut devices, behind(arguments, "dev")), address) {
                    device.addresses.push(address);
                }
            }
            ("route" | "r", "add" | "a" | "replace") => {
                let route = arguments.first().and_then(|net| parse_route(net));
                if let (Some(device), Some(route)) = (named(&mut devices, behind(arguments, "dev")), route) {
                    device.routes.push(route);
                }
            }
            (_, _) => {}
        }
    }
    devices
}

/// The commands of a line, without comments.
fn commands(line: &str) -> impl Iterator<Item = &str> {
    let line = super::sections::without_comment(line);
    line.split("&&").flat_map(|part| part.split(';'))
}

fn behind<'a>(words: &[&'a str], name: &str) -> Option<&'a str> {
    words.iter().position(|word| *word == name).and_then(|at| words.get(at + 1)).copied()
}

fn named<'a>(devices: &'a mut [VtiDevice], name: Option<&str>) -> Option<&'a mut VtiDevice> {
    let name = name?;
    devices.iter_mut().find(|device| device.name == name)
}

fn add_link(devices: &mut Vec<VtiDevice>, words: &[&str]) {
    if !matches!(behind(words, "type"), Some("vti" | "vti6" | "xfrm")) {
        return;
    }
    let name = match words {
        ["dev" | "name", name, ..] | [name, ..] => (*name).to_owned(),
        [] => return,
    };
    let key = behind(words, "key").or_else(|| behind(words, "okey")).or_else(|| behind(words, "if_id"));
    let remote = behind(words, "remote").and_then(|ip| ip.parse().ok());
    if devices.iter().all(|device| device.name != name) {
        devices.push(VtiDevice { name, remote, key: key.and_then(parse_number), ..VtiDevice::default() });
    }
}

fn set_link(devices: &mut [VtiDevice], words: &[&str]) {
    let name = match words {
        ["dev", name, ..] | [name, ..] => Some(*name),
        [] => None,
    };
    let mtu = behind(words, "mtu").and_then(|mtu| mtu.parse().ok()).filter(|mtu| *mtu >= SMALLEST_MTU);
    if let (Some(device), Some(mtu)) = (named(devices, name), mtu) {
        device.mtu = Some(mtu);
    }
}

fn parse_route(text: &str) -> Option<IpNet> {
    let text = if text == "default" { "0.0.0.0/0" } else { text };
    parse_net(text).ok().map(|net| net.trunc())
}

/// A number in decimal or, with `0x`, in hexadecimal.
pub(super) fn parse_number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// What the arguments of AWS's `aws-updown.sh` (`-ln` name, `-ll` and `-lr` addresses, `-m` mark, `-r` routes) say
/// about the device that it would make.
pub(super) fn from_updown(command: &str) -> Option<VtiDevice> {
    let words: Vec<&str> = command.split_whitespace().collect();
    if !words.first()?.contains("updown") {
        return None;
    }
    let name = behind(&words, "-ln")?.to_owned();
    let addresses = behind(&words, "-ll").and_then(|net| parse_net(net).ok()).into_iter().collect();
    let key = behind(&words, "-m").and_then(parse_number);
    let routes = behind(&words, "-r").map_or_else(Vec::new, |nets| nets.split(',').filter_map(parse_route).collect());
    Some(VtiDevice { name, addresses, key, routes, ..VtiDevice::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_devices_of_a_script_are_read_with_their_addresses_and_routes() {
        let script = "\
# two tunnels
sudo ip link add tun-a type vti local 192.0.2.1 remote 203.0.113.10 key 0x10 && ip addr add 169.254.10.2/30 remote 169.254.10.1/30 dev tun-a && ip link set tun-a up mtu 1419
ip link add eth9 type dummy
ip route add 10.2.0.0/16 dev tun-a metric 100; ip route add 10.3.0.0/16 dev eth9
iptables -t mangle -A INPUT -p esp -j MARK --set-xmark 100
";
        let expected = VtiDevice {
            name: "tun-a".into(),
            remote: "203.0.113.10".parse().ok(),
            key: Some(16),
            addresses: vec!["169.254.10.2/30".parse().unwrap()],
            mtu: Some(1419),
            routes: vec!["10.2.0.0/16".parse().unwrap()],
        };
        assert_eq!(read_vti_script(script), [expected]);
    }

    #[test]
    fn an_mtu_that_no_configuration_may_have_is_passed_over() {
        let script = |mtu: u16| format!("ip link add a type vti key 1; ip link set a mtu {mtu}");
        assert_eq!(read_vti_script(&script(575))[0].mtu, None);
        assert_eq!(read_vti_script(&script(576))[0].mtu, Some(576));
    }

    #[test]
    fn the_arguments_of_the_updown_script_say_what_it_would_make() {
        let device = from_updown(
            "/etc/ipsec.d/aws-updown.sh -ln t1 -ll 169.254.10.2/30 -lr 169.254.10.1/30 -m 100 -r 10.0.0.0/16,10.1.0.0/16",
        );
        let device = device.unwrap();
        assert_eq!((device.name.as_str(), device.key, device.routes.len()), ("t1", Some(100), 2));
        assert_eq!(from_updown("/usr/lib/other -ln t1"), None);
    }
}
