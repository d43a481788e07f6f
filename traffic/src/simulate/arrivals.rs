//! When sessions start: a daily cycle times a two-state Markov-modulated Poisson process, by thinning (Lewis and
//! Shedler 1979).

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Exp};

use super::config::{Bursts, SimConfig};

const DAY_MS: f64 = 86_400_000.0;
/// 14:00 UTC.
const PEAK_MS: f64 = 14.0 / 24.0 * DAY_MS;

/// Draws session starts, one after the other.
pub(super) struct Arrivals {
    rng: ChaCha8Rng,
    now_ms: f64,
    sessions_per_ms: f64,
    amplitude: f64,
    bursts: Bursts,
    bursting: bool,
    switch_ms: f64,
}

impl Arrivals {
    pub(super) fn new(config: &SimConfig, sessions_per_s: f64, mut rng: ChaCha8Rng) -> Self {
        let bursts = config.bursts;
        let bursting = rng.random::<f64>() < bursts.burst_ms / (bursts.calm_ms + bursts.burst_ms);
        let now_ms = config.start_ms as f64;
        let mut arrivals = Self {
            rng,
            now_ms,
            sessions_per_ms: sessions_per_s / 1000.0,
            amplitude: config.daily_amplitude,
            bursts,
            bursting,
            switch_ms: now_ms,
        };
        arrivals.switch_ms += arrivals.spell();
        arrivals
    }

    /// Start of the next session, ms since the Unix epoch.
    pub(super) fn next_ms(&mut self) -> i64 {
        let ceiling = self.sessions_per_ms * (1.0 + self.amplitude) * self.bursts.factor.max(self.calm_factor());
        loop {
            self.now_ms += exponential(&mut self.rng, 1.0 / ceiling);
            while self.now_ms >= self.switch_ms {
                self.bursting = !self.bursting;
                self.switch_ms += self.spell();
            }
            if self.rng.random::<f64>() * ceiling < self.rate_per_ms() {
                return self.now_ms as i64;
            }
        }
    }

    fn rate_per_ms(&self) -> f64 {
        let state = if self.bursting { self.bursts.factor } else { self.calm_factor() };
        self.sessions_per_ms * daily_factor(self.now_ms, self.amplitude) * state
    }

    /// The rate outside of bursts that makes the mean factor 1.
    fn calm_factor(&self) -> f64 {
        let Bursts { factor, calm_ms, burst_ms } = self.bursts;
        (calm_ms + burst_ms - factor * burst_ms) / calm_ms
    }

    fn spell(&mut self) -> f64 {
        let mean = if self.bursting { self.bursts.burst_ms } else { self.bursts.calm_ms };
        exponential(&mut self.rng, mean)
    }
}

/// 1 + amplitude x cos(2 pi (t - peak) / day).
pub(super) fn daily_factor(at_ms: f64, amplitude: f64) -> f64 {
    1.0 + amplitude * ((at_ms - PEAK_MS) / DAY_MS * std::f64::consts::TAU).cos()
}

/// An exponential draw with that mean, which is above 0.
pub(super) fn exponential(rng: &mut ChaCha8Rng, mean: f64) -> f64 {
    Exp::new(1.0 / mean).expect("the configuration was checked: means are above 0").sample(rng)
}
