//! The broker before anything is read or written: is it there, does it know the topics, which cluster is it?

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::source::Watermarks;
use crate::{IngestConfig, IngestError, Result};

/// Checks that a broker answers and knows every topic. Writes nothing anywhere.
///
/// # Errors
/// [`IngestError::Config`], [`IngestError::Unreachable`], [`IngestError::MissingTopic`], [`IngestError::Refused`].
pub async fn probe(config: &IngestConfig) -> Result<()> {
    cluster(config).await.map(|_| ())
}

/// As [`probe`], and says which cluster it is, if the broker tells.
pub(crate) async fn cluster(config: &IngestConfig) -> Result<Option<String>> {
    config.check()?;
    let config = config.clone();
    tokio::task::spawn_blocking(move || ask(&config)).await.map_err(|_| IngestError::PollThread)?
}

/// What Kafka holds now of each partition of each topic.
pub(crate) async fn watermarks(config: &IngestConfig) -> Result<Vec<Watermarks>> {
    let config = config.clone();
    tokio::task::spawn_blocking(move || ask_watermarks(&config)).await.map_err(|_| IngestError::PollThread)?
}

/// The operator's client settings under ours.
pub(crate) fn client_config(config: &IngestConfig) -> ClientConfig {
    let mut client = ClientConfig::new();
    // A process that died holds its partitions for the session timeout: the default of 45 s is long for a restart.
    client.set("session.timeout.ms", "10000").set("heartbeat.interval.ms", "3000");
    // The one consumer queue; the channel behind it is bounded too.
    client.set("queued.max.messages.kbytes", "32768");
    for (name, value) in &config.kafka {
        client.set(name, value);
    }
    client
        .set("bootstrap.servers", &config.brokers)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("allow.auto.create.topics", "false")
        // Where to start is decided from the tables. A position that Kafka lacks is an error, never a silent jump.
        .set("auto.offset.reset", "error");
    client
}

fn ask(config: &IngestConfig) -> Result<Option<String>> {
    let wait = config.answer_within();
    let client: BaseConsumer = client_config(config).create()?;
    for topic in &config.topics {
        let metadata = client
            .fetch_metadata(Some(&topic.topic), wait)
            .map_err(|error| classify(config, &topic.topic, wait, error))?;
        let missing = || IngestError::MissingTopic { topic: topic.topic.clone(), brokers: config.brokers.clone() };
        let found = metadata.topics().iter().find(|found| found.name() == topic.topic).ok_or_else(missing)?;
        match found.error().map(RDKafkaErrorCode::from) {
            // A topic without a leader yet is there; the consumer waits for the leader.
            None | Some(RDKafkaErrorCode::LeaderNotAvailable) => {}
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => return Err(missing()),
            Some(code) => return Err(classify(config, &topic.topic, wait, KafkaError::MetadataFetch(code))),
        }
        if found.partitions().is_empty() && found.error().is_none() {
            return Err(missing());
        }
    }
    Ok(client.client().fetch_cluster_id(wait).filter(|id| !id.is_empty()))
}

fn ask_watermarks(config: &IngestConfig) -> Result<Vec<Watermarks>> {
    let wait = config.answer_within();
    let client: BaseConsumer = client_config(config).create()?;
    let mut watermarks = Vec::new();
    for (index, topic) in config.topics.iter().enumerate() {
        let trouble = |error| classify(config, &topic.topic, wait, error);
        for partition in partitions(&client, &topic.topic, wait).map_err(trouble)? {
            let (low, high) = client.fetch_watermarks(&topic.topic, partition, wait).map_err(trouble)?;
            watermarks.push(Watermarks { partition: (index, partition), low, high });
        }
    }
    Ok(watermarks)
}

/// The partitions of a topic; waits for a topic that was just created and has no leader yet.
fn partitions(client: &BaseConsumer, topic: &str, wait: Duration) -> Result<Vec<i32>, KafkaError> {
    let give_up = Instant::now() + wait;
    loop {
        let metadata = client.fetch_metadata(Some(topic), wait)?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let ids: Vec<i32> = found.iter().flat_map(|found| found.partitions()).map(|partition| partition.id()).collect();
        if !ids.is_empty() {
            return Ok(ids);
        }
        if Instant::now() >= give_up {
            return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::RequestTimedOut));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The Kafka client's error in terms of what to mend.
pub(crate) fn classify(config: &IngestConfig, what: &str, waited: Duration, error: KafkaError) -> IngestError {
    use RDKafkaErrorCode as Code;
    let brokers = config.brokers.clone();
    match error.rdkafka_error_code() {
        Some(
            Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::OperationTimedOut
            | Code::Resolve
            | Code::RequestTimedOut,
        ) => IngestError::Unreachable { brokers, waited_s: waited.as_secs() },
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition) => {
            IngestError::MissingTopic { topic: what.to_owned(), brokers }
        }
        Some(
            code @ (Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::SaslAuthenticationFailed
            | Code::Authentication
            | Code::SSL),
        ) => IngestError::Refused { brokers, what: what.to_owned(), why: code.to_string() },
        _ => IngestError::Kafka(error),
    }
}
