//! Requests as senders write them.

use prost::Message;
use weir_bridge::proto::otlp::TracesRequest;
use weir_bridge::proto::remote_write::{Label, Sample, TimeSeries, WriteRequest};

pub const AT_MS: i64 = 1_700_000_000_000;

pub const REMOTE_WRITE: &[(&str, &str)] = &[
    ("Content-Type", "application/x-protobuf"),
    ("Content-Encoding", "snappy"),
    ("X-Prometheus-Remote-Write-Version", "0.1.0"),
];
pub const PROTOBUF: &[(&str, &str)] = &[("Content-Type", "application/x-protobuf")];
pub const JSON: &[(&str, &str)] = &[("Content-Type", "application/json")];

/// `gpus` GPUs sampled once, two columns each, `n` seconds after [`AT_MS`]; packed as remote-write is.
pub fn scrape(gpus: usize, n: i64) -> Vec<u8> {
    let series = |name: &str, gpu: usize, value: f64| {
        let labels = [("__name__", name), ("instance", "node-1:9400"), ("UUID", &format!("GPU-{gpu:04}"))];
        TimeSeries {
            labels: labels.map(|(name, value)| Label { name: name.into(), value: value.into() }).to_vec(),
            samples: vec![Sample { value, timestamp: AT_MS + 1000 * n }],
            histograms: Vec::new(),
        }
    };
    let timeseries = (0..gpus)
        .flat_map(|gpu| [series("DCGM_FI_DEV_GPU_UTIL", gpu, 50.0), series("DCGM_FI_DEV_FB_USED", gpu, 1024.0)])
        .collect();
    snap::raw::Encoder::new().compress_vec(&WriteRequest { timeseries }.encode_to_vec()).unwrap()
}

/// A request of `spans` spans of one trace.
pub fn trace(trace: u8, spans: usize) -> TracesRequest {
    let span = |n: usize| {
        serde_json::json!({
            "traceId": format!("{trace:02x}").repeat(16), "spanId": format!("{:016x}", n + 1), "name": format!("step {n}"),
            "startTimeUnixNano": "1700000000000000000", "endTimeUnixNano": "1700000001000000000",
        })
    };
    let spans: Vec<_> = (0..spans).map(span).collect();
    serde_json::from_value(serde_json::json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": spans }] }] })).unwrap()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
