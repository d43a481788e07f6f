//! `weir run`: ingest, derived tables, estimators and the HTTP services, until a signal or the end of the topics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use weir_ingest::{
    Encoding, Format, IngestConfig, OnConflict, Pattern, RegistryAccess, RegistryConfig, Start, TopicConfig,
    TopicPattern, TypeConflicts,
};
use weir_learners::hallucination;

use super::{configuration, print_json, stop_on_signal, store_and_keys};
use crate::adapters;
use crate::cli::{Common, RunArgs};
use crate::config::{Config, OnDataLoss, RegistrySection, StartAt, TopicEncoding, TopicFormat, TypeConflict};
use crate::error::{Failure, Result};
use crate::http::{self, Listener, Readiness};
use crate::pipeline::{Pipeline, StreamEstimator};
use crate::progress::Progress;
use crate::services::{self, Access, PolicyTopic};
use crate::upkeep;

/// The key of `[ingest.type_conflicts]` for columns that are not named.
const DEFAULT_POLICY: &str = "default";

/// Runs until drained, stopped or failed.
pub async fn run(common: &Common, args: RunArgs) -> Result<()> {
    let mut config = configuration(common)?;
    if let Some(brokers) = args.brokers {
        config.kafka.brokers = brokers;
    }
    if let Some(listen) = args.listen {
        config.http.listen = listen;
    }
    let ingest = ingest_config(&config, args.until_drained)?;
    weir_ingest::probe(&ingest).await?;
    let estimator = stream_estimator(&config)?;
    let access = Access::read(&config)?;
    // The port is bound before anything is written: a port in use must not leave half a start behind.
    let listener = if args.no_http { None } else { Some(Listener::bind(&config.http.listen).await?) };
    let (store, keyring) = store_and_keys(&config).await?;
    let metrics = http::install_metrics()?;
    let readiness = Readiness::of(&[http::INGEST, http::FEATURES]);
    let signal = stop_on_signal();
    let (stop_sender, stop) = watch::channel(false);
    let stop_sender = Arc::new(stop_sender);
    tokio::spawn({
        let (mut signal, stop_sender) = (signal, stop_sender.clone());
        async move {
            if signal.wait_for(|stop| *stop).await.is_ok() {
                stop_sender.send_replace(true);
            }
        }
    });
    let pipeline = Pipeline::start(store.clone(), keyring, ingest, estimator, readiness.clone(), stop.clone());
    let http = match listener {
        Some(listener) => {
            let router = services::router(
                &config,
                &store,
                access,
                http::operations(metrics, readiness),
                PolicyTopic::Create,
                stop.clone(),
            )
            .await?;
            eprintln!("weir: console and services at {}", listener.url());
            Some(tokio::spawn(listener.serve(router, stop.clone())))
        }
        None => {
            // Routers that listen on Kafka need no listener of ours.
            if !config.policy.kafka_topic.is_empty() {
                services::policies(&config, &store, access, PolicyTopic::Create, stop.clone()).await?;
            }
            None
        }
    };
    let mut upkeep = upkeep::start(&store, &config, stop.clone());
    let finishing = async {
        if args.until_drained {
            let committed = pipeline.committed.clone();
            let progress = Progress::start("reading the topics to their end:", "rows stored", None, common.json);
            progress.during(|| committed.total(), pipeline.finish()).await
        } else {
            pipeline.finish().await
        }
    };
    tokio::pin!(finishing);
    let (finished, died) = tokio::select! {
        finished = &mut finishing => (finished, None),
        failure = upkeep.died() => {
            // What was read is committed first.
            stop_sender.send_replace(true);
            (finishing.await, Some(failure))
        }
    };
    stop_sender.send_replace(true);
    if let Some(http) = http {
        http.await.map_err(|error| Failure::ours(format!("the HTTP services stopped: {error}")))??;
    }
    if let Some(failure) = died {
        return Err(failure);
    }
    upkeep.finish().await?;
    let (ingested, derived) = finished?;
    let summary = serde_json::json!({
        "ingest": ingested,
        "raw_versions_summarised": derived.raw_versions,
        "partial_rows": derived.partial_rows,
        "late_rows": derived.late_rows,
        "verdicts": derived.verdicts,
    });
    if common.json {
        print_json(&summary)
    } else {
        println!("{}", serde_json::to_string_pretty(&summary).map_err(Failure::ours)?);
        Ok(())
    }
}

/// The ingest job that the configuration describes.
///
/// # Errors
/// When a topic names an adapter that is not there or does not compile, or a pattern is none.
pub fn ingest_config(config: &Config, stop_when_drained: bool) -> Result<IngestConfig> {
    let format = |format: &TopicFormat| -> Result<Format> {
        Ok(match format {
            TopicFormat::Requests => Format::Requests,
            TopicFormat::Feedback => Format::Feedback,
            TopicFormat::GpuTelemetry => Format::GpuTelemetry,
            TopicFormat::VllmSemanticRouter => Format::VllmSemanticRouter,
            TopicFormat::Adapter(name) => {
                let definition = adapters::definition(config, name)?;
                Format::Adapter(Arc::new(adapters::compile(&definition)?))
            }
        })
    };
    let (mut topics, mut patterns) = (Vec::new(), Vec::new());
    for section in &config.kafka.topics {
        let (format, headers) = (format(&section.format)?, section.headers.clone());
        let encoding = match section.encoding {
            TopicEncoding::Json => Encoding::Json,
            TopicEncoding::JsonLines => Encoding::JsonLines,
            TopicEncoding::Avro => Encoding::Avro,
            TopicEncoding::Protobuf => Encoding::Protobuf,
        };
        if let Some(pattern) = &section.pattern {
            patterns.push(TopicPattern { pattern: Pattern::new(pattern)?, format, encoding, headers });
        } else if let Some(topic) = section.name.clone() {
            topics.push(TopicConfig { topic, format, encoding, headers });
        }
    }
    Ok(IngestConfig {
        brokers: config.kafka.brokers.clone(),
        group_id: config.kafka.group_id.clone(),
        job: config.kafka.job.clone(),
        topics,
        patterns,
        flush_rows: config.ingest.flush_rows,
        flush_bytes: config.ingest.flush_bytes,
        flush_interval: Duration::from_millis(config.ingest.flush_interval_ms),
        stop_when_drained,
        keep_text: config.ingest.keep_text,
        allowed_unknown: config.ingest.allowed_unknown.clone(),
        registry: config.kafka.registry.as_ref().map(registry),
        type_conflicts: type_conflicts(&config.ingest.type_conflicts),
        start: match config.ingest.start {
            StartAt::Earliest => Start::Earliest,
            StartAt::Latest => Start::Latest,
        },
        on_data_loss: match config.ingest.on_data_loss {
            OnDataLoss::Stop => weir_ingest::OnDataLoss::Stop,
            OnDataLoss::Count => weir_ingest::OnDataLoss::Count,
        },
        kafka: config.kafka.client_settings()?,
        dead_letter_days: config.ingest.dead_letter_days,
        storage_patience: IngestConfig::STORAGE_PATIENCE,
    })
}

fn registry(section: &RegistrySection) -> RegistryConfig {
    let access = match (&section.basic_auth_file, &section.bearer_token_file) {
        (Some(file), _) => RegistryAccess::Basic(file.clone()),
        (None, Some(file)) => RegistryAccess::Bearer(file.clone()),
        (None, None) => RegistryAccess::Open,
    };
    RegistryConfig { url: section.url.clone(), access }
}

fn type_conflicts(section: &BTreeMap<String, TypeConflict>) -> TypeConflicts {
    let policy = |word: &TypeConflict| match word {
        TypeConflict::DeadLetter => OnConflict::DeadLetter,
        TypeConflict::Null => OnConflict::Null,
        TypeConflict::Widen => OnConflict::Widen,
    };
    let columns = section.iter().filter(|(name, _)| *name != DEFAULT_POLICY);
    TypeConflicts {
        default: section.get(DEFAULT_POLICY).map(policy).unwrap_or_default(),
        columns: columns.map(|(name, word)| (name.clone(), policy(word))).collect(),
    }
}

/// The estimators that the configuration switches on.
pub(super) fn stream_estimator(config: &Config) -> Result<Option<StreamEstimator>> {
    let Some(section) = &config.estimators.hallucination else { return Ok(None) };
    let estimator = read_estimator(&section.artifact)?;
    Ok(Some(StreamEstimator { estimator, sample_share: section.sample_share }))
}

/// Reads an estimator's artifact.
pub fn read_estimator(path: &std::path::Path) -> Result<hallucination::Estimator> {
    let bytes = std::fs::read(path)
        .map_err(|error| Failure::user(format!("cannot read the estimator {}: {error}", path.display())))?;
    Ok(hallucination::Estimator::from_bytes(&bytes)?)
}
