//! An object store that misbehaves on demand where it matters: when a log entry is put.

use std::fmt;
use std::sync::{Arc, Mutex};

use deltalake::{ObjectMeta, ObjectStore, ObjectStoreError, Path};
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result,
};

/// What happens to the next put of a log entry.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// The entry lands, the caller sees an error.
    LandsButFails,
    /// The entry lands, the caller is told that it already exists, as after a retry below us.
    LandsButExists,
    /// The entry does not land, the caller sees an error.
    Fails,
}

/// In-memory store with a queue of faults for puts into `_delta_log`, and a switch that fails everything.
#[derive(Debug, Default)]
pub struct Faulty {
    inner: InMemory,
    pub faults: Mutex<Vec<Fault>>,
    pub dead: Arc<std::sync::atomic::AtomicBool>,
}

impl Faulty {
    fn alive(&self) -> Result<()> {
        if self.dead.load(std::sync::atomic::Ordering::SeqCst) { Err(timed_out()) } else { Ok(()) }
    }
}

fn timed_out() -> ObjectStoreError {
    ObjectStoreError::Generic { store: "faulty", source: "timed out".into() }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.alive()?;
        let log_entry = location.as_ref().contains("_delta_log") && location.as_ref().ends_with(".json");
        let fault = if log_entry { self.faults.lock().unwrap().pop() } else { None };
        match fault {
            None => self.inner.put_opts(location, payload, options).await,
            Some(Fault::Fails) => Err(timed_out()),
            Some(Fault::LandsButFails) => {
                self.inner.put_opts(location, payload, options).await?;
                Err(timed_out())
            }
            Some(Fault::LandsButExists) => {
                self.inner.put_opts(location, payload, options).await?;
                Err(ObjectStoreError::AlreadyExists { path: location.to_string(), source: "retried".into() })
            }
        }
    }

    async fn put_multipart_opts(&self, location: &Path, o: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.alive()?;
        self.inner.put_multipart_opts(location, o).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.alive()?;
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        if let Err(error) = self.alive() {
            return Box::pin(futures::stream::once(async { Err(error) }));
        }
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.alive()?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
