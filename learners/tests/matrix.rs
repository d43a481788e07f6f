//! The public score matrices, from simulated logs to a judged policy.

use std::collections::BTreeSet;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use weir_learners::matrix::{
    Costs, CoverageConfig, CoverageReport, Matrix, MatrixConfig, MatrixQuery, MatrixReport, MatrixSet, Measure,
    judge_policy, load_llmdrift, load_llmrouter, load_llmrouter_nq, load_matrix_sets, load_pairs, load_routerarena,
    load_swebench_agents, matrix_experiment, matrix_folders, pairs_experiment,
};
use weir_learners::ope::Verdict;
use weir_learners::{Sample, TrainConfig, TrainingSet, train_policy};
use weir_policy_runtime::hash_embedding::hash_embedding;
use weir_policy_runtime::{
    Action, Exploration, Feature, FeatureSpec, FlagField, Layer, Mlp, Objective, OwnedContext, Policy, PolicySpec,
};

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
    let Some(folder) = weir_tests::shared("data/routing_llmrouter") else { return };
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
    let Some(folder) = weir_tests::shared("data/routing_llmrouter") else { return };
    let matrix = load_llmrouter_nq(&folder).await.expect("the matrix loads");
    // The folder's README: 382 queries, six models.
    assert_eq!((matrix.queries.len(), matrix.models.len()), (382, 6));
    let config = MatrixConfig { passes: 8, coverage: None::<CoverageConfig>, ..MatrixConfig::default() };
    let report = matrix_experiment(&matrix, &config).expect("the experiment runs");
    println!("{}", report.to_markdown());
    assert!(quality(&report, "learned policy", "full price") > quality(&report, "uniform", "none"));
}

/// Shares of calls and gaps of an oracle follow from the scores alone; those of the whole benchmark stand in RouteLLM's repository.
#[tokio::test]
async fn pairs_are_judged_as_routellm_does() {
    let Some(folder) = weir_tests::shared("data/routing_routellm") else { return };
    let matrices = load_pairs(&folder).await.expect("the pairs load");
    let names: Vec<(&str, usize)> =
        matrices.iter().map(|matrix| (matrix.name.as_str(), matrix.queries.len())).collect();
    // The folder's README: 11,513 pairs.
    assert_eq!(names, [("gsm8k", 1_000), ("mmlu", 10_513)]);
    let config = MatrixConfig { passes: 2, bootstraps: 200, coverage: None, ..MatrixConfig::default() };
    let report = pairs_experiment(&matrices[0], &config).expect("the experiment runs");
    println!("{}", report.to_markdown());
    assert!((report.weak.1 - 0.645).abs() < 1e-12 && (report.strong.1 - 0.855).abs() < 1e-12);
    assert!((report.oracle - 0.928).abs() < 1e-12);
    let score = |router: &str| report.scores.iter().find(|score| score.router == router).expect(router);
    // An oracle calls the strong model where only that is right: half of the gap of 0.21 at a share of 0.105.
    assert!((score("oracle").cpt_50.value - 0.105).abs() < 1e-9, "{:?}", score("oracle").cpt_50);
    assert!((score("oracle").cpt_80.value - 0.168).abs() < 1e-9, "{:?}", score("oracle").cpt_80);
    for router in &report.scores {
        assert!(router.apgr.low <= router.apgr.value && router.apgr.value <= router.apgr.high, "{router:?}");
        assert!(router.router == "oracle" || (0.3..0.8).contains(&router.apgr.value), "{router:?}");
    }
}

fn mean(plane: &[f64], matrix: &Matrix, model: &str) -> f64 {
    let models = matrix.models.len();
    let at = matrix.models.iter().position(|action| action.model == model).unwrap_or_else(|| panic!("no {model}"));
    plane.iter().skip(at).step_by(models).sum::<f64>() / matrix.queries.len() as f64
}

/// The folder's README: 8,856 runs of 24 models; published in whole, none is missing.
#[tokio::test]
async fn coding_agents_are_known_by_repository_alone() {
    let Some(folder) = weir_tests::shared("data/routing_swebench_agents_nc") else { return };
    let matrix = load_swebench_agents(&folder).await.expect("the runs load");
    assert_eq!((matrix.queries.len(), matrix.models.len(), matrix.quality.len()), (369, 24, 8_856));
    assert!(!matrix.has_texts());
    let repositories: BTreeSet<&str> = matrix.queries.iter().map(|query| query.domain.as_str()).collect();
    assert_eq!(repositories.len(), 12);
    // Its rate on these issues, and what all its runs cost, by another reader of the file (Polars).
    let opus = "Claude 4.5 Opus medium (20251101)";
    assert!((mean(&matrix.quality, &matrix, opus) - 0.720867).abs() < 1e-6);
    assert!((mean(&matrix.cost_usd, &matrix, opus) - 0.729536).abs() < 1e-6);
    assert!(matrix.cost_usd.iter().all(|usd| *usd > 0.0));
}

/// The folder's README: 613 queries, 1,226 scores; the cheaper model is the better one on average.
#[tokio::test]
async fn router_arenas_dearer_model_is_the_worse_one() {
    let Some(folder) = weir_tests::shared("data/routing_routerarena") else { return };
    let matrix = load_routerarena(&folder).await.expect("the scores load");
    assert_eq!((matrix.queries.len(), matrix.models.len()), (613, 2));
    // By another reader of the file (Polars).
    let (haiku, flash) = ("claude-3-haiku-20240307", "gemini-2.0-flash-001");
    assert!((mean(&matrix.quality, &matrix, flash) - 0.682596).abs() < 1e-6);
    assert!((mean(&matrix.quality, &matrix, haiku) - 0.518296).abs() < 1e-6);
    assert!(mean(&matrix.cost_usd, &matrix, flash) < mean(&matrix.cost_usd, &matrix, haiku));
    let set = MatrixSet { matrix, costs: Costs::Recorded, note: "" };
    assert!(set.no_pair().is_some_and(|why| why.contains("worse")), "{:?}", set.no_pair());
    assert!(set.unsupported().contains_key(&Measure::Apgr));
}

/// The folder's README: GPT-4 on primes falls from 97.6 % in March to about 2 % in June. Of 9,416 answers 4,440 have no score and 264
/// are to offensive requests.
#[tokio::test]
async fn versions_of_two_models_drift_as_published() {
    let Some(folder) = weir_tests::shared("data/routing_llmdrift") else { return };
    let matrix = load_llmdrift(&folder).await.expect("the answers load");
    assert_eq!((matrix.queries.len(), matrix.models.len()), ((9_416 - 4_440 - 264) / 4, 4));
    let domains: BTreeSet<&str> = matrix.queries.iter().map(|query| query.domain.as_str()).collect();
    assert_eq!(domains.into_iter().collect::<Vec<_>>(), ["counthappynumber", "leetcode_easy", "primality"]);
    let on_primes = |model: &str| {
        let at = matrix.models.iter().position(|action| action.model == model).expect(model);
        let primes: Vec<f64> = (0..matrix.queries.len())
            .filter(|query| matrix.queries[*query].id.starts_with("prime/"))
            .map(|query| matrix.quality[matrix.cell(query, at)])
            .collect();
        primes.iter().sum::<f64>() / primes.len() as f64
    };
    assert!((on_primes("openaichat/gpt-4-0314") - 0.976).abs() < 0.005);
    assert!((on_primes("openaichat/gpt-4-0613") - 0.02).abs() < 0.01);
}

/// What each data set can say: RouteLLM's has no costs, the others no pair of a weak and a strong model.
#[tokio::test]
async fn every_data_set_says_what_it_supports() {
    let Some(folder) = weir_tests::shared("data") else { return };
    let mut sets = Vec::new();
    for folder in matrix_folders(&folder) {
        sets.extend(load_matrix_sets(&folder).await.expect("a known folder"));
    }
    let supports = |set: &MatrixSet, measure: Measure| !set.unsupported().contains_key(&measure);
    let found: Vec<(&str, bool, bool)> = sets
        .iter()
        .map(|set| (set.matrix.name.as_str(), supports(set, Measure::QualityAtEqualCost), supports(set, Measure::Apgr)))
        .collect();
    assert_eq!(
        found,
        [
            ("llmrouter", true, false),
            ("llmrouter-nq", true, false),
            ("swebench-agents", true, false),
            ("routerarena", true, false),
            ("llmdrift", true, false),
            ("gsm8k", false, true),
            ("mmlu", false, true),
        ]
    );
    assert!(sets.iter().all(|set| supports(set, Measure::OracleCapture)));
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
            quality: Some(matrix.quality[matrix.cell(query, action)]),
            cost_usd: Some(matrix.cost_usd[matrix.cell(query, action)]),
            cluster: matrix.queries[query].id.clone(),
            time_ms: time_ms as i64,
            ..Sample::default()
        });
    }
    TrainingSet { actions: matrix.models.clone(), samples, ..TrainingSet::default() }
}

#[tokio::test]
async fn a_policy_learned_from_logs_alone_is_judged_on_the_other_queries() {
    let Some(folder) = weir_tests::shared("data/routing_llmrouter") else { return };
    let matrix = load_llmrouter(&folder).await.expect("the matrix loads");
    let train: Vec<usize> = (0..matrix.queries.len()).filter(|query| query % 10 < 7).collect();
    let ids: BTreeSet<&str> = train.iter().map(|&query| matrix.queries[query].id.as_str()).collect();
    let candidate = train_policy(&logs(&matrix, &train), &TrainConfig::default(), None).expect("training succeeds");
    assert_eq!(candidate.report.lineup.candidate.verdict, Verdict::Better);

    let config = MatrixConfig { coverage: None, ..MatrixConfig::default() };
    let in_train = |query: &MatrixQuery| ids.contains(query.id.as_str());
    let report = judge_policy(&matrix, &candidate.policy, in_train, &config).expect("the policy knows the models");
    println!("{}", report.to_markdown());
    assert_eq!((report.train_queries, report.test_queries), (train.len(), matrix.queries.len() - train.len()));
    assert!(quality(&report, "learned policy", "full price") > quality(&report, "best single", "full price"));

    // As published it explores, so it earns less than its greedy choices, and more than a draw among all.
    let published = quality(&report, "policy as published", "none");
    assert!(published > quality(&report, "uniform", "none") && published < quality(&report, "oracle", "full price"));

    let mut stranger = matrix.clone();
    stranger.models[0].model = "a model that nobody logged".to_owned();
    assert!(judge_policy(&stranger, &candidate.policy, in_train, &config).is_err());
}

/// Two models on forty queries: the policy's own probabilities give what it earns, by hand.
#[test]
fn a_policy_as_published_earns_what_its_own_probabilities_say() {
    let action = |model: &str| Action { model: model.into(), input_usd_per_mtok: None, output_usd_per_mtok: None };
    // Gamma 0 is uniform over what may be chosen; the third model is not in the matrix.
    let spec = PolicySpec::of_guesses(
        FeatureSpec { features: vec![Feature::Flag { field: FlagField::FactCheck }] },
        ["other", "good", "bad"].map(action).to_vec(),
        Exploration { gamma: 0.0, floor: 0.0 },
        Objective { quality: 1.0, usd: 0.0 },
    );
    let inputs = spec.features.width();
    let network = Mlp::new(vec![Layer::new(inputs, vec![0.0; inputs * 6], vec![0.0; 6]).unwrap()]).unwrap();
    let policy = Policy::new(spec, network).unwrap();
    let queries: Vec<MatrixQuery> = (0..40)
        .map(|i| MatrixQuery { id: format!("q{i}"), text: format!("question {i}"), domain: "d".into() })
        .collect();
    let matrix = Matrix {
        name: "two".into(),
        models: ["bad", "good"].map(action).to_vec(),
        quality: [0.2, 0.8].repeat(40),
        cost_usd: [1.0, 2.0].repeat(40),
        cost_note: "made up".into(),
        answer_chars: None,
        encoded: None,
        queries,
    };
    let config = MatrixConfig { coverage: None, ..MatrixConfig::default() };
    let half = |query: &MatrixQuery| query.id.ends_with(['0', '2', '4', '6', '8']);
    let report = judge_policy(&matrix, &policy, half, &config).expect("the policy knows the models");
    assert!((quality(&report, "policy as published", "none") - 0.5).abs() < 1e-12);
}
