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
    assert_eq!(second.repeated_rows, 1, "a new process did not know the id");
    assert_eq!(counted(&store).await, 1);
    assert_eq!(one_number(&store, "SELECT sum(errors) FROM workload_minute").await, 0);
    let corrected = "SELECT count(*) FROM requests WHERE request_id = 'a' AND is_error";
    assert_eq!(one_number(&store, corrected).await, 1, "the canonical row is not the last revision");
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
    let broken = [i64::MIN, -1, 0, i64::MAX];
    append(&store, &broken.map(|arrival_ms| request(&format!("at {arrival_ms}"), arrival_ms))).await;
    append(&store, &[request("a", T0_MS), request("a", T0_MS)]).await;
    catch_up(&store).await.expect("catches up");
    append(&store, &[request("a", T0_MS), request("b", T0_MS)]).await;
    catch_up(&store).await.expect("catches up");
    assert_eq!(counted(&store).await, 6);
}

/// Removes the log entries of the raw table `requests` below `version`, as retention does behind a checkpoint.
async fn lose_log_below(store: &Store, version: i64) {
    let mut raw = store.existing("requests").await.expect("opens").expect("is there");
    while raw.version() < 100 {
        let filler = Advance { app_id: format!("filler/{}", raw.version()), expected: None, next: 0 };
        raw.commit(Vec::new(), vec![filler]).await.expect("commits");
    }
    assert_eq!(raw.maintain().await.expect("is maintained").checkpoint, Some(raw.version()));
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
        chunk_rows in 1u64..40,
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
            let config = SummariserConfig { chunk_rows, ..SummariserConfig::default() };
            let mut summariser = Summariser::new(split.clone(), config);
            for (step, cut) in cuts.windows(2).enumerate() {
                append(&split, &events[cut[0]..cut[1]]).await;
                if step % 2 == 0 {
                    summariser.catch_up().await.expect("catches up");
                }
            }
            summariser.catch_up().await.expect("catches up");
            prop_assert_eq!(merged(&split).await, merged(&whole).await);
            Ok(())
        })?;
    }

    // Ids come back before and after they are forgotten; a process that restarts must forget the same ones.
    #[test]
    fn a_restart_forgets_the_same_ids_as_a_process_that_lives_on(
        deliveries in prop::collection::vec(prop::collection::vec((0u8..12, 0i64..600_000), 1..6), 1..8),
        keys_max in 3usize..40,
    ) {
        let config = SummariserConfig { dedupe_horizon_ms: 100_000, dedupe_keys_max: keys_max, ..SummariserConfig::default() };
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
