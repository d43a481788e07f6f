//! A session policy that a runtime serves is the one that was learned and judged.

use weir_learners::LearnError;
use weir_learners::ope::{EvaluationConfig, Verdict};
use weir_learners::sessions::{
    Algorithm, LeftOut, SessionJudgeConfig, SessionLearnerConfig, SessionLog, SessionReward, SessionTrainConfig,
    SessionsInForce, SimulatedState, Simulator, SimulatorConfig, StateLayout, StoredSessions, TurnFacts,
    learn_sessions, train_sessions,
};
use weir_policy_runtime::{Context, Exploration, FeatureSpec, Policy};

fn texts(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn encoded(features: &FeatureSpec, context: &Context<'_>) -> Vec<u32> {
    let mut out = vec![f32::NAN; features.width()];
    features.encode(context, &mut out);
    out.iter().map(|number| number.to_bits()).collect()
}

/// Every combination of both sides of every bucket's ends, of known, other and missing names, and of flags.
#[test]
fn a_runtime_encodes_a_turn_to_the_bits_of_its_state() {
    let layout = StateLayout { domains: texts(&["law", "code"]), models: texts(&["a", "b"]) };
    let features = layout.features();
    assert_eq!(features.width(), layout.names().len());
    let tokens: Vec<Option<u32>> =
        [None, Some(0), Some(u32::MAX)].into_iter().chain([1024, 4096, 16_384, 65_536].map(Some)).collect();
    let beyond = |count: &Option<u32>| [*count, count.map(|count| count.saturating_add(1))];
    let mut turns = 0;
    for place in 1..=10 {
        for count in 0..=3 {
            for prompt_tokens in tokens.iter().flat_map(beyond) {
                for warm_tokens in tokens.iter().flat_map(beyond) {
                    for (flag, name) in [(None, None), (Some(true), Some("b")), (Some(false), Some("z"))] {
                        let facts = TurnFacts {
                            place,
                            domain: name.map(|name| if name == "b" { "code" } else { name }.to_owned()),
                            prompt_tokens,
                            warm_model: name.map(str::to_owned),
                            warm_tokens,
                            failures: count,
                            failed_last: flag == Some(true),
                            tool_calls: 3 - count,
                            offers_tools: flag,
                        };
                        let state: Vec<u32> = layout.encode(&facts).iter().map(|number| number.to_bits()).collect();
                        assert_eq!(encoded(&features, &facts.as_context()), state, "{facts:?}");
                        turns += 1;
                    }
                }
            }
        }
    }
    assert_eq!(turns, 10 * 4 * 14 * 14 * 3);
}

/// What a router would know of a simulated turn.
fn facts(simulator: &Simulator, state: &SimulatedState) -> TurnFacts {
    TurnFacts {
        place: state.turn as u32 + 1,
        domain: Some(["easy", "hard"][state.domain].to_owned()),
        prompt_tokens: Some([500, 3_000, 10_000][state.context]),
        warm_model: state.warm.map(|model| simulator.config().models[model].name.clone()),
        failed_last: state.failed,
        ..TurnFacts::default()
    }
}

/// Simulated sessions as a store would hold them.
fn stored(simulator: &Simulator, sessions: usize, seed: u64) -> StoredSessions {
    let logging = simulator.exploring(Exploration { gamma: 5.0, floor: 0.3 }, 0.6);
    let drawn = simulator.draw(&logging, sessions, seed).unwrap();
    let all: Vec<TurnFacts> =
        drawn.states.iter().flatten().map(|state| facts(simulator, &simulator.state(*state))).collect();
    let layout = StateLayout::new(&all, drawn.log.actions().to_vec());
    let mut trajectories = drawn.log.trajectories().to_vec();
    let turns = trajectories.iter_mut().flat_map(|session| &mut session.turns);
    turns.zip(&all).for_each(|(turn, facts)| turn.state = layout.encode(facts));
    let mut all = all.into_iter();
    let facts = trajectories.iter().map(|session| all.by_ref().take(session.turns.len()).collect()).collect();
    let log = SessionLog::new(drawn.log.actions().to_vec(), trajectories).unwrap();
    let ids = (0..sessions).map(|session| format!("session-{session}")).collect();
    StoredSessions { log, layout, ids, facts, left_out: LeftOut::default(), kept_turns: 0 }
}

fn allowed_and_context(simulator: &Simulator, index: usize) -> (Vec<bool>, TurnFacts) {
    let state = simulator.state(index);
    (simulator.allowed(&state), facts(simulator, &state))
}

#[test]
fn a_runtime_draws_with_the_learners_own_probabilities_whatever_the_algorithm() {
    let simulator = Simulator::new(SimulatorConfig::default()).unwrap();
    let stored = stored(&simulator, 300, 3);
    let learner = SessionLearnerConfig { steps: 60, threshold: 0.3, ..SessionLearnerConfig::default() };
    let exploration = Exploration { gamma: 40.0, floor: 0.05 };
    for algorithm in
        [Algorithm::ImplicitQ, Algorithm::ConservativeQ, Algorithm::BatchConstrainedQ, Algorithm::TurnBandit]
    {
        let learned = learn_sessions(&stored.log, algorithm, &learner).unwrap();
        let (spec, network) = learned.published(&stored.layout, &SessionReward::default(), exploration).unwrap();
        assert!(spec.per_turn);
        let policy = Policy::new(spec, network).unwrap();
        let mut scratch = policy.scratch();
        for index in (0..simulator.states()).step_by(7) {
            let (allowed, facts) = allowed_and_context(&simulator, index);
            let served = policy.propensities(&facts.as_context(), &allowed, &mut scratch).unwrap().to_vec();
            let state = stored.layout.encode(&facts);
            let judged = learned.probabilities(&state, &allowed, exploration).unwrap();
            assert_eq!(served, judged, "{algorithm:?} in {facts:?}");
        }
    }
    let other = StateLayout { domains: Vec::new(), ..stored.layout.clone() };
    let learned = learn_sessions(&stored.log, Algorithm::ConservativeQ, &learner).unwrap();
    assert!(learned.published(&other, &SessionReward::default(), exploration).is_err());
}

/// The truth of what is served comes from adding up chances in the simulator, not from the learner.
#[test]
fn a_candidate_is_judged_on_sessions_that_it_has_not_seen_and_is_worth_what_they_say() {
    let simulator = Simulator::new(SimulatorConfig::default()).unwrap();
    let stored = stored(&simulator, 6000, 5);
    // Two intervals of one log are looked at: at 95 % one of them would be wrong for about one seed in twelve.
    let evaluation = EvaluationConfig { confidence: 0.999, ..SessionJudgeConfig::default().evaluation };
    let config = SessionTrainConfig {
        learner: SessionLearnerConfig { steps: 800, seed: 5, ..SessionLearnerConfig::default() },
        holdout_share: 0.5,
        judge: SessionJudgeConfig { evaluation, ..SessionJudgeConfig::default() },
        ..SessionTrainConfig::default()
    };
    let reward = SessionReward::default();
    let candidate = train_sessions(&stored, None, None, &reward, &config).unwrap();
    let report = &candidate.report;
    println!("{}", report.to_markdown());
    assert_eq!(report.train_sessions + report.held_out_sessions, 6000);
    assert!(report.held_out_sessions > 2800 && report.held_out_sessions < 3200, "{}", report.held_out_sessions);
    assert_eq!(report.verdict, Verdict::Better.words());
    let names: Vec<&str> = report.arms.iter().map(|arm| arm.policy.as_str()).collect();
    assert_eq!(names, [Algorithm::ImplicitQ.words(), Algorithm::TurnBandit.words()]);

    let served = simulator.policy_of(|state| {
        let mut scratch = candidate.policy.scratch();
        let facts = facts(&simulator, state);
        candidate.policy.propensities(&facts.as_context(), &simulator.allowed(state), &mut scratch).unwrap().to_vec()
    });
    let truth = simulator.truth(&served);
    let judged = &report.arms[0].judgement;
    println!("truth: value {:.4}, completed {:.4}", truth.value, truth.completion_rate);
    assert!(judged.value.weighted_doubly_robust.covers(truth.value), "{:?}", judged.value);
    assert!(judged.completion.weighted_doubly_robust.covers(truth.completion_rate), "{:?}", judged.completion);

    // Held against itself it is no better, to the last digit; against one that draws nearly blindly it is, by as much as is true.
    let published = Exploration { floor: 0.9, ..config.published };
    let blind = candidate.policy.clone().exploring(published).unwrap();
    let held = |policy| {
        let in_force = SessionsInForce { id: "sha256:0123456789abcdef", policy };
        train_sessions(&stored, None, Some(in_force), &reward, &config).unwrap().report
    };
    let itself = held(&candidate.policy);
    let difference = itself.in_force.as_ref().and_then(|held| held.difference).expect("both can be judged");
    assert!(difference.value.abs() < 1e-9 && difference.high < 1e-9, "{difference:?}");
    assert_eq!(itself.verdict, Verdict::NotShown.words());
    let beside = held(&blind);
    let in_force = beside.in_force.as_ref().unwrap();
    assert_eq!(beside.verdict, Verdict::Better.words());
    let of_blind = simulator.truth(&simulator.policy_of(|state| {
        let facts = facts(&simulator, state);
        let mut scratch = blind.scratch();
        blind.propensities(&facts.as_context(), &simulator.allowed(state), &mut scratch).unwrap().to_vec()
    }));
    let (value, completion) = (in_force.difference.unwrap(), in_force.completion_difference.unwrap());
    println!("to the one in force: value {value:?}, truth {:.4}", truth.value - of_blind.value);
    assert!(value.covers(truth.value - of_blind.value), "{value:?}");
    assert!(completion.covers(truth.completion_rate - of_blind.completion_rate), "{completion:?}");
    assert!(in_force.judgement.value.weighted_doubly_robust.covers(of_blind.value), "{:?}", in_force.judgement.value);
    let shown = beside.to_markdown();
    assert!(shown.contains("| policy in force (0123456789ab) | "), "{shown}");
    assert!(shown.contains("Difference to the policy in force, over the same sessions: value "), "{shown}");

    // The same sessions, of which nobody logged a probability: nothing can be judged.
    let mut silent = stored.log.trajectories().to_vec();
    silent.iter_mut().flat_map(|session| &mut session.turns).for_each(|turn| turn.propensity = None);
    let log = SessionLog::new(stored.log.actions().to_vec(), silent).unwrap();
    let refused = train_sessions(&StoredSessions { log, ..stored }, None, None, &reward, &config);
    assert!(matches!(refused, Err(LearnError::NotEnoughData(_))), "{refused:?}");
}
