//! The public data that lies beside the repository, where there is any.

use std::path::{Path, PathBuf};

/// The file or folder at `path` below the folder of public data, or `None` after saying that the test is skipped.
#[must_use]
pub fn shared(path: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let found = std::env::var_os("WEIR_SHARED").map_or(beside, PathBuf::from).join(path);
    if found.exists() {
        return Some(found);
    }
    crate::skip("shared", "no ../shared");
    None
}

/// The folder of data set `name`, or `None` after saying that the test is skipped.
#[must_use]
pub fn shared_data(name: &str) -> Option<PathBuf> {
    shared(&format!("data/{name}"))
}
