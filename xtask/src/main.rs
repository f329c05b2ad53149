//! Developer commands: `cargo xtask demo | test | bench | fuzz | check | deb`.
//!
//! Each installs what it needs from the distribution, after saying what, and runs the same on a
//! laptop as in CI.
#![expect(clippy::disallowed_macros, reason = "a developer's command talks to the terminal")]

mod deb;
mod fuzz;
mod install;
mod reboot;
mod run;

use std::process::ExitCode;

use run::{Outcome, cargo, program, simplon};

const USAGE: &str = "cargo xtask COMMAND

  demo           install what is missing, build, bring a tunnel up against strongSwan
  test           install what is missing, run every test: units, interop matrix, fuzz corpus
  bench [NAME]   install what is missing, measure, print the tables
  fuzz [SECONDS] replay the corpus of every fuzz target, then fuzz for SECONDS in all (default 60)
  deb [BINARY]   build a Debian package, of a program that is built already where one is named
  deb-test DEB   install a package into a copy of this system, upgrade it, remove it; needs root
  reboot-test DEB [SUITE]
                 install a package on an emulated Debian (bookworm, trixie), reboot it, cut its power; needs root
  check          formatting, lints and documentation as CI wants them, licences where cargo-deny is installed
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["demo"] => demo(),
        ["test"] => test(),
        ["bench", names @ ..] => bench(names),
        ["fuzz"] => install::build_tools().and_then(|()| fuzz::run(60)),
        ["fuzz", seconds] => match seconds.parse() {
            Ok(seconds) => install::build_tools().and_then(|()| fuzz::run(seconds)),
            Err(_) => Err(format!("{seconds:?} is not a number of seconds")),
        },
        ["deb"] => install::build_tools().and_then(|()| deb::build()),
        ["deb", binary] => deb::pack_built(binary),
        ["deb-test", package] => deb::test(package),
        ["reboot-test", package] => install::emulator().and_then(|()| reboot::test(package, "bookworm")),
        ["reboot-test", package, suite] => install::emulator().and_then(|()| reboot::test(package, suite)),
        // What the line above runs in namespaces.
        ["reboot-inside", package, machine] => reboot::inside(package, machine),
        ["check"] => check(),
        _ => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// The moment that simplon is for: a tunnel from a real configuration against a real peer.
fn demo() -> Outcome {
    install::build_tools()?;
    install::peers()?;
    cargo(&["build", "--release", "--package", "cli"])?;
    program(simplon("release"), &["lab", "run", "openswan-vgw", "--peer", "strongswan"])
}

/// Everything that can fail.
fn test() -> Outcome {
    install::build_tools()?;
    install::peers()?;
    if program("cargo", &["nextest", "--version"]).is_ok() {
        cargo(&["nextest", "run", "--workspace", "--no-fail-fast"])?;
    } else {
        cargo(&["test", "--workspace", "--no-fail-fast"])?;
    }
    cargo(&["test", "--workspace", "--doc", "--quiet"])?;
    // The profile of the tests: what they built is used, and its checks for overflow are on.
    cargo(&["build", "--package", "cli"])?;
    program(simplon("debug"), &["lab", "matrix", "--jobs", "4", "--again"])?;
    fuzz::run(60)
}

/// The figures.
fn bench(names: &[&str]) -> Outcome {
    install::build_tools()?;
    install::bench()?;
    cargo(&["build", "--release", "--package", "cli"])?;
    // The same gateway less its encryption, to measure what that costs.
    cargo(&["build", "--release", "--package", "gatewayd", "--example", "without_encryption"])?;
    program(simplon("release"), &[&["bench"], names].concat())
}

/// What CI wants besides tests.
fn check() -> Outcome {
    cargo(&["fmt", "--all", "--check"])?;
    cargo(&["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"])?;
    run::cargo_with(&[("RUSTDOCFLAGS", "--deny warnings")], &["doc", "--workspace", "--no-deps", "--quiet"])?;
    dependencies()
}

/// Licences, sources and duplicates of what is linked, as `deny.toml` wants them. Known vulnerabilities are left to
/// `cargo deny check advisories`: they are found by what others publish, not by a change here.
fn dependencies() -> Outcome {
    if program("cargo", &["deny", "--version"]).is_err() {
        println!("cargo-deny is not installed: the dependencies are not looked at");
        return Ok(());
    }
    ["Cargo.toml", "fuzz/Cargo.toml"].iter().try_for_each(|manifest| {
        let which = ["deny", "--manifest-path", manifest, "--config", "deny.toml", "--log-level", "error"];
        cargo(&[&which[..], &["check", "licenses", "bans", "sources"]].concat())
    })
}
