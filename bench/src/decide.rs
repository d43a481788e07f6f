//! One routing decision, on a linear policy and on a network, beside what it cannot do without: to read each weight once.

use std::error::Error;
use std::hint::black_box;

use pulp::{Arch, NullaryFnOnce};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use weir_policy_runtime::{
    Action, CategoryField, Context, CountField, Exploration, Feature, FeatureSpec, FlagField, Heads, Layer, Mlp,
    Objective, Policy, PolicySpec,
};

use crate::allocations;
use crate::timing::{Times, rounded};

/// Width of the encoded input, with an embedding as sentence encoders of the BERT family make it.
const WIDTH: usize = 782;
const EMBEDDING_DIM: usize = 768;
/// Candidates of a decision.
const MODELS: usize = 32;
const DOMAINS: [&str; 5] = ["law", "code", "biology", "chat", "mathematics"];
/// Contexts to go round: their embeddings (192 kB) do not stay in the first-level cache, as in a router.
const CONTEXTS: usize = 64;

/// Measures and prints.
pub fn run(decisions: usize) -> Result<(), Box<dyn Error>> {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let embeddings: Vec<Vec<f32>> =
        (0..CONTEXTS).map(|_| (0..EMBEDDING_DIM).map(|_| rng.random_range(-0.1..0.1)).collect()).collect();
    let draws: Vec<f64> = (0..CONTEXTS).map(|_| rng.random()).collect();
    // The network does some twenty times the work of the linear policy.
    let linear = measure(Heads::Utilities, &[WIDTH, MODELS], decisions, &embeddings, &draws, &mut rng)?;
    let mlp = measure(Heads::Utilities, &[WIDTH, 256, MODELS], decisions / 10, &embeddings, &draws, &mut rng)?;
    // Quality and cost apart take two outputs a candidate.
    let guesses = Heads::QualityLogitsThenLnCostUsd;
    let two_heads = measure(guesses, &[WIDTH, guesses.outputs(MODELS)], decisions, &embeddings, &draws, &mut rng)?;
    let clock = Times::of(decisions, |_| ());
    let allocations = linear.allocations + mlp.allocations + two_heads.allocations;
    let measured = linear.decisions + mlp.decisions + two_heads.decisions;
    println!(
        "{}",
        json!({
            "decisions": decisions,
            "models": MODELS,
            "linear_ns_p50": linear.decide.p50_ns(),
            "linear_ns_p99": linear.decide.quantile_ns(0.99),
            "linear_ceiling_ns_p50": linear.ceiling.p50_ns(),
            "linear_ceiling_ratio": rounded(linear.decide.p50_ns() / linear.ceiling.p50_ns()),
            "linear_two_heads_ns_p50": two_heads.decide.p50_ns(),
            "linear_two_heads_ns_p99": two_heads.decide.quantile_ns(0.99),
            "mlp782_ns_p50": mlp.decide.p50_ns(),
            "mlp782_ns_p99": mlp.decide.quantile_ns(0.99),
            "mlp782_ceiling_ns_p50": mlp.ceiling.p50_ns(),
            "mlp782_ceiling_ratio": rounded(mlp.decide.p50_ns() / mlp.ceiling.p50_ns()),
            // Per decision.
            "allocations": allocations as f64 / measured as f64,
            "clock_ns_p50": clock.p50_ns(),
            "optimised": !cfg!(debug_assertions),
        })
    );
    if allocations > 0 { Err(format!("decisions allocated {allocations} times").into()) } else { Ok(()) }
}

struct Measured {
    decide: Times,
    ceiling: Times,
    /// Allocations of `decisions` decisions together.
    allocations: u64,
    decisions: usize,
}

/// A policy with layers of these widths, and the reading of its weights alone.
fn measure(
    heads: Heads,
    widths: &[usize],
    decisions: usize,
    embeddings: &[Vec<f32>],
    draws: &[f64],
    rng: &mut ChaCha8Rng,
) -> Result<Measured, Box<dyn Error>> {
    let weights: Vec<Vec<f32>> = widths
        .windows(2)
        .map(|pair| {
            // Keeps the size of activations from layer to layer (He et al. 2015, arXiv 1502.01852).
            let bound = (6.0 / pair[0] as f32).sqrt();
            (0..pair[0] * pair[1]).map(|_| rng.random_range(-bound..bound)).collect()
        })
        .collect();
    let layers = weights.iter().zip(widths.windows(2));
    let layers = layers.map(|(weight, pair)| Layer::new(pair[0], weight.clone(), vec![0.0; pair[1]]));
    let policy = Policy::new(spec(heads), Mlp::new(layers.collect::<Result<_, _>>()?)?)?;
    let mut scratch = policy.scratch();

    let allowed = [true; MODELS];
    let mut failed = 0u64;
    let mut decide_one = |n: usize| {
        let context = context(n, &embeddings[n % CONTEXTS]);
        let decision = policy.decide(black_box(&context), &allowed, draws[n % CONTEXTS], &mut scratch);
        failed += u64::from(black_box(decision).is_err());
    };
    let decisions = decisions.max(1);
    let allocations = allocations::of(|| (0..decisions).for_each(&mut decide_one));
    let decide = Times::of(decisions, &mut decide_one);
    if failed > 0 {
        return Err(format!("{failed} decisions failed").into());
    }
    let ceiling = Times::of(decisions, |_| {
        for weights in &weights {
            black_box(Arch::new().dispatch(Read(black_box(weights))));
        }
    });
    Ok(Measured { decide, ceiling, allocations, decisions })
}

/// Reads each number once, as wide as the processor can, and does the least with it.
struct Read<'a>(&'a [f32]);

impl NullaryFnOnce for Read<'_> {
    type Output = u32;

    // Only what is inlined is compiled for the instructions that were found.
    #[inline(always)]
    fn call(self) -> u32 {
        self.0.iter().fold(0, |bits, x| bits ^ x.to_bits())
    }
}

fn context(n: usize, embedding: &[f32]) -> Context<'_> {
    let n = u32::try_from(n % 100_003).unwrap_or(0);
    Context {
        domain: Some(DOMAINS[n as usize % DOMAINS.len()]),
        prompt_tokens: Some(40 + n % 3_001),
        turn: (!n.is_multiple_of(7)).then_some(n % 6),
        fact_check: Some(n.is_multiple_of(3)),
        embedding: Some(embedding),
        ..Context::default()
    }
}

fn spec(heads: Heads) -> PolicySpec {
    let action = |n: usize| Action {
        model: format!("model-{n}"),
        input_usd_per_mtok: Some(0.1 * n as f64),
        output_usd_per_mtok: Some(0.4 * n as f64),
    };
    let spec = PolicySpec::of_guesses(
        FeatureSpec {
            features: vec![
                Feature::OneHot { field: CategoryField::Domain, values: DOMAINS.map(str::to_owned).to_vec() },
                Feature::Numeric { field: CountField::PromptTokens, mean: 6.5, std: 1.2 },
                Feature::Numeric { field: CountField::Turn, mean: 1.0, std: 0.7 },
                Feature::Flag { field: FlagField::FactCheck },
                Feature::Embedding { dim: EMBEDDING_DIM, model: None },
            ],
        },
        (0..MODELS).map(action).collect(),
        Exploration { gamma: 20.0, floor: 0.05 },
        Objective { quality: 1.0, usd: 10.0 },
    );
    PolicySpec { heads, ..spec }
}
