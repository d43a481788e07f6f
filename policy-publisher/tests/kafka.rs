//! Delivery over Kafka, against librdkafka's mock brokers.
#![allow(missing_docs)]

mod common;

use std::time::Duration;

use common::{because, bundle, by, key, proposed, registry, trust};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{FutureProducer, FutureRecord};
use tokio::sync::watch;
use weir_policy_publisher::delivery::{Delivery, InForce};
use weir_policy_publisher::kafka::{ActiveReader, KafkaConfig, Update, publish_active, publish_changes, read_active};
use weir_policy_publisher::{ActivePolicy, PublisherError};
use weir_policy_runtime::{Bundle, SignatureError, Standing, Trust};

type Cluster = MockCluster<'static, rdkafka::producer::DefaultProducerContext>;

fn cluster() -> (Cluster, KafkaConfig) {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("weir.policies", 1, 1).unwrap();
    let config = KafkaConfig::new(&cluster.bootstrap_servers());
    (cluster, config)
}

fn ready(bundle: &Bundle, seed: Option<u8>) -> ActivePolicy {
    let signature = seed.map(|seed| key(seed).sign(&bundle.id));
    ActivePolicy { id: bundle.id.clone(), tar: bundle.to_tar().into(), signature }
}

#[tokio::test]
async fn a_router_reads_the_last_policy_published() {
    let (_cluster, config) = cluster();
    assert_eq!(read_active(config.clone(), trust(1)).await.unwrap(), None);

    let (first, second) = (bundle("first", 1.0, "better"), bundle("second", 2.0, "better"));
    publish_active(&config, Some(&ready(&first, Some(1)))).await.unwrap();
    publish_active(&config, Some(&ready(&second, Some(1)))).await.unwrap();
    let delivered = read_active(config.clone(), trust(1)).await.unwrap().unwrap();
    assert_eq!(delivered.bundle, second);
    assert_eq!(delivered.standing, Standing::SignedBy(key(1).public().key_id()));

    publish_active(&config, None).await.unwrap();
    assert_eq!(read_active(config, trust(1)).await.unwrap(), None);
}

#[tokio::test]
async fn a_router_that_listens_hears_each_change_once() {
    let (_cluster, config) = cluster();
    let policy = bundle("demo", 1.0, "better");
    publish_active(&config, Some(&ready(&policy, Some(1)))).await.unwrap();
    let open = config.clone();
    let (mut reader, first) = tokio::task::spawn_blocking(move || {
        let mut reader = ActiveReader::open(open, trust(1)).unwrap();
        let first = reader.poll(Duration::ZERO).unwrap();
        (reader, first)
    })
    .await
    .unwrap();
    assert!(matches!(first, Update::Policy(delivered) if delivered.bundle == policy));
    publish_active(&config, None).await.unwrap();
    tokio::task::spawn_blocking(move || {
        assert_eq!(reader.poll(Duration::from_secs(10)).unwrap(), Update::None);
        assert_eq!(reader.poll(Duration::from_millis(200)).unwrap(), Update::Unchanged);
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_router_refuses_what_it_does_not_trust() {
    let (_cluster, config) = cluster();
    let policy = bundle("demo", 1.0, "better");
    publish_active(&config, Some(&ready(&policy, Some(2)))).await.unwrap();
    let error = read_active(config.clone(), trust(1)).await.unwrap_err();
    assert!(matches!(error, PublisherError::Signature(SignatureError::UnknownKey { .. })), "{error}");

    publish_active(&config, Some(&ready(&policy, None))).await.unwrap();
    let error = read_active(config.clone(), trust(1)).await.unwrap_err();
    assert!(matches!(error, PublisherError::Signature(SignatureError::Unsigned { .. })), "{error}");
    assert!(read_active(config.clone(), Trust::AcceptUnsigned).await.unwrap().is_some());

    // The tar of one policy under the id of another.
    let other = bundle("other", 2.0, "better");
    let mixed = ActivePolicy { tar: other.to_tar().into(), ..ready(&policy, Some(1)) };
    publish_active(&config, Some(&mixed)).await.unwrap();
    assert!(matches!(read_active(config, trust(1)).await, Err(PublisherError::Bundle(_))));
}

#[tokio::test]
async fn foreign_records_are_passed_over_or_named() {
    let (_cluster, config) = cluster();
    let producer: FutureProducer =
        rdkafka::ClientConfig::new().set("bootstrap.servers", &config.brokers).create().unwrap();
    let send = async |key: &str| {
        let record = FutureRecord::to("weir.policies").key(key).payload("noise");
        producer.send(record, Duration::from_secs(10)).await.unwrap();
    };
    send("something else").await;
    assert_eq!(read_active(config.clone(), trust(1)).await.unwrap(), None);
    send("active").await;
    let error = read_active(config, trust(1)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the record in kafka topic weir.policies is no policy (the header policy-id is missing): publish the active policy again"
    );
}

#[tokio::test]
async fn decisions_reach_the_topic_by_themselves() {
    let (_cluster, config) = cluster();
    let (_, registry) = registry().await;
    let delivery = Delivery::open(registry.clone(), None).await;
    let (stopper, stop) = watch::channel(false);
    let publishing = tokio::spawn(publish_changes(config.clone(), None, delivery.in_force(), stop));

    let policy = proposed(&registry, "demo", 1.0, "better").await;
    registry.approve(&policy.id, &by("alice")).await.unwrap();
    delivery.refresh().await.unwrap();
    let read = until(&config, |found| found.is_some()).await;
    assert_eq!(read.unwrap().bundle, policy);
    registry.rollback(&policy.id, &because("alice", "enough")).await.unwrap();
    delivery.refresh().await.unwrap();
    until(&config, |found| found.is_none()).await;
    stopper.send(true).unwrap();
    publishing.await.unwrap();
}

/// The policy is on partition 0 (CRC-32 of the key is even); the broker of partition 1 falls silent before its end is
/// reached, so the first reading does not end.
#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_was_read_before_the_brokers_fell_silent_is_not_lost() {
    let cluster = MockCluster::new(2).unwrap();
    cluster.create_topic("weir.policies", 2, 1).unwrap();
    for partition in 0..2 {
        cluster.partition_leader("weir.policies", partition, Some(partition + 1)).unwrap();
    }
    let config = KafkaConfig { timeout: Duration::from_secs(3), ..KafkaConfig::new(&cluster.bootstrap_servers()) };
    let policy = bundle("demo", 1.0, "better");
    publish_active(&config, Some(&ready(&policy, Some(1)))).await.unwrap();
    tokio::task::block_in_place(|| {
        let mut reader = ActiveReader::open(config, trust(1)).unwrap();
        cluster.broker_down(2).unwrap();
        assert!(reader.poll(Duration::ZERO).is_err(), "the first reading is not complete");
        cluster.broker_up(2).unwrap();
        let found = (0..20).find_map(|_| reader.poll(Duration::ZERO).ok()).unwrap();
        assert!(matches!(&found, Update::Policy(delivered) if delivered.bundle == policy), "{found:?}");
    });
}

#[tokio::test]
async fn while_nothing_is_known_of_the_policy_in_force_nothing_is_withdrawn() {
    let (_cluster, config) = cluster();
    let policy = bundle("demo", 1.0, "better");
    publish_active(&config, Some(&ready(&policy, Some(1)))).await.unwrap();
    let (teller, in_force) = watch::channel(InForce::Unknown);
    let (stopper, stop) = watch::channel(false);
    let publishing = tokio::spawn(publish_changes(config.clone(), None, in_force, stop));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(read_active(config.clone(), trust(1)).await.unwrap().is_some(), "a damaged registry is no rollback");
    teller.send(InForce::Nothing).unwrap();
    until(&config, |found| found.is_none()).await;
    stopper.send(true).unwrap();
    publishing.await.unwrap();
}

async fn until(
    config: &KafkaConfig,
    wanted: impl Fn(&Option<weir_policy_publisher::kafka::Delivered>) -> bool,
) -> Option<weir_policy_publisher::kafka::Delivered> {
    for _ in 0..100 {
        let found = read_active(config.clone(), trust(1)).await.unwrap();
        if wanted(&found) {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the topic never held what was expected");
}

#[tokio::test]
async fn brokers_that_do_not_answer_are_one_sentence() {
    // Port 1 on this machine: nobody listens there.
    let config = KafkaConfig { timeout: Duration::from_millis(500), ..KafkaConfig::new("127.0.0.1:1") };
    let expected = "kafka topic weir.policies at 127.0.0.1:1 did not answer in time: check the address and the network";
    assert_eq!(publish_active(&config, None).await.unwrap_err().to_string(), expected);
    let error = read_active(config, trust(1)).await.unwrap_err();
    assert_eq!(error.to_string(), expected);
    assert!(error.retry_helps());
}
