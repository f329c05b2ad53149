//! Any text as an `ipsec.conf`, with an included file behind the first zero byte and keys for everyone.
#![no_main]

use dialects::{MemoryFiles, ipsec_conf};
use fuzz::MARK;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (main, included) = text.split_once('\0').unwrap_or((text, ""));
    let files = MemoryFiles::new()
        .with("/etc/ipsec.conf", main)
        .with("/etc/ipsec.d/a.conf", included)
        .with("/etc/ipsec.secrets", format!(": PSK \"{MARK}\"\n"));
    fuzz::check_reading(text, &dialects::read("/etc/ipsec.conf", &files));

    // A path may also be that of a script that makes devices.
    let options = ipsec_conf::Options { vti_script: Some("/etc/ipsec.d/a.conf".to_owned()), ..Default::default() };
    fuzz::check_reading(text, &ipsec_conf::read_with("/etc/ipsec.conf", &options, &files));
});
