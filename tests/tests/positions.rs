//! `weir positions` as operators use it, on a real Kafka: retention that was faster, and a topic that was made again.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::Value;
use weir_tests::{Kafka, Weir};

const DRAIN: [&str; 4] = ["run", "--until-drained", "--no-http", "--json"];

fn simulate(weir: &Weir, kafka: &Kafka, seed: &str) -> u64 {
    let simulate = ["simulate", "--seconds", "300", "--rate", "5", "--seed", seed, "--json", "--create-topics", "1"];
    let produced = weir.run(&[&simulate[..], &["--brokers", &kafka.brokers]].concat()).ok().json();
    produced["by_topic"]["requests"].as_u64().expect("a count")
}

fn requests(listed: &Value) -> &Value {
    let partitions = listed["partitions"].as_array().expect("partitions");
    partitions.iter().find(|of| of["topic"] == "requests").expect("the topic is listed")
}

#[tokio::test]
async fn what_is_lost_is_passed_over_and_a_topic_made_again_is_read_as_another() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(kafka) = Kafka::start(folder.path()) else { return };
    let weir = Weir::new(folder.path());
    let configure = |ingest: &str| weir.configure(&format!("[kafka]\nbrokers = \"{}\"\n{ingest}", kafka.brokers));
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &kafka.brokers).create().expect("an admin client");
    configure("");
    let first = simulate(&weir, &kafka, "1");
    weir.run(&DRAIN).ok();
    let lost = simulate(&weir, &kafka, "2");
    let mut cut = TopicPartitionList::new();
    cut.add_partition_offset("requests", 0, Offset::End).expect("a partition");
    admin.delete_records(&cut, &AdminOptions::new()).await.expect("records can be deleted");
    let kept = simulate(&weir, &kafka, "3");

    // Nothing is read until somebody has decided.
    let stopped = weir.run(&DRAIN);
    assert_eq!(stopped.code, 3, "{}", stopped.stderr);
    assert!(stopped.json()["error"].as_str().is_some_and(|error| error.contains("weir positions skip requests/0")));
    let listed = weir.run(&["positions", "list", "--json"]).ok().json();
    assert_eq!((&requests(&listed)["state"], requests(&listed)["next"].as_u64()), (&"lost".into(), Some(first)));
    let table = weir.run(&["positions", "list"]).ok();
    assert!(table.stdout.contains("LOST") && table.stdout.contains("--to earliest"), "{}", table.stdout);

    let nobody = weir.command(&["positions", "skip", "requests/0", "--to", "earliest"]).env_remove("USER").output();
    assert_eq!(nobody.expect("the binary starts").status.code(), Some(2), "somebody has to decide");
    let skip =
        ["positions", "skip", "requests/0", "--to", "earliest", "--actor", "ann", "--reason", "weekend", "--json"];
    let skipped = weir.run(&skip).ok().json();
    assert_eq!(
        (skipped["from_offset"].as_u64(), skipped["to_offset"].as_u64()),
        (Some(first), Some(first + lost)),
        "{skipped}"
    );
    let twice = weir.run(&skip);
    assert_eq!(twice.code, 2, "{}", twice.stdout);
    weir.run(&DRAIN).ok();
    assert_eq!(weir.number("select count(*) from raw_requests"), (first + kept) as f64);
    let gap = &weir.sql("select * from ingest_gaps")[0];
    assert_eq!((&gap["actor"], &gap["reason"], &gap["cause"]), (&"ann".into(), &"weekend".into(), &"skipped".into()));

    // By policy, without anybody.
    configure("[ingest]\non_data_loss = \"count\"\n");
    let lost = simulate(&weir, &kafka, "4");
    admin.delete_records(&cut, &AdminOptions::new()).await.expect("records can be deleted");
    weir.run(&DRAIN).ok();
    assert_eq!(
        weir.number("select sum(to_offset - from_offset) from ingest_gaps where cause = 'data_loss'"),
        lost as f64
    );

    // Made again: refused, given up, read as another.
    for deleted in admin.delete_topics(&["requests"], &AdminOptions::new()).await.expect("an answer") {
        deleted.expect("the topic goes");
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let again = NewTopic::new("requests", 1, TopicReplication::Fixed(1));
    for created in admin.create_topics([&again], &AdminOptions::new()).await.expect("an answer") {
        created.expect("the topic comes");
    }
    let second = simulate(&weir, &kafka, "5");
    let refused = weir.run(&DRAIN);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(
        refused.sentence().contains("weir positions forget requests") || refused.stderr.contains("forget requests")
    );
    let forget = ["positions", "forget", "requests", "--actor", "ann", "--json"];
    let forgotten = weir.run(&forget).ok().json();
    assert_eq!(forgotten["source_topic"], "requests@2", "{forgotten}");
    weir.run(&DRAIN).ok();
    let counted =
        weir.sql("select source_topic, count(*) as messages from raw_requests group by source_topic order by 1");
    let counted: Vec<_> = counted.iter().map(|row| (row["source_topic"].as_str(), row["messages"].as_u64())).collect();
    assert_eq!(counted, [(Some("requests"), Some(first + kept)), (Some("requests@2"), Some(second))]);
    let once = weir.run(&forget);
    assert!(once.code == 2 && once.stderr.contains("nothing to forget"), "{}", once.stderr);
}
