//! Contextual bandits on the same logs: ours here, others' by `bench/bandits/run.sh`, which reads the files that this writes.
//!
//! A public score matrix is split by query; logs show one model's score per decision, drawn uniformly, on the training queries. Whatever
//! was learned then chooses greedily for the other queries, whose truth is known.

use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};
use weir_learners::matrix::{Matrix, load_llmrouter};
use weir_learners::{
    Learning, PolicyGradientConfig, RewardModelConfig, Sample, TrainConfig, TrainingSet, train_policy,
};
use weir_policy_runtime::hash_embedding::{hash_embedding, hash_embedding_model};
use weir_policy_runtime::{Exploration, Objective, OwnedContext, Policy, Scratch, Terms};

/// Dimensions of the hashed text: few enough that LinUCB's matrices of every arm are inverted in seconds.
const DIM: usize = 64;
/// Logged decisions per training query.
const PASSES: usize = 4;
const TRAIN_SHARE: f64 = 0.7;

/// Writes logs and test queries into `out`, learns with each of ours and prints what they earn.
pub fn run(out: &Path, seed: u64) -> Result<(), Box<dyn Error>> {
    let folder = crate::routing::default_folder();
    if !folder.is_dir() {
        println!("skipped: no ../shared");
        println!("{}", json!({ "skipped": "no ../shared" }));
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let trial = Trial::new(runtime.block_on(load_llmrouter(&folder))?, seed);
    std::fs::create_dir_all(out)?;
    std::fs::write(out.join("logs.csv"), trial.logs_csv())?;
    std::fs::write(out.join("test.csv"), trial.test_csv())?;
    let linear = RewardModelConfig { hidden: Vec::new(), ..RewardModelConfig::default() };
    let gradient = Learning::PolicyGradient { config: PolicyGradientConfig::default(), quality_at_least: None };
    let neural = RewardModelConfig::default();
    let ways = [
        ("weir, linear", Learning::InverseGap, linear),
        ("weir, network", Learning::InverseGap, neural.clone()),
        ("weir, policy gradient", gradient, neural),
    ];
    let mut line = Map::new();
    for (name, learning, reward_model) in ways {
        let config = TrainConfig {
            seed,
            learning,
            reward_model,
            outcome: trial.objective.into(),
            // Everything that others learn from; what it is worth is seen on the test queries.
            holdout_share: 0.001,
            ..TrainConfig::default()
        };
        let start = Instant::now();
        let candidate = train_policy(&trial.set, &config, None)?;
        let train_s = start.elapsed().as_secs_f64();
        line.insert(name.to_owned(), trial.judged(&candidate.policy, train_s)?);
    }
    line.insert("best single model".to_owned(), json!({ "value": trial.best_single() }));
    line.insert("optimised".to_owned(), json!(!cfg!(debug_assertions)));
    let line = Value::Object(line);
    std::fs::write(out.join("weir.json"), line.to_string())?;
    println!("{line}");
    Ok(())
}

struct Trial {
    matrix: Matrix,
    train: Vec<usize>,
    test: Vec<usize>,
    set: TrainingSet,
    objective: Objective,
}

impl Trial {
    fn new(matrix: Matrix, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut order: Vec<usize> = (0..matrix.queries.len()).collect();
        order.shuffle(&mut rng);
        let test = order.split_off((order.len() as f64 * TRAIN_SHARE).round() as usize);
        let models = matrix.models.len();
        let dearest = matrix.mean_costs(&order).into_iter().fold(0.0, f64::max);
        let mut samples = Vec::with_capacity(order.len() * PASSES);
        for _ in 0..PASSES {
            for &query in &order {
                let action = rng.random_range(0..models);
                let cell = matrix.cell(query, action);
                samples.push(Sample {
                    context: context(&matrix, query),
                    action,
                    executed_as_intended: true,
                    propensity: Some(1.0 / models as f64),
                    quality: Some(matrix.quality[cell]),
                    cost_usd: Some(matrix.cost_usd[cell]),
                    cluster: matrix.queries[query].id.clone(),
                    time_ms: samples.len() as i64,
                    ..Sample::default()
                });
            }
        }
        let set = TrainingSet { actions: matrix.models.clone(), samples, ..TrainingSet::default() };
        // The dearest model has to be better by a tenth to be worth its price.
        Self { objective: Objective { quality: 1.0, usd: 0.1 / dearest }, train: order, test, set, matrix }
    }

    fn utility(&self, query: usize, model: usize) -> f64 {
        let cell = self.matrix.cell(query, model);
        self.objective.utility(self.matrix.quality[cell], self.matrix.cost_usd[cell])
    }

    /// One row a decision: action from 0, propensity, reward, domain, embedding.
    fn logs_csv(&self) -> String {
        let mut csv = "action,propensity,reward,domain,embedding\n".to_owned();
        for sample in &self.set.samples {
            let reward =
                self.objective.utility(sample.quality.unwrap_or_default(), sample.cost_usd.unwrap_or_default());
            let (action, propensity) = (sample.action, sample.propensity.unwrap_or_default());
            writeln!(csv, "{action},{propensity},{reward},{}", features(&sample.context))
                .expect("a String takes any text");
        }
        csv
    }

    /// One row a query: utilities of all models, domain, embedding.
    fn test_csv(&self) -> String {
        let mut csv = "utilities,domain,embedding\n".to_owned();
        for &query in &self.test {
            let utilities = (0..self.matrix.models.len()).map(|model| self.utility(query, model).to_string());
            let utilities = utilities.collect::<Vec<_>>().join(" ");
            writeln!(csv, "{utilities},{}", features(&context(&self.matrix, query))).expect("a String takes any text");
        }
        csv
    }

    fn judged(&self, policy: &Policy, train_s: f64) -> Result<Value, Box<dyn Error>> {
        let allowed = vec![true; self.matrix.models.len()];
        let contexts: Vec<OwnedContext> = self.test.iter().map(|&query| context(&self.matrix, query)).collect();
        let mut scratch = Scratch::default();
        let terms = Terms { exploration: Exploration::NONE, objective: self.objective, wait_s: &[] };
        let start = Instant::now();
        let mut choices = Vec::with_capacity(contexts.len());
        for context in &contexts {
            let context = context.as_context();
            choices.push(policy.decide_under(&terms, &context, &allowed, 0.0, &mut scratch)?.action);
        }
        let decide_us = start.elapsed().as_secs_f64() * 1e6 / self.test.len() as f64;
        let earned = self.test.iter().zip(choices).map(|(&query, model)| self.utility(query, model));
        let value = earned.sum::<f64>() / self.test.len() as f64;
        Ok(json!({ "value": value, "train_s": train_s, "decide_us": decide_us }))
    }

    /// What the model that is best on the training queries earns on the others.
    fn best_single(&self) -> f64 {
        let mean = |queries: &[usize], model| {
            queries.iter().map(|&query| self.utility(query, model)).sum::<f64>() / queries.len() as f64
        };
        let models = 0..self.matrix.models.len();
        let best = models.max_by(|a, b| mean(&self.train, *a).total_cmp(&mean(&self.train, *b))).unwrap_or(0);
        mean(&self.test, best)
    }
}

fn context(matrix: &Matrix, query: usize) -> OwnedContext {
    OwnedContext {
        domain: Some(matrix.queries[query].domain.clone()),
        embedding: Some(hash_embedding(&matrix.queries[query].text, DIM)),
        embedding_model: Some(hash_embedding_model(DIM)),
        ..OwnedContext::default()
    }
}

fn features(context: &OwnedContext) -> String {
    let embedding = context.embedding.iter().flatten().map(f32::to_string).collect::<Vec<_>>().join(" ");
    format!("{},{embedding}", context.domain.as_deref().unwrap_or_default())
}
