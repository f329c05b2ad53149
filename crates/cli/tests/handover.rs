//! A running gateway is handed over to another process under traffic, in network namespaces: no ping is lost, and the IKE
//! SA stays the same. Needs root, `ip` and `ping`; says what it left out.
#![expect(clippy::unwrap_used, reason = "a panic here is the verdict")]
#![expect(clippy::disallowed_methods, reason = "it waits for real programs")]

mod ground;

use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

use ground::{Ground, INNER, lost_nothing};

#[test]
fn a_hand_over_loses_no_packet_and_keeps_the_ike_sa() {
    let several = "[gateway]\nworkers = 3\n";
    for (version, has_device, extra, head) in [
        ("ikev2", false, "", ""),
        ("ikev1", true, "encapsulation = \"force\"", ""),
        ("ikev2", true, "", ""),
        ("ikev2", true, "encapsulation = \"force\"", several),
    ] {
        let Some(mut ground) = Ground::new(&format!("{version}-{has_device}{}", head.len())) else { return };
        ground.head = head;
        let what = format!("{version} {has_device} {extra} {head}");
        (0..2).for_each(|side| ground.configure(side, version, has_device, extra));
        let mut running = ground.come_up();
        let (before, ping) = (ground.spis(), ground.ping(6));
        assert_eq!(before.len(), 1, "{what}");
        for _ in 0..3 {
            let next = ground.start(0, &["--hand-over"]);
            let end = Instant::now() + Duration::from_secs(20);
            while !ground.has_ended(running) {
                assert!(Instant::now() < end && !ground.has_ended(next), "{what}: it is not handed over");
                std::thread::sleep(Duration::from_millis(20));
            }
            running = next;
            ground.wait_until("the next answers", |ground| ground.status(0).is_object());
        }
        lost_nothing(ping, &what);
        assert_eq!(ground.spis(), before, "{what}");
        let carried = &ground.status(0)["connections"][0]["children"][0]["sas"][0]["traffic"]["inbound"]["packets"];
        assert!(carried.as_u64().unwrap() >= 2_400, "{what}: counters go on, {carried}");
    }
}

#[test]
fn a_process_that_cannot_take_over_changes_nothing() {
    let Some(mut ground) = Ground::new("back") else { return };
    (0..2).for_each(|side| ground.configure(side, "ikev2", false, ""));
    let running = ground.come_up();
    let (before, ping) = (ground.spis(), ground.ping(4));
    let refused = ground.gateway(0, &["--hand-over", "--port", "501"]).output().unwrap();
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && why.contains("takes a restart"), "{why}");
    ground.configure(0, "ikev3", false, "");
    assert_eq!(ground.gateway(0, &["--hand-over"]).output().unwrap().status.code(), Some(2));
    ground.configure(0, "ikev2", false, "");
    // One that has gone before it says that it is ready, with everything in its hands.
    let mut stream = std::os::unix::net::UnixStream::connect(ground.socket(0)).unwrap();
    stream.write_all(b"{\"command\":\"hand_over\",\"format\":2,\"begin\":true}\n").unwrap();
    // What comes right behind the request is not read.
    std::thread::sleep(Duration::from_millis(300));
    stream.write_all(&10_u64.to_be_bytes()).unwrap();
    stream.write_all(b"\"Prepared\"").unwrap();
    std::thread::sleep(Duration::from_millis(300));
    drop(stream);
    lost_nothing(ping, "nothing was handed over");
    assert_eq!(ground.spis(), before);
    assert!(!ground.has_ended(running));
    let next = ground.start(0, &["--hand-over"]);
    ground.wait_until("then it is handed over", |ground| ground.spis() == before);
    std::thread::sleep(Duration::from_secs(1));
    assert!(ground.has_ended(running) && !ground.has_ended(next));
}

#[test]
fn a_process_that_goes_before_the_last_word_takes_no_bgp_session_with_it() {
    let Some(mut ground) = Ground::new("last") else { return };
    let heads = [
        "[bgp]\nas = 65001\nrouter-id = \"10.1.0.1\"\n[bgp.neighbor.\"192.0.2.2\"]\nas = 65002\n",
        "[bgp]\nas = 65002\nrouter-id = \"10.2.0.1\"\n[bgp.neighbor.\"192.0.2.1\"]\nas = 65001\n",
    ];
    for (side, head) in heads.into_iter().enumerate() {
        ground.head = head;
        ground.configure(side, "ikev2", false, "");
    }
    let running = ground.come_up();
    let neighbor = |ground: &Ground| {
        let words = [env!("CARGO_BIN_EXE_simplon"), "status", "--detail", "--json", "--socket", &ground.socket(0)];
        let output = ground.within(0, &words).output().unwrap();
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let neighbor = &status["bgp"]["neighbors"][0];
        (neighbor["state"].clone(), neighbor["flaps"].clone())
    };
    let up = ("established".into(), 0.into());
    ground.wait_until("BGP is up", |ground| neighbor(ground) == up);
    let (before, ping) = (ground.spis(), ground.ping(4));
    // It is ready, and hears nothing more: the last word does not reach it.
    let mut stream = std::os::unix::net::UnixStream::connect(ground.socket(0)).unwrap();
    stream.write_all(b"{\"command\":\"hand_over\",\"format\":2,\"begin\":true}\n").unwrap();
    for step in ["\"Prepared\"", "\"Ready\""] {
        std::thread::sleep(Duration::from_millis(500));
        if step == "\"Ready\"" {
            stream.shutdown(std::net::Shutdown::Read).unwrap();
        }
        stream.write_all(&(step.len() as u64).to_be_bytes()).unwrap();
        stream.write_all(step.as_bytes()).unwrap();
    }
    lost_nothing(ping, "nothing was handed over");
    assert_eq!(ground.spis(), before);
    assert!(!ground.has_ended(running));
    assert_eq!(neighbor(&ground), up);
}

#[test]
fn a_second_gateway_in_the_same_network_namespace_touches_nothing() {
    let Some(mut ground) = Ground::new("alone") else { return };
    (0..2).for_each(|side| ground.configure(side, "ikev2", true, ""));
    ground.come_up();
    let routes = |ground: &Ground| {
        let words = ["ip", "route", "show", "proto", "83"];
        String::from_utf8(ground.within(0, &words).output().unwrap().stdout).unwrap()
    };
    let before = routes(&ground);
    assert!(before.contains(INNER[1]), "{before}");
    let other = ground.folder.join("other.toml");
    let refused = |ground: &Ground| {
        let (other, socket) = (other.to_str().unwrap(), ground.folder.join("other.sock"));
        let words = [env!("CARGO_BIN_EXE_simplon"), "gateway", "-c", other, "--socket", socket.to_str().unwrap()];
        let words = [&["timeout", "10"], &words[..], &["--port", "600", "--natt-port", "4600"]].concat();
        let output = ground.within(0, &words).output().unwrap();
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && why.contains("runs in this network namespace"), "{why}");
        assert_eq!(routes(ground), before);
    };
    fs::write(&other, "").unwrap();
    refused(&ground);
    // Nor after the first was handed over.
    let next = ground.start(0, &["--hand-over"]);
    ground.wait_until("the next answers", |ground| ground.status(0).is_object());
    std::thread::sleep(Duration::from_secs(1));
    assert!(!ground.has_ended(next));
    refused(&ground);
}
