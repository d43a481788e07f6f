//! `weir demo`: the whole loop on one machine.
//!
//! Simulated routers send traffic to an embedded broker under a uniform logging policy. The same pipeline as `weir run`
//! ingests and summarises it. Part of the way through, a candidate policy is trained on what was logged, judged
//! off-policy, signed and proposed. If its report says "better" the demo approves it, as it says it does; the routers
//! poll, verify and take it up; traffic goes on. At the end: what was produced and what is stored, what the policies were
//! worth by their rewards and in truth, and the fleet before and after. An event that was lost, stored twice or not
//! readable makes the demo fail.

mod broker;
mod capacity;
mod live;
mod routers;
mod summary;
mod teacher;
mod value;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use weir_learners::TrainConfig;
use weir_policy_publisher::keys::SigningKey;
use weir_policy_publisher::{Decision, Registry};
use weir_policy_runtime::{Objective, Trust};
use weir_store::{Keyring, Store};
use weir_traffic::simulate::SimConfig;

use super::run::ingest_config;
use super::{no_configuration, no_data_folder, print_json, simulate, stop_on_signal_saying};
use crate::cli::{Common, DemoArgs};
use crate::config::Config;
use crate::error::{Failure, Result};
use crate::http::{self, Listener, Readiness};
use crate::pipeline::Pipeline;
use crate::produce::{self, KafkaOutput};
use crate::services::{Access, PolicyTopic};
use crate::{services, training};

use broker::Broker;
use live::Live;
use routers::{Board, Pace};
use summary::Ending;

/// Event seconds per real second: a minute of demo is an hour of traffic, so that windows and delays are seen to work.
const SPEED: f64 = 60.0;
/// Requests per event second.
const REQUESTS_PER_S: f64 = 12.0;
/// Share of the time spent under the uniform logging policy before a candidate is trained.
const LOGGING_SHARE: f64 = 0.5;
/// Windows of the workload sketches are ten minutes of event time; the start is aligned to them.
const WINDOW_MS: i64 = 600_000;
/// Topic of the active policy.
const POLICY_TOPIC: &str = "weir.policies";
/// First moment of the traffic, 2026-01-05T13:30:00Z, where the daily cycle is near its peak: a short demo needs every session
/// it can log. Fixed, and in the past of every clock: the traffic is a function of the seed, daily cycle included, and even
/// the longest demo does not run ahead of the time at which it is ingested.
const START_MS: i64 = 1_767_619_800_000;
/// When each step after the end of traffic has to be over, counted from there, on a machine however slow. What is cut
/// off is said in the summary.
const JUDGED_WITHIN: Duration = Duration::from_secs(10);
const STORED_WITHIN: Duration = Duration::from_secs(18);
const DERIVED_WITHIN: Duration = Duration::from_secs(22);
const SIZED_WITHIN: Duration = Duration::from_secs(25);

/// Runs the demo.
pub async fn run(common: &Common, args: DemoArgs) -> Result<()> {
    no_configuration(common, "demo")?;
    no_data_folder(common, "demo", "--keep DIR says where its tables stay")?;
    let signal = stop_on_signal_saying("stopping the demo: flush, commit, exit (again to stop at once)");
    let temporary = tempfile::tempdir().map_err(|error| Failure::outside(format!("no temporary folder: {error}")))?;
    let folder: PathBuf = args.keep.clone().unwrap_or_else(|| temporary.path().to_owned());
    if args.keep.is_some() && folder.join("data").exists() {
        return Err(Failure::user(format!(
            "{} holds data already: choose another folder for --keep",
            folder.display()
        )));
    }
    let listener = Listener::bind(&args.listen).await?;
    let topics = [&produce::TOPICS[..], &[POLICY_TOPIC]].concat();
    let broker = Broker::start(&topics)?;
    let setup = Setup::new(&folder, &broker, args.clone())?;
    let live = Live::start(args.seconds, common.json);
    live.say(&format!(
        "weir demo: {} s of {:?} traffic at {SPEED:.0} x real time, console at {}",
        args.seconds,
        args.profile,
        listener.url()
    ));
    let ending = setup.run(listener, &live, signal).await?;
    live.finish();
    let complaint = ending.complaint();
    match (complaint, common.json) {
        (None, true) => print_json(&ending),
        (Some(failure), true) => Err(failure.with_report(serde_json::to_value(&ending).map_err(Failure::ours)?)),
        (complaint, false) => {
            println!("{ending}");
            if args.keep.is_some() {
                let folder = folder.display();
                println!("\nThe tables stay in {folder}: weir --data {folder}/data sql \"select * from workload_mix\"");
            }
            complaint.map_or(Ok(()), Err)
        }
    }
}

/// The value, unless the signal comes first.
async fn unless_stopped<T>(signal: &watch::Receiver<bool>, work: impl Future<Output = T>) -> Option<T> {
    let mut signal = signal.clone();
    tokio::select! {
        value = work => Some(value),
        _ = signal.wait_for(|stop| *stop) => None,
    }
}

/// Everything that stands before traffic starts.
struct Setup {
    args: DemoArgs,
    config: Config,
    key: Arc<SigningKey>,
    objective: Objective,
}

impl Setup {
    fn new(folder: &Path, broker: &Broker, args: DemoArgs) -> Result<Self> {
        let mut config = Config::default();
        config.store.url = folder.join("data").display().to_string();
        config.keys.path = folder.join("keys");
        config.kafka.brokers = broker.address();
        config.ingest.flush_interval_ms = 500;
        // The traffic is made up, so keeping its text harms nobody, and the estimator needs it.
        config.ingest.keep_text = true;
        config.policy.trusted_keys = folder.join("keys/trusted");
        config.policy.kafka_topic = POLICY_TOPIC.into();
        config.policy.refresh_ms = 300;
        let key = Arc::new(SigningKey::generate());
        std::fs::create_dir_all(&config.policy.trusted_keys)
            .and_then(|()| std::fs::write(config.policy.trusted_keys.join("demo.pub"), format!("{}\n", key.public())))
            .map_err(|error| Failure::user(format!("cannot write below {}: {error}", folder.display())))?;
        let objective = Objective { quality: config.objective.quality, usd: config.objective.usd };
        Ok(Self { args, config, key, objective })
    }

    fn simulation(&self) -> SimConfig {
        SimConfig {
            seed: self.args.seed,
            profile: simulate::profile(self.args.profile),
            world: simulate::world(self.args.world),
            requests_per_s: REQUESTS_PER_S,
            start_ms: START_MS,
            duration_ms: (self.args.seconds as f64 * 1_000.0 * SPEED) as i64,
            // Text makes messages several times larger; a third of the retrieval requests is plenty for the estimator.
            text_share: 0.3,
            objective: self.objective,
            ..SimConfig::default()
        }
    }

    fn train_config(&self) -> TrainConfig {
        let mut config = TrainConfig {
            seed: self.args.seed,
            outcome: self.objective.into(),
            gamma: self.config.objective.gamma,
            floor: self.config.objective.floor,
            ..TrainConfig::default()
        };
        // A short demo logs few sessions; judging needs its share of them as much as training does.
        config.holdout_share = 0.5;
        // One candidate, judged once, by a gate that is wrong at most once in two hundred times.
        config.evaluation.confidence = 0.99;
        config
    }

    async fn run(self, listener: Listener, live: &Live, signal: watch::Receiver<bool>) -> Result<Ending> {
        let store = Store::open_with(&self.config.store.url, &self.config.store.client_options()).await?;
        let keyring = Keyring::open(&self.config.keys.path)?;
        let like = self.simulation();
        let taught = tokio::task::spawn_blocking(move || teacher::estimator(&like));
        let Some(taught) = unless_stopped(&signal, taught).await else {
            return Err(Failure::stopped("stopped by a signal before any traffic ran"));
        };
        let estimator =
            taught.map_err(|error| Failure::ours(format!("the estimator's training stopped: {error}")))??;
        live.say(&format!(
            "  hallucination estimator trained on made-up answers of another seed: AUROC {:.2}",
            estimator.auroc
        ));

        let access = Access::read(&self.config)?;
        let metrics = http::install_metrics()?;
        let readiness = Readiness::of(&[http::INGEST, http::FEATURES]);
        let (stop_sender, stop) = watch::channel(false);
        let pipeline = Pipeline::start(
            store.clone(),
            keyring,
            ingest_config(&self.config, false)?,
            Some(estimator.stream),
            readiness.clone(),
            stop.clone(),
        );
        let url = listener.url();
        let router = services::router(
            &self.config,
            &store,
            access,
            http::operations(metrics, readiness),
            PolicyTopic::Exists,
            stop.clone(),
        )
        .await?;
        let http = tokio::spawn(listener.serve(router, stop.clone()));

        let trust = services::trust(&self.config)?;
        let output = KafkaOutput::connect(&self.config.kafka.brokers, &produce::TOPICS, None).await?;
        let pace = Pace { speed: SPEED, ends_after: Duration::from_secs(self.args.seconds) };
        let (board, routers) =
            routers::start(self.simulation(), pace, output, pipeline.committed.clone(), url, trust.clone())?;

        let started = Instant::now();
        let learned = self.while_traffic_runs(&store, trust, &board, &routers, &pipeline, live, started, &signal).await;
        // Also after a failure: routers that go on would write into a folder that is about to go.
        board.stop();
        let learning = learned?;
        let played = tokio::task::spawn_blocking(move || routers.join())
            .await
            .map_err(|error| Failure::ours(format!("the routers stopped: {error}")))?;
        let played = played.map_err(|_| Failure::ours("the routers panicked"))?;
        let over = Instant::now();
        let mut warnings = Vec::new();
        let judged = learning.finish(&signal, over + JUDGED_WITHIN, &mut warnings).await?;

        // After a signal too: what was produced is stored, or the sentence on it would be untrue.
        live.say("  traffic has ended; waiting until everything is stored");
        let committed = pipeline.committed.clone();
        let waits = || committed.total() < board.produced() && !pipeline.ingest_ended();
        while waits() && over.elapsed() < STORED_WITHIN {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let ingest_ended_early = pipeline.ingest_ended();
        stop_sender.send_replace(true);
        let finished = tokio::time::timeout(DERIVED_WITHIN.saturating_sub(over.elapsed()), pipeline.finish()).await;
        let (_ingested, derived) = finished.map_err(|_| {
            let limit = DERIVED_WITHIN.as_secs();
            Failure::outside(format!("events were not all stored and summarised within {limit} s of the end of traffic: this machine is too slow or too busy for the demo"))
        })??;
        if ingest_ended_early {
            return Err(Failure::ours("ingest ended while traffic was running; the log says why"));
        }
        // What ingest says about its own end is the better reason, so the routers' comes after it.
        played?;
        let _served = tokio::time::timeout(Duration::from_secs(2), http).await;
        let stopped = || {
            let kept = match &self.args.keep {
                Some(folder) => format!("the tables stay in {}", folder.display()),
                None => "its temporary tables are gone (--keep DIR keeps them)".to_owned(),
            };
            Failure::stopped(format!(
                "the demo was stopped by a signal after {} events, {} rows of which were stored; {kept}",
                board.produced(),
                committed.total()
            ))
        };
        if *signal.borrow() {
            return Err(stopped());
        }
        let run = summary::Run {
            setup: &self,
            board: &board,
            judged,
            derived,
            auroc: estimator.auroc,
            elapsed: started.elapsed(),
            sized_within: SIZED_WITHIN.saturating_sub(over.elapsed()),
            warnings,
        };
        unless_stopped(&signal, run.ending(&store)).await.unwrap_or_else(|| Err(stopped()))
    }

    /// Shows the workload, trains when it is time, and waits until the routers have ended.
    #[expect(clippy::too_many_arguments, reason = "the parts of one running demo")]
    async fn while_traffic_runs(
        &self,
        store: &Store,
        trust: Trust,
        board: &Board,
        routers: &std::thread::JoinHandle<Result<()>>,
        pipeline: &Pipeline,
        live: &Live,
        started: Instant,
        signal: &watch::Receiver<bool>,
    ) -> Result<Learning> {
        let train_at = Duration::from_secs_f64(self.args.seconds as f64 * LOGGING_SHARE);
        let mut learning = Learning::NotYet;
        let mut next_mix = Duration::from_secs(6);
        while !routers.is_finished() {
            if *signal.borrow() || pipeline.ingest_ended() {
                board.stop();
            }
            let elapsed = started.elapsed();
            let doing = match (&learning, board.taken_up_ms()) {
                (_, Some(_)) => "routers follow the new policy",
                (Learning::Done(judged), None) if judged.approved => "a candidate was approved; routers take it up",
                (Learning::Done(_), None) => "uniform logging policy (no better candidate was shown)",
                (Learning::Runs(_), None) => "training and judging a candidate",
                (Learning::NotYet, None) => "uniform logging policy",
            };
            live.at(
                elapsed,
                &format!("{} requests, {} rows stored; {doing}", board.requests(), pipeline.committed.total()),
            );
            if elapsed >= next_mix {
                next_mix = elapsed + Duration::from_secs(10);
                live.mix(store).await?;
            }
            learning = match learning {
                Learning::NotYet if elapsed >= train_at => {
                    live.say("  training a candidate on what was logged so far");
                    let (store, trust, train) = (store.clone(), trust.clone(), self.train_config());
                    let key = self.key.clone();
                    Learning::Runs(tokio::spawn(async move { judge(&store, trust, &train, &key).await }))
                }
                Learning::Runs(task) if task.is_finished() => {
                    let judged = task.await.map_err(|error| Failure::ours(format!("training stopped: {error}")))??;
                    live.say(&format!("  {}", judged.sentence()));
                    Learning::Done(judged)
                }
                as_before => as_before,
            };
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(learning)
    }
}

/// How far the candidate is.
enum Learning {
    NotYet,
    Runs(tokio::task::JoinHandle<Result<Judged>>),
    Done(Judged),
}

impl Learning {
    /// A candidate that was still in training when traffic ended is judged all the same, if that does not take long.
    async fn finish(
        self,
        signal: &watch::Receiver<bool>,
        by: Instant,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Judged>> {
        let mut task = match self {
            Self::NotYet => return Ok(None),
            Self::Done(judged) => return Ok(Some(judged)),
            Self::Runs(task) => task,
        };
        match unless_stopped(signal, tokio::time::timeout_at(by.into(), &mut task)).await {
            Some(Ok(judged)) => judged.map_err(|error| Failure::ours(format!("training stopped: {error}")))?.map(Some),
            // Aborted, it can no longer approve what nobody would report.
            Some(Err(_)) | None => {
                task.abort();
                warnings.push(format!(
                    "training did not end within {} s of the end of traffic, so no candidate was judged",
                    JUDGED_WITHIN.as_secs()
                ));
                Ok(None)
            }
        }
    }
}

/// A judged candidate.
pub struct Judged {
    pub policy_id: String,
    pub verdict: &'static str,
    pub reasons: Vec<String>,
    pub approved: bool,
    /// Off-policy estimates on held-out sessions: logging policy, candidate, difference.
    pub estimates: Option<[weir_learners::ope::Estimate; 3]>,
}

impl Judged {
    fn sentence(&self) -> String {
        let id = self.policy_id.chars().take(19).collect::<String>();
        let estimate = self.estimates.map_or_else(String::new, |[logging, candidate, difference]| {
            format!(
                ": worth {:.3} against {:.3}, difference {:+.3} (99 %: {:+.3} to {:+.3})",
                candidate.value, logging.value, difference.value, difference.low, difference.high
            )
        });
        let outcome =
            if self.approved { "signed and approved automatically, since this is a demo" } else { "not promoted" };
        format!("candidate {id}: {}{estimate}; {outcome}", self.verdict)
    }
}

/// Trains, judges, proposes; approves what was shown to be better.
async fn judge(store: &Store, trust: Trust, train: &TrainConfig, key: &SigningKey) -> Result<Judged> {
    let set = weir_learners::training_set(store).await?;
    let train = train.clone();
    let beside = training::Beside { knobs: crate::knobs::files(store, None).await?, ..training::Beside::default() };
    let proposal = tokio::task::spawn_blocking(move || training::train(&set, &train, "demo", None, &beside, None))
        .await
        .map_err(|error| Failure::ours(format!("training stopped: {error}")))??;
    let registry = Registry::open(store, trust).await?;
    training::propose(&registry, &proposal.bundle, key, "weir demo").await?;
    let evaluation = &proposal.candidate.report.lineup.candidate;
    let approved = evaluation.verdict == weir_learners::ope::Verdict::Better;
    if approved {
        let decision = Decision {
            actor: "weir demo".into(),
            reason: Some("the demo approves what its report shows to be better".into()),
            ..Decision::default()
        };
        registry.approve(&proposal.bundle.id, &decision).await?;
    }
    let reasons = match &evaluation.verdict {
        weir_learners::ope::Verdict::InsufficientSupport { reasons } => reasons.clone(),
        _ => Vec::new(),
    };
    Ok(Judged {
        policy_id: proposal.bundle.id.to_string(),
        verdict: evaluation.verdict.words(),
        reasons,
        approved,
        estimates: evaluation.estimates.as_ref().map(|found| [found.logging, found.dr, found.difference]),
    })
}
