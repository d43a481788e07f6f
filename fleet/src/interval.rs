//! How sure the answer is.
//!
//! Each replicate sizes the fleet again from a resampled log and a redrawn profile: arrivals by blocks of consecutive
//! windows (Kuensch, 1989: a block as long as busy times follow each other keeps their correlation), request counts of the cells as Poisson draws
//! about their observed counts (the Poisson bootstrap), and times, memory and efficiency of the profile from their stated
//! errors. The result is a distribution over whole numbers of GPUs.

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Poisson};
use serde::Serialize;

use crate::arrivals::{Window, correlation_windows, plan_of_windows, window_seconds};
use crate::recommend::{Options, Topology};
use crate::sizing::{Load, Slo, with_spares};
use crate::two_pools::size_pair;
use crate::{Arrivals, Cell, GpuProfile, PoolModel, RatePlan};

/// A resample of a sparse log can be empty; its rate is then this instead of zero.
const RATE_MIN_PER_S: f64 = 1e-9;

/// Distribution of the number of GPUs over bootstrap replicates.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Interval {
    /// Lower end, GPUs; `None` where even that end falls on replicates that no fleet serves.
    pub low_gpus: Option<u32>,
    /// Upper end, GPUs; `None` where that end falls on replicates that no fleet serves.
    pub high_gpus: Option<u32>,
    /// Probability that the interval is made for.
    pub confidence: f64,
    /// Replicates drawn.
    pub replicates: u32,
    /// Share of replicates in which no fleet keeps the objectives.
    pub infeasible_share: f64,
    /// Blocks of the log that were resampled, `None` for a stated rate: with few of them the interval is too narrow.
    pub blocks: Option<u32>,
    /// Share of replicates by number of GPUs.
    pub distribution: BTreeMap<u32, f64>,
}

impl Interval {
    /// The interval on the sum of two independent numbers of GPUs. Adding ends instead would be too wide: two fleets seldom
    /// are at their worst together.
    pub fn plus(&self, other: &Self) -> Self {
        let mut distribution = BTreeMap::new();
        for (gpus, share) in &self.distribution {
            for (more_gpus, more_share) in &other.distribution {
                *distribution.entry(gpus + more_gpus).or_insert(0.0) += share * more_share;
            }
        }
        let quantile = |wanted: f64| {
            let mut seen = 0.0;
            // The last share of a sum of rounded shares may fall short by a bit of the wanted one.
            let mut reached = |share: &f64| {
                seen += share;
                seen + 1e-9 >= wanted
            };
            distribution.iter().find(|(_, share)| reached(share)).map(|(gpus, _)| *gpus)
        };
        let tail = (1.0 - self.confidence) / 2.0;
        Self {
            low_gpus: quantile(tail),
            high_gpus: quantile(1.0 - tail),
            confidence: self.confidence,
            replicates: self.replicates.min(other.replicates),
            infeasible_share: 1.0 - (1.0 - self.infeasible_share) * (1.0 - other.infeasible_share),
            blocks: self.blocks.into_iter().chain(other.blocks).min(),
            distribution,
        }
    }
}

pub(crate) struct Bootstrap<'a> {
    pub profile: &'a GpuProfile,
    pub cells: &'a [Cell],
    pub arrivals: &'a Arrivals,
    pub rate: &'a RatePlan,
    pub slo: &'a Slo,
    pub options: &'a Options,
    pub topology: Topology,
}

/// What replicates resample.
struct Observed {
    windows: Vec<Window>,
    /// Windows in a block.
    block: usize,
    seconds: usize,
    /// What the rate is multiplied by.
    factor: f64,
}

impl Bootstrap<'_> {
    pub(crate) fn interval(&self) -> Interval {
        let mut rng = ChaCha8Rng::seed_from_u64(self.options.seed);
        let observed = self.windows();
        let observed = observed.as_ref();
        let mut answers: Vec<Option<u32>> =
            (0..self.options.bootstrap).map(|_| self.replicate(observed, &mut rng)).collect();
        // Infeasible replicates sort last: they need more than any number.
        answers.sort_by_key(|answer| answer.unwrap_or(u32::MAX));
        let tail = (1.0 - self.options.confidence) / 2.0;
        let last = answers.len() - 1;
        let at = |share: f64| answers[((share * last as f64).round() as usize).min(last)];
        let share = 1.0 / answers.len() as f64;
        let mut distribution = BTreeMap::new();
        for gpus in answers.iter().flatten() {
            *distribution.entry(*gpus).or_insert(0.0) += share;
        }
        Interval {
            low_gpus: at(tail),
            high_gpus: at(1.0 - tail),
            confidence: self.options.confidence,
            replicates: self.options.bootstrap,
            infeasible_share: answers.iter().filter(|answer| answer.is_none()).count() as f64 * share,
            blocks: observed.map(|observed| (observed.windows.len() / observed.block) as u32),
            distribution,
        }
    }

    fn windows(&self) -> Option<Observed> {
        self.arrivals.observed().map(|(counts, factor)| {
            let seconds = window_seconds(self.rate.window_s, counts.len());
            let windows: Vec<Window> = counts.chunks_exact(seconds).map(Window::of).collect();
            Observed { block: block_windows(&windows), windows, seconds, factor }
        })
    }

    fn replicate(&self, observed: Option<&Observed>, rng: &mut ChaCha8Rng) -> Option<u32> {
        let rate = match observed {
            None => *self.rate,
            Some(Observed { windows, block, seconds, factor }) => {
                let resampled = resampled_blocks(windows, *block, rng);
                let mut rate = plan_of_windows(&resampled, *seconds, self.options.rate_quantile).scaled(*factor);
                rate.planned_per_s = rate.planned_per_s.max(RATE_MIN_PER_S);
                rate
            }
        };
        let cells: Vec<Cell> = self
            .cells
            .iter()
            .filter_map(|cell| {
                let weight = Poisson::new(cell.weight).map_or(cell.weight, |poisson| poisson.sample(rng));
                (weight > 0.0).then_some(Cell { weight, ..*cell })
            })
            .collect();
        if cells.is_empty() {
            return None;
        }
        let profile = self.profile.drawn(rng);
        gpus_of(&profile, &cells, &rate, self.slo, self.options, self.topology)
    }
}

/// Number of GPUs for a given topology; `None` if no size keeps the objectives.
pub(crate) fn gpus_of(
    profile: &GpuProfile,
    cells: &[Cell],
    rate: &RatePlan,
    slo: &Slo,
    options: &Options,
    topology: Topology,
) -> Option<u32> {
    match topology {
        Topology::OnePool => {
            let model = PoolModel::new(profile, cells, options.kv_quantile)?;
            let instances = Load::new(&model, rate, 1.0).size(slo, options).ok()?;
            Some(with_spares(instances, options) * profile.gpus())
        }
        Topology::TwoPools { boundary_tokens } => {
            let pair = size_pair(profile, cells, rate, slo, options, boundary_tokens).ok()?;
            pair.map(|pair| pair.gpus)
        }
    }
}

/// Windows in a block: the cube root of their number, the order that minimises the error of a block bootstrap's variance
/// (Kuensch, 1989), and no less than the time for which busy windows follow each other. A log that is hardly longer than
/// that time is cut into four all the same: one block would give the same log again, and no interval.
fn block_windows(windows: &[Window]) -> usize {
    let by_number = (windows.len() as f64).cbrt().ceil() as usize;
    by_number.max(correlation_windows(windows)).min(windows.len() / 4).max(1)
}

/// Blocks of consecutive windows, drawn with replacement and wrapping round, up to the original length.
fn resampled_blocks(windows: &[Window], block: usize, rng: &mut impl Rng) -> Vec<Window> {
    let mut resampled = Vec::with_capacity(windows.len() + block);
    while resampled.len() < windows.len() {
        let start = rng.random_range(0..windows.len());
        resampled.extend((0..block).map(|offset| windows[(start + offset) % windows.len()]));
    }
    resampled.truncate(windows.len());
    resampled
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(shares: &[(u32, f64)]) -> Interval {
        let feasible: f64 = shares.iter().map(|(_, share)| share).sum();
        Interval {
            low_gpus: None,
            high_gpus: None,
            confidence: 0.9,
            replicates: 100,
            infeasible_share: 1.0 - feasible,
            blocks: None,
            distribution: shares.iter().copied().collect(),
        }
    }

    /// Each is above 10 in one world of ten, so both are in one of a hundred.
    #[test]
    fn the_interval_of_a_sum_is_narrower_than_the_sum_of_intervals() {
        let one = interval(&[(10, 0.9), (20, 0.1)]);
        let sum = one.plus(&one);
        assert_eq!(sum.distribution.keys().copied().collect::<Vec<_>>(), [20, 30, 40]);
        assert!((sum.distribution[&30] - 0.18).abs() < 1e-12);
        assert_eq!((sum.low_gpus, sum.high_gpus), (Some(20), Some(30)));
    }

    #[test]
    fn a_sum_with_an_infeasible_part_has_no_upper_end() {
        let sum = interval(&[(10, 1.0)]).plus(&interval(&[(4, 0.9)]));
        assert_eq!((sum.low_gpus, sum.high_gpus), (Some(14), None));
        assert!((sum.infeasible_share - 0.1).abs() < 1e-12);
        assert_eq!(interval(&[(10, 1.0)]).plus(&interval(&[])).low_gpus, None);
    }

    fn windows(counts: impl Iterator<Item = u32>) -> Vec<Window> {
        counts.map(|count| Window::of(&[count])).collect()
    }

    #[test]
    fn a_block_is_as_long_as_busy_times_last() {
        let slow = windows((0..6000).map(|t| if t / 200 * 5 % 13 < 6 { 300 } else { 100 }));
        assert!(block_windows(&slow) >= 100, "{}", block_windows(&slow));
        let fast = windows((0..6000_u32).map(|t| 100 + t.wrapping_mul(2_654_435_761) % 97));
        assert_eq!(block_windows(&fast), 19);
        // A log that only rises is busy for as long as it lasts, and is still cut.
        assert_eq!(block_windows(&windows(0..100)), 25);
        assert_eq!(block_windows(&windows(0..2)), 1);
    }
}
