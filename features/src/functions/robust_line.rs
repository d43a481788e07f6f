//! `robust_line(x, y)`: Theil's and Sen's line as an aggregate.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StructArray};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Float64Type};
use datafusion::common::utils::SingleRowListArrayBuilder;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};
use xxhash_rust::xxh3::xxh3_64;

use crate::robust_line::{POINTS_MAX, theil_sen};

pub(super) fn robust_line() -> AggregateUDF {
    let signature = Signature::exact(vec![DataType::Float64, DataType::Float64], Volatility::Immutable);
    AggregateUDF::from(RobustLine { signature })
}

/// A struct of slope, its 95 % interval, intercept, and how many points there were. NULL where there is no line.
#[derive(Debug, PartialEq, Eq, Hash)]
struct RobustLine {
    signature: Signature,
}

fn fields() -> Fields {
    let number = |name: &str| Field::new(name, DataType::Float64, true);
    Fields::from(vec![
        number("slope"),
        number("slope_low"),
        number("slope_high"),
        number("intercept"),
        Field::new("points", DataType::Int64, true),
    ])
}

impl AggregateUDFImpl for RobustLine {
    fn name(&self) -> &'static str {
        "robust_line"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Struct(fields()))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let list = |name: &str| {
            Field::new(format!("{}[{name}]", args.name), DataType::new_list(DataType::Float64, true), true)
        };
        let points = Field::new(format!("{}[points]", args.name), DataType::Int64, true);
        Ok(vec![Arc::new(list("x")), Arc::new(list("y")), Arc::new(points)])
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Points::default()))
    }
}

/// A sample of the points: those with the smallest hashes, so that neither order nor split matters.
#[derive(Debug, Default)]
struct Points {
    /// (hash, x, y), in order of hash.
    kept: Vec<(u64, f64, f64)>,
    seen: i64,
}

impl Points {
    fn keep(&mut self, columns: &[ArrayRef]) {
        let (xs, ys) = (columns[0].as_primitive::<Float64Type>(), columns[1].as_primitive::<Float64Type>());
        for (x, y) in xs.iter().zip(ys).filter_map(|(x, y)| Some((x?, y?))) {
            if x.is_finite() && y.is_finite() {
                self.seen += 1;
                self.insert(x, y);
            }
        }
    }

    fn insert(&mut self, x: f64, y: f64) {
        let hash = xxh3_64([x.to_le_bytes(), y.to_le_bytes()].as_flattened());
        let place = self.kept.partition_point(|(kept, ..)| *kept <= hash);
        if place < POINTS_MAX {
            self.kept.insert(place, (hash, x, y));
            self.kept.truncate(POINTS_MAX);
        }
    }
}

impl Accumulator for Points {
    fn update_batch(&mut self, columns: &[ArrayRef]) -> Result<()> {
        self.keep(columns);
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let (xs, ys) = (states[0].as_list::<i32>(), states[1].as_list::<i32>());
        for row in (0..xs.len()).filter(|row| xs.is_valid(*row) && ys.is_valid(*row)) {
            let (x, y) = (xs.value(row), ys.value(row));
            let (x, y) = (x.as_primitive::<Float64Type>(), y.as_primitive::<Float64Type>());
            x.values().iter().zip(y.values()).for_each(|(x, y)| self.insert(*x, *y));
        }
        self.seen += states[2].as_primitive::<arrow::datatypes::Int64Type>().iter().flatten().sum::<i64>();
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let list = |of: fn(&(u64, f64, f64)) -> f64| {
            let values: ArrayRef =
                Arc::new(self.kept.iter().map(|kept| Some(of(kept))).collect::<arrow::array::Float64Array>());
            ScalarValue::List(Arc::new(SingleRowListArrayBuilder::new(values).build_list_array()))
        };
        Ok(vec![list(|(_, x, _)| *x), list(|(_, _, y)| *y), ScalarValue::Int64(Some(self.seen))])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let points: Vec<(f64, f64)> = self.kept.iter().map(|(_, x, y)| (*x, *y)).collect();
        let Some(line) = theil_sen(&points) else { return ScalarValue::try_from(&DataType::Struct(fields())) };
        let number = |value: f64| ScalarValue::Float64(Some(value)).to_array();
        let columns = vec![
            number(line.slope)?,
            number(line.slope_low)?,
            number(line.slope_high)?,
            number(line.intercept)?,
            ScalarValue::Int64(Some(self.seen)).to_array()?,
        ];
        Ok(ScalarValue::Struct(Arc::new(StructArray::try_new(fields(), columns, None)?)))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.kept.capacity() * size_of::<(u64, f64, f64)>()
    }
}
