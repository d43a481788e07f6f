//! Samples become messages of the contract `gpu_telemetry`: one message for each time and instance (and GPU), with the
//! samples as its columns. Remote-write and OTLP metrics end here alike.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value};
use weir_schemas::{Field, FieldKind, GpuTelemetry};

use crate::attributes::{find, of};
use crate::events;
use crate::message::{Message, Signal};
use crate::proto::otlp::{KeyValue, Metric, MetricsRequest, Point, Points};
use crate::proto::remote_write::{Request, Sample, WriteRequest};
use crate::room::{NoMessages, Room};

/// The NaN by which Prometheus says that a series has ended.
const STALE: u64 = 0x7ff0_0000_0000_0002;

/// Names that vLLM gave a metric before the one of the contract.
const FORMER_NAMES: &[(&str, &str)] = &[
    ("vllm:gpu_cache_usage_perc", "vllm:kv_cache_usage_perc"),
    ("vllm:gpu_prefix_cache_queries_total", "vllm:prefix_cache_queries_total"),
    ("vllm:gpu_prefix_cache_hits_total", "vllm:prefix_cache_hits_total"),
];

/// The counter that an engine splits into several series, by how a request finished. The contract has their sum.
const SPLIT: &str = "vllm:request_success_total";
const UNKNOWN_SYMBOL: &str = "a series refers to a label that the request's symbols do not hold";
/// The label that tells its parts apart. No other does: what one scraper adds and another does not, or a newer version
/// adds, makes no further part, which would count twice.
const SPLIT_BY: &str = "finished_reason";
/// How old the newest value of another part may be to count: Prometheus' own patience with a silent series, ms.
const PART_LIVES_MS: i64 = 300_000;
/// Engines whose parts are remembered, parts of each, and bytes of its names: what is beyond is summed with nothing.
const MOST_ENGINES: usize = 10_000;
const MOST_PARTS: usize = 1_000;
const MOST_NAME_BYTES: usize = 4_096;

/// Who was sampled.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Identity {
    pool: Option<String>,
    instance: Option<String>,
    gpu: Option<String>,
    gpu_model: Option<String>,
    model: Option<String>,
}

impl Identity {
    /// By the labels that Prometheus, DCGM's exporter and vLLM set.
    fn of<'a>(label: impl Fn(&str) -> Option<&'a str>, is_gpu: bool) -> Self {
        let owned = |name: &str| label(name).filter(|value| !value.is_empty()).map(str::to_owned);
        let instance = owned("instance")
            .or_else(|| owned("service.instance.id"))
            .or_else(|| owned("Hostname"))
            .or_else(|| owned("host.name"));
        if is_gpu {
            // A slice of a GPU (MIG) is sampled beside the whole.
            let slice = owned("GPU_I_ID");
            let gpu = owned("UUID").or_else(|| owned("gpu"));
            let gpu = gpu.map(|gpu| slice.map_or_else(|| gpu.clone(), |slice| format!("{gpu}/{slice}")));
            return Self { pool: owned("pool"), instance, gpu, gpu_model: owned("modelName"), model: None };
        }
        // Engines of one server, in data parallel, are told apart; the first one, or the only one, is the server.
        let engine = owned("engine").filter(|engine| engine != "0");
        let instance = match (instance, engine) {
            (Some(instance), Some(engine)) => Some(format!("{instance}/engine-{engine}")),
            (instance, _) => instance,
        };
        Self { pool: owned("pool"), instance, gpu: None, gpu_model: None, model: owned("model_name") }
    }

    fn bytes(&self) -> usize {
        let names = [&self.pool, &self.instance, &self.gpu, &self.gpu_model, &self.model];
        names.into_iter().flatten().map(String::len).sum()
    }

    fn key(&self) -> String {
        self.instance.clone().or_else(|| self.gpu.clone()).unwrap_or_default()
    }
}

/// Time and value of the newest sample of each part, by a hash of its label.
type Newest = HashMap<u64, (i64, f64)>;

/// The newest values of the series that together are one counter of an engine, over requests: senders split a scrape as
/// they like. After a restart a sum lacks the parts that have not come again, for one scrape.
#[derive(Default)]
pub(crate) struct Parts(Mutex<HashMap<Identity, Newest>>);

impl Parts {
    /// Takes a part in and returns the sum at that time.
    fn sum(&self, identity: &Identity, part: u64, at_ms: i64, value: f64) -> f64 {
        if identity.bytes() > MOST_NAME_BYTES {
            return value;
        }
        let mut engines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !engines.contains_key(identity) && engines.len() >= MOST_ENGINES {
            let newest = |parts: &Newest| parts.values().map(|part| part.0).max().unwrap_or(i64::MIN);
            engines.retain(|_, parts| newest(parts).saturating_add(PART_LIVES_MS) >= at_ms);
            if engines.len() >= MOST_ENGINES {
                return value;
            }
        }
        let parts = engines.entry(identity.clone()).or_default();
        if !parts.contains_key(&part) && parts.len() >= MOST_PARTS {
            return value;
        }
        let part = parts.entry(part).or_insert((at_ms, value));
        if part.0 <= at_ms {
            *part = (at_ms, value);
        }
        parts.retain(|_, part| part.0.saturating_add(PART_LIVES_MS) >= at_ms);
        parts.values().map(|part| part.1).sum()
    }
}

/// Why a sample is not in a message.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ignored {
    /// The contract has no such column.
    pub(crate) unknown: u64,
    /// A histogram or a summary: the contract has none.
    pub(crate) histogram: u64,
    /// The end of a series.
    pub(crate) stale: u64,
    /// A value that the column rules out, DCGM's blanks among them.
    pub(crate) out_of_range: u64,
    /// Another series of the request has the same column, instance and time.
    pub(crate) doubled: u64,
    /// No time.
    pub(crate) no_time: u64,
    /// A difference, and the contract has counters.
    pub(crate) delta: u64,
}

impl Ignored {
    /// Counts them by reason; how many they are.
    pub(crate) fn emit(self) -> u64 {
        let reasons = [
            ("unknown", self.unknown),
            ("histogram", self.histogram),
            ("stale", self.stale),
            ("out_of_range", self.out_of_range),
            ("doubled", self.doubled),
            ("no_time", self.no_time),
            ("delta", self.delta),
        ];
        reasons.into_iter().filter(|(_, count)| *count > 0).for_each(|(reason, count)| events::ignored(reason, count));
        reasons.into_iter().map(|(_, count)| count).sum()
    }
}

/// The samples of one request.
struct Pivot<'a> {
    parts: &'a Parts,
    room: Room,
    rows: BTreeMap<(Identity, i64), BTreeMap<&'static str, f64>>,
    /// Samples of the counter in parts: time, whose, which part, value.
    split: Vec<(i64, Identity, u64, f64)>,
    ignored: Ignored,
}

impl<'a> Pivot<'a> {
    fn new(parts: &'a Parts, room: Room) -> Self {
        Self { parts, room, rows: BTreeMap::new(), split: Vec::new(), ignored: Ignored::default() }
    }

    fn add(
        &mut self,
        field: &'static Field,
        identity: &Identity,
        part: u64,
        at_ms: i64,
        value: f64,
    ) -> Result<(), NoMessages> {
        self.room.take(identity.bytes() + size_of::<Identity>())?;
        if value.to_bits() == STALE {
            self.ignored.stale += 1;
        } else if !value.is_finite() || field.bounds().is_some_and(|bounds| !bounds.allow(value)) {
            self.ignored.out_of_range += 1;
        } else if at_ms <= 0 {
            self.ignored.no_time += 1;
        } else if field.name == SPLIT {
            self.split.push((at_ms, identity.clone(), part, value));
        } else {
            let row = self.rows.entry((identity.clone(), at_ms)).or_default();
            if row.contains_key(field.name) {
                self.ignored.doubled += 1;
            } else {
                row.insert(field.name, value);
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(Vec<Message>, Ignored), NoMessages> {
        self.split.sort_by_key(|(at_ms, ..)| *at_ms);
        for (at_ms, identity, part, value) in self.split {
            let sum = self.parts.sum(&identity, part, at_ms, value);
            // The last part of a time completes its sum.
            self.rows.entry((identity, at_ms)).or_default().insert(SPLIT, sum);
        }
        let messages = self.rows.into_iter().map(|((identity, at_ms), columns)| {
            let mut object = Map::new();
            object.insert("event_ms".into(), at_ms.into());
            let key = identity.key();
            let names = [
                ("pool", identity.pool),
                ("instance", identity.instance),
                ("gpu", identity.gpu),
                ("gpu_model", identity.gpu_model),
                ("model", identity.model),
            ];
            for (name, value) in names {
                if let Some(value) = value {
                    object.insert(name.into(), value.into());
                }
            }
            object.extend(columns.into_iter().map(|(name, value)| (name.to_owned(), value.into())));
            let payload = Value::Object(object).to_string().into_bytes();
            self.room.take(key.len() + payload.len())?;
            Ok(Message { signal: Signal::Metrics, key, payload })
        });
        Ok((messages.collect::<Result<_, NoMessages>>()?, self.ignored))
    }
}

/// The column of a metric of that name.
fn column(name: &str) -> Option<&'static Field> {
    let name = FORMER_NAMES.iter().find(|(former, _)| *former == name).map_or(name, |(_, now)| now);
    let field = GpuTelemetry::contract().field(name)?;
    (field.kind == FieldKind::Float64).then_some(field)
}

fn is_of_gpu(field: &Field) -> bool {
    field.name.starts_with("DCGM_")
}

fn hash(part: Option<&str>) -> u64 {
    let mut hasher = DefaultHasher::new();
    part.hash(&mut hasher);
    hasher.finish()
}

fn add_series(
    pivot: &mut Pivot<'_>,
    labels: &[(&str, &str)],
    samples: &[Sample],
    histograms: usize,
) -> Result<(), NoMessages> {
    pivot.ignored.histogram += histograms as u64;
    let label = |name: &str| labels.iter().find(|(found, _)| *found == name).map(|(_, value)| *value);
    let Some(field) = label("__name__").and_then(column) else {
        pivot.ignored.unknown += samples.len() as u64;
        return Ok(());
    };
    // In protocol 2.0 many series name one long string.
    pivot.room.take(labels.iter().map(|(name, value)| name.len() + value.len()).sum())?;
    let identity = Identity::of(label, is_of_gpu(field));
    let part = hash(label(SPLIT_BY));
    for sample in samples {
        pivot.add(field, &identity, part, sample.timestamp, sample.value)?;
    }
    Ok(())
}

/// Messages of a remote-write request of protocol 1.0.
///
/// # Errors
/// When they would be too much.
pub(crate) fn of_remote_write(
    request: &WriteRequest,
    parts: &Parts,
    room: Room,
) -> Result<(Vec<Message>, Ignored), NoMessages> {
    let mut pivot = Pivot::new(parts, room);
    for series in &request.timeseries {
        let labels: Vec<_> = series.labels.iter().map(|label| (label.name.as_str(), label.value.as_str())).collect();
        add_series(&mut pivot, &labels, &series.samples, series.histograms.len())?;
    }
    pivot.finish()
}

/// Messages of a remote-write request of protocol 2.0.
///
/// # Errors
/// When a series refers to a string that the request does not hold, or the messages would be too much.
pub(crate) fn of_remote_write_v2(
    request: &Request,
    parts: &Parts,
    room: Room,
) -> Result<(Vec<Message>, Ignored), NoMessages> {
    let mut pivot = Pivot::new(parts, room);
    let symbol = |index: u32| request.symbols.get(index as usize).map(String::as_str);
    for series in &request.timeseries {
        let pairs = series.labels_refs.chunks(2).map(|pair| match pair {
            [name, value] => Some((symbol(*name)?, symbol(*value)?)),
            _ => None,
        });
        let labels: Option<Vec<_>> = pairs.collect();
        let labels = labels.ok_or(NoMessages::Broken(UNKNOWN_SYMBOL))?;
        add_series(&mut pivot, &labels, &series.samples, series.histograms.len())?;
    }
    pivot.finish()
}

/// Messages of an OTLP metrics request.
///
/// # Errors
/// When they would be too much.
pub(crate) fn of_otlp(
    request: &MetricsRequest,
    parts: &Parts,
    room: Room,
) -> Result<(Vec<Message>, Ignored), NoMessages> {
    let mut pivot = Pivot::new(parts, room);
    for of_resource in &request.resource_metrics {
        let resource = of(of_resource.resource.as_ref());
        for metric in of_resource.scope_metrics.iter().flat_map(|of_scope| &of_scope.metrics) {
            add_metric(&mut pivot, metric, resource)?;
        }
    }
    pivot.finish()
}

fn add_metric(pivot: &mut Pivot<'_>, metric: &Metric, resource: &[KeyValue]) -> Result<(), NoMessages> {
    for unread in [&metric.histogram, &metric.exponential_histogram, &metric.summary].into_iter().flatten() {
        pivot.ignored.histogram += unread.data_points.len() as u64;
    }
    if let Some(gauge) = &metric.gauge {
        add_points(pivot, column(&metric.name), gauge, resource)?;
    }
    if let Some(sum) = &metric.sum {
        if sum.aggregation_temporality == 1 {
            pivot.ignored.delta += sum.data_points.len() as u64;
            return Ok(());
        }
        // A collector may take the suffix of Prometheus' counters away.
        let field = column(&metric.name).or_else(|| column(&format!("{}_total", metric.name)));
        add_points(pivot, field, sum, resource)?;
    }
    Ok(())
}

fn add_points(
    pivot: &mut Pivot<'_>,
    field: Option<&'static Field>,
    points: &Points,
    resource: &[KeyValue],
) -> Result<(), NoMessages> {
    let Some(field) = field else {
        pivot.ignored.unknown += points.data_points.len() as u64;
        return Ok(());
    };
    for point in &points.data_points {
        let Point { attributes, time_unix_nano, as_double, as_int, flags } = point;
        #[expect(clippy::cast_precision_loss, reason = "the contract's columns are doubles")]
        let value = as_double.or(as_int.map(|value| value as f64));
        let Some(value) = value.filter(|_| flags & 1 == 0) else {
            pivot.ignored.stale += 1;
            continue;
        };
        pivot.room.take(attributes.len() + resource.len())?;
        // What a point says of itself comes before what its resource says.
        let label = |name: &str| find(attributes, name).or_else(|| find(resource, name));
        let identity = Identity::of(label, is_of_gpu(field));
        let at_ms = i64::try_from(time_unix_nano / 1_000_000).unwrap_or(0);
        pivot.add(field, &identity, hash(label(SPLIT_BY)), at_ms, value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
