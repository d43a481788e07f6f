//! Confidence sequences: intervals that hold at every moment together, so that one may look, stop, or change the logging policy because
//! of what was seen, at any time.
//!
//! **Needed:** true logged probabilities, which may depend on everything before; a reward model that was fitted on earlier clusters
//! only ([`ProgressiveTable`](super::ProgressiveTable)); rewards within a known range. **Not needed:** a bound on the weights, or
//! contexts that stay alike: what is covered is the mean, over the clusters so far, of each one's expected score given the past.
//!
//! Clusters are what follows one another. Each counts once, with the mean over its decisions.
//!
//! The reward model's guesses are cut so that scores are bounded on one side, without a bias: Waudby-Smith, Wu, Ramdas,
//! Karampatziakis and Mineiro 2022, arXiv 2210.10768. For `Y_t ≥ -1` with `V_t = Σ Y²` the process
//! `exp(λ Σ (Y - E Y) - ψ(λ) V)`, `ψ(λ) = -log(1 - λ) - λ`, is a supermartingale (Fan, Grama and Liu 2015); mixed over `λ` by a gamma
//! law it has a closed form (Howard, Ramdas, McAuliffe and Sekhon 2021, proposition 9), and stays below `1/α` for ever with probability
//! `1 - α` (Ville).

use serde::{Deserialize, Serialize};
use statrs::function::gamma::{gamma_lr, ln_gamma};

use super::interval::Estimate;

/// How a confidence sequence is made.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SequenceConfig {
    /// Probability with which the truth is held at every moment, both sides together.
    pub confidence: f64,
    /// Least and largest reward that can occur.
    pub reward_range: (f64, f64),
    /// The reward model may take off `truncation / w` of a reward at most, in units of the range. Larger trusts the model for larger
    /// weights, and pays with a wider start.
    pub truncation: f64,
    /// Clusters after which it should be tightest. It holds at every other moment too.
    pub tuned_for: f64,
}

impl Default for SequenceConfig {
    fn default() -> Self {
        Self { confidence: 0.95, reward_range: (0.0, 1.0), truncation: 2.0, tuned_for: 2_000.0 }
    }
}

/// A decision's doubly robust pseudo-outcomes in units of the reward range. Both have the target's value as their mean; one is bounded
/// from below and the other from above.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PseudoOutcome {
    /// At least `-truncation`.
    pub low: f64,
    /// At most `1 + truncation`.
    pub high: f64,
}

impl PseudoOutcome {
    /// From a decision of which the probability of every choice was logged: the `chosen` one, its `reward`, the `target`'s and the
    /// `logged` probabilities, and the reward model's `guesses`, all in the order of the choices.
    ///
    /// Costs one pass over the choices.
    #[must_use]
    pub fn of(
        chosen: usize,
        reward: f64,
        target: &[f64],
        logged: &[f64],
        guesses: &[f64],
        config: &SequenceConfig,
    ) -> Self {
        let unit = |reward: f64| config.in_range(reward);
        let cut = |guess: f64, weight: f64| if weight > 0.0 { guess.min(config.truncation / weight) } else { guess };
        let weight = |choice: usize| if target[choice] > 0.0 { target[choice] / logged[choice] } else { 0.0 };
        let (w, r) = (weight(chosen), unit(reward));
        let score = |reward: f64, guess: &dyn Fn(usize) -> f64| {
            let expected: f64 = (0..target.len())
                .filter(|choice| target[*choice] > 0.0)
                .map(|choice| target[choice] * cut(guess(choice), weight(choice)))
                .sum();
            w * (reward - cut(guess(chosen), w)) + expected
        };
        Self {
            low: score(r, &|choice| unit(guesses[choice])),
            high: 1.0 - score(1.0 - r, &|choice| 1.0 - unit(guesses[choice])),
        }
    }

    /// From the weight and the reward alone, where only the probability of what was chosen is known. Wider.
    #[must_use]
    pub fn without_guesses(weight: f64, reward: f64, config: &SequenceConfig) -> Self {
        let reward = config.in_range(reward);
        Self { low: weight * reward, high: 1.0 - weight * (1.0 - reward) }
    }

    /// The reward itself: what the logging policy earned.
    #[must_use]
    pub fn of_logging(reward: f64, config: &SequenceConfig) -> Self {
        let reward = config.in_range(reward);
        Self { low: reward, high: reward }
    }
}

impl SequenceConfig {
    /// In units of the range; what lies outside is an error of the range, and is cut to it.
    fn in_range(&self, reward: f64) -> f64 {
        let (low, high) = self.reward_range;
        ((reward - low) / (high - low)).clamp(0.0, 1.0)
    }

    fn alpha_of_a_side(&self) -> f64 {
        (1.0 - self.confidence) / 2.0
    }
}

/// A confidence sequence under way. Constant memory, constant time a cluster.
#[derive(Debug, Clone)]
pub struct ConfidenceSequence {
    config: SequenceConfig,
    low: Side,
    high: Side,
    /// What is subtracted and multiplied to get from scores to rewards.
    offset: f64,
}

impl ConfidenceSequence {
    /// Of a target policy's value.
    #[must_use]
    pub fn of_value(config: SequenceConfig) -> Self {
        // Scores are at least -k, and their means lie between 0 and 1.
        let side = Side::new(config.truncation, (0.0, 1.0), &config);
        Self { config, low: side, high: side, offset: config.reward_range.0 }
    }

    /// Of the difference of two target policies' values, or of one's and what was logged.
    #[must_use]
    pub fn of_difference(config: SequenceConfig) -> Self {
        // One's low score is at least -k, another's high score at most 1 + k.
        let side = Side::new(2.0 * config.truncation + 1.0, (-1.0, 1.0), &config);
        Self { config, low: side, high: side, offset: 0.0 }
    }

    /// Takes in the next cluster's decisions, as the target would have made them.
    pub fn push(&mut self, decisions: &[PseudoOutcome]) {
        let n = decisions.len() as f64;
        if n > 0.0 {
            self.low.push(decisions.iter().map(|outcome| outcome.low).sum::<f64>() / n);
            // The upper bound is the lower bound of one minus the score.
            self.high.push(1.0 - decisions.iter().map(|outcome| outcome.high).sum::<f64>() / n);
        }
    }

    /// Takes in the next cluster's decisions, as the target and the other policy would have made them.
    pub fn push_pair(&mut self, target: &[PseudoOutcome], other: &[PseudoOutcome]) {
        let n = target.len() as f64;
        if n > 0.0 {
            let pairs = || target.iter().zip(other);
            self.low.push(pairs().map(|(one, other)| one.low - other.high).sum::<f64>() / n);
            self.high.push(pairs().map(|(one, other)| other.low - one.high).sum::<f64>() / n);
        }
    }

    /// Clusters so far.
    #[must_use]
    pub fn clusters(&self) -> u64 {
        self.low.count
    }

    /// The interval now; `None` before the first cluster. The value is its middle.
    #[must_use]
    pub fn interval(&self) -> Option<Estimate> {
        let alpha = self.config.alpha_of_a_side();
        let is_difference = self.low.means.0 < 0.0;
        let low = self.low.lower_bound(alpha)?;
        let high = self.high.lower_bound(alpha)?;
        let (low, high) = if is_difference { (low, -high) } else { (low, 1.0 - high) };
        let (from, to) = self.config.reward_range;
        let scaled = |score: f64| self.offset + score * (to - from);
        Some(Estimate { value: scaled(f64::midpoint(low, high)), low: scaled(low), high: scaled(high) })
    }
}

/// One side: a lower bound of the mean of what is at least `-floor`.
#[derive(Debug, Clone, Copy)]
struct Side {
    floor: f64,
    /// Between which the means lie.
    means: (f64, f64),
    rho: f64,
    count: u64,
    sum: f64,
    /// Σ ((X - X̂) / scale)².
    variance: f64,
}

impl Side {
    fn new(floor: f64, means: (f64, f64), config: &SequenceConfig) -> Self {
        let scale = floor + means.1;
        // Tightest where the variance is what scores of unit variance have after so many clusters (Howard et al. 2021, 3.5).
        let log = (1.0 / config.alpha_of_a_side()).ln();
        let rho = config.tuned_for / (scale * scale) / (2.0 * log + (1.0 + 2.0 * log).ln());
        Self { floor, means, rho: rho.max(1e-3), count: 0, sum: 0.0, variance: 0.0 }
    }

    fn scale(&self) -> f64 {
        self.floor + self.means.1
    }

    fn push(&mut self, score: f64) {
        // What was to be expected from the past; one score in the middle stands for none.
        let middle = f64::midpoint(self.means.0, self.means.1);
        let expected = ((self.sum + middle) / (self.count as f64 + 1.0)).clamp(self.means.0, self.means.1);
        self.count += 1;
        self.sum += score;
        self.variance += ((score - expected) / self.scale()).powi(2);
    }

    fn lower_bound(&self, alpha: f64) -> Option<f64> {
        let count = (self.count > 0).then_some(self.count as f64)?;
        let deviation = self.scale() * boundary(self.variance, self.rho, alpha);
        // What is not a number bounds nothing.
        Some((self.sum / count - deviation / count).max(self.means.0))
    }
}

/// The sum of deviations that is exceeded, ever, with probability `alpha` at most, at variance `v`.
fn boundary(v: f64, rho: f64, alpha: f64) -> f64 {
    // Past this the gamma functions are rounding alone. One weight of millions has made the bound worthless already.
    const LARGEST: f64 = 1e9;
    if v.is_nan() || v + rho >= LARGEST {
        return f64::INFINITY;
    }
    let threshold = -alpha.ln();
    let (mut low, mut high) = (0.0, 1.0 + (2.0 * (v + rho) * threshold).sqrt());
    while log_mixture(high, v, rho) < threshold {
        (low, high) = (high, 2.0 * high);
    }
    while high - low > 1e-9 * high {
        let middle = f64::midpoint(low, high);
        if log_mixture(middle, v, rho) < threshold { low = middle } else { high = middle }
    }
    high
}

/// The logarithm of the mixture of `exp(λ s - ψ(λ) v)` over λ in [0, 1), whose density is that of a gamma law of shape `rho` for
/// `1 - λ`'s logarithm, cut to that interval.
fn log_mixture(s: f64, v: f64, rho: f64) -> f64 {
    let (a, x) = (v + rho, s + v + rho);
    rho * rho.ln() - ln_gamma(rho) - gamma_lr(rho, rho).ln() + ln_gamma(a) + gamma_lr(a, x).ln() - a * x.ln() + s + v
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mixture's density over λ: `f(λ) ∝ (1 - λ)^(ρ - 1) exp(-ρ (1 - λ))`, integrated numerically.
    #[test]
    fn the_closed_form_is_the_mixture_over_lambda() {
        for (s, v, rho) in [(0.0, 0.0, 2.0), (3.0, 4.0, 1.5), (10.0, 20.0, 8.0), (1.0, 50.0, 30.0)] {
            let steps = 2_000_000;
            let (mut mixture, mut mass) = (0.0, 0.0);
            for step in 0..steps {
                let lambda = (f64::from(step) + 0.5) / f64::from(steps);
                let density = (1.0 - lambda).powf(rho - 1.0) * (-rho * (1.0 - lambda)).exp();
                let psi = -(1.0 - lambda).ln() - lambda;
                mass += density;
                mixture += density * (lambda * s - psi * v).exp();
            }
            let (closed, integrated) = (log_mixture(s, v, rho), (mixture / mass).ln());
            assert!((closed - integrated).abs() < 1e-4, "{s} {v} {rho}: {closed} against {integrated}");
        }
    }

    #[test]
    fn the_boundary_is_where_the_mixture_reaches_its_threshold() {
        for v in [0.0, 0.3, 10.0, 5_000.0] {
            let u = boundary(v, 3.0, 0.025);
            assert!((log_mixture(u, v, 3.0) - 40.0_f64.ln()).abs() < 1e-6, "{v}: {u}");
        }
        assert!(boundary(100.0, 3.0, 0.025) < boundary(100.0, 3.0, 0.01));
    }

    #[test]
    fn a_weight_beyond_all_measure_leaves_no_bound_and_no_panic() {
        let config = SequenceConfig::default();
        let mut sequence = ConfidenceSequence::of_value(config);
        for weight in [1.0, 1e12, 1e200, f64::INFINITY] {
            sequence.push(&[PseudoOutcome::without_guesses(weight, 0.5, &config)]);
            let Estimate { low, high, .. } = sequence.interval().unwrap();
            assert!((0.0..=1.0).contains(&low) && (0.0..=1.0).contains(&high), "{weight}: {low} {high}");
        }
    }

    #[test]
    fn scores_stay_in_their_bounds_and_bracket_the_plain_one() {
        let config = SequenceConfig { reward_range: (-1.0, 3.0), ..SequenceConfig::default() };
        let (target, logged, guesses) = ([0.9, 0.1, 0.0], [0.05, 0.05, 0.9], [2.0, -1.0, 0.5]);
        let plain = |chosen: usize, reward: f64| {
            let w = target[chosen] / logged[chosen];
            let scaled = |r: f64| (r + 1.0) / 4.0;
            let expected: f64 = (0..3).map(|a| target[a] * scaled(guesses[a])).sum();
            w * (scaled(reward) - scaled(guesses[chosen])) + expected
        };
        // Over the logging policy's draws, the means of both bracket the mean of the plain score, which is the value.
        let rewards = [1.0, 3.0, -1.0];
        let mean = |of: &dyn Fn(usize) -> f64| (0..3).map(|a| logged[a] * of(a)).sum::<f64>();
        let bracket = |chosen: usize| PseudoOutcome::of(chosen, rewards[chosen], &target, &logged, &guesses, &config);
        let value = mean(&|chosen| plain(chosen, rewards[chosen]));
        assert!((value - (0.9 * 0.5 + 0.1 * 1.0)).abs() < 1e-12, "{value}");
        assert!((mean(&|chosen| bracket(chosen).low) - value).abs() < 1e-12, "cutting the guesses keeps the mean");
        assert!((mean(&|chosen| bracket(chosen).high) - value).abs() < 1e-12);
        for chosen in 0..3 {
            let PseudoOutcome { low, high } = bracket(chosen);
            assert!(low >= -config.truncation && high <= 1.0 + config.truncation, "{low} {high}");
        }
    }
}
