//! Signing keys and trusted keys, as files.
//!
//! A signing key is one line, `ed25519-secret:` and 64 hexadecimal digits, in a file that only its owner may read. Its
//! public half lies beside it with the ending `.pub`: `ed25519:` and 64 digits. Trusted keys are a folder of such
//! `.pub` files.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use ed25519_dalek::{Signer, SigningKey as Ed25519Key};
use rand::RngCore;
use weir_policy_runtime::{PolicyId, PublicKey, Signature, TrustedKeys, outcome_signing_message, signing_message};

use crate::{PublisherError, Result};

const SECRET_PREFIX: &str = "ed25519-secret:";

/// A private key that signs policies. Its secret is wiped from memory when it is dropped, and never printed.
pub struct SigningKey {
    secret: Ed25519Key,
    public: PublicKey,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("key_id", &self.public.key_id()).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// A new key from the system's random numbers.
    #[must_use]
    pub fn generate() -> Self {
        loop {
            let mut seed = [0u8; 32];
            rand::rng().fill_bytes(&mut seed);
            // A weak public key has a chance of about 2^-250; drawing again costs nothing.
            if let Ok(key) = Self::from_seed(&seed) {
                return key;
            }
        }
    }

    fn from_seed(seed: &[u8; 32]) -> Result<Self> {
        let secret = Ed25519Key::from_bytes(seed);
        let public = PublicKey::from_bytes(secret.verifying_key().as_bytes())?;
        Ok(Self { secret, public })
    }

    /// Writes the key to a new file with mode 0600 and its public half to `<file>.pub`; returns the latter's path.
    ///
    /// # Errors
    /// When either file exists or cannot be written: a key is never overwritten.
    pub fn write_new(&self, path: &Path) -> Result<PathBuf> {
        let public_path = public_path(path);
        if public_path.exists() {
            return Err(key_error(&public_path, "it already exists: choose another name, a key is never overwritten"));
        }
        write_secret(path, &format!("{SECRET_PREFIX}{}\n", hex::encode(self.secret.to_bytes())))?;
        fs::write(&public_path, format!("{}\n", self.public)).map_err(|e| key_error(&public_path, e))?;
        Ok(public_path)
    }

    /// Reads a key that [`SigningKey::write_new`] wrote.
    ///
    /// # Errors
    /// When the file cannot be read, is readable by others, or holds no key.
    pub fn read(path: &Path) -> Result<Self> {
        refuse_readable_by_others(path)?;
        let text = fs::read_to_string(path).map_err(|e| key_error(path, e))?;
        let mut seed = [0u8; 32];
        text.trim()
            .strip_prefix(SECRET_PREFIX)
            .and_then(|digits| hex::decode_to_slice(digits, &mut seed).ok())
            .ok_or_else(|| key_error(path, "it holds no signing key: make one with weir policy keygen"))?;
        Self::from_seed(&seed)
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs a policy.
    #[must_use]
    pub fn sign(&self, id: &PolicyId) -> Signature {
        let signature = self.secret.sign(&signing_message(id)).to_bytes();
        Signature::new(id.clone(), &self.public, &signature)
    }

    /// Signs an operator's outcome file.
    #[must_use]
    pub fn sign_outcome(&self, file: &[u8]) -> Signature {
        let signature = self.secret.sign(&outcome_signing_message(file)).to_bytes();
        Signature::new(PolicyId::of_manifest(file), &self.public, &signature)
    }
}

/// Reads every `*.pub` of a folder. A folder without any, or none at all, is nobody trusted: the safe state of a fresh
/// installation, in which nothing can be approved.
///
/// # Errors
/// When the folder is none or cannot be read, or a file in it cannot be read or holds no key.
pub fn read_trusted(folder: &Path) -> Result<TrustedKeys> {
    match fs::metadata(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(TrustedKeys::default()),
        Ok(found) if !found.is_dir() => {
            return Err(key_error(folder, "it is a file: name the folder that holds the *.pub files"));
        }
        _ => {}
    }
    let mut keys = Vec::new();
    for entry in fs::read_dir(folder).map_err(|e| key_error(folder, e))? {
        let path = entry.map_err(|e| key_error(folder, e))?.path();
        if path.extension().is_some_and(|extension| extension == "pub") {
            let text = fs::read_to_string(&path).map_err(|e| key_error(&path, e))?;
            keys.push(text.parse::<PublicKey>().map_err(|e| key_error(&path, e))?);
        }
    }
    Ok(keys.into_iter().collect())
}

fn public_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".pub");
    name.into()
}

fn write_secret(path: &Path, text: &str) -> Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(|e| match e.kind() {
        ErrorKind::AlreadyExists => {
            key_error(path, "it already exists: choose another name, a key is never overwritten")
        }
        _ => key_error(path, e),
    })?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|e| key_error(path, e))
}

#[cfg(unix)]
fn refuse_readable_by_others(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(path).map_err(|e| key_error(path, e))?.permissions().mode();
    if mode & 0o077 != 0 {
        let why = format!("others may read it (mode {:o}): run chmod 600 on it, and consider a new key", mode & 0o777);
        return Err(key_error(path, why));
    }
    Ok(())
}

#[cfg(not(unix))]
fn refuse_readable_by_others(_path: &Path) -> Result<()> {
    Ok(())
}

fn key_error(path: &Path, why: impl std::fmt::Display) -> PublisherError {
    PublisherError::Key { path: path.display().to_string(), why: why.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> PolicyId {
        PolicyId::of_manifest(b"{}")
    }

    #[test]
    fn a_key_written_and_read_signs_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("release.key");
        let key = SigningKey::generate();
        let public_path = key.write_new(&path).unwrap();
        let read = SigningKey::read(&path).unwrap();
        assert_eq!(read.sign(&id()), key.sign(&id())); // Ed25519 is deterministic (RFC 8032, section 5.1.6)
        assert_eq!(public_path, folder.path().join("release.key.pub"));
        let trusted = read_trusted(folder.path()).unwrap();
        assert_eq!(trusted.verify(&id(), &read.sign(&id())).unwrap(), key.public().key_id());
    }

    #[test]
    fn keys_differ_and_are_never_printed() {
        let (a, b) = (SigningKey::generate(), SigningKey::generate());
        assert_ne!(a.public(), b.public());
        let shown = format!("{a:?}");
        assert!(shown.contains(&a.public().key_id()) && !shown.contains(&hex::encode(a.secret.to_bytes())));
    }

    #[cfg(unix)]
    #[test]
    fn a_key_file_is_private_and_one_that_is_not_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k");
        SigningKey::generate().write_new(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = SigningKey::read(&path).unwrap_err().to_string();
        assert!(error.contains("others may read it (mode 644)"), "{error}");
    }

    #[test]
    fn a_key_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k");
        let key = SigningKey::generate();
        key.write_new(&path).unwrap();
        let before = fs::read(&path).unwrap();
        assert!(SigningKey::generate().write_new(&path).is_err());
        fs::remove_file(public_path(&path)).unwrap();
        assert!(SigningKey::generate().write_new(&path).is_err());
        assert_eq!(fs::read(&path).unwrap(), before);
    }

    #[test]
    fn an_empty_folder_and_an_absent_one_trust_nobody() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read_trusted(folder.path()).unwrap().is_empty());
        assert!(read_trusted(&folder.path().join("absent")).unwrap().is_empty());
    }

    #[test]
    fn a_broken_key_and_a_file_in_the_folders_place_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("x.pub");
        fs::write(&key, "ed25519:00").unwrap();
        assert!(read_trusted(folder.path()).is_err());
        let error = read_trusted(&key).unwrap_err().to_string();
        assert!(error.contains("it is a file: name the folder"), "{error}");
    }
}
