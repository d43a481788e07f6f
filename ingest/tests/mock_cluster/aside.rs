//! Topics that only a pattern matches and that cannot be read are set aside; the others are read.

use crate::bench::{Bench, assert_rows, eventually, ids, request};
use weir_ingest::{Encoding, Format, IngestConfig, IngestError, Pattern, TopicPattern};

fn by_pattern(bench: &Bench) -> IngestConfig {
    let mut config = bench.config(&[]);
    config.patterns.push(TopicPattern {
        pattern: Pattern::new(r"llm\..*").unwrap(),
        format: Format::Requests,
        encoding: Encoding::Json,
        headers: Vec::new(),
    });
    config.kafka.insert("topic.metadata.refresh.interval.ms".to_owned(), "300".to_owned());
    config
}

/// A note that says that the topic was filled by somebody else.
async fn claim(bench: &Bench, topic: &str, job: &str, id: &str) {
    let note = format!(r#"{{"job": "{job}", "cluster_id": null, "topic": "{topic}", "topic_id": "{id}"}}"#);
    bench.store.put(&format!("sources/requests/{topic}.json"), note.into()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_made_again_or_is_another_jobs_keeps_no_others_from_being_read() {
    let bench = Bench::new(&[("llm.a", 1), ("llm.b", 2), ("llm.c", 1), ("llm.d", 1)]).await;
    for topic in ["llm.a", "llm.b", "llm.c", "llm.d"] {
        bench.produce(topic, 0, (0..5).map(request));
    }
    claim(&bench, "llm.b", "test", "AnotherTopicsIdInBase64").await;
    claim(&bench, "llm.c", "another", "AnotherTopicsIdInBase64").await;
    // To the end: what is set aside is not waited for.
    bench.run(by_pattern(&bench)).await.unwrap();
    let read = [ids("llm.a", 0, 0..5), ids("llm.d", 0, 0..5)].concat();
    assert_rows(&bench.row_ids("requests").await, &read);

    // By name each ends the run.
    for topic in ["llm.b", "llm.c"] {
        let mut named = by_pattern(&bench);
        named.topics = bench.config(&[(topic, Format::Requests)]).topics;
        let error = bench.run(named).await.unwrap_err();
        assert!(matches!(error, IngestError::TopicRecreated { .. } | IngestError::OtherSource { .. }), "{error}");
    }
    assert_rows(&bench.row_ids("requests").await, &read);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_comes_and_is_another_jobs_is_set_aside_until_it_is_not() {
    let bench = Bench::new(&[("llm.a", 1)]).await;
    claim(&bench, "llm.b", "another", "AnotherTopicsIdInBase64").await;
    let mut config = by_pattern(&bench);
    config.stop_when_drained = false;
    bench.produce("llm.a", 0, (0..5).map(request));
    let running = bench.start(config, |_, _, _| {});
    eventually("the first rows", async || bench.row_ids("requests").await.len() == 5).await;
    bench.cluster.create_topic("llm.b", 1, 1).unwrap();
    bench.cluster.create_topic("llm.c", 1, 1).unwrap();
    bench.produce("llm.b", 0, (0..5).map(request));
    bench.produce("llm.c", 0, (0..5).map(request));
    bench.produce("llm.a", 0, (5..9).map(request));
    eventually("what came", async || bench.row_ids("requests").await.len() == 14).await;
    let read = [ids("llm.a", 0, 0..9), ids("llm.c", 0, 0..5)].concat();
    assert_rows(&bench.row_ids("requests").await, &read);
    // The other job gave it up.
    bench.store.delete("sources/requests/llm.b.json").await.unwrap();
    eventually("all", async || bench.row_ids("requests").await.len() == 19).await;
    running.stop().await.unwrap();
    assert_rows(&bench.row_ids("requests").await, &[read, ids("llm.b", 0, 0..5)].concat());
}
