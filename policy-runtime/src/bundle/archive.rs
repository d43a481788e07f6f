//! A bundle as a tar: the same bundle always gives the same bytes (sorted paths, no times, no owners).

use std::collections::BTreeMap;
use std::io::Read;

use super::{Bundle, MANIFEST_FILE, MAX_BUNDLE_BYTES, MAX_FILES, SIGNATURE_FILE, check_path};
use crate::error::{BundleError, SignatureError};
use crate::signature::Signature;

impl Bundle {
    /// The content as a tar, without a signature: it travels beside.
    #[must_use]
    pub fn to_tar(&self) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, content) in self.entries() {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            header.set_mtime(0);
            header.set_uid(0);
            header.set_gid(0);
            builder.append_data(&mut header, path, content).expect("checked paths and memory take any entry");
        }
        builder.into_inner().expect("memory takes the end of the archive")
    }

    /// Reads a tar of a bundle. A `signature.json` in it is not looked at (see [`Bundle::signature_in_tar`]); folders and
    /// a leading `./` are fine.
    ///
    /// # Errors
    /// When the archive is truncated, holds anything but plain files and folders, holds a path twice or one that is
    /// refused, passes a limit, or as [`Bundle::from_files`].
    pub fn from_tar(bytes: &[u8]) -> Result<Self, BundleError> {
        let mut files = read_entries(bytes)?;
        files.remove(SIGNATURE_FILE);
        let manifest = files.remove(MANIFEST_FILE);
        let manifest = manifest.ok_or_else(|| BundleError::NoManifest { place: "the archive".to_owned() })?;
        Self::from_files(manifest, files)
    }

    /// The `signature.json` in a tar of a bundle, if there is one: `tar` of an exported folder packs it with the content.
    ///
    /// # Errors
    /// When the archive or the signature cannot be read.
    pub fn signature_in_tar(bytes: &[u8]) -> Result<Option<Signature>, SignatureError> {
        let mut files = read_entries(bytes).map_err(|e| SignatureError::Malformed { why: e.to_string() })?;
        files.remove(SIGNATURE_FILE).map(|bytes| Signature::from_json(&bytes)).transpose()
    }
}

fn read_entries(bytes: &[u8]) -> Result<BTreeMap<String, Vec<u8>>, BundleError> {
    let bad = |e: std::io::Error| BundleError::BadArchive { why: e.to_string() };
    let mut files = BTreeMap::new();
    let mut total = 0u64;
    for entry in tar::Archive::new(bytes).entries().map_err(bad)? {
        let mut entry = entry.map_err(bad)?;
        let raw = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let path = raw.strip_prefix("./").unwrap_or(&raw).to_owned();
        if entry.header().entry_type().is_dir() {
            continue;
        }
        if !entry.header().entry_type().is_file() {
            return Err(BundleError::NotAFile { path });
        }
        check_path(&path)?;
        total = total.saturating_add(entry.size());
        if total > MAX_BUNDLE_BYTES {
            return Err(BundleError::TooLarge);
        }
        if files.len() >= MAX_FILES + 2 {
            return Err(BundleError::TooManyFiles);
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content).map_err(bad)?;
        if (content.len() as u64) < entry.size() {
            return Err(BundleError::BadArchive { why: format!("{path} ends early") });
        }
        if files.insert(path.clone(), content).is_some() {
            return Err(BundleError::DuplicateFile { path });
        }
    }
    Ok(files)
}
