//! Counting a request once, however often it is delivered.
//!
//! A request id is unique for its tenant, and no tenant is a tenant of its own: below, an id is the two together. It is
//! counted in the first raw version that delivers it finished, at the highest revision of that version (the row that the
//! view `requests` would choose among them). Deliveries in later versions are recognised while the id is in the index:
//! redeliveries, and corrections with a higher revision. Its state after raw version `v` is a function of the raw
//! versions up to `v` alone:
//!
//! - the clock `C(v)` is the latest moment at which any version up to `v` was committed, as the log says;
//! - the index holds the ids delivered in versions `from..=v`, with a hash of 128 bits each;
//! - before version `w` is read, `from` moves past each version `u` with `C(u) + horizon < C(w)`, and past the oldest
//!   ones while more than `keys_max` ids are held.
//!
//! So a second delivery that is committed within the horizon of the first is always recognised (unless `keys_max` ids
//! came between), whatever the clocks of the senders say and however far the partitions of a topic are apart. Memory is
//! bounded, and a restart that knows `from` and `C(from - 1)` rebuilds the very same index from raw.

use std::collections::hash_map::{Entry, RandomState};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::sync::LazyLock;

use arrow::array::{Array, AsArray, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Int32Type, Int64Type};
use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::FeaturesError;

/// The columns that the index reads.
pub(crate) const COLUMNS: [&str; 8] =
    ["tenant", "request_id", "revision", "terminal", "arrival_ms", "source_topic", "source_partition", "source_offset"];

/// The index, and what a restart needs to rebuild it.
#[derive(Debug)]
pub(crate) struct DedupeIndex {
    horizon_ms: i64,
    keys_max: usize,
    /// Each id's latest delivery.
    latest: HashMap<u128, Delivery, BuildHasherDefault<Hashed>>,
    versions: VecDeque<VersionKeys>,
    /// First version whose ids are held.
    from: i64,
    /// Clock before `from`.
    clock_before: i64,
    clock: i64,
}

/// The latest version that delivered an id, and the highest revision in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Delivery {
    version: i64,
    revision: i32,
    /// Its place among the ids of that version.
    slot: u32,
}

#[derive(Debug)]
struct VersionKeys {
    version: i64,
    clock: i64,
    /// Latest arrival of a finished row.
    newest_ms: Option<i64>,
    keys: Vec<u128>,
}

/// What a version's rows came to.
#[derive(Debug, Default)]
pub(crate) struct Admitted {
    pub(crate) batches: Vec<RecordBatch>,
    pub(crate) rows: u64,
    pub(crate) late: u64,
    /// Redeliveries.
    pub(crate) repeated: u64,
    /// Higher revisions of an id that an earlier version delivered.
    pub(crate) corrected: u64,
    pub(crate) unfinished: u64,
}

/// A row: its batch, and its place there.
#[derive(Debug, Clone, Copy)]
struct Place {
    batch: u32,
    row: u32,
}

/// What one version says of an id.
struct InVersion {
    /// The highest revision so far, and its row.
    revision: i32,
    place: Place,
    /// What an earlier version delivered.
    known: Option<i32>,
}

impl DedupeIndex {
    pub(crate) fn new(horizon_ms: i64, keys_max: usize, from: i64, clock_before: i64) -> Self {
        Self {
            horizon_ms,
            keys_max,
            latest: HashMap::default(),
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

    /// Takes in the rows of the next version, committed at `committed_ms`, and keeps those that count. A row is late when
    /// it arrived more than `late_after_ms` before the newest row of the versions that are held; it counts all the same.
    pub(crate) fn admit(
        &mut self,
        version: i64,
        committed_ms: i64,
        batches: &[RecordBatch],
        late_after_ms: i64,
    ) -> Result<Admitted, FeaturesError> {
        self.clock = self.clock.max(committed_ms);
        self.expire(version);
        let newest_before = self.versions.iter().filter_map(|held| held.newest_ms).max();
        let columns = batches.iter().map(Columns::of).collect::<Result<Vec<_>, _>>()?;
        let mut keys = VersionKeys { version, clock: self.clock, newest_ms: None, keys: Vec::new() };
        let mut admitted = Admitted::default();
        let mut rows = Vec::new();
        let mut hashed = Vec::new();
        for place in in_source_order(&columns) {
            let (of_batch, row) = (&columns[place.batch as usize], place.row as usize);
            if of_batch.is_unfinished(row) {
                admitted.unfinished += 1;
                continue;
            }
            keys.newest_ms = keys.newest_ms.max(Some(of_batch.arrivals.value(row)));
            rows.push((key_of(of_batch.tenant(row), of_batch.ids.value(row), &mut hashed), place));
        }
        // In the order of the table, which is larger than caches: each part of it is looked at once. Rows of one id stay in
        // the order of their source.
        self.latest.reserve(rows.len());
        let buckets = (self.latest.capacity() as u128 * 8 / 7).next_power_of_two();
        rows.sort_by_key(|(key, _)| key & (buckets - 1));
        keys.keys.reserve_exact(rows.len());
        let mut ids: Vec<InVersion> = Vec::with_capacity(rows.len());
        for (key, place) in rows {
            let (of_batch, row) = (&columns[place.batch as usize], place.row as usize);
            let revision = of_batch.revision(row);
            let delivery = Delivery { version, revision, slot: u32::try_from(ids.len()).unwrap_or(u32::MAX) };
            let known = match self.latest.entry(key) {
                Entry::Vacant(first) => {
                    first.insert(delivery);
                    admitted.rows += 1;
                    None
                }
                Entry::Occupied(mut before) if before.get().version != version => {
                    let known = before.insert(delivery).revision;
                    let count = if revision > known { &mut admitted.corrected } else { &mut admitted.repeated };
                    *count += 1;
                    Some(known)
                }
                Entry::Occupied(mut seen) => {
                    let of_id = &mut ids[seen.get().slot as usize];
                    let corrects = of_id.known.is_some_and(|before| revision > before.max(of_id.revision));
                    let count = if corrects { &mut admitted.corrected } else { &mut admitted.repeated };
                    *count += 1;
                    let before = &columns[of_id.place.batch as usize];
                    let same_partition = of_batch.partition(row) == before.partition(of_id.place.row as usize);
                    // The order of the view `requests`: the higher revision; of one, the later delivery in its partition.
                    if revision > of_id.revision || (revision == of_id.revision && same_partition) {
                        (of_id.revision, of_id.place) = (revision, place);
                        seen.get_mut().revision = revision;
                    }
                    continue;
                }
            };
            ids.push(InVersion { revision, place, known });
            keys.keys.push(key);
        }
        let mut keep: Vec<Vec<bool>> = batches.iter().map(|batch| vec![false; batch.num_rows()]).collect();
        for InVersion { place, known, .. } in ids {
            if known.is_none() {
                let (batch, row) = (place.batch as usize, place.row as usize);
                keep[batch][row] = true;
                let arrival_ms = columns[batch].arrivals.value(row);
                let late = newest_before.is_some_and(|newest| arrival_ms < newest.saturating_sub(late_after_ms));
                admitted.late += u64::from(late);
            }
        }
        self.versions.push_back(keys);
        for (batch, keep) in batches.iter().zip(keep) {
            let kept = match keep.iter().filter(|keep| **keep).count() {
                0 => continue,
                all if all == batch.num_rows() => batch.clone(),
                _ => filter_record_batch(batch, &BooleanArray::from(keep))?,
            };
            admitted.batches.push(kept);
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
                if self.latest.get(&key).is_some_and(|delivery| delivery.version == oldest.version) {
                    self.latest.remove(&key);
                }
            }
            self.clock_before = oldest.clock;
            self.from = self.versions.front().map_or(next_version, |next| next.version);
        }
    }
}

/// The columns of one batch.
struct Columns<'a> {
    tenants: &'a StringArray,
    ids: &'a StringArray,
    revisions: &'a Int32Array,
    terminal: &'a BooleanArray,
    arrivals: &'a Int64Array,
    topics: &'a StringArray,
    partitions: &'a Int32Array,
    offsets: &'a Int64Array,
}

impl<'a> Columns<'a> {
    fn of(batch: &'a RecordBatch) -> Result<Self, FeaturesError> {
        Ok(Self {
            tenants: column(batch, "tenant")?.as_string(),
            ids: column(batch, "request_id")?.as_string(),
            revisions: column(batch, "revision")?.as_primitive::<Int32Type>(),
            terminal: column(batch, "terminal")?.as_boolean(),
            arrivals: column(batch, "arrival_ms")?.as_primitive::<Int64Type>(),
            topics: column(batch, "source_topic")?.as_string(),
            partitions: column(batch, "source_partition")?.as_primitive::<Int32Type>(),
            offsets: column(batch, "source_offset")?.as_primitive::<Int64Type>(),
        })
    }

    fn is_unfinished(&self, row: usize) -> bool {
        self.terminal.is_valid(row) && !self.terminal.value(row)
    }

    /// Null is 0.
    fn revision(&self, row: usize) -> i32 {
        if self.revisions.is_valid(row) { self.revisions.value(row) } else { 0 }
    }

    fn tenant(&self, row: usize) -> Option<&'a str> {
        self.tenants.is_valid(row).then(|| self.tenants.value(row))
    }

    fn partition(&self, row: usize) -> (&'a str, i32) {
        (self.topics.value(row), self.partitions.value(row))
    }

    fn source(&self, row: usize) -> (&'a str, i32, i64) {
        (self.topics.value(row), self.partitions.value(row), self.offsets.value(row))
    }
}

fn in_source_order(columns: &[Columns<'_>]) -> Vec<Place> {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let rows = |(batch, columns): (usize, &Columns<'_>)| {
        (0..columns.ids.len()).map(move |row| Place { batch: number(batch), row: number(row) })
    };
    let mut places: Vec<Place> = columns.iter().enumerate().flat_map(rows).collect();
    let source = |place: &Place| columns[place.batch as usize].source(place.row as usize);
    // It mostly comes sorted. The sort is stable for rows that say nothing about their source.
    if !places.is_sorted_by_key(source) {
        places.sort_by_key(source);
    }
    places
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a dyn Array, FeaturesError> {
    batch.column_by_name(name).map(AsRef::as_ref).ok_or_else(|| FeaturesError::BadRawTable {
        table: "requests".to_owned(),
        why: format!("it lacks column {name}"),
    })
}

/// So that nobody outside can choose ids that collide.
static SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0));

/// 128 bits: among a million live ids two collide with a probability of about 1e-27. Only this process sees the hash.
fn key_of(tenant: Option<&str>, request_id: &str, hashed: &mut Vec<u8>) -> u128 {
    hashed.clear();
    // The length keeps ("a", "bc") and ("ab", "c") apart, and no tenant from the one with an empty name.
    let length = tenant.map_or(u64::MAX, |tenant| tenant.len() as u64);
    hashed.extend_from_slice(&length.to_le_bytes());
    hashed.extend_from_slice(tenant.unwrap_or_default().as_bytes());
    hashed.extend_from_slice(request_id.as_bytes());
    xxh3_128_with_seed(hashed, *SEED)
}

/// A key is a hash already.
#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int32Array, Int64Array, StringArray};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const HORIZON_MS: i64 = 100;

    /// One delivery: (id, arrival, revision, still running).
    type Delivered = (u8, i64, Option<i32>, bool);

    fn finished(id: u8, arrival_ms: i64) -> Delivered {
        (id, arrival_ms, None, false)
    }

    /// One raw version, its rows in order of their offsets.
    fn version(rows: &[Delivered]) -> Vec<RecordBatch> {
        version_of(None, rows)
    }

    fn version_of(tenant: Option<&str>, rows: &[Delivered]) -> Vec<RecordBatch> {
        let columns: [(&str, ArrayRef); 8] = [
            ("tenant", Arc::new(StringArray::from_iter(rows.iter().map(|_| tenant)))),
            ("request_id", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0.to_string())))),
            ("revision", Arc::new(Int32Array::from_iter(rows.iter().map(|row| row.2)))),
            ("arrival_ms", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1)))),
            ("terminal", Arc::new(BooleanArray::from_iter(rows.iter().map(|row| (row.3).then_some(false))))),
            ("source_topic", Arc::new(StringArray::from_iter_values(rows.iter().map(|_| "requests")))),
            ("source_partition", Arc::new(Int32Array::from(vec![0i32; rows.len()]))),
            ("source_offset", Arc::new(Int64Array::from_iter_values(0..rows.len() as i64))),
        ];
        vec![
            RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).expect("fits"),
        ]
    }

    fn counted(admitted: &Admitted) -> (u64, u64, u64, u64) {
        (admitted.rows, admitted.repeated, admitted.corrected, admitted.unfinished)
    }

    const NEW: (u64, u64, u64, u64) = (1, 0, 0, 0);
    const REPEATED: (u64, u64, u64, u64) = (0, 1, 0, 0);
    const CORRECTED: (u64, u64, u64, u64) = (0, 0, 1, 0);

    #[test]
    fn an_id_is_known_for_the_horizon_and_forgotten_after_it() {
        let mut index = DedupeIndex::new(HORIZON_MS, 1000, 0, 0);
        let mut admit = |at, committed_ms, id| {
            counted(&index.admit(at, committed_ms, &version(&[finished(id, 5)]), 0).expect("has its columns"))
        };
        assert_eq!(admit(0, 1_000, 1), NEW);
        assert_eq!(admit(1, 1_100, 1), REPEATED, "committed at the end of the horizon");
        assert_eq!(admit(2, 1_200, 1), REPEATED, "each delivery is remembered for the horizon");
        assert_eq!(admit(3, 1_301, 1), NEW, "a repeat after the horizon counts again");
    }

    #[test]
    fn partitions_that_are_hours_apart_do_not_make_each_other_forget() {
        let (hour_ms, mut index) = (3_600_000, DedupeIndex::new(3_600_000, 1000, 0, 0));
        let mut admit = |at, row| counted(&index.admit(at, at * 1_000, &version(&[row]), 0).expect("has its columns"));
        assert_eq!(admit(0, finished(1, 0)), NEW);
        assert_eq!(admit(1, finished(2, 2 * hour_ms)), NEW, "another partition of the backlog is ahead");
        assert_eq!(admit(2, finished(3, i64::MAX)), NEW, "a clock is broken");
        assert_eq!(admit(3, finished(1, 0)), REPEATED, "two seconds later");
    }

    #[test]
    fn the_highest_revision_of_a_version_counts_whatever_its_place() {
        for rows in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 2, 2]] {
            let mut index = DedupeIndex::new(HORIZON_MS, 1000, 0, 0);
            let deliveries: Vec<Delivered> = rows.iter().map(|revision| (1, 5, Some(*revision), false)).collect();
            let admitted = index.admit(0, 0, &version(&deliveries), 0).expect("has its columns");
            assert_eq!(counted(&admitted), (1, 2, 0, 0), "{rows:?}");
            let kept = column(&admitted.batches[0], "source_offset").expect("is there").as_primitive::<Int64Type>();
            let last_of_highest = rows.iter().rposition(|revision| *revision == 2).expect("is there");
            assert_eq!(kept.values(), &[last_of_highest as i64], "{rows:?}");
        }
    }

    #[test]
    fn corrections_in_later_versions_are_told_from_redeliveries() {
        let mut index = DedupeIndex::new(HORIZON_MS, 1000, 0, 0);
        let mut admit = |at, revision| {
            counted(&index.admit(at, 0, &version(&[(1, 5, revision, false)]), 0).expect("has its columns"))
        };
        assert_eq!(admit(0, None), NEW);
        assert_eq!(admit(1, Some(0)), REPEATED, "no revision is revision 0");
        assert_eq!(admit(2, Some(1)), CORRECTED);
        assert_eq!(admit(3, Some(1)), REPEATED, "the correction came twice");
        assert_eq!(admit(4, None), REPEATED);
    }

    #[test]
    fn the_same_id_of_another_tenant_is_another_request() {
        let mut index = DedupeIndex::new(HORIZON_MS, 1000, 0, 0);
        let mut admit = |at, tenant| {
            counted(&index.admit(at, 0, &version_of(tenant, &[finished(1, 5)]), 0).expect("has its columns"))
        };
        assert_eq!(admit(0, Some("acme")), NEW);
        assert_eq!(admit(1, None), NEW, "no tenant is a tenant of its own");
        assert_eq!(admit(2, Some("")), NEW, "an empty name is not a missing one");
        assert_eq!(admit(3, Some("acme")), REPEATED);
        assert_eq!(admit(4, None), REPEATED);
    }

    #[test]
    fn memory_is_bounded_by_live_keys_even_when_a_clock_runs_ahead() {
        let mut index = DedupeIndex::new(HORIZON_MS, 10, 0, 0);
        index.admit(0, i64::MAX, &version(&[finished(0, 1_000)]), 0).expect("has its columns");
        for at in 1..100 {
            index.admit(at, 1_000, &version(&[finished(at as u8, 1_000)]), 0).expect("has its columns");
            assert!(index.latest.len() <= 11, "{} ids are held", index.latest.len());
        }
    }

    /// What is known of each id. The slot is of use while its version is read.
    fn held(index: &DedupeIndex) -> HashMap<u128, (i64, i32)> {
        index.latest.iter().map(|(key, delivery)| (*key, (delivery.version, delivery.revision))).collect()
    }

    proptest! {
        // The index of one long life is the other implementation here. Commit clocks may jump back.
        #[test]
        fn an_index_rebuilt_at_any_version_decides_as_the_one_that_lived(
            versions in vec(
                (0i64..600, vec((0u8..10, 0i64..600, prop::option::of(0i32..3), prop::bool::weighted(0.1)), 0..5)),
                1..20,
            ),
            keys_max in 2usize..12,
        ) {
            let mut lived = DedupeIndex::new(HORIZON_MS, keys_max, 0, 0);
            for at in 0..versions.len() {
                let (from, clock) = lived.resume_point();
                let mut rebuilt = DedupeIndex::new(HORIZON_MS, keys_max, from, clock);
                let before = versions.iter().enumerate().take(at).skip(usize::try_from(from).expect("small"));
                for (seen, (committed_ms, rows)) in before {
                    rebuilt.admit(seen as i64, *committed_ms, &version(rows), 0).expect("has its columns");
                }
                let (committed_ms, rows) = (versions[at].0, version(&versions[at].1));
                let here = lived.admit(at as i64, committed_ms, &rows, 0).expect("has its columns");
                let there = rebuilt.admit(at as i64, committed_ms, &rows, 0).expect("has its columns");
                prop_assert_eq!(counted(&here), counted(&there), "version {}", at);
                prop_assert_eq!(here.late, there.late);
                prop_assert_eq!(here.batches, there.batches);
                prop_assert_eq!(lived.resume_point(), rebuilt.resume_point());
                prop_assert_eq!(held(&lived), held(&rebuilt));
            }
        }
    }
}
