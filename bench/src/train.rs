//! Training of the reward model and of the neural policies: samples per second, the loss reached, and what the policy is worth.
//!
//! The data are seeded and their truth is known: a request's embedding decides by a random linear map which model suits it. The same rows
//! go to `bench/gpu/pytorch.py`, as raw numbers, so that PyTorch trains the same networks on them, and the requests that policies are
//! tried on with their truth.

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use serde_json::json;
use weir_learners::{
    ADAM_EPSILON, Learning, PolicyGradientConfig, RewardModelConfig, Sample, TrainConfig, TrainingSet,
    fit_reward_model, is_holdout, train_policy, training_backend,
};
use weir_policy_runtime::{Action, Exploration, Objective, OwnedContext, Policy, Scratch, Terms};

const MODELS: usize = 8;
const DIM: usize = 256;
const EPOCHS: usize = 10;
const BATCH: usize = 4_096;
const HIDDEN: usize = 256;
/// Requests that policies are tried on.
const TRIED: usize = 4_000;

/// Trains on `rows` decisions; writes them to `out` for others, if that is given.
pub fn run(rows: usize, out: Option<&Path>) -> Result<(), Box<dyn Error>> {
    let world = World::new(1);
    let set = world.logs(rows, 2);
    let reward_model = RewardModelConfig {
        hidden: vec![HIDDEN],
        epochs: EPOCHS,
        patience: EPOCHS,
        batch_rows: BATCH,
        ..RewardModelConfig::default()
    };
    let config = TrainConfig { reward_model, ..TrainConfig::default() };
    let trained = set.samples.iter().filter(|sample| !is_holdout(&sample.cluster, config.holdout_share)).count();
    let fitted = (trained as f64 * (1.0 - config.reward_model.validation_share)) as usize;
    let gradient = PolicyGradientConfig { batch_rows: BATCH, epochs: EPOCHS, ..PolicyGradientConfig::default() };
    let tried = world.tried();
    if let Some(out) = out {
        write(&set, &config, &gradient, out)?;
        write_tried(&tried, out)?;
    }
    // Kernels are compiled and tuned at their first use.
    let warm =
        TrainConfig { reward_model: RewardModelConfig { epochs: 1, ..config.reward_model.clone() }, ..config.clone() };
    fit_reward_model(&set, &warm)?;
    let start = Instant::now();
    let metrics = fit_reward_model(&set, &config)?;
    let reward_s = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let gradient = PolicyGradientConfig { batch_rows: BATCH, epochs: EPOCHS, ..PolicyGradientConfig::default() };
    let learning = Learning::PolicyGradient { config: gradient, quality_at_least: None };
    let candidate = train_policy(&set, &TrainConfig { learning, ..config.clone() }, None)?;
    let policy_s = start.elapsed().as_secs_f64();
    let [value, best, uniform] = values(&candidate.policy, &tried)?;
    let kept = candidate.report.learned.as_ref().and_then(|learned| learned.corrections).map(|found| found.kept);
    println!(
        "{}",
        json!({
            "backend": training_backend(),
            "rows": rows,
            "inputs": DIM,
            "hidden": HIDDEN,
            "batch": BATCH,
            "epochs": EPOCHS,
            "reward_model_s": reward_s,
            "reward_model_samples_per_s": (fitted * EPOCHS) as f64 / reward_s,
            "reward_model_log_loss": metrics.quality_log_loss,
            "log_loss_of_means": metrics.quality_log_loss_of_means,
            // With the judging of the policy.
            "policy_gradient_s": policy_s,
            "corrections_kept": kept,
            "policy_value": value,
            "best_value": best,
            "uniform_value": uniform,
            "optimised": !cfg!(debug_assertions),
        })
    );
    Ok(())
}

/// Quality of model `m` for a request with embedding `x` is `σ(1.5 x · w_m)`.
struct World {
    weights: Vec<Vec<f32>>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let direction = |_| (0..DIM).map(|_| rng.sample(StandardNormal)).collect();
        Self { weights: (0..MODELS).map(direction).collect() }
    }

    fn quality(&self, embedding: &[f32], model: usize) -> f64 {
        let along: f32 = embedding.iter().zip(&self.weights[model]).map(|(x, w)| x * w).sum();
        1.0 / (1.0 + (-1.5 * f64::from(along)).exp())
    }

    fn context(rng: &mut ChaCha8Rng) -> OwnedContext {
        let scale = 1.0 / (DIM as f32).sqrt();
        let embedding = (0..DIM).map(|_| scale * rng.sample::<f32, _>(StandardNormal)).collect();
        OwnedContext {
            embedding: Some(embedding),
            embedding_model: Some("seeded".to_owned()),
            ..OwnedContext::default()
        }
    }

    fn logs(&self, rows: usize, seed: u64) -> TrainingSet {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let samples = (0..rows).map(|row| {
            let context = Self::context(&mut rng);
            let action = rng.random_range(0..MODELS);
            let quality = self.quality(context.embedding.as_deref().unwrap_or_default(), action);
            Sample {
                action,
                executed_as_intended: true,
                propensity: Some(1.0 / MODELS as f64),
                quality: Some(f64::from(u8::from(rng.random::<f64>() < quality))),
                cluster: row.to_string(),
                time_ms: row as i64,
                context,
                ..Sample::default()
            }
        });
        let action =
            |model| Action { model: format!("model-{model}"), input_usd_per_mtok: None, output_usd_per_mtok: None };
        TrainingSet { samples: samples.collect(), actions: (0..MODELS).map(action).collect(), ..TrainingSet::default() }
    }

    /// Requests that policies are tried on.
    fn tried(&self) -> Vec<Tried> {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let tried = |_| {
            let context = Self::context(&mut rng);
            let embedding = context.embedding.as_deref().unwrap_or_default();
            let qualities = (0..MODELS).map(|model| self.quality(embedding, model)).collect();
            Tried { context, qualities }
        };
        (0..TRIED).map(tried).collect()
    }
}

/// A request and what each model's answer is worth.
struct Tried {
    context: OwnedContext,
    qualities: Vec<f64>,
}

/// True quality of the policy's best guess, of the best model of each request, and of any.
fn values(policy: &Policy, tried: &[Tried]) -> Result<[f64; 3], Box<dyn Error>> {
    let mut scratch = Scratch::default();
    let objective = Objective { quality: 1.0, usd: 0.0 };
    let terms = Terms { exploration: Exploration::NONE, objective, wait_s: &[] };
    let mut sums = [0.0; 3];
    for Tried { context, qualities } in tried {
        let choice = policy.decide_under(&terms, &context.as_context(), &[true; MODELS], 0.0, &mut scratch)?.action;
        let best = qualities.iter().copied().fold(0.0, f64::max);
        let mean = qualities.iter().sum::<f64>() / MODELS as f64;
        for (sum, x) in sums.iter_mut().zip([qualities[choice], best, mean]) {
            *sum += x / tried.len() as f64;
        }
    }
    Ok(sums)
}

/// `inputs.f32` of shape \[rows, DIM\], `rows.i32` of \[rows, 3\]: action, quality, 1 where it is kept for judging.
fn write(
    set: &TrainingSet,
    config: &TrainConfig,
    gradient: &PolicyGradientConfig,
    out: &Path,
) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(out)?;
    let inputs = set.samples.iter().flat_map(|sample| sample.context.embedding.iter().flatten());
    std::fs::write(out.join("inputs.f32"), le_bytes(inputs.copied()))?;
    let row = |sample: &Sample| {
        let kept = i32::from(is_holdout(&sample.cluster, config.holdout_share));
        [sample.action as i32, sample.quality.unwrap_or_default() as i32, kept].map(i32::to_le_bytes).concat()
    };
    std::fs::write(out.join("rows.i32"), set.samples.iter().flat_map(row).collect::<Vec<u8>>())?;
    let RewardModelConfig { learning_rate, weight_decay, validation_share, patience, .. } = config.reward_model;
    let settings = json!({
        "inputs": DIM, "hidden": HIDDEN, "actions": MODELS, "batch": BATCH, "epochs": EPOCHS,
        "learning_rate": learning_rate, "weight_decay": weight_decay, "validation_share": validation_share,
        "patience": patience, "floor": config.floor, "epsilon": ADAM_EPSILON, "policy": gradient,
    });
    std::fs::write(out.join("settings.json"), settings.to_string())?;
    Ok(())
}

/// `tried.f32` of shape \[TRIED, DIM\], and each model's true quality there in `truth.f32` of \[TRIED, MODELS\].
fn write_tried(tried: &[Tried], out: &Path) -> Result<(), Box<dyn Error>> {
    let inputs = tried.iter().flat_map(|tried| tried.context.embedding.iter().flatten());
    std::fs::write(out.join("tried.f32"), le_bytes(inputs.copied()))?;
    let truth = tried.iter().flat_map(|tried| tried.qualities.iter().map(|quality| *quality as f32));
    std::fs::write(out.join("truth.f32"), le_bytes(truth))?;
    Ok(())
}

fn le_bytes(numbers: impl Iterator<Item = f32>) -> Vec<u8> {
    numbers.flat_map(f32::to_le_bytes).collect()
}
