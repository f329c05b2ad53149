//! Any text as an `ipsec.secrets`, before and behind keys that must never be shown.
#![no_main]

use dialects::MemoryFiles;
use fuzz::MARK;
use libfuzzer_sys::fuzz_target;

const CONF: &str = "conn %default
  authby=secret
  ike=aes128-sha1-modp1024
  esp=aes128-sha1-modp1024
  left=192.0.2.1
  leftid=@gw.example.org
  leftsubnet=10.60.0.0/16
  auto=add
conn a
  right=203.0.113.10
  rightsubnet=10.50.0.0/16
conn b
  right=%any
  rightid=somebody@example.org
  rightsubnet=10.51.0.0/16
conn c
  right=2001:db8::10
  rightsubnet=10.52.0.0/16
";

fuzz_target!(|text: &str| {
    let (main, included) = text.split_once('\0').unwrap_or((text, ""));
    let secrets = format!("203.0.113.99 : PSK \"{MARK}\"\n{main}\n203.0.113.98 : PSK '{MARK}'\n");
    let files = MemoryFiles::new()
        .with("/etc/ipsec.conf", CONF)
        .with("/etc/ipsec.secrets", secrets)
        .with("/etc/ipsec.d/a.secrets", included);
    fuzz::check_reading(text, &dialects::read("/etc/ipsec.conf", &files));
});
