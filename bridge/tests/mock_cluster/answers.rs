//! What senders are told.

use std::collections::BTreeSet;

use prost::Message;
use weir_bridge::proto::otlp::{ExportResponse, Status};
use weir_bridge::{Bridge, BridgeError, Signal};

use crate::bench::{Bench, Running, topic};
use crate::send::{JSON, PROTOBUF, REMOTE_WRITE, gzip, scrape, trace};

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_refused_in_a_sentence_and_in_the_senders_own_encoding() {
    let bench = Bench::new();
    let mut config = bench.config();
    config.max_body_bytes = 10_000;
    let running = Running::start(config).await;

    let answer = running.post("/api/v1/write", REMOTE_WRITE, b"hunter2".to_vec()).await;
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("snappy") && !answer.text().contains("hunter2"), "{}", answer.text());
    let packed = snap::raw::Encoder::new().compress_vec(b"hunter2").unwrap();
    let answer = running.post("/api/v1/write", REMOTE_WRITE, packed).await;
    assert!(answer.status == 400 && answer.text().contains("WriteRequest"), "{answer:?}");

    let answer = running.post("/v1/traces", PROTOBUF, b"hunter2".to_vec()).await;
    let status = Status::decode(&answer.body[..]).unwrap();
    assert_eq!((answer.status, status.code), (400, 3));
    assert!(status.message.contains("ExportTraceServiceRequest"), "{}", status.message);
    let answer = running.post("/v1/logs", JSON, br#"{"resourceLogs": "hunter2"}"#.to_vec()).await;
    let said: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((answer.status, said["code"].as_i64()), (400, Some(3)));
    assert!(!answer.text().contains("hunter2"), "{}", answer.text());

    // Too large before and after unpacking.
    let large = vec![b' '; 20_000];
    assert_eq!(running.post("/v1/traces", JSON, large.clone()).await.status, 413);
    let packed = [JSON, &[("Content-Encoding", "gzip")]].concat();
    assert_eq!(running.post("/v1/traces", &packed, gzip(&large)).await.status, 413);
    let packed = snap::raw::Encoder::new().compress_vec(&large).unwrap();
    let answer = running.post("/api/v1/write", REMOTE_WRITE, packed).await;
    assert!(answer.status == 413 && answer.text().contains("max_body_bytes"), "{answer:?}");

    assert_eq!(running.post("/v1/traces", &[("Content-Type", "text/plain")], vec![]).await.status, 415);
    let packed = [PROTOBUF, &[("Content-Encoding", "br")]].concat();
    assert_eq!(running.post("/v1/traces", &packed, vec![]).await.status, 415);
    assert_eq!(running.post("/api/v1/write", &[("Content-Type", "application/json")], vec![]).await.status, 415);
    let summary = running.close().await;
    assert_eq!((summary.requests, summary.refused_requests), (10, 10));
    assert_eq!(summary.accepted["metrics"] + summary.accepted["traces"] + summary.accepted["logs"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_with_a_token_takes_nothing_without_it() {
    let bench = Bench::new();
    let mut config = bench.config();
    config.token = Some("hunter2".into());
    let running = Running::start(config).await;
    for headers in [&[][..], &[("Authorization", "Bearer wrong")], &[("Authorization", "Basic hunter2")]] {
        let headers = [REMOTE_WRITE, headers].concat();
        let answer = running.post("/api/v1/write", &headers, scrape(1, 0)).await;
        assert_eq!(answer.status, 401);
        assert!(answer.text().contains("Bearer") && !answer.text().contains("hunter2"), "{}", answer.text());
    }
    assert_eq!(running.post("/v1/traces", JSON, b"{}".to_vec()).await.status, 401);
    let headers = [REMOTE_WRITE, &[("Authorization", "Bearer hunter2")]].concat();
    assert_eq!(running.post("/api/v1/write", &headers, scrape(1, 0)).await.status, 204);
    assert_eq!(running.close().await.delivered["metrics"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_span_that_no_kafka_message_holds_is_rejected_alone() {
    let bench = Bench::new();
    let running = Running::start(bench.config()).await;
    let mut request = trace(3, 3);
    request.resource_spans[0].scope_spans[0].spans[1].name = "x".repeat(1_200_000);
    let answer = running.post("/v1/traces", PROTOBUF, request.encode_to_vec()).await;
    assert_eq!(answer.status, 200);
    let partial = ExportResponse::decode(&answer.body[..]).unwrap().partial_success.expect("a partial success");
    assert_eq!(partial.rejected, 1);
    assert!(partial.error_message.contains("larger"), "{}", partial.error_message);
    let summary = running.close().await;
    assert_eq!((summary.delivered["traces"], summary.too_large), (2, 1));
    assert_eq!(bench.messages(topic(Signal::Traces)).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_that_is_switched_off_is_said_and_a_missing_topic_is_found_before_the_start() {
    let bench = Bench::new();
    let mut config = bench.config();
    config.signals = BTreeSet::from([Signal::Metrics]);
    // What is not received needs no topic.
    config.topics[Signal::Traces as usize] = "nowhere".into();
    let running = Running::start(config.clone()).await;
    let answer = running.post("/v1/traces", JSON, b"{}".to_vec()).await;
    assert!(answer.status == 404 && answer.text().contains("bridge.signals"), "{answer:?}");
    running.close().await;

    let within = std::time::Duration::from_secs(10);
    weir_bridge::probe(&config, within).await.unwrap();
    config.signals.insert(Signal::Traces);
    let error = weir_bridge::probe(&config, within).await.unwrap_err();
    assert!(matches!(&error, BridgeError::MissingTopic { topic, .. } if topic == "nowhere"), "{error}");
    config.kafka.insert("no.such.setting".into(), "hunter2".into());
    let said = weir_bridge::probe(&config, within).await.unwrap_err().to_string();
    assert!(said.contains("no.such.setting") && !said.contains("hunter2"), "{said}");
    assert!(matches!(Bridge::open(config), Err(BridgeError::Setting { .. })));
}
