//! `weir deadletters list`: how many, by topic and reason.

use serde_json::json;
use weir_ingest::{DeadLetters, LetterGroup};

use super::{filter, keys_to_read, moment};
use crate::cli::{Common, LettersArgs};
use crate::commands::{configuration, print_json, store_to_read};
use crate::error::Result;

/// Lists them. Without the keys folder all is said but whether bytes can be read.
pub async fn run(common: &Common, args: LettersArgs, pending: bool) -> Result<()> {
    let config = configuration(common)?;
    let store = store_to_read(&config)?;
    let keys = keys_to_read(&config);
    let letters = DeadLetters::open(&store, &config.kafka.job, config.ingest.dead_letter_days).await?;
    let mut groups = letters.list(&filter(args), keys.as_ref().ok()).await?;
    groups.retain(|group| !pending || group.pending > 0);
    if common.json {
        return print_json(&json!({ "groups": groups }));
    }
    if groups.is_empty() {
        println!("no dead letters{}", if pending { " are pending" } else { "" });
        return Ok(());
    }
    print(&groups);
    if let Err(unknown) = keys {
        eprintln!("weir: whether bytes can be read is not known: {unknown}");
    }
    Ok(())
}

fn print(groups: &[LetterGroup]) {
    let header = ["topic", "class", "letters", "replayed", "pending", "readable", "expired", "first seen", "last seen"];
    let known = |count: Option<u64>| count.map_or_else(|| "?".to_owned(), |count| count.to_string());
    let cells: Vec<[String; 9]> = groups
        .iter()
        .map(|group| {
            [
                group.topic.clone(),
                group.reason_class.clone(),
                group.letters.to_string(),
                group.replayed.to_string(),
                group.pending.to_string(),
                known(group.readable),
                known(group.expired),
                moment(group.first_observed_ms),
                moment(group.last_observed_ms),
            ]
        })
        .collect();
    let width = |column: usize| {
        let widest = cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        widest.max(header[column].len())
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |row: &[&str], reason: &str| {
        let columns = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            // Counts stand at the right of their column.
            if (2..7).contains(&column) { format!("{cell:>width$}") } else { format!("{cell:width$}") }
        });
        println!("{}  {reason}", columns.collect::<Vec<_>>().join("  "));
    };
    line(&header, "reason");
    for (row, group) in cells.iter().zip(groups) {
        line(&row.each_ref().map(String::as_str), &group.reason);
    }
}
