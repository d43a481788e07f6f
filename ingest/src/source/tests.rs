//! The poll thread alone, with a sink that does not answer, on a mock cluster.

use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::*;
use crate::config::tests::{config_of, llm};
use crate::topics::KnownTopic;

fn config(brokers: String, kafka: &[(&str, &str)]) -> IngestConfig {
    IngestConfig {
        brokers,
        flush_rows: 1_000,
        flush_bytes: 1 << 20,
        kafka: kafka.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        ..config_of(vec![llm()])
    }
}

async fn next(arriving: &mut Arriving) -> Event {
    tokio::time::timeout(Duration::from_secs(30), arriving.recv()).await.expect("news comes").expect("it lives")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_answers_late_costs_the_partition_nothing() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("llm", 1, 1).unwrap();
    let produce = |count: i32| {
        let producer: BaseProducer =
            ClientConfig::new().set("bootstrap.servers", cluster.bootstrap_servers()).create().unwrap();
        for _ in 0..count {
            producer.send(BaseRecord::<(), [u8]>::to("llm").partition(0).payload(b"{}")).map_err(|_| "full").unwrap();
        }
        producer.flush(Duration::from_secs(20)).unwrap();
    };
    produce(30);
    let limits = [("session.timeout.ms", "6000"), ("max.poll.interval.ms", "6000")];
    let control = Arc::new(Control::default());
    control.topics.add(&KnownTopic { config: llm(), id: None, partitions: 1 });
    control.subscribe_again();
    let (source, mut arriving) = Source::start(&config(cluster.bootstrap_servers(), &limits), control).unwrap();
    let Event::News(News::Assigned { generation: 1, partitions, starts, .. }) = next(&mut arriving).await else {
        panic!("an assignment comes first")
    };
    assert_eq!(partitions, [Watermarks { partition: (0, 0), low: 0, high: 30 }]);
    // Longer than the group would wait for a member that does not poll. What comes meanwhile is nobody's yet.
    tokio::time::sleep(Duration::from_secs(9)).await;
    produce(10);
    tokio::time::sleep(Duration::from_secs(1)).await;
    starts.send(vec![7]).unwrap();
    let mut offsets = Vec::new();
    while offsets.len() < 33 {
        match next(&mut arriving).await {
            Event::Messages(chunk) => offsets.extend(chunk.entries.iter().map(|entry| entry.offset)),
            Event::News(News::Revoked { .. }) => panic!("the group has thrown it out"),
            Event::News(_) => panic!("nothing else is news"),
        }
    }
    assert_eq!(offsets, (7..40).collect::<Vec<i64>>(), "from where the sink said, and all of it");
    drop(arriving);
    source.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_does_not_answer_is_asked_again() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("llm", 2, 1).unwrap();
    let control = Arc::new(Control::default());
    control.topics.add(&KnownTopic { config: llm(), id: None, partitions: 2 });
    control.subscribe_again();
    let (source, mut arriving) = Source::start(&config(cluster.bootstrap_servers(), &[]), control).unwrap();
    for wanted in 1..3 {
        // Dropped with the answer that it wants.
        let Event::News(News::Assigned { generation, partitions, .. }) = next(&mut arriving).await else {
            panic!("it asks again")
        };
        assert_eq!((generation, partitions.len()), (wanted, 2));
    }
    drop(arriving);
    source.end().await;
}
