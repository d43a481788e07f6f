//! Bad input: one clear sentence each, and nothing half-written.

use std::time::{Duration, Instant};

use crate::bench::{Bench, request};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use weir_ingest::{Format, IngestError};
use weir_store::Fault;

const REQUESTS: [(&str, Format); 1] = [("llm", Format::Requests)];

fn sentence(error: &IngestError, words: &[&str]) {
    let text = error.to_string();
    assert!(!text.contains('\n'), "more than a sentence: {text}");
    for word in words {
        assert!(text.contains(word), "no {word:?} in: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_broker_is_said_in_bounded_time_and_nothing_is_written() {
    let bench = Bench::new(&[]).await;
    let mut config = bench.config(&REQUESTS);
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    config.brokers = free.to_string();
    config.kafka.insert("metadata.request.timeout.ms".to_owned(), "1500".to_owned());
    let began = Instant::now();
    let error = bench.run(config.clone()).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(8), "took {:?}", began.elapsed());
    assert!(matches!(error, IngestError::Unreachable { .. }) && error.fault() == Fault::Outside && error.retry_helps());
    sentence(&error, &[&config.brokers, "check"]);
    assert!(bench.store.list("").await.unwrap().is_empty(), "something was written");
    assert!(matches!(weir_ingest::probe(&config).await, Err(IngestError::Unreachable { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_is_named_and_nothing_is_written() {
    let bench = Bench::new(&[("llm", 1)]).await;
    let config = bench.config(&[("llm", Format::Requests), ("absent", Format::Feedback)]);
    let error = bench.run(config).await.unwrap_err();
    assert!(matches!(error, IngestError::MissingTopic { .. }) && error.fault() == Fault::User, "{error}");
    sentence(&error, &["absent", "create it"]);
    assert!(bench.store.list("").await.unwrap().is_empty(), "something was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_from_another_job_or_cluster_is_refused_untouched() {
    let bench = Bench::new(&[("llm", 1)]).await;
    bench.produce("llm", 0, (0..5).map(request));
    bench.run(bench.config(&REQUESTS)).await.unwrap();
    let before = bench.store.list("").await.unwrap();

    let mut other_job = bench.config(&REQUESTS);
    other_job.job = "another".to_owned();
    let error = bench.run(other_job).await.unwrap_err();
    sentence(&error, &["from another job", "test", "another data folder"]);

    let elsewhere = Bench::new(&[("llm", 1)]).await;
    let other_cluster = elsewhere.config(&REQUESTS);
    let error = bench.run(other_cluster).await.unwrap_err();
    assert!(matches!(error, IngestError::OtherCluster { .. }) && error.fault() == Fault::User, "{error}");
    sentence(&error, &["weir positions forget llm"]);
    assert_eq!(bench.store.list("").await.unwrap(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_job_claims_none_of_its_topics() {
    let bench = Bench::new(&[("llm", 1), ("opinions", 1)]).await;
    bench.run(bench.config(&REQUESTS)).await.unwrap();
    let before = bench.store.list("").await.unwrap();
    let mut other_job = bench.config(&[("opinions", Format::Feedback), ("llm", Format::Requests)]);
    other_job.job = "another".to_owned();
    let error = bench.run(other_job).await.unwrap_err();
    assert!(matches!(error, IngestError::OtherSource { .. }), "{error}");
    assert_eq!(bench.store.list("").await.unwrap(), before, "the topic that was not refused was claimed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_of_the_same_name_that_is_not_the_same_topic_is_refused() {
    let bench = Bench::new(&[("llm", 1)]).await;
    bench.produce("llm", 0, (0..5).map(request));
    bench.run(bench.config(&REQUESTS)).await.unwrap();
    // As if the topic had been another one then.
    let path = "sources/requests/llm.json";
    let mut note: serde_json::Value = serde_json::from_slice(&bench.store.get(path).await.unwrap().unwrap()).unwrap();
    assert!(note["topic_id"].is_string() && note["partitions_at_first"] == 1, "{note}");
    note["topic_id"] = "AnotherTopicsIdInBase64".into();
    bench.store.put(path, note.to_string().into()).await.unwrap();
    bench.produce("llm", 0, (5..9).map(request));
    let error = bench.run(bench.config(&REQUESTS)).await.unwrap_err();
    assert!(matches!(error, IngestError::TopicRecreated { .. }) && error.fault() == Fault::User, "{error}");
    sentence(&error, &["llm", "deleted and created again"]);
    assert_eq!(bench.row_ids("requests").await.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_the_client_cannot_read_ends_the_run_and_is_not_skipped() {
    let bench = Bench::new(&[("llm", 1)]).await;
    bench.produce("llm", 0, (0..5).map(request));
    bench.cluster.request_errors(RDKafkaApiKey::Fetch, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_MSG; 20]);
    let error = bench.run(bench.config(&REQUESTS)).await.unwrap_err();
    assert!(matches!(error, IngestError::UnreadableBatch { .. }), "{error}");
    sentence(&error, &["cannot read a batch"]);
    bench.cluster.clear_request_errors(RDKafkaApiKey::Fetch);
    bench.run(bench.config(&REQUESTS)).await.unwrap();
    assert_eq!(bench.row_ids("requests").await.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_without_sense_are_refused_before_anything() {
    let bench = Bench::new(&[("llm", 1)]).await;
    let mut ours = bench.config(&REQUESTS);
    ours.kafka.insert("auto.offset.reset".to_owned(), "latest".to_owned());
    let error = bench.run(ours).await.unwrap_err();
    sentence(&error, &["auto.offset.reset", "remove it"]);
    let mut unknown = bench.config(&REQUESTS);
    unknown.kafka.insert("no.such.setting".to_owned(), "1".to_owned());
    sentence(&bench.run(unknown).await.unwrap_err(), &["no.such.setting", "correct it"]);
    let mut misspelt = bench.config(&REQUESTS);
    misspelt.kafka.insert("sasl.pasword".to_owned(), "hunter2".to_owned());
    let error = bench.run(misspelt).await.unwrap_err();
    sentence(&error, &["sasl.pasword"]);
    assert!(error.fault() == Fault::User && !format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    assert!(bench.store.list("").await.unwrap().is_empty(), "something was written");
    assert!(bench.folder.path().join("keys").exists());
}
