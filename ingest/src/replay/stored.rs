//! What ingest has done, or may yet do, with the messages of letters.
//!
//! A letter is committed before the raw tables pass its offset. A process that dies in between leaves a letter whose
//! message is read again, and a configuration that was mended meanwhile makes rows of it. So two things are asked of
//! the raw tables before a letter is replayed: have their positions passed it, and do they hold its rows?

use std::collections::{BTreeMap, HashMap, HashSet};

use arrow::array::AsArray;
use arrow::datatypes::{Int32Type, Int64Type};
use weir_schemas::Contract;
use weir_store::{LiveFile, Store};

use super::letters::Letter;
use super::raw_tables;
use crate::tables::{SOURCE_OFFSET, SOURCE_PARTITION, SOURCE_TOPIC};
use crate::{IngestConfig, IngestError, Result};

/// Partition and offset, in each raw table, of messages that it holds rows of.
pub(super) type Already = HashMap<&'static str, HashSet<(i32, i64)>>;

/// The letters of one topic that ingest has passed in every table that the topic feeds, and how many it has not.
pub(super) async fn settled<'a>(
    store: &Store,
    config: &IngestConfig,
    contracts: &[&'static Contract],
    letters: Vec<&'a Letter>,
) -> Result<(Vec<&'a Letter>, u64)> {
    let mut passed: BTreeMap<i32, Option<i64>> = letters.iter().map(|letter| (letter.id.partition, None)).collect();
    let Some(first) = letters.first() else { return Ok((letters, 0)) };
    let tables = raw_tables(store, contracts).await?;
    for (partition, passed) in &mut passed {
        let app_id = config.app_id(&first.id.topic, *partition);
        let mut lowest = Some(i64::MAX);
        for (_, table) in &tables {
            let position = match table {
                Some(table) => table.position(&app_id).await?,
                None => None,
            };
            lowest = lowest.min(position);
        }
        *passed = lowest;
    }
    let all = letters.len();
    let settled: Vec<&Letter> =
        letters.into_iter().filter(|letter| passed[&letter.id.partition] > Some(letter.id.offset)).collect();
    let unsettled = all - settled.len();
    Ok((settled, unsettled as u64))
}

/// Which of these letters of one topic the raw tables hold rows of. Reads only files whose offsets can be theirs.
pub(super) async fn already(
    store: &Store,
    contracts: &[&'static Contract],
    topic: &str,
    letters: &[&Letter],
) -> Result<Already> {
    let mut wanted: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
    for letter in letters {
        wanted.entry(letter.id.partition).or_default().push(letter.id.offset);
    }
    wanted.values_mut().for_each(|offsets| offsets.sort_unstable());
    let is_wanted =
        |partition: i32, offset: i64| wanted.get(&partition).is_some_and(|of| of.binary_search(&offset).is_ok());
    let mut found = Already::new();
    for (name, table) in raw_tables(store, contracts).await? {
        let held = found.entry(name).or_default();
        let Some(table) = table else { continue };
        for file in table.live_files().await?.iter().filter(|file| may_hold(file, &wanted)) {
            for batch in table.live_rows(file, &[SOURCE_TOPIC, SOURCE_PARTITION, SOURCE_OFFSET]).await? {
                let batch = batch?;
                let column = |name: &str| {
                    let lacks = || IngestError::Batch { table: "raw", why: format!("it has no column {name}") };
                    batch.column_by_name(name).ok_or_else(lacks)
                };
                let topics = column(SOURCE_TOPIC)?.as_string::<i32>();
                let partitions = column(SOURCE_PARTITION)?.as_primitive::<Int32Type>();
                let offsets = column(SOURCE_OFFSET)?.as_primitive::<Int64Type>();
                for row in 0..batch.num_rows() {
                    let (partition, offset) = (partitions.value(row), offsets.value(row));
                    if is_wanted(partition, offset) && topics.value(row) == topic {
                        held.insert((partition, offset));
                    }
                }
            }
        }
    }
    Ok(found)
}

fn may_hold(file: &LiveFile, wanted: &BTreeMap<i32, Vec<i64>>) -> bool {
    let partitions = file.range(SOURCE_PARTITION).unwrap_or((0, i64::from(i32::MAX)));
    let (low, high) = file.range(SOURCE_OFFSET).unwrap_or((i64::MIN, i64::MAX));
    wanted.iter().any(|(partition, offsets)| {
        let at = offsets.partition_point(|offset| *offset < low);
        (partitions.0..=partitions.1).contains(&i64::from(*partition))
            && offsets.get(at).is_some_and(|next| *next <= high)
    })
}
