//! What the raw tables look like, from the contracts alone. Whoever fills them is not known here, so the four columns
//! that every raw table has beside its contract's are written down again; an existing table shows its own columns.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use weir_schemas::{Contract, contracts};

/// A raw table: its name under the store, its name in SQL, its columns.
pub(crate) struct RawTable {
    pub(crate) name: &'static str,
    pub(crate) sql_name: String,
    pub(crate) schema: SchemaRef,
}

/// The raw tables of the contracts, the dead letters, what replays did with them, and what was passed over unread.
pub(crate) fn raw_tables() -> Vec<RawTable> {
    let of = |contract: &'static Contract| RawTable {
        name: contract.name,
        sql_name: format!("raw_{}", contract.name),
        schema: raw_schema(contract),
    };
    let dead_letters = RawTable {
        name: "dead_letters",
        sql_name: "dead_letters".to_owned(),
        schema: Arc::new(Schema::new(vec![
            Field::new("source_topic", DataType::Utf8, false),
            Field::new("source_partition", DataType::Int32, false),
            Field::new("source_offset", DataType::Int64, false),
            Field::new("reason_class", DataType::Utf8, false),
            Field::new("reason", DataType::Utf8, false),
            Field::new("observed_ms", DataType::Int64, false),
            Field::new("observed_date", DataType::Utf8, false),
            Field::new("payload_bytes", DataType::Int64, false),
            Field::new("sealed_payload", DataType::Binary, false),
        ])),
    };
    let dead_letter_replays = RawTable {
        name: "dead_letter_replays",
        sql_name: "dead_letter_replays".to_owned(),
        schema: Arc::new(Schema::new(vec![
            Field::new("job", DataType::Utf8, false),
            Field::new("epoch", DataType::Int64, false),
            Field::new("source_topic", DataType::Utf8, false),
            Field::new("source_partition", DataType::Int32, false),
            Field::new("source_offset", DataType::Int64, false),
            Field::new("outcome", DataType::Utf8, false),
            Field::new("rows", DataType::Int64, false),
            Field::new("tables", DataType::Utf8, false),
            Field::new("reason_class", DataType::Utf8, true),
            Field::new("reason", DataType::Utf8, true),
            Field::new("replayed_ms", DataType::Int64, false),
            Field::new("record", DataType::Utf8, false),
        ])),
    };
    let ingest_gaps = RawTable {
        name: "ingest_gaps",
        sql_name: "ingest_gaps".to_owned(),
        schema: Arc::new(Schema::new(vec![
            Field::new("job", DataType::Utf8, false),
            Field::new("source_topic", DataType::Utf8, false),
            Field::new("source_partition", DataType::Int32, false),
            Field::new("from_offset", DataType::Int64, false),
            Field::new("to_offset", DataType::Int64, true),
            Field::new("tables", DataType::Utf8, false),
            Field::new("cause", DataType::Utf8, false),
            Field::new("actor", DataType::Utf8, false),
            Field::new("reason", DataType::Utf8, true),
            Field::new("recorded_ms", DataType::Int64, false),
        ])),
    };
    contracts().into_iter().map(of).chain([dead_letters, dead_letter_replays, ingest_gaps]).collect()
}

/// The columns of a contract's raw table: the contract's, the UTC day of event time (`YYYY-MM-DD`, the partition
/// column), and where in Kafka the row came from.
#[must_use]
pub fn raw_schema(contract: &Contract) -> SchemaRef {
    let mut fields: Vec<_> = contract.arrow_schema().fields().iter().cloned().collect();
    fields.extend([
        Arc::new(Field::new("event_date", DataType::Utf8, false)),
        Arc::new(Field::new("source_topic", DataType::Utf8, false)),
        Arc::new(Field::new("source_partition", DataType::Int32, false)),
        Arc::new(Field::new("source_offset", DataType::Int64, false)),
    ]);
    Arc::new(Schema::new(fields))
}
