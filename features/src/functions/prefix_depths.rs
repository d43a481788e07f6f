//! `prefix_depths`: for each request, in the order of a window, how deep the blocks of its prompt lie in the cache; and what
//! a cache of some size makes of that.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, Int64Builder, ListArray, ListBuilder};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{
    ColumnarValue, PartitionEvaluator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, WindowUDF,
    WindowUDFImpl,
};

use crate::prefix_cache::RecencyStack;

pub(super) fn prefix_depths() -> WindowUDF {
    WindowUDF::from(PrefixDepths { signature: Signature::user_defined(Volatility::Immutable) })
}

pub(super) fn prefix_hits() -> ScalarUDF {
    ScalarUDF::from(PrefixHits { signature: Signature::exact(vec![list(), DataType::Int64], Volatility::Immutable) })
}

/// A list of [`RecencyStack::depth`] per row; a row without blocks gives NULL and changes nothing.
#[derive(Debug, PartialEq, Eq, Hash)]
struct PrefixDepths {
    signature: Signature,
}

fn list() -> DataType {
    DataType::new_list(DataType::Int64, true)
}

impl WindowUDFImpl for PrefixDepths {
    fn name(&self) -> &'static str {
        "prefix_depths"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        match given {
            [DataType::Null] => Ok(vec![list()]),
            [DataType::List(item) | DataType::LargeList(item)] if item.data_type().is_integer() => Ok(vec![list()]),
            _ => plan_err!("prefix_depths takes the column prefix_block_hashes"),
        }
    }

    fn field(&self, args: WindowUDFFieldArgs<'_>) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(args.name(), list(), true)))
    }

    fn partition_evaluator(&self, _: PartitionEvaluatorArgs<'_>) -> Result<Box<dyn PartitionEvaluator>> {
        Ok(Box::new(Depths))
    }
}

#[derive(Debug)]
struct Depths;

impl PartitionEvaluator for Depths {
    fn evaluate_all(&mut self, values: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        let prompts = values[0].as_list::<i32>();
        let mut stack = RecencyStack::default();
        let mut depths = ListBuilder::with_capacity(Int64Builder::with_capacity(prompts.values().len()), rows);
        for row in 0..rows {
            if prompts.is_null(row) {
                depths.append_null();
                continue;
            }
            let blocks = prompts.value(row);
            let served = stack.serve(blocks.as_primitive::<Int64Type>().values());
            depths.append_value(served.into_iter().map(|depth| depth.and_then(|depth| i64::try_from(depth).ok())));
        }
        Ok(Arc::new(depths.finish()))
    }
}

/// How many blocks of a prompt a cache of so many blocks still held. A capacity of NULL is a cache without an end.
#[derive(Debug, PartialEq, Eq, Hash)]
struct PrefixHits {
    signature: Signature,
}

impl ScalarUDFImpl for PrefixHits {
    fn name(&self) -> &'static str {
        "prefix_hits"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let capacities = columns[1].as_primitive::<Int64Type>();
        Ok(ColumnarValue::Array(Arc::new(hits(columns[0].as_list::<i32>(), capacities))))
    }
}

fn hits(prompts: &ListArray, capacities: &Int64Array) -> Int64Array {
    let depths = prompts.values().as_primitive::<Int64Type>();
    let rows = prompts.offsets().windows(2).zip(capacities).enumerate();
    rows.map(|(row, (ends, capacity))| {
        let capacity = capacity.unwrap_or(i64::MAX);
        let held = |block: &i32| depths.is_valid(*block as usize) && depths.value(*block as usize) <= capacity;
        prompts.is_valid(row).then(|| (ends[0]..ends[1]).filter(held).count() as i64)
    })
    .collect()
}
