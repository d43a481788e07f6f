//! Upkeep of the tables beside `weir run` and `weir serve`, as the configuration says.
//!
//! All processes on one store take part; each round of each table is claimed by one of them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};
use weir_schemas::{Feedback, Request};
use weir_store::{Store, Upkeep, Upkept, UtcDay};

use crate::config::Config;
use crate::error::{Failure, Result};

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

/// Puts down what is known of the days whose rows this table is about to lose.
pub async fn remember(store: &Store, config: &Config, table: &str) -> Result<()> {
    if [Request::contract().name, Feedback::contract().name].contains(&table)
        && let Some(keep_days) = config.retention.get(table)
    {
        // One day more than goes today: midnight may fall between this and the removal.
        let first_kept = UtcDay::today().minus_days(keep_days.saturating_sub(1));
        weir_features::remember(store, first_kept).await?;
    }
    Ok(())
}

/// The rounds under way; none when they are switched off.
pub struct Rounds(Option<JoinHandle<()>>);

impl Rounds {
    /// Resolves only when the rounds end before they are told to, which only a panic does: tables would grow, and rows stay
    /// past their days, and nobody would notice.
    pub async fn died(&mut self) -> Failure {
        if let Some(rounds) = &mut self.0
            && let Err(error) = rounds.await
        {
            self.0 = None;
            return died(&error);
        }
        // What has ended must not be asked again.
        self.0 = None;
        std::future::pending().await
    }

    /// Waits for them to end, once they are told to stop. What they have under way is done again by a later round.
    pub async fn finish(self) -> Result<()> {
        match self.0 {
            Some(rounds) => rounds.await.map_err(|error| died(&error)),
            None => Ok(()),
        }
    }

    /// Ends them now. What a round had not committed is then unreferenced, and the vacuum of a later one takes it.
    pub fn abort(self) {
        if let Some(rounds) = self.0 {
            rounds.abort();
        }
    }
}

fn died(error: &JoinError) -> Failure {
    Failure::ours(format!("upkeep of the tables died: {error}; this is a defect of weir, so start it again"))
}

/// Starts the rounds, if they are not switched off. They end with `stop`.
pub fn start(store: &Store, config: &Config, mut stop: watch::Receiver<bool>) -> Rounds {
    if config.upkeep.interval_ms == 0 {
        return Rounds(None);
    }
    let (store, config) = (store.clone(), config.clone());
    Rounds(Some(tokio::spawn(async move {
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
    })))
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
    remember(store, config, name).await?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn rounds_that_panic_are_noticed_and_rounds_that_end_are_not() {
        let mut rounds = Rounds(Some(tokio::spawn(async { panic!("on purpose") })));
        let failure = tokio::time::timeout(Duration::from_secs(10), rounds.died()).await.expect("it was noticed");
        assert!(failure.to_string().contains("upkeep of the tables died") && failure.exit_code() == 4, "{failure}");
        rounds.finish().await.unwrap();

        for mut well in [Rounds(Some(tokio::spawn(async {}))), Rounds(None)] {
            let died = tokio::time::timeout(Duration::from_millis(100), well.died()).await;
            assert!(died.is_err(), "they ended as told, or never began");
            well.finish().await.unwrap();
        }
    }
}
