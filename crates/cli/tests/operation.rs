//! What an operator meets: two running gateways in network namespaces, and what is around them. Needs root, `ip` and
//! `ping`; says what it left out.
#![expect(clippy::unwrap_used, reason = "a panic here is the verdict")]
#![expect(clippy::disallowed_methods, reason = "it waits for real programs")]

mod ground;

use std::fs::{self, File};
use std::process::{Command, Stdio};

use ground::Ground;

// 1 is killed; 0 -- ESP in UDP --> (nobody listens); 0 <-- ICMP port unreachable -- the host of 1
#[test]
fn icmp_errors_about_our_esp_are_counted() {
    let Some(mut ground) = Ground::new("icmp") else { return };
    (0..2).for_each(|side| ground.configure(side, "ikev2", false, "encapsulation = \"force\""));
    ground.come_up();
    let counted = |ground: &Ground| {
        let status = ground.status(0);
        let counters = &status["gateway"]["data_path"];
        (counters["valid_icmp_errors"].as_u64(), counters["invalid_icmp_errors"].as_u64())
    };
    assert_eq!(counted(&ground), (Some(0), Some(0)));
    ground.running[0].kill().unwrap();
    ground.running[0].wait().unwrap();
    let ping = ["ping", "-c", "3", "-i", "0.2", "-W", "1", "-I", ground::INNER[0], ground::INNER[1]];
    let _all_lost = ground.within(0, &ping).output().unwrap();
    ground.wait_until("the host of the other gateway says that nobody listens", |ground| counted(ground).0 > Some(0));
    assert_eq!(counted(&ground).1, Some(0));
}

/// Writes `text` in front of a side's configuration.
fn prepend(ground: &Ground, side: usize, text: &str) {
    let path = ground.configuration(side);
    let rest = fs::read_to_string(&path).unwrap();
    fs::write(path, format!("{text}\n{rest}")).unwrap();
}

/// What a gateway that was started with [`start_logged`] has said.
fn said(ground: &Ground, side: usize) -> String {
    fs::read_to_string(ground.folder.join(format!("{side}.log"))).unwrap()
}

/// Starts what `command` is, with its log in a file.
fn start_logged(ground: &mut Ground, side: usize, mut command: Command) {
    let log = File::create(ground.folder.join(format!("{side}.log"))).unwrap();
    ground.running.push(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
}

fn simplon(ground: &Ground, side: usize, words: &[&str]) {
    let socket = ground.socket(side);
    let output = Command::new(env!("CARGO_BIN_EXE_simplon")).args(words).args(["--socket", &socket]).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn is_up(ground: &Ground) -> bool {
    ground.status(0)["connections"][0]["state"] == "up"
}

#[test]
fn sysctls_that_are_wrong_are_said_at_the_start_and_set_where_that_is_wanted() {
    let Some(mut ground) = Ground::new("sysctl") else { return };
    (0..2).for_each(|side| ground.configure(side, "ikev2", true, ""));
    prepend(&ground, 1, "[gateway]\nmanage-sysctl = true\n");
    let read = |ground: &Ground, side: usize, name: &str| {
        let output = ground.within(side, &["cat", &format!("/proc/sys/net/ipv4/{name}")]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    for side in [0, 1] {
        let set = "echo 0 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv4/conf/default/rp_filter; \
                   echo 1 > /proc/sys/net/ipv4/conf/default/send_redirects";
        assert!(ground.within(side, &["sh", "-c", set]).output().unwrap().status.success());
    }
    for side in [1, 0] {
        let command = ground.gateway(side, &[]);
        start_logged(&mut ground, side, command);
        ground.wait_until("it runs", |ground| ground.status(side).is_object());
    }
    ground.wait_until("the tunnel is up", is_up);
    for (side, ip_forward, rp_filter, redirects, words) in
        [(0, "0", "1", "1", "; set it to"), (1, "1", "2", "0", " and is now")]
    {
        let seen = ["ip_forward", "conf/t0/rp_filter", "conf/t0/send_redirects"].map(|name| read(&ground, side, name));
        assert_eq!(seen, [ip_forward, rp_filter, redirects], "side {side}");
        let log = said(&ground, side);
        for setting in ["net/ipv4/ip_forward", "net/ipv4/conf/t0/rp_filter", "net/ipv4/conf/t0/send_redirects"] {
            let is_it = |line: &str| line.contains(&format!("sysctl {setting} ")) && line.contains(words);
            assert!(log.lines().any(is_it), "{setting}, side {side}: {log}");
        }
    }
}

// Both ends get another key, one after the other, and read it; then a new IKE SA is authenticated with it.
#[test]
fn a_key_is_changed_without_a_drop() {
    for version in ["ikev1", "ikev2"] {
        let Some(mut ground) = Ground::new(&format!("psk-{version}")) else { return };
        (0..2).for_each(|side| ground.configure(side, version, false, ""));
        let first = ground.come_up();
        let (before, ping) = (ground.spis(), ground.ping(6));
        for side in [1, 0] {
            let path = ground.configuration(side);
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.contains("between us two"));
            fs::write(&path, text.replace("between us two", "nobody else knows")).unwrap();
            simplon(&ground, side, &["reload"]);
        }
        assert_eq!(ground.spis(), before, "{version}: nothing is negotiated for that");
        // IKEv1 authenticates with each phase 1, IKEv2 with a new IKE SA alone.
        simplon(&ground, 0, &["rekey", "site", "--ike"]);
        ground.wait_until("there is another IKE SA", |ground| {
            let now = ground.spis();
            now.len() == 1 && now != before
        });
        ground::lost_nothing(ping, version);
        assert!(is_up(&ground) && ground.status(0)["connections"][0]["last_failure"].is_null(), "{version}");
        // One that never knew the old key.
        ground.running[first].kill().unwrap();
        ground.running[first].wait().unwrap();
        ground.start(0, &[]);
        ground.wait_until("the tunnel is up with the new key", is_up);
    }
}

#[test]
fn a_full_disk_costs_lines_of_logs_and_no_packet() {
    let Some(mut ground) = Ground::new("disk") else { return };
    (0..2).for_each(|side| ground.configure(side, "ikev2", false, ""));
    let logs = ground.folder.join("logs");
    prepend(&ground, 0, &format!("[gateway]\nlog-directory = \"{}\"\n", logs.display()));
    ground.start(1, &[]);
    ground.wait_until("the responder runs", |ground| ground.status(1).is_object());
    // `ip netns exec` gives it mounts of its own, which end with it.
    let script = format!(
        "mkdir {0} && mount -t tmpfs -o size=16k tmpfs {0} && {{ cat /dev/zero > {0}/full 2>/dev/null; exec \"$@\"; }}",
        logs.display()
    );
    let gateway = ground.gateway(0, &[]);
    let words: Vec<String> = gateway.get_args().skip(3).map(|word| word.to_str().unwrap().to_owned()).collect();
    let words: Vec<&str> = ["sh", "-c", &script, "sh"].into_iter().chain(words.iter().map(String::as_str)).collect();
    let command = ground.within(0, &words);
    start_logged(&mut ground, 0, command);
    ground.wait_until("the tunnel is up", is_up);
    ground::lost_nothing(ground.ping(1), "the disk is full");
    let log = said(&ground, 0);
    assert!(log.contains("site.log: No space left on device"), "{log}");
    assert!(log.contains("child_up"), "what is told elsewhere goes on: {log}");
    // There is room again.
    let process = ground.running.last().unwrap().id();
    let full = format!("/proc/{process}/root{}/full", logs.display());
    fs::remove_file(full).unwrap();
    simplon(&ground, 0, &["rekey", "site"]);
    ground.wait_until("what was lost is told", |ground| {
        said(ground, 0).contains("lines of the connections' logs were lost")
    });
}
