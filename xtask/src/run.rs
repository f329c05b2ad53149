//! Running programs, saying which.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Nothing, or a sentence that says what failed.
pub(crate) type Outcome = Result<(), String>;

/// The root of the workspace.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The simplon binary of a profile.
pub(crate) fn simplon(profile: &str) -> PathBuf {
    target().join(profile).join("simplon")
}

/// Runs cargo in the workspace.
pub(crate) fn cargo(arguments: &[&str]) -> Outcome {
    cargo_with(&[], arguments)
}

/// Runs cargo in the workspace with these variables.
pub(crate) fn cargo_with(variables: &[(&str, &str)], arguments: &[&str]) -> Outcome {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.envs(variables.iter().copied()).args(arguments);
    run(command)
}

/// Runs a program in the workspace.
pub(crate) fn program(name: impl AsRef<OsStr>, arguments: &[&str]) -> Outcome {
    let mut command = Command::new(name);
    command.args(arguments);
    run(command)
}

/// Runs a command in the workspace; an error says which it was.
pub(crate) fn run(mut command: Command) -> Outcome {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    eprintln!("+ {line}");
    if command.get_current_dir().is_none() {
        command.current_dir(root());
    }
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{line}: {status}")),
        Err(error) => Err(format!("{line}: {error}")),
    }
}
