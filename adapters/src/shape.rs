//! From the type that an expression has to the type that a contract wants, where no value can change by it.
//!
//! Whole numbers widen, names of nested fields follow the contract, struct fields are matched by name and missing ones
//! are null. Everything else an operator has to write down as a cast.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, MapArray, StructArray, new_null_array};
use arrow::buffer::NullBuffer;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Fields};
use arrow::error::ArrowError;

/// Can values of `from` stand in a column of `to`? A whole number may still be too large for it, one row at a time.
pub(crate) fn fits(from: &DataType, to: &DataType) -> bool {
    match (from, to) {
        (DataType::Null, _) => true,
        (DataType::Utf8View | DataType::LargeUtf8, DataType::Utf8) => true,
        (from, DataType::Int32 | DataType::Int64) if from.is_integer() => true,
        (from, DataType::Float64) if from.is_integer() || from == &DataType::Float32 => true,
        (DataType::Float64, DataType::Float32) => true,
        (DataType::List(from), DataType::List(to)) => fits(from.data_type(), to.data_type()),
        (DataType::Map(from, _), DataType::Map(to, _)) => match (from.data_type(), to.data_type()) {
            (DataType::Struct(from), DataType::Struct(to)) => {
                from.iter().zip(to).all(|(from, to)| fits(from.data_type(), to.data_type()))
            }
            _ => false,
        },
        (DataType::Struct(from), DataType::Struct(to)) => {
            from.iter().all(|from| to.find(from.name()).is_some_and(|(_, to)| fits(from.data_type(), to.data_type())))
        }
        _ => from == to,
    }
}

/// The same values in the wanted type. The types must fit.
pub(crate) fn reshape(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    let from = array.data_type();
    if from == to {
        return Ok(Arc::clone(array));
    }
    match (from, to) {
        (DataType::Null, _) => Ok(new_null_array(to, array.len())),
        (DataType::List(_), DataType::List(item)) => {
            let list = array.as_list::<i32>();
            let values = reshape(list.values(), item.data_type())?;
            let nulls = list.nulls().cloned();
            Ok(Arc::new(ListArray::try_new(Arc::clone(item), list.offsets().clone(), values, nulls)?))
        }
        (DataType::Struct(_), DataType::Struct(fields)) => {
            let given = array.as_struct();
            Ok(Arc::new(reshape_struct(given, fields, |name| given.column_by_name(name))?))
        }
        (DataType::Map(_, _), DataType::Map(entries, sorted)) => {
            let map = array.as_map();
            let DataType::Struct(fields) = entries.data_type() else {
                return Err(ArrowError::CastError("entries of a map are structs".to_owned()));
            };
            // Keys and values are known by their place: their names differ from writer to writer.
            let parts = |name: &str| Some(if name == fields[0].name() { map.keys() } else { map.values() });
            let values = reshape_struct(map.entries(), fields, parts)?;
            let (offsets, nulls) = (map.offsets().clone(), map.nulls().cloned());
            Ok(Arc::new(MapArray::try_new(Arc::clone(entries), offsets, values, nulls, *sorted)?))
        }
        _ => cast_with_options(array, to, &CastOptions { safe: false, ..CastOptions::default() }),
    }
}

fn reshape_struct<'a>(
    given: &'a StructArray,
    fields: &Fields,
    part: impl Fn(&str) -> Option<&'a ArrayRef>,
) -> Result<StructArray, ArrowError> {
    let columns = fields.iter().map(|field| match part(field.name()) {
        Some(column) => reshape(column, field.data_type()),
        None => Ok(new_null_array(field.data_type(), given.len())),
    });
    let nulls: Option<NullBuffer> = given.nulls().cloned();
    StructArray::try_new(fields.clone(), columns.collect::<Result<_, _>>()?, nulls)
}
