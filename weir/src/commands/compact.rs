//! `weir compact`: one round of upkeep by hand.

use std::collections::BTreeMap;

use weir_store::{Upkeep, Upkept};

use super::{configuration, existing_store, print_json};
use crate::cli::{Common, CompactArgs};
use crate::error::{Failure, Result};
use crate::upkeep;

/// Keeps up one table or all, and says what was done.
pub async fn run(common: &Common, args: CompactArgs) -> Result<()> {
    let config = configuration(common)?;
    let store = existing_store(&config).await?;
    let mut tables = upkeep::tables(&store).await?;
    if let Some(name) = args.table {
        if !tables.contains(&name) {
            let there = if tables.is_empty() { "none yet".to_owned() } else { tables.join(", ") };
            return Err(Failure::user(format!("there is no table {name:?}; there are: {there}")));
        }
        tables = vec![name];
    }
    let mut done: BTreeMap<String, Upkept> = BTreeMap::new();
    for name in tables {
        let Some(mut table) = store.existing(&name).await? else { continue };
        if !args.dry_run {
            upkeep::remember(&store, &config, &name).await?;
        }
        // By hand nobody waits for a rate.
        let upkeep = Upkeep { dry_run: args.dry_run, bytes_per_s: None, ..upkeep::of(&config, &name) };
        done.insert(name, table.keep_up(&upkeep).await?);
    }
    if common.json {
        return print_json(&done);
    }
    let width = done.keys().map(String::len).max().unwrap_or(0);
    for (name, done) in &done {
        println!("{name:<width$}  {}", sentence(done, args.dry_run));
    }
    Ok(())
}

fn sentence(done: &Upkept, dry_run: bool) -> String {
    let Upkept {
        files, expired_files, merged_files, written_files, merged_bytes, vacuumed_files, vacuumed_bytes, ..
    } = done;
    let mut parts = Vec::new();
    if *expired_files > 0 {
        parts.push(format!("{expired_files} past their days"));
    }
    if *merged_files > 0 {
        let into = if dry_run { String::new() } else { format!(" into {written_files}") };
        parts.push(format!("{merged_files} small ones merged{into} ({})", mib(*merged_bytes)));
    }
    if *vacuumed_files > 0 {
        parts.push(format!("{vacuumed_files} unneeded ones deleted ({})", mib(*vacuumed_bytes)));
    }
    if let Some(version) = done.checkpoint {
        parts.push(format!("checkpoint of version {version}"));
    }
    if parts.is_empty() {
        parts.push("nothing to do".to_owned());
    }
    let would = if dry_run && parts[0] != "nothing to do" { "would be: " } else { "" };
    format!("{files} files: {would}{}", parts.join(", "))
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / 1_048_576.0)
}
