//! DCGM's blank values become null: they say that there is no value, not that it is large.
//!
//! `dcgm_structs.h` has one blank for each type, and codes just above it (not found, not supported, no permission).
//! Exporters pass them on as numbers.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, RecordBatch};
use arrow::datatypes::Float64Type;
use weir_schemas::{Bounds, Contract};

use crate::Piece;

/// `DCGM_INT64_BLANK` is 0x7ffffffffffffff0; as a 64-bit float it and all its codes are 2^63.
const INT64_BLANK: f64 = 9_223_372_036_854_775_808.0;
/// `DCGM_FP64_BLANK`, 2^47, and its codes.
const FP64_BLANKS: std::ops::RangeInclusive<f64> = 140_737_488_355_328.0..=140_737_488_355_343.0;
/// `DCGM_INT32_BLANK`, 0x7ffffff0, and its codes.
const INT32_BLANKS: std::ops::RangeInclusive<f64> = 2_147_483_632.0..=2_147_483_647.0;

/// The 32-bit blanks are numbers that an energy counter passes through: they are blank only where the unit rules them
/// out.
fn is_blank(value: f64, bounds: Option<Bounds>) -> bool {
    value == INT64_BLANK
        || FP64_BLANKS.contains(&value)
        || (INT32_BLANKS.contains(&value) && bounds.is_some_and(|bounds| !bounds.allow(value)))
}

/// Takes the blanks out of the piece's DCGM columns.
pub(crate) fn to_null(contract: &Contract, piece: &mut Piece<'_>) {
    let schema = piece.batch.schema();
    let mut columns = piece.batch.columns().to_vec();
    let mut any = false;
    for (field, column) in schema.fields().iter().zip(&mut columns) {
        if !field.name().starts_with("DCGM_") {
            continue;
        }
        let bounds = contract.field(field.name()).and_then(weir_schemas::Field::bounds);
        let Some(values) = column.as_primitive_opt::<Float64Type>() else { continue };
        if values.values().iter().any(|value| is_blank(*value, bounds)) {
            let cleaned: Float64Array =
                values.iter().map(|value| value.filter(|value| !is_blank(*value, bounds))).collect();
            *column = Arc::new(cleaned) as ArrayRef;
            any = true;
        }
    }
    if any && let Ok(batch) = RecordBatch::try_new(schema, columns) {
        piece.batch = batch;
    }
}
