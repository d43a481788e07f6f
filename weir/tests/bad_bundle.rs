//! A truncated bundle, a changed one, a signature by somebody else: one sentence each, and nothing is stored.

mod support;

use std::process::Output;

use support::{bundle, signed_bundle, weir};
use weir_policy_publisher::keys::SigningKey;
use weir_policy_runtime::{Bundle, Lineage, Manifest, POLICY_FILE, WEIGHTS_FILE};

fn sentence(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_ne!(output.status.code(), Some(0), "exit code 0: {}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(stderr.lines().count(), 1, "one sentence, not: {stderr}");
    stderr.trim().to_owned()
}

#[test]
fn a_whole_signed_bundle_verifies() {
    let folder = tempfile::tempdir().unwrap();
    signed_bundle(folder.path());
    let output = weir(folder.path(), &["policy", "verify", "bundle"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_truncated_bundle_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (_, bundle) = signed_bundle(folder.path());
    let weights = bundle.join(WEIGHTS_FILE);
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() - 5]).unwrap();
    let said = sentence(&weir(folder.path(), &["policy", "verify", "bundle"]));
    assert!(said.contains(WEIGHTS_FILE), "{said}");
    assert!(!folder.path().join("weir-data").exists(), "a store was made");
}

#[test]
fn a_changed_byte_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (_, bundle) = signed_bundle(folder.path());
    let policy = bundle.join(POLICY_FILE);
    let changed = std::fs::read_to_string(&policy).unwrap().replace("small", "large");
    std::fs::write(&policy, changed).unwrap();
    let said = sentence(&weir(folder.path(), &["policy", "verify", "bundle"]));
    assert!(said.contains(POLICY_FILE), "{said}");
}

#[test]
fn a_signature_by_somebody_else_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (_, place) = signed_bundle(folder.path());
    let stranger = SigningKey::generate();
    std::fs::write(place.join("signature.json"), stranger.sign(&bundle().id).to_json()).unwrap();
    let said = sentence(&weir(folder.path(), &["policy", "verify", "bundle"]));
    assert!(said.contains(&stranger.public().key_id()), "{said}");
}

#[test]
fn a_signature_of_another_policy_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (key, place) = signed_bundle(folder.path());
    let other = Manifest::routing_policy("another", 1, Lineage::default(), serde_json::json!({}));
    let other = Bundle::build(other, bundle().files).unwrap();
    std::fs::write(place.join("signature.json"), key.sign(&other.id).to_json()).unwrap();
    let said = sentence(&weir(folder.path(), &["policy", "verify", "bundle"]));
    assert!(said.contains("sha256:"), "{said}");
}

#[test]
fn the_sidecar_refuses_to_start_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let (_, bundle) = signed_bundle(folder.path());
    std::fs::remove_file(bundle.join("signature.json")).unwrap();
    let said = sentence(&weir(folder.path(), &["decide", "--policy", "bundle", "--listen", "127.0.0.1:0"]));
    assert!(said.contains("signature"), "{said}");
}
