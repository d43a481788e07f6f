//! The tables and views of a session: a table's log is read, and a view is planned, when a query first names it.
//!
//! A session offers some forty names, and a query needs two or three of them. On an object store each table that is opened
//! costs several requests, and each view that is planned costs milliseconds.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::SchemaProvider;
use datafusion::common::DataFusionError;
use datafusion::datasource::empty::EmptyTable;
use datafusion::datasource::{TableProvider, TableType, ViewTable};
use datafusion::execution::session_state::SessionState;
use datafusion::prelude::SessionContext;
use tokio::sync::OnceCell;
use weir_store::Store;

use crate::FeaturesError;

/// What stands behind a name.
#[derive(Debug, Clone)]
pub(crate) enum Definition {
    /// A table of the store; where the store does not have it yet, it is empty with these columns.
    Table {
        /// Its name in the store.
        stored: String,
        schema: SchemaRef,
    },
    /// Something in the store that is not known to this version of Weir; what cannot be opened is not there.
    Found { stored: String },
    /// A query.
    View(&'static str),
    /// Given as it is.
    Given,
}

/// A name's definition, and what it turned out to be for this session.
#[derive(Debug)]
struct Entry {
    definition: Definition,
    opened: OnceCell<Opened>,
}

#[derive(Debug, Clone)]
struct Opened {
    provider: Option<Arc<dyn TableProvider>>,
    /// Of a table that is in the store.
    version: Option<i64>,
}

/// The only schema of a session.
pub(crate) struct Catalog {
    store: Store,
    /// The state of the session that this belongs to, while there is one: it owns us, so we do not own it.
    state: Box<dyn Fn() -> Option<SessionState> + Send + Sync>,
    entries: RwLock<BTreeMap<String, Arc<Entry>>>,
}

impl fmt::Debug for Catalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Catalog").field("names", &self.table_names()).finish_non_exhaustive()
    }
}

impl Catalog {
    /// Replaces the schema of `ctx`, which must be new.
    pub(crate) fn install(ctx: &SessionContext, store: &Store) -> Result<Arc<Self>, FeaturesError> {
        let session = ctx.state_weak_ref();
        let catalog = Arc::new(Self {
            store: store.clone(),
            state: Box::new(move || Some(session.upgrade()?.read().clone())),
            entries: RwLock::new(BTreeMap::new()),
        });
        let state = ctx.state();
        let names = &state.config_options().catalog;
        ctx.catalog(&names.default_catalog)
            .ok_or_else(|| DataFusionError::Internal("a session without its default catalog".to_owned()))?
            .register_schema(&names.default_schema, catalog.clone())?;
        Ok(catalog)
    }

    /// Defines a name that has no definition yet.
    pub(crate) fn define(&self, name: &str, definition: Definition) {
        self.insert(name, definition, OnceCell::new());
    }

    fn insert(&self, name: &str, definition: Definition, opened: OnceCell<Opened>) {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.entry(name.to_owned()).or_insert_with(|| Arc::new(Entry { definition, opened }));
    }

    /// Opens every table of ours, and says at which version each stands that is in the store, by its name there.
    pub(crate) async fn versions(&self) -> Result<BTreeMap<String, i64>, FeaturesError> {
        let mut versions = BTreeMap::new();
        for name in self.table_names() {
            let Some(entry) = self.entry(&name) else { continue };
            let (Definition::Table { stored, .. } | Definition::Found { stored }) = &entry.definition else { continue };
            if let Some(version) = self.opened(&name, &entry).await?.version {
                versions.insert(stored.clone(), version);
            }
        }
        Ok(versions)
    }

    fn entry(&self, name: &str) -> Option<Arc<Entry>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    async fn opened(&self, name: &str, entry: &Entry) -> Result<Opened, FeaturesError> {
        entry.opened.get_or_try_init(|| self.open(name, &entry.definition)).await.cloned()
    }

    async fn open(&self, name: &str, definition: &Definition) -> Result<Opened, FeaturesError> {
        match definition {
            Definition::Table { stored, schema } => Ok(match self.table(stored).await? {
                Some(opened) => opened,
                None => Opened { provider: Some(Arc::new(EmptyTable::new(schema.clone()))), version: None },
            }),
            // Whatever somebody put there, the tables beside it can be queried.
            Definition::Found { stored } => match self.table(stored).await {
                Err(error) if !error.retry_helps() => {
                    tracing::warn!(table = name, %error, "left out of the session");
                    Ok(Opened { provider: None, version: None })
                }
                opened => Ok(opened?.unwrap_or(Opened { provider: None, version: None })),
            },
            Definition::View(sql) => {
                let plan = self.state()?.create_logical_plan(sql).await?;
                let view = ViewTable::new(plan, Some((*sql).to_owned()));
                Ok(Opened { provider: Some(Arc::new(view)), version: None })
            }
            Definition::Given => Ok(Opened { provider: None, version: None }),
        }
    }

    async fn table(&self, stored: &str) -> Result<Option<Opened>, FeaturesError> {
        let Some(table) = self.store.existing(stored).await? else { return Ok(None) };
        let external = |error| DataFusionError::External(Box::new(error));
        let state = self.state()?;
        let delta = table.delta().await?;
        delta.update_datafusion_session(&state).map_err(external)?;
        let provider = delta.table_provider().with_session(Arc::new(state)).await?;
        Ok(Some(Opened { provider: Some(provider), version: Some(table.version()) }))
    }

    fn state(&self) -> Result<SessionState, FeaturesError> {
        let state = (self.state)();
        Ok(state.ok_or_else(|| DataFusionError::Internal("a query outlived its session".to_owned()))?)
    }
}

#[async_trait]
impl SchemaProvider for Catalog {
    fn table_names(&self) -> Vec<String> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let Some(entry) = self.entry(name) else { return Ok(None) };
        Ok(self.opened(name, &entry).await?.provider)
    }

    // A list of names opens nothing.
    async fn table_type(&self, name: &str) -> Result<Option<TableType>, DataFusionError> {
        Ok(self.entry(name).map(|entry| match (&entry.definition, entry.opened.get()) {
            (Definition::View(_), _) => TableType::View,
            (Definition::Given, Some(Opened { provider: Some(provider), .. })) => provider.table_type(),
            _ => TableType::Base,
        }))
    }

    fn register_table(
        &self,
        name: String,
        table: Arc<dyn TableProvider>,
    ) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        if self.table_exist(&name) {
            return Err(DataFusionError::Plan(format!("{name} is there already")));
        }
        let opened = Opened { provider: Some(table), version: None };
        self.insert(&name, Definition::Given, OnceCell::new_with(Some(opened)));
        Ok(None)
    }

    fn deregister_table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let removed = self.entries.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        Ok(removed.and_then(|entry| entry.opened.get()?.provider.clone()))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.entry(name).is_some()
    }
}
