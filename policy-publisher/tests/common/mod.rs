//! Small but whole policies, a key with a known seed, and a clock that ticks a minute a decision.
#![allow(dead_code, missing_docs)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use weir_policy_publisher::keys::SigningKey;
use weir_policy_publisher::{Decision, Registry};
use weir_policy_runtime::{
    Action, Bundle, CategoryField, Exploration, Feature, FeatureSpec, Layer, Lineage, Manifest, Mlp, Objective,
    PolicySpec, Trust,
};
use weir_store::Store;

/// A policy of two models that prefers `large` the more, the larger `lean`.
pub fn bundle(name: &str, lean: f32, verdict: &str) -> Bundle {
    let action =
        |model: &str, usd| Action { model: model.to_owned(), input_usd_per_mtok: None, output_usd_per_mtok: Some(usd) };
    let spec = PolicySpec::of_guesses(
        FeatureSpec {
            features: vec![Feature::OneHot { field: CategoryField::Domain, values: vec!["law".to_owned()] }],
        },
        vec![action("large", 8.0), action("small", 0.5)],
        Exploration { gamma: 50.0, floor: if lean > 1.5 { 0.1 } else { 0.05 } },
        Objective { quality: 1.0, usd: 1.0 },
    );
    let weight = [lean, 0.0, 0.0, 0.0].iter().flat_map(|w| [*w, 0.0, 0.0]).collect();
    let network = Mlp::new(vec![Layer::new(3, weight, vec![0.0, 0.0, -3.0, -6.0]).unwrap()]).unwrap();
    let files = BTreeMap::from([
        ("policy.json".to_owned(), spec.to_json().unwrap()),
        ("weights.safetensors".to_owned(), network.to_safetensors().unwrap()),
        ("report.json".to_owned(), format!("{{\"verdict\": {{\"verdict\": \"{verdict}\"}}}}\n").into_bytes()),
        ("report.md".to_owned(), b"## Report\n\nBetter than logging by 0.03 to 0.05.\n".to_vec()),
    ]);
    let lineage = Lineage {
        tables: BTreeMap::from([("raw_requests".to_owned(), 17)]),
        code_version: "0.1.0".to_owned(),
        seed: 7,
        data: BTreeMap::new(),
    };
    let metrics = serde_json::json!({ "value": 0.5 + f64::from(lean) / 16.0, "baselines": { "uniform": 0.5 } });
    Bundle::build(Manifest::routing_policy(name, 1_763_800_000_000, lineage, metrics), files).unwrap()
}

/// The key whose secret is 32 times `seed`.
pub fn key(seed: u8) -> SigningKey {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    std::fs::write(&path, format!("ed25519-secret:{}\n", hex::encode([seed; 32]))).unwrap();
    only_ours(&path);
    SigningKey::read(&path).unwrap()
}

#[cfg(unix)]
fn only_ours(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[cfg(not(unix))]
fn only_ours(_path: &Path) {}

pub fn trust(seed: u8) -> Trust {
    Trust::Signed([key(seed).public().clone()].into_iter().collect())
}

pub fn clock() -> Arc<dyn Fn() -> i64 + Send + Sync> {
    let minutes = AtomicI64::new(0);
    Arc::new(move || 1_763_800_000_000 + 60_000 * minutes.fetch_add(1, Ordering::Relaxed))
}

/// A registry in memory that trusts key 1.
pub async fn registry() -> (Store, Registry) {
    let store = Store::open("memory:///").await.unwrap();
    let registry = Registry::with_clock(&store, trust(1), clock()).await.unwrap();
    (store, registry)
}

/// Proposes a signed policy.
pub async fn proposed(registry: &Registry, name: &str, lean: f32, verdict: &str) -> Bundle {
    let bundle = bundle(name, lean, verdict);
    let answer = registry.propose(&bundle, Some(&key(1).sign(&bundle.id)), "weir learn").await.unwrap();
    assert!(answer.new);
    bundle
}

pub fn by(actor: &str) -> Decision {
    Decision { actor: actor.to_owned(), ..Decision::default() }
}

pub fn because(actor: &str, reason: &str) -> Decision {
    Decision { reason: Some(reason.to_owned()), ..by(actor) }
}
