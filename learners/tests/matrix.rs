//! The public score matrices, from simulated logs to a judged policy.

mod common;

use std::collections::BTreeSet;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use weir_learners::matrix::{
    CoverageConfig, CoverageReport, Matrix, MatrixConfig, MatrixQuery, MatrixReport, judge_policy, load_llmrouter,
    load_llmrouter_nq, matrix_experiment,
};
use weir_learners::ope::Verdict;
use weir_learners::{Sample, TrainConfig, TrainingSet, train_policy};
use weir_policy_runtime::OwnedContext;
use weir_policy_runtime::hash_embedding::hash_embedding;

fn quality(report: &MatrixReport, policy: &str, price: &str) -> f64 {
    let found = report.scores.iter().find(|score| score.policy.starts_with(policy) && score.price == price);
    found.unwrap_or_else(|| panic!("no {policy} at {price}")).quality.value
}

fn covered(report: &CoverageReport, scenario: &str, estimator: &str, level: f64) -> f64 {
    let found = report
        .cells
        .iter()
        .find(|cell| cell.scenario.starts_with(scenario) && cell.estimator == estimator && cell.level == level);
    let cell = found.unwrap_or_else(|| panic!("no {estimator} in {scenario}"));
    // The integrity check refuses one sound log in a thousand.
    assert!(cell.refused <= 3, "{cell:?}");
    cell.covered
}

#[tokio::test]
async fn the_nine_model_matrix_is_learned_from_logs_and_its_intervals_hold_the_truth() {
    let Some(folder) = common::shared("data/routing_llmrouter") else { return };
    let matrix = load_llmrouter(&folder).await.expect("the matrix loads");
    // The folder's README: 4,499 queries with nine scores each, no text twice.
    assert_eq!((matrix.queries.len(), matrix.models.len()), (4499, 9));
    let report = matrix_experiment(&matrix, &MatrixConfig::default()).expect("the experiment runs");
    println!("{}", report.to_markdown());

    let learned = quality(&report, "learned policy", "full price");
    assert!(learned > quality(&report, "uniform", "none") + 0.1, "a policy that learned nothing");
    assert!(learned <= quality(&report, "oracle", "full price"));
    assert!(
        quality(&report, "learned policy", "half price") > quality(&report, "best single model", "half price") - 0.03
    );

    let coverage = report.coverage.as_ref().expect("coverage was asked for");
    for level in [0.9, 0.95] {
        // Four binomial standard deviations over 200 seeds.
        let tolerance = 4.0 * (level * (1.0 - level) / 200.0_f64).sqrt();
        for estimator in ["ips", "snips", "dr", "difference"] {
            for scenario in ["uniform, queries sampled", "skewed, queries sampled", "no gain"] {
                let found = covered(coverage, scenario, estimator, level);
                // IPS of the logging policy itself has weights of one: it is the logged mean.
                assert!((found - level).abs() <= tolerance, "{scenario}, {estimator}: {found} at nominal {level}");
            }
            // With the test queries themselves the truth moves less than an interval for new queries allows for.
            let same = covered(coverage, "uniform, same queries", estimator, level);
            assert!(same >= level - tolerance, "{estimator}: {same} at nominal {level}");
        }
    }
    for cell in coverage.cells.iter().filter(|cell| cell.scenario.starts_with("short")) {
        assert_eq!(cell.answered, 0, "answered without support: {cell:?}");
    }
    let no_gain = coverage.cells.iter().find(|cell| cell.scenario.starts_with("no gain") && cell.level == 0.95);
    // 2.5 % of 200 are 5; 15 is past four standard deviations.
    assert!(no_gain.expect("it was run").better <= 15, "{no_gain:?}");
}

#[tokio::test]
async fn the_natural_questions_part_is_judged_at_its_recorded_cost() {
    let Some(folder) = common::shared("data/routing_llmrouter") else { return };
    let matrix = load_llmrouter_nq(&folder).await.expect("the matrix loads");
    // The folder's README: 382 queries, six models.
    assert_eq!((matrix.queries.len(), matrix.models.len()), (382, 6));
    let config = MatrixConfig { passes: 8, coverage: None::<CoverageConfig>, ..MatrixConfig::default() };
    let report = matrix_experiment(&matrix, &config).expect("the experiment runs");
    println!("{}", report.to_markdown());
    assert!(quality(&report, "learned policy", "full price") > quality(&report, "uniform", "none"));
}

/// Logs as they would come back from the tables: a query, one model, its score.
fn logs(matrix: &Matrix, queries: &[usize]) -> TrainingSet {
    let models = matrix.models.len();
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let mut samples = Vec::new();
    for time_ms in 0..4 * queries.len() {
        let query = queries[time_ms % queries.len()];
        let action = rng.random_range(0..models);
        samples.push(Sample {
            context: OwnedContext {
                domain: Some(matrix.queries[query].domain.clone()),
                embedding: Some(hash_embedding(&matrix.queries[query].text, 64)),
                ..OwnedContext::default()
            },
            action,
            executed_as_intended: true,
            propensity: Some(1.0 / models as f64),
            logged_distribution: None,
            allowed: None,
            quality: Some(matrix.quality[matrix.cell(query, action)]),
            cost_usd: Some(matrix.cost_usd[matrix.cell(query, action)]),
            completion_tokens: None,
            cluster: matrix.queries[query].id.clone(),
            time_ms: time_ms as i64,
        });
    }
    TrainingSet { actions: matrix.models.clone(), samples, ..TrainingSet::default() }
}

#[tokio::test]
async fn a_policy_learned_from_logs_alone_is_judged_on_the_other_queries() {
    let Some(folder) = common::shared("data/routing_llmrouter") else { return };
    let matrix = load_llmrouter(&folder).await.expect("the matrix loads");
    let train: Vec<usize> = (0..matrix.queries.len()).filter(|query| query % 10 < 7).collect();
    let ids: BTreeSet<&str> = train.iter().map(|&query| matrix.queries[query].id.as_str()).collect();
    let candidate = train_policy(&logs(&matrix, &train), &TrainConfig::default()).expect("training succeeds");
    assert_eq!(candidate.report.lineup.candidate.verdict, Verdict::Better);

    let config = MatrixConfig { coverage: None, ..MatrixConfig::default() };
    let in_train = |query: &MatrixQuery| ids.contains(query.id.as_str());
    let report = judge_policy(&matrix, &candidate.policy, in_train, &config).expect("the policy knows the models");
    println!("{}", report.to_markdown());
    assert_eq!((report.train_queries, report.test_queries), (train.len(), matrix.queries.len() - train.len()));
    assert!(quality(&report, "learned policy", "full price") > quality(&report, "best single", "full price"));

    let mut stranger = matrix.clone();
    stranger.models[0].model = "a model that nobody logged".to_owned();
    assert!(judge_policy(&stranger, &candidate.policy, in_train, &config).is_err());
}
