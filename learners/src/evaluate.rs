//! From samples and a target policy to an off-policy evaluation.

use std::collections::HashMap;

use weir_policy_runtime::{Objective, Policy};

use crate::baselines::{Domains, Target, best_models, observed_utility};
use crate::draws::drawn_at;
use crate::error::Result;
use crate::ope::{
    self, Bracket, ConfidenceSequence, Estimate, EvaluationConfig, Logged, ProgressiveTable, SequenceConfig, TableRow,
    cross_fitted_table, fold_of,
};
use crate::report::{Comparison, DataSummary, HeldAgainst, KeptShare, Lineup};
use crate::training_set::{Sample, TrainingSet};

/// Folds of the cross-fitted reward table.
const FOLDS: usize = 5;
/// Confidence of the intervals of what was kept; that two of them do not meet happens by chance far less often yet.
const KEPT_CONFIDENCE: f64 = 0.99;

/// The policy that decides now: what a candidate has to beat.
#[derive(Debug, Clone, Copy)]
pub struct PolicyInForce<'a> {
    /// Its id.
    pub id: &'a str,
    /// What it would have done.
    pub policy: &'a Policy,
}

/// Evaluates a policy that was learned elsewhere on logs that it has not seen, beside the baselines and, where there is
/// one, the policy in force.
///
/// The doubly robust reward model is a table of mean utilities by (domain, action), cross-fitted by cluster. The best
/// single model and the best model per domain are chosen on one half of the clusters and everything is judged on the
/// other half, so that no line of the comparison has seen its own exam.
///
/// # Errors
/// When a policy cannot score a logged decision.
pub fn evaluate_policy(
    set: &TrainingSet,
    policy: &Policy,
    in_force: Option<PolicyInForce<'_>>,
    config: &EvaluationConfig,
) -> Result<Lineup> {
    let set = aligned(set, policy);
    let (train, holdout) = halves(&set.samples);
    let config = explored(config, policy.spec().exploration.floor, policy.actions().len(), in_force);
    let objective = &policy.spec().objective;
    lineup(&set, &Target::learned(policy, &set.actions), in_force, (&train, &holdout), objective, &config)
}

/// The configuration for logs of policies with such an exploration floor, and of the policy in force.
pub(crate) fn explored(
    config: &EvaluationConfig,
    floor: f64,
    actions: usize,
    in_force: Option<PolicyInForce<'_>>,
) -> EvaluationConfig {
    let mut limits = config.limits.clone().for_floor(floor, actions);
    if let Some(PolicyInForce { policy, .. }) = in_force {
        limits = limits.for_floor(policy.spec().exploration.floor, policy.actions().len());
    }
    EvaluationConfig { limits, ..config.clone() }
}

/// The set with its actions in the policy's order, those that the policy does not know after them.
fn aligned(set: &TrainingSet, policy: &Policy) -> TrainingSet {
    let mut actions = policy.actions().to_vec();
    for action in &set.actions {
        if !actions.iter().any(|known| known.model == action.model) {
            actions.push(action.clone());
        }
    }
    let index = |model: &str| actions.iter().position(|known| known.model == model);
    let place: Vec<usize> = set.actions.iter().filter_map(|action| index(&action.model)).collect();
    let width = actions.len();
    let moved = |sample: &Sample| Sample {
        action: place[sample.action],
        intended: sample.intended.map(|action| place[action]),
        allowed: sample.allowed.as_ref().map(|flags| rearranged(flags, &place, width, false)),
        logged_distribution: sample.logged_distribution.as_ref().map(|p| rearranged(p, &place, width, 0.0)),
        ..sample.clone()
    };
    let samples = set.samples.iter().map(moved).collect();
    TrainingSet { actions, samples, tables: set.tables.clone() }
}

fn rearranged<T: Copy>(values: &[T], place: &[usize], width: usize, absent: T) -> Vec<T> {
    let mut out = vec![absent; width];
    values.iter().zip(place).for_each(|(value, place)| out[*place] = *value);
    out
}

fn halves(samples: &[Sample]) -> (Vec<usize>, Vec<usize>) {
    let clusters = dense_clusters(samples, 0..samples.len());
    (0..samples.len()).partition(|&index| fold_of(clusters[index], 2) == 0)
}

/// Judges `candidate`, the policy in force and the baselines on the samples at `holdout`; baselines are chosen on those
/// at `train`.
pub(crate) fn lineup(
    set: &TrainingSet,
    candidate: &Target<'_>,
    in_force: Option<PolicyInForce<'_>>,
    (train, holdout): (&[usize], &[usize]),
    objective: &Objective,
    config: &EvaluationConfig,
) -> Result<Lineup> {
    let actions = set.actions.len();
    let (best_single, best_by_domain) = best_models(&set.samples, train, actions, objective);
    let exam = Exam::new(set, holdout, objective);
    let evaluated = |target: &Target<'_>| exam.rows(target, config).map(|rows| ope::evaluate(&rows, config));
    let named = |name: &str, target: &Target<'_>| -> Result<Comparison> {
        Ok(Comparison { name: name.to_owned(), evaluation: evaluated(target)? })
    };
    let rows = exam.rows(candidate, config)?;
    let quality_at_any_time = exam.quality_at_any_time(candidate, config)?;
    let mut candidate = ope::evaluate(&rows, config);
    let in_force = in_force
        .map(|PolicyInForce { id, policy }| -> Result<HeldAgainst> {
            let other = exam.rows(&Target::learned(policy, &set.actions), config)?;
            let evaluation = ope::evaluate(&other, config);
            let both = candidate.estimates.is_some() && evaluation.estimates.is_some();
            let difference = both.then(|| ope::paired_difference(&rows, &other, config));
            Ok(HeldAgainst { policy_id: id.to_owned(), evaluation, difference })
        })
        .transpose()?;
    if let Some(HeldAgainst { evaluation, difference, .. }) = &in_force {
        candidate = ope::held_against(candidate, evaluation, difference.as_ref(), config);
    }
    Ok(Lineup {
        logging: ope::logging_value(&exam.rows(&Target::Uniform, config)?, config),
        quality_at_any_time: quality_at_any_time.filter(|_| candidate.estimates.is_some()),
        candidate,
        in_force,
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
    /// For each, the decision whose context its model was drawn from.
    drawn_at: Vec<&'a Sample>,
    rewards: Vec<f64>,
    clusters: Vec<usize>,
    cells: Vec<usize>,
    tables: Vec<Vec<f64>>,
    /// Actions that some decision here shows the reward of.
    seen: Vec<bool>,
    summary: DataSummary,
}

impl<'a> Exam<'a> {
    fn new(set: &'a TrainingSet, holdout: &[usize], objective: &Objective) -> Self {
        let actions = set.actions.len();
        let domains = Domains::new(&set.samples);
        let drawn_at = drawn_at(&set.samples);
        let mut summary = DataSummary { tables: set.tables.clone(), ..DataSummary::default() };
        let mut usable = Vec::new();
        let mut kept = Vec::new();
        for &index in holdout {
            let sample = &set.samples[index];
            let reward = observed_utility(sample, objective);
            let consistent = sample.draw_is_consistent();
            summary.decisions += 1;
            summary.without_propensity += usize::from(sample.propensity.is_none());
            summary.inconsistent_propensity += usize::from(!consistent);
            summary.fallbacks += usize::from(!sample.executed_as_intended);
            summary.without_reward += usize::from(reward.is_none());
            if sample.propensity.is_none() || !consistent {
                continue;
            }
            let reward = reward.filter(|_| sample.executed_as_intended);
            kept.push((index, reward.is_some()));
            if let Some(reward) = reward {
                usable.push((index, reward));
                summary.estimated_propensities += usize::from(sample.propensity_is_estimated);
                summary.kept_for_session += usize::from(drawn_at[index] != index);
            }
        }
        summary.evaluated = usable.len();
        summary.kept_by_model = kept_by_model(set, &kept);
        let clusters = dense_clusters(&set.samples, usable.iter().map(|(index, _)| *index));
        let samples: Vec<&Sample> = usable.iter().map(|(index, _)| &set.samples[*index]).collect();
        let drawn_at = usable.iter().map(|(index, _)| &set.samples[drawn_at[*index]]).collect();
        let rewards: Vec<f64> = usable.iter().map(|(_, reward)| *reward).collect();
        let cells: Vec<usize> = samples.iter().map(|sample| domains.cell(sample)).collect();
        let mut seen = vec![false; actions];
        samples.iter().for_each(|sample| seen[sample.action] = true);
        let rows: Vec<TableRow> = (0..samples.len())
            .map(|row| TableRow {
                cell: cells[row],
                action: samples[row].action,
                reward: Some(rewards[row]),
                cluster: clusters[row],
            })
            .collect();
        let tables = cross_fitted_table(&rows, domains.count(), actions, FOLDS);
        Self { samples, drawn_at, rewards, clusters, cells, tables, seen, summary }
    }

    /// The decisions as `target` would have made them: each from the context that its model was drawn from.
    fn rows(&self, target: &Target<'_>, config: &EvaluationConfig) -> Result<Vec<Logged>> {
        let actions = self.seen.len();
        let mut scratch = weir_policy_runtime::Scratch::default();
        let mut probabilities = vec![0.0; actions];
        let mut rows = Vec::with_capacity(self.samples.len());
        for (row, sample) in self.samples.iter().enumerate() {
            let drawn_at = self.drawn_at[row];
            target.probabilities(drawn_at, drawn_at.allowed.as_deref(), &mut scratch, &mut probabilities)?;
            let table = &self.tables[fold_of(self.clusters[row], FOLDS)];
            let q_hat = &table[self.cells[row] * actions..(self.cells[row] + 1) * actions];
            rows.push(Logged {
                propensity: sample.propensity.unwrap_or(f64::NAN),
                reward: self.rewards[row],
                target_probability: probabilities[sample.action],
                q_hat_logged: q_hat[sample.action],
                q_hat_policy: probabilities.iter().zip(q_hat).map(|(p, q)| p * q).sum(),
                unsupported_mass: Some(self.unsupported(&probabilities, sample, config.limits.propensity_floor)),
                cluster: self.clusters[row],
            });
        }
        Ok(rows)
    }

    /// The target's quality a session minus what was earned, at every moment of these logs together: for logs whose policies were changed
    /// because of what they showed. Of quality, since its range is known.
    fn quality_at_any_time(&self, target: &Target<'_>, config: &EvaluationConfig) -> Result<Option<Estimate>> {
        let actions = self.seen.len();
        let sequence_config = SequenceConfig { confidence: config.confidence, ..SequenceConfig::default() };
        let mut sequence = ConfidenceSequence::of_difference(sequence_config);
        let cells = self.cells.iter().max().map_or(0, |cell| cell + 1);
        let mut table = ProgressiveTable::new(cells, actions, 0.5);
        let mut scratch = weir_policy_runtime::Scratch::default();
        let (mut probabilities, mut guesses) = (vec![0.0; actions], Vec::new());
        let (mut of_target, mut earned) = (Vec::new(), Vec::new());
        for rows in self.rows_by_cluster() {
            of_target.clear();
            earned.clear();
            for &row in &rows {
                let (sample, drawn_at) = (self.samples[row], self.drawn_at[row]);
                let (Some(quality), Some(propensity)) = (sample.quality, sample.propensity) else { continue };
                target.probabilities(drawn_at, drawn_at.allowed.as_deref(), &mut scratch, &mut probabilities)?;
                table.guess(self.cells[row], &mut guesses);
                of_target.push(match &sample.logged_distribution {
                    Some(logged) => {
                        Bracket::of(sample.action, quality, &probabilities, logged, &guesses, &sequence_config)
                    }
                    None => {
                        let weight = probabilities[sample.action] / propensity;
                        Bracket::without_guesses(weight, quality, &sequence_config)
                    }
                });
                earned.push(Bracket::of_logging(quality, &sequence_config));
            }
            sequence.push_pair(&of_target, &earned);
            for &row in &rows {
                if let Some(quality) = self.samples[row].quality {
                    table.learn(self.cells[row], self.samples[row].action, quality);
                }
            }
        }
        Ok(sequence.interval())
    }

    /// Rows of each cluster, in the order in which clusters begin.
    fn rows_by_cluster(&self) -> Vec<Vec<usize>> {
        let count = self.clusters.iter().max().map_or(0, |cluster| cluster + 1);
        let mut clusters = vec![Vec::new(); count];
        self.clusters.iter().enumerate().for_each(|(row, cluster)| clusters[*cluster].push(row));
        clusters
    }

    /// The target's probability of choices that this decision's log says nothing about: logged with less than the floor,
    /// never seen here, or of a model that no log names.
    fn unsupported(&self, target: &[f64], sample: &Sample, floor: f64) -> f64 {
        let nowhere = (1.0 - target.iter().sum::<f64>()).max(0.0);
        let unseen = target.iter().zip(&self.seen).filter(|(_, seen)| !**seen).map(|(p, _)| p).sum::<f64>();
        let rare = match &sample.logged_distribution {
            Some(logged) => {
                // An unseen action counts once.
                let logged: Vec<f64> =
                    logged.iter().zip(&self.seen).map(|(p, seen)| if *seen { *p } else { 1.0 }).collect();
                unsupported_mass(target, &logged, floor)
            }
            // Without the candidates' probabilities, E[w 1(p < floor)] is the mass on rarely logged choices.
            None => match sample.propensity {
                Some(propensity) if propensity < floor => target[sample.action] / propensity,
                _ => 0.0,
            },
        };
        nowhere + unseen + rare
    }
}

/// How much of what each model was chosen for can be judged, were it chosen for everything: decisions weighted by the
/// inverse of their propensities, so that a model is not blamed for the requests that it is chosen for.
fn kept_by_model(set: &TrainingSet, decisions: &[(usize, bool)]) -> Vec<KeptShare> {
    let clusters = dense_clusters(&set.samples, decisions.iter().map(|(index, _)| *index));
    let mut rows: Vec<Vec<Logged>> = vec![Vec::new(); set.actions.len()];
    for ((index, kept), cluster) in decisions.iter().zip(clusters) {
        let sample = &set.samples[*index];
        let Some((chosen, propensity)) = sample.chosen().zip(sample.propensity) else { continue };
        rows[chosen].push(Logged {
            propensity,
            reward: f64::from(u8::from(*kept)),
            target_probability: 1.0,
            q_hat_logged: 0.0,
            q_hat_policy: 0.0,
            unsupported_mass: None,
            cluster,
        });
    }
    let shares = set.actions.iter().zip(rows).filter(|(_, rows)| !rows.is_empty());
    shares
        .map(|(action, rows)| KeptShare {
            model: action.model.clone(),
            decisions: rows.len(),
            kept: ope::weighted_mean(&rows, KEPT_CONFIDENCE),
        })
        .collect()
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
