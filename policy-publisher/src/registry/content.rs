//! Bundles in the store: `policies/<id>/<file>`, written once.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use weir_policy_runtime::{
    Bundle, BundleError, MANIFEST_FILE, MAX_TAR_BYTES, Manifest, PolicyId, SIGNATURE_FILE, Signature, Trust,
};
use weir_store::{PutNew, Store};

use crate::views::Verification;
use crate::{PublisherError, Result};

fn folder(id: &PolicyId) -> String {
    format!("policies/{}", id.hex())
}

/// Stores a bundle, the manifest last: until it is there, nothing is. Storing the same bundle again is fine.
pub(super) async fn put(store: &Store, bundle: &Bundle, signature: Option<&Signature>) -> Result<()> {
    let folder = folder(&bundle.id);
    for (path, content) in &bundle.files {
        put_same(store, &format!("{folder}/{path}"), content).await?;
    }
    if let Some(signature) = signature {
        put_signature(store, &bundle.id, signature).await?;
    }
    put_same(store, &format!("{folder}/{MANIFEST_FILE}"), bundle.manifest_bytes()).await
}

async fn put_same(store: &Store, path: &str, content: &[u8]) -> Result<()> {
    if store.put_new(path, Bytes::copy_from_slice(content)).await? == PutNew::Created {
        return Ok(());
    }
    match store.get(path).await? {
        Some(there) if there == content => Ok(()),
        _ => Err(PublisherError::OtherContent { path: path.to_owned() }),
    }
}

async fn put_signature(store: &Store, id: &PolicyId, signature: &Signature) -> Result<()> {
    let path = format!("{}/{SIGNATURE_FILE}", folder(id));
    if store.put_new(&path, signature.to_json().into()).await? == PutNew::Created {
        return Ok(());
    }
    match get_signature(store, id).await? {
        Some(there) if there == *signature => Ok(()),
        Some(there) => Err(PublisherError::SignedByAnother { id: id.clone(), key_id: there.key_id }),
        None => Err(PublisherError::OtherContent { path }),
    }
}

async fn get_signature(store: &Store, id: &PolicyId) -> Result<Option<Signature>> {
    let bytes = store.get(&format!("{}/{SIGNATURE_FILE}", folder(id))).await?;
    Ok(bytes.map(|bytes| Signature::from_json(&bytes)).transpose()?)
}

/// Reads a bundle and its signature, and checks every path, size and hash, and that it is the one asked for.
pub(super) async fn get(store: &Store, id: &PolicyId) -> Result<(Bundle, Option<Signature>)> {
    let folder = folder(id);
    let manifest_bytes = store.get(&format!("{folder}/{MANIFEST_FILE}")).await?;
    let manifest_bytes = manifest_bytes.ok_or_else(|| PublisherError::Unknown { text: id.to_string() })?;
    let manifest = Manifest::from_json(&manifest_bytes)?;
    let inside = |path: &str| path.strip_prefix(&folder).map(|rest| rest.trim_start_matches('/').to_owned());
    for path in store.list(&folder).await?.iter().filter_map(|path| inside(path)) {
        if path != MANIFEST_FILE && path != SIGNATURE_FILE && !manifest.files.contains_key(&path) {
            return Err(BundleError::ExtraFile { path }.into());
        }
    }
    let mut files = BTreeMap::new();
    for path in manifest.files.keys() {
        if let Some(content) = store.get(&format!("{folder}/{path}")).await? {
            files.insert(path.clone(), content.to_vec());
        }
    }
    let bundle = Bundle::from_files(manifest_bytes.to_vec(), files)?.expect_id(id)?;
    Ok((bundle, get_signature(store, id).await?))
}

/// Checks a bundle and the signature that lies with it; see [`read_path`].
///
/// # Errors
/// When it is not whole, or not signed as `trust` wants it.
pub fn verify_path(path: &Path, trust: &Trust) -> Result<Verification> {
    let (bundle, signature) = read_path(path)?;
    let standing = trust.check(&bundle.id, signature.as_ref())?;
    Ok(Verification::new(&bundle, standing))
}

/// Reads a bundle from a folder, or from a tar file of one; its signature is the `signature.json` in it.
///
/// # Errors
/// When there is none, it is not whole, or the signature cannot be read.
pub fn read_path(path: &Path) -> Result<(Bundle, Option<Signature>)> {
    if !path.is_file() {
        return Ok((Bundle::read_dir(path)?, Bundle::read_signature(path)?));
    }
    let size = std::fs::metadata(path).map_err(|source| io_error(path, source))?.len();
    if size > MAX_TAR_BYTES {
        return Err(BundleError::TooLarge.into());
    }
    let bytes = std::fs::read(path).map_err(|source| io_error(path, source))?;
    Ok((Bundle::from_tar(&bytes)?, Bundle::signature_in_tar(&bytes)?))
}

fn io_error(path: &Path, source: std::io::Error) -> BundleError {
    BundleError::Io { place: path.display().to_string(), source }
}
