//! The house rules, as tests: floors, module documentation, length of files, words that do not belong.
#![expect(clippy::unwrap_used, reason = "a panic here is the verdict")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Each package's floor. A package depends on lower floors only; on floor 0 all stand on `base`.
const FLOORS: &[(&str, u32)] = &[
    ("base", 0),
    ("crypto", 1),
    ("lanes", 1),
    ("packet", 1),
    ("model", 1),
    ("sa", 2),
    ("sim", 2),
    ("dialects", 2),
    ("ike", 3),
    ("esp", 3),
    ("bgp", 3),
    ("bfd", 3),
    ("cluster", 3),
    ("gateway", 4),
    ("os", 5),
    ("gatewayd", 6),
    ("loadgen", 6),
    ("lab", 6),
    ("cli", 7),
    ("xtask", 8),
];

/// The floor from which on a crate may read a clock, open a socket and use unsafe code.
const OS_FLOOR: u32 = 5;

/// Lines past which a file is two files.
const LONGEST: usize = 900;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn metadata() -> serde_json::Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = ["metadata", "--no-deps", "--format-version", "1", "--offline"];
    let output = Command::new(cargo).args(arguments).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Every Rust file of the workspace.
fn sources() -> Vec<PathBuf> {
    let mut folders: Vec<_> = ["crates", "lab", "xtask", "fuzz"].iter().map(|name| root().join(name)).collect();
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    assert!(files.len() > 50, "only {} files found", files.len());
    files
}

#[test]
fn a_crate_depends_on_lower_floors_only() {
    let floors: BTreeMap<_, _> = FLOORS.iter().copied().collect();
    for package in metadata()["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let floor = floors.get(name).unwrap_or_else(|| panic!("{name} has no floor: add it to FLOORS"));
        for dependency in package["dependencies"].as_array().unwrap() {
            let (needed, kind) = (dependency["name"].as_str().unwrap(), dependency["kind"].as_str());
            let Some(below) = floors.get(needed).filter(|_| dependency["path"].is_string()) else { continue };
            if needed == "sim" {
                assert_eq!(kind, Some("dev"), "{name}: sim is a dev-dependency only");
            }
            assert!(below < floor || kind == Some("dev"), "{name} (floor {floor}) needs {needed} (floor {below})");
        }
    }
}

#[test]
fn a_core_crate_has_no_clock_no_socket_and_no_thread() {
    let forbidden =
        ["std::net::UdpSocket", "std::net::Tcp", "std::thread", "std::fs", "std::env", "tokio", "tracing::"];
    for (name, _) in FLOORS.iter().filter(|(name, floor)| *floor < OS_FLOOR && *name != "sim") {
        let folder = root().join("crates").join(name).join("src");
        for file in sources().iter().filter(|file| file.starts_with(&folder)) {
            let text = fs::read_to_string(file).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            if file.components().any(|part| part.as_os_str() == "tests") {
                continue;
            }
            for word in forbidden {
                assert!(!code.contains(word), "{} uses {word}", file.display());
            }
        }
    }
}

#[test]
fn every_module_says_what_it_is() {
    for file in sources() {
        let text = fs::read_to_string(&file).unwrap();
        let is_test_data = file.components().any(|part| part.as_os_str() == "data");
        assert!(is_test_data || text.starts_with("//!"), "{} does not begin with //!", file.display());
    }
}

#[test]
fn a_long_file_is_two_files() {
    for file in sources() {
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines <= LONGEST, "{} has {lines} lines", file.display());
    }
}

#[test]
fn nothing_promises_instead_of_doing() {
    let promises = ["todo", "unimplemented"].map(|name| format!("{name}!("));
    for file in sources() {
        let text = fs::read_to_string(&file).unwrap();
        for promise in &promises {
            assert!(!text.contains(promise), "{} has {promise}", file.display());
        }
        for (place, _) in text.match_indices(concat!("#[", "ignore")) {
            let line = text[place..].lines().next().unwrap_or_default();
            assert!(line.contains('='), "{}: an ignored test without a reason", file.display());
        }
    }
}
