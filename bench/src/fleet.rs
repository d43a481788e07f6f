//! Sizing a fleet at every boundary, beside a look at one pool; and the simulator, beside an event heap.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::error::Error;
use std::hint::black_box;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, LogNormal, Poisson};
use serde_json::json;
use weir_fleet::sim::{self, Balance};
use weir_fleet::{Arrivals, Cell, GpuProfile, Options, Slo, Topology, Workload, recommend, whatif};

use crate::timing::{Times, rounded};

/// As many as the model computes with; more would be merged first.
const CELLS: usize = 1024;
const PROFILE: &str = "llama-3.1-70b-bf16-8xh100";
const RATE_PER_S: f64 = 200.0;
const SIM_REQUESTS: usize = 50_000;

/// Measures and prints.
pub fn run(repetitions: usize) -> Result<(), Box<dyn Error>> {
    let workload = workload()?;
    let profile = GpuProfile::named(PROFILE)?;
    let slo = Slo { ttft_p99_ms: Some(2_000.0), tpot_p95_ms: Some(80.0), ..Slo::default() };
    let options = Options { bootstrap: 0, ..Options::default() };
    let answer = recommend(&workload, &profile, &slo, &options)?;
    let instances = answer.one_pool.plan().ok_or("one pool does not keep the objectives")?.instances;
    let sweep = Times::of(repetitions, |_| drop(black_box(recommend(&workload, &profile, &slo, &options))));
    let one = Times::of(repetitions, |_| drop(black_box(whatif(&workload, &profile, &slo, &options, instances))));

    // The plan is for a high quantile of the rate, so the mean rate is one that this pool can carry.
    let trace = sim::poisson_requests(&workload.cells, answer.workload.rate.mean_per_s, SIM_REQUESTS, 1);
    let config =
        sim::Config { instances: instances as usize, balance: Balance::LeastInFlight, queue_max: usize::MAX, seed: 1 };
    let report = sim::simulate(&profile, &trace, &config);
    if report.served.len() as u64 + report.rejected != trace.len() as u64 {
        return Err(format!("{} of {} requests were served", report.served.len(), trace.len()).into());
    }
    let simulated = Times::of(repetitions, |_| drop(black_box(sim::simulate(&profile, black_box(&trace), &config))));
    let sim_s = simulated.p50_ns() / 1e9;
    let heap = Times::of(repetitions, |_| {
        black_box(through_a_heap(black_box(&trace)));
    });
    let heap_per_s = trace.len() as f64 * 1e9 / heap.p50_ns();
    let sim_per_s = trace.len() as f64 / sim_s;
    let boundary = match answer.chosen {
        Topology::OnePool => None,
        Topology::TwoPools { boundary_tokens } => Some(boundary_tokens),
    };
    println!(
        "{}",
        json!({
            "cells": workload.cells.len(),
            "profile": profile.name,
            "gpus": answer.gpus,
            "boundary_tokens": boundary,
            "two_pools_gpus": answer.two_pools.as_ref().map(|pair| pair.gpus),
            "sweep_ms_p50": rounded(sweep.p50_ns() / 1e6),
            "sweep_ms_max": rounded(sweep.quantile_ns(1.0) / 1e6),
            // The sweep sizes one pool, a pair at each boundary, and the chosen topology again for each sensitivity.
            "one_pool_ms_p50": rounded(one.p50_ns() / 1e6),
            "sweep_in_one_pools": rounded(sweep.p50_ns() / one.p50_ns()),
            "sim_requests": trace.len(),
            "sim_instances": instances,
            "sim_requests_per_s": sim_per_s.round(),
            "sim_iterations_per_s": (report.iterations as f64 / sim_s).round(),
            "sim_times_real_time": (report.span_ms / 1000.0 / sim_s).round(),
            "heap_ceiling_requests_per_s": heap_per_s.round(),
            "sim_ceiling_share": rounded(sim_per_s / heap_per_s),
            "optimised": !cfg!(debug_assertions),
        })
    );
    Ok(())
}

/// What any simulator of discrete events does for a request: put its arrival and its end in order.
fn through_a_heap(trace: &[sim::Request]) -> u64 {
    let mut heap = BinaryHeap::new();
    let mut last_us = 0;
    for request in trace {
        let arrival_us = (request.arrival_ms * 1000.0) as u64;
        while heap.peek().is_some_and(|Reverse(end_us)| *end_us <= arrival_us) {
            last_us = heap.pop().map_or(last_us, |Reverse(end_us)| end_us);
        }
        // Twenty milliseconds a token: ends overtake each other as they would.
        heap.push(Reverse(arrival_us + 20_000 * u64::from(request.completion_tokens)));
    }
    while let Some(Reverse(end_us)) = heap.pop() {
        last_us = end_us;
    }
    last_us
}

/// Log-normal lengths, and an hour of arrivals whose rate changes from minute to minute.
fn workload() -> Result<Workload, Box<dyn Error>> {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let (prompt, completion) = (LogNormal::new(900f64.ln(), 1.1)?, LogNormal::new(220f64.ln(), 0.8)?);
    let cells = (0..CELLS)
        .map(|_| Cell {
            prompt_tokens: prompt.sample(&mut rng).clamp(1.0, 60_000.0).round(),
            completion_tokens: completion.sample(&mut rng).clamp(1.0, 4_000.0).round(),
            cached_share: rng.random_range(0.0..0.5),
            weight: f64::from(rng.random_range(1..200)),
        })
        .collect();
    let mut counts = Vec::with_capacity(3600);
    for _ in 0..60 {
        let minute: Poisson<f64> = Poisson::new(RATE_PER_S * rng.random_range(0.7..1.3))?;
        counts.extend((0..60).map(|_| minute.sample(&mut rng) as u32));
    }
    Ok(Workload { cells, arrivals: Arrivals::PerSecondCounts(counts) })
}
