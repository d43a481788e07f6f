//! The simulated routers: traffic at a steady pace, models chosen by whatever policy is in force, events to the broker.
//!
//! One thread plays all of them. Another polls the policy endpoint as a router does; when it brings a verified policy,
//! the next request is routed by it.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use weir_policy_runtime::Trust;
use weir_traffic::simulate::{SimConfig, Simulator, Truth, ValueLedger, ValueSummary};
use weir_traffic::{PolicyRouter, UniformRouter};

use super::broker::{Headroom, partition_of};
use crate::error::{Failure, Result};
use crate::pipeline::Committed;
use crate::policy_client::{Loaded, PolicyClient, Poll};
use crate::produce::KafkaOutput;

/// Salt of the session-sticky draws.
const SALT: &str = "weir-demo";
/// How often routers ask for the active policy.
const POLL_EVERY: Duration = Duration::from_millis(300);
/// Longest sleep of the pacing loop, so that a new policy is taken up at once.
const PACE: Duration = Duration::from_millis(5);
/// A producer that waits longer than this for the consumer has found a defect, not a slow machine.
const STALLED_AFTER: Duration = Duration::from_secs(60);

/// What the routers report while they run and when they have ended.
#[derive(Clone, Default)]
pub struct Board(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    produced: BTreeMap<&'static str, u64>,
    requests: u64,
    stop: bool,
    /// Event time of the first request under a policy, ms since the epoch.
    taken_up_ms: Option<i64>,
    policy_id: Option<String>,
    logging: Option<ValueSummary>,
    policy: Option<ValueSummary>,
}

impl Board {
    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.lock().expect("no holder panics"))
    }

    /// Messages handed to the broker, by topic.
    pub fn produced_by_topic(&self) -> BTreeMap<&'static str, u64> {
        self.with(|state| state.produced.clone())
    }

    /// The same, of all topics.
    pub fn produced(&self) -> u64 {
        self.with(|state| state.produced.values().sum())
    }

    /// Tells the routers to end now; what they have produced is still flushed.
    pub fn stop(&self) {
        self.with(|state| state.stop = true);
    }

    fn stopped(&self) -> bool {
        self.with(|state| state.stop)
    }

    /// Requests routed.
    pub fn requests(&self) -> u64 {
        self.with(|state| state.requests)
    }

    /// When routers took up a policy, in event time.
    pub fn taken_up_ms(&self) -> Option<i64> {
        self.with(|state| state.taken_up_ms)
    }

    /// The policy that they took up.
    pub fn policy_id(&self) -> Option<String> {
        self.with(|state| state.policy_id.clone())
    }

    /// True values of the requests routed by uniform choice, and of those routed by the policy.
    pub fn truth(&self) -> (Option<ValueSummary>, Option<ValueSummary>) {
        self.with(|state| (state.logging.clone(), state.policy.clone()))
    }
}

/// How fast event time runs.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Event milliseconds per real millisecond.
    pub speed: f64,
    /// Traffic ends then, also where the machine was too slow to play all of it.
    pub ends_after: Duration,
}

/// Starts the routers.
pub fn start(
    simulation: SimConfig,
    pace: Pace,
    output: KafkaOutput,
    committed: Committed,
    policy_url: String,
    trust: Trust,
) -> Result<(Board, JoinHandle<Result<()>>)> {
    let start_ms = simulation.start_ms;
    let simulator = Simulator::new(simulation, Box::new(UniformRouter::new(SALT)))?;
    let board = Board::default();
    let policies = follow(PolicyClient::new(&policy_url, trust)?);
    let thread = std::thread::spawn({
        let board = board.clone();
        move || {
            Routers { simulator, output, committed, policies, board, headroom: Headroom::default() }.run(start_ms, pace)
        }
    });
    Ok((board, thread))
}

/// Polls for policies until the receiver is gone.
fn follow(mut client: PolicyClient) -> mpsc::Receiver<Option<Loaded>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        loop {
            match client.poll() {
                Ok(Poll::Changed(loaded)) => {
                    if sender.send(Some(loaded)).is_err() {
                        return;
                    }
                }
                Ok(Poll::None) => {
                    if sender.send(None).is_err() {
                        return;
                    }
                }
                Ok(Poll::Unchanged) => {}
                Err(failure) => tracing::debug!(error = %failure, "no policy yet"),
            }
            std::thread::sleep(POLL_EVERY);
        }
    });
    receiver
}

struct Routers {
    simulator: Simulator,
    output: KafkaOutput,
    committed: Committed,
    /// Each change of the policy in force; none when it was withdrawn.
    policies: mpsc::Receiver<Option<Loaded>>,
    board: Board,
    headroom: Headroom,
}

impl Routers {
    fn run(mut self, start_ms: i64, pace: Pace) -> Result<()> {
        let started = Instant::now();
        let models: Vec<String> = self.simulator.models().iter().map(|model| model.name.clone()).collect();
        let mut ledger = ValueLedger::new(models.clone());
        let mut under_policy = false;
        while let Some(timed) = self.simulator.next() {
            if !self.wait_until(started, (timed.at_ms - start_ms) as f64 / pace.speed, pace.ends_after)? {
                break;
            }
            // Truths belong to the router that chose, so they are taken before another one is put in.
            self.settle(&mut ledger, under_policy);
            let change = self.policies.try_recv();
            if let Ok(None) = &change {
                self.simulator.set_router(Box::new(UniformRouter::new(SALT)));
            }
            if let Ok(Some(loaded)) = change {
                let router = PolicyRouter::new((*loaded.policy).clone(), loaded.id.to_string(), SALT);
                self.simulator.set_router(Box::new(router));
                if !under_policy {
                    ledger = ValueLedger::new(models.clone());
                    under_policy = true;
                    self.board.with(|state| {
                        state.taken_up_ms = Some(timed.at_ms);
                        state.policy_id = Some(loaded.id.to_string());
                    });
                }
            }
            let payload = timed.event.to_json();
            let (topic, key) = (timed.event.topic(), timed.event.key());
            let partition = partition_of(key);
            self.output.send(topic, Some(partition), key, &payload)?;
            self.headroom.add(topic, partition, key.len() + payload.len());
            self.board.with(|state| *state.produced.entry(topic).or_default() += 1);
        }
        self.settle(&mut ledger, under_policy);
        self.output.flush()
    }

    /// Books the truths of the requests routed since the last call.
    fn settle(&mut self, ledger: &mut ValueLedger, under_policy: bool) {
        let truths: Vec<Truth> = self.simulator.take_truths();
        if truths.is_empty() {
            return;
        }
        truths.iter().for_each(|truth| ledger.add(truth));
        let summary = ledger.summary();
        self.board.with(|state| {
            state.requests += truths.len() as u64;
            if under_policy {
                state.policy = summary;
            } else {
                state.logging = summary;
            }
        });
    }

    /// Sleeps until `due_ms` of real time after the start, and until the consumer has caught up enough. False when traffic
    /// is over by then, or somebody wants it to be.
    fn wait_until(&mut self, started: Instant, due_ms: f64, ends_after: Duration) -> Result<bool> {
        let waiting_since = Instant::now();
        loop {
            if started.elapsed() > ends_after || self.board.stopped() {
                return Ok(false);
            }
            let early = due_ms - started.elapsed().as_secs_f64() * 1_000.0;
            let room = self.headroom.allows(self.committed.total());
            if early <= 0.0 && room {
                return Ok(true);
            }
            if !room && waiting_since.elapsed() > STALLED_AFTER {
                return Err(Failure::ours("too little was committed for 60 s, so the routers stopped producing"));
            }
            if !room {
                // What lingers in the producer's queue cannot be committed.
                self.output.acknowledged();
            }
            let sleep = if early > 0.0 { Duration::from_secs_f64(early / 1_000.0).min(PACE) } else { PACE };
            std::thread::sleep(sleep);
        }
    }
}
