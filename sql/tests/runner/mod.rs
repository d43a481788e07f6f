//! Runs a file of `tests/slt`.

use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use sqllogictest::{DB, DBOutput, DefaultColumnType, Runner};
use weir_sql::{Context, SqlError};

struct Session {
    runtime: Arc<tokio::runtime::Runtime>,
    ctx: Context,
}

impl DB for Session {
    type Error = SqlError;
    type ColumnType = DefaultColumnType;

    fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, SqlError> {
        let batches = self.runtime.block_on(weir_sql::query(&self.ctx, sql))?;
        let columns = batches.first().map_or(0, RecordBatch::num_columns);
        let mut rows = Vec::new();
        for batch in &batches {
            let options = FormatOptions::default().with_null("NULL");
            let cells = batch
                .columns()
                .iter()
                .map(|column| ArrayFormatter::try_new(column, &options))
                .collect::<Result<Vec<_>, _>>()?;
            rows.extend(
                (0..batch.num_rows()).map(|row| cells.iter().map(|cell| cell.value(row).to_string()).collect()),
            );
        }
        Ok(DBOutput::Rows { types: vec![DefaultColumnType::Any; columns], rows })
    }
}

/// Runs a file over the tables that `open` makes in a folder.
pub fn passes(file: &str, open: impl AsyncFnOnce(&Path) -> Context) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let runtime = Arc::new(tokio::runtime::Runtime::new().expect("a runtime starts"));
    let ctx = runtime.block_on(open(folder.path()));
    let mut runner = Runner::new(|| {
        let session = Session { runtime: Arc::clone(&runtime), ctx: ctx.clone() };
        async move { Ok(session) }
    });
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slt").join(file);
    if let Err(error) = runner.run_file(path) {
        panic!("{}", error.display(false));
    }
}
