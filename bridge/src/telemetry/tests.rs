//! What exporters send, and what ingest reads of it.

use proptest::prelude::*;

use super::*;
use crate::proto::otlp::{AnyValue, Resource, ResourceMetrics, ScopeMetrics};
use crate::proto::remote_write::{Label, TimeSeries, TimeSeriesV2, Unread};

const ROOM: Room = Room::of(usize::MAX);
const AT_MS: i64 = 1_700_000_000_000;

/// Labels as DCGM's exporter and vLLM set them, with those of the scrape.
const GPU_0: &[(&str, &str)] = &[
    ("instance", "node-1:9400"),
    ("job", "dcgm"),
    ("gpu", "0"),
    ("UUID", "GPU-0000"),
    ("modelName", "NVIDIA H100 80GB HBM3"),
    ("pool", "h100"),
];
const ENGINE: &[(&str, &str)] =
    &[("instance", "node-1:8000"), ("engine", "0"), ("model_name", "llama"), ("pool", "h100")];

fn series(name: &str, labels: &[(&str, &str)], samples: &[(i64, f64)]) -> TimeSeries {
    let mut pairs = vec![("__name__", name)];
    pairs.extend_from_slice(labels);
    TimeSeries {
        labels: pairs.iter().map(|(name, value)| Label { name: (*name).into(), value: (*value).into() }).collect(),
        samples: samples.iter().map(|(timestamp, value)| Sample { value: *value, timestamp: *timestamp }).collect(),
        histograms: Vec::new(),
    }
}

fn pivot(timeseries: Vec<TimeSeries>) -> (Vec<Value>, Ignored) {
    let (messages, ignored) = of_remote_write(&WriteRequest { timeseries }, &Parts::default(), ROOM).unwrap();
    (messages.iter().map(read).collect(), ignored)
}

/// As ingest reads it: a message that the contract does not take fails here.
fn read(message: &Message) -> Value {
    serde_json::from_slice::<GpuTelemetry>(&message.payload).expect("a message of the contract");
    serde_json::from_slice(&message.payload).unwrap()
}

#[test]
fn samples_of_one_time_and_gpu_are_one_message_and_an_engine_is_another() {
    let (messages, ignored) = pivot(vec![
        series("DCGM_FI_DEV_GPU_UTIL", GPU_0, &[(AT_MS, 97.0), (AT_MS + 15_000, 98.0)]),
        series("DCGM_FI_DEV_POWER_USAGE", GPU_0, &[(AT_MS, 612.5)]),
        series("vllm:num_requests_running", ENGINE, &[(AT_MS, 31.0)]),
        series("vllm:gpu_cache_usage_perc", ENGINE, &[(AT_MS, 0.5)]),
    ]);
    let expected = serde_json::json!([
        {"event_ms": AT_MS, "pool": "h100", "instance": "node-1:8000", "model": "llama",
         "vllm:num_requests_running": 31.0, "vllm:kv_cache_usage_perc": 0.5},
        {"event_ms": AT_MS, "pool": "h100", "instance": "node-1:9400", "gpu": "GPU-0000",
         "gpu_model": "NVIDIA H100 80GB HBM3", "DCGM_FI_DEV_GPU_UTIL": 97.0, "DCGM_FI_DEV_POWER_USAGE": 612.5},
        {"event_ms": AT_MS + 15_000, "pool": "h100", "instance": "node-1:9400", "gpu": "GPU-0000",
         "gpu_model": "NVIDIA H100 80GB HBM3", "DCGM_FI_DEV_GPU_UTIL": 98.0},
    ]);
    assert_eq!((Value::from(messages), ignored), (expected, Ignored::default()));
}

#[test]
fn what_the_contract_lacks_or_rules_out_is_counted_by_its_reason() {
    let mut with_histogram = series("vllm:time_to_first_token_seconds", ENGINE, &[]);
    with_histogram.histograms = vec![Unread {}; 3];
    let (messages, ignored) = pivot(vec![
        series("up", GPU_0, &[(AT_MS, 1.0)]),
        series("vllm:e2e_request_latency_seconds_bucket", ENGINE, &[(AT_MS, 1.0), (AT_MS + 1, 1.0)]),
        // A column of the contract, and not a sample's.
        series("extra", GPU_0, &[(AT_MS, 1.0)]),
        with_histogram,
        series(
            "DCGM_FI_DEV_GPU_UTIL",
            GPU_0,
            &[(AT_MS, f64::from_bits(STALE)), (AT_MS + 1, 101.0), (AT_MS + 2, f64::NAN)],
        ),
        // DCGM_FP64_BLANK, 2^47: "no value".
        series("DCGM_FI_DEV_POWER_USAGE", GPU_0, &[(AT_MS, 140_737_488_355_328.0), (0, 1.0)]),
        series("DCGM_FI_DEV_GPU_TEMP", GPU_0, &[(AT_MS, 60.0)]),
        series("DCGM_FI_DEV_GPU_TEMP", &[GPU_0, &[("pod", "a")]].concat(), &[(AT_MS, 61.0)]),
    ]);
    let expected =
        Ignored { unknown: 4, histogram: 3, stale: 1, out_of_range: 3, doubled: 1, no_time: 1, ..Ignored::default() };
    assert_eq!(ignored, expected);
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0]["DCGM_FI_DEV_GPU_TEMP"], 60.0);
}

#[test]
fn slices_of_a_gpu_and_engines_of_a_server_are_told_apart() {
    let slice = [GPU_0, &[("GPU_I_ID", "3")]].concat();
    let second = [("instance", "node-1:8000"), ("engine", "1"), ("model_name", "llama")];
    let (messages, _) = pivot(vec![
        series("DCGM_FI_DEV_FB_USED", GPU_0, &[(AT_MS, 10.0)]),
        series("DCGM_FI_DEV_FB_USED", &slice, &[(AT_MS, 4.0)]),
        series("vllm:num_requests_waiting", ENGINE, &[(AT_MS, 1.0)]),
        series("vllm:num_requests_waiting", &second, &[(AT_MS, 2.0)]),
    ]);
    let mut who: Vec<String> = messages
        .iter()
        .map(|message| message["gpu"].as_str().or(message["instance"].as_str()).unwrap().to_owned())
        .collect();
    who.sort();
    assert_eq!(who, ["GPU-0000", "GPU-0000/3", "node-1:8000", "node-1:8000/engine-1"]);
}

#[test]
fn a_counter_in_parts_is_their_sum_however_a_scrape_is_split_over_requests() {
    let part = |reason: &'static str, at: i64, value: f64| {
        series(SPLIT, &[ENGINE, &[("finished_reason", reason)]].concat(), &[(at, value)])
    };
    let parts = Parts::default();
    let sums = |timeseries: Vec<TimeSeries>| {
        let (messages, _) = of_remote_write(&WriteRequest { timeseries }, &parts, ROOM).unwrap();
        messages.iter().map(|message| read(message)[SPLIT].as_f64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(sums(vec![part("stop", AT_MS, 5.0), part("length", AT_MS, 2.0)]), [7.0]);
    // The next scrape comes in two requests.
    let next = AT_MS + 15_000;
    assert_eq!(sums(vec![part("stop", next, 8.0)]), [10.0]);
    assert_eq!(sums(vec![part("length", next, 3.0)]), [11.0]);
    // A request that comes late does not turn a part back.
    assert_eq!(sums(vec![part("length", AT_MS, 2.0)]), [11.0]);
    // Another scraper's label makes no further part.
    let elsewhere = [ENGINE, &[("finished_reason", "stop"), ("scraper", "b")]].concat();
    assert_eq!(sums(vec![series(SPLIT, &elsewhere, &[(next, 8.0)])]), [11.0]);
    // A part that ended long ago counts no more.
    assert_eq!(sums(vec![part("stop", next + PART_LIVES_MS + 1, 9.0)]), [9.0]);
}

#[test]
fn both_protocols_of_remote_write_say_the_same() {
    let v1 = vec![series("DCGM_FI_DEV_SM_CLOCK", GPU_0, &[(AT_MS, 1980.0)]), series("up", GPU_0, &[(AT_MS, 1.0)])];
    let mut symbols = vec![String::new()];
    let mut index = |text: &str| {
        let found = symbols.iter().position(|known| known == text);
        u32::try_from(found.unwrap_or_else(|| {
            symbols.push(text.to_owned());
            symbols.len() - 1
        }))
        .unwrap()
    };
    let timeseries = v1
        .iter()
        .map(|series| TimeSeriesV2 {
            labels_refs: series.labels.iter().flat_map(|label| [index(&label.name), index(&label.value)]).collect(),
            samples: series.samples.clone(),
            histograms: Vec::new(),
        })
        .collect();
    let mut v2 = Request { symbols, timeseries };
    let of_v1 = of_remote_write(&WriteRequest { timeseries: v1 }, &Parts::default(), ROOM);
    assert_eq!(of_remote_write_v2(&v2, &Parts::default(), ROOM), of_v1);
    v2.timeseries[0].labels_refs[1] = 99;
    assert!(of_remote_write_v2(&v2, &Parts::default(), ROOM).is_err());
    v2.timeseries[0].labels_refs = vec![0];
    assert!(of_remote_write_v2(&v2, &Parts::default(), ROOM).is_err());
}

#[test]
fn long_names_of_many_samples_are_refused_before_they_fill_the_memory() {
    let long = "n".repeat(1 << 20);
    let labels = [("instance", long.as_str()), ("UUID", "GPU-0")];
    let samples: Vec<_> = (1..1_000).map(|at| (at, 1.0)).collect();
    let request = WriteRequest { timeseries: vec![series("DCGM_FI_DEV_GPU_UTIL", &labels, &samples)] };
    let refused = of_remote_write(&request, &Parts::default(), Room::of(64 << 20));
    assert_eq!(refused, Err(NoMessages::TooMuch));
    // In protocol 2.0 it is enough to name it.
    let symbols = ["__name__", "DCGM_FI_DEV_GPU_UTIL", "instance", &long].map(str::to_owned).to_vec();
    let one = TimeSeriesV2 { labels_refs: vec![0, 1, 2, 3], samples: Vec::new(), histograms: Vec::new() };
    let request = Request { symbols, timeseries: vec![one; 1_000] };
    let refused = of_remote_write_v2(&request, &Parts::default(), Room::of(64 << 20));
    assert_eq!(refused, Err(NoMessages::TooMuch));
}

#[test]
fn parts_without_end_are_not_remembered() {
    let parts = Parts::default();
    for (number, instance) in ["i", &"n".repeat(MOST_NAME_BYTES + 1)].into_iter().enumerate() {
        let identity = Identity { instance: Some(instance.to_owned()), ..Identity::default() };
        let sums: Vec<f64> = (0..2_000).map(|part| parts.sum(&identity, part, AT_MS, 1.0)).collect();
        assert_eq!(sums.iter().copied().fold(0.0, f64::max), [1_000.0, 1.0][number]);
    }
}

fn attribute(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { string_value: Some(value.into()), ..AnyValue::default() }) }
}

fn otlp(metrics: Vec<Metric>) -> (Vec<Value>, Ignored) {
    let resource =
        Resource { attributes: vec![attribute("service.instance.id", "node-1:9400"), attribute("pool", "h100")] };
    let scope_metrics = vec![ScopeMetrics { metrics }];
    let request =
        MetricsRequest { resource_metrics: vec![ResourceMetrics { resource: Some(resource), scope_metrics }] };
    let (messages, ignored) = of_otlp(&request, &Parts::default(), ROOM).unwrap();
    (messages.iter().map(read).collect(), ignored)
}

#[test]
fn otlp_points_become_the_same_messages_as_remote_write() {
    let at = u64::try_from(AT_MS).unwrap() * 1_000_000;
    let gpu =
        || vec![attribute("gpu", "0"), attribute("UUID", "GPU-0000"), attribute("modelName", "NVIDIA H100 80GB HBM3")];
    let point =
        |attributes, value: f64| Point { attributes, time_unix_nano: at, as_double: Some(value), ..Point::default() };
    let gauge = |name: &str, point| Metric {
        name: name.into(),
        gauge: Some(Points { data_points: vec![point], aggregation_temporality: 0 }),
        ..Metric::default()
    };
    let sum = |name: &str, temporality, value| Metric {
        name: name.into(),
        sum: Some(Points {
            data_points: vec![Point { time_unix_nano: at, as_int: Some(value), ..Point::default() }],
            aggregation_temporality: temporality,
        }),
        ..Metric::default()
    };
    let stale = Point { flags: 1, ..point(gpu(), 0.0) };
    let (messages, ignored) = otlp(vec![
        gauge("DCGM_FI_DEV_GPU_UTIL", point(gpu(), 97.0)),
        gauge("DCGM_FI_DEV_POWER_USAGE", point(gpu(), 612.5)),
        gauge("DCGM_FI_DEV_GPU_TEMP", stale),
        sum("vllm:prompt_tokens", 2, 1234),
        sum("vllm:generation_tokens_total", 2, 99),
        sum("vllm:num_preemptions_total", 1, 1),
        sum("http.server.requests", 2, 1),
    ]);
    let expected = serde_json::json!([
        {"event_ms": AT_MS, "pool": "h100", "instance": "node-1:9400",
         "vllm:prompt_tokens_total": 1234.0, "vllm:generation_tokens_total": 99.0},
        {"event_ms": AT_MS, "pool": "h100", "instance": "node-1:9400", "gpu": "GPU-0000",
         "gpu_model": "NVIDIA H100 80GB HBM3", "DCGM_FI_DEV_GPU_UTIL": 97.0, "DCGM_FI_DEV_POWER_USAGE": 612.5},
    ]);
    assert_eq!(Value::from(messages), expected);
    assert_eq!(ignored, Ignored { unknown: 1, stale: 1, delta: 1, ..Ignored::default() });
}

proptest! {
    #[test]
    fn every_sample_is_in_a_message_or_counted(
        samples in prop::collection::vec((0..6_usize, 0..3_usize, -5..50_i64, any::<f64>()), 0..60),
    ) {
        let names = ["DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_FB_USED", "vllm:num_requests_running", SPLIT, "up", "event_ms"];
        let gpus = ["GPU-0", "GPU-1", ""];
        let timeseries = samples
            .iter()
            .map(|(name, gpu, at, value)| series(names[*name], &[("UUID", gpus[*gpu]), ("instance", "i")], &[(*at, *value)]))
            .collect();
        let (messages, ignored) = pivot(timeseries);
        let columns: usize = messages
            .iter()
            .map(|message| message.as_object().unwrap().keys().filter(|key| names.contains(&key.as_str())).count() - 1)
            .sum();
        // Parts of a counter share their column.
        let parts = samples.iter().filter(|(name, _, at, value)| {
            names[*name] == SPLIT && *at > 0 && GpuTelemetry::contract().field(SPLIT).unwrap().bounds().unwrap().allow(*value)
        });
        let part_columns = messages.iter().filter(|message| message.get(SPLIT).is_some()).count();
        let shared = parts.count() - part_columns;
        let counted = ignored.unknown + ignored.stale + ignored.out_of_range + ignored.doubled + ignored.no_time;
        prop_assert_eq!(columns + shared + usize::try_from(counted).unwrap(), samples.len());
    }
}
