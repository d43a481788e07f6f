//! Members that come and go while messages arrive, with partitions that leave and come one by one: cooperative-sticky
//! assignment, and the consumer protocol of KIP-848.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arrow::datatypes::Int32Type;
use tokio::task::JoinHandle;

use super::*;

const TOPIC: &str = "shared";
const BEFORE: i32 = 4;
const AFTER: i32 = 6;

/// A process of the group.
struct Member {
    rows: Arc<AtomicU64>,
    stop: watch::Sender<bool>,
    running: JoinHandle<Result<IngestSummary, IngestError>>,
}

impl Member {
    async fn join(folder: &Path, config: IngestConfig) -> Self {
        let (data, keyring) = store(folder).await;
        let (stop, stopping) = watch::channel(false);
        let rows = Arc::new(AtomicU64::new(0));
        let counted = rows.clone();
        let count = move |_: &str, _: i64, rows: u64| {
            counted.fetch_add(rows, Ordering::SeqCst);
        };
        let running = tokio::spawn(weir_ingest::run(data, keyring, config, stopping, count));
        Self { rows, stop, running }
    }

    async fn has_committed(&self, more: u64) {
        let wanted = self.rows.load(Ordering::SeqCst) + more;
        for _ in 0..600 {
            if self.rows.load(Ordering::SeqCst) >= wanted {
                return;
            }
            assert!(!self.running.is_finished(), "the member has ended");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{} of {wanted} rows after a minute", self.rows.load(Ordering::SeqCst));
    }

    async fn leave(self) -> Result<IngestSummary, IngestError> {
        self.stop.send_replace(true);
        self.running.await.unwrap()
    }
}

/// Partition and offset of all rows; fails on one that is stored twice.
async fn places(folder: &Path) -> BTreeSet<(i32, i64)> {
    let table = store(folder).await.0.existing("requests").await.unwrap().unwrap();
    let mut places = BTreeSet::new();
    for version in 1..=table.version() {
        for batch in table.appended(version).await.unwrap() {
            let partitions = batch.column_by_name("source_partition").unwrap().as_primitive::<Int32Type>();
            let offsets = batch.column_by_name("source_offset").unwrap().as_primitive::<Int64Type>();
            for place in partitions.values().iter().copied().zip(offsets.values().iter().copied()) {
                assert!(places.insert(place), "{place:?} is stored twice");
            }
        }
    }
    places
}

/// Sends messages without a pause until told to stop; new partitions are used within half a second.
fn produce_all_the_time(kafka: &Kafka) -> (Arc<AtomicBool>, std::thread::JoinHandle<i64>) {
    let enough = Arc::new(AtomicBool::new(false));
    let (ending, mut client) = (enough.clone(), kafka.client());
    let producing = std::thread::spawn(move || {
        let producer: BaseProducer = client.set("topic.metadata.refresh.interval.ms", "500").create().unwrap();
        let mut next = 0;
        while !ending.load(Ordering::SeqCst) {
            send(&producer, TOPIC, next..next + 50);
            next += 50;
            std::thread::sleep(Duration::from_millis(20));
        }
        producer.flush(WAIT).unwrap();
        next
    });
    (enough, producing)
}

async fn members_come_and_go(protocol: [(&str, &str); 2]) {
    let folder = tempfile::tempdir().unwrap();
    let Some(kafka) = Kafka::start(folder.path()) else { return };
    kafka.create_topic(TOPIC, BEFORE).await;
    let mut shared = config(&kafka, TOPIC);
    shared.stop_when_drained = false;
    // Seldom, so that a writer that must not be there has a chance between two commits.
    (shared.flush_rows, shared.flush_interval) = (100_000, Duration::from_secs(2));
    shared.kafka.extend(protocol.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let data: PathBuf = folder.path().join("tables");
    let (enough, producing) = produce_all_the_time(&kafka);

    let first = Member::join(&data, shared.clone()).await;
    first.has_committed(500).await;
    let second = Member::join(&data, shared.clone()).await;
    second.has_committed(500).await;
    first.has_committed(500).await;

    let grown = NewPartitions::new(TOPIC, AFTER as usize);
    for grown in kafka.admin().create_partitions([&grown], &AdminOptions::new()).await.unwrap() {
        grown.unwrap();
    }
    for partition in BEFORE..AFTER {
        wait_for_position(&data, &format!("weir/test/{TOPIC}/{partition}"), 50).await;
    }
    let third = Member::join(&data, shared.clone()).await;
    third.has_committed(200).await;

    let first = first.leave().await.unwrap();
    assert_eq!(first.restarts, 0, "nothing was dropped and read again: partitions left with their rows committed");
    assert_eq!(first.messages, first.rows["requests"], "each message was read once");
    second.has_committed(500).await;

    // A writer of the same job that is in another group fences whoever holds the partitions: they leave and join again.
    let mut foreign = shared.clone();
    (foreign.group_id, foreign.flush_rows) = ("another".to_owned(), 50);
    // It is fenced itself as often as not, so it may take several to be first once.
    let mut was_first = false;
    for _ in 0..10 {
        let rival = Member::join(&data, foreign.clone()).await;
        while !rival.running.is_finished() && rival.rows.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        was_first = rival.rows.load(Ordering::SeqCst) > 0;
        let ended = rival.leave().await;
        assert!(matches!(ended, Ok(_) | Err(IngestError::FencedOut { .. })), "{ended:?}");
        if was_first {
            break;
        }
    }
    assert!(was_first, "the foreign writer never was first");
    second.has_committed(500).await;
    third.has_committed(200).await;
    let second = second.leave().await.unwrap();

    enough.store(true, Ordering::SeqCst);
    let produced = usize::try_from(producing.join().unwrap()).unwrap();
    wait_for(&data, produced).await;
    let third = third.leave().await.unwrap();
    assert!(second.restarts + third.restarts > 0, "the foreign writer fenced somebody");

    let client: BaseConsumer = kafka.client().create().unwrap();
    let ends = (0..AFTER).map(|partition| (partition, client.fetch_watermarks(TOPIC, partition, WAIT).unwrap().1));
    let sent: BTreeSet<_> = ends.flat_map(|(partition, end)| (0..end).map(move |offset| (partition, offset))).collect();
    assert_eq!(sent.len(), produced);
    assert!(places(&data).await == sent, "the rows are not the messages");
    assert_eq!(stored(&data).await, (0..produced as i64).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cooperative_group_is_exact_while_members_and_partitions_come_and_go() {
    members_come_and_go([
        ("partition.assignment.strategy", "cooperative-sticky"),
        ("topic.metadata.refresh.interval.ms", "500"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_of_the_consumer_protocol_is_exact_while_members_and_partitions_come_and_go() {
    members_come_and_go([("group.protocol", "consumer"), ("topic.metadata.refresh.interval.ms", "500")]).await;
}
