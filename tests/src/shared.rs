//! The public data sets that lie beside the repository, where there are any.

use std::path::{Path, PathBuf};

/// The folder of data set `name`, or `None` after saying that the test is skipped.
#[must_use]
pub fn shared_data(name: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let shared = std::env::var_os("WEIR_SHARED").map_or(beside, PathBuf::from);
    let folder = shared.join("data").join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    crate::skip("shared", "no ../shared");
    None
}
