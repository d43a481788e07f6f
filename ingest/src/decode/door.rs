//! The door: what of a good row may be stored, and in which form.
//!
//! Sessions and callers become pseudonyms under their tenant's key; text is dropped unless the operator keeps it; of
//! the fields that the contract does not name only those on the operator's list are kept. A producer's own `extra`
//! passes the same list: otherwise it would be a way around it. An adapter's `extra` is ours: it holds no text and is
//! kept. Headers that the operator lists stand in `extra` too, under `header.` and their name; nothing else can stand there
//! under such a name.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use arrow::array::builder::{MapBuilder, MapFieldNames, StringBuilder};
use arrow::array::{Array, ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringArray, new_null_array};
use arrow::datatypes::{Int64Type, SchemaRef};
use serde_json::{Map, Value};
use weir_schemas::{Contract, Pseudonyms};
use weir_store::{Keyring, UtcDay};

use super::{Incoming, Piece, batch_error};
use crate::Result;
use crate::tables::{self, EVENT_DATE, SOURCE_OFFSET, SOURCE_PARTITION, SOURCE_TOPIC};

/// The contract's column for unknown fields.
pub(crate) const EXTRA: &str = "extra";
/// What the names of headers begin with there.
const HEADER: &str = "header.";
/// Whose keys rows without a tenant are made with.
const DEFAULT_TENANT: &str = "default";

/// Turns decoded rows of one contract into rows of its raw table.
#[derive(Debug)]
pub(super) struct Door {
    contract: &'static Contract,
    schema: SchemaRef,
    topic: String,
    keyring: Keyring,
    keep_text: bool,
    /// Unknown fields to keep; empty for rows that an adapter wrote, which have none.
    allowed_unknown: Vec<String>,
    /// Headers to keep, each with its key in `extra`.
    headers: Vec<(String, String)>,
}

impl Door {
    pub(super) fn new(
        contract: &'static Contract,
        topic: &str,
        keyring: Keyring,
        keep_text: bool,
        allowed_unknown: &[String],
    ) -> Self {
        Self {
            contract,
            schema: tables::raw_schema(contract),
            topic: topic.to_owned(),
            keyring,
            keep_text,
            allowed_unknown: allowed_unknown.to_vec(),
            headers: Vec::new(),
        }
    }

    pub(super) fn keep_headers(&mut self, names: &[String]) {
        self.headers = names.iter().map(|name| (name.clone(), format!("{HEADER}{name}"))).collect();
    }

    pub(super) fn is_of(&self, contract: &Contract) -> bool {
        self.contract.name == contract.name
    }

    /// The raw table's rows for a piece that holds good rows only.
    pub(super) fn admit(&self, piece: &Piece<'_>, messages: &[Incoming<'_>]) -> Result<RecordBatch> {
        let rows = piece.batch.num_rows();
        let source = piece.rows.iter().map(|row| &messages[row.message]);
        let columns = self.schema.fields().iter().map(|field| -> Result<ArrayRef> {
            let name = field.name().as_str();
            Ok(match name {
                EVENT_DATE => Arc::new(self.event_dates(&piece.batch)?),
                SOURCE_TOPIC => Arc::new(StringArray::from_iter_values(std::iter::repeat_n(&self.topic, rows))),
                SOURCE_PARTITION => Arc::new(Int32Array::from_iter_values(source.clone().map(|from| from.partition))),
                SOURCE_OFFSET => Arc::new(Int64Array::from_iter_values(source.clone().map(|from| from.offset))),
                EXTRA if !self.headers.is_empty() => self.extra_with_headers(piece, messages),
                EXTRA if !self.allowed_unknown.is_empty() => self.extra(piece),
                _ if self.contract.text_columns.contains(&name) && !self.keep_text => {
                    new_null_array(field.data_type(), rows)
                }
                _ if self.contract.pseudonymised.contains(&name) => Arc::new(self.pseudonyms(&piece.batch, name)?),
                _ => match piece.batch.column_by_name(name) {
                    Some(column) => column.clone(),
                    None => new_null_array(field.data_type(), rows),
                },
            })
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        RecordBatch::try_new(self.schema.clone(), columns).map_err(|error| batch_error(self.contract, error))
    }

    fn event_dates(&self, batch: &RecordBatch) -> Result<StringArray> {
        let times = batch
            .column_by_name(self.contract.time_column)
            .and_then(|column| column.as_primitive_opt::<Int64Type>())
            .ok_or_else(|| batch_error(self.contract, "it has no time column"))?;
        // Neighbours mostly share their day: print it when it changes.
        let mut last: Option<(UtcDay, String)> = None;
        let mut dates = StringBuilder::with_capacity(times.len(), times.len() * "2026-01-01".len());
        for time_ms in times.values() {
            let day = UtcDay::of_ms(*time_ms);
            match &last {
                Some((known, text)) if *known == day => dates.append_value(text),
                _ => dates.append_value(&last.insert((day, day.to_string())).1),
            }
        }
        Ok(dates.finish())
    }

    fn pseudonyms(&self, batch: &RecordBatch, field: &str) -> Result<StringArray> {
        let text = |name: &str| batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
        let values = text(field).ok_or_else(|| batch_error(self.contract, format!("it has no text column {field}")))?;
        let tenants = text("tenant");
        let tenant_of = |row: usize| match tenants {
            Some(tenants) if tenants.is_valid(row) => tenants.value(row),
            _ => DEFAULT_TENANT,
        };
        // Callers and sessions come back within a batch; a look-up costs a tenth of a keyed hash.
        let mut known: HashMap<(&str, &str), [u8; 32], ahash::RandomState> = HashMap::default();
        let mut last: Option<(&str, Pseudonyms)> = None;
        let mut pseudonyms = StringBuilder::with_capacity(values.len(), values.len() * 32);
        for (row, value) in values.iter().enumerate() {
            let Some(value) = value else {
                pseudonyms.append_null();
                continue;
            };
            let tenant = tenant_of(row);
            let digits = match known.entry((tenant, value)) {
                Entry::Occupied(found) => *found.get(),
                Entry::Vacant(place) => {
                    let key = match &last {
                        Some((of, key)) if *of == tenant => key,
                        _ => &last.insert((tenant, self.keyring.tenant_key(tenant)?.pseudonyms(field))).1,
                    };
                    *place.insert(key.of(value))
                }
            };
            pseudonyms.append_value(std::str::from_utf8(&digits).unwrap_or_default());
        }
        Ok(pseudonyms.finish())
    }

    /// What is in `extra` without them, and the headers as they are.
    fn extra_with_headers(&self, piece: &Piece<'_>, messages: &[Incoming<'_>]) -> ArrayRef {
        let without = match piece.batch.column_by_name(EXTRA) {
            _ if !self.allowed_unknown.is_empty() => Some(self.extra(piece)),
            column => column.cloned(),
        };
        let without = without.as_ref().and_then(|column| column.as_map_opt());
        let mut builder = map_builder();
        for (at, row) in piece.rows.iter().enumerate() {
            let mut any = false;
            if let Some(without) = without.filter(|without| without.is_valid(at)) {
                let entries = without.value(at);
                let (keys, values) = (entries.column(0).as_string::<i32>(), entries.column(1).as_string::<i32>());
                for (key, value) in
                    keys.iter().zip(values).filter(|(key, _)| !key.is_some_and(|key| key.starts_with(HEADER)))
                {
                    builder.keys().append_option(key);
                    builder.values().append_option(value);
                }
                any = true;
            }
            for (name, value) in messages[row.message].headers.iter() {
                let key = self.headers.iter().find(|(listed, _)| listed == name).map(|(_, key)| key);
                if let (Some(key), Ok(value)) = (key, std::str::from_utf8(value)) {
                    builder.keys().append_value(key);
                    builder.values().append_value(value);
                    any = true;
                }
            }
            builder.append(any).expect("as many values as keys");
        }
        Arc::new(builder.finish())
    }

    /// Allowed unknown fields as JSON text. Only this reads a message a second time, and only when a list is set.
    fn extra(&self, piece: &Piece<'_>) -> ArrayRef {
        let mut builder = map_builder();
        for row in &piece.rows {
            let object: Map<String, Value> = serde_json::from_slice(row.bytes).unwrap_or_default();
            let sent = object.get(EXTRA).and_then(Value::as_object);
            let mut any = false;
            for name in &self.allowed_unknown {
                let unknown = object.get(name).filter(|_| self.contract.field(name).is_none());
                let value = unknown.map(Value::to_string).or_else(|| {
                    // In `extra` values are JSON text already.
                    sent?.get(name).map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
                });
                if let Some(value) = value {
                    builder.keys().append_value(name);
                    builder.values().append_value(value);
                    any = true;
                }
            }
            // Lengths of keys and values agree by construction, which is all that can fail here.
            builder.append(any).expect("as many values as keys");
        }
        Arc::new(builder.finish())
    }
}

fn map_builder() -> MapBuilder<StringBuilder, StringBuilder> {
    let names = MapFieldNames { entry: "key_value".to_owned(), key: "key".to_owned(), value: "value".to_owned() };
    MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new())
}
