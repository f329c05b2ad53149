//! `simplon cluster`: how the cluster is, and having the other member take this one's place.

use std::time::{Duration, Instant};

use gateway::status::cluster::ClusterStatus;
use gateway::status::{Status, short_duration};
use gatewayd::admin::{Client, Request};

use crate::args::{ClusterAction, ClusterArgs};
use crate::exit::{Code, Failed};
use crate::orders::pause;
use crate::say;

/// How long a change of places may take.
const SWITCH: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(50);

/// Shows or switches.
pub(crate) fn run(args: &ClusterArgs) -> Result<Code, Failed> {
    let mut client = Client::connect(&args.socket)?;
    match args.action {
        None => {
            let status = client.status()?;
            if args.json { say(&crate::show::json(&status.cluster)?) } else { say(&show(&status)) }
        }
        Some(ClusterAction::Switch) => {
            client.order(&Request::ClusterSwitch)?;
            wait(&mut client)
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a command waits by the clock")]
fn wait(client: &mut Client) -> Result<Code, Failed> {
    let end = Instant::now() + SWITCH;
    loop {
        let cluster = client.status()?.cluster.unwrap_or_default();
        if cluster.role == "standby" {
            return say("the other member is active, and this one stands by\n");
        }
        if Instant::now() >= end {
            let text = "the other member has not taken this one's place: see `simplon show events`";
            return Err(Failed::new(Code::Timeout, text.to_owned()));
        }
        pause(LOOK);
    }
}

/// A few lines.
pub(crate) fn show(status: &Status) -> String {
    let Some(cluster) = &status.cluster else { return "this gateway is not one of a cluster\n".to_owned() };
    let ClusterStatus { role, member, since_s, why, term, shared, partner, partner_heard_ms, .. } = cluster;
    let age = |ms: Option<u64>| ms.map_or_else(|| "never".to_owned(), |ms| format!("{ms} ms ago"));
    let partner = match partner {
        Some(role) => format!("{role}, heard {}", age(*partner_heard_ms)),
        None => "silent".to_owned(),
    };
    let mut text = format!("member {member}: {role} for {}: {why} (term {term})\n", short_duration(*since_s));
    text += &format!("  shared       {}\n  other member {partner}\n", shared.join(", "));
    let in_step = if cluster.in_step { "in step" } else { "not in step" };
    text += &match cluster.held {
        Some((connections, sas)) => format!(
            "  state        {in_step}: holds {connections} connections and {sas} SAs, told {}\n",
            age(cluster.told_ms)
        ),
        None => format!(
            "  state        {in_step}: the other member confirmed {}; at most {} numbers of an SA between two words\n",
            age(cluster.told_ms),
            cluster.reserve
        ),
    };
    if let Some(trouble) = &cluster.trouble {
        text += &format!("  trouble      {trouble}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_wants_to_know_is_in_a_few_lines() {
        let cluster = ClusterStatus {
            role: "standby".into(),
            member: 2,
            since_s: 61,
            why: "the other member is active".into(),
            term: 4,
            shared: vec!["192.0.2.10/24%wan0".into()],
            partner: Some("active".into()),
            partner_heard_ms: Some(40),
            in_step: true,
            told_ms: Some(90),
            held: Some((3, 4)),
            reserve: 1 << 22,
            trouble: None,
        };
        let text = show(&Status { cluster: Some(cluster), ..Status::default() });
        assert_eq!(
            text,
            "member 2: standby for 1m01s: the other member is active (term 4)\n  shared       192.0.2.10/24%wan0\n  other \
             member active, heard 40 ms ago\n  state        in step: holds 3 connections and 4 SAs, told 90 ms ago\n"
        );
        assert!(show(&Status::default()).contains("not one of a cluster"));
    }
}
