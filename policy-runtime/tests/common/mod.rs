//! A small but whole policy for the tests.
#![allow(dead_code, missing_docs)]

use std::collections::BTreeMap;

use weir_policy_runtime::{
    Action, Bundle, CategoryField, CountField, Exploration, Feature, FeatureSpec, FlagField, Heads, Layer, Lineage,
    Manifest, Mlp, Objective, Policy, PolicySpec, Strategy,
};

pub fn spec(gamma: f64, floor: f64) -> PolicySpec {
    let action = |model: &str| Action { model: model.into(), input_usd_per_mtok: None, output_usd_per_mtok: Some(2.0) };
    PolicySpec {
        features: FeatureSpec {
            features: vec![
                Feature::OneHot { field: CategoryField::Domain, values: vec!["law".into(), "math".into()] },
                Feature::Numeric { field: CountField::PromptTokens, mean: 5.0, std: 1.5 },
                Feature::Flag { field: FlagField::Multimodal },
                Feature::Embedding { dim: 3, model: None },
            ],
        },
        actions: vec![action("large"), action("middle"), action("small")],
        exploration: Exploration { gamma, floor },
        objective: Objective { quality: 1.0, usd: 10.0 },
        heads: Heads::QualityLogitsThenLnCostUsd,
        strategy: Strategy::default(),
        preference: None,
        probation: Vec::new(),
        utility_per_s: None,
    }
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
