//! The documented exit codes, and that no secret is shown, with the program itself. Needs no privilege and no network.
#![expect(clippy::unwrap_used, reason = "a panic here is the verdict")]

use std::path::PathBuf;
use std::process::{Command, Output};

const GOOD: &str = "[connection.site]\nlocal = { address = \"192.0.2.1\" }\nremote = { address = \"192.0.2.2\" }\n\
    psk = \"a very secret key\"\n[connection.site.child.net]\nlocal = [\"10.1.0.0/24\"]\nremote = [\"10.2.0.0/24\"]\n";

fn simplon(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_simplon")).args(words).output().unwrap()
}

/// A file of its own for each test, removed at its end.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("simplon-exit-{}-{name}.toml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_configuration_that_can_run_is_shown_without_its_secrets() {
    let file = File::new("good", GOOD);
    let output = simplon(&["check", file.path()]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("10.1.0.0/24 <-> 10.2.0.0/24"), "{}", said(&output));
    assert!(!said(&output).contains("very secret"), "{}", said(&output));
    let output = simplon(&["check", file.path(), "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&json["ok"], &json["connections"][0]["name"]), (&true.into(), &"site".into()));
    assert!(!said(&output).contains("very secret"), "{}", said(&output));
}

#[test]
fn a_wrong_configuration_is_a_2_and_shows_the_line_without_its_secret() {
    let file = File::new("bad", &GOOD.replace("psk =", "pks ="));
    for words in [vec!["check", file.path()], vec!["check", file.path(), "--json"]] {
        let output = simplon(&words);
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains("did you mean"), "{}", said(&output));
        assert!(!said(&output).contains("very secret"), "{}", said(&output));
    }
}

#[test]
fn wrong_usage_is_a_2_and_no_gateway_a_3() {
    assert_eq!(simplon(&["gateway"]).status.code(), Some(2));
    assert_eq!(simplon(&["lab", "run", "no-such-scenario"]).status.code(), Some(2));
    for words in [["status", "--socket"], ["reload", "--socket"]] {
        let output = simplon(&[words[0], words[1], "/nonexistent/simplon.sock"]);
        assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    }
    for order in ["up", "down", "rekey"] {
        let output = simplon(&[order, "site", "--socket", "/nonexistent/simplon.sock"]);
        assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    }
}
