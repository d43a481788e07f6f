//! `pooled_rates`: the rate of each cell and of what is above it, by partial pooling.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Builder, ListArray, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Float64Type};
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{PartitionEvaluator, Signature, Volatility, WindowUDF, WindowUDFImpl};

use crate::pooling::{Counts, pool};

pub(super) fn pooled_rates() -> WindowUDF {
    WindowUDF::from(PooledRates { signature: Signature::user_defined(Volatility::Immutable) })
}

/// For each row, a list with the rate of its group at each level, the highest first; the last is the cell's own.
#[derive(Debug, PartialEq, Eq, Hash)]
struct PooledRates {
    signature: Signature,
}

fn fields() -> Fields {
    let number = |name: &str| Field::new(name, DataType::Float64, true);
    Fields::from(vec![number("rate"), number("low"), number("high")])
}

fn item() -> FieldRef {
    Arc::new(Field::new_list_field(DataType::Struct(fields()), true))
}

impl WindowUDFImpl for PooledRates {
    fn name(&self) -> &'static str {
        "pooled_rates"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        let counts = given.iter().take(2).all(|kind| kind.is_numeric() || kind.is_null());
        let names = given.iter().skip(2).all(|kind| kind.is_string() || kind.is_null());
        if given.len() < 3 || !counts || !names {
            return plan_err!(
                "pooled_rates takes two counts, and the names of one level or more: CAST them to VARCHAR"
            );
        }
        Ok((0..given.len()).map(|at| if at < 2 { DataType::Float64 } else { DataType::Utf8 }).collect())
    }

    fn field(&self, args: WindowUDFFieldArgs<'_>) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(args.name(), DataType::List(item()), true)))
    }

    fn partition_evaluator(&self, _: PartitionEvaluatorArgs<'_>) -> Result<Box<dyn PartitionEvaluator>> {
        Ok(Box::new(Pooled))
    }
}

#[derive(Debug)]
struct Pooled;

impl PartitionEvaluator for Pooled {
    fn evaluate_all(&mut self, values: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        let (successes, trials) = (values[0].as_primitive::<Float64Type>(), values[1].as_primitive::<Float64Type>());
        let levels = values.len() - 2;
        // A node of a level is known by its parent and its name; no name is a name of its own.
        let mut parents: Vec<Vec<usize>> = vec![Vec::new(); levels];
        let mut known: Vec<HashMap<(usize, Option<&str>), usize>> = vec![HashMap::new(); levels];
        let mut cells: Vec<Counts> = Vec::new();
        let mut paths = vec![0; rows * levels];
        let named = |row: usize, level: usize| {
            let names = values[2 + level].as_string::<i32>();
            names.is_valid(row).then(|| names.value(row))
        };
        // In the order of their names, so that the sums over them are the same to the last bit in whatever order rows come.
        let mut order: Vec<usize> = (0..rows).collect();
        order.sort_by(|a, b| (0..levels).map(|level| named(*a, level)).cmp((0..levels).map(|level| named(*b, level))));
        for row in order {
            let mut node = 0;
            for level in 0..levels {
                let name = named(row, level);
                node = *known[level].entry((node, name)).or_insert_with(|| {
                    parents[level].push(node);
                    parents[level].len() - 1
                });
                paths[row * levels + level] = node;
            }
            if cells.len() < parents[levels - 1].len() {
                cells.push(Counts { successes: 0.0, trials: 0.0 });
            }
            if successes.is_valid(row) && trials.is_valid(row) {
                let (yes, all) = (successes.value(row), trials.value(row));
                if !(yes >= 0.0 && yes <= all && all.is_finite()) {
                    return exec_err!("pooled_rates takes counts of successes from 0 to the count of trials");
                }
                cells[node].successes += yes;
                cells[node].trials += all;
            }
        }
        let pooled: Vec<Vec<[f64; 3]>> = pool(&parents, &cells)
            .into_iter()
            .map(|level| level.iter().map(|rate| [rate.mean(), rate.quantile(0.025), rate.quantile(0.975)]).collect())
            .collect();
        let column = |of: usize| -> ArrayRef {
            let mut column = Float64Builder::with_capacity(paths.len());
            paths.chunks(levels.max(1)).for_each(|path| {
                path.iter().zip(&pooled).for_each(|(node, level)| column.append_value(level[*node][of]));
            });
            Arc::new(column.finish())
        };
        let rates = StructArray::new(fields(), (0..3).map(column).collect(), None);
        Ok(Arc::new(ListArray::new(item(), OffsetBuffer::from_repeated_length(levels, rows), Arc::new(rates), None)))
    }
}
