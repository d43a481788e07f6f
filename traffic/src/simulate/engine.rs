//! The clock: session starts, turns, answers, opinions and samples in one queue, by time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use weir_schemas::{Candidate, EventTimeMs, Propensity, Request, Tokens, Usd};

use super::arrivals::Arrivals;
use super::config::{SimConfig, WorldKind};
use super::opinion::{self, Fate, Judged};
use super::profile::{self, Habits};
use super::safety::Nature;
use super::serving::Fleet;
use super::session::{Session, Turn, Warm, weighted};
use super::truth::Truth;
use super::world::{Gain, NoGain, SimModel, World};
use crate::hash::stable_hash;
use crate::router::Choice;
use crate::{Event, ModelInfo, Router, Timed, TrafficError};

/// An engine keeps a session's prefix for this long, ms.
const PREFIX_KEPT_MS: i64 = 600_000;
/// Failed calls give up after about this long, ms.
const ERROR_AFTER_MS: f64 = 1_500.0;

/// What was sent and what got lost on the way, so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct SimCounts {
    /// Sessions that started.
    pub sessions: u64,
    /// Requests that a model was chosen for.
    pub requests: u64,
    /// Opinions formed.
    pub feedback_formed: u64,
    /// Of those, never sent.
    pub feedback_lost: u64,
    /// Of those, sent twice.
    pub feedback_duplicated: u64,
    /// Telemetry samples.
    pub gpu_samples: u64,
}

/// An iterator over the events of a simulated fleet, by time of emission.
pub struct Simulator {
    config: SimConfig,
    /// What every id of this run begins with.
    run: String,
    world: Box<dyn World>,
    candidates: Vec<ModelInfo>,
    router: Box<dyn Router>,
    mix: Vec<(f64, Habits)>,
    arrivals: Arrivals,
    fleet: Fleet,
    queue: BinaryHeap<Reverse<Due>>,
    sequence: u64,
    /// None when nobody wants them.
    truths: Option<VecDeque<Truth>>,
    counts: SimCounts,
}

/// Something to do at a time; the sequence number makes the order of ties part of the seed.
struct Due {
    at_ms: i64,
    sequence: u64,
    work: Work,
}

enum Work {
    StartSession,
    NextTurn(Box<Session>),
    Sample,
    Emit(Event),
}

impl Simulator {
    /// Sets the fleet up; nothing is simulated before the first event is asked for.
    ///
    /// # Errors
    /// When a setting makes no sense; says which and what to give instead.
    pub fn new(config: SimConfig, router: Box<dyn Router>) -> Result<Self, TrafficError> {
        let world: Box<dyn World> = match config.world {
            WorldKind::Gain => Box::new(Gain::new()),
            WorldKind::NoGain => Box::new(NoGain::new()),
        };
        Self::in_world(config, world, router)
    }

    /// The same in a world of the caller's, whatever [`SimConfig::world`] says.
    ///
    /// # Errors
    /// As [`Simulator::new`], and when the world has no models.
    pub fn in_world(config: SimConfig, world: Box<dyn World>, router: Box<dyn Router>) -> Result<Self, TrafficError> {
        config.check()?;
        if world.models().is_empty() {
            let mend = "a world needs at least one model";
            return Err(TrafficError::Setting { setting: "world", value: "empty".to_owned(), mend });
        }
        let mix = profile::mix(config.profile);
        let turns_per_session: f64 = mix.iter().map(|(share, habits)| share * habits.mean_turns()).sum();
        let tokens = |(share, habits): &(f64, Habits)| {
            let (median, sigma) = habits.completion_tokens;
            // Mean of a log-normal law.
            share * habits.mean_turns() * median * (sigma * sigma / 2.0).exp()
        };
        let completion_tokens = mix.iter().map(tokens).sum::<f64>() / turns_per_session;
        let peak = config.requests_per_s * (1.0 + config.daily_amplitude);
        let arrivals =
            Arrivals::new(&config, config.requests_per_s / turns_per_session, stream(config.seed, b"arrivals", 0, 0));
        let mut simulator = Self {
            candidates: world.models().iter().map(|model| model.info.clone()).collect(),
            fleet: Fleet::new(world.models(), peak, completion_tokens),
            world,
            router,
            mix,
            arrivals,
            queue: BinaryHeap::new(),
            sequence: 0,
            truths: Some(VecDeque::new()),
            run: format!("sim-{:x}-{:08x}", config.seed, config.fingerprint()),
            counts: SimCounts::default(),
            config,
        };
        let first = simulator.arrivals.next_ms();
        simulator.schedule(first, Work::StartSession);
        simulator.schedule(simulator.config.start_ms + simulator.config.gpu_sample_ms, Work::Sample);
        Ok(simulator)
    }

    /// Lets another router choose from now on; returns the one before. Events that are under way keep their choice.
    pub fn set_router(&mut self, router: Box<dyn Router>) -> Box<dyn Router> {
        std::mem::replace(&mut self.router, router)
    }

    /// The models that routers choose from, in the order of every vector of [`Truth`].
    #[must_use]
    pub fn models(&self) -> &[ModelInfo] {
        &self.candidates
    }

    /// The truths of the requests routed since the last call. They pile up until taken.
    pub fn take_truths(&mut self) -> Vec<Truth> {
        self.truths.iter_mut().flat_map(|truths| truths.drain(..)).collect()
    }

    /// The same run with its events alone, for a caller that never takes truths: memory no longer grows with the run.
    #[must_use]
    pub fn without_truths(self) -> Self {
        Self { truths: None, ..self }
    }

    /// What happened so far.
    #[must_use]
    pub fn counts(&self) -> SimCounts {
        self.counts
    }

    fn schedule(&mut self, at_ms: i64, work: Work) {
        self.sequence += 1;
        self.queue.push(Reverse(Due { at_ms, sequence: self.sequence, work }));
    }

    fn over(&self, at_ms: i64) -> bool {
        at_ms >= self.config.start_ms + self.config.duration_ms
    }

    fn start_session(&mut self, at_ms: i64) {
        if self.over(at_ms) {
            return;
        }
        let next = self.arrivals.next_ms();
        self.schedule(next, Work::StartSession);
        let number = self.counts.sessions;
        self.counts.sessions += 1;
        let mut rng = stream(self.config.seed, b"session", number, 0);
        let shares: Vec<f64> = self.mix.iter().map(|(share, _)| *share).collect();
        let habits = self.mix[weighted(&shares, &mut rng)].1;
        let nature = Nature::draw(&self.config.safety, &mut stream(self.config.seed, b"nature", number, 0));
        let session = Session::draw(number, &self.run, habits, nature, &self.config, &mut rng);
        self.turn(at_ms, Box::new(session));
    }

    /// Routes and serves the session's next call, and schedules what follows from it.
    fn turn(&mut self, at_ms: i64, mut session: Box<Session>) {
        if self.over(at_ms) {
            return;
        }
        let index = session.next;
        session.next += 1;
        let mut rng = stream(self.config.seed, b"outcome", session.number, index as u64);
        let turn = &session.turns[index];
        let choice = self.router.route(&turn.context.as_context(), &session.id, &self.candidates);
        let request_id = format!("{}-r{:09}", self.run, self.counts.requests);
        self.counts.requests += 1;
        let truth = self.truths.is_some().then(|| self.truth(&request_id, at_ms, &session, turn, &choice));
        if let Some(truths) = &mut self.truths {
            truths.extend(truth);
        }

        let fell_back = rng.random::<f64>() < self.config.fallback_share;
        let failed = rng.random::<f64>() < self.config.error_share;
        let intended = choice.action;
        let model = if fell_back { self.world.models()[intended].fallback } else { intended };
        let (mut request, warm) = self.served(at_ms, &session, turn, model, failed, &mut rng);
        request.request_id = request_id;
        request.intended_model = Some(self.candidates[intended].name.clone());
        request.attempt = Some(1 + i32::from(fell_back));
        request.fallback_reason = fell_back.then(|| "rate_limited".to_owned());
        log_choice(&mut request, choice, &self.candidates);
        let mut safety_rng = stream(self.config.seed, b"safety", session.number, index as u64);
        let (safety_score, hazard_scores) = session.nature.scores(&mut safety_rng);
        request.safety_score = Some(safety_score);
        request.hazard_scores = Some(hazard_scores);

        let quality = if failed { 0.0 } else { self.world.expected_quality(&turn.hidden, model) };
        let ended_ms = at_ms + request.end_to_end_ms.unwrap_or_default().ceil() as i64;
        let subject = request.request_id.clone();
        let last_id = subject.clone();
        let executed_model = request.executed_model.clone();
        self.schedule(ended_ms, Work::Emit(Event::Request(Box::new(request))));
        if rng.random::<f64>() < self.config.feedback.request_share {
            let judged = Judged {
                request_id: Some(subject.clone()),
                subject,
                session_id: &session.id,
                tenant: session.tenant,
                caller: &session.caller,
                model: executed_model,
                quality,
                ended_ms,
            };
            let opinion = opinion::form(judged, &self.config.feedback, &mut rng);
            self.send(opinion);
        }
        session.warm = warm;
        session.quality_sum += quality;
        match session.turns.get(session.next) {
            Some(next) => self.schedule(ended_ms + next.pause_ms.ceil() as i64, Work::NextTurn(session)),
            None => {
                let ids = (session.tenant, session.id.as_str());
                if let Some((review, at_ms)) = session.nature.review(ids, &last_id, ended_ms, &mut safety_rng) {
                    self.send((review, Fate::Arrives(at_ms)));
                }
                self.end_session(ended_ms, &session, &mut rng);
            }
        }
    }

    fn end_session(&mut self, ended_ms: i64, session: &Session, rng: &mut ChaCha8Rng) {
        if rng.random::<f64>() >= self.config.feedback.session_share {
            return;
        }
        let judged = Judged {
            subject: session.id.clone(),
            request_id: None,
            session_id: &session.id,
            tenant: session.tenant,
            caller: &session.caller,
            model: None,
            quality: session.quality_sum / session.turns.len() as f64,
            ended_ms,
        };
        let opinion = opinion::form(judged, &self.config.feedback, rng);
        self.send(opinion);
    }

    fn send(&mut self, (feedback, fate): (weir_schemas::Feedback, Fate)) {
        self.counts.feedback_formed += 1;
        match fate {
            Fate::Lost => self.counts.feedback_lost += 1,
            Fate::Arrives(at_ms) => self.schedule(at_ms, Work::Emit(Event::Feedback(Box::new(feedback)))),
            Fate::ArrivesTwice(at_ms, again_ms) => {
                self.counts.feedback_duplicated += 1;
                self.schedule(at_ms, Work::Emit(Event::Feedback(Box::new(feedback.clone()))));
                self.schedule(again_ms, Work::Emit(Event::Feedback(Box::new(feedback))));
            }
        }
    }

    /// The request as its engine leaves it, and where its prompt stays cached.
    fn served(
        &mut self,
        at_ms: i64,
        session: &Session,
        turn: &Turn,
        model: usize,
        failed: bool,
        rng: &mut ChaCha8Rng,
    ) -> (Request, Option<Warm>) {
        let speed = &self.world.models()[model];
        let now_ms = at_ms as f64;
        let prompt_tokens = turn.context.prompt_tokens.unwrap_or_default();
        let engine = self.fleet.engine_for(model, stable_hash(&[session.id.as_bytes()]), now_ms);
        let mut request = base_request(at_ms, session, turn);
        request.executed_model = Some(speed.info.name.clone());
        request.pool = Some(speed.pool.to_owned());
        request.instance = Some(self.fleet.instance(model, engine).to_owned());
        request.prompt_tokens = tokens(prompt_tokens);
        if failed {
            request.end_to_end_ms = Some(ERROR_AFTER_MS * (0.5 + rng.random::<f64>()));
            request.http_status = Some(502);
            request.error_class = Some("upstream_error".to_owned());
            request.cost_usd = Some(Usd(0.0));
            return (request, session.warm);
        }
        let completion_tokens = completion_tokens(turn, speed);
        let held = session.warm.filter(|warm| (warm.model, warm.engine) == (model, engine) && at_ms <= warm.until_ms);
        let cached_tokens = self.fleet.cached_tokens(
            (model, engine),
            prompt_tokens,
            held.map(|warm| warm.prompt_tokens),
            (session.system_prompt, session.habits.system_tokens),
        );
        let lengths = (prompt_tokens, cached_tokens, completion_tokens);
        let served = self.fleet.serve((model, engine), speed, now_ms, lengths, rng);
        request.queue_ms = Some(served.queue_ms);
        request.ttft_ms = Some(served.ttft_ms);
        request.tpot_ms = (completion_tokens > 1).then_some(served.tpot_ms);
        request.end_to_end_ms = Some(served.end_to_end_ms);
        request.cached_prompt_tokens = tokens(cached_tokens);
        request.completion_tokens = tokens(completion_tokens);
        request.http_status = Some(200);
        request.finish_reason = Some(if turn.calls.is_empty() { "stop" } else { "tool_calls" }.to_owned());
        request.cost_usd = Some(Usd(cost_usd(turn, speed)));
        if !turn.calls.is_empty() {
            request.tools_called = Some(turn.calls.clone());
        }
        request.response_text = turn.text.as_ref().map(|text| text.response.clone());
        let until_ms = at_ms + served.end_to_end_ms.ceil() as i64 + PREFIX_KEPT_MS;
        (request, Some(Warm { model, engine, prompt_tokens, until_ms }))
    }

    fn truth(&self, request_id: &str, at_ms: i64, session: &Session, turn: &Turn, choice: &Choice) -> Truth {
        let models = self.world.models();
        let succeeds = 1.0 - self.config.error_share;
        let fallback_share = self.config.fallback_share;
        // What choosing a model leads to: itself or its fallback, and either fails at the same rate.
        let intended = |of: &dyn Fn(usize) -> f64| -> Vec<f64> {
            let mixed = |model: usize| (1.0 - fallback_share) * of(model) + fallback_share * of(models[model].fallback);
            (0..models.len()).map(|model| succeeds * mixed(model)).collect()
        };
        let qualities = intended(&|model| self.world.expected_quality(&turn.hidden, model));
        let costs_usd = intended(&|model| cost_usd(turn, &models[model]));
        let utilities =
            qualities.iter().zip(&costs_usd).map(|(quality, cost)| self.config.objective.utility(*quality, *cost));
        Truth {
            request_id: request_id.to_owned(),
            session_id: session.id.clone(),
            arrival_ms: at_ms,
            context: turn.context.clone(),
            utilities: utilities.collect(),
            qualities,
            costs_usd,
            chosen: choice.action,
            propensities: choice.propensities.clone(),
            unsupported: turn.text.as_ref().map(|text| text.unsupported),
            is_unsafe: session.nature.hazard.is_some(),
        }
    }

    fn sample(&mut self, at_ms: i64) {
        if self.over(at_ms) {
            return;
        }
        let interval_ms = self.config.gpu_sample_ms;
        for sample in self.fleet.sample(self.world.models(), at_ms, interval_ms) {
            self.counts.gpu_samples += 1;
            self.schedule(at_ms, Work::Emit(Event::Gpu(Box::new(sample))));
        }
        self.schedule(at_ms + interval_ms, Work::Sample);
    }
}

impl Iterator for Simulator {
    type Item = Timed;

    fn next(&mut self) -> Option<Timed> {
        loop {
            let Reverse(Due { at_ms, work, .. }) = self.queue.pop()?;
            match work {
                Work::StartSession => self.start_session(at_ms),
                Work::NextTurn(session) => self.turn(at_ms, session),
                Work::Sample => self.sample(at_ms),
                Work::Emit(event) => return Some(Timed { at_ms, event }),
            }
        }
    }
}

/// A random stream of its own for each purpose, so that one router's draws never shift another's.
fn stream(seed: u64, purpose: &[u8], major: u64, minor: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stable_hash(&[purpose, &major.to_le_bytes(), &minor.to_le_bytes()]));
    rng
}

fn base_request(at_ms: i64, session: &Session, turn: &Turn) -> Request {
    let context = &turn.context;
    let count = |value: Option<u32>| value.and_then(|value| i32::try_from(value).ok());
    let mut modalities = vec!["text".to_owned()];
    if turn.image {
        modalities.push("image".to_owned());
    }
    Request {
        arrival_ms: EventTimeMs(at_ms),
        session_id: Some(session.id.clone()),
        turn: count(context.turn),
        tenant: Some(session.tenant.to_owned()),
        caller: Some(session.caller.clone()),
        role: Some("member".to_owned()),
        router: Some("weir-simulate".to_owned()),
        api: context.api.clone(),
        message_count: count(context.message_count),
        tools_offered: Some(turn.tools_offered.clone()),
        system_prompt_hash: Some(format!("{:016x}", session.system_prompt)),
        modalities: Some(modalities),
        domain: context.domain.clone(),
        complexity: context.complexity.clone(),
        language: context.language.clone(),
        fact_check: context.fact_check,
        requested_model: Some("auto".to_owned()),
        decision: Some(session.habits.application.to_owned()),
        prompt_text: turn.text.as_ref().map(|text| text.prompt.clone()),
        context_text: turn.text.as_ref().map(|text| text.context.clone()),
        ..Request::default()
    }
}

fn log_choice(request: &mut Request, choice: Choice, models: &[ModelInfo]) {
    request.propensity = Propensity::new(choice.propensity).ok();
    request.policy_version = Some(choice.policy_version);
    let candidate = |(model, propensity): (&ModelInfo, f64)| Candidate {
        model: model.name.clone(),
        score: None,
        propensity: Some(propensity),
    };
    request.candidates = Some(models.iter().zip(choice.propensities).map(candidate).collect());
}

fn completion_tokens(turn: &Turn, model: &SimModel) -> u32 {
    (turn.needed_tokens * model.verbosity).round().max(1.0) as u32
}

/// List price; cached prompt tokens cost the same here, so that the cost does not depend on earlier choices.
fn cost_usd(turn: &Turn, model: &SimModel) -> f64 {
    let prompt = f64::from(turn.context.prompt_tokens.unwrap_or_default());
    let completion = f64::from(completion_tokens(turn, model));
    let price = |usd_per_mtok: Option<f64>| usd_per_mtok.unwrap_or_default() / 1e6;
    prompt * price(model.info.input_usd_per_mtok) + completion * price(model.info.output_usd_per_mtok)
}

fn tokens(count: u32) -> Option<Tokens> {
    i32::try_from(count).ok().map(Tokens)
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.at_ms, self.sequence) == (other.at_ms, other.sequence)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_ms, self.sequence).cmp(&(other.at_ms, other.sequence))
    }
}
