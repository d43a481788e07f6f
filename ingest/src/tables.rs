//! The tables that ingest fills.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use weir_schemas::Contract;
use weir_store::TableSpec;

/// Partition column of raw tables: day of the event, UTC, `YYYY-MM-DD`.
pub(crate) const EVENT_DATE: &str = "event_date";
/// Topic that the row came from.
pub(crate) const SOURCE_TOPIC: &str = "source_topic";
/// Partition of that topic.
pub(crate) const SOURCE_PARTITION: &str = "source_partition";
/// Offset in that partition.
pub(crate) const SOURCE_OFFSET: &str = "source_offset";
/// Name of the dead-letter table.
pub(crate) const DEAD_LETTERS: &str = "dead_letters";
/// Name of the table of what replays did with them.
pub(crate) const DEAD_LETTER_REPLAYS: &str = "dead_letter_replays";
/// Name of the table of offsets that were passed over unread.
pub(crate) const INGEST_GAPS: &str = "ingest_gaps";

/// The raw table of a contract: its columns, then `event_date` (the partition), `source_topic`, `source_partition`,
/// `source_offset`. One native message is one row, so the last three identify it; an adapter's message can be several.
#[must_use]
pub fn raw_table_spec(contract: &Contract) -> TableSpec {
    TableSpec {
        name: contract.name.to_owned(),
        schema: raw_schema(contract),
        partition_by: Some(EVENT_DATE.to_owned()),
    }
}

/// The table of messages that could not be read: where each lies in Kafka, why, when it was seen (ms since the Unix
/// epoch; `observed_date` is its UTC day and the partition), how long it is (bytes), and the message sealed with that
/// day's key.
#[must_use]
pub fn dead_letters_spec() -> TableSpec {
    let schema = Schema::new(vec![
        Field::new(SOURCE_TOPIC, DataType::Utf8, false),
        Field::new(SOURCE_PARTITION, DataType::Int32, false),
        Field::new(SOURCE_OFFSET, DataType::Int64, false),
        Field::new("reason_class", DataType::Utf8, false),
        Field::new("reason", DataType::Utf8, false),
        Field::new("observed_ms", DataType::Int64, false),
        Field::new("observed_date", DataType::Utf8, false),
        Field::new("payload_bytes", DataType::Int64, false),
        Field::new("sealed_payload", DataType::Binary, false),
    ]);
    TableSpec {
        name: DEAD_LETTERS.to_owned(),
        schema: Arc::new(schema),
        partition_by: Some("observed_date".to_owned()),
    }
}

/// The table of what replays did with dead letters, a row per letter and epoch: the job and its epoch, the letter, the
/// outcome (`stored`, `already_stored` by ingest itself, or `rejected` again), the rows that it adds and the raw tables
/// that get them (separated by commas), the new reason of a letter that was rejected, when (ms since the Unix epoch), and
/// the folder of objects that hold the rows until the raw tables do.
#[must_use]
pub fn dead_letter_replays_spec() -> TableSpec {
    let schema = Schema::new(vec![
        Field::new("job", DataType::Utf8, false),
        Field::new("epoch", DataType::Int64, false),
        Field::new(SOURCE_TOPIC, DataType::Utf8, false),
        Field::new(SOURCE_PARTITION, DataType::Int32, false),
        Field::new(SOURCE_OFFSET, DataType::Int64, false),
        Field::new("outcome", DataType::Utf8, false),
        Field::new("rows", DataType::Int64, false),
        Field::new("tables", DataType::Utf8, false),
        Field::new("reason_class", DataType::Utf8, true),
        Field::new("reason", DataType::Utf8, true),
        Field::new("replayed_ms", DataType::Int64, false),
        Field::new("record", DataType::Utf8, false),
    ]);
    TableSpec { name: DEAD_LETTER_REPLAYS.to_owned(), schema: Arc::new(schema), partition_by: None }
}

/// The table of offsets that were passed over unread, a row per gap: the job, the partition, the first offset of the gap
/// and the one behind it (null when nobody knows: the topic was made again), the raw tables that have the gap (separated
/// by commas), why (`data_loss`, `skipped` or `topic_forgotten`), who decided it, their reason, and when (ms since the
/// Unix epoch).
#[must_use]
pub fn ingest_gaps_spec() -> TableSpec {
    let schema = Schema::new(vec![
        Field::new("job", DataType::Utf8, false),
        Field::new(SOURCE_TOPIC, DataType::Utf8, false),
        Field::new(SOURCE_PARTITION, DataType::Int32, false),
        Field::new("from_offset", DataType::Int64, false),
        Field::new("to_offset", DataType::Int64, true),
        Field::new("tables", DataType::Utf8, false),
        Field::new("cause", DataType::Utf8, false),
        Field::new("actor", DataType::Utf8, false),
        Field::new("reason", DataType::Utf8, true),
        Field::new("recorded_ms", DataType::Int64, false),
    ]);
    TableSpec { name: INGEST_GAPS.to_owned(), schema: Arc::new(schema), partition_by: None }
}

pub(crate) fn raw_schema(contract: &Contract) -> SchemaRef {
    let mut fields = contract.arrow_schema().fields().to_vec();
    fields.push(Arc::new(Field::new(EVENT_DATE, DataType::Utf8, false)));
    fields.push(Arc::new(Field::new(SOURCE_TOPIC, DataType::Utf8, false)));
    fields.push(Arc::new(Field::new(SOURCE_PARTITION, DataType::Int32, false)));
    fields.push(Arc::new(Field::new(SOURCE_OFFSET, DataType::Int64, false)));
    Arc::new(Schema::new(fields))
}
