//! `simplon`: the gateway, the commands that talk to a running one, and the lab.
//!
//! | module | commands |
//! | --- | --- |
//! | `daemon` | `gateway` |
//! | `orders` | `up`, `down`, `rekey`, `reload` |
//! | `status`, `detail`, `table` | `status` |
//! | `show` | `show ike-sa`, `ipsec-sa`, `vpn`, `bgp`, `bgp-routes`, `bfd`, `routes`, `events` |
//! | `check` | `check` |
//! | `generate` | `completion`, and `man` for a package |
//! | `lab` | `lab list`, `run`, `shell`, `matrix` |
//! | `bench` | `bench`, `bench load` |
//!
//! Exit codes are those of [`exit::Code`] (docs/book/cli.md).

mod args;
mod bench;
mod check;
mod cluster;
mod daemon;
mod detail;
mod exit;
mod generate;
mod lab;
mod orders;
mod show;
mod status;
mod table;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use crate::args::{Arguments, Command};
use crate::exit::{Code, Failed};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.command {
        Command::Gateway(options) => daemon::run(options),
        Command::Status(options) => status::run(&options),
        Command::Show(command) => show::run(&command),
        Command::Up(options) => orders::up(&options),
        Command::Down(options) => orders::down(&options),
        Command::Drain(options) => orders::drain(&options),
        Command::Rekey(options) => orders::rekey(&options),
        Command::Reload(options) => orders::reload(&options),
        Command::Cluster(options) => cluster::run(&options),
        Command::Check(options) => check::run(&options),
        Command::Completion(options) => generate::completion(&options),
        Command::Man(options) => generate::man(&options),
        Command::Lab(command) => lab::run(command),
        Command::Bench(options) => bench::run(options),
    };
    match done {
        Ok(code) => code.into(),
        Err(Failed { code, message }) => {
            // There is nobody left to tell when standard error is gone.
            let _ = writeln!(std::io::stderr().lock(), "simplon: {message}");
            code.into()
        }
    }
}

/// Writes to standard output. A reader that has gone away, such as `head`, is no error.
fn say(text: &str) -> Result<Code, Failed> {
    tell(text).map(|_| Code::Ok)
}

/// Writes to standard output; whether there is still a reader.
fn tell(text: &str) -> Result<bool, Failed> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failed::new(Code::Failed, format!("cannot write: {e}")))
        }
        written => Ok(written.is_ok()),
    }
}
