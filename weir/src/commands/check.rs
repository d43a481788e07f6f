//! `weir check`: what is wrong with configuration, connections and permissions, and how to mend it.

use serde::Serialize;
use weir_store::{Keyring, Store};

use super::{configuration, print_json};
use crate::cli::Common;
use crate::config::Config;
use crate::error::{Failure, Result};
use crate::http::Listener;

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
        finding("http", Listener::bind(&config.http.listen).await.map(|listener| listener.url())),
        finding("policy", trusted(&config)),
    ];
    let failed = findings.iter().filter(|finding| !finding.ok).count();
    if common.json {
        print_json(&findings)?;
    } else {
        for finding in &findings {
            println!("{:<6} {:<7} {}", if finding.ok { "ok" } else { "FAILED" }, finding.part, finding.says);
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
    Store::open(&config.store.url).await?;
    Ok(config.store.url.clone())
}

fn keys(config: &Config) -> Result<String> {
    Keyring::open(&config.keys.path)?;
    Ok(config.keys.path.display().to_string())
}

async fn kafka(config: &Config) -> Result<String> {
    let ingest = super::run::ingest_config(config, false);
    weir_ingest::probe(&ingest).await?;
    let topics: Vec<&str> = config.kafka.topics.iter().map(|topic| topic.name.as_str()).collect();
    Ok(format!("{}: {}", config.kafka.brokers, topics.join(", ")))
}

/// No trusted key is fine until a policy is to be approved, so it is said and not failed.
fn trusted(config: &Config) -> Result<String> {
    match weir_policy_publisher::keys::read_trusted(&config.policy.trusted_keys) {
        Ok(keys) => Ok(format!("{} trusted keys", keys.iter().count())),
        Err(failure) => Ok(format!("no policy can be approved yet: {failure}")),
    }
}
