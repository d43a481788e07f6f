//! `weir bridge`: telemetry over HTTP and gRPC in, Kafka out.

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use tokio::sync::watch;
use weir_bridge::{Bridge, BridgeConfig, BridgeError, Signal, Summary};

use super::{configuration, no_data_folder, print_json, stop_on_signal_saying};
use crate::cli::{BridgeArgs, Common};
use crate::config::Config;
use crate::error::{Failure, Result};
use crate::http::{self, Listener, Readiness};
use crate::produce;

/// The variable that holds the token where no file does.
const TOKEN_VARIABLE: &str = "WEIR_BRIDGE_TOKEN";
/// How long the brokers may take to answer at the start. The bridge starts without them too.
const BROKER_ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// How often readiness is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Receives until a signal stops it.
pub async fn run(common: &Common, args: BridgeArgs) -> Result<()> {
    no_data_folder(common, "bridge", "bridge.buffer is the folder of its buffer")?;
    let mut config = configuration(common)?;
    if let Some(brokers) = args.brokers {
        config.kafka.brokers = brokers;
    }
    if !args.listen.is_empty() {
        config.bridge.listen = args.listen;
    }
    let settings = bridge_config(&config)?;
    let listeners = listen(&config, settings.token.is_some()).await?;
    if let Some(partitions) = args.create_topics {
        create_topics(&settings, partitions).await?;
    }
    match weir_bridge::probe(&settings, BROKER_ANSWERS_WITHIN).await {
        // What arrives waits on disk: to start before Kafka is a bridge's work.
        Err(error @ BridgeError::Unreachable { .. }) => tracing::warn!("{error}; what arrives waits on disk"),
        outcome => outcome?,
    }
    let metrics = http::install_metrics()?;
    let readiness = Readiness::of(&[http::BRIDGE]);
    let bridge = Bridge::open(settings)?;
    let stop = stop_on_signal_saying("stopping: what Kafka does not take now stays on disk (again to stop at once)");
    let (ended, serving) = watch::channel(false);
    let router = bridge.router().merge(http::operations(metrics, readiness.clone()));
    let servers: Vec<_> = listeners
        .into_iter()
        .map(|listener| {
            eprintln!("weir: the bridge listens at {}", listener.url());
            tokio::spawn(listener.serve(router.clone(), serving.clone()))
        })
        .collect();
    wait(&bridge, &readiness, stop).await;
    ended.send_replace(true);
    for server in servers {
        server.await.map_err(|error| Failure::ours(format!("a listener stopped: {error}")))??;
    }
    let summary = bridge.close().await?;
    if common.json { print_json(&summary) } else { report(&summary) }
}

/// Until there is reason to stop.
async fn wait(bridge: &Bridge, readiness: &Readiness, mut stop: watch::Receiver<bool>) {
    while !bridge.has_failed() {
        readiness.set(http::BRIDGE, bridge.standing().ready());
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Whoever reaches a listener can write into the tables: beyond this machine that takes a token.
async fn listen(config: &Config, has_token: bool) -> Result<Vec<Listener>> {
    if config.bridge.listen.is_empty() {
        return Err(Failure::user("bridge.listen is empty: name at least one HOST:PORT"));
    }
    let mut listeners = Vec::new();
    for address in &config.bridge.listen {
        let listener = Listener::bind(address).await?;
        if !has_token && !listener.is_loopback() {
            return Err(Failure::user(format!(
                "{address} can be reached from other machines: name a file with a token in bridge.token_file, or set \
                 {TOKEN_VARIABLE}"
            )));
        }
        listeners.push(listener);
    }
    Ok(listeners)
}

async fn create_topics(settings: &BridgeConfig, partitions: i32) -> Result<()> {
    let mut client = ClientConfig::new();
    for (name, value) in &settings.kafka {
        client.set(name, value);
    }
    client.set("bootstrap.servers", &settings.brokers);
    let topics: Vec<&str> = settings.signals.iter().map(|signal| settings.topic(*signal)).collect();
    produce::create_topics(&client, &topics, partitions).await
}

/// What the configuration says of the bridge, for `weir check`.
pub(super) fn settings(config: &Config) -> Result<String> {
    let settings = bridge_config(config)?;
    let topics: Vec<&str> = settings.signals.iter().map(|signal| settings.topic(*signal)).collect();
    let token = if settings.token.is_some() { "with a token" } else { "without a token" };
    Ok(format!("{} {token}: {}", config.bridge.listen.join(", "), topics.join(", ")))
}

fn bridge_config(config: &Config) -> Result<BridgeConfig> {
    let section = &config.bridge;
    let mut signals = BTreeSet::new();
    for name in &section.signals {
        let signal = Signal::named(name).ok_or_else(|| {
            Failure::user(format!("bridge.signals holds {name:?}: a signal is metrics, traces or logs"))
        })?;
        signals.insert(signal);
    }
    let settings = BridgeConfig {
        brokers: config.kafka.brokers.clone(),
        kafka: config.kafka.producer_settings()?,
        signals,
        topics: [&section.metrics_topic, &section.traces_topic, &section.logs_topic].map(Clone::clone),
        buffer: section.buffer.clone(),
        buffer_max_bytes: section.buffer_max_bytes,
        max_body_bytes: section.max_body_bytes,
        token: token(config)?,
        keep_text: section.keep_text,
        text_attributes: section.text_attributes.clone(),
        drain: Duration::from_millis(section.drain_ms),
    };
    settings.check()?;
    Ok(settings)
}

fn token(config: &Config) -> Result<Option<String>> {
    if let Ok(token) = std::env::var(TOKEN_VARIABLE) {
        return Ok(Some(token.trim().to_owned()));
    }
    let Some(path) = &config.bridge.token_file else { return Ok(None) };
    let read = std::fs::read_to_string(path);
    let token =
        read.map_err(|error| Failure::user(format!("cannot read the bridge's token {}: {error}", path.display())))?;
    Ok(Some(token.trim().to_owned()))
}

fn report(summary: &Summary) -> Result<()> {
    let total = |counts: &std::collections::BTreeMap<&str, u64>| counts.values().sum::<u64>();
    println!(
        "{} requests ({} refused), {} messages taken, {} delivered, {} left on disk; an earlier run had left {}",
        summary.requests,
        summary.refused_requests,
        total(&summary.accepted),
        total(&summary.delivered),
        summary.left_on_disk,
        summary.replayed
    );
    Ok(())
}
