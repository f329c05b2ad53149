//! A gateway that negotiates keys as ever and then leaves them aside: packets travel in clear. The benchmark runs it at
//! both ends to find what encryption costs (docs/performance.md); a gateway that encrypts takes nothing from it.
//!
//! `without_encryption CONFIGURATION SOCKET`

use std::process::ExitCode;

use gatewayd::Options;
use gatewayd::data::Offloads;
use gatewayd::files::Load;
use gatewayd::log::Format;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let (Some(configuration), Some(socket), None) = (words.next(), words.next(), words.next()) else {
        return failed("usage: without_encryption CONFIGURATION SOCKET");
    };
    esp::measurement::without_encryption();
    let options = Options {
        load: Load { configuration, secrets: None, vti_script: None },
        socket: socket.into(),
        ports: (None, None),
        offloads: Offloads::Auto,
        log: Format::default(),
        hand_over: false,
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.to_string()),
    };
    match runtime.block_on(gatewayd::run(options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error.to_string()),
    }
}

#[expect(clippy::disallowed_macros, reason = "an example talks to the terminal")]
fn failed(why: &str) -> ExitCode {
    eprintln!("{why}");
    ExitCode::FAILURE
}
