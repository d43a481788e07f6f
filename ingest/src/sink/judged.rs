//! Which messages that are read again have a dead letter.
//!
//! A process that dies between the commit of its dead letters and that of its rows leaves the position of the letters ahead.
//! The messages in between are read again, perhaps with another configuration, version or registry, and some that were good
//! are bad now: they get a letter below the position, where no movement of the position fences others off. So commits with
//! such letters are counted: the count, `<position>/again`, is compared and set in the same commit. It is read from the same
//! version of the table as the letters, so of two processes that found the same letters missing one adds them, and the other
//! is fenced and looks again.

use std::collections::BTreeSet;
use std::ops::Range;

use arrow::array::AsArray;
use arrow::datatypes::{Int32Type, Int64Type};
use weir_store::{Advance, LiveFile, Table};

use crate::tables::{DEAD_LETTERS, SOURCE_OFFSET, SOURCE_PARTITION, SOURCE_TOPIC};
use crate::{IngestError, Result};

/// What is in `dead_letters` about offsets of one partition, as of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Before {
    /// Those that have a letter.
    letters: BTreeSet<i64>,
    /// Commits with letters below the position, so far.
    added: Option<i64>,
}

/// One more such commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Added {
    expected: Option<i64>,
    next: i64,
}

impl Before {
    /// Reads it from the table as it is known. `app_id` is the partition's position. Reads only files whose offsets can be
    /// meant.
    pub(super) async fn of(
        table: &Table,
        app_id: &str,
        topic: &str,
        partition: i32,
        offsets: Range<i64>,
    ) -> Result<Self> {
        let may_hold = |file: &&LiveFile| {
            let holds = |column, low: i64, high: i64| {
                file.range(column).is_none_or(|(lowest, highest)| lowest <= high && highest >= low)
            };
            holds(SOURCE_PARTITION, partition.into(), partition.into())
                && holds(SOURCE_OFFSET, offsets.start, offsets.end - 1)
        };
        let mut letters = BTreeSet::new();
        for file in table.live_files().await?.iter().filter(may_hold) {
            for batch in table.live_rows(file, &[SOURCE_TOPIC, SOURCE_PARTITION, SOURCE_OFFSET]).await? {
                let batch = batch?;
                let column = |name: &str| {
                    let lacks = || IngestError::Batch { table: DEAD_LETTERS, why: format!("it has no column {name}") };
                    batch.column_by_name(name).ok_or_else(lacks)
                };
                let topics = column(SOURCE_TOPIC)?.as_string::<i32>();
                let partitions = column(SOURCE_PARTITION)?.as_primitive::<Int32Type>();
                let found = column(SOURCE_OFFSET)?.as_primitive::<Int64Type>();
                let is_meant = |row: &usize| {
                    partitions.value(*row) == partition
                        && offsets.contains(&found.value(*row))
                        && topics.value(*row) == topic
                };
                letters.extend((0..batch.num_rows()).filter(is_meant).map(|row| found.value(row)));
            }
        }
        Ok(Self { letters, added: table.position(&again(app_id)).await? })
    }

    pub(super) fn has_letter(&self, offset: i64) -> bool {
        self.letters.contains(&offset)
    }

    pub(super) fn added(&self) -> Added {
        Added { expected: self.added, next: self.added.unwrap_or(0) + 1 }
    }

    pub(super) fn committed(&mut self) {
        self.added = Some(self.added().next);
    }

    #[cfg(test)]
    pub(super) fn new(letters: impl IntoIterator<Item = i64>) -> Self {
        Self { letters: letters.into_iter().collect(), added: None }
    }
}

impl Added {
    /// The compare-and-set, beside the partition's position.
    pub(super) fn advance(self, app_id: &str) -> Advance {
        Advance { app_id: again(app_id), expected: self.expected, next: self.next }
    }
}

/// No job, topic or partition is called so that its position could have this name.
fn again(app_id: &str) -> String {
    format!("{app_id}/again")
}
