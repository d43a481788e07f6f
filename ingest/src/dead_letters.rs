//! Messages that could not be read, as rows: sealed, dated, with the reason beside them.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow::array::{ArrayRef, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray};
use weir_store::{Keyring, StoreError, UtcDay};

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
    /// Packed, as [`weir_decode::Headers`] has them.
    pub(crate) headers: Vec<u8>,
}

/// What was sealed of a message.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub(crate) payload: Vec<u8>,
    pub(crate) headers: Vec<u8>,
}

/// The form of a letter with headers: their length, they themselves, the payload. A letter without any is its payload.
const WITH_HEADERS: &str = "with headers";

fn seal(keyring: &Keyring, day: UtcDay, letter: &DeadLetter) -> Result<Vec<u8>> {
    if letter.headers.is_empty() {
        return Ok(keyring.seal(day, &letter.payload)?);
    }
    // Less than a message of Kafka's can be long.
    let length = u32::try_from(letter.headers.len()).unwrap_or(u32::MAX).to_le_bytes();
    Ok(keyring.seal_as(WITH_HEADERS, day, &[&length, letter.headers.as_slice(), &letter.payload].concat())?)
}

/// Opens what [`batch`] sealed; `None` when the day's key has expired.
pub(crate) fn unseal(keyring: &Keyring, day: UtcDay, sealed: &[u8]) -> Result<Option<Sealed>, StoreError> {
    match keyring.unseal(day, sealed) {
        Ok(payload) => return Ok(payload.map(|payload| Sealed { payload, headers: Vec::new() })),
        Err(StoreError::NotSealedHere { .. }) => {}
        Err(error) => return Err(error),
    }
    let Some(bytes) = keyring.unseal_as(WITH_HEADERS, day, sealed)? else { return Ok(None) };
    let parts = bytes.split_first_chunk().and_then(|(length, rest)| {
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        rest.split_at_checked(length)
    });
    let (headers, payload) = parts.ok_or_else(|| StoreError::NotSealedHere { day: day.to_string() })?;
    Ok(Some(Sealed { payload: payload.to_vec(), headers: headers.to_vec() }))
}

/// The rows of `dead_letters`, sealed with today's key.
pub(crate) fn batch(letters: &[&DeadLetter], topics: &[String], keyring: &Keyring) -> Result<RecordBatch> {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let now_ms = i64::try_from(now_ms).unwrap_or(i64::MAX);
    let today = UtcDay::of_ms(now_ms);
    let date = today.to_string();
    let sealed = letters.iter().map(|letter| seal(keyring, today, letter)).collect::<Result<Vec<_>>>()?;
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
