//! What can go wrong, and whose fault it is.

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum LearnError {
    /// The logs hold nothing to learn from.
    #[error("cannot learn a policy: {0}")]
    NotEnoughData(String),
    /// The logs, or the matrix, cannot carry a cascade.
    #[error("cannot learn a cascade: {0}")]
    NoCascade(String),
    /// The labelled pairs do not suffice for an estimator.
    #[error(
        "cannot train a hallucination estimator: pairs of both classes are needed to train on, to validate on and to \
         judge on, and {hallucinated} hallucinated and {faithful} faithful pairs were read, while {left_out} rows were left \
         out for lack of a context, a response, a dataset or a label; give more labelled pairs, on more documents"
    )]
    NotEnoughPairs {
        /// Pairs read that people found a hallucination in.
        hallucinated: usize,
        /// Pairs read that they found none in.
        faithful: usize,
        /// Rows of the files that are no pair.
        left_out: usize,
    },
    /// Logged decisions that cannot be evaluated.
    #[error("cannot evaluate these decisions: {0}")]
    BadRounds(String),
    /// Training that got out of hand.
    #[error(
        "training diverged in pass {epoch}, the loss is no number any more: look for rewards, costs or token counts in the logs that are out of all proportion"
    )]
    Diverged {
        /// The pass, from 1.
        epoch: usize,
    },
    /// Sessions that cannot be learned from or judged.
    #[error("cannot use these sessions: {0}")]
    BadSessions(String),
    /// An operator's outcome file that makes no sense.
    #[error("the outcome file makes no sense: {0}")]
    BadOutcome(String),
    /// A configuration value makes no sense.
    #[error("bad learner configuration: {0}")]
    Config(String),
    /// A file or an artefact could not be read.
    #[error("cannot read {what}: {why}")]
    Unreadable {
        /// What was being read.
        what: String,
        /// Why it could not be.
        why: String,
    },
    /// A program that should turn texts into vectors did not.
    #[error(
        "cannot encode texts with `{command}`: {why}; it must answer each line, a JSON string, with one line, a JSON array of numbers"
    )]
    Encoder {
        /// The program and its arguments.
        command: String,
        /// What it did.
        why: String,
    },
    /// A table that the job needs does not exist yet.
    #[error("there is no table {0} in the data folder yet: run ingest first")]
    MissingTable(&'static str),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] weir_store::StoreError),
    /// The feature views could not be planned or read.
    #[error("cannot read the training data: {0}")]
    Query(#[from] datafusion::error::DataFusionError),
    /// The rows do not have the shape that the queries promise.
    #[error("cannot decode the training data: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
    /// The trained artefact was refused by the runtime that would score it.
    #[error("the trained artefact is not usable: {0}")]
    Artefact(String),
}

impl LearnError {
    /// Whose fault it is.
    #[must_use]
    pub fn fault(&self) -> weir_store::Fault {
        match self {
            Self::Store(error) => error.fault(),
            Self::NotEnoughData(_)
            | Self::NoCascade(_)
            | Self::NotEnoughPairs { .. }
            | Self::BadRounds(_)
            | Self::Diverged { .. }
            | Self::BadSessions(_)
            | Self::BadOutcome(_)
            | Self::Config(_)
            | Self::Unreadable { .. }
            | Self::Encoder { .. }
            | Self::MissingTable(_) => weir_store::Fault::User,
            Self::Query(_) | Self::Arrow(_) | Self::Artefact(_) => weir_store::Fault::Ours,
        }
    }

    /// Can the same call succeed later, with nothing mended?
    #[must_use]
    pub fn retry_helps(&self) -> bool {
        match self {
            Self::Store(error) => error.retry_helps(),
            Self::MissingTable(_) | Self::NotEnoughData(_) | Self::NoCascade(_) => true,
            _ => false,
        }
    }
}

/// Shorthand.
pub type Result<T> = std::result::Result<T, LearnError>;
