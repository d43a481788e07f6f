//! Scripts of `tests/reference`, which compute figures a second time over raw files.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::skip;

/// What a script of `tests/reference` prints about the data in `data`. `None`, with the reason on standard error, where no
/// Python has DuckDB.
///
/// # Panics
/// When the script fails.
#[must_use]
pub fn reference(script: &str, data: &Path) -> Option<String> {
    let Some(python) = python() else {
        skip("reference", "no Python with duckdb");
        return None;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("reference").join(script);
    let output = Command::new(python).arg(&script).arg(data).output().expect("python runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} failed: {said}", script.display());
    Some(String::from_utf8(output.stdout).expect("the reference prints text"))
}

/// The folder of the small Open Bandit Dataset, `random.csv` and `bts.csv` of campaign "all" and `bts_women.csv`. `None`, with the reason on standard
/// error, where `scripts/setup.sh test` could not fetch it.
#[must_use]
pub fn open_bandit() -> Option<PathBuf> {
    let folder =
        cache().map(|cache| cache.join("weir/open-bandit")).filter(|folder| folder.join("bts_women.csv").is_file());
    if folder.is_none() {
        skip("open-bandit", "no Open Bandit Dataset in the cache folder");
    }
    folder
}

fn cache() -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or(home)
}

/// The interpreter that `scripts/setup.sh test` makes, or the system's.
fn python() -> Option<PathBuf> {
    let ours = cache().map(|cache| cache.join("weir/reference/bin/python"));
    let has_duckdb = |python: &PathBuf| {
        Command::new(python).args(["-c", "import duckdb"]).output().is_ok_and(|output| output.status.success())
    };
    ours.into_iter().chain([PathBuf::from("python3")]).find(has_duckdb)
}
