//! What types cannot say: required fields, plausible event times, quantities that can be, and
//! propensities that are probabilities.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Float64Type, Int32Type, Int64Type};
use weir_schemas::{Contract, FieldKind, Propensity, Requirement};

use super::{Incoming, Piece, Reason};

/// 2000-01-01T00:00:00Z in ms: earlier times are seconds taken for milliseconds, or an unset clock.
const EARLIEST_MS: i64 = 946_684_800_000;
/// 2100-01-01T00:00:00Z in ms: later times are microseconds taken for milliseconds.
const LATEST_MS: i64 = 4_102_444_800_000;
const DAY_MS: i64 = 86_400_000;
/// Shares are computed in single precision too: 1 may come as 1.0000001.
const SHARE_MAX: f64 = 1.000_001;

/// The numbers that a quantity can be, ends included. NaN is in none.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    words: &'static str,
    low: f64,
    high: f64,
}

impl Bounds {
    const AMOUNT: Self = Self { words: "finite and at least 0", low: 0.0, high: f64::MAX };
    const SHARE: Self = Self { words: "within 0..1", low: 0.0, high: SHARE_MAX };
    const NUMBER: Self = Self { words: "finite", low: f64::MIN, high: f64::MAX };

    /// By a field's unit in its contract; none for names, event times, vectors and what has a rule of its own.
    fn of(unit: &str) -> Option<Self> {
        if unit.starts_with("ms since") {
            return None;
        }
        match unit.split([' ', ',']).next()? {
            "count" | "tokens" | "requests" | "ms" | "USD" | "J" | "mJ" | "W" | "%" | "MiB" | "MHz" => {
                Some(Self::AMOUNT)
            }
            "0..1" => Some(Self::SHARE),
            "degC" => Some(Self::NUMBER),
            _ => None,
        }
    }

    fn allow(self, value: f64) -> bool {
        self.low <= value && value <= self.high
    }

    /// Rows of a column with a number out of bounds. The common case, none, is one pass over the plain values.
    fn broken_by(self, column: &dyn Array) -> Vec<usize> {
        let suspicious = match column.data_type() {
            DataType::Int32 => column.as_primitive::<Int32Type>().values().iter().any(|v| !self.allow(f64::from(*v))),
            DataType::Float64 => column.as_primitive::<Float64Type>().values().iter().any(|v| !self.allow(*v)),
            _ => return Vec::new(),
        };
        if !suspicious {
            return Vec::new();
        }
        let value = |row: usize| match column.data_type() {
            DataType::Int32 => f64::from(column.as_primitive::<Int32Type>().value(row)),
            _ => column.as_primitive::<Float64Type>().value(row),
        };
        (0..column.len()).filter(|row| column.is_valid(*row) && !self.allow(value(*row))).collect()
    }

    /// As `broken_by`, for the latencies inside a column of tool calls.
    fn broken_by_tools(self, column: &dyn Array) -> Vec<usize> {
        let Some(calls) = column.as_list_opt::<i32>() else { return Vec::new() };
        let latencies = calls.values().as_struct_opt().and_then(|calls| calls.column_by_name("latency_ms"));
        let broken = latencies.map(|latencies| self.broken_by(latencies)).unwrap_or_default();
        let row_of = |call: usize| {
            // Rows end where the next begins: the first row whose end lies past the call.
            calls.offsets()[1..].partition_point(|end| usize::try_from(*end).unwrap_or(0) <= call)
        };
        broken.into_iter().map(row_of).filter(|row| *row < calls.len() && calls.is_valid(*row)).collect()
    }
}

/// Adds a reason for each message of the piece that breaks a rule; the first rule broken counts.
pub(super) fn validate(
    contract: &Contract,
    piece: &Piece<'_>,
    messages: &[Incoming<'_>],
    reasons: &mut BTreeMap<usize, Reason>,
) {
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
        let (bounds, rows) = match (field.kind, Bounds::of(field.unit)) {
            (FieldKind::ToolCalls, _) => (Bounds::AMOUNT, Bounds::AMOUNT.broken_by_tools(column)),
            (_, Some(bounds)) => (bounds, bounds.broken_by(column)),
            (_, None) => continue,
        };
        for row in rows {
            reject(row, Reason::OutOfRange { field: field.name, range: bounds.words });
        }
    }

    let propensities =
        piece.batch.column_by_name("propensity").and_then(|column| column.as_primitive_opt::<Float64Type>());
    for (row, propensity) in propensities.iter().flat_map(|propensities| propensities.iter().enumerate()) {
        if propensity.is_some_and(|propensity| Propensity::new(propensity).is_err()) {
            reject(row, Reason::Propensity);
        }
    }
}
