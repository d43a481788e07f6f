//! Repeated work, and quantiles of how long it took.

use std::time::Instant;

/// Wall-clock times of single runs, sorted, ns.
pub struct Times(Vec<f64>);

impl Times {
    /// Runs `work` on 0, 1, 2, ...; a twentieth as often beforehand, untimed, to warm caches and branches up.
    pub fn of(runs: usize, mut work: impl FnMut(usize)) -> Self {
        let runs = runs.max(1);
        (0..runs / 20 + 1).for_each(&mut work);
        let mut times_ns: Vec<f64> = (0..runs)
            .map(|run| {
                let start = Instant::now();
                work(run);
                start.elapsed().as_nanos() as f64
            })
            .collect();
        times_ns.sort_by(f64::total_cmp);
        Self(times_ns)
    }

    /// The smallest time that this share of the runs did not exceed, ns.
    pub fn quantile_ns(&self, share: f64) -> f64 {
        nearest_rank(&self.0, share)
    }

    /// Median, ns.
    pub fn p50_ns(&self) -> f64 {
        self.quantile_ns(0.5)
    }
}

/// The smallest of sorted values that this share of them does not exceed.
///
/// # Panics
/// When there are none.
pub fn nearest_rank<T: Copy>(sorted: &[T], share: f64) -> T {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

/// To three decimals: what is left is noise.
pub fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::Times;

    #[test]
    fn quantiles_are_nearest_ranks() {
        let times = Times((1..=200).map(f64::from).collect());
        assert_eq!((times.p50_ns(), times.quantile_ns(0.99), times.quantile_ns(1.0)), (100.0, 198.0, 200.0));
        assert_eq!(Times(vec![7.0]).p50_ns(), 7.0);
    }
}
