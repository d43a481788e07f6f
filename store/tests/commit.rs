//! The commit protocol against real Delta logs: on disk, and on a store that loses answers.

mod faulty;

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use arrow::array::{AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use faulty::{Fault as StoreFault, Faulty};
use url::Url;
use weir_store::{Advance, Committed, Fault, Follower, PutNew, Store, StoreError, Table, TableSpec};

fn spec() -> TableSpec {
    let schema = Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("note", DataType::Utf8, true),
        Field::new("day", DataType::Utf8, true),
    ]);
    TableSpec { name: "events".to_owned(), schema: Arc::new(schema), partition_by: Some("day".to_owned()) }
}

fn rows(ids: &[i64]) -> RecordBatch {
    let days = ids.iter().map(|id| if id % 2 == 0 { "2024-01-01" } else { "2024-01-02" });
    let batch = RecordBatch::try_from_iter_with_nullable([
        ("id", Arc::new(Int64Array::from(ids.to_vec())) as _, false),
        ("note", Arc::new(StringArray::from_iter_values(ids.iter().map(|id| format!("secret-{id}")))) as _, true),
        ("day", Arc::new(StringArray::from_iter_values(days)) as _, true),
    ]);
    batch.unwrap()
}

fn advance(app_id: &str, expected: Option<i64>, next: i64) -> Advance {
    Advance { app_id: app_id.to_owned(), expected, next }
}

fn ids(batches: &[RecordBatch]) -> Vec<i64> {
    let mut ids: Vec<i64> = batches
        .iter()
        .flat_map(|batch| batch.column_by_name("id").unwrap().as_primitive::<Int64Type>().values().to_vec())
        .collect();
    ids.sort_unstable();
    ids
}

/// Every row of the table, by following its versions.
async fn all_ids(table: &Table) -> Vec<i64> {
    let mut batches = Vec::new();
    for version in 1..=table.version() {
        batches.extend(table.appended(version).await.unwrap());
    }
    ids(&batches)
}

async fn on_disk() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().to_str().unwrap()).await.unwrap();
    (folder, store)
}

fn on_faulty() -> (Arc<Faulty>, Store) {
    let backend = Arc::new(Faulty::default());
    let store = Store::with_backend(backend.clone(), Url::parse("memory:///data/").unwrap()).unwrap();
    (backend, store)
}

#[tokio::test]
async fn a_table_that_another_makes_and_nobody_sees_yet_is_waited_for() {
    let (backend, store) = on_faulty();
    backend.faults.lock().unwrap().push(StoreFault::ExistsLate);
    let mut table = store.table(&spec()).await.unwrap();
    assert_eq!(table.version(), 0);
    assert_eq!(table.commit(vec![rows(&[1, 2, 3])], vec![]).await.unwrap().rows, 3);
}

#[tokio::test]
async fn rows_and_positions_land_together_and_read_back() {
    let (_folder, store) = on_disk().await;
    let mut table = store.table(&spec()).await.unwrap();
    assert_eq!(table.position("a").await.unwrap(), None);

    let committed = table.commit(vec![rows(&[1, 2]), rows(&[3])], vec![advance("a", None, 3)]).await.unwrap();
    assert_eq!(committed, Committed { version: 1, rows: 3 });
    assert_eq!(table.position("a").await.unwrap(), Some(3));

    let reopened = store.existing("events").await.unwrap().unwrap();
    assert_eq!(reopened.position("a").await.unwrap(), Some(3));
    assert_eq!(reopened.position("b").await.unwrap(), None);
    let appended = reopened.appended(1).await.unwrap();
    assert_eq!(ids(&appended), [1, 2, 3]);
    for batch in &appended {
        assert_eq!(batch.schema(), reopened.schema());
        let days = batch.column_by_name("day").unwrap().as_string::<i32>();
        for (id, day) in batch.column_by_name("id").unwrap().as_primitive::<Int64Type>().values().iter().zip(days) {
            assert_eq!(day, Some(if id % 2 == 0 { "2024-01-01" } else { "2024-01-02" }));
        }
    }
    assert_eq!(ids(&reopened.appended(0).await.unwrap()), [0_i64; 0]);
    assert!(matches!(reopened.appended(2).await, Err(StoreError::VersionGone { version: 2, .. })));
}

#[tokio::test]
async fn a_replayed_commit_is_fenced_and_adds_nothing() {
    let (_folder, store) = on_disk().await;
    let mut table = store.table(&spec()).await.unwrap();
    table.commit(vec![rows(&[1, 2])], vec![advance("a", None, 2)]).await.unwrap();

    let replay = table.commit(vec![rows(&[1, 2])], vec![advance("a", None, 2)]).await;
    let Err(error) = replay else { panic!("the replay landed") };
    assert!(matches!(&error, StoreError::Fenced { found: Some(2), expected: None, .. }), "{error}");
    assert!(error.retry_helps());
    assert_eq!(table.version(), 1);
    assert_eq!(all_ids(&table).await, [1, 2]);
}

#[tokio::test]
async fn a_zombie_with_an_old_snapshot_is_fenced() {
    let (_folder, store) = on_disk().await;
    let mut zombie = store.table(&spec()).await.unwrap();
    let mut owner = store.table(&spec()).await.unwrap();
    owner.commit(vec![rows(&[1])], vec![advance("a", None, 1)]).await.unwrap();
    // The zombie loaded version 0 and has asked for the position there.
    assert_eq!(zombie.position("a").await.unwrap(), None);
    let late = zombie.commit(vec![rows(&[1])], vec![advance("a", None, 1)]).await;
    assert!(matches!(late, Err(StoreError::Fenced { found: Some(1), .. })), "{late:?}");
    assert_eq!(all_ids(&zombie).await, [1]);
}

#[tokio::test]
async fn two_writers_with_their_own_positions_lose_and_double_nothing() {
    let (_folder, store) = on_disk().await;
    store.table(&spec()).await.unwrap();
    let writers = (0..2_i64).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut table = store.table(&spec()).await.unwrap();
            let app_id = format!("writer-{writer}");
            for step in 0..15_i64 {
                let expected = (step > 0).then_some(step);
                let row = rows(&[writer * 1_000 + step]);
                table.commit(vec![row], vec![advance(&app_id, expected, step + 1)]).await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let table = store.existing("events").await.unwrap().unwrap();
    let expected: Vec<i64> = (0..15).chain(1_000..1_015).collect();
    assert_eq!(all_ids(&table).await, expected);
    assert_eq!(table.position("writer-1").await.unwrap(), Some(15));
}

#[tokio::test]
async fn a_commit_that_landed_without_an_answer_is_found_by_its_nonce() {
    for fault in [StoreFault::LandsButFails, StoreFault::LandsButExists] {
        for positions in [vec![advance("a", None, 2)], vec![]] {
            let (backend, store) = on_faulty();
            let mut table = store.table(&spec()).await.unwrap();
            backend.faults.lock().unwrap().push(fault);
            let committed = table.commit(vec![rows(&[1, 2])], positions).await.unwrap();
            assert_eq!(committed, Committed { version: 1, rows: 2 }, "{fault:?}");
            assert_eq!(table.version(), 1, "{fault:?} left a second copy");
            assert_eq!(all_ids(&table).await, [1, 2]);
        }
    }
}

#[tokio::test]
async fn a_commit_that_did_not_land_is_tried_again() {
    let (backend, store) = on_faulty();
    let mut table = store.table(&spec()).await.unwrap();
    backend.faults.lock().unwrap().extend([StoreFault::Fails, StoreFault::Fails]);
    let committed = table.commit(vec![rows(&[7])], vec![advance("a", None, 1)]).await.unwrap();
    assert_eq!(committed.version, 1);
    assert_eq!(all_ids(&table).await, [7]);
}

#[tokio::test]
async fn an_outcome_nobody_tells_is_reported_as_unknown() {
    let (backend, store) = on_faulty();
    let mut table = store.table(&spec()).await.unwrap();
    backend.faults.lock().unwrap().extend([StoreFault::Fails; 8]);
    let unknown = table.commit(vec![rows(&[7])], vec![advance("a", None, 1)]).await;
    assert!(matches!(unknown, Err(StoreError::OutcomeUnknown { .. })), "{unknown:?}");

    // The store comes back: from the position that is there, the same rows go in once.
    backend.faults.lock().unwrap().clear();
    table.refresh().await.unwrap();
    let position = table.position("a").await.unwrap();
    assert_eq!(position, None);
    table.commit(vec![rows(&[7])], vec![advance("a", position, 1)]).await.unwrap();
    assert_eq!(all_ids(&table).await, [7]);
}

#[tokio::test]
async fn a_put_that_lands_after_its_caller_has_given_it_up_is_found_and_not_doubled() {
    let (backend, store) = on_faulty();
    let mut table = store.table(&spec()).await.unwrap();
    backend.faults.lock().unwrap().push(StoreFault::LandsLate);
    let committed = table.commit(vec![rows(&[1, 2])], vec![advance("a", None, 2)]).await.unwrap();
    assert_eq!((committed.version, table.version()), (1, 1));
    assert_eq!(all_ids(&table).await, [1, 2]);
}

#[tokio::test]
async fn a_store_that_dies_after_a_put_leaves_an_unknown_outcome_whatever_it_answered() {
    // "It exists" may be about our own entry: until that has been read, nobody knows.
    for fault in [StoreFault::FailsAndDies, StoreFault::ExistsAndDies] {
        let (backend, store) = on_faulty();
        let mut table = store.table(&spec()).await.unwrap();
        backend.faults.lock().unwrap().push(fault);
        let unknown = table.commit(vec![rows(&[7])], vec![advance("a", None, 1)]).await;
        assert!(matches!(unknown, Err(StoreError::OutcomeUnknown { .. })), "{fault:?}: {unknown:?}");
    }
}

#[tokio::test]
async fn a_read_that_fails_while_our_own_entry_is_looked_for_costs_nothing() {
    // Read before the put, when the put has failed, and to see whose it is.
    for reads_before in 0..3 {
        let (backend, store) = on_faulty();
        let mut table = store.table(&spec()).await.unwrap();
        backend.faults.lock().unwrap().push(StoreFault::LandsButExists);
        backend.fail_read("00000000000000000001.json", reads_before);
        let committed = table.commit(vec![rows(&[7])], vec![advance("a", None, 1)]).await.unwrap();
        assert_eq!(committed.version, 1, "read {reads_before}");
        assert!(backend.read_has_failed(), "there is no read {reads_before}");
        table.refresh().await.unwrap();
        assert_eq!(all_ids(&table).await, [7], "read {reads_before}");
    }
}

#[tokio::test]
async fn a_log_read_that_fails_once_never_lets_a_stale_writer_through() {
    let mut failed_reads = 0;
    for reads_before in 0..3 {
        let (backend, store) = on_faulty();
        let mut owner = store.table(&spec()).await.unwrap();
        owner.commit(vec![rows(&[1])], vec![advance("a", None, 1)]).await.unwrap();
        let mut other = store.table(&spec()).await.unwrap();
        other.commit(vec![rows(&[2])], vec![advance("a", Some(1), 2)]).await.unwrap();

        backend.fail_read("00000000000000000002.json", reads_before);
        let stale = owner.commit(vec![rows(&[2])], vec![advance("a", Some(1), 2)]).await;
        failed_reads += u32::from(backend.read_has_failed());
        assert!(matches!(stale, Err(StoreError::Fenced { found: Some(2), .. })), "read {reads_before}: {stale:?}");
        owner.refresh().await.unwrap();
        assert_eq!(all_ids(&owner).await, [1, 2], "doubled after read {reads_before} failed");
    }
    assert!(failed_reads >= 1, "the entry that fences is read");
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_not_a_damaged_log() {
    let (backend, store) = on_faulty();
    let mut table = store.table(&spec()).await.unwrap();
    backend.dead.store(true, SeqCst);
    let failed = table.commit(vec![], vec![advance("a", None, 1)]).await;
    assert!(matches!(failed, Err(StoreError::Storage(_))), "nothing was put: {failed:?}");
    let failed = table.refresh().await;
    assert!(matches!(failed, Err(StoreError::Storage(_))), "{failed:?}");
    let failed = store.existing("events").await;
    assert!(matches!(&failed, Err(error) if error.retry_helps()), "{failed:?}");
    backend.dead.store(false, SeqCst);
    table.refresh().await.unwrap();
    assert_eq!((table.version(), table.position("a").await.unwrap()), (0, None));
}

#[tokio::test]
async fn positions_move_without_rows_and_never_backwards() {
    let (_folder, store) = on_disk().await;
    let mut table = store.table(&spec()).await.unwrap();
    table.commit(vec![], vec![advance("a", None, 5), advance("b", None, 0)]).await.unwrap();
    assert_eq!(table.position("a").await.unwrap(), Some(5));
    assert_eq!(table.position("b").await.unwrap(), Some(0), "zero and absent are different things");
    assert!(table.appended(1).await.unwrap().is_empty());
    for bad in [vec![advance("a", Some(5), 4)], vec![advance("a", Some(5), 6), advance("a", Some(5), 7)]] {
        let refused = table.commit(vec![], bad).await;
        assert!(matches!(&refused, Err(error) if error.fault() == Fault::Ours), "{refused:?}");
    }
}

#[tokio::test]
async fn a_table_of_somebody_else_or_with_other_columns_is_refused() {
    let (_folder, store) = on_disk().await;
    store.table(&spec()).await.unwrap();
    let other = |name: &str, kind, may_be_null| {
        let field = Arc::new(Field::new(name, kind, may_be_null));
        let others = spec().schema.fields().iter().filter(|old| old.name() != name).cloned().collect();
        TableSpec { schema: Arc::new(Schema::new([others, vec![field]].concat())), ..spec() }
    };
    let first = spec().schema.field(0).name().clone();
    for (name, kind, may_be_null) in [("more", DataType::Float64, false), (first.as_str(), DataType::Float64, true)] {
        let refused = store.table(&other(name, kind, may_be_null)).await;
        assert!(
            matches!(&refused, Err(error @ StoreError::OtherSchema { .. }) if error.to_string().contains(name)),
            "{refused:?}"
        );
    }
    let refused = store.table(&TableSpec { partition_by: None, ..spec() }).await;
    assert!(matches!(&refused, Err(StoreError::OtherSchema { .. })), "{refused:?}");

    // A table that another program made at our place.
    let foreign = store.table_url("gpu_telemetry");
    std::fs::create_dir_all(foreign.to_file_path().unwrap()).unwrap();
    deltalake::DeltaTable::try_from_url(foreign)
        .await
        .unwrap()
        .create()
        .with_column("x", deltalake::kernel::DataType::LONG, true, None)
        .await
        .unwrap();
    let refused = store.existing("gpu_telemetry").await;
    assert!(matches!(&refused, Err(error @ StoreError::NotOurs { .. }) if error.fault() == Fault::User), "{refused:?}");
}

/// A rolling update: a process of the version before writes on while the next one has brought more columns.
#[tokio::test]
async fn a_later_version_adds_columns_beside_a_writer_of_the_version_before() {
    let (_folder, store) = on_disk().await;
    let more = Arc::new(Field::new("more", DataType::Float64, true));
    // Not at the end, where a column would be appended.
    let columns = [vec![more], spec().schema.fields().to_vec()].concat();
    let wider = TableSpec { schema: Arc::new(Schema::new(columns)), ..spec() };
    let mut before = store.table(&spec()).await.unwrap();
    before.commit(vec![rows(&[0, 1, 2])], vec![advance("a", None, 3)]).await.unwrap();

    let (mut one, mut two) = tokio::try_join!(store.table(&wider), store.table(&wider)).unwrap();
    assert_eq!(one.schema().field(0).name(), "more");
    before.commit(vec![rows(&[3, 4])], vec![advance("a", Some(3), 5)]).await.unwrap();
    one.commit(vec![rows(&[5, 6, 7, 8])], vec![advance("a", Some(5), 9)]).await.unwrap();
    two.commit(vec![rows(&[9])], vec![advance("a", Some(9), 10)]).await.unwrap();
    before.commit(vec![rows(&[10, 11])], vec![advance("a", Some(10), 12)]).await.unwrap();

    // One that starts with the columns of before, as after a rollback, and one of after: both read all rows.
    for spec in [spec(), wider.clone()] {
        let table = store.table(&spec).await.unwrap();
        assert_eq!(table.schema().fields().len(), spec.schema.fields().len());
        assert_eq!(all_ids(&table).await, (0..12).collect::<Vec<_>>());
    }
    // Merging keeps the columns, whoever opened the table.
    let mut table = store.table(&spec()).await.unwrap();
    table.keep_up(&weir_store::Upkeep { settle: std::time::Duration::ZERO, ..Default::default() }).await.unwrap();
    let merged = store.existing("events").await.unwrap().unwrap();
    assert_eq!(merged.schema().fields().len(), wider.schema.fields().len());
}

#[tokio::test]
async fn a_table_made_anew_is_not_followed_with_positions_of_the_old_one() {
    let (folder, store) = on_disk().await;
    let follower = Follower { table: "derived".to_owned(), app_ids: vec!["followers/one".to_owned()] };
    let table = store.table(&spec()).await.unwrap();
    store.follow(&table, &follower).await.unwrap();
    std::fs::remove_dir_all(folder.path().join("tables/events")).unwrap();
    let anew = store.table(&spec()).await.unwrap();
    let refused = store.follow(&anew, &follower).await;
    assert!(
        matches!(&refused, Err(error @ StoreError::OtherTable { .. }) if error.fault() == Fault::User),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_truncated_log_is_one_clear_error() {
    let (_folder, store) = on_disk().await;
    let mut table = store.table(&spec()).await.unwrap();
    table.commit(vec![rows(&[1])], vec![advance("a", None, 1)]).await.unwrap();
    let entry = "tables/events/_delta_log/00000000000000000001.json";
    let whole = store.get(entry).await.unwrap().unwrap();
    store.put(entry, whole.slice(..whole.len() / 2)).await.unwrap();
    let damaged = store.existing("events").await;
    match damaged {
        Err(error @ StoreError::DamagedLog { .. }) => assert!(error.to_string().contains("events"), "{error}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_unwritable_folder_is_refused_and_nothing_is_left_behind() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "not a folder").unwrap();
    // /proc refuses new files even to root.
    for place in [file.join("data").to_str().unwrap(), "/proc/weir", "/proc"] {
        let refused = tokio::time::timeout(std::time::Duration::from_secs(10), Store::open(place)).await.unwrap();
        let Err(error) = refused else { panic!("{place} was opened") };
        assert!(matches!(error, StoreError::Unwritable { .. }) && error.fault() == Fault::User, "{error}");
        assert!(error.to_string().contains(place), "{error}");
    }
    assert!(matches!(Store::open("ftp://host/x").await, Err(StoreError::BadLocation { .. })));
    assert!(matches!(Store::open("").await, Err(StoreError::BadLocation { .. })));
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1);
}

#[tokio::test]
async fn many_racing_creators_make_one_table() {
    let (_folder, store) = on_disk().await;
    let creators: Vec<_> = (0..6)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.table(&spec()).await.map(|table| table.version()) })
        })
        .collect();
    for creator in creators {
        assert_eq!(creator.await.unwrap().unwrap(), 0);
    }
    assert_eq!(store.list("tables/events/_delta_log").await.unwrap().len(), 1);
}

#[tokio::test]
async fn objects_are_created_once() {
    let (_folder, store) = on_disk().await;
    assert_eq!(store.put_new("a/b.json", "one".into()).await.unwrap(), PutNew::Created);
    assert_eq!(store.put_new("a/b.json", "two".into()).await.unwrap(), PutNew::Existed);
    assert_eq!(store.get("a/b.json").await.unwrap().unwrap(), "one");
    store.put("a/c.json", "three".into()).await.unwrap();
    assert_eq!(store.list("a").await.unwrap(), ["a/b.json", "a/c.json"]);
    store.delete("a/b.json").await.unwrap();
    store.delete("a/b.json").await.unwrap();
    assert_eq!(store.get("a/b.json").await.unwrap(), None);
}

/// Commits until the table is at that version, and waits for the checkpoint that the last of them starts.
async fn commit_up_to(table: &mut Table, version: i64) {
    for step in table.version()..version {
        let expected = (step > 0).then_some(step);
        table.commit(vec![], vec![advance("a", expected, step + 1)]).await.unwrap();
    }
    table.maintained().await;
}

#[tokio::test]
async fn a_writer_that_never_asks_for_it_gets_a_checkpoint_that_keeps_positions_and_rows() {
    let (_folder, store) = on_disk().await;
    let mut table = store.table(&spec()).await.unwrap();
    table.commit(vec![rows(&[1, 2])], vec![advance("a", None, 1)]).await.unwrap();
    commit_up_to(&mut table, 100).await;
    assert!(store.get("tables/events/_delta_log/_last_checkpoint").await.unwrap().is_some(), "no checkpoint");
    assert_eq!(table.maintain().await.unwrap().checkpoint, None, "one checkpoint in 100 versions is enough");

    // The checkpoint alone holds the positions: the entries before it may go.
    for version in 0..100 {
        store.delete(&log_entry(version)).await.unwrap();
    }
    let reopened = store.existing("events").await.unwrap().unwrap();
    assert_eq!(reopened.position("a").await.unwrap(), Some(100));
    assert_eq!(
        reopened.delta().await.unwrap().snapshot().unwrap().log_data().num_files(),
        2,
        "the rows' files, one a day"
    );
    assert!(matches!(reopened.appended(7).await, Err(StoreError::VersionGone { version: 7, .. })));
}

fn log_entry(version: i64) -> String {
    format!("tables/events/_delta_log/{version:020}.json")
}

#[tokio::test]
async fn the_log_is_kept_for_who_follows_it_but_not_for_ever() {
    let (folder, store) = on_disk().await;
    let mut table = store.table(&spec()).await.unwrap();
    // A follower of "events" that writes another table, and one that has not begun.
    let mut derived_spec = spec();
    derived_spec.name = "derived".to_owned();
    let mut derived = store.table(&derived_spec).await.unwrap();
    for (name, app_id) in [("derived", "followers/one"), ("absent", "followers/two")] {
        let follower = Follower { table: name.to_owned(), app_ids: vec![app_id.to_owned()] };
        store.follow(&table, &follower).await.unwrap();
        store.follow(&table, &follower).await.unwrap();
    }
    derived.commit(vec![], vec![advance("followers/one", None, 20)]).await.unwrap();
    let age = |days: u64| {
        let at = std::time::SystemTime::now() - std::time::Duration::from_secs(days * 86_400);
        for entry in std::fs::read_dir(folder.path().join("tables/events/_delta_log")).unwrap() {
            std::fs::File::options().append(true).open(entry.unwrap().path()).unwrap().set_modified(at).unwrap();
        }
    };
    let is_there = async |version: i64| store.get(&log_entry(version)).await.unwrap().is_some();

    commit_up_to(&mut table, 199).await;
    age(3);
    commit_up_to(&mut table, 200).await;
    assert!(is_there(20).await && is_there(99).await, "removed before its follower has read it");

    derived.commit(vec![], vec![advance("followers/one", Some(20), 199)]).await.unwrap();
    commit_up_to(&mut table, 299).await;
    age(3);
    commit_up_to(&mut table, 300).await;
    assert!(!is_there(99).await, "read by all, older than two days and behind a checkpoint");
    assert!(is_there(199).await, "its follower stands there");

    commit_up_to(&mut table, 399).await;
    age(31);
    commit_up_to(&mut table, 400).await;
    assert!(!is_there(199).await, "a follower that stood still for a month keeps the log for ever");
}

#[tokio::test]
async fn text_never_reaches_the_log() {
    let (_folder, store) = on_disk().await;
    let mut table = store.table(&spec()).await.unwrap();
    table.commit(vec![rows(&[1, 2, 3])], vec![advance("a", None, 3)]).await.unwrap();
    let entry = store.get("tables/events/_delta_log/00000000000000000001.json").await.unwrap().unwrap();
    let entry = String::from_utf8(entry.to_vec()).unwrap();
    assert!(!entry.contains("secret-"), "{entry}");
    assert!(entry.contains(r#"\"minValues\":{\"id\":"#), "ranges of ids are gone: {entry}");
}

#[tokio::test]
async fn batches_that_do_not_fit_are_refused() {
    let (_folder, store) = on_disk().await;
    let mut table = store.table(&spec()).await.unwrap();
    let narrow = RecordBatch::try_from_iter([("id", Arc::new(Int64Array::from(vec![1])) as _)]).unwrap();
    table.commit(vec![narrow], vec![]).await.unwrap();
    let wrong_type = RecordBatch::try_from_iter([("id", Arc::new(StringArray::from(vec!["1"])) as _)]).unwrap();
    let unknown = RecordBatch::try_from_iter([("other", Arc::new(Int64Array::from(vec![1])) as _)]).unwrap();
    let nulls = RecordBatch::try_from_iter([("id", Arc::new(Int64Array::from(vec![None])) as _)]).unwrap();
    for bad in [wrong_type, unknown, nulls] {
        let refused = table.commit(vec![bad], vec![]).await;
        assert!(matches!(refused, Err(StoreError::BadCommit { .. })), "{refused:?}");
    }
    assert_eq!(table.version(), 1);
}

#[tokio::test]
async fn replacing_takes_every_row_away_in_the_commit_that_brings_the_new_ones() {
    let (_folder, store) = on_disk().await;
    let mut table = store.table(&spec()).await.unwrap();
    table.commit(vec![rows(&[1, 2])], vec![advance("a", None, 1)]).await.unwrap();
    let refused = table.replace(vec![rows(&[9])], vec![advance("a", None, 2)]).await;
    assert!(matches!(refused, Err(StoreError::Fenced { .. })), "{refused:?}");
    let files = async |table: &Table| table.delta().await.unwrap().snapshot().unwrap().log_data().num_files();
    assert_eq!(files(&table).await, 2, "a refused one took rows away");
    let replaced = table.replace(vec![rows(&[3])], vec![advance("a", Some(1), 2)]).await.unwrap();
    assert_eq!((replaced.rows, table.position("a").await.unwrap()), (1, Some(2)));
    let reopened = store.existing("events").await.unwrap().unwrap();
    assert_eq!(files(&reopened).await, 1, "one file of the new row");
    assert!(reopened.appended(replaced.version).await.unwrap().is_empty(), "no followers' rows");
}

#[tokio::test]
async fn a_follower_reads_the_columns_that_it_names_and_when_they_were_committed() {
    let (_folder, store) = on_disk().await;
    let mut table = store.table(&spec()).await.unwrap();
    let clock = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let before = i64::try_from(clock()).unwrap();
    let version = table.commit(vec![rows(&[1, 2])], vec![]).await.unwrap().version;
    let named = table.appended_columns(version, &["day", "id", "no_such_column"]).await.unwrap();
    let names: Vec<String> = named[0].schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["id", "day"], "in the table's order");
    assert_eq!(ids(&named), [1, 2]);
    let committed_ms = table.committed_ms(version).await.unwrap();
    assert!((before..=i64::try_from(clock()).unwrap()).contains(&committed_ms), "{committed_ms}");
    assert!(matches!(table.committed_ms(9).await, Err(StoreError::VersionGone { version: 9, .. })));
}

#[tokio::test]
async fn a_store_opened_to_read_makes_no_folder_and_lists_folders_without_what_lies_in_them() {
    let (folder, store) = on_disk().await;
    let missing = folder.path().join("missing");
    let refused = Store::open_to_read(missing.to_str().unwrap());
    assert!(
        matches!(&refused, Err(error @ StoreError::BadLocation { .. }) if error.fault() == Fault::User),
        "{refused:?}"
    );
    assert!(!missing.exists());
    store.table(&spec()).await.unwrap();
    store.put("tables/other/deep/down.txt", "x".into()).await.unwrap();
    store.put("tables/note.txt", "x".into()).await.unwrap();
    let reading = Store::open_to_read(folder.path().to_str().unwrap()).unwrap();
    assert_eq!(reading.folders("tables").await.unwrap(), ["events", "other"]);
    assert_eq!(reading.folders("nothing").await.unwrap(), Vec::<String>::new());
}
