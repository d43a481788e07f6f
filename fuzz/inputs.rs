// The inputs of one fuzz target, for the tests of the crate that it reads with: seeds, and what has broken it.

use std::path::{Path, PathBuf};

/// Each file of `fuzz/corpus/TARGET` and `fuzz/regressions/TARGET`, with its bytes.
fn of(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let fuzz = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz"));
    let mut inputs = Vec::new();
    for folder in ["corpus", "regressions"] {
        // A target that nothing has broken has no such folder.
        let Ok(files) = std::fs::read_dir(fuzz.join(folder).join(target)) else { continue };
        for file in files {
            let path = file.expect("the folder can be read").path();
            let bytes = std::fs::read(&path).expect("its files can be read");
            inputs.push((path, bytes));
        }
    }
    assert!(!inputs.is_empty(), "fuzz/corpus/{target} has no inputs");
    inputs.sort();
    inputs
}

/// Replays them all; the one that breaks a law is named before the panic's own words.
pub(crate) fn replay(target: &str, law: fn(&[u8])) {
    for (path, bytes) in of(target) {
        println!("{}", path.display());
        law(&bytes);
    }
}
