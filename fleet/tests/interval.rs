//! The interval holds the answer as often as it says, where that answer is known.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, LogNormal, Poisson};
use weir_fleet::{Arrivals, Cell, GpuProfile, Options, Recommendation, Slo, Workload, recommend};

/// A rate that is drawn anew every minute.
fn log(minutes: usize, seed: u64) -> Arrivals {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let rate_per_s = LogNormal::new(400_f64.ln(), 0.25).unwrap();
    let mut counts = Vec::with_capacity(60 * minutes);
    for _ in 0..minutes {
        let second = Poisson::new(rate_per_s.sample(&mut rng)).unwrap();
        counts.extend((0..60).map(|_| second.sample(&mut rng) as u32));
    }
    Arrivals::PerSecondCounts(counts)
}

fn sized(arrivals: Arrivals, replicates: u32, seed: u64) -> Recommendation {
    // Profile and lengths known to the last digit, so that only the arrivals are in doubt.
    let mut profile = GpuProfile::named("llama-3.1-8b-bf16-1xh100").unwrap();
    for quantity in [&mut profile.w_ms, &mut profile.h_ms_per_sequence, &mut profile.kv_tokens, &mut profile.mfu] {
        quantity.relative_error = 0.0;
    }
    let cell =
        |prompt_tokens, completion_tokens| Cell { prompt_tokens, completion_tokens, cached_share: 0.0, weight: 1e9 };
    let cells = vec![cell(200.0, 150.0), cell(900.0, 300.0), cell(3000.0, 120.0)];
    let slo = Slo { ttft_p99_ms: Some(2000.0), ..Slo::default() };
    // A quantile that a log of two hours can know: of 120 minutes, the busiest twelve hold more than a tenth of the requests.
    let options = Options { seed, bootstrap: replicates, rate_quantile: 0.9, ..Options::default() };
    recommend(&Workload { cells, arrivals }, &profile, &slo, &options).unwrap()
}

#[test]
fn nine_of_ten_intervals_hold_the_answer_of_an_endless_log() {
    const LOGS: u64 = 40;
    let truth = sized(log(10_000, 1), 0, 0).gpus;
    let intervals: Vec<(u32, u32)> = (0..LOGS)
        .map(|seed| sized(log(120, 100 + seed), 60, seed).interval.unwrap())
        .map(|interval| (interval.low_gpus.unwrap(), interval.high_gpus.unwrap()))
        .collect();
    let held = intervals.iter().filter(|(low, high)| (*low..=*high).contains(&truth)).count();
    let width = intervals.iter().map(|(low, high)| f64::from(high - low)).sum::<f64>() / LOGS as f64;
    // Of 40 intervals that hold with 0.9, fewer than 31 do once in a hundred runs. An interval so wide that it always holds
    // would be no use either.
    assert!(held >= 31, "{held} of {LOGS} hold {truth}: {intervals:?}");
    assert!(width > 1.0 && width < 0.4 * f64::from(truth), "{width} of {truth}");
}
