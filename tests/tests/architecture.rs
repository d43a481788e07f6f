//! The invariants of `docs/architecture.md`, checked against the manifests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Crate folder to the crate folders that it may depend on. The table in `docs/architecture.md` is this one.
const ALLOWED: &[(&str, &[&str])] = &[
    ("schemas", &[]),
    ("policy-runtime", &[]),
    ("fleet", &["policy-runtime", "features"]),
    ("adapters", &["schemas"]),
    ("decode", &["schemas"]),
    ("store", &["schemas"]),
    ("ingest", &["schemas", "adapters", "decode", "store"]),
    ("features", &["schemas", "store", "policy-runtime"]),
    ("traffic", &["schemas", "policy-runtime"]),
    ("bridge", &["schemas"]),
    ("learners", &["schemas", "store", "features", "fleet", "policy-runtime"]),
    ("policy-publisher", &["schemas", "store", "features", "policy-runtime", "fleet", "learners"]),
    ("sql", &["schemas", "store", "features", "learners"]),
    ("console", &["store", "sql", "policy-publisher"]),
    (
        "weir",
        &[
            "schemas",
            "adapters",
            "store",
            "ingest",
            "features",
            "policy-runtime",
            "fleet",
            "learners",
            "policy-publisher",
            "sql",
            "console",
            "traffic",
            "bridge",
        ],
    ),
    ("bench", &["schemas", "decode", "store", "ingest", "features", "policy-runtime", "fleet", "learners", "sql"]),
    ("tests", &[]),
];

/// Crates from outside that only the named folders may depend on directly.
const CONFINED: &[(&str, &[&str])] = &[
    ("rdkafka", &["ingest", "policy-publisher", "bridge", "weir", "bench", "tests"]),
    ("burn", &["learners"]),
    ("deltalake", &["store", "features", "sql"]),
    ("datafusion", &["adapters", "features", "sql", "learners"]),
    ("pgwire", &["sql"]),
    ("axum", &["policy-publisher", "console", "bridge", "weir"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the repository").to_owned()
}

/// Names under `[dependencies]` of a crate (development dependencies may point anywhere).
fn dependencies(folder: &str) -> BTreeSet<String> {
    let manifest =
        std::fs::read_to_string(root().join(folder).join("Cargo.toml")).expect("every member has a manifest");
    let manifest: toml::Table = manifest.parse().expect("manifests are TOML");
    manifest
        .get("dependencies")
        .and_then(toml::Value::as_table)
        .map(|table| table.keys().cloned().collect())
        .unwrap_or_default()
}

fn members() -> Vec<String> {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).expect("the workspace has a manifest");
    let manifest: toml::Table = manifest.parse().expect("manifests are TOML");
    let members = manifest["workspace"]["members"].as_array().expect("members is a list");
    members.iter().map(|member| member.as_str().expect("members are folders").to_owned()).collect()
}

#[test]
fn arrows_between_crates_point_down_only() {
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    for folder in members() {
        let may =
            allowed.get(folder.as_str()).unwrap_or_else(|| panic!("{folder} is not in docs/architecture.md's table"));
        for dependency in dependencies(&folder) {
            if let Some(other) = dependency.strip_prefix("weir-") {
                assert!(may.contains(&other), "{folder} must not depend on {other}: see docs/architecture.md");
            }
        }
    }
}

#[test]
fn heavy_libraries_stay_where_they_belong() {
    for (library, folders) in CONFINED {
        for folder in members() {
            if dependencies(&folder).contains(*library) {
                assert!(
                    folders.contains(&folder.as_str()),
                    "{folder} must not depend on {library}: see docs/architecture.md"
                );
            }
        }
    }
}

#[test]
fn the_page_lists_every_crate_and_every_rule() {
    let page = std::fs::read_to_string(root().join("docs/architecture.md")).expect("docs/architecture.md is there");
    for folder in members() {
        assert!(page.contains(&format!("`{folder}/`")), "docs/architecture.md does not mention {folder}/");
    }
    for (library, _) in CONFINED {
        assert!(page.contains(library), "docs/architecture.md does not say where {library} may be used");
    }
}

#[test]
fn sql_lives_in_sql_files() {
    // A query that is long enough to have a FROM and a GROUP BY belongs beside the crate, where a person can run it.
    for folder in members() {
        for file in rust_files(&root().join(&folder).join("src")) {
            let text = std::fs::read_to_string(&file).expect("sources are readable");
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            for (number, line) in code.lines().enumerate() {
                let line = line.trim_start();
                let is_comment = line.starts_with("//");
                assert!(
                    is_comment || !(line.to_uppercase().contains("GROUP BY ") && line.contains('"')),
                    "{}:{}: SQL in Rust: move it to a .sql file",
                    file.display(),
                    number + 1
                );
            }
        }
    }
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else { return files };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            files.push(path);
        }
    }
    files
}
