//! The simulator keeps the laws that any queue keeps, and the model agrees with it.

mod common;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::Exp1;
use weir_fleet::sim::{Balance, Config, Report, Request, poisson_requests, simulate};
use weir_fleet::{
    Arrivals, Cell, GpuProfile, Options, PoolModel, Slo, Workload, queue::erlang_c, recommend, split, whatif,
};

fn h100() -> GpuProfile {
    GpuProfile::named("llama-3.1-70b-bf16-8xh100").unwrap()
}

fn l40s() -> GpuProfile {
    GpuProfile::named("llama-3.1-8b-bf16-1xl40s").unwrap()
}

fn config(instances: usize) -> Config {
    Config { instances, balance: Balance::LeastInFlight, queue_max: usize::MAX, seed: 1 }
}

/// No compute, no context cost, one iteration a chunk: every slot serves at the same fixed speed.
fn fixed_speed(slots: f64, iteration_ms: f64) -> GpuProfile {
    let mut profile = h100();
    profile.w_ms.value = iteration_ms;
    profile.h_ms_per_sequence.value = 0.0;
    profile.parameters.value = 0.0;
    profile.attention_flops_per_pair.value = 0.0;
    profile.max_num_seqs.value = slots;
    profile
}

#[test]
fn littles_law_and_conservation_of_work_and_tokens_hold() {
    for (cells, profile, rate) in [(common::chat(), h100(), 30.0), (common::agent(), l40s(), 0.6)] {
        let requests = poisson_requests(&cells, rate, 4000, 11);
        let report = simulate(&profile, &requests, &config(2));
        assert_eq!(report.served.len() + report.rejected as usize, requests.len());
        // L = lambda W over the whole run, as integral of the number in system = sum of times in system.
        let sojourns: f64 = report.served.iter().map(|served| served.e2e_ms).sum();
        assert!((report.in_system_request_ms / sojourns - 1.0).abs() < 1e-9);
        assert_eq!(report.idle_with_work_ms, 0.0);
        assert!(report.busy_ms <= 2.0 * report.span_ms * (1.0 + 1e-9));
        let asked = |value: fn(&Request) -> u32| {
            report.served.iter().map(|s| u64::from(value(&requests[s.request]))).sum::<u64>()
        };
        assert_eq!(report.completion_tokens, asked(|r| r.completion_tokens));
        let prefill_once = asked(|r| r.prompt_tokens - r.cached_tokens);
        assert!(
            report.prefill_tokens >= prefill_once && (report.preemptions > 0 || report.prefill_tokens == prefill_once)
        );
        assert!(report.kv_peak_tokens <= profile.kv_tokens.value);
    }
}

/// Exponential service at fixed slots is M/M/c: Erlang's formula gives the probability and the mean of the wait.
#[test]
fn exponential_service_in_fixed_slots_waits_as_erlang_c_says() {
    let (slots, iteration_ms, mean_steps, rate_per_s) = (8_u32, 10.0, 200.0, 3.2);
    let profile = fixed_speed(f64::from(slots), iteration_ms);
    let load = rate_per_s * mean_steps * iteration_ms / 1000.0;
    let expected_probability = erlang_c(slots, load);
    let expected_mean_ms = expected_probability * mean_steps * iteration_ms / (f64::from(slots) - load);
    let runs: Vec<(f64, f64)> = (0..12)
        .map(|seed| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut now_ms = 0.0;
            let requests: Vec<Request> = (0..20_000)
                .map(|_| {
                    now_ms += rng.sample::<f64, _>(Exp1) * 1000.0 / rate_per_s;
                    let steps: f64 = rng.sample::<f64, _>(Exp1) * mean_steps;
                    Request {
                        arrival_ms: now_ms,
                        prompt_tokens: 1,
                        cached_tokens: 0,
                        // Rounded up, an exponential is geometric with half a step more.
                        completion_tokens: (steps + 0.5).ceil().max(1.0) as u32,
                    }
                })
                .collect();
            let report = simulate(&profile, &requests, &config(1));
            let waited = |served: &weir_fleet::sim::Served| f64::from(u8::from(served.queued_ms > iteration_ms));
            // Every request waits for the running iteration to end, half of one on average.
            let mean_ms = report.mean(0.0, |served| Some(served.queued_ms)) - iteration_ms / 2.0;
            (report.mean(0.0, |served| Some(waited(served))), mean_ms)
        })
        .collect();
    for (values, expected) in [
        (runs.iter().map(|run| run.0).collect::<Vec<_>>(), expected_probability),
        (runs.iter().map(|run| run.1).collect::<Vec<_>>(), expected_mean_ms),
    ] {
        let (mean, error) = mean_and_error(&values);
        let tolerance = 3.0 * error + 0.03 * expected;
        assert!((mean - expected).abs() < tolerance, "{mean} +- {error}, Erlang C {expected}");
    }
}

fn mean_and_error(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, (variance / n).sqrt())
}

#[test]
fn more_instances_and_less_load_never_slow_the_first_token() {
    let profile = h100();
    let requests = poisson_requests(&common::rag(), 12.0, 6000, 5);
    let ttft = |report: &Report| report.mean(0.0, |served| Some(served.ttft_ms));
    let by_instances: Vec<f64> = (2..6).map(|n| ttft(&simulate(&profile, &requests, &config(n)))).collect();
    assert!(by_instances.windows(2).all(|pair| pair[1] <= pair[0]), "{by_instances:?}");
    let by_load: Vec<f64> = [1.0, 1.2, 1.5, 2.0]
        .iter()
        .map(|stretch| {
            let slower: Vec<Request> =
                requests.iter().map(|r| Request { arrival_ms: r.arrival_ms * stretch, ..*r }).collect();
            ttft(&simulate(&profile, &slower, &config(3)))
        })
        .collect();
    assert!(by_load.windows(2).all(|pair| pair[1] <= pair[0]), "{by_load:?}");
}

/// A simulator that frees a slot after `S / slots` serves about a hundred times its capacity. This one does not: under
/// overload it completes what the model calls the capacity, which is at most 15 % on the safe side.
#[test]
fn an_overloaded_pool_completes_its_capacity_and_no_more() {
    for (cells, profile) in
        [(common::chat(), h100()), (common::rag(), h100()), (common::reasoning(), h100()), (common::rag(), l40s())]
    {
        let model = PoolModel::new(&profile, &cells, 0.95).unwrap();
        let requests = poisson_requests(&cells, 3.0 * 2.0 * model.capacity_per_s, 12_000, 2);
        let report = simulate(&profile, &requests, &config(2));
        // The middle half of completions, so that neither filling nor draining counts.
        let ends: Vec<f64> = report.served.iter().map(|s| s.arrival_ms + s.e2e_ms).collect();
        let (first, last) = (ends.len() / 4, 3 * ends.len() / 4);
        let per_s = (last - first) as f64 / (ends[last] - ends[first]) * 1000.0;
        let ratio = per_s / (2.0 * model.capacity_per_s);
        assert!((0.9..1.15).contains(&ratio), "{}: {per_s}/s, {ratio} of the capacity", profile.name);
    }
}

/// Two sequences that evict each other for ever froze the clock of another simulator.
#[test]
fn tight_memory_preempts_and_still_ends() {
    let mut profile = l40s();
    profile.kv_tokens.value = 6000.0;
    let cells = [Cell { prompt_tokens: 900.0, completion_tokens: 1500.0, cached_share: 0.0, weight: 1.0 }];
    let requests = poisson_requests(&cells, 0.2, 300, 3);
    let report = simulate(&profile, &requests, &config(1));
    assert_eq!(report.served.len(), 300);
    assert!(report.preemptions > 0);
    assert!(report.kv_peak_tokens <= 6000.0);
}

#[test]
fn refused_requests_are_counted() {
    let profile = l40s();
    let mut cells = common::rag();
    cells.push(Cell { prompt_tokens: 240_000.0, completion_tokens: 10.0, cached_share: 0.0, weight: 1000.0 });
    let requests = poisson_requests(&cells, 20.0, 3000, 4);
    let report = simulate(&profile, &requests, &Config { queue_max: 50, ..config(2) });
    let too_long = requests.iter().filter(|r| r.prompt_tokens == 240_000).count() as u64;
    assert!(too_long > 0 && report.rejected > too_long);
    assert_eq!(report.served.len() as u64 + report.rejected, 3000);
}

/// Ties that always go to the first instance leave the others idle at light load.
#[test]
fn light_load_reaches_every_instance() {
    let requests = poisson_requests(&common::chat(), 0.2, 400, 6);
    let report = simulate(&h100(), &requests, &config(4));
    assert!(report.served_by_instance.iter().all(|served| *served >= 80), "{:?}", report.served_by_instance);
}

struct Bounds {
    ttft_p50: (f64, f64),
    ttft_p99: (f64, f64),
    tpot: (f64, f64),
    e2e_p95: (f64, f64),
    batch: (f64, f64),
}

/// Model over simulator, mean of five seeds. Errors lean to the safe side: a partly filled last chunk is charged as if
/// it were shared, and a balancer that sees queues does better than dealing in turn.
#[test]
fn the_model_agrees_with_the_simulator_within_the_stated_bounds() {
    let bounds = Bounds {
        ttft_p50: (0.8, 1.35),
        ttft_p99: (0.8, 1.35),
        tpot: (0.95, 1.25),
        e2e_p95: (0.98, 1.25),
        batch: (0.78, 1.2),
    };
    let workloads = [
        ("chat", common::chat()),
        ("rag", common::rag()),
        ("agent", common::agent()),
        ("reasoning", common::reasoning()),
    ];
    let mut worst = Vec::new();
    for (name, cells) in &workloads {
        for profile in [h100(), l40s()] {
            // With a handful of sequences in memory a mean-field model is out of its depth: see the next test.
            if *name == "agent" && profile.name == l40s().name {
                continue;
            }
            for (instances, utilisation) in [(1, 0.3), (1, 0.6), (4, 0.6), (4, 0.85)] {
                let row = compare(cells, &profile, instances, utilisation, 10_000);
                let checks = [
                    ("ttft p50", row[0], bounds.ttft_p50),
                    ("ttft p99", row[1], bounds.ttft_p99),
                    ("tpot", row[2], bounds.tpot),
                    ("e2e p95", row[3], bounds.e2e_p95),
                    ("batch", row[4], bounds.batch),
                ];
                for (what, ratio, (low, high)) in checks {
                    if !(low..=high).contains(&ratio) {
                        worst.push(format!("{name} {} N={instances} {utilisation}: {what} {ratio:.3}", profile.name));
                    }
                }
            }
        }
    }
    assert!(worst.is_empty(), "{worst:#?}");
}

/// Least-in-flight dealing to many instances is no dealing in turn, but smooths the arrivals of each about as much: taken as
/// Poisson at each instance instead, the P99 of the larger pools would be 1.3 to 3.2 times the simulated one.
#[test]
fn the_model_agrees_with_the_simulator_in_large_pools() {
    let mut worst = Vec::new();
    for (name, cells) in [("chat", common::chat()), ("rag", common::rag())] {
        for (instances, requests_per_instance) in [(16, 3000), (64, 1500)] {
            for utilisation in [0.6, 0.85] {
                let row = compare(&cells, &h100(), instances, utilisation, requests_per_instance);
                if !((0.8..=1.35).contains(&row[0]) && (0.85..=1.35).contains(&row[1])) {
                    worst.push(format!("{name} N={instances} {utilisation}: {row:?}"));
                }
            }
        }
    }
    assert!(worst.is_empty(), "{worst:#?}");
}

/// KV-bound with under ten sequences in memory: still the right order, within a factor of two.
#[test]
fn a_memory_bound_pool_of_few_sequences_is_right_within_a_factor_of_two() {
    for (instances, utilisation) in [(1, 0.6), (4, 0.6), (4, 0.85)] {
        let row = compare(&common::agent(), &l40s(), instances, utilisation, 10_000);
        assert!(row.iter().all(|ratio| (0.5..2.0).contains(ratio)), "N={instances} {utilisation}: {row:?}");
    }
}

/// Model over simulator: TTFT P50, TTFT P99, mean TPOT, end-to-end P95, batch.
fn compare(
    cells: &[Cell],
    profile: &GpuProfile,
    instances: u32,
    utilisation: f64,
    requests_per_instance: usize,
) -> [f64; 5] {
    let options = Options::default();
    let capacity = PoolModel::new(profile, cells, options.kv_quantile).unwrap().capacity_per_s;
    let rate = utilisation * capacity * f64::from(instances);
    let workload = Workload { cells: cells.to_vec(), arrivals: Arrivals::PoissonPerS(rate) };
    let slo = Slo { ttft_p99_ms: Some(1e9), ..Slo::default() };
    let plan = whatif(&workload, profile, &slo, &options, instances).unwrap();
    let mut sums = [0.0; 5];
    const SEEDS: u64 = 5;
    for seed in 0..SEEDS {
        let requests = poisson_requests(cells, rate, requests_per_instance * instances as usize, seed);
        let report = simulate(profile, &requests, &config(instances as usize));
        // Warm-up, and the tail that drains, are left out.
        let (from, to) = (requests[requests.len() / 4].arrival_ms, requests[requests.len() * 9 / 10].arrival_ms);
        let kept = |s: &weir_fleet::sim::Served| s.arrival_ms <= to;
        let steps = |s: &weir_fleet::sim::Served| f64::from(requests[s.request].completion_tokens - 1);
        let decode = report.mean(from, |s| kept(s).then(|| s.tpot_ms.unwrap_or(0.0) * steps(s)));
        let e2e = report.mean(from, |s| kept(s).then_some(s.e2e_ms));
        let queued = report.mean(from, |s| kept(s).then_some(s.queued_ms));
        let values = [
            plan.ttft_ms.p50 / report.quantile(0.5, from, |s| kept(s).then_some(s.ttft_ms)),
            plan.ttft_ms.p99 / report.quantile(0.99, from, |s| kept(s).then_some(s.ttft_ms)),
            plan.tpot_mean_ms / (decode / report.mean(from, |s| kept(s).then(|| steps(s)))),
            plan.e2e_p95_ms / report.quantile(0.95, from, |s| kept(s).then_some(s.e2e_ms)),
            plan.batch / (rate / f64::from(instances) * (e2e - queued) / 1000.0),
        ];
        sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value / SEEDS as f64);
    }
    sums
}

/// Half of all seconds are silent and the others twice as busy: what the model is told of bursts within a window is enough
/// to keep the promise.
#[test]
fn the_simulator_keeps_the_promised_ttft_of_bursty_arrivals() {
    let (cells, rate_per_s, slo_ms) = (common::rag(), 20.0, 3000.0);
    for seed in 0..4 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let requests: Vec<Request> = poisson_requests(&cells, 2.0 * rate_per_s, 24_000, seed)
            .into_iter()
            .scan((0.0, 0.0), |(silence_ms, second), request| {
                // A silent second is put before each busy one with probability 1/2, twice with 1/4, and so on.
                while *second <= request.arrival_ms {
                    *second += 1000.0;
                    while rng.random_bool(0.5) {
                        *silence_ms += 1000.0;
                    }
                }
                Some(Request { arrival_ms: request.arrival_ms + *silence_ms, ..request })
            })
            .collect();
        let mut counts = vec![0_u32; requests[requests.len() - 1].arrival_ms as usize / 1000 + 1];
        requests.iter().for_each(|request| counts[request.arrival_ms as usize / 1000] += 1);
        let workload = Workload { cells: cells.clone(), arrivals: Arrivals::PerSecondCounts(counts) };
        let slo = Slo { ttft_p99_ms: Some(slo_ms), ..Slo::default() };
        let options = Options { bootstrap: 0, ..Options::default() };
        let recommendation = recommend(&workload, &h100(), &slo, &options).unwrap();
        assert!(recommendation.workload.rate.dispersion_within > 5.0, "{:?}", recommendation.workload.rate);
        let instances = recommendation.one_pool.plan().unwrap().instances as usize;
        let report = simulate(&h100(), &requests, &config(instances));
        let p99 = report.quantile(0.99, requests[2000].arrival_ms, |served| Some(served.ttft_ms));
        assert!(p99 <= slo_ms / 0.8, "{instances} instances: simulated P99 {p99} ms, promised {slo_ms}");
    }
}

/// The objective holds over the requests of both pools, whichever they went to.
#[test]
fn the_simulator_keeps_the_promised_ttft_of_two_pools() {
    let mut cells = common::chat();
    cells.extend(common::agent());
    let (rate_per_s, slo_ms, boundary_tokens) = (40.0, 5000.0, 4096);
    let workload = Workload { cells: cells.clone(), arrivals: Arrivals::PoissonPerS(rate_per_s) };
    let slo = Slo { ttft_p99_ms: Some(slo_ms), ..Slo::default() };
    let options = Options { bootstrap: 0, boundaries: vec![boundary_tokens], ..Options::default() };
    let two = recommend(&workload, &h100(), &slo, &options).unwrap().two_pools.unwrap();
    let routed = split(&cells, f64::from(boundary_tokens), options.knowledge);
    let p99s: Vec<f64> = (0..5)
        .map(|seed| {
            let pools = [(&routed.short, &two.short), (&routed.long, &two.long)];
            let mut ttft_ms: Vec<f64> = pools
                .into_iter()
                .flat_map(|(cells, plan)| {
                    // Half an hour in both, so that each weighs what it should.
                    let count = (plan.rate_per_s * 1800.0) as usize;
                    let requests = poisson_requests(cells, plan.rate_per_s, count, seed);
                    let report = simulate(&h100(), &requests, &config(plan.instances as usize));
                    let settled = report.served.into_iter().filter(|served| served.arrival_ms > 300_000.0);
                    settled.map(|served| served.ttft_ms).collect::<Vec<_>>()
                })
                .collect();
            ttft_ms.sort_by(f64::total_cmp);
            ttft_ms[ttft_ms.len() * 99 / 100]
        })
        .collect();
    let (mean, error) = mean_and_error(&p99s);
    assert!(mean <= slo_ms / 0.8, "simulated P99 {mean} +- {error} ms, promised {slo_ms}: {two:?}");
}

/// Where the trace or the pool is degenerate, every request is still accounted for.
#[test]
fn empty_pools_and_empty_requests_are_accounted_for() {
    let empty = Request { arrival_ms: 5.0, prompt_tokens: 0, cached_tokens: 0, completion_tokens: 0 };
    assert_eq!(simulate(&h100(), &[empty; 3], &config(0)).rejected, 3);
    let report = simulate(&h100(), &[empty; 3], &config(1));
    assert_eq!((report.served.len(), report.completion_tokens, report.prefill_tokens), (3, 3, 3));
}
