//! From samples and a target policy to an off-policy evaluation.

use std::collections::HashMap;

use weir_policy_runtime::{Objective, Policy};

use crate::baselines::{Domains, Target, best_models, observed_utility};
use crate::error::Result;
use crate::ope::{self, EvaluationConfig, Logged, TableRow, cross_fitted_table, fold_of};
use crate::report::{Comparison, DataSummary, Lineup};
use crate::training_set::{Sample, TrainingSet};

/// Folds of the cross-fitted reward table.
const FOLDS: usize = 5;

/// Evaluates a policy that was learned elsewhere on logs that it has not seen, beside the baselines.
///
/// The doubly robust reward model is a table of mean utilities by (domain, action), cross-fitted by cluster. The best
/// single model and the best model per domain are chosen on one half of the clusters and everything is judged on the
/// other half, so that no line of the comparison has seen its own exam.
///
/// Decisions for models that the policy does not know are left out.
///
/// # Errors
/// When the policy cannot score a logged decision.
pub fn evaluate_policy(set: &TrainingSet, policy: &Policy, config: &EvaluationConfig) -> Result<Lineup> {
    let set = aligned(set, policy);
    let (train, holdout) = halves(&set.samples);
    lineup(&set, &Target::Learned(policy), (&train, &holdout), &policy.spec().objective, config)
}

/// The set with its actions in the policy's order; decisions for models that the policy does not know are dropped.
fn aligned(set: &TrainingSet, policy: &Policy) -> TrainingSet {
    let place: Vec<Option<usize>> = set
        .actions
        .iter()
        .map(|action| policy.actions().iter().position(|known| known.model == action.model))
        .collect();
    let width = policy.actions().len();
    let samples = set.samples.iter().filter_map(|sample| {
        let mut sample = sample.clone();
        sample.action = place[sample.action]?;
        sample.allowed = sample.allowed.map(|flags| rearranged(&flags, &place, width, false));
        sample.logged_distribution = sample.logged_distribution.map(|p| rearranged(&p, &place, width, 0.0));
        Some(sample)
    });
    TrainingSet { actions: policy.actions().to_vec(), samples: samples.collect(), tables: set.tables.clone() }
}

fn rearranged<T: Copy>(values: &[T], place: &[Option<usize>], width: usize, absent: T) -> Vec<T> {
    let mut out = vec![absent; width];
    for (value, place) in values.iter().zip(place) {
        if let Some(place) = place {
            out[*place] = *value;
        }
    }
    out
}

fn halves(samples: &[Sample]) -> (Vec<usize>, Vec<usize>) {
    let clusters = dense_clusters(samples, 0..samples.len());
    (0..samples.len()).partition(|&index| fold_of(clusters[index], 2) == 0)
}

/// Judges `candidate` and the baselines on the samples at `holdout`; baselines are chosen on those at `train`.
pub(crate) fn lineup(
    set: &TrainingSet,
    candidate: &Target<'_>,
    (train, holdout): (&[usize], &[usize]),
    objective: &Objective,
    config: &EvaluationConfig,
) -> Result<Lineup> {
    let actions = set.actions.len();
    let (best_single, best_by_domain) = best_models(&set.samples, train, actions, objective);
    let exam = Exam::new(set, holdout, objective);
    let evaluated = |target: &Target<'_>| exam.evaluate(target, config);
    let named = |name: &str, target: &Target<'_>| -> Result<Comparison> {
        Ok(Comparison { name: name.to_owned(), evaluation: evaluated(target)? })
    };
    Ok(Lineup {
        logging: ope::logging_value(&exam.rows(&Target::Uniform, config)?, config),
        candidate: evaluated(candidate)?,
        baselines: vec![
            named("uniform", &Target::Uniform)?,
            named(&format!("best single model ({})", first_model(set, &best_single)), &best_single)?,
            named("best model per domain", &best_by_domain)?,
        ],
        data: exam.summary,
    })
}

fn first_model<'a>(set: &'a TrainingSet, target: &Target<'_>) -> &'a str {
    match target {
        Target::Ranking(ranking) => ranking.first().map_or("none", |&action| set.actions[action].model.as_str()),
        _ => "none",
    }
}

/// The decisions that can be evaluated, each with its cross-fitted utilities.
struct Exam<'a> {
    samples: Vec<&'a Sample>,
    rewards: Vec<f64>,
    clusters: Vec<usize>,
    cells: Vec<usize>,
    tables: Vec<Vec<f64>>,
    actions: usize,
    summary: DataSummary,
}

impl<'a> Exam<'a> {
    fn new(set: &'a TrainingSet, holdout: &[usize], objective: &Objective) -> Self {
        let actions = set.actions.len();
        let domains = Domains::new(&set.samples);
        let mut summary = DataSummary { tables: set.tables.clone(), ..DataSummary::default() };
        let mut usable = Vec::new();
        for &index in holdout {
            let sample = &set.samples[index];
            let reward = observed_utility(sample, objective);
            summary.decisions += 1;
            summary.without_propensity += usize::from(sample.propensity.is_none());
            summary.fallbacks += usize::from(!sample.executed_as_intended);
            summary.without_reward += usize::from(reward.is_none());
            if let (Some(reward), true, true) = (reward, sample.propensity.is_some(), sample.executed_as_intended) {
                usable.push((index, reward));
            }
        }
        summary.evaluated = usable.len();
        let clusters = dense_clusters(&set.samples, usable.iter().map(|(index, _)| *index));
        let samples: Vec<&Sample> = usable.iter().map(|(index, _)| &set.samples[*index]).collect();
        let rewards: Vec<f64> = usable.iter().map(|(_, reward)| *reward).collect();
        let cells: Vec<usize> = samples.iter().map(|sample| domains.cell(sample)).collect();
        let rows: Vec<TableRow> = (0..samples.len())
            .map(|row| TableRow {
                cell: cells[row],
                action: samples[row].action,
                reward: Some(rewards[row]),
                cluster: clusters[row],
            })
            .collect();
        let tables = cross_fitted_table(&rows, domains.count(), actions, FOLDS);
        Self { samples, rewards, clusters, cells, tables, actions, summary }
    }

    fn evaluate(&self, target: &Target<'_>, config: &EvaluationConfig) -> Result<ope::Evaluation> {
        Ok(ope::evaluate(&self.rows(target, config)?, config))
    }

    /// The decisions as `target` would have made them.
    fn rows(&self, target: &Target<'_>, config: &EvaluationConfig) -> Result<Vec<Logged>> {
        let mut scratch = weir_policy_runtime::Scratch::default();
        let mut probabilities = vec![0.0; self.actions];
        let everything = vec![true; self.actions];
        let mut rows = Vec::with_capacity(self.samples.len());
        for (row, sample) in self.samples.iter().enumerate() {
            let allowed = sample.allowed.as_deref().unwrap_or(&everything);
            target.probabilities(sample, allowed, &mut scratch, &mut probabilities)?;
            let table = &self.tables[fold_of(self.clusters[row], FOLDS)];
            let q_hat = &table[self.cells[row] * self.actions..(self.cells[row] + 1) * self.actions];
            rows.push(Logged {
                propensity: sample.propensity.unwrap_or(f64::NAN),
                reward: self.rewards[row],
                target_probability: probabilities[sample.action],
                q_hat_logged: q_hat[sample.action],
                q_hat_policy: probabilities.iter().zip(q_hat).map(|(p, q)| p * q).sum(),
                unsupported_mass: sample
                    .logged_distribution
                    .as_ref()
                    .map(|logged| unsupported_mass(&probabilities, logged, config.limits.propensity_floor)),
                cluster: self.clusters[row],
            });
        }
        Ok(rows)
    }
}

/// The target's probability of actions whose logged probability lies under the floor.
pub(crate) fn unsupported_mass(target: &[f64], logged: &[f64], floor: f64) -> f64 {
    target.iter().zip(logged).filter(|(_, logged)| **logged < floor).map(|(target, _)| target).sum()
}

/// Clusters of the samples at `rows` as dense indices, in order of appearance.
fn dense_clusters(samples: &[Sample], rows: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    rows.map(|row| {
        let next = seen.len();
        *seen.entry(samples[row].cluster.as_str()).or_insert(next)
    })
    .collect()
}
