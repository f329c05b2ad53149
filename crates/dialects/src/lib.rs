//! Vendor configuration to and from the model, one module a vendor. What a file means in its own dialect is what runs.
//!
//! | module | files |
//! | --- | --- |
//! | [`simplon_toml`] | `simplon.toml`, this project's own |
//! | [`ipsec_conf`] | `ipsec.conf` and `ipsec.secrets` of Openswan, Libreswan and strongSwan |
//!
//! A reader opens no file itself: [`Files`] brings the text, so that includes and globs work in memory too. What is
//! wrong comes back as [`Errors`], each with the line, the column and the nearest known word; what a person should
//! know, though it runs, as [`Note`]s. A secret never appears in either.

mod diagnostic;
mod encoding;
mod files;
pub mod ipsec_conf;
pub mod proposal;
mod selector;
pub mod simplon_toml;
mod units;

pub use diagnostic::{Diagnostic, Errors, Note, Place};
pub use files::{Files, MemoryFiles, glob_matches};

/// A configuration that makes sense, and what to know about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// What was meant.
    pub config: model::Config,
    /// What a person should know, in the order of the file.
    pub notes: Vec<Note>,
}

/// Reads the configuration at `path`, whatever its dialect: `.toml` is simplon.toml, `.conf` is ipsec.conf; any other
/// name is decided by its content.
pub fn read(path: &str, files: &dyn Files) -> Result<Reading, Errors> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let by_name = match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("toml") => Some(true),
        Some("conf") => Some(false),
        Some(_) | None => None,
    };
    let is_toml = match by_name {
        Some(known) => known,
        None => files.read(path).is_ok_and(|text| looks_like_toml(&text)),
    };
    if is_toml { simplon_toml::read(path, files) } else { ipsec_conf::read(path, None, files) }
}

/// Whether the first line that says something opens a table or sets a key, which ipsec.conf never begins with.
fn looks_like_toml(text: &str) -> bool {
    let first = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    first.is_some_and(|line| line.starts_with('[') || line.contains('='))
}
