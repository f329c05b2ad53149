//! Fuzzing on the stable toolchain: the coverage that libFuzzer wants comes from LLVM's own pass.

use std::fs;
use std::process::Command;

use crate::run::{self, Outcome, root};

/// What `cargo fuzz` would pass, less the sanitizers: they need a nightly compiler, and safe code has little for
/// them to find. Debug assertions and overflow checks are on by the profile.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing";

/// The target triple is named so that the flags stay away from build scripts and macros.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// Replays every target's corpus, then fuzzes for `seconds` in all.
pub(crate) fn run(seconds: u64) -> Outcome {
    let folder = root().join("fuzz");
    let target = run::target().join("fuzz");
    let mut build = Command::new("cargo");
    build.args(["build", "--release", "--target", TRIPLE]).current_dir(&folder);
    build.env("CARGO_TARGET_DIR", &target).env("RUSTFLAGS", COVERAGE);
    run::run(build)?;
    let names = targets()?;
    let share = (seconds / names.len().max(1) as u64).max(1);
    for name in &names {
        let corpus = folder.join("corpus").join(name);
        let found = target.join("found").join(name);
        let crashes = target.join("crashes").join(format!("{name}-"));
        for needed in [&corpus, &found, &target.join("crashes")] {
            fs::create_dir_all(needed).map_err(|error| format!("{}: {error}", needed.display()))?;
        }
        let binary = target.join(TRIPLE).join("release").join(name);
        // With no seconds the corpus alone is replayed; what fuzzing finds goes to the target folder, not to git.
        let mut fuzz = Command::new(binary);
        let limits = ["-timeout=10", "-rss_limit_mb=2048", "-max_len=8192", "-print_final_stats=0", "-verbosity=0"];
        fuzz.args(limits).arg(format!("-artifact_prefix={}", crashes.display()));
        if seconds == 0 {
            fuzz.arg("-runs=0").arg(&corpus);
        } else {
            fuzz.arg(format!("-max_total_time={share}")).arg(&found).arg(&corpus);
        }
        fuzz.current_dir(&target);
        run::run(fuzz)?;
    }
    println!("{} fuzz targets: corpus replayed, {seconds} s fuzzed", names.len());
    Ok(())
}

/// The names of the fuzz targets, which are the files in their folder.
fn targets() -> Result<Vec<String>, String> {
    let folder = root().join("fuzz/targets");
    let entries = fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.path().file_stem().map(|stem| stem.to_string_lossy().into_owned()))
        .collect();
    names.sort();
    Ok(names)
}
