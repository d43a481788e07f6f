//! The stream side of the process: ingest, the derived tables behind it, and the estimators.
//!
//! `weir run` and `weir demo` start the same pipeline; they differ in where the events come from.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use weir_features::{CaughtUp, FeaturesError, Summariser, SummariserConfig};
use weir_ingest::{IngestConfig, IngestSummary};
use weir_learners::{LearnError, hallucination};
use weir_store::{Keyring, Store};

use crate::error::{Failure, Result};
use crate::http::{FEATURES, INGEST, Readiness};

/// How long derived tables may lag behind raw ones when no commit wakes them.
const DERIVE_AT_LEAST_EVERY: Duration = Duration::from_secs(2);

/// How long the last pass tries to get a turn beside other processes that summarise the same tables.
const LAST_TURN_WITHIN: Duration = Duration::from_secs(20);

/// Rows committed to raw tables and dead letters since the pipeline started.
#[derive(Clone, Default)]
pub struct Committed(Arc<AtomicU64>);

impl Committed {
    fn add(&self, rows: u64) {
        self.0.fetch_add(rows, Ordering::Relaxed);
    }

    /// Rows committed to all tables.
    pub fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// An estimator that runs in the stream.
pub struct StreamEstimator {
    pub estimator: hallucination::Estimator,
    /// Share of requests with text that are checked, 0..1.
    pub sample_share: f64,
}

/// A running pipeline.
pub struct Pipeline {
    ingest: JoinHandle<Result<IngestSummary>>,
    derive: JoinHandle<Result<Derived>>,
    ingest_ended: watch::Sender<bool>,
    /// Rows committed so far.
    pub committed: Committed,
}

/// What the derived side did.
#[derive(Debug, Default, Clone, Copy)]
pub struct Derived {
    pub raw_versions: u64,
    pub partial_rows: u64,
    pub late_rows: u64,
    pub verdicts: u64,
}

impl Pipeline {
    /// Starts ingest and, behind it, the derived tables. `stop` ends both: flush, commit, catch up, exit.
    pub fn start(
        store: Store,
        keyring: Keyring,
        config: IngestConfig,
        estimator: Option<StreamEstimator>,
        readiness: Readiness,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let committed = Committed::default();
        let wake = Arc::new(Notify::new());
        let (ingest_ended, ingest_watch) = watch::channel(false);
        let ingest = tokio::spawn({
            let (store, committed, wake, readiness) =
                (store.clone(), committed.clone(), wake.clone(), readiness.clone());
            async move {
                let on_commit = move |_table: &str, _version: i64, rows: u64| {
                    committed.add(rows);
                    wake.notify_one();
                };
                let ready = readiness.clone();
                let on_ready = move || ready.set(INGEST, true);
                let result = weir_ingest::run_and_tell(store, keyring, config, stop, on_commit, on_ready).await;
                readiness.set(INGEST, false);
                Ok(result?)
            }
        });
        let derive = tokio::spawn(derive(store, estimator, readiness, wake, ingest_watch));
        Self { ingest, derive, ingest_ended, committed }
    }

    /// Waits for ingest to end (drained, stopped or failed), then for the derived tables to have caught up.
    pub async fn finish(mut self) -> Result<(IngestSummary, Derived)> {
        let features_stopped = |error| Failure::ours(format!("features stopped: {error}"));
        let ingested = tokio::select! {
            ingested = &mut self.ingest => ingested,
            // It outlives ingest, unless it panics: then nothing would ever be derived again, and nobody would notice.
            derived = &mut self.derive => {
                // What ingest has not committed is still in Kafka.
                self.ingest.abort();
                derived.map_err(features_stopped)??;
                return Err(Failure::ours("features stopped before ingest"));
            }
        };
        let ingested = ingested.map_err(|error| Failure::ours(format!("ingest stopped: {error}")))?;
        // The derive loop makes its last pass only after the last commit, so nothing stays behind.
        self.ingest_ended.send_replace(true);
        let derived = self.derive.await.map_err(features_stopped)?;
        Ok((ingested?, derived?))
    }

    /// Has ingest ended already (which before a stop means that it failed or drained)?
    pub fn ingest_ended(&self) -> bool {
        self.ingest.is_finished()
    }
}

async fn derive(
    store: Store,
    estimator: Option<StreamEstimator>,
    readiness: Readiness,
    wake: Arc<Notify>,
    mut ingest_ended: watch::Receiver<bool>,
) -> Result<Derived> {
    let mut total = Derived::default();
    // Lives as long as the pipeline: it remembers which request ids it has counted.
    let mut summariser = Summariser::new(store.clone(), SummariserConfig::default());
    loop {
        let last_pass = *ingest_ended.borrow_and_update();
        let give_up = Instant::now() + if last_pass { LAST_TURN_WITHIN } else { Duration::ZERO };
        match pass(&store, &mut summariser, estimator.as_ref(), give_up, &mut total).await {
            Ok(()) => readiness.set(FEATURES, true),
            // A passing fault (a storage hiccup) is tried again on the next round; nothing was half-written, since
            // each derived commit carries its own position.
            Err(failure) if !last_pass => {
                readiness.set(FEATURES, false);
                metrics::counter!("weir_features_failures_total").increment(1);
                tracing::warn!(error = %failure, "derived tables are behind; trying again");
            }
            Err(failure) => return Err(failure),
        }
        if last_pass {
            return Ok(total);
        }
        tokio::select! {
            () = wake.notified() => {}
            () = tokio::time::sleep(DERIVE_AT_LEAST_EVERY) => {}
            // The sender goes when the pipeline is dropped, which only a failure elsewhere does: nobody waits for us.
            changed = ingest_ended.changed() => if changed.is_err() { return Ok(total) },
        }
    }
}

/// One pass: summaries, then verdicts. An estimator that fails does so alone: summaries never wait for it.
async fn pass(
    store: &Store,
    summariser: &mut Summariser,
    estimator: Option<&StreamEstimator>,
    give_up: Instant,
    total: &mut Derived,
) -> Result<()> {
    let caught_up = summarise(summariser, give_up).await?;
    total.raw_versions += caught_up.versions;
    total.partial_rows += caught_up.partial_rows;
    total.late_rows += caught_up.late_rows;
    if let Some(StreamEstimator { estimator, sample_share }) = estimator {
        match hallucination::run_hallucination_job(store, estimator, *sample_share).await {
            Ok(summary) => total.verdicts += summary.verdicts,
            // Nothing has arrived yet, so there is nothing to judge.
            Err(LearnError::MissingTable(_)) => {}
            // Its position is in its own commits, so the next pass goes on from there.
            Err(error) => {
                metrics::counter!("weir_estimator_failures_total").increment(1);
                tracing::warn!(%error, "the hallucination estimator is behind; trying again");
            }
        }
    }
    Ok(())
}

/// Members of one consumer group all summarise, and one of them wins each time. Whoever keeps losing leaves the work to the
/// others, who do the same; only before it ends it tries for longer, since they may be ending too.
async fn summarise(summariser: &mut Summariser, give_up: Instant) -> Result<CaughtUp> {
    loop {
        match summariser.catch_up().await {
            Err(error @ FeaturesError::Contended { .. }) if Instant::now() >= give_up => {
                metrics::counter!("weir_features_turns_lost_total").increment(1);
                tracing::info!(%error, "left to other processes");
                return Ok(CaughtUp::default());
            }
            // Not all at the same pace.
            Err(FeaturesError::Contended { .. }) => {
                tokio::time::sleep(Duration::from_millis(50 + rand::random::<u64>() % 200)).await;
            }
            outcome => return Ok(outcome?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn features_that_panic_end_the_pipeline_while_ingest_goes_on() {
        let pipeline = Pipeline {
            ingest: tokio::spawn(std::future::pending()),
            derive: tokio::spawn(async { panic!("on purpose") }),
            ingest_ended: watch::channel(false).0,
            committed: Committed::default(),
        };
        let finished = tokio::time::timeout(Duration::from_secs(10), pipeline.finish()).await.expect("it was noticed");
        let failure = finished.expect_err("a panic is a failure");
        assert!(failure.to_string().contains("features stopped"), "{failure}");
    }
}
