//! What can go wrong here, and whose fault it is.

use datafusion::error::DataFusionError;
use weir_store::{Fault, StoreError};

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FeaturesError {
    /// A table could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A query failed.
    #[error("query failed: {0}")]
    Query(#[source] Box<DataFusionError>),
    /// The columns of a raw table are not what its contract says.
    #[error("table {table}: {why}; it was written by another version of Weir, so ingest into a new data folder")]
    BadRawTable {
        /// Name of the table.
        table: String,
        /// What is wrong with it.
        why: String,
    },
    /// Bytes that are no summary.
    #[error("these bytes are no {kind}: {why}; `weir rebuild` makes the summaries anew if a table holds them")]
    BadSummary {
        /// Which summary was asked for.
        kind: &'static str,
        /// What is wrong with the bytes.
        why: &'static str,
    },
    /// A time range that cannot be answered.
    #[error("{0}")]
    BadRange(String),
    /// Another process keeps consuming the same versions.
    #[error("another process is summarising the same tables and won {attempts} times in a row; it does the same work")]
    Contended {
        /// How often it won.
        attempts: u32,
    },
    /// A summary table stands at a version that the raw table does not have.
    #[error(
        "table {derived} has summarised version {consumed} of {table}, which is at version {version}: it was put back from an older copy; put back {derived} of the same moment, or delete its folder, which loses what it knows of times whose raw rows are gone, and run `weir rebuild`"
    )]
    RawWentBack {
        /// Name of the raw table.
        table: String,
        /// Its newest version.
        version: i64,
        /// Name of the summary table.
        derived: String,
        /// What that has consumed.
        consumed: i64,
    },
    /// Another process summarised while the tables were made anew.
    #[error("another process summarised while the tables were rebuilt; stop `weir run`, then rebuild again")]
    RebuildRaced,
}

impl FeaturesError {
    /// Whose fault is it?
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Store(error) => error.fault(),
            Self::BadRange(_) | Self::BadRawTable { .. } | Self::RawWentBack { .. } | Self::RebuildRaced => Fault::User,
            Self::Contended { .. } => Fault::Outside,
            Self::Query(error) if is_storage(error) => Fault::Outside,
            Self::Query(_) | Self::BadSummary { .. } => Fault::Ours,
        }
    }

    /// Can the same call succeed later, with nothing changed?
    #[must_use]
    pub fn retry_helps(&self) -> bool {
        match self {
            Self::Store(error) => error.retry_helps(),
            Self::Query(error) => is_storage(error),
            Self::Contended { .. } | Self::RebuildRaced => true,
            Self::BadRange(_) | Self::BadRawTable { .. } | Self::RawWentBack { .. } | Self::BadSummary { .. } => false,
        }
    }
}

/// Did a query fail because files could not be read?
fn is_storage(error: &DataFusionError) -> bool {
    matches!(error.find_root(), DataFusionError::ObjectStore(_) | DataFusionError::IoError(_))
}

impl From<DataFusionError> for FeaturesError {
    fn from(error: DataFusionError) -> Self {
        match error {
            // A table that a query named could not be opened, or a function of ours refused its argument.
            DataFusionError::External(cause) => match cause.downcast::<Self>() {
                Ok(error) => *error,
                Err(cause) => Self::Query(Box::new(DataFusionError::External(cause))),
            },
            error => Self::Query(Box::new(error)),
        }
    }
}

impl From<FeaturesError> for DataFusionError {
    fn from(error: FeaturesError) -> Self {
        match error {
            FeaturesError::Query(error) => *error,
            error => Self::External(Box::new(error)),
        }
    }
}

impl From<arrow::error::ArrowError> for FeaturesError {
    fn from(error: arrow::error::ArrowError) -> Self {
        DataFusionError::from(error).into()
    }
}
