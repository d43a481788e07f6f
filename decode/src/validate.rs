//! What types cannot say: required fields, plausible event times, quantities that can be, words of a closed
//! vocabulary, and propensities that are probabilities.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, PrimitiveArray};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Float64Type, Int32Type, Int64Type};
use weir_schemas::{Bounds, Contract, FieldKind, Requirement};

use crate::{Incoming, Piece, Reason, blanks, candidates};

/// 2000-01-01T00:00:00Z in ms: earlier times are seconds taken for milliseconds, or an unset clock.
const EARLIEST_MS: i64 = 946_684_800_000;
/// 2100-01-01T00:00:00Z in ms: later times are microseconds taken for milliseconds.
const LATEST_MS: i64 = 4_102_444_800_000;
const DAY_MS: i64 = 86_400_000;
/// Rows of a column with a number out of bounds. The common case, none, is one pass over the plain values.
fn broken_rows(bounds: Bounds, column: &dyn Array) -> Vec<usize> {
    match column.data_type() {
        DataType::Int32 => broken_slots(column.as_primitive::<Int32Type>(), |value| bounds.allow(f64::from(value))),
        DataType::Float64 => broken_slots(column.as_primitive::<Float64Type>(), |value| bounds.allow(value)),
        DataType::Map(..) => {
            let map = column.as_map();
            rows_of(column, map.offsets(), &broken_rows(bounds, map.values()))
        }
        _ => Vec::new(),
    }
}

fn broken_slots<T: ArrowPrimitiveType>(column: &PrimitiveArray<T>, allow: impl Fn(T::Native) -> bool) -> Vec<usize> {
    if column.values().iter().all(|value| allow(*value)) {
        return Vec::new();
    }
    (0..column.len()).filter(|row| column.is_valid(*row) && !allow(column.value(*row))).collect()
}

/// As `broken_rows`, for the latencies inside a column of tool calls.
fn broken_tool_rows(bounds: Bounds, column: &dyn Array) -> Vec<usize> {
    let Some(calls) = column.as_list_opt::<i32>() else { return Vec::new() };
    let latencies = calls.values().as_struct_opt().and_then(|calls| calls.column_by_name("latency_ms"));
    latencies.map(|latencies| rows_of(column, calls.offsets(), &broken_rows(bounds, latencies))).unwrap_or_default()
}

/// The rows that the given elements of a list or map belong to.
fn rows_of(column: &dyn Array, offsets: &[i32], elements: &[usize]) -> Vec<usize> {
    // Rows end where the next begins: the first row whose end lies past the element.
    let row_of = |element: &usize| offsets[1..].partition_point(|end| usize::try_from(*end).unwrap_or(0) <= *element);
    elements.iter().map(row_of).filter(|row| *row < column.len() && column.is_valid(*row)).collect()
}

/// Holds a decoded piece against its contract: DCGM's blanks become null, and each message with a row that breaks a rule
/// gets a reason, the first rule broken. `messages` are those that the piece's rows point into.
pub fn check(
    contract: &Contract,
    piece: &mut Piece<'_>,
    messages: &[Incoming<'_>],
    reasons: &mut BTreeMap<usize, Reason>,
) {
    blanks::to_null(contract, piece);
    let piece = &*piece;
    let mut reject = |row: usize, reason: Reason| {
        reasons.entry(piece.rows[row].message).or_insert(reason);
    };
    for field in contract.fields.iter().filter(|field| field.requirement == Requirement::Required) {
        let Some(column) = piece.batch.column_by_name(field.name).filter(|column| column.null_count() > 0) else {
            continue;
        };
        for row in (0..column.len()).filter(|row| column.is_null(*row)) {
            reject(row, Reason::Missing { field: field.name });
        }
    }

    let field = contract.time_column;
    let times = piece.batch.column_by_name(field).and_then(|column| column.as_primitive_opt::<Int64Type>());
    for (row, time_ms) in times.iter().flat_map(|times| times.iter().enumerate()) {
        let Some(time_ms) = time_ms else { continue };
        // Measured against the message's own timestamp, not our clock: read again, it must be judged the same.
        let sent_ms = messages[piece.rows[row].message].timestamp_ms;
        let latest_ms = sent_ms.map_or(LATEST_MS, |sent_ms| sent_ms.saturating_add(DAY_MS).min(LATEST_MS));
        if time_ms <= EARLIEST_MS {
            reject(row, Reason::TimeTooEarly { field });
        } else if time_ms >= latest_ms {
            reject(row, Reason::TimeTooLate { field });
        }
    }

    for field in contract.fields {
        let Some(column) = piece.batch.column_by_name(field.name) else { continue };
        let (bounds, rows) = match (field.kind, field.bounds()) {
            (FieldKind::ToolCalls, _) => {
                let Some(bounds) = Bounds::of_unit("ms") else { continue };
                (bounds, broken_tool_rows(bounds, column))
            }
            (_, Some(bounds)) => (bounds, broken_rows(bounds, column)),
            (_, None) => continue,
        };
        for row in rows {
            reject(
                row,
                match field.name {
                    "propensity" => Reason::Propensity,
                    name => Reason::OutOfRange { field: name, range: bounds.words },
                },
            );
        }
    }

    for field in contract.fields {
        let words = piece.batch.column_by_name(field.name).and_then(|column| column.as_string_opt::<i32>());
        let (Some(choices), Some(words)) = (field.choices(), words) else { continue };
        for (row, word) in words.iter().enumerate() {
            if word.is_some_and(|word| !choices.contains(&word)) {
                reject(row, Reason::UnknownWord { field: field.name, choices: field.unit });
            }
        }
    }

    for (row, reason) in candidates::broken(&piece.batch) {
        reject(row, reason);
    }
}
