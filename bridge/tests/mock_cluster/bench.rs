//! A bridge on a port, before a mock cluster, and what lands in its topics.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::{Offset, TopicPartitionList};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use weir_bridge::{Bridge, BridgeConfig, HEADER, Signal, Summary};

pub const PARTITIONS: i32 = 2;

pub struct Bench {
    pub cluster: MockCluster<'static, DefaultProducerContext>,
    pub folder: TempDir,
}

impl Bench {
    pub fn new() -> Self {
        let cluster = MockCluster::new(1).unwrap();
        for topic in ["gpu_telemetry", "otel_spans", "otel_logs"] {
            cluster.create_topic(topic, PARTITIONS, 1).unwrap();
        }
        Self { cluster, folder: tempfile::tempdir().unwrap() }
    }

    pub fn config(&self) -> BridgeConfig {
        let mut config = BridgeConfig::new(&self.cluster.bootstrap_servers(), self.folder.path().join("buffer"));
        // A broker that comes back is found at once.
        config.kafka.insert("reconnect.backoff.max.ms".into(), "200".into());
        config
    }

    /// Everything in a topic now, partition by partition.
    pub fn messages(&self, topic: &str) -> Vec<Landed> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.cluster.bootstrap_servers())
            .set("group.id", "reader")
            .set("enable.partition.eof", "false")
            .create()
            .unwrap();
        let mut landed = Vec::new();
        for partition in 0..PARTITIONS {
            let (_, end) = consumer.fetch_watermarks(topic, partition, Duration::from_secs(10)).unwrap();
            let mut assignment = TopicPartitionList::new();
            assignment.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
            consumer.assign(&assignment).unwrap();
            let mut read = 0;
            let began = Instant::now();
            while read < end {
                assert!(
                    began.elapsed() < Duration::from_secs(60),
                    "{topic}/{partition}: {read} of {end} could be read"
                );
                // The client wakes us for reasons of its own too.
                let Some(message) = consumer.poll(Duration::from_secs(1)) else { continue };
                let message = message.unwrap();
                let header = message.headers().unwrap().iter().find(|header| header.key == HEADER).unwrap();
                landed.push(Landed {
                    key: String::from_utf8(message.key().unwrap_or_default().to_vec()).unwrap(),
                    value: serde_json::from_slice(message.payload().unwrap()).unwrap(),
                    position: String::from_utf8(header.value.unwrap().to_vec()).unwrap(),
                });
                read = message.offset() + 1;
            }
        }
        landed
    }
}

/// A message in Kafka.
#[derive(Debug, Clone)]
pub struct Landed {
    pub key: String,
    pub value: serde_json::Value,
    pub position: String,
}

/// A bridge that listens.
pub struct Running {
    bridge: Bridge,
    pub url: String,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

impl Running {
    pub async fn start(config: BridgeConfig) -> Self {
        let bridge = Bridge::open(config).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let router = bridge.router();
        let server = tokio::spawn(async move {
            let stopped = async move { drop(stopped.await) };
            axum::serve(listener, router).with_graceful_shutdown(stopped).await.unwrap();
        });
        Self { bridge, url, stop, server }
    }

    pub fn standing(&self) -> weir_bridge::Standing {
        self.bridge.standing()
    }

    pub async fn close(self) -> Summary {
        self.stop.send(()).unwrap();
        self.server.await.unwrap();
        self.bridge.close().await.unwrap()
    }

    /// Posts, and returns status, headers and body.
    pub async fn post(&self, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
        let mut request = agent().post(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let sent = tokio::task::spawn_blocking(move || {
            let mut response = request.send(&body[..]).unwrap();
            let headers = response.headers().iter();
            let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
            let body = response.body_mut().read_to_vec().unwrap();
            Answer { status: response.status().as_u16(), headers, body }
        });
        sent.await.unwrap()
    }
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false);
    config.timeout_global(Some(Duration::from_secs(30))).max_idle_connections(0).build().into()
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// What goes where, for assertions over all topics.
pub fn topic(signal: Signal) -> &'static str {
    match signal {
        Signal::Metrics => "gpu_telemetry",
        Signal::Traces => "otel_spans",
        Signal::Logs => "otel_logs",
    }
}

/// Polls until `done` says so, 30 seconds at most.
pub async fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(30), "waited 30 s in vain: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
