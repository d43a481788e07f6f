//! Real stores, with events in them.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::json::ReaderBuilder;
use serde::Serialize;
use weir_schemas::{Contract, EventTimeMs, Feedback, Propensity, Request, Tokens, Usd};
use weir_store::{Store, TableSpec};

/// Appends events to their raw table, as one version.
pub async fn append<T: Serialize>(store: &Store, contract: &Contract, events: &[T]) {
    let schema = weir_features::raw_schema(contract);
    let spec = TableSpec {
        name: contract.name.to_owned(),
        schema: Arc::clone(&schema),
        partition_by: Some("event_date".to_owned()),
    };
    let mut table = store.table(&spec).await.expect("the table opens");
    let mut decoder = ReaderBuilder::new(contract.arrow_schema()).build_decoder().expect("a decoder");
    decoder.serialize(events).expect("events have the contract's shape");
    let batch = decoder.flush().expect("events decode").expect("there are events");
    let rows = batch.num_rows();
    let mut columns = batch.columns().to_vec();
    columns.extend([
        Arc::new(StringArray::from(vec!["2026-01-01"; rows])) as ArrayRef,
        Arc::new(StringArray::from(vec![contract.name; rows])),
        Arc::new(Int32Array::from(vec![0; rows])),
        Arc::new((0..rows as i64).collect::<Int64Array>()),
    ]);
    let batch = RecordBatch::try_new(schema, columns).expect("the raw table's columns");
    table.commit(vec![batch], Vec::new()).await.expect("the commit lands");
}

pub fn request(id: &str, arrival_ms: i64) -> Request {
    Request {
        request_id: id.to_owned(),
        arrival_ms: EventTimeMs(arrival_ms),
        session_id: Some("s".to_owned()),
        domain: Some("law".to_owned()),
        intended_model: Some("b".to_owned()),
        executed_model: Some("b".to_owned()),
        propensity: Some(Propensity::new(0.25).unwrap()),
        prompt_tokens: Some(Tokens(100)),
        cost_usd: Some(Usd(0.5)),
        ..Request::default()
    }
}

pub fn opinion(request_id: &str, value: f64) -> Feedback {
    Feedback {
        feedback_id: format!("f-{request_id}"),
        event_ms: EventTimeMs(9),
        source: "user".to_owned(),
        kind: "thumb".to_owned(),
        request_id: Some(request_id.to_owned()),
        value: Some(value),
        ..Feedback::default()
    }
}

pub async fn fresh_store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = Store::open(folder.path().to_str().expect("UTF-8")).await.expect("the store opens");
    (folder, store)
}
