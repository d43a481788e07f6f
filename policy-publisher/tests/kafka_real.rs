//! Delivery over a real Apache Kafka: what mock brokers don't have, topic settings and size limits.
#![allow(missing_docs)]

mod common;

use std::path::PathBuf;
use std::process::Command;

use common::{bundle, key, trust};
use weir_policy_publisher::kafka::{KafkaConfig, ensure_topic, publish_active, read_active};
use weir_policy_publisher::{ActivePolicy, PublisherError};
use weir_policy_runtime::Bundle;

/// A broker that stops when the test ends, however it ends.
struct Broker {
    script: PathBuf,
    folder: tempfile::TempDir,
    address: String,
}

impl Broker {
    fn start() -> Option<Self> {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/kafka/kafka.sh");
        let folder = tempfile::tempdir().unwrap();
        let output = Command::new("bash").arg(&script).args(["start", "--dir"]).arg(folder.path()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let last = text.lines().last().unwrap_or_default().to_owned();
        if output.status.code() == Some(3) {
            println!("{last}");
            return None;
        }
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        Some(Self { script, folder, address: last })
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let stopped = Command::new("bash").arg(&self.script).args(["stop", "--dir"]).arg(self.folder.path()).status();
        println!("broker stopped: {stopped:?}");
    }
}

/// A bundle of about `bytes` that compression cannot shrink.
fn large(bytes: usize) -> Bundle {
    let small = bundle("large", 1.0, "better");
    let mut files = small.files.clone();
    let mut state = 1u64;
    let noise = (0..bytes).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    });
    files.insert("knobs/noise.json".to_owned(), noise.collect());
    Bundle::build(small.manifest, files).unwrap()
}

fn ready(bundle: &Bundle) -> ActivePolicy {
    ActivePolicy { id: bundle.id.clone(), tar: bundle.to_tar().into(), signature: Some(key(1).sign(&bundle.id)) }
}

#[tokio::test]
async fn a_topic_made_by_us_takes_a_large_policy_and_another_says_what_to_raise() {
    let Some(broker) = Broker::start() else { return };
    let ours = KafkaConfig::new(&broker.address);
    let error = read_active(ours.clone(), trust(1)).await.unwrap_err();
    assert!(matches!(error, PublisherError::Kafka { .. }), "a topic that is not there: {error}");

    ensure_topic(&ours, 1).await.unwrap();
    ensure_topic(&ours, 1).await.unwrap(); // a second time changes nothing
    assert_eq!(read_active(ours.clone(), trust(1)).await.unwrap(), None);
    let policy = large(5 << 20);
    publish_active(&ours, Some(&ready(&policy))).await.unwrap();
    assert_eq!(read_active(ours.clone(), trust(1)).await.unwrap().unwrap().bundle, policy);
    publish_active(&ours, None).await.unwrap();
    assert_eq!(read_active(ours.clone(), trust(1)).await.unwrap(), None);

    let narrow = KafkaConfig { topic: "narrow".to_owned(), ..ours };
    make_topic_with_broker_defaults(&narrow).await;
    let error = ensure_topic(&narrow, 1).await.unwrap_err();
    assert!(matches!(&error, PublisherError::KafkaNotCompacted { cleanup, .. } if cleanup == "delete"), "{error}");
    let error = publish_active(&narrow, Some(&ready(&policy))).await.unwrap_err();
    assert!(matches!(error, PublisherError::KafkaTooLarge { .. }), "{error}");
    assert!(error.to_string().contains("raise its max.message.bytes"), "{error}");
}

/// Kafka's default is 1 MiB a record (documentation of `message.max.bytes`: 1048588).
async fn make_topic_with_broker_defaults(config: &KafkaConfig) {
    use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
    let admin: AdminClient<rdkafka::client::DefaultClientContext> =
        rdkafka::ClientConfig::new().set("bootstrap.servers", &config.brokers).create().unwrap();
    let topic = NewTopic::new(&config.topic, 1, TopicReplication::Fixed(1));
    let outcome = admin.create_topics([&topic], &AdminOptions::new()).await.unwrap();
    assert!(outcome.iter().all(Result::is_ok), "{outcome:?}");
}
