//! An object store that misbehaves on demand where it matters: when a log entry is put.
#![allow(dead_code)] // each test file uses its part

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use deltalake::{ObjectMeta, ObjectStore, ObjectStoreError, Path};
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result,
};
use tokio::sync::oneshot;

/// What happens to the next put of a log entry.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// The entry lands, the caller sees an error.
    LandsButFails,
    /// The entry lands, the caller is told that it already exists, as after a retry below us.
    LandsButExists,
    /// The entry does not land, the caller sees an error.
    Fails,
    /// The caller sees an error, and the entry lands just before the next one is put.
    LandsLate,
    /// The caller is told that it already exists, and nobody sees the entry before the next one is put.
    ExistsLate,
    /// The caller sees an error, and from then on the store answers nothing.
    FailsAndDies,
    /// The entry lands, the caller is told that it already exists, and from then on the store answers nothing.
    ExistsAndDies,
}

/// One read of an object that will fail.
#[derive(Debug)]
struct ReadFault {
    /// How the object's path ends.
    ends_with: String,
    /// Reads of it that still succeed.
    reads_before: usize,
}

/// In-memory store with a queue of faults for puts into `_delta_log`, one for a read, and a switch that fails everything.
#[derive(Debug, Default)]
pub struct Faulty {
    inner: InMemory,
    pub faults: Mutex<Vec<Fault>>,
    pub dead: Arc<AtomicBool>,
    late: Mutex<Option<(Path, PutPayload)>>,
    read_fault: Mutex<Option<ReadFault>>,
    hold: Mutex<Option<(oneshot::Sender<()>, oneshot::Receiver<()>)>>,
    writes_left: Mutex<Option<usize>>,
}

impl Faulty {
    /// The next put of a log entry waits until the returned sender is used; the receiver says when it has come.
    pub fn hold_next_entry(&self) -> (oneshot::Sender<()>, oneshot::Receiver<()>) {
        let (come, has_come) = oneshot::channel();
        let (go_on, gone_on) = oneshot::channel();
        *self.hold.lock().unwrap() = Some((come, gone_on));
        (go_on, has_come)
    }

    /// After so many more puts the store answers nothing.
    pub fn die_after_writes(&self, writes: usize) {
        *self.writes_left.lock().unwrap() = Some(writes);
    }

    fn count_write(&self) -> Result<()> {
        let mut left = self.writes_left.lock().unwrap();
        match left.as_mut() {
            Some(0) => {
                *left = None;
                self.dead.store(true, Ordering::SeqCst);
                Err(timed_out())
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// The read of that object after so many others of it fails, once.
    pub fn fail_read(&self, ends_with: &str, reads_before: usize) {
        *self.read_fault.lock().unwrap() = Some(ReadFault { ends_with: ends_with.to_owned(), reads_before });
    }

    /// Has the read come that was to fail? Forgets it.
    pub fn read_has_failed(&self) -> bool {
        self.read_fault.lock().unwrap().take().is_none()
    }

    fn alive(&self) -> Result<()> {
        if self.dead.load(Ordering::SeqCst) { Err(timed_out()) } else { Ok(()) }
    }

    fn readable(&self, location: &Path) -> Result<()> {
        let mut fault = self.read_fault.lock().unwrap();
        match fault.as_mut().filter(|fault| location.as_ref().ends_with(&fault.ends_with)) {
            None => Ok(()),
            Some(fault) if fault.reads_before > 0 => {
                fault.reads_before -= 1;
                Ok(())
            }
            Some(_) => {
                *fault = None;
                Err(timed_out())
            }
        }
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
        self.count_write()?;
        let log_entry = location.as_ref().contains("_delta_log") && location.as_ref().ends_with(".json");
        let held = if log_entry { self.hold.lock().unwrap().take() } else { None };
        if let Some((come, gone_on)) = held {
            come.send(()).unwrap();
            gone_on.await.unwrap();
        }
        let fault = if log_entry { self.faults.lock().unwrap().pop() } else { None };
        let late = if log_entry { self.late.lock().unwrap().take() } else { None };
        if let Some((location, payload)) = late {
            self.inner.put_opts(&location, payload, options.clone()).await?;
        }
        match fault {
            None => self.inner.put_opts(location, payload, options).await,
            Some(Fault::Fails) => Err(timed_out()),
            Some(Fault::FailsAndDies) => {
                self.dead.store(true, Ordering::SeqCst);
                Err(timed_out())
            }
            Some(Fault::LandsLate) => {
                *self.late.lock().unwrap() = Some((location.clone(), payload));
                Err(timed_out())
            }
            Some(Fault::ExistsLate) => {
                *self.late.lock().unwrap() = Some((location.clone(), payload));
                Err(ObjectStoreError::AlreadyExists { path: location.to_string(), source: "being written".into() })
            }
            Some(Fault::LandsButFails) => {
                self.inner.put_opts(location, payload, options).await?;
                Err(timed_out())
            }
            Some(fault @ (Fault::LandsButExists | Fault::ExistsAndDies)) => {
                self.dead.store(matches!(fault, Fault::ExistsAndDies), Ordering::SeqCst);
                self.inner.put_opts(location, payload, options).await?;
                Err(ObjectStoreError::AlreadyExists { path: location.to_string(), source: "retried".into() })
            }
        }
    }

    async fn put_multipart_opts(&self, location: &Path, o: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.alive()?;
        self.count_write()?;
        self.inner.put_multipart_opts(location, o).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.alive()?;
        self.readable(location)?;
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
