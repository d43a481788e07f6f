//! Upkeep against real Delta logs: the same rows before and after, whoever writes, follows or dies meanwhile.

mod faulty;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use arrow::array::{AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use faulty::{Fault, Faulty};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use url::Url;
use weir_store::{Advance, Store, StoreError, Table, TableSpec, Upkeep, Upkept, UtcDay};

fn spec() -> TableSpec {
    let schema = Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("note", DataType::Utf8, true),
        Field::new("event_date", DataType::Utf8, false),
    ]);
    TableSpec { name: "events".to_owned(), schema: Arc::new(schema), partition_by: Some("event_date".to_owned()) }
}

/// Rows of a day so many days ago.
fn rows(ids: std::ops::Range<i64>, days_ago: u32) -> RecordBatch {
    let day = UtcDay::today().minus_days(days_ago).to_string();
    let batch = RecordBatch::try_from_iter_with_nullable([
        ("id", Arc::new(Int64Array::from_iter_values(ids.clone())) as _, false),
        (
            "note",
            Arc::new(StringArray::from_iter(ids.clone().map(|id| (id % 3 > 0).then(|| format!("note {id}"))))) as _,
            true,
        ),
        ("event_date", Arc::new(StringArray::from_iter_values(ids.map(|_| day.as_str()))) as _, false),
    ]);
    batch.unwrap()
}

fn advance(app_id: &str, step: i64) -> Vec<Advance> {
    vec![Advance { app_id: app_id.to_owned(), expected: (step > 0).then_some(step), next: step + 1 }]
}

/// What a reader of the newest version sees, from its files: day, id, note.
async fn contents(store: &Store) -> Vec<(String, i64, Option<String>)> {
    let table = store.existing("events").await.unwrap().unwrap();
    let delta = table.delta().await.unwrap();
    let mut found = Vec::new();
    for file in delta.snapshot().unwrap().log_data().iter() {
        let path = file.object_store_path();
        let day = path.as_ref().split(['=', '/']).nth(1).unwrap().to_owned();
        let bytes = store.get(&format!("tables/events/{path}")).await.unwrap().expect("a named file is there");
        for batch in ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap() {
            let batch = batch.unwrap();
            let ids = batch.column_by_name("id").unwrap().as_primitive::<Int64Type>().values().to_vec();
            let notes = batch.column_by_name("note").unwrap().as_string::<i32>().iter();
            found.extend(ids.into_iter().zip(notes).map(|(id, note)| (day.clone(), id, note.map(str::to_owned))));
        }
    }
    found.sort();
    found
}

/// The rows that the versions appended, as a follower reads them.
async fn followed(store: &Store, through: i64) -> Vec<i64> {
    let table = store.existing("events").await.unwrap().unwrap();
    let mut ids = Vec::new();
    for version in 1..=through {
        for batch in table.appended(version).await.unwrap() {
            ids.extend(batch.column_by_name("id").unwrap().as_primitive::<Int64Type>().values());
        }
    }
    ids.sort_unstable();
    ids
}

async fn files(store: &Store) -> usize {
    let table = store.existing("events").await.unwrap().unwrap();
    table.delta().await.unwrap().snapshot().unwrap().log_data().num_files()
}

async fn on_disk() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().to_str().unwrap()).await.unwrap();
    (folder, store)
}

async fn filled(store: &Store, commits: i64) -> Table {
    let mut table = store.table(&spec()).await.unwrap();
    for step in 0..commits {
        let days_ago = u32::try_from(1 + step % 3).unwrap();
        table.commit(vec![rows(step * 10..step * 10 + 10, days_ago)], advance("a", step)).await.unwrap();
    }
    table
}

#[tokio::test]
async fn merging_keeps_rows_and_positions_and_followers_see_nothing_new() {
    let (_folder, store) = on_disk().await;
    let mut table = filled(&store, 30).await;
    let before = contents(&store).await;
    assert_eq!((before.len(), files(&store).await), (300, 30));

    let planned = table.keep_up(&Upkeep { dry_run: true, ..Upkeep::default() }).await.unwrap();
    assert_eq!((planned.merged_files, planned.written_files), (30, 0));
    assert_eq!(table.version(), 30, "a dry run commits nothing");

    let done = table.keep_up(&Upkeep::default()).await.unwrap();
    assert_eq!((done.files, done.merged_files, done.written_files, done.merged_rows), (30, 30, 3, 300));
    assert_eq!(files(&store).await, 3, "a file a day");
    assert_eq!(contents(&store).await, before);
    assert_eq!(table.position("a").await.unwrap(), Some(30));
    assert_eq!(followed(&store, table.version()).await, (0..300).collect::<Vec<_>>());
    // Ingest goes on from where it was.
    table.commit(vec![rows(300..310, 0)], advance("a", 30)).await.unwrap();
    assert_eq!(table.keep_up(&Upkeep::default()).await.unwrap().merged_files, 0, "nothing is merged twice");
}

#[tokio::test]
async fn retention_takes_whole_days_and_nothing_that_a_follower_has_still_to_read() {
    let (_folder, store) = on_disk().await;
    let mut table = filled(&store, 30).await;
    let upkeep = Upkeep { keep_days: Some(2), ..Upkeep::default() };
    let done = table.keep_up(&upkeep).await.unwrap();
    assert_eq!((done.expired_files, done.merged_files), (10, 20));
    let first_kept = UtcDay::today().minus_days(2).to_string();
    let left = contents(&store).await;
    assert_eq!(left.len(), 200);
    assert!(left.iter().all(|(day, _, _)| *day >= first_kept));
    // The rows are gone from the table; who has not read their versions yet finds them all the same.
    assert_eq!(followed(&store, table.version()).await, (0..300).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_two_maintainers_and_retention_at_once_lose_and_double_nothing() {
    let (_folder, store) = on_disk().await;
    store.table(&spec()).await.unwrap();
    let writers = (0..2_i64).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut table = store.table(&spec()).await.unwrap();
            let app_id = format!("writer-{writer}");
            for step in 0..60 {
                let first = writer * 100_000 + step * 10;
                let days_ago = u32::try_from(step % 5).unwrap();
                table.commit(vec![rows(first..first + 10, days_ago)], advance(&app_id, step)).await.unwrap();
            }
        })
    });
    let maintainers = (0..2).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            let upkeep = Upkeep { keep_days: Some(3), ..Upkeep::default() };
            let mut rounds = Vec::new();
            for _ in 0..12 {
                let mut table = store.existing("events").await.unwrap().unwrap();
                match table.keep_up(&upkeep).await {
                    Ok(done) => rounds.push(done),
                    Err(StoreError::Superseded { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
            rounds
        })
    });
    let (writers, maintainers): (Vec<_>, Vec<_>) = (writers.collect(), maintainers.collect());
    for writer in writers {
        writer.await.unwrap();
    }
    let mut rounds: Vec<Upkept> = Vec::new();
    for maintainer in maintainers {
        rounds.extend(maintainer.await.unwrap());
    }
    assert!(rounds.iter().any(|round| round.merged_files > 0), "no round merged anything");
    // One more, alone, so that retention has seen the last commits.
    let mut table = store.existing("events").await.unwrap().unwrap();
    table.keep_up(&Upkeep { keep_days: Some(3), ..Upkeep::default() }).await.unwrap();

    let first_kept = UtcDay::today().minus_days(3).to_string();
    let expected: BTreeMap<i64, String> = (0..2_i64)
        .flat_map(|writer| (0..60_i64).map(move |step| (writer, step)))
        .flat_map(|(writer, step)| (0..10).map(move |row| (writer * 100_000 + step * 10 + row, step % 5)))
        .map(|(id, days_ago)| (id, UtcDay::today().minus_days(u32::try_from(days_ago).unwrap()).to_string()))
        .collect();
    let kept: BTreeMap<i64, String> =
        expected.iter().filter(|(_, day)| **day >= first_kept).map(|(id, day)| (*id, day.clone())).collect();
    let found = contents(&store).await;
    assert_eq!(found.len(), kept.len(), "a row was lost or doubled");
    assert_eq!(found.into_iter().map(|(day, id, _)| (id, day)).collect::<BTreeMap<_, _>>(), kept);
    assert_eq!(followed(&store, table.version()).await, expected.into_keys().collect::<Vec<_>>());
    for writer in 0..2 {
        assert_eq!(table.position(&format!("writer-{writer}")).await.unwrap(), Some(60));
    }
}

#[tokio::test]
async fn a_plan_is_void_when_somebody_else_has_removed_files_since() {
    let backend = Arc::new(Faulty::default());
    let store = Store::with_backend(backend.clone(), Url::parse("memory:///data/").unwrap()).unwrap();
    let mut zombie = filled(&store, 30).await;
    let before = contents(&store).await;
    // The zombie's first put fails without landing; before it tries again, another maintainer has merged everything.
    *backend.faults.lock().unwrap() = vec![Fault::Fails];
    let (gate, opened) = backend.hold_next_entry();
    let late = tokio::spawn(async move { zombie.keep_up(&Upkeep::default()).await });
    opened.await.unwrap();
    let mut other = store.existing("events").await.unwrap().unwrap();
    assert_eq!(other.keep_up(&Upkeep::default()).await.unwrap().merged_files, 30);
    gate.send(()).unwrap();
    let refused = late.await.unwrap();
    assert!(matches!(refused, Err(StoreError::Superseded { .. })), "{refused:?}");
    assert_eq!(contents(&store).await, before);
    assert_eq!(files(&store).await, 3);
}

#[tokio::test]
async fn a_maintainer_that_dies_at_any_write_leaves_the_rows_as_they_were() {
    for writes_before in 0..6 {
        let backend = Arc::new(Faulty::default());
        let store = Store::with_backend(backend.clone(), Url::parse("memory:///data/").unwrap()).unwrap();
        let mut table = filled(&store, 30).await;
        let before = contents(&store).await;
        backend.die_after_writes(writes_before);
        let died = table.keep_up(&Upkeep::default()).await;
        assert!(died.is_err(), "six writes: three files and three entries; {died:?}");
        backend.dead.store(false, SeqCst);
        assert_eq!(contents(&store).await, before, "after {writes_before} writes");
        let mut next = store.existing("events").await.unwrap().unwrap();
        next.keep_up(&Upkeep::default()).await.unwrap();
        assert_eq!(contents(&store).await, before, "after {writes_before} writes and one more round");
        assert_eq!(files(&store).await, 3);
    }
}

#[tokio::test]
async fn a_plan_lands_however_many_appends_came_first() {
    let backend = Arc::new(Faulty::default());
    let store = Store::with_backend(backend.clone(), Url::parse("memory:///data/").unwrap()).unwrap();
    let mut maintainer = filled(&store, 30).await;
    let (gate, opened) = backend.hold_next_entry();
    let late = tokio::spawn(async move { maintainer.keep_up(&Upkeep::default()).await });
    opened.await.unwrap();
    // More than a writer would follow one by one.
    let mut writer = store.existing("events").await.unwrap().unwrap();
    for step in 0..250 {
        writer.commit(vec![], advance("b", step)).await.unwrap();
    }
    gate.send(()).unwrap();
    assert_eq!(late.await.unwrap().unwrap().merged_files, 30);
    assert_eq!(files(&store).await, 3);
    assert_eq!(contents(&store).await.len(), 300);
}

/// Makes every object of the table that is not in the log older than the retention of two days.
fn age(folder: &std::path::Path) {
    let old = std::time::SystemTime::now() - Duration::from_secs(3 * 86_400);
    for day in std::fs::read_dir(folder.join("tables/events")).unwrap().map(Result::unwrap) {
        if day.file_name().to_string_lossy().starts_with('_') {
            continue;
        }
        for file in std::fs::read_dir(day.path()).unwrap().map(Result::unwrap) {
            std::fs::File::options().write(true).open(file.path()).unwrap().set_modified(old).unwrap();
        }
    }
}

#[tokio::test]
async fn the_vacuum_takes_what_nothing_names_and_spares_what_the_log_still_names() {
    let (folder, store) = on_disk().await;
    let mut table = filled(&store, 30).await;
    table.keep_up(&Upkeep::default()).await.unwrap();
    let day = UtcDay::today().minus_days(1);
    let orphan = format!("tables/events/event_date={day}/orphan.parquet");
    let pending = format!("tables/events/event_date={day}/pending.parquet");
    store.put(&orphan, "nobody committed it".into()).await.unwrap();
    age(folder.path());
    store.put(&pending, "somebody may commit it".into()).await.unwrap();

    let done = table.keep_up(&Upkeep::default()).await.unwrap();
    assert_eq!(done.vacuumed_files, 1, "the orphan alone: versions 1 to 30 are still in the log");
    assert!(store.get(&orphan).await.unwrap().is_none());
    assert!(store.get(&pending).await.unwrap().is_some());
    assert_eq!(followed(&store, table.version()).await, (0..300).collect::<Vec<_>>());

    // The log's first entries go, as after its retention; then so may the files that only they name. What merging took
    // away is named by the entries that did so, which are younger.
    let log = folder.path().join("tables/events/_delta_log");
    let mut maintained = store.existing("events").await.unwrap().unwrap();
    for step in 0..100 {
        maintained.commit(vec![], advance("b", step)).await.unwrap();
    }
    maintained.maintained().await;
    for version in 0..=33 {
        std::fs::remove_file(log.join(format!("{version:020}.json"))).unwrap();
    }
    let done = maintained.keep_up(&Upkeep::default()).await.unwrap();
    assert_eq!(done.vacuumed_files, 30, "the small files that were merged");
    assert_eq!(contents(&store).await.len(), 300);
}

#[tokio::test]
async fn each_round_is_claimed_once() {
    let (_folder, store) = on_disk().await;
    assert!(store.claim_round("events", "rounds", 7).await.unwrap());
    assert!(!store.claim_round("events", "rounds", 7).await.unwrap());
    assert!(store.claim_round("events", "rounds", 8).await.unwrap());
    assert_eq!(store.list("upkeep").await.unwrap(), ["upkeep/events/rounds/00000000000000000008"]);
}
