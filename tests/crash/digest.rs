//! A row's content as one number, computed alike from what was produced and from what is stored.
//!
//! The digest is the sum of a hash of each cell that is not null, name and value. So it does not depend on the order
//! of columns, a value in the wrong column changes it, and so does a value where there should be none.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Int32Type, Int64Type};

/// Columns that say where a row came from, and not what it holds.
pub const SOURCE: [&str; 3] = ["source_topic", "source_partition", "source_offset"];
/// The column whose values depend on a key: it is compared by itself.
pub const SESSION: &str = "session_id";

/// The digest of a row that is yet to be stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Row(u64);

impl Row {
    pub fn text(&mut self, column: &str, value: &str) -> &mut Self {
        self.add(column, value.as_bytes())
    }

    pub fn integer(&mut self, column: &str, value: i64) -> &mut Self {
        self.add(column, &value.to_le_bytes())
    }

    pub fn number(&mut self, column: &str, value: f64) -> &mut Self {
        self.add(column, &value.to_bits().to_le_bytes())
    }

    pub fn flag(&mut self, column: &str, value: bool) -> &mut Self {
        self.add(column, &[u8::from(value)])
    }

    pub fn digest(self) -> u64 {
        self.0
    }

    fn add(&mut self, column: &str, value: &[u8]) -> &mut Self {
        self.0 = self.0.wrapping_add(cell(seed(column), value));
        self
    }
}

/// The digest of each stored row.
pub fn of_rows(batch: &RecordBatch) -> Vec<u64> {
    let mut digests = vec![0_u64; batch.num_rows()];
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let name = field.name().as_str();
        if SOURCE.contains(&name) || name == SESSION || column.null_count() == column.len() {
            continue;
        }
        let seed = seed(name);
        let mut add = |row: usize, bytes: &[u8]| digests[row] = digests[row].wrapping_add(cell(seed, bytes));
        for row in (0..column.len()).filter(|row| column.is_valid(*row)) {
            match column.data_type() {
                DataType::Utf8 => add(row, column.as_string::<i32>().value(row).as_bytes()),
                DataType::Int32 => {
                    add(row, &i64::from(column.as_primitive::<Int32Type>().value(row)).to_le_bytes());
                }
                DataType::Int64 => add(row, &column.as_primitive::<Int64Type>().value(row).to_le_bytes()),
                DataType::Float64 => {
                    add(row, &column.as_primitive::<Float64Type>().value(row).to_bits().to_le_bytes());
                }
                DataType::Boolean => add(row, &[u8::from(column.as_boolean().value(row))]),
                // Nothing that is produced has lists or maps: one that holds something is wrong, whatever it holds.
                _ => add(row, b"nothing was sent for this column"),
            }
        }
    }
    digests
}

fn seed(column: &str) -> u64 {
    fnv(0xcbf2_9ce4_8422_2325, column.as_bytes())
}

fn cell(seed: u64, value: &[u8]) -> u64 {
    // Sums of plain FNV hashes of short values would leave the high bits idle.
    crate::truth::mix(fnv(seed ^ 0xff, value))
}

/// FNV-1a, 64 bits (Fowler, Noll and Vo).
fn fnv(start: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, StringArray};

    use super::*;

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
            .unwrap()
    }

    #[test]
    fn produced_and_stored_rows_have_the_same_digest() {
        let stored = batch(vec![
            ("flag", Arc::new(BooleanArray::from(vec![Some(true), None]))),
            ("number", Arc::new(Float64Array::from(vec![0.25, -1.0]))),
            ("count", Arc::new(Int32Array::from(vec![7, 8]))),
            ("id", Arc::new(StringArray::from(vec!["a", "b"]))),
            ("source_offset", Arc::new(Int64Array::from(vec![1, 2]))),
        ]);
        let (mut first, mut second) = (Row::default(), Row::default());
        first.text("id", "a").integer("count", 7).number("number", 0.25).flag("flag", true);
        second.text("id", "b").integer("count", 8).number("number", -1.0);
        assert_eq!(of_rows(&stored), [first.digest(), second.digest()]);
    }

    #[test]
    fn a_value_in_another_column_or_where_none_should_be_changes_it() {
        let digest = |column: &str, value: &str| {
            of_rows(&batch(vec![(column, Arc::new(StringArray::from(vec![value])) as ArrayRef)]))[0]
        };
        assert_ne!(digest("id", "a"), digest("id", "b"));
        assert_ne!(digest("id", "a"), digest("tenant", "a"));
        assert_ne!(digest("id", ""), Row::default().digest(), "empty is not null");
    }
}
