//! What can go wrong with a query, and whose fault it is.

use datafusion::error::DataFusionError;
use weir_features::FeaturesError;
use weir_store::Fault;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SqlError {
    /// The session could not be opened.
    #[error(transparent)]
    Features(#[from] FeaturesError),
    /// The statement would change something.
    #[error(
        "weir sql only reads: it takes SELECT, EXPLAIN, SHOW and DESCRIBE, and refuses statements that create, change or copy data or settings"
    )]
    ReadOnly,
    /// The query cannot be planned: a wrong name, type or syntax.
    #[error("cannot plan the query: {0}; `SELECT * FROM views` lists what there is")]
    BadQuery(String),
    /// The query failed while it ran.
    #[error("the query failed: {0}")]
    Failed(String),
    /// A result cannot be written in the format that was asked for.
    #[error("cannot write the result: {0}; cast the column to VARCHAR, or take another format")]
    Unwritable(#[from] arrow::error::ArrowError),
}

impl SqlError {
    /// Whose fault is it?
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Features(error) => error.fault(),
            Self::ReadOnly | Self::BadQuery(_) => Fault::User,
            Self::Failed(_) => Fault::Outside,
            Self::Unwritable(_) => Fault::Ours,
        }
    }

    /// Can the same call succeed later, with nothing changed?
    #[must_use]
    pub fn retry_helps(&self) -> bool {
        match self {
            Self::Features(error) => error.retry_helps(),
            Self::Failed(_) => true,
            _ => false,
        }
    }

    pub(crate) fn bad_query(error: &DataFusionError) -> Self {
        Self::BadQuery(one_line(error))
    }

    pub(crate) fn failed(error: &DataFusionError) -> Self {
        Self::Failed(one_line(error))
    }
}

/// The message without a backtrace, on one line.
fn one_line(error: &DataFusionError) -> String {
    error.strip_backtrace().split_whitespace().collect::<Vec<_>>().join(" ")
}
