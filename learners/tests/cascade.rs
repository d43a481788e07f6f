//! Cascades: p-values beside other implementations, thresholds whose promise is tried on many seeds, scores that can be believed, and
//! public pairs of models.

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use weir_learners::cascade::{
    AcceptConfig, AcceptRow, CascadeLearning, CascadeLoss, JudgedAnswer, RiskBound, RiskConfig, betting,
    calibration_corners, choose_threshold, fit_accept, hoeffding_bentkus, isotonic, learn_cascade, levels,
};
use weir_learners::matrix::{
    CascadeConfig, CascadeReport, Matrix, MatrixQuery, cascade_experiment, load_llmrouter, load_pairs,
};
use weir_learners::{Sample, TrainingSet};
use weir_policy_runtime::{
    Action, Answer, AnswerField, CASCADE_SCHEMA, Cascade, CascadeEvidence, OwnedContext, PoolLimits,
};

const HARM: RiskConfig =
    RiskConfig { loss: CascadeLoss::Harm, bound: RiskBound::HoeffdingBentkus, alpha: 0.05, delta: 0.1 };
const NET: RiskConfig = RiskConfig { loss: CascadeLoss::Net, bound: RiskBound::Betting, ..HARM };

/// scipy 1.x: `min(1, e * binom.cdf(ceil(n * r), n, alpha), exp(-n * h(min(r, alpha), alpha)))`.
#[test]
fn hoeffding_bentkus_is_scipys() {
    let by_scipy = [
        (0.0, 100, 0.05, 0.005920529220334054),
        (5.0, 500, 0.05, 2.495874256632774e-06),
        (10.0, 500, 0.05, 0.0012504290884050974),
        (45.0, 3_000, 0.02, 0.06916887342237223),
        (40.0, 1_000, 0.05, 0.21919293179286975),
        (10.0, 40, 0.5, 0.003019241529447296),
        (123.0, 10_000, 0.02, 6.169220847267281e-09),
        (300.0, 1_000, 0.5, 2.4010145758208945e-37),
        (6.0, 100, 0.05, 1.0),
        // e times binom.cdf(900, 100000, 0.01), which is 0.0006608413334501454.
        (900.0, 100_000, 0.01, 0.001_796_352_993_867_846),
    ];
    for (loss_sum, n, alpha, expected) in by_scipy {
        let found = hoeffding_bentkus(loss_sum, n, alpha);
        assert!((found / expected - 1.0_f64).abs() < 1e-8, "{loss_sum} of {n} at {alpha}: {found}, scipy {expected}");
    }
    // Without a loss Hoeffding's is the chance of none: (1 - alpha)^n.
    assert!((hoeffding_bentkus(0.0, 20, 0.1) - 0.9_f64.powi(20)).abs() < 1e-15);
    for nothing in [hoeffding_bentkus(0.0, 0, 0.1), hoeffding_bentkus(f64::NAN, 9, 0.1), hoeffding_bentkus(0.0, 9, 0.0)]
    {
        assert_eq!(nothing, 1.0);
    }
}

/// Two losses at a time, by hand.
#[test]
fn a_bettors_wealth_is_the_product_of_its_bets() {
    // Both bets are the most allowed, 3/4 / (1 - 1/2) = 3/2: wealth (1 + 3/4)² = 3.0625.
    assert!((betting([0.0; 2].into_iter(), 0.5, 0.1) - 1.0 / 3.0625).abs() < 1e-12);
    // 1,000 losses: ν₁ = √(2 ln 10 / 1000 / 0.25) = 0.135723, wealth 1 - ν₁ / 2; then mean 0.75, σ² = 0.3125 / 2, ν₂ = 0.171678, wealth
    // 0.932139 · 1.085839 = 1.012153; a loss of alpha changes nothing.
    let losses: Vec<f64> = [1.0, 0.0].into_iter().chain([0.5; 998]).collect();
    let found = betting(losses.into_iter(), 0.5, 0.1);
    assert!((found - 1.0 / 1.012_153).abs() < 1e-5, "{found}");
    assert_eq!(betting([0.3; 50].into_iter(), 0.3, 0.1), 1.0);
    assert_eq!(betting([f64::NAN].into_iter(), 0.3, 0.1), 1.0);
}

/// At a risk of just alpha a p-value is at most 0.1 in a tenth of the cases at most; well below it is small.
#[test]
fn p_values_are_valid_and_have_power() {
    let alpha = 0.1;
    let share = |risk: f64, n: usize| {
        let (mut coins, mut bets) = (0.0, 0.0);
        for seed in 0..2_000 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let losses: Vec<f64> = (0..n).map(|_| f64::from(u8::from(rng.random::<f64>() < risk))).collect();
            coins += f64::from(u8::from(hoeffding_bentkus(losses.iter().sum(), n, alpha) <= 0.1)) / 2_000.0;
            bets += f64::from(u8::from(betting(losses.into_iter(), alpha, 0.1) <= 0.1)) / 2_000.0;
        }
        println!("risk {risk}, {n} losses: p at most 0.1 in {coins:.3} (Hoeffding-Bentkus), {bets:.3} (betting)");
        (coins, bets)
    };
    let (coins, bets) = share(alpha, 200);
    assert!(coins <= 0.12 && bets <= 0.12, "{coins} {bets}");
    let (coins, bets) = share(alpha / 2.0, 600);
    assert!(coins > 0.95 && bets > 0.95, "{coins} {bets}");
}

/// The best of all ways to cut a row into stretches whose means rise.
fn by_brute_force(y: &[f64]) -> Vec<f64> {
    let mut best = (f64::INFINITY, Vec::new());
    for cuts in 0..1_u32 << (y.len() - 1) {
        let mut fitted = Vec::new();
        let mut start = 0;
        for end in 1..=y.len() {
            if end == y.len() || cuts >> (end - 1) & 1 == 1 {
                let mean = y[start..end].iter().sum::<f64>() / (end - start) as f64;
                fitted.extend(vec![mean; end - start]);
                start = end;
            }
        }
        let error: f64 = fitted.iter().zip(y).map(|(f, y)| (f - y).powi(2)).sum();
        if fitted.is_sorted() && error < best.0 {
            best = (error, fitted);
        }
    }
    best.1
}

#[test]
fn pooling_violators_is_the_best_monotone_fit() {
    for seed in 0..300 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let y: Vec<f64> = (0..rng.random_range(1..=10)).map(|_| f64::from(rng.random_range(0..5)) / 4.0).collect();
        // In any order of the points.
        let mut points: Vec<(f64, f64)> = y.iter().enumerate().map(|(x, y)| (x as f64 / 10.0, *y)).collect();
        points.rotate_left(y.len() / 2);
        let mut fitted = isotonic(&points);
        fitted.rotate_right(y.len() / 2);
        let expected = by_brute_force(&y);
        let near = fitted.iter().zip(&expected).all(|(found, expected)| (found - expected).abs() < 1e-12);
        assert!(near, "{y:?}: {fitted:?}, by brute force {expected:?}");
        let corners = calibration_corners(&points);
        assert!(corners.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1), "{corners:?}");
    }
    // Ties have one value: the mean of both, whichever comes first.
    assert_eq!(isotonic(&[(0.5, 1.0), (0.5, 0.0), (0.9, 1.0)]), [0.5, 0.5, 1.0]);
    assert_eq!(calibration_corners(&[(0.2, 1.0), (0.4, 0.0), (0.9, 1.0)]), [(0.3, 0.5), (0.9, 1.0)].map(round));
}

/// 0.2 + 0.4 halved is not 0.3 in binary.
fn round((x, y): (f64, f64)) -> (f64, f64) {
    if x == 0.3 { (f64::midpoint(0.2, 0.4), y) } else { (x, y) }
}

/// Cheap answers that are right with the probability of their score, uniform on [0, 1], beside a strong model that is right in nine of ten,
/// each repeated `copies` times. With u = 1 - t, serving from t on loses 0.9 u² / 2 of harm, u² / 2 - 0.1 u net,
/// and u² / 2 of shortfall.
fn synthetic(seed: u64, clusters: usize, copies: usize, loss: CascadeLoss) -> Vec<JudgedAnswer> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut answers = Vec::new();
    for cluster in 0..clusters {
        let score: f64 = rng.random();
        let cheap = f64::from(u8::from(rng.random::<f64>() < score));
        let strong = f64::from(u8::from(rng.random::<f64>() < 0.9));
        answers.extend(vec![JudgedAnswer { score, loss: loss.of(cheap, strong), cluster }; copies]);
    }
    answers
}

fn true_risk(threshold: f64, loss: CascadeLoss) -> f64 {
    let u = 1.0 - threshold;
    match loss {
        CascadeLoss::Harm => 0.45 * u * u,
        CascadeLoss::Net => 0.5 * u * u - 0.1 * u,
        CascadeLoss::Shortfall => 0.5 * u * u,
    }
}

/// Share of seeds whose threshold has a risk above alpha, and the mean share of answers served.
fn tried(risk: &RiskConfig, clusters: usize, copies: usize, own_cluster: bool) -> (f64, f64) {
    const SEEDS: u64 = 1_500;
    let grid: Vec<f64> = (1..=40).map(|step| 1.0 - f64::from(step) / 40.0).collect();
    let (mut exceeded, mut served) = (0.0, 0.0);
    for seed in 0..SEEDS {
        let mut answers = synthetic(seed, clusters, copies, risk.loss);
        if own_cluster {
            answers.iter_mut().enumerate().for_each(|(row, answer)| answer.cluster = row);
        }
        let chosen = choose_threshold(&answers, &grid, risk);
        let of_all = chosen.threshold.map_or(0.0, |threshold| true_risk(threshold, risk.loss));
        exceeded += f64::from(u8::from(of_all > risk.alpha + 1e-12)) / SEEDS as f64;
        served += (1.0 - chosen.escalation_rate) / SEEDS as f64;
    }
    (exceeded, served)
}

#[test]
fn the_risk_passes_alpha_in_no_more_seeds_than_promised() {
    for (risk, clusters, served_min) in [
        (HARM, 600, 0.2),
        (HARM, 4_000, 0.28),
        (NET, 600, 0.15),
        (NET, 4_000, 0.35),
        (RiskConfig { bound: RiskBound::Betting, ..HARM }, 600, 0.2),
        (RiskConfig { delta: 0.02, alpha: 0.02, ..HARM }, 2_000, 0.1),
        (RiskConfig { bound: RiskBound::HoeffdingBentkus, ..NET }, 4_000, 0.2),
        (RiskConfig { loss: CascadeLoss::Shortfall, ..HARM }, 600, 0.2),
    ] {
        let (exceeded, served) = tried(&risk, clusters, 1, false);
        println!("{risk:?}, {clusters} clusters: above alpha in {exceeded:.4}, served {served:.3}");
        assert!(exceeded <= risk.delta + 0.02, "{risk:?}: {exceeded}");
        assert!(served > served_min, "{risk:?}: {served}");
    }
}

#[test]
fn repeats_of_a_query_count_once() {
    for risk in [HARM, NET] {
        let (exceeded, _) = tried(&risk, 300, 16, false);
        let (naive, _) = tried(&risk, 300, 16, true);
        println!("{risk:?}, 16 repeats: above alpha in {exceeded:.4}; taken for independent {naive:.4}");
        assert!(exceeded <= risk.delta + 0.02, "{exceeded}");
        assert!(naive > risk.delta + 0.05, "repeats taken for independent should break the promise: {naive}");
    }
    // Whole repeats change nothing at all.
    let grid: Vec<f64> = (1..=40).map(|step| 1.0 - f64::from(step) / 40.0).collect();
    let once = choose_threshold(&synthetic(3, 500, 1, CascadeLoss::Harm), &grid, &HARM);
    let repeated = choose_threshold(&synthetic(3, 500, 4, CascadeLoss::Harm), &grid, &HARM);
    assert_eq!((once.threshold, once.clusters), (repeated.threshold, repeated.clusters));
}

#[test]
fn where_no_level_is_safe_everything_escalates() {
    let bad: Vec<JudgedAnswer> = (0..500).map(|cluster| JudgedAnswer { score: 0.9, loss: 1.0, cluster }).collect();
    for (answers, what) in
        [(bad, "all wrong"), (synthetic(1, 20, 1, CascadeLoss::Harm), "too few"), (Vec::new(), "none")]
    {
        let chosen = choose_threshold(&answers, &[0.9, 0.5, 0.0], &HARM);
        assert_eq!((chosen.threshold, chosen.escalation_rate, chosen.tested), (None, 1.0, 1), "{what}");
    }
    // A score that is no number is never served.
    let lost: Vec<JudgedAnswer> =
        (0..500).map(|cluster| JudgedAnswer { score: f64::NAN, loss: 1.0, cluster }).collect();
    assert_eq!(choose_threshold(&lost, &[0.0], &HARM).escalation_rate, 1.0);
    assert_eq!(levels(&[0.4, 0.1, 0.3, 0.2, f64::NAN], 2), [0.3, 0.1, 0.0]);
}

#[test]
fn a_promise_that_is_none_accepts_nothing() {
    let perfect: Vec<JudgedAnswer> = (0..500).map(|cluster| JudgedAnswer { score: 0.9, loss: 0.0, cluster }).collect();
    assert_eq!(choose_threshold(&perfect, &[0.9, 0.0], &HARM).threshold, Some(0.0));
    for wrong in [f64::NAN, 0.0, 1.0, 2.0, -0.1, f64::INFINITY] {
        for risk in [RiskConfig { delta: wrong, ..HARM }, RiskConfig { alpha: wrong, ..HARM }] {
            for bound in [RiskBound::HoeffdingBentkus, RiskBound::Betting] {
                let chosen = choose_threshold(&perfect, &[0.9, 0.0], &RiskConfig { bound, ..risk });
                assert_eq!((chosen.threshold, chosen.tested), (None, 0), "{risk:?}");
            }
        }
    }
}

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// A verifier's score and a length of no meaning; good with probability `truth(score)`.
fn verified(rows: usize, truth: impl Fn(f64) -> f64) -> Vec<AcceptRow> {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let row = |cluster: usize| {
        let verifier_score = 4.0 * rng.random::<f64>() - 2.0;
        AcceptRow {
            context: OwnedContext { prompt_tokens: Some(rng.random_range(1..1_000)), ..OwnedContext::default() },
            answer: Answer { completion_tokens: Some(rng.random_range(1..500)), verifier_score: Some(verifier_score) },
            good: f64::from(u8::from(rng.random::<f64>() < truth(verifier_score))),
            cluster,
        }
    };
    (0..rows).map(row).collect()
}

#[test]
fn the_accept_score_finds_what_made_the_answers_good() {
    let fit = fit_accept(&verified(6_000, |v| logistic(1.5 * v)), &AcceptConfig::default()).unwrap();
    // E[p (1 - p)] for p = logistic(1.5 v), v uniform on [-2, 2]: tanh(1.5) / 6 = 0.150858.
    let least = 1.5_f64.tanh() / 6.0;
    println!("{:?}, least possible Brier {least:.4}", fit.metrics);
    assert!((fit.metrics.brier - least).abs() < 0.01, "{:?}", fit.metrics);
    assert!(fit.metrics.calibration_error < 0.03 && fit.metrics.brier_constant > 0.24, "{:?}", fit.metrics);
    let at = fit.model.answer.iter().position(|feature| feature.field == AnswerField::VerifierScore).unwrap();
    let slope = fit.model.weights[fit.model.features.width() + 2 * at] / fit.model.answer[at].std;
    assert!((slope - 1.5).abs() < 0.15, "{slope}");
}

#[test]
fn calibration_mends_what_a_logistic_curve_cannot_follow() {
    let fit = fit_accept(&verified(6_000, |v| if v > 0.0 { 0.95 } else { 0.4 }), &AcceptConfig::default()).unwrap();
    println!("{:?}", fit.metrics);
    assert!(fit.metrics.calibration_error < 0.5 * fit.metrics.calibration_error_uncalibrated);
    assert!(fit.metrics.brier < fit.metrics.brier_uncalibrated);
}

/// Goodness is a coin of each query's own, and nothing tells of it but which query it is.
#[test]
fn repeats_of_a_query_do_not_vouch_for_each_other() {
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let mut rows = Vec::new();
    for cluster in 0..200 {
        let embedding: Vec<f32> = (0..96).map(|_| rng.random::<f32>() - 0.5).collect();
        let good = f64::from(rng.random_range(0..2));
        let context = OwnedContext { embedding: Some(embedding), ..OwnedContext::default() };
        rows.extend(vec![AcceptRow { context, answer: Answer::default(), good, cluster }; 4]);
    }
    let config = AcceptConfig { ridges: vec![1e-2], embedding_factors: vec![1.0], ..AcceptConfig::default() };
    let by_query = fit_accept(&rows, &config).unwrap().metrics;
    rows.iter_mut().enumerate().for_each(|(row, answer)| answer.cluster = row);
    let by_row = fit_accept(&rows, &config).unwrap().metrics;
    println!("Brier by query {:.4}, by row {:.4}, constant {:.4}", by_query.brier, by_row.brier, by_row.brier_constant);
    assert!(by_query.brier > by_query.brier_constant - 0.01);
    assert!(by_row.brier < by_row.brier_constant - 0.1, "the test itself: rows should give their repeats away");
}

#[test]
fn the_score_travels_in_a_bundles_file_and_stays_the_same() {
    let rows = verified(400, |v| logistic(2.0 * v));
    let fit = fit_accept(&rows, &AcceptConfig::default()).unwrap();
    let limits = PoolLimits {
        engine_waiting_max: 8.0,
        engine_waiting_resume: 2.0,
        queue_wait_ms_max: 500.0,
        queue_wait_ms_resume: 100.0,
        grace_ms: 1_000,
        recovery_ms: 5_000,
        stale_after_ms: 10_000,
    };
    let cascade = Cascade {
        schema: CASCADE_SCHEMA,
        routers: BTreeMap::new(),
        cheap_model: "cheap".into(),
        strong_model: "strong".into(),
        accept: fit.model.clone(),
        threshold: None,
        evidence: CascadeEvidence {
            loss: "harm".into(),
            alpha: 0.05,
            delta: 0.1,
            clusters: 400,
            risk: None,
            escalation_rate: 1.0,
        },
        limits,
        mid_tier: None,
        fallbacks: Vec::new(),
    };
    let read = Cascade::from_json(&cascade.to_json().unwrap()).unwrap();
    assert_eq!(read, cascade);
    let mut scratch = Vec::new();
    let scores: Vec<f64> =
        rows.iter().map(|row| read.accept.score(&row.context.as_context(), &row.answer, &mut scratch)).collect();
    assert!(scores.iter().all(|score| (0.0..=1.0).contains(score)));
    assert!(scores.iter().any(|score| *score < 0.3) && scores.iter().any(|score| *score > 0.7));
}

#[test]
fn what_cannot_be_fitted_is_refused_in_words() {
    let refusal = |rows: &[AcceptRow], config: &AcceptConfig| fit_accept(rows, config).unwrap_err().to_string();
    let rows = verified(100, logistic);
    assert!(refusal(&rows[..10], &AcceptConfig::default()).contains("50 are needed"));
    assert!(refusal(&rows, &AcceptConfig { folds: 1, ..AcceptConfig::default() }).contains("two folds"));
    let alike: Vec<AcceptRow> = rows.iter().map(|row| AcceptRow { good: 1.0, ..row.clone() }).collect();
    assert!(refusal(&alike, &AcceptConfig::default()).contains("equally good"));
    let outside: Vec<AcceptRow> = rows.iter().map(|row| AcceptRow { good: 1.5, ..row.clone() }).collect();
    assert!(refusal(&outside, &AcceptConfig::default()).contains("outside [0, 1]"));
    let one: Vec<AcceptRow> = rows.iter().map(|row| AcceptRow { cluster: 0, ..row.clone() }).collect();
    assert!(refusal(&one, &AcceptConfig::default()).contains("one cluster"));
}

/// Two models whose answers' length says all: a short cheap answer is wrong. Every policy's figures are known.
#[test]
fn a_cascade_pays_for_both_calls_and_sees_the_answer() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let action = |model: &str| Action { model: model.into(), input_usd_per_mtok: None, output_usd_per_mtok: None };
    let right: Vec<bool> = (0..3_000).map(|_| rng.random::<f64>() < 0.6).collect();
    let query = |n: usize| MatrixQuery { id: n.to_string(), text: format!("question {}", n % 7), domain: "d".into() };
    let matrix = Matrix {
        name: "two".into(),
        queries: (0..right.len()).map(query).collect(),
        models: ["cheap", "strong"].map(action).to_vec(),
        quality: right.iter().flat_map(|right| [f64::from(u8::from(*right)), 1.0]).collect(),
        cost_usd: [0.1, 1.0].repeat(right.len()),
        cost_note: "made up".into(),
        encoded: None,
        answer_chars: Some(right.iter().flat_map(|right| [if *right { 900.0 } else { 20.0 }, 500.0]).collect()),
    };
    let config = CascadeConfig { draws: 50, bootstraps: 200, alphas: vec![0.05], ..CascadeConfig::default() };
    let report = cascade_experiment(&matrix, &config).unwrap();
    println!("{}", report.to_markdown());
    assert_eq!((report.cheap.as_str(), report.strong.as_str()), ("cheap", "strong"));
    let of = |policy: &str| report.scores.iter().find(|score| score.policy == policy).expect(policy);
    // It serves the right answers, and pays 0.1 for each and 1 for each that was wrong: about 0.1 + 0.4.
    let cascade = of("cascade");
    assert_eq!(cascade.quality.value, 1.0);
    assert!((cascade.cost_usd.value - 0.1 - cascade.strong_calls.value).abs() < 1e-9, "{cascade:?}");
    assert!((cascade.strong_calls.value - 0.4).abs() < 0.05);
    // A router cannot know: no more than one harm in 0.4 may be served at 0.05, one query in eight, and the others cost 1.
    let router = of("single-shot router");
    assert!(router.cost_usd.value > 0.8, "{router:?}");
    assert!((router.cost_usd.value - 0.1 - 0.9 * router.strong_calls.value).abs() < 1e-9, "{router:?}");
    assert_eq!(of("always strong").cost_usd.value, 1.0);
    assert!((of("cascade that knows both answers").cost_usd.value - cascade.cost_usd.value).abs() < 1e-9);

    let same_price = Matrix { cost_usd: vec![1.0; 6_000], ..matrix.clone() };
    assert!(cascade_experiment(&same_price, &config).unwrap_err().to_string().contains("nothing to cascade from"));
    let nothing_left = CascadeConfig { train_share: 0.7, calibrate_share: 0.3, ..config };
    assert!(cascade_experiment(&matrix, &nothing_left).is_err());
}

fn keeps_its_promise(report: &CascadeReport) {
    for held in &report.guarantees {
        // Four binomial standard deviations over the draws.
        let slack = 4.0 * (held.risk.delta * (1.0 - held.risk.delta) / held.draws as f64).sqrt();
        assert!(held.exceeded_share <= held.risk.delta + slack, "{held:?}");
    }
    for score in report.scores.iter().filter(|score| score.policy == "cascade") {
        assert!(score.cost_usd.value >= report.strong_usd * score.strong_calls.value, "{score:?}");
        assert!(score.threshold.is_some() || score.strong_calls.value == 1.0, "{score:?}");
    }
}

#[tokio::test]
async fn cascades_on_routellms_pairs_keep_their_promise() {
    let Some(folder) = weir_tests::shared("data/routing_routellm") else { return };
    let matrices = load_pairs(&folder).await.expect("the pairs load");
    // The folder's README: texts of answers are there for GSM8K only.
    assert!(matrices[0].answer_chars.is_some() && matrices[1].answer_chars.is_none());
    // RouteLLM's prices, USD per million tokens: arXiv 2406.18665.
    let call_usd = Some((0.24, 24.7, "RouteLLM's prices".to_owned()));
    let config = CascadeConfig { draws: 400, bootstraps: 400, call_usd, ..CascadeConfig::default() };
    for matrix in &matrices {
        let report = cascade_experiment(matrix, &config).expect("the experiment runs");
        println!("{}", report.to_markdown());
        keeps_its_promise(&report);
        assert!(report.accept.brier < report.accept.brier_constant + 0.005, "{:?}", report.accept);
    }
}

#[tokio::test]
async fn cascades_on_nine_models_keep_their_promise() {
    let Some(folder) = weir_tests::shared("data/routing_llmrouter") else { return };
    let matrix = load_llmrouter(&folder).await.expect("the matrix loads");
    let config = CascadeConfig { draws: 400, bootstraps: 400, ..CascadeConfig::default() };
    let report = cascade_experiment(&matrix, &config).expect("the experiment runs");
    println!("{}", report.to_markdown());
    keeps_its_promise(&report);
}

/// Requests whose cheap answer is good with a probability that rises from 0 to 1 with the length of the prompt; long ones get the cheap model
/// more often, so that a plain mean over its answers would be wrong.
fn logs(seed: u64, decisions: usize) -> TrainingSet {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let action = |model: &str| Action { model: model.into(), input_usd_per_mtok: None, output_usd_per_mtok: None };
    let sample = |n: usize| {
        let ease: f64 = rng.random();
        let asks_cheap = 0.2 + 0.6 * ease;
        let is_cheap = rng.random::<f64>() < asks_cheap;
        let good = if is_cheap { ease } else { 0.95 };
        Sample {
            // The log odds are half of ln(tokens) - 4, away from the ends: a logistic curve.
            context: OwnedContext {
                prompt_tokens: Some((8.0 + 2.0 * (ease / (1.0 - ease)).ln().clamp(-3.5, 3.5)).exp() as u32),
                ..OwnedContext::default()
            },
            action: usize::from(!is_cheap),
            executed_as_intended: true,
            propensity: Some(if is_cheap { asks_cheap } else { 1.0 - asks_cheap }),
            quality: Some(f64::from(u8::from(rng.random::<f64>() < good))),
            cluster: format!("s{n}"),
            time_ms: n as i64,
            ..Sample::default()
        }
    };
    let samples = (0..decisions).map(sample).collect();
    TrainingSet { actions: ["cheap", "strong"].map(action).to_vec(), samples, ..TrainingSet::default() }
}

#[test]
fn logs_of_one_answer_each_teach_a_threshold_that_keeps_its_promise() {
    // Served from an ease of t on, the shortfall over all requests is (1 - t)² / 2: 0.05 at t = 0.684, 32 % served.
    let config = CascadeLearning { weight_max: 5.0, ..CascadeLearning::default() };
    let (mut exceeded, mut served, seeds) = (0, 0.0, 100);
    for seed in 0..seeds {
        let learned = learn_cascade(&logs(seed, 4_000), "cheap", "strong", &config).unwrap();
        if seed == 0 {
            println!("{}", learned.to_text());
        }
        assert!(learned.cheap_quality.covers(0.5) || seed > 0, "{:?}", learned.cheap_quality);
        // The score is a function of ease alone: what it serves is all above some ease, found on fresh requests.
        let mut scratch = Vec::new();
        let fresh = logs(seed + 1_000, 4_000);
        let is_served = |sample: &&Sample| {
            let score = learned.accept.score(&sample.context.as_context(), &Answer::default(), &mut scratch);
            learned.choice.threshold.is_some_and(|threshold| score >= threshold)
        };
        let share = fresh.samples.iter().filter(is_served).count() as f64 / 4_000.0;
        exceeded += usize::from(share * share / 2.0 > config.alpha + 0.004);
        served += share / seeds as f64;
        assert!((1.0 - learned.choice.escalation_rate - share).abs() < 0.08, "{learned:?}");
    }
    println!("above alpha in {exceeded} of {seeds}, served {served:.3}");
    assert!(exceeded <= 15, "{exceeded} of {seeds} where 10 are promised");
    assert!(served > 0.2, "{served}");
}

/// Every second session asks nine easy questions, which the cheap model answers perfectly; the others ask a hard one each, which it never
/// does. Of requests one in ten is hard, of sessions one in two.
#[test]
fn a_session_counts_once_however_long_it_is() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut samples = Vec::new();
    for session in 0..3_000_usize {
        let is_hard = session % 2 == 0;
        for _ in 0..if is_hard { 1 } else { 9 } {
            let is_cheap = rng.random::<f64>() < 0.5;
            samples.push(Sample {
                context: OwnedContext {
                    prompt_tokens: Some(if is_hard { 2_000 } else { 20 }),
                    ..OwnedContext::default()
                },
                action: usize::from(!is_cheap),
                executed_as_intended: true,
                propensity: Some(0.5),
                quality: Some(f64::from(u8::from(!(is_cheap && is_hard)))),
                cluster: format!("s{session}"),
                ..Sample::default()
            });
        }
    }
    let set = TrainingSet { samples, ..logs(0, 0) };
    let config = CascadeLearning { weight_max: 2.0, ..CascadeLearning::default() };
    let learned = learn_cascade(&set, "cheap", "strong", &config).unwrap();
    println!("{}", learned.to_text());
    // About 1,500 sessions test: a share of one half has a standard error of 0.013, and more for the draws of the cheap model.
    assert!((learned.choice.escalation_rate - 0.5).abs() < 0.08, "{learned:?}");
    // Both kinds served would lack one half of a session's quality.
    assert!(learned.choice.threshold.is_some() && learned.choice.risk < 1e-12, "{learned:?}");
    assert_eq!(learned.evidence().escalation_rate, learned.choice.escalation_rate);
    assert!(learned.to_text().contains("over sessions, each counted once"));
}

#[test]
fn decisions_without_a_usable_draw_are_counted_and_many_are_refused() {
    let config = CascadeLearning { weight_max: 5.0, ..CascadeLearning::default() };
    let spoilt = |every: usize| {
        let mut set = logs(1, 4_000);
        for (row, sample) in set.samples.iter_mut().enumerate().filter(|(row, _)| row % every == 0) {
            if row % (2 * every) == 0 {
                sample.propensity = None;
            } else {
                sample.logged_distribution = Some(vec![0.5, 0.9]);
            }
        }
        set
    };
    let learned = learn_cascade(&spoilt(200), "cheap", "strong", &config).unwrap();
    // 20 of 4,000 rows are spoilt, each way ten; the half of the sessions that tests holds some of either.
    let left_out = (learned.without_propensity, learned.contradictory);
    assert!((1..=10).contains(&left_out.0) && (1..=10).contains(&left_out.1), "{left_out:?}");
    let said =
        format!("{} judged decisions without a propensity, {} whose candidates contradict it", left_out.0, left_out.1);
    assert!(learned.to_text().contains(&said), "{}", learned.to_text());
    let whole = learn_cascade(&logs(1, 4_000), "cheap", "strong", &config).unwrap();
    assert_eq!((whole.without_propensity, whole.contradictory), (0, 0));
    assert_eq!(whole.decisions, learned.decisions + left_out.0 + left_out.1);
    let refused = learn_cascade(&spoilt(50), "cheap", "strong", &config).unwrap_err().to_string();
    assert!(refused.contains("more than 1 %"), "{refused}");
}

#[test]
fn logs_that_cannot_promise_anything_are_refused_in_words() {
    let config = CascadeLearning { weight_max: 5.0, ..CascadeLearning::default() };
    let refusal = |set: &TrainingSet, config: &CascadeLearning| {
        learn_cascade(set, "cheap", "strong", config).unwrap_err().to_string()
    };
    let set = logs(1, 4_000);
    let unknown = learn_cascade(&set, "cheap", "another", &config).unwrap_err().to_string();
    assert!(unknown.contains("the models are cheap, strong"), "{unknown}");
    assert!(learn_cascade(&set, "cheap", "cheap", &config).unwrap_err().to_string().contains("two models"));
    let wrong = CascadeLearning { weight_max: 2.0, ..CascadeLearning::default() };
    assert!(refusal(&set, &wrong).contains("below 1 / 2"));
    let changed = |change: &dyn Fn(&mut Sample)| {
        let mut set = set.clone();
        set.samples.iter_mut().for_each(change);
        set
    };
    assert!(refusal(&changed(&|sample| sample.propensity_is_estimated = true), &config).contains("estimated"));
    assert!(refusal(&changed(&|sample| sample.propensity = None), &config).contains("have no propensity"));
    assert!(refusal(&set, &CascadeLearning { levels: 0, ..config.clone() }).contains("levels must be 1"));
    // A router that says it asks the cheap model half as often as it does.
    let lying =
        changed(&|sample| sample.propensity = sample.propensity.map(|p| if sample.action == 0 { p / 2.0 } else { p }));
    assert!(refusal(&lying, &CascadeLearning { weight_max: 10.0, ..config.clone() }).contains("cannot say"));
    assert!(refusal(&logs(1, 60), &config).contains("50 are needed"));
}
