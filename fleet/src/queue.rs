//! Waiting for a slot.
//!
//! [`erlang_c`] is the textbook case: servers of constant speed. An inference engine is not one: the more sequences it
//! runs, the slower each gets. [`in_flight`] is the same birth-death chain with a throughput that depends on the number
//! in flight; processor-sharing stations keep this product form for any distribution of lengths (Kelly, "Reversibility
//! and Stochastic Networks", 1979, ch. 3), and with a throughput linear in the number it is Erlang's formula again.

/// Probability that an arrival waits in M/M/c with offered load `load` (Erlangs); 1 when `load >= servers`.
///
/// Erlang's B recursion `B(k) = a B(k-1) / (k + a B(k-1))`, then `C = B / (1 - rho (1 - B))` (Cooper, "Introduction to
/// Queueing Theory", 1981, eq. 3.9 and 3.12): no factorials, no logarithms.
pub fn erlang_c(servers: u32, load: f64) -> f64 {
    if load >= f64::from(servers) {
        return 1.0;
    }
    let mut blocked = 1.0;
    for k in 1..=servers {
        blocked = load * blocked / (f64::from(k) + load * blocked);
    }
    blocked / (1.0 - load / f64::from(servers) * (1.0 - blocked))
}

/// A wait that is zero with probability `1 - probability`, else exponential with `rate` per ms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wait {
    /// Probability of waiting at all.
    pub probability: f64,
    /// Rate of the exponential part, per ms; infinite for no wait.
    pub rate: f64,
}

impl Wait {
    /// Nobody waits.
    pub const NONE: Wait = Wait { probability: 0.0, rate: f64::INFINITY };

    /// Wait for one of many slots that together complete `capacity` requests per ms, offered `arrivals` per ms.
    ///
    /// The rate is that of M/M/c times `2 / (I + cv^2)` (Kimura, 1986; Whitt, 1993), with `I` the index of dispersion of
    /// arrivals and `cv^2` the squared coefficient of variation of the service time.
    pub fn for_slots(probability: f64, capacity: f64, arrivals: f64, dispersion: f64, service_cv2: f64) -> Self {
        Self { probability, rate: 2.0 * (capacity - arrivals) / (dispersion + service_cv2) }
    }

    /// Wait in a queue of few servers with general service times.
    ///
    /// `arrivals` per ms over all servers, service moments in ms and ms^2. The mean is that of M/M/c times
    /// `(I + cv^2) / 2` (Allen and Cunneen, 1978): exact for M/G/1 (Pollaczek and Khinchine) and for M/M/c.
    pub fn for_servers(
        servers: u32,
        arrivals: f64,
        service_mean: f64,
        service_square_mean: f64,
        dispersion: f64,
    ) -> Self {
        let load = arrivals * service_mean;
        if load <= 0.0 {
            return Self::NONE;
        }
        let cv2 = service_square_mean / (service_mean * service_mean) - 1.0;
        let probability = erlang_c(servers, load);
        let rate = (f64::from(servers) - load) / service_mean * 2.0 / (dispersion + cv2);
        Self { probability, rate }
    }

    /// Mean wait, ms.
    pub fn mean_ms(&self) -> f64 {
        if self.probability > 0.0 { self.probability / self.rate } else { 0.0 }
    }

    /// Quantile of the wait, ms.
    pub fn quantile_ms(&self, quantile: f64) -> f64 {
        let tail = 1.0 - quantile;
        if self.probability <= tail { 0.0 } else { (self.probability / tail).ln() / self.rate }
    }
}

/// `P(A + B > t)` for two independent waits.
pub(crate) fn sum_exceeds(a: Wait, b: Wait, t: f64) -> f64 {
    if t < 0.0 {
        return 1.0;
    }
    let tail_a = if a.probability > 0.0 { (-a.rate * t).exp() } else { 0.0 };
    let tail_b = if b.probability > 0.0 { (-b.rate * t).exp() } else { 0.0 };
    let one = a.probability * (1.0 - b.probability) * tail_a + b.probability * (1.0 - a.probability) * tail_b;
    let both = a.probability * b.probability;
    if both <= 0.0 {
        return one;
    }
    let difference = b.rate - a.rate;
    let both_tail = if difference.abs() < 1e-9 * a.rate {
        (1.0 + a.rate * t) * tail_a
    } else {
        (b.rate * tail_a - a.rate * tail_b) / difference
    };
    one + both * both_tail
}

/// Stationary number in flight in a pool.
#[derive(Debug, Clone, PartialEq)]
pub struct InFlight {
    /// Probability that all slots are taken, so that an arrival waits.
    pub full: f64,
    /// Mean number in flight, waiting ones not counted.
    pub mean: f64,
    /// Standard deviation of that number.
    pub deviation: f64,
}

/// States beyond this are visited in larger steps; the density is smooth there.
const STATES_MAX: usize = 4096;

/// In-flight distribution for `slots` slots, `arrivals` per ms and the pool's `throughput(k)` per ms with `k` in flight.
///
/// `pi(k) = pi(k-1) * arrivals / throughput(k)`; beyond `slots` the ratio stays that of `slots`, a geometric tail.
/// `None` if `arrivals` is not below `throughput(slots)`.
pub fn in_flight(slots: usize, arrivals: f64, throughput: impl Fn(f64) -> f64) -> Option<InFlight> {
    let last_ratio = arrivals / throughput(slots as f64);
    if last_ratio >= 1.0 || slots == 0 {
        return None;
    }
    let steps = slots.min(STATES_MAX);
    let stride = slots as f64 / steps as f64;
    let mut log_weights = Vec::with_capacity(steps + 1);
    log_weights.push(0.0_f64);
    for step in 1..=steps {
        // With stride 1 the ratio is that of the state itself; with larger strides, of the middle of the stride.
        let state = step as f64 * stride - (stride - 1.0) / 2.0;
        log_weights.push(log_weights[step - 1] + stride * (arrivals / throughput(state)).ln());
    }
    let largest = log_weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let (mut total, mut first, mut second, mut full) = (0.0, 0.0, 0.0, 0.0);
    for (step, log_weight) in log_weights.iter().enumerate() {
        let state = step as f64 * stride;
        let mut weight = (log_weight - largest).exp();
        if step == steps {
            // The last state stands for itself and everything beyond: waiting requests hold no slot.
            weight *= 1.0 / (1.0 - last_ratio) / stride;
            full = weight;
        }
        total += weight;
        first += weight * state;
        second += weight * state * state;
    }
    let mean = first / total;
    Some(InFlight { full: full / total, mean, deviation: (second / total - mean * mean).max(0.0).sqrt() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Published values: Cooper (1981) and any Erlang table; 10 servers at 8 Erlangs wait with probability 0.4092.
    #[test]
    fn erlang_c_matches_published_values() {
        assert!((erlang_c(1, 0.5) - 0.5).abs() < 1e-12);
        assert!((erlang_c(2, 1.0) - 1.0 / 3.0).abs() < 1e-12);
        assert!((erlang_c(10, 8.0) - 0.4092).abs() < 5e-5);
        assert_eq!(erlang_c(3, 3.0), 1.0);
    }

    #[test]
    fn constant_speed_servers_give_erlang_c() {
        for (servers, load) in [(1_u32, 0.3), (16, 12.8), (128, 115.0), (2560, 2500.0)] {
            let chain = in_flight(servers as usize, load, |k| k).unwrap();
            let expected = erlang_c(servers, load);
            assert!((chain.full / expected - 1.0).abs() < 1e-9, "{servers}: {} {expected}", chain.full);
        }
    }

    #[test]
    fn large_pools_in_strides_agree_with_erlang_c() {
        let chain = in_flight(20_480, 20_300.0, |k| k).unwrap();
        let expected = erlang_c(20_480, 20_300.0);
        assert!((chain.full / expected - 1.0).abs() < 0.02, "{} {expected}", chain.full);
        assert!((chain.mean / 20_300.0 - 1.0).abs() < 1e-3);
    }

    /// Little's law for constant-speed servers: the mean number in service is the offered load.
    #[test]
    fn mean_in_service_is_the_offered_load() {
        let chain = in_flight(20, 15.0, |k| k).unwrap();
        assert!((chain.mean - 15.0).abs() < 1e-9);
        assert!(in_flight(20, 20.0, |k| k).is_none());
    }

    /// M/M/1: the wait is zero with probability 1 - rho, else exponential with rate mu - lambda.
    #[test]
    fn single_server_wait_is_that_of_mm1() {
        let wait = Wait::for_servers(1, 0.8, 1.0, 2.0, 1.0);
        assert!((wait.probability - 0.8).abs() < 1e-12 && (wait.rate - 0.2).abs() < 1e-12);
        assert!((wait.quantile_ms(0.99) - (80.0_f64).ln() / 0.2).abs() < 1e-9);
    }

    #[test]
    fn the_sum_of_two_waits_has_the_sum_of_their_means() {
        let a = Wait { probability: 0.4, rate: 0.1 };
        let b = Wait { probability: 0.7, rate: 0.03 };
        let (step, mut mean) = (0.05, 0.0);
        for index in 0..20_000 {
            mean += step * sum_exceeds(a, b, (f64::from(index) + 0.5) * step);
        }
        assert!((mean / (a.mean_ms() + b.mean_ms()) - 1.0).abs() < 1e-4);
        let equal = Wait { probability: 1.0, rate: 0.1 };
        assert!((sum_exceeds(equal, equal, 20.0) - 3.0 * (-2.0_f64).exp()).abs() < 1e-9);
        assert_eq!(sum_exceeds(a, b, -1.0), 1.0);
    }
}
