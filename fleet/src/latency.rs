//! Latency as a distribution over requests.
//!
//! ```text
//! TTFT = wait for a slot + wait in the prefill queue + rest of the running iteration + own prefill
//! TPOT = mean iteration that one request meets, prefill of others included
//! E2E  = TTFT + decode steps * its mean TPOT
//! ```
//!
//! Own prefill is known per cell at the operating batch, the two waits are random (see `queue`): the distribution is
//! their mixture over all cells, so a P99 is a P99 over requests and not the P99 of a mean request.

use crate::Cell;
use crate::pool::{Operating, PoolModel, normal_cdf};
use crate::queue::sum_exceeds;

impl PoolModel<'_> {
    /// Share of all requests, rejected ones included, whose first token comes within `ms`.
    pub(crate) fn ttft_within(&self, operating: &Operating, ms: f64) -> f64 {
        self.share(|cell| first_token_within(operating, ms - self.ttft_floor(operating, cell)))
    }

    /// Share of all requests that end within `ms`.
    pub(crate) fn e2e_within(&self, operating: &Operating, ms: f64) -> f64 {
        self.share(|cell| {
            let steps = cell.completion_tokens - 1.0;
            let decode_ms = if steps > 0.0 { steps * self.tpot_ms(operating, cell) } else { 0.0 };
            first_token_within(operating, ms - self.ttft_floor(operating, cell) - decode_ms)
        })
    }

    /// Share of all requests whose mean time per output token is within `ms`; one-token answers count as within.
    ///
    /// Log-normal above `w_ms`, which no iteration undercuts, and cut off at an iteration with a full chunk, which no mean
    /// of iterations exceeds.
    pub(crate) fn tpot_within(&self, operating: &Operating, ms: f64) -> f64 {
        let batch_variance = self.batch_variance(operating);
        let floor_ms = self.profile.w_ms.value;
        let fuller = self.batch_of(operating.decoding + 2.0 * operating.in_flight_deviation);
        let full_ms = operating.full_iteration_ms + fuller.base_ms - operating.batch.base_ms;
        self.share(|cell| {
            let steps = cell.completion_tokens - 1.0;
            if steps < 1.0 {
                return 1.0;
            }
            let mean = self.tpot_ms(operating, cell) - floor_ms;
            let variance = self.tpot_variance(operating, batch_variance, steps);
            if variance <= 1e-12 || mean <= 0.0 {
                return f64::from(u8::from(mean + floor_ms <= ms));
            }
            if ms <= floor_ms {
                return 0.0;
            }
            if ms >= full_ms {
                return 1.0;
            }
            let log_variance = (1.0 + variance / (mean * mean)).ln();
            normal_cdf((((ms - floor_ms) / mean).ln() + log_variance / 2.0) / log_variance.sqrt())
        })
    }

    /// Mean time per output token over all tokens, ms.
    pub(crate) fn tpot_mean_ms(&self, operating: &Operating) -> f64 {
        let steps = |cell: &Cell| cell.weight * (cell.completion_tokens - 1.0);
        let total: f64 = self.cells.iter().map(steps).sum();
        if total <= 0.0 {
            return operating.iteration_ms;
        }
        let sum = |cell: &Cell| if steps(cell) > 0.0 { steps(cell) * self.tpot_ms(operating, cell) } else { 0.0 };
        self.cells.iter().map(sum).sum::<f64>() / total
    }

    /// Mean over requests like this one. Decoding of `l` steps is `l m` of work behind the prefill of others, those
    /// included that came while its own first token was awaited: `D = (l m + lambda e TTFT) / (1 - lambda e)`.
    fn tpot_ms(&self, operating: &Operating, cell: &Cell) -> f64 {
        let steps = cell.completion_tokens - 1.0;
        let ttft_ms = operating.prefill_wait.mean_ms() + self.ttft_floor(operating, cell);
        let prefill_share = operating.rate_per_ms * operating.excess_ms;
        let met_ms = prefill_share * ttft_ms / (1.0 - prefill_share) / steps;
        (operating.iteration_ms + met_ms).min(operating.full_iteration_ms.max(operating.iteration_ms))
    }

    /// Smallest time that a share `quantile` of all requests is within, by a `*_within` function; ms.
    pub(crate) fn quantile_ms(&self, quantile: f64, within: impl Fn(f64) -> f64) -> f64 {
        if quantile >= 1.0 - self.rejected_share {
            return f64::INFINITY;
        }
        let mut high = 1.0;
        while within(high) < quantile && high < 1e12 {
            high *= 2.0;
        }
        let mut low = 0.0;
        while high - low > 1e-4 * high {
            let middle = (low + high) / 2.0;
            if within(middle) < quantile { low = middle } else { high = middle }
        }
        high
    }

    fn share(&self, within: impl Fn(&Cell) -> f64) -> f64 {
        let served = self.cells.iter().map(|cell| cell.weight * within(cell)).sum::<f64>() / self.weight;
        served * (1.0 - self.rejected_share)
    }

    /// What no request escapes: half an iteration until the scheduler runs again, then its own prompt.
    fn ttft_floor(&self, operating: &Operating, cell: &Cell) -> f64 {
        // A request that meets other prompts waits for their chunks instead, which the prefill wait counts.
        let until_next =
            operating.batch.base_ms / 2.0 * (1.0 - operating.prefill_utilisation) * operating.in_flight.min(1.0);
        until_next + self.own_prefill_ms(cell, operating.batch)
    }

    /// Variance of the iteration time as the number in flight moves, ms^2.
    fn batch_variance(&self, operating: &Operating) -> f64 {
        let fuller = self.batch_of(operating.decoding + operating.in_flight_deviation);
        let added = fuller.base_ms - operating.batch.base_ms;
        (added * operating.iteration_ms / operating.batch.base_ms).powi(2)
    }

    /// Variance of one request's mean iteration over `steps` iterations, ms^2.
    fn tpot_variance(&self, operating: &Operating, batch_variance: f64, steps: f64) -> f64 {
        // The number in flight forgets itself within a residence; a longer request averages over it.
        let residence_ms = operating.in_flight / operating.rate_per_ms;
        let ratio = steps * operating.iteration_ms / residence_ms;
        let averaged = 2.0 / ratio * (1.0 - (1.0 - (-ratio).exp()) / ratio);
        // A delay busy period (Kleinrock, "Queueing Systems" II, 1976, sec. 3.3): work `l m` behind arrivals of moments
        // e, e2 has variance `l m lambda e2 / (1 - lambda e)^3`.
        let idle = 1.0 - operating.rate_per_ms * operating.excess_ms;
        let interference =
            operating.batch.base_ms * operating.rate_per_ms * operating.excess_square_ms / idle.powi(3) / steps;
        // No mean of iterations lies above that of full ones: a variable between 0 and r has variance at most r^2/4.
        let range = operating.full_iteration_ms - operating.batch.base_ms;
        batch_variance * averaged + interference.min(range * range / 4.0)
    }
}

/// Half-width, in units of a uniform variable's range, of the two-point law with its mean and variance: `1 / sqrt(12)`.
const TWO_POINTS: f64 = 0.288_675_134_594_812_9;

/// Probability that the waits end within `ms`, averaged over where in the running iteration the request arrives.
fn first_token_within(operating: &Operating, ms: f64) -> f64 {
    let spread = operating.batch.base_ms * TWO_POINTS * operating.in_flight.min(1.0);
    let exceeds = |t: f64| sum_exceeds(operating.slot_wait, operating.prefill_wait, t);
    1.0 - (exceeds(ms - spread) + exceeds(ms + spread)) / 2.0
}
