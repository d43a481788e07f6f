//! Summaries as aggregate functions: one that sees values, one that merges bytes.

use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Int64Array};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};

use crate::summary::{DdSketch, JointHistogram, SecondCounts, Summary};

pub(super) fn all() -> [AggregateUDF; 6] {
    [
        values::<DdSketch>(),
        bytes::<DdSketch>(),
        values::<JointHistogram>(),
        bytes::<JointHistogram>(),
        values::<SecondCounts>(),
        bytes::<SecondCounts>(),
    ]
}

fn values<S: Collect>() -> AggregateUDF {
    AggregateUDF::from(SummaryFunction::<S>::new(S::OF_VALUES, Input::Values))
}

fn bytes<S: Collect>() -> AggregateUDF {
    AggregateUDF::from(SummaryFunction::<S>::new(S::OF_BYTES, Input::Bytes))
}

/// A summary that can see rows of integer columns.
trait Collect: Summary {
    const OF_VALUES: &'static str;
    const OF_BYTES: &'static str;
    const COLUMNS: usize;

    /// Sees row `row`, in which no column is NULL.
    fn see(&mut self, columns: &[&Int64Array], row: usize);
}

impl Collect for DdSketch {
    const OF_VALUES: &'static str = "ddsketch";
    const OF_BYTES: &'static str = "ddsketch_merge";
    const COLUMNS: usize = 1;

    fn see(&mut self, columns: &[&Int64Array], row: usize) {
        if let Ok(value) = u64::try_from(columns[0].value(row)) {
            self.insert(value);
        }
    }
}

impl Collect for JointHistogram {
    const OF_VALUES: &'static str = "joint_histogram";
    const OF_BYTES: &'static str = "joint_histogram_merge";
    const COLUMNS: usize = 2;

    fn see(&mut self, columns: &[&Int64Array], row: usize) {
        let tokens = |column: usize| u64::try_from(columns[column].value(row));
        if let (Ok(prompt), Ok(completion)) = (tokens(0), tokens(1)) {
            self.insert(prompt, completion);
        }
    }
}

impl Collect for SecondCounts {
    const OF_VALUES: &'static str = "second_counts";
    const OF_BYTES: &'static str = "second_counts_merge";
    const COLUMNS: usize = 1;

    fn see(&mut self, columns: &[&Int64Array], row: usize) {
        self.insert(columns[0].value(row));
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Input {
    Values,
    Bytes,
}

#[derive(Debug)]
struct SummaryFunction<S> {
    name: &'static str,
    input: Input,
    signature: Signature,
    summary: PhantomData<fn() -> S>,
}

impl<S> SummaryFunction<S> {
    fn new(name: &'static str, input: Input) -> Self {
        Self { name, input, signature: Signature::user_defined(Volatility::Immutable), summary: PhantomData }
    }
}

// The name tells the functions apart, summary type included.
impl<S> PartialEq for SummaryFunction<S> {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl<S> Eq for SummaryFunction<S> {}

impl<S> Hash for SummaryFunction<S> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl<S: Collect> AggregateUDFImpl for SummaryFunction<S> {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        let wanted = match self.input {
            Input::Values => S::COLUMNS,
            Input::Bytes => 1,
        };
        if given.len() != wanted {
            return plan_err!("{} takes {wanted} argument(s), not {}", self.name, given.len());
        }
        match self.input {
            Input::Values if given.iter().all(|kind| kind.is_integer() || kind.is_null()) => {
                Ok(vec![DataType::Int64; wanted])
            }
            Input::Values => plan_err!("{} takes whole numbers: scale and CAST to BIGINT", self.name),
            Input::Bytes if super::accessors::is_bytes(&given[0]) => Ok(vec![DataType::Binary]),
            Input::Bytes => plan_err!("{} takes the bytes that {} gives", self.name, S::OF_VALUES),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Binary)
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(format!("{}[summary]", args.name), DataType::Binary, true))])
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            return plan_err!("{}(DISTINCT ...) is not supported: take DISTINCT rows in a subquery", self.name);
        }
        Ok(Box::new(SummaryAccumulator { input: self.input, summary: S::default() }))
    }
}

#[derive(Debug)]
struct SummaryAccumulator<S> {
    input: Input,
    summary: S,
}

impl<S: Collect> Accumulator for SummaryAccumulator<S> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        if self.input == Input::Bytes {
            return self.merge_batch(values);
        }
        let columns: Vec<&Int64Array> = values.iter().map(|column| column.as_primitive::<Int64Type>()).collect();
        for row in 0..columns[0].len() {
            if columns.iter().all(|column| column.is_valid(row)) {
                self.summary.see(&columns, row);
            }
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let parts: &BinaryArray = states[0].as_binary();
        for part in parts.iter().flatten() {
            self.summary.merge(&S::from_bytes(part).map_err(super::accessors::external)?);
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Binary((!self.summary.is_empty()).then(|| self.summary.to_bytes())))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.summary.heap_bytes()
    }
}
