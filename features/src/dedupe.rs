//! Counting a request once, however often it is delivered.
//!
//! A request id is unique for its tenant, and no tenant is a tenant of its own: below, an id is the two together. It is
//! counted at its first finished delivery. Later deliveries (a redelivery, a correction with a higher
//! revision) are recognised while the id is in the index. Its state after raw version `v` is a function of the raw
//! versions up to `v` alone:
//!
//! - the clock `C(v)` is the latest event time of any finished row up to `v` (0 before the first);
//! - the index holds the ids delivered in versions `from..=v`, with a hash of 128 bits each;
//! - before version `w` is read, `from` moves past each version `u` with `C(u) + horizon < C(w - 1)`, and past the
//!   oldest ones while more than `keys_max` ids are held.
//!
//! So a second delivery within the horizon of event time is always recognised (unless `keys_max` ids came between),
//! memory is bounded, and a restart that knows `from` and `C(from - 1)` rebuilds the very same index from raw.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Int32Type, Int64Type};

use crate::FeaturesError;

/// The index, and what a restart needs to rebuild it.
#[derive(Debug)]
pub(crate) struct DedupeIndex {
    horizon_ms: i64,
    keys_max: usize,
    /// Each id's latest version.
    latest: HashMap<u128, i64>,
    versions: VecDeque<VersionKeys>,
    /// First version whose ids are held.
    from: i64,
    /// Clock before `from`.
    clock_before: i64,
    clock: i64,
}

#[derive(Debug)]
struct VersionKeys {
    version: i64,
    clock: i64,
    keys: Vec<u128>,
}

/// What a version's rows came to.
#[derive(Debug, Default)]
pub(crate) struct Admitted {
    pub(crate) batches: Vec<RecordBatch>,
    pub(crate) rows: u64,
    pub(crate) late: u64,
    pub(crate) repeated: u64,
    pub(crate) unfinished: u64,
}

/// One row as the index sees it: where it came from decides which of two deliveries in one version is the first.
struct Row<'a> {
    source: (&'a str, i32, i64),
    batch: usize,
    row: usize,
}

impl DedupeIndex {
    pub(crate) fn new(horizon_ms: i64, keys_max: usize, from: i64, clock_before: i64) -> Self {
        Self {
            horizon_ms,
            keys_max,
            latest: HashMap::new(),
            versions: VecDeque::new(),
            from,
            clock_before,
            clock: clock_before,
        }
    }

    /// First version whose ids are held, and the clock before it.
    pub(crate) fn resume_point(&self) -> (i64, i64) {
        (self.from, self.clock_before)
    }

    /// Takes in the rows of the next version and keeps those that count. A row is late when it arrived more than
    /// `late_after_ms` before the clock; it counts all the same.
    pub(crate) fn admit(
        &mut self,
        version: i64,
        batches: &[RecordBatch],
        late_after_ms: i64,
    ) -> Result<Admitted, FeaturesError> {
        self.expire(version);
        let mut admitted = Admitted::default();
        let mut keys = VersionKeys { version, clock: self.clock, keys: Vec::new() };
        let mut keep: Vec<Vec<bool>> = batches.iter().map(|batch| vec![false; batch.num_rows()]).collect();
        for row in in_source_order(batches)? {
            let batch = &batches[row.batch];
            let terminal = column(batch, "terminal")?.as_boolean();
            if terminal.is_valid(row.row) && !terminal.value(row.row) {
                admitted.unfinished += 1;
                continue;
            }
            let arrival_ms = column(batch, "arrival_ms")?.as_primitive::<Int64Type>().value(row.row);
            keys.clock = keys.clock.max(arrival_ms);
            let tenants = column(batch, "tenant")?.as_string::<i32>();
            let tenant = tenants.is_valid(row.row).then(|| tenants.value(row.row));
            let key = key_of(tenant, column(batch, "request_id")?.as_string::<i32>().value(row.row));
            let before = self.latest.insert(key, version);
            if before != Some(version) {
                keys.keys.push(key);
            }
            if before.is_some() {
                admitted.repeated += 1;
                continue;
            }
            keep[row.batch][row.row] = true;
            admitted.rows += 1;
            admitted.late += u64::from(arrival_ms < self.clock.saturating_sub(late_after_ms));
        }
        self.clock = keys.clock;
        self.versions.push_back(keys);
        for (batch, keep) in batches.iter().zip(keep) {
            let kept = filter_record_batch(batch, &BooleanArray::from(keep))?;
            if kept.num_rows() > 0 {
                admitted.batches.push(kept);
            }
        }
        Ok(admitted)
    }

    fn expire(&mut self, next_version: i64) {
        while let Some(oldest) = self.versions.front() {
            let outlived = oldest.clock.saturating_add(self.horizon_ms) < self.clock;
            if !outlived && self.latest.len() <= self.keys_max {
                return;
            }
            let Some(oldest) = self.versions.pop_front() else { return };
            for key in oldest.keys {
                if self.latest.get(&key) == Some(&oldest.version) {
                    self.latest.remove(&key);
                }
            }
            self.clock_before = oldest.clock;
            self.from = self.versions.front().map_or(next_version, |next| next.version);
        }
    }
}

fn in_source_order(batches: &[RecordBatch]) -> Result<Vec<Row<'_>>, FeaturesError> {
    let mut rows = Vec::with_capacity(batches.iter().map(RecordBatch::num_rows).sum());
    for (index, batch) in batches.iter().enumerate() {
        let topics = column(batch, "source_topic")?.as_string::<i32>();
        let partitions = column(batch, "source_partition")?.as_primitive::<Int32Type>();
        let offsets = column(batch, "source_offset")?.as_primitive::<Int64Type>();
        rows.extend((0..batch.num_rows()).map(|row| Row {
            source: (topics.value(row), partitions.value(row), offsets.value(row)),
            batch: index,
            row,
        }));
    }
    // Nearly sorted as it comes; the sort is stable for rows that say nothing about their source.
    rows.sort_by_key(|row| row.source);
    Ok(rows)
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a dyn Array, FeaturesError> {
    batch.column_by_name(name).map(AsRef::as_ref).ok_or_else(|| FeaturesError::BadRawTable {
        table: "requests".to_owned(),
        why: format!("it lacks column {name}"),
    })
}

/// 128 bits: among a million live ids two collide with a probability of about 1e-27. Only this process sees the hash.
fn key_of(tenant: Option<&str>, request_id: &str) -> u128 {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        hasher.write_u8(salt);
        (tenant, request_id).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int32Array, Int64Array, StringArray};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const HORIZON_MS: i64 = 100;

    /// One raw version: (id, arrival, still running).
    fn version(rows: &[(u8, i64, bool)]) -> Vec<RecordBatch> {
        version_of(None, rows)
    }

    fn version_of(tenant: Option<&str>, rows: &[(u8, i64, bool)]) -> Vec<RecordBatch> {
        let source = vec![0i32; rows.len()];
        let columns: [(&str, ArrayRef); 7] = [
            ("tenant", Arc::new(StringArray::from_iter(rows.iter().map(|_| tenant)))),
            ("request_id", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0.to_string())))),
            ("arrival_ms", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1)))),
            ("terminal", Arc::new(BooleanArray::from_iter(rows.iter().map(|row| (row.2).then_some(false))))),
            ("source_topic", Arc::new(StringArray::from_iter_values(rows.iter().map(|_| "requests")))),
            ("source_partition", Arc::new(Int32Array::from(source))),
            ("source_offset", Arc::new(Int64Array::from_iter_values(0..rows.len() as i64))),
        ];
        vec![RecordBatch::try_from_iter(columns).expect("columns of one length")]
    }

    fn counted(admitted: &Admitted) -> (u64, u64, u64) {
        (admitted.rows, admitted.repeated, admitted.unfinished)
    }

    #[test]
    fn an_id_is_known_for_the_horizon_and_forgotten_after_it() {
        let mut index = DedupeIndex::new(HORIZON_MS, 1000, 0, 0);
        let mut admit = |at, row| counted(&index.admit(at, &version(&[row]), 0).expect("has its columns"));
        assert_eq!(admit(0, (1, 1_000, false)), (1, 0, 0));
        assert_eq!(admit(1, (2, 1_100, false)), (1, 0, 0), "the clock moves to the end of the horizon");
        assert_eq!(admit(2, (1, 1_000, false)), (0, 1, 0), "a repeat within the horizon");
        assert_eq!(admit(3, (3, 1_300, false)), (1, 0, 0));
        assert_eq!(admit(4, (1, 1_000, false)), (1, 0, 0), "a repeat after the horizon counts again");
    }

    #[test]
    fn the_same_id_of_another_tenant_is_another_request() {
        let mut index = DedupeIndex::new(HORIZON_MS, 1000, 0, 0);
        let mut admit =
            |at, tenant| counted(&index.admit(at, &version_of(tenant, &[(1, 5, false)]), 0).expect("has its columns"));
        assert_eq!(admit(0, Some("acme")), (1, 0, 0));
        assert_eq!(admit(1, None), (1, 0, 0), "no tenant is a tenant of its own");
        assert_eq!(admit(2, Some("")), (1, 0, 0), "an empty name is not a missing one");
        assert_eq!(admit(3, Some("acme")), (0, 1, 0));
        assert_eq!(admit(4, None), (0, 1, 0));
    }

    #[test]
    fn memory_is_bounded_by_live_keys_even_when_a_clock_runs_ahead() {
        let mut index = DedupeIndex::new(HORIZON_MS, 10, 0, 0);
        index.admit(0, &version(&[(0, i64::MAX, false)]), 0).expect("has its columns");
        for at in 1..100 {
            index.admit(at, &version(&[(at as u8, 1_000, false)]), 0).expect("has its columns");
            assert!(index.latest.len() <= 11, "{} ids are held", index.latest.len());
        }
    }

    proptest! {
        // The index of one long life is the other implementation here.
        #[test]
        fn an_index_rebuilt_at_any_version_decides_as_the_one_that_lived(
            versions in vec(vec((0u8..10, 0i64..600, prop::bool::weighted(0.1)), 0..5), 1..20),
            keys_max in 2usize..12,
        ) {
            let mut lived = DedupeIndex::new(HORIZON_MS, keys_max, 0, 0);
            for at in 0..versions.len() {
                let (from, clock) = lived.resume_point();
                let mut rebuilt = DedupeIndex::new(HORIZON_MS, keys_max, from, clock);
                for (seen, rows) in versions.iter().enumerate().take(at).skip(usize::try_from(from).expect("small")) {
                    rebuilt.admit(seen as i64, &version(rows), 0).expect("has its columns");
                }
                let rows = version(&versions[at]);
                let here = lived.admit(at as i64, &rows, 0).expect("has its columns");
                let there = rebuilt.admit(at as i64, &rows, 0).expect("has its columns");
                prop_assert_eq!(counted(&here), counted(&there), "version {}", at);
                prop_assert_eq!(here.late, there.late);
                prop_assert_eq!(lived.resume_point(), rebuilt.resume_point());
                prop_assert_eq!(&lived.latest, &rebuilt.latest);
            }
        }
    }
}
