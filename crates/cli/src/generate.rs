//! `simplon completion`, and the manual pages for a package.

use clap::CommandFactory;

use crate::args::{Arguments, CompletionArgs, ManArgs};
use crate::exit::{Code, Failed};
use crate::say;

/// Prints the script that completes commands and options in a shell.
pub(crate) fn completion(args: &CompletionArgs) -> Result<Code, Failed> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Arguments::command(), "simplon", &mut script);
    say(&String::from_utf8_lossy(&script))
}

/// Writes a page of section 1 for each command.
pub(crate) fn man(args: &ManArgs) -> Result<Code, Failed> {
    let failed = |e| Failed::new(Code::Failed, format!("cannot write to {}: {e}", args.directory.display()));
    std::fs::create_dir_all(&args.directory).map_err(failed)?;
    clap_mangen::generate_to(Arguments::command(), &args.directory).map_err(failed)?;
    Ok(Code::Ok)
}
