//! What can go wrong with a query, and whose fault it is. Messages hold the caller's own words and names of tables, never a
//! value of a row.

use std::path::PathBuf;

use datafusion::error::DataFusionError;
use weir_features::FeaturesError;
use weir_store::Fault;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SqlError {
    /// The store or a table could not be opened.
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
    /// The query asked for something that a row's value does not allow. Which value is not said: it may be personal.
    #[error("the query failed on the values of a row: {0}")]
    BadValue(&'static str),
    /// The query or its result does not fit the memory for queries.
    #[error(
        "the query needs more memory than queries may use; ask for fewer columns, a WHERE, a LIMIT or an aggregate"
    )]
    TooMuchMemory,
    /// The query failed while it ran.
    #[error("the query failed: {0}")]
    Failed(String),
    /// The query engine broke.
    #[error("the query engine failed: {0}; this is a defect of Weir's")]
    Engine(String),
    /// A result cannot be written in the format that was asked for.
    #[error("cannot write the result: {0}; cast the column to VARCHAR, or take another format")]
    Unwritable(#[from] arrow::error::ArrowError),
    /// The result's file cannot be written.
    #[error("cannot write {}: {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        why: String,
    },
    /// Whoever reads the result does not take it.
    #[error("cannot write the result: {0}")]
    Output(#[from] std::io::Error),
}

impl SqlError {
    /// Whose fault is it?
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Features(error) => error.fault(),
            Self::ReadOnly | Self::BadQuery(_) | Self::BadValue(_) | Self::TooMuchMemory => Fault::User,
            Self::Failed(_) | Self::Output(_) | Self::File { .. } => Fault::Outside,
            Self::Unwritable(_) | Self::Engine(_) => Fault::Ours,
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

    /// An error before any row was read: names, types and literals of the query itself.
    pub(crate) fn planning(error: DataFusionError) -> Self {
        match error.find_root() {
            DataFusionError::ResourcesExhausted(_) | DataFusionError::ObjectStore(_) | DataFusionError::IoError(_) => {
                Self::running(&error)
            }
            // A table that it names could not be opened.
            DataFusionError::External(_) => match FeaturesError::from(error) {
                FeaturesError::Query(error) => Self::running(&error),
                error => Self::Features(error),
            },
            _ => Self::BadQuery(one_line(&error)),
        }
    }

    /// An error that came with the rows. The engine's message may quote one, so only its kind is told, unless it is about
    /// files.
    pub(crate) fn running(error: &DataFusionError) -> Self {
        use arrow::error::ArrowError;
        match error.find_root() {
            DataFusionError::ResourcesExhausted(_) => Self::TooMuchMemory,
            DataFusionError::ArrowError(error, _) => match error.as_ref() {
                ArrowError::CastError(_) | ArrowError::ParseError(_) => Self::BadValue(
                    "one of them does not have the type that it is cast to; TRY_CAST gives NULL for those",
                ),
                ArrowError::DivideByZero => Self::BadValue("one of them is divided by zero; NULLIF(x, 0) avoids it"),
                ArrowError::ArithmeticOverflow(_) | ArrowError::ComputeError(_) => {
                    Self::BadValue("a calculation leaves the range of its type; cast to DOUBLE or DECIMAL first")
                }
                ArrowError::IoError(_, _) => Self::Failed("a file of a table cannot be read".to_owned()),
                _ => Self::BadValue("a function does not take one of them; TRY_CAST or CASE leave such rows out"),
            },
            DataFusionError::Execution(_) => {
                Self::BadValue("a function does not take one of them; TRY_CAST or CASE leave such rows out")
            }
            DataFusionError::ObjectStore(_) | DataFusionError::IoError(_) => Self::Failed(one_line(error)),
            DataFusionError::External(cause) => match cause.downcast_ref::<FeaturesError>() {
                Some(FeaturesError::BadSummary { .. }) => {
                    Self::BadValue("one of them holds bytes that are no summary of the kind that the function reads")
                }
                _ => Self::Failed(one_line(error)),
            },
            DataFusionError::ParquetError(_) => Self::Failed("a file of a table is damaged".to_owned()),
            DataFusionError::Plan(_) | DataFusionError::SchemaError(_, _) | DataFusionError::NotImplemented(_) => {
                Self::BadQuery(one_line(error))
            }
            _ => Self::Engine(one_line(error)),
        }
    }
}

/// The message without a backtrace, on one line.
fn one_line(error: &DataFusionError) -> String {
    error.strip_backtrace().split_whitespace().collect::<Vec<_>>().join(" ")
}
