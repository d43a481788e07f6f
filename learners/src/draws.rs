//! Which context was a logged model drawn from: the request's own, or that of its session's first turn?
//!
//! A router that keeps a session's model logs the probability of the first draw with every turn. What was randomised is
//! then the session: another policy would have been asked at the first turn only, and is judged as if it had been.
//!
//! **The rule.** A draw goes on while a cluster's decisions carry the same policy, propensity and model. Whether that
//! is a kept draw or a coincidence, the log of each policy says as a whole: were the models drawn anew at every turn, a
//! follower with propensity `p` would differ from the turn before with probability `1 - p`. A log with a tenth of the
//! changes that this predicts, or fewer, keeps its draws. Propensities that differ from turn to turn are draws of their
//! own whatever their models: their router computed them from each turn's context.

use std::collections::HashMap;

use crate::training_set::Sample;

/// Fewer expected changes than this say nothing: ten, and none seen, is a chance of 1 in 20,000.
const EXPECTED_CHANGES_MIN: f64 = 10.0;
/// Seen changes as a share of the expected ones, up to which draws are taken for kept ones.
const CHANGED_SHARE_MAX: f64 = 0.1;

/// For each decision, the one whose context its model was drawn from; itself where it was drawn for its own.
/// `samples` are in order of arrival.
pub(crate) fn drawn_at(samples: &[Sample]) -> Vec<usize> {
    let mut first: Vec<usize> = (0..samples.len()).collect();
    let mut running: HashMap<&str, Run<'_>> = HashMap::new();
    let mut changes: HashMap<Option<&str>, Changes> = HashMap::new();
    for (row, sample) in samples.iter().enumerate() {
        let (Some(propensity), Some(model)) = (sample.propensity, sample.chosen()) else { continue };
        let policy = sample.policy.as_deref();
        let run = Run { policy, propensity, model, first: row };
        if let Some(before) = running.get(sample.cluster.as_str())
            && before.policy == policy
        {
            let goes_on = before.propensity == propensity && before.model == model;
            let changes = changes.entry(policy).or_default();
            changes.seen += f64::from(u8::from(!goes_on));
            // How likely the turn before's model was to be drawn again; where another was drawn, its probability is a
            // lower bound of the chance that something else was.
            changes.expected += if before.model == model { 1.0 - propensity } else { propensity };
            if goes_on {
                first[row] = before.first;
                continue;
            }
        }
        running.insert(&sample.cluster, run);
    }
    for (row, sample) in samples.iter().enumerate() {
        if !changes.get(&sample.policy.as_deref()).is_some_and(Changes::are_too_few) {
            first[row] = row;
        }
    }
    first
}

/// A cluster's draw that may go on.
struct Run<'a> {
    policy: Option<&'a str>,
    propensity: f64,
    model: usize,
    first: usize,
}

/// Changes inside the clusters of one policy's log.
#[derive(Default)]
struct Changes {
    seen: f64,
    expected: f64,
}

impl Changes {
    fn are_too_few(&self) -> bool {
        self.expected >= EXPECTED_CHANGES_MIN && self.seen <= CHANGED_SHARE_MAX * self.expected
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// Sessions of three turns; models drawn with probability 1/4 for the session, or for every turn.
    fn log(policy: &str, kept: bool) -> Vec<Sample> {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut samples = Vec::new();
        for session in 0..100 {
            let mut action = rng.random_range(0..4);
            for _ in 0..3 {
                samples.push(Sample {
                    action,
                    executed_as_intended: true,
                    propensity: Some(0.25),
                    policy: Some(policy.to_owned()),
                    cluster: format!("{policy}-{session}"),
                    ..Sample::default()
                });
                action = if kept { action } else { rng.random_range(0..4) };
            }
        }
        samples
    }

    fn itself(samples: &[Sample]) -> Vec<usize> {
        (0..samples.len()).collect()
    }

    #[test]
    fn a_kept_draw_was_made_at_its_sessions_first_turn() {
        let samples = log("kept", true);
        let firsts: Vec<usize> = (0..samples.len()).map(|row| row / 3 * 3).collect();
        assert_eq!(drawn_at(&samples), firsts);
    }

    #[test]
    fn equal_draws_of_turns_that_are_drawn_anew_stay_their_own() {
        // A quarter of the followers repeats the turn before, by chance.
        let samples = log("anew", false);
        assert_eq!(drawn_at(&samples), itself(&samples));
    }

    #[test]
    fn each_policys_log_speaks_for_itself() {
        let samples = [log("kept", true), log("anew", false)].concat();
        let found = drawn_at(&samples);
        assert!((0..300).all(|row| found[row] == row / 3 * 3) && (300..600).all(|row| found[row] == row));
    }

    #[test]
    fn a_propensity_of_each_turns_own_is_a_draw_of_its_own() {
        // The same uniform number for every turn of a session mostly gives the same model, from each turn's probability.
        let mut samples = log("own", true);
        samples
            .iter_mut()
            .enumerate()
            .for_each(|(row, sample)| sample.propensity = Some(0.25 + 0.001 * (row % 3) as f64));
        assert_eq!(drawn_at(&samples), itself(&samples));
    }

    #[test]
    fn a_few_sessions_that_repeat_are_no_evidence() {
        let samples = &log("kept", true)[..12];
        assert_eq!(drawn_at(samples), itself(samples));
    }
}
