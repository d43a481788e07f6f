//! Summaries as aggregate functions: one that sees values, one that merges bytes.

use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryArray};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};

use super::collect::{Collect, Columns};
use crate::summary::{
    BetaCounts, DdSketch, DecayedSum, Distinct, FirstLast, FixedHistogram, HeavyHitters, JointHistogram, Moments,
    NameCounts, Sample, SecondCounts, TransitionCounts,
};

pub(super) fn all() -> Vec<AggregateUDF> {
    [
        both::<BetaCounts>(),
        both::<DdSketch>(),
        both::<DecayedSum>(),
        both::<Distinct>(),
        both::<FirstLast>(),
        both::<FixedHistogram>(),
        both::<HeavyHitters>(),
        both::<JointHistogram>(),
        both::<Moments>(),
        both::<NameCounts>(),
        both::<Sample>(),
        both::<SecondCounts>(),
        both::<TransitionCounts>(),
    ]
    .concat()
}

fn both<S: Collect>() -> [AggregateUDF; 2] {
    let values = SummaryFunction::<S>::new(S::OF_VALUES, Input::Values);
    let bytes = SummaryFunction::<S>::new(S::OF_BYTES, Input::Bytes);
    [values.into(), bytes.into()]
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
            Input::Values => S::COLUMNS.len(),
            Input::Bytes => 1,
        };
        if given.len() != wanted {
            return plan_err!("{} takes {wanted} argument(s), not {}", self.name, given.len());
        }
        match self.input {
            Input::Values => {
                S::COLUMNS.iter().zip(given).map(|(column, given)| column.taken(self.name, given)).collect()
            }
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
        self.summary.see(&Columns(values))
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
