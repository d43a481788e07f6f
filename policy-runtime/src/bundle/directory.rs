//! A bundle as a directory.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::{Bundle, MANIFEST_FILE, MAX_FILES, MAX_MANIFEST_BYTES, Manifest, SIGNATURE_FILE};
use crate::error::{BundleError, SignatureError};
use crate::signature::Signature;

/// How deep a bundle's folders go at most; `knobs/x.json` is 2.
const MAX_DEPTH: usize = 8;

impl Bundle {
    /// Reads a bundle from its directory. `signature.json` may lie there and is not looked at; see
    /// [`Bundle::read_signature`].
    ///
    /// # Errors
    /// When a file is missing, extra, truncated, changed or not plain, or a limit is passed.
    pub fn read_dir(directory: &Path) -> Result<Self, BundleError> {
        let manifest_path = directory.join(MANIFEST_FILE);
        let no_manifest = || BundleError::NoManifest { place: directory.display().to_string() };
        let manifest_bytes = match read_at_most(&manifest_path, MAX_MANIFEST_BYTES)? {
            None => return Err(no_manifest()),
            Some(bytes) if bytes.len() as u64 > MAX_MANIFEST_BYTES => return Err(BundleError::ManifestTooLarge),
            Some(bytes) => bytes,
        };
        let manifest = Manifest::from_json(&manifest_bytes)?;
        refuse_extra_files(directory, &manifest)?;
        let mut files = BTreeMap::new();
        for (path, entry) in &manifest.files {
            let full = directory.join(path);
            if let Some(bytes) = read_at_most(&full, entry.bytes)? {
                let found = if bytes.len() as u64 > entry.bytes { size_of(&full)? } else { bytes.len() as u64 };
                if found != entry.bytes {
                    return Err(BundleError::WrongSize { path: path.clone(), expected: entry.bytes, found });
                }
                files.insert(path.clone(), bytes);
            }
        }
        Self::from_files(manifest_bytes, files)
    }

    /// Reads the `signature.json` beside a bundle's content, if there is one.
    ///
    /// # Errors
    /// When it is there but cannot be read.
    pub fn read_signature(directory: &Path) -> Result<Option<Signature>, SignatureError> {
        let malformed = |e: BundleError| SignatureError::Malformed { why: e.to_string() };
        let bytes = read_at_most(&directory.join(SIGNATURE_FILE), MAX_MANIFEST_BYTES).map_err(malformed)?;
        bytes.map(|bytes| Signature::from_json(&bytes)).transpose()
    }

    /// Writes the bundle, and its signature if there is one, to a directory that must not exist yet. The directory
    /// appears whole or not at all.
    ///
    /// # Errors
    /// When the directory exists or cannot be written.
    pub fn write_dir(&self, directory: &Path, signature: Option<&Signature>) -> Result<(), BundleError> {
        if directory.symlink_metadata().is_ok() {
            return Err(BundleError::Exists { place: directory.display().to_string() });
        }
        let partial = partial_name(directory);
        let written = self
            .write_files(&partial, signature)
            .and_then(|()| fs::rename(&partial, directory).map_err(|source| io_error(directory, source)));
        if written.is_err() {
            // Best effort: the error that matters is the one above.
            drop(fs::remove_dir_all(&partial));
        }
        written
    }

    fn write_files(&self, directory: &Path, signature: Option<&Signature>) -> Result<(), BundleError> {
        fs::create_dir_all(directory).map_err(|source| io_error(directory, source))?;
        let signature = signature.map(Signature::to_json);
        let beside = signature.as_deref().map(|bytes| (SIGNATURE_FILE, bytes));
        for (path, content) in self.entries().chain(beside) {
            let full = directory.join(path);
            if let Some(parent) = full.parent() {
                fs::create_dir_all(parent).map_err(|source| io_error(parent, source))?;
            }
            fs::write(&full, content).map_err(|source| io_error(&full, source))?;
        }
        Ok(())
    }
}

/// A sibling of the directory, so that the rename stays on one file system.
fn partial_name(directory: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(directory.file_name().unwrap_or_default());
    name.push(format!(".partial-{}", std::process::id()));
    directory.with_file_name(name)
}

/// Walks the directory, and stops at the first thing that should not be there.
fn refuse_extra_files(directory: &Path, manifest: &Manifest) -> Result<(), BundleError> {
    let mut pending = vec![(directory.to_owned(), String::new(), 0usize)];
    let mut seen = 0usize;
    while let Some((folder, prefix, depth)) = pending.pop() {
        for entry in fs::read_dir(&folder).map_err(|source| io_error(&folder, source))? {
            let entry = entry.map_err(|source| io_error(&folder, source))?;
            let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
            let kind = entry.file_type().map_err(|source| io_error(&entry.path(), source))?;
            if kind.is_dir() && depth < MAX_DEPTH {
                pending.push((entry.path(), format!("{path}/"), depth + 1));
                continue;
            }
            if !kind.is_file() {
                return Err(BundleError::NotAFile { path });
            }
            let known = path == MANIFEST_FILE || path == SIGNATURE_FILE || manifest.files.contains_key(&path);
            if !known {
                return Err(BundleError::ExtraFile { path });
            }
            seen += 1;
            if seen > MAX_FILES + 2 {
                return Err(BundleError::TooManyFiles);
            }
        }
    }
    Ok(())
}

/// The file's bytes, one more than `limit` at most, or none if there is no such file.
fn read_at_most(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, BundleError> {
    match fs::symlink_metadata(path) {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        Err(source) => return Err(io_error(path, source)),
        Ok(metadata) if !metadata.is_file() => {
            return Err(BundleError::NotAFile { path: path.display().to_string() });
        }
        Ok(_) => {}
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(|source| io_error(path, source))?;
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(|source| io_error(path, source))?;
    Ok(Some(bytes))
}

fn size_of(path: &Path) -> Result<u64, BundleError> {
    fs::metadata(path).map(|metadata| metadata.len()).map_err(|source| io_error(path, source))
}

fn io_error(place: &Path, source: std::io::Error) -> BundleError {
    BundleError::Io { place: place.display().to_string(), source }
}
