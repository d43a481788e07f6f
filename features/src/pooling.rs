//! Rates of cells that borrow from each other: partial pooling of counts along a hierarchy.
//!
//! A model that was checked three times on law and never failed is not flawless there. What it does on other subjects, and
//! what other models do, says what to expect; how much that counts depends on how much the cells differ, which the data
//! tell too. Cells of one parent have rates `p ~ Beta(m k, (1 - m) k)`: `m` is the parent's own rate, `k`, shared by a level,
//! how alike its cells are. Both are integrated over a grid rather than fixed at their best values, so that intervals of
//! few and small cells do not come out too narrow (Gelman et al., Bayesian Data Analysis, 3rd ed., 5.3).
//!
//! The levels are joined by two passes. Upwards, each parent's posterior of `m` is summed up as counts, which are a cell of
//! the level above. Downwards, what the level above knows of a parent without its own counts is its prior.

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
const CONCENTRATION_MEDIAN: f64 = 10.0;
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

/// A Beta distribution.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Law {
    alpha: f64,
    beta: f64,
}

impl Law {
    const UNIFORM: Self = Self { alpha: 1.0, beta: 1.0 };

    fn mean(&self) -> f64 {
        self.alpha / (self.alpha + self.beta)
    }

    fn variance(&self) -> f64 {
        self.mean() * (1.0 - self.mean()) / (self.alpha + self.beta + 1.0)
    }

    /// The one with that mean and variance.
    fn of_moments(mean: f64, variance: f64) -> Self {
        let mean = mean.clamp(1e-9, 1.0 - 1e-9);
        let weight = (mean * (1.0 - mean) / variance.max(1e-12) - 1.0).max(COUNT_MIN);
        Self { alpha: (mean * weight).max(COUNT_MIN), beta: ((1.0 - mean) * weight).max(COUNT_MIN) }
    }
}

/// What is known of a rate: a mixture of Beta distributions, one for each part of the grid that has a say.
#[derive(Debug, Clone, PartialEq)]
pub struct Rate {
    /// Shares add up to 1.
    parts: Vec<(f64, Law)>,
}

impl Rate {
    /// The expected rate.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.parts.iter().map(|(share, law)| share * law.mean()).sum()
    }

    /// The probability that it is at most `rate`.
    #[must_use]
    pub fn at_most(&self, rate: f64) -> f64 {
        let rate = rate.clamp(0.0, 1.0);
        let of = |law: &Law| Beta::new(law.alpha, law.beta).map_or(f64::NAN, |beta| beta.cdf(rate));
        self.parts.iter().map(|(share, law)| share * of(law)).sum()
    }

    /// The rate that it is at most with probability `q`, 0 to 1, to a hundred-thousandth of the probability.
    #[must_use]
    pub fn quantile(&self, q: f64) -> f64 {
        let mean = self.mean();
        let second: f64 = self.parts.iter().map(|(share, law)| share * (law.variance() + law.mean().powi(2))).sum();
        let reach = 4.0 * (second - mean * mean).max(0.0).sqrt();
        let over = |rate: f64| self.at_most(rate) - q;
        let (mut low, mut high) = ((mean - reach).max(0.0), (mean + reach).min(1.0));
        let (mut under, mut above) = (over(low), over(high));
        if under > 0.0 {
            (low, under) = (0.0, -q);
        }
        if above < 0.0 {
            (high, above) = (1.0, 1.0 - q);
        }
        // False position in which the end that stays counts half, so that it gives way (Dowell and Jarratt 1971 do so from its
        // second stay on); every third step is a bisection, for laws that are steep at an end.
        for step in 0..100 {
            let middle = match step % 3 {
                2 => f64::midpoint(low, high),
                _ => (low * above - high * under) / (above - under),
            };
            let found = over(middle);
            if found.abs() < 1e-5 || high - low < 1e-12 {
                return middle;
            }
            if found < 0.0 {
                (low, under, above) = (middle, found, above / 2.0);
            } else {
                (high, above, under) = (middle, found, under / 2.0);
            }
        }
        f64::midpoint(low, high)
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
    let mut priors = vec![Law::UNIFORM];
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

    /// ln of a prior of a rate over the grid, up to a constant.
    fn ln_prior(&self, prior: Law) -> [f64; RATES] {
        std::array::from_fn(|rate| {
            let m = self.rates[rate];
            (prior.alpha - 1.0) * m.ln() + (prior.beta - 1.0) * (1.0 - m).ln() + self.rate_steps[rate]
        })
    }
}

/// One level: its cells, and how likely they are at each point of the grid.
struct Fit {
    cells: Vec<Counts>,
    parents: Vec<usize>,
    /// For each parent, concentration by rate: ln of the likelihood of its cells.
    likelihoods: Vec<Box<[[f64; RATES]; CONCENTRATIONS]>>,
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
        Self { cells, parents: parents.to_vec(), likelihoods }
    }

    /// Shares of each concentration, from the cells of all parents, whose rates have these priors.
    fn concentrations(&self, grid: &Grid, priors: &[Law]) -> [f64; CONCENTRATIONS] {
        let priors: Vec<_> = priors.iter().map(|prior| grid.ln_prior(*prior)).collect();
        shares(&std::array::from_fn::<_, CONCENTRATIONS, _>(|at| {
            let of_groups = self.likelihoods.iter().zip(&priors).map(|(of_group, prior)| {
                ln_sum(&std::array::from_fn::<_, RATES, _>(|rate| of_group[at][rate] + prior[rate])) - ln_sum(prior)
            });
            grid.concentration_priors[at] + of_groups.sum::<f64>()
        }))
    }

    /// Shares of each rate and concentration for a parent with that prior of its rate.
    fn posterior(&self, grid: &Grid, group: usize, prior: Law, of: &[f64; CONCENTRATIONS]) -> Vec<Point> {
        let ln_prior = grid.ln_prior(prior);
        let mut points = Vec::with_capacity(RATES * CONCENTRATIONS);
        for (at, k) in grid.concentrations.iter().enumerate() {
            let of_rate =
                shares(&std::array::from_fn::<_, RATES, _>(|rate| self.likelihoods[group][at][rate] + ln_prior[rate]));
            points.extend(grid.rates.iter().zip(of_rate).enumerate().map(|(rate, (m, of_rate))| Point {
                rate,
                concentration: at,
                m: *m,
                k: *k,
                share: of[at] * of_rate,
            }));
        }
        // What is left out is a millionth of the whole.
        points.retain(|point| point.share > 1e-9);
        points
    }

    /// What each parent's cells say of its own rate, as counts.
    fn summed_up(&self, grid: &Grid) -> Vec<Counts> {
        let concentrations = self.concentrations(grid, &vec![Law::UNIFORM; self.likelihoods.len()]);
        let counts = |group: usize| {
            let posterior = self.posterior(grid, group, Law::UNIFORM, &concentrations);
            let rate = moments(posterior.iter().map(|point| (point.share, point.m, 0.0)));
            let (yes, no) = ((rate.alpha - 1.0).max(0.0), (rate.beta - 1.0).max(0.0));
            Counts { successes: yes, trials: yes + no }
        };
        (0..self.likelihoods.len()).map(counts).collect()
    }

    /// The rates of the cells, and the prior of each: what the others say of it, its own counts left out.
    fn rates(&self, grid: &Grid, priors: &[Law]) -> (Level, Vec<Law>) {
        let concentrations = self.concentrations(grid, priors);
        let posteriors: Vec<_> = (0..self.likelihoods.len())
            .map(|group| self.posterior(grid, group, priors[group], &concentrations))
            .collect();
        let with = |cell: &Counts, group: &usize| Rate {
            parts: parts(&posteriors[*group], |Point { m, k, share, .. }| {
                let law = Law { alpha: m * k + cell.successes, beta: (1.0 - m) * k + cell.trials - cell.successes };
                (*share, law.mean(), law.variance())
            }),
        };
        let without = |cell: &Counts, group: &usize| {
            let points = &posteriors[*group];
            let ln =
                |point: &Point| point.share.ln() - ln_likelihood(point.m * point.k, (1.0 - point.m) * point.k, *cell);
            let most = points.iter().map(ln).fold(f64::NEG_INFINITY, f64::max);
            moments(points.iter().map(|point| {
                let law = Law { alpha: point.m * point.k, beta: (1.0 - point.m) * point.k };
                ((ln(point) - most).exp(), law.mean(), law.variance())
            }))
        };
        let cells = || self.cells.iter().zip(&self.parents);
        (
            cells().map(|(cell, group)| with(cell, group)).collect(),
            cells().map(|(cell, group)| without(cell, group)).collect(),
        )
    }
}

/// Points of the grid together in parts of so many: each becomes the Beta distribution of its mean and variance.
fn parts(points: &[Point], of: impl Fn(&Point) -> (f64, f64, f64)) -> Vec<(f64, Law)> {
    const RATES_A_PART: usize = 4;
    const CONCENTRATIONS_A_PART: usize = 3;
    // A part with less of a share than this moves no quantile that anyone asks for.
    const SHARE_MIN: f64 = 1e-4;
    let mut parts =
        vec![(0.0, 0.0, 0.0); RATES.div_ceil(RATES_A_PART) * CONCENTRATIONS.div_ceil(CONCENTRATIONS_A_PART)];
    for point in points {
        let (share, mean, variance) = of(point);
        let at =
            point.rate / RATES_A_PART + RATES.div_ceil(RATES_A_PART) * (point.concentration / CONCENTRATIONS_A_PART);
        let part: &mut (f64, f64, f64) = &mut parts[at];
        *part = (part.0 + share, part.1 + share * mean, part.2 + share * (variance + mean * mean));
    }
    parts.retain(|part| part.0 > SHARE_MIN);
    let total: f64 = parts.iter().map(|part| part.0).sum();
    let law = |(share, first, second): (f64, f64, f64)| {
        let mean = first / share;
        (share / total, Law::of_moments(mean, second / share - mean * mean))
    };
    parts.into_iter().map(law).collect()
}

/// A point of the grid and its share.
struct Point {
    rate: usize,
    concentration: usize,
    m: f64,
    k: f64,
    share: f64,
}

/// ln of the likelihood of counts whose rate is drawn from a Beta distribution, up to a constant of the counts.
fn ln_likelihood(alpha: f64, beta: f64, cell: Counts) -> f64 {
    if cell.trials <= 0.0 {
        return 0.0;
    }
    let ln_beta = |a: f64, b: f64| ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b);
    ln_beta(alpha + cell.successes, beta + cell.trials - cell.successes) - ln_beta(alpha, beta)
}

/// The Beta distribution of the mean and variance of a mixture of (share, mean, variance).
fn moments(parts: impl Iterator<Item = (f64, f64, f64)>) -> Law {
    let (mut total, mut first, mut second) = (0.0, 0.0, 0.0);
    for (share, mean, variance) in parts {
        total += share;
        first += share * mean;
        second += share * (variance + mean * mean);
    }
    let mean = first / total;
    Law::of_moments(mean, second / total - mean * mean)
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
        let (good, bad) = (&levels[1][2], &levels[1][5]);
        assert!(good.mean() < 0.1 && (0.2..0.45).contains(&bad.mean()), "{} {}", good.mean(), bad.mean());
        assert!(
            good.quantile(0.975) - good.quantile(0.025) > levels[1][0].quantile(0.975) - levels[1][0].quantile(0.025)
        );
    }

    #[test]
    fn one_cell_alone_is_near_its_own_counts_with_an_interval_like_jeffreys() {
        // Jeffreys' interval of 40 of 200, from Brown, Cai and DasGupta 2001: 0.149 to 0.259.
        let rate = &pool(&[vec![0]], &[counts(40.0, 200.0)])[0][0];
        assert!((rate.mean() - 0.2).abs() < 0.01, "{}", rate.mean());
        assert!((rate.quantile(0.025) - 0.149).abs() < 0.01 && (rate.quantile(0.975) - 0.259).abs() < 0.01);
    }

    #[test]
    fn a_quantile_is_where_the_probability_is() {
        let cells = [
            counts(0.0, 3.0),
            counts(1.0, 2_000.0),
            counts(700.0, 1_000.0),
            counts(0.0, 0.0),
            counts(5_000.0, 5_000.0),
        ];
        for rate in &pool(&[vec![0; 5]], &cells)[0] {
            for q in [0.001, 0.025, 0.5, 0.975, 0.999] {
                let at = rate.quantile(q);
                assert!(
                    (rate.at_most(at) - q).abs() < 2e-5 || !(1e-9..1.0 - 1e-9).contains(&at),
                    "{q}: {at} {}",
                    rate.at_most(at)
                );
            }
        }
    }

    /// Models by domains.
    type World = Vec<Vec<f64>>;

    /// How often the intervals of cells hold the known rates of worlds, and how wide they are.
    fn coverage(
        seeds: u64,
        world: impl Fn(&mut StdRng) -> World,
        observe: impl Fn(&mut StdRng, &World) -> Vec<Counts>,
    ) -> (f64, f64) {
        let (mut held, mut all, mut width, mut measured) = (0.0, 0.0, 0.0, 0.0);
        for seed in 0..seeds {
            let mut random = StdRng::seed_from_u64(seed);
            let truth = world(&mut random);
            let domains = truth[0].len();
            let parents = [vec![0; truth.len()], (0..truth.len() * domains).map(|cell| cell / domains).collect()];
            let cells = observe(&mut random, &truth);
            for (rate, found) in truth.concat().iter().zip(&pool(&parents, &cells)[1]) {
                held += f64::from((0.025..=0.975).contains(&found.at_most(*rate)));
                all += 1.0;
                // One in twenty worlds tells how wide they are.
                if seed % 20 == 0 {
                    width += found.quantile(0.975) - found.quantile(0.025);
                    measured += 1.0;
                }
            }
        }
        (held / all, width / measured)
    }

    /// So many trials a cell, whatever happens.
    fn fixed(trials: impl Fn(&mut StdRng) -> u64) -> impl Fn(&mut StdRng, &World) -> Vec<Counts> {
        move |random, truth| {
            let cell = |rate: &f64| {
                let n = trials(random);
                counts(Binomial::new(n, *rate).expect("a rate").sample(random) as f64, n as f64)
            };
            truth.concat().iter().map(cell).collect()
        }
    }

    /// A router that learns as it goes: for each request, of some domain, it draws a rate for each model from what it has
    /// seen there (Thompson 1933) and takes the highest. What became of a request shows fifty requests later, or never.
    fn routed(random: &mut StdRng, truth: &World) -> Vec<Counts> {
        let domains = truth[0].len();
        let mut seen = vec![counts(0.0, 0.0); truth.len() * domains];
        let mut pending = std::collections::VecDeque::new();
        for _ in 0..600 {
            let domain = random.random_range(0..domains);
            let mut draw = |model: usize| {
                let Counts { successes, trials } = seen[model * domains + domain];
                BetaLaw::new(successes + 1.0, trials - successes + 1.0).expect("a law").sample(random)
            };
            let draws: Vec<f64> = (0..truth.len()).map(&mut draw).collect();
            let model = (0..truth.len()).max_by(|a, b| draws[*a].total_cmp(&draws[*b])).expect("there are models");
            pending.push_back((model * domains + domain, random.random_bool(truth[model][domain])));
            if pending.len() > 50
                && let Some((cell, success)) = pending.pop_front()
            {
                seen[cell].successes += f64::from(success);
                seen[cell].trials += 1.0;
            }
        }
        seen
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
        type Run = Box<dyn Fn() -> (f64, f64) + Send>;
        let worlds: [(&str, Run); 6] = [
            ("nested, sparse", Box::new(move || coverage(2_000, nested, fixed(sparse)))),
            ("nested, uneven", Box::new(move || coverage(2_000, nested, fixed(uneven)))),
            ("nested, routed", Box::new(move || coverage(2_000, nested, routed))),
            ("additive, sparse", Box::new(move || coverage(2_000, additive, fixed(sparse)))),
            ("additive, uneven", Box::new(move || coverage(2_000, additive, fixed(uneven)))),
            ("additive, routed", Box::new(move || coverage(2_000, additive, routed))),
        ];
        let running = worlds.map(|(name, world)| (name, std::thread::spawn(world)));
        for (name, world) in running {
            let found = world.join().expect("the world ends");
            println!("{name}: {:.3} of intervals of 95 % hold the rate; mean width {:.3}", found.0, found.1);
            assert!(found.0 > 0.93, "{name}: {:.3}", found.0);
        }
    }
}
