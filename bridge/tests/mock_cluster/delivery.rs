//! What a sender was told "yes" for reaches Kafka, whatever Kafka does meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use prost::Message;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use weir_bridge::Signal;

use crate::bench::{Bench, Running, eventually, topic};
use crate::send::{AT_MS, JSON, PROTOBUF, REMOTE_WRITE, gzip, scrape, trace};

#[tokio::test(flavor = "multi_thread")]
async fn every_signal_lands_on_its_topic_and_keys_keep_their_order() {
    let bench = Bench::new();
    let running = Running::start(bench.config()).await;
    for n in 0..20 {
        assert_eq!(running.post("/api/v1/write", REMOTE_WRITE, scrape(4, n)).await.status, 204);
    }
    let answer = running.post("/v1/traces", PROTOBUF, trace(1, 10).encode_to_vec()).await;
    assert_eq!((answer.status, answer.body.len()), (200, 0), "an empty ExportTraceServiceResponse");
    let packed = [PROTOBUF, &[("Content-Encoding", "gzip")]].concat();
    assert_eq!(running.post("/v1/traces", &packed, gzip(&trace(2, 10).encode_to_vec())).await.status, 200);
    let log = br#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":"1700000000000000000","body":{"stringValue":"up"}}]}]}]}"#;
    let answer = running.post("/v1/logs", JSON, log.to_vec()).await;
    assert_eq!((answer.status, answer.text()), (200, "{}".to_owned()));

    let summary = running.close().await;
    assert_eq!(summary.accepted, BTreeMap::from([("metrics", 80), ("traces", 20), ("logs", 1)]));
    assert_eq!(summary.delivered, summary.accepted);
    assert_eq!((summary.requests, summary.refused_requests, summary.left_on_disk), (23, 0, 0));

    let samples = bench.messages(topic(Signal::Metrics));
    assert_eq!(samples.len(), 80);
    let times: Vec<i64> = samples.iter().map(|landed| landed.value["event_ms"].as_i64().unwrap()).collect();
    assert!(times.is_sorted(), "one instance is one partition, in its order");
    assert!(samples.iter().all(|landed| landed.key == "node-1:9400"));
    let spans = bench.messages(topic(Signal::Traces));
    for id in ["01".repeat(16), "02".repeat(16)] {
        let names: Vec<&str> = spans
            .iter()
            .filter(|landed| landed.key == id)
            .map(|landed| landed.value["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, (0..10).map(|n| format!("step {n}")).collect::<Vec<_>>());
    }
    assert_eq!(bench.messages(topic(Signal::Logs))[0].value["body"], "up");
    let positions: BTreeSet<String> = samples.iter().chain(&spans).map(|landed| landed.position.clone()).collect();
    assert_eq!(positions.len(), 100, "every message has a position of its own");
    let left = std::fs::read_dir(bench.folder.path().join("buffer")).unwrap().flatten();
    let left: Vec<_> = left.filter(|entry| entry.file_name().to_string_lossy().ends_with(".segment")).collect();
    assert!(left.is_empty(), "delivered segments are removed: {left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_kafka_is_away_the_disk_fills_senders_are_told_to_wait_and_nothing_is_lost() {
    let bench = Bench::new();
    bench.cluster.broker_down(1).unwrap();
    let mut config = bench.config();
    config.buffer_max_bytes = 64 << 20;
    let running = Running::start(config).await;
    let mut told_yes = 0;
    let refused = loop {
        let answer = running.post("/api/v1/write", REMOTE_WRITE, scrape(20_000, told_yes)).await;
        match answer.status {
            204 => told_yes += 1,
            _ => break answer,
        }
        assert!(told_yes < 200, "the buffer has no end");
    };
    assert_eq!(refused.status, 503);
    assert_eq!(refused.headers["retry-after"], "5");
    assert!(refused.text().contains("buffer is full"), "{}", refused.text());
    assert!(!running.standing().ready(), "{:?}", running.standing());
    let otlp = running.post("/v1/traces", JSON, serde_json::to_vec(&serde_json::json!({"resourceSpans": [{"scopeSpans": [{"spans": (0..20_000).map(|n| serde_json::json!({"name": format!("{n}")})).collect::<Vec<_>>()}]}]})).unwrap()).await;
    assert_eq!((otlp.status, otlp.headers["retry-after"].as_str()), (503, "5"));
    assert!(otlp.text().contains(r#""code":14"#), "{}", otlp.text());

    bench.cluster.broker_up(1).unwrap();
    eventually("room on disk", || running.standing().ready() && !running.standing().buffer_full).await;
    assert_eq!(running.post("/api/v1/write", REMOTE_WRITE, scrape(1, told_yes)).await.status, 204);
    let summary = running.close().await;
    let expected = 20_000 * u64::try_from(told_yes).unwrap() + 1;
    assert_eq!((summary.accepted["metrics"], summary.delivered["metrics"]), (expected, expected), "{summary:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_at_the_end_is_delivered_by_the_next_run_under_the_same_positions() {
    let bench = Bench::new();
    bench.cluster.broker_down(1).unwrap();
    let mut config = bench.config();
    config.drain = Duration::from_millis(300);
    let first = Running::start(config.clone()).await;
    for n in 0..10 {
        assert_eq!(first.post("/api/v1/write", REMOTE_WRITE, scrape(3, n)).await.status, 204);
    }
    let summary = first.close().await;
    assert_eq!((summary.delivered["metrics"], summary.left_on_disk), (0, 30));

    bench.cluster.broker_up(1).unwrap();
    config.drain = Duration::from_secs(20);
    let summary = Running::start(config).await.close().await;
    assert_eq!((summary.replayed, summary.delivered["metrics"], summary.left_on_disk), (30, 30, 0));
    let samples = bench.messages(topic(Signal::Metrics));
    let indexes: BTreeSet<u64> =
        samples.iter().map(|landed| landed.position.split_once('/').unwrap().1.parse().unwrap()).collect();
    assert_eq!(indexes, (0..30).collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_that_pass_are_tried_again_and_a_message_that_kafka_refuses_does_not_stop_the_rest() {
    let bench = Bench::new();
    let running = Running::start(bench.config()).await;
    let unavailable = RDKafkaRespErr::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE;
    let unauthorised = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    bench.cluster.request_errors(RDKafkaApiKey::Produce, &[unavailable, unauthorised, unavailable]);
    for n in 0..10 {
        assert_eq!(running.post("/api/v1/write", REMOTE_WRITE, scrape(1, n)).await.status, 204);
    }
    let summary = running.close().await;
    assert_eq!((summary.delivered["metrics"], summary.refused_by_kafka), (10, 0), "{summary:?}");
    let mut times: Vec<i64> = bench
        .messages(topic(Signal::Metrics))
        .iter()
        .map(|landed| landed.value["event_ms"].as_i64().unwrap())
        .collect();
    times.sort_unstable();
    times.dedup();
    assert_eq!(times, (0..10).map(|n| AT_MS + 1000 * n).collect::<Vec<_>>());

    let running = Running::start(bench.config()).await;
    bench.cluster.request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_RECORD]);
    assert_eq!(running.post("/api/v1/write", REMOTE_WRITE, scrape(1, 10)).await.status, 204);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(running.post("/api/v1/write", REMOTE_WRITE, scrape(1, 11)).await.status, 204);
    let summary = running.close().await;
    assert_eq!(
        (summary.delivered["metrics"], summary.refused_by_kafka, summary.left_on_disk),
        (1, 1, 0),
        "{summary:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_lost_its_sequence_is_replaced_and_delivers_what_is_missing() {
    let bench = Bench::new();
    let running = Running::start(bench.config()).await;
    assert_eq!(running.post("/api/v1/write", REMOTE_WRITE, scrape(1, 0)).await.status, 204);
    tokio::time::sleep(Duration::from_millis(300)).await;
    // The producer is fenced for good: the client calls this fatal.
    bench
        .cluster
        .request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH; 3]);
    for n in 1..10 {
        assert_eq!(running.post("/api/v1/write", REMOTE_WRITE, scrape(1, n)).await.status, 204);
    }
    let summary = running.close().await;
    assert_eq!((summary.accepted["metrics"], summary.left_on_disk), (10, 0), "{summary:?}");
    let times: BTreeSet<i64> = bench
        .messages(topic(Signal::Metrics))
        .iter()
        .map(|landed| landed.value["event_ms"].as_i64().unwrap())
        .collect();
    assert_eq!(times, (0..10).map(|n| AT_MS + 1000 * n).collect());
}
