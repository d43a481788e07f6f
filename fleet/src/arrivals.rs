//! The rate to plan for.
//!
//! A server farm with thousands of slots averages over short bursts; what breaks it is a rate that stays high for about
//! as long as a request stays, `tau`. So the fleet is planned for a high quantile of the rate in windows of `tau`. The
//! promise is one to requests, and busy windows hold more of them, so the quantile is one over requests: this share of all
//! requests arrives in windows of at most that rate. A quantile of *counts* also holds the noise that the queueing model adds again by itself, so only the part of the
//! spread that differs from window to window is used:
//!
//! ```text
//! I_tau    = Var[count in a window] / E[count in a window]        index of dispersion at tau
//! I_within = the same for single seconds, about their own window's mean
//! plan     = mean + (quantile - mean) * sqrt(max(0, 1 - I_within / I_tau))
//! ```
//!
//! For Poisson arrivals both indices are 1 and `plan = mean`; for a rate that switches slowly `I_tau >> I_within` and
//! `plan = quantile`. `I_within` goes on into the queueing terms (Whitt, "The queueing network analyzer", 1983: a wait
//! scales with `(I + cv^2) / 2`).
//!
//! An observed log can be planned at another level of traffic ([`Arrivals::Scaled`]). A count is Poisson noise about a
//! rate that itself varies (a Cox process: Cox, "Some statistical methods connected with series of events", JRSS B 17,
//! 1955), so by the law of total variance `Var[N] = E[N] + Var[rate integral]`. With the rate multiplied by `k` the first
//! term grows by `k` and the second by `k^2`:
//!
//! ```text
//! mean -> k mean        plan -> k plan        I -> 1 + k (I - 1)        at both time scales
//! ```
//!
//! For `k < 1` the same holds for any arrivals of which each is kept with probability `k` (Daley and Vere-Jones, "An
//! introduction to the theory of point processes", 2nd ed., section 11.3). Multiplying counts instead would multiply the
//! noise too, and rounding them would lose most requests of a sparse log.

use serde::{Deserialize, Serialize};

use crate::FleetError;
use crate::routing::weighted_quantile;

/// When requests come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arrivals {
    /// Requests counted in each second of the observed time, quiet seconds included as zeros.
    PerSecondCounts(Vec<u32>),
    /// The observed arrivals at another level: every request a second then is `factor` requests a second now.
    Scaled {
        /// Requests counted in each second of the observed time, quiet seconds included as zeros.
        per_second_counts: Vec<u32>,
        /// What the rate is multiplied by, above zero; 1 is [`Arrivals::PerSecondCounts`].
        factor: f64,
    },
    /// A stated rate in requests a second, taken as Poisson: for what-if questions without a log.
    PoissonPerS(f64),
}

/// What the arrivals say about the rate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RatePlan {
    /// Mean over all of the observed time, requests a second.
    pub mean_per_s: f64,
    /// The rate that the fleet is sized for, requests a second.
    pub planned_per_s: f64,
    /// Window length tau, seconds.
    pub window_s: f64,
    /// Number of whole windows seen; 0 for a stated rate.
    pub windows: usize,
    /// Index of dispersion of counts at `window_s`; 1 for Poisson.
    pub dispersion: f64,
    /// Index of dispersion of one-second counts about their window's mean, at least 1.
    pub dispersion_within: f64,
}

impl Arrivals {
    pub(crate) fn check(&self) -> Result<(), FleetError> {
        let above_zero = |rate: f64| rate.is_finite() && rate > 0.0;
        let fine = match self {
            Arrivals::PerSecondCounts(counts) => counts.iter().any(|count| *count > 0),
            Arrivals::Scaled { per_second_counts, factor } => {
                above_zero(*factor) && per_second_counts.iter().any(|count| *count > 0)
            }
            Arrivals::PoissonPerS(rate) => above_zero(*rate),
        };
        if fine { Ok(()) } else { Err(FleetError::Workload("its arrival rate must be above zero".into())) }
    }

    /// The rate to plan for with windows of about `window_s` seconds: this share (0 to 1) of all requests arrives in
    /// windows of at most that rate.
    pub fn plan(&self, window_s: f64, quantile: f64) -> RatePlan {
        match self {
            Arrivals::PerSecondCounts(counts) => plan_of_counts(counts, window_s, quantile),
            Arrivals::Scaled { per_second_counts, factor } => {
                plan_of_counts(per_second_counts, window_s, quantile).scaled(*factor)
            }
            Arrivals::PoissonPerS(rate) => RatePlan {
                mean_per_s: *rate,
                planned_per_s: *rate,
                window_s,
                windows: 0,
                dispersion: 1.0,
                dispersion_within: 1.0,
            },
        }
    }

    /// A log shorter than two windows says nothing of how the rate moves.
    pub(crate) fn check_length(&self, window_s: f64) -> Result<(), FleetError> {
        let Some((counts, _)) = self.observed() else { return Ok(()) };
        let seconds_min = 2 * (window_s.round() as usize).max(1);
        if counts.len() >= seconds_min {
            return Ok(());
        }
        Err(FleetError::Workload(format!(
            "it was observed for {} s, and a request stays for about {window_s:.0} s: observe at least {seconds_min} s, or \
             state a rate",
            counts.len()
        )))
    }

    /// What was counted, and what its rate is to be multiplied by.
    pub(crate) fn observed(&self) -> Option<(&[u32], f64)> {
        match self {
            Arrivals::PerSecondCounts(counts) => Some((counts, 1.0)),
            Arrivals::Scaled { per_second_counts, factor } => Some((per_second_counts, *factor)),
            Arrivals::PoissonPerS(_) => None,
        }
    }
}

impl RatePlan {
    /// The same pattern of arrivals at another level: what varies slowly scales with the rate, Poisson noise does not.
    pub(crate) fn scaled(&self, factor: f64) -> Self {
        // 1 + factor * (value - 1), written so that a factor of one changes no bit.
        let index = |value: f64| (value + (factor - 1.0) * (value - 1.0)).max(0.0);
        Self {
            mean_per_s: self.mean_per_s * factor,
            planned_per_s: self.planned_per_s * factor,
            dispersion: index(self.dispersion),
            dispersion_within: index(self.dispersion_within),
            ..*self
        }
    }
}

fn plan_of_counts(counts: &[u32], window_s: f64, quantile: f64) -> RatePlan {
    let window = window_seconds(window_s, counts.len());
    let windows: Vec<Window> = counts.chunks_exact(window).map(Window::of).collect();
    let plan = plan_of_windows(&windows, window, quantile);
    // Seconds after the last whole window belong to the mean.
    let total: f64 = counts.iter().map(|count| f64::from(*count)).sum();
    let mean_per_s = total / counts.len() as f64;
    RatePlan { mean_per_s, planned_per_s: plan.planned_per_s.max(mean_per_s), ..plan }
}

/// At least a second, and short enough for two windows.
pub(crate) fn window_seconds(window_s: f64, seconds: usize) -> usize {
    (window_s.round() as usize).clamp(1, (seconds / 2).max(1))
}

/// Sufficient statistics of one window: the bootstrap resamples these instead of seconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    count: f64,
    squares: f64,
}

impl Window {
    pub(crate) fn of(seconds: &[u32]) -> Self {
        let count = seconds.iter().map(|n| f64::from(*n)).sum();
        let squares = seconds.iter().map(|n| f64::from(*n) * f64::from(*n)).sum();
        Self { count, squares }
    }
}

pub(crate) fn plan_of_windows(windows: &[Window], seconds_per_window: usize, quantile: f64) -> RatePlan {
    let seconds = seconds_per_window as f64;
    let number = windows.len() as f64;
    let mean_count = windows.iter().map(|w| w.count).sum::<f64>() / number;
    let variance = windows.iter().map(|w| (w.count - mean_count).powi(2)).sum::<f64>() / (number - 1.0).max(1.0);
    let dispersion = if mean_count > 0.0 { variance / mean_count } else { 1.0 };
    let within = if seconds_per_window > 1 && mean_count > 0.0 {
        let spread: f64 = windows.iter().map(|w| w.squares - w.count * w.count / seconds).sum();
        spread / (number * (seconds - 1.0)) / (mean_count / seconds)
    } else {
        1.0
    };
    let rates = windows.iter().map(|w| (w.count / seconds, w.count)).collect();
    let mean_per_s = mean_count / seconds;
    let slow_share = if dispersion > 0.0 { (1.0 - within / dispersion).max(0.0).sqrt() } else { 0.0 };
    let excess = (weighted_quantile(rates, quantile) - mean_per_s).max(0.0);
    RatePlan {
        mean_per_s,
        planned_per_s: mean_per_s + excess * slow_share,
        window_s: seconds,
        windows: windows.len(),
        dispersion,
        // Smoother than Poisson is not relied upon.
        dispersion_within: within.max(1.0),
    }
}

/// Number of windows after which counts no longer resemble each other: the first lag at which their autocorrelation is
/// within the noise of independent counts, `2 / sqrt(n)` (Bartlett, "On the theoretical specification and sampling
/// properties of autocorrelated time-series", JRSS Supplement 8, 1946). Lags are tried in steps of a quarter: a log of weeks
/// has a million windows.
pub(crate) fn correlation_windows(windows: &[Window]) -> usize {
    let number = windows.len();
    let mean = windows.iter().map(|w| w.count).sum::<f64>() / number as f64;
    let deviations: Vec<f64> = windows.iter().map(|w| w.count - mean).collect();
    let variance: f64 = deviations.iter().map(|d| d * d).sum();
    let noise = 2.0 / (number as f64).sqrt();
    let mut lag = 1;
    while lag < number {
        let product: f64 = deviations.iter().zip(&deviations[lag..]).map(|(a, b)| a * b).sum();
        if product <= noise * variance {
            break;
        }
        lag += (lag / 4).max(1);
    }
    lag
}

/// Quantile with linear interpolation between order statistics (type 7 of Hyndman and Fan, 1996).
pub(crate) fn sample_quantile(values: &mut [f64], quantile: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let position = quantile.clamp(0.0, 1.0) * (values.len() - 1) as f64;
    let below = position.floor() as usize;
    let above = position.ceil() as usize;
    values[below] + (values[above] - values[below]) * (position - below as f64)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use rand_distr::{Distribution, Poisson};

    use super::*;

    fn counts(rate_at: impl Fn(usize) -> f64, seconds: usize, seed: u64) -> Arrivals {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        Arrivals::PerSecondCounts(
            (0..seconds).map(|t| Poisson::new(rate_at(t)).unwrap().sample(&mut rng) as u32).collect(),
        )
    }

    #[test]
    fn poisson_arrivals_are_planned_at_their_mean() {
        for seed in 0..5 {
            let plan = counts(|_| 20.0, 20_000, seed).plan(10.0, 0.99);
            assert!((plan.dispersion - 1.0).abs() < 0.15, "{plan:?}");
            assert!(plan.planned_per_s / plan.mean_per_s < 1.06, "{plan:?}");
        }
    }

    /// The two-state test of the research notes: +-30 % with a dwell of 60 s sank the fleet sized for the mean.
    #[test]
    fn a_slowly_switching_rate_is_planned_at_its_high_state() {
        let plan = counts(|t| if t / 60 % 2 == 0 { 260.0 } else { 140.0 }, 6000, 3).plan(10.0, 0.99);
        assert!((plan.planned_per_s / 260.0 - 1.0).abs() < 0.06, "{plan:?}");
        // I_tau of the mixture: 1 + tau * 60^2 / 200.
        assert!((plan.dispersion / (1.0 + 10.0 * 3600.0 / 200.0) - 1.0).abs() < 0.1, "{plan:?}");
    }

    /// Nine quiet windows and a busy one that holds most of the requests: a quantile over time would plan for quiet.
    #[test]
    fn the_planned_rate_is_a_quantile_over_requests() {
        let log = (0..2000).map(|t| if t / 10 % 10 == 9 { 90 } else { 1 }).collect();
        let plan = Arrivals::PerSecondCounts(log).plan(10.0, 0.85);
        assert!((plan.planned_per_s / 90.0 - 1.0).abs() < 0.01, "{plan:?}");
    }

    #[test]
    fn counts_resemble_each_other_for_as_long_as_the_rate_stays() {
        let correlation = |rate_at: fn(usize) -> f64| {
            let log = counts(rate_at, 60_000, 4);
            let (log, _) = log.observed().unwrap();
            correlation_windows(&log.chunks_exact(10).map(Window::of).collect::<Vec<_>>())
        };
        let none = correlation(|_| 20.0);
        assert!(none <= 2, "{none}");
        // Windows of 10 s, and a rate that is another every 600 s.
        let long = correlation(|t| if t / 600 * 5 % 13 < 6 { 26.0 } else { 14.0 });
        assert!((30..=75).contains(&long), "{long}");
    }

    #[test]
    fn requests_after_the_last_whole_window_still_count() {
        let plan = Arrivals::PerSecondCounts(vec![0, 0, 0, 0, 7]).plan(2.0, 0.99);
        assert!((plan.mean_per_s - 1.4).abs() < 1e-12 && plan.planned_per_s >= 1.4, "{plan:?}");
    }

    fn scaled(arrivals: &Arrivals, factor: f64) -> Arrivals {
        let Arrivals::PerSecondCounts(counts) = arrivals else { panic!("not a log: {arrivals:?}") };
        Arrivals::Scaled { per_second_counts: counts.clone(), factor }
    }

    /// Rounding `0.4 * count` would leave nothing of a log in which most busy seconds have one request.
    #[test]
    fn sparse_poisson_traffic_scales_down_and_stays_poisson() {
        let plan = scaled(&counts(|_| 0.2, 200_000, 7), 0.4).plan(10.0, 0.99);
        // Standard error of the mean: 0.4 * sqrt(0.2 / 200 000) = 0.0004.
        assert!((plan.mean_per_s - 0.08).abs() < 0.002, "{plan:?}");
        assert!((plan.dispersion - 1.0).abs() < 0.05 && (plan.dispersion_within - 1.0).abs() < 0.05, "{plan:?}");
    }

    /// Keeping each request with probability k is another way to multiply the rate by k.
    #[test]
    fn a_scaled_plan_is_that_of_thinned_requests() {
        let log = counts(|t| if t / 60 % 2 == 0 { 26.0 } else { 14.0 }, 60_000, 5);
        let Arrivals::PerSecondCounts(full) = &log else { unreachable!("counts() makes a log") };
        let mut rng = ChaCha8Rng::seed_from_u64(6);
        for factor in [0.25, 0.6] {
            let mut keep = |n: &u32| rand_distr::Binomial::new(u64::from(*n), factor).unwrap().sample(&mut rng) as u32;
            let thinned = Arrivals::PerSecondCounts(full.iter().map(&mut keep).collect()).plan(10.0, 0.99);
            let plan = scaled(&log, factor).plan(10.0, 0.99);
            assert!((plan.mean_per_s / thinned.mean_per_s - 1.0).abs() < 0.02, "{plan:?} {thinned:?}");
            assert!((plan.dispersion / thinned.dispersion - 1.0).abs() < 0.1, "{plan:?} {thinned:?}");
            assert!((plan.dispersion_within / thinned.dispersion_within - 1.0).abs() < 0.05, "{plan:?} {thinned:?}");
            // That the quantile's excess shrinks with the noise's share of the spread is exact for a normal rate, not for one
            // of two states.
            assert!((plan.planned_per_s / thinned.planned_per_s - 1.0).abs() < 0.12, "{plan:?} {thinned:?}");
        }
    }

    proptest! {
        #[test]
        fn a_factor_of_one_is_the_log_itself(log in vec(0u32..50, 2..200), window_s in 1.0..30.0f64) {
            let log = Arrivals::PerSecondCounts(log);
            prop_assert_eq!(scaled(&log, 1.0).plan(window_s, 0.99), log.plan(window_s, 0.99));
        }

        #[test]
        fn scaling_twice_is_scaling_by_the_product(log in vec(0u32..50, 2..200), a in 0.1..5.0f64, b in 0.1..5.0f64) {
            let log = Arrivals::PerSecondCounts(log);
            let (once, twice) = (scaled(&log, a * b).plan(5.0, 0.99), log.plan(5.0, 0.99).scaled(a).scaled(b));
            prop_assert!((once.planned_per_s - twice.planned_per_s).abs() <= 1e-9 * once.planned_per_s);
            // An index under 0 is cut off, so the law holds where dispersion is not.
            if log.plan(5.0, 0.99).dispersion >= 1.0 {
                prop_assert!((once.dispersion - twice.dispersion).abs() <= 1e-9 * once.dispersion);
            }
        }
    }

    #[test]
    fn a_factor_must_be_above_zero() {
        for factor in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Arrivals::Scaled { per_second_counts: vec![1], factor }.check().is_err(), "{factor}");
        }
        assert!(Arrivals::Scaled { per_second_counts: vec![0, 1], factor: 0.5 }.check().is_ok());
    }

    #[test]
    fn bursts_within_a_window_are_left_to_the_queueing_terms() {
        // Every second brings either 0 or 8 requests: Var/E = 16/4 at every time scale.
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let coin = rand_distr::Bernoulli::new(0.5).unwrap();
        let batches = (0..40_000).map(|_| if coin.sample(&mut rng) { 8 } else { 0 }).collect();
        let plan = Arrivals::PerSecondCounts(batches).plan(20.0, 0.99);
        assert!((plan.dispersion_within / 4.0 - 1.0).abs() < 0.05, "{plan:?}");
        assert!(plan.planned_per_s / plan.mean_per_s < 1.15, "{plan:?}");
    }
}
