//! An object store in memory at which a process can be stopped in any change that it makes: before or after the change.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use deltalake::{ObjectMeta, ObjectStore, Path};
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result,
};
use tokio::sync::Semaphore;
use url::Url;
use weir_store::Store;

/// Where a process stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Before,
    After,
}

/// One process's view of the store.
#[derive(Debug, Clone)]
pub struct Gate {
    inner: Arc<InMemory>,
    /// The change at which it stops.
    stop: Option<(usize, Side)>,
    changes: Arc<AtomicUsize>,
    stopped: Arc<Semaphore>,
    opened: Arc<Semaphore>,
}

/// What the test holds.
#[derive(Debug, Clone)]
pub struct Keeper {
    stopped: Arc<Semaphore>,
    opened: Arc<Semaphore>,
    changes: Arc<AtomicUsize>,
}

impl Keeper {
    /// Resolves when the process stands at the gate.
    pub async fn stopped(&self) {
        self.stopped.acquire().await.unwrap().forget();
    }

    pub fn open(&self) {
        self.opened.add_permits(1);
    }

    /// Changes that the process has begun.
    pub fn changes(&self) -> usize {
        self.changes.load(Ordering::SeqCst)
    }
}

/// A process's store over `inner`, and how to stop and wake it.
pub fn gated(inner: &Arc<InMemory>, stop: Option<(usize, Side)>) -> (Store, Keeper) {
    let (stopped, opened) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let keeper = Keeper { stopped: stopped.clone(), opened: opened.clone(), changes: Arc::default() };
    let gate = Gate { inner: inner.clone(), stop, changes: keeper.changes.clone(), stopped, opened };
    (Store::with_backend(Arc::new(gate), Url::parse("memory:///data/").unwrap()).unwrap(), keeper)
}

impl Gate {
    /// Counts a change; true when the process is to stop after it. Stops before it, when that is asked for.
    async fn enter(&self) -> bool {
        let change = self.changes.fetch_add(1, Ordering::SeqCst);
        match self.stop {
            Some((at, Side::Before)) if at == change => {
                self.wait().await;
                false
            }
            Some((at, Side::After)) => at == change,
            _ => false,
        }
    }

    async fn wait(&self) {
        self.stopped.add_permits(1);
        self.opened.acquire().await.unwrap().forget();
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("gate")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Gate {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let stops = self.enter().await;
        let put = self.inner.put_opts(location, payload, options).await;
        if stops {
            self.wait().await;
        }
        put
    }

    async fn put_multipart_opts(&self, location: &Path, o: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, o).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let gate = self.clone();
        let deleted = locations.then(move |location| {
            let gate = gate.clone();
            async move {
                let location = location?;
                let stops = gate.enter().await;
                let one = futures::stream::once(async move { Ok(location) }).boxed();
                let deleted = gate.inner.delete_stream(one).next().await.expect("one in, one out");
                if stops {
                    gate.wait().await;
                }
                deleted
            }
        });
        deleted.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
