//! The operator's outcome file: where it lies, who signed it, and what it says.

use std::path::{Path, PathBuf};

use weir_learners::Outcome;
use weir_policy_publisher::keys::SigningKey;
use weir_policy_runtime::{Objective, PolicyId, Signature, Standing, Trust};

use crate::config::Config;
use crate::error::{Failure, Result};
use crate::services;

/// What an outcome is worth, and where that comes from.
pub struct InForce {
    pub outcome: Outcome,
    /// Hash of the file and who signed it, for a policy's lineage; none where it is two weights of the configuration.
    pub source: Option<Source>,
}

/// A signed file.
pub struct Source {
    /// `sha256:` and the digits of the file's hash.
    pub hash: String,
    /// The key that signed it.
    pub signed_by: String,
}

/// What the configuration says an outcome is worth: the signed file, or the two weights of `[objective]`.
///
/// # Errors
/// When the file cannot be read, makes no sense, or no trusted key signed it.
pub fn of(config: &Config) -> Result<InForce> {
    let Some(path) = &config.objective.outcome else {
        let outcome = Objective { quality: config.objective.quality, usd: config.objective.usd }.into();
        return Ok(InForce { outcome, source: None });
    };
    let (outcome, standing) = read(path, &services::trust(config)?)?;
    let hash = PolicyId::of_manifest(&file(path)?).to_string();
    let source = match standing {
        Standing::SignedBy(signed_by) => Some(Source { hash, signed_by }),
        Standing::Unsigned => None,
    };
    Ok(InForce { outcome, source })
}

/// Reads and verifies a file; says which key signed it.
pub fn read(path: &Path, trust: &Trust) -> Result<(Outcome, Standing)> {
    let bytes = file(path)?;
    let signature_path = signature_path(path);
    let mend = format!("sign it with `weir outcome sign {} --key FILE`", path.display());
    let standing = match trust {
        Trust::AcceptUnsigned => Standing::Unsigned,
        Trust::Signed(keys) => {
            let signature = std::fs::read(&signature_path).map_err(|error| {
                Failure::user(format!("there is no signature at {}: {error}; {mend}", signature_path.display()))
            })?;
            let signature = Signature::from_json(&signature).map_err(Failure::user)?;
            let by = keys.verify_outcome(&bytes, &signature).map_err(|error| {
                Failure::user(format!("the outcome file {} is not to be trusted: {error}; {mend}", path.display()))
            })?;
            Standing::SignedBy(by)
        }
    };
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| Failure::user(format!("the outcome file {} is no UTF-8 text", path.display())))?;
    Ok((Outcome::from_toml(text)?, standing))
}

/// Signs a file that makes sense, and says where the signature lies.
pub fn sign(path: &Path, key: &SigningKey) -> Result<(Outcome, PathBuf)> {
    let bytes = file(path)?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| Failure::user(format!("the outcome file {} is no UTF-8 text", path.display())))?;
    let outcome = Outcome::from_toml(text)?;
    let signature_path = signature_path(path);
    std::fs::write(&signature_path, key.sign_outcome(&bytes).to_json())
        .map_err(|error| Failure::user(format!("cannot write {}: {error}", signature_path.display())))?;
    Ok((outcome, signature_path))
}

fn file(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path)
        .map_err(|error| Failure::user(format!("cannot read the outcome file {}: {error}", path.display())))
}

/// Beside the file, with `.sig` behind its name.
fn signature_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".sig");
    PathBuf::from(name)
}
