//! Every message lands once, whatever is stopped, killed, fenced or reassigned. On librdkafka's mock cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::bench::{AT_MS, Bench, assert_rows, eventually, ids, replay_record, request};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use weir_ingest::{Format, IngestError, OnConflict, Start};
use weir_store::Advance;

const REQUESTS: [(&str, Format); 1] = [("llm", Format::Requests)];

#[tokio::test(flavor = "multi_thread")]
async fn drained_topics_land_whole_and_a_second_run_adds_nothing() {
    // Two topics with the same partition numbers, one partition empty.
    let bench = Bench::new(&[("llm", 3), ("opinions", 2)]).await;
    bench.produce("llm", 0, (0..700).map(request));
    bench.produce("llm", 2, (0..300).map(request));
    let opinion = |n| format!(r#"{{"feedback_id": "{n}", "event_ms": {}, "source": "user", "kind": "thumb"}}"#, AT_MS);
    bench.produce("opinions", 1, (0..50).map(|n| Some(opinion(n).into_bytes())));
    let config = bench.config(&[("llm", Format::Requests), ("opinions", Format::Feedback)]);

    let first = bench.run(config.clone()).await.unwrap();
    assert_eq!((first.rows["requests"], first.rows["feedback"], first.messages), (1_000, 50, 1_050));
    assert_rows(&bench.row_ids("requests").await, &[ids("llm", 0, 0..700), ids("llm", 2, 0..300)].concat());
    assert_rows(&bench.row_ids("feedback").await, &ids("opinions", 1, 0..50));

    let second = bench.run(config).await.unwrap();
    assert_eq!((second.messages, second.commits), (0, 0));
    assert_eq!(bench.row_ids("requests").await.len(), 1_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_messages_become_dead_letters_and_their_neighbours_land() {
    let bench = Bench::new(&[("llm", 1)]).await;
    let secret = br#"{"request_id": "hunter2", "arrival_ms": "hunter2"}"#.to_vec();
    bench.produce("llm", 0, [request(0), Some(secret.clone()), None, request(3), Some(b"{".to_vec()), request(5)]);
    let summary = bench.run(bench.config(&REQUESTS)).await.unwrap();
    assert_eq!((summary.rows["requests"], summary.dead_letters, summary.tombstones), (3, 2, 1));
    assert_rows(&bench.row_ids("requests").await, &ids("llm", 0, [0, 3, 5]));
    assert_rows(&bench.row_ids("dead_letters").await, &ids("llm", 0, [1, 4]));

    let letters = bench.rows("dead_letters").await;
    let column = |name: &str| letters[0].column_by_name(name).unwrap().clone();
    let text = |name: &str, row: usize| arrow::array::AsArray::as_string::<i32>(&column(name)).value(row).to_owned();
    assert_eq!([text("reason_class", 0), text("reason_class", 1)], ["wrong_type", "truncated"]);
    assert!(text("reason", 0).contains("arrival_ms") && !text("reason", 0).contains("hunter2"));
    let day = weir_store::UtcDay::parse(&text("observed_date", 0)).unwrap();
    let sealed = arrow::array::AsArray::as_binary::<i32>(&column("sealed_payload")).value(0).to_vec();
    assert_eq!(bench.keyring.unseal(day, &sealed).unwrap().unwrap(), secret);
    bench.keyring.expire(weir_store::UtcDay::of_ms(i64::MAX)).unwrap();
    assert_eq!(bench.keyring.unseal(day, &sealed).unwrap(), None, "an expired key still opens");
}

#[tokio::test(flavor = "multi_thread")]
async fn slices_between_stops_add_up_to_every_message_once() {
    let bench = Bench::new(&[("llm", 2)]).await;
    let messages = |from: i64| (from..from + 400).map(|n| if n % 50 == 7 { Some(b"bad".to_vec()) } else { request(n) });
    bench.produce("llm", 0, messages(0));
    bench.produce("llm", 1, messages(0));
    let mut config = bench.config(&REQUESTS);
    config.flush_rows = 40;
    let mut slices = 0;
    loop {
        // Stop at the second commit of raw rows; the flush that follows is part of stopping.
        let (stop_now, mut stopped) = tokio::sync::mpsc::unbounded_channel();
        let mut commits = 0;
        let running = bench.start(config.clone(), move |table, _, _| {
            commits += u64::from(table == "requests");
            if commits == 2 {
                stop_now.send(()).ok();
            }
        });
        // A run that drains first drops its sender, which wakes us too.
        stopped.recv().await;
        let summary = running.stop().await.unwrap();
        slices += 1;
        if summary.messages == 0 {
            break;
        }
        assert!(slices < 60, "no progress");
    }
    assert!(slices > 2, "one slice took everything: nothing was tested");
    let good = (0..400).filter(|n| n % 50 != 7);
    assert_rows(&bench.row_ids("requests").await, &[ids("llm", 0, good.clone()), ids("llm", 1, good)].concat());
    let bad = (0..400).filter(|n| n % 50 == 7);
    assert_rows(&bench.row_ids("dead_letters").await, &[ids("llm", 0, bad.clone()), ids("llm", 1, bad)].concat());
}

/// Runs until the `nth` commit to `table`, and dies right after it, before anything else is done.
async fn die_after(bench: &Bench, config: weir_ingest::IngestConfig, table: &'static str, nth: u64) -> bool {
    let mut seen = 0;
    let running = bench.start(config, move |committed, _, _| {
        seen += u64::from(committed == table);
        assert!(seen < nth, "this death is part of the test");
    });
    running.task.await.is_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_between_dead_letters_and_rows_loses_and_doubles_neither() {
    let bench = Bench::new(&[("llm", 1)]).await;
    bench.produce("llm", 0, (0..30).map(|n| if n % 3 == 0 { Some(b"bad".to_vec()) } else { request(n) }));
    let config = bench.config(&REQUESTS);
    assert!(die_after(&bench, config.clone(), "dead_letters", 1).await, "it did not die");
    assert_eq!(bench.row_ids("dead_letters").await.len(), 10);
    assert_eq!(bench.row_ids("requests").await.len(), 0);

    // More arrive before it is back, so that the next flush has old and new dead letters.
    bench.produce("llm", 0, (30..36).map(|n| if n % 3 == 0 { Some(b"bad".to_vec()) } else { request(n) }));
    bench.run(config).await.unwrap();
    assert_rows(&bench.row_ids("dead_letters").await, &ids("llm", 0, (0..36).filter(|n| n % 3 == 0)));
    assert_rows(&bench.row_ids("requests").await, &ids("llm", 0, (0..36).filter(|n| n % 3 != 0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_between_dead_letters_and_rows_and_another_configuration_lose_nothing() {
    let bench = Bench::new(&[("llm", 1)]).await;
    // Bad under any configuration, good under the first one only, good under any.
    let odd = |n| format!(r#"{{"request_id": "{n}", "arrival_ms": {AT_MS}, "prompt_tokens": "many"}}"#).into_bytes();
    bench.produce(
        "llm",
        0,
        (0..30).map(|n| match n % 3 {
            0 => Some(b"bad".to_vec()),
            1 => Some(odd(n)),
            _ => request(n),
        }),
    );
    let strict = bench.config(&REQUESTS);
    let mut lenient = strict.clone();
    lenient.type_conflicts.columns.insert("requests.prompt_tokens".to_owned(), OnConflict::Null);
    assert!(die_after(&bench, lenient, "dead_letters", 1).await, "it did not die");
    assert_rows(&bench.row_ids("dead_letters").await, &ids("llm", 0, (0..30).filter(|n| n % 3 == 0)));
    // And once more at the same place, after the letters that were missing.
    assert!(die_after(&bench, strict.clone(), "dead_letters", 1).await, "it did not die");
    bench.produce("llm", 0, [Some(odd(30))]);
    bench.run(strict).await.unwrap();
    assert_rows(&bench.row_ids("dead_letters").await, &ids("llm", 0, (0..31).filter(|n| n % 3 != 2 || *n == 30)));
    assert_rows(&bench.row_ids("requests").await, &ids("llm", 0, (0..30).filter(|n| n % 3 == 2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_between_two_tables_of_one_topic_loses_and_doubles_neither() {
    let bench = Bench::new(&[("replays", 1)]).await;
    bench.produce("replays", 0, (0..20).map(replay_record));
    let config = bench.config(&[("replays", Format::VllmSemanticRouter)]);
    assert!(die_after(&bench, config.clone(), "requests", 1).await, "it did not die");
    assert_eq!(bench.row_ids("requests").await.len(), 20);
    assert_eq!(bench.row_ids("feedback").await.len(), 0);

    bench.produce("replays", 0, (20..25).map(replay_record));
    bench.run(config).await.unwrap();
    assert_rows(&bench.row_ids("requests").await, &ids("replays", 0, 0..25));
    let mut opinions = bench.row_ids("feedback").await;
    let per_record = opinions.len() / 25;
    assert!(per_record >= 1 && opinions.len() == 25 * per_record, "{} feedback rows of 25 records", opinions.len());
    opinions.dedup();
    assert_rows(&opinions, &ids("replays", 0, 0..25));
}

#[tokio::test(flavor = "multi_thread")]
async fn deaths_after_any_commit_change_nothing_in_the_end() {
    let bench = Bench::new(&[("llm", 2)]).await;
    for partition in 0..2 {
        bench.produce("llm", partition, (0..150).map(|n| if n % 40 == 3 { Some(b"bad".to_vec()) } else { request(n) }));
    }
    let mut config = bench.config(&REQUESTS);
    config.flush_rows = 30;
    for nth in [1, 2, 1] {
        assert!(die_after(&bench, config.clone(), "requests", nth).await);
    }
    bench.run(config).await.unwrap();
    let good = (0..150).filter(|n| n % 40 != 3);
    assert_rows(&bench.row_ids("requests").await, &[ids("llm", 0, good.clone()), ids("llm", 1, good)].concat());
    assert_eq!(bench.row_ids("dead_letters").await.len(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_is_fenced_and_its_rows_are_dropped() {
    let bench = Bench::new(&[("llm", 1)]).await;
    bench.produce("llm", 0, (0..100).map(request));
    // The zombie reads everything and sits on it, as a process that hangs before its commit.
    let mut slow = bench.config(&REQUESTS);
    (slow.flush_rows, slow.flush_interval, slow.stop_when_drained) = (1_000_000, Duration::from_secs(3_600), false);
    let zombie = bench.start(slow, |_, _, _| {});
    tokio::time::sleep(Duration::from_secs(5)).await;

    // Another group, so that Kafka itself does not keep the two apart.
    let mut other = bench.config(&REQUESTS);
    other.group_id = "other".to_owned();
    assert_eq!(bench.run(other).await.unwrap().rows["requests"], 100);

    let woken = zombie.stop().await.unwrap();
    assert_eq!((woken.messages, woken.restarts), (100, 1), "the zombie had not read, or was not fenced");
    assert_rows(&bench.row_ids("requests").await, &ids("llm", 0, 0..100));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_reader_goes_on_from_the_tables_position() {
    let bench = Bench::new(&[("llm", 1)]).await;
    bench.produce("llm", 0, (0..80).map(request));
    let mut slow = bench.config(&REQUESTS);
    (slow.flush_rows, slow.flush_interval, slow.stop_when_drained) = (80, Duration::from_secs(3_600), false);
    let reader = bench.start(slow, |_, _, _| {});
    eventually("the first 80 rows", async || bench.row_ids("requests").await.len() == 80).await;

    // Too few to fill the reader's buffer: another group, that Kafka does not keep apart from it, commits them.
    bench.produce("llm", 0, (80..130).map(request));
    let mut other = bench.config(&REQUESTS);
    other.group_id = "other".to_owned();
    assert_eq!(bench.run(other).await.unwrap().rows["requests"], 50);

    // The next 90 fill it, wherever the reader is: fenced, joined again, and the new ones are read from the table's
    // position. They fill it once more.
    bench.produce("llm", 0, (130..220).map(request));
    eventually("rows past the fence", async || bench.row_ids("requests").await.len() >= 130 + 80).await;
    assert_eq!(reader.stop().await.unwrap().restarts, 1);
    // How many of the last ten the reader had taken when it was stopped is chance.
    bench.run(bench.config(&REQUESTS)).await.unwrap();
    assert_rows(&bench.row_ids("requests").await, &ids("llm", 0, 0..220));
}

/// A member that joins the group, reads nothing for us, and hangs as soon as it holds one partition of two.
fn join_and_hang(bench: &Bench) -> std::thread::JoinHandle<BaseConsumer> {
    let ghost: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bench.cluster.bootstrap_servers())
        .set("group.id", "weir")
        .set("session.timeout.ms", "6000")
        .set("max.poll.interval.ms", "6000")
        .set("heartbeat.interval.ms", "500")
        .create()
        .unwrap();
    ghost.subscribe(&["llm"]).unwrap();
    std::thread::spawn(move || {
        while ghost.assignment().unwrap().count() != 1 {
            ghost.poll(Duration::from_millis(20));
        }
        ghost
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_members_partition_is_waited_for_and_read() {
    let bench = Bench::new(&[("llm", 2)]).await;
    bench.produce("llm", 0, (0..60).map(request));
    bench.produce("llm", 1, (0..60).map(request));
    let ghost = join_and_hang(&bench);
    let running = bench.start(bench.config(&REQUESTS), |_, _, _| {});
    let ghost = tokio::task::spawn_blocking(|| ghost.join().unwrap()).await.unwrap();
    // At least: on a slow machine the group gives the other partition away before we look.
    eventually("our own partition", async || bench.row_ids("requests").await.len() >= 60).await;
    let summary = tokio::time::timeout(Duration::from_secs(90), running.task).await.expect("it ends").unwrap();
    assert_eq!(summary.unwrap().rows["requests"], 120);
    assert_rows(&bench.row_ids("requests").await, &[ids("llm", 0, 0..60), ids("llm", 1, 0..60)].concat());
    drop(ghost);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_joins_takes_partitions_over_without_loss_or_doubles() {
    let bench = Bench::new(&[("llm", 4)]).await;
    let produce = |from: i64, to: i64| {
        for partition in 0..4 {
            bench.produce("llm", partition, (from..to).map(request));
        }
    };
    let mut config = bench.config(&REQUESTS);
    (config.stop_when_drained, config.flush_rows) = (false, 50);
    produce(0, 100);
    let first = bench.start(config.clone(), |_, _, _| {});
    eventually("the first 400 rows", async || bench.row_ids("requests").await.len() == 400).await;

    let rows_of_second = Arc::new(AtomicU64::new(0));
    let counter = rows_of_second.clone();
    let second = bench.start(config, move |_, _, rows| {
        counter.fetch_add(rows, Ordering::SeqCst);
    });
    // Messages keep coming while the group rebalances.
    let mut produced = 100;
    eventually("the second member takes part", async || {
        if produced < 2_000 {
            produce(produced, produced + 20);
            produced += 20;
        }
        rows_of_second.load(Ordering::SeqCst) > 0
    })
    .await;
    let all = usize::try_from(produced * 4).unwrap();
    eventually("all rows", async || bench.row_ids("requests").await.len() >= all).await;
    first.stop().await.unwrap();
    second.stop().await.unwrap();
    let expected: Vec<_> = (0..4).flat_map(|partition| ids("llm", partition, 0..produced)).collect();
    assert_rows(&bench.row_ids("requests").await, &expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn broker_errors_in_passing_cost_nothing() {
    let bench = Bench::new(&[("llm", 1)]).await;
    bench.produce("llm", 0, (0..200).map(request));
    use RDKafkaRespErr::{
        RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS as LOADING,
        RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION as NOT_LEADER,
        RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS as REBALANCING,
    };
    bench.cluster.request_errors(RDKafkaApiKey::Fetch, &[NOT_LEADER, NOT_LEADER]);
    bench.cluster.request_errors(RDKafkaApiKey::FindCoordinator, &[LOADING]);
    bench.cluster.request_errors(RDKafkaApiKey::Heartbeat, &[REBALANCING]);
    bench.run(bench.config(&REQUESTS)).await.unwrap();
    assert_rows(&bench.row_ids("requests").await, &ids("llm", 0, 0..200));
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_tables_pause_reading_and_cost_nothing() {
    let bench = Bench::new(&[("llm", 2)]).await;
    for partition in 0..2 {
        bench.produce("llm", partition, (0..3_000).map(request));
    }
    let mut config = bench.config(&REQUESTS);
    config.flush_rows = 200;
    let mut slow_commits = 4;
    let running = bench.start(config, move |_, _, _| {
        if slow_commits > 0 {
            slow_commits -= 1;
            std::thread::sleep(Duration::from_millis(900));
        }
    });
    let summary = running.task.await.unwrap().unwrap();
    assert!(summary.pauses > 0, "the tables were not slow enough: nothing was tested");
    assert_rows(&bench.row_ids("requests").await, &[ids("llm", 0, 0..3_000), ids("llm", 1, 0..3_000)].concat());
}

/// The client may keep "paused" with a partition that leaves while it is paused, and that then comes back. This cluster does
/// not bring that about; `make crash SEED=4` does.
#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_is_fenced_while_reading_is_paused_goes_on() {
    let bench = Bench::new(&[("llm", 1)]).await;
    bench.produce("llm", 0, (0..3_000).map(request));
    let mut config = bench.config(&REQUESTS);
    config.flush_rows = 200;
    let (committed, mut first_commit) = tokio::sync::mpsc::unbounded_channel();
    let running = bench.start(config.clone(), move |_, _, _| {
        if committed.send(()).is_ok() {
            // Long enough for the poll thread to give up handing over, and to pause.
            std::thread::sleep(Duration::from_millis(2_500));
        }
    });
    first_commit.recv().await.unwrap();
    // Another writer moves the position: the next commit is fenced, and the group joined again.
    let mut table = bench.store.existing("requests").await.unwrap().unwrap();
    let app_id = "weir/test/llm/0".to_owned();
    let position = table.position(&app_id).await.unwrap().unwrap();
    let advance = Advance { app_id, expected: Some(position), next: position + 1 };
    table.commit(vec![], vec![advance]).await.unwrap();
    drop(first_commit);
    let summary = running.task.await.unwrap().unwrap();
    assert!(summary.pauses > 0 && summary.restarts > 0, "nothing was tested: {summary:?}");
    let taken = usize::try_from(position).unwrap();
    let expected: Vec<_> =
        ids("llm", 0, 0..3_000).into_iter().enumerate().filter(|(offset, _)| *offset != taken).collect();
    assert_rows(&bench.row_ids("requests").await, &expected.into_iter().map(|(_, id)| id).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn latest_is_chosen_once() {
    let bench = Bench::new(&[("llm", 1)]).await;
    bench.produce("llm", 0, (0..10).map(request));
    let mut config = bench.config(&REQUESTS);
    config.start = Start::Latest;
    assert_eq!(bench.run(config.clone()).await.unwrap().messages, 0);
    // What comes while nobody reads belongs to the job that has started before.
    bench.produce("llm", 0, (10..15).map(request));
    bench.run(config).await.unwrap();
    assert_rows(&bench.row_ids("requests").await, &ids("llm", 0, 10..15));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_was_added_after_latest_was_chosen_is_read_from_its_first_message() {
    let bench = Bench::new(&[("llm", 2)]).await;
    bench.produce("llm", 0, (0..10).map(request));
    let mut config = bench.config(&REQUESTS);
    config.start = Start::Latest;
    assert_eq!(bench.run(config.clone()).await.unwrap().messages, 0);
    // As if the topic had had one partition then: the second one is new to the tables and to the note.
    let path = "sources/requests/llm.json";
    let mut note: serde_json::Value = serde_json::from_slice(&bench.store.get(path).await.unwrap().unwrap()).unwrap();
    note["partitions_at_first"] = 1.into();
    let bench = bench.with_new_store().await;
    bench.store.put(path, note.to_string().into()).await.unwrap();
    bench.produce("llm", 1, (0..7).map(request));
    bench.run(config).await.unwrap();
    assert_rows(&bench.row_ids("requests").await, &ids("llm", 1, 0..7));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_to_the_end_ends_although_messages_keep_coming() {
    let bench = Bench::new(&[("llm", 1)]).await;
    bench.produce("llm", 0, (0..50).map(request));
    let run = bench.start(bench.config(&REQUESTS), |_, _, _| {});
    let (brokers, produced) = (bench.cluster.bootstrap_servers(), Arc::new(AtomicU64::new(50)));
    // A message every 10 ms: no poll interval is ever idle.
    let (done, counter) = (Arc::new(AtomicBool::new(false)), produced.clone());
    let producing = std::thread::spawn({
        let done = done.clone();
        move || {
            let producer: BaseProducer =
                ClientConfig::new().set("bootstrap.servers", brokers).set("linger.ms", "0").create().unwrap();
            while !done.load(Ordering::SeqCst) {
                let message = request(counter.fetch_add(1, Ordering::SeqCst)).unwrap();
                let record = BaseRecord::<(), [u8]>::to("llm").partition(0).payload(&message);
                producer.send(record).map_err(|(error, _)| error).unwrap();
                producer.poll(Duration::from_millis(10));
            }
            producer.flush(Duration::from_secs(20)).unwrap();
        }
    });
    let ended = tokio::time::timeout(Duration::from_secs(45), run.task).await;
    done.store(true, Ordering::SeqCst);
    tokio::task::spawn_blocking(|| producing.join().unwrap()).await.unwrap();
    let rows = ended.expect("a live topic kept the run from ending").unwrap().unwrap().rows["requests"];
    assert!(rows >= 50, "{rows}");
    bench.run(bench.config(&REQUESTS)).await.unwrap();
    let produced = i64::try_from(produced.load(Ordering::SeqCst)).unwrap();
    assert_rows(&bench.row_ids("requests").await, &ids("llm", 0, 0..produced));
}

#[tokio::test(flavor = "multi_thread")]
async fn watermarks_that_cannot_be_had_at_an_assignment_are_asked_for_again() {
    // Of one error the client tells nothing: it gives the other end twice.
    for errors in 1..=3 {
        let bench = Bench::new(&[("llm", 1)]).await;
        bench.produce("llm", 0, (0..40).map(request));
        let mut config = bench.config(&REQUESTS);
        config.stop_when_drained = false;
        config.kafka.insert("metadata.request.timeout.ms".to_owned(), "1500".to_owned());
        bench
            .cluster
            .request_errors(RDKafkaApiKey::ListOffsets, &vec![RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN; errors]);
        let running = bench.start(config, |_, _, _| {});
        eventually("all rows", async || bench.row_ids("requests").await.len() >= 40).await;
        running.stop().await.unwrap();
        assert_rows(&bench.row_ids("requests").await, &ids("llm", 0, 0..40));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_kafka_does_not_hold_is_data_loss_said_aloud() {
    let bench = Bench::new(&[("llm", 1)]).await;
    bench.produce("llm", 0, (0..10).map(request));
    let spec = weir_ingest::raw_table_spec(weir_schemas::Request::contract());
    let advance = weir_store::Advance { app_id: "weir/test/llm/0".to_owned(), expected: None, next: 99 };
    bench.store.table(&spec).await.unwrap().commit(vec![], vec![advance]).await.unwrap();
    let error = bench.run(bench.config(&REQUESTS)).await.unwrap_err();
    assert!(matches!(error, IngestError::OffsetGone { position: 99, low: 0, high: 10, .. }), "{error}");
    assert_eq!(bench.row_ids("requests").await.len(), 0);
}
