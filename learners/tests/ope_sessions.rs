//! Session values beside a small decision process whose value is known in closed form.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use weir_learners::ope::{
    Estimate, EvaluationConfig, FittedQConfig, SessionEstimates, Transition, Turn, estimate_sessions, fitted_q, fold_of,
};

/// Three turns. State 0 is well, 1 is in trouble. Choice 1 (the large model) leaves trouble more often, and costs. A session earns 1 for
/// each turn at whose end it is well, less the cost.
const TURNS: usize = 3;
const WELL_AFTER: [[f64; 2]; 2] = [[0.8, 0.9], [0.3, 0.7]];
const COST: [f64; 2] = [0.0, 0.2];
const LOGGING: [f64; 2] = [0.5, 0.4];
const TARGET: [f64; 2] = [0.3, 0.8];

/// Probability of choice 1 in each state, to the value of what is left, by the definition.
fn value(of_one: [f64; 2], turns: usize, state: usize) -> f64 {
    if turns == 0 {
        return 0.0;
    }
    (0..2).map(|action| probability(of_one, state, action) * q(of_one, turns, state, action)).sum()
}

fn q(of_one: [f64; 2], turns: usize, state: usize, action: usize) -> f64 {
    let well = WELL_AFTER[state][action];
    let later = well * value(of_one, turns - 1, 0) + (1.0 - well) * value(of_one, turns - 1, 1);
    well - COST[action] + later
}

fn probability(of_one: [f64; 2], state: usize, action: usize) -> f64 {
    if action == 1 { of_one[state] } else { 1.0 - of_one[state] }
}

/// A state of the table: which turn it is, and how the session stands.
fn cell(turn: usize, state: usize) -> usize {
    2 * turn + state
}

fn target_table() -> Vec<f64> {
    (0..TURNS)
        .flat_map(|_| (0..2).flat_map(|state| (0..2).map(move |action| probability(TARGET, state, action))))
        .collect()
}

/// Sessions, and their turns as the table sees them. With `folds` 0 the guesses are zero.
fn log(seed: u64, sessions: usize, folds: usize) -> (Vec<Vec<Turn>>, Vec<Transition>) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut walks = Vec::new();
    let mut transitions = Vec::new();
    for session in 0..sessions {
        let (mut state, mut walk) = (rng.random_range(0..2_usize), Vec::new());
        for turn in 0..TURNS {
            let action = usize::from(rng.random_bool(LOGGING[state]));
            let is_well = rng.random_bool(WELL_AFTER[state][action]);
            let reward = f64::from(u8::from(is_well)) - COST[action];
            let next = usize::from(!is_well);
            walk.push((turn, state, action, reward));
            let next_cell = (turn + 1 < TURNS).then(|| cell(turn + 1, next));
            transitions.push(Transition { state: cell(turn, state), action, reward, next: next_cell, session });
            state = next;
        }
        walks.push(walk);
    }
    let table = target_table();
    let tables = match folds {
        0 => vec![vec![0.0; table.len()]],
        folds => fitted_q(&transitions, 2, &table, &FittedQConfig { folds, ..FittedQConfig::default() }),
    };
    let turns = |(session, walk): (usize, &Vec<(usize, usize, usize, f64)>)| {
        let guesses = &tables[if folds == 0 { 0 } else { fold_of(session, folds) }];
        walk.iter()
            .map(|&(turn, state, action, reward)| {
                let at = |action: usize| guesses[2 * cell(turn, state) + action];
                Turn {
                    ratio: probability(TARGET, state, action) / probability(LOGGING, state, action),
                    reward,
                    q_logged: at(action),
                    v_policy: (0..2).map(|action| probability(TARGET, state, action) * at(action)).sum(),
                }
            })
            .collect()
    };
    (walks.iter().enumerate().map(turns).collect(), transitions)
}

fn truth() -> f64 {
    f64::midpoint(value(TARGET, TURNS, 0), value(TARGET, TURNS, 1))
}

#[test]
fn fitted_q_finds_the_value_of_every_state_and_choice() {
    let (_, transitions) = log(1, 200_000, 0);
    let whole = FittedQConfig { folds: 1, ..FittedQConfig::default() };
    let tables = fitted_q(&transitions, 2, &target_table(), &whole);
    for turn in 0..TURNS {
        for state in 0..2 {
            for action in 0..2 {
                let (found, truth) =
                    (tables[0][2 * cell(turn, state) + action], q(TARGET, TURNS - turn, state, action));
                // Each cell was seen ten thousand times or more: five standard errors of values within [0, 3].
                assert!(
                    (found - truth).abs() < 5.0 * 0.9 / 100.0,
                    "turn {turn}, state {state}, choice {action}: {found} of {truth}"
                );
            }
        }
    }
}

#[test]
fn what_nobody_tried_is_worth_what_was_tried_there() {
    let turn = |action, reward| Transition { state: 0, action, reward, next: None, session: 0 };
    let config = FittedQConfig { folds: 1, ..FittedQConfig::default() };
    let tables = fitted_q(&[turn(0, 1.0), turn(0, 0.0)], 2, &[0.5, 0.5, 0.5, 0.5], &config);
    assert_eq!(tables, [vec![0.5, 0.5, 0.0, 0.0]]);
}

#[test]
fn a_policy_is_worth_on_its_own_sessions_what_they_were() {
    let (sessions, _) = log(4, 300, 5);
    let own: Vec<Vec<Turn>> = sessions
        .iter()
        .map(|turns| turns.iter().map(|turn| Turn { ratio: 1.0, q_logged: 0.0, v_policy: 0.0, ..*turn }).collect())
        .collect();
    let (found, support) = estimate_sessions(&own, 1.0, &EvaluationConfig::default()).unwrap();
    for one in [found.per_decision, found.weighted_per_decision, found.doubly_robust, found.weighted_doubly_robust] {
        assert!((one.value - found.logging.value).abs() < 1e-12, "{one:?}");
    }
    assert!((support.effective_sessions - 300.0).abs() < 1e-9 && support.turns_max == 3);
}

/// By hand: two sessions, one over after a turn. With γ = 1/2: PDIS (2·1 + ½·2·½·4 + ½·0) / 2, its weights 2 and ½ after one turn, 1 and
/// ½ after two.
#[test]
fn sessions_that_are_over_keep_their_weight() {
    let turn = |ratio: f64, reward: f64| Turn { ratio, reward, q_logged: 0.0, v_policy: 0.0 };
    let sessions = [vec![turn(2.0, 1.0), turn(0.5, 4.0)], vec![turn(0.5, 0.0)]];
    let (found, _) = estimate_sessions(&sessions, 0.5, &EvaluationConfig::default()).unwrap();
    assert!((found.per_decision.value - (2.0 + 0.5 * 4.0) / 2.0).abs() < 1e-12, "{found:?}");
    assert!((found.weighted_per_decision.value - (2.0 / 2.5 + 0.5 * 4.0 / 1.5)).abs() < 1e-12, "{found:?}");
    assert!((found.logging.value - (1.0 + 0.5 * 4.0) / 2.0).abs() < 1e-12);
    assert!(estimate_sessions(&[], 1.0, &EvaluationConfig::default()).is_err());
    assert!(estimate_sessions(&[vec![turn(-1.0, 0.0)]], 1.0, &EvaluationConfig::default()).is_err());
}

type Pick = fn(&SessionEstimates) -> Estimate;

#[test]
fn intervals_of_session_values_hold_the_truth() {
    let picks: [(&str, Pick); 5] = [
        ("per decision", |found| found.per_decision),
        ("weighted per decision", |found| found.weighted_per_decision),
        ("direct", |found| found.direct),
        ("doubly robust", |found| found.doubly_robust),
        ("weighted doubly robust", |found| found.weighted_doubly_robust),
    ];
    let (seeds, mut told) = (2_000, [(0.0, 0.0, 0.0); 5]);
    for seed in 0..seeds {
        let (sessions, _) = log(seed, 400, 5);
        let (found, _) = estimate_sessions(&sessions, 1.0, &EvaluationConfig::default()).unwrap();
        for ((held, width, error), (_, pick)) in told.iter_mut().zip(picks) {
            let one = pick(&found);
            *held += f64::from(u8::from(one.covers(truth()))) / seeds as f64;
            *width += (one.high - one.low) / seeds as f64;
            *error += (one.value - truth()).powi(2) / seeds as f64;
        }
    }
    println!("truth {:.4}, 400 sessions of {TURNS} turns, {seeds} seeds", truth());
    for ((name, _), (held, width, error)) in picks.iter().zip(told) {
        println!("{name:<22} holds {:.1} %, width {width:.3}, RMSE {:.4}", 100.0 * held, f64::sqrt(error));
        assert!(held >= 0.93 || *name == "direct", "{name} holds the truth in {held}");
    }
    assert!(told[4].1 < told[1].1, "guesses narrow the interval");
}
