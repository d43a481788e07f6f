//! `weir check`: what is wrong with configuration, connections and permissions, and how to mend it.

use std::time::Duration;

use serde::Serialize;
use weir_policy_runtime::Trust;
use weir_store::{Keyring, Store};

use super::run::stream_estimator;
use super::{configuration, print_json};
use crate::cli::Common;
use crate::config::Config;
use crate::error::{Failure, Result};
use crate::http::Listener;
use crate::services::Access;

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
    let findings = [
        finding("store", store(&config).await),
        finding("keys", keys(&config)),
        finding("kafka", kafka(&config).await),
        finding("adapters", adapters(&config)),
        finding("http", http(&config).await),
        finding("policy", access(&config)),
        finding("estimators", estimators(&config)),
        finding("bridge", super::bridge::settings(&config)),
    ];
    let failed = findings.iter().filter(|finding| !finding.ok).count();
    if common.json {
        print_json(&findings)?;
    } else {
        for finding in &findings {
            println!("{:<6} {:<10} {}", if finding.ok { "ok" } else { "FAILED" }, finding.part, finding.says);
        }
    }
    if failed == 0 { Ok(()) } else { Err(Failure::user(format!("{failed} of {} checks failed", findings.len()))) }
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
    weir_ingest::probe(&ingest).await?;
    let topics: Vec<&str> = config.kafka.topics.iter().map(|topic| topic.name.as_str()).collect();
    Ok(format!("{}: {}", config.kafka.brokers, topics.join(", ")))
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

fn estimators(config: &Config) -> Result<String> {
    Ok(if stream_estimator(config)?.is_some() { "hallucination".to_owned() } else { "none".to_owned() })
}
