//! Claims about the simulated fleet.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use weir_policy_runtime::{
    Action, CategoryField, Context, Exploration, Feature, FeatureSpec, Layer, Mlp, Objective, Policy, PolicySpec,
    sticky_uniform,
};
use weir_schemas::{Feedback, GpuTelemetry, Request};
use weir_traffic::simulate::{
    Bursts, FeedbackConfig, Gain, Hidden, NoGain, Profile, SafetyConfig, SimConfig, Simulator, Truth, ValueLedger,
    World, WorldKind,
};
use weir_traffic::{EpsilonRouter, Event, ModelInfo, PolicyRouter, Router, Timed, TrafficError, UniformRouter};

/// Events of a run, apart by kind, in order of emission.
#[derive(Default)]
struct Run {
    events: Vec<Timed>,
    requests: Vec<Request>,
    feedback: Vec<Feedback>,
    gpu: Vec<GpuTelemetry>,
    truths: Vec<Truth>,
}

fn run_with(config: SimConfig, router: Box<dyn Router>) -> (Simulator, Run) {
    let mut simulator = Simulator::new(config, router).unwrap();
    let mut run = Run { events: simulator.by_ref().collect(), ..Run::default() };
    for timed in &run.events {
        match &timed.event {
            Event::Request(request) => run.requests.push(Request::clone(request)),
            Event::Feedback(feedback) => run.feedback.push(Feedback::clone(feedback)),
            Event::Gpu(sample) => run.gpu.push(GpuTelemetry::clone(sample)),
        }
    }
    run.truths = simulator.take_truths();
    (simulator, run)
}

fn run(config: SimConfig) -> Run {
    run_with(config, Box::new(UniformRouter::new("salt"))).1
}

fn bytes(run: &Run) -> Vec<u8> {
    let line = |timed: &Timed| [timed.at_ms.to_string().into_bytes(), timed.event.to_json(), vec![b'\n']].concat();
    run.events.iter().flat_map(line).collect()
}

/// |count - np| within 5 standard deviations of Binomial(n, p).
fn is_binomial(count: usize, n: usize, p: f64) -> bool {
    let (count, n) = (count as f64, n as f64);
    (count - n * p).abs() <= 5.0 * (n * p * (1.0 - p)).sqrt()
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_does_not() {
    let config = |seed| SimConfig { seed, duration_ms: 120_000, ..SimConfig::default() };
    let first = bytes(&run(config(5)));
    assert!(first.len() > 10_000, "the run is nearly empty");
    assert!(first == bytes(&run(config(5))), "the same seed gave other bytes");
    assert!(first != bytes(&run(config(6))), "another seed gave the same bytes");
}

/// Two runs into one topic must not share ids, or the second is taken for a repetition of the first.
#[test]
fn another_configuration_gives_other_ids_and_a_longer_run_goes_on_with_the_same() {
    let config = |profile| SimConfig { profile, duration_ms: 60_000, ..SimConfig::default() };
    let ids = |config: SimConfig| -> BTreeSet<String> {
        let run = run(config);
        let of = |event: &Timed| match &event.event {
            Event::Request(request) => Some(request.request_id.clone()),
            Event::Feedback(feedback) => Some(feedback.feedback_id.clone()),
            Event::Gpu(_) => None,
        };
        let sessions = run.truths.iter().map(|truth| truth.session_id.clone());
        run.events.iter().filter_map(of).chain(sessions).collect()
    };
    let mixed = ids(config(Profile::Mixed));
    let later = SimConfig { start_ms: SimConfig::default().start_ms + 60_000, ..config(Profile::Mixed) };
    for other in [config(Profile::Rag), later, SimConfig { requests_per_s: 11.0, ..config(Profile::Mixed) }] {
        assert!(mixed.is_disjoint(&ids(other.clone())), "{other:?}");
    }
    let longer = ids(SimConfig { duration_ms: 120_000, ..config(Profile::Mixed) });
    assert!(mixed.is_subset(&longer) && mixed.len() < longer.len());
}

#[test]
fn a_run_without_truths_has_the_same_events_and_keeps_none() {
    let config = || SimConfig { duration_ms: 60_000, ..SimConfig::default() };
    let simulator = || Simulator::new(config(), Box::new(UniformRouter::new("salt"))).unwrap();
    let mut bare = simulator().without_truths();
    assert!(bare.by_ref().eq(simulator()), "truths changed the events");
    assert!(bare.take_truths().is_empty());
}

#[test]
fn what_sessions_ask_for_does_not_depend_on_the_router() {
    let config = || SimConfig { duration_ms: 120_000, ..SimConfig::default() };
    let contexts = |run: &Run| -> BTreeMap<(String, Option<u32>), String> {
        let key = |truth: &Truth| (truth.session_id.clone(), truth.context.turn);
        run.truths.iter().map(|truth| (key(truth), format!("{:?}{:?}", truth.context, truth.utilities))).collect()
    };
    let (cheap, dear) = (
        run_with(config(), Box::new(EpsilonRouter::new("sprint-3b", 0.0, "salt"))).1,
        run_with(config(), Box::new(EpsilonRouter::new("summit-200b", 0.0, "salt"))).1,
    );
    let (cheap, dear) = (contexts(&cheap), contexts(&dear));
    // Slow models delay later turns past the end of the run: what both runs have is the same.
    let common: Vec<_> = cheap.iter().filter(|(key, _)| dear.contains_key(*key)).collect();
    assert!(common.len() > 500, "{} in common", common.len());
    for (key, context) in common {
        assert_eq!(context, &dear[key]);
    }
}

#[test]
fn a_uniform_router_is_uniform_over_sessions() {
    let run = run(SimConfig { profile: Profile::Chat, requests_per_s: 40.0, ..SimConfig::default() });
    let first_turns: Vec<&Truth> = run.truths.iter().filter(|truth| truth.context.turn == Some(0)).collect();
    for model in 0..5 {
        let count = first_turns.iter().filter(|truth| truth.chosen == model).count();
        assert!(is_binomial(count, first_turns.len(), 0.2), "model {model}: {count} of {}", first_turns.len());
    }
    assert!(run.requests.iter().all(|request| request.propensity.unwrap().get() == 0.2));
}

#[test]
fn an_epsilon_router_draws_as_often_as_it_says() {
    let mut router = EpsilonRouter::new("b", 0.3, "salt");
    let candidate =
        |name: &str| ModelInfo { name: name.to_owned(), input_usd_per_mtok: None, output_usd_per_mtok: None };
    let candidates = ["a", "b", "c"].map(candidate);
    let mut counts = [0; 3];
    for session in 0..20_000 {
        let choice = router.route(&Context::default(), &format!("session-{session}"), &candidates);
        assert_eq!(choice.propensity, choice.propensities[choice.action]);
        counts[choice.action] += 1;
    }
    for (count, propensity) in counts.into_iter().zip([0.1, 0.8, 0.1]) {
        assert!(is_binomial(count, 20_000, propensity), "{counts:?}");
    }
}

#[test]
fn a_session_keeps_its_model_under_a_constant_distribution() {
    let run = run(SimConfig { profile: Profile::Agent, duration_ms: 120_000, ..SimConfig::default() });
    let mut models: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for request in &run.requests {
        let intended = request.intended_model.as_deref().unwrap();
        models.entry(request.session_id.as_deref().unwrap()).or_default().insert(intended);
    }
    assert!(models.values().all(|intended| intended.len() == 1));
}

#[test]
fn without_gain_every_policy_has_the_same_true_value() {
    let config = SimConfig { world: WorldKind::NoGain, duration_ms: 300_000, ..SimConfig::default() };
    let (simulator, run) = run_with(config, Box::new(UniformRouter::new("salt")));
    for truth in &run.truths {
        assert!(truth.utilities.iter().all(|utility| *utility == truth.utilities[0]), "{:?}", truth.utilities);
    }
    let mut ledger = ValueLedger::new(simulator.models().iter().map(|model| model.name.clone()));
    run.truths.iter().for_each(|truth| ledger.add(truth));
    let value = ledger.summary().unwrap();
    for other in [value.chosen, value.router, value.best_single, value.per_domain_best, value.oracle] {
        assert!((other - value.uniform).abs() < 1e-12, "{value:?}");
    }
}

#[test]
fn with_gain_policies_that_know_more_are_worth_more() {
    let (simulator, run) = run_with(SimConfig::default(), Box::new(UniformRouter::new("salt")));
    let mut ledger = ValueLedger::new(simulator.models().iter().map(|model| model.name.clone()));
    run.truths.iter().for_each(|truth| ledger.add(truth));
    let value = ledger.summary().unwrap();
    assert!(value.uniform + 0.03 < value.best_single, "{value:?}");
    assert!(value.best_single + 0.01 < value.per_domain_best, "{value:?}");
    assert!(value.per_domain_best + 0.01 < value.oracle, "{value:?}");
    assert!((value.router - value.uniform).abs() < 1e-12, "{value:?}");
}

/// The truth is an expectation: the mean of what was observed must come near it. Five standard errors of the mean,
/// with the variance bounded by 1/4 for a value in [0, 1] and turns of a session counted as one.
#[test]
fn observed_quality_and_cost_agree_with_the_truth() {
    let feedback = FeedbackConfig { request_share: 1.0, lost: 0.0, duplicated: 0.0, ..SimConfig::default().feedback };
    let safety = SafetyConfig { review_share: 0.0, ..SimConfig::default().safety };
    let config = SimConfig { profile: Profile::Chat, requests_per_s: 30.0, feedback, safety, ..SimConfig::default() };
    let run = run(config);
    let truths: BTreeMap<&str, &Truth> = run.truths.iter().map(|truth| (truth.request_id.as_str(), truth)).collect();
    let (mut observed, mut expected, mut n) = (0.0, 0.0, 0.0);
    for row in &run.feedback {
        if let Some(request_id) = &row.request_id {
            let truth = truths[request_id.as_str()];
            (observed, expected, n) =
                (observed + row.value.unwrap(), expected + truth.qualities[truth.chosen], n + 1.0);
        }
    }
    assert!((observed - expected).abs() / n < 5.0 * 0.5 / f64::sqrt(n), "{observed} against {expected} of {n}");

    let cost: f64 = run.requests.iter().map(|request| request.cost_usd.unwrap().0).sum();
    let truth: f64 = run.truths.iter().map(|truth| truth.costs_usd[truth.chosen]).sum();
    assert!((cost - truth).abs() / truth < 0.03, "{cost} USD against {truth}");
}

#[test]
fn feedback_is_delayed_lost_and_doubled_at_the_stated_rates() {
    let feedback =
        FeedbackConfig { request_share: 0.6, session_share: 0.0, delay_ms: 30_000.0, lost: 0.1, duplicated: 0.2 };
    let safety = SafetyConfig { review_share: 0.0, ..SimConfig::default().safety };
    let config = SimConfig { requests_per_s: 30.0, feedback, safety, error_share: 0.0, ..SimConfig::default() };
    let (simulator, run) = run_with(config, Box::new(UniformRouter::new("salt")));
    let counts = simulator.counts();
    let (formed, lost) = (counts.feedback_formed as usize, counts.feedback_lost as usize);
    assert!(is_binomial(formed, counts.requests as usize, 0.6), "{counts:?}");
    assert!(is_binomial(lost, formed, 0.1), "{counts:?}");
    assert!(is_binomial(counts.feedback_duplicated as usize, formed - lost, 0.2), "{counts:?}");
    let ids: BTreeSet<&str> = run.feedback.iter().map(|row| row.feedback_id.as_str()).collect();
    assert_eq!(ids.len(), formed - lost);
    assert_eq!(run.feedback.len(), ids.len() + counts.feedback_duplicated as usize);

    // Exponential delays: the standard deviation is the mean. One ms is the rounding.
    let ended: BTreeMap<&str, i64> = run
        .requests
        .iter()
        .map(|request| (request.request_id.as_str(), request.arrival_ms.0 + request.end_to_end_ms.unwrap() as i64))
        .collect();
    let mut first: BTreeMap<&str, i64> = BTreeMap::new();
    for row in &run.feedback {
        first.entry(&row.feedback_id).or_insert(row.event_ms.0 - ended[row.request_id.as_deref().unwrap()]);
    }
    let mean = first.values().sum::<i64>() as f64 / first.len() as f64;
    assert!((mean - 30_000.0).abs() < 5.0 * 30_000.0 / (first.len() as f64).sqrt() + 2.0, "mean delay {mean} ms");
}

#[test]
fn unsafe_sessions_come_at_their_share_score_higher_and_are_named_by_reviewers() {
    let safety = SafetyConfig { unsafe_share: 0.2, review_share: 0.5 };
    let run = run(SimConfig { profile: Profile::Chat, requests_per_s: 30.0, safety, ..SimConfig::default() });
    let unsafe_by_session: BTreeMap<&str, bool> =
        run.truths.iter().map(|truth| (truth.session_id.as_str(), truth.is_unsafe)).collect();
    let unsafe_count = unsafe_by_session.values().filter(|is_unsafe| **is_unsafe).count();
    assert!(is_binomial(unsafe_count, unsafe_by_session.len(), 0.2));
    let reviews = || run.feedback.iter().filter(|row| row.source == "operator");
    for review in reviews() {
        let is_unsafe = unsafe_by_session[review.session_id.as_deref().unwrap()];
        assert_eq!(review.label.as_deref(), Some(if is_unsafe { "unsafe" } else { "safe" }));
    }
    // Sessions that the end of the run cuts off are not reviewed.
    assert!(reviews().count() * 5 > unsafe_by_session.len() * 2 && reviews().count() * 5 < unsafe_by_session.len() * 3);
    let mean_of = |wanted: bool| {
        let scored = run.requests.iter().filter(|row| unsafe_by_session[row.session_id.as_deref().unwrap()] == wanted);
        let scores: Vec<f64> = scored.map(|row| row.safety_score.unwrap()).collect();
        scores.iter().sum::<f64>() / scores.len() as f64
    };
    // The largest of three Beta(1, 9) has the mean of 1 - (1 - u^9)^3 over u in [0, 1]. Where an unsafe session's request shows it,
    // which it does with probability 0.6, the largest is above the mean 5/8 of Beta(5, 3).
    let harmless = 3.0 / 10.0 - 3.0 / 19.0 + 1.0 / 28.0;
    assert!((mean_of(false) - harmless).abs() < 0.01, "{}", mean_of(false));
    assert!(mean_of(true) > 0.6 * 0.625 + 0.4 * harmless - 0.01, "{}", mean_of(true));
}

#[test]
fn turns_of_a_session_follow_each_other() {
    let run = run(SimConfig { duration_ms: 300_000, ..SimConfig::default() });
    let mut sessions: BTreeMap<&str, Vec<&Request>> = BTreeMap::new();
    for request in &run.requests {
        sessions.entry(request.session_id.as_deref().unwrap()).or_default().push(request);
    }
    let mut cached_later = 0;
    for requests in sessions.values_mut() {
        requests.sort_by_key(|request| request.turn);
        for (index, request) in requests.iter().enumerate() {
            assert_eq!(request.turn, Some(index as i32));
            assert!(request.cached_prompt_tokens.is_none_or(|cached| cached < request.prompt_tokens.unwrap()));
        }
        for pair in requests.windows(2) {
            let ended = pair[0].arrival_ms.0 as f64 + pair[0].end_to_end_ms.unwrap();
            assert!(pair[1].arrival_ms.0 as f64 >= ended, "a turn began before the one before had ended");
            assert!(pair[1].prompt_tokens.unwrap() >= pair[0].prompt_tokens.unwrap(), "a history shrank");
            assert_eq!(
                (&pair[0].caller, &pair[0].tenant, &pair[0].domain),
                (&pair[1].caller, &pair[1].tenant, &pair[1].domain)
            );
            if pair[0].executed_model == pair[1].executed_model && pair[1].error_class.is_none() {
                let held = pair[0].prompt_tokens.unwrap().0 / 16 * 16;
                cached_later += i32::from(pair[1].cached_prompt_tokens.unwrap().0 == held);
            }
        }
    }
    assert!(cached_later > 200, "sessions hardly ever reuse their prefix: {cached_later}");
}

#[test]
fn profiles_differ_in_the_ways_that_name_them() {
    let profile = |profile| run(SimConfig { profile, duration_ms: 300_000, ..SimConfig::default() }).requests;
    let (chat, rag, agent) = (profile(Profile::Chat), profile(Profile::Rag), profile(Profile::Agent));
    let with_tools = |requests: &[Request]| requests.iter().filter(|request| request.tools_called.is_some()).count();
    assert_eq!((with_tools(&chat), with_tools(&rag)), (0, 0));
    assert!(2 * with_tools(&agent) > agent.len(), "agents call tools in most turns");
    let prefill_share = |requests: &[Request]| {
        let sum = |of: fn(&Request) -> i32| requests.iter().map(|request| f64::from(of(request))).sum::<f64>();
        let completion = sum(|request| request.completion_tokens.map_or(0, |tokens| tokens.0));
        sum(|request| request.prompt_tokens.unwrap().0) / completion
    };
    assert!(prefill_share(&chat) < prefill_share(&rag) && prefill_share(&rag) < prefill_share(&agent));
    assert!(rag.iter().all(|request| request.fact_check == Some(true) && request.context_text.is_some()));
    assert!(chat.iter().chain(&agent).all(|request| request.response_text.is_none()));
    let failed_calls = agent.iter().flat_map(|request| request.tools_called.iter().flatten());
    assert!(failed_calls.clone().any(|call| call.success == Some(false) && call.error_class.is_some()));
}

#[test]
fn planted_falsehoods_are_known_to_the_caller_and_only_to_the_caller() {
    let config =
        SimConfig { profile: Profile::Rag, unsupported_share: 0.25, duration_ms: 600_000, ..SimConfig::default() };
    let run = run(config);
    let labels: Vec<bool> = run.truths.iter().filter_map(|truth| truth.unsupported).collect();
    let planted = labels.iter().filter(|label| **label).count();
    assert!(is_binomial(planted, labels.len(), 0.25), "{planted} of {}", labels.len());
    let wire = String::from_utf8(bytes(&run)).unwrap();
    for word in ["unsupported", "hallucinat", "utilit", "difficulty", "topic"] {
        assert!(!wire.contains(word), "{word:?} is on the wire");
    }
}

#[test]
fn intended_and_executed_models_part_at_the_stated_rate() {
    let run = run(SimConfig { requests_per_s: 30.0, fallback_share: 0.1, error_share: 0.05, ..SimConfig::default() });
    let n = run.requests.len();
    let fell_back: Vec<&Request> =
        run.requests.iter().filter(|request| request.intended_model != request.executed_model).collect();
    assert!(is_binomial(fell_back.len(), n, 0.1), "{} of {n}", fell_back.len());
    assert!(fell_back.iter().all(|request| request.fallback_reason.is_some() && request.attempt == Some(2)));
    let failed: Vec<&Request> = run.requests.iter().filter(|request| request.error_class.is_some()).collect();
    assert!(is_binomial(failed.len(), n, 0.05), "{} of {n}", failed.len());
    assert!(failed.iter().all(|request| request.completion_tokens.is_none() && request.http_status == Some(502)));
}

/// Session starts per hour against 1 + a cos: Poisson counts, bursts off, five standard deviations.
#[test]
fn session_starts_follow_the_daily_cycle() {
    let start_ms = 1_767_571_200_000; // 2026-01-05T00:00:00Z
    let config = SimConfig {
        profile: Profile::Chat,
        requests_per_s: 0.5,
        start_ms,
        duration_ms: 86_400_000,
        daily_amplitude: 0.8,
        bursts: Bursts { factor: 1.0, ..SimConfig::default().bursts },
        gpu_sample_ms: 86_400_000,
        ..SimConfig::default()
    };
    let run = run(config);
    let mut starts = [0_usize; 24];
    for truth in run.truths.iter().filter(|truth| truth.context.turn == Some(0)) {
        starts[((truth.arrival_ms - start_ms) / 3_600_000) as usize] += 1;
    }
    let n: usize = starts.iter().sum();
    for (hour, count) in starts.into_iter().enumerate() {
        let phase = (hour as f64 + 0.5 - 14.0) / 24.0 * std::f64::consts::TAU;
        // The mean of the cosine over an hour is that of its middle times sin(w/2)/(w/2), w = one hour.
        let half = std::f64::consts::TAU / 48.0;
        let share = (1.0 + 0.8 * phase.cos() * half.sin() / half) / 24.0;
        assert!(is_binomial(count, n, share), "hour {hour}: {count} of {n}, expected a share of {share}");
    }
}

#[test]
fn bursts_raise_the_dispersion_of_counts_and_keep_the_mean() {
    let dispersion = |factor| {
        let config = SimConfig {
            profile: Profile::Chat,
            requests_per_s: 20.0,
            duration_ms: 3_600_000,
            daily_amplitude: 0.0,
            bursts: Bursts { factor, calm_ms: 60_000.0, burst_ms: 10_000.0 },
            gpu_sample_ms: 3_600_000,
            ..SimConfig::default()
        };
        let run = run(config);
        let mut counts = vec![0.0; 720];
        for truth in run.truths.iter().filter(|truth| truth.context.turn == Some(0)) {
            counts[((truth.arrival_ms - SimConfig::default().start_ms) / 5_000) as usize] += 1.0;
        }
        let mean = counts.iter().sum::<f64>() / 720.0;
        (mean, counts.iter().map(|count| (count - mean).powi(2)).sum::<f64>() / 720.0 / mean)
    };
    let ((calm_mean, calm), (bursty_mean, bursty)) = (dispersion(1.0), dispersion(5.0));
    // A Poisson count has index 1; over 720 windows its standard error is sqrt(2/719) = 0.053.
    assert!((calm - 1.0).abs() < 0.27, "index of dispersion {calm}");
    assert!(bursty > 3.0, "index of dispersion {bursty}");
    assert!((bursty_mean / calm_mean - 1.0).abs() < 0.25, "{bursty_mean} against {calm_mean}");
}

#[test]
fn telemetry_agrees_with_the_requests() {
    let config = SimConfig { requests_per_s: 30.0, ..SimConfig::default() };
    let run = run(config);
    assert!(!run.gpu.is_empty());
    let mut compared = 0;
    for sample in run.gpu.iter().filter(|sample| sample.vllm_num_requests_running.is_some()) {
        let now = sample.event_ms.0 as f64;
        let instance = |request: &&Request| request.instance == sample.instance && request.error_class.is_none();
        let of_instance: Vec<&Request> = run.requests.iter().filter(instance).collect();
        let arrival = |request: &Request| request.arrival_ms.0 as f64;
        let start = |request: &Request| arrival(request) + request.queue_ms.unwrap();
        let end = |request: &Request| arrival(request) + request.end_to_end_ms.unwrap();
        let running = of_instance.iter().filter(|r| start(r) <= now && end(r) > now && arrival(r) < now).count() as f64;
        let at_the_same_ms = of_instance.iter().filter(|request| arrival(request) == now).count() as f64;
        let reported = sample.vllm_num_requests_running.unwrap();
        assert!((reported - running).abs() <= at_the_same_ms, "{reported} running, the requests say {running}");
        let generated: f64 = of_instance
            .iter()
            .filter(|request| end(request) <= now)
            .map(|request| f64::from(request.completion_tokens.unwrap().0))
            .sum();
        assert_eq!(sample.vllm_generation_tokens_total, Some(generated));
        let power = sample.dcgm_fi_dev_power_usage.unwrap();
        assert!((95.0..=700.0).contains(&power) && (power > 95.0) == (reported > 0.0));
        compared += usize::from(running > 0.0);
    }
    assert!(compared > 50, "only {compared} busy samples");
}

/// A policy that always takes the model of its largest bias.
fn policy_for(models: &[&str], favourite: usize, gamma: f64) -> Policy {
    let features = FeatureSpec {
        features: vec![Feature::OneHot { field: CategoryField::Domain, values: vec!["code".to_owned()] }],
    };
    let spec = PolicySpec::of_guesses(
        features,
        models
            .iter()
            .map(|model| Action { model: (*model).to_owned(), input_usd_per_mtok: None, output_usd_per_mtok: None })
            .collect(),
        Exploration { gamma, floor: 0.1 },
        Objective { quality: 1.0, usd: 0.0 },
    );
    let outputs = 2 * models.len();
    let mut bias = vec![0.0; outputs];
    bias[favourite] = 4.0;
    let inputs = spec.features.width();
    let network = Mlp::new(vec![Layer::new(inputs, vec![0.0; inputs * outputs], bias).unwrap()]).unwrap();
    Policy::new(spec, network).unwrap()
}

#[test]
fn under_a_policy_a_session_keeps_its_first_choice_and_its_probabilities() {
    // The domain decides: code goes to the first model, anything else to the second.
    let models = ["first", "second"];
    let policy = policy_for(&models, 0, 1_000.0);
    let inputs = policy.spec().features.width();
    let mut weight = vec![0.0; inputs * 4];
    weight[0] = 8.0; // domain "code", quality of the first model
    let network = Mlp::new(vec![Layer::new(inputs, weight, vec![-4.0, 0.0, 0.0, 0.0]).unwrap()]).unwrap();
    let policy = Policy::new(policy.spec().clone(), network).unwrap();
    let mut router = PolicyRouter::new(policy, "sha256:abc", "salt");
    let candidates =
        models.map(|name| ModelInfo { name: name.to_owned(), input_usd_per_mtok: None, output_usd_per_mtok: None });
    let code = Context { domain: Some("code"), ..Context::default() };
    let mut differs = 0;
    for session in 0..100 {
        let session = format!("s-{session}");
        let first = router.route(&code, &session, &candidates);
        let later = router.route(&Context::default(), &session, &candidates);
        assert_eq!(first, later, "the second turn's context does not count");
        let fresh = router.route(&Context::default(), &format!("other-{session}"), &candidates);
        differs += u32::from(fresh.propensities != first.propensities);
    }
    assert_eq!(differs, 100, "as a first turn that context gives other probabilities");
}

#[test]
fn a_new_policy_is_taken_up_in_the_middle_of_a_run() {
    let config = SimConfig { profile: Profile::Chat, duration_ms: 300_000, ..SimConfig::default() };
    let mut simulator = Simulator::new(config, Box::new(UniformRouter::new("salt"))).unwrap();
    let _first: Vec<Timed> = simulator.by_ref().take(500).collect();
    let before = simulator.take_truths();
    // The policy's order is not the simulator's, and it knows only two of the models.
    let policy = policy_for(&["ledger-30b", "mosaic-9b"], 0, 1_000.0);
    simulator.set_router(Box::new(PolicyRouter::new(policy, "sha256:abc", "salt")));
    let rest: Vec<Timed> = simulator.by_ref().collect();
    let after = simulator.take_truths();
    assert!(before.iter().all(|truth| truth.propensities == [0.2; 5]));
    let ledger = simulator.models().iter().position(|model| model.name == "ledger-30b").unwrap();
    let mosaic = simulator.models().iter().position(|model| model.name == "mosaic-9b").unwrap();
    assert!(!after.is_empty());
    for truth in &after {
        assert!((truth.propensities.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert!(truth.propensities[ledger] > 0.9 && truth.propensities[mosaic] >= 0.05, "{:?}", truth.propensities);
        assert!(truth.chosen == ledger || truth.chosen == mosaic);
    }
    let new_version =
        |timed: &&Timed| matches!(&timed.event, Event::Request(r) if r.policy_version.as_deref() == Some("sha256:abc"));
    assert_eq!(rest.iter().filter(new_version).count(), after.len());
}

#[test]
fn a_policy_that_knows_no_candidate_leaves_the_choice_to_chance() {
    let mut router = PolicyRouter::new(policy_for(&["unheard-of", "unseen"], 0, 10.0), "sha256:abc", "salt");
    let candidate =
        |name: &str| ModelInfo { name: name.to_owned(), input_usd_per_mtok: None, output_usd_per_mtok: None };
    let choice = router.route(&Context::default(), "s", &[candidate("a"), candidate("b")]);
    assert_eq!((choice.propensity, choice.policy_version.as_str()), (0.5, "uniform"));
    assert_eq!(choice.action, (sticky_uniform(b"salt", "s") * 2.0) as usize);
}

#[test]
fn hidden_variables_matter_in_one_world_and_models_do_not_in_the_other() {
    let (gain, level) = (Gain::new(), NoGain::new());
    let at = |topic, difficulty| Hidden { domain: 0, difficulty, topic };
    assert_ne!(gain.expected_quality(&at(0, 0.5), 2), gain.expected_quality(&at(1, 0.5), 2));
    assert!(gain.expected_quality(&at(0, 0.2), 2) > gain.expected_quality(&at(0, 0.8), 2));
    let of_models: Vec<f64> = (0..5).map(|model| level.expected_quality(&at(1, 0.4), model)).collect();
    assert!(of_models.iter().all(|quality| *quality == of_models[0]));
}

#[test]
fn settings_that_make_no_sense_are_refused_by_name() {
    let refused = |config: SimConfig, name: &str| {
        let error = Simulator::new(config, Box::new(UniformRouter::new("s"))).err().unwrap().to_string();
        assert!(error.starts_with(name), "{error}");
    };
    refused(SimConfig { requests_per_s: 0.0, ..SimConfig::default() }, "requests_per_s");
    refused(SimConfig { error_share: 1.5, ..SimConfig::default() }, "error_share");
    refused(SimConfig { duration_ms: 0, ..SimConfig::default() }, "duration_ms");
    refused(SimConfig { duration_ms: i64::MAX, ..SimConfig::default() }, "duration_ms");
    refused(SimConfig { gpu_sample_ms: i64::MAX, ..SimConfig::default() }, "gpu_sample_ms");
    refused(SimConfig { start_ms: i64::MAX, ..SimConfig::default() }, "start_ms");
    refused(SimConfig { start_ms: -1, ..SimConfig::default() }, "start_ms");
    let bursts = Bursts { factor: 50.0, ..SimConfig::default().bursts };
    refused(SimConfig { bursts, ..SimConfig::default() }, "bursts");
    let error: TrafficError = "chats".parse::<Profile>().unwrap_err();
    assert_eq!(error.to_string(), "profile is chats: choose chat, rag, agent or mixed");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_run_gives_valid_events_in_order(
        seed in any::<u64>(),
        profile in prop::sample::select(vec![Profile::Chat, Profile::Rag, Profile::Agent, Profile::Mixed]),
        world in prop::sample::select(vec![WorldKind::Gain, WorldKind::NoGain]),
        requests_per_s in 0.5..60.0,
        error_share in 0.0..=1.0,
        fallback_share in 0.0..=1.0,
    ) {
        let config = SimConfig {
            seed, profile, world, requests_per_s, error_share, fallback_share, duration_ms: 30_000, ..SimConfig::default()
        };
        let end_ms = config.start_ms + config.duration_ms;
        let (simulator, run) = run_with(config, Box::new(UniformRouter::new(seed.to_le_bytes())));
        prop_assert!(run.events.is_sorted_by_key(|timed| timed.at_ms));
        prop_assert_eq!(run.requests.len() as u64, simulator.counts().requests);
        prop_assert_eq!(run.requests.len(), run.truths.len());
        let ids: BTreeSet<&str> = run.requests.iter().map(|request| request.request_id.as_str()).collect();
        prop_assert_eq!(ids.len(), run.requests.len());
        for timed in &run.events {
            match &timed.event {
                Event::Request(request) => {
                    let propensity = request.propensity.unwrap().get();
                    prop_assert!(propensity > 0.0 && propensity <= 1.0);
                    let candidates = request.candidates.as_ref().unwrap();
                    let sum: f64 = candidates.iter().filter_map(|candidate| candidate.propensity).sum();
                    prop_assert!((sum - 1.0).abs() < 1e-9);
                    prop_assert!(request.arrival_ms.0 <= timed.at_ms && request.arrival_ms.0 < end_ms);
                    prop_assert!(request.prompt_tokens.unwrap().0 > 0);
                    for time in [request.queue_ms, request.ttft_ms, request.tpot_ms, request.end_to_end_ms] {
                        prop_assert!(time.is_none_or(|time| time >= 0.0 && time.is_finite()));
                    }
                    let read: Request = serde_json::from_slice(&timed.event.to_json()).unwrap();
                    prop_assert_eq!(&read, &**request);
                }
                Event::Feedback(row) => {
                    // A reviewer names what was seen instead of rating it.
                    prop_assert!(row.value.is_some_and(|value| (0.0..=1.0).contains(&value)) || row.label.is_some());
                    prop_assert!(row.event_ms.0 <= timed.at_ms);
                }
                Event::Gpu(sample) => prop_assert!(sample.vllm_kv_cache_usage_perc.is_none_or(|used| (0.0..=1.0).contains(&used))),
            }
        }
    }
}
