//! Claims about catching up, on stores in memory.

use std::collections::BTreeMap;

use arrow::datatypes::DataType;
use arrow::util::pretty::pretty_format_batches;
use proptest::prelude::*;
use weir_schemas::{Tokens, Usd};

use super::*;
use crate::session;
use crate::testing::{T0_MS, append, memory_store, request};

const MINUTE_MS: i64 = 60_000;

/// The derived tables with partial rows of the same key merged, as text: sketches as the hex of their bytes.
async fn merged(store: &Store) -> BTreeMap<&'static str, String> {
    let ctx = session(store).await.expect("the session opens");
    let mut tables = BTreeMap::new();
    for partial in PARTIALS {
        let spec = partial.spec().await.expect("the query plans");
        let (mut keys, mut columns) = (Vec::new(), Vec::new());
        for field in spec.schema.fields() {
            let name = field.name();
            match field.data_type() {
                DataType::Utf8 => keys.push(name.clone()),
                DataType::Binary => columns.push(format!("{}({name}) AS {name}", merge_function(name))),
                _ if name == "window_start_ms" => keys.push(name.clone()),
                _ if name.starts_with("last_") => columns.push(format!("max({name}) AS {name}")),
                _ => columns.push(format!("sum({name}) AS {name}")),
            }
        }
        let (keys, columns) = (keys.join(", "), columns.join(", "));
        let sql = format!("SELECT {keys}, {columns} FROM {} GROUP BY {keys} ORDER BY {keys}", partial.name);
        let rows = ctx.sql(&sql).await.expect("plans").collect().await.expect("runs");
        tables.insert(partial.name, pretty_format_batches(&rows).expect("prints").to_string());
    }
    tables
}

fn merge_function(column: &str) -> &'static str {
    match column {
        "arrivals" => "second_counts_merge",
        "joint_tokens" => "joint_histogram_merge",
        _ => "ddsketch_merge",
    }
}

async fn counted(store: &Store) -> i64 {
    one_number(store, "SELECT coalesce(sum(requests), 0) FROM workload_minute").await
}

async fn one_number(store: &Store, sql: &str) -> i64 {
    use arrow::array::AsArray;
    let ctx = session(store).await.expect("the session opens");
    let rows = ctx.sql(sql).await.expect("plans").collect().await.expect("runs");
    rows[0].column(0).as_primitive::<arrow::datatypes::Int64Type>().value(0)
}

async fn versions(store: &Store) -> Vec<i64> {
    let mut versions = Vec::new();
    for partial in PARTIALS {
        let table = store.existing(partial.name).await.expect("opens").expect("is there");
        versions.push(table.version());
    }
    versions
}

/// A request with everything that the partial tables look at, its figures spread by `n`.
fn full_request(n: i64) -> Request {
    Request {
        tenant: (n % 5 != 0).then(|| format!("tenant-{}", n % 2)),
        domain: (n % 3 != 0).then(|| format!("domain-{}", n % 3)),
        executed_model: Some(format!("model-{}", n % 2)),
        pool: Some("a".to_owned()),
        ttft_ms: Some(20.0 + (n * 37 % 400) as f64 / 3.0),
        tpot_ms: Some(5.0 + (n % 7) as f64 / 9.0),
        end_to_end_ms: Some(900.0 + n as f64),
        prompt_tokens: Some(Tokens(i32::try_from(100 + n * 7919 % 5000).expect("small"))),
        completion_tokens: Some(Tokens(i32::try_from(n * 104_729 % 700).expect("small"))),
        cost_usd: Some(Usd(0.000_123 * (n % 11) as f64)),
        tools_offered: Some(vec!["search".to_owned(); usize::from(n % 4 == 0)]),
        turn: Some(i32::try_from(n % 3).expect("small")),
        ..request(&format!("r{n}"), T0_MS + n * 1_700 % 900_000)
    }
}

#[tokio::test]
async fn a_late_event_lands_in_the_window_that_it_belongs_to() {
    let store = memory_store().await;
    append(&store, &[request("on-time", T0_MS)]).await;
    append(&store, &[request("newest", T0_MS + 90 * MINUTE_MS)]).await;
    catch_up(&store).await.expect("catches up");
    append(&store, &[request("late", T0_MS + 1_000)]).await;
    let done = catch_up(&store).await.expect("catches up");

    assert_eq!((done.rows_in, done.late_rows), (1, 1));
    let window = T0_MS - T0_MS % MINUTE_MS;
    let sql = format!("SELECT sum(requests) FROM workload_minute WHERE window_start_ms = {window}");
    assert_eq!(one_number(&store, &sql).await, 2, "the late row is not in the window of its arrival");
    assert_eq!(counted(&store).await, 3);
}

#[tokio::test]
async fn catching_up_twice_adds_nothing() {
    let store = memory_store().await;
    append(&store, &(0..50).map(full_request).collect::<Vec<_>>()).await;
    let first = catch_up(&store).await.expect("catches up");
    assert_eq!((first.rows_in, first.versions), (50, 2), "the table's creation and one append");
    let (before, view) = (versions(&store).await, merged(&store).await);
    assert_eq!(catch_up(&store).await.expect("catches up"), CaughtUp::default());
    assert_eq!(versions(&store).await, before, "a derived table got a commit");
    assert_eq!(merged(&store).await, view);
}

#[tokio::test]
async fn a_crash_between_the_commits_of_two_tables_changes_nothing() {
    let events: Vec<Request> = (0..60).map(full_request).collect();
    let calm = memory_store().await;
    for version in events.chunks(20) {
        append(&calm, version).await;
    }
    catch_up(&calm).await.expect("catches up");

    for survivors in 1..PARTIALS.len() {
        let store = memory_store().await;
        append(&store, &events[..20]).await;
        catch_up(&store).await.expect("catches up");
        append(&store, &events[20..40]).await;
        // The process that dies here has committed to the first tables only.
        let mut dying = Summariser::new(store.clone(), SummariserConfig::default());
        dying.partials.truncate(survivors);
        dying.catch_up().await.expect("catches up");
        append(&store, &events[40..]).await;
        append(&store, &events[10..30]).await;
        let done = catch_up(&store).await.expect("catches up");
        assert_eq!(done.repeated_rows, 20, "redeliveries were not recognised after the crash");
        assert_eq!(merged(&store).await, merged(&calm).await, "{survivors} table(s) had committed");
    }
}

#[tokio::test]
async fn a_request_is_counted_at_its_first_finished_delivery_only() {
    let store = memory_store().await;
    let running = Request { terminal: Some(false), ..request("a", T0_MS) };
    let corrected = Request { revision: Some(1), error_class: Some("timeout".to_owned()), ..request("a", T0_MS) };
    append(&store, &[running]).await;
    append(&store, &[request("a", T0_MS), request("a", T0_MS)]).await;
    let first = catch_up(&store).await.expect("catches up");
    assert_eq!((first.unfinished_rows, first.repeated_rows), (1, 1));
    append(&store, &[corrected]).await;
    let second = catch_up(&store).await.expect("catches up");
    assert_eq!((second.corrected_rows, second.repeated_rows), (1, 0), "a new process did not know the id");
    assert_eq!(counted(&store).await, 1);
    assert_eq!(one_number(&store, "SELECT sum(errors) FROM workload_minute").await, 0);
    let corrected = "SELECT count(*) FROM requests WHERE request_id = 'a' AND is_error";
    assert_eq!(one_number(&store, corrected).await, 1, "the canonical row is not the last revision");
}

#[tokio::test]
async fn of_revisions_in_one_commit_the_highest_is_counted() {
    let store = memory_store().await;
    let revised = |revision, class: Option<&str>| Request {
        revision,
        error_class: class.map(str::to_owned),
        http_status: Some(200),
        ..request("a", T0_MS)
    };
    append(&store, &[revised(None, None), revised(Some(2), Some("timeout")), revised(Some(1), None)]).await;
    let done = catch_up(&store).await.expect("catches up");
    assert_eq!((done.repeated_rows, done.corrected_rows), (2, 0));
    assert_eq!(counted(&store).await, 1);
    assert_eq!(
        one_number(&store, "SELECT sum(errors) FROM workload_minute").await,
        1,
        "the correction was not counted"
    );
}

#[tokio::test]
async fn a_redelivery_is_known_although_another_partition_is_hours_ahead() {
    let store = memory_store().await;
    let mut lives_on = Summariser::new(store.clone(), SummariserConfig::default());
    append(&store, &[request("a", T0_MS)]).await;
    append(&store, &[request("ahead", T0_MS + 120 * MINUTE_MS)]).await;
    lives_on.catch_up().await.expect("catches up");
    append(&store, &[request("a", T0_MS)]).await;
    assert_eq!(lives_on.catch_up().await.expect("catches up").repeated_rows, 1);
    append(&store, &[request("a", T0_MS)]).await;
    assert_eq!(catch_up(&store).await.expect("catches up").repeated_rows, 1, "a new process had forgotten the id");
    assert_eq!(counted(&store).await, 2);
}

#[tokio::test]
async fn summaries_count_the_requests_that_the_canonical_view_holds() {
    let store = memory_store().await;
    let events: Vec<Request> = (0..60).map(full_request).collect();
    append(&store, &events[..40]).await;
    append(&store, &[&events[20..], &events[..5]].concat()).await;
    let corrected = Request { revision: Some(3), ..events[7].clone() };
    append(&store, &[corrected, events[59].clone()]).await;
    let done = catch_up(&store).await.expect("catches up");
    assert_eq!((done.repeated_rows, done.corrected_rows), (26, 1));
    let canonical = one_number(&store, "SELECT count(*) FROM requests").await;
    assert_eq!(canonical, 60);
    for partial in PARTIALS {
        let sum = one_number(&store, &format!("SELECT sum(requests) FROM {}", partial.name)).await;
        assert_eq!(sum, canonical, "{}", partial.name);
    }
}

#[tokio::test]
async fn a_sum_of_money_that_64_bits_cannot_hold_is_exact() {
    let store = memory_store().await;
    let dear = |n| Request { cost_usd: Some(Usd(1e6)), ..request(&format!("r{n}"), T0_MS) };
    append(&store, &(0..10_000).map(dear).collect::<Vec<_>>()).await;
    catch_up(&store).await.expect("catches up");
    let billions = "SELECT CAST(sum(cost_nanousd_sum) / 1000000000000000000 AS BIGINT) FROM workload_minute";
    assert_eq!(one_number(&store, billions).await, 10, "10,000 million USD, above 2^63 nano-USD");
}

#[tokio::test]
async fn only_the_columns_that_summaries_are_made_of_are_read() {
    let store = memory_store().await;
    append(&store, &[request("a", T0_MS)]).await;
    let mut summariser = Summariser::new(store.clone(), SummariserConfig::default());
    summariser.catch_up().await.expect("catches up");
    let open = summariser.open.expect("it has tables open");
    let has = |name: &str| open.columns.field_with_name(name).is_ok();
    assert!(has("tools_called") && has("ttft_ms") && has("request_id"), "{:?}", open.columns);
    assert!(!has("prompt_text") && !has("context_text") && !has("response_text") && !has("extra"));
    assert_eq!(open.id_columns.fields().len(), dedupe::COLUMNS.len());
}

#[tokio::test]
async fn partial_rows_are_what_the_same_query_says_of_all_raw_rows() {
    let store = memory_store().await;
    for version in (0..90).map(full_request).collect::<Vec<_>>().chunks(25) {
        append(&store, version).await;
    }
    catch_up(&store).await.expect("catches up");
    let ctx = session(&store).await.expect("the session opens");
    for partial in PARTIALS {
        let table = store.existing(partial.name).await.expect("opens").expect("is there");
        let whole = partial.rows(&ctx, &table.schema()).await.expect("runs");
        let single = memory_store().await;
        let mut copy = single.table(&partial.spec().await.expect("plans")).await.expect("opens");
        copy.commit(whole, Vec::new()).await.expect("commits");
        let (stream, raw) = (merged(&store).await, merged(&single).await);
        assert_eq!(stream[partial.name], raw[partial.name], "{}", partial.name);
    }
}

#[tokio::test]
async fn two_processes_that_summarise_the_same_tables_count_every_request_once() {
    let store = memory_store().await;
    let events: Vec<Request> = (0..30).map(full_request).collect();
    let config = SummariserConfig::default();
    let (mut one, mut other) = (Summariser::new(store.clone(), config), Summariser::new(store.clone(), config));
    for version in events.chunks(10) {
        append(&store, version).await;
        // Each finds that the other has moved the positions that it remembers, and goes on from the tables.
        one.catch_up().await.expect("catches up");
        let late = other.catch_up().await.expect("catches up");
        assert_eq!(late, CaughtUp::default(), "the second process summarised the same rows");
        std::mem::swap(&mut one, &mut other);
    }
    assert_eq!(counted(&store).await, 30);
}

#[tokio::test]
async fn a_broken_clock_does_not_stop_the_stream() {
    let store = memory_store().await;
    let broken = [i64::MIN, i64::MIN + 700_000, -1, 0, i64::MAX];
    append(&store, &broken.map(|arrival_ms| request(&format!("at {arrival_ms}"), arrival_ms))).await;
    append(&store, &[request("a", T0_MS), request("a", T0_MS)]).await;
    catch_up(&store).await.expect("catches up");
    append(&store, &[request("a", T0_MS), request("b", T0_MS)]).await;
    let done = catch_up(&store).await.expect("catches up");
    assert_eq!((done.repeated_rows, done.late_rows), (1, 1), "beside a row from the end of time the others are late");
    assert_eq!(counted(&store).await, 7);
    for at in [i64::MIN + 700_000, -1, 0, T0_MS, i64::MAX] {
        let start = at - at.rem_euclid(MINUTE_MS);
        let sql = format!("SELECT coalesce(sum(requests), 0) FROM workload_minute WHERE window_start_ms = {start}");
        assert_eq!(one_number(&store, &sql).await, if at == T0_MS { 2 } else { 1 }, "arrived at {at}");
    }
}

/// Removes the log entries of the raw table `requests` below `version`, as retention does behind a checkpoint.
async fn lose_log_below(store: &Store, version: i64) {
    let mut raw = store.existing("requests").await.expect("opens").expect("is there");
    while raw.version() < 100 {
        let filler = Advance { app_id: format!("filler/{}", raw.version()), expected: None, next: 0 };
        raw.commit(Vec::new(), vec![filler]).await.expect("commits");
    }
    raw.maintained().await; // the commit of version 100 has started a checkpoint
    for gone in 0..version {
        store.delete(&format!("tables/requests/_delta_log/{gone:020}.json")).await.expect("is removed");
    }
}

#[tokio::test]
async fn a_new_table_starts_at_the_oldest_version_in_the_log_and_leaves_the_others_as_they_are() {
    let store = memory_store().await;
    append(&store, &[request("old", T0_MS), request("again", T0_MS)]).await;
    append(&store, &[request("kept", T0_MS), request("again", T0_MS)]).await;
    let mut older = Summariser::new(store.clone(), SummariserConfig::default());
    older.partials.truncate(1);
    older.catch_up().await.expect("catches up");
    lose_log_below(&store, 2).await;

    // The other tables are new: a build that knows more of them has been installed.
    let newer = catch_up(&store).await.expect("catches up");
    assert_eq!(newer.versions_gone, 2, "the table's creation and the first append");
    let requests = |table: &str| format!("SELECT coalesce(sum(requests), 0) FROM {table}");
    assert_eq!(one_number(&store, &requests(PARTIALS[0].name)).await, 3);
    assert_eq!(one_number(&store, &requests(PARTIALS[1].name)).await, 2, "what the log still holds");

    append(&store, &[request("new", T0_MS + 1), request("kept", T0_MS)]).await;
    let later = catch_up(&store).await.expect("catches up");
    assert_eq!((later.versions_gone, later.rows_in, later.repeated_rows), (0, 2, 1));
    assert_eq!(one_number(&store, &requests(PARTIALS[0].name)).await, 4);
    assert_eq!(one_number(&store, &requests(PARTIALS[1].name)).await, 3);
}

#[tokio::test]
async fn a_table_with_a_position_does_not_skip_a_version_that_is_gone() {
    let store = memory_store().await;
    append(&store, &[request("a", T0_MS)]).await;
    catch_up(&store).await.expect("catches up");
    append(&store, &[request("b", T0_MS)]).await;
    lose_log_below(&store, 3).await;
    let refused = catch_up(&store).await;
    assert!(matches!(&refused, Err(FeaturesError::Store(StoreError::VersionGone { version: 2, .. }))), "{refused:?}");
}

#[tokio::test]
async fn a_raw_table_that_was_put_back_from_an_older_copy_is_not_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().to_str().unwrap()).await.unwrap();
    append(&store, &[request("a", T0_MS)]).await;
    append(&store, &[request("b", T0_MS)]).await;
    catch_up(&store).await.expect("catches up");
    std::fs::remove_file(folder.path().join("tables/requests/_delta_log/00000000000000000002.json")).unwrap();

    // A new process each: one that holds the table finds its version gone.
    let went_back = |error: &FeaturesError| match error {
        FeaturesError::RawWentBack { version, consumed, derived, .. } => {
            (*version, *consumed, derived.as_str()) == (1, 2, "workload_minute")
        }
        _ => false,
    };
    let refused = catch_up(&store).await.unwrap_err();
    assert!(went_back(&refused), "{refused}");
    let refused = rebuild(&store, &SummariserConfig::default()).await.unwrap_err();
    assert!(went_back(&refused), "{refused}");

    // As the error says.
    for table in ["workload_minute", "workload_sketch", "token_sketch"] {
        std::fs::remove_dir_all(folder.path().join("tables").join(table)).unwrap();
    }
    rebuild(&store, &SummariserConfig::default()).await.expect("is rebuilt");
    append(&store, &[request("c", T0_MS)]).await;
    catch_up(&store).await.expect("goes on from there");
    assert_eq!(counted(&store).await, 2, "a and c");
}

#[tokio::test]
async fn a_rebuild_mends_corrections_forgotten_ids_and_a_gap_in_the_log() {
    let store = memory_store().await;
    let config = SummariserConfig { dedupe_keys_max: 1, ..SummariserConfig::default() };
    append(&store, &[request("a", T0_MS), request("b", T0_MS), request("c", T0_MS)]).await;
    append(&store, &[request("d", T0_MS)]).await;
    append(&store, &[request("a", T0_MS)]).await;
    Summariser::new(store.clone(), config).catch_up().await.expect("catches up");
    assert_eq!(counted(&store).await, 5, "an id that was forgotten counts twice");
    append(&store, &[Request { revision: Some(1), error_class: Some("late".to_owned()), ..request("b", T0_MS) }]).await;
    append(&store, &[request("e", T0_MS)]).await;
    lose_log_below(&store, 5).await;
    assert!(catch_up(&store).await.is_err(), "the log still holds the version");

    let rebuilt = rebuild(&store, &SummariserConfig::default()).await.expect("is rebuilt").expect("has a raw table");
    assert_eq!((rebuilt.partial_rows, rebuilt.frozen_rows), (3, 0));
    assert_eq!(counted(&store).await, 5, "a, b, c, d and e");
    assert_eq!(one_number(&store, "SELECT sum(errors) FROM workload_minute").await, 1);

    append(&store, &[request("e", T0_MS), request("f", T0_MS)]).await;
    let done = catch_up(&store).await.expect("goes on from there");
    assert_eq!((done.rows_in, done.repeated_rows), (2, 1), "an id of before the rebuild was not known");
    assert_eq!(counted(&store).await, 6);
}

#[tokio::test]
async fn a_rebuild_that_dies_between_two_tables_leaves_each_old_or_new() {
    let calm = memory_store().await;
    let events: Vec<Request> = (0..40).map(full_request).collect();
    append(&calm, &events).await;
    catch_up(&calm).await.expect("catches up");
    for survivors in 1..PARTIALS.len() {
        let store = memory_store().await;
        append(&store, &events[..20]).await;
        catch_up(&store).await.expect("catches up");
        append(&store, &events[20..30]).await;
        let config = SummariserConfig::default();
        super::rebuild::rebuild_tables(&store, &config, &PARTIALS[..survivors]).await.expect("is rebuilt");
        append(&store, &events[5..]).await;
        catch_up(&store).await.expect("catches up");
        assert_eq!(merged(&store).await, merged(&calm).await, "{survivors} table(s) were rebuilt");
    }
}

#[tokio::test]
async fn a_rebuild_keeps_the_summaries_of_what_raw_no_longer_holds() {
    let store = memory_store().await;
    append(&store, &[request("a", T0_MS)]).await;
    catch_up(&store).await.expect("catches up");
    // The same rows a day earlier stand for requests whose raw rows were removed.
    for partial in PARTIALS {
        let ctx = session(&store).await.expect("opens");
        let columns = "* EXCEPT (window_start_ms), window_start_ms - 86400000 AS window_start_ms";
        let earlier = ctx.sql(&format!("SELECT {columns} FROM {}", partial.name)).await.expect("plans");
        let mut table = store.existing(partial.name).await.expect("opens").expect("is there");
        let rows = earlier.collect().await.expect("runs");
        let rows = rows.iter().map(|batch| conformed(batch, &table.schema(), partial.name).expect("fits")).collect();
        table.commit(rows, Vec::new()).await.expect("commits");
    }
    let before = merged(&store).await;
    let rebuilt = rebuild(&store, &SummariserConfig::default()).await.expect("is rebuilt").expect("has a raw table");
    assert_eq!((rebuilt.partial_rows, rebuilt.frozen_rows), (6, 3));
    assert_eq!(merged(&store).await, before);
}

#[tokio::test]
async fn a_rebuild_beside_a_process_that_summarises_is_refused_or_whole() {
    let store = memory_store().await;
    assert_eq!(rebuild(&store, &SummariserConfig::default()).await.expect("nothing to do"), None);
    append(&store, &[request("a", T0_MS)]).await;
    let mut running = Summariser::new(store.clone(), SummariserConfig::default());
    running.catch_up().await.expect("catches up");
    append(&store, &[request("b", T0_MS)]).await;
    rebuild(&store, &SummariserConfig::default()).await.expect("is rebuilt");
    // The other process finds its positions moved, and goes on from the tables.
    append(&store, &[request("b", T0_MS), request("c", T0_MS)]).await;
    assert_eq!(running.catch_up().await.expect("catches up").repeated_rows, 1);
    assert_eq!(counted(&store).await, 3);
}

#[tokio::test]
async fn the_same_request_id_of_two_tenants_is_two_requests() {
    let store = memory_store().await;
    let of = |tenant: &str| Request { tenant: Some(tenant.to_owned()), ..request("r", T0_MS) };
    append(&store, &[of("acme"), of("globex"), request("r", T0_MS), of("acme")]).await;
    let done = catch_up(&store).await.expect("catches up");
    assert_eq!((done.rows_in, done.repeated_rows), (4, 1));
    assert_eq!(counted(&store).await, 3);
    assert_eq!(one_number(&store, "SELECT count(*) FROM requests").await, 3);
}

#[tokio::test]
async fn without_a_raw_table_there_is_nothing_to_do() {
    let store = memory_store().await;
    assert_eq!(catch_up(&store).await.expect("catches up"), CaughtUp::default());
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    // Redeliveries included: `order` may name an event more than once.
    #[test]
    fn any_split_into_raw_versions_gives_the_same_merged_bytes(
        order in prop::collection::vec(0i64..40, 1..60),
        cuts in prop::collection::vec(0usize..60, 0..4),
        restarts: u8,
        chunk_rows in 1u64..40,
        chunk_bytes in prop_oneof![Just(1usize), Just(usize::MAX)],
    ) {
        let events: Vec<Request> = order.iter().map(|n| full_request(*n)).collect();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % events.len()).collect();
        cuts.extend([0, events.len()]);
        cuts.sort_unstable();
        runtime().block_on(async {
            let whole = memory_store().await;
            append(&whole, &events).await;
            catch_up(&whole).await.expect("catches up");
            let split = memory_store().await;
            let config = SummariserConfig { chunk_rows, chunk_bytes, ..SummariserConfig::default() };
            let mut summariser = Summariser::new(split.clone(), config);
            for (step, cut) in cuts.windows(2).enumerate() {
                append(&split, &events[cut[0]..cut[1]]).await;
                if restarts & 1 << step != 0 {
                    summariser = Summariser::new(split.clone(), config);
                } else if step % 2 == 0 {
                    summariser.catch_up().await.expect("catches up");
                }
            }
            summariser.catch_up().await.expect("catches up");
            prop_assert_eq!(merged(&split).await, merged(&whole).await);
            Ok(())
        })?;
    }

    // Ids come back before and after they are forgotten; a process that restarts must forget the same ones. The two stores
    // are not committed to at the same moments, so only the number of ids makes them forget here.
    #[test]
    fn a_restart_forgets_the_same_ids_as_a_process_that_lives_on(
        deliveries in prop::collection::vec(prop::collection::vec((0u8..12, 0i64..600_000), 1..6), 1..8),
        keys_max in 3usize..40,
    ) {
        let config = SummariserConfig { dedupe_horizon_ms: i64::MAX, dedupe_keys_max: keys_max, ..SummariserConfig::default() };
        runtime().block_on(async {
            let (steady, restarted) = (memory_store().await, memory_store().await);
            let mut lives_on = Summariser::new(steady.clone(), config);
            for version in &deliveries {
                let rows: Vec<Request> =
                    version.iter().map(|(id, at)| request(&format!("r{id}"), T0_MS + at)).collect();
                append(&steady, &rows).await;
                append(&restarted, &rows).await;
                let here = lives_on.catch_up().await.expect("catches up");
                let there = Summariser::new(restarted.clone(), config).catch_up().await.expect("catches up");
                prop_assert_eq!(here, there);
            }
            prop_assert_eq!(merged(&steady).await, merged(&restarted).await);
            Ok(())
        })?;
    }
}
