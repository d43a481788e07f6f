//! Small files into large ones, with the same rows.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use deltalake::datafile::writer::DeltaWriter;
use deltalake::kernel::Add;
use deltalake::protocol::DeltaOperation;

use super::{DataFile, Upkeep, Upkept};
use crate::commit::{Change, Removes};
use crate::day::now_ms;
use crate::table::Table;
use crate::{Result, StoreError, UtcDay};

/// Files of a day that is not over are merged when there are so many: each row is then rewritten a few times, not once a
/// round.
const OPEN_DAY_FILES_MIN: usize = 8;

impl Table {
    pub(super) async fn merge_small_files(
        &mut self,
        files: Vec<DataFile>,
        upkeep: &Upkeep,
        done: &mut Upkept,
    ) -> Result<()> {
        for group in plan(files, upkeep, now_ms()) {
            let started = Instant::now();
            let bytes: u64 = group.iter().map(|file| file.bytes).sum();
            done.merged_files += group.len() as u64;
            done.merged_bytes += bytes;
            if upkeep.dry_run {
                continue;
            }
            let (adds, rows) = self.rewrite(&group).await?;
            done.written_files += adds.len() as u64;
            done.merged_rows += rows;
            let removes = group.iter().map(|file| file.removal(false)).collect();
            let target_size = i64::try_from(upkeep.target_file_bytes).unwrap_or(i64::MAX);
            let operation = DeltaOperation::Optimize { predicate: None, target_size };
            self.land_plan(Change { operation, adds, removes: Some(Removes::These(removes)), metadata: None }).await?;
            if let Some(bytes_per_s) = upkeep.bytes_per_s.filter(|rate| *rate > 0) {
                let should_take = Duration::from_secs_f64(bytes as f64 / bytes_per_s as f64);
                tokio::time::sleep(should_take.saturating_sub(started.elapsed())).await;
            }
        }
        Ok(())
    }

    /// The rows of the files in new ones. In memory are one small file as it is stored, one batch of its rows, and what the
    /// writer buffers.
    async fn rewrite(&self, group: &[DataFile]) -> Result<(Vec<Add>, u64)> {
        let mut writer = self.file_writer();
        let mut rows_read = 0;
        for file in group {
            match self.copy_rows(file, &mut writer).await {
                Ok(rows) => rows_read += rows,
                Err(error) => {
                    // Best effort: what stays behind is unreferenced.
                    writer.abort().await.ok();
                    return Err(error);
                }
            }
        }
        let adds = writer.close().await.map_err(|error| StoreError::delta(&self.name, error))?;
        let rows_written: u64 = adds.iter().map(rows_of).sum();
        if rows_written != rows_read {
            let why = format!("merging read {rows_read} rows and wrote {rows_written}; nothing was changed");
            return Err(StoreError::bad_commit(&self.name, why));
        }
        let adds = adds.into_iter().map(|add| Add { data_change: false, ..add }).collect();
        Ok((adds, rows_read))
    }

    async fn copy_rows(&self, file: &DataFile, writer: &mut DeltaWriter) -> Result<u64> {
        let mut rows = 0;
        for batch in self.read_file_in_steps(&file.location, &file.values, &self.schema).await? {
            let batch = batch?;
            rows += batch.num_rows() as u64;
            writer.write(&batch).await.map_err(|error| StoreError::delta(&self.name, error))?;
        }
        Ok(rows)
    }
}

fn rows_of(add: &Add) -> u64 {
    let stats: Option<serde_json::Value> = add.stats.as_deref().and_then(|stats| serde_json::from_str(stats).ok());
    stats.and_then(|stats| stats["numRecords"].as_u64()).unwrap_or(0)
}

/// Which files become one, oldest first. Every group holds at least two files of one partition.
fn plan(files: Vec<DataFile>, upkeep: &Upkeep, now_ms: i64) -> Vec<Vec<DataFile>> {
    let today = UtcDay::of_ms(now_ms);
    let settled_ms = now_ms.saturating_sub(i64::try_from(upkeep.settle.as_millis()).unwrap_or(i64::MAX));
    let mut partitions: BTreeMap<_, Vec<DataFile>> = BTreeMap::new();
    for file in files {
        let is_over = file.day().is_some_and(|day| day < today);
        if file.bytes < upkeep.target_file_bytes / 2 && (is_over || file.modified_ms <= settled_ms) {
            partitions.entry((file.values.clone(), is_over)).or_default().push(file);
        }
    }
    let mut groups = Vec::new();
    for ((_, is_over), mut small) in partitions {
        small.sort_by(|a, b| (a.modified_ms, &a.location).cmp(&(b.modified_ms, &b.location)));
        let least = if is_over { 2 } else { OPEN_DAY_FILES_MIN };
        let mut group: Vec<DataFile> = Vec::new();
        let mut bytes = 0;
        for file in small {
            if bytes + file.bytes > upkeep.target_file_bytes {
                groups.push(std::mem::take(&mut group));
                bytes = 0;
            }
            bytes += file.bytes;
            group.push(file);
        }
        if group.len() >= least {
            groups.push(group);
        }
    }
    groups.retain(|group| group.len() >= 2);
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(day: &str, name: u64, bytes: u64, modified_ms: i64) -> DataFile {
        DataFile {
            location: format!("event_date={day}/{name}.parquet").into(),
            values: [("event_date".to_owned(), Some(day.to_owned()))].into(),
            bytes,
            modified_ms,
            remove: Default::default(),
        }
    }

    /// 2024-01-02, noon.
    const NOW_MS: i64 = 1_704_196_800_000;
    const HOUR_MS: i64 = 3_600_000;

    fn upkeep() -> Upkeep {
        Upkeep { target_file_bytes: 100, ..Upkeep::default() }
    }

    #[test]
    fn days_that_are_over_are_merged_and_today_only_when_it_has_settled() {
        let yesterday = (0..3).map(|name| file("2024-01-01", name, 10, NOW_MS));
        let fresh = (0..20).map(|name| file("2024-01-02", name, 10, NOW_MS - HOUR_MS / 2));
        let groups = plan(yesterday.chain(fresh).collect(), &upkeep(), NOW_MS);
        assert_eq!(groups.len(), 1, "{groups:?}");
        assert!(groups[0].iter().all(|file| file.values["event_date"].as_deref() == Some("2024-01-01")));

        let settled = |files: u64| (0..files).map(|name| file("2024-01-02", name, 10, NOW_MS - 2 * HOUR_MS)).collect();
        assert_eq!(plan(settled(7), &upkeep(), NOW_MS), Vec::<Vec<DataFile>>::new(), "too few to be worth it");
        assert_eq!(plan(settled(8), &upkeep(), NOW_MS).len(), 1);
    }

    #[test]
    fn no_file_is_in_two_groups_and_groups_keep_to_the_size() {
        // Sizes by a linear congruence, so that the case is the same every time.
        let sizes = (0..400_u64).map(|step| (step * 37 + 11) % 60);
        let files: Vec<_> = sizes
            .enumerate()
            .map(|(name, bytes)| file(if name % 3 == 0 { "2023-12-30" } else { "2023-12-31" }, name as u64, bytes, 0))
            .collect();
        let groups = plan(files.clone(), &upkeep(), NOW_MS);
        let mut merged: Vec<_> = groups.iter().flatten().map(|file| file.location.clone()).collect();
        let all = merged.len();
        merged.sort();
        merged.dedup();
        assert_eq!(merged.len(), all);
        for group in &groups {
            assert!(group.len() >= 2);
            assert!(group.iter().map(|file| file.bytes).sum::<u64>() <= 100);
            assert!(group.iter().all(|file| file.values == group[0].values && file.bytes < 50));
        }
        let small = files.iter().filter(|file| file.bytes < 50).count();
        assert!(all >= small - 4, "at most a last one and a single one a day stay: {all} of {small}");
    }
}
