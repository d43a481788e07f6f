//! What vLLM Semantic Router would make of an exported policy.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use weir_learners::exports::vllm_sr::{Artifact, CATEGORIES, DistilConfig, GOLDEN_FILE, MLP_FILE, SVM_FILE, input};
use weir_learners::{LearnError, Sample, TrainConfig, TrainingSet, export_vllm_sr, train_policy};
use weir_policy_runtime::{Action, OwnedContext};

const DIM: usize = 8;
const MODELS: [&str; 3] = ["large", "medium", "small"];

/// Each category has a best model, but where the first number of the embedding says otherwise; its numbers lie far from 0 and have
/// spreads of their own, so that a router that forgets to standardise chooses badly.
fn logs(seed: u64, sessions: usize) -> TrainingSet {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let samples = (0..sessions).map(|session| {
        let domain = rng.random_range(0..3);
        let mut embedding: Vec<f32> =
            (0..DIM).map(|d| 5.0 + (d + 1) as f32 * rng.random_range(-1.0..1.0_f32)).collect();
        let hard = rng.random_bool(0.3);
        embedding[0] = if hard { 9.0 } else { 4.0 };
        let action = rng.random_range(0..3);
        let best = if hard { 0 } else { domain };
        let good = rng.random_bool(if action == best { 0.85 } else { 0.4 });
        Sample {
            context: OwnedContext {
                domain: Some(["law", "computer science", "zoology"][domain].to_owned()),
                embedding: Some(embedding),
                embedding_model: Some("m".to_owned()),
                ..OwnedContext::default()
            },
            action,
            executed_as_intended: true,
            propensity: Some(1.0 / 3.0),
            quality: Some(f64::from(u8::from(good))),
            cost_usd: Some(1e-4),
            cluster: format!("s{session}"),
            time_ms: session as i64,
            ..Sample::default()
        }
    });
    let action =
        |model: &&str| Action { model: (*model).to_owned(), input_usd_per_mtok: None, output_usd_per_mtok: None };
    TrainingSet { actions: MODELS.iter().map(action).collect(), samples: samples.collect(), ..TrainingSet::default() }
}

#[test]
fn an_exported_policy_is_judged_as_the_bytes_that_the_router_loads() {
    let (set, config) = (logs(1, 4_000), TrainConfig::default());
    let mut candidate = train_policy(&set, &config, None).expect("training succeeds");
    let files = export_vllm_sr(&set, &mut candidate, &config, &DistilConfig::of(DIM, 1)).expect("it distils");
    println!("{}", candidate.report.to_markdown());
    let parent = candidate.report.lineup.candidate.estimates.as_ref().unwrap().dr.value;
    for (file, at_least) in [(MLP_FILE, 0.9), (SVM_FILE, 0.8)] {
        let summary = candidate.report.exports.iter().find(|one| one.file == file).expect("it is in the report");
        assert!(summary.agreement > at_least, "{file} agrees with its parent in {}", summary.agreement);
        let found = summary.estimates.as_ref().expect("support is ample");
        // The router takes the best where the parent explores a little, so it may even earn more.
        assert!(found.dr.value > parent - 0.05, "{file} is worth {}, its parent {parent}", found.dr.value);
        assert!(summary.difference_to_parent.is_some() && summary.predicted_loss < 0.05);
    }
    // By domain alone, the hard third would go to the wrong model.
    let by_domain = candidate.report.lineup.baselines.iter().find(|one| one.name == "best model per domain").unwrap();
    let by_domain = by_domain.evaluation.estimates.as_ref().unwrap().dr.value;
    let mlp = candidate.report.exports[0].estimates.as_ref().unwrap().dr.value;
    assert!(mlp > by_domain + 0.03, "{mlp} and {by_domain} by domain");

    let again = export_vllm_sr(&set, &mut candidate.clone(), &config, &DistilConfig::of(DIM, 1)).unwrap();
    assert!(again == files, "the same seed gives the same bytes");
    let shown = candidate.report.to_markdown();
    assert!(shown.contains("## Exports") && shown.contains(MLP_FILE), "{shown}");
}

/// The router's rule, written down a second time: `x Wᵀ + b`, ReLU, and the last of equal maxima; for the linear form `w·x/|x| - rho`
/// and the first.
fn as_the_router_does(file: &Value, input: &[f64]) -> (Vec<f64>, String) {
    let numbers =
        |value: &Value| -> Vec<f64> { value.as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect() };
    let dot = |row: &Value, x: &[f64]| numbers(row).iter().zip(x).map(|(w, x)| w * x).sum::<f64>();
    let name = |at: usize| file["model_names"][at].as_str().unwrap().to_owned();
    if file["algorithm"] == "svm" {
        let length = input.iter().map(|x| x * x).sum::<f64>().sqrt();
        let x: Vec<f64> = input.iter().map(|x| x / length).collect();
        let scores: Vec<f64> = file["linear_classifiers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| dot(&one["weights"], &x) - one["rho"].as_f64().unwrap())
            .collect();
        let best = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let at = scores.iter().position(|score| *score == best).unwrap();
        return (scores, name(at));
    }
    let scores =
        file["layers"].as_array().unwrap().iter().fold(input.to_vec(), |x, layer| match layer["type"].as_str() {
            Some("relu") => x.iter().map(|x| x.max(0.0)).collect(),
            _ => {
                let bias = numbers(&layer["bias"]);
                layer["weight"].as_array().unwrap().iter().zip(bias).map(|(row, bias)| dot(row, &x) + bias).collect()
            }
        });
    let best = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let at = scores.iter().rposition(|score| *score == best).unwrap();
    (scores, name(at))
}

#[test]
fn golden_vectors_are_what_the_router_s_rule_gives() {
    let (set, config) = (logs(2, 1_500), TrainConfig::default());
    let mut candidate = train_policy(&set, &config, None).unwrap();
    let files = export_vllm_sr(&set, &mut candidate, &config, &DistilConfig::of(DIM, 2)).unwrap();
    let read = |file: &str| -> Value { serde_json::from_slice(&files[file]).unwrap() };
    let golden = read(GOLDEN_FILE);
    assert_eq!(golden.as_array().unwrap().len(), 2 * CATEGORIES.len(), "each category twice");
    let logged: Vec<f64> =
        set.samples.iter().map(|sample| f64::from(sample.context.embedding.as_ref().unwrap()[1])).collect();
    let shown: Vec<f64> = golden.as_array().unwrap().iter().map(|row| row["input"][1].as_f64().unwrap()).collect();
    assert!(shown.iter().all(|x| !logged.contains(x)), "no logged embedding leaves");
    for row in golden.as_array().unwrap() {
        let input: Vec<f64> = row["input"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
        assert_eq!(input.len(), DIM + CATEGORIES.len());
        for (file, told) in [(MLP_FILE, &row["mlp"]), (SVM_FILE, &row["svm"])] {
            let (found, chosen) = as_the_router_does(&read(file), &input);
            for (ours, theirs) in told["scores"].as_array().unwrap().iter().zip(&found) {
                // Ours are in single precision, as the router's network is.
                assert!((ours.as_f64().unwrap() - theirs).abs() < 1e-4, "{file}: {ours} and {theirs}");
            }
            assert_eq!(told["choice"], chosen, "{file}");
        }
    }
}

#[test]
fn the_input_is_the_router_s_own() {
    let context = |domain: Option<&str>| OwnedContext { domain: domain.map(str::to_owned), ..OwnedContext::default() };
    let hot = |domain| input(&context(domain), 2).iter().position(|x| *x == 1.0).unwrap() - 2;
    assert_eq!(CATEGORIES[hot(Some("computer_science"))], "computer science");
    assert_eq!(CATEGORIES[hot(Some("Law"))], "law");
    assert_eq!(CATEGORIES[hot(Some("zoology"))], "other");
    assert_eq!(CATEGORIES[hot(None)], "other");
    assert_eq!(input(&context(None), 768).len(), 782);
}

#[test]
fn files_that_a_router_would_choke_on_are_refused() {
    let refused = |text: &str| match Artifact::from_json(text.as_bytes()) {
        Err(LearnError::Artefact(why)) => why,
        other => panic!("{other:?}"),
    };
    let mlp = |weight: &str, names: &str| {
        format!(
            r#"{{"algorithm":"mlp","version":"1","trained":true,"model_names":{names},"feature_dim":2,"n_classes":1,"hidden_sizes":[],"dropout":0.0,"layers":[{{"type":"linear","in_features":2,"out_features":1,"weight":{weight},"bias":[0.0]}}]}}"#
        )
    };
    assert!(Artifact::from_json(mlp("[[1.0,2.0]]", r#"["a"]"#).as_bytes()).is_ok());
    assert!(refused(&mlp("[[1.0]]", r#"["a"]"#)).contains("another shape"));
    assert!(refused(&mlp("[[1.0,2.0]]", r#"["a","b"]"#)).contains("one name for each class"));
    assert!(refused(&mlp("[[1.0,1e999]]", r#"["a"]"#)).len() > 3);
    assert!(refused(r#"{"algorithm":"knn"}"#).contains("neither mlp nor svm"));
    let set = logs(3, 200);
    let mut candidate = train_policy(&set, &TrainConfig::default(), None).unwrap();
    let wrong = export_vllm_sr(&set, &mut candidate, &TrainConfig::default(), &DistilConfig::of(768, 1)).unwrap_err();
    assert!(wrong.to_string().contains("8 dimensions"), "{wrong}");
}

/// A router feeds real embeddings whether or not the logs had any; what was never seen must not choose.
#[test]
fn what_the_logs_never_showed_weighs_nothing() {
    let mut set = logs(4, 2_000);
    set.samples.iter_mut().for_each(|sample| sample.context.embedding = None);
    let config = TrainConfig::default();
    let mut candidate = train_policy(&set, &config, None).unwrap();
    let files = export_vllm_sr(&set, &mut candidate, &config, &DistilConfig::of(768, 1)).unwrap();
    assert!(!files.contains_key(SVM_FILE), "the length that the router divides by is not known");
    let artifact = Artifact::from_json(&files[MLP_FILE]).unwrap();
    let selector = artifact.selector().unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for domain in ["law", "computer science", "zoology", "history"] {
        let plain = input(&OwnedContext { domain: Some(domain.to_owned()), ..OwnedContext::default() }, 768);
        let mut real = plain.clone();
        real[..768].iter_mut().for_each(|x| *x = rng.random_range(-1.0..1.0));
        assert_eq!(selector.scores(&real), selector.scores(&plain), "{domain}");
    }
    // A category that nobody asked about gets the average, which is between the others.
    let of = |domain: &str| {
        let context = OwnedContext { domain: Some(domain.to_owned()), ..OwnedContext::default() };
        selector.scores(&input(&context, 768))[0]
    };
    let seen = ["law", "computer science", "zoology"].map(of);
    let (low, high) = seen.iter().fold((f64::MAX, f64::MIN), |(low, high), x| (low.min(*x), high.max(*x)));
    assert!(of("history") > low - 0.1 && of("history") < high + 0.1, "{} beside {seen:?}", of("history"));
}

/// Whatever bytes lie in the file: a refusal, or scores that are numbers for every input of the right length.
#[test]
fn no_bytes_make_a_loader_panic() {
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let valid = [
        br#"{"algorithm":"mlp","version":"1","trained":true,"model_names":["a","b"],"feature_dim":2,"n_classes":2,"hidden_sizes":[1],"dropout":0.0,"layers":[{"type":"linear","in_features":2,"out_features":1,"weight":[[1.0,2.0]],"bias":[0.5]},{"type":"relu"},{"type":"linear","in_features":1,"out_features":2,"weight":[[1.0],[2.0]],"bias":[0.5,0.1]}]}"#.to_vec(),
        br#"{"algorithm":"svm","version":"1","trained":true,"model_names":["a","b"],"kernel_type":"Linear","gamma":0.0,"linear_classifiers":[{"model_name":"a","weights":[1.0,2.0],"rho":0.5},{"model_name":"b","weights":[0.0,1.0],"rho":-0.5}]}"#.to_vec(),
    ];
    let mut read = 0;
    for round in 0..20_000 {
        let mut bytes = valid[round % 2].clone();
        for _ in 0..rng.random_range(0..4) {
            let at = rng.random_range(0..bytes.len());
            match rng.random_range(0..3) {
                0 => bytes[at] = *b"0123456789.-e,[]{}\"".get(rng.random_range(0..19)).unwrap(),
                1 => drop(bytes.remove(at)),
                _ => bytes.truncate(at),
            }
            if bytes.is_empty() {
                break;
            }
        }
        let Ok(artifact) = Artifact::from_json(&bytes) else { continue };
        read += 1;
        let selector = artifact.selector().expect("what was read can score");
        let scores = selector.scores(&[0.25, -0.5]);
        assert_eq!(scores.len(), artifact.model_names().len());
        assert!(selector.choice(&[0.25, -0.5]) < scores.len());
    }
    assert!(read > 2_000, "{read} of 20,000 were read at all");
}
