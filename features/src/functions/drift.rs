//! `drift(series, value, at_ms, patience)`: have series changed? Over all of them, ordered by time.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanBuilder, Float64Builder, Int64Builder, StructArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Float64Type, Int64Type};
use datafusion::common::Result;
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{PartitionEvaluator, Signature, Volatility, WindowUDF, WindowUDFImpl};

use crate::drift::Monitor;

pub(super) fn drift() -> WindowUDF {
    let taken = vec![DataType::Utf8, DataType::Float64, DataType::Int64, DataType::Int64];
    WindowUDF::from(Drift { signature: Signature::exact(taken, Volatility::Immutable) })
}

/// A [`crate::drift::Reading`] per row; a row without a value gives NULL and changes nothing.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Drift {
    signature: Signature,
}

fn fields() -> Fields {
    Fields::from(vec![
        Field::new("statistic", DataType::Float64, false),
        Field::new("is_discovery", DataType::Boolean, false),
        Field::new("since_ms", DataType::Int64, true),
        Field::new("before", DataType::Float64, true),
        Field::new("after", DataType::Float64, true),
    ])
}

impl WindowUDFImpl for Drift {
    fn name(&self) -> &'static str {
        "drift"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn field(&self, args: WindowUDFFieldArgs<'_>) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(args.name(), DataType::Struct(fields()), true)))
    }

    fn partition_evaluator(&self, _: PartitionEvaluatorArgs<'_>) -> Result<Box<dyn PartitionEvaluator>> {
        Ok(Box::new(Readings))
    }
}

#[derive(Debug)]
struct Readings;

impl PartitionEvaluator for Readings {
    fn evaluate_all(&mut self, columns: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        let (series, values) = (columns[0].as_string::<i32>(), columns[1].as_primitive::<Float64Type>());
        let (times, patience) = (columns[2].as_primitive::<Int64Type>(), columns[3].as_primitive::<Int64Type>());
        let mut monitor = Monitor::new(patience.iter().flatten().next().unwrap_or(i64::MAX) as f64);
        let mut readings = Vec::with_capacity(rows);
        let mut window = Vec::new();
        for row in 0..rows {
            let known = series.is_valid(row) && values.is_valid(row);
            window.push(if known { (series.value(row), values.value(row)) } else { ("", f64::NAN) });
            // The rows of a window lie beside each other.
            if row + 1 == rows || times.value(row + 1) != times.value(row) {
                readings.extend(monitor.see(times.value(row), &window));
                window.clear();
            }
        }
        let mut statistics = Float64Builder::with_capacity(rows);
        let mut discoveries = BooleanBuilder::with_capacity(rows);
        let mut since = Int64Builder::with_capacity(rows);
        let (mut before, mut after) = (Float64Builder::with_capacity(rows), Float64Builder::with_capacity(rows));
        for reading in &readings {
            let change = reading.and_then(|reading| reading.change);
            statistics.append_value(reading.map_or(0.0, |reading| reading.statistic));
            discoveries.append_value(change.is_some());
            since.append_option(change.map(|change| change.since));
            before.append_option(change.map(|change| change.before));
            after.append_option(change.map(|change| change.after));
        }
        let columns: Vec<ArrayRef> = vec![
            Arc::new(statistics.finish()),
            Arc::new(discoveries.finish()),
            Arc::new(since.finish()),
            Arc::new(before.finish()),
            Arc::new(after.finish()),
        ];
        Ok(Arc::new(StructArray::try_new(
            fields(),
            columns,
            Some(NullBuffer::from_iter(readings.iter().map(Option::is_some))),
        )?))
    }
}
