//! Raw tables for tests, written through the store as ingest would write them.

use std::sync::Arc;

use arrow::json::ReaderBuilder;
use serde_json::Value;
use weir_schemas::Contract;
use weir_store::{Store, TableSpec, UtcDay};

/// Appends the rows as one raw version of partition 0, offsets counted from `first_offset`.
pub async fn append(store: &Store, contract: &'static Contract, first_offset: i64, rows: &[Value]) {
    append_to_partition(store, contract, 0, first_offset, rows).await;
}

pub async fn append_to_partition(
    store: &Store,
    contract: &'static Contract,
    partition: i32,
    first_offset: i64,
    rows: &[Value],
) {
    let schema = weir_features::raw_schema(contract);
    let name = contract.name.to_owned();
    let spec = TableSpec { name, schema: Arc::clone(&schema), partition_by: Some("event_date".to_owned()) };
    let mut table = store.table(&spec).await.expect("the raw table opens");
    let rows: Vec<Value> = rows
        .iter()
        .zip(first_offset..)
        .map(|(row, offset)| {
            let mut row = row.clone();
            let time_ms = row[contract.time_column].as_i64().expect("every row has its time");
            row["event_date"] = UtcDay::of_ms(time_ms).to_string().into();
            row["source_topic"] = contract.name.into();
            row["source_partition"] = partition.into();
            row["source_offset"] = offset.into();
            row
        })
        .collect();
    let mut decoder = ReaderBuilder::new(schema).build_decoder().expect("the schema decodes");
    decoder.serialize(&rows).expect("the rows fit the schema");
    let batch = decoder.flush().expect("the rows decode").expect("there are rows");
    table.commit(vec![batch], Vec::new()).await.expect("the rows fit the table");
}
