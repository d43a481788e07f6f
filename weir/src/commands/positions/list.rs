//! `weir positions list`: a line a partition.

use serde_json::json;
use weir_ingest::{IngestConfig, PartitionPosition, PositionState};

use crate::cli::Common;
use crate::commands::{print_json, store_to_read};
use crate::config::Config;
use crate::error::Result;

/// Lists them. Without brokers all is said that the tables know.
pub async fn run(common: &Common, config: &Config, ingest: &IngestConfig) -> Result<()> {
    let store = store_to_read(config)?;
    let positions = weir_ingest::positions(&store, ingest).await?;
    if common.json {
        return print_json(&json!({
            "job": ingest.job,
            "partitions": positions.partitions,
            "kafka_error": positions.kafka_error,
        }));
    }
    if positions.partitions.is_empty() {
        println!("job {} has no positions yet", ingest.job);
    } else {
        print(&positions.partitions);
    }
    if let Some(error) = positions.kafka_error {
        eprintln!("weir: what Kafka holds is not known: {error}");
    }
    Ok(())
}

fn print(partitions: &[PartitionPosition]) {
    let header = ["partition", "next", "low", "high", "lag", "state"];
    let number = |number: Option<i64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let cells: Vec<[String; 6]> = partitions
        .iter()
        .map(|of| {
            let (low, high, lag) = (number(of.low), number(of.high), number(of.lag));
            [of.id().to_string(), number(of.next), low, high, lag, of.state.words().to_owned()]
        })
        .collect();
    let width = |column: usize| {
        let widest = cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        widest.max(header[column].len())
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |row: &[&str], note: &str| {
        let columns = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            // Numbers stand at the right of their column.
            if (1..5).contains(&column) { format!("{cell:>width$}") } else { format!("{cell:width$}") }
        });
        println!("{}", format!("{}  {note}", columns.collect::<Vec<_>>().join("  ")).trim_end());
    };
    line(&header, "");
    for (row, of) in cells.iter().zip(partitions) {
        line(&row.each_ref().map(String::as_str), &note(of));
    }
}

/// What a line needs beside its numbers: tables that are not at one offset, another name in the tables, the way on.
fn note(of: &PartitionPosition) -> String {
    let mut notes = Vec::new();
    let mut different: Vec<Option<i64>> = of.tables.values().copied().collect();
    different.dedup();
    if different.len() > 1 {
        let each = of.tables.iter().map(|(table, next)| match next {
            Some(next) => format!("{table} {next}"),
            None => format!("{table} -"),
        });
        notes.push(each.collect::<Vec<_>>().join(", "));
    }
    if of.source_topic != of.topic {
        notes.push(format!("rows say {}", of.source_topic));
    }
    match (of.state, of.next, of.low) {
        (PositionState::Lost, Some(next), Some(low)) => {
            notes.push(format!("{} offsets are lost: weir positions skip {} --to earliest", low - next, of.id()));
        }
        (PositionState::BeyondEnd, ..) => {
            notes.push(format!("cut off, or made again: weir positions forget {} --force", of.topic));
        }
        (PositionState::AnotherTopic, ..) => notes.push(format!("made again: weir positions forget {}", of.topic)),
        _ => {}
    }
    notes.join("; ")
}
