//! A user namespace gives root's rights over networks to anyone. It takes a process with one thread, so this test
//! brings its own `main`.

use std::io::{self, Write};
use std::process::ExitCode;

use os::netns::{Namespace, enter_user_namespace};
use os::tun::{Tun, TunOptions};

const NAME: &str = "in_a_user_namespace_anyone_makes_devices_and_namespaces";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let asked = |flag: &str| arguments.iter().any(|argument| argument == flag);
    // What cargo-nextest asks a test binary: to list its tests, and to run one of them.
    if asked("--list") {
        let list = if asked("--ignored") { String::new() } else { format!("{NAME}: test\n") };
        return exit(io::stdout().write_all(list.as_bytes()));
    }
    exit(in_a_user_namespace_anyone_makes_devices_and_namespaces())
}

fn in_a_user_namespace_anyone_makes_devices_and_namespaces() -> io::Result<()> {
    match enter_user_namespace() {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied || e.kind() == io::ErrorKind::StorageFull => {
            return writeln!(io::stderr(), "left out: {NAME}: {e}");
        }
        entered => entered?,
    }
    Namespace::create("site-a")?;
    let there = Namespace::open("site-a")?;
    let tun = there.run(|| Tun::open(&TunOptions::new("t0")))??;
    assert_eq!(tun.name(), "t0");
    Namespace::remove("site-a")?;
    writeln!(io::stderr(), "test {NAME} ... ok")
}

fn exit(result: io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let _ = writeln!(io::stderr(), "{NAME}: {e}");
            ExitCode::FAILURE
        }
    }
}
