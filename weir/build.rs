//! Tells the binary which commit it was built from, for the lineage of the policies that it trains: `WEIR_COMMIT` if it is
//! set (an image is built without the history), else what git says, else `unknown`.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=WEIR_COMMIT");
    println!("cargo::rerun-if-changed=build.rs");
    // Changes with every commit and every checkout of another.
    let moves = Path::new("../.git/logs/HEAD");
    if moves.exists() {
        println!("cargo::rerun-if-changed={}", moves.display());
    }
    let commit = std::env::var("WEIR_COMMIT").ok().filter(|commit| !commit.trim().is_empty()).or_else(git_commit);
    println!("cargo::rustc-env=WEIR_COMMIT={}", commit.as_deref().map_or("unknown", str::trim));
}

fn git_commit() -> Option<String> {
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
    String::from_utf8(output.stdout).ok().filter(|commit| output.status.success() && !commit.trim().is_empty())
}
