//! `weir deadletters replay`: rows after all, once.

use weir_ingest::{ReplayMode, ReplayReport};
use weir_store::{Keyring, Store};

use super::{count, filter, keys_folder};
use crate::cli::{Common, LettersArgs};
use crate::commands::run::ingest_config;
use crate::commands::{configuration, existing_store, print_json, store_to_read};
use crate::config::Config;
use crate::error::{Failure, Result};

/// Replays what passes the filter and says what became of it.
pub async fn run(common: &Common, args: LettersArgs, dry_run: bool) -> Result<()> {
    let config = configuration(common)?;
    let ingest = ingest_config(&config, true)?;
    if let Some(topic) = &args.topic
        && ingest.topic(topic).is_none()
    {
        return Err(Failure::user(format!(
            "the configuration does not name the topic {topic}, so its letters cannot be decoded: add it under [[kafka.topics]]"
        )));
    }
    let mode = if dry_run { ReplayMode::DryRun } else { ReplayMode::Store };
    let (store, keys) = open(&config, mode).await?;
    let report = weir_ingest::replay(&store, &keys, &ingest, &filter(args), mode, |_, _, _| {}).await?;
    if common.json {
        return print_json(&report);
    }
    print(&report);
    Ok(())
}

async fn open(config: &Config, mode: ReplayMode) -> Result<(Store, Keyring)> {
    // Decoding makes pseudonyms, and a tenant that is new gets its key: the folder is written to, dry or not.
    let keys = Keyring::open(keys_folder(config)?)?;
    let store = match mode {
        ReplayMode::Store => existing_store(config).await?,
        ReplayMode::DryRun => store_to_read(config)?,
    };
    Ok((store, keys))
}

fn print(report: &ReplayReport) {
    if report.finished_rows > 0 {
        println!("an interrupted replay was finished first: {}", count(report.finished_rows, "row"));
    }
    if report.unfinished {
        println!("a replay was interrupted: the next one finishes it first");
    }
    let would = if report.dry_run { "would be " } else { "" };
    let rows: Vec<String> =
        report.rows.iter().map(|(table, rows)| format!("{} of {table}", count(*rows, "row"))).collect();
    let rows = if rows.is_empty() { "no rows".to_owned() } else { rows.join(", ") };
    println!("{} {would}stored: {rows}", count(report.stored, "letter"));
    let others = [
        (report.already_stored, "found stored by ingest: nothing to add"),
        (report.expired, "expired: the bytes can no longer be read"),
        (report.foreign, "sealed with another keys folder: name that one under [keys] path"),
        (report.unsettled, "not passed by ingest yet with this configuration: let `weir run` go on, then replay"),
        (report.other_topics, "of topics that the configuration does not name"),
    ];
    for (letters, what) in others.into_iter().filter(|(letters, _)| *letters > 0) {
        println!("{} {what}", count(letters, "letter"));
    }
    for rejected in &report.rejected {
        println!("{} of {} rejected again: {}", count(rejected.letters, "letter"), rejected.topic, rejected.reason);
    }
}
