//! From a training set to a candidate: split, fit, train, judge.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weir_policy_runtime::{
    Exploration, Objective, Policy, PolicySpec, Posterior, Scratch, Strategy, Terms, sticky_uniform,
};

use crate::baselines::Target;
use crate::checkpoint::{Checkpoints, Training};
use crate::error::{LearnError, Result};
use crate::evaluate::{self, PolicyInForce, beside, explored, settled_floor};
use crate::exports::ExportSummary;
use crate::exports::vllm_sr::{self, DistilConfig};
use crate::feature_fit::fit_features;
use crate::learning::{Learned, Learning, NewModel};
use crate::network::runtime_network;
use crate::ope::EvaluationConfig;
use crate::outcome::{Outcome, Part};
use crate::report::{NextSupport, Report};
use crate::reward_model::{self, RewardModelConfig, RewardModelMetrics};
use crate::training_set::{Sample, TrainingSet};

/// How to learn a policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Seed of the starting weights and the batch order.
    pub seed: u64,
    /// What to maximise, and what to judge by.
    pub outcome: Outcome,
    /// γ of inverse-gap weighting; none takes `sqrt(K n)` for `K` actions and `n` training rows, the rate of SquareCB's
    /// regret bound (Foster and Rakhlin 2020, theorem 1) with its constant left out, and halves it until the policy's own
    /// logs would carry the next verdict, where some γ from 1 does that.
    pub gamma: Option<f64>,
    /// Share of decisions spread uniformly over the allowed models: the price of being able to evaluate the next one.
    pub floor: f64,
    /// How the policy is learned and how it draws.
    pub learning: Learning,
    /// Models that no log names yet.
    pub new_models: Vec<NewModel>,
    /// Share of the clusters kept for judging.
    pub holdout_share: f64,
    /// The reward model.
    pub reward_model: RewardModelConfig,
    /// How to judge.
    pub evaluation: EvaluationConfig,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            outcome: Objective { quality: 1.0, usd: 0.0 }.into(),
            gamma: None,
            floor: 0.05,
            learning: Learning::default(),
            new_models: Vec::new(),
            holdout_share: 0.3,
            reward_model: RewardModelConfig::default(),
            evaluation: EvaluationConfig::default(),
        }
    }
}

/// A trained policy and what is known of it; not yet a bundle.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// `policy.json`.
    pub spec: PolicySpec,
    /// `weights.safetensors`.
    pub weights: Vec<u8>,
    /// `posterior.safetensors`, where the strategy asks for one.
    pub posterior: Option<Vec<u8>>,
    /// The two, ready to score.
    pub policy: Policy,
    /// What it is worth, on clusters that it was not trained on.
    pub report: Report,
}

/// Trains a policy on part of the clusters of `set` and judges it on the rest, also against the policy in force.
///
/// # Errors
/// When there are fewer than two models or no decision with a reward, or the configuration makes no sense.
pub fn train_policy(set: &TrainingSet, config: &TrainConfig, in_force: Option<PolicyInForce<'_>>) -> Result<Candidate> {
    train_policy_from(set, config, in_force, None)
}

/// The same, from where an earlier training of the same data and settings was stopped.
///
/// # Errors
/// As [`train_policy`], and when a checkpoint cannot be written.
pub fn train_policy_from(
    set: &TrainingSet,
    config: &TrainConfig,
    in_force: Option<PolicyInForce<'_>>,
    checkpoints: Option<&Checkpoints>,
) -> Result<Candidate> {
    let training = Training { seed: config.seed, checkpoints };
    check(set, config)?;
    let (train, holdout) = split(&set.samples, config.holdout_share);
    let actions = set.actions.len();
    let contexts: Vec<_> = train.iter().map(|&row| &set.samples[row].context).collect();
    let features = fit_features(&contexts);
    let priced = priced(set, &config.outcome);
    let learned_from = priced.as_ref().unwrap_or(set);
    let layers =
        reward_model::train_layers(&learned_from.samples, &train, &features, actions, &config.reward_model, training)?;
    let network = runtime_network(&layers)?;
    let metrics = reward_model::metrics(&network, &features, &learned_from.samples, (&train, &holdout), actions);
    let learned = Learned::on_top_of(layers, learned_from, &train, &features, config, training)?;
    let outcome = learned.usd.map_or_else(|| config.outcome.clone(), |usd| config.outcome.with_dollar_worth(usd));
    // A wanted quality's weight of cost is one of the price that was learned, whatever the outcome makes of dollars.
    let objective = Objective { usd: learned.usd.unwrap_or(outcome.objective().usd), ..outcome.objective() };
    let gamma = config.gamma.unwrap_or_else(|| (actions as f64 * train.len() as f64).sqrt());
    let mut spec = PolicySpec {
        features,
        actions: learned.actions,
        exploration: Exploration { gamma, floor: config.floor },
        objective,
        heads: learned.heads,
        strategy: learned.strategy,
        preference: learned.preference,
        probation: learned.probation,
        utility_per_s: Some(outcome.weight(Part::LatencyS)).filter(|weight| *weight > 0.0),
        per_turn: false,
        logged_share_min: None,
    };
    let unusable = |error: weir_policy_runtime::PolicyError| LearnError::Artefact(error.to_string());
    let weights = learned.network.to_safetensors().map_err(unusable)?;
    let posterior = learned.posterior.as_ref().map(Posterior::to_safetensors).transpose().map_err(unusable)?;
    let mut policy = match learned.posterior {
        Some(posterior) => Policy::with_posterior(spec.clone(), learned.network, posterior),
        None => Policy::new(spec.clone(), learned.network),
    }
    .map_err(unusable)?;
    let evaluation = explored(&config.evaluation, settled_floor(&spec), actions, in_force);
    let judge = |policy: &Policy| {
        let target = Target::learned(policy, &set.actions);
        evaluate::lineup(set, &target, in_force, (&train, &holdout), &outcome, &evaluation)
    };
    let mut lineup = judge(&policy)?;
    let ahead = Ahead { samples: &set.samples, rows: &holdout, clusters: lineup.candidate.support.clusters };
    if config.gamma.is_none()
        && let Some(gamma) = ahead.gamma_for_evidence(&policy, &evaluation)
    {
        spec.exploration.gamma = gamma;
        policy = policy.exploring(spec.exploration).map_err(unusable)?;
        lineup = judge(&policy)?;
    }
    let next = ahead.next_support(&policy, spec.exploration, &evaluation);
    tracing::info!(
        train_rows = train.len(),
        holdout_rows = holdout.len(),
        verdict = lineup.verdict(),
        "candidate policy trained"
    );
    let report = Report {
        verdict: lineup.verdict(),
        seed: config.seed,
        objective,
        outcome: Some(outcome),
        exploration: spec.exploration,
        learned: Some(learned.summary),
        next: Some(next),
        train_decisions: train.len(),
        lineup,
        reward_model: metrics,
        estimators: BTreeMap::new(),
        exports: Vec::new(),
    };
    Ok(Candidate { spec, weights, posterior, policy, report })
}

/// The reward model alone, fitted on the clusters to train on, and its errors on the others: what a training spends most of its time on.
///
/// # Errors
/// As [`train_policy`].
pub fn fit_reward_model(set: &TrainingSet, config: &TrainConfig) -> Result<RewardModelMetrics> {
    check(set, config)?;
    let (train, holdout) = split(&set.samples, config.holdout_share);
    let contexts: Vec<_> = train.iter().map(|&row| &set.samples[row].context).collect();
    let features = fit_features(&contexts);
    let actions = set.actions.len();
    let network =
        reward_model::train(&set.samples, &train, &features, actions, &config.reward_model, config.seed.into())?;
    Ok(reward_model::metrics(&network, &features, &set.samples, (&train, &holdout), actions))
}

/// What the logs of a policy will hold, as long as those that it was judged on.
struct Ahead<'a> {
    samples: &'a [Sample],
    /// Decisions that it was judged on.
    rows: &'a [usize],
    /// Their sessions.
    clusters: usize,
}

impl Ahead<'_> {
    /// What they would offer a policy that differs from it in a tenth of the decisions, where it takes the runner-up: sessions divided by
    /// the mean of one over the probability of what that policy takes.
    fn next_support(&self, policy: &Policy, exploration: Exploration, config: &EvaluationConfig) -> NextSupport {
        const DIFFERS: f64 = 0.1;
        let mut scratch = Scratch::default();
        let allowed = vec![true; policy.actions().len()];
        let terms = Terms { exploration, ..policy.terms() };
        let inverse = |&row: &usize| {
            let context = self.samples[row].context.as_context();
            let mut probabilities = policy.propensities_under(&terms, &context, &allowed, &mut scratch).ok()?.to_vec();
            probabilities.sort_by(|a, b| b.total_cmp(a));
            let [best, runner_up, ..] = probabilities[..] else { return None };
            Some((1.0 - DIFFERS) / best + DIFFERS / runner_up)
        };
        let inverses: Vec<f64> = self.rows.iter().filter_map(inverse).collect();
        let mean = inverses.iter().sum::<f64>() / inverses.len().max(1) as f64;
        NextSupport {
            effective_clusters: if mean > 0.0 && mean.is_finite() { self.clusters as f64 / mean } else { 0.0 },
            asked_for: config.limits.effective_clusters_min,
        }
    }

    /// The policy's γ, halved until its logs carry the next verdict; none where they do as it is, or with no γ from 1. It is chosen by what
    /// was asked alone: no reward of the decisions that judge the policy plays a part.
    fn gamma_for_evidence(&self, policy: &Policy, config: &EvaluationConfig) -> Option<f64> {
        let Exploration { gamma, floor } = policy.spec().exploration;
        // Other strategies do not draw by γ, and no exploration makes more sessions of those that there are.
        let has_sessions = self.clusters as f64 >= config.limits.effective_clusters_min;
        if policy.spec().strategy != Strategy::InverseGap || !has_sessions {
            return None;
        }
        let carries =
            |gamma: &f64| self.next_support(policy, Exploration { gamma: *gamma, floor }, config).warning().is_none();
        let mut halved =
            std::iter::successors(Some(gamma), |gamma| Some(gamma / 2.0)).take_while(|gamma| *gamma >= 1.0);
        halved.find(carries).filter(|found| *found < gamma)
    }
}

/// Where networks are trained in this build: `cpu` or `cuda`.
#[must_use]
pub fn training_backend() -> &'static str {
    if cfg!(feature = "cuda") { "cuda" } else { "cpu" }
}

/// The same decisions where the cost of each is its price, if the outcome weighs more than dollars: a policy then foresees seconds and
/// watt-hours too, each model's for each kind of request.
pub(crate) fn priced(set: &TrainingSet, outcome: &Outcome) -> Option<TrainingSet> {
    outcome.prices_more_than_money().then(|| {
        let mut priced = set.clone();
        priced.samples.iter_mut().for_each(|sample| sample.cost_usd = outcome.price(sample));
        priced
    })
}

/// The candidate in the forms that vLLM Semantic Router loads, distilled from what it was trained on and judged on the rest as the bytes
/// that are exported; adds the files' summaries to its report.
///
/// # Errors
/// As [`vllm_sr::distil`], and when a policy cannot score a logged decision.
pub fn export_vllm_sr(
    set: &TrainingSet,
    candidate: &mut Candidate,
    config: &TrainConfig,
    distil: &DistilConfig,
) -> Result<BTreeMap<String, Vec<u8>>> {
    let (train, holdout) = split(&set.samples, config.holdout_share);
    let parent = candidate.policy.clone();
    // The candidate's own, which a wanted quality may have changed.
    let outcome = candidate.report.outcome.clone().unwrap_or_else(|| config.outcome.clone());
    let distilled = vllm_sr::distil(&parent, &set.samples, &train, distil)?;
    let evaluation = explored(&config.evaluation, config.floor, set.actions.len(), None);
    let place = |model: &str| set.actions.iter().position(|action| action.model == model);
    let mut files = BTreeMap::from([(vllm_sr::GOLDEN_FILE.to_owned(), distilled.golden)]);
    let linear = distilled.svm.map(|svm| (vllm_sr::SVM_FILE, svm));
    for (file, artifact) in [(vllm_sr::MLP_FILE, distilled.mlp)].into_iter().chain(linear) {
        let selector = artifact.selector()?;
        let choice = |sample: &Sample| selector.choice(&vllm_sr::input(&sample.context, distil.embedding_dim));
        let names = artifact.model_names().to_vec();
        let of_parent = |sample: &Sample| {
            parent.actions().iter().position(|action| action.model == names[choice(sample)]).unwrap_or_default()
        };
        let (agreement, predicted_loss) = beside_its_parent(&parent, set, &holdout, &of_parent);
        let select = |sample: &Sample| place(&artifact.model_names()[choice(sample)]);
        let targets = (&Target::Selected(&select), &Target::learned(&parent, &set.actions));
        let (judged, difference_to_parent) = beside(set, targets, &holdout, &outcome, &evaluation)?;
        candidate.report.exports.push(ExportSummary {
            file: file.to_owned(),
            decisions: distilled.decisions,
            agreement,
            predicted_loss,
            estimates: judged.estimates,
            difference_to_parent,
        });
        files.insert(file.to_owned(), artifact.to_json());
    }
    Ok(files)
}

/// Share of choices that are what the parent likes best, and what they lose by its predictions.
fn beside_its_parent(
    parent: &Policy,
    set: &TrainingSet,
    rows: &[usize],
    choice: &dyn Fn(&Sample) -> usize,
) -> (f64, f64) {
    let mut scratch = Scratch::default();
    let (mut agreed, mut lost) = (0.0, 0.0);
    for &row in rows {
        let sample = &set.samples[row];
        let utility = parent.predict(&sample.context.as_context(), &mut scratch).utility;
        let loss = utility.iter().copied().fold(f64::NEG_INFINITY, f64::max) - utility[choice(sample)];
        agreed += f64::from(u8::from(loss <= 0.0));
        lost += loss;
    }
    let n = rows.len().max(1) as f64;
    (agreed / n, lost / n)
}

fn check(set: &TrainingSet, config: &TrainConfig) -> Result<()> {
    let wrong = |why: &str| Err(LearnError::Config(why.to_owned()));
    if !(0.0..=1.0).contains(&config.floor) {
        return wrong("floor must lie in [0, 1]");
    }
    if !(config.holdout_share > 0.0 && config.holdout_share < 1.0) {
        return wrong("holdout_share must lie between 0 and 1");
    }
    if set.actions.len() < 2 {
        return Err(LearnError::NotEnoughData(format!(
            "the logs name {} model(s), and a choice needs at least two",
            set.actions.len()
        )));
    }
    let Objective { quality, usd } = config.outcome.objective();
    if quality == 0.0 && usd == 0.0 {
        return wrong(
            "the outcome weighs neither quality nor cost, which are what a policy can foresee: give weights.quality or weights.usd",
        );
    }
    let shares: f64 = config.new_models.iter().map(|model| model.share).sum();
    let is_share = |share: f64| share > 0.0 && share < 0.5;
    if !config.new_models.iter().all(|model| is_share(model.share)) || shares >= 0.5 {
        return wrong("the shares of new models must lie above 0 and sum to less than 1/2");
    }
    let mut names: Vec<&str> = config.new_models.iter().map(|model| model.model.as_str()).collect();
    names.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        return wrong("a new model is named twice");
    }
    if matches!(config.learning, Learning::UpperBound { width } if !(width.is_finite() && width >= 0.0)) {
        return wrong("the width of upper bounds must be a number from 0");
    }
    let wild = |sample: &&Sample| {
        let numbers = [sample.propensity, sample.quality, sample.cost_usd, sample.latency_s, sample.energy_wh];
        numbers.into_iter().flatten().any(|number| !number.is_finite())
    };
    if let Some(sample) = set.samples.iter().find(wild) {
        return Err(LearnError::BadRounds(format!(
            "the decision of {} ms has a reward or propensity that is not a number: leave out what is not known",
            sample.time_ms
        )));
    }
    if !set.samples.iter().any(|sample| config.outcome.value(sample).is_some()) {
        return Err(LearnError::NotEnoughData(config.outcome.what_is_missing(&set.samples)));
    }
    Ok(())
}

/// Is this cluster kept for judging by a training with this share?
///
/// A function of the two alone, whatever other clusters there are: a later evaluation that knows a policy's share knows
/// which clusters the policy was not trained on, also in logs that have grown since. The seed of a training plays no
/// part, so that trying seeds does not draw another exam each time.
#[must_use]
pub fn is_holdout(cluster: &str, share: f64) -> bool {
    sticky_uniform(b"weir holdout", cluster) < share
}

/// Rows to train on and rows to judge on; no cluster is on both sides.
pub(crate) fn split(samples: &[Sample], holdout_share: f64) -> (Vec<usize>, Vec<usize>) {
    (0..samples.len()).partition(|&row| !is_holdout(&samples[row].cluster, holdout_share))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_out(share: f64) -> Vec<usize> {
        (0..10_000).filter(|i| is_holdout(&format!("session-{i}"), share)).collect()
    }

    /// CPython 3: `int.from_bytes(hmac.new(b"weir holdout", name, "sha256").digest()[:8], "big") / 2**64` for the names
    /// `session-0` to `session-9`.
    #[test]
    fn who_is_held_out_never_changes() {
        let first: Vec<usize> = held_out(0.3).into_iter().take_while(|i| *i < 10).collect();
        assert_eq!(first, [0, 6, 8, 9]);
    }

    #[test]
    fn a_share_holds_its_number_of_clusters_and_a_larger_one_contains_it() {
        for share in [0.05, 0.3, 0.5] {
            let held = held_out(share);
            // Five standard deviations of a binomial count.
            let (mean, spread) = (10_000.0 * share, (10_000.0 * share * (1.0 - share)).sqrt());
            assert!((held.len() as f64 - mean).abs() < 5.0 * spread, "{} of 10000 at {share}", held.len());
            let larger = held_out(share + 0.1);
            assert!(held.iter().all(|cluster| larger.binary_search(cluster).is_ok()));
        }
        assert!(held_out(0.0).is_empty() && held_out(1.0).len() == 10_000);
    }

    #[test]
    fn a_cluster_stays_on_its_side_when_others_come() {
        let sample = |cluster: usize| Sample { cluster: format!("session-{cluster}"), ..Sample::default() };
        let share = TrainConfig::default().holdout_share;
        let few: Vec<Sample> = (0..50).map(sample).collect();
        let many: Vec<Sample> = (0..500).map(sample).collect();
        let (train, holdout) = split(&few, share);
        let (train_later, holdout_later) = split(&many, share);
        assert_eq!(train, train_later.into_iter().filter(|row| *row < 50).collect::<Vec<_>>());
        assert_eq!(holdout, holdout_later.into_iter().filter(|row| *row < 50).collect::<Vec<_>>());
        assert!(!train.is_empty() && !holdout.is_empty());
    }
}
