//! What a recommendation promises, and the defects of another planner that it must not repeat.

mod common;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use weir_fleet::sim::{Balance, Config, poisson_requests, simulate};
use weir_fleet::{
    Arrivals, Binding, Cell, FleetError, GpuProfile, Knowledge, KvAdmission, Options, PoolPlan, Recommendation, Slo,
    Topology, Workload, recommend, whatif,
};

fn h100() -> GpuProfile {
    GpuProfile::named("llama-3.1-70b-bf16-8xh100").unwrap()
}

fn at(cells: Vec<Cell>, rate_per_s: f64) -> Workload {
    Workload { cells, arrivals: Arrivals::PoissonPerS(rate_per_s) }
}

fn ttft(ms: f64) -> Slo {
    Slo { ttft_p99_ms: Some(ms), ..Slo::default() }
}

/// The point answer alone.
fn quick() -> Options {
    Options { bootstrap: 0, ..Options::default() }
}

fn instances(recommendation: &Recommendation) -> u32 {
    recommendation.one_pool.plan().unwrap().instances
}

fn arbitrary_cells() -> impl Strategy<Value = Vec<Cell>> {
    let cell =
        (1_u32..20_000, 1_u32..2000, 0_u32..9, 1_u32..300).prop_map(|(prompt, completion, cached, weight)| Cell {
            prompt_tokens: f64::from(prompt),
            completion_tokens: f64::from(completion),
            cached_share: f64::from(cached) / 10.0,
            weight: f64::from(weight),
        });
    prop::collection::vec(cell, 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn more_load_never_needs_fewer_gpus(cells in arbitrary_cells(), rate in 0.1..80.0_f64, factor in 1.0..3.0_f64) {
        let slo = Slo { ttft_p99_ms: Some(15_000.0), tpot_p95_ms: Some(120.0), ..Slo::default() };
        // What no fleet serves needs more than any number.
        let gpus = |rate| match recommend(&at(cells.clone(), rate), &h100(), &slo, &quick()) {
            Ok(found) => (found.one_pool.plan().map_or(u32::MAX, |plan| plan.gpus), found.gpus),
            Err(FleetError::Infeasible(_)) => (u32::MAX, u32::MAX),
            Err(other) => panic!("{other}"),
        };
        let ((less_one, less), (more_one, more)) = (gpus(rate), gpus(rate * factor));
        prop_assert!(less_one <= more_one, "{less_one} {more_one}");
        prop_assert!(less <= more, "{less} {more}");
    }
}

/// By its own model: the plan keeps the objectives, one instance fewer does not.
#[test]
fn the_plan_is_the_smallest_that_keeps_the_objectives() {
    let (plans, of_several) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    let inputs = (arbitrary_cells(), 0.5..80.0_f64, 800.0..9000.0_f64, 12.0..90.0_f64);
    let mut runner = TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) });
    let checked = runner.run(&inputs, |(cells, rate, ttft_ms, tpot_ms)| {
        let slo = Slo { ttft_p99_ms: Some(ttft_ms), tpot_p95_ms: Some(tpot_ms), e2e_p95_ms: None };
        let workload = at(cells, rate);
        let Ok(recommendation) = recommend(&workload, &h100(), &slo, &quick()) else { return Ok(()) };
        let Some(plan) = recommendation.one_pool.plan() else { return Ok(()) };
        plans.set(plans.get() + 1);
        prop_assert!(plan.ttft_ms.p99 <= ttft_ms * 1.001);
        prop_assert!(plan.tpot_p95_ms <= tpot_ms * 1.001);
        prop_assert!(plan.utilisation <= 0.9 + 1e-6);
        prop_assert!(plan.batch <= f64::from(plan.slots_per_instance) + 1e-6);
        if plan.instances > 1 {
            of_several.set(of_several.get() + 1);
            match whatif(&workload, &h100(), &slo, &quick(), plan.instances - 1) {
                Ok(fewer) => prop_assert!(
                    fewer.ttft_ms.p99 > ttft_ms * 0.999
                        || fewer.tpot_p95_ms > tpot_ms * 0.999
                        || fewer.utilisation > 0.9
                ),
                Err(FleetError::Infeasible(_)) => {}
                Err(other) => prop_assert!(false, "{other}"),
            }
        } else {
            prop_assert_eq!(plan.binding, Binding::OneInstance);
        }
        Ok(())
    });
    checked.unwrap();
    // Most draws are feasible, or nothing was checked.
    assert!(plans.get() >= 16 && of_several.get() >= 8, "{} plans, {} of several", plans.get(), of_several.get());
}

/// D3: a P99 made of a P99 wait and a mean prefill at batch 1 understates 2 to 20 times. The simulator, which knows
/// nothing of the formula, keeps the promise that the plan makes.
#[test]
fn the_simulator_keeps_the_promised_ttft() {
    for (cells, rate, slo_ms) in [(common::chat(), 150.0, 250.0), (common::rag(), 20.0, 2500.0)] {
        let plan = recommend(&at(cells.clone(), rate), &h100(), &ttft(slo_ms), &quick()).unwrap();
        let instances = instances(&plan) as usize;
        let p99s: Vec<f64> = (0..10)
            .map(|seed| {
                let requests = poisson_requests(&cells, rate, 20_000, seed);
                let config = Config { instances, balance: Balance::LeastInFlight, queue_max: usize::MAX, seed };
                simulate(&h100(), &requests, &config).quantile(0.99, requests[4000].arrival_ms, |s| Some(s.ttft_ms))
            })
            .collect();
        let mean = p99s.iter().sum::<f64>() / p99s.len() as f64;
        // The stated accuracy of the model's P99 is -20 %.
        assert!(mean <= slo_ms / 0.8, "{instances} instances: simulated P99 {mean} ms, promised {slo_ms}");
    }
}

/// D4: there, 500 times the objective moved the fleet by one GPU.
#[test]
fn a_tighter_objective_needs_a_larger_fleet() {
    let sizes: Vec<u32> = [2000.0, 1400.0, 1100.0]
        .map(|ms| instances(&recommend(&at(common::rag(), 30.0), &h100(), &ttft(ms), &quick()).unwrap()))
        .to_vec();
    assert!(sizes[0] < sizes[1] && sizes[1] < sizes[2], "{sizes:?}");
}

#[test]
fn infeasible_objectives_are_refused_in_one_sentence() {
    let slow_prefill = recommend(&at(common::rag(), 5.0), &h100(), &ttft(200.0), &quick()).unwrap_err();
    assert!(slow_prefill.to_string().contains("prefill alone takes"), "{slow_prefill}");
    let tpot = Slo { tpot_p95_ms: Some(5.0), ..Slo::default() };
    let slow_decode = recommend(&at(common::chat(), 5.0), &h100(), &tpot, &quick()).unwrap_err();
    assert!(slow_decode.to_string().contains("ms a token on an idle instance"), "{slow_decode}");
    let e2e = Slo { e2e_p95_ms: Some(100.0), ..Slo::default() };
    let slow_all = recommend(&at(common::chat(), 5.0), &h100(), &e2e, &quick()).unwrap_err();
    assert!(slow_all.to_string().contains("end-to-end objective"), "{slow_all}");
    let small = Options { instances_max: 2, ..quick() };
    let too_much = recommend(&at(common::chat(), 5000.0), &h100(), &ttft(500.0), &small).unwrap_err();
    assert!(too_much.to_string().contains("limit of 2"), "{too_much}");
    let nothing = recommend(&at(common::chat(), 5.0), &h100(), &Slo::default(), &quick()).unwrap_err();
    assert!(nothing.to_string().contains("at least one objective"), "{nothing}");
    let long_tail = |share: f64| {
        let giant = Cell { prompt_tokens: 2e6, completion_tokens: 100.0, cached_share: 0.0, weight: share };
        vec![giant, Cell { prompt_tokens: 500.0, weight: 1.0 - share, ..giant }]
    };
    // Never served is never within any objective; it is not the fault of decoding.
    let tpot = Slo { tpot_p95_ms: Some(100.0), ..Slo::default() };
    let too_long = recommend(&at(long_tail(0.08), 5.0), &h100(), &tpot, &quick()).unwrap_err();
    assert!(too_long.to_string().contains("8.0 % of requests are longer"), "{too_long}");
    assert!(recommend(&at(long_tail(0.03), 5.0), &h100(), &tpot, &quick()).is_ok());
    let hopeless = Options { availability: 0.1, ..quick() };
    let spares = recommend(&at(common::chat(), 5.0), &h100(), &ttft(500.0), &hopeless).unwrap_err();
    assert!(spares.to_string().contains("`availability` must be at least 0.5"), "{spares}");
    let giants = vec![Cell { prompt_tokens: 2e6, completion_tokens: 1.0, cached_share: 0.0, weight: 1.0 }];
    assert!(
        recommend(&at(giants, 1.0), &h100(), &ttft(1e9), &quick()).unwrap_err().to_string().contains("longer than")
    );
}

/// D9: an eight-GPU node was priced, counted and powered as one GPU.
#[test]
fn gpus_watts_and_price_count_every_gpu_of_an_instance() {
    let recommendation = recommend(&at(common::chat(), 60.0), &h100(), &ttft(500.0), &quick()).unwrap();
    let plan = recommendation.one_pool.plan().unwrap();
    assert_eq!(plan.gpus, 8 * plan.instances);
    assert!((plan.usd_per_hour - 4.02 * f64::from(plan.gpus)).abs() < 1e-9);
    assert!(plan.watts >= 300.0 * f64::from(plan.gpus) && plan.watts <= 600.0 * f64::from(plan.gpus));
}

/// D10: a 512-token chunk of 70B parameters on 8 A100 at half the peak takes 2 * 70.6e9 * 512 / (8 * 156e12) = 57.9 ms,
/// there 8.65 ms.
#[test]
fn prefill_is_paid_for() {
    let profile = GpuProfile::named("llama-3.1-70b-bf16-8xa100").unwrap();
    let ms = profile.chunk_compute_ms(512.0, 0.0);
    assert!((57.9..58.5).contains(&ms), "{ms}");
    // And so a fleet depends on prompts, not on the completion share alone.
    let longer: Vec<Cell> =
        common::chat().iter().map(|c| Cell { prompt_tokens: c.prompt_tokens * 8.0, ..*c }).collect();
    let size = |cells| instances(&recommend(&at(cells, 60.0), &profile, &ttft(20_000.0), &quick()).unwrap());
    assert!(size(longer) > 2 * size(common::chat()));
}

/// D11: reserving the longest context for every sequence.
#[test]
fn reserved_memory_needs_more_instances_than_accounted() {
    let mut profile = GpuProfile::named("llama-3.1-8b-bf16-1xh100").unwrap();
    profile.max_model_tokens.value = 65_536.0;
    let accounted = instances(&recommend(&at(common::chat(), 60.0), &profile, &ttft(1000.0), &quick()).unwrap());
    profile.kv_admission = KvAdmission::Reserved;
    let reserved = instances(&recommend(&at(common::chat(), 60.0), &profile, &ttft(1000.0), &quick()).unwrap());
    assert!(reserved > 2 * accounted, "{accounted} {reserved}");
}

/// D12: a batch runs at the pace of all its members, so long neighbours slow short requests down.
#[test]
fn long_neighbours_slow_short_requests() {
    let short = Cell { prompt_tokens: 200.0, completion_tokens: 200.0, cached_share: 0.0, weight: 100.0 };
    let long = Cell { prompt_tokens: 30_000.0, completion_tokens: 200.0, cached_share: 0.95, weight: 100.0 };
    let tpot = |cells: Vec<Cell>| whatif(&at(cells, 10.0), &h100(), &ttft(1e6), &quick(), 1).unwrap().tpot_mean_ms;
    let (alone, mixed) = (tpot(vec![short]), tpot(vec![short, long]));
    assert!(mixed > 1.5 * alone, "{alone} {mixed}");
}

/// D7: Monte-Carlo noise moved the answer by tens of GPUs and no interval was shown. The point answer here does not
/// depend on the seed, the interval holds it, and a seed gives the same interval again.
#[test]
fn the_answer_is_a_function_of_the_input_and_the_interval_of_the_seed() {
    let mut counts = Vec::new();
    for second in 0..3600_u32 {
        counts.push(40 + (second / 120 % 5) * 6 + second % 3);
    }
    let workload = Workload { cells: common::chat(), arrivals: Arrivals::PerSecondCounts(counts) };
    let with = |seed| Options { seed, bootstrap: 100, ..Options::default() };
    let first = recommend(&workload, &h100(), &ttft(400.0), &with(1)).unwrap();
    let other = recommend(&workload, &h100(), &ttft(400.0), &with(2)).unwrap();
    assert_eq!(first, recommend(&workload, &h100(), &ttft(400.0), &with(1)).unwrap());
    assert_eq!(first.gpus, other.gpus);
    for recommendation in [&first, &other] {
        let interval = recommendation.interval.as_ref().unwrap();
        assert!(interval.low_gpus.unwrap() <= recommendation.gpus);
        assert!(interval.high_gpus.unwrap() >= recommendation.gpus);
        assert!(interval.low_gpus < interval.high_gpus);
        assert!((interval.distribution.values().sum::<f64>() - 1.0).abs() < 1e-9);
    }
}

/// The interval of a short log is wider than that of a long one of the same process.
#[test]
fn more_data_narrows_the_interval() {
    let mut exact = h100();
    for quantity in [&mut exact.w_ms, &mut exact.h_ms_per_sequence, &mut exact.kv_tokens, &mut exact.mfu] {
        quantity.relative_error = 0.0;
    }
    let width = |seconds: u32| {
        let counts = (0..seconds).map(|t| 1500 + 10 * ((t / 40).wrapping_mul(2_654_435_761) % 97)).collect();
        // Lengths known to the last digit, so that only the arrivals are in doubt.
        let cells = common::chat().into_iter().map(|cell| Cell { weight: 1e9, ..cell }).collect();
        let workload = Workload { cells, arrivals: Arrivals::PerSecondCounts(counts) };
        let options = Options { bootstrap: 100, ..Options::default() };
        let interval = recommend(&workload, &exact, &ttft(400.0), &options).unwrap().interval.unwrap();
        interval.high_gpus.unwrap() - interval.low_gpus.unwrap()
    };
    assert!(width(200) > width(40_000), "{} {}", width(200), width(40_000));
}

/// A log that ends before the second request could leave says nothing of how the rate moves.
#[test]
fn a_log_shorter_than_two_windows_is_refused() {
    let log = |seconds| Workload { cells: common::reasoning(), arrivals: Arrivals::PerSecondCounts(vec![3; seconds]) };
    let short = recommend(&log(20), &h100(), &ttft(1000.0), &quick()).unwrap_err();
    assert!(short.to_string().contains("observed for 20 s") && short.to_string().contains("at least"), "{short}");
    assert!(whatif(&log(20), &h100(), &ttft(1000.0), &quick(), 3).is_err());
    assert!(recommend(&log(2000), &h100(), &ttft(1000.0), &quick()).is_ok());
}

/// Busy and quiet hours that follow each other make a few hours a few observations, whatever the number of windows.
#[test]
fn a_log_of_few_busy_times_says_so() {
    let said = |hours: u32| {
        let counts = (0..3600 * hours).map(|t| if t / 1800 * 7919 % 13 < 6 { 60 } else { 20 }).collect();
        let workload = Workload { cells: common::chat(), arrivals: Arrivals::PerSecondCounts(counts) };
        let options = Options { bootstrap: 5, ..Options::default() };
        let recommendation = recommend(&workload, &h100(), &ttft(400.0), &options).unwrap();
        recommendation.assumptions.iter().any(|sentence| sentence.contains("too narrow"))
    };
    assert!(said(3) && !said(72));
}

/// Section 13 of the research notes: a fleet sized for the mean of a rate that moves by +-30 % for a minute at a time
/// queues for seconds.
#[test]
fn a_rate_that_moves_slowly_needs_more_than_its_mean() {
    let moving = (0..7200).map(|t| if t / 60 % 2 == 0 { 195 } else { 105 }).collect();
    let workload = Workload { cells: common::chat(), arrivals: Arrivals::PerSecondCounts(moving) };
    let planned = recommend(&workload, &h100(), &ttft(400.0), &quick()).unwrap();
    let steady = recommend(&at(common::chat(), 150.0), &h100(), &ttft(400.0), &quick()).unwrap();
    assert!(planned.workload.rate.planned_per_s > 190.0, "{:?}", planned.workload.rate);
    assert!(instances(&planned) > instances(&steady));
}

#[test]
fn both_pools_together_carry_the_whole_load() {
    let mut cells = common::chat();
    cells.extend(common::agent());
    let recommendation = recommend(&at(cells, 8.0), &h100(), &ttft(6000.0), &quick()).unwrap();
    let two = recommendation.two_pools.as_ref().unwrap();
    assert!((two.short.rate_per_s + two.long.rate_per_s - 8.0).abs() < 1e-9);
    assert_eq!(two.gpus, two.short.gpus + two.long.gpus);
    assert!(two.misrouted_share < 0.1);
    let one = recommendation.one_pool.plan().unwrap().gpus;
    assert_eq!(recommendation.gpus, one.min(two.gpus));
    assert_eq!(recommendation.chosen == Topology::OnePool, one <= two.gpus);
}

/// Twelve per cent more instances bring nobody within a TPOT that is half of what the utilisation cap gives: a search that
/// looks one step ahead stops there.
#[test]
fn two_pools_are_found_far_above_the_utilisation_cap() {
    let slo = Slo { tpot_p95_ms: Some(10.0), ..Slo::default() };
    let recommendation = recommend(&at(common::reasoning(), 40.0), &h100(), &slo, &quick()).unwrap();
    let two = recommendation.two_pools.as_ref().expect("a pair of pools keeps what one pool keeps");
    let one = recommendation.one_pool.plan().unwrap();
    let of_both =
        |value: fn(&PoolPlan) -> f64| two.short_share * value(&two.short) + (1.0 - two.short_share) * value(&two.long);
    assert!(one.utilisation < 0.6 && of_both(|pool| pool.utilisation) < 0.6, "{one:?} {two:?}");
    assert!(f64::from(two.gpus) < 1.5 * f64::from(one.gpus), "{} {}", two.gpus, one.gpus);
}

/// The point of two pools where an engine reserves: the short one sets aside no more than its boundary.
#[test]
fn a_short_pool_that_reserves_sets_aside_its_boundary() {
    let mut profile = GpuProfile::named("llama-3.1-8b-bf16-1xh100").unwrap();
    profile.kv_admission = KvAdmission::Reserved;
    profile.max_model_tokens.value = 131_072.0;
    let short = Cell { prompt_tokens: 500.0, completion_tokens: 200.0, cached_share: 0.0, weight: 900.0 };
    let long = Cell { prompt_tokens: 60_000.0, completion_tokens: 200.0, cached_share: 0.9, weight: 100.0 };
    let options = Options { boundaries: vec![1024], ..quick() };
    let recommendation = recommend(&at(vec![short, long], 20.0), &profile, &ttft(20_000.0), &options).unwrap();
    let two = recommendation.two_pools.unwrap();
    assert!(two.short.slots_per_instance > 50 * two.long.slots_per_instance, "{two:?}");
    assert!(two.gpus < recommendation.one_pool.plan().unwrap().gpus);
    assert!(two.short.kv_use <= 1.0);
}

/// A router that errs sends long requests to the short pool: its answer is never better than that of one that knows.
#[test]
fn a_router_that_errs_never_saves_gpus() {
    let mut cells = common::chat();
    cells.extend(common::agent());
    let two = |error| {
        let options = Options { knowledge: Knowledge::TotalWithErrorShare(error), boundaries: vec![4096], ..quick() };
        recommend(&at(cells.clone(), 40.0), &h100(), &ttft(6000.0), &options).unwrap().two_pools.unwrap()
    };
    let (knows, errs) = (two(0.0), two(0.2));
    assert!((errs.misrouted_share - 0.2).abs() < 1e-9);
    assert!(knows.gpus <= errs.gpus && knows.short.ttft_ms.p99 <= errs.short.ttft_ms.p99);
}

/// Real lengths and arrival times: three samples that come with the peer. Their output share is half of what it assumes.
#[test]
fn real_traces_are_sized() {
    let Some(folder) = weir_tests::shared("data/fleet_sim_workloads/trace_samples") else { return };
    let csv = std::fs::read_to_string(folder.join("batch_spike_requests.csv")).unwrap();
    let mut rows: Vec<(f64, u32, u32)> = csv
        .lines()
        .skip(1)
        .map(|line| {
            let fields: Vec<&str> = line.split(',').collect();
            (fields[0].parse().unwrap(), fields[1].parse().unwrap(), fields[2].parse().unwrap())
        })
        .collect();
    check_trace(&rows, 288, 0.125);
    let chat = std::fs::read_to_string(folder.join("generic_chat_mix.jsonl")).unwrap();
    rows = chat
        .lines()
        .map(|line| {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            let tokens = |field: &str| row[field].as_u64().unwrap() as u32;
            (row["timestamp"].as_f64().unwrap(), tokens("prompt_tokens"), tokens("generated_tokens"))
        })
        .collect();
    check_trace(&rows, 240, 0.117);
}

/// Number and output share are published in the research notes, section 1.
fn check_trace(rows: &[(f64, u32, u32)], number: usize, output_share: f64) {
    let mut counts = vec![0_u32; rows.last().unwrap().0 as usize + 1];
    rows.iter().for_each(|(second, _, _)| counts[*second as usize] += 1);
    let workload = Workload::from_requests(rows.iter().map(|row| (row.1, row.2)), Arrivals::PerSecondCounts(counts));
    let recommendation = recommend(&workload, &h100(), &ttft(2000.0), &Options::default()).unwrap();
    let summary = recommendation.workload;
    assert_eq!(summary.requests as usize, number);
    assert!((summary.output_share - output_share).abs() < 0.003, "{}", summary.output_share);
    let mean = number as f64 / (rows.last().unwrap().0.floor() + 1.0);
    assert!((summary.rate.mean_per_s / mean - 1.0).abs() < 1e-9);
    assert!(recommendation.interval.unwrap().low_gpus.unwrap() <= recommendation.gpus);
}

#[test]
fn the_page_for_people_reads_well() {
    let counts = (0..7200_u32).map(|t| 20 + (t / 300 % 4) * 5 + t % 2).collect();
    let workload = Workload { cells: common::rag(), arrivals: Arrivals::PerSecondCounts(counts) };
    let slo = Slo { ttft_p99_ms: Some(2500.0), tpot_p95_ms: Some(60.0), e2e_p95_ms: None };
    let options = Options { bootstrap: 50, availability: 0.9871, ..Options::default() };
    let recommendation = recommend(&workload, &h100(), &slo, &options).unwrap();
    insta::assert_snapshot!(recommendation.markdown());
    let json = serde_json::to_value(&recommendation).unwrap();
    assert_eq!(json["gpus"], recommendation.gpus);
    assert!(json["one_pool"]["plan"]["ttft_ms"]["p99"].is_number());
}

#[test]
fn a_broken_profile_names_the_field() {
    let text = include_str!("../profiles/llama-3.1-8b-1xh100.toml");
    assert!(GpuProfile::from_toml(text).is_ok());
    let broken = [
        (text.replace("[mfu]\nvalue = 0.5", "[mfu]\nvalue = 5.0"), "mfu"),
        (text.replace("[w_ms]\nvalue = 6.089", "[w_ms]\nvalue = -1.0"), "w_ms"),
        (text.replace("[w_ms]", "[w_millis]"), "w_millis"),
        (text.replace("source = \"vLLM default block size\"", "source = \"\""), "block_tokens"),
        (text.replace("[block_tokens]\nvalue = 16.0", "[block_tokens]\nvalue = 0.5"), "block_tokens"),
    ];
    for (profile, field) in broken {
        let error = GpuProfile::from_toml(&profile).unwrap_err().to_string();
        assert!(error.contains(field), "{field}: {error}");
    }
    assert!(GpuProfile::named("abacus").unwrap_err().to_string().contains("llama-3.1-70b-bf16-8xa100"));
    assert_eq!(GpuProfile::built_in().len(), 5);
}
