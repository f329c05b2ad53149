//! What an operator meets: two running gateways in network namespaces, and what is around them. Needs root, `ip` and
//! `ping`; says what it left out.
#![expect(clippy::unwrap_used, reason = "a panic here is the verdict")]
#![expect(clippy::disallowed_methods, reason = "it waits for real programs")]

mod ground;

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
