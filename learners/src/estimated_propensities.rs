//! Propensities for logs without any: how often the router chose each model in such a situation.
//!
//! Weaker evidence than logged ones. A router that looks at more than is told here (a score, the text) chooses by it, and what it saw
//! may be why the answer came out well: no estimate of its frequencies removes that. So what rests on them is labelled, and takes a
//! person's word to approve.

use std::collections::HashMap;

use crate::evaluate::dense_clusters;
use crate::ope::fold_of;
use crate::training_set::{Sample, TrainingSet};

const FOLDS: usize = 5;
/// Decisions that the coarser frequencies count for in a finer one.
const PRIOR_DECISIONS: f64 = 20.0;

/// What was chosen more rarely than this is no support, and its frequency hardly known: such decisions stay without one.
const LEAST: f64 = 0.001;

/// Situations, from coarse to fine: all, the policy that chose, its choices in a domain, and those of a complexity.
const LEVELS: usize = 4;

/// Choices by situation.
type Counts = HashMap<String, Vec<f64>>;

/// Fills in what the router did not log, and says for how many decisions. Frequencies are taken from other clusters than the decision's,
/// by policy, domain and complexity, each leaning on the coarser ones.
pub fn estimate_propensities(set: &mut TrainingSet) -> usize {
    let actions = set.actions.len();
    let clusters = dense_clusters(&set.samples, 0..set.samples.len());
    let of_fold = |fold: usize| {
        let mut counts = Counts::new();
        for (sample, cluster) in set.samples.iter().zip(&clusters) {
            let Some(chosen) = sample.chosen().filter(|_| fold_of(*cluster, FOLDS) != fold) else { continue };
            for key in keys(sample) {
                counts.entry(key).or_insert_with(|| vec![0.0; actions])[chosen] += 1.0;
            }
        }
        counts
    };
    let counts: Vec<Counts> = (0..FOLDS).map(of_fold).collect();
    let mut estimated = 0;
    for (sample, cluster) in set.samples.iter_mut().zip(&clusters) {
        let Some(chosen) = sample.chosen().filter(|_| sample.propensity.is_none()) else { continue };
        let distribution = frequencies(&counts[fold_of(*cluster, FOLDS)], sample, actions);
        sample.propensity = Some(distribution[chosen]).filter(|propensity| *propensity >= LEAST);
        sample.logged_distribution = Some(distribution);
        sample.propensity_is_estimated = true;
        estimated += usize::from(sample.propensity.is_some());
    }
    estimated
}

fn keys(sample: &Sample) -> [String; LEVELS] {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    let policy = part(&sample.policy);
    let domain = format!("{policy}\u{1f}{}", part(&sample.context.domain));
    let complexity = format!("{domain}\u{1f}{}", part(&sample.context.complexity));
    // A level's number keeps it apart from a coarser one where a part is missing.
    ["0".to_owned(), format!("1{policy}"), format!("2{domain}"), format!("3{complexity}")]
}

/// From even shares down to the finest situation; models that could not be chosen get none.
fn frequencies(counts: &Counts, sample: &Sample, actions: usize) -> Vec<f64> {
    let mut shares = vec![1.0 / actions as f64; actions];
    for key in keys(sample) {
        let Some(counts) = counts.get(&key) else { break };
        let total: f64 = counts.iter().sum();
        for (share, count) in shares.iter_mut().zip(counts) {
            *share = (count + PRIOR_DECISIONS * *share) / (total + PRIOR_DECISIONS);
        }
    }
    if let Some(allowed) = &sample.allowed {
        shares.iter_mut().zip(allowed).filter(|(_, allowed)| !**allowed).for_each(|(share, _)| *share = 0.0);
        let total: f64 = shares.iter().sum();
        if total > 0.0 {
            shares.iter_mut().for_each(|share| *share /= total);
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use weir_policy_runtime::{Action, OwnedContext};

    use super::*;

    fn sample(n: usize, domain: &str, action: usize) -> Sample {
        Sample {
            context: OwnedContext { domain: Some(domain.to_owned()), ..OwnedContext::default() },
            action,
            executed_as_intended: true,
            cluster: n.to_string(),
            ..Sample::default()
        }
    }

    fn set(samples: Vec<Sample>) -> TrainingSet {
        let action =
            |model: &str| Action { model: model.to_owned(), input_usd_per_mtok: None, output_usd_per_mtok: None };
        TrainingSet { actions: vec![action("a"), action("b")], samples, ..TrainingSet::default() }
    }

    #[test]
    fn frequencies_by_domain_come_near_the_router_s_own() {
        // On law the first model in three of four, on code never.
        let law = (0..4_000).map(|n| sample(n, "law", usize::from(n % 4 == 3)));
        let code = (4_000..6_000).map(|n| sample(n, "code", 1));
        let mut set = set(law.chain(code).collect());
        assert_eq!(estimate_propensities(&mut set), 6_000);
        for sample in &set.samples {
            let distribution = sample.logged_distribution.as_ref().unwrap();
            let truth = if sample.context.domain.as_deref() == Some("law") { 0.75 } else { 0.0 };
            assert!((distribution[0] - truth).abs() < 0.03, "{distribution:?}");
            assert!((distribution.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            assert_eq!(sample.propensity, Some(distribution[sample.action]));
        }
    }

    #[test]
    fn a_situation_without_a_complexity_is_not_the_whole_domain() {
        let without = (0..500).map(|n| sample(n, "law", 0));
        let hard = (500..1_000).map(|n| {
            let mut hard = sample(n, "law", 1);
            hard.context.complexity = Some("hard".to_owned());
            hard
        });
        let mut set = set(without.chain(hard).collect());
        estimate_propensities(&mut set);
        assert!(set.samples[0].propensity.unwrap() > 0.95 && set.samples[999].propensity.unwrap() > 0.95);
    }

    #[test]
    fn what_was_logged_stays_and_what_was_not_allowed_gets_none() {
        let logged = Sample { propensity: Some(0.9), ..sample(0, "law", 0) };
        let alone = Sample { allowed: Some(vec![false, true]), ..sample(1, "law", 1) };
        let mut set = set(vec![logged, alone]);
        assert_eq!(estimate_propensities(&mut set), 1);
        assert_eq!(set.samples[0].propensity, Some(0.9));
        assert!(!set.samples[0].propensity_is_estimated && set.samples[1].propensity_is_estimated);
        assert_eq!(set.samples[1].propensity, Some(1.0));
    }
}
