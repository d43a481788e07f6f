//! A bundle is whole, or one sentence says why not.
#![allow(missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use common::bundle;
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use weir_policy_runtime::{
    Bundle, BundleError, MAX_BUNDLE_BYTES, MAX_FILES, Manifest, PolicyId, canonical_json, signing_message,
};

fn written() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("policy");
    bundle().write_dir(&place, None).unwrap();
    (folder, place)
}

fn refusal(place: &Path) -> String {
    Bundle::read_dir(place).unwrap_err().to_string()
}

#[test]
fn a_directory_gives_back_the_bundle() {
    let (_folder, place) = written();
    assert_eq!(Bundle::read_dir(&place).unwrap(), bundle());
}

#[test]
fn a_tar_gives_back_the_bundle_and_is_the_same_every_time() {
    let tar = bundle().to_tar();
    assert_eq!(tar, bundle().to_tar());
    assert_eq!(Bundle::from_tar(&tar).unwrap(), bundle());
}

#[test]
fn a_tar_of_the_system_is_read_too() {
    let (folder, place) = written();
    let out = folder.path().join("policy.tar");
    let status = std::process::Command::new("tar").arg("cf").arg(&out).arg("-C").arg(&place).arg(".").status();
    if !status.is_ok_and(|status| status.success()) {
        println!("skipped: no tar command");
        return;
    }
    assert_eq!(Bundle::from_tar(&fs::read(out).unwrap()).unwrap(), bundle());
}

#[test]
fn a_signature_packed_with_the_content_is_found() {
    let unsigned = bundle().to_tar();
    assert!(Bundle::signature_in_tar(&unsigned).unwrap().is_none());
    let id = bundle().id;
    let json = format!(r#"{{"algorithm": "ed25519", "key_id": "k", "policy_id": "{id}", "signature": "00"}}"#);
    let found = Bundle::signature_in_tar(&tar_of(&[("signature.json", tar::EntryType::Regular, json.as_bytes())]));
    assert_eq!(found.unwrap().unwrap().policy_id, id);
}

#[test]
fn the_id_is_the_hash_of_the_manifest_file() {
    let (_folder, place) = written();
    let bytes = fs::read(place.join("manifest.json")).unwrap();
    assert_eq!(bundle().id.to_string(), format!("sha256:{}", hex::encode(Sha256::digest(bytes))));
}

#[test]
fn the_id_does_not_depend_on_the_order_of_metrics_but_on_their_values() {
    let with = |metrics: &str| {
        let original = bundle();
        let mut manifest = original.manifest.clone();
        manifest.metrics = serde_json::from_str(metrics).unwrap();
        Bundle::build(manifest, original.files).unwrap().id
    };
    assert_eq!(with(r#"{"a": 1, "b": {"x": 2, "y": 3}}"#), with(r#"{"b": {"y": 3, "x": 2}, "a": 1}"#));
    assert_ne!(with(r#"{"a": 1}"#), with(r#"{"a": 2}"#));
}

#[test]
fn the_manifest_reads_as_documented() {
    insta::assert_snapshot!(String::from_utf8(bundle().manifest_bytes().to_vec()).unwrap());
}

#[test]
fn every_kind_of_damage_has_its_own_sentence() {
    let mut sentences = Vec::new();
    let mut damage = |what: &dyn Fn(&Path)| {
        let (_folder, place) = written();
        what(&place);
        sentences.push(refusal(&place));
    };
    damage(&|place| fs::write(place.join("weights.safetensors"), b"short").unwrap());
    damage(&|place| {
        let path = place.join("weights.safetensors");
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(path, bytes).unwrap();
    });
    damage(&|place| {
        let path = place.join("report.md");
        fs::write(&path, [fs::read(&path).unwrap(), b"more".to_vec()].concat()).unwrap();
    });
    damage(&|place| fs::write(place.join("knobs/stray.json"), b"{}").unwrap());
    damage(&|place| fs::remove_file(place.join("policy.json")).unwrap());
    damage(&|place| fs::write(place.join("manifest.json"), b"{\"schema\": 1, \"kind\"").unwrap());
    damage(&|place| fs::write(place.join("manifest.json"), b"{\"schema\": 99}").unwrap());
    insta::assert_snapshot!(sentences.join("\n"));
}

#[test]
fn a_directory_without_a_manifest_is_not_a_bundle() {
    let folder = tempfile::tempdir().unwrap();
    for place in [folder.path().to_owned(), folder.path().join("absent")] {
        assert!(matches!(Bundle::read_dir(&place), Err(BundleError::NoManifest { .. })));
    }
}

#[cfg(unix)]
#[test]
fn a_link_in_place_of_a_file_is_refused() {
    let (folder, place) = written();
    let outside = folder.path().join("outside.md");
    fs::rename(place.join("report.md"), &outside).unwrap();
    std::os::unix::fs::symlink(&outside, place.join("report.md")).unwrap();
    assert!(matches!(Bundle::read_dir(&place), Err(BundleError::NotAFile { .. })));
}

#[test]
fn a_bundle_is_never_overwritten_and_never_half_written() {
    let (folder, place) = written();
    assert!(matches!(bundle().write_dir(&place, None), Err(BundleError::Exists { .. })));
    // A file where a folder is needed: nothing appears, nothing is left behind.
    fs::write(folder.path().join("file"), b"").unwrap();
    assert!(matches!(bundle().write_dir(&folder.path().join("file/policy"), None), Err(BundleError::Io { .. })));
    let mut left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["file", "policy"]);
}

#[test]
fn paths_that_could_leave_the_bundle_are_refused() {
    let long = "a".repeat(101);
    for bad in [
        "../x",
        "/etc/x",
        "a/../b",
        "a//b",
        "",
        ".hidden",
        "a b",
        "knobs/",
        "c:\\x",
        "ü",
        "manifest.json",
        "signature.json",
        &long,
    ] {
        let files = BTreeMap::from([(bad.to_owned(), Vec::new())]);
        let manifest = Manifest::routing_policy("x", 0, Default::default(), serde_json::Value::Null);
        assert!(matches!(Bundle::build(manifest, files), Err(BundleError::BadPath { .. })), "{bad:?}");
    }
}

fn tar_of(entries: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, kind, content) in entries {
        let mut header = tar::Header::new_ustar();
        // Written past the library's own checks, as an attacker would.
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn hostile_archives_are_refused() {
    use tar::EntryType::{Regular, Symlink};
    let refuse = |entries: &[(&str, tar::EntryType, &[u8])]| Bundle::from_tar(&tar_of(entries)).unwrap_err();
    assert!(matches!(refuse(&[("../../x", Regular, b"x")]), BundleError::BadPath { .. }));
    assert!(matches!(refuse(&[("/x", Regular, b"x")]), BundleError::BadPath { .. }));
    assert!(matches!(refuse(&[("x", Symlink, b"")]), BundleError::NotAFile { .. }));
    assert!(matches!(refuse(&[("x", Regular, b"1"), ("x", Regular, b"2")]), BundleError::DuplicateFile { .. }));
    assert!(matches!(refuse(&[("x", Regular, b"1")]), BundleError::NoManifest { .. }));
    let many: Vec<String> = (0..MAX_FILES + 3).map(|i| format!("f{i}")).collect();
    let many: Vec<(&str, tar::EntryType, &[u8])> = many.iter().map(|p| (p.as_str(), Regular, &b""[..])).collect();
    assert!(matches!(refuse(&many), BundleError::TooManyFiles));
    // A header that claims more than the limit is refused before a byte of it is read.
    let mut header = tar::Header::new_ustar();
    header.set_path("big").unwrap();
    header.set_size(MAX_BUNDLE_BYTES + 1);
    header.set_cksum();
    assert!(matches!(Bundle::from_tar(header.as_bytes()), Err(BundleError::TooLarge)));
}

#[test]
fn too_many_files_or_bytes_are_refused_when_building() {
    let manifest = || Manifest::routing_policy("x", 0, Default::default(), serde_json::Value::Null);
    let many: BTreeMap<String, Vec<u8>> = (0..=MAX_FILES).map(|i| (format!("f{i}"), Vec::new())).collect();
    assert!(matches!(Bundle::build(manifest(), many), Err(BundleError::TooManyFiles)));
    let big = BTreeMap::from([("f".to_owned(), vec![0; MAX_BUNDLE_BYTES as usize])]);
    assert!(matches!(Bundle::build(manifest(), big), Err(BundleError::TooLarge)));
}

#[test]
fn another_bundle_is_not_the_one_that_was_asked_for() {
    let other: PolicyId = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
    assert!(bundle().expect_id(&bundle().id).is_ok());
    assert!(matches!(bundle().expect_id(&other), Err(BundleError::WrongId { .. })));
}

#[test]
fn ids_have_one_spelling() {
    for bad in
        ["", "sha256:", &"0".repeat(64), &format!("sha256:{}", "F".repeat(64)), &format!("md5:{}", "0".repeat(64))]
    {
        assert!(bad.parse::<PolicyId>().is_err(), "{bad}");
    }
    let text = format!("sha256:{}", "0f".repeat(32));
    let id: PolicyId = text.parse().unwrap();
    assert_eq!((id.as_str(), id.hex(), id.short()), (text.as_str(), &text[7..], "0f0f0f0f0f0f"));
    assert_eq!(signing_message(&id), format!("weir policy bundle v1\n{text}").into_bytes());
}

#[test]
fn canonical_json_sorts_every_level() {
    let value = serde_json::json!({ "b": [{ "z": 1, "y": null }], "a": 0.1 });
    insta::assert_snapshot!(String::from_utf8(canonical_json(&value)).unwrap(), @r#"
    {
      "a": 0.1,
      "b": [
        {
          "y": null,
          "z": 1
        }
      ]
    }
    "#);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_cut_through_the_content_of_an_archive_is_noticed(cut in any::<prop::sample::Index>()) {
        let tar = bundle().to_tar();
        // The archive ends with two blocks of zeros (POSIX pax, "ustar Interchange Format") that hold nothing.
        let cut = cut.index(tar.len() - 1024 - 512);
        prop_assert!(Bundle::from_tar(&tar[..cut]).is_err());
    }

    #[test]
    fn any_changed_byte_of_any_file_is_noticed(byte in any::<prop::sample::Index>(), file in any::<prop::sample::Index>()) {
        let original = bundle();
        let mut files = original.files.clone();
        let content = files.values_mut().nth(file.index(original.files.len())).unwrap();
        let at = byte.index(content.len());
        content[at] ^= 0x10;
        let error = Bundle::from_files(original.manifest_bytes().to_vec(), files).unwrap_err();
        prop_assert!(matches!(error, BundleError::WrongHash { .. }), "{}", error);
    }

    #[test]
    fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
        prop_assert!(Bundle::from_tar(&bytes).is_err());
    }
}
