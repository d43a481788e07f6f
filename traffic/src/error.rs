//! What can go wrong, whose fault it is, and whether trying again helps.

use std::path::PathBuf;

/// Who has to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Whoever typed the command or wrote the configuration.
    User,
    /// A file or machine outside of Weir.
    Outside,
}

/// Why there is no traffic.
#[derive(Debug, thiserror::Error)]
pub enum TrafficError {
    /// A setting that makes no sense.
    #[error("{setting} is {value}: {mend}")]
    Setting {
        /// Name of the setting.
        setting: &'static str,
        /// What it was set to.
        value: String,
        /// What it may be.
        mend: &'static str,
    },
    /// The columns of a file are not those of a trace that we know.
    #[error("{path} is not a known trace (columns: {columns}); known are azure-llm, mooncake, servegen and score-matrix", path = path.display())]
    UnknownTrace {
        /// The file.
        path: PathBuf,
        /// Its columns, joined by commas.
        columns: String,
    },
    /// A score matrix was given where a trace is expected, or the other way round.
    #[error("{path} holds a {found} and not a {wanted}", path = path.display())]
    WrongKind {
        /// The file or folder.
        path: PathBuf,
        /// What it holds.
        found: &'static str,
        /// What was asked for.
        wanted: &'static str,
    },
    /// A folder with traces of two formats, which have no common clock.
    #[error("{path} holds {first} and {second} files: name one of them, or give each format a folder", path = path.display(), first = formats[0], second = formats[1])]
    TwoFormats {
        /// The folder.
        path: PathBuf,
        /// Two of its formats.
        formats: [&'static str; 2],
    },
    /// A model whose calls would look free.
    #[error("{path} has no prices of the model {model}: add a row with both of them", path = path.display())]
    NoPrice {
        /// The table of prices.
        path: PathBuf,
        /// The model.
        model: String,
    },
    /// A file or folder cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A folder without any parquet file.
    #[error("{path} holds no .parquet file: name a trace file or its folder", path = path.display())]
    NoFiles {
        /// The folder.
        path: PathBuf,
    },
    /// A parquet file is damaged.
    #[error("{path} is not a readable parquet file ({source}): fetch or write it again", path = path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// The reader's reason.
        source: parquet::errors::ParquetError,
    },
    /// A column is missing or has another type than the format's.
    #[error("{path}: column {column} is missing or not {expected}", path = path.display())]
    Column {
        /// The file.
        path: PathBuf,
        /// The column.
        column: &'static str,
        /// The type that the format has.
        expected: &'static str,
    },
    /// A value that the format cannot have.
    #[error("{path}: row {row} has a missing or impossible {column}: mend that row", path = path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// Row, from 0.
        row: usize,
        /// The column.
        column: &'static str,
    },
}

impl TrafficError {
    /// Who has to act.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            // Whoever named the file can name or mend another one; nothing outside has to recover first.
            Self::Setting { .. }
            | Self::UnknownTrace { .. }
            | Self::WrongKind { .. }
            | Self::TwoFormats { .. }
            | Self::NoPrice { .. }
            | Self::NoFiles { .. }
            | Self::Parquet { .. }
            | Self::Column { .. }
            | Self::Value { .. } => Fault::User,
            Self::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => Fault::User,
            Self::Read { .. } => Fault::Outside,
        }
    }

    /// Can the same call succeed later without a change by somebody?
    #[must_use]
    pub fn retry_helps(&self) -> bool {
        false
    }
}
