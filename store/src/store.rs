//! A data folder: Delta tables below `tables/`, small objects anywhere else.

use std::fs::File;
use std::path::Path as FsPath;
use std::sync::Arc;

use bytes::Bytes;
use deltalake::logstore::{LogStoreRef, StorageConfig, default_logstore};
use deltalake::{ObjectStore, ObjectStoreError, Path};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStoreExt, PutMode, PutOptions};
use url::Url;

use crate::backend::{self, StoreOptions};
use crate::table::{Table, TableSpec};
use crate::{Result, StoreError};

/// Did a create-only write create?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutNew {
    /// The object is new and holds our bytes.
    Created,
    /// Somebody's object was there before; it is unchanged.
    Existed,
}

/// A data folder or a prefix of an object store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    /// The whole store, `/` at its root: what the Delta library wants.
    backend: Arc<dyn ObjectStore>,
    /// The same store, rooted at `url`.
    objects: Arc<dyn ObjectStore>,
    url: Url,
}

impl Store {
    /// Opens a data folder (created if it is not there) or an object store URL, and checks that it can be written to.
    ///
    /// `memory://` is a store that lives and dies with the returned value. Object stores take their credentials from the
    /// environment; [`Store::open_with`] says more.
    ///
    /// # Errors
    /// [`StoreError::BadLocation`] or [`StoreError::Unwritable`].
    pub async fn open(url_or_path: &str) -> Result<Self> {
        Self::open_with(url_or_path, &StoreOptions::default()).await
    }

    /// The same with settings of the object store's client. It is checked, too, that the store can create an object only
    /// if it is not there: the commit protocol rests on that.
    ///
    /// # Errors
    /// [`StoreError::BadLocation`], [`StoreError::Credentials`] or [`StoreError::Unwritable`].
    pub async fn open_with(url_or_path: &str, options: &StoreOptions) -> Result<Self> {
        let store = Self::at(locate(url_or_path, Access::Write)?, options)?;
        if store.url.scheme() != "file" {
            store.check_writable(url_or_path).await?;
        }
        Ok(store)
    }

    /// Opens a data folder that is there, or an object store URL, to read it: nothing is created and nothing is written, so
    /// a folder that takes no files will do.
    ///
    /// # Errors
    /// [`StoreError::BadLocation`].
    pub fn open_to_read(url_or_path: &str) -> Result<Self> {
        Self::open_to_read_with(url_or_path, &StoreOptions::default())
    }

    /// The same with settings of the object store's client.
    ///
    /// # Errors
    /// [`StoreError::BadLocation`] or [`StoreError::Credentials`].
    pub fn open_to_read_with(url_or_path: &str, options: &StoreOptions) -> Result<Self> {
        Self::at(locate(url_or_path, Access::Read)?, options)
    }

    fn at(url: Url, options: &StoreOptions) -> Result<Self> {
        let backend: Arc<dyn ObjectStore> = match url.scheme() {
            "memory" => Arc::new(InMemory::new()),
            "file" => backend::local(),
            _ => backend::remote(&url, options)?,
        };
        Self::with_backend(backend, url)
    }

    /// A store over an object store of the caller's: `backend` has `/` at its root and `url` points into it.
    ///
    /// # Errors
    /// [`StoreError::BadLocation`] when `url`'s path is not an object store path.
    pub fn with_backend(backend: Arc<dyn ObjectStore>, url: Url) -> Result<Self> {
        let prefix = Path::from_url_path(url.path())
            .map_err(|error| StoreError::BadLocation { place: url.to_string(), why: error.to_string() })?;
        let objects: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(backend.clone(), prefix));
        Ok(Self { backend, objects, url })
    }

    /// The root, with a trailing slash.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Where the table of that name lies: `<root>/tables/<name>/`.
    ///
    /// # Panics
    /// Never: our roots can be bases.
    #[must_use]
    pub fn table_url(&self, name: &str) -> Url {
        self.url.join(&format!("tables/{name}/")).expect("a root with a trailing slash takes relative paths")
    }

    /// Opens the table, or creates it with the properties `weir.table` and `weir.schema`.
    ///
    /// # Errors
    /// [`StoreError::NotOurs`] and [`StoreError::OtherSchema`] when what lies there is not this table.
    pub async fn table(&self, spec: &TableSpec) -> Result<Table> {
        Table::open_or_create(self, self.log_store(&spec.name)?, spec).await
    }

    /// The table of that name, if it is there.
    ///
    /// # Errors
    /// [`StoreError::NotOurs`] when what lies there was not made by Weir under that name.
    pub async fn existing(&self, name: &str) -> Result<Option<Table>> {
        Table::open(self, self.log_store(name)?, name).await
    }

    /// Writes an object that must not exist yet.
    ///
    /// # Errors
    /// [`StoreError::Storage`].
    pub async fn put_new(&self, path: &str, bytes: Bytes) -> Result<PutNew> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.objects.put_opts(&Path::from(path), bytes.into(), options).await {
            Ok(_) => Ok(PutNew::Created),
            Err(ObjectStoreError::AlreadyExists { .. }) => Ok(PutNew::Existed),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes an object, replacing what was there.
    ///
    /// # Errors
    /// [`StoreError::Storage`].
    pub async fn put(&self, path: &str, bytes: Bytes) -> Result<()> {
        self.objects.put(&Path::from(path), bytes.into()).await?;
        Ok(())
    }

    /// Reads an object, if it is there.
    ///
    /// # Errors
    /// [`StoreError::Storage`].
    pub async fn get(&self, path: &str) -> Result<Option<Bytes>> {
        match self.objects.get(&Path::from(path)).await {
            Ok(found) => Ok(Some(found.bytes().await?)),
            Err(ObjectStoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Paths of all objects below a prefix, relative to the root, sorted.
    ///
    /// # Errors
    /// [`StoreError::Storage`].
    pub async fn list(&self, prefix: &str) -> Result<Vec<String>> {
        let found: Vec<_> = self.objects.list(Some(&Path::from(prefix))).try_collect().await?;
        let mut paths: Vec<String> = found.into_iter().map(|meta| meta.location.to_string()).collect();
        paths.sort_unstable();
        Ok(paths)
    }

    /// Names of the folders directly below a prefix, sorted. What lies in them is not listed.
    ///
    /// # Errors
    /// [`StoreError::Storage`].
    pub async fn folders(&self, prefix: &str) -> Result<Vec<String>> {
        let found = self.objects.list_with_delimiter(Some(&Path::from(prefix))).await?;
        let mut names: Vec<String> =
            found.common_prefixes.iter().filter_map(|path| path.filename().map(str::to_owned)).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Removes an object; one that is not there is fine.
    ///
    /// # Errors
    /// [`StoreError::Storage`].
    pub async fn delete(&self, path: &str) -> Result<()> {
        match self.objects.delete(&Path::from(path)).await {
            Ok(()) | Err(ObjectStoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The log store that commits by a put that creates or fails, whatever the scheme: no lock table, nothing registered.
    fn log_store(&self, name: &str) -> Result<LogStoreRef> {
        let (url, config) = (self.table_url(name), StorageConfig::default());
        let root = Path::from_url_path(url.path())
            .map_err(|error| StoreError::BadLocation { place: url.to_string(), why: error.to_string() })?;
        let table = Arc::new(PrefixStore::new(self.backend.clone(), root));
        Ok(default_logstore(table, self.backend.clone(), &url, &config))
    }

    async fn check_writable(&self, place: &str) -> Result<()> {
        let unwritable = |why: String| StoreError::Unwritable { place: place.to_owned(), why };
        let probe = probe_name();
        let tried = async {
            self.put_new(&probe, Bytes::from_static(b"first")).await?;
            let second = self.put_new(&probe, Bytes::from_static(b"second")).await?;
            self.delete(&probe).await.map(|()| second)
        };
        match tried.await {
            Ok(PutNew::Existed) => Ok(()),
            Ok(PutNew::Created) => Err(unwritable(
                "the store overwrites an object that it was told to create (If-None-Match: *), so one commit could \
                 overwrite another"
                    .to_owned(),
            )),
            Err(error) if !matches!(self.url.scheme(), "file" | "memory") && backend::is_trouble(&error) => {
                Err(StoreError::NoAnswer { place: place.to_owned(), why: backend::in_short(&error) })
            }
            Err(error) => Err(unwritable(backend::in_short(&error))),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

fn locate(url_or_path: &str, access: Access) -> Result<Url> {
    let bad = |why: String| StoreError::BadLocation { place: url_or_path.to_owned(), why };
    if url_or_path.contains("://") && !url_or_path.starts_with("file://") {
        let mut url = Url::parse(url_or_path).map_err(|error| bad(error.to_string()))?;
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        return Ok(url);
    }
    let path = url_or_path.strip_prefix("file://").unwrap_or(url_or_path);
    if path.is_empty() {
        return Err(bad("the path is empty".to_owned()));
    }
    let unwritable =
        |error: std::io::Error| StoreError::Unwritable { place: url_or_path.to_owned(), why: error.to_string() };
    if access == Access::Write {
        std::fs::create_dir_all(path).map_err(unwritable)?;
    }
    let absolute = FsPath::new(path).canonicalize().map_err(|error| bad(error.to_string()))?;
    if access == Access::Write {
        // Asked of the operating system: the object store would retry a folder that takes no files for ever.
        let probe = absolute.join(probe_name());
        File::create_new(&probe).and_then(|_| std::fs::remove_file(&probe)).map_err(unwritable)?;
    }
    Url::from_directory_path(&absolute).map_err(|()| bad("not an absolute path".to_owned()))
}

fn probe_name() -> String {
    format!(".write-probe-{:032x}", rand::random::<u128>())
}
