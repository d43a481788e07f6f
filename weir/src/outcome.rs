//! The operator's outcome file: where it lies, who signed it, and what it says.

use std::path::{Path, PathBuf};

use weir_learners::Outcome;
use weir_policy_publisher::keys::{self, SigningKey};
use weir_policy_runtime::{Objective, PolicyId, Signature};

use crate::config::Config;
use crate::error::{Failure, Result};

/// What an outcome is worth, and where that comes from.
pub struct InForce {
    pub outcome: Outcome,
    /// The signed file, for a policy's lineage; none where it is two weights of the configuration.
    pub source: Option<Source>,
}

/// A signed file.
pub struct Source {
    /// `sha256:` and the digits of the file's hash.
    pub hash: String,
    /// The trusted key that signed it.
    pub signed_by: String,
}

impl Source {
    /// What a policy's lineage says of it.
    pub fn lineage(&self) -> [(String, String); 2] {
        [("outcome".to_owned(), self.hash.clone()), ("outcome_signed_by".to_owned(), self.signed_by.clone())]
    }
}

/// What the configuration says an outcome is worth: the signed file, or the two weights of `[objective]`.
///
/// # Errors
/// As [`read`].
pub fn of(config: &Config) -> Result<InForce> {
    match &config.objective.outcome {
        Some(path) => {
            let (outcome, source) = read(path, config)?;
            Ok(InForce { outcome, source: Some(source) })
        }
        None => {
            let outcome = Objective { quality: config.objective.quality, usd: config.objective.usd }.into();
            Ok(InForce { outcome, source: None })
        }
    }
}

/// Reads and verifies a file.
///
/// # Errors
/// When the file cannot be read, makes no sense, or no trusted key signed these bytes.
pub fn read(path: &Path, config: &Config) -> Result<(Outcome, Source)> {
    let bytes = file(path)?;
    let signature_path = signature_path(path);
    let refused = |why: String| {
        let place = path.display();
        Failure::user(format!(
            "the outcome file {place} is not to be trusted: {why}; sign it with `weir outcome sign {place} --key FILE`"
        ))
    };
    let signature = std::fs::read(&signature_path)
        .map_err(|error| refused(format!("there is no signature at {}: {error}", signature_path.display())))?;
    let signature = Signature::from_json(&signature).map_err(|error| refused(error.to_string()))?;
    let hash = PolicyId::of_manifest(&bytes);
    if signature.policy_id != hash {
        return Err(refused("it was changed after it was signed".to_owned()));
    }
    let trusted = keys::read_trusted(&config.policy.trusted_keys)?;
    let signed_by = trusted.verify_outcome(&bytes, &signature).map_err(|error| refused(error.to_string()))?;
    Ok((parsed(path, &bytes)?, Source { hash: hash.to_string(), signed_by }))
}

/// Signs a file that makes sense, and says where the signature lies.
///
/// # Errors
/// When the file cannot be read or makes no sense, or the signature cannot be written.
pub fn sign(path: &Path, key: &SigningKey) -> Result<(Outcome, PathBuf)> {
    let bytes = file(path)?;
    let outcome = parsed(path, &bytes)?;
    let signature_path = signature_path(path);
    std::fs::write(&signature_path, key.sign_outcome(&bytes).to_json())
        .map_err(|error| Failure::user(format!("cannot write {}: {error}", signature_path.display())))?;
    Ok((outcome, signature_path))
}

fn file(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path)
        .map_err(|error| Failure::user(format!("cannot read the outcome file {}: {error}", path.display())))
}

fn parsed(path: &Path, bytes: &[u8]) -> Result<Outcome> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| Failure::user(format!("the outcome file {} is no UTF-8 text", path.display())))?;
    Ok(Outcome::from_toml(text)?)
}

/// Beside the file, with `.sig` behind its name.
fn signature_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".sig");
    PathBuf::from(name)
}
