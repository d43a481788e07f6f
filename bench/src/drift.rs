//! How soon seeded changes of series are noticed, and how often one is that is none.
//!
//! Each series has two weeks of ten-minute windows without a change and three days after one. Values are drawn as a window
//! would give them: counts of arrivals, shares and means of so many requests. With a file, the series are written to it, for
//! `bench/drift/peers.py` to judge other detectors on the same values.

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;
use rand_distr::{Binomial, Distribution, Normal, Poisson};
use serde_json::json;
use weir_features::drift::Monitor;

use crate::timing::nearest_rank;

const WEEK_WINDOWS: usize = 1_008;
const QUIET_WINDOWS: usize = 2 * WEEK_WINDOWS;
const CHANGED_WINDOWS: usize = 432;
/// As the view `drift` has it.
const PATIENCE_WINDOWS: f64 = 10_080.0;
/// Requests in a window that a share or a mean is of.
const REQUESTS: u64 = 200;

/// What changes.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Arrivals: 600 a window become 10 % more.
    RateStep,
    /// A model's share of requests: 50 % become 60 %.
    MixRotation,
    /// The share of good answers: 80 % become 75 %.
    ModelRegression,
    /// Mean latency: 300 ms grow by 0.2 % of that each window. A single request's standard deviation is 60 % of its mean.
    LatencyCreep,
}

impl Kind {
    const ALL: [(Self, &'static str); 4] = [
        (Self::RateStep, "rate step of 10 %"),
        (Self::MixRotation, "mix rotation of 10 points"),
        (Self::ModelRegression, "model regression of 5 points"),
        (Self::LatencyCreep, "latency creep of 0.2 % a window"),
    ];

    fn values(self, seed: u64) -> Result<Vec<f64>, Box<dyn Error>> {
        let mut random = ChaCha12Rng::seed_from_u64(seed);
        (0..QUIET_WINDOWS + CHANGED_WINDOWS).map(|window| self.value(window, &mut random)).collect()
    }

    fn value(self, window: usize, random: &mut ChaCha12Rng) -> Result<f64, Box<dyn Error>> {
        let changed = window >= QUIET_WINDOWS;
        let share = |p| Ok::<_, Box<dyn Error>>(Binomial::new(REQUESTS, p)?);
        Ok(match self {
            Self::RateStep => Poisson::new(if changed { 660.0 } else { 600.0 })?.sample(random),
            Self::MixRotation => share(if changed { 0.6 } else { 0.5 })?.sample(random) as f64 / REQUESTS as f64,
            Self::ModelRegression => share(if changed { 0.75 } else { 0.8 })?.sample(random) as f64 / REQUESTS as f64,
            Self::LatencyCreep => {
                let mean = 300.0 * (1.0 + 0.002 * (window + 1).saturating_sub(QUIET_WINDOWS) as f64);
                Normal::new(mean, 0.6 * mean / (REQUESTS as f64).sqrt())?.sample(random)
            }
        })
    }
}

/// Draws, judges, prints; the last line is JSON.
pub fn run(seeds: u64, file: Option<&Path>) -> Result<(), Box<dyn Error>> {
    let mut out = file.map(File::create).transpose()?.map(BufWriter::new);
    let mut rows = Vec::new();
    for (kind, name) in Kind::ALL {
        let (mut delays, mut false_alarms) = (Vec::new(), 0_usize);
        for seed in 0..seeds {
            let values = kind.values(seed)?;
            if let Some(out) = &mut out {
                serde_json::to_writer(
                    &mut *out,
                    &json!({"kind": name, "seed": seed, "change_at": QUIET_WINDOWS, "values": values}),
                )?;
                out.write_all(b"\n")?;
            }
            let mut monitor = Monitor::new(PATIENCE_WINDOWS);
            let alarms: Vec<usize> = (0..)
                .zip(&values)
                .filter(|(at, value)| {
                    monitor.see(*at, &[("series", **value)])[0].is_some_and(|reading| reading.change.is_some())
                })
                .map(|(at, _)| usize::try_from(at).unwrap_or_default())
                .collect();
            false_alarms += alarms.iter().filter(|at| **at < QUIET_WINDOWS).count();
            delays.extend(alarms.iter().find(|at| **at >= QUIET_WINDOWS).map(|at| at - QUIET_WINDOWS + 1));
        }
        delays.sort_unstable();
        let found = delays.len();
        let weeks = seeds as f64 * QUIET_WINDOWS as f64 / WEEK_WINDOWS as f64;
        rows.push(json!({
            "kind": name,
            "detector": "weir",
            "found_share": found as f64 / seeds as f64,
            "delay_windows_p50": (found > 0).then(|| nearest_rank(&delays, 0.5)),
            "delay_windows_p90": (found > 0).then(|| nearest_rank(&delays, 0.9)),
            "false_alarms_per_week": false_alarms as f64 / weeks,
        }));
    }
    println!("{}", json!({ "seeds": seeds, "patience_windows": PATIENCE_WINDOWS, "detectors": rows }));
    Ok(())
}
