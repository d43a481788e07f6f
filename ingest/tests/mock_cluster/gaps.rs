//! What Kafka lost before it was read: it stops a run, or becomes a gap that is recorded exactly, whoever dies meanwhile.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int32Type, Int64Type};
use object_store::memory::InMemory;
use tokio::sync::watch;
use weir_ingest::{
    Decided, Format, IngestConfig, IngestError, OnDataLoss, PartitionId, PositionState, SkipTo, forget, positions, skip,
};
use weir_store::{Fault, Keyring, Store};

use crate::bench::{Bench, assert_rows, eventually, ids, replay_record, request, row_ids};
use crate::gate::{Side, gated};

const REQUESTS: [(&str, Format); 1] = [("llm", Format::Requests)];
const BOTH: [(&str, Format); 1] = [("llm", Format::VllmSemanticRouter)];

/// A row of `ingest_gaps`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Gap {
    topic: String,
    partition: i32,
    from: i64,
    to: Option<i64>,
    tables: String,
    cause: String,
    actor: String,
    reason: Option<String>,
}

async fn gaps(store: &Store) -> Vec<Gap> {
    let Some(table) = store.existing("ingest_gaps").await.unwrap() else { return Vec::new() };
    let mut gaps = Vec::new();
    for version in 1..=table.version() {
        for batch in table.appended(version).await.unwrap() {
            let text = |name: &str, row: usize| {
                let column = batch.column_by_name(name).unwrap().as_string::<i32>();
                column.is_valid(row).then(|| column.value(row).to_owned())
            };
            let number = |name: &str| batch.column_by_name(name).unwrap().as_primitive::<Int64Type>().clone();
            let partitions = batch.column_by_name("source_partition").unwrap().as_primitive::<Int32Type>();
            for row in 0..batch.num_rows() {
                assert_eq!(text("job", row).as_deref(), Some("test"));
                let to = number("to_offset");
                gaps.push(Gap {
                    topic: text("source_topic", row).unwrap(),
                    partition: partitions.value(row),
                    from: number("from_offset").value(row),
                    to: to.is_valid(row).then(|| to.value(row)),
                    tables: text("tables", row).unwrap(),
                    cause: text("cause", row).unwrap(),
                    actor: text("actor", row).unwrap(),
                    reason: text("reason", row),
                });
            }
        }
    }
    gaps.sort();
    gaps
}

fn ann() -> Decided {
    Decided { actor: "ann".to_owned(), reason: Some("it is gone".to_owned()) }
}

fn partition(id: &str) -> PartitionId {
    id.parse().unwrap()
}

/// The mock keeps 5 MiB of a partition: what is older goes.
fn produce_until_the_first_are_gone(bench: &Bench, topic: &str) {
    let large = |n: i64| request(n).map(|json| [json, vec![b' '; 200 << 10]].concat());
    bench.produce(topic, 0, (0..40).map(large));
}

/// Ten messages are read, and some of those after them are lost; Kafka's first offset, and one past its last.
async fn bench_with_a_loss(config: impl Fn(&Bench) -> IngestConfig) -> (Bench, i64, i64) {
    let bench = Bench::new(&[("llm", 1), ("whole", 1)]).await;
    bench.produce("llm", 0, (0..10).map(request));
    bench.produce("whole", 0, (0..10).map(request));
    bench.run(config(&bench)).await.unwrap();
    produce_until_the_first_are_gone(&bench, "llm");
    let listed = positions(&bench.store, &config(&bench)).await.unwrap();
    let lost = listed.partitions.iter().find(|of| of.topic == "llm").unwrap();
    assert_eq!((lost.next, lost.state, lost.lag), (Some(10), PositionState::Lost, Some(40)), "{lost:?}");
    let (low, high) = (lost.low.unwrap(), lost.high.unwrap());
    assert!(low > 10 && high == 50, "{lost:?}");
    (bench, low, high)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_stops_the_run_and_a_skip_is_the_way_on() {
    let two = [("llm", Format::Requests), ("whole", Format::Requests)];
    let (bench, low, high) = bench_with_a_loss(|bench| bench.config(&two)).await;
    let config = bench.config(&two);
    let stopped = bench.run(config.clone()).await.unwrap_err();
    assert!(matches!(stopped, IngestError::OffsetGone { position: 10, .. }), "{stopped}");
    assert!(stopped.to_string().contains("weir positions skip llm/0 --to earliest"), "{stopped}");
    assert_eq!((gaps(&bench.store).await, stopped.fault()), (vec![], Fault::Outside));

    let llm = partition("llm/0");
    let refused = async |to| skip(&bench.store, &config, &llm, to, ann()).await.unwrap_err().to_string();
    assert!(refused(SkipTo::Offset(9)).await.contains("Kafka holds"), "it is gone too");
    assert!(refused(SkipTo::Offset(high + 1)).await.contains("Kafka holds"));
    let nobody = skip(&bench.store, &config, &partition("llm/1"), SkipTo::Latest, ann()).await.unwrap_err();
    assert!(matches!(nobody, IngestError::NoPartition { partitions: 1, .. }), "{nobody}");
    let back = skip(&bench.store, &config, &partition("whole/0"), SkipTo::Offset(3), ann()).await.unwrap_err();
    assert!(back.to_string().contains("going back would store rows twice"), "{back}");

    let skipped = skip(&bench.store, &config, &llm, SkipTo::Earliest, ann()).await.unwrap();
    assert_eq!((skipped.from_offset, skipped.to_offset, skipped.tables.len()), (10, low, 1));
    let again = skip(&bench.store, &config, &llm, SkipTo::Earliest, ann()).await.unwrap_err();
    assert!(again.to_string().contains("goes on there already"), "{again}");
    bench.run(config.clone()).await.unwrap();
    let expected = [ids("llm", 0, 0..10), ids("llm", 0, low..high), ids("whole", 0, 0..10)].concat();
    assert_rows(&bench.row_ids("requests").await, &expected);
    let gap = Gap {
        topic: "llm".to_owned(),
        partition: 0,
        from: 10,
        to: Some(low),
        tables: "requests".to_owned(),
        cause: "skipped".to_owned(),
        actor: "ann".to_owned(),
        reason: Some("it is gone".to_owned()),
    };
    assert_eq!(gaps(&bench.store).await, [gap]);
    let listed = positions(&bench.store, &config).await.unwrap();
    assert!(listed.partitions.iter().all(|of| of.state == PositionState::Ok && of.lag == Some(0)), "{listed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_is_counted_where_the_configuration_says_so() {
    let counting = |bench: &Bench| {
        let mut config = bench.config(&[("llm", Format::Requests), ("whole", Format::Requests)]);
        config.on_data_loss = OnDataLoss::Count;
        config
    };
    let (bench, low, high) = bench_with_a_loss(counting).await;
    bench.run(counting(&bench)).await.unwrap();
    let expected = [ids("llm", 0, 0..10), ids("llm", 0, low..high), ids("whole", 0, 0..10)].concat();
    assert_rows(&bench.row_ids("requests").await, &expected);
    let found = gaps(&bench.store).await;
    assert_eq!((found.len(), found[0].from, found[0].to, found[0].cause.as_str()), (1, 10, Some(low), "data_loss"));
    bench.run(counting(&bench)).await.unwrap();
    assert_eq!(gaps(&bench.store).await, found, "nothing more was lost");

    // A position beyond the end is another thing: going back would store rows twice.
    let advance = weir_store::Advance { app_id: "weir/test/llm/0".to_owned(), expected: Some(high), next: high + 9 };
    let mut table = bench.store.existing("requests").await.unwrap().unwrap();
    table.commit(vec![], vec![advance]).await.unwrap();
    let beyond = bench.run(counting(&bench)).await.unwrap_err();
    assert!(matches!(beyond, IngestError::OffsetGone { .. }), "{beyond}");
    assert!(beyond.to_string().contains("weir positions forget llm --force"), "{beyond}");
    let listed = positions(&bench.store, &counting(&bench)).await.unwrap();
    assert!(listed.partitions.iter().any(|of| of.state == PositionState::BeyondEnd), "{listed:?}");
}

/// Every message is a row of each table, or in a gap that says that this table has it, and never both.
async fn assert_each_once(store: &Store, messages: i64, when: &str) {
    let gaps = gaps(store).await;
    for table in ["requests", "feedback"] {
        let rows: BTreeSet<i64> = row_ids(store, table).await.iter().map(|(.., offset)| *offset).collect();
        if table == "requests" {
            assert_eq!(row_ids(store, table).await.len(), rows.len(), "{when}: doubled rows");
        }
        let its = gaps.iter().filter(|gap| gap.tables.split(',').any(|name| name == table));
        let passed: Vec<i64> = its.flat_map(|gap| gap.from..gap.to.unwrap()).collect();
        let mut all: Vec<i64> = rows.into_iter().chain(passed).collect();
        all.sort_unstable();
        assert_eq!(all, (0..messages).collect::<Vec<_>>(), "{when}: {table}, gaps {gaps:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_any_change_or_woken_after_its_successor_a_skip_is_recorded_as_it_is() {
    let memory = Arc::new(InMemory::new());
    let mut bench = Bench::new(&[("llm", 1)]).await;
    (bench.store, _) = gated(&memory, None);
    bench.produce("llm", 0, (0..10).map(replay_record));
    let config = bench.config(&BOTH);
    bench.run(config.clone()).await.unwrap();
    bench.produce("llm", 0, (10..30).map(replay_record));
    let llm = partition("llm/0");
    let (store, keeper) = gated(&Arc::new(memory.fork()), None);
    skip(&store, &config, &llm, SkipTo::Offset(20), ann()).await.unwrap();
    let changes = keeper.changes();
    assert!(changes >= 5, "{changes} changes: an intent, two moves, a record and the end have more");

    // Killed after a change is killed before the next one.
    let mut cases = tokio::task::JoinSet::new();
    for at in 0..changes {
        for (side, wakes) in [(Side::Before, false), (Side::Before, true), (Side::After, true)] {
            let forked = Arc::new(memory.fork());
            let (keyring, mut config) = (bench.keyring.clone(), config.clone());
            config.group_id = format!("weir-{at}-{side:?}-{wakes}");
            cases.spawn(async move {
                let when = format!("change {at}, {side:?}, wakes: {wakes}");
                stopped_in_a_change(&forked, (at, side), wakes, keyring, config, &when).await;
            });
        }
    }
    while let Some(ended) = cases.join_next().await {
        ended.unwrap();
    }
}

async fn stopped_in_a_change(
    memory: &Arc<InMemory>,
    stop: (usize, Side),
    wakes: bool,
    keyring: Keyring,
    config: IngestConfig,
    when: &str,
) {
    let (frozen, keeper) = gated(memory, Some(stop));
    let of = config.clone();
    let process = tokio::spawn(async move { skip(&frozen, &of, &partition("llm/0"), SkipTo::Offset(20), ann()).await });
    keeper.stopped().await;
    if !wakes {
        process.abort();
    }
    let (store, _) = gated(memory, None);
    let (_stop, stopping) = watch::channel(false);
    weir_ingest::run(store.clone(), keyring, config, stopping, |_, _, _| {}).await.unwrap();
    assert_each_once(&store, 30, when).await;
    if wakes {
        keeper.open();
        let woken = process.await.unwrap();
        assert!(matches!(woken, Ok(_) | Err(IngestError::BeingRead { .. })), "{when}: {woken:?}");
        assert_each_once(&store, 30, when).await;
    }
    assert!(store.list("gaps").await.unwrap().is_empty(), "{when}: an intent was left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_not_stopped_is_fenced_by_a_skip() {
    let bench = Bench::new(&[("llm", 1)]).await;
    bench.produce("llm", 0, (0..10).map(request));
    let mut config = bench.config(&REQUESTS);
    bench.run(config.clone()).await.unwrap();
    config.stop_when_drained = false;
    config.flush_interval = Duration::from_secs(3_600);
    bench.produce("llm", 0, (10..40).map(request));
    let running = bench.start(config.clone(), |_, _, _| {});
    // It has read them all, and holds them.
    tokio::time::sleep(Duration::from_secs(5)).await;
    skip(&bench.store, &config, &partition("llm/0"), SkipTo::Offset(25), ann()).await.unwrap();
    running.stop().await.unwrap();
    assert_rows(&bench.row_ids("requests").await, &ids("llm", 0, 0..10));
    bench.run(bench.config(&REQUESTS)).await.unwrap();
    assert_rows(&bench.row_ids("requests").await, &[ids("llm", 0, 0..10), ids("llm", 0, 25..40)].concat());
    assert_eq!(gaps(&bench.store).await.len(), 1);
}

/// As if the topic had been another one when it was first read.
async fn make_again(store: &Store, path: &str) {
    let mut note: serde_json::Value = serde_json::from_slice(&store.get(path).await.unwrap().unwrap()).unwrap();
    note["topic_id"] = "AnotherTopicsIdInBase64".into();
    store.put(path, note.to_string().into()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_made_again_is_read_as_another_once_the_old_one_is_given_up() {
    let bench = Bench::new(&[("llm", 2)]).await;
    let bad = || Some(b"nobody reads this".to_vec());
    bench.produce("llm", 0, (0..5).map(request).chain([bad()]));
    bench.produce("llm", 1, (5..8).map(request));
    let config = bench.config(&REQUESTS);
    bench.run(config.clone()).await.unwrap();
    let early = forget(&bench.store, &config, "llm", false, ann()).await.unwrap_err();
    assert!(matches!(early, IngestError::SameTopic { .. }) && early.to_string().contains("--force"), "{early}");
    let unknown = forget(&bench.store, &config, "other", false, ann()).await.unwrap_err();
    assert!(matches!(unknown, IngestError::NoPositions { .. }), "{unknown}");

    make_again(&bench.store, "sources/requests/llm.json").await;
    let refused = bench.run(config.clone()).await.unwrap_err().to_string();
    assert!(refused.contains("weir positions forget llm"), "{refused}");
    let refused = skip(&bench.store, &config, &partition("llm/0"), SkipTo::Latest, ann()).await.unwrap_err();
    assert!(matches!(refused, IngestError::TopicRecreated { .. }), "{refused}");
    let listed = positions(&bench.store, &config).await.unwrap();
    assert!(listed.partitions.iter().all(|of| of.state == PositionState::AnotherTopic), "{listed:?}");

    let forgotten = forget(&bench.store, &config, "llm", false, ann()).await.unwrap();
    assert_eq!((forgotten.source_topic.as_str(), forgotten.left_at), ("llm@2", [(0, 6), (1, 3)].into()));
    let listed = positions(&bench.store, &config).await.unwrap();
    assert!(listed.partitions.iter().all(|of| of.state == PositionState::New), "{listed:?}");
    let found = gaps(&bench.store).await;
    assert_eq!(found.iter().map(|gap| (gap.from, gap.to)).collect::<Vec<_>>(), [(6, None), (3, None)]);
    assert!(found.iter().all(|gap| gap.cause == "topic_forgotten" && gap.topic == "llm"), "{found:?}");

    // "Latest" is about what was there when the job first came.
    let mut latest = config.clone();
    latest.start = weir_ingest::Start::Latest;
    bench.run(latest).await.unwrap();
    let first = [ids("llm", 0, 0..5), ids("llm", 1, 0..3)].concat();
    let second = [ids("llm@2", 0, 0..5), ids("llm@2", 1, 0..3)].concat();
    assert_rows(&bench.row_ids("requests").await, &[first, second].concat());
    assert_rows(&bench.row_ids("dead_letters").await, &[ids("llm", 0, [5]), ids("llm@2", 0, [5])].concat());
    assert_eq!(bench.run(config.clone()).await.unwrap().messages, 0);
    let listed = positions(&bench.store, &config).await.unwrap();
    assert!(listed.partitions.iter().all(|of| of.state == PositionState::Ok && of.source_topic == "llm@2"));

    // Letters of both are replayed, each under its own name.
    bench.run(config.clone()).await.unwrap();
    let letters = weir_ingest::DeadLetters::open(&bench.store, "test", 7).await.unwrap();
    assert!(letters.find(&"llm@2/0/5".parse().unwrap()).await.unwrap().is_some());
    let all = weir_ingest::LetterFilter::default();
    let dry = weir_ingest::ReplayMode::DryRun;
    let report = weir_ingest::replay(&bench.store, &bench.keyring, &config, &all, dry, |_, _, _| {}).await.unwrap();
    assert_eq!((report.other_topics, report.unsettled, report.rejected.len()), (0, 0, 2), "{report:?}");

    // Cut off, as far as an operator says: once more.
    let forced = forget(&bench.store, &config, "llm", true, ann()).await.unwrap();
    assert_eq!(forced.source_topic, "llm@3");
    bench.run(config).await.unwrap();
    assert_eq!(bench.row_ids("requests").await.len(), 24);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_giving_up_that_was_interrupted_is_finished_by_the_next() {
    let bench = Bench::new(&[("llm", 1)]).await;
    bench.produce("llm", 0, (0..5).map(replay_record));
    let config = bench.config(&BOTH);
    bench.run(config.clone()).await.unwrap();
    for table in ["requests", "feedback"] {
        make_again(&bench.store, &format!("sources/{table}/llm.json")).await;
    }
    let path = "sources/feedback/llm.json";
    let old = bench.store.get(path).await.unwrap().unwrap();
    assert_eq!(forget(&bench.store, &config, "llm", false, ann()).await.unwrap().source_topic, "llm@2");
    // As if it had died before the last note.
    bench.store.put(path, old).await.unwrap();
    assert!(matches!(bench.run(config.clone()).await, Err(IngestError::TopicRecreated { .. })));
    assert_eq!(forget(&bench.store, &config, "llm", false, ann()).await.unwrap().source_topic, "llm@2");
    assert_eq!(gaps(&bench.store).await.len(), 1, "retired once");
    bench.run(config).await.unwrap();
    assert_rows(&bench.row_ids("requests").await, &[ids("llm", 0, 0..5), ids("llm@2", 0, 0..5)].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_are_told_also_while_no_broker_answers() {
    let bench = Bench::new(&[("llm", 2)]).await;
    bench.produce("llm", 1, (0..5).map(request));
    let mut config = bench.config(&[("llm", Format::Requests), ("absent", Format::Feedback)]);
    let listed = positions(&bench.store, &config).await.unwrap();
    assert_eq!(listed.partitions.iter().map(|of| of.state).collect::<Vec<_>>(), [PositionState::New; 2]);
    assert!(bench.store.list("").await.unwrap().is_empty(), "something was written");
    bench.run(bench.config(&REQUESTS)).await.unwrap();
    config.brokers = "127.0.0.1:1".to_owned();
    config.kafka.insert("metadata.request.timeout.ms".to_owned(), "1000".to_owned());
    let listed = positions(&bench.store, &config).await.unwrap();
    assert!(listed.kafka_error.is_some());
    let known: Vec<_> = listed.partitions.iter().map(|of| (of.partition, of.next, of.state)).collect();
    assert_eq!(known, [(1, Some(5), PositionState::Unknown)]);
    let refused = skip(&bench.store, &config, &partition("llm/1"), SkipTo::Latest, ann()).await.unwrap_err();
    assert!(matches!(refused, IngestError::Unreachable { .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_retention_takes_while_a_run_goes_on_is_counted_too() {
    let bench = Bench::new(&[("llm", 1)]).await;
    bench.produce("llm", 0, (0..10).map(request));
    let mut config = bench.config(&REQUESTS);
    config.on_data_loss = OnDataLoss::Count;
    bench.run(config.clone()).await.unwrap();
    produce_until_the_first_are_gone(&bench, "llm");
    config.stop_when_drained = false;
    let running = bench.start(config, |_, _, _| {});
    eventually("the gap", async || gaps(&bench.store).await.len() == 1).await;
    let low = gaps(&bench.store).await[0].to.unwrap();
    eventually("the rows behind it", async || bench.row_ids("requests").await.len() >= (10 + 50 - low) as usize).await;
    running.stop().await.unwrap();
    assert_rows(&bench.row_ids("requests").await, &[ids("llm", 0, 0..10), ids("llm", 0, low..50)].concat());
}
