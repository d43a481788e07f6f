//! `weir check`: what is wrong with configuration, connections and permissions, and how to mend it.

use std::time::Duration;

use serde::Serialize;
use weir_ingest::{LatestSchema, Probed, TopicPattern, TopicSchema};
use weir_policy_runtime::Trust;
use weir_store::{Keyring, Store};

use super::run::stream_estimator;
use super::{configuration, print_json};
use crate::cli::Common;
use crate::config::{Config, TopicEncoding};
use crate::error::{Failure, Result};
use crate::http::Listener;
use crate::postgres::Postgres;
use crate::services::Access;

/// Names of fields that one line shows.
const NAMES_SHOWN: usize = 10;

#[derive(Serialize)]
struct Finding {
    part: &'static str,
    ok: bool,
    /// What was found, or what is wrong and how to mend it.
    says: String,
}

/// Checks every part, also after one has failed, and fails at the end if any did.
pub async fn run(common: &Common) -> Result<()> {
    let config = configuration(common)?;
    let mut findings = vec![
        finding("store", store(&config).await),
        finding("keys", keys(&config)),
        finding("kafka", kafka(&config).await),
    ];
    findings.extend(registry(&config).await.into_iter().map(|result| finding("registry", result)));
    findings.extend([
        finding("adapters", adapters(&config)),
        finding("http", http(&config).await),
        finding("policy", access(&config)),
        finding("estimators", estimators(&config)),
        finding("bridge", super::bridge::settings(&config)),
    ]);
    findings.extend((!config.energy.is_empty()).then(|| finding("energy", energy(&config))));
    findings.extend(postgres(&config).await.map(|result| finding("postgres", result)));
    let failed = findings.iter().filter(|finding| !finding.ok).count();
    let report = serde_json::json!({ "findings": findings });
    if !common.json {
        for finding in &findings {
            println!("{:<6} {:<10} {}", if finding.ok { "ok" } else { "FAILED" }, finding.part, finding.says);
        }
    } else if failed == 0 {
        print_json(&report)?;
    }
    if failed == 0 {
        return Ok(());
    }
    Err(Failure::user(format!("{failed} of {} checks failed", findings.len())).with_report(report))
}

fn finding(part: &'static str, result: Result<String>) -> Finding {
    match result {
        Ok(says) => Finding { part, ok: true, says },
        Err(failure) => Finding { part, ok: false, says: failure.to_string() },
    }
}

async fn store(config: &Config) -> Result<String> {
    Store::open_with(&config.store.url, &config.store.client_options()).await?;
    Ok(config.store.url.clone())
}

fn keys(config: &Config) -> Result<String> {
    Keyring::open(&config.keys.path)?;
    Ok(config.keys.path.display().to_string())
}

async fn kafka(config: &Config) -> Result<String> {
    let ingest = super::run::ingest_config(config, false)?;
    let Probed { read, aside } = weir_ingest::probe(&ingest).await?;
    let (named, matched) = read.split_at(ingest.topics.len());
    let mut says = vec![named.join(", ")];
    for TopicPattern { pattern, .. } in &ingest.patterns {
        // A name that several patterns match is read as the first of them says.
        let first = |name: &&String| ingest.patterns.iter().find(|each| each.pattern.matches(name));
        let its = matched.iter().filter(|name| first(name).is_some_and(|each| each.pattern == *pattern));
        let its: Vec<&str> = its.map(String::as_str).collect();
        let its = if its.is_empty() { "no topic yet".to_owned() } else { its.join(", ") };
        says.push(format!("{} matches {its}", pattern.text()));
    }
    says.extend(aside.iter().map(|(topic, why)| format!("{topic} matches and would not be read: {why}")));
    says.retain(|part| !part.is_empty());
    Ok(format!("{}: {}", config.kafka.brokers, says.join("; ")))
}

/// Nothing is said of a listener that nobody asked for.
async fn postgres(config: &Config) -> Option<Result<String>> {
    let listens = Postgres::bind(config).await.transpose()?;
    Some(listens.map(|postgres| format!("{} as {}", postgres.address(), config.postgres.user)))
}

/// A line for each topic that needs schemas, and the one about the registry when it does not answer as it should.
async fn registry(config: &Config) -> Vec<Result<String>> {
    let needs_schemas = |encoding| matches!(encoding, TopicEncoding::Avro | TopicEncoding::Protobuf);
    if !config.kafka.topics.iter().any(|topic| needs_schemas(topic.encoding)) {
        return Vec::new();
    }
    let mut ingest = match super::run::ingest_config(config, false) {
        Ok(ingest) => ingest,
        Err(failure) => return vec![Err(failure)],
    };
    // Which topics match patterns, Kafka knows; that it does not answer is said in its own line.
    if !ingest.patterns.is_empty()
        && let Ok(probed) = weir_ingest::probe(&ingest).await
    {
        ingest.topics = probed.read.iter().filter_map(|name| ingest.topic(name)).collect();
    }
    match tokio::task::spawn_blocking(move || weir_ingest::probe_schemas(&ingest)).await {
        Ok(topics) => topics.into_iter().map(|topic| Ok(schema_says(&topic?))).collect(),
        Err(error) => vec![Err(Failure::ours(format!("asking the schema registry ended unexpectedly: {error}")))],
    }
}

/// No subject of that name is no failure: producers may name theirs otherwise, and messages name schemas by id.
fn schema_says(TopicSchema { topic, subject, latest }: &TopicSchema) -> String {
    let Some(LatestSchema { version, contract, read, kept, dropped }) = latest else {
        return format!(
            "{topic}: no schema was looked at, since the registry has no subject {subject}; if producers use another naming strategy, that is fine"
        );
    };
    let fields = read.len() + kept.len() + dropped.len();
    let what = contract.map_or("are read".to_owned(), |contract| format!("are columns of {contract}"));
    let mut says = format!("{topic}: {} of {fields} fields of {subject}, version {version}, {what}", read.len());
    for (fate, names) in [("kept as unknown", kept), ("dropped as unknown", dropped)] {
        if !names.is_empty() {
            says += &format!("; {fate}: {}", listed(names));
        }
    }
    says
}

/// The first names, and how many more there are. Whoever registers a schema chooses them, so they are shown escaped.
fn listed(names: &[String]) -> String {
    let mut listed: Vec<String> = names.iter().take(NAMES_SHOWN).map(|name| name.escape_debug().to_string()).collect();
    if names.len() > NAMES_SHOWN {
        listed.push(format!("and {} more", names.len() - NAMES_SHOWN));
    }
    listed.join(", ")
}

/// All of them are compiled: one that comes with Weir tells of a defect, the configuration's of a mistake.
fn adapters(config: &Config) -> Result<String> {
    let definitions = crate::adapters::definitions(config)?;
    definitions.iter().try_for_each(|definition| crate::adapters::compile(definition).map(drop))?;
    let own: Vec<&str> = config.adapters.iter().map(|adapter| adapter.name.as_str()).collect();
    let built_in = definitions.len() - own.len();
    Ok(if own.is_empty() {
        format!("{built_in} come with Weir")
    } else {
        format!("{built_in} come with Weir; {}", own.join(", "))
    })
}

/// A port that is taken by a Weir is the port of the one that runs.
async fn http(config: &Config) -> Result<String> {
    let taken = match Listener::bind(&config.http.listen).await {
        Ok(listener) => return Ok(listener.url()),
        Err(taken) => taken,
    };
    let url = format!("http://{}/healthz", config.http.listen);
    let answer = tokio::task::spawn_blocking(move || {
        let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(2))).build();
        ureq::Agent::from(config).get(&url).call().ok()?.body_mut().read_to_string().ok()
    });
    match answer.await {
        Ok(Some(text)) if text.trim() == "ok" => Ok(format!("a Weir listens on {} already", config.http.listen)),
        _ => Err(taken),
    }
}

/// No trusted key is fine until a policy is to be approved, so it is said and not failed.
fn access(config: &Config) -> Result<String> {
    let access = Access::read(config)?;
    let keys = match &access.trust {
        Trust::Signed(keys) if !keys.is_empty() => format!("{} trusted keys", keys.iter().count()),
        _ => {
            let folder = config.policy.trusted_keys.display();
            format!("no policy can be approved yet: {folder} holds no *.pub file")
        }
    };
    let tokens = if access.tokens.is_some() { "decisions over HTTP need a token" } else { "no decisions over HTTP" };
    Ok(format!("{keys}; {tokens}"))
}

fn energy(config: &Config) -> Result<String> {
    let profiles = crate::energy::profiles(&config.energy)?;
    Ok(listed(&profiles.into_keys().map(str::to_owned).collect::<Vec<_>>()))
}

fn estimators(config: &Config) -> Result<String> {
    Ok(if stream_estimator(config)?.is_some() { "hallucination".to_owned() } else { "none".to_owned() })
}
