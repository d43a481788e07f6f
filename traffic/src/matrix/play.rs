//! A router plays a score matrix.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Exp};
use weir_policy_runtime::Context;
use weir_policy_runtime::hash_embedding::{hash_embedding, hash_embedding_model};
use weir_schemas::{Candidate, EventTimeMs, Feedback, Propensity, Request, Usd};

use super::{MatrixPart, MatrixQuery, ScoreMatrix};
use crate::{Event, Router, Timed, TrafficError};

/// How to play.
#[derive(Debug, Clone, PartialEq)]
pub struct MatrixConfig {
    /// Order of the queries and arrival times are a function of it.
    pub seed: u64,
    /// Times that every query is asked.
    pub passes: u32,
    /// Dimensions of the logged hash embedding; 0 logs none.
    pub embedding_dim: usize,
    /// First moment, ms since the Unix epoch.
    pub start_ms: i64,
    /// Arrivals are a Poisson process at this rate.
    pub requests_per_s: f64,
    /// From a request to its score, ms.
    pub feedback_delay_ms: i64,
}

impl Default for MatrixConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            passes: 3,
            embedding_dim: 64,
            // 2026-01-05T00:00:00Z.
            start_ms: 1_767_571_200_000,
            requests_per_s: 20.0,
            feedback_delay_ms: 5_000,
        }
    }
}

/// Requests and their scores, by time. Each request is a session of its own: queries do not follow from each other.
pub struct MatrixPlay<'m> {
    matrix: &'m ScoreMatrix,
    config: MatrixConfig,
    router: Box<dyn Router>,
    rng: ChaCha8Rng,
    gap_ms: Exp<f64>,
    now_ms: f64,
    pass: u32,
    /// Queries left in this pass, last first.
    order: Vec<usize>,
    embeddings: Vec<Vec<f32>>,
    next_request: Option<Timed>,
    scores: BinaryHeap<Reverse<DueScore>>,
    sequence: u64,
}

/// A score on its way.
struct DueScore {
    at_ms: i64,
    sequence: u64,
    feedback: Box<Feedback>,
}

/// Plays `matrix` with `router`.
///
/// # Errors
/// When there is nothing to play or the rate is not above 0.
pub fn play<'m>(
    matrix: &'m ScoreMatrix,
    config: MatrixConfig,
    router: Box<dyn Router>,
) -> Result<MatrixPlay<'m>, TrafficError> {
    let setting = |setting, value: String, mend| TrafficError::Setting { setting, value, mend };
    if matrix.queries.is_empty() || matrix.models.is_empty() {
        return Err(setting("matrix", "empty".to_owned(), "give a matrix with queries and models"));
    }
    if config.feedback_delay_ms < 0 {
        return Err(setting("feedback_delay_ms", config.feedback_delay_ms.to_string(), "give a time from 0"));
    }
    let sound = config.requests_per_s > 0.0 && config.requests_per_s.is_finite();
    let gap_ms = Exp::new(config.requests_per_s / 1000.0)
        .ok()
        .filter(|_| sound)
        .ok_or_else(|| setting("requests_per_s", config.requests_per_s.to_string(), "give a rate above 0"))?;
    let embed = |query: &MatrixQuery| hash_embedding(&query.text, config.embedding_dim);
    let embeddings = if config.embedding_dim == 0 { Vec::new() } else { matrix.queries.iter().map(embed).collect() };
    Ok(MatrixPlay {
        matrix,
        rng: ChaCha8Rng::seed_from_u64(config.seed),
        gap_ms,
        now_ms: config.start_ms as f64,
        config,
        router,
        pass: 0,
        order: Vec::new(),
        embeddings,
        next_request: None,
        scores: BinaryHeap::new(),
        sequence: 0,
    })
}

impl MatrixPlay<'_> {
    /// Lets another router choose from now on; returns the one before.
    pub fn set_router(&mut self, router: Box<dyn Router>) -> Box<dyn Router> {
        std::mem::replace(&mut self.router, router)
    }

    fn prefix(&self) -> &'static str {
        match self.matrix.part {
            MatrixPart::LlmRouter => "llmrouter",
            MatrixPart::NaturalQuestions => "llmrouter-nq",
        }
    }

    /// Asks the next query; none when all passes are over.
    fn ask(&mut self) -> Option<Timed> {
        if self.order.is_empty() {
            if self.pass >= self.config.passes {
                return None;
            }
            self.pass += 1;
            self.order = (0..self.matrix.queries.len()).collect();
            self.order.shuffle(&mut self.rng);
        }
        let index = self.order.pop()?;
        self.now_ms += self.gap_ms.sample(&mut self.rng);
        let at_ms = self.now_ms as i64;
        let query = &self.matrix.queries[index];
        let request_id = format!("{}-{:x}-{:03}-{}", self.prefix(), self.config.seed, self.pass, query.id);
        let embedding = self.embeddings.get(index);
        let embedding_model = embedding.map(|embedding| hash_embedding_model(embedding.len()));
        let context = Context {
            domain: Some(&query.task),
            embedding: embedding.map(Vec::as_slice),
            embedding_model: embedding_model.as_deref(),
            ..Context::default()
        };
        let choice = self.router.route(&context, &request_id, &self.matrix.models);
        let model = &self.matrix.models[choice.action].name;
        let score = Feedback {
            feedback_id: format!("{request_id}-score"),
            event_ms: EventTimeMs(at_ms + self.config.feedback_delay_ms),
            source: "evaluation".to_owned(),
            kind: "rating".to_owned(),
            request_id: Some(request_id.clone()),
            session_id: Some(request_id.clone()),
            model: Some(model.clone()),
            value: Some(query.scores[choice.action]),
            checked: Some(true),
            // A known answer, not a prediction: the scoring rule is the label and no estimator is named.
            label: Some(query.metric.clone()),
            ..Feedback::default()
        };
        self.sequence += 1;
        self.scores.push(Reverse(DueScore {
            at_ms: score.event_ms.0,
            sequence: self.sequence,
            feedback: Box::new(score),
        }));
        let candidate = |(model, propensity): (&crate::ModelInfo, &f64)| Candidate {
            model: model.name.clone(),
            score: None,
            propensity: Some(*propensity),
        };
        let request = Request {
            session_id: Some(request_id.clone()),
            request_id,
            arrival_ms: EventTimeMs(at_ms),
            turn: Some(0),
            gateway_tags: Some(BTreeMap::from([
                // A gateway may tag requests with a query id of its own, which says nothing of what is asked again.
                ("weir.query_id".to_owned(), query.id.clone()),
                ("split".to_owned(), query.split.name().to_owned()),
                ("pass".to_owned(), self.pass.to_string()),
            ])),
            router: Some(self.prefix().to_owned()),
            policy_version: Some(choice.policy_version),
            domain: Some(query.task.clone()),
            embedding: embedding.cloned(),
            embedding_model,
            candidates: Some(self.matrix.models.iter().zip(&choice.propensities).map(candidate).collect()),
            intended_model: Some(model.clone()),
            propensity: Propensity::new(choice.propensity).ok(),
            executed_model: Some(model.clone()),
            cost_usd: Some(Usd(query.costs_usd[choice.action])),
            ..Request::default()
        };
        Some(Timed { at_ms, event: Event::Request(Box::new(request)) })
    }
}

impl Iterator for MatrixPlay<'_> {
    type Item = Timed;

    fn next(&mut self) -> Option<Timed> {
        if self.next_request.is_none() {
            self.next_request = self.ask();
        }
        let request_ms = self.next_request.as_ref().map(|request| request.at_ms);
        let score_first = self.scores.peek().is_some_and(|Reverse(score)| request_ms.is_none_or(|at| score.at_ms < at));
        if score_first {
            let Reverse(DueScore { at_ms, feedback, .. }) = self.scores.pop()?;
            return Some(Timed { at_ms, event: Event::Feedback(feedback) });
        }
        self.next_request.take()
    }
}

impl PartialEq for DueScore {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for DueScore {}

impl PartialOrd for DueScore {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for DueScore {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_ms, self.sequence).cmp(&(other.at_ms, other.sequence))
    }
}
