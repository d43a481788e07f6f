//! Scalar functions that read one figure out of a summary's bytes.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryArray, Float64Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use datafusion::common::{DataFusionError, Result, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use crate::FeaturesError;
use crate::summary::{
    BetaCounts, DdSketch, DecayedSum, Distinct, FirstLast, FixedHistogram, HeavyHitters, JointHistogram, Moments,
    NameCounts, Sample, SecondCounts, Summary, TransitionCounts,
};

pub(super) fn all() -> Vec<ScalarUDF> {
    [sketches(), arrivals(), rates_and_sums(), names()].concat()
}

fn accessor(name: &'static str, read: Read) -> ScalarUDF {
    ScalarUDF::from(Accessor::new(name, read))
}

fn sketches() -> Vec<ScalarUDF> {
    use Read::{Real, RealAt, Text, Whole, WholeAt};
    vec![
        accessor("ddsketch_quantile", RealAt(|bytes, q| Ok(DdSketch::from_bytes(bytes)?.quantile(q)))),
        accessor("ddsketch_count", Whole(|bytes| Ok(clamped(DdSketch::from_bytes(bytes)?.count())))),
        accessor("ddsketch_min", Whole(|bytes| Ok(DdSketch::from_bytes(bytes)?.min().and_then(clamped)))),
        accessor("ddsketch_max", Whole(|bytes| Ok(DdSketch::from_bytes(bytes)?.max().and_then(clamped)))),
        accessor("ddsketch_sum", Whole(|bytes| Ok(i64::try_from(DdSketch::from_bytes(bytes)?.sum()).ok()))),
        accessor("ddsketch_mean", Real(|bytes| Ok(DdSketch::from_bytes(bytes)?.mean()))),
        accessor("ddsketch_share_to", RealAt(|bytes, limit| Ok(DdSketch::from_bytes(bytes)?.share_to(limit)))),
        accessor("joint_histogram_count", Whole(|bytes| Ok(clamped(JointHistogram::from_bytes(bytes)?.count())))),
        accessor(
            "joint_histogram_share_to",
            RealAt(|bytes, limit| Ok(JointHistogram::from_bytes(bytes)?.share_to(limit))),
        ),
        accessor("fixed_histogram_json", Text(|bytes| Ok(bins_json(&FixedHistogram::from_bytes(bytes)?)))),
        accessor(
            "fixed_histogram_share_below",
            RealAt(|bytes, edge| Ok(FixedHistogram::from_bytes(bytes)?.share_below(edge as i64))),
        ),
        accessor("moments_count", Whole(|bytes| Ok(clamped(Moments::from_bytes(bytes)?.count())))),
        accessor("moments_mean", Real(|bytes| Ok(Moments::from_bytes(bytes)?.mean()))),
        accessor("moments_variance", Real(|bytes| Ok(Moments::from_bytes(bytes)?.variance()))),
        accessor("moments_squared_cv", Real(|bytes| Ok(Moments::from_bytes(bytes)?.squared_cv()))),
        accessor("moments_min", Whole(|bytes| Ok(Moments::from_bytes(bytes)?.range().map(|(min, _)| min)))),
        accessor("moments_max", Whole(|bytes| Ok(Moments::from_bytes(bytes)?.range().map(|(_, max)| max)))),
        accessor("distinct_count_estimate", Whole(|bytes| Ok(clamped(Distinct::from_bytes(bytes)?.count())))),
        accessor(
            "name_counts_of",
            WholeAt(|bytes, name| Ok(clamped(NameCounts::from_bytes(bytes)?.of(&name.to_owned())))),
        ),
    ]
}

fn arrivals() -> Vec<ScalarUDF> {
    use Read::{BytesOf, Real, RealOf, Whole};
    vec![
        accessor("second_counts_count", Whole(|bytes| Ok(clamped(SecondCounts::from_bytes(bytes)?.count())))),
        accessor("second_counts_span", Whole(|bytes| Ok(clamped(SecondCounts::from_bytes(bytes)?.span_s())))),
        accessor("second_counts_first_s", Whole(|bytes| Ok(first_and_last_s(bytes)?.map(|(first, _)| first)))),
        accessor("second_counts_last_s", Whole(|bytes| Ok(first_and_last_s(bytes)?.map(|(_, last)| last)))),
        accessor("dispersion", Real(|bytes| Ok(SecondCounts::from_bytes(bytes)?.dispersion()))),
        accessor(
            "dispersion_at",
            RealOf(|bytes, window_s| Ok(SecondCounts::from_bytes(bytes)?.dispersion_at(window_s))),
        ),
        accessor(
            "second_counts_by_window",
            BytesOf(|bytes, window_s| Ok(by_window(&SecondCounts::from_bytes(bytes)?, window_s))),
        ),
    ]
}

fn rates_and_sums() -> Vec<ScalarUDF> {
    use Read::{Real, RealAt, Whole};
    vec![
        accessor("beta_counts_yes", Whole(|bytes| Ok(clamped(BetaCounts::from_bytes(bytes)?.counts().0)))),
        accessor("beta_counts_no", Whole(|bytes| Ok(clamped(BetaCounts::from_bytes(bytes)?.counts().1)))),
        accessor("beta_counts_rate", Real(|bytes| Ok(BetaCounts::from_bytes(bytes)?.rate()))),
        accessor("beta_counts_quantile", RealAt(|bytes, q| Ok(BetaCounts::from_bytes(bytes)?.quantile(q)))),
        accessor("decayed_sum_at", RealAt(|bytes, at_ms| Ok(DecayedSum::from_bytes(bytes)?.at(at_ms as i64)))),
    ]
}

fn names() -> Vec<ScalarUDF> {
    use Read::{Text, TextOf, Whole};
    vec![
        accessor(
            "first_last_first",
            Text(|bytes| Ok(FirstLast::from_bytes(bytes)?.first().map(|end| end.1.to_owned()))),
        ),
        accessor("first_last_last", Text(|bytes| Ok(FirstLast::from_bytes(bytes)?.last().map(|end| end.1.to_owned())))),
        accessor("first_last_first_ms", Whole(|bytes| Ok(FirstLast::from_bytes(bytes)?.first().map(|end| end.0)))),
        accessor("first_last_last_ms", Whole(|bytes| Ok(FirstLast::from_bytes(bytes)?.last().map(|end| end.0)))),
        accessor("name_counts_json", Text(|bytes| Ok(Some(counts_json(NameCounts::from_bytes(bytes)?.iter()))))),
        accessor(
            "transition_counts_json",
            Text(|bytes| Ok(Some(transitions_json(&TransitionCounts::from_bytes(bytes)?)))),
        ),
        accessor(
            "heavy_hitters_json",
            TextOf(|bytes, names| Ok(Some(hitters_json(&HeavyHitters::from_bytes(bytes)?, names)))),
        ),
        accessor("heavy_hitters_events", Whole(|bytes| Ok(clamped(HeavyHitters::from_bytes(bytes)?.events())))),
        accessor("id_sample_json", Text(|bytes| Ok(Some(ids_json(&Sample::from_bytes(bytes)?))))),
    ]
}

fn first_and_last_s(bytes: &[u8]) -> Result<Option<(i64, i64)>, FeaturesError> {
    Ok(SecondCounts::from_bytes(bytes)?.first_and_last_s())
}

fn by_window(arrivals: &SecondCounts, window_s: i64) -> Option<Vec<u8>> {
    let counts = arrivals.by_window(window_s);
    (!counts.is_empty()).then(|| counts.to_bytes())
}

/// JSON texts, because SQL has no literal for a map that all clients read.
fn bins_json(histogram: &FixedHistogram) -> Option<String> {
    let (edges, counts) = histogram.bins()?;
    Some(serde_json::json!({ "edges": edges, "counts": counts }).to_string())
}

fn counts_json<'a>(counts: impl Iterator<Item = (&'a String, u64)>) -> String {
    serde_json::Value::from_iter(counts.map(|(name, count)| (name.as_str(), count))).to_string()
}

fn transitions_json(counts: &TransitionCounts) -> String {
    let rows = counts.iter().map(|((from, to), count)| serde_json::json!({ "from": from, "to": to, "count": count }));
    serde_json::Value::from_iter(rows).to_string()
}

fn hitters_json(hitters: &HeavyHitters, names: i64) -> String {
    let top = hitters.top(usize::try_from(names).unwrap_or(0));
    let rows = top.iter().map(|(name, events)| serde_json::json!({ "name": name, "events": events.round() as u64 }));
    serde_json::Value::from_iter(rows).to_string()
}

fn ids_json(sample: &Sample) -> String {
    serde_json::Value::from_iter(sample.ids()).to_string()
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

type Answer<T> = Result<Option<T>, FeaturesError>;

/// What is read, and what a second argument says of it: a number or a name.
#[derive(Debug, Clone, Copy)]
enum Read {
    Whole(fn(&[u8]) -> Answer<i64>),
    WholeAt(fn(&[u8], &str) -> Answer<i64>),
    Real(fn(&[u8]) -> Answer<f64>),
    RealAt(fn(&[u8], f64) -> Answer<f64>),
    RealOf(fn(&[u8], i64) -> Answer<f64>),
    BytesOf(fn(&[u8], i64) -> Answer<Vec<u8>>),
    Text(fn(&[u8]) -> Answer<String>),
    TextOf(fn(&[u8], i64) -> Answer<String>),
}

impl Read {
    /// Types of the arguments, and what they are called when they are wrong.
    fn takes(self) -> (Vec<DataType>, &'static str) {
        match self {
            Self::Whole(_) | Self::Real(_) | Self::Text(_) => (vec![DataType::Binary], "a summary's bytes"),
            Self::WholeAt(_) => (vec![DataType::Binary, DataType::Utf8], "a summary's bytes and a name"),
            Self::RealAt(_) => (vec![DataType::Binary, DataType::Float64], "a summary's bytes and a number"),
            Self::TextOf(_) | Self::RealOf(_) | Self::BytesOf(_) => {
                (vec![DataType::Binary, DataType::Int64], "a summary's bytes and a whole number")
            }
        }
    }

    fn gives(self) -> DataType {
        match self {
            Self::Whole(_) | Self::WholeAt(_) => DataType::Int64,
            Self::Real(_) | Self::RealAt(_) | Self::RealOf(_) => DataType::Float64,
            Self::BytesOf(_) => DataType::Binary,
            Self::Text(_) | Self::TextOf(_) => DataType::Utf8,
        }
    }

    fn rows(self, columns: &[ArrayRef]) -> Result<ArrayRef, FeaturesError> {
        let summaries = columns[0].as_binary::<i32>();
        let wholes = || columns[1].as_primitive::<Int64Type>().iter();
        Ok(match self {
            Self::Whole(read) => Arc::new(each(summaries, read).collect::<Result<Int64Array, _>>()?),
            Self::Real(read) => Arc::new(each(summaries, read).collect::<Result<Float64Array, _>>()?),
            Self::Text(read) => Arc::new(each(summaries, read).collect::<Result<StringArray, _>>()?),
            Self::WholeAt(read) => {
                let names = columns[1].as_string::<i32>().iter();
                Arc::new(each_with(summaries, names, read).collect::<Result<Int64Array, _>>()?)
            }
            Self::RealAt(read) => {
                let numbers = columns[1].as_primitive::<Float64Type>().iter();
                Arc::new(each_with(summaries, numbers, read).collect::<Result<Float64Array, _>>()?)
            }
            Self::RealOf(read) => Arc::new(each_with(summaries, wholes(), read).collect::<Result<Float64Array, _>>()?),
            Self::BytesOf(read) => Arc::new(each_with(summaries, wholes(), read).collect::<Result<BinaryArray, _>>()?),
            Self::TextOf(read) => Arc::new(each_with(summaries, wholes(), read).collect::<Result<StringArray, _>>()?),
        })
    }
}

fn each<T>(summaries: &BinaryArray, read: fn(&[u8]) -> Answer<T>) -> impl Iterator<Item = Answer<T>> {
    summaries.iter().map(move |bytes| bytes.map_or(Ok(None), read))
}

fn each_with<A, T>(
    summaries: &BinaryArray,
    seconds: impl Iterator<Item = Option<A>>,
    read: impl Fn(&[u8], A) -> Answer<T>,
) -> impl Iterator<Item = Answer<T>> {
    summaries.iter().zip(seconds).map(move |(bytes, second)| match (bytes, second) {
        (Some(bytes), Some(second)) => read(bytes, second),
        _ => Ok(None),
    })
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
        let (types, what) = self.read.takes();
        if given.len() == types.len() && given.first().is_some_and(is_bytes) {
            return Ok(types);
        }
        plan_err!("{} takes {what}", self.name)
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.read.gives())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let read = self.read.rows(&ColumnarValue::values_to_arrays(&args.args)?).map_err(external)?;
        let scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        if scalar && read.len() == 1 {
            return Ok(ColumnarValue::Scalar(datafusion::common::ScalarValue::try_from_array(&read, 0)?));
        }
        Ok(ColumnarValue::Array(read))
    }
}
