//! Parquet that somebody gave us as a table, a file or a folder of them, or one sentence on why it is none.

use std::path::Path;

use datafusion::prelude::{ParquetReadOptions, SessionContext};

use crate::error::{LearnError, Result};

/// Registers the file, or the `.parquet` files of the folder, as `table`, after seeing that it has `columns`.
pub(crate) async fn register_parquet(
    session: &SessionContext,
    table: &str,
    path: &Path,
    columns: &[&str],
) -> Result<()> {
    let unreadable = |why: String| LearnError::Unreadable { what: path.display().to_string(), why };
    // The reader would pass over a file of another name as if the folder were empty.
    let extension = path.extension().map(|extension| format!(".{}", extension.to_string_lossy())).unwrap_or_default();
    let (place, extension) = if path.is_file() {
        (path.to_string_lossy().into_owned(), extension)
    } else if path.is_dir() {
        let is_parquet = |path: &Path| path.extension().is_some_and(|extension| extension == "parquet");
        let mut entries = std::fs::read_dir(path).map_err(|error| unreadable(error.to_string()))?;
        if !entries.any(|entry| entry.is_ok_and(|entry| is_parquet(&entry.path()))) {
            return Err(unreadable("there is no .parquet file in that folder".to_owned()));
        }
        // The reader takes a name that ends with a slash for a folder.
        (format!("{}/", path.display()), ".parquet".to_owned())
    } else {
        return Err(unreadable("there is no such file or folder".to_owned()));
    };
    let options = ParquetReadOptions::default().file_extension(&extension);
    session
        .register_parquet(table, place, options)
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
