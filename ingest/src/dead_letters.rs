//! Messages that could not be read, as rows: sealed, dated, with the reason beside them.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow::array::{ArrayRef, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray};
use weir_store::{Keyring, UtcDay};

use crate::tables::{DEAD_LETTERS, dead_letters_spec};
use crate::{IngestError, Result};
use weir_decode::Reason;

/// One message that could not be read. `Debug` is not derived: the payload must not reach a log.
pub(crate) struct DeadLetter {
    /// Index of its topic.
    pub(crate) topic: usize,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) reason: Reason,
    pub(crate) payload: Vec<u8>,
}

/// The rows of `dead_letters`, sealed with today's key.
pub(crate) fn batch(letters: &[&DeadLetter], topics: &[String], keyring: &Keyring) -> Result<RecordBatch> {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let now_ms = i64::try_from(now_ms).unwrap_or(i64::MAX);
    let today = UtcDay::of_ms(now_ms);
    let date = today.to_string();
    let sealed = letters.iter().map(|letter| keyring.seal(today, &letter.payload)).collect::<Result<Vec<_>, _>>()?;
    let length = |letter: &&DeadLetter| i64::try_from(letter.payload.len()).unwrap_or(i64::MAX);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(letters.iter().map(|letter| &topics[letter.topic]))),
        Arc::new(Int32Array::from_iter_values(letters.iter().map(|letter| letter.partition))),
        Arc::new(Int64Array::from_iter_values(letters.iter().map(|letter| letter.offset))),
        Arc::new(StringArray::from_iter_values(letters.iter().map(|letter| letter.reason.class()))),
        Arc::new(StringArray::from_iter_values(letters.iter().map(|letter| letter.reason.to_string()))),
        Arc::new(Int64Array::from_iter_values(letters.iter().map(|_| now_ms))),
        Arc::new(StringArray::from_iter_values(letters.iter().map(|_| &date))),
        Arc::new(Int64Array::from_iter_values(letters.iter().map(length))),
        Arc::new(BinaryArray::from_iter_values(&sealed)),
    ];
    RecordBatch::try_new(dead_letters_spec().schema, columns)
        .map_err(|error| IngestError::Batch { table: DEAD_LETTERS, why: error.to_string() })
}
