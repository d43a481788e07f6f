//! What the models are good at: the part that no log shows.

use crate::ModelInfo;
use crate::hash::stable_hash;

/// Subjects that the simulated classifier finds; logged.
pub(super) const DOMAINS: [&str; 6] = ["code", "math", "law", "medicine", "business", "small_talk"];
/// Hidden topics within a subject; never logged.
pub(super) const TOPICS: usize = 3;

/// What decides the quality of an answer. Only the domain is logged as it is; of the difficulty the log has a coarse
/// class, of the topic nothing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hidden {
    /// Index of the domain.
    pub domain: usize,
    /// How hard the request is, 0 to 1.
    pub difficulty: f64,
    /// Topic within the domain.
    pub topic: usize,
}

/// A simulated model and the engines that serve it.
#[derive(Debug, Clone, PartialEq)]
pub struct SimModel {
    /// Name and prices.
    pub info: ModelInfo,
    /// Pool that serves it.
    pub pool: &'static str,
    /// GPUs of one engine.
    pub gpus: u32,
    /// Time to first token of an empty engine and an empty prompt, ms.
    pub ttft_ms: f64,
    /// Prefill speed, tokens per second.
    pub prefill_tokens_per_s: f64,
    /// Time per output token at half load, ms.
    pub tpot_ms: f64,
    /// Length of its answers, as a multiple of what the request needs.
    pub verbosity: f64,
    /// Index of the model that answers when this one cannot.
    pub fallback: usize,
}

/// A set of models and how good each is for what.
pub trait World: Send {
    /// The models; indices into this list name them.
    fn models(&self) -> &[SimModel];

    /// Probability that `model` answers well, 0 to 1.
    fn expected_quality(&self, hidden: &Hidden, model: usize) -> f64;
}

/// A cheap small model to an expensive large one, and a specialist: which is worth its price depends on the request.
#[derive(Debug, Clone)]
pub struct Gain {
    models: Vec<SimModel>,
}

/// The same engines, but every model answers every request equally well at the same price.
#[derive(Debug, Clone)]
pub struct NoGain {
    models: Vec<SimModel>,
}

/// Ability on the scale of difficulty: who is at 0.5 answers half of the requests of difficulty 0.5.
const ABILITY: [f64; 5] = [0.32, 0.48, 0.60, 0.52, 0.84];
/// What a model gains or loses in a domain.
const AFFINITY: [[f64; DOMAINS.len()]; 5] = [
    [-0.05, -0.08, -0.05, -0.08, 0.02, 0.25],
    [0.00, 0.00, 0.02, 0.02, 0.08, 0.18],
    [0.00, 0.02, 0.18, 0.12, 0.10, 0.00],
    [0.30, 0.22, -0.12, -0.10, -0.02, -0.10],
    [0.02, 0.03, 0.02, 0.05, 0.00, 0.00],
];
/// What the hidden topic adds or takes at most.
const TOPIC_EDGE: f64 = 0.12;
/// How fast quality falls where difficulty passes ability.
const STEEPNESS: f64 = 6.0;

impl Gain {
    /// The five models.
    #[must_use]
    pub fn new() -> Self {
        let rows = [
            ("sprint-3b", "small", 1, (0.08, 0.20), 60.0, 22_000.0, 6.0, 0.8, 1),
            ("mosaic-9b", "small", 1, (0.20, 0.40), 90.0, 14_000.0, 9.0, 1.0, 2),
            ("ledger-30b", "mid", 1, (0.50, 1.00), 140.0, 8_000.0, 14.0, 1.0, 1),
            ("forge-32b", "mid", 1, (0.60, 1.20), 150.0, 7_500.0, 15.0, 1.1, 2),
            ("summit-200b", "large", 4, (3.00, 12.00), 260.0, 6_000.0, 24.0, 1.3, 2),
        ];
        let model = |(name, pool, gpus, prices, ttft_ms, prefill_tokens_per_s, tpot_ms, verbosity, fallback)| {
            let (input, output): (f64, f64) = prices;
            let name: &str = name;
            let info =
                ModelInfo { name: name.to_owned(), input_usd_per_mtok: Some(input), output_usd_per_mtok: Some(output) };
            SimModel { info, pool, gpus, ttft_ms, prefill_tokens_per_s, tpot_ms, verbosity, fallback }
        };
        Self { models: rows.into_iter().map(model).collect() }
    }
}

impl Default for Gain {
    fn default() -> Self {
        Self::new()
    }
}

impl World for Gain {
    fn models(&self) -> &[SimModel] {
        &self.models
    }

    fn expected_quality(&self, hidden: &Hidden, model: usize) -> f64 {
        let cell = [model as u8, hidden.domain as u8, hidden.topic as u8];
        let edge = (stable_hash(&[b"topic", &cell]) >> 11) as f64 / (1u64 << 53) as f64;
        let ability = ABILITY[model] + AFFINITY[model][hidden.domain] + TOPIC_EDGE * (2.0 * edge - 1.0);
        good_answer(ability, hidden.difficulty)
    }
}

impl NoGain {
    /// The models of [`Gain`], levelled.
    #[must_use]
    pub fn new() -> Self {
        let mut models = Gain::new().models;
        for model in &mut models {
            model.info.input_usd_per_mtok = Some(0.5);
            model.info.output_usd_per_mtok = Some(1.0);
            model.verbosity = 1.0;
        }
        Self { models }
    }
}

impl Default for NoGain {
    fn default() -> Self {
        Self::new()
    }
}

impl World for NoGain {
    fn models(&self) -> &[SimModel] {
        &self.models
    }

    fn expected_quality(&self, hidden: &Hidden, _model: usize) -> f64 {
        good_answer(0.6, hidden.difficulty)
    }
}

/// Logistic item response (Rasch 1960) between 2 % and 98 %.
fn good_answer(ability: f64, difficulty: f64) -> f64 {
    0.02 + 0.96 / (1.0 + (-STEEPNESS * (ability - difficulty)).exp())
}
