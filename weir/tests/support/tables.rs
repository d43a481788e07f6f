//! Raw tables as ingest would have left them.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::json::ReaderBuilder;
use serde::Serialize;
use weir_schemas::Contract;
use weir_store::{Store, TableSpec};

/// What a command over the tables in `folder` prints and how it ends.
#[allow(dead_code)] // each test file uses its part
pub fn weir(folder: &Path, command: [&str; 2], arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weir"))
        .current_dir(folder)
        .args(command)
        .args(arguments)
        .env("WEIR_LOG", "off")
        .output()
        .expect("the binary starts")
}

/// Appends events to their raw table as one version, all on the partition of 1 January 2026.
pub async fn append<T: Serialize>(store: &Store, contract: &Contract, events: &[T]) {
    let schema = weir_features::raw_schema(contract);
    let spec = TableSpec {
        name: contract.name.to_owned(),
        schema: Arc::clone(&schema),
        partition_by: Some("event_date".to_owned()),
    };
    let mut decoder =
        ReaderBuilder::new(contract.arrow_schema()).with_batch_size(events.len()).build_decoder().expect("a decoder");
    decoder.serialize(events).expect("events have the contract's shape");
    let batch = decoder.flush().expect("events decode").expect("there are events");
    let rows = batch.num_rows();
    assert_eq!(rows, events.len());
    let mut columns = batch.columns().to_vec();
    columns.extend([
        Arc::new(StringArray::from(vec!["2026-01-01"; rows])) as ArrayRef,
        Arc::new(StringArray::from(vec![contract.name; rows])),
        Arc::new(Int32Array::from(vec![0; rows])),
        Arc::new((0..rows as i64).collect::<Int64Array>()),
    ]);
    let batch = RecordBatch::try_new(schema, columns).expect("the raw table's columns");
    let mut table = store.table(&spec).await.expect("the table opens");
    table.commit(vec![batch], Vec::new()).await.expect("the commit lands");
}
