//! Any text as a `simplon.toml`, beside a file that holds a key.
#![no_main]

use dialects::MemoryFiles;
use fuzz::MARK;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let files = MemoryFiles::new().with("/etc/simplon/simplon.toml", text).with("/etc/simplon/key", MARK);
    fuzz::check_reading(text, &dialects::read("/etc/simplon/simplon.toml", &files));
});
