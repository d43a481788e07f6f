//! How much bias is worth how much variance? SLOPE chooses without knowing the bias.
//!
//! Candidates are put in the order of their widths, the widest, least biased first. As long as the intervals of all up to one meet,
//! the data cannot tell its bias from noise; the last such one is chosen. Its error is within a factor of `√6 + 3` of the best
//! candidate's, with the probability that all intervals hold. They are of one standard error here: wider ones promise that more surely,
//! and let in a bias of twice their width, which the same rows would show. Su, Srinath and Krishnamurthy, ICML 2020, theorem 1: `i` is taken while
//! `|θ_i - θ_j| ≤ c_i + (√6 - 1) c_j` for all j before it, with `c` the half-widths.

use super::catalogue::{Parameters, Shrinkage};
use super::rounds::Rounds;
use super::sheet::{Formula, Sheet};

/// Steps of a grid, each a fraction of the one before.
const STEPS: usize = 8;

/// The parameters with what is missing chosen.
pub(super) fn tuned(rounds: &Rounds, given: Parameters) -> Parameters {
    let weights = rounds.target.values().iter().zip(rounds.propensity.values().iter()).map(|(target, p)| target / p);
    let largest = weights.fold(0.0, f64::max).max(1.0);
    // From "no weight is altered" down to the weight of the logging policy's own choices.
    let ratio = largest.powf(1.0 / (STEPS - 1) as f64);
    let caps: Vec<f64> = (0..STEPS).map(|step| largest / ratio.powi(step as i32)).collect();
    let squares: Vec<f64> = std::iter::once(f64::INFINITY).chain(caps.iter().map(|cap| cap * cap)).collect();
    let shares: Vec<f64> =
        std::iter::once(0.0).chain((0..STEPS - 1).rev().map(|step| 0.3_f64.powi(step as i32 + 1))).collect();
    let choose = |grid: &[f64], shrinkage: fn(f64) -> Shrinkage, with_guesses: bool| {
        let candidates: Vec<(f64, f64)> =
            grid.iter().map(|lambda| candidate(rounds, shrinkage(*lambda), with_guesses)).collect();
        grid[slope(&candidates)]
    };
    let with_guesses = rounds.guesses.is_some();
    Parameters {
        clip: given.clip.or_else(|| Some(choose(&caps, Shrinkage::Clip, false))),
        switch: given.switch.or_else(|| with_guesses.then(|| choose(&caps, Shrinkage::Switch, true))),
        shrink: given.shrink.or_else(|| with_guesses.then(|| choose(&squares, Shrinkage::Optimistic, true))),
        sub_gaussian_ips: given.sub_gaussian_ips.or_else(|| Some(choose(&shares, Shrinkage::SubGaussian, false))),
        sub_gaussian_dr: given
            .sub_gaussian_dr
            .or_else(|| with_guesses.then(|| choose(&shares, Shrinkage::SubGaussian, true))),
    }
}

/// Estimate and half-width of its interval.
fn candidate(rounds: &Rounds, shrinkage: Shrinkage, with_guesses: bool) -> (f64, f64) {
    let (rewards, propensities, targets) = (rounds.reward.values(), rounds.propensity.values(), rounds.target.values());
    let guesses = rounds.guesses.as_ref().filter(|_| with_guesses);
    let sheet = Sheet::new(rounds.clusters, 2, |values| {
        for row in 0..rounds.len() {
            let w = shrinkage.of(targets[row] / propensities[row]);
            let score = match guesses {
                Some([logged, policy]) => policy.value(row) + w * (rewards[row] - logged.value(row)),
                None => w * rewards[row],
            };
            let sums = &mut values[2 * rounds.cluster[row]..][..2];
            sums[0] += 1.0;
            sums[1] += score;
        }
    });
    let formula = Formula::ratio(&[(1, 1.0)], 0);
    (formula.of(sheet.totals()), formula.standard_error(&sheet).unwrap_or(f64::INFINITY))
}

/// Which of the candidates, estimates with half-widths in the order of growing bias.
fn slope(candidates: &[(f64, f64)]) -> usize {
    let beside = 6.0_f64.sqrt() - 1.0;
    let mut chosen = 0;
    for (index, (value, half)) in candidates.iter().enumerate() {
        let meets = |(other, other_half): &(f64, f64)| (value - other).abs() <= half + beside * other_half;
        // A candidate that is wider than one that is less biased has nothing to offer.
        let narrower = candidates[..index].iter().all(|(_, other_half)| half <= other_half);
        if narrower && candidates[..index].iter().all(meets) {
            chosen = index;
        } else if narrower {
            break;
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::slope;

    #[test]
    fn the_last_candidate_whose_bias_is_hidden_by_noise_is_taken() {
        // By hand: 0.5 ± 0.4, then 0.6 ± 0.2 (apart by 0.1 ≤ 0.2 + 1.449 · 0.4), then 1.4 ± 0.1 (apart by 0.9 > 0.1 + 0.58).
        assert_eq!(slope(&[(0.5, 0.4), (0.6, 0.2), (1.4, 0.1), (0.5, 0.01)]), 1);
        assert_eq!(slope(&[(0.5, 0.4)]), 0);
        // Nothing tells them apart: the narrowest.
        assert_eq!(slope(&[(0.5, 0.4), (0.5, 0.3), (0.5, 0.2)]), 2);
        // A wider one in between is passed over.
        assert_eq!(slope(&[(0.5, 0.3), (0.5, 0.35), (0.5, 0.2)]), 2);
    }
}
