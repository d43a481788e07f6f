//! The truth: which model answers what how well, at which price, and what a policy is worth therefore.

use serde_json::{Value, json};

/// The models, in alphabetical order as everywhere in Weir.
pub const MODELS: [&str; 4] = ["coder", "large", "scholar", "small"];
const DOMAINS: [&str; 4] = ["chat", "code", "law", "math"];
const COMPLEXITIES: [&str; 2] = ["easy", "hard"];
/// Kinds of requests: each subject, easy and hard. All are equally frequent.
pub const KINDS: usize = DOMAINS.len() * COMPLEXITIES.len();

/// USD per prompt token and per completion token, as in `litellm.yaml`.
const PRICES: [(f64, f64); 4] = [(3.0e-7, 5.0e-6), (2.0e-6, 2.2e-5), (5.0e-7, 1.0e-5), (1.0e-7, 1.0e-6)];
/// Tokens of every answer, as in `upstreams.py`.
const COMPLETION_TOKENS: f64 = 400.0;
/// Utility lost per USD: the default of `objective.usd`.
const USD_WEIGHT: f64 = 15.0;

/// For each kind of request, a probability of each model.
pub type Choices = [[f64; MODELS.len()]; KINDS];

/// A subject and a complexity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind(pub usize);

impl Kind {
    pub fn all() -> impl Iterator<Item = Self> {
        (0..KINDS).map(Self)
    }

    pub fn domain(self) -> &'static str {
        DOMAINS[self.0 / COMPLEXITIES.len()]
    }

    pub fn complexity(self) -> &'static str {
        COMPLEXITIES[self.0 % COMPLEXITIES.len()]
    }

    /// Length of the prompt; a token is a word.
    pub fn prompt_tokens(self) -> usize {
        if self.complexity() == "easy" { 60 } else { 240 }
    }
}

/// A model by its place.
pub fn place(model: &str) -> usize {
    MODELS.iter().position(|known| *known == model).unwrap_or_else(|| panic!("{model} is none of the models"))
}

/// How good the models are now: for each, the chance of a good answer to each kind of request.
#[derive(Debug, Clone, PartialEq)]
pub struct World {
    chances: [[f64; KINDS]; MODELS.len()],
}

impl World {
    /// At the beginning. The dearest model is good at everything, two are good at something, the cheapest at chatting.
    pub fn first() -> Self {
        Self {
            //         chat        code        law         math
            chances: [
                [0.70, 0.50, 0.92, 0.84, 0.45, 0.30, 0.75, 0.64], // coder
                [0.96, 0.92, 0.94, 0.88, 0.92, 0.87, 0.95, 0.92], // large
                [0.88, 0.78, 0.60, 0.40, 0.93, 0.86, 0.60, 0.45], // scholar
                [0.90, 0.70, 0.70, 0.35, 0.60, 0.35, 0.65, 0.25], // small
            ],
        }
    }

    /// The same, but for the model's answers on one subject: what a provider's new version can do.
    pub fn with(mut self, model: &str, domain: &str, easy: f64, hard: f64) -> Self {
        for kind in Kind::all().filter(|kind| kind.domain() == domain) {
            self.chances[place(model)][kind.0] = if kind.complexity() == "easy" { easy } else { hard };
        }
        self
    }

    /// Expected quality minus what the cost is worth.
    fn utility(&self, model: usize, kind: Kind) -> f64 {
        let (prompt_usd, completion_usd) = PRICES[model];
        let usd = prompt_usd * kind.prompt_tokens() as f64 + completion_usd * COMPLETION_TOKENS;
        self.chances[model][kind.0] - USD_WEIGHT * usd
    }

    fn expected(&self, probabilities: &[f64; MODELS.len()], kind: Kind) -> f64 {
        probabilities.iter().enumerate().map(|(model, p)| p * self.utility(model, kind)).sum()
    }

    /// Mean utility of a request under a policy, in closed form.
    pub fn value(&self, choices: &Choices) -> f64 {
        Kind::all().map(|kind| self.expected(&choices[kind.0], kind)).sum::<f64>() / KINDS as f64
    }

    /// What drawing by these probabilities loses beside the policy's own most probable model.
    pub fn loss(&self, probabilities: &[f64; MODELS.len()], kind: Kind) -> f64 {
        let most = (0..MODELS.len()).max_by(|a, b| probabilities[*a].total_cmp(&probabilities[*b]));
        self.utility(most.unwrap_or_default(), kind) - self.expected(probabilities, kind)
    }

    /// The mean utility of whoever knows the truth.
    pub fn best(&self) -> f64 {
        let best = |kind| (0..MODELS.len()).map(|model| self.utility(model, kind)).fold(f64::NEG_INFINITY, f64::max);
        Kind::all().map(best).sum::<f64>() / KINDS as f64
    }

    /// As the upstreams take it.
    pub fn to_json(&self, seed: u64) -> Value {
        let of_model = |model: usize| -> serde_json::Map<String, Value> {
            let chance = |kind: Kind| json!(self.chances[model][kind.0]);
            Kind::all().map(|kind| (format!("{}/{}", kind.domain(), kind.complexity()), chance(kind))).collect()
        };
        let models: serde_json::Map<String, Value> =
            MODELS.iter().enumerate().map(|(model, name)| ((*name).to_owned(), of_model(model).into())).collect();
        json!({ "seed": seed, "models": models })
    }
}
