//! An off-policy evaluation of a seeded log whose truth is known, beside one plain pass over its rows.

use std::error::Error;
use std::hint::black_box;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use weir_learners::ope::{
    Evaluation, EvaluationConfig, IntervalKind, Logged, MethodEstimate, Parameters, Rounds, TableRow,
    cross_fitted_table, estimate_all, evaluate, fold_of,
};

use crate::timing::{Times, rounded};

const DOMAINS: usize = 14;
const MODELS: usize = 6;
const FOLDS: usize = 5;
const BOOTSTRAPS: usize = 1_000;
const REPETITIONS: usize = 5;
/// Largest effect of a session on all of its rewards: what makes rows of one session depend on each other.
const SESSION_EFFECT: f64 = 0.1;

/// Measures and prints.
pub fn run(rounds: usize) -> Result<(), Box<dyn Error>> {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let world = World::new(&mut rng);
    let mut log = world.log(rounds, &mut rng);
    let fit = Times::of(REPETITIONS, |_| fill_guesses(&world, &mut log));
    let rows: Vec<Logged> = log.into_iter().map(|(_, row)| row).collect();

    let with = |interval| EvaluationConfig { interval, bootstraps: BOOTSTRAPS, seed: 1, ..EvaluationConfig::default() };
    let (t, bootstrap) = (with(IntervalKind::ClusterT), with(IntervalKind::ClusterBootstrap));
    let t_time = Times::of(REPETITIONS, |_| drop(black_box(evaluate(&rows, &t))));
    let bootstrap_time = Times::of(REPETITIONS, |_| drop(black_box(evaluate(&rows, &bootstrap))));
    let rounds = Rounds::from(&rows[..]);
    let all = estimate_all(&rounds, Parameters::default(), &bootstrap);
    let all_time =
        Times::of(REPETITIONS, |_| drop(black_box(estimate_all(&rounds, Parameters::default(), &bootstrap))));
    let ceiling = Times::of(REPETITIONS, |_| {
        black_box(one_pass(black_box(&rows)));
    });
    let sums = cluster_sums(&rows);
    let resamples = Times::of(REPETITIONS, |_| {
        for _ in 0..BOOTSTRAPS {
            black_box(black_box(&sums).iter().fold([0.0; 5], plus));
        }
    });
    let bootstrap_ceiling_ns = ceiling.p50_ns() + resamples.p50_ns();
    println!(
        "{}",
        json!({
            "rounds": rows.len(),
            "clusters": rows.last().map_or(0, |row| row.cluster + 1),
            "estimators": all.len(),
            "bootstraps": BOOTSTRAPS,
            // All estimators, tuned, with the intervals of as many resamples.
            "seconds": all_time.p50_ns() / 1e9,
            "consistent_covered": all.iter().filter(|one| one.is_consistent).map(|one| covered(one, world.value())).collect::<Vec<_>>(),
            "cluster_t_seconds": t_time.p50_ns() / 1e9,
            "bootstrap_seconds": bootstrap_time.p50_ns() / 1e9,
            "cross_fit_seconds": fit.p50_ns() / 1e9,
            "one_pass_seconds": ceiling.p50_ns() / 1e9,
            "cluster_t_ceiling_ratio": rounded(t_time.p50_ns() / ceiling.p50_ns()),
            // One pass over the rows, and for each resample one over the clusters' sums, in order instead of at random.
            "bootstrap_ceiling_seconds": bootstrap_ceiling_ns / 1e9,
            "bootstrap_ceiling_ratio": rounded(bootstrap_time.p50_ns() / bootstrap_ceiling_ns),
            "cluster_t": found(&evaluate(&rows, &t), world.value())?,
            "cluster_bootstrap": found(&evaluate(&rows, &bootstrap), world.value())?,
            "optimised": !cfg!(debug_assertions),
        })
    );
    Ok(())
}

/// The doubly robust value with its interval, and the truth beside it.
fn found(evaluation: &Evaluation, truth: f64) -> Result<serde_json::Value, Box<dyn Error>> {
    let Some(estimates) = &evaluation.estimates else {
        return Err(format!("no estimate: {:?}", evaluation.verdict).into());
    };
    Ok(json!({ "dr": estimates.dr, "truth": truth, "covered": estimates.dr.covers(truth) }))
}

fn covered(one: &MethodEstimate, truth: f64) -> serde_json::Value {
    json!({ "method": one.method, "value": one.estimate.value, "covered": one.estimate.covers(truth) })
}

/// What a row adds to the sums that all of the estimators need.
fn terms(row: &Logged) -> [f64; 5] {
    let w = row.target_probability / row.propensity;
    [1.0, row.reward, w, w * row.reward, row.q_hat_policy + w * (row.reward - row.q_hat_logged)]
}

fn plus(sums: [f64; 5], terms: &[f64; 5]) -> [f64; 5] {
    std::array::from_fn(|k| sums[k] + terms[k])
}

/// Every row once: no clusters, no intervals, no check of the support.
fn one_pass(rows: &[Logged]) -> [f64; 5] {
    rows.iter().fold([0.0; 5], |sums, row| plus(sums, &terms(row)))
}

fn cluster_sums(rows: &[Logged]) -> Vec<[f64; 5]> {
    let mut clusters = vec![[0.0; 5]; rows.last().map_or(0, |row| row.cluster + 1)];
    for row in rows {
        clusters[row.cluster] = plus(clusters[row.cluster], &terms(row));
    }
    clusters
}

/// Domains equally frequent, a mean reward for each domain and model, and two stochastic policies.
struct World {
    mean: [[f64; MODELS]; DOMAINS],
    logging: [[f64; MODELS]; DOMAINS],
    target: [[f64; MODELS]; DOMAINS],
}

impl World {
    fn new(rng: &mut ChaCha8Rng) -> Self {
        let mean = std::array::from_fn(|_| std::array::from_fn(|_| rng.random_range(0.2..0.8)));
        let logging = std::array::from_fn(|_| normalised(std::array::from_fn(|_| rng.random_range(0.3..1.0))));
        let target = mean.map(|row: [f64; MODELS]| normalised(row.map(|mean| (4.0 * mean).exp())));
        Self { mean, logging, target }
    }

    /// What the target policy is worth: session effects have mean zero.
    fn value(&self) -> f64 {
        let domain = |d: usize| (0..MODELS).map(|a| self.target[d][a] * self.mean[d][a]).sum::<f64>();
        (0..DOMAINS).map(domain).sum::<f64>() / DOMAINS as f64
    }

    /// Sessions of one to ten decisions; with the domain of each.
    fn log(&self, rounds: usize, rng: &mut ChaCha8Rng) -> Vec<(TableRow, Logged)> {
        let mut log = Vec::with_capacity(rounds);
        let mut session = 0;
        while log.len() < rounds {
            let effect = rng.random_range(-SESSION_EFFECT..SESSION_EFFECT);
            for _ in 0..rng.random_range(1..=10).min(rounds - log.len()) {
                let cell = rng.random_range(0..DOMAINS);
                let mut left: f64 = rng.random();
                let probabilities = &self.logging[cell];
                let chosen = probabilities.iter().position(|p| {
                    left -= p;
                    left < 0.0
                });
                let action = chosen.unwrap_or(MODELS - 1);
                let good = rng.random_bool(self.mean[cell][action] + effect);
                let reward = f64::from(u8::from(good));
                let row = Logged {
                    propensity: probabilities[action],
                    reward,
                    target_probability: self.target[cell][action],
                    q_hat_logged: 0.0,
                    q_hat_policy: 0.0,
                    unsupported_mass: Some(0.0),
                    cluster: session,
                };
                log.push((TableRow { cell, action, reward: Some(reward), cluster: session, weight: 1.0 }, row));
            }
            session += 1;
        }
        log
    }
}

fn normalised(weights: [f64; MODELS]) -> [f64; MODELS] {
    let sum: f64 = weights.iter().sum();
    weights.map(|weight| weight / sum)
}

/// The reward model's guesses, each from the folds that the row's session is not in.
fn fill_guesses(world: &World, log: &mut [(TableRow, Logged)]) {
    let table: Vec<TableRow> = log.iter().map(|(table_row, _)| *table_row).collect();
    let tables = cross_fitted_table(&table, DOMAINS, MODELS, FOLDS);
    for (TableRow { cell, action, cluster, .. }, row) in log {
        let guesses = &tables[fold_of(*cluster, FOLDS)][*cell * MODELS..(*cell + 1) * MODELS];
        row.q_hat_logged = guesses[*action];
        row.q_hat_policy = world.target[*cell].iter().zip(guesses).map(|(p, q)| p * q).sum();
    }
}
