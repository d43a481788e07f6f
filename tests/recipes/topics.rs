//! Topics as seen from outside: made, and read from their beginning.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::Message as _;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use serde_json::Value;

use crate::parts::PATIENCE;

/// A message: its key, and its value as JSON.
#[derive(Debug)]
pub struct Message {
    pub key: String,
    pub value: Value,
}

fn client(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    config
}

/// Creates a topic of one partition.
pub fn create(brokers: &str, topic: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    let admin: AdminClient<DefaultClientContext> = client(brokers).create().expect("an admin client starts");
    let wanted = [NewTopic::new(topic, 1, TopicReplication::Fixed(1))];
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
    for result in runtime.block_on(admin.create_topics(&wanted, &options)).expect("the broker answers") {
        result.expect("a topic is created");
    }
}

/// How many messages a topic of one partition has been given.
pub fn end(brokers: &str, topic: &str) -> i64 {
    let consumer: BaseConsumer = client(brokers).create().expect("a consumer starts");
    consumer.fetch_watermarks(topic, 0, Duration::from_secs(30)).expect("the broker answers").1
}

/// Reads a topic from its beginning until it has given `count` messages, and a moment longer in case there are more.
pub fn read(brokers: &str, topic: &str, count: usize) -> Vec<Message> {
    let mut config = client(brokers);
    config.set("group.id", format!("read-{topic}-{count}")).set("auto.offset.reset", "earliest");
    config.set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().expect("a consumer starts");
    consumer.subscribe(&[topic]).expect("a topic can be read");
    let mut messages = Vec::new();
    let began = Instant::now();
    let mut full = None;
    while full.is_none_or(|at: Instant| at.elapsed() < Duration::from_millis(500)) {
        assert!(began.elapsed() < PATIENCE, "{topic} has {} messages, not {count}: {messages:?}", messages.len());
        if let Some(polled) = consumer.poll(Duration::from_millis(100)) {
            let message = polled.expect("the topic can be read");
            let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
            let value = text(message.payload());
            let value = serde_json::from_str(&value).unwrap_or_else(|error| panic!("not JSON ({error}): {value}"));
            messages.push(Message { key: text(message.key()), value });
        }
        if full.is_none() && messages.len() >= count {
            full = Some(Instant::now());
        }
    }
    messages
}
