//! A Parquet file that somebody gave us as a table, or one sentence on why it is none.

use std::path::Path;

use datafusion::prelude::{ParquetReadOptions, SessionContext};

use crate::error::{LearnError, Result};

/// Registers the file as `table`, after seeing that it has `columns`.
pub(crate) async fn register_parquet(
    session: &SessionContext,
    table: &str,
    path: &Path,
    columns: &[&str],
) -> Result<()> {
    let unreadable = |why: String| LearnError::Unreadable { what: path.display().to_string(), why };
    if !path.is_file() {
        return Err(unreadable("there is no such file".to_owned()));
    }
    // The reader would pass over a file of another name as if the folder were empty.
    let extension = path.extension().map(|extension| format!(".{}", extension.to_string_lossy())).unwrap_or_default();
    let options = ParquetReadOptions::default().file_extension(&extension);
    session
        .register_parquet(table, path.to_string_lossy(), options)
        .await
        .map_err(|_| unreadable("it is no Parquet file, or a damaged one".to_owned()))?;
    let found = session.table(table).await?;
    let lacks: Vec<&str> =
        columns.iter().copied().filter(|column| !found.schema().has_column_with_unqualified_name(column)).collect();
    if lacks.is_empty() {
        return Ok(());
    }
    Err(unreadable(format!(
        "it lacks the column(s) {}; the columns needed are {}",
        lacks.join(", "),
        columns.join(", ")
    )))
}
