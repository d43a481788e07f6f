//! What several test files need.

#![allow(dead_code, reason = "each test file uses a part")]

use std::path::PathBuf;

/// The folder of public data sets beside the checkout, if this machine has it.
pub fn shared(path: &str) -> Option<PathBuf> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let root = std::env::var_os("WEIR_SHARED").map_or(beside, PathBuf::from);
    let found = root.join(path);
    if found.exists() {
        return Some(found);
    }
    println!("skipped: no ../shared");
    None
}
