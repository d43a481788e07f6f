//! A bundle: a directory of plain files whose manifest names each file's size and SHA-256; its id is the SHA-256 of
//! the manifest's bytes. The same content gives the same id, whoever writes it and wherever.
//!
//! | path | holds |
//! |---|---|
//! | `manifest.json` | kind, name, lineage, metrics, and every other file's size and hash |
//! | `policy.json` | features, actions, exploration, objective, heads ([`crate::PolicySpec`]) |
//! | `weights.safetensors` | the network ([`crate::Mlp`]) |
//! | `report.json`, `report.md` | how the policy was judged, for machines and for people |
//! | `knobs/*.json` | tables for other knobs of the router |
//! | `signature.json` | beside the content, never part of it: a policy's id does not depend on who signed it |
//!
//! Kinds: [`ROUTING_POLICY_KIND`] (choose a model per request) is the first. A bundle of any kind can be read, stored,
//! signed and delivered; only what scores one looks at its kind, so a new kind needs a new scorer and nothing else.

mod archive;
mod directory;
mod manifest;

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

pub use manifest::{FileEntry, Lineage, MANIFEST_SCHEMA, Manifest, PolicyId, ROUTING_POLICY_KIND, canonical_json};

use crate::error::BundleError;

/// Path of the manifest.
pub const MANIFEST_FILE: &str = "manifest.json";
/// Path of the policy's spec.
pub const POLICY_FILE: &str = "policy.json";
/// Path of the network's weights.
pub const WEIGHTS_FILE: &str = "weights.safetensors";
/// How sure the network is, where a strategy asks.
pub const POSTERIOR_FILE: &str = "posterior.safetensors";
/// Path of the report for machines.
pub const REPORT_JSON_FILE: &str = "report.json";
/// Path of the report for people.
pub const REPORT_MARKDOWN_FILE: &str = "report.md";
/// Path of the signature, beside the content.
pub const SIGNATURE_FILE: &str = "signature.json";

/// All files together, manifest included, bytes.
pub const MAX_BUNDLE_BYTES: u64 = 64 << 20;
/// A bundle's tar, bytes: the content, a header and padding a file, a signature, and what archivers add at the end.
pub const MAX_TAR_BYTES: u64 = MAX_BUNDLE_BYTES + (1 << 20);
/// Files, manifest not counted.
pub const MAX_FILES: usize = 256;
/// The manifest, bytes.
pub const MAX_MANIFEST_BYTES: u64 = 1 << 20;
/// One path, bytes: what a plain tar header holds.
pub const MAX_PATH_BYTES: usize = 100;

/// A whole bundle in memory. Whoever holds one knows that every size and hash was checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Bundle {
    /// The manifest, parsed.
    pub manifest: Manifest,
    /// SHA-256 of the manifest's bytes.
    pub id: PolicyId,
    /// Every file but the manifest, by path.
    pub files: BTreeMap<String, Vec<u8>>,
    manifest_bytes: Vec<u8>,
}

impl Bundle {
    /// Builds a bundle. `manifest.files` is filled in here, whatever it held.
    ///
    /// # Errors
    /// When a path is refused or a limit is passed.
    pub fn build(mut manifest: Manifest, files: BTreeMap<String, Vec<u8>>) -> Result<Self, BundleError> {
        manifest.files = files
            .iter()
            .map(|(path, content)| (path.clone(), FileEntry { sha256: sha256_hex(content), bytes: length(content) }))
            .collect();
        Self::from_files(manifest.to_json()?, files)
    }

    /// Puts a manifest's bytes and the files that it lists together, and checks every path, size and hash.
    ///
    /// # Errors
    /// When something is missing, extra, changed, too large, or the manifest cannot be read.
    pub fn from_files(manifest_bytes: Vec<u8>, files: BTreeMap<String, Vec<u8>>) -> Result<Self, BundleError> {
        let manifest = Manifest::from_json(&manifest_bytes)?;
        if let Some(path) = files.keys().find(|path| !manifest.files.contains_key(*path)) {
            return Err(BundleError::ExtraFile { path: path.clone() });
        }
        for (path, entry) in &manifest.files {
            let content = files.get(path).ok_or_else(|| BundleError::MissingFile { path: path.clone() })?;
            if length(content) != entry.bytes {
                let (expected, found) = (entry.bytes, length(content));
                return Err(BundleError::WrongSize { path: path.clone(), expected, found });
            }
            if sha256_hex(content) != entry.sha256 {
                return Err(BundleError::WrongHash { path: path.clone() });
            }
        }
        let id = PolicyId::of_manifest(&manifest_bytes);
        Ok(Self { manifest, id, files, manifest_bytes })
    }

    /// The same bundle, if it is the one of this id.
    ///
    /// # Errors
    /// When it is another.
    pub fn expect_id(self, expected: &PolicyId) -> Result<Self, BundleError> {
        if self.id == *expected {
            return Ok(self);
        }
        Err(BundleError::WrongId { expected: expected.to_string(), found: self.id.to_string() })
    }

    /// The manifest's bytes, as hashed.
    #[must_use]
    pub fn manifest_bytes(&self) -> &[u8] {
        &self.manifest_bytes
    }

    /// Everything that belongs to the content, manifest included, in path order.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let mut all: BTreeMap<&str, &[u8]> =
            self.files.iter().map(|(path, content)| (path.as_str(), content.as_slice())).collect();
        all.insert(MANIFEST_FILE, &self.manifest_bytes);
        all.into_iter()
    }
}

/// Refuses whatever could leave the bundle's directory or trouble another system: only relative paths of plain names.
fn check_path(path: &str) -> Result<(), BundleError> {
    let plain_byte = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let plain_name = |name: &str| !name.is_empty() && !name.starts_with('.') && name.bytes().all(plain_byte);
    if path.len() <= MAX_PATH_BYTES && path.split('/').all(plain_name) {
        return Ok(());
    }
    Err(BundleError::BadPath { path: path.to_owned() })
}

fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn length(bytes: &[u8]) -> u64 {
    bytes.len() as u64
}
