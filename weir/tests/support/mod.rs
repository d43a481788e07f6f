//! A signed bundle for tests of the command line.

use std::path::{Path, PathBuf};

use weir_policy_publisher::keys::SigningKey;
use weir_policy_runtime::{
    Action, Bundle, Exploration, Feature, FeatureSpec, FlagField, Heads, Layer, Lineage, Manifest, Mlp, Objective,
    POLICY_FILE, PolicySpec, WEIGHTS_FILE,
};

/// A folder with a trusted key, and a signed bundle of the smallest policy there is: two models, one flag.
pub fn signed_bundle(folder: &Path) -> (SigningKey, PathBuf) {
    let key = SigningKey::generate();
    let trusted = folder.join("weir-keys/trusted");
    std::fs::create_dir_all(&trusted).unwrap();
    std::fs::write(trusted.join("signer.pub"), format!("{}\n", key.public())).unwrap();
    let place = folder.join("bundle");
    let bundle = bundle();
    bundle.write_dir(&place, Some(&key.sign(&bundle.id))).unwrap();
    (key, place)
}

/// The policy itself.
pub fn bundle() -> Bundle {
    let action = |model: &str| Action { model: model.into(), input_usd_per_mtok: None, output_usd_per_mtok: None };
    let spec = PolicySpec {
        features: FeatureSpec { features: vec![Feature::Flag { field: FlagField::FactCheck }] },
        actions: vec![action("small"), action("large")],
        exploration: Exploration { gamma: 10.0, floor: 0.1 },
        objective: Objective { quality: 1.0, usd: 1.0 },
        heads: Heads::QualityLogitsThenLnCostUsd,
    };
    let inputs = spec.features.width();
    let network = Mlp::new(vec![Layer::new(inputs, vec![0.1; inputs * 4], vec![0.0; 4]).unwrap()]).unwrap();
    let files = [(POLICY_FILE, spec.to_json().unwrap()), (WEIGHTS_FILE, network.to_safetensors().unwrap())];
    let files = files.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect();
    let manifest = Manifest::routing_policy("smallest", 0, Lineage::default(), serde_json::json!({}));
    Bundle::build(manifest, files).unwrap()
}
