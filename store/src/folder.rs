//! A folder of this machine as an object store that outlives a power cut.
//!
//! The library's own folder store leaves bytes and names to the operating system, which writes them when it sees fit: after a
//! power cut an entry of the log can be there while the rows that it names are not, or be there and be empty. Here an
//! object has its bytes and its name on the disk before its writer is told that it is written; an object that is only
//! created if it is not there is whole before it has its name.
//!
//! And a log is listed as it was at one moment. The operating system lists a folder while others write into it, in an order
//! of its own: of two entries that come meanwhile it may show the second and not the first, which reads as a log with an
//! entry missing.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Result as IoResult, Write};
use std::ops::Range;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use tokio::runtime::Handle;

/// The folder store of the library, with writes that are on the disk when they are done.
#[derive(Debug)]
pub(crate) struct Folder(Arc<LocalFileSystem>);

/// The folder of a table's log; its entries are made in the order of their names.
const LOG: &str = "_delta_log";

impl Folder {
    pub(crate) fn new() -> Self {
        Self(Arc::new(LocalFileSystem::new()))
    }

    /// Lists a folder; if it is a log, without entries before which others are missing.
    fn listed(&self, prefix: Option<&Path>, offset: Option<&Path>) -> Listing {
        if prefix.and_then(Path::filename) != Some(LOG) {
            return listing(&self.0, prefix, offset);
        }
        let (inner, prefix, offset) = (self.0.clone(), prefix.cloned(), offset.cloned());
        let twice = async move {
            let first: Vec<ObjectMeta> = listing(&inner, prefix.as_ref(), offset.as_ref()).try_collect().await?;
            let last = first.iter().filter_map(entry_name).max().map(str::to_owned);
            // All entries up to that one were there before this listing began, so that it holds them.
            let second: Vec<ObjectMeta> = listing(&inner, prefix.as_ref(), offset.as_ref()).try_collect().await?;
            let is_settled =
                move |found: &ObjectMeta| entry_name(found).is_none_or(|name| Some(name) <= last.as_deref());
            Ok::<_, Error>(stream::iter(second.into_iter().filter(is_settled).map(Ok)))
        };
        stream::once(twice).try_flatten().boxed()
    }
}

type Listing = BoxStream<'static, Result<ObjectMeta>>;

fn listing(inner: &LocalFileSystem, prefix: Option<&Path>, offset: Option<&Path>) -> Listing {
    match offset {
        Some(offset) => inner.list_with_offset(prefix, offset),
        None => inner.list(prefix),
    }
}

/// The name of a file that belongs to a version; others are hints.
fn entry_name(found: &ObjectMeta) -> Option<&str> {
    found.location.filename().filter(|name| name.starts_with(|first: char| first.is_ascii_digit()))
}

impl std::fmt::Display for Folder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Folder {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let create = match options.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            // The library says that it cannot do this.
            PutMode::Update(_) => return self.0.put_opts(location, payload, options).await,
        };
        let path = self.0.path_to_filesystem(location)?;
        blocking(move || {
            write_whole(&path, &payload, create).map_err(|error| failed(&path, error))?;
            Ok(PutResult { e_tag: None, version: None })
        })
        .await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let path = self.0.path_to_filesystem(location)?;
        let made = path.clone();
        blocking(move || make_folder_of(&made).map_err(|error| failed(&made, error))).await?;
        let inner = self.0.put_multipart_opts(location, options).await?;
        Ok(Box::new(Upload { inner, path }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.0.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.0.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> Listing {
        self.listed(prefix, None)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> Listing {
        self.listed(prefix, Some(offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await?;
        let path = self.0.path_to_filesystem(to)?;
        blocking(move || sync(&path).map_err(|error| failed(&path, error))).await
    }
}

/// Written in parts to a file of another name, which gets its own when it is complete.
#[derive(Debug)]
struct Upload {
    inner: Box<dyn MultipartUpload>,
    path: PathBuf,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let put = self.inner.complete().await?;
        let path = self.path.clone();
        blocking(move || sync(&path).map_err(|error| failed(&path, error))).await?;
        Ok(put)
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

/// Written and synced beside its place, then named.
fn write_whole(path: &FsPath, payload: &PutPayload, create: bool) -> IoResult<()> {
    make_folder_of(path)?;
    let draft = draft_of(path);
    let written = OpenOptions::new().write(true).create_new(true).open(&draft).and_then(|mut file| {
        payload.iter().try_for_each(|bytes| file.write_all(bytes))?;
        file.sync_all()
    });
    let named =
        written.and_then(|()| if create { std::fs::hard_link(&draft, path) } else { std::fs::rename(&draft, path) });
    if create || named.is_err() {
        // What stays is hidden, and goes with `remove_drafts`.
        std::fs::remove_file(&draft).ok();
    }
    named.and_then(|()| sync_folder_of(path))
}

/// The name that the library hides from listings: a number behind a `#`.
fn draft_of(path: &FsPath) -> PathBuf {
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!("#{}", rand::random::<u64>()));
    draft.into()
}

fn is_draft(path: &FsPath) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.rsplit_once('#')
        .is_some_and(|(_, number)| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Removes what writers that died left half-written below a folder, if it is older than `age`: listings do not show it.
/// Returns how many files and bytes.
pub(crate) async fn remove_drafts(folder: PathBuf, age: Duration) -> IoResult<(u64, u64)> {
    let removed = tokio::task::spawn_blocking(move || {
        let before = SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
        let (mut files, mut bytes) = (0, 0);
        let mut folders = vec![folder];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder)? {
                let entry = entry?;
                // A file may go while we look at it: its writer is done, or another vacuum was quicker.
                let Ok(meta) = entry.metadata() else { continue };
                if meta.is_dir() {
                    folders.push(entry.path());
                } else if is_draft(&entry.path())
                    && meta.modified()? < before
                    && std::fs::remove_file(entry.path()).is_ok()
                {
                    files += 1;
                    bytes += meta.len();
                }
            }
        }
        Ok((files, bytes))
    });
    removed.await.map_err(std::io::Error::other)?
}

/// Makes the folder of a file, and those above it, so that each is in the one above when this returns.
fn make_folder_of(path: &FsPath) -> IoResult<()> {
    let Some(folder) = path.parent() else { return Ok(()) };
    if folder.is_dir() {
        return Ok(());
    }
    make_folder_of(folder)?;
    match std::fs::create_dir(folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        // Whoever made it may not have come to this yet.
        _ => sync_folder_of(folder),
    }
}

fn sync(path: &FsPath) -> IoResult<()> {
    File::open(path)?.sync_all()?;
    sync_folder_of(path)
}

/// Some file systems cannot sync a folder, and say so; theirs is as safe as it gets.
pub(crate) fn sync_folder_of(path: &FsPath) -> IoResult<()> {
    let Some(folder) = path.parent() else { return Ok(()) };
    match File::open(folder)?.sync_all() {
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
        synced => synced,
    }
}

fn failed(path: &FsPath, error: std::io::Error) -> Error {
    match error.kind() {
        ErrorKind::AlreadyExists => Error::AlreadyExists { path: path.display().to_string(), source: Box::new(error) },
        _ => Error::Generic { store: "LocalFileSystem", source: Box::new(error) },
    }
}

/// On a thread that may wait; where no runtime is, here.
async fn blocking<T: Send + 'static>(run: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match Handle::try_current() {
        Ok(runtime) => runtime.spawn_blocking(run).await?,
        Err(_) => run(),
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;

    use super::*;

    fn at(folder: &FsPath, name: &str) -> Path {
        Path::from_absolute_path(folder.join(name)).unwrap()
    }

    #[tokio::test]
    async fn objects_are_created_once_overwritten_when_asked_and_leave_no_drafts() {
        let folder = tempfile::tempdir().unwrap();
        let (store, place) = (Folder::new(), at(folder.path(), "a/b/entry.json"));
        let create = || PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        store.put_opts(&place, "first".into(), create()).await.unwrap();
        let second = store.put_opts(&place, "second".into(), create()).await;
        assert!(matches!(second, Err(Error::AlreadyExists { .. })), "{second:?}");
        assert_eq!(store.get(&place).await.unwrap().bytes().await.unwrap(), "first");
        store.put(&place, "third".into()).await.unwrap();
        assert_eq!(store.get(&place).await.unwrap().bytes().await.unwrap(), "third");
        let names: Vec<_> = std::fs::read_dir(folder.path().join("a/b")).unwrap().collect();
        assert_eq!(names.len(), 1, "{names:?}");
    }

    /// Two thousand files make a folder large enough for its order to matter.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_log_that_grows_while_it_is_listed_has_no_gaps() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join(LOG);
        std::fs::create_dir(&log).unwrap();
        std::fs::write(log.join("_last_checkpoint"), "a hint").unwrap();
        let write = {
            let log = log.clone();
            move |versions: Range<u32>| {
                versions.for_each(|version| std::fs::write(log.join(format!("{version:020}.json")), "").unwrap());
            }
        };
        write(0..1_000);
        let writer = std::thread::spawn(move || write(1_000..4_000));
        let (store, prefix) = (Folder::new(), at(folder.path(), LOG));
        let mut done = false;
        while !done {
            done = writer.is_finished();
            let found: Vec<_> = store.list(Some(&prefix)).try_collect().await.unwrap();
            let mut versions: Vec<u32> =
                found.iter().filter_map(entry_name).map(|name| name[..20].parse().unwrap()).collect();
            versions.sort_unstable();
            assert_eq!(versions.len() + 1, found.len(), "the hint is listed too");
            let last = *versions.last().unwrap();
            assert_eq!(versions, (0..=last).collect::<Vec<_>>(), "up to {last}");
        }
    }

    #[tokio::test]
    async fn what_died_half_written_goes_when_it_is_old() {
        let folder = tempfile::tempdir().unwrap();
        let store = Folder::new();
        let mut upload = store.put_multipart(&at(folder.path(), "day/rows.parquet")).await.unwrap();
        upload.put_part("half".into()).await.unwrap();
        std::fs::write(folder.path().join("day/other#file"), "no draft").unwrap();
        // A killed process drops nothing.
        std::mem::forget(upload);
        let day = Duration::from_secs(86_400);
        assert_eq!(remove_drafts(folder.path().to_owned(), day).await.unwrap(), (0, 0));
        assert_eq!(remove_drafts(folder.path().to_owned(), Duration::ZERO).await.unwrap(), (1, 4));
        assert!(folder.path().join("day/other#file").exists());
    }

    #[tokio::test]
    async fn an_upload_is_there_when_it_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let (store, place) = (Folder::new(), at(folder.path(), "day/rows.parquet"));
        let mut upload = store.put_multipart(&place).await.unwrap();
        upload.put_part("rows".into()).await.unwrap();
        assert!(matches!(store.get(&place).await, Err(Error::NotFound { .. })));
        upload.complete().await.unwrap();
        assert_eq!(store.get(&place).await.unwrap().bytes().await.unwrap(), "rows");
    }
}
