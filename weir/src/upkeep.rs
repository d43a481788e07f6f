//! Upkeep of the tables beside `weir run` and `weir serve`, as the configuration says.
//!
//! All processes on one store take part; each round of each table is claimed by one of them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use weir_store::{Store, Upkeep, Upkept};

use crate::config::Config;
use crate::error::Result;

/// The vacuum lists every file and reads the whole log, so once a day will do.
const VACUUM_EVERY: Duration = Duration::from_secs(86_400);

/// How the configuration wants a table to be kept.
pub fn of(config: &Config, table: &str) -> Upkeep {
    let section = &config.upkeep;
    Upkeep {
        keep_days: config.retention.get(table).copied(),
        target_file_bytes: section.target_file_bytes,
        settle: Duration::from_millis(section.settle_ms),
        bytes_per_s: Some(section.bytes_per_s).filter(|rate| *rate > 0),
        ..Upkeep::default()
    }
}

/// The tables of a store.
pub async fn tables(store: &Store) -> Result<Vec<String>> {
    Ok(store.folders("tables").await?)
}

/// Starts the rounds; `None` when they are switched off. They end with `stop`, or when the handle is aborted: what a round
/// had not committed is then unreferenced, and the vacuum of a later one takes it.
pub fn start(store: &Store, config: &Config, mut stop: watch::Receiver<bool>) -> Option<JoinHandle<()>> {
    if config.upkeep.interval_ms == 0 {
        return None;
    }
    let (store, config) = (store.clone(), config.clone());
    Some(tokio::spawn(async move {
        let every = Duration::from_millis(config.upkeep.interval_ms);
        loop {
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            tokio::select! {
                () = round(&store, &config, every) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }))
}

async fn round(store: &Store, config: &Config, every: Duration) {
    let tables = match tables(store).await {
        Ok(tables) => tables,
        Err(error) => return events::no_tables(&error),
    };
    for table in tables {
        if let Err(error) = table_round(store, config, &table, every).await {
            events::failed(&table, &error);
        }
    }
}

async fn table_round(store: &Store, config: &Config, name: &str, every: Duration) -> Result<Option<Upkept>> {
    if !store.claim_round(name, "rounds", slot(every)).await? {
        return Ok(None);
    }
    let Some(mut table) = store.existing(name).await? else { return Ok(None) };
    let vacuum = store.claim_round(name, "vacuums", slot(VACUUM_EVERY)).await?;
    Ok(Some(table.keep_up(&Upkeep { vacuum, ..of(config, name) }).await?))
}

/// The number of the interval that now falls in: the same for every process.
fn slot(every: Duration) -> u64 {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    u64::try_from(now_ms / every.as_millis().max(1)).unwrap_or(u64::MAX)
}

/// Log lines and counters of the rounds, together.
mod events {
    use crate::error::Failure;

    pub(super) fn failed(table: &str, error: &Failure) {
        metrics::counter!("weir_upkeep_failures_total", "table" => table.to_owned()).increment(1);
        tracing::warn!(table, %error, "upkeep failed; the next round tries again");
    }

    pub(super) fn no_tables(error: &Failure) {
        metrics::counter!("weir_upkeep_failures_total", "table" => "").increment(1);
        tracing::warn!(%error, "upkeep cannot list the tables; the next round tries again");
    }
}
