//! What can be wrong with an adapter, and how to mend it. Messages hold the operator's own words, never a value.

/// Errors of this crate. All are the fault of who wrote the definition, except [`AdapterError::Engine`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdapterError {
    /// The definition as a whole.
    #[error("adapter {adapter}: {problem}")]
    Definition {
        /// Its name.
        adapter: String,
        /// What is wrong, and how to mend it.
        problem: String,
    },
    /// One of its outputs.
    #[error("adapter {adapter}, output {table}: {problem}")]
    Output {
        /// Name of the adapter.
        adapter: String,
        /// Table of the output.
        table: String,
        /// What is wrong, and how to mend it.
        problem: String,
    },
    /// One column of an output.
    #[error("adapter {adapter}, output {table}, column {column}: {problem}")]
    Column {
        /// Name of the adapter.
        adapter: String,
        /// Table of the output.
        table: String,
        /// Column of the table.
        column: String,
        /// What is wrong, and how to mend it.
        problem: String,
    },
    /// A batch that is not of the adapter's input schema, or an engine that breaks its own rules.
    #[error("adapter {adapter} cannot be run: {problem}; this is a defect of Weir's")]
    Engine {
        /// Name of the adapter.
        adapter: String,
        /// What happened.
        problem: String,
    },
}

/// The message of the engine without a backtrace, on one line.
pub(crate) fn one_line(error: &datafusion::error::DataFusionError) -> String {
    let text = error.strip_backtrace();
    let text = text.strip_prefix("Error during planning: ").unwrap_or(&text);
    let text = text.strip_prefix("Schema error: ").unwrap_or(text);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
