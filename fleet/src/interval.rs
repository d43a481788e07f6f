//! How sure the answer is.
//!
//! Each replicate sizes the fleet again from a resampled log and a redrawn profile: arrivals by blocks of consecutive
//! windows (Kuensch, 1989: a block keeps the correlation of busy times), request counts of the cells as Poisson draws
//! about their observed counts (the Poisson bootstrap), and times, memory and efficiency of the profile from their stated
//! errors. The result is a distribution over whole numbers of GPUs.

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Poisson};
use serde::Serialize;

use crate::arrivals::{Window, plan_of_windows, window_seconds};
use crate::recommend::{Options, Topology};
use crate::sizing::{Load, Slo};
use crate::two_pools::size_pair;
use crate::{Arrivals, Cell, GpuProfile, PoolModel, RatePlan};

/// A resample of a sparse log can be empty; its rate is then this instead of zero.
const RATE_MIN_PER_S: f64 = 1e-9;

/// Distribution of the number of GPUs over bootstrap replicates.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Interval {
    /// Lower end, GPUs.
    pub low_gpus: u32,
    /// Upper end, GPUs; `None` where that end falls on replicates that no fleet serves.
    pub high_gpus: Option<u32>,
    /// Probability that the interval is made for.
    pub confidence: f64,
    /// Replicates drawn.
    pub replicates: u32,
    /// Share of replicates in which no fleet keeps the objectives.
    pub infeasible_share: f64,
    /// Share of replicates by number of GPUs.
    pub distribution: BTreeMap<u32, f64>,
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
    seconds: usize,
    /// What the rate is multiplied by.
    factor: f64,
}

impl Bootstrap<'_> {
    pub(crate) fn interval(&self) -> Interval {
        let mut rng = ChaCha8Rng::seed_from_u64(self.options.seed);
        let observed = self.windows();
        let mut answers: Vec<Option<u32>> =
            (0..self.options.bootstrap).map(|_| self.replicate(observed.as_ref(), &mut rng)).collect();
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
            low_gpus: at(tail).unwrap_or(u32::MAX),
            high_gpus: at(1.0 - tail),
            confidence: self.options.confidence,
            replicates: self.options.bootstrap,
            infeasible_share: answers.iter().filter(|answer| answer.is_none()).count() as f64 * share,
            distribution,
        }
    }

    fn windows(&self) -> Option<Observed> {
        self.arrivals.observed().map(|(counts, factor)| {
            let seconds = window_seconds(self.rate.window_s, counts.len());
            Observed { windows: counts.chunks_exact(seconds).map(Window::of).collect(), seconds, factor }
        })
    }

    fn replicate(&self, observed: Option<&Observed>, rng: &mut ChaCha8Rng) -> Option<u32> {
        let rate = match observed {
            None => *self.rate,
            Some(Observed { windows, seconds, factor }) => {
                let resampled = resampled_blocks(windows, rng);
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
            let spares = crate::sizing::spares(instances, options.availability, options.availability_target);
            Some((instances + spares) * profile.gpus())
        }
        Topology::TwoPools { boundary_tokens } => {
            let pair = size_pair(profile, cells, rate, slo, options, boundary_tokens).ok()?;
            pair.map(|pair| pair.gpus)
        }
    }
}

/// Blocks of consecutive windows, drawn with replacement and wrapping round, up to the original length.
///
/// Block length is the cube root of the number of windows, the order that minimises the error of a block bootstrap's
/// variance (Kuensch, 1989).
fn resampled_blocks(windows: &[Window], rng: &mut impl Rng) -> Vec<Window> {
    let block = (windows.len() as f64).cbrt().ceil() as usize;
    let mut resampled = Vec::with_capacity(windows.len() + block);
    while resampled.len() < windows.len() {
        let start = rng.random_range(0..windows.len());
        resampled.extend((0..block).map(|offset| windows[(start + offset) % windows.len()]));
    }
    resampled.truncate(windows.len());
    resampled
}
