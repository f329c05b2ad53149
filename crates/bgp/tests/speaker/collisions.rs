//! Both sides connect at once (RFC 4271 §6.8): whatever arrives first, one connection lives on, the same for both.

use base::{Instant, Random};

use super::net::{Net, SECOND};

/// Both connect; what is under way arrives in an order that `choose` says, each connection's octets in theirs. With
/// choices to come the number of them is handed in.
fn collide(mut choose: impl FnMut(usize) -> usize) -> Net {
    let mut net = Net::pair(1);
    net.now = Instant::ZERO;
    for host in 0..2 {
        net.command(host, base::Machine::handle_timeout);
    }
    for _ in 0..200 {
        let arrivals: Vec<_> = net.arrivals().collect();
        if arrivals.is_empty() {
            return net;
        }
        let (_, tcp, end) = arrivals[choose(arrivals.len())];
        net.deliver(tcp, end);
    }
    panic!("no end of it: {net:#?}");
}

fn check(net: &mut Net, order: &str) -> bool {
    let (live, is_up) = (net.live(), net.is_up());
    assert!(live.len() <= 1, "{order}: two connections live on: {net:#?}");
    assert_eq!(live.len() == 1, is_up, "{order}: {net:#?}");
    let is_settled = is_up;
    let end = net.now + 60 * SECOND;
    assert!(net.run_until(end, Net::is_up), "{order}: they do not find each other again: {net:#?}");
    net.run_for(100 * SECOND);
    assert!(net.is_up() && net.live().len() == 1, "{order}");
    is_settled
}

#[test]
fn every_order_of_the_first_eight_arrivals_ends_with_one_connection() {
    // Each order is a number in base 4: at each step there are at most four queues, two of each connection.
    let (mut order, mut count, mut settled) = (vec![0usize; 8], 0u32, 0u32);
    loop {
        let (mut step, mut widths) = (0, Vec::new());
        let mut net = collide(|choices| {
            let choice = order.get(step).copied().unwrap_or(0);
            widths.push(choices);
            step += 1;
            choice
        });
        count += 1;
        settled += u32::from(check(&mut net, &format!("{order:?}")));
        // The next order, as an odometer whose wheels have as many digits as there were choices.
        let next = (0..order.len().min(widths.len())).rev().find(|place| order[*place] + 1 < widths[*place]);
        let Some(place) = next else { break };
        order[place] += 1;
        order[place + 1..].fill(0);
    }
    assert!(count > 1000, "{count} orders were tried");
    // In a few, both connections go and another attempt follows.
    assert!(settled * 10 > count * 9, "{settled} of {count} were settled at once");
}

#[test]
fn random_orders_end_with_one_connection() {
    for seed in 0..2000 {
        let mut random = Random::for_test(seed);
        let mut net = collide(|choices| random.below(choices as u64) as usize);
        check(&mut net, &format!("seed {seed}"));
    }
}
