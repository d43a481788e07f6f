//! Ingest on a real Apache Kafka: transactions, retention and restarts, which a mock cluster does not have; and groups that share
//! a topic, and listeners that want TLS and credentials.

mod groups;
mod patterns;
mod secure;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::watch;
use weir_ingest::{
    Encoding, Format, IngestConfig, IngestError, IngestSummary, OnDataLoss, Start, TopicConfig, TypeConflicts,
};
use weir_store::{Keyring, Store};

const WAIT: Duration = Duration::from_secs(30);

struct Kafka {
    folder: PathBuf,
    brokers: String,
}

impl Kafka {
    /// `None` when this machine has no Kafka: the test says so and returns.
    fn start(folder: &Path) -> Option<Self> {
        Self::start_with(folder, &[])
    }

    fn start_with(folder: &Path, options: &[&str]) -> Option<Self> {
        // Shown of a test that fails.
        tracing_subscriber::fmt()
            .with_env_filter("warn,weir_ingest=info")
            .with_test_writer()
            .with_ansi(false)
            .try_init()
            .ok();
        let mut kafka = Self { folder: folder.join("kafka"), brokers: String::new() };
        let output = kafka.script("start", options);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.code() == Some(3) {
            let required = std::env::var("WEIR_REQUIRE").unwrap_or_default();
            assert!(
                !required.split(',').any(|part| part.trim() == "kafka"),
                "kafka is required here but missing: {said}"
            );
            eprintln!("{}", said.trim());
            return None;
        }
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        kafka.brokers = said.lines().last().unwrap_or_default().to_owned();
        Some(kafka)
    }

    fn script(&self, command: &str, options: &[&str]) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/kafka/kafka.sh");
        Command::new("bash")
            .arg(script)
            .args([command, "--dir"])
            .arg(&self.folder)
            .args(options)
            .output()
            .expect("bash runs")
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        config
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().unwrap()
    }

    async fn create_topic(&self, topic: &str, partitions: i32) {
        let admin = self.admin();
        let wanted = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        for created in admin.create_topics([&wanted], &AdminOptions::new()).await.unwrap() {
            created.unwrap();
        }
    }

    fn produce(&self, topic: &str, ids: impl IntoIterator<Item = i64>) {
        let producer: BaseProducer = self.client().create().unwrap();
        send(&producer, topic, ids);
        producer.flush(WAIT).unwrap();
    }

    /// Sends the ids in one transaction, committed or aborted. Either leaves a marker at the end of each partition.
    fn produce_in_transaction(&self, topic: &str, ids: impl IntoIterator<Item = i64>, commit: bool) {
        let producer: BaseProducer = self.client().set("transactional.id", "t").create().unwrap();
        producer.init_transactions(WAIT).unwrap();
        producer.begin_transaction().unwrap();
        send(&producer, topic, ids);
        producer.flush(WAIT).unwrap();
        if commit { producer.commit_transaction(WAIT) } else { producer.abort_transaction(WAIT) }.unwrap();
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        self.script("stop", &[]);
    }
}

fn send(producer: &BaseProducer, topic: &str, ids: impl IntoIterator<Item = i64>) {
    for id in ids {
        let (key, payload) = (id.to_string(), format!(r#"{{"request_id": "{id}", "arrival_ms": 1700000000000}}"#));
        let record = BaseRecord::to(topic).key(&key).payload(&payload);
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.poll(Duration::ZERO);
    }
}

fn config(kafka: &Kafka, topic: &str) -> IngestConfig {
    IngestConfig {
        brokers: kafka.brokers.clone(),
        group_id: format!("weir-{topic}"),
        job: "test".to_owned(),
        topics: vec![TopicConfig {
            topic: topic.to_owned(),
            format: Format::Requests,
            encoding: Encoding::Json,
            headers: Vec::new(),
        }],
        patterns: Vec::new(),
        flush_rows: 500,
        flush_bytes: 64 << 20,
        flush_interval: Duration::from_millis(200),
        stop_when_drained: true,
        keep_text: false,
        allowed_unknown: Vec::new(),
        registry: None,
        type_conflicts: TypeConflicts::default(),
        start: Start::Earliest,
        on_data_loss: OnDataLoss::Stop,
        kafka: BTreeMap::new(),
        dead_letter_days: 7,
        storage_patience: IngestConfig::STORAGE_PATIENCE,
    }
}

async fn store(folder: &Path) -> (Store, Keyring) {
    let store = Store::open(folder.join("data").to_str().unwrap()).await.unwrap();
    (store, Keyring::open(folder.join("keys")).unwrap())
}

async fn run(folder: &Path, config: IngestConfig) -> Result<IngestSummary, IngestError> {
    let (store, keyring) = store(folder).await;
    let (_running, stop) = watch::channel(false);
    tokio::time::timeout(Duration::from_secs(120), weir_ingest::run(store, keyring, config, stop, |_, _, _| {}))
        .await
        .expect("drained within two minutes")
}

/// Request ids of all rows, sorted; a row stored twice is in it twice.
async fn stored(folder: &Path) -> Vec<i64> {
    let Some(table) = store(folder).await.0.existing("requests").await.unwrap() else { return Vec::new() };
    let mut ids = Vec::new();
    for version in 1..=table.version() {
        for batch in table.appended(version).await.unwrap() {
            assert_eq!(batch.column_by_name("arrival_ms").unwrap().as_primitive::<Int64Type>().len(), batch.num_rows());
            let names = batch.column_by_name("request_id").unwrap().as_string::<i32>();
            ids.extend(names.iter().map(|id| id.unwrap().parse::<i64>().unwrap()));
        }
    }
    ids.sort_unstable();
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_broker_with_transactions_restarts_and_retention() {
    let folder = tempfile::tempdir().unwrap();
    let Some(kafka) = Kafka::start(folder.path()) else { return };

    // Aborted records are not there, and the markers at the partitions' ends do not keep it from draining.
    kafka.create_topic("ledger", 2).await;
    kafka.produce_in_transaction("ledger", 0..300, true);
    kafka.produce_in_transaction("ledger", 1_000..1_100, false);
    kafka.produce_in_transaction("ledger", 300..400, true);
    kafka.produce_in_transaction("ledger", 2_000..2_100, false);
    run(folder.path(), config(&kafka, "ledger")).await.unwrap();
    assert_eq!(stored(folder.path()).await, (0..400).collect::<Vec<_>>());
    assert_eq!(run(folder.path(), config(&kafka, "ledger")).await.unwrap().messages, 0);

    // The broker goes and comes back in the middle of a run.
    let elsewhere = tempfile::tempdir().unwrap();
    kafka.create_topic("stream", 2).await;
    kafka.produce("stream", 0..1_000);
    let mut endless = config(&kafka, "stream");
    endless.stop_when_drained = false;
    let (stop, stopping) = watch::channel(false);
    let (data, keyring) = store(elsewhere.path()).await;
    let running = tokio::spawn(weir_ingest::run(data, keyring, endless, stopping, |_, _, _| {}));
    wait_for(elsewhere.path(), 1_000).await;
    kafka.script("stop", &[]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(kafka.script("start", &[]).status.success());
    kafka.produce("stream", 1_000..2_000);
    wait_for(elsewhere.path(), 2_000).await;
    stop.send_replace(true);
    running.await.unwrap().unwrap();
    assert_eq!(stored(elsewhere.path()).await, (0..2_000).collect::<Vec<_>>());

    // Progress is shown in Kafka for people, and counts for nothing here: moved back, it changes nothing. (Not asked of the
    // run above: the group may have thrown it out while the broker was away, and then it has no say.)
    let calm = tempfile::tempdir().unwrap();
    kafka.create_topic("calm", 2).await;
    kafka.produce("calm", 0..500);
    assert_eq!(run(calm.path(), config(&kafka, "calm")).await.unwrap().messages, 500);
    let group: BaseConsumer = kafka.client().set("group.id", "weir-calm").create().unwrap();
    let mut moved = TopicPartitionList::new();
    moved.add_partition_range("calm", 0, 1);
    let shown = group.committed_offsets(moved.clone(), WAIT).unwrap();
    let shown: i64 = shown.elements().iter().filter_map(|at| at.offset().to_raw()).sum();
    assert_eq!(shown, 500, "the group's offsets in Kafka");
    moved.set_all_offsets(Offset::Offset(0)).unwrap();
    group.commit(&moved, rdkafka::consumer::CommitMode::Sync).unwrap();
    drop(group);
    assert_eq!(run(calm.path(), config(&kafka, "calm")).await.unwrap().messages, 0);

    // Messages that Kafka deleted before we read them are data loss, and said so.
    kafka.produce("stream", 2_000..2_100);
    let admin = kafka.admin();
    let mut cut = TopicPartitionList::new();
    cut.add_partition_offset("stream", 0, Offset::End).unwrap();
    cut.add_partition_offset("stream", 1, Offset::End).unwrap();
    admin.delete_records(&cut, &AdminOptions::new()).await.unwrap();
    let error = run(elsewhere.path(), config(&kafka, "stream")).await.unwrap_err();
    assert!(matches!(error, IngestError::OffsetGone { .. }), "{error}");
    assert_eq!(stored(elsewhere.path()).await.len(), 2_000);

    // Where the configuration says "count", the gap is recorded, once, and reading goes on behind it.
    kafka.produce("stream", 2_100..2_200);
    let mut counting = config(&kafka, "stream");
    counting.on_data_loss = OnDataLoss::Count;
    run(elsewhere.path(), counting.clone()).await.unwrap();
    assert_eq!(stored(elsewhere.path()).await, (0..2_000).chain(2_100..2_200).collect::<Vec<_>>());
    assert_eq!(run(elsewhere.path(), counting.clone()).await.unwrap().messages, 0);
    let (data, _) = store(elsewhere.path()).await;
    let gaps = data.existing("ingest_gaps").await.unwrap().expect("a table of gaps");
    let (mut rows, mut lost) = (0, 0);
    for version in 1..=gaps.version() {
        for batch in gaps.appended(version).await.unwrap() {
            let offsets = |name: &str| batch.column_by_name(name).unwrap().as_primitive::<Int64Type>().values().clone();
            rows += batch.num_rows();
            lost += offsets("to_offset").iter().zip(&offsets("from_offset")).map(|(to, from)| to - from).sum::<i64>();
        }
    }
    // Two partitions; a transaction's marker takes an offset too.
    assert!(rows == 2 && (100..=104).contains(&lost), "{rows} gaps of {lost} offsets");
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_that_change_under_a_job_are_followed_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let Some(kafka) = Kafka::start(folder.path()) else { return };
    let admin = kafka.admin();

    // A partition that is added after "latest" was chosen holds nothing older than the choice: it is read whole.
    kafka.create_topic("growing", 1).await;
    kafka.produce("growing", 0..50);
    let mut latest = config(&kafka, "growing");
    latest.start = Start::Latest;
    assert_eq!(run(folder.path(), latest.clone()).await.unwrap().messages, 0);
    for grown in admin.create_partitions([&NewPartitions::new("growing", 2)], &AdminOptions::new()).await.unwrap() {
        grown.unwrap();
    }
    kafka.produce("growing", 100..200);
    run(folder.path(), latest).await.unwrap();
    assert_eq!(stored(folder.path()).await, (100..200).collect::<Vec<_>>());

    // In a run without end, the position passes the marker that a transaction leaves: retention may have it then.
    let endless_folder = tempfile::tempdir().unwrap();
    kafka.create_topic("ledger", 1).await;
    kafka.produce_in_transaction("ledger", 0..20, true);
    let mut endless = config(&kafka, "ledger");
    endless.stop_when_drained = false;
    let (stop, stopping) = watch::channel(false);
    let (data, keyring) = store(endless_folder.path()).await;
    let running = tokio::spawn(weir_ingest::run(data, keyring, endless, stopping, |_, _, _| {}));
    wait_for_position(endless_folder.path(), "weir/test/ledger/0", 21).await;
    stop.send_replace(true);
    running.await.unwrap().unwrap();
    let mut cut = TopicPartitionList::new();
    cut.add_partition_offset("ledger", 0, Offset::End).unwrap();
    admin.delete_records(&cut, &AdminOptions::new()).await.unwrap();
    run(endless_folder.path(), config(&kafka, "ledger")).await.expect("nothing was lost");

    // Deleted and created again under its name: the positions are not about it.
    for deleted in admin.delete_topics(&["ledger"], &AdminOptions::new()).await.unwrap() {
        deleted.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    kafka.create_topic("ledger", 1).await;
    kafka.produce("ledger", 0..60);
    let error = run(endless_folder.path(), config(&kafka, "ledger")).await.unwrap_err();
    assert!(matches!(error, IngestError::TopicRecreated { .. }), "{error}");
    assert_eq!(stored(endless_folder.path()).await.len(), 20);
}

async fn wait_for_position(folder: &Path, app_id: &str, position: i64) {
    let mut at = None;
    for _ in 0..200 {
        if let Some(table) = store(folder).await.0.existing("requests").await.unwrap() {
            at = table.position(app_id).await.unwrap();
            if at >= Some(position) {
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("{app_id} is at {at:?} of {position} after 40 s");
}

async fn wait_for(folder: &Path, rows: usize) {
    for _ in 0..300 {
        if stored(folder).await.len() >= rows {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("{} of {rows} rows after a minute", stored(folder).await.len());
}
