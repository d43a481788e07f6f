//! Bad input: one clear sentence each, and nothing half-written.

use std::time::{Duration, Instant};

use crate::bench::{Bench, request};
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
    assert!(matches!(error, IngestError::OtherSource { .. }) && error.fault() == Fault::User, "{error}");
    assert_eq!(bench.store.list("").await.unwrap(), before);
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
    sentence(&bench.run(unknown).await.unwrap_err(), &["no.such.setting"]);
    assert!(bench.store.list("").await.unwrap().is_empty(), "something was written");
    assert!(bench.folder.path().join("keys").exists());
}
