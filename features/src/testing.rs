//! Raw tables for tests, written through the store as ingest would write them.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::json::ReaderBuilder;
use serde::Serialize;
use weir_schemas::{Contract, EventTimeMs, Feedback, Request};
use weir_store::{Store, Table, TableSpec, UtcDay};

use crate::raw::raw_schema;

/// 2023-11-14 22:13:20 UTC: 20 seconds into a minute, 3 minutes 20 into ten.
pub(crate) const T0_MS: i64 = 1_700_000_000_000;

pub(crate) async fn memory_store() -> Store {
    Store::open("memory://").await.expect("a store in memory opens")
}

pub(crate) fn request(id: &str, arrival_ms: i64) -> Request {
    Request { request_id: id.to_owned(), arrival_ms: EventTimeMs(arrival_ms), ..Request::default() }
}

/// Appends the requests as one raw version and returns it.
pub(crate) async fn append(store: &Store, requests: &[Request]) -> i64 {
    append_rows(store, Request::contract(), requests.iter().map(|request| (request.arrival_ms.0, request))).await
}

/// Appends the opinions as one raw version and returns it.
pub(crate) async fn append_feedback(store: &Store, opinions: &[Feedback]) -> i64 {
    append_rows(store, Feedback::contract(), opinions.iter().map(|opinion| (opinion.event_ms.0, opinion))).await
}

async fn append_rows<T: Serialize>(
    store: &Store,
    contract: &'static Contract,
    rows: impl Iterator<Item = (i64, T)>,
) -> i64 {
    let mut table = raw_table(store, contract).await;
    // Offsets go up with the table's versions, as Kafka's do.
    let first_offset = (table.version() + 1) * 1_000_000;
    let batch = raw_batch(contract, rows, first_offset);
    table.commit(vec![batch], Vec::new()).await.expect("the rows fit their table").version
}

pub(crate) async fn raw_table(store: &Store, contract: &'static Contract) -> Table {
    let spec = TableSpec {
        name: contract.name.to_owned(),
        schema: raw_schema(contract),
        partition_by: Some("event_date".to_owned()),
    };
    store.table(&spec).await.expect("the raw table opens")
}

fn raw_batch<T: Serialize>(
    contract: &'static Contract,
    rows: impl Iterator<Item = (i64, T)>,
    first_offset: i64,
) -> RecordBatch {
    let schema = raw_schema(contract);
    let mut decoder = ReaderBuilder::new(Arc::clone(&schema)).build_decoder().expect("the schema decodes");
    let rows: Vec<serde_json::Value> = rows
        .zip(first_offset..)
        .map(|((time_ms, row), offset)| {
            let mut row = serde_json::to_value(row).expect("contracts serialise");
            let day = UtcDay::of_ms(time_ms).to_string();
            row["event_date"] = day.into();
            row["source_topic"] = contract.name.into();
            row["source_partition"] = 0.into();
            row["source_offset"] = offset.into();
            row
        })
        .collect();
    decoder.serialize(&rows).expect("the rows fit the schema");
    decoder.flush().expect("the rows decode").unwrap_or_else(|| RecordBatch::new_empty(schema))
}
