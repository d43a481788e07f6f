//! Scalar functions that read one figure out of a summary's bytes.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array};
use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::{DataFusionError, Result, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use crate::FeaturesError;
use crate::summary::{DdSketch, JointHistogram, SecondCounts, Summary};

pub(super) fn all() -> Vec<ScalarUDF> {
    let whole = |name, read| ScalarUDF::from(Accessor::new(name, Read::Whole(read)));
    let real = |name, read| ScalarUDF::from(Accessor::new(name, Read::Real(read)));
    vec![
        ScalarUDF::from(Accessor::new(
            "ddsketch_quantile",
            Read::RealAt(|bytes, q| Ok(DdSketch::from_bytes(bytes)?.quantile(q))),
        )),
        whole("ddsketch_count", |bytes| Ok(clamped(DdSketch::from_bytes(bytes)?.count()))),
        whole("ddsketch_min", |bytes| Ok(DdSketch::from_bytes(bytes)?.min().and_then(clamped))),
        whole("ddsketch_max", |bytes| Ok(DdSketch::from_bytes(bytes)?.max().and_then(clamped))),
        whole("ddsketch_sum", |bytes| Ok(i64::try_from(DdSketch::from_bytes(bytes)?.sum()).ok())),
        real("ddsketch_mean", |bytes| Ok(DdSketch::from_bytes(bytes)?.mean())),
        whole("joint_histogram_count", |bytes| Ok(clamped(JointHistogram::from_bytes(bytes)?.count()))),
        whole("second_counts_count", |bytes| Ok(clamped(SecondCounts::from_bytes(bytes)?.count()))),
        whole("second_counts_span", |bytes| Ok(clamped(SecondCounts::from_bytes(bytes)?.span_s()))),
        whole("second_counts_first_s", |bytes| Ok(first_and_last_s(bytes)?.map(|(first, _)| first))),
        whole("second_counts_last_s", |bytes| Ok(first_and_last_s(bytes)?.map(|(_, last)| last))),
        real("dispersion", |bytes| Ok(SecondCounts::from_bytes(bytes)?.dispersion())),
    ]
}

fn first_and_last_s(bytes: &[u8]) -> Result<Option<(i64, i64)>, FeaturesError> {
    Ok(SecondCounts::from_bytes(bytes)?.first_and_last_s())
}

/// SQL has no unsigned totals; one beyond 2^63 is NULL rather than wrong.
fn clamped(value: u64) -> Option<i64> {
    i64::try_from(value).ok()
}

pub(super) fn is_bytes(kind: &DataType) -> bool {
    matches!(kind, DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::Null)
}

pub(super) fn external(error: FeaturesError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// What is read, and whether a number from SQL says where.
#[derive(Debug, Clone, Copy)]
enum Read {
    Whole(fn(&[u8]) -> Result<Option<i64>, FeaturesError>),
    Real(fn(&[u8]) -> Result<Option<f64>, FeaturesError>),
    RealAt(fn(&[u8], f64) -> Result<Option<f64>, FeaturesError>),
}

#[derive(Debug)]
struct Accessor {
    name: &'static str,
    read: Read,
    signature: Signature,
}

impl Accessor {
    fn new(name: &'static str, read: Read) -> Self {
        Self { name, read, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl PartialEq for Accessor {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Accessor {}

impl Hash for Accessor {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Accessor {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        let fits = given.first().is_some_and(is_bytes);
        match self.read {
            Read::RealAt(_) if fits && given.len() == 2 => Ok(vec![DataType::Binary, DataType::Float64]),
            Read::RealAt(_) => plan_err!("{} takes a summary's bytes and a number", self.name),
            _ if fits && given.len() == 1 => Ok(vec![DataType::Binary]),
            _ => plan_err!("{} takes a summary's bytes", self.name),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(if matches!(self.read, Read::Whole(_)) { DataType::Int64 } else { DataType::Float64 })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let summaries = columns[0].as_binary::<i32>();
        let read: ArrayRef = match self.read {
            Read::Whole(read) => {
                let rows = summaries.iter().map(|bytes| bytes.map_or(Ok(None), read));
                Arc::new(rows.collect::<Result<Int64Array, _>>().map_err(external)?)
            }
            Read::Real(read) => {
                let rows = summaries.iter().map(|bytes| bytes.map_or(Ok(None), read));
                Arc::new(rows.collect::<Result<Float64Array, _>>().map_err(external)?)
            }
            Read::RealAt(read) => {
                let at = columns[1].as_primitive::<Float64Type>();
                let rows = summaries.iter().zip(at).map(|(bytes, at)| match (bytes, at) {
                    (Some(bytes), Some(at)) => read(bytes, at),
                    _ => Ok(None),
                });
                Arc::new(rows.collect::<Result<Float64Array, _>>().map_err(external)?)
            }
        };
        let scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        if scalar && read.len() == 1 {
            return Ok(ColumnarValue::Scalar(datafusion::common::ScalarValue::try_from_array(&read, 0)?));
        }
        Ok(ColumnarValue::Array(read))
    }
}
