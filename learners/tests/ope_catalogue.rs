//! Every estimator: by hand on a few rows, and how often its interval holds a known truth over many seeds.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use weir_learners::LearnError;
use weir_learners::ope::{
    EvaluationConfig, IntervalKind, Logged, Method, MethodEstimate, Parameters, Rounds, empirical_bernstein,
    estimate_all,
};

fn rounds(columns: &[(&str, &[f64])]) -> Rounds {
    let columns =
        columns.iter().map(|(name, values)| (*name, Arc::new(Float64Array::from(values.to_vec())) as ArrayRef));
    Rounds::from_batches(&[RecordBatch::try_from_iter(columns).unwrap()]).unwrap()
}

fn value(found: &[MethodEstimate], method: Method) -> f64 {
    found.iter().find(|one| one.method == method).unwrap_or_else(|| panic!("{method} is there")).estimate.value
}

/// Weights 2, 1/2 and 4; rewards 1, 0 and 2; guesses 0.5, 0.5 and 1 for the choices and 0.6, 0.4 and 1.2 for the target's.
#[test]
fn each_estimator_is_its_formula() {
    let rounds = rounds(&[
        ("reward", &[1.0, 0.0, 2.0]),
        ("propensity", &[0.25, 0.8, 0.2]),
        ("target_probability", &[0.5, 0.4, 0.8]),
        ("q_logged", &[0.5, 0.5, 1.0]),
        ("q_policy", &[0.6, 0.4, 1.2]),
        ("group_propensity", &[0.5, 1.0, 0.5]),
        ("group_target_probability", &[0.5, 0.5, 1.0]),
    ]);
    let parameters = Parameters {
        clip: Some(3.0),
        switch: Some(3.0),
        shrink: Some(4.0),
        sub_gaussian_ips: Some(0.5),
        sub_gaussian_dr: Some(0.5),
    };
    let found = estimate_all(&rounds, parameters, &EvaluationConfig::default());
    // By hand, with residuals 0.5, -0.5 and 1: see each formula in `Method`.
    let dm = (0.6 + 0.4 + 1.2) / 3.0;
    let optimistic = [4.0 * 2.0 / 8.0, 4.0 * 0.5 / 4.25, 4.0 * 4.0 / 20.0];
    let sub_gaussian = [2.0 / 1.5, 0.5 / 0.75, 4.0 / 2.5];
    let corrected = |weights: [f64; 3]| dm + (0.5 * weights[0] - 0.5 * weights[1] + weights[2]) / 3.0;
    for (method, by_hand) in [
        (Method::Ips, 10.0 / 3.0),
        (Method::Snips, 10.0 / 6.5),
        (Method::ClippedIps, 8.0 / 3.0),
        (Method::SubGaussianIps, (sub_gaussian[0] + 2.0 * sub_gaussian[2]) / 3.0),
        (Method::Dm, dm),
        (Method::Dr, corrected([2.0, 0.5, 4.0])),
        (Method::Sndr, dm + (1.0 - 0.25 + 4.0) / 6.5),
        (Method::SwitchDr, corrected([2.0, 0.5, 0.0])),
        (Method::DrOs, corrected(optimistic)),
        (Method::SubGaussianDr, corrected(sub_gaussian)),
        (Method::Mips, (1.0 + 4.0) / 3.0),
    ] {
        assert!(
            (value(&found, method) - by_hand).abs() < 1e-12,
            "{method}: {} by hand {by_hand}",
            value(&found, method)
        );
    }
    assert_eq!(found.len(), Method::ALL.len());
}

#[test]
fn without_guesses_or_groups_what_needs_them_is_left_out() {
    let columns: [(&str, &[f64]); 3] =
        [("reward", &[1.0, 0.0]), ("propensity", &[0.5, 0.5]), ("target_probability", &[0.5, 0.5])];
    let found = estimate_all(&rounds(&columns), Parameters::default(), &EvaluationConfig::default());
    let methods: Vec<Method> = found.iter().map(|one| one.method).collect();
    assert_eq!(methods, [Method::Ips, Method::Snips, Method::ClippedIps, Method::SubGaussianIps]);
}

#[test]
fn columns_that_cannot_be_evaluated_are_refused_by_name() {
    let refused = |columns: Vec<(&str, ArrayRef)>| match RecordBatch::try_from_iter(columns)
        .map(|b| Rounds::from_batches(&[b]))
    {
        Ok(Err(LearnError::BadRounds(why))) => why,
        other => panic!("{other:?}"),
    };
    let number = |values: Vec<Option<f64>>| Arc::new(Float64Array::from(values)) as ArrayRef;
    let whole = || number(vec![Some(0.5), Some(0.5)]);
    let reward = ("reward", whole());
    assert!(refused(vec![reward.clone(), ("propensity", whole())]).contains("no column `target_probability`"));
    let holed = ("propensity", number(vec![Some(0.5), None]));
    assert!(
        refused(vec![reward.clone(), holed, ("target_probability", whole())])
            .contains("row 2 has no finite `propensity`")
    );
    let infinite = ("propensity", number(vec![Some(f64::NAN), Some(0.1)]));
    assert!(refused(vec![reward.clone(), infinite, ("target_probability", whole())]).contains("row 1"));
    let text = ("propensity", Arc::new(StringArray::from(vec!["a", "b"])) as ArrayRef);
    assert!(refused(vec![reward.clone(), text, ("target_probability", whole())]).contains("has to be a number"));
    let alone = vec![reward, ("propensity", whole()), ("target_probability", whole()), ("q_logged", whole())];
    assert!(refused(alone).contains("give both or none"));
    let above = ("target_probability", number(vec![Some(0.5), Some(1.5)]));
    let said = refused(vec![("reward", whole()), ("propensity", whole()), above]);
    assert!(said.contains("row 2 has a `target_probability` of 1.5"), "{said}");
    let groups = [("group_propensity", number(vec![Some(0.0), Some(0.5)])), ("group_target_probability", whole())];
    let all = [("reward", whole()), ("propensity", whole()), ("target_probability", whole())];
    assert!(refused([&all[..], &groups[..]].concat()).contains("row 1 has a `group_propensity` of 0"));
    assert!(matches!(Rounds::from_batches(&[]), Err(LearnError::BadRounds(_))));
}

const GROUPS: [usize; 4] = [0, 0, 1, 1];
const LOGGING: [[f64; 4]; 2] = [[0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4]];
const TARGET: [[f64; 4]; 2] = [[0.1, 0.2, 0.3, 0.4], [0.1, 0.1, 0.6, 0.2]];
/// Choices of one group are worth the same, so that MIPS is unbiased too.
const WORTH: [[f64; 2]; 2] = [[0.3, 0.7], [0.5, 0.6]];
/// A wrong reward model: what the estimators that use it have to bear.
const GUESS: [[f64; 4]; 2] = [[0.5, 0.2, 0.5, 0.6], [0.6, 0.4, 0.4, 0.7]];

/// Mean over the two contexts of what the target's groups are worth.
fn truth() -> f64 {
    let of = |x: usize| (0..4).map(|a| TARGET[x][a] * WORTH[x][GROUPS[a]]).sum::<f64>();
    f64::midpoint(of(0), of(1))
}

/// Sessions of one to four decisions that share a mood.
fn log(seed: u64, sessions: usize) -> Rounds {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut columns: [Vec<f64>; 7] = std::array::from_fn(|_| Vec::new());
    let mut clusters = Vec::new();
    for session in 0..sessions {
        let mood = rng.random_range(-0.2..0.2);
        for _ in 0..rng.random_range(1..5) {
            let x = rng.random_range(0..2_usize);
            let mut left: f64 = rng.random();
            let drawn = LOGGING[x].iter().position(|p| {
                left -= p;
                left < 0.0
            });
            let a = drawn.unwrap_or(3);
            let in_group = |of: &[f64; 4]| (0..4).filter(|b| GROUPS[*b] == GROUPS[a]).map(|b| of[b]).sum::<f64>();
            let reward = f64::from(u8::from(rng.random_bool(WORTH[x][GROUPS[a]] + mood)));
            let guess_policy = (0..4).map(|b| TARGET[x][b] * GUESS[x][b]).sum();
            let row = [
                reward,
                LOGGING[x][a],
                TARGET[x][a],
                GUESS[x][a],
                guess_policy,
                in_group(&LOGGING[x]),
                in_group(&TARGET[x]),
            ];
            columns.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
            clusters.push(session.to_string());
        }
    }
    let names = [
        "reward",
        "propensity",
        "target_probability",
        "q_logged",
        "q_policy",
        "group_propensity",
        "group_target_probability",
    ];
    let mut batch: Vec<(&str, ArrayRef)> = names
        .into_iter()
        .zip(columns)
        .map(|(name, column)| (name, Arc::new(Float64Array::from(column)) as ArrayRef))
        .collect();
    batch.push(("cluster", Arc::new(StringArray::from(clusters))));
    Rounds::from_batches(&[RecordBatch::try_from_iter(batch).unwrap()]).unwrap()
}

/// Share of seeds whose intervals hold the truth, mean width and mean error, by method.
fn coverage(seeds: u64, config: &EvaluationConfig) -> Vec<(Method, f64, f64, f64)> {
    let mut told: Vec<(Method, f64, f64, f64)> = Method::ALL.iter().map(|method| (*method, 0.0, 0.0, 0.0)).collect();
    for seed in 0..seeds {
        let found = estimate_all(&log(seed, 500), Parameters::default(), &EvaluationConfig { seed, ..config.clone() });
        for ((_, held, width, error), one) in told.iter_mut().zip(&found) {
            *held += f64::from(u8::from(one.estimate.covers(truth()))) / seeds as f64;
            *width += (one.estimate.high - one.estimate.low) / seeds as f64;
            *error += (one.estimate.value - truth()).powi(2) / seeds as f64;
        }
    }
    told
}

/// 95 % intervals over 2,000 seeds: not below nominal by more than two points, for what promises to be consistent.
#[test]
fn intervals_of_consistent_estimators_hold_the_truth() {
    let told = coverage(2_000, &EvaluationConfig::default());
    println!("truth {:.4}, 500 sessions, 2,000 seeds", truth());
    for (method, held, width, error) in &told {
        println!("{:<18} holds {:.1} %, width {width:.4}, RMSE {:.4}", method.name(), 100.0 * held, error.sqrt());
    }
    for (method, held, _, _) in &told {
        if method.is_consistent() || *method == Method::Mips {
            assert!(*held >= 0.93, "{method} holds the truth in {held}");
        }
    }
    let of = |wanted: Method| told.iter().find(|(method, ..)| *method == wanted).unwrap();
    let (.., dr_error) = of(Method::Dr);
    // What the theorem on SLOPE promises, beside the candidate that alters no weight.
    let factor = 6.0_f64.sqrt() + 3.0;
    for tuned in [Method::SwitchDr, Method::DrOs, Method::SubGaussianDr] {
        let (.., error) = of(tuned);
        assert!(
            error.sqrt() < factor * dr_error.sqrt(),
            "{tuned} errs by {} and DR by {}",
            error.sqrt(),
            dr_error.sqrt()
        );
    }
    let (_, _, _, mips) = of(Method::Mips);
    let (_, _, _, ips) = of(Method::Ips);
    assert!(mips < ips, "groups are fewer than choices");
}

#[test]
fn bootstrap_intervals_hold_the_truth_as_often() {
    let config =
        EvaluationConfig { interval: IntervalKind::ClusterBootstrap, bootstraps: 500, ..EvaluationConfig::default() };
    for (method, held, width, _) in coverage(400, &config) {
        println!("{:<18} bootstrap holds {:.1} %, width {width:.4}", method.name(), 100.0 * held);
        // Three and a half binomial standard deviations of 400 seeds.
        if method.is_consistent() {
            assert!((held - 0.95).abs() < 3.5 * (0.95 * 0.05 / 400.0_f64).sqrt(), "{method}: {held}");
        }
    }
}

/// A promise for any number of sessions is kept, and costs width.
#[test]
fn empirical_bernstein_holds_for_few_sessions() {
    let (seeds, mut held) = (2_000, 0);
    for seed in 0..seeds {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        // Importance-weighted rewards of a rare choice: 10 with probability 0.05, else 0.
        let values: Vec<f64> = (0..40).map(|_| if rng.random_bool(0.05) { 10.0 } else { 0.0 }).collect();
        held += u64::from(empirical_bernstein(&values, (0.0, 10.0), 0.95).unwrap().covers(0.5));
    }
    assert!(held as f64 / seeds as f64 >= 0.95, "{held} of {seeds}");
}

/// Rows given one by one are the same as rows given in columns.
#[test]
fn rows_and_columns_are_the_same_decisions() {
    let columns = log(3, 100);
    let rows: Vec<Logged> = columns.logged();
    let again = Rounds::from(&rows[..]);
    let of = |rounds: &Rounds| estimate_all(rounds, Parameters::default(), &EvaluationConfig::default());
    assert_eq!(of(&again)[..], of(&columns)[..10], "rows have no groups");
}
