//! One ingest job, from the first look at the broker to the last commit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use tokio::sync::{mpsc, watch};
use weir_store::{Keyring, Store};

use crate::decode::{Stage, Staged};
use crate::lookout::{Lookout, Seen};
use crate::sink::{Found, Sink};
use crate::source::{Arriving, Control, News, Source};
use crate::{IngestConfig, IngestError, Result, broker, events};

/// What a run did. Counts are of this run; rows and dead letters are durable ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct IngestSummary {
    /// Messages decoded, tombstones included. A message that was read again after a restart counts again.
    pub messages: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// Rows committed, per raw table.
    pub rows: BTreeMap<String, u64>,
    /// Dead letters committed.
    pub dead_letters: u64,
    /// Messages without a value.
    pub tombstones: u64,
    /// Values that became null because of their type, by `table.column`, where its policy says so.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub nulled_values: BTreeMap<String, u64>,
    /// Delta commits.
    pub commits: u64,
    /// Times that uncommitted rows were dropped and read again (fenced, or the store was in trouble).
    pub restarts: u64,
    /// Times that reading was paused because the tables were slower than Kafka.
    pub pauses: u64,
}

/// Reads the topics into the tables until `stop` turns true (flush, commit, return), or until they are drained when
/// the configuration says so. `on_commit` is told of every durable commit: table, version, rows.
///
/// Nothing is written before a broker has answered and knows every topic.
///
/// # Errors
/// See [`IngestError`]. What was committed stays; a later run goes on from there.
pub async fn run(
    store: Store,
    keyring: Keyring,
    config: IngestConfig,
    stop: watch::Receiver<bool>,
    on_commit: impl FnMut(&str, i64, u64) + Send,
) -> Result<IngestSummary> {
    run_and_tell(store, keyring, config, stop, on_commit, || ()).await
}

/// As [`run`], and tells once when it is ready: the group has taken it in, and for what it was given, if only nothing, the
/// tables have said where to start.
///
/// # Errors
/// As [`run`].
pub async fn run_and_tell(
    store: Store,
    keyring: Keyring,
    config: IngestConfig,
    stop: watch::Receiver<bool>,
    on_commit: impl FnMut(&str, i64, u64) + Send,
    on_ready: impl FnOnce() + Send,
) -> Result<IngestSummary> {
    let mut on_ready = Some(on_ready);
    let job = config.job.clone();
    let known = broker::known(&config).await?;
    if known.topics.is_empty() {
        events::no_topic_matches(&job);
        if config.stop_when_drained {
            return Ok(IngestSummary::default());
        }
        // No group is joined before there is something to read.
        if let Some(on_ready) = on_ready.take() {
            on_ready();
        }
    }
    let wanted = if config.stop_when_drained { broker::watermarks(&config, &known.topics).await? } else { Vec::new() };
    let control = Arc::new(Control::default());
    let found = Found { known, wanted };
    let mut sink = Sink::open(store, keyring, config.clone(), found, control.clone(), on_commit).await?;
    let (lookout, mut seen) = Lookout::start(&config, control.clone())?;
    let (source, mut arriving) = Source::start(&config, control.clone())?;
    let on_ready = move || {
        if let Some(on_ready) = on_ready.take() {
            on_ready();
        }
    };
    let outcome = drive(&mut sink, &mut arriving, Some(&mut seen), stop, on_ready).await;
    drop(lookout);
    // Dropping the channel first: a poll thread that waits in it must not keep us waiting.
    drop(arriving);
    source.end().await;
    sink.finish().await;
    events::ended(&job, outcome.as_ref().err());
    sink.summary.pauses = control.pauses();
    outcome.map(|()| sink.summary)
}

/// `seen` is what the lookout sees, if there is one. `on_ready` is called for each answer to an assignment.
pub(crate) async fn drive<F: FnMut(&str, i64, u64) + Send>(
    sink: &mut Sink<F>,
    arriving: &mut Arriving,
    mut seen: Option<&mut mpsc::Receiver<Seen>>,
    mut stop: watch::Receiver<bool>,
    mut on_ready: impl FnMut() + Send,
) -> Result<()> {
    let mut stage = Stage::new(sink.decoders());
    let mut is_polling = true;
    loop {
        // Why it has ended, if it knows that, was news before.
        if !is_polling && stage.is_empty() {
            return Err(IngestError::PollThread);
        }
        let (flush_at, look_again_at, rest_until) = (sink.flush_at(), sink.look_again_at(), sink.rest_until());
        let takes = rest_until.is_none();
        tokio::select! {
            biased;
            () = stopped(&mut stop) => {
                // After a restart nothing is buffered, and what is not committed is still in Kafka.
                sink.flush().await?;
                return Ok(());
            }
            () = at(rest_until), if rest_until.is_some() => sink.go_on(),
            () = at(flush_at), if flush_at.is_some() => {
                sink.flush().await?;
            }
            () = at(Some(sink.expire_at())) => sink.expire_keys()?,
            () = at(look_again_at), if look_again_at.is_some() => {
                if sink.is_all_read().await? {
                    return Ok(());
                }
            }
            seen = look(&mut seen), if takes => match seen {
                Some(seen) => sink.see(seen).await?,
                None => return Err(IngestError::LookoutThread),
            },
            staged = stage.next(), if takes && !stage.is_empty() => {
                match handle(sink, staged?).await? {
                    Next::GoOn => {}
                    Next::IsReady => on_ready(),
                    Next::End => return Ok(()),
                }
            }
            event = arriving.recv(), if takes && is_polling && stage.has_room() => match event {
                Some(event) => stage.push(event),
                None => is_polling = false,
            },
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Next {
    GoOn,
    /// What we were given is read, or about to be.
    IsReady,
    End,
}

async fn handle<F: FnMut(&str, i64, u64) + Send>(sink: &mut Sink<F>, staged: Staged) -> Result<Next> {
    let news = match staged {
        Staged::News(news) => news,
        Staged::Chunk(chunk) => {
            sink.take(chunk).await?;
            if sink.is_full() {
                sink.flush().await?;
            }
            return Ok(Next::GoOn);
        }
    };
    match news {
        News::Assigned { generation, partitions, as_of, starts } => {
            // Dropped without an answer, the partitions stay parked, and we are asked again.
            if let Some(found) = sink.assign(generation, &partitions, as_of).await? {
                starts.send(found).ok();
                if sink.must_record_start() {
                    sink.flush().await?;
                }
                return Ok(Next::IsReady);
            }
        }
        News::NothingAssigned => return Ok(Next::IsReady),
        News::Revoked { partitions, done } => {
            sink.revoke(&partitions).await?;
            done.send(()).ok();
        }
        News::Ends { generation, ends } => sink.see_ends(generation, &ends),
        News::Drained { generation } => {
            if sink.drained(generation).await? {
                return Ok(Next::End);
            }
        }
        News::OffsetGone => sink.read_positions_again(),
        News::Failed(error) => return Err(error),
    }
    Ok(Next::GoOn)
}

/// What the lookout sees next; never, where there is none.
async fn look(seen: &mut Option<&mut mpsc::Receiver<Seen>>) -> Option<Seen> {
    match seen {
        Some(seen) => seen.recv().await,
        None => std::future::pending().await,
    }
}

/// Resolves when the flag is true; never when its sender has gone without saying so.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending().await
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[path = "../../store/tests/faulty/mod.rs"]
mod faulty;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rdkafka::Timestamp;
    use rdkafka::message::OwnedMessage;
    use weir_store::Advance;

    use super::faulty::Faulty;
    use super::*;
    use crate::broker::Known;
    use crate::config::tests::{config_of, llm};
    use crate::source::{Chunk, Event, Generation, Watermarks, channel};
    use crate::topics::KnownTopic;
    use crate::{Format, raw_table_spec};

    const HELD: Watermarks = Watermarks { partition: (0, 0), low: 0, high: 3 };

    fn config() -> IngestConfig {
        IngestConfig {
            flush_rows: 1_000,
            flush_bytes: 1 << 20,
            flush_interval: Duration::from_secs(3_600),
            stop_when_drained: true,
            ..config_of(vec![llm()])
        }
    }

    fn assigned(generation: Generation) -> Event {
        let (partitions, as_of, starts) = (vec![HELD], Instant::now(), std::sync::mpsc::sync_channel(1).0);
        News::Assigned { generation, partitions, as_of, starts }.into()
    }

    fn messages(offsets: std::ops::Range<i64>) -> Event {
        let mut chunk = Chunk::default();
        for offset in offsets {
            let json = format!(r#"{{"request_id": "{offset}", "arrival_ms": 1700000000000}}"#).into_bytes();
            let (topic, at) = ("llm".to_owned(), Timestamp::CreateTime(1_700_000_000_000));
            chunk.push(0, &llm(), &OwnedMessage::new(Some(json), None, topic, at, 0, offset, None));
        }
        Event::Messages(chunk)
    }

    fn drained(generation: Generation) -> Event {
        News::Drained { generation }.into()
    }

    /// Another writer moves the position of a partition of "llm", as a process of the same job does.
    async fn move_position(store: &Store, partition: i32, expected: Option<i64>, next: i64) {
        let mut table = store.table(&raw_table_spec(Format::Requests.contracts()[0])).await.unwrap();
        table.refresh().await.unwrap();
        let advance = Advance { app_id: config().app_id("llm", partition), expected, next };
        table.commit(vec![], vec![advance]).await.unwrap();
    }

    async fn bench(wanted: Vec<Watermarks>) -> (tempfile::TempDir, Store, Sink<impl FnMut(&str, i64, u64) + Send>) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("data").to_str().unwrap()).await.unwrap();
        bench_on(folder, store, wanted).await
    }

    async fn bench_on(
        folder: tempfile::TempDir,
        store: Store,
        wanted: Vec<Watermarks>,
    ) -> (tempfile::TempDir, Store, Sink<impl FnMut(&str, i64, u64) + Send>) {
        let keyring = Keyring::open(folder.path().join("keys")).unwrap();
        let known = KnownTopic { config: llm(), id: None, partitions: 2 };
        let found = Found { known: Known { topics: vec![known], ..Known::default() }, wanted };
        let sink = Sink::open(store.clone(), keyring, config(), found, Arc::default(), |_: &str, _, _| {}).await;
        (folder, store, sink.unwrap())
    }

    async fn ends(sink: &mut Sink<impl FnMut(&str, i64, u64) + Send>, event: Event) -> bool {
        pass(sink, event).await.unwrap() == Next::End
    }

    /// Through the stage, as in a run.
    async fn pass(sink: &mut Sink<impl FnMut(&str, i64, u64) + Send>, event: Event) -> Result<Next> {
        let mut stage = Stage::new(sink.decoders());
        stage.push(event);
        handle(sink, stage.next().await?).await
    }

    #[tokio::test]
    async fn drained_news_of_an_assignment_whose_rows_were_dropped_do_not_end_the_run() {
        let (_folder, store, mut sink) = bench(vec![HELD]).await;
        assert!(!ends(&mut sink, assigned(1)).await);
        assert!(!ends(&mut sink, messages(0..3)).await);
        // Fenced: the three rows are dropped, and only the first of them is in the table by another hand.
        move_position(&store, 0, None, 1).await;
        assert!(!ends(&mut sink, drained(1)).await, "the flush was fenced");
        assert_eq!(sink.summary.restarts, 1);
        assert!(!ends(&mut sink, drained(1)).await, "stale news ended the run without the rows");
        assert!(!ends(&mut sink, messages(0..3)).await);
        assert_eq!(sink.look_again_at(), None, "nothing to look at before the next assignment");

        assert!(!ends(&mut sink, assigned(2)).await);
        assert!(!ends(&mut sink, drained(1)).await, "news of the assignment before");
        assert!(!ends(&mut sink, messages(1..3)).await);
        assert!(ends(&mut sink, drained(2)).await);
        assert_eq!(sink.summary.rows["requests"], 2);
    }

    #[tokio::test]
    async fn what_stays_of_an_assignment_goes_on_when_a_part_of_it_leaves_or_comes() {
        let other = Watermarks { partition: (0, 1), low: 0, high: 9 };
        let (_folder, store, mut sink) = bench(vec![HELD, other]).await;
        let position = async |partition| {
            let table = store.existing("requests").await.unwrap().unwrap();
            table.position(&config().app_id("llm", partition)).await.unwrap()
        };
        let assigned = |generation, partitions: Vec<Watermarks>| {
            let (starts, answer) = std::sync::mpsc::sync_channel(1);
            (News::Assigned { generation, partitions, as_of: Instant::now(), starts }.into(), answer)
        };
        let (event, _answer) = assigned(1, vec![HELD]);
        pass(&mut sink, event).await.unwrap();
        pass(&mut sink, messages(0..1)).await.unwrap();
        // Another partition comes: what is buffered of the first stays buffered, and is not read again.
        let (event, answer) = assigned(2, vec![other]);
        pass(&mut sink, event).await.unwrap();
        assert_eq!((answer.recv().unwrap(), position(0).await), (vec![0], None));
        pass(&mut sink, messages(1..2)).await.unwrap();
        // It leaves again: all that is buffered is committed, and the first goes on under the same number.
        let (done, answer) = std::sync::mpsc::sync_channel(1);
        pass(&mut sink, News::Revoked { partitions: vec![other.partition], done }.into()).await.unwrap();
        answer.recv().unwrap();
        assert_eq!((position(0).await, position(1).await), (Some(2), None));
        pass(&mut sink, messages(2..3)).await.unwrap();
        assert!(!ends(&mut sink, drained(2)).await, "partition 1 is another member's to read");
        assert_eq!((position(0).await, sink.summary.rows["requests"]), (Some(3), 3));
        assert!(sink.look_again_at().is_some(), "and is waited for");
    }

    #[tokio::test]
    async fn a_proved_end_moves_the_position_also_in_a_run_without_end() {
        let (_folder, store, mut sink) = bench(vec![]).await;
        let position = async || {
            let table = store.existing("requests").await.unwrap().unwrap();
            table.position(&config().app_id("llm", 0)).await.unwrap()
        };
        pass(&mut sink, assigned(1)).await.unwrap();
        pass(&mut sink, messages(0..2)).await.unwrap();
        sink.flush().await.unwrap();
        assert_eq!((position().await, sink.flush_at()), (Some(2), None));
        // A transaction marker at offset 2: no message tells of it.
        let ends = |generation| News::Ends { generation, ends: vec![(HELD.partition, 3)] }.into();
        pass(&mut sink, ends(7)).await.unwrap();
        assert_eq!(sink.flush_at(), None, "news of another assignment");
        pass(&mut sink, ends(1)).await.unwrap();
        assert!(sink.flush_at().is_some(), "nothing would ever commit it");
        sink.flush().await.unwrap();
        assert_eq!(position().await, Some(3));
    }

    #[tokio::test]
    async fn storage_that_fails_while_positions_are_read_is_trouble_that_passes() {
        let backend = Arc::new(Faulty::default());
        let store = Store::with_backend(backend.clone(), "memory:///data/".parse().unwrap()).unwrap();
        let elsewhere = Watermarks { partition: (0, 1), low: 0, high: 9 };
        let (_folder, _store, mut sink) = bench_on(tempfile::tempdir().unwrap(), store, vec![HELD, elsewhere]).await;
        let dead = |dead| backend.dead.store(dead, std::sync::atomic::Ordering::SeqCst);

        dead(true);
        assert!(!ends(&mut sink, assigned(1)).await);
        assert_eq!(sink.summary.restarts, 1, "at the assignment");
        dead(false);
        assert!(!ends(&mut sink, assigned(2)).await);
        assert!(!ends(&mut sink, messages(0..3)).await);
        assert!(!ends(&mut sink, drained(2)).await, "partition 1 is read by nobody yet");
        assert_eq!(sink.summary.rows["requests"], 3);

        dead(true);
        assert!(!sink.is_all_read().await.unwrap());
        assert_eq!(sink.summary.restarts, 2, "while others are waited for");
        assert_eq!(sink.look_again_at(), None, "the next assignment looks again");
    }

    /// How a run ends whose poll thread says this and is gone.
    async fn end_after(news: Option<News>, seen: Option<&mut mpsc::Receiver<Seen>>) -> IngestError {
        let (_folder, _store, mut sink) = bench(vec![]).await;
        let (_stop, stopping) = watch::channel(false);
        let (sender, mut arriving) = channel();
        news.into_iter().for_each(|news| sender.news(news));
        // A lookout that dies is noticed while the poll thread lives.
        let sender = seen.is_some().then_some(sender);
        let driven = drive(&mut sink, &mut arriving, seen, stopping, || ());
        let ended = tokio::time::timeout(Duration::from_secs(10), driven).await.expect("it was noticed");
        drop(sender);
        ended.unwrap_err()
    }

    #[tokio::test]
    async fn threads_that_die_end_the_run() {
        assert!(matches!(end_after(None, None).await, IngestError::PollThread));
        let said = end_after(Some(News::Failed(IngestError::TopicRecreated { topic: "llm".to_owned() })), None).await;
        assert!(matches!(said, IngestError::TopicRecreated { .. }), "what it said comes first: {said}");
        let (lookout, mut seen) = mpsc::channel(1);
        drop(lookout);
        let error = end_after(None, Some(&mut seen)).await;
        assert!(matches!(error, IngestError::LookoutThread), "{error}");
    }

    #[tokio::test]
    async fn watermarks_of_long_ago_are_not_compared_with() {
        let (_folder, store, mut sink) = bench(vec![]).await;
        let long_ago = Instant::now().checked_sub(Duration::from_secs(60)).expect("the machine is up for a minute");
        // Somebody else has read on since.
        move_position(&store, 0, None, 9).await;
        let (starts, answer) = std::sync::mpsc::sync_channel(1);
        let news = News::Assigned { generation: 1, partitions: vec![HELD], as_of: long_ago, starts };
        assert_eq!(pass(&mut sink, news.into()).await.unwrap(), Next::GoOn, "it would look like data loss");
        assert!(answer.recv().is_err(), "we are asked again");
        let error = pass(&mut sink, assigned(2)).await.unwrap_err();
        assert!(matches!(error, IngestError::OffsetGone { position: 9, high: 3, .. }), "{error}");
    }

    #[tokio::test]
    async fn an_offset_that_kafka_refuses_and_says_it_holds_ends_the_run() {
        let (_folder, _store, mut sink) = bench(vec![]).await;
        pass(&mut sink, assigned(1)).await.unwrap();
        pass(&mut sink, News::OffsetGone.into()).await.unwrap();
        let error = pass(&mut sink, assigned(2)).await.map(|_| ()).unwrap_err();
        assert!(matches!(error, IngestError::OffsetRefused { .. }), "{error}");
    }

    #[tokio::test]
    async fn an_offset_that_kafka_refused_may_be_that_of_a_partition_that_is_gone_since() {
        let (_folder, _store, mut sink) = bench(vec![]).await;
        let other = Watermarks { partition: (0, 1), ..HELD };
        let both = |generation| {
            let (starts, _) = std::sync::mpsc::sync_channel(1);
            News::Assigned { generation, partitions: vec![HELD, other], as_of: Instant::now(), starts }
        };
        pass(&mut sink, both(1).into()).await.unwrap();
        pass(&mut sink, News::OffsetGone.into()).await.unwrap();
        pass(&mut sink, assigned(2)).await.unwrap();
        pass(&mut sink, both(3).into()).await.unwrap();
        // Refused once more, and both are there.
        pass(&mut sink, News::OffsetGone.into()).await.unwrap();
        let error = pass(&mut sink, both(4).into()).await.unwrap_err();
        assert!(matches!(error, IngestError::OffsetRefused { .. }), "{error}");
    }

    #[tokio::test]
    async fn large_messages_are_flushed_by_their_bytes_bad_ones_too() {
        let (_folder, _store, mut sink) = bench(vec![]).await;
        let large = |json: &str| Some(format!("{json}{}", " ".repeat(600 << 10)).into_bytes());
        let two = [r#"{"request_id": "a", "arrival_ms": 1700000000000}"#, "bad"].map(large);
        pass(&mut sink, assigned(1)).await.unwrap();
        for ((offset, payload), commits) in (0..).zip(two).zip([0, 2]) {
            let mut chunk = Chunk::default();
            let (topic, at) = ("llm".to_owned(), Timestamp::CreateTime(1_700_000_000_000));
            chunk.push(0, &llm(), &OwnedMessage::new(payload, None, topic, at, 0, offset, None));
            pass(&mut sink, Event::Messages(chunk)).await.unwrap();
            assert_eq!(sink.summary.commits, commits, "after message {offset} of 600 KiB, at 1 MiB");
        }
        assert!(!sink.is_full(), "what is durable no longer counts");
    }

    #[tokio::test]
    async fn a_partition_that_another_member_holds_is_waited_for() {
        let elsewhere = Watermarks { partition: (0, 1), low: 0, high: 9 };
        let empty = Watermarks { partition: (0, 2), low: 4, high: 4 };
        let (_folder, store, mut sink) = bench(vec![HELD, elsewhere, empty]).await;
        assert!(!ends(&mut sink, assigned(1)).await);
        assert!(!ends(&mut sink, messages(0..3)).await);
        assert!(!ends(&mut sink, drained(1)).await, "partition 1 has not been read by anybody");
        assert_eq!(sink.summary.rows["requests"], 3, "what was read is durable all the same");
        assert!(sink.look_again_at().is_some());
        move_position(&store, 1, None, 8).await;
        assert!(!sink.is_all_read().await.unwrap(), "one message is missing");
        move_position(&store, 1, Some(8), 9).await;
        assert!(sink.is_all_read().await.unwrap());
    }
}
