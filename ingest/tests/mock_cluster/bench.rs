//! A mock cluster, a data folder, and what lands in it.

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use weir_ingest::{
    Encoding, Format, IngestConfig, IngestError, IngestSummary, OnDataLoss, Start, TopicConfig, TypeConflicts,
};
use weir_store::{Keyring, Store};

/// 2023-11-14T22:13:20Z.
pub const AT_MS: i64 = 1_700_000_000_000;

/// Where a row came from: topic, partition, offset.
pub type RowId = (String, i32, i64);

pub struct Bench {
    pub cluster: MockCluster<'static, DefaultProducerContext>,
    pub folder: TempDir,
    pub store: Store,
    pub keyring: Keyring,
}

/// A run in the background.
pub struct Running {
    pub stop: watch::Sender<bool>,
    pub task: JoinHandle<Result<IngestSummary, IngestError>>,
}

impl Running {
    pub async fn stop(self) -> Result<IngestSummary, IngestError> {
        self.stop.send_replace(true);
        self.task.await.unwrap()
    }
}

impl Bench {
    pub async fn new(topics: &[(&str, i32)]) -> Self {
        let cluster = MockCluster::new(1).unwrap();
        for (topic, partitions) in topics {
            cluster.create_topic(topic, *partitions, 1).unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("data").to_str().unwrap()).await.unwrap();
        let keyring = Keyring::open(folder.path().join("keys")).unwrap();
        Self { cluster, folder, store, keyring }
    }

    /// The same cluster with a data folder that holds nothing.
    pub async fn with_new_store(self) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("data").to_str().unwrap()).await.unwrap();
        let keyring = Keyring::open(folder.path().join("keys")).unwrap();
        Self { cluster: self.cluster, folder, store, keyring }
    }

    pub fn config(&self, topics: &[(&str, Format)]) -> IngestConfig {
        let topics = topics.iter().map(|(topic, format)| TopicConfig {
            topic: (*topic).to_owned(),
            format: format.clone(),
            encoding: Encoding::Json,
            headers: Vec::new(),
        });
        IngestConfig {
            brokers: self.cluster.bootstrap_servers(),
            group_id: "weir".to_owned(),
            job: "test".to_owned(),
            topics: topics.collect(),
            patterns: Vec::new(),
            flush_rows: 1_000,
            flush_bytes: 64 << 20,
            flush_interval: Duration::from_millis(300),
            stop_when_drained: true,
            keep_text: false,
            allowed_unknown: Vec::new(),
            registry: None,
            type_conflicts: TypeConflicts::default(),
            start: Start::Earliest,
            on_data_loss: OnDataLoss::Stop,
            kafka: BTreeMap::from([("session.timeout.ms".to_owned(), "6000".to_owned())]),
            dead_letter_days: 7,
            storage_patience: IngestConfig::STORAGE_PATIENCE,
        }
    }

    /// `None` is a tombstone.
    pub fn produce(&self, topic: &str, partition: i32, messages: impl IntoIterator<Item = Option<Vec<u8>>>) {
        let producer: BaseProducer =
            ClientConfig::new().set("bootstrap.servers", self.cluster.bootstrap_servers()).create().unwrap();
        for message in messages {
            let mut record = BaseRecord::<(), [u8]>::to(topic).partition(partition);
            if let Some(message) = &message {
                record = record.payload(message);
            }
            producer.send(record).map_err(|(error, _)| error).unwrap();
            producer.poll(Duration::ZERO);
        }
        producer.flush(Duration::from_secs(20)).unwrap();
    }

    pub async fn run(&self, config: IngestConfig) -> Result<IngestSummary, IngestError> {
        self.start(config, |_, _, _| {}).task.await.unwrap()
    }

    pub fn start(&self, config: IngestConfig, on_commit: impl FnMut(&str, i64, u64) + Send + 'static) -> Running {
        let (stop, stopping) = watch::channel(false);
        let (store, keyring) = (self.store.clone(), self.keyring.clone());
        let task = tokio::spawn(weir_ingest::run(store, keyring, config, stopping, on_commit));
        Running { stop, task }
    }

    pub async fn rows(&self, table: &str) -> Vec<RecordBatch> {
        rows(&self.store, table).await
    }

    /// Sorted; a row stored twice is in it twice.
    pub async fn row_ids(&self, table: &str) -> Vec<RowId> {
        row_ids(&self.store, table).await
    }
}

async fn rows(store: &Store, table: &str) -> Vec<RecordBatch> {
    let Some(table) = store.existing(table).await.unwrap() else { return Vec::new() };
    let mut batches = Vec::new();
    for version in 1..=table.version() {
        batches.extend(table.appended(version).await.unwrap());
    }
    batches
}

/// Where the rows of a table came from, sorted; a row stored twice is in it twice.
pub async fn row_ids(store: &Store, table: &str) -> Vec<RowId> {
    let mut ids = Vec::new();
    for batch in rows(store, table).await {
        let topics = batch.column_by_name("source_topic").unwrap().as_string::<i32>();
        let partitions = batch.column_by_name("source_partition").unwrap().as_primitive::<Int32Type>();
        let offsets = batch.column_by_name("source_offset").unwrap().as_primitive::<Int64Type>();
        for row in 0..batch.num_rows() {
            ids.push((topics.value(row).to_owned(), partitions.value(row), offsets.value(row)));
        }
    }
    ids.sort();
    ids
}

/// A good message of the `requests` contract.
#[must_use]
pub fn request(id: impl std::fmt::Display) -> Option<Vec<u8>> {
    Some(format!(r#"{{"request_id": "{id}", "arrival_ms": {AT_MS}, "caller": "ann", "propensity": 0.5}}"#).into_bytes())
}

/// A replay record of vLLM Semantic Router that yields one request and at least one feedback row.
#[must_use]
pub fn replay_record(id: impl std::fmt::Display) -> Option<Vec<u8>> {
    let record = format!(
        r#"{{"id": "{id}", "request_id": "{id}", "timestamp": "2023-11-14T22:13:20Z", "decision": "math",
            "original_model": "auto", "selected_model": "m", "response_status": 200, "hallucination_enabled": true,
            "hallucination_detected": true, "hallucination_confidence": 0.5}}"#
    );
    Some(record.into_bytes())
}

#[must_use]
pub fn ids(topic: &str, partition: i32, offsets: impl IntoIterator<Item = i64>) -> Vec<RowId> {
    offsets.into_iter().map(|offset| (topic.to_owned(), partition, offset)).collect()
}

/// The rows are exactly the expected ones; says in a line what is lost, doubled or foreign.
pub fn assert_rows(got: &[RowId], expected: &[RowId]) {
    let count = |ids: &[RowId]| {
        let mut counts: BTreeMap<RowId, i64> = BTreeMap::new();
        ids.iter().for_each(|id| *counts.entry(id.clone()).or_default() += 1);
        counts
    };
    let (got_counts, expected_counts) = (count(got), count(expected));
    let lost: Vec<_> = expected_counts.keys().filter(|id| !got_counts.contains_key(*id)).collect();
    let doubled: Vec<_> = got_counts.iter().filter(|(_, times)| **times > 1).map(|(id, _)| id).collect();
    let foreign: Vec<_> = got_counts.keys().filter(|id| !expected_counts.contains_key(*id)).collect();
    for (what, ids) in [("lost", lost), ("doubled", doubled), ("foreign", foreign)] {
        assert!(ids.is_empty(), "{} rows {what}, from {:?} to {:?}", ids.len(), ids.first(), ids.last());
    }
}

/// Polls until `done` says so, half a minute at most.
pub async fn eventually(what: &str, mut done: impl AsyncFnMut() -> bool) {
    for _ in 0..300 {
        if done().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("waited 30 s in vain: {what}");
}
