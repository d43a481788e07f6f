//! Who stands behind a policy: Ed25519 (RFC 8032) over the policy's id.
//!
//! The id is the hash of the manifest, and the manifest holds the hash of every file, so a signature over the id's
//! text covers every byte. What is signed is [`SIGNING_PREFIX`] and the id: the prefix keeps a signature made here
//! from meaning anything elsewhere, and one made elsewhere from meaning anything here.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use ed25519_dalek::VerifyingKey;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::bundle::{Bundle, PolicyId};
use crate::error::SignatureError;

/// Comes before the id in what is signed.
pub const SIGNING_PREFIX: &str = "weir policy bundle v1\n";

const ALGORITHM: &str = "ed25519";

/// Comes before the hash in what is signed for an operator's outcome file.
pub const OUTCOME_SIGNING_PREFIX: &str = "weir outcome v1\n";

/// The exact bytes that are signed for an outcome file: its hash is in the place of a policy's id.
#[must_use]
pub fn outcome_signing_message(file: &[u8]) -> Vec<u8> {
    format!("{OUTCOME_SIGNING_PREFIX}{}", PolicyId::of_manifest(file)).into_bytes()
}

/// The exact bytes that are signed for a policy.
#[must_use]
pub fn signing_message(id: &PolicyId) -> Vec<u8> {
    format!("{SIGNING_PREFIX}{id}").into_bytes()
}

/// An Ed25519 public key; as text `ed25519:` and 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Checks and wraps 32 bytes.
    ///
    /// # Errors
    /// When they are no point of the curve, or a weak one under which anybody can sign.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, SignatureError> {
        let bad = |why: &str| SignatureError::BadPublicKey { why: why.to_owned() };
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| bad("no point of the curve"))?;
        if key.is_weak() { Err(bad("a weak key")) } else { Ok(Self(key)) }
    }

    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// Short name of the key: the first 16 hexadecimal digits of the SHA-256 of its bytes.
    #[must_use]
    pub fn key_id(&self) -> String {
        hex::encode(&Sha256::digest(self.as_bytes())[..8])
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ALGORITHM}:{}", hex::encode(self.as_bytes()))
    }
}

impl FromStr for PublicKey {
    type Err = SignatureError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = |why: &str| SignatureError::BadPublicKey { why: why.to_owned() };
        let digits = text.trim().strip_prefix("ed25519:").ok_or_else(|| bad("it does not start with ed25519:"))?;
        let mut bytes = [0u8; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| bad("it has not 64 hexadecimal digits"))?;
        Self::from_bytes(&bytes)
    }
}

impl TryFrom<String> for PublicKey {
    type Error = SignatureError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

/// `signature.json`: lies beside a bundle's content, never inside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// `ed25519`.
    pub algorithm: String,
    /// Which key made it; see [`PublicKey::key_id`].
    pub key_id: String,
    /// Which policy it is for.
    pub policy_id: PolicyId,
    /// 64 bytes, as 128 hexadecimal digits.
    pub signature: String,
}

impl Signature {
    /// Wraps the 64 bytes that a signer made of [`signing_message`].
    #[must_use]
    pub fn new(policy_id: PolicyId, key: &PublicKey, signature: &[u8; 64]) -> Self {
        Self { algorithm: ALGORITHM.to_owned(), key_id: key.key_id(), policy_id, signature: hex::encode(signature) }
    }

    /// Parses `signature.json`.
    ///
    /// # Errors
    /// When it is not JSON of this shape.
    pub fn from_json(bytes: &[u8]) -> Result<Self, SignatureError> {
        serde_json::from_slice(bytes).map_err(|e| SignatureError::Malformed { why: e.to_string() })
    }

    /// Bytes of `signature.json`.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("four strings are always JSON");
        bytes.push(b'\n');
        bytes
    }

    /// Checks the signature against an id and one key, strictly (no malleable or small-order signatures).
    ///
    /// # Errors
    /// When it is for another policy, by another key, malformed, or wrong.
    pub fn check(&self, id: &PolicyId, key: &PublicKey) -> Result<(), SignatureError> {
        self.check_message(id, &signing_message(id), key)
    }

    fn check_message(&self, id: &PolicyId, message: &[u8], key: &PublicKey) -> Result<(), SignatureError> {
        if self.policy_id != *id {
            return Err(SignatureError::OtherPolicy { expected: id.to_string(), found: self.policy_id.to_string() });
        }
        if self.algorithm != ALGORITHM {
            return Err(SignatureError::Malformed { why: format!("algorithm {:?} is not known", self.algorithm) });
        }
        if self.key_id != key.key_id() {
            return Err(SignatureError::OtherKey { expected: key.key_id(), found: self.key_id.clone() });
        }
        let mut bytes = [0u8; 64];
        hex::decode_to_slice(&self.signature, &mut bytes)
            .map_err(|_| SignatureError::Malformed { why: "the signature has not 128 hexadecimal digits".into() })?;
        key.0
            .verify_strict(message, &ed25519_dalek::Signature::from_bytes(&bytes))
            .map_err(|_| SignatureError::Wrong { id: id.to_string() })
    }
}

/// Checks that `key` signed this bundle.
///
/// # Errors
/// As [`Signature::check`].
pub fn verify(bundle: &Bundle, signature: &Signature, key: &PublicKey) -> Result<(), SignatureError> {
    signature.check(&bundle.id, key)
}

/// The public keys whose signatures count, by key id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedKeys(BTreeMap<String, PublicKey>);

impl TrustedKeys {
    /// Checks that one of the keys signed the policy of this id; returns that key's id.
    ///
    /// # Errors
    /// When the signature's key is not among these, or as [`Signature::check`].
    pub fn verify(&self, id: &PolicyId, signature: &Signature) -> Result<String, SignatureError> {
        let key = self.key(id, signature)?;
        signature.check(id, key)?;
        Ok(key.key_id())
    }

    /// Checks that one of the keys signed this outcome file; returns that key's id.
    ///
    /// # Errors
    /// As [`verify`](Self::verify), with the file's hash for the id.
    pub fn verify_outcome(&self, file: &[u8], signature: &Signature) -> Result<String, SignatureError> {
        let id = PolicyId::of_manifest(file);
        let key = self.key(&id, signature)?;
        signature.check_message(&id, &outcome_signing_message(file), key)?;
        Ok(key.key_id())
    }

    fn key(&self, id: &PolicyId, signature: &Signature) -> Result<&PublicKey, SignatureError> {
        let unknown = || SignatureError::UnknownKey { id: id.to_string(), key_id: signature.key_id.clone() };
        self.0.get(&signature.key_id).ok_or_else(unknown)
    }

    /// The keys, by id.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &PublicKey)> {
        self.0.iter().map(|(id, key)| (id.as_str(), key))
    }

    /// Is there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<PublicKey> for TrustedKeys {
    fn from_iter<I: IntoIterator<Item = PublicKey>>(keys: I) -> Self {
        Self(keys.into_iter().map(|key| (key.key_id(), key)).collect())
    }
}

/// What a reader of policies insists on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// A valid signature by one of these keys.
    Signed(TrustedKeys),
    /// Nothing: for a policy that was built on the same machine a moment ago. Somebody has to write this down.
    AcceptUnsigned,
}

/// What is known of where a policy comes from, once [`Trust::check`] let it through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Signed by this trusted key.
    SignedBy(String),
    /// Not checked, by explicit choice.
    Unsigned,
}

impl Trust {
    /// Lets a policy through, or says why not.
    ///
    /// # Errors
    /// With [`Trust::Signed`], when there is no signature or it does not hold.
    pub fn check(&self, id: &PolicyId, signature: Option<&Signature>) -> Result<Standing, SignatureError> {
        match (self, signature) {
            (Self::AcceptUnsigned, _) => Ok(Standing::Unsigned),
            (Self::Signed(_), None) => Err(SignatureError::Unsigned { id: id.to_string() }),
            (Self::Signed(keys), Some(signature)) => keys.verify(id, signature).map(Standing::SignedBy),
        }
    }
}
