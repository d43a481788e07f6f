//! Session policies: the simulator beside enumeration and closed forms, learners beside what their losses have as a minimum, refusals.

use std::collections::{BTreeMap, BTreeSet};

use weir_learners::LearnError;
use weir_learners::ope::{EndedSession, EvaluationConfig, estimate_lengths};
use weir_learners::sessions::{
    Algorithm, Next, SessionJudgeConfig, SessionLearnerConfig, SessionLog, SessionTurn, SimulatedModel, SimulatedState,
    Simulator, SimulatorConfig, Trajectory, judge_sessions, learn_sessions, learned_table, table_on,
};
use weir_policy_runtime::{Exploration, Mlp, MlpScratch, inverse_gap_weights};

const ALL: [Algorithm; 4] =
    [Algorithm::ImplicitQ, Algorithm::ConservativeQ, Algorithm::BatchConstrainedQ, Algorithm::TurnBandit];

/// Two models, one step, three turns: small enough to try every policy.
fn tiny() -> Simulator {
    let model = |name: &str, succeeds, price| SimulatedModel {
        name: name.to_owned(),
        succeeds: vec![succeeds],
        lost_per_context: 0.0,
        fails: 0.5,
        price,
        wait: 0.1,
    };
    Simulator::new(SimulatorConfig {
        models: vec![model("small", 0.15, 0.01), model("large", 0.7, 0.6)],
        domains: 1,
        steps: (1, 1),
        contexts: 1,
        turns_max: 3,
        restricted: 0.0,
        ..SimulatorConfig::default()
    })
    .unwrap()
}

/// Every state that some policy reaches.
fn reachable(simulator: &Simulator) -> Vec<SimulatedState> {
    let mut open: Vec<SimulatedState> = simulator.starts().into_iter().map(|(_, state)| state).collect();
    let mut found: BTreeMap<usize, SimulatedState> = BTreeMap::new();
    while let Some(state) = open.pop() {
        if found.insert(simulator.index(&state), state).is_none() {
            for action in 0..simulator.actions() {
                for end in simulator.ends(&state, action) {
                    if let Next::Turn(next) = end.next {
                        open.push(next);
                    }
                }
            }
        }
    }
    found.into_values().collect()
}

#[test]
fn backward_induction_finds_the_best_of_all_policies() {
    let simulator = tiny();
    let states = reachable(&simulator);
    // One first turn; two warm models, failed or not, before each of the other two.
    assert_eq!(states.len(), 9);
    let mut values = Vec::new();
    for choices in 0..1_usize << states.len() {
        let mut policy = simulator.always(0);
        for (bit, state) in states.iter().enumerate() {
            let action = (choices >> bit) & 1;
            let row = 2 * simulator.index(state);
            policy[row..row + 2].copy_from_slice(&[1.0 - action as f64, action as f64]);
        }
        values.push(simulator.truth(&policy).value);
    }
    let best = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let optimal = simulator.truth(&simulator.optimal()).value;
    assert!((optimal - best).abs() < 1e-12, "{optimal} of {best} among {} policies", values.len());
    let greedy = simulator.truth(&simulator.greedy_per_turn()).value;
    assert!(optimal > greedy + 0.01, "looking ahead gains nothing here: {optimal} of {greedy}");
}

/// One model's sessions of one step without failures, leaving or context are geometric: done with probability `1 - (1 - p)^T` after
/// `(1 - (1 - p)^T) / p` turns on average.
#[test]
fn truth_is_the_closed_form_of_a_geometric_session() {
    let config = SimulatorConfig {
        models: tiny().config().models.iter().map(|m| SimulatedModel { fails: 0.0, ..m.clone() }).collect(),
        warm_price: 1.0,
        leaves: (0.0, 0.0),
        turns_max: 7,
        ..tiny().config().clone()
    };
    let simulator = Simulator::new(config).unwrap();
    let truth = simulator.truth(&simulator.always(0));
    let done = 1.0 - 0.85_f64.powi(7);
    assert!((truth.completion_rate - done).abs() < 1e-12);
    let turns = done / 0.15;
    assert!((truth.value - (1.05 * done - turns * (0.01 + 0.1))).abs() < 1e-12, "{truth:?}");
    // 0.15, 0.28 and 0.39 of 0.68: half of what is completed is so after three turns.
    assert_eq!(truth.median_completed_turns, 3);
}

#[test]
fn chances_sum_to_one_and_states_keep_their_index() {
    let simulator = Simulator::new(SimulatorConfig::default()).unwrap();
    let mut inputs = BTreeSet::new();
    for state in reachable(&simulator) {
        assert_eq!(simulator.state(simulator.index(&state)), state);
        let bits: Vec<u32> = simulator.features(&state).iter().map(|number| number.to_bits()).collect();
        assert!(inputs.insert(bits), "two states look the same to a learner");
        for action in 0..simulator.actions() {
            let sum: f64 = simulator.ends(&state, action).iter().map(|end| end.chance).sum();
            assert!((sum - 1.0).abs() < 1e-12, "{state:?}, {action}: {sum}");
        }
    }
}

#[test]
fn value_forward_is_value_backward_and_what_sessions_earn() {
    let simulator = Simulator::new(SimulatorConfig::default()).unwrap();
    let policy = simulator.exploring(Exploration { gamma: 5.0, floor: 0.3 }, 0.6);
    let truth = simulator.truth(&policy);
    let values = simulator.values(&policy);
    let backward: f64 = simulator.starts().iter().map(|(chance, state)| chance * values[simulator.index(state)]).sum();
    assert!((truth.value - backward).abs() < 1e-12);

    let sessions = 20_000;
    let log = simulator.draw(&policy, sessions, 5).unwrap();
    let earned: Vec<f64> =
        log.log.trajectories().iter().map(|session| session.turns.iter().map(|turn| turn.reward).sum()).collect();
    let mean = earned.iter().sum::<f64>() / sessions as f64;
    let variance = earned.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / sessions as f64;
    let standard_error = (variance / sessions as f64).sqrt();
    assert!((mean - truth.value).abs() < 4.0 * standard_error, "{mean} of {}", truth.value);
    let completed = log.log.trajectories().iter().filter(|session| session.completed).count() as f64 / sessions as f64;
    let spread = (truth.completion_rate * (1.0 - truth.completion_rate) / sessions as f64).sqrt();
    assert!((completed - truth.completion_rate).abs() < 4.0 * spread);
    // The logging policy's own probabilities were logged.
    let own = table_on(&simulator, &policy, &log);
    for (session, probabilities) in log.log.trajectories().iter().zip(&own) {
        for (turn, probabilities) in session.turns.iter().zip(probabilities.chunks_exact(3)) {
            assert_eq!(turn.propensity, Some(probabilities[turn.action]));
        }
    }
}

fn turn(action: usize, reward: f64, propensity: Option<f64>) -> SessionTurn {
    SessionTurn { state: vec![1.0], allowed: vec![true; 2], action, propensity, reward }
}

/// Sessions of one turn in one state: action 1 in a share of `of_one` per thousand, rewards by action.
fn one_turn(of_one: usize, rewards: [f64; 2]) -> SessionLog {
    let of = |session: usize| {
        let action = usize::from(session % 1000 < of_one);
        let share = of_one as f64 / 1000.0;
        let propensity = if action == 1 { share } else { 1.0 - share };
        Trajectory { turns: vec![turn(action, rewards[action], Some(propensity))], completed: false }
    };
    SessionLog::new(vec!["a".into(), "b".into()], (0..2000).map(of).collect()).unwrap()
}

fn scores(policy: &weir_learners::sessions::SessionPolicy, state: &[f32]) -> Vec<f64> {
    let mut scratch = MlpScratch::default();
    policy.network().forward(state, &mut scratch).iter().map(|score| f64::from(*score)).collect()
}

/// The policy that advantage-weighted regression has as its maximum is `π(a) ∝ logged(a) exp(β Q(a))`: `V` cancels.
#[test]
fn implicit_q_learning_of_one_turn_is_its_closed_form() {
    let log = one_turn(300, [0.2, 0.5]);
    let config = SessionLearnerConfig {
        inverse_temperature: 5.0,
        hidden: vec![16],
        steps: 1500,
        weight_decay: 0.0,
        ..SessionLearnerConfig::default()
    };
    let found = scores(&learn_sessions(&log, Algorithm::ImplicitQ, &config).unwrap(), &[1.0]);
    let expected = 0.3 + (0.3_f64 / 0.7).ln() / 5.0;
    assert!((found[1] - found[0] - expected).abs() < 0.01, "{} of {expected}", found[1] - found[0]);
}

/// Where the conservative loss is least its slope is zero: `α (softmax(Q)_a - p_a) + p_a (Q_a - r_a) = 0` for each action of logged share p.
#[test]
fn conservative_q_learning_of_one_turn_has_no_slope_left() {
    let (log, shares, rewards) = (one_turn(300, [0.2, 0.5]), [0.7, 0.3], [0.2, 0.5]);
    for conservatism in [0.0, 0.5] {
        let config = SessionLearnerConfig {
            conservatism,
            hidden: vec![16],
            steps: 1500,
            weight_decay: 0.0,
            ..SessionLearnerConfig::default()
        };
        let q = scores(&learn_sessions(&log, Algorithm::ConservativeQ, &config).unwrap(), &[1.0]);
        let mass: f64 = q.iter().map(|q| q.exp()).sum();
        for action in 0..2 {
            let slope = conservatism * (q[action].exp() / mass - shares[action])
                + shares[action] * (q[action] - rewards[action]);
            assert!(slope.abs() < 0.005, "α {conservatism}, action {action}: Q {q:?}, slope {slope}");
        }
    }
}

#[test]
fn a_batch_constrained_policy_takes_nothing_that_the_log_hardly_makes() {
    // The better action is logged in 2 % of sessions, 0.0204 times as often as the other.
    let log = one_turn(20, [0.2, 0.5]);
    for (threshold, expected) in [(0.05, [1.0, 0.0]), (0.01, [0.0, 1.0])] {
        let config =
            SessionLearnerConfig { threshold, hidden: vec![16], steps: 800, ..SessionLearnerConfig::default() };
        let policy = learn_sessions(&log, Algorithm::BatchConstrainedQ, &config).unwrap();
        let found = policy.probabilities(&[1.0], &[true; 2], Exploration::NONE).unwrap();
        assert_eq!(found, expected, "threshold {threshold}");
        // What is forbidden stays so, however often it was logged.
        assert_eq!(policy.probabilities(&[1.0], &[false, true], Exploration::NONE).unwrap(), [0.0, 1.0]);
    }
}

#[test]
fn a_bandit_of_one_turn_scores_mean_rewards() {
    let config = SessionLearnerConfig { hidden: vec![16], steps: 800, ..SessionLearnerConfig::default() };
    let found = scores(&learn_sessions(&one_turn(300, [0.2, 0.5]), Algorithm::TurnBandit, &config).unwrap(), &[1.0]);
    assert!((found[0] - 0.2).abs() < 0.01 && (found[1] - 0.5).abs() < 0.01, "{found:?}");
}

#[test]
fn the_same_seed_learns_the_same_bytes_and_forbidden_models_have_no_chance() {
    let simulator = Simulator::new(SimulatorConfig::default()).unwrap();
    let logging = simulator.exploring(Exploration { gamma: 5.0, floor: 0.3 }, 0.6);
    let log = simulator.draw(&logging, 300, 1).unwrap().log;
    let exploration = Exploration { gamma: 20.0, floor: 0.1 };
    for algorithm in ALL {
        let learned = |seed| {
            let config = SessionLearnerConfig { seed, hidden: vec![16], steps: 40, ..SessionLearnerConfig::default() };
            learn_sessions(&log, algorithm, &config).unwrap()
        };
        let (first, second, other) = (learned(1), learned(1), learned(2));
        assert!(first == second, "{algorithm:?}: the same seed learned something else");
        assert!(first != other, "{algorithm:?}: another seed learned the same");
        let table = learned_table(&simulator, &first, exploration).unwrap();
        for (index, row) in table.chunks_exact(3).enumerate() {
            let state = simulator.state(index);
            assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            assert!(!state.restricted || row[2] == 0.0, "{algorithm:?}: a forbidden model in {state:?}");
        }
    }
}

/// What a runtime needs: the network's file and inverse-gap weighting give the probabilities that were judged.
#[test]
fn the_published_network_draws_as_it_was_judged() {
    let simulator = tiny();
    let log = simulator.draw(&simulator.exploring(Exploration { gamma: 1.0, floor: 0.3 }, 0.0), 200, 1).unwrap().log;
    let config = SessionLearnerConfig { hidden: vec![16], steps: 40, ..SessionLearnerConfig::default() };
    let policy = learn_sessions(&log, Algorithm::ImplicitQ, &config).unwrap();
    let file = policy.network().to_safetensors().unwrap();
    let (read, mut scratch) = (Mlp::from_safetensors(&file).unwrap(), MlpScratch::default());
    let exploration = Exploration { gamma: 30.0, floor: 0.1 };
    let judged = policy.on(&log, exploration).unwrap();
    for (session, judged) in log.trajectories().iter().zip(judged) {
        for (turn, judged) in session.turns.iter().zip(judged.chunks_exact(2)) {
            let scores: Vec<f64> = read.forward(&turn.state, &mut scratch).iter().map(|x| f64::from(*x)).collect();
            let mut drawn = vec![0.0; 2];
            inverse_gap_weights(&scores, &turn.allowed, exploration.gamma, exploration.floor, &mut drawn);
            assert_eq!(drawn, judged);
        }
    }
}

/// By hand: one session done after two turns with ratios 2 and ½, one after one with ½. Done after one turn: ½ of 2½; after two: 1 of 1½.
#[test]
fn lengths_by_hand() {
    let ended = |ratios: &[f64], completed| EndedSession { ratios: ratios.to_vec(), completed };
    let sessions = [ended(&[2.0, 0.5], true), ended(&[0.5], true)];
    let found = estimate_lengths(&sessions, &EvaluationConfig::default()).unwrap();
    assert_eq!((found.logged, found.target.value, found.difference.value), (1.0, 2.0, 1.0));
    let config = EvaluationConfig::default();
    assert!(estimate_lengths(&[ended(&[1.0], false)], &config).is_err(), "nothing was completed");
    assert!(estimate_lengths(&[ended(&[f64::NAN], true)], &config).is_err());
}

#[test]
fn what_cannot_be_learned_from_or_judged_is_refused_in_a_sentence() {
    let names = || vec!["a".to_owned(), "b".to_owned()];
    let session = |turns| Trajectory { turns, completed: true };
    let refused = |actions, trajectories, expected: &str| {
        let error = SessionLog::new(actions, trajectories).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let sound = || session(vec![turn(0, 0.1, Some(0.5))]);
    refused(names(), vec![], "no session with a turn");
    refused(vec!["a".to_owned()], vec![sound()], "at least two");
    refused(names(), vec![session(vec![turn(0, f64::NAN, Some(0.5))])], "reward is not finite");
    refused(names(), vec![sound(), session(vec![])], "session 2 has no turn");
    refused(names(), vec![session(vec![turn(2, 0.1, Some(0.5))])], "not allowed");
    refused(names(), vec![session(vec![turn(0, 0.1, Some(0.0))])], "propensity 0 is not in (0, 1]");
    let with = |state: Vec<f32>| SessionTurn { state, ..turn(0, 0.1, Some(0.5)) };
    refused(names(), vec![sound(), session(vec![with(vec![1.0, 2.0])])], "2 numbers");
    refused(names(), vec![session(vec![with(vec![f32::INFINITY])])], "not finite");

    let unlogged = SessionLog::new(names(), vec![session(vec![turn(0, 0.1, None)])]).unwrap();
    let quick = SessionLearnerConfig { hidden: vec![4], steps: 5, ..SessionLearnerConfig::default() };
    let policy = learn_sessions(&unlogged, Algorithm::ImplicitQ, &quick).unwrap();
    let probabilities = policy.on(&unlogged, Exploration::NONE).unwrap();
    for refused in [
        judge_sessions(&unlogged, &probabilities, &SessionJudgeConfig::default()).unwrap_err(),
        learn_sessions(&unlogged, Algorithm::TurnBandit, &quick).unwrap_err(),
    ] {
        assert!(matches!(&refused, LearnError::BadSessions(why) if why.contains("without a propensity")), "{refused}");
    }
    assert!(judge_sessions(&one_turn(300, [0.2, 0.5]), &probabilities, &SessionJudgeConfig::default()).is_err());
    for config in [
        SessionLearnerConfig { expectile: 1.0, ..quick.clone() },
        SessionLearnerConfig { steps: 0, ..quick.clone() },
        SessionLearnerConfig { discount: f64::NAN, ..quick.clone() },
    ] {
        assert!(matches!(learn_sessions(&unlogged, Algorithm::ImplicitQ, &config), Err(LearnError::Config(_))));
    }
    for (state, allowed) in
        [(vec![1.0, 2.0], vec![true; 2]), (vec![f32::NAN], vec![true; 2]), (vec![1.0], vec![false; 2])]
    {
        assert!(policy.probabilities(&state, &allowed, Exploration::NONE).is_err());
    }
    let without_models = SimulatorConfig { models: Vec::new(), ..SimulatorConfig::default() };
    assert!(matches!(Simulator::new(without_models), Err(LearnError::Config(_))));
    let certain = SimulatorConfig { leaves: (0.0, 1.5), ..SimulatorConfig::default() };
    assert!(matches!(Simulator::new(certain), Err(LearnError::Config(_))));
}
