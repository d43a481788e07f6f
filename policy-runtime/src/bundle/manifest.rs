//! `manifest.json`: what a bundle is, where it comes from, and what it is made of.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use super::{
    MANIFEST_FILE, MAX_BUNDLE_BYTES, MAX_FILES, MAX_MANIFEST_BYTES, SIGNATURE_FILE, check_path, length, sha256_hex,
};
use crate::error::BundleError;

/// Version of the manifest's shape that this build writes, and the newest that it reads.
pub const MANIFEST_SCHEMA: u32 = 1;

/// Kind of a bundle that chooses a model per request.
pub const ROUTING_POLICY_KIND: &str = "routing-policy";

/// Size and hash of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// Length, bytes.
    pub bytes: u64,
}

/// What a policy was made from: enough to make it again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lineage {
    /// Delta table name to the version that was read.
    pub tables: BTreeMap<String, i64>,
    /// Version of the code that trained it.
    pub code_version: String,
    /// Seed of every random choice in training.
    pub seed: u64,
    /// Files outside the tables, name to hash or version.
    pub data: BTreeMap<String, String>,
}

/// `manifest.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this shape: [`MANIFEST_SCHEMA`].
    pub schema: u32,
    /// What the bundle is for, e.g. [`ROUTING_POLICY_KIND`].
    pub kind: String,
    /// Name for people; not unique.
    pub name: String,
    /// When it was made, ms since the Unix epoch.
    pub created_ms: i64,
    /// What it was made from.
    pub lineage: Lineage,
    /// Figures of its report that listings show.
    pub metrics: Value,
    /// Every other file of the bundle.
    pub files: BTreeMap<String, FileEntry>,
}

impl Manifest {
    /// A manifest of a routing policy without files; [`super::Bundle::build`] fills them in.
    #[must_use]
    pub fn routing_policy(name: &str, created_ms: i64, lineage: Lineage, metrics: Value) -> Self {
        Self {
            schema: MANIFEST_SCHEMA,
            kind: ROUTING_POLICY_KIND.to_owned(),
            name: name.to_owned(),
            created_ms,
            lineage,
            metrics,
            files: BTreeMap::new(),
        }
    }

    /// Parses a manifest and checks its limits and paths, so that a reader knows before it reads a file what to expect.
    ///
    /// # Errors
    /// When it is too large, cannot be parsed, is of a newer schema, or lists what a bundle may not hold.
    pub fn from_json(bytes: &[u8]) -> Result<Self, BundleError> {
        #[derive(Deserialize)]
        struct SchemaOnly {
            schema: u32,
        }
        let bad = |e: serde_json::Error| BundleError::BadManifest { why: e.to_string() };
        if length(bytes) > MAX_MANIFEST_BYTES {
            return Err(BundleError::ManifestTooLarge);
        }
        let SchemaOnly { schema } = serde_json::from_slice(bytes).map_err(bad)?;
        if schema > MANIFEST_SCHEMA {
            return Err(BundleError::NewerSchema { found: schema });
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(bad)?;
        if manifest.files.len() > MAX_FILES {
            return Err(BundleError::TooManyFiles);
        }
        for path in manifest.files.keys() {
            check_path(path)?;
            if path == MANIFEST_FILE || path == SIGNATURE_FILE {
                return Err(BundleError::BadPath { path: path.clone() });
            }
        }
        let total = manifest.files.values().try_fold(length(bytes), |sum, file| sum.checked_add(file.bytes));
        if total.is_none_or(|bytes| bytes > MAX_BUNDLE_BYTES) {
            return Err(BundleError::TooLarge);
        }
        Ok(manifest)
    }

    pub(super) fn to_json(&self) -> Result<Vec<u8>, BundleError> {
        let value = serde_json::to_value(self).map_err(|e| BundleError::BadManifest { why: e.to_string() })?;
        Ok(canonical_json(&value))
    }
}

/// A policy's name for machines: `sha256:` and the hash of its manifest's bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PolicyId(String);

impl PolicyId {
    /// The id of a bundle with these manifest bytes.
    #[must_use]
    pub fn of_manifest(manifest_bytes: &[u8]) -> Self {
        Self(format!("sha256:{}", sha256_hex(manifest_bytes)))
    }

    /// The whole text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The 64 hexadecimal digits alone.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.0["sha256:".len()..]
    }

    /// The first 12 digits: for tables that people read.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }
}

impl fmt::Display for PolicyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for PolicyId {
    type Err = BundleError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        match text.strip_prefix("sha256:") {
            Some(digits) if digits.len() == 64 && digits.bytes().all(lower_hex) => Ok(Self(text.to_owned())),
            _ => Err(BundleError::BadId { text: text.to_owned() }),
        }
    }
}

impl TryFrom<String> for PolicyId {
    type Error = BundleError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<PolicyId> for String {
    fn from(id: PolicyId) -> Self {
        id.0
    }
}

/// JSON whose bytes depend on the value alone: keys sorted at every level, two spaces of indent, a final newline.
#[must_use]
pub fn canonical_json(value: &Value) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(&Sorted(value)).expect("a JSON value has string keys and finite numbers");
    bytes.push(b'\n');
    bytes
}

/// Sorts by itself: whether `serde_json`'s own map sorts depends on features that other crates switch on.
struct Sorted<'a>(&'a Value);

impl Serialize for Sorted<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Object(object) => {
                let sorted: BTreeMap<&String, &Value> = object.iter().collect();
                let mut map = serializer.serialize_map(Some(sorted.len()))?;
                for (key, value) in sorted {
                    map.serialize_entry(key, &Sorted(value))?;
                }
                map.end()
            }
            Value::Array(items) => {
                let mut sequence = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    sequence.serialize_element(&Sorted(item))?;
                }
                sequence.end()
            }
            scalar => scalar.serialize(serializer),
        }
    }
}
