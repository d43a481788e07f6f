//! A sink on a store of its own, and what it does without anybody flushing, or with what another one has left.

use std::time::Duration;

use rdkafka::Timestamp;
use rdkafka::message::OwnedMessage;
use tempfile::TempDir;
use tokio::sync::watch;
use weir_store::{Keyring, Store};

use super::*;
use crate::config::tests::{config_of, llm};
use crate::run::drive;
use crate::source::channel;
use crate::{OnConflict, TypeConflicts};

const HELD: Watermarks = Watermarks { partition: (0, 0), low: 0, high: 9 };

/// What becomes of a number of tokens that is no number.
fn config(policy: OnConflict) -> IngestConfig {
    let columns = BTreeMap::from([("requests.prompt_tokens".to_owned(), policy)]);
    IngestConfig {
        flush_rows: 1_000,
        flush_bytes: 1 << 20,
        flush_interval: Duration::from_secs(3_600),
        type_conflicts: TypeConflicts { columns, ..TypeConflicts::default() },
        dead_letter_days: 7,
        ..config_of(vec![llm()])
    }
}

struct Bench {
    _folder: TempDir,
    store: Store,
    keyring: Keyring,
}

impl Bench {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("data").to_str().unwrap()).await.unwrap();
        let keyring = Keyring::open(folder.path().join("keys")).unwrap();
        Self { _folder: folder, store, keyring }
    }

    async fn sink(&self, policy: OnConflict) -> Sink<impl FnMut(&str, i64, u64) + Send + use<>> {
        let known = KnownTopic { config: llm(), id: None, partitions: 1 };
        let found = Found { known: Known { topics: vec![known], ..Known::default() }, wanted: Vec::new() };
        let (store, keyring) = (self.store.clone(), self.keyring.clone());
        Sink::open(store, keyring, config(policy), found, Arc::default(), |_: &str, _, _| {}).await.unwrap()
    }

    /// One that holds the partition and has taken these messages; `number` is the number of tokens of each.
    async fn taken(&self, policy: OnConflict, tokens: &[&str]) -> Sink<impl FnMut(&str, i64, u64) + Send + use<>> {
        let mut sink = self.sink(policy).await;
        assert_eq!(sink.assign(1, &[HELD], Instant::now()).await.unwrap(), Some(vec![0]));
        let mut chunk = Chunk::default();
        for (offset, tokens) in (0..).zip(tokens) {
            let json = format!(r#"{{"request_id": "r", "arrival_ms": 1700000000000, "prompt_tokens": {tokens}}}"#);
            let (topic, at) = ("llm".to_owned(), Timestamp::CreateTime(1_700_000_000_000));
            chunk.push(0, &llm(), &OwnedMessage::new(Some(json.into_bytes()), None, topic, at, 0, offset, None));
        }
        let decoded = sink.decoders.decode_aside(chunk, None).end().await.unwrap();
        sink.take(decoded).await.unwrap();
        sink
    }

    /// Offsets of the rows of a table, sorted; one that is there twice comes twice.
    async fn offsets(&self, table: &str) -> Vec<i64> {
        let table = self.store.existing(table).await.unwrap().unwrap();
        let mut offsets = Vec::new();
        for file in table.live_files().await.unwrap() {
            for batch in table.live_rows(&file, &[SOURCE_OFFSET]).await.unwrap() {
                offsets.extend(batch.unwrap().column(0).as_primitive::<Int64Type>().values());
            }
        }
        offsets.sort_unstable();
        offsets
    }
}

/// The second message is judged by the policy; the first is bad, and the third good, under any.
const MESSAGES: [&str; 3] = ["broken", "\"many\"", "7"];

#[tokio::test]
async fn a_message_that_is_bad_only_now_gets_its_letter_once_although_the_letters_are_ahead() {
    let bench = Bench::new().await;
    // It dies between its letters and its rows; to it the second message was good.
    let mut died = bench.taken(OnConflict::Null, &MESSAGES).await;
    died.flush_letters().await.unwrap();
    drop(died);
    assert_eq!(bench.offsets(DEAD_LETTERS).await, [0]);

    // Two that find the same letter missing, as a process and its zombie may.
    let mut first = bench.taken(OnConflict::DeadLetter, &MESSAGES[..2]).await;
    let mut second = bench.taken(OnConflict::DeadLetter, &MESSAGES[..2]).await;
    // The first dies at the same place.
    first.flush_letters().await.unwrap();
    drop(first);
    assert_eq!(second.flush().await.unwrap(), Flushed::Restarted, "both added the letter");
    assert_eq!(bench.offsets(DEAD_LETTERS).await, [0, 1]);

    let mut last = bench.taken(OnConflict::DeadLetter, &MESSAGES).await;
    assert_eq!(last.flush().await.unwrap(), Flushed::Done);
    assert_eq!(bench.offsets(DEAD_LETTERS).await, [0, 1]);
    assert_eq!(bench.offsets("requests").await, [2]);
}

#[tokio::test]
async fn a_message_that_is_good_only_now_gets_its_row_beside_its_letter() {
    let bench = Bench::new().await;
    let mut died = bench.taken(OnConflict::DeadLetter, &MESSAGES).await;
    died.flush_letters().await.unwrap();
    drop(died);
    let mut mended = bench.taken(OnConflict::Null, &MESSAGES).await;
    assert_eq!(mended.flush().await.unwrap(), Flushed::Done);
    assert_eq!((bench.offsets(DEAD_LETTERS).await, bench.offsets("requests").await), (vec![0, 1], vec![1, 2]));
}

#[tokio::test]
async fn keys_expire_although_nothing_is_read_and_nothing_flushed() {
    let bench = Bench::new().await;
    let mut sink = bench.sink(OnConflict::Null).await;
    let today = UtcDay::today();
    let (old, kept) = (today.minus_days(8), today.minus_days(7));
    for day in [old, kept] {
        bench.keyring.seal(day, b"anything").unwrap();
    }
    // As after a night in which nothing came.
    (sink.expired_on, sink.expire_at) = (Some(today.minus_days(1)), Instant::now() + Duration::from_millis(50));
    let (_sender, mut arriving) = channel();
    let (stop, stopping) = watch::channel(false);
    let keyring = bench.keyring.clone();
    let watching = tokio::spawn(async move {
        let mut expired = false;
        for _ in 0..200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            expired = !keyring.can_unseal(old).unwrap();
            if expired {
                break;
            }
        }
        // The last flush looks at the keys too.
        stop.send_replace(true);
        expired
    });
    drive(&mut sink, &mut arriving, None, stopping, || ()).await.unwrap();
    assert!(watching.await.unwrap(), "not before the end of the run");
    assert!(bench.keyring.can_unseal(kept).unwrap());
    assert_eq!(sink.expired_on, Some(today));
    assert!(sink.expire_at() > Instant::now(), "it is looked at again, and not all the time");
}
