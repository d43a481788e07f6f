//! One conversation or agent run, drawn as a whole before any model is chosen for it.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, LogNormal, Normal};
use weir_policy_runtime::OwnedContext;
use weir_schemas::ToolCall;

use super::config::SimConfig;
use super::profile::{Habits, Kind};
use super::safety::Nature;
use super::text::{self, RagText};
use super::world::{DOMAINS, Hidden, TOPICS};
use crate::hash::stable_hash;

/// A prompt never grows past this; older history is left out.
const CONTEXT_TOKENS_MAX: u32 = 120_000;
const TENANTS: [(&str, f64); 3] = [("harbor", 0.5), ("meadow", 0.3), ("quarry", 0.2)];
const LANGUAGES: [(&str, f64); 3] = [("en", 0.8), ("de", 0.1), ("zh", 0.1)];
const TOOLS: [&str; 7] =
    ["read_file", "search_code", "run_tests", "edit_file", "list_issues", "fetch_page", "run_query"];
const TOOL_ERRORS: [&str; 3] = ["timeout", "not_found", "invalid_arguments"];

/// A session and where it stands.
pub(super) struct Session {
    pub number: u64,
    pub id: String,
    pub habits: Habits,
    pub tenant: &'static str,
    pub caller: String,
    pub system_prompt: u64,
    pub nature: Nature,
    pub turns: Vec<Turn>,
    /// Index of the next turn.
    pub next: usize,
    /// Engine that served the last turn, and what of its prompt it may still hold.
    pub warm: Option<Warm>,
    /// Sum of the expected qualities of the answers so far.
    pub quality_sum: f64,
}

/// Where the last prompt of the session may still be cached.
#[derive(Clone, Copy)]
pub(super) struct Warm {
    pub model: usize,
    pub engine: usize,
    pub prompt_tokens: u32,
    pub until_ms: i64,
}

/// One call of the session, as far as it does not depend on the model.
pub(super) struct Turn {
    /// From the end of the turn before to this one.
    pub pause_ms: f64,
    pub context: OwnedContext,
    pub hidden: Hidden,
    /// Length of a to-the-point answer, tokens.
    pub needed_tokens: f64,
    pub tools_offered: Vec<String>,
    pub calls: Vec<ToolCall>,
    pub image: bool,
    pub text: Option<RagText>,
}

impl Session {
    /// Draws session `number` of the run whose ids begin with `run`.
    pub(super) fn draw(
        number: u64,
        run: &str,
        habits: Habits,
        nature: Nature,
        config: &SimConfig,
        rng: &mut ChaCha8Rng,
    ) -> Self {
        let tenant = pick(&TENANTS, rng);
        let domain = weighted(&habits.domains, rng);
        let topic = rng.random_range(0..TOPICS);
        let difficulty = normal(rng, habits.mean_difficulty, 0.20);
        let language = pick(&LANGUAGES, rng);
        let caller = format!("{tenant}-user-{}", rng.random_range(0..500));
        let offered: Vec<String> = if habits.kind == Kind::Agent {
            let count = rng.random_range(3..=TOOLS.len());
            TOOLS[..count].iter().map(|tool| (*tool).to_owned()).collect()
        } else {
            Vec::new()
        };
        let mut prompt_tokens = f64::from(habits.system_tokens);
        let mut turns = Vec::new();
        loop {
            let turn_number = turns.len() as u32;
            let last = turn_number + 1 >= habits.turns_max || rng.random::<f64>() >= habits.continues;
            prompt_tokens += log_normal(rng, habits.user_tokens).max(1.0);
            let hidden = Hidden { domain, topic, difficulty: normal(rng, difficulty, 0.08).clamp(0.01, 0.99) };
            let needed_tokens = log_normal(rng, habits.completion_tokens).clamp(1.0, 8_000.0);
            let calls = if offered.is_empty() || last { Vec::new() } else { tool_calls(&offered, &hidden, rng) };
            let waited_for_tools = calls.iter().filter_map(|call| call.latency_ms).fold(0.0, f64::max);
            let image = habits.kind == Kind::Chat && rng.random::<f64>() < 0.05;
            let fact_check = match habits.kind {
                Kind::Rag => true,
                Kind::Chat => rng.random::<f64>() < 0.3,
                Kind::Agent => false,
            };
            let with_text = habits.kind == Kind::Rag && rng.random::<f64>() < config.text_share;
            let text = with_text.then(|| text::draw(config.unsupported_share, rng));
            turns.push(Turn {
                pause_ms: log_normal(rng, habits.pause_ms) + waited_for_tools,
                context: OwnedContext {
                    domain: Some(DOMAINS[domain].to_owned()),
                    complexity: Some(complexity(&hidden, rng).to_owned()),
                    language: Some(language.to_owned()),
                    api: Some("chat_completions".to_owned()),
                    prompt_tokens: Some((prompt_tokens as u32).min(CONTEXT_TOKENS_MAX)),
                    turn: Some(turn_number),
                    message_count: Some(2 + 2 * turn_number),
                    tools_offered: Some(offered.len() as u32),
                    fact_check: Some(fact_check),
                    multimodal: Some(image),
                    ..OwnedContext::default()
                },
                hidden,
                needed_tokens,
                tools_offered: offered.clone(),
                calls,
                image,
                text,
            });
            prompt_tokens += needed_tokens;
            if last {
                break;
            }
        }
        let system_prompt = stable_hash(&[habits.application.as_bytes(), tenant.as_bytes()]);
        let id = format!("{run}-s{number:07}");
        Self { number, id, habits, tenant, caller, system_prompt, nature, turns, next: 0, warm: None, quality_sum: 0.0 }
    }
}

/// The class that the simulated classifier reports: a coarse and noisy look at the difficulty.
fn complexity(hidden: &Hidden, rng: &mut ChaCha8Rng) -> &'static str {
    let seen = normal(rng, hidden.difficulty, 0.08);
    if seen < 0.38 {
        "easy"
    } else if seen < 0.60 {
        "medium"
    } else {
        "hard"
    }
}

fn tool_calls(offered: &[String], hidden: &Hidden, rng: &mut ChaCha8Rng) -> Vec<ToolCall> {
    let count = rng.random_range(1..=2);
    let mut calls = Vec::with_capacity(count);
    for _ in 0..count {
        let name = offered[rng.random_range(0..offered.len())].clone();
        let success = rng.random::<f64>() < 0.97 - 0.3 * hidden.difficulty;
        let error = TOOL_ERRORS[rng.random_range(0..TOOL_ERRORS.len())];
        calls.push(ToolCall {
            name,
            success: Some(success),
            error_class: (!success).then(|| error.to_owned()),
            latency_ms: Some(log_normal(rng, (600.0, 1.0)).round()),
        });
    }
    calls
}

fn pick(choices: &[(&'static str, f64)], rng: &mut ChaCha8Rng) -> &'static str {
    let weights: Vec<f64> = choices.iter().map(|(_, weight)| *weight).collect();
    choices[weighted(&weights, rng)].0
}

/// Index drawn with these weights.
pub(super) fn weighted(weights: &[f64], rng: &mut ChaCha8Rng) -> usize {
    let mut left = rng.random::<f64>() * weights.iter().sum::<f64>();
    for (index, weight) in weights.iter().enumerate() {
        left -= weight;
        if left < 0.0 {
            return index;
        }
    }
    // Rounding can leave a crumb: it belongs to the last choice that is possible at all.
    weights.iter().rposition(|weight| *weight > 0.0).unwrap_or(0)
}

fn normal(rng: &mut ChaCha8Rng, mean: f64, deviation: f64) -> f64 {
    Normal::new(mean, deviation).expect("deviations here are constants above 0").sample(rng)
}

/// A log-normal draw from its median and the deviation of its logarithm.
pub(super) fn log_normal(rng: &mut ChaCha8Rng, (median, sigma): (f64, f64)) -> f64 {
    LogNormal::new(median.ln(), sigma).expect("sigmas here are constants above 0").sample(rng)
}
