//! Off-policy estimates against closed forms, against another implementation, and over many seeds.

mod common;

use datafusion::arrow::array::AsArray;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float64Type};
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use weir_learners::ope::{
    Estimate, Estimates, Evaluation, EvaluationConfig, IntervalKind, Logged, SupportLimits, Verdict, evaluate,
};

use crate::common::no_limits;

fn reasons(evaluation: &Evaluation) -> String {
    assert!(evaluation.estimates.is_none(), "a refusal came with a number");
    match &evaluation.verdict {
        Verdict::InsufficientSupport { reasons } => reasons.join("; "),
        other => panic!("not refused: {other:?}"),
    }
}

/// Two contexts, two actions, logged in exact proportion to their probabilities: the estimates are the closed form.
///
/// Logging 3/4, 1/4 and 1/2, 1/2; target 1/2, 1/2 and 1/4, 3/4; rewards 1, 0.2 and 0.4, 0.8. By hand: the target is
/// worth (0.6 + 0.7) / 2 = 0.65 and the logging policy (0.8 + 0.6) / 2 = 0.7.
fn exact_world(q_hat: [[f64; 2]; 2]) -> Vec<Logged> {
    let logging = [[0.75, 0.25], [0.5, 0.5]];
    let target = [[0.5, 0.5], [0.25, 0.75]];
    let reward = [[1.0, 0.2], [0.4, 0.8]];
    let rows = [(0, 0), (0, 0), (0, 0), (0, 1), (1, 0), (1, 0), (1, 1), (1, 1)];
    (0..800)
        .map(|index| {
            let (x, a) = rows[index % rows.len()];
            Logged {
                propensity: logging[x][a],
                reward: reward[x][a],
                target_probability: target[x][a],
                q_hat_logged: q_hat[x][a],
                q_hat_policy: target[x][0] * q_hat[x][0] + target[x][1] * q_hat[x][1],
                unsupported_mass: Some(0.0),
                cluster: index,
            }
        })
        .collect()
}

#[test]
fn every_estimator_finds_the_value_of_the_two_context_world() {
    let wrong_model = [[0.9, 0.9], [0.1, 0.3]];
    let evaluation = evaluate(&exact_world(wrong_model), &EvaluationConfig::default());
    let Estimates { logging, ips, snips, dr, difference } = evaluation.estimates.expect("support is ample");
    for (name, estimate, truth) in [
        ("logging", logging, 0.7),
        ("ips", ips, 0.65),
        ("snips", snips, 0.65),
        ("dr", dr, 0.65),
        ("difference", difference, -0.05),
    ] {
        assert!((estimate.value - truth).abs() < 1e-12, "{name}: {estimate:?}, truth {truth}");
        assert!(estimate.covers(truth));
    }
    assert_eq!(evaluation.verdict, Verdict::Worse);
}

#[test]
fn a_right_reward_model_narrows_the_doubly_robust_interval() {
    let width = |e: Estimate| e.high - e.low;
    let right = evaluate(&exact_world([[1.0, 0.2], [0.4, 0.8]]), &EvaluationConfig::default()).estimates.unwrap();
    assert!(width(right.dr) < 0.2 * width(right.ips), "dr {:?}, ips {:?}", right.dr, right.ips);
}

#[test]
fn the_policy_that_logged_is_worth_what_was_logged_and_no_better() {
    let rows: Vec<Logged> = exact_world([[0.0; 2]; 2])
        .into_iter()
        .map(|row| Logged { target_probability: row.propensity, ..row })
        .collect();
    let evaluation = evaluate(&rows, &EvaluationConfig::default());
    let estimates = evaluation.estimates.expect("support is complete");
    assert!((estimates.dr.value - estimates.logging.value).abs() < 1e-12);
    assert!(estimates.difference.low <= 0.0 && estimates.difference.high >= 0.0);
    assert_eq!(evaluation.verdict, Verdict::NotShown);
}

#[test]
fn a_difference_that_only_rounding_makes_is_none() {
    // Every reward is 0.3 and so is every guess, but the guesses' average lost its last digits in a sum.
    let policy = 0.3 + 1e-12;
    let row = |cluster| Logged {
        propensity: 0.5,
        reward: 0.3,
        target_probability: 0.5,
        q_hat_logged: 0.3,
        q_hat_policy: policy,
        unsupported_mass: Some(0.0),
        cluster,
    };
    let rows: Vec<Logged> = (0..512).map(row).collect();
    let evaluation = evaluate(&rows, &EvaluationConfig::default());
    let difference = evaluation.estimates.expect("support is complete").difference;
    assert!(difference.low > 0.0 && difference.high < 1e-11, "{difference:?}");
    assert_eq!(evaluation.verdict, Verdict::NotShown);
}

#[test]
fn what_an_exploration_floor_paid_for_counts_as_support() {
    let default = SupportLimits::default();
    let floor = |exploration, models| default.clone().for_floor(exploration, models).propensity_floor;
    assert_eq!(floor(0.1, 3), default.propensity_floor, "0.033 is ample");
    assert!((floor(0.02, 6) - 0.02 / 6.0).abs() < 1e-9 && floor(0.02, 6) < 0.02 / 6.0);
    assert_eq!(floor(0.0, 6), default.propensity_floor, "a greedy log bought nothing");
    assert_eq!(floor(1e-4, 6), 0.001, "what is logged once in thousands is no support");
}

/// A world of sessions: a choice sticks for its session, whose decisions share a hidden mood. Logging is even; rewards
/// have mean 0.5 + 0.2 a + 0.1 x a, so the target (a = 1 with probability 0.9 if x = 1, else 0.6) is worth
/// 0.5 + 0.2 * 0.75 + 0.1 * 0.45 = 0.695 and the logging policy 0.5 + 0.1 + 0.025 = 0.625.
fn sessions(seed: u64, count: usize) -> Vec<Logged> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut rows = Vec::new();
    for cluster in 0..count {
        let (x, a) = (rng.random_range(0..2), rng.random_range(0..2_usize));
        let mood = if rng.random::<bool>() { 0.3 } else { -0.3 };
        let p_one = if x == 1 { 0.9 } else { 0.6 };
        let q = |a: f64| 0.55 + 0.15 * a;
        for _ in 0..rng.random_range(1..6) {
            let noise = rng.random_range(-0.2..0.2);
            rows.push(Logged {
                propensity: 0.5,
                reward: 0.5 + 0.2 * a as f64 + 0.1 * (x * a) as f64 + mood + noise,
                target_probability: if a == 1 { p_one } else { 1.0 - p_one },
                q_hat_logged: q(a as f64),
                q_hat_policy: p_one * q(1.0) + (1.0 - p_one) * q(0.0),
                unsupported_mass: Some(0.0),
                cluster,
            });
        }
    }
    rows
}

/// Which of the estimates.
type Pick = fn(&Estimates) -> Estimate;

const SESSION_TRUTHS: [(&str, f64, Pick); 5] = [
    ("logging", 0.625, |e| e.logging),
    ("ips", 0.695, |e| e.ips),
    ("snips", 0.695, |e| e.snips),
    ("dr", 0.695, |e| e.dr),
    ("difference", 0.07, |e| e.difference),
];

/// Share of `seeds` worlds whose intervals hold the truths.
fn coverage(config: &EvaluationConfig, seeds: u64, alter: impl Fn(&mut Vec<Logged>)) -> [f64; 5] {
    // One sound log in a thousand fails the integrity check at its default confidence (more if sessions are forgotten); here none may.
    let limits = SupportLimits { integrity_confidence: 0.999_999_999_999, ..SupportLimits::default() };
    let config = EvaluationConfig { limits, ..config.clone() };
    let mut covered = [0.0; 5];
    for seed in 0..seeds {
        let mut rows = sessions(seed, 500);
        alter(&mut rows);
        let estimates = evaluate(&rows, &config).estimates.expect("500 sessions are support enough");
        for (count, (_, truth, pick)) in covered.iter_mut().zip(SESSION_TRUTHS) {
            *count += f64::from(u8::from(pick(&estimates).covers(truth))) / seeds as f64;
        }
    }
    covered
}

#[test]
fn both_intervals_cover_at_their_nominal_rate() {
    for (interval, seeds) in [(IntervalKind::ClusterT, 400), (IntervalKind::ClusterBootstrap, 200)] {
        for confidence in [0.9, 0.95] {
            let config = EvaluationConfig { confidence, interval, bootstraps: 400, ..EvaluationConfig::default() };
            let found = coverage(&config, seeds, |_| {});
            println!("{interval:?} at {confidence}: {found:.3?}");
            // Three and a half binomial standard deviations.
            let tolerance = 3.5 * (confidence * (1.0 - confidence) / seeds as f64).sqrt();
            for ((name, _, _), found) in SESSION_TRUTHS.iter().zip(found) {
                assert!((found - confidence).abs() < tolerance, "{interval:?}, {name}: {found} at {confidence}");
            }
        }
    }
}

#[test]
fn intervals_that_forget_sessions_are_too_narrow() {
    let config = EvaluationConfig { confidence: 0.95, ..EvaluationConfig::default() };
    let found = coverage(&config, 200, |rows| rows.iter_mut().enumerate().for_each(|(index, row)| row.cluster = index));
    assert!(found[1] < 0.9, "ignoring sessions cost nothing: {found:?}");
}

#[test]
fn logs_that_cannot_carry_an_answer_are_refused_with_the_reason() {
    let config = EvaluationConfig::default();
    let altered = |alter: &dyn Fn(usize, &mut Logged)| {
        let mut rows = exact_world([[0.5; 2]; 2]);
        rows.iter_mut().enumerate().for_each(|(index, row)| alter(index, row));
        reasons(&evaluate(&rows, &config))
    };
    assert!(reasons(&evaluate(&[], &config)).contains("no decision"));
    assert!(reasons(&evaluate(&exact_world([[0.5; 2]; 2])[..80], &config)).contains("under the minimum of 200"));
    assert!(
        altered(&|i, row| if i == 3 {
            row.propensity = 0.0
        })
        .contains("not in (0, 1]")
    );
    assert!(
        altered(&|i, row| if i == 3 {
            row.propensity = 1.5
        })
        .contains("not in (0, 1]")
    );
    assert!(
        altered(&|i, row| if i == 3 {
            row.propensity = f64::NAN
        })
        .contains("not in (0, 1]")
    );
    assert!(altered(&|_, row| row.unsupported_mass = Some(0.02)).contains("2.0 % of the target"));
    assert!(
        altered(&|i, row| if i < 200 {
            row.cluster = 0
        })
        .contains("one cluster holds")
    );
    // A router that logs propensities twice too small.
    assert!(altered(&|_, row| row.propensity /= 2.0).contains("excludes 1"));
    // A target that mostly chooses what was never logged: its weights vanish.
    assert!(altered(&|_, row| row.target_probability *= 0.3).contains("excludes 1"));
}

/// Click, propensity of the shown item.
async fn open_bandit(campaign: &str) -> Option<Vec<(f64, f64)>> {
    let file = weir_tests::shared(&format!("data/bandit_open_bandit/bts_{campaign}.parquet"))?;
    let session = SessionContext::new();
    let frame = session.read_parquet(file.to_str()?, ParquetReadOptions::default()).await.expect("the file opens");
    let mut rows = Vec::new();
    for batch in frame.select_columns(&["click", "propensity"]).unwrap().collect().await.expect("the file reads") {
        let column = |index: usize| cast(batch.column(index), &DataType::Float64).expect("numbers");
        let (click, propensity) = (column(0), column(1));
        let (click, propensity) = (click.as_primitive::<Float64Type>(), propensity.as_primitive::<Float64Type>());
        rows.extend(click.values().iter().copied().zip(propensity.values().iter().copied()));
    }
    Some(rows)
}

/// The uniform policy over `items`, judged on Thompson-sampling logs.
fn uniform_target(rows: &[(f64, f64)], items: f64) -> Vec<Logged> {
    let row = |(cluster, &(reward, propensity)): (usize, &(f64, f64))| Logged {
        propensity,
        reward,
        target_probability: 1.0 / items,
        q_hat_logged: 0.0,
        q_hat_policy: 0.0,
        unsupported_mass: None,
        cluster,
    };
    rows.iter().enumerate().map(row).collect()
}

#[tokio::test]
async fn the_open_bandit_estimates_agree_with_numpy_and_are_refused() {
    // Computed with numpy 2 from the same Parquet files: mean(w r), sum(w r)/sum(w), sum(w)^2/sum(w^2), max(w).
    let golden = [
        (
            "men",
            34.0,
            0.003_479_371_255_694_019_5,
            0.003_782_344_860_218_152,
            619.357_512_180_197_5,
            77.399_380_804_953_57,
        ),
        (
            "women",
            46.0,
            0.003_881_667_742_984_849,
            0.003_893_420_622_631_88,
            401.582_613_494_680_8,
            140.252_454_417_952_32,
        ),
    ];
    for (campaign, items, ips, snips, ess, weight_max) in golden {
        let Some(rows) = open_bandit(campaign).await else { return };
        let target = uniform_target(&rows, items);
        let free = EvaluationConfig { limits: no_limits(), ..EvaluationConfig::default() };
        let evaluation = evaluate(&target, &free);
        let estimates = evaluation.estimates.expect("nothing is refused without limits");
        assert!((estimates.ips.value - ips).abs() < 1e-12, "{campaign}: {:?}", estimates.ips);
        assert!((estimates.snips.value - snips).abs() < 1e-12, "{campaign}: {:?}", estimates.snips);
        assert!((evaluation.support.effective_rows - ess).abs() < 1e-6);
        assert!((evaluation.support.weight_max - weight_max).abs() < 1e-9);
        // Thompson sampling hardly ever shows most items: the uniform policy has no support in its logs.
        assert!(reasons(&evaluate(&target, &EvaluationConfig::default())).contains("logged with probability under"));
    }
}

#[tokio::test]
async fn one_huge_weight_leaves_an_effective_sample_of_two_and_no_number() {
    let Some(mut rows) = open_bandit("women").await else { return };
    // The published 10,000 rows hold an impression of propensity 1e-6, weight 21,739; our part of them does not.
    rows.push((0.0, 1e-6));
    let evaluation = evaluate(&uniform_target(&rows, 46.0), &EvaluationConfig::default());
    assert!((evaluation.support.weight_max - 21_739.13).abs() < 0.01);
    assert!(evaluation.support.effective_rows < 3.0, "{:?}", evaluation.support);
    let reasons = reasons(&evaluation);
    assert!(reasons.contains("effective sample") && reasons.contains("one cluster holds"), "{reasons}");
}
