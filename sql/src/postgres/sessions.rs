//! The session that statements run in: all tables of the store, and PostgreSQL's catalogue over them.

use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, StringArray};
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{CatalogProviderList, SchemaProvider};
use datafusion::common::cast::as_string_array;
use datafusion::datasource::TableType;
use datafusion::error::{DataFusionError, Result as EngineResult};
use datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
use datafusion::scalar::ScalarValue;
use datafusion_pg_catalog::pg_catalog::catalog_info::CatalogInfo;
use datafusion_pg_catalog::pg_catalog::context::EmptyContextProvider;
use datafusion_pg_catalog::pg_catalog::{PgCatalogSchemaProvider, PgCatalogStaticTables, setup_pg_catalog};
use tokio::sync::Mutex;
use weir_store::Store;

use super::settings;
use crate::{Context, SqlError};

/// All panels of a dashboard ask at once, and a client that looks at a table asks for its columns next: they share a
/// session of this age at most, and see what was committed before.
const FRESH_FOR: Duration = Duration::from_secs(1);
/// Where the engine keeps tables; clients see it as the name of the database.
const CATALOG: &str = "datafusion";

/// Opens sessions.
pub(super) struct Sessions {
    store: Store,
    live: Live,
    catalogue: Arc<PgCatalogSchemaProvider<Live, EmptyContextProvider>>,
    newest: Mutex<Option<(Instant, Arc<Context>)>>,
}

impl Sessions {
    pub(super) fn new(store: Store) -> Result<Self, SqlError> {
        let live = Live(Arc::new(RwLock::new(Arc::clone(Context::new().state().catalog_list()))));
        let tables = PgCatalogStaticTables::try_new().map_err(SqlError::planning)?;
        let catalogue = PgCatalogSchemaProvider::try_new(live.clone(), Arc::new(tables), EmptyContextProvider)
            .map_err(SqlError::planning)?;
        Ok(Self { store, live, catalogue: Arc::new(catalogue), newest: Mutex::new(None) })
    }

    /// A session that sees the tables as they are, or were at most a second ago.
    pub(super) async fn fresh(&self) -> Result<Arc<Context>, SqlError> {
        // Whoever waits here gets what the one before opened.
        let mut newest = self.newest.lock().await;
        if let Some((opened, context)) = &*newest
            && opened.elapsed() < FRESH_FOR
        {
            return Ok(Arc::clone(context));
        }
        let opened = Instant::now();
        let context = Arc::new(crate::open(&self.store).await?);
        self.add_catalogue(&context).map_err(SqlError::planning)?;
        *newest = Some((opened, Arc::clone(&context)));
        Ok(context)
    }

    fn add_catalogue(&self, context: &Context) -> EngineResult<()> {
        setup_pg_catalog(context, CATALOG, EmptyContextProvider).map_err(|error| *error)?;
        // Ours instead of the new one: a client finds a table's number in one statement and asks for it in the next, so
        // numbers must outlive sessions.
        if let Some(catalog) = context.catalog(CATALOG) {
            let catalogue: Arc<dyn SchemaProvider> = self.catalogue.clone();
            catalog.register_schema("pg_catalog", catalogue)?;
        }
        *self.live.0.write().unwrap_or_else(std::sync::PoisonError::into_inner) =
            Arc::clone(context.state().catalog_list());
        let setting = Arc::new(|arguments: &[ColumnarValue]| current_setting(arguments));
        context.register_udf(create_udf(
            "current_setting",
            vec![DataType::Utf8],
            DataType::Utf8,
            Volatility::Stable,
            setting,
        ));
        Ok(())
    }
}

fn current_setting(arguments: &[ColumnarValue]) -> EngineResult<ColumnarValue> {
    if let [ColumnarValue::Scalar(ScalarValue::Utf8(name))] = arguments {
        let value = name.as_deref().and_then(settings::value).map(str::to_owned);
        return Ok(ColumnarValue::Scalar(ScalarValue::Utf8(value)));
    }
    let arrays = ColumnarValue::values_to_arrays(arguments)?;
    let names = as_string_array(&arrays[0])?;
    let values: ArrayRef =
        Arc::new(StringArray::from_iter((0..names.len()).map(|row| settings::value(names.value(row)))));
    Ok(ColumnarValue::Array(values))
}

/// The tables of the newest session, for the catalogue that outlives sessions.
#[derive(Debug, Clone)]
struct Live(Arc<RwLock<Arc<dyn CatalogProviderList>>>);

impl Live {
    fn now(&self) -> Arc<dyn CatalogProviderList> {
        Arc::clone(&self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

#[async_trait]
impl CatalogInfo for Live {
    async fn catalog_names(&self) -> Result<Vec<String>, DataFusionError> {
        CatalogInfo::catalog_names(&self.now()).await
    }

    async fn schema_names(&self, catalog: &str) -> Result<Option<Vec<String>>, DataFusionError> {
        self.now().schema_names(catalog).await
    }

    async fn table_names(&self, catalog: &str, schema: &str) -> Result<Option<Vec<String>>, DataFusionError> {
        self.now().table_names(catalog, schema).await
    }

    async fn table_schema(
        &self,
        catalog: &str,
        schema: &str,
        table: &str,
    ) -> Result<Option<SchemaRef>, DataFusionError> {
        self.now().table_schema(catalog, schema, table).await
    }

    async fn table_type(&self, catalog: &str, schema: &str, table: &str) -> Result<Option<TableType>, DataFusionError> {
        self.now().table_type(catalog, schema, table).await
    }
}
