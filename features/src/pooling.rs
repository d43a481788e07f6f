//! Rates of cells that borrow from each other: partial pooling of counts along a hierarchy.
//!
//! A model that was checked three times on law and never failed is not flawless there. What it does on other subjects, and
//! what other models do, says what to expect; how much that counts depends on how much the cells differ, which the data
//! tell too. Cells of one parent have rates `p ~ Beta(m k, (1 - m) k)`: `m` is the parent's own rate, `k`, shared by a level,
//! how alike its cells are. Both are integrated over a grid rather than fixed at their best values, so that intervals of
//! few and small cells do not come out too narrow (Gelman et al., Bayesian Data Analysis, 3rd ed., 5.3).
//!
//! The levels are joined by two passes. Upwards, each parent's posterior of `m` is summed up as counts, which are a cell of
//! the level above. Downwards, what the level above knows is the parent's prior. The mixtures over the grid are given as the
//! Beta distribution of their mean and variance.

use std::f64::consts::PI;

use statrs::distribution::{Beta, ContinuousCDF};
use statrs::function::gamma::ln_gamma;

/// Grid of a parent's rate: equal steps of its arcsine, so that it is fine near 0 and 1.
const RATES: usize = 48;
/// Grid of how alike cells are, in equal steps of its logarithm.
const CONCENTRATIONS: usize = 18;
const CONCENTRATION_MIN: f64 = 0.5;
const CONCENTRATION_MAX: f64 = 3_000.0;
/// Median of its prior `c / (c + k)^2`: the share that a cell of so many trials takes from its own data is uniform.
const CONCENTRATION_MEDIAN: f64 = 30.0;
/// Least pseudo-count of a posterior, so that it has quantiles.
const COUNT_MIN: f64 = 1e-3;

/// A cell of the lowest level.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Counts {
    /// How often it was so, of `trials`; weights may make it a fraction.
    pub successes: f64,
    /// How often it could have been so.
    pub trials: f64,
}

/// What is known of a rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    alpha: f64,
    beta: f64,
}

impl Rate {
    /// The expected rate.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.alpha / (self.alpha + self.beta)
    }

    /// The rate below which it lies with probability `q`, 0 to 1.
    #[must_use]
    pub fn quantile(&self, q: f64) -> f64 {
        Beta::new(self.alpha, self.beta).map_or(f64::NAN, |beta| beta.inverse_cdf(q.clamp(0.0, 1.0)))
    }

    /// How many observations what is known weighs as much as.
    #[must_use]
    pub fn weight(&self) -> f64 {
        self.alpha + self.beta
    }

    /// The Beta distribution of a mean and a variance.
    fn of_moments(mean: f64, variance: f64) -> Self {
        let mean = mean.clamp(1e-9, 1.0 - 1e-9);
        let weight = (mean * (1.0 - mean) / variance.max(1e-12) - 1.0).max(COUNT_MIN);
        Self { alpha: (mean * weight).max(COUNT_MIN), beta: ((1.0 - mean) * weight).max(COUNT_MIN) }
    }

    fn variance(&self) -> f64 {
        self.mean() * (1.0 - self.mean()) / (self.weight() + 1.0)
    }
}

/// The rates of the nodes of one level, in order.
pub type Level = Vec<Rate>;

/// Pools cells along a hierarchy. `parents[d][i]` is the place, among the nodes of level `d - 1`, of the parent of node `i` of
/// level `d`; all nodes of level 0 are of one root. `cells` are the counts of the nodes of the last level. What comes back are
/// the rates of every level's nodes, the highest first. A node of an inner level is the mean of the cells that are like its
/// children, each counted once, however much traffic it has.
///
/// # Panics
/// When the last level has not as many nodes as there are cells, or a parent is not there.
#[must_use]
pub fn pool(parents: &[Vec<usize>], cells: &[Counts]) -> Vec<Level> {
    let grid = Grid::new();
    let mut fits: Vec<Fit> = Vec::with_capacity(parents.len());
    let mut counts = cells.to_vec();
    for depth in (0..parents.len()).rev() {
        let groups = depth.checked_sub(1).map_or(1, |above| parents[above].len());
        let fit = Fit::new(&grid, &parents[depth], groups, counts);
        counts = fit.summed_up(&grid);
        fits.push(fit);
    }
    let mut levels = Vec::with_capacity(parents.len());
    // The root has seen nothing but what is below it.
    let mut priors = vec![Rate { alpha: 1.0, beta: 1.0 }];
    for fit in fits.iter().rev() {
        let (rates, below) = fit.rates(&grid, &priors);
        levels.push(rates);
        priors = below;
    }
    levels
}

struct Grid {
    rates: [f64; RATES],
    /// ln of the step's width.
    rate_steps: [f64; RATES],
    concentrations: [f64; CONCENTRATIONS],
    /// ln of the prior, with the step's width.
    concentration_priors: [f64; CONCENTRATIONS],
}

impl Grid {
    fn new() -> Self {
        let angle = |i: usize| PI / 2.0 * (i as f64 + 0.5) / RATES as f64;
        let rates = std::array::from_fn(|i| angle(i).sin().powi(2));
        let rate_steps = std::array::from_fn(|i| (2.0 * angle(i)).sin().ln());
        let step = (CONCENTRATION_MAX / CONCENTRATION_MIN).ln() / (CONCENTRATIONS - 1) as f64;
        let concentrations = std::array::from_fn(|i| CONCENTRATION_MIN * (step * i as f64).exp());
        let prior = |k: f64| (CONCENTRATION_MEDIAN * k / (CONCENTRATION_MEDIAN + k).powi(2)).ln();
        Self { rates, rate_steps, concentration_priors: concentrations.map(prior), concentrations }
    }
}

/// One level: its cells, and how likely they are at each point of the grid.
struct Fit {
    cells: Vec<Counts>,
    parents: Vec<usize>,
    /// For each parent, concentration by rate: ln of the likelihood of its cells.
    likelihoods: Vec<Box<[[f64; RATES]; CONCENTRATIONS]>>,
    /// Posterior of the concentration, a share each.
    concentrations: [f64; CONCENTRATIONS],
}

impl Fit {
    fn new(grid: &Grid, parents: &[usize], groups: usize, cells: Vec<Counts>) -> Self {
        assert_eq!(parents.len(), cells.len(), "every cell has a parent");
        let mut likelihoods: Vec<_> = (0..groups).map(|_| Box::new([[0.0; RATES]; CONCENTRATIONS])).collect();
        for (at, k) in grid.concentrations.iter().enumerate() {
            for (rate, m) in grid.rates.iter().enumerate() {
                let (a, b) = (m * k, (1.0 - m) * k);
                let without = ln_gamma(a) + ln_gamma(b) - ln_gamma(*k);
                for (cell, parent) in cells.iter().zip(parents) {
                    if cell.trials > 0.0 {
                        let (yes, no) = (a + cell.successes, b + cell.trials - cell.successes);
                        let with = ln_gamma(yes) + ln_gamma(no) - ln_gamma(k + cell.trials);
                        likelihoods[*parent][at][rate] += with - without;
                    }
                }
            }
        }
        let mut fit = Self { cells, parents: parents.to_vec(), likelihoods, concentrations: [0.0; CONCENTRATIONS] };
        fit.concentrations = shares(&std::array::from_fn::<_, CONCENTRATIONS, _>(|at| {
            let of_groups = fit.likelihoods.iter().map(|of_group| {
                ln_sum(&std::array::from_fn::<_, RATES, _>(|rate| of_group[at][rate] + grid.rate_steps[rate]))
            });
            grid.concentration_priors[at] + of_groups.sum::<f64>()
        }));
        fit
    }

    /// Shares of each rate and concentration for a parent with that prior of its rate.
    fn posterior(&self, grid: &Grid, group: usize, prior: Rate) -> Vec<(f64, f64, f64)> {
        let ln_prior: [f64; RATES] = std::array::from_fn(|rate| {
            let m = grid.rates[rate];
            (prior.alpha - 1.0) * m.ln() + (prior.beta - 1.0) * (1.0 - m).ln() + grid.rate_steps[rate]
        });
        let mut points = Vec::with_capacity(RATES * CONCENTRATIONS);
        for (at, k) in grid.concentrations.iter().enumerate() {
            let of_rate =
                shares(&std::array::from_fn::<_, RATES, _>(|rate| self.likelihoods[group][at][rate] + ln_prior[rate]));
            let share = self.concentrations[at];
            points.extend(grid.rates.iter().zip(of_rate).map(|(m, of_rate)| (*m, *k, share * of_rate)));
        }
        // What is left out is a millionth of the whole.
        points.retain(|(_, _, share)| *share > 1e-9);
        points
    }

    /// What each parent's cells say of its own rate, as counts.
    fn summed_up(&self, grid: &Grid) -> Vec<Counts> {
        let uniform = Rate { alpha: 1.0, beta: 1.0 };
        let counts = |group: usize| {
            let posterior = self.posterior(grid, group, uniform);
            let rate = moments(posterior.iter().map(|(m, _, share)| (*share, *m, 0.0)));
            let (yes, no) = ((rate.alpha - 1.0).max(0.0), (rate.beta - 1.0).max(0.0));
            Counts { successes: yes, trials: yes + no }
        };
        (0..self.likelihoods.len()).map(counts).collect()
    }

    /// The rates of the cells, and the priors that each would have without its own counts.
    fn rates(&self, grid: &Grid, priors: &[Rate]) -> (Level, Vec<Rate>) {
        let posteriors: Vec<_> =
            (0..self.likelihoods.len()).map(|group| self.posterior(grid, group, priors[group])).collect();
        let mixture = |group: usize, cell: Counts| {
            moments(posteriors[group].iter().map(|(m, k, share)| {
                let alpha = m * k + cell.successes;
                let rate = Rate { alpha, beta: (1.0 - m) * k + cell.trials - cell.successes };
                (*share, rate.mean(), rate.variance())
            }))
        };
        let nothing = Counts { successes: 0.0, trials: 0.0 };
        let below = self.parents.iter().map(|group| mixture(*group, nothing)).collect();
        (self.cells.iter().zip(&self.parents).map(|(cell, group)| mixture(*group, *cell)).collect(), below)
    }
}

/// The Beta distribution of the mean and variance of a mixture of (share, mean, variance).
fn moments(parts: impl Iterator<Item = (f64, f64, f64)>) -> Rate {
    let (mut total, mut first, mut second) = (0.0, 0.0, 0.0);
    for (share, mean, variance) in parts {
        total += share;
        first += share * mean;
        second += share * (variance + mean * mean);
    }
    let mean = first / total;
    Rate::of_moments(mean, second / total - mean * mean)
}

/// ln of the sum of what these are the logarithms of.
fn ln_sum(logarithms: &[f64]) -> f64 {
    let most = logarithms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    most + logarithms.iter().map(|ln| (ln - most).exp()).sum::<f64>().ln()
}

/// Each as a share of the sum.
fn shares<const N: usize>(logarithms: &[f64; N]) -> [f64; N] {
    let total = ln_sum(logarithms);
    logarithms.map(|ln| (ln - total).exp())
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    use rand_distr::{Beta as BetaLaw, Binomial, Distribution};

    use super::*;

    fn counts(successes: f64, trials: f64) -> Counts {
        Counts { successes, trials }
    }

    #[test]
    fn a_cell_with_much_evidence_keeps_its_rate_and_one_with_little_takes_the_others() {
        let cells = [counts(500.0, 10_000.0), counts(490.0, 10_000.0), counts(510.0, 10_000.0), counts(2.0, 3.0)];
        let levels = pool(&[vec![0, 0, 0, 0]], &cells);
        assert!((levels[0][0].mean() - 0.05).abs() < 0.002, "{:?}", levels[0][0].mean());
        // Alone, two of three are 67 %; three cells that agree on 5 % say that they were bad luck.
        assert!(levels[0][3].mean() < 0.2, "{}", levels[0][3].mean());
        // Where cells differ widely, they say little of each other.
        let cells = [counts(500.0, 10_000.0), counts(9_000.0, 10_000.0), counts(4_000.0, 10_000.0), counts(2.0, 3.0)];
        let levels = pool(&[vec![0, 0, 0, 0]], &cells);
        assert!(levels[0][3].mean() > 0.4, "{}", levels[0][3].mean());
    }

    #[test]
    fn without_evidence_a_cell_is_what_its_parent_is_and_knows_less() {
        let parents = [vec![0, 0], vec![0, 0, 0, 1, 1, 1]];
        let cells = [
            counts(10.0, 1_000.0),
            counts(12.0, 1_000.0),
            counts(0.0, 0.0),
            counts(300.0, 1_000.0),
            counts(320.0, 1_000.0),
            counts(0.0, 0.0),
        ];
        let levels = pool(&parents, &cells);
        let (good, bad) = (levels[1][2], levels[1][5]);
        assert!(good.mean() < 0.1 && (0.2..0.45).contains(&bad.mean()), "{} {}", good.mean(), bad.mean());
        assert!(
            good.quantile(0.975) - good.quantile(0.025) > levels[1][0].quantile(0.975) - levels[1][0].quantile(0.025)
        );
    }

    #[test]
    fn one_cell_alone_is_near_its_own_counts_with_an_interval_like_jeffreys() {
        // Jeffreys' interval of 40 of 200, from Brown, Cai and DasGupta 2001: 0.149 to 0.259.
        let rate = pool(&[vec![0]], &[counts(40.0, 200.0)])[0][0];
        assert!((rate.mean() - 0.2).abs() < 0.01, "{}", rate.mean());
        assert!((rate.quantile(0.025) - 0.149).abs() < 0.01 && (rate.quantile(0.975) - 0.259).abs() < 0.01);
    }

    /// Worlds of models and domains with known rates and few, uneven counts: how often the interval holds the rate.
    fn coverage(
        seeds: u64,
        kind: impl Fn(&mut StdRng) -> Vec<Vec<f64>>,
        trials: impl Fn(&mut StdRng) -> u64,
    ) -> (f64, f64) {
        let (mut held, mut all, mut width) = (0.0, 0.0, 0.0);
        for seed in 0..seeds {
            let mut random = StdRng::seed_from_u64(seed);
            let truth = kind(&mut random);
            let domains = truth[0].len();
            let parents = [vec![0; truth.len()], (0..truth.len() * domains).map(|cell| cell / domains).collect()];
            let rates: Vec<f64> = truth.concat();
            let cells: Vec<Counts> = rates
                .iter()
                .map(|rate| {
                    let n = trials(&mut random);
                    let law = Binomial::new(n, *rate).expect("a rate");
                    counts(law.sample(&mut random) as f64, n as f64)
                })
                .collect();
            for (rate, found) in rates.iter().zip(&pool(&parents, &cells)[1]) {
                let (low, high) = (found.quantile(0.025), found.quantile(0.975));
                held += f64::from(low <= *rate && *rate <= high);
                width += high - low;
                all += 1.0;
            }
        }
        (held / all, width / all)
    }

    fn drawn(random: &mut StdRng, mean: f64, k: f64) -> f64 {
        BetaLaw::new(mean * k, (1.0 - mean) * k).expect("a law").sample(random)
    }

    #[test]
    fn intervals_hold_the_truth_as_often_as_they_say() {
        // From the hierarchy itself, and from models and domains with effects that add up: an assumption that is wrong.
        let nested = |random: &mut StdRng| {
            let means: Vec<f64> = (0..4).map(|_| drawn(random, 0.15, 12.0).clamp(0.01, 0.99)).collect();
            means.iter().map(|mean| (0..6).map(|_| drawn(random, *mean, 30.0)).collect()).collect()
        };
        let additive = |random: &mut StdRng| {
            let models: Vec<f64> = (0..4).map(|_| random.random_range(-0.8..0.8)).collect();
            let domains: Vec<f64> = (0..6).map(|_| random.random_range(-0.8..0.8)).collect();
            let rate = |logit: f64| 1.0 / (1.0 + (-logit).exp());
            models.iter().map(|model| domains.iter().map(|domain| rate(-1.7 + model + domain)).collect()).collect()
        };
        let sparse = |random: &mut StdRng| random.random_range(0..20);
        let uneven = |random: &mut StdRng| 10_f64.powf(random.random_range(0.0..3.5)) as u64;
        for (world, trials, found) in [
            ("nested", "sparse", coverage(500, nested, sparse)),
            ("nested", "uneven", coverage(500, nested, uneven)),
            ("additive", "sparse", coverage(500, additive, sparse)),
            ("additive", "uneven", coverage(500, additive, uneven)),
        ] {
            println!("{world}, {trials}: {:.3} of intervals of 95 % hold the rate; mean width {:.3}", found.0, found.1);
            assert!(found.0 > 0.93, "{world}, {trials}: {:.3}", found.0);
        }
    }
}
