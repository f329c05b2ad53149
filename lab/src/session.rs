//! `simplon lab shell`: the ground of a scenario, and a shell in one of its namespaces.

use std::process::Command;

use crate::error::{Error, Result};
use crate::netns::Lab;
use crate::peer::{PeerKind, simplon};
use crate::scenario::{Options, Scenario};
use crate::shell::{Out, Shell};

/// Builds the ground of a scenario, with addresses on both gateways and simplon's configuration
/// for each written but not run, and starts `$SHELL` in the namespace `node` (the customer's
/// gateway, where none is named). Returns the shell's exit status; everything is removed then.
///
/// # Errors
///
/// When the ground cannot be built or has no such namespace.
pub fn shell(scenario: Scenario, node: Option<&str>, options: &Options, out: Out) -> Result<i32> {
    let shell = Shell::new(out, options.echo);
    let options = Options { customer: PeerKind::Simplon, cloud: PeerKind::Simplon, ..options.clone() };
    let lab = Lab::new(&shell)?;
    let ground = scenario.build(&lab)?;
    let plans = scenario.plans(&lab, &ground, &options)?;
    shell.say(&format!("\n{scenario}: {}\n\n{}\n", scenario.summary(), scenario.drawing()));
    for node in lab.nodes() {
        shell.say(&format!("  {:<12} ip netns exec {} bash", node.name(), node.netns()));
    }
    shell.say("");
    for (site, plan) in [(&ground.customer, plans.customer), (&ground.cloud, plans.cloud)] {
        site.gateway.settle(PeerKind::Simplon)?;
        let command = simplon::written(&lab, &site.gateway, plan)?;
        shell.say(&format!("  The gateway {}: {command}", site.gateway.name));
    }
    let wanted = node.unwrap_or(&ground.customer.gateway.name);
    let nodes = lab.nodes();
    let Some(node) = nodes.iter().find(|node| node.name() == wanted) else {
        let names: Vec<&str> = nodes.iter().map(|node| node.name()).collect();
        return Err(Error::Asked(format!("no namespace is called {wanted:?}: there are {}", names.join(", "))));
    };
    shell.say(&format!("\nA shell in {wanted}; leaving it removes everything.\n"));
    let program = std::env::var("SHELL").unwrap_or_else(|_| "/bin/sh".into());
    let status = Command::new("ip")
        .args(["netns", "exec", node.netns(), &program])
        .env("debian_chroot", wanted)
        .status()
        .map_err(|e| Error::io(format!("starting {program}"), e))?;
    Ok(status.code().unwrap_or(130))
}
