//! What can go wrong, one enum per step: reading a bundle, checking who signed it, scoring it.

use crate::bundle::{MANIFEST_SCHEMA, MAX_BUNDLE_BYTES, MAX_FILES, MAX_MANIFEST_BYTES, MAX_PATH_BYTES};

/// A bundle could not be built, read or written. None of these is mended by a retry except [`BundleError::Io`].
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// No manifest: not a bundle at all.
    #[error("{place} holds no manifest.json, so it is not a policy bundle: give the bundle's own directory or tar")]
    NoManifest {
        /// Directory or archive that was read.
        place: String,
    },
    /// The manifest is there but is not one.
    #[error("manifest.json cannot be read ({why}): fetch the bundle again or rebuild it")]
    BadManifest {
        /// What the parser said.
        why: String,
    },
    /// Written by a newer Weir.
    #[error("manifest.json has schema {found} but this build reads up to {MANIFEST_SCHEMA}: upgrade weir")]
    NewerSchema {
        /// Schema number in the manifest.
        found: u32,
    },
    /// A table for a knob cannot be used.
    #[error("{path} is not a table for a knob: {why}; ask whoever made the bundle for another")]
    BadKnobTable {
        /// Its path in the bundle.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// `cascade.json` cannot be used.
    #[error("cascade.json is not usable ({why}): ask whoever made the bundle for another")]
    BadCascade {
        /// What is wrong with it.
        why: String,
    },
    /// A file that the manifest lists is absent.
    #[error("bundle is incomplete: {path} is listed in manifest.json but missing; fetch the bundle again")]
    MissingFile {
        /// Path inside the bundle.
        path: String,
    },
    /// A file is there that the manifest does not list.
    #[error("bundle holds {path}, which manifest.json does not list: remove it, or rebuild the bundle with it")]
    ExtraFile {
        /// Path inside the bundle.
        path: String,
    },
    /// A file is listed twice in an archive.
    #[error("bundle archive holds {path} twice: fetch the bundle again")]
    DuplicateFile {
        /// Path inside the bundle.
        path: String,
    },
    /// A file has another length than the manifest says.
    #[error("{path} is truncated or padded: {found} bytes where manifest.json says {expected}; fetch the bundle again")]
    WrongSize {
        /// Path inside the bundle.
        path: String,
        /// Bytes according to the manifest.
        expected: u64,
        /// Bytes found.
        found: u64,
    },
    /// A file has the right length but other content.
    #[error("{path} was changed: its SHA-256 is not the one in manifest.json; fetch the bundle again")]
    WrongHash {
        /// Path inside the bundle.
        path: String,
    },
    /// The whole is not the bundle that was asked for.
    #[error("this bundle is {found}, not {expected}: fetch it again by its id")]
    WrongId {
        /// Id asked for.
        expected: String,
        /// Id of what was read.
        found: String,
    },
    /// A path could leave the bundle's directory, or is not portable.
    #[error(
        "bundle path {path:?} is refused: use relative names of letters, digits, '.', '_' and '-', at most {MAX_PATH_BYTES} bytes"
    )]
    BadPath {
        /// The offending path.
        path: String,
    },
    /// Links, devices and the like have no place in a bundle.
    #[error("bundle entry {path:?} is not a plain file: a bundle holds plain files only")]
    NotAFile {
        /// The offending path.
        path: String,
    },
    /// Too many bytes.
    #[error("bundle has more than {MAX_BUNDLE_BYTES} bytes: shrink its weights or reports")]
    TooLarge,
    /// Too large a manifest.
    #[error("manifest.json has more than {MAX_MANIFEST_BYTES} bytes: move metrics into report.json")]
    ManifestTooLarge,
    /// Too many files.
    #[error("bundle has more than {MAX_FILES} files: merge some of them")]
    TooManyFiles,
    /// The archive ends early or is not a tar.
    #[error("bundle archive is truncated or not a tar ({why}): fetch it again")]
    BadArchive {
        /// What the reader said.
        why: String,
    },
    /// Never overwrites.
    #[error("{place} already exists: choose a new directory, a bundle is never overwritten")]
    Exists {
        /// The directory.
        place: String,
    },
    /// Not `sha256:` and 64 hex digits.
    #[error("{text:?} is not a policy id: write sha256: followed by 64 hexadecimal digits")]
    BadId {
        /// What was given.
        text: String,
    },
    /// The file system said no.
    #[error("cannot access {place}: {source}")]
    Io {
        /// File or directory.
        place: String,
        /// The system's error.
        source: std::io::Error,
    },
}

/// A signature could not be trusted. A retry never helps.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// There is none, and the caller asked for one.
    #[error(
        "policy {id} has no signature.json: export it with its signature (weir policy export), or propose it again signed"
    )]
    Unsigned {
        /// Policy that has no signature.
        id: String,
    },
    /// Signed by a stranger.
    #[error("policy {id} is signed by key {key_id}, which is not trusted here: add its public key to the trusted keys")]
    UnknownKey {
        /// Policy that was checked.
        id: String,
        /// Key named by the signature.
        key_id: String,
    },
    /// The signature names another key than the one that it is checked against.
    #[error("signature is by key {found}, not by {expected}: check with the key that made it")]
    OtherKey {
        /// Key that was to be used.
        expected: String,
        /// Key named by the signature.
        found: String,
    },
    /// The signature is for another policy.
    #[error("signature is for policy {found}, not for {expected}: fetch the signature that belongs to this policy")]
    OtherPolicy {
        /// Policy that was checked.
        expected: String,
        /// Policy named by the signature.
        found: String,
    },
    /// The arithmetic says no.
    #[error("signature of policy {id} is wrong: do not use this policy, fetch bundle and signature again")]
    Wrong {
        /// Policy that was checked.
        id: String,
    },
    /// Not a signature at all.
    #[error("signature.json cannot be read ({why}): fetch it again")]
    Malformed {
        /// What is wrong with it.
        why: String,
    },
    /// Not a public key.
    #[error("not a public key ({why}): write ed25519: followed by 64 hexadecimal digits")]
    BadPublicKey {
        /// What is wrong with it.
        why: String,
    },
}

/// A bundle is whole but cannot be scored, or a decision was asked for that nobody can make.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// A bundle of another kind.
    #[error("bundle is of kind {found:?}, not {expected:?}: this command scores routing policies")]
    Kind {
        /// Kind that can be scored.
        expected: &'static str,
        /// Kind in the manifest.
        found: String,
    },
    /// policy.json, weights.safetensors or posterior.safetensors is absent.
    #[error("bundle has no {path}: rebuild it with weir learn")]
    Missing {
        /// Path inside the bundle.
        path: &'static str,
    },
    /// policy.json does not parse or holds an illegal value.
    #[error("policy.json is not usable ({why}): rebuild the bundle")]
    Spec {
        /// What is wrong with it.
        why: String,
    },
    /// weights.safetensors does not parse or does not fit policy.json.
    #[error("weights.safetensors is not usable ({why}): rebuild the bundle")]
    Weights {
        /// What is wrong with it.
        why: String,
    },
    /// posterior.safetensors does not parse or does not fit the network.
    #[error("posterior.safetensors is not usable ({why}): rebuild the bundle")]
    Posterior {
        /// What is wrong with it.
        why: String,
    },
    /// The mask of allowed actions has another length than the list of actions.
    #[error("{found} allowed flags for {expected} actions: give one flag per action of the policy, in its order")]
    AllowedLength {
        /// Number of actions.
        expected: usize,
        /// Number of flags.
        found: usize,
    },
    /// Nothing to choose from.
    #[error("no action is allowed: let at least one model of the policy through the filters")]
    NothingAllowed,
    /// Another trade-off was asked of scores that hold one.
    #[error(
        "this policy's scores hold the worth of a dollar that it was learned with: leave the request's own weight out"
    )]
    FixedObjective,
    /// The draw is not a uniform one.
    #[error("draw {0} is not in [0, 1): pass a uniform random number or sticky_uniform")]
    Draw(f64),
}
