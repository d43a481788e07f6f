//! From samples and a target policy to an off-policy evaluation.

use std::collections::HashMap;

use weir_policy_runtime::{Policy, PolicySpec};

use crate::baselines::{Domains, Target, best_models};
use crate::draws::drawn_at;
use crate::error::Result;
use crate::ope::{
    self, ConfidenceSequence, Estimate, EvaluationConfig, Logged, ProgressiveTable, PseudoOutcome, SequenceConfig,
    TableRow, Verdict, cross_fitted_table, fold_of,
};
use crate::outcome::{Outcome, Part};
use crate::report::{Comparison, DataSummary, Guardrail, HeldAgainst, KeptShare, Lineup, PartJudged, Standing};
use crate::train::split;
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
/// single model and the best model per domain are chosen on other clusters than everything is judged on, so that no line
/// of the comparison has seen its own exam: on those that the policy was trained on, where `holdout_share` says which
/// these are (of all clusters, from 0 to 1, by [`crate::is_holdout`]), and else on one half of all.
///
/// # Errors
/// When a policy cannot score a logged decision.
pub fn evaluate_policy(
    set: &TrainingSet,
    policy: &Policy,
    in_force: Option<PolicyInForce<'_>>,
    outcome: &Outcome,
    config: &EvaluationConfig,
    holdout_share: Option<f64>,
) -> Result<Lineup> {
    let set = aligned(set, policy);
    let (train, holdout) = match holdout_share {
        Some(share) => split(&set.samples, share),
        None => halves(&set.samples),
    };
    let config = explored(config, settled_floor(policy.spec()), policy.actions().len(), in_force);
    lineup(&set, &Target::learned(policy, &set.actions), in_force, (&train, &holdout), outcome, &config)
}

/// The floor of the models that are not on probation: what these take is taken from it too.
pub(crate) fn settled_floor(spec: &PolicySpec) -> f64 {
    let shares: f64 = spec.probation.iter().map(|model| model.share).sum();
    (1.0 - shares) * spec.exploration.floor
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
        limits = limits.for_floor(settled_floor(policy.spec()), policy.actions().len());
    }
    EvaluationConfig { limits, ..config.clone() }
}

/// The set with its actions in the policy's order, those that the policy does not know after them.
pub(crate) fn aligned(set: &TrainingSet, policy: &Policy) -> TrainingSet {
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

/// Judges `candidate`, the policy in force and the baselines on the samples at `holdout`, by `outcome` and by each of its parts;
/// baselines are chosen on those at `train`.
pub(crate) fn lineup(
    set: &TrainingSet,
    candidate: &Target<'_>,
    in_force: Option<PolicyInForce<'_>>,
    (train, holdout): (&[usize], &[usize]),
    outcome: &Outcome,
    config: &EvaluationConfig,
) -> Result<Lineup> {
    let config = &EvaluationConfig { margin: config.margin.max(outcome.margin), ..config.clone() };
    let actions = set.actions.len();
    let (best_single, best_by_domain) = best_models(&set.samples, train, actions, outcome);
    let draws = Draws { set, holdout, drawn_at: drawn_at(&set.samples) };
    let exam = Exam::new(&draws, |sample| outcome.value(sample));
    let named = |name: &str, target: &Target<'_>| -> Result<Comparison> {
        let rows = exam.rows(&draws.of(target)?, config);
        Ok(Comparison { name: name.to_owned(), evaluation: ope::evaluate(&rows, config) })
    };
    let of_candidate = draws.of(candidate)?;
    let of_force =
        in_force.map(|PolicyInForce { policy, .. }| draws.of(&Target::learned(policy, &set.actions))).transpose()?;
    let rows = exam.rows(&of_candidate, config);
    let mut candidate = ope::evaluate(&rows, config);
    // Probabilities that were estimated from the whole log are not those that each moment knew.
    let is_sound = candidate.estimates.is_some() && exam.summary.estimated_propensities == 0;
    let quality_at_any_time = is_sound.then(|| exam.quality_at_any_time(&of_candidate, config)).flatten();
    let in_force = in_force.zip(of_force.as_ref()).map(|(PolicyInForce { id, .. }, of_force)| {
        let other = exam.rows(of_force, config);
        let evaluation = ope::evaluate(&other, config);
        let both = candidate.estimates.is_some() && evaluation.estimates.is_some();
        let difference = both.then(|| ope::paired_difference(&rows, &other, config));
        HeldAgainst { policy_id: id.to_owned(), evaluation, difference }
    });
    if let Some(HeldAgainst { evaluation, difference, .. }) = &in_force {
        candidate = ope::held_against(candidate, evaluation, difference.as_ref(), config);
    }
    let mut parts = Vec::new();
    if candidate.estimates.is_some() {
        let judged = |part| part_judged(&draws, part, outcome, (&of_candidate, of_force.as_ref()), config);
        parts.extend(outcome.parts().map(judged));
        candidate.verdict = within_guardrails(candidate.verdict, &parts);
    }
    Ok(Lineup {
        logging: ope::logging_value(&rows, config),
        quality_at_any_time: quality_at_any_time.filter(|_| candidate.estimates.is_some()),
        candidate,
        parts,
        in_force,
        baselines: vec![
            named("uniform", &Target::Uniform)?,
            named(&format!("best single model ({})", first_model(set, &best_single)), &best_single)?,
            named("best model per domain", &best_by_domain)?,
        ],
        data: exam.summary,
    })
}

/// Judges a target and holds it against another, on the samples at `holdout`.
pub(crate) fn beside(
    set: &TrainingSet,
    (target, parent): (&Target<'_>, &Target<'_>),
    holdout: &[usize],
    outcome: &Outcome,
    config: &EvaluationConfig,
) -> Result<(ope::Evaluation, Option<Estimate>)> {
    let draws = Draws { set, holdout, drawn_at: drawn_at(&set.samples) };
    let exam = Exam::new(&draws, |sample| outcome.value(sample));
    let (rows, others) = (exam.rows(&draws.of(target)?, config), exam.rows(&draws.of(parent)?, config));
    let (evaluation, other) = (ope::evaluate(&rows, config), ope::evaluate(&others, config));
    let both = evaluation.estimates.is_some() && other.estimates.is_some();
    Ok((evaluation, both.then(|| ope::paired_difference(&rows, &others, config))))
}

/// One part of the outcome, in its own unit: on the decisions whose part was observed. A guardrail is held against the policy in force,
/// where there is one, else against what was logged.
fn part_judged(
    draws: &Draws<'_>,
    part: Part,
    outcome: &Outcome,
    (candidate, in_force): (&Choices, Option<&Choices>),
    config: &EvaluationConfig,
) -> PartJudged {
    let exam = Exam::new(draws, |sample| part.of(sample));
    let rows = exam.rows(candidate, config);
    let found = ope::evaluate(&rows, config).estimates;
    let against = match in_force {
        Some(in_force) => {
            let other = exam.rows(in_force, config);
            let is_supported = found.is_some() && ope::evaluate(&other, config).estimates.is_some();
            is_supported.then(|| ope::paired_difference(&rows, &other, config))
        }
        None => found.as_ref().map(|found| found.difference),
    };
    let guardrail = outcome.guardrails.get(&part).map(|&worse_by_at_most| Guardrail {
        worse_by_at_most,
        against,
        standing: match against {
            // Worse is less quality, and more of what costs.
            Some(Estimate { low, high, .. }) => {
                let (least, most) = if part.sign() > 0.0 { (-high, -low) } else { (low, high) };
                // Two equal policies differ by what summing leaves.
                let rounding = found.as_ref().map_or(0.0, |found| ope::rounding(&[found.dr, found.logging]));
                if most <= worse_by_at_most + rounding {
                    Standing::Kept
                } else if least > worse_by_at_most + rounding {
                    Standing::Broken
                } else {
                    Standing::NotShown
                }
            }
            None => Standing::NotShown,
        },
    });
    PartJudged {
        part,
        weight: outcome.weight(part),
        decisions: rows.len(),
        logging: found.as_ref().map(|found| found.logging),
        value: found.as_ref().map(|found| found.dr),
        difference: found.map(|found| found.difference),
        guardrail,
    }
}

/// A policy is better only if every guardrail is shown to be kept, and worse if one is shown to be broken.
fn within_guardrails(verdict: Verdict, parts: &[PartJudged]) -> Verdict {
    let stands =
        |standing| parts.iter().filter_map(|part| part.guardrail.as_ref()).any(|rail| rail.standing == standing);
    if stands(Standing::Broken) {
        return Verdict::Worse;
    }
    if verdict == Verdict::Better && stands(Standing::NotShown) {
        return Verdict::NotShown;
    }
    verdict
}

fn first_model<'a>(set: &'a TrainingSet, target: &Target<'_>) -> &'a str {
    match target {
        Target::Ranking(ranking) => ranking.first().map_or("none", |&action| set.actions[action].model.as_str()),
        _ => "none",
    }
}

/// Held-out decisions, and what each was drawn from.
struct Draws<'a> {
    set: &'a TrainingSet,
    holdout: &'a [usize],
    /// For each sample, the one whose context its model was drawn from.
    drawn_at: Vec<usize>,
}

/// A target's probabilities of every action for each held-out decision, one after the other.
struct Choices(Vec<f64>);

impl Draws<'_> {
    /// What `target` would do at each: from the context that its model was drawn from.
    fn of(&self, target: &Target<'_>) -> Result<Choices> {
        let actions = self.set.actions.len();
        let mut scratch = weir_policy_runtime::Scratch::default();
        let mut all = vec![0.0; self.holdout.len() * actions];
        for (&index, probabilities) in self.holdout.iter().zip(all.chunks_exact_mut(actions)) {
            let drawn_at = &self.set.samples[self.drawn_at[index]];
            target.probabilities(drawn_at, drawn_at.allowed.as_deref(), &mut scratch, probabilities)?;
        }
        Ok(Choices(all))
    }
}

/// The decisions that can be evaluated, each with its cross-fitted rewards.
struct Exam<'a> {
    samples: Vec<&'a Sample>,
    /// Where each stands among the held-out decisions.
    places: Vec<usize>,
    rewards: Vec<f64>,
    clusters: Vec<usize>,
    cells: Vec<usize>,
    tables: Vec<Vec<f64>>,
    /// Actions that some decision here shows the reward of.
    seen: Vec<bool>,
    summary: DataSummary,
}

impl<'a> Exam<'a> {
    fn new(draws: &Draws<'a>, reward_of: impl Fn(&Sample) -> Option<f64>) -> Self {
        let set = draws.set;
        let actions = set.actions.len();
        let domains = Domains::new(&set.samples);
        let mut summary = DataSummary { tables: set.tables.clone(), ..DataSummary::default() };
        let mut usable = Vec::new();
        let mut kept = Vec::new();
        for (place, &index) in draws.holdout.iter().enumerate() {
            let sample = &set.samples[index];
            let reward = reward_of(sample);
            let consistent = sample.draw_is_consistent();
            summary.decisions += 1;
            summary.without_propensity += usize::from(sample.propensity.is_none());
            summary.inconsistent_propensity += usize::from(!consistent);
            summary.fallbacks += usize::from(!sample.executed_as_intended);
            summary.without_reward += usize::from(reward.is_none());
            summary.unsettled += usize::from(sample.is_unsettled);
            if sample.propensity.is_none() || !consistent {
                continue;
            }
            let reward = reward.filter(|_| sample.executed_as_intended);
            kept.push((index, reward.is_some()));
            if let Some(reward) = reward {
                usable.push((place, index, reward));
                summary.estimated_propensities += usize::from(sample.propensity_is_estimated);
                summary.kept_for_session += usize::from(draws.drawn_at[index] != index);
            }
        }
        summary.evaluated = usable.len();
        summary.kept_by_model = kept_by_model(set, &kept);
        let clusters = dense_clusters(&set.samples, usable.iter().map(|(_, index, _)| *index));
        let samples: Vec<&Sample> = usable.iter().map(|(_, index, _)| &set.samples[*index]).collect();
        let rewards: Vec<f64> = usable.iter().map(|(.., reward)| *reward).collect();
        let places = usable.iter().map(|(place, ..)| *place).collect();
        let cells: Vec<usize> = samples.iter().map(|sample| domains.cell(sample)).collect();
        let mut seen = vec![false; actions];
        samples.iter().for_each(|sample| seen[sample.action] = true);
        let rows: Vec<TableRow> = (0..samples.len())
            .map(|row| TableRow {
                cell: cells[row],
                action: samples[row].action,
                reward: Some(rewards[row]),
                cluster: clusters[row],
                weight: 1.0,
            })
            .collect();
        let tables = cross_fitted_table(&rows, domains.count(), actions, FOLDS);
        Self { samples, places, rewards, clusters, cells, tables, seen, summary }
    }

    /// The decisions as a target with these choices would have made them.
    fn rows(&self, choices: &Choices, config: &EvaluationConfig) -> Vec<Logged> {
        let row = |(row, sample): (usize, &&Sample)| {
            let probabilities = self.probabilities(choices, row);
            let actions = probabilities.len();
            let table = &self.tables[fold_of(self.clusters[row], FOLDS)];
            let q_hat = &table[self.cells[row] * actions..(self.cells[row] + 1) * actions];
            Logged {
                propensity: sample.propensity.unwrap_or(f64::NAN),
                reward: self.rewards[row],
                target_probability: probabilities[sample.action],
                q_hat_logged: q_hat[sample.action],
                q_hat_policy: probabilities.iter().zip(q_hat).map(|(p, q)| p * q).sum(),
                unsupported_mass: Some(self.unsupported(probabilities, sample, config.limits.propensity_floor)),
                cluster: self.clusters[row],
            }
        };
        self.samples.iter().enumerate().map(row).collect()
    }

    fn probabilities<'c>(&self, choices: &'c Choices, row: usize) -> &'c [f64] {
        let actions = self.seen.len();
        &choices.0[self.places[row] * actions..(self.places[row] + 1) * actions]
    }

    /// The target's quality a session minus what was earned, at every moment of these logs together: for logs whose policies were changed
    /// because of what they showed. Of quality, since its range is known.
    fn quality_at_any_time(&self, choices: &Choices, config: &EvaluationConfig) -> Option<Estimate> {
        let actions = self.seen.len();
        let sequence_config = SequenceConfig { confidence: config.confidence, ..SequenceConfig::default() };
        let mut sequence = ConfidenceSequence::of_difference(sequence_config);
        let cells = self.cells.iter().max().map_or(0, |cell| cell + 1);
        let mut table = ProgressiveTable::new(cells, actions, 0.5);
        let mut guesses = Vec::new();
        let (mut of_target, mut earned) = (Vec::new(), Vec::new());
        for rows in self.rows_by_cluster() {
            of_target.clear();
            earned.clear();
            for &row in &rows {
                let (sample, probabilities) = (self.samples[row], self.probabilities(choices, row));
                let (Some(quality), Some(propensity)) = (sample.quality, sample.propensity) else { continue };
                table.guess(self.cells[row], &mut guesses);
                of_target.push(match &sample.logged_distribution {
                    Some(logged) => {
                        PseudoOutcome::of(sample.action, quality, probabilities, logged, &guesses, &sequence_config)
                    }
                    None => {
                        let weight = probabilities[sample.action] / propensity;
                        PseudoOutcome::without_guesses(weight, quality, &sequence_config)
                    }
                });
                earned.push(PseudoOutcome::of_logging(quality, &sequence_config));
            }
            sequence.push_pair(&of_target, &earned);
            for &row in &rows {
                if let Some(quality) = self.samples[row].quality {
                    table.learn(self.cells[row], self.samples[row].action, quality);
                }
            }
        }
        sequence.interval()
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
pub(crate) fn dense_clusters(samples: &[Sample], rows: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    rows.map(|row| {
        let next = seen.len();
        *seen.entry(samples[row].cluster.as_str()).or_insert(next)
    })
    .collect()
}
