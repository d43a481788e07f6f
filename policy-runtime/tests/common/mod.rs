//! A small but whole policy for the tests.
#![allow(dead_code, missing_docs)]

use std::collections::BTreeMap;

use weir_policy_runtime::{
    AcceptModel, Action, AnswerFeature, AnswerField, Bundle, CASCADE_SCHEMA, Cascade, CascadeEvidence, CategoryField,
    CountField, Exploration, Fallback, Feature, FeatureSpec, FlagField, Layer, Lineage, Manifest, MidTier, Mlp,
    Objective, Policy, PolicySpec, PoolLimits,
};

pub fn spec(gamma: f64, floor: f64) -> PolicySpec {
    let action = |model: &str| Action { model: model.into(), input_usd_per_mtok: None, output_usd_per_mtok: Some(2.0) };
    PolicySpec::of_guesses(
        FeatureSpec {
            features: vec![
                Feature::OneHot { field: CategoryField::Domain, values: vec!["law".into(), "math".into()] },
                Feature::Numeric { field: CountField::PromptTokens, mean: 5.0, std: 1.5 },
                Feature::Flag { field: FlagField::Multimodal },
                Feature::Embedding { dim: 3, model: None },
            ],
        },
        vec![action("large"), action("middle"), action("small")],
        Exploration { gamma, floor },
        Objective { quality: 1.0, usd: 10.0 },
    )
}

/// Weights from a fixed integer sequence (a linear congruential generator), so that every run sees the same network.
pub fn network(widths: &[usize]) -> Mlp {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * 0.5
    };
    let layers = widths
        .windows(2)
        .map(|pair| {
            let weight = (0..pair[0] * pair[1]).map(|_| next()).collect();
            Layer::new(pair[0], weight, (0..pair[1]).map(|_| next()).collect()).unwrap()
        })
        .collect();
    Mlp::new(layers).unwrap()
}

pub fn policy(gamma: f64, floor: f64) -> Policy {
    let spec = spec(gamma, floor);
    let widths = [spec.features.width(), 16, 8, 6];
    Policy::new(spec, network(&widths)).unwrap()
}

pub fn bundle() -> Bundle {
    let policy = policy(20.0, 0.06);
    let files = BTreeMap::from([
        ("policy.json".to_owned(), policy.spec().to_json().unwrap()),
        ("weights.safetensors".to_owned(), policy.network().to_safetensors().unwrap()),
        ("report.json".to_owned(), b"{\"verdict\": \"better\"}\n".to_vec()),
        ("report.md".to_owned(), b"# Report\n".to_vec()),
        ("knobs/token-budget.json".to_owned(), b"{}\n".to_vec()),
    ]);
    let lineage = Lineage {
        tables: BTreeMap::from([("requests".to_owned(), 17), ("feedback".to_owned(), 9)]),
        code_version: "0.1.0".to_owned(),
        seed: 7,
        data: BTreeMap::new(),
    };
    let metrics = serde_json::json!({ "value": 0.61, "baselines": { "uniform": 0.5, "best_single": 0.58 } });
    Bundle::build(Manifest::routing_policy("demo", 1_700_000_000_000, lineage, metrics), files).unwrap()
}

/// A small but whole cascade.
pub fn cascade() -> Cascade {
    let limits = PoolLimits {
        engine_waiting_max: 10.0,
        engine_waiting_resume: 4.0,
        queue_wait_ms_max: 500.0,
        queue_wait_ms_resume: 200.0,
        grace_ms: 2_000,
        recovery_ms: 8_000,
        stale_after_ms: 5_000,
    };
    let features = vec![
        Feature::OneHot { field: CategoryField::Domain, values: vec!["law".into(), "math".into()] },
        Feature::Numeric { field: CountField::PromptTokens, mean: 5.0, std: 1.5 },
    ];
    Cascade {
        schema: CASCADE_SCHEMA,
        routers: BTreeMap::new(),
        cheap_model: "small".into(),
        strong_model: "large".into(),
        accept: AcceptModel {
            features: FeatureSpec { features },
            answer: vec![
                AnswerFeature { field: AnswerField::CompletionTokens, mean: 2.0, std: 0.5 },
                AnswerFeature { field: AnswerField::VerifierScore, mean: 0.0, std: 1.0 },
            ],
            // Law, math, other, missing; prompt tokens, missing; answer tokens, missing; verifier, missing.
            weights: vec![-1.0, 1.0, 0.0, 0.0, 0.4, 0.0, 0.8, 0.0, 0.6, 0.3],
            bias: 0.5,
            calibration: vec![(0.2, 0.1), (0.9, 0.8)],
        },
        threshold: Some(0.6),
        evidence: CascadeEvidence {
            loss: "harm".into(),
            alpha: 0.02,
            delta: 0.1,
            clusters: 1_000,
            risk: Some(0.01),
            escalation_rate: 0.4,
        },
        limits,
        mid_tier: Some(MidTier { model: "middle".into(), threshold: 0.7, limits }),
        fallbacks: vec![Fallback::CompressAndRetry, Fallback::MidTier],
    }
}
